/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/cpu.c: VMXON, VMXOFF, and on which CPU a VMCS is. */
#include <stdio.h>
#include <string.h>

#include "vmx/cpu.h"
#include "vmx/insn.h"

#define CR4_VMXE (1ull << 13)

/* ---- VMX operation ---- */

static int refuse(struct vmx_cpu *cpu, const char *text)
{
    snprintf(cpu->why, sizeof(cpu->why), "%s", text);
    return VMM_E_NODEV;
}

/* The MSR may be written until it is locked, which VMXON demands (SDM Vol. 3C 23.7). */
static int unlock(struct vmx_machine *m, struct vmx_cpu *cpu)
{
    const struct vmm_host_ops *h = m->host;
    uint64_t value;

    if (h->rdmsr(h->ctx, VMX_MSR_FEATURE_CONTROL, &value))
        return refuse(cpu, "IA32_FEATURE_CONTROL cannot be read");
    if (!(value & VMX_FEATURE_LOCKED)) {
        value |= VMX_FEATURE_LOCKED | VMX_FEATURE_OUTSIDE;
        if (h->wrmsr(h->ctx, VMX_MSR_FEATURE_CONTROL, value))
            return refuse(cpu, "IA32_FEATURE_CONTROL cannot be written");
    }
    if (!(value & VMX_FEATURE_OUTSIDE))
        return refuse(cpu, "VMX is disabled by the firmware");
    return VMM_OK;
}

static void *region(struct vmx_machine *m)
{
    uint32_t *page = m->host->pages_alloc(m->host->ctx, 1);

    if (page)
        *page = vmx_revision(&m->caps);
    return page;
}

static bool fixed_ok(uint64_t value, uint64_t fixed0, uint64_t fixed1)
{
    return !(~value & fixed0) && !(value & ~fixed1);
}

/* One choice of controls is for all CPUs; another revision has another format of VMCSs. */
static bool same_caps(const struct vmx_machine *m, struct vmx_cpu *cpu)
{
    struct vmx_caps caps;

    if (vmx_caps_read(&caps, m->host, cpu->why, sizeof(cpu->why)))
        return false;
    caps.feature_control = m->caps.feature_control;
    if (!memcmp(&caps, &m->caps, sizeof(caps)))
        return true;
    snprintf(cpu->why, sizeof(cpu->why), "its VMX is not that of the CPU that has been asked");
    return false;
}

/* Nothing is allocated here: this may be in an interrupt handler. */
int vmx_cpu_on(struct vmx_machine *m, uint32_t number)
{
    struct vmx_cpu *cpu = &m->cpus[number];
    uint64_t cr4;
    int err;

    if (cpu->on)
        return VMM_OK;
    if (!same_caps(m, cpu))
        return VMM_E_NODEV;
    if (!fixed_ok(vmx_insn_get_cr0(), m->caps.cr0_fixed0, m->caps.cr0_fixed1))
        return refuse(cpu, "CR0 of the host has bits that VMX does not allow (PE, NE, PG)");
    err = unlock(m, cpu);
    if (err)
        return err;
    cr4 = vmx_insn_get_cr4();
    cpu->had_vmxe = cr4 & CR4_VMXE;
    if (!fixed_ok(cr4 | CR4_VMXE, m->caps.cr4_fixed0, m->caps.cr4_fixed1))
        return refuse(cpu, "CR4 of the host has bits that VMX does not allow");
    vmx_insn_set_cr4(cr4 | CR4_VMXE);
    if (vmx_insn_on(m->host->virt_to_phys(m->host->ctx, cpu->region)) != VMX_OK) {
        vmx_insn_set_cr4(cr4);
        return refuse(cpu, "VMXON fails: this CPU is in VMX operation already");
    }
    cpu->on = true;
    cpu->current = NULL;
    cpu->why[0] = 0;
    return VMM_OK;
}

void vmx_cpu_off(struct vmx_machine *m, uint32_t number)
{
    struct vmx_cpu *cpu = &m->cpus[number];

    if (cpu->on) {
        vmx_insn_off();
        if (!cpu->had_vmxe)
            vmx_insn_set_cr4(vmx_insn_get_cr4() & ~CR4_VMXE);
    }
    cpu->on = false;
    cpu->current = NULL;
}

static void on_here(void *arg)
{
    struct vmx_machine *m = arg;

    vmx_cpu_on(m, m->host->cpu_id(m->host->ctx));
}

static void off_here(void *arg)
{
    struct vmx_machine *m = arg;

    vmx_cpu_off(m, m->host->cpu_id(m->host->ctx));
}

