/* SPDX-License-Identifier: BSD-2-Clause */
/* port.h: what the parts of the bare machine's C library for tests know of each other. */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>

/* The first `n` cases are over: they pass without a word, but the last one, which has stopped the
 * machine. [outcome.c] */
void outcome_resume(unsigned n);
/* What is printed goes nowhere. [port.c] */
void port_mute(bool mute);

#endif
