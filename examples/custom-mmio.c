/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * custom-mmio.c: a device of our own, with registers, a timer and an interrupt.
 *
 * The device multiplies: the guest writes two operands and starts it; a millisecond of guest time
 * later it raises its interrupt line and the product can be read. The guest is real-mode code that
 * sleeps until its interrupt handler has the result and reports it through one more register, whose
 * callback ends vcpu_run.
 */
#include <stdio.h>
#include <string.h>

#include <vmm/vmm.h>

#define DEVICE_GPA 0xd0000u
#define DEVICE_IRQ 5u
#define LATENCY_NS 1000000u

/* Register offsets; all are 32 bits wide. */
#define REG_A      0x00u
#define REG_B      0x04u
#define REG_START  0x08u /* write 1: start; write 0: take the interrupt back */
#define REG_RESULT 0x0cu
#define REG_REPORT 0x10u /* write: ends vcpu_run */
#define REG_END    0x14u

struct multiplier {
    struct vm *vm;
    struct vmm_timer *timer;
    uint32_t a, b, result;
    int released;
};

/* Runs on a vCPU thread, like the callbacks. One vCPU: so there is nothing to lock here. */
static void multiplied(void *opaque, uint64_t deadline)
{
    struct multiplier *device = opaque;

    (void)deadline;
    device->result = device->a * device->b;
    vm_irq_set(device->vm, DEVICE_IRQ, 1);
}

static int multiplier_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct multiplier *device = opaque;

    (void)size;
    if (offset != REG_RESULT) {
        return VMM_IO_NOBODY;
    }
    *value = device->result;
    return VMM_IO_OK;
}

static int multiplier_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct multiplier *device = opaque;

    (void)size;
    switch (offset) {
    case REG_A:
        device->a = (uint32_t)value;
        return VMM_IO_OK;
    case REG_B:
        device->b = (uint32_t)value;
        return VMM_IO_OK;
    case REG_START:
        if (value == 1) {
            vm_timer_set(device->timer, vm_clock(device->vm) + LATENCY_NS);
        } else {
            vm_irq_set(device->vm, DEVICE_IRQ, 0);
        }
        return VMM_IO_OK;
    case REG_REPORT:
        return VMM_IO_EXIT;
    default:
        return VMM_IO_NOBODY;
    }
}

static void multiplier_release(void *opaque)
{
    struct multiplier *device = opaque;

    device->released = 1;
}

#define CODE_AT    0x1000u
#define HANDLER_AT 0x1100u

static const uint8_t code[] = {
    /* 8259: edge triggered, vectors from 0x20 on, only line 5 open */
    0xb0, 0x11, 0xe6, 0x20, /* mov $0x11,%al; out %al,$0x20 */
    0xb0, 0x20, 0xe6, 0x21, /* mov $0x20,%al; out %al,$0x21 */
    0xb0, 0x04, 0xe6, 0x21, /* mov $0x04,%al; out %al,$0x21 */
    0xb0, 0x01, 0xe6, 0x21, /* mov $0x01,%al; out %al,$0x21 */
    0xb0, 0xdf, 0xe6, 0x21, /* mov $0xdf,%al; out %al,$0x21 */
    /* vector 0x25 leads to the handler */
    0xc7, 0x06, 0x94, 0x00, 0x00, 0x11, /* movw $0x1100,0x94 */
    0xc7, 0x06, 0x96, 0x00, 0x00, 0x00, /* movw $0,0x96 */
    /* start the device at 0xd000:0 with 6 and 7 */
    0xb8, 0x00, 0xd0, 0x8e, 0xc0,                      /* mov $0xd000,%ax; mov %ax,%es */
    0x26, 0x66, 0xc7, 0x06, 0x00, 0x00, 0x06, 0, 0, 0, /* movl $6,%es:0 */
    0x26, 0x66, 0xc7, 0x06, 0x04, 0x00, 0x07, 0, 0, 0, /* movl $7,%es:4 */
    0x26, 0x66, 0xc7, 0x06, 0x08, 0x00, 0x01, 0, 0, 0, /* movl $1,%es:8 */
    0xfb, 0xf4, 0xeb, 0xfd,                            /* sti; 1: hlt; jmp 1b */
};

static const uint8_t handler[] = {
    0x26, 0x66, 0xa1, 0x0c, 0x00,                      /* mov %es:12,%eax */
    0x66, 0x89, 0xc3,                                  /* mov %eax,%ebx */
    0x26, 0x66, 0xc7, 0x06, 0x08, 0x00, 0x00, 0, 0, 0, /* movl $0,%es:8 */
    0xb0, 0x20, 0xe6, 0x20,                            /* mov $0x20,%al; out %al,$0x20 */
    0x26, 0x66, 0x89, 0x1e, 0x10, 0x00,                /* mov %ebx,%es:16 */
    0xcf,                                              /* iret */
};

static int failed(struct vm *vm, const char *what)
{
    struct vmm_error error = {.size = sizeof(error)};

    vm_last_error(vm, &error);
    fprintf(stderr, "%s: %s\n", what, error.text);
    vm_destroy(vm);
    return 1;
}

int main(void)
{
    struct vm_config config = {.size = sizeof(config), .irqchip = VMM_IRQCHIP_PC};
    struct vmm_io_ops ops = {
        .size = sizeof(ops),
        .min_access = 4,
        .max_access = 4,
        .name = "multiplier",
        .read = multiplier_read,
        .write = multiplier_write,
        .release = multiplier_release,
    };
    struct vcpu_setup real = {
        .size = sizeof(real), .mode = VMM_SETUP_REAL, .rip = CODE_AT, .rsp = 0x8000};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct multiplier device = {0};
    struct vm *vm;
    struct vcpu *vcpu;

    if (vm_create(&config, &vm) != 0) {
        fputs("no usable backend\n", stderr);
        return 1;
    }
    device.vm = vm;
    if (vm_mem_alloc(vm, 0, 0x10000, VMM_MEM_RWX, NULL) != 0 ||
        vm_mem_write(vm, CODE_AT, code, sizeof(code)) != 0 ||
        vm_mem_write(vm, HANDLER_AT, handler, sizeof(handler)) != 0) {
        return failed(vm, "memory");
    }
    if (vm_timer_create(vm, multiplied, &device, &device.timer) != 0 ||
        mmio_register(vm, DEVICE_GPA, REG_END, &ops, &device, NULL) != 0) {
        return failed(vm, "device");
    }
    if (vcpu_create(vm, 0, NULL, &vcpu) != 0 || vcpu_set_mode(vcpu, &real) != 0) {
        return failed(vm, "vcpu");
    }
    if (vcpu_run(vcpu, &exit) != 0) {
        return failed(vm, "vcpu_run");
    }
    if (exit.reason != VMM_EXIT_MMIO || exit.u.mmio.gpa != DEVICE_GPA + REG_REPORT) {
        fprintf(stderr, "unexpected exit %s\n", vmm_exit_name(exit.reason));
        return 1;
    }
    printf("the guest reports %u\n", (unsigned)exit.u.mmio.data);
    vm_timer_destroy(device.timer);
    vm_destroy(vm);
    printf("released: %d\n", device.released);
    return exit.u.mmio.data == 42 && device.released ? 0 : 1;
}
