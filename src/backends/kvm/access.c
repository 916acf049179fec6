/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/access.c: port, MMIO and MSR accesses that KVM leaves to the library. */
#include <string.h>

#include "backends/kvm/kvm.h"

/*
 * KVM's instruction waits in the kernel until all of what it asked for is in kvm_run and KVM_RUN is
 * called again. Each access (each item of a string of port accesses) has a serial number of its
 * own, which stays while it is made again after CORE_IO_ABORT.
 */

static bool is_access(uint32_t reason)
{
    return reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO || reason == KVM_EXIT_X86_RDMSR ||
           reason == KVM_EXIT_X86_WRMSR;
}

/* Behind the struct are the data of port accesses. */
static bool io_ok(const struct kvm_run *run)
{
    uint64_t size = run->io.size, len = size * run->io.count;
    uint64_t offset = run->io.data_offset, end = kvm_host()->run_size;

    return (size == 1 || size == 2 || size == 4) && len && offset >= sizeof(*run) &&
           offset <= end && len <= end - offset;
}

bool kvm_access_begin(struct kvm_vcpu *kv)
{
    const struct kvm_run *run = kv->run;

    if (!is_access(run->exit_reason))
        return true;
    if (run->exit_reason == KVM_EXIT_IO && !io_ok(run))
        return false;
    if (run->exit_reason == KVM_EXIT_MMIO && (!run->mmio.len || run->mmio.len > 8))
        return false;
    if (run->exit_reason == KVM_EXIT_IO)
        kv->ins_size = run->io.direction == KVM_EXIT_IO_IN && run->io.count > 1 ? run->io.size : 0;
    kv->pending = KVM_PEND_ACCESS;
    kv->pending_item = 0;
    kv->serial++;
    return true;
}

static uint8_t *io_data(struct kvm_vcpu *kv)
{
    return (uint8_t *)kv->run + kv->run->io.data_offset;
}

void kvm_access_zero(struct kvm_vcpu *kv)
{
    struct kvm_run *run = kv->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        memset(io_data(kv), 0, (size_t)run->io.size * run->io.count);
        break;
    case KVM_EXIT_MMIO:
        memset(run->mmio.data, 0, sizeof(run->mmio.data));
        break;
    default:
        run->msr.error = 0;
        run->msr.data = 0;
        break;
    }
    kv->pending = KVM_PEND_COMPLETE;
}

/* Items one after the other; 0 or CORE_IO_ABORT. */
static int port_items(struct kvm_vcpu *kv)
{
    struct kvm_run *run = kv->run;
    bool write = run->io.direction == KVM_EXIT_IO_OUT;
    uint32_t size = run->io.size;

    while (kv->pending_item < run->io.count) {
        uint8_t *data = io_data(kv) + (size_t)kv->pending_item * size;
        uint64_t value = 0;

        if (write)
            memcpy(&value, data, size);
        int r =
            core_pio_access(kv->vcpu->vm, kv->vcpu, kv->serial, run->io.port, size, write, &value);
        if (r != CORE_IO_OK)
            return r;
        if (!write)
            memcpy(data, &value, size);
        kv->pending_item++;
        kv->serial++;
    }
    return CORE_IO_OK;
}

/* Memory that could not become a slot (mem.c). */
static bool in_memory(struct kvm_vcpu *kv, uint64_t gpa, uint32_t size, bool write, void *data)
{
    struct core_page page;

    if (!core_mem_page(kv->vcpu->vm, gpa, &page) || !page.host ||
        (write && !(page.prot & VMM_MEM_W)))
        return false;
    uint8_t *host = page.host + (gpa & ~MMU_PAGE_MASK);
    if (!write) {
        mmu_copy(data, host, size);
        return true;
    }
    mmu_copy(host, data, size);
    if (page.dirty)
        atomic_store_explicit(page.dirty, 1, memory_order_relaxed);
    if (atomic_load_explicit(page.code, memory_order_acquire))
        kv->soft.env.mmu.code_written(&kv->soft, gpa, size);
    return true;
}

/* Of a REP INS KVM reads several items from the port, and then writes them in one go. *size: what
 * is one access at most. 0 or VMM_E_*. */
static int largest_piece(struct kvm_vcpu *kv, uint32_t *size)
{
    bool ins;
    int r;

    *size = 8;
    if (!kv->ins_size || kv->run->mmio.len <= kv->ins_size)
        return 0;
    r = kvm_at_ins(kv, &ins);
    if (r)
        return r;
    if (!ins)
        kv->ins_size = 0;
    else
        *size = kv->ins_size;
    return 0;
}

/* In naturally aligned pieces, as the software CPU makes them. */
static int mmio_pieces(struct kvm_vcpu *kv)
{
    struct kvm_run *run = kv->run;
    uint32_t len = run->mmio.len, most;
    bool memory = kvm_vm_of(kv->vcpu->vm)->slots_lack;
    int err = largest_piece(kv, &most);

    if (err)
        return err;
    for (uint32_t done = 0, size; done < len; done += size) {
        uint64_t gpa = run->mmio.phys_addr + done, value = 0;

        size = most;
        while (size > len - done || (gpa & (size - 1)))
            size /= 2;
        if (memory && in_memory(kv, gpa, size, run->mmio.is_write, run->mmio.data + done))
            continue;
        if (run->mmio.is_write)
            memcpy(&value, run->mmio.data + done, size);
        int r = core_mmio_access(kv->vcpu->vm, kv->vcpu, kv->serial, gpa, size, run->mmio.is_write,
                                 &value);
        if (r != CORE_IO_OK)
            return r;
        if (!run->mmio.is_write)
            memcpy(run->mmio.data + done, &value, size);
    }
    return CORE_IO_OK;
}

int kvm_access_go_on(struct kvm_vcpu *kv)
{
    struct vcpu *vcpu = kv->vcpu;
    int r;

    kv->in_callback = true;
    if (kv->run->exit_reason == KVM_EXIT_IO)
        r = port_items(kv);
    else if (kv->run->exit_reason == KVM_EXIT_MMIO)
        r = mmio_pieces(kv);
    else
        r = kvm_msr_exit(kv);
    kv->in_callback = false;
    if (r == CORE_IO_OK) {
        kv->pending = KVM_PEND_COMPLETE;
        return KVM_ACCESS_DONE;
    }
    if (r < 0)
        return r;
    if (vcpu->exit.reason == VMM_EXIT_NONE)
        return BACKEND_AGAIN;
    r = kvm_find_insn(kv);
    if (r)
        return r;
    vcpu->exit.insn_len = kv->insn_len;
    memcpy(vcpu->exit.insn, kv->insn, kv->insn_len);
    return BACKEND_EXIT;
}
