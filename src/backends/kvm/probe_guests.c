/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/probe_guests.c: small guests that show what this host's KVM gets wrong. */
#include <errno.h>
#include <string.h>

#include "backends/kvm/probe.h"

#define PREPARE(lab, mode, ...)                                                                    \
    lab_prepare(lab, mode, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
/* Bytes of a 32-bit operand. */
#define LE32(x)                                                                                    \
    (uint8_t)(x), (uint8_t)((x) >> 8), (uint8_t)((x) >> 16), (uint8_t)((uint32_t)(x) >> 24)

#define UD2 0x0f, 0x0b
#define HLT 0xf4
#define NOP 0x90

#define FLAGS_IF   0x200u
#define FLAGS_IOPL 0x3000u

#define MSR_TSC          0x10u
#define MSR_SYSENTER_CS  0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_STAR         0xc0000081u
#define MSR_LSTAR        0xc0000082u
#define MSR_CSTAR        0xc0000083u
#define MSR_SYSCALL_MASK 0xc0000084u

/* A 64-bit guest has come to its UD2. */
static bool finished(const struct kvm_lab *lab)
{
    return lab_arrived(lab, LAB_UD);
}

/* ---- modes ---- */

#define MAGIC 0x13579bdfu

static bool right_kernel(struct kvm_lab *lab)
{
    PREPARE(lab, LAB_KERNEL, 0xb8, LE32(MAGIC), /* mov eax, MAGIC */
            0x50,                               /* push rax */
            0x5b,                               /* pop rbx */
            UD2);
    lab_run(lab);
    return finished(lab) && lab->regs.rbx == MAGIC;
}

static bool right_real(struct kvm_lab *lab)
{
    PREPARE(lab, LAB_REAL, 0xb8, 0x34, 0x12, /* mov ax, 0x1234 */
            0x50,                            /* push ax */
            0x5b,                            /* pop bx */
            0xcd, 0x20);                     /* int 0x20 */
    lab_run(lab);
    return lab_arrived(lab, 0x20) && lab->regs.rbx == 0x1234;
}

static bool right_protected(struct kvm_lab *lab)
{
    PREPARE(lab, LAB_PROTECTED, 0xb8, LE32(MAGIC), /* mov eax, MAGIC */
            0x50,                                  /* push eax */
            0x5b,                                  /* pop ebx */
            HLT);
    lab_run(lab);
    return lab_arrived_at(lab, LAB_CODE + 7) && lab->regs.rbx == MAGIC;
}

static bool right_paging(struct kvm_lab *lab, enum lab_mode mode)
{
    PREPARE(lab, mode, 0xa1, LE32(LAB_ALIAS32 + LAB_DATA), /* mov eax, [...] */
            0xa3, LE32(LAB_ALIAS32 + LAB_DATA + 4),        /* mov [...], eax */
            HLT);
    lab_poke(lab, LAB_DATA, MAGIC);
    lab_run(lab);
    return lab_arrived_at(lab, LAB_CODE + 10) &&
           lab_peek(lab, LAB_DATA) == (MAGIC | (uint64_t)MAGIC << 32);
}

static bool right_paging32(struct kvm_lab *lab)
{
    return right_paging(lab, LAB_PAGING32);
}

static bool right_pae(struct kvm_lab *lab)
{
    return right_paging(lab, LAB_PAE);
}

static bool right_compat(struct kvm_lab *lab)
{
    for (enum lab_mode mode = LAB_COMPAT; mode <= LAB_COMPAT_USER; mode++) {
        PREPARE(lab, mode, 0x31, 0xc0, /* xor eax, eax */
                0x40,                  /* inc eax; in 64-bit mode a prefix */
                0x50,                  /* push eax */
                0x5b,                  /* pop ebx */
                UD2);
        lab->regs.rbx = MAGIC;
        lab_run(lab);
        if (!finished(lab) || lab->regs.rbx != 1 || lab_stack(lab, 0) != LAB_CODE + 5)
            return false;
    }
    return true;
}

/* ---- from CPL 3 to ring 0 ---- */

/* The stack that an interrupt or exception without an error code leaves. */
static bool came_from_user(const struct kvm_lab *lab, unsigned error_codes, uint64_t rip)
{
    return lab->regs.rsp == LAB_STACK - (5 + error_codes) * 8 &&
           lab_stack(lab, error_codes) == rip && lab_stack(lab, error_codes + 1) == LAB_USER_CS &&
           lab_stack(lab, error_codes + 3) == LAB_USTACK &&
           lab_stack(lab, error_codes + 4) == LAB_USER_SS;
}

static bool right_syscall(struct kvm_lab *lab)
{
    /* Return selectors in the upper half, entry selectors in the lower one. */
    if (lab_set_msr(lab, MSR_STAR, (uint64_t)LAB_USER_CS32 << 48 | (uint64_t)LAB_CS << 32) ||
        lab_set_msr(lab, MSR_LSTAR, LAB_SYSCALL) || lab_set_msr(lab, MSR_CSTAR, LAB_SYSCALL) ||
        lab_set_msr(lab, MSR_SYSCALL_MASK, FLAGS_IF))
        return false;
    PREPARE(lab, LAB_USER, 0x0f, 0x05); /* syscall */
    lab->regs.rflags |= FLAGS_IF;
    lab_run(lab);
    return lab_arrived_at(lab, LAB_SYSCALL) && lab->regs.rcx == LAB_CODE + 2 &&
           lab->regs.r11 == (2 | FLAGS_IF) && !(lab->regs.rflags & FLAGS_IF);
}

/* The vendor's processors are AMD's or compatible with those. */
static bool is_amd(const struct kvm_lab *lab)
{
    static const char amd[] = "AuthenticAMD", hygon[] = "HygonGenuine";
    const struct kvm_cpuid_entry2 *leaf = lab_cpuid(lab, 0);
    char vendor[12] = {0};

    if (leaf) {
        memcpy(vendor, &leaf->ebx, 4);
        memcpy(vendor + 4, &leaf->edx, 4);
        memcpy(vendor + 8, &leaf->ecx, 4);
    }
    return !memcmp(vendor, amd, sizeof(vendor)) || !memcmp(vendor, hygon, sizeof(vendor));
}

static bool right_sysenter(struct kvm_lab *lab)
{
    if (is_amd(lab))
        return true; /* where only 32-bit modes have it */
    if (lab_set_msr(lab, MSR_SYSENTER_CS, LAB_CS) ||
        lab_set_msr(lab, MSR_SYSENTER_ESP, LAB_STACK) ||
        lab_set_msr(lab, MSR_SYSENTER_EIP, LAB_SYSENTER))
        return false;
    PREPARE(lab, LAB_USER, 0x0f, 0x34); /* sysenter */
    lab_run(lab);
    return lab_arrived_at(lab, LAB_SYSENTER) && lab->regs.rsp == LAB_STACK;
}

static bool right_user_events(struct kvm_lab *lab)
{
    PREPARE(lab, LAB_USER, UD2);
    lab_run(lab);
    if (!finished(lab) || !came_from_user(lab, 0, LAB_CODE))
        return false;

    PREPARE(lab, LAB_USER, 0xcc); /* int3 */
    lab_run(lab);
    if (!lab_arrived(lab, 3) || !came_from_user(lab, 0, LAB_CODE + 1))
        return false;

    PREPARE(lab, LAB_USER, 0xcd, 0x80); /* int 0x80 */
    lab_run(lab);
    if (!lab_arrived(lab, 0x80) || !came_from_user(lab, 0, LAB_CODE + 2))
        return false;

    PREPARE(lab, LAB_USER, 0x8b, 0x04, 0x25, LE32(LAB_STUBS)); /* mov eax, [LAB_STUBS] */
    lab_run(lab);
    if (!lab_arrived(lab, 14) || !came_from_user(lab, 1, LAB_CODE) || lab_stack(lab, 0) != 5 ||
        lab->sregs.cr2 != LAB_STUBS)
        return false;

    return right_syscall(lab) && right_sysenter(lab);
}

static bool right_user_flags(struct kvm_lab *lab)
{
    PREPARE(lab, LAB_USER, 0x9c, /* pushfq */
            0x58,                /* pop rax */
            0xe6, 0x99,          /* out 0x99, al: by IOPL, since the TSS has no bitmap */
            UD2);
    lab->regs.rflags |= FLAGS_IOPL;
    lab_run(lab);
    return lab->exit == KVM_EXIT_IO && lab->run->io.port == 0x99 &&
           (lab->regs.rax & (FLAGS_IOPL | FLAGS_IF)) == FLAGS_IOPL;
}

/* ---- CPUID and TSC ---- */

static bool same_leaf(struct kvm_lab *lab, enum lab_mode mode, uint32_t function, uint32_t ebx,
                      uint32_t ecx)
{
    const struct kvm_cpuid_entry2 *leaf = lab_cpuid(lab, function);

    if (!leaf)
        return true;
    PREPARE(lab, mode, 0x0f, 0xa2, UD2); /* cpuid */
    lab->regs.rax = function;
    lab_run(lab);
    return finished(lab) && !((lab->regs.rbx ^ leaf->ebx) & ebx) &&
           !((lab->regs.rcx ^ leaf->ecx) & ecx);
}

/* But for the bits that follow other registers: MWAIT, OSXSAVE, OSPKE. */
static bool right_cpuid(struct kvm_lab *lab)
{
    return same_leaf(lab, LAB_KERNEL, 1, 0, ~0x8000008u) &&
           same_leaf(lab, LAB_USER, 1, 0, ~0x8000008u) &&
           same_leaf(lab, LAB_KERNEL, 7, ~0u, ~0x10u);
}

/* Far from what any host's counter says, and with room above. */
#define TSC_START (UINT64_C(1) << 60)
#define TSC_ROOM  (UINT64_C(1) << 44)

static bool right_tsc_offset(struct kvm_lab *lab)
{
    if (lab_set_msr(lab, MSR_TSC, TSC_START))
        return false;
    for (enum lab_mode mode = LAB_KERNEL; mode <= LAB_USER; mode++) {
        PREPARE(lab, mode, 0x0f, 0x31, UD2); /* rdtsc */
        lab_run(lab);

        uint64_t tsc = lab->regs.rdx << 32 | lab->regs.rax;

        if (!finished(lab) || tsc - TSC_START >= TSC_ROOM)
            return false;
    }
    return true;
}

/* ---- interrupts ---- */

/* KVM tells of the window that opens behind the instruction after STI: each time, for one that
 * emulates CPL 0 sees it when its thread happens to be preempted there. */
#define WINDOWS 4

static bool right_window(struct kvm_lab *lab)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        PREPARE(lab, LAB_KERNEL, 0xfb, /* sti */
                NOP, NOP, NOP, 0xfa,   /* cli */
                UD2);
        lab->run->request_interrupt_window = 1;
        lab_run(lab);
        lab->run->request_interrupt_window = 0;
        if (lab->exit != KVM_EXIT_IRQ_WINDOW_OPEN || lab->regs.rip < LAB_CODE + 2 ||
            lab->regs.rip > LAB_CODE + 4)
            return false;
    }
    return true;
}

