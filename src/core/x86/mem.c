/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/mem.c: memory accesses of instructions beyond the TLB's fast path; segments; the stack.
 */
#include <string.h>

#include "core/x86/segment.h"

void x86_mmu_failed(struct x86_cpu *cpu, int result, unsigned seg)
{
    switch (result) {
    case MMU_FAULT:
        x86_raise_err(cpu, X86_PF_, cpu->mmu.fault_error);
        cpu->event.has_cr2 = true;
        cpu->event.cr2 = cpu->mmu.fault_addr;
        break;
    case MMU_NONCANON:
        x86_raise_err(cpu, seg == VMM_SS ? X86_SS : X86_GP, 0);
        break;
    default:
        cpu->stop = X86_STOP_ABORT;
    }
}

static bool segment_fault(struct x86_cpu *cpu, unsigned seg)
{
    x86_raise_err(cpu, seg == VMM_SS ? X86_SS : X86_GP, 0);
    return false;
}

bool x86_seg_check(struct x86_cpu *cpu, unsigned seg, uint64_t offset, unsigned size, bool write,
                   uint64_t *linear)
{
    const struct vmm_segment *s = &cpu->seg[seg];

    if ((cpu->mode & X86_MODE_CODE) == X86_MODE_CODE64) {
        *linear = seg == VMM_FS || seg == VMM_GS ? offset + s->base : offset;
        return true;
    }
    if (cpu->mode & X86_MODE_PE) {
        if (s->ar & VMM_AR_UNUSABLE)
            return segment_fault(cpu, seg);
        if (!(cpu->mode & X86_MODE_VM86)) {
            if (s->ar & X86_TYPE_CODE) {
                if (write || !(s->ar & X86_TYPE_READABLE))
                    return segment_fault(cpu, seg);
            } else if (write && !(s->ar & X86_TYPE_WRITABLE)) {
                return segment_fault(cpu, seg);
            }
        }
    }
    if (!x86_within_limit(s, offset, size))
        return segment_fault(cpu, seg);
    *linear = (uint32_t)(s->base + offset);
    return true;
}

bool x86_ea_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, bool write,
                 uint64_t *linear)
{
    uint64_t offset = x86_offset(cpu, op);

    if (op->asz == X86_A16)
        offset &= 0xffff;
    else if (op->asz == X86_A32)
        offset &= 0xffffffff;
    return x86_seg_check(cpu, op->seg, offset, size, write, linear);
}

/* Alignment checking of CPL 3 accesses (SDM Vol. 3A 7.15, #AC). x87's 10 bytes count as 8. */
static bool aligned(struct x86_cpu *cpu, uint64_t linear, unsigned size)
{
    unsigned unit = size == 10 ? 8 : size;

    if (cpu->mmu_idx != MMU_USER_ALIGN || unit > 8 || !(linear & (unit - 1)) ||
        !mmu_canonical(&cpu->mmu, linear)) /* the MMU will tell */
        return true;
    x86_raise_err(cpu, X86_AC_, 0);
    return false;
}

bool x86_read_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg, uint64_t linear,
                   void *buf, unsigned size)
{
    int r;

    if (op)
        cpu->cur_idx = op->idx;
    if (!aligned(cpu, linear, size))
        return false;
    r = mmu_read(&cpu->mmu, cpu->mmu_idx, linear, buf, size);
    if (r != MMU_OK) {
        x86_mmu_failed(cpu, r, seg);
        return false;
    }
    if (x86_unlikely(cpu->mmu.nwatch))
        x86_watch_access(cpu, linear, size, false);
    return true;
}

bool x86_write_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg, uint64_t linear,
                    const void *buf, unsigned size)
{
    int r;

    if (op)
        cpu->cur_idx = op->idx;
    if (!aligned(cpu, linear, size))
        return false;
    r = mmu_write(&cpu->mmu, cpu->mmu_idx, linear, buf, size);
    if (r != MMU_OK) {
        x86_mmu_failed(cpu, r, seg);
        return false;
    }
    if (x86_unlikely(cpu->mmu.nwatch))
        x86_watch_access(cpu, linear, size, true);
    return true;
}

struct x86_value x86_ld_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned size)
{
    struct x86_value r = {0, false};
    uint64_t linear;

    r.ok =
        x86_ea(cpu, op, size, false, &linear) && x86_read(cpu, op, op->seg, linear, &r.value, size);
    return r;
}

bool x86_st_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, uint64_t value)
{
    uint64_t linear;

    return x86_ea(cpu, op, size, true, &linear) &&
           x86_write(cpu, op, op->seg, linear, &value, size);
}

