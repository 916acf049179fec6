/* SPDX-License-Identifier: BSD-2-Clause */
/* The binary translator in lock step with the software CPU alone: two CPUs execute the same code,
 * and after each piece of it have the same registers, flags and memory.
 *
 * usage: test_bt [FIRST-SEED COUNT]: more random cases, outside of Check. */
#include <check.h>
#include <stdio.h>

#include "backends/bt/bt.h"
#include "core/os.h"
#include "core/x86/xstate.h"
#include "x86_fake.h"

/* Code memory that is often full. */
#define SMALL (BT_MAX_CODE * 5 / 2)

/* ---- two CPUs ---- */

struct pair {
    struct fake *plain, *bt;
};

static struct bt *bt_of(struct fake *f)
{
    return f->cpu->tier_state;
}

/* Both have a second level of the TLB: where the guest has changed a page table and not told, they
 * go on with the same old entries. */
static void pair_new(struct pair *p, unsigned hot, size_t size)
{
    struct mmu_entry *l2 = os_pages_alloc(MMU_L2_BYTES);

    p->plain = fake_new();
    p->bt = fake_new();
    if (!l2 || bt_attach(p->bt->cpu, hot, size))
        abort();
    mmu_set_l2(&p->plain->cpu->mmu, l2);
    bt_of(p->bt)->exact = true;
}

static void pair_free(struct pair *p)
{
    os_pages_free(p->plain->cpu->mmu.l2, MMU_L2_BYTES);
    bt_detach(p->bt->cpu);
    fake_free(p->bt);
    fake_free(p->plain);
}

#define BOTH(p, f) for (struct fake *f = (p)->plain; f; f = f == (p)->plain ? (p)->bt : NULL)

static unsigned differ(const char *what, uint64_t plain, uint64_t bt)
{
    if (plain == bt)
        return 0;
    printf("  %-8s plain %#18llx  bt %#18llx\n", what, (unsigned long long)plain,
           (unsigned long long)bt);
    return 1;
}

static unsigned differ_memory(const struct pair *p)
{
    unsigned n = 0;

    if (!memcmp(p->plain->mem, p->bt->mem, 0x80000))
        return 0;
    for (unsigned i = 0; i < 0x80000 && n < 16; i++) {
        char what[16];

        snprintf(what, sizeof(what), "%#x", i);
        n += differ(what, p->plain->mem[i], p->bt->mem[i]);
    }
    return n;
}

/* The number of differences. */
static unsigned compare(const struct pair *p)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    const struct x86_cpu *a = p->plain->cpu, *b = p->bt->cpu;
    unsigned n = 0;

    for (unsigned i = 0; i < 16; i++)
        n += differ(names[i], a->gpr[i], b->gpr[i]);
    n += differ("rip", a->rip, b->rip);
    n += differ("rflags", x86_get_rflags(a), x86_get_rflags(b));
    n += differ("cr2", a->cr2, b->cr2);
    n += differ("cr3", a->cr3, b->cr3);
    n += differ("cpl", a->cpl, b->cpl);
    n += differ("jumps", x86_jump_key(b, b->mode), b->jump_key);
    n += differ("links", x86_link_key(b, b->mode), b->link_key);
    n += memcmp(&a->seg[VMM_CS], &b->seg[VMM_CS], sizeof(a->seg[0])) ? differ("cs", 0, 1) : 0;
    n += memcmp(&a->seg[VMM_SS], &b->seg[VMM_SS], sizeof(a->seg[0])) ? differ("ss", 0, 1) : 0;
    n += differ("tables", (uintptr_t)b->mmu.data[b->mmu_idx], (uintptr_t)b->tier_data);
    n += differ("fs", a->seg[VMM_FS].base, b->seg[VMM_FS].base);
    n += differ("gs", a->seg[VMM_GS].base, b->seg[VMM_GS].base);
    n += differ("swapgs", a->kernel_gs_base, b->kernel_gs_base);
    n += differ("table", a->mmu_idx, b->mmu_idx);
    n += differ("shadow", a->shadow, b->shadow);
    n += differ("pauses", a->pauses, b->pauses);
    n += differ("mode", a->mode, b->mode);
    n += differ("event", a->event.valid, b->event.valid);
    n += differ("done", p->plain->done, p->bt->done);
    n += differ("irqs", p->plain->irq + 1u, p->bt->irq + 1u);
    n += differ("accesses", p->plain->nlog, p->bt->nlog);
    for (unsigned i = 0; i < 32; i++)
        n += memcmp(a->fpu.vec[i], b->fpu.vec[i], 64) ? differ("vector", i, ~i) : 0;
    for (unsigned i = 0; i < 8; i++)
        n += differ("mask", a->fpu.k[i], b->fpu.k[i]);
    n += memcmp(a->fpu.x87, b->fpu.x87, sizeof(a->fpu.x87)) ? differ("x87", 0, 1) : 0;
    n += differ("mxcsr", a->fpu.mxcsr, b->fpu.mxcsr);
    n += differ("fcw", a->fpu.fcw, b->fpu.fcw);
    n += differ("fsw", a->fpu.fsw, b->fpu.fsw);
    n += differ("ftw", a->fpu.ftw, b->fpu.ftw);
    n += differ("fop", a->fpu.fop, b->fpu.fop);
    n += differ("fip", a->fpu.fip, b->fpu.fip);
    n += differ("fdp", a->fpu.fdp, b->fpu.fdp);
    n += differ("xinuse", x86_xinuse(a), x86_xinuse(b));
    n += differ("cr0", a->cr0, b->cr0);
    return n + differ_memory(p);
}

