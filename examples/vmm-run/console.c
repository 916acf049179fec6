/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * console.c: the guest's serial port on stdin and stdout, through libuv.
 *
 * Output: vCPU threads put bytes into a ring of fixed size, the loop writes them out. When the ring
 * is full the UART keeps its bytes, and the guest's driver waits for the transmitter as it would
 * for a slow line; so a slow reader costs no memory. Input: what does not fit into the UART's
 * buffer stays here, and reading stops until it has. A terminal is read all the time, for Ctrl-A x;
 * what is typed into full buffers is lost.
 */
#include "console.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmm/device.h>

#include "terminal.h"

#define RING_SIZE  65536u
#define INPUT_SIZE 4096u
#define TYPED_SIZE 256u
#define RETRY_MS   10u
#define ESCAPE     0x01 /* Ctrl-A */

/* One of stdin and stdout. */
struct end {
    int fd;
    int flags; /* O_* before libuv changed them; -1: not known */
    uv_handle_type type;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tty_t tty;
        uv_pipe_t pipe;
        uv_tcp_t tcp;
    } u;
    uv_fs_t fs; /* files have no handle */
};

struct console {
    uv_loop_t *loop;
    console_quit_fn *quit;
    void *opaque;
    struct vmm_serial *serial;

    struct end in;
    uv_timer_t retry;
    uint8_t input[INPUT_SIZE];
    size_t input_at, input_len; /* what the UART did not take yet */
    uint8_t typed[TYPED_SIZE];  /* a terminal is read into here */
    int reading;                /* a read is under way */
    int in_ended;
    int escaped; /* Ctrl-A was typed */

    struct end out;
    uv_async_t wake;
    uv_write_t write;
    size_t writing; /* bytes in the write under way, 0: none */
    int out_ended;
    int closing;

    pthread_mutex_t lock; /* the members below */
    uint8_t ring[RING_SIZE];
    size_t head, count;
    int starved; /* the UART holds bytes that did not fit */
    int discard; /* nobody reads any more */
};

static int is_stream(const struct end *end)
{
    return end->type == UV_TTY || end->type == UV_NAMED_PIPE || end->type == UV_TCP;
}

static int open_end(struct console *console, struct end *end, int fd)
{
    end->fd = fd;
    end->flags = fcntl(fd, F_GETFL);
    end->type = uv_guess_handle(fd);
    switch (end->type) {
    case UV_TTY:
        return uv_tty_init(console->loop, &end->u.tty, fd, 0);
    case UV_NAMED_PIPE:
        uv_pipe_init(console->loop, &end->u.pipe, 0);
        return uv_pipe_open(&end->u.pipe, fd);
    case UV_TCP:
        uv_tcp_init(console->loop, &end->u.tcp);
        return uv_tcp_open(&end->u.tcp, fd);
    default:
        return 0;
    }
}

/* ---- output ---- */

static void pump_output(struct console *console);

/* `status` is the number of bytes written, or a UV_E* code. */
static void output_done(struct console *console, ssize_t status)
{
    int starved;

    pthread_mutex_lock(&console->lock);
    if (status < 0) {
        console->discard = 1;
        console->count = 0;
    } else {
        console->head = (console->head + (size_t)status) % RING_SIZE;
        console->count -= (size_t)status;
    }
    starved = console->starved;
    console->starved = 0;
    pthread_mutex_unlock(&console->lock);

    console->writing = 0;
    if (starved && console->serial != NULL) {
        vmm_serial_writable(console->serial);
    }
    if (status < 0 && !console->out_ended) {
        console->out_ended = 1;
        if (!console->closing) {
            console->quit(console->opaque, (int)status);
        }
        return;
    }
    pump_output(console);
}

static void stream_written(uv_write_t *request, int status)
{
    struct console *console = request->data;

    output_done(console, status < 0 ? status : (ssize_t)console->writing);
}

