/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/insn.h: the VMX instructions and what else of this folder only ring 0 can execute. Hosted
 * tests bring functions of the same names, over a fake CPU. */
#ifndef VMX_INSN_H
#define VMX_INSN_H

#include <stdint.h>

/* How VMX instructions end (SDM Vol. 3C 30.2). */
#define VMX_OK           0
#define VMX_FAIL_INVALID 1 /* there is no current VMCS */
#define VMX_FAIL_VALID   2 /* the field VM_INSTRUCTION_ERROR says why */

/* Operand of INVEPT and INVVPID: the first quadword is EPTP or VPID. */
struct vmx_inv_operand {
    uint64_t what, linear;
};

#ifdef VMM_FREESTANDING

#define VMX_RESULT "\n\tsetna %b0\n\tsetz %b1" : "=&q"(fail), "=&q"(valid)
#define VMX_RETURN return !fail ? VMX_OK : valid ? VMX_FAIL_VALID : VMX_FAIL_INVALID

static inline int vmx_insn_on(uint64_t phys)
{
    uint8_t fail, valid;

    __asm__ volatile("vmxon %2" VMX_RESULT : "m"(phys) : "cc", "memory");
    VMX_RETURN;
}

static inline void vmx_insn_off(void)
{
    __asm__ volatile("vmxoff" ::: "cc", "memory");
}

static inline int vmx_insn_clear(uint64_t phys)
{
    uint8_t fail, valid;

    __asm__ volatile("vmclear %2" VMX_RESULT : "m"(phys) : "cc", "memory");
    VMX_RETURN;
}

static inline int vmx_insn_load(uint64_t phys)
{
    uint8_t fail, valid;

    __asm__ volatile("vmptrld %2" VMX_RESULT : "m"(phys) : "cc", "memory");
    VMX_RETURN;
}

/* Of a field that this CPU has; others give 0. */
static inline uint64_t vmx_insn_read(uint32_t field)
{
    uint64_t value = 0;

    __asm__ volatile("vmread %1, %0" : "+r"(value) : "r"((uint64_t)field) : "cc");
    return value;
}

/* Of a field that every CPU has. */
static inline uint64_t vmx_insn_get(uint32_t field)
{
    uint64_t value;

    __asm__ volatile("vmread %1, %0" : "=r"(value) : "r"((uint64_t)field) : "cc");
    return value;
}

static inline int vmx_insn_write(uint32_t field, uint64_t value)
{
    uint8_t fail, valid;

    __asm__ volatile("vmwrite %3, %2" VMX_RESULT : "r"((uint64_t)field), "r"(value) : "cc");
    VMX_RETURN;
}

/* Of a field that this CPU has, with a value that it takes: the result is not looked at. */
static inline void vmx_insn_put(uint32_t field, uint64_t value)
{
    __asm__ volatile("vmwrite %1, %0" ::"r"((uint64_t)field), "r"(value) : "cc");
}

static inline int vmx_insn_invept(uint64_t type, const struct vmx_inv_operand *op)
{
    uint8_t fail, valid;

    __asm__ volatile("invept %3, %2" VMX_RESULT : "r"(type), "m"(*op) : "cc", "memory");
    VMX_RETURN;
}

static inline int vmx_insn_invvpid(uint64_t type, const struct vmx_inv_operand *op)
{
    uint8_t fail, valid;

    __asm__ volatile("invvpid %3, %2" VMX_RESULT : "r"(type), "m"(*op) : "cc", "memory");
    VMX_RETURN;
}

#undef VMX_RESULT
#undef VMX_RETURN

static inline void vmx_insn_cpuid_sub(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}

static inline void vmx_insn_cpuid(uint32_t leaf, uint32_t out[4])
{
    vmx_insn_cpuid_sub(leaf, 0, out);
}

static inline uint64_t vmx_insn_get_cr0(void)
{
    uint64_t v;

    __asm__ volatile("mov %%cr0, %0" : "=r"(v));
    return v;
}

static inline uint64_t vmx_insn_get_cr4(void)
{
    uint64_t v;

    __asm__ volatile("mov %%cr4, %0" : "=r"(v));
    return v;
}

static inline void vmx_insn_set_cr4(uint64_t v)
{
    __asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory");
}

/* Of MSRs that every CPU with VMX has; they do not fault. */
static inline uint64_t vmx_insn_rdmsr(uint32_t index)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return low | (uint64_t)high << 32;
}

static inline void vmx_insn_wrmsr(uint32_t index, uint64_t value)
{
    __asm__ volatile("wrmsr" ::"a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(index)
                     : "memory");
}

static inline uint64_t vmx_insn_rdtsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (uint64_t)high << 32;
}

static inline uint64_t vmx_insn_xgetbv(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t)high << 32;
}

static inline void vmx_insn_xsetbv(uint64_t v)
{
    __asm__ volatile("xsetbv" ::"a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(0));
}

#else

int vmx_insn_on(uint64_t phys);
void vmx_insn_off(void);
int vmx_insn_clear(uint64_t phys);
int vmx_insn_load(uint64_t phys);
uint64_t vmx_insn_read(uint32_t field);
static inline uint64_t vmx_insn_get(uint32_t field)
{
    return vmx_insn_read(field);
}
int vmx_insn_write(uint32_t field, uint64_t value);
static inline void vmx_insn_put(uint32_t field, uint64_t value)
{
    vmx_insn_write(field, value);
}
int vmx_insn_invept(uint64_t type, const struct vmx_inv_operand *op);
int vmx_insn_invvpid(uint64_t type, const struct vmx_inv_operand *op);
void vmx_insn_cpuid_sub(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
static inline void vmx_insn_cpuid(uint32_t leaf, uint32_t out[4])
{
    vmx_insn_cpuid_sub(leaf, 0, out);
}
uint64_t vmx_insn_get_cr0(void);
uint64_t vmx_insn_get_cr4(void);
void vmx_insn_set_cr4(uint64_t v);
uint64_t vmx_insn_rdmsr(uint32_t index);
void vmx_insn_wrmsr(uint32_t index, uint64_t value);
uint64_t vmx_insn_rdtsc(void);
uint64_t vmx_insn_xgetbv(void);
void vmx_insn_xsetbv(uint64_t v);

#endif
#endif
