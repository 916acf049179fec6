/* SPDX-License-Identifier: BSD-2-Clause */
/* kvm-defects: shows with system calls alone what the host's KVM does right and wrong. One line for
 * each claim of the library's probe: its name, "right" or "wrong", and what was seen. Each guest
 * has a VM of its own. Exit status: 0, whatever is wrong; 77 without a usable KVM; 1 if no guest
 * could be made. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/*
 * The guests. `run` puts one at CODE and lets it run with RIP there. Ring 0 has a handler for each
 * vector: HLT, at HANDLER(vector), so that where it halts tells what has happened.
 */
#define CODE       0xc000u
#define DATA       0xe000u
#define OTHER_DATA 0xf000u
#define ALIAS      0x1ff000u /* mapped to DATA at first, in long mode */
#define HIGH       0x400000u /* with 32-bit paging: address 0 once more */

#define GUEST(name, mode, text)                                                                    \
    __asm__(".pushsection .rodata\n" mode "\nguest_" #name ":\n" text "\nguest_" #name "_end:\n"   \
            ".code64\n.popsection\n");                                                             \
    extern const uint8_t guest_##name[], guest_##name##_end[];

GUEST(real, ".code16", "mov $0x1234, %ax; push %ax; pop %bx; int $0x20")
GUEST(protected, ".code32", "mov $0x12345678, %eax; push %eax; pop %ebx; hlt")
GUEST(paging, ".code32", "mov 0x40e000, %eax; mov %eax, 0x40e004; hlt")
/* INC EAX is a prefix in 64-bit mode. */
GUEST(compat, ".code32", "xor %eax, %eax; inc %eax; push %eax; pop %ebx; ud2")
GUEST(ud2, ".code64", "ud2")
GUEST(int3, ".code64", "int3")
GUEST(int80, ".code64", "int $0x80")
GUEST(fault, ".code64", "mov 0xa000, %eax")
GUEST(syscall, ".code64", "syscall")
GUEST(sysenter, ".code64", "sysenter")
GUEST(flags, ".code64", "pushfq; pop %rax; out %al, $0x99; ud2")
GUEST(cpuid, ".code64", "cpuid; ud2")
GUEST(rdtsc, ".code64", "rdtsc; ud2")
GUEST(load, ".code64", "mov 0x1ff000, %rax; ud2")
GUEST(flush, ".code64",
      "mov %cr3, %rax; mov %rax, %cr3; invlpg 0x1ff000; mov 0x1ff000, %rbx\n"
      "iretq; mov 0x1ff000, %rax; ud2")
GUEST(nops, ".code64", "nop; nop; ud2")
GUEST(store, ".code64", "movl %eax, 0xe000; nop; ud2")
GUEST(sse, ".code64", "pxor %xmm0, %xmm0; ud2")
GUEST(x87, ".code64", "fld1; fwait; ud2")
GUEST(mxcsr, ".code64", "stmxcsr 0xe000; ud2")
GUEST(cmpxchg16b, ".code64", "cmpxchg16b 0xe000; ud2")
GUEST(lar, ".code64", "lar %edx, %eax; ud2")
GUEST(int30, ".code64", "int $0x30")
GUEST(vmcall, ".code64", "vmcall; ud2")
GUEST(vmmcall, ".code64", "vmmcall; ud2")
GUEST(window, ".code64", "sti; nop; nop; nop; cli; ud2")
GUEST(loop, ".code64",
      "1: lea (%rax, %rdx), %rax; lea (%rax, %rdx), %rax; lea (%rax, %rdx), %rax\n"
      "lea (%rax, %rdx), %rax; lea (%rax, %rdx), %rax; lea (%rax, %rdx), %rax\n"
      "dec %rcx; jnz 1b; ud2")

/* ---- one VM ---- */

