/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/portio.c: IN, OUT, INS and OUTS. */
#include "core/x86/control.h"
#include "core/x86/sys_handlers.h"

/* Iterations of a REP form until the slow loop gets its turn. */
#define REP_MAX 256

#define TSS_IOMAP     0x66u /* offset of the I/O map base in a 32-bit or 64-bit TSS */
#define TSS_LIMIT_MIN 0x67u

static uint64_t tss_linear(const struct x86_cpu *cpu, uint32_t offset)
{
    uint64_t linear = cpu->seg[VMM_TR].base + offset;

    return cpu->efer & X86_EFER_LMA ? linear : (uint32_t)linear;
}

/* The I/O permission bit map (SDM Vol. 1 19.5.2); false: an exception is queued. */
static bool bitmap_allows(struct x86_cpu *cpu, uint16_t port, unsigned size)
{
    const struct vmm_segment *tr = &cpu->seg[VMM_TR];
    unsigned type = tr->ar & VMM_AR_TYPE;
    uint16_t map, bits;

    if (!(tr->ar & VMM_AR_UNUSABLE) && (type == 9 || type == 11) && tr->limit >= TSS_LIMIT_MIN) {
        if (!x86_sys_read(cpu, tss_linear(cpu, TSS_IOMAP), &map, 2))
            return false;
        /* Two bytes are read whatever the port, which is why the map ends in a byte of ones. */
        if ((uint32_t)map + port / 8 + 1 <= tr->limit) {
            if (!x86_sys_read(cpu, tss_linear(cpu, map + port / 8u), &bits, 2))
                return false;
            if (!(bits >> (port & 7) & ((1u << size) - 1)))
                return true;
        }
    }
    x86_raise_err(cpu, X86_GP, 0);
    return false;
}

static bool port_allowed(struct x86_cpu *cpu, const struct x86_op *op, uint16_t port)
{
    unsigned iopl = (cpu->rflags & X86_IOPL) >> X86_IOPL_SHIFT;

    if (x86_likely(cpu->cpl <= iopl && !(cpu->mode & X86_MODE_VM86)))
        return true;
    cpu->cur_idx = op->idx;
    return bitmap_allows(cpu, port, op->size);
}

/* One access, with its breakpoints; false: the instruction is to be left. */
static bool port_access(struct x86_cpu *cpu, const struct x86_op *op, uint16_t port, bool write,
                        uint64_t *value)
{
    cpu->cur_idx = op->idx;
    if (!x86_env_result(cpu, cpu->env->pio(cpu->env->mmu.ctx, port, op->size, write, value)))
        return false;
    if (x86_unlikely(cpu->dr.dr7 & 0xff))
        x86_watch_port(cpu, port, op->size);
    return true;
}

/* ---- IN and OUT: op->rm: the port is in DX, else in op->imm ---- */

static uint16_t port_of(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return op->rm ? (uint16_t)cpu->gpr[VMM_RDX] : (uint16_t)op->imm;
}

const struct x86_op *x86_sys_in(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t port = port_of(cpu, op);
    uint64_t value = 0;

    if (!port_allowed(cpu, op, port) || !port_access(cpu, op, port, false, &value))
        return x86_leave(cpu, op);
    x86_set_reg(cpu, VMM_RAX, op->size, value);
    return x86_next(cpu, x86_op_next(cpu, op));
}

const struct x86_op *x86_sys_out(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t port = port_of(cpu, op);
    uint64_t value = x86_get_reg(cpu, VMM_RAX, op->size);

    if (!port_allowed(cpu, op, port) || !port_access(cpu, op, port, true, &value))
        return x86_leave(cpu, op);
    return x86_next(cpu, x86_op_next(cpu, op));
}

/* ---- INS and OUTS: op->r: with REP ---- */

static unsigned address_bytes(const struct x86_op *op)
{
    return 2u << op->asz;
}

static void advance(struct x86_cpu *cpu, const struct x86_op *op, unsigned slot)
{
    uint64_t old = x86_get_reg(cpu, slot, address_bytes(op));

    x86_set_reg(cpu, slot, address_bytes(op),
                cpu->rflags & X86_DF ? old - op->size : old + op->size);
}

static bool ins_once(struct x86_cpu *cpu, const struct x86_op *op, uint16_t port)
{
    uint64_t linear, value = 0;

    if (!x86_seg_check(cpu, VMM_ES, x86_get_reg(cpu, VMM_RDI, address_bytes(op)), op->size, true,
                       &linear))
        return false;
    /* Reading the port has effects, so nothing may fail after it. */
    if (!mmu_fast_write(&cpu->mmu, cpu->mmu_idx, linear, op->size)) {
        int r;

        if (cpu->mmu_idx == MMU_USER_ALIGN && (linear & (op->size - 1u))) {
            x86_raise_err(cpu, X86_AC_, 0);
            return false;
        }
        cpu->cur_idx = op->idx;
        r = mmu_probe(&cpu->mmu, cpu->mmu_idx, linear, op->size, MMU_WRITE);
        if (r != MMU_OK) {
            x86_mmu_failed(cpu, r, VMM_ES);
            return false;
        }
    }
    if (!port_access(cpu, op, port, false, &value) ||
        !x86_write(cpu, op, VMM_ES, linear, &value, op->size))
        return false;
    advance(cpu, op, VMM_RDI);
    return true;
}

static bool outs_once(struct x86_cpu *cpu, const struct x86_op *op, uint16_t port)
{
    uint64_t linear, value = 0;

    if (!x86_seg_check(cpu, op->seg, x86_get_reg(cpu, VMM_RSI, address_bytes(op)), op->size, false,
                       &linear) ||
        !x86_read(cpu, op, op->seg, linear, &value, op->size) ||
        !port_access(cpu, op, port, true, &value))
        return false;
    advance(cpu, op, VMM_RSI);
    return true;
}

/* Whether a REP form must be left between two iterations. */
static bool interrupted(struct x86_cpu *cpu, unsigned n)
{
    if (cpu->tf_trap)
        cpu->pending_db |= X86_DR6_BS;
    if (n % REP_MAX == 0)
        cpu->env->poll(cpu->env->mmu.ctx);
    return n % REP_MAX == 0 || cpu->pending_db || cpu->stop ||
           atomic_load_explicit(&cpu->attention, memory_order_relaxed);
}

static const struct x86_op *string(struct x86_cpu *cpu, const struct x86_op *op,
                                   bool (*once)(struct x86_cpu *, const struct x86_op *, uint16_t))
{
    uint16_t port = X86_R16(cpu, VMM_RDX);
    uint64_t count = op->r ? x86_get_reg(cpu, VMM_RCX, address_bytes(op)) : 1;

    if (!port_allowed(cpu, op, port)) /* with a count of 0, too */
        return x86_leave(cpu, op);
    for (unsigned n = 1; count; n++) {
        if (!once(cpu, op, port))
            return x86_leave(cpu, op);
        count--;
        if (!op->r)
            break;
        x86_set_reg(cpu, VMM_RCX, address_bytes(op), count);
        cpu->rep_serial++;
        if (count && interrupted(cpu, n))
            return x86_leave(cpu, op);
    }
    return x86_next(cpu, x86_op_next(cpu, op));
}

const struct x86_op *x86_sys_ins(struct x86_cpu *cpu, const struct x86_op *op)
{
    return string(cpu, op, ins_once);
}

const struct x86_op *x86_sys_outs(struct x86_cpu *cpu, const struct x86_op *op)
{
    return string(cpu, op, outs_once);
}
