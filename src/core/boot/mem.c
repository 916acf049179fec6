/* SPDX-License-Identifier: BSD-2-Clause */
/* mem.c: what lies where in guest memory during boot: claims, placement, the memory map. */
#include "core/boot/boot.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int boot_fail(struct boot_error *error, int code, const char *format, ...)
{
    va_list args;

    error->code = code;
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return code;
}

uint16_t boot_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

uint32_t boot_get32(const uint8_t *p)
{
    return boot_get16(p) | (uint32_t)boot_get16(p + 2) << 16;
}

uint64_t boot_get64(const uint8_t *p)
{
    return boot_get32(p) | (uint64_t)boot_get32(p + 4) << 32;
}

void boot_put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

void boot_put32(uint8_t *p, uint32_t v)
{
    boot_put16(p, (uint16_t)v);
    boot_put16(p + 2, (uint16_t)(v >> 16));
}

void boot_put64(uint8_t *p, uint64_t v)
{
    boot_put32(p, (uint32_t)v);
    boot_put32(p + 4, (uint32_t)(v >> 32));
}

/* ---- range lists ---- */

static bool range_end(uint64_t start, uint64_t len, uint64_t *end)
{
    return !__builtin_add_overflow(start, len, end);
}

/* Appends a range that begins at or after the last one's end; adjacent ones become one. */
static int range_append(struct boot_range *list, uint32_t *n, uint64_t start, uint64_t end,
                        struct boot_error *error)
{
    if (start >= end)
        return 0;
    if (*n > 0 && list[*n - 1].end == start) {
        list[*n - 1].end = end;
        return 0;
    }
    if (*n == BOOT_MAX_RANGES)
        return boot_fail(error, VMM_E_LIMIT, "guest memory has more than %u separate ranges",
                         BOOT_MAX_RANGES);
    list[(*n)++] = (struct boot_range){start, end, "RAM"};
    return 0;
}

static bool range_covers(const struct boot_range *list, uint32_t n, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i].start <= start && end <= list[i].end)
            return true;
    return false;
}

/* RAM without the legacy hole: video memory, option ROMs and BIOS (and the EBDA below them). */
static int ram_append(struct boot_mem *mem, uint64_t start, uint64_t end)
{
    uint64_t low_end = end < BOOT_LOW_RAM_END ? end : BOOT_LOW_RAM_END;
    uint64_t high_start = start > BOOT_1M ? start : BOOT_1M;
    int err = range_append(mem->ram, &mem->nram, start, low_end, mem->error);

    return err ? err : range_append(mem->ram, &mem->nram, high_start, end, mem->error);
}

static int ram_of_pc(struct boot_mem *mem, const struct vmm_pc *pc)
{
    const struct boot_range part[2] = {{0, pc->low_ram, NULL},
                                       {VMM_PC_HIGH_RAM, VMM_PC_HIGH_RAM + pc->high_ram, NULL}};

    if (pc->low_ram > VMM_PC_HIGH_RAM || pc->high_ram > UINT64_MAX - VMM_PC_HIGH_RAM)
        return boot_fail(mem->error, VMM_E_INVAL,
                         "pc says 0x%" PRIx64 " bytes of RAM at 0 and 0x%" PRIx64 " at 4 GiB",
                         pc->low_ram, pc->high_ram);
    for (int i = 0; i < 2; i++) {
        int err;

        if (part[i].start == part[i].end)
            continue;
        if (!range_covers(mem->mapped, mem->nmapped, part[i].start, part[i].end))
            return boot_fail(mem->error, VMM_E_NOSPACE,
                             "pc says RAM at 0x%" PRIx64 "-0x%" PRIx64
                             ", but not all of it is mapped",
                             part[i].start, part[i].end);
        err = ram_append(mem, part[i].start, part[i].end);
        if (err)
            return err;
    }
    return 0;
}

int boot_mem_init(struct boot_mem *mem, struct vm *vm, const struct vmm_pc *pc,
                  struct boot_error *error)
{
    uint64_t gpa = 0, len = 0;
    uint32_t prot = 0;
    int err = 0;

