/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/insn.c: instructions that exit often. What is not simple about them, and all others,
 * the software CPU executes; the rules are its (core/x86). */
#include <string.h>

#include "backends/vmx/simple.h"
#include "core/x86/control.h"
#include "vmx/decode.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/* ---- going on ---- */

static inline bool simple(struct vmx_vcpu *v)
{
    return vmx_simple(v, (uint32_t)vmx_insn_read(VMX_EXIT_INSN_LEN));
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

#define LEAF_MODE 0x80000001u /* it depends on the mode */

int vmx_on_cpuid(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint32_t leaf = (uint32_t)cpu->gpr[VMM_RAX], out[4] = {0};
    int r;

    if (!simple(v) || cpu->misc_features)
        return vmx_soft_one(v, false);
    if (leaf == LEAF_MODE)
        vmx_pull(v, VMX_G_SEGS | VMX_G_CONTROL);
    r = x86_cpuid(cpu, leaf, (uint32_t)cpu->gpr[VMM_RCX], out);
    if (r == CORE_IO_OK) {
        cpu->gpr[VMM_RAX] = out[0];
        cpu->gpr[VMM_RBX] = out[1];
        cpu->gpr[VMM_RCX] = out[2];
        cpu->gpr[VMM_RDX] = out[3];
    }
    return finish(v, r);
}

/* ---- IN and OUT ---- */

int vmx_on_io(struct vmx_vcpu *v)
{
    struct vmx_io_access a = vmx_io_access(vmx_insn_read(VMX_EXIT_QUALIFICATION));
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

/* MSRs that are not the software CPU's, so that it need not know the registers. */
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

static int msr(struct vmx_vcpu *v, bool write, uint64_t *value)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint32_t index = (uint32_t)cpu->gpr[VMM_RCX];
    bool handled = false, ok;
    int r;

    if (index == VMX_MSR_X2APIC_TPR ||
        (index == VMX_MSR_X2APIC_EOI && vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_VIRTUAL_INTERRUPTS)))
        vmx_apic_used(v);
    if (!is_core_msr(index))
        vmx_pull(v, VMX_G_VMCS);
    vmx_session_end(v);
    r = core_msr_access(v->vcpu, x86_serial(cpu), index, write, value, &handled);
    if (r != CORE_IO_OK || handled)
        return r;
    vmx_pull(v, VMX_G_VMCS);
    ok = write ? x86_write_msr(cpu, index, *value, false) : x86_read_msr(cpu, index, value, false);
    if (write)
        vmx_changed(v, VMX_G_VMCS);
    return ok ? CORE_IO_OK : CORE_IO_GP;
}

int vmx_on_rdmsr(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t value = 0;
    int r;

    if (!simple(v))
        return vmx_soft_one(v, false);
    v->in_insn = true;
    r = msr(v, false, &value);
    if (r == CORE_IO_OK) {
        cpu->gpr[VMM_RAX] = (uint32_t)value;
        cpu->gpr[VMM_RDX] = value >> 32;
    }
    return finish(v, r);
}

int vmx_on_wrmsr(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t value = cpu->gpr[VMM_RDX] << 32 | (uint32_t)cpu->gpr[VMM_RAX];

    if (!simple(v))
        return vmx_soft_one(v, false);
    v->in_insn = true;
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
    memset(&v->vcpu->exit.u, 0, sizeof(v->vcpu->exit.u));
    return vmx_exits(v, VMM_EXIT_HYPERCALL);
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
    vmx_skip(v);
    return VMX_GO_ON;
}
