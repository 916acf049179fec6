/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_isa.c: which instruction set extensions may be executed. */
#include <cpuid.h>
#include <pthread.h>

#include "core/x86/vec.h"
#include "core/x86/vec_features.h"

/* CPUID words that extensions are found in. */
enum word { W_1_EDX, W_1_ECX, W_7_EBX, W_7_ECX, W_7_EDX, W_7_1_EAX, W_N };

#define AVX512VL 31

struct rule {
    uint16_t isa; /* ZydisISASet */
    uint8_t word, bit;
    bool vl; /* and AVX512VL */
};

#define R(isa, word, bit)                                                                          \
    {                                                                                              \
        ZYDIS_ISA_SET_##isa, word, bit, false                                                      \
    }
/* AVX-512 extensions by vector length. */
#define R512(isa, word, bit)                                                                       \
    {ZYDIS_ISA_SET_##isa##_512, word, bit, false}, {ZYDIS_ISA_SET_##isa##_256, word, bit, true},   \
    {                                                                                              \
        ZYDIS_ISA_SET_##isa##_128, word, bit, true                                                 \
    }

static const struct rule rules[] = {
    R(X87, W_1_EDX, 0),
    R(FCMOV, W_1_EDX, 0),
    R(PPRO, W_1_EDX, 0), /* FCOMI */
    R(SSE3X87, W_1_ECX, 0),
    R(PENTIUMMMX, W_1_EDX, 23),
    R(SSE, W_1_EDX, 25),
    R(SSEMXCSR, W_1_EDX, 25),
    R(SSE2, W_1_EDX, 26),
    R(SSE2MMX, W_1_EDX, 26),
    R(SSE3, W_1_ECX, 0),
    R(PCLMULQDQ, W_1_ECX, 1),
    R(SSSE3, W_1_ECX, 9),
    R(SSSE3MMX, W_1_ECX, 9),
    R(FMA, W_1_ECX, 12),
    R(SSE4, W_1_ECX, 19),
    R(SSE42, W_1_ECX, 20),
    R(AES, W_1_ECX, 25),
    R(AVX, W_1_ECX, 28),
    R(AVXAES, W_1_ECX, 25),
    R(F16C, W_1_ECX, 29),
    R(AVX2, W_7_EBX, 5),
    R(AVX2GATHER, W_7_EBX, 5),
    R(SHA, W_7_EBX, 29),
    R512(AVX512F, W_7_EBX, 16),
    R(AVX512F_128N, W_7_EBX, 16),
    R(AVX512F_KOP, W_7_EBX, 16),
    R(AVX512F_SCALAR, W_7_EBX, 16),
    R512(AVX512DQ, W_7_EBX, 17),
    R(AVX512DQ_128N, W_7_EBX, 17),
    R(AVX512DQ_KOP, W_7_EBX, 17),
    R(AVX512DQ_SCALAR, W_7_EBX, 17),
    R512(AVX512_IFMA, W_7_EBX, 21),
    R512(AVX512CD, W_7_EBX, 28),
    R512(AVX512BW, W_7_EBX, 30),
    R(AVX512BW_128N, W_7_EBX, 30),
    R(AVX512BW_KOP, W_7_EBX, 30),
    R512(AVX512_VBMI, W_7_ECX, 1),
    R512(AVX512_VBMI2, W_7_ECX, 6),
    R(GFNI, W_7_ECX, 8),
    R(AVX_GFNI, W_7_ECX, 8),
    R512(AVX512_GFNI, W_7_ECX, 8),
    R(VAES, W_7_ECX, 9),
    R512(AVX512_VAES, W_7_ECX, 9),
    R(VPCLMULQDQ, W_7_ECX, 10),
    R512(AVX512_VPCLMULQDQ, W_7_ECX, 10),
    R512(AVX512_VNNI, W_7_ECX, 11),
    R512(AVX512_BITALG, W_7_ECX, 12),
    R512(AVX512_VPOPCNTDQ, W_7_ECX, 14),
    R512(AVX512_FP16, W_7_EDX, 23),
    R(AVX512_FP16_128N, W_7_EDX, 23),
    R(AVX512_FP16_SCALAR, W_7_EDX, 23),
    R(AVX_VNNI, W_7_1_EAX, 4),
    R512(AVX512_BF16, W_7_1_EAX, 5),
};

/* What the host's processor and operating system support. AVX-512 counts only with AVX512BW, as
 * thunks load 64-bit mask registers. */
static void find_host_words(uint32_t w[W_N])
{
    uint32_t a, b, c, d, xcr0 = 0, hi;
    bool avx512;

    __cpuid(1, a, b, w[W_1_ECX], w[W_1_EDX]);
    if (w[W_1_ECX] & 1u << 27)
        __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(hi) : "c"(0));
    w[W_7_EBX] = w[W_7_ECX] = w[W_7_EDX] = w[W_7_1_EAX] = 0;
    if (__get_cpuid_count(7, 0, &a, &w[W_7_EBX], &w[W_7_ECX], &w[W_7_EDX]) && a >= 1)
        __cpuid_count(7, 1, w[W_7_1_EAX], b, c, d);
    if ((xcr0 & 6) != 6) {
        w[W_1_ECX] &= ~(1u << 12 | 1u << 28 | 1u << 29);
        w[W_7_EBX] &= ~(1u << 5);
        w[W_7_ECX] &= ~(1u << 9 | 1u << 10);
        w[W_7_1_EAX] &= ~(1u << 4);
    }
    avx512 = (xcr0 & 0xe6) == 0xe6 && (w[W_7_EBX] & 1u << 16) && (w[W_7_EBX] & 1u << 30);
    if (!avx512) {
        w[W_7_EBX] &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 30 | 1u << AVX512VL);
        w[W_7_ECX] &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
        w[W_7_EDX] &= ~(1u << 23);
        w[W_7_1_EAX] &= ~(1u << 5);
    }
}

