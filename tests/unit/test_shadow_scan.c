/* SPDX-License-Identifier: BSD-2-Clause */
/* test_shadow_scan.c: instructions that must not be executed directly are found wherever they are,
 * and their bytes inside of other instructions are not taken for them. */
#include <Zydis/Zydis.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "backends/shadow/scan.h"
#include "random_insn.h"

#define PAGE   4096u
#define BEHIND 15u
#define ALL                                                                                        \
    (SHADOW_SCAN_XSTATE | SHADOW_SCAN_CPUID | SHADOW_SCAN_TSC | SHADOW_SCAN_FSGSBASE |             \
     SHADOW_SCAN_PKU)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct insn {
    uint8_t what; /* the bit that has it looked for; 0: always */
    uint8_t len;
    uint8_t byte[12];
};

#define I(what, ...)                                                                               \
    {                                                                                              \
        what, sizeof((uint8_t[]){__VA_ARGS__}),                                                    \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static const struct insn wanted[] = {
    I(0, 0x0f, 0x01, 0x00),                                /* sgdt (%rax) */
    I(0, 0x0f, 0x01, 0x44, 0x24, 0x08),                    /* sgdt 8(%rsp) */
    I(0, 0x41, 0x0f, 0x01, 0x00),                          /* sgdt (%r8) */
    I(0, 0x0f, 0x01, 0x0d, 0x00, 0x10, 0x00, 0x00),        /* sidt 0x1000(%rip) */
    I(0, 0x67, 0x0f, 0x01, 0x08),                          /* sidt (%eax) */
    I(0, 0x0f, 0x01, 0xe0),                                /* smsw %eax */
    I(0, 0x66, 0x0f, 0x01, 0xe7),                          /* smsw %di */
    I(0, 0x49, 0x0f, 0x01, 0xe0),                          /* smsw %r8 */
    I(0, 0x0f, 0x01, 0x20),                                /* smsw (%rax) */
    I(0, 0x64, 0x0f, 0x01, 0x24, 0x25, 0x10, 0, 0, 0),     /* smsw %fs:0x10 */
    I(0, 0x0f, 0x03, 0xc0),                                /* lsl %eax, %eax */
    I(0, 0x66, 0x0f, 0x03, 0x03),                          /* lsl (%rbx), %ax */
    I(0, 0x4c, 0x0f, 0x03, 0xf9),                          /* lsl %ecx, %r15 */
    I(0, 0xf3, 0x0f, 0xc7, 0xf8),                          /* rdpid %rax */
    I(0, 0xf3, 0x41, 0x0f, 0xc7, 0xff),                    /* rdpid %r15 */
    I(0, 0x66, 0xf3, 0x0f, 0xc7, 0xf9),                    /* rdpid %rcx */
    I(0, 0x0f, 0x01, 0xc1),                                /* vmcall */
    I(0, 0x0f, 0x01, 0xd9),                                /* vmmcall */
    I(0, 0x0f, 0x34),                                      /* sysenter */
    I(0, 0x48, 0x0f, 0x34),                                /* sysenter */
    I(SHADOW_SCAN_XSTATE, 0x0f, 0x01, 0xd0),               /* xgetbv */
    I(SHADOW_SCAN_XSTATE, 0x0f, 0xae, 0x64, 0x24, 0x40),   /* xsave 0x40(%rsp) */
    I(SHADOW_SCAN_XSTATE, 0x48, 0x0f, 0xae, 0x27),         /* xsave64 (%rdi) */
    I(SHADOW_SCAN_XSTATE, 0x0f, 0xae, 0x6c, 0x24, 0x40),   /* xrstor 0x40(%rsp) */
    I(SHADOW_SCAN_XSTATE, 0x49, 0x0f, 0xae, 0x29),         /* xrstor64 (%r9) */
    I(SHADOW_SCAN_XSTATE, 0x0f, 0xae, 0x32),               /* xsaveopt (%rdx) */
    I(SHADOW_SCAN_XSTATE, 0x48, 0x0f, 0xae, 0x32),         /* xsaveopt64 (%rdx) */
    I(SHADOW_SCAN_XSTATE, 0x0f, 0xc7, 0x64, 0x24, 0x40),   /* xsavec 0x40(%rsp) */
    I(SHADOW_SCAN_XSTATE, 0x48, 0x0f, 0xc7, 0x20),         /* xsavec64 (%rax) */
    I(SHADOW_SCAN_CPUID, 0x0f, 0xa2),                      /* cpuid */
    I(SHADOW_SCAN_CPUID, 0x66, 0x0f, 0xa2),                /* cpuid */
    I(SHADOW_SCAN_TSC, 0x0f, 0x31),                        /* rdtsc */
    I(SHADOW_SCAN_TSC, 0x2e, 0x48, 0x0f, 0x31),            /* rdtsc */
    I(SHADOW_SCAN_TSC, 0x0f, 0x01, 0xf9),                  /* rdtscp */
    I(SHADOW_SCAN_TSC, 0x0f, 0x01, 0xfd),                  /* rdpru */
    I(SHADOW_SCAN_FSGSBASE, 0xf3, 0x0f, 0xae, 0xc0),       /* rdfsbase %eax */
    I(SHADOW_SCAN_FSGSBASE, 0xf3, 0x48, 0x0f, 0xae, 0xc8), /* rdgsbase %rax */
    I(SHADOW_SCAN_FSGSBASE, 0xf3, 0x49, 0x0f, 0xae, 0xd7), /* wrfsbase %r15 */
    I(SHADOW_SCAN_FSGSBASE, 0xf3, 0x0f, 0xae, 0xd9),       /* wrgsbase %ecx */
    I(SHADOW_SCAN_PKU, 0x0f, 0x01, 0xee),                  /* rdpkru */
    I(SHADOW_SCAN_PKU, 0x0f, 0x01, 0xef),                  /* wrpkru */
};

/* Those that trap, do the same everywhere, or have such bytes where they mean something else. */
static const struct insn others[] = {
    I(0, 0x0f, 0xc7, 0xf8),                         /* rdseed %eax */
    I(0, 0x66, 0x0f, 0xc7, 0xf9),                   /* rdseed %cx */
    I(0, 0x48, 0x0f, 0xc7, 0xfa),                   /* rdseed %rdx */
    I(0, 0x0f, 0xc7, 0xf0),                         /* rdrand %eax */
    I(0, 0xf0, 0x48, 0x0f, 0xc7, 0x0f),             /* lock cmpxchg16b (%rdi) */
    I(0, 0x0f, 0xc7, 0x28),                         /* xsaves (%rax) */
    I(0, 0x0f, 0xc7, 0x38),                         /* vmptrst (%rax) */
    I(0, 0x66, 0x0f, 0xae, 0x30),                   /* clwb (%rax) */
    I(0, 0x66, 0x41, 0x0f, 0xae, 0x75, 0x10),       /* clwb 0x10(%r13) */
    I(0, 0x66, 0x0f, 0xae, 0x38),                   /* clflushopt (%rax) */
    I(0, 0x0f, 0xae, 0x38),                         /* clflush (%rax) */
    I(0, 0x0f, 0xae, 0x00),                         /* fxsave (%rax) */
    I(0, 0x0f, 0xae, 0x0f),                         /* fxrstor (%rdi) */
    I(0, 0x0f, 0xae, 0x55, 0xfc),                   /* ldmxcsr -4(%rbp) */
    I(0, 0x0f, 0xae, 0x5d, 0xfc),                   /* stmxcsr -4(%rbp) */
    I(0, 0xf3, 0x0f, 0xae, 0x20),                   /* ptwritel (%rax) */
    I(0, 0x0f, 0xae, 0xe8),                         /* lfence */
    I(0, 0x0f, 0xae, 0xf0),                         /* mfence */
    I(0, 0x0f, 0xae, 0xf8),                         /* sfence */
    I(0, 0xf3, 0x0f, 0xae, 0xf0),                   /* umonitor %rax */
    I(0, 0xf2, 0x0f, 0xae, 0xf1),                   /* umwait %ecx */
    I(0, 0x66, 0x0f, 0xae, 0xf1),                   /* tpause %ecx */
    I(0, 0x0f, 0x01, 0xc8),                         /* monitor */
    I(0, 0x0f, 0x01, 0xc9),                         /* mwait */
    I(0, 0x0f, 0x01, 0xd1),                         /* xsetbv */
    I(0, 0x0f, 0x01, 0xd5),                         /* xend */
    I(0, 0x0f, 0x01, 0xd6),                         /* xtest */
    I(0, 0x0f, 0x01, 0xf8),                         /* swapgs */
    I(0, 0x0f, 0x01, 0xfc),                         /* clzero */
    I(0, 0x0f, 0x01, 0x10),                         /* lgdt (%rax) */
    I(0, 0x0f, 0x01, 0x18),                         /* lidt (%rax) */
    I(0, 0x0f, 0x01, 0xf0),                         /* lmsw %ax */
    I(0, 0x0f, 0x01, 0x38),                         /* invlpg (%rax) */
    I(0, 0x0f, 0x00, 0xc0),                         /* sldt %eax */
    I(0, 0x0f, 0x00, 0xe0),                         /* verr %ax */
    I(0, 0x0f, 0x02, 0xc0),                         /* lar %eax, %eax */
    I(0, 0x0f, 0x05),                               /* syscall */
    I(0, 0x0f, 0x32),                               /* rdmsr */
    I(0, 0x0f, 0x33),                               /* rdpmc */
    I(0, 0x0f, 0x35),                               /* sysexit */
    I(0, 0x0f, 0xa0),                               /* push %fs */
    I(0, 0x0f, 0xa3, 0xc8),                         /* bt %ecx, %eax */
    I(0, 0x0f, 0xaf, 0xc8),                         /* imul %eax, %ecx */
    I(0, 0xb8, 0x0f, 0x01, 0x03, 0x00),             /* mov $0x3010f, %eax */
    I(0, 0xbf, 0x00, 0x0f, 0x01, 0xe0),             /* mov $0xe0010f00, %edi */
    I(0, 0xba, 0xf3, 0x0f, 0xc7, 0xf8),             /* mov $0xf8c70ff3, %edx */
    I(0, 0xb9, 0x0f, 0x01, 0xd0, 0x0f),             /* mov $0xfd0010f, %ecx */
    I(0, 0x05, 0x0f, 0xa2, 0x0f, 0x31),             /* add $0x310fa20f, %eax */
    I(0, 0x0f, 0x84, 0x0f, 0x01, 0x00, 0x00),       /* je .+0x115 */
    I(0, 0x0f, 0x85, 0x00, 0x0f, 0x03, 0x00),       /* jne .+0x30f06 */
    I(0, 0xe9, 0x0f, 0x03, 0x00, 0x00),             /* jmp .+0x314 */
    I(0, 0xe8, 0x5a, 0x0f, 0x03, 0x00),             /* call .+0x30f5f */
    I(0, 0x48, 0x8d, 0x05, 0x0f, 0xae, 0x25, 0x00), /* lea 0x25ae0f(%rip), %rax */
    I(0, 0x48, 0x8d, 0x83, 0x0f, 0x31, 0x00, 0x00), /* lea 0x310f(%rbx), %rax */
    I(0, 0x48, 0x8b, 0x44, 0x0f, 0x01),             /* mov 1(%rdi,%rcx), %rax */
    I(0, 0x88, 0x04, 0x0f, 0x01, 0xc8),             /* mov %al, (%rdi,%rcx); add %ecx, %eax */
    I(0, 0x3c, 0x0f, 0x01, 0x03),                   /* cmp $15, %al; add %eax, (%rbx) */
    I(0, 0x83, 0xe0, 0x0f, 0x03, 0x45, 0xfc),       /* and $15, %eax; add -4(%rbp), %eax */
    I(0, 0x48, 0xb8, 0x0f, 0xa2, 0x0f, 0xae, 0x20, 0x0f, 0xc7, 0x20), /* movabs */
};

/* What compilers write. */
static const uint8_t ordinary[] = {
    0x55,                                                 /* push %rbp */
    0x48, 0x89, 0xe5,                                     /* mov %rsp, %rbp */
    0x53,                                                 /* push %rbx */
    0x48, 0x83, 0xec, 0x18,                               /* sub $0x18, %rsp */
    0x48, 0x89, 0xfb,                                     /* mov %rdi, %rbx */
    0x48, 0x85, 0xf6,                                     /* test %rsi, %rsi */
    0x74, 0x1c,                                           /* je .+0x1e */
    0x0f, 0xb6, 0x04, 0x37,                               /* movzbl (%rdi,%rsi), %eax */
    0x48, 0x8d, 0x4c, 0x83, 0x08,                         /* lea 8(%rbx,%rax,4), %rcx */
    0x3c, 0x7f,                                           /* cmp $0x7f, %al */
    0x77, 0x20,                                           /* ja .+0x22 */
    0x64, 0x48, 0x8b, 0x14, 0x25, 0x28, 0x00, 0x00, 0x00, /* mov %fs:0x28, %rdx */
    0x48, 0x89, 0x55, 0xe8,                               /* mov %rdx, -0x18(%rbp) */
    0x31, 0xd2,                                           /* xor %edx, %edx */
    0xe8, 0xce, 0xff, 0xff, 0xff,                         /* call .-0x2d */
    0xf2, 0x0f, 0x2a, 0xc0,                               /* cvtsi2sd %eax, %xmm0 */
    0xf2, 0x0f, 0x11, 0x05, 0x34, 0x12, 0x00, 0x00,       /* movsd %xmm0, 0x1234(%rip) */
    0x48, 0x8b, 0x45, 0xe8,                               /* mov -0x18(%rbp), %rax */
    0x48, 0x83, 0xc4, 0x18,                               /* add $0x18, %rsp */
    0x5b,                                                 /* pop %rbx */
    0x5d,                                                 /* pop %rbp */
    0xc3,                                                 /* ret */
    0x66, 0x0f, 0x1f, 0x04, 0x00,                         /* nopw (%rax,%rax) */
};

/* The page, and what is around it as far as the scan may look, in blocks of just these sizes. */
static uint8_t *prev, *page, *next;

static void setup(void)
{
    prev = malloc(PAGE);
    page = malloc(PAGE);
    next = malloc(BEHIND);
    ck_assert(prev && page && next);
}

static void teardown(void)
{
    free(prev);
    free(page);
    free(next);
}

/* Where the page before it is not known. */
static bool scan(const uint8_t *behind, unsigned what)
{
    return shadow_scan(&(struct shadow_code){page, NULL, behind}, what);
}

static bool scan_all(unsigned what)
{
    return shadow_scan(&(struct shadow_code){page, prev, next}, what);
}

/* Code before and behind the instruction at `at`, from whose place NOPs or ordinary code spread. */
static void place(const struct insn *in, unsigned at, bool nops)
{
    uint8_t both[2 * PAGE + BEHIND + sizeof(ordinary)], *all = both + PAGE;
    unsigned end = at + in->len, before = PAGE + at;

    memset(both, 0x90, sizeof(both));
    while (!nops && before) {
        unsigned n = before < sizeof(ordinary) ? before : (unsigned)sizeof(ordinary);

        before -= n;
        memcpy(both + before, ordinary + sizeof(ordinary) - n, n);
    }
    for (unsigned p = end; !nops && p < PAGE + BEHIND; p += sizeof(ordinary))
        memcpy(all + p, ordinary, sizeof(ordinary));
    memcpy(all + at, in->byte, in->len);
    memcpy(prev, both, PAGE);
    memcpy(page, all, PAGE);
    memcpy(next, all + PAGE, BEHIND);
}

/* Check's own assertions write to a pipe each time. */
#define EXPECT(condition, in, at)                                                                  \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg("%s: %02x %02x %02x %02x at %u", #condition, (in)->byte[0],               \
                         (in)->byte[1], (in)->byte[2], (in)->byte[3], at);                         \
    } while (0)

