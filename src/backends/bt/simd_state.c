/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/simd_state.c: the guest's vector state on its way into host registers and back. */
#include "backends/bt/gen.h"
#include "core/x86/xstate.h"

/*
 * While translated code runs, the host's vector registers may hold the guest's. cpu->simd_lack says
 * what is missing, in bits BT_SIMD_*: of the first ones a clear bit means that those registers are
 * loaded and that CR0, CR4 and XCR0 allow instructions to use them; of BT_SIMD_WRITES that the
 * component may have been changed since, so that it has to be stored, and counts as used in XINUSE.
 * One test covers all that a piece of code needs.
 *
 * Code that is not generated may use all these registers and finds the guest's in memory: every way
 * out goes through bt_simd_out.
 */

#define LEVELS      (BT_SIMD_SSE | BT_SIMD_AVX | BT_SIMD_AVX512)
#define MASKS       0x1f80u /* of MXCSR */
#define X87_MASKS   0x3fu
#define X87_PENDING (X87_ES << 16) /* FSW follows FCW */
#define USE(bit)    (1u << (bit))
#define HIGH_HALVES (X86_XCR0_AVX | USE(X86_XC_ZMM_HI))

/* Offset of `reg` from RBP. */
static int32_t vec_field(unsigned reg)
{
    return BT_FIELD(fpu.vec) + (int32_t)reg * 64;
}

/* ---- moves of registers ---- */

static void put_vzeroupper(struct em *e)
{
    EM(e, 0xc5, 0xf8, 0x77);
}

/* MOVUPS, VMOVDQU */
static void move_low(struct em *e, unsigned bytes, bool store)
{
    for (unsigned r = 0; r < 16; r++) {
        struct em_op op = {.map = 1, .op = store ? 0x11 : 0x10};

        if (bytes == 32)
            op = (struct em_op){
                .vex = true, .map = 1, .op = store ? 0x7f : 0x6f, .pp = 2, .vex_l = 1};
        em_insn(e, op, r, em_at(H_RBP, vec_field(r)));
    }
}

/* VMOVDQU64 */
static void move_zmm(struct em *e, unsigned first, bool store)
{
    for (unsigned r = first; r < first + 16; r++) {
        EM(e, 0x62, (uint8_t)((~r >> 3 & 1) << 7 | 0x60 | (~r >> 4 & 1) << 4 | 1), 0xfe, 0x48,
           store ? 0x7f : 0x6f, (uint8_t)(0x85 | (r & 7) << 3));
        em32(e, (uint32_t)vec_field(r));
    }
}

/* VPXORD */
static void zero_high(struct em *e)
{
    for (unsigned r = 16; r < 32; r++) {
        unsigned x = ~r >> 3 & 1;

        EM(e, 0x62, (uint8_t)(x << 7 | x << 5 | 1), (uint8_t)((~r & 15) << 3 | 5), 0x40, 0xef,
           (uint8_t)(0xc0 | (r & 7) << 3 | (r & 7)));
    }
}

/* KMOVQ */
static void move_masks(struct em *e, bool store)
{
    for (unsigned k = 0; k < 8; k++)
        em_insn(e, (struct em_op){.vex = true, .map = 1, .op = store ? 0x91 : 0x90, .wide = true},
                k, em_at(H_RBP, BT_FIELD(fpu.k) + (int32_t)k * 8));
}

/* KXORQ */
static void zero_masks(struct em *e)
{
    for (unsigned k = 0; k < 8; k++)
        em_insn(
            e,
            (struct em_op){
                .vex = true, .map = 1, .op = 0x47, .wide = true, .vex_l = 1, .vvvv = (uint8_t)k},
            k, em_reg(k));
}

/* ---- small steps ---- */

/* TEST m32, imm; a jump on `cc`. */
static uint8_t *test_field(struct em *e, int32_t field, uint32_t bits, unsigned cc)
{
    em_rm(e, false, 0xf7, 0, em_at(H_RBP, field));
    em32(e, bits);
    return em_jcc_later(e, cc);
}

static uint8_t *test_reg(struct em *e, unsigned reg, uint32_t bits, unsigned cc)
{
    em_rr(e, false, 0xf7, 0, reg);
    em32(e, bits);
    return em_jcc_later(e, cc);
}

