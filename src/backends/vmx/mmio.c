/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/mmio.c: plain moves from and to what is not memory, without the software CPU. The
 * hardware has checked segments, rights and alignment, and tells the address. */
#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "vmx/decode.h"
#include "vmx/fields.h"
#include "vmx/insn.h"
#include "vmx/move.h"

/* The instruction at RIP as far as it lies in its page; 0: it cannot be had. */
static unsigned fetch(struct vmx_vcpu *v, const uint8_t **insn, enum vmx_code *code)
{
    struct x86_cpu *cpu = v->soft.cpu;
    const struct vmm_segment *cs = &cpu->seg[VMM_CS];
    struct core_page page;
    uint64_t linear, gpa;

    vmx_pull(v, VMX_G_RIP | VMX_G_FLAGS | VMX_G_SEGS | VMX_G_CONTROL);
    linear = cpu->rip;
    *code = VMX_CODE64;
    if (!x86_code64(cpu)) {
        linear = (uint32_t)(cs->base + cpu->rip);
        *code = cs->ar & VMM_AR_DB ? VMX_CODE32 : VMX_CODE16;
    }
    if (!mmu_translate(&cpu->mmu, linear, &gpa) || !core_mem_page(v->vcpu->vm, gpa, &page) ||
        !page.host)
        return 0;
    *insn = page.host + (gpa & 0xfff);
    return 0x1000 - (gpa & 0xfff);
}

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

int vmx_on_mmio(struct vmx_vcpu *v, uint64_t gpa, uint64_t qualification)
{
    struct vmx_ept_violation a = vmx_ept_violation(qualification);
    struct x86_cpu *cpu = v->soft.cpu;
    enum vmx_code code;
    const uint8_t *insn;
    struct vmx_move m;
    uint64_t value;
    unsigned n;
    int r;

    if (!a.translated || a.fetch || a.read == a.write || cpu->event.valid)
        return VMX_INJECT_SOFT;
    n = fetch(v, &insn, &code);
    if (!n || !vmx_decode_move(insn, n, code, &m) || m.write != a.write ||
        (gpa & 0xfff) + m.size > 0x1000 || !vmx_simple(v, m.len))
        return VMX_INJECT_SOFT;
    vmx_pull(v, VMX_G_RSP);
    value = m.write ? store_value(cpu, &m) : 0;
    v->in_insn = true;
    vmx_session_end(v);
    r = core_mmio_access(v->vcpu->vm, v->vcpu, x86_serial(cpu), gpa, m.size, m.write, &value);
    v->in_insn = false;
    if (r != CORE_IO_OK)
        return vmx_aborted(v);
    if (!m.write) {
        load(cpu, &m, value);
        if (m.reg == VMM_RSP)
            vmx_changed(v, VMX_G_RSP);
    }
    vmx_skip(v);
    return VMX_GO_ON;
}
