/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/decode.c: from bytes to ops: Zydis, the table of instructions, operands. */
#include <string.h>

#include "core/x86/decode.h"
#include "core/x86/exec.h"
#include "core/x86/ops_int.h"
#include "core/x86/ops_sys.h"

#define INSN_MAX 15

static const struct x86_op *op_ud(struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_fault(cpu, op, X86_UD);
}

/* More than 15 bytes. */
static const struct x86_op *op_too_long(struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_fault_err(cpu, op, X86_GP, 0);
}

/* ---- the table ---- */

struct row {
    x86_dec_fn *fn;
    unsigned arg;
};

static const struct row table[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define ROW(mnemonic, fn, arg) [ZYDIS_MNEMONIC_##mnemonic] = {fn, arg},
    X86_OPS_INT(ROW) X86_OPS_SYS(ROW)
#undef ROW
};

/* ---- operands ---- */

uint8_t x86_dec_reg(ZydisRegister reg)
{
    unsigned id, size = x86_dec_gpr(reg, &id);

    if (size != 1)
        return size ? (uint8_t)id : (uint8_t)ZydisRegisterGetId(reg);
    /* AL-BL, AH-BH, SPL-DIL, R8B-R15B */
    if (id < 4)
        return (uint8_t)(id * 8);
    if (id < 8)
        return (uint8_t)((id - 4) * 8 + 1);
    return (uint8_t)((id - 4) * 8);
}

static uint8_t mem_reg(ZydisRegister reg)
{
    switch (reg) {
    case ZYDIS_REGISTER_NONE:
        return X86_ZERO;
    case ZYDIS_REGISTER_RIP:
    case ZYDIS_REGISTER_EIP:
        return X86_RIP0;
    default:
        return x86_dec_reg(reg);
    }
}

static uint8_t mem_seg(const struct x86_dec *d, const ZydisDecodedOperand *o)
{
    switch (o->mem.segment) {
    case ZYDIS_REGISTER_FS:
        return VMM_FS;
    case ZYDIS_REGISTER_GS:
        return VMM_GS;
    case ZYDIS_REGISTER_ES:
        return VMM_ES;
    case ZYDIS_REGISTER_CS:
        return x86_dec_64(d) ? VMM_DS : VMM_CS;
    case ZYDIS_REGISTER_SS:
        return VMM_SS;
    default:
        return VMM_DS;
    }
}

void x86_dec_mem(const struct x86_dec *d, unsigned i, struct x86_op *op)
{
    const ZydisDecodedOperand *o = &d->opnd[i];
    bool flat;

    op->base = mem_reg(o->mem.base);
    op->index = mem_reg(o->mem.index);
    op->scale = o->mem.scale > 1 ? (uint8_t)__builtin_ctz(o->mem.scale) : 0;
    op->disp = (int32_t)o->mem.disp.value;
    /* Zydis takes REX.B for a base where a SIB byte has none (mod 0, base 5; 32-bit addresses). */
    if (o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN && d->insn.raw.modrm.mod == 0 &&
        d->insn.raw.modrm.rm == 4 && d->insn.raw.sib.base == 5 && d->insn.address_width != 16) {
        op->base = X86_ZERO;
        op->disp = (int32_t)d->insn.raw.disp.value;
    }
    op->seg = mem_seg(d, o);
    op->asz = d->insn.address_width == 64   ? X86_A64
              : d->insn.address_width == 32 ? X86_A32
                                            : X86_A16;
    if (op->base == X86_RIP0)
        x86_dec_rip(op);

    if (x86_dec_64(d)) {
        if (op->asz == X86_A64)
            op->ea = op->seg == VMM_FS || op->seg == VMM_GS ? X86_EA_SEG64 : X86_EA_FLAT;
        else
            op->ea = X86_EA_SLOW;
        return;
    }
    flat = (d->mode & X86_MODE_FLAT) && op->asz == X86_A32 &&
           (op->seg == VMM_DS || op->seg == VMM_ES || op->seg == VMM_SS);
    op->ea = flat ? X86_EA_FLAT32 : X86_EA_SLOW;
}

/* ---- instructions ---- */

/* What the guest's CPU does not have: its opcodes are NOPs (MPX, CET, CLDEMOTE), or older
 * instructions with an ignored prefix (WBNOINVD). Branches are Intel's: 66H is ignored. */
static const ZydisDecoderMode off[] = {
    ZYDIS_DECODER_MODE_MPX,      ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_CLDEMOTE,
    ZYDIS_DECODER_MODE_WBNOINVD, ZYDIS_DECODER_MODE_KNC, ZYDIS_DECODER_MODE_AMD_BRANCHES};

void x86_dec_init(ZydisDecoder *z, uint32_t mode)
{
    bool real = !(mode & X86_MODE_PE) || (mode & X86_MODE_VM86);

    switch (mode & X86_MODE_CODE) {
    case X86_MODE_CODE64:
        ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        break;
    case X86_MODE_CODE32:
        ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
        break;
    default:
        ZydisDecoderInit(z, real ? ZYDIS_MACHINE_MODE_REAL_16 : ZYDIS_MACHINE_MODE_LEGACY_16,
                         ZYDIS_STACK_WIDTH_16);
    }
    for (unsigned i = 0; i < sizeof(off) / sizeof(off[0]); i++)
        ZydisDecoderEnableMode(z, off[i], ZYAN_FALSE);
}

static ZyanStatus decode_insn(struct x86_dec *d, unsigned n)
{
    ZydisDecoder z;
    ZyanStatus status;

    x86_dec_init(&z, d->mode);
    status = ZydisDecoderDecodeFull(&z, d->code, n, &d->insn, d->opnd);
    if (status != ZYDIS_STATUS_DECODING_ERROR || z.machine_mode != ZYDIS_MACHINE_MODE_REAL_16)
        return status;
    /* SYSENTER and SYSEXIT are no invalid opcodes here: #GP, and SYSENTER leaves virtual-8086 mode.
     */
    x86_dec_init(&z, X86_MODE_PE | X86_MODE_CODE16);
    if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, d->code, n, &d->insn, d->opnd)) &&
        (d->insn.mnemonic == ZYDIS_MNEMONIC_SYSENTER || d->insn.mnemonic == ZYDIS_MNEMONIC_SYSEXIT))
        return ZYAN_STATUS_SUCCESS;
    return status;
}

