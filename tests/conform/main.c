/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c: runs the conformance list on the backends of this build:
 * conform [options] [PATTERN]; for the options see report.h. */
#include <stdio.h>
#include <unistd.h>

#include "../common/report.h"
#include "conform.h"

extern const struct conform_area area_lifecycle, area_memory, area_mmio, area_io, area_registers,
    area_cpu, area_exits, area_kick, area_budget, area_events, area_irq, area_services, area_policy,
    area_debug, area_dirty, area_timers, area_threads, area_apic;

static const struct conform_area *const areas[] = {
    &area_lifecycle, &area_memory, &area_mmio,   &area_io,     &area_registers, &area_cpu,
    &area_exits,     &area_kick,   &area_budget, &area_events, &area_irq,       &area_services,
    &area_policy,    &area_debug,  &area_dirty,  &area_timers, &area_threads,   &area_apic,
};
#define NAREAS (sizeof(areas) / sizeof(areas[0]))

static const struct {
    uint32_t mode;
    const char *suffix;
    uint64_t cap;
} modes[] = {
    {VMM_IRQCHIP_MODE_USER, "/user", 0},
    {VMM_IRQCHIP_MODE_SPLIT, "/split", VMM_CAP_IRQCHIP_SPLIT},
    {VMM_IRQCHIP_MODE_KERNEL, "/kernel", VMM_CAP_IRQCHIP_KERNEL},
};

static const struct {
    uint64_t cap;
    const char *name;
} cap_names[] = {
#define NAME(cap) {VMM_CAP_##cap, "VMM_CAP_" #cap},
    NAME(MEM_EXEC) NAME(INSN_BUDGET) NAME(STEP) NAME(BREAKPOINT) NAME(WATCHPOINT) NAME(EXIT_CPUID)
        NAME(EXIT_HYPERCALL) NAME(TSC_KHZ) NAME(IRQCHIP_SPLIT) NAME(IRQCHIP_KERNEL) NAME(KVM_PV)
            NAME(CPUID_TABLE) NAME(TSC_OFFSET) NAME(HYPERCALL_UD) NAME(DIRTY_EXACT)
#undef NAME
};

/* The first of the capabilities that is not there, or NULL. */
static const char *missing(uint64_t caps)
{
    uint64_t lacks = caps & ~conform_caps.caps;

    for (size_t i = 0; lacks && i < sizeof(cap_names) / sizeof(cap_names[0]); i++)
        if (lacks & cap_names[i].cap)
            return cap_names[i].name;
    return lacks ? "a capability" : NULL;
}

static void run_case(const void *arg)
{
    const struct conform_case *c = arg;

    c->run();
}

/* Runs a case once and reports it. */
static void run_one(const struct report_options *o, const struct conform_area *area,
                    const struct conform_case *c, unsigned mode, bool with_mode)
{
    struct outcome outcome = {.result = OUTCOME_NOT_OFFERED};
    const char *lacks = missing(c->caps | (with_mode ? modes[mode].cap : 0));
    char name[128];

    snprintf(name, sizeof(name), "%s.%s%s", area->name, c->name,
             with_mode ? modes[mode].suffix : "");
    if (!strstr(name, o->pattern))
        return;
    if (o->list) {
        printf("%s\t%s\n", name, c->promise);
        return;
    }
    if (report_avoids(o, name))
        return;
    conform_irqchip_mode = with_mode ? modes[mode].mode : VMM_IRQCHIP_MODE_AUTO;
    if (lacks)
        snprintf(outcome.text, sizeof(outcome.text), "%s", lacks);
    else
        outcome_run(run_case, c, o->timeout ? o->timeout : 60, &outcome);
    report_case(o, name, &outcome);
}

static void run_all(const struct report_options *o)
{
    for (size_t a = 0; a < NAREAS; a++) {
        for (size_t i = 0; i < areas[a]->n; i++) {
            const struct conform_case *c = &areas[a]->cases[i];

            for (unsigned m = 0; m < (c->flags & CASE_MODES ? 3 : 1); m++)
                run_one(o, areas[a], c, m, c->flags & CASE_MODES);
        }
    }
}

/* ---- capabilities of a backend ---- */

static int caps_fd[2];

static void send_caps(const void *arg)
{
    struct vm_caps caps = {.size = sizeof(caps)};

    (void)arg;
    OK(begin_bare(VMM_IRQCHIP_NONE, 0, 1));
    OK(vm_get_caps(vm, &caps));
    CHECK(write(caps_fd[1], &caps, sizeof(caps)) == sizeof(caps));
    end();
}

/* In a child, like all that a backend does here. */
static bool get_caps(const struct report_options *o)
{
    struct outcome outcome;
    bool ok;

    if (pipe(caps_fd) != 0)
        return false;
    outcome_run(send_caps, NULL, 30, &outcome);
    close(caps_fd[1]);
    ok = outcome.result == OUTCOME_PASS &&
         read(caps_fd[0], &conform_caps, sizeof(conform_caps)) == sizeof(conform_caps);
    close(caps_fd[0]);
    if (!ok)
        report_case(o, "capabilities", &outcome);
    return ok;
}

int main(int argc, char **argv)
{
    struct vmm_backend_report reports[REPORT_BACKENDS];
    struct report_options o;
    uint32_t n;

    if (!report_parse(&o, argc, argv))
        return 1;
    if (o.list) {
        run_all(&o);
        return 0;
    }
    conform_flags = o.flags;
    if (!report_backends(&o, reports, &n))
        return 1;
    for (uint32_t i = 0; i < n; i++) {
        conform_backend = reports[i].name;
        if (report_begin(&o, &reports[i]) && get_caps(&o))
            run_all(&o);
    }
    return report_end(&o);
}
