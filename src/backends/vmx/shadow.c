/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/shadow.c: shadow page tables in place of EPT: what the hardware's control registers
 * are then, page faults, and what the software CPU has to tell. */
#include <stdlib.h>
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
#include "vmx/event.h"
#include "vmx/insn.h"

#define CR4_VMXE 0x2000u

/* Memory for records is taken as it is needed; this is where eviction begins. */
#define MAX_SPACES 256u
#define MAX_NODES  16384u
#define MAX_MAPS   131072u
#define MAX_TABLES 32768u

/* Page faults at one instruction that leave it where it was: an instruction has few pages. */
#define MAX_SAME 64u

static struct vmx_mmu *mmu_of(struct vcpu *vcpu)
{
    return &((struct vmx_vm *)vcpu->vm->backend_data)->mmu;
}

/* ---- what shadow paging asks for ---- */

static struct vmx_vcpu *vcpu_at(struct vm *vm, unsigned i)
{
    struct vcpu *vcpu = atomic_load_explicit(&vm->vcpus[i], memory_order_acquire);

    return vcpu ? vcpu->backend_data : NULL;
}

/* All vCPUs are out of the guest. */
static void flush(void *ctx)
{
    struct vm *vm = ctx;

    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        struct vmx_vcpu *v = vcpu_at(vm, i);

        if (v)
            vmx_tlb_due(&v->tlb);
    }
}

/* Software CPUs lose their right to write the page unseen. */
static void watch(void *ctx, uint64_t gpa, bool on)
{
    struct vm *vm = ctx;
    struct core_page page;

    if (!core_mem_page(vm, gpa, &page) || !page.host)
        return;
    if (!on) {
        atomic_fetch_and(page.code, ~MMU_CODE_TABLE);
        return;
    }
    if (atomic_fetch_or(page.code, MMU_CODE_TABLE) & MMU_CODE_TABLE)
        return;
    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        struct vmx_vcpu *v = vcpu_at(vm, i);

        if (v && v->soft.cpu)
            mmu_protect_gpa(&v->soft.cpu->mmu, gpa, 1);
    }
}

static bool large(void *ctx, uint64_t gpa)
{
    return vmx_mmu_is_large(ctx, gpa);
}

/* The software CPU has written to a page with code, or to a table that is watched. */
static void code_written(void *ctx, uint64_t gpa, unsigned len)
{
    struct vmx_vcpu *v = ctx;
    struct vcpu *vcpu = v->vcpu;
    struct core_page page;
    bool stopped;

    if (!core_mem_page(vcpu->vm, gpa, &page) || !page.host)
        return;
    if (atomic_load(page.code) & MMU_CODE_TABLE) {
        stopped = vmx_mmu_stop(vcpu);
        shadow_written(mmu_of(vcpu)->shadow, gpa, len);
        /* Nobody knows it any more: the word's bit was a leftover. */
        if (core_mem_page(vcpu->vm, gpa, &page) && page.host)
            atomic_fetch_and(page.code, ~MMU_CODE_TABLE);
        if (stopped)
            core_world_go(vcpu->vm);
    }
    v->mmu.code_written(ctx, gpa, len);
}

/* ---- life ---- */

static bool host_has(uint32_t leaf7_ebx)
{
    uint32_t id[4];

    vmx_insn_cpuid(0, id);
    if (id[0] < 7)
        return false;
    vmx_insn_cpuid(7, id);
    return id[1] & leaf7_ebx;
}

int vmx_shadow_init(struct vmx_vm *vv)
{
    struct vmx_mmu *m = &vv->mmu;
    struct shadow_config config = {.pages = &vmx_pages,
                                   .sink_ctx = &m->sink,
                                   .max_spaces = MAX_SPACES,
                                   .max_nodes = MAX_NODES,
                                   .max_maps = MAX_MAPS,
                                   .large = large,
                                   .watch = watch,
                                   .code_compared = vv->vm->max_vcpus == 1,
                                   .ctx = vv->vm};

    if (vv->vm->max_vcpus > 63) /* the word's bit of one more is MMU_CODE_TABLE */
        return VMM_E_UNSUPPORTED;
    m->sink = (struct sink_x86){.pages = &vmx_pages,
                                .flush = flush,
                                .ctx = vv->vm,
                                .max_tables = MAX_TABLES,
                                .large = true,
                                .smep = host_has(X86_F7_EBX_SMEP),
                                .smap = host_has(X86_F7_EBX_SMAP)};
    config.sink = sink_x86(&m->sink);
    m->shadow = shadow_new(&config);
    return m->shadow ? VMM_OK : VMM_E_NOMEM;
}