START_TEST(found_everywhere)
{
    for (unsigned i = 0; i < COUNT(wanted); i++) {
        const struct insn *in = &wanted[i];

        for (unsigned at = 0; at + in->len <= PAGE; at += at < 200 || at > PAGE - 200 ? 1 : 61)
            for (unsigned nops = 0; nops < 2; nops++) {
                place(in, at, nops);
                EXPECT(scan(next, in->what), in, at);
                EXPECT(scan(NULL, in->what), in, at);
                EXPECT(scan(next, ALL), in, at);
                EXPECT(scan_all(ALL), in, at);
                if (in->what)
                    EXPECT(!scan_all(ALL & ~in->what), in, at);
            }
    }
}
END_TEST

START_TEST(others_are_not)
{
    for (unsigned i = 0; i < COUNT(others); i++) {
        const struct insn *in = &others[i];

        for (unsigned at = 0; at < PAGE; at += at < 200 || at > PAGE - 200 ? 1 : 61)
            for (unsigned nops = 0; nops < 2; nops++) {
                place(in, at, nops);
                EXPECT(!scan_all(ALL), in, at);
                /* Of the begin of a page alone little tells what is an instruction. */
                if (at < 80)
                    continue;
                EXPECT(!scan(next, ALL), in, at);
                if (at + in->len <= PAGE && page[PAGE - 1] != 0x0f)
                    EXPECT(!scan(NULL, ALL), in, at);
            }
    }
}
END_TEST

