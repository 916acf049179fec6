/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_misc.c: NOPs and hints, fences, cache line flushes, random numbers, BOUND, UD. */
#include <cpuid.h>

#include "core/x86/ops_common.h"

X86_HANDLER(nop)
{
    X86_NEXT(cpu, op);
}

/* All that has no effect here: also prefetches (never fault), hints, and instructions of MPX and
 * CET, which are NOPs without these features (SDM Vol. 1 17.4, 19.3). */
bool x86_dec_nop(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)arg;
    op->fn = nop;
    return true;
}

X86_HANDLER(pause)
{
    cpu->pauses++;
    X86_NEXT(cpu, op);
}

bool x86_dec_pause(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)arg;
    op->fn = pause;
    return true;
}

X86_HANDLER(fence)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    X86_NEXT(cpu, op);
}

bool x86_dec_fence(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    if (!(d->cpu->feat.l1_edx & 1u << 26))
        return false;
    op->fn = fence;
    return true;
}

/* Cache line instructions check the address as a load of one byte does. */
X86_HANDLER(clflush)
{
    uint64_t a;
    int r;

    cpu->cur_idx = op->idx;
    if (!x86_ea(cpu, op, 1, false, &a))
        return x86_leave(cpu, op);
    r = mmu_probe(&cpu->mmu, cpu->mmu_idx, a, 1, MMU_READ);
    if (r != MMU_OK) {
        x86_mmu_failed(cpu, r, op->seg);
        return x86_leave(cpu, op);
    }
    X86_RETURN(cpu, op);
}

bool x86_dec_clflush(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    bool have = arg == X86_CLFLUSH      ? d->cpu->feat.l1_edx & 1u << 19
                : arg == X86_CLFLUSHOPT ? d->cpu->feat.l7_ebx & 1u << 23
                                        : d->cpu->feat.l7_ebx & 1u << 24;

    if (!have)
        return false;
    x86_dec_mem(d, 0, op);
    op->fn = clflush;
    return true;
}

/* ---- RDRAND, RDSEED ---- */

/* From the host's generator; without one there is never a number (CF = 0). */
static bool random_number(bool seed, uint64_t *v)
{
    bool ok = false;

    *v = 0;
    for (unsigned i = 0; i < 10 && !ok; i++) {
        if (seed)
            __asm__ volatile("rdseed %0" : "=r"(*v), "=@ccc"(ok));
        else
            __asm__ volatile("rdrand %0" : "=r"(*v), "=@ccc"(ok));
    }
    return ok;
}

static bool given_number(struct x86_cpu *cpu, uint64_t *v)
{
    return cpu->env->random && cpu->env->random(cpu->env->mmu.ctx, v);
}

/* op->imm: the host has the instruction. */
static inline const struct x86_op *random_handler(struct x86_cpu *cpu, const struct x86_op *op,
                                                  bool seed)
{
    uint64_t v = 0;
    bool ok = given_number(cpu, &v) || (op->imm && random_number(seed, &v));

    x86_set_reg(cpu, op->r, op->size, ok ? v : 0);
    cpu->cc = (uint16_t)(X86_CC_NONE | (ok ? X86_CC_CF : 0));
    X86_RETURN(cpu, op);
}

X86_HANDLER(rdrand)
{
    return random_handler(cpu, op, false);
}

X86_HANDLER(rdseed)
{
    return random_handler(cpu, op, true);
}

static bool host_has_random(unsigned arg)
{
    unsigned a, b = 0, c = 0, d;

    if (arg == X86_RDRAND)
        return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 30);
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 18);
}

bool x86_dec_random(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    if (arg == X86_RDRAND ? !(d->cpu->feat.l1_ecx & 1u << 30) : !(d->cpu->feat.l7_ebx & 1u << 18))
        return false;
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    op->size = (uint8_t)x86_dec_size(d, 0);
    op->imm = host_has_random(arg);
    op->fn = arg == X86_RDRAND ? rdrand : rdseed;
    return true;
}

/* ---- BOUND, UD ---- */

X86_HANDLER(bound)
{
    int32_t index, low, high;
    uint64_t a;

    if (op->size == 2) {
        int16_t b[2];

        if (!x86_ea(cpu, op, 4, false, &a) || !x86_read(cpu, op, op->seg, a, b, 4))
            return x86_leave(cpu, op);
        index = (int16_t)x86_r16(cpu, op->r);
        low = b[0];
        high = b[1];
    } else {
        int32_t b[2];

        if (!x86_ea(cpu, op, 8, false, &a) || !x86_read(cpu, op, op->seg, a, b, 8))
            return x86_leave(cpu, op);
        index = (int32_t)x86_r32(cpu, op->r);
        low = b[0];
        high = b[1];
    }
    if (index < low || index > high)
        return x86_fault(cpu, op, X86_BR);
    X86_RETURN(cpu, op);
}

bool x86_dec_bound(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    if (!x86_dec_is_mem(d, 1))
        return false;
    x86_dec_mem(d, 1, op);
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    op->size = (uint8_t)x86_dec_size(d, 0);
    op->fn = bound;
    return true;
}

bool x86_dec_ud(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
