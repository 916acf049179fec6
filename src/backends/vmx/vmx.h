/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/vmx.h: the engine on VMX instructions: its objects, and what its files call of each
 * other. */
#ifndef BACKENDS_VMX_VMX_H
#define BACKENDS_VMX_VMX_H

#include "backends/interp/interp.h"
#include "backends/vmx/mmu.h"
#include "core/irqchip.h"
#include "vmx/area.h"
#include "vmx/cpu.h"
#include "vmx/move.h"
#include "vmx/mtrr.h"
#include "vmx/tlb.h"

/*
 * Registers are in the software CPU (soft.cpu), in the VMCS, or in both, by groups. The general
 * registers but RSP are always the software CPU's. An entry gives the VMCS what is newer here
 * (vmx_push); after an exit nothing but that is valid here, and who needs a group asks for it
 * (vmx_pull). What changes a group says so (vmx_changed).
 */
#define VMX_G_RIP      1u
#define VMX_G_RSP      2u
#define VMX_G_FLAGS    4u   /* RFLAGS */
#define VMX_G_BLOCKING 8u   /* by STI, MOV SS, NMI */
#define VMX_G_SEGS     16u  /* segment registers, CPL */
#define VMX_G_TABLES   32u  /* GDTR, IDTR */
#define VMX_G_CONTROL  64u  /* CR0, CR3, CR4, EFER, PDPTEs */
#define VMX_G_MSRS     128u /* SYSENTER_*, PAT; the guest does not change them alone */
#define VMX_G_FPU      256u /* vector and x87 registers, PKRU: between soft.cpu and `xsave` */
#define VMX_G_REGS     (VMX_G_RIP | VMX_G_RSP | VMX_G_FLAGS | VMX_G_BLOCKING)
#define VMX_G_VMCS     255u
#define VMX_G_ALL      511u

/* MSRs that no VMCS field holds and that the guest uses without exits: the guest's are in the CPU
 * between vmx_session_begin and _end. */
enum { VMX_M_STAR, VMX_M_LSTAR, VMX_M_CSTAR, VMX_M_SFMASK, VMX_M_KERNEL_GS, VMX_M_TSC_AUX, VMX_NM };

/* Of the host, in the VMCS: those that are not written anew at each entry. */
struct vmx_host_state {
    uint64_t cr0, cr3, cr4, fs_base, gs_base;
    uint64_t fs, gs; /* selectors */
};

/* Where a page of guest memory is. */
struct vmx_page_cache {
    uint64_t gpa;
    const uint8_t *host;
};
#define VMX_NPAGES 5

/* Devices are accessed by few instructions, again and again: a move, where it is, and all that says
 * that it is still there. */
#define VMX_NSITES   4u
#define VMX_NENTRIES 4u
struct vmx_site {
    uint64_t rip, cr3;
    bool known;
    const uint64_t
        *entry[VMX_NENTRIES];     /* of paging structures, in host memory; or their `value` */
    uint64_t value[VMX_NENTRIES]; /* what they were */
    const uint8_t *insn;
    uint64_t bytes[2];
    struct vmx_move move;
};

/* A linear page that is no memory, and the page faults that its accesses are. [mmio.c] */
#define VMX_NMMIO 4u
struct vmx_mmio_page {
    uint64_t linear, gpa;
    uint64_t flush_gen, map; /* of the TLB and the memory map; 0: unused */
    uint32_t error;          /* code */
    uint32_t ac;             /* RFLAGS.AC */
};

/* What the vCPU's table says of a leaf, without what depends on registers. */
#define VMX_NLEAVES 8u
struct vmx_leaf {
    uint32_t leaf, subleaf, out[4];
    bool known, dynamic;
};

