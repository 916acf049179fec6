/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/task.h: hardware task switches (SDM Vol. 3A chapter 8). */
#ifndef CORE_X86_TASK_H
#define CORE_X86_TASK_H

#include "core/x86/segment.h"

enum x86_task_via { X86_TASK_JMP, X86_TASK_CALL, X86_TASK_EVENT, X86_TASK_IRET };

enum x86_task_result {
    X86_TASK_REFUSED, /* nothing changed; an exception is queued, or cpu->stop set */
    X86_TASK_FAULT,   /* the new task runs, and an exception is queued in it */
    X86_TASK_DONE,
};

struct x86_task_switch {
    enum x86_task_via via;
    uint16_t selector; /* of the new TSS */
    uint32_t eip;      /* saved for the old task ... */
    uint32_t eflags;   /* ... and its flags */
    bool has_error;    /* an error code to push on the new task's stack */
    uint32_t error;
};

/* Switches to another task; cpu->rip is then the new task's. Checks the new TSS but not the
 * privilege to get at it. Not in long mode. */
enum x86_task_result x86_task_switch(struct x86_cpu *cpu, const struct x86_task_switch *t);

/* IRET with NT: back to the task that the back link names. */
enum x86_task_result x86_task_return(struct x86_cpu *cpu, uint32_t eip);

#endif
