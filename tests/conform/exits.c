/* SPDX-License-Identifier: BSD-2-Clause */
/* exits.c: what vcpu_run says when it returns: reason, RIP, mode, CPL, instruction bytes. */
#include "conform.h"

static void check_insn(const void *bytes, size_t n)
{
    CHECK(ex.insn_len <= 15);
    if (ex.insn_len) /* 0: not known */
        CHECK(ex.insn_len >= n && memcmp(ex.insn, bytes, n) == 0);
    for (unsigned i = ex.insn_len; i < sizeof(ex.insn); i++)
        EQ(ex.insn[i], 0);
}

GUEST(in, 64, "in $0x60, %al\n nop\n hlt"); /* the same bytes in all modes */

static void mode_and_cpl(void)
{
    static const struct {
        enum snip_mode snip;
        uint32_t mode;
        uint8_t cpl;
    } modes[] = {{REAL16, VMM_MODE_REAL, 0},       {PROT16, VMM_MODE_PROT16, 0},
                 {PROT32, VMM_MODE_PROT32, 0},     {USER32, VMM_MODE_PROT32, 3},
                 {COMPAT32, VMM_MODE_COMPAT32, 0}, {LONG64, VMM_MODE_LONG64, 0},
                 {USER64, VMM_MODE_LONG64, 3}};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct vcpu_regs regs;

        LOAD(modes[i].snip, in);
        regs = get_regs(cpu);
        regs.rflags |= 3u << 12; /* IOPL */
        set_regs(cpu, &regs, VMM_REGS_GPR);
        RUN(PIO);
        EQ(ex.mode, modes[i].mode);
        EQ(ex.cpl, modes[i].cpl);
        EQ(ex.rip, CODE);
        EQ(ex.u.pio.port, 0x60);
        EQ(ex.u.pio.len, 1);
        EQ(ex.u.pio.data, 0xff);
        check_insn("\xe4\x60\x90", 3);
        ex.u.pio.data = 0x41;
        RUN(HLT);
        if (modes[i].cpl)
            EQ(halted_in(&ex), 13);
        else
            EQ(ex.rip, END_OF(in));
        EQ(gpr(VMM_RAX) & 0xff, 0x41);
    }
    end();
}

static void virtual_8086_mode(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(PROT32, in);
    struct vcpu_regs regs = get_regs(cpu);
    regs.rflags = 2 | 3u << 12 | 1u << 17;
    for (unsigned i = VMM_ES; i <= VMM_GS; i++)
        regs.seg[i] = (struct vmm_segment){.limit = 0xffff, .ar = 0xf3};
    regs.seg[VMM_TR].limit = 104 + 32; /* an I/O bitmap that permits the first 256 ports */
    set_regs(cpu, &regs, VMM_REGS_GPR | VMM_REGS_SEG);
    RUN(PIO);
    EQ(ex.mode, VMM_MODE_VM86);
    EQ(ex.cpl, 3);
    EQ(ex.rip, CODE);
    end();
}

static void segment_base(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(REAL16, in);
    struct vcpu_regs regs = get_regs(cpu);
    regs.seg[VMM_CS].selector = 0x80;
    regs.seg[VMM_CS].base = 0x800;
    regs.rip = CODE - 0x800;
    set_regs(cpu, &regs, VMM_REGS_GPR | VMM_REGS_SEG);
    RUN(PIO);
    EQ(ex.rip, CODE - 0x800); /* RIP, not the linear address */
    check_insn("\xe4\x60", 2);
    end();
}

GUEST(mmio, 64, "movl $7, (%rbx)\n hlt");

static void memory_access(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, mmio);
    set_gpr(VMM_RBX, MMIO + 0x10);
    RUN(MMIO);
    EQ(ex.rip, CODE);
    EQ(ex.u.mmio.gpa, MMIO + 0x10);
    check_insn("\xc7\x03\x07\0\0\0", 6);
    RUN(HLT);
    end();
}

GUEST(halt, 64, "nop\n hlt\n nop\n hlt");

static void hlt(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halt);
    RUN(HLT);
    EQ(ex.rip, CODE + 2); /* behind it */
    EQ(get_regs(cpu).activity, VMM_HALTED);
    RUN(HLT); /* it is still halted */
    EQ(ex.rip, CODE + 2);
    struct vcpu_regs regs = get_regs(cpu);
    regs.activity = VMM_ACTIVE;
    set_regs(cpu, &regs, VMM_REGS_EVENTS);
    RUN(HLT);
    EQ(ex.rip, CODE + 4);
    end();
}

