/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/probe.h: finding out what the host's KVM can do: for probe*.c and its tests.
 */
#ifndef BACKENDS_KVM_PROBE_H
#define BACKENDS_KVM_PROBE_H

#include "backends/kvm/kvm.h"

/* Probes afresh, whatever kvm_host() has found; all of *host is written. Returns host->result. */
int kvm_probe_host(struct kvm_host *host);
/* Frees what `host` has. */
void kvm_probe_free(struct kvm_host *host);

/* Fills what only running guests can show: bad, the speeds, the irqchip members and
 * KVM_HAS_TSC_OFFSET. `dev` is /dev/kvm; the capabilities are filled already. 0, or a negative
 * errno: no guest could be made, and `*what` says which step it was. [probe_guests.c] */
int kvm_probe_guests(int dev, struct kvm_host *host, const char **what);

#endif
