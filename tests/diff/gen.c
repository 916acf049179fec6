/* SPDX-License-Identifier: BSD-2-Clause */
/* gen.c: random cases. Instructions are random bytes that decode to something user mode may execute
 * and whose result only depends on the state that both sides share. MOVs in front of each make its
 * memory operands mostly hit the data. */
#include <Zydis/Zydis.h>
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff.h"

struct gen {
    struct diff_case *c;
    uint64_t rng;
    ZydisDecoder decoder;
    bool mode32;
    unsigned unit;
    uint32_t undefined[DIFF_MAX_UNITS + 2]; /* flags that may be undefined before each unit */
    struct {
        unsigned at;   /* offset of a 4-byte displacement or immediate */
        unsigned unit; /* whose offset it gets */
        bool relative;
    } fixup[DIFF_MAX_UNITS];
    unsigned nfixups;
};

static bool avx, avx512, bf16, fp16;

void diff_gen_init(bool has_avx, bool has_avx512)
{
    unsigned eax, ebx, ecx, edx;

    avx = has_avx;
    avx512 = has_avx512;
    __cpuid_count(7, 0, eax, ebx, ecx, edx);
    fp16 = edx >> 23 & 1;
    __cpuid_count(7, 1, eax, ebx, ecx, edx);
    bf16 = eax >> 5 & 1;
}

/* ---- random numbers: xorshift64* ---- */

static uint64_t rnd(struct gen *g)
{
    g->rng ^= g->rng >> 12;
    g->rng ^= g->rng << 25;
    g->rng ^= g->rng >> 27;
    return g->rng * 0x2545f4914f6cdd1d;
}

static unsigned below(struct gen *g, unsigned n)
{
    return (unsigned)((rnd(g) >> 32) % n);
}

static bool percent(struct gen *g, unsigned p)
{
    return below(g, 100) < p;
}

/* Integers as programs have them, and corner cases. */
static uint64_t interesting(struct gen *g)
{
    static const uint64_t corner[] = {0,
                                      1,
                                      2,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x100000000,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      0xffffffffffffffff,
                                      0xffffffff80000000};

    switch (below(g, 5)) {
    case 0:
        return corner[below(g, sizeof(corner) / sizeof(corner[0]))];
    case 1:
        return below(g, 256);
    case 2:
        return (uint64_t) - (int64_t)below(g, 70000);
    case 3:
        return rnd(g) >> below(g, 64);
    default:
        return rnd(g);
    }
}

static double interesting_double(struct gen *g)
{
    switch (below(g, 4)) {
    case 0:
        return (double)(int64_t)interesting(g);
    case 1:
        return (double)(int)below(g, 2000) / 8 - 100;
    case 2:
        return 1.0 / (1 + below(g, 1000));
    default: {
        static const uint64_t special[] = {0,
                                           0x8000000000000000,
                                           0x7ff0000000000000,
                                           0xfff0000000000000,
                                           0x7ff8000000000000,
                                           0x7ff0000000000001,
                                           1,
                                           0x000fffffffffffff,
                                           0x7fefffffffffffff,
                                           0x3ff0000000000000,
                                           0x4059000000000001};
        double d;

        memcpy(&d, &special[below(g, sizeof(special) / sizeof(special[0]))], 8);
        return d;
    }
    }
}

/* ---- initial state ---- */

static void fill(struct gen *g, uint8_t *p, unsigned len)
{
    unsigned style = below(g, 7);

    for (unsigned i = 0; i < len; i += 8) {
        uint64_t v;
        double d;
        float f[2];

        switch (style) {
        case 0:
        case 1:
            v = rnd(g);
            break;
        case 2: /* small doublewords: indexes */
            v = below(g, 2048) | (uint64_t)below(g, 2048) << 32;
            break;
        case 3:
            v = below(g, 2048);
            break;
        case 4:
            d = interesting_double(g);
            memcpy(&v, &d, 8);
            break;
        case 5:
            f[0] = (float)interesting_double(g);
            f[1] = (float)interesting_double(g);
            memcpy(&v, f, 8);
            break;
        default:
            v = interesting(g);
        }
        memcpy(p + i, &v, 8);
    }
}

