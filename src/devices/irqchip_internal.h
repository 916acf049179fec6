/* SPDX-License-Identifier: BSD-2-Clause */
/* devices/irqchip_internal.h: shared by the interrupt controllers (8259 pair, IOAPIC, local APICs).
 */
#ifndef DEVICES_IRQCHIP_INTERNAL_H
#define DEVICES_IRQCHIP_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <vmm/io.h>
#include <vmm/timer.h>

#include "core/irqchip.h"
#include "core/os.h"

/*
 * Locks: pic.lock -> ioapic.lock -> one lapic.lock; window_lock is a leaf. No thread
 * holds two lapic locks. Timers are set with none of them held, since the core's list of timers
 * comes before all device locks. core_vcpu_intr and its siblings only set request bits and wake the
 * vCPU, so they are called under the lapic's lock, which keeps the vCPU from going away meanwhile.
 */

/* Delivery modes of ICR, LVT, redirection table and MSI data (SDM Vol. 3A 11.6.1, 11.5.1). */
#define IRQ_FIXED  0u
#define IRQ_LOWEST 1u
#define IRQ_SMI    2u
#define IRQ_NMI    4u
#define IRQ_INIT   5u
#define IRQ_SIPI   6u
#define IRQ_EXTINT 7u

/* Destination shorthands of the ICR. */
#define IRQ_TO_DEST   0u
#define IRQ_TO_SELF   1u
#define IRQ_TO_ALL    2u
#define IRQ_TO_OTHERS 3u

#define IRQ_BROADCAST 0xffffffffu

/* An interrupt message between IOAPIC, MSI or a sending local APIC and the local APICs. */
struct irq_msg {
    uint32_t dest; /* IRQ_BROADCAST: all; 8-bit destinations of 0xff are widened by the sender */
    uint8_t mode;  /* IRQ_FIXED ... */
    uint8_t vector;
    uint8_t shorthand;
    bool logical;
    bool level; /* level-triggered: sets the TMR bit, its EOI goes to the IOAPIC */
};

/* ---- 8259 pair ---- */

struct pic_chip {
    uint8_t lines; /* level of the input pins */
    uint8_t irr;   /* latched edges; pins in level mode and the cascade show their level */
    uint8_t imr;
    uint8_t isr;
    uint8_t elcr;   /* bit set: level-triggered */
    uint8_t base;   /* vector of input 0 */
    uint8_t lowest; /* input with the lowest priority; rotates */
    uint8_t step;   /* 0: operational, else the number of the ICW that is expected next */
    bool want_icw4;
    bool single;
    bool auto_eoi;
    bool rotate_auto_eoi;
    bool special_mask;
    bool special_nested;
    bool read_isr;
    bool poll;
};

struct pic {
    struct os_mutex lock;
    struct pic_chip chip[2]; /* master, slave */
    atomic_bool intr;        /* the master's INT output */
    struct pio *ports[3];
};

/* ---- IOAPIC ---- */

#define IOAPIC_PINS 24u

struct ioapic {
    struct os_mutex lock;
    uint32_t select;
    uint32_t id;
    uint32_t lines; /* level of the input pins */
    uint64_t rte[IOAPIC_PINS];
    struct mmio *mmio;
};

/* ---- local APIC ---- */

enum lapic_lvt {
    LVT_TIMER,
    LVT_THERMAL,
    LVT_PERF,
    LVT_LINT0,
    LVT_LINT1,
    LVT_ERROR,
    LVT_COUNT,
};

#define LVT_MASKED     0x10000u
#define LVT_LEVEL      0x8000u
#define LVT_REMOTE_IRR 0x4000u

#define APIC_BASE_BSP    0x100ull
#define APIC_BASE_X2APIC 0x400ull
#define APIC_BASE_ENABLE 0x800ull
#define APIC_BASE_ADDR   0xfffffffffffff000ull

