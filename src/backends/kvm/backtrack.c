/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/backtrack.c: which instruction an access belongs to that KVM has left to us. */
#include <string.h>

#include "backends/kvm/kvm.h"
#include "core/internal.h"
#include "core/x86/control.h"
#include "core/x86/decode.h"

/*
 * While a read waits for its answer KVM has changed nothing, and RIP is that of the instruction.
 * Before a write that is done: RIP is behind the instruction (or, of a repeated one that goes on,
 * at it), and registers are what they are after it. Which bytes in front of RIP the instruction is
 * has to be guessed: those that are one instruction, which makes this access with these registers.
 */

#define BEFORE   48 /* bytes in front of RIP that are looked at */
#define WINDOW   (BEFORE + INSN_MAX)
#define INSN_MAX 15

struct insn {
    ZydisDecodedInstruction i;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

struct window {
    uint8_t byte[WINDOW]; /* from RIP - BEFORE */
    unsigned first, end;  /* those that could be read; `first` <= BEFORE */
};

/* ---- bytes and instructions ---- */

static bool read_byte(struct kvm_vcpu *kv, uint64_t rip, uint8_t *byte)
{
    const struct x86_cpu *cpu = kv->soft.cpu;
    uint64_t linear = cpu->seg[VMM_CS].base + rip, gpa;
    struct core_page page;

    if (x86_code64(cpu))
        linear = rip;
    else
        linear = (uint32_t)linear;
    if (!mmu_translate(&kv->soft.cpu->mmu, linear, &gpa) ||
        !core_mem_page(kv->vcpu->vm, gpa, &page) || !page.host)
        return false;
    *byte = page.host[gpa & ~MMU_PAGE_MASK];
    return true;
}

static void read_window(struct kvm_vcpu *kv, struct window *w)
{
    uint64_t rip = kv->soft.cpu->rip;

    for (w->first = BEFORE; w->first > 0; w->first--)
        if (rip < BEFORE - w->first + 1 ||
            !read_byte(kv, rip - BEFORE + w->first - 1, &w->byte[w->first - 1]))
            break;
    for (w->end = BEFORE; w->end < WINDOW; w->end++)
        if (!read_byte(kv, rip + w->end - BEFORE, &w->byte[w->end]))
            break;
}

static bool decode(const ZydisDecoder *z, const struct window *w, unsigned at, struct insn *insn)
{
    return at < w->end &&
           ZYAN_SUCCESS(ZydisDecoderDecodeFull(z, w->byte + at, w->end - at, &insn->i, insn->op));
}

static bool repeats(const struct insn *insn)
{
    return insn->i.attributes &
           (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
}

/* ---- whether an instruction makes the access ---- */

static uint64_t low_bytes(uint64_t value, unsigned size)
{
    return size >= 8 ? value : value & ((1ull << size * 8) - 1);
}

static int gpr_index(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
            return reg - ZYDIS_REGISTER_AH;
        if (reg >= ZYDIS_REGISTER_SPL)
            return reg - ZYDIS_REGISTER_SPL + VMM_RSP;
        return reg - ZYDIS_REGISTER_AL;
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return ZydisRegisterGetId(reg);
    default:
        return -1;
    }
}

static uint64_t reg_value(const struct x86_cpu *cpu, ZydisRegister reg)
{
    int index = gpr_index(reg);

    if (index < 0)
        return 0;
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return cpu->gpr[index] >> 8;
    return cpu->gpr[index];
}

/* Linear address of a memory operand; `moved`: a string instruction has moved its registers on. */
static uint64_t operand_linear(const struct x86_cpu *cpu, const struct insn *insn,
                               const ZydisDecodedOperand *o, uint64_t next_rip, bool moved)
{
    static const uint8_t segments[] = {VMM_ES, VMM_CS, VMM_SS, VMM_DS, VMM_FS, VMM_GS};
    uint64_t ea = (uint64_t)o->mem.disp.value, step = o->size / 8;
    unsigned seg = (unsigned)(o->mem.segment - ZYDIS_REGISTER_ES);

    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
        ea += next_rip;
    else if (o->mem.base != ZYDIS_REGISTER_NONE)
        ea += reg_value(cpu, o->mem.base);
    if (o->mem.index != ZYDIS_REGISTER_NONE)
        ea += reg_value(cpu, o->mem.index) * o->mem.scale;
    if (moved)
        ea += cpu->rflags & X86_DF ? step : 0 - step;
    ea = low_bytes(ea, insn->i.address_width / 8u);
    if (seg < sizeof(segments) && (!x86_code64(cpu) || seg >= 4))
        ea += cpu->seg[segments[seg]].base;
    return x86_code64(cpu) ? ea : (uint32_t)ea;
}

/* Whether `gpa` is in the `size` bytes at `linear`; *offset from there. */
static bool reaches(struct kvm_vcpu *kv, uint64_t linear, unsigned size, uint64_t gpa,
                    unsigned *offset)
{
    unsigned left = MMU_PAGE_SIZE - (unsigned)(linear & ~MMU_PAGE_MASK);
    uint64_t at;

    if (mmu_translate(&kv->soft.cpu->mmu, linear, &at) && gpa - at < (size < left ? size : left)) {
        *offset = (unsigned)(gpa - at);
        return true;
    }
    if (size <= left || !mmu_translate(&kv->soft.cpu->mmu, linear + left, &at) ||
        gpa - at >= size - left)
        return false;
    *offset = left + (unsigned)(gpa - at);
    return true;
}

/* The value that a plain store or a string store writes, if that can be known. */
static bool stored(const struct x86_cpu *cpu, const struct insn *insn, uint64_t *value)
{
    const ZydisDecodedOperand *source = &insn->op[1];

    switch (insn->i.mnemonic) {
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
        *value = cpu->gpr[VMM_RAX];
        return true;
    case ZYDIS_MNEMONIC_MOV:
        if (source->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            *value = source->imm.value.u;
        else if (source->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_index(source->reg.value) >= 0)
            *value = reg_value(cpu, source->reg.value);
        else
            return false;
        return true;
    default:
        return false;
    }
}

static bool is_string(const struct insn *insn)
{
    return insn->i.meta.category == ZYDIS_CATEGORY_STRINGOP ||
           insn->i.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

static bool makes_mmio(struct kvm_vcpu *kv, const struct insn *insn, uint64_t next_rip, bool after)
{
    const struct kvm_run *run = kv->run;
    const ZydisOperandActions wanted =
        run->mmio.is_write ? ZYDIS_OPERAND_ACTION_MASK_WRITE : ZYDIS_OPERAND_ACTION_MASK_READ;
    uint64_t value;
    unsigned offset;

    for (unsigned n = 0; n < insn->i.operand_count; n++) {
        const ZydisDecodedOperand *o = &insn->op[n];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN ||
            !(o->actions & wanted))
            continue;
        uint64_t linear = operand_linear(kv->soft.cpu, insn, o, next_rip, after && is_string(insn));
        if (!reaches(kv, linear, o->size / 8u, run->mmio.phys_addr, &offset))
            continue;
        if (!run->mmio.is_write || !stored(kv->soft.cpu, insn, &value) || offset >= 8)
            return true;
        value >>= offset * 8;
        return memcmp(&value, run->mmio.data,
                      run->mmio.len < 8 - offset ? run->mmio.len : 8 - offset) == 0;
    }
    return false;
}

static bool port_is(struct kvm_vcpu *kv, const ZydisDecodedOperand *o)
{
    uint64_t port =
        o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? o->imm.value.u : kv->soft.cpu->gpr[VMM_RDX];

    return (uint16_t)port == kv->run->io.port;
}

static bool makes_pio(struct kvm_vcpu *kv, const struct insn *insn)
{
    const struct kvm_run *run = kv->run;
    const uint8_t *data = (const uint8_t *)run + run->io.data_offset;
    bool out = run->io.direction == KVM_EXIT_IO_OUT;
    uint64_t rax = kv->soft.cpu->gpr[VMM_RAX];

    switch (insn->i.mnemonic) {
    case ZYDIS_MNEMONIC_IN:
        return !out && port_is(kv, &insn->op[1]) && insn->op[0].size / 8 == run->io.size;
    case ZYDIS_MNEMONIC_OUT:
        return out && port_is(kv, &insn->op[0]) && insn->op[1].size / 8 == run->io.size &&
               memcmp(&rax, data, run->io.size) == 0;
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
        return !out && port_is(kv, &insn->op[1]) && insn->op[0].size / 8 == run->io.size;
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
        return out && port_is(kv, &insn->op[0]) && insn->op[1].size / 8 == run->io.size;
    default:
        return false;
    }
}

static bool makes(struct kvm_vcpu *kv, const struct insn *insn, uint64_t next_rip, bool after)
{
    if (kv->run->exit_reason == KVM_EXIT_MMIO)
        return makes_mmio(kv, insn, next_rip, after);
    return makes_pio(kv, insn);
}

/* ---- the search ---- */

/* For each length of an instruction that ends at RIP, from how many of the places before it one
 * comes there instruction by instruction: code that is decoded from a wrong start soon falls into
 * step. */
static void count_ways(const ZydisDecoder *z, const struct window *w, unsigned ways[INSN_MAX + 1])
{
    uint8_t length[BEFORE] = {0}, last[BEFORE];
    ZydisDecodedInstruction i;

    for (unsigned at = BEFORE; at-- > w->first;) {
        if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(z, NULL, w->byte + at, w->end - at, &i)))
            length[at] = i.length;
        /* The length of the last instruction on the way to RIP from here; 0: it misses it. */
        if (!length[at] || at + length[at] > BEFORE)
            last[at] = 0;
        else
            last[at] = at + length[at] == BEFORE ? length[at] : last[at + length[at]];
        ways[last[at]]++;
    }
}

