/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_decode.c: decodes vector, mask and MMX instructions into forms with thunks. */
#include <string.h>

#include "core/x86/vec.h"
#include "core/x86/vec_emit.h"

/*
 * The guest's instruction is written anew for the host: operation, vector and mask registers,
 * immediates and embedded rounding stay; the memory operand becomes [RSI], explicit general
 * registers become R8 to R10, or what else the target says. What comes out is decoded again and
 * must be the same operation on exactly these operands, so that whatever bytes the guest chose, the
 * host executes nothing but a data instruction on registers and the buffer.
 */
#define HOST_BASE 6 /* RSI */
#define HOST_GPR  8 /* R8: ModRM.reg, R9: ModRM.rm, R10: VEX.vvvv */

enum { SLOT_REG, SLOT_RM, SLOT_VVVV };

static const struct vec_target thunk_target = {.base = HOST_BASE};

struct dec {
    struct x86_dec *d;
    const struct vec_target *target;
    struct vec_form form;
    struct vec_regs regs;
    struct vec_core core;
    bool scratch;
    uint8_t resident; /* guest register that goes through target->scratch, if any */
    const ZydisDecodedOperand *mem;
    unsigned mem_index;
    unsigned id[3]; /* register numbers of ModRM.reg, ModRM.rm and vvvv on the host */
    bool has[3];
    bool vectors; /* there is a vector, mask or MMX register */
};

static bool is_gpr(ZydisRegisterClass c)
{
    return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
           c == ZYDIS_REGCLASS_GPR64;
}

static unsigned vec_bytes(ZydisRegisterClass c)
{
    return c == ZYDIS_REGCLASS_XMM   ? 16
           : c == ZYDIS_REGCLASS_YMM ? 32
           : c == ZYDIS_REGCLASS_ZMM ? 64
                                     : 0;
}

/* ---- operands ---- */

static void use_gpr(struct dec *v, unsigned slot, unsigned id, bool write)
{
    v->form.gslot[slot] = (uint8_t)id;
    if (write)
        v->form.gwrite |= (uint8_t)(1u << slot);
    v->form.gread |= (uint8_t)(1u << slot);
}

/* The host register of a general register; false: there is none left. */
static bool host_gpr(struct dec *v, unsigned slot, unsigned *id)
{
    const struct vec_target *t = v->target;

    if (!t->gpr) {
        *id = HOST_GPR + slot;
        return true;
    }
    if (t->gpr[*id] == 0xff) {
        if (v->scratch && v->resident != *id)
            return false;
        v->scratch = true;
        v->resident = (uint8_t)*id;
        *id = t->scratch;
    } else {
        *id = t->gpr[*id];
    }
    return true;
}

/* Registers that the instruction implies. */
static bool hidden_register(struct dec *v, const ZydisDecodedOperand *o, bool write)
{
    switch (o->reg.value) {
    case ZYDIS_REGISTER_EAX:
    case ZYDIS_REGISTER_RAX:
        use_gpr(v, VEC_G_RAX, VMM_RAX, write);
        return true;
    case ZYDIS_REGISTER_ECX:
    case ZYDIS_REGISTER_RCX:
        use_gpr(v, VEC_G_RCX, VMM_RCX, write);
        return true;
    case ZYDIS_REGISTER_EDX:
    case ZYDIS_REGISTER_RDX:
        use_gpr(v, VEC_G_RDX, VMM_RDX, write);
        return true;
    case ZYDIS_REGISTER_XMM0:
        v->regs.load[0] = 16;
        if (write)
            v->regs.store[0] = 16;
        return true;
    case ZYDIS_REGISTER_FLAGS:
    case ZYDIS_REGISTER_EFLAGS:
    case ZYDIS_REGISTER_RFLAGS:
        return true;
    default:
        return false;
    }
}

