/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/tlb.c: the second level of the TLB, asked by generated code. */
#include "backends/bt/gen.h"

#define FIELD(member) (int32_t) offsetof(struct mmu_entry, member)

static void push_pop(struct em *e, bool push)
{
    static const uint8_t regs[] = {H_RDX, H_RSI, H_RDI};

    for (unsigned i = 0; i < 3; i++)
        em8(e, (push ? 0x50u | regs[i] : 0x58u | regs[2 - i]));
}

static void shift(struct em *e, unsigned ext, unsigned reg, unsigned n)
{
    em_rr(e, true, OP_SHIFT, ext, reg);
    em8(e, n);
}

static void copy(struct em *e, int32_t field)
{
    em_rm(e, true, OP_LOAD, H_RDI, em_at(H_RDX, field));
    em_rm(e, true, OP_STORE, H_RDI, em_at(H_RCX, field));
}

/* RDX = mmu_l2_entry(RSI, a page, in the current table). Changes RDI. */
static void find_entry(struct em *e)
{
    _Static_assert(sizeof(struct mmu_entry) == 32, "shifts by 5");
    em_rr(e, true, OP_LOAD, H_RDX, H_RSI);
    shift(e, EXT_SHR, H_RDX, MMU_PAGE_SHIFT);
    em_rr(e, true, OP_LOAD, H_RDI, H_RDX);
    shift(e, EXT_SHR, H_RDI, MMU_L2_BITS);
    em_rr(e, false, OP_XOR, H_RDX, H_RDI);
    em_imm(e, false, EXT_AND, em_reg(H_RDX), MMU_L2_SIZE - 1);
    em_rr(e, true, OP_LOAD, H_RDI, H_RSI);
    shift(e, EXT_SAR, H_RDI, 63);
    em_rr(e, true, 0xf7, 2, H_RDI);                       /* NOT */
    em_rm(e, false, 0x23, H_RDI, GEN_FIELD(mmu.l2_salt)); /* AND */
    em_rr(e, false, OP_XOR, H_RDX, H_RDI);
    em_insn(e, (struct em_op){.map = 1, .op = 0xb6}, H_RDI, GEN_FIELD(mmu_idx)); /* MOVZX */
    shift(e, EXT_SHL, H_RDI, MMU_L2_BITS);
    em_rr(e, false, OP_ADD, H_RDX, H_RDI);
    shift(e, EXT_SHL, H_RDX, 5);
    em_rm(e, true, OP_ADD, H_RDX, GEN_FIELD(mmu.l2));
}

/* A read entry may be all that there is. */
static void set_write_tag(struct em *e)
{
    uint8_t *both;

    em_rm(e, true, OP_LOAD, H_RDI, em_at(H_RDX, FIELD(read)));
    em_rm(e, true, OP_CMP, H_RDI, em_at(H_RDX, FIELD(write)));
    em_rr(e, true, OP_LOAD, H_RDI, H_RSI);
    both = em_jcc_later(e, CC_Z);
    em_rr(e, false, OP_XOR, H_RDI, H_RDI); /* mmu_empty_tag */
    em_rm(e, true, OP_CMP, H_RCX, GEN_FIELD(tier_data));
    em_insn(e, (struct em_op){.map = 1, .op = 0x90 | CC_Z, .rex = true}, 0, em_reg(H_RDI));
    shift(e, EXT_SHL, H_RDI, MMU_PAGE_SHIFT);
    em_here(e, both);
    em_rm(e, true, OP_STORE, H_RDI, em_at(H_RCX, FIELD(write)));
}

