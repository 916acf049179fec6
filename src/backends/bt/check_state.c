/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/check_state.c: lock step: a CPU's state: copying and comparing it. */
#include <stdio.h>

#include "backends/bt/check.h"
#include "core/x86/cache.h"
#include "core/x86/xstate.h"

/* Fields of x86_cpu that are copied; those with true are also compared as they are. */
static const struct field {
    const char *name;
    uint16_t size;
    bool compared;
    uint32_t offset;
} fields[] = {
#define FIELD(name, compared)                                                                      \
    {#name, sizeof(((struct x86_cpu *)0)->name), compared, offsetof(struct x86_cpu, name)},
#define SAME(name)   FIELD(name, true)
#define COPIED(name) FIELD(name, false)
    COPIED(gpr) COPIED(cc) COPIED(rflags) SAME(rip) SAME(cr2) SAME(cpl) SAME(mode) SAME(mmu_idx)
        SAME(rip_mask) SAME(sp_mask) COPIED(seg) SAME(cr0) SAME(cr3) SAME(cr4) SAME(cr8) SAME(
            xcr0) SAME(efer) SAME(xss) SAME(gdt.base) SAME(gdt.limit) SAME(idt.base) SAME(idt.limit)
            SAME(dr) SAME(star) SAME(lstar) SAME(cstar) SAME(sfmask) SAME(kernel_gs_base) SAME(
                sysenter_cs) SAME(sysenter_esp) SAME(sysenter_eip) SAME(pat) SAME(tsc_aux)
                SAME(misc_enable) SAME(spec_ctrl) SAME(mtrr_cap_def) SAME(mtrr_fixed) SAME(mtrr_var)
                    SAME(mcg_status) SAME(tsc_adjust) SAME(misc_features) SAME(pkru) SAME(fpu.k)
                        SAME(fpu.x87) SAME(fpu.fcw) SAME(fpu.fsw) SAME(fpu.ftw) SAME(fpu.fop)
                            SAME(fpu.fip) SAME(fpu.fdp) SAME(fpu.fcs) SAME(fpu.fds) SAME(fpu.mxcsr)
                                COPIED(fpu.xinuse) COPIED(fpu.vec) COPIED(event) COPIED(later)
                                    SAME(shadow) SAME(nmi_blocked) SAME(nmi_pending) SAME(activity)
                                        SAME(monitor_linear) SAME(pending_db) COPIED(tf_trap)
                                            COPIED(restart) COPIED(fruitless) SAME(ext)
                                                COPIED(vmcall_exits) COPIED(stop)
#undef FIELD
#undef SAME
#undef COPIED
};
#define NFIELDS (sizeof(fields) / sizeof(fields[0]))

void check_copy_state(struct x86_cpu *to, const struct x86_cpu *from, bool loaded)
{
    for (unsigned i = 0; i < NFIELDS; i++)
        memcpy((char *)to + fields[i].offset, (const char *)from + fields[i].offset,
               fields[i].size);
    if (loaded) {
        x86_mode_changed(to);
        x86_breakpoints_changed(to);
        x86_flush_tlb(to);
    }
    memcpy(to->mmu.pdpte, from->mmu.pdpte, sizeof(to->mmu.pdpte));
}

/* ---- comparing ---- */

static void note(struct check_diffs *diffs, const char *what, uint64_t tested, uint64_t plain)
{
    struct check_diff *d;

    if (tested == plain)
        return;
    if (diffs->n < CHECK_DIFFS) {
        d = &diffs->d[diffs->n];
        snprintf(d->what, sizeof(d->what), "%s", what);
        d->tested = tested;
        d->plain = plain;
    }
    diffs->n++;
}

/* In pieces of 8 bytes: `name`, or name[index] if there are more. */
static void compare_bytes(struct check_diffs *diffs, const char *name, const void *tested,
                          const void *plain, unsigned size)
{
    if (!memcmp(tested, plain, size))
        return;
    for (unsigned at = 0; at < size; at += 8) {
        unsigned n = size - at < 8 ? size - at : 8;
        uint64_t t = 0, p = 0;
        char what[32];

        memcpy(&t, (const char *)tested + at, n);
        memcpy(&p, (const char *)plain + at, n);
        snprintf(what, sizeof(what), size <= 8 ? "%s" : "%s[%u]", name, at / 8);
        note(diffs, what, t, p);
    }
}

static void compare_registers(struct check_diffs *diffs, const struct x86_cpu *t,
                              const struct x86_cpu *p)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

    note(diffs, "rip", t->rip, p->rip);
    for (unsigned i = 0; i < 16; i++)
        note(diffs, names[i], t->gpr[i], p->gpr[i]);
    note(diffs, "rflags", x86_get_rflags(t), x86_get_rflags(p));
}

