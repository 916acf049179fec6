/* SPDX-License-Identifier: BSD-2-Clause */
/* cpu.c: what kernels and programs do all the time, in longer runs than the snippets': changes of
 * mode and privilege, page tables that change under running code. */
#include "conform.h"

#define COUNT   0x3010u
#define PT      (SNIP_TABLES + 0x3000) /* of the first 2 MiB */
#define WINDOW  SNIP_ABSENT            /* a page that cases map */
#define FRAME_A 0x200000u
#define FRAME_B 0x201000u

static void set_pte(uint32_t linear, uint64_t pte)
{
    poke(PT + 8 * (linear >> 12), pte, 8);
}

/* SYSCALL and SYSENTER lead to HANDLER; RSP of the kernel is the TSS's. */
static void enter_by_syscall(struct code handler)
{
    struct vcpu_regs r = get_regs(cpu);

    place(HANDLER, handler);
    r.star = (uint64_t)(SEL_UCODE64 - 16) << 48 | (uint64_t)SEL_CODE64 << 32;
    r.lstar = HANDLER;
    r.sfmask = 0x700;
    r.kernel_gs_base = DATA;
    r.sysenter_cs = SEL_CODE64;
    r.sysenter_esp = SNIP_KSTACK;
    r.sysenter_eip = HANDLER;
    set_regs(cpu, &r, VMM_REGS_MSR);
    memset(ram + DATA, 0, 4096);
}

/* The user's code ends in HLT, whose #GP is the end. */
static void run_user(struct code code)
{
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    EQ(peek(gpr(VMM_RSP) + 8, 8), CODE + (uint64_t)(code.end - code.begin) - 1);
}

/* ---- modes ---- */

GUEST(all_modes, 16,
      "lgdtl 0x3000\n"
      "mov %cr0, %eax\n"
      "or $1, %al\n"
      "mov %eax, %cr0\n"
      "ljmpl $0x18, $(0x1000 + all_modes_32 - guest_all_modes)\n"
      ".code32\n"
      "all_modes_32:\n"
      "mov $0x10, %eax\n"
      "mov %eax, %ds\n"
      "mov %eax, %es\n"
      "mov %eax, %ss\n"
      "mov $0x9000, %esp\n"
      "push $0x12345678\n"
      "pop 0x3010\n"
      "mov %cr4, %eax\n"
      "or $0x20, %eax\n"
      "mov %eax, %cr4\n"
      "mov $0x10000, %eax\n"
      "mov %eax, %cr3\n"
      "mov $0xc0000080, %ecx\n"
      "rdmsr\n"
      "or $0x100, %eax\n"
      "wrmsr\n"
      "mov %cr0, %eax\n"
      "bts $31, %eax\n"
      "mov %eax, %cr0\n"
      "ljmp $0x08, $(0x1000 + all_modes_64 - guest_all_modes)\n"
      ".code64\n"
      "all_modes_64:\n"
      "movabs $0x1122334455667788, %rax\n"
      "mov %rax, 0x3018\n"
      "push $0x18\n"
      "push $(0x1000 + all_modes_compat - guest_all_modes)\n"
      "lretq\n"
      ".code32\n"
      "all_modes_compat:\n"
      "mov %cr0, %eax\n"
      "btr $31, %eax\n"
      "mov %eax, %cr0\n"
      "mov $0xc0000080, %ecx\n"
      "rdmsr\n"
      "and $0xfffffeff, %eax\n"
      "wrmsr\n"
      "ljmp $0x38, $(0x1000 + all_modes_16 - guest_all_modes)\n"
      ".code16\n"
      "all_modes_16:\n"
      "mov $0x40, %ax\n"
      "mov %ax, %ds\n"
      "mov %ax, %ss\n"
      "mov %cr0, %eax\n"
      "and $0xfe, %al\n"
      "mov %eax, %cr0\n"
      "ljmp $0x100, $(all_modes_real - guest_all_modes)\n"
      "all_modes_real:\n"
      "xor %ax, %ax\n"
      "mov %ax, %ds\n"
      "mov $0x55aa, %bx\n"
      "hlt\n");