#define IVT      0x0000u
#define PML4     0x1000u
#define PDPT     0x2000u
#define PD       0x3000u
#define PT       0x4000u
#define PD32     0x5000u
#define PDPT32   0x6000u
#define PDPAE    0x7000u
#define GDT      0x8000u
#define TSS      0x8100u
#define IDT      0x9000u
#define HANDLERS 0xa000u /* for ring 0 only; ring 3 may use all from CODE on */
#define STACK    0xc000u
#define USER_SP  0xe000u
#define SIZE     0x10000u

#define HANDLER(vector) (HANDLERS + (vector))
#define AT_SYSCALL      0xa800u
#define AT_SYSENTER     0xa900u

#define KERNEL_CS 0x08u
#define KERNEL_SS 0x10u
#define CODE32    0x18u
#define USER_CS32 0x23u
#define USER_SS   0x2bu
#define USER_CS   0x33u

enum mode { REAL, PROTECTED, PAGING32, PAE, COMPAT, COMPAT_USER, KERNEL, USER };

static int dev;
static struct kvm_cpuid2 *cpuid;
static size_t run_size;
static struct {
    int fd, cpu;
    struct kvm_run *run;
    uint8_t *mem;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    int error; /* of KVM_RUN */
    bool hang;
} vm;
static char evidence[512];
static const struct kvm_enable_cap *irqchip; /* for the next VM; NULL: none */

