/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_sys.c: decoding of the system instructions. */
#include "core/x86/ops_sys.h"
#include "core/x86/control.h"
#include "core/x86/sys_handlers.h"

/* What an instruction's operands are. */
enum form {
    NONE,
    DTABLE,  /* memory: limit and base; size: of the base, 2 for 24 bits of it */
    ADDRESS, /* memory that is not accessed */
    RM,      /* register or memory, operand 0: as in ops_seg.c */
    REG,     /* register, operand 0 */
    REG_MEM, /* INVPCID */
    FLAGS,   /* PUSHF and POPF: operand size */
    PORT,
    STRING,
};

#define END 1u /* the block ends behind it */
#define L64 2u /* 64-bit mode only */

static const struct row {
    x86_fn *fn;
    uint8_t form, flags;
} rows[X86_SYS_COUNT] = {
    [X86_SYS_LGDT] = {x86_sys_lgdt, DTABLE, 0},
    [X86_SYS_LIDT] = {x86_sys_lidt, DTABLE, 0},
    [X86_SYS_SGDT] = {x86_sys_sgdt, DTABLE, 0},
    [X86_SYS_SIDT] = {x86_sys_sidt, DTABLE, 0},
    [X86_SYS_CLTS] = {x86_sys_clts, NONE, 0},
    [X86_SYS_LMSW] = {x86_sys_lmsw, RM, END},
    [X86_SYS_SMSW] = {x86_sys_smsw, RM, 0},
    [X86_SYS_INVLPG] = {x86_sys_invlpg, ADDRESS, END},
    [X86_SYS_INVPCID] = {x86_sys_invpcid, REG_MEM, END},
    [X86_SYS_INVD] = {x86_sys_invd, NONE, 0},
    [X86_SYS_WBINVD] = {x86_sys_wbinvd, NONE, 0},
    [X86_SYS_XGETBV] = {x86_sys_xgetbv, NONE, 0},
    [X86_SYS_XSETBV] = {x86_sys_xsetbv, NONE, END},
    [X86_SYS_HLT] = {x86_sys_hlt, NONE, END},
    [X86_SYS_RDPMC] = {x86_sys_rdpmc, NONE, 0},
    [X86_SYS_RDTSC] = {x86_sys_rdtsc, NONE, 0},
    [X86_SYS_RDTSCP] = {x86_sys_rdtscp, NONE, 0},
    [X86_SYS_RDPID] = {x86_sys_rdpid, REG, 0},
    [X86_SYS_SWAPGS] = {x86_sys_swapgs, NONE, L64},
    [X86_SYS_RDFSBASE] = {x86_sys_rdfsbase, REG, L64},
    [X86_SYS_RDGSBASE] = {x86_sys_rdgsbase, REG, L64},
    [X86_SYS_WRFSBASE] = {x86_sys_wrfsbase, REG, L64},
    [X86_SYS_WRGSBASE] = {x86_sys_wrgsbase, REG, L64},
    [X86_SYS_STAC] = {x86_sys_stac, NONE, 0},
    [X86_SYS_CLAC] = {x86_sys_clac, NONE, 0},
    [X86_SYS_RDPKRU] = {x86_sys_rdpkru, NONE, 0},
    [X86_SYS_WRPKRU] = {x86_sys_wrpkru, NONE, 0},
    [X86_SYS_CPUID] = {x86_sys_cpuid, NONE, 0},
    [X86_SYS_VMCALL] = {x86_sys_vmcall, NONE, END},
    [X86_SYS_SERIALIZE] = {x86_sys_serialize, NONE, END},
    [X86_SYS_RDMSR] = {x86_sys_rdmsr, NONE, 0},
    [X86_SYS_WRMSR] = {x86_sys_wrmsr, NONE, END},
    [X86_SYS_CLI] = {x86_sys_cli, NONE, 0},
    [X86_SYS_STI] = {x86_sys_sti, NONE, END},
    [X86_SYS_PUSHF] = {x86_sys_pushf, FLAGS, 0},
    [X86_SYS_POPF] = {x86_sys_popf, FLAGS, END},
    [X86_SYS_IN] = {x86_sys_in, PORT, END},
    [X86_SYS_OUT] = {x86_sys_out, PORT, END},
    [X86_SYS_INS] = {x86_sys_ins, STRING, END},
    [X86_SYS_OUTS] = {x86_sys_outs, STRING, END},
};

