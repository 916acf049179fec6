/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/probe_lab.c: the VM in which the probe's small guests run. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/kvm/probe.h"

/* Any other address will do that no guest uses; on Intel hosts without unrestricted guest KVM needs
 * four pages. */
#define TSS_ADDRESS      0xfffbd000u
#define IDENTITY_ADDRESS 0xfffbc000u

/* CPU time that a guest may take: thousands of times what is needed where KVM works, since it must
 * be enough also when that is a VM in a VM whose own host is busy. */
#define GUEST_LIMIT_NS UINT64_C(1000000000)
/* Time on the clock: for one that sleeps in the kernel. */
#define GUEST_SLEEP_NS UINT64_C(5000000000)
/* The watch strikes after a quarter of the limit, and then each time after twice the time before:
 * KVM_RUN may need some of it before it gets to the guest. A guest hangs only if it has been struck
 * so often: a host that did not run us for a while looks like one strike. */
#define STRIKES 3

#define KERNEL_SIGSET 8u /* bytes */
#define NS_PER_S      UINT64_C(1000000000)

/* ---- system calls ---- */

int lab_ioctl(struct kvm_lab *lab, int fd, unsigned long request, const void *arg, const char *name)
{
    int r = kvm_ioctl_p(fd, request, arg);

    if (r == -ENOMEM)
        kvm_probe_refuse_errno(lab->host, ENOMEM, name);
    return r;
}

/* For steps without which there is no guest. */
static int need(struct kvm_lab *lab, int fd, unsigned long request, uintptr_t arg, const char *name)
{
    int r = kvm_ioctl(fd, request, arg);

    if (r < 0)
        kvm_probe_refuse_errno(lab->host, -r, name);
    return r;
}

int lab_set_msr(struct kvm_lab *lab, uint32_t index, uint64_t value)
{
    union {
        struct kvm_msrs msrs;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } set = {.msrs.nmsrs = 1};
    int r;

    set.msrs.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
    r = lab_ioctl(lab, lab->cpu, KVM_SET_MSRS, &set, "KVM_SET_MSRS");

    return r < 0 ? r : r == 1 ? 0 : -EINVAL;
}

/* ---- the watch ---- */

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void only_sigurg(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGURG);
}

/* Takes the watch's signals, and keeps one that is not its own for later. Whether it struck. */
static bool drain(struct kvm_lab *lab)
{
    const struct timespec at_once = {0};
    bool struck = false;
    siginfo_t info;
    sigset_t set;

    only_sigurg(&set);
    while (sigtimedwait(&set, &info, &at_once) == SIGURG) {
        if (info.si_code == SI_TIMER && info.si_value.sival_ptr == lab) {
            struck = true;
            continue;
        }
        lab->foreign = info;
        lab->has_foreign = true;
    }
    return struck;
}

static int open_watch(struct kvm_lab *lab)
{
    union {
        struct kvm_signal_mask mask;
        uint8_t room[sizeof(struct kvm_signal_mask) + KERNEL_SIGSET];
    } run = {.mask.len = KERNEL_SIGSET};
    struct sigevent event = {
        .sigev_notify = SIGEV_THREAD_ID,
        .sigev_signo = SIGURG,
        .sigev_value.sival_ptr = lab,
    };
    sigset_t set;
    int err;

    only_sigurg(&set);
    err = pthread_sigmask(SIG_BLOCK, &set, &lab->old_mask);
    if (err)
        return kvm_probe_refuse_errno(lab->host, err, "pthread_sigmask");
    lab->masked = true;

    /* Inside KVM_RUN: what the thread had, but this signal. The kernel's set is the beginning of
     * the library's. */
    set = lab->old_mask;
    sigdelset(&set, SIGURG);
    memcpy(run.mask.sigset, &set, KERNEL_SIGSET);
    if (need(lab, lab->cpu, KVM_SET_SIGNAL_MASK, (uintptr_t)&run, "KVM_SET_SIGNAL_MASK") < 0)
        return lab->host->result;

    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &event, &lab->timer))
        return kvm_probe_refuse_errno(lab->host, errno, "timer_create");
    lab->has_timer = true;
    return 0;
}

/* 0 stops it. What a timer is set to cannot be refused. */
static void set_watch(struct kvm_lab *lab, uint64_t ns)
{
    const struct itimerspec once = {
        .it_value = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)},
    };

    timer_settime(lab->timer, 0, &once, NULL);
}

