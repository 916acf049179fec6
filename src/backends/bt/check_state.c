/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/check_state.c: lock step: a CPU's state: copying and comparing it. */
#include <stdio.h>

#include "backends/bt/check.h"
#include "core/x86/cache.h"

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
        SAME(rip_mask) SAME(sp_mask) COPIED(seg) SAME(cr0) SAME(cr3) SAME(cr4) SAME(cr8) SAME(xcr0)
            SAME(efer) SAME(xss) SAME(gdt.base) SAME(gdt.limit) SAME(idt.base) SAME(idt.limit)
                SAME(dr) SAME(star) SAME(lstar) SAME(cstar) SAME(sfmask) SAME(kernel_gs_base)
                    SAME(sysenter_cs) SAME(sysenter_esp) SAME(sysenter_eip) SAME(pat) SAME(tsc_aux)
                        SAME(misc_enable) SAME(spec_ctrl) SAME(mtrr_cap_def) SAME(mtrr_fixed)
                            SAME(mtrr_var) SAME(mcg_status) SAME(tsc_adjust) SAME(misc_features)
                                SAME(pkru) SAME(fpu.k) SAME(fpu.x87) SAME(fpu.fcw) SAME(fpu.fsw)
                                    SAME(fpu.ftw) SAME(fpu.fop) SAME(fpu.fip) SAME(fpu.fdp)
                                        SAME(fpu.fcs) SAME(fpu.fds) SAME(fpu.mxcsr) SAME(fpu.xinuse)
                                            COPIED(fpu.vec) COPIED(event) COPIED(later) SAME(shadow)
                                                SAME(nmi_blocked) SAME(nmi_pending) SAME(activity)
                                                    SAME(monitor_linear) SAME(pending_db)
                                                        COPIED(tf_trap) COPIED(restart)
                                                            COPIED(fruitless) SAME(ext)
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

/* Sets *diff to the first 8 bytes that differ; `name`, or name[index] if there are more. */
static bool bytes_differ(struct check_diff *diff, const char *name, const void *tested,
                         const void *plain, unsigned size)
{
    if (!memcmp(tested, plain, size))
        return false;
    for (unsigned at = 0; at < size; at += 8) {
        unsigned n = size - at < 8 ? size - at : 8;

        diff->tested = diff->plain = 0;
        memcpy(&diff->tested, (const char *)tested + at, n);
        memcpy(&diff->plain, (const char *)plain + at, n);
        if (diff->tested == diff->plain)
            continue;
        if (size <= 8)
            snprintf(diff->what, sizeof(diff->what), "%s", name);
        else
            snprintf(diff->what, sizeof(diff->what), "%s[%u]", name, at / 8);
        return true;
    }
    return false;
}

static bool value_differs(struct check_diff *diff, const char *name, uint64_t tested,
                          uint64_t plain)
{
    return bytes_differ(diff, name, &tested, &plain, 8);
}

static bool registers_differ(struct check_diff *diff, const struct x86_cpu *t,
                             const struct x86_cpu *p)
{
    static const char names[16][4] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

    if (value_differs(diff, "rip", t->rip, p->rip))
        return true;
    for (unsigned i = 0; i < 16; i++)
        if (value_differs(diff, names[i], t->gpr[i], p->gpr[i]))
            return true;
    return value_differs(diff, "rflags", x86_get_rflags(t), x86_get_rflags(p));
}

static bool segment_differs(struct check_diff *diff, const char *name, const struct vmm_segment *t,
                            const struct vmm_segment *p)
{
    const struct {
        const char *part;
        uint64_t t, p;
    } parts[] = {{"", t->selector, p->selector},
                 {".base", t->base, p->base},
                 {".limit", t->limit, p->limit},
                 {".ar", t->ar, p->ar}};

    for (unsigned i = 0; i < 4; i++)
        if (parts[i].t != parts[i].p) {
            snprintf(diff->what, sizeof(diff->what), "%s%s", name, parts[i].part);
            diff->tested = parts[i].t;
            diff->plain = parts[i].p;
            return true;
        }
    return false;
}

static bool segments_differ(struct check_diff *diff, const struct x86_cpu *t,
                            const struct x86_cpu *p)
{
    static const char *const names[VMM_NSEG] = {
        [VMM_ES] = "es", [VMM_CS] = "cs", [VMM_SS] = "ss",     [VMM_DS] = "ds",
        [VMM_FS] = "fs", [VMM_GS] = "gs", [VMM_LDTR] = "ldtr", [VMM_TR] = "tr"};

    for (unsigned i = 0; i < VMM_NSEG; i++)
        if (segment_differs(diff, names[i], &t->seg[i], &p->seg[i]))
            return true;
    return false;
}

static bool vectors_differ(struct check_diff *diff, const struct x86_cpu *t,
                           const struct x86_cpu *p)
{
    if (!memcmp(t->fpu.vec, p->fpu.vec, sizeof(t->fpu.vec)))
        return false;
    for (unsigned i = 0; i < 32; i++) {
        char name[8];

        snprintf(name, sizeof(name), "zmm%u", i);
        if (bytes_differ(diff, name, t->fpu.vec[i], p->fpu.vec[i], 64))
            return true;
    }
    return false;
}

static bool event_differs(struct check_diff *diff, const struct x86_event *t,
                          const struct x86_event *p)
{
    if (value_differs(diff, "event", t->valid, p->valid))
        return true;
    return t->valid && (value_differs(diff, "event vector", t->vector, p->vector) ||
                        value_differs(diff, "event type", t->type, p->type) ||
                        value_differs(diff, "event error", t->has_error ? t->error + 1ull : 0,
                                      p->has_error ? p->error + 1ull : 0));
}

static bool state_differs(struct check_diff *diff, const struct x86_cpu *t, const struct x86_cpu *p)
{
    if (registers_differ(diff, t, p))
        return true;
    for (unsigned i = 0; i < NFIELDS; i++)
        if (fields[i].compared &&
            bytes_differ(diff, fields[i].name, (const char *)t + fields[i].offset,
                         (const char *)p + fields[i].offset, fields[i].size))
            return true;
    return segments_differ(diff, t, p) || vectors_differ(diff, t, p) ||
           event_differs(diff, &t->event, &p->event);
}

/* Guest memory itself may be written to by devices' threads meanwhile. */
MMU_GUEST_ACCESS static inline bool page_differs(const uint8_t *a, const uint8_t *b, unsigned *at)
{
    if (!memcmp(a, b, MMU_PAGE_SIZE))
        return false;
    for (*at = 0; *at < MMU_PAGE_SIZE - 8; *at += 8)
        if (memcmp(a + *at, b + *at, 8) != 0)
            break;
    return true;
}

static bool memory_differs(struct check *c, struct check_diff *diff)
{
    for (struct check_page *p = c->used; p; p = p->next_used) {
        const uint8_t *plain = c->phase == CHECK_REPLAY ? p->plain : p->host;
        unsigned at;

        if (!page_differs(p->tested, plain, &at))
            continue;
        snprintf(diff->what, sizeof(diff->what), "memory at %#llx",
                 (unsigned long long)(p->gpa + at));
        memcpy(&diff->tested, p->tested + at, 8);
        memcpy(&diff->plain, plain + at, 8);
        return true;
    }
    return false;
}

bool check_differ(struct check *c, struct check_diff *diff)
{
    return state_differs(diff, c->tested, c->iv.cpu) || memory_differs(c, diff);
}
