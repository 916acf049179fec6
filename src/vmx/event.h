/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/event.h: which event a VM entry injects, which windows are asked for, and what an exit leaves
 * to be injected again. Pure functions. */
#ifndef VMX_EVENT_H
#define VMX_EVENT_H

#include <stdbool.h>
#include <stdint.h>

/* Interruption-information formats (SDM Vol. 3C 24.8.3, 24.9.2, 24.9.3). */
#define VMX_INTR_VECTOR      0xffu
#define VMX_INTR_TYPE_SHIFT  8
#define VMX_INTR_TYPE        0x700u
#define VMX_INTR_HAS_ERROR   (1u << 11)
#define VMX_INTR_NMI_UNBLOCK (1u << 12) /* exits only */
#define VMX_INTR_VALID       (1u << 31)

#define VMX_TYPE_EXTERNAL  0u
#define VMX_TYPE_NMI       2u
#define VMX_TYPE_EXCEPTION 3u
#define VMX_TYPE_SOFT_INT  4u
#define VMX_TYPE_PRIV_SW   5u
#define VMX_TYPE_SOFT_EXC  6u

/* Guest interruptibility. */
#define VMX_BLOCK_STI    1u
#define VMX_BLOCK_MOV_SS 2u
#define VMX_BLOCK_SMI    4u
#define VMX_BLOCK_NMI    8u

struct vmx_event {
    uint32_t info, error, len; /* info 0: none */
};

/* Software interrupts and exceptions take the instruction's length. */
static inline bool vmx_type_is_soft(uint32_t info)
{
    return (info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT >= VMX_TYPE_SOFT_INT;
}

/* What the guest is in, and what waits for it. */
struct vmx_waiting {
    struct vmx_event event;    /* to be delivered whatever the guest is in */
    bool nmi, interrupt;       /* wait until the guest can take them */
    bool wants_window;         /* the program waits for an interrupt window */
    bool interrupts_on;        /* RFLAGS.IF */
    uint32_t interruptibility; /* VMX_BLOCK_* */
    bool virtual_nmis;         /* the control is set; else only blocking counts */
};

enum vmx_inject { VMX_INJECT_NOTHING, VMX_INJECT_EVENT, VMX_INJECT_NMI, VMX_INJECT_INTERRUPT };

struct vmx_plan {
    enum vmx_inject inject;
    bool nmi_window, interrupt_window; /* to exit when the guest can take what still waits */
    bool program_window;               /* the window that the program waits for is open now */
};

/* SDM Vol. 3C 26.3.1.5, 26.6.5: one event per entry; NMIs before interrupts. */
struct vmx_plan vmx_plan_entry(const struct vmx_waiting *w);

/* Whether the entry takes w->event (SDM Vol. 3C 26.2.1.3, 26.3.1.4, 26.3.1.5), which somebody else
 * may have made up. */
bool vmx_can_inject(const struct vmx_waiting *w, bool protected_mode);
/* Whether RFLAGS.RF has to be set in the flags that the event pushes: those are what the entry
 * loads. `db` is for #DB: what of DR6 it has set. */
bool vmx_sets_rf(uint32_t info, uint32_t db);

/* What IDT_VECTORING_INFO and its like say: the event that the exit has interrupted, which the next
 * entry injects; info 0 if none. Virtual NMIs: *unblock_nmi: the NMI was not delivered, so nothing
 * blocks the next one. */
struct vmx_event vmx_interrupted_event(uint32_t vectoring_info, uint32_t vectoring_error,
                                       uint32_t insn_len, bool *unblock_nmi);

/* Whether the exit's IRET has ended NMI blocking before it faulted, so that it holds again. For
 * exceptions `info` is EXIT_INTR_INFO, for other exits the qualification, as SDM Vol. 3C 27.2.3. */
bool vmx_iret_blocks_nmi(uint32_t exit_reason, uint64_t info, uint32_t vectoring_info);

/* Blocking by STI and MOV SS, as an exception's exit leaves it: an instruction that has not been
 * executed does not end what the entry was made with. Bochs 2.7 forgets it then; CPUs do not.
 * `moved`: RIP is not that of the entry. */
uint32_t vmx_kept_blocking(uint32_t entered_with, uint32_t left_with, bool moved);

#endif
