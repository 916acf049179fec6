/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/memory.h: guest-physical memory regions and access to them. */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include <vmm/vm.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMM_MEM_R   1u
#define VMM_MEM_W   2u
#define VMM_MEM_X   4u
#define VMM_MEM_RWX 7u
/* ROM: a guest write is an MMIO access (a device registered there sees it). */
#define VMM_MEM_RX 5u

/*
 * Regions: page-aligned in address and length, not overlapping each other (VMM_E_EXIST). R is
 * required. A write to a region without W is handled as MMIO at that address; an instruction
 * fetch from one without X ends in VMM_EXIT_MEM_FAULT. All functions here may be called while
 * vCPUs run, and from callbacks; when they return, no vCPU uses the old mapping any more.
 *
 * Host writes: the guest sees what the host stores through its own pointer at the latest at the
 * next vcpu_run; code that was already executed and is overwritten by the host while a vCPU is
 * inside vcpu_run needs vm_mem_write or vm_mem_changed. So does code that is executed at one
 * address and overwritten through another, when the same host memory is mapped at both.
 */

/*
 * Maps `len` bytes of caller memory at `gpa`. `host` is page-aligned, borrowed until
 * vm_mem_unmap or vm_destroy. Returns 0, VMM_E_INVAL (alignment, flags), VMM_E_RANGE,
 * VMM_E_EXIST (overlap with another region), VMM_E_LIMIT, VMM_E_NOMEM. ANY.
 */
int vm_mem_map(struct vm *vm, uint64_t gpa, void *host, uint64_t len, uint32_t prot);

/*
 * Maps `len` bytes of the file `fd` from `offset` on (page-aligned), shared: guest writes reach the
 * file, and other processes that map it. The descriptor is not kept (VMM_VM_DIRECT: a duplicate
 * is). The file must be at least offset + len long (VMM_E_RANGE) and the caller must not shrink it:
 * an access behind the end of a file raises SIGBUS in the host program. A descriptor that is open
 * for reading only is enough without W; vm_mem_write and adding W then give VMM_E_PERM. ANY.
 */
int vm_mem_map_fd(struct vm *vm, uint64_t gpa, int fd, uint64_t offset, uint64_t len,
                  uint32_t prot);

/* Maps `len` bytes of zeroed library memory, touched lazily. *host (may be NULL) gets the pointer,
 * valid until vm_mem_unmap or vm_destroy. Results as vm_mem_map. ANY. */
int vm_mem_alloc(struct vm *vm, uint64_t gpa, uint64_t len, uint32_t prot, void **host);

/* Unmaps the region that begins at `gpa`. VMM_E_NOENT if none does. ANY. */
int vm_mem_unmap(struct vm *vm, uint64_t gpa);

/* Changes the protection of the whole region that begins at `gpa`. VMM_E_NOENT, VMM_E_INVAL,
 * VMM_E_PERM (see vm_mem_map_fd). ANY. */
int vm_mem_protect(struct vm *vm, uint64_t gpa, uint32_t prot);

/* Host pointer of [gpa, gpa+len) if one region holds all of it, else NULL. Valid as long as that
 * region is mapped. ANY. */
void *vm_mem_ptr(struct vm *vm, uint64_t gpa, uint64_t len);

/* Copies from guest-physical memory; may span adjacent regions. VMM_E_RANGE (and nothing copied) if
 * part of it is not memory. ANY. */
int vm_mem_read(struct vm *vm, uint64_t gpa, void *buf, uint64_t len);

/* Copies into guest-physical memory, whatever its protection; marks it dirty and drops cached code.
 * VMM_E_RANGE (and nothing written) if part of it is not memory. ANY. */
int vm_mem_write(struct vm *vm, uint64_t gpa, const void *buf, uint64_t len);

/* Tells that the host changed memory behind the library's back: drops cached code, marks dirty.
 * VMM_E_RANGE if part of it is not memory. ANY. */
int vm_mem_changed(struct vm *vm, uint64_t gpa, uint64_t len);

/*
 * Walks the regions in address order: fills *gpa, *len and *prot (each may be NULL) of region
 * number `index`; VMM_E_NOENT past the last one. ANY.
 */
int vm_mem_region(struct vm *vm, uint32_t index, uint64_t *gpa, uint64_t *len, uint32_t *prot);

/*
 * Dirty tracking of all regions, on every backend. Dirty is what was written since vm_dirty_start,
 * or since the vm_dirty_get that cleared it: by the guest (accessed and dirty bits of its page
 * tables too), through vm_mem_write and vcpu_write_virt, by the library on the guest's behalf, and
 * what vm_mem_changed tells. The host's stores through its own pointers are not seen. Regions that
 * are mapped meanwhile are tracked from then on and begin clean. Without VMM_CAP_DIRTY_EXACT a page
 * may be dirty too that the guest has only read or executed, or that is one of its page tables: a
 * CPU with nested paging walks those as if it wrote to them.
 */

/* All pages are clean from now on. VMM_E_STATE if tracking is on, VMM_E_NOMEM, VMM_E_BACKEND. ANY.
 */
int vm_dirty_start(struct vm *vm);

/* VMM_E_STATE if tracking is off. ANY. */
int vm_dirty_stop(struct vm *vm);

#define VMM_DIRTY_KEEP 1u /* the pages stay dirty */

/*
 * Bit n % 64 of bitmap[n / 64] becomes 1 if page n of [gpa, gpa+len) is dirty, else 0 (holes are
 * clean; bits behind the last page 0), and the pages are clean then. Exact: a write is in this
 * result or in the next one. *count, if not NULL, gets the number of dirty pages. `gpa` and `len`
 * are multiples of 4096. VMM_E_STATE if tracking is off, VMM_E_INVAL, VMM_E_RANGE (the end is
 * beyond the address space), VMM_E_BACKEND. ANY.
 */
int vm_dirty_get(struct vm *vm, uint64_t gpa, uint64_t len, uint32_t flags, uint64_t *bitmap,
                 uint64_t *count);

#ifdef __cplusplus
}
#endif
#endif
