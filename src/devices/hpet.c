/* SPDX-License-Identifier: BSD-2-Clause */
/* hpet.c: high precision event timers (IA-PC HPET specification 1.0a).
 *
 * The main counter is the clock in periods of 10 ns plus an offset; it stands still when disabled.
 * A comparator knows the tick, in periods since the VM began, at which the counter will equal it.
 * Whoever looks at the registers first lets the matches happen that are due (hpet_sync), so
 * the comparators and the status never lag behind the counter. A comparator that is set
 * to a value in the past does not match until the counter comes round again, as in the chip.
 * Ticks that the guest could not take: see TICKS_MAX_BEHIND. */
#include <pthread.h>
#include <stdlib.h>

#include <vmm/machine.h>

#include "device.h"
#include "pc_timers.h"

/* 64-bit registers; 32-bit accesses are to their halves. */
enum {
    REG_CAP = 0x000,
    REG_CONFIG = 0x010,
    REG_STATUS = 0x020,
    REG_COUNTER = 0x0f0,
    REG_TIMERS = 0x100, /* 0x20 bytes each: */
    TIMER_CONFIG = 0x00,
    TIMER_COMPARATOR = 0x08,
    TIMER_FSB = 0x10,
    TIMER_REGS = 0x20,
    REGS = 0x400,
};

#define TIMERS     3u
#define PERIOD_NS  10u
#define PERIOD_FS  (PERIOD_NS * 1000000ull)
#define CAPABILITY (PERIOD_FS << 32 | 0x8086a201u) /* revision 1, 64 bits, legacy replacement */

#define CONFIG_ENABLE 1u
#define CONFIG_LEGACY 2u

/* Timer configuration and capabilities. */
#define TN_LEVEL       0x0002u
#define TN_ENABLE      0x0004u
#define TN_PERIODIC    0x0008u
#define TN_PER_CAP     0x0010u
#define TN_SIZE_CAP    0x0020u
#define TN_SET_VALUE   0x0040u
#define TN_32BIT       0x0100u
#define TN_ROUTE_SHIFT 9
#define TN_ROUTE       0x3e00u
#define TN_FSB_ENABLE  0x4000u
#define TN_FSB_CAP     0x8000u
#define TN_WRITABLE                                                                                \
    (TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_SET_VALUE | TN_32BIT | TN_ROUTE | TN_FSB_ENABLE)
#define TN_ROUTES 0x00f00000ull /* IOAPIC inputs 20-23, which nothing else uses */
#define TN_CAPS   (TN_ROUTES << 32 | TN_FSB_CAP | TN_SIZE_CAP | TN_PER_CAP)

/* Messages go to the local APICs; elsewhere they would be writes to memory. */
#define MSI_WINDOW 0xfee00000u
#define MSI_OFFSET 0x000fffffu

#define LINE_PIT  0u
#define LINE_RTC  8u
#define LINE_NONE VMM_IRQ_LINES

#define NEVER     UINT64_MAX
#define MIN_TICKS (TICKS_MIN_NS / PERIOD_NS)

struct hpet;

struct comparator {
    struct hpet *hpet;
    struct vmm_timer *timer;
    uint32_t config;     /* TN_WRITABLE bits */
    uint64_t value;      /* of the register: where it matches next */
    uint64_t period;     /* last value written in periodic mode */
    uint64_t match;      /* tick at which the counter equals value, or NEVER */
    uint64_t not_before; /* ns: ticks that are made up for come at a limited rate */
    uint64_t fsb;
};

struct hpet {
    struct vm *vm;
    pthread_mutex_t lock;
    struct mmio *mmio;
    struct pit *pit;
    struct vmm_rtc *rtc;
    uint64_t config;
    uint32_t status;
    uint64_t counter; /* while disabled; else what is added to the ticks */
    int legacy;       /* the legacy replacement route is in force */
    int level[VMM_IRQ_LINES];
    struct comparator comparators[TIMERS];
};

static int is_enabled(const struct hpet *h)
{
    return (h->config & CONFIG_ENABLE) != 0;
}

static uint64_t counter_at(const struct hpet *h, uint64_t tick)
{
    return is_enabled(h) ? tick + h->counter : h->counter;
}

static uint64_t value_mask(const struct comparator *c)
{
    return c->config & TN_32BIT ? 0xffffffffu : UINT64_MAX;
}

static uint32_t index_of(const struct comparator *c)
{
    return (uint32_t)(c - c->hpet->comparators);
}

