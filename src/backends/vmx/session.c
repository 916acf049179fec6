/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/session.c: what an entry needs and the next one finds again, as long as the thread
 * does nothing else in between: the VMCS, vector registers, MSRs, the host's state. */
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "core/x86/xstate.h"
#include "freestanding/host.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/* ---- the host's state for exits ---- */

#define MSR_FS_BASE   0xc0000100u
#define MSR_GS_BASE   0xc0000101u
#define MSR_EFER      0xc0000080u
#define MSR_PAT       0x277u
#define MSR_STAR      0xc0000081u
#define MSR_LSTAR     0xc0000082u
#define MSR_CSTAR     0xc0000083u
#define MSR_SFMASK    0xc0000084u
#define MSR_KERNEL_GS 0xc0000102u
#define MSR_TSC_AUX   0xc0000103u

struct table {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

static uint64_t tr_base(uint64_t gdt, uint16_t tr)
{
    const uint8_t *d = (const uint8_t *)(gdt + (tr & 0xfff8));
    uint32_t low, high;
    uint64_t top = 0;

    memcpy(&low, d, 4);
    memcpy(&high, d + 4, 4);
    memcpy(&top, d + 8, 4);
    return (low >> 16) | (high & 0xff) << 16 | (high & 0xff000000) | top << 32;
}

/* Each CPU has its own; on one CPU they stay as they are (vmm/host.h). */
static void put_host_cpu(void)
{
    struct table gdt, idt;
    uint16_t es, cs, ss, ds, tr;

    __asm__ volatile("mov %%es, %0" : "=r"(es));
    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    __asm__ volatile("mov %%ss, %0" : "=r"(ss));
    __asm__ volatile("mov %%ds, %0" : "=r"(ds));
    vmx_insn_put(VMX_HOST_ES_SEL, es & 0xfff8);
    vmx_insn_put(VMX_HOST_CS_SEL, cs & 0xfff8);
    vmx_insn_put(VMX_HOST_SS_SEL, ss & 0xfff8);
    vmx_insn_put(VMX_HOST_DS_SEL, ds & 0xfff8);
    __asm__ volatile("sgdt %0" : "=m"(gdt));
    __asm__ volatile("sidt %0" : "=m"(idt));
    __asm__ volatile("str %0" : "=r"(tr));
    vmx_insn_put(VMX_HOST_TR_SEL, tr & 0xfff8);
    vmx_insn_put(VMX_HOST_TR_BASE, tr_base(gdt.base, tr));
    vmx_insn_put(VMX_HOST_GDTR_BASE, gdt.base);
    vmx_insn_put(VMX_HOST_IDTR_BASE, idt.base);
    vmx_insn_put(VMX_HOST_SYSENTER_CS, vmx_insn_rdmsr(0x174));
    vmx_insn_put(VMX_HOST_SYSENTER_ESP, vmx_insn_rdmsr(0x175));
    vmx_insn_put(VMX_HOST_SYSENTER_EIP, vmx_insn_rdmsr(0x176));
    if (vmx_uses(VMX_GROUP_EXIT, VMX_EXITC_LOAD_EFER))
        vmx_insn_put(VMX_HOST_EFER, vmx_insn_rdmsr(MSR_EFER));
    if (vmx_uses(VMX_GROUP_EXIT, VMX_EXITC_LOAD_PAT))
        vmx_insn_put(VMX_HOST_PAT, vmx_insn_rdmsr(MSR_PAT));
}

/* Those of a thread: each is written when its value is another than last time. */
#define PUT_CHANGED(field, member, value)                                                          \
    do {                                                                                           \
        uint64_t now_ = (value);                                                                   \
                                                                                                   \
        if (now_ != h->member) {                                                                   \
            h->member = now_;                                                                      \
            vmx_insn_put(field, now_);                                                             \
        }                                                                                          \
    } while (0)

/* What can be another at each session ... */
static inline void put_host_session(struct vmx_host_state *h)
{
    uint64_t cr3;

    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    PUT_CHANGED(VMX_HOST_CR3, cr3, cr3);
    PUT_CHANGED(VMX_HOST_CR4, cr4, vmx_insn_get_cr4());
}

/* ... and what a thread keeps on a CPU while it runs a vCPU (vmm/host.h). */
static __attribute__((noinline)) void put_host_thread(struct vmx_vcpu *v)
{
    struct vmx_host_state *h = &v->host;
    uint32_t fs, gs;

    v->host_known = true;
    __asm__ volatile("mov %%fs, %k0" : "=r"(fs));
    __asm__ volatile("mov %%gs, %k0" : "=r"(gs));
    PUT_CHANGED(VMX_HOST_FS_SEL, fs, fs & 0xfff8);
    PUT_CHANGED(VMX_HOST_GS_SEL, gs, gs & 0xfff8);
    PUT_CHANGED(VMX_HOST_CR0, cr0, vmx_insn_get_cr0());
    PUT_CHANGED(VMX_HOST_FS_BASE, fs_base, vmx_insn_rdmsr(MSR_FS_BASE));
    PUT_CHANGED(VMX_HOST_GS_BASE, gs_base, vmx_insn_rdmsr(MSR_GS_BASE));
    v->host_msr[VMX_M_KERNEL_GS] = vmx_insn_rdmsr(MSR_KERNEL_GS);
}

static void read_host_msrs(struct vmx_vcpu *v)
{
    v->host_msr[VMX_M_STAR] = vmx_insn_rdmsr(MSR_STAR);
    v->host_msr[VMX_M_LSTAR] = vmx_insn_rdmsr(MSR_LSTAR);
    v->host_msr[VMX_M_CSTAR] = vmx_insn_rdmsr(MSR_CSTAR);
    v->host_msr[VMX_M_SFMASK] = vmx_insn_rdmsr(MSR_SFMASK);
    if (vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_RDTSCP))
        v->host_msr[VMX_M_TSC_AUX] = vmx_insn_rdmsr(MSR_TSC_AUX);
}

