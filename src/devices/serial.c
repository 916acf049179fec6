/* SPDX-License-Identifier: BSD-2-Clause */
/* serial.c: 16550A UART (National Semiconductor PC16550D data sheet, June 1995).
 *
 * Bytes leave at once, without the delay of a line; what the program's output callback does not
 * take waits in the transmitter, so that THRE tells the guest to wait. Bytes for the guest wait in
 * a buffer of the host's and move into the receiver as it has room, so only loopback can overrun.
 * All eight bits travel whatever the word length: small guests print without programming LCR.
 * The lock is not held during output: one thread at a time drains the transmitter (tx_busy). */
#include <pthread.h>
#include <stdlib.h>

#include "device.h"

/* Registers; 0 and 1 are the divisor latch when LCR.DLAB is set. */
enum {
    REG_DATA = 0, /* RBR, THR, DLL */
    REG_IER = 1,  /* and DLM */
    REG_IIR = 2,  /* FCR when written */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
    REGS = 8,
};

#define IER_RDA  0x01u
#define IER_THRE 0x02u
#define IER_RLS  0x04u
#define IER_MSR  0x08u
#define IER_MASK 0x0fu

/* Interrupt identification, table 3 of the data sheet. */
#define IIR_NONE 0x01u
#define IIR_MSR  0x00u
#define IIR_THRE 0x02u
#define IIR_RDA  0x04u
#define IIR_RLS  0x06u
#define IIR_CTI  0x0cu
#define IIR_FIFO 0xc0u

#define FCR_ENABLE   0x01u
#define FCR_RX_RESET 0x02u
#define FCR_TX_RESET 0x04u

#define LCR_WLEN   0x03u
#define LCR_STB    0x04u
#define LCR_PARITY 0x08u
#define LCR_BREAK  0x40u
#define LCR_DLAB   0x80u

#define MCR_DTR  0x01u
#define MCR_RTS  0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_MASK 0x1fu

#define LSR_DR     0x01u
#define LSR_OE     0x02u
#define LSR_PE     0x04u
#define LSR_FE     0x08u
#define LSR_BI     0x10u
#define LSR_THRE   0x20u
#define LSR_TEMT   0x40u
#define LSR_FIFO   0x80u
#define LSR_ERRORS (LSR_OE | LSR_PE | LSR_FE | LSR_BI)

#define MSR_DCTS  0x01u
#define MSR_TERI  0x04u
#define MSR_CTS   0x10u
#define MSR_DSR   0x20u
#define MSR_RI    0x40u
#define MSR_DCD   0x80u
#define MSR_LINES 0xf0u

#define FIFO_LEN    16u
#define HOST_LEN    4096u
#define HOST_RING   (HOST_LEN + FIFO_LEN) /* room for what rx_unread gives back */
#define UART_HZ     1843200u
#define DIVISOR_POR 12u /* 9600 baud */
#define POLLS       4u  /* reads of LSR in a row that show a guest waiting for input */

struct vmm_serial {
    struct vm *vm;
    pthread_mutex_t lock;
    uint16_t irq;
    size_t (*output)(void *opaque, const uint8_t *bytes, size_t n);
    void *output_opaque;
    struct pio *pio;
    struct vmm_timer *timer; /* character timeout */

    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr; /* lsr: error bits only */
    uint16_t divisor;
    int thre_pending;    /* THRE interrupt, until IIR is read or THR written */
    int timeout_pending; /* character timeout, until RBR is read */

    /* Receiver: low byte the character, high byte its LSR_PE, LSR_FE and LSR_BI. */
    uint16_t rx[FIFO_LEN];
    uint32_t rx_head, rx_count;
    uint16_t host[HOST_RING];
    uint32_t host_head, host_count;
    int flow;       /* VMM_SERIAL_FLOW */
    uint32_t polls; /* reads of LSR since the last write, with nothing to do; up to POLLS */

    uint8_t tx[FIFO_LEN];
    uint32_t tx_head, tx_count;
    uint32_t tx_epoch;    /* changes when the guest clears the transmitter */
    int tx_busy;          /* a thread is in output() */
    int tx_blocked;       /* output() took less than it was offered */
    uint32_t tx_writable; /* calls of vmm_serial_writable */
};

