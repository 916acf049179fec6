/* SPDX-License-Identifier: BSD-2-Clause */
/* devices/lapic_regs.c: the local APIC's registers, as memory (xAPIC) and as MSRs (x2APIC). */
#include "devices/irqchip_internal.h"

/*
 * SDM Vol. 3A table 11-1 (memory), 11.12 (x2APIC). Registers are numbered by offset / 16, which is
 * also the MSR number - 0x800. Suppression of EOI broadcasts and CMCI are not offered (version).
 */

#define REG_ID      0x02u
#define REG_VERSION 0x03u
#define REG_TPR     0x08u
#define REG_APR     0x09u
#define REG_PPR     0x0au
#define REG_EOI     0x0bu
#define REG_RRD     0x0cu
#define REG_LDR     0x0du
#define REG_DFR     0x0eu
#define REG_SVR     0x0fu
#define REG_ISR     0x10u
#define REG_TMR     0x18u
#define REG_IRR     0x20u
#define REG_ESR     0x28u
#define REG_ICR     0x30u
#define REG_ICR2    0x31u
#define REG_LVT     0x32u
#define REG_TICR    0x38u
#define REG_TCCR    0x39u
#define REG_TDCR    0x3eu
#define REG_SELF    0x3fu
#define REG_COUNT   0x40u

#define VERSION_VALUE (((LVT_COUNT - 1u) << 16) | 0x14u)

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC       0x800u

#define SVR_ENABLE   0x100u
#define SVR_WRITABLE 0x3ffu

#define ICR_LEVEL    0x4000u
#define ICR_TRIGGER  0x8000u
#define ICR_WRITABLE 0x000ccfffu /* delivery status (12) always reads as idle */

/* Access rights: in memory, as an MSR. */
#define MR 1u
#define MW 2u
#define XR 4u
#define XW 8u
#define M  (MR | MW)
#define X  (XR | XW)

/*
 * `allowed`: bits that a WRMSR may set without #GP (read-only ones included).
 * A register without rights in memory sets "illegal register address" in ESR there.
 */
static const struct {
    uint8_t rights;
    uint32_t allowed;
} regs[REG_COUNT] = {
    [REG_ID] = {M | XR, 0},
    [REG_VERSION] = {M | XR, 0},
    [REG_TPR] = {M | X, 0xff},
    [REG_APR] = {M, 0},
    [REG_PPR] = {M | XR, 0},
    [REG_EOI] = {M | XW, 0},
    [REG_RRD] = {M, 0},
    [REG_LDR] = {M | XR, 0},
    [REG_DFR] = {M, 0},
    [REG_SVR] = {M | X, SVR_WRITABLE},
    [REG_ISR... REG_ISR + 7] = {M | XR, 0},
    [REG_TMR... REG_TMR + 7] = {M | XR, 0},
    [REG_IRR... REG_IRR + 7] = {M | XR, 0},
    [REG_ESR] = {M | X, 0},
    [REG_ICR] = {M | X, ICR_WRITABLE | 0x1000},
    [REG_ICR2] = {M, 0},
    [REG_LVT + LVT_TIMER] = {M | X, 0x000710ff},
    [REG_LVT + LVT_THERMAL] = {M | X, 0x000117ff},
    [REG_LVT + LVT_PERF] = {M | X, 0x000117ff},
    [REG_LVT + LVT_LINT0] = {M | X, 0x0001f7ff},
    [REG_LVT + LVT_LINT1] = {M | X, 0x0001f7ff},
    [REG_LVT + LVT_ERROR] = {M | X, 0x000110ff},
    [REG_TICR] = {M | X, 0xffffffff},
    [REG_TCCR] = {M | XR, 0},
    [REG_TDCR] = {M | X, 0xb},
    [REG_SELF] = {XW, 0xff},
};

/* What a register write leaves to do once the lapic's lock is released. */
struct after {
    int eoi; /* vector for the IOAPIC, or -1 */
    bool timer;
    bool ipi;
    struct irq_msg msg;
};

static uint32_t read_ldr(const struct lapic *l)
{
    /* SDM Vol. 3A 11.12.10.2: derived from the id. */
    return lapic_x2apic(l) ? (l->id >> 4) << 16 | 1u << (l->id & 15) : l->ldr;
}

