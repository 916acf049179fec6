/* SPDX-License-Identifier: BSD-2-Clause */
/* test_api_exits.c: what vcpu_run and vcpu_step report, and how the program's answers complete it.
 */
#include "api_vm.h"

#include <stdatomic.h>

static void check_mmio(uint64_t gpa, uint32_t len, uint32_t access)
{
    ck_assert_str_eq(vmm_exit_name(api_run()), "MMIO");
    ck_assert_uint_eq(ex.u.mmio.gpa, gpa);
    ck_assert_uint_eq(ex.u.mmio.len, len);
    ck_assert_uint_eq(ex.u.mmio.access, access);
    ck_assert_uint_eq(ex.mode, VMM_MODE_LONG64);
    ck_assert_uint_eq(ex.cpl, 0);
}
#define MMIO_READ(offset, len_)  check_mmio(MMIO_BASE + (offset), len_, VMM_ACCESS_READ)
#define MMIO_WRITE(offset, len_) check_mmio(MMIO_BASE + (offset), len_, VMM_ACCESS_WRITE)

static void check_pio(uint32_t port, uint32_t len, uint32_t access)
{
    ck_assert_str_eq(vmm_exit_name(api_run()), "PIO");
    ck_assert_uint_eq(ex.u.pio.port, port);
    ck_assert_uint_eq(ex.u.pio.len, len);
    ck_assert_uint_eq(ex.u.pio.access, access);
}

/* ---- fields ---- */

START_TEST(mmio_of_every_size)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    /* mov $0xd0000010,%ebx; mov (%rbx),%al; mov %ax,2(%rbx); mov 4(%rbx),%ecx; mov %rcx,8(%rbx) */
    LOAD("\xbb\x10\x00\x00\xd0\x8a\x03\x66\x89\x43\x02\x8b\x4b\x04\x48\x89\x4b\x08\xf4");
    MMIO_READ(0x10, 1);
    ck_assert_uint_eq(ex.rip, CODE + 5);
    ck_assert_uint_ge(ex.insn_len, 2);
    ck_assert_mem_eq(ex.insn, "\x8a\x03", 2);
    ck_assert_uint_eq(ex.u.mmio.data, 0xff);
    ex.u.mmio.data = 0x12345678aabbcc5a; /* what does not fit is dropped */
    MMIO_WRITE(0x12, 2);
    ck_assert_uint_eq(ex.rip, CODE + 7);
    ck_assert_uint_eq(ex.u.mmio.data, 0x5a);
    MMIO_READ(0x14, 4);
    ex.u.mmio.data = 0x89abcdef01020304;
    MMIO_WRITE(0x18, 8);
    ck_assert_uint_eq(ex.u.mmio.data, 0x01020304);
    RUN(HLT);
    api_end();
}
END_TEST

START_TEST(mmio_that_is_wide_or_not_aligned)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    /* mov $0xd0000010,%ebx; movups (%rbx),%xmm1; movups %xmm1,0x21(%rbx); hlt */
    LOAD("\xbb\x10\x00\x00\xd0\x0f\x10\x0b\x0f\x11\x4b\x21\xf4");
    MMIO_READ(0x10, 8);
    ex.u.mmio.data = 0x1122334455667788;
    MMIO_READ(0x18, 8);
    ex.u.mmio.data = 0x99aabbccddeeff00;
    uint8_t seen[16] = {0};
    uint32_t done = 0;
    while (done < 16) {
        RUN(MMIO);
        ck_assert_uint_eq(ex.rip, CODE + 8);
        ck_assert_uint_eq(ex.u.mmio.access, VMM_ACCESS_WRITE);
        ck_assert_uint_eq(ex.u.mmio.gpa, MMIO_BASE + 0x31 + done);
        ck_assert_uint_le(done + ex.u.mmio.len, 16);
        memcpy(seen + done, &ex.u.mmio.data, ex.u.mmio.len);
        done += ex.u.mmio.len;
    }
    ck_assert_mem_eq(seen, "\x88\x77\x66\x55\x44\x33\x22\x11\x00\xff\xee\xdd\xcc\xbb\xaa\x99", 16);
    RUN(HLT);
    api_end();
}
END_TEST

