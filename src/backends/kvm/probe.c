/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/probe.c: what the host's KVM has, and whether it is good enough. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/kvm/probe.h"
#include "backends/kvm/uapi.h"

#define DEVICE "/dev/kvm"

/* ---- results ---- */

int kvm_probe_refuse(struct kvm_host *host, int result, int os_errno, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(host->reason, sizeof(host->reason), format, args);
    va_end(args);
    host->result = result;
    host->os_errno = os_errno;
    return result;
}

int kvm_probe_refuse_errno(struct kvm_host *host, int os_errno, const char *what)
{
    char text[96];

    return kvm_probe_refuse(host, kvm_error(os_errno), os_errno, "%s: %s", what,
                            strerror_r(os_errno, text, sizeof(text)));
}

/* ---- the device ---- */

/* The device's descriptor, or -1 and why not. */
static int open_device(struct kvm_host *host)
{
    int result, fd = kvm_open(&result);

    if (fd >= 0)
        return fd;
    switch (-fd) {
    case ENOENT:
        kvm_probe_refuse(host, result, -fd, "there is no " DEVICE);
        break;
    case EACCES:
    case EPERM:
        kvm_probe_refuse(host, result, -fd, "no permission to open " DEVICE);
        break;
    case ENOTTY:
        kvm_probe_refuse(host, result, -fd, DEVICE " is not a KVM device");
        break;
    case ENOTSUP:
        kvm_probe_refuse(host, result, -fd, DEVICE " has an API version other than %d",
                         KVM_API_VERSION);
        break;
    default:
        kvm_probe_refuse_errno(host, -fd, DEVICE " cannot be opened");
    }
    return -1;
}

/* ---- capabilities ---- */

static const struct {
    const char *name;
    int cap;
    uint32_t bits; /* all of these have to be set in the answer; 0: any but 0 will do */
    uint32_t has;  /* KVM_HAS_* */
    bool required; /* the engine does not work without it */
} caps[] = {
#define CAP(name, ...)                                                                             \
    {                                                                                              \
#name, KVM_CAP_##name, __VA_ARGS__                                                         \
    }
    CAP(USER_MEMORY, 0, 0, true),
    CAP(EXT_CPUID, 0, 0, true),
    CAP(VCPU_EVENTS, 0, KVM_HAS_VCPU_EVENTS, true),
    CAP(DEBUGREGS, 0, KVM_HAS_DEBUGREGS, true),
    CAP(XSAVE, 0, KVM_HAS_XSAVE, true),
    CAP(READONLY_MEM, 0, KVM_HAS_READONLY_MEM, true),
    /* Completes an instruction without running the next. */
    CAP(IMMEDIATE_EXIT, 0, KVM_HAS_IMMEDIATE_EXIT, true),
    /* The library holds most MSRs, and the program's policies are for all of them. */
    CAP(X86_USER_SPACE_MSR, 0, KVM_HAS_USER_MSR, true),
    CAP(X86_MSR_FILTER, 0, KVM_HAS_MSR_FILTER, true),
    CAP(SYNC_REGS, KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS, KVM_HAS_SYNC_REGS,
        false),
    CAP(XCRS, 0, KVM_HAS_XCRS, false),
    CAP(XSAVE2, 0, KVM_HAS_XSAVE2, false),
    CAP(IRQCHIP, 0, KVM_HAS_IRQCHIP, false),
    CAP(SPLIT_IRQCHIP, 0, KVM_HAS_SPLIT_IRQCHIP, false),
    CAP(IRQFD, 0, KVM_HAS_IRQFD, false),
    CAP(IRQFD_RESAMPLE, 0, KVM_HAS_IRQFD_RESAMPLE, false),
    CAP(IOEVENTFD, 0, KVM_HAS_IOEVENTFD, false),
    CAP(IOEVENTFD_ANY_LENGTH, 0, KVM_HAS_IOEVENTFD_ANY, false),
    CAP(COALESCED_MMIO, 0, KVM_HAS_COALESCED_MMIO, false),
    CAP(COALESCED_PIO, 0, KVM_HAS_COALESCED_PIO, false),
    CAP(SIGNAL_MSI, 0, KVM_HAS_SIGNAL_MSI, false),
    CAP(X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
        KVM_HAS_X2APIC_API, false),
    CAP(DIRTY_LOG_RING_ACQ_REL, 0, KVM_HAS_DIRTY_RING, false),
    CAP(MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_HAS_MANUAL_DIRTY,
        false),
    CAP(TSC_CONTROL, 0, KVM_HAS_TSC_CONTROL, false),
    CAP(SET_GUEST_DEBUG, 0, KVM_HAS_GUEST_DEBUG, false),
    CAP(KVMCLOCK_CTRL, 0, KVM_HAS_KVMCLOCK_CTRL, false),
    CAP(EXIT_ON_EMULATION_FAILURE, 0, KVM_HAS_EXIT_ON_EMUL, false),
    CAP(MULTI_ADDRESS_SPACE, 0, KVM_HAS_MULTI_ADDRESS, false),
#undef CAP
};