static uint64_t read_reg(struct lapic *l, uint32_t reg, uint64_t now)
{
    switch (reg) {
    case REG_ID:
        return lapic_x2apic(l) ? l->id : l->id << 24;
    case REG_VERSION:
        return VERSION_VALUE;
    case REG_TPR:
        return lapic_tpr(l);
    case REG_APR: /* not used for arbitration since the Pentium; kept equal to its lower bound */
    case REG_PPR:
        return lapic_ppr(l);
    case REG_LDR:
        return read_ldr(l);
    case REG_DFR:
        return l->dfr;
    case REG_SVR:
        return l->svr;
    case REG_ISR ... REG_ISR + 7:
        return l->isr[reg - REG_ISR];
    case REG_TMR ... REG_TMR + 7:
        return l->tmr[reg - REG_TMR];
    case REG_IRR ... REG_IRR + 7:
        return l->irr[reg - REG_IRR];
    case REG_ESR:
        return l->esr;
    case REG_ICR:
        return lapic_x2apic(l) ? l->icr : (uint32_t)l->icr;
    case REG_ICR2:
        return l->icr >> 32;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        return l->lvt[reg - REG_LVT];
    case REG_TICR:
        return l->init_count;
    case REG_TCCR:
        return lapic_timer_count(l, now);
    case REG_TDCR:
        return l->divide;
    default:
        return 0;
    }
}

static void write_svr(struct lapic *l, uint32_t value, struct after *after, uint64_t now)
{
    l->svr = value & SVR_WRITABLE;
    if (l->svr & SVR_ENABLE)
        return;
    /* SDM Vol. 3A 11.4.7.2: all LVT entries are masked and stay so. */
    for (int i = 0; i < LVT_COUNT; i++)
        l->lvt[i] |= LVT_MASKED;
    lapic_timer_set_lvt(l, l->lvt[LVT_TIMER], now);
    lapic_update_lint0(l);
    after->timer = true;
}

static void write_lvt(struct lapic *l, uint32_t entry, uint32_t value, struct after *after,
                      uint64_t now)
{
    /* Delivery status and remote IRR are read-only. */
    uint32_t keep = entry == LVT_LINT0 || entry == LVT_LINT1 ? l->lvt[entry] & LVT_REMOTE_IRR : 0;
    value &= regs[REG_LVT + entry].allowed & ~(0x1000u | LVT_REMOTE_IRR);
    if (!(l->svr & SVR_ENABLE))
        value |= LVT_MASKED;

    if (entry == LVT_TIMER) {
        lapic_timer_set_lvt(l, value, now);
        after->timer = true;
        return;
    }
    l->lvt[entry] = value | (value & LVT_LEVEL ? keep : 0);
    if (entry == LVT_LINT0) {
        lapic_update_lint0(l);
        /* A level-triggered input that is unmasked while it is asserted. */
        if ((value & LVT_LEVEL) && !(value >> 8 & 7) && atomic_load(&l->chip->pic.intr))
            lapic_local(l, LVT_LINT0);
    }
}

/* SDM Vol. 3A 11.6.1. */
static void write_icr(struct lapic *l, struct after *after)
{
    uint32_t low = (uint32_t)l->icr;
    uint8_t vector = (uint8_t)low, mode = low >> 8 & 7;
    uint32_t dest = (uint32_t)(l->icr >> 32);

    if (!lapic_x2apic(l))
        dest = dest >> 24 == 0xff ? IRQ_BROADCAST : dest >> 24;
    if ((mode == IRQ_FIXED || mode == IRQ_LOWEST) && vector < 16) {
        lapic_error(l, ESR_SEND_ILLEGAL);
        return;
    }
    /* INIT level de-assert did something on the Pentium only. */
    if (mode == IRQ_INIT && (low & ICR_TRIGGER) && !(low & ICR_LEVEL))
        return;
    if (mode == 3 || mode == IRQ_EXTINT) /* remote read and ExtINT cannot be sent */
        return;
    after->ipi = true;
    after->msg = (struct irq_msg){
        .dest = dest,
        .mode = mode,
        .vector = vector,
        .shorthand = low >> 18 & 3,
        .logical = low & 0x800,
        .level = false, /* IPIs are edge-triggered: 11.6.1, "Trigger Mode" */
    };
}

static void write_reg(struct lapic *l, uint32_t reg, uint64_t value, uint64_t now,
                      struct after *after)
{
    uint32_t v = (uint32_t)value;

