/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/cache.h: the cache of decoded blocks (cache.c) and the way to them (jump.c). */
#ifndef CORE_X86_CACHE_H
#define CORE_X86_CACHE_H

#include "core/x86/exec.h"

/* Where the code of a block is: what an instruction fetch at `linear` found. */
struct x86_code {
    uint64_t linear;
    uint64_t gpa;
    const uint8_t *page; /* host address of the page */
    bool global;         /* all of it is in global pages */
};

/* Fills cpu->cache; false without memory. */
bool x86_cache_create(struct x86_cpu *cpu);
void x86_cache_destroy(struct x86_cache *cache);
/* How much memory blocks may take, before any does. */
#define X86_CACHE_BYTES (64u << 20) /* if nobody says */
void x86_cache_limit(struct x86_cpu *cpu, size_t bytes);

/* Outside of blocks only: does what had to wait until no block is current. */
void x86_cache_tidy(struct x86_cpu *cpu);

/*
 * The block at `code` in `mode`, decoded if need be; `hint` may be it. NULL when the fetch of an
 * instruction's rest from the following page failed (cpu->event or cpu->stop is set), or with
 * *again: the page's code mark had to be set first, look `code` up again. code->global takes the
 * page into account in which the block ends.
 */
struct x86_block *x86_cache_get(struct x86_cpu *cpu, struct x86_code *code, uint32_t mode,
                                struct x86_block *hint, bool *again);

/* Whether a block need not be compared with memory before it is entered. */
bool x86_block_is_current(const struct x86_cpu *cpu, const struct x86_block *b);

/* Whether `bytes` are what the block, in one page, was decoded from. */
bool x86_block_is_made_of(const struct x86_block *b, const uint8_t *bytes);

/* Empties cpu->jump: before the memory of blocks is used for others. */
void x86_jump_clear(struct x86_cpu *cpu);
/* Lets cpu->jump lead to a block, for the CPU's mode; `global`: all of it is in global pages. */
void x86_jump_set(struct x86_cpu *cpu, uint64_t linear, struct x86_block *b, bool global);
/* A page of which something depends on where it is now: INVLPG for it counts. */
void x86_jump_note(struct x86_cpu *cpu, uint64_t linear, bool global);
/* Makes cpu->jump lead nowhere; what it led to remains as hints. */
void x86_jump_flush(struct x86_cpu *cpu);
/* The same, but for blocks of global pages. */
void x86_jump_flush_nonglobal(struct x86_cpu *cpu);
/* The same for blocks that have code in the page of `linear`. */
void x86_jump_flush_page(struct x86_cpu *cpu, uint64_t linear);

/* Fetches at `linear`; false: cpu->event or cpu->stop is set. [run.c] */
bool x86_fetch(struct x86_cpu *cpu, uint64_t linear, struct x86_code *code);

#endif