/* ---- page tables ---- */

static bool right_tables(struct kvm_lab *lab)
{
    const uint64_t before = UINT64_C(0x1111111111111111), after = UINT64_C(0x2222222222222222);
    bool right = true;

    lab_poke(lab, LAB_DATA, before);
    lab_poke(lab, LAB_DATA2, after);
    for (enum lab_mode mode = LAB_KERNEL; mode <= LAB_USER; mode++) {
        PREPARE(lab, mode, 0x48, 0x8b, 0x04, 0x25, LE32(LAB_ALIAS), UD2); /* mov rax, [ALIAS] */
        lab_run(lab);
        right = right && finished(lab) && lab->regs.rax == before;
    }

    lab_poke(lab, LAB_ALIAS_PTE, LAB_DATA2 | LAB_PTE_USER);
    PREPARE(lab, LAB_KERNEL, 0x0f, 0x20, 0xd8,       /* mov rax, cr3 */
            0x0f, 0x22, 0xd8,                        /* mov cr3, rax */
            0x0f, 0x01, 0x3c, 0x25, LE32(LAB_ALIAS), /* invlpg [ALIAS] */
            0x48, 0x8b, 0x1c, 0x25, LE32(LAB_ALIAS), /* mov rbx, [ALIAS] */
            0x48, 0xcf,                              /* iretq, to the next at CPL 3 */
            0x48, 0x8b, 0x04, 0x25, LE32(LAB_ALIAS), /* mov rax, [ALIAS] */
            UD2);
    lab->regs.rsp = LAB_STACK - 5 * 8;
    lab_poke(lab, LAB_STACK - 40, LAB_CODE + 24);
    lab_poke(lab, LAB_STACK - 32, LAB_USER_CS);
    lab_poke(lab, LAB_STACK - 24, 2);
    lab_poke(lab, LAB_STACK - 16, LAB_USTACK);
    lab_poke(lab, LAB_STACK - 8, LAB_USER_SS);
    lab_run(lab);
    right = right && finished(lab) && lab->regs.rbx == after && lab->regs.rax == after;
    lab_poke(lab, LAB_ALIAS_PTE, LAB_DATA | LAB_PTE_USER);
    return right;
}

