/* SPDX-License-Identifier: BSD-2-Clause */
/* test_memory.c: memory regions: mapping, errors, copies, files, code and dirty marks, threads. */
#define _GNU_SOURCE
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "script_backend.h"

#define PAGE  4096ull
#define LIMIT (1ull << 40)

static uint8_t borrowed[16 * PAGE] __attribute__((aligned(4096)));

START_TEST(arguments_are_checked)
{
    ck_assert_int_eq(vm_mem_map(vm, 1, borrowed, PAGE, VMM_MEM_RWX), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map(vm, 0, borrowed + 1, PAGE, VMM_MEM_RWX), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map(vm, 0, borrowed, PAGE + 1, VMM_MEM_RWX), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map(vm, 0, borrowed, 0, VMM_MEM_RWX), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map(vm, 0, NULL, PAGE, VMM_MEM_RWX), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map(vm, 0, borrowed, PAGE, VMM_MEM_W | VMM_MEM_X), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map(vm, 0, borrowed, PAGE, VMM_MEM_RWX | 8), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map(vm, LIMIT, borrowed, PAGE, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_map(vm, LIMIT - PAGE, borrowed, 2 * PAGE, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_map(vm, -PAGE, borrowed, 2 * PAGE, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_map(vm, 0, borrowed, -PAGE, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, LIMIT + PAGE, VMM_MEM_RWX, NULL), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_region(vm, 0, NULL, NULL, NULL), VMM_E_NOENT);
    ck_assert_uint_eq(told.map_changes, 0);
    ck_assert_int_eq(vm_mem_map(vm, LIMIT - PAGE, borrowed, PAGE, VMM_MEM_R), 0);
    ck_assert_int_eq(vm_mem_unmap(vm, 0), VMM_E_NOENT);
    ck_assert_int_eq(vm_mem_protect(vm, 0, VMM_MEM_RWX), VMM_E_NOENT);
    ck_assert_int_eq(vm_mem_protect(vm, LIMIT - PAGE, 0), VMM_E_INVAL);
}
END_TEST

START_TEST(overlaps_are_refused_and_neighbours_are_not)
{
    static const struct {
        uint64_t gpa, pages;
        int result;
    } t[] = {
        {0x4000, 4, 0},           {0x4000, 4, VMM_E_EXIST}, {0x3000, 2, VMM_E_EXIST},
        {0x7000, 1, VMM_E_EXIST}, {0x5000, 1, VMM_E_EXIST}, {0x0000, 16, VMM_E_EXIST},
        {0x3000, 1, 0},           {0x8000, 1, 0},           {0x0000, 3, 0},
        {0x2000, 1, VMM_E_EXIST},
    };
    uint64_t gpa, len, end = 0;
    uint32_t prot;

    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
        ck_assert_msg(vm_mem_map(vm, t[i].gpa, borrowed, t[i].pages * PAGE, VMM_MEM_RX) ==
                          t[i].result,
                      "row %zu", i);
    ck_assert_int_eq(last_error().code, VMM_E_EXIST);
    ck_assert_uint_eq(last_error().gpa, 0x2000);
    ck_assert_str_eq(last_error().op, "vm_mem_map");
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(vm_mem_region(vm, i, &gpa, &len, &prot), 0);
        ck_assert_uint_eq(gpa, end);
        ck_assert_uint_eq(prot, VMM_MEM_RX);
        end = gpa + len;
    }
    ck_assert_uint_eq(end, 0x9000);
    ck_assert_int_eq(vm_mem_region(vm, 4, NULL, NULL, NULL), VMM_E_NOENT);
    ck_assert_int_eq(vm_mem_unmap(vm, 0x5000), VMM_E_NOENT); /* inside, not the beginning */
    ck_assert_int_eq(vm_mem_unmap(vm, 0x4000), 0);
    ck_assert_uint_eq(told.gpa, 0x4000);
    ck_assert_uint_eq(told.len, 0x4000);
    ck_assert_int_eq(vm_mem_map(vm, 0x5000, borrowed, PAGE, VMM_MEM_R), 0);
}
END_TEST

START_TEST(regions_are_limited_not_unbounded)
{
    uint32_t n = 0;
    int err;

    while (!(err = vm_mem_map(vm, n * 2 * PAGE, borrowed, PAGE, VMM_MEM_R)) && n < 100000)
        n++;
    ck_assert_int_eq(err, VMM_E_LIMIT);
    ck_assert_uint_ge(n, 512);
    ck_assert_ptr_eq(vm_mem_ptr(vm, (n - 1) * 2 * PAGE, PAGE), borrowed);
    ck_assert_ptr_null(vm_mem_ptr(vm, (n - 1) * 2 * PAGE + PAGE, 1));
}
END_TEST

START_TEST(copies_span_regions_and_name_the_hole)
{
    uint8_t buf[3 * PAGE], back[3 * PAGE];
    uint8_t *host;

    ck_assert_int_eq(vm_mem_alloc(vm, 0x10000, 2 * PAGE, VMM_MEM_RWX, (void **)&host), 0);
    ck_assert_int_eq(vm_mem_map(vm, 0x12000, borrowed, PAGE, VMM_MEM_R), 0);
    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)(i * 7 + 1);
    ck_assert_int_eq(vm_mem_write(vm, 0x10000, buf, sizeof(buf)), 0); /* whatever its protection */
    ck_assert_int_eq(vm_mem_read(vm, 0x10000, back, sizeof(back)), 0);
    ck_assert_mem_eq(buf, back, sizeof(buf));
    ck_assert_mem_eq(borrowed, buf + 2 * PAGE, PAGE);
    ck_assert_mem_eq(host, buf, 2 * PAGE);

    memset(back, 0x55, sizeof(back));
    ck_assert_int_eq(vm_mem_read(vm, 0x12fff, back, 2), VMM_E_RANGE);
    ck_assert_uint_eq(back[0], 0x55); /* nothing copied */
    ck_assert_uint_eq(last_error().flags & VMM_ERROR_HAS_GPA, VMM_ERROR_HAS_GPA);
    ck_assert_uint_eq(last_error().gpa, 0x13000);
    ck_assert_int_eq(vm_mem_write(vm, 0x12fff, back, 2), VMM_E_RANGE);
    ck_assert_uint_eq(borrowed[PAGE - 1], buf[3 * PAGE - 1]);
    ck_assert_int_eq(vm_mem_write(vm, 0xffff, back, 2), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_read(vm, 0x12000, back, UINT64_MAX - 0x12000 + 2), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_read(vm, 0, back, 0), 0);
    ck_assert_int_eq(vm_mem_read(vm, 0x10000, NULL, 1), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_changed(vm, 0x12000, 0x2000), VMM_E_RANGE);
}
END_TEST

START_TEST(pointers_stay_in_one_region)
{
    ck_assert_int_eq(vm_mem_map(vm, 0x1000, borrowed, 2 * PAGE, VMM_MEM_RWX), 0);
    ck_assert_int_eq(vm_mem_map(vm, 0x3000, borrowed + 2 * PAGE, PAGE, VMM_MEM_RWX), 0);
    ck_assert_ptr_eq(vm_mem_ptr(vm, 0x1234, 0x1dcc), borrowed + 0x234);
    ck_assert_ptr_null(vm_mem_ptr(vm, 0x1234, 0x1dcd));
    ck_assert_ptr_null(vm_mem_ptr(vm, 0x0fff, 1));
    ck_assert_ptr_null(vm_mem_ptr(vm, 0x1000, UINT64_MAX));
    ck_assert_ptr_eq(vm_mem_ptr(vm, 0x3fff, 1), borrowed + 3 * PAGE - 1);
}
END_TEST

START_TEST(huge_regions_are_touched_lazily)
{
    uint64_t len = 64ull << 30;
    uint32_t v = 0x12345678, back = 0;

    ck_assert_int_eq(vm_mem_alloc(vm, 0, len, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vm_mem_write(vm, len - 4, &v, 4), 0);
    ck_assert_int_eq(vm_mem_read(vm, len - 4, &back, 4), 0);
    ck_assert_uint_eq(back, v);
    ck_assert_int_eq(vm_mem_read(vm, len / 2, &back, 4), 0);
    ck_assert_uint_eq(back, 0);
    ck_assert_int_eq(vm_mem_unmap(vm, 0), 0);
}
END_TEST

/* ---- pages as engines see them ---- */

START_TEST(pages_and_protection)
{
    struct core_page page;

    ck_assert_int_eq(vm_mem_map(vm, 0x1000, borrowed, 4 * PAGE, VMM_MEM_RX), 0);
    ck_assert(core_mem_page(vm, 0x2abc, &page));
    ck_assert_ptr_eq(page.host, borrowed + PAGE);
    ck_assert_uint_eq(page.prot, VMM_MEM_RX);
    ck_assert(!core_mem_page(vm, 0x5000, &page));
    ck_assert_ptr_null(page.host);
    ck_assert(!core_mem_page(vm, 0xfff, &page));
    ck_assert_int_eq(vm_mem_protect(vm, 0x1000, VMM_MEM_R | VMM_MEM_W), 0);
    ck_assert_uint_eq(told.map_changes, 2);
    ck_assert_uint_eq(told.len, 4 * PAGE);
    ck_assert(core_mem_page(vm, 0x1000, &page));
    ck_assert_uint_eq(page.prot, VMM_MEM_R | VMM_MEM_W);
    ck_assert_int_eq(vm_mem_unmap(vm, 0x1000), 0);
    ck_assert(!core_mem_page(vm, 0x1000, &page));
}
END_TEST

START_TEST(host_writes_mark_pages_and_tell_of_code)
{
    struct core_page page[4];
    uint8_t bytes[PAGE] = {0};

    ck_assert_int_eq(vm_mem_map(vm, 0x1000, borrowed, 2 * PAGE, VMM_MEM_RWX), 0);
    ck_assert_int_eq(vm_mem_map(vm, 0x3000, borrowed + 2 * PAGE, 2 * PAGE, VMM_MEM_RWX), 0);
    ck_assert_int_eq(vm_dirty_start(vm), 0);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert(core_mem_page(vm, 0x1000 + i * PAGE, &page[i]));
    ck_assert_int_eq(vm_mem_write(vm, 0x2ffe, bytes, 4), 0);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_uint_eq(*page[i].dirty, i == 1 || i == 2);
    ck_assert_uint_eq(told.code_changes, 0);

    atomic_fetch_or(page[2].code, 4);
    ck_assert_int_eq(vm_mem_write(vm, 0x2000, bytes, PAGE), 0);
    ck_assert_uint_eq(told.code_changes, 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x2f00, bytes, 0x101), 0);
    ck_assert_uint_eq(told.code_changes, 1);
    ck_assert_uint_eq(told.gpa, 0x2f00);
    ck_assert_uint_eq(told.len, 0x101);
    ck_assert_int_eq(vm_mem_changed(vm, 0x3000, 1), 0);
    ck_assert_uint_eq(told.code_changes, 2);
    ck_assert_int_eq(vm_mem_changed(vm, 0x4000, PAGE), 0);
    ck_assert_uint_eq(told.code_changes, 2);
    ck_assert_uint_eq(*page[3].dirty, 1);
    ck_assert_int_eq(vm_mem_read(vm, 0x3000, bytes, PAGE), 0);
    ck_assert_uint_eq(told.code_changes, 2);
}
END_TEST

/* ---- files ---- */

static int make_file(uint64_t len)
{
    int fd = memfd_create("test", 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)len), 0);
    return fd;
}

