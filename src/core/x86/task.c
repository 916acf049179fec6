/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/task.c: hardware task switches (SDM Vol. 3A chapter 8). */
#include <string.h>

#include "core/x86/task.h"

/* Where a TSS keeps what (SDM Vol. 3A figures 8-2 and 8-10). GPRs are in the order of their
 * numbers, segment registers in the order of theirs. */
struct layout {
    unsigned min_limit;
    unsigned size;    /* of most fields */
    unsigned eip;     /* where the dynamic fields begin: EIP, EFLAGS, GPRs, segments */
    unsigned nseg;    /* ES, CS, SS, DS and with 32 bits FS, GS */
    unsigned seg_end; /* where the dynamic fields end */
    unsigned ldt;
};
static const struct layout layout16 = {0x2b, 2, 0x0e, 4, 0x2a, 0x2a};
static const struct layout layout32 = {0x67, 4, 0x20, 6, 0x60, 0x60};
#define TSS32_CR3  0x1cu
#define TSS32_TRAP 0x64u
#define TSS_IMAGE  0x68u

#define DR7_LOCAL 0x155u /* L0-L3, LE */

static const struct layout *layout_of(uint32_t ar)
{
    return ar & X86_SYS_32BIT ? &layout32 : &layout16;
}

static unsigned seg_offset(const struct layout *l, unsigned seg)
{
    return l->eip + (2 + 8 + seg) * l->size;
}

static uint32_t field(const uint8_t *image, unsigned offset, unsigned size)
{
    uint32_t v = 0;

    memcpy(&v, image + offset, size);
    return v;
}

static bool probe(struct x86_cpu *cpu, uint64_t linear, unsigned size, enum mmu_access access)
{
    int r = mmu_probe(&cpu->mmu, MMU_KERNEL, (uint32_t)linear, size, access);

    if (r != MMU_OK)
        x86_mmu_failed(cpu, r, VMM_DS);
    return r == MMU_OK;
}

/* The dynamic fields of the task that is left. */
static bool save(struct x86_cpu *cpu, uint32_t eip, uint32_t eflags)
{
    const struct vmm_segment *tr = &cpu->seg[VMM_TR];
    const struct layout *l = layout_of(tr->ar);
    uint8_t image[TSS_IMAGE];
    unsigned at = l->eip;

    memset(image, 0, sizeof image);
    memcpy(image + at, &eip, l->size);
    memcpy(image + at + l->size, &eflags, l->size);
    at += 2 * l->size;
    for (unsigned i = 0; i < 8; i++, at += l->size)
        memcpy(image + at, &cpu->gpr[i], l->size);
    if (l->size == 2) {
        for (unsigned i = 0; i < l->nseg; i++, at += 2)
            memcpy(image + at, &cpu->seg[i].selector, 2);
        return x86_sys_write(cpu, (uint32_t)(tr->base + l->eip), image + l->eip, at - l->eip);
    }
    /* The upper halves of the selectors' slots are reserved and stay as they are. */
    if (!x86_sys_write(cpu, (uint32_t)(tr->base + l->eip), image + l->eip, at - l->eip))
        return false;
    for (unsigned i = 0; i < l->nseg; i++, at += 4)
        if (!x86_sys_write(cpu, (uint32_t)(tr->base + at), &cpu->seg[i].selector, 2))
            return false;
    return true;
}

/* ---- the new task: from here on faults are its own ---- */

static bool load_ldt(struct x86_cpu *cpu, uint16_t selector)
{
    struct x86_desc d;

    x86_seg_null(cpu, VMM_LDTR, selector);
    if (x86_null_selector(selector))
        return true;
    if (!x86_tss_desc(cpu, selector, X86_TS, &d))
        return false;
    if ((x86_desc_ar(&d) & (VMM_AR_S | VMM_AR_TYPE)) != X86_SYS_LDT_DESC || !x86_desc_present(&d))
        return x86_refuse_sel(cpu, X86_TS, selector);
    x86_seg_set(cpu, VMM_LDTR, selector, &d);
    return true;
}

