/* SPDX-License-Identifier: BSD-2-Clause */
/* pit.c: 8254 programmable interval timer (Intel 231164) and port 0x61 of the PC.
 *
 * Nothing counts down here: a counter is the tick at which its count was loaded, and its value and
 * its OUT pin follow from the clock. Ticks are absolute periods of 1.193182 MHz since the VM
 * began, so that nothing drifts. Only counter 0 has a timer, for the rising edges of its OUT on
 * interrupt line 0; they are delivered as a short low followed by high, whatever the duty cycle.
 * Ticks that the guest could not take: see TICKS_MAX_BEHIND. */
#include <pthread.h>
#include <stdlib.h>

#include "device.h"
#include "pc_timers.h"

#define PIT_HZ     1193182u
#define PIT_PORT   0x40
#define PIT_LINE   0
#define PORT_B     0x61
#define NEVER      UINT64_MAX
#define REFRESH_NS 15085u /* DRAM refresh: bit 4 of port 0x61 toggles */
#define MIN_TICKS  ((uint64_t)TICKS_MIN_NS * PIT_HZ / NS_PER_SEC)

#define PORTB_GATE2  0x01u
#define PORTB_RW     0x0fu
#define PORTB_TOGGLE 0x10u
#define PORTB_OUT2   0x20u

/* Read/write format of a counter (control word bits 5:4). */
enum { RW_LATCH = 0, RW_LSB = 1, RW_MSB = 2, RW_WORD = 3 };

/* Control and status word fields. */
#define CW_BCD       0x01u
#define CW_READ_BACK 3u
#define ST_OUT       0x80u
#define ST_NULL      0x40u

struct counter {
    uint8_t mode, rw, bcd, gate;
    uint8_t loaded;    /* a count was written since the control word */
    uint8_t running;   /* start is valid: counting, or held by the gate */
    uint8_t write_msb; /* the next write is the second byte */
    uint8_t read_msb;  /* the next read is the second byte */
    uint8_t write_lsb; /* first byte of a two-byte write */
    uint8_t latched;   /* bytes of the latched count left to read */
    uint8_t status_latched, status;
    uint16_t latch;
    uint32_t count;      /* periods: 1 .. 0x10000 */
    uint8_t write_high;  /* mode 3: next_count was written during the high half */
    uint32_t next_count; /* of a periodic mode, from the next (half) period on; 0: none */
    uint64_t start;      /* tick at which `count` was loaded */
    uint64_t held;       /* gate low in modes 0 and 4: periods counted so far */
};

struct pit {
    struct vm *vm;
    pthread_mutex_t lock;
    struct pio *pio, *portb_pio;
    struct vmm_timer *timer;
    struct counter counters[3];
    uint64_t next_edge; /* of counter 0's OUT, in ticks */
    uint8_t portb;
    uint8_t connected;
};

static uint64_t pit_ticks(const struct pit *pit)
{
    return ns_to_ticks(vm_clock(pit->vm), PIT_HZ);
}

/* ---- Counters ---- */