static void fill_x87(struct gen *g, uint8_t *st)
{
    long double ld;

    if (percent(g, 70)) {
        ld = interesting_double(g);
        memcpy(st, &ld, 10);
    } else {
        uint64_t m = rnd(g);
        uint16_t e = (uint16_t)(percent(g, 50) ? rnd(g) : 0x3fff);

        if (percent(g, 80))
            m |= 1ull << 63;
        memcpy(st, &m, 8);
        memcpy(st + 8, &e, 2);
    }
}

static void init_state(struct gen *g)
{
    struct diff_state *s = &g->c->init;

    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < (g->mode32 ? 8 : 16); i++) {
        s->gpr[i] = interesting(g);
        if (percent(g, 25))
            s->gpr[i] = DIFF_DATA + below(g, DIFF_DATA_SIZE);
        if (g->mode32)
            s->gpr[i] = (uint32_t)s->gpr[i];
    }
    s->gpr[4] = DIFF_DATA + 0x2000 + (below(g, 0x1000) & ~7u);
    s->rflags = 0x202 | (rnd(g) & 0x8d5);
    if (percent(g, 10))
        s->rflags |= 0x400;
    if (percent(g, 2))
        s->rflags |= 0x40000;
    if (!g->mode32) {
        s->fs_base = percent(g, 70) ? 0 : DIFF_DATA;
        s->gs_base = percent(g, 70) ? 0 : below(g, 256);
    }
    s->vec.fcw = 0x37f;
    if (percent(g, 20))
        s->vec.fcw = (uint16_t)((rnd(g) & 0xf3f) | 0x40);
    s->vec.fsw = (uint16_t)(rnd(g) & 0x7f00);
    s->vec.ftw = (uint8_t)(percent(g, 50) ? 0xff : rnd(g));
    s->vec.mxcsr = 0x1f80;
    if (percent(g, 20))
        s->vec.mxcsr = rnd(g) & 0xffc0;
    if (percent(g, 10))
        s->vec.mxcsr |= rnd(g) & 0x3f;
    for (unsigned i = 0; i < 8; i++) {
        fill_x87(g, s->vec.st[i]);
        if (avx512)
            s->vec.k[i] = percent(g, 30) ? ~0ull : rnd(g);
    }
    for (unsigned i = 0; i < (avx512 ? 32 : 16); i++)
        fill(g, s->vec.zmm[i], avx512 ? 64 : avx ? 32 : 16);
    for (unsigned i = 0; i < DIFF_DATA_SIZE; i += 64)
        fill(g, s->data + i, 64);
}

/* ---- which instructions ---- */

static bool excluded(const ZydisDecodedInstruction *in)
{
    switch (in->mnemonic) {
    /* Differ by machine, time, or what the kernel does with them. */
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_WRPKRU:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_VMFUNC:
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT:
    case ZYDIS_MNEMONIC_ENCLU:
    case ZYDIS_MNEMONIC_XBEGIN:
    case ZYDIS_MNEMONIC_XEND:
    case ZYDIS_MNEMONIC_XABORT:
    case ZYDIS_MNEMONIC_XTEST:
    /* May trap later, or return to outside the code. */
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_RET:
    /* Component use is tracked more or less exactly; FIP and FDP are not compared. */
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    /* Results that the manual leaves undefined. */
    case ZYDIS_MNEMONIC_RDSSPD:
    case ZYDIS_MNEMONIC_RDSSPQ:
        return true;
    case ZYDIS_MNEMONIC_BSWAP:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        return in->operand_width == 16;
    default:
        return false;
    }
}