START_TEST(files_are_shared)
{
    int fd = make_file(3 * PAGE);
    char back[6] = "";

    ck_assert_int_eq(vm_mem_map_fd(vm, 0x8000, fd, PAGE, 2 * PAGE, VMM_MEM_RWX), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x9ffb, "hello", 5), 0);
    ck_assert_int_eq(pread(fd, back, 5, 3 * PAGE - 5), 5);
    ck_assert_str_eq(back, "hello");
    ck_assert_int_eq(pwrite(fd, "there", 5, PAGE), 5);
    close(fd); /* not needed any more */
    ck_assert_int_eq(vm_mem_read(vm, 0x8000, back, 5), 0);
    ck_assert_str_eq(back, "there");
    ck_assert_int_eq(vm_mem_unmap(vm, 0x8000), 0);
}
END_TEST

START_TEST(files_that_are_too_short_or_bad_are_refused)
{
    int fd = make_file(2 * PAGE + 100), pipes[2];

    ck_assert_int_eq(vm_mem_map_fd(vm, 0, fd, 0, 3 * PAGE, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0, fd, 3 * PAGE, PAGE, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0, fd, -PAGE, 2 * PAGE, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0, fd, 100, PAGE, VMM_MEM_RWX), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0, -1, 0, PAGE, VMM_MEM_RWX), VMM_E_INVAL);
    ck_assert_int_ne(last_error().os_errno, 0);
    ck_assert_int_eq(pipe(pipes), 0);
    ck_assert_int_lt(vm_mem_map_fd(vm, 0, pipes[0], 0, PAGE, VMM_MEM_R), 0);
    ck_assert_int_eq(vm_mem_region(vm, 0, NULL, NULL, NULL), VMM_E_NOENT);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0, fd, 0, 2 * PAGE, VMM_MEM_RWX), 0);
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