struct vmx_vcpu {
    struct interp_vcpu soft; /* first: interp.h */
    struct vcpu *vcpu;
    struct vmx_vm *vv;
    struct vmx_vmcs vmcs;
    struct vmx_mmu_vcpu mmu;
    struct vmx_tlb tlb;
    uint32_t valid, newer; /* VMX_G_*; newer is a part of valid: the other copy is out of date */
    bool stepping, by_mtf; /* vcpu_step; by the monitor trap flag */
    bool stepped;          /* the software CPU has executed an instruction or delivered an event */
    bool ready;            /* the VMCS has its controls */
    bool debug;            /* the program has break- or watchpoints */
    bool ept_seen;         /* this session has done an INVEPT that ept_cpu does not know of ... */
    uint64_t ept_gen;      /* ... for this generation */
    void *xsave;           /* the guest's vector and x87 registers as XSAVE stores them */
    uint8_t *msr_bits;     /* bitmap */
    bool checked;          /* nothing has changed since the hardware could run the state */
    bool nmi_injected;     /* by the entry that comes */
    bool may_block_nmi;    /* the guest was entered with NMIs blocked, or with one */
    bool poll;             /* timers may be due */
    uint64_t flush_seen;   /* soft.cpu->mmu.flush_gen that the hardware's TLB knows of */
    uint64_t settled;      /* what of invalidations had been asked for when none was due [run.c] */
    bool calm;             /* nothing waited to be injected at the last entry */
    _Atomic uint32_t running; /* host CPU + 1 in a session: whom wake has to kick */

    /* Controls as the VMCS has them. */
    uint32_t pin, proc, proc2, entry;

    /* The session: preemption and interrupts are off, VMCS, vector registers, CR2 and MSRs are in
     * the CPU. */
    bool in_session;
    bool timed;        /* core_timers_begin; `deadline` holds */
    bool again;        /* the next session needs nothing that the last one has not done */
    bool timer_runs;   /* each entry sets the preemption timer; else it is at its end, far away */
    uint64_t deadline; /* TSC at which the guest has to be left for the library's timers */
    uint64_t host_flags;
    uint64_t host_rsp; /* in the VMCS [entry.S] */
    uint64_t host_msr[VMX_NM];
    uint32_t msrs_in;             /* bit n: host_msr[n] is the host's, the CPU has the guest's */
    uint32_t host_cpu;            /* `host` is of this CPU ... */
    bool host_known;              /* ... and what of it is the thread's has not changed */
    struct vmx_area area;         /* lists of MSRs [area.c] */
    uint64_t host_efer, host_pat; /* of host_cpu, where there are lists */
    uint64_t tsc_offset;          /* in the VMCS */
    bool tpr_used;                /* the guest has accessed it: it is lent for each session */
    bool lent;
    uint8_t *vapic;                       /* virtual-APIC page; NULL: CR8 exits */
    uint32_t threshold, wanted_threshold; /* of the TPR: in the VMCS, and of this session */
    enum lapic_place place;               /* of the local APIC's registers in this session */
    bool away;          /* ... and not the default page: not for long, it is counted in the VM's */
    uint32_t apic_uses; /* exits of accesses that would not be if it were lent */
    bool apic_due;      /* controls are to change though nothing is lent */
    bool registers;     /* they are in the virtual-APIC page, as memory */
    bool delivers;      /* so that the hardware delivers and ends what waits in it */
    struct lapic_delivery delivery;
    bool guesses;         /* ... of which exits in the delivery do not tell which one it is */
    bool injected;        /* the last entry has injected an event; if not calm */
    bool delivery_put;    /* the VMCS has it, or what the hardware has made of it since */
    uint64_t eoi_exit[4]; /* in the VMCS */
    uint64_t *pml_log;    /* a page; NULL: there is no page-modification logging */
    unsigned pml_count;   /* entries that are not in the VM's list yet */
    struct vmx_host_state host;

    /* The last exit. */
    uint32_t reason;
    uint32_t flags;    /* RFLAGS as the VMCS has them */
    uint32_t ends;     /* what of RF and the shadow ends with the instruction [vmx_simple] */
    uint64_t next_rip; /* [vmx_simple] */
    uint64_t pages_of; /* the memory map's generation for these [fetch.c] */
    struct vmx_page_cache pages[VMX_NPAGES]; /* by level of the walk */
    uint64_t nothing_at;                     /* a page that is not memory */
    struct vmx_site sites[VMX_NSITES];
    struct vmx_site behind; /* where RIP was at an exit to the program; `insn` is the page */
    struct vmx_mmio_page mmio_pages[VMX_NMMIO];
    struct vmx_leaf leaves[VMX_NLEAVES]; /* [insn.c] */
    bool in_insn;         /* a callback may run on behalf of the instruction at RIP */
    uint64_t serial_base; /* x86_serial less rep_serial: the software CPU has not run since */
};

