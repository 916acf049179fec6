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

/* Devices are accessed by few instructions, again and again. */
static const struct vmx_move *decode(struct vmx_vcpu *v, const uint8_t *insn, unsigned n,
                                     enum vmx_code code)
{
    struct vmx_known_move *k = &v->moves[v->soft.cpu->rip / 4 % VMX_NMOVES];
    uint64_t bytes[2];

    if (n < sizeof(bytes)) {
        k->code = 0;
        return vmx_decode_move(insn, n, code, &k->move) ? &k->move : NULL;
    }
    __builtin_memcpy(bytes, insn, sizeof(bytes));
    if (k->code == code + 1 && k->bytes[0] == bytes[0] && k->bytes[1] == bytes[1])
        return &k->move;
    k->code = 0;
    if (!vmx_decode_move((const uint8_t *)bytes, sizeof(bytes), code, &k->move))
        return NULL;
    k->bytes[0] = bytes[0];
    k->bytes[1] = bytes[1];
    k->code = (uint8_t)(code + 1);
    return &k->move;
}

int vmx_on_mmio(struct vmx_vcpu *v, uint64_t gpa, uint64_t qualification)
{
    struct vmx_ept_violation a = vmx_ept_violation(qualification);
    struct x86_cpu *cpu = v->soft.cpu;
    enum vmx_code code;
    const uint8_t *insn;
    const struct vmx_move *m;
    uint64_t value;
    unsigned n;
    int r;

    if (!a.translated || a.fetch || a.read == a.write || cpu->event.valid)
        return VMX_INJECT_SOFT;
    n = vmx_fetch(v, &insn, &code);
    m = n ? decode(v, insn, n, code) : NULL;
    if (!m || m->write != a.write || (gpa & 0xfff) + m->size > 0x1000 || !vmx_simple(v, m->len))
        return VMX_INJECT_SOFT;
    if (m->reg == VMM_RSP)
        vmx_pull(v, VMX_G_RSP);
    value = m->write ? store_value(cpu, m) : 0;
    v->in_insn = true;
    vmx_session_end(v);
    r = core_mmio_access(v->vcpu->vm, v->vcpu, x86_serial(cpu), gpa, m->size, m->write, &value);
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