/* Marks the entry as filled; RDI: its gpa. */
static void note_filled(struct em *e)
{
    _Static_assert(MMU_ENTRY_GLOBAL == 1, "index of `filled`");
    em_imm(e, false, EXT_AND, em_reg(H_RDI), MMU_ENTRY_GLOBAL);
    em_insn(e, (struct em_op){.op = 0x69}, H_RDI, em_reg(H_RDI)); /* IMUL */
    em32(e, MMU_NTABLES * MMU_TLB_SIZE);
    em_rm(e, true, OP_LEA, H_RSI, GEN_FIELD(mmu.data));
    em_rr(e, true, OP_LOAD, H_RDX, H_RCX);
    em_rr(e, true, OP_SUB, H_RDX, H_RSI);
    shift(e, EXT_SHR, H_RDX, 5);
    em_rr(e, false, OP_ADD, H_RDX, H_RDI);
    /* Not BTS of memory: processors take ten times as long for it. */
    em_rr(e, false, OP_XOR, H_RSI, H_RSI);
    em_insn(e, (struct em_op){.map = 1, .op = 0xab, .wide = true}, H_RDX, em_reg(H_RSI)); /* BTS */
    shift(e, EXT_SHR, H_RDX, 6);
    em_rm(e, true, 0x09, H_RSI, /* OR */
          (struct em_rm){true, H_RBP, H_RDX, 3, BT_FIELD(mmu.filled)});
}

/*
 * RAX: linear address that the first level's entry at RCX does not serve. Fills the entry: no
 * carry; or carry: nothing is there, or the entry was the page's already, and the access crosses
 * into the next. Changes flags only.
 */
static void put_miss(struct em *e, bool write)
{
    uint8_t *fail[3], *hit;
    unsigned n = 0;

    push_pop(e, true);
    em_rr(e, true, OP_LOAD, H_RDX, H_RAX);
    shift(e, EXT_SAR, H_RDX, 47);
    em_imm(e, true, EXT_ADD, em_reg(H_RDX), 1);
    em_imm(e, true, EXT_CMP, em_reg(H_RDX), 1);
    fail[n++] = em_jcc_later(e, CC_A); /* not canonical */
    em_rr(e, true, OP_LOAD, H_RSI, H_RAX);
    em_imm(e, true, EXT_AND, em_reg(H_RSI), -(int32_t)MMU_PAGE_SIZE);
    em_rm(e, true, OP_CMP, H_RSI, em_at(H_RCX, write ? FIELD(write) : FIELD(read)));
    fail[n++] = em_jcc_later(e, CC_Z);
    find_entry(e);
    em_rm(e, true, OP_LOAD, H_RDI, em_at(H_RDX, write ? FIELD(write) : FIELD(read)));
    em_rr(e, true, OP_XOR, H_RDI, H_RSI);
    em_rm(e, true, OP_CMP, H_RDI, GEN_FIELD(mmu.l2_key[0]));
    hit = em_jcc_later(e, CC_Z);
    em_rm(e, true, OP_CMP, H_RDI, GEN_FIELD(mmu.l2_key[1]));
    fail[n++] = em_jcc_later(e, CC_NZ);
    em_here(e, hit);
    em_rm(e, true, OP_STORE, H_RSI, em_at(H_RCX, FIELD(read)));
    if (write) /* what may be written may be read */
        em_rm(e, true, OP_STORE, H_RSI, em_at(H_RCX, FIELD(write)));
    else
        set_write_tag(e);
    copy(e, FIELD(host));
    copy(e, FIELD(gpa));
    note_filled(e);
    em_imm(e, true, EXT_ADD, GEN_FIELD(mmu.l2_hits), 1);
    push_pop(e, false);
    EM(e, 0xf8, 0xc3); /* CLC; RET */
    while (n)
        em_here(e, fail[--n]);
    push_pop(e, false);
    EM(e, 0xf9, 0xc3); /* STC; RET */
}

#define SPLIT 64 /* the longest operand */

