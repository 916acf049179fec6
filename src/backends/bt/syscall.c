/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/syscall.c: SYSCALL, SYSRET and STI, which end a block. */
#include "backends/bt/gen.h"
#include "core/x86/segment.h"
#include "core/x86/sys_handlers.h"

/*
 * In 64-bit mode only, and only what is common: whatever needs more than new values in registers is
 * the handler's, and all that decides that comes before the first change. Blocks that are
 * translated are not executed step by step, so TF and RF are clear and no breakpoint is armed.
 */

#define OP_TEST_IMM 0xf7
#define OP_MOV_IMM  0xc7
#define OP_AND      0x23
#define OP_OR       0x0b

/* RFLAGS bits that SYSRET takes from R11 (SDM Vol. 2B). */
#define SYSRET_FLAGS 0x3c7fd7u

static void op_imm32(struct gen *g, unsigned op, unsigned ext, struct em_rm rm, uint32_t imm)
{
    em_rm(&g->e, false, op, ext, rm);
    em32(&g->e, imm);
}

static void shift(struct gen *g, bool wide, unsigned ext, unsigned reg, unsigned n)
{
    em_rr(&g->e, wide, OP_SHIFT, ext, reg);
    em8(&g->e, n);
}

static void load_byte(struct gen *g, unsigned reg, int32_t field)
{
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xb6}, reg, em_at(H_RBP, field)); /* MOVZX */
}

static void compare_byte(struct gen *g, struct em_rm rm, unsigned value)
{
    em_insn(&g->e, (struct em_op){.op = 0x80}, EXT_CMP, rm);
    em8(&g->e, value);
}

static void store_byte(struct gen *g, struct em_rm rm, unsigned value)
{
    em_insn(&g->e, (struct em_op){.op = 0xc6}, 0, rm);
    em8(&g->e, value);
}

/* TEST; slow on condition `cc`. */
static void slow_test(struct gen *g, struct em_rm rm, uint32_t bits, unsigned cc)
{
    op_imm32(g, OP_TEST_IMM, 0, rm, bits);
    gen_slow_if(g, cc);
}

/* ---- flags ---- */

/* EAX = all flags, from cc and rflags. */
static void get_flags(struct gen *g)
{
    load_byte(g, H_RAX, BT_FIELD(cc));
    shift(g, false, EXT_SHL, H_RAX, 11);
    em_insn(&g->e, (struct em_op){.op = 0x0a}, H_RAX, em_at(H_RBP, BT_FIELD(cc) + 1)); /* OR AL */
    em_rm(&g->e, false, OP_OR, H_RAX, GEN_FIELD(rflags));
}

/* cc and rflags from EAX, of which only bits that exist are set. Changes RAX and RCX. */
static void set_flags(struct gen *g)
{
    struct em *e = &g->e;

    em_rr(e, false, OP_LOAD, H_RCX, H_RAX);
    op_imm32(g, OP_IMM32, EXT_AND, em_reg(H_RCX), ~X86_ARITH);
    em_imm(e, false, EXT_OR, em_reg(H_RCX), 2);
    em_rm(e, false, OP_STORE, H_RCX, GEN_FIELD(rflags));
    em_rr(e, false, OP_LOAD, H_RCX, H_RAX);
    shift(g, false, EXT_SHR, H_RCX, 11);
    em_imm(e, false, EXT_AND, em_reg(H_RCX), 1);
    op_imm32(g, OP_IMM32, EXT_AND, em_reg(H_RAX), 0xd5);
    shift(g, false, EXT_SHL, H_RAX, 8);
    em_rr(e, false, OP_OR, H_RAX, H_RCX);
    op_imm32(g, OP_IMM32, EXT_OR, em_reg(H_RAX), 0x200);
    em_insn(e, (struct em_op){.op = OP_STORE, .half = true}, H_RAX, GEN_FIELD(cc));
}

/* ---- segments and mode ---- */

