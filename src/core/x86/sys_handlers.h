/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/sys_handlers.h: the handlers of the system instructions of enum x86_sys_insn. */
#ifndef CORE_X86_SYS_HANDLERS_H
#define CORE_X86_SYS_HANDLERS_H

#include "core/x86/decode.h"

/* Fills the whole op for X86_SYS_INT ... X86_SYS_STR; x86_dec_sys passes them on. [ops_seg.c] */
x86_dec_fn x86_dec_sys_seg;
/* MOV to and from a segment register; x86_dec_mov_sys passes these on. [ops_seg.c] */
x86_dec_fn x86_dec_mov_seg;

/*
 * op->size is the operand size in bytes. With a memory operand op->ea and so on are filled, and the
 * handlers that take a register as well find it in op->rm with op->base == X86_NGPR.
 */

/* event.c: op->imm is the vector of INT n. */
x86_fn x86_sys_int, x86_sys_int1, x86_sys_int3, x86_sys_into;

/* far.c: far branches have op->imm = offset | selector << 32, or a memory operand; RET has the
 * bytes to release in op->imm. */
x86_fn x86_sys_iret, x86_sys_jmp_far, x86_sys_jmp_far_mem, x86_sys_call_far, x86_sys_call_far_mem;
x86_fn x86_sys_ret_far;

/* syscall.c */
x86_fn x86_sys_syscall, x86_sys_sysret, x86_sys_sysenter, x86_sys_sysexit;

/* segment.c: op->r is the destination; LxS, MOV, PUSH and POP: op->imm is the segment register. */
x86_fn x86_sys_lxs, x86_sys_lar, x86_sys_lsl, x86_sys_verr, x86_sys_verw, x86_sys_arpl;
x86_fn x86_sys_lldt, x86_sys_ltr, x86_sys_sldt, x86_sys_str;
x86_fn x86_sys_mov_to_seg, x86_sys_mov_from_seg, x86_sys_push_seg, x86_sys_pop_seg;

/* The rest of enum x86_sys_insn, by the files that ops_sys.c names. */
x86_fn x86_sys_lgdt, x86_sys_lidt, x86_sys_sgdt, x86_sys_sidt, x86_sys_clts, x86_sys_lmsw;
x86_fn x86_sys_smsw, x86_sys_invlpg, x86_sys_invpcid, x86_sys_invd, x86_sys_wbinvd;
x86_fn x86_sys_xgetbv, x86_sys_xsetbv, x86_sys_hlt, x86_sys_rdpmc, x86_sys_rdtsc, x86_sys_rdtscp;
x86_fn x86_sys_rdpid, x86_sys_swapgs, x86_sys_rdfsbase, x86_sys_rdgsbase, x86_sys_wrfsbase;
x86_fn x86_sys_wrgsbase, x86_sys_stac, x86_sys_clac, x86_sys_rdpkru, x86_sys_wrpkru;
x86_fn x86_sys_cpuid, x86_sys_vmcall, x86_sys_serialize, x86_sys_rdmsr, x86_sys_wrmsr;
x86_fn x86_sys_cli, x86_sys_sti, x86_sys_pushf, x86_sys_popf, x86_sys_in, x86_sys_out;
x86_fn x86_sys_ins, x86_sys_outs;

#endif
