/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/cpuid_default.c: the CPUID table of what this CPU can offer on this host. */
#include <cpuid.h>
#include <stdatomic.h>
#include <string.h>

#include "core/x86/control.h"
#include "core/x86/vec_features.h"
#include "core/x86/xstate.h"
#include <vmm/vcpu.h>

/*
 * Features of three kinds: what the CPU models by itself is always there; data instructions that
 * are executed by the host's units are there if the host has them (vec_features.h and the HOST
 * masks); the rest is absent. All vCPUs are cores of one package; APIC ids are vCPU numbers.
 */

/* PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36, CLFSH, SS, HTT, with
 * VME and DE. */
#define MODEL_1_EDX                                                                                \
    (1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 9 |     \
     1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 15 | 1u << 16 | 1u << 17 | 1u << 19 |       \
     1u << 27 | 1u << 28)
/* CX16, PCID, x2APIC, MOVBE, POPCNT, TSC_DEADLINE, hypervisor. */
#define MODEL_1_ECX (1u << 13 | 1u << 17 | 1u << 21 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 31)
#define HOST_1_ECX  (X86_VEC_1_ECX | 1u << 30) /* RDRAND */

/* FSGSBASE, TSC_ADJUST, BMI1, SMEP, BMI2, ERMS, INVPCID, ADX, SMAP, CLFLUSHOPT, CLWB. */
#define MODEL_7_EBX                                                                                \
    (1u << 0 | 1u << 1 | 1u << 3 | 1u << 7 | 1u << 8 | 1u << 9 | 1u << 10 | 1u << 19 | 1u << 20 |  \
     1u << 23 | 1u << 24)
#define HOST_7_EBX (X86_VEC_7_EBX | X86_VEC_7_EBX_NO_FCS | 1u << 18) /* RDSEED */
/* UMIP, PKU, RDPID, MOVDIRI. */
#define MODEL_7_ECX (1u << 2 | 1u << 3 | 1u << 22 | 1u << 27)
/* FSRM, SERIALIZE, ARCH_CAPABILITIES. */
#define MODEL_7_EDX (1u << 4 | 1u << 14 | 1u << 29)

/* LAHF and SAHF in 64-bit mode, LZCNT, PREFETCHW. */
#define MODEL_X1_ECX (1u << 0 | 1u << 5 | 1u << 8)
/* SYSCALL, NX, 1 GiB pages, RDTSCP, LM. */
#define MODEL_X1_EDX (1u << 11 | 1u << 20 | 1u << 26 | 1u << 27 | 1u << 29)

/* Firmware that sizes page tables by this takes 40, QEMU's width, for "unknown" (OVMF), and would
 * map 64 TiB page by page with the width of a server. */
#define GPA_BITS    40u
#define LINEAR_BITS 48u

/* APIC ids in the package, as a power of two and a count. */
#define PACKAGE_SHIFT 6u
#define PACKAGE_IDS   (1u << PACKAGE_SHIFT)
_Static_assert(VMM_MAX_VCPUS <= PACKAGE_IDS, "all vCPUs are in one package");

/* Family 6, model 55H, stepping 7: where the host's signature is not one of family 6. */
#define SIGNATURE 0x50657u

#define MAX_BASIC      0x16u
#define MAX_HYPERVISOR 0x40000010u
#define MAX_EXTENDED   0x80000008u

/* The local APIC timer's input clock, kHz: that of the devices, also the "crystal" of leaf 15H. */
#define APIC_KHZ 1000000u

struct table {
    struct vmm_cpuid *entries;
    unsigned n, max;
};

struct regs {
    uint32_t eax, ebx, ecx, edx;
};

static struct regs host(uint32_t number, uint32_t sub)
{
    struct regs r = {0};

    if ((uint32_t)__get_cpuid_max(number & 0x80000000u, NULL) >= number)
        __cpuid_count(number, sub, r.eax, r.ebx, r.ecx, r.edx);
    return r;
}

static void add(struct table *t, uint32_t leaf, uint32_t flags, uint32_t subleaf, struct regs r)
{
    if (t->n < t->max)
        t->entries[t->n] = (struct vmm_cpuid){.leaf = leaf,
                                              .subleaf = subleaf,
                                              .eax = r.eax,
                                              .ebx = r.ebx,
                                              .ecx = r.ecx,
                                              .edx = r.edx,
                                              .flags = flags};
    t->n++;
}

static void leaf(struct table *t, uint32_t number, struct regs r)
{
    add(t, number, 0, 0, r);
}

static void subleaf(struct table *t, uint32_t number, uint32_t sub, struct regs r)
{
    add(t, number, VMM_CPUID_SUBLEAF, sub, r);
}

static uint32_t word(const char *text)
{
    uint32_t w;

    memcpy(&w, text, 4);
    return w;
}

/* The host's signature where software knows it as an Intel CPU of family 6. */
static uint32_t signature(void)
{
    struct regs vendor = host(0, 0), r = host(1, 0);

    if (vendor.ebx == word("Genu") && (r.eax >> 8 & 0xf) == 6)
        return r.eax & 0x0fff3fffu;
    return SIGNATURE;
}

