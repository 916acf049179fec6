/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c: runs random user-mode code on the real CPU and in a VM and compares all that user mode
 * can see. A case that differs is cut down to the instructions that matter, and printed. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff.h"
#include <vmm/vm.h>

#define FLAGS 0x40cd5u /* CF PF AF ZF SF DF OF AC */

struct options {
    uint64_t seed, count;
    unsigned insns, max_failures;
    uint32_t flags; /* VMM_VM_* */
    bool code32, verbose;
    const char *backend;
};

static const char *const end_names[] = {"done", "#DE", "#UD",     "#GP",  "#PF",
                                        "#SS",  "#AC", "#MF/#XM", "other"};
static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

static const struct diff_unit *unit_at(const struct diff_case *c, uint64_t rip)
{
    uint64_t off = rip - DIFF_CODE;

    for (unsigned i = 0; i < c->nunits; i++)
        if (off >= c->units[i].off && off < c->units[i].off + c->units[i].len)
            return &c->units[i];
    return &c->units[c->nunits];
}

static unsigned complain(bool print, const char *what, uint64_t native, uint64_t guest)
{
    if (native == guest)
        return 0;
    if (print)
        printf("    %-10s CPU %#18llx  VM %#18llx\n", what, (unsigned long long)native,
               (unsigned long long)guest);
    return 1;
}

static unsigned complain_bytes(bool print, const char *what, unsigned index, const uint8_t *native,
                               const uint8_t *guest, unsigned len)
{
    if (memcmp(native, guest, len) == 0)
        return 0;
    if (print) {
        printf("    %s%u\n      CPU ", what, index);
        for (unsigned i = len; i-- > 0;)
            printf("%02x%s", native[i], i % 8 ? "" : " ");
        printf("\n      VM  ");
        for (unsigned i = len; i-- > 0;)
            printf("%02x%s", guest[i], i % 8 ? "" : " ");
        printf("\n");
    }
    return 1;
}

/* Without PE where an unmasked overflow or underflow has kept the result from being stored: whether
 * that would have been inexact with an unbounded exponent is not modelled. */
static uint32_t comparable_mxcsr(uint32_t mxcsr)
{
    return mxcsr & ~(mxcsr >> 7) & 0x18 ? mxcsr & ~0x20u : mxcsr;
}

static unsigned compare_vec(const struct diff_vec *n, const struct diff_vec *g, bool print)
{
    unsigned bad = 0;

    bad += complain(print, "fcw", n->fcw, g->fcw);
    bad += complain(print, "fsw", n->fsw, g->fsw);
    bad += complain(print, "ftw", n->ftw, g->ftw);
    bad += complain(print, "mxcsr", comparable_mxcsr(n->mxcsr), comparable_mxcsr(g->mxcsr));
    for (unsigned i = 0; i < 8; i++) {
        bad += complain_bytes(print, "st", i, n->st[i], g->st[i], 10);
        bad += complain(print, "k", n->k[i], g->k[i]);
    }
    for (unsigned i = 0; i < 32; i++)
        bad += complain_bytes(print, "zmm", i, n->zmm[i], g->zmm[i], 64);
    return bad;
}

/* The number of differences. */
static unsigned compare(const struct diff_case *c, const struct diff_state *n,
                        const struct diff_state *g, bool print)
{
    const struct diff_unit *unit = unit_at(c, n->rip - (n->end == DIFF_DONE));
    bool loose = unit->loose && n->end != DIFF_DONE;
    uint32_t mask = FLAGS & ~unit->undefined;
    unsigned bad = 0;

    if (n->end != g->end) {
        if (print)
            printf("    end        CPU %s  VM %s\n", end_names[n->end], end_names[g->end]);
        bad++;
    }
    bad += complain(print, "rip", n->rip, g->rip);
    if (loose)
        return bad;
    bad += complain(print, "address", n->addr, g->addr);
    bad += complain(print, "rflags", n->rflags & mask, g->rflags & mask);
    bad += complain(print, "fs_base", n->fs_base, g->fs_base);
    bad += complain(print, "gs_base", n->gs_base, g->gs_base);
    for (unsigned i = 0; i < (c->code32 ? 8 : 16); i++)
        bad += complain(print, gpr_names[i], n->gpr[i], g->gpr[i]);
    bad += compare_vec(&n->vec, &g->vec, print);
    for (unsigned i = 0; i < DIFF_DATA_SIZE && bad < 40; i++) {
        char what[24];

        snprintf(what, sizeof(what), "data+%#x", i);
        bad += complain(print, what, n->data[i], g->data[i]);
    }
    return bad;
}

