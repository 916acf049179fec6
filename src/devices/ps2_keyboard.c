/* SPDX-License-Identifier: BSD-2-Clause */
/* ps2_keyboard.c: 102-key PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference,
 * keyboards).
 *
 * Keys come as codes of set 1, from which set 2 follows by the inverse of the controller's
 * translation; set 3 has a table of its own. All bytes of a key go into the queue, or none: then
 * an overrun code ends it. */
#include "ps2.h"

#include <string.h>

#define NS_PER_MS 1000000ull

enum {
    CMD_LEDS = 0xed,
    CMD_ECHO = 0xee,
    CMD_SET = 0xf0,
    CMD_ID = 0xf2,
    CMD_RATE = 0xf3,
    CMD_ENABLE = 0xf4,
    CMD_DISABLE = 0xf5,
    CMD_DEFAULTS = 0xf6,
    CMD_ALL_TYPES = 0xf7, /* to 0xfa */
    CMD_ALL_BOTH = 0xfa,
    CMD_KEY_TYPE = 0xfb, /* to 0xfd */
    CMD_KEY_MAKE = 0xfd,
    CMD_RESEND = 0xfe,
    CMD_RESET = 0xff,
};

#define ID_FIRST  0xabu
#define ID_SECOND 0x83u

#define DEFAULT_SET  2u
#define DEFAULT_RATE 0x2bu /* 10.9 per second after 500 ms */

/* Key types of set 3. */
#define TYPE_REPEAT 1u
#define TYPE_BREAK  2u

#define KEY_EXTENDED     0x80u
#define KEY_PAUSE        0x80u /* an extended code that there is not */
#define KEY_CTRL         0x1du
#define KEY_LEFT_SHIFT   0x2au
#define KEY_RIGHT_SHIFT  0x36u
#define KEY_ALT          0x38u
#define KEY_PRINT        (KEY_EXTENDED | 0x37u)
#define KEY_BREAK        (KEY_EXTENDED | 0x46u) /* Pause with Ctrl */
#define KEY_SYSRQ        0x54u                  /* Print Screen with Alt */
#define KEY_SHIFT_OF_KEY (KEY_EXTENDED | KEY_LEFT_SHIFT)

/* ---- Scan codes ---- */

/* The 8042's ROM: from set 2 to set 1. */
static const uint8_t set2_to_set1[] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29,
    0x59, 0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11,
    0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14,
    0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24,
    0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35,
    0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36,
    0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c,
    0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45,
    0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, 0x80, 0x81, 0x82, 0x41, 0x54,
};

uint8_t ps2_translate(uint8_t byte)
{
    return byte < sizeof set2_to_set1 ? set2_to_set1[byte] : byte;
}

/* Searched from the end: F7 and SysRq have two codes each, of which the later is the keyboard's. */
static uint8_t set2_code(uint8_t set1)
{
    for (uint32_t i = sizeof set2_to_set1; i-- > 0;)
        if (set2_to_set1[i] == set1)
            return (uint8_t)i;
    return 0;
}