static void through_all_modes(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int round = 0; round < 3; round++) {
        LOAD(REAL16, all_modes);
        poke(DATA, SEL_LAST, 2);
        poke(DATA + 2, SNIP_GDT, 4);
        RUN(HLT);
        EQ(ex.mode, VMM_MODE_REAL);
        EQ(peek(COUNT, 4), 0x12345678);
        EQ(peek(DATA + 0x18, 8), 0x1122334455667788);
        EQ(gpr(VMM_RBX) & 0xffff, 0x55aa);
        EQ(get_regs(cpu).seg[VMM_CS].base, 0x1000);
        EQ(get_regs(cpu).efer & 0x500, 0);
    }
    end();
}

/* ---- between user and kernel ---- */

GUEST(syscalls, 64,
      "mov $500, %ebx\n"
      "1: mov %ebx, %eax\n"
      "syscall\n"
      "cmp %ebx, %eax\n" /* the kernel has changed it back and forth */
      "jne 2f\n"
      "dec %ebx\n"
      "jnz 1b\n"
      "2: hlt\n");
GUEST(on_syscall, 64,
      "swapgs\n"
      "incl %gs:0x10\n"
      "mov %rsp, %gs:0x20\n"
      "mov $0xe000, %esp\n"
      "push %rcx\n"
      "neg %eax\n"
      "neg %eax\n"
      "pop %rcx\n"
      "mov %gs:0x20, %rsp\n"
      "swapgs\n"
      "sysretq\n");

static void by_syscall(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, syscalls);
    enter_by_syscall(GUEST_CODE(on_syscall));
    run_user(GUEST_CODE(syscalls));
    EQ(peek(COUNT, 4), 500);
    EQ(gpr(VMM_RBX), 0);
    end();
}

GUEST(sysenters, 64,
      "mov $100, %ebx\n"
      "1: mov %rsp, %rcx\n"
      "lea 2f(%rip), %rdx\n"
      "sysenter\n"
      "2: dec %ebx\n"
      "jnz 1b\n"
      "hlt\n");
GUEST(on_sysenter, 64,
      "incl 0x3010\n"
      "push %rax\n"
      "pop %rax\n"
      ".byte 0x48, 0x0f, 0x35\n"); /* SYSEXIT to 64-bit code */

static void by_sysenter(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, sysenters);
    enter_by_syscall(GUEST_CODE(on_sysenter));
    run_user(GUEST_CODE(sysenters));
    EQ(peek(COUNT, 4), 100);
    end();
}

GUEST(interrupts, 64, "mov $300, %ebx\n 1: int $0x80\n dec %ebx\n jnz 1b\n hlt\n");
GUEST(interrupts32, 32, "mov $300, %ebx\n 1: int $0x80\n dec %ebx\n jnz 1b\n hlt\n");
GUEST(on_interrupt, 64, "incl 0x3010\n iretq\n");
GUEST(on_interrupt32, 32, "incl 0x3010\n iretl\n");

static void open_gate(enum snip_mode mode, unsigned vector)
{
    gate(mode, vector, HANDLER);
    poke(SNIP_IDT + (mode == USER32 ? 8 : 16) * vector + 5, 0xee, 1);
}

static void by_interrupt(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, interrupts);
    PLACE(HANDLER, on_interrupt);
    poke(COUNT, 0, 4);
    open_gate(USER64, 0x80);
    run_user(GUEST_CODE(interrupts));
    EQ(peek(COUNT, 4), 300);
    end();
}

static void by_interrupt_from_32_bits(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, interrupts32);
    struct vcpu_regs r = get_regs(cpu); /* compatibility mode at CPL 3 */
    r.seg[VMM_CS].selector = SEL_UCODE32;
    r.seg[VMM_CS].ar = VMM_AR_P | VMM_AR_S | 11 | VMM_AR_DPL | VMM_AR_G | VMM_AR_DB;
    set_regs(cpu, &r, VMM_REGS_SEG);
    PLACE(HANDLER, on_interrupt);
    poke(COUNT, 0, 4);
    open_gate(USER64, 0x80);
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    EQ(peek(COUNT, 4), 300);
    LOAD(USER32, interrupts32); /* protected mode */
    PLACE(HANDLER, on_interrupt32);
    poke(COUNT, 0, 4);
    open_gate(USER32, 0x80);
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    EQ(peek(COUNT, 4), 300);
    end();
}

