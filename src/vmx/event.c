/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/event.c: decisions about event injection. */
#include "vmx/event.h"
#include "vmx/fields.h"

struct vmx_plan vmx_plan_entry(const struct vmx_waiting *w)
{
    const uint32_t shadow = VMX_BLOCK_STI | VMX_BLOCK_MOV_SS;
    struct vmx_plan plan = {VMX_INJECT_NOTHING, false, false, false};
    bool nmi_open, intr_open;

    /* Some CPUs do not take an NMI behind STI, so none is sent there. */
    nmi_open = !(w->interruptibility & (shadow | VMX_BLOCK_NMI));
    intr_open = w->interrupts_on && !(w->interruptibility & shadow);
    if (w->event.info & VMX_INTR_VALID) {
        plan.inject = VMX_INJECT_EVENT;
    } else if (w->nmi && nmi_open) {
        plan.inject = VMX_INJECT_NMI;
    } else if (w->wants_window && intr_open) {
        plan.program_window = true;
        return plan;
    } else if (w->interrupt && intr_open) {
        plan.inject = VMX_INJECT_INTERRUPT;
    }
    plan.nmi_window = w->nmi && plan.inject != VMX_INJECT_NMI && w->virtual_nmis;
    plan.interrupt_window =
        w->wants_window || (w->interrupt && plan.inject != VMX_INJECT_INTERRUPT);
    return plan;
}

/* Vectors of exceptions with an error code; #CP (21) is not for guests without CET. */
#define WITH_ERROR (1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17)

bool vmx_can_inject(const struct vmx_waiting *w, bool protected_mode)
{
    const uint32_t shadow = VMX_BLOCK_STI | VMX_BLOCK_MOV_SS;
    const struct vmx_event *e = &w->event;
    uint32_t vector = e->info & VMX_INTR_VECTOR;
    bool has_error = e->info & VMX_INTR_HAS_ERROR, wants_error = false;

    switch ((e->info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT) {
    case VMX_TYPE_EXTERNAL:
        if (!w->interrupts_on || (w->interruptibility & shadow))
            return false;
        break;
    case VMX_TYPE_NMI:
        if (vector != 2 || (w->interruptibility & (shadow | VMX_BLOCK_NMI)))
            return false;
        break;
    case VMX_TYPE_EXCEPTION:
        if (vector > 31 || vector == 2)
            return false;
        wants_error = protected_mode && (WITH_ERROR >> vector & 1);
        break;
    case VMX_TYPE_SOFT_INT:
    case VMX_TYPE_PRIV_SW:
    case VMX_TYPE_SOFT_EXC:
        if (e->len < 1 || e->len > 15)
            return false;
        break;
    default:
        return false;
    }
    return has_error == wants_error && !(has_error && e->error >> 15);
}

bool vmx_sets_rf(uint32_t info, uint32_t db)
{
    if ((info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT != VMX_TYPE_EXCEPTION)
        return false;
    switch (info & VMX_INTR_VECTOR) {
    case 1: /* #DB: only general detect is a fault that RF is for */
        return db >> 13 & 1;
    case 3:  /* #BP */
    case 4:  /* #OF */
    case 8:  /* #DF */
    case 18: /* #MC */
        return false;
    default:
        return true;
    }
}

struct vmx_event vmx_interrupted_event(uint32_t info, uint32_t error, uint32_t insn_len,
                                       bool *unblock_nmi)
{
    struct vmx_event e = {0, 0, 0};

    *unblock_nmi = false;
    if (!(info & VMX_INTR_VALID))
        return e;
    e.info = info & (VMX_INTR_VALID | VMX_INTR_HAS_ERROR | VMX_INTR_TYPE | VMX_INTR_VECTOR);
    if (info & VMX_INTR_HAS_ERROR)
        e.error = error;
    if (vmx_type_is_soft(info))
        e.len = insn_len;
    *unblock_nmi = (info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT == VMX_TYPE_NMI;
    return e;
}

#define VECTOR_DF 8

bool vmx_iret_blocks_nmi(uint32_t reason, uint64_t info, uint32_t vectoring_info)
{
    /* Undefined while an event was being delivered, and for #DF. */
    if (vectoring_info & VMX_INTR_VALID)
        return false;
    switch (reason & 0xffff) {
    case VMX_EXIT_EXCEPTION_NMI:
        return (info & VMX_INTR_VALID) && (info & VMX_INTR_NMI_UNBLOCK) &&
               (info & VMX_INTR_VECTOR) != VECTOR_DF;
    case VMX_EXIT_EPT_VIOLATION:
    case VMX_EXIT_PML_FULL:
        return info & VMX_INTR_NMI_UNBLOCK; /* bit 12 of the qualification, too */
    default:
        return false;
    }
}

uint32_t vmx_kept_blocking(uint32_t entered_with, uint32_t left_with, bool moved)
{
    const uint32_t shadow = VMX_BLOCK_STI | VMX_BLOCK_MOV_SS;

    return moved || (left_with & shadow) ? left_with : left_with | (entered_with & shadow);
}
