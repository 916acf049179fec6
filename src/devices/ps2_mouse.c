/* SPDX-License-Identifier: BSD-2-Clause */
/* ps2_mouse.c: PS/2 mouse with the wheel and the five buttons of Microsoft's IntelliMouse (IBM PS/2
 * Hardware Interface Technical Reference, mouse; the extensions are switched on by sequences of
 * sample rates).
 *
 * Reports are made when the guest has taken the one before, whatever the sample rate, and hold all
 * movement since then; only changes of buttons wait in the queue. */
#include "ps2.h"

#include <string.h>

enum {
    CMD_SCALING_1 = 0xe6,
    CMD_SCALING_2 = 0xe7,
    CMD_RESOLUTION = 0xe8,
    CMD_STATUS = 0xe9,
    CMD_STREAM = 0xea,
    CMD_READ = 0xeb,
    CMD_WRAP_OFF = 0xec,
    CMD_WRAP = 0xee,
    CMD_REMOTE = 0xf0,
    CMD_ID = 0xf2,
    CMD_RATE = 0xf3,
    CMD_ENABLE = 0xf4,
    CMD_DISABLE = 0xf5,
    CMD_DEFAULTS = 0xf6,
    CMD_RESEND = 0xfe,
    CMD_RESET = 0xff,
};

#define REPLY_ERROR 0xfcu /* a second invalid byte */

#define ID_STANDARD 0u
#define ID_WHEEL    3u
#define ID_BUTTONS  4u

#define DEFAULT_RATE       100u
#define DEFAULT_RESOLUTION 2u

#define REPORT_ONE    0x08u /* always set in the first byte of a report */
#define REPORT_X_SIGN 0x10u
#define REPORT_Y_SIGN 0x20u
#define REPORT_QUEUE  32u /* bytes beyond which changes of buttons merge */

#define MOVE_MAX 0x100000 /* what accumulates while nobody reads */

/* ---- Reports ---- */

static int32_t clamp(int64_t v, int32_t min, int32_t max)
{
    return v < min ? min : v > max ? max : (int32_t)v;
}

/* Scaling 2:1, in stream mode only: small counts are damped, large ones doubled. */
static int32_t scaled(const struct ps2_mouse *m, int32_t v)
{
    static const uint8_t small[] = {0, 1, 1, 3, 6, 9};
    int32_t n = v < 0 ? -v : v;

    if (!m->scaling || m->remote)
        return v;
    n = n < (int32_t)sizeof small ? small[n] : 2 * n;
    return v < 0 ? -n : n;
}

/* One report of what has come together; what does not fit in stays for the next. */
static void put_report(struct ps2_mouse *m, struct ps2_queue *q)
{
    int32_t limit = m->scaling && !m->remote ? 127 : 255;
    int32_t dx = clamp(m->dx, -limit, limit), dy = clamp(m->dy, -limit, limit);
    int32_t dz = clamp(m->dz, -7, 7);
    int32_t x = scaled(m, dx), y = scaled(m, dy);

    ps2_push(q, (uint8_t)(REPORT_ONE | (m->buttons & 7) | (x < 0 ? REPORT_X_SIGN : 0) |
                          (y < 0 ? REPORT_Y_SIGN : 0)));
    ps2_push(q, (uint8_t)x);
    ps2_push(q, (uint8_t)y);
    /* The wheel counts down when it turns away from the user. */
    if (m->id == ID_WHEEL)
        ps2_push(q, (uint8_t)-dz);
    else if (m->id == ID_BUTTONS)
        ps2_push(q, (uint8_t)((-dz & 15) | (m->buttons & 0x18) << 1));
    m->dx -= dx;
    m->dy -= dy;
    m->dz = m->id == ID_STANDARD ? 0 : m->dz - dz;
    m->sent_buttons = m->buttons;
}

static uint8_t visible(const struct ps2_mouse *m, uint8_t buttons)
{
    return m->id == ID_BUTTONS ? buttons : buttons & 7;
}

static void stream(struct ps2_mouse *m)
{
    int moved = m->dx || m->dy || (m->dz && m->id != ID_STANDARD);
    int clicked = visible(m, m->buttons) != visible(m, m->sent_buttons);

    if (!m->reporting || m->remote || m->wrap)
        return;
    if ((!m->reports.count && (moved || clicked)) || (clicked && m->reports.count < REPORT_QUEUE))
        put_report(m, &m->reports);
}

static void forget_movement(struct ps2_mouse *m)
{
    m->dx = m->dy = m->dz = 0;
    m->sent_buttons = m->buttons;
}

static int32_t accumulate(int32_t sum, int v)
{
    return clamp((int64_t)sum + v, -MOVE_MAX, MOVE_MAX);
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, uint32_t buttons)
{
    m->dx = accumulate(m->dx, dx);
    m->dy = accumulate(m->dy, dy);
    m->dz = accumulate(m->dz, dz);
    m->buttons = buttons & 0x1f;
    stream(m);
}