/* ---- random code ---- */

static uint64_t rng;

/* What the cases so far have been made of: a test of the test. */
static struct {
    uint64_t insns, translations, exceptions, blocks_flushed, code_flushes, regions;
} sum;

static uint64_t rnd(void)
{
    rng ^= rng >> 12;
    rng ^= rng << 25;
    rng ^= rng >> 27;
    return rng * 0x2545f4914f6cdd1d;
}

static unsigned below(unsigned n)
{
    return (unsigned)((rnd() >> 32) % n);
}

static bool percent(unsigned p)
{
    return below(100) < p;
}

#define CODE_SIZE 0x3000u /* from FAKE_TEXT on */
#define MAX_INSNS 1200u
#define NO_PAGE   (FAKE_DATA + 0x5000u) /* not present */
#define RO_PAGE   (FAKE_DATA + 0x7000u)
#define TABLE     (FAKE_DATA - 0x1000u) /* where the handlers go on ... */
#define COUNTER   (TABLE + 0x100u)      /* ... by this */
#define RESUME    0xe000u               /* code of all handlers */

struct code {
    uint8_t bytes[CODE_SIZE + 512];
    unsigned len, n;
    unsigned start[MAX_INSNS];
    unsigned rel[MAX_INSNS], nrel; /* places of 32-bit displacements */
    unsigned base;                 /* of most accesses for a while */
    bool bits64;
    unsigned vectors;         /* percentage */
    unsigned func[16], nfunc; /* places of functions */
};

static void put8(struct code *c, unsigned v)
{
    c->bytes[c->len++] = (uint8_t)v;
}

static void put32(struct code *c, uint32_t v)
{
    memcpy(c->bytes + c->len, &v, 4);
    c->len += 4;
}

/* An address that an access may go to: mostly data, often at the edge of a page. */
static uint32_t address(void)
{
    uint32_t page = FAKE_DATA + 0x1000 * below(10);

    switch (below(16)) {
    case 0:
        return FAKE_TEXT + below(CODE_SIZE);
    case 1:
        return FAKE_MMIO + below(0x100);
    case 2:
    case 3:
    case 4:
    case 5:
        return page - 8 + below(12);
    default:
        return page + below(0x1000);
    }
}

static uint32_t value(void)
{
    switch (below(4)) {
    case 0:
        return below(70);
    case 1:
        return (uint32_t) - (int)below(200);
    default:
        return (uint32_t)rnd();
    }
}

/* ModRM, SIB and displacement; `mem`: no register. */
static void modrm(struct code *c, unsigned reg, bool mem)
{
    unsigned mod = mem || percent(50) ? below(3) : 3, rm = below(8);

    if (mod != 3 && percent(60)) {
        put8(c, 0x40 | reg << 3 | c->base);
        put8(c, below(8) * 8 + below(3));
        return;
    }
    put8(c, mod << 6 | reg << 3 | rm);
    if (mod == 3)
        return;
    if (rm == 4) {
        unsigned base = below(8);

        put8(c, below(4) << 6 | (percent(60) ? 4u : below(8)) << 3 | base);
        if (mod == 0 && base == 5)
            put32(c, c->bits64 ? address() : address());
    }
    if (mod == 0 && rm == 5)
        put32(c, c->bits64 ? address() - FAKE_TEXT - c->len - 4 : address());
    if (mod == 1)
        put8(c, (unsigned)rnd());
    if (mod == 2)
        put32(c, percent(80) ? (uint32_t)below(4096) - 2048 : (uint32_t)rnd());
}

static void rex(struct code *c)
{
    if (c->bits64 && percent(60))
        put8(c, 0x40 | below(16));
}

static void prefixes(struct code *c)
{
    if (percent(10))
        put8(c, 0x66);
    if (percent(2))
        put8(c, percent(50) ? 0x64 : 0x65);
    if (percent(1))
        put8(c, percent(50) ? 0xf2 : 0xf3);
    rex(c);
}

/* The immediate of the instruction whose prefixes begin at `start`. */
static void immediate(struct code *c, unsigned start, bool byte)
{
    bool half = false;

    for (unsigned i = start; i < c->len && i < start + 3; i++)
        half |= c->bytes[i] == 0x66 && !(i + 1 < c->len && (c->bytes[i + 1] & 0xf8) == 0x48);
    if (byte)
        put8(c, value());
    else if (half)
        put8(c, value()), put8(c, value());
    else
        put32(c, value());
}

/* MOV reg32, constant: an address or a value; never RSP, which has its own. */
static void put_load(struct code *c)
{
    unsigned r = below(c->bits64 ? 16 : 8);

    if (r == VMM_RSP)
        r = VMM_RBX;
    if (r >= 8)
        put8(c, 0x41);
    put8(c, 0xb8 | (r & 7));
    put32(c, percent(70) ? address() & (percent(c->vectors) ? ~63u : ~0u) : value());
}

