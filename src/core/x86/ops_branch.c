/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_branch.c: near branches: Jcc, JMP, CALL, RET, LOOPcc, JrCXZ. */
#include "core/x86/ops_common.h"
#include "core/x86/ops_sys.h"

/*
 * Each has handlers for 64-bit mode, where targets have 64 bits and must be canonical, and for the
 * other modes, where targets have op->size bytes and must be within CS's limit (SDM Vol. 2A, Jcc).
 * op->imm of relative branches counts from X86_RIP0.
 */

static inline bool canonical(uint64_t rip)
{
    return (uint64_t)((int64_t)(rip << 16) >> 16) == rip;
}

static X86_COLD const struct x86_op *bad_target(struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_fault_err(cpu, op, X86_GP, 0);
}

static inline uint64_t target_64(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return cpu->gpr[X86_RIP0] + op->imm;
}

static inline uint64_t target_legacy(const struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t t = cpu->gpr[X86_RIP0] + op->imm;

    return op->size == 2 ? (uint16_t)t : (uint32_t)t;
}

static inline bool valid_64(const struct x86_cpu *cpu, uint64_t rip)
{
    (void)cpu;
    return canonical(rip);
}

static inline bool valid_legacy(const struct x86_cpu *cpu, uint64_t rip)
{
    return rip <= cpu->seg[VMM_CS].limit;
}