static void close_watch(struct kvm_lab *lab)
{
    if (lab->has_timer)
        timer_delete(lab->timer);
    if (!lab->masked)
        return;
    drain(lab);
    if (lab->has_foreign && lab->foreign.si_code == SI_TKILL)
        syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGURG, &lab->foreign);
    else if (lab->has_foreign)
        syscall(SYS_rt_sigqueueinfo, getpid(), SIGURG, &lab->foreign);
    pthread_sigmask(SIG_SETMASK, &lab->old_mask, NULL);
}

/* ---- memory ---- */

void lab_poke(struct kvm_lab *lab, uint32_t addr, uint64_t value)
{
    memcpy(lab->mem + addr, &value, sizeof(value));
}

uint64_t lab_peek(const struct kvm_lab *lab, uint32_t addr)
{
    uint64_t value;

    memcpy(&value, lab->mem + addr, sizeof(value));
    return value;
}

static void poke32(struct kvm_lab *lab, uint32_t addr, uint32_t value)
{
    memcpy(lab->mem + addr, &value, sizeof(value));
}

#define PML4   0x1000u
#define PDPT   0x2000u
#define PD     0x3000u
#define PD32   0x5000u
#define PDPT32 0x6000u /* of PAE */
#define PDPAE  0x7000u
#define GDT    0x8000u
#define TSS    0x8100u
#define IDT    0x9000u

#define PTE_KERNEL 3u
#define PTE_LARGE  0x80u

static void write_tables(struct kvm_lab *lab)
{
    lab_poke(lab, PML4, PDPT | LAB_PTE_USER);
    lab_poke(lab, PDPT, PD | LAB_PTE_USER);
    lab_poke(lab, PD, LAB_PT | LAB_PTE_USER);
    for (uint32_t page = 0; page < LAB_SIZE; page += 0x1000)
        lab_poke(lab, LAB_PT + page / 0x1000 * 8,
                 page | (page < LAB_CODE ? PTE_KERNEL : LAB_PTE_USER));
    lab_poke(lab, LAB_ALIAS_PTE, LAB_DATA | LAB_PTE_USER);

    poke32(lab, PD32, LAB_PTE_USER | PTE_LARGE);
    poke32(lab, PD32 + (LAB_ALIAS32 >> 22) * 4, LAB_PTE_USER | PTE_LARGE);
    lab_poke(lab, PDPT32, PDPAE | 1u);
    lab_poke(lab, PDPAE, LAB_PTE_USER | PTE_LARGE);
    lab_poke(lab, PDPAE + (LAB_ALIAS32 >> 21) * 8, LAB_PTE_USER | PTE_LARGE);
}

static void write_descriptors(struct kvm_lab *lab)
{
    static const uint64_t gdt[] = {
        0,
        0x00af9b000000ffff, /* 08: 64-bit code */
        0x00cf93000000ffff, /* 10: data */
        0x00cf9b000000ffff, /* 18: 32-bit code */
        0x00cffb000000ffff, /* 20: 32-bit code of CPL 3 */
        0x00cff3000000ffff, /* 28: data */
        0x00affb000000ffff, /* 30: 64-bit code */
        0x00008b0000000067 | (uint64_t)TSS << 16,
        0, /* 38: TSS */
    };

    memcpy(lab->mem + GDT, gdt, sizeof(gdt));
    lab_poke(lab, TSS + 4, LAB_STACK);  /* RSP0 */
    poke32(lab, TSS + 0x64, 0x680000u); /* no I/O bitmap: behind the limit */
    for (uint32_t vector = 0; vector < 256; vector++) {
        /* 64-bit interrupt gate that CPL 3 may call. */
        lab_poke(lab, IDT + vector * 16,
                 (LAB_STUBS + vector) | LAB_CS << 16 | UINT64_C(0xee00) << 32);
        lab_poke(lab, IDT + vector * 16 + 8, 0);
        /* Real mode. */
        poke32(lab, vector * 4, (LAB_STUBS / 16) << 16 | vector);
    }
    memset(lab->mem + LAB_STUBS, lab->irqchip ? 0xee : 0xf4, 0x1000); /* OUT DX, AL; HLT */
}

/* ---- the VM ---- */

