/* SPDX-License-Identifier: BSD-2-Clause */
/* cost.c: what exits cost, in instructions between the exit and the next entry. */
#include <vmm/vmm.h>

#include "host.h"

/* An emulator's time stamp counter counts instructions, so that the figures are the same each time;
 * on a CPU they are cycles. */
static uint64_t ticks(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (uint64_t)high << 32;
}

/* mov r8d, rounds; mov rdx, 10h; mov rsi, 0d0000h; 1: INSN; dec r8d; jnz 1b; out 99h, al, which
 * nobody has */
static const uint8_t head[] = {0x41, 0xb8, 0, 0, 0, 0,    0x31, 0xc9, 0x31, 0xc0,
                               0xba, 0x10, 0, 0, 0, 0xbe, 0x00, 0x00, 0x0d, 0x00};
#define ROUNDS_AT 2
static const uint8_t back[] = {0x41, 0xff, 0xc8, 0x75, 0, 0xe6, 0x99};
#define BACK_AT 4

/* Where guests have their top table, and another one like it. */
#define TABLES       0x10000u
#define OTHER_TABLES 0x18000u

struct insn {
    const char *name;
    uint8_t bytes[24], len, others; /* others: instructions besides the one that exits */
    bool to_program;                /* handled by the caller of vcpu_run */
    uint32_t bound, shadow;         /* with EPT, and with shadow page tables */
};

static const struct insn insns[] = {
    {"CPUID", {0x31, 0xc0, 0x0f, 0xa2}, 4, 1, false, 235, 250},
    {"OUT", {0xba, 0x10, 0, 0, 0, 0xee}, 6, 1, false, 590, 630},
    {"IN", {0xba, 0x10, 0, 0, 0, 0xec}, 6, 1, false, 590, 630},
    {"MMIO write", {0x89, 0x46, 4}, 3, 0, false, 710, 780},
    {"MMIO read", {0x8b, 0x46, 4}, 3, 0, false, 710, 780},
    {"VMCALL", {0x0f, 0x01, 0xc1}, 3, 0, true, 1000, 1000},
    {"RDMSR", {0xb9, 0x77, 2, 0, 0, 0x0f, 0x32}, 7, 1, false, 360, 380},
    /* IA32_SYSENTER_CS */
    {"WRMSR", {0x31, 0xd2, 0xb9, 0x74, 1, 0, 0, 0x0f, 0x30}, 9, 2, false, 570, 600},
    {"RDTSC", {0x0f, 0x31}, 2, 0, false, 400, 400},
    {"HLT", {0xf4}, 1, 0, true, 800, 800},
    /* mov rax, cr0; btc rax, 18; mov cr0, rax: AM; the same for CR4.TSD and CR4.PGE */
    {"MOV to CR0",
     {0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xf8, 18, 0x0f, 0x22, 0xc0},
     11,
     2,
     false,
     250,
     330},
    {"MOV to CR4",
     {0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 2, 0x0f, 0x22, 0xe0},
     11,
     2,
     false,
     370,
     440},
    {"MOV to CR4 with a flush",
     {0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 7, 0x0f, 0x22, 0xe0},
     11,
     2,
     false,
     530,
     790},
    {"MOV from CR3", {0x0f, 0x20, 0xda}, 3, 0, false, 0, 250},
    {"MOV from and to CR3", {0x0f, 0x20, 0xda, 0x0f, 0x22, 0xda}, 6, 0, false, 0, 1050},
    /* The same with xor rdx, OTHER_TABLES ^ TABLES in between. */
    {"MOV from CR3 and to another",
     {0x0f, 0x20, 0xda, 0x48, 0x81, 0xf2, 0x00, 0x80, 0x00, 0x00, 0x0f, 0x22, 0xda},
     13,
     1,
     false,
     0,
     1180},
    /* mov r9, [TABLES]; mov [TABLES], r9; then from and to CR3: what was written is to be seen. */
    {"MOV from and to CR3, behind a store to a table",
     {0x4c, 0x8b, 0x0c, 0x25, 0x00, 0x00, 0x01, 0x00, 0x4c, 0x89, 0x0c,
      0x25, 0x00, 0x00, 0x01, 0x00, 0x0f, 0x20, 0xda, 0x0f, 0x22, 0xda},
     22,
     2,
     false,
     0,
     3200},
    {"INVLPG", {0x0f, 0x01, 0x3e}, 3, 0, false, 0, 960},
};

