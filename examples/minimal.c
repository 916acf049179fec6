/* SPDX-License-Identifier: BSD-2-Clause */
/* minimal.c: a guest adds two numbers and gives the sum to a device of ours. */
#include <stdio.h>
#include <vmm/vmm.h>

static int show(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    printf("%s: port 0x10+%u, %u bytes: %u\n", (const char *)opaque, (unsigned)offset, size,
           (unsigned)value);
    return VMM_IO_OK;
}

int main(void)
{
    static const uint8_t code[] = {0x01, 0xd8, /* add %bx, %ax  */
                                   0xe7, 0x10, /* out %ax, $0x10 */
                                   0xf4};      /* hlt */
    struct vmm_io_ops ops = {.size = sizeof(ops), .name = "display", .write = show};
    struct vcpu_setup real = {.size = sizeof(real), .mode = VMM_SETUP_REAL, .rip = 0x1000};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vm *vm;
    struct vcpu *cpu;

    if (vm_create(NULL, &vm) != 0 || vm_mem_alloc(vm, 0, 65536, VMM_MEM_RWX, NULL) != 0 ||
        vm_mem_write(vm, 0x1000, code, sizeof(code)) != 0 ||
        pio_register(vm, 0x10, 2, &ops, "display", NULL) != 0 ||
        vcpu_create(vm, 0, NULL, &cpu) != 0 || vcpu_set_mode(cpu, &real) != 0) {
        return 1;
    }
    vcpu_get_regs(cpu, &regs);
    regs.gpr[VMM_RAX] = 2;
    regs.gpr[VMM_RBX] = 40;
    vcpu_set_regs(cpu, &regs);
    vcpu_run(cpu, &exit);
    printf("exit: %s\n", vmm_exit_name(exit.reason));
    return vm_destroy(vm);
}
