/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/apic.c: what of the local APIC is in the hardware's keeping: CR8 by the TPR shadow;
 * in x2APIC mode, or at the APIC-access page (apic_page.c), the TPR, registers that are only read,
 * and delivery and ends of interrupts. */
#include "backends/vmx/vmx.h"
#include "core/internal.h"
#include "core/irqchip.h"
#include "freestanding/host.h"
#include "vmx/decode.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/*
 * The local APIC is the library's (devices/lapic.c). For a session it lends its task priority to
 * the virtual-APIC page, where the guest reads and writes it without exits. What waits for a lower
 * priority is the TPR threshold's, which ends the entry; what arrives meanwhile ends it, too.
 *
 * With virtual-interrupt delivery it lends IRR and ISR as well: what waits at a session's begin is
 * delivered without an exit and ended without one, but for level-triggered interrupts, of whose
 * ends the IOAPIC hears by an exit.
 */

#define MSR_X2APIC_TPR VMX_MSR_X2APIC_TPR
#define VTPR           0x80u
#define EOI            0xb0u
#define USES           4u /* as systems set the priority when they start, and never again */
#define PROC_CONTROLS                                                                              \
    ((uint32_t)VMX_PROC_CR8_LOAD | (uint32_t)VMX_PROC_CR8_STORE | (uint32_t)VMX_PROC_TPR_SHADOW)
#define CR8_CONTROLS ((uint32_t)VMX_PROC_CR8_LOAD | (uint32_t)VMX_PROC_CR8_STORE)
#define PROC2_CONTROLS                                                                             \
    ((uint32_t)VMX_PROC2_VIRTUAL_X2APIC | (uint32_t)VMX_PROC2_VIRTUAL_INTERRUPTS |                 \
     (uint32_t)VMX_PROC2_VIRTUAL_APIC_ACCESSES | (uint32_t)VMX_PROC2_APIC_REGISTERS)

static atomic_uint *vtpr(const struct vmx_vcpu *v)
{
    return (atomic_uint *)(void *)(v->vapic + VTPR);
}

int vmx_apic_init(struct vmx_vcpu *v)
{
    if (!vmx_uses(VMX_GROUP_PROC, VMX_PROC_TPR_SHADOW))
        return VMM_OK;
    v->vapic = vmx_pages.alloc(NULL, false);
    return v->vapic ? VMM_OK : VMM_E_NOMEM;
}

void vmx_apic_fini(struct vmx_vcpu *v)
{
    if (v->away)
        vmx_apic_moved(v, true);
    if (v->vapic)
        vmx_pages.free(NULL, v->vapic);
    v->vapic = NULL;
}

/* Most guests never use it: the first access exits. */
void vmx_apic_controls(struct vmx_vcpu *v)
{
    v->proc2 &= ~PROC2_CONTROLS;
    if (vmx_at_apic_page(v))
        v->proc2 |= VMX_PROC2_VIRTUAL_APIC_ACCESSES;
    if (vmx_apic_page)
        vmx_insn_put(VMX_APIC_ACCESS_ADDR, vmm_host->virt_to_phys(vmm_host->ctx, vmx_apic_page));
    v->proc &= ~(uint32_t)VMX_PROC_TPR_SHADOW;
    v->threshold = 0;
    v->delivery_put = false;
    vmx_insn_put(VMX_TPR_THRESHOLD, 0);
    if (v->vapic)
        vmx_insn_put(VMX_VIRTUAL_APIC_ADDR, vmm_host->virt_to_phys(vmm_host->ctx, v->vapic));
    for (unsigned i = 0; i < 4 && vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_VIRTUAL_INTERRUPTS); i++) {
        v->eoi_exit[i] = 0;
        vmx_insn_put(VMX_EOI_EXIT0 + 2 * i, 0);
    }
}

void vmx_apic_used(struct vmx_vcpu *v)
{
    v->tpr_used = v->vapic;
    v->again = false;
}

/* ---- x2APIC ---- */

/* Without the control the bitmap would give the guest the host's TPR: both change together. */
static bool wants_x2apic(const struct vmx_vcpu *v)
{
    return v->place == LAPIC_IN_MSRS && vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_VIRTUAL_X2APIC) &&
           !vmx_has_msr_policy(v->vcpu, MSR_X2APIC_TPR);
}

/* While the page is mapped for nobody, there is nothing in it to be had. */
static bool has_page(const struct vmx_vcpu *v)
{
    return v->place == LAPIC_IN_PAGE && vmx_at_apic_page(v) &&
           !atomic_load_explicit(&v->vv->mmu.apic_away, memory_order_relaxed);
}

