/* SPDX-License-Identifier: BSD-2-Clause */
/* core/counts.c: lists of counters with names. */
#include <stdio.h>
#include <string.h>

#include "core/internal.h"

void core_counts_add(struct core_counts *list, uint32_t id, const char *name, uint64_t count)
{
    struct vmm_count own = {.size = sizeof(own), .id = id, .count = count};
    char *at = (char *)list->out;
    uint32_t i;

    if (!count)
        return;
    list->total++;
    snprintf(own.name, sizeof(own.name), "%s", name);
    /* From the end: smaller ones move back, the last one drops out when there is no room. */
    for (i = list->used; i > 0; i--) {
        struct vmm_count before;

        memset(&before, 0, sizeof(before));
        memcpy(&before, at + (size_t)(i - 1) * list->size,
               list->size < sizeof(before) ? list->size : sizeof(before));
        if (before.count >= count)
            break;
        if (i < list->capacity)
            memcpy(at + (size_t)i * list->size, at + (size_t)(i - 1) * list->size, list->size);
    }
    if (i < list->capacity) {
        memcpy(at + (size_t)i * list->size, &list->size, sizeof(list->size));
        core_copy_out(at + (size_t)i * list->size, &own, sizeof(own));
    }
    if (list->used < list->capacity)
        list->used++;
}

static int begin(struct vm *vm, struct core_counts *list, struct vmm_count *counts, uint32_t n,
                 const char *function)
{
    if (!vm)
        return VMM_E_INVAL;
    *list = (struct core_counts){.out = counts, .capacity = n};
    if (!n)
        return 0;
    if (!counts || counts->size < offsetof(struct vmm_count, name) ||
        counts->size > CORE_STRUCT_MAX)
        return vm_fail(vm, VMM_E_INVAL, function, "counts[0].size is not set");
    list->size = counts->size;
    return 0;
}

int vm_get_exit_counts(struct vm *vm, struct vmm_count *counts, uint32_t n)
{
    struct core_counts list;
    int err = begin(vm, &list, counts, n, __func__);

    if (err)
        return err;
    os_mutex_lock(&vm->lock);
    for (uint32_t reason = 0; reason < CORE_EXIT_REASONS; reason++) {
        uint64_t sum = 0;

        for (uint32_t i = 0; i < vm->max_vcpus; i++) {
            struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

            if (vcpu)
                sum += atomic_load_explicit(&vcpu->nexits_by[reason], memory_order_relaxed);
        }
        core_counts_add(&list, reason, vmm_exit_name(reason), sum);
    }
    os_mutex_unlock(&vm->lock);
    return (int)list.total;
}

int vm_get_fallback_counts(struct vm *vm, struct vmm_count *counts, uint32_t n)
{
    struct core_counts list;
    int err = begin(vm, &list, counts, n, __func__);

    if (err)
        return err;
    os_mutex_lock(&vm->lock);
    if (vm->ops->fallbacks)
        vm->ops->fallbacks(vm, &list);
    os_mutex_unlock(&vm->lock);
    return (int)list.total;
}
