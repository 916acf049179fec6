/* SPDX-License-Identifier: BSD-2-Clause */
/* i8042.c: keyboard controller with keyboard and mouse (IBM PS/2 Hardware Interface Technical
 * Reference, keyboard and auxiliary device controller), and system control port A.
 *
 * The output buffer is one byte. While it is empty and nothing disables the device, the controller
 * takes the next byte: its own answers first, then the keyboard's, then the mouse's. Each byte is
 * an edge on line 1 or 12 of its own, also if it was there already when its predecessor was read.
 * A20 is a bit that can be read back: memory is always as with the gate open. */
#include <pthread.h>
#include <stdlib.h>

#include <vmm/vcpu.h>

#include "device.h"
#include "ps2.h"

#define PORT_DATA    0x60
#define PORT_COMMAND 0x64 /* status when read */
#define PORT_A       0x92

#define LINE_KEYBOARD 1u
#define LINE_MOUSE    12u

#define STATUS_OUTPUT_FULL 0x01u
#define STATUS_SYSTEM      0x04u
#define STATUS_COMMAND     0x08u /* the last write was to the command port */
#define STATUS_UNLOCKED    0x10u
#define STATUS_MOUSE       0x20u /* the byte in the output buffer is the mouse's */

/* Command byte. */
#define CB_KEYBOARD_IRQ     0x01u
#define CB_MOUSE_IRQ        0x02u
#define CB_SYSTEM           0x04u
#define CB_DISABLE_KEYBOARD 0x10u
#define CB_DISABLE_MOUSE    0x20u
#define CB_TRANSLATE        0x40u
#define CB_RESERVED         0x88u

enum {
    CMD_READ_RAM = 0x20,  /* to 0x3f */
    CMD_WRITE_RAM = 0x60, /* to 0x7f */
    CMD_TEST_PASSWORD = 0xa4,
    CMD_DISABLE_MOUSE = 0xa7,
    CMD_ENABLE_MOUSE = 0xa8,
    CMD_TEST_MOUSE = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_TEST_KEYBOARD = 0xab,
    CMD_DISABLE_KEYBOARD = 0xad,
    CMD_ENABLE_KEYBOARD = 0xae,
    CMD_READ_INPUT = 0xc0,
    CMD_READ_OUTPUT = 0xd0,
    CMD_WRITE_OUTPUT = 0xd1,
    CMD_LOOP_KEYBOARD = 0xd2,
    CMD_LOOP_MOUSE = 0xd3,
    CMD_WRITE_MOUSE = 0xd4,
    CMD_CLOSE_A20 = 0xdd,
    CMD_OPEN_A20 = 0xdf,
    CMD_READ_TEST = 0xe0,
    CMD_PULSE = 0xf0, /* to 0xff: the zeros among bits 3:0 are pulsed low */
};

#define SELF_TEST_PASSED 0x55u
#define TEST_PASSED      0x00u
#define NO_PASSWORD      0xf1u
#define INPUT_PORT       0xa0u /* keyboard not locked, no manufacturing jumper */

/* Output port. */
#define OUT_NO_RESET 0x01u
#define OUT_A20      0x02u
#define OUT_MOUSE    0x20u /* lines 12 and 1 */
#define OUT_KEYBOARD 0x10u

#define A_RESET 0x01u
#define A_A20   0x02u

#define RAM     32u
#define ANSWERS 8u

struct answer {
    uint8_t byte, mouse;
};

struct vmm_i8042 {
    struct vm *vm;
    pthread_mutex_t lock;
    struct pio *data_pio, *command_pio, *a_pio;
    struct vmm_timer *timer; /* typematic */

    uint8_t ram[RAM]; /* the command byte first */
    uint8_t command;  /* waits for its data byte, 0: none does */
    uint8_t last_was_command;
    uint8_t full, mouse_byte, output; /* the output buffer */
    uint8_t a20;
    uint8_t port_a; /* without A20 */
    struct answer answers[ANSWERS];
    uint32_t nanswers;

    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
};

/* ---- Output buffer ---- */

