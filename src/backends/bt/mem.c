/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/mem.c: memory operands: addresses, and the software TLB inline. */
#include "backends/bt/gen.h"

/* AX, CX, SP and BP are remapped, as RAX, RCX, RSP and RBP have other duties; what compilers use
 * least stays in memory. */
const uint8_t bt_host[16] = {H_R10, H_R11, H_RDX,  H_RBX,  H_R14, H_R15, H_RSI,  H_RDI,
                             H_R8,  H_R9,  H_NONE, H_NONE, H_R12, H_R13, H_NONE, H_NONE};

void gen_get(struct gen *g, unsigned reg, unsigned slot)
{
    if (gen_host(g, slot) == H_NONE)
        em_rm(&g->e, true, OP_LOAD, reg, gen_gpr(slot));
    else
        em_rr(&g->e, true, OP_LOAD, reg, gen_host(g, slot));
}

void gen_put(struct gen *g, unsigned slot, unsigned reg)
{
    if (gen_host(g, slot) == H_NONE)
        em_rm(&g->e, true, OP_STORE, reg, gen_gpr(slot));
    else
        em_rr(&g->e, true, OP_LOAD, gen_host(g, slot), reg);
}

void gen_sp(struct gen *g, unsigned reg, int32_t n)
{
    em_rm(&g->e, g->is64, OP_LEA, reg, em_at(gen_host(g, VMM_RSP), n));
}

/* ---- addresses ---- */

/* The offset from the page's beginning; false: too far for a displacement. */
static bool page_disp(const struct gen *g, int32_t *disp)
{
    int64_t d = (int64_t)g->op->disp + g->t->offset + g->page_delta +
                (g->op->index == X86_64K ? 0x10000 : 0);

    *disp = (int32_t)d;
    return d == *disp;
}

/* A register that holds guest register `slot`: its own, or `scratch`, loaded. */
static unsigned in_reg(struct gen *g, unsigned slot, unsigned scratch)
{
    if (gen_host(g, slot) != H_NONE)
        return gen_host(g, slot);
    gen_get(g, scratch, slot);
    return scratch;
}

/* Changes RAX and RCX at most, and no flags. */
bool gen_lea(struct gen *g, unsigned dst, bool wide)
{
    const struct x86_op *op = g->op;
    struct em_rm m = {.mem = true, .reg = H_NONE, .index = H_NONE, .disp = op->disp};

    if (op->base == X86_RIP0) {
        if (!page_disp(g, &m.disp))
            return false;
        em_rm(&g->e, true, OP_LOAD, H_RAX, GEN_FIELD(tier_page));
        m.reg = H_RAX;
    } else {
        if (op->base != X86_ZERO)
            m.reg = (uint8_t)in_reg(g, op->base, H_RAX);
        if (op->index != X86_ZERO) {
            m.index = (uint8_t)in_reg(g, op->index, H_RCX);
            m.scale = op->scale;
        }
    }
    em_lea(&g->e, wide, dst, m);
    return true;
}

bool gen_linear(struct gen *g)
{
    const struct x86_op *op = g->op;

    if (op->ea == X86_EA_SLOW)
        return false;
    if (!gen_lea(g, H_RAX, op->ea != X86_EA_FLAT32))
        return false;
    if (op->ea == X86_EA_SEG64)
        em_rm(&g->e, true, OP_ADD, H_RAX,
              op->seg == VMM_FS ? GEN_FIELD(seg[VMM_FS].base) : GEN_FIELD(seg[VMM_GS].base));
    return true;
}

/* ---- the TLB ---- */

void gen_slow_if(struct gen *g, unsigned cc)
{
    struct gen_slow *s = &g->slow[g->nslow++];

    s->site = em_jcc_later(&g->e, cc);
    s->i = (uint8_t)g->i;
    g->slow_ops |= 1ull << g->i;
    s->group = 0;
    s->hold = false;
    s->cell = 0;
    s->completed = false;
    s->retry = s->found = NULL;
    s->recipe.len = 0;
    s->x87_due = g->x87_due;
    if (!g->in_cc)
        s->recipe = g->recipe;
}

/* Regions look in line. Everything else calls shared code: short code is worth more there. */
void gen_probe(struct gen *g, unsigned size, bool write)
{
    struct em *e = &g->e;
    const void *retry;

    if (!g->region) {
        em_call(e, g->bt->stubs.look[write][bt_look_class(size)]);
        gen_slow_if(g, CC_C);
        return;
    }
    retry = gen_look(e, g->bt, size, write);
    gen_slow_if(g, CC_A);
    g->slow[g->nslow - 1].retry = retry;
    g->slow[g->nslow - 1].write = write;
    gen_look_found(e);
}

void gen_probe_off(struct gen *g, const struct gen_base *b, unsigned size, bool write)
{
    unsigned cell = gen_cell(g, b, size, write);
    struct gen_slow *s;

    if (cell == MMU_CELLS) {
        gen_probe(g, size, write);
        return;
    }
    em_rm(&g->e, true, OP_ADD, H_RAX, gen_cell_field(cell, offsetof(struct mmu_cell, negative)));
    em_rm(&g->e, true, OP_CMP, H_RAX, gen_cell_field(cell, offsetof(struct mmu_cell, limit)));
    gen_slow_if(g, CC_NC);
    s = &g->slow[g->nslow - 1];
    em_rm(&g->e, true, OP_ADD, H_RAX, gen_cell_field(cell, offsetof(struct mmu_cell, host)));
    s->retry = em_rx(&g->e);
    s->cell = (uint16_t)(cell + 1);
    s->size = (uint16_t)size;
    s->write = write;
}

bool gen_mem(struct gen *g, unsigned size, bool write)
{
    if (g->op->ea == X86_EA_SLOW)
        return false;
    if (gen_flags_use_at(g, g->i) & GEN_READS)
        gen_save_flags(g);
    gen_free_flags(g);
    if (gen_fixed(g, size, write))
        return true;
    if (!gen_linear(g))
        return false;
    if (g->op->ea == X86_EA_SEG64)
        gen_probe(g, size, write);
    else
        gen_probe_off(
            g,
            &(struct gen_base){.base = g->op->base, .index = g->op->index, .scale = g->op->scale},
            size, write);
    return true;
}

/* Host addresses have the guest's offset in the page. */
void gen_no_split(struct gen *g, unsigned size)
{
    if (size == 1)
        return;
    em_rr(&g->e, false, OP_LOAD, H_RCX, H_RAX);
    em_imm(&g->e, false, EXT_AND, em_reg(H_RCX), 63);
    em_imm(&g->e, false, EXT_CMP, em_reg(H_RCX), (int32_t)(64 - size));
    gen_slow_if(g, CC_A);
}