static int fifo_on(const struct vmm_serial *s)
{
    return s->fcr & FCR_ENABLE;
}

static uint32_t fifo_len(const struct vmm_serial *s)
{
    return fifo_on(s) ? FIFO_LEN : 1;
}

static uint32_t rx_trigger(const struct vmm_serial *s)
{
    static const uint8_t levels[] = {1, 4, 8, 14};

    return fifo_on(s) ? levels[s->fcr >> 6] : 1;
}

/* ---- Interrupts ---- */

/* The pending source of the highest priority (data sheet, 8.6). */
static uint32_t serial_iir(const struct vmm_serial *s)
{
    if ((s->ier & IER_RLS) && (s->lsr & LSR_ERRORS))
        return IIR_RLS;
    if ((s->ier & IER_RDA) && s->rx_count >= rx_trigger(s))
        return IIR_RDA;
    if ((s->ier & IER_RDA) && s->timeout_pending)
        return IIR_CTI;
    if ((s->ier & IER_THRE) && s->thre_pending)
        return IIR_THRE;
    if ((s->ier & IER_MSR) && (s->msr & ~MSR_LINES))
        return IIR_MSR;
    return IIR_NONE;
}

/* On a PC the interrupt pin reaches the bus through a buffer that OUT2 opens. The bit
 * counts in loopback too: diagnostics expect interrupts to be "fully operational" there (8.7). */
static void serial_update_irq(struct vmm_serial *s)
{
    if (s->irq != VMM_IRQ_NONE)
        vm_irq_set(s->vm, s->irq, (s->mcr & MCR_OUT2) && serial_iir(s) != IIR_NONE);
}

/* ---- Receiver ---- */

/* The timeout interrupt: characters below the trigger level, and neither arrival nor read for four
 * character times (data sheet, 8.4). */
static void rx_restart_timeout(struct vmm_serial *s)
{
    uint64_t bits =
        1 + 5 + (s->lcr & LCR_WLEN) + !!(s->lcr & LCR_PARITY) + 1 + !!(s->lcr & LCR_STB);
    uint64_t clocks = 4 * bits * 16 * (s->divisor ? s->divisor : 0x10000u);

    if (fifo_on(s) && s->rx_count && s->rx_count < rx_trigger(s))
        vm_timer_set(s->timer, vm_clock(s->vm) + clocks * NS_PER_SEC / UART_HZ);
    else
        vm_timer_cancel(s->timer);
}

static void serial_timeout(void *opaque, uint64_t deadline)
{
    struct vmm_serial *s = opaque;

    (void)deadline;
    pthread_mutex_lock(&s->lock);
    if (fifo_on(s) && s->rx_count) {
        s->timeout_pending = 1;
        serial_update_irq(s);
    }
    pthread_mutex_unlock(&s->lock);
}

/* Errors show in LSR when their character reaches the top of the FIFO (8.3). */
static void rx_reveal(struct vmm_serial *s)
{
    if (s->rx_count) {
        s->lsr |= s->rx[s->rx_head] >> 8;
        s->rx[s->rx_head] &= 0xff;
    }
}

static void rx_push(struct vmm_serial *s, uint16_t c)
{
    if (s->rx_count == fifo_len(s)) {
        s->lsr |= LSR_OE;
        /* The FIFO keeps what it has; without it the character in RBR is overwritten. */
        if (fifo_on(s))
            return;
        s->rx_count = 0;
    }
    s->rx[(s->rx_head + s->rx_count++) % FIFO_LEN] = c;
    rx_reveal(s);
}

/* Whether the peer may send. Drivers clear the receiver while they set up the port, and raise RTS
 * when that is done; small guests leave MCR alone and poll. */
static int rx_ready(const struct vmm_serial *s)
{
    return !s->flow || (s->mcr & MCR_RTS) || ((s->ier & IER_RDA) && (s->mcr & MCR_OUT2)) ||
           s->polls == POLLS;
}