#define GO(cpu, op, mode, target)                                                                  \
    do {                                                                                           \
        uint64_t go_ = (target);                                                                   \
        if (x86_unlikely(!valid_##mode(cpu, go_)))                                                 \
            return bad_target(cpu, op);                                                            \
        X86_GO(cpu, x86_next(cpu, go_));                                                           \
    } while (0)

#define MODES(X) X(64) X(legacy)

/* ---- Jcc, LOOPcc, JrCXZ, JMP rel ---- */

#define JCC(code, mode)                                                                            \
    X86_HANDLER(jcc##code##_##mode)                                                                \
    {                                                                                              \
        if (x86_cond(cpu->cc, code))                                                               \
            GO(cpu, op, mode, target_##mode(cpu, op));                                             \
        X86_GO(cpu, x86_next(cpu, x86_op_next(cpu, op)));                                          \
    }
#define JCC_MODES(code) JCC(code, 64) JCC(code, legacy)
#define FOR_ALL_CONDITIONS(X)                                                                      \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
FOR_ALL_CONDITIONS(JCC_MODES)

#define JCC_ROW(code) {jcc##code##_legacy, jcc##code##_64},
static x86_fn *const jcc_fn[16][2] = {FOR_ALL_CONDITIONS(JCC_ROW)};

#define JMP_REL(mode)                                                                              \
    X86_HANDLER(jmp_rel_##mode)                                                                    \
    {                                                                                              \
        GO(cpu, op, mode, target_##mode(cpu, op));                                                 \
    }
MODES(JMP_REL)

/* The count register is as wide as addresses; op->r is one of X86_LOOP ... */
static inline uint64_t count_mask(const struct x86_op *op)
{
    return op->asz == X86_A16 ? 0xffff : op->asz == X86_A32 ? 0xffffffff : ~(uint64_t)0;
}

#define LOOP(mode)                                                                                 \
    X86_HANDLER(loop_##mode)                                                                       \
    {                                                                                              \
        uint64_t n = (cpu->gpr[VMM_RCX] - (op->r != X86_JCXZ)) & count_mask(op), target;           \
        bool taken = op->r == X86_JCXZ ? !n : n != 0;                                              \
                                                                                                   \
        if (op->r == X86_LOOPE)                                                                    \
            taken &= !!(cpu->cc & X86_CC_ZF);                                                      \
        else if (op->r == X86_LOOPNE)                                                              \
            taken &= !(cpu->cc & X86_CC_ZF);                                                       \
        target = taken ? target_##mode(cpu, op) : x86_op_next(cpu, op);                            \
        if (x86_unlikely(taken && !valid_##mode(cpu, target)))                                     \
            return bad_target(cpu, op);                                                            \
        if (op->r != X86_JCXZ)                                                                     \
            x86_set_reg(cpu, VMM_RCX, 2u << op->asz, n);                                           \
        X86_GO(cpu, x86_next(cpu, target));                                                        \
    }
MODES(LOOP)

static uint8_t operand_size(const struct x86_dec *d)
{
    return x86_dec_64(d) ? 8 : (uint8_t)(d->insn.operand_width / 8);
}

/* Operand 0 of a relative branch. */
static void relative(struct x86_dec *d, struct x86_op *op)
{
    op->imm = x86_dec_imm(d, 0) + op->off + d->insn.length;
    op->size = operand_size(d);
    d->end = true;
}

/* arg: condition code. */
bool x86_dec_jcc(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    relative(d, op);
    op->fn = jcc_fn[arg][x86_dec_64(d)];
    return true;
}

bool x86_dec_loop(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    relative(d, op);
    op->r = (uint8_t)arg;
    op->asz = d->insn.address_width == 16   ? X86_A16
              : d->insn.address_width == 32 ? X86_A32
                                            : X86_A64;
    op->fn = x86_dec_64(d) ? loop_64 : loop_legacy;
    return true;
}

/* ---- JMP and CALL by register and memory, CALL rel ---- */

static inline uint64_t reg_64(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return cpu->gpr[op->r];
}

static inline uint64_t reg_legacy(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_get_reg(cpu, op->r, op->size);
}

static inline bool load_64(struct x86_cpu *cpu, const struct x86_op *op, uint64_t *target)
{
    return x86_ld64(cpu, op, target);
}

static bool load_legacy(struct x86_cpu *cpu, const struct x86_op *op, uint64_t *target)
{
    uint16_t v16;
    uint32_t v32;

    if (op->size == 2) {
        if (!x86_ld16(cpu, op, &v16))
            return false;
        *target = v16;
        return true;
    }
    if (!x86_ld32(cpu, op, &v32))
        return false;
    *target = v32;
    return true;
}

static inline bool push_64(struct x86_cpu *cpu, const struct x86_op *op, uint64_t value)
{
    return x86_push64(cpu, op, value);
}

static inline bool push_legacy(struct x86_cpu *cpu, const struct x86_op *op, uint64_t value)
{
    return x86_push(cpu, op, op->size, value);
}

#define CALL_TO(mode, target)                                                                      \
    do {                                                                                           \
        uint64_t to_ = (target);                                                                   \
        if (x86_unlikely(!valid_##mode(cpu, to_)))                                                 \
            return bad_target(cpu, op);                                                            \
        if (x86_unlikely(!push_##mode(cpu, op, x86_op_next(cpu, op))))                             \
            return x86_leave(cpu, op);                                                             \
        X86_GO(cpu, x86_next(cpu, to_));                                                           \
    } while (0)

#define INDIRECT(mode)                                                                             \
    X86_HANDLER(jmp_r_##mode)                                                                      \
    {                                                                                              \
        GO(cpu, op, mode, reg_##mode(cpu, op));                                                    \
    }                                                                                              \
    X86_HANDLER(jmp_m_##mode)                                                                      \
    {                                                                                              \
        uint64_t t;                                                                                \
        if (x86_unlikely(!load_##mode(cpu, op, &t)))                                               \
            return x86_leave(cpu, op);                                                             \
        GO(cpu, op, mode, t);                                                                      \
    }                                                                                              \
    X86_HANDLER(call_rel_##mode)                                                                   \
    {                                                                                              \
        CALL_TO(mode, target_##mode(cpu, op));                                                     \
    }                                                                                              \
    X86_HANDLER(call_r_##mode)                                                                     \
    {                                                                                              \
        CALL_TO(mode, reg_##mode(cpu, op));                                                        \
    }                                                                                              \
    X86_HANDLER(call_m_##mode)                                                                     \
    {                                                                                              \
        uint64_t t;                                                                                \
        if (x86_unlikely(!load_##mode(cpu, op, &t)))                                               \
            return x86_leave(cpu, op);                                                             \
        CALL_TO(mode, t);                                                                          \
    }
MODES(INDIRECT)

/* [64-bit mode][relative, register, memory] */
static x86_fn *const jmp_fn[2][3] = {{jmp_rel_legacy, jmp_r_legacy, jmp_m_legacy},
                                     {jmp_rel_64, jmp_r_64, jmp_m_64}};
static x86_fn *const call_fn[2][3] = {{call_rel_legacy, call_r_legacy, call_m_legacy},
                                      {call_rel_64, call_r_64, call_m_64}};

static bool near_branch(struct x86_dec *d, struct x86_op *op, x86_fn *const fn[2][3])
{
    unsigned form = 0;

    if (x86_dec_is_imm(d, 0)) {
        relative(d, op);
    } else if (x86_dec_is_reg(d, 0)) {
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        form = 1;
    } else {
        x86_dec_mem(d, 0, op);
        form = 2;
    }
    op->size = operand_size(d);
    op->fn = fn[x86_dec_64(d)][form];
    d->end = true;
    return true;
}

bool x86_dec_jmp(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    if (x86_dec_is_sys(d))
        return x86_dec_far(d, op, X86_FAR_JMP);
    return near_branch(d, op, jmp_fn);
}

bool x86_dec_call(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    if (x86_dec_is_sys(d))
        return x86_dec_far(d, op, X86_FAR_CALL);
    return near_branch(d, op, call_fn);
}

/* ---- RET: op->imm bytes are dropped behind the return address ---- */

X86_COLD X86_HANDLER(ret_slow)
{
    uint64_t rip;

    if (!x86_peek(cpu, op, 0, op->size, &rip))
        return x86_leave(cpu, op);
    if (op->size == 8 ? !canonical(rip) : !valid_legacy(cpu, rip))
        return bad_target(cpu, op);
    x86_add_sp(cpu, op->size + op->imm);
    X86_GO(cpu, x86_next(cpu, rip));
}

X86_HANDLER(ret_64)
{
    const uint8_t *p = x86_fast_top64(cpu);
    uint64_t rip;

    if (x86_unlikely(!p))
        return ret_slow(cpu, op);
    mmu_copy(&rip, p, 8);
    if (x86_unlikely(!canonical(rip)))
        return bad_target(cpu, op);
    cpu->gpr[VMM_RSP] += 8 + op->imm;
    X86_GO(cpu, x86_next(cpu, rip));
}

bool x86_dec_ret(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    if (x86_dec_is_sys(d))
        return x86_dec_far(d, op, X86_FAR_RET);
    op->imm =
        d->insn.operand_count_visible && x86_dec_is_imm(d, 0) ? (uint16_t)x86_dec_imm(d, 0) : 0;
    op->size = operand_size(d);
    op->fn = x86_dec_64(d) ? ret_64 : ret_slow;
    d->end = true;
    return true;
}