/* The ticks of a VM. [tsc.c] */
struct vmx_tsc {
    bool hardware;  /* the hardware gives guests their TSC */
    uint64_t ratio; /* 0: the host's frequency */
    _Atomic uint64_t base;
    _Atomic bool stands;
    _Atomic uint32_t version; /* odd while the two above change */
};

struct vmx_vm {
    struct vm *vm;
    struct vmx_tsc tsc;
    struct vmx_mmu mmu;
    uint64_t map_generation; /* of the memory map; changes with the world stopped */
};

/* Neither BACKEND_* nor VMM_E_*: nothing keeps the run loop from going on; and of handlers that
 * have changed general registers, RIP and the shadow only, in the session: nothing has to be looked
 * at that the last entry has not found in order. */
#define VMX_GO_ON  (-2000)
#define VMX_RESUME (-2003)

/* The host's CPUs, in VMX operation while there is a VM. [host.c] */
extern struct vmx_machine vmx_machine;
extern struct vmx_controls vmx_controls;
extern unsigned vmx_phys_bits;
extern struct vmx_mtrrs vmx_mtrrs; /* where there are VMs */
extern uint64_t vmx_host_xcr0;     /* the host's between fpu_begin and fpu_end; 0: no XSAVE */
/* 0, or VMM_E_* with the reason. */
int vmx_host_probe(char *why, size_t size);
int vmx_host_get(char *why, size_t size);
void vmx_host_put(void);
/* The monitor trap flag is there and ends steps; exits in the delivery of a virtual interrupt name
 * it. Each is tried out once, out of a session. [probe.c] */
bool vmx_mtf_works(void);
bool vmx_tells_virtual_interrupts(void);
/* For both I/O bitmaps, on CPUs without unconditional exits of ports; else NULL. */
extern void *vmx_io_bits;
/* The APIC-access page; NULL: the CPU has no such, or not what it is of use with. */
extern void *vmx_apic_page;
/* Numbers for VPIDs; 0: there is none left, or the CPU has no VPIDs. */
uint16_t vmx_vpid_get(void);
void vmx_vpid_put(uint16_t vpid);

static inline bool vmx_uses(enum vmx_group group, uint32_t bit)
{
    return vmx_controls.value[group] & bit;
}

/* Else shadow page tables. */
static inline bool vmx_has_ept(void)
{
    return vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_EPT);
}

extern const struct mmu_pages vmx_pages; /* [mmu.c] */

static inline struct vmx_vm *vmx_vm_of(const struct vmx_vcpu *v)
{
    return v->vv;
}

/* Whether nothing has been invalidated since vmx_mmu_ready. */
static inline bool vmx_mmu_current(const struct vmx_vcpu *v)
{
    return vmx_has_ept() ||
           (v->mmu.flush_gen == v->soft.cpu->mmu.flush_gen && shadow_sink_space(&v->mmu.shadow));
}

/* All that invalidations have been asked for by, in one number: the parts only grow. While it is
 * that of the last look, what that look has found still holds; session.c forgets it on another CPU.
 */
static inline uint64_t vmx_asked(const struct vmx_vcpu *v)
{
    return v->soft.cpu->mmu.flush_gen + v->tlb.due + ept_generation(&v->vv->mmu.ept);
}

/* ---- registers [state.c] ---- */

/* Fills a VMCS that is current. */
void vmx_state_init(struct vmx_vcpu *v);
/* Gives the VMCS and the XSAVE area what is newer here. In a session. */
void vmx_push_groups(struct vmx_vcpu *v);
static inline void vmx_push(struct vmx_vcpu *v)
{
    if (v->newer)
        vmx_push_groups(v);
}
void vmx_pull_groups(struct vmx_vcpu *v, uint32_t groups);