static bool register_operand(struct dec *v, const ZydisDecodedOperand *o)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(o->reg.value);
    unsigned id = (unsigned)ZydisRegisterGetId(o->reg.value), bytes = vec_bytes(c), slot;
    bool write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

    switch (o->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        slot = SLOT_REG;
        break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        slot = SLOT_RM;
        break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        slot = SLOT_VVVV;
        break;
    case ZYDIS_OPERAND_ENCODING_IS4:
    case ZYDIS_OPERAND_ENCODING_MASK:
        slot = 3;
        break;
    case ZYDIS_OPERAND_ENCODING_NONE:
        return hidden_register(v, o, write);
    default:
        return false;
    }
    if (is_gpr(c)) {
        if (slot == 3 || c == ZYDIS_REGCLASS_GPR8)
            return false;
        use_gpr(v, slot, id, write);
        if (!host_gpr(v, slot, &id))
            return false;
    } else if (bytes) {
        /* Loaded even if only written: merging is not always told from the operand's action. */
        v->regs.load[id] = bytes > v->regs.load[id] ? (uint8_t)bytes : v->regs.load[id];
        if (write)
            v->regs.store[id] = (uint8_t)bytes;
    } else if (c == ZYDIS_REGCLASS_MASK) {
        v->regs.kload |= (uint8_t)(1u << id);
        if (write)
            v->regs.kstore |= (uint8_t)(1u << id);
    } else if (c == ZYDIS_REGCLASS_MMX) {
        v->regs.mload |= (uint8_t)(1u << id);
        if (write)
            v->regs.mstore |= (uint8_t)(1u << id);
    } else {
        return false;
    }
    v->vectors |= !is_gpr(c);
    if (slot < 3) {
        v->id[slot] = id;
        v->has[slot] = true;
    }
    return true;
}

static bool operands(struct dec *v)
{
    const struct x86_dec *d = v->d;

    for (unsigned i = 0; i < d->insn.operand_count; i++) {
        const ZydisDecodedOperand *o = &d->opnd[i];

        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (!register_operand(v, o))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (v->mem || o->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
                o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || o->size > 512 || !o->size)
                return false;
            v->mem = o;
            v->mem_index = i;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            break;
        default:
            return false;
        }
    }
    /* Conversions of memory to general registers have none. */
    return v->vectors || d->insn.meta.exception_class != ZYDIS_EXCEPTION_CLASS_NONE;
}

/* ---- the instruction for the host ---- */

/* W selects the size of a general register or of memory, and is ignored outside 64-bit mode. */
static bool w_ignored(const struct dec *v)
{
    if (x86_dec_64(v->d))
        return false;
    switch (v->d->insn.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
        return true;
    default:
        return v->form.gread != 0;
    }
}

static void put_byte(struct vec_core *c, unsigned byte)
{
    c->code[c->len++] = (uint8_t)byte;
}

