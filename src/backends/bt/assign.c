/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/assign.c: which guest registers have host registers in a region. */
#include "backends/bt/region.h"

/*
 * Between translations bt_host holds. A region exchanges what it hardly uses for what it uses more:
 * the host register of one guest register becomes that of another one, which stays in x86_cpu
 * elsewhere. Each exchange costs two moves where the region is entered, and two where it is left.
 */

#define NEVER ~0u /* this one keeps its host register */

/* A use in a block that is executed as often as the region's head counts so much, and more in each
 * loop around. */
#define ALWAYS     16
#define LOOP_SHIFT 3
#define MAX_DEPTH  3

/* What an exchange must be worth: its moves take longer than operands in memory, and regions are
 * often left before all of their blocks have been executed. */
#define PRICE (16 * ALWAYS)

/* Registers of the guest that loops change had better not be in memory. */
#define PREFER 2

/* ---- moves ---- */

/* Guest registers between memory and host registers. */
static void move_all(struct gen *g, unsigned op, uint32_t slots, const uint8_t *host)
{
    for (; slots; slots &= slots - 1) {
        unsigned slot = (unsigned)__builtin_ctz(slots);

        em_rm(&g->e, true, op, host[slot], gen_gpr(slot));
    }
}

void gen_regs_enter(struct gen *g)
{
    const struct gen_regs *regs = g->regs;

    if (!regs)
        return;
    move_all(g, OP_STORE, regs->out, bt_host);
    move_all(g, OP_LOAD, regs->in, regs->host);
    if (regs->count != H_NONE)
        em_const(&g->e, regs->count, 0);
}

void gen_regs_leave(struct gen *g)
{
    const struct gen_regs *regs = g->regs;

    if (!regs)
        return;
    if (regs->count != H_NONE)
        em_rm(&g->e, true, 0x29, regs->count, GEN_FIELD(countdown)); /* SUB */
    move_all(g, OP_STORE, regs->in & regs->written, regs->host);
    move_all(g, OP_LOAD, regs->out, bt_host);
}

/* ---- loops ---- */

/* Adds to `body` all that leads to block i. */
static void add_sources(const struct region *r, unsigned i, uint64_t *body)
{
    for (unsigned k = 0; k < r->n; k++)
        for (unsigned e = 0; e < r->block[k].nnext; e++)
            if (r->block[k].to[e] == (int)i && !(*body >> k & 1)) {
                *body |= UINT64_C(1) << k;
                add_sources(r, k, body);
            }
}

/* How many loops each block is in. */
static void find_depths(const struct region *r, uint8_t *depth)
{
    uint64_t back[REGION_COPIES] = {0}; /* blocks that lead back to each one */

    memset(depth, 0, REGION_COPIES);
    for (unsigned k = 0; k < r->n; k++)
        for (unsigned e = 0; e < r->block[k].nnext; e++) {
            int to = r->block[k].to[e];

            if (to >= 0 && r->rank[to] <= r->rank[k])
                back[to] |= UINT64_C(1) << k;
        }
    for (unsigned head = 0; head < r->n; head++) {
        uint64_t body = UINT64_C(1) << head;

        for (uint64_t from = back[head]; from; from &= from - 1) {
            unsigned k = (unsigned)__builtin_ctzll(from);

            if (!(body >> k & 1)) {
                body |= UINT64_C(1) << k;
                add_sources(r, k, &body);
            }
        }
        for (unsigned k = 0; back[head] && k < r->n; k++)
            depth[k] += body >> k & 1;
    }
}

/* ---- uses ---- */

static void count_register(ZydisRegister reg, unsigned n, unsigned *uses)
{
    uint8_t slot;

    if (gen_gpr_slot(reg, &slot))
        uses[slot] += n;
}

/* An instruction that one register in x86_cpu makes a handler's. */
static bool wants_registers(const struct gen_insn *in)
{
    return in->insn->mnemonic == ZYDIS_MNEMONIC_CMPXCHG ||
           in->insn->mnemonic == ZYDIS_MNEMONIC_SHLD || in->insn->mnemonic == ZYDIS_MNEMONIC_SHRD;
}

