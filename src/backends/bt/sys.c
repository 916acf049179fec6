/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/sys.c: the system instructions that kernels execute often. */
#include "backends/bt/gen.h"
#include "core/x86/control.h"
#include "core/x86/sys_handlers.h"

/*
 * Only what is simple is done here: whatever could fault, or needs a look at the surroundings,
 * jumps to the slow path before anything has changed, and the handler decides. The mode of a block
 * tells CPL 3 from the others; code for kernels makes sure of CPL 0.
 */

static void op_imm32(struct gen *g, unsigned op, unsigned ext, struct em_rm rm, uint32_t imm)
{
    em_rm(&g->e, false, op, ext, rm);
    em32(&g->e, imm);
}

#define OP_TEST_IMM 0xf7

/* False: the block is for CPL 3, where the instruction is not allowed. Spills the flags. */
static bool at_cpl0(struct gen *g)
{
    if (g->b->mode & X86_MODE_CPL3)
        return false;
    gen_spill_flags(g);
    em_insn(&g->e, (struct em_op){.op = 0x80}, EXT_CMP, GEN_FIELD(cpl)); /* CMP byte */
    em8(&g->e, 0);
    gen_slow_if(g, CC_NZ);
    return true;
}

/* Goes on if the bit of CR4 is set. Spills the flags. */
static void with_cr4(struct gen *g, uint32_t bit)
{
    gen_spill_flags(g);
    op_imm32(g, OP_TEST_IMM, 0, GEN_FIELD(cr4), bit);
    gen_slow_if(g, CC_Z);
}

/* Goes on if ECX is 0. Spills the flags, changes RCX. */
static void with_ecx_0(struct gen *g)
{
    gen_spill_flags(g);
    gen_get(g, H_RCX, VMM_RCX);
    em_rr(&g->e, false, 0x85, H_RCX, H_RCX); /* TEST */
    gen_slow_if(g, CC_NZ);
}

/* ---- flags ---- */

static bool gen_cli(struct gen *g)
{
    if (!at_cpl0(g))
        return false;
    op_imm32(g, OP_IMM32, EXT_AND, GEN_FIELD(rflags), ~X86_IF);
    return true;
}

static bool gen_cld(struct gen *g)
{
    gen_spill_flags(g);
    op_imm32(g, OP_IMM32, EXT_AND, GEN_FIELD(rflags), ~X86_DF);
    return true;
}

static bool gen_std(struct gen *g)
{
    gen_spill_flags(g);
    op_imm32(g, OP_IMM32, EXT_OR, GEN_FIELD(rflags), X86_DF);
    return true;
}

/* As x86_get_rflags: cc has OF in bit 0 and the others, with the bit that is always set, above. */
static bool gen_pushf(struct gen *g)
{
    struct em *e = &g->e;
    unsigned size = g->is64 ? 8 : 4;

    if (g->op->size != size)
        return false;
    gen_spill_flags(g);
    gen_sp(g, H_RAX, -(int32_t)size);
    gen_probe(g, size, true);
    em_insn(e, (struct em_op){.map = 1, .op = 0xb6}, H_RCX, GEN_FIELD(cc)); /* MOVZX */
    em_rr(e, false, OP_SHIFT, EXT_SHL, H_RCX);
    em8(e, 11);
    em_insn(e, (struct em_op){.op = 0x0a}, H_RCX, em_at(H_RBP, BT_FIELD(cc) + 1)); /* OR CL */
    em_rm(e, false, 0x0b, H_RCX, GEN_FIELD(rflags));                               /* OR ECX */
    op_imm32(g, OP_IMM32, EXT_AND, em_reg(H_RCX), ~(X86_VM | X86_RF));
    em_rm(e, g->is64, OP_STORE, H_RCX, em_at(H_RAX, 0));
    gen_sp(g, gen_host(g, VMM_RSP), -(int32_t)size);
    return true;
}

/* MOV AH, CL */
static bool gen_lahf(struct gen *g)
{
    gen_spill_flags(g);
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xb6}, H_RCX, em_at(H_RBP, BT_FIELD(cc) + 1));
    gen_get(g, H_RAX, VMM_RAX);
    EM(&g->e, 0x88, 0xcc);
    gen_put(g, VMM_RAX, H_RAX);
    return true;
}

