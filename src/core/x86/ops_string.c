/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_string.c: MOVS CMPS STOS LODS SCAS, with and without REP. */
#include "core/x86/ops_common.h"

/*
 * op->seg, ea: of the operand at rSI (of the only one, for STOS and SCAS); op->scale: enum x86_ea
 * of the operand at ES:rDI; op->r: enum rep. Registers are exact after each iteration, so that an
 * instruction that is left between two of them goes on where it was.
 */

enum rep { ONCE, REP, REPE = REP, REPNE };

#define DR6_BS 0x4000u

static inline bool string_linear(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg,
                                 unsigned ea, uint64_t offset, unsigned size, bool write,
                                 uint64_t *linear)
{
    switch (ea) {
    case X86_EA_FLAT:
        *linear = offset;
        return true;
    case X86_EA_SEG64:
        *linear = offset + cpu->seg[seg].base;
        return true;
    case X86_EA_FLAT32:
        *linear = (uint32_t)offset;
        return true;
    }
    if (op->asz == X86_A16)
        offset = (uint16_t)offset;
    else if (op->asz == X86_A32)
        offset = (uint32_t)offset;
    return x86_seg_check(cpu, seg, offset, size, write, linear);
}

static inline bool read_si(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, void *v)
{
    uint64_t a;

    return string_linear(cpu, op, op->seg, op->ea, cpu->gpr[VMM_RSI], size, false, &a) &&
           x86_read(cpu, op, op->seg, a, v, size);
}

static inline bool read_di(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, void *v)
{
    uint64_t a;

    return string_linear(cpu, op, VMM_ES, op->scale, cpu->gpr[VMM_RDI], size, false, &a) &&
           x86_read(cpu, op, VMM_ES, a, v, size);
}

static inline bool write_di(struct x86_cpu *cpu, const struct x86_op *op, unsigned size,
                            const void *v)
{
    uint64_t a;

    return string_linear(cpu, op, VMM_ES, op->scale, cpu->gpr[VMM_RDI], size, true, &a) &&
           x86_write(cpu, op, VMM_ES, a, v, size);
}

/* Registers of the address size. */
static inline void set_address(struct x86_cpu *cpu, const struct x86_op *op, unsigned slot,
                               uint64_t v)
{
    x86_set_reg(cpu, slot, 2u << op->asz, v);
}

static inline void step_address(struct x86_cpu *cpu, const struct x86_op *op, unsigned slot,
                                unsigned size)
{
    uint64_t v = cpu->gpr[slot];

    set_address(cpu, op, slot, cpu->rflags & X86_DF ? v - size : v + size);
}

/* ---- one iteration; flags go to *cc ---- */

