/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/vmm.h: the core of libvmm: VM, memory, vCPU, I/O and interrupts. Devices, boot, machine and
 * debug are headers of their own. */
#ifndef VMM_VMM_H
#define VMM_VMM_H

#include <vmm/base.h>
#include <vmm/io.h>
#include <vmm/irq.h>
#include <vmm/memory.h>
#include <vmm/regs.h>
#include <vmm/timer.h>
#include <vmm/vcpu.h>
#include <vmm/vm.h>

#endif
