/* SPDX-License-Identifier: BSD-2-Clause */
/* core/clock.c: guest time: the VM's clock, which pauses stop, and the TSCs that follow it. */
#include "core/internal.h"

/* ---- vm_clock ---- */

void core_clock_init(struct vm *vm)
{
    atomic_store(&vm->clock_base, os_now());
    /* Rounded to nearest: an error of less than 10^-9 for any frequency above 1 MHz. */
    vm->tsc_mult = ((vm->tsc_khz << 32) + 500000) / 1000000;
}

uint64_t vm_clock(struct vm *vm)
{
    if (!vm)
        return 0;
    for (;;) {
        uint64_t base = atomic_load(&vm->clock_base);
        uint64_t now = os_now();
        uint64_t held = atomic_load(&vm->clock_paused);

        switch (atomic_load(&vm->paused)) {
        case PAUSE_ON:
            /* `held` is of this pause unless another began meanwhile. */
            if (held == atomic_load(&vm->clock_paused))
                return held;
            break;
        case PAUSE_CHANGE:
            os_yield();
            break;
        default:
            /* Read before any later stop of the clock, so the stopped clock is not behind us. */
            if (base == atomic_load(&vm->clock_base))
                return now - base;
        }
    }
}

void core_clock_stop(struct vm *vm)
{
    atomic_store(&vm->paused, PAUSE_CHANGE);
    atomic_store(&vm->clock_paused, os_now() - atomic_load(&vm->clock_base));
    if (vm->ops->tsc_changed)
        vm->ops->tsc_changed(vm, false);
    atomic_store(&vm->paused, PAUSE_ON);
}

bool core_clock_start(struct vm *vm)
{
    uint32_t on = PAUSE_ON;

    if (!atomic_compare_exchange_strong(&vm->paused, &on, PAUSE_CHANGE))
        return false;
    if (vm->ops->tsc_changed)
        vm->ops->tsc_changed(vm, true);
    atomic_store(&vm->clock_base, os_now() - atomic_load(&vm->clock_paused));
    atomic_store(&vm->paused, PAUSE_NONE);
    return true;
}

uint64_t core_clock_to_os(struct vm *vm, uint64_t clock)
{
    uint64_t base = atomic_load(&vm->clock_base);

    return clock > UINT64_MAX - base ? UINT64_MAX : base + clock;
}

/* ---- TSC ---- */

static uint64_t scale(const struct vm *vm, uint64_t clock)
{
    return (uint64_t)((unsigned __int128)clock * vm->tsc_mult >> 32);
}

/* What the TSCs of the VM have in common: the engine's ticks, or the clock in ticks. */
static uint64_t ticks(struct vm *vm)
{
    return vm->ops->tsc ? vm->ops->tsc(vm) : scale(vm, vm_clock(vm));
}

static void set_offset(struct vcpu *vcpu, uint64_t offset)
{
    const struct vm *vm = vcpu->vm;

    if (vm->ops->tsc && !(vm->caps.caps & VMM_CAP_TSC_OFFSET))
        offset = 0;
    atomic_store(&vcpu->tsc_offset, offset);
}

uint64_t core_vcpu_tsc(struct vcpu *vcpu)
{
    return ticks(vcpu->vm) + atomic_load(&vcpu->tsc_offset);
}

uint64_t core_tsc_deadline(struct vcpu *vcpu, uint64_t tsc)
{
    const struct vm *vm = vcpu->vm;
    uint64_t now = vm_clock(vcpu->vm);
    uint64_t clock = scale(vm, now);
    uint64_t common = vm->ops->tsc ? vm->ops->tsc(vcpu->vm) : clock;
    uint64_t current = common + atomic_load(&vcpu->tsc_offset);

    /* The TSC may have got there since the caller looked. */
    if (current >= tsc)
        return now;
    /* The first ns at which scale() reaches the present plus what is left. */
    unsigned __int128 target = ((unsigned __int128)clock + (tsc - current)) << 32;
    unsigned __int128 ns = (target + vm->tsc_mult - 1) / vm->tsc_mult;

    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

/* The TSC has moved: a deadline in terms of it is at another time now. */
static void moved(struct vcpu *vcpu)
{
    uint64_t deadline;

    if (vcpu->lapic && !lapic_read_msr(vcpu->lapic, 0x6e0, &deadline) && deadline)
        lapic_write_msr(vcpu->lapic, 0x6e0, deadline, true);
}

void core_vcpu_set_tsc(struct vcpu *vcpu, uint64_t value)
{
    set_offset(vcpu, value - ticks(vcpu->vm));
    moved(vcpu);
}

void core_tsc_start(struct vm *vm)
{
    atomic_store(&vm->tsc_start, ticks(vm));
}

void core_tsc_reset(struct vcpu *vcpu)
{
    set_offset(vcpu, 0 - atomic_load(&vcpu->vm->tsc_start));
    atomic_store(&vcpu->tsc_adjust, 0);
}

void core_tsc_write(struct vcpu *vcpu, uint64_t value)
{
    uint64_t old = atomic_load(&vcpu->tsc_offset), new = value - ticks(vcpu->vm);

    set_offset(vcpu, new);
    atomic_fetch_add(&vcpu->tsc_adjust, new - old);
    moved(vcpu);
}

void core_tsc_write_adjust(struct vcpu *vcpu, uint64_t value)
{
    uint64_t delta = value - atomic_load(&vcpu->tsc_adjust);

    set_offset(vcpu, atomic_load(&vcpu->tsc_offset) + delta);
    atomic_store(&vcpu->tsc_adjust, value);
    moved(vcpu);
}