static __attribute__((noinline)) void come_to_cpu(struct vmx_vcpu *v)
{
    v->host_cpu = v->vmcs.cpu;
    v->settled = UINT64_MAX;
    put_host_cpu();
    read_host_msrs(v);
    vmx_area_host(v);
    /* Values that these registers cannot have, so that each is written. */
    v->host = (struct vmx_host_state){UINT64_MAX, UINT64_MAX, UINT64_MAX, 1ull << 62,
                                      1ull << 62, UINT64_MAX, UINT64_MAX};
    v->host_known = false;
}

void vmx_put_host(struct vmx_vcpu *v)
{
    come_to_cpu(v);
    put_host_thread(v);
    put_host_session(&v->host);
}

static void put_host(struct vmx_vcpu *v)
{
    if (v->host_cpu != v->vmcs.cpu)
        come_to_cpu(v);
    if (!v->host_known)
        put_host_thread(v);
}

/* ---- vector and x87 registers ---- */

/* What of the guest's components is in the CPU; never only a part of them, whatever its XCR0. */
static uint64_t components(const struct vmx_vcpu *v)
{
    return v->soft.cpu->feat.xcr0_mask & vmx_host_xcr0;
}

static void fpu_in(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    uint64_t all = components(v);

    if (__builtin_expect(v->valid & VMX_G_FPU, 0)) {
        if (v->newer & VMX_G_FPU)
            x86_get_xsave(v->soft.cpu, v->xsave, X86_XSAVE_MAX);
        v->newer &= ~VMX_G_FPU;
        v->valid &= ~VMX_G_FPU;
    }
    if (!vmx_host_xcr0) {
        __asm__ volatile("fxrstorq (%0)" ::"r"(v->xsave) : "memory");
        return;
    }
    if (all != vmx_host_xcr0)
        vmx_insn_xsetbv(all); /* fpu_begin has set the host's */
    __asm__ volatile("xrstorq (%0)" ::"r"(v->xsave), "a"((uint32_t)all), "d"(0) : "memory");
    if (cpu->xcr0 != all)
        vmx_insn_xsetbv(cpu->xcr0);
}

static void fpu_out(struct vmx_vcpu *v)
{
    uint64_t all = components(v);
    uint64_t *header = (uint64_t *)((uint8_t *)v->xsave + X86_XSAVE_LEGACY);

    if (!vmx_host_xcr0) {
        __asm__ volatile("fxsaveq (%0)" ::"r"(v->xsave) : "memory");
        *header = X86_XCR0_X87 | X86_XCR0_SSE;
        return;
    }
    if (v->soft.cpu->xcr0 != all)
        vmx_insn_xsetbv(all);
    /* XSAVE leaves the rest of the header, which is zero, and the bits of other components. */
    *header = 0;
    __asm__ volatile("xsaveq (%0)" ::"r"(v->xsave), "a"((uint32_t)all), "d"(0) : "memory");
}

/* ---- MSRs ---- */

static inline void swap_in(struct vmx_vcpu *v, unsigned n, uint32_t index, uint64_t value)
{
    if (v->host_msr[n] == value)
        return;
    v->msrs_in |= 1u << n;
    vmx_insn_wrmsr(index, value);
}

static inline void swap_out(const struct vmx_vcpu *v, uint32_t in, unsigned n, uint32_t index)
{
    if (in >> n & 1)
        vmx_insn_wrmsr(index, v->host_msr[n]);
}