static void set_bits(struct em *e, unsigned reg, uint32_t bits)
{
    em_imm(e, false, EXT_OR, em_reg(reg), (int32_t)bits);
}

/* STMXCSR, LDMXCSR */
static void swap_mxcsr(struct em *e, int32_t to, int32_t from)
{
    em_insn(e, (struct em_op){.map = 1, .op = 0xae}, 3, em_at(H_RBP, to));
    em_insn(e, (struct em_op){.map = 1, .op = 0xae}, 2, em_at(H_RBP, from));
}

/* ---- out ---- */

/* The low sixteen registers, if they have been written, as wide as they have been loaded: that is
 * how they will be again, and a load is served by a store of its own size only while that is on its
 * way. RDX: simd_lack. */
static void put_store_low(struct em *e, const struct bt_features *host)
{
    uint8_t *clean, *done[3], *narrow[2];
    unsigned n = 0;

    if (host->avx) {
        uint8_t *dirty;

        narrow[0] = test_reg(e, H_RDX, BT_SIMD_AVX, CC_NZ);
        dirty = test_reg(e, H_RDX, BT_SIMD_W_AVX, CC_Z);
        done[n++] = test_reg(e, H_RDX, BT_SIMD_W_SSE, CC_NZ);
        narrow[1] = test_field(e, BT_FIELD(fpu.xinuse), HIGH_HALVES, CC_Z);
        em_here(e, dirty);
        if (host->avx512) {
            uint8_t *ymm = test_field(e, BT_FIELD(fpu.xinuse), USE(X86_XC_ZMM_HI), CC_Z);

            move_zmm(e, 0, true);
            done[n++] = em_jmp_later(e);
            em_here(e, ymm);
        }
        move_low(e, 32, true);
        done[n++] = em_jmp_later(e);
        em_here(e, narrow[0]);
        em_here(e, narrow[1]);
    }
    clean = test_reg(e, H_RDX, BT_SIMD_W_SSE, CC_NZ);
    move_low(e, 16, true);
    em_here(e, clean);
    while (n)
        em_here(e, done[--n]);
}

/* PUSH, POP */
static void push(struct em *e, unsigned reg)
{
    em8(e, 0x50 | reg);
}

static void pop(struct em *e, unsigned reg)
{
    em8(e, 0x58 | reg);
}

/* XSAVE64 or XRSTOR64 (`ext`) of the x87 state alone. Changes RAX and RDX. */
static void move_x87(struct em *e, unsigned ext)
{
    em_const(e, H_RAX, X86_XCR0_X87);
    em_rr(e, false, OP_XOR, H_RDX, H_RDX);
    em_insn(e, (struct em_op){.map = 1, .op = 0xae, .wide = true}, ext, GEN_FIELD(fpu.fcw));
}

/* FLDCW, FNSTCW */
static void move_fcw(struct em *e, unsigned ext)
{
    em_insn(e, (struct em_op){.op = 0xd9}, ext, GEN_FIELD(simd_fcw));
}

/* The host has no idea of the guest's instruction and data pointers: fpu has them already. For the
 * program the stack must be empty, and nothing pending when its control word comes back. */
static void put_store_x87(struct em *e)
{
    _Static_assert(offsetof(struct x86_fpu, fcw) % 64 == 0, "XSAVE's alignment");
    _Static_assert(offsetof(struct x86_fpu, x87) == offsetof(struct x86_fpu, fcw) + 32, "layout");
    _Static_assert(offsetof(struct x86_fpu, area_header) == offsetof(struct x86_fpu, fcw) + 512,
                   "layout");
    push(e, H_RAX);
    push(e, H_RCX);
    push(e, H_RDX);
    em_insn(e, (struct em_op){.map = 1, .op = 0xb7}, H_RCX, GEN_FIELD(fpu.fop));
    em_rm(e, false, 0xff, 6, GEN_FIELD(fpu.fip)); /* PUSH m64 */
    em_rm(e, false, 0xff, 6, GEN_FIELD(fpu.fdp));
    move_x87(e, 4);
    em_rm(e, false, 0x8f, 0, GEN_FIELD(fpu.fdp));
    em_rm(e, false, 0x8f, 0, GEN_FIELD(fpu.fip));
    em_insn(e, (struct em_op){.op = OP_STORE, .half = true}, H_RCX, GEN_FIELD(fpu.fop));
    EM(e, 0xdb, 0xe2, 0x0f, 0x77); /* FNCLEX; EMMS */
    move_fcw(e, 5);
    pop(e, H_RDX);
    pop(e, H_RCX);
    pop(e, H_RAX);
}

