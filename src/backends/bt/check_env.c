/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/check_env.c: lock step: the surroundings of the two CPUs; pages and their copies. */
#include <stdlib.h>

#include "backends/bt/check.h"
#include "core/irqchip.h"
#include "core/x86/cache.h"

static struct check *of(void *ctx)
{
    return ctx; /* begins with the struct interp_vcpu */
}

static struct vcpu *vcpu_of(void *ctx)
{
    return of(ctx)->iv.vcpu;
}

/* ---- pages ---- */

static struct check_page **bucket(struct check *c, const uint8_t *host)
{
    uint64_t x = ((uintptr_t)host >> MMU_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull;

    return &c->pages[x >> (64 - CHECK_PAGES_BITS)];
}

static struct check_page *make_page(struct check *c, uint8_t *host)
{
    struct check_page *p = calloc(1, sizeof(*p)), **head = bucket(c, host);

    if (!p)
        return NULL;
    p->before = aligned_alloc(MMU_PAGE_SIZE, 3 * MMU_PAGE_SIZE);
    if (!p->before) {
        free(p);
        return NULL;
    }
    p->tested = p->before + MMU_PAGE_SIZE;
    p->plain = p->tested + MMU_PAGE_SIZE;
    p->host = host;
    p->next = *head;
    *head = p;
    return p;
}

/* Other vCPUs stand still, but a device's thread may write meanwhile. */
MMU_GUEST_ACCESS static inline void copy_page(uint8_t *to, const uint8_t *from)
{
    mmu_copy(to, from, MMU_PAGE_SIZE);
}

/* The page at `host`, with the copies that the phase wants; NULL without memory. */
static struct check_page *touch(struct check *c, uint64_t gpa, uint8_t *host)
{
    struct check_page *p = *bucket(c, host);

    while (p && p->host != host)
        p = p->next;
    if (!p)
        p = make_page(c, host);
    if (!p) {
        c->no_memory = true;
        return NULL;
    }
    if (p->segment != c->segment) {
        p->segment = c->segment;
        p->gpa = gpa & MMU_PAGE_MASK;
        p->next_used = c->used;
        c->used = p;
        copy_page(p->before, host);
        memcpy(p->tested, p->before, MMU_PAGE_SIZE);
    }
    if (c->phase == CHECK_REPLAY && p->run != c->run) {
        p->run = c->run;
        memcpy(p->tested, p->before, MMU_PAGE_SIZE);
        memcpy(p->plain, p->before, MMU_PAGE_SIZE);
    }
    return p;
}

void check_pages_begin(struct check *c)
{
    c->segment++;
    c->used = NULL;
}

void check_pages_rewind(struct check *c)
{
    c->run++;
    for (struct check_page *p = c->used; p; p = p->next_used)
        touch(c, p->gpa, p->host);
}

void check_pages_share(struct check *c)
{
    for (struct check_page *p = c->used; p; p = p->next_used)
        memcpy(p->tested, p->plain, MMU_PAGE_SIZE);
}

/* ---- what is recorded ---- */

/* The tested CPU's first run asks for numbers; all others get the same ones. */
static uint64_t input(struct check *c, uint64_t (*get)(void *ctx), void *ctx)
{
    if (c->phase == CHECK_TESTED && c->ninputs < CHECK_MAX_INSNS)
        c->inputs[c->ninputs++] = get(ctx);
    return c->input < c->ninputs ? c->inputs[c->input++] : c->ninputs;
}

static uint64_t get_tsc(void *ctx)
{
    return core_vcpu_tsc(vcpu_of(ctx));
}

static uint64_t check_tsc(void *ctx)
{
    return input(of(ctx), get_tsc, ctx);
}

static uint64_t get_random(void *ctx)
{
    struct check *c = of(ctx);

    c->rng ^= c->rng >> 12;
    c->rng ^= c->rng << 25;
    c->rng ^= c->rng >> 27;
    return c->rng * 0x2545f4914f6cdd1d;
}

static bool check_random(void *ctx, uint64_t *value)
{
    *value = input(of(ctx), get_random, ctx);
    return true;
}

/* ---- what ends a segment ---- */

static int check_mmio(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    (void)ctx, (void)gpa, (void)size, (void)write, (void)value;
    return X86_ENV_ABORT;
}

static int check_pio(void *ctx, uint16_t port, unsigned size, bool write, uint64_t *value)
{
    (void)ctx, (void)port, (void)size, (void)write, (void)value;
    return X86_ENV_ABORT;
}

#define MSR_TSC          0x10u
#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_ADJUST   0x3bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC       0x800u /* 256 of them */

/* MSRs that are more than registers of the CPU. */
static bool msr_acts(const struct vcpu *vcpu, uint32_t index)
{
    return vcpu->nmsr_ranges || index == MSR_TSC || index == MSR_TSC_ADJUST ||
           index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE || (index & ~0xffu) == MSR_X2APIC;
}

static int check_msr(void *ctx, uint32_t index, bool write, uint64_t *value, bool *handled)
{
    (void)write, (void)value;
    *handled = false;
    return msr_acts(vcpu_of(ctx), index) ? X86_ENV_ABORT : X86_ENV_OK;
}

static int check_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    struct check *c = of(ctx);

