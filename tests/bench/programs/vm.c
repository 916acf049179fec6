/* SPDX-License-Identifier: BSD-2-Clause */
/* A byte-code interpreter that counts primes below SIZE and adds up recursive Fibonacci numbers. */
#include "bench.h"

enum op {
    PUSH, /* constant */
    LOAD, /* local */
    STORE,
    ADD,
    SUB,
    LESS,
    GET, /* array element */
    SET,
    JUMP,
    JUMP_IF_NOT,
    CALL, /* one argument on the stack, becomes local 0 */
    RETURN,
    HALT
};

enum { STACK = 4096, FRAME = 4 };

static int32_t *array;

/* One `switch` per instruction: an indirect jump that is hard to predict. */
static int64_t run(const int32_t *code, int32_t size)
{
    static int64_t stack[STACK];
    static int64_t locals[STACK];
    static const int32_t *returns[STACK];
    const int32_t *pc = code;
    int64_t *sp = stack, *local = locals;
    int depth = 0;
    int64_t value;
    local[0] = size;
    for (;;) {
        switch (*pc++) {
        case PUSH:
            *sp++ = *pc++;
            break;
        case LOAD:
            *sp++ = local[*pc++];
            break;
        case STORE:
            local[*pc++] = *--sp;
            break;
        case ADD:
            sp--, sp[-1] += sp[0];
            break;
        case SUB:
            sp--, sp[-1] -= sp[0];
            break;
        case LESS:
            sp--, sp[-1] = sp[-1] < sp[0];
            break;
        case GET:
            sp[-1] = array[sp[-1]];
            break;
        case SET:
            sp -= 2, array[sp[0]] = (int32_t)sp[1];
            break;
        case JUMP:
            pc = code + *pc;
            break;
        case JUMP_IF_NOT:
            pc = *--sp ? pc + 1 : code + *pc;
            break;
        case CALL:
            returns[depth++] = pc + 1;
            local += FRAME;
            local[0] = *--sp;
            pc = code + *pc;
            break;
        case RETURN:
            pc = returns[--depth];
            local -= FRAME;
            break;
        case HALT:
            value = *--sp;
            return value;
        }
    }
}

/* n in local 0, i in 1, j in 2, count in 3. */
static const int32_t sieve[] = {PUSH, 0, STORE, 3, PUSH, 2, STORE, 1,
                                /* 8: while i < n */
                                LOAD, 1, LOAD, 0, LESS, JUMP_IF_NOT, 60,
                                /* 15: if array[i] is not marked */
                                PUSH, 1, LOAD, 1, GET, SUB, JUMP_IF_NOT, 51,
                                /* 23: count it */
                                LOAD, 3, PUSH, 1, ADD, STORE, 3,
                                /* 30: mark multiples */
                                LOAD, 1, LOAD, 1, ADD, STORE, 2,
                                /* 37: not reached by falling out of the loop */
                                JUMP, 63, PUSH, 0, PUSH, 0, PUSH, 0, PUSH, 0, PUSH, 0, PUSH, 0,
                                /* 51: next i */
                                LOAD, 1, PUSH, 1, ADD, STORE, 1, JUMP, 8,
                                /* 60 */
                                LOAD, 3, HALT,
                                /* 63: while j < n: mark j; j += i */
                                LOAD, 2, LOAD, 0, LESS, JUMP_IF_NOT, 51, LOAD, 2, PUSH, 1, SET,
                                LOAD, 2, LOAD, 1, ADD, STORE, 2, JUMP, 63};

static const int32_t fibonacci[] = {LOAD, 0, CALL, 5, HALT,
                                    /* 5: fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2) */
                                    LOAD, 0, PUSH, 2, LESS, JUMP_IF_NOT, 15, LOAD, 0, RETURN,
                                    /* 15 */
                                    LOAD, 0, PUSH, 1, SUB, CALL, 5, LOAD, 0, PUSH, 2, SUB, CALL, 5,
                                    ADD, RETURN};

int main(int argc, char **argv)
{
    int32_t size = (int32_t)bench_size(argc, argv);
    array = calloc((size_t)size, sizeof(*array));
    if (array == NULL)
        return 2;
    uint64_t sum = (uint64_t)run(sieve, size);
    int32_t n = 1;
    for (int32_t i = size; i > 8; i = (int32_t)(i / 1.618))
        n++;
    return bench_print("vm", bench_mix(sum, (uint64_t)run(fibonacci, n)));
}
