/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/fields.c: names of fields, exits and errors. */
#include <stddef.h>

#include "vmx/fields.h"

static const struct vmx_field_info fields[] = {
#define ROW(name, encoding) {encoding, #name},
    VMX_FIELDS(ROW)
#undef ROW
};
#define NFIELDS (sizeof(fields) / sizeof(fields[0]))

const struct vmx_field_info *vmx_field_at(unsigned i)
{
    return i < NFIELDS ? &fields[i] : NULL;
}

/* The table is sorted by encoding. */
const struct vmx_field_info *vmx_field_info(uint32_t encoding)
{
    size_t low = 0, high = NFIELDS;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (fields[middle].encoding == encoding)
            return &fields[middle];
        if (fields[middle].encoding < encoding)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* Layout of encodings: SDM Vol. 3C table 24-21. */
unsigned vmx_field_width(uint32_t encoding)
{
    static const uint8_t widths[4] = {16, 64, 32, 64};

    return widths[encoding >> 13 & 3];
}

bool vmx_field_read_only(uint32_t encoding)
{
    return (encoding >> 10 & 3) == 1;
}

const char *vmx_exit_name(uint32_t reason)
{
    switch (reason & 0xffff) {
#define NAME(name, number)                                                                         \
    case number:                                                                                   \
        return #name;
        VMX_EXITS(NAME)
#undef NAME
    default:
        return "?";
    }
}

const char *vmx_insn_error(uint32_t number)
{
    static const char *const texts[] = {
        [1] = "VMCALL in VMX root operation",
        [2] = "VMCLEAR with an invalid physical address",
        [3] = "VMCLEAR with the VMXON pointer",
        [4] = "VMLAUNCH with a VMCS that is not clear",
        [5] = "VMRESUME with a VMCS that is not launched",
        [6] = "VMRESUME after VMXOFF",
        [7] = "VM entry with invalid control fields",
        [8] = "VM entry with invalid host-state fields",
        [9] = "VMPTRLD with an invalid physical address",
        [10] = "VMPTRLD with the VMXON pointer",
        [11] = "VMPTRLD with an incorrect VMCS revision identifier",
        [12] = "VMREAD or VMWRITE of an unsupported field",
        [13] = "VMWRITE to a read-only field",
        [15] = "VMXON in VMX root operation",
        [16] = "VM entry with an invalid executive-VMCS pointer",
        [17] = "VM entry with an executive VMCS that is not launched",
        [18] = "VM entry with an executive-VMCS pointer that is not the VMXON pointer",
        [19] = "VMCALL with a VMCS that is not clear",
        [20] = "VMCALL with invalid VM-exit control fields",
        [22] = "VMCALL with an incorrect MSEG revision identifier",
        [23] = "VMXOFF under dual-monitor treatment",
        [24] = "VMCALL with invalid SMM-monitor features",
        [25] = "VM entry with invalid execution controls in the executive VMCS",
        [26] = "VM entry with events blocked by MOV SS",
        [28] = "invalid operand to INVEPT or INVVPID",
    };

    return number < sizeof(texts) / sizeof(texts[0]) && texts[number] ? texts[number] : "?";
}

const char *vmx_abort_name(uint32_t indicator)
{
    static const char *const texts[] = {
        [1] = "a guest MSR could not be stored",
        [2] = "the host's page-directory pointers are bad",
        [3] = "the VMCS is corrupted",
        [4] = "a host MSR could not be loaded",
        [5] = "machine check during the exit",
        [6] = "the CPU was in IA-32e mode and the host is not",
    };

    return indicator < sizeof(texts) / sizeof(texts[0]) && texts[indicator] ? texts[indicator]
                                                                            : "?";
}