static void update_irqs(struct vmm_i8042 *c)
{
    uint8_t cb = c->ram[0];

    vm_irq_set(c->vm, LINE_KEYBOARD, c->full && !c->mouse_byte && (cb & CB_KEYBOARD_IRQ));
    vm_irq_set(c->vm, LINE_MOUSE, c->full && c->mouse_byte && (cb & CB_MOUSE_IRQ));
}

/* Returns 0 if the keyboard has nothing that makes a byte for the guest. */
static int take_keyboard(struct vmm_i8042 *c)
{
    uint8_t released = 0; /* 0xf0 went before: all of a key's bytes are in the queue */
    enum ps2_kind kind;

    while ((kind = ps2_keyboard_read(&c->keyboard, &c->output)) != PS2_NOTHING) {
        if (!(c->ram[0] & CB_TRANSLATE))
            return 1;
        if (kind == PS2_REPLY) {
            c->output = ps2_translate(c->output); /* the second byte of the id is changed, too */
            return 1;
        }
        if (c->output == 0xf0) {
            released = 0x80;
            continue;
        }
        c->output = ps2_translate(c->output) | released;
        return 1;
    }
    return 0;
}

static void fill(struct vmm_i8042 *c)
{
    uint8_t cb = c->ram[0];

    if (!c->full) {
        c->full = 1;
        c->mouse_byte = 0;
        if (c->nanswers) {
            c->output = c->answers[0].byte;
            c->mouse_byte = c->answers[0].mouse;
            c->nanswers--;
            memmove(c->answers, c->answers + 1, c->nanswers * sizeof c->answers[0]);
        } else if (!(cb & CB_DISABLE_KEYBOARD) && take_keyboard(c)) {
            c->mouse_byte = 0;
        } else if (!(cb & CB_DISABLE_MOUSE) && ps2_mouse_read(&c->mouse, &c->output)) {
            c->mouse_byte = 1;
        } else {
            c->full = 0;
        }
    }
    update_irqs(c);
}

static void answer(struct vmm_i8042 *c, uint8_t byte, uint8_t mouse)
{
    if (c->nanswers < ANSWERS)
        c->answers[c->nanswers++] = (struct answer){byte, mouse};
}

/* After anything that may have changed the keyboard. */
static void arm(struct vmm_i8042 *c)
{
    if (c->keyboard.repeat_at == PS2_NEVER)
        vm_timer_cancel(c->timer);
    else
        vm_timer_set(c->timer, c->keyboard.repeat_at);
}

static void i8042_fire(void *opaque, uint64_t deadline)
{
    struct vmm_i8042 *c = opaque;

    (void)deadline;
    pthread_mutex_lock(&c->lock);
    ps2_keyboard_repeat(&c->keyboard, vm_clock(c->vm));
    fill(c);
    arm(c);
    pthread_mutex_unlock(&c->lock);
}

/* ---- Commands: they return 1 if the guest resets the machine ---- */

static uint8_t output_port(const struct vmm_i8042 *c)
{
    uint32_t full = !c->full ? 0 : c->mouse_byte ? OUT_MOUSE : OUT_KEYBOARD;

    /* Clock and data of the keyboard are high. */
    return (uint8_t)(0xc0 | OUT_NO_RESET | (c->a20 ? OUT_A20 : 0) | full);
}

