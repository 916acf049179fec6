/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/insn.c: instructions that exit often. What is not simple about them, and all others,
 * the software CPU executes; the rules are its (core/x86). */
#include <string.h>

#include "backends/vmx/fetch.h"
#include "backends/vmx/simple.h"
#include "core/x86/control.h"
#include "vmx/decode.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/* ---- going on ---- */

static inline bool simple(struct vmx_vcpu *v)
{
    return vmx_simple(v, (uint32_t)vmx_insn_get(VMX_EXIT_INSN_LEN));
}

int vmx_aborted(struct vmx_vcpu *v)
{
    struct vcpu *vcpu = v->vcpu;
    struct x86_cpu *cpu = v->soft.cpu;

    /* The software CPU makes the instruction's accesses anew, from the record; what a callback has
     * injected comes behind it. */
    vcpu->restart = true;
    if (cpu->event.valid) {
        cpu->later = cpu->event;
        cpu->event.valid = false;
    }
    return vcpu->exit.reason == VMM_EXIT_NONE ? BACKEND_AGAIN : vmx_exits(v, vcpu->exit.reason);
}

/* After an access: whether the instruction is over. */
static inline int finish(struct vmx_vcpu *v, int result)
{
    v->in_insn = false;
    if (result == CORE_IO_ABORT)
        return vmx_aborted(v);
    if (result == CORE_IO_GP)
        vmx_raise(v, X86_GP, true, 0);
    else
        vmx_skip(v);
    return VMX_GO_ON;
}

/* ---- CPUID ---- */

static inline int finish_cpuid(struct vmx_vcpu *v, const uint32_t out[4])
{
    struct x86_cpu *cpu = v->soft.cpu;

    cpu->gpr[VMM_RAX] = out[0];
    cpu->gpr[VMM_RBX] = out[1];
    cpu->gpr[VMM_RCX] = out[2];
    cpu->gpr[VMM_RDX] = out[3];
    return vmx_next(v);
}

#define LEAF_APIC 1u          /* a bit of it is the local APIC's (SDM Vol. 3A 11.4.3) */
#define LEAF_MODE 0x80000001u /* it depends on the mode */

static bool program_answers(const struct vmx_vcpu *v)
{
    return v->vcpu->vm->flags & VMM_VM_EXIT_CPUID;
}

static __attribute__((noinline)) int look_up(struct vmx_vcpu *v, struct vmx_leaf *known,
                                             uint32_t leaf, uint32_t subleaf)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint32_t out[4] = {0};
    int r;

    if (leaf == LEAF_MODE)
        vmx_pull(v, VMX_G_SEGS | VMX_G_CONTROL);
    r = core_cpuid(v->vcpu, vmx_serial(v), leaf, subleaf, out);
    if (r != CORE_IO_OK)
        return finish(v, r);
    if (!program_answers(v) && leaf != LEAF_APIC) {
        *known = (struct vmx_leaf){
            .leaf = leaf, .subleaf = subleaf, .known = true, .dynamic = x86_cpuid_is_dynamic(leaf)};
        memcpy(known->out, out, sizeof(out));
    }
    x86_cpuid_fill(cpu, leaf, subleaf, out);
    return finish_cpuid(v, out);
}

int vmx_on_cpuid(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    uint32_t leaf = (uint32_t)cpu->gpr[VMM_RAX], subleaf = (uint32_t)cpu->gpr[VMM_RCX], out[4];
    struct vmx_leaf *known = &v->leaves[(leaf + subleaf) % VMX_NLEAVES];

    if (!simple(v) || cpu->misc_features)
        return vmx_soft_one(v, false);
    if (!known->known || known->leaf != leaf || known->subleaf != subleaf || leaf == LEAF_MODE)
        return look_up(v, known, leaf, subleaf);
    if (!known->dynamic)
        return finish_cpuid(v, known->out);
    memcpy(out, known->out, sizeof(out));
    x86_cpuid_fill(cpu, leaf, subleaf, out);
    return finish_cpuid(v, out);
}

/* ---- IN and OUT ---- */

int vmx_on_io(struct vmx_vcpu *v)
{
    struct vmx_io_access a = vmx_io_access(vmx_insn_get(VMX_EXIT_QUALIFICATION));
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t value;
    int r;

    if (a.string || !simple(v))
        return vmx_soft_one(v, false);
    value = cpu->gpr[VMM_RAX];
    v->in_insn = true;
    vmx_session_end(v);
    r = core_only_access(v->vcpu, vmx_serial(v), CORE_PORT | (a.in ? 0 : CORE_WRITE), a.port,
                         a.size, &value);
    if (r == CORE_IO_OK && a.in)
        x86_set_reg(cpu, VMM_RAX, a.size, value);
    return finish(v, r);
}

/* ---- MSRs ---- */

