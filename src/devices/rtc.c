/* SPDX-License-Identifier: BSD-2-Clause */
/* rtc.c: MC146818A real-time clock and the CMOS RAM of a PC at ports 0x70/0x71.
 *
 * While the clock runs, its date follows from the guest clock, and the registers are computed when
 * read; while it is stopped (SET, or the divider in reset) they are plain bytes. Flags of register
 * C are brought up to date on access; a timer runs only for interrupts that the guest enabled, and
 * not again before it has read register C, so that an inattentive guest costs nothing. A paused
 * VM's clock stands still. */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "device.h"
#include "pc_timers.h"

#define RTC_PORT 0x70
#define RTC_LINE 8
#define CMOS_LEN 128
#define XTAL_HZ  32768u
#define UIP_NS   2228000 /* UIP is set 244 us before an update, which takes 1984 us */
#define NEVER    UINT64_MAX
#define DAY_SECS 86400

enum {
    RTC_SEC = 0,
    RTC_SEC_ALARM = 1,
    RTC_MIN = 2,
    RTC_MIN_ALARM = 3,
    RTC_HOUR = 4,
    RTC_HOUR_ALARM = 5,
    RTC_WDAY = 6,
    RTC_MDAY = 7,
    RTC_MONTH = 8,
    RTC_YEAR = 9,
    RTC_A = 10,
    RTC_B = 11,
    RTC_C = 12,
    RTC_D = 13,
    RTC_CENTURY = 0x32,
};

/* What PC firmware keeps in CMOS; the high addresses are those that SeaBIOS knows. */
enum {
    CMOS_SHUTDOWN = 0x0f,
    CMOS_FLOPPY = 0x10,
    CMOS_EQUIPMENT = 0x14,
    CMOS_BASE_KB = 0x15,     /* 2 bytes */
    CMOS_EXT_KB = 0x17,      /* 2 bytes: from 1 MiB on, at most 64 MiB - 1 KiB */
    CMOS_CHECKSUM = 0x2e,    /* 2 bytes, high first: sum of 0x10-0x2d */
    CMOS_EXT_KB2 = 0x30,     /* the same as 0x17 */
    CMOS_EXT_64K = 0x34,     /* 2 bytes: from 16 MiB on to 4 GiB, in 64 KiB */
    CMOS_BOOT_ORDER2 = 0x38, /* third boot device, and "do not check the floppy signature" */
    CMOS_BOOT_ORDER = 0x3d,  /* first and second boot device: 2 is the disk, 3 the CD */
    CMOS_HIGH_64K = 0x5b,    /* 3 bytes: from 4 GiB on, in 64 KiB */
    CMOS_AP_COUNT = 0x5f,    /* vCPUs other than the first */
};

#define A_RS      0x0fu
#define A_DV      0x70u
#define A_DV_RUN  0x20u
#define A_UIP     0x80u
#define B_24H     0x02u
#define B_DM      0x04u /* binary */
#define B_UIE     0x10u
#define B_AIE     0x20u
#define B_PIE     0x40u
#define B_SET     0x80u
#define C_UF      0x10u
#define C_AF      0x20u
#define C_PF      0x40u
#define C_IRQF    0x80u
#define D_VRT     0x80u
#define HOUR_PM   0x80u
#define ALARM_ANY 0xc0u

struct vmm_rtc {
    struct vm *vm;
    pthread_mutex_t lock;
    struct pio *pio;
    struct vmm_timer *timer;
    uint8_t cmos[CMOS_LEN];
    uint8_t index;
    uint8_t connected;
    int64_t base_sec;    /* seconds since 1970 ... */
    int64_t base_clock;  /* ... that began at this vm_clock */
    int64_t seen;        /* last second, since 1970, that flags account for */
    uint64_t seen_ticks; /* last periodic tick that flags account for */
};