__attribute__((noreturn)) static void die(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static int must(int result, const char *what)
{
    if (result < 0)
        die(what);
    return result;
}

__attribute__((format(printf, 1, 2))) static void saw(const char *format, ...)
{
    size_t used = strlen(evidence);
    va_list args;

    if (used)
        used += (size_t)snprintf(evidence + used, sizeof(evidence) - used, "; ");
    va_start(args, format);
    vsnprintf(evidence + used, sizeof(evidence) - used, format, args);
    va_end(args);
}

static void poke(uint32_t addr, uint64_t value, size_t size)
{
    memcpy(vm.mem + addr, &value, size);
}

static uint64_t peek(uint64_t addr)
{
    uint64_t value = 0;

    if (addr <= SIZE - 8)
        memcpy(&value, vm.mem + addr, sizeof(value));
    return value;
}

static void fill_memory(void)
{
    static const uint64_t gdt[] = {0,
                                   0x00af9b000000ffff,
                                   0x00cf93000000ffff,
                                   0x00cf9b000000ffff,
                                   0x00cffb000000ffff,
                                   0x00cff3000000ffff,
                                   0x00affb000000ffff,
                                   0x00008b0000000067 | (uint64_t)TSS << 16,
                                   0};

    poke(PML4, PDPT | 7, 8);
    poke(PDPT, PD | 7, 8);
    poke(PD, PT | 7, 8);
    for (uint32_t page = 0; page < SIZE; page += 0x1000)
        poke(PT + page / 512, page | (page < CODE ? 3 : 7), 8);
    poke(PT + ALIAS / 512, DATA | 7, 8);
    poke(PD32, 0x87, 4);
    poke(PD32 + (HIGH >> 22) * 4, 0x87, 4);
    poke(PDPT32, PDPAE | 1, 8);
    poke(PDPAE, 0x87, 8);
    poke(PDPAE + (HIGH >> 21) * 8, 0x87, 8);
    memcpy(vm.mem + GDT, gdt, sizeof(gdt));
    poke(TSS + 4, STACK, 8);
    poke(TSS + 0x66, 0x68, 2); /* no I/O bitmap */
    for (uint32_t vector = 0; vector < 256; vector++) {
        poke(IVT + vector * 4, HANDLERS / 16 << 16 | vector, 4);
        poke(IDT + vector * 16, HANDLER(vector) | KERNEL_CS << 16 | UINT64_C(0xee00) << 32, 8);
    }
    memset(vm.mem + HANDLERS, 0xf4, 0x1000);
}

static void open_vm(void)
{
    struct kvm_userspace_memory_region slot = {.memory_size = SIZE};

    vm.fd = must(ioctl(dev, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xfffbd000ul);
    if (irqchip)
        must(ioctl(vm.fd, KVM_ENABLE_CAP, irqchip), "KVM_CAP_SPLIT_IRQCHIP");
    vm.mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vm.mem == MAP_FAILED)
        die("mmap");
    fill_memory();
    slot.userspace_addr = (uintptr_t)vm.mem;
    must(ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
    vm.cpu = must(ioctl(vm.fd, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    vm.run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.cpu, 0);
    if (vm.run == MAP_FAILED)
        die("mmap of kvm_run");
    must(ioctl(vm.cpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
    must(ioctl(vm.cpu, KVM_GET_SREGS, &vm.sregs), "KVM_GET_SREGS");
}

static void close_vm(void)
{
    munmap(vm.run, run_size);
    close(vm.cpu);
    close(vm.fd);
    munmap(vm.mem, SIZE);
}

static void set_msr(uint32_t index, uint64_t value)
{
    union {
        struct kvm_msrs msrs;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } set = {.msrs.nmsrs = 1};

    set.msrs.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
    if (ioctl(vm.cpu, KVM_SET_MSRS, &set) != 1)
        saw("MSR %#x cannot be set", index);
}

static struct kvm_segment make_segment(enum mode mode, uint16_t selector, bool code)
{
    struct kvm_segment s = {.limit = 0xffffffff,
                            .selector = selector,
                            .type = code ? 11 : 3,
                            .present = 1,
                            .dpl = selector & 3,
                            .db = 1,
                            .s = 1,
                            .g = 1};

    if (mode == REAL) {
        s.base = selector * 16u;
        s.limit = 0xffff;
        s.dpl = s.db = s.g = 0;
    } else if (code && mode >= KERNEL) {
        s.l = 1;
        s.db = 0;
    }
    return s;
}

/* The start state of the mode, with the guest at CODE. */
static void prepare(enum mode mode, const uint8_t *start, const uint8_t *end)
{
    struct kvm_sregs *s = &vm.sregs;
    bool user = mode == USER || mode == COMPAT_USER;
    uint16_t cs = mode == REAL          ? CODE / 16
                  : mode == USER        ? USER_CS
                  : mode == COMPAT_USER ? USER_CS32
                  : mode == KERNEL      ? KERNEL_CS
                                        : CODE32;
    uint16_t ss = mode == REAL ? (STACK - 0x1000) / 16 : user ? USER_SS : KERNEL_SS;

    memcpy(vm.mem + CODE, start, (size_t)(end - start));
    vm.regs = (struct kvm_regs){
        .rip = mode == REAL ? 0 : CODE,
        .rsp = mode == REAL ? 0x1000
               : user       ? USER_SP
                            : STACK,
        .rflags = 2,
    };
    s->cs = make_segment(mode, cs, true);
    s->ss = make_segment(mode, ss, false);
    s->ds = s->es = s->fs = s->gs = make_segment(mode, mode == REAL ? 0 : ss, false);
    s->tr = (struct kvm_segment){
        .base = TSS, .limit = 0x67, .selector = 0x38, .type = 11, .present = 1};
    s->ldt = (struct kvm_segment){.unusable = 1};
    s->gdt = (struct kvm_dtable){.base = GDT, .limit = 0x47};
    s->idt = mode == REAL ? (struct kvm_dtable){.base = IVT, .limit = 0x3ff}
                          : (struct kvm_dtable){.base = IDT, .limit = 0xfff};
    s->cr0 = mode == REAL ? 0x10 : mode == PROTECTED ? 0x31 : 0x80000031;
    s->cr3 = mode == PAGING32 ? PD32 : mode == PAE ? PDPT32 : PML4;
    s->cr4 = mode < PAGING32 ? 0 : mode == PAGING32 ? 0x10 : mode < KERNEL ? 0x20 : 0x620;
    s->efer = mode < COMPAT ? 0 : 0x501;
}

/* Runs on, for a second at most. */
static void go(void)
{
    struct itimerval second = {.it_value = {.tv_sec = 1}}, never = {{0, 0}, {0, 0}};

    vm.error = 0;
    vm.run->immediate_exit = 0;
    setitimer(ITIMER_REAL, &second, NULL);
    if (ioctl(vm.cpu, KVM_RUN, 0) < 0)
        vm.error = errno;
    setitimer(ITIMER_REAL, &never, NULL);
    vm.hang = vm.error == EINTR;
    must(ioctl(vm.cpu, KVM_GET_REGS, &vm.regs), "KVM_GET_REGS");
    must(ioctl(vm.cpu, KVM_GET_SREGS, &vm.sregs), "KVM_GET_SREGS");
}

static void load(void)
{
    must(ioctl(vm.cpu, KVM_SET_SREGS, &vm.sregs), "KVM_SET_SREGS");
    must(ioctl(vm.cpu, KVM_SET_REGS, &vm.regs), "KVM_SET_REGS");
}

static void start(void)
{
    load();
    go();
}

/* Ends KVM_RUN also when the signal comes just before it. */
static void on_alarm(int signal_number)
{
    (void)signal_number;
    vm.run->immediate_exit = 1;
}

static const char *exit_name(void)
{
    static char number[32];

    if (vm.hang)
        return "no exit";
    if (vm.error)
        return strerror(vm.error);
    switch (vm.run->exit_reason) {
    case KVM_EXIT_HLT:
        return "KVM_EXIT_HLT";
    case KVM_EXIT_IO:
        return "KVM_EXIT_IO";
    case KVM_EXIT_DEBUG:
        return "KVM_EXIT_DEBUG";
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return "KVM_EXIT_IRQ_WINDOW_OPEN";
    case KVM_EXIT_SHUTDOWN:
        return "KVM_EXIT_SHUTDOWN";
    case KVM_EXIT_INTERNAL_ERROR:
        return "KVM_EXIT_INTERNAL_ERROR";
    default:
        snprintf(number, sizeof(number), "exit %u", vm.run->exit_reason);
        return number;
    }
}

/* The last exit, in words. */
static void saw_exit(const char *what)
{
    uint64_t rip = vm.sregs.cs.base + vm.regs.rip;
    char where[64];

    if (rip > HANDLERS && rip <= HANDLERS + 256)
        snprintf(where, sizeof(where), "in the handler of vector %#llx",
                 (unsigned long long)rip - HANDLERS - 1);
    else
        snprintf(where, sizeof(where), "at RIP %#llx", (unsigned long long)rip);
    saw("%s: %s %s, CS %#x, RAX %#llx, RBX %#llx, RSP %#llx", what, exit_name(), where,
        vm.sregs.cs.selector, (unsigned long long)vm.regs.rax, (unsigned long long)vm.regs.rbx,
        (unsigned long long)vm.regs.rsp);
}

/* Ring 0 has executed the HLT at `addr`. */
static bool halted_at(uint32_t addr)
{
    return !vm.error && vm.run->exit_reason == KVM_EXIT_HLT &&
           vm.sregs.cs.base + vm.regs.rip == addr + 1 &&
           (!(vm.sregs.cr0 & 1) || !(vm.sregs.cs.selector & 3));
}

static bool handler(uint32_t vector)
{
    return halted_at(HANDLER(vector));
}

#define PREPARE(mode, name) prepare(mode, guest_##name, guest_##name##_end)
#define RUN(mode, name)     (PREPARE(mode, name), start())

static const char *cpl_name(enum mode mode)
{
    return mode == USER || mode == COMPAT_USER ? "CPL 3" : "CPL 0";
}

/* ---- claims ---- */

static bool claim_real(void)
{
    RUN(REAL, real);
    saw_exit("PUSH, POP, INT 20H");
    return handler(0x20) && vm.regs.rbx == 0x1234;
}

static bool claim_protected(void)
{
    RUN(PROTECTED, protected);
    saw_exit("PUSH, POP, HLT");
    return halted_at(CODE + 7) && vm.regs.rbx == 0x12345678;
}

static bool claim_paging(enum mode mode)
{
    const uint64_t magic = 0x13579bdf;

    PREPARE(mode, paging);
    poke(DATA, magic, 8);
    start();
    saw_exit("load, store, HLT");
    return halted_at(CODE + 10) && peek(DATA) == (magic | magic << 32);
}

static bool claim_paging32(void)
{
    return claim_paging(PAGING32);
}

static bool claim_pae(void)
{
    return claim_paging(PAE);
}

static bool claim_compat(void)
{
    for (enum mode mode = COMPAT; mode <= COMPAT_USER; mode++) {
        RUN(mode, compat);
        saw_exit(cpl_name(mode));
        if (!handler(6) || vm.regs.rbx != 1)
            return false;
    }
    return true;
}

/* The stack of ring 0 is that of an event of CPL 3 with this return address. */
static bool frame(uint64_t rip, unsigned error_codes)
{
    uint64_t at = vm.regs.rsp + error_codes * 8;

    return at == STACK - 40 && peek(at) == rip && peek(at + 8) == USER_CS &&
           peek(at + 24) == USER_SP && peek(at + 32) == USER_SS;
}

static bool vendor_is_amd(void)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (!cpuid->entries[i].function)
            return cpuid->entries[i].ebx == 0x68747541 || cpuid->entries[i].ebx == 0x6f677948;
    return false;
}

static bool claim_user_events(void)
{
    bool right = true, one;

    RUN(USER, ud2);
    one = handler(6) && frame(CODE, 0);
    if (!one)
        saw_exit("UD2");
    right &= one;

    RUN(USER, int3);
    one = handler(3) && frame(CODE + 1, 0);
    if (!one)
        saw_exit("INT3");
    right &= one;

    RUN(USER, int80);
    one = handler(0x80) && frame(CODE + 2, 0);
    if (!one)
        saw_exit("INT 80H");
    right &= one;

    RUN(USER, fault);
    one = handler(14) && frame(CODE, 1) && peek(vm.regs.rsp) == 5 && vm.sregs.cr2 == 0xa000;
    if (!one)
        saw_exit("page fault");
    right &= one;

    set_msr(0xc0000081, (uint64_t)USER_CS32 << 48 | (uint64_t)KERNEL_CS << 32);
    set_msr(0xc0000082, AT_SYSCALL);
    set_msr(0xc0000084, 0x200);
    PREPARE(USER, syscall);
    vm.regs.rflags = 0x202;
    start();
    one = halted_at(AT_SYSCALL) && vm.regs.rcx == CODE + 2 && vm.regs.r11 == 0x202 &&
          !(vm.regs.rflags & 0x200);
    if (!one)
        saw_exit("SYSCALL");
    right &= one;
    if (vendor_is_amd())
        return right; /* no SYSENTER in long mode */

    set_msr(0x174, KERNEL_CS);
    set_msr(0x175, STACK);
    set_msr(0x176, AT_SYSENTER);
    RUN(USER, sysenter);
    one = halted_at(AT_SYSENTER) && vm.regs.rsp == STACK;
    if (!one)
        saw_exit("SYSENTER");
    return right & one;
}

static bool claim_user_flags(void)
{
    PREPARE(USER, flags);
    vm.regs.rflags = 0x3002;
    start();
    saw_exit("PUSHF, POP RAX, OUT with RFLAGS 0x3002");
    return !vm.error && vm.run->exit_reason == KVM_EXIT_IO && vm.run->io.port == 0x99 &&
           (vm.regs.rax & 0x3200) == 0x3000;
}

static bool same_leaf(enum mode mode, uint32_t leaf, uint32_t ebx, uint32_t ecx)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        if (e->function != leaf || e->index)
            continue;
        PREPARE(mode, cpuid);
        vm.regs.rax = leaf;
        start();
        if (handler(6) && !((e->ebx ^ vm.regs.rbx) & ebx) && !((e->ecx ^ vm.regs.rcx) & ecx))
            continue;
        saw_exit("CPUID");
        saw("leaf %#x at %s: EBX %08x ECX %08x set, EBX %08llx ECX %08llx read", leaf,
            cpl_name(mode), e->ebx, e->ecx, (unsigned long long)vm.regs.rbx,
            (unsigned long long)vm.regs.rcx);
        return false;
    }
    return true;
}

/* But for MWAIT, OSXSAVE and OSPKE, which follow other registers. */
static bool claim_cpuid(void)
{
    return same_leaf(KERNEL, 1, 0, ~0x8000008u) && same_leaf(USER, 1, 0, ~0x8000008u) &&
           same_leaf(KERNEL, 7, ~0u, ~0x10u);
}

static bool claim_tsc_offset(void)
{
    const uint64_t set = UINT64_C(1) << 60;
    bool right = true;

    set_msr(0x10, set);
    for (enum mode mode = KERNEL; mode <= USER; mode++) {
        RUN(mode, rdtsc);

        uint64_t tsc = vm.regs.rdx << 32 | vm.regs.rax;
        bool one = handler(6) && tsc - set < UINT64_C(1) << 44;

        if (!one)
            saw_exit(cpl_name(mode));
        saw("%s: %#llx set, %#llx read", cpl_name(mode), (unsigned long long)set,
            (unsigned long long)tsc);
        right &= one;
    }
    return right;
}

static bool claim_stale_tables(void)
{
    const uint64_t before = 0x1111, after = 0x2222;

    poke(DATA, before, 8);
    poke(OTHER_DATA, after, 8);
    for (enum mode mode = KERNEL; mode <= USER; mode++) {
        RUN(mode, load);
        if (!handler(6) || vm.regs.rax != before) {
            saw_exit(cpl_name(mode));
            return false;
        }
    }
    poke(PT + ALIAS / 512, OTHER_DATA | 7, 8);
    PREPARE(KERNEL, flush);
    vm.regs.rsp = STACK - 40;
    poke(STACK - 40, CODE + (uint32_t)(guest_flush_end - guest_flush) - 10, 8);
    poke(STACK - 32, USER_CS, 8);
    poke(STACK - 24, 2, 8);
    poke(STACK - 16, USER_SP, 8);
    poke(STACK - 8, USER_SS, 8);
    start();
    saw_exit("MOV CR3, INVLPG, load RBX at CPL 0, load RAX at CPL 3, 0x2222 there");
    return handler(6) && vm.regs.rbx == after && vm.regs.rax == after;
}

static bool set_debug(uint32_t control, uint64_t address, uint64_t dr7)
{
    struct kvm_guest_debug debug = {
        .control = control | KVM_GUESTDBG_ENABLE,
        .arch.debugreg = {[0] = address, [7] = dr7},
    };

    if (!ioctl(vm.cpu, KVM_SET_GUEST_DEBUG, &debug))
        return true;
    saw("KVM_SET_GUEST_DEBUG: %s", strerror(errno));
    return false;
}

static bool stopped_at(uint64_t rip)
{
    return !vm.error && vm.run->exit_reason == KVM_EXIT_DEBUG && vm.regs.rip == rip;
}

static bool has_debug(void)
{
    return ioctl(dev, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG) > 0;
}

static bool claim_step(void)
{
    bool right = true;

    if (!has_debug())
        return true;
    for (enum mode mode = KERNEL; mode <= USER; mode++) {
        bool one;

        PREPARE(mode, nops);
        load();
        /* KVM steps from the RIP at which it is told to. */
        if (!set_debug(KVM_GUESTDBG_SINGLESTEP, 0, 0))
            return false;
        go();
        one = stopped_at(CODE + 1);
        if (one) {
            go();
            one = stopped_at(CODE + 2);
        }
        saw_exit(cpl_name(mode));
        right &= one;
    }
    return right;
}

static bool claim_breakpoint(void)
{
    bool right = true;

    if (!has_debug())
        return true;
    if (!set_debug(KVM_GUESTDBG_USE_HW_BP, CODE + 1, 0x402))
        return false;
    for (enum mode mode = KERNEL; mode <= USER; mode++) {
        RUN(mode, nops);
        saw_exit(cpl_name(mode));
        right &= stopped_at(CODE + 1);
    }
    return right;
}

static bool claim_watchpoint(void)
{
    bool right = true;

    if (!has_debug())
        return true;
    if (!set_debug(KVM_GUESTDBG_USE_HW_BP, DATA, 0xd0402))
        return false;
    for (enum mode mode = KERNEL; mode <= USER; mode++) {
        RUN(mode, store);
        saw_exit(cpl_name(mode));
        right &= stopped_at(CODE + 7);
    }
    return right;
}

static bool claim_emulation(void)
{
    static const struct {
        const char *name;
        const uint8_t *start, *end;
        uint32_t vector;
    } insns[] = {
        {"PXOR", guest_sse, guest_sse_end, 6},
        {"FLD1, FWAIT", guest_x87, guest_x87_end, 6},
        {"STMXCSR", guest_mxcsr, guest_mxcsr_end, 6},
        {"CMPXCHG16B", guest_cmpxchg16b, guest_cmpxchg16b_end, 6},
        {"LAR", guest_lar, guest_lar_end, 6},
        {"INT3", guest_int3, guest_int3_end, 3},
        {"INT 30H", guest_int30, guest_int30_end, 0x30},
    };
    bool right = true;

    for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]); i++) {
        prepare(KERNEL, insns[i].start, insns[i].end);
        vm.regs.rdx = KERNEL_CS;
        start();
        if (handler(insns[i].vector))
            continue;
        saw("%s: %s", insns[i].name, exit_name());
        right = false;
    }
    return right;
}