/* Extensions that the guest may have; the host's kernel decides about others. */
static bool extension_ok(const ZydisDecodedInstruction *in)
{
    switch (in->meta.isa_ext) {
    case ZYDIS_ISA_EXT_ADOX_ADCX:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_CLFLUSHOPT:
    case ZYDIS_ISA_EXT_CLFSH:
    case ZYDIS_ISA_EXT_CLWB:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_LZCNT:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_MOVBE:
    case ZYDIS_ISA_EXT_PAUSE:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_PREFETCHWT1:
    case ZYDIS_ISA_EXT_RDWRFSGS:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_VAES:
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
    case ZYDIS_ISA_EXT_X87:
        return true;
    case ZYDIS_ISA_EXT_AVX512VEX: /* mask registers */
    case ZYDIS_ISA_EXT_AVX512EVEX:
        switch (in->meta.isa_set) {
        case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_128:
        case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_256:
        case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_512:
        case ZYDIS_ISA_SET_AVX512ER_512:
        case ZYDIS_ISA_SET_AVX512ER_SCALAR:
        case ZYDIS_ISA_SET_AVX512PF_512:
        case ZYDIS_ISA_SET_AVX512_4FMAPS_512:
        case ZYDIS_ISA_SET_AVX512_4FMAPS_SCALAR:
        case ZYDIS_ISA_SET_AVX512_4VNNIW_512:
            return false;
        /* The CPU may execute these although its hypervisor hides them in CPUID. */
        case ZYDIS_ISA_SET_AVX512_BF16_128:
        case ZYDIS_ISA_SET_AVX512_BF16_256:
        case ZYDIS_ISA_SET_AVX512_BF16_512:
            return bf16;
        case ZYDIS_ISA_SET_AVX512_FP16_128:
        case ZYDIS_ISA_SET_AVX512_FP16_128N:
        case ZYDIS_ISA_SET_AVX512_FP16_256:
        case ZYDIS_ISA_SET_AVX512_FP16_512:
        case ZYDIS_ISA_SET_AVX512_FP16_SCALAR:
            return fp16;
        default:
            return true;
        }
    default:
        return false;
    }
}

/* ---- bytes ---- */

static void random_bytes(struct gen *g, uint8_t *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(rnd(g) >> 24);
}

/* Something with the look of an instruction, 15 bytes. */
static void guess(struct gen *g, uint8_t *p)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0x66, 0xf2, 0xf3, 0xf3, 0x67, 0x64, 0x65, 0xf0};
    unsigned n = 0, form = below(g, 100);

    random_bytes(g, p, 15);
    if (form < 18 && avx) {
        if (percent(g, 30)) {
            p[0] = 0xc5;
        } else {
            p[0] = 0xc4;
            p[1] = (uint8_t)((p[1] & 0xe0) | (1 + below(g, 3)));
        }
        if (g->mode32)
            p[1] |= 0xc0;
        return;
    }
    if (form < 33 && avx512) {
        p[0] = 0x62;
        p[1] = (uint8_t)((p[1] & 0xf0) | (1 + below(g, 3)));
        p[2] |= 0x04;
        if (g->mode32)
            p[1] |= 0xc0;
        return;
    }
    while (percent(g, 25) && n < 3)
        p[n++] = prefixes[below(g, sizeof(prefixes))];
    if (!g->mode32 && percent(g, 45))
        p[n++] = (uint8_t)(0x40 | below(g, 16));
    if (form < 60)
        return;
    p[n++] = 0x0f;
    if (form < 85)
        return;
    p[n++] = percent(g, 60) ? 0x38 : 0x3a;
}

/* ---- operands ---- */

static int gpr_of(ZydisRegister reg)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(reg);

    if (c != ZYDIS_REGCLASS_GPR64 && c != ZYDIS_REGCLASS_GPR32)
        return -1;
    return ZydisRegisterGetId(reg);
}

static void emit(struct gen *g, const void *bytes, unsigned n)
{
    memcpy(g->c->code + g->c->len, bytes, n);
    g->c->len += n;
}

static void emit_mov(struct gen *g, unsigned reg, uint64_t value)
{
    uint8_t b[10];

    if (g->mode32) {
        b[0] = (uint8_t)(0xb8 | reg);
        memcpy(b + 1, &value, 4);
        emit(g, b, 5);
    } else {
        b[0] = (uint8_t)(0x48 | reg >> 3);
        b[1] = (uint8_t)(0xb8 | (reg & 7));
        memcpy(b + 2, &value, 8);
        emit(g, b, 10);
    }
}

