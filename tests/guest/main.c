/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c: runs the tables of snippets on a backend: snippets [--backend NAME] [PATTERN]. */
#include <stdio.h>
#include <string.h>

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

static int fail(const struct snippet *s, const char *what, uint64_t wanted, uint64_t found)
{
    printf("FAILED %s: %s is %#llx, not %#llx\n", s->name, what, (unsigned long long)found,
           (unsigned long long)wanted);
    return 1;
}

static int check(struct guest *g, const struct snippet *s, const struct snip_code *code,
                 const struct guest_end *end)
{
    uint64_t length = (uint64_t)(code->end - code->begin);
    unsigned vector = s->vector ? s->vector - 1 : 3;
    int bad = 0;

    if (end->reason != VMM_EXIT_HLT || end->vector > 255) {
        printf("FAILED %s: exit %s at %#llx\n", s->name, vmm_exit_name(end->reason),
               (unsigned long long)end->regs.rip);
        return 1;
    }
    if (end->vector != vector)
        return fail(s, "vector", vector, end->vector);
    if (!s->vector && end->rip != SNIP_CODE + length + 1)
        bad += fail(s, "end", SNIP_CODE + length + 1, end->rip);
    if (end->has_error && end->error != s->error)
        bad += fail(s, "error code", s->error, end->error);
    for (unsigned i = 0; i < SNIP_VALUES && s->out[i].name != NONE; i++) {
        unsigned name = s->out[i].name;
        uint64_t found = get_value(g, s, end, name);
        char what[32];

        if (found == s->out[i].value)
            continue;
        if (name >= MEM)
            snprintf(what, sizeof(what), "quadword %u", name - MEM);
        bad += fail(s, name >= MEM ? what : names[name], s->out[i].value, found);
    }
    return bad;
}

static int run(struct guest *g, const struct snippet *s)
{
    const struct snip_code *code = find_code(s->name);
    struct vcpu_regs regs;
    struct guest_end end;
    struct vmm_error error = {.size = sizeof(error)};

    if (code == NULL) {
        printf("FAILED %s: no such assembly\n", s->name);
        return 1;
    }
    if (!guest_prepare(g, s->mode, code->begin, (size_t)(code->end - code->begin), &regs))
        return 1;
    for (unsigned i = 0; i < SNIP_VALUES && s->in[i].name != NONE; i++)
        set_value(g, &regs, &s->in[i]);
    if (vcpu_set_regs(g->cpu, &regs) != 0 || !guest_run(g, s->mode, &end)) {
        vm_last_error(g->vm, &error);
        printf("FAILED %s: %s\n", s->name, error.text);
        return 1;
    }
    return check(g, s, code, &end) != 0;
}

int main(int argc, char **argv)
{
    const char *backend = "interp", *pattern = "";
    struct guest g;
    unsigned n = 0, bad = 0;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--backend") == 0 && i + 1 < argc)
            backend = argv[++i];
        else
            pattern = argv[i];
    }
    if (!guest_create(&g, backend))
        return 1;
    for (unsigned t = 0; tables[t] != NULL; t++) {
        for (size_t i = 0; i < tables[t]->n; i++) {
            if (strstr(tables[t]->rows[i].name, pattern) == NULL)
                continue;
            n++;
            bad += (unsigned)run(&g, &tables[t]->rows[i]);
        }
    }
    for (const struct snip_code *c = __start_snip_index; c < __stop_snip_index; c++) {
        if (!has_row(c->name)) {
            printf("FAILED %s: has no row\n", c->name);
            bad++;
        }
    }
    guest_destroy(&g);
    printf("%s: %u snippets, %u failed\n", backend, n, bad);
    return n == 0 || bad != 0;
}
