/* SPDX-License-Identifier: BSD-2-Clause */
/* single.h: host functions for one CPU with one thread, and memory that is mapped at itself. */
#ifndef SINGLE_H
#define SINGLE_H

#include <vmm/host.h>

/* Fills in virt_to_phys, phys_to_virt, cpu_count, cpu_id, run_on_cpu, preempt_off, preempt_on and
 * thread_slot. */
void host_single(struct vmm_host_ops *ops);

#endif