static void put_alu(struct code *c)
{
    unsigned start = c->len;

    switch (below(6)) {
    case 0:
        if (percent(15))
            put8(c, 0xf0);
        prefixes(c);
        put8(c, 0x80 | (percent(50) ? 3u : below(2)));
        modrm(c, below(8), c->bytes[start] == 0xf0);
        immediate(c, start, c->bytes[start] != 0 && !(c->bytes[c->len - 1] == 0x81));
        break;
    case 1:
        prefixes(c);
        put8(c, below(8) << 3 | 4 | below(2));
        immediate(c, start, !(c->bytes[c->len - 1] & 1));
        break;
    case 2:
        if (percent(10))
            put8(c, 0xf0);
        prefixes(c);
        put8(c, below(8) << 3 | below(2));
        modrm(c, below(8), c->bytes[start] == 0xf0);
        break;
    default:
        prefixes(c);
        put8(c, below(8) << 3 | below(4));
        modrm(c, below(8), false);
    }
}

static void put_one_byte(struct code *c)
{
    static const uint8_t ops[] = {0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x88, 0x89,
                                  0x8b, 0x8b, 0x8d, 0x8d, 0x63, 0xc0, 0xc1, 0xd0, 0xd1, 0xd2,
                                  0xd3, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff, 0x69, 0x6b, 0x8f};
    uint8_t op = ops[below(sizeof(ops))];
    unsigned start = c->len, reg = below(8);

    prefixes(c);
    if (op == 0xfe || op == 0xff)
        reg = percent(70) ? below(2) : 6;
    if (op == 0xc6 || op == 0xc7 || op == 0x8f)
        reg = 0;
    put8(c, op);
    modrm(c, reg, op == 0x8d);
    if (op == 0xc0 || op == 0xc1 || op == 0x6b || op == 0xc6 || (op == 0xf6 && reg < 2))
        put8(c, value());
    if (op == 0xc7 || op == 0x69 || (op == 0xf7 && reg < 2))
        immediate(c, start, false);
}

static void put_two_byte(struct code *c)
{
    static const uint8_t ops[] = {0xaf, 0xb6, 0xb7, 0xbe, 0xbf, 0xa3, 0xab, 0xb3, 0xbb, 0xba,
                                  0xa4, 0xa5, 0xac, 0xad, 0xbc, 0xbd, 0xb0, 0xb1, 0xc0, 0xc1,
                                  0xc8, 0xc9, 0xcf, 0x1f, 0x18, 0x10, 0x11, 0x58, 0xef};
    uint8_t op = ops[below(sizeof(ops))];

    if (percent(40))
        op = (uint8_t)((percent(50) ? 0x40 : 0x90) | below(16));
    if (percent(10) && (op == 0xb0 || op == 0xb1 || op == 0xc0 || op == 0xc1 || op == 0xab))
        put8(c, 0xf0);
    prefixes(c);
    put8(c, 0x0f);
    put8(c, op);
    if (op >= 0xc8 && op <= 0xcf)
        return;
    modrm(c, op == 0xba ? 4 | below(4) : below(8), false);
    if (op == 0xba || op == 0xa4 || op == 0xac)
        put8(c, value());
}

static void put_other(struct code *c)
{
    static const uint8_t plain[] = {0x90, 0x98, 0x99, 0x9c, 0x9e, 0x9f, 0xf5, 0xf8, 0xf9, 0xfc,
                                    0x91, 0x93, 0x96, 0x97, 0xc9, 0xa4, 0xaa, 0xac, 0xa5, 0xab};

    switch (below(8)) {
    case 0: /* PUSHes or POPs */
    case 1:
    case 2: {
        unsigned op = percent(50) ? 0x50 : 0x58;

        for (unsigned n = 1 + below(5); n > 0; n--) {
            if (c->bits64 && percent(30))
                put8(c, 0x41);
            put8(c, op | (percent(95) ? below(4) : below(8)));
        }
        if (percent(20)) {
            if (c->bits64)
                put8(c, 0x48);
            put8(c, 0x83), put8(c, percent(50) ? 0xc4 : 0xec), put8(c, below(8) * 8);
        }
        if (percent(20))
            put8(c, 0xc3);
        break;
    }
    case 3:
        put8(c, 0x68);
        put32(c, value());
        break;
    case 4:
        put8(c, 0x6a);
        put8(c, value());
        break;
    case 5: /* BMI2 without flags, POPCNT, MOVBE, ADCX, ADOX, CRC32 */
        if (percent(50)) {
            put8(c, 0xc4);
            put8(c, 0xe2 ^ (c->bits64 ? below(8) << 5 : 0));
            if (percent(40)) { /* ANDN, BLSx, BEXTR, BZHI */
                static const uint8_t ops[] = {0xf2, 0xf3, 0xf5, 0xf7};

                put8(c, below(2) << 7 | (percent(50) ? 0x78u : 0x40u | below(8) << 3));
                put8(c, ops[below(4)]);
                modrm(c, 1 + below(3), false);
            } else {
                put8(c, below(2) << 7 | (percent(50) ? 0x78u : 0x40u | below(8) << 3) |
                            (1 + below(3)));
                put8(c, 0xf7);
                modrm(c, below(8), false);
            }
        } else {
            put8(c, percent(50) ? 0xf3 : percent(50) ? 0x66 : 0xf2);
            rex(c);
            put8(c, 0x0f);
            if (percent(50)) {
                static const uint8_t counts[] = {0xb8, 0xbc, 0xbd};

                put8(c, counts[below(3)]);
            } else {
                put8(c, 0x38);
                put8(c, percent(50) ? 0xf6 : 0xf0 | below(2));
            }
            modrm(c, below(8), false);
        }
        break;
    default:
        rex(c);
        put8(c, plain[below(sizeof(plain))]);
    }
}