START_TEST(files_that_are_open_for_reading_only)
{
    char path[] = "/tmp/vmm-test-XXXXXX";
    int rw = mkstemp(path), fd;
    uint8_t byte = 1;

    ck_assert_int_ge(rw, 0);
    ck_assert_int_eq(ftruncate(rw, 2 * PAGE), 0);
    fd = open(path, O_RDONLY);
    unlink(path);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0, fd, 0, PAGE, VMM_MEM_RWX), VMM_E_PERM);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0, fd, 0, PAGE, VMM_MEM_RX), 0);
    ck_assert_int_eq(vm_mem_read(vm, 0, &byte, 1), 0);
    ck_assert_uint_eq(byte, 0);
    ck_assert_int_eq(vm_mem_write(vm, 0, &byte, 1), VMM_E_PERM);
    ck_assert_int_eq(vm_mem_protect(vm, 0, VMM_MEM_RWX), VMM_E_PERM);
    ck_assert_int_eq(vm_mem_protect(vm, 0, VMM_MEM_R), 0);
    close(fd);
    /* A ROM from a file that could be written can get W later. */
    ck_assert_int_eq(vm_mem_map_fd(vm, 0x10000, rw, 0, PAGE, VMM_MEM_RX), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x10000, &byte, 1), 0);
    ck_assert_int_eq(vm_mem_protect(vm, 0x10000, VMM_MEM_RWX), 0);
    close(rw);
}
END_TEST

