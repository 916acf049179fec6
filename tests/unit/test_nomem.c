/* SPDX-License-Identifier: BSD-2-Clause */
/* test_nomem.c: every allocation of the library fails once, and from then on: VMM_E_NOMEM comes
 * back, nothing leaks, and what was there before still works. */
#define _GNU_SOURCE
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmm/boot.h>
#include <vmm/debug.h>
#include <vmm/vmm.h>

/* ---- allocation, wrapped by the linker (--wrap) ---- */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void __real_free(void *p);
void *__real_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset);
void *__real_mremap(void *p, size_t len, size_t new_len, int flags, ...);
int __real_munmap(void *p, size_t len);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
void __wrap_free(void *p);
void *__wrap_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mremap(void *p, size_t len, size_t new_len, int flags, ...);
int __wrap_munmap(void *p, size_t len);

static bool counting, armed, for_ever;
static unsigned left;  /* allocations that still succeed */
static unsigned fired; /* those that were made to fail */
static long live, maps;

static bool fails(void)
{
    if (!counting || !armed)
        return false;
    if (left) {
        left--;
        return false;
    }
    fired++;
    errno = ENOMEM;
    armed = for_ever;
    return true;
}

static void *counted(void *p)
{
    live += counting && p;
    return p;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : counted(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    return fails() ? NULL : counted(__real_aligned_alloc(alignment, n));
}

void *__wrap_realloc(void *p, size_t n)
{
    if (fails())
        return NULL;
    return p ? __real_realloc(p, n) : counted(__real_realloc(p, n));
}

void __wrap_free(void *p)
{
    live -= counting && p;
    __real_free(p);
}

void *__wrap_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset)
{
    if (fails())
        return MAP_FAILED;
    p = __real_mmap(p, len, prot, flags, fd, offset);
    maps += counting && p != MAP_FAILED;
    return p;
}

/* The library uses it to map something twice. */
void *__wrap_mremap(void *p, size_t len, size_t new_len, int flags, ...)
{
    if (fails())
        return MAP_FAILED;
    p = __real_mremap(p, len, new_len, flags);
    maps += counting && p != MAP_FAILED;
    return p;
}

int __wrap_munmap(void *p, size_t len)
{
    maps -= counting;
    return __real_munmap(p, len);
}

/* ---- the machinery ---- */

/* Check allocates too, so it must not be called while we count. */
static void failed_at(int line, const char *what, long long value)
{
    counting = false;
    ck_abort_msg("line %d: %s is %lld; %u failed after %u more", line, what, value, fired, left);
}
#define SAME(a, b)                                                                                 \
    do {                                                                                           \
        long long a_ = (long long)(a);                                                             \
        if (a_ != (long long)(b))                                                                  \
            failed_at(__LINE__, #a, a_);                                                           \
    } while (0)
#define MUST(a) SAME(!(a), 0)

static struct vm *vm;
static struct vcpu *vcpu;
static unsigned releases, stops;

/* Others look at the machine first, once in the process. */
static const char *const backends[] = {"interp", NULL};

/* Prepares without failures. */
static void prepare(uint32_t irqchip, bool memory, bool cpu)
{
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = irqchip,
                               .max_vcpus = 2};

    SAME(vm_create(&config, &vm), 0);
    if (memory)
        SAME(vm_mem_alloc(vm, 0, 0x400000, VMM_MEM_RWX, NULL), 0);
    if (cpu)
        SAME(vcpu_create(vm, 0, NULL, &vcpu), 0);
}

struct scenario {
    uint32_t irqchip;
    bool memory, cpu;
    int (*body)(void); /* what must succeed or say VMM_E_NOMEM */
};

/* The body with the allocation number `n` failing; true: it has so many. */
static bool try_one(const struct scenario *s, unsigned n)
{
    struct vmm_error error = {.size = sizeof(error)};

    live = maps = 0;
    counting = true;
    vm = NULL;
    prepare(s->irqchip, s->memory, s->cpu);
    left = n;
    fired = 0;
    armed = true;
    int err = s->body();
    armed = false;
    if (err) {
        vm_last_error(vm, &error);
        if (err != VMM_E_NOMEM)
            failed_at(__LINE__, error.text, err);
        MUST(fired >= 1);
        SAME(error.code, VMM_E_NOMEM);
        MUST(error.text[0]);
        MUST(error.op[0]);
    }
    SAME(vm_destroy(vm), 0);
    counting = false;
    ck_assert_msg(!live && !maps, "allocation %u failed: %ld allocations and %ld mappings leaked",
                  n, live, maps);
    return fired;
}