static inline void vmx_pull(struct vmx_vcpu *v, uint32_t groups)
{
    if (groups & ~v->valid)
        vmx_pull_groups(v, groups & ~v->valid);
}

static inline void vmx_changed(struct vmx_vcpu *v, uint32_t groups)
{
    v->newer |= groups;
    if (groups & ~(uint32_t)(VMX_G_RIP | VMX_G_BLOCKING | VMX_G_MSRS))
        v->checked = false;
}

/* x86_serial of the software CPU, in the engine's own handlers. */
static inline uint64_t vmx_serial(const struct vmx_vcpu *v)
{
    return v->serial_base + v->soft.cpu->rep_serial;
}

/* ---- time [tsc.c] ---- */

uint64_t vmx_tsc(struct vm *vm);                /* of backend.h */
void vmx_tsc_changed(struct vm *vm, bool runs); /* of backend.h */
void vmx_tsc_init(struct vmx_vm *vv);
/* Into v->proc and v->proc2, before they are in the current VMCS. */
void vmx_tsc_controls(struct vmx_vcpu *v);

/* ---- the task priority [apic.c] ---- */

int vmx_apic_init(struct vmx_vcpu *v); /* 0 or VMM_E_NOMEM */
void vmx_apic_fini(struct vmx_vcpu *v);
void vmx_apic_controls(struct vmx_vcpu *v); /* as vmx_tsc_controls */
/* Accesses to the APIC-access page are no accesses to memory. */
static inline bool vmx_at_apic_page(const struct vmx_vcpu *v)
{
    return vmx_apic_page && !v->away;
}
/* Around a session, with preemption on; and at its begin, with the VMCS current. */
void vmx_apic_begin(struct vmx_vcpu *v);
void vmx_apic_take_back(struct vmx_vcpu *v);
void vmx_apic_push_controls(struct vmx_vcpu *v);
static inline void vmx_apic_push(struct vmx_vcpu *v)
{
    if (v->lent || v->apic_due)
        vmx_apic_push_controls(v);
}
/* The guest accesses CR8, or one of these MSRs. */
#define VMX_MSR_X2APIC_TPR  0x808u
#define VMX_MSR_X2APIC_EOI  0x80bu
#define VMX_MSR_X2APIC_SELF 0x83fu
void vmx_apic_used(struct vmx_vcpu *v);
/* Interrupts that wait for being injected. */
static inline bool vmx_intr_pending(const struct vmx_vcpu *v)
{
    return v->lent && v->delivers ? lapic_extint(core_vcpu_lapic(v->vcpu))
                                  : core_intr_pending(v->vcpu);
}
int vmx_on_apic_access(struct vmx_vcpu *v);
int vmx_on_apic_write(struct vmx_vcpu *v);
int vmx_on_virtualized_eoi(struct vmx_vcpu *v);
/* The MSR bitmap is made anew. */
void vmx_apic_msrs(struct vmx_vcpu *v);

/* ---- EFER and PAT by lists of MSRs [area.c] ---- */

int vmx_area_open(struct vmx_vcpu *v); /* 0 or VMM_E_NOMEM */
void vmx_area_close(struct vmx_vcpu *v);
/* With the VMCS current: the guest's values have changed; or it has come to another CPU, whose host
 * has its own. */
void vmx_area_efer_now(struct vmx_vcpu *v);
void vmx_area_pat_now(struct vmx_vcpu *v);
static inline void vmx_area_efer(struct vmx_vcpu *v)
{
    if (v->area.msrs)
        vmx_area_efer_now(v);
}
static inline void vmx_area_pat(struct vmx_vcpu *v)
{
    if (v->area.msrs && vmx_has_ept()) /* else it is none of the guest's */
        vmx_area_pat_now(v);
}
void vmx_area_host(struct vmx_vcpu *v);
/* The text for an entry that has failed for a list. */
void vmx_area_failed(const struct vmx_vcpu *v, char *text, size_t size);

/* Whether the VMCS has CR0.PG set, for guests that have not, too. */
static inline bool vmx_guest_pages(const struct vmx_vcpu *v)
{
    return !vmx_has_ept() || v->mmu.flat || (v->soft.cpu->cr0 & X86_CR0_PG);
}
/* The guest's EFER as the hardware has it: shadow page tables use NXE, and LME without LMA cannot
 * be while paging is on. */