/* The answer to KVM_CHECK_EXTENSION; 0: no. An error is not an answer: host->result. */
static uint32_t check(struct kvm_host *host, int fd, int cap, const char *name)
{
    int r = kvm_ioctl(fd, KVM_CHECK_EXTENSION, (uintptr_t)cap);

    if (r >= 0)
        return (uint32_t)r;
    kvm_probe_refuse_errno(host, -r, name);
    return 0;
}
#define CHECK(host, fd, cap) check(host, fd, cap, "KVM_CHECK_EXTENSION of " #cap)

static int find_caps(struct kvm_host *host, int fd)
{
    for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
        uint32_t value = check(host, fd, caps[i].cap, "KVM_CHECK_EXTENSION");

        if (host->result)
            return host->result;
        if (value && (value & caps[i].bits) == caps[i].bits)
            host->has |= caps[i].has;
        else if (caps[i].required)
            return kvm_probe_refuse(host, VMM_E_UNSUPPORTED, 0, "this KVM has no KVM_CAP_%s",
                                    caps[i].name);
    }
    return 0;
}

/* Sizes and limits; where KVM does not tell, what its documentation says to assume. */
static int find_limits(struct kvm_host *host, int fd)
{
    int size = kvm_ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    uint32_t xsave;

    if (size < 0)
        return kvm_probe_refuse_errno(host, -size, "KVM_GET_VCPU_MMAP_SIZE");
    if ((size_t)size < sizeof(struct kvm_run))
        return kvm_probe_refuse(host, VMM_E_UNSUPPORTED, 0, "KVM_GET_VCPU_MMAP_SIZE says %d", size);
    host->run_size = (uint32_t)size;

    host->nslots = CHECK(host, fd, KVM_CAP_NR_MEMSLOTS);
    if (!host->nslots)
        host->nslots = 32;
    host->max_vcpus = CHECK(host, fd, KVM_CAP_MAX_VCPUS);
    if (!host->max_vcpus)
        host->max_vcpus = CHECK(host, fd, KVM_CAP_NR_VCPUS);
    if (!host->max_vcpus)
        host->max_vcpus = 4;
    if (host->has & KVM_HAS_DIRTY_RING)
        host->dirty_ring_bytes = CHECK(host, fd, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
    xsave = host->has & KVM_HAS_XSAVE2 ? CHECK(host, fd, KVM_CAP_XSAVE2) : 0;
    host->xsave_size =
        xsave > sizeof(struct kvm_xsave) ? xsave : (uint32_t)sizeof(struct kvm_xsave);
    return host->result;
}

#define CPUID_ENTRIES     256u  /* as many as KVM has ever had */
#define CPUID_ENTRIES_MAX 4096u /* more than any answer can be */

static int find_cpuid(struct kvm_host *host, int fd)
{
    int err = -E2BIG;

    for (uint32_t n = CPUID_ENTRIES; err == -E2BIG && n <= CPUID_ENTRIES_MAX; n *= 2) {
        free(host->supported);
        host->supported =
            calloc(1, sizeof(*host->supported) + n * sizeof(host->supported->entries[0]));
        if (!host->supported)
            return kvm_probe_refuse_errno(host, ENOMEM, "no memory for the CPUID table");
        host->supported->nent = n;
        err = kvm_ioctl(fd, KVM_GET_SUPPORTED_CPUID, (uintptr_t)host->supported);
    }
    if (err < 0)
        return kvm_probe_refuse_errno(host, -err, "KVM_GET_SUPPORTED_CPUID");

    host->gpa_bits = 36; /* of a CPU that has no leaf 0x80000008 */
    for (uint32_t i = 0; i < host->supported->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &host->supported->entries[i];

        if (entry->function != 0x80000008u)
            continue;
        /* GuestPhysAddrSize: what can be mapped, if that is less. */
        uint32_t mapped = entry->eax >> 16 & 0xff, bits = entry->eax & 0xff;

        host->gpa_bits = mapped && mapped < bits ? mapped : bits;
    }
    return 0;
}

/* ---- the verdict ---- */

static const struct {
    uint32_t bad;
    const char *name;
} bad_names[] = {
    {KVM_BAD_REAL, "real mode"},
    {KVM_BAD_PROTECTED, "protected mode"},
    {KVM_BAD_PAGING32, "32-bit paging"},
    {KVM_BAD_PAE, "PAE"},
    {KVM_BAD_COMPAT, "compatibility mode"},
    {KVM_BAD_USER_EVENTS, "CPL 3 SYSCALL/INT"},
    {KVM_BAD_USER_FLAGS, "CPL 3 IF/IOPL"},
    {KVM_BAD_EMULATION, "CPL 0 insns"},
    {KVM_BAD_WINDOW, "IRQ windows"},
    {KVM_BAD_HYPERCALL, "VMCALL"},
    {KVM_BAD_CPUID, "CPUID"},
    {KVM_BAD_TSC_OFFSET, "TSC offset"},
    {KVM_BAD_STALE_TABLES, "stale tables"},
    {KVM_BAD_STEP, "steps"},
    {KVM_BAD_BREAKPOINT, "breakpoints"},
    {KVM_BAD_WATCHPOINT, "watchpoints"},
    {KVM_BAD_IN_SERVICE, "APIC ISR"},
    {KVM_BAD_SLOW_KERNEL, "slow CPL 0"},
};

/* Names that do not fit are left out, and "..." says so. */
void kvm_bad_names(uint32_t bad, char *text, size_t size)
{
    static const char more[] = ", ...";
    size_t used = 0;

    if (size)
        text[0] = 0;
    for (size_t i = 0; i < sizeof(bad_names) / sizeof(bad_names[0]); i++) {
        size_t len = strlen(bad_names[i].name) + 2;

        if (!(bad & bad_names[i].bad))
            continue;
        bad &= ~bad_names[i].bad;
        if (used + len + (bad ? sizeof(more) : 1) > size) {
            if (used && used + sizeof(more) <= size)
                strcpy(text + used, more);
            return;
        }
        used +=
            (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", bad_names[i].name);
    }
}

/* What the engine's user notices or pays for: it runs in software, or the guest sees it. */
#define DEGRADING                                                                                  \
    (KVM_BAD_REAL | KVM_BAD_PROTECTED | KVM_BAD_PAGING32 | KVM_BAD_PAE | KVM_BAD_COMPAT |          \
     KVM_BAD_USER_EVENTS | KVM_BAD_USER_FLAGS | KVM_BAD_CPUID | KVM_BAD_EMULATION |                \
     KVM_BAD_HYPERCALL | KVM_BAD_WINDOW | KVM_BAD_SLOW_KERNEL)

/* Millions of instructions per second, with a decimal where it matters. */
static void speed_text(uint32_t ns10, char *text, size_t size)
{
    uint32_t tenths = ns10 ? 100000 / ns10 : 0;

    if (tenths < 1000)
        snprintf(text, size, "%u.%u M", tenths / 10, tenths % 10);
    else
        snprintf(text, size, "%u M", tenths / 10);
}

static void conclude(struct kvm_host *host)
{
    char kernel[16], user[16];
    size_t used;

    host->degraded = host->bad & DEGRADING;
    speed_text(host->kernel_insn_ns10, kernel, sizeof(kernel));
    speed_text(host->user_insn_ns10, user, sizeof(user));
    used = (size_t)snprintf(host->reason, sizeof(host->reason),
                            "KVM API %d, %s insn/s at CPL 0 (%s at CPL 3)%s", KVM_API_VERSION,
                            kernel, user, host->bad & ~KVM_BAD_SLOW_KERNEL ? "; wrong: " : "");
    kvm_bad_names(host->bad & ~KVM_BAD_SLOW_KERNEL, host->reason + used,
                  sizeof(host->reason) - used);
}

static int find_irqchips(struct kvm_host *host, int fd)
{
    if (host->has & KVM_HAS_SPLIT_IRQCHIP && host->has & KVM_HAS_SIGNAL_MSI)
        kvm_probe_irqchip(fd, host, true, &host->irqchip_split_ok);
    if (!host->result && host->has & KVM_HAS_IRQCHIP)
        kvm_probe_irqchip(fd, host, false, &host->irqchip_kernel_ok);
    return host->result;
}

int kvm_probe_host(struct kvm_host *host)
{
    memset(host, 0, sizeof(*host));

    int fd = open_device(host);

    if (fd < 0)
        return host->result;
    if (find_caps(host, fd) || find_limits(host, fd) || find_cpuid(host, fd))
        goto out;
    if (!kvm_probe_guests(fd, host) && !find_irqchips(host, fd))
        conclude(host);
out:
    close(fd);
    if (host->result)
        kvm_probe_free(host);
    return host->result;
}

void kvm_probe_free(struct kvm_host *host)
{
    free(host->supported);
    host->supported = NULL;
}

static struct kvm_host the_host;

static void probe_once(void)
{
    kvm_probe_host(&the_host);
}

const struct kvm_host *kvm_host(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, probe_once);
    return &the_host;
}

void kvm_probe(struct vmm_backend_report *report)
{
    const struct kvm_host *host = kvm_host();

    report->result = host->result;
    report->flags = host->degraded ? VMM_BACKEND_DEGRADED : 0;
    _Static_assert(sizeof(report->reason) >= sizeof(host->reason), "reason");
    memcpy(report->reason, host->reason, sizeof(host->reason));
    if (!report->result)
        interp_can_run(report); /* each vCPU has a software CPU beside it */
}