    if (vcpu_of(ctx)->vm->flags & VMM_VM_EXIT_CPUID)
        return X86_ENV_ABORT;
    return c->real.cpuid(ctx, leaf, subleaf, out);
}

static void check_set_tsc(void *ctx, uint64_t tsc)
{
    (void)ctx, (void)tsc; /* check_msr has aborted what comes here */
}

/* Both CPUs come here as soon as interrupts are possible. */
static bool stop_for_interrupt(struct check *c, struct x86_cpu *cpu)
{
    if (c->wanted)
        cpu->stop = X86_STOP_ABORT;
    return false;
}

static bool tested_intr(void *ctx)
{
    return stop_for_interrupt(of(ctx), of(ctx)->tested);
}

static bool check_calm(void *ctx)
{
    return !of(ctx)->wanted;
}

static int check_intr_ack(void *ctx)
{
    (void)ctx;
    return -1;
}

static uint64_t check_get_cr8(void *ctx)
{
    return of(ctx)->cr8;
}

/* It may let an interrupt through: behind it the segment ends. */
static void set_cr8(struct check *c, struct x86_cpu *cpu, uint64_t cr8)
{
    c->cr8 = cr8;
    cpu->stop = X86_STOP_ABORT;
}

static void tested_set_cr8(void *ctx, uint64_t cr8)
{
    set_cr8(of(ctx), of(ctx)->tested, cr8);
}

static void check_nothing(void *ctx)
{
    (void)ctx;
}

/* ---- the tested CPU's memory ---- */

static bool tested_page(void *ctx, uint64_t gpa, struct mmu_page *page)
{
    struct check *c = of(ctx);
    struct check_page *p;

    if (!c->real.mmu.page(ctx, gpa, page))
        return false;
    p = touch(c, gpa, page->host);
    if (!p)
        return false;
    page->host = p->tested;
    page->code = &p->code;
    page->dirty = NULL;
    return true;
}

static _Atomic uint64_t *tested_code(void *ctx, uint64_t gpa)
{
    struct mmu_page page;

    return tested_page(ctx, gpa, &page) ? page.code : NULL;
}

static void tested_code_written(void *ctx, uint64_t gpa, unsigned len)
{
    _Atomic uint64_t *code = tested_code(ctx, gpa);

    if (x86_cache_invalidate(of(ctx)->tested, gpa, len) && code)
        atomic_store_explicit(code, 0, memory_order_relaxed);
}

static void tested_code_decoded(void *ctx, uint64_t gpa)
{
    _Atomic uint64_t *code = tested_code(ctx, gpa);

    if (!code || atomic_load_explicit(code, memory_order_relaxed))
        return;
    atomic_store_explicit(code, 1, memory_order_relaxed);
    mmu_protect_gpa(&of(ctx)->tested->mmu, gpa, 1);
}

/* ---- the plain CPU ---- */

#define LIVE(ctx) (of(ctx)->phase == CHECK_LIVE)

static bool plain_page(void *ctx, uint64_t gpa, struct mmu_page *page)
{
    struct check *c = of(ctx);
    struct check_page *p;

    if (!c->real.mmu.page(ctx, gpa, page))
        return false;
    if (LIVE(ctx))
        return true;
    p = touch(c, gpa, page->host);
    if (c->phase != CHECK_REPLAY)
        return true;
    if (!p)
        return false;
    page->host = p->plain;
    page->dirty = NULL;
    return true;
}

/* With the world stopped already, in a segment. */
static void plain_code_decoded(void *ctx, uint64_t gpa)
{
    struct vcpu *vcpu = vcpu_of(ctx);
    struct vm *vm = vcpu->vm;
    struct core_page page;

    if (LIVE(ctx) || vm->max_vcpus == 1) {
        of(ctx)->real.code_decoded(ctx, gpa);
        return;
    }
    if (!core_mem_page(vm, gpa, &page) || !page.host)
        return;
    atomic_fetch_or(page.code, 1ull << vcpu->id);
    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        struct x86_cpu *cpu = interp_cpu_at(vm, i);

        if (cpu)
            mmu_protect_gpa(&cpu->mmu, gpa, 1);
    }
}

