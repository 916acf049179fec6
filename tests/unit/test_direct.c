/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest user code executed directly, compared with the software CPU: nothing in the guest may tell
 * the difference. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "direct_guest.h"

#include "has_stubs.h"

/* Name, and what it needs. [direct_programs.S] */
/* clang-format off */
#define PROGRAMS(X) \
    X(syscalls, .cr4 = 0) \
    X(traps, .cr4 = 0) \
    X(int80, .cr4 = 0) \
    X(flags, .cr4 = 0) \
    X(single_step, .cr4 = 0) \
    X(system, .cr4 = 0) \
    X(selectors_seen, .cr4 = 0) \
    X(umip_tr, .cr4 = 0x800) \
    X(umip, .cr4 = 0x800) \
    X(cpuids, .cpuids = 40) \
    X(identity, .cr4 = 0) \
    X(tsc, .cr4 = 0) \
    X(bases, .cr4 = 0) \
    X(no_fsgsbase, .cr4 = 0x10000) \
    X(selectors, .cr4 = 0) \
    X(compat, .cr4 = 0) \
    X(iret, .cr4 = 0) \
    X(reads, .cr4 = 0) \
    X(writes, .cr4 = 0) \
    X(updates, .cr4 = 0) \
    X(fetches, .cr4 = 0) \
    X(vsyscall, .cr4 = 0) \
    X(accessed, .cr4 = 0) \
    X(int3_page, .cr4 = 0) \
    X(invlpg, .cr4 = 0) \
    X(fixes, .cr4 = 0) \
    X(spaces, .host = other_tables) \
    X(fault_and_switch, .cr4 = 0) \
    X(pcid, .cr4 = 0x20000) \
    X(self_modifying, .cr4 = 0) \
    X(aliases, .cr4 = 0) \
    X(host_code, .host = host_writes) \
    X(borders, .cr4 = 0) \
    X(refused, .cr4 = 0) \
    X(device, .cr4 = 0) \
    X(vectors, .cr4 = 0) \
    X(avx, .xcr0 = 4) \
    X(avx512, .xcr0 = 0xe0) \
    X(xsaves, .cr4 = 0) \
    X(breakpoints, .cr4 = 0) \
    X(regions, .set_up = more_regions)
/* clang-format on */

#define DECLARE(NAME, ...) extern const uint8_t user_##NAME[], user_##NAME##_end[];
PROGRAMS(DECLARE)

static void host_writes(struct vm *vm, struct vcpu *vcpu)
{
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_GPR};
    uint32_t value;

    ck_assert_int_eq(vcpu_get_regs(vcpu, &r), 0);
    value = (uint32_t)r.gpr[VMM_RBP];
    ck_assert_int_eq(vm_mem_write(vm, PAGES + 0x1001, &value, 4), 0);
}

/* The data of A become those of B. */
static void other_tables(struct vm *vm, struct vcpu *vcpu)
{
    uint64_t entry;

    (void)vcpu;
    ck_assert_int_eq(vm_mem_read(vm, PML4_B, &entry, 8), 0);
    ck_assert_int_eq(vm_mem_write(vm, PML4_A, &entry, 8), 0);
}

/* Pages 4 to 6 of the data: memory of the host program, a file, and ROM. */
static void more_regions(struct vm *vm, uint8_t *ram)
{
    const uint64_t base = 0x1000000, rw = 7, content = 0x1122334455667788;
    static _Alignas(4096) uint8_t own[2][4096]; /* for this VM, and the one to compare with */
    static unsigned nth;
    void *host = own[nth++ % 2];
    int fd = memfd_create("file", MFD_CLOEXEC);

    memset(host, 0x21, 4096);
    ck_assert_int_eq(vm_mem_map(vm, base, host, 4096, VMM_MEM_RWX), 0);
    ck_assert_int_eq(ftruncate(fd, 8192), 0);
    ck_assert_int_eq((int)pwrite(fd, &content, 8, 4096), 8);
    ck_assert_int_eq(vm_mem_map_fd(vm, base + 4096, fd, 4096, 4096, VMM_MEM_RWX), 0);
    close(fd);
    ck_assert_int_eq(vm_mem_alloc(vm, base + 8192, 4096, VMM_MEM_RX, NULL), 0);
    ck_assert_int_eq(vm_mem_write(vm, base + 8192, &content, 8), 0);
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t entry = (base + i * 4096) | rw;

        memcpy(ram + PT_DATA + 8 * (4 + i), &entry, 8);
    }
}