static int is_periodic(const struct counter *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* Modes 1 and 5 start at a rising gate, not when the count is written. */
static int is_triggered(const struct counter *c)
{
    return c->mode == 1 || c->mode == 5;
}

/* Mode 3 spends the odd period, if there is one, in the high half. */
static uint64_t high_half(const struct counter *c)
{
    return (c->count + 1) / 2;
}

/* Lets a count that was written during a period take effect at that (half) period's end. `start` is
 * the start of the period in which it was written (counter_load). */
static void counter_sync(struct counter *c, uint64_t now)
{
    uint64_t elapsed = now - c->start;

    if (!c->running || !c->next_count || !c->gate || !is_periodic(c))
        return;
    if (c->mode == 3 && c->write_high && elapsed >= high_half(c)) {
        c->start += high_half(c); /* the low half has the new count already */
        c->count = c->next_count;
        c->start -= high_half(c);
        c->next_count = 0;
    } else if (elapsed >= c->count) {
        c->start += c->count;
        c->count = c->next_count;
        c->next_count = 0;
    }
}

/* Periods since the count was loaded. */
static uint64_t elapsed_ticks(const struct counter *c, uint64_t now)
{
    if (!c->running)
        return 0;
    if (!c->gate && !is_triggered(c))
        return c->held;
    return (int64_t)(now - c->start) > 0 ? now - c->start : 0;
}

static int counter_out(const struct counter *c, uint64_t now)
{
    uint64_t d = elapsed_ticks(c, now);

    if (!c->running)
        return c->mode != 0;
    switch (c->mode) {
    case 0:
    case 1:
        return d >= c->count;
    case 2:
        return !c->gate || d % c->count != c->count - 1u || c->count == 1;
    case 3:
        return !c->gate || d % c->count < high_half(c);
    default: /* 4 and 5: low for one period when the count is over */
        return d != c->count;
    }
}

/* The counting element, as a read sees it. */
static uint16_t counter_value(const struct counter *c, uint64_t now)
{
    uint64_t d = elapsed_ticks(c, now);
    uint32_t modulus = c->bcd ? 10000 : 0x10000, v;

    if (c->mode == 3) {
        uint64_t phase = d % c->count;
        if (phase >= high_half(c))
            phase -= high_half(c);
        v = (c->count & ~1u) - 2 * (uint32_t)phase;
    } else if (c->mode == 2) {
        v = c->count - (uint32_t)(d % c->count);
    } else {
        v = (c->count + modulus - (uint32_t)(d % modulus)) % modulus;
    }
    v %= modulus;
    if (c->bcd)
        v = v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
    return (uint16_t)v;
}

static uint32_t decode_count(const struct counter *c, uint16_t value)
{
    uint32_t n = value;

    if (c->bcd)
        n = (value >> 12) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u +
            (value & 15);
    return n ? n : c->bcd ? 10000 : 0x10000;
}

/* A full count was written. */
static void counter_load(struct counter *c, uint16_t value, uint64_t now)
{
    uint32_t count = decode_count(c, value);

    c->loaded = 1;
    if (is_triggered(c) && c->running) {
        c->next_count = count; /* for the next trigger */
    } else if (is_triggered(c)) {
        c->count = count;
    } else if (is_periodic(c) && c->running) {
        counter_sync(c, now);
        if (c->gate)
            c->start = now - (now - c->start) % c->count;
        c->next_count = count;
        c->write_high = now - c->start < high_half(c);
    } else {
        c->count = count;
        c->start = now;
        c->held = 0;
        c->running = 1;
    }
}

static void counter_gate(struct counter *c, int gate, uint64_t now)
{
    if (gate == c->gate)
        return;
    counter_sync(c, now);
    if (gate) {
        if (is_triggered(c)) {
            if (c->next_count)
                c->count = c->next_count;
            c->next_count = 0;
            c->running = c->loaded;
            c->start = now;
        } else if (is_periodic(c)) {
            if (c->next_count)
                c->count = c->next_count;
            c->next_count = 0;
            c->start = now;
        } else {
            c->start = now - c->held;
        }
    } else if (!is_triggered(c)) {
        c->held = elapsed_ticks(c, now);
    }
    c->gate = (uint8_t)gate;
}

static void counter_control(struct counter *c, uint8_t word)
{
    uint8_t mode = word >> 1 & 7;

    c->mode = mode > 5 ? mode - 4 : mode; /* 6 and 7 are 2 and 3 */
    c->rw = word >> 4 & 3;
    c->bcd = word & CW_BCD;
    c->loaded = c->running = 0;
    c->write_msb = c->read_msb = 0;
    c->latched = c->status_latched = 0;
    c->next_count = 0;
    c->held = 0;
}

static void counter_latch(struct counter *c, uint64_t now)
{
    if (c->latched)
        return; /* the first latch holds until it is read */
    c->latch = counter_value(c, now);
    c->latched = c->rw == RW_WORD ? 2 : 1;
}

static void counter_latch_status(struct counter *c, uint64_t now)
{
    if (c->status_latched)
        return;
    c->status_latched = 1;
    c->status =
        (uint8_t)((counter_out(c, now) ? ST_OUT : 0) | (!c->loaded || c->next_count ? ST_NULL : 0) |
                  c->rw << 4 | c->mode << 1 | c->bcd);
}

static uint8_t counter_read(struct counter *c, uint64_t now)
{
    uint16_t v;

    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    if (c->latched) {
        if (c->rw == RW_WORD && c->latched == 2) {
            c->latched = 1;
            return (uint8_t)c->latch;
        }
        c->latched = 0;
        return (uint8_t)(c->rw == RW_LSB ? c->latch : c->latch >> 8);
    }
    v = counter_value(c, now);
    if (c->rw == RW_WORD) {
        c->read_msb ^= 1;
        return (uint8_t)(c->read_msb ? v : v >> 8);
    }
    return (uint8_t)(c->rw == RW_MSB ? v >> 8 : v);
}

static void counter_write(struct counter *c, uint8_t value, uint64_t now)
{
    switch (c->rw) {
    case RW_LSB:
        counter_load(c, value, now);
        break;
    case RW_MSB:
        counter_load(c, (uint16_t)(value << 8), now);
        break;
    default:
        if (!c->write_msb) {
            c->write_lsb = value;
            c->write_msb = 1;
            if (c->mode == 0)
                c->running = 0; /* the first byte stops the count and sets OUT low */
            c->loaded = 0;
            break;
        }
        c->write_msb = 0;
        counter_load(c, (uint16_t)(value << 8 | c->write_lsb), now);
        break;
    }
}

/* ---- Interrupt line 0 ---- */

/* The first rising edge of OUT after tick `now`, or NEVER. */
static uint64_t counter_next_edge(const struct counter *c, uint64_t now)
{
    if (!c->running)
        return NEVER;
    if (is_periodic(c) && c->mode == 3 && c->next_count && c->write_high)
        return c->start + high_half(c) + c->next_count / 2;
    if (is_periodic(c))
        return c->start + ((now - c->start) / c->count + 1) * c->count;
    uint64_t edge = c->start + c->count + (c->mode >= 4);
    return edge > now ? edge : NEVER;
}

static void pit_arm(struct pit *pit, uint64_t not_before)
{
    uint64_t ns;

    if (pit->next_edge == NEVER) {
        vm_timer_cancel(pit->timer);
        return;
    }
    ns = ticks_to_ns(pit->next_edge, PIT_HZ);
    vm_timer_set(pit->timer, ns > not_before ? ns : not_before);
}

/* After the guest changed counter 0. */
static void pit_reprogram(struct pit *pit, uint64_t now)
{
    struct counter *c = &pit->counters[0];

    if (pit->connected && !counter_out(c, now) && !is_periodic(c))
        vm_irq_set(pit->vm, PIT_LINE, 0);
    pit->next_edge = counter_next_edge(c, now);
    pit_arm(pit, 0);
}

static void pit_fire(void *opaque, uint64_t deadline)
{
    struct pit *pit = opaque;
    struct counter *c = &pit->counters[0];
    uint64_t now, clock;

    (void)deadline;
    pthread_mutex_lock(&pit->lock);
    clock = vm_clock(pit->vm);
    now = ns_to_ticks(clock, PIT_HZ);
    if (pit->next_edge == NEVER || now < pit->next_edge) {
        pit_arm(pit, 0); /* set anew while this call was on its way */
    } else {
        uint64_t edge = pit->next_edge, behind = now - edge, not_before = 0;

        if (pit->connected) {
            vm_irq_set(pit->vm, PIT_LINE, 0);
            vm_irq_set(pit->vm, PIT_LINE, 1);
        }
        counter_sync(c, edge);
        if (!is_periodic(c)) {
            pit->next_edge = NEVER;
        } else if (c->count < MIN_TICKS || behind > (uint64_t)c->count * TICKS_MAX_BEHIND) {
            uint64_t from = now > edge + MIN_TICKS ? now : edge + MIN_TICKS;
            pit->next_edge = counter_next_edge(c, from);
        } else {
            pit->next_edge = counter_next_edge(c, edge);
            if (pit->next_edge <= now)
                not_before = clock + ticks_to_ns(c->count, PIT_HZ) / 4;
        }
        pit_arm(pit, not_before);
    }
    pthread_mutex_unlock(&pit->lock);
}

void pit_connect(struct pit *pit, int connected)
{
    pthread_mutex_lock(&pit->lock);
    pit->connected = (uint8_t)connected;
    pthread_mutex_unlock(&pit->lock);
}

/* ---- Ports ---- */

static void pit_control(struct pit *pit, uint8_t word, uint64_t now)
{
    uint32_t select = word >> 6;

    if (select == CW_READ_BACK) {
        for (uint32_t i = 0; i < 3; i++) {
            struct counter *c = &pit->counters[i];
            if (!(word & 2u << i))
                continue;
            counter_sync(c, now);
            if (!(word & 0x20))
                counter_latch(c, now);
            if (!(word & 0x10))
                counter_latch_status(c, now);
        }
    } else if ((word >> 4 & 3) == RW_LATCH) {
        counter_sync(&pit->counters[select], now);
        counter_latch(&pit->counters[select], now);
    } else {
        counter_control(&pit->counters[select], word);
        if (select == 0)
            pit_reprogram(pit, now);
    }
}

static int pit_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct pit *pit = opaque;
    uint64_t now;

    (void)size;
    if (offset == 3)
        return VMM_IO_NOBODY; /* the control word cannot be read */
    pthread_mutex_lock(&pit->lock);
    now = pit_ticks(pit);
    counter_sync(&pit->counters[offset], now);
    *value = counter_read(&pit->counters[offset], now);
    pthread_mutex_unlock(&pit->lock);
    return VMM_IO_OK;
}

