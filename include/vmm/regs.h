/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/regs.h: architectural register state of a vCPU. */
#ifndef VMM_REGS_H
#define VMM_REGS_H

#include <vmm/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Register groups: bits of vcpu_regs.groups. */
#define VMM_REGS_GPR     1u  /* gpr, rip, rflags */
#define VMM_REGS_SEG     2u  /* seg */
#define VMM_REGS_DT      4u  /* gdt, idt */
#define VMM_REGS_CONTROL 8u  /* cr0, cr2, cr3, cr4, cr8, xcr0, efer, apic_base */
#define VMM_REGS_DEBUG   16u /* dr */
#define VMM_REGS_MSR     32u /* the named MSRs; others through vcpu_get_msr */
#define VMM_REGS_EVENTS  64u /* activity, shadow and pending events */
#define VMM_REGS_ALL     127u

/* Indexes of gpr, in the order of the instruction encoding. */
enum {
    VMM_RAX,
    VMM_RCX,
    VMM_RDX,
    VMM_RBX,
    VMM_RSP,
    VMM_RBP,
    VMM_RSI,
    VMM_RDI,
    VMM_R8,
    VMM_R9,
    VMM_R10,
    VMM_R11,
    VMM_R12,
    VMM_R13,
    VMM_R14,
    VMM_R15
};

/* Indexes of seg; the first six in the order of the instruction encoding. */
enum { VMM_ES, VMM_CS, VMM_SS, VMM_DS, VMM_FS, VMM_GS, VMM_LDTR, VMM_TR, VMM_NSEG };

/* Access rights in the layout of SDM Vol. 3C, table "Format of Access Rights". */
#define VMM_AR_TYPE      0x000fu
#define VMM_AR_S         0x0010u
#define VMM_AR_DPL       0x0060u
#define VMM_AR_DPL_SHIFT 5
#define VMM_AR_P         0x0080u
#define VMM_AR_AVL       0x1000u
#define VMM_AR_L         0x2000u
#define VMM_AR_DB        0x4000u
#define VMM_AR_G         0x8000u
#define VMM_AR_UNUSABLE  0x10000u

struct vmm_segment {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
    uint32_t ar;    /* VMM_AR_* */
    uint16_t selector;
    uint16_t reserved[3];
};

struct vmm_dtable {
    uint64_t base;
    uint16_t limit;
    uint16_t reserved[3];
};

/* Activity states (SDM Vol. 3C, guest non-register state). */
#define VMM_ACTIVE    0u
#define VMM_HALTED    1u
#define VMM_WAIT_SIPI 2u
#define VMM_SHUTDOWN  3u

#define VMM_SHADOW_STI    1u
#define VMM_SHADOW_MOV_SS 2u

struct vcpu_regs {
    uint32_t size;
    uint32_t groups; /* VMM_REGS_*: which groups are read or written */

    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;

    struct vmm_segment seg[VMM_NSEG];
    struct vmm_dtable gdt;
    struct vmm_dtable idt;

    uint64_t cr0;
    uint64_t cr2;
    uint64_t cr3;
    uint64_t cr4;
    uint64_t cr8;
    uint64_t xcr0;
    uint64_t efer;
    uint64_t apic_base;

    uint64_t dr[8]; /* 4 and 5 unused */

    uint64_t star;
    uint64_t lstar;
    uint64_t cstar;
    uint64_t sfmask;
    uint64_t kernel_gs_base;
    uint64_t sysenter_cs;
    uint64_t sysenter_esp;
    uint64_t sysenter_eip;
    uint64_t pat;
    uint64_t tsc;
    uint64_t tsc_aux;

    uint32_t activity;   /* VMM_ACTIVE ... */
    uint32_t shadow;     /* VMM_SHADOW_*: interrupts blocked for one instruction */
    uint8_t nmi_blocked; /* in an NMI handler, until IRET */
    uint8_t nmi_pending;
    uint8_t inject_valid; /* an event will be delivered before the next instruction */
    uint8_t inject_type;  /* VMM_EVENT_* */
    uint8_t inject_vector;
    uint8_t inject_has_error;
    uint8_t reserved[2];
    uint32_t inject_error;
    uint32_t reserved2;
};

#ifdef __cplusplus
}
#endif
#endif
