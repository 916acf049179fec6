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
    unsigned count[REPORT_BACKENDS][4]; /* by result */
    FILE *log;
} all;

/* ---- the command line ---- */

static bool parse_format(struct report_options *o, const char *name)
{
    static const char *const formats[] = {"text", "tap", "markdown"};

    for (unsigned f = 0; f < 3; f++) {
        if (strcmp(name, formats[f]) == 0) {
            o->format = f;
            return true;
        }
    }
    return false;
}

/* An option with a value; false if `arg` is none. */
static bool parse_value(struct report_options *o, const char *arg, const char *value, bool *ok)
{
    if (strcmp(arg, "--backend") == 0)
        o->backend = value;
    else if (strcmp(arg, "--known") == 0)
        o->known = value;
    else if (strcmp(arg, "--log") == 0)
        o->log = value;
    else if (strcmp(arg, "--timeout") == 0)
        o->timeout = (unsigned)atoi(value);
    else if (strcmp(arg, "--format") == 0)
        *ok = parse_format(o, value);
    else
        return false;
    return true;
}

static bool parse_flag(struct report_options *o, const char *arg)
{
    static const struct {
        const char *arg;
        uint32_t flag;
    } flags[] = {{"--trust", VMM_VM_TRUST_HOST},
                 {"--hot", VMM_VM_TRANSLATE_ALL},
                 {"--check", VMM_VM_LOCKSTEP},
                 {"--baseline", VMM_VM_BASELINE},
                 {"--direct", VMM_VM_DIRECT}};

    for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (strcmp(arg, flags[i].arg) == 0) {
            o->flags |= flags[i].flag;
            return true;
        }
    return false;
}

bool report_parse(struct report_options *o, int argc, char **argv)
{
    bool ok = true;

    *o = (struct report_options){.pattern = ""};
    for (int i = 1; i < argc && ok; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            o->list = true;
        } else if (parse_flag(o, argv[i])) {
            continue;
        } else if (i + 1 < argc && parse_value(o, argv[i], argv[i + 1], &ok)) {
            i++;
        } else {
            ok = argv[i][0] != '-';
            o->pattern = argv[i];
        }
    }
    if (!ok)
        fprintf(stderr,
                "usage: %s [--backend NAME] [--trust] [--hot] [--check] [--baseline] [--direct]\n"
                "       [--known FILE] [--list] [--format text|tap|markdown] [--log FILE]\n"
                "       [--timeout SECONDS] [PATTERN]\n",
                argv[0]);
    if (ok && o->log) {
        all.log = fopen(o->log, "w");
        ok = all.log != NULL;
        if (!ok)
            perror(o->log);
    }
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

static void print_tap_begin(FILE *f, const struct vmm_backend_report *backend)
{
    fprintf(f, "# %s%s: %s\n", backend->result ? "skipped " : "", backend->name, backend->reason);
}

static void print_tap(FILE *f, const char *backend, const char *name, const struct outcome *outcome)
{
    bool ok = outcome->result == OUTCOME_PASS || outcome->result == OUTCOME_NOT_OFFERED;

    fprintf(f, "%sok %u - %s %s", ok ? "" : "not ", all.number, backend, name);
    if (outcome->result == OUTCOME_NOT_OFFERED)
        fprintf(f, " # SKIP not offered: %s", outcome->text);
    if (outcome->result == OUTCOME_KNOWN)
        fprintf(f, " # TODO host defect: %s", outcome->text);
    fprintf(f, "\n");
    if (outcome->result == OUTCOME_FAIL)
        fprintf(f, "# %s\n", outcome->text);
    fflush(f);
}

bool report_begin(const struct report_options *o, const struct vmm_backend_report *backend)
{
    bool usable = backend->result == 0;

    all.backends[all.nbackends++] = *backend;
    all.usable += usable;
    if (o->format == REPORT_TEXT)
        printf("%s: %s%s\n", backend->name, usable ? "" : "skipped: ", backend->reason);
    if (o->format == REPORT_TAP)
        print_tap_begin(stdout, backend);
    if (all.log)
        print_tap_begin(all.log, backend);
    fflush(stdout);
    return usable;
}