    switch (reg) {
    case REG_TPR:
        atomic_store_explicit(&l->tpr, v & 0xff, memory_order_relaxed);
        lapic_update(l);
        break;
    case REG_EOI:
        after->eoi = lapic_end(l);
        break;
    case REG_LDR:
        l->ldr = v & 0xff000000;
        break;
    case REG_DFR:
        l->dfr = v | 0x0fffffff;
        break;
    case REG_SVR:
        write_svr(l, v, after, now);
        break;
    case REG_ESR: /* a write, of any value, shows what was collected since the last one */
        l->esr = l->esr_pending;
        l->esr_pending = 0;
        break;
    case REG_ICR:
        if (lapic_x2apic(l))
            l->icr = value & (0xffffffff00000000ull | ICR_WRITABLE);
        else
            l->icr = (l->icr & 0xffffffff00000000ull) | (v & ICR_WRITABLE);
        write_icr(l, after);
        break;
    case REG_ICR2:
        l->icr = (uint32_t)l->icr | (uint64_t)(v & 0xff000000) << 32;
        break;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        write_lvt(l, reg - REG_LVT, v, after, now);
        break;
    case REG_TICR:
        lapic_timer_set_count(l, v, now);
        after->timer = true;
        break;
    case REG_TDCR:
        lapic_timer_set_divide(l, v & 0xb, now);
        after->timer = true;
        break;
    case REG_SELF:
        if ((v & 0xff) < 16) {
            lapic_error(l, ESR_SEND_ILLEGAL);
            break;
        }
        after->ipi = true;
        after->msg = (struct irq_msg){.vector = (uint8_t)v, .shorthand = IRQ_TO_SELF};
        break;
    default:
        break; /* read-only */
    }
}

static void run_after(struct lapic *l, const struct after *after)
{
    if (after->timer)
        lapic_timer_apply(l);
    if (after->ipi)
        irqchip_deliver(l->chip, &after->msg, l);
    if (after->eoi >= 0)
        ioapic_eoi(l->chip, (uint8_t)after->eoi);
}

static bool needs_clock(uint32_t reg)
{
    return reg == REG_SVR || reg == REG_LVT + LVT_TIMER || reg >= REG_TICR;
}

static uint64_t clock_for(struct lapic *l, uint32_t reg)
{
    return needs_clock(reg) ? vm_clock(l->chip->vm) : 0;
}

/* ---- a virtual-APIC page ---- */

/* Those that hardware gives the guest (SDM Vol. 3C 29.4.2); the others' accesses exit. */
static const uint8_t lent_regs[] = {
    REG_ID,      REG_VERSION, REG_EOI,     REG_LDR,  REG_DFR,     REG_SVR,
    REG_ESR,     REG_ICR,     REG_ICR2,    REG_LVT,  REG_LVT + 1, REG_LVT + 2,
    REG_LVT + 3, REG_LVT + 4, REG_LVT + 5, REG_TICR, REG_TDCR,
};
_Static_assert(LVT_COUNT == 6, "each LVT entry is in the list");

void lapic_lend_registers(struct lapic *l, uint8_t *page)
{
    if (!l->page_old) /* what is not seen here has not been told yet */
        return;
    os_mutex_lock(&l->lock);
    if (l->page_old & LAPIC_OLD_OTHERS)
        for (size_t i = 0; i < sizeof(lent_regs); i++)
            lapic_put(page, lent_regs[i] * 16u, (uint32_t)read_reg(l, lent_regs[i], 0));
    if (l->page_old & LAPIC_OLD_VECTORS)
        for (uint32_t i = 0; i < 8; i++) {
            lapic_put(page, (REG_ISR + i) * 16, l->isr[i]);
            lapic_put(page, (REG_TMR + i) * 16, l->tmr[i]);
            lapic_put(page, (REG_IRR + i) * 16, l->irr[i]);
        }
    l->page_old = 0;
    os_mutex_unlock(&l->lock);
}

void lapic_take_registers(struct lapic *l, const uint8_t *page)
{
    uint32_t low = lapic_get(page, REG_ICR * 16), high = lapic_get(page, REG_ICR2 * 16);

    l->icr = (low & ICR_WRITABLE) | (uint64_t)(high & 0xff000000) << 32; /* only its owner's */
}