/* ---- Civil time ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Days since 1970-01-01 of a date of the Gregorian calendar; month 1-12. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
    static const uint16_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int64_t y = year - (month <= 2); /* the last year whose leap day lies before this date */
    int64_t leaps = floor_div(y, 4) - floor_div(y, 100) + floor_div(y, 400);

    return (year - 1970) * 365 + leaps - (1969 / 4 - 1969 / 100 + 1969 / 400) + before[month - 1] +
           day - 1;
}

struct date {
    int64_t year, month, day, wday, hour, min, sec; /* wday: 1 is Sunday */
};

static struct date date_from_seconds(int64_t seconds)
{
    int64_t days = floor_div(seconds, DAY_SECS), rest = seconds - days * DAY_SECS;
    struct date d = {.hour = rest / 3600, .min = rest / 60 % 60, .sec = rest % 60};

    d.wday = ((days + 4) % 7 + 7) % 7 + 1; /* 1970-01-01 was a Thursday */
    d.year = 1970 + floor_div(days, days < 0 ? 365 : 366);
    while (days_from_date(d.year + 1, 1, 1) <= days)
        d.year++;
    for (d.month = 12; days_from_date(d.year, d.month, 1) > days; d.month--)
        ;
    d.day = days - days_from_date(d.year, d.month, 1) + 1;
    return d;
}

/* ---- Register formats ---- */

static uint8_t encode(const struct vmm_rtc *rtc, int64_t v)
{
    return (uint8_t)(rtc->cmos[RTC_B] & B_DM ? v : v / 10 << 4 | v % 10);
}

static int64_t decode(const struct vmm_rtc *rtc, uint8_t v)
{
    return rtc->cmos[RTC_B] & B_DM ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct vmm_rtc *rtc, int64_t hour)
{
    if (rtc->cmos[RTC_B] & B_24H)
        return encode(rtc, hour);
    return (uint8_t)(encode(rtc, (hour + 11) % 12 + 1) | (hour >= 12 ? HOUR_PM : 0));
}