static void try_all(const struct scenario *s, unsigned at_least)
{
    for (int i = 0; i < 2; i++) {
        unsigned n = 0;

        for_ever = i;
        while (try_one(s, n))
            n++;
        MUST(n >= at_least);
    }
}
#define TRY(at_least, ...) try_all(&(const struct scenario){__VA_ARGS__}, at_least)

/* ---- VMs and vCPUs ---- */

START_TEST(creation_of_vms)
{
    for (uint32_t irqchip = 0; irqchip < 2; irqchip++) {
        unsigned n = 0;

        for (int i = 0; i < 2; i++) {
            for (n = 0;; n++) {
                struct vmm_error error = {.size = sizeof(error)};
                struct vm_config config = {.size = sizeof(config),
                                           .select = VMM_SELECT_REQUIRE,
                                           .backends = backends,
                                           .irqchip = irqchip,
                                           .error = &error};

                live = maps = 0;
                vm = NULL;
                left = n;
                fired = 0;
                for_ever = i;
                counting = armed = true;
                int err = vm_create(&config, &vm);
                armed = false;
                if (err) {
                    SAME(err, VMM_E_NOMEM);
                    SAME(error.code, VMM_E_NOMEM);
                    SAME(strcmp(error.op, "vm_create"), 0);
                    MUST(!vm);
                }
                SAME(vm_destroy(vm), 0);
                counting = false;
                ck_assert_msg(!live && !maps, "allocation %u: %ld, %ld leaked", n, live, maps);
                if (!fired)
                    break;
                /* The probe asks for executable memory in two ways: two mappings, each. */
                MUST(err || (!for_ever && n < 2));
            }
            MUST(n >= 4 + irqchip);
        }
    }
}
END_TEST

static int create_vcpu(void)
{
    struct vcpu *second = NULL;
    int err = vcpu_create(vm, 1, NULL, &second);

    if (err) {
        MUST(!second);
        MUST(!vm_vcpu(vm, 1));
        armed = false; /* the slot can be used again */
        SAME(vcpu_create(vm, 1, NULL, &second), 0);
        SAME(vcpu_destroy(second), 0);
        vm_fail(vm, err, "vcpu_create", "again");
    }
    return err;
}

START_TEST(creation_of_vcpus)
{
    TRY(5, VMM_IRQCHIP_NONE, true, true, create_vcpu);
    TRY(6, VMM_IRQCHIP_PC, true, true, create_vcpu);
}
END_TEST

/* ---- memory, registrations, timers ---- */

static int add_memory(void)
{
    static _Alignas(4096) uint8_t page[4096];
    void *host = NULL;
    int err = vm_mem_alloc(vm, 0x1000000, 0x2000, VMM_MEM_RWX, &host);

    MUST((err != 0) == !host);
    if (!err)
        err = vm_mem_map(vm, 0x2000000, page, sizeof(page), VMM_MEM_RWX);
    if (!err) {
        int fd = memfd_create("test", 0);

        SAME(ftruncate(fd, 4096), 0);
        err = vm_mem_map_fd(vm, 0x3000000, fd, 0, 4096, VMM_MEM_RWX);
        close(fd);
    }
    return err;
}

/* Taking away needs no memory. */
static int remove_memory(void)
{
    left = 0;
    for_ever = armed = true;
    SAME(vm_mem_protect(vm, 0, VMM_MEM_R), 0);
    SAME(vm_mem_unmap(vm, 0), 0);
    SAME(vm_mem_unmap(vm, 0), VMM_E_NOENT);
    SAME(vm_reset(vm), 0);
    SAME(vcpu_destroy(vcpu), 0);
    SAME(fired, 0);
    return 0;
}

START_TEST(memory)
{
    TRY(6, VMM_IRQCHIP_NONE, true, true, add_memory);
    TRY(0, VMM_IRQCHIP_PC, true, true, remove_memory);
}
END_TEST

static void on_release(void *opaque)
{
    (void)opaque;
    releases++;
}

static int register_io(void)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .release = on_release};
    struct mmio *mmio = NULL;
    struct pio *pio = NULL;

    releases = 0;
    int err = mmio_register(vm, 0x10000000, 0x1000, &ops, NULL, &mmio);
    if (!err)
        err = pio_register(vm, 0x10, 4, &ops, NULL, &pio);
    SAME(releases, 0); /* what is not registered is not released */
    left = 0;
    MUST(!mmio || !mmio_move(mmio, 0x20000000));
    mmio_unregister(mmio);
    pio_unregister(pio);
    SAME(releases, (mmio != NULL) + (pio != NULL));
    if (err)
        vm_fail(vm, err, "register_io", "again"); /* mmio_move has not failed */
    return err;
}