/* Jcc, JMP, CALL to an instruction; JMP and CALL through a register that gets its address; RET. */
static void put_branch(struct code *c)
{
    unsigned kind = below(10);

    if (kind < 6) {
        put8(c, 0x0f);
        put8(c, 0x80 | below(16));
    } else if (kind < 8) {
        put8(c, kind == 6 ? 0xe9 : 0xe8);
    } else if (kind == 8) {
        put8(c, 0xc3);
        return;
    } else {
        put8(c, 0xb8);
        put32(c, FAKE_TEXT + below(CODE_SIZE / 2));
        put8(c, 0xff);
        put8(c, percent(50) ? 0xe0 : 0xd0);
        return;
    }
    c->rel[c->nrel++] = c->len;
    put32(c, 0);
}

#include "bt_flags.h"
#include "bt_loops.h"
#include "bt_sys.h"
#include "bt_vec.h"
#include "bt_ways.h"

static void put_insn(struct code *c)
{
    unsigned kind = below(100);

    c->start[c->n++] = c->len;
    if (percent(10)) {
        static const uint8_t bases[] = {0, 1, 2, 3, 5, 6, 7};

        c->base = bases[below(sizeof(bases))];
    }
    if (percent(5)) { /* the base moves on */
        if (c->bits64)
            put8(c, 0x48);
        put8(c, 0x83), put8(c, (percent(50) ? 0xc0u : 0xe8u) | c->base), put8(c, below(40));
    } else if (percent(5)) {
        put_system(c);
    } else if (percent(4)) {
        put_way(c);
    } else if (percent(3)) {
        put_loop(c);
    } else if (percent(8)) {
        put_flags(c);
    } else if (percent(c->vectors))
        put_vector(c);
    else if (kind < 22)
        put_load(c);
    else if (kind < 47)
        put_alu(c);
    else if (kind < 65)
        put_one_byte(c);
    else if (kind < 78)
        put_two_byte(c);
    else if (kind < 88)
        put_other(c);
    else
        put_branch(c);
}

/* An instruction not far from a place: for loops, and ways that part and meet. */
static unsigned nearby(const struct code *c, unsigned place)
{
    unsigned i = 0;
    int near;

    while (i + 1 < c->n && c->start[i + 1] <= place)
        i++;
    near = (int)i - 12 + (int)below(24);
    return near < 0 ? 0 : near < (int)c->n ? (unsigned)near : c->n - 1;
}

static void make_code(struct code *c, bool bits64)
{
    unsigned loops = percent(50) ? 0 : below(100);
    unsigned size = percent(50) ? 300 : CODE_SIZE - 512;
    bool noise = percent(10);

    *c = (struct code){.bits64 = bits64, .vectors = percent(50) ? 10 : percent(50) ? 2 : 60};
    while (c->len < size && c->n < MAX_INSNS)
        put_insn(c);
    for (unsigned i = 0; i < c->nrel; i++) {
        unsigned near = percent(loops) ? nearby(c, c->rel[i]) : below(c->n);
        uint32_t rel = c->start[near] - (c->rel[i] + 4);

        memcpy(c->bytes + c->rel[i], &rel, 4);
    }
    if (noise)
        for (unsigned i = 0; i < 200; i++)
            c->bytes[below(c->len)] = (uint8_t)rnd();
}

/* What every vector leads to: goes on somewhere in the code, with usable registers. */
static unsigned make_resume(uint8_t *at, const struct fake *f, bool bits64)
{
    struct code c = {.bits64 = bits64};
    unsigned cs = f->cpu->seg[VMM_CS].selector, ss = f->cpu->seg[VMM_SS].selector;
    const uint32_t frame[] = {ss, FAKE_STACK - 64 - 8 * below(64), 0x202, cs};

    for (unsigned i = 0; i < 4; i++) {
        put8(&c, 0x68);
        put32(&c, frame[i]);
    }
    put8(&c, 0xb9); /* MOV ECX, COUNTER; INC [ECX]; MOV EAX, [ECX]; AND EAX, 7 */
    put32(&c, COUNTER);
    put8(&c, 0xff), put8(&c, 0x01);
    put8(&c, 0x8b), put8(&c, 0x01);
    put8(&c, 0x83), put8(&c, 0xe0), put8(&c, 7);
    put8(&c, 0xff), put8(&c, 0x34), put8(&c, 0xc5); /* PUSH [TABLE + 8 * EAX] */
    put32(&c, TABLE);
    for (unsigned r = 0; r < (bits64 ? 16u : 8u); r++) {
        if (r == VMM_RSP)
            continue;
        if (r >= 8)
            put8(&c, 0x41);
        put8(&c, 0xb8 | (r & 7));
        put32(&c, address());
    }
    if (bits64)
        put8(&c, 0x48);
    put8(&c, 0xcf); /* IRET */
    memcpy(at, c.bytes, c.len);
    return c.len;
}

