/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/io.h: device callbacks for memory-mapped and port I/O. */
#ifndef VMM_IO_H
#define VMM_IO_H

#include <vmm/vcpu.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mmio;
struct pio;

/* Results of read and write callbacks. Anything else counts as NOBODY. */
#define VMM_IO_OK     0
#define VMM_IO_NOBODY 1 /* as if no device were there: reads give all ones, writes are dropped */
#define VMM_IO_DEFER  2 /* the vCPU waits inside vcpu_run until mmio_complete */
#define VMM_IO_EXIT   3 /* vcpu_run returns with VMM_EXIT_MMIO or _PIO */

/* Flags of struct vmm_io_ops. */
#define VMM_IO_POSTED                                                                              \
    1u /* write callbacks may come late: in order, and before any other callback or exit of the    \
        * same vCPU; their result is ignored. Saves exits where the host's kernel can collect      \
        * writes; elsewhere they come at once. */

struct vmm_io_ops {
    uint32_t size;
    uint8_t min_access; /* smallest access in bytes that is delivered, default 1 */
    uint8_t max_access; /* largest, default 8 (ports: 4) */
    uint16_t flags;     /* VMM_IO_* flags */
    const char *name;   /* borrowed until release */
    /* `offset` is relative to the registration; `size` is 1, 2, 4 or 8. Default of *value: all
     * ones. A missing callback acts as NOBODY. */
    int (*read)(void *opaque, uint64_t offset, uint32_t size, uint64_t *value);
    int (*write)(void *opaque, uint64_t offset, uint32_t size, uint64_t value);
    /* Called exactly once, after the last callback has returned. */
    void (*release)(void *opaque);
};

/*
 * Size rules. An access larger than max_access, or one that is not naturally aligned, is delivered
 * as a sequence of smaller aligned ones in ascending address order; bytes outside the
 * registration go to whoever is there; where no registration is, vcpu_run exits with
 * VMM_EXIT_MMIO or _PIO. One smaller than min_access is NOBODY. Callbacks of one
 * registration may run on several vCPU threads at once: devices have their own lock.
 */

/*
 * Registers callbacks for [gpa, gpa+len). Must not overlap another MMIO registration
 * (VMM_E_EXIST); memory regions win over MMIO where both exist, except for writes to a read-only
 * region. `ops` is copied, its name is not. *out may be NULL: then it lives until vm_destroy. May
 * be called while vCPUs run; *out is set before the first callback runs. VMM_E_INVAL (an empty
 * range, bad ops), VMM_E_RANGE, VMM_E_EXIST, VMM_E_NOMEM. ANY.
 */
int mmio_register(struct vm *vm, uint64_t gpa, uint64_t len, const struct vmm_io_ops *ops,
                  void *opaque, struct mmio **out);

/*
 * Removes the registration and calls release exactly once. When it returns, no callback of this
 * registration runs on another thread, and none will. From inside one of its own callbacks it
 * does not wait: release then runs when that callback has returned. NULL is allowed. ANY.
 */
void mmio_unregister(struct mmio *mmio);

/* Moves the registration to another address (a PCI BAR). VMM_E_EXIST, VMM_E_RANGE. ANY. */
int mmio_move(struct mmio *mmio, uint64_t gpa);

/* Completes the access, to memory or a port, for which a callback returned VMM_IO_DEFER on that
 * vCPU; `value` is what a read returns. VMM_E_STATE if none is waiting. Also before the callback
 * has returned. ANY. */
int mmio_complete(struct vcpu *vcpu, uint64_t value);

/* The same for ports port .. port+len-1. */
int pio_register(struct vm *vm, uint16_t port, uint32_t len, const struct vmm_io_ops *ops,
                 void *opaque, struct pio **out);
void pio_unregister(struct pio *pio);

/* ---- doorbells ---- */

struct doorbell;

#define VMM_DOORBELL_PORT  1u /* `addr` is a port */
#define VMM_DOORBELL_MATCH 2u /* only writes of the value `match` */

/* Guest writes that do no more than signal an eventfd. */
struct vmm_doorbell {
    uint32_t size;
    uint32_t flags; /* VMM_DOORBELL_* */
    uint64_t addr;
    uint64_t match;
    uint32_t len; /* 1, 2, 4 or 8 (ports: to 4): only writes of that length; 0: of any, no match */
    int32_t fd;   /* an eventfd; duplicated */
};

/*
 * From now on a guest write to exactly `addr` (and of that length and value) adds 1 to the eventfd
 * instead of reaching callbacks: without an exit where the host's kernel can do it, else on the
 * vCPU's thread. A doorbell wins over registrations at the same address, and other accesses go on
 * to them; several doorbells with different lengths or values may share an address. *out may be
 * NULL. VMM_E_INVAL, VMM_E_EXIST if another one takes such writes already (an equal one, for
 * example, or one for any value), VMM_E_LIMIT, VMM_E_NOMEM. ANY.
 */
int mmio_doorbell(struct vm *vm, const struct vmm_doorbell *config, struct doorbell **out);

/* When it returns, no write signals any more. NULL is allowed. What is left goes with vm_destroy.
 * ANY. */
void mmio_doorbell_remove(struct doorbell *doorbell);

#ifdef __cplusplus
}
#endif
#endif
