/* SPDX-License-Identifier: BSD-2-Clause */
/* guest.c: runs a case in a VM at CPL 3. The kernel is a table of HLTs, one for each vector: the
 * exit tells the vector, the exception frame the rest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmm/vmm.h>

#include "diff.h"

/* Guest-physical layout; KERNEL maps all of it. */
#define KERNEL   0xffff800000000000u
#define MEM_SIZE 0x40000u
enum {
    PML4 = 0x1000,
    PDPT_K = 0x2000,
    PD_K = 0x3000,
    PDPT_U = 0x4000,
    PD_U = 0x5000,
    PT_CODE = 0x6000,
    PT_DATA = 0x7000,
    GDT = 0x8000,
    IDT = 0x9000,
    TSS = 0xa000,
    HANDLERS = 0xb000,
    STACK_TOP = 0xe000,
    CODE = 0x10000,
    DATA = 0x20000
};

#define PTE_P  1u
#define PTE_W  2u
#define PTE_U  4u
#define PTE_PS 0x80u
#define PTE_NX (1ull << 63)

static struct vm *vm;
static struct vcpu *cpu;
static uint8_t *mem;
static struct diff_layout layout;
static uint8_t *area;

static void put64(unsigned at, uint64_t value)
{
    memcpy(mem + at, &value, 8);
}

static uint64_t get64(unsigned at)
{
    uint64_t value;

    memcpy(&value, mem + at, 8);
    return value;
}

static void build_tables(void)
{
    const uint64_t table = PTE_P | PTE_W | PTE_U;

    put64(PML4 + 8 * 256, PDPT_K | PTE_P | PTE_W);
    put64(PDPT_K, PD_K | PTE_P | PTE_W);
    put64(PD_K, 0 | PTE_P | PTE_W | PTE_PS);
    put64(PML4, PDPT_U | table);
    put64(PDPT_U, PD_U | table);
    put64(PD_U + 8 * (DIFF_CODE >> 21), PT_CODE | table);
    put64(PD_U + 8 * (DIFF_DATA >> 21), PT_DATA | table);
    for (unsigned i = 0; i < DIFF_CODE_SIZE / 4096; i++)
        put64(PT_CODE + 8 * i, (CODE + 4096 * i) | PTE_P | PTE_U);
    for (unsigned i = 0; i < DIFF_DATA_SIZE / 4096; i++)
        put64(PT_DATA + 8 * i, (DATA + 4096 * i) | PTE_P | PTE_W | PTE_U | PTE_NX);

    put64(GDT + 0x10, 0x00af9b000000ffff); /* kernel code */
    put64(GDT + 0x18, 0x00cf93000000ffff); /* kernel data */
    put64(GDT + DIFF_CS32 - 3, 0x00cffb000000ffff);
    put64(GDT + DIFF_DS - 3, 0x00cff3000000ffff);
    put64(GDT + DIFF_CS64 - 3, 0x00affb000000ffff);
    put64(TSS + 4, KERNEL + STACK_TOP);
    mem[TSS + 102] = 104; /* no I/O bitmap */
    for (unsigned v = 0; v < 256; v++) {
        uint64_t handler = KERNEL + HANDLERS + 4 * v;
        uint64_t dpl = v == 3 || v == 4 ? 3 : 0;

        put64(IDT + 16 * v, (handler & 0xffff) | 0x10u << 16 | (0x8eull | dpl << 5) << 40 |
                                (handler >> 16 & 0xffff) << 48);
        put64(IDT + 16 * v + 8, handler >> 32);
        memcpy(mem + HANDLERS + 4 * v, "\xf4\xeb\xfd\x90", 4); /* hlt; jmp . - 1 */
    }
}

static void read_layout(void)
{
    struct vmm_cpuid entries[256];
    struct vm_caps caps = {.size = sizeof(caps)};
    uint32_t n = 256;

    vm_get_caps(vm, &caps);
    layout.size = caps.xsave_size;
    layout.mask = 3;
    if (vm_default_cpuid(vm, entries, &n) != 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        if (entries[i].leaf != 0xd)
            continue;
        if (entries[i].subleaf == 0)
            layout.mask = entries[i].eax;
        else if (entries[i].subleaf >= 2 && entries[i].subleaf < 16 && entries[i].eax != 0)
            layout.offset[entries[i].subleaf] = entries[i].ebx;
    }
}

int diff_guest_start(const char *backend, uint32_t flags)
{
    const char *names[2] = {backend, NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config), .flags = flags, .error = &error};

    if (backend != NULL) {
        config.select = VMM_SELECT_REQUIRE;
        config.backends = names;
    }
    if (vm_create(&config, &vm) != 0) {
        fprintf(stderr, "vm_create: %s\n", error.text);
        return -1;
    }
    if (vm_mem_alloc(vm, 0, MEM_SIZE, VMM_MEM_RWX, (void **)&mem) != 0 ||
        vcpu_create(vm, 0, NULL, &cpu) != 0) {
        return -1;
    }
    build_tables();
    read_layout();
    area = calloc(1, layout.size);
    return area == NULL ? -1 : 0;
}

void diff_guest_stop(void)
{
    free(area);
    vm_destroy(vm);
}

static struct vmm_segment segment(uint16_t selector, uint32_t ar, uint64_t base)
{
    return (struct vmm_segment){.selector = selector, .base = base, .limit = 0xffffffff, .ar = ar};
}

