/* SPDX-License-Identifier: BSD-2-Clause */
/* core/regs.c: reading and writing the state of a vCPU: registers, MSRs, virtual memory. */
#include "core/internal.h"
#include "core/x86/x86.h"

#include <vmm/memory.h>

#define PAGE           4096u
#define MSR_TSC        0x10u
#define MSR_APIC_BASE  0x1bu
#define MSR_TSC_ADJUST 0x3bu
#define PAT_RESET      0x0007040600070406ull
#define MXCSR_RESET    0x1f80u
#define XSAVE_MIN      576u

/* ---- reading ---- */

/* regs->groups says what. The rest of *regs stays. */
static int get_groups(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    int err = vcpu->vm->ops->get_regs(vcpu, regs);

    if (err)
        return err;
    if ((regs->groups & VMM_REGS_CONTROL) && vcpu->lapic) {
        regs->cr8 = lapic_get_cr8(vcpu->lapic);
        lapic_read_msr(vcpu->lapic, MSR_APIC_BASE, &regs->apic_base);
    }
    if (regs->groups & VMM_REGS_MSR)
        regs->tsc = core_vcpu_tsc(vcpu);
    return 0;
}

int core_regs_get(struct vcpu *vcpu, uint32_t groups, struct vcpu_regs *regs)
{
    memset(regs, 0, sizeof(*regs));
    regs->size = sizeof(*regs);
    regs->groups = groups;
    return get_groups(vcpu, regs);
}

uint32_t core_regs_mode(const struct vcpu_regs *regs)
{
    return core_mode(regs->cr0, regs->efer, regs->rflags, regs->seg[VMM_CS].ar);
}

uint8_t core_regs_cpl(const struct vcpu_regs *regs)
{
    switch (core_regs_mode(regs)) {
    case VMM_MODE_REAL:
        return 0;
    case VMM_MODE_VM86:
        return 3;
    default:
        return (regs->seg[VMM_SS].ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT;
    }
}

static int check_groups(struct vcpu *vcpu, const char *op, const struct vcpu_regs *regs)
{
    if (!regs)
        return vm_fail(vcpu->vm, VMM_E_INVAL, op, "regs is NULL");
    if (regs->size < 2 * sizeof(uint32_t) || regs->size > CORE_STRUCT_MAX)
        return vm_fail(vcpu->vm, VMM_E_INVAL, op,
                       "regs->size is %u, but a struct vcpu_regs has %zu", regs->size,
                       sizeof(*regs));
    if (regs->groups & ~VMM_REGS_ALL)
        return vm_fail(vcpu->vm, VMM_E_INVAL, op, "unknown register groups %#x",
                       regs->groups & ~VMM_REGS_ALL);
    return 0;
}

int vcpu_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    struct vcpu_regs own = {0};
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int err = check_groups(vcpu, __func__, regs);
    if (err)
        return err;
    err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    memcpy(&own, regs, regs->size < sizeof(own) ? regs->size : sizeof(own));
    own.size = sizeof(own);
    err = get_groups(vcpu, &own);
    core_vcpu_release(vcpu, nested);
    if (!err)
        core_copy_out(regs, &own, sizeof(own));
    return err;
}

/* ---- writing ---- */

/* SDM Vol. 3C 27.2.1.3 and 27.3.1.5, as far as they concern no other group. */
static const char *check_events(const struct vcpu_regs *r)
{
    if (r->activity > VMM_SHUTDOWN)
        return "activity";
    if ((r->shadow & ~(VMM_SHADOW_STI | VMM_SHADOW_MOV_SS)) ||
        r->shadow == (VMM_SHADOW_STI | VMM_SHADOW_MOV_SS))
        return "shadow";
    if (r->nmi_blocked > 1)
        return "nmi_blocked";
    if (r->nmi_pending > 1)
        return "nmi_pending";
    if (r->inject_valid > 1)
        return "inject_valid";
    if (!r->inject_valid)
        return NULL;
    if (r->inject_type != VMM_EVENT_INTERRUPT && r->inject_type != VMM_EVENT_NMI &&
        r->inject_type != VMM_EVENT_EXCEPTION)
        return "inject_type";
    if ((r->inject_type == VMM_EVENT_NMI && r->inject_vector != X86_NMI) ||
        (r->inject_type == VMM_EVENT_EXCEPTION && r->inject_vector > 31))
        return "inject_vector";
    if (r->inject_has_error > 1 || (r->inject_has_error && r->inject_type != VMM_EVENT_EXCEPTION))
        return "inject_has_error";
    return NULL;
}

