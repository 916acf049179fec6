/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/thunk.c: makes and keeps the host code that executes the guest's data instructions. */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/x86/thunk.h"
#include "core/x86/vec.h"
#include "core/x86/vec_emit.h"
#include <vmm/vcpu.h>

/* ---- code memory ---- */

/* Forgets all forms and their code. Ops that refer to them notice by the generation. */
static void drop_all(struct x86_thunks *t)
{
    t->gen++;
    t->nforms = 0;
    t->chunk = 0;
    t->used = 0;
    memset(t->hash, 0, sizeof t->hash);
}

static struct x86_thunks *thunks(struct x86_cpu *cpu)
{
    if (!cpu->thunks) {
        cpu->thunks = malloc(sizeof *cpu->thunks);
        if (cpu->thunks) {
            memset(cpu->thunks, 0, offsetof(struct x86_thunks, forms));
            cpu->thunks->gen = 1;
        }
    }
    return cpu->thunks;
}

void x86_thunks_destroy(struct x86_cpu *cpu)
{
    free(cpu->thunks);
    cpu->thunks = NULL;
}

/* Room for `len` bytes of code: 0, ENOSPC when everything is full, or another errno. */
static int reserve(struct x86_cpu *cpu, size_t len)
{
    struct x86_thunks *t = cpu->thunks;
    void *rw, *rx;
    int r;

    if (t->nchunks && t->used + len > VEC_CHUNK) {
        if (t->chunk + 1 == VEC_MAX_CHUNK)
            return ENOSPC;
        t->chunk++;
        t->used = 0;
    }
    if (t->chunk < t->nchunks)
        return 0;
    r = cpu->env->code_alloc(cpu->env->mmu.ctx, VEC_CHUNK, &rw, &rx);
    if (r) {
        if (t->chunk)
            t->chunk--;
        t->used = VEC_CHUNK;
        return t->nchunks ? ENOSPC : r;
    }
    t->rw[t->nchunks] = rw;
    t->rx[t->nchunks] = rx;
    t->nchunks++;
    return 0;
}

int x86_thunks_create(struct x86_cpu *cpu)
{
    vec_ask_host();
    return thunks(cpu) ? reserve(cpu, 0) : ENOMEM;
}

/* Code that replaces dropped code through another address is executed only after a serialising
 * instruction (SDM Vol. 3A 9.1.3). */
static void serialize(void)
{
    unsigned a, b, c, d;

    __cpuid(0, a, b, c, d);
    __asm__ volatile("" ::"r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

static vec_code *publish(struct x86_cpu *cpu, const struct vec_emit *e)
{
    struct x86_thunks *t = cpu->thunks;
    union {
        void *object;
        vec_code *code;
    } u;

    memcpy(t->rw[t->chunk] + t->used, e->code, e->len);
    u.object = t->rx[t->chunk] + t->used;
    t->used += (e->len + 15u) & ~15u;
    if (t->gen > 1)
        serialize();
    cpu->count.thunks++;
    return u.code;
}

/* ---- forms ---- */

static unsigned hash_key(const uint8_t *key)
{
    uint32_t h = 2166136261u;

    for (unsigned i = 0; i < VEC_KEY; i++)
        h = (h ^ key[i]) * 16777619u;
    return (h ^ h >> 15) % VEC_HASH;
}

static bool find(struct x86_thunks *t, unsigned bucket, const uint8_t *key, unsigned *index)
{
    for (unsigned i = t->hash[bucket]; i; i = t->forms[i - 1].next)
        if (!memcmp(t->forms[i - 1].key, key, VEC_KEY)) {
            *index = i - 1;
            return true;
        }
    return false;
}

/* There is no code memory at all: the program is told which instruction cannot be executed. */
static const struct x86_op *miss(struct x86_cpu *cpu, const struct x86_op *op)
{
    cpu->stop = X86_STOP_EXIT;
    cpu->exit_reason = VMM_EXIT_EMUL_MISS;
    return x86_leave(cpu, op);
}

bool vec_enter_form(struct x86_dec *d, struct x86_op *op, struct vec_form *form,
                    const struct vec_emit *code)
{
    struct x86_thunks *t = thunks(d->cpu);
    unsigned bucket = hash_key(form->key), index;
    int r = 0;

    if (!t)
        return false;
    if (!find(t, bucket, form->key, &index)) {
        if (t->nforms == VEC_FORMS)
            r = ENOSPC;
        else if (code)
            r = reserve(d->cpu, code->len);
        if (r == ENOSPC) {
            drop_all(t);
            r = code ? reserve(d->cpu, code->len) : 0;
        }
        if (r == ENOTSUP) {
            op->fn = miss;
            return true;
        }
        if (r)
            return false;
        if (code)
            form->code = publish(d->cpu, code);
        index = t->nforms++;
        form->next = t->hash[bucket];
        t->forms[index] = *form;
        t->hash[bucket] = (uint16_t)(index + 1);
    }
    op->imm = t->gen << 16 | index;
    op->fn = t->forms[index].fn;
    return true;
}

const struct x86_op *vec_redecode(struct x86_cpu *cpu, const struct x86_op *op)
{
    x86_leave(cpu, op);
    x86_cache_flush(cpu);
    return NULL;
}
