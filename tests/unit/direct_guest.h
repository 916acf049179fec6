/* SPDX-License-Identifier: BSD-2-Clause */
/* direct_guest.h: a little kernel for user programs that are executed directly, and by the software
 * CPU for comparison. */
#ifndef DIRECT_GUEST_H
#define DIRECT_GUEST_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmm/vmm.h>

#include "direct_layout.h"

extern const uint8_t kernel_blob[], kernel_blob_end[], kernel_syscall[], kernel_start[],
    kernel_log[], kernel_write[];

/* A program of position-independent code [direct_programs.S]. */
struct program {
    const char *name;
    const uint8_t *code, *end;
    uint64_t cr4;    /* bits to be changed */
    uint64_t xcr0;   /* bits that it needs */
    unsigned cpuids; /* so many CPUID are executed directly, if that can fault */
    void (*host)(struct vm *vm, struct vcpu *vcpu); /* OP_HOST */
    void (*set_up)(struct vm *vm, uint8_t *ram);
};

struct guest {
    struct vm *vm;
    struct vcpu *vcpu;
    uint8_t *ram;
    uint64_t tables;
    struct vcpu_regs regs;
    struct vcpu_exit exit;
    bool lacks; /* the CPU has not what the program needs in CR4 */
};

#define PG_P   1ull
#define PG_W   2ull
#define PG_U   4ull
#define PG_A   32ull
#define PG_D   64ull
#define PG_NX  (1ull << 63)
#define PG_RW  (PG_P | PG_W | PG_U)
#define PG_ADW (PG_RW | PG_A | PG_D)

static inline void poke(struct guest *g, uint64_t gpa, uint64_t value)
{
    memcpy(g->ram + gpa, &value, 8);
}

static inline uint64_t peek(const struct guest *g, uint64_t gpa)
{
    uint64_t value;

    memcpy(&value, g->ram + gpa, 8);
    return value;
}

/* The address of the page's entry; `last` is the table that it is in, 0 for any. */
static inline uint64_t entry_of(struct guest *g, uint64_t root, uint64_t va, uint64_t last)
{
    uint64_t table = root;

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t at = table + (va >> shift & 511) * 8;

        if (!(peek(g, at) & 1)) {
            uint64_t next = shift == 21 && last ? last : (g->tables += 4096);

            poke(g, at, next | PG_RW);
        }
        table = peek(g, at) & 0xffffffffff000;
    }
    return table + (va >> 12 & 511) * 8;
}

static inline void map(struct guest *g, uint64_t root, uint64_t va, uint64_t pa, uint64_t flags)
{
    poke(g, entry_of(g, root, va, 0), pa | flags);
}

static inline void map_user(struct guest *g, uint64_t root, uint64_t at)
{
    uint64_t pages = root == PML4_A ? PAGES : PAGES + 0x20000;

    for (unsigned i = 0; i < CODE_PAGES; i++)
        poke(g, entry_of(g, root, at + i * 4096, PT_CODE), (CODE + i * 4096) | PG_RW);
    for (unsigned i = 0; i < 2; i++)
        map(g, root, USER_STACK - 8192 + i * 4096, STACK + i * 4096, PG_RW | PG_NX);
    for (unsigned i = 0; i < 16; i++)
        poke(g, entry_of(g, root, DATA + i * 4096, root == PML4_A ? PT_DATA : PT_B),
             (pages + i * 4096) | PG_RW);
}

static inline void make_tables(struct guest *g, uint64_t at)
{
    g->tables = TABLES;
    for (uint64_t pa = 0; pa < RAM; pa += 4096)
        map(g, PML4_A, K + pa, pa, PG_P | PG_W | PG_A | PG_D);
    map(g, PML4_A, APIC, 0xfee00000, PG_P | PG_W | PG_A | PG_D);
    poke(g, PML4_B + 8 * 273, peek(g, PML4_A + 8 * 273));
    map_user(g, PML4_A, at);
    map_user(g, PML4_B, at);
    poke(g, PT_DATA + 8 * D_RO, (PAGES + D_RO * 4096) | PG_P | PG_U);
    poke(g, PT_DATA + 8 * D_KERNEL, (PAGES + D_KERNEL * 4096) | PG_P | PG_W);
    poke(g, PT_DATA + 8 * D_MISSING, 0);
    poke(g, PT_DATA + 8 * D_DEVICE, DEVICE | PG_RW);
    poke(g, PT_DATA + 8 * D_NX, (PAGES + D_NX * 4096) | PG_RW | PG_NX);
    poke(g, PT_DATA + 8 * 15, 0);
}