/* What the local APIC holds of the CONTROL group: the check of irqchip builds. */
static const char *check_apic(const struct vcpu *vcpu, const struct vcpu_regs *r)
{
    if (!vcpu->lapic)
        return NULL;
    if (r->cr8 > 15)
        return "cr8";
    if ((r->apic_base & 0x2ff) || r->apic_base >> vcpu->vm->caps.gpa_bits ||
        (r->apic_base & 0xc00) == 0x400)
        return "apic_base";
    return NULL;
}

static uint32_t any_set(const uint16_t reserved[3])
{
    return reserved[0] | reserved[1] | reserved[2];
}

static bool reserved_set(const struct vcpu_regs *r)
{
    uint32_t bits = 0;

    for (unsigned i = 0; i < VMM_NSEG && (r->groups & VMM_REGS_SEG); i++)
        bits |= any_set(r->seg[i].reserved);
    if (r->groups & VMM_REGS_DT)
        bits |= any_set(r->gdt.reserved) | any_set(r->idt.reserved);
    if (r->groups & VMM_REGS_EVENTS)
        bits |= r->reserved[0] | r->reserved[1] | r->reserved2;
    return bits;
}

/* The instruction that waits for its restart is not executed any more. */
static void drop(struct vcpu *vcpu)
{
    core_io_drop(vcpu);
    vcpu->answer = ANSWER_NONE;
    vcpu->restart = false;
}

static void drop_if_moved(struct vcpu *vcpu, uint64_t rip)
{
    struct vcpu_regs regs;

    if (!core_regs_get(vcpu, VMM_REGS_GPR, &regs) && regs.rip != rip)
        drop(vcpu);
}

bool core_engine_enter(struct vcpu *vcpu)
{
    if (atomic_load(&vcpu->in_guest) || atomic_load(&vcpu->vm->world_self) == vcpu)
        return false;
    core_guest_enter(vcpu);
    return true;
}

void core_engine_leave(struct vcpu *vcpu, bool entered)
{
    if (entered)
        core_guest_leave(vcpu);
}

int core_regs_set(struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    bool entered = core_engine_enter(vcpu);
    int err = vcpu->vm->ops->set_regs(vcpu, regs);

    core_engine_leave(vcpu, entered);
    return err;
}

static int set_groups(struct vcpu *vcpu, const char *op, const struct vcpu_regs *regs, bool tsc)
{
    const char *wrong = NULL;

    if (regs->groups & VMM_REGS_EVENTS)
        wrong = check_events(regs);
    if (!wrong && (regs->groups & VMM_REGS_CONTROL))
        wrong = check_apic(vcpu, regs);
    if (!wrong && reserved_set(regs))
        wrong = "reserved";
    if (wrong)
        return vm_fail(vcpu->vm, VMM_E_INVAL, op, "impossible value of %s", wrong);

    struct vcpu_regs old;
    int err = core_regs_get(vcpu, VMM_REGS_GPR, &old);
    if (!err)
        err = core_regs_set(vcpu, regs);
    if (err)
        return err;
    if (regs->groups & VMM_REGS_GPR)
        drop_if_moved(vcpu, old.rip);
    if ((regs->groups & VMM_REGS_CONTROL) && vcpu->lapic) {
        lapic_write_msr(vcpu->lapic, MSR_APIC_BASE, regs->apic_base, true);
        lapic_set_cr8(vcpu->lapic, regs->cr8);
    }
    if ((regs->groups & VMM_REGS_MSR) && tsc)
        core_vcpu_set_tsc(vcpu, regs->tsc);
    return 0;
}

int vcpu_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    struct vcpu_regs own;
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int err = check_groups(vcpu, __func__, regs);
    if (err)
        return err;
    err = core_copy_in(&own, sizeof(own), regs, 2 * sizeof(uint32_t));
    if (err)
        return vm_fail(vcpu->vm, err, __func__, "members beyond what this version knows are set");
    err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    err = set_groups(vcpu, __func__, &own, true);
    core_vcpu_release(vcpu, nested);
    return err;
}