static int write_command(struct vmm_i8042 *c, uint8_t value)
{
    c->command = 0;
    if (value >= CMD_PULSE)
        return !(value & OUT_NO_RESET);
    if (value >= CMD_READ_RAM && value < CMD_READ_RAM + RAM) {
        answer(c, c->ram[value - CMD_READ_RAM], 0);
        return 0;
    }
    if (value >= CMD_WRITE_RAM && value < CMD_WRITE_RAM + RAM) {
        c->command = value;
        return 0;
    }
    switch (value) {
    case CMD_TEST_PASSWORD:
        answer(c, NO_PASSWORD, 0);
        break;
    case CMD_DISABLE_MOUSE:
        c->ram[0] |= CB_DISABLE_MOUSE;
        break;
    case CMD_ENABLE_MOUSE:
        c->ram[0] &= (uint8_t)~CB_DISABLE_MOUSE;
        break;
    case CMD_SELF_TEST:
        c->ram[0] |= CB_SYSTEM;
        answer(c, SELF_TEST_PASSED, 0);
        break;
    case CMD_TEST_MOUSE:
    case CMD_TEST_KEYBOARD:
        answer(c, TEST_PASSED, 0);
        break;
    case CMD_DISABLE_KEYBOARD:
        c->ram[0] |= CB_DISABLE_KEYBOARD;
        break;
    case CMD_ENABLE_KEYBOARD:
        c->ram[0] &= (uint8_t)~CB_DISABLE_KEYBOARD;
        break;
    case CMD_READ_INPUT:
        answer(c, INPUT_PORT, 0);
        break;
    case CMD_READ_OUTPUT:
        answer(c, output_port(c), 0);
        break;
    case CMD_CLOSE_A20:
    case CMD_OPEN_A20:
        c->a20 = value == CMD_OPEN_A20;
        break;
    case CMD_READ_TEST:
        answer(c, 0, 0);
        break;
    case CMD_WRITE_OUTPUT:
    case CMD_LOOP_KEYBOARD:
    case CMD_LOOP_MOUSE:
    case CMD_WRITE_MOUSE:
        c->command = value;
        break;
    default:
        break;
    }
    return 0;
}

static int write_data(struct vmm_i8042 *c, uint8_t value)
{
    uint8_t command = c->command;

    c->command = 0;
    switch (command) {
    case 0: /* whoever talks to a device wants its answer: the interface is enabled again */
        c->ram[0] &= (uint8_t)~CB_DISABLE_KEYBOARD;
        ps2_keyboard_write(&c->keyboard, value);
        break;
    case CMD_WRITE_OUTPUT:
        c->a20 = !!(value & OUT_A20);
        return !(value & OUT_NO_RESET);
    case CMD_LOOP_KEYBOARD:
    case CMD_LOOP_MOUSE:
        answer(c, value, command == CMD_LOOP_MOUSE);
        break;
    case CMD_WRITE_MOUSE:
        c->ram[0] &= (uint8_t)~CB_DISABLE_MOUSE;
        ps2_mouse_write(&c->mouse, value);
        break;
    case CMD_WRITE_RAM:
        c->ram[0] = value & (uint8_t)~CB_RESERVED;
        break;
    default:
        c->ram[command - CMD_WRITE_RAM] = value;
        break;
    }
    return 0;
}

/* ---- Ports ---- */

static int data_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_i8042 *c = opaque;

    (void)offset, (void)size;
    pthread_mutex_lock(&c->lock);
    *value = c->output; /* an empty buffer keeps its last byte */
    c->full = 0;
    update_irqs(c);
    fill(c);
    pthread_mutex_unlock(&c->lock);
    return VMM_IO_OK;
}

static int status_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_i8042 *c = opaque;

    (void)offset, (void)size;
    pthread_mutex_lock(&c->lock);
    *value = STATUS_UNLOCKED;
    if (c->full)
        *value |= STATUS_OUTPUT_FULL | (c->mouse_byte ? STATUS_MOUSE : 0);
    if (c->ram[0] & CB_SYSTEM)
        *value |= STATUS_SYSTEM;
    if (c->last_was_command)
        *value |= STATUS_COMMAND;
    pthread_mutex_unlock(&c->lock);
    return VMM_IO_OK;
}

static int i8042_write(struct vmm_i8042 *c, uint8_t value, int is_command)
{
    int reset;

    pthread_mutex_lock(&c->lock);
    c->last_was_command = (uint8_t)is_command;
    reset = is_command ? write_command(c, value) : write_data(c, value);
    fill(c);
    arm(c);
    pthread_mutex_unlock(&c->lock);
    if (reset)
        vm_request_exit(c->vm, VMM_EXIT_RESET, 0);
    return VMM_IO_OK;
}

static int data_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)offset, (void)size;
    return i8042_write(opaque, (uint8_t)value, 0);
}

static int command_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)offset, (void)size;
    return i8042_write(opaque, (uint8_t)value, 1);
}

static int port_a_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_i8042 *c = opaque;

    (void)offset, (void)size;
    pthread_mutex_lock(&c->lock);
    *value = c->port_a | (c->a20 ? A_A20 : 0);
    pthread_mutex_unlock(&c->lock);
    return VMM_IO_OK;
}

