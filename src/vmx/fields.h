/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/fields.h: the fields of a VMCS, by their encodings (SDM Vol. 3D appendix B). */
#ifndef VMX_FIELDS_H
#define VMX_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#define VMX_FIELDS(X)                                                                              \
    X(VPID, 0x0000)                                                                                \
    X(POSTED_INTR_VECTOR, 0x0002)                                                                  \
    X(EPTP_INDEX, 0x0004)                                                                          \
    X(HLAT_PREFIX_SIZE, 0x0006)                                                                    \
    X(GUEST_ES_SEL, 0x0800)                                                                        \
    X(GUEST_CS_SEL, 0x0802)                                                                        \
    X(GUEST_SS_SEL, 0x0804)                                                                        \
    X(GUEST_DS_SEL, 0x0806)                                                                        \
    X(GUEST_FS_SEL, 0x0808)                                                                        \
    X(GUEST_GS_SEL, 0x080a)                                                                        \
    X(GUEST_LDTR_SEL, 0x080c)                                                                      \
    X(GUEST_TR_SEL, 0x080e)                                                                        \
    X(GUEST_INTR_STATUS, 0x0810)                                                                   \
    X(PML_INDEX, 0x0812)                                                                           \
    X(GUEST_UINV, 0x0814)                                                                          \
    X(HOST_ES_SEL, 0x0c00)                                                                         \
    X(HOST_CS_SEL, 0x0c02)                                                                         \
    X(HOST_SS_SEL, 0x0c04)                                                                         \
    X(HOST_DS_SEL, 0x0c06)                                                                         \
    X(HOST_FS_SEL, 0x0c08)                                                                         \
    X(HOST_GS_SEL, 0x0c0a)                                                                         \
    X(HOST_TR_SEL, 0x0c0c)                                                                         \
    X(IO_BITMAP_A, 0x2000)                                                                         \
    X(IO_BITMAP_B, 0x2002)                                                                         \
    X(MSR_BITMAP, 0x2004)                                                                          \
    X(EXIT_MSR_STORE_ADDR, 0x2006)                                                                 \
    X(EXIT_MSR_LOAD_ADDR, 0x2008)                                                                  \
    X(ENTRY_MSR_LOAD_ADDR, 0x200a)                                                                 \
    X(EXECUTIVE_VMCS, 0x200c)                                                                      \
    X(PML_ADDR, 0x200e)                                                                            \
    X(TSC_OFFSET, 0x2010)                                                                          \
    X(VIRTUAL_APIC_ADDR, 0x2012)                                                                   \
    X(APIC_ACCESS_ADDR, 0x2014)                                                                    \
    X(POSTED_INTR_DESC, 0x2016)                                                                    \
    X(VMFUNC_CTLS, 0x2018)                                                                         \
    X(EPTP, 0x201a)                                                                                \
    X(EOI_EXIT0, 0x201c)                                                                           \
    X(EOI_EXIT1, 0x201e)                                                                           \
    X(EOI_EXIT2, 0x2020)                                                                           \
    X(EOI_EXIT3, 0x2022)                                                                           \
    X(EPTP_LIST, 0x2024)                                                                           \
    X(VMREAD_BITMAP, 0x2026)                                                                       \
    X(VMWRITE_BITMAP, 0x2028)                                                                      \
    X(VE_INFO_ADDR, 0x202a)                                                                        \
    X(XSS_EXIT_BITMAP, 0x202c)                                                                     \
    X(ENCLS_EXIT_BITMAP, 0x202e)                                                                   \
    X(SPPTP, 0x2030)                                                                               \
    X(TSC_MULTIPLIER, 0x2032)                                                                      \
    X(PROC3_CTLS, 0x2034)                                                                          \
    X(ENCLV_EXIT_BITMAP, 0x2036)                                                                   \
    X(GUEST_PHYS_ADDR, 0x2400)                                                                     \
    X(LINK_POINTER, 0x2800)                                                                        \
    X(GUEST_DEBUGCTL, 0x2802)                                                                      \
    X(GUEST_PAT, 0x2804)                                                                           \
    X(GUEST_EFER, 0x2806)                                                                          \
    X(GUEST_PERF_GLOBAL_CTRL, 0x2808)                                                              \
    X(GUEST_PDPTE0, 0x280a)                                                                        \
    X(GUEST_PDPTE1, 0x280c)                                                                        \
    X(GUEST_PDPTE2, 0x280e)                                                                        \
    X(GUEST_PDPTE3, 0x2810)                                                                        \
    X(GUEST_BNDCFGS, 0x2812)                                                                       \
    X(GUEST_RTIT_CTL, 0x2814)                                                                      \
    X(GUEST_LBR_CTL, 0x2816)                                                                       \
    X(GUEST_PKRS, 0x2818)                                                                          \
    X(HOST_PAT, 0x2c00)                                                                            \
    X(HOST_EFER, 0x2c02)                                                                           \
    X(HOST_PERF_GLOBAL_CTRL, 0x2c04)                                                               \
    X(HOST_PKRS, 0x2c06)                                                                           \
    X(PIN_CTLS, 0x4000)                                                                            \
    X(PROC_CTLS, 0x4002)                                                                           \
    X(EXCEPTION_BITMAP, 0x4004)                                                                    \
    X(PF_ERROR_MASK, 0x4006)                                                                       \
    X(PF_ERROR_MATCH, 0x4008)                                                                      \
    X(CR3_TARGET_COUNT, 0x400a)                                                                    \
    X(EXIT_CTLS, 0x400c)                                                                           \
    X(EXIT_MSR_STORE_COUNT, 0x400e)                                                                \
    X(EXIT_MSR_LOAD_COUNT, 0x4010)                                                                 \
    X(ENTRY_CTLS, 0x4012)                                                                          \
    X(ENTRY_MSR_LOAD_COUNT, 0x4014)                                                                \
    X(ENTRY_INTR_INFO, 0x4016)                                                                     \
    X(ENTRY_INTR_ERROR, 0x4018)                                                                    \
    X(ENTRY_INSN_LEN, 0x401a)                                                                      \
    X(TPR_THRESHOLD, 0x401c)                                                                       \
    X(PROC2_CTLS, 0x401e)                                                                          \
    X(PLE_GAP, 0x4020)                                                                             \
    X(PLE_WINDOW, 0x4022)                                                                          \
    X(VM_INSN_ERROR, 0x4400)                                                                       \
    X(EXIT_REASON, 0x4402)                                                                         \
    X(EXIT_INTR_INFO, 0x4404)                                                                      \
    X(EXIT_INTR_ERROR, 0x4406)                                                                     \
    X(IDT_VECTORING_INFO, 0x4408)                                                                  \
    X(IDT_VECTORING_ERROR, 0x440a)                                                                 \
    X(EXIT_INSN_LEN, 0x440c)                                                                       \
    X(EXIT_INSN_INFO, 0x440e)                                                                      \
    X(GUEST_ES_LIMIT, 0x4800)                                                                      \
    X(GUEST_CS_LIMIT, 0x4802)                                                                      \
    X(GUEST_SS_LIMIT, 0x4804)                                                                      \
    X(GUEST_DS_LIMIT, 0x4806)                                                                      \
    X(GUEST_FS_LIMIT, 0x4808)                                                                      \
    X(GUEST_GS_LIMIT, 0x480a)                                                                      \
    X(GUEST_LDTR_LIMIT, 0x480c)                                                                    \
    X(GUEST_TR_LIMIT, 0x480e)                                                                      \
    X(GUEST_GDTR_LIMIT, 0x4810)                                                                    \
    X(GUEST_IDTR_LIMIT, 0x4812)                                                                    \
    X(GUEST_ES_AR, 0x4814)                                                                         \
    X(GUEST_CS_AR, 0x4816)                                                                         \
    X(GUEST_SS_AR, 0x4818)                                                                         \
    X(GUEST_DS_AR, 0x481a)                                                                         \
    X(GUEST_FS_AR, 0x481c)                                                                         \
    X(GUEST_GS_AR, 0x481e)                                                                         \
    X(GUEST_LDTR_AR, 0x4820)                                                                       \
    X(GUEST_TR_AR, 0x4822)                                                                         \
    X(GUEST_INTERRUPTIBILITY, 0x4824)                                                              \
    X(GUEST_ACTIVITY, 0x4826)                                                                      \
    X(GUEST_SMBASE, 0x4828)                                                                        \
    X(GUEST_SYSENTER_CS, 0x482a)                                                                   \
    X(PREEMPTION_TIMER, 0x482e)                                                                    \
    X(HOST_SYSENTER_CS, 0x4c00)                                                                    \
    X(CR0_MASK, 0x6000)                                                                            \
    X(CR4_MASK, 0x6002)                                                                            \
    X(CR0_SHADOW, 0x6004)                                                                          \
    X(CR4_SHADOW, 0x6006)                                                                          \
    X(CR3_TARGET0, 0x6008)                                                                         \
    X(CR3_TARGET1, 0x600a)                                                                         \
    X(CR3_TARGET2, 0x600c)                                                                         \
    X(CR3_TARGET3, 0x600e)                                                                         \
    X(EXIT_QUALIFICATION, 0x6400)                                                                  \
    X(IO_RCX, 0x6402)                                                                              \
    X(IO_RSI, 0x6404)                                                                              \
    X(IO_RDI, 0x6406)                                                                              \
    X(IO_RIP, 0x6408)                                                                              \
    X(GUEST_LINEAR_ADDR, 0x640a)                                                                   \
    X(GUEST_CR0, 0x6800)                                                                           \
    X(GUEST_CR3, 0x6802)                                                                           \
    X(GUEST_CR4, 0x6804)                                                                           \
    X(GUEST_ES_BASE, 0x6806)                                                                       \
    X(GUEST_CS_BASE, 0x6808)                                                                       \
    X(GUEST_SS_BASE, 0x680a)                                                                       \
    X(GUEST_DS_BASE, 0x680c)                                                                       \
    X(GUEST_FS_BASE, 0x680e)                                                                       \
    X(GUEST_GS_BASE, 0x6810)                                                                       \
    X(GUEST_LDTR_BASE, 0x6812)                                                                     \
    X(GUEST_TR_BASE, 0x6814)                                                                       \
    X(GUEST_GDTR_BASE, 0x6816)                                                                     \
    X(GUEST_IDTR_BASE, 0x6818)                                                                     \
    X(GUEST_DR7, 0x681a)                                                                           \
    X(GUEST_RSP, 0x681c)                                                                           \
    X(GUEST_RIP, 0x681e)                                                                           \
    X(GUEST_RFLAGS, 0x6820)                                                                        \
    X(GUEST_PENDING_DEBUG, 0x6822)                                                                 \
    X(GUEST_SYSENTER_ESP, 0x6824)                                                                  \
    X(GUEST_SYSENTER_EIP, 0x6826)                                                                  \
    X(GUEST_S_CET, 0x6828)                                                                         \
    X(GUEST_SSP, 0x682a)                                                                           \
    X(GUEST_INTR_SSP_TABLE, 0x682c)                                                                \
    X(HOST_CR0, 0x6c00)                                                                            \
    X(HOST_CR3, 0x6c02)                                                                            \
    X(HOST_CR4, 0x6c04)                                                                            \
    X(HOST_FS_BASE, 0x6c06)                                                                        \
    X(HOST_GS_BASE, 0x6c08)                                                                        \
    X(HOST_TR_BASE, 0x6c0a)                                                                        \
    X(HOST_GDTR_BASE, 0x6c0c)                                                                      \
    X(HOST_IDTR_BASE, 0x6c0e)                                                                      \
    X(HOST_SYSENTER_ESP, 0x6c10)                                                                   \
    X(HOST_SYSENTER_EIP, 0x6c12)                                                                   \
    X(HOST_RSP, 0x6c14)                                                                            \
    X(HOST_RIP, 0x6c16)                                                                            \
    X(HOST_S_CET, 0x6c18)                                                                          \
    X(HOST_SSP, 0x6c1a)                                                                            \
    X(HOST_INTR_SSP_TABLE, 0x6c1c)