/* In virtual-8086 mode for real mode, the hardware would take the wrong table of vectors. */
static bool can_deliver(void)
{
    return vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_VIRTUAL_INTERRUPTS) &&
           vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_UNRESTRICTED_GUEST);
}

/* What the guest sends to itself is taken without a look at whether software has disabled it. */
static bool wants_delivery(const struct vmx_vcpu *v, const struct lapic *lapic)
{
    if (!can_deliver() || !lapic_takes_fixed(lapic))
        return false;
    return has_page(v) || (wants_x2apic(v) && !vmx_has_msr_policy(v->vcpu, VMX_MSR_X2APIC_EOI));
}

void vmx_apic_msrs(struct vmx_vcpu *v)
{
    if (!(v->proc2 & VMX_PROC2_VIRTUAL_X2APIC))
        return;
    if (!vmx_has_msr_policy(v->vcpu, MSR_X2APIC_TPR))
        vmx_msr_bitmap_clear(v->msr_bits, MSR_X2APIC_TPR, true, true);
    if (!(v->proc2 & VMX_PROC2_VIRTUAL_INTERRUPTS))
        return;
    if (!vmx_has_msr_policy(v->vcpu, VMX_MSR_X2APIC_EOI))
        vmx_msr_bitmap_clear(v->msr_bits, VMX_MSR_X2APIC_EOI, false, true);
    if (!vmx_has_msr_policy(v->vcpu, VMX_MSR_X2APIC_SELF))
        vmx_msr_bitmap_clear(v->msr_bits, VMX_MSR_X2APIC_SELF, false, true);
}

static void set_proc2(struct vmx_vcpu *v, uint32_t bits)
{
    vmx_msr_bitmap_set(v->msr_bits, MSR_X2APIC_TPR, true, true);
    vmx_msr_bitmap_set(v->msr_bits, VMX_MSR_X2APIC_EOI, true, true);
    vmx_msr_bitmap_set(v->msr_bits, VMX_MSR_X2APIC_SELF, true, true);
    v->proc2 = (v->proc2 & ~PROC2_CONTROLS) | bits;
    vmx_insn_put(VMX_PROC2_CTLS, v->proc2);
    vmx_apic_msrs(v);
}

static void put_delivery(struct vmx_vcpu *v)
{
    v->delivery_put = true;
    vmx_insn_put(VMX_GUEST_INTR_STATUS,
                 v->delivery.requested | (uint64_t)v->delivery.serviced << 8);
    for (unsigned i = 0; i < 4; i++)
        if (v->eoi_exit[i] != v->delivery.level[i]) {
            v->eoi_exit[i] = v->delivery.level[i];
            vmx_insn_put(VMX_EOI_EXIT0 + 2 * i, v->eoi_exit[i]);
        }
}

/* ---- sessions ---- */

static void lend(struct vmx_vcpu *v, struct lapic *lapic)
{
    v->lent = true;
    v->wanted_threshold = 0; /* with delivery the hardware looks at what waits by itself */
    v->delivers = lapic && wants_delivery(v, lapic);
    if (v->delivers) {
        v->guesses = !vmx_tells_virtual_interrupts();
        if (lapic_lend_delivery(lapic, vtpr(v), v->vapic, &v->delivery))
            v->delivery_put = false;
    } else if (lapic) {
        v->wanted_threshold = lapic_lend(lapic, vtpr(v));
    } else {
        atomic_store_explicit(vtpr(v), (unsigned)v->soft.cpu->cr8 << 4, memory_order_relaxed);
    }
    /* Delivery takes the ICR, too. */
    v->registers =
        has_page(v) && (v->delivers || vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_APIC_REGISTERS));
    if (v->registers)
        lapic_lend_registers(lapic, v->vapic);
}

/* Single steps are of instructions behind which nothing happens but the step: there all that is
 * lent exits. */
void vmx_apic_begin(struct vmx_vcpu *v)
{
    struct lapic *lapic = v->vcpu->lapic;

    v->place = lapic ? lapic_place(lapic) : LAPIC_ELSEWHERE;
    if (vmx_apic_page && lapic && v->away != (v->place != LAPIC_IN_PAGE))
        vmx_apic_moved(v, v->away);
    if (v->tpr_used && !v->stepping)
        lend(v, lapic);
    else if (v->proc & VMX_PROC_TPR_SHADOW)
        v->apic_due = true;
}

