/* SPDX-License-Identifier: BSD-2-Clause */
/* conform.h: cases of the conformance list, and the VM in which each runs. */
#ifndef CONFORM_H
#define CONFORM_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vmm/debug.h>
#include <vmm/device.h>
#include <vmm/vmm.h>

#include "../common/outcome.h"
#include "../guest/guest.h"

/* ---- cases ---- */

#define CASE_MODES 1u /* once in each mode of the interrupt controllers */

struct conform_case {
    const char *name; /* without the area's */
    const char *promise;
    void (*run)(void);
    uint64_t caps; /* VMM_CAP_*: not offered without */
    uint32_t flags;
};
#define CASE(function, promise_, ...)                                                              \
    {                                                                                              \
        .name = #function, .promise = promise_, .run = function, __VA_ARGS__                       \
    }

struct conform_area {
    const char *name;
    const struct conform_case *cases;
    size_t n;
};
#define AREA(id, cases_)                                                                           \
    const struct conform_area area_##id = {#id, cases_, sizeof(cases_) / sizeof(cases_[0])}

/* What the case that runs is run with. */
extern const char *conform_backend;
extern uint32_t conform_irqchip_mode;
extern uint32_t conform_flags; /* VMM_VM_* of every VM */
extern struct vm_caps conform_caps;

/* ---- checks: the first that does not hold is the end of the case ---- */

#define FAIL(...) outcome_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            FAIL("%s", #condition);                                                                \
    } while (0)
#define EQ(found, wanted)                                                                          \
    do {                                                                                           \
        uint64_t found_ = (uint64_t)(found), wanted_ = (uint64_t)(wanted);                         \
        if (found_ != wanted_)                                                                     \
            FAIL("%s is %#llx, not %#llx", #found, (unsigned long long)found_,                     \
                 (unsigned long long)wanted_);                                                     \
    } while (0)
/* A call's result, VMM_E_*. */
#define RESULT(call, wanted) conform_result(__FILE__, __LINE__, #call, (call), (wanted))
#define OK(call)             RESULT(call, 0)
void conform_result(const char *file, int line, const char *call, int found, int wanted);

/* ---- the VM ---- */

#define RAM      0x400000u /* bytes at 0; identity-mapped in paging modes */
#define HIGH     0x200000u /* the part of it that no table or code lies in */
#define CODE     SNIP_CODE
#define DATA     SNIP_DATA
#define MMIO     SNIP_MMIO  /* 2 MiB are mapped in paging modes; nothing is there */
#define HANDLER  0x18000u   /* for interrupt and exception handlers, a page each 0x800 */
#define FREE_LOW 0x1a000u   /* 24 KiB of RAM below 128 KiB that nothing uses */
#define NOTHING  0x9000000u /* no memory, not mapped */

extern struct vm *vm;
extern struct vcpu *cpu; /* vCPU 0 */
extern struct vcpu_exit ex;
extern uint8_t *ram;

/* Guest code beside its case: GUEST(name, 64, "assembly"), then GUEST_CODE(name). */
struct code {
    const uint8_t *begin, *end;
};
#define GUEST(id, bits, text)                                                                      \
    extern const uint8_t guest_##id[], guest_##id##_end[];                                         \
    __asm__(".pushsection .rodata.guest, \"a\", @progbits\n"                                       \
            ".code" #bits "\n"                                                                     \
            "guest_" #id ":\n" text "\n"                                                           \
            "guest_" #id "_end:\n"                                                                 \
            ".code64\n"                                                                            \
            ".popsection\n")
#define GUEST_CODE(id) ((struct code){guest_##id, guest_##id##_end})
/* A label in a GUEST, and its address when the guest was loaded. */
#define MARK(label)   extern const uint8_t label[]
#define AT(id, label) (CODE + (uint64_t)((label)-guest_##id))
#define END_OF(id)    AT(id, guest_##id##_end)

/* Creates the VM with RAM and vCPUs 0 .. ncpus-1. */
void begin(uint32_t irqchip, uint32_t flags, uint32_t ncpus);
/* The same without RAM and vCPUs; the result of vm_create. */
int begin_bare(uint32_t irqchip, uint32_t flags, uint32_t max_vcpus);
void end(void);