/* Of a guest with a local APIC, in memory: mov eax, VALUE; mov ebx, REGISTER; mov [rbx], eax. What
 * the hardware keeps of it does not exit; then all exits have to give that back and to take it. */
static const struct insn apic_insns[] = {
    {"OUT, the local APIC not used", {0xba, 0x10, 0, 0, 0, 0xee}, 6, 1, false, 640, 700},
    {"local APIC, SVR",
     {0xb8, 0xff, 1, 0, 0, 0xbb, 0xf0, 0, 0xe0, 0xfe, 0x89, 0x03},
     12,
     2,
     false,
     1100,
     1100},
    {"local APIC, EOI", {0xbb, 0xb0, 0, 0xe0, 0xfe, 0x89, 0x03}, 7, 1, false, 1000, 1100},
    {"local APIC, read of the ID",
     {0xbb, 0x20, 0, 0xe0, 0xfe, 0x8b, 0x0b},
     7,
     1,
     false,
     1000,
     1100},
    {"local APIC, ICR, to nobody",
     {0xb8, 0x41, 0x40, 0x0c, 0, 0xbb, 0, 3, 0xe0, 0xfe, 0x89, 0x03},
     12,
     2,
     false,
     1500,
     1500},
    {"local APIC, TPR", {0xbb, 0x80, 0, 0xe0, 0xfe, 0x89, 0x03}, 7, 1, false, 1000, 1100},
    {"OUT, the local APIC used", {0xba, 0x10, 0, 0, 0, 0xee}, 6, 1, false, 1000, 1000},
};

/* Ticks of `rounds` rounds; 0: the guest has not run as it should. */
static uint64_t rounds_of(struct vcpu *vcpu, uint8_t *ram, const struct insn *i, uint32_t rounds)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = 0x1000,
                               .rsp = 0x8000,
                               .tables = TABLES};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    uint8_t *p = ram + 0x1000;
    uint64_t begin;
    uint32_t n = 0;

    for (unsigned k = 0; k < sizeof(head); k++)
        *p++ = head[k];
    for (unsigned k = 0; k < 4; k++)
        ram[0x1000 + ROUNDS_AT + k] = (uint8_t)(rounds >> 8 * k);
    for (unsigned k = 0; k < i->len; k++)
        *p++ = i->bytes[k];
    for (unsigned k = 0; k < sizeof(back); k++)
        *p++ = back[k];
    p[(int)BACK_AT - (int)sizeof(back)] = (uint8_t)(0 - (i->len + 5));
    if (vcpu_set_mode(vcpu, &setup))
        return 0;
    for (unsigned k = 0; k < 4096; k++)
        ram[OTHER_TABLES + k] = ram[TABLES + k];
    begin = ticks();
    do {
        if (vcpu_run(vcpu, &exit))
            return 0;
    } while (i->to_program && n++ < rounds);
    begin = ticks() - begin;
    return exit.reason == VMM_EXIT_PIO || (i->to_program && exit.reason == VMM_EXIT_HLT) ? begin
                                                                                         : 0;
}

static unsigned costs(struct vcpu *vcpu, uint8_t *ram, bool has_ept, const struct insn *list,
                      unsigned n)
{
    unsigned failed = 0;

    for (unsigned k = 0; k < n; k++) {
        const struct insn *i = &list[k];
        const uint32_t bound = has_ept ? i->bound : i->shadow;
        uint64_t few, many, each = 0;

        rounds_of(vcpu, ram, i, 10); /* what is cached is cached */
        few = rounds_of(vcpu, ram, i, 100);
        many = rounds_of(vcpu, ram, i, 300);
        bool measured = few && many > few;

        /* 0: the instruction does not exit, as RDTSC with an offset and CR3 with EPT. */
        if (measured && (many - few) / 200 > i->others + 3u)
            each = (many - few) / 200 - i->others - 3;
        if (!measured || (bound && each > bound)) {
            failed++;
            host_print("# too much, or not measured: ");
        }
        host_print("# %s: %lu instructions\n", i->name, each);
    }
    return failed;
}

unsigned host_costs(struct vcpu *vcpu, uint8_t *ram, bool has_ept)
{
    return costs(vcpu, ram, has_ept, insns, sizeof(insns) / sizeof(insns[0]));
}

unsigned host_apic_costs(struct vcpu *vcpu, uint8_t *ram, bool has_ept)
{
    return costs(vcpu, ram, has_ept, apic_insns, sizeof(apic_insns) / sizeof(apic_insns[0]));
}