/* Doorbells, routes, descriptors, dirty tracking. */
static int add_services(void)
{
    int fd[2] = {eventfd(0, 0), eventfd(0, 0)};
    struct vmm_doorbell bell = {.size = sizeof(bell), .addr = 0x10000000, .len = 4, .fd = fd[0]};
    struct doorbell *out[2] = {NULL, NULL};
    int err = mmio_doorbell(vm, &bell, &out[0]);

    bell.addr += 4;
    if (!err)
        err = mmio_doorbell(vm, &bell, &out[1]);
    if (!err)
        err = vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST, 0xfee00000, 0x41);
    for (uint32_t i = 0; i < 2 && !err; i++)
        err = vm_irq_fd(vm, VMM_IRQ_ROUTE_FIRST + i, fd[i], -1);
    if (!err)
        err = vm_dirty_start(vm);
    if (!err)
        err = vm_mem_alloc(vm, 0x1000000, 0x2000, VMM_MEM_RWX, NULL);
    left = 0;
    mmio_doorbell_remove(out[0]); /* needs none */
    close(fd[0]);
    close(fd[1]);
    return err;
}

START_TEST(services)
{
    TRY(10, VMM_IRQCHIP_PC, true, false, add_services);
}
END_TEST

static void on_stop(void *opaque)
{
    (void)opaque;
    stops++;
}

static void on_fire(void *opaque, uint64_t deadline)
{
    (void)opaque;
    (void)deadline;
}

static int add_timers_and_devices(void)
{
    struct vmm_device_ops ops = {.size = sizeof(ops), .stop = on_stop};
    struct vmm_timer *timer;
    int err = 0;

    for (int i = 0; i < 40 && !err; i++) {
        err = vm_timer_create(vm, on_fire, NULL, &timer);
        if (!err)
            vm_timer_set(timer, 1000000u * (unsigned)i);
    }
    return err ? err : vm_device_add(vm, &ops, NULL, NULL);
}

START_TEST(registrations)
{
    TRY(4, VMM_IRQCHIP_NONE, false, false, register_io);
    stops = 0;
    TRY(40, VMM_IRQCHIP_NONE, false, false, add_timers_and_devices);
    SAME(stops, 2); /* of those that were added */
}
END_TEST

/* ---- devices ---- */

static int create_pc(void)
{
    struct vmm_pc_config config = {.size = sizeof(config), .memory = 0x200000};
    struct vmm_pc pc = {.size = sizeof(pc)};

    return vmm_pc_create(vm, &config, &pc);
}

static int create_devices(void)
{
    struct vmm_serial_config config = {.size = sizeof(config), .port = 0x2f8, .irq = 3};
    struct vmm_pci_ops ops = {.size = sizeof(ops)};
    struct vmm_fw_cfg *fw;
    struct vmm_pci *pci;
    int err = vmm_serial_create(vm, &config, NULL);

    if (!err)
        err = vmm_fw_cfg_create(vm, &fw);
    for (unsigned i = 0; i < 20 && !err; i++) {
        char name[20];

        snprintf(name, sizeof(name), "opt/%u", i);
        err = vmm_fw_cfg_add_file(fw, name, "12345678", 8);
        if (!err)
            err = vmm_fw_cfg_add(fw, (uint16_t)(i % 0x18), "abc", 3);
    }
    if (!err)
        err = vmm_pci_create(vm, &pci);
    for (uint8_t i = 1; i < 8 && !err; i++)
        err = vmm_pci_add(pci, (uint8_t)(i << 3), &ops, NULL);
    if (!err)
        err = vmm_acpi_pm_create(vm, 0x600, 9, NULL);
    if (!err)
        err = vmm_debug_exit_create(vm, 0xf4, 4);
    return err;
}

START_TEST(devices)
{
    TRY(40, VMM_IRQCHIP_PC, false, false, create_pc);
    TRY(50, VMM_IRQCHIP_PC, false, false, create_devices);
}
END_TEST

/* ---- boot ---- */

static uint8_t image[0x10000]; /* zeros and some code */
static struct vmm_boot request(void)
{
    return (struct vmm_boot){
        .size = sizeof(struct vmm_boot),
        .kernel = {.size = sizeof(struct vmm_image), .data = image, .len = sizeof(image)}};
}

static int boot_flat(void)
{
    struct vmm_boot boot = request();

    return vm_boot_flat(vcpu, &boot);
}

static int boot_firmware(void)
{
    struct vmm_boot boot = request();

    return vm_boot_firmware(vcpu, &boot);
}