START_TEST(mmio_across_pages)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xbb\xfe\x0f\x00\xd0\x8b\x03\xf4"); /* mov $0xd0000ffe,%ebx; mov (%rbx),%eax; hlt */
    uint32_t value = 0, done = 0;
    while (api_run() == VMM_EXIT_MMIO) {
        ck_assert_uint_eq(ex.u.mmio.gpa, MMIO_BASE + 0xffe + done);
        ck_assert_uint_le(done + ex.u.mmio.len, 4);
        ex.u.mmio.data = 0x44332211u >> done * 8;
        done += ex.u.mmio.len;
    }
    value = (uint32_t)api_gpr(VMM_RAX);
    ck_assert_uint_eq(done, 4);
    ck_assert_uint_eq(value, 0x44332211);
    api_end();
}
END_TEST

START_TEST(mmio_string_to_memory)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    /* mov $0xd0000000,%esi; mov $0x3000,%edi; mov $3,%ecx; cld; rep movsl; hlt */
    LOAD("\xbe\x00\x00\x00\xd0\xbf\x00\x30\x00\x00\xb9\x03\x00\x00\x00\xfc\xf3\xa5\xf4");
    for (uint32_t i = 0; i < 3; i++) {
        MMIO_READ(i * 4, 4);
        ck_assert_uint_eq(ex.rip, CODE + 16);
        ck_assert_uint_eq(api_gpr(VMM_RCX), 3 - i);
        ex.u.mmio.data = 0x100 + i;
    }
    RUN(HLT);
    uint32_t got[3];
    ck_assert_int_eq(vm_mem_read(vm, 0x3000, got, sizeof(got)), 0);
    ck_assert_mem_eq(got, ((uint32_t[]){0x100, 0x101, 0x102}), sizeof(got));
    ck_assert_uint_eq(api_gpr(VMM_RSI), MMIO_BASE + 12);
    api_end();
}
END_TEST

START_TEST(ports_of_every_size)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    /* mov $0x60,%edx; in (%dx),%al; in (%dx),%ax; in (%dx),%eax; out %eax,(%dx); hlt */
    LOAD("\xba\x60\x00\x00\x00\xec\x66\xed\xed\xef\xf4");
    check_pio(0x60, 1, VMM_ACCESS_READ);
    ck_assert_uint_eq(ex.rip, CODE + 5);
    ck_assert_uint_eq(ex.insn[0], 0xec);
    ck_assert_uint_eq(ex.u.pio.data, 0xff);
    ex.u.pio.data = 0x111;
    check_pio(0x60, 2, VMM_ACCESS_READ);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0x11);
    ex.u.pio.data = 0x2222;
    check_pio(0x60, 4, VMM_ACCESS_READ);
    ex.u.pio.data = 0x33333333;
    check_pio(0x60, 4, VMM_ACCESS_WRITE);
    ck_assert_uint_eq(ex.u.pio.data, 0x33333333);
    RUN(HLT);
    ck_assert_uint_eq(ex.rip, CODE + 11);
    api_end();
}
END_TEST

START_TEST(port_strings)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    /* mov $0x3000,%edi; mov $3,%ecx; mov $0x1f0,%edx; cld; rep insw; hlt */
    LOAD("\xbf\x00\x30\x00\x00\xb9\x03\x00\x00\x00\xba\xf0\x01\x00\x00\xfc\x66\xf3\x6d\xf4");
    for (uint32_t i = 0; i < 3; i++) {
        check_pio(0x1f0, 2, VMM_ACCESS_READ);
        ex.u.pio.data = 0x6100 + i;
        if (i == 1) { /* completions survive what comes in between */
            vcpu_kick(vcpu);
            RUN(INTERRUPTED);
            ex.reason = VMM_EXIT_NONE;
        }
    }
    RUN(HLT);
    uint16_t got[3];
    ck_assert_int_eq(vm_mem_read(vm, 0x3000, got, sizeof(got)), 0);
    ck_assert_mem_eq(got, ((uint16_t[]){0x6100, 0x6101, 0x6102}), sizeof(got));
    /* mov $0x3000,%esi; mov $3,%ecx; mov $0x1f0,%edx; cld; rep outsb; hlt */
    LOAD("\xbe\x00\x30\x00\x00\xb9\x03\x00\x00\x00\xba\xf0\x01\x00\x00\xfc\xf3\x6e\xf4");
    for (uint32_t i = 0; i < 3; i++) {
        check_pio(0x1f0, 1, VMM_ACCESS_WRITE);
        ck_assert_uint_eq(ex.u.pio.data, ((uint8_t *)got)[i]);
    }
    RUN(HLT);
    api_end();
}
END_TEST