/* ---- a case ---- */

static void prepare(struct fake *f, const struct code *c, const uint8_t *resume, unsigned nresume,
                    const uint32_t *targets, bool user)
{
    if (c->bits64)
        fake_long64(f);
    else
        fake_prot32(f);
    if (user)
        fake_user(f);
    f->cpu->cr0 |= X86_CR0_WP;
    if (!c->bits64) {
        f->cpu->cr3 = FAKE_PD32;
        f->cpu->cr4 |= X86_CR4_PSE | X86_CR4_OSFXSR;
        f->cpu->cr0 |= X86_CR0_PG;
        fake_put(f, FAKE_PT32 + NO_PAGE / 4096 * 4, 4, 0);
        fake_put(f, FAKE_PT32 + RO_PAGE / 4096 * 4, 4, RO_PAGE | 5);
    }
    f->cpu->cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    /* What is neither memory nor MMIO is not there: REP with a wild count comes to an end. */
    for (unsigned i = FAKE_MEM >> 21; i < 512; i++)
        if (i != FAKE_MMIO >> 21)
            fake_put(f, FAKE_PD + i * 8, 8, 0);
    for (unsigned i = FAKE_MEM >> 22; i < 1024; i++)
        if (i != FAKE_MMIO >> 22)
            fake_put(f, FAKE_PD32 + i * 4, 4, 0);
    fake_put(f, FAKE_PT + NO_PAGE / 4096 * 8, 8, 0);
    fake_put(f, FAKE_PT + RO_PAGE / 4096 * 8, 8, RO_PAGE | 5);
    for (unsigned v = 0; v < 256; v++) {
        uint32_t rel = RESUME - (FAKE_HANDLERS + v * 16 + 5);

        f->mem[FAKE_HANDLERS + v * 16] = 0xe9;
        memcpy(f->mem + FAKE_HANDLERS + v * 16 + 1, &rel, 4);
        if (c->bits64)
            f->mem[FAKE_IDT + v * 16 + 4] = 1; /* IST1 */
    }
    if (c->bits64) {
        f->cpu->cr4 |= X86_CR4_FSGSBASE | X86_CR4_OSXSAVE | X86_CR4_PGE;
        if (c->bytes[0] & 1)
            f->cpu->cr4 |= X86_CR4_PKE;
        f->cpu->efer |= X86_EFER_SCE;
        f->cpu->star = (uint64_t)(FAKE_UCS32 & ~3u) << 48 | (uint64_t)FAKE_CS64 << 32;
        f->cpu->lstar = f->cpu->sysenter_eip = RESUME;
        f->cpu->sfmask = X86_TF | X86_DF | X86_IF;
        f->cpu->sysenter_cs = FAKE_CS64;
        f->cpu->sysenter_esp = FAKE_STACK0 - 1024;
    }
    f->cpu->kernel_gs_base = FAKE_DATA;
    for (unsigned i = 0; i < CODE_SIZE >> 12; i++) {
        fake_put(f, FAKE_PT + ((ALIAS >> 12) + i) * 8, 8, (FAKE_TEXT + i * 0x1000) | 7);
        fake_put(f, FAKE_PT32 + ((ALIAS >> 12) + i) * 4, 4, (FAKE_TEXT + i * 0x1000) | 7);
    }
    fake_put(f, FAKE_TSS + 36, 8, FAKE_STACK0);
    memcpy(f->mem + RESUME, resume, nresume);
    memcpy(f->mem + FAKE_TEXT, c->bytes, sizeof(c->bytes));
    for (unsigned i = 0; i < 8; i++)
        fake_put(f, TABLE + i * 8, 8, targets[i]);
    x86_mode_changed(f->cpu);
    x86_flush_tlb(f->cpu);
    f->cpu->gpr[VMM_RSP] = FAKE_STACK - 64;
    f->cpu->rip = FAKE_TEXT;
    f->input = 0x1122334455667788;
    f->irq = -1;
    f->irq_once = true;
}

static void print_place(const struct pair *p, uint64_t rip)
{
    printf("  from %#llx:", (unsigned long long)rip);
    for (unsigned i = 0; i < 48 && rip < 0x80000; i++)
        printf(" %02x", p->plain->mem[rip + i]);
    printf("\n");
}

/* A host that has nothing beyond x86-64, or lacks some of it. */
static void poor_host(struct x86_cpu *cpu)
{
    struct bt_features host;
    uint8_t *has = (uint8_t *)&host;
    bool some = percent(60);

    for (size_t i = 0; i < sizeof(host); i++)
        has[i] = some && percent(50);
    host.avx &= host.xsave;
    host.avx512 &= host.avx;
    bt_limit_host(cpu, &host);
}