static int plain_mmio(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    return LIVE(ctx) ? of(ctx)->real.mmu.mmio(ctx, gpa, size, write, value) : X86_ENV_ABORT;
}

static int plain_pio(void *ctx, uint16_t port, unsigned size, bool write, uint64_t *value)
{
    return LIVE(ctx) ? of(ctx)->real.pio(ctx, port, size, write, value) : X86_ENV_ABORT;
}

static int plain_msr(void *ctx, uint32_t index, bool write, uint64_t *value, bool *handled)
{
    return (LIVE(ctx) ? of(ctx)->real.msr : check_msr)(ctx, index, write, value, handled);
}

static int plain_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    return (LIVE(ctx) ? of(ctx)->real.cpuid : check_cpuid)(ctx, leaf, subleaf, out);
}

static uint64_t plain_tsc(void *ctx)
{
    return (LIVE(ctx) ? of(ctx)->real.tsc : check_tsc)(ctx);
}

static bool plain_random(void *ctx, uint64_t *value)
{
    return !LIVE(ctx) && check_random(ctx, value);
}

static void plain_set_tsc(void *ctx, uint64_t tsc)
{
    (LIVE(ctx) ? of(ctx)->real.set_tsc : check_set_tsc)(ctx, tsc);
}

static bool plain_intr(void *ctx)
{
    return LIVE(ctx) ? of(ctx)->real.intr(ctx) : stop_for_interrupt(of(ctx), of(ctx)->iv.cpu);
}

static bool plain_calm(void *ctx)
{
    return (LIVE(ctx) ? of(ctx)->real.calm : check_calm)(ctx);
}

static int plain_intr_ack(void *ctx)
{
    return (LIVE(ctx) ? of(ctx)->real.intr_ack : check_intr_ack)(ctx);
}

static uint64_t plain_get_cr8(void *ctx)
{
    return (LIVE(ctx) ? of(ctx)->real.get_cr8 : check_get_cr8)(ctx);
}

/* What a segment sets takes effect in the segment that is not replayed. */
static void plain_set_cr8(void *ctx, uint64_t cr8)
{
    if (!LIVE(ctx))
        set_cr8(of(ctx), of(ctx)->iv.cpu, cr8);
    if (of(ctx)->phase != CHECK_REPLAY)
        of(ctx)->real.set_cr8(ctx, cr8);
}

static void plain_poll(void *ctx)
{
    (LIVE(ctx) ? of(ctx)->real.poll : check_nothing)(ctx);
}

static void plain_lock(void *ctx)
{
    (LIVE(ctx) ? of(ctx)->real.lock : check_nothing)(ctx);
}

static void plain_unlock(void *ctx)
{
    (LIVE(ctx) ? of(ctx)->real.unlock : check_nothing)(ctx);
}

/* ---- life cycle ---- */

void check_env_init(struct check *c)
{
    struct x86_env *plain = &c->iv.env;

    c->real = *plain;
    c->env = (struct x86_env){
        .mmu = {.page = tested_page,
                .mmio = check_mmio,
                .code_written = tested_code_written,
                .ctx = c},
        .pio = check_pio,
        .msr = check_msr,
        .cpuid = check_cpuid,
        .tsc = check_tsc,
        .random = check_random,
        .set_tsc = check_set_tsc,
        .intr = tested_intr,
        .calm = check_calm,
        .intr_ack = check_intr_ack,
        .get_cr8 = check_get_cr8,
        .set_cr8 = tested_set_cr8,
        .poll = check_nothing,
        .code_decoded = tested_code_decoded,
        .lock = check_nothing,
        .unlock = check_nothing,
        .code_alloc = c->real.code_alloc,
    };
    plain->mmu.page = plain_page;
    plain->mmu.mmio = plain_mmio;
    plain->pio = plain_pio;
    plain->msr = plain_msr;
    plain->cpuid = plain_cpuid;
    plain->tsc = plain_tsc;
    plain->random = plain_random;
    plain->set_tsc = plain_set_tsc;
    plain->intr = plain_intr;
    plain->calm = plain_calm;
    plain->intr_ack = plain_intr_ack;
    plain->get_cr8 = plain_get_cr8;
    plain->set_cr8 = plain_set_cr8;
    plain->poll = plain_poll;
    plain->code_decoded = plain_code_decoded;
    plain->lock = plain_lock;
    plain->unlock = plain_unlock;
}

void check_env_fini(struct check *c)
{
    for (unsigned i = 0; i < 1u << CHECK_PAGES_BITS; i++)
        while (c->pages[i]) {
            struct check_page *p = c->pages[i];

            c->pages[i] = p->next;
            free(p->before);
            free(p);
        }
}
