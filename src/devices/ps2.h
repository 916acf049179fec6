/* SPDX-License-Identifier: BSD-2-Clause */
/* ps2.h: the PS/2 keyboard and mouse behind the i8042: bytes from the host go in, bytes for it come
 * out. Nothing here has a lock or touches the VM: the controller serializes and keeps the time. */
#ifndef VMM_DEVICES_PS2_H
#define VMM_DEVICES_PS2_H

#include <stdint.h>

/* Bytes that a device answers to commands, the same for both. */
#define PS2_ACK    0xfau
#define PS2_RESEND 0xfeu
#define PS2_BAT_OK 0xaau /* basic assurance test passed */

#define PS2_QUEUE 256u /* a power of two */
#define PS2_NEVER UINT64_MAX

struct ps2_queue {
    uint32_t head, count;
    uint8_t bytes[PS2_QUEUE];
};

static inline void ps2_push(struct ps2_queue *q, uint8_t byte)
{
    if (q->count < PS2_QUEUE)
        q->bytes[(q->head + q->count++) % PS2_QUEUE] = byte;
}

/* Not on an empty queue. */
static inline uint8_t ps2_pop(struct ps2_queue *q)
{
    uint8_t byte = q->bytes[q->head];

    q->head = (q->head + 1) % PS2_QUEUE;
    q->count--;
    return byte;
}

static inline void ps2_clear(struct ps2_queue *q)
{
    q->head = q->count = 0;
}

/* What a device has to send next. Replies come before reports. */
enum ps2_kind { PS2_NOTHING, PS2_REPLY, PS2_REPORT };

/* ---- Keyboard ---- */

#define PS2_KEYS 256u /* keys are numbered by set 1 code, extended ones from 0x80 on */

struct ps2_keyboard {
    struct ps2_queue replies, reports;
    int overrun;        /* reports were dropped; until the queue is empty */
    uint8_t command;    /* waits for its argument, 0: none does */
    uint8_t last;       /* byte sent, for Resend */
    uint8_t set;        /* scan code set 1, 2 or 3 */
    uint8_t scanning;   /* keys are reported */
    uint8_t leds;       /* 1 scroll lock, 2 num lock, 4 caps lock */
    uint8_t rate;       /* typematic rate and delay, as in the command */
    uint8_t types[256]; /* by set 3 code */
    uint8_t down[PS2_KEYS];
    uint8_t print_alone; /* how Print Screen went down: without the shift codes */
    uint8_t print_sysrq; /* or as SysRq */
    uint32_t repeat_key; /* 0: none */
    uint64_t repeat_at;  /* ns: call ps2_keyboard_repeat then; PS2_NEVER */
};

void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
enum ps2_kind ps2_keyboard_read(struct ps2_keyboard *k, uint8_t *byte);
/* `scancode` as for vmm_i8042_key; `now` is the clock. */
void ps2_keyboard_key(struct ps2_keyboard *k, uint32_t scancode, int pressed, uint64_t now);
void ps2_keyboard_repeat(struct ps2_keyboard *k, uint64_t now);

/* What an i8042 makes of a byte of scan code set 2 (but 0xf0) when it translates to set 1. */
uint8_t ps2_translate(uint8_t byte);

/* ---- Mouse ---- */

struct ps2_mouse {
    struct ps2_queue replies, reports;
    uint8_t command; /* waits for its argument */
    uint8_t last;
    uint8_t invalid;  /* the last byte was refused: the next one ends in an error */
    uint8_t id;       /* 0 standard, 3 with a wheel, 4 with five buttons too */
    uint8_t rates[3]; /* the last sample rates, oldest first */
    uint8_t resolution, scaling, reporting, remote, wrap;
    uint8_t buttons, sent_buttons;
    int32_t dx, dy, dz; /* since the last report */
};

void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
enum ps2_kind ps2_mouse_read(struct ps2_mouse *m, uint8_t *byte);
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, uint32_t buttons);

#endif
