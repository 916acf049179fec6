/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_emit.c: writes the machine code of thunks. */
#include <string.h>

#include "core/x86/vec_emit.h"

/*
 * A thunk is a function (struct x86_fpu *fpu: RDI, struct vec_ctx *ctx: RSI). Vector and mask
 * registers keep their numbers; general registers go through R8-R10, or RAX, RCX and RDX where the
 * instruction implies them. R11 is scratch. Neither is there a frame, nor are registers saved: the
 * calling convention lets a function change all these.
 */
#define RAX 0
#define RCX 1
#define RDX 2
#define RSI 6
#define RDI 7
#define R8  8
#define R11 11

static void put(struct vec_emit *e, const uint8_t *bytes, unsigned n)
{
    if (e->len + n <= VEC_EMIT_MAX)
        memcpy(e->code + e->len, bytes, n);
    e->len += n;
}

#define PUT(e, ...)                                                                                \
    do {                                                                                           \
        const uint8_t bytes_[] = {__VA_ARGS__};                                                    \
        put(e, bytes_, sizeof bytes_);                                                             \
    } while (0)

/* ModRM with a 32-bit displacement; base RSI or RDI. */
static void put_modrm(struct vec_emit *e, unsigned reg, unsigned base, size_t disp)
{
    PUT(e, (uint8_t)(0x80 | (reg & 7) << 3 | base), (uint8_t)disp, (uint8_t)(disp >> 8),
        (uint8_t)(disp >> 16), (uint8_t)(disp >> 24));
}

/* MOV between a 64-bit general register and ctx. */
static void put_gpr(struct vec_emit *e, unsigned reg, size_t offset, bool store)
{
    PUT(e, (uint8_t)(0x48 | (reg >> 3) << 2), store ? 0x89 : 0x8b);
    put_modrm(e, reg, RSI, offset);
}

/* MOVUPS, VMOVDQU or VMOVDQU64 between a vector register and fpu. */
static void put_vec(struct vec_emit *e, bool legacy, unsigned reg, unsigned size, bool store)
{
    size_t offset = offsetof(struct x86_fpu, vec) + reg * 64u;
    unsigned r = ~reg >> 3 & 1, r2 = ~reg >> 4 & 1;

    if (legacy) {
        if (reg >= 8)
            PUT(e, 0x44);
        PUT(e, 0x0f, store ? 0x11 : 0x10);
    } else if (reg < 16 && size <= 32) {
        PUT(e, 0xc5, (uint8_t)(r << 7 | 0x78 | (size == 32) << 2 | 2), store ? 0x7f : 0x6f);
    } else {
        PUT(e, 0x62, (uint8_t)(r << 7 | 0x60 | r2 << 4 | 1), 0xfe,
            (uint8_t)((size == 64   ? 0x40
                       : size == 32 ? 0x20
                                    : 0) |
                      8),
            store ? 0x7f : 0x6f);
    }
    put_modrm(e, reg, RDI, offset);
}

/* KMOVQ between a mask register and fpu. */
static void put_k(struct vec_emit *e, unsigned reg, bool store)
{
    PUT(e, 0xc4, 0xe1, 0xf8, store ? 0x91 : 0x90);
    put_modrm(e, reg, RDI, offsetof(struct x86_fpu, k) + reg * 8u);
}

/* MOVQ between an MMX register and fpu, where TOP is 0. */
static void put_mmx(struct vec_emit *e, unsigned reg, bool store)
{
    PUT(e, 0x0f, store ? 0x7f : 0x6f);
    put_modrm(e, reg, RDI, offsetof(struct x86_fpu, x87) + reg * 16u);
}

static void put_mxcsr(struct vec_emit *e, size_t offset, bool store)
{
    PUT(e, 0x0f, 0xae);
    put_modrm(e, store ? 3 : 2, RSI, offset);
}

static const uint8_t slot_reg[VEC_G_N] = {R8, R8 + 1, R8 + 2, RAX, RCX, RDX};

static void put_loads(struct vec_emit *e, const struct vec_form *f, const struct vec_regs *r)
{
    bool legacy = f->class <= VEC_SSE;

    for (unsigned i = 0; i < 8; i++) {
        if (r->mload >> i & 1)
            put_mmx(e, i, false);
        if (r->kload >> i & 1)
            put_k(e, i, false);
    }
    for (unsigned i = 0; i < 32; i++)
        if (r->load[i])
            put_vec(e, legacy, i, r->load[i], false);
    for (unsigned i = 0; i < VEC_G_N; i++)
        if ((f->gread | f->gwrite) >> i & 1)
            put_gpr(e, slot_reg[i], offsetof(struct vec_ctx, gpr) + i * 8, false);
}