/* ---- vector state ---- */

int vcpu_get_xsave(struct vcpu *vcpu, void *area, uint32_t len)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    if (!area)
        return vm_fail(vcpu->vm, VMM_E_INVAL, __func__, "area is NULL");
    if (len < vcpu->vm->caps.xsave_size)
        return vm_fail(vcpu->vm, VMM_E_NOSPACE, __func__, "%u bytes, but the area has %u", len,
                       vcpu->vm->caps.xsave_size);
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    err = vcpu->vm->ops->get_xsave(vcpu, area, len);
    core_vcpu_release(vcpu, nested);
    return err;
}

static int engine_set_xsave(struct vcpu *vcpu, const void *area, uint32_t len)
{
    bool entered = core_engine_enter(vcpu);
    int err = vcpu->vm->ops->set_xsave(vcpu, area, len);

    core_engine_leave(vcpu, entered);
    return err;
}

int vcpu_set_xsave(struct vcpu *vcpu, const void *area, uint32_t len)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    if (!area || len < XSAVE_MIN)
        return vm_fail(vcpu->vm, VMM_E_INVAL, __func__,
                       "%u bytes at %s, but an area has %u or more", len, area ? "area" : "NULL",
                       XSAVE_MIN);
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    err = engine_set_xsave(vcpu, area, len);
    if (err)
        vm_fail(vcpu->vm, err, __func__, "the area has components or bits that this CPU lacks");
    core_vcpu_release(vcpu, nested);
    return err;
}

/* ---- MSRs ---- */

int vcpu_get_msr(struct vcpu *vcpu, uint32_t index, uint64_t *value)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    if (!value)
        return vm_fail(vcpu->vm, VMM_E_INVAL, __func__, "value is NULL");
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    if (index == MSR_TSC)
        *value = core_vcpu_tsc(vcpu);
    else if (index == MSR_TSC_ADJUST)
        *value = atomic_load(&vcpu->tsc_adjust);
    else if (core_msr_is_apic(vcpu, index))
        err = lapic_read_msr(vcpu->lapic, index, value) ? VMM_E_NOENT : 0;
    else
        err = vcpu->vm->ops->get_msr(vcpu, index, value);
    if (err)
        vm_fail(vcpu->vm, err, __func__, "MSR %#x is not modelled or cannot be read", index);
    core_vcpu_release(vcpu, nested);
    return err;
}

static int engine_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
    bool entered = core_engine_enter(vcpu);
    int err = vcpu->vm->ops->set_msr(vcpu, index, value);

    core_engine_leave(vcpu, entered);
    return err;
}

int vcpu_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    if (index == MSR_TSC)
        core_vcpu_set_tsc(vcpu, value);
    else if (index == MSR_TSC_ADJUST)
        atomic_store(&vcpu->tsc_adjust, value);
    else if (core_msr_is_apic(vcpu, index))
        err = lapic_write_msr(vcpu->lapic, index, value, true) ? VMM_E_NOENT : 0;
    else
        err = engine_set_msr(vcpu, index, value);
    if (err)
        vm_fail(vcpu->vm, err, __func__, "MSR %#x is not modelled or cannot hold %#llx", index,
                (unsigned long long)value);
    core_vcpu_release(vcpu, nested);
    return err;
}

/* ---- ready-made modes ---- */

static struct vmm_segment segment(uint16_t selector, uint32_t limit, uint32_t ar)
{
    return (struct vmm_segment){.selector = selector, .limit = limit, .ar = ar};
}

static void set_segments(struct vcpu_regs *r, struct vmm_segment code, struct vmm_segment data)
{
    for (int i = VMM_ES; i <= VMM_GS; i++)
        r->seg[i] = i == VMM_CS ? code : data;
    r->seg[VMM_LDTR] = segment(0, 0xffff, VMM_AR_UNUSABLE);
    r->seg[VMM_TR] = segment(0, 0xffff, 0x8b); /* busy 32-bit or 64-bit TSS */
}