/* Fresh memory (of the first 128 KiB), tables and registers; the code at CODE. */
void load_on(struct vcpu *v, enum snip_mode mode, struct code code);
#define LOAD(mode, id) load_on(cpu, mode, GUEST_CODE(id))
/* Another vCPU on the same tables, at `address`. */
void start_at(struct vcpu *v, enum snip_mode mode, uint32_t address, uint32_t stack);
/* More code at `address`, of another vCPU or a handler. */
void place(uint32_t address, struct code code);
#define PLACE(address, id) place(address, GUEST_CODE(id))
/* Vector `v` of the tables of `mode` leads to `address` instead of its HLT. */
void gate(enum snip_mode mode, unsigned vector, uint32_t address);
/* The vector whose HLT the vCPU has run into; fails if it is none. */
unsigned halted_in(const struct vcpu_exit *exit);

struct vcpu_regs get_regs(struct vcpu *v);
void set_regs(struct vcpu *v, const struct vcpu_regs *regs, uint32_t groups);
uint64_t gpr(unsigned index);
void set_gpr(unsigned index, uint64_t value);
uint64_t peek(uint64_t gpa, unsigned size);
void poke(uint64_t gpa, uint64_t value, unsigned size);

/* Runs vCPU 0 and checks the reason. */
#define RUN(reason_)  conform_run(__FILE__, __LINE__, false, VMM_EXIT_##reason_)
#define STEP(reason_) conform_run(__FILE__, __LINE__, true, VMM_EXIT_##reason_)
void conform_run(const char *file, int line, bool step, uint32_t reason);

/* vcpu_run on a thread of its own. */
struct runner {
    struct vcpu *vcpu;
    struct vcpu_exit exit;
    int result;
    pthread_t thread;
    _Atomic bool over;
    uint32_t passed; /* after this exit it runs again */
};
void run_start(struct runner *r, struct vcpu *v);
void run_start_past(struct runner *r, struct vcpu *v, uint32_t passed);
void run_join(struct runner *r, uint32_t reason);

/* Waits for what another thread or the guest does; the watchdog ends it. */
#define WAIT(condition)                                                                            \
    while (!(condition))                                                                           \
    conform_nap()
void conform_nap(void);

/* A byte or word in guest memory that the guest changes. */
static inline uint32_t ram32(uint32_t gpa)
{
    return atomic_load((_Atomic uint32_t *)(void *)(ram + gpa));
}

/* ---- a device that writes down what happens to it ---- */

struct access {
    bool write;
    uint64_t offset;
    uint32_t size;
    uint64_t value; /* written; of reads: what was given */
};
#define LOG_MAX 64u
struct device {
    _Atomic unsigned n; /* all accesses; those above LOG_MAX are not kept */
    struct access log[LOG_MAX];
    _Atomic unsigned released;
    int result;                       /* VMM_IO_* that the callbacks give */
    void (*act)(struct device *self); /* called in each, before the result */
    bool quiet;                       /* only counts */
};
/* Reads give at each offset the byte 0x10 + offset. */
uint64_t device_pattern(uint64_t offset, uint32_t size);
struct vmm_io_ops device_ops(void);
struct mmio *device_mmio(struct device *d, uint64_t gpa, uint64_t len);
struct pio *device_pio(struct device *d, uint16_t port, uint32_t len);

#define R(offset_, size_)                                                                          \
    {                                                                                              \
        false, offset_, size_, 0                                                                   \
    }
#define W(offset_, size_, value_)                                                                  \
    {                                                                                              \
        true, offset_, size_, value_                                                               \
    }
/* The accesses so far were these; forgets them. */
#define LOGGED(device, ...)                                                                        \
    conform_logged(__FILE__, __LINE__, device, (const struct access[]){__VA_ARGS__},               \
                   sizeof((const struct access[]){__VA_ARGS__}) / sizeof(struct access))
void conform_logged(const char *file, int line, struct device *d, const struct access *wanted,
                    size_t n);

/* After SHUTDOWN: whether the host's CPU has left nothing of the state behind. AMD's do not, and
 * KVM then gives the vCPU that of INIT. */
bool lost_at_shutdown(void);

/* Whether the CPU that a new vCPU is by default has a feature. */
bool cpu_has(uint32_t leaf, unsigned reg, unsigned bit);

#endif