#define P(NAME, ...) {.name = #NAME, .code = user_##NAME, .end = user_##NAME##_end, __VA_ARGS__},
static const struct program programs[] = {PROGRAMS(P)};
#define NPROGRAMS ((int)(sizeof(programs) / sizeof(programs[0])))

static const uint64_t places[] = {0x400000, 0x555555554000, 0x7fffffffc000};

static bool cpuid_can_fault(void)
{
    return !syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
}

/* Runs the program on the software CPU and directly. */
static void compare(const struct program *p, uint64_t at)
{
    struct guest ref, direct;
    struct vm_stats stats = {.size = sizeof(stats)};
    unsigned port;

    guest_begin(&ref, "interp", 0, VMM_IRQCHIP_NONE, 1);
    guest_load(&ref, p, at);
    if (ref.lacks) {
        guest_end(&ref);
        return;
    }
    port = guest_run(&ref, p);
    if (port != PORT_END || getenv("DIRECT_DUMP"))
        guest_dump(&ref);
    ck_assert_msg(port == PORT_END, "%s: ends with %s", p->name, vmm_exit_name(ref.exit.reason));
    guest_begin(&direct, "bt", DIRECT, VMM_IRQCHIP_NONE, 1);
    guest_load(&direct, p, at);
    port = guest_run(&direct, p);
    if (guest_compare(&ref, &direct, p->name, at)) {
        if (getenv("DIRECT_DUMP"))
            guest_dump(&direct);
        ck_abort_msg("%s: not the same", p->name);
    }
    ck_assert_msg(port == PORT_END, "%s: ends with %s", p->name, vmm_exit_name(direct.exit.reason));
    ck_assert_int_eq(vm_get_stats(direct.vm, &stats), 0);
    ck_assert_uint_gt(stats.direct_entries, cpuid_can_fault() ? p->cpuids : 0);
    guest_end(&ref);
    guest_end(&direct);
}

static uint64_t host_xcr0(void)
{
    uint32_t a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) /* OSXSAVE */
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

START_TEST(same)
{
    const struct program *p = &programs[_i];

    if (p->xcr0 & ~host_xcr0())
        return; /* the host lacks its registers */
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (!getenv("DIRECT_ONLY") || !strcmp(p->name, getenv("DIRECT_ONLY")))
            compare(p, places[i]);
}
END_TEST

/* ---- random accesses, with random page tables ---- */

#define STEPS 100

static uint64_t seed;

/* Below n. */
static uint32_t number(uint32_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % n;
}

static uint8_t steps[CODE_PAGES * 4096 - 64], *next_byte;

static void emit(const char *bytes, unsigned n)
{
    memcpy(next_byte, bytes, n);
    next_byte += n;
}
#define EMIT(bytes) emit(bytes, sizeof(bytes) - 1)

static void emit_value(uint64_t value, unsigned n)
{
    memcpy(next_byte, &value, n);
    next_byte += n;
}

static void emit_call(uint32_t op, uint64_t rdi, uint64_t rsi)
{
    EMIT("\x48\xbf");
    emit_value(rdi, 8);
    EMIT("\x48\xbe");
    emit_value(rsi, 8);
    EMIT("\xb8");
    emit_value(op, 4);
    EMIT("\x0f\x05");
}