/* An address for an operand of `bits`. */
static uint64_t target(struct gen *g, unsigned bits)
{
    unsigned size = bits / 8 ? bits / 8 : 1;
    unsigned luck = below(g, 200);
    uint64_t a;

    if (luck == 0)
        return rnd(g);
    if (luck < 4)
        return DIFF_DATA + DIFF_DATA_SIZE - below(g, 80);
    if (luck < 6)
        return DIFF_DATA - below(g, 80);
    a = DIFF_DATA + 256 + below(g, DIFF_DATA_SIZE - 1024);
    if (percent(g, 75))
        a &= ~(uint64_t)((size & (size - 1)) == 0 ? size - 1 : 15);
    return a;
}

/* MOVs for one memory operand; false if it had better be another instruction. */
static bool aim(struct gen *g, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op,
                uint8_t *bytes, uint32_t *set)
{
    const ZydisDecodedOperandMem *m = &op->mem;
    uint64_t a = target(g, op->size), disp = (uint64_t)m->disp.value, index_value = 0;
    int base = gpr_of(m->base), index = gpr_of(m->index);
    bool vsib =
        m->index != ZYDIS_REGISTER_NONE && ZydisRegisterGetClass(m->index) >= ZYDIS_REGCLASS_XMM;

    if (!g->mode32 && m->segment == ZYDIS_REGISTER_FS)
        a -= g->c->init.fs_base;
    if (!g->mode32 && m->segment == ZYDIS_REGISTER_GS)
        a -= g->c->init.gs_base;
    if (g->mode32 && (m->segment == ZYDIS_REGISTER_FS || m->segment == ZYDIS_REGISTER_GS))
        return percent(g, 5); /* null: faults */
    if (g->mode32 && m->segment == ZYDIS_REGISTER_CS && percent(g, 90))
        return false;
    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP) {
        uint64_t next = DIFF_CODE + g->c->len + in->length;
        uint32_t rel = (uint32_t)(a - next);

        memcpy(bytes + in->raw.disp.offset, &rel, 4);
        return true;
    }
    if (in->address_width == 16)
        return percent(g, 5);
    if (base < 0) {
        if (index >= 0 && !vsib)
            return percent(g, 10);
        if (vsib)
            return percent(g, 10);
        if (in->raw.disp.size == 32 && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
            uint32_t d = (uint32_t)a;

            memcpy(bytes + in->raw.disp.offset, &d, 4);
        } else if (in->raw.disp.size == 64) {
            memcpy(bytes + in->raw.disp.offset, &a, 8);
        }
        return true;
    }
    if (base == index && !vsib)
        return percent(g, 5);
    if (*set & 1u << base)
        return true;
    if (index >= 0 && !vsib) {
        index_value = percent(g, 80) ? below(g, 512) : interesting(g);
        if (!(*set & 1u << index))
            emit_mov(g, (unsigned)index, index_value);
        *set |= 1u << index;
    }
    emit_mov(g, (unsigned)base, a - disp - index_value * m->scale);
    *set |= 1u << base;
    return true;
}

/* Setting-up that is not about addresses. */
static void set_up_values(struct gen *g, const ZydisDecodedInstruction *in,
                          const ZydisDecodedOperand *ops, uint32_t *set)
{
    if (in->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
        emit_mov(g, 1, below(g, 40));
        *set |= 2;
    }
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            unsigned reg = (unsigned)ZydisRegisterGetId(ops[1].reg.value);

            if (reg != 4) {
                emit_mov(g, reg, (uint64_t)((int64_t)below(g, 4000) - 2000));
                *set |= 1u << reg;
            }
        }
        break;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (percent(g, 80)) {
            emit_mov(g, 2, percent(g, 70) ? 0 : below(g, 16));
            *set |= 4;
        }
        break;
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE:
        emit_mov(g, in->mnemonic == ZYDIS_MNEMONIC_XLAT ? 3 : 5,
                 DIFF_DATA + 0x2000 + below(g, 0x800));
        *set |= in->mnemonic == ZYDIS_MNEMONIC_XLAT ? 8 : 32;
        break;
    default:
        break;
    }
}