GUEST(traps, 64,
      "mov $100, %ebx\n"
      "1: ud2\n"
      "int3\n"
      "xor %ecx, %ecx\n"
      "div %ecx\n"
      "cli\n" /* #GP */
      "dec %ebx\n"
      "jnz 1b\n"
      "hlt\n");
GUEST(on_ud, 64, "incl 0x3010\n addq $2, (%rsp)\n iretq\n");
GUEST(on_bp, 64, "incl 0x3010\n iretq\n");
GUEST(on_gp, 64,
      "mov 8(%rsp), %rdx\n cmpb $0xf4, (%rdx)\n je 1f\n incl 0x3010\n"
      "addq $1, 8(%rsp)\n add $8, %rsp\n iretq\n 1: hlt\n");

static void by_exceptions(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, traps);
    PLACE(HANDLER, on_ud);
    PLACE(HANDLER + 0x100, on_bp);
    PLACE(HANDLER + 0x200, on_gp);
    gate(USER64, 6, HANDLER);
    gate(USER64, 0, HANDLER); /* DIV has two bytes too */
    gate(USER64, 3, HANDLER + 0x100);
    gate(USER64, 13, HANDLER + 0x200);
    poke(COUNT, 0, 4);
    RUN(HLT);
    EQ(gpr(VMM_RDX), END_OF(traps) - 1);
    EQ(peek(COUNT, 4), 400);
    end();
}

/* ---- page tables ---- */

GUEST(demands, 64,
      "mov $0x400000, %edi\n"
      "mov $64, %ecx\n"
      "1: movl %ecx, (%rdi)\n"
      "add $0x1000, %rdi\n"
      "loop 1b\n"
      "hlt\n");
/* Makes the PTE of CR2 present: RIP-relative to a table for 4 MiB. */
GUEST(on_demand, 64,
      "push %rax\n"
      "mov %cr2, %rax\n"
      "shr $12, %rax\n"
      "and $0x1ff, %eax\n"
      "orl $7, 0x1a000(,%rax,8)\n"
      "incl 0x3010\n"
      "pop %rax\n"
      "add $8, %rsp\n"
      "iretq\n");

static void demand_paging(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int user = 0; user < 2; user++) {
        load_on(cpu, user ? USER64 : LONG64, GUEST_CODE(demands));
        PLACE(HANDLER, on_demand);
        gate(LONG64, 14, HANDLER);
        poke(COUNT, 0, 4);
        poke(SNIP_TABLES + 0x2000 + 8 * 2, 0x1a007, 8); /* 4 MiB: a page table */
        for (unsigned i = 0; i < 64; i++)
            poke(0x1a000 + 8 * i, HIGH + i * 0x1000, 8);
        RUN(HLT);
        EQ(peek(COUNT, 4), 64);
        for (unsigned i = 0; i < 64; i++)
            EQ(peek(HIGH + i * 0x1000, 4), 64 - i);
    }
    end();
}

/* The kernel maps WINDOW to the other frame at each call; the user compares what it reads. */
GUEST(remaps, 64,
      "mov $200, %ebx\n"
      "1: mov 0x5000, %esi\n"
      "syscall\n"
      "mov 0x5000, %edi\n"
      "add %edi, %esi\n"
      "cmp $3, %esi\n" /* 1 and 2 */
      "jne 2f\n"
      "dec %ebx\n"
      "jnz 1b\n"
      "2: hlt\n");
GUEST(on_remap, 64, "xorl $0x1000, 0x13028\n invlpg 0x5000\n incl 0x3010\n sysretq\n");
GUEST(on_remap_cr3, 64,
      "xorl $0x1000, 0x13028\n mov %cr3, %rax\n mov %rax, %cr3\n incl 0x3010\n sysretq\n");