static bool load_cs(struct x86_cpu *cpu, uint16_t selector)
{
    struct x86_desc d;
    unsigned rpl = selector & 3;

    if (x86_null_selector(selector))
        return x86_refuse(cpu, X86_TS, 0);
    if (!x86_desc_read(cpu, selector, X86_TS, &d))
        return false;
    if (!x86_desc_is_code(&d) ||
        (x86_desc_is_conforming(&d) ? x86_desc_dpl(&d) > rpl : x86_desc_dpl(&d) != rpl))
        return x86_refuse_sel(cpu, X86_TS, selector);
    if (!x86_desc_present(&d))
        return x86_refuse_sel(cpu, X86_NP, selector);
    if (!x86_desc_set_accessed(cpu, &d))
        return false;
    x86_seg_set(cpu, VMM_CS, selector, &d);
    return true;
}

/* Loads and qualifies the selectors, in the order of SDM Vol. 3A 8.3. */
static bool load_segments(struct x86_cpu *cpu, const uint16_t *selector, uint16_t ldt)
{
    static const uint8_t data[] = {VMM_ES, VMM_DS, VMM_FS, VMM_GS};

    if (!load_ldt(cpu, ldt))
        return false;
    if (cpu->rflags & X86_VM) {
        for (unsigned i = VMM_ES; i <= VMM_GS; i++)
            x86_load_seg_real(cpu, i, selector[i]);
        return true;
    }
    if (!load_cs(cpu, selector[VMM_CS]) || !x86_load_stack_seg(cpu, selector[VMM_SS], X86_TS))
        return false;
    for (unsigned i = 0; i < sizeof data; i++)
        if (!x86_load_data_seg(cpu, data[i], selector[data[i]], X86_TS))
            return false;
    return true;
}

static bool push_error(struct x86_cpu *cpu, const struct x86_task_switch *t, unsigned size)
{
    uint64_t value = t->error;
    struct x86_stack s;

    x86_stack_current(cpu, &s);
    if (s.idx == MMU_USER_ALIGN)
        s.idx = MMU_USER;
    if (!x86_stack_push(cpu, NULL, &s, &value, 1, size))
        return false;
    x86_stack_commit(cpu, &s, cpu->cpl);
    return true;
}

/* Registers from the image of the new TSS; what can fault comes in load_segments. */
static void load_registers(struct x86_cpu *cpu, const struct layout *l, const uint8_t *image,
                           bool nested, uint16_t *selector)
{
    uint32_t upper = l->size == 2 ? 0xffff0000 : 0;
    uint32_t eflags = field(image, l->eip + l->size, l->size) | (nested ? X86_NT : 0);

    cpu->rip = field(image, l->eip, l->size);
    if (l->size == 2)
        eflags &= 0xffff;
    x86_change_flags(cpu, eflags, X86_FLAGS_DEFINED);
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = upper | field(image, l->eip + (2 + i) * l->size, l->size);
    for (unsigned i = VMM_ES; i <= VMM_GS; i++) {
        selector[i] = i < l->nseg ? (uint16_t)field(image, seg_offset(l, i), 2) : 0;
        x86_seg_null(cpu, i, selector[i]);
    }
    cpu->cpl = eflags & X86_VM ? 3 : selector[VMM_CS] & 3;
}

/* The address of the current TSS' descriptor; a TR that never came from the GDT has none. */
static bool old_desc(const struct x86_cpu *cpu, uint64_t *addr)
{
    uint16_t selector = cpu->seg[VMM_TR].selector;

    return !x86_null_selector(selector) && x86_desc_probe(cpu, selector, addr);
}

/* The checks of the new TSS and that both are in memory. */
static bool prepare(struct x86_cpu *cpu, const struct x86_task_switch *t, struct x86_desc *d,
                    uint8_t *image)
{
    const struct vmm_segment *tr = &cpu->seg[VMM_TR];
    bool back = t->via == X86_TASK_IRET, link = t->via == X86_TASK_CALL || t->via == X86_TASK_EVENT;
    uint8_t vector = back ? X86_TS : X86_GP;
    const struct layout *old = layout_of(tr->ar), *new;
    uint64_t old_addr;
    unsigned type;

    if (!x86_tss_desc(cpu, t->selector, vector, d))
        return false;
    type = x86_desc_ar(d) & (VMM_AR_S | VMM_AR_TYPE);
    if ((type & ~(X86_SYS_32BIT)) != (back ? X86_SYS_TSS16_BUSY : X86_SYS_TSS16))
        return x86_refuse_sel(cpu, vector, t->selector);
    if (!x86_desc_present(d))
        return x86_refuse_sel(cpu, X86_NP, t->selector);
    new = layout_of(type);
    if (x86_desc_limit(d) < new->min_limit)
        return x86_refuse_sel(cpu, X86_TS, t->selector);
    if (tr->limit < old->seg_end - 1)
        return x86_refuse_sel(cpu, X86_TS, tr->selector);
    return x86_sys_read(cpu, (uint32_t)x86_desc_base(d), image, new->min_limit + 1) &&
           probe(cpu, tr->base + old->eip, old->seg_end - old->eip, MMU_WRITE) &&
           (!link || probe(cpu, x86_desc_base(d), 2, MMU_WRITE)) &&
           (back || probe(cpu, d->addr, 8, MMU_WRITE)) &&
           (link || !old_desc(cpu, &old_addr) || probe(cpu, old_addr, 8, MMU_WRITE));
}

