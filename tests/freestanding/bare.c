/* SPDX-License-Identifier: BSD-2-Clause */
/* bare.c: a test program with a main() on a bare machine. The command line is
 * `[cpus=N] [kick=nmi] [lock] [hide=NAME,...] [resume=N] -- ARGUMENTS`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../examples/type1/host.h"
#include "../common/outcome.h"
#include "port.h"
#include "threads.h"

void host_main(const uint32_t *boot);
int main(int argc, char **argv);

/* ---- features of VMX that the library is not to find ---- */

#define PIN     0x481, 0x48d
#define PROC    0x482, 0x48e
#define EXITS   0x483, 0x48f
#define ENTRIES 0x484, 0x490
#define PROC2   0x48b, 0
#define MAY(n)  (1ull << (32 + (n))) /* the control may be 1 */

static const struct hidden {
    const char *name;
    uint32_t msr, true_msr;
    uint64_t bits;
} features[] = {
    {"virtual-nmis", PIN, MAY(5)},
    {"timer", PIN, MAY(6)},
    {"tsc-offset", PROC, MAY(3)},
    {"tpr-shadow", PROC, MAY(21)},
    {"unconditional-io", PROC, MAY(24)},
    {"io-bitmaps", PROC, MAY(25)},
    {"mtf", PROC, MAY(27)},
    {"secondary", PROC, MAY(31)},
    {"apic-access", PROC2, MAY(0)},
    {"ept", PROC2, MAY(1)},
    {"descriptor-tables", PROC2, MAY(2)},
    {"rdtscp", PROC2, MAY(3)},
    {"x2apic", PROC2, MAY(4)},
    {"vpid", PROC2, MAY(5)},
    {"unrestricted", PROC2, MAY(7)},
    {"apic-registers", PROC2, MAY(8)},
    {"virtual-interrupts", PROC2, MAY(9)},
    {"invpcid", PROC2, MAY(12)},
    {"pml", PROC2, MAY(17)},
    {"xsaves", PROC2, MAY(20)},
    {"tsc-scaling", PROC2, MAY(25)},
    {"ack", EXITS, MAY(15)},
    {"efer", EXITS, MAY(20) | MAY(21)},
    {"efer", ENTRIES, MAY(15)},
    {"pat", EXITS, MAY(18) | MAY(19)},
    {"pat", ENTRIES, MAY(14)},
    {"ept-2m", 0x48c, 0, 1ull << 16},
    {"ept-1g", 0x48c, 0, 1ull << 17},
    {"invept-single", 0x48c, 0, 1ull << 25},
    {"ept-ad", 0x48c, 0, 1ull << 21},
    {"invvpid-single", 0x48c, 0, 1ull << 41 | 1ull << 40 | 1ull << 43},
    {"true", 0x480, 0, 1ull << 55},
};
#define NFEATURES (sizeof(features) / sizeof(features[0]))

static bool hidden[NFEATURES];
static int (*read_msr)(void *ctx, uint32_t index, uint64_t *value);

static bool hides(const char *name)
{
    for (unsigned i = 0; i < NFEATURES; i++)
        if (hidden[i] && !strcmp(features[i].name, name))
            return true;
    return false;
}

/* What depends on a hidden control is as on a CPU without it. */
static uint64_t mask(uint32_t index, uint64_t value)
{
    for (unsigned i = 0; i < NFEATURES; i++)
        if (hidden[i] && (features[i].msr == index || features[i].true_msr == index))
            value &= ~features[i].bits;
    if (index == 0x48c && (hides("ept") || hides("secondary")))
        value &= ~0xffffffffull;
    if (index == 0x48c && (hides("vpid") || hides("secondary")))
        value &= 0xffffffffull;
    if (index == 0x48b && hides("secondary"))
        value = 0;
    if (index == 0x48b && hides("ept"))
        value &= ~(MAY(7) | MAY(17));
    return value;
}

