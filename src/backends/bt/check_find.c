/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/check_find.c: lock step: from a segment that differs to the instruction that did. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/bt/check.h"
#include "core/x86/cache.h"
#include "core/x86/decode.h"

/* So far in front of the first difference its cause is looked for: what is translated together. */
#define LOOK_BACK 96u
/* So many instructions behind the cause its effect may show: code ends where a count does. */
#define LOOK_AHEAD 96u

static void load(struct check *c, struct x86_cpu *cpu, const struct x86_cpu *from)
{
    check_copy_state(cpu, from, true);
    cpu->restart = false;
    c->input = 0;
}

/*
 * From the segment's first state: `skip` instructions by the plain CPU, and then, from the state
 * that gives, up to `n` by both. Whether they differ.
 */
static bool replay(struct check *c, uint64_t skip, uint64_t n, struct check_diffs *diffs)
{
    struct x86_cpu *plain = c->iv.cpu;
    enum x86_stop stops[2];
    uint64_t done[2];
    unsigned input;

    check_pages_rewind(c);
    x86_cache_recheck(c->tested);
    x86_cache_recheck(plain);
    load(c, plain, c->start);
    if (skip)
        check_execute(plain, skip, &done[0]);
    check_pages_share(c);
    check_copy_state(c->tested, plain, true);
    input = c->input;
    stops[0] = check_execute(c->tested, n, &done[0]);
    c->input = input;
    stops[1] = check_execute(plain, n, &done[1]);
    check_differ(c, diffs);
    check_add_counts(diffs, stops[0], done[0], stops[1], done[1]);
    return diffs->n;
}

/* The smallest number of instructions after which they differ; they do after `n`. */
static uint64_t first_count(struct check *c, uint64_t n, struct check_diffs *diffs)
{
    uint64_t low = 0, high = n;

    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;

        if (replay(c, 0, middle, diffs))
            high = middle;
        else
            low = middle;
    }
    replay(c, 0, high, diffs);
    return high;
}

/* The last instruction from which on a difference of the same kind comes about within `ahead`
 * instructions behind the first difference; `last` if there is none. */
static uint64_t cause_within(struct check *c, uint64_t last, unsigned ahead,
                             struct check_diffs *diffs)
{
    uint64_t first = last > LOOK_BACK ? last - LOOK_BACK : 0;

    for (uint64_t i = last; i-- > first;)
        for (uint64_t n = last - i; n <= last - i + ahead; n++) {
            struct check_diffs now;

            if (!replay(c, i, n, &now) || strcmp(now.d[0].what, diffs->d[0].what) != 0)
                continue;
            *diffs = now;
            return i;
        }
    return last;
}

/*
 * Translated code is only entered if all of it is within the count, so what is wrong may be the
 * work of any instruction in front of the place where it shows. It is looked for by replaying from
 * each of them. Code that begins elsewhere may end elsewhere, so the second try goes further; if
 * that fails too, the difference needs what was executed before: the first instruction is named
 * that may have done it.
 */
static uint64_t find_cause(struct check *c, uint64_t last, struct check_diffs *diffs)
{
    uint64_t cause = cause_within(c, last, 0, diffs);

    if (cause == last)
        cause = cause_within(c, last, LOOK_AHEAD, diffs);
    return cause == last ? last - 1 : cause;
}

/* ---- telling ---- */

struct place {
    uint64_t rip;
    uint8_t bytes[16];
    unsigned len; /* of the instruction; 0: not known */
    char text[96];
};

/* The instruction after `skip` others. */
static void place_at(struct check *c, uint64_t skip, struct place *place)
{
    static const ZydisMachineMode modes[] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    static const ZydisStackWidth widths[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
                                             ZYDIS_STACK_WIDTH_64};
    struct x86_cpu *plain = c->iv.cpu;
    struct check_diffs ignored;
    uint64_t linear;
    unsigned n = 0, mode;
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatter formatter;

    memset(place, 0, sizeof(*place));
    if (skip)
        replay(c, skip - 1, 1, &ignored);
    else
        load(c, plain, c->start);
    place->rip = plain->rip;
    linear = plain->seg[VMM_CS].base + plain->rip;
    for (; n < 15; n++) {
        struct mmu_page page;
        uint64_t gpa;

        if (!mmu_translate(&plain->mmu, linear + n, &gpa) ||
            !plain->env->mmu.page(plain->env->mmu.ctx, gpa, &page))
            break;
        place->bytes[n] = page.host[gpa & ~MMU_PAGE_MASK];
    }
    mode = plain->mode & X86_MODE_CODE;
    ZydisDecoderInit(&decoder, modes[mode], widths[mode]);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, place->bytes, n, &insn, operands)))
        return;
    place->len = insn.length;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &insn, operands, insn.operand_count_visible,
                                    place->text, sizeof(place->text), linear, NULL);
}

