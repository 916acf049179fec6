/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_devices.c: sequences of port and MMIO accesses and of passing time on the built-in devices.
 */
#include "../unit/fake_vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vm *vm = fake_vm_new();

    if (vmm_debug_exit_create(vm, VMM_PC_DEBUG_EXIT, 4) || vmm_pvpanic_create(vm, VMM_PC_PVPANIC))
        abort();
    for (size_t i = 0; i + 3 <= size; i += 3) {
        uint16_t port = data[i] & 8 ? VMM_PC_PVPANIC : (uint16_t)(VMM_PC_DEBUG_EXIT + data[i] % 8);
        if (data[i] & 0x80)
            outn(vm, port, 1u << (data[i + 1] % 3), data[i + 2]);
        else
            inn(vm, port, 1u << (data[i + 1] % 3));
    }
    fake_vm_free(vm);
    return 0;
}
