/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/vcpu.c: life of a vCPU: its two CPUs, and reset. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backends/kvm/kvm.h"

#define XSAVE_ALIGN 64u

/* KVM's vCPU: a new one, or what an earlier vCPU of this number has left. */
static int open_fd(struct kvm_vcpu *kv)
{
    struct vm *vm = kv->vcpu->vm;
    struct kvm_vm *kvm = kvm_vm_of(vm);
    uint32_t id = kv->vcpu->id;
    int fd = kvm->vcpu_fd[id];

    if (fd < 0) {
        fd = kvm_ioctl(kvm->fd, KVM_CREATE_VCPU, id);
        if (fd < 0)
            return kvm_fail(vm, "vcpu_create", fd, "KVM_CREATE_VCPU");
        kvm->vcpu_fd[id] = fd;
    }
    kv->fd = fd;
    return 0;
}

static int map_run(struct kvm_vcpu *kv)
{
    void *p = mmap(NULL, kvm_host()->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, kv->fd, 0);

    if (p == MAP_FAILED)
        return VMM_E_NOMEM;
    kv->run = p;
    return 0;
}

static int alloc_xsave(struct kvm_vcpu *kv)
{
    size_t size = kvm_host()->xsave_size;

    if (size < sizeof(struct kvm_xsave))
        size = sizeof(struct kvm_xsave);
    size = (size + XSAVE_ALIGN - 1) & ~(size_t)(XSAVE_ALIGN - 1);
    kv->xsave = aligned_alloc(XSAVE_ALIGN, size);
    if (!kv->xsave)
        return VMM_E_NOMEM;
    memset(kv->xsave, 0, size);
    return 0;
}

static void free_parts(struct kvm_vcpu *kv)
{
    kvm_kick_fini(kv);
    if (kv->run)
        munmap(kv->run, kvm_host()->run_size);
    free(kv->xsave);
    free(kv);
}

int kvm_vcpu_init(struct vcpu *vcpu)
{
    struct kvm_vcpu *kv = calloc(1, sizeof(*kv));

    if (!kv)
        return VMM_E_NOMEM;
    kv->vcpu = vcpu;
    kv->host = kvm_vm_of(vcpu->vm)->host;
    kv->fd = -1;
    kv->timer_armed = UINT64_MAX;
    kv->serial = KVM_FIRST_SERIAL;
    int err = open_fd(kv);
    if (!err)
        err = map_run(kv);
    if (!err)
        err = alloc_xsave(kv);
    if (!err)
        err = interp_vcpu_open(&kv->soft, vcpu);
    kv->soft.env.msr = kvm_msr_env;
    if (!err)
        err = kvm_msr_policy(vcpu);
    if (err) {
        if (kv->soft.cpu)
            interp_vcpu_close(&kv->soft);
        vcpu->backend_data = NULL;
        free_parts(kv);
        return err;
    }
    kvm_irq_vcpu_init(kv);
    kv->run->kvm_dirty_regs = 0;
    kv->run->request_interrupt_window = 0;
    kv->valid = kv->newer = KVM_G_ALL;
    return 0;
}

void kvm_vcpu_fini(struct vcpu *vcpu)
{
    struct kvm_vcpu *kv = vcpu->backend_data;

    if (!kv)
        return;
    /* The next user of KVM's vCPU finds nothing of this one's. */
    kvm_debug_fini(kv);
    kvm_drop(kv);
    kvm_vm_of(vcpu->vm)->hw_exits += atomic_load(&kv->entries);
    kvm_vm_of(vcpu->vm)->repairs += atomic_load(&kv->repairs);
    vcpu->backend_data = NULL;
    interp_vcpu_close(&kv->soft);
    free_parts(kv);
}

void kvm_vcpu_reset(struct vcpu *vcpu, bool init)
{
    struct kvm_vcpu *kv = vcpu->backend_data;

    kvm_drop(kv);
    /* INIT keeps some registers; after a failure, which is recorded, they are what they were. */
    if (init)
        kvm_pull(kv, KVM_G_ALL);
    interp_vcpu_reset(vcpu, init);
    kv->valid = kv->newer = KVM_G_ALL;
    kv->flush_count = kv->soft.cpu->mmu.flush_gen;
    kv->fenced = false;
    /* A failure is recorded; the next run tries again. */
    if (!init && kvm_lapic_in_kernel(vcpu->vm))
        kv->lapic_reset_due = kvm_lapic_reset(kv) != 0;
}