static void put(unsigned offset, uint64_t value, unsigned size)
{
    memcpy(image + offset, &value, size);
}

/* A bzImage of protocol 2.15, as small as can be, with ACPI tables. */
static int boot_linux(void)
{
    struct vmm_pc_config config = {
        .size = sizeof(config), .memory = 64u << 20, .flags = VMM_PC_NO_FW_CFG};
    struct vmm_pc pc = {.size = sizeof(pc)};
    struct vmm_boot boot = request();

    armed = false;
    SAME(vmm_pc_create(vm, &config, &pc), 0);
    armed = true;
    memset(image, 0, sizeof(image));
    put(0x1f1, 1, 1);
    put(0x1f4, (sizeof(image) - 1024) / 16, 4);
    put(0x1fe, 0xaa55, 2);
    put(0x200, 0x6aeb, 2);
    memcpy(image + 0x202, "HdrS", 4);
    put(0x206, 0x20f, 2);
    put(0x211, 1, 1);
    put(0x214, 0x100000, 4);
    put(0x22c, 0x7fffffff, 4);
    put(0x230, 0x200000, 4);
    put(0x234, 0x1501, 2);
    put(0x236, 3, 2);
    put(0x238, 2047, 4);
    put(0x258, 0x1000000, 8);
    put(0x260, 0x100000, 4);
    boot.pc = &pc;
    boot.cmdline = "quiet";
    return vm_boot_linux(vcpu, &boot);
}

START_TEST(boot)
{
    TRY(1, VMM_IRQCHIP_NONE, true, true, boot_flat);
    TRY(1, VMM_IRQCHIP_NONE, true, true, boot_firmware);
    TRY(2, VMM_IRQCHIP_PC, false, true, boot_linux);
}
END_TEST

START_TEST(image_files)
{
    char name[] = "/tmp/test_nomem_XXXXXX";
    int fd = mkstemp(name);
    struct vmm_error error = {.size = sizeof(error)};
    struct vmm_image loaded = {.size = sizeof(loaded)};

    SAME(write(fd, "image", 5), 5);
    live = left = 0;
    counting = armed = true;
    SAME(vmm_image_load(name, 0, &loaded, &error), VMM_E_NOMEM);
    armed = false;
    SAME(error.code, VMM_E_NOMEM);
    SAME(vmm_image_load(name, 0, &loaded, &error), 0);
    SAME(loaded.len, 5);
    vmm_image_free(&loaded);
    vmm_image_free(&loaded);
    counting = false;
    SAME(live, 0);
    unlink(name);
    close(fd);
}
END_TEST

/* ---- running ---- */

/* A guest cannot tell that the host has no memory left: it runs as it would, only slower. */
static int run_guest(void)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = 0x1000,
                               .rsp = 0x9000,
                               .tables = 0x10000};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
    /* In each 32 bytes of 256 KiB: addps %xmm0,%xmm0; fldz; fstp; inc; inc; jmp to the next */
    const uint8_t pad[32] = {0x0f, 0x58, 0xc0, 0xd9, 0xee, 0xdd, 0xd8,
                             0xff, 0xc0, 0xff, 0xc0, 0xeb, 0x13};

    for (uint64_t i = 0; i < 0x2000; i++)
        SAME(vm_mem_write(vm, 0x100000 + i * sizeof(pad), pad, sizeof(pad)), 0);
    SAME(vm_mem_write(vm, 0x140000, "\xf4", 1), 0);
    /* mov $0x100000,%ecx; xor %eax,%eax; jmp *%rcx */
    SAME(vm_mem_write(vm, 0x1000, "\xb9\x00\x00\x10\x00\x31\xc0\xff\xe1", 9), 0);
    SAME(vcpu_set_mode(vcpu, &setup), 0);
    SAME(vcpu_run(vcpu, &exit), 0);
    SAME(strcmp(vmm_exit_name(exit.reason), "HLT"), 0);
    SAME(exit.rip, 0x140001);
    SAME(vcpu_get_regs(vcpu, &regs), 0);
    SAME(regs.gpr[VMM_RAX], 2 * 0x2000);
    return 0;
}

START_TEST(running)
{
    TRY(1, VMM_IRQCHIP_NONE, true, true, run_guest);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nomem");
    TCase *tc = tcase_create("nomem");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, creation_of_vms);
    tcase_add_test(tc, creation_of_vcpus);
    tcase_add_test(tc, memory);
    tcase_add_test(tc, registrations);
    tcase_add_test(tc, services);
    tcase_add_test(tc, devices);
    tcase_add_test(tc, boot);
    tcase_add_test(tc, image_files);
    tcase_add_test(tc, running);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