static int pit_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct pit *pit = opaque;
    uint64_t now;

    (void)size;
    pthread_mutex_lock(&pit->lock);
    now = pit_ticks(pit);
    if (offset == 3) {
        pit_control(pit, (uint8_t)value, now);
    } else {
        counter_write(&pit->counters[offset], (uint8_t)value, now);
        if (offset == 0)
            pit_reprogram(pit, now);
    }
    pthread_mutex_unlock(&pit->lock);
    return VMM_IO_OK;
}

static int portb_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct pit *pit = opaque;
    uint64_t now;

    (void)offset, (void)size;
    pthread_mutex_lock(&pit->lock);
    now = pit_ticks(pit);
    counter_sync(&pit->counters[2], now);
    *value = pit->portb;
    if (counter_out(&pit->counters[2], now))
        *value |= PORTB_OUT2;
    if (vm_clock(pit->vm) / REFRESH_NS & 1)
        *value |= PORTB_TOGGLE;
    pthread_mutex_unlock(&pit->lock);
    return VMM_IO_OK;
}

static int portb_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct pit *pit = opaque;

    (void)offset, (void)size;
    pthread_mutex_lock(&pit->lock);
    pit->portb = value & PORTB_RW;
    counter_gate(&pit->counters[2], value & PORTB_GATE2, pit_ticks(pit));
    pthread_mutex_unlock(&pit->lock);
    return VMM_IO_OK;
}