static int64_t decode_hour(const struct vmm_rtc *rtc, uint8_t v)
{
    if (rtc->cmos[RTC_B] & B_24H)
        return decode(rtc, v);
    return decode(rtc, v & (uint8_t)~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

static void store_date(struct vmm_rtc *rtc, int64_t seconds)
{
    struct date d = date_from_seconds(seconds);

    rtc->cmos[RTC_SEC] = encode(rtc, d.sec);
    rtc->cmos[RTC_MIN] = encode(rtc, d.min);
    rtc->cmos[RTC_HOUR] = encode_hour(rtc, d.hour);
    rtc->cmos[RTC_WDAY] = encode(rtc, d.wday);
    rtc->cmos[RTC_MDAY] = encode(rtc, d.day);
    rtc->cmos[RTC_MONTH] = encode(rtc, d.month);
    rtc->cmos[RTC_YEAR] = encode(rtc, d.year % 100);
    rtc->cmos[RTC_CENTURY] = encode(rtc, d.year / 100 % 100);
}

/* Any bytes give some date, not before the year 0. */
static int64_t load_date(const struct vmm_rtc *rtc)
{
    int64_t month = decode(rtc, rtc->cmos[RTC_MONTH]);
    int64_t year = decode(rtc, rtc->cmos[RTC_CENTURY]) * 100 + decode(rtc, rtc->cmos[RTC_YEAR]);
    int64_t day = decode(rtc, rtc->cmos[RTC_MDAY]);
    int64_t days;

    month = month < 1 ? 1 : month > 12 ? 12 : month;
    days = days_from_date(year, month, day < 1 ? 1 : day);
    return days * DAY_SECS + decode_hour(rtc, rtc->cmos[RTC_HOUR]) * 3600 +
           decode(rtc, rtc->cmos[RTC_MIN]) * 60 + decode(rtc, rtc->cmos[RTC_SEC]);
}

/* ---- Time ---- */

static int divider_runs(const struct vmm_rtc *rtc)
{
    return (rtc->cmos[RTC_A] & 0x60u) != 0x60u;
}

static int is_running(const struct vmm_rtc *rtc)
{
    return !(rtc->cmos[RTC_B] & B_SET) && divider_runs(rtc);
}

static int64_t rtc_seconds(const struct vmm_rtc *rtc, uint64_t clock)
{
    return rtc->base_sec + floor_div((int64_t)clock - rtc->base_clock, (int64_t)NS_PER_SEC);
}

/* Nanoseconds of the current second that are over. */
static int64_t rtc_fraction(const struct vmm_rtc *rtc, uint64_t clock)
{
    int64_t ns = (int64_t)clock - rtc->base_clock;

    return ns - floor_div(ns, (int64_t)NS_PER_SEC) * (int64_t)NS_PER_SEC;
}

/* Sets the date so that `fraction` ns of the second are over now. */
static void rtc_start(struct vmm_rtc *rtc, uint64_t clock, int64_t seconds, int64_t fraction)
{
    rtc->base_sec = rtc->seen = seconds;
    rtc->base_clock = (int64_t)clock - fraction;
}

/* Periods of the square wave and periodic interrupt, as a power of two of the crystal; 0: none. */
static uint32_t periodic_shift(const struct vmm_rtc *rtc)
{
    uint32_t rs = rtc->cmos[RTC_A] & A_RS;

    if (!rs || !divider_runs(rtc))
        return 0;
    return rs <= 2 ? rs + 6 : rs - 1; /* data sheet, table 5, 32.768 kHz time base */
}

static uint64_t periodic_ticks(const struct vmm_rtc *rtc, uint64_t clock)
{
    return ns_to_ticks(clock, XTAL_HZ) >> periodic_shift(rtc);
}

static int alarm_matches(const struct vmm_rtc *rtc, uint32_t reg, int64_t v)
{
    uint8_t alarm = rtc->cmos[reg];

    if ((alarm & ALARM_ANY) == ALARM_ANY)
        return 1;
    return alarm == (reg == RTC_HOUR_ALARM ? encode_hour(rtc, v) : encode(rtc, v));
}

/* Whether any value below `n` matches: a hostile alarm byte must not make the search long. */
static int alarm_possible(const struct vmm_rtc *rtc, uint32_t reg, int64_t n)
{
    while (n && !alarm_matches(rtc, reg, n - 1))
        n--;
    return n != 0;
}

/* The first second after `t` at which the alarm matches, INT64_MAX if it never does. */
static int64_t next_alarm(const struct vmm_rtc *rtc, int64_t t)
{
    int64_t end = t + DAY_SECS; /* the search skips hours and minutes: at most 144 steps */

    if (!alarm_possible(rtc, RTC_HOUR_ALARM, 24) || !alarm_possible(rtc, RTC_MIN_ALARM, 60) ||
        !alarm_possible(rtc, RTC_SEC_ALARM, 60))
        return INT64_MAX;
    for (t++; t <= end;) {
        int64_t day = t - floor_div(t, DAY_SECS) * DAY_SECS;
        if (!alarm_matches(rtc, RTC_HOUR_ALARM, day / 3600))
            t += 3600 - day % 3600;
        else if (!alarm_matches(rtc, RTC_MIN_ALARM, day / 60 % 60))
            t += 60 - day % 60;
        else if (!alarm_matches(rtc, RTC_SEC_ALARM, day % 60))
            t++;
        else
            return t;
    }
    return INT64_MAX;
}

/* Brings register C up to date and the interrupt line with it. */
static void rtc_sync(struct vmm_rtc *rtc, uint64_t clock)
{
    uint8_t *c = &rtc->cmos[RTC_C];

    if (is_running(rtc)) {
        int64_t now = rtc_seconds(rtc, clock);
        if (now > rtc->seen) {
            *c |= C_UF;
            if (!(*c & C_AF) && next_alarm(rtc, rtc->seen) <= now)
                *c |= C_AF;
            rtc->seen = now;
        }
    }
    if (periodic_shift(rtc)) {
        uint64_t ticks = periodic_ticks(rtc, clock);
        if (ticks > rtc->seen_ticks)
            *c |= C_PF;
        rtc->seen_ticks = ticks;
    }
    *c &= (uint8_t)~C_IRQF;
    if (*c & rtc->cmos[RTC_B] & (C_UF | C_AF | C_PF))
        *c |= C_IRQF;
    if (rtc->connected)
        vm_irq_set(rtc->vm, RTC_LINE, *c & C_IRQF);
}

/* Sets the timer for the next flag that would interrupt. Flags already set need none. */
static void rtc_arm(struct vmm_rtc *rtc)
{
    uint8_t wanted = rtc->cmos[RTC_B] & (uint8_t)~rtc->cmos[RTC_C];
    uint64_t deadline = NEVER;
    int64_t second = INT64_MAX;

    if (rtc->cmos[RTC_C] & C_IRQF)
        wanted = 0;
    if (is_running(rtc) && (wanted & B_AIE))
        second = next_alarm(rtc, rtc->seen);
    if (is_running(rtc) && (wanted & B_UIE))
        second = rtc->seen + 1;
    if (second != INT64_MAX)
        deadline = (uint64_t)(rtc->base_clock + (second - rtc->base_sec) * (int64_t)NS_PER_SEC);
    if ((wanted & B_PIE) && periodic_shift(rtc)) {
        uint64_t tick = ticks_to_ns((rtc->seen_ticks + 1) << periodic_shift(rtc), XTAL_HZ);
        deadline = tick < deadline ? tick : deadline;
    }
    if (deadline == NEVER)
        vm_timer_cancel(rtc->timer);
    else
        vm_timer_set(rtc->timer, deadline);
}

static void rtc_fire(void *opaque, uint64_t deadline)
{
    struct vmm_rtc *rtc = opaque;

    (void)deadline;
    pthread_mutex_lock(&rtc->lock);
    rtc_sync(rtc, vm_clock(rtc->vm));
    rtc_arm(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

void rtc_connect(struct vmm_rtc *rtc, int connected)
{
    pthread_mutex_lock(&rtc->lock);
    rtc->connected = (uint8_t)connected;
    if (connected)
        rtc_sync(rtc, vm_clock(rtc->vm));
    pthread_mutex_unlock(&rtc->lock);
}

/* ---- Registers ---- */

static int is_date_reg(uint32_t index)
{
    return index == RTC_CENTURY || (index <= RTC_YEAR && index != RTC_SEC_ALARM &&
                                    index != RTC_MIN_ALARM && index != RTC_HOUR_ALARM);
}

static uint8_t cmos_read(struct vmm_rtc *rtc, uint32_t index, int side_effects)
{
    uint64_t clock = vm_clock(rtc->vm);
    uint8_t value;

    rtc_sync(rtc, clock);
    if (is_date_reg(index) && is_running(rtc))
        store_date(rtc, rtc_seconds(rtc, clock));
    value = rtc->cmos[index];
    if (index == RTC_A && is_running(rtc)) {
        if (rtc_fraction(rtc, clock) >= (int64_t)NS_PER_SEC - UIP_NS)
            value |= A_UIP;
    }
    if (index == RTC_C && side_effects) {
        rtc->cmos[RTC_C] = 0;
        rtc_sync(rtc, clock);
        rtc_arm(rtc);
    }
    return value;
}

/* Registers A and B: what stops and starts the clock. */
static void control_write(struct vmm_rtc *rtc, uint32_t index, uint8_t value, uint64_t clock)
{
    int ran = is_running(rtc), divided = divider_runs(rtc);
    int64_t second = rtc_seconds(rtc, clock);

    if (ran)
        store_date(rtc, second);
    if (index == RTC_A) {
        rtc->cmos[RTC_A] = value & (uint8_t)~A_UIP;
        rtc->seen_ticks = periodic_shift(rtc) ? periodic_ticks(rtc, clock) : 0;
        /* Leaving divider reset, the first update comes half a second later. */
        if (!divided && divider_runs(rtc))
            rtc_start(rtc, clock, second, NS_PER_SEC / 2);
    } else {
        if (value & B_SET)
            value &= (uint8_t)~B_UIE; /* SET clears UIE */
        if (ran && ((value ^ rtc->cmos[RTC_B]) & (B_DM | B_24H))) {
            rtc->cmos[RTC_B] = value;
            store_date(rtc, second); /* the running clock goes on in the new format */
        }
        rtc->cmos[RTC_B] = value;
    }
    if (!ran && is_running(rtc))
        rtc_start(rtc, clock, load_date(rtc), rtc_fraction(rtc, clock));
}

static void cmos_write(struct vmm_rtc *rtc, uint32_t index, uint8_t value)
{
    uint64_t clock = vm_clock(rtc->vm);

    rtc_sync(rtc, clock);
    if (index == RTC_C || index == RTC_D)
        return;
    if (index == RTC_A || index == RTC_B) {
        control_write(rtc, index, value, clock);
    } else if (is_date_reg(index) && is_running(rtc)) {
        store_date(rtc, rtc_seconds(rtc, clock));
        rtc->cmos[index] = value;
        rtc_start(rtc, clock, load_date(rtc), rtc_fraction(rtc, clock));
    } else {
        rtc->cmos[index] = value;
    }
    rtc_sync(rtc, clock);
    rtc_arm(rtc);
}

static int rtc_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_rtc *rtc = opaque;

    (void)size;
    if (offset == 0)
        return VMM_IO_NOBODY; /* the index cannot be read */
    pthread_mutex_lock(&rtc->lock);
    *value = cmos_read(rtc, rtc->index, 1);
    pthread_mutex_unlock(&rtc->lock);
    return VMM_IO_OK;
}

static int rtc_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_rtc *rtc = opaque;

    (void)size;
    pthread_mutex_lock(&rtc->lock);
    if (offset == 0)
        rtc->index = value & (CMOS_LEN - 1); /* bit 7 would mask NMI */
    else
        cmos_write(rtc, rtc->index, (uint8_t)value);
    pthread_mutex_unlock(&rtc->lock);
    return VMM_IO_OK;
}

static void put(struct vmm_rtc *rtc, uint32_t index, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        rtc->cmos[index + i] = (uint8_t)(value >> (8 * i));
}

/* Sum of the bytes that firmware protects, high byte first. */
static void put_checksum(struct vmm_rtc *rtc)
{
    uint32_t sum = 0;

    for (uint32_t i = CMOS_FLOPPY; i < CMOS_CHECKSUM; i++)
        sum += rtc->cmos[i];
    rtc->cmos[CMOS_CHECKSUM] = (uint8_t)(sum >> 8);
    rtc->cmos[CMOS_CHECKSUM + 1] = (uint8_t)sum;
}

uint8_t vmm_rtc_get(struct vmm_rtc *rtc, uint32_t index)
{
    uint8_t value;

    if (!rtc)
        return 0;
    pthread_mutex_lock(&rtc->lock);
    value = cmos_read(rtc, index % CMOS_LEN, 0);
    pthread_mutex_unlock(&rtc->lock);
    return value;
}

void vmm_rtc_set(struct vmm_rtc *rtc, uint32_t index, uint8_t value)
{
    if (!rtc)
        return;
    pthread_mutex_lock(&rtc->lock);
    cmos_write(rtc, index % CMOS_LEN, value);
    if (index % CMOS_LEN >= CMOS_FLOPPY && index % CMOS_LEN < CMOS_CHECKSUM)
        put_checksum(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

/* ---- Life cycle ---- */

static uint64_t saturate(uint64_t value, uint64_t max)
{
    return value < max ? value : max;
}

static void init_cmos(struct vmm_rtc *rtc, const struct vmm_rtc_config *c)
{
    uint64_t low = c->memory_below_4g;
    uint64_t ext = low > 0x100000 ? (low - 0x100000) >> 10 : 0;
    uint64_t above_16m = low > 0x1000000 ? (low - 0x1000000) >> 16 : 0;

    put(rtc, RTC_A, A_DV_RUN | 6, 1); /* 32.768 kHz, 1024 Hz */
    put(rtc, RTC_B, B_24H, 1);
    put(rtc, RTC_D, D_VRT, 1);
    put(rtc, CMOS_EQUIPMENT, 0x06, 1); /* FPU and PS/2 mouse, no floppy */
    put(rtc, CMOS_BASE_KB, saturate(low >> 10, 640), 2);
    put(rtc, CMOS_EXT_KB, saturate(ext, 0xffff), 2);
    put(rtc, CMOS_EXT_KB2, saturate(ext, 0xffff), 2);
    put(rtc, CMOS_EXT_64K, saturate(above_16m, 0xffff), 2);
    put(rtc, CMOS_HIGH_64K, saturate(c->memory_above_4g >> 16, 0xffffff), 3);
    put(rtc, CMOS_BOOT_ORDER, 0x32, 1);
    put_checksum(rtc);
}

/* RESET clears the interrupt enables and flags only (data sheet, "RESET"): time and RAM have a
 * battery. The divider is as firmware would leave it. */
static void rtc_reset(void *opaque)
{
    struct vmm_rtc *rtc = opaque;
    uint64_t clock;

    pthread_mutex_lock(&rtc->lock);
    clock = vm_clock(rtc->vm);
    rtc_sync(rtc, clock);
    control_write(rtc, RTC_A, A_DV_RUN | 6, clock);
    control_write(rtc, RTC_B, B_24H, clock);
    rtc->cmos[RTC_C] = 0;
    rtc->index = 0;
    rtc->connected = 1;
    rtc_sync(rtc, clock);
    rtc_arm(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

static void rtc_stop(void *opaque)
{
    struct vmm_rtc *rtc = opaque;

    pio_unregister(rtc->pio);
    vm_timer_destroy(rtc->timer);
    pthread_mutex_destroy(&rtc->lock);
    free(rtc);
}

int vmm_rtc_create(struct vm *vm, const struct vmm_rtc_config *config, struct vmm_rtc **out)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .max_access = 1,
        .name = "rtc",
        .read = rtc_read,
        .write = rtc_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "rtc", .reset = rtc_reset, .stop = rtc_stop};
    struct vmm_rtc_config c;
    struct vmm_rtc *rtc;
    struct timespec host;
    uint64_t clock;
    int r = config_copy(&c, sizeof c, config);

    if (!r && c.reserved)
        r = VMM_E_UNSUPPORTED;
    if (r)
        return vm_fail(vm, r, "vmm_rtc_create", "bad config");
    if (c.epoch < -62135596800 || c.epoch > 253402300799) /* years 1 to 9999 */
        return vm_fail(vm, VMM_E_RANGE, "vmm_rtc_create", "epoch %lld", (long long)c.epoch);
    rtc = calloc(1, sizeof *rtc);
    if (!rtc)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_rtc_create", "no memory");
    rtc->vm = vm;
    rtc->connected = 1;
    pthread_mutex_init(&rtc->lock, NULL);
    init_cmos(rtc, &c);
    clock = vm_clock(vm);
    clock_gettime(CLOCK_REALTIME, &host);
    rtc_start(rtc, clock, c.epoch ? c.epoch : host.tv_sec, c.epoch ? 0 : host.tv_nsec);
    rtc->seen_ticks = periodic_ticks(rtc, clock);
    r = vm_timer_create(vm, rtc_fire, rtc, &rtc->timer);
    if (!r)
        r = pio_register(vm, RTC_PORT, 2, &io, rtc, &rtc->pio);
    if (!r)
        r = vm_device_add(vm, &ops, rtc, NULL);
    if (r)
        rtc_stop(rtc);
    else if (out)
        *out = rtc;
    return r;
}