/* Those that the guest can use: SYSCALL's, SWAPGS's, RDTSCP's and RDPID's. */
static void msrs_in(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    v->msrs_in = 0;
    if (cpu->efer & X86_EFER_SCE) {
        swap_in(v, VMX_M_STAR, MSR_STAR, cpu->star);
        swap_in(v, VMX_M_LSTAR, MSR_LSTAR, cpu->lstar);
        swap_in(v, VMX_M_CSTAR, MSR_CSTAR, cpu->cstar);
        swap_in(v, VMX_M_SFMASK, MSR_SFMASK, cpu->sfmask);
    }
    if (cpu->efer & X86_EFER_LMA) {
        /* SWAPGS changes it without an exit, so it is always put back. */
        v->msrs_in |= 1u << VMX_M_KERNEL_GS;
        vmx_insn_wrmsr(MSR_KERNEL_GS, cpu->kernel_gs_base);
    }
    if (v->proc2 & VMX_PROC2_RDTSCP)
        swap_in(v, VMX_M_TSC_AUX, MSR_TSC_AUX, cpu->tsc_aux);
}

static void msrs_out(struct vmx_vcpu *v)
{
    const uint32_t in = v->msrs_in;

    if (!in)
        return;
    v->msrs_in = 0;
    if (in >> VMX_M_KERNEL_GS & 1) {
        v->soft.cpu->kernel_gs_base = vmx_insn_rdmsr(MSR_KERNEL_GS);
        vmx_insn_wrmsr(MSR_KERNEL_GS, v->host_msr[VMX_M_KERNEL_GS]);
    }
    if (in & ~(1u << VMX_M_KERNEL_GS)) {
        swap_out(v, in, VMX_M_STAR, MSR_STAR);
        swap_out(v, in, VMX_M_LSTAR, MSR_LSTAR);
        swap_out(v, in, VMX_M_CSTAR, MSR_CSTAR);
        swap_out(v, in, VMX_M_SFMASK, MSR_SFMASK);
        swap_out(v, in, VMX_M_TSC_AUX, MSR_TSC_AUX);
    }
}

/* ---- CR2 ---- */

static inline uint64_t get_cr2(void)
{
    uint64_t cr2;

    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    return cr2;
}

void vmx_set_cr2(struct vmx_vcpu *v, uint64_t cr2)
{
    v->soft.cpu->cr2 = cr2;
    if (v->in_session)
        __asm__ volatile("mov %0, %%cr2" ::"r"(cr2));
}

/* ---- time ---- */

#define NEVER UINT64_MAX

/* Timers that are further away than the preemption timer reaches, or a second, are looked at again
 * then. */
static uint64_t tsc_at(uint64_t deadline)
{
    uint64_t now, ns, ticks;

    if (deadline == UINT64_MAX)
        return NEVER;
    now = os_now();
    ns = deadline > now ? deadline - now : 0;
    if (ns > 1000000000)
        ns = 1000000000;
    ticks = ns * vmm_host->tsc_khz / 1000000;
    return vmx_insn_rdtsc() + (ticks > UINT32_MAX ? UINT32_MAX : ticks);
}

/* At its end the timer is out of the way. */
static inline void push_timer(struct vmx_vcpu *v)
{
    bool runs = (v->pin & VMX_PIN_PREEMPTION_TIMER) && v->deadline != NEVER;

    if (v->timer_runs && !runs)
        vmx_insn_put(VMX_PREEMPTION_TIMER, UINT32_MAX);
    v->timer_runs = runs;
}

/* Whoever writes the TSC moves the offset, and so do pauses: never during a session. */
static inline void put_tsc_offset(struct vmx_vcpu *v)
{
    const struct vmx_tsc *t = &vmx_vm_of(v)->tsc;
    uint64_t offset;

    if (!t->hardware)
        return;
    offset = atomic_load_explicit(&v->vcpu->tsc_offset, memory_order_relaxed) -
             atomic_load_explicit(&t->base, memory_order_relaxed);
    if (offset == v->tsc_offset)
        return;
    v->tsc_offset = offset;
    vmx_insn_put(VMX_TSC_OFFSET, offset);
}

/* ---- sessions ---- */

/* What can be another at each session, and what there is of the guest's in the CPU. */
static inline void go_in(struct vmx_vcpu *v)
{
    put_host_session(&v->host);
    put_tsc_offset(v);
    vmx_pml_push(v);
    fpu_in(v);
    msrs_in(v);
    __asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(v->host_flags)::"memory");
    atomic_store(&v->running, v->vmcs.cpu + 1);
    v->in_session = true;
    if (get_cr2() != v->soft.cpu->cr2)
        vmx_set_cr2(v, v->soft.cpu->cr2);
}

