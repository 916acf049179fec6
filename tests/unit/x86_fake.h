/* SPDX-License-Identifier: BSD-2-Clause */
/* x86_fake.h: the software CPU with flat memory and recorded I/O, for unit tests.
 *
 * A test writes code with FAKE_ASM, picks a mode, runs the code to its HLT and looks at the state:
 *
 *     FAKE_ASM(sum, 64, "add %rbx, %rax\n hlt");
 *
 *     struct fake *f = fake_new();
 *     fake_long64(f);
 *     f->cpu->gpr[VMM_RAX] = 1, f->cpu->gpr[VMM_RBX] = 2;
 *     ck_assert_int_eq(FAKE_EXEC(f, sum), FAKE_HLT);
 *     ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 3);
 *     fake_free(f);
 *
 * Exceptions and interrupts: every vector has a handler that is one HLT. fake_exec then returns the
 * vector, and the frame is on the stack (fake_stack).
 */
#ifndef X86_FAKE_H
#define X86_FAKE_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backends/bt/bt.h"
#include "core/x86/exec.h"
#include <vmm/vcpu.h>

/* Code bytes: NAME_begin to NAME_end. */
#define FAKE_ASM(name, bits, text)                                                                 \
    __asm__(".pushsection .rodata\n.code" #bits "\n" #name "_begin:\n" text "\n" #name             \
            "_end:\n.code64\n.popsection\n");                                                      \
    extern const uint8_t name##_begin[], name##_end[]

#define FAKE_EXEC(f, name) fake_exec(f, name##_begin, name##_end)
#define FAKE_LOAD(f, name) fake_load(f, FAKE_TEXT, name##_begin, name##_end)

/* Memory, from address 0 on; what is above is MMIO. */
#define FAKE_MEM (16u << 20)

#define FAKE_GDT      0x1000u
#define FAKE_IDT      0x2000u
#define FAKE_TSS      0x3000u
#define FAKE_PML4     0x4000u /* identity map of 1 GiB, user and writable: 2 MiB pages ... */
#define FAKE_PDPT     0x5000u
#define FAKE_PD       0x6000u
#define FAKE_PT       0x7000u /* ... but 4 KiB pages for the first 2 MiB */
#define FAKE_PD32     0x8000u /* 32-bit paging: 4 KiB pages for 4 MiB, then 4 MiB pages */
#define FAKE_PT32     0x9000u
#define FAKE_HANDLERS 0xf000u /* 16 bytes each: HLT */
#define FAKE_TEXT     0x10000u
#define FAKE_STACK    0x20000u /* top */
#define FAKE_STACK0   0x28000u /* top of the ring 0 stack in the TSS */
#define FAKE_DATA     0x40000u
#define FAKE_MMIO     0x3f000000u

/* Selectors. */
#define FAKE_CS64   0x08u
#define FAKE_DS     0x10u
#define FAKE_CS32   0x18u
#define FAKE_CS16   0x20u
#define FAKE_DS16   0x28u
#define FAKE_UCS32  0x33u
#define FAKE_UDS    0x3bu
#define FAKE_UCS64  0x43u
#define FAKE_TR     0x48u /* takes two */
#define FAKE_FREE   0x58u /* from here on the GDT is the test's */
#define FAKE_GDT_ND 512u

/* Results of fake_exec beside vectors. */
#define FAKE_HLT      (-1) /* the code's own HLT */
#define FAKE_TIMEOUT  (-2)
#define FAKE_SHUTDOWN (-3)
#define FAKE_EXIT     (-4)
#define FAKE_ABORTED  (-5)

enum fake_kind { FAKE_PIO_ACCESS, FAKE_MMIO_ACCESS, FAKE_MSR_ACCESS };

struct fake_access {
    enum fake_kind kind;
    uint64_t addr;
    unsigned size;
    bool write;
    uint64_t value;
    uint64_t serial;
};