static void file_written(uv_fs_t *request)
{
    struct console *console = request->data;
    ssize_t result = request->result;

    uv_fs_req_cleanup(request);
    output_done(console, result);
}

static void pump_output(struct console *console)
{
    uv_buf_t buf;
    size_t len;
    int result;

    if (console->writing != 0 || console->closing) {
        return;
    }
    pthread_mutex_lock(&console->lock);
    len = RING_SIZE - console->head;
    if (len > console->count) {
        len = console->count;
    }
    buf = uv_buf_init((char *)console->ring + console->head, (unsigned)len);
    pthread_mutex_unlock(&console->lock);
    if (len == 0) {
        return;
    }
    console->writing = len;
    if (is_stream(&console->out)) {
        console->write.data = console;
        result = uv_write(&console->write, &console->out.u.stream, &buf, 1, stream_written);
    } else {
        console->out.fs.data = console;
        result = uv_fs_write(console->loop, &console->out.fs, console->out.fd, &buf, 1, -1,
                             file_written);
    }
    if (result < 0) {
        output_done(console, result);
    }
}

static void woken(uv_async_t *async)
{
    pump_output(async->data);
}

size_t console_output(void *opaque, const uint8_t *bytes, size_t n)
{
    struct console *console = opaque;
    size_t taken = 0;

    pthread_mutex_lock(&console->lock);
    if (console->discard) {
        taken = n;
    }
    while (taken < n && console->count < RING_SIZE) {
        console->ring[(console->head + console->count++) % RING_SIZE] = bytes[taken++];
    }
    console->starved |= taken < n;
    pthread_mutex_unlock(&console->lock);
    uv_async_send(&console->wake);
    return taken;
}

int console_pending(struct console *console)
{
    size_t count;

    pthread_mutex_lock(&console->lock);
    count = console->count;
    pthread_mutex_unlock(&console->lock);
    return count != 0;
}

/* ---- input ---- */

static void pump_input(struct console *console);

static void retry_input(uv_timer_t *timer)
{
    pump_input(timer->data);
}

/* Ctrl-A commands; every other byte is the guest's. Removes the commands from the bytes. */
static size_t filter_escapes(struct console *console, uint8_t *bytes, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (!console->escaped) {
            if (bytes[i] == ESCAPE) {
                console->escaped = 1;
            } else {
                bytes[kept++] = bytes[i];
            }
            continue;
        }
        console->escaped = 0;
        switch (bytes[i]) {
        case 'x':
            console->quit(console->opaque, 0);
            return 0;
        case 'b':
            vmm_serial_break(console->serial);
            break;
        case 'a':
        case ESCAPE:
            bytes[kept++] = ESCAPE;
            break;
        default:
            break;
        }
    }
    return kept;
}

/* `n` bytes have arrived in the buffer; end of input or an error if it is not positive. */
static void input_arrived(struct console *console, ssize_t n)
{
    if (n <= 0) {
        console->in_ended = 1; /* the guest runs on: its other devices may still matter */
        return;
    }
    console->input_at = 0;
    console->input_len = (size_t)n;
    pump_input(console);
}

/* `n` bytes have been typed: adds them to what waits, as far as there is room. */
static void keys_arrived(struct console *console, size_t n)
{
    size_t waiting = console->input_len - console->input_at;

    n = filter_escapes(console, console->typed, n);
    if (n > INPUT_SIZE - waiting) {
        n = INPUT_SIZE - waiting;
    }
    memmove(console->input, console->input + console->input_at, waiting);
    memcpy(console->input + waiting, console->typed, n);
    console->input_at = 0;
    console->input_len = waiting + n;
    pump_input(console);
}

static void lend_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct console *console = handle->data;

    (void)suggested;
    *buf = console->in.type == UV_TTY ? uv_buf_init((char *)console->typed, TYPED_SIZE)
                                      : uv_buf_init((char *)console->input, INPUT_SIZE);
}

