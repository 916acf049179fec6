/* SPDX-License-Identifier: BSD-2-Clause */
/* options.c: strict parsing of the command line, with messages that say what was expected. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmm/boot.h>
#include <vmm/vmm.h>

#define UNDECIDED      (-1) /* neither --direct nor --no-direct */
#define MEMORY_DEFAULT (512ull << 20)
#define MEMORY_MIN     (1ull << 20)
#define MEMORY_MAX     (1023ull << 30) /* the guest has 40 address bits, 1 GiB of them for devices */

static const char usage[] =
    "usage: vmm-run [options] --kernel FILE\n"
    "\n"
    "Runs a guest in a virtual PC; its serial port is the terminal (or stdin and stdout).\n"
    "\n"
    "  --kernel FILE         image to boot; its format is detected\n"
    "  --initrd FILE[,FILE]  initial RAM disks, or Multiboot modules (\"FILE arguments\")\n"
    "  --append STRING       command line for the kernel\n"
    "  --format FORMAT       auto (default), linux, pvh, multiboot, elf, flat, firmware\n"
    "  --flat FILE           short for --format flat --kernel FILE: real-mode code at 0x7c00\n"
    "  --firmware FILE       short for --format firmware --kernel FILE: a ROM image\n"
    "  --memory SIZE         memory in bytes, or with K, M, G (default 512M)\n"
    "  --cpus N              virtual CPUs (default 1)\n"
    "  --backend NAME        engine that runs the guest (default auto: the best one)\n"
    "  --check               with bt: compare it with the software CPU all the way (slow)\n"
    "  --hot                 with bt: translate all code at once (for tests)\n"
    "  --direct              with bt: execute user code directly, in processes of its own\n"
    "                        (default, but for --check)\n"
    "  --no-direct           with bt: translate all code\n"
    "  --code-cache SIZE     of generated code for each CPU, with bt (default 64M)\n"
    "  --irqchip WHERE       auto (default), user, split, kernel: the interrupt controllers\n"
    "  --list-backends       print what each engine says about this machine, and exit\n"
    "  --no-reboot           end with status 0 when the guest resets instead of booting again\n"
    "  --timeout SECONDS     end with status 1 after that time\n"
    "  --stats               print counters on stderr at the end\n"
    "  --help, --version\n"
    "\n"
    "At a terminal: Ctrl-A x quits, Ctrl-A b sends a break, Ctrl-A a sends Ctrl-A.\n"
    "\n"
    "Exit status: 0 the guest powered off, 1 usage or host error, 2 the guest crashed,\n"
    "(v << 1) | 1 if the guest wrote v to the isa-debug-exit port 0xf4.\n";

__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...)
{
    va_list args;

    fputs("vmm-run: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\nvmm-run: try --help\n", stderr);
    return 1;
}

/* A decimal number and nothing else; *end is left at the first other character. */
static int parse_number(const char *text, uint64_t *value, const char **end)
{
    char *stop;

    if (text[0] < '0' || text[0] > '9') {
        return -1;
    }
    errno = 0;
    *value = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0 ? 0 : -1;
}

static int parse_size(const char *text, uint64_t *value)
{
    static const struct {
        char suffix;
        uint32_t shift;
    } units[] = {{'\0', 0}, {'K', 10}, {'k', 10}, {'M', 20}, {'m', 20}, {'G', 30}, {'g', 30}};
    const char *end;

    if (parse_number(text, value, &end) != 0 || (end[0] != '\0' && end[1] != '\0')) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (units[i].suffix == end[0]) {
            if (*value > UINT64_MAX >> units[i].shift) {
                return -1;
            }
            *value <<= units[i].shift;
            return 0;
        }
    }
    return -1;
}

static int parse_count(const char *text, uint64_t max, uint32_t *value)
{
    uint64_t number;
    const char *end;

    if (parse_number(text, &number, &end) != 0 || *end != '\0' || number < 1 || number > max) {
        return -1;
    }
    *value = (uint32_t)number;
    return 0;
}

