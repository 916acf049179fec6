/* SPDX-License-Identifier: BSD-2-Clause */
/* boot.c: the public boot functions: checking the caller's request, detection, dispatch. */
#include "core/boot/boot.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct boot_kind {
    const char *name;
    const char *op;
    int (*run)(struct boot *boot);
};

static const struct boot_kind kinds[] = {
    [VMM_BOOT_AUTO] = {"auto", "vm_boot", NULL},
    [VMM_BOOT_LINUX] = {"linux", "vm_boot_linux", boot_linux},
    [VMM_BOOT_PVH] = {"pvh", "vm_boot_pvh", boot_pvh},
    [VMM_BOOT_MULTIBOOT] = {"multiboot", "vm_boot_multiboot", boot_multiboot},
    [VMM_BOOT_ELF] = {"elf", "vm_boot_elf", boot_elf},
    [VMM_BOOT_FLAT] = {"flat", "vm_boot_flat", boot_flat},
    [VMM_BOOT_FIRMWARE] = {"firmware", "vm_boot_firmware", boot_firmware},
};

#define NKINDS (sizeof(kinds) / sizeof(kinds[0]))

const char *vmm_boot_name(uint32_t kind)
{
    return kind < NKINDS ? kinds[kind].name : "?";
}

int vmm_boot_detect(const struct vmm_image *image)
{
    struct boot_elf_image elf;
    struct boot_error error;

    if (!image || !image->data)
        return VMM_E_FORMAT;
    if (boot_is_linux(image))
        return VMM_BOOT_LINUX;
    if (boot_is_multiboot(image))
        return VMM_BOOT_MULTIBOOT;
    if (!boot_is_elf(image))
        return VMM_E_FORMAT;
    /* A damaged ELF file is still one: its loader says what is wrong with it. */
    if (boot_elf_parse(image, &elf, &error) == 0 && elf.has_pvh)
        return VMM_BOOT_PVH;
    return VMM_BOOT_ELF;
}

/* ---- the request ---- */

/* Larger structs are none: their size was not set. */
#define STRUCT_MAX 65536u