enum vmx_field {
#define VMX_FIELD_ENUM(name, encoding) VMX_##name = (encoding),
    VMX_FIELDS(VMX_FIELD_ENUM)
#undef VMX_FIELD_ENUM
};

/* Segment registers' fields follow each other in the order of VMM_ES to VMM_TR. */
#define VMX_SEG(field_of_es, seg) ((uint32_t)(field_of_es) + 2 * (uint32_t)(seg))

struct vmx_field_info {
    uint32_t encoding;
    const char *name; /* without VMX_ */
};

/* NULL for an encoding that is none. */
const struct vmx_field_info *vmx_field_info(uint32_t encoding);
/* Bits of the field: 16, 32 or 64 (natural width is 64 in long mode). */
unsigned vmx_field_width(uint32_t encoding);
/* Fields about the last exit are read-only, unless VMX_MISC says otherwise. */
bool vmx_field_read_only(uint32_t encoding);
/* The I-th field of the table; NULL behind its end. */
const struct vmx_field_info *vmx_field_at(unsigned i);

/* Exit reasons (SDM Vol. 3D appendix C). */
#define VMX_EXITS(X)                                                                               \
    X(EXCEPTION_NMI, 0)                                                                            \
    X(EXTERNAL_INTERRUPT, 1)                                                                       \
    X(TRIPLE_FAULT, 2)                                                                             \
    X(INIT, 3)                                                                                     \
    X(SIPI, 4)                                                                                     \
    X(IO_SMI, 5)                                                                                   \
    X(OTHER_SMI, 6)                                                                                \
    X(INTERRUPT_WINDOW, 7)                                                                         \
    X(NMI_WINDOW, 8)                                                                               \
    X(TASK_SWITCH, 9)                                                                              \
    X(CPUID, 10)                                                                                   \
    X(GETSEC, 11)                                                                                  \
    X(HLT, 12)                                                                                     \
    X(INVD, 13)                                                                                    \
    X(INVLPG, 14)                                                                                  \
    X(RDPMC, 15)                                                                                   \
    X(RDTSC, 16)                                                                                   \
    X(RSM, 17)                                                                                     \
    X(VMCALL, 18)                                                                                  \
    X(VMCLEAR, 19)                                                                                 \
    X(VMLAUNCH, 20)                                                                                \
    X(VMPTRLD, 21)                                                                                 \
    X(VMPTRST, 22)                                                                                 \
    X(VMREAD, 23)                                                                                  \
    X(VMRESUME, 24)                                                                                \
    X(VMWRITE, 25)                                                                                 \
    X(VMXOFF, 26)                                                                                  \
    X(VMXON, 27)                                                                                   \
    X(CR_ACCESS, 28)                                                                               \
    X(DR_ACCESS, 29)                                                                               \
    X(IO, 30)                                                                                      \
    X(RDMSR, 31)                                                                                   \
    X(WRMSR, 32)                                                                                   \
    X(ENTRY_GUEST_STATE, 33)                                                                       \
    X(ENTRY_MSR_LOADING, 34)                                                                       \
    X(MWAIT, 36)                                                                                   \
    X(MONITOR_TRAP_FLAG, 37)                                                                       \
    X(MONITOR, 39)                                                                                 \
    X(PAUSE, 40)                                                                                   \
    X(ENTRY_MACHINE_CHECK, 41)                                                                     \
    X(TPR_BELOW_THRESHOLD, 43)                                                                     \
    X(APIC_ACCESS, 44)                                                                             \
    X(VIRTUALIZED_EOI, 45)                                                                         \
    X(GDTR_IDTR, 46)                                                                               \
    X(LDTR_TR, 47)                                                                                 \
    X(EPT_VIOLATION, 48)                                                                           \
    X(EPT_MISCONFIG, 49)                                                                           \
    X(INVEPT, 50)                                                                                  \
    X(RDTSCP, 51)                                                                                  \
    X(PREEMPTION_TIMER, 52)                                                                        \
    X(INVVPID, 53)                                                                                 \
    X(WBINVD, 54)                                                                                  \
    X(XSETBV, 55)                                                                                  \
    X(APIC_WRITE, 56)                                                                              \
    X(RDRAND, 57)                                                                                  \
    X(INVPCID, 58)                                                                                 \
    X(VMFUNC, 59)                                                                                  \
    X(ENCLS, 60)                                                                                   \
    X(RDSEED, 61)                                                                                  \
    X(PML_FULL, 62)                                                                                \
    X(XSAVES, 63)                                                                                  \
    X(XRSTORS, 64)                                                                                 \
    X(PCONFIG, 65)                                                                                 \
    X(SPP, 66)                                                                                     \
    X(UMWAIT, 67)                                                                                  \
    X(TPAUSE, 68)                                                                                  \
    X(LOADIWKEY, 69)                                                                               \
    X(ENCLV, 70)                                                                                   \
    X(ENQCMD_PASID, 72)                                                                            \
    X(ENQCMDS_PASID, 73)                                                                           \
    X(BUS_LOCK, 74)                                                                                \
    X(INSTRUCTION_TIMEOUT, 75)

enum vmx_exit {
#define VMX_EXIT_ENUM(name, number) VMX_EXIT_##name = (number),
    VMX_EXITS(VMX_EXIT_ENUM)
#undef VMX_EXIT_ENUM
        VMX_NEXITS = 76
};

#define VMX_EXIT_ENTRY_FAILED (1u << 31) /* in EXIT_REASON */

/* "CPUID" for the basic exit reason 10; "?" for an unknown one. */
const char *vmx_exit_name(uint32_t reason);
/* Text for the field VM_INSN_ERROR (SDM Vol. 3C 30.4). */
const char *vmx_insn_error(uint32_t number);
/* Text for the VMX-abort indicator of a VMCS, which is not 0 (SDM Vol. 3C 27.7). */
const char *vmx_abort_name(uint32_t indicator);

#endif