/* The defect that the file of known ones names for a case; *fatal: there is a '-' before it. */
static bool find_known(const struct report_options *o, const char *name, char *defect, size_t size,
                       bool *fatal)
{
    char line[256];
    bool found = false;
    FILE *f = o->known ? fopen(o->known, "r") : NULL;

    while (f && !found && fgets(line, sizeof(line), f)) {
        char *tab = strchr(line, '\t');

        if (!tab || line[0] == '#')
            continue;
        *tab = 0;
        *fatal = line[0] == '-';
        found = strcmp(line + *fatal, name) == 0;
        if (found)
            snprintf(defect, size, "%.*s", (int)strcspn(tab + 1, "\n"), tab + 1);
    }
    if (f)
        fclose(f);
    return found;
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
    static const char *const words[] = {"pass", "FAILED", "not offered", "known host defect"};
    unsigned b = all.nbackends - 1;
    struct row *row = find_row(name);
    struct outcome *kept = &row->outcome[b];
    char defect[200];
    bool fatal;

    row->has[b] = true;
    *kept = *outcome;
    if ((kept->result == OUTCOME_FAIL || kept->result == OUTCOME_PASS) &&
        find_known(o, name, defect, sizeof(defect), &fatal)) {
        bool fails = kept->result == OUTCOME_FAIL;

        snprintf(kept->text, sizeof(kept->text), "%s%s", fails ? "" : "although it is said that ",
                 defect);
        kept->result = fails ? OUTCOME_KNOWN : OUTCOME_PASS;
    }
    all.count[b][kept->result]++;
    all.number++;
    if (o->format == REPORT_TEXT)
        printf("%s: %s%s%s\n", name, words[kept->result], kept->text[0] ? ": " : "", kept->text);
    if (o->format == REPORT_TAP)
        print_tap(stdout, all.backends[b].name, name, kept);
    if (o->format == REPORT_MARKDOWN && kept->result == OUTCOME_FAIL)
        fprintf(stderr, "%s: %s: FAILED: %s\n", all.backends[b].name, name, kept->text);
    if (all.log)
        print_tap(all.log, all.backends[b].name, name, kept);
    fflush(stdout);
}

bool report_avoids(const struct report_options *o, const char *name)
{
    struct outcome outcome = {.result = OUTCOME_KNOWN};
    bool fatal;

    if (!find_known(o, name, outcome.text, sizeof(outcome.text), &fatal) || !fatal)
        return false;
    report_case(o, name, &outcome);
    return true;
}

static void print_cell(const struct row *row, unsigned b)
{
    const struct outcome *outcome = &row->outcome[b];

    if (!row->has[b])
        printf(" |");
    else if (outcome->result == OUTCOME_NOT_OFFERED)
        printf(" not offered: %s |", outcome->text);
    else if (outcome->result == OUTCOME_KNOWN)
        printf(" host defect: %s |", outcome->text);
    else
        printf(" %s |", outcome->result == OUTCOME_PASS ? "pass" : "FAILED");
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

/* Again, where it is found: after some hundred cases. */
static void print_failures(unsigned b)
{
    for (unsigned i = 0; i < all.nrows; i++) {
        const struct row *row = &all.rows[i];

        if (row->has[b] && row->outcome[b].result == OUTCOME_FAIL)
            printf("%s: FAILED: %s: %s\n", all.backends[b].name, row->name, row->outcome[b].text);
    }
}

static void print_summary(void)
{
    for (unsigned b = 0; b < all.nbackends; b++) {
        const unsigned *c = all.count[b];

        if (all.backends[b].result != 0)
            continue;
        print_failures(b);
        printf("%s: %u passed, %u failed, %u not offered", all.backends[b].name, c[OUTCOME_PASS],
               c[OUTCOME_FAIL], c[OUTCOME_NOT_OFFERED]);
        if (c[OUTCOME_KNOWN])
            printf(", %u known defects of the host", c[OUTCOME_KNOWN]);
        printf("\n");
    }
}

int report_end(const struct report_options *o)
{
    unsigned bad = 0;

    if (o->format == REPORT_MARKDOWN)
        print_table();
    else if (o->format == REPORT_TEXT)
        print_summary();
    else
        printf("1..%u\n", all.number);
    if (all.log) {
        fprintf(all.log, "1..%u\n", all.number);
        fclose(all.log);
    }
    for (unsigned b = 0; b < all.nbackends; b++)
        bad += all.count[b][OUTCOME_FAIL];
    for (unsigned i = 0; i < all.nrows; i++)
        free(all.rows[i].name);
    free(all.rows);
    if (all.nbackends && !all.usable)
        return 77;
    if (!all.number)
        fprintf(stderr, "nothing ran\n");
    return bad || !all.number;
}
