/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/tier.c: which blocks are translated, and what becomes of their translations. */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>

#include "backends/bt/bt.h"
#include "core/os.h"
#include "core/x86/vec.h"

/* What ops[n].r says about a block. imm: the first op's handler while that is bt_count (disp: the
 * executions), or the translation. */
enum { NONE, COUNTING, TRANSLATED };

static struct bt *bt_of(const struct x86_cpu *cpu)
{
    return cpu->tier_state;
}

struct bt_trans *bt_translation(const struct x86_block *b)
{
    if (b->ops[b->n].r != TRANSLATED)
        return NULL;
    return (struct bt_trans *)(uintptr_t)b->ops[b->n].imm;
}

/* ---- called by translated code ---- */

const struct x86_op *bt_stop(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    return op;
}

static struct x86_block *make_current(struct x86_cpu *cpu, const struct bt_trans *t)
{
    cpu->blk = t->block;
    cpu->gpr[X86_RIP0] = cpu->tier_page + t->offset;
    return t->block;
}

void bt_count_code(struct x86_cpu *cpu, const struct bt *bt)
{
    cpu->count.chains = bt->chains;
    cpu->count.code_bytes = bt->used + bt->cold - bt_cold_start(bt) + bt->high;
}

static void count_fallback(struct bt *bt, const struct bt_trans *t, unsigned i)
{
    _Atomic uint64_t *n = &bt->fallbacks[bt_mnemonics(t)[i]];

    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* It has been executed often. */
static void hotter(struct x86_cpu *cpu, struct bt *bt, const struct bt_trans *rx)
{
    struct bt_trans *t = bt_translation(rx->block);
    bool made = t && !t->region && bt_region_translate(cpu, bt, t);

    cpu->tier_heat[rx->heat] = made ? bt->hotter : bt->hotter * 16;
}

/* What decides whether vector and x87 state may be loaded. */
struct rights {
    uint64_t cr0, cr4, xcr0;
    uint32_t masks, x87;
};

static struct rights rights_of(const struct x86_cpu *cpu)
{
    return (struct rights){.cr0 = cpu->cr0,
                           .cr4 = cpu->cr4,
                           .xcr0 = cpu->xcr0,
                           .masks = cpu->fpu.mxcsr & 0x1f80u,
                           .x87 = (cpu->fpu.fcw & 0x3fu) | (cpu->fpu.fsw & X87_ES) << 8};
}

static bool same_rights(const struct rights *a, const struct rights *b)
{
    return a->cr0 == b->cr0 && a->cr4 == b->cr4 && a->xcr0 == b->xcr0 && a->masks == b->masks &&
           a->x87 == b->x87;
}

/* From one op up to another: it, or NULL when the block is left. */
const struct x86_op *bt_run_handlers(struct x86_cpu *cpu, struct bt_trans *t, unsigned what)
{
    struct bt *bt = bt_of(cpu);
    unsigned i = what & 0xff, until = what >> 8 & 0xff, deaths = bt->deaths;
    uint64_t key = cpu->link_key;
    struct x86_block *b = make_current(cpu, t);
    const struct x86_op *op = &b->ops[i];
    uint64_t tlb = cpu->mmu.path_gen; /* changes whenever entries or rights are taken away */
    const struct mmu_entry *data = cpu->tier_data;
    struct rights now, before = rights_of(cpu);

    if (what & BT_HOTTER) {
        hotter(cpu, bt, t);
        bt_serialize(bt);
        bt_count_code(cpu, bt);
        return op;
    }
    cpu->count.handler_calls++;
    cpu->slices--;
    do {
        count_fallback(bt, t, (unsigned)(op - b->ops));
        op = t->fn[op - b->ops](cpu, op);
        if (op && op->fn != bt_stop) /* the block is dead */
            op = op->fn(cpu, op);
    } while (op && op < &b->ops[until]);
    bt_serialize(bt); /* a store may have dropped blocks that this one jumps to */
    if ((what & BT_HELD) && (cpu->mmu.path_gen != tlb || cpu->tier_data != data))
        what |= BT_LEAVE;
    now = rights_of(cpu);
    if ((what & BT_SIMD) && !same_rights(&before, &now))
        what |= BT_LEAVE;
    if (op &&
        ((what & BT_LEAVE) || bt->deaths != deaths || ((what & BT_MAPPED) && cpu->link_key != key)))
        return x86_leave(cpu, op);
    return op;
}

const struct x86_op *bt_run_last(struct x86_cpu *cpu, struct bt_trans *t)
{
    struct x86_block *b = make_current(cpu, t);
    unsigned last = b->n - 1u;

    cpu->count.handler_calls++;
    cpu->slices--;
    count_fallback(bt_of(cpu), t, last);
    return t->fn[last](cpu, &b->ops[last]);
}

/* ---- translating ---- */

/* The block is the software CPU's again. */
static void restore(struct bt *bt, struct bt_trans *t)
{
    struct x86_block *b = t->block;

    for (unsigned i = 0; i <= b->n; i++)
        b->ops[i].fn = t->fn[i];
    b->ops[b->n].r = NONE;
    b->entry = bt->stubs.decode;
}

static void forget_all(struct x86_cpu *cpu, struct bt *bt)
{
    bt_map_clear(cpu, bt);
    bt_shapes_clear(bt);
    memset(bt->trans, 0, sizeof(bt->trans));
    memset(bt->links, 0, sizeof(bt->links));
    bt->newest = NULL;
    bt->used = bt->start;
    bt->cold = bt_cold_start(bt);
    bt->high = 0;
    bt_count_code(cpu, bt);
    bt->patched = true;
}

static x86_fn bt_count;

static void count(struct bt *bt, struct x86_block *b)
{
    struct x86_op *end = &b->ops[b->n];

    (void)bt;
    end->imm = (uint64_t)(uintptr_t)b->ops[0].fn;
    end->disp = 0;
    end->r = COUNTING;
    b->ops[0].fn = bt_count;
}

/* Translations are only dropped all at once; what is still used is soon translated again. */
static void drop_all(struct x86_cpu *cpu, struct bt *bt)
{
    for (struct bt_trans *t = bt->newest; t; t = t->older) {
        restore(bt, t);
        count(bt, t->block);
    }
    forget_all(cpu, bt);
    cpu->count.code_flushes++;
}

static void translate(struct x86_cpu *cpu, struct bt *bt, struct x86_block *b)
{
    struct x86_op *end = &b->ops[b->n];
    struct bt_trans *t;

    b->ops[0].fn = (x86_fn *)(uintptr_t)end->imm;
    end->r = NONE;
    if (bt->used + BT_MAX_HOT > bt_cold_start(bt) || bt->cold + bt->high + BT_MAX_CODE > bt->size ||
        (!bt->free_pages && bt->npages == X86_TIER_PAGES))
        drop_all(cpu, bt);
    t = bt_translate(cpu, bt, b);
    if (!t)
        return;
    end->imm = (uint64_t)(uintptr_t)t;
    end->r = TRANSLATED;
    b->entry = t->hashed;
    bt_link_enter(bt, t);
    bt_serialize(bt);
    cpu->count.translations++;
    bt_count_code(cpu, bt);
}

/* Comes instead of a block's first op. */
static const struct x86_op *bt_count(struct x86_cpu *cpu, const struct x86_op *op)
{
    struct bt *bt = bt_of(cpu);
    struct x86_block *b = cpu->blk;
    struct x86_op *end = &b->ops[b->n];

    if (x86_unlikely((unsigned)++end->disp >= bt->hot)) {
        translate(cpu, bt, b);
        return x86_follow(cpu, op);
    }
    return ((x86_fn *)(uintptr_t)end->imm)(cpu, op);
}

/* ---- what the cache tells ---- */

/* Modes in which linear addresses are offsets in the segments. */
static bool suitable(const struct x86_block *b)
{
    uint32_t mode = b->mode;

    if ((mode & X86_MODE_SINGLE) || b->gpa2 != MMU_NO_TAG)
        return false;
    if ((mode & X86_MODE_CODE) == X86_MODE_CODE64)
        return true;
    return (mode & X86_MODE_CODE) == X86_MODE_CODE32 && (mode & X86_MODE_FLAT) &&
           (mode & X86_MODE_STACK32);
}

static void made(struct x86_cpu *cpu, struct x86_block *b)
{
    struct bt *bt = bt_of(cpu);

    b->entry = bt->stubs.decode;
    if (suitable(b))
        count(bt, b);
}

static void dropped(struct x86_cpu *cpu, struct x86_block *b)
{
    struct bt *bt = bt_of(cpu);

    struct bt_trans *t = bt_translation(b);

    if (t) {
        bt_regions_end(bt, t);
        bt_link_remove(bt, t);
    }
    b->ops[b->n].r = NONE;
    b->entry = bt->stubs.decode;
}

static void flushed(struct x86_cpu *cpu)
{
    forget_all(cpu, bt_of(cpu));
}

/* ---- life cycle ---- */

static const struct x86_tier tier = {.made = made, .dropped = dropped, .flushed = flushed};

static struct bt_features host_features(void)
{
    unsigned a, b, c = 0, d, b7 = 0, c1 = 0, d7 = 0, xcr0 = 0, x;
    struct bt_features f = {0};

    __get_cpuid(1, &a, &b, &c, &d);
    __get_cpuid_count(7, 0, &a, &b7, &x, &d7);
    __get_cpuid(0x80000001, &a, &b, &c1, &d);
    f.popcnt = c >> 23 & 1;
    f.movbe = c >> 22 & 1;
    f.crc32 = c >> 20 & 1;
    f.lzcnt = c1 >> 5 & 1;
    f.bmi1 = b7 >> 3 & 1;
    f.bmi2 = b7 >> 8 & 1;
    f.adx = b7 >> 19 & 1;
    if (c >> 27 & 1)
        __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(x) : "c"(0));
    f.xsave = c >> 27 & 1;
    f.avx = (c >> 28 & 1) && (xcr0 & 6) == 6;
    f.avx512 = f.avx && (xcr0 & 0xe6) == 0xe6 && (b7 >> 16 & 1) && (b7 >> 30 & 1);
    f.serialize = d7 >> 14 & 1;
    return f;
}