static int parse_format(const char *text, uint32_t *format)
{
    if (strcmp(text, "auto") == 0) {
        *format = VMM_BOOT_AUTO;
        return 0;
    }
    for (uint32_t kind = VMM_BOOT_LINUX; kind <= VMM_BOOT_FIRMWARE; kind++) {
        if (strcmp(text, vmm_boot_name(kind)) == 0) {
            *format = kind;
            return 0;
        }
    }
    return -1;
}

/* Adds the comma-separated files to the list. */
static int parse_modules(struct options *options, const char *text)
{
    for (;;) {
        size_t len = strcspn(text, ",");

        if (len == 0) {
            return fail("--initrd: empty file name");
        }
        if (options->nmodules == MAX_MODULES) {
            return fail("--initrd: too many files");
        }
        char *copy = strndup(text, len);
        if (copy == NULL) {
            return fail("out of memory");
        }
        options->modules[options->nmodules++] = copy;
        if (text[len] == '\0') {
            return -1;
        }
        text += len + 1;
    }
}

static int set_kernel(struct options *options, const char *file)
{
    if (options->kernel != NULL) {
        return fail("only one of --kernel, --flat and --firmware, and only once");
    }
    options->kernel = file;
    return -1;
}

/* Fixes the format, unless --format or another option fixed a different one. */
static int set_format(struct options *options, uint32_t format)
{
    if (options->format != VMM_BOOT_AUTO && options->format != format) {
        return fail("--format %s contradicts the other options", vmm_boot_name(options->format));
    }
    options->format = format;
    return -1;
}

enum { OPT_FIRST = 256, BACKEND, CPUS, MEMORY, KERNEL, FIRMWARE, FLAT, FORMAT, INITRD, APPEND };
enum {
    TIMEOUT = APPEND + 1,
    NO_REBOOT,
    STATS,
    LIST,
    HELP,
    VERSION,
    IRQCHIP,
    CHECK,
    CODE_CACHE,
    HOT,
    DIRECT,
    NO_DIRECT
};

static const struct option table[] = {
    {"backend", required_argument, NULL, BACKEND},
    {"cpus", required_argument, NULL, CPUS},
    {"memory", required_argument, NULL, MEMORY},
    {"kernel", required_argument, NULL, KERNEL},
    {"firmware", required_argument, NULL, FIRMWARE},
    {"flat", required_argument, NULL, FLAT},
    {"format", required_argument, NULL, FORMAT},
    {"initrd", required_argument, NULL, INITRD},
    {"append", required_argument, NULL, APPEND},
    {"timeout", required_argument, NULL, TIMEOUT},
    {"no-reboot", no_argument, NULL, NO_REBOOT},
    {"stats", no_argument, NULL, STATS},
    {"list-backends", no_argument, NULL, LIST},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},
    {"irqchip", required_argument, NULL, IRQCHIP},
    {"check", no_argument, NULL, CHECK},
    {"hot", no_argument, NULL, HOT},
    {"direct", no_argument, NULL, DIRECT},
    {"no-direct", no_argument, NULL, NO_DIRECT},
    {"code-cache", required_argument, NULL, CODE_CACHE},
    {NULL, 0, NULL, 0},
};

static int parse_irqchip(const char *arg, uint32_t *mode)
{
    static const char *const names[] = {"auto", "user", "split", "kernel"};

    for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(arg, names[i]) == 0) {
            *mode = i; /* VMM_IRQCHIP_MODE_* */
            return 0;
        }
    }
    return -1;
}

