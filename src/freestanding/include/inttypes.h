/* SPDX-License-Identifier: BSD-2-Clause */
/* inttypes.h of the freestanding build. */
#ifndef FREESTANDING_INTTYPES_H
#define FREESTANDING_INTTYPES_H

#include <stdint.h>

#define PRId64 "ld"
#define PRIu64 "lu"
#define PRIx64 "lx"
#define PRIu32 "u"
#define PRIx32 "x"

#endif