static inline void make_descriptors(struct guest *g)
{
    uint64_t kernel = K + KERNEL, tss = K + TSS;

    poke(g, GDT + 8 * 1, 0x00cf9b000000ffff);
    poke(g, GDT + 8 * 2, 0x00af9b000000ffff);
    poke(g, GDT + 8 * 3, 0x00cf93000000ffff);
    poke(g, GDT + 8 * 4, 0x00cffb000000ffff);
    poke(g, GDT + 8 * 5, 0x00cff3000000ffff);
    poke(g, GDT + 8 * 6, 0x00affb000000ffff);
    poke(g, GDT + 8 * 8, 0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56);
    poke(g, GDT + 8 * 9, tss >> 32);
    poke(g, GDT + 8 * 15, 0x0040f50000000005);
    poke(g, TSS + 4, K + KSTACK);
    g->ram[TSS + 102] = 0x68; /* no I/O bitmap */
    for (unsigned v = 0; v < 256; v++) {
        uint64_t entry = kernel + v * 16, type = v == 3 || v == 4 || v == 0x80 ? 0xee : 0x8e;

        poke(g, IDT + v * 16,
             (entry & 0xffff) | 0x10ull << 16 | type << 40 | (entry >> 16 & 0xffff) << 48);
        poke(g, IDT + v * 16 + 8, entry >> 32);
    }
}

static inline struct vmm_segment segment(uint16_t selector, uint32_t ar, uint64_t base,
                                         uint32_t limit)
{
    return (struct vmm_segment){.base = base, .limit = limit, .ar = ar, .selector = selector};
}

/* At the kernel's beginning, from where IRET leads to the program. */
static inline void make_regs(struct guest *g, uint64_t at, uint64_t cr4)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = K + KERNEL + (uint64_t)(kernel_start - kernel_blob),
                               .rsp = K + KSTACK - 40,
                               .cr3 = PML4_A};
    struct vcpu_regs *r = &g->regs;
    const uint64_t frame[] = {at, 0x33, 0x202, USER_STACK - 64, 0x2b};
    struct vm_caps caps = {.size = sizeof(caps)};

    ck_assert_int_eq(vcpu_set_mode(g->vcpu, &setup), 0);
    *r = (struct vcpu_regs){.size = sizeof(*r), .groups = VMM_REGS_ALL};
    ck_assert_int_eq(vcpu_get_regs(g->vcpu, r), 0);
    memcpy(g->ram + KSTACK - 40, frame, sizeof(frame));
    r->seg[VMM_CS] = segment(0x10, 0xa09b, 0, 0xffffffff);
    r->seg[VMM_SS] = segment(0x18, 0xc093, 0, 0xffffffff);
    for (unsigned i = 0; i < 6; i++)
        if (i != VMM_CS && i != VMM_SS)
            r->seg[i] = segment(0, 0x10000, 0, 0);
    r->seg[VMM_TR] = segment(0x40, 0x8b, K + TSS, 0x67);
    r->seg[VMM_LDTR] = segment(0, 0x10000, 0, 0);
    r->gdt = (struct vmm_dtable){.base = K + GDT, .limit = 127};
    r->idt = (struct vmm_dtable){.base = K + IDT, .limit = 4095};
    r->cr0 = 0x80050033;
    r->cr4 = 0x506a0 ^ cr4; /* PAE PGE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE */
    r->efer = 0xd01;
    r->star = 0x0023001000000000;
    r->lstar = K + KERNEL + (uint64_t)(kernel_syscall - kernel_blob);
    r->sfmask = 0x47700;
    r->tsc_aux = 0x1234;
    r->gpr[VMM_R12] = DATA;
    r->gpr[VMM_R13] = K + PT_DATA;
    r->gpr[VMM_RBX] = 0x1111222233334444;
    ck_assert_int_eq(vm_get_caps(g->vm, &caps), 0);
    {
        struct vmm_cpuid table[256];
        uint32_t n = 256;

        ck_assert_int_eq(vm_default_cpuid(g->vm, table, &n), 0);
        for (uint32_t i = 0; i < n; i++)
            if (table[i].leaf == 0xd && table[i].subleaf == 0)
                r->xcr0 = table[i].eax & 0xe7;
    }
    g->lacks = cr4 && vcpu_set_regs(g->vcpu, r) == VMM_E_INVAL;
    if (!g->lacks)
        ck_assert_int_eq(vcpu_set_regs(g->vcpu, r), 0);
}

static inline uint64_t device_value(uint64_t offset)
{
    return offset * 0x0101010101010101 + 0x0807060504030201;
}

static inline void device_access(struct vcpu_exit *e)
{
    if (e->u.mmio.access == VMM_ACCESS_READ)
        e->u.mmio.data = device_value(e->u.mmio.gpa - DEVICE);
}

#define DIRECT (VMM_VM_DIRECT | VMM_VM_TRANSLATE_ALL)

