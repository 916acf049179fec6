/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/vec.c: vector and mask instructions, with the guest's registers in the host's. */
#include "backends/bt/region.h"

/*
 * An instruction is copied as it is but for its memory operand, which becomes [RAX] or [RCX], and
 * its general registers. Its handler does what is rare: an operand that is not aligned or not
 * within one page that may be accessed; there, elements that a mask leaves out do not fault. When
 * all of the operand is in such a page, nothing can fault.
 */

#define W_VEX (BT_SIMD_W_SSE | BT_SIMD_W_AVX) /* zeroes what is above the operand */

/* ---- what has to be loaded, and stored later ---- */

static uint32_t writes(const struct vec_copy *c)
{
    uint32_t bits = c->regs.kstore ? BT_SIMD_W_OPMASK : 0;

    for (unsigned r = 0; r < 32; r++) {
        if (!c->regs.store[r])
            continue;
        if (r >= 16)
            bits |= BT_SIMD_W_HI16;
        else if (c->form.class == VEC_SSE)
            bits |= BT_SIMD_W_SSE;
        else
            bits |= W_VEX | (c->regs.store[r] == 64 ? BT_SIMD_W_ZMM_HI : 0);
    }
    return bits;
}

static uint32_t needs(const struct vec_copy *c)
{
    static const uint8_t levels[] = {[VEC_MMX] = 0,
                                     [VEC_SSE] = BT_SIMD_SSE,
                                     [VEC_AVX] = BT_SIMD_AVX,
                                     [VEC_AVX512] = BT_SIMD_AVX512};
    uint32_t level = levels[c->form.class];

    if (c->form.mmx || c->form.class == VEC_MMX)
        level |= BT_SIMD_X87 | BT_SIMD_W_X87;
    return level | (c->form.fp ? BT_SIMD_FP : 0) | writes(c);
}

/* ---- writing ---- */

static bool uses(const struct vec_copy *c, unsigned slot)
{
    return c->form.gread >> slot & 1;
}

/* The operand's address, in RAX. False: not possible. */
static bool address(struct gen *g, const struct vec_copy *c)
{
    unsigned nslow = g->nslow;

    if (!gen_mem(g, c->form.mem_size, c->form.store))
        return false;
    if (c->form.align <= 1 && c->form.mem_size >= 16 && !c->form.store && g->nslow > nslow)
        g->slow[g->nslow - 1].found = em_rx(&g->e);
    if (c->form.align > 1) {
        EM(&g->e, 0xa8, (uint8_t)(c->form.align - 1)); /* TEST AL: as the guest's address */
        gen_slow_if(g, CC_NZ);
    }
    return true;
}

static void get_registers(struct gen *g, const struct vec_copy *c)
{
    if (c->scratch)
        gen_get(g, H_RCX, c->resident);
    if (uses(c, VEC_G_RAX))
        gen_get(g, H_RAX, VMM_RAX);
}

static void put_registers(struct gen *g, const struct vec_copy *c)
{
    if (c->scratch && (c->form.gwrite & 7))
        gen_put(g, c->resident, H_RCX);
    if (c->form.gwrite >> VEC_G_RCX & 1)
        gen_put(g, VMM_RCX, H_RCX);
}

/* What stands before ModRM, for a base of R8 to R15. */
static void put_high_base(struct gen *g, const struct vec_core *core)
{
    uint8_t code[sizeof(core->code) + 1];
    unsigned n = core->modrm, at = 0;

    memcpy(code, core->code, n);
    if (code[0] == 0xc4 || code[0] == 0x62) { /* VEX, EVEX: B is inverted */
        code[1] &= (uint8_t)~0x20u;
    } else {
        at = code[0] == 0x66 || (code[0] & 0xfe) == 0xf2; /* mandatory prefix */
        if ((code[at] & 0xf0) != 0x40) {
            memmove(code + at + 1, code + at, n++ - at);
            code[at] = 0x40;
        }
        code[at] |= 1;
    }
    em_bytes(&g->e, code, n);
}