/* ---- branches: forward, to the beginning of a unit ---- */

static void branch_to(struct gen *g, unsigned at, bool relative, uint32_t undefined)
{
    unsigned unit = g->unit + 1 + below(g, 4);

    g->fixup[g->nfixups].at = at;
    g->fixup[g->nfixups].unit = unit;
    g->fixup[g->nfixups++].relative = relative;
    for (unsigned i = g->unit + 1; i <= unit && i <= DIFF_MAX_UNITS; i++)
        g->undefined[i] |= undefined;
}

/* One of the branches whose targets can be placed; the undefined flags stay as they are. */
static void gen_branch(struct gen *g)
{
    uint32_t undefined = g->undefined[g->unit];
    uint8_t b[16] = {0};
    unsigned reg;

    switch (below(g, 8)) {
    case 0: /* jmp rel32 */
        emit(g, "\xe9\0\0\0\0", 5);
        branch_to(g, g->c->len - 4, true, undefined);
        break;
    case 1: /* call rel32 */
        emit(g, "\xe8\0\0\0\0", 5);
        branch_to(g, g->c->len - 4, true, undefined);
        break;
    case 2: /* push imm32; ret */
        emit(g, "\x68\0\0\0\0\xc3", 6);
        branch_to(g, g->c->len - 5, false, undefined);
        break;
    case 3: /* push imm32; ret imm16 */
        emit(g, "\x68\0\0\0\0\xc2\x10\0", 8);
        branch_to(g, g->c->len - 7, false, undefined);
        break;
    case 4: /* mov imm32, reg; jmp or call reg */
        reg = below(g, 8);
        if (reg == 4)
            reg = 0;
        b[0] = (uint8_t)(0xb8 | reg);
        b[5] = 0xff;
        b[6] = (uint8_t)((percent(g, 50) ? 0xe0 : 0xd0) | reg);
        emit(g, b, 7);
        branch_to(g, g->c->len - 6, false, undefined);
        break;
    default: /* jcc rel32 whose condition is not undefined */
        for (unsigned tries = 0; tries < 20; tries++) {
            static const uint16_t tests[8] = {0x800, 1, 0x40, 0x41, 0x80, 4, 0x880, 0x8c0};
            unsigned cond = below(g, 16);

            if (tests[cond >> 1] & undefined)
                continue;
            b[0] = 0x0f;
            b[1] = (uint8_t)(0x80 | cond);
            emit(g, b, 6);
            branch_to(g, g->c->len - 4, true, undefined);
            return;
        }
        emit(g, "\x90", 1);
    }
    g->undefined[g->unit + 1] |= undefined;
}

static bool is_branch(const ZydisDecodedInstruction *in)
{
    return in->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE ||
           in->meta.category == ZYDIS_CATEGORY_CALL ||
           in->meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
           in->meta.category == ZYDIS_CATEGORY_COND_BR;
}

/* ---- one unit ---- */