#define ESR_SEND_ILLEGAL    0x20u
#define ESR_RECEIVE_ILLEGAL 0x40u
#define ESR_ILLEGAL_REG     0x80u

struct lapic {
    struct irqchip *chip;
    uint32_t id;
    struct os_mutex lock;    /* of all that follows but the atomics that say so */
    struct vcpu *vcpu;       /* NULL: no such CPU (any more) */
    struct vmm_timer *timer; /* constant while vcpu is set */

    uint64_t base; /* IA32_APIC_BASE */
    uint32_t ldr;
    uint32_t dfr;
    uint32_t svr;
    uint32_t esr;         /* as the guest reads it */
    uint32_t esr_pending; /* errors since the last write to ESR */
    uint64_t icr;
    uint32_t lvt[LVT_COUNT];
    uint32_t irr[8];
    uint32_t isr[8];
    uint32_t tmr[8];

    uint32_t divide; /* divide configuration register */
    uint32_t init_count;
    uint64_t expiry; /* vm_clock time of the next (or, not yet noticed, last) expiry; 0: none */
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE */
    uint64_t armed;        /* deadline that `timer` should have; 0: none */

    _Atomic uint8_t page_old; /* LAPIC_OLD_*: what of a virtual-APIC page is not as it is here */

    atomic_uint tpr;             /* written under the lock */
    _Atomic(atomic_uint *) lent; /* not NULL: the task priority is there instead (lapic_lend) */
    atomic_bool lent_late;       /* an interrupt has arrived meanwhile */
    atomic_bool intr;            /* an interrupt above the processor priority is in IRR; written
                                    under the lock */
    atomic_bool extint_open; /* LINT0 passes the 8259s' INTR to this CPU; written under the lock */
    atomic_bool extint_msg;  /* an ExtINT message has arrived */
};

#define LAPIC_OLD_VECTORS 1u /* ISR, TMR, IRR */
#define LAPIC_OLD_OTHERS  2u /* but for what is not lent */

/* Pages other than the default one to which guests may move local APICs, per VM. Those that were
 * ever used stay registered until the VM is reset; an access is answered if the accessing CPU's own
 * local APIC is there. */
#define LAPIC_WINDOWS 8u

struct lapic_window {
    struct irqchip *chip;
    uint64_t gpa; /* 0: free */
    struct mmio *mmio;
};

struct irqchip {
    struct vm *vm;
    const struct irqchip_remote *remote; /* NULL: the local APICs are in lapic[] */
    struct pic pic;
    struct ioapic ioapic;
    /* Slot n: local APIC of vCPU n. Once allocated it stays until irqchip_destroy, so that a sender
     * on another thread never sees freed memory. */
    _Atomic(struct lapic *) lapic[VMM_MAX_VCPUS];
    atomic_uint next_lowest; /* round robin among equals in lowest-priority arbitration */

    struct os_mutex window_lock; /* of window[].gpa; not held while registering */
    struct lapic_window default_window;
    struct lapic_window window[LAPIC_WINDOWS];
};

/* irqchip.c */
/* Sends a message; returns how many local APICs took it. `from`: sender, for shorthands. Takes
 * lapic locks. */
uint32_t irqchip_deliver(struct irqchip *chip, const struct irq_msg *msg, struct lapic *from);
/* The same as an address and data of the message window. */
uint64_t irqchip_compose(const struct irq_msg *msg, uint32_t *data);
/* Tells the core of the EOI of the lines in `mask`. No lock held. */
void irqchip_notify_eoi(struct irqchip *chip, uint32_t mask);

/* pic.c */
int pic_init(struct irqchip *chip);
void pic_fini(struct irqchip *chip);
void pic_reset(struct irqchip *chip);
void pic_set_line(struct irqchip *chip, uint32_t line, bool level);
/* The INTA cycles: the vector; a spurious one (input 7) if the request has gone. */
uint8_t pic_ack(struct irqchip *chip);

