/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main.c: vmm-run, the reference VMM: a virtual PC whose serial port is the terminal.
 *
 * The main thread runs the libuv loop (console, signals, timeout); each vCPU has a thread of its
 * own (machine.c). A vCPU thread that ends the run wakes the loop through `ended`.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "machine.h"
#include "terminal.h"

#define STATUS_HOST  1
#define STATUS_CRASH 2

static const struct {
    int number;
    const char *name;
} signals[] = {{SIGINT, "SIGINT"},   {SIGTERM, "SIGTERM"}, {SIGHUP, "SIGHUP"},
               {SIGQUIT, "SIGQUIT"}, {SIGTSTP, NULL},      {SIGCONT, NULL}};

#define NSIGNALS (sizeof(signals) / sizeof(signals[0]))

struct app {
    struct options options;
    struct machine machine;
    struct console *console;
    uv_loop_t loop;
    uv_async_t ended;
    uv_timer_t timeout;
    uv_check_t turn;
    uv_signal_t signal[NSIGNALS];
    int running; /* the guest is: 0 while its last output drains */
    int ran;     /* the guest was started */
    int crashed;
    int status;        /* exit status so far */
    char message[300]; /* for stderr, once the terminal is restored */
};

/* The guest is not to run any more; its output is still written out if `drain`. */
static void finish(struct app *app, int status, int drain)
{
    if (app->running) {
        app->running = 0;
        app->status = status;
        machine_stop(&app->machine);
    }
    if (!drain || !console_pending(app->console)) {
        uv_stop(&app->loop);
    }
}

static void finish_with(struct app *app, int status, const char *what, const char *detail)
{
    if (app->running) {
        snprintf(app->message, sizeof(app->message), "%s%s", what, detail);
    }
    finish(app, status, 0);
}

/* ---- events of the loop ---- */

static void reboot(struct app *app)
{
    machine_stop(&app->machine);
    if (machine_reset(&app->machine) != 0 || machine_start(&app->machine) != 0) {
        finish(app, STATUS_HOST, 1);
    }
}

/* What vcpu_run failed with; in lock step also where. */
static void tell_error(struct app *app)
{
    struct machine *machine = &app->machine;
    struct vmm_error error = {.size = sizeof(error)};
    const char *report = vm_lockstep_report(machine->vm);

    vm_last_error(machine->vm, &error);
    snprintf(app->message, sizeof(app->message), "vcpu_run: %s",
             error.code == machine->end_error ? error.text : vmm_strerror(machine->end_error));
    if (report != NULL) {
        fprintf(stderr, "\n%s", report);
    }
}

static void on_ended(uv_async_t *async)
{
    struct app *app = async->data;
    struct machine *machine = &app->machine;

    if (!app->running) {
        return;
    }
    machine_stop(machine);
    if (machine->end_error != 0) {
        tell_error(app);
        finish(app, STATUS_HOST, 1);
        return;
    }
    switch (machine->exit.reason) {
    case VMM_EXIT_POWEROFF:
        finish(app, 0, 1);
        break;
    case VMM_EXIT_RESET:
        if (app->options.no_reboot) {
            snprintf(app->message, sizeof(app->message), "guest reset");
            finish(app, 0, 1);
        } else {
            reboot(app);
        }
        break;
    case VMM_EXIT_USER:
        finish(app, (int)(machine->exit.u.user.value & 0xff), 1);
        break;
    default:
        app->crashed = 1;
        finish(app, STATUS_CRASH, 1);
        break;
    }
}

static void on_quit(void *opaque, int error)
{
    struct app *app = opaque;

    if (error != 0) {
        finish_with(app, STATUS_HOST, "standard output: ", uv_strerror(error));
    } else {
        finish_with(app, 0, "quit", "");
    }
}

static void on_timeout(uv_timer_t *timer)
{
    finish_with(timer->data, STATUS_HOST, "time limit reached", "");
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct app *app = handle->data;

    switch (number) {
    case SIGTSTP:
        terminal_restore();
        raise(SIGSTOP);
        break;
    case SIGCONT:
        console_resume(app->console);
        break;
    default:
        for (size_t i = 0; i < NSIGNALS; i++) {
            if (signals[i].number == number) {
                finish_with(app, STATUS_HOST, "ended by ", signals[i].name);
            }
        }
        break;
    }
}

