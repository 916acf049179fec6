/* SPDX-License-Identifier: BSD-2-Clause */
/* translate.c: what it costs to decode and to translate code: CPU time per guest instruction, in
 * cycles of the TSC.
 *
 * usage: bench_translate [ELF-FILE [KIB]]
 *
 * The code is the file's section .text, or this program's, up to KIB (default 1024), as blocks one
 * after the other. Nothing of it is executed. */
#include <elf.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#include "core/x86/cache.h"
#include "x86_fake.h"

#define TEXT  (2u << 20) /* guest-physical and linear */
#define ARENA (256u << 20)

static struct fake *f;
static struct x86_block **blocks;
static unsigned nblocks;

/* The size of what is loaded; 0: no such section. */
static size_t load(const char *path, size_t max)
{
    FILE *file = fopen(path, "rb");
    Elf64_Ehdr head;
    Elf64_Shdr section, names;
    char name[8];
    size_t size = 0;

    if (!file || fread(&head, sizeof(head), 1, file) != 1)
        return 0;
    fseek(file, (long)(head.e_shoff + head.e_shstrndx * sizeof(names)), SEEK_SET);
    if (fread(&names, sizeof(names), 1, file) != 1)
        return 0;
    for (unsigned i = 0; i < head.e_shnum && !size; i++) {
        fseek(file, (long)(head.e_shoff + i * sizeof(section)), SEEK_SET);
        if (fread(&section, sizeof(section), 1, file) != 1)
            break;
        fseek(file, (long)(names.sh_offset + section.sh_name), SEEK_SET);
        if (!fgets(name, sizeof(name), file) || strcmp(name, ".text") != 0)
            continue;
        size = section.sh_size < max ? section.sh_size : max;
        fseek(file, (long)section.sh_offset, SEEK_SET);
        size = fread(f->mem + TEXT, 1, size, file);
    }
    fclose(file);
    return size;
}

static double seconds(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static double tsc_hz(void)
{
    double t = seconds(CLOCK_MONOTONIC);
    uint64_t tsc = __rdtsc();

    while (seconds(CLOCK_MONOTONIC) < t + 0.02)
        ;
    return (double)(__rdtsc() - tsc) / (seconds(CLOCK_MONOTONIC) - t);
}

/* All phases are done to each block once. */
static void decode(size_t size, uint64_t *insns)
{
    struct x86_block none = {.dead = true};

    nblocks = 0;
    for (size_t at = 0; at < size;) {
        struct x86_code code = {
            .linear = TEXT + at, .gpa = TEXT + at, .page = f->mem + ((TEXT + at) & ~(size_t)4095)};
        struct x86_block *b = NULL;

        for (bool again = true; again;)
            b = x86_cache_get(f->cpu, &code, f->cpu->mode, &none, &again);
        if (!b)
            exit(1);
        at += b->bytes;
        *insns += b->n;
        blocks[nblocks++] = b;
    }
}

/* The entry of translated code sees that something is requested and leaves. */
static void translate(uint64_t *insns)
{
    struct x86_cpu *cpu = f->cpu;

    for (unsigned i = 0; i < nblocks; i++) {
        struct x86_block *b = blocks[i];

        if (b->gpa2 != MMU_NO_TAG)
            continue;
        cpu->blk = b;
        cpu->gpr[X86_RIP0] = b->gpa;
        cpu->countdown = b->n;
        x86_wake(cpu);
        b->ops[0].fn(cpu, b->ops);
        *insns += b->n;
        cpu->blk = NULL;
        cpu->event.valid = false;
        cpu->stop = X86_STOP_NONE;
    }
}

static void make_regions(uint64_t *insns, unsigned *count)
{
    for (unsigned i = 0; i < nblocks; i++) {
        struct bt_trans *t = bt_translation(blocks[i]);

        if (!t || t->region || t->regions)
            continue;
        if (!bt_region_translate(f->cpu, f->cpu->tier_state, t))
            continue;
        ++*count;
        for (unsigned k = 0; k < t->region->n; k++)
            *insns += t->region->member[k].t->block->n;
    }
}

/* Executions of blocks that are left. */
static void set_heat(uint32_t left)
{
    for (unsigned i = 0; i < X86_TIER_HEAT; i++)
        f->cpu->tier_heat[i] = left;
}

static void print(const char *name, double time, uint64_t insns, unsigned units)
{
    printf("%-10s %8.0f cycles per instruction, %9lu instructions, %7u units\n", name,
           insns ? time * tsc_hz() / (double)insns : 0, insns, units);
}

int main(int argc, char **argv)
{
    size_t size = (size_t)(argc > 2 ? atoi(argv[2]) : 1024) << 10;
    uint64_t insns = 0;
    unsigned regions = 0;
    double t;

    f = fake_new();
    if (!f || size > FAKE_MEM - TEXT || bt_attach(f->cpu, 1, ARENA))
        return 1;
    set_heat(~0u); /* shared by many: no region is made of what runs once */
    fake_long64(f);
    x86_run(f->cpu, 0, false, &insns);
    f->cpu->stop = X86_STOP_NONE;
    size = load(argc > 1 ? argv[1] : "/proc/self/exe", size);
    blocks = calloc(size, sizeof(*blocks));
    if (!size || !blocks)
        return 1;
    insns = 0;
    t = cpu_seconds();
    decode(size, &insns);
    print("decode", cpu_seconds() - t, insns, nblocks);
    insns = 0;
    t = cpu_seconds();
    translate(&insns);
    print("translate", cpu_seconds() - t, insns, (unsigned)f->cpu->count.translations);
    printf("%.0f bytes of code per instruction\n",
           (double)f->cpu->count.code_bytes / (double)insns);
    insns = 0;
    set_heat(1);
    t = cpu_seconds();
    make_regions(&insns, &regions);
    print("region", cpu_seconds() - t, insns, regions);
    free(blocks);
    return 0;
}
