/* SPDX-License-Identifier: BSD-2-Clause */
/* machine.h: the virtual PC of vmm-run and the threads of its CPUs. */
#ifndef MACHINE_H
#define MACHINE_H

#include <pthread.h>
#include <stdio.h>

#include <vmm/boot.h>
#include <vmm/vmm.h>

#include "options.h"

struct machine {
    const struct options *options;
    struct vm *vm;
    struct vmm_pc pc;
    struct vmm_image kernel;
    struct vmm_image modules[MAX_MODULES];
    struct vcpu *vcpu[VMM_MAX_VCPUS];
    pthread_t thread[VMM_MAX_VCPUS];
    uint32_t running; /* threads to join */

    /* Called once per start, on a vCPU thread, when the guest has ended the run. */
    void (*on_end)(void *opaque);
    void *opaque;

    pthread_mutex_t lock; /* the members below */
    int ended;
    uint32_t end_cpu;
    int end_error;         /* of vcpu_run */
    struct vcpu_exit exit; /* why, if end_error is 0 */
};

/* Each returns 0, or -1 after a message on stderr. */

/* Reads the images and builds the VM; serial_output and its opaque are as in vmm_pc_config. */
int machine_create(struct machine *machine, const struct options *options,
                   size_t (*serial_output)(void *, const uint8_t *, size_t), void *serial_opaque);

/* Loads the kernel and starts the vCPU threads. */
int machine_start(struct machine *machine);

/* Makes all vCPU threads leave the guest and waits for them. */
void machine_stop(struct machine *machine);

/* After machine_stop: power-on reset; machine_start boots again. */
int machine_reset(struct machine *machine);

/* After machine_stop: registers of all vCPUs, the one that ended first. */
void machine_dump(struct machine *machine, FILE *file);

/* After machine_stop: the library's counters. */
void machine_stats(struct machine *machine, double seconds, FILE *file);

/* Whatever machine_create left behind, also after its failure. */
void machine_destroy(struct machine *machine);

/* Prints what each backend says about this machine. Returns how many can run. */
int machine_list_backends(FILE *file);

#endif
