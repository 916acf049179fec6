/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_bmi.c: BMI1, BMI2, ADX and CRC32, without need of the host's support. */
#include "core/x86/ops_common.h"

/*
 * Operands: r is the destination; `a` the source that may be memory (rm if it is a register), `b`
 * the other source, a register whose slot is in op->size, or op->imm.
 */

#define CC_CF(c) ((c) ? X86_CC_CF : 0)

/* Flags of BMI instructions that set CF: OF clear, AF and PF undefined: clear. */
static inline uint16_t cc_bmi(uint64_t result, unsigned size, bool cf)
{
    uint16_t cc = x86_cc_logic(result, size);

    return (uint16_t)((cc & ~X86_CC_PF) | CC_CF(cf));
}

static uint64_t deposit(uint64_t src, uint64_t mask)
{
    uint64_t r = 0;

    for (; mask; mask &= mask - 1, src >>= 1) {
        if (src & 1)
            r |= mask & -mask;
    }
    return r;
}

static uint64_t extract(uint64_t src, uint64_t mask)
{
    uint64_t r = 0, bit = 1;

    for (; mask; mask &= mask - 1, bit <<= 1) {
        if (src & mask & -mask)
            r |= bit;
    }
    return r;
}

/* The low n bits set. */
static inline uint64_t low_ones(unsigned n)
{
    return n >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1;
}

