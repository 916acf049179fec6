/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/control.h: what the files of the control state share: control registers, MSRs, CPUID,
 * debug registers, flags. */
#ifndef CORE_X86_CONTROL_H
#define CORE_X86_CONTROL_H

#include "core/x86/exec.h"

/* CPUID feature bits that instructions and register checks look at. */
#define X86_F1_ECX_PCID       (1u << 17)
#define X86_F1_ECX_XSAVE      (1u << 26)
#define X86_F1_ECX_OSXSAVE    (1u << 27)
#define X86_F1_ECX_AVX        (1u << 28)
#define X86_F1_EDX_VME        (1u << 1)
#define X86_F1_EDX_DE         (1u << 2)
#define X86_F1_EDX_PSE        (1u << 3)
#define X86_F1_EDX_TSC        (1u << 4)
#define X86_F1_EDX_MSR        (1u << 5)
#define X86_F1_EDX_PAE        (1u << 6)
#define X86_F1_EDX_MCE        (1u << 7)
#define X86_F1_EDX_APIC       (1u << 9)
#define X86_F1_EDX_SEP        (1u << 11)
#define X86_F1_EDX_MTRR       (1u << 12)
#define X86_F1_EDX_PGE        (1u << 13)
#define X86_F1_EDX_MCA        (1u << 14)
#define X86_F1_EDX_PAT        (1u << 16)
#define X86_F1_EDX_FXSR       (1u << 24)
#define X86_F1_EDX_SSE        (1u << 25)
#define X86_F7_EBX_FSGSBASE   (1u << 0)
#define X86_F7_EBX_TSC_ADJUST (1u << 1)
#define X86_F7_EBX_SMEP       (1u << 7)
#define X86_F7_EBX_INVPCID    (1u << 10)
#define X86_F7_EBX_AVX512F    (1u << 16)
#define X86_F7_EBX_SMAP       (1u << 20)
#define X86_F7_ECX_UMIP       (1u << 2)
#define X86_F7_ECX_PKU        (1u << 3)
#define X86_F7_ECX_OSPKE      (1u << 4)
#define X86_F7_ECX_RDPID      (1u << 22)
#define X86_F7_EDX_SERIALIZE  (1u << 14)
#define X86_F7_EDX_IBRS       (1u << 26)
#define X86_F7_EDX_STIBP      (1u << 27)
#define X86_F7_EDX_ARCH_CAP   (1u << 29)
#define X86_F7_EDX_SSBD       (1u << 31)
#define X86_FX1_EDX_SYSCALL   (1u << 11)
#define X86_FX1_EDX_NX        (1u << 20)
#define X86_FX1_EDX_FFXSR     (1u << 25)
#define X86_FX1_EDX_RDTSCP    (1u << 27)
#define X86_FX1_EDX_LM        (1u << 29)
#define X86_FD1_XGETBV1       (1u << 2)
#define X86_FD1_XSAVES        (1u << 3)

/* IA32_MISC_ENABLE. */
#define X86_MISC_FAST_STRINGS (1ull << 0)
#define X86_MISC_BTS_NONE     (1ull << 11)
#define X86_MISC_PEBS_NONE    (1ull << 12)
#define X86_MISC_LIMIT_CPUID  (1ull << 22)
#define X86_MISC_XD_DISABLE   (1ull << 34)

/* IA32_EFER bits that the guest's CPUID allows. */
uint64_t x86_efer_allowed(const struct x86_cpu *cpu);
/* CR4 bits likewise. */
uint64_t x86_cr4_allowed(const struct x86_cpu *cpu);
/* Whether the value may be in XCR0 (SDM Vol. 1 13.3). */
bool x86_xcr0_valid(const struct x86_cpu *cpu, uint64_t value);
/* IA32_PAT: eight memory types. */
bool x86_pat_valid(uint64_t value);

/* Whether `linear` is canonical for register loads: by the CPU's width, whatever the mode. */
static inline bool x86_canonical(const struct x86_cpu *cpu, uint64_t linear)
{
    unsigned drop = 64 - (cpu->feat.linear_bits > 48 ? cpu->feat.linear_bits : 48);

    return (uint64_t)((int64_t)(linear << drop) >> drop) == linear;
}

static inline bool x86_code64(const struct x86_cpu *cpu)
{
    return (cpu->mode & X86_MODE_CODE) == X86_MODE_CODE64;
}

/* All but global pages, as MOV to CR3. [mode.c] */
void x86_flush_tlb_nonglobal(struct x86_cpu *cpu);
/* A MOV to CR3 with CR4.PCIDE and CR4.PGE; `keep`: bit 63. [mode.c] */
void x86_load_pcid(struct x86_cpu *cpu, uint16_t pcid, bool keep);

/* [control.c] */
uint64_t x86_read_cr8(struct x86_cpu *cpu);
void x86_write_cr8(struct x86_cpu *cpu, uint64_t value);

/* [debug.c] */
#define X86_DR6_FIXED 0xffff0ff0u
#define X86_DR6_WRITE 0xe00fu
#define X86_DR6_BD    0x2000u
#define X86_DR6_BS    0x4000u
#define X86_DR6_BT    0x8000u
#define X86_DR7_FIXED 0x400u
#define X86_DR7_WRITE 0xffff23ffu
#define X86_DR7_GD    0x2000u
/* Whether any break- or watchpoint of the guest or of the host program is armed. */
bool x86_breakpoints_armed(const struct x86_cpu *cpu);
/* An access to `size` ports from `port`: I/O breakpoints. */
void x86_watch_port(struct x86_cpu *cpu, uint16_t port, unsigned size);

/* Turns the result of an env function into cpu->event or cpu->stop; true for X86_ENV_OK. */
static inline bool x86_env_result(struct x86_cpu *cpu, int result)
{
    if (x86_likely(result == X86_ENV_OK))
        return true;
    if (result == X86_ENV_GP)
        x86_raise_err(cpu, X86_GP, 0);
    else
        cpu->stop = X86_STOP_ABORT;
    return false;
}

/* CPUID as the guest sees it, with the dynamic bits. X86_ENV_*. [cpuid.c] */
int x86_cpuid(struct x86_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
/* Its second half: what registers have a part in; and whether they have in this leaf. */
void x86_cpuid_fill(const struct x86_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
bool x86_cpuid_is_dynamic(uint32_t leaf);

/* Handlers of MOV with control and debug registers: op->imm is the number. */
x86_fn x86_sys_mov_to_cr, x86_sys_mov_from_cr;
x86_fn x86_sys_mov_to_dr, x86_sys_mov_from_dr;

#endif
