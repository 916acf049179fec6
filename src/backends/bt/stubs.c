/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/stubs.c: the code that all translations share: in, out, and calls of handlers. */
#include "backends/bt/gen.h"

/* All registers that a callee must preserve: RBX, RBP, R12-R15. Keeps RSP aligned for calls. */
static void push_frame(struct em *e)
{
    EM(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57);
    em_imm(e, true, EXT_SUB, em_reg(H_RSP), 8);
}

static void pop_frame(struct em *e)
{
    em_imm(e, true, EXT_ADD, em_reg(H_RSP), 8);
    EM(e, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b);
}

static void registers(struct em *e, unsigned op)
{
    for (unsigned slot = 0; slot < 16; slot++)
        if (bt_host[slot] != H_NONE)
            em_rm(e, true, op, bt_host[slot], gen_gpr(slot));
}

/* RDI = cpu */
static void cpu_argument(struct em *e)
{
    em_rm(e, true, OP_LEA, H_RDI, em_at(H_RBP, -BT_BIAS));
}

static void code_address(struct em *e, unsigned reg, const void *object)
{
    em_const(e, reg, (uint64_t)(uintptr_t)object);
}

static void put_enter(struct em *e)
{
    push_frame(e);
    em_rm(e, true, OP_LEA, H_RBP, em_at(H_RDI, BT_BIAS));
    em_rm(e, true, OP_LOAD, H_RCX, em_at(H_RBP, BT_GPR(X86_RIP0)));
    em_imm(e, true, EXT_AND, em_reg(H_RCX), -(int32_t)MMU_PAGE_SIZE);
    em_rm(e, true, OP_STORE, H_RCX, GEN_FIELD(tier_page));
    em_rm(e, true, OP_XOR, H_RCX, GEN_FIELD(link_key));
    registers(e, OP_LOAD);
    EM(e, 0x3e, 0xff, 0xe0); /* NOTRACK JMP RAX */
}

/* `out`: behind the stores of the registers. */
static const void *put_leave(struct em *e, const struct bt_stubs *s)
{
    const void *out;

    registers(e, OP_STORE);
    bt_simd_out(e, s);
    out = em_rx(e);
    em_rr(e, false, OP_XOR, H_RAX, H_RAX);
    pop_frame(e);
    em8(e, 0xc3);
    return out;
}

static void put_slow(struct em *e, const struct bt_stubs *s, const void *out)
{
    uint8_t *left;

    registers(e, OP_STORE);
    bt_simd_out(e, s);
    em_rr(e, true, OP_LOAD, H_RSI, H_RAX);
    em_rr(e, false, OP_LOAD, H_RDX, H_RCX);
    cpu_argument(e);
    em_imm(e, true, EXT_SUB, em_reg(H_RSP), 8);
    code_address(e, H_RAX, (const void *)(uintptr_t)bt_run_handlers);
    EM(e, 0xff, 0xd0); /* CALL RAX */
    em_imm(e, true, EXT_ADD, em_reg(H_RSP), 8);
    em_rr(e, true, 0x85, H_RAX, H_RAX); /* TEST */
    left = em_jcc_later(e, CC_Z);
    registers(e, OP_LOAD);
    em8(e, 0xc3);
    em_here(e, left);
    em_imm(e, true, EXT_ADD, em_reg(H_RSP), 8); /* the return address */
    em_jmp(e, out);
}

static void put_tail(struct em *e, const struct bt_stubs *s)
{
    registers(e, OP_STORE);
    bt_simd_out(e, s);
    em_rr(e, true, OP_LOAD, H_RSI, H_RAX);
    cpu_argument(e);
    pop_frame(e);
    code_address(e, H_RAX, (const void *)(uintptr_t)bt_run_last);
    EM(e, 0xff, 0xe0); /* JMP RAX */
}

/*
 * More instructions for the block that RAX tells, and on behind its count, if that may be done
 * without a poll: so the state stays in the host's registers. Else it goes on here.
 */
static void put_renew(struct em *e)
{
    uint8_t *no[4];

    em_imm(e, false, EXT_CMP, GEN_FIELD(attention), 0);
    no[0] = em_jcc_later(e, CC_NZ);
    em_imm(e, false, EXT_CMP, GEN_FIELD(slices), 16);
    no[1] = em_jcc_later(e, CC_L);
    em_imm(e, false, EXT_CMP, GEN_FIELD(pauses), X86_POLL / 16);
    no[2] = em_jcc_later(e, CC_A);
    em_imm(e, true, EXT_ADD, GEN_FIELD(countdown), X86_POLL);
    no[3] = em_jcc_later(e, CC_L); /* a request that nobody waits for any more */
    em_imm(e, true, EXT_ADD, GEN_FIELD(countdown_start), X86_POLL);
    em_imm(e, false, EXT_SUB, GEN_FIELD(slices), 16);
    em_rm(e, true, OP_LOAD, H_RCX, em_at(H_RAX, offsetof(struct bt_trans, chain)));
    em_imm(e, true, EXT_ADD, em_reg(H_RCX), BT_COUNT_BYTES);
    EM(e, 0x3e, 0xff, 0xe1); /* NOTRACK JMP RCX */
    em_here(e, no[3]);
    em_imm(e, true, EXT_SUB, GEN_FIELD(countdown), X86_POLL);
    em_here(e, no[0]);
    em_here(e, no[1]);
    em_here(e, no[2]);
}