static void count_uses(const struct gen_insn *in, unsigned n, unsigned *uses)
{
    if (!in->known)
        return;
    if (wants_registers(in))
        n *= 8;
    for (unsigned k = 0; k < in->insn->operand_count; k++) {
        const struct gen_operand *o = &in->opnd[k];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            count_register(o->mem.base, n * 2, uses);
            count_register(o->mem.index, n * 2, uses);
        } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            bool both = (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ) &&
                        (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);

            count_register(o->reg.value, both ? n * 2 : n, uses);
        }
    }
}

/* How often a block is executed: heads of regions have all been so many times. */
static unsigned frequency(const struct gen *g, const struct bt_trans *t)
{
    uint32_t all = g->bt->hotter, left = g->cpu->tier_heat[t->heat];
    uint64_t often;

    if (t->region || left > all)
        return ALWAYS;
    often = (uint64_t)(all - left) * ALWAYS / all;
    return often ? (unsigned)often : 1;
}

static void count_all(const struct gen *g, const struct region *r, unsigned *uses,
                      uint32_t *written)
{
    uint8_t depth[REGION_COPIES];

    find_depths(r, depth);
    memset(uses, 0, 16 * sizeof(uses[0]));
    *written = 0;
    for (unsigned i = 0; i < r->n; i++) {
        const struct region_block *rb = &r->block[i];
        unsigned d = depth[i] < MAX_DEPTH ? depth[i] : MAX_DEPTH;
        unsigned n = (i ? frequency(g, rb->t) : ALWAYS) << d * LOOP_SHIFT;

        for (unsigned k = 0; k < rb->b->n; k++) {
            count_uses(&rb->all[k], n, uses);
            *written |= gen_writes(&rb->all[k]);
        }
    }
    uses[VMM_RSP] = NEVER; /* of many instructions the operand */
    uses[VMM_RDX] = NEVER; /* for those that mean this one */
}

/* ---- choice ---- */

static void exchange(struct gen_regs *regs, unsigned in, unsigned out)
{
    regs->host[in] = regs->host[out];
    regs->host[out] = H_NONE;
    regs->in |= 1u << in;
    regs->out |= 1u << out;
}

/* The register in x86_cpu that is used most. */
static unsigned most_used(const struct gen_regs *regs, const unsigned *uses)
{
    unsigned best = 16;

    for (unsigned slot = 0; slot < 16; slot++)
        if (regs->host[slot] == H_NONE && !(regs->out >> slot & 1) &&
            (best == 16 || uses[slot] > uses[best]))
            best = slot;
    return best;
}

/* The register that is used least of those that have bt_host's. */
static unsigned least_used(const struct gen_regs *regs, const unsigned *uses)
{
    unsigned best = 16;

    for (unsigned slot = 0; slot < 16; slot++)
        if (regs->host[slot] != H_NONE && !(regs->in >> slot & 1) && uses[slot] != NEVER &&
            (best == 16 || uses[slot] < uses[best]))
            best = slot;
    return best;
}

/* For comparisons: any assignment. */
static void shuffle(struct gen_regs *regs, const unsigned *uses, uint32_t seed)
{
    for (unsigned n = seed >> 24 & 7; n; n--) {
        unsigned in, out;

        seed = seed * 1664525 + 1013904223;
        in = seed >> 28;
        out = seed >> 24 & 15;
        if (regs->host[in] == H_NONE && !(regs->out >> in & 1) && regs->host[out] != H_NONE &&
            !(regs->in >> out & 1) && uses[out] != NEVER)
            exchange(regs, in, out);
    }
}

static void choose(struct gen_regs *regs, const unsigned *uses)
{
    for (;;) {
        unsigned in = most_used(regs, uses), out = least_used(regs, uses);

        if (in == 16 || out == 16 || uses[in] < uses[out] + PRICE)
            return;
        exchange(regs, in, out);
    }
}