/* The flat segment `seg` with the selector in EAX, which is zero-extended to 16 bits. */
static void set_segment(struct gen *g, unsigned seg, uint32_t ar)
{
    struct em *e = &g->e;
    int32_t at = BT_FIELD(seg) + (int32_t)(seg * sizeof(struct vmm_segment));

    _Static_assert(
        offsetof(struct vmm_segment, limit) == 8 && offsetof(struct vmm_segment, ar) == 12 &&
            offsetof(struct vmm_segment, selector) == 16 && sizeof(struct vmm_segment) == 24,
        "stored by halves and quarters");
    em_insn(e, (struct em_op){.map = 1, .op = 0xb7}, H_RAX, em_reg(H_RAX)); /* MOVZX EAX, AX */
    em_rm(e, true, OP_STORE, H_RAX, em_at(H_RBP, at + 16));
    em_rm(e, true, OP_MOV_IMM, 0, em_at(H_RBP, at)); /* base */
    em32(e, 0);
    op_imm32(g, OP_MOV_IMM, 0, em_at(H_RBP, at + 8), 0xffffffff);
    op_imm32(g, OP_MOV_IMM, 0, em_at(H_RBP, at + 12), ar);
}

#define AR_BOTH                                                                                    \
    (VMM_AR_G | VMM_AR_P | VMM_AR_S | X86_TYPE_ACCESSED) /* as x86_seg_flat_code and _stack */
#define AR_CODE  (AR_BOTH | VMM_AR_L | X86_TYPE_CODE | X86_TYPE_READABLE)
#define AR_STACK (AR_BOTH | VMM_AR_DB | X86_TYPE_WRITABLE)

/* As x86_jump_key and x86_link_key. Changes RAX and RCX. */
static void set_keys(struct gen *g, uint32_t mode)
{
    struct em *e = &g->e;
    unsigned set = !!(mode & X86_MODE_CPL3);
    int32_t at = BT_FIELD(jump_set) + (int32_t)(set * sizeof(struct x86_jump_set));

    load_byte(g, H_RAX, at + (int32_t)offsetof(struct x86_jump_set, gen));
    shift(g, false, EXT_SHL, H_RAX, 8);
    op_imm32(g, OP_IMM32, EXT_OR, em_reg(H_RAX), mode);
    shift(g, true, EXT_SHL, H_RAX, 48);
    em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(jump_key));
    em_rm(e, false, OP_LOAD, H_RAX,
          em_at(H_RBP, at + (int32_t)offsetof(struct x86_jump_set, link_gen)));
    em_insn(e, (struct em_op){.map = 1, .op = 0xb6}, H_RCX, em_reg(H_RAX)); /* MOVZX ECX, AL */
    shift(g, false, EXT_SHL, H_RCX, 8);
    op_imm32(g, OP_IMM32, EXT_OR, em_reg(H_RCX), mode);
    shift(g, true, EXT_SHL, H_RCX, 48);
    shift(g, false, EXT_SHR, H_RAX, 8);
    op_imm32(g, OP_IMM32, EXT_AND, em_reg(H_RAX), 0xfff);
    em_rr(e, true, OP_OR, H_RAX, H_RCX);
    em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(link_key));
}

/* As x86_cs_changed, without RFLAGS.AC. Changes RAX and RCX. */
static void set_mode(struct gen *g, unsigned cpl)
{
    uint32_t mode = X86_MODE_CODE64 | X86_MODE_PE | (cpl ? X86_MODE_CPL3 : 0);

    store_byte(g, GEN_FIELD(cpl), cpl);
    op_imm32(g, OP_MOV_IMM, 0, GEN_FIELD(mode), mode);
    store_byte(g, GEN_FIELD(mmu_idx), cpl ? MMU_USER : MMU_KERNEL);
    em_rm(&g->e, true, OP_LEA, H_RAX,
          em_at(H_RBP, cpl ? BT_FIELD(mmu.data[MMU_USER]) : BT_FIELD(mmu.data[MMU_KERNEL])));
    em_rm(&g->e, true, OP_STORE, H_RAX, GEN_FIELD(tier_data));
    set_keys(g, mode);
}

/* ---- the instructions ---- */

static void load_next(struct gen *g, unsigned reg)
{
    gen_page_address(g, reg, (int64_t)g->t->offset + g->op->off + g->op->len);
}

static bool gen_syscall(struct gen *g)
{
    struct em *e = &g->e;

    if (!(g->b->mode & X86_MODE_CPL3))
        return false;
    gen_spill_flags(g);
    slow_test(g, GEN_FIELD(efer), X86_EFER_SCE, CC_Z);
    slow_test(g, GEN_FIELD(sfmask), X86_AC, CC_Z);
    load_next(g, H_RAX);
    gen_put(g, VMM_RCX, H_RAX);
    get_flags(g);
    gen_put(g, VMM_R11, H_RAX);
    em_rm(e, false, OP_LOAD, H_RCX, GEN_FIELD(sfmask));
    em_rr(e, false, 0xf7, 2, H_RCX); /* NOT */
    em_rr(e, false, OP_AND, H_RAX, H_RCX);
    set_flags(g);
    em_rm(e, false, OP_LOAD, H_RAX, em_at(H_RBP, BT_FIELD(star) + 4));
    em_imm(e, false, EXT_AND, em_reg(H_RAX), -4);
    set_segment(g, VMM_CS, AR_CODE);
    em_imm(e, false, EXT_ADD, em_reg(H_RAX), 8);
    set_segment(g, VMM_SS, AR_STACK);
    set_mode(g, 0);
    em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(lstar));
    gen_go_indirect(g);
    return true;
}