void gen_put_core(struct gen *g, const struct vec_core *core, struct em_rm rm)
{
    unsigned rest = core->modrm + 1, modrm = core->code[core->modrm];
    bool disp = rm.mem && (rm.disp || (rm.reg & 7) == H_RBP);
    /* They would be scaled in EVEX. */
    bool byte = rm.disp == (int8_t)rm.disp && core->code[0] != 0x62;

    if (rm.mem)
        modrm = (modrm & ~7u) | (rm.reg & 7) | (!disp ? 0 : byte ? 0x40 : 0x80);
    if (rm.mem && rm.reg >= 8)
        put_high_base(g, core);
    else
        em_bytes(&g->e, core->code, core->modrm);
    em8(&g->e, modrm);
    if (disp && byte)
        em8(&g->e, (uint8_t)rm.disp);
    else if (disp)
        em32(&g->e, (uint32_t)rm.disp);
    em_bytes(&g->e, core->code + rest, core->len - rest);
}

/* It can be executed again for the flags, as long as its operands are what they were. In regions
 * that have all it needs: elsewhere handlers may come back without these registers. */
static void make_recipe(struct gen *g, const struct vec_copy *c)
{
    struct gen_recipe r = {.len = c->core.len};

    if (!g->simd_have || (needs(c) & ~g->simd_have))
        return;
    if (c->form.mem_size || c->form.gread || c->form.gwrite || c->form.mmx ||
        c->form.class == VEC_MMX || c->core.len > sizeof(r.code))
        return;
    memcpy(r.code, c->core.code, c->core.len);
    for (unsigned i = 0; i < 32; i++)
        r.vec |= (uint64_t)(c->regs.load[i] != 0) << i;
    r.vec |= (uint64_t)c->regs.kload << 32;
    if (r.vec)
        g->recipe = r;
}

static bool copy(struct gen *g, const struct vec_copy *c, uint32_t need)
{
    struct em_rm rm = em_reg(0);

    gen_simd(g, need);
    if (c->form.mem_size && g->held) {
        rm = gen_held(g, g->op->disp);
        if (rm.reg == H_RCX && c->scratch)
            return false;
    } else if (c->form.mem_size) {
        if (!address(g, c))
            return false;
        if (uses(c, VEC_G_RAX)) /* the base is RCX then */
            em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
    }
    get_registers(g, c);
    gen_put_core(g, &c->core, rm);
    put_registers(g, c);
    g->keeps_rcx = !c->scratch && !(c->form.gwrite >> VEC_G_RCX & 1);
    if (c->form.flags) {
        gen_flags_set(g);
        make_recipe(g, c);
    }
    return true;
}

/* PCMPESTRI and its like have operands in RAX and RDX, and results in RCX. */
static bool implied_registers(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        return true;
    default:
        return false;
    }
}

/* The current op, with all that is known of it. NULL: it is not valid. */
static struct x86_dec *decode_again(const struct gen *g, struct x86_dec *room)
{
    struct x86_dec *d;

    return ZYAN_SUCCESS(x86_dec_get(g->cpu, g->b->mode, g->bytes, X86_BLOCK_MAX * 15u - g->op->off,
                                    room, &d))
               ? d
               : NULL;
}

/* VZEROUPPER, VZEROALL: as many registers as the mode has. */
static bool zero(struct gen *g)
{
    struct x86_dec room, *d = decode_again(g, &room);

    if (!g->is64 || !d || !vec_may_execute(d))
        return false;
    gen_simd(g, BT_SIMD_AVX | W_VEX);
    EM(&g->e, 0xc5, g->insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL ? 0xfc : 0xf8, 0x77);
    return true;
}

static bool emms(struct gen *g)
{
    struct x86_dec room, *d = decode_again(g, &room);

    if (!g->bt->host.xsave || !d || !vec_may_execute(d))
        return false;
    gen_simd(g, BT_SIMD_X87 | BT_SIMD_W_X87);
    EM(&g->e, 0x0f, 0x77);
    return true;
}