/* Called with something live; changes RDX and flags. */
static void put_store(struct em *e, const struct bt_features *host)
{
    uint8_t *skip;

    em_rm(e, false, OP_LOAD, H_RDX, GEN_FIELD(simd_lack));
    skip = test_reg(e, H_RDX, BT_SIMD_FP, CC_NZ);
    swap_mxcsr(e, BT_FIELD(fpu.mxcsr), BT_FIELD(simd_mxcsr));
    em_here(e, skip);
    if (host->xsave) {
        skip = test_reg(e, H_RDX, BT_SIMD_X87, CC_NZ);
        put_store_x87(e);
        em_here(e, skip);
    }
    put_store_low(e, host);
    if (host->avx512) {
        skip = test_reg(e, H_RDX, BT_SIMD_W_HI16, CC_NZ);
        move_zmm(e, 16, true);
        em_here(e, skip);
        skip = test_reg(e, H_RDX, BT_SIMD_W_OPMASK, CC_NZ);
        move_masks(e, true);
        em_here(e, skip);
    }
    if (host->avx) {
        skip = test_reg(e, H_RDX, BT_SIMD_AVX, CC_NZ);
        put_vzeroupper(e); /* SSE code of the host pays for upper halves */
        em_here(e, skip);
    }
    em_rm(e, false, 0xc7, 0, GEN_FIELD(simd_lack));
    em32(e, ~0u);
    em8(e, 0xc3);
}

void bt_simd_out(struct em *e, const struct bt_stubs *s)
{
    uint8_t *none;

    em_imm(e, false, EXT_CMP, GEN_FIELD(simd_lack), -1);
    none = em_jcc_later(e, CC_Z);
    em8(e, 0xe8);
    e->p += 4;
    em_patch(e, e->p - 4, s->simd_store);
    em_here(e, none);
}

/* ---- in ---- */

/* EAX = the levels that instructions may use (SDM Vol. 3A 2.5, Vol. 1 13.5.3 and 14.4.3). */
static void put_allowed(struct em *e, const struct bt_features *host)
{
    uint8_t *emulate, *no_osfxsr, *out[4];
    unsigned n = 0;

    em_rr(e, false, OP_XOR, H_RAX, H_RAX);
    out[n++] = test_field(e, BT_FIELD(cr0), X86_CR0_TS, CC_NZ);
    emulate = test_field(e, BT_FIELD(cr0), X86_CR0_EM, CC_NZ);
    no_osfxsr = test_field(e, BT_FIELD(cr4), X86_CR4_OSFXSR, CC_Z);
    set_bits(e, H_RAX, BT_SIMD_SSE);
    em_here(e, emulate);
    em_here(e, no_osfxsr);
    if (host->avx) {
        out[n++] = test_field(e, BT_FIELD(cr4), X86_CR4_OSXSAVE, CC_Z);
        em_rm(e, false, OP_LOAD, H_RDX, GEN_FIELD(xcr0));
        em_rr(e, false, 0xf7, 2, H_RDX); /* NOT */
        out[n++] = test_reg(e, H_RDX, X86_XCR0_SSE | X86_XCR0_AVX, CC_NZ);
        set_bits(e, H_RAX, BT_SIMD_AVX);
        if (host->avx512) {
            out[n++] = test_reg(e, H_RDX, X86_XCR0_AVX512, CC_NZ);
            set_bits(e, H_RAX, BT_SIMD_AVX512);
        }
    }
    while (n)
        em_here(e, out[--n]);
}

/* ZF: the upper 128 (`bytes` 16) or 256 bits (32) of the low sixteen registers are zero in memory.
 */