static bool put_legacy(struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    unsigned rex = 0;

    for (unsigned i = 0; i < in->raw.prefix_count; i++)
        if (in->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            put_byte(&v->core, in->raw.prefixes[i].value);
    if (v->core.len > 1)
        return false;
    if (x86_dec_64(v->d) && (in->attributes & ZYDIS_ATTRIB_HAS_REX) && in->raw.rex.W)
        rex |= 0x48;
    if (v->id[SLOT_REG] & 8)
        rex |= 0x44;
    if (v->id[SLOT_RM] & 8)
        rex |= 0x41;
    if (rex)
        put_byte(&v->core, rex);
    put_byte(&v->core, 0x0f);
    if (in->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        put_byte(&v->core, 0x38);
    else if (in->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        put_byte(&v->core, 0x3a);
    else if (in->opcode_map != ZYDIS_OPCODE_MAP_0F)
        return false;
    return true;
}

static bool put_vex(struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    unsigned w = in->raw.vex.W && !w_ignored(v);

    if (in->raw.vex.m_mmmm < 1 || in->raw.vex.m_mmmm > 3)
        return false;
    put_byte(&v->core, 0xc4);
    put_byte(&v->core, (~v->id[SLOT_REG] >> 3 & 1) << 7 | 0x40 | (~v->id[SLOT_RM] >> 3 & 1) << 5 |
                           in->raw.vex.m_mmmm);
    put_byte(&v->core, w << 7 | (~v->id[SLOT_VVVV] & 15) << 3 | (unsigned)in->raw.vex.L << 2 |
                           in->raw.vex.pp);
    return true;
}

static bool put_evex(struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    const uint8_t *p = v->d->code + in->raw.evex.offset;
    unsigned reg = v->id[SLOT_REG], rm = v->id[SLOT_RM], vvvv = v->id[SLOT_VVVV], p1 = p[2];

    if (w_ignored(v))
        p1 &= 0x7f;
    put_byte(&v->core, 0x62);
    put_byte(&v->core, (~reg >> 3 & 1) << 7 | (~rm >> 4 & 1) << 6 | (~rm >> 3 & 1) << 5 |
                           (~reg >> 4 & 1) << 4 | (p[1] & 0x0f));
    put_byte(&v->core, (p1 & 0x87) | (~vvvv & 15) << 3);
    put_byte(&v->core, (p[3] & 0xf7) | (~vvvv >> 4 & 1) << 3);
    return true;
}

static bool put_core(struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    unsigned is4 = 0;

    if (!(in->attributes & ZYDIS_ATTRIB_HAS_MODRM) || in->raw.imm[0].size > 8 ||
        in->raw.imm[1].size)
        return false;
    if (v->mem)
        v->id[SLOT_RM] = v->target->base;
    else if (!v->has[SLOT_RM])
        return false;
    if (!v->has[SLOT_REG])
        v->id[SLOT_REG] = in->raw.modrm.reg;
    switch (in->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        if (!put_legacy(v))
            return false;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        if (!put_vex(v))
            return false;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        if (!put_evex(v))
            return false;
        break;
    default:
        return false;
    }
    put_byte(&v->core, in->opcode);
    v->core.modrm = v->core.len;
    put_byte(&v->core, (v->mem ? 0 : 0xc0u) | (v->id[SLOT_REG] & 7) << 3 | (v->id[SLOT_RM] & 7));
    for (unsigned i = 0; i < in->operand_count; i++)
        if (v->d->opnd[i].encoding == ZYDIS_OPERAND_ENCODING_IS4)
            is4 = 1;
    if (in->raw.imm[0].size == 8) {
        unsigned byte = v->d->code[in->raw.imm[0].offset];

        put_byte(&v->core, is4 && !x86_dec_64(v->d) ? byte & 0x7f : byte);
    }
    return true;
}

static bool same_register(const struct dec *v, const ZydisDecodedOperand *a,
                          const ZydisDecodedOperand *b)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(b->reg.value);
    unsigned id = (unsigned)ZydisRegisterGetId(b->reg.value);

    if (b->encoding == ZYDIS_OPERAND_ENCODING_NONE) {
        ZydisRegister ra = a->reg.value, rb = b->reg.value;

        return ra == rb || ZydisRegisterGetClass(rb) == ZYDIS_REGCLASS_FLAGS ||
               (is_gpr(c) && id == (unsigned)ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(
                                       ZYDIS_MACHINE_MODE_LONG_64, ra)));
    }
    if (!is_gpr(c))
        return a->reg.value == b->reg.value;
    return a->encoding == b->encoding && a->size == b->size &&
           ((b->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG && id == v->id[SLOT_REG]) ||
            (b->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM && id == v->id[SLOT_RM]) ||
            (b->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD && id == v->id[SLOT_VVVV]));
}

/* Whether the instruction for the host is what it should be. */
static bool verify(const struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    ZydisDecoder decoder;
    ZydisDecodedInstruction out;
    ZydisDecodedOperand opnd[ZYDIS_MAX_OPERAND_COUNT];

    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, v->core.code, v->core.len, &out, opnd)) ||
        out.length != v->core.len || out.mnemonic != in->mnemonic || out.encoding != in->encoding ||
        out.meta.isa_set != in->meta.isa_set || out.operand_count != in->operand_count)
        return false;
    for (unsigned i = 0; i < out.operand_count; i++) {
        const ZydisDecodedOperand *a = &v->d->opnd[i], *b = &opnd[i];

        if (a->type != b->type || a->actions != b->actions)
            return false;
        switch (b->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (!same_register(v, a, b))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (b->mem.base != (ZydisRegister)(ZYDIS_REGISTER_RAX + v->target->base) ||
                b->mem.index != ZYDIS_REGISTER_NONE || b->mem.disp.value || b->size != a->size ||
                b->mem.segment != ZYDIS_REGISTER_DS)
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            break;
        default:
            return false;
        }
    }
    return true;
}

/* ---- properties ---- */

/* Legacy instructions with 16-byte operands that need no alignment. */
static bool unaligned(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return true;
    default:
        return false;
    }
}

static unsigned alignment(const struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;

    if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return v->form.mem_size == 16 && v->form.class == VEC_SSE && !unaligned(in->mnemonic) ? 16
                                                                                              : 1;
    switch (in->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
        return v->form.mem_size;
    default:
        return 1;
    }
}

