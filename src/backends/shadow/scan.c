/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/scan.c: finds code that the host's CPU must not execute for the guest. */
#include "backends/shadow/scan.h"

#include <Zydis/Zydis.h>
#include <emmintrin.h>
#include <string.h>

#define PAGE     4096u
#define INSN_MAX 15u

/*
 * Decoding begins at INSN_MAX places in a row: in straight code one of them begins an instruction,
 * whatever the lengths are. The last of them is this far before the suspect, so that the wrong ones
 * are in step by then.
 */
#define RUN_UP 56u
#define BACK   (RUN_UP + INSN_MAX - 1)

/* How decoding came to a byte. Bytes that are no instruction are skipped; then they are data. */
#define IN_CODE    1u
#define AFTER_DATA 2u

/* The bytes around a suspect, as far as they are known. */
struct window {
    ZydisDecoder z;
    unsigned op;     /* the suspect's 0F */
    unsigned begins; /* instructions that count begin before here: the end of the page */
    unsigned size;
    bool most; /* the suspect counts if the greater part of the streams that come to it does so */
    uint8_t byte[BACK + INSN_MAX];
    uint8_t reached[BACK + 1];
    uint8_t streams[BACK + 1]; /* that come there */
};

static bool is_prefix(uint8_t byte)
{
    return (byte & 0xf0) == 0x40 || /* REX */
           (byte & 0xe7) == 0x26 || /* ES, CS, SS, DS */
           (byte & 0xfc) == 0x64 || /* FS, GS, operand and address size */
           byte == 0xf0 || byte == 0xf2 || byte == 0xf3;
}

/* All that may be looked for: is_suspect has left those out that are not, by their bytes. */
static bool is_wanted(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPRU:
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_WRPKRU:
        return true;
    default:
        return false;
    }
}

/* 0F 01, by its ModRM byte. */
static bool group7_wanted(uint8_t modrm, unsigned what)
{
    bool memory = modrm < 0xc0;
    unsigned reg = modrm >> 3 & 7;

    if (reg == 4 || (memory && reg <= 1))
        return true;
    switch (modrm) {
    case 0xc1: /* VMCALL, VMMCALL: where the host is a guest itself, its hypervisor answers them */
    case 0xd9:
        return true;
    case 0xd0: /* XGETBV */
        return what & SHADOW_SCAN_XSTATE;
    case 0xee: /* RDPKRU, WRPKRU */
    case 0xef:
        return what & SHADOW_SCAN_PKU;
    case 0xf9: /* RDTSCP, RDPRU */
    case 0xfd:
        return what & SHADOW_SCAN_TSC;
    default:
        return false;
    }
}

/* 0F AE, by its ModRM byte. */
static bool group15_wanted(uint8_t modrm, unsigned what)
{
    unsigned reg = modrm >> 3 & 7;

    if (modrm >= 0xc0)
        return reg <= 3 && what & SHADOW_SCAN_FSGSBASE;
    return reg >= 4 && reg <= 6 && what & SHADOW_SCAN_XSTATE;
}

/* 0F C7, by its ModRM byte. */
static bool group9_wanted(uint8_t modrm, unsigned what)
{
    unsigned reg = modrm >> 3 & 7;

    return modrm >= 0xc0 ? reg == 7 : reg == 4 && what & SHADOW_SCAN_XSTATE;
}

/* What opcodes that are looked for begin with: INT, of which 80h counts, and all others. */
static bool is_first(uint8_t byte)
{
    return byte == 0x0f || byte == 0xcd;
}

/* Whether these `n` bytes, of which the first is such a one, can be the opcode of such an
 * instruction. */
static bool is_suspect(const uint8_t *op, unsigned n, unsigned what)
{
    if (n < 2)
        return true;
    if (op[0] == 0xcd)
        return op[1] == 0x80;
    switch (op[1]) {
    case 0x00:
        return what & SHADOW_SCAN_UMIP && (n < 3 || (op[2] >> 3 & 7) <= 1);
    case 0x01:
        return n < 3 || group7_wanted(op[2], what);
    case 0x03:
    case 0x34:
        return true;
    case 0x31:
        return what & SHADOW_SCAN_TSC;
    case 0xa2:
        return what & SHADOW_SCAN_CPUID;
    case 0xae:
        return what & (SHADOW_SCAN_XSTATE | SHADOW_SCAN_FSGSBASE) &&
               (n < 3 || group15_wanted(op[2], what));
    case 0xc7:
        return n < 3 || group9_wanted(op[2], what);
    default:
        return false;
    }
}

/* The opcode of an instruction that begins at `at` is the suspect. */
static bool leads_to(const struct window *w, unsigned at)
{
    while (at < w->op && is_prefix(w->byte[at]))
        at++;
    return at == w->op;
}

enum step { GOES_ON, PASSES, HITS };

/* Decodes one instruction. PASSES: the suspect is inside of it, or is the next page's. */
static enum step step(struct window *w, unsigned at)
{
    ZydisDecodedInstruction insn;
    ZyanStatus status;

    if (at >= w->begins)
        return PASSES;
    status = ZydisDecoderDecodeInstruction(&w->z, NULL, w->byte + at, w->size - at, &insn);
    if (ZYAN_SUCCESS(status)) {
        if (at + insn.length > w->op)
            return is_wanted(insn.mnemonic) ? HITS : PASSES;
        w->reached[at + insn.length] |= w->reached[at];
        w->streams[at + insn.length] += w->streams[at];
        return GOES_ON;
    }
    /* What goes over the end of what is known has its opcode before that, or is the suspect. */
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return leads_to(w, at) ? HITS : PASSES;
    if (at + INSN_MAX > w->op && !w->most)
        return HITS;
    w->reached[at + 1] |= AFTER_DATA;
    w->streams[at + 1] += w->streams[at];
    return GOES_ON;
}