static bool writes_segment(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < in->operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(ops[i].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
            (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return true;
    return false;
}

/* Several accesses in an order of the processor's choosing (gathers, which are not in this list, as
 * well); what was done before the one that faulted may stay done. */
static bool fault_is_loose(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return true;
    default:
        return false;
    }
}

static bool try_insn(struct gen *g)
{
    ZydisDecodedInstruction in;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[15];
    struct diff_unit *u = &g->c->units[g->unit];
    unsigned start = g->c->len;
    uint32_t set = 0, undefined = g->undefined[g->unit];
    bool loose = false;

    guess(g, bytes);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, bytes, 15, &in, ops)))
        return false;
    if (excluded(&in) || !extension_ok(&in) || is_branch(&in) || writes_segment(&in, ops))
        return false;
    if ((in.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED || in.meta.category == ZYDIS_CATEGORY_SYSTEM ||
         in.meta.category == ZYDIS_CATEGORY_IO || in.meta.category == ZYDIS_CATEGORY_IOSTRINGOP) &&
        !percent(g, 2))
        return false;
    if (in.cpu_flags != NULL && in.cpu_flags->tested & undefined)
        return false;

    loose = fault_is_loose(in.mnemonic);
    set_up_values(g, &in, ops, &set);
    for (unsigned i = 0; i < in.operand_count; i++) {
        if (ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY || ops[i].mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            loose = true;
        if (!aim(g, &in, &ops[i], bytes, &set)) {
            g->c->len = start;
            return false;
        }
    }
    /* RIP-relative displacements were made for the instruction at this place. */
    u->off = (uint16_t)start;
    u->insn = (uint16_t)g->c->len;
    emit(g, bytes, in.length);
    u->len = (uint16_t)(g->c->len - start);
    u->loose = loose;
    if (in.cpu_flags != NULL) {
        undefined &= ~(in.cpu_flags->modified | in.cpu_flags->set_0 | in.cpu_flags->set_1);
        undefined |= in.cpu_flags->undefined;
        /* A count of 0 leaves the flags alone. */
        if (in.meta.category == ZYDIS_CATEGORY_SHIFT || in.meta.category == ZYDIS_CATEGORY_ROTATE ||
            in.attributes & (ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
            undefined |= g->undefined[g->unit];
    }
    g->undefined[g->unit + 1] |= undefined;
    return true;
}

static void resolve(struct gen *g)
{
    struct diff_case *c = g->c;

    for (unsigned i = 0; i < g->nfixups; i++) {
        unsigned unit = g->fixup[i].unit > c->nunits ? c->nunits : g->fixup[i].unit;
        uint32_t value = c->units[unit].off;

        if (g->fixup[i].relative)
            value -= g->fixup[i].at + 4;
        else
            value += DIFF_CODE;
        memcpy(c->code + g->fixup[i].at, &value, 4);
    }
}

void diff_gen(struct diff_case *c, uint64_t seed, unsigned insns, bool code32)
{
    struct gen g = {.c = c, .mode32 = code32};

    g.rng = seed * 0x9e3779b97f4a7c15 + (code32 ? 0x1234567 : 0);
    if (g.rng == 0)
        g.rng = 1;
    for (unsigned i = 0; i < 4; i++)
        rnd(&g);
    ZydisDecoderInit(&g.decoder,
                     code32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64,
                     code32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
    memset(c, 0, sizeof(*c));
    c->code32 = code32;
    init_state(&g);
    for (g.unit = 0; g.unit < insns; g.unit++) {
        struct diff_unit *u = &c->units[g.unit];

        if (insns > 1 && percent(&g, 10)) {
            u->off = u->insn = (uint16_t)c->len;
            gen_branch(&g);
            u->len = (uint16_t)(c->len - u->off);
        } else {
            while (!try_insn(&g))
                continue;
        }
        u->undefined = g.undefined[g.unit];
    }
    c->nunits = insns;
    c->units[insns].off = c->units[insns].insn = (uint16_t)c->len;
    c->units[insns].len = 1;
    c->units[insns].undefined = g.undefined[insns];
    resolve(&g);
    emit(&g, "\xcc", 1);
}

void diff_print_code(const struct diff_case *c)
{
    ZydisDisassembledInstruction in;

    for (unsigned off = 0; off < c->len;) {
        if (c->code[off] == 0x90) {
            off++;
            continue;
        }
        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(c->code32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
                                                          : ZYDIS_MACHINE_MODE_LONG_64,
                                                DIFF_CODE + off, c->code + off, c->len - off, &in)))
            return;
        printf("  %08x  ", DIFF_CODE + off);
        for (unsigned i = 0; i < 12; i++)
            if (i < in.info.length)
                printf("%02x ", c->code[off + i]);
            else
                printf("   ");
        printf(" %s\n", in.text);
        off += in.info.length;
    }
}
