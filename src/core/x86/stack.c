/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/stack.c: stack frames of events and far calls, and the inner stacks of the TSS. */
#include <string.h>

#include "core/x86/segment.h"

void x86_stack_current(const struct x86_cpu *cpu, struct x86_stack *s)
{
    s->ss = cpu->seg[VMM_SS];
    s->desc = (struct x86_desc){0};
    s->rsp = cpu->gpr[VMM_RSP];
    s->mask = cpu->sp_mask;
    s->idx = cpu->mmu_idx;
    s->error = 0;
    s->flat = x86_code64(cpu);
}

/* SS:ESP for `cpl` in the current TSS; beyond its limit it is #TS(TSS). */
static bool read_tss_stack(struct x86_cpu *cpu, unsigned cpl, uint16_t *ss, uint32_t *esp)
{
    const struct vmm_segment *tr = &cpu->seg[VMM_TR];
    uint8_t image[6] = {0};

    if (tr->ar & X86_SYS_32BIT) {
        uint32_t offset = 4 + 8 * cpl;

        if (offset + 5 > tr->limit)
            return x86_refuse_sel(cpu, X86_TS, tr->selector);
        if (!x86_sys_read(cpu, (uint32_t)(tr->base + offset), image, 6))
            return false;
        memcpy(esp, image, 4);
        memcpy(ss, image + 4, 2);
    } else {
        uint32_t offset = 2 + 4 * cpl;

        if (offset + 3 > tr->limit)
            return x86_refuse_sel(cpu, X86_TS, tr->selector);
        if (!x86_sys_read(cpu, (uint32_t)(tr->base + offset), image, 4))
            return false;
        *esp = (uint32_t)(image[0] | image[1] << 8);
        memcpy(ss, image + 2, 2);
    }
    return true;
}

bool x86_stack_inner(struct x86_cpu *cpu, unsigned cpl, struct x86_stack *s)
{
    uint16_t selector;
    uint32_t esp;

    if (!read_tss_stack(cpu, cpl, &selector, &esp))
        return false;
    if (x86_null_selector(selector))
        return x86_refuse(cpu, X86_TS, 0);
    if (!x86_desc_read(cpu, selector, X86_TS, &s->desc))
        return false;
    if ((selector & 3) != cpl || x86_desc_dpl(&s->desc) != cpl ||
        !x86_desc_is_writable_data(&s->desc))
        return x86_refuse_sel(cpu, X86_TS, selector);
    if (!x86_desc_present(&s->desc))
        return x86_refuse_sel(cpu, X86_SS, selector);
    if (!x86_desc_set_accessed(cpu, &s->desc))
        return false;
    s->ss = x86_desc_segment(&s->desc, selector);
    s->rsp = esp;
    s->mask = s->ss.ar & VMM_AR_DB ? 0xffffffff : 0xffff;
    s->idx = MMU_KERNEL;
    s->error = selector & 0xfffcu;
    s->flat = false;
    return true;
}

bool x86_stack_inner64(struct x86_cpu *cpu, unsigned cpl, unsigned ist, struct x86_stack *s)
{
    const struct vmm_segment *tr = &cpu->seg[VMM_TR];
    uint32_t offset = ist ? 28 + 8 * ist : 4 + 8 * cpl;

    if (offset + 7 > tr->limit)
        return x86_refuse_sel(cpu, X86_TS, tr->selector);
    if (!x86_sys_read64(cpu, tr->base + offset, &s->rsp))
        return false;
    s->mask = ~(uint64_t)0;
    s->idx = MMU_KERNEL;
    s->error = 0;
    s->flat = true;
    if (cpl == cpu->cpl) {
        s->ss = cpu->seg[VMM_SS];
        if (cpl == 3)
            s->idx = MMU_USER;
    } else {
        s->ss = (struct vmm_segment){.selector = (uint16_t)cpl,
                                     .ar = VMM_AR_UNUSABLE | cpl << VMM_AR_DPL_SHIFT};
    }
    return true;
}

static bool stack_fault(struct x86_cpu *cpu, const struct x86_stack *s, int result)
{
    if (result == MMU_NONCANON)
        return x86_refuse(cpu, X86_SS, s->error);
    x86_mmu_failed(cpu, result, VMM_SS);
    return false;
}