/* Set 3 has a code for each key, without prefixes. */
static const uint8_t set3_codes[PS2_KEYS] = {
    [0x01] = 0x08,
    [0x02] = 0x16,
    [0x03] = 0x1e,
    [0x04] = 0x26,
    [0x05] = 0x25,
    [0x06] = 0x2e,
    [0x07] = 0x36,
    [0x08] = 0x3d,
    [0x09] = 0x3e,
    [0x0a] = 0x46,
    [0x0b] = 0x45,
    [0x0c] = 0x4e,
    [0x0d] = 0x55,
    [0x0e] = 0x66,
    [0x0f] = 0x0d,
    [0x10] = 0x15,
    [0x11] = 0x1d,
    [0x12] = 0x24,
    [0x13] = 0x2d,
    [0x14] = 0x2c,
    [0x15] = 0x35,
    [0x16] = 0x3c,
    [0x17] = 0x43,
    [0x18] = 0x44,
    [0x19] = 0x4d,
    [0x1a] = 0x54,
    [0x1b] = 0x5b,
    [0x1c] = 0x5a,
    [0x1d] = 0x11,
    [0x1e] = 0x1c,
    [0x1f] = 0x1b,
    [0x20] = 0x23,
    [0x21] = 0x2b,
    [0x22] = 0x34,
    [0x23] = 0x33,
    [0x24] = 0x3b,
    [0x25] = 0x42,
    [0x26] = 0x4b,
    [0x27] = 0x4c,
    [0x28] = 0x52,
    [0x29] = 0x0e,
    [0x2a] = 0x12,
    [0x2b] = 0x5c,
    [0x2c] = 0x1a,
    [0x2d] = 0x22,
    [0x2e] = 0x21,
    [0x2f] = 0x2a,
    [0x30] = 0x32,
    [0x31] = 0x31,
    [0x32] = 0x3a,
    [0x33] = 0x41,
    [0x34] = 0x49,
    [0x35] = 0x4a,
    [0x36] = 0x59,
    [0x37] = 0x7e,
    [0x38] = 0x19,
    [0x39] = 0x29,
    [0x3a] = 0x14,
    [0x3b] = 0x07,
    [0x3c] = 0x0f,
    [0x3d] = 0x17,
    [0x3e] = 0x1f,
    [0x3f] = 0x27,
    [0x40] = 0x2f,
    [0x41] = 0x37,
    [0x42] = 0x3f,
    [0x43] = 0x47,
    [0x44] = 0x4f,
    [0x45] = 0x76,
    [0x46] = 0x5f,
    [0x47] = 0x6c,
    [0x48] = 0x75,
    [0x49] = 0x7d,
    [0x4a] = 0x84,
    [0x4b] = 0x6b,
    [0x4c] = 0x73,
    [0x4d] = 0x74,
    [0x4e] = 0x7c,
    [0x4f] = 0x69,
    [0x50] = 0x72,
    [0x51] = 0x7a,
    [0x52] = 0x70,
    [0x53] = 0x71,
    [0x54] = 0x57,
    [0x56] = 0x13,
    [0x57] = 0x56,
    [0x58] = 0x5e,
    /* extended */
    [KEY_PAUSE] = 0x62,
    [0x9c] = 0x79,
    [0x9d] = 0x58,
    [0xb5] = 0x77,
    [0xb7] = 0x57,
    [0xb8] = 0x39,
    [0xc6] = 0x62,
    [0xc7] = 0x6e,
    [0xc8] = 0x63,
    [0xc9] = 0x6f,
    [0xcb] = 0x61,
    [0xcd] = 0x6a,
    [0xcf] = 0x65,
    [0xd0] = 0x60,
    [0xd1] = 0x6d,
    [0xd2] = 0x67,
    [0xd3] = 0x64,
    [0xdb] = 0x8b,
    [0xdc] = 0x8c,
    [0xdd] = 0x8d,
};

static void default_types(struct ps2_keyboard *k)
{
    /* Caps lock, the shifts, left Ctrl and left Alt. */
    static const uint8_t make_break[] = {0x11, 0x12, 0x14, 0x19, 0x59};
    /* Function keys, Esc, right Ctrl and Alt, the keys of the blocks on the right but arrows and
     * Delete, and of the number pad what is no digit, comma or plus. */
    static const uint8_t make_only[] = {
        0x07, 0x08, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x56, 0x57, 0x58,
        0x5e, 0x5f, 0x62, 0x65, 0x67, 0x6d, 0x6e, 0x6f, 0x39, 0x76, 0x77, 0x7e, 0x84, 0x79,
    };

    memset(k->types, TYPE_REPEAT, sizeof k->types);
    for (uint32_t i = 0; i < sizeof make_break; i++)
        k->types[make_break[i]] = TYPE_BREAK;
    for (uint32_t i = 0; i < sizeof make_only; i++)
        k->types[make_only[i]] = 0;
}

/* ---- Key sequences ---- */

#define SEQUENCE_MAX 16u

struct sequence {
    uint32_t n;
    uint8_t bytes[SEQUENCE_MAX];
};

static void add(struct sequence *s, uint8_t byte)
{
    if (s->n < SEQUENCE_MAX)
        s->bytes[s->n++] = byte;
}

/* One key's make or break code in the current set. */
static void add_key(const struct ps2_keyboard *k, struct sequence *s, uint32_t key, int pressed)
{
    uint8_t set1 = key & 0x7f;

    if (k->set == 3) {
        uint8_t code = set3_codes[key];
        if (!code || (!pressed && !(k->types[code] & TYPE_BREAK)))
            return;
        if (!pressed)
            add(s, 0xf0);
        add(s, code);
        return;
    }
    if (key & KEY_EXTENDED)
        add(s, 0xe0);
    if (k->set == 1) {
        add(s, (uint8_t)(set1 | (pressed ? 0 : 0x80)));
    } else {
        if (!pressed)
            add(s, 0xf0);
        add(s, set2_code(set1));
    }
}