/* What is enabled, and what is in the registers; all vector registers of the host's system. */
static void vector_state(const struct pair *p)
{
    static const uint32_t components[] = {3, 7, 0xe7, 0xe7};
    uint64_t xcr0 = components[below(4)], use = percent(50) ? xcr0 : xcr0 & 3;
    uint64_t random = rnd();
    uint32_t pointers = percent(70) ? 0 : (1u << 6 | 1u << 13) & (uint32_t)rnd();

    BOTH(p, f)
    {
        struct x86_fpu *fpu = &f->cpu->fpu;

        f->cpu->feat.l7_ebx &= ~pointers;
        fpu->fcw = random % 16 ? 0x37f : 0x340 | (random >> 8 & 0xc3f);
        fpu->fsw = random >> 20 & 0x7800;
        fpu->ftw = (uint8_t)(random >> 32);
        for (unsigned i = 0; i < 8; i++) {
            double v = (double)(int64_t)(random * (i + 1)) / 4096;
            long double wide = v;

            memcpy(fpu->x87[i], &wide, 10);
        }

        f->cpu->xcr0 = xcr0;
        fpu->xinuse = use | X86_XCR0_X87;
        for (unsigned i = 0; i < (use & 0x80 ? 32 : 16); i++)
            for (unsigned k = 0; k < (use & 0x40 ? 8 : use & 4 ? 4 : 2); k++) {
                uint64_t v = (random + i) * (k + 1) * 0x9e3779b97f4a7c15;

                memcpy(fpu->vec[i] + 8 * k, &v, 8);
            }
        for (unsigned i = 0; i < 8 && (use & 0x20); i++)
            fpu->k[i] = (random | 3) * (i + 1);
    }
}

/* False: they differ, which is printed. */
static bool run_case(uint64_t seed)
{
    static struct code c;
    struct pair p;
    uint8_t resume[256];
    uint32_t targets[8];
    unsigned nresume;
    bool bits64, user, ok = true;

    rng = seed * 0x9e3779b97f4a7c15 + 1;
    bits64 = percent(65);
    user = !bits64 || percent(50);
    make_code(&c, bits64);
    for (unsigned i = 0; i < 8; i++)
        targets[i] = FAKE_TEXT + c.start[below(c.n)];
    pair_new(&p, percent(70) ? 1 : 3, percent(20) ? SMALL : BT_ARENA);
    bt_of(p.bt)->hotter = 1 + below(4);
    bt_of(p.bt)->shuffle = percent(60) ? (uint32_t)rnd() | 1 : 0;
    for (unsigned i = 0; i < X86_TIER_HEAT; i++)
        p.bt->cpu->tier_heat[i] = bt_of(p.bt)->hotter;
    if (percent(40))
        poor_host(p.bt->cpu);
    /* Selectors are those of the mode. */
    prepare(p.plain, &c, resume, 0, targets, user);
    nresume = make_resume(resume, p.plain, bits64);
    BOTH(&p, f) prepare(f, &c, resume, nresume, targets, user);
    for (unsigned i = 0; i < 0x20000; i += 8) {
        uint64_t v = rnd();

        BOTH(&p, f) memcpy(f->mem + FAKE_DATA + i, &v, 8);
    }
    vector_state(&p);
    for (unsigned total = 0; total < 12000 && ok;) {
        unsigned n = percent(80) ? 1 + below(400) : 1 + below(3);
        uint64_t rip = p.plain->cpu->rip;
        enum x86_stop stop[2];

        if (percent(5))
            BOTH(&p, f) f->irq = 0x40;
        if (percent(5))
            remap(&p, bits64);
        BOTH(&p, f) f->nlog = 0;
        stop[0] = fake_run(p.plain, n);
        stop[1] = fake_run(p.bt, n);
        total += n;
        if (differ("stop", stop[0], stop[1]) || compare(&p)) {
            printf("seed %llu, %u instructions, %s%s\n", (unsigned long long)seed, total,
                   bits64 ? "64 bits" : "32 bits", user ? ", user" : "");
            print_place(&p, rip);
            ok = false;
        }
        if (stop[0] == X86_STOP_SHUTDOWN)
            break;
        BOTH(&p, f) f->cpu->activity = VMM_ACTIVE;
    }
    sum.insns += p.bt->cpu->count.insns;
    sum.translations += p.bt->cpu->count.translations;
    sum.exceptions += p.bt->cpu->count.exceptions;
    sum.blocks_flushed += p.bt->cpu->count.blocks_flushed;
    sum.code_flushes += p.bt->cpu->count.code_flushes;
    sum.regions += p.bt->cpu->count.regions;
    pair_free(&p);
    return ok;
}

START_TEST(random_code)
{
    for (uint64_t seed = 1; seed <= 60; seed++)
        ck_assert(run_case(seed));
    ck_assert_uint_gt(sum.translations, 60 * 50);
    ck_assert_uint_gt(sum.exceptions, 60 * 50);
    ck_assert_uint_gt(sum.blocks_flushed, 60 * 4);
    ck_assert_uint_gt(sum.code_flushes, 5);
    ck_assert_uint_gt(sum.regions, 60 * 5);
}
END_TEST

/* ---- blocks that come and go ---- */

static struct fake *translating(unsigned hot)
{
    struct fake *f = fake_new();

    ck_assert_int_eq(bt_attach(f->cpu, hot, BT_ARENA), 0);
    fake_long64(f);
    return f;
}