#define ITERATIONS(bits)                                                                           \
    static inline bool movs##bits(struct x86_cpu *cpu, const struct x86_op *op, uint16_t *cc)      \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        (void)cc;                                                                                  \
        if (!read_si(cpu, op, bits / 8, &v) || !write_di(cpu, op, bits / 8, &v))                   \
            return false;                                                                          \
        step_address(cpu, op, VMM_RSI, bits / 8);                                                  \
        step_address(cpu, op, VMM_RDI, bits / 8);                                                  \
        return true;                                                                               \
    }                                                                                              \
    static inline bool stos##bits(struct x86_cpu *cpu, const struct x86_op *op, uint16_t *cc)      \
    {                                                                                              \
        (void)cc;                                                                                  \
        if (!write_di(cpu, op, bits / 8, &cpu->gpr[VMM_RAX]))                                      \
            return false;                                                                          \
        step_address(cpu, op, VMM_RDI, bits / 8);                                                  \
        return true;                                                                               \
    }                                                                                              \
    static inline bool lods##bits(struct x86_cpu *cpu, const struct x86_op *op, uint16_t *cc)      \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        (void)cc;                                                                                  \
        if (!read_si(cpu, op, bits / 8, &v))                                                       \
            return false;                                                                          \
        x86_w##bits(cpu, VMM_RAX, v);                                                              \
        step_address(cpu, op, VMM_RSI, bits / 8);                                                  \
        return true;                                                                               \
    }                                                                                              \
    static inline uint16_t compare##bits(uint##bits##_t a, uint##bits##_t b)                       \
    {                                                                                              \
        uint16_t cc;                                                                               \
        __asm__("cmp" X86_SFX_##bits " %[b], %[a]" X86_FLAGS_OUT                                   \
                : "=a"(cc)                                                                         \
                : [a] "r"(a), [b] "r"(b)                                                           \
                : "cc");                                                                           \
        return cc;                                                                                 \
    }                                                                                              \
    static inline bool cmps##bits(struct x86_cpu *cpu, const struct x86_op *op, uint16_t *cc)      \
    {                                                                                              \
        uint##bits##_t a, b;                                                                       \
        /* Processors read the second operand first. */                                            \
        if (!read_di(cpu, op, bits / 8, &b) || !read_si(cpu, op, bits / 8, &a))                    \
            return false;                                                                          \
        *cc = compare##bits(a, b);                                                                 \
        step_address(cpu, op, VMM_RSI, bits / 8);                                                  \
        step_address(cpu, op, VMM_RDI, bits / 8);                                                  \
        return true;                                                                               \
    }                                                                                              \
    static inline bool scas##bits(struct x86_cpu *cpu, const struct x86_op *op, uint16_t *cc)      \
    {                                                                                              \
        uint##bits##_t b;                                                                          \
        if (!read_di(cpu, op, bits / 8, &b))                                                       \
            return false;                                                                          \
        *cc = compare##bits(x86_r##bits(cpu, VMM_RAX), b);                                         \
        step_address(cpu, op, VMM_RDI, bits / 8);                                                  \
        return true;                                                                               \
    }
ITERATIONS(8)
ITERATIONS(16)
ITERATIONS(32)
ITERATIONS(64)

/* ---- many iterations at once, upwards and up to the end of a page ---- */

static inline uint64_t page_rest(uint64_t linear)
{
    return MMU_PAGE_SIZE - (linear & ~MMU_PAGE_MASK);
}

/* Bytes of whole elements that `n` elements have before the end of both pages. */
static inline unsigned chunk(uint64_t n, unsigned size, uint64_t a, uint64_t b)
{
    uint64_t rest = page_rest(a) < page_rest(b) ? page_rest(a) : page_rest(b);

    return (unsigned)(n < rest / size ? n * size : rest / size * size);
}

static inline bool can_bulk(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return !(cpu->rflags & (X86_DF | X86_TF)) && op->scale != X86_EA_SLOW;
}

/*
 * The host's own instructions: each element is written once and as a whole, and where source and
 * destination overlap the result is the same as the guest's. The ABI keeps DF clear.
 */
static inline void host_movs(uint8_t *d, const uint8_t *s, uint64_t n, unsigned size)
{
    n /= size;
    switch (size) {
    case 1:
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "+c"(n)::"memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n)::"memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n)::"memory");
    }
}

static inline void host_stos(uint8_t *d, uint64_t v, uint64_t n, unsigned size)
{
    n /= size;
    switch (size) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(v) : "memory");
    }
}

#define MOST_AT_ONCE (32u << 10) /* bytes: nobody waits for long */

/*
 * Pages that follow each other in the guest often do so in the host; starting the host's
 * instruction for each of them takes about as long as they do. Of `bytes` at `src` (NULL: nothing
 * is read) and `dst`, of which `c` are at `s` and `d`, so many are there.
 */
static unsigned follow(struct x86_cpu *cpu, const uint64_t *src, uint64_t dst, const uint8_t *s,
                       const uint8_t *d, unsigned c, uint64_t bytes, unsigned size)
{
    while (c < bytes && c < MOST_AT_ONCE) {
        uint64_t b = dst + c, a = src ? *src + c : b;
        unsigned more = chunk((bytes - c) / size, size, a, b);

        if (!more || mmu_fast_write(&cpu->mmu, cpu->mmu_idx, b, more) != d + c ||
            (src && mmu_fast_read(&cpu->mmu, cpu->mmu_idx, a, more) != s + c))
            break;
        c += more;
    }
    return c;
}