static bool gen_sahf(struct gen *g)
{
    gen_spill_flags(g);
    gen_get(g, H_RAX, VMM_RAX);
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xb6}, H_RCX, GEN_FIELD(cc));
    op_imm32(g, OP_IMM32, EXT_AND, em_reg(H_RAX), 0xd500);
    em_rr(&g->e, false, 0x0b, H_RAX, H_RCX); /* OR */
    op_imm32(g, OP_IMM32, EXT_OR, em_reg(H_RAX), 0x200);
    em_insn(&g->e, (struct em_op){.op = OP_STORE, .half = true}, H_RAX, GEN_FIELD(cc));
    g->recipe.len = 0; /* that of the flags before */
    return true;
}

/* As x86_mmu_idx_changed at CPL 0. */
static bool set_ac(struct gen *g, bool ac)
{
    int32_t table = ac ? BT_FIELD(mmu.data[MMU_KERNEL_AC]) : BT_FIELD(mmu.data[MMU_KERNEL]);

    if (!(g->cpu->feat.l7_ebx & X86_F7_EBX_SMAP) || !at_cpl0(g))
        return false;
    op_imm32(g, OP_IMM32, ac ? EXT_OR : EXT_AND, GEN_FIELD(rflags), ac ? X86_AC : ~X86_AC);
    em_insn(&g->e, (struct em_op){.op = 0xc6}, 0, GEN_FIELD(mmu_idx)); /* MOV byte */
    em8(&g->e, ac ? MMU_KERNEL_AC : MMU_KERNEL);
    em_rm(&g->e, true, OP_LEA, H_RAX, em_at(H_RBP, table));
    em_rm(&g->e, true, OP_STORE, H_RAX, GEN_FIELD(tier_data));
    return true;
}

static bool gen_stac(struct gen *g)
{
    return set_ac(g, true);
}

static bool gen_clac(struct gen *g)
{
    return set_ac(g, false);
}

/* ---- bases and selectors of segments ---- */

static bool gen_swapgs(struct gen *g)
{
    if (!at_cpl0(g))
        return false;
    em_rm(&g->e, true, OP_LOAD, H_RAX, GEN_FIELD(seg[VMM_GS].base));
    em_rm(&g->e, true, OP_LOAD, H_RCX, GEN_FIELD(kernel_gs_base));
    em_rm(&g->e, true, OP_STORE, H_RAX, GEN_FIELD(kernel_gs_base));
    em_rm(&g->e, true, OP_STORE, H_RCX, GEN_FIELD(seg[VMM_GS].base));
    return true;
}

static bool read_base(struct gen *g, struct em_rm base)
{
    with_cr4(g, X86_CR4_FSGSBASE);
    em_rm(&g->e, g->op->size == 8, OP_LOAD, H_RAX, base);
    gen_put(g, g->op->r, H_RAX);
    return true;
}

static bool gen_rdfsbase(struct gen *g)
{
    return read_base(g, GEN_FIELD(seg[VMM_FS].base));
}

static bool gen_rdgsbase(struct gen *g)
{
    return read_base(g, GEN_FIELD(seg[VMM_GS].base));
}

/* A base that is not canonical is a fault; one of 32 bits always is. */
static bool write_base(struct gen *g, struct em_rm base)
{
    with_cr4(g, X86_CR4_FSGSBASE);
    gen_get(g, H_RCX, g->op->r);
    em_rr(&g->e, g->op->size == 8, OP_LOAD, H_RAX, H_RCX);
    if (g->op->size == 8) {
        em_rr(&g->e, true, OP_SHIFT, EXT_SAR, H_RCX);
        em8(&g->e, 47);
        em_imm(&g->e, true, EXT_ADD, em_reg(H_RCX), 1);
        em_imm(&g->e, true, EXT_CMP, em_reg(H_RCX), 1);
        gen_slow_if(g, CC_A);
    }
    em_rm(&g->e, true, OP_STORE, H_RAX, base);
    return true;
}

static bool gen_wrfsbase(struct gen *g)
{
    return write_base(g, GEN_FIELD(seg[VMM_FS].base));
}

static bool gen_wrgsbase(struct gen *g)
{
    return write_base(g, GEN_FIELD(seg[VMM_GS].base));
}