/* The core's, which may call back; others are the software CPU's unless the program has a say. */
static bool is_core_msr(uint32_t index)
{
    switch (index) {
    case 0x10:  /* IA32_TIME_STAMP_COUNTER */
    case 0x1b:  /* IA32_APIC_BASE */
    case 0x3b:  /* IA32_TSC_ADJUST */
    case 0x6e0: /* IA32_TSC_DEADLINE */
        return true;
    default:
        return index >= 0x800 && index <= 0x8ff;
    }
}

/* Registers that the value of the software CPU's MSR is of, or that a write may change. */
static uint32_t groups_of(uint32_t index, bool write)
{
    switch (index) {
    case 0xc0000080: /* IA32_EFER, which no guest changes without an exit */
        return write ? VMX_G_VMCS : 0;
    case 0xc0000100: /* IA32_FS_BASE, IA32_GS_BASE */
    case 0xc0000101:
        return VMX_G_SEGS;
    case 0x174: /* IA32_SYSENTER_CS, _ESP, _EIP, and IA32_PAT: none without an exit */
    case 0x175:
    case 0x176:
    case 0x277:
        return write ? VMX_G_MSRS : 0;
    default:
        return 0;
    }
}

/* Those of vmx_session_begin are the software CPU's between sessions only. */
static bool of_session(uint32_t index, bool write)
{
    return index == 0xc0000102 || (write && index >= 0xc0000080 && index <= 0xc0000103);
}

static int own_msr(struct vmx_vcpu *v, uint32_t index, bool write, uint64_t *value)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint32_t groups = groups_of(index, write);
    bool ok;

    vmx_pull(v, groups);
    if (!write)
        return x86_read_msr(cpu, index, value, false) ? CORE_IO_OK : CORE_IO_GP;
    ok = x86_write_msr(cpu, index, *value, false);
    vmx_changed(v, groups);
    return ok ? CORE_IO_OK : CORE_IO_GP;
}

static int msr(struct vmx_vcpu *v, bool write, uint64_t *value)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint32_t index = (uint32_t)cpu->gpr[VMM_RCX];
    bool handled = false;
    int r;

    if (!v->vcpu->nmsr_ranges && !is_core_msr(index)) {
        if (of_session(index, write))
            vmx_session_end(v);
        return own_msr(v, index, write, value);
    }
    if (index == VMX_MSR_X2APIC_TPR ||
        (index == VMX_MSR_X2APIC_EOI && vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_VIRTUAL_INTERRUPTS)))
        vmx_apic_used(v);
    if (index == 0x1b)
        v->again = false; /* the next session looks where its registers are */
    v->in_insn = true;
    vmx_session_end(v);
    r = core_msr_access(v->vcpu, vmx_serial(v), index, write, value, &handled);
    return r != CORE_IO_OK || handled ? r : own_msr(v, index, write, value);
}

int vmx_on_rdmsr(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t value = 0;
    int r;

    if (!simple(v))
        return vmx_soft_one(v, false);
    r = msr(v, false, &value);
    if (r != CORE_IO_OK)
        return finish(v, r);
    cpu->gpr[VMM_RAX] = (uint32_t)value;
    cpu->gpr[VMM_RDX] = value >> 32;
    return v->in_session ? vmx_next(v) : finish(v, r);
}

int vmx_on_wrmsr(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t value = cpu->gpr[VMM_RDX] << 32 | (uint32_t)cpu->gpr[VMM_RAX];

    if (!simple(v))
        return vmx_soft_one(v, false);
    return finish(v, msr(v, true, &value));
}

/* ---- others ---- */

int vmx_on_hlt(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (!simple(v))
        return vmx_soft_one(v, false);
    vmx_skip(v);
    cpu->activity = VMM_HALTED;
    cpu->count.halts++;
    return VMX_GO_ON;
}

int vmx_on_vmcall(struct vmx_vcpu *v)
{
    if (!v->soft.cpu->vmcall_exits) {
        vmx_raise(v, X86_UD, false, 0);
        return VMX_GO_ON;
    }
    if (!simple(v))
        return vmx_soft_one(v, false);
    vmx_skip(v);
    if (!vmx_fill_behind(v))
        return vmx_exits(v, VMM_EXIT_HYPERCALL);
    v->vcpu->exit.reason = VMM_EXIT_HYPERCALL;
    return BACKEND_EXIT;
}

/* CR4.TSD has been looked at by the CPU. */
int vmx_on_rdtsc(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t tsc;

    if (!simple(v))
        return vmx_soft_one(v, false);
    tsc = core_vcpu_tsc(v->vcpu);
    cpu->gpr[VMM_RAX] = (uint32_t)tsc;
    cpu->gpr[VMM_RDX] = tsc >> 32;
    return vmx_next(v);
}