struct fake {
    struct x86_cpu *cpu;
    struct x86_env env;
    uint8_t *mem;
    _Atomic uint64_t code[FAKE_MEM / 4096];
    uint8_t attr[FAKE_MEM / 4096]; /* FAKE_RO, FAKE_NX, FAKE_HOLE */

    struct fake_access log[256];
    unsigned nlog;
    uint64_t input;    /* what reads of ports and MMIO give */
    unsigned abort_in; /* the so-maniest access from now on (from 1) is aborted; 0: none */
    uint64_t tsc, cr8;
    int irq;       /* vector that is asserted, -1: none */
    bool irq_once; /* acknowledging takes it away */
    unsigned polls, locks, code_writes;
    uint64_t done; /* instructions of the last run */
};

#define FAKE_RO   1u
#define FAKE_NX   2u
#define FAKE_HOLE 4u

/* ---- surroundings ---- */

static inline bool fake_page(void *ctx, uint64_t gpa, struct mmu_page *page)
{
    struct fake *f = ctx;
    uint8_t attr;

    if (gpa >= FAKE_MEM)
        return false;
    attr = f->attr[gpa / 4096];
    if (attr & FAKE_HOLE)
        return false;
    page->host = f->mem + (gpa & MMU_PAGE_MASK);
    page->writable = !(attr & FAKE_RO);
    page->executable = !(attr & FAKE_NX);
    page->code = &f->code[gpa / 4096];
    page->dirty = NULL;
    return true;
}

static inline int fake_access(struct fake *f, enum fake_kind kind, uint64_t addr, unsigned size,
                              bool write, uint64_t *value)
{
    struct fake_access *a = &f->log[f->nlog < 255 ? f->nlog : 255];

    if (f->abort_in && --f->abort_in == 0)
        return X86_ENV_ABORT;
    if (!write)
        *value = size < 8 ? f->input & ((1ull << size * 8) - 1) : f->input;
    *a = (struct fake_access){kind, addr, size, write, *value, x86_serial(f->cpu)};
    f->nlog++;
    return X86_ENV_OK;
}

static inline int fake_mmio(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    return fake_access(ctx, FAKE_MMIO_ACCESS, gpa, size, write, value);
}

static inline int fake_pio(void *ctx, uint16_t port, unsigned size, bool write, uint64_t *value)
{
    return fake_access(ctx, FAKE_PIO_ACCESS, port, size, write, value);
}

/* MSRs 0x40000000 on are the test's, the others the CPU's. */
static inline int fake_msr(void *ctx, uint32_t index, bool write, uint64_t *value, bool *handled)
{
    *handled = index >= 0x40000000 && index < 0x50000000;
    return *handled ? fake_access(ctx, FAKE_MSR_ACCESS, index, 8, write, value) : X86_ENV_OK;
}

static inline int fake_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)ctx;
    out[0] = leaf, out[1] = subleaf, out[2] = 0, out[3] = 0xc0ffee;
    return X86_ENV_OK;
}

static inline uint64_t fake_tsc(void *ctx)
{
    return ((struct fake *)ctx)->tsc;
}

static inline void fake_set_tsc(void *ctx, uint64_t tsc)
{
    ((struct fake *)ctx)->tsc = tsc;
}

static inline bool fake_intr(void *ctx)
{
    return ((struct fake *)ctx)->irq >= 0;
}

static inline bool fake_calm(void *ctx)
{
    return ((struct fake *)ctx)->irq < 0;
}

static inline int fake_intr_ack(void *ctx)
{
    struct fake *f = ctx;
    int vector = f->irq;

    if (f->irq_once)
        f->irq = -1;
    return vector;
}

static inline uint64_t fake_get_cr8(void *ctx)
{
    return ((struct fake *)ctx)->cr8;
}

static inline void fake_set_cr8(void *ctx, uint64_t cr8)
{
    ((struct fake *)ctx)->cr8 = cr8;
}

static inline void fake_poll(void *ctx)
{
    ((struct fake *)ctx)->polls++;
}