/* ---- debugging ---- */

static bool set_debug(struct kvm_lab *lab, uint32_t control, uint64_t address, uint64_t dr7)
{
    struct kvm_guest_debug debug = {
        .control = control ? KVM_GUESTDBG_ENABLE | control : 0,
        .arch.debugreg = {[0] = address, [7] = dr7},
    };

    return !lab_ioctl(lab, lab->cpu, KVM_SET_GUEST_DEBUG, &debug, "KVM_SET_GUEST_DEBUG");
}

/* The last exit is a debug exit with this RIP. */
static bool stopped_at(const struct kvm_lab *lab, uint64_t rip)
{
    return lab->exit == KVM_EXIT_DEBUG && lab->regs.rip == rip;
}

static bool right_step(struct kvm_lab *lab)
{
    bool right = true;

    for (enum lab_mode mode = LAB_KERNEL; right && mode <= LAB_USER; mode++) {
        PREPARE(lab, mode, NOP, NOP, UD2);
        /* KVM steps from the RIP at which it is told to. */
        right = lab_load(lab) && set_debug(lab, KVM_GUESTDBG_SINGLESTEP, 0, 0);
        for (uint32_t i = 1; right && i <= 2; i++) {
            lab_continue(lab);
            right = stopped_at(lab, LAB_CODE + i);
        }
    }
    return set_debug(lab, 0, 0, 0) && right;
}