static int set_state(const struct diff_case *c)
{
    struct vcpu_regs r = {.size = sizeof(r)};
    const struct diff_state *s = &c->init;
    const uint32_t unusable = VMM_AR_UNUSABLE;
    const uint32_t udata = VMM_AR_G | VMM_AR_DB | VMM_AR_P | VMM_AR_DPL | VMM_AR_S | 3;

    memcpy(mem + CODE, c->code, c->len);
    memcpy(mem + DATA, s->data, DIFF_DATA_SIZE);
    r.groups = VMM_REGS_ALL & ~VMM_REGS_DEBUG;
    if (vcpu_get_regs(cpu, &r) != 0)
        return -1;
    memcpy(r.gpr, s->gpr, sizeof(r.gpr));
    r.rip = DIFF_CODE;
    r.rflags = s->rflags;
    r.seg[VMM_CS] =
        c->code32
            ? segment(DIFF_CS32, VMM_AR_G | VMM_AR_DB | VMM_AR_P | VMM_AR_DPL | VMM_AR_S | 11, 0)
            : segment(DIFF_CS64, VMM_AR_G | VMM_AR_L | VMM_AR_P | VMM_AR_DPL | VMM_AR_S | 11, 0);
    r.seg[VMM_SS] = segment(DIFF_DS, udata, 0);
    r.seg[VMM_DS] = c->code32 ? segment(DIFF_DS, udata, 0) : segment(0, unusable, 0);
    r.seg[VMM_ES] = r.seg[VMM_DS];
    r.seg[VMM_FS] = segment(0, unusable, s->fs_base);
    r.seg[VMM_GS] = segment(0, unusable, s->gs_base);
    r.seg[VMM_LDTR] = segment(0, unusable, 0);
    r.seg[VMM_TR] = (struct vmm_segment){
        .selector = 0x40, .base = KERNEL + TSS, .limit = 103, .ar = VMM_AR_P | 11};
    r.gdt = (struct vmm_dtable){.base = KERNEL + GDT, .limit = 0x4f};
    r.idt = (struct vmm_dtable){.base = KERNEL + IDT, .limit = 0xfff};
    r.cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
    r.cr3 = PML4;
    r.cr4 = 0x50660; /* OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR MCE PAE */
    r.efer = 0xd01;  /* NXE LMA LME SCE */
    r.xcr0 = layout.mask;
    r.activity = VMM_ACTIVE;
    r.shadow = 0;
    r.inject_valid = 0;
    if (vcpu_set_regs(cpu, &r) != 0)
        return -1;
    memset(area, 0, layout.size);
    diff_vec_to_area(&s->vec, area, &layout);
    return vcpu_set_xsave(cpu, area, layout.size);
}

static enum diff_end end_of(unsigned vector)
{
    switch (vector) {
    case 0:
        return DIFF_DIVIDE;
    case 3:
        return DIFF_DONE;
    case 6:
        return DIFF_UNDEFINED;
    case 4:
    case 5:
    case 11:
    case 13:
        return DIFF_PROTECT;
    case 12:
        return DIFF_STACK;
    case 14:
        return DIFF_PAGE;
    case 16:
    case 19:
        return DIFF_FLOAT;
    case 17:
        return DIFF_ALIGN;
    default:
        return DIFF_OTHER;
    }
}

static int get_state(struct diff_state *s)
{
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_ALL & ~VMM_REGS_DEBUG};
    unsigned frame = STACK_TOP - 40; /* RIP CS RFLAGS RSP SS */
    unsigned vector;

    if (vcpu_get_regs(cpu, &r) != 0 || vcpu_get_xsave(cpu, area, layout.size) != 0)
        return -1;
    vector = (unsigned)(r.rip - (KERNEL + HANDLERS)) / 4;
    s->end = end_of(vector);
    s->addr = s->end == DIFF_PAGE ? r.cr2 : 0;
    memcpy(s->gpr, r.gpr, sizeof(s->gpr));
    s->rip = get64(frame);
    s->rflags = get64(frame + 16);
    s->gpr[VMM_RSP] = get64(frame + 24);
    s->fs_base = r.seg[VMM_FS].base;
    s->gs_base = r.seg[VMM_GS].base;
    diff_vec_from_area(&s->vec, area, &layout);
    memcpy(s->data, mem + DATA, DIFF_DATA_SIZE);
    return 0;
}

int diff_guest_run(const struct diff_case *c, struct diff_state *out)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    if (set_state(c) != 0) {
        struct vmm_error error = {.size = sizeof(error)};

        vm_last_error(vm, &error);
        fprintf(stderr, "guest state: %s\n", error.text);
        return -1;
    }
    vcpu_set_budget(cpu, 10000000, 0);
    if (vcpu_run(cpu, &exit) != 0) {
        struct vmm_error error = {.size = sizeof(error)};

        vm_last_error(vm, &error);
        fprintf(stderr, "guest: %s\n", error.text);
        return -1;
    }
    if (exit.reason != VMM_EXIT_HLT) {
        fprintf(stderr, "exit %s at %#llx\n", vmm_exit_name(exit.reason),
                (unsigned long long)exit.rip);
        memset(out, 0, sizeof(*out));
        out->end = DIFF_OTHER;
        return 0;
    }
    return get_state(out);
}
