/* SPDX-License-Identifier: BSD-2-Clause */
/* test_boot.c: what all image loaders share: requests, detection, image files, placement. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot_elf_image.h"
#include "boot_test.h"

static uint8_t code[16];

/* ---- requests ---- */

START_TEST(names_of_kinds)
{
    ck_assert_str_eq(vmm_boot_name(VMM_BOOT_AUTO), "auto");
    ck_assert_str_eq(vmm_boot_name(VMM_BOOT_LINUX), "linux");
    ck_assert_str_eq(vmm_boot_name(VMM_BOOT_PVH), "pvh");
    ck_assert_str_eq(vmm_boot_name(VMM_BOOT_MULTIBOOT), "multiboot");
    ck_assert_str_eq(vmm_boot_name(VMM_BOOT_ELF), "elf");
    ck_assert_str_eq(vmm_boot_name(VMM_BOOT_FLAT), "flat");
    ck_assert_str_eq(vmm_boot_name(VMM_BOOT_FIRMWARE), "firmware");
    ck_assert_str_eq(vmm_boot_name(7), "?");
}
END_TEST

START_TEST(refuses_bad_requests)
{
    struct {
        struct vmm_boot boot;
        uint64_t newer;
    } longer = {{0}, 0};
    struct vmm_image module = image_of(NULL, 1);
    struct vmm_boot good, boot;

    begin_pc(2 * MIB);
    good = request(code, sizeof(code));
    ck_assert_int_eq(vm_boot(NULL, VMM_BOOT_FLAT, &good), VMM_E_INVAL);
    must_refuse(7, &good, VMM_E_INVAL, "unknown kind of image 7");
    must_refuse(VMM_BOOT_FLAT, NULL, VMM_E_INVAL, "boot is NULL");
    boot = good;
    boot.size = sizeof(boot) - 1;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_INVAL, "boot: size is");
    longer.boot = good;
    longer.boot.size = sizeof(longer);
    must_boot(VMM_BOOT_FLAT, &longer.boot);
    memset(ram, PATTERN, ram_size);
    longer.newer = 1;
    must_refuse(VMM_BOOT_FLAT, &longer.boot, VMM_E_UNSUPPORTED, "newer than this library");
    boot = good;
    boot.flags = 0x82;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_UNSUPPORTED, "unknown flags 0x82");
    boot = good;
    boot.kernel.size = 0;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_INVAL, "kernel: image size is 0");
    boot = good;
    boot.kernel.data = NULL;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_INVAL, "kernel: 0x10 bytes at NULL");
    boot = good;
    boot.nmodules = 1;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_INVAL, "1 modules at NULL");
    boot.modules = &module;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_INVAL, "module: 0x1 bytes at NULL");
    module.size = 1;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_INVAL, "module: image size is 1");
    pc.size = 8;
    must_refuse(VMM_BOOT_FLAT, &good, VMM_E_INVAL, "pc: size is 8");
    pc.size = sizeof(pc);
    pc.low_ram = 4 * MIB;
    must_refuse(VMM_BOOT_FLAT, &good, VMM_E_NOSPACE, "pc says RAM at 0x0-0x400000, but not all");
    pc.low_ram = 5 * VMM_PC_HIGH_RAM;
    must_refuse(VMM_BOOT_FLAT, &good, VMM_E_INVAL, "pc says 0x500000000 bytes of RAM");
    end();
}
END_TEST

START_TEST(names_the_function_that_failed)
{
    static int (*const functions[])(struct vcpu *, const struct vmm_boot *) = {
        vm_boot_linux, vm_boot_pvh, vm_boot_multiboot, vm_boot_elf, vm_boot_flat, vm_boot_firmware,
    };
    static const char *const names[] = {
        "vm_boot_linux", "vm_boot_pvh",  "vm_boot_multiboot",
        "vm_boot_elf",   "vm_boot_flat", "vm_boot_firmware",
    };

    begin_pc(2 * MIB);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct vmm_error error = {.size = sizeof(error)};
        struct vmm_boot boot = request(code, 0);

        ck_assert_int_eq(functions[i](vcpu, &boot), VMM_E_TRUNCATED);
        vm_last_error(vm, &error);
        ck_assert_str_eq(error.op, names[i]);
        ck_assert_str_eq(error.text, "the kernel image is empty");
    }
    end();
}
END_TEST

static void *run_thread(void *opaque)
{
    struct vcpu_exit *exit = opaque;

    ck_assert_int_eq(vcpu_run(vcpu, exit), 0);
    return NULL;
}

