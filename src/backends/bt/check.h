/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/check.h: lock step: the translator is compared with the software CPU. */
#ifndef BACKENDS_BT_CHECK_H
#define BACKENDS_BT_CHECK_H

#include "backends/bt/bt.h"
#include "backends/interp/interp.h"

/*
 * A vCPU of a VM with VMM_VM_LOCKSTEP has two CPUs. The plain one, without a translator, is the
 * vCPU: it works on guest memory, and the program sees its state. The tested one has the translator
 * and only ever works on copies of pages.
 *
 * A segment is a run of up to CHECK_MAX_INSNS instructions that begins with both in one state and
 * with empty TLBs. The tested CPU executes it first, then the plain one; then their states and all
 * pages that either of them has touched must be equal. No event of the outside gets into a segment,
 * and nothing gets out: what would access a device, or an MSR that is more than a register, aborts
 * both CPUs in front of the instruction, which the plain CPU then executes alone ("live"), as it
 * does take interrupts. The time stamp counter and random numbers are recorded and played back.
 * With several vCPUs the world stands still during a segment.
 *
 * When the two differ, the segment is replayed on copies of its first state, with growing counts of
 * instructions, to find the first one after which they do (check_find.c).
 */

/* What is kept of a page of guest memory that a segment has touched. */
struct check_page {
    struct check_page *next;      /* in the same bucket */
    struct check_page *next_used; /* in the same segment */
    uint8_t *host;                /* guest memory itself */
    uint8_t *before;              /* as it was when the segment touched it first */
    uint8_t *tested;              /* the tested CPU's */
    uint8_t *plain;               /* the plain CPU's while a segment is replayed */
    uint64_t gpa;
    uint64_t segment, run; /* which it was touched by last */
    _Atomic uint64_t code; /* as mmu_page.code, for the tested CPU */
};

#define CHECK_PAGES_BITS 14
#define CHECK_MAX_INSNS  50000u /* of a segment */

/* What the CPUs differ in. */
#define CHECK_DIFFS 16u
struct check_diffs {
    unsigned n; /* may be more than there is room for */
    struct check_diff {
        char what[32];
        uint64_t tested, plain;
    } d[CHECK_DIFFS];
};

enum check_phase {
    CHECK_LIVE,   /* the plain CPU is the vCPU and nothing else */
    CHECK_TESTED, /* the tested CPU executes a segment */
    CHECK_PLAIN,  /* the plain CPU does */
    CHECK_REPLAY, /* either of them does again, on copies */
};

struct check {
    struct interp_vcpu iv; /* iv.cpu: the plain CPU */
    struct x86_cpu *tested;
    struct x86_cpu *start; /* holds the state in which the segment begins */
    struct x86_cpu *end;   /* and that of the plain CPU at its end, while it is replayed */
    struct x86_env env;    /* the tested CPU's */
    struct x86_env real;   /* the plain CPU's when it is live */
    enum check_phase phase;
    bool go_live; /* the next instruction is to be executed live */
    bool wanted;  /* the segment ends where it lets interrupts in */
    bool foreign; /* memory may have been changed by others since the last segment */
    bool no_memory;
    bool broken; /* they have differed */
    uint64_t nexits;
    uint64_t rng;
    uint64_t segment, run;
    struct check_page *used; /* by the segment */
    struct check_page *pages[1u << CHECK_PAGES_BITS];
    uint64_t cr8; /* the CR8 of a segment that has a local APIC's */
    uint64_t *inputs;
    unsigned ninputs, input;
    uint64_t first;    /* number of the segment's first instruction */
    uint64_t nforeign; /* differences that a replay did not show: memory was written by others */
};

/* The vCPU's in lock step, or NULL. */
static inline struct check *check_of(struct vcpu *vcpu)
{
    return vcpu->vm->flags & VMM_VM_LOCKSTEP ? vcpu->backend_data : NULL;
}

/* As vcpu_init, vcpu_fini and run of a backend. [check.c] */
int bt_check_open(struct vcpu *vcpu);
void bt_check_close(struct vcpu *vcpu);
int bt_check_run(struct vcpu *vcpu, bool step);

/* Gives a CPU the translator that the vCPU's VM is configured to have: 0 or an errno. [bt.c] */
int bt_attach_vcpu(struct x86_cpu *cpu, const struct vcpu *vcpu);

/* ---- the parts ---- */

/* Puts the CPUs' surroundings between them and the core's. [check_env.c] */
void check_env_init(struct check *c);
void check_env_fini(struct check *c);
/* Begins a segment: no page is touched. */
void check_pages_begin(struct check *c);
/* Begins a replay: all pages are as they were. */
void check_pages_rewind(struct check *c);
/* In a replay: the tested CPU's pages become those of the plain one. */
void check_pages_share(struct check *c);

/* Copies what makes a CPU's state. `loaded`: `to` is to run with it. [check_state.c] */
void check_copy_state(struct x86_cpu *to, const struct x86_cpu *from, bool loaded);
/* Whether the CPUs' states or pages differ: in what. */
bool check_differ(struct check *c, struct check_diffs *diffs);
/* Also compares how the CPUs came to their states. */
void check_add_counts(struct check_diffs *diffs, enum x86_stop tested_stop, uint64_t tested_done,
                      enum x86_stop plain_stop, uint64_t plain_done);

/* Runs to the limit or a stop other than a request. */
enum x86_stop check_execute(struct x86_cpu *cpu, uint64_t limit, uint64_t *done);

/* After a segment of `n` instructions in which they differed: finds the first one, and fails with
 * it (VMM_E_INTERNAL). 0: they do not differ any more. [check_find.c] */
int check_find(struct check *c, uint64_t n);

#endif
