/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/mmu.h: the guest's memory as the hardware sees it: extended page tables, or shadow
 * page tables on CPUs without them. */
#ifndef BACKENDS_VMX_MMU_H
#define BACKENDS_VMX_MMU_H

#include "mmu/ept.h"
#include "mmu/shadow.h"
#include "vmx/fields.h"
#include "vmx/pml.h"

#define VMX_VECTOR_PF 14

struct vm;
struct vmx_vm;
struct vmx_vcpu;

/* Of a VM. One lock for both kinds would not do: EPT is changed under `lock` while vCPUs are in the
 * guest; shadow tables are with the world stopped, or by the only vCPU. */
struct vmx_mmu {
    struct os_mutex lock; /* of ept and pml */
    struct ept ept;
    struct vmx_pml pml;
    struct sink_x86 sink;
    struct shadow *shadow; /* NULL: EPT is used */
    /* With EPT but without unrestricted guest: page directories that map 4 GiB at themselves, for
     * guests that have paging off. Guests see them at the end of physical memory. */
    uint64_t *identity[4];
    /* vCPUs whose local APIC is not at the APIC-access page: while there are some, no vCPU has it.
     * Written with the lock held. */
    _Atomic uint32_t apic_away;
};

/* Of a vCPU. */
struct vmx_mmu_vcpu {
    struct ept_cpu ept_cpu;
    uint64_t same_rip; /* page faults that were resolved at the same RIP ... */
    unsigned same;     /* ... so many in a row */
    bool flat;         /* the VMCS has paging on, by the identity tables; the guest has it off */
    bool vm86;         /* the VMCS's form of the registers is that of vm86.c */
    bool linger;       /* in real mode: the software CPU does some instructions */
    struct shadow_vcpu shadow;
    uint64_t flush_gen;      /* mmu.flush_gen of the last shadow_load */
    uint64_t entry_rip;      /* of the last entry, if it was made with ... */
    uint32_t entry_blocking; /* ... VMX_BLOCK_* */
    bool shadow_ok;          /* ... which has found tables for the mode */
    bool loaded;             /* there was one ... */
    bool new_space;          /* ... that the VMCS does not know of */
    void (*code_written)(void *ctx, uint64_t gpa, unsigned len);
    void (*code_decoded)(void *ctx, uint64_t gpa);
};

/* 0 or VMM_E_* with a vm_fail. */
int vmx_mmu_init(struct vmx_vm *vv);
void vmx_mmu_fini(struct vmx_vm *vv);
/* After interp_vcpu_open, whose environment it changes. */
void vmx_mmu_vcpu_init(struct vmx_vcpu *v);
void vmx_mmu_vcpu_fini(struct vmx_vcpu *v);

/* Of struct vmm_backend_ops, with the world stopped. */
void vmx_mem_map_changed(struct vm *vm, uint64_t gpa, uint64_t len);
void vmx_code_changed(struct vm *vm, uint64_t gpa, uint64_t len);
void vmx_dirty_cleared(struct vm *vm, uint64_t gpa, uint64_t len);
/* Dirty bits of EPT: the hardware takes its walks of the guest's tables for writes to them (SDM
 * Vol. 3C 28.3.5). */
bool vmx_mmu_marks_tables(void);
int vmx_dirty_start(struct vm *vm);
void vmx_dirty_stop(struct vm *vm);
int vmx_dirty_sync(struct vm *vm, uint64_t gpa, uint64_t len);

/* ---- around entries ---- */

/* Whether the hardware can execute the state in soft.cpu; loads shadow tables for it, for which it
 * may stop the world. */
bool vmx_mmu_ready(struct vmx_vcpu *v);
/* The PAT of guests on shadow tables, which use index 0: write-back. */
#define VMX_SHADOW_PAT 0x0007040600070406ull
/* The last look at the current VMCS before an entry on shadow tables, and after an exit by an
 * exception of the guest's: restores a shadow of STI or MOV SS that must not be lost. */
void vmx_shadow_entering(struct vmx_vcpu *v);
void vmx_shadow_keep_blocking(struct vmx_vcpu *v);
/* CR0, CR3 and CR4 into the current VMCS. */
void vmx_shadow_push(struct vmx_vcpu *v);

