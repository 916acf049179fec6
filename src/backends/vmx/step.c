/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/step.c: single steps by the hardware, of instructions that it steps over as the
 * software CPU does. */
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/internal.h"
#include "core/x86/control.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"
#include "vmx/step.h"

/*
 * The software CPU's steps are the rule: one instruction with all its repetitions, up to the first
 * of its handler if it faults; or one event. Events are the software CPU's to deliver, and so are
 * instructions in the shadow of STI and MOV SS and those that exit. What is left ends with the exit
 * of the monitor trap flag, or, without a working one, with the trap of RFLAGS.TF, which the guest
 * has clear. With TF all exceptions exit, so that no frame has it: then the software CPU executes
 * the instruction instead.
 */

static enum vmx_code code_of(const struct x86_cpu *cpu)
{
    if (x86_code64(cpu))
        return VMX_CODE64;
    return cpu->seg[VMM_CS].ar & VMM_AR_DB ? VMX_CODE32 : VMX_CODE16;
}

bool vmx_step_ready(struct vmx_vcpu *v)
{
    struct vcpu_exit *e = &v->vcpu->exit;
    const struct x86_cpu *cpu = v->soft.cpu;
    enum vmx_step kind;

    vmx_pull(v, VMX_G_VMCS);
    if (v->mmu.vm86 || cpu->activity != VMM_ACTIVE || cpu->shadow || interp_event_waits(&v->soft))
        return false;
    vmx_session_end(v);
    v->by_mtf = vmx_mtf_works();
    interp_fill_insn(v->vcpu);
    kind = vmx_step_kind(e->insn, e->insn_len, code_of(cpu));
    e->insn_len = 0;
    return kind == VMX_STEP_TF || (kind == VMX_STEP_MTF && v->by_mtf);
}

static void put_proc(struct vmx_vcpu *v, uint32_t proc)
{
    if (proc == v->proc)
        return;
    v->proc = proc;
    vmx_insn_put(VMX_PROC_CTLS, proc);
}

/* An entry that has failed has ended the session: the VMCS gets all its controls anew. */
static int given_up(struct vmx_vcpu *v, int r)
{
    v->ready = false;
    vmx_changed(v, VMX_G_CONTROL);
    return r;
}

/* ---- by the monitor trap flag ---- */

/* Nothing waits that the guest can take now, so that no window is needed. */
static int by_mtf(struct vmx_vcpu *v)
{
    int r;

    put_proc(v, v->proc | VMX_PROC_MONITOR_TRAP_FLAG);
    r = vmx_enter_guest(v);
    if (!v->in_session)
        return given_up(v, r);
    put_proc(v, v->proc & ~(uint32_t)VMX_PROC_MONITOR_TRAP_FLAG);
    if (r != VMX_EXITED)
        return r;
    return v->reason == VMX_EXIT_MONITOR_TRAP_FLAG ? BACKEND_STEPPED : VMX_EXITED;
}

/* ---- by RFLAGS.TF ---- */

/* After an exit the flags are the VMCS's; without one they are still here. */
static void clear_tf(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (v->valid & VMX_G_FLAGS) {
        cpu->rflags &= ~X86_TF;
        vmx_changed(v, VMX_G_FLAGS);
        return;
    }
    v->flags &= ~(uint32_t)X86_TF;
    vmx_insn_put(VMX_GUEST_RFLAGS, vmx_insn_read(VMX_GUEST_RFLAGS) & ~(uint64_t)X86_TF);
}

/* What an exit with TF set means: the trap has come; or another exception, of which the guest's own
 * faults of shadow paging are none; or what else exits. */
static int trapped(struct vmx_vcpu *v)
{
    uint32_t intr;

    if (v->reason != VMX_EXIT_EXCEPTION_NMI) {
        /* An INIT behind the instruction comes before its trap; other exits of these instructions
         * come before the instruction (SDM Vol. 3C 27.3.4). */
        if (v->reason != VMX_EXIT_INIT || !(vmx_insn_read(VMX_GUEST_PENDING_DEBUG) & X86_DR6_BS))
            return VMX_EXITED;
        vmx_insn_put(VMX_GUEST_PENDING_DEBUG, 0);
        v->stepped = true;
        return VMX_EXITED;
    }
    intr = (uint32_t)vmx_insn_read(VMX_EXIT_INTR_INFO);
    if ((intr & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT == VMX_TYPE_NMI)
        return VMX_EXITED;
    if ((intr & VMX_INTR_VECTOR) == X86_DB && (vmx_insn_read(VMX_EXIT_QUALIFICATION) & X86_DR6_BS))
        return BACKEND_STEPPED;
    if (((intr & VMX_INTR_VECTOR) == X86_PF_ && !vmx_has_ept()) ||
        (intr & VMX_INTR_VECTOR) == X86_MC)
        return VMX_EXITED;
    return vmx_soft_one(v, true);
}

static int by_tf(struct vmx_vcpu *v)
{
    uint64_t bitmap;
    int r;

    v->soft.cpu->rflags |= X86_TF;
    vmx_changed(v, VMX_G_FLAGS);
    vmx_push(v);
    bitmap = vmx_insn_read(VMX_EXCEPTION_BITMAP);
    vmx_insn_put(VMX_EXCEPTION_BITMAP, UINT32_MAX);
    r = vmx_enter_guest(v);
    if (!v->in_session) {
        v->soft.cpu->rflags &= ~X86_TF;
        vmx_changed(v, VMX_G_FLAGS);
        return given_up(v, r);
    }
    vmx_insn_put(VMX_EXCEPTION_BITMAP, bitmap);
    clear_tf(v);
    return r == VMX_EXITED ? trapped(v) : r;
}

/* ---- one try ---- */

int vmx_step_once(struct vmx_vcpu *v)
{
    int r;

    put_proc(v, v->proc & ~(uint32_t)(VMX_PROC_INTERRUPT_WINDOW | VMX_PROC_NMI_WINDOW));
    v->stepped = false;
    r = v->by_mtf ? by_mtf(v) : by_tf(v);
    if (r == VMX_EXITED) {
        /* What is executed here is executed by the software CPU, which tells of its steps. */
        v->flags |= X86_TF;
        r = vmx_dispatch(v);
        v->flags &= ~(uint32_t)X86_TF;
    }
    if ((r == VMX_GO_ON || r == VMX_RESUME) && v->stepped)
        r = BACKEND_STEPPED;
    if (r == BACKEND_STEPPED)
        v->soft.cpu->rep_serial++; /* the next access belongs to another instruction */
    return r == VMX_RESUME ? VMX_GO_ON : r;
}