static uint32_t proc2_bits(const struct vmx_vcpu *v)
{
    uint32_t bits = vmx_at_apic_page(v) ? (uint32_t)VMX_PROC2_VIRTUAL_APIC_ACCESSES : 0;

    if (v->lent && wants_x2apic(v))
        bits |= (uint32_t)VMX_PROC2_VIRTUAL_X2APIC;
    if (v->lent && v->registers && vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_APIC_REGISTERS))
        bits |= (uint32_t)VMX_PROC2_APIC_REGISTERS;
    if (v->lent && v->delivers)
        bits |= (uint32_t)VMX_PROC2_VIRTUAL_INTERRUPTS;
    return bits;
}

void vmx_apic_push_controls(struct vmx_vcpu *v)
{
    uint32_t bits = proc2_bits(v);
    uint32_t proc = (v->proc & ~PROC_CONTROLS) | (v->lent ? VMX_PROC_TPR_SHADOW : CR8_CONTROLS);

    v->apic_due = false;
    if (v->proc != proc) {
        v->proc = proc;
        vmx_insn_put(VMX_PROC_CTLS, v->proc);
    }
    if ((v->proc2 & PROC2_CONTROLS) != bits)
        set_proc2(v, bits);
    if (!v->lent)
        return;
    if (v->wanted_threshold != v->threshold) {
        v->threshold = v->wanted_threshold;
        vmx_insn_put(VMX_TPR_THRESHOLD, v->threshold);
    }
    if (v->delivers && !v->delivery_put)
        put_delivery(v);
}

void vmx_apic_take_back(struct vmx_vcpu *v)
{
    struct lapic *lapic = v->vcpu->lapic;

    v->lent = false;
    if (lapic && v->delivers) {
        uint32_t left = lapic_take_delivery(lapic, v->vapic);
        /* Less those that the guest has sent to itself. */
        uint32_t n = v->delivery.waiting > left ? v->delivery.waiting - left : 0;

        v->soft.cpu->count.irqs += n;
        v->soft.cpu->rep_serial += n;
    }
    if (v->registers)
        lapic_take_registers(lapic, v->vapic);
    if (lapic)
        lapic_take_back(lapic);
    else
        v->soft.cpu->cr8 = atomic_load_explicit(vtpr(v), memory_order_relaxed) >> 4 & 15;
}

/* ---- exits ---- */

#define ACCESS_READ  0u /* by an instruction's operand */
#define ACCESS_WRITE 1u

static bool keeps_eoi(void)
{
    return can_deliver() || vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_APIC_REGISTERS);
}

/* What is not in the hardware's keeping; or would be, if the guest had used it before. */
int vmx_on_apic_access(struct vmx_vcpu *v)
{
    uint64_t qualification = vmx_insn_get(VMX_EXIT_QUALIFICATION);
    unsigned kind = qualification >> 12 & 15;
    uint32_t offset = qualification & 0xfff;
    int r = VMX_INJECT_SOFT;

    if (!(v->proc2 & VMX_PROC2_VIRTUAL_APIC_ACCESSES))
        return vmx_on_impossible(v);
    if ((offset == VTPR || (offset == EOI && keeps_eoi())) && ++v->apic_uses >= USES)
        vmx_apic_used(v);
    if (kind == ACCESS_READ || kind == ACCESS_WRITE)
        r = vmx_on_apic_move(v, offset, kind == ACCESS_WRITE);
    return r == VMX_INJECT_SOFT ? vmx_soft_one(v, true) : r;
}

/* The page has what was written, by an instruction that is over. */
int vmx_on_apic_write(struct vmx_vcpu *v)
{
    uint32_t offset = (uint32_t)vmx_insn_get(VMX_EXIT_QUALIFICATION) & 0xff0;

    if (!v->lent)
        return vmx_on_impossible(v);
    vmx_take_trap(v);
    vmx_session_end(v);
    lapic_written(core_vcpu_lapic(v->vcpu), v->vapic, offset);
    return VMX_GO_ON;
}

/* The end of a level-triggered interrupt, behind the instruction. */
int vmx_on_virtualized_eoi(struct vmx_vcpu *v)
{
    uint8_t vector = (uint8_t)vmx_insn_read(VMX_EXIT_QUALIFICATION);

    vmx_take_trap(v);
    vmx_session_end(v);
    lapic_ended(core_vcpu_lapic(v->vcpu), vector);
    return VMX_GO_ON;
}
