/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/x87.c: x87 arithmetic, loads, stores and comparisons. */
#include <string.h>

#include "core/os.h"
#include "core/x86/vec_emit.h"
#include "core/x86/x87.h"

/*
 * An instruction is executed by the host's own x87 with the guest's state and control word,
 * unmasked exceptions included: they stay pending, and FNSAVE fetches the state without waiting for
 * them. The flags of earlier exceptions are taken out before, so that the host never has one to
 * report, and put back afterwards.
 *
 * Registers and status change only after a store to memory has succeeded.
 */

/* Layout of FSAVE, 32-bit protected mode (SDM Vol. 1 figure 8-9). */
#define SAVE_FCW  0
#define SAVE_FSW  4
#define SAVE_FTW  8
#define SAVE_REGS 28

#define FLAGS_MASK 0x3fu

#define RSI 6 /* holds the memory operand's address in thunks */

/* ---- register stack ---- */

void x87_set_top0(struct x86_fpu *f)
{
    unsigned top = f->fsw >> 11 & 7;
    uint8_t old[8][16];

    if (!top)
        return;
    memcpy(old, f->x87, sizeof old);
    for (unsigned i = 0; i < 8; i++) /* ST(i) is physical register TOP + i */
        memcpy(f->x87[(i + top) & 7], old[i], 16);
    f->fsw &= (uint16_t)~0x3800u;
}

void x87_update_es(struct x86_fpu *f)
{
    f->fsw &= (uint16_t)~0x8080u;
    if (f->fsw & ~f->fcw & FLAGS_MASK)
        f->fsw |= 0x8080;
}

/* ---- executing ---- */

static void load_state(const struct x86_fpu *f, uint8_t *save)
{
    uint16_t fsw = f->fsw & (uint16_t) ~(0x8080u | FLAGS_MASK), ftw = 0;

    memset(save, 0, SAVE_REGS);
    memcpy(save + SAVE_FCW, &f->fcw, 2);
    memcpy(save + SAVE_FSW, &fsw, 2);
    for (unsigned i = 0; i < 8; i++) {
        if (!(f->ftw >> i & 1))
            ftw |= (uint16_t)(3u << 2 * i);
        memcpy(save + SAVE_REGS + 10 * i, f->x87[i], 10);
    }
    memcpy(save + SAVE_FTW, &ftw, 2);
}

static void store_state(struct x86_fpu *f, const uint8_t *save)
{
    uint16_t flags = f->fsw & FLAGS_MASK, ftw;

    memcpy(&f->fsw, save + SAVE_FSW, 2);
    memcpy(&ftw, save + SAVE_FTW, 2);
    f->ftw = 0;
    for (unsigned i = 0; i < 8; i++) {
        if ((ftw >> 2 * i & 3) != 3)
            f->ftw |= (uint8_t)(1u << i);
        memcpy(f->x87[i], save + SAVE_REGS + 10 * i, 10);
        memset(f->x87[i] + 10, 0, 6);
    }
    f->fsw |= flags;
    x87_update_es(f);
}

static void execute(struct x86_cpu *cpu, const struct vec_form *f, struct vec_ctx *c)
{
    load_state(&cpu->fpu, c->x87);
    c->flags = 0x202 | x86_cc_to_flags(cpu->cc);
    os_fpu_begin();
    f->code(&cpu->fpu, c);
    os_fpu_end();
}

/* A store whose exception is unmasked writes nothing. That shows by executing it over two different
 * patterns. */
static bool written(struct x86_cpu *cpu, const struct vec_form *f, struct vec_ctx *c)
{
    static const uint8_t patterns[] = {0x55, 0xaa};

    for (unsigned p = 0; p < 2; p++) {
        memset(c->mem, patterns[p], f->mem_size);
        execute(cpu, f, c);
        for (unsigned i = 0; i < f->mem_size; i++)
            if (c->mem[i] != patterns[p])
                return true;
    }
    return false;
}

/* The instruction and data pointers after a non-control instruction (SDM Vol. 1 8.1.8). */
static void set_pointers(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f)
{
    struct x86_fpu *fpu = &cpu->fpu;
    bool unmasked = fpu->fsw & X87_ES;
    bool selectors = !(cpu->feat.l7_ebx & 1u << 13);

    fpu->fip = x86_op_rip(cpu, op);
    fpu->fcs = selectors ? cpu->seg[VMM_CS].selector : 0;
    if (f->mem_size && (unmasked || !(cpu->feat.l7_ebx & 1u << 6))) {
        fpu->fdp = x87_offset(cpu, op);
        fpu->fds = selectors ? cpu->seg[op->seg].selector : 0;
    }
    if (unmasked)
        fpu->fop = f->fop;
}