static void hlt_waits_with_irqchip(void)
{
    begin(VMM_IRQCHIP_PC, 0, 1);
    LOAD(LONG64, halt);
    OK(vcpu_set_budget(cpu, 0, 3000000));
    do
        RUN(BUDGET);
    while (get_regs(cpu).activity != VMM_HALTED);
    EQ(ex.rip, CODE + 2);
    end();
}

static void hlt_exits_with_irqchip(void)
{
    int result = begin_bare(VMM_IRQCHIP_PC, VMM_VM_EXIT_HLT, 1);

    if (result == VMM_E_UNSUPPORTED && conform_irqchip_mode != VMM_IRQCHIP_MODE_USER)
        outcome_not_offered("VMM_VM_EXIT_HLT with local APICs in the kernel");
    OK(result);
    end();
    begin(VMM_IRQCHIP_PC, VMM_VM_EXIT_HLT, 1);
    LOAD(LONG64, halt);
    RUN(HLT);
    EQ(ex.rip, CODE + 2);
    RUN(HLT);
    end();
}

GUEST(invalid, 64, "ud2");

static void triple_fault(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, invalid);
    struct vcpu_regs regs = get_regs(cpu);
    regs.idt.limit = 0;
    set_regs(cpu, &regs, VMM_REGS_DT);
    RUN(SHUTDOWN);
    if (!lost_at_shutdown())
        EQ(ex.rip, CODE);
    RUN(SHUTDOWN); /* each time */
    EQ(get_regs(cpu).activity, VMM_SHUTDOWN);
    LOAD(LONG64, halt);
    RUN(HLT);
    EQ(ex.rip, CODE + 2);
    OK(vm_reset(vm));
    EQ(get_regs(cpu).activity, VMM_ACTIVE);
    end();
}

static void triple_fault_in_user_mode(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, invalid);
    struct vcpu_regs regs = get_regs(cpu);
    regs.idt.limit = 0;
    set_regs(cpu, &regs, VMM_REGS_DT);
    RUN(SHUTDOWN);
    if (!lost_at_shutdown()) {
        EQ(ex.rip, CODE);
        EQ(ex.cpl, 3);
    }
    RUN(SHUTDOWN);
    end();
}

GUEST(vmcall, 64, "mov $5, %eax\n vmcall\n hlt");
GUEST(vmmcall, 64, "mov $5, %eax\n vmmcall\n hlt");

static void hypercalls(void)
{
    begin(VMM_IRQCHIP_NONE, VMM_VM_EXIT_HYPERCALL, 1);
    for (int i = 0; i < 2; i++) {
        load_on(cpu, LONG64, i ? GUEST_CODE(vmmcall) : GUEST_CODE(vmcall));
        RUN(HYPERCALL);
        EQ(ex.rip, CODE + 8); /* behind it */
        EQ(gpr(VMM_RAX), 5);
        set_gpr(VMM_RAX, 6);
        RUN(HLT);
        EQ(gpr(VMM_RAX), 6);
    }
    end();
}

static void hypercalls_are_undefined(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int i = 0; i < 2; i++) {
        load_on(cpu, LONG64, i ? GUEST_CODE(vmmcall) : GUEST_CODE(vmcall));
        RUN(HLT);
        EQ(halted_in(&ex), 6);
        EQ(gpr(VMM_RAX), 5);
    }
    end();
}

GUEST(cpuid, 64, "mov $7, %eax\n mov $3, %ecx\n cpuid\n hlt");

static void cpuid_exits(void)
{
    struct vmm_cpuid table[256];
    uint32_t n = 256;

    begin(VMM_IRQCHIP_NONE, VMM_VM_EXIT_CPUID, 1);
    OK(vm_default_cpuid(vm, table, &n));
    LOAD(LONG64, cpuid);
    RUN(CPUID);
    EQ(ex.rip, CODE + 10);
    EQ(ex.u.cpuid.leaf, 7);
    EQ(ex.u.cpuid.subleaf, 3);
    check_insn("\x0f\xa2", 2);
    ex.u.cpuid.eax = 1;
    ex.u.cpuid.ebx = 2;
    ex.u.cpuid.ecx = 3;
    ex.u.cpuid.edx = 4;
    RUN(HLT);
    EQ(gpr(VMM_RAX), 1);
    EQ(gpr(VMM_RBX), 2);
    EQ(gpr(VMM_RCX), 3);
    EQ(gpr(VMM_RDX), 4);
    LOAD(LONG64, cpuid);
    poke(CODE + 1, 0, 4); /* leaf 0, filled from the table */
    RUN(CPUID);
    EQ(ex.u.cpuid.leaf, 0);
    EQ(ex.u.cpuid.ebx, table[0].ebx);
    RUN(HLT);
    EQ(gpr(VMM_RBX), table[0].ebx);
    end();
}