/* ---- Life cycle ---- */

/* The chip's state at power-on is undefined; this is a firmware's usual one without a count. */
static void pit_reset(void *opaque)
{
    struct pit *pit = opaque;

    pthread_mutex_lock(&pit->lock);
    for (uint32_t i = 0; i < 3; i++) {
        struct counter *c = &pit->counters[i];
        memset(c, 0, sizeof *c);
        c->mode = 3;
        c->rw = RW_WORD;
        c->count = 0x10000;
        c->gate = i != 2;
    }
    pit->portb = 0;
    pit->connected = 1;
    pit->next_edge = NEVER;
    vm_timer_cancel(pit->timer);
    vm_irq_set(pit->vm, PIT_LINE, 0);
    pthread_mutex_unlock(&pit->lock);
}

static void pit_stop(void *opaque)
{
    struct pit *pit = opaque;

    pio_unregister(pit->pio);
    pio_unregister(pit->portb_pio);
    vm_timer_destroy(pit->timer);
    pthread_mutex_destroy(&pit->lock);
    free(pit);
}

int pit_create(struct vm *vm, struct pit **out)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .max_access = 1,
        .name = "pit",
        .read = pit_read,
        .write = pit_write,
    };
    static const struct vmm_io_ops portb_io = {
        .size = sizeof portb_io,
        .max_access = 1,
        .name = "port61",
        .read = portb_read,
        .write = portb_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "pit", .reset = pit_reset, .stop = pit_stop};
    struct pit *pit = calloc(1, sizeof *pit);
    int r;

    if (!pit)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_pit_create", "no memory");
    pit->vm = vm;
    pthread_mutex_init(&pit->lock, NULL);
    r = vm_timer_create(vm, pit_fire, pit, &pit->timer);
    if (!r) {
        pit_reset(pit);
        r = pio_register(vm, PIT_PORT, 4, &io, pit, &pit->pio);
    }
    if (!r)
        r = pio_register(vm, PORT_B, 1, &portb_io, pit, &pit->portb_pio);
    if (!r)
        r = vm_device_add(vm, &ops, pit, NULL);
    if (r)
        pit_stop(pit);
    else if (out)
        *out = pit;
    return r;
}

int vmm_pit_create(struct vm *vm)
{
    return pit_create(vm, NULL);
}
