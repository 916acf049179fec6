/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * multi-vm.c: several VMs in one process, each on a thread of its own.
 *
 * Four guests in 64-bit mode add the numbers 1 to n, each with its own n, memory and result. A
 * fifth one never ends: the main thread stops it when the others are done.
 */
#include <pthread.h>
#include <stdio.h>

#include <vmm/vmm.h>

#define SUMS      4u
#define CODE_AT   0x1000u
#define TABLES_AT 0x10000u

static const uint8_t sum_code[] = {
    0x31, 0xc0,       /* xor %eax,%eax */
    0x48, 0x01, 0xc8, /* 1: add %rcx,%rax */
    0x48, 0xff, 0xc9, /* dec %rcx */
    0x75, 0xf8,       /* jnz 1b */
    0xf4,             /* hlt */
};

static const uint8_t spin_code[] = {
    0x48, 0xff, 0xc0, /* 1: inc %rax */
    0xeb, 0xfb,       /* jmp 1b */
};

struct guest {
    struct vm *vm;
    struct vcpu *vcpu;
    pthread_t thread;
    uint64_t n;
    uint64_t result; /* rax at the end */
    uint32_t reason; /* of the exit */
    int error;
};

static int guest_create(struct guest *guest, const uint8_t *code, size_t len, uint64_t n)
{
    struct vcpu_setup setup = {
        .size = sizeof(setup), .mode = VMM_SETUP_LONG64, .rip = CODE_AT, .tables = TABLES_AT};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
    int error = vm_create(NULL, &guest->vm);

    if (error != 0) {
        return error;
    }
    guest->n = n;
    if ((error = vm_mem_alloc(guest->vm, 0, 1 << 20, VMM_MEM_RWX, NULL)) != 0 ||
        (error = vm_mem_write(guest->vm, CODE_AT, code, len)) != 0 ||
        (error = vcpu_create(guest->vm, 0, NULL, &guest->vcpu)) != 0 ||
        (error = vcpu_set_mode(guest->vcpu, &setup)) != 0 ||
        (error = vcpu_get_regs(guest->vcpu, &regs)) != 0) {
        return error;
    }
    regs.gpr[VMM_RCX] = n;
    return vcpu_set_regs(guest->vcpu, &regs);
}

static void *guest_thread(void *opaque)
{
    struct guest *guest = opaque;
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
    struct vcpu_exit exit = {.size = sizeof(exit)};

    guest->error = vcpu_run(guest->vcpu, &exit);
    if (guest->error == 0) {
        guest->error = vcpu_get_regs(guest->vcpu, &regs);
    }
    guest->reason = exit.reason;
    guest->result = regs.gpr[VMM_RAX];
    return NULL;
}

int main(void)
{
    struct guest guests[SUMS + 1] = {{0}};
    struct guest *endless = &guests[SUMS];
    int failures = 0;

    for (unsigned i = 0; i <= SUMS; i++) {
        int error = i < SUMS ? guest_create(&guests[i], sum_code, sizeof(sum_code), 1000 * (i + 1))
                             : guest_create(&guests[i], spin_code, sizeof(spin_code), 0);

        if (error != 0) {
            fprintf(stderr, "guest %u: %s\n", i, vmm_strerror(error));
            return 1;
        }
    }
    for (unsigned i = 0; i <= SUMS; i++) {
        if (pthread_create(&guests[i].thread, NULL, guest_thread, &guests[i]) != 0) {
            fputs("cannot create a thread\n", stderr);
            return 1;
        }
    }
    for (unsigned i = 0; i < SUMS; i++) {
        struct guest *guest = &guests[i];

        pthread_join(guest->thread, NULL);
        printf("guest %u: %s, 1 + ... + %u = %llu\n", i, vmm_exit_name(guest->reason),
               (unsigned)guest->n, (unsigned long long)guest->result);
        failures += guest->error != 0 || guest->reason != VMM_EXIT_HLT ||
                    guest->result != guest->n * (guest->n + 1) / 2;
    }
    vm_stop(endless->vm);
    pthread_join(endless->thread, NULL);
    printf("endless guest: %s\n", vmm_exit_name(endless->reason));
    failures += endless->error != 0 || endless->reason != VMM_EXIT_STOPPED;
    for (unsigned i = 0; i <= SUMS; i++) {
        failures += vm_destroy(guests[i].vm) != 0;
    }
    return failures == 0 ? 0 : 1;
}