#define DR7_FIXED   0x400u
#define DR7_G0      2u
#define DR7_WRITE_4 0xd0000u /* of register 0 */

static bool right_breakpoint(struct kvm_lab *lab)
{
    bool right = set_debug(lab, KVM_GUESTDBG_USE_HW_BP, LAB_CODE + 1, DR7_FIXED | DR7_G0);

    for (enum lab_mode mode = LAB_KERNEL; right && mode <= LAB_USER; mode++) {
        PREPARE(lab, mode, NOP, NOP, UD2);
        lab_run(lab);
        right = stopped_at(lab, LAB_CODE + 1);
    }
    return set_debug(lab, 0, 0, 0) && right;
}

static bool right_watchpoint(struct kvm_lab *lab)
{
    bool right = set_debug(lab, KVM_GUESTDBG_USE_HW_BP, LAB_DATA, DR7_FIXED | DR7_G0 | DR7_WRITE_4);

    for (enum lab_mode mode = LAB_KERNEL; right && mode <= LAB_USER; mode++) {
        PREPARE(lab, mode, 0x89, 0x04, 0x25, LE32(LAB_DATA), NOP, UD2); /* mov [DATA], eax */
        lab_run(lab);
        right = stopped_at(lab, LAB_CODE + 7);
    }
    return set_debug(lab, 0, 0, 0) && right;
}

/* ---- instructions at CPL 0 ---- */

#define CPUID1_ECX_CX16 0x2000u