/* Index of the opcode's 0F. */
static unsigned opcode_of(const struct insn *in)
{
    unsigned i = 0;

    while (in->byte[i] != 0x0f)
        i++;
    return i;
}

START_TEST(over_the_end)
{
    for (unsigned i = 0; i < COUNT(wanted); i++) {
        const struct insn *in = &wanted[i];

        for (unsigned in_page = 1; in_page < in->len; in_page++)
            for (unsigned nops = 0; nops < 2; nops++) {
                unsigned at = PAGE - in_page;

                place(in, at, nops);
                EXPECT(scan(next, in->what), in, at);
                if (in->what)
                    EXPECT(!scan(next, ALL & ~in->what), in, at);
                /* Of what is behind the page, only the opcode's first byte tells. */
                EXPECT(scan(NULL, in->what) == (in_page > opcode_of(in)), in, at);
            }
    }
}
END_TEST

/* What the end of the page leaves open is another instruction. */
START_TEST(end_of_another)
{
    static const struct insn movzx = I(0, 0x0f, 0xb6, 0xc0);
    static const struct insn lgdt = I(0, 0x0f, 0x01, 0x10);
    static const struct insn sfence = I(0, 0x0f, 0xae, 0xf8);
    static const struct insn rdrand = I(0, 0x0f, 0xc7, 0xf0);
    static const struct insn immediate = I(0, 0xb8, 0x00, 0x0f, 0x01, 0xe0);
    static const struct insn *const open[] = {&movzx, &lgdt, &sfence, &rdrand};

    for (unsigned i = 0; i < COUNT(open); i++)
        for (unsigned in_page = 1; in_page < 3; in_page++) {
            place(open[i], PAGE - in_page, false);
            EXPECT(!scan(next, ALL), open[i], in_page);
            EXPECT(scan(NULL, ALL) == (i || in_page == 1), open[i], in_page);
        }
    for (unsigned in_page = 1; in_page < immediate.len; in_page++) {
        place(&immediate, PAGE - in_page, false);
        EXPECT(!scan(next, ALL), &immediate, in_page);
        EXPECT(!scan(NULL, ALL), &immediate, in_page);
    }
}
END_TEST