/* Takes back the count of a block, and leaves before it. */
static void put_refuse(struct em *e, const void *leave)
{
    put_renew(e);
    em_rm(e, true, OP_LOAD, H_RCX, em_at(H_RAX, offsetof(struct bt_trans, block)));
    em_insn(e, (struct em_op){.map = 1, .op = 0xb6}, H_RCX, /* MOVZX */
            em_at(H_RCX, offsetof(struct x86_block, n)));
    em_rm(e, true, 0x01, H_RCX, GEN_FIELD(countdown)); /* ADD */
    em_rm(e, false, OP_LOAD, H_RCX, em_at(H_RAX, offsetof(struct bt_trans, offset)));
    em_rm(e, true, OP_ADD, H_RCX, GEN_FIELD(tier_page));
    em_rm(e, true, OP_STORE, H_RCX, GEN_FIELD(rip));
    em_jmp(e, leave);
}

/* Asks `where` to go on, with RAX for cpu->rip and RCX for an argument. */
static void put_ask(struct em *e, const struct bt_stubs *s, const void *where)
{
    em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(rip));
    registers(e, OP_STORE);
    bt_simd_out(e, s);
    em_rr(e, true, OP_LOAD, H_RSI, H_RCX);
    cpu_argument(e);
    code_address(e, H_RAX, where);
    EM(e, 0xff, 0xd0); /* CALL RAX */
    em_rr(e, true, OP_LOAD, H_RCX, H_RAX);
    registers(e, OP_LOAD);
    em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(rip));
    EM(e, 0x3e, 0xff, 0xe1); /* NOTRACK JMP RCX */
}

/* As x86_next up to the comparison of the key; the count is the business of what is entered. */
static void put_jump(struct em *e, const void *fill)
{
    uint8_t *miss;

    _Static_assert(sizeof(struct x86_jump) == 16, "index << 4");
    em_insn(e, (struct em_op){.op = 0x69}, H_RCX, em_reg(H_RAX)); /* IMUL ECX, EAX, constant */
    em32(e, 0x9e3779b1);
    em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(rip));
    em_rr(e, false, OP_SHIFT, EXT_SHR, H_RCX);
    em8(e, 32 - X86_JUMP_BITS);
    em_rr(e, false, OP_SHIFT, EXT_SHL, H_RCX);
    em8(e, 4);
    em_rm(e, true, OP_XOR, H_RAX, GEN_FIELD(jump_key));
    em_rm(e, true, OP_CMP, H_RAX,
          (struct em_rm){true, H_RBP, H_RCX, 0,
                         BT_FIELD(jump) + (int)offsetof(struct x86_jump, key)});
    miss = em_jcc_later(e, CC_NZ);
    em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(rip));
    em_rm(e, true, OP_LOAD, H_RCX,
          (struct em_rm){true, H_RBP, H_RCX, 0,
                         BT_FIELD(jump) + (int)offsetof(struct x86_jump, blk)});
    em_imm(e, true, EXT_AND, em_reg(H_RAX), -(int32_t)MMU_PAGE_SIZE);
    em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(tier_page));
    em_rm(e, true, OP_XOR, H_RAX, GEN_FIELD(link_key));
    em8(e, 0x3e); /* NOTRACK JMP [RCX + entry] */
    em_rm(e, false, 0xff, 4, em_at(H_RCX, offsetof(struct x86_block, entry)));
    em_here(e, miss);
    em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(rip));
    em_jmp(e, fill);
}

/* The rest of x86_next, and back to the run loop with the block's first op. */
static void put_decode(struct em *e, const struct bt_stubs *s)
{
    uint8_t *used_up;

    em_insn(e, (struct em_op){.map = 1, .op = 0xb6}, H_RAX,
            em_at(H_RCX, offsetof(struct x86_block, n)));
    em_rm(e, true, 0x29, H_RAX, GEN_FIELD(countdown)); /* SUB */
    used_up = em_jcc_later(e, CC_L);
    em_rm(e, true, OP_STORE, H_RCX, GEN_FIELD(blk));
    em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(rip));
    em_rm(e, true, OP_STORE, H_RAX, em_at(H_RBP, BT_GPR(X86_RIP0)));
    registers(e, OP_STORE);
    bt_simd_out(e, s);
    em_rm(e, true, OP_LEA, H_RAX, em_at(H_RCX, offsetof(struct x86_block, ops)));
    pop_frame(e);
    em8(e, 0xc3);
    em_here(e, used_up);
    em_rm(e, true, 0x01, H_RAX, GEN_FIELD(countdown)); /* ADD */
    em_jmp(e, s->leave);
}

void bt_make_stubs(struct bt *bt)
{
    struct em e = {bt->rw + bt->used, bt->rx - bt->rw};
    struct bt_stubs *s = &bt->stubs;
    const void *out;

    bt_make_tlb_stubs(bt, &e);
    bt_make_simd_stubs(bt, &e);
    s->enter = em_rx(&e);
    put_enter(&e);
    s->leave = em_rx(&e);
    out = put_leave(&e, s);
    s->slow = em_rx(&e);
    put_slow(&e, s, out);
    s->tail = em_rx(&e);
    put_tail(&e, s);
    s->refuse = em_rx(&e);
    put_refuse(&e, s->leave);
    s->fill = em_rx(&e);
    put_ask(&e, s, (const void *)(uintptr_t)bt_fill);
    s->jump = em_rx(&e);
    put_jump(&e, s->fill);
    s->bind = em_rx(&e);
    put_ask(&e, s, (const void *)(uintptr_t)bt_bind);
    s->prove = em_rx(&e);
    put_ask(&e, s, (const void *)(uintptr_t)bt_region_prove);
    s->decode = em_rx(&e);
    put_decode(&e, s);
    bt->used = bt->start = ((size_t)(e.p - bt->rw) + 63) & ~(size_t)63;
    bt->cold = bt_cold_start(bt);
}
