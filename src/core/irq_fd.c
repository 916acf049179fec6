/* SPDX-License-Identifier: BSD-2-Clause */
/* core/irq_fd.c: message routes, and descriptors whose signals are interrupts. */
#include "core/internal.h"

int vm_irq_route(struct vm *vm, uint32_t route, uint64_t address, uint32_t data)
{
    (void)route, (void)address, (void)data;
    return vm ? VMM_E_UNSUPPORTED : VMM_E_INVAL;
}

int vm_irq_fd(struct vm *vm, uint32_t line, int fd, int resample_fd)
{
    (void)line, (void)fd, (void)resample_fd;
    return vm ? VMM_E_UNSUPPORTED : VMM_E_INVAL;
}

int vm_irq_fd_remove(struct vm *vm, uint32_t line, int fd)
{
    (void)line, (void)fd;
    return vm ? VMM_E_UNSUPPORTED : VMM_E_INVAL;
}

uint32_t core_irq_fd_lines(struct vm *vm)
{
    (void)vm;
    return 0;
}

void core_irq_fd_eoi(struct vm *vm, uint32_t line)
{
    (void)vm, (void)line;
}

void core_irq_fds_fini(struct vm *vm)
{
    vm->irqchip_kind = VMM_IRQCHIP_NONE;
}
