/* SPDX-License-Identifier: BSD-2-Clause */
/* gen.h: what the generator of cases is made of. */
#ifndef GEN_H
#define GEN_H

#include <Zydis/Zydis.h>

#include "diff.h"

/* What CPUID says; the CPU may execute more, which its hypervisor hides. */
struct diff_features {
    bool avx, avx512, bf16, fp16;
};

/* random.c */
uint64_t diff_rnd(uint64_t *rng);
unsigned diff_below(uint64_t *rng, unsigned n);
bool diff_percent(uint64_t *rng, unsigned p);
uint64_t diff_interesting(uint64_t *rng);
void diff_init_state(struct diff_case *c, uint64_t *rng, const struct diff_features *has);

/* filter.c */
bool diff_insn_allowed(const ZydisDecodedInstruction *in, const struct diff_features *has);
/* Several accesses in an order of the processor's choosing, for instructions that are no gathers;
 * what was done before the access that faulted may stay done. */
bool diff_fault_is_loose(ZydisMnemonic mnemonic);

#endif