static uint8_t flags_size(const struct x86_dec *d)
{
    switch (d->insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_POPF:
        return 2;
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_POPFD:
        return 4;
    default:
        return 8;
    }
}

static void dec_port(const struct x86_dec *d, struct x86_op *op, bool out)
{
    unsigned port = out ? 0 : 1;

    op->size = (uint8_t)(d->opnd[!port].size / 8);
    op->rm = x86_dec_is_reg(d, port);
    op->imm = op->rm ? 0 : d->opnd[port].imm.value.u & 0xff;
}

/* The memory operand is there, but may be hidden. */
static bool dec_string(const struct x86_dec *d, struct x86_op *op)
{
    op->r = !!(d->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPNE));
    for (unsigned i = 0; i < d->insn.operand_count; i++)
        if (x86_dec_is_mem(d, i)) {
            x86_dec_mem(d, i, op);
            op->size = (uint8_t)(d->opnd[i].size / 8);
            return true;
        }
    return false;
}

static bool dec_operands(struct x86_dec *d, struct x86_op *op, enum form form, unsigned arg)
{
    op->size = (uint8_t)(d->insn.operand_width / 8);
    switch (form) {
    case DTABLE:
        if (x86_dec_64(d))
            op->size = 8;
        /* fall through */
    case ADDRESS:
        if (!x86_dec_is_mem(d, 0))
            return false;
        x86_dec_mem(d, 0, op);
        return true;
    case RM:
        if (x86_dec_is_mem(d, 0)) {
            x86_dec_mem(d, 0, op);
            return true;
        }
        op->base = X86_NGPR;
        op->rm = x86_dec_reg(d->opnd[0].reg.value);
        op->size = (uint8_t)(d->opnd[0].size / 8);
        return true;
    case REG:
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        op->size = (uint8_t)(d->opnd[0].size / 8);
        return true;
    case REG_MEM:
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        op->size = x86_dec_64(d) ? 8 : 4;
        x86_dec_mem(d, 1, op);
        return true;
    case FLAGS:
        op->size = flags_size(d);
        return true;
    case PORT:
        dec_port(d, op, arg == X86_SYS_OUT);
        return true;
    case STRING:
        return dec_string(d, op);
    default:
        return true;
    }
}

bool x86_dec_sys(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    const struct row *row = &rows[arg];

    if (!row->fn)
        return x86_dec_sys_seg(d, op, arg);
    if ((row->flags & L64) && !x86_dec_64(d))
        return false;
    op->fn = row->fn;
    d->end = row->flags & END;
    return dec_operands(d, op, (enum form)row->form, arg);
}

/* MOV with operand 0 or 1 a control or debug register. */
static bool dec_mov_crdr(struct x86_dec *d, struct x86_op *op, unsigned special, bool control)
{
    bool load = special == 0;
    ZydisRegister first = control ? ZYDIS_REGISTER_CR0 : ZYDIS_REGISTER_DR0;

    if (x86_dec_lock(d))
        return false;
    op->imm = (uint64_t)(d->opnd[special].reg.value - first);
    op->r = x86_dec_reg(d->opnd[!special].reg.value);
    op->size = x86_dec_64(d) ? 8 : 4;
    if (control) {
        op->fn = load ? x86_sys_mov_to_cr : x86_sys_mov_from_cr;
        d->end = load;
        return op->imm == 0 || op->imm == 2 || op->imm == 3 || op->imm == 4 || op->imm == 8;
    }
    op->fn = load ? x86_sys_mov_to_dr : x86_sys_mov_from_dr;
    d->end = load;
    return op->imm < 8;
}

bool x86_dec_mov_sys(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!x86_dec_is_reg(d, i))
            continue;
        switch (ZydisRegisterGetClass(d->opnd[i].reg.value)) {
        case ZYDIS_REGCLASS_CONTROL:
            return dec_mov_crdr(d, op, i, true);
        case ZYDIS_REGCLASS_DEBUG:
            return dec_mov_crdr(d, op, i, false);
        case ZYDIS_REGCLASS_SEGMENT:
            return x86_dec_mov_seg(d, op, arg);
        default:
            break;
        }
    }
    return false;
}