static void rx_refill(struct vmm_serial *s)
{
    if ((s->mcr & MCR_LOOP) || !rx_ready(s))
        return; /* in loopback the receiver is disconnected from the line */
    while (s->host_count && s->rx_count < fifo_len(s)) {
        rx_push(s, s->host[s->host_head]);
        s->host_head = (s->host_head + 1) % HOST_RING;
        s->host_count--;
    }
}

static uint8_t rx_pop(struct vmm_serial *s)
{
    uint8_t c;

    s->timeout_pending = 0;
    if (!s->rx_count)
        return (uint8_t)s->rx[s->rx_head]; /* the register keeps its last character */
    c = (uint8_t)s->rx[s->rx_head];
    if (s->rx_count > 1 || fifo_on(s))
        s->rx_head = (s->rx_head + 1) % FIFO_LEN;
    s->rx_count--;
    rx_reveal(s);
    rx_refill(s);
    rx_restart_timeout(s);
    return c;
}

/* Gives the receiver's characters back to the line. */
static void rx_unread(struct vmm_serial *s)
{
    while (s->rx_count) {
        s->host_head = (s->host_head + HOST_RING - 1) % HOST_RING;
        s->host[s->host_head] = s->rx[(s->rx_head + --s->rx_count) % FIFO_LEN];
        s->host_count++;
    }
}

static void rx_clear(struct vmm_serial *s)
{
    s->rx_head = s->rx_count = 0;
    s->rx[0] = 0;
    s->timeout_pending = 0;
    s->lsr = 0;
    vm_timer_cancel(s->timer);
}

/* ---- Transmitter ---- */

/* Hands the transmitter's bytes to the program. Called, and returns, with the lock held. */
static void tx_drain(struct vmm_serial *s)
{
    if (s->tx_busy)
        return;
    s->tx_busy = 1;
    while (s->tx_count && !s->tx_blocked) {
        uint8_t bytes[FIFO_LEN];
        uint32_t n = s->tx_count, epoch = s->tx_epoch, writable = s->tx_writable;
        size_t taken = n;

        for (uint32_t i = 0; i < n; i++)
            bytes[i] = s->tx[(s->tx_head + i) % FIFO_LEN];
        if (s->output) {
            pthread_mutex_unlock(&s->lock);
            taken = s->output(s->output_opaque, bytes, n);
            pthread_mutex_lock(&s->lock);
            if (taken > n)
                taken = n;
        }
        if (epoch == s->tx_epoch) {
            s->tx_head = (s->tx_head + (uint32_t)taken) % FIFO_LEN;
            s->tx_count -= (uint32_t)taken;
        }
        s->tx_blocked = taken < n && writable == s->tx_writable;
        if (!s->tx_count)
            s->thre_pending = 1;
    }
    s->tx_busy = 0;
}

static void tx_write(struct vmm_serial *s, uint8_t c)
{
    s->thre_pending = 0;
    if (s->mcr & MCR_LOOP) {
        rx_push(s, c);
        rx_restart_timeout(s);
        s->thre_pending = 1;
        return;
    }
    if (s->tx_count == fifo_len(s)) {
        /* Written although THRE was clear: the holding register is overwritten, a full FIFO is not.
         */
        if (!fifo_on(s))
            s->tx[s->tx_head] = c;
    } else {
        s->tx[(s->tx_head + s->tx_count++) % FIFO_LEN] = c;
    }
    tx_drain(s);
}

static void tx_clear(struct vmm_serial *s)
{
    s->tx_head = s->tx_count = 0;
    s->tx_epoch++;
    s->thre_pending = 1;
}

/* ---- Registers ---- */

static void write_ier(struct vmm_serial *s, uint8_t value)
{
    /* Enabling the THRE interrupt while the transmitter is empty raises it. */
    if ((value & IER_THRE) && !(s->ier & IER_THRE) && !s->tx_count)
        s->thre_pending = 1;
    s->ier = value & IER_MASK;
    rx_refill(s);
    rx_restart_timeout(s);
}

