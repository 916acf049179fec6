/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/area.c: lists of MSRs that VM entries load and VM exits store and load. */
#include "vmx/area.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

#define FS_BASE         0xc0000100u
#define GS_BASE         0xc0000101u
#define BIOS_UPDT_TRIG  0x79u
#define SMM_MONITOR_CTL 0x9bu
#define SMBASE          0x9eu
#define X2APIC_FIRST    0x800u
#define X2APIC_LAST     0x8ffu

static const struct {
    uint32_t address, count;
} fields[VMX_AREA_LISTS] = {
    [VMX_AREA_ENTRY_LOAD] = {VMX_ENTRY_MSR_LOAD_ADDR, VMX_ENTRY_MSR_LOAD_COUNT},
    [VMX_AREA_EXIT_STORE] = {VMX_EXIT_MSR_STORE_ADDR, VMX_EXIT_MSR_STORE_COUNT},
    [VMX_AREA_EXIT_LOAD] = {VMX_EXIT_MSR_LOAD_ADDR, VMX_EXIT_MSR_LOAD_COUNT},
};

_Static_assert(sizeof(struct vmx_area_msr) == 16, "as the CPU reads it");
_Static_assert(VMX_AREA_LISTS *VMX_AREA_ROOM * sizeof(struct vmx_area_msr) <= 4096,
               "the lists are in one page");

void vmx_area_init(struct vmx_area *a, const struct vmx_caps *caps, void *page, uint64_t phys)
{
    uint32_t limit = vmx_area_limit(caps);

    *a = (struct vmx_area){
        .msrs = page, .phys = phys, .max = limit < VMX_AREA_ROOM ? limit : VMX_AREA_ROOM};
}

void vmx_area_attach(struct vmx_area *a)
{
    for (unsigned i = 0; i < VMX_AREA_LISTS; i++) {
        uint64_t offset = i * VMX_AREA_ROOM * sizeof(*a->msrs);

        if (a->msrs)
            vmx_insn_put(fields[i].address, a->phys + offset);
        a->known[i] = a->msrs ? a->count[i] : 0;
        vmx_insn_put(fields[i].count, a->known[i]);
    }
}

void vmx_area_push(struct vmx_area *a)
{
    for (unsigned i = 0; i < VMX_AREA_LISTS; i++)
        if (a->known[i] != a->count[i]) {
            a->known[i] = a->count[i];
            vmx_insn_put(fields[i].count, a->count[i]);
        }
}

const char *vmx_area_refuses(enum vmx_area_list list, uint32_t index)
{
    if (index >= X2APIC_FIRST && index <= X2APIC_LAST)
        return "MSRs of the x2APIC are not in such lists";
    if (list == VMX_AREA_EXIT_STORE)
        return index == SMBASE ? "it can be read in SMM only" : NULL;
    if (index == FS_BASE || index == GS_BASE)
        return "FS.base and GS.base are fields of the VMCS";
    if (index == SMM_MONITOR_CTL || index == SMBASE)
        return "it can be written in SMM only";
    if (index == BIOS_UPDT_TRIG)
        return "microcode is not loaded by such lists";
    return NULL;
}

static struct vmx_area_msr *begin_of(const struct vmx_area *a, enum vmx_area_list list)
{
    return a->msrs + (unsigned)list * VMX_AREA_ROOM;
}

static struct vmx_area_msr *find(const struct vmx_area *a, enum vmx_area_list list, uint32_t index)
{
    struct vmx_area_msr *m = begin_of(a, list);

    for (uint32_t i = 0; i < a->count[list]; i++)
        if (m[i].index == index)
            return &m[i];
    return NULL;
}

bool vmx_area_put(struct vmx_area *a, enum vmx_area_list list, uint32_t index, uint64_t value)
{
    struct vmx_area_msr *m = find(a, list, index);

    if (!m) {
        if (a->count[list] >= a->max || vmx_area_refuses(list, index))
            return false;
        m = begin_of(a, list) + a->count[list]++;
    }
    *m = (struct vmx_area_msr){.index = index, .value = value};
    return true;
}

/* The order does not matter: no MSR is in a list twice. */
void vmx_area_remove(struct vmx_area *a, enum vmx_area_list list, uint32_t index)
{
    struct vmx_area_msr *m = find(a, list, index);

    if (m)
        *m = begin_of(a, list)[--a->count[list]];
}

const struct vmx_area_msr *vmx_area_find(const struct vmx_area *a, enum vmx_area_list list,
                                         uint32_t index)
{
    return find(a, list, index);
}