/* Whether elements of the memory operand are read or written only if the mask enables them. */
static bool mask_selects(const ZydisDecodedInstruction *in)
{
    switch (in->avx.mask.mode) {
    case ZYDIS_MASK_MODE_MERGING:
    case ZYDIS_MASK_MODE_ZEROING:
        break;
    case ZYDIS_MASK_MODE_CONTROL:
    case ZYDIS_MASK_MODE_CONTROL_ZEROING:
        if (strstr(ZydisMnemonicGetString(in->mnemonic), "blendm"))
            break;
        return false;
    default:
        return false;
    }
    if (in->avx.mask.reg == ZYDIS_REGISTER_K0)
        return false;
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_VDBPSADBW: /* results depend on neighbours */
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16: /* E4NF [SDM Vol. 2], other than Zydis has it */
        return false;
    default:
        break;
    }
    switch (in->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
        return in->mnemonic >= ZYDIS_MNEMONIC_VEXTRACTF32X4 &&
               in->mnemonic <= ZYDIS_MNEMONIC_VEXTRACTI64X4;
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return false;
    default:
        return true;
    }
}

/* VFMULCPH and its like: they set flags in MXCSR, but are of a class without #XM (SDM Vol. 2
 * 2.7). */
static bool is_complex(const char *name)
{
    return strstr(name, "cph") || strstr(name, "csh");
}

/* Whether MXCSR matters. */
static bool floating_point(const ZydisDecodedInstruction *in)
{
    const char *name = ZydisMnemonicGetString(in->mnemonic);

    switch (in->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E11:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return true;
    default:
        return strstr(name, "cvt") || strstr(name, "rcp") || strstr(name, "rsqrt") ||
               strstr(name, "fpclass") || strstr(name, "dpbf16") || is_complex(name);
    }
}

/* Arithmetic and narrowing conversions; VREDUCE, VRCP14 and alike do not report underflow. */
static bool can_underflow(const ZydisDecodedInstruction *in)
{
    static const char *const parts[] = {"add",    "sub", "mul", "div", "pd2ps",   "sd2ss",
                                        "scalef", "dpp", "2ph", "2sh", "rndscale"};
    const char *name = ZydisMnemonicGetString(in->mnemonic);

    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (strstr(name, parts[i]))
            return true;
    return false;
}

/* Half-precision results, in which an exact tiny one counts. */
static void half_results(struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    const ZydisDecodedOperand *o = &v->d->opnd[0];
    const char *name = ZydisMnemonicGetString(in->mnemonic);
    size_t len = strlen(name);

    len -= name[len - 1] == 'x'; /* VCVTPS2PHX */
    if (!v->form.underflows || name[len - 1] != 'h' || is_complex(name))
        return;
    v->form.half = name[len - 2] == 's' ? 1 : (uint8_t)(o->size / 16);
    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
        v->form.half_reg = (uint8_t)ZydisRegisterGetId(o->reg.value);
    if (mask_selects(in))
        v->form.half_mask = (uint8_t)ZydisRegisterGetId(in->avx.mask.reg);
}

static unsigned max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

/* How many mask bits count: elements of the memory operand that is written, else of the wider of
 * destination and source. */
static unsigned mask_length(const struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    const ZydisDecodedOperand *o = &v->d->opnd[0];

    if (v->form.store)
        return v->mem->size / v->mem->element_size;
    if (in->avx.broadcast.mode == ZYDIS_BROADCAST_MODE_INVALID && v->mem->element_count == 1)
        return 1;
    if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MASK)
        return in->avx.vector_length / v->mem->element_size;
    if (v->mem->element_size < 32 && o->element_size == 32)
        return o->size / 32u;
    return in->avx.vector_length / max(o->element_size, v->mem->element_size);
}

/* How mask bits map to parts of the memory operand. */
static void masking(struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    struct vec_form *f = &v->form;

    if (!f->mem_size || !mask_selects(in))
        return;
    f->mask = (uint8_t)ZydisRegisterGetId(in->avx.mask.reg);
    f->n = (uint8_t)mask_length(v);
    f->whole = in->meta.exception_class == ZYDIS_EXCEPTION_CLASS_E6NF;
    if (in->avx.broadcast.mode == ZYDIS_BROADCAST_MODE_INVALID)
        f->elem = f->n <= f->mem_size ? (uint8_t)(f->mem_size / f->n) : f->mem_size;
    else if (in->avx.broadcast.is_static)
        f->elem = (uint8_t)(v->d->opnd[0].element_size / 8);
    else
        f->elem = f->mem_size;
    if (f->elem > f->mem_size)
        f->elem = f->mem_size;
}