static void compare_segments(struct check_diffs *diffs, const struct x86_cpu *t,
                             const struct x86_cpu *p)
{
    static const char *const names[VMM_NSEG][4] = {
#define SEGMENT(index, name) [index] = {name, name ".base", name ".limit", name ".ar"}
        SEGMENT(VMM_ES, "es"),     SEGMENT(VMM_CS, "cs"), SEGMENT(VMM_SS, "ss"),
        SEGMENT(VMM_DS, "ds"),     SEGMENT(VMM_FS, "fs"), SEGMENT(VMM_GS, "gs"),
        SEGMENT(VMM_LDTR, "ldtr"), SEGMENT(VMM_TR, "tr"),
#undef SEGMENT
    };

    for (unsigned i = 0; i < VMM_NSEG; i++) {
        const struct vmm_segment *a = &t->seg[i], *b = &p->seg[i];

        note(diffs, names[i][0], a->selector, b->selector);
        note(diffs, names[i][1], a->base, b->base);
        note(diffs, names[i][2], a->limit, b->limit);
        note(diffs, names[i][3], a->ar, b->ar);
    }
}

static void compare_vectors(struct check_diffs *diffs, const struct x86_cpu *t,
                            const struct x86_cpu *p)
{
    if (!memcmp(t->fpu.vec, p->fpu.vec, sizeof(t->fpu.vec)))
        return;
    for (unsigned i = 0; i < 32; i++) {
        char name[16];

        snprintf(name, sizeof(name), "zmm%u", i);
        compare_bytes(diffs, name, t->fpu.vec[i], p->fpu.vec[i], 64);
    }
}

static void compare_event(struct check_diffs *diffs, const struct x86_event *t,
                          const struct x86_event *p)
{
    note(diffs, "event", t->valid, p->valid);
    if (!t->valid || !p->valid)
        return;
    note(diffs, "event.vector", t->vector, p->vector);
    note(diffs, "event.type", t->type, p->type);
    note(diffs, "event.has_error", t->has_error, p->has_error);
    if (t->has_error)
        note(diffs, "event.error", t->error, p->error);
    if (t->has_cr2)
        note(diffs, "event.cr2", t->cr2, p->cr2);
}

/* Guest memory itself may be written to by devices' threads meanwhile. */
MMU_GUEST_ACCESS static inline bool equal(const uint8_t *a, const uint8_t *b, unsigned n)
{
    return !memcmp(a, b, n);
}

static void compare_page(struct check_diffs *diffs, const struct check_page *page,
                         const uint8_t *plain)
{
    if (equal(page->tested, plain, MMU_PAGE_SIZE))
        return;
    for (unsigned at = 0; at < MMU_PAGE_SIZE; at += 8) {
        uint64_t t, p;
        char what[32];

        memcpy(&t, page->tested + at, 8);
        memcpy(&p, plain + at, 8);
        snprintf(what, sizeof(what), "memory at %#llx", (unsigned long long)(page->gpa + at));
        note(diffs, what, t, p);
    }
}

bool check_differ(struct check *c, struct check_diffs *diffs)
{
    const struct x86_cpu *t = c->tested, *p = c->iv.cpu;

    diffs->n = 0;
    compare_registers(diffs, t, p);
    for (unsigned i = 0; i < NFIELDS; i++)
        if (fields[i].compared)
            compare_bytes(diffs, fields[i].name, (const char *)t + fields[i].offset,
                          (const char *)p + fields[i].offset, fields[i].size);
    note(diffs, "components in use", x86_xinuse(t), x86_xinuse(p)); /* fpu.xinuse may name more */
    compare_segments(diffs, t, p);
    compare_vectors(diffs, t, p);
    compare_event(diffs, &t->event, &p->event);
    for (struct check_page *page = c->used; page; page = page->next_used)
        compare_page(diffs, page, c->phase == CHECK_REPLAY ? page->plain : page->host);
    return diffs->n;
}

void check_add_counts(struct check_diffs *diffs, enum x86_stop tested_stop, uint64_t tested_done,
                      enum x86_stop plain_stop, uint64_t plain_done)
{
    note(diffs, "instructions executed", tested_done, plain_done);
    note(diffs, "reason to stop", tested_stop, plain_stop);
}