void vmx_shadow_vcpu_init(struct vmx_vcpu *v)
{
    v->mmu.code_written = v->soft.env.mmu.code_written;
    v->soft.env.mmu.code_written = code_written;
    shadow_vcpu_add(mmu_of(v->vcpu)->shadow, &v->mmu.shadow, &v->soft.cpu->mmu);
}

void vmx_shadow_vcpu_fini(struct vmx_vcpu *v)
{
    shadow_vcpu_remove(&v->mmu.shadow);
}

/* ---- which states the hardware can run ---- */

static unsigned dpl(const struct vmm_segment *s)
{
    return (s->ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT;
}

static bool usable(const struct vmm_segment *s)
{
    return !(s->ar & VMM_AR_UNUSABLE);
}

static bool segments_vm86(const struct x86_cpu *cpu)
{
    for (unsigned i = VMM_ES; i <= VMM_GS; i++)
        if (cpu->seg[i].base != (uint64_t)cpu->seg[i].selector << 4 ||
            cpu->seg[i].limit != 0xffff || cpu->seg[i].ar != 0xf3)
            return false;
    return true;
}

static bool code_ok(const struct x86_cpu *cpu)
{
    const struct vmm_segment *cs = &cpu->seg[VMM_CS];
    unsigned type = cs->ar & VMM_AR_TYPE, cpl = cpu->cpl;

    if (!usable(cs) || !(cs->ar & VMM_AR_S) || !(cs->ar & VMM_AR_P) || cs->base >> 32)
        return false;
    if (type == 9 || type == 11)
        return dpl(cs) == cpl;
    return (type == 13 || type == 15) && dpl(cs) <= cpl;
}

static bool stack_ok(const struct x86_cpu *cpu)
{
    const struct vmm_segment *ss = &cpu->seg[VMM_SS];
    unsigned type = ss->ar & VMM_AR_TYPE, rpl = ss->selector & 3;

    /* The entry takes SS.DPL for the CPL. */
    if (rpl != (cpu->seg[VMM_CS].selector & 3u) || rpl != cpu->cpl)
        return false;
    return !usable(ss) || ((type == 3 || type == 7) && (ss->ar & VMM_AR_S) && (ss->ar & VMM_AR_P) &&
                           !(ss->base >> 32));
}

static bool data_ok(const struct vmm_segment *s, bool in_64_bits)
{
    unsigned type = s->ar & VMM_AR_TYPE;

    if (!usable(s))
        return true;
    if (!(type & 1) || ((type & 8) && !(type & 2)) || !(s->ar & VMM_AR_S) || !(s->ar & VMM_AR_P))
        return false;
    return (type > 11 || dpl(s) >= (s->selector & 3u)) && (in_64_bits || !(s->base >> 32));
}

/* What only real mode can have left behind; other rules are those of vcpu_set_regs, too. */
static bool segments_ok(const struct x86_cpu *cpu)
{
    const struct vmm_segment *tr = &cpu->seg[VMM_TR], *ldtr = &cpu->seg[VMM_LDTR];
    unsigned type = tr->ar & VMM_AR_TYPE;

    if (!usable(tr) || (tr->selector & 4) ||
        !(type == 11 || (type == 3 && !(cpu->efer & X86_EFER_LMA))))
        return false;
    if (usable(ldtr) && (ldtr->selector & 4))
        return false;
    if (cpu->rflags & X86_VM)
        return segments_vm86(cpu);
    return code_ok(cpu) && stack_ok(cpu) && data_ok(&cpu->seg[VMM_DS], false) &&
           data_ok(&cpu->seg[VMM_ES], false) && data_ok(&cpu->seg[VMM_FS], true) &&
           data_ok(&cpu->seg[VMM_GS], true);
}

bool vmx_segments_ok(struct vmx_vcpu *v)
{
    if (!(v->valid & VMX_G_SEGS))
        return true; /* the hardware has brought them about */
    vmx_pull(v, VMX_G_FLAGS);
    return segments_ok(v->soft.cpu);
}

/* The guest has loaded a control register or alike since. */
static void load(struct vmx_vcpu *v)
{
    bool stopped;

    if (v->valid & VMX_G_CONTROL)
        vmx_changed(v, VMX_G_CONTROL);
    v->mmu.new_space = true;
    vmx_session_end(v);
    stopped = vmx_mmu_stop(v->vcpu);
    v->mmu.flush_gen = v->soft.cpu->mmu.flush_gen;
    v->mmu.shadow_ok = shadow_load(&v->mmu.shadow) == SHADOW_RETRY;
    v->mmu.loaded = true;
    if (stopped)
        core_world_go(v->vcpu->vm);
}

bool vmx_shadow_ready(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    /* PKRU changes without exits. */
    if ((cpu->cr4 & X86_CR4_PKE) || !vmx_vm86_ready(v))
        return false;
    if ((cpu->cr0 & X86_CR0_PE) && !vmx_segments_ok(v))
        return false;
    if (!v->mmu.loaded || v->mmu.flush_gen != cpu->mmu.flush_gen)
        load(v);
    return v->mmu.shadow_ok && shadow_sink_space(&v->mmu.shadow);
}

/* ---- control registers ---- */

static void push_space(struct vmx_vcpu *v)
{
    v->mmu.new_space = false;
    vmx_insn_put(VMX_GUEST_CR3,
                 sink_x86_cr3(&mmu_of(v->vcpu)->sink, shadow_sink_space(&v->mmu.shadow)));
}

/* Tables are 4-level or PAE ones whatever the guest's are, and paging is always on. */
void vmx_shadow_push(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    uint64_t cr4 = cpu->cr4 & ~(uint64_t)(X86_CR4_PSE | X86_CR4_PGE | X86_CR4_PCIDE);

    if (!(cpu->cr0 & X86_CR0_PG))
        cr4 &= ~(uint64_t)(X86_CR4_SMEP | X86_CR4_SMAP);
    if (v->mmu.vm86)
        cr4 &= ~(uint64_t)(X86_CR4_VME | X86_CR4_PVI);
    vmx_insn_put(VMX_GUEST_CR0, cpu->cr0 | X86_CR0_PE | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG);
    push_space(v);
    vmx_insn_put(VMX_GUEST_CR4, cr4 | X86_CR4_PAE | CR4_VMXE);
}

/* ---- page faults ---- */

void vmx_shadow_entering(struct vmx_vcpu *v)
{
    if (v->mmu.new_space)
        push_space(v);
    v->mmu.entry_blocking = (uint32_t)vmx_insn_read(VMX_GUEST_INTERRUPTIBILITY);
    if (v->mmu.entry_blocking)
        v->mmu.entry_rip = vmx_insn_read(VMX_GUEST_RIP);
}

void vmx_shadow_keep_blocking(struct vmx_vcpu *v)
{
    uint32_t left, kept;

    /* An event that is being delivered has ended it. */
    if (!v->mmu.entry_blocking || v->soft.cpu->event.valid)
        return;
    left = (uint32_t)vmx_insn_read(VMX_GUEST_INTERRUPTIBILITY);
    kept = vmx_kept_blocking(v->mmu.entry_blocking, left,
                             vmx_insn_read(VMX_GUEST_RIP) != v->mmu.entry_rip);
    if (kept != left)
        vmx_insn_put(VMX_GUEST_INTERRUPTIBILITY, kept);
}

static unsigned index_of(const struct x86_cpu *cpu, uint32_t error)
{
    if (error & MMU_PF_U)
        return MMU_USER;
    /* An access of the processor's own at CPL 3, to a descriptor or a stack. */
    if (cpu->cpl == 3)
        return MMU_KERNEL;
    return cpu->rflags & X86_AC ? MMU_KERNEL_AC : MMU_KERNEL;
}

static void raise(struct x86_cpu *cpu)
{
    cpu->event = (struct x86_event){.valid = true,
                                    .type = X86_EVENT_EXCEPTION,
                                    .vector = VMX_VECTOR_PF,
                                    .has_error = true,
                                    .error = cpu->mmu.fault_error,
                                    .has_cr2 = true,
                                    .cr2 = cpu->mmu.fault_addr};
}

/* Whether this instruction faults again and again: its pages drive each other out, or the hardware
 * sees something else than the tables say. */
static bool hopeless(struct vmx_vcpu *v)
{
    uint64_t rip = v->soft.cpu->rip;

    if (v->mmu.same_rip != rip)
        v->mmu.same = 0;
    v->mmu.same_rip = rip;
    return ++v->mmu.same > MAX_SAME;
}

int vmx_mmu_page_fault(struct vmx_vcpu *v, uint64_t linear, uint32_t error)
{
    struct x86_cpu *cpu = v->soft.cpu;
    enum mmu_access access = error & MMU_PF_I ? MMU_EXEC : error & MMU_PF_W ? MMU_WRITE : MMU_READ;
    enum shadow_result r;
    uint64_t gpa;
    bool stopped;

    if (hopeless(v)) {
        v->mmu.same = 0;
        return VMX_MMU_SOFT;
    }
    stopped = vmx_mmu_stop(v->vcpu);
    r = shadow_fault(&v->mmu.shadow, linear, index_of(cpu, error), access, &gpa);
    if (stopped)
        core_world_go(v->vcpu->vm);
    if (r == SHADOW_RETRY)
        return VMX_MMU_RESUME;
    if (r == SHADOW_MMIO && !cpu->event.valid)
        vmx_mmio_found(v, linear, error, gpa);
    /* During a delivery the software CPU delivers anew, and meets the fault there. */
    if (r != SHADOW_PF || cpu->event.valid)
        return VMX_MMU_SOFT;
    raise(cpu);
    return VMX_MMU_RESUME;
}

/*
 * The hardware's TLB has nothing that the shadow tables do not have: what they lose is flushed at
 * once (flush above). So what the guest has invalidated is not due in hardware if the tables stay
 * as they are, and neither is it without a VPID, as entries flush.
 */
static void keep(struct vmx_vcpu *v, uint64_t flush_gen, bool same_space)
{
    uint64_t now = v->soft.cpu->mmu.flush_gen;

    v->mmu.flush_gen = now;
    if (v->flush_seen != flush_gen || (!same_space && v->tlb.vpid))
        return;
    v->flush_seen = now;
    if (v->settled == vmx_asked(v) - (now - flush_gen))
        v->settled = vmx_asked(v);
}

bool vmx_shadow_loaded(struct vmx_vcpu *v, uint64_t flush_gen)
{
    const struct shadow_space *space = v->mmu.shadow.space;

    if (!v->mmu.loaded || !v->mmu.shadow_ok || v->mmu.flush_gen != flush_gen ||
        !shadow_load_quick(&v->mmu.shadow, v->vcpu->vm->max_vcpus == 1))
        return false;
    if (v->mmu.shadow.space != space)
        v->mmu.new_space = true;
    keep(v, flush_gen, v->mmu.shadow.space == space);
    return true;
}

bool vmx_shadow_invlpg_holds(struct vmx_vcpu *v, uint64_t linear, uint64_t flush_gen)
{
    if (!v->mmu.loaded || !v->mmu.shadow_ok || v->mmu.flush_gen != flush_gen ||
        !shadow_invlpg_holds(&v->mmu.shadow, linear))
        return false;
    keep(v, flush_gen, true);
    return true;
}

void vmx_mmu_invlpg(struct vmx_vcpu *v, uint64_t linear, uint64_t flush_gen)
{
    struct mmu *mmu = &v->soft.cpu->mmu;
    bool stopped;

    if (vmx_has_ept() || v->mmu.flush_gen != flush_gen || mmu->flush_gen != flush_gen + 1)
        return;
    stopped = vmx_mmu_stop(v->vcpu);
    shadow_invlpg(&v->mmu.shadow, linear);
    v->mmu.flush_gen = mmu->flush_gen;
    if (stopped)
        core_world_go(v->vcpu->vm);
}