void vmx_machine_off(struct vmx_machine *m)
{
    for (uint32_t i = 0; i < m->ncpus; i++) {
        if (m->cpus[i].on)
            m->host->run_on_cpu(m->host->ctx, i, off_here, m);
        /* A CPU that is still on refers to its region. */
        if (m->cpus[i].region && !m->cpus[i].on)
            m->host->pages_free(m->host->ctx, m->cpus[i].region, 1);
        m->cpus[i].region = NULL;
    }
}

static void read_tsc(void *arg)
{
    *(uint64_t *)arg = vmx_insn_rdtsc();
}

/* Counters that differ by more than a call takes: time would go back when a vCPU moves. */
static bool tscs_agree(struct vmx_machine *m)
{
    for (uint32_t i = 0; i < m->ncpus; i++)
        for (unsigned n = 0; n < 3; n++) {
            uint64_t before = vmx_insn_rdtsc(), there = 0, after;

            m->host->run_on_cpu(m->host->ctx, i, read_tsc, &there);
            after = vmx_insn_rdtsc();
            if (there < before || there > after)
                return false;
        }
    return true;
}

int vmx_machine_on(struct vmx_machine *m, char *why, size_t size)
{
    for (uint32_t i = 0; i < m->ncpus; i++) {
        m->cpus[i].region = region(m);
        if (!m->cpus[i].region) {
            vmx_machine_off(m);
            snprintf(why, size, "no memory");
            return VMM_E_NOMEM;
        }
    }
    for (uint32_t i = 0; i < m->ncpus; i++) {
        if (!m->host->run_on_cpu(m->host->ctx, i, on_here, m) && m->cpus[i].on)
            continue;
        snprintf(why, size, "CPU %u: %s", i,
                 m->cpus[i].why[0] ? m->cpus[i].why : "cannot be reached");
        vmx_machine_off(m);
        return VMM_E_NODEV;
    }
    m->host->preempt_off(m->host->ctx);
    m->same_tsc = tscs_agree(m);
    m->host->preempt_on(m->host->ctx);
    return VMM_OK;
}

/* ---- VMCSs ---- */

int vmx_vmcs_create(struct vmx_machine *m, struct vmx_vmcs *v)
{
    *v = (struct vmx_vmcs){.page = region(m), .cpu = VMX_NO_CPU};
    if (!v->page)
        return VMM_E_NOMEM;
    v->phys = m->host->virt_to_phys(m->host->ctx, v->page);
    return VMM_OK;
}

/* On the CPU where it is active. */
static void clear_here(struct vmx_cpu *cpu, struct vmx_vmcs *v)
{
    vmx_insn_clear(v->phys);
    if (cpu->current == v)
        cpu->current = NULL;
    v->launched = false;
    v->cpu = VMX_NO_CPU;
}

struct clear {
    struct vmx_machine *m;
    struct vmx_vmcs *v;
};

static void clear_there(void *arg)
{
    struct clear *c = arg;

    if (c->v->cpu != VMX_NO_CPU)
        clear_here(&c->m->cpus[c->v->cpu], c->v);
}

/* A CPU may keep an active VMCS in itself: only VMCLEAR there brings it to memory (SDM Vol. 3C
 * 24.11.1). */
void vmx_vmcs_clear(struct vmx_machine *m, struct vmx_vmcs *v)
{
    struct clear c = {m, v};

    if (v->cpu == VMX_NO_CPU)
        return;
    if (v->cpu == m->host->cpu_id(m->host->ctx))
        clear_there(&c);
    else
        m->host->run_on_cpu(m->host->ctx, v->cpu, clear_there, &c);
}

bool vmx_vmcs_load(struct vmx_machine *m, struct vmx_vmcs *v)
{
    uint32_t number = m->host->cpu_id(m->host->ctx);
    struct vmx_cpu *cpu = &m->cpus[number];

    if (v->cpu == number && cpu->current == v)
        return true;
    if (v->cpu != number) {
        vmx_vmcs_clear(m, v);
        if (v->cpu != VMX_NO_CPU)
            return false; /* that CPU cannot be reached */
        /* The first time brings the region into the state clear. */
        if (vmx_insn_clear(v->phys) != VMX_OK)
            return false;
        v->launched = false;
    }
    if (vmx_insn_load(v->phys) != VMX_OK)
        return false;
    cpu->current = v;
    v->cpu = number;
    return true;
}

/* The second word of the region (SDM Vol. 3C 24.2). */
uint32_t vmx_vmcs_abort(const struct vmx_vmcs *v)
{
    return __atomic_load_n((const uint32_t *)v->page + 1, __ATOMIC_RELAXED);
}

void vmx_vmcs_destroy(struct vmx_machine *m, struct vmx_vmcs *v)
{
    if (!v->page)
        return;
    m->host->preempt_off(m->host->ctx);
    vmx_vmcs_clear(m, v);
    m->host->preempt_on(m->host->ctx);
    m->host->pages_free(m->host->ctx, v->page, 1);
    memset(v, 0, sizeof(*v));
}