/* Addresses do not wrap within a run. */
static inline bool may_follow(const struct x86_op *op)
{
    return op->asz == X86_A64;
}

/* Both return the number of bytes done, 0 if it must be done one by one. */
static unsigned movs_bulk(struct x86_cpu *cpu, const struct x86_op *op, uint64_t n, unsigned size)
{
    uint64_t src, dst;
    const uint8_t *s;
    uint8_t *d;
    unsigned c;

    if (!can_bulk(cpu, op) || op->ea == X86_EA_SLOW)
        return 0;
    string_linear(cpu, op, op->seg, op->ea, cpu->gpr[VMM_RSI], size, false, &src);
    string_linear(cpu, op, VMM_ES, op->scale, cpu->gpr[VMM_RDI], size, true, &dst);
    c = chunk(n, size, src, dst);
    if (!c)
        return 0;
    s = mmu_fast_read(&cpu->mmu, cpu->mmu_idx, src, c);
    d = mmu_fast_write(&cpu->mmu, cpu->mmu_idx, dst, c);
    if (!s || !d)
        return 0;
    if (may_follow(op))
        c = follow(cpu, &src, dst, s, d, c, n * size, size);
    host_movs(d, s, c, size);
    set_address(cpu, op, VMM_RSI, cpu->gpr[VMM_RSI] + c);
    set_address(cpu, op, VMM_RDI, cpu->gpr[VMM_RDI] + c);
    return c;
}

static unsigned stos_bulk(struct x86_cpu *cpu, const struct x86_op *op, uint64_t n, unsigned size)
{
    uint64_t v = cpu->gpr[VMM_RAX], dst;
    uint8_t *d;
    unsigned c;

    if (!can_bulk(cpu, op))
        return 0;
    string_linear(cpu, op, VMM_ES, op->scale, cpu->gpr[VMM_RDI], size, true, &dst);
    c = chunk(n, size, dst, dst);
    d = c ? mmu_fast_write(&cpu->mmu, cpu->mmu_idx, dst, c) : NULL;
    if (!d)
        return 0;
    if (may_follow(op))
        c = follow(cpu, NULL, dst, NULL, d, c, n * size, size);
    host_stos(d, v, c, size);
    set_address(cpu, op, VMM_RDI, cpu->gpr[VMM_RDI] + c);
    return c;
}

static inline unsigned no_bulk(struct x86_cpu *cpu, const struct x86_op *op, uint64_t n,
                               unsigned size)
{
    (void)cpu, (void)op, (void)n, (void)size;
    return 0;
}

/* ---- REP ---- */

/* Whether an instruction with iterations left must stop here for the time being. `work` counts
 * towards the next look at the timers, as instructions do elsewhere. */
static inline bool interrupted(struct x86_cpu *cpu, unsigned *work)
{
    if (x86_unlikely(*work >= X86_POLL)) {
        *work = 0;
        cpu->env->poll(cpu->env->mmu.ctx);
    }
    if (x86_unlikely(cpu->rflags & X86_TF))
        cpu->pending_db |= DR6_BS;
    return cpu->pending_db || cpu->stop ||
           atomic_load_explicit(&cpu->attention, memory_order_relaxed);
}

static X86_COLD void no_iterations(struct x86_cpu *cpu, const struct x86_op *op, bool si, bool di)
{
    set_address(cpu, op, VMM_RCX, 0);
    if (si)
        set_address(cpu, op, VMM_RSI, cpu->gpr[VMM_RSI]);
    if (di)
        set_address(cpu, op, VMM_RDI, cpu->gpr[VMM_RDI]);
}

/*
 * A count of 0 does nothing, but with addresses of 32 bits in 64-bit mode it clears the upper
 * halves of RCX and, for the two that have fast string operation, of the addresses; so does
 * hardware.
 *
 * `conditional`: CMPS and SCAS also end by ZF. If one of their iterations faults, the flags are
 * those before the instruction (SDM Vol. 2B, REP): cc is only stored at the end.
 */