/* At CPL 0, and nobody waits for interrupts to be enabled. */
static void slow_unless_calm(struct gen *g)
{
    compare_byte(g, GEN_FIELD(cpl), 0);
    gen_slow_if(g, CC_NZ);
    compare_byte(g, GEN_FIELD(restless), 0);
    gen_slow_if(g, CC_NZ);
}

static bool gen_sysret(struct gen *g)
{
    struct em *e = &g->e;

    if ((g->b->mode & X86_MODE_CPL3) || g->op->size != 8)
        return false;
    gen_spill_flags(g);
    slow_unless_calm(g);
    compare_byte(g, GEN_FIELD(user_stops), 0);
    gen_slow_if(g, CC_NZ);
    slow_test(g, GEN_FIELD(efer), X86_EFER_SCE, CC_Z);
    gen_get(g, H_RAX, VMM_R11);
    slow_test(g, em_reg(H_RAX), X86_TF | X86_AC, CC_NZ);
    gen_get(g, H_RAX, VMM_RCX);
    gen_check_target(g);
    gen_get(g, H_RAX, VMM_R11);
    op_imm32(g, OP_IMM32, EXT_AND, em_reg(H_RAX), SYSRET_FLAGS);
    set_flags(g);
    em_insn(e, (struct em_op){.map = 1, .op = 0xb7}, H_RAX, em_at(H_RBP, BT_FIELD(star) + 6));
    em_imm(e, false, EXT_ADD, em_reg(H_RAX), 8);
    em_imm(e, false, EXT_OR, em_reg(H_RAX), 3);
    set_segment(g, VMM_SS, AR_STACK | 3u << VMM_AR_DPL_SHIFT);
    em_insn(e, (struct em_op){.map = 1, .op = 0xb7}, H_RAX, em_at(H_RBP, BT_FIELD(star) + 6));
    em_imm(e, false, EXT_ADD, em_reg(H_RAX), 16);
    em_imm(e, false, EXT_OR, em_reg(H_RAX), 3);
    set_segment(g, VMM_CS, AR_CODE | 3u << VMM_AR_DPL_SHIFT);
    set_mode(g, 3);
    gen_get(g, H_RAX, VMM_RCX);
    gen_go_indirect(g);
    return true;
}

/* As x86_sys_sti: execution goes on with the shadow that x86_settle_shadow ends. */
static bool gen_sti(struct gen *g)
{
    struct em *e = &g->e;
    uint8_t *set;

    if (g->b->mode & X86_MODE_CPL3)
        return false;
    gen_spill_flags(g);
    slow_unless_calm(g);
    op_imm32(g, OP_TEST_IMM, 0, GEN_FIELD(rflags), X86_IF);
    set = em_jcc_later(e, CC_NZ);
    op_imm32(g, OP_IMM32, EXT_OR, GEN_FIELD(rflags), X86_IF);
    em_insn(e, (struct em_op){.op = 0x80}, EXT_OR, GEN_FIELD(shadow));
    em8(e, VMM_SHADOW_STI);
    store_byte(g, GEN_FIELD(sti_passed), 1);
    em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(retired)); /* x86_retired */
    em_rm(e, true, OP_ADD, H_RAX, GEN_FIELD(countdown_start));
    em_rm(e, true, OP_SUB, H_RAX, GEN_FIELD(countdown));
    if (gen_counts(g))
        em_rr(e, true, OP_ADD, H_RAX, g->regs->count);
    em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(sti_at));
    em_here(e, set);
    load_next(g, H_RAX);
    gen_go_indirect(g);
    return true;
}

bool gen_sys_branch(struct gen *g)
{
    x86_fn *handler = g->t->fn[g->i];

    if (!g->is64 || g->extra)
        return false;
    if (handler == x86_sys_syscall)
        return gen_syscall(g);
    if (handler == x86_sys_sysret)
        return gen_sysret(g);
    return handler == x86_sys_sti && gen_sti(g);
}
