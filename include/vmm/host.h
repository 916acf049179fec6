/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/host.h: what the freestanding build of the library needs of the ring-0 program around it. */
#ifndef VMM_HOST_H
#define VMM_HOST_H

#include <vmm/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * libvmm-freestanding.a is compiled for kernels, unikernels and bare metal. It needs memcpy,
 * memmove, memset and memcmp, and these functions, to which `ctx` is passed. The API is that of the
 * other headers but for what needs files, threads or descriptors of a host: such functions return
 * VMM_E_UNSUPPORTED or VMM_E_IO.
 *
 * While there are VMs, each CPU keeps its GDTR, IDTR, TR, its segment registers but FS and GS, and
 * the MSRs SYSENTER_*, EFER, PAT, STAR, LSTAR, CSTAR, FMASK and TSC_AUX. A thread that is in
 * vcpu_run finds FS, GS, their bases, KERNEL_GS_BASE and, between fpu_begin and fpu_end, CR0 on
 * each CPU as they were when it came there first; its callbacks leave them so.
 *
 * Functions are called on any CPU that calls the library, with the interrupt flag as the caller has
 * it (while a guest runs the library holds interrupts back, for some hundred instructions at a
 * time), and between preempt_off and preempt_on. Those marked "optional" may be NULL.
 */
struct vmm_host_ops {
    uint32_t size;
    uint32_t reserved; /* 0 */
    void *ctx;
    /* Frequency of the CPUs' time stamp counters, which is constant. Where the counters agree,
     * guests read them without the library. */
    uint64_t tsc_khz;

    /* ---- memory ---- */

    /* `n` zeroed pages of 4096 bytes, contiguous in virtual memory; NULL without memory. */
    void *(*pages_alloc)(void *ctx, size_t n);
    void (*pages_free)(void *ctx, void *pages, size_t n);
    /* Physical address of what pages_alloc has given, and of memory that is mapped into a guest.
     * Pages next to each other need not be so physically. */
    uint64_t (*virt_to_phys)(void *ctx, const void *p);
    /* The address of a page of pages_alloc, from its physical one. */
    void *(*phys_to_virt)(void *ctx, uint64_t phys);
    /* Optional: device memory, uncached; NULL if it cannot be mapped. Guests whose devices are
     * passed through and the APIC-access page need it. */
    void *(*mmio_map)(void *ctx, uint64_t phys, size_t len);
    void (*mmio_unmap)(void *ctx, void *p, size_t len);
    /*
     * Optional: code memory for the software CPU, writable at *rw and executable at *rx, which are
     * two mappings of the same pages. 0, or an error that is not. Without it the software CPU
     * executes no x87, MMX, SSE and AVX instructions but plain moves: where it meets one (hardware
     * takes most) vcpu_run returns VMM_EXIT_EMUL_MISS.
     */
    int (*code_alloc)(void *ctx, size_t len, void **rw, void **rx);
    void (*code_free)(void *ctx, void *rw, void *rx, size_t len);

    /* ---- CPUs ---- */

    uint32_t (*cpu_count)(void *ctx);
    /* Below cpu_count; stable between preempt_off and preempt_on. */
    uint32_t (*cpu_id)(void *ctx);
    /* Calls fn(arg) on that CPU, which may be this one, with interrupts off, and returns when it
     * has returned. 0, or an error if that CPU cannot be reached. */
    int (*run_on_cpu)(void *ctx, uint32_t cpu, void (*fn)(void *arg), void *arg);
    /* The thread stays on its CPU from preempt_off to preempt_on; they nest. */
    void (*preempt_off)(void *ctx);
    void (*preempt_on)(void *ctx);
    /* Interrupts or NMIs that CPU, so that it leaves its guest. ANY+SIG. Optional with one CPU.
     * Where it is an NMI, the handler of NMIs calls vmm_host_nmi. */
    void (*kick)(void *ctx, uint32_t cpu);
    /* A place for one pointer that belongs to the calling thread (to the CPU, where one thread runs
     * on each), NULL at first. Its address is the thread's identity. */
    void **(*thread_slot)(void *ctx);
    /* Optional: lets another thread run on this CPU. */
    void (*yield)(void *ctx);
    /* Optional, both or none: sleep while *word == seen, until `wake` of this word, the absolute
     * `now` time `deadline` (UINT64_MAX: none) or for no reason. Without them threads that wait
     * look at the word, with yield in between. wake is ANY+SIG. */
    void (*wait)(void *ctx, const void *word, uint32_t seen, uint64_t deadline);
    void (*wake)(void *ctx, const void *word);

    /* ---- MSRs of this CPU: 0, or not 0 if the access has faulted ---- */

    int (*rdmsr)(void *ctx, uint32_t index, uint64_t *value);
    int (*wrmsr)(void *ctx, uint32_t index, uint64_t value);

    /*
     * Around the use of vector and x87 registers, MXCSR and the x87 control word by the library,
     * which may leave them with any content: fpu_begin saves those of whoever they belong to,
     * loads the x87 control word 0x37f and the MXCSR 0x1f80 and allows their use (CR0.TS and CR4
     * bits), fpu_end restores. Between them preemption is off; they do not nest. fpu_begin gives
     * XCR0 the bits that the host uses itself; fpu_end restores XCR0.
     */
    void (*fpu_begin)(void *ctx);
    void (*fpu_end)(void *ctx);

    /* ---- time and messages ---- */

    uint64_t (*now)(void *ctx); /* nanoseconds, monotonic, the same on all CPUs */
    /* Optional: nanoseconds since 1970-01-01 UTC, for the guests' clocks. */
    uint64_t (*wall_clock)(void *ctx);
    /* Optional: a line of text, without a newline at its end. */
    void (*log)(void *ctx, const char *text);
};

/*
 * Before any other function of the library (vm_create and vmm_backend_probe return VMM_E_STATE
 * until then), once, on one CPU: from then on the library uses `ops`, which is borrowed for good.
 * VMM_E_INVAL for a struct of the wrong size or one without a function that it must have,
 * VMM_E_STATE if it has been called before. Since 0.1; only in the freestanding build.
 */
int vmm_host_init(const struct vmm_host_ops *ops);

/*
 * For handlers of NMIs: the address to return to, instead of `rip`, which the NMI has interrupted.
 * An interrupt that kicks a CPU waits until the guest has been entered, and ends that; an NMI may
 * come just before the entry, which is then not made. It changes RAX and flags only. ANY+SIG.
 * Since 0.1; only in the freestanding build.
 */
uint64_t vmm_host_nmi(uint64_t rip);

#ifdef __cplusplus
}
#endif
#endif