static void put_stores(struct vec_emit *e, const struct vec_form *f, const struct vec_regs *r)
{
    bool legacy = f->class <= VEC_SSE;

    for (unsigned i = 0; i < 8; i++) {
        if (r->mstore >> i & 1)
            put_mmx(e, i, true);
        if (r->kstore >> i & 1)
            put_k(e, i, true);
    }
    for (unsigned i = 0; i < 32; i++)
        if (r->store[i]) /* VEX and EVEX have cleared what is above the operand */
            put_vec(e, legacy, i, !legacy && r->store[i] < 32 ? 32 : r->store[i], true);
    for (unsigned i = 0; i < VEC_G_N; i++)
        if (f->gwrite >> i & 1)
            put_gpr(e, slot_reg[i], offsetof(struct vec_ctx, gpr) + i * 8, true);
}

bool vec_emit_thunk(struct vec_emit *e, const struct vec_form *f, const struct vec_core *core,
                    const struct vec_regs *r)
{
    unsigned jump = 0;

    e->len = 0;
    PUT(e, 0xf3, 0x0f, 0x1e, 0xfa); /* ENDBR64 */
    put_loads(e, f, r);
    if (f->fp) {
        put_mxcsr(e, offsetof(struct vec_ctx, mxcsr_host), true);
        put_mxcsr(e, offsetof(struct vec_ctx, mxcsr_in), false);
    }
    put(e, core->code, core->len);
    if (f->flags) {
        PUT(e, 0x9c, 0x8f); /* PUSHFQ; POP ctx->flags */
        put_modrm(e, 0, RSI, offsetof(struct vec_ctx, flags));
    }
    if (f->fp) {
        put_mxcsr(e, offsetof(struct vec_ctx, mxcsr_out), true);
        put_mxcsr(e, offsetof(struct vec_ctx, mxcsr_host), false);
        PUT(e, 0x44, 0x8b); /* MOV R11D, ctx->mxcsr_out */
        put_modrm(e, R11, RSI, offsetof(struct vec_ctx, mxcsr_out));
        PUT(e, 0x44, 0x85); /* TEST ctx->unmasked, R11D */
        put_modrm(e, R11, RSI, offsetof(struct vec_ctx, unmasked));
        PUT(e, 0x0f, 0x85, 0, 0, 0, 0); /* JNZ behind the stores */
        jump = e->len;
    }
    put_stores(e, f, r);
    if (jump && e->len <= VEC_EMIT_MAX) {
        uint32_t distance = e->len - jump;

        memcpy(e->code + jump - 4, &distance, 4);
    }
    if (f->class >= VEC_AVX)
        PUT(e, 0xc5, 0xf8, 0x77); /* VZEROUPPER */
    if (f->mmx)
        PUT(e, 0x0f, 0x77); /* EMMS */
    PUT(e, 0xc3);
    return e->len <= VEC_EMIT_MAX;
}

void vec_emit_x87(struct vec_emit *e, const struct vec_core *core)
{
    e->len = 0;
    PUT(e, 0xf3, 0x0f, 0x1e, 0xfa);
    PUT(e, 0xd9); /* FNSTCW */
    put_modrm(e, 7, RSI, offsetof(struct vec_ctx, x87_host));
    PUT(e, 0xdd); /* FRSTOR */
    put_modrm(e, 4, RSI, offsetof(struct vec_ctx, x87));
    PUT(e, 0xff); /* PUSH ctx->flags; POPFQ: for FCMOVcc */
    put_modrm(e, 6, RSI, offsetof(struct vec_ctx, flags));
    PUT(e, 0x9d);
    put(e, core->code, core->len);
    PUT(e, 0x9c, 0x8f); /* PUSHFQ; POP ctx->flags: FCOMI and alike */
    put_modrm(e, 0, RSI, offsetof(struct vec_ctx, flags));
    PUT(e, 0xdd); /* FNSAVE: does not wait, so that what is unmasked stays pending in the guest */
    put_modrm(e, 6, RSI, offsetof(struct vec_ctx, x87));
    PUT(e, 0xd9); /* FLDCW */
    put_modrm(e, 5, RSI, offsetof(struct vec_ctx, x87_host));
    PUT(e, 0xc3);
}