/* One option; -1 to go on, else the exit status. */
static int parse_option(struct options *options, int option, const char *arg)
{
    int status = -1;
    uint32_t format;

    switch (option) {
    case BACKEND:
        options->backend = strcmp(arg, "auto") == 0 ? NULL : arg;
        break;
    case IRQCHIP:
        if (parse_irqchip(arg, &options->irqchip) != 0) {
            return fail("--irqchip: '%s' is none of auto, user, split, kernel", arg);
        }
        break;
    case CPUS:
        if (parse_count(arg, VMM_MAX_VCPUS, &options->cpus) != 0) {
            return fail("--cpus: '%s' is not a number from 1 to 64", arg);
        }
        break;
    case MEMORY:
        if (parse_size(arg, &options->memory) != 0) {
            return fail("--memory: '%s' is not a size like 512M or 2G", arg);
        }
        if (options->memory < MEMORY_MIN || options->memory > MEMORY_MAX ||
            options->memory % 4096 != 0) {
            return fail("--memory: %s is not a multiple of 4K from 1M to 1023G", arg);
        }
        break;
    case KERNEL:
        return set_kernel(options, arg);
    case FIRMWARE:
    case FLAT:
        status = set_kernel(options, arg);
        if (status == -1) {
            status = set_format(options, option == FLAT ? VMM_BOOT_FLAT : VMM_BOOT_FIRMWARE);
        }
        break;
    case FORMAT:
        if (parse_format(arg, &format) != 0) {
            return fail("--format: '%s' is none of auto, linux, pvh, multiboot, elf, flat, "
                        "firmware",
                        arg);
        }
        return set_format(options, format == VMM_BOOT_AUTO ? options->format : format);
    case INITRD:
        return parse_modules(options, arg);
    case APPEND:
        options->append = arg;
        break;
    case TIMEOUT:
        if (parse_count(arg, 1u << 30, &options->timeout) != 0) {
            return fail("--timeout: '%s' is not a number of seconds", arg);
        }
        break;
    case NO_REBOOT:
        options->no_reboot = 1;
        break;
    case HOT:
        options->hot = 1;
        break;
    case DIRECT:
    case NO_DIRECT:
        options->direct = option == DIRECT;
        break;
    case CODE_CACHE:
        if (parse_size(arg, &options->code_cache) != 0) {
            return fail("--code-cache: '%s' is not a size like 512K or 32M", arg);
        }
        if (options->code_cache < VMM_CODE_CACHE_MIN || options->code_cache > VMM_CODE_CACHE_MAX) {
            return fail("--code-cache: %s is not from %uM to %uM", arg, VMM_CODE_CACHE_MIN >> 20,
                        VMM_CODE_CACHE_MAX >> 20);
        }
        break;
    case CHECK:
        options->check = 1;
        break;
    case STATS:
        options->stats = 1;
        break;
    case LIST:
        options->list_backends = 1;
        break;
    case HELP:
        fputs(usage, stdout);
        return 0;
    case VERSION:
        printf("vmm-run %s\n", vmm_version_string());
        return 0;
    default: /* getopt_long has said what is wrong */
        fputs("vmm-run: try --help\n", stderr);
        return 1;
    }
    return status;
}

int options_parse(struct options *options, int argc, char **argv)
{
    int option;

    *options =
        (struct options){.cpus = 1, .memory = MEMORY_DEFAULT, .append = "", .direct = UNDECIDED};
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        int status = parse_option(options, option, optarg);
        if (status != -1) {
            return status;
        }
    }
    if (optind < argc) {
        return fail("'%s' is not an option", argv[optind]);
    }
    if (options->check) {
        if (options->backend != NULL && strcmp(options->backend, "bt") != 0) {
            return fail("--check is for --backend bt");
        }
        if (options->direct == 1) {
            return fail("--check compares translated code: not with --direct");
        }
        options->backend = "bt";
        options->direct = 0;
    }
    if (options->direct == UNDECIDED) {
        options->direct = 1;
    }
    if (options->kernel == NULL && !options->list_backends) {
        return fail("nothing to boot: --kernel FILE is missing");
    }
    return -1;
}

void options_free(struct options *options)
{
    for (uint32_t i = 0; i < options->nmodules; i++) {
        free(options->modules[i]);
    }
    options->nmodules = 0;
}
