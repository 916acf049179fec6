/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/step.h: which instructions hardware can be made to execute alone. */
#ifndef VMX_STEP_H
#define VMX_STEP_H

#include "vmx/move.h"

/*
 * A step is one instruction, or the delivery of one event, however often a string instruction
 * repeats. The monitor trap flag (SDM Vol. 3C 25.5.2) makes it exactly that for most; RFLAGS.TF
 * only for instructions that neither see nor change flags above the arithmetic ones and whose trap
 * nothing puts off: PUSHF, POPF, INT, SYSCALL and MOV SS are not among those.
 */
enum vmx_step {
    VMX_STEP_SOFT, /* neither */
    VMX_STEP_MTF,
    VMX_STEP_TF, /* both */
};

/* The first `n` bytes of an instruction; those that are missing make it VMX_STEP_SOFT. */
enum vmx_step vmx_step_kind(const uint8_t *insn, unsigned n, enum vmx_code code);

#endif