static int masked_rdmsr(void *ctx, uint32_t index, uint64_t *value)
{
    int fault = read_msr(ctx, index, value);

    if (!fault && index >= 0x480 && index <= 0x491)
        *value = mask(index, *value);
    return fault;
}

/* Something is to be hidden of which the CPU has nothing: it is no other CPU than without that. */
static bool hides_nothing(void)
{
    bool asked = false;

    for (unsigned i = 0; i < NFEATURES; i++)
        asked |= hidden[i];
    for (uint32_t index = 0x480; index <= 0x491; index++) {
        uint64_t value;

        if (!read_msr(NULL, index, &value) && mask(index, value) != value)
            return false;
    }
    return asked;
}

static void hide(char *names)
{
    while (names) {
        char *next = strchr(names, ',');
        bool found = false;

        if (next)
            *next++ = 0;
        for (unsigned i = 0; i < NFEATURES; i++)
            if (!strcmp(features[i].name, names))
                found = hidden[i] = true;
        if (!found) {
            host_print("Bail out! no feature %s\n", names);
            host_exit(false);
        }
        names = next;
    }
}

/* ---- memory ---- */

static void *(*get_pages)(void *ctx, size_t n);
static size_t all_pages;

static void *pages_alloc(void *ctx, size_t n)
{
    if (n > all_pages && !thread_is_first())
        outcome_not_offered("as much memory of the host");
    return get_pages(ctx, n);
}

/* ---- the machine ---- */

/* As a firmware that does not want VMX. */
static void lock_vmx(void)
{
    if (host_ops.wrmsr(NULL, 0x3a, 1))
        host_print("# IA32_FEATURE_CONTROL cannot be written\n");
}

static int split(char *line, char **words, int max)
{
    int n = 0;

    while (*line && n < max) {
        char *space = strchr(line, ' ');

        if (*line != ' ')
            words[n++] = line;
        if (!space)
            break;
        *space = 0;
        line = space + 1;
    }
    return n;
}

static bool value(char *word, const char *name, char **text)
{
    size_t n = strlen(name);

    *text = word + n;
    return !strncmp(word, name, n);
}

static void run(char *line)
{
    uint32_t ncpus = 1;
    bool nmi = false;
    char *words[32], *text;
    int n = split(line, words, 32), i = 0, status;

    for (; i < n && strcmp(words[i], "--"); i++) {
        if (value(words[i], "cpus=", &text))
            ncpus = (uint32_t)atoi(text);
        else if (value(words[i], "hide=", &text))
            hide(text);
        else if (value(words[i], "resume=", &text))
            outcome_resume((unsigned)atoi(text));
        else if (!strcmp(words[i], "kick=nmi"))
            nmi = true;
        else if (!strcmp(words[i], "lock"))
            lock_vmx();
        else
            host_print("# unknown option %s\n", words[i]);
    }
    read_msr = host_ops.rdmsr;
    host_ops.rdmsr = masked_rdmsr;
    if (hides_nothing()) {
        host_print("1..0 # SKIP the CPU has none of what is hidden\n# done, status 0\n");
        host_exit(true);
    }
    threads_init(ncpus, nmi);
    get_pages = host_ops.pages_alloc;
    host_ops.pages_alloc = pages_alloc;
    if (i == n || vmm_host_init(&host_ops)) {
        host_print("Bail out! vmm_host_init\n");
        host_exit(false);
    }
    status = main(n - i, words + i);
    printf("# done, status %d\n", status);
    host_exit(true);
}

void host_main(const uint32_t *boot)
{
    static char line[512];
    const char *command = (const char *)(uintptr_t)boot[4];
    size_t length = boot[0] & 4 ? strlen(command) : 0;

    host_init(0x100000 + (uint64_t)boot[2] * 1024);
    all_pages = boot[2] / 4;
    if (length >= sizeof(line))
        length = sizeof(line) - 1;
    memcpy(line, command, length);
    run(line);
}