static int is_down(const struct ps2_keyboard *k, uint32_t key)
{
    return k->down[key] || k->down[key | KEY_EXTENDED];
}

/* Pause makes and breaks at once; with Ctrl it is Break. */
static void add_pause(const struct ps2_keyboard *k, struct sequence *s, int pressed)
{
    static const uint8_t set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    const uint8_t *bytes = k->set == 1 ? set1 : set2;
    uint32_t n = k->set == 1 ? sizeof set1 : sizeof set2;

    if (k->set == 3) {
        add_key(k, s, KEY_PAUSE, pressed);
    } else if (pressed && is_down(k, KEY_CTRL)) {
        add_key(k, s, KEY_BREAK, 1);
        add_key(k, s, KEY_BREAK, 0);
    } else if (pressed) {
        for (uint32_t i = 0; i < n; i++)
            add(s, bytes[i]);
    }
}

/* Print Screen comes with a shift of its own, unless there is one, and with Alt it is SysRq. */
static void add_print(struct ps2_keyboard *k, struct sequence *s, int pressed)
{
    if (pressed) {
        k->print_sysrq = is_down(k, KEY_ALT);
        k->print_alone = is_down(k, KEY_CTRL) || k->down[KEY_LEFT_SHIFT] ||
                         k->down[KEY_RIGHT_SHIFT] || k->set == 3;
    }
    if (k->print_sysrq) {
        add_key(k, s, KEY_SYSRQ, pressed);
        return;
    }
    if (pressed && !k->print_alone)
        add_key(k, s, KEY_SHIFT_OF_KEY, 1);
    add_key(k, s, KEY_PRINT, pressed);
    if (!pressed && !k->print_alone)
        add_key(k, s, KEY_SHIFT_OF_KEY, 0);
}

static void report(struct ps2_keyboard *k, const struct sequence *s)
{
    if (k->overrun || !s->n)
        return;
    if (k->reports.count + s->n >= PS2_QUEUE) { /* the last place is for the overrun code */
        ps2_push(&k->reports, k->set == 1 ? 0xff : 0x00);
        k->overrun = 1;
        return;
    }
    for (uint32_t i = 0; i < s->n; i++)
        ps2_push(&k->reports, s->bytes[i]);
}

/* ---- Keys ---- */

/* Bits 6:5 of the rate: the delay in units of 250 ms; bits 4:0: the period. */
static uint64_t repeat_delay(const struct ps2_keyboard *k)
{
    return ((k->rate >> 5 & 3) + 1) * 250 * NS_PER_MS;
}

static uint64_t repeat_period(const struct ps2_keyboard *k)
{
    return (8 + (k->rate & 7ull)) * (1ull << (k->rate >> 3 & 3)) * 4170000;
}

static void repeat_stop(struct ps2_keyboard *k)
{
    k->repeat_key = 0;
    k->repeat_at = PS2_NEVER;
}

static int repeats(const struct ps2_keyboard *k, uint32_t key)
{
    if (k->set == 3)
        return k->types[set3_codes[key]] & TYPE_REPEAT;
    return key != KEY_PAUSE;
}

/* The key's number; 0 for what no keyboard has. */
static uint32_t key_of(uint32_t scancode)
{
    if (scancode == 0xe11d)
        return KEY_PAUSE;
    if (scancode > 0xe000 && scancode < 0xe080)
        return KEY_EXTENDED | (scancode & 0x7f);
    return scancode < 0x80 ? scancode : 0;
}

void ps2_keyboard_key(struct ps2_keyboard *k, uint32_t scancode, int pressed, uint64_t now)
{
    struct sequence s = {0};
    uint32_t key = key_of(scancode);

    pressed = !!pressed;
    if (!key || k->down[key] == pressed)
        return; /* the host's own repetition: the keyboard has one */
    k->down[key] = (uint8_t)pressed;
    if (!k->scanning)
        return;
    if (key == KEY_PAUSE)
        add_pause(k, &s, pressed);
    else if (key == KEY_PRINT)
        add_print(k, &s, pressed);
    else
        add_key(k, &s, key, pressed);
    report(k, &s);
    if (pressed && repeats(k, key)) {
        k->repeat_key = key;
        k->repeat_at = now + repeat_delay(k);
    } else if (pressed || key == k->repeat_key) {
        repeat_stop(k);
    }
}

