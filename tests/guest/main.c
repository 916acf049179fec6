/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c: runs the tables of snippets on the backends of this build, each in a process of its own:
 * snippets [options] [PATTERN]; for the options see report.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../common/report.h"
#include "guest.h"

extern const struct snip_table snip_integer, snip_system;
static const struct snip_table *const tables[] = {&snip_integer, &snip_system, NULL};

static const char *const names[] = {"none", "rax",  "rcx", "rdx",     "rbx",     "rsp",       "rbp",
                                    "rsi",  "rdi",  "r8",  "r9",      "r10",     "r11",       "r12",
                                    "r13",  "r14",  "r15", "flags",   "cr0",     "cr2",       "cr3",
                                    "cr4",  "efer", "dr6", "dr7",     "cs",      "ss",        "ds",
                                    "es",   "fs",   "gs",  "fs base", "gs base", "rip offset"};

static const struct snip_code *find_code(const char *name)
{
    for (const struct snip_code *c = __start_snip_index; c < __stop_snip_index; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static void set_value(struct guest *g, struct vcpu_regs *r, const struct snip_value *v)
{
    switch (v->name) {
    case FLAGS:
        r->rflags = v->value | 2;
        break;
    case CR0:
        r->cr0 = v->value;
        break;
    case CR4:
        r->cr4 = v->value;
        break;
    case EFER:
        r->efer = v->value;
        break;
    case DR7:
        r->dr[7] = v->value;
        break;
    case FSBASE:
        r->seg[VMM_FS].base = v->value;
        break;
    case GSBASE:
        r->seg[VMM_GS].base = v->value;
        break;
    default:
        if (v->name >= RAX && v->name <= R15)
            r->gpr[v->name - RAX] = v->value;
        else if (v->name >= MEM)
            memcpy(g->mem + SNIP_DATA + 8 * (v->name - MEM), &v->value, 8);
    }
}

static uint64_t get_value(struct guest *g, const struct snippet *s, const struct guest_end *end,
                          unsigned name)
{
    const struct vcpu_regs *r = &end->regs;
    uint64_t v;

    switch (name) {
    case RSP:
        return end->rsp;
    case FLAGS:
        return end->rflags & (s->mask ? s->mask : CF | PF | AF | ZF | SF | DF | OF);
    case CR0:
        return r->cr0;
    case CR2:
        return r->cr2;
    case CR3:
        return r->cr3;
    case CR4:
        return r->cr4;
    case EFER:
        return r->efer;
    case DR6:
        return r->dr[6];
    case DR7:
        return r->dr[7];
    case CSSEL:
        return end->cs;
    case SSSEL:
        return r->seg[VMM_SS].selector;
    case DSSEL:
        return r->seg[VMM_DS].selector;
    case ESSEL:
        return r->seg[VMM_ES].selector;
    case FSSEL:
        return r->seg[VMM_FS].selector;
    case GSSEL:
        return r->seg[VMM_GS].selector;
    case FSBASE:
        return r->seg[VMM_FS].base;
    case GSBASE:
        return r->seg[VMM_GS].base;
    case RIPOFF:
        return end->rip - SNIP_CODE;
    default:
        if (name >= RAX && name <= R15)
            return r->gpr[name - RAX];
        memcpy(&v, g->mem + SNIP_DATA + 8 * (name - MEM), 8);
        return v;
    }
}

static bool has_row(const char *name)
{
    for (unsigned t = 0; tables[t] != NULL; t++)
        for (size_t i = 0; i < tables[t]->n; i++)
            if (strcmp(tables[t]->rows[i].name, name) == 0)
                return true;
    return false;
}

/* ---- one snippet, in the child ---- */

static char differences[300];

__attribute__((format(printf, 1, 2))) static void differs(const char *format, ...)
{
    size_t used = strlen(differences);
    va_list ap;

    if (used)
        used += (size_t)snprintf(differences + used, sizeof(differences) - used, "; ");
    if (used >= sizeof(differences))
        return;
    va_start(ap, format);
    vsnprintf(differences + used, sizeof(differences) - used, format, ap);
    va_end(ap);
}

static void compare(const char *what, uint64_t wanted, uint64_t found)
{
    if (wanted != found)
        differs("%s is %#llx, not %#llx", what, (unsigned long long)found,
                (unsigned long long)wanted);
}

static void check(struct guest *g, const struct snippet *s, const struct snip_code *code,
                  const struct guest_end *end)
{
    uint64_t length = (uint64_t)(code->end - code->begin);
    unsigned vector = s->vector ? s->vector - 1 : 3;

    if (end->reason != VMM_EXIT_HLT || end->vector > 255) {
        differs("exit %s at %#llx", vmm_exit_name(end->reason), (unsigned long long)end->regs.rip);
        return;
    }
    compare("vector", vector, end->vector);
    if (end->vector != vector)
        return;
    if (!s->vector)
        compare("end", SNIP_CODE + length + 1, end->rip);
    if (end->has_error)
        compare("error code", s->error, end->error);
    for (unsigned i = 0; i < SNIP_VALUES && s->out[i].name != NONE; i++) {
        unsigned name = s->out[i].name;
        char what[32];

        if (name >= MEM)
            snprintf(what, sizeof(what), "quadword %u", name - MEM);
        compare(name >= MEM ? what : names[name], s->out[i].value, get_value(g, s, end, name));
    }
}

static const char *backend_name;
static uint32_t backend_flags;

static void run(const void *row)
{
    const struct snippet *s = row;
    const struct snip_code *code = find_code(s->name);
    struct vmm_error error = {.size = sizeof(error)};
    struct vcpu_regs regs;
    struct guest_end end;
    struct guest g;

    if (code == NULL)
        outcome_fail(__FILE__, __LINE__, "no such assembly");
    if (!guest_create(&g, backend_name, backend_flags) ||
        !guest_prepare(&g, s->mode, code->begin, (size_t)(code->end - code->begin), &regs))
        outcome_fail(__FILE__, __LINE__, "no guest");
    if (!guest_has(&g, s->needs))
        outcome_not_offered("the instruction's CPUID feature");
    for (unsigned i = 0; i < SNIP_VALUES && s->in[i].name != NONE; i++)
        set_value(&g, &regs, &s->in[i]);
    if (vcpu_set_regs(g.cpu, &regs) != 0 || !guest_run(&g, s->mode, &end)) {
        vm_last_error(g.vm, &error);
        outcome_fail(__FILE__, __LINE__, "%s", error.text);
    }
    check(&g, s, code, &end);
    if (differences[0])
        outcome_fail(__FILE__, __LINE__, "%s", differences);
    guest_destroy(&g);
}

/* ---- all of them ---- */

static void run_all(const struct report_options *o)
{
    static const char *const modes[SNIP_NMODES] = {[REAL16] = "real mode",
                                                   [PROT16] = "16-bit protected mode",
                                                   [PROT32] = "32-bit protected mode",
                                                   [USER32] = "32-bit protected mode at CPL 3",
                                                   [COMPAT32] = "compatibility mode",
                                                   [LONG64] = "64-bit mode",
                                                   [USER64] = "64-bit mode at CPL 3"};
    struct outcome outcome;
    char name[128];

    for (unsigned t = 0; tables[t] != NULL; t++) {
        for (size_t i = 0; i < tables[t]->n; i++) {
            const struct snippet *row = &tables[t]->rows[i];

            snprintf(name, sizeof(name), "%s.%s", tables[t]->name, row->name);
            if (!strstr(name, o->pattern))
                continue;
            if (o->list) {
                printf("%s\t%s\n", name, modes[row->mode]);
                continue;
            }
            if (report_avoids(o, name))
                continue;
            outcome_run(run, row, o->timeout ? o->timeout : 60, &outcome);
            report_case(o, name, &outcome);
        }
    }
}

/* Assembly without a row is a test that asserts nothing. */
static bool all_have_rows(void)
{
    bool ok = true;

    for (const struct snip_code *c = __start_snip_index; c < __stop_snip_index; c++) {
        if (!has_row(c->name)) {
            fprintf(stderr, "%s has no row\n", c->name);
            ok = false;
        }
    }
    return ok;
}

int main(int argc, char **argv)
{
    struct vmm_backend_report reports[REPORT_BACKENDS];
    struct report_options o;
    uint32_t n;

    if (!report_parse(&o, argc, argv) || !all_have_rows())
        return 1;
    if (o.list) {
        run_all(&o);
        return 0;
    }
    backend_flags = o.flags;
    if (!report_backends(&o, reports, &n))
        return 1;
    for (uint32_t i = 0; i < n; i++) {
        backend_name = reports[i].name;
        if (report_begin(&o, &reports[i]))
            run_all(&o);
    }
    return report_end(&o);
}