/* ---- Interrupts ---- */

/* The line that the comparator drives, or LINE_NONE for messages and routes that do not exist. */
static uint32_t line_of(const struct comparator *c)
{
    uint32_t route = (c->config & TN_ROUTE) >> TN_ROUTE_SHIFT;

    if (c->hpet->legacy && index_of(c) == 0)
        return LINE_PIT;
    if (c->hpet->legacy && index_of(c) == 1)
        return LINE_RTC;
    if (c->config & TN_FSB_ENABLE)
        return LINE_NONE;
    return TN_ROUTES >> route & 1 ? route : LINE_NONE;
}

/* Level-triggered comparators may share a line: it is asserted while one of them is active. */
static void update_levels(struct hpet *h)
{
    int level[VMM_IRQ_LINES] = {0};

    for (uint32_t i = 0; i < TIMERS; i++) {
        const struct comparator *c = &h->comparators[i];
        uint32_t line = line_of(c);
        if (line != LINE_NONE && is_enabled(h) && (c->config & TN_ENABLE) && (h->status >> i & 1))
            level[line] = 1;
    }
    for (uint32_t i = 0; i < VMM_IRQ_LINES; i++) {
        if (level[i] != h->level[i])
            vm_irq_set(h->vm, i, level[i]);
        h->level[i] = level[i];
    }
}

static void signal_match(struct comparator *c)
{
    struct hpet *h = c->hpet;
    uint32_t line = line_of(c);

    if (c->config & TN_LEVEL) {
        h->status |= 1u << index_of(c);
        update_levels(h);
        if (line != LINE_NONE || !(c->config & TN_FSB_ENABLE))
            return;
    }
    if (!(c->config & TN_ENABLE))
        return;
    if (line != LINE_NONE) {
        if (!h->level[line])
            vm_irq_pulse(h->vm, line);
    } else if ((c->config & TN_FSB_ENABLE) && (c->fsb >> 32 & ~MSI_OFFSET) == MSI_WINDOW) {
        vm_irq_msi(h->vm, c->fsb >> 32, (uint32_t)c->fsb);
    }
}

/* While the legacy route is in force the 8254 and the RTC are disconnected from their lines. */
static void update_legacy(struct hpet *h)
{
    int legacy = (h->config & (CONFIG_ENABLE | CONFIG_LEGACY)) == (CONFIG_ENABLE | CONFIG_LEGACY);

    if (legacy == h->legacy)
        return;
    if (legacy) {
        if (h->pit)
            pit_connect(h->pit, 0);
        if (h->rtc)
            rtc_connect(h->rtc, 0);
        vm_irq_set(h->vm, LINE_PIT, 0);
        vm_irq_set(h->vm, LINE_RTC, 0);
        h->legacy = 1;
        update_levels(h);
    } else {
        h->legacy = 0;
        update_levels(h);
        if (h->pit)
            pit_connect(h->pit, 1);
        if (h->rtc)
            rtc_connect(h->rtc, 1);
    }
}

/* ---- Matches ---- */

/* Computes when the counter will equal the comparator. */
static void comparator_start(struct comparator *c, uint64_t tick)
{
    uint64_t away = (c->value - counter_at(c->hpet, tick)) & value_mask(c);

    c->not_before = 0;
    c->match = is_enabled(c->hpet) && away < NEVER - tick ? tick + away : NEVER;
}

/* The comparator moves on by so many periods. */
static void comparator_advance(struct comparator *c, uint64_t periods)
{
    uint64_t ticks = periods * c->period;

    c->value = (c->value + ticks) & value_mask(c);
    c->match = ticks < NEVER - c->match ? c->match + ticks : NEVER;
}

/* Lets the match happen and finds the next one. */
static void comparator_match(struct comparator *c, uint64_t tick, uint64_t clock)
{
    uint64_t behind = tick - c->match;

    signal_match(c);
    c->not_before = 0;
    if (!(c->config & TN_PERIODIC)) {
        /* 32 bits come round, 64 bits take 5800 years. */
        c->match =
            c->config & TN_32BIT ? c->match + (behind & ~0xffffffffull) + (1ull << 32) : NEVER;
    } else if (!c->period) {
        c->match = NEVER;
    } else if (c->period < MIN_TICKS || behind / c->period > TICKS_MAX_BEHIND) {
        uint64_t least = behind > MIN_TICKS ? behind : MIN_TICKS;
        comparator_advance(c, least / c->period + 1);
    } else {
        comparator_advance(c, 1);
        if (c->match <= tick)
            c->not_before = clock + c->period * PERIOD_NS / 4;
    }
}

