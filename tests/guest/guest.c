/* SPDX-License-Identifier: BSD-2-Clause */
/* guest.c: the VM in which snippets run. A snippet ends in an INT3 behind it, or in an exception:
 * all vectors lead to a HLT of their own, whose exit tells which came; the frame tells the rest. */
#include "guest.h"

#include <stdio.h>
#include <string.h>

#define PTE_P  1u
#define PTE_W  2u
#define PTE_U  4u
#define PTE_PS 0x80u
#define PTE_NX (1ull << 63)

static void put(struct guest *g, uint32_t at, uint64_t value, unsigned size)
{
    memcpy(g->mem + at, &value, size);
}

static uint64_t get(const struct guest *g, uint64_t at, unsigned size)
{
    uint64_t value = 0;

    if (at <= SNIP_MEM - size)
        memcpy(&value, g->mem + at, size);
    return value;
}

bool guest_create(struct guest *g, const char *backend, uint32_t flags)
{
    const char *names[] = {backend, NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .flags = flags,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = names,
                               .error = &error};

    if (vm_create(&config, &g->vm) != 0) {
        fprintf(stderr, "%s\n", error.text);
        return false;
    }
    return vm_mem_alloc(g->vm, 0, SNIP_MEM, VMM_MEM_RWX, (void **)&g->mem) == 0 &&
           vcpu_create(g->vm, 0, NULL, &g->cpu) == 0;
}

void guest_destroy(struct guest *g)
{
    vm_destroy(g->vm);
}

static void build_gdt(struct guest *g)
{
    static const uint64_t gdt[] = {
        [SEL_CODE64 / 8] = 0x00af9b000000ffff,
        [SEL_DATA / 8] = 0x00cf93000000ffff,
        [SEL_CODE32 / 8] = 0x00cf9b000000ffff,
        [SEL_UCODE64 / 8] = 0x00affb000000ffff,
        [SEL_UDATA / 8] = 0x00cff3000000ffff,
        [SEL_CODE16 / 8] = 0x00009b000000ffff,
        [SEL_DATA16 / 8] = 0x000093000000ffff,
        [SEL_TSS / 8] = 0x00008b0000000067 | (uint64_t)SNIP_TSS << 16,
        [SEL_UCODE32 / 8] = 0x00cffb000000ffff,
        [SEL_ABSENT / 8] = 0x00cf13000000ffff,
        [SEL_RODATA / 8] = 0x00cf91000000ffff,
        [SEL_CONF32 / 8] = 0x00cf9f000000ffff,
        [SEL_GATE / 8] = 0x0000ec0000000000 | SEL_CODE32 << 16 | (SNIP_CODE + 0x800),
        [SEL_XONLY / 8] = 0x00cf99000000ffff,
        [SEL_SMALL / 8] = 0x00409300000000ff,
        [SEL_DOWN / 8] = 0x0040970000000fff,
    };

    memcpy(g->mem + SNIP_GDT, gdt, sizeof(gdt));
}

static bool is_long(enum snip_mode mode)
{
    return mode == COMPAT32 || mode == LONG64 || mode == USER64;
}

void guest_gate(struct guest *g, enum snip_mode mode, unsigned vector, uint32_t address)
{
    uint64_t dpl = vector == 3 || vector == 4 ? 3 : 0;
    uint64_t high = (uint64_t)(address & 0xffff0000) << 32;

    if (mode == REAL16) {
        put(g, 4 * vector, (address & 0xf) | (address >> 4) << 16, 4);
    } else if (is_long(mode)) {
        put(g, SNIP_IDT + 16 * vector,
            (address & 0xffff) | SEL_CODE64 << 16 | (0x8eull | dpl << 5) << 40 | high, 8);
    } else {
        uint32_t code = mode == PROT16 ? SEL_CODE16 : SEL_CODE32;

        put(g, SNIP_IDT + 8 * vector,
            (address & 0xffff) | code << 16 | (0x8eull | dpl << 5) << 40 | high, 8);
    }
}