/* One instruction that may fault, with the address of a page of the data in R8. */
static void emit_access(void)
{
    static const struct {
        const char *bytes;
        unsigned len, offset, most; /* where in the page: below `most` from `offset` on */
    } kinds[] = {
        {"\x49\x8b\x00", 3, 0, 0x7f0},     /* mov (%r8), %rax */
        {"\x49\x89\x18", 3, 0, 0x7f0},     /* mov %rbx, (%r8) */
        {"\xf0\x49\xff\x00", 4, 0, 0x7f0}, /* lock incq (%r8) */
        {"\x49\x8b\x00", 3, 0xff0, 16},    /* perhaps over the end */
        {"\x41\x0f\x11\x00", 4, 0xff8, 8}, /* movups %xmm0, (%r8): likewise */
        {"\x41\x0f\x10\x00", 4, 0, 0x7f0}, /* movups (%r8), %xmm0 */
        {"\x41\xff\xd0", 3, 0x800, 1},     /* call *%r8 */
        {"\x41\xff\xd0", 3, 0x800, 1},
        {"\x41\xfe\x00", 3, 0x801, 2},     /* incb (%r8): in code */
        {"\x41\xff\x70\x00", 4, 0, 0x7f0}, /* push (%r8) */
        {"\xcc", 1, 0, 1},
        {"\x68\x02\x03\x00\x00\x9d\x90", 7, 0, 1}, /* push $0x302; popf; nop */
        {"\x66\x0f\xd4\xc0", 4, 0, 1},             /* paddq %xmm0, %xmm0 */
    };
    unsigned k = number(sizeof(kinds) / sizeof(kinds[0]));

    EMIT("\x49\xb8");
    emit_value(DATA + number(16) * 4096 + kinds[k].offset + number(kinds[k].most), 8);
    EMIT("\x4c\x8d\x3d"); /* lea behind(%rip), %r15 */
    emit_value(kinds[k].len, 4);
    emit(kinds[k].bytes, kinds[k].len);
    EMIT("\x48\xff\xc3"); /* inc %rbx */
}

/* Another page, or other rights; the accessed and dirty bits are there or not. */
static void emit_change(void)
{
    uint64_t page = number(16), entry = PAGES + number(16) * 4096;

    entry |= (number(8) ? PG_P : 0) | (number(3) ? PG_W : 0) | (number(8) ? PG_U : 0) |
             (number(2) ? PG_A : 0) | (number(2) ? PG_D : 0) | (number(4) ? 0 : PG_NX);
    emit_call(OP_STORE, K + (number(2) ? PT_DATA : PT_B) + page * 8, entry);
    emit_call(OP_INVLPG, DATA + page * 4096, 0);
}

static void fill_pages(struct vm *vm, uint8_t *ram)
{
    const uint64_t entry = (PAGES + D_DEVICE * 4096) | PG_RW; /* devices have no code */

    (void)vm;
    memcpy(ram + PT_DATA + 8 * D_DEVICE, &entry, 8);
    for (unsigned i = 0; i < 16; i++) {
        uint8_t *code = ram + PAGES + i * 4096 + 0x800;

        memcpy(code, "\xb8\x00\x00\x00\x00\xc3", 6);
        code[4] = (uint8_t)i;
    }
}

START_TEST(random_steps)
{
    for (unsigned round = 0; round < 5; round++) {
        struct program p = {.code = steps, .set_up = fill_pages};
        char name[32];

        seed = (uint64_t)_i * 5 + round + 1;
        snprintf(name, sizeof(name), "random %u", (unsigned)seed);
        for (unsigned i = 0; i < 4; i++)
            number(2);
        next_byte = steps;
        for (unsigned i = 0; i < STEPS; i++) {
            unsigned what = number(16);

            if (what < 11)
                emit_access();
            else if (what < 14)
                emit_change();
            else if (what == 14)
                emit_call(OP_CR3, number(2) ? PML4_A : PML4_B, 0);
            else
                emit_call(OP_LOG, 0, 0);
        }
        emit_call(OP_END, 0, 0);
        p.end = next_byte;
        p.name = name;
        compare(&p, places[round % 3]);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("direct");
    TCase *t = tcase_create("same");
    SRunner *runner;
    int failed;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* tests end without flushing */

    if (!has_stubs())
        return 77;
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, same, 0, NPROGRAMS);
    tcase_add_loop_test(t, random_steps, 0, 6);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
