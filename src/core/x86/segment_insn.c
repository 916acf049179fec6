/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/segment_insn.c: the instructions that load, store and examine selectors. */
#include "core/x86/segment.h"
#include "core/x86/sys_handlers.h"

/* The selector in the r/m operand. */
static bool read_rm16(struct x86_cpu *cpu, const struct x86_op *op, uint16_t *v)
{
    if (op->base == X86_NGPR) {
        *v = X86_R16(cpu, op->rm);
        return true;
    }
    return x86_ld16(cpu, op, v);
}

/* Memory gets 16 bits, a register the zero-extended selector. */
static bool write_rm16(struct x86_cpu *cpu, const struct x86_op *op, uint16_t v)
{
    if (op->base == X86_NGPR) {
        x86_set_reg(cpu, op->rm, op->size, v);
        return true;
    }
    return x86_st16(cpu, op, v);
}

static bool load(struct x86_cpu *cpu, unsigned seg, uint16_t selector)
{
    if (x86_protected(cpu))
        return x86_load_seg(cpu, seg, selector);
    x86_load_seg_real(cpu, seg, selector);
    x86_cs_changed(cpu);
    return true;
}

/* Where a load goes on: only in 64-bit mode, and not of SS, within the block (ops_seg.c). */
static const struct x86_op *loaded(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (op->imm != VMM_SS && x86_code64(cpu))
        return op + 1;
    if (cpu->blk->mode != cpu->mode)
        return x86_next_slow(cpu, x86_op_next(cpu, op));
    return x86_next(cpu, x86_op_next(cpu, op));
}

/* MOV SS and POP SS keep events away from the next instruction (SDM Vol. 3A 6.8.3). */
static const struct x86_op *loaded_ss(struct x86_cpu *cpu, const struct x86_op *op)
{
    cpu->shadow |= VMM_SHADOW_MOV_SS;
    return x86_next_slow(cpu, x86_op_next(cpu, op));
}

const struct x86_op *x86_sys_mov_to_seg(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t selector;

    if (!read_rm16(cpu, op, &selector) || !load(cpu, (unsigned)op->imm, selector))
        return x86_leave(cpu, op);
    return op->imm == VMM_SS ? loaded_ss(cpu, op) : loaded(cpu, op);
}

const struct x86_op *x86_sys_mov_from_seg(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!write_rm16(cpu, op, cpu->seg[op->imm].selector))
        return x86_leave(cpu, op);
    return op + 1;
}

const struct x86_op *x86_sys_push_seg(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t selector = cpu->seg[op->imm].selector;
    uint64_t sp = (cpu->gpr[VMM_RSP] - op->size) & cpu->sp_mask, linear = sp;

    if (op->size != 4) {
        if (!x86_push(cpu, op, op->size, selector))
            return x86_leave(cpu, op);
        return op + 1;
    }
    /* The upper half of a 32-bit slot stays as it was, on all recent processors (SDM Vol. 2B,
     * PUSH). */
    if ((!x86_code64(cpu) && !x86_seg_check(cpu, VMM_SS, sp, 4, true, &linear)) ||
        !x86_write(cpu, op, VMM_SS, linear, &selector, 2))
        return x86_leave(cpu, op);
    cpu->gpr[VMM_RSP] = (cpu->gpr[VMM_RSP] & ~cpu->sp_mask) | sp;
    return op + 1;
}

const struct x86_op *x86_sys_pop_seg(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t mask = cpu->sp_mask, sp = (cpu->gpr[VMM_RSP] + op->size) & mask, value;

    if (!x86_peek(cpu, op, 0, op->size, &value) || !load(cpu, (unsigned)op->imm, (uint16_t)value))
        return x86_leave(cpu, op);
    cpu->gpr[VMM_RSP] = (cpu->gpr[VMM_RSP] & ~mask) | sp;
    return op->imm == VMM_SS ? loaded_ss(cpu, op) : loaded(cpu, op);
}