/* MOV reg, segment register */
static bool gen_mov_from_seg(struct gen *g)
{
    int32_t selector = BT_FIELD(seg) + (int32_t)(g->op->imm * sizeof(struct vmm_segment) +
                                                 offsetof(struct vmm_segment, selector));

    if (g->op->base != X86_NGPR)
        return false;
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xb7}, H_RAX, em_at(H_RBP, selector));
    if (g->op->size == 2) {
        gen_get(g, H_RCX, g->op->rm);
        em_insn(&g->e, (struct em_op){.op = OP_LOAD, .half = true}, H_RCX, em_reg(H_RAX));
        gen_put(g, g->op->rm, H_RCX);
    } else {
        gen_put(g, g->op->rm, H_RAX);
    }
    return true;
}

/* ---- control registers and alike ---- */

static bool gen_mov_from_cr(struct gen *g)
{
    struct em_rm cr;

    switch (g->op->imm) {
    case 0:
        cr = GEN_FIELD(cr0);
        break;
    case 2:
        cr = GEN_FIELD(cr2);
        break;
    case 3:
        cr = GEN_FIELD(cr3);
        break;
    case 4:
        cr = GEN_FIELD(cr4);
        break;
    default: /* CR8 is the APIC's */
        return false;
    }
    if (!at_cpl0(g))
        return false;
    em_rm(&g->e, g->is64, OP_LOAD, H_RAX, cr);
    gen_put(g, g->op->r, H_RAX);
    return true;
}

static bool gen_rdpkru(struct gen *g)
{
    with_cr4(g, X86_CR4_PKE);
    with_ecx_0(g);
    em_rm(&g->e, false, OP_LOAD, H_RAX, GEN_FIELD(pkru));
    gen_put(g, VMM_RAX, H_RAX);
    em_rr(&g->e, false, OP_XOR, H_RAX, H_RAX);
    gen_put(g, VMM_RDX, H_RAX);
    return true;
}

/* XCR0 only. */
static bool gen_xgetbv(struct gen *g)
{
    with_cr4(g, X86_CR4_OSXSAVE);
    with_ecx_0(g);
    em_rm(&g->e, false, OP_LOAD, H_RAX, GEN_FIELD(xcr0));
    gen_put(g, VMM_RAX, H_RAX);
    em_rm(&g->e, false, OP_LOAD, H_RAX, em_at(H_RBP, BT_FIELD(xcr0) + 4));
    gen_put(g, VMM_RDX, H_RAX);
    return true;
}

/* ---- hints and fences ---- */

/* Counted, as the handler does. */
static bool gen_pause(struct gen *g)
{
    gen_spill_flags(g);
    em_rm(&g->e, false, 0xff, 0, GEN_FIELD(pauses)); /* INC */
    return true;
}

static bool gen_fence(struct gen *g)
{
    em_bytes(&g->e, g->bytes, g->insn->length);
    return true;
}

/* ---- which of them ---- */

bool gen_sys(struct gen *g)
{
    static const struct {
        x86_fn *handler;
        bool (*gen)(struct gen *g);
    } rows[] = {
        {x86_sys_cli, gen_cli},
        {x86_sys_pushf, gen_pushf},
        {x86_sys_stac, gen_stac},
        {x86_sys_clac, gen_clac},
        {x86_sys_swapgs, gen_swapgs},
        {x86_sys_rdfsbase, gen_rdfsbase},
        {x86_sys_rdgsbase, gen_rdgsbase},
        {x86_sys_wrfsbase, gen_wrfsbase},
        {x86_sys_wrgsbase, gen_wrgsbase},
        {x86_sys_mov_from_seg, gen_mov_from_seg},
        {x86_sys_mov_from_cr, gen_mov_from_cr},
        {x86_sys_rdpkru, gen_rdpkru},
        {x86_sys_xgetbv, gen_xgetbv},
    };
    x86_fn *handler = g->t->fn[g->i];

    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_CLD:
        return gen_cld(g);
    case ZYDIS_MNEMONIC_STD:
        return gen_std(g);
    case ZYDIS_MNEMONIC_LAHF:
        return gen_lahf(g);
    case ZYDIS_MNEMONIC_SAHF:
        return gen_sahf(g);
    case ZYDIS_MNEMONIC_PAUSE:
        return gen_pause(g);
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
        return gen_fence(g);
    default:
        break;
    }
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].handler == handler)
            return rows[i].gen(g);
    return false;
}