static void stream_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct console *console = stream->data;

    (void)buf;
    if (n == 0) {
        return; /* nothing there after all */
    }
    if (console->in.type == UV_TTY && n > 0) {
        keys_arrived(console, (size_t)n);
        return;
    }
    uv_read_stop(stream); /* the buffer is in use until the UART has taken it */
    console->reading = 0;
    input_arrived(console, n);
}

static void file_read(uv_fs_t *request)
{
    struct console *console = request->data;
    ssize_t result = request->result;

    uv_fs_req_cleanup(request);
    console->reading = 0;
    if (!console->closing) {
        input_arrived(console, result);
    }
}

/* Gives the UART what waits, then reads on; what does not fit is tried again a little later. */
static void pump_input(struct console *console)
{
    uv_buf_t buf = uv_buf_init((char *)console->input, INPUT_SIZE);
    int result;

    /* A read into a full buffer may be under way: only a terminal's does not go into `input`. */
    if (console->serial == NULL || console->closing ||
        (console->reading && console->in.type != UV_TTY)) {
        return;
    }
    console->input_at += vmm_serial_input(console->serial, console->input + console->input_at,
                                          console->input_len - console->input_at);
    if (console->input_at < console->input_len) {
        uv_timer_start(&console->retry, retry_input, RETRY_MS, 0);
        if (console->in.type != UV_TTY) {
            return;
        }
    }
    if (console->reading || console->in_ended) {
        return;
    }
    if (is_stream(&console->in)) {
        result = uv_read_start(&console->in.u.stream, lend_buffer, stream_read);
    } else if (console->in.type == UV_FILE) {
        console->in.fs.data = console;
        result = uv_fs_read(console->loop, &console->in.fs, console->in.fd, &buf, 1, -1, file_read);
    } else {
        result = UV_EOF;
    }
    console->reading = result == 0;
    console->in_ended = result != 0;
}

/* ---- life cycle ---- */

int console_open(uv_loop_t *loop, console_quit_fn *quit, void *opaque, struct console **out)
{
    struct console *console = calloc(1, sizeof(*console));
    int result;

    if (console == NULL) {
        return UV_ENOMEM;
    }
    console->loop = loop;
    console->quit = quit;
    console->opaque = opaque;
    pthread_mutex_init(&console->lock, NULL);
    uv_timer_init(loop, &console->retry);
    console->retry.data = console;
    result = uv_async_init(loop, &console->wake, woken);
    console->wake.data = console;
    if (result == 0) {
        result = open_end(console, &console->in, STDIN_FILENO);
    }
    if (result == 0) {
        result = open_end(console, &console->out, STDOUT_FILENO);
    }
    if (result != 0) {
        return result; /* the process ends: nothing is worth giving back */
    }
    console->in.u.handle.data = console;
    console->out.u.handle.data = console;
    *out = console;
    return 0;
}

void console_attach(struct console *console, struct vmm_serial *serial)
{
    console->serial = serial;
    console_resume(console);
    pump_input(console);
}

void console_detach(struct console *console)
{
    console->serial = NULL;
}

void console_resume(struct console *console)
{
    if (console->in.type == UV_TTY && console->serial != NULL && !console->closing) {
        terminal_raw(console->in.fd);
    }
}

static void close_end(struct end *end)
{
    if (is_stream(end)) {
        uv_close(&end->u.handle, NULL);
    }
    if (end->flags != -1) {
        fcntl(end->fd, F_SETFL, end->flags); /* shared with other processes */
    }
}

void console_close(struct console *console)
{
    console->closing = 1;
    uv_close((uv_handle_t *)&console->retry, NULL);
    uv_close((uv_handle_t *)&console->wake, NULL);
    close_end(&console->in);
    close_end(&console->out);
    terminal_restore();
}

void console_free(struct console *console)
{
    pthread_mutex_destroy(&console->lock);
    free(console);
}
