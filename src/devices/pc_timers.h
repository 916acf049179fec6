/* SPDX-License-Identifier: BSD-2-Clause */
/* pc_timers.h: the HPET's legacy replacement route disconnects the 8254 from line 0 and the RTC
 * from line 8 (IA-PC HPET 1.0a, 2.3.5); these are the switches, which vmm_pc_create connects. */
#ifndef VMM_DEVICES_PC_TIMERS_H
#define VMM_DEVICES_PC_TIMERS_H

#include <vmm/device.h>

struct pit;

/* vmm_pit_create with the object. */
int pit_create(struct vm *vm, struct pit **out);

/* vmm_hpet_create; `pit` and `rtc` may be NULL and must stay until the HPET is gone. */
int hpet_create(struct vm *vm, struct pit *pit, struct vmm_rtc *rtc);

/* Connects the device to its interrupt line or not; lock order: HPET before these. */
void pit_connect(struct pit *pit, int connected);
void rtc_connect(struct vmm_rtc *rtc, int connected);

#endif