static void put_compare_high(struct em *e, unsigned bytes)
{
    const unsigned wide = bytes == 32;

    for (unsigned r = 0; r < 16; r++) {
        struct em_op op = {.vex = true, .map = 1, .op = 0xeb, .pp = 1, .vex_l = wide}; /* VPOR */

        if (r == 0)
            op.op = 0x6f; /* VMOVDQA */
        em_insn(e, op, 0, em_at(H_RBP, vec_field(r) + (int32_t)bytes));
    }
    em_insn(e, (struct em_op){.vex = true, .map = 2, .op = 0x17, .pp = 1, .vex_l = wide}, 0,
            em_reg(0)); /* VPTEST */
}

/*
 * Upper halves that are zero are not in use. To load them would make no difference but for the time
 * of legacy SSE instructions: processors keep the upper halves that these leave alone apart, or
 * merge them, unless nothing has written to them since VZEROUPPER, as is the rule in programs.
 */
static void put_forget_zeros(struct em *e, const struct bt_features *host)
{
    const struct {
        unsigned bit, bytes;
    } part[] = {{X86_XC_ZMM_HI, 32}, {X86_XC_AVX, 16}};

    for (unsigned i = host->avx512 ? 0 : 1; i < 2; i++) {
        uint8_t *unused = test_field(e, BT_FIELD(fpu.xinuse), USE(part[i].bit), CC_Z), *used;

        put_compare_high(e, part[i].bytes);
        used = em_jcc_later(e, CC_NZ);
        em_imm(e, false, EXT_AND, GEN_FIELD(fpu.xinuse), ~(int32_t)USE(part[i].bit));
        em_here(e, used);
        em_here(e, unused);
    }
    put_vzeroupper(e);
}

/* The low sixteen registers, with upper halves as far as they are in use, which are zero else. */
static void put_load_low(struct em *e, bool zmm)
{
    const int32_t xinuse = BT_FIELD(fpu.xinuse);
    uint8_t *other, *done[2];
    unsigned n = 0;

    if (zmm) {
        other = test_field(e, xinuse, USE(X86_XC_ZMM_HI), CC_Z);
        move_zmm(e, 0, false);
        done[n++] = em_jmp_later(e);
        em_here(e, other);
    }
    other = test_field(e, xinuse, X86_XCR0_AVX, CC_Z);
    move_low(e, 32, false);
    done[n++] = em_jmp_later(e);
    em_here(e, other);
    move_low(e, 16, false);
    while (n)
        em_here(e, done[--n]);
}

/* All registers. */
static void put_load_avx512(struct em *e)
{
    const int32_t xinuse = BT_FIELD(fpu.xinuse);
    uint8_t *other, *done;

    put_load_low(e, true);
    other = test_field(e, xinuse, USE(X86_XC_HI16), CC_Z);
    move_zmm(e, 16, false);
    done = em_jmp_later(e);
    em_here(e, other);
    zero_high(e);
    em_here(e, done);
    other = test_field(e, xinuse, USE(X86_XC_OPMASK), CC_Z);
    move_masks(e, false);
    done = em_jmp_later(e);
    em_here(e, other);
    zero_masks(e);
    em_here(e, done);
}

/*
 * Loads what ECX asks for, and more if it is in use and allowed, so that code of different kinds in
 * turn does not load again and again. RAX: the allowed levels; left are those that are loaded.
 * While ZMM_Hi256 is in use YMM registers alone do not do, as what is above them becomes zero, too.
 */
static void put_load_levels(struct em *e, const struct bt_features *host)
{
    const int32_t xinuse = BT_FIELD(fpu.xinuse);
    uint8_t *done[2], *skip[2], *go;
    unsigned n = 0;

    if (host->avx)
        put_forget_zeros(e, host);
    if (host->avx512) {
        skip[0] = test_reg(e, H_RAX, BT_SIMD_AVX512, CC_Z);
        go = test_reg(e, H_RCX, BT_SIMD_AVX512, CC_NZ);
        skip[1] = test_field(e, xinuse, X86_XCR0_AVX512, CC_Z);
        em_here(e, go);
        put_load_avx512(e);
        done[n++] = em_jmp_later(e);
        em_here(e, skip[0]);
        em_here(e, skip[1]);
    }
    if (host->avx) {
        skip[0] = test_reg(e, H_RAX, BT_SIMD_AVX, CC_Z);
        skip[1] = test_field(e, xinuse, USE(X86_XC_ZMM_HI), CC_NZ);
        put_load_low(e, false);
        em_imm(e, false, EXT_AND, em_reg(H_RAX), BT_SIMD_SSE | BT_SIMD_AVX);
        done[n++] = em_jmp_later(e);
        em_here(e, skip[0]);
        em_here(e, skip[1]);
    }
    move_low(e, 16, false);
    em_imm(e, false, EXT_AND, em_reg(H_RAX), BT_SIMD_SSE);
    while (n)
        em_here(e, done[--n]);
}