    mem->vm = vm;
    mem->error = error;
    mem->nmapped = mem->nram = mem->nclaim = 0;
    for (uint32_t i = 0; !err && vm_mem_region(vm, i, &gpa, &len, &prot) == 0; i++) {
        err = range_append(mem->mapped, &mem->nmapped, gpa, gpa + len, error);
        if (!err && !pc && (prot & VMM_MEM_W))
            err = ram_append(mem, gpa, gpa + len);
    }
    if (!err && pc)
        err = ram_of_pc(mem, pc);
    return err;
}

/* ---- claims ---- */

/* The first claim that ends after `start`: the only candidate to overlap a range from there. */
static uint32_t claim_after(const struct boot_mem *mem, uint64_t start)
{
    uint32_t i = 0;

    while (i < mem->nclaim && mem->claim[i].end <= start)
        i++;
    return i;
}

static int claim_insert(struct boot_mem *mem, uint32_t at, uint64_t start, uint64_t end,
                        const char *what)
{
    if (mem->nclaim == BOOT_MAX_CLAIMS)
        return boot_fail(mem->error, VMM_E_LIMIT, "more than %u pieces to load", BOOT_MAX_CLAIMS);
    memmove(&mem->claim[at + 1], &mem->claim[at], (mem->nclaim - at) * sizeof(mem->claim[0]));
    mem->claim[at] = (struct boot_range){start, end, what};
    mem->nclaim++;
    return 0;
}

bool boot_mem_is_free(const struct boot_mem *mem, uint64_t start, uint64_t len)
{
    uint64_t end;
    uint32_t at = claim_after(mem, start);

    return range_end(start, len, &end) && range_covers(mem->mapped, mem->nmapped, start, end) &&
           (at == mem->nclaim || mem->claim[at].start >= end);
}

int boot_mem_claim(struct boot_mem *mem, uint64_t start, uint64_t len, const char *what)
{
    uint64_t end;
    uint32_t at;

    if (len == 0)
        return 0;
    if (!range_end(start, len, &end) || !range_covers(mem->mapped, mem->nmapped, start, end))
        return boot_fail(mem->error, VMM_E_NOSPACE,
                         "%s at 0x%" PRIx64 "+0x%" PRIx64 " does not lie in guest memory", what,
                         start, len);
    at = claim_after(mem, start);
    if (at < mem->nclaim && mem->claim[at].start < end)
        return boot_fail(mem->error, VMM_E_EXIST,
                         "%s at 0x%" PRIx64 "+0x%" PRIx64 " overlaps %s at 0x%" PRIx64
                         "+0x%" PRIx64,
                         what, start, len, mem->claim[at].what, mem->claim[at].start,
                         mem->claim[at].end - mem->claim[at].start);
    return claim_insert(mem, at, start, end, what);
}

/* Lowest aligned start of `len` free bytes in [start, end). */
static bool gap_low(const struct boot_mem *mem, uint64_t start, uint64_t end, uint64_t len,
                    uint64_t align, uint64_t *gpa)
{
    for (;;) {
        uint64_t from = start, to;
        uint32_t at;

        if (from > UINT64_MAX - (align - 1))
            return false;
        from = (from + align - 1) & ~(align - 1);
        if (!range_end(from, len, &to) || to > end)
            return false;
        at = claim_after(mem, from);
        if (at == mem->nclaim || mem->claim[at].start >= to) {
            *gpa = from;
            return true;
        }
        start = mem->claim[at].end;
    }
}

/* Highest aligned start of `len` free bytes in [start, end). */
static bool gap_high(const struct boot_mem *mem, uint64_t start, uint64_t end, uint64_t len,
                     uint64_t align, uint64_t *gpa)
{
    for (;;) {
        uint64_t from;
        uint32_t at;

        if (end < start || end - start < len)
            return false;
        from = (end - len) & ~(align - 1);
        if (from < start)
            return false;
        at = claim_after(mem, from);
        if (at == mem->nclaim || mem->claim[at].start >= from + len) {
            *gpa = from;
            return true;
        }
        end = mem->claim[at].start;
    }
}