START_TEST(refuses_a_vcpu_that_runs)
{
    static const uint8_t spin[] = {0xc6, 0x06, 0x00, 0x06, 0x01, /* movb $1, 0x600 */
                                   0xeb, 0xfe};                  /* jmp . */
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vmm_boot boot;
    pthread_t thread;

    begin_pc(2 * MIB);
    boot = request(spin, sizeof(spin));
    must_boot(VMM_BOOT_FLAT, &boot);
    ck_assert_int_eq(pthread_create(&thread, NULL, run_thread, &exit), 0);
    while (__atomic_load_n(&ram[0x600], __ATOMIC_ACQUIRE) != 1)
        sched_yield();
    boot.load_addr = 0x8000;
    ck_assert_int_eq(vm_boot_flat(vcpu, &boot), VMM_E_BUSY);
    ck_assert(untouched(0x8000, 0x9000));
    vm_stop(vm);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_STOPPED);
    end();
}
END_TEST

/* ---- detection ---- */

START_TEST(detects_what_an_image_is)
{
    static uint8_t bytes[0x400];
    static struct elf_image elf;
    struct vmm_image image = image_of(bytes, sizeof(bytes));
    struct vmm_boot boot;

    ck_assert_int_eq(vmm_boot_detect(NULL), VMM_E_FORMAT);
    ck_assert_int_eq(vmm_boot_detect(&image), VMM_E_FORMAT);
    boot_put16(bytes + 0x1fe, 0xaa55);
    ck_assert_int_eq(vmm_boot_detect(&image), VMM_E_FORMAT); /* just a boot sector */
    memcpy(bytes + 0x202, "HdrS", 4);
    ck_assert_int_eq(vmm_boot_detect(&image), VMM_BOOT_LINUX);
    image.len = 0x207;
    ck_assert_int_eq(vmm_boot_detect(&image), VMM_E_FORMAT);
    image.len = sizeof(bytes);
    bytes[0x202] = 0;
    boot_put32(bytes + 4, 0x1badb002);
    boot_put32(bytes + 12, 0u - 0x1badb002u);
    ck_assert_int_eq(vmm_boot_detect(&image), VMM_BOOT_MULTIBOOT);
    elf_begin(&elf, true, MIB, 2);
    image = image_of(elf.bytes, elf.len);
    ck_assert_int_eq(vmm_boot_detect(&image), VMM_BOOT_ELF); /* broken, but one */
    elf_load(&elf, 0, MIB, MIB, code, sizeof(code), sizeof(code));
    elf_pvh(&elf, 1, MIB);
    image.len = elf.len;
    ck_assert_int_eq(vmm_boot_detect(&image), VMM_BOOT_PVH);
    image.data = NULL;
    ck_assert_int_eq(vmm_boot_detect(&image), VMM_E_FORMAT);

    begin_pc(2 * MIB);
    boot = request("?!", 2);
    must_refuse(VMM_BOOT_AUTO, &boot, VMM_E_FORMAT,
                "the image (0x2 bytes, first 3f 21 00 00) is no bzImage");
    end();
}
END_TEST

/* ---- image files ---- */

static void expect_load_error(const char *path, uint64_t max, int code_, const char *text)
{
    struct vmm_error error = {.size = sizeof(error)};
    struct vmm_image image;

    ck_assert_int_eq(vmm_image_load(path, max, &image, &error), code_);
    ck_assert_int_eq(error.code, code_);
    ck_assert_str_eq(error.op, "vmm_image_load");
    ck_assert_msg(strstr(error.text, text) != NULL, "'%s' does not say '%s'", error.text, text);
    ck_assert_ptr_null(image.data);
    ck_assert_int_eq(vmm_image_load(path, max, &image, NULL), code_);
}

