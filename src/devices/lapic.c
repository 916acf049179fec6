/* SPDX-License-Identifier: BSD-2-Clause */
/* devices/lapic.c: the local APIC: life cycle, accepting, prioritizing and acknowledging
 * interrupts. */
#include <stdlib.h>
#include <string.h>

#include "devices/irqchip_internal.h"

#define SVR_ENABLE 0x100u

#define LVT_VECTOR    0xffu
#define LVT_MODE(lvt) ((lvt) >> 8 & 7)

/* ---- 256-bit vector sets ---- */

static void set_bit(uint32_t *set, uint8_t vector)
{
    set[vector >> 5] |= 1u << (vector & 31);
}

static void clear_bit(uint32_t *set, uint8_t vector)
{
    set[vector >> 5] &= ~(1u << (vector & 31));
}

static bool test_bit(const uint32_t *set, uint8_t vector)
{
    return set[vector >> 5] >> (vector & 31) & 1;
}

static int highest(const uint32_t *set)
{
#pragma GCC unroll 8
    for (int i = 7; i >= 0; i--)
        if (set[i])
            return i * 32 + 31 - __builtin_clz(set[i]);
    return -1;
}

/* ---- priority ---- */

/* Processor priority: SDM Vol. 3A 11.8.3.1. */
uint32_t lapic_ppr(struct lapic *l)
{
    int isrv = highest(l->isr);
    uint32_t service = isrv < 0 ? 0 : (uint32_t)isrv & 0xf0;
    uint32_t tpr = lapic_tpr(l);
    return (tpr & 0xf0) >= service ? tpr : service;
}

/* The vector to deliver now, or -1. */
static int deliverable(struct lapic *l)
{
    int vector = lapic_enabled(l) ? highest(l->irr) : -1;
    return vector >= 0 && ((uint32_t)vector & 0xf0) > (lapic_ppr(l) & 0xf0) ? vector : -1;
}

static void look(struct lapic *l)
{
    bool intr = deliverable(l) >= 0;
    if (atomic_exchange(&l->intr, intr) != intr && intr && l->vcpu)
        core_vcpu_intr(l->vcpu);
}

void lapic_update(struct lapic *l)
{
    l->page_old |= LAPIC_OLD_VECTORS;
    look(l);
}

/* Whether the 8259s' INTR reaches this CPU: through LINT0 as ExtINT, or, with the local APIC
 * disabled, through the boot processor's pin that is INTR then (SDM Vol. 3A 11.4.3). */
void lapic_update_lint0(struct lapic *l)
{
    uint32_t lvt = l->lvt[LVT_LINT0];
    bool open = lapic_enabled(l) ? !(lvt & LVT_MASKED) && LVT_MODE(lvt) == IRQ_EXTINT : l->id == 0;
    bool was = atomic_exchange(&l->extint_open, open);
    if (open && !was && l->vcpu && atomic_load(&l->chip->pic.intr))
        core_vcpu_intr(l->vcpu);
}

/* ---- accepting interrupts ---- */

static void accept_fixed(struct lapic *l, uint8_t vector, bool level)
{
    if (vector < 16) {
        lapic_error(l, ESR_RECEIVE_ILLEGAL);
        return;
    }
    set_bit(l->irr, vector);
    if (level)
        set_bit(l->tmr, vector);
    else
        clear_bit(l->tmr, vector);
    lapic_update(l);
    /* The guest may be about to lower its priority, which nobody would notice. */
    if (l->vcpu && atomic_load(&l->lent)) {
        atomic_store(&l->lent_late, true);
        core_vcpu_intr(l->vcpu);
    }
}

void lapic_error(struct lapic *l, uint32_t bit)
{
    if (l->esr_pending & bit)
        return;
    l->esr_pending |= bit;
    uint32_t lvt = l->lvt[LVT_ERROR];
    if (lvt & LVT_MASKED)
        return;
    if ((lvt & LVT_VECTOR) < 16)
        l->esr_pending |= ESR_RECEIVE_ILLEGAL; /* not reported through the same illegal vector */
    else
        accept_fixed(l, lvt & LVT_VECTOR, false);
}