START_TEST(locked_mmio)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 2);
    LOAD("\xbb\x00\x00\x00\xd0\xb0\x05\xf0\x0f\xc0\x03\xf4"); /* ...; mov $5,%al; lock xadd */
    MMIO_READ(0, 1);
    ex.u.mmio.data = 0x20;
    MMIO_WRITE(0, 1);
    ck_assert_uint_eq(ex.u.mmio.data, 0x25);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RAX) & 0xff, 0x20);
    api_end();
}
END_TEST

START_TEST(what_is_not_answered_is_all_ones)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xba\x60\x00\x00\x00\xed\xf4");
    RUN(PIO);
    memset((char *)&ex + sizeof(ex.size), 0, sizeof(ex) - sizeof(ex.size)); /* another exit */
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0xffffffff);
    api_end();
}
END_TEST

START_TEST(moved_rip_skips_the_instruction)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xba\x60\x00\x00\x00\xed\xed\xf4");
    RUN(PIO);
    struct vcpu_regs regs = api_regs(vcpu);
    regs.groups = VMM_REGS_GPR;
    regs.rip++;
    regs.gpr[VMM_RAX] = 7;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    ex.u.pio.data = 1;
    RUN(PIO); /* not the answer of this one */
    ck_assert_uint_eq(ex.rip, CODE + 6);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 7);
    ex.u.pio.data = 2;
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 2);
    api_end();
}
END_TEST

START_TEST(rom_write_is_mmio)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x1000, VMM_MEM_RX, NULL), 0);
    /* mov $0x200000,%ebx; movb $0x5a,(%rbx); mov (%rbx),%al; hlt */
    LOAD("\xbb\x00\x00\x20\x00\xc6\x03\x5a\x8a\x03\xf4");
    RUN(MMIO);
    ck_assert_uint_eq(ex.u.mmio.gpa, 0x200000);
    ck_assert_uint_eq(ex.u.mmio.data, 0x5a);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RAX) & 0xff, 0);
    api_end();
}
END_TEST

START_TEST(no_execute_region)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x1000, VMM_MEM_RWX, NULL), 0);
    LOAD("\xb8\x00\x00\x20\x00\xff\xe0"); /* mov $0x200000,%eax; jmp *%rax */
    ck_assert_int_eq(vm_mem_write(vm, 0x200000, "\x90\xf4", 2), 0);
    RUN(HLT);
    ck_assert_int_eq(vm_mem_protect(vm, 0x200000, VMM_MEM_R | VMM_MEM_W), 0);
    LOAD("\xb8\x00\x00\x20\x00\xff\xe0");
    for (int i = 0; i < 2; i++) {
        RUN(MEM_FAULT);
        ck_assert_uint_eq(ex.rip, 0x200000);
        ck_assert_uint_eq(ex.u.fault.gpa, 0x200000);
        ck_assert_uint_eq(ex.u.fault.gva, 0x200000);
        ck_assert_uint_eq(ex.u.fault.access, VMM_ACCESS_EXEC);
    }
    STEP(MEM_FAULT);
    /* The program can put it right and go on. */
    ck_assert_int_eq(vm_mem_protect(vm, 0x200000, VMM_MEM_RWX), 0);
    RUN(HLT);
    ck_assert_uint_eq(ex.rip, 0x200002);
    api_end();
}
END_TEST

START_TEST(msr_exits)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x100, 0x200, VMM_MSR_EXIT), 0);
    /* mov $0x123,%ecx; rdmsr; mov %eax,%ebx; wrmsr; hlt */
    LOAD("\xb9\x23\x01\x00\x00\x0f\x32\x89\xc3\x0f\x30\xf4");
    RUN(MSR);
    ck_assert_uint_eq(ex.rip, CODE + 5);
    ck_assert_uint_eq(ex.u.msr.index, 0x123);
    ck_assert_uint_eq(ex.u.msr.access, VMM_ACCESS_READ);
    ex.u.msr.value = 0x1122334455667788;
    RUN(MSR);
    ck_assert_uint_eq(ex.u.msr.access, VMM_ACCESS_WRITE);
    ck_assert_uint_eq(ex.u.msr.value, 0x1122334455667788);
    ck_assert_uint_eq(api_gpr(VMM_RBX), 0x55667788);
    HANDLE("\xbb\x0d\x00\x00\x00\xf4"); /* mov $13,%ebx; hlt */
    ex.u.msr.fault = 1;
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RBX), 13);

    static const struct {
        uint32_t policy, value;
    } silent[] = {{VMM_MSR_IGNORE, 0}, {VMM_MSR_DENY, 13}, {VMM_MSR_DEFAULT, 13}};
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x123, 0x123, silent[i].policy), 0);
        LOAD("\xb9\x23\x01\x00\x00\x0f\x32\x89\xc3\x0f\x30\xf4");
        HANDLE("\xbb\x0d\x00\x00\x00\xf4");
        RUN(HLT);
        ck_assert_uint_eq(api_gpr(VMM_RBX), silent[i].value);
    }
    api_end();
}
END_TEST

