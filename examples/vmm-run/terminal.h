/* SPDX-License-Identifier: BSD-2-Clause */
/* terminal.h: raw mode of the controlling terminal, undone however the process ends. */
#ifndef TERMINAL_H
#define TERMINAL_H

/* Puts the terminal `fd` into raw mode, unless the process is in the background. The first call
 * remembers its state and arranges for it to be restored by exit() and by fatal signals. Call it
 * again after SIGCONT. Returns 0, or an errno value. */
int terminal_raw(int fd);

/* Puts the terminal back as it was; safe in signal handlers, harmless when nothing was changed. */
void terminal_restore(void);

#endif