GUEST(on_switch, 64,
      "mov %cr3, %rax\n xor $0xa000, %rax\n mov %rax, %cr3\n incl 0x3010\n sysretq\n");

static void changing_mappings(struct code handler)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, remaps);
    enter_by_syscall(handler);
    set_pte(WINDOW, FRAME_A | 7);
    poke(FRAME_A, 1, 4);
    poke(FRAME_B, 2, 4);
    /* A second set of tables at 0x1a000, in which WINDOW is the other frame. */
    for (unsigned t = 0; t < 5; t++)
        OK(vm_mem_write(vm, SNIP_TABLES + 0xa000 + t * 0x1000, ram + SNIP_TABLES + t * 0x1000,
                        0x1000));
    poke(0x1a000, 0x1b007, 8);
    poke(0x1b000, 0x1c007, 8);
    poke(0x1b018, 0x1e007, 8);
    poke(0x1c000, 0x1d007, 8);
    poke(0x1d028, FRAME_B | 7, 8);
    run_user(GUEST_CODE(remaps));
    EQ(gpr(VMM_RBX), 0);
    EQ(peek(COUNT, 4), 200);
    end();
}

static void invlpg(void)
{
    EQ(PT + 8 * (WINDOW >> 12), 0x13028);
    changing_mappings(GUEST_CODE(on_remap));
}

static void reload_of_cr3(void)
{
    changing_mappings(GUEST_CODE(on_remap_cr3));
}

static void two_address_spaces(void)
{
    EQ(SNIP_TABLES ^ 0xa000, 0x1a000);
    changing_mappings(GUEST_CODE(on_switch));
}

GUEST(writes_window, 64, "movl $7, 0x5000\n hlt\n");
GUEST(jumps_window, 64, "mov $0x5000, %eax\n jmp *%rax\n");

static void protections(void)
{
    static const struct {
        uint64_t pte;
        bool user, exec;
        uint32_t error;
    } list[] = {{FRAME_A | 5, true, false, 7},
                {FRAME_A | 3, true, false, 7},
                {FRAME_A | 6, true, false, 6},
                {FRAME_A | 5, false, false, 3}, /* CR0.WP */
                {FRAME_A | 7 | 1ull << 63, true, true, 0x15},
                {FRAME_A | 3, true, true, 0x15},
                {FRAME_A | 7 | 1ull << 51, true, false, 0xf}}; /* reserved */

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        enum snip_mode mode = list[i].user ? USER64 : LONG64;
        struct vcpu_regs r;

        load_on(cpu, mode, list[i].exec ? GUEST_CODE(jumps_window) : GUEST_CODE(writes_window));
        r = get_regs(cpu);
        r.cr0 |= 1u << 16;
        set_regs(cpu, &r, VMM_REGS_CONTROL);
        set_pte(WINDOW, list[i].pte);
        RUN(HLT);
        EQ(halted_in(&ex), 14);
        EQ(get_regs(cpu).cr2, WINDOW);
        EQ(peek(gpr(VMM_RSP), 8), list[i].error);
        EQ(peek(FRAME_A, 4), 0);
    }
    end();
}

GUEST(in_tables, 32, "mov 0x400000, %eax\n movl $5, 0x400004\n mov $0x1234, %ebx\n hlt\n");