static const struct x86_op *run(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);
    struct vec_ctx c;
    uint64_t linear;
    bool store = true;

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    X87_CHECK(cpu, op);
    if (f->mem_size && !f->store) {
        if (!x86_ea(cpu, op, f->mem_size, false, &linear) ||
            !x86_read(cpu, op, op->seg, linear, c.mem, f->mem_size))
            return x86_leave(cpu, op);
    }
    if (f->store) {
        store = written(cpu, f, &c);
        if (!x86_ea(cpu, op, f->mem_size, true, &linear) ||
            (store && !x86_write(cpu, op, op->seg, linear, c.mem, f->mem_size)))
            return x86_leave(cpu, op);
    } else {
        execute(cpu, f, &c);
    }
    store_state(&cpu->fpu, c.x87);
    if (f->flags)
        cpu->cc = x86_cc_from_flags((uint32_t)c.flags);
    set_pointers(cpu, op, f);
    cpu->fpu.xinuse |= X86_XCR0_X87;
    return op + 1;
}

/* ---- decoding ---- */

/* What the host may execute: the bytes of the instruction with its memory operand at [base]. */
static bool put_core(const struct x86_dec *d, bool mem, unsigned base, struct vec_core *core)
{
    const ZydisDecodedInstruction *in = &d->insn;

    if (in->opcode < 0xd8 || in->opcode > 0xdf)
        return false;
    core->code[0] = in->opcode;
    core->code[1] = mem ? (uint8_t)(in->raw.modrm.reg << 3 | base)
                        : (uint8_t)(0xc0 | in->raw.modrm.reg << 3 | in->raw.modrm.rm);
    core->len = 2;
    core->modrm = 1;
    return true;
}

static bool same_instruction(const struct x86_dec *d, const struct vec_core *core)
{
    ZydisDecoder z;
    ZydisDecodedInstruction in;

    ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&z, NULL, core->code, core->len, &in)) &&
           in.length == core->len && in.mnemonic == d->insn.mnemonic;
}

/* The memory operand's number, or -1. */
static int memory_operand(const struct x86_dec *d)
{
    for (unsigned i = 0; i < d->insn.operand_count; i++)
        if (x86_dec_is_mem(d, i))
            return (int)i;
    return -1;
}

static bool writes_flags(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_FCOMI || m == ZYDIS_MNEMONIC_FCOMIP || m == ZYDIS_MNEMONIC_FUCOMI ||
           m == ZYDIS_MNEMONIC_FUCOMIP;
}

/* `mem` gets the number of the memory operand. */
static bool describe(const struct x86_dec *d, unsigned base, struct vec_form *f,
                     struct vec_core *core, int *mem)
{
    *mem = memory_operand(d);
    if (!put_core(d, *mem >= 0, base, core) || !same_instruction(d, core))
        return false;
    if (*mem >= 0) {
        unsigned size = d->opnd[*mem].size / 8;

        if (size > 10)
            return false;
        f->mem_size = (uint8_t)size;
        f->store = d->opnd[*mem].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    }
    f->flags = writes_flags(d->insn.mnemonic);
    f->fop = (uint16_t)((core->code[0] & 7) << 8 | d->code[d->insn.raw.modrm.offset]);
    return true;
}

static bool dec_run(struct x86_dec *d, struct x86_op *op)
{
    struct vec_form f = {.fn = run, .mnemonic = d->insn.mnemonic};
    struct vec_core core;
    struct vec_emit e;
    int mem;

    if (!describe(d, RSI, &f, &core, &mem))
        return false;
    if (mem >= 0)
        x86_dec_mem(d, (unsigned)mem, op);
    memcpy(f.key, core.code, 2);
    f.key[2] = d->code[d->insn.raw.modrm.offset];
    f.key[16] = VEC_KEY_X87;
    vec_emit_x87(&e, &core);
    return vec_enter_form(d, op, &f, &e);
}

bool x87_dec_copy(const struct x86_dec *d, uint8_t base, struct vec_copy *copy)
{
    int mem;

    memset(copy, 0, sizeof(*copy));
    return d->insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && !x87_is_control(d->insn.mnemonic) &&
           vec_may_execute(d) && describe(d, base, &copy->form, &copy->core, &mem);
}

bool x87_dec(struct x86_dec *d, struct x86_op *op)
{
    const ZydisDecodedInstruction *in = &d->insn;

    if (in->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT ||
        in->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        ((in->opcode & 0xf8) != 0xd8 && in->mnemonic != ZYDIS_MNEMONIC_FWAIT))
        return false;
    return x87_dec_control(d, op) || dec_run(d, op);
}