/* An instruction is of the page that it begins in. */
START_TEST(begins_behind)
{
    for (unsigned i = 0; i < COUNT(wanted); i++)
        for (unsigned at = PAGE; at + wanted[i].len <= PAGE + BEHIND; at++) {
            place(&wanted[i], at, true);
            EXPECT(!scan(next, ALL), &wanted[i], at);
            place(&wanted[i], at, false);
            EXPECT(!scan(next, ALL), &wanted[i], at);
        }
}
END_TEST

/* The page ends in an immediate whose last byte is a prefix elsewhere; then REX is one indeed. */
START_TEST(begins_behind_prefix)
{
    static const struct insn rex = I(0, 0xb8, 0x00, 0x00, 0x00, 0x48);
    static const struct insn size = I(0, 0x6a, 0x66);
    static const struct insn rep = I(0, 0xeb, 0xf3);
    static const struct insn *const last[] = {&rex, &size, &rep};

    for (unsigned i = 0; i < COUNT(wanted); i++)
        for (unsigned k = 0; k < COUNT(last); k++) {
            place(last[k], PAGE - last[k]->len, false);
            memcpy(next, wanted[i].byte, wanted[i].len);
            EXPECT(!scan(next, ALL), &wanted[i], k);
            if (k || wanted[i].byte[0] != 0x0f)
                continue;
            memset(page, 0x90, PAGE - 1);
            EXPECT(scan(next, ALL), &wanted[i], k);
        }
}
END_TEST