/* 1: they differ, 0: they do not, -1: could not be run. */
static int differs(const struct diff_case *c, bool print)
{
    static struct diff_state n, g;

    if (diff_native_run(c, &n) != 0 || diff_guest_run(c, &g) != 0)
        return -1;
    if (n.end == DIFF_OTHER && g.end == DIFF_OTHER)
        return 0;
    return compare(c, &n, &g, print) > 0;
}

/* Replaces all units by NOPs whose absence keeps the difference. */
static void minimize(struct diff_case *c)
{
    for (unsigned i = 0; i < c->nunits; i++) {
        struct diff_case trial = *c;

        memset(trial.code + trial.units[i].off, 0x90, trial.units[i].len);
        if (differs(&trial, false) == 1)
            *c = trial;
    }
}

static int number(const char *text, uint64_t *out)
{
    char *end;

    *out = strtoull(text, &end, 0);
    return *end == 0 && end != text;
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option list[] = {
        {"seed", 1, NULL, 's'},     {"count", 1, NULL, 'c'},   {"insns", 1, NULL, 'i'},
        {"code32", 0, NULL, '3'},   {"backend", 1, NULL, 'b'}, {"max-failures", 1, NULL, 'm'},
        {"verbose", 0, NULL, 'v'},  {"hot", 0, NULL, 'h'},     {"check", 0, NULL, 'k'},
        {"baseline", 0, NULL, 'l'}, {"direct", 0, NULL, 'd'},  {NULL, 0, NULL, 0},
    };
    uint64_t v = 0;
    int opt;

    while ((opt = getopt_long(argc, argv, "", list, NULL)) != -1) {
        if (strchr("scim", opt) != NULL && !number(optarg, &v))
            return -1;
        switch (opt) {
        case 's':
            o->seed = v;
            break;
        case 'c':
            o->count = v;
            break;
        case 'i':
            if (v < 1 || v > DIFF_MAX_UNITS)
                return -1;
            o->insns = (unsigned)v;
            break;
        case 'm':
            o->max_failures = (unsigned)v;
            break;
        case '3':
            o->code32 = true;
            break;
        case 'b':
            o->backend = optarg;
            break;
        case 'h':
            o->flags |= VMM_VM_TRANSLATE_ALL;
            break;
        case 'k':
            o->flags |= VMM_VM_LOCKSTEP;
            break;
        case 'l':
            o->flags |= VMM_VM_BASELINE;
            break;
        case 'd':
            o->flags |= VMM_VM_DIRECT;
            break;
        case 'v':
            o->verbose = true;
            break;
        default:
            return -1;
        }
    }
    return optind == argc ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct options o = {.seed = 1, .count = 2000, .insns = 12, .max_failures = 10};
    static struct diff_case c;
    unsigned failures = 0;
    uint64_t done = 0, ends[DIFF_OTHER + 1] = {0};

    if (parse(argc, argv, &o) != 0) {
        fprintf(stderr,
                "usage: diff [--seed N] [--count N] [--insns 1..%u] [--code32]\n"
                "            [--backend NAME] [--hot] [--check] [--baseline] [--direct]\n"
                "            [--max-failures N] [--verbose]\n",
                DIFF_MAX_UNITS);
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (diff_native_start() != 0) {
        printf("skipped: no traced child can run here\n");
        return 77;
    }
    diff_gen_init(diff_native_layout()->offset[2] != 0, diff_native_layout()->offset[5] != 0);
    if (diff_guest_start(o.backend, o.flags) != 0)
        return 1;
    for (; done < o.count && failures < o.max_failures; done++) {
        static struct diff_state n;
        int result;

        diff_gen(&c, o.seed + done, o.insns, o.code32);
        if (o.verbose) {
            printf("seed %llu\n", (unsigned long long)(o.seed + done));
            diff_print_code(&c);
        }
        result = differs(&c, false);
        if (result < 0) {
            fprintf(stderr, "seed %llu could not be run\n", (unsigned long long)(o.seed + done));
            return 1;
        }
        if (result == 0) {
            if (done % 64 == 0 && diff_native_run(&c, &n) == 0)
                ends[n.end]++;
            continue;
        }
        failures++;
        minimize(&c);
        printf("seed %llu differs:\n", (unsigned long long)(o.seed + done));
        diff_print_code(&c);
        differs(&c, true);
    }
    printf("%llu cases, %u differ; sample of ends:", (unsigned long long)done, failures);
    for (unsigned i = 0; i <= DIFF_OTHER; i++)
        if (ends[i] != 0)
            printf(" %s %llu", end_names[i], (unsigned long long)ends[i]);
    printf("\n");
    diff_guest_stop();
    diff_native_stop();
    return failures ? 1 : 0;
}