START_TEST(cpuid_exits)
{
    api_begin(VMM_IRQCHIP_NONE, VMM_VM_EXIT_CPUID, 1);
    /* mov $7,%eax; mov $3,%ecx; cpuid; hlt */
    LOAD("\xb8\x07\x00\x00\x00\xb9\x03\x00\x00\x00\x0f\xa2\xf4");
    RUN(CPUID);
    ck_assert_uint_eq(ex.u.cpuid.leaf, 7);
    ck_assert_uint_eq(ex.u.cpuid.subleaf, 3);
    ex.u.cpuid.eax = 1;
    ex.u.cpuid.ebx = 2;
    ex.u.cpuid.ecx = 3;
    ex.u.cpuid.edx = 4;
    RUN(HLT);
    struct vcpu_regs regs = api_regs(vcpu);
    ck_assert_uint_eq(regs.gpr[VMM_RAX], 1);
    ck_assert_uint_eq(regs.gpr[VMM_RBX], 2);
    ck_assert_uint_eq(regs.gpr[VMM_RCX], 3);
    ck_assert_uint_eq(regs.gpr[VMM_RDX], 4);
    api_end();
}
END_TEST

START_TEST(hypercall_exits)
{
    api_begin(VMM_IRQCHIP_NONE, VMM_VM_EXIT_HYPERCALL, 1);
    LOAD("\x0f\x01\xc1\xf4"); /* vmcall; hlt */
    RUN(HYPERCALL);
    ck_assert_uint_eq(ex.rip, CODE + 3); /* behind it, as documented */
    RUN(HLT);
    api_end();
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\x0f\x01\xc1\xf4");
    HANDLE("\xbb\x06\x00\x00\x00\xf4");
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RBX), 6);
    api_end();
}
END_TEST

START_TEST(shutdown_stays)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\x0f\x0b");
    struct vcpu_regs regs = api_regs(vcpu);
    regs.groups = VMM_REGS_DT;
    regs.idt.limit = 0;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    RUN(SHUTDOWN);
    ck_assert_uint_eq(ex.rip, CODE);
    STEP(SHUTDOWN);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 10, 0), 0);
    RUN(SHUTDOWN);
    ck_assert_uint_eq(api_regs(vcpu).activity, VMM_SHUTDOWN);
    LOAD("\xf4"); /* a new state ends it */
    RUN(HLT);
    api_end();
}
END_TEST

/* ---- kick, stop, budget ---- */

START_TEST(kick_before_run)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xf4");
    vcpu_kick(vcpu);
    vcpu_kick(vcpu);
    RUN(INTERRUPTED);
    ck_assert_uint_eq(ex.rip, CODE);
    RUN(HLT);
    vcpu_kick(vcpu);
    vm_stop(vm);
    RUN(STOPPED);
    RUN(STOPPED);
    ck_assert_int_eq(vm_resume(vm), 0);
    RUN(INTERRUPTED); /* the kick is still to be seen */
    ck_assert_int_eq(vm_resume(vm), VMM_E_STATE);
    vcpu_kick(vcpu);
    STEP(INTERRUPTED);
    api_end();
}
END_TEST

START_TEST(requested_exits_come_in_order)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xf4");
    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_POWEROFF, 1), 0);
    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_USER, 2), 0);
    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_USER, 2), 0);
    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_HLT, 2), VMM_E_INVAL);
    RUN(POWEROFF);
    ck_assert_uint_eq(ex.u.user.value, 1);
    RUN(USER);
    ck_assert_uint_eq(ex.u.user.value, 2);
    RUN(HLT);
    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_RESET, 0), 0);
    ck_assert_int_eq(vm_reset(vm), 0); /* forgets it */
    LOAD("\xf4");
    RUN(HLT);
    api_end();
}
END_TEST