void lapic_local(struct lapic *l, enum lapic_lvt source)
{
    uint32_t *lvt = &l->lvt[source];
    bool modes = source != LVT_TIMER && source != LVT_ERROR; /* these two are always fixed */
    if ((*lvt & LVT_MASKED) || !lapic_enabled(l) || !l->vcpu)
        return;

    switch (modes ? LVT_MODE(*lvt) : IRQ_FIXED) {
    case IRQ_FIXED:
        if (source == LVT_LINT0 && (*lvt & LVT_LEVEL)) {
            if (*lvt & LVT_REMOTE_IRR)
                return;
            *lvt |= LVT_REMOTE_IRR;
            l->page_old |= LAPIC_OLD_OTHERS;
            accept_fixed(l, *lvt & LVT_VECTOR, true);
        } else {
            accept_fixed(l, *lvt & LVT_VECTOR, false);
        }
        break;
    case IRQ_NMI:
        core_vcpu_nmi(l->vcpu);
        break;
    case IRQ_INIT:
        core_vcpu_init_ipi(l->vcpu);
        break;
    case IRQ_EXTINT:
        core_vcpu_intr(l->vcpu);
        break;
    default:
        break; /* SMI: there is no system management mode */
    }
}

bool lapic_accept(struct lapic *l, uint8_t mode, uint8_t vector, bool level)
{
    bool taken = false;

    os_mutex_lock(&l->lock);
    if (!l->vcpu || !lapic_enabled(l))
        goto out;
    taken = true;
    switch (mode) {
    case IRQ_FIXED:
    case IRQ_LOWEST:
        /* SDM Vol. 3A 11.4.7.2: disabled by software, only INIT, NMI, SMI and SIPI are taken. */
        taken = l->svr & SVR_ENABLE;
        if (taken) {
            accept_fixed(l, vector, level);
            taken = vector >= 16;
        }
        break;
    case IRQ_NMI:
        core_vcpu_nmi(l->vcpu);
        break;
    case IRQ_INIT:
        core_vcpu_init_ipi(l->vcpu);
        break;
    case IRQ_SIPI:
        core_vcpu_sipi(l->vcpu, vector);
        break;
    case IRQ_EXTINT:
        atomic_store(&l->extint_msg, true);
        core_vcpu_intr(l->vcpu);
        break;
    default:
        break;
    }
out:
    os_mutex_unlock(&l->lock);
    return taken;
}

void lapic_pic_output(struct lapic *l, bool level)
{
    os_mutex_lock(&l->lock);
    if (l->vcpu && level) {
        if (atomic_load(&l->extint_open))
            core_vcpu_intr(l->vcpu);
        else
            lapic_local(l, LVT_LINT0);
    }
    os_mutex_unlock(&l->lock);
}

/* SDM Vol. 3A 11.6.2. Locked. */
static bool matches(const struct lapic *l, uint32_t dest, bool logical)
{
    if (dest == IRQ_BROADCAST)
        return true;
    if (!logical)
        return dest == l->id;
    if (lapic_x2apic(l)) /* cluster in the upper half, a bit per member in the lower */
        return dest >> 16 == l->id >> 4 && (dest & 1u << (l->id & 15));
    if (dest > 0xff)
        return false;
    uint32_t ldr = l->ldr >> 24;
    if (l->dfr >> 28 == 0xf)
        return dest & ldr;
    return (dest >> 4 == ldr >> 4 || dest >> 4 == 0xf) && (dest & ldr & 0xf);
}

bool lapic_matches(struct lapic *l, uint32_t dest, bool logical)
{
    os_mutex_lock(&l->lock);
    bool match = l->vcpu && matches(l, dest, logical);
    os_mutex_unlock(&l->lock);
    return match;
}

int lapic_arbitration(struct lapic *l, uint32_t dest, bool logical)
{
    int priority = -1;
    os_mutex_lock(&l->lock);
    if (l->vcpu && lapic_enabled(l) && (l->svr & SVR_ENABLE) && matches(l, dest, logical))
        priority = (int)lapic_ppr(l);
    os_mutex_unlock(&l->lock);
    return priority;
}

/* ---- acknowledge and end ---- */

bool lapic_extint(struct lapic *l)
{
    return (atomic_load(&l->extint_open) || atomic_load(&l->extint_msg)) &&
           atomic_load(&l->chip->pic.intr);
}

bool lapic_intr(struct lapic *l)
{
    return atomic_load(&l->intr) || lapic_extint(l);
}

int lapic_ack(struct lapic *l)
{
    int vector = -1;

    if (lapic_extint(l)) {
        atomic_store(&l->extint_msg, false);
        vector = pic_ack(l->chip);
    } else {
        os_mutex_lock(&l->lock);
        vector = deliverable(l);
        if (vector >= 0) {
            clear_bit(l->irr, (uint8_t)vector);
            set_bit(l->isr, (uint8_t)vector);
        }
        lapic_update(l);
        os_mutex_unlock(&l->lock);
    }
    /* One more may wait, from the other source: there was no edge for it. */
    if (lapic_intr(l))
        core_vcpu_intr(l->vcpu);
    return vector;
}

