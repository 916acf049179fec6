/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/fetch.h: the bytes of an instruction that has exited. */
#ifndef BACKENDS_VMX_FETCH_H
#define BACKENDS_VMX_FETCH_H

#include "backends/vmx/vmx.h"
#include "vmx/move.h"

/* In a session, after an exit of the instruction at RIP: how many of its bytes lie in its page,
 * which may be less than it has, or more; 0: they cannot be had. */
unsigned vmx_fetch(struct vmx_vcpu *v, const uint8_t **insn, enum vmx_code *code);

/* As core_mem_page, for memory; the last page that is none is remembered. */
bool vmx_is_memory(struct vmx_vcpu *v, uint64_t gpa, struct core_page *page);

#endif
