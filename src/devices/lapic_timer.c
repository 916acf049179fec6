/* SPDX-License-Identifier: BSD-2-Clause */
/* devices/lapic_timer.c: the timer of a local APIC: one-shot, periodic, TSC deadline. */
#include "devices/irqchip_internal.h"

/*
 * SDM Vol. 3A 11.5.4. The counter is computed from vm_clock and `expiry`, the time at which it
 * reaches zero. What the core's timer should be set to is kept in `armed`; it is only set without
 * the lapic's lock (lapic_timer_apply).
 */

#define MODE_ONE_SHOT 0u
#define MODE_PERIODIC 1u
#define MODE_DEADLINE 2u

/* A periodic timer fires at most this often (ns); shorter periods coalesce, so that a guest cannot
 * keep the host in timer callbacks. */
#define MIN_PERIOD 20000u

static uint32_t mode(const struct lapic *l)
{
    return l->lvt[LVT_TIMER] >> 17 & 3;
}

/* Nanoseconds per tick: 1 to 128 (SDM Vol. 3A figure 11-10). */
static uint64_t tick(const struct lapic *l)
{
    uint32_t code = (l->divide & 3) | (l->divide >> 1 & 4);
    return 1ull << ((code + 1) & 7);
}

static uint64_t period(const struct lapic *l)
{
    return l->init_count * tick(l);
}

/* Advances the expiry of a periodic timer past `now`, on its grid. */
static void catch_up(struct lapic *l, uint64_t now)
{
    uint64_t p = period(l);
    if (l->expiry && l->expiry <= now && p)
        l->expiry += ((now - l->expiry) / p + 1) * p;
}

/* Decides what the core's timer should do. */
static void arm(struct lapic *l, uint64_t now)
{
    l->armed = l->expiry;
    if (mode(l) != MODE_PERIODIC || !l->expiry)
        return;
    if (l->lvt[LVT_TIMER] & LVT_MASKED) {
        l->armed = 0; /* nobody would notice; unmasking catches up */
        return;
    }
    uint64_t p = period(l);
    if (p < MIN_PERIOD && l->expiry < now + MIN_PERIOD)
        l->armed = l->expiry + ((now + MIN_PERIOD - l->expiry) / p + 1) * p;
}

/* The same, unless a firing is due already: then that one comes first and arms the next. */
static void rearm(struct lapic *l, uint64_t now)
{
    if (!l->armed || l->armed > now)
        arm(l, now);
}

static void disarm(struct lapic *l)
{
    l->expiry = 0;
    l->tsc_deadline = 0;
    l->armed = 0;
}

void lapic_timer_reset(struct lapic *l)
{
    l->divide = 0;
    l->init_count = 0;
    disarm(l);
}

uint32_t lapic_timer_count(struct lapic *l, uint64_t now)
{
    if (mode(l) == MODE_DEADLINE || !l->expiry)
        return 0;
    if (mode(l) == MODE_PERIODIC)
        catch_up(l, now);
    if (l->expiry <= now)
        return 0;
    uint64_t ticks = (l->expiry - now + tick(l) - 1) / tick(l);
    return ticks > l->init_count ? l->init_count : (uint32_t)ticks;
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t value, uint64_t now)
{
    uint32_t old = mode(l);
    if (old == MODE_ONE_SHOT && l->expiry <= now)
        l->expiry = 0; /* it has run down: becoming periodic does not start it again */
    l->lvt[LVT_TIMER] = value;
    /* One-shot and periodic share the counter, which goes on; a change from or to the deadline mode
     * disarms. */
    if (old != mode(l) && (old >= MODE_DEADLINE || mode(l) >= MODE_DEADLINE)) {
        l->init_count = 0;
        disarm(l);
    }
    if (mode(l) == MODE_PERIODIC)
        catch_up(l, now);
    if (l->expiry)
        rearm(l, now);
}

void lapic_timer_set_count(struct lapic *l, uint32_t value, uint64_t now)
{
    if (mode(l) >= MODE_DEADLINE)
        return; /* ignored in TSC-deadline mode */
    l->init_count = value;
    l->expiry = value ? now + period(l) : 0;
    arm(l, now);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t value, uint64_t now)
{
    uint32_t count = lapic_timer_count(l, now);
    l->divide = value;
    if (!count || mode(l) >= MODE_DEADLINE)
        return;
    l->expiry = now + count * tick(l);
    rearm(l, now);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc, uint64_t expiry, uint64_t now)
{
    if (mode(l) != MODE_DEADLINE)
        return; /* SDM Vol. 3A 11.5.4.1: ignored in the other modes */
    disarm(l);
    if (tsc && expiry <= now) {
        lapic_local(l, LVT_TIMER);
    } else if (tsc) {
        l->tsc_deadline = tsc;
        l->expiry = expiry;
        l->armed = expiry;
    }
}

void lapic_timer_fire(void *opaque, uint64_t deadline)
{
    struct lapic *l = opaque;
    uint64_t now = vm_clock(l->chip->vm);

    os_mutex_lock(&l->lock);
    uint64_t tsc_deadline = l->vcpu && l->armed == deadline ? l->tsc_deadline : 0;
    struct vcpu *vcpu = l->vcpu;
    os_mutex_unlock(&l->lock);
    /* The guest may have set its TSC back since; lapic_destroy waits for us, so vcpu is alive. */
    uint64_t later = 0;
    if (tsc_deadline && core_vcpu_tsc(vcpu) < tsc_deadline) {
        later = core_tsc_deadline(vcpu, tsc_deadline);
        if (later <= now)
            later = now + 1;
    }

    os_mutex_lock(&l->lock);
    if (l->vcpu && l->armed == deadline && l->tsc_deadline == tsc_deadline) {
        l->armed = 0;
        if (later) {
            l->expiry = later;
            l->armed = later;
        } else {
            lapic_local(l, LVT_TIMER);
            if (mode(l) == MODE_PERIODIC) {
                catch_up(l, now);
                arm(l, now);
            } else {
                disarm(l);
            }
        }
    }
    os_mutex_unlock(&l->lock);
    lapic_timer_apply(l);
}

/*
 * Several threads may get here at once (the owner and a firing timer). Each checks after setting
 * that what it set is still wanted, so the last one to set the core's timer leaves it right.
 */
void lapic_timer_apply(struct lapic *l)
{
    uint64_t set = 0;
    bool first = true;

    for (;;) {
        os_mutex_lock(&l->lock);
        uint64_t want = l->vcpu ? l->armed : 0;
        os_mutex_unlock(&l->lock);
        if (!first && want == set)
            return;
        if (want)
            vm_timer_set(l->timer, want);
        else
            vm_timer_cancel(l->timer);
        set = want;
        first = false;
    }
}