/* 32-bit and PAE paging: 4 MiB is mapped to HIGH. */
static void paging_of_32_bits(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int pae = 0; pae < 2; pae++) {
        LOAD(PROT32, in_tables);
        poke(HIGH, 0x99, 8);
        struct vcpu_regs r = get_regs(cpu);
        if (pae) {
            poke(0x1a000, 0x1b001, 8); /* PDPT */
            poke(0x1b000, 0x87, 8);    /* 2 MiB pages */
            poke(0x1b010, HIGH | 0x87, 8);
            r.cr4 |= 0x20;
        } else {
            poke(0x1a000, 0x1b007, 4);
            poke(0x1a004, 0x1c007, 4);
            for (unsigned i = 0; i < 1024; i++) {
                poke(0x1b000 + 4 * i, i << 12 | 7, 4);
                poke(0x1c000 + 4 * i, (HIGH + (i << 12)) | 7, 4);
            }
            r.cr4 &= ~0x20ull;
        }
        r.cr3 = 0x1a000;
        r.cr0 |= 1u << 31;
        set_regs(cpu, &r, VMM_REGS_CONTROL);
        RUN(HLT);
        EQ(ex.rip, END_OF(in_tables));
        EQ(gpr(VMM_RAX), 0x99);
        EQ(peek(HIGH + 4, 4), 5);
    }
    end();
}

/* ---- state across interruptions ---- */

GUEST(adds, 64,
      "mov $1, %eax\n"
      "movq %rax, %xmm7\n"
      "pxor %xmm6, %xmm6\n"
      "xor %ebx, %ebx\n"
      "fninit\n"
      "fldz\n"
      "1: fld1\n"
      "faddp\n"
      "paddq %xmm7, %xmm6\n"
      "inc %rbx\n"
      "incl 0x3000\n"
      "cmpl $0, 0x3008\n"
      "je 1b\n"
      "movq %xmm6, %rcx\n"
      "fistpll 0x3018\n"
      "hlt\n");

static void vectors_across_kicks(void)
{
    struct runner r;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, adds);
    memset(ram + DATA, 0, 64);
    for (int i = 0; i < 30; i++) {
        uint32_t at = ram32(DATA);

        run_start(&r, cpu);
        WAIT(ram32(DATA) != at);
        vcpu_kick(cpu);
        run_join(&r, VMM_EXIT_INTERRUPTED);
    }
    poke(DATA + 8, 1, 4);
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    CHECK(gpr(VMM_RBX) >= 30);
    EQ(gpr(VMM_RCX), gpr(VMM_RBX));
    EQ(peek(DATA + 0x18, 8), gpr(VMM_RBX));
    end();
}

GUEST(outs, 64,
      "mov $1, %eax\n"
      "movq %rax, %xmm7\n"
      "pxor %xmm6, %xmm6\n"
      "mov $200, %ebx\n"
      "1: paddq %xmm7, %xmm6\n"
      "mov %ebx, (%rdi)\n"
      "mov (%rdi), %r9d\n"
      "dec %ebx\n"
      "jnz 1b\n"
      "movq %xmm6, %rcx\n"
      "hlt\n");

static void vectors_across_exits(void)
{
    static struct device d = {.quiet = true};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 0x1000);
    LOAD(USER64, outs);
    set_gpr(VMM_RDI, MMIO);
    run_user(GUEST_CODE(outs));
    EQ(gpr(VMM_RCX), 200);
    EQ(d.n, 400);
    end();
}

static const struct conform_case cases[] = {
    CASE(through_all_modes, "real, protected, long and compatibility mode, and back to real mode"),
    CASE(by_syscall, "500 SYSCALLs from user mode and back, with SWAPGS"),
    CASE(by_sysenter, "100 SYSENTERs and SYSEXITs"),
    CASE(by_interrupt, "300 INT 80H from user mode and back"),
    CASE(by_interrupt_from_32_bits, "the same in compatibility and protected mode"),
    CASE(by_exceptions, "400 exceptions of user mode that handlers repair"),
    CASE(demand_paging, "a handler makes page after page present"),
    CASE(invlpg, "a page that is mapped anew is seen after INVLPG"),
    CASE(reload_of_cr3, "a page that is mapped anew is seen after a load of CR3"),
    CASE(two_address_spaces, "each address space has its own page"),
    CASE(protections, "page faults by protection, with their error codes"),
    CASE(paging_of_32_bits, "32-bit and PAE paging"),
    CASE(vectors_across_kicks, "x87 and vector registers keep their values across kicks"),
    CASE(vectors_across_exits, "vector registers keep their values across accesses"),
};

AREA(cpu, cases);