/* RSI: a page. RDI = its host address, if it may be read; a jump if not. Changes RDX. */
static uint8_t *put_find_page(struct em *e)
{
    uint8_t *fail;

    em_rr(e, false, OP_LOAD, H_RDX, H_RSI);
    em_rr(e, false, OP_SHIFT, EXT_SHR, H_RDX);
    em8(e, MMU_PAGE_SHIFT - 5);
    em_imm(e, false, EXT_AND, em_reg(H_RDX), (MMU_TLB_SIZE - 1) << 5);
    em_rm(e, true, OP_ADD, H_RDX, GEN_FIELD(tier_data));
    em_rm(e, true, OP_CMP, H_RSI, em_at(H_RDX, FIELD(read)));
    fail = em_jcc_later(e, CC_NZ);
    em_rm(e, true, OP_LOAD, H_RDI, em_at(H_RDX, FIELD(host)));
    return fail;
}

static void put_copy_part(struct em *e, int32_t from, int32_t to)
{
    for (int32_t i = 0; i < SPLIT; i += 8) {
        em_rm(e, true, OP_LOAD, H_RDX, em_at(H_RDI, from + i));
        em_rm(e, true, OP_STORE, H_RDX, em_at(H_RBP, BT_FIELD(tier_split) + to + i));
    }
}

/* RAX: linear address of a load whose page is in the TLB, but may end within it. RAX = where there
 * is a copy of the operand: no carry; or carry. Changes flags, and RAX only without carry. */
static void put_split(struct em *e)
{
    uint8_t *fail[2];

    push_pop(e, true);
    em_rr(e, true, OP_LOAD, H_RSI, H_RAX);
    em_imm(e, true, EXT_AND, em_reg(H_RSI), -(int32_t)MMU_PAGE_SIZE);
    fail[0] = put_find_page(e);
    put_copy_part(e, MMU_PAGE_SIZE - SPLIT, 0);
    em_imm(e, true, EXT_ADD, em_reg(H_RSI), MMU_PAGE_SIZE);
    fail[1] = put_find_page(e);
    put_copy_part(e, 0, SPLIT);
    em_imm(e, false, EXT_AND, em_reg(H_RAX), MMU_PAGE_SIZE - 1);
    em_rm(e, true, OP_LEA, H_RAX,
          (struct em_rm){true, H_RBP, H_RAX, 0,
                         BT_FIELD(tier_split) + SPLIT - (int32_t)MMU_PAGE_SIZE});
    push_pop(e, false);
    EM(e, 0xf8, 0xc3); /* CLC; RET */
    em_here(e, fail[0]);
    em_here(e, fail[1]);
    push_pop(e, false);
    EM(e, 0xf9, 0xc3); /* STC; RET */
}

/* ---- the first level ---- */

/* As mmu_slot and mmu_fast_read or mmu_fast_write. */
const void *gen_look(struct em *e, const struct bt *bt, unsigned size, bool write)
{
    const void *retry;

    _Static_assert(sizeof(struct mmu_entry) == 32, "shifts by 12 - 5");
    _Static_assert(MMU_PAGE_SHIFT + MMU_TLB_BITS <= 32, "32 bits do");
    if (bt->host.bmi2) { /* RORX: what comes round is masked out */
        em_insn(e, (struct em_op){.vex = true, .map = 3, .op = 0xf0, .pp = 3}, H_RCX,
                em_reg(H_RAX));
    } else {
        em_rr(e, false, OP_LOAD, H_RCX, H_RAX);
        em_rr(e, false, OP_SHIFT, EXT_SHR, H_RCX);
    }
    em8(e, MMU_PAGE_SHIFT - 5);
    em_imm(e, false, EXT_AND, em_reg(H_RCX), (MMU_TLB_SIZE - 1) << 5);
    em_rm(e, true, OP_ADD, H_RCX, GEN_FIELD(tier_data));
    retry = em_rx(e);
    em_rm(e, true, OP_SUB, H_RAX, em_at(H_RCX, write ? FIELD(write) : FIELD(read)));
    em_imm(e, true, EXT_CMP, em_reg(H_RAX), (int32_t)(MMU_PAGE_SIZE - size));
    return retry;
}

void gen_look_found(struct em *e)
{
    em_rm(e, true, OP_ADD, H_RAX, em_at(H_RCX, FIELD(host)));
}

