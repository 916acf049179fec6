/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/fixed.c: pages that a region accesses at places that no register decides. */
#include "backends/bt/region.h"

/*
 * Variables of a program lie at a fixed distance from its code, or at constant addresses. A region
 * that accesses such pages looks for them when its guard (struct mmu_guard) does not hold, and has
 * their host addresses there from then on. They serve without a look as long as the TLB loses
 * nothing: handlers that take entries or rights away do not come back to the region (BT_HELD), and
 * what other threads ask for is seen when the region is left.
 *
 * As the first level's table depends on the privilege level and AC, and guards do not, this is for
 * code at CPL 3, where an epoch begins when alignment is checked.
 */

/* Where an op accesses memory so, and how; false: it does not. `code`: its block, from the head's
 * page. */
static bool find_place(const struct gen_insn *in, const struct x86_op *op, int64_t code,
                       int64_t *at, unsigned *size, bool *write)
{

    if (!in->known || op->ea != X86_EA_FLAT || op->index != X86_ZERO ||
        (op->base != X86_RIP0 && op->base != X86_ZERO) ||
        in->insn->mnemonic == ZYDIS_MNEMONIC_LEA || in->insn->mnemonic == ZYDIS_MNEMONIC_NOP)
        return false;
    for (unsigned k = 0; k < in->insn->operand_count_visible; k++) {
        const struct gen_operand *o = &in->opnd[k];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        *at = op->disp;
        if (op->base == X86_RIP0)
            *at += code;
        *size = o->size / 8;
        *write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        return *at == (int32_t)*at;
    }
    return false;
}

static struct region_fixed *find(struct region *r, int64_t at, bool absolute)
{
    for (unsigned k = 0; k < r->nfixed; k++)
        if (r->fixed[k].at.page == (at & -(int64_t)MMU_PAGE_SIZE) &&
            r->fixed[k].at.absolute == absolute)
            return &r->fixed[k];
    return NULL;
}

static void add(struct region *r, int64_t at, bool absolute, bool write, uint64_t heat)
{
    struct region_fixed *f = find(r, at, absolute);

    if (!f && r->nfixed == REGION_INSNS / 8)
        return;
    if (!f) {
        f = &r->fixed[r->nfixed++];
        f->at =
            (struct bt_region_fixed){.page = at & -(int64_t)MMU_PAGE_SIZE, .absolute = absolute};
        f->heat = 0;
    }
    f->at.write |= write;
    f->heat += heat;
}

/* Those that are accessed often first. */
static void sort(struct region *r)
{
    for (unsigned i = 1; i < r->nfixed; i++)
        for (unsigned k = i; k && r->fixed[k].heat > r->fixed[k - 1].heat; k--) {
            struct region_fixed f = r->fixed[k];

            r->fixed[k] = r->fixed[k - 1];
            r->fixed[k - 1] = f;
        }
}

void region_find_fixed(struct gen *g, struct region *r)
{
    unsigned size, n = 0;
    int64_t at;
    bool write;

    r->nfixed = 0;
    if (!g->is64 || !(r->block[0].t->mode & X86_MODE_CPL3))
        return;
    for (unsigned b = 0; b < r->n; b++) {
        const struct region_block *rb = &r->block[b];
        const struct x86_op *op = rb->b->ops;

        for (unsigned i = 0; i < rb->b->n; i++)
            if (find_place(&rb->all[i], &op[i], (int64_t)rb->t->offset + rb->page_delta, &at, &size,
                           &write))
                add(r, at, op[i].base == X86_ZERO, write, rb->heat);
    }
    sort(r);
    /* Worth it are pages that are accessed at every other entry. */
    while (n < r->nfixed && n < MMU_GUARD_PAGES && r->fixed[n].heat * 2 >= r->block[0].heat)
        n++;
    r->nfixed = n;
}

/* ---- the code ---- */

static struct em_rm host_field(const struct region *r, unsigned k)
{
    return em_at(H_RBP, BT_FIELD(mmu.guard) +
                            (int32_t)((r->guard - 1) * sizeof(struct mmu_guard) +
                                      offsetof(struct mmu_guard, host) + k * sizeof(uint8_t *)));
}

void region_look_fixed(struct gen *g, struct region *r, uint8_t *fail[MMU_GUARD_PAGES])
{
    struct em *e = &g->e;

    for (unsigned k = 0; k < r->nfixed; k++) {
        const struct region_fixed *f = &r->fixed[k];
        struct gen_slow s = {.size = 1, .write = f->at.write};
        uint8_t *found;

        if (f->at.absolute) {
            em_rm(e, true, 0xc7, 0, em_reg(H_RAX)); /* MOV: sign-extended */
            em32(e, (uint32_t)f->at.page);
        } else {
            em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(tier_page));
            em_rm(e, true, OP_LEA, H_RAX, em_at(H_RAX, (int32_t)f->at.page));
        }
        s.retry = gen_look(e, g->bt, s.size, s.write);
        found = em_jcc_later(e, CC_A ^ 1);
        s.site = em_jmp_later(e);
        gen_miss(g, &s);
        fail[k] = em_jmp_later(e);
        em_here(e, found);
        gen_look_found(e);
        em_rm(e, true, OP_STORE, H_RAX, host_field(r, k));
    }
}

bool gen_fixed(struct gen *g, unsigned size, bool write)
{
    struct region *r = g->region;
    const struct region_fixed *f;
    unsigned known;
    bool writes;
    int64_t at;

    if (!gen_has_fixed(g) ||
        !find_place(&g->all[g->i], g->op, (int64_t)g->t->offset + g->page_delta, &at, &known,
                    &writes))
        return false;
    f = find(r, at, g->op->base == X86_ZERO);
    if (!f || (write && !f->at.write) || (at & (MMU_PAGE_SIZE - 1)) + size > MMU_PAGE_SIZE)
        return false;
    em_rm(&g->e, true, OP_LOAD, H_RAX, host_field(r, (unsigned)(f - r->fixed)));
    em_lea(&g->e, true, H_RAX, em_at(H_RAX, (int32_t)(at & (MMU_PAGE_SIZE - 1))));
    return true;
}

bool gen_has_fixed(const struct gen *g)
{
    return g->region && g->region->nfixed;
}