const struct x86_op *x86_sys_lxs(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t offset;
    uint16_t selector;

    if (!x86_far_pointer(cpu, op, &offset, &selector))
        return x86_leave(cpu, op);
    if (!load(cpu, (unsigned)op->imm, selector))
        return x86_leave(cpu, op);
    x86_set_reg(cpu, op->r, op->size, offset);
    return loaded(cpu, op);
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

/* System types that LAR and LSL accept, as bit masks (SDM Vol. 2A, LAR; LSL). */
#define LAR_LEGACY 0x1a3eu
#define LAR_LONG   0x1a04u
#define LSL_LEGACY 0x0a0eu
#define LSL_LONG   0x0a04u

enum verdict { VALID, INVALID, FAULT };

/* Finds the descriptor without faulting on what the selector says. `system`: valid system types. */
static enum verdict examine(struct x86_cpu *cpu, uint16_t selector, uint32_t system,
                            struct x86_desc *d)
{
    unsigned dpl;

    if (x86_null_selector(selector))
        return INVALID;
    if (!x86_desc_probe(cpu, selector, &d->addr))
        return INVALID;
    d->upper = 0;
    if (!x86_sys_read(cpu, d->addr, &d->raw, 8))
        return FAULT;
    if (!(x86_desc_ar(d) & VMM_AR_S) && !(system >> (x86_desc_ar(d) & VMM_AR_TYPE) & 1))
        return INVALID;
    dpl = x86_desc_dpl(d);
    if (!(x86_desc_is_code(d) && x86_desc_is_conforming(d)) &&
        (cpu->cpl > dpl || (selector & 3u) > dpl))
        return INVALID;
    return VALID;
}

static void set_zf(struct x86_cpu *cpu, bool zf)
{
    cpu->cc = (uint16_t)(zf ? cpu->cc | X86_CC_ZF : cpu->cc & ~X86_CC_ZF);
}

static const struct x86_op *lar_lsl(struct x86_cpu *cpu, const struct x86_op *op, bool lsl)
{
    bool lm = x86_long_mode(cpu);
    uint32_t system = lsl ? (lm ? LSL_LONG : LSL_LEGACY) : (lm ? LAR_LONG : LAR_LEGACY);
    struct x86_desc d;
    enum verdict v;
    uint16_t selector;

    if (!x86_protected(cpu))
        return x86_fault(cpu, op, X86_UD);
    if (!read_rm16(cpu, op, &selector))
        return x86_leave(cpu, op);
    v = examine(cpu, selector, system, &d);
    if (v == FAULT)
        return x86_leave(cpu, op);
    if (v == VALID)
        x86_set_reg(cpu, op->r, op->size, lsl ? x86_desc_limit(&d) : d.raw >> 32 & 0xffff00);
    set_zf(cpu, v == VALID);
    return op + 1;
}

const struct x86_op *x86_sys_lar(struct x86_cpu *cpu, const struct x86_op *op)
{
    return lar_lsl(cpu, op, false);
}

const struct x86_op *x86_sys_lsl(struct x86_cpu *cpu, const struct x86_op *op)
{
    return lar_lsl(cpu, op, true);
}

static const struct x86_op *verify(struct x86_cpu *cpu, const struct x86_op *op, bool write)
{
    struct x86_desc d;
    enum verdict v;
    uint16_t selector;
    bool ok;

    if (!x86_protected(cpu))
        return x86_fault(cpu, op, X86_UD);
    if (!read_rm16(cpu, op, &selector))
        return x86_leave(cpu, op);
    v = examine(cpu, selector, 0, &d);
    if (v == FAULT)
        return x86_leave(cpu, op);
    if (v == INVALID)
        ok = false;
    else if (write)
        ok = x86_desc_is_writable_data(&d);
    else
        ok = !x86_desc_is_code(&d) || (x86_desc_ar(&d) & X86_TYPE_READABLE);
    set_zf(cpu, ok);
    return op + 1;
}

const struct x86_op *x86_sys_verr(struct x86_cpu *cpu, const struct x86_op *op)
{
    return verify(cpu, op, false);
}

const struct x86_op *x86_sys_verw(struct x86_cpu *cpu, const struct x86_op *op)
{
    return verify(cpu, op, true);
}

const struct x86_op *x86_sys_arpl(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t source = X86_R16(cpu, op->r) & 3, dest;
    struct x86_rmw m;
    bool adjust;

    if (!x86_protected(cpu))
        return x86_fault(cpu, op, X86_UD);
    if (op->base == X86_NGPR) {
        dest = X86_R16(cpu, op->rm);
        adjust = (dest & 3) < source;
        if (adjust)
            X86_R16(cpu, op->rm) = (uint16_t)((dest & ~3) | source);
        set_zf(cpu, adjust);
        return op + 1;
    }
    if (!x86_rmw_begin(cpu, op, 2, false, &m))
        return x86_leave(cpu, op);
    mmu_copy(&dest, m.p, 2);
    adjust = (dest & 3) < source;
    if (adjust)
        dest = (uint16_t)((dest & ~3) | source);
    mmu_copy(m.p, &dest, 2);
    if (!x86_rmw_end(cpu, op, &m))
        return x86_leave(cpu, op);
    set_zf(cpu, adjust);
    return op + 1;
}

/* ---- LLDT, LTR, SLDT, STR ---- */

static const struct x86_op *load_system(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg)
{
    uint16_t selector;

    if (!x86_protected(cpu))
        return x86_fault(cpu, op, X86_UD);
    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!read_rm16(cpu, op, &selector) || !x86_load_seg(cpu, seg, selector))
        return x86_leave(cpu, op);
    return x86_next(cpu, x86_op_next(cpu, op));
}

const struct x86_op *x86_sys_lldt(struct x86_cpu *cpu, const struct x86_op *op)
{
    x86_serialize();
    return load_system(cpu, op, VMM_LDTR);
}

const struct x86_op *x86_sys_ltr(struct x86_cpu *cpu, const struct x86_op *op)
{
    x86_serialize();
    return load_system(cpu, op, VMM_TR);
}

static const struct x86_op *store_system(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg)
{
    if (!x86_protected(cpu))
        return x86_fault(cpu, op, X86_UD);
    if ((cpu->cr4 & X86_CR4_UMIP) && cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!write_rm16(cpu, op, cpu->seg[seg].selector))
        return x86_leave(cpu, op);
    return op + 1;
}

const struct x86_op *x86_sys_sldt(struct x86_cpu *cpu, const struct x86_op *op)
{
    return store_system(cpu, op, VMM_LDTR);
}

const struct x86_op *x86_sys_str(struct x86_cpu *cpu, const struct x86_op *op)
{
    return store_system(cpu, op, VMM_TR);
}