static void finish(struct fake *f)
{
    bt_detach(f->cpu);
    fake_free(f);
}

FAKE_ASM(adds, 64,
         "xor %eax, %eax\n mov $1000, %ecx\n 1: add %rcx, %rax\n dec %ecx\n jnz 1b\n hlt");

START_TEST(a_loop_is_translated)
{
    struct fake *f = translating(2);

    ck_assert_int_eq(FAKE_EXEC(f, adds), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 500500);
    ck_assert_uint_eq(f->cpu->count.translations, 1);
    ck_assert_uint_eq(f->cpu->count.handler_calls, 0);
    finish(f);
}
END_TEST

/* What kernels execute all the time needs no handler. */
FAKE_ASM(kernel, 64,
         "mov $50, %esi\n"
         "1: cli\n pushf\n stac\n clac\n swapgs\n cld\n lfence\n pause\n mov %cr3, %rax\n"
         "mov %cr2, %rbx\n mov %ds, %edi\n rdgsbase %r8\n wrfsbase %r8\n pop %r9\n lahf\n sahf\n"
         "lock btsq %rsi, -64(%rsp)\n bt %esi, -64(%rsp)\n "
         "test $2, %bh\n and $0x40, %dh\n xor %edx, %edx\n mov $1000, %eax\n mov $7, %ecx\n"
         "div %rcx\n cdq\n idiv %ecx\n dec %esi\n jnz 1b\n hlt");

START_TEST(kernels_need_no_handlers)
{
    struct fake *f = translating(1);

    f->cpu->cr4 |= X86_CR4_FSGSBASE;
    f->cpu->kernel_gs_base = 0x1234;
    f->cpu->rflags |= X86_AC;
    ck_assert_int_eq(FAKE_EXEC(f, kernel), FAKE_HLT);
    /* PUSHF's first store, and HLT's block. */
    ck_assert_uint_le(f->cpu->count.handler_calls, 1);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 20);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 2);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDI], FAKE_DS);
    ck_assert_uint_eq(f->cpu->gpr[VMM_R9] & (X86_IF | X86_AC), 0);
    ck_assert_uint_eq(f->cpu->kernel_gs_base, 0x1234);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].base, 0);
    ck_assert_uint_eq(f->cpu->mmu_idx, MMU_KERNEL);
    finish(f);
}
END_TEST

/* Into the kernel and back, with interrupts enabled there: no handler, except when somebody waits.
 */
FAKE_ASM(system_calls, 64, "1: add $0x7f, %al\n syscall\n dec %esi\n jnz 1b\n hlt");
FAKE_ASM(system_call, 64, "sti\n inc %rbx\n cli\n mov %rcx, %r8\n mov %r11, %r9\n sysretq");

static uint64_t fallbacks(const struct fake *f, ZydisMnemonic m)
{
    return atomic_load(&bt_of((struct fake *)(uintptr_t)f)->fallbacks[m]);
}

START_TEST(system_calls_stay_inside)
{
    struct fake *f = translating(1);
    const uint32_t entry = FAKE_TEXT + 0x2000;

    fake_user(f);
    f->cpu->efer |= X86_EFER_SCE;
    f->cpu->star = (uint64_t)(FAKE_UCS32 & ~3u) << 48 | (uint64_t)FAKE_CS64 << 32;
    f->cpu->lstar = entry;
    f->cpu->sfmask = X86_IF | X86_TF | X86_DF | X86_AC;
    f->cpu->rflags |= X86_IF | X86_DF;
    f->irq = -1;
    f->cpu->gpr[VMM_RSI] = 100;
    f->cpu->gpr[VMM_RAX] = 1;
    fake_load(f, entry, system_call_begin, system_call_end);
    ck_assert_int_eq(FAKE_EXEC(f, system_calls), X86_GP); /* HLT at CPL 3 */
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 100);
    ck_assert_uint_eq(f->cpu->gpr[VMM_R8], FAKE_TEXT + 4);
    ck_assert_uint_eq(f->cpu->gpr[VMM_R9] & (X86_IF | X86_DF | 2), X86_IF | X86_DF | 2);
    ck_assert_uint_eq(fake_stack(f, 2, 8), FAKE_UCS64);
    ck_assert_uint_eq(fake_stack(f, 5, 8), FAKE_UDS);
    ck_assert_uint_eq(fake_stack(f, 3, 8) & (X86_IF | X86_DF), X86_IF | X86_DF);
    ck_assert_uint_eq(fallbacks(f, ZYDIS_MNEMONIC_SYSCALL), 0);
    /* The first look at the surroundings is STI's. */
    ck_assert_uint_le(fallbacks(f, ZYDIS_MNEMONIC_STI), 1);
    ck_assert_uint_le(fallbacks(f, ZYDIS_MNEMONIC_SYSRET), 1);
    finish(f);
}
END_TEST

/* Both blocks of the loop are linked when the second one's immediate is changed: by the loop itself
 * (the displacement of the MOV), by the host, and behind everybody's back. */
FAKE_ASM(patched, 64,
         "1: jmp 2f\n .skip 62\n 2: mov $1, %eax\n add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt");
#define PATCHED_IMM (FAKE_TEXT + 65)