#define BMI_FUNCS(bits)                                                                            \
    typedef uint##bits##_t u##bits;                                                                \
    static inline u##bits andn_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        u##bits r = ~b & a;                                                                        \
        *cc = cc_bmi(r, bits / 8, false);                                                          \
        return r;                                                                                  \
    }                                                                                              \
    static inline u##bits bextr_##bits(u##bits a, u##bits b, uint16_t *cc)                         \
    {                                                                                              \
        unsigned start = b & 0xff, len = b >> 8 & 0xff;                                            \
        u##bits r = start < bits ? (u##bits)((a >> start) & low_ones(len)) : 0;                    \
        *cc = (uint16_t)(cc_bmi(r, bits / 8, false) & ~X86_CC_SF);                                 \
        return r;                                                                                  \
    }                                                                                              \
    static inline u##bits blsi_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        u##bits r = a & -a;                                                                        \
        (void)b;                                                                                   \
        *cc = cc_bmi(r, bits / 8, a);                                                              \
        return r;                                                                                  \
    }                                                                                              \
    static inline u##bits blsmsk_##bits(u##bits a, u##bits b, uint16_t *cc)                        \
    {                                                                                              \
        u##bits r = a ^ (a - 1);                                                                   \
        (void)b;                                                                                   \
        *cc = cc_bmi(r, bits / 8, !a);                                                             \
        return r;                                                                                  \
    }                                                                                              \
    static inline u##bits blsr_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        u##bits r = a & (a - 1);                                                                   \
        (void)b;                                                                                   \
        *cc = cc_bmi(r, bits / 8, !a);                                                             \
        return r;                                                                                  \
    }                                                                                              \
    static inline u##bits bzhi_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        unsigned n = b & 0xff;                                                                     \
        u##bits r = n < bits ? (u##bits)(a & low_ones(n)) : a;                                     \
        *cc = cc_bmi(r, bits / 8, n >= bits);                                                      \
        return r;                                                                                  \
    }                                                                                              \
    static inline u##bits pdep_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        (void)cc;                                                                                  \
        return (u##bits)deposit(b, a);                                                             \
    }                                                                                              \
    static inline u##bits pext_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        (void)cc;                                                                                  \
        return (u##bits)extract(b, a);                                                             \
    }                                                                                              \
    static inline u##bits rorx_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        unsigned n = b & (bits - 1);                                                               \
        (void)cc;                                                                                  \
        return n ? a >> n | a << (bits - n) : a;                                                   \
    }                                                                                              \
    static inline u##bits sarx_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        (void)cc;                                                                                  \
        return (u##bits)((int##bits##_t)a >> (b & (bits - 1)));                                    \
    }                                                                                              \
    static inline u##bits shlx_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        (void)cc;                                                                                  \
        return a << (b & (bits - 1));                                                              \
    }                                                                                              \
    static inline u##bits shrx_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        (void)cc;                                                                                  \
        return a >> (b & (bits - 1));                                                              \
    }                                                                                              \
    static inline u##bits adcx_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        u##bits r;                                                                                 \
        bool c = __builtin_add_overflow(a, b, &r);                                                 \
        c |= __builtin_add_overflow(r, (u##bits)(*cc >> 8 & 1), &r);                               \
        *cc = (uint16_t)((*cc & ~X86_CC_CF) | CC_CF(c));                                           \
        return r;                                                                                  \
    }                                                                                              \
    static inline u##bits adox_##bits(u##bits a, u##bits b, uint16_t *cc)                          \
    {                                                                                              \
        u##bits r;                                                                                 \
        bool c = __builtin_add_overflow(a, b, &r);                                                 \
        c |= __builtin_add_overflow(r, (u##bits)(*cc & X86_CC_OF), &r);                            \
        *cc = (uint16_t)((*cc & ~X86_CC_OF) | (c ? X86_CC_OF : 0));                                \
        return r;                                                                                  \
    }
BMI_FUNCS(32)
BMI_FUNCS(64)

#define BMI_HANDLERS(name, bits, other)                                                            \
    X86_HANDLER(name##bits##_r)                                                                    \
    {                                                                                              \
        uint16_t cc = cpu->cc;                                                                     \
        u##bits v = name##_##bits(x86_r##bits(cpu, op->rm), (u##bits)(other), &cc);                \
        x86_w##bits(cpu, op->r, v);                                                                \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(name##bits##_m)                                                                    \
    {                                                                                              \
        uint16_t cc = cpu->cc;                                                                     \
        u##bits a, v;                                                                              \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &a)))                                              \
            return x86_leave(cpu, op);                                                             \
        v = name##_##bits(a, (u##bits)(other), &cc);                                               \
        x86_w##bits(cpu, op->r, v);                                                                \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
#define BMI(name, other) BMI_HANDLERS(name, 32, other) BMI_HANDLERS(name, 64, other)
BMI(andn, cpu->gpr[op->size])
BMI(bextr, cpu->gpr[op->size])
BMI(blsi, 0)
BMI(blsmsk, 0)
BMI(blsr, 0)
BMI(bzhi, cpu->gpr[op->size])
BMI(pdep, cpu->gpr[op->size])
BMI(pext, cpu->gpr[op->size])
BMI(rorx, op->imm)
BMI(sarx, cpu->gpr[op->size])
BMI(shlx, cpu->gpr[op->size])
BMI(shrx, cpu->gpr[op->size])
BMI(adcx, cpu->gpr[op->r])
BMI(adox, cpu->gpr[op->r])

/* MULX: r gets the high half, op->size the low half, written first. */
#define MULX(bits, wide)                                                                           \
    X86_HANDLER(mulx##bits##_r)                                                                    \
    {                                                                                              \
        wide p = (wide)x86_r##bits(cpu, VMM_RDX) * x86_r##bits(cpu, op->rm);                       \
        x86_w##bits(cpu, op->size, (u##bits)p);                                                    \
        x86_w##bits(cpu, op->r, (u##bits)(p >> bits));                                             \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(mulx##bits##_m)                                                                    \
    {                                                                                              \
        u##bits a;                                                                                 \
        wide p;                                                                                    \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &a)))                                              \
            return x86_leave(cpu, op);                                                             \
        p = (wide)x86_r##bits(cpu, VMM_RDX) * a;                                                   \
        x86_w##bits(cpu, op->size, (u##bits)p);                                                    \
        x86_w##bits(cpu, op->r, (u##bits)(p >> bits));                                             \
        X86_NEXT(cpu, op);                                                                         \
    }
MULX(32, uint64_t)
MULX(64, unsigned __int128)

/* Which operand of the instruction is `a`, which is `b` (0: none, or an immediate), and the bit of
 * CPUID.(7,0):EBX. */
struct bmi_insn {
    x86_fn *fn[2][2]; /* [64 bits][memory] */
    uint8_t a, b, feature;
};
#define BMI_ROW(name, a, b, feature)                                                               \
    {                                                                                              \
        {{name##32_r, name##32_m}, {name##64_r, name##64_m}}, a, b, feature                        \
    }
#define BMI1 3
#define BMI2 8
#define ADX  19
static const struct bmi_insn bmi_insns[] = {
    [X86_ANDN] = BMI_ROW(andn, 2, 1, BMI1), [X86_BEXTR] = BMI_ROW(bextr, 1, 2, BMI1),
    [X86_BLSI] = BMI_ROW(blsi, 1, 0, BMI1), [X86_BLSMSK] = BMI_ROW(blsmsk, 1, 0, BMI1),
    [X86_BLSR] = BMI_ROW(blsr, 1, 0, BMI1), [X86_BZHI] = BMI_ROW(bzhi, 1, 2, BMI2),
    [X86_MULX] = BMI_ROW(mulx, 2, 1, BMI2), [X86_PDEP] = BMI_ROW(pdep, 2, 1, BMI2),
    [X86_PEXT] = BMI_ROW(pext, 2, 1, BMI2), [X86_RORX] = BMI_ROW(rorx, 1, 0, BMI2),
    [X86_SARX] = BMI_ROW(sarx, 1, 2, BMI2), [X86_SHLX] = BMI_ROW(shlx, 1, 2, BMI2),
    [X86_SHRX] = BMI_ROW(shrx, 1, 2, BMI2), [X86_ADCX] = BMI_ROW(adcx, 1, 0, ADX),
    [X86_ADOX] = BMI_ROW(adox, 1, 0, ADX),
};

bool x86_dec_bmi(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    const struct bmi_insn *insn = &bmi_insns[arg];
    bool mem = x86_dec_is_mem(d, insn->a);

    if (!(d->cpu->feat.l7_ebx & 1u << insn->feature))
        return false;
    /* VEX encodings do not exist in real and virtual-8086 mode. */
    if (arg != X86_ADCX && arg != X86_ADOX &&
        (!(d->mode & X86_MODE_PE) || (d->mode & X86_MODE_VM86)))
        return false;
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    if (mem)
        x86_dec_mem(d, insn->a, op);
    else
        op->rm = x86_dec_reg(d->opnd[insn->a].reg.value);
    if (insn->b)
        op->size = x86_dec_reg(d->opnd[insn->b].reg.value);
    if (arg == X86_RORX)
        op->imm = x86_dec_imm(d, 2);
    op->fn = insn->fn[x86_dec_size(d, 0) == 8][mem];
    return true;
}

/* ---- CRC32: the Castagnoli polynomial, bit-reflected ---- */

#define CRC_POLYNOMIAL 0x82f63b78u

static inline uint32_t crc_soft(uint32_t crc, uint64_t data, unsigned bits)
{
    for (unsigned byte = 0; byte < bits; byte += 8) {
        crc ^= (uint8_t)(data >> byte);
        for (unsigned i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? CRC_POLYNOMIAL : 0);
    }
    return crc;
}

static inline bool host_has_crc(void)
{
#ifdef VMM_FREESTANDING
    return false; /* the compiler's answer needs its run-time library */
#else
    return __builtin_cpu_supports("sse4.2");
#endif
}

static inline uint32_t crc(uint32_t value, uint64_t data, unsigned bits)
{
    uint64_t v = value;

    if (!host_has_crc())
        return crc_soft(value, data, bits);
    switch (bits) {
    case 8:
        __asm__("crc32b %b1, %k0" : "+r"(v) : "r"(data));
        break;
    case 16:
        __asm__("crc32w %w1, %k0" : "+r"(v) : "r"(data));
        break;
    case 32:
        __asm__("crc32l %k1, %k0" : "+r"(v) : "r"(data));
        break;
    default:
        __asm__("crc32q %1, %0" : "+r"(v) : "r"(data));
    }
    return (uint32_t)v;
}

#define CRC32(bits)                                                                                \
    X86_HANDLER(crc32_##bits##_r)                                                                  \
    {                                                                                              \
        x86_w32(cpu, op->r, crc(x86_r32(cpu, op->r), x86_r##bits(cpu, op->rm), bits));             \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(crc32_##bits##_m)                                                                  \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &v)))                                              \
            return x86_leave(cpu, op);                                                             \
        x86_w32(cpu, op->r, crc(x86_r32(cpu, op->r), v, bits));                                    \
        X86_NEXT(cpu, op);                                                                         \
    }
CRC32(8)
CRC32(16)
CRC32(32)
CRC32(64)

bool x86_dec_crc32(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    static x86_fn *const fn[2][4] = {{crc32_8_r, crc32_16_r, crc32_32_r, crc32_64_r},
                                     {crc32_8_m, crc32_16_m, crc32_32_m, crc32_64_m}};
    bool mem = x86_dec_is_mem(d, 1);

    (void)arg;
    if (!(d->cpu->feat.l1_ecx & 1u << 20))
        return false;
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    if (mem)
        x86_dec_mem(d, 1, op);
    else
        op->rm = x86_dec_reg(d->opnd[1].reg.value);
    op->fn = fn[mem][x86_log2_size(x86_dec_size(d, 1))];
    return true;
}
