/* SPDX-License-Identifier: BSD-2-Clause */
/* device.h: what several device models share: reading a caller's config, and clock arithmetic. */
#ifndef VMM_DEVICES_DEVICE_H
#define VMM_DEVICES_DEVICE_H

#include <stdint.h>
#include <string.h>

#include <vmm/device.h>

#define NS_PER_SEC 1000000000ull

/* Larger structs are none: their size was not set. */
#define CONFIG_MAX 65536u

/*
 * Copies a caller's struct, whose first member is its size, into *dst of `len` bytes. What the
 * caller's version lacks becomes zero; a non-zero tail that this version does not know is
 * VMM_E_UNSUPPORTED; NULL, or a size that is none, is VMM_E_INVAL.
 */
static inline int config_copy(void *dst, uint32_t len, const void *src)
{
    uint32_t size;
    const uint8_t *tail = src;

    memset(dst, 0, len);
    if (!src)
        return VMM_E_INVAL;
    memcpy(&size, src, sizeof size);
    if (size < 8 || size > CONFIG_MAX)
        return VMM_E_INVAL;
    for (uint32_t i = len; i < size; i++)
        if (tail[i])
            return VMM_E_UNSUPPORTED;
    memcpy(dst, src, size < len ? size : len);
    memcpy(dst, &len, sizeof len);
    return 0;
}

/* Periods of a clock of `hz` that have ended `ns` nanoseconds after its start. */
static inline uint64_t ns_to_ticks(uint64_t ns, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)ns * hz / NS_PER_SEC);
}

/* First nanosecond at which ns_to_ticks gives `ticks`; UINT64_MAX if there is none. */
static inline uint64_t ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * NS_PER_SEC + hz - 1) / hz;

    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

/*
 * Missed-tick policy of periodic timers (8254 and HPET): up to this many periods that the guest
 * could not take in time are made up for at four times the rate; beyond that they are dropped, so
 * that a guest that was not run for a while is not flooded.
 */
#define TICKS_MAX_BEHIND 4u

/* Periods shorter than this coalesce: a guest cannot keep the host busy with timer callbacks. */
#define TICKS_MIN_NS 20000u

#endif