static int is_due(const struct comparator *c, uint64_t tick, uint64_t clock)
{
    return c->match <= tick && c->not_before <= clock;
}

static void comparator_arm(struct comparator *c)
{
    uint64_t ns = c->match <= NEVER / PERIOD_NS ? c->match * PERIOD_NS : NEVER;

    if (ns == NEVER)
        vm_timer_cancel(c->timer);
    else
        vm_timer_set(c->timer, ns > c->not_before ? ns : c->not_before);
}

/* Brings everything up to now. Returns the tick that now is. */
static uint64_t hpet_sync(struct hpet *h)
{
    uint64_t clock = vm_clock(h->vm), tick = clock / PERIOD_NS;

    for (uint32_t i = 0; i < TIMERS; i++) {
        struct comparator *c = &h->comparators[i];
        if (!is_due(c, tick, clock))
            continue;
        comparator_match(c, tick, clock);
        comparator_arm(c);
    }
    return tick;
}

static void hpet_fire(void *opaque, uint64_t deadline)
{
    struct comparator *c = opaque;
    struct hpet *h = c->hpet;

    (void)deadline;
    pthread_mutex_lock(&h->lock);
    hpet_sync(h);
    comparator_arm(c); /* also if it was set anew while this call was on its way */
    pthread_mutex_unlock(&h->lock);
}

/* ---- Registers ---- */

static uint64_t insert(uint64_t old, uint64_t value, uint64_t mask)
{
    return (old & ~mask) | (value & mask);
}

static void restart_all(struct hpet *h, uint64_t tick)
{
    for (uint32_t i = 0; i < TIMERS; i++) {
        comparator_start(&h->comparators[i], tick);
        comparator_arm(&h->comparators[i]);
    }
}

static void write_config(struct hpet *h, uint64_t value, uint64_t mask, uint64_t tick)
{
    uint64_t count = counter_at(h, tick), old = h->config;

    h->config = insert(old, value, mask & (CONFIG_ENABLE | CONFIG_LEGACY));
    if ((old ^ h->config) & CONFIG_ENABLE) {
        h->counter = is_enabled(h) ? count - tick : count;
        restart_all(h, tick);
        update_levels(h);
    }
    update_legacy(h);
}

static void write_counter(struct hpet *h, uint64_t value, uint64_t mask, uint64_t tick)
{
    uint64_t count = insert(counter_at(h, tick), value, mask);

    h->counter = is_enabled(h) ? count - tick : count;
    restart_all(h, tick);
}

static void write_timer_config(struct comparator *c, uint64_t value, uint64_t mask, uint64_t tick)
{
    uint32_t old = c->config;

    c->config = (uint32_t)insert(old, value, mask & TN_WRITABLE);
    if (!(c->config & TN_LEVEL))
        c->hpet->status &= ~(1u << index_of(c));
    if ((old ^ c->config) & (TN_32BIT | TN_PERIODIC)) {
        c->value &= value_mask(c);
        c->period &= value_mask(c);
        comparator_start(c, tick);
        comparator_arm(c);
    }
    update_levels(c->hpet);
}

/* In periodic mode a write gives the period; the comparator itself only takes it after
 * Tn_VAL_SET_CNF was set, which counts for one write (2.3.9.2.2). */
static void write_comparator(struct comparator *c, uint64_t value, uint64_t mask, uint64_t tick)
{
    if (c->config & TN_PERIODIC)
        c->period = insert(c->period, value, mask) & value_mask(c);
    if (!(c->config & TN_PERIODIC) || (c->config & TN_SET_VALUE)) {
        c->value = insert(c->value, value, mask) & value_mask(c);
        comparator_start(c, tick);
    } else if (c->match == NEVER) {
        comparator_start(c, tick);
    }
    c->config &= ~TN_SET_VALUE;
    comparator_arm(c);
}

static struct comparator *comparator_of(struct hpet *h, uint32_t reg)
{
    return reg >= REG_TIMERS && reg < REG_TIMERS + TIMERS * TIMER_REGS
               ? &h->comparators[(reg - REG_TIMERS) / TIMER_REGS]
               : NULL;
}

