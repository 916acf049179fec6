/* SPDX-License-Identifier: BSD-2-Clause */
/* guest.h: the VM in which snippets run: descriptor tables, page tables, exception handlers. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>

#include <vmm/vmm.h>

#include "snippet.h"

struct guest {
    struct vm *vm;
    struct vcpu *cpu;
    uint8_t *mem;
};

/* How a snippet ended, with the state at that point (of faults: at the instruction). */
struct guest_end {
    uint32_t reason; /* VMM_EXIT_HLT: an exception came, `vector` is it */
    unsigned vector;
    bool has_error;
    uint32_t error;
    uint64_t rip, rflags, rsp;
    uint16_t cs;
    struct vcpu_regs regs;
};

/* A VM with these VMM_VM_* flags. False with a message on stderr. */
bool guest_create(struct guest *g, const char *backend, uint32_t flags);
void guest_destroy(struct guest *g);
/* Whether the default CPUID table has a SNIP_FEATURE; 0 is nothing, which it has. */
bool guest_has(const struct guest *g, uint32_t feature);
/* Fresh memory and registers for a snippet in `mode`. */
bool guest_prepare(struct guest *g, enum snip_mode mode, const uint8_t *code, size_t len,
                   struct vcpu_regs *regs);
/* The registers of guest_prepare alone, for another vCPU. */
bool guest_registers(struct guest *g, enum snip_mode mode, struct vcpu_regs *regs);
/* The vector leads to `address` instead of its HLT. */
void guest_gate(struct guest *g, enum snip_mode mode, unsigned vector, uint32_t address);
/* Paging modes: maps the 2 MiB of `address` at themselves, for all. */
void guest_map_large(struct guest *g, uint32_t address);
bool guest_run(struct guest *g, enum snip_mode mode, struct guest_end *end);

#endif