/* The length of the instruction in front of RIP that has made the write; 0: there is none. */
static unsigned find_before(struct kvm_vcpu *kv, const ZydisDecoder *z, const struct window *w,
                            struct insn *insn)
{
    unsigned found[INSN_MAX + 1], n = 0, ways[INSN_MAX + 1] = {0}, best;

    for (unsigned len = 1; len <= INSN_MAX && len <= BEFORE - w->first; len++)
        if (decode(z, w, BEFORE - len, insn) && insn->i.length == len &&
            makes(kv, insn, kv->soft.cpu->rip, true))
            found[n++] = len;
    if (!n)
        return 0;
    best = found[n - 1];
    if (n > 1) {
        count_ways(z, w, ways);
        for (unsigned i = 0; i < n; i++)
            if (ways[found[i]] > ways[best])
                best = found[i];
    }
    decode(z, w, BEFORE - best, insn);
    return best;
}

static bool is_write(const struct kvm_run *run)
{
    return run->exit_reason == KVM_EXIT_MMIO ? run->mmio.is_write
                                             : run->io.direction == KVM_EXIT_IO_OUT;
}

/* Whether the instruction at RIP makes the access. */
static bool find_at(struct kvm_vcpu *kv, const ZydisDecoder *z, const struct window *w,
                    struct insn *insn)
{
    bool write = is_write(kv->run);