/* Code that never comes into step: one of its five ways comes to the instruction. */
START_TEST(never_in_step)
{
    for (unsigned i = 0; i < COUNT(wanted); i++)
        for (unsigned at = 0; at + wanted[i].len <= PAGE; at++) {
            place(&wanted[i], at, true);
            memset(page, 0xb8, at); /* mov $0xb8b8b8b8, %eax */
            EXPECT(scan(next, ALL), &wanted[i], at);
        }
}
END_TEST

/* Behind bytes that are no instructions, the pattern counts even inside of one; not far behind. */
START_TEST(behind_data)
{
    static const struct insn immediate = I(0, 0xb8, 0x0f, 0x01, 0x03, 0x00);

    for (unsigned distance = 1; distance < 400; distance++) {
        place(&immediate, 2000, false);
        memset(page, 0x06, 2000 - distance); /* PUSH ES: not in 64-bit mode */
        if (distance < 40)
            EXPECT(scan(next, 0), &immediate, distance);
        if (distance > 100)
            EXPECT(!scan(next, 0), &immediate, distance);
    }
}
END_TEST

/* One of two ways comes to bytes that are no instruction: if they are near, the host may know one
 * there that has the pattern for its opcode. */
START_TEST(behind_unknown)
{
    static const struct insn immediate = I(0, 0xb8, 0x0f, 0x01, 0x03, 0x00);

    for (unsigned distance = 1; distance < 40; distance++) {
        place(&immediate, 2000, true);
        memset(page, 0xb0, 2000 - distance); /* mov $0xb0, %al */
        page[2000 - distance] = 0x06;
        EXPECT(scan(next, 0) == (distance < 14), &immediate, distance);
    }
}
END_TEST