GUEST(rdmsr, 64, "mov $0x123, %ecx\n rdmsr\n mov %eax, %ebx\n wrmsr\n hlt");

static void msr_exits(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vcpu_msr_policy(cpu, 0x100, 0x200, VMM_MSR_EXIT));
    LOAD(LONG64, rdmsr);
    RUN(MSR);
    EQ(ex.rip, CODE + 5);
    EQ(ex.u.msr.index, 0x123);
    EQ(ex.u.msr.access, VMM_ACCESS_READ);
    check_insn("\x0f\x32", 2);
    ex.u.msr.value = 0x1122334455667788;
    RUN(MSR);
    EQ(ex.rip, CODE + 9);
    EQ(ex.u.msr.access, VMM_ACCESS_WRITE);
    EQ(ex.u.msr.value, 0x1122334455667788);
    EQ(gpr(VMM_RBX), 0x55667788);
    RUN(HLT);
    EQ(ex.rip, END_OF(rdmsr));
    for (int write = 0; write < 2; write++) {
        LOAD(LONG64, rdmsr);
        RUN(MSR);
        if (write)
            RUN(MSR);
        ex.u.msr.fault = 1;
        RUN(HLT);
        EQ(halted_in(&ex), 13);
        EQ(gpr(VMM_RAX), write ? 0xffffffff : 0); /* not answered: all ones */
    }
    end();
}

/* An older version's struct is shorter, a later one's longer. */
static void size_of_the_struct(void)
{
    struct {
        struct vcpu_exit exit;
        uint64_t tail[2];
    } later = {.exit = {.size = sizeof(later)}, .tail = {1, 2}};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, in);
    OK(vcpu_run(cpu, &later.exit));
    EQ(later.exit.reason, VMM_EXIT_PIO);
    EQ(later.tail[0], 0);
    ex.size = 0;
    RESULT(vcpu_run(cpu, &ex), VMM_E_INVAL);
    ex.size = offsetof(struct vcpu_exit, u) + sizeof(struct vcpu_exit_mmio);
    ex.u.pad[20] = 0x55;
    OK(vcpu_run(cpu, &ex));
    EQ(ex.reason, VMM_EXIT_HLT);
    EQ(ex.u.pad[20], 0x55);
    end();
}

static void names(void)
{
    CHECK(strcmp(vmm_exit_name(VMM_EXIT_MMIO), "MMIO") == 0);
    CHECK(strcmp(vmm_exit_name(VMM_EXIT_IRQ_WINDOW), "IRQ_WINDOW") == 0);
    CHECK(strcmp(vmm_exit_name(12345), "?") == 0);
    CHECK(strcmp(vmm_err_name(VMM_E_NOMEM), "VMM_E_NOMEM") == 0);
    CHECK(strcmp(vmm_err_name(-1000), "VMM_E_?") == 0);
    CHECK(strcmp(vmm_strerror(VMM_E_BUSY), "object is in use") == 0);
    EQ(vmm_version(), VMM_VERSION_MAJOR << 16 | VMM_VERSION_MINOR << 8 | VMM_VERSION_PATCH);
}

static const struct conform_case cases[] = {
    CASE(mode_and_cpl, "mode, CPL, RIP and bytes of a port access in every mode"),
    CASE(virtual_8086_mode, "an exit from virtual-8086 mode"),
    CASE(segment_base, "exit.rip is RIP, not the linear address"),
    CASE(memory_access, "MMIO: RIP and bytes of this instruction"),
    CASE(hlt, "HLT: RIP behind it; halted until something ends it"),
    CASE(hlt_waits_with_irqchip, "with an irqchip HLT waits inside vcpu_run", .flags = CASE_MODES),
    CASE(hlt_exits_with_irqchip, "with VMM_VM_EXIT_HLT it exits all the same", .flags = CASE_MODES),
    CASE(triple_fault, "SHUTDOWN: RIP where it happened; stays until a new state or a reset"),
    CASE(triple_fault_in_user_mode, "SHUTDOWN from CPL 3"),
    CASE(hypercalls, "VMCALL and VMMCALL exit, RIP behind them", .caps = VMM_CAP_EXIT_HYPERCALL),
    CASE(hypercalls_are_undefined, "without the flag VMCALL and VMMCALL raise #UD",
         .caps = VMM_CAP_HYPERCALL_UD),
    CASE(cpuid_exits, "CPUID exits, filled from the table; the caller's answer counts",
         .caps = VMM_CAP_EXIT_CPUID),
    CASE(msr_exits, "RDMSR and WRMSR exit where the policy says so; fault = 1 is #GP"),
    CASE(size_of_the_struct, "struct vcpu_exit of other versions' sizes"),
    CASE(names, "names and texts of exits, errors and the version"),
};

AREA(exits, cases);