static bool right_emulation(struct kvm_lab *lab)
{
    static const struct {
        uint8_t code[16];
        uint8_t vector; /* in which it ends, if not in UD2's */
        uint32_t needs; /* leaf 1, ECX */
    } insns[] = {
        {{0x66, 0x0f, 0xef, 0xc0, UD2}, 0, 0},               /* pxor xmm0, xmm0 */
        {{0xd9, 0xe8, 0x9b, UD2}, 0, 0},                     /* fld1; fwait */
        {{0x0f, 0xae, 0x1e, UD2}, 0, 0},                     /* stmxcsr [rsi] */
        {{0x48, 0x0f, 0xc7, 0x0e, UD2}, 0, CPUID1_ECX_CX16}, /* cmpxchg16b [rsi] */
        {{0x0f, 0x02, 0xc2, UD2}, 0, 0},                     /* lar eax, edx */
        {{0xcc}, 3, 0},                                      /* int3 */
        {{0xcd, 0x30}, 0x30, 0},                             /* int 0x30 */
    };
    const struct kvm_cpuid_entry2 *leaf = lab_cpuid(lab, 1);

    for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]); i++) {
        if (insns[i].needs && !(leaf && leaf->ecx & insns[i].needs))
            continue;
        lab_prepare(lab, LAB_KERNEL, insns[i].code, sizeof(insns[i].code));
        lab->regs.rsi = LAB_DATA;
        lab->regs.rdx = LAB_CS;
        lab_run(lab);
        if (!lab_arrived(lab, insns[i].vector ? insns[i].vector : LAB_UD))
            return false;
    }
    return true;
}

/* VMCALL may take so much CPU time, and so many times what CPUID takes. */
#define HYPERCALL_LIMIT_NS UINT64_C(2000000)
#define HYPERCALL_CPUIDS   100u

static bool right_hypercall(struct kvm_lab *lab)
{
    const uint64_t usual = lab->limit_ns;

    PREPARE(lab, LAB_KERNEL, 0x0f, 0xa2, UD2); /* cpuid */
    lab_run(lab);
    lab->limit_ns = lab->cpu_ns * HYPERCALL_CPUIDS;
    if (lab->limit_ns < HYPERCALL_LIMIT_NS)
        lab->limit_ns = HYPERCALL_LIMIT_NS;

    /* VMMCALL on AMD's; a KVM that wants the other one patches it. */
    if (is_amd(lab))
        PREPARE(lab, LAB_KERNEL, 0x0f, 0x01, 0xd9, UD2);
    else
        PREPARE(lab, LAB_KERNEL, 0x0f, 0x01, 0xc1, UD2);
    lab->regs.rax = 0x7fff; /* no such call */
    lab_run(lab);
    lab->limit_ns = usual;
    return finished(lab);
}

/* ---- speed ---- */

#define LOOP_INSNS 8u

/* CPU time of `n` rounds of a loop, with what it takes to enter and leave the guest: the least of
 * so many tries. 0: it does not run. */
static uint64_t loop_ns(struct kvm_lab *lab, enum lab_mode mode, uint64_t n, int tries)
{
    static const uint8_t code[] = {
        0x48, 0x8d, 0x04, 0x10, /* lea rax, [rax + rdx] */
        0x48, 0x8d, 0x04, 0x10, /* lea rax, [rax + rdx] */
        0x48, 0x8d, 0x04, 0x10, /* lea rax, [rax + rdx] */
        0x48, 0x8d, 0x04, 0x10, /* lea rax, [rax + rdx] */
        0x48, 0x8d, 0x04, 0x10, /* lea rax, [rax + rdx] */
        0x48, 0x8d, 0x04, 0x10, /* lea rax, [rax + rdx] */
        0x48, 0xff, 0xc9,       /* dec rcx */
        0x75, 0xe3,             /* jnz */
        UD2,
    };
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < tries; i++) {
        lab_prepare(lab, mode, code, sizeof(code));
        lab->regs.rcx = n;
        lab_run(lab);
        if (!finished(lab))
            return 0;
        if (lab->cpu_ns < best)
            best = lab->cpu_ns;
    }
    return best;
}

#define SOME_ROUNDS   400u /* an emulator's do not take long, and noise does not look like one */
#define MANY_ROUNDS   30000u
#define LOOP_NS       UINT64_C(2000000)
#define EMULATOR_NS10 600u

