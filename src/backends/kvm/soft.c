/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/soft.c: what the software CPU executes in KVM's place. */
#include "backends/kvm/kvm.h"
#include "core/x86/control.h"
#include "core/x86/exec.h"

#define CHUNK 4096u /* instructions between two looks at whether KVM can go on */

/* ---- what KVM can run ---- */

static bool has(const struct kvm_vcpu *kv, uint32_t bad)
{
    return kv->host->bad & bad;
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

static bool mode_ok(const struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;

    if (!(cpu->cr0 & X86_CR0_PE))
        return !has(kv, KVM_BAD_REAL);
    if (!(cpu->cr0 & X86_CR0_PG))
        return !has(kv, KVM_BAD_PROTECTED);
    if (!(cpu->cr4 & X86_CR4_PAE))
        return !has(kv, KVM_BAD_PAGING32);
    if (!(cpu->efer & X86_EFER_LMA))
        return !has(kv, KVM_BAD_PAE);
    return (cpu->seg[VMM_CS].ar & VMM_AR_L) || !has(kv, KVM_BAD_COMPAT);
}

static bool user_ok(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;

    if (has(kv, KVM_BAD_USER_FLAGS) && ((cpu->rflags & X86_IOPL) || !(cpu->rflags & X86_IF)))
        return false;
    if (!kvm_wants_fence(kv))
        return true;
    /* Behind the fence events come from the software CPU. */
    return !cpu->event.valid && !(cpu->nmi_pending && !cpu->nmi_blocked);
}

/*
 * Where CPL 0 is executed by an emulator that does not know all instructions, it also gets some of
 * those wrong that it takes. And where events at CPL 3 are wrong, the way from CPL 0 to CPL 3 must
 * not be taken inside of KVM, as the fence would not be there. The software CPU runs all of it,
 * faster than such a KVM.
 */
static bool only_user_code(const struct kvm_vcpu *kv)
{
    return has(kv, KVM_BAD_EMULATION | KVM_BAD_USER_EVENTS);
}

bool kvm_can_run(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;

    if (kv->vcpu->restart || kv->cpuid_stale || kv->debug_soft || !event_ok(kv))
        return false;
    if (!kv->host->bad)
        return true;
    if (cpu->cpl != 3)
        return mode_ok(kv) && !only_user_code(kv);
    return mode_ok(kv) && user_ok(kv) && (x86_code64(cpu) || !only_user_code(kv));
}

bool kvm_wants_fence(struct kvm_vcpu *kv)
{
    return has(kv, KVM_BAD_USER_EVENTS) && kv->soft.cpu->cpl == 3;
}

bool kvm_code_is(struct kvm_vcpu *kv, uint64_t linear, const char *bytes, unsigned n)
{
    struct core_page page;
    uint64_t gpa;

    for (unsigned i = 0; i < n; i++)
        if (!mmu_translate(&kv->soft.cpu->mmu, linear + i, &gpa) ||
            !core_mem_page(kv->vcpu->vm, gpa, &page) || !page.host ||
            page.host[gpa & ~MMU_PAGE_MASK] != (uint8_t)bytes[i])
            return false;
    return true;
}

/* KVM may be left between an event and the failure of its delivery. The instruction comes again;
 * only the trap of a single step is behind it. */
static void undo_exception(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;

    if (!cpu->event.valid || cpu->event.type != X86_EVENT_EXCEPTION)
        return;
    if (cpu->event.vector == X86_DB && (cpu->rflags & X86_TF))
        cpu->pending_db |= X86_DR6_BS;
    cpu->event.valid = false;
    cpu->rflags &= ~X86_RF;
    kvm_changed(kv, KVM_G_REGS | KVM_G_EVENTS);
}

void kvm_undo_fenced(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;

    if (!kv->fenced)
        return;
    if (kv->valid & KVM_G_EVENTS)
        undo_exception(kv);
    /* SYSCALL overwrites RCX and R11 anyway. */
    if (cpu->rip != KVM_FENCE_RIP || !kvm_code_is(kv, cpu->gpr[VMM_RCX] - 2, "\x0f\x05", 2))
        return;
    cpu->rip = cpu->gpr[VMM_RCX] - 2;
    x86_set_rflags(cpu, cpu->gpr[VMM_R11]);
    kvm_changed(kv, KVM_G_REGS);
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