/* What the end of a level-triggered interrupt means to its source. Locked. */
static int level_end(struct lapic *l, int vector)
{
    if (!test_bit(l->tmr, (uint8_t)vector))
        return -1;

    uint32_t *lint0 = &l->lvt[LVT_LINT0];
    if ((*lint0 & LVT_REMOTE_IRR) && (*lint0 & LVT_VECTOR) == (uint32_t)vector) {
        *lint0 &= ~LVT_REMOTE_IRR;
        l->page_old |= LAPIC_OLD_OTHERS;
        if (atomic_load(&l->chip->pic.intr))
            lapic_local(l, LVT_LINT0);
    }
    return vector;
}

int lapic_end(struct lapic *l)
{
    int vector = highest(l->isr);
    if (vector < 0)
        return -1;
    clear_bit(l->isr, (uint8_t)vector);
    lapic_update(l);
    return level_end(l, vector);
}

void lapic_ended(struct lapic *l, uint8_t vector)
{
    int eoi;

    os_mutex_lock(&l->lock);
    eoi = level_end(l, vector);
    os_mutex_unlock(&l->lock);
    if (eoi >= 0)
        ioapic_eoi(l->chip, (uint8_t)eoi);
}

/* ---- task priority ---- */

uint64_t lapic_get_cr8(struct lapic *l)
{
    return lapic_tpr(l) >> 4;
}

static void set_tpr(struct lapic *l, uint32_t tpr)
{
    os_mutex_lock(&l->lock);
    atomic_store_explicit(&l->tpr, tpr, memory_order_relaxed);
    lapic_update(l);
    os_mutex_unlock(&l->lock);
}

void lapic_set_cr8(struct lapic *l, uint64_t cr8)
{
    uint32_t tpr = (uint32_t)(cr8 & 0xf) << 4;

    /* Only the owner writes it, so an unchanged one needs no lock. */
    if (atomic_load_explicit(&l->tpr, memory_order_relaxed) != tpr)
        set_tpr(l, tpr);
}

enum lapic_place lapic_place(const struct lapic *l)
{
    if (!lapic_enabled(l))
        return LAPIC_ELSEWHERE;
    if (lapic_x2apic(l))
        return LAPIC_IN_MSRS;
    return (l->base & APIC_BASE_ADDR) == APIC_DEFAULT_BASE ? LAPIC_IN_PAGE : LAPIC_ELSEWHERE;
}

uint32_t lapic_lend(struct lapic *l, atomic_uint *tpr)
{
    uint32_t mine = atomic_load_explicit(&l->tpr, memory_order_relaxed), class = 0;
    int vector;

    atomic_store_explicit(tpr, mine, memory_order_relaxed);
    os_mutex_lock(&l->lock);
    atomic_store(&l->lent, tpr);
    vector = lapic_enabled(l) ? highest(l->irr) : -1;
    if (vector >= 0 && (uint32_t)vector >> 4 <= mine >> 4)
        class = (uint32_t)vector >> 4;
    os_mutex_unlock(&l->lock);
    return class;
}

void lapic_take_back(struct lapic *l)
{
    uint32_t tpr = lapic_tpr(l);

    atomic_store(&l->lent, NULL);
    /* What has arrived was compared with a task priority that may have been another. */
    if (atomic_exchange(&l->lent_late, false) ||
        atomic_load_explicit(&l->tpr, memory_order_relaxed) != tpr)
        set_tpr(l, tpr);
}

/* ---- delivery by hardware ---- */

bool lapic_takes_fixed(const struct lapic *l)
{
    return l->svr & SVR_ENABLE;
}

#define PAGE_PPR 0xa0u
#define PAGE_ISR 0x100u
#define PAGE_TMR 0x180u
#define PAGE_IRR 0x200u

/* Locked. */
static void put_vectors(struct lapic *l, uint8_t *page, struct lapic_delivery *out)
{
    int irr = highest(l->irr), isr = highest(l->isr);

    out->requested = irr < 0 ? 0 : (uint8_t)irr;
    out->serviced = isr < 0 ? 0 : (uint8_t)isr;
    lapic_put(page, PAGE_PPR, lapic_ppr(l));
    for (uint32_t i = 0; i < 8; i++) {
        lapic_put(page, PAGE_ISR + i * 16, l->isr[i]);
        lapic_put(page, PAGE_TMR + i * 16, l->tmr[i]);
        lapic_put(page, PAGE_IRR + i * 16, l->irr[i]);
    }
    for (uint32_t i = 0; i < 4; i++)
        out->level[i] = l->tmr[2 * i] | (uint64_t)l->tmr[2 * i + 1] << 32;
}

static inline bool any(const uint32_t *set)
{
    return set[0] | set[1] | set[2] | set[3] | set[4] | set[5] | set[6] | set[7];
}

