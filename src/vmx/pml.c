/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/pml.c: the list of logged pages. */
#include <stdlib.h>
#include <string.h>

#include "vmx/pml.h"

static bool make_room(struct vmx_pml *p, unsigned count)
{
    size_t room = p->room ? p->room : VMX_PML_ENTRIES;
    uint64_t *gpa;

    while (room - p->n < count)
        room *= 2;
    if (room == p->room)
        return true;
    if (room > VMX_PML_MAX)
        return false;
    gpa = realloc(p->gpa, room * sizeof(*gpa));
    if (!gpa)
        return false;
    p->gpa = gpa;
    p->room = room;
    return true;
}

void vmx_pml_add(struct vmx_pml *p, const uint64_t *log, unsigned count)
{
    if (!count || p->lost)
        return;
    if (!make_room(p, count)) {
        p->lost = true;
        return;
    }
    memcpy(p->gpa + p->n, log + VMX_PML_ENTRIES - count, count * sizeof(*log));
    p->n += count;
}

bool vmx_pml_take(struct vmx_pml *p, void (*fn)(void *ctx, uint64_t gpa), void *ctx)
{
    bool complete = !p->lost;

    for (size_t i = 0; complete && i < p->n; i++)
        fn(ctx, p->gpa[i]);
    p->n = 0;
    p->lost = false;
    return complete;
}

void vmx_pml_free(struct vmx_pml *p)
{
    free(p->gpa);
    *p = (struct vmx_pml){0};
}