static void build_handlers(struct guest *g, enum snip_mode mode)
{
    for (unsigned v = 0; v < 256; v++) {
        uint32_t handler = SNIP_HANDLERS + 4 * v;

        memcpy(g->mem + handler, "\xf4\xeb\xfd\x90", 4);
        if (mode == REAL16)
            put(g, 4 * v, handler, 4);
        else
            guest_gate(g, mode, v, handler);
    }
    if (is_long(mode)) {
        put(g, SNIP_TSS + 4, SNIP_KSTACK, 8);
    } else {
        put(g, SNIP_TSS + 4, SNIP_KSTACK, 4);
        put(g, SNIP_TSS + 8, SEL_DATA, 4);
    }
    put(g, SNIP_TSS + 102, 104, 2); /* no I/O bitmap */
}

/* Page tables: of the first GiB and of the fourth. */
enum {
    PML4 = SNIP_TABLES,
    PDPT = PML4 + 0x1000,
    PD = PDPT + 0x1000,
    PT = PD + 0x1000,
    PD3 = PT + 0x1000
};

void guest_map_large(struct guest *g, uint32_t address)
{
    uint32_t table = address >> 30 ? PD3 : PD;

    put(g, table + (address >> 21 & 511) * 8, address | PTE_P | PTE_W | PTE_U | PTE_PS, 8);
}

/* The first 2 MiB in 4 KiB pages, with SNIP_MMIO beside them. */
static void build_pages(struct guest *g)
{
    put(g, PML4, PDPT | PTE_P | PTE_W | PTE_U, 8);
    put(g, PDPT, PD | PTE_P | PTE_W | PTE_U, 8);
    put(g, PDPT + 3 * 8, PD3 | PTE_P | PTE_W | PTE_U, 8);
    guest_map_large(g, SNIP_MMIO);
    put(g, PD, PT | PTE_P | PTE_W | PTE_U, 8);
    for (uint32_t a = 0; a < 0x200000; a += 4096) {
        uint64_t pte = a | PTE_P | PTE_W | PTE_U;

        if (a == SNIP_RO)
            pte &= ~(uint64_t)PTE_W;
        else if (a == SNIP_ABSENT)
            pte &= ~(uint64_t)PTE_P;
        else if (a == SNIP_KERNEL)
            pte &= ~(uint64_t)PTE_U;
        else if (a == SNIP_NX)
            pte |= PTE_NX;
        put(g, PT + 8 * (a >> 12), pte, 8);
    }
}

static struct vmm_segment segment(uint16_t selector, uint32_t type, uint32_t bits)
{
    return (struct vmm_segment){.selector = selector,
                                .limit = bits & VMM_AR_G ? 0xffffffff : 0xffff,
                                .ar = VMM_AR_P | VMM_AR_S | type | bits |
                                      (uint32_t)(selector & 3) << VMM_AR_DPL_SHIFT};
}

static void set_segments(struct vcpu_regs *r, enum snip_mode mode)
{
    const uint32_t big = VMM_AR_G | VMM_AR_DB;
    struct vmm_segment code, data;

    switch (mode) {
    case REAL16:
        code = data = segment(0, 3, 0);
        code.ar = VMM_AR_P | VMM_AR_S | 11;
        break;
    case PROT16:
        code = segment(SEL_CODE16, 11, 0);
        data = segment(SEL_DATA16, 3, 0);
        break;
    case PROT32:
    case COMPAT32:
        code = segment(SEL_CODE32, 11, big);
        data = segment(SEL_DATA, 3, big);
        break;
    case USER32:
        code = segment(SEL_UCODE32, 11, big);
        data = segment(SEL_UDATA, 3, big);
        break;
    case LONG64:
        code = segment(SEL_CODE64, 11, VMM_AR_G | VMM_AR_L);
        data = segment(SEL_DATA, 3, big);
        break;
    default:
        code = segment(SEL_UCODE64, 11, VMM_AR_G | VMM_AR_L);
        data = segment(SEL_UDATA, 3, big);
    }
    r->seg[VMM_CS] = code;
    r->seg[VMM_SS] = r->seg[VMM_DS] = r->seg[VMM_ES] = r->seg[VMM_FS] = r->seg[VMM_GS] = data;
    r->seg[VMM_LDTR] = (struct vmm_segment){.ar = VMM_AR_UNUSABLE};
    r->seg[VMM_TR] = (struct vmm_segment){
        .selector = SEL_TSS, .base = SNIP_TSS, .limit = 0x67, .ar = VMM_AR_P | 11};
}