/* RAX: linear address of an operand, becomes the host address: no carry; or carry, and it is still
 * the linear address. Changes RCX. */
static void put_look(struct em *e, const struct bt *bt, unsigned size, bool write)
{
    const void *retry = gen_look(e, bt, size, write);
    uint8_t *miss = em_jcc_later(e, CC_A);

    gen_look_found(e); /* host addresses are in the lower half: no carry */
    em8(e, 0xc3);
    em_here(e, miss);
    em_rm(e, true, OP_ADD, H_RAX, em_at(H_RCX, write ? FIELD(write) : FIELD(read)));
    em_call(e, bt->stubs.miss[write]);
    em_jcc(e, CC_NC, retry);
    em8(e, 0xc3);
}

static void put_looks(struct bt *bt, struct em *e, bool write)
{
    for (unsigned size = 1; size <= 256; size += size < 8 ? size : 8) {
        bt->stubs.look[write][bt_look_class(size)] = em_rx(e);
        put_look(e, bt, size, write);
    }
}

void bt_make_tlb_stubs(struct bt *bt, struct em *e)
{
    for (unsigned write = 0; write < 2; write++) {
        bt->stubs.miss[write] = em_rx(e);
        put_miss(e, write);
        put_looks(bt, e, write);
    }
    bt->stubs.split = em_rx(e);
    put_split(e);
}

/* The access at RAX is not the business of its cell: it becomes that if the TLB has an entry. */
static void miss_cell(struct gen *g, const struct gen_slow *s)
{
    struct em *e = &g->e;
    unsigned cell = s->cell - 1u;
    int32_t tag = s->write ? FIELD(write) : FIELD(read);
    const void *retry;
    uint8_t *no_entry;

    em_here(e, s->site);
    em_rm(e, true, OP_SUB, H_RAX, gen_cell_field(cell, offsetof(struct mmu_cell, negative)));
    retry = gen_look(e, g->bt, s->size, s->write);
    no_entry = em_jcc_later(e, CC_A);
    em8(e, 0x50); /* PUSH RAX */
    em_rm(e, true, OP_LOAD, H_RAX, em_at(H_RCX, tag));
    em_rr(e, true, 0xf7, 3, H_RAX); /* NEG */
    em_rm(e, true, OP_STORE, H_RAX, gen_cell_field(cell, offsetof(struct mmu_cell, negative)));
    em_rm(e, true, OP_LOAD, H_RAX, em_at(H_RCX, FIELD(host)));
    em_rm(e, true, OP_STORE, H_RAX, gen_cell_field(cell, offsetof(struct mmu_cell, host)));
    em_rm(e, true, 0xc7, 0, gen_cell_field(cell, offsetof(struct mmu_cell, limit)));
    em32(e, MMU_PAGE_SIZE + 1 - gen_cell_size(cell));
    em_insn(e, (struct em_op){.op = 0x80}, EXT_OR,
            em_at(H_RBP, BT_FIELD(mmu.cells_filled) + (int32_t)(cell / 8)));
    em8(e, 1u << cell % 8);
    em8(e, 0x58); /* POP RAX */
    gen_look_found(e);
    em_jmp(e, s->retry);
    em_here(e, no_entry);
    em_rm(e, true, OP_ADD, H_RAX, em_at(H_RCX, tag));
    em_call(e, g->bt->stubs.miss[s->write]);
    em_jcc(e, CC_NC, retry);
}

void gen_miss(struct gen *g, const struct gen_slow *s)
{
    struct em *e = &g->e;

    if (s->cell)
        miss_cell(g, s);
    else
        em_here(e, s->site);
    if (s->retry && !s->cell) {
        em_rm(e, true, OP_ADD, H_RAX, em_at(H_RCX, s->write ? FIELD(write) : FIELD(read)));
        em_call(e, g->bt->stubs.miss[s->write]);
        em_jcc(e, CC_NC, s->retry);
    }
    if (s->found) {
        em_call(e, g->bt->stubs.split);
        em_jcc(e, CC_NC, s->found);
    }
}