static bool claim_hypercall(void)
{
    if (vendor_is_amd())
        PREPARE(KERNEL, vmmcall);
    else
        PREPARE(KERNEL, vmcall);
    vm.regs.rax = 0x7fff;
    start();
    saw_exit(vendor_is_amd() ? "VMMCALL, UD2" : "VMCALL, UD2");
    return handler(6);
}

/* The window opens behind the instruction after STI, each time. */
static bool claim_window(void)
{
    for (int i = 0; i < 4; i++) {
        vm.run->request_interrupt_window = 1;
        RUN(KERNEL, window);
        vm.run->request_interrupt_window = 0;
        saw_exit("STI, NOP, NOP, NOP, CLI, UD2");
        if (vm.error || vm.run->exit_reason != KVM_EXIT_IRQ_WINDOW_OPEN || vm.regs.rip < CODE + 2 ||
            vm.regs.rip > CODE + 4)
            return false;
    }
    return true;
}

/* With local APICs in the kernel: an interrupt is in service from its delivery to its EOI. */
static bool claim_in_service(void)
{
    const struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    const struct kvm_msi msi = {.address_lo = 0xfee00000, .data = 0x40};
    const uint32_t enable = 0x1ff;
    struct kvm_lapic_state apic;
    uint32_t isr;

    close_vm();
    irqchip = &split;
    open_vm();
    irqchip = NULL;
    memset(vm.mem + HANDLERS, 0xee, 0x1000); /* OUT: the kernel keeps HLT */
    must(ioctl(vm.cpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");
    memcpy(apic.regs + 0xf0, &enable, 4);
    must(ioctl(vm.cpu, KVM_SET_LAPIC, &apic), "KVM_SET_LAPIC");
    must(ioctl(vm.fd, KVM_SIGNAL_MSI, &msi), "KVM_SIGNAL_MSI");
    PREPARE(KERNEL, loop);
    vm.regs.rflags |= 0x200;
    vm.regs.rcx = 100000;
    start();
    must(ioctl(vm.cpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");
    memcpy(&isr, apic.regs + 0x100 + 0x40 / 32 * 16, 4);
    saw("vector 0x40: %s at RIP %#llx, ISR 0x40-0x5f %#x", exit_name(),
        (unsigned long long)vm.regs.rip, isr);
    return !vm.error && vm.run->exit_reason == KVM_EXIT_IO && (isr & 1);
}

static double loop_ns(enum mode mode, uint64_t rounds)
{
    double best = 1e9;

    for (int i = 0; i < 5; i++) {
        struct timespec a, b;

        PREPARE(mode, loop);
        vm.regs.rcx = rounds;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        start();
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);

        double ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);

        if (ns < best)
            best = ns;
    }
    return best;
}

static double insn_ns(enum mode mode, uint64_t rounds)
{
    double empty = loop_ns(mode, 1), full = loop_ns(mode, rounds);

    /* At most so much, where it is lost in noise. */
    return (full > empty ? full - empty : full) / (double)rounds / 8;
}

static bool claim_slow_kernel(void)
{
    double ns[2] = {0};

    /* What looks slow may have been disturbed. */
    for (int tries = 0; tries < 3; tries++) {
        for (enum mode mode = KERNEL; mode <= USER; mode++) {
            double *at = &ns[mode == USER];

            *at = insn_ns(mode, 500);
            if (*at < 100)
                *at = insn_ns(mode, 100000);
        }
        if (ns[0] < 20 * ns[1])
            break;
    }
    saw("CPL 0: %.2f ns per instruction; CPL 3: %.2f ns", ns[0], ns[1]);
    return ns[0] < 20 * ns[1];
}

static const struct {
    const char *name;
    bool (*right)(void);
} claims[] = {
    {"REAL", claim_real},
    {"PROTECTED", claim_protected},
    {"PAGING32", claim_paging32},
    {"PAE", claim_pae},
    {"COMPAT", claim_compat},
    {"USER_EVENTS", claim_user_events},
    {"USER_FLAGS", claim_user_flags},
    {"CPUID", claim_cpuid},
    {"TSC_OFFSET", claim_tsc_offset},
    {"STALE_TABLES", claim_stale_tables},
    {"STEP", claim_step},
    {"BREAKPOINT", claim_breakpoint},
    {"WATCHPOINT", claim_watchpoint},
    {"EMULATION", claim_emulation},
    {"HYPERCALL", claim_hypercall},
    {"SLOW_KERNEL", claim_slow_kernel},
    {"WINDOW", claim_window},
    {"IN_SERVICE", claim_in_service},
};

/* A table with fewer features than KVM has. */
static void get_cpuid(void)
{
    cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
    if (!cpuid)
        die("calloc");
    cpuid->nent = 256;
    must(ioctl(dev, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        if (e->function == 1)
            e->ecx &= ~0x1c900201u; /* SSE3, SSSE3, SSE4.2, POPCNT, XSAVE, OSXSAVE, AVX */
        else if (e->function == 7)
            e->ebx = e->ecx = e->edx = 0;
        else if (e->function == 0xd)
            e->eax = e->ebx = e->ecx = e->edx = 0;
    }
}

int main(void)
{
    struct sigaction alarm_action = {.sa_handler = on_alarm};

    dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (dev < 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return 77;
    }
    if (ioctl(dev, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
        printf("skipped: not KVM API %d\n", KVM_API_VERSION);
        return 77;
    }
    sigaction(SIGALRM, &alarm_action, NULL);
    run_size = (size_t)must(ioctl(dev, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    get_cpuid();
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        evidence[0] = 0;
        open_vm();
        printf("%s %s", claims[i].name, claims[i].right() ? "right" : "wrong");
        printf("  %s\n", evidence);
        close_vm();
    }
    free(cpuid);
    close(dev);
    return 0;
}