#define STRING(name, bits, bulk, conditional)                                                      \
    X86_HANDLER(name##bits##_once)                                                                 \
    {                                                                                              \
        uint16_t cc = cpu->cc;                                                                     \
        if (x86_unlikely(!name##bits(cpu, op, &cc)))                                               \
            return x86_leave(cpu, op);                                                             \
        cpu->cc = cc;                                                                              \
        X86_RETURN(cpu, op);                                                                       \
    }                                                                                              \
    X86_HANDLER(name##bits##_rep)                                                                  \
    {                                                                                              \
        uint64_t n = x86_get_reg(cpu, VMM_RCX, 2u << op->asz);                                     \
        unsigned work = 0;                                                                         \
        uint16_t cc = cpu->cc;                                                                     \
        if (x86_unlikely(!n))                                                                      \
            no_iterations(cpu, op, bulk == movs_bulk, bulk != no_bulk);                            \
        while (n) {                                                                                \
            unsigned c = bulk(cpu, op, n, bits / 8);                                               \
            if (!c) {                                                                              \
                if (!name##bits(cpu, op, &cc))                                                     \
                    return x86_leave(cpu, op);                                                     \
                c = bits / 8;                                                                      \
            }                                                                                      \
            cpu->rep_serial++;                                                                     \
            n -= c / (bits / 8);                                                                   \
            set_address(cpu, op, VMM_RCX, n);                                                      \
            if (conditional && !(cc & X86_CC_ZF) == (op->r == REPE))                               \
                break;                                                                             \
            work += 1 + c / 64;                                                                    \
            if (n && x86_unlikely(interrupted(cpu, &work)))                                        \
                return x86_leave(cpu, op);                                                         \
        }                                                                                          \
        cpu->cc = cc;                                                                              \
        X86_RETURN(cpu, op);                                                                       \
    }
#define STRINGS(name, bulk, conditional)                                                           \
    STRING(name, 8, bulk, conditional)                                                             \
    STRING(name, 16, bulk, conditional)                                                            \
    STRING(name, 32, bulk, conditional) STRING(name, 64, bulk, conditional)
STRINGS(movs, movs_bulk, false)
STRINGS(stos, stos_bulk, false)
STRINGS(lods, no_bulk, false)
STRINGS(cmps, no_bulk, true)
STRINGS(scas, no_bulk, true)

#define ROW(name)                                                                                  \
    {                                                                                              \
        {name##8_once, name##16_once, name##32_once, name##64_once},                               \
        {                                                                                          \
            name##8_rep, name##16_rep, name##32_rep, name##64_rep                                  \
        }                                                                                          \
    }

bool x86_dec_string(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    static x86_fn *const fn[][2][4] = {
        [X86_MOVS] = ROW(movs), [X86_STOS] = ROW(stos), [X86_LODS] = ROW(lods),
        [X86_CMPS] = ROW(cmps), [X86_SCAS] = ROW(scas),
    };
    /* Which operand is at rSI and which at rDI; NONE: there is no such. */
    enum { NONE = 9 };
    static const struct {
        uint8_t si, di;
    } where[] = {
        [X86_MOVS] = {1, 0}, [X86_STOS] = {NONE, 0}, [X86_LODS] = {1, NONE},
        [X86_CMPS] = {0, 1}, [X86_SCAS] = {NONE, 1},
    };
    unsigned si = where[arg].si, di = where[arg].di, rep = ONCE;
    struct x86_op dst = *op;

    /* MOVSD and CMPSD are names of SSE instructions too. */
    if (d->insn.meta.category != ZYDIS_CATEGORY_STRINGOP)
        return x86_dec_vec(d, op);
    if (d->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        rep = REP;
    else if (d->insn.attributes & ZYDIS_ATTRIB_HAS_REPNE)
        rep = REPNE;
    if (si != NONE)
        x86_dec_mem(d, si, op);
    if (di != NONE) {
        x86_dec_mem(d, di, &dst);
        op->asz = dst.asz;
        op->scale = dst.ea;
    }
    op->size = (uint8_t)x86_dec_size(d, si != NONE ? si : di);
    op->r = (uint8_t)rep;
    op->fn = fn[arg][rep != ONCE][x86_log2_size(op->size)];
    return true;
}