/* The CPU where the VMCS is active may have stopped for good, in an exit. */
static int not_loaded(struct vmx_vcpu *v)
{
    uint32_t stopped = vmx_vmcs_abort(&v->vmcs);

    if (stopped)
        return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "VMX abort on CPU %u: %s",
                       v->vmcs.cpu, vmx_abort_name(stopped));
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "VMPTRLD: %s",
                   vmx_insn_error((uint32_t)vmx_insn_read(VMX_VM_INSN_ERROR)));
}

static int begin(struct vmx_vcpu *v)
{
    struct vmx_cpu *cpu = &vmx_machine.cpus[vmm_host->cpu_id(vmm_host->ctx)];

    if (cpu->current != &v->vmcs && !vmx_vmcs_load(&vmx_machine, &v->vmcs))
        return not_loaded(v);
    if (!v->ready)
        vmx_state_init(v);
    vmm_host->fpu_begin(vmm_host->ctx);
    put_host(v);
    push_timer(v);
    vmx_apic_push(v);
    go_in(v);
    return 0;
}

/* The deadline holds over sessions: a timer that is set before it sends a request. */
static __attribute__((noinline)) void look_at_timers(struct vmx_vcpu *v)
{
    vmx_timers_end(v);
    if (v->poll)
        core_poll_timers(v->vcpu);
    v->poll = false;
    v->deadline = tsc_at(core_timers_begin(v->vcpu));
    v->timed = true;
}

/* Without the preemption timer, what ends the guest's time is what happens to exit. */
static inline bool timers_wait(struct vmx_vcpu *v)
{
    if (!(v->pin & VMX_PIN_PREEMPTION_TIMER) && v->timed && v->deadline != NEVER &&
        vmx_insn_rdtsc() >= v->deadline)
        v->poll = true;
    return v->poll || !v->timed;
}

void vmx_timers_end(struct vmx_vcpu *v)
{
    if (!v->timed)
        return;
    v->timed = v->again = false;
    core_timers_end(v->vcpu);
}

static __attribute__((noinline)) int begin_first(struct vmx_vcpu *v)
{
    int err;

    if (timers_wait(v))
        look_at_timers(v);
    if (v->tpr_used || (vmx_apic_page && v->vcpu->lapic))
        vmx_apic_begin(v);
    vmm_host->preempt_off(vmm_host->ctx);
    err = begin(v);
    if (!err) {
        v->again = !v->tpr_used && (v->deadline == NEVER || (v->pin & VMX_PIN_PREEMPTION_TIMER));
        return 0;
    }
    vmm_host->preempt_on(vmm_host->ctx);
    if (v->lent)
        vmx_apic_take_back(v);
    return err;
}

/* Mostly the last one was on this CPU, too, and its timers have not been looked at since. */
int vmx_session_begin_now(struct vmx_vcpu *v)
{
    const struct vmm_host_ops *host = vmm_host;
    uint32_t cpu;

    if (__builtin_expect(!v->again, 0))
        return begin_first(v);
    host->preempt_off(host->ctx);
    cpu = host->cpu_id(host->ctx);
    if (__builtin_expect(cpu != v->host_cpu || vmx_machine.cpus[cpu].current != &v->vmcs, 0)) {
        host->preempt_on(host->ctx);
        return begin_first(v);
    }
    host->fpu_begin(host->ctx);
    go_in(v);
    return 0;
}

static void note_invept(struct vmx_vcpu *v)
{
    struct vmx_mmu *mmu = &vmx_vm_of(v)->mmu;

    v->ept_seen = false;
    os_mutex_lock(&mmu->lock);
    ept_invept_done(&mmu->ept, &v->mmu.ept_cpu, v->ept_gen);
    os_mutex_unlock(&mmu->lock);
}

void vmx_session_end_now(struct vmx_vcpu *v)
{
    v->in_session = false;
    v->soft.cpu->cr2 = get_cr2();
    atomic_store_explicit(&v->running, 0, memory_order_release);
    __asm__ volatile("pushq %0\n\tpopfq" ::"r"(v->host_flags) : "memory", "cc");
    msrs_out(v);
    fpu_out(v);
    if (v->proc2 & VMX_PROC2_PML)
        vmx_pml_collect(v);
    vmm_host->fpu_end(vmm_host->ctx);
    vmm_host->preempt_on(vmm_host->ctx);
    if (v->lent)
        vmx_apic_take_back(v);
    if (v->ept_seen)
        note_invept(v);
    if (v->pml_count)
        vmx_pml_drain(v);
}