void lapic_written(struct lapic *l, uint8_t *page, uint32_t offset)
{
    uint32_t reg = offset / 16, value = lapic_get(page, offset);
    struct after after = {.eoi = -1};
    uint64_t now = clock_for(l, reg);

    os_mutex_lock(&l->lock);
    write_reg(l, reg, value, now, &after);
    lapic_put(page, offset, (uint32_t)read_reg(l, reg, now));
    if (reg == REG_SVR) /* which masks the LVT */
        l->page_old |= LAPIC_OLD_OTHERS;
    os_mutex_unlock(&l->lock);
    run_after(l, &after);
}

/* ---- xAPIC: memory ---- */

/* The accessing CPU's local APIC if it is at this page. */
static struct lapic *at(const struct lapic_window *w)
{
    struct vcpu *vcpu = vcpu_current(w->chip->vm);
    struct lapic *l = vcpu ? core_vcpu_lapic(vcpu) : NULL;
    /* Only the owner writes its base. */
    if (!l || !lapic_enabled(l) || lapic_x2apic(l) || (l->base & APIC_BASE_ADDR) != w->gpa)
        return NULL;
    return l;
}

/* True, and the error noted, if memory has no such register. Locked. */
static bool illegal(struct lapic *l, uint32_t reg)
{
    if (reg < REG_COUNT && (regs[reg].rights & M))
        return false;
    lapic_error(l, ESR_ILLEGAL_REG);
    return true;
}

static int mmio_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct lapic *l = at(opaque);
    uint32_t reg = (uint32_t)(offset >> 4);
    (void)size;
    if (!l)
        return VMM_IO_NOBODY;

    uint64_t now = clock_for(l, reg), word = 0;
    os_mutex_lock(&l->lock);
    if (!illegal(l, reg) && (offset & 15) < 4)
        word = read_reg(l, reg, now) >> (offset & 3) * 8;
    os_mutex_unlock(&l->lock);
    *value = word;
    return VMM_IO_OK;
}

static int mmio_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct lapic *l = at(opaque);
    uint32_t reg = (uint32_t)(offset >> 4);
    struct after after = {.eoi = -1};
    if (!l)
        return VMM_IO_NOBODY;

    uint64_t now = clock_for(l, reg);
    os_mutex_lock(&l->lock);
    /* 11.4.1: registers are written with aligned 32-bit stores; others are undefined: ignored. */
    l->page_old |= LAPIC_OLD_OTHERS;
    if (!illegal(l, reg) && size == 4 && !(offset & 15))
        write_reg(l, reg, (uint32_t)value, now, &after);
    os_mutex_unlock(&l->lock);
    run_after(l, &after);
    return VMM_IO_OK;
}

static const struct vmm_io_ops lapic_ops = {
    .size = sizeof(struct vmm_io_ops),
    .max_access = 4,
    .name = "lapic",
    .read = mmio_read,
    .write = mmio_write,
};

int lapic_window_init(struct irqchip *chip)
{
    struct lapic_window *w = &chip->default_window;
    w->chip = chip;
    w->gpa = APIC_DEFAULT_BASE;
    return mmio_register(chip->vm, w->gpa, 0x1000, &lapic_ops, w, &w->mmio);
}

void lapic_window_fini(struct irqchip *chip, bool all)
{
    if (all)
        mmio_unregister(chip->default_window.mmio);
    for (uint32_t i = 0; i < LAPIC_WINDOWS; i++) {
        mmio_unregister(chip->window[i].mmio);
        chip->window[i] = (struct lapic_window){0};
    }
}

/* A local APIC has moved to `gpa`. If all windows are in use, or something else is there, its
 * registers cannot be reached. */
static void open_window(struct irqchip *chip, uint64_t gpa)
{
    struct lapic_window *w = NULL;

    if (gpa == APIC_DEFAULT_BASE || !gpa)
        return;
    os_mutex_lock(&chip->window_lock);
    for (uint32_t i = 0; i < LAPIC_WINDOWS; i++) {
        if (chip->window[i].gpa == gpa) {
            os_mutex_unlock(&chip->window_lock);
            return;
        }
        if (!chip->window[i].gpa && !w)
            w = &chip->window[i];
    }
    if (w) {
        w->chip = chip;
        w->gpa = gpa;
    }
    os_mutex_unlock(&chip->window_lock);

    if (w && mmio_register(chip->vm, gpa, 0x1000, &lapic_ops, w, &w->mmio)) {
        os_mutex_lock(&chip->window_lock);
        w->gpa = 0;
        os_mutex_unlock(&chip->window_lock);
    }
}

/* ---- MSRs ---- */