bool lapic_lend_delivery(struct lapic *l, atomic_uint *tpr, uint8_t *page,
                         struct lapic_delivery *out)
{
    bool old;

    atomic_store_explicit(tpr, atomic_load_explicit(&l->tpr, memory_order_relaxed),
                          memory_order_relaxed);
    os_mutex_lock(&l->lock);
    atomic_store(&l->lent, tpr);
    old = l->page_old & LAPIC_OLD_VECTORS;
    if (old)
        put_vectors(l, page, out);
    if (old)
        l->page_old &= (uint8_t)~LAPIC_OLD_VECTORS;
    out->waiting = 0;
    for (uint32_t i = 0; any(l->irr) && i < 8; i++) {
        out->waiting += (uint32_t)__builtin_popcount(l->irr[i]);
        l->irr[i] = 0;
    }
    os_mutex_unlock(&l->lock);
    return old;
}

/* The page is as it is here then, unless something has arrived, which has said so. */
uint32_t lapic_take_delivery(struct lapic *l, const uint8_t *page)
{
    uint32_t left = 0, irr = 0;

    os_mutex_lock(&l->lock);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; i++) {
        l->isr[i] = lapic_get(page, PAGE_ISR + i * 16);
        irr |= lapic_get(page, PAGE_IRR + i * 16);
    }
    for (uint32_t i = 0; irr && i < 8; i++) {
        l->irr[i] |= lapic_get(page, PAGE_IRR + i * 16);
        left += (uint32_t)__builtin_popcount(lapic_get(page, PAGE_IRR + i * 16));
    }
    if (left || (l->page_old & LAPIC_OLD_VECTORS) || atomic_load(&l->intr))
        look(l);
    os_mutex_unlock(&l->lock);
    return left;
}

/* ---- life cycle ---- */

/* SDM Vol. 3A 11.4.7.1. Locked. */
void lapic_reset_regs(struct lapic *l)
{
    atomic_store_explicit(&l->tpr, 0, memory_order_relaxed);
    atomic_store(&l->extint_msg, false);
    l->ldr = 0;
    l->dfr = 0xffffffff;
    l->svr = 0xff;
    l->esr = 0;
    l->esr_pending = 0;
    l->icr = 0;
    memset(l->irr, 0, sizeof(l->irr));
    memset(l->isr, 0, sizeof(l->isr));
    memset(l->tmr, 0, sizeof(l->tmr));
    for (int i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = LVT_MASKED;
    /* Firmware leaves the boot processor in virtual wire mode (MP Specification 3.6.2.2), and what
     * starts without firmware expects it. */
    if (l->id == 0)
        l->lvt[LVT_LINT0] = IRQ_EXTINT << 8;
    lapic_timer_reset(l);
    l->page_old |= LAPIC_OLD_OTHERS;
    lapic_update(l);
    lapic_update_lint0(l);
}

void lapic_reset(struct lapic *l, bool init)
{
    os_mutex_lock(&l->lock);
    if (!l->vcpu) {
        os_mutex_unlock(&l->lock);
        return;
    }
    if (!init)
        l->base = APIC_DEFAULT_BASE | APIC_BASE_ENABLE | (l->id == 0 ? APIC_BASE_BSP : 0);
    lapic_reset_regs(l);
    os_mutex_unlock(&l->lock);
    lapic_timer_apply(l);
}

int lapic_create(struct irqchip *chip, struct vcpu *vcpu, struct lapic **out)
{
    uint32_t id = vcpu_id(vcpu);
    if (id >= VMM_MAX_VCPUS)
        return VMM_E_RANGE;

    struct lapic *l = atomic_load(&chip->lapic[id]);
    if (!l) {
        l = calloc(1, sizeof(*l));
        if (!l)
            return VMM_E_NOMEM;
        l->chip = chip;
        l->id = id;
        if (os_mutex_init(&l->lock)) {
            free(l);
            return VMM_E_NOMEM;
        }
        atomic_store(&chip->lapic[id], l);
    }
    int err = vm_timer_create(chip->vm, lapic_timer_fire, l, &l->timer);
    if (err)
        return err;

    os_mutex_lock(&l->lock);
    l->vcpu = vcpu;
    os_mutex_unlock(&l->lock);
    lapic_reset(l, false);
    *out = l;
    return 0;
}

/* The memory stays with the chip: see struct irqchip. */
void lapic_destroy(struct lapic *l)
{
    if (!l)
        return;
    os_mutex_lock(&l->lock);
    bool present = l->vcpu;
    l->vcpu = NULL;
    atomic_store(&l->extint_open, false);
    atomic_store(&l->intr, false);
    os_mutex_unlock(&l->lock);
    if (!present)
        return;
    vm_timer_destroy(l->timer);
    l->timer = NULL;
}