/* ---- descriptors (VMM_VM_DIRECT) ---- */

static void direct_setup(void)
{
    script_setup_flags(VMM_VM_DIRECT);
}

static struct core_page page_at(uint64_t gpa)
{
    struct core_page page;

    memset(&page, 0x5a, sizeof(page));
    core_mem_page(vm, gpa, &page);
    return page;
}

static bool is_open(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0;
}

START_TEST(without_the_flag_no_page_has_a_descriptor)
{
    int fd = make_file(PAGE);

    ck_assert_int_eq(vm_mem_alloc(vm, 0x1000, PAGE, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0x2000, fd, 0, PAGE, VMM_MEM_RWX), 0);
    ck_assert_int_eq(vm_mem_map(vm, 0x3000, borrowed, PAGE, VMM_MEM_RWX), 0);
    for (uint64_t gpa = 0; gpa < 0x5000; gpa += PAGE)
        ck_assert_int_eq(page_at(gpa).fd, -1);
    close(fd);
}
END_TEST

/* vm_destroy must have them closed, too. */
START_TEST(descriptors_of_library_memory)
{
    struct core_page first, third;
    uint8_t *host, *again;
    int gone;

    ck_assert_int_eq(vm_mem_alloc(vm, 0x10000, 4 * PAGE, VMM_MEM_RWX, (void **)&host), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x1000, PAGE, VMM_MEM_RX, NULL), 0); /* in front: it moves */
    first = page_at(0x10000);
    third = page_at(0x12abc);
    ck_assert_int_ge(first.fd, 0);
    ck_assert_int_eq(third.fd, first.fd);
    ck_assert_int_ne(page_at(0x1000).fd, first.fd);
    ck_assert_uint_eq(first.fd_offset, 0);
    ck_assert_uint_eq(third.fd_offset, 2 * PAGE);
    ck_assert_int_eq(page_at(0x14000).fd, -1);
    ck_assert_int_eq(fcntl(first.fd, F_GETFD), FD_CLOEXEC);
    ck_assert_int_ne(ftruncate(first.fd, PAGE), 0); /* nobody takes it from under the VM */

    again = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, third.fd, (off_t)third.fd_offset);
    ck_assert_ptr_ne(again, MAP_FAILED);
    ck_assert_int_eq(vm_mem_write(vm, 0x12ffb, "hello", 5), 0);
    ck_assert_mem_eq(again + PAGE - 5, "hello", 5);
    memcpy(again + 7, "there", 5);
    ck_assert_mem_eq(host + 2 * PAGE + 7, "there", 5);
    ck_assert_uint_eq(host[0], 0);

    ck_assert_int_eq(vm_mem_unmap(vm, 0x10000), 0);
    ck_assert(!is_open(first.fd));
    ck_assert_mem_eq(again + 7, "there", 5); /* the memory lives as long as it is mapped */
    munmap(again, PAGE);
    gone = page_at(0x1000).fd;
    ck_assert(is_open(gone));
    ck_assert_int_eq(vm_destroy(vm), 0);
    vm = NULL;
    ck_assert(!is_open(gone));
}
END_TEST