static void print_bytes(char *to, size_t size, const struct place *place)
{
    size_t used = 0;

    to[0] = 0;
    for (unsigned i = 0; i < (place->len ? place->len : 8u) && used < size; i++)
        used += (size_t)snprintf(to + used, size - used, "%02x ", place->bytes[i]);
}

/* What is written so far. */
struct text {
    char *bytes; /* NULL: no memory */
    size_t used;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    char line[256];
    char *more;
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(line, sizeof(line), format, ap);
    va_end(ap);
    if (n < 0)
        return;
    if (n >= (int)sizeof(line))
        n = sizeof(line) - 1;
    more = realloc(text->bytes, text->used + (size_t)n + 1);
    if (!more)
        return;
    text->bytes = more;
    memcpy(more + text->used, line, (size_t)n + 1);
    text->used += (size_t)n;
}

/* One line of the listing. */
static void list(struct text *to, struct check *c, uint64_t insn, bool cause)
{
    struct place place;
    char bytes[64];

    place_at(c, insn, &place);
    print_bytes(bytes, sizeof(bytes), &place);
    add(to, "%c %12llu  %016llx  %-32s %s\n", cause ? '>' : ' ',
        (unsigned long long)(c->first + insn), (unsigned long long)place.rip, bytes, place.text);
}

/* The whole story, for vm_lockstep_report. */
static void report(struct check *c, uint64_t cause, uint64_t seen, const struct check_diffs *diffs)
{
    struct vm *vm = c->iv.vcpu->vm;
    uint64_t from = cause > 8 ? cause - 8 : 0, to = seen + 2;
    struct text text = {0};

    add(&text, "vCPU %u: difference %-20s translated  software CPU\n", c->iv.vcpu->id, "");
    for (unsigned i = 0; i < diffs->n && i < CHECK_DIFFS; i++)
        add(&text, "  %-32s %#18llx %#18llx\n", diffs->d[i].what,
            (unsigned long long)diffs->d[i].tested, (unsigned long long)diffs->d[i].plain);
    if (diffs->n > CHECK_DIFFS)
        add(&text, "  and %u more\n", diffs->n - CHECK_DIFFS);
    add(&text, "code, as the software CPU executes it; seen after instruction %llu:\n",
        (unsigned long long)(c->first + seen - 1));
    for (uint64_t i = from; i < to; i++)
        list(&text, c, i, i == cause);
    os_mutex_lock(&vm->error_lock);
    if (vm->lockstep_report)
        free(text.bytes);
    else
        vm->lockstep_report = text.bytes;
    os_mutex_unlock(&vm->error_lock);
}

static int tell(struct check *c, uint64_t insn, const struct check_diffs *diffs)
{
    const struct check_diff *first = &diffs->d[0];
    struct vcpu *vcpu = c->iv.vcpu;
    struct place place;
    char bytes[64];

    place_at(c, insn, &place);
    print_bytes(bytes, sizeof(bytes), &place);
    return vm_fail(vcpu->vm, VMM_E_INTERNAL, "vcpu_run",
                   "vCPU %u differs at instruction %llu, rip %#llx: %s(%s): %s is %#llx translated "
                   "and %#llx in the software CPU",
                   vcpu->id, (unsigned long long)(c->first + insn), (unsigned long long)place.rip,
                   bytes, place.text, first->what, (unsigned long long)first->tested,
                   (unsigned long long)first->plain);
}

static int find(struct check *c, uint64_t n)
{
    struct check_diffs diffs;
    uint64_t count, cause;

    if (!replay(c, 0, n, &diffs)) {
        c->nforeign++;
        return 0;
    }
    c->broken = true;
    count = first_count(c, n, &diffs);
    cause = find_cause(c, count, &diffs);
    report(c, cause, count, &diffs);
    return tell(c, cause, &diffs);
}

int check_find(struct check *c, uint64_t n)
{
    struct x86_cpu *plain = c->iv.cpu;
    struct bt *bt = c->tested->tier_state;
    struct x86_counters count = plain->count;
    unsigned hot = bt->hot;
    int err;

    c->phase = CHECK_REPLAY;
    bt->hot = 1; /* so that what begins elsewhere is translated, too */
    check_copy_state(c->end, plain, false);
    err = find(c, n);
    c->phase = CHECK_LIVE;
    bt->hot = hot;
    check_copy_state(plain, c->end, true);
    plain->count = count;
    x86_cache_flush(plain);
    x86_cache_flush(c->tested);
    return err;
}