/* Finds the form with the general registers where they are now. */
static bool decode(const struct gen *g, const struct x86_dec *from, struct vec_copy *c)
{
    struct x86_dec d = {.cpu = g->cpu, .mode = g->b->mode, .code = from->code, .insn = from->insn};
    struct vec_target target = {.base = H_RAX, .gpr = g->host, .scratch = H_RCX};

    memcpy(d.opnd, from->opnd, sizeof(d.opnd));
    if (implied_registers(d.insn.mnemonic))
        target.base = H_RCX;
    return vec_dec_copy(&d, &target, c) &&
           (g->bt->host.xsave || (c->form.class != VEC_MMX && !c->form.mmx));
}

static bool is_vec_register(const struct gen_operand *o)
{
    ZydisRegisterClass c =
        o->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(o->reg.value) : 0;

    return c == ZYDIS_REGCLASS_MMX || c == ZYDIS_REGCLASS_XMM;
}

/* A quick look: most instructions are not. */
static bool may_be_vec(const struct gen_insn *in)
{
    if (in->insn->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return true;
    if (in->insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    for (unsigned i = 0; i < in->insn->operand_count_visible; i++)
        if (is_vec_register(&in->opnd[i]))
            return true;
    return in->insn->excepts;
}

void gen_find_vec(const struct gen *g, const struct x86_dec *d, struct gen_insn *in,
                  struct vec_copy *room)
{
    in->is_vec = may_be_vec(in) && decode(g, d, room);
    if (in->is_vec)
        in->vec = room;
}

uint32_t gen_vec_needs(const struct gen_insn *in)
{
    return in->is_vec ? needs(in->vec) : 0;
}

bool gen_vec_is_safe(const struct gen *g, const struct gen_insn *in)
{
    return g->simd_have && !in->vec->form.mem_size && !in->vec->form.gread &&
           !(needs(in->vec) & ~g->simd_have);
}

uint64_t gen_vec_writes(const struct gen_insn *in)
{
    uint64_t regs = (uint64_t)in->vec->regs.kstore << 32;

    if (!in->is_vec) /* VZEROUPPER, VZEROALL; others do not */
        return in->insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? ~UINT64_C(0) : 0;
    for (unsigned i = 0; i < 32; i++)
        regs |= (uint64_t)(in->vec->regs.store[i] != 0) << i;
    return regs;
}

bool gen_vec(struct gen *g)
{
    const struct gen_insn *in = &g->all[g->i];
    struct x86_dec room, *d;
    struct vec_copy c;

    if (in->insn->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ||
        in->insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL)
        return zero(g);
    if (in->insn->mnemonic == ZYDIS_MNEMONIC_EMMS)
        return emms(g);
    if (!in->is_vec)
        return false;
    if (!in->vec->form.gread)
        return copy(g, in->vec, needs(in->vec));
    d = decode_again(g, &room);
    return d && decode(g, d, &c) && copy(g, &c, needs(&c));
}

/* ---- regions ---- */

static uint32_t needs_of_block(const struct gen *g, const struct region_block *rb)
{
    uint32_t need = 0;

    for (unsigned i = 0; i < rb->b->n; i++) {
        const struct gen_insn *in = &rb->all[i];

        if (in->is_x87 && g->bt->host.xsave)
            need |= BT_SIMD_X87 | BT_SIMD_W_X87;
        else
            need |= gen_vec_needs(in);
    }
    return need;
}

/* Blocks that are executed seldom see for themselves: loading takes its time, too, and all of it
 * has to be done again behind handlers. */
uint32_t region_simd(const struct region *r)
{
    uint32_t need = 0;

    for (unsigned i = 0; i < r->n; i++)
        if (r->block[i].heat >= r->block[0].heat / 4)
            need |= needs_of_block(&r->base, &r->block[i]);
    return need;
}
