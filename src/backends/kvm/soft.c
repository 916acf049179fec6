/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/soft.c: what the software CPU executes in KVM's place. */
#include "backends/kvm/kvm.h"
#include "core/x86/control.h"
#include "core/x86/exec.h"

#define CHUNK 4096u /* instructions between two looks at whether KVM can go on */

/* ---- what KVM can run ---- */

static bool has(uint32_t bad)
{
    return kvm_host()->bad & bad;
}

/* KVM takes no events that belong to an instruction, nor those whose instruction length it would
 * have to know, nor what is to follow an instruction that is over. */
static bool event_ok(const struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;
    const struct x86_event *e = &cpu->event;

    if (cpu->later.valid || cpu->pending_db)
        return false;
    if (!e->valid)
        return true;
    if (e->type > X86_EVENT_EXCEPTION || (e->has_cr2 && !kv->has_payload))
        return false;
    return e->type != X86_EVENT_EXCEPTION ||
           (e->vector != X86_NMI && e->vector != X86_BP && e->vector != X86_OF_);
}

static bool mode_ok(const struct x86_cpu *cpu)
{
    if (!(cpu->cr0 & X86_CR0_PE))
        return !has(KVM_BAD_REAL);
    if (!(cpu->cr0 & X86_CR0_PG))
        return !has(KVM_BAD_PROTECTED);
    if (!(cpu->cr4 & X86_CR4_PAE))
        return !has(KVM_BAD_PAGING32);
    if (!(cpu->efer & X86_EFER_LMA))
        return !has(KVM_BAD_PAE);
    return (cpu->seg[VMM_CS].ar & VMM_AR_L) || !has(KVM_BAD_COMPAT);
}

static bool user_ok(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;

    if (has(KVM_BAD_USER_FLAGS) && ((cpu->rflags & X86_IOPL) || !(cpu->rflags & X86_IF)))
        return false;
    if (!has(KVM_BAD_USER_EVENTS))
        return true;
    /* Behind the fence events come from the software CPU. */
    return x86_code64(cpu) && !cpu->event.valid && !(cpu->nmi_pending && !cpu->nmi_blocked);
}

static bool user_code(uint64_t descriptor)
{
    /* Present, code, DPL 3: SDM Vol. 3A figure 3-8. */
    return (descriptor >> 40 & 0xf8) == 0xf8;
}

/* Whether the GDT has code segments for CPL 3. */
static bool gdt_has_user_code(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    struct core_page page = {0};
    uint64_t gpa = 0;

    for (uint32_t i = 8; i + 7 <= cpu->gdt.limit; i += 8) {
        uint64_t linear = cpu->gdt.base + i, descriptor;

        if (linear & 7)
            return true; /* may cross pages: nobody does this */
        if (!page.host || !(linear & ~MMU_PAGE_MASK))
            if (!mmu_translate(&cpu->mmu, linear, &gpa) ||
                !core_mem_page(kv->vcpu->vm, gpa, &page) || !page.host) {
                page.host = NULL;
                i |= 0xff8u & ~(uint32_t)cpu->gdt.base;
                continue;
            }
        mmu_copy(&descriptor, page.host + (linear & ~MMU_PAGE_MASK), sizeof(descriptor));
        if (user_code(descriptor))
            return true;
    }
    return false;
}

/*
 * Where events at CPL 3 are wrong, the way from CPL 0 to CPL 3 must not be taken inside of KVM, as
 * the fence would not be there: once there is such a way, the software CPU runs CPL 0.
 */
static bool kernel_ok(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;

    if (!has(KVM_BAD_USER_EVENTS) || !(cpu->cr0 & X86_CR0_PE) || kvm_lapic_in_kernel(kv->vcpu->vm))
        return true;
    return !(cpu->efer & X86_EFER_SCE) && !(cpu->seg[VMM_TR].selector & ~3u) &&
           !(cpu->seg[VMM_LDTR].selector & ~3u) && !gdt_has_user_code(kv);
}

bool kvm_can_run(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;

    if (kv->vcpu->restart || kv->cpuid_stale || kv->debug_soft || !event_ok(kv))
        return false;
    if (!kvm_host()->bad)
        return true;
    return mode_ok(cpu) && (cpu->cpl == 3 ? user_ok(kv) : kernel_ok(kv));
}

bool kvm_wants_fence(struct kvm_vcpu *kv)
{
    return has(KVM_BAD_USER_EVENTS) && kv->soft.cpu->cpl == 3;
}

/* ---- running ---- */

/* Memory and page tables may have changed since the software CPU looked at them. */
static void refresh(struct kvm_vcpu *kv)
{
    if (!kv->fresh_soft)
        return;
    kv->fresh_soft = false;
    x86_flush_tlb(kv->soft.cpu);
    x86_cache_recheck(kv->soft.cpu);
    kv->flush_count = kv->soft.cpu->mmu.flush_gen;
}

/* interp_run with a limit below the budget; *done gets the number of instructions. */
static int run_limited(struct vcpu *vcpu, uint64_t limit, bool step, uint64_t *done)
{
    uint64_t budget = vcpu->insn_budget, n = limit < budget ? limit : budget;
    int result;

    vcpu->insn_budget = n;
    result = interp_run(vcpu, step);
    *done = vcpu->insn_budget == UINT64_MAX ? 0 : n - vcpu->insn_budget;
    vcpu->insn_budget = budget == UINT64_MAX ? budget : budget - *done;
    return result;
}

/* Other vCPUs run in KVM, whose stores to code nobody tells us of. */
static bool code_may_change(const struct vm *vm)
{
    return vm->max_vcpus > 1;
}

int kvm_soft_run(struct kvm_vcpu *kv, uint64_t insns, bool step)
{
    struct vcpu *vcpu = kv->vcpu;
    int result = kvm_pull(kv, KVM_G_ALL);

    if (result)
        return result;
    refresh(kv);
    for (;;) {
        uint64_t chunk = insns < CHUNK ? insns : CHUNK, done;

        kvm_changed(kv, KVM_G_ALL);
        result = run_limited(vcpu, chunk, step, &done);
        if (result != BACKEND_AGAIN || step || atomic_load(&vcpu->requests) || !vcpu->insn_budget ||
            vcpu->exit.reason != VMM_EXIT_NONE)
            break;
        if (insns != UINT64_MAX)
            insns -= done;
        if (!insns || (insns == UINT64_MAX && kvm_can_run(kv)))
            break;
        if (code_may_change(vcpu->vm))
            x86_cache_recheck(kv->soft.cpu);
    }
    return result;
}
