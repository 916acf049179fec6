/* SPDX-License-Identifier: BSD-2-Clause */
/* console.h: the guest's serial port on stdin and stdout, through libuv. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct console;
struct vmm_serial;

/* Called in the loop: the user typed Ctrl-A x (error = 0), or stdout failed (a UV_E* code). */
typedef void console_quit_fn(void *opaque, int error);

/* Opens stdin and stdout as whatever they are: terminal, pipe, socket, file. 0 or a UV_E* code. */
int console_open(uv_loop_t *loop, console_quit_fn *quit, void *opaque, struct console **out);

/* Raw mode if stdin is a terminal, and input from now on goes to `serial`, which lives until
 * console_detach. */
void console_attach(struct console *console, struct vmm_serial *serial);
void console_detach(struct console *console);

/* Takes as many bytes as there is room for: struct vmm_pc_config's serial_output. Any thread. */
size_t console_output(void *console, const uint8_t *bytes, size_t n);

/* Whether output is still on its way. */
int console_pending(struct console *console);

/* After SIGCONT: the terminal is as the shell left it. */
void console_resume(struct console *console);

/* Closes all handles (run the loop until they are gone, then console_free) and puts the terminal
 * and the descriptors' flags back. */
void console_close(struct console *console);
void console_free(struct console *console);

#endif