START_TEST(budget_of_a_halted_cpu)
{
    api_begin(VMM_IRQCHIP_PC, 0, 1);
    LOAD("\xfa\xf4"); /* cli; hlt */
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 1000000), 0);
    RUN(BUDGET);
    RUN(BUDGET);
    ck_assert_uint_eq(api_regs(vcpu).activity, VMM_HALTED);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 0), 0);
    vcpu_kick(vcpu);
    RUN(INTERRUPTED);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, UINT64_MAX), 0); /* no overflow: no limit */
    vcpu_kick(vcpu);
    RUN(INTERRUPTED);
    api_end();
}
END_TEST

START_TEST(exits_do_not_use_up_a_budget)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xba\x60\x00\x00\x00\xec\xec\x90\x90\xf4"); /* mov; in; in; nop; nop; hlt */
    ck_assert_int_eq(vcpu_set_budget(vcpu, 2, 0), 0);
    RUN(PIO); /* mov has used one; each run has two again */
    RUN(PIO); /* the first in */
    RUN(BUDGET);
    ck_assert_uint_eq(ex.rip, CODE + 8); /* the second in and a nop */
    RUN(BUDGET);                         /* a nop and the HLT */
    RUN(HLT);
    api_end();
}
END_TEST

/* ---- step ---- */

START_TEST(steps_over_a_string)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    /* mov $0x3000,%edi; mov $4,%ecx; xor %eax,%eax; rep stosb; hlt */
    LOAD("\xbf\x00\x30\x00\x00\xb9\x04\x00\x00\x00\x31\xc0\xf3\xaa\xf4");
    for (int i = 0; i < 3; i++)
        STEP(STEP);
    ck_assert_uint_eq(ex.rip, CODE + 12);
    unsigned steps = 0;
    do {
        STEP(STEP);
        steps++;
    } while (ex.rip == CODE + 12);
    ck_assert_uint_le(steps, 4);
    ck_assert_uint_eq(api_gpr(VMM_RCX), 0);
    STEP(STEP); /* the HLT is executed ... */
    STEP(HLT);  /* ... and then halts */
    STEP(HLT);
    api_end();
}
END_TEST

START_TEST(steps_into_handlers)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\x31\xc9\xf7\xf1\xf4"); /* xor %ecx,%ecx; div %ecx; hlt */
    HANDLE("\x90\xf4");
    STEP(STEP);
    ck_assert_uint_eq(ex.rip, CODE + 2);
    STEP(STEP); /* the division only raises #DE */
    if (ex.rip != HANDLER)
        STEP(STEP);
    ck_assert_uint_eq(ex.rip, HANDLER);
    STEP(STEP);
    ck_assert_uint_eq(ex.rip, HANDLER + 1);

    /* An injected interrupt is one step of its own. */
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_INTERRUPT, .vector = 20};
    LOAD("\xfb\x90\x90\xf4");
    HANDLE("\x90\x48\xcf"); /* nop; iretq */
    STEP(STEP);
    STEP(STEP);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    STEP(STEP);
    ck_assert_uint_eq(ex.rip, HANDLER);
    STEP(STEP);
    ck_assert_uint_eq(ex.rip, HANDLER + 1);
    api_end();
}
END_TEST

START_TEST(step_completes_an_access)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xba\x60\x00\x00\x00\xec\xf4");
    STEP(STEP);
    STEP(PIO);
    ex.u.pio.data = 0x77;
    STEP(STEP);
    ck_assert_uint_eq(ex.rip, CODE + 6);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0x77);
    api_end();
}
END_TEST

/* ---- interrupt window, injection ---- */

START_TEST(irq_window)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xfb\x90\xfa\xf4"); /* sti; nop; cli; hlt */
    ck_assert_int_eq(vcpu_irq_window_open(vcpu), 0);
    ck_assert_int_eq(vcpu_request_irq_window(vcpu, 1), 0);
    RUN(IRQ_WINDOW);
    ck_assert_uint_eq(ex.rip, CODE + 2); /* behind the shadow of STI */
    ck_assert_int_eq(vcpu_irq_window_open(vcpu), 1);
    RUN(HLT); /* one shot */
    LOAD("\xfb\x90\xfa\xf4");
    ck_assert_int_eq(vcpu_request_irq_window(vcpu, 1), 0);
    ck_assert_int_eq(vcpu_request_irq_window(vcpu, 0), 0);
    RUN(HLT);
    api_end();
}
END_TEST

