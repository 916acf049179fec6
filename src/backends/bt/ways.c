/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/ways.c: the ways into a block's code and out of it. */
#include "backends/bt/gen.h"

/*
 * Code is shared by all addresses at which its page is mapped; cpu->tier_page is the one in force.
 * A jump within the page goes to `chain`. One to another page must know that the target's page is
 * mapped there now: by the element of cpu->tier_map of the target's page, which code that comes by
 * cpu->jump renews (`hashed`). Direct jumps look into that themselves, before they go to `chain`;
 * what comes by a table of targets goes to `far`, where the target does it. So a flush of the TLB
 * costs one look into cpu->jump for each page of code, not for each jump. In detail:
 *
 * - A direct jump to another page is bound to its target when it is executed first (stubs.bind).
 *   Where the target is mapped relative to the jump is known, as the displacement is.
 * - A call leaves its return address and the code there in cpu->tier_return, by the lower bits of
 *   the address; returns look there. No stack could get out of step, and no depth is too much.
 * - Indirect jumps, and returns that find nothing, look into cpu->tier_target by a hash of the
 *   address; stubs.fill enters what is missing. Each has an indirect jump of its own, so that the
 *   host can predict them one by one.
 *
 * Tables are asked by the whole address, so that what is found there is canonical. In tier_map no
 * address that is not canonical has its like: the upper 16 bits of two keys would have to differ in
 * all bits, or by one, which no two modes do.
 */

void gen_page_address(struct gen *g, unsigned dst, int64_t offset)
{
    em_rm(&g->e, true, OP_LOAD, dst, GEN_FIELD(tier_page));
    em_rm(&g->e, g->is64, OP_LEA, dst, em_at(dst, (int32_t)(offset + g->page_delta)));
}

/* ---- in ---- */

static struct em_rm own_map(const struct gen *g)
{
    return em_at(H_RBP, bt_map_field(g->bt, g->page));
}

static void write_far(struct gen *g)
{
    struct em *e = &g->e;

    g->t->far = em_rx(e);
    em_rm(e, true, OP_LEA, H_RCX, em_at(H_RAX, -(int32_t)g->t->offset));
    em_rr(e, true, OP_LOAD, H_RAX, H_RCX);
    em_rm(e, true, OP_XOR, H_RAX, GEN_FIELD(link_key));
    em_rm(e, true, OP_CMP, H_RAX, own_map(g));
    g->far_miss = em_jcc_later(e, CC_NZ);
    em_rm(e, true, OP_STORE, H_RCX, GEN_FIELD(tier_page));
}

void gen_near_entry(struct gen *g)
{
    if (bt_link_returns(g->bt, g->t->gpa, g->t->mode))
        write_far(g);
}

void gen_entries(struct gen *g)
{
    struct em *e = &g->e;

    em_here(e, g->first); /* RCX: tier_page ^ link_key */
    em_rm(e, true, OP_STORE, H_RCX, own_map(g));
    em_jmp(e, g->body);
    g->t->hashed = em_rx(e);
    em_rm(e, true, OP_STORE, H_RAX, own_map(g));
    em_jmp(e, g->t->chain);
    if (!g->far_miss) {
        write_far(g);
        em_jmp(e, g->t->chain);
    }
    em_here(e, g->far_miss);
    em_rm(e, true, OP_LEA, H_RAX, em_at(H_RCX, (int32_t)g->t->offset));
    em_jmp(e, g->bt->stubs.fill);
}

/* ---- out: direct ---- */

static bool in_page(int64_t offset)
{
    return offset >= 0 && offset < MMU_PAGE_SIZE;
}

/* Changes RCX; the flag condition A means that RAX is not canonical. */
static void test_canonical(struct gen *g)
{
    struct em *e = &g->e;

    em_rr(e, true, OP_LOAD, H_RCX, H_RAX);
    em_rr(e, true, OP_SHIFT, EXT_SAR, H_RCX);
    em8(e, 47);
    em_imm(e, true, EXT_ADD, em_reg(H_RCX), 1);
    em_imm(e, true, EXT_CMP, em_reg(H_RCX), 1);
}

void gen_check_target(struct gen *g)
{
    if (!g->is64)
        return;
    test_canonical(g);
    gen_slow_if(g, CC_A);
}

static struct bt_link *new_link(struct gen *g, unsigned way, int64_t offset)
{
    struct bt_links *links = g->links;
    struct bt_link *l = g->region ? links->first - ++links->n : &links->first[links->n++];

    *l = (struct bt_link){.way = (uint8_t)(way & 15), .mode = (uint8_t)g->b->mode};
    if (in_page(offset))
        l->gpa = (g->b->gpa & MMU_PAGE_MASK) + (uint64_t)offset;
    return l;
}

/* The displacement is the way out. */
static void set_site(struct bt_link *l, uint8_t *site)
{
    l->site = site;
    memcpy(&l->out, site, 4);
}