/* ---- Commands ---- */

static void reply(struct ps2_mouse *m, uint8_t byte)
{
    ps2_push(&m->replies, byte);
}

static void refuse(struct ps2_mouse *m)
{
    reply(m, m->invalid ? REPLY_ERROR : PS2_RESEND);
    m->invalid = !m->invalid;
}

static void defaults(struct ps2_mouse *m)
{
    m->rates[2] = DEFAULT_RATE;
    m->resolution = DEFAULT_RESOLUTION;
    m->scaling = m->reporting = m->remote = m->wrap = 0;
}

static void set_rate(struct ps2_mouse *m, uint8_t rate)
{
    m->rates[0] = m->rates[1];
    m->rates[1] = m->rates[2];
    m->rates[2] = rate;
    if (m->rates[2] != 80)
        return;
    if (m->rates[0] == 200 && m->rates[1] == 100 && m->id == ID_STANDARD)
        m->id = ID_WHEEL;
    else if (m->rates[0] == 200 && m->rates[1] == 200 && m->id == ID_WHEEL)
        m->id = ID_BUTTONS;
}

static int is_rate(uint8_t v)
{
    return v == 10 || v == 20 || v == 40 || v == 60 || v == 80 || v == 100 || v == 200;
}

/* Returns 0 if the byte is no argument of the command that waits for one. */
static int write_argument(struct ps2_mouse *m, uint8_t byte)
{
    uint8_t command = m->command;

    m->command = 0;
    if (command == CMD_RATE && is_rate(byte))
        set_rate(m, byte);
    else if (command == CMD_RESOLUTION && byte <= 3)
        m->resolution = byte;
    else
        return 0;
    reply(m, PS2_ACK);
    return 1;
}

static void put_status(struct ps2_mouse *m)
{
    uint32_t b = m->buttons;

    reply(m, (uint8_t)((m->remote ? 0x40 : 0) | (m->reporting ? 0x20 : 0) |
                       (m->scaling ? 0x10 : 0) | (b & 1) << 2 | (b & 4) >> 1 | (b & 2) >> 1));
    reply(m, m->resolution);
    reply(m, m->rates[2]);
}

static void write_command(struct ps2_mouse *m, uint8_t byte)
{
    if (byte == CMD_RESEND) {
        reply(m, m->last);
        return;
    }
    if (byte != CMD_READ)
        forget_movement(m);
    reply(m, PS2_ACK);
    switch (byte) {
    case CMD_SCALING_1:
    case CMD_SCALING_2:
        m->scaling = byte == CMD_SCALING_2;
        break;
    case CMD_RESOLUTION:
    case CMD_RATE:
        m->command = byte;
        break;
    case CMD_STATUS:
        put_status(m);
        break;
    case CMD_STREAM:
    case CMD_REMOTE:
        m->remote = byte == CMD_REMOTE;
        break;
    case CMD_READ:
        put_report(m, &m->replies);
        break;
    case CMD_WRAP_OFF:
    case CMD_WRAP:
        m->wrap = byte == CMD_WRAP;
        break;
    case CMD_ID:
        reply(m, m->id);
        break;
    case CMD_ENABLE:
    case CMD_DISABLE:
        m->reporting = byte == CMD_ENABLE;
        break;
    case CMD_DEFAULTS:
        defaults(m);
        break;
    case CMD_RESET:
        defaults(m);
        m->id = ID_STANDARD;
        m->rates[0] = m->rates[1] = 0;
        reply(m, PS2_BAT_OK);
        reply(m, ID_STANDARD);
        break;
    default:
        ps2_clear(&m->replies);
        refuse(m);
        return;
    }
    m->invalid = 0;
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
    /* A byte from the host ends the report that is on its way. */
    ps2_clear(&m->replies);
    ps2_clear(&m->reports);
    if (m->wrap && byte != CMD_WRAP_OFF && byte != CMD_RESET)
        reply(m, byte);
    else if (!write_argument(m, byte))
        write_command(m, byte);
}

enum ps2_kind ps2_mouse_read(struct ps2_mouse *m, uint8_t *byte)
{
    enum ps2_kind kind;

    if (!m->replies.count)
        stream(m); /* movement since the last report */
    kind = m->replies.count ? PS2_REPLY : m->reports.count ? PS2_REPORT : PS2_NOTHING;
    if (kind == PS2_NOTHING)
        return kind;
    *byte = ps2_pop(kind == PS2_REPLY ? &m->replies : &m->reports);
    if (*byte != PS2_RESEND)
        m->last = *byte;
    return kind;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    memset(m, 0, sizeof *m);
    defaults(m);
    m->last = PS2_BAT_OK;
}