static int port_a_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_i8042 *c = opaque;
    int reset;

    (void)offset, (void)size;
    pthread_mutex_lock(&c->lock);
    reset = (value & A_RESET) && !(c->port_a & A_RESET); /* a rising edge */
    c->port_a = (uint8_t)(value & ~A_A20);
    c->a20 = !!(value & A_A20);
    pthread_mutex_unlock(&c->lock);
    if (reset)
        vm_request_exit(c->vm, VMM_EXIT_RESET, 0);
    return VMM_IO_OK;
}

/* ---- The host's side ---- */

void vmm_i8042_key(struct vmm_i8042 *c, uint32_t scancode, int pressed)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    ps2_keyboard_key(&c->keyboard, scancode, pressed, vm_clock(c->vm));
    fill(c);
    arm(c);
    pthread_mutex_unlock(&c->lock);
}

void vmm_i8042_mouse(struct vmm_i8042 *c, int dx, int dy, int dz, uint32_t buttons)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    ps2_mouse_move(&c->mouse, dx, dy, dz, buttons);
    fill(c);
    pthread_mutex_unlock(&c->lock);
}

uint32_t vmm_i8042_leds(struct vmm_i8042 *c)
{
    uint32_t leds;

    if (!c)
        return 0;
    pthread_mutex_lock(&c->lock);
    leds = c->keyboard.leds;
    pthread_mutex_unlock(&c->lock);
    return leds;
}

/* ---- Life cycle ---- */

/* As firmware leaves the controller: kernels that are started without it expect no less. */
static void i8042_reset(void *opaque)
{
    struct vmm_i8042 *c = opaque;

    pthread_mutex_lock(&c->lock);
    memset(c->ram, 0, sizeof c->ram);
    c->ram[0] = CB_KEYBOARD_IRQ | CB_MOUSE_IRQ | CB_SYSTEM | CB_TRANSLATE;
    c->command = c->last_was_command = 0;
    c->full = c->mouse_byte = c->output = 0;
    c->nanswers = 0;
    c->a20 = 1;
    c->port_a = 0;
    ps2_keyboard_reset(&c->keyboard);
    ps2_mouse_reset(&c->mouse);
    update_irqs(c);
    arm(c);
    pthread_mutex_unlock(&c->lock);
}

static void i8042_stop(void *opaque)
{
    struct vmm_i8042 *c = opaque;

    pio_unregister(c->data_pio);
    pio_unregister(c->command_pio);
    pio_unregister(c->a_pio);
    vm_timer_destroy(c->timer);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static int i8042_register(struct vmm_i8042 *c)
{
    static const struct vmm_io_ops data = {
        .size = sizeof data,
        .max_access = 1,
        .name = "i8042-data",
        .read = data_read,
        .write = data_write,
    };
    static const struct vmm_io_ops command = {
        .size = sizeof command,
        .max_access = 1,
        .name = "i8042-command",
        .read = status_read,
        .write = command_write,
    };
    static const struct vmm_io_ops port_a = {
        .size = sizeof port_a,
        .max_access = 1,
        .name = "port92",
        .read = port_a_read,
        .write = port_a_write,
    };
    int r = pio_register(c->vm, PORT_DATA, 1, &data, c, &c->data_pio);

    if (!r)
        r = pio_register(c->vm, PORT_COMMAND, 1, &command, c, &c->command_pio);
    return r ? r : pio_register(c->vm, PORT_A, 1, &port_a, c, &c->a_pio);
}

int vmm_i8042_create(struct vm *vm, struct vmm_i8042 **out)
{
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "i8042", .reset = i8042_reset, .stop = i8042_stop};
    struct vmm_i8042 *c = calloc(1, sizeof *c);
    int r;

    if (!c)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_i8042_create", "no memory");
    c->vm = vm;
    pthread_mutex_init(&c->lock, NULL);
    r = vm_timer_create(vm, i8042_fire, c, &c->timer);
    if (!r) {
        i8042_reset(c);
        r = i8042_register(c);
    }
    if (!r)
        r = vm_device_add(vm, &ops, c, NULL);
    if (r)
        i8042_stop(c);
    else if (out)
        *out = c;
    return r;
}