static void write_fcr(struct vmm_serial *s, uint8_t value)
{
    int toggled = (value ^ s->fcr) & FCR_ENABLE;

    /* Linux enables the interrupt before the FIFOs: that is still setting up. */
    if (s->flow && toggled && !(value & FCR_RX_RESET) && !(s->mcr & MCR_LOOP))
        rx_unread(s);
    if (toggled || (value & FCR_RX_RESET))
        rx_clear(s);
    if (toggled || (value & FCR_TX_RESET))
        tx_clear(s);
    /* The other bits are not programmed unless the enable bit is a one (8.4). */
    s->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | 0xc8) : 0;
    rx_refill(s);
    rx_restart_timeout(s);
}

/* Modem inputs: in loopback the chip's own outputs, else a peer that is always ready. */
static void update_modem(struct vmm_serial *s)
{
    uint32_t lines = MSR_DCD | MSR_DSR | MSR_CTS;
    uint32_t old = s->msr & MSR_LINES;

    if (s->mcr & MCR_LOOP)
        lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
    /* RI counts when it ends (TERI), the others whenever they change. */
    uint32_t deltas = (lines ^ old) >> 4;
    if (lines & MSR_RI)
        deltas &= ~MSR_TERI;
    s->msr = (uint8_t)(lines | (s->msr & ~MSR_LINES) | deltas);
}

static void write_mcr(struct vmm_serial *s, uint8_t value)
{
    s->mcr = value & MCR_MASK;
    update_modem(s);
    rx_refill(s);
    rx_restart_timeout(s);
}

static void write_lcr(struct vmm_serial *s, uint8_t value)
{
    int begin = (value & LCR_BREAK) && !(s->lcr & LCR_BREAK);

    s->lcr = value;
    if (begin && (s->mcr & MCR_LOOP))
        rx_push(s, LSR_BI << 8);
}

static uint8_t read_lsr(struct vmm_serial *s)
{
    uint8_t value;

    if (s->flow && !s->rx_count && !s->tx_count && s->polls < POLLS && ++s->polls == POLLS) {
        rx_refill(s);
        rx_restart_timeout(s);
    }
    value = s->lsr;
    if (s->rx_count)
        value |= LSR_DR;
    if (!s->tx_count)
        value |= LSR_THRE | LSR_TEMT;
    if (fifo_on(s)) {
        int error = s->lsr & (LSR_PE | LSR_FE | LSR_BI);
        for (uint32_t i = 0; i < s->rx_count; i++)
            error |= s->rx[(s->rx_head + i) % FIFO_LEN] >> 8;
        if (error)
            value |= LSR_FIFO;
    }
    s->lsr = 0;
    return value;
}

static uint8_t read_iir(struct vmm_serial *s)
{
    uint32_t id = serial_iir(s);

    if (id == IIR_THRE)
        s->thre_pending = 0;
    return (uint8_t)(id | (fifo_on(s) ? IIR_FIFO : 0));
}

static uint8_t read_msr(struct vmm_serial *s)
{
    uint8_t value = s->msr;

    s->msr &= MSR_LINES;
    return value;
}

static int serial_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_serial *s = opaque;
    int dlab;

    (void)size;
    pthread_mutex_lock(&s->lock);
    dlab = s->lcr & LCR_DLAB;
    switch (offset) {
    case REG_DATA:
        *value = dlab ? s->divisor & 0xffu : rx_pop(s);
        break;
    case REG_IER:
        *value = dlab ? s->divisor >> 8 : s->ier;
        break;
    case REG_IIR:
        *value = read_iir(s);
        break;
    case REG_LCR:
        *value = s->lcr;
        break;
    case REG_MCR:
        *value = s->mcr;
        break;
    case REG_LSR:
        *value = read_lsr(s);
        break;
    case REG_MSR:
        *value = read_msr(s);
        break;
    default:
        *value = s->scr;
        break;
    }
    serial_update_irq(s);
    pthread_mutex_unlock(&s->lock);
    return VMM_IO_OK;
}