static uint32_t host_words[W_N];
static uint8_t rule_of[ZYDIS_ISA_SET_MAX_VALUE + 1]; /* index + 1 */

static void prepare(void)
{
    find_host_words(host_words);
    for (unsigned i = sizeof rules / sizeof rules[0]; i > 0; i--)
        rule_of[rules[i - 1].isa] = (uint8_t)i;
}

void vec_ask_host(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT; /* hypervisors trap CPUID */

    pthread_once(&once, prepare);
}

static bool usable(const struct x86_cpu *cpu, unsigned word, unsigned bit)
{
    const uint32_t guest[W_N] = {cpu->feat.l1_edx, cpu->feat.l1_ecx, cpu->feat.l7_ebx,
                                 cpu->feat.l7_ecx, cpu->feat.l7_edx, cpu->feat.l7_1_eax};
    static const uint32_t known[W_N] = {X86_VEC_1_EDX, X86_VEC_1_ECX, X86_VEC_7_EBX,
                                        X86_VEC_7_ECX, X86_VEC_7_EDX, X86_VEC_7_1_EAX};

    return (guest[word] & host_words[word] & known[word]) >> bit & 1;
}

bool vec_has(const struct x86_dec *d)
{
    const struct rule *r;

    vec_ask_host();
    if (!rule_of[d->insn.meta.isa_set])
        return false;
    r = &rules[rule_of[d->insn.meta.isa_set] - 1];
    /* VEX forms of AES, PCLMULQDQ and GFNI are of AVX too, EVEX ones of AVX-512. */
    if (d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && !usable(d->cpu, W_1_ECX, 28))
        return false;
    if (d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && !usable(d->cpu, W_7_EBX, 16))
        return false;
    return usable(d->cpu, r->word, r->bit) && (!r->vl || usable(d->cpu, W_7_EBX, AVX512VL));
}