static inline void fake_code_written(void *ctx, uint64_t gpa, unsigned len)
{
    struct fake *f = ctx;

    f->code_writes++;
    if (x86_cache_invalidate(f->cpu, gpa, len))
        f->code[gpa / 4096] = 0;
}

static inline void fake_code_decoded(void *ctx, uint64_t gpa)
{
    struct fake *f = ctx;

    f->code[gpa / 4096] = 1;
    mmu_protect_gpa(&f->cpu->mmu, gpa, 1);
}

static inline void fake_lock(void *ctx)
{
    ((struct fake *)ctx)->locks++;
}

static inline int fake_code_alloc(void *ctx, size_t len, void **rw, void **rx)
{
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)ctx;
    if (p == MAP_FAILED)
        return 12;
    *rw = *rx = p;
    return 0;
}

/* ---- memory ---- */

static inline void fake_put(struct fake *f, uint64_t gpa, unsigned size, uint64_t value)
{
    memcpy(f->mem + gpa, &value, size);
    x86_cache_invalidate(f->cpu, gpa, size);
}

/* VMM_MODE_* by what blocks are decoded for. */
static inline uint32_t fake_mode(const struct fake *f)
{
    bool big = f->cpu->mode & X86_MODE_CODE32;

    if (!(f->cpu->mode & X86_MODE_PE))
        return VMM_MODE_REAL;
    if (f->cpu->mode & X86_MODE_VM86)
        return VMM_MODE_VM86;
    if ((f->cpu->mode & X86_MODE_CODE) == X86_MODE_CODE64)
        return VMM_MODE_LONG64;
    if (f->cpu->efer & X86_EFER_LMA)
        return big ? VMM_MODE_COMPAT32 : VMM_MODE_COMPAT16;
    return big ? VMM_MODE_PROT32 : VMM_MODE_PROT16;
}

static inline uint64_t fake_get(const struct fake *f, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, f->mem + gpa, size);
    return value;
}

static inline void fake_load(struct fake *f, uint64_t gpa, const uint8_t *begin, const uint8_t *end)
{
    memcpy(f->mem + gpa, begin, (size_t)(end - begin));
    x86_cache_invalidate(f->cpu, gpa, (uint64_t)(end - begin));
}

/* Number `n`, from 0, of the values of `size` bytes on the stack (flat stacks). */
static inline uint64_t fake_stack(const struct fake *f, unsigned n, unsigned size)
{
    return fake_get(f, f->cpu->seg[VMM_SS].base + f->cpu->gpr[VMM_RSP] + (uint64_t)n * size, size);
}