/* Tenths of ns per instruction; 0: the loop does not run. */
static uint32_t measure(struct kvm_lab *lab, enum lab_mode mode, uint64_t rounds, int tries)
{
    uint64_t base = loop_ns(lab, mode, 1, tries), ns = loop_ns(lab, mode, rounds, tries);
    uint64_t insns = (rounds - 1) * LOOP_INSNS;

    if (!base || !ns)
        return 0;
    if (ns > base) /* else it is lost in noise, and this is the most that it can be */
        ns -= base;
    ns = (ns * 10 + insns / 2) / insns;
    return ns < 1 ? 1 : ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static uint32_t insn_ns10(struct kvm_lab *lab, enum lab_mode mode)
{
    uint64_t rounds = SOME_ROUNDS;
    uint32_t ns10 = measure(lab, mode, rounds, 2);

    /* An emulator, or disturbed: an emulator is about as slow the next time. */
    for (int i = 0; i < 8 && ns10 > EMULATOR_NS10; i++) {
        uint32_t again = measure(lab, mode, rounds, 1);
        bool same = again / 2 <= ns10 && again >= ns10 / 2;

        if (again < ns10)
            ns10 = again;
        if (same)
            break;
    }
    /* The faster it seems, the longer the loop must be to tell. */
    while (ns10) {
        uint64_t more = LOOP_NS * 10 / (ns10 * (uint64_t)LOOP_INSNS);

        if (more > MANY_ROUNDS)
            more = MANY_ROUNDS;
        if (more < rounds * 4)
            break;
        rounds = more;
        ns10 = measure(lab, mode, rounds, 2);
    }
    return ns10;
}

static bool right_speed(struct kvm_lab *lab)
{
    struct kvm_host *host = lab->host;

    host->kernel_insn_ns10 = insn_ns10(lab, LAB_KERNEL);
    host->user_insn_ns10 = insn_ns10(lab, LAB_USER);
    return host->kernel_insn_ns10 && host->kernel_insn_ns10 / 20 <= host->user_insn_ns10;
}

/* ---- all of them ---- */

static const struct {
    uint32_t bad;
    uint32_t has; /* without this, there is nothing to try */
    bool (*right)(struct kvm_lab *lab);
} guests[] = {
    {KVM_BAD_REAL, 0, right_real},
    {KVM_BAD_PROTECTED, 0, right_protected},
    {KVM_BAD_PAGING32, 0, right_paging32},
    {KVM_BAD_PAE, 0, right_pae},
    {KVM_BAD_COMPAT, 0, right_compat},
    {KVM_BAD_USER_EVENTS, 0, right_user_events},
    {KVM_BAD_USER_FLAGS, 0, right_user_flags},
    {KVM_BAD_CPUID, 0, right_cpuid},
    {KVM_BAD_TSC_OFFSET, 0, right_tsc_offset},
    {KVM_BAD_STALE_TABLES, 0, right_tables},
    {KVM_BAD_EMULATION, 0, right_emulation},
    {KVM_BAD_SLOW_KERNEL, 0, right_speed},
    {KVM_BAD_WINDOW, 0, right_window},
    {KVM_BAD_BREAKPOINT, KVM_HAS_GUEST_DEBUG, right_breakpoint},
    {KVM_BAD_WATCHPOINT, KVM_HAS_GUEST_DEBUG, right_watchpoint},
    {KVM_BAD_HYPERCALL, 0, right_hypercall},
    /* Last: afterwards the vCPU may be in a state that nothing resets. Where CPL 0 is emulated, the
     * next guest begins with the instruction that was stepped over. */
    {KVM_BAD_STEP, KVM_HAS_GUEST_DEBUG, right_step},
};

static void find_tsc_attribute(struct kvm_lab *lab)
{
    const struct kvm_device_attr offset = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
    };

    if (!lab_ioctl(lab, lab->cpu, KVM_HAS_DEVICE_ATTR, &offset, "KVM_HAS_DEVICE_ATTR"))
        lab->host->has |= KVM_HAS_TSC_OFFSET;
}

int kvm_probe_guests(int dev, struct kvm_host *host)
{
    struct kvm_lab lab;

    if (lab_open(&lab, dev, host, LAB_IRQ_NONE))
        goto out;
    find_tsc_attribute(&lab);
    if (!right_kernel(&lab)) {
        if (!host->result)
            kvm_probe_refuse(host, VMM_E_BACKEND, lab.run_errno,
                             "64-bit guests do not run (exit %u)", lab.exit);
        goto out;
    }
    for (size_t i = 0; i < sizeof(guests) / sizeof(guests[0]) && !host->result; i++)
        if (!(guests[i].has & ~host->has) && !guests[i].right(&lab))
            host->bad |= guests[i].bad;
out:
    lab_close(&lab);
    return host->result;
}