/* To another page: a jump to the way out, ... */
static struct gen_exit write_cross(struct gen *g, int64_t offset, bool checked)
{
    struct bt_link *l = new_link(g, BT_CROSS, offset);
    struct em *e = &g->e;
    uint8_t *out, *map;

    gen_page_address(g, H_RAX, offset & -(int64_t)MMU_PAGE_SIZE);
    em_rr(e, true, OP_LOAD, H_RCX, H_RAX);
    em_rm(e, true, OP_XOR, H_RCX, GEN_FIELD(link_key));
    em_rm(e, true, OP_CMP, H_RCX, em_at(H_RBP, bt_map_field(g->bt, &g->bt->page[BT_NO_PAGE])));
    map = e->p - 4;
    out = em_jcc_later(e, CC_NZ);
    em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(tier_page));
    l->site = em_jmp_later(e);
    l->map = (uint8_t)(l->site - map);
    return (struct gen_exit){.site = out, .link = l, .offset = offset, .checked = checked};
}

/* ... and that. */
static void write_cross_out(struct gen *g, const struct gen_exit *x)
{
    int64_t rest = x->offset & (MMU_PAGE_SIZE - 1);
    struct bt_link *l = x->link;
    struct em *e = &g->e;
    uint8_t *site;

    em_here(e, x->site);
    em_here(e, l->site);
    set_site(l, l->site);
    em_rm(e, g->is64, OP_LEA, H_RAX, em_at(H_RAX, (int32_t)rest));
    if (x->checked)
        gen_check_target(g);
    EM(e, 0x48, 0x8d, 0x0d); /* LEA RCX, [RIP + l] */
    site = e->p;
    e->p += 4;
    em_patch(e, site, (const uint8_t *)l + e->to_rx);
    em_jmp(e, g->bt->stubs.bind);
}

void gen_exit_if(struct gen *g, unsigned cc, int64_t offset)
{
    if (g->region) {
        gen_region_exit_if(g, cc, offset);
        return;
    }
    g->exit[g->nexits++] =
        (struct gen_exit){.site = em_jcc_later(&g->e, cc), .offset = offset, .checked = true};
}

void gen_exit_here(struct gen *g, int64_t offset, bool checked)
{
    if (g->region)
        gen_region_exit(g, offset, checked);
    else if (in_page(offset))
        g->exit[g->nexits++] =
            (struct gen_exit){.site = em_jmp_later(&g->e), .offset = offset, .checked = checked};
    else
        g->exit[g->nexits++] = write_cross(g, offset, checked);
}

void gen_goto(struct gen *g, int64_t offset)
{
    if (!g->region)
        gen_spill_flags(g);
    gen_exit_here(g, offset, false);
}

static void write_exit(struct gen *g, const struct gen_exit *x)
{
    struct bt_link *l;
    struct gen_exit cross;

    if (!x->link)
        em_here(&g->e, x->site);
    if (!in_page(x->offset)) {
        cross = x->link ? *x : write_cross(g, x->offset, x->checked);
        write_cross_out(g, &cross);
        return;
    }
    l = new_link(g, BT_IN_PAGE, x->offset);
    set_site(l, x->site);
    gen_page_address(g, H_RAX, x->offset);
    em_jmp(&g->e, g->bt->stubs.jump);
}

/* Before a direct call changes anything. The target is in 2 GiB of the page, so that only the 4 GiB
 * next to the border need a closer look. */
void gen_check_direct(struct gen *g, int64_t offset)
{
    struct em_rm high = GEN_FIELD(tier_page);
    uint8_t *fine;

    if (!g->is64 || in_page(offset))
        return;
    high.disp += 4;
    em_rm(&g->e, false, OP_IMM32, EXT_CMP, high);
    em32(&g->e, offset < 0 ? 0xffff8000u : 0x7fffu);
    fine = em_jcc_later(&g->e, CC_NZ);
    gen_page_address(g, H_RAX, offset);
    gen_check_target(g);
    em_here(&g->e, fine);
}

/* ---- returns and indirect jumps ---- */

static struct em_rm element(int32_t table, unsigned index, size_t field)
{
    return (struct em_rm){true, H_RBP, (uint8_t)index, 0, table + (int32_t)field};
}

#define LINEAR offsetof(struct x86_target, linear)
#define CODE   offsetof(struct x86_target, code)

_Static_assert(sizeof(struct x86_target) == 16, "shifts by 4");
_Static_assert(X86_TIER_RETURN_BITS <= MMU_PAGE_SHIFT, "known whatever the page is");

void gen_expect_return(struct gen *g, int64_t offset)
{
    int32_t at = BT_FIELD(tier_return) + (int32_t)(offset & (X86_TIER_RETURNS - 1)) * 16;
    struct em *e = &g->e;
    struct bt_link *l;

    if (!in_page(offset))
        return;
    em_rm(e, true, OP_STORE, H_RCX, em_at(H_RBP, at + (int32_t)LINEAR));
    EM(e, 0x48, 0x8d, 0x0d); /* LEA RCX, [RIP + code] */
    e->p += 4;
    l = new_link(g, BT_RETURN, offset);
    em_patch(e, e->p - 4, g->bt->stubs.jump);
    set_site(l, e->p - 4);
    em_rm(e, true, OP_STORE, H_RCX, em_at(H_RBP, at + (int32_t)CODE));
}

