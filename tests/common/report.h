/* SPDX-License-Identifier: BSD-2-Clause */
/* report.h: results of cases on backends: as lines, as TAP, or as a table. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>

#include "outcome.h"
#include <vmm/vm.h>

#define REPORT_BACKENDS 8u

/* What a driver is asked to do. */
struct report_options {
    const char *backend; /* NULL: all of the build */
    const char *pattern; /* part of a case's name */
    enum { REPORT_TEXT, REPORT_TAP, REPORT_MARKDOWN } format;
    bool list;
    uint32_t flags;    /* VMM_VM_* of --trust, --hot, --check, --baseline; for all backends */
    const char *known; /* a file of cases that fail by defects of the host: name, tab, defect; of
                          those with '-' before the name the machine does not survive the attempt */
    const char *log;   /* a file that gets the results as TAP too */
    unsigned timeout;  /* seconds for each case; 0: the driver's default */
};

/*
 * PROGRAM [--backend NAME] [--trust] [--hot] [--check] [--baseline] [--known FILE] [--list]
 *         [--format text|tap|markdown] [--log FILE] [--timeout SECONDS] [PATTERN]
 * False: said why.
 */
bool report_parse(struct report_options *o, int argc, char **argv);

/* The backends to run, with their probes' answers. False (with a message): none has that name. */
bool report_backends(const struct report_options *o, struct vmm_backend_report *reports,
                     uint32_t *n);

/* Begins a backend; what is reported next is of it. False: it is not usable, which is reported. */
bool report_begin(const struct report_options *o, const struct vmm_backend_report *backend);
void report_case(const struct report_options *o, const char *name, const struct outcome *outcome);
/* Whether the file of known ones says not to run this case, which is then reported. */
bool report_avoids(const struct report_options *o, const char *name);
/* Prints what is left; the program's exit status: 0, 1 if something failed or nothing ran, or 77 if
 * only unusable backends were asked for. */
int report_end(const struct report_options *o);

#endif