START_TEST(descriptors_of_files)
{
    int fd = make_file(4 * PAGE);
    struct core_page page;
    char back[6] = "";

    ck_assert_int_eq(vm_mem_map_fd(vm, 0x8000, fd, PAGE, 3 * PAGE, VMM_MEM_RWX), 0);
    page = page_at(0xa123);
    ck_assert_int_ge(page.fd, 0);
    ck_assert_int_ne(page.fd, fd);
    ck_assert_uint_eq(page.fd_offset, 3 * PAGE);
    ck_assert_uint_eq(page_at(0x8000).fd_offset, PAGE);
    ck_assert_int_eq(fcntl(page.fd, F_GETFD), FD_CLOEXEC);
    close(fd); /* the library has its own */
    ck_assert_int_eq(vm_mem_write(vm, 0xa000, "hello", 5), 0);
    ck_assert_int_eq(pread(page.fd, back, 5, (off_t)page.fd_offset), 5);
    ck_assert_str_eq(back, "hello");

    /* What fails keeps nothing: the number is the lowest free one before and after. */
    int next = dup(page.fd);
    close(next);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0x9000, page.fd, 0, PAGE, VMM_MEM_RWX), VMM_E_EXIST);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x9000, PAGE, VMM_MEM_RWX, NULL), VMM_E_EXIST);
    ck_assert(!is_open(next));

    ck_assert_int_eq(vm_mem_unmap(vm, 0x8000), 0);
    ck_assert(!is_open(page.fd));
}
END_TEST