static inline void guest_begin(struct guest *g, const char *backend, uint32_t flags,
                               uint32_t irqchip, uint32_t cpus)
{
    const char *const backends[] = {backend, NULL};
    struct vm_config config = {.size = sizeof(config),
                               .flags = flags,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = irqchip,
                               .max_vcpus = cpus};
    void *host;

    *g = (struct guest){.exit.size = sizeof(g->exit)};
    ck_assert_int_eq(vm_create(&config, &g->vm), 0);
    ck_assert_int_eq(vm_mem_alloc(g->vm, 0, RAM, VMM_MEM_RWX, &host), 0);
    g->ram = host;
    ck_assert_int_eq(vcpu_create(g->vm, 0, NULL, &g->vcpu), 0);
}

static inline void guest_load(struct guest *g, const struct program *p, uint64_t at)
{
    memcpy(g->ram + KERNEL, kernel_blob, (size_t)(kernel_blob_end - kernel_blob));
    ck_assert_int_lt((int)(p->end - p->code), CODE_PAGES * 4096);
    memcpy(g->ram + CODE, p->code, (size_t)(p->end - p->code));
    make_tables(g, at);
    make_descriptors(g);
    if (p->set_up)
        p->set_up(g->vm, g->ram);
    make_regs(g, at, p->cr4);
}

/* Runs until the kernel says so; returns the port. */
static inline unsigned guest_run(struct guest *g, const struct program *p)
{
    for (;;) {
        ck_assert_int_eq(vcpu_run(g->vcpu, &g->exit), 0);
        if (g->exit.reason == VMM_EXIT_MMIO)
            device_access(&g->exit);
        else if (g->exit.reason == VMM_EXIT_PIO && g->exit.u.pio.port == PORT_HOST && p->host)
            p->host(g->vm, g->vcpu);
        else
            break;
    }
    return g->exit.reason == VMM_EXIT_PIO ? g->exit.u.pio.port : 0;
}

static inline void guest_end(struct guest *g)
{
    ck_assert_int_eq(vm_destroy(g->vm), 0);
}

/* ---- comparing ---- */

static const char *const record_names[] = {
    "r15", "r14", "r13", "r12", "r11", "r10", "r9",  "r8",     "rdi",   "rsi", "rbp",
    "rbx", "rdx", "rcx", "rax", "vec", "err", "rip", "cs",     "rfl",   "rsp", "ss",
    "cr2", "dr6", "cr3", "ds",  "es",  "fs",  "gs",  "fsbase", "gsbase"};

static inline const char *place_name(uint64_t gpa, char text[64])
{
    if (gpa < LOG || gpa >= LOG + RECORDS * RECORD) {
        snprintf(text, 64, "memory %#lx", (unsigned long)gpa);
        return text;
    }
    gpa -= LOG;
    if (gpa % RECORD < sizeof(record_names) / sizeof(record_names[0]) * 8)
        snprintf(text, 64, "event %lu %s", (unsigned long)(gpa / RECORD),
                 record_names[gpa % RECORD / 8]);
    else if (gpa % RECORD < 1024)
        snprintf(text, 64, "event %lu PTE %lu", (unsigned long)(gpa / RECORD),
                 (unsigned long)(gpa % RECORD - 512) / 8);
    else
        snprintf(text, 64, "event %lu XSAVE %lu", (unsigned long)(gpa / RECORD),
                 (unsigned long)(gpa % RECORD - 1024));
    return text;
}

/* The address of the last x87 operand: some CPUs write it only with exceptions. */
static inline bool is_fdp(uint64_t gpa)
{
    return gpa >= LOG && gpa % RECORD == 1024 + 16;
}

/* Returns how much differs. */
static inline unsigned guest_compare(const struct guest *ref, const struct guest *g,
                                     const char *name, uint64_t at)
{
    unsigned n = 0;
    char text[64];

    for (uint64_t gpa = 0; gpa < RAM && n < 20; gpa += 8)
        if (peek(ref, gpa) != peek(g, gpa) && !is_fdp(gpa)) {
            printf("%s at %#lx: %s is %#lx, should be %#lx\n", name, (unsigned long)at,
                   place_name(gpa, text), (unsigned long)peek(g, gpa),
                   (unsigned long)peek(ref, gpa));
            n++;
        }
    return n;
}

/* The last events. */
static inline void guest_dump(const struct guest *g)
{
    unsigned n =
        (unsigned)((peek(g, KERNEL + (uint64_t)(kernel_log - kernel_blob)) - K - LOG) / RECORD);

    for (unsigned i = n < 20 ? 0 : n - 20; i < n && i < RECORDS; i++) {
        uint64_t at = LOG + i * RECORD;

        printf("  %u: vec %lu err %lx rip %lx cr2 %lx rax %lx rfl %lx\n", i,
               (unsigned long)peek(g, at + 120), (unsigned long)peek(g, at + 128),
               (unsigned long)peek(g, at + 136), (unsigned long)peek(g, at + 176),
               (unsigned long)peek(g, at + 112), (unsigned long)peek(g, at + 152));
    }
}

#endif