/* Bytes that a newer caller's struct has beyond ours must be zero (vmm/base.h). */
static bool tail_is_zero(const void *p, uint32_t size, size_t known)
{
    const uint8_t *bytes = p;

    for (size_t i = known; i < size; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static int check_struct(struct boot *boot, const void *p, uint32_t size, size_t known,
                        const char *what)
{
    if (size < known || size > STRUCT_MAX)
        return boot_fail(&boot->error, VMM_E_INVAL, "%s: size is %u, must be at least %zu", what,
                         size, known);
    if (!tail_is_zero(p, size, known))
        return boot_fail(&boot->error, VMM_E_UNSUPPORTED,
                         "%s: fields beyond byte %zu are newer than this library", what, known);
    return 0;
}

static int check_image(struct boot *boot, const struct vmm_image *image, const char *what)
{
    if (image->size != sizeof(*image))
        return boot_fail(&boot->error, VMM_E_INVAL, "%s: image size is %u, must be %zu", what,
                         image->size, sizeof(*image));
    if (image->reserved)
        return boot_fail(&boot->error, VMM_E_UNSUPPORTED, "%s: reserved is not 0", what);
    if (!image->data && image->len > 0)
        return boot_fail(&boot->error, VMM_E_INVAL, "%s: 0x%" PRIx64 " bytes at NULL", what,
                         image->len);
    return 0;
}

static int take_request(struct boot *boot, const struct vmm_boot *request)
{
    int err;

    if (!request)
        return boot_fail(&boot->error, VMM_E_INVAL, "boot is NULL");
    err = check_struct(boot, request, request->size, sizeof(*request), "boot");
    if (err)
        return err;
    if (request->flags & ~VMM_BOOT_NO_ACPI)
        return boot_fail(&boot->error, VMM_E_UNSUPPORTED, "unknown flags 0x%x", request->flags);
    if (request->reserved)
        return boot_fail(&boot->error, VMM_E_UNSUPPORTED, "reserved is not 0");
    err = check_image(boot, &request->kernel, "kernel");
    if (err)
        return err;
    if (request->kernel.len == 0)
        return boot_fail(&boot->error, VMM_E_TRUNCATED, "the kernel image is empty");
    if (request->nmodules > 0 && !request->modules)
        return boot_fail(&boot->error, VMM_E_INVAL, "%u modules at NULL", request->nmodules);
    for (uint32_t i = 0; !err && i < request->nmodules; i++)
        err = check_image(boot, &request->modules[i], "module");
    if (!err && request->pc)
        err = check_struct(boot, request->pc, request->pc->size, sizeof(*request->pc), "pc");
    boot->flags = request->flags;
    boot->kernel = &request->kernel;
    boot->modules = request->modules;
    boot->nmodules = request->nmodules;
    boot->cmdline = request->cmdline ? request->cmdline : "";
    boot->pc = request->pc;
    boot->load_addr = request->load_addr;
    return err;
}

static int detect(struct boot *boot, uint32_t *kind)
{
    int found = vmm_boot_detect(boot->kernel);
    uint8_t first[4] = {0};

    if (found > 0) {
        *kind = (uint32_t)found;
        return 0;
    }
    memcpy(first, boot->kernel->data, boot->kernel->len < 4 ? (size_t)boot->kernel->len : 4);
    return boot_fail(&boot->error, VMM_E_FORMAT,
                     "the image (0x%" PRIx64 " bytes, first %02x %02x %02x %02x) is no bzImage, "
                     "multiboot, PVH or ELF kernel",
                     boot->kernel->len, first[0], first[1], first[2], first[3]);
}

/* A VM that runs cannot be set up: better known before memory is written. */
static int check_quiet(struct boot *boot)
{
    int err = 0;

    if (vcpu_current(boot->vm))
        return boot_fail(&boot->error, VMM_E_BUSY, "called from a callback of the VM");
    for (uint32_t i = 0; i < VMM_MAX_VCPUS && !err; i++) {
        struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
        struct vcpu *vcpu = vm_vcpu(boot->vm, i);

        err = vcpu ? vcpu_get_regs(vcpu, &regs) : 0;
        if (err)
            boot_fail(&boot->error, err, "vCPU %u: %s", i, vmm_strerror(err));
    }
    return err;
}

static int run(struct boot *boot, uint32_t kind, const struct vmm_boot *request)
{
    int err = take_request(boot, request);

    if (!err)
        err = check_quiet(boot);
    if (!err && kind == VMM_BOOT_AUTO)
        err = detect(boot, &kind);
    if (!err)
        err = boot_mem_init(&boot->mem, boot->vm, boot->pc, &boot->error);
    return err ? err : kinds[kind].run(boot);
}

int vm_boot(struct vcpu *vcpu, uint32_t kind, const struct vmm_boot *request)
{
    const char *op = kind < NKINDS ? kinds[kind].op : "vm_boot";
    struct boot *boot;
    int err;

    if (!vcpu)
        return VMM_E_INVAL;
    if (kind >= NKINDS)
        return vm_fail(vcpu_vm(vcpu), VMM_E_INVAL, op, "unknown kind of image %u", kind);
    boot = calloc(1, sizeof(*boot));
    if (!boot)
        return vm_fail(vcpu_vm(vcpu), VMM_E_NOMEM, op, "no memory for the loader's state");
    boot->vm = vcpu_vm(vcpu);
    boot->vcpu = vcpu;
    err = run(boot, kind, request);
    if (err)
        err = vm_fail(boot->vm, err, op, "%s", boot->error.text);
    free(boot);
    return err;
}

int vm_boot_linux(struct vcpu *vcpu, const struct vmm_boot *boot)
{
    return vm_boot(vcpu, VMM_BOOT_LINUX, boot);
}

int vm_boot_pvh(struct vcpu *vcpu, const struct vmm_boot *boot)
{
    return vm_boot(vcpu, VMM_BOOT_PVH, boot);
}

int vm_boot_multiboot(struct vcpu *vcpu, const struct vmm_boot *boot)
{
    return vm_boot(vcpu, VMM_BOOT_MULTIBOOT, boot);
}

int vm_boot_elf(struct vcpu *vcpu, const struct vmm_boot *boot)
{
    return vm_boot(vcpu, VMM_BOOT_ELF, boot);
}

int vm_boot_flat(struct vcpu *vcpu, const struct vmm_boot *boot)
{
    return vm_boot(vcpu, VMM_BOOT_FLAT, boot);
}

int vm_boot_firmware(struct vcpu *vcpu, const struct vmm_boot *boot)
{
    return vm_boot(vcpu, VMM_BOOT_FIRMWARE, boot);
}