static inline uint64_t vmx_guest_efer(const struct vmx_vcpu *v)
{
    uint64_t efer = v->soft.cpu->efer | (vmx_has_ept() ? 0 : X86_EFER_NXE);

    if (!(efer & X86_EFER_LMA) && vmx_guest_pages(v))
        efer &= ~(uint64_t)X86_EFER_LME;
    return efer;
}

/* ---- page-modification logging [pml.c] ---- */

int vmx_pml_init(struct vmx_vcpu *v); /* 0 or VMM_E_NOMEM */
void vmx_pml_fini(struct vmx_vcpu *v);
void vmx_pml_controls(struct vmx_vcpu *v); /* as vmx_tsc_controls */
void vmx_pml_switch(struct vmx_vcpu *v);
/* At a session's begin, with the VMCS current. Tracking changes with the world stopped. */
static inline void vmx_pml_push(struct vmx_vcpu *v)
{
    if (v->pml_log && vmx_vm_of(v)->mmu.ept.tracking != !!(v->proc2 & VMX_PROC2_PML))
        vmx_pml_switch(v);
}
/* At its end: what was logged leaves the VMCS, which is current; then, with preemption on, it goes
 * to the VM's list. */
void vmx_pml_collect(struct vmx_vcpu *v);
void vmx_pml_drain(struct vmx_vcpu *v);

/* ---- sessions [session.c] ---- */

/* Around entries: what is long and needs not be done for each of them. Begins one if there is none;
 * runs timers that are due. 0, or VMM_E_*. */
int vmx_session_begin_now(struct vmx_vcpu *v);
static inline int vmx_session_begin(struct vmx_vcpu *v)
{
    return v->in_session ? 0 : vmx_session_begin_now(v);
}
/* The library's timers need not be looked at by TSC any more: others do. */
void vmx_timers_end(struct vmx_vcpu *v);
/* Fills the host's state of the current VMCS, which is v->vmcs. */
void vmx_put_host(struct vmx_vcpu *v);
/* Before anything that calls back, waits or executes guest code in software. */
void vmx_session_end_now(struct vmx_vcpu *v);
static inline void vmx_session_end(struct vmx_vcpu *v)
{
    if (v->in_session)
        vmx_session_end_now(v);
}

/* The guest's CR2 is the CPU's in a session. */
void vmx_set_cr2(struct vmx_vcpu *v, uint64_t cr2);

/* ---- CPUID [cpuid.c] ---- */

int vmx_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n);
/* Of physical address bits that the library models, those that guests can have. */
unsigned vmx_gpa_bits(unsigned bits);

/* ---- events [inject.c] ---- */

/* Before an entry: what is injected, and the windows that are asked for. VMX_GO_ON; or a result of
 * the run loop: the program's interrupt window is open; or VMX_INJECT_SOFT: the software CPU has to
 * deliver; or VMX_INJECT_TAKEN: an interrupt has been acknowledged, the session is over. */
#define VMX_INJECT_SOFT  (-2001)
#define VMX_INJECT_TAKEN (-2002)
int vmx_inject(struct vmx_vcpu *v);
/* After an exit: an event whose delivery it has interrupted, by IDT-vectoring information that is
 * valid, waits again. */
void vmx_take_interrupted(struct vmx_vcpu *v, uint32_t info);
/* What was injected for an entry that has not been made waits again. */
void vmx_withdraw(struct vmx_vcpu *v);
/* Raises an exception for the instruction at RIP. */
void vmx_raise(struct vmx_vcpu *v, uint8_t vector, bool has_error, uint32_t error);

/* ---- instructions that exit ---- */