/* The host saves AVX-512 or AVX state, so that the instructions can be executed there. */
static uint64_t host_xcr0(void)
{
    uint32_t lo, hi;

    if (!(host(1, 0).ecx & X86_F1_ECX_OSXSAVE))
        return X86_XCR0_X87 | X86_XCR0_SSE;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

struct features {
    uint32_t signature, f1_ecx, f1_edx, f7_ebx, f7_ecx, f7_edx, f7_1_eax;
    uint64_t xcr0;
};

/* Instructions that need AVX or AVX-512 registers. */
#define AVX_1_ECX   (1u << 12 | 1u << 28 | 1u << 29) /* FMA, AVX, F16C */
#define AVX_7_EBX   (1u << 5)
#define AVX_7_ECX   (1u << 9 | 1u << 10) /* VAES, VPCLMULQDQ */
#define AVX_7_1_EAX (1u << 4)
#define Z_7_EBX     (1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 30 | 1u << 31)
#define Z_7_ECX     (1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14)
#define Z_7_EDX     (1u << 23)
#define Z_7_1_EAX   (1u << 5)

static struct features find_features(void)
{
    struct regs h1 = host(1, 0), h7 = host(7, 0), h71 = {0};
    uint64_t xcr0 = host_xcr0();
    struct features f;

    if (h7.eax)
        h71 = host(7, 1);
    f.f1_ecx = MODEL_1_ECX | X86_F1_ECX_XSAVE | (h1.ecx & HOST_1_ECX);
    f.f1_edx = MODEL_1_EDX | X86_VEC_1_EDX;
    f.f7_ebx = MODEL_7_EBX | (h7.ebx & HOST_7_EBX);
    f.f7_ecx = MODEL_7_ECX | (h7.ecx & X86_VEC_7_ECX);
    f.f7_edx = MODEL_7_EDX | (h7.edx & X86_VEC_7_EDX);
    f.f7_1_eax = h71.eax & X86_VEC_7_1_EAX;
    f.xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_PKRU;

    if (!(xcr0 & X86_XCR0_AVX) || !(f.f1_ecx & X86_F1_ECX_AVX)) {
        f.f1_ecx &= ~AVX_1_ECX;
        f.f7_ebx &= ~AVX_7_EBX;
        f.f7_ecx &= ~AVX_7_ECX;
        f.f7_1_eax &= ~AVX_7_1_EAX;
        xcr0 = 0;
    } else {
        f.xcr0 |= X86_XCR0_AVX;
    }
    if ((xcr0 & X86_XCR0_AVX512) != X86_XCR0_AVX512 || !(f.f7_ebx & X86_F7_EBX_AVX512F)) {
        f.f7_ebx &= ~Z_7_EBX;
        f.f7_ecx &= ~Z_7_ECX;
        f.f7_edx &= ~Z_7_EDX;
        f.f7_1_eax &= ~Z_7_1_EAX;
    } else {
        f.xcr0 |= X86_XCR0_AVX512;
    }
    f.signature = signature();
    return f;
}

/* Found once: CPUID is slow where the host is itself a guest. Who comes while another looks finds
 * the same. */
static struct features features(void)
{
    static struct features known;
    static _Atomic int state; /* 1: somebody fills `known`; 2: it is complete */
    struct features f;
    int none = 0;

    if (atomic_load(&state) == 2)
        return known;
    f = find_features();
    if (atomic_compare_exchange_strong(&state, &none, 1)) {
        known = f;
        atomic_store(&state, 2);
    }
    return f;
}

/* ---- leaves ---- */

/* Leaf 4: one cache: level, type (1 data, 2 instructions, 3 both), size in KiB, ways, whether all
 * cores share it. 64-byte lines. */
static void cache(struct table *t, uint32_t index, uint32_t level, uint32_t type, uint32_t kib,
                  uint32_t ways, bool shared)
{
    struct regs r = {
        .eax = type | level << 5 | 1u << 8 | (shared ? PACKAGE_IDS - 1 : 0) << 14 |
               (PACKAGE_IDS - 1) << 26,
        .ebx = 63 | (ways - 1) << 22,
        .ecx = kib * 1024 / 64 / ways - 1,
    };

    subleaf(t, 4, index, r);
}

static void caches(struct table *t)
{
    cache(t, 0, 1, 1, 32, 8, false);
    cache(t, 1, 1, 2, 32, 8, false);
    cache(t, 2, 2, 3, 1024, 16, false);
    cache(t, 3, 3, 3, 16384, 16, true);
    subleaf(t, 4, 4, (struct regs){0});
}

/* Leaf 0BH: one thread per core, one package. EDX is the vCPU's. */
static void topology(struct table *t)
{
    subleaf(t, 0xb, 0, (struct regs){.ebx = 1, .ecx = 1u << 8});
    subleaf(t, 0xb, 1, (struct regs){.eax = PACKAGE_SHIFT, .ebx = PACKAGE_IDS, .ecx = 2u << 8 | 1});
    subleaf(t, 0xb, 2, (struct regs){.ecx = 2});
}

static void xsave(struct table *t, uint64_t xcr0)
{
    subleaf(t, 0xd, 0,
            (struct regs){.eax = (uint32_t)xcr0,
                          .ebx = x86_xstate_size(X86_XCR0_X87),
                          .ecx = x86_xstate_size(xcr0),
                          .edx = (uint32_t)(xcr0 >> 32)});
    subleaf(t, 0xd, 1,
            (struct regs){.eax = X86_VEC_D_1_EAX, .ebx = x86_xstate_compact_size(X86_XCR0_X87)});
    for (uint32_t i = 2; i < X86_XC_N; i++)
        if (xcr0 >> i & 1)
            subleaf(t, 0xd, i, (struct regs){.eax = x86_xcomp[i].size, .ebx = x86_xcomp[i].offset});
}

/*
 * Leaf 15H: TSC frequency = crystal * ebx / eax. Guests compute crystal_khz * ebx in 32 bits, so
 * ebx is kept small: the best fraction with that limit.
 */
static struct regs tsc_ratio(uint64_t tsc_khz)
{
    const uint64_t max = UINT32_MAX / APIC_KHZ;
    uint64_t best_error = UINT64_MAX, best_den = 1;
    struct regs r = {.eax = 1, .ebx = 1, .ecx = APIC_KHZ * 1000u};

    for (uint64_t den = 1; den <= max; den++) {
        uint64_t num = (tsc_khz * den + APIC_KHZ / 2) / APIC_KHZ;
        uint64_t a = num * APIC_KHZ, b = tsc_khz * den, error = a > b ? a - b : b - a;

        if (!num || num > max)
            continue;
        /* Errors are relative to the denominator: error / den. */
        if (best_error == UINT64_MAX || error * best_den < best_error * den) {
            best_error = error;
            best_den = den;
            r.eax = (uint32_t)den;
            r.ebx = (uint32_t)num;
        }
    }
    return r;
}

static void basic(struct table *t, const struct features *f, uint64_t tsc_khz)
{
    uint32_t mhz = (uint32_t)((tsc_khz + 500) / 1000);

    leaf(t, 0, (struct regs){MAX_BASIC, word("Genu"), word("ntel"), word("ineI")});
    /* EBX: CLFLUSH line of 64 bytes, APIC ids in the package, initial APIC id. */
    leaf(t, 1, (struct regs){f->signature, 8u << 8 | PACKAGE_IDS << 16, f->f1_ecx, f->f1_edx});
    leaf(t, 2, (struct regs){.eax = 0x00feff01}); /* caches: see leaf 4 */
    caches(t);
    leaf(t, 6, (struct regs){.eax = 1u << 2}); /* ARAT */
    subleaf(t, 7, 0, (struct regs){f->f7_1_eax ? 1 : 0, f->f7_ebx, f->f7_ecx, f->f7_edx});
    if (f->f7_1_eax)
        subleaf(t, 7, 1, (struct regs){.eax = f->f7_1_eax});
    topology(t);
    xsave(t, f->xcr0);
    leaf(t, 0x15, tsc_ratio(tsc_khz));
    leaf(t, 0x16, (struct regs){mhz & 0xffff, mhz & 0xffff, 100, 0});
}

/* The leaves of hypervisors: a signature, and the frequencies of the TSC and of the APIC timer. */
static void hypervisor(struct table *t, uint64_t tsc_khz)
{
    leaf(t, 0x40000000, (struct regs){MAX_HYPERVISOR, word("libv"), word("mm l"), word("ibvm")});
    leaf(t, MAX_HYPERVISOR, (struct regs){.eax = (uint32_t)tsc_khz, .ebx = APIC_KHZ});
}

static void extended(struct table *t)
{
    static const char brand[48] = "libvmm virtual CPU";

    leaf(t, 0x80000000, (struct regs){.eax = MAX_EXTENDED});
    leaf(t, 0x80000001, (struct regs){.ecx = MODEL_X1_ECX, .edx = MODEL_X1_EDX});
    for (unsigned i = 0; i < 3; i++)
        leaf(t, 0x80000002 + i,
             (struct regs){word(brand + 16 * i), word(brand + 16 * i + 4), word(brand + 16 * i + 8),
                           word(brand + 16 * i + 12)});
    /* L2: 1 MiB, 16 ways, 64-byte lines, as in leaf 4. */
    leaf(t, 0x80000006, (struct regs){.ecx = 64 | 8u << 12 | 1024u << 16});
    leaf(t, 0x80000007, (struct regs){.edx = 1u << 8}); /* invariant TSC */
    leaf(t, 0x80000008, (struct regs){.eax = GPA_BITS | LINEAR_BITS << 8});
}

unsigned x86_default_cpuid(struct vmm_cpuid *entries, unsigned max, uint64_t tsc_khz)
{
    struct table t = {.entries = entries, .max = max};
    struct features f = features();

    basic(&t, &f, tsc_khz);
    hypervisor(&t, tsc_khz);
    extended(&t);
    return t.n;
}