/* The busy bits and the old task's state. */
static bool leave_old(struct x86_cpu *cpu, const struct x86_task_switch *t,
                      const struct x86_desc *d)
{
    struct vmm_segment *tr = &cpu->seg[VMM_TR];
    uint32_t eflags = t->eflags;
    uint64_t old;

    if (t->via == X86_TASK_IRET)
        eflags &= ~X86_NT;
    if ((t->via == X86_TASK_JMP || t->via == X86_TASK_IRET) && old_desc(cpu, &old) &&
        !x86_desc_change(cpu, old, 0, X86_SYS_BUSY_BIT))
        return false;
    if (!save(cpu, t->eip, eflags))
        return false;
    if ((t->via == X86_TASK_CALL || t->via == X86_TASK_EVENT) &&
        !x86_sys_write(cpu, (uint32_t)x86_desc_base(d), &tr->selector, 2))
        return false;
    return t->via == X86_TASK_IRET || x86_desc_change(cpu, d->addr, X86_SYS_BUSY_BIT, 0);
}

enum x86_task_result x86_task_switch(struct x86_cpu *cpu, const struct x86_task_switch *t)
{
    const struct layout *l;
    uint16_t selector[VMM_GS + 1];
    uint8_t image[TSS_IMAGE] = {0};
    struct x86_desc d;
    uint32_t dr7;
    bool ok;

    if (!prepare(cpu, t, &d, image) || !leave_old(cpu, t, &d))
        return X86_TASK_REFUSED;
    l = layout_of(x86_desc_ar(&d));
    d.raw |= (uint64_t)X86_SYS_BUSY_BIT << 40;
    x86_seg_set(cpu, VMM_TR, t->selector, &d);
    load_registers(cpu, l, image, t->via == X86_TASK_CALL || t->via == X86_TASK_EVENT, selector);
    cpu->cr0 |= X86_CR0_TS;
    dr7 = (uint32_t)cpu->dr.dr7;
    cpu->dr.dr7 &= ~(uint64_t)DR7_LOCAL;
    if (l == &layout32 && (image[TSS32_TRAP] & 1))
        cpu->pending_db |= X86_DR6_BT;
    ok = l != &layout32 || !(cpu->cr0 & X86_CR0_PG) || x86_set_cr3(cpu, field(image, TSS32_CR3, 4));
    ok = ok && load_segments(cpu, selector, (uint16_t)field(image, l->ldt, 2));
    if (dr7 & DR7_LOCAL)
        x86_breakpoints_changed(cpu);
    x86_mode_changed(cpu);
    ok = ok && (!t->has_error || push_error(cpu, t, l->size));
    if (ok && cpu->rip > cpu->seg[VMM_CS].limit)
        ok = x86_refuse(cpu, X86_GP, 0);
    return ok ? X86_TASK_DONE : X86_TASK_FAULT;
}

enum x86_task_result x86_task_return(struct x86_cpu *cpu, uint32_t eip)
{
    struct x86_task_switch t = {.via = X86_TASK_IRET, .eip = eip, .eflags = x86_all_flags(cpu)};

    if (!x86_sys_read(cpu, (uint32_t)cpu->seg[VMM_TR].base, &t.selector, 2))
        return X86_TASK_REFUSED;
    if (x86_null_selector(t.selector)) {
        x86_refuse(cpu, X86_TS, 0);
        return X86_TASK_REFUSED;
    }
    return x86_task_switch(cpu, &t);
}