START_TEST(loads_image_files)
{
    char dir[] = "/tmp/vmm-image-XXXXXX", path[64], fifo[64];
    struct vmm_image image;
    FILE *file;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    expect_load_error(path, 0, VMM_E_NOENT, path);
    file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fclose(file), 0);
    expect_load_error(path, 0, VMM_E_IO, "is empty");
    file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite("0123456789", 1, 10, file), 10);
    ck_assert_int_eq(fclose(file), 0);
    expect_load_error(path, 9, VMM_E_LIMIT, "has 10 bytes, the limit is 9");
    expect_load_error(dir, 0, VMM_E_IO, "is a directory");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    expect_load_error(fifo, 0, VMM_E_IO, "is not a regular file"); /* and nobody waits */
    ck_assert_int_eq(vmm_image_load(path, 10, &image, NULL), 0);
    ck_assert_uint_eq(image.size, sizeof(image));
    ck_assert_uint_eq(image.len, 10);
    ck_assert_mem_eq(image.data, "0123456789", 10);
    ck_assert_str_eq(image.name, path);
    vmm_image_free(&image);
    ck_assert_ptr_null(image.data);
    ck_assert_uint_eq(image.len, 0);
    vmm_image_free(&image);
    vmm_image_free(NULL);
    ck_assert_int_eq(vmm_image_load(NULL, 0, &image, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vmm_image_load(path, 0, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(unlink(path) | unlink(fifo) | rmdir(dir), 0);
}
END_TEST

/* ---- placement ---- */

static struct boot_mem mem;
static struct boot_error error;

static void begin_mem(void)
{
    begin_plain();
    add_memory(0, 2 * MIB, VMM_MEM_RWX);
    add_memory(2 * MIB, MIB, VMM_MEM_RX); /* ROM: claims may be there, RAM not */
    add_memory(4 * MIB, MIB, VMM_MEM_RWX);
    ck_assert_int_eq(boot_mem_init(&mem, vm, NULL, &error), 0);
}

START_TEST(ram_is_writable_memory_without_the_legacy_hole)
{
    begin_mem();
    ck_assert_uint_eq(mem.nmapped, 2);
    ck_assert_uint_eq(mem.mapped[0].end, 3 * MIB);
    ck_assert_uint_eq(mem.nram, 3);
    ck_assert_uint_eq(mem.ram[0].end, BOOT_LOW_RAM_END);
    ck_assert_uint_eq(mem.ram[1].start, MIB);
    ck_assert_uint_eq(mem.ram[1].end, 2 * MIB);
    ck_assert_uint_eq(mem.ram[2].start, 4 * MIB);
    end();
}
END_TEST

START_TEST(claims_never_overlap)
{
    begin_mem();
    ck_assert_int_eq(boot_mem_claim(&mem, 0x2000, 0x1000, "b"), 0);
    ck_assert_int_eq(boot_mem_claim(&mem, 0x1000, 0x1000, "a"), 0);
    ck_assert_int_eq(boot_mem_claim(&mem, 0x3000, 1, "c"), 0);
    ck_assert_int_eq(boot_mem_claim(&mem, 0x2fff, 1, "d"), VMM_E_EXIST);
    ck_assert_str_eq(error.text, "d at 0x2fff+0x1 overlaps b at 0x2000+0x1000");
    ck_assert_int_eq(boot_mem_claim(&mem, 0, 0x1001, "d"), VMM_E_EXIST);
    ck_assert_int_eq(boot_mem_claim(&mem, 0, MIB, "d"), VMM_E_EXIST);
    ck_assert_int_eq(boot_mem_claim(&mem, 0x2800, 0, "nothing"), 0);
    ck_assert_int_eq(boot_mem_claim(&mem, 2 * MIB - 1, 2, "in ROM too"), 0);
    ck_assert_int_eq(boot_mem_claim(&mem, 3 * MIB - 1, 2, "d"), VMM_E_NOSPACE);
    ck_assert_int_eq(boot_mem_claim(&mem, 4 * MIB, UINT64_MAX, "d"), VMM_E_NOSPACE);
    ck_assert_int_eq(boot_mem_claim(&mem, UINT64_MAX, 1, "d"), VMM_E_NOSPACE);
    ck_assert_uint_eq(mem.nclaim, 4);
    ck_assert(!boot_mem_is_free(&mem, 0x2fff, 2));
    ck_assert(boot_mem_is_free(&mem, 0x3001, 0x100));
    ck_assert(!boot_mem_is_free(&mem, 3 * MIB, 1));
    ck_assert(!boot_mem_is_free(&mem, 1, UINT64_MAX));
    end();
}
END_TEST

START_TEST(places_low_and_high_around_claims)
{
    uint64_t gpa = 0;

    begin_mem();
    ck_assert_int_eq(boot_mem_claim(&mem, 0x1100, 0x100, "a"), 0);
    ck_assert_int_eq(boot_mem_claim(&mem, 5 * MIB - 1, 1, "b"), 0);
    ck_assert_int_eq(boot_mem_place_low(&mem, 0x100, 0x100, 0x1000, MIB, "x", &gpa), 0);
    ck_assert_uint_eq(gpa, 0x1000);
    ck_assert_int_eq(boot_mem_place_low(&mem, 0x100, 0x1000, 0x1000, MIB, "x", &gpa), 0);
    ck_assert_uint_eq(gpa, 0x2000);
    ck_assert_int_eq(boot_mem_place_low(&mem, 0x100, 1, 0x1001, MIB, "x", &gpa), 0);
    ck_assert_uint_eq(gpa, 0x1200);
    ck_assert_int_eq(boot_mem_place_high(&mem, 0x1000, 0x1000, 0, UINT64_MAX, "x", &gpa), 0);
    ck_assert_uint_eq(gpa, 5 * MIB - 0x2000);
    ck_assert_int_eq(boot_mem_place_high(&mem, 0x1000, 0x1000, 0, 3 * MIB, "x", &gpa), 0);
    ck_assert_uint_eq(gpa, 2 * MIB - 0x1000); /* below the ROM */
    ck_assert_int_eq(boot_mem_place_high(&mem, MIB, 1, 0, UINT64_MAX, "x", &gpa), VMM_E_NOSPACE);
    ck_assert_str_eq(error.text, "no free RAM for x: 0x100000 bytes between 0x0 and "
                                 "0xffffffffffffffff");
    ck_assert_int_eq(boot_mem_place_low(&mem, UINT64_MAX, 1, 0, UINT64_MAX, "x", &gpa),
                     VMM_E_NOSPACE);
    ck_assert_int_eq(boot_mem_place_low(&mem, 1, 1, 3 * MIB, 2 * MIB, "x", &gpa), VMM_E_NOSPACE);
    /* Data goes below 640 KiB while there is room. */
    ck_assert_int_eq(boot_mem_place_data(&mem, 0x1000, 0x1000, "x", &gpa), 0);
    ck_assert_uint_eq(gpa, 0x3000);
    ck_assert_int_eq(boot_mem_place_data(&mem, 0xa0000, 0x1000, "x", &gpa), 0);
    ck_assert_uint_gt(gpa, MIB);
    end();
}
END_TEST

START_TEST(limits_claims)
{
    begin_mem();
    for (uint64_t i = 0; i < BOOT_MAX_CLAIMS; i++)
        ck_assert_int_eq(boot_mem_claim(&mem, 2 * i, 1, "x"), 0);
    ck_assert_int_eq(boot_mem_claim(&mem, MIB, 1, "x"), VMM_E_LIMIT);
    ck_assert_uint_eq(mem.nclaim, BOOT_MAX_CLAIMS);
    end();
}
END_TEST

START_TEST(limits_separate_ranges)
{
    begin_plain();
    for (uint64_t i = 0; i <= BOOT_MAX_RANGES; i++)
        add_memory(2 * MIB * i, 0x1000, VMM_MEM_RWX);
    ck_assert_int_eq(boot_mem_init(&mem, vm, NULL, &error), VMM_E_LIMIT);
    ck_assert_str_eq(error.text, "guest memory has more than 128 separate ranges");
    end();
}
END_TEST

START_TEST(clears_exactly_what_it_is_told)
{
    uint8_t bytes[0x3000];

    begin_mem();
    memset(bytes, 0x77, sizeof(bytes));
    ck_assert_int_eq(boot_mem_write(&mem, MIB, bytes, sizeof(bytes)), 0);
    ck_assert_int_eq(boot_mem_zero(&mem, MIB + 5, 0x2000), 0);
    ck_assert(all_bytes(at(MIB, 5), 5, 0x77));
    ck_assert(all_bytes(at(MIB + 5, 0x2000), 0x2000, 0));
    ck_assert(all_bytes(at(MIB + 0x2005, 0xffb), 0xffb, 0x77));
    ck_assert_int_eq(boot_mem_zero(&mem, MIB, 0), 0);
    ck_assert_int_eq(boot_mem_zero(&mem, 3 * MIB - 1, 2), VMM_E_NOSPACE);
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        names_of_kinds,
        refuses_bad_requests,
        names_the_function_that_failed,
        refuses_a_vcpu_that_runs,
        detects_what_an_image_is,
        loads_image_files,
        ram_is_writable_memory_without_the_legacy_hole,
        claims_never_overlap,
        places_low_and_high_around_claims,
        limits_claims,
        limits_separate_ranges,
        clears_exactly_what_it_is_told,
    };

    return RUN_SUITE("boot", tests);
}
