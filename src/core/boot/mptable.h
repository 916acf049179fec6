/* SPDX-License-Identifier: BSD-2-Clause */
/* mptable.h: building the tables of the MultiProcessor Specification 1.4. */
#ifndef VMM_CORE_BOOT_MPTABLE_H
#define VMM_CORE_BOOT_MPTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MPTABLE_MAX 0x800u

/* Floating pointer and configuration table for `cpus` processors, as if `buf` were at `base`.
 * Returns the length or 0 if it passes `cap`. */
size_t mptable_build(uint32_t cpus, bool pci, uint32_t base, uint8_t *buf, size_t cap);

#endif