void ps2_keyboard_repeat(struct ps2_keyboard *k, uint64_t now)
{
    struct sequence s = {0};

    if (!k->repeat_key || now < k->repeat_at)
        return;
    /* Repetitions that nobody reads do not pile up. */
    if (!k->reports.count) {
        if (k->repeat_key == KEY_PRINT && k->print_sysrq)
            add_key(k, &s, KEY_SYSRQ, 1);
        else
            add_key(k, &s, k->repeat_key, 1);
        report(k, &s);
    }
    k->repeat_at = now + repeat_period(k);
}

/* ---- Commands ---- */

static void reply(struct ps2_keyboard *k, uint8_t byte)
{
    ps2_push(&k->replies, byte);
}

static void clear_reports(struct ps2_keyboard *k)
{
    ps2_clear(&k->reports);
    k->overrun = 0;
    repeat_stop(k);
}

static void defaults(struct ps2_keyboard *k)
{
    clear_reports(k);
    k->rate = DEFAULT_RATE;
    k->set = DEFAULT_SET;
    default_types(k);
}

/* Returns 0 if the byte is no argument of the command that waits for one. */
static int write_argument(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->command;

    k->command = 0;
    if (!command || byte >= CMD_LEDS)
        return 0; /* a new command takes the place of the old one */
    switch (command) {
    case CMD_LEDS:
        k->leds = byte & 7;
        break;
    case CMD_RATE:
        k->rate = byte & 0x7f;
        break;
    case CMD_SET:
        if (byte > 3)
            return 0;
        reply(k, PS2_ACK);
        if (byte) {
            clear_reports(k);
            k->set = byte;
        } else {
            reply(k, k->set);
        }
        return 1;
    default: /* types of single keys, until the next command */
        k->types[byte] = command == CMD_KEY_TYPE       ? TYPE_REPEAT
                         : command == CMD_KEY_TYPE + 1 ? TYPE_BREAK
                                                       : 0;
        k->command = command;
        break;
    }
    reply(k, PS2_ACK);
    return 1;
}

static void write_command(struct ps2_keyboard *k, uint8_t byte)
{
    static const uint8_t all_types[] = {TYPE_REPEAT, TYPE_BREAK, 0, TYPE_REPEAT | TYPE_BREAK};

    switch (byte) {
    case CMD_ECHO:
        reply(k, CMD_ECHO);
        return;
    case CMD_RESEND:
        reply(k, k->last);
        return;
    case CMD_LEDS:
    case CMD_SET:
    case CMD_RATE:
        k->command = byte;
        break;
    case CMD_ID:
        reply(k, PS2_ACK);
        reply(k, ID_FIRST);
        reply(k, ID_SECOND);
        return;
    case CMD_ENABLE:
        clear_reports(k);
        k->scanning = 1;
        break;
    case CMD_DISABLE:
        defaults(k);
        k->scanning = 0;
        break;
    case CMD_DEFAULTS:
        defaults(k);
        break;
    case CMD_RESET:
        defaults(k);
        k->scanning = 1;
        k->leds = 0;
        reply(k, PS2_ACK);
        reply(k, PS2_BAT_OK);
        return;
    default:
        if (byte >= CMD_ALL_TYPES && byte <= CMD_ALL_BOTH) {
            memset(k->types, all_types[byte - CMD_ALL_TYPES], sizeof k->types);
        } else if (byte >= CMD_KEY_TYPE && byte <= CMD_KEY_MAKE) {
            k->command = byte;
        } else {
            reply(k, PS2_RESEND);
            return;
        }
        break;
    }
    reply(k, PS2_ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
    ps2_clear(&k->replies); /* a new byte ends what the keyboard was about to say */
    if (!write_argument(k, byte))
        write_command(k, byte);
}

enum ps2_kind ps2_keyboard_read(struct ps2_keyboard *k, uint8_t *byte)
{
    enum ps2_kind kind = k->replies.count ? PS2_REPLY : k->reports.count ? PS2_REPORT : PS2_NOTHING;

    if (kind == PS2_NOTHING)
        return kind;
    *byte = ps2_pop(kind == PS2_REPLY ? &k->replies : &k->reports);
    if (*byte != PS2_RESEND)
        k->last = *byte;
    if (!k->reports.count)
        k->overrun = 0;
    return kind;
}

/* Power-on, with the self-test passed and its result taken by firmware. */
void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    memset(k, 0, sizeof *k);
    defaults(k);
    k->scanning = 1;
    k->last = PS2_BAT_OK;
}