/* How often base k is used. */
static unsigned uses_of_hold(const struct gen *g, const struct region *r, unsigned k,
                             const uint8_t *depth)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < r->n; i++) {
        const struct region_block *rb = &r->block[i];
        unsigned d = depth[i] < MAX_DEPTH ? depth[i] : MAX_DEPTH;
        unsigned n = (i ? frequency(g, rb->t) : ALWAYS) << d * LOOP_SHIFT;

        if (rb->use[k].own.n)
            sum += n * (rb->use[k].accesses + (rb->use[k].step != 0));
    }
    return sum;
}

/* What vector instructions can have for a base without more ado, and nobody needs otherwise. */
static bool may_hold(unsigned slot, const unsigned *uses)
{
    return uses[slot] != NEVER && bt_host[slot] != H_R12;
}

static unsigned least_of_holds(const struct gen_regs *regs, const unsigned *uses)
{
    unsigned best = 16;

    for (unsigned slot = 0; slot < 16; slot++)
        if (regs->host[slot] != H_NONE && !(regs->in >> slot & 1) && may_hold(slot, uses) &&
            (best == 16 || uses[slot] < uses[best]))
            best = slot;
    return best;
}

/* How often rounds of loops are counted: a memory operand for that takes longer than others. */
static unsigned uses_of_count(const struct gen *g, const struct region *r, const uint8_t *depth)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < r->n; i++) {
        const struct region_block *rb = &r->block[i];
        unsigned d = depth[i] < MAX_DEPTH ? depth[i] : MAX_DEPTH;

        for (unsigned e = 0; e < rb->nnext; e++)
            if (rb->to[e] >= 0 && region_is_back(r, rb, &r->block[rb->to[e]]))
                sum += 3 * ((i ? frequency(g, rb->t) : ALWAYS) << d * LOOP_SHIFT);
    }
    return sum;
}

static void assign_count(struct gen *g, struct region *r, const unsigned *uses,
                         const uint8_t *depth)
{
    struct gen_regs *regs = &r->regs;
    unsigned slot = least_of_holds(regs, uses);

    if (slot == 16 || (g->bt->shuffle ? g->bt->shuffle >> 9 & 1
                                      : uses_of_count(g, r, depth) < PREFER * uses[slot] + PRICE))
        return;
    regs->count = regs->host[slot];
    regs->host[slot] = H_NONE;
    regs->out |= 1u << slot;
}

void region_assign_holds(struct gen *g, struct region *r)
{
    struct gen_regs *regs = &r->regs;
    unsigned uses[16], of_hold[GEN_HOLDS] = {0};
    uint8_t depth[REGION_COPIES];
    uint32_t written;

    count_all(g, r, uses, &written);
    find_depths(r, depth);
    assign_count(g, r, uses, depth);
    for (unsigned k = 0; k < r->nbases; k++)
        of_hold[k] = uses_of_hold(g, r, k, depth);
    for (unsigned n = 0; n < r->nbases; n++) {
        unsigned k = 0, slot = least_of_holds(regs, uses);

        for (unsigned i = 1; i < r->nbases; i++)
            if (of_hold[i] > of_hold[k])
                k = i;
        if (slot == 16 ||
            (g->bt->shuffle ? g->bt->shuffle >> n & 1 : of_hold[k] < PREFER * uses[slot] + PRICE))
            return;
        regs->hold[k] = regs->host[slot];
        regs->host[slot] = H_NONE;
        regs->out |= 1u << slot;
        of_hold[k] = 0;
    }
}

void region_assign(struct gen *g, struct region *r)
{
    struct gen_regs *regs = &r->regs;
    unsigned uses[16];

    memset(regs, 0, sizeof(*regs));
    memcpy(regs->host, bt_host, sizeof(regs->host));
    memset(regs->hold, H_NONE, sizeof(regs->hold));
    regs->count = H_NONE;
    count_all(g, r, uses, &regs->written);
    if (g->bt->shuffle) {
        g->bt->shuffle = g->bt->shuffle * 22695477 + 1;
        shuffle(regs, uses, g->bt->shuffle);
    } else {
        choose(regs, uses);
    }
    g->regs = regs;
    g->host = regs->host;
}