/* What is refused jumps to a place that comes later. */
struct refusals {
    uint8_t *site[8];
    unsigned n;
};

/* MXCSR, if RAX says that it lacks. */
static void put_load_mxcsr(struct em *e, struct refusals *r)
{
    uint8_t *skip = test_reg(e, H_RAX, BT_SIMD_FP, CC_Z);

    push(e, H_RAX);
    em_rm(e, false, OP_LOAD, H_RAX, GEN_FIELD(fpu.mxcsr));
    em_rr(e, false, 0xf7, 2, H_RAX);
    em_rr(e, false, 0xf7, 0, H_RAX);
    em32(e, MASKS);
    pop(e, H_RAX);
    r->site[r->n++] = em_jcc_later(e, CC_NZ);
    swap_mxcsr(e, BT_FIELD(simd_mxcsr), BT_FIELD(fpu.mxcsr));
    em_imm(e, false, EXT_AND, GEN_FIELD(simd_lack), ~(int32_t)BT_SIMD_FP);
    em_here(e, skip);
}

/* The x87 state, likewise. Changes RAX. */
static void put_load_x87(struct em *e, const struct bt_features *host, struct refusals *r)
{
    uint8_t *skip = test_reg(e, H_RAX, BT_SIMD_X87, CC_Z);

    if (!host->xsave) {
        r->site[r->n++] = em_jmp_later(e);
        em_here(e, skip);
        return;
    }
    r->site[r->n++] = test_field(e, BT_FIELD(cr0), X86_CR0_EM | X86_CR0_TS, CC_NZ);
    r->site[r->n++] = test_field(e, BT_FIELD(fpu.fcw), X87_PENDING, CC_NZ);
    em_rm(e, false, OP_LOAD, H_RAX, GEN_FIELD(fpu.fcw));
    em_rr(e, false, 0xf7, 2, H_RAX);
    r->site[r->n++] = test_reg(e, H_RAX, X87_MASKS, CC_NZ);
    move_fcw(e, 7);
    em_rm(e, true, 0xc7, 0, GEN_FIELD(fpu.area_header)); /* XSTATE_BV */
    em32(e, X86_XCR0_X87);
    push(e, H_RDX);
    move_x87(e, 5);
    pop(e, H_RDX);
    em_here(e, skip);
}

/* ECX: what code is going to need. CF: it may not have all of that. Changes RAX, RCX and flags. */
static void put_load(struct em *e, const struct bt *bt)
{
    struct refusals r = {.n = 0};
    uint8_t *loaded;

    em_rm(e, false, OP_LOAD, H_RAX, GEN_FIELD(simd_lack));
    em_rr(e, false, 0x21, H_RCX, H_RAX); /* AND */
    loaded = test_reg(e, H_RAX, LEVELS, CC_Z);
    push(e, H_RDX);
    bt_simd_out(e, &bt->stubs);
    put_allowed(e, &bt->host);
    put_load_levels(e, &bt->host);
    pop(e, H_RDX);
    em_rr(e, false, 0xf7, 2, H_RAX);
    em_rm(e, false, OP_STORE, H_RAX, GEN_FIELD(simd_lack));
    em_rr(e, false, 0x21, H_RCX, H_RAX);
    r.site[r.n++] = test_reg(e, H_RAX, LEVELS, CC_NZ);
    em_here(e, loaded);
    put_load_mxcsr(e, &r);
    put_load_x87(e, &bt->host, &r);
    em_rr(e, false, OP_LOAD, H_RAX, H_RCX);
    em_rr(e, false, 0xf7, 2, H_RAX);
    em_rm(e, false, 0x21, H_RAX, GEN_FIELD(simd_lack));
    em_rr(e, false, OP_SHIFT, EXT_SHR, H_RCX);
    em8(e, BT_SIMD_W_SHIFT);
    em_rm(e, false, 0x09, H_RCX, GEN_FIELD(fpu.xinuse)); /* OR: CF is 0 */
    em8(e, 0xc3);
    while (r.n)
        em_here(e, r.site[--r.n]);
    EM(e, 0xf9, 0xc3); /* STC; RET */
}

