/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/mmio.c: plain moves from and to what is not memory, without the software CPU. The
 * hardware has checked segments, rights and alignment, and tells the address. */
#include "backends/vmx/fetch.h"
#include "backends/vmx/simple.h"
#include "core/x86/control.h"
#include "vmx/decode.h"

static uint64_t store_value(const struct x86_cpu *cpu, const struct vmx_move *m)
{
    if (m->immediate)
        return m->value;
    return cpu->gpr[m->reg] >> (m->high ? 8 : 0);
}

static void load(struct x86_cpu *cpu, const struct vmx_move *m, uint64_t value)
{
    unsigned shift = 64 - 8u * m->size;

    if (m->sign)
        value = (uint64_t)((int64_t)(value << shift) >> shift);
    if (m->high)
        cpu->gpr[m->reg] = (cpu->gpr[m->reg] & ~0xff00ull) | (value & 0xff) << 8;
    else
        x86_set_reg(cpu, m->reg, m->to, value);
}

static int access(struct vmx_vcpu *v, uint64_t gpa, bool write)
{
    struct x86_cpu *cpu = v->soft.cpu;
    const struct vmx_move *m = vmx_move_at_rip(v);
    uint64_t value;
    int r;

    /* At the begin of a page it may be the rest of an access to memory in front of it. */
    if (!m || m->write != write || (gpa & 0xfff) + m->size > 0x1000 ||
        (m->size > 1 && !(gpa & 0xfff)) || !vmx_simple(v, m->len))
        return VMX_INJECT_SOFT;
    if (m->reg == VMM_RSP)
        vmx_pull(v, VMX_G_RSP);
    value = m->write ? store_value(cpu, m) : 0;
    v->in_insn = true;
    vmx_session_end(v);
    r = core_only_access(v->vcpu, vmx_serial(v), m->write ? CORE_WRITE : 0, gpa, m->size, &value);
    v->in_insn = false;
    if (r != CORE_IO_OK)
        return vmx_aborted(v);
    if (!m->write) {
        load(cpu, m, value);
        if (m->reg == VMM_RSP)
            vmx_changed(v, VMX_G_RSP);
    }
    vmx_skip(v);
    return VMX_GO_ON;
}

/* ---- EPT violations ---- */

/* Of the qualification. */
#define READ       1u
#define WRITE      2u
#define FETCH      4u
#define TRANSLATED 0x180u

int vmx_on_mmio(struct vmx_vcpu *v, uint64_t gpa, uint64_t qualification)
{
    const bool write = qualification & WRITE;

    /* The operand itself, either read or written. */
    if ((qualification & (TRANSLATED | FETCH)) != TRANSLATED || !(qualification & READ) != write)
        return VMX_INJECT_SOFT;
    return access(v, gpa, write);
}

int vmx_on_apic_move(struct vmx_vcpu *v, uint32_t offset, bool write)
{
    return access(v, APIC_DEFAULT_BASE | offset, write);
}

/* ---- page faults on shadow page tables ---- */

/*
 * What a walk has found for a fault is kept as a TLB would keep it, by what says that nothing has
 * been invalidated since: the linear page, which the guest may access so, is that physical page,
 * which is no memory.
 */
static struct vmx_mmio_page *page_of(struct vmx_vcpu *v, uint64_t linear, uint32_t error)
{
    return &v->mmio_pages[((linear >> 12) ^ (error & MMU_PF_W)) % VMX_NMMIO];
}

void vmx_mmio_found(struct vmx_vcpu *v, uint64_t linear, uint32_t error, uint64_t gpa)
{
    /* Alignment is checked behind the walk. */
    if ((error & MMU_PF_U) && (v->flags & X86_AC))
        return;
    *page_of(v, linear, error) = (struct vmx_mmio_page){.linear = linear & ~0xfffull,
                                                        .gpa = gpa & ~0xfffull,
                                                        .flush_gen = v->soft.cpu->mmu.flush_gen,
                                                        .map = v->vv->map_generation,
                                                        .error = error,
                                                        .ac = v->flags & X86_AC};
}

int vmx_on_mmio_fault(struct vmx_vcpu *v, uint64_t linear, uint32_t error)
{
    const struct vmx_mmio_page *p = page_of(v, linear, error);

    if (p->linear != (linear & ~0xfffull) || p->error != error ||
        p->flush_gen != v->soft.cpu->mmu.flush_gen || p->map != v->vv->map_generation ||
        p->ac != (v->flags & X86_AC) || v->soft.cpu->event.valid)
        return VMX_INJECT_SOFT;
    return access(v, p->gpa | (linear & 0xfff), error & MMU_PF_W);
}