/* SDM Vol. 3A figure 11-27: the modes are off, xAPIC, x2APIC; from x2APIC only to off, and to it
 * only from xAPIC. */
static bool base_change_legal(struct lapic *l, uint64_t value)
{
    const uint64_t mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;
    uint64_t from = l->base & mode, to = value & mode;
    struct vm_caps caps = {.size = sizeof(caps)};

    if (vm_get_caps(l->chip->vm, &caps) || caps.gpa_bits < 36 || caps.gpa_bits > 52)
        caps.gpa_bits = 36;
    if ((value & 0x2ff) || value >> caps.gpa_bits)
        return false;
    if (to == APIC_BASE_X2APIC)
        return false;
    if (from == mode)
        return to == mode || to == 0;
    return from != 0 || to != mode;
}

static int write_base(struct lapic *l, uint64_t value, bool host)
{
    if (!host && !base_change_legal(l, value))
        return -1;
    if (value == l->base)
        return 0;

    os_mutex_lock(&l->lock);
    uint64_t old = l->base;
    l->base = value;
    if ((old ^ value) & APIC_BASE_ENABLE) {
        /* 11.4.3: disabling loses the state; the processor priority stays CR8's. */
        uint32_t tpr = lapic_tpr(l);
        lapic_reset_regs(l);
        if (!lapic_enabled(l))
            atomic_store_explicit(&l->tpr, tpr, memory_order_relaxed);
    } else if (lapic_x2apic(l)) {
        l->icr &= 0xffffffffu; /* 11.12.2: the upper half of the ICR is not kept */
    }
    lapic_update(l);
    lapic_update_lint0(l);
    os_mutex_unlock(&l->lock);

    lapic_timer_apply(l);
    if (value & APIC_BASE_ENABLE)
        open_window(l->chip, value & APIC_BASE_ADDR);
    return 0;
}

static int write_deadline(struct lapic *l, uint64_t tsc)
{
    uint64_t now = vm_clock(l->chip->vm), expiry = 0;
    if (tsc)
        expiry = core_vcpu_tsc(l->vcpu) >= tsc ? now : core_tsc_deadline(l->vcpu, tsc);
    os_mutex_lock(&l->lock);
    lapic_timer_set_deadline(l, tsc, expiry, now);
    os_mutex_unlock(&l->lock);
    lapic_timer_apply(l);
    return 0;
}

/* The register that an x2APIC MSR names, or REG_COUNT if it has none of the rights. */
static uint32_t msr_reg(const struct lapic *l, uint32_t index, uint8_t rights)
{
    uint32_t reg = index - MSR_X2APIC;
    if (index < MSR_X2APIC || reg >= REG_COUNT || !lapic_x2apic(l) || !(regs[reg].rights & rights))
        return REG_COUNT;
    return reg;
}

int lapic_read_msr(struct lapic *l, uint32_t index, uint64_t *value)
{
    if (index == MSR_APIC_BASE) {
        *value = l->base;
        return 0;
    }
    if (index == MSR_TSC_DEADLINE) {
        os_mutex_lock(&l->lock);
        *value = l->tsc_deadline;
        os_mutex_unlock(&l->lock);
        return 0;
    }
    uint32_t reg = msr_reg(l, index, XR);
    if (reg == REG_COUNT)
        return -1;
    uint64_t now = clock_for(l, reg);
    os_mutex_lock(&l->lock);
    *value = read_reg(l, reg, now);
    os_mutex_unlock(&l->lock);
    return 0;
}

int lapic_write_msr(struct lapic *l, uint32_t index, uint64_t value, bool host)
{
    if (index == MSR_APIC_BASE)
        return write_base(l, value, host);
    if (index == MSR_TSC_DEADLINE)
        return write_deadline(l, value);

    uint32_t reg = msr_reg(l, index, XW);
    if (reg == REG_COUNT)
        return -1;
    uint64_t allowed = regs[reg].allowed;
    if (reg == REG_ICR)
        allowed |= 0xffffffff00000000ull;
    if (!host && (value & ~allowed))
        return -1;

    struct after after = {.eoi = -1};
    uint64_t now = clock_for(l, reg);
    os_mutex_lock(&l->lock);
    l->page_old |= LAPIC_OLD_OTHERS;
    write_reg(l, reg, value, now, &after);
    os_mutex_unlock(&l->lock);
    run_after(l, &after);
    return 0;
}
