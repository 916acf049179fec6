/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/simple.h: past an instruction that the engine has executed. Inline: this is what
 * each exit pays. */
#ifndef BACKENDS_VMX_SIMPLE_H
#define BACKENDS_VMX_SIMPLE_H

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

static inline void vmx_need_rip(struct vmx_vcpu *v)
{
    if (v->valid & VMX_G_RIP)
        return;
    v->soft.cpu->rip = vmx_insn_get(VMX_GUEST_RIP);
    v->valid |= VMX_G_RIP;
}

#define VMX_SHADOW (VMX_BLOCK_STI | VMX_BLOCK_MOV_SS)

/* In a session, before anything is done about the exit: whether nothing but RIP, RF and the shadow
 * changes behind this instruction of `len` bytes: no trap of a single step, no IP that may wrap.
 * Then vmx_skip goes there. */
static inline bool vmx_simple(struct vmx_vcpu *v, uint32_t len)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    vmx_need_rip(v);
    v->next_rip = cpu->rip + len;
    v->ends =
        ((uint32_t)vmx_insn_get(VMX_GUEST_INTERRUPTIBILITY) & VMX_SHADOW) | (v->flags & X86_RF);
    return !((cpu->rip ^ v->next_rip) >> 16) && !(v->flags & X86_TF) && !cpu->event.valid;
}

/* A callback may have taken the shadow away, or brought one about. */
static __attribute__((noinline, unused)) void vmx_end_shadow(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;

    vmx_pull(v, VMX_G_BLOCKING | VMX_G_FLAGS);
    if (cpu->shadow) {
        cpu->shadow = 0;
        vmx_changed(v, VMX_G_BLOCKING);
    }
    if (cpu->rflags & X86_RF) {
        cpu->rflags &= ~X86_RF;
        vmx_changed(v, VMX_G_FLAGS);
    }
}

static inline void vmx_skip(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;

    cpu->rip = v->next_rip;
    v->newer |= VMX_G_RIP;
    if (__builtin_expect(v->ends | (v->valid & (VMX_G_BLOCKING | VMX_G_FLAGS)), 0))
        vmx_end_shadow(v);
    cpu->rep_serial++; /* the next access belongs to another instruction */
}

/* Behind an instruction that has changed general registers only, in the session. */
static inline int vmx_next(struct vmx_vcpu *v)
{
    vmx_skip(v);
    return v->calm && v->checked ? VMX_RESUME : VMX_GO_ON;
}

#endif