/* A segment descriptor from limit in bytes and access rights as in struct vmm_segment. */
static inline uint64_t fake_desc(uint32_t base, uint32_t limit, uint32_t ar)
{
    if (ar & VMM_AR_G)
        limit >>= 12;
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(ar & 0xff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(ar >> 12 & 15) << 52 |
           (uint64_t)(base >> 24) << 56;
}

static inline void fake_set_desc(struct fake *f, unsigned selector, uint64_t desc)
{
    fake_put(f, FAKE_GDT + (selector & ~7u), 8, desc);
}

/* Interrupt and trap gates: `type` 14, 15 (32-bit and 64-bit), 6, 7 (16-bit). */
static inline void fake_set_gate(struct fake *f, unsigned vector, unsigned selector,
                                 uint64_t offset, unsigned type, unsigned dpl)
{
    bool wide = f->cpu->efer & X86_EFER_LMA;
    uint64_t at = FAKE_IDT + vector * (wide ? 16 : 8);

    fake_put(f, at, 8,
             (offset & 0xffff) | (uint64_t)selector << 16 |
                 (uint64_t)(0x80u | dpl << 5 | type) << 40 | (offset >> 16 & 0xffff) << 48);
    if (wide)
        fake_put(f, at + 8, 8, offset >> 32);
}

/* ---- modes ---- */

#define FAKE_AR_CODE (VMM_AR_P | VMM_AR_S | 0xbu)
#define FAKE_AR_DATA (VMM_AR_P | VMM_AR_S | 0x3u)

static inline void fake_seg(struct fake *f, unsigned seg, uint16_t selector, uint64_t base,
                            uint32_t limit, uint32_t ar)
{
    f->cpu->seg[seg] = (struct vmm_segment){base, limit, ar, selector, {0}};
}

static inline void fake_data_segs(struct fake *f, uint16_t selector, uint32_t limit, uint32_t ar)
{
    static const unsigned segs[] = {VMM_ES, VMM_SS, VMM_DS, VMM_FS, VMM_GS};

    for (unsigned i = 0; i < 5; i++)
        fake_seg(f, segs[i], selector, 0, limit, ar);
}

static inline void fake_tables(struct fake *f)
{
    fake_set_desc(f, 0, 0);
    fake_set_desc(f, FAKE_CS64, fake_desc(0, 0xffffffff, FAKE_AR_CODE | VMM_AR_L | VMM_AR_G));
    fake_set_desc(f, FAKE_DS, fake_desc(0, 0xffffffff, FAKE_AR_DATA | VMM_AR_DB | VMM_AR_G));
    fake_set_desc(f, FAKE_CS32, fake_desc(0, 0xffffffff, FAKE_AR_CODE | VMM_AR_DB | VMM_AR_G));
    fake_set_desc(f, FAKE_CS16, fake_desc(0, 0xffff, FAKE_AR_CODE));
    fake_set_desc(f, FAKE_DS16, fake_desc(0, 0xffff, FAKE_AR_DATA));
    fake_set_desc(f, FAKE_UCS32,
                  fake_desc(0, 0xffffffff, FAKE_AR_CODE | VMM_AR_DPL | VMM_AR_DB | VMM_AR_G));
    fake_set_desc(f, FAKE_UDS,
                  fake_desc(0, 0xffffffff, FAKE_AR_DATA | VMM_AR_DPL | VMM_AR_DB | VMM_AR_G));
    fake_set_desc(f, FAKE_UCS64,
                  fake_desc(0, 0xffffffff, FAKE_AR_CODE | VMM_AR_DPL | VMM_AR_L | VMM_AR_G));
    fake_set_desc(f, FAKE_TR, fake_desc(FAKE_TSS, 0x67, VMM_AR_P | 0xb));
    fake_set_desc(f, FAKE_TR + 8, 0);

    fake_put(f, FAKE_PML4, 8, FAKE_PDPT | 7);
    fake_put(f, FAKE_PDPT, 8, FAKE_PD | 7);
    for (uint64_t i = 0; i < 512; i++) {
        fake_put(f, FAKE_PD + i * 8, 8, i ? i << 21 | 0x87 : FAKE_PT | 7);
        fake_put(f, FAKE_PT + i * 8, 8, i << 12 | 7);
    }
    for (uint64_t i = 0; i < 1024; i++) {
        fake_put(f, FAKE_PD32 + i * 4, 4, i ? i << 22 | 0x87 : FAKE_PT32 | 7);
        fake_put(f, FAKE_PT32 + i * 4, 4, i << 12 | 7);
    }
    memset(f->mem + FAKE_HANDLERS, 0xf4, 4096);
}

static inline void fake_start(struct fake *f)
{
    f->cpu->gdt = (struct vmm_dtable){FAKE_GDT, FAKE_GDT_ND * 8 - 1, {0}};
    f->cpu->gpr[VMM_RSP] = FAKE_STACK;
    f->cpu->rip = FAKE_TEXT;
    x86_mode_changed(f->cpu);
    x86_flush_tlb(f->cpu);
}

/* Real mode: all segments 0 but CS, which is FAKE_TEXT / 16; stack at 0xe000. */
static inline void fake_real(struct fake *f)
{
    x86_reset(f->cpu, false);
    fake_tables(f);
    for (unsigned v = 0; v < 256; v++)
        fake_put(f, v * 4, 4, (uint64_t)(FAKE_HANDLERS / 16) << 16 | v * 16);
    f->cpu->idt = (struct vmm_dtable){0, 0x3ff, {0}};
    fake_seg(f, VMM_CS, FAKE_TEXT / 16, FAKE_TEXT, 0xffff, FAKE_AR_CODE);
    fake_start(f);
    f->cpu->gpr[VMM_RSP] = 0xe000;
    f->cpu->rip = 0;
}

static inline void fake_protected(struct fake *f, uint16_t cs, unsigned gate)
{
    for (unsigned v = 0; v < 256; v++)
        fake_set_gate(f, v, cs, FAKE_HANDLERS + v * 16, gate, 3);
    f->cpu->idt = (struct vmm_dtable){FAKE_IDT, 0xfff, {0}};
    fake_start(f);
}

/* 32-bit protected mode, ring 0, flat, no paging. */
static inline void fake_prot32(struct fake *f)
{
    x86_reset(f->cpu, false);
    fake_tables(f);
    f->cpu->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE;
    fake_seg(f, VMM_CS, FAKE_CS32, 0, 0xffffffff, FAKE_AR_CODE | VMM_AR_DB | VMM_AR_G);
    fake_data_segs(f, FAKE_DS, 0xffffffff, FAKE_AR_DATA | VMM_AR_DB | VMM_AR_G);
    fake_seg(f, VMM_TR, FAKE_TR, FAKE_TSS, 0x67, VMM_AR_P | 0xb);
    memset(f->mem + FAKE_TSS, 0, 0x68);
    fake_put(f, FAKE_TSS + 4, 4, FAKE_STACK0);
    fake_put(f, FAKE_TSS + 8, 4, FAKE_DS);
    fake_put(f, FAKE_TSS + 0x66, 2, 0x68);
    fake_protected(f, FAKE_CS32, 14);
}

/* 16-bit protected mode, ring 0: CS begins at FAKE_TEXT, the others at 0; stack at 0xe000. */
static inline void fake_prot16(struct fake *f)
{
    fake_prot32(f);
    fake_set_desc(f, FAKE_CS16, fake_desc(FAKE_TEXT, 0xffff, FAKE_AR_CODE));
    fake_seg(f, VMM_CS, FAKE_CS16, FAKE_TEXT, 0xffff, FAKE_AR_CODE);
    fake_data_segs(f, FAKE_DS16, 0xffff, FAKE_AR_DATA);
    fake_start(f);
    f->cpu->gpr[VMM_RSP] = 0xe000;
    f->cpu->rip = 0;
}

/* 64-bit mode, ring 0, identity-mapped. */
static inline void fake_long64(struct fake *f)
{
    x86_reset(f->cpu, false);
    fake_tables(f);
    f->cpu->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET | X86_CR0_NE | X86_CR0_MP;
    f->cpu->cr3 = FAKE_PML4;
    f->cpu->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    f->cpu->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE | X86_EFER_NXE;
    f->cpu->xcr0 = f->cpu->feat.xcr0_mask;
    fake_seg(f, VMM_CS, FAKE_CS64, 0, 0xffffffff, FAKE_AR_CODE | VMM_AR_L | VMM_AR_G);
    fake_data_segs(f, FAKE_DS, 0xffffffff, FAKE_AR_DATA | VMM_AR_DB | VMM_AR_G);
    fake_seg(f, VMM_TR, FAKE_TR, FAKE_TSS, 0x67, VMM_AR_P | 0xb);
    memset(f->mem + FAKE_TSS, 0, 0x68);
    fake_put(f, FAKE_TSS + 4, 8, FAKE_STACK0);
    fake_put(f, FAKE_TSS + 0x66, 2, 0x68);
    fake_protected(f, FAKE_CS64, 14);
}

/* After one of the above: goes to ring 3 (64-bit mode or 32-bit protected mode). */
static inline void fake_user(struct fake *f)
{
    bool wide = f->cpu->efer & X86_EFER_LMA;

    f->cpu->cpl = 3;
    fake_seg(f, VMM_CS, wide ? FAKE_UCS64 : FAKE_UCS32, 0, 0xffffffff,
             FAKE_AR_CODE | VMM_AR_DPL | VMM_AR_G | (wide ? VMM_AR_L : VMM_AR_DB));
    fake_data_segs(f, FAKE_UDS, 0xffffffff, FAKE_AR_DATA | VMM_AR_DPL | VMM_AR_DB | VMM_AR_G);
    x86_mode_changed(f->cpu);
}

/* From 32-bit protected mode: paging on, with the tables at FAKE_PD32. */
static inline void fake_paging32(struct fake *f)
{
    f->cpu->cr3 = FAKE_PD32;
    f->cpu->cr4 |= X86_CR4_PSE;
    f->cpu->cr0 |= X86_CR0_PG;
    x86_mode_changed(f->cpu);
    x86_flush_tlb(f->cpu);
}

/* ---- life cycle and running ---- */

/* A CPU with all features, after reset. With FAKE_BT in the environment it has the translator as a
 * tier, and everything is translated at once. */
static inline struct fake *fake_new(void)
{
    struct fake *f = calloc(1, sizeof(*f));

    f->mem = mmap(NULL, FAKE_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    f->irq = -1;
    f->irq_once = true;
    f->env = (struct x86_env){.mmu = {fake_page, fake_mmio, fake_code_written, f},
                              .pio = fake_pio,
                              .msr = fake_msr,
                              .cpuid = fake_cpuid,
                              .tsc = fake_tsc,
                              .set_tsc = fake_set_tsc,
                              .intr = fake_intr,
                              .calm = fake_calm,
                              .intr_ack = fake_intr_ack,
                              .get_cr8 = fake_get_cr8,
                              .set_cr8 = fake_set_cr8,
                              .poll = fake_poll,
                              .code_decoded = fake_code_decoded,
                              .lock = fake_lock,
                              .unlock = fake_lock,
                              .code_alloc = fake_code_alloc};
    f->cpu = x86_create(&f->env, 0);
    memset(&f->cpu->feat, 0xff, sizeof(f->cpu->feat));
    f->cpu->feat.gpa_bits = 40;
    f->cpu->feat.linear_bits = 48;
    f->cpu->feat.xcr0_mask = 0x2e7;
    if (getenv("FAKE_BT") && bt_attach(f->cpu, 1, BT_ARENA))
        abort();
    return f;
}

static inline void fake_free(struct fake *f)
{
    if (getenv("FAKE_BT"))
        bt_detach(f->cpu);
    x86_destroy(f->cpu);
    munmap(f->mem, FAKE_MEM);
    free(f);
}

/* At most `n` instructions. */
static inline enum x86_stop fake_run(struct fake *f, uint64_t n)
{
    return x86_run(f->cpu, n, false, &f->done);
}

/* One instruction, or the delivery of one event. */
static inline enum x86_stop fake_step(struct fake *f)
{
    return x86_run(f->cpu, UINT64_MAX, true, &f->done);
}

/* Runs to a HLT: a vector if it is that of a handler, or FAKE_*. */
static inline int fake_go(struct fake *f)
{
    uint64_t at;

    switch (fake_run(f, 10000000)) {
    case X86_STOP_HLT:
        f->cpu->activity = VMM_ACTIVE;
        at = f->cpu->seg[VMM_CS].base + f->cpu->rip - 1 - FAKE_HANDLERS;
        return at < 4096 ? (int)(at / 16) : FAKE_HLT;
    case X86_STOP_SHUTDOWN:
        return FAKE_SHUTDOWN;
    case X86_STOP_EXIT:
        return FAKE_EXIT;
    case X86_STOP_ABORT:
        return FAKE_ABORTED;
    default:
        return FAKE_TIMEOUT;
    }
}

/* Puts code at CS:rip (FAKE_TEXT after the functions for modes) and runs it to a HLT. */
static inline int fake_exec(struct fake *f, const uint8_t *begin, const uint8_t *end)
{
    fake_load(f, f->cpu->seg[VMM_CS].base + f->cpu->rip, begin, end);
    return fake_go(f);
}

#endif