void bt_make_simd_stubs(struct bt *bt, struct em *e)
{
    bt->stubs.simd_store = em_rx(e);
    put_store(e, &bt->host);
    bt->stubs.simd_load = em_rx(e);
    put_load(e, bt);
}

/* ---- in translated code ---- */

/*
 * What an instruction needs is asked for where the first one of a run of them needs something: the
 * test there is extended by what the others need, as long as nothing in between lets the state go.
 */
void gen_simd(struct gen *g, uint32_t need)
{
    struct gen_simd *s = &g->simd[g->simd_now];

    if (!(need & ~g->simd_have))
        return;
    need |= g->simd_have; /* to load one thing may let go of another */
    g->simd_need[g->i] |= need;
    if (g->simd_now) {
        g->simd_of[g->i] = g->simd_now;
        s->need |= need;
        memcpy(s->test, &s->need, 4);
        return;
    }
    gen_x87_settle(g);
    if (g->recipe.len && g->recipe.vec)
        gen_save_flags(g); /* its registers may not be there when it is needed */
    gen_free_flags(g);
    g->simd_now = ++g->nsimd;
    g->simd_of[g->i] = g->simd_now;
    s = &g->simd[g->simd_now];
    *s = (struct gen_simd){.need = need, .i = (uint8_t)g->i};
    em_rm(&g->e, false, 0xf7, 0, GEN_FIELD(simd_lack)); /* TEST */
    s->test = g->e.p;
    em32(&g->e, need);
    s->site = em_jcc_later(&g->e, CC_NZ);
    s->back = em_rx(&g->e);
    if (!g->in_cc)
        s->recipe = g->recipe;
}

static void call_load(struct gen *g, uint32_t need)
{
    em_const(&g->e, H_RCX, need);
    em8(&g->e, 0xe8);
    g->e.p += 4;
    em_patch(&g->e, g->e.p - 4, g->bt->stubs.simd_load);
}

static void slow_if_refused(struct gen *g, unsigned i, struct gen_recipe recipe)
{
    g->slow[g->nslow++] =
        (struct gen_slow){.site = em_jcc_later(&g->e, CC_C), .i = (uint8_t)i, .recipe = recipe};
    g->slow_ops |= 1ull << i;
}

void gen_simd_loads(struct gen *g)
{
    for (unsigned k = 1; k <= g->nsimd; k++) {
        struct gen_simd *s = &g->simd[k];

        em_here(&g->e, s->site);
        call_load(g, s->need);
        slow_if_refused(g, s->i, s->recipe);
        em_jmp(&g->e, s->back);
    }
}

void gen_simd_restore(struct gen *g)
{
    if (g->simd_have)
        call_load(g, g->simd_have); /* which bt_run_handlers has found to be possible */
}

void gen_simd_again(struct gen *g, unsigned i)
{
    uint32_t need = 0;

    gen_simd_restore(g);
    for (unsigned k = i; k < g->b->n && g->simd_at[i]; k++)
        if (g->simd_of[k] == g->simd_at[i])
            need |= g->simd_need[k];
    if (!need)
        return;
    call_load(g, need);
    slow_if_refused(g, i, (struct gen_recipe){0});
}

/* ---- regions ---- */

uint8_t *gen_simd_check(struct gen *g)
{
    return test_field(&g->e, BT_FIELD(simd_lack), g->simd_have, CC_NZ);
}

void gen_simd_enter(struct gen *g, uint8_t *site, const void *back, const void *refused)
{
    em_here(&g->e, site);
    call_load(g, g->simd_have);
    em_jcc(&g->e, CC_C, refused);
    em_jmp(&g->e, back);
}