    if (!decode(z, w, BEFORE, insn))
        return false;
    /* Stores are over, unless they are repeated; ports may be written before RIP moves. */
    if (write && kv->run->exit_reason == KVM_EXIT_MMIO && !repeats(insn))
        return false;
    return makes(kv, insn, kv->soft.cpu->rip + insn->i.length, write);
}

/* Where the instruction is in the window. */
static bool find(struct kvm_vcpu *kv, struct window *w, struct insn *insn, unsigned *at)
{
    struct insn before;
    unsigned len = 0;
    ZydisDecoder z;

    x86_dec_init(&z, kv->soft.cpu->mode);
    bool here = find_at(kv, &z, w, insn);
    if (is_write(kv->run))
        len = find_before(kv, &z, w, &before);
    if (!here && !len)
        return false;
    /* Two equal OUTs: KVM either moves RIP before such exits or it does not. */
    if (!here || !len)
        kv->moves_rip = len != 0;
    if (!len || (here && !kv->moves_rip)) {
        *at = BEFORE;
        return true;
    }
    *insn = before;
    *at = BEFORE - len;
    return true;
}

/* What of the registers the instruction still has to write. */
static void note_writes(struct kvm_vcpu *kv, const struct insn *insn)
{
    if (is_write(kv->run))
        return;
    if (is_string(insn))
        kv->insn_writes = 1u << VMM_RCX | 1u << VMM_RSI | 1u << VMM_RDI;
    for (unsigned n = 0; n < insn->i.operand_count; n++) {
        const ZydisDecodedOperand *o = &insn->op[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && gpr_index(o->reg.value) >= 0)
            kv->insn_writes |= 1u << gpr_index(o->reg.value);
    }
    if (insn->i.cpu_flags && (insn->i.cpu_flags->modified | insn->i.cpu_flags->set_0 |
                              insn->i.cpu_flags->set_1 | insn->i.cpu_flags->undefined))
        kv->insn_writes |= KVM_WRITES_FLAGS;
}

int kvm_find_insn(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    struct window w;
    struct insn insn;
    unsigned at;
    int err;

    if (kv->insn_serial == kv->serial)
        return 0;
    err = kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS);
    if (err)
        return err;
    kv->insn_serial = kv->serial;
    kv->insn_rip = cpu->rip;
    kv->insn_len = 0;
    kv->insn_writes = 0;
    read_window(kv, &w);
    if (kv->run->exit_reason != KVM_EXIT_MMIO && kv->run->exit_reason != KVM_EXIT_IO) {
        at = BEFORE; /* RDMSR and WRMSR */
    } else if (find(kv, &w, &insn, &at)) {
        note_writes(kv, &insn);
    } else {
        return 0;
    }
    kv->insn_rip = (cpu->rip - BEFORE + at) & cpu->rip_mask;
    kv->insn_len = (uint8_t)(w.end - at < INSN_MAX ? w.end - at : INSN_MAX);
    memcpy(kv->insn, w.byte + at, kv->insn_len);
    return 0;
}

int kvm_at_ins(struct kvm_vcpu *kv, bool *ins)
{
    struct window w;
    struct insn insn;
    ZydisDecoder z;
    int err = kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS);

    if (err)
        return err;
    read_window(kv, &w);
    x86_dec_init(&z, kv->soft.cpu->mode);
    *ins = decode(&z, &w, BEFORE, &insn) &&
           (insn.i.mnemonic == ZYDIS_MNEMONIC_INSB || insn.i.mnemonic == ZYDIS_MNEMONIC_INSW ||
            insn.i.mnemonic == ZYDIS_MNEMONIC_INSD);
    return 0;
}