/* Devices are mapped once; borrowed memory has no file. */
START_TEST(memory_without_descriptors)
{
    int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);

    ck_assert_int_ge(zero, 0);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0, zero, 0, PAGE, VMM_MEM_RWX), 0);
    ck_assert_int_eq(vm_mem_map(vm, 0x1000, borrowed, PAGE, VMM_MEM_RWX), 0);
    ck_assert_int_eq(page_at(0).fd, -1);
    ck_assert_int_eq(page_at(0x1000).fd, -1);
    close(zero);
}
END_TEST

/* Private pages then. A limit for files must not raise SIGXFSZ. */
START_TEST(no_descriptors_to_be_had)
{
    const struct rlimit files = {16, 16}, size = {PAGE, PAGE};
    int status, fd = make_file(PAGE), full;
    pid_t child;

    ck_assert_int_eq(vm_mem_alloc(vm, 0, PAGE, VMM_MEM_RWX, NULL), 0);
    child = fork(); /* limits cannot be raised again */
    ck_assert_int_ge(child, 0);
    if (child) {
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        close(fd);
        return;
    }
    struct vm_config config = {.size = sizeof(config), .flags = VMM_VM_DIRECT};
    if (vm_create(&config, &vm) || setrlimit(RLIMIT_FSIZE, &size))
        _exit(1);
    if (vm_mem_alloc(vm, 0, PAGE, VMM_MEM_RWX, NULL) || page_at(0).fd < 0)
        _exit(2);
    if (vm_mem_alloc(vm, 0x10000, 2 * PAGE, VMM_MEM_RWX, NULL) || page_at(0x10000).fd != -1)
        _exit(3);
    if (setrlimit(RLIMIT_NOFILE, &files))
        _exit(4);
    do
        full = dup(fd);
    while (full >= 0);
    if (vm_mem_alloc(vm, 0x20000, PAGE, VMM_MEM_RWX, NULL) || page_at(0x20000).fd != -1)
        _exit(5);
    if (vm_mem_map_fd(vm, 0x30000, fd, 0, PAGE, VMM_MEM_RWX) || page_at(0x30000).fd != -1)
        _exit(6);
    if (vm_mem_write(vm, 0x20000, "hello", 5) || vm_mem_write(vm, 0x30000, "hello", 5))
        _exit(7);
    _exit(vm_destroy(vm) ? 8 : 0);
}
END_TEST

START_TEST(huge_memory_with_a_descriptor_is_touched_lazily)
{
    uint64_t len = 64ull << 30;
    struct stat st;

    ck_assert_int_eq(vm_mem_alloc(vm, 0, len, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vm_mem_write(vm, len - 5, "hello", 5), 0);
    ck_assert_int_eq(fstat(page_at(0).fd, &st), 0);
    ck_assert_uint_eq(page_at(len - 1).fd_offset, len - PAGE);
    ck_assert_int_lt(st.st_blocks * 512, 16 << 20);
}
END_TEST

/* ---- threads ---- */

#define FLICKER 0x100000ull /* a region that comes and goes */

/* Looks both regions up and reads what it finds, as an engine does. */
static int look(struct vcpu *vcpu, uint64_t serial)
{
    struct core_page page;

    (void)serial;
    ck_assert(core_mem_page(vcpu->vm, 0x3000, &page));
    ck_assert_uint_eq(page.host[vcpu->id], 0);
    if (core_mem_page(vcpu->vm, FLICKER + PAGE, &page)) {
        ck_assert_uint_eq(page.host[8], 0);
        atomic_fetch_or(page.code, 1ull << vcpu->id);
        if (page.dirty)
            atomic_store_explicit(page.dirty, 1, memory_order_relaxed);
    }
    return CORE_IO_OK;
}

static void *run_vcpu(void *arg)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    ck_assert_int_eq(vcpu_run(arg, &exit), 0);
    return (void *)(uintptr_t)exit.reason;
}