/* Whether the suspect may be executed: one stream is enough, if not w->most. */
static bool follow(struct window *w)
{
    unsigned hits = 0, all = 0;
    bool in_code = false;

    memset(w->reached, IN_CODE, INSN_MAX);
    memset(w->streams, 0, sizeof(w->streams));
    memset(w->streams, 1, INSN_MAX);
    for (unsigned at = 0; at <= w->op; at++) {
        enum step s = w->reached[at] ? step(w, at) : GOES_ON;

        if (s == HITS && !w->most)
            return true;
        if (s == PASSES && w->reached[at] & IN_CODE)
            in_code = true;
        hits += s == HITS ? w->streams[at] : 0;
        all += s == GOES_ON ? 0 : w->streams[at];
    }
    /* Behind data nothing tells where code begins. */
    return w->most && all ? 2 * hits > all : !in_code;
}

static void copy(struct window *w, const uint8_t *from, unsigned n)
{
    memcpy(w->byte + w->size, from, n);
    w->size += n;
}

/* Whether the suspect whose 0F is at `op`, perhaps behind the page's end, may be executed. */
static bool is_executed(const struct shadow_code *c, unsigned op)
{
    unsigned ahead = op >= BACK || !c->prev ? 0 : BACK - op; /* of the page before this one */
    unsigned first = op > BACK ? op - BACK : 0, end = op + INSN_MAX;
    unsigned known = PAGE + (c->next ? INSN_MAX : 0);
    struct window w = {.op = ahead + op - first, .begins = ahead + PAGE - first};

    end = end < known ? end : known;
    if (ahead)
        copy(&w, c->prev + PAGE - ahead, ahead);
    copy(&w, c->page + first, (end < PAGE ? end : PAGE) - first);
    if (end > PAGE)
        copy(&w, c->next, end - PAGE);
    ZydisDecoderInit(&w.z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderEnableMode(&w.z, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
    /* 0F 00 is all over the immediates of ordinary code, and what Linux gives under UMIP is the
     * same in guest and host: nearly all false alarms are worth more than the last one found. */
    w.most = op + 1 < known && w.byte[w.op + 1] == 0x00;
    return follow(&w);
}

/* Bit i: byte i and the one behind it begin an opcode looked for. */
static unsigned find_suspects(__m128i byte, __m128i behind)
{
    const __m128i second[] = {
        /* 00, 01 and 03; 02 (LAR) is_suspect refuses */
        _mm_cmpeq_epi8(_mm_and_si128(behind, _mm_set1_epi8((char)0xfc)), _mm_setzero_si128()),
        _mm_cmpeq_epi8(behind, _mm_set1_epi8(0x31)),
        _mm_cmpeq_epi8(behind, _mm_set1_epi8(0x34)),
        _mm_cmpeq_epi8(behind, _mm_set1_epi8((char)0xa2)),
        _mm_cmpeq_epi8(behind, _mm_set1_epi8((char)0xae)),
        _mm_cmpeq_epi8(behind, _mm_set1_epi8((char)0xc7)),
    };
    __m128i any = second[0];

    for (unsigned i = 1; i < sizeof(second) / sizeof(second[0]); i++)
        any = _mm_or_si128(any, second[i]);
    any = _mm_and_si128(any, _mm_cmpeq_epi8(byte, _mm_set1_epi8(0x0f)));
    any = _mm_or_si128(any, _mm_and_si128(_mm_cmpeq_epi8(byte, _mm_set1_epi8((char)0xcd)),
                                          _mm_cmpeq_epi8(behind, _mm_set1_epi8((char)0x80))));
    return (unsigned)_mm_movemask_epi8(any);
}

/*
 * Suspects that are not wholly in the page: opcodes in its last two bytes, and those behind
 * prefixes with which it ends.
 */
static bool scan_end(const struct shadow_code *c, unsigned what)
{
    uint8_t end[2 + INSN_MAX] = {c->page[PAGE - 2], c->page[PAGE - 1]};
    unsigned n = c->next ? sizeof(end) : 2;

    if (c->next)
        memcpy(end + 2, c->next, INSN_MAX);
    for (unsigned i = 0; i < n && (i < 2 || is_prefix(end[i - 1])); i++) {
        if (!is_first(end[i]) || !is_suspect(end + i, n - i, what))
            continue;
        if (is_executed(c, PAGE - 2 + i))
            return true;
    }
    return false;
}

bool shadow_scan(const struct shadow_code *c, unsigned what)
{
    const uint8_t *page = c->page;

    for (unsigned at = 0; at < PAGE; at += 16) {
        __m128i byte = _mm_loadu_si128((const void *)(page + at));
        __m128i behind = at + 16 < PAGE ? _mm_loadu_si128((const void *)(page + at + 1))
                                        : _mm_srli_si128(byte, 1);

        for (unsigned found = find_suspects(byte, behind); found; found &= found - 1) {
            unsigned op = at + (unsigned)__builtin_ctz(found);

            if (op + 3 > PAGE || !is_suspect(page + op, 3, what))
                continue;
            if (is_executed(c, op))
                return true;
        }
    }
    return scan_end(c, what);
}