bool x86_sys_read(struct x86_cpu *cpu, uint64_t linear, void *buf, unsigned size)
{
    const uint8_t *p = mmu_fast_read(&cpu->mmu, MMU_KERNEL, linear, size);
    int r;

    if (x86_likely(p)) {
        mmu_copy(buf, p, size);
        return true;
    }
    r = mmu_read(&cpu->mmu, MMU_KERNEL, linear, buf, size);
    if (r != MMU_OK)
        x86_mmu_failed(cpu, r, VMM_DS);
    return r == MMU_OK;
}

bool x86_sys_write(struct x86_cpu *cpu, uint64_t linear, const void *buf, unsigned size)
{
    uint8_t *p = mmu_fast_write(&cpu->mmu, MMU_KERNEL, linear, size);
    int r;

    if (x86_likely(p)) {
        mmu_copy(p, buf, size);
        return true;
    }
    r = mmu_write(&cpu->mmu, MMU_KERNEL, linear, buf, size);
    if (r != MMU_OK)
        x86_mmu_failed(cpu, r, VMM_DS);
    return r == MMU_OK;
}

bool x86_rmw_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, bool lock,
                  struct x86_rmw *m)
{
    bool splits = lock && x86_splits_line(m->linear, size);
    bool crosses = (m->linear & ~MMU_PAGE_MASK) + size > MMU_PAGE_SIZE;
    int r;

    cpu->cur_idx = op->idx;
    m->slow = true;
    m->locked = false;
    if (!aligned(cpu, m->linear, size))
        return false;
    r = mmu_rmw_begin(&cpu->mmu, cpu->mmu_idx, m->linear, size, &m->mmu);
    if (r == MMU_OK && (!m->mmu.host || splits)) {
        /* A copy. Devices need no exclusion, memory that is not one host access does. */
        splits = splits && (m->mmu.host || crosses);
        m->mmu.host = NULL;
        if (splits) {
            cpu->env->lock(cpu->env->mmu.ctx);
            m->locked = true;
        }
        r = mmu_read(&cpu->mmu, cpu->mmu_idx, m->linear, m->copy, size);
        m->mmu.size = size;
    }
    if (r != MMU_OK) {
        if (m->locked)
            cpu->env->unlock(cpu->env->mmu.ctx);
        x86_mmu_failed(cpu, r, op->seg);
        return false;
    }
    m->p = m->mmu.host ? m->mmu.host : m->copy;
    return true;
}

bool x86_rmw_end_slow(struct x86_cpu *cpu, const struct x86_op *op, struct x86_rmw *m)
{
    int r = MMU_OK;

    if (m->mmu.host)
        mmu_rmw_done(&cpu->mmu, &m->mmu);
    else
        r = mmu_write(&cpu->mmu, cpu->mmu_idx, m->linear, m->copy, m->mmu.size);
    if (m->locked)
        cpu->env->unlock(cpu->env->mmu.ctx);
    if (r != MMU_OK) {
        x86_mmu_failed(cpu, r, op->seg);
        return false;
    }
    if (x86_unlikely(cpu->mmu.nwatch))
        x86_watch_access(cpu, m->linear, m->mmu.size, true);
    return true;
}

/* ---- the stack ---- */

static bool stack_linear(struct x86_cpu *cpu, uint64_t sp, unsigned size, bool write,
                         uint64_t *linear)
{
    if ((cpu->mode & X86_MODE_CODE) == X86_MODE_CODE64) {
        *linear = sp;
        return true;
    }
    return x86_seg_check(cpu, VMM_SS, sp, size, write, linear);
}

bool x86_push(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, uint64_t value)
{
    uint64_t sp = (cpu->gpr[VMM_RSP] - size) & cpu->sp_mask, linear;

    if (x86_unlikely(!stack_linear(cpu, sp, size, true, &linear)) ||
        x86_unlikely(!x86_write(cpu, op, VMM_SS, linear, &value, size)))
        return false;
    cpu->gpr[VMM_RSP] = (cpu->gpr[VMM_RSP] & ~cpu->sp_mask) | sp;
    return true;
}

bool x86_peek(struct x86_cpu *cpu, const struct x86_op *op, unsigned offset, unsigned size,
              uint64_t *value)
{
    uint64_t sp = (cpu->gpr[VMM_RSP] + offset) & cpu->sp_mask, linear;

    *value = 0;
    return x86_likely(stack_linear(cpu, sp, size, false, &linear)) &&
           x86_likely(x86_read(cpu, op, VMM_SS, linear, value, size));
}

bool x86_pop(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, uint64_t *value)
{
    uint64_t sp = (cpu->gpr[VMM_RSP] + size) & cpu->sp_mask;

    if (x86_unlikely(!x86_peek(cpu, op, 0, size, value)))
        return false;
    cpu->gpr[VMM_RSP] = (cpu->gpr[VMM_RSP] & ~cpu->sp_mask) | sp;
    return true;
}