bool guest_has(const struct guest *g, uint32_t feature)
{
    struct vmm_cpuid table[128];
    uint32_t n = 128;

    if (!feature)
        return true;
    if (vm_default_cpuid(g->vm, table, &n) != 0)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t regs[4] = {table[i].eax, table[i].ebx, table[i].ecx, table[i].edx};

        if (table[i].leaf == (feature >> 16 & 0x7fff) && !table[i].subleaf)
            return regs[feature >> 8 & 3] >> (feature & 31) & 1;
    }
    return false;
}

bool guest_registers(struct guest *g, enum snip_mode mode, struct vcpu_regs *r)
{
    *r = (struct vcpu_regs){.size = sizeof(*r), .groups = VMM_REGS_ALL};
    if (vcpu_get_regs(g->cpu, r) != 0)
        return false;
    memset(r->gpr, 0, sizeof(r->gpr));
    r->gpr[VMM_RSP] = SNIP_STACK;
    r->rip = SNIP_CODE;
    r->rflags = 2;
    set_segments(r, mode);
    r->gdt = (struct vmm_dtable){.base = SNIP_GDT, .limit = SEL_LAST};
    r->idt = (struct vmm_dtable){.base = SNIP_IDT, .limit = is_long(mode) ? 0xfff : 0x7ff};
    if (mode == REAL16)
        r->idt = (struct vmm_dtable){.base = 0, .limit = 0x3ff};
    r->cr0 = mode == REAL16 ? 0x30 : is_long(mode) ? 0x80010033 : 0x33;
    r->cr2 = 0;
    r->cr3 = is_long(mode) ? SNIP_TABLES : 0;
    r->cr4 = is_long(mode) ? 0x620 : 0x600; /* OSXMMEXCPT OSFXSR PAE */
    if (guest_has(g, SNIP_XSAVE))
        r->cr4 |= 0x40000;
    r->efer = is_long(mode) ? 0xd01 : 0;
    r->dr[6] = 0xffff0ff0;
    r->dr[7] = 0x400;
    r->activity = VMM_ACTIVE;
    r->shadow = 0;
    r->nmi_blocked = r->nmi_pending = r->inject_valid = 0;
    return true;
}

bool guest_prepare(struct guest *g, enum snip_mode mode, const uint8_t *code, size_t len,
                   struct vcpu_regs *r)
{
    memset(g->mem, 0, SNIP_MEM);
    memset(g->mem + SNIP_DATA, 0xa5, 4096);
    memcpy(g->mem + SNIP_CODE, code, len);
    g->mem[SNIP_CODE + len] = 0xcc;
    build_gdt(g);
    build_handlers(g, mode);
    build_pages(g);
    return guest_registers(g, mode, r);
}

static bool pushes_error(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

/* The exception frame at the handler's stack pointer. */
static void read_frame(const struct guest *g, enum snip_mode mode, struct guest_end *end)
{
    unsigned size = mode == REAL16 ? 2 : is_long(mode) ? 8 : 4;
    uint64_t sp = end->regs.gpr[VMM_RSP];
    bool inner;

    end->has_error = mode != REAL16 && pushes_error(end->vector);
    if (end->has_error) {
        end->error = (uint32_t)get(g, sp, size);
        sp += size;
    }
    end->rip = get(g, sp, size);
    end->cs = (uint16_t)get(g, sp + size, 2);
    end->rflags = get(g, sp + 2 * size, size);
    sp += 3 * size;
    inner = mode != REAL16 && (end->cs & 3) != (end->regs.seg[VMM_CS].selector & 3);
    end->rsp = size == 8 || inner ? get(g, sp, size) : sp;
}

bool guest_run(struct guest *g, enum snip_mode mode, struct guest_end *end)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    memset(end, 0, sizeof(*end));
    end->regs = (struct vcpu_regs){.size = sizeof(end->regs), .groups = VMM_REGS_ALL};
    if (vcpu_set_budget(g->cpu, 0, 2000000000) != 0 || vcpu_run(g->cpu, &exit) != 0 ||
        vcpu_get_regs(g->cpu, &end->regs) != 0)
        return false;
    end->reason = exit.reason;
    if (exit.reason != VMM_EXIT_HLT)
        return true;
    end->vector = (unsigned)((end->regs.rip - SNIP_HANDLERS) / 4);
    if (end->vector < 256)
        read_frame(g, mode, end);
    return true;
}
