/* SPDX-License-Identifier: BSD-2-Clause */
/* options.h: the command line of vmm-run. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdint.h>

#define MAX_MODULES 32u

struct options {
    const char *backend; /* NULL: the best one */
    uint32_t irqchip;    /* VMM_IRQCHIP_MODE_* */
    uint32_t cpus;
    uint64_t memory;     /* bytes */
    uint64_t code_cache; /* bytes; 0: the default */
    const char *kernel;  /* also the firmware or flat image */
    uint32_t format;     /* VMM_BOOT_* */
    const char *append;
    char *modules[MAX_MODULES]; /* owned; each "FILE" or "FILE arguments" */
    uint32_t nmodules;
    uint32_t timeout; /* seconds; 0: none */
    int no_reboot;
    int stats;
    int hot;    /* VMM_VM_TRANSLATE_ALL */
    int direct; /* VMM_VM_DIRECT */
    int check;  /* bt in lock step with the software CPU */
    int list_backends;
};

/* Fills *options from the command line. Returns -1 to go on, or the exit status: --help and
 * --version end with 0, a mistake with 1 after a message on stderr. */
int options_parse(struct options *options, int argc, char **argv);

void options_free(struct options *options);

#endif