/* ---- exits ---- */

#define VMX_MMU_RESUME 0 /* go on in the guest; what has been interrupted is in soft.cpu->event */
#define VMX_MMU_SOFT   1 /* the software CPU executes this instruction or delivers this event */

int vmx_mmu_violation(struct vmx_vcpu *v, uint64_t gpa, uint64_t qualification);
int vmx_mmu_page_fault(struct vmx_vcpu *v, uint64_t linear, uint32_t error);
/* Text for a misconfiguration, which is a defect of ours. */
void vmx_mmu_misconfigured(struct vmx_vcpu *v, uint64_t gpa, char *text, size_t size);
/* After INVLPG has been executed by the software CPU and nothing else: spares a load. */
void vmx_mmu_invlpg(struct vmx_vcpu *v, uint64_t linear, uint64_t flush_gen);
/* On shadow page tables, in a session, when nothing but this instruction has flushed the software
 * CPU's TLB since `flush_gen`: whether the shadow tables need nothing for it. Then the hardware's
 * TLB needs nothing either, or gets what is due before the next entry. */
bool vmx_shadow_loaded(struct vmx_vcpu *v, uint64_t flush_gen);
bool vmx_shadow_invlpg_holds(struct vmx_vcpu *v, uint64_t linear, uint64_t flush_gen);

/* ---- apic_page.c ---- */

/* At a session's begin: the local APIC has come to its default page, or has gone from there. */
void vmx_apic_moved(struct vmx_vcpu *v, bool here);
/* A violation at this page, which is no memory: whether the access may be made again, now that the
 * page is mapped. Ends the session if it is not false at once. */
bool vmx_apic_may_map(const struct vmx_vcpu *v, uint64_t gpa, uint64_t qualification);
bool vmx_apic_map(struct vmx_vcpu *v, uint64_t qualification);

/* ---- vm86.c ---- */

/* Identity tables for EPT without unrestricted guest. VMM_E_NOMEM, or 0. */
int vmx_identity_init(struct vmx_mmu *m);
void vmx_identity_fini(struct vmx_mmu *m);
/* The part of vmx_mmu_ready for such CPUs. */
bool vmx_restricted_ready(struct vmx_vcpu *v);
/* CR0, CR3, CR4 and PDPTEs of v->mmu.flat into the current VMCS. */
void vmx_identity_push(struct vmx_vcpu *v);
/* Whether `gpa` is that of an identity table in use; maps it then. */
bool vmx_identity_violation(struct vmx_vcpu *v, uint64_t gpa);

/* Whether real mode can run in virtual-8086 mode now; true in protected mode, too. */
bool vmx_vm86_ready(struct vmx_vcpu *v);
/* Beside what is pushed in other modes; in place of what is pulled there. */
void vmx_vm86_push_segs(const struct x86_cpu *cpu);
void vmx_vm86_pull_segs(struct x86_cpu *cpu);
/* RFLAGS as the VMCS has them, and back. */
uint64_t vmx_vm86_flags_in(const struct vmx_vcpu *v, uint64_t rflags);
uint64_t vmx_vm86_flags_out(const struct vmx_vcpu *v, uint64_t rflags);

/* ---- shadow.c ---- */

int vmx_shadow_init(struct vmx_vm *vv);
bool vmx_shadow_ready(struct vmx_vcpu *v);
void vmx_shadow_vcpu_init(struct vmx_vcpu *v);
void vmx_shadow_vcpu_fini(struct vmx_vcpu *v);
/* Whether a VM entry without unrestricted guest takes the segments (SDM Vol. 3C 26.3.1.2). */
bool vmx_segments_ok(struct vmx_vcpu *v);
/* Whether the 2 MiB at `gpa` may be one page: alike memory in one piece, and none of its pages is
 * to be watched. */
bool vmx_mmu_is_large(struct vm *vm, uint64_t gpa);
/* Stops the world if other vCPUs could be in the way and this one has not; whether it has. */
bool vmx_mmu_stop(struct vcpu *vcpu);

#endif