static void properties(struct dec *v)
{
    const ZydisDecodedInstruction *in = &v->d->insn;
    struct vec_form *f = &v->form;
    const ZydisAccessedFlags *fl = in->cpu_flags;

    f->mnemonic = in->mnemonic;
    f->fp = floating_point(in);
    if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || v->regs.kload)
        f->class = VEC_AVX512;
    else if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        f->class = VEC_AVX;
    else
        f->class = VEC_MMX;
    for (unsigned i = 0; i < 32; i++) {
        unsigned n = v->regs.store[i];

        if (f->class == VEC_MMX && (v->regs.load[i] || f->fp))
            f->class = VEC_SSE;
        if (!n)
            continue;
        f->xuse |= i < 16 ? X86_XCR0_SSE : 1u << X86_XC_HI16;
        if (i < 16 && n >= 32)
            f->xuse |= X86_XCR0_AVX;
        if (i < 16 && n >= 64)
            f->xuse |= 1u << X86_XC_ZMM_HI;
        if (n < 64 && f->class >= VEC_AVX)
            f->written |= 1u << i;
    }
    if (v->regs.kstore)
        f->xuse |= 1u << X86_XC_OPMASK;
    f->mmx = v->regs.mload != 0;
    f->mmx_write = v->regs.mstore;
    if (f->mmx)
        f->xuse |= X86_XCR0_X87;
    f->flags = fl && (fl->modified | fl->set_0 | fl->set_1 | fl->undefined);
    f->underflows = f->fp && can_underflow(in);
    half_results(v);
    f->sae = in->avx.has_sae || in->avx.rounding.mode != ZYDIS_ROUNDING_MODE_INVALID ||
             is_complex(ZydisMnemonicGetString(in->mnemonic));
    if (v->mem) {
        f->mem_size = (uint8_t)(v->mem->size / 8);
        f->store = v->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        f->align = (uint8_t)alignment(v);
    }
    masking(v);
}

/* ---- entry ---- */

static bool convert(struct dec *v)
{
    if (!operands(v))
        return false;
    properties(v);
    return put_core(v) && verify(v);
}

static bool dec_thunk(struct x86_dec *d, struct x86_op *op)
{
    struct dec v = {.d = d, .target = &thunk_target};
    struct vec_emit e;

    if (!convert(&v) || !vec_emit_thunk(&e, &v.form, &v.core, &v.regs))
        return false;
    if (v.mem)
        x86_dec_mem(d, v.mem_index, op);
    v.form.fn = vec_run;
    memcpy(v.form.key, v.core.code, v.core.len);
    v.form.key[16] = (uint8_t)(1 + v.form.mem_size);
    for (unsigned i = 0; i < 3; i++)
        v.form.key[17 + i] = v.form.gslot[i];
    return vec_enter_form(d, op, &v.form, &e);
}

/* VEX and EVEX exist in protected mode only. */
static bool encoding_valid(const struct x86_dec *d)
{
    switch (d->insn.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        return true;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        return (d->mode & X86_MODE_PE) && !(d->mode & X86_MODE_VM86);
    default:
        return false;
    }
}

bool x86_dec_vec(struct x86_dec *d, struct x86_op *op)
{
    bool ok;

    if (!encoding_valid(d) || x86_dec_lock(d))
        return false;
    if (xsave_dec(d, op))
        return true;
    if (!vec_has(d))
        return false;
    if (x87_dec(d, op) || vec_dec_move(d, op))
        return true;
    if (vec_dec_mem(d, op, &ok))
        return ok;
    return dec_thunk(d, op);
}

bool vec_may_execute(const struct x86_dec *d)
{
    return encoding_valid(d) && !x86_dec_lock(d) && vec_has(d);
}

bool vec_dec_copy(struct x86_dec *d, const struct vec_target *target, struct vec_copy *copy)
{
    struct dec v = {.d = d, .target = target};

    if (!vec_may_execute(d) || !convert(&v))
        return false;
    copy->form = v.form;
    copy->regs = v.regs;
    copy->core = v.core;
    copy->scratch = v.scratch;
    copy->resident = v.resident;
    return true;
}