/* NOTRACK JMP */
static void jump_to(struct gen *g, struct em_rm rm)
{
    em8(&g->e, 0x3e);
    em_rm(&g->e, false, 0xff, 4, rm);
}

/* RCX = offset of the element for RAX; the jump that is taken when it is another's. */
static uint8_t *find_return(struct gen *g)
{
    struct em *e = &g->e;

    em_rr(e, false, OP_LOAD, H_RCX, H_RAX);
    em_imm(e, false, EXT_AND, em_reg(H_RCX), X86_TIER_RETURNS - 1);
    em_rr(e, false, OP_SHIFT, EXT_SHL, H_RCX);
    em8(e, 4);
    em_rm(e, true, OP_CMP, H_RAX, element(BT_FIELD(tier_return), H_RCX, LINEAR));
    return em_jcc_later(e, CC_NZ);
}

static uint8_t *find_target(struct gen *g)
{
    struct em *e = &g->e;

    em_insn(e, (struct em_op){.op = 0x69}, H_RCX, em_reg(H_RAX)); /* IMUL ECX, EAX, constant */
    em32(e, BT_HASH_FACTOR);
    em_rr(e, false, OP_SHIFT, EXT_SHR, H_RCX);
    em8(e, 32 - X86_TIER_TARGET_BITS);
    em_rr(e, false, OP_SHIFT, EXT_SHL, H_RCX);
    em8(e, 4);
    em_rm(e, true, OP_CMP, H_RAX, element(BT_FIELD(tier_target), H_RCX, LINEAR));
    return em_jcc_later(e, CC_NZ);
}

static void write_lost(struct gen *g)
{
    struct em *e = &g->e;
    uint8_t *miss;

    em_here(e, g->lost.site);
    gen_check_target(g);
    switch (g->lost.kind) {
    case GEN_LOST_CALL:
        EM(e, 0x48, 0x8d, 0x0d); /* LEA RCX, [RIP + stubs.fill] */
        e->p += 4;
        em_patch(e, e->p - 4, g->bt->stubs.fill);
        if (g->lost.back)
            em_jmp(e, g->lost.back);
        return;
    case GEN_LOST_RETURN:
        gen_sp(g, gen_host(g, VMM_RSP), g->lost.pop);
        gen_regs_leave(g);
        miss = find_target(g);
        jump_to(g, element(BT_FIELD(tier_target), H_RCX, CODE));
        em_here(e, miss);
        break;
    default:
        gen_regs_leave(g);
    }
    em_jmp(e, g->bt->stubs.fill);
}

/* What the tables do not have is looked for behind the block's code, in regions here. */
static void lose(struct gen *g, struct gen_lost lost)
{
    g->lost = lost;
    if (!g->region)
        return;
    write_lost(g);
    g->lost.site = NULL;
}

void gen_go_indirect(struct gen *g)
{
    uint8_t *miss = find_target(g);

    gen_regs_leave(g);
    jump_to(g, element(BT_FIELD(tier_target), H_RCX, CODE));
    lose(g, (struct gen_lost){.site = miss, .kind = GEN_LOST_JUMP});
}

void gen_find_indirect(struct gen *g)
{
    struct em *e = &g->e;
    uint8_t *miss = find_target(g), *found = NULL;

    em_rm(e, true, OP_LOAD, H_RCX, element(BT_FIELD(tier_target), H_RCX, CODE));
    if (g->region)
        found = em_jmp_later(e);
    lose(g,
         (struct gen_lost){.site = miss, .kind = GEN_LOST_CALL, .back = found ? NULL : em_rx(e)});
    if (found)
        em_here(e, found);
    em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(tier_temp[0]));
    em_rm(e, true, OP_STORE, H_RCX, GEN_FIELD(tier_temp[1]));
}

void gen_go_found(struct gen *g)
{
    gen_regs_leave(g);
    em_rm(&g->e, true, OP_LOAD, H_RAX, GEN_FIELD(tier_temp[0]));
    jump_to(g, GEN_FIELD(tier_temp[1]));
}

void gen_return(struct gen *g, int32_t pop)
{
    unsigned sp = gen_host(g, VMM_RSP);
    uint8_t *miss = find_return(g);

    gen_sp(g, sp, pop);
    gen_regs_leave(g);
    jump_to(g, element(BT_FIELD(tier_return), H_RCX, CODE));
    lose(g, (struct gen_lost){.site = miss, .kind = GEN_LOST_RETURN, .pop = pop});
}

void gen_exits(struct gen *g)
{
    g->i = g->region ? X86_BLOCK_MAX
                     : g->b->n - 1u; /* whose fault it is if a target is not canonical */
    for (unsigned i = 0; i < g->nexits; i++)
        write_exit(g, &g->exit[i]);
    if (g->lost.site)
        write_lost(g);
}