static int create_vm(struct kvm_lab *lab, int dev)
{
    int version = need(lab, dev, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
    uint64_t identity = IDENTITY_ADDRESS;

    if (version < 0)
        return lab->host->result;
    lab->vm = version;
    /* Not on all hosts, and not needed on all. */
    lab_ioctl(lab, lab->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity, "KVM_SET_IDENTITY_MAP_ADDR");
    if (kvm_ioctl(lab->vm, KVM_SET_TSS_ADDR, TSS_ADDRESS) == -ENOMEM)
        kvm_probe_refuse_errno(lab->host, ENOMEM, "KVM_SET_TSS_ADDR");
    return lab->host->result;
}

static int create_irqchip(struct kvm_lab *lab)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};

    if (lab->irqchip == LAB_IRQ_SPLIT)
        need(lab, lab->vm, KVM_ENABLE_CAP, (uintptr_t)&split, "KVM_CAP_SPLIT_IRQCHIP");
    else if (lab->irqchip == LAB_IRQ_KERNEL)
        need(lab, lab->vm, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
    return lab->host->result;
}

static int create_memory(struct kvm_lab *lab)
{
    struct kvm_userspace_memory_region slot = {.memory_size = LAB_SIZE};
    void *mem = mmap(NULL, LAB_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (mem == MAP_FAILED)
        return kvm_probe_refuse_errno(lab->host, errno, "mmap of guest memory");
    lab->mem = mem;
    slot.userspace_addr = (uintptr_t)mem;
    write_tables(lab);
    write_descriptors(lab);
    need(lab, lab->vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&slot, "KVM_SET_USER_MEMORY_REGION");
    return lab->host->result;
}

static int create_vcpu(struct kvm_lab *lab)
{
    void *run;
    int fd = need(lab, lab->vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");

    if (fd < 0)
        return lab->host->result;
    lab->cpu = fd;
    run = mmap(NULL, lab->host->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED)
        return kvm_probe_refuse_errno(lab->host, errno, "mmap of kvm_run");
    lab->run = run;
    need(lab, fd, KVM_GET_SREGS, (uintptr_t)&lab->initial, "KVM_GET_SREGS");
    return lab->host->result;
}

/* Takes features away that nothing here needs. */
static void reduce(struct kvm_cpuid_entry2 *entry)
{
    if (entry->function == 1)
        entry->ecx &= ~0x1c900201u; /* SSE3, SSSE3, SSE4.2, POPCNT, XSAVE, OSXSAVE, AVX */
    else if (entry->function == 7)
        entry->ebx = entry->ecx = entry->edx = 0;
    else if (entry->function == 0xd)
        entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
}

static int set_cpuid(struct kvm_lab *lab)
{
    const struct kvm_cpuid2 *all = lab->host->supported;
    size_t size = sizeof(*all) + all->nent * sizeof(all->entries[0]);

    lab->cpuid = malloc(size);
    if (!lab->cpuid)
        return kvm_probe_refuse_errno(lab->host, ENOMEM, "no memory for the CPUID table");
    memcpy(lab->cpuid, all, size);
    for (uint32_t i = 0; i < all->nent; i++)
        reduce(&lab->cpuid->entries[i]);
    need(lab, lab->cpu, KVM_SET_CPUID2, (uintptr_t)lab->cpuid, "KVM_SET_CPUID2");
    return lab->host->result;
}

const struct kvm_cpuid_entry2 *lab_cpuid(const struct kvm_lab *lab, uint32_t function)
{
    for (uint32_t i = 0; i < lab->cpuid->nent; i++)
        if (lab->cpuid->entries[i].function == function && !lab->cpuid->entries[i].index)
            return &lab->cpuid->entries[i];
    return NULL;
}

int lab_open(struct kvm_lab *lab, int dev, struct kvm_host *host, enum lab_irqchip irqchip)
{
    memset(lab, 0, sizeof(*lab));
    lab->host = host;
    lab->irqchip = irqchip;
    lab->vm = lab->cpu = -1;
    lab->limit_ns = GUEST_LIMIT_NS;
    /* Controllers before memory: KVM waits for a grace period when it adds their bus ranges, and a
     * longer one when it tears them down with memory slots older than them. */
    if (create_vm(lab, dev) || create_irqchip(lab) || create_memory(lab) || create_vcpu(lab) ||
        set_cpuid(lab) || open_watch(lab))
        return host->result;
    return 0;
}

void lab_close(struct kvm_lab *lab)
{
    close_watch(lab);
    if (lab->run)
        munmap(lab->run, lab->host->run_size);
    if (lab->cpu >= 0)
        close(lab->cpu);
    if (lab->vm >= 0)
        close(lab->vm);
    if (lab->mem)
        munmap(lab->mem, LAB_SIZE);
    free(lab->cpuid);
}

/* ---- states ---- */

#define CR0_PE   0x1u
#define CR0_ET   0x10u
#define CR0_NE   0x20u
#define CR0_PG   0x80000000u
#define CR4_PSE  0x10u
#define CR4_PAE  0x20u
#define CR4_SSE  0x600u /* OSFXSR, OSXMMEXCPT */
#define EFER_SCE 0x1u
#define EFER_LM  0x500u /* LME, LMA */

static const struct {
    uint32_t cr0, cr3, cr4, efer;
    uint16_t cs, ss;
    uint32_t rsp;
} modes[] = {
    [LAB_REAL] = {CR0_ET, 0, 0, 0, LAB_CODE / 16, (LAB_STACK - 0x1000) / 16, 0x1000},
    [LAB_PROTECTED] = {CR0_PE | CR0_ET | CR0_NE, 0, 0, 0, 0x18, 0x10, LAB_STACK},
    [LAB_PAGING32] = {CR0_PE | CR0_ET | CR0_NE | CR0_PG, PD32, CR4_PSE, 0, 0x18, 0x10, LAB_STACK},
    [LAB_PAE] = {CR0_PE | CR0_ET | CR0_NE | CR0_PG, PDPT32, CR4_PAE, 0, 0x18, 0x10, LAB_STACK},
    [LAB_COMPAT] = {CR0_PE | CR0_ET | CR0_NE | CR0_PG, PML4, CR4_PAE, EFER_LM | EFER_SCE, 0x18,
                    0x10, LAB_STACK},
    [LAB_COMPAT_USER] = {CR0_PE | CR0_ET | CR0_NE | CR0_PG, PML4, CR4_PAE, EFER_LM | EFER_SCE,
                         LAB_USER_CS32, LAB_USER_SS, LAB_USTACK},
    [LAB_KERNEL] = {CR0_PE | CR0_ET | CR0_NE | CR0_PG, PML4, CR4_PAE | CR4_SSE, EFER_LM | EFER_SCE,
                    LAB_CS, 0x10, LAB_STACK},
    [LAB_USER] = {CR0_PE | CR0_ET | CR0_NE | CR0_PG, PML4, CR4_PAE | CR4_SSE, EFER_LM | EFER_SCE,
                  LAB_USER_CS, LAB_USER_SS, LAB_USTACK},
};

static struct kvm_segment segment(uint16_t selector, bool code)
{
    return (struct kvm_segment){
        .limit = 0xffffffff,
        .selector = selector,
        .type = code ? 11 : 3, /* accessed */
        .present = 1,
        .dpl = selector & 3,
        .db = 1,
        .s = 1,
        .g = 1,
    };
}

static struct kvm_segment real_segment(uint16_t selector, bool code)
{
    return (struct kvm_segment){
        .base = selector * 16u,
        .limit = 0xffff,
        .selector = selector,
        .type = code ? 11 : 3,
        .present = 1,
        .s = 1,
    };
}

void lab_prepare(struct kvm_lab *lab, enum lab_mode mode, const void *code, size_t len)
{
    bool real = mode == LAB_REAL;
    struct kvm_segment (*make)(uint16_t, bool) = real ? real_segment : segment;
    struct kvm_sregs *s = &lab->sregs;

    memcpy(lab->mem + LAB_CODE, code, len);
    lab->regs = (struct kvm_regs){
        .rip = real ? 0 : LAB_CODE,
        .rsp = modes[mode].rsp,
        .rflags = 2,
    };
    if (lab->irqchip)
        lab->regs.rdx = LAB_PORT;

    *s = lab->initial;
    s->cs = make(modes[mode].cs, true);
    if (mode == LAB_KERNEL || mode == LAB_USER) {
        s->cs.l = 1;
        s->cs.db = 0;
    }
    s->ss = make(modes[mode].ss, false);
    s->ds = s->es = s->fs = s->gs = make(real ? 0 : modes[mode].ss, false);
    s->gdt = (struct kvm_dtable){.base = GDT, .limit = 0x47};
    s->idt = (struct kvm_dtable){.base = real ? 0 : IDT, .limit = real ? 0x3ff : 0xfff};
    s->tr = (struct kvm_segment){
        .base = TSS, .limit = 0x67, .selector = 0x38, .type = 11, .present = 1};
    s->ldt = (struct kvm_segment){.unusable = 1};
    s->cr0 = modes[mode].cr0;
    s->cr2 = 0;
    s->cr3 = modes[mode].cr3;
    s->cr4 = modes[mode].cr4;
    s->efer = modes[mode].efer;
}

/* ---- running ---- */

static void fail(struct kvm_lab *lab, int negative_errno)
{
    lab->exit = LAB_EXIT_ERROR;
    lab->run_errno = -negative_errno;
}

/* KVM_RUN until an exit, the limit or an error. */
static void enter(struct kvm_lab *lab)
{
    uint64_t start_cpu = now_ns(CLOCK_THREAD_CPUTIME_ID), start = now_ns(CLOCK_MONOTONIC);
    uint64_t watch = lab->limit_ns / 4;
    int err;

    set_watch(lab, watch);
    for (unsigned strikes = 0;;) {
        err = ioctl(lab->cpu, KVM_RUN, 0) ? errno : 0;
        lab->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - start_cpu;
        if (!err && lab->run->exit_reason == KVM_EXIT_INTR)
            err = EINTR;
        if (err != EINTR && err != EAGAIN)
            break;
        if (drain(lab)) {
            strikes++;
            watch *= 2;
            set_watch(lab, watch);
        }
        if ((strikes >= STRIKES && lab->cpu_ns > lab->limit_ns) ||
            now_ns(CLOCK_MONOTONIC) - start > GUEST_SLEEP_NS)
            break;
    }
    set_watch(lab, 0);
    drain(lab);
    lab->run_errno = 0;
    if (!err)
        lab->exit = lab->run->exit_reason;
    else if (err == EINTR || err == EAGAIN)
        lab->exit = LAB_EXIT_HANG;
    else
        fail(lab, -err);
    if (err == ENOMEM)
        kvm_probe_refuse_errno(lab->host, ENOMEM, "KVM_RUN");
}

/* Lets KVM finish the instruction of an I/O exit, so that RIP is behind it. */
static void complete(struct kvm_lab *lab)
{
    lab->run->immediate_exit = 1;
    if (ioctl(lab->cpu, KVM_RUN, 0) && errno == ENOMEM)
        kvm_probe_refuse_errno(lab->host, ENOMEM, "KVM_RUN");
    lab->run->immediate_exit = 0;
}

void lab_continue(struct kvm_lab *lab)
{
    int r;

    if (lab->host->result)
        return;
    enter(lab);
    if (lab->exit == KVM_EXIT_IO)
        complete(lab);
    r = lab_ioctl(lab, lab->cpu, KVM_GET_REGS, &lab->regs, "KVM_GET_REGS");
    if (r >= 0)
        r = lab_ioctl(lab, lab->cpu, KVM_GET_SREGS, &lab->sregs, "KVM_GET_SREGS");
    if (r < 0)
        fail(lab, r);
}

bool lab_load(struct kvm_lab *lab)
{
    const struct kvm_vcpu_events none = {0};
    int r;

    if (lab->host->result)
        return false;
    /* What the guest before has left; then the state, which is checked as a whole. */
    r = lab_ioctl(lab, lab->cpu, KVM_SET_VCPU_EVENTS, &none, "KVM_SET_VCPU_EVENTS");
    if (r >= 0)
        r = lab_ioctl(lab, lab->cpu, KVM_SET_SREGS, &lab->sregs, "KVM_SET_SREGS");
    if (r >= 0)
        r = lab_ioctl(lab, lab->cpu, KVM_SET_REGS, &lab->regs, "KVM_SET_REGS");
    if (r < 0)
        fail(lab, r);
    return r >= 0;
}

void lab_run(struct kvm_lab *lab)
{
    if (lab_load(lab))
        lab_continue(lab);
}

bool lab_arrived_at(const struct kvm_lab *lab, uint64_t address)
{
    uint32_t exit = lab->irqchip ? KVM_EXIT_IO : KVM_EXIT_HLT;

    return lab->exit == exit && lab->sregs.cs.base + lab->regs.rip == address + 1 &&
           !(lab->sregs.cr0 & CR0_PE ? lab->sregs.cs.selector & 3 : 0);
}

bool lab_arrived(const struct kvm_lab *lab, uint32_t vector)
{
    return lab_arrived_at(lab, LAB_STUBS + vector);
}

uint64_t lab_stack(const struct kvm_lab *lab, unsigned i)
{
    uint64_t addr = lab->regs.rsp + i * 8;

    return addr <= LAB_SIZE - 8 ? lab_peek(lab, (uint32_t)addr) : 0;
}