/* PML4, PDPT and four page directories with 2 MiB pages. */
static int write_tables(struct vm *vm, uint64_t gpa, uint64_t flags)
{
    uint64_t page[PAGE / sizeof(uint64_t)] = {gpa + PAGE + flags};
    int err = vm_mem_write(vm, gpa, page, PAGE);

    for (uint64_t i = 0; i < 4; i++)
        page[i] = gpa + (2 + i) * PAGE + flags;
    if (!err)
        err = vm_mem_write(vm, gpa + PAGE, page, PAGE);
    for (uint64_t dir = 0; dir < 4 && !err; dir++) {
        for (uint64_t i = 0; i < 512; i++)
            page[i] = (dir << 30 | i << 21) + flags + 0x80;
        err = vm_mem_write(vm, gpa + (2 + dir) * PAGE, page, PAGE);
    }
    return err;
}

static void setup_real(struct vcpu_regs *r, const struct vcpu_setup *s)
{
    struct vmm_segment code = segment(0, 0xffff, 0x9b);

    code.base = s->rip & ~0xffffull;
    code.selector = (uint16_t)(code.base >> 4);
    set_segments(r, code, segment(0, 0xffff, 0x93));
    r->rip = s->rip & 0xffff;
    r->idt.limit = 0x3ff;
    r->cr0 = X86_CR0_ET;
}

static void setup_prot32(struct vcpu_regs *r, const struct vcpu_setup *s)
{
    set_segments(r, segment(8, UINT32_MAX, 0xc09b), segment(16, UINT32_MAX, 0xc093));
    r->rip = s->rip;
    r->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE;
}

static void setup_long(struct vcpu_regs *r, const struct vcpu_setup *s, bool user)
{
    if (user)
        set_segments(r, segment(0x2b, UINT32_MAX, 0xa0fb), segment(0x23, UINT32_MAX, 0xc0f3));
    else
        set_segments(r, segment(8, UINT32_MAX, 0xa09b), segment(16, UINT32_MAX, 0xc093));
    r->rip = s->rip;
    r->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
    r->cr3 = s->cr3 ? s->cr3 : s->tables;
    /* Compilers use SSE for everything in 64-bit code. */
    r->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    r->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
}

static int set_mode(struct vcpu *vcpu, const struct vcpu_setup *s)
{
    struct vm *vm = vcpu->vm;
    bool is_long = s->mode == VMM_SETUP_LONG64 || s->mode == VMM_SETUP_USER64;
    struct vcpu_regs r;

    /* Here for apic_base, which stays. */
    int err = core_regs_get(vcpu, VMM_REGS_CONTROL, &r);
    if (err)
        return err;
    uint64_t apic_base = r.apic_base;
    memset(&r, 0, sizeof(r));
    r.size = sizeof(r);
    r.groups = VMM_REGS_ALL;
    r.apic_base = apic_base;
    r.gpr[VMM_RSP] = s->rsp;
    r.rflags = 2 /* always 1 */;
    r.xcr0 = 1;
    r.dr[6] = 0xffff0ff0;
    r.dr[7] = 0x400;
    r.pat = PAT_RESET;
    if (s->mode == VMM_SETUP_REAL)
        setup_real(&r, s);
    else if (s->mode == VMM_SETUP_PROT32)
        setup_prot32(&r, s);
    else
        setup_long(&r, s, s->mode == VMM_SETUP_USER64);

    if (is_long && !s->cr3) {
        err = write_tables(vm, s->tables, s->mode == VMM_SETUP_USER64 ? 7 : 3);
        if (err)
            return core_fail_gpa(vm, err, "vcpu_set_mode", s->tables,
                                 "no memory for 6 page table pages at %#llx",
                                 (unsigned long long)s->tables);
    }
    /* XSTATE_BV = 0: everything in its initial configuration (SDM Vol. 1 13.6). */
    _Alignas(64) uint8_t area[XSAVE_MIN] = {0};
    const uint16_t fcw = 0x37f;
    const uint32_t mxcsr = MXCSR_RESET;
    memcpy(area, &fcw, sizeof(fcw));
    memcpy(area + 24, &mxcsr, sizeof(mxcsr));
    err = set_groups(vcpu, "vcpu_set_mode", &r, false);
    if (err)
        return err;
    if (atomic_load(&vcpu->where) == VCPU_OUT)
        drop(vcpu); /* also at the same RIP; but a callback's instruction goes on */
    return engine_set_xsave(vcpu, area, sizeof(area));
}

