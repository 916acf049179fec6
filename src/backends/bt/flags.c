/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/flags.c: where the guest's arithmetic flags are. */
#include "backends/bt/gen.h"

/* LAHF; SETO AL; MOV cc, AX */
static void store_cc(struct gen *g)
{
    EM(&g->e, 0x9f, 0x0f, 0x90, 0xc0);
    em_insn(&g->e, (struct em_op){.op = OP_STORE, .half = true}, H_RAX, GEN_FIELD(cc));
    g->in_cc = true;
}

/* MOVZX EAX, cc; ADD AL, 127; SAHF */
void gen_load_cc(struct gen *g)
{
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xb7}, H_RAX, GEN_FIELD(cc));
    EM(&g->e, 0x04, 0x7f, 0x9e);
}

void gen_save_flags(struct gen *g)
{
    if (!g->in_cc)
        store_cc(g);
}

void gen_spill_flags(struct gen *g)
{
    gen_save_flags(g);
    g->in_host = false;
}

void gen_need_flags(struct gen *g)
{
    if (g->in_host)
        return;
    gen_load_cc(g);
    g->in_host = true;
}

/* BT cc, 8: CF is bit 0 of what LAHF has given. Only for instructions that set the others. */
void gen_need_carry(struct gen *g)
{
    if (g->in_host)
        return;
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xba, .half = true}, 4, GEN_FIELD(cc));
    em8(&g->e, 8);
}
