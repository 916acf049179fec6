/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_seg.c: decoding of segment loads, far transfers, software interrupts and returns. */
#include "core/x86/ops_sys.h"
#include "core/x86/sys_handlers.h"

static unsigned operand_size(const struct x86_dec *d)
{
    return d->insn.operand_width / 8;
}

/* Operand `i` as r/m16: memory, or a register of which the low 16 bits count. */
static void dec_rm16(const struct x86_dec *d, unsigned i, struct x86_op *op)
{
    if (x86_dec_is_mem(d, i)) {
        x86_dec_mem(d, i, op);
    } else {
        op->base = X86_NGPR;
        op->rm = x86_dec_reg(d->opnd[i].reg.value);
    }
}

static unsigned dec_sreg(const struct x86_dec *d, unsigned i)
{
    return (unsigned)(d->opnd[i].reg.value - ZYDIS_REGISTER_ES) + VMM_ES;
}

/* Whether a load of segment register `seg` can change what later instructions of the block were
 * decoded for (X86_MODE_FLAT, the stack's size, the interrupt shadow). */
static bool load_ends_block(const struct x86_dec *d, unsigned seg)
{
    return seg == VMM_SS || !x86_dec_64(d);
}

bool x86_dec_far(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    op->size = (uint8_t)operand_size(d);
    op->imm = 0;
    d->end = true;
    if (arg == X86_FAR_RET) {
        op->fn = x86_sys_ret_far;
        if (d->insn.operand_count_visible)
            op->imm = d->opnd[0].imm.value.u & 0xffff;
        return true;
    }
    if (x86_dec_is_mem(d, 0)) {
        op->fn = arg == X86_FAR_JMP ? x86_sys_jmp_far_mem : x86_sys_call_far_mem;
        x86_dec_mem(d, 0, op);
        return true;
    }
    op->fn = arg == X86_FAR_JMP ? x86_sys_jmp_far : x86_sys_call_far;
    op->imm = (op->size == 2 ? d->opnd[0].ptr.offset & 0xffff : d->opnd[0].ptr.offset) |
              (uint64_t)d->opnd[0].ptr.segment << 32;
    return true;
}

bool x86_dec_push_seg(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    op->fn = x86_sys_push_seg;
    op->size = (uint8_t)operand_size(d);
    op->imm = dec_sreg(d, 0);
    return true;
}

bool x86_dec_pop_seg(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    op->fn = x86_sys_pop_seg;
    op->size = (uint8_t)operand_size(d);
    op->imm = dec_sreg(d, 0);
    d->end = load_ends_block(d, (unsigned)op->imm);
    return op->imm != VMM_CS;
}

bool x86_dec_mov_seg(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    bool load = x86_dec_is_reg(d, 0) &&
                ZydisRegisterGetClass(d->opnd[0].reg.value) == ZYDIS_REGCLASS_SEGMENT;

    (void)arg;
    op->size = (uint8_t)operand_size(d);
    op->imm = dec_sreg(d, load ? 0 : 1);
    dec_rm16(d, load ? 1 : 0, op);
    op->fn = load ? x86_sys_mov_to_seg : x86_sys_mov_from_seg;
    if (!load)
        return true;
    d->end = load_ends_block(d, (unsigned)op->imm);
    return op->imm != VMM_CS;
}

static bool dec_lxs(struct x86_dec *d, struct x86_op *op)
{
    switch (d->insn.mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
        op->imm = VMM_DS;
        break;
    case ZYDIS_MNEMONIC_LES:
        op->imm = VMM_ES;
        break;
    case ZYDIS_MNEMONIC_LFS:
        op->imm = VMM_FS;
        break;
    case ZYDIS_MNEMONIC_LGS:
        op->imm = VMM_GS;
        break;
    default:
        op->imm = VMM_SS;
    }
    if (!x86_dec_is_mem(d, 1))
        return false;
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    x86_dec_mem(d, 1, op);
    d->end = load_ends_block(d, (unsigned)op->imm);
    return true;
}

bool x86_dec_sys_seg(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    static x86_fn *const fn[] = {
        [X86_SYS_INT] = x86_sys_int,         [X86_SYS_INT1] = x86_sys_int1,
        [X86_SYS_INT3] = x86_sys_int3,       [X86_SYS_INTO] = x86_sys_into,
        [X86_SYS_IRET] = x86_sys_iret,       [X86_SYS_SYSCALL] = x86_sys_syscall,
        [X86_SYS_SYSRET] = x86_sys_sysret,   [X86_SYS_SYSENTER] = x86_sys_sysenter,
        [X86_SYS_SYSEXIT] = x86_sys_sysexit, [X86_SYS_LXS] = x86_sys_lxs,
        [X86_SYS_LAR] = x86_sys_lar,         [X86_SYS_LSL] = x86_sys_lsl,
        [X86_SYS_VERR] = x86_sys_verr,       [X86_SYS_VERW] = x86_sys_verw,
        [X86_SYS_ARPL] = x86_sys_arpl,       [X86_SYS_LLDT] = x86_sys_lldt,
        [X86_SYS_LTR] = x86_sys_ltr,         [X86_SYS_SLDT] = x86_sys_sldt,
        [X86_SYS_STR] = x86_sys_str,
    };

    op->fn = fn[arg];
    op->size = (uint8_t)operand_size(d);
    switch (arg) {
    case X86_SYS_INT:
        op->imm = d->opnd[0].imm.value.u & 0xff;
        d->end = true;
        return true;
    case X86_SYS_LXS:
        return dec_lxs(d, op);
    case X86_SYS_LAR:
    case X86_SYS_LSL:
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        dec_rm16(d, 1, op);
        return true;
    case X86_SYS_ARPL:
        op->r = x86_dec_reg(d->opnd[1].reg.value);
        dec_rm16(d, 0, op);
        return true;
    case X86_SYS_LLDT:
    case X86_SYS_LTR:
        dec_rm16(d, 0, op);
        d->end = true;
        return true;
    case X86_SYS_VERR:
    case X86_SYS_VERW:
    case X86_SYS_SLDT:
    case X86_SYS_STR:
        dec_rm16(d, 0, op);
        return true;
    case X86_SYS_INTO:
        return true;
    default:
        d->end = true;
        return true;
    }
}
