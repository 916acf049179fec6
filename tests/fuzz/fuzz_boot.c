/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_boot.c: arbitrary bytes as kernel and modules, through every image loader, and the first
 * instructions of what they accept.
 *
 * Beyond memory safety it checks that a bad image is refused with one of the documented codes and a
 * text, that the vCPU is then as it was, and that an accepted one has an entry point in memory.
 *
 * Input: kind, memory layout, repairs, command line length, modules, module length (2 bytes),
 * load address (3 bytes), then the kernel. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <vmm/vmm.h>

#include <vmm/boot.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADER      10u
#define MAX_MODULES 4u
#define CMDLINE_MAX 255u
#define ROM_SIZE    0x10000u

/* Repairs: values that an image needs to get past the first checks and that are hard to guess. */
#define REPAIR_LINUX     1u
#define REPAIR_MULTIBOOT 2u
#define REPAIR_SIZE      4u

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void repair_linux(uint8_t *p, size_t len)
{
    if (len < 0x268)
        return;
    p[0x1fe] = 0x55;
    p[0x1ff] = 0xaa;
    memcpy(p + 0x202, "HdrS", 4);
    p[0x206] &= 0x0f;
    p[0x207] = 2;
    p[0x211] |= 1;
}

static void repair_multiboot(uint8_t *p, size_t len)
{
    for (size_t at = 0; at + 12 <= len && at < 8192; at += 4) {
        if (get32(p + at) == 0x1badb002) {
            put32(p + at + 8, 0u - 0x1badb002 - get32(p + at + 4));
            return;
        }
    }
}

/* A copy of the exact size, so that a sanitizer sees reads past the end. */
static uint8_t *make_kernel(const uint8_t *data, size_t *len, unsigned repairs)
{
    size_t n = *len;
    uint8_t *kernel;

    if (repairs & REPAIR_SIZE)
        n = (n + ROM_SIZE) / ROM_SIZE * ROM_SIZE;
    kernel = calloc(1, n ? n : 1);
    if (!kernel)
        abort();
    if (*len)
        memcpy(kernel, data, *len);
    if (repairs & REPAIR_LINUX)
        repair_linux(kernel, n);
    if (repairs & REPAIR_MULTIBOOT)
        repair_multiboot(kernel, n);
    *len = n;
    return kernel;
}

/* ---- machines ---- */

static void must(int err)
{
    if (err)
        abort();
}

static struct vm *make_vm(unsigned layout, struct vmm_pc *pc)
{
    static const char *const interp[] = {"interp", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .flags = VMM_VM_EXIT_HLT,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = interp,
                               .irqchip = layout & 1 ? VMM_IRQCHIP_PC : VMM_IRQCHIP_NONE};
    struct vmm_pc_config machine = {.size = sizeof(machine),
                                    .flags = layout >> 4 & 0xf ? layout & 0xf0 : 0,
                                    .memory = (uint64_t)(layout & 2 ? 20 : 2) << 20,
                                    .cpus = 1,
                                    .rtc_epoch = 1700000000};
    struct vm *vm;

    must(vm_create(&config, &vm));
    if (layout & 1) {
        must(vmm_pc_create(vm, &machine, pc));
        return vm;
    }
    /* Loose regions: holes, a ROM, and for some memory at the very end of the first 4 GiB. */
    must(vm_mem_alloc(vm, 0, layout & 2 ? 0x100000 : 0x8000, VMM_MEM_RWX, NULL));
    if (layout & 4) {
        must(vm_mem_alloc(vm, 0x100000, 0x80000, VMM_MEM_RWX, NULL));
        must(vm_mem_alloc(vm, 0x180000, 0x1000, VMM_MEM_RX, NULL));
        must(vm_mem_alloc(vm, 0x200000, 0x100000, VMM_MEM_RWX, NULL));
    }
    if (layout & 8) {
        must(vm_mem_alloc(vm, 0xffff0000, 0x10000, VMM_MEM_RWX, NULL));
        must(vm_mem_alloc(vm, 0x100000000, 0x100000, VMM_MEM_RWX, NULL));
    }
    return vm;
}