static void *flicker(void *arg)
{
    uint8_t byte;

    (void)arg;
    for (uint32_t i = 0; i < 300; i++) {
        ck_assert_int_eq(vm_mem_alloc(vm, FLICKER, 4 * PAGE, VMM_MEM_RWX, NULL), 0);
        ck_assert_int_eq(vm_mem_protect(vm, FLICKER, VMM_MEM_RX), 0);
        ck_assert_int_eq(vm_mem_changed(vm, FLICKER, 4 * PAGE), 0);
        ck_assert_int_eq(vm_mem_read(vm, FLICKER + 5, &byte, 1), 0);
        ck_assert_int_eq(vm_mem_unmap(vm, FLICKER), 0);
    }
    return NULL;
}

static void *other_regions(void *arg)
{
    uint64_t len;
    uint32_t prot;

    (void)arg;
    for (uint32_t i = 0; i < 300; i++) {
        ck_assert_int_eq(vm_mem_map(vm, 0x10000, borrowed, PAGE, VMM_MEM_R), 0);
        vm_mem_region(vm, i % 3, NULL, &len, &prot);
        ck_assert_ptr_eq(vm_mem_ptr(vm, 0x10000, 16), borrowed);
        ck_assert_int_eq(vm_mem_unmap(vm, 0x10000), 0);
    }
    return NULL;
}

START_TEST(regions_come_and_go_while_vcpus_run)
{
    pthread_t runs[SCRIPT_CPUS], changes[2];
    void *reason;

    memset(borrowed, 0, sizeof(borrowed));
    ck_assert_int_eq(vm_mem_alloc(vm, 0, 8 * PAGE, VMM_MEM_RWX, NULL), 0);
    for (uint32_t i = 0; i < SCRIPT_CPUS; i++) {
        script[i].insn = look;
        script[i].count = UINT64_MAX;
        ck_assert_int_eq(pthread_create(&runs[i], NULL, run_vcpu, cpu[i]), 0);
    }
    ck_assert_int_eq(pthread_create(&changes[0], NULL, flicker, NULL), 0);
    ck_assert_int_eq(pthread_create(&changes[1], NULL, other_regions, NULL), 0);
    for (uint32_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_join(changes[i], NULL), 0);
    for (uint32_t i = 0; i < SCRIPT_CPUS; i++)
        vcpu_kick(cpu[i]);
    for (uint32_t i = 0; i < SCRIPT_CPUS; i++) {
        ck_assert_int_eq(pthread_join(runs[i], &reason), 0);
        ck_assert_uint_eq((uintptr_t)reason, VMM_EXIT_INTERRUPTED);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tc = tcase_create("memory");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, script_setup, script_teardown);
    tcase_add_test(tc, arguments_are_checked);
    tcase_add_test(tc, overlaps_are_refused_and_neighbours_are_not);
    tcase_add_test(tc, regions_are_limited_not_unbounded);
    tcase_add_test(tc, copies_span_regions_and_name_the_hole);
    tcase_add_test(tc, pointers_stay_in_one_region);
    tcase_add_test(tc, huge_regions_are_touched_lazily);
    tcase_add_test(tc, pages_and_protection);
    tcase_add_test(tc, host_writes_mark_pages_and_tell_of_code);
    tcase_add_test(tc, files_are_shared);
    tcase_add_test(tc, files_that_are_too_short_or_bad_are_refused);
    tcase_add_test(tc, files_that_are_open_for_reading_only);
    tcase_add_test(tc, without_the_flag_no_page_has_a_descriptor);
    tcase_add_test(tc, regions_come_and_go_while_vcpus_run);
    suite_add_tcase(suite, tc);
    tc = tcase_create("descriptors");
    tcase_add_checked_fixture(tc, direct_setup, script_teardown);
    tcase_add_test(tc, copies_span_regions_and_name_the_hole);
    tcase_add_test(tc, descriptors_of_library_memory);
    tcase_add_test(tc, descriptors_of_files);
    tcase_add_test(tc, memory_without_descriptors);
    tcase_add_test(tc, no_descriptors_to_be_had);
    tcase_add_test(tc, huge_memory_with_a_descriptor_is_touched_lazily);
    tcase_add_test(tc, regions_come_and_go_while_vcpus_run);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