static uint64_t read_timer(const struct comparator *c, uint32_t reg)
{
    switch (reg) {
    case TIMER_CONFIG:
        return TN_CAPS | (c->config & ~TN_SET_VALUE);
    case TIMER_COMPARATOR:
        return c->value;
    case TIMER_FSB:
        return c->fsb;
    default:
        return 0;
    }
}

static void write_timer(struct comparator *c, uint32_t reg, uint64_t value, uint64_t mask,
                        uint64_t tick)
{
    switch (reg) {
    case TIMER_CONFIG:
        write_timer_config(c, value, mask, tick);
        break;
    case TIMER_COMPARATOR:
        write_comparator(c, value, mask, tick);
        break;
    case TIMER_FSB:
        c->fsb = insert(c->fsb, value, mask);
        break;
    default:
        break;
    }
}

static uint64_t read_reg(struct hpet *h, uint32_t reg, uint64_t tick)
{
    const struct comparator *c = comparator_of(h, reg);

    if (c)
        return read_timer(c, reg % TIMER_REGS);
    switch (reg) {
    case REG_CAP:
        return CAPABILITY;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return counter_at(h, tick);
    default:
        return 0;
    }
}

static void write_reg(struct hpet *h, uint32_t reg, uint64_t value, uint64_t mask, uint64_t tick)
{
    struct comparator *c = comparator_of(h, reg);

    if (c) {
        write_timer(c, reg % TIMER_REGS, value, mask, tick);
        return;
    }
    switch (reg) {
    case REG_CONFIG:
        write_config(h, value, mask, tick);
        break;
    case REG_STATUS:
        h->status &= ~(uint32_t)(value & mask);
        update_levels(h);
        break;
    case REG_COUNTER:
        write_counter(h, value, mask, tick);
        break;
    default:
        break;
    }
}

static int hpet_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct hpet *h = opaque;

    (void)size;
    pthread_mutex_lock(&h->lock);
    *value = read_reg(h, (uint32_t)offset & ~7u, hpet_sync(h)) >> (offset & 4 ? 32 : 0);
    pthread_mutex_unlock(&h->lock);
    return VMM_IO_OK;
}

static int hpet_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct hpet *h = opaque;
    uint32_t shift = offset & 4 ? 32 : 0;
    uint64_t mask = size == 8 ? UINT64_MAX : 0xffffffffull << shift;

    pthread_mutex_lock(&h->lock);
    write_reg(h, (uint32_t)offset & ~7u, value << shift, mask, hpet_sync(h));
    pthread_mutex_unlock(&h->lock);
    return VMM_IO_OK;
}

/* ---- Life cycle ---- */

static void hpet_reset(void *opaque)
{
    struct hpet *h = opaque;

    pthread_mutex_lock(&h->lock);
    h->config = h->counter = h->status = 0;
    update_legacy(h);
    for (uint32_t i = 0; i < TIMERS; i++) {
        struct comparator *c = &h->comparators[i];
        c->config = 0;
        c->period = c->fsb = 0;
        c->value = UINT64_MAX;
        c->match = NEVER;
        comparator_arm(c);
    }
    update_levels(h);
    pthread_mutex_unlock(&h->lock);
}

static void hpet_stop(void *opaque)
{
    struct hpet *h = opaque;

    mmio_unregister(h->mmio);
    for (uint32_t i = 0; i < TIMERS; i++)
        vm_timer_destroy(h->comparators[i].timer);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int hpet_create(struct vm *vm, struct pit *pit, struct vmm_rtc *rtc)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .min_access = 4,
        .max_access = 8,
        .name = "hpet",
        .read = hpet_read,
        .write = hpet_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "hpet", .reset = hpet_reset, .stop = hpet_stop};
    struct hpet *h = calloc(1, sizeof *h);
    int r = 0;

    if (!h)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_hpet_create", "no memory");
    h->vm = vm;
    h->pit = pit;
    h->rtc = rtc;
    pthread_mutex_init(&h->lock, NULL);
    for (uint32_t i = 0; i < TIMERS && !r; i++) {
        h->comparators[i].hpet = h;
        r = vm_timer_create(vm, hpet_fire, &h->comparators[i], &h->comparators[i].timer);
    }
    if (!r) {
        hpet_reset(h);
        r = mmio_register(vm, VMM_PC_HPET, REGS, &io, h, &h->mmio);
    }
    if (!r)
        r = vm_device_add(vm, &ops, h, NULL);
    if (r)
        hpet_stop(h);
    return r;
}

int vmm_hpet_create(struct vm *vm)
{
    return hpet_create(vm, NULL, NULL);
}