static bool decode_row(struct x86_dec *d, struct x86_op *op)
{
    const struct row *row = &table[d->insn.mnemonic];

    return row->fn ? row->fn(d, op, row->arg) : x86_dec_vec(d, op);
}

/* What only the first Xeon Phi had, as LZCNT with VEX: the decoder always knows it. */
static bool is_alien(const struct x86_dec *d)
{
    return d->insn.meta.isa_set >= ZYDIS_ISA_SET_KNCE &&
           d->insn.meta.isa_set <= ZYDIS_ISA_SET_KNC_PF_HINT;
}

ZyanStatus x86_dec_get(struct x86_cpu *cpu, uint32_t mode, const uint8_t *code, unsigned avail,
                       struct x86_dec *room, struct x86_dec **found)
{
    struct x86_dec *d = x86_memo_find(cpu->memo, mode, code, avail);
    ZyanStatus status = ZYAN_STATUS_SUCCESS;

    *found = d ? d : room;
    (*found)->cpu = cpu;
    (*found)->mode = mode;
    (*found)->code = code;
    (*found)->end = false;
    if (!d) {
        status = decode_insn(room, avail < INSN_MAX ? avail : INSN_MAX);
        if (ZYAN_SUCCESS(status)) {
            room->alien = is_alien(room);
            room->shaped = x86_memo_enter(cpu->memo, room, avail);
        }
    }
    return status;
}

/* What Zydis says, and the table; as x86_decode. Apart, as it needs much of the stack. */
static __attribute__((noinline)) unsigned decode_anew(struct x86_cpu *cpu, uint32_t mode,
                                                      const uint8_t *code, unsigned avail,
                                                      uint64_t shape, struct x86_op *op, bool *end)
{
    struct x86_dec room, *d;
    unsigned n = avail < INSN_MAX ? avail : INSN_MAX;
    struct x86_op blank;
    ZyanStatus status = x86_dec_get(cpu, mode, code, avail, &room, &d);

    if (ZYAN_SUCCESS(status)) {
        op->len = d->insn.length;
        blank = *op;
        if (!d->alien && decode_row(d, op)) {
            *end = d->end;
            if (shape && d->shaped)
                x86_known_enter(cpu->known, shape, d, op, table[d->insn.mnemonic].fn);
            return op->len;
        }
        *op = blank;
        op->fn = op_ud;
    } else {
        bool too_long = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG;

        if (status == ZYDIS_STATUS_NO_MORE_DATA) {
            if (avail < INSN_MAX)
                return 0;
            too_long = true;
        }
        op->len = (uint8_t)n;
        op->fn = too_long ? op_too_long : op_ud;
    }
    *end = true;
    return op->len;
}

unsigned x86_decode(struct x86_cpu *cpu, uint32_t mode, const uint8_t *code, unsigned avail,
                    struct x86_op *op, bool *end)
{
    uint64_t shape = cpu->known ? x86_memo_shape(mode, code, avail) : 0;
    unsigned len = shape ? x86_known_decode(cpu->known, shape, mode, code, op, end) : 0;

    return len ? len : decode_anew(cpu, mode, code, avail, shape, op, end);
}