static int serial_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_serial *s = opaque;
    uint8_t v = (uint8_t)value;
    int dlab;

    (void)size;
    pthread_mutex_lock(&s->lock);
    s->polls = 0;
    dlab = s->lcr & LCR_DLAB;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0xff00) | v);
        else
            tx_write(s, v);
        break;
    case REG_IER:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0xff) | v << 8);
        else
            write_ier(s, v);
        break;
    case REG_IIR:
        write_fcr(s, v);
        break;
    case REG_LCR:
        write_lcr(s, v);
        break;
    case REG_MCR:
        write_mcr(s, v);
        break;
    case REG_SCR:
        s->scr = v;
        break;
    default: /* LSR is for factory tests only; MSR deltas cannot be written */
        break;
    }
    serial_update_irq(s);
    pthread_mutex_unlock(&s->lock);
    return VMM_IO_OK;
}

/* ---- The host's side ---- */

static size_t host_push(struct vmm_serial *s, uint16_t c)
{
    if (s->host_count >= HOST_LEN)
        return 0;
    s->host[(s->host_head + s->host_count++) % HOST_RING] = c;
    return 1;
}

size_t vmm_serial_input(struct vmm_serial *s, const uint8_t *bytes, size_t n)
{
    size_t taken = 0;

    if (!s || !bytes)
        return 0;
    pthread_mutex_lock(&s->lock);
    while (taken < n && host_push(s, bytes[taken]))
        taken++;
    rx_refill(s);
    rx_restart_timeout(s);
    serial_update_irq(s);
    pthread_mutex_unlock(&s->lock);
    return taken;
}

void vmm_serial_break(struct vmm_serial *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    host_push(s, LSR_BI << 8);
    rx_refill(s);
    rx_restart_timeout(s);
    serial_update_irq(s);
    pthread_mutex_unlock(&s->lock);
}

void vmm_serial_writable(struct vmm_serial *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->tx_writable++;
    s->tx_blocked = 0;
    tx_drain(s);
    serial_update_irq(s);
    pthread_mutex_unlock(&s->lock);
}

/* ---- Life cycle ---- */

static void serial_reset(void *opaque)
{
    struct vmm_serial *s = opaque;

    pthread_mutex_lock(&s->lock);
    s->ier = s->fcr = s->lcr = s->mcr = s->scr = 0;
    s->msr = MSR_DCD | MSR_DSR | MSR_CTS;
    s->divisor = DIVISOR_POR;
    s->polls = 0;
    if (!s->flow)
        s->host_head = s->host_count = 0;
    rx_clear(s);
    tx_clear(s);
    s->thre_pending = 0;
    serial_update_irq(s);
    pthread_mutex_unlock(&s->lock);
}

static void serial_stop(void *opaque)
{
    struct vmm_serial *s = opaque;

    pio_unregister(s->pio);
    vm_timer_destroy(s->timer);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int vmm_serial_create(struct vm *vm, const struct vmm_serial_config *config,
                      struct vmm_serial **out)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .max_access = 1,
        .name = "serial",
        .read = serial_read,
        .write = serial_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "serial", .reset = serial_reset, .stop = serial_stop};
    struct vmm_serial_config c;
    struct vmm_serial *s;
    int r = config_copy(&c, sizeof c, config);

    if (r)
        return vm_fail(vm, r, "vmm_serial_create", "bad config");
    if (c.irq != VMM_IRQ_NONE && c.irq >= VMM_IRQ_LINES)
        return vm_fail(vm, VMM_E_RANGE, "vmm_serial_create", "no interrupt line %u", c.irq);
    if (c.flags & ~VMM_SERIAL_FLOW)
        return vm_fail(vm, VMM_E_UNSUPPORTED, "vmm_serial_create", "unknown flags");
    s = calloc(1, sizeof *s);
    if (!s)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_serial_create", "no memory");
    s->vm = vm;
    s->irq = c.irq;
    s->output = c.output;
    s->output_opaque = c.opaque;
    s->flow = c.flags & VMM_SERIAL_FLOW;
    pthread_mutex_init(&s->lock, NULL);
    r = vm_timer_create(vm, serial_timeout, s, &s->timer);
    if (!r) {
        serial_reset(s);
        r = pio_register(vm, c.port, REGS, &io, s, &s->pio);
    }
    if (!r)
        r = vm_device_add(vm, &ops, s, NULL);
    if (r)
        serial_stop(s);
    else if (out)
        *out = s;
    return r;
}