static int place(struct boot_mem *mem, bool high, uint64_t len, uint64_t align, uint64_t min,
                 uint64_t max, const char *what, uint64_t *gpa)
{
    for (uint32_t i = 0; i < mem->nram; i++) {
        const struct boot_range *ram = &mem->ram[high ? mem->nram - 1 - i : i];
        uint64_t start = ram->start > min ? ram->start : min;
        uint64_t end = ram->end < max ? ram->end : max;

        if (start < end && (high ? gap_high : gap_low)(mem, start, end, len, align, gpa))
            return boot_mem_claim(mem, *gpa, len, what);
    }
    return boot_fail(mem->error, VMM_E_NOSPACE,
                     "no free RAM for %s: 0x%" PRIx64 " bytes between 0x%" PRIx64 " and 0x%" PRIx64,
                     what, len, min, max);
}

int boot_mem_place_low(struct boot_mem *mem, uint64_t len, uint64_t align, uint64_t min,
                       uint64_t max, const char *what, uint64_t *gpa)
{
    return place(mem, false, len, align, min, max, what, gpa);
}

int boot_mem_place_high(struct boot_mem *mem, uint64_t len, uint64_t align, uint64_t min,
                        uint64_t max, const char *what, uint64_t *gpa)
{
    return place(mem, true, len, align, min, max, what, gpa);
}

int boot_mem_place_data(struct boot_mem *mem, uint64_t len, uint64_t align, const char *what,
                        uint64_t *gpa)
{
    /* From 0x1000 on: page 0 holds the real-mode vectors and the BIOS data area. */
    if (place(mem, false, len, align, BOOT_PAGE, BOOT_LOW_RAM_END, what, gpa) == 0)
        return 0;
    return place(mem, true, len, align, BOOT_1M, BOOT_4G, what, gpa);
}

/* ---- content ---- */

int boot_mem_write(struct boot_mem *mem, uint64_t gpa, const void *data, uint64_t len)
{
    if (len > 0 && vm_mem_write(mem->vm, gpa, data, len) != 0)
        return boot_fail(mem->error, VMM_E_NOSPACE,
                         "cannot write 0x%" PRIx64 " bytes of guest memory at 0x%" PRIx64, len,
                         gpa);
    return 0;
}

static bool is_zero(const uint8_t *p, uint64_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

int boot_mem_zero(struct boot_mem *mem, uint64_t gpa, uint64_t len)
{
    static const uint8_t zeros[BOOT_PAGE];

    while (len > 0) {
        uint64_t part = BOOT_PAGE - gpa % BOOT_PAGE;
        const void *host;

        part = part < len ? part : len;
        host = vm_mem_ptr(mem->vm, gpa, part);
        if (!host || !is_zero(host, part)) {
            int err = boot_mem_write(mem, gpa, zeros, part);

            if (err)
                return err;
        }
        gpa += part;
        len -= part;
    }
    return 0;
}

int boot_mem_string(struct boot_mem *mem, const char *text, const char *what, uint64_t *gpa)
{
    uint64_t len = strlen(text) + 1;
    int err = boot_mem_place_data(mem, len, 16, what, gpa);

    return err ? err : boot_mem_write(mem, *gpa, text, len);
}

/* ---- memory map ---- */

static int e820_add(const struct boot_mem *mem, struct boot_e820 *map, uint32_t max, uint32_t *n,
                    struct boot_e820 entry)
{
    if (*n == max)
        return boot_fail(mem->error, VMM_E_LIMIT, "the memory map needs more than %u entries", max);
    map[(*n)++] = entry;
    return 0;
}

int boot_mem_e820(const struct boot_mem *mem, struct boot_e820 *map, uint32_t max, uint32_t *n)
{
    const struct boot_e820 hole = {BOOT_LOW_RAM_END, BOOT_1M - BOOT_LOW_RAM_END, BOOT_RESERVED};
    bool hole_done = false;
    int err = 0;

    *n = 0;
    for (uint32_t i = 0; !err && i < mem->nram; i++) {
        const struct boot_range *ram = &mem->ram[i];

        if (!hole_done && ram->start >= BOOT_1M) {
            hole_done = true;
            err = e820_add(mem, map, max, n, hole);
            if (err)
                break;
        }
        err = e820_add(mem, map, max, n,
                       (struct boot_e820){ram->start, ram->end - ram->start, BOOT_RAM});
    }
    if (!err && !hole_done)
        err = e820_add(mem, map, max, n, hole);
    return err;
}