int bt_attach(struct x86_cpu *cpu, unsigned hot, size_t size)
{
    struct bt *bt = calloc(1, sizeof(*bt));
    void *rw, *rx, *l2;
    int r;

    if (!bt)
        return ENOMEM;
    bt->decoded = bt_make_room();
    if (!bt->decoded || !bt_shapes_create(bt)) {
        free(bt->decoded);
        free(bt);
        return ENOMEM;
    }
    l2 = os_pages_alloc(MMU_L2_BYTES);
    r = l2 ? cpu->env->code_alloc(cpu->env->mmu.ctx, size, &rw, &rx) : ENOMEM;
    if (r) {
        if (l2)
            os_pages_free(l2, MMU_L2_BYTES);
        bt_shapes_destroy(bt);
        free(bt->decoded);
        free(bt);
        return r;
    }
    bt->rw = rw;
    bt->rx = rx;
    bt->size = size;
    bt->hot = hot;
    bt->hotter = hot < BT_HOT ? hot * 4 : BT_HOTTER_THAN;
    for (unsigned i = 0; i < X86_TIER_HEAT; i++)
        cpu->tier_heat[i] = bt->hotter;
    bt->host = host_features();
    mmu_set_l2(&cpu->mmu, l2);
    bt_make_stubs(bt);
    cpu->simd_lack = ~0u;
    bt_map_clear(cpu, bt);
    cpu->tier_state = bt;
    cpu->tier = &tier;
    /* Decoded blocks take somewhat more than their code. */
    if (size * 2 > X86_CACHE_BYTES)
        x86_cache_limit(cpu, size * 2);
    x86_cache_flush(cpu);
    return 0;
}

void bt_limit_host(struct x86_cpu *cpu, const struct bt_features *host)
{
    struct bt *bt = bt_of(cpu);
    const uint8_t *wanted = (const uint8_t *)host;
    uint8_t *have = (uint8_t *)&bt->host;

    for (size_t i = 0; i < sizeof(*host); i++)
        have[i] &= wanted[i]; /* all are bool */
    bt->used = 0;
    bt_shapes_clear(bt);
    bt_make_stubs(bt);
    bt_map_clear(cpu, bt);
}

/* Code memory is the environment's. */
void bt_detach(struct x86_cpu *cpu)
{
    struct bt *bt = bt_of(cpu);

    if (bt) {
        os_pages_free(cpu->mmu.l2, MMU_L2_BYTES);
        mmu_set_l2(&cpu->mmu, NULL);
        bt_shapes_destroy(bt);
        free(bt->decoded);
        free(bt->room);
    }
    free(bt);
    cpu->tier_state = NULL;
    cpu->tier = NULL;
}
