/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/stub_text.h: what the stub's own code, in assembly, shares with stub.c. */
#ifndef BACKENDS_SHADOW_STUB_TEXT_H
#define BACKENDS_SHADOW_STUB_TEXT_H

/* Distances from the stub's address; each part is a multiple of a page. */
#define STUB_PAGE      4096
#define STUB_CTL_PAGES 4
#define STUB_STACK     0xc000 /* a frame has all vector registers */
#define STUB_TEXT      0
#define STUB_CTL       STUB_PAGE
#define STUB_STATE     (STUB_CTL + STUB_CTL_PAGES * STUB_PAGE)
#define STUB_ALTSTACK  (STUB_STATE + STUB_PAGE)
#define STUB_SIZE      (STUB_ALTSTACK + STUB_STACK)

/* Where a stub can map something: [STUB_LOW, STUB_HIGH) but for its own pages. */
#define STUB_LOW  0x10000
#define STUB_HIGH 0x7ffffffff000

/* The system call that tells the owner; which one does not matter. */
#define STUB_TELL 39 /* getpid */

/* struct stub_ctl, struct stub_state, struct stub_cmd: stub.c checks these. */
#define CTL_NCMD              (STUB_CTL + 0)
#define CTL_OWNER             (STUB_CTL + 4)
#define CTL_NO_SIGNALS        (STUB_CTL + 8)
#define CTL_ALTSTACK          (STUB_CTL + 16)
#define CTL_GUEST_PROG        (STUB_CTL + 40)
#define CTL_MAPPER_PROG       (STUB_CTL + 56)
#define CTL_CMD               (STUB_CTL + 72)
#define STUB_CMD_SIZE         56
#define STATE_FS_BASE         (STUB_STATE + 0)
#define STATE_GS_BASE         (STUB_STATE + 8)
#define STATE_DS              (STUB_STATE + 16)
#define STATE_ES              (STUB_STATE + 18)
#define STATE_FS              (STUB_STATE + 20)
#define STATE_GS              (STUB_STATE + 22)
#define STATE_CONTEXT         (STUB_STATE + 24)
#define STATE_ERROR           (STUB_STATE + 32)
#define STATE_SIGNAL          (STUB_STATE + 40)
#define STATE_GUEST_LISTENER  (STUB_STATE + 44)
#define STATE_MAPPER_LISTENER (STUB_STATE + 48)
#define STATE_GUEST_PID       (STUB_STATE + 52)
#define STATE_TSC_ERROR       (STUB_STATE + 56)
#define STATE_CPUID_ERROR     (STUB_STATE + 60)
#define STATE_CPUID           (STUB_STATE + 64)
#define STATE_INFO            (STUB_STATE + 72)

#endif