/* The linear address for `size` bytes at `sp`. */
static bool stack_linear(struct x86_cpu *cpu, const struct x86_stack *s, uint64_t sp, unsigned size,
                         uint64_t *linear)
{
    if (s->flat) {
        *linear = sp;
        return true;
    }
    if ((s->ss.ar & VMM_AR_UNUSABLE) || !x86_within_limit(&s->ss, sp, size))
        return x86_refuse(cpu, X86_SS, s->error);
    *linear = (uint32_t)(s->ss.base + sp);
    return true;
}

bool x86_stack_check(struct x86_cpu *cpu, const struct x86_stack *s, unsigned size)
{
    uint64_t sp = s->rsp & s->mask, linear;

    /* Around the end of the offsets: the part below RSP and the rest. */
    if (sp && sp < size)
        return stack_linear(cpu, s, 0, (unsigned)sp, &linear) &&
               stack_linear(cpu, s, (sp - size) & s->mask, size - (unsigned)sp, &linear);
    return stack_linear(cpu, s, (sp - size) & s->mask, size, &linear);
}

static bool write_stack(struct x86_cpu *cpu, const struct x86_op *op, const struct x86_stack *s,
                        uint64_t linear, const void *buf, unsigned size)
{
    uint8_t *p = mmu_fast_write(&cpu->mmu, s->idx, linear, size);
    int r;

    if (x86_likely(p)) {
        mmu_copy(p, buf, size);
        return true;
    }
    if (op)
        cpu->cur_idx = op->idx;
    r = mmu_write(&cpu->mmu, s->idx, linear, buf, size);
    if (r != MMU_OK)
        return stack_fault(cpu, s, r);
    if (x86_unlikely(cpu->mmu.nwatch))
        x86_watch_access(cpu, linear, size, true);
    return true;
}

/* A frame that wraps around at the end of the stack's offsets: value by value, but all of them are
 * checked before the first is written. */
static bool push_wrapped(struct x86_cpu *cpu, const struct x86_op *op, struct x86_stack *s,
                         const uint64_t *values, unsigned n, unsigned size)
{
    uint64_t linear[X86_STACK_MAX], sp = s->rsp & s->mask;

    for (unsigned i = 0; i < n; i++) {
        int r;

        sp = (sp - size) & s->mask;
        if (!stack_linear(cpu, s, sp, size, &linear[i]))
            return false;
        r = mmu_probe(&cpu->mmu, s->idx, linear[i], size, MMU_WRITE);
        if (r != MMU_OK)
            return stack_fault(cpu, s, r);
    }
    for (unsigned i = 0; i < n; i++)
        if (!write_stack(cpu, op, s, linear[i], &values[i], size))
            return false;
    s->rsp = (s->rsp & ~s->mask) | sp;
    return true;
}

bool x86_stack_push(struct x86_cpu *cpu, const struct x86_op *op, struct x86_stack *s,
                    const uint64_t *values, unsigned n, unsigned size)
{
    unsigned total = n * size;
    uint64_t old = s->rsp & s->mask, sp = (old - total) & s->mask, linear;
    _Alignas(8) uint8_t frame[X86_STACK_MAX * 8];

    if (x86_unlikely(old && old < total))
        return push_wrapped(cpu, op, s, values, n, size);
    if (!stack_linear(cpu, s, sp, total, &linear))
        return false;
    if (x86_unlikely(s->idx == MMU_USER_ALIGN && (linear & (size - 1))))
        return x86_refuse(cpu, X86_AC_, 0);
    if (size == 8)
        for (unsigned i = 0; i < n; i++)
            memcpy(frame + (n - 1 - i) * 8, &values[i], 8);
    else
        for (unsigned i = 0; i < n; i++)
            memcpy(frame + (n - 1 - i) * size, &values[i], size);
    if (!write_stack(cpu, op, s, linear, frame, total))
        return false;
    s->rsp = (s->rsp & ~s->mask) | sp;
    return true;
}

void x86_stack_commit(struct x86_cpu *cpu, const struct x86_stack *s, unsigned cpl)
{
    if (cpl != cpu->cpl)
        cpu->seg[VMM_SS] = s->ss;
    cpu->gpr[VMM_RSP] = s->rsp;
}
