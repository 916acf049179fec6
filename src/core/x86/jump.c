/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/jump.c: cpu->jump, from linear addresses to blocks: filling it, and forgetting by
 * generation what no longer holds. */
#include <string.h>

#include "core/x86/cache.h"
#include "core/x86/control.h"

/* What cpu->jump leads to where it is empty. */
static struct x86_block no_block = {.dead = true};

void x86_jump_clear(struct x86_cpu *cpu)
{
    cpu->jump_ready = true;
    for (unsigned i = 0; i < X86_JUMP_SIZE; i++) {
        /* The address of this key is in kernel space, its mode is real mode. */
        cpu->jump[i].key = ~(uint64_t)0;
        cpu->jump[i].blk = &no_block;
    }
}

/* Entries are told by their 32 low bits: addresses of legacy modes wrap there. */
#define JUMP_PAGE 0xfffff000u

/* The bits of a page in a set: neighbours do not share the first, and others seldom both. */
static unsigned page_bit(uint64_t page, unsigned i)
{
    uint64_t n = page >> MMU_PAGE_SHIFT;

    return i ? (unsigned)(n * 0x9e3779b97f4a7c15 >> (64 - X86_JUMP_PAGES_BITS))
             : n & ((1u << X86_JUMP_PAGES_BITS) - 1);
}

static void note_page(struct x86_jump_set *set, uint64_t page)
{
    for (unsigned i = 0; i < 2; i++)
        set->pages[i][page_bit(page, i) / 64] |= 1ull << page_bit(page, i) % 64;
    if (!set->used || page < set->first)
        set->first = page;
    if (!set->used || page > set->last)
        set->last = page;
    set->used = true;
}

static bool has_page(const struct x86_jump_set *set, uint64_t page)
{
    bool has = set->used && page >= set->first && page <= set->last;

    for (unsigned i = 0; i < 2; i++)
        has = has && (set->pages[i][page_bit(page, i) / 64] >> page_bit(page, i) % 64 & 1);
    return has;
}

void x86_jump_note(struct x86_cpu *cpu, uint64_t linear, bool global)
{
    struct x86_jump_set *set = &cpu->jump_set[!!(cpu->mode & X86_MODE_CPL3)];

    note_page(set, (x86_code64(cpu) ? linear : (uint32_t)linear) & MMU_PAGE_MASK);
    if (!global)
        set->private = true;
}

void x86_jump_set(struct x86_cpu *cpu, uint64_t linear, struct x86_block *b, bool global)
{
    struct x86_jump *j = &cpu->jump[x86_jump_index(linear)];

    j->key = linear ^ cpu->jump_key;
    j->blk = b;
    x86_jump_note(cpu, linear, global);
    if (b->gpa2 != MMU_NO_TAG)
        x86_jump_note(cpu, linear + MMU_PAGE_SIZE, global);
}

/* What is in tier_map and in guards from another time when the counter was the same must not be
 * believed. */
static void next_link_gen(struct x86_cpu *cpu, struct x86_jump_set *set)
{
    mmu_next_epoch(&cpu->mmu);
    if (!(++set->link_gen & 0xfffff) && cpu->tier) {
        memset(cpu->tier_map, 0, sizeof(cpu->tier_map));
        mmu_clear_guards(&cpu->mmu);
    }
}

static void set_keys(struct x86_cpu *cpu)
{
    cpu->jump_key = x86_jump_key(cpu, cpu->jump_key >> 48 & 0xff);
    cpu->link_key = x86_link_key(cpu, cpu->link_key >> 48 & 0xff);
}

/* Without an entry since the last time there is nothing that another generation would tell apart.
 */
static void flush_set(struct x86_cpu *cpu, struct x86_jump_set *set)
{
    if (set->used) {
        if (!++set->gen)
            x86_jump_clear(cpu);
        memset(set->pages, 0, sizeof(set->pages));
        set->used = false;
    }
    set->private = false;
    next_link_gen(cpu, set);
}

void x86_jump_flush(struct x86_cpu *cpu)
{
    flush_set(cpu, &cpu->jump_set[0]);
    flush_set(cpu, &cpu->jump_set[1]);
    set_keys(cpu);
}

void x86_jump_flush_nonglobal(struct x86_cpu *cpu)
{
    for (unsigned i = 0; i < 2; i++)
        if (cpu->jump_set[i].private)
            flush_set(cpu, &cpu->jump_set[i]);
    set_keys(cpu);
}

void x86_jump_flush_page(struct x86_cpu *cpu, uint64_t linear)
{
    /* Blocks that begin in the one before it may reach into it. */
    uint64_t before = linear - MMU_PAGE_SIZE;
    bool wanted = false;

    for (unsigned i = 0; i < 2; i++)
        if (has_page(&cpu->jump_set[i], linear & MMU_PAGE_MASK)) {
            next_link_gen(cpu, &cpu->jump_set[i]);
            wanted = true;
        }
    if (!wanted)
        return;
    set_keys(cpu);
    for (unsigned i = 0; i < X86_JUMP_SIZE; i++) {
        uint64_t key = cpu->jump[i].key;

        if (!((key ^ linear) & JUMP_PAGE) || !((key ^ before) & JUMP_PAGE))
            cpu->jump[i].key = ~(uint64_t)0;
    }
}