/* The instruction waits for its access: what the run loop returns. [insn.c] */
int vmx_aborted(struct vmx_vcpu *v);
/* Handlers of exits; a result of the run loop, or VMX_GO_ON. [insn.c] */
int vmx_on_cpuid(struct vmx_vcpu *v);
int vmx_on_io(struct vmx_vcpu *v);
int vmx_on_rdmsr(struct vmx_vcpu *v);
int vmx_on_wrmsr(struct vmx_vcpu *v);
int vmx_on_hlt(struct vmx_vcpu *v);
int vmx_on_vmcall(struct vmx_vcpu *v);
int vmx_on_rdtsc(struct vmx_vcpu *v);
/* [cr.c] */
int vmx_on_control_register(struct vmx_vcpu *v);
int vmx_on_invlpg(struct vmx_vcpu *v);
/* An access to what is not memory: VMX_INJECT_SOFT if it is not a plain move. [mmio.c] */
int vmx_on_mmio(struct vmx_vcpu *v, uint64_t gpa, uint64_t qualification);
/* The same for a page fault on shadow page tables, with RFLAGS as v->flags has them, if one like it
 * has been found to be such an access. */
int vmx_on_mmio_fault(struct vmx_vcpu *v, uint64_t linear, uint32_t error);
/* A move at RIP from or to the APIC-access page. */
int vmx_on_apic_move(struct vmx_vcpu *v, uint32_t offset, bool write);
void vmx_mmio_found(struct vmx_vcpu *v, uint64_t linear, uint32_t error, uint64_t gpa);

/* vmm_backend_ops.msr_policy: which MSRs exit. [msr.c] */
int vmx_msr_policy(struct vcpu *vcpu);
/* Whether the program has a say in this MSR. */
bool vmx_has_msr_policy(const struct vcpu *vcpu, uint32_t index);

/* Behind an instruction that has exited as a trap: its single step, which the exit has overtaken
 * (SDM Vol. 3C 27.3.4). The software CPU, whose turn it is then, makes it a #DB. [exits.c] */
void vmx_take_trap(struct vmx_vcpu *v);
/* What an exit with v->reason asks for; NULL as vmx_on_impossible. [exits.c] */
extern int (*const vmx_handlers[VMX_NEXITS])(struct vmx_vcpu *v);
int vmx_on_impossible(struct vmx_vcpu *v);

static inline int vmx_dispatch(struct vmx_vcpu *v)
{
    uint32_t reason = v->reason & 0xffff;

    if (reason < VMX_NEXITS && vmx_handlers[reason])
        return vmx_handlers[reason](v);
    return vmx_on_impossible(v);
}

/* ---- running [run.c] ---- */

int vmx_run(struct vcpu *vcpu, bool step); /* of backend.h */
/* One instruction, or one event, by the software CPU. `fpu`: it may use vector or x87 registers. */
int vmx_soft_one(struct vmx_vcpu *v, bool fpu);
/* Enters the guest, in a session. VMX_EXITED: and leaves it, for vmx_dispatch; VMX_GO_ON: has not
 * entered it. */
#define VMX_EXITED (-2004)
int vmx_enter_guest(struct vmx_vcpu *v);
/* Whether the hardware steps over the instruction at RIP; out of a session, in a mode that the
 * hardware runs. Then, in a session, one try: BACKEND_STEPPED, or VMX_GO_ON to look anew. [step.c]
 */
bool vmx_step_ready(struct vmx_vcpu *v);
int vmx_step_once(struct vmx_vcpu *v);
/* VMM_EXIT_ENTRY_FAIL with this text. */
int vmx_fails(struct vmx_vcpu *v, const char *text);
/* An exit to the program, with the bytes at RIP. */
int vmx_exits(struct vmx_vcpu *v, uint32_t reason);

/* Enters the guest and comes back, unless *requests is not 0: VMX_OK after an exit, VMX_FAIL_*, or
 * VMX_NOT_ENTERED. Called by assembly only, as it keeps no register but RBP; vmx_exited is the
 * host's RIP for exits. [entry.S] */
#define VMX_NOT_ENTERED 3
void vmx_enter(void);
void vmx_exited(void);
static inline int vmx_enter_with(uint64_t *gpr, uint64_t launched, const _Atomic uint32_t *requests,
                                 uint64_t *host_rsp)
{
    int result;

    __asm__ volatile("call vmx_enter"
                     : "=a"(result), "+D"(gpr), "+S"(launched), "+d"(requests), "+c"(host_rsp)
                     :
                     : "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    return result;
}

#endif