/* SLDT and STR are looked for under UMIP. */
START_TEST(umip)
{
    static const struct insn some[] = {
        I(0, 0x0f, 0x00, 0xc0),                         /* sldt %eax */
        I(0, 0x66, 0x0f, 0x00, 0x00),                   /* sldt (%rax) */
        I(0, 0x48, 0x0f, 0x00, 0xc9),                   /* str %rcx */
        I(0, 0x41, 0x0f, 0x00, 0x48, 0x08),             /* str 8(%r8) */
        I(0, 0x0f, 0x00, 0x0c, 0x25, 0x00, 0x10, 0, 0), /* str 0x1000 */
    };

    for (unsigned i = 0; i < COUNT(some); i++)
        for (unsigned at = 0; at + some[i].len <= PAGE; at++)
            for (unsigned nops = 0; nops < 2; nops++) {
                place(&some[i], at, nops);
                EXPECT(scan_all(SHADOW_SCAN_UMIP), &some[i], at);
                EXPECT(!scan_all(ALL), &some[i], at);
                if (at >= 80 || nops)
                    EXPECT(scan(next, SHADOW_SCAN_UMIP), &some[i], at);
            }
}
END_TEST

/* Their bytes are what numbers are made of: in code, behind data and in data. These are what stands
 * in front of the templates of Java's interpreter. */
START_TEST(umip_in_numbers)
{
    static const uint8_t header[] = {
        0x41, 0xff, 0x24, 0xda, 0x0f, 0x1f, 0x40, 0x00,             /* jmp *(%r10,%rbx,8); nop */
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* ... */
        0x06, 0xa8, 0x9f, 0xf7, 0xff, 0x7f, 0x00, 0x00,             /* an address */
        0x80, 0x00, 0x00, 0x00, 0x0f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    static const struct insn test = I(0, 0xf7, 0xc4, 0x0f, 0, 0, 0); /* test $15, %esp */
    static const struct insn mov = I(0, 0xbe, 0x0f, 0, 0, 0);        /* mov $15, %esi */
    static const struct insn push = I(0, 0x68, 0xfd, 0x0f, 0, 0);    /* push $0xffd */
    static const struct insn *const some[] = {&test, &mov, &push};

    for (unsigned i = 0; i < COUNT(some); i++)
        for (unsigned at = 0; at + some[i]->len <= PAGE; at++)
            for (unsigned nops = 0; nops < 2; nops++) {
                place(some[i], at, nops);
                EXPECT(!scan_all(SHADOW_SCAN_UMIP), some[i], at);
            }
    for (unsigned at = 80; at + 80 < PAGE; at++) {
        unsigned behind = at + (unsigned)sizeof(header) + 32;

        place(&test, behind, false);
        memcpy(page + at, header, sizeof(header));
        EXPECT(!scan_all(SHADOW_SCAN_UMIP), &test, at);
    }
}
END_TEST

static bool is_one_of(uint8_t byte, const uint8_t *list, unsigned n)
{
    return memchr(list, byte, n) != NULL;
}

/* Whether it is looked for, by its bytes, which are an instruction of Zydis'. */
static bool is_wanted(const uint8_t *p)
{
    static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
                                       0x66, 0x67, 0xf0, 0xf2, 0xf3};
    static const uint8_t group7[] = {0xc1, 0xd0, 0xd9, 0xee, 0xef, 0xf9, 0xfd};
    bool f3 = false, size = false;
    unsigned reg;

    for (; *p != 0x0f; p++) {
        if (!is_one_of(*p, prefixes, sizeof(prefixes)) && *p >> 4 != 4)
            return false;
        f3 |= *p == 0xf3;
        size |= *p == 0x66;
    }
    reg = p[2] >> 3 & 7;
    switch (p[1]) {
    case 0x01:
        return reg == 4 || (p[2] < 0xc0 ? reg < 2 : is_one_of(p[2], group7, sizeof(group7)));
    case 0x03:
    case 0x31:
    case 0x34:
    case 0xa2:
        return true;
    case 0xae:
        if (p[2] >= 0xc0)
            return f3 && reg < 4;
        return !f3 && reg >= 4 && reg != 7 && !(size && reg == 6);
    case 0xc7:
        return p[2] >= 0xc0 ? reg == 7 && f3 : reg == 4;
    default:
        return false;
    }
}