/* ioapic.c */
int ioapic_init(struct irqchip *chip);
void ioapic_fini(struct irqchip *chip);
void ioapic_reset(struct irqchip *chip);
void ioapic_set_pin(struct irqchip *chip, uint32_t pin, bool level);
/* EOI of a level-triggered vector, broadcast by a local APIC. No lock held. */
void ioapic_eoi(struct irqchip *chip, uint8_t vector);

/* lapic.c; "locked": the caller holds lapic->lock */
bool lapic_matches(struct lapic *lapic, uint32_t dest, bool logical);
/* Priority for arbitration (SDM Vol. 3A 11.6.2.4); -1 if it takes no interrupts now. */
int lapic_arbitration(struct lapic *lapic, uint32_t dest, bool logical);
bool lapic_accept(struct lapic *lapic, uint8_t mode, uint8_t vector, bool level);
/* The 8259s' INTR output, which is wired to LINT0, has changed. */
void lapic_pic_output(struct lapic *lapic, bool level);
void lapic_reset_regs(struct lapic *lapic);            /* locked */
void lapic_update(struct lapic *lapic);                /* locked; after IRR, ISR or TPR changed */
void lapic_update_lint0(struct lapic *lapic);          /* locked; after LVT LINT0 or base changed */
void lapic_error(struct lapic *lapic, uint32_t bit);   /* locked */
void lapic_local(struct lapic *lapic, enum lapic_lvt); /* locked; a local source fires */
int lapic_end(struct lapic *lapic);      /* locked; EOI: vector to tell the IOAPIC about, or -1 */
uint32_t lapic_ppr(struct lapic *lapic); /* locked */
static inline void lapic_put(uint8_t *page, uint32_t at, uint32_t value)
{
    __builtin_memcpy(page + at, &value, sizeof(value)); /* no call, in freestanding builds either */
}
static inline uint32_t lapic_get(const uint8_t *page, uint32_t at)
{
    uint32_t value;

    __builtin_memcpy(&value, page + at, sizeof(value));
    return value;
}
static inline bool lapic_enabled(const struct lapic *lapic)
{
    return lapic->base & APIC_BASE_ENABLE;
}
static inline uint32_t lapic_tpr(const struct lapic *lapic)
{
    const atomic_uint *lent = atomic_load_explicit(&lapic->lent, memory_order_relaxed);

    return atomic_load_explicit(lent ? lent : &lapic->tpr, memory_order_relaxed) & 0xff;
}
static inline bool lapic_x2apic(const struct lapic *lapic)
{
    return lapic->base & APIC_BASE_X2APIC;
}

/* lapic_regs.c */
/* The default page. */
int lapic_window_init(struct irqchip *chip);
/* Takes all pages away, or only those that guests asked for. QUIET. */
void lapic_window_fini(struct irqchip *chip, bool all);

/* lapic_timer.c */
#define LAPIC_TIMER_HZ 1000000000u /* bus clock of the timer: one tick per ns at divide by 1 */
void lapic_timer_fire(void *opaque, uint64_t deadline);
/* Makes the core's timer follow lapic->armed. No lock held. */
void lapic_timer_apply(struct lapic *lapic);
/* The following: locked; `now` is vm_clock; the caller applies afterwards. */
void lapic_timer_reset(struct lapic *lapic);
void lapic_timer_set_lvt(struct lapic *lapic, uint32_t value, uint64_t now);
void lapic_timer_set_count(struct lapic *lapic, uint32_t value, uint64_t now);
void lapic_timer_set_divide(struct lapic *lapic, uint32_t value, uint64_t now);
uint32_t lapic_timer_count(struct lapic *lapic, uint64_t now);
/* `expiry`: vm_clock time of the deadline; at or before `now` it fires at once. */
void lapic_timer_set_deadline(struct lapic *lapic, uint64_t tsc, uint64_t expiry, uint64_t now);

#endif
