/* SPDX-License-Identifier: BSD-2-Clause */
/* report.c: results of cases on backends. All are kept, for the table at the end. */
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    char *name;
    bool has[REPORT_BACKENDS];
    struct outcome outcome[REPORT_BACKENDS];
};

static struct {
    struct row *rows;
    unsigned nrows, cap;
    unsigned nbackends, usable, number;
    struct vmm_backend_report backends[REPORT_BACKENDS];
    unsigned count[REPORT_BACKENDS][3]; /* by result */
} all;

/* ---- the command line ---- */

bool report_parse(struct report_options *o, int argc, char **argv)
{
    static const char *const formats[] = {"text", "tap", "markdown"};
    bool ok = true;

    *o = (struct report_options){.pattern = ""};
    for (int i = 1; i < argc && ok; i++) {
        if (strcmp(argv[i], "--backend") == 0 && i + 1 < argc) {
            o->backend = argv[++i];
        } else if (strcmp(argv[i], "--list") == 0) {
            o->list = true;
        } else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc) {
            o->timeout = (unsigned)atoi(argv[++i]);
        } else if (strcmp(argv[i], "--format") == 0 && i + 1 < argc) {
            int f = 2;

            i++;
            while (f >= 0 && strcmp(argv[i], formats[f]) != 0)
                f--;
            ok = f >= 0;
            o->format = ok ? (unsigned)f : 0;
        } else {
            ok = argv[i][0] != '-';
            o->pattern = argv[i];
        }
    }
    if (!ok)
        fprintf(stderr,
                "usage: %s [--backend NAME] [--list] [--format text|tap|markdown] "
                "[PATTERN]\n",
                argv[0]);
    return ok;
}

bool report_backends(const struct report_options *o, struct vmm_backend_report *reports,
                     uint32_t *n)
{
    int found;

    memset(reports, 0, REPORT_BACKENDS * sizeof(*reports));
    for (unsigned i = 0; i < REPORT_BACKENDS; i++)
        reports[i].size = sizeof(*reports);
    found = vmm_backend_probe(reports, REPORT_BACKENDS);
    *n = found < 0 ? 0 : (uint32_t)found;
    if (*n > REPORT_BACKENDS)
        *n = REPORT_BACKENDS;
    if (!o->backend)
        return *n != 0;
    for (uint32_t i = 0; i < *n; i++) {
        if (strcmp(reports[i].name, o->backend) == 0) {
            reports[0] = reports[i];
            *n = 1;
            return true;
        }
    }
    fprintf(stderr, "this build has no backend '%s'\n", o->backend);
    return false;
}

/* ---- results ---- */

bool report_begin(const struct report_options *o, const struct vmm_backend_report *backend)
{
    bool usable = backend->result == 0;

    all.backends[all.nbackends++] = *backend;
    all.usable += usable;
    if (o->format == REPORT_TEXT)
        printf("%s: %s%s\n", backend->name, usable ? "" : "skipped: ", backend->reason);
    if (o->format == REPORT_TAP)
        printf("# %s%s: %s\n", usable ? "" : "skipped ", backend->name, backend->reason);
    fflush(stdout);
    return usable;
}

static struct row *find_row(const char *name)
{
    for (unsigned i = 0; i < all.nrows; i++)
        if (strcmp(all.rows[i].name, name) == 0)
            return &all.rows[i];
    if (all.nrows == all.cap) {
        all.cap = all.cap ? all.cap * 2 : 256;
        all.rows = realloc(all.rows, all.cap * sizeof(*all.rows));
        if (!all.rows)
            abort();
    }
    memset(&all.rows[all.nrows], 0, sizeof(*all.rows));
    all.rows[all.nrows].name = strdup(name);
    return &all.rows[all.nrows++];
}

void report_case(const struct report_options *o, const char *name, const struct outcome *outcome)
{
    static const char *const words[] = {"pass", "FAILED", "not offered"};
    unsigned b = all.nbackends - 1;
    struct row *row = find_row(name);
    bool fails = outcome->result == OUTCOME_FAIL;

    row->has[b] = true;
    row->outcome[b] = *outcome;
    all.count[b][outcome->result]++;
    all.number++;
    if (o->format == REPORT_TEXT)
        printf("%s: %s%s%s\n", name, words[outcome->result], outcome->text[0] ? ": " : "",
               outcome->text);
    if (o->format == REPORT_TAP) {
        printf("%sok %u - %s %s%s%s\n", fails ? "not " : "", all.number, all.backends[b].name, name,
               outcome->result == OUTCOME_NOT_OFFERED ? " # SKIP not offered: " : "",
               outcome->result == OUTCOME_NOT_OFFERED ? outcome->text : "");
        if (fails)
            printf("# %s\n", outcome->text);
    }
    if (o->format == REPORT_MARKDOWN && fails)
        fprintf(stderr, "%s: %s: FAILED: %s\n", all.backends[b].name, name, outcome->text);
    fflush(stdout);
}

static void print_cell(const struct row *row, unsigned b)
{
    if (!row->has[b])
        printf(" |");
    else if (row->outcome[b].result == OUTCOME_NOT_OFFERED)
        printf(" not offered: %s |", row->outcome[b].text);
    else
        printf(" %s |", row->outcome[b].result == OUTCOME_PASS ? "pass" : "FAILED");
}

static void print_table(void)
{
    printf("| case |");
    for (unsigned b = 0; b < all.nbackends; b++)
        printf(" `%s` |", all.backends[b].name);
    printf("\n|---|");
    for (unsigned b = 0; b < all.nbackends; b++)
        printf("---|");
    printf("\n");
    for (unsigned i = 0; i < all.nrows; i++) {
        printf("| %s |", all.rows[i].name);
        for (unsigned b = 0; b < all.nbackends; b++)
            print_cell(&all.rows[i], b);
        printf("\n");
    }
    printf("\n");
    for (unsigned b = 0; b < all.nbackends; b++)
        if (all.backends[b].result != 0)
            printf("`%s` was skipped: %s\n", all.backends[b].name, all.backends[b].reason);
}

int report_end(const struct report_options *o)
{
    unsigned bad = 0;

    if (o->format == REPORT_MARKDOWN)
        print_table();
    if (o->format == REPORT_TAP)
        printf("1..%u\n", all.number);
    for (unsigned b = 0; b < all.nbackends; b++) {
        const unsigned *c = all.count[b];

        bad += c[OUTCOME_FAIL];
        if (o->format == REPORT_TEXT && all.backends[b].result == 0)
            printf("%s: %u passed, %u failed, %u not offered\n", all.backends[b].name,
                   c[OUTCOME_PASS], c[OUTCOME_FAIL], c[OUTCOME_NOT_OFFERED]);
    }
    for (unsigned i = 0; i < all.nrows; i++)
        free(all.rows[i].name);
    free(all.rows);
    if (all.nbackends && !all.usable)
        return 77;
    if (!all.number)
        fprintf(stderr, "nothing ran\n");
    return bad || !all.number;
}