START_TEST(injected_events)
{
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_EXCEPTION, .vector = 14};

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\x90\xf4");
    HANDLE("\x41\x58\xf4");                               /* pop %r8; hlt */
    ck_assert_int_eq(vcpu_inject(vcpu, &e), VMM_E_INVAL); /* #PF has an error code */
    ck_assert_ptr_nonnull(strstr(api_error(VMM_E_INVAL), "error code"));
    e.has_error = 1;
    e.error = 6;
    e.has_cr2 = 1;
    e.cr2 = 0x123456789a;
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), VMM_E_BUSY);
    RUN(HLT);
    struct vcpu_regs regs = api_regs(vcpu);
    ck_assert_uint_eq(regs.gpr[VMM_R8], 6);
    ck_assert_uint_eq(regs.cr2, 0x123456789a);

    e = (struct vmm_event){.size = sizeof(e), .type = VMM_EVENT_NMI};
    LOAD("\x90\xf4");
    HANDLE("\xbb\x02\x00\x00\x00\xf4");
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), VMM_E_BUSY);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RBX), 2);
    ck_assert_uint_eq(api_regs(vcpu).nmi_blocked, 1);
    e.reserved = 1;
    ck_assert_int_lt(vcpu_inject(vcpu, &e), 0);
    api_end();
}
END_TEST

/* An interrupt that comes while an access waits for its answer is taken behind the instruction:
 * else the handler's return would make the access again. */
START_TEST(completion_before_interrupts)
{
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_INTERRUPT, .vector = 20};

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    /* sti; mov $0x60,%edx; in (%dx),%al; nop; hlt */
    LOAD("\xfb\xba\x60\x00\x00\x00\xec\x90\xf4");
    HANDLE("\x41\x58\xf4"); /* pop %r8; hlt */
    RUN(PIO);
    ck_assert_int_eq(vcpu_request_irq_window(vcpu, 1), 0);
    ex.u.pio.data = 0x77;
    RUN(IRQ_WINDOW);
    ck_assert_uint_eq(ex.rip, CODE + 7);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0x77);

    LOAD("\xfb\xba\x60\x00\x00\x00\xec\x90\xf4");
    HANDLE("\x41\x58\xf4");
    RUN(PIO);
    e.type = VMM_EVENT_NMI;
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    ex.u.pio.data = 0x78;
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_R8), CODE + 7);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0x78);
    api_end();
}
END_TEST

/* ---- debugging ---- */

START_TEST(breakpoint_passes_once)
{
    struct vmm_debug debug = {.size = sizeof(debug),
                              .nbreakpoints = 1,
                              .breakpoints = {{.addr = CODE + 2, .type = VMM_BREAK_EXEC}}};

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xff\xc0\xff\xc3\xeb\xfa"); /* 1: inc %eax; inc %ebx; jmp 1b */
    ck_assert_int_eq(vcpu_set_debug(vcpu, &debug), 0);
    for (unsigned i = 0; i < 3; i++) {
        RUN(BREAKPOINT);
        ck_assert_uint_eq(ex.rip, CODE + 2);
        ck_assert_uint_eq(ex.u.debug.index, 0);
        ck_assert_uint_eq(ex.u.debug.addr, CODE + 2);
        ck_assert_uint_eq(api_gpr(VMM_RAX), i + 1);
        ck_assert_uint_eq(api_gpr(VMM_RBX), i);
    }
    STEP(STEP);
    ck_assert_uint_eq(ex.rip, CODE + 4);
    ck_assert_int_eq(vcpu_set_debug(vcpu, NULL), 0);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 100, 0), 0);
    RUN(BUDGET);
    ck_assert_uint_eq(api_regs(vcpu).dr[7], 0x400); /* the guest's are its own */
    api_end();
}
END_TEST

