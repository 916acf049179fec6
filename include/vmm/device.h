/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/device.h: the life cycle of device models, and the built-in ones. */
#ifndef VMM_DEVICE_H
#define VMM_DEVICE_H

#include <vmm/io.h>
#include <vmm/irq.h>
#include <vmm/timer.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vmm_device;

/* What the library calls on a device model. Every member may be NULL. */
struct vmm_device_ops {
    uint32_t size;
    uint32_t reserved;
    const char *name;            /* borrowed until stop */
    void (*reset)(void *opaque); /* power-on state; from vm_reset, no vCPU runs */
    void (*stop)(void *opaque);  /* the VM goes away: unregister and free; called once */
};

/* Adds a device model to the VM's list; reset and stop are called in reverse order of adding.
 * VMM_E_NOMEM. *out may be NULL. ANY. */
int vm_device_add(struct vm *vm, const struct vmm_device_ops *ops, void *opaque,
                  struct vmm_device **out);

/* Calls stop and forgets the device. NULL is allowed. QUIET. */
int vm_device_remove(struct vmm_device *device);

/* Records an error in the VM (see vm_last_error) for functions built on the library, such as a
 * device constructor, and returns `code`. `op` is the function's name, `format` as for printf. ANY.
 */
int vm_fail(struct vm *vm, int code, const char *op, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * Built-in devices. Each constructor registers ports, MMIO, timers and the device itself with the
 * public functions of these headers, so that a program can copy one and change it. All are freed
 * with the VM. *out may be NULL. Lines are vm_irq_set lines. ANY unless said otherwise.
 */

/* 16550A UART (National Semiconductor PC16550D). */
struct vmm_serial;
struct vmm_serial_config {
    uint32_t size;
    uint16_t port; /* 0x3f8 */
    uint16_t irq;  /* 4; VMM_IRQ_NONE: none */
    /* Bytes that the guest sends; called on a vCPU thread; returns how many were taken: the rest is
     * offered again after vmm_serial_writable. NULL: discarded. */
    size_t (*output)(void *opaque, const uint8_t *bytes, size_t n);
    void *opaque;
    uint32_t flags; /* VMM_SERIAL_* */
    uint32_t reserved;
};
#define VMM_IRQ_NONE 0xffffu
/* Flow control: input waits in the model's buffer, through a reset too, until the guest is ready
 * for it: raises RTS, enables the receive interrupt, or polls LSR. Without it what comes before the
 * guest's driver has set up the port is lost, as on a line. */
#define VMM_SERIAL_FLOW 1u
int vmm_serial_create(struct vm *vm, const struct vmm_serial_config *config,
                      struct vmm_serial **out);
/* Bytes for the guest; returns how many fitted into the receive buffer (16 in FIFO mode; the model
 * buffers up to 4096 in front of it). ANY. */
size_t vmm_serial_input(struct vmm_serial *serial, const uint8_t *bytes, size_t n);
/* A break condition on the line. ANY. */
void vmm_serial_break(struct vmm_serial *serial);
/* The host side can take bytes again. ANY. */
void vmm_serial_writable(struct vmm_serial *serial);

/* 8254 timer at 0x40-0x43, line 0, and port 0x61 (speaker gate, channel 2 output). */
int vmm_pit_create(struct vm *vm);

/* MC146818 real-time clock with 128 bytes of CMOS RAM at 0x70-0x71, line 8. */
struct vmm_rtc;
struct vmm_rtc_config {
    uint32_t size;
    uint32_t reserved;
    uint64_t memory_below_4g; /* for the CMOS memory size registers, in bytes */
    uint64_t memory_above_4g;
    int64_t epoch; /* seconds since 1970 at start; 0: the host's time */
};
int vmm_rtc_create(struct vm *vm, const struct vmm_rtc_config *config, struct vmm_rtc **out);
/* Reads or writes a CMOS byte as firmware would see it; index 0-127. ANY. */
uint8_t vmm_rtc_get(struct vmm_rtc *rtc, uint32_t index);
void vmm_rtc_set(struct vmm_rtc *rtc, uint32_t index, uint8_t value);

/* HPET at 0xfed00000 (IA-PC HPET 1.0a), three comparators, legacy replacement. */
int vmm_hpet_create(struct vm *vm);

/* ACPI power management block at `port` (0x600; a multiple of 4): PM1 event and control, PM timer,
 * GPE0, the ACPI enable port 0xb2, and the reset register 0xcf9 unless a PCI host bridge has it. S5
 * requests VMM_EXIT_POWEROFF, resets VMM_EXIT_RESET. `irq` is the SCI's line or VMM_IRQ_NONE. */
struct vmm_acpi_pm;
int vmm_acpi_pm_create(struct vm *vm, uint16_t port, uint16_t irq, struct vmm_acpi_pm **out);
/* The power button: raises the fixed event (SCI). ANY. */
void vmm_acpi_pm_button(struct vmm_acpi_pm *pm);

/* i8042 at 0x60/0x64 with a PS/2 keyboard (line 1) and mouse (line 12), port 0x92, A20 (a bit that
 * reads back; memory is always as with the gate open), CPU reset (VMM_EXIT_RESET). */
struct vmm_i8042;
int vmm_i8042_create(struct vm *vm, struct vmm_i8042 **out);
/* A key in scan code set 1 (extended keys as 0xe000 | code, Pause as 0xe11d), pressed or released;
 * the keyboard repeats it. Others are ignored. ANY. */
void vmm_i8042_key(struct vmm_i8042 *i8042, uint32_t scancode, int pressed);
/* Mouse movement (right, up positive), wheel (away from the user positive), and buttons (1 left,
 * 2 right, 4 middle, 8 and 16 the side ones). ANY. */
void vmm_i8042_mouse(struct vmm_i8042 *i8042, int dx, int dy, int dz, uint32_t buttons);
/* What the guest has lit: 1 scroll lock, 2 num lock, 4 caps lock. ANY. */
uint32_t vmm_i8042_leds(struct vmm_i8042 *i8042);

/* isa-debug-exit on ports port .. port+len-1: a write of v requests VMM_EXIT_USER with value
 * (v << 1) | 1; reads give 0. */
int vmm_debug_exit_create(struct vm *vm, uint16_t port, uint16_t len);

/* pvpanic on a port, usually 0x505: requests VMM_EXIT_PANIC with the event bits, 1 panicked, 2 a
 * crash kernel takes over. */
int vmm_pvpanic_create(struct vm *vm, uint16_t port);

/* QEMU-compatible firmware configuration device at 0x510 (selector, data, DMA). It comes with the
 * signature, the interface id and the file directory; the other items are the program's. */
struct vmm_fw_cfg;
int vmm_fw_cfg_create(struct vm *vm, struct vmm_fw_cfg **out);
/* Keys of items; numbers in them are little-endian. vmm_pc_create adds those marked with (pc). */
#define VMM_FW_CFG_SIGNATURE     0x00u /* "QEMU" */
#define VMM_FW_CFG_ID            0x01u /* 4 bytes: bit 0 ports, bit 1 DMA */
#define VMM_FW_CFG_UUID          0x02u /* 16 bytes */
#define VMM_FW_CFG_RAM_SIZE      0x03u /* 8 bytes (pc) */
#define VMM_FW_CFG_NOGRAPHIC     0x04u /* 2 bytes: 1 without a display (pc) */
#define VMM_FW_CFG_NB_CPUS       0x05u /* 2 bytes (pc) */
#define VMM_FW_CFG_KERNEL_ADDR   0x07u /* 4 bytes, as all addresses, sizes and the entry */
#define VMM_FW_CFG_KERNEL_SIZE   0x08u
#define VMM_FW_CFG_INITRD_ADDR   0x0au
#define VMM_FW_CFG_INITRD_SIZE   0x0bu
#define VMM_FW_CFG_BOOT_DEVICE   0x0cu /* 2 bytes */
#define VMM_FW_CFG_NUMA          0x0du /* 8 bytes each: nodes, node of each CPU, sizes */
#define VMM_FW_CFG_BOOT_MENU     0x0eu /* 2 bytes */
#define VMM_FW_CFG_MAX_CPUS      0x0fu /* 2 bytes: highest APIC id + 1 (pc) */
#define VMM_FW_CFG_KERNEL_ENTRY  0x10u
#define VMM_FW_CFG_KERNEL_DATA   0x11u
#define VMM_FW_CFG_INITRD_DATA   0x12u
#define VMM_FW_CFG_CMDLINE_ADDR  0x13u
#define VMM_FW_CFG_CMDLINE_SIZE  0x14u
#define VMM_FW_CFG_CMDLINE_DATA  0x15u
#define VMM_FW_CFG_SETUP_ADDR    0x16u
#define VMM_FW_CFG_SETUP_SIZE    0x17u
#define VMM_FW_CFG_SETUP_DATA    0x18u
#define VMM_FW_CFG_FILE_DIR      0x19u   /* the device's own */
#define VMM_FW_CFG_IRQ0_OVERRIDE 0x8002u /* 4 bytes: 1: timer on pin 2 (pc) */
#define VMM_FW_CFG_HPET          0x8004u /* the HPETs, packed (pc) */
/* Adds or replaces an item with a fixed key: 0-0x1f or 0x8000-0x801f without the directory. `data`
 * is copied; the guest cannot write it. VMM_E_RANGE, VMM_E_NOMEM. ANY. */
int vmm_fw_cfg_add(struct vmm_fw_cfg *fw, uint16_t key, const void *data, uint32_t len);
/* Adds or replaces a named file (at most 55 characters). `data` is copied. VMM_E_RANGE,
 * VMM_E_LIMIT, VMM_E_NOMEM. ANY. */
int vmm_fw_cfg_add_file(struct vmm_fw_cfg *fw, const char *name, const void *data, uint32_t len);

/* PCI host bridge (i440FX's identity) with configuration mechanism 1 at 0xcf8/0xcfc and an
 * otherwise empty bus 0. Other models add functions to it. It has the reset register 0xcf9, which
 * lies inside its ports: create it before the ACPI block. */
struct vmm_pci;
int vmm_pci_create(struct vm *vm, struct vmm_pci **out);
/* Configuration space of a function: offset 0-255, size 1, 2 or 4, naturally aligned. A missing
 * callback reads as all ones or drops the write. */
struct vmm_pci_ops {
    uint32_t size;
    uint32_t reserved;
    uint32_t (*config_read)(void *opaque, uint32_t offset, uint32_t size);
    void (*config_write)(void *opaque, uint32_t offset, uint32_t size, uint32_t value);
};
/* Adds function `devfn` = (device << 3) | function of bus 0. `ops` is copied; its callbacks run on
 * vCPU threads until the VM is gone. VMM_E_EXIST, VMM_E_INVAL. ANY. */
int vmm_pci_add(struct vmm_pci *pci, uint8_t devfn, const struct vmm_pci_ops *ops, void *opaque);

#ifdef __cplusplus
}
#endif
#endif