struct code {
    uint8_t byte[PAGE + BEHIND + 32];
    bool wanted; /* an instruction that is looked for begins in the page */
};

/* One that is looked for only with a probability of 1 in 20, if at all. */
static unsigned random_insn(const ZydisDecoder *z, uint8_t *p, bool with_wanted)
{
    ZydisDecodedInstruction insn;

    for (;;) {
        unsigned i = 0;

        random_bytes(p, 15);
        if (!random_vector(p, &i, true, 12) && !number(4))
            p[i] = 0x0f;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(z, NULL, p, 15, &insn)))
            continue;
        if (!is_wanted(p) || (with_wanted && !number(20)))
            return insn.length;
    }
}

/* Any instructions; some have immediates that look like what is searched. */
static void random_code(const ZydisDecoder *z, struct code *c, bool with_wanted)
{
    unsigned at = 0, len;

    c->wanted = false;
    while (at < PAGE + BEHIND) {
        uint8_t *p = c->byte + at;

        if (with_wanted && !number(1500)) {
            const struct insn *in = &wanted[number(COUNT(wanted))];

            memcpy(p, in->byte, len = in->len);
        } else if (!number(40)) {
            *p = (uint8_t)(0xb8 + number(8));
            memcpy(p + 1, number(2) ? "\x0f\x34\x03" : "\x0f\x03\x34", 3);
            p[4] = (uint8_t)number(256);
            len = 5;
        } else {
            len = random_insn(z, p, with_wanted);
        }
        c->wanted |= at < PAGE && is_wanted(p);
        at += len;
    }
}

/* All that a linear decoder finds is found; what is only in immediates mostly is not. */
START_TEST(random_pages)
{
    unsigned nwanted = 0, nothers = 0, refused = 0;
    struct code c;
    ZydisDecoder z;

    ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderEnableMode(&z, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
    seed = (uint64_t)_i + 1;
    for (unsigned i = 0; i < 500; i++) {
        bool found;

        random_code(&z, &c, i & 1);
        memcpy(page, c.byte, PAGE);
        memcpy(next, c.byte + PAGE, BEHIND);
        found = scan(next, ALL);
        ck_assert_msg(found || !c.wanted, "seed %d, page %u", _i + 1, i);
        nwanted += c.wanted;
        nothers += !c.wanted;
        refused += found && !c.wanted;
    }
    ck_assert_uint_gt(nwanted, 100);
    ck_assert_uint_gt(nothers, 100);
    ck_assert_uint_lt(refused, nothers / 2);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("shadow_scan");
    TCase *tc = tcase_create("shadow_scan");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, found_everywhere);
    tcase_add_test(tc, others_are_not);
    tcase_add_test(tc, over_the_end);
    tcase_add_test(tc, end_of_another);
    tcase_add_test(tc, begins_behind);
    tcase_add_test(tc, begins_behind_prefix);
    tcase_add_test(tc, never_in_step);
    tcase_add_test(tc, behind_data);
    tcase_add_test(tc, behind_unknown);
    tcase_add_test(tc, umip);
    tcase_add_test(tc, umip_in_numbers);
    tcase_add_loop_test(tc, random_pages, 0, 4);
    suite_add_tcase(s, tc);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