/* Once per turn of the loop: after the guest has ended, its last output may be gone now. */
static void on_turn(uv_check_t *check)
{
    struct app *app = check->data;

    if (!app->running && !console_pending(app->console)) {
        uv_stop(&app->loop);
    }
}

/* ---- life cycle ---- */

/* Descriptors 0 to 2 exist, so that nothing else becomes standard output. */
static void open_standard_fds(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

/* A signal that was ignored when vmm-run started (nohup, a shell's background job) stays so. */
static int is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static int setup(struct app *app)
{
    int result = uv_loop_init(&app->loop);

    if (result == 0) {
        result = uv_async_init(&app->loop, &app->ended, on_ended);
    }
    if (result == 0) {
        result = console_open(&app->loop, on_quit, app, &app->console);
    }
    for (size_t i = 0; i < NSIGNALS && result == 0; i++) {
        uv_signal_init(&app->loop, &app->signal[i]);
        app->signal[i].data = app;
        if (!is_ignored(signals[i].number)) {
            result = uv_signal_start(&app->signal[i], on_signal, signals[i].number);
        }
    }
    if (result != 0) {
        fprintf(stderr, "vmm-run: cannot set up the console: %s\n", uv_strerror(result));
        return result;
    }
    uv_timer_init(&app->loop, &app->timeout);
    uv_check_init(&app->loop, &app->turn);
    app->ended.data = app;
    app->timeout.data = app;
    app->turn.data = app;
    uv_check_start(&app->turn, on_turn);
    return 0;
}

static void close_handle(uv_handle_t *handle, void *opaque)
{
    (void)opaque;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void teardown(struct app *app)
{
    console_close(app->console);
    uv_walk(&app->loop, close_handle, NULL);
    uv_run(&app->loop, UV_RUN_DEFAULT);
    uv_loop_close(&app->loop);
    console_free(app->console);
}

static void wake_loop(void *opaque)
{
    uv_async_send(&((struct app *)opaque)->ended);
}

/* Boots the guest and runs it to its end; the result is in app->status. */
static void run(struct app *app)
{
    app->machine.on_end = wake_loop;
    app->machine.opaque = app;
    app->status = STATUS_HOST;
    if (machine_create(&app->machine, &app->options, console_output, app->console) != 0 ||
        machine_start(&app->machine) != 0) {
        return;
    }
    app->running = 1;
    if (app->options.timeout != 0) {
        uv_timer_start(&app->timeout, on_timeout, app->options.timeout * 1000ull, 0);
    }
    console_attach(app->console, app->machine.pc.serial);
    uv_run(&app->loop, UV_RUN_DEFAULT);
    console_detach(app->console);
    app->ran = 1;
}

/* What is to be said on stderr, when the terminal is as it was. */
static void report(struct app *app, double seconds)
{
    if (app->message[0] != '\0') {
        fprintf(stderr, "vmm-run: %s\n", app->message);
    }
    if (app->crashed) {
        machine_dump(&app->machine, stderr);
    }
    if (app->options.stats && app->ran) {
        machine_stats(&app->machine, seconds, stderr);
    }
}

int main(int argc, char **argv)
{
    static struct app app;
    int status = options_parse(&app.options, argc, argv);
    uint64_t start = uv_hrtime();

    if (status == -1 && app.options.list_backends) {
        status = machine_list_backends(stdout) > 0 ? 0 : STATUS_HOST;
    }
    if (status == -1) {
        open_standard_fds();
        signal(SIGPIPE, SIG_IGN);
        if (setup(&app) != 0) {
            return STATUS_HOST;
        }
        run(&app);
        double seconds = (double)(uv_hrtime() - start) / 1e9;
        teardown(&app);
        report(&app, seconds);
        machine_destroy(&app.machine);
        status = app.status;
    }
    options_free(&app.options);
    return status;
}
