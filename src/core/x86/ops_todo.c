/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_todo.c: integer instructions that are not written yet. */
#include "core/x86/ops_int.h"

bool x86_dec_jcc(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_jmp(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_call(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_ret(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_loop(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_string(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_push(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_pop(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_pusha(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_popa(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_enter(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_leave(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_nop(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_fence(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_clflush(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_random(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_bound(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
bool x86_dec_ud(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