START_TEST(watchpoints)
{
    struct vmm_debug debug = {
        .size = sizeof(debug),
        .nbreakpoints = 2,
        .breakpoints = {{.addr = 0x3000, .type = VMM_BREAK_WRITE, .len = 4},
                        {.addr = 0x3010, .type = VMM_BREAK_ACCESS, .len = 8}}};

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    /* mov $0x3000,%ebx; mov $1,%eax; mov %eax,(%rbx); mov 4(%rbx),%eax; mov %al,0x11(%rbx); hlt */
    LOAD("\xbb\x00\x30\x00\x00\xb8\x01\x00\x00\x00\x89\x03\x8b\x43\x04\x88\x43\x11\xf4");
    ck_assert_int_eq(vcpu_set_debug(vcpu, &debug), 0);
    RUN(WATCH);
    ck_assert_uint_eq(ex.u.debug.index, 0);
    ck_assert_uint_eq(ex.rip, CODE + 12);
    uint32_t value;
    ck_assert_int_eq(vm_mem_read(vm, 0x3000, &value, 4), 0);
    ck_assert_uint_eq(value, 1);
    RUN(WATCH);
    ck_assert_uint_eq(ex.u.debug.index, 1);
    ck_assert_uint_eq(ex.rip, CODE + 18);
    RUN(HLT);
    api_end();
}
END_TEST

START_TEST(exception_exits)
{
    struct vmm_debug debug = {
        .size = sizeof(debug), .flags = VMM_DEBUG_EXCEPTIONS, .exception_mask = 1u << 3 | 1u << 0};

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xb8\x01\x00\x00\x00\xb9\x02\x00\x00\x00\xcc\xf4"); /* ...; int3; hlt */
    HANDLE("\xbb\x03\x00\x00\x00\xf4");
    ck_assert_int_eq(vcpu_set_debug(vcpu, &debug), 0);
    RUN(EXCEPTION);
    ck_assert_uint_eq(ex.u.debug.vector, 3);
    ck_assert_uint_eq(api_gpr(VMM_RBX), 0);
    RUN(HLT); /* delivered */
    ck_assert_uint_eq(api_gpr(VMM_RBX), 3);
    LOAD("\x31\xc9\xf7\xf1\xf4");
    HANDLE("\x0f\x0b");
    RUN(EXCEPTION);
    ck_assert_uint_eq(ex.u.debug.vector, 0);
    ck_assert_uint_eq(ex.rip, CODE + 2);
    ck_assert_int_eq(vcpu_set_debug(vcpu, NULL), 0);
    api_end();
}
END_TEST

/* ---- reset ---- */

START_TEST(reset_forgets_what_was_under_way)
{
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_NMI};

    api_begin(VMM_IRQCHIP_PC, 0, 1);
    LOAD("\xba\x60\x00\x00\x00\xec\xf4");
    RUN(PIO);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    ck_assert_int_eq(vcpu_request_irq_window(vcpu, 1), 0);
    ck_assert_int_eq(vm_reset(vm), 0);
    struct vcpu_regs regs = api_regs(vcpu);
    ck_assert_uint_eq(regs.rip, 0xfff0);
    ck_assert_uint_eq(regs.seg[VMM_CS].base, 0xffff0000);
    ck_assert_uint_eq(regs.nmi_pending, 0);
    ck_assert_uint_eq(regs.activity, VMM_ACTIVE);
    ex.u.pio.data = 0x55; /* an answer that nobody waits for */
    LOAD("\xfb\x90\x90\xba\x60\x00\x00\x00\xec\xf4");
    RUN(PIO);
    ck_assert_uint_eq(ex.rip, CODE + 8);
    api_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        mmio_of_every_size,
        mmio_that_is_wide_or_not_aligned,
        mmio_across_pages,
        mmio_string_to_memory,
        ports_of_every_size,
        port_strings,
        locked_mmio,
        what_is_not_answered_is_all_ones,
        moved_rip_skips_the_instruction,
        rom_write_is_mmio,
        no_execute_region,
        msr_exits,
        cpuid_exits,
        hypercall_exits,
        shutdown_stays,
        kick_before_run,
        requested_exits_come_in_order,
        budget_of_a_halted_cpu,
        exits_do_not_use_up_a_budget,
        steps_over_a_string,
        steps_into_handlers,
        step_completes_an_access,
        irq_window,
        injected_events,
        completion_before_interrupts,
        breakpoint_passes_once,
        watchpoints,
        exception_exits,
        reset_forgets_what_was_under_way,
    };

    return api_main("api_exits", tests, sizeof(tests) / sizeof(tests[0]));
}