static const char *check_setup(const struct vcpu_setup *s)
{
    bool is_long = s->mode == VMM_SETUP_LONG64 || s->mode == VMM_SETUP_USER64;

    if (s->mode > VMM_SETUP_USER64)
        return "mode is unknown";
    if (is_long && !s->cr3 && (!s->tables || s->tables % PAGE))
        return "neither cr3 nor a page-aligned tables is given";
    if (!is_long && s->rip > UINT32_MAX)
        return "rip is above 4 GiB";
    if (!is_long && s->rsp > UINT32_MAX)
        return "rsp is above 4 GiB";
    return NULL;
}

int vcpu_set_mode(struct vcpu *vcpu, const struct vcpu_setup *setup)
{
    struct vcpu_setup own;
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int err = core_copy_in(&own, sizeof(own), setup, 2 * sizeof(uint32_t));
    if (err)
        return vm_fail(vcpu->vm, err, __func__, "bad struct vcpu_setup");
    const char *wrong = check_setup(&own);
    if (wrong)
        return vm_fail(vcpu->vm, VMM_E_INVAL, __func__, "%s", wrong);
    err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    err = set_mode(vcpu, &own);
    core_vcpu_release(vcpu, nested);
    return err;
}

/* ---- guest-virtual memory ---- */

static bool translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa)
{
    bool entered = core_engine_enter(vcpu), ok = false;
    int err = vcpu->vm->ops->translate(vcpu, gva, gpa, &ok);

    core_engine_leave(vcpu, entered);
    return !err && ok;
}

int vcpu_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa, int *ok)
{
    uint64_t found = 0;
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    if (!gpa || !ok)
        return vm_fail(vcpu->vm, VMM_E_INVAL, __func__, "%s is NULL", gpa ? "ok" : "gpa");
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    *ok = translate(vcpu, gva, &found);
    if (*ok)
        *gpa = found;
    core_vcpu_release(vcpu, nested);
    return 0;
}

/* Bytes from `gva` to the end of its page, at most `len`. */
static uint64_t in_page(uint64_t gva, uint64_t len)
{
    uint64_t n = PAGE - gva % PAGE;

    return n < len ? n : len;
}

/* One pass over the pages: only looks (both NULL), or copies out or in. */
static int walk_virt(struct vcpu *vcpu, const char *op, uint64_t gva, uint8_t *to,
                     const uint8_t *from, uint64_t len)
{
    struct vm *vm = vcpu->vm;
    uint64_t gpa = 0;

    for (uint64_t done = 0, n; done < len; done += n) {
        uint8_t probe[PAGE];

        n = in_page(gva + done, len - done);
        if (!translate(vcpu, gva + done, &gpa))
            return vm_fail(vm, VMM_E_RANGE, op, "virtual address %#llx is not mapped",
                           (unsigned long long)(gva + done));
        if (from ? vm_mem_write(vm, gpa, from + done, n)
                 : vm_mem_read(vm, gpa, to ? to + done : probe, n))
            return core_fail_gpa(vm, VMM_E_RANGE, op, gpa,
                                 "virtual address %#llx is at %#llx: no memory",
                                 (unsigned long long)(gva + done), (unsigned long long)gpa);
    }
    return 0;
}

static int copy_virt(struct vcpu *vcpu, const char *op, uint64_t gva, uint8_t *to,
                     const uint8_t *from, uint64_t len)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    if (!to && !from && len)
        return vm_fail(vcpu->vm, VMM_E_INVAL, op, "buf is NULL");
    int err = core_vcpu_claim(vcpu, op, &nested);
    if (err)
        return err;
    err = walk_virt(vcpu, op, gva, NULL, NULL, len);
    if (!err)
        err = walk_virt(vcpu, op, gva, to, from, len);
    core_vcpu_release(vcpu, nested);
    return err;
}

int vcpu_read_virt(struct vcpu *vcpu, uint64_t gva, void *buf, uint64_t len)
{
    return copy_virt(vcpu, __func__, gva, buf, NULL, len);
}

int vcpu_write_virt(struct vcpu *vcpu, uint64_t gva, const void *buf, uint64_t len)
{
    return copy_virt(vcpu, __func__, gva, NULL, buf, len);
}