static struct vcpu_regs regs_of(struct vcpu *vcpu)
{
    struct vcpu_regs regs;

    memset(&regs, 0, sizeof(regs));
    regs.size = sizeof(regs);
    regs.groups = VMM_REGS_ALL & ~VMM_REGS_MSR; /* time goes on */
    must(vcpu_get_regs(vcpu, &regs));
    return regs;
}

/* ---- after the loader ---- */

static void check_refused(struct vm *vm, struct vcpu *vcpu, int err, const struct vcpu_regs *before)
{
    struct vmm_error error = {.size = sizeof(error)};
    struct vcpu_regs after = regs_of(vcpu);

    switch (err) {
    case VMM_E_FORMAT:
    case VMM_E_TRUNCATED:
    case VMM_E_NOSPACE:
    case VMM_E_UNSUPPORTED:
    case VMM_E_LIMIT:
    case VMM_E_EXIST:
    case VMM_E_RANGE:
        break;
    default:
        abort();
    }
    vm_last_error(vm, &error);
    if (error.code != err || !error.text[0] || !error.op[0])
        abort();
    if (memcmp(before, &after, sizeof(after)) != 0)
        abort();
}

static void check_accepted(struct vm *vm, struct vcpu *vcpu)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vcpu_regs regs = regs_of(vcpu);
    uint64_t gpa = 0;
    uint8_t byte;
    int ok = 0;

    must(vcpu_translate(vcpu, regs.seg[VMM_CS].base + regs.rip, &gpa, &ok));
    if (!ok || vm_mem_read(vm, gpa, &byte, 1) != 0)
        abort();
    must(vcpu_set_budget(vcpu, 64, 0));
    must(vcpu_run(vcpu, &exit));
    if (exit.reason == VMM_EXIT_ENTRY_FAIL || exit.reason == VMM_EXIT_EMUL_MISS)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vmm_image module[MAX_MODULES];
    char cmdline[CMDLINE_MAX + 1];
    struct vmm_pc pc = {.size = sizeof(pc)};
    struct vmm_boot boot = {.size = sizeof(boot)};
    struct vcpu_regs before;
    struct vcpu *vcpu;
    struct vm *vm;
    uint8_t *kernel, *initrd;
    size_t len;
    int err;

    if (size < HEADER)
        return 0;
    len = size - HEADER;
    kernel = make_kernel(data + HEADER, &len, data[2]);
    boot.kernel = (struct vmm_image){sizeof(boot.kernel), 0, kernel, len, data[2] & 8 ? "k" : NULL};
    boot.flags = data[2] & 16 ? VMM_BOOT_NO_ACPI : 0;
    memset(cmdline, 'c', sizeof(cmdline));
    cmdline[data[3]] = '\0';
    boot.cmdline = data[3] ? cmdline : NULL;
    boot.load_addr = data[7] | (uint64_t)data[8] << 8 | (uint64_t)data[9] << 16;

    boot.nmodules = data[4] % (MAX_MODULES + 1);
    boot.modules = module;
    initrd = calloc(1, (data[5] | (size_t)data[6] << 8) + 1);
    if (!initrd)
        abort();
    for (uint32_t i = 0; i < boot.nmodules; i++)
        module[i] = (struct vmm_image){sizeof(module[i]), 0, initrd,
                                       (data[5] | (uint64_t)data[6] << 8) >> i,
                                       data[4] & 0x80 ? "module" : NULL};

    vm = make_vm(data[1], &pc);
    must(vcpu_create(vm, 0, NULL, &vcpu));
    boot.pc = data[1] & 1 ? &pc : NULL;
    before = regs_of(vcpu);
    err = vm_boot(vcpu, data[0] % (VMM_BOOT_FIRMWARE + 1), &boot);
    if (err)
        check_refused(vm, vcpu, err, &before);
    else
        check_accepted(vm, vcpu);
    must(vm_destroy(vm));
    free(initrd);
    free(kernel);
    return 0;
}
