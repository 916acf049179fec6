/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/fixed.c: pages that a region accesses at places that no register decides. */
#include "backends/bt/region.h"

/*
 * Variables of a program lie at a fixed distance from its code, or at constant addresses. A region
 * that accesses such pages makes sure of them once, when it is entered: that the cell of each
 * (struct mmu_cell) has that page. From then on the cell's host address serves without a look. This
 * holds as long as the TLB loses nothing: handlers that take entries or rights away do not come
 * back to the region (BT_HELD), and what other threads ask for is seen when the region is left.
 *
 * These cells are found by the page, so that all regions share them; nobody but entries fills them.
 * As all cells they are for code at CPL 3.
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
        if (r->fixed[k].page == (at & -(int64_t)MMU_PAGE_SIZE) && r->fixed[k].absolute == absolute)
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
        *f = (struct region_fixed){.page = at & -(int64_t)MMU_PAGE_SIZE, .absolute = absolute};
    }
    f->write |= write;
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

static bool is_taken(const struct region *r, unsigned n, unsigned cell)
{
    for (unsigned k = 0; k < n; k++)
        if (r->fixed[k].cell == cell)
            return true;
    return false;
}

/* Each page has a cell; pages that share one with a page before them are left out. */
static void choose_cells(struct region *r)
{
    unsigned n = 0;

    for (unsigned k = 0; k < r->nfixed && n < REGION_FIXED; k++) {
        struct region_fixed f = r->fixed[k];
        uint64_t linear = (f.absolute ? 0 : r->linear) + (uint64_t)f.page;
        unsigned hash = (uint32_t)(linear >> MMU_PAGE_SHIFT) * BT_HASH_FACTOR >> 25;

        _Static_assert(GEN_FIXED_CELLS == 128, "a hash of 7 bits");
        f.cell = (uint16_t)(GEN_FIRST_FIXED + (f.write ? GEN_FIXED_CELLS : 0) + hash);
        if (!is_taken(r, n, f.cell))
            r->fixed[n++] = f;
    }
    r->nfixed = n;
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
    while (n < r->nfixed && r->fixed[n].heat * 2 >= r->block[0].heat)
        n++;
    r->nfixed = n;
    choose_cells(r);
}

/* ---- the code ---- */

void region_check_fixed(struct gen *g, struct region *r)
{
    struct em *e = &g->e;

    for (unsigned k = 0; k < r->nfixed; k++) {
        struct region_fixed *f = &r->fixed[k];

        if (f->absolute) {
            em_rm(e, true, 0xc7, 0, em_reg(H_RAX)); /* MOV: sign-extended */
            em32(e, (uint32_t)f->page);
        } else {
            em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(tier_page));
            em_rm(e, true, OP_LEA, H_RAX, em_at(H_RAX, (int32_t)f->page));
        }
        em_rm(e, true, OP_ADD, H_RAX, gen_cell_field(f->cell, offsetof(struct mmu_cell, negative)));
        em_rm(e, true, OP_CMP, H_RAX, gen_cell_field(f->cell, offsetof(struct mmu_cell, limit)));
        f->site = em_jcc_later(e, CC_NC);
        f->back = em_rx(e);
    }
}

void region_fill_fixed(struct gen *g, struct region *r)
{
    for (unsigned k = 0; k < r->nfixed; k++) {
        const struct region_fixed *f = &r->fixed[k];

        gen_miss(g, &(struct gen_slow){.site = f->site,
                                       .cell = (uint16_t)(f->cell + 1),
                                       .size = 1,
                                       .write = f->write,
                                       .retry = f->back});
        em_jmp(&g->e, r->elsewhere);
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
    if (!f || (write && !f->write) || (at & (MMU_PAGE_SIZE - 1)) + size > MMU_PAGE_SIZE)
        return false;
    em_rm(&g->e, true, OP_LOAD, H_RAX, gen_cell_field(f->cell, offsetof(struct mmu_cell, host)));
    em_lea(&g->e, true, H_RAX, em_at(H_RAX, (int32_t)(at & (MMU_PAGE_SIZE - 1))));
    return true;
}

bool gen_has_fixed(const struct gen *g)
{
    return g->region && g->region->nfixed;
}
