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

enum class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum class class_of(uint8_t vector) {
    switch (vector){
        case 0 :                      /* #DE */
            case 10 :                 /* #TS */
                case 11 :             /* #NP */
                    case 12 :         /* #SS */
                        case 13 :     /* #GP */
                            case 21 : /* #CP */
                                return CONTRIBUTORY;
        case 14 : case 20 : /* #VE */
            return PAGE_FAULT;
        case VECTOR_DF : return DOUBLE_FAULT;
        default : return BENIGN;
    }
}

enum vmx_second vmx_second_exception(uint32_t info, uint8_t vector)
{
    enum class first, second = class_of(vector);

    if (!(info & VMX_INTR_VALID) ||
        (info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT != VMX_TYPE_EXCEPTION)
        return VMX_SECOND_DELIVER;
    first = class_of(info & VMX_INTR_VECTOR);
    if (first == DOUBLE_FAULT)
        return second == BENIGN ? VMX_SECOND_DELIVER : VMX_SECOND_TRIPLE_FAULT;
    if ((first == CONTRIBUTORY && second == CONTRIBUTORY) ||
        (first == PAGE_FAULT && (second == CONTRIBUTORY || second == PAGE_FAULT)))
        return VMX_SECOND_DOUBLE_FAULT;
    return VMX_SECOND_DELIVER;
}