START_TEST(changed_targets_are_not_jumped_to)
{
    struct fake *f = translating(1);

    FAKE_LOAD(f, patched);
    f->cpu->gpr[VMM_RCX] = 1u << 30;
    ck_assert_int_eq(fake_run(f, 5000), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 1000);
    fake_put(f, PATCHED_IMM, 1, 2);
    ck_assert_int_eq(fake_run(f, 5000), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 3000);
    f->mem[PATCHED_IMM] = 3;
    x86_cache_recheck(f->cpu);
    ck_assert_int_eq(fake_run(f, 5000), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 6000);
    finish(f);
}
END_TEST

FAKE_ASM(patches, 64,
         "1: movb %cl, 2f+1(%rip)\n jmp 2f\n .balign 64\n 2: mov $1, %eax\n"
         "movzbl %al, %eax\n add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt");

START_TEST(code_changes_itself)
{
    struct fake *f = translating(1);

    f->cpu->gpr[VMM_RCX] = 100;
    ck_assert_int_eq(FAKE_EXEC(f, patches), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 5050);
    finish(f);
}
END_TEST

/* The same physical page at two addresses: one translation, with two values of RIP. */
FAKE_ASM(where, 64,
         "mov $20, %esi\n 1: lea 1b(%rip), %rax\n call 2f\n 2: pop %rdx\n dec %esi\n jnz 1b\n hlt");

START_TEST(a_page_at_two_addresses)
{
    const uint64_t other = FAKE_TEXT + 0x8000;
    struct fake *f = translating(2);

    fake_put(f, FAKE_PT + other / 4096 * 8, 8, FAKE_TEXT | 7);
    x86_flush_tlb(f->cpu);
    ck_assert_int_eq(FAKE_EXEC(f, where), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], FAKE_TEXT + 5);
    f->cpu->rip = other;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], other + 5);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], other + 17);
    finish(f);
}
END_TEST

/* Budgets are exact although blocks are entered by jumps, and a request is seen in a loop. */
START_TEST(loops_end)
{
    struct fake *f = translating(1);

    FAKE_LOAD(f, patched);
    f->cpu->gpr[VMM_RCX] = 1u << 30;
    for (uint64_t n = 1; n < 300; n += 7) {
        ck_assert_int_eq(fake_run(f, n), X86_STOP_ATTENTION);
        ck_assert_uint_eq(f->done, n);
    }
    f->irq = 0x20;
    f->cpu->rflags |= X86_IF;
    ck_assert_int_eq(fake_go(f), 0x20);
    finish(f);
}
END_TEST

/* A branch whose target is not canonical: #GP at the branch, nothing pushed. */
FAKE_ASM(wild, 64, "movabs $0x800000000000, %rax\n mov %rsp, %rbx\n call *%rax\n hlt");

START_TEST(wild_branches)
{
    struct fake *f = translating(1);

    ck_assert_int_eq(FAKE_EXEC(f, wild), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT + 13);
    ck_assert_uint_eq(fake_stack(f, 4, 8), f->cpu->gpr[VMM_RBX]);
    finish(f);
}
END_TEST

/* Of two accesses that share a check the second one faults: the first has been done. */
FAKE_ASM(second, 64,
         "mov $0x44ffc, %edi\n mov $7, %eax\n add $1, %eax\n mov %eax, (%rdi)\n"
         "inc %ecx\n mov %eax, 4(%rdi)\n hlt");

START_TEST(the_second_access_faults)
{
    struct fake *f = translating(1);

    fake_put(f, FAKE_PT + NO_PAGE / 4096 * 8, 8, 0);
    x86_flush_tlb(f->cpu);
    ck_assert_int_eq(FAKE_EXEC(f, second), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, NO_PAGE);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 1);
    ck_assert_uint_eq(fake_get(f, NO_PAGE - 4, 4), 8);
    finish(f);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *s;
    TCase *t;
    SRunner *r;
    int failed;

    if (argc == 3) {
        uint64_t first = strtoull(argv[1], NULL, 0), n = strtoull(argv[2], NULL, 0), bad = 0;

        for (uint64_t i = 0; i < n && bad < 5; i++)
            bad += !run_case(first + i);
        printf("%llu failed; %llu instructions, %llu translations, %llu exceptions, %llu blocks "
               "flushed, code %llu times, %llu regions\n",
               (unsigned long long)bad, (unsigned long long)sum.insns,
               (unsigned long long)sum.translations, (unsigned long long)sum.exceptions,
               (unsigned long long)sum.blocks_flushed, (unsigned long long)sum.code_flushes,
               (unsigned long long)sum.regions);
        return bad != 0;
    }
    s = suite_create("bt");
    t = tcase_create("bt");
    r = srunner_create(s);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, a_loop_is_translated);
    tcase_add_test(t, kernels_need_no_handlers);
    tcase_add_test(t, system_calls_stay_inside);
    tcase_add_test(t, changed_targets_are_not_jumped_to);
    tcase_add_test(t, code_changes_itself);
    tcase_add_test(t, a_page_at_two_addresses);
    tcase_add_test(t, loops_end);
    tcase_add_test(t, wild_branches);
    tcase_add_test(t, the_second_access_faults);
    tcase_add_test(t, random_code);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
