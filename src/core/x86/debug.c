/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/debug.c: debug registers (SDM Vol. 3B chapter 18), and the host program's break- and
 * watchpoints of vmm/debug.h. */
#include <string.h>

#include "core/x86/control.h"
#include "core/x86/sys_handlers.h"
#include <vmm/debug.h>

/*
 * Watchpoints of both kinds take the fast TLB entries from their pages (mmu_set_watch), so that
 * each access to those comes to x86_watch_access. While anything is armed, blocks hold one
 * instruction (X86_MODE_SINGLE): traps and exits come right behind the instruction that caused
 * them.
 */

#define DR7_EXEC  0u
#define DR7_WRITE 1u
#define DR7_IO    2u
#define DR7_RW    3u

#define DR6_B 0xfu

static bool guest_enabled(const struct x86_cpu *cpu, unsigned i)
{
    return cpu->dr.dr7 >> (2 * i) & 3;
}

static unsigned guest_type(const struct x86_cpu *cpu, unsigned i)
{
    return cpu->dr.dr7 >> (16 + 4 * i) & 3;
}

static unsigned guest_len(const struct x86_cpu *cpu, unsigned i)
{
    static const uint8_t len[4] = {1, 2, 8, 4};

    return len[cpu->dr.dr7 >> (18 + 4 * i) & 3];
}

/* Whether [a, a+na) meets the aligned block of `nb` bytes that holds b. */
static bool overlap(uint64_t a, unsigned na, uint64_t b, unsigned nb)
{
    uint64_t lo = b & ~(uint64_t)(nb - 1);

    return a < lo + nb ? a + na > lo : false;
}

bool x86_breakpoints_armed(const struct x86_cpu *cpu)
{
    return (cpu->dr.dr7 & 0xff) || cpu->nhost_bp;
}

static unsigned add_page(uint64_t *pages, unsigned n, uint64_t linear)
{
    uint64_t page = linear & MMU_PAGE_MASK;

    for (unsigned i = 0; i < n; i++)
        if (pages[i] == page)
            return n;
    pages[n] = page;
    return n + 1;
}

void x86_breakpoints_changed(struct x86_cpu *cpu)
{
    uint64_t pages[8];
    unsigned n = 0;

    for (unsigned i = 0; i < 4; i++) {
        unsigned type = guest_type(cpu, i);

        if (guest_enabled(cpu, i) && (type == DR7_WRITE || type == DR7_RW))
            n = add_page(pages, n, cpu->dr.addr[i]);
    }
    for (unsigned i = 0; i < cpu->nhost_bp; i++)
        if (cpu->host_bp_type[i] != VMM_BREAK_EXEC)
            n = add_page(pages, n, cpu->host_bp[i]);
    /* Setting the list flushes the TLB: only when it is another one. */
    if (n != cpu->mmu.nwatch || memcmp(pages, cpu->mmu.watch, n * sizeof(*pages)) != 0)
        mmu_set_watch(&cpu->mmu, pages, n);
    x86_cs_changed(cpu);
}

static void host_exit(struct x86_cpu *cpu, uint32_t reason, uint64_t linear, unsigned index)
{
    cpu->stop = X86_STOP_EXIT;
    cpu->exit_reason = reason;
    cpu->exit_gva = linear;
    cpu->exit_index = index;
}

void x86_watch_access(struct x86_cpu *cpu, uint64_t linear, unsigned size, bool write)
{
    for (unsigned i = 0; i < 4; i++) {
        unsigned type = guest_type(cpu, i);

        if (guest_enabled(cpu, i) && (type == DR7_RW || (type == DR7_WRITE && write)) &&
            overlap(linear, size, cpu->dr.addr[i], guest_len(cpu, i)))
            cpu->pending_db |= 1u << i;
    }
    for (unsigned i = 0; i < cpu->nhost_bp; i++) {
        if (cpu->host_bp_type[i] == VMM_BREAK_EXEC ||
            (cpu->host_bp_type[i] == VMM_BREAK_WRITE && !write))
            continue;
        if (overlap(linear, size, cpu->host_bp[i], cpu->host_bp_len[i])) {
            host_exit(cpu, VMM_EXIT_WATCH, linear, i);
            return;
        }
    }
}

void x86_watch_port(struct x86_cpu *cpu, uint16_t port, unsigned size)
{
    if (!(cpu->cr4 & X86_CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++)
        if (guest_enabled(cpu, i) && guest_type(cpu, i) == DR7_IO &&
            overlap(port, size, cpu->dr.addr[i], guest_len(cpu, i)))
            cpu->pending_db |= 1u << i;
}

void x86_raise_db(struct x86_cpu *cpu, uint64_t dr6)
{
    /* The CPU clears none of the bits but B0-B3, and takes away GD so that the handler can use the
     * debug registers (SDM Vol. 3B 18.2.3, 18.2.4). */
    cpu->dr.dr6 = (cpu->dr.dr6 & ~(uint64_t)DR6_B) | X86_DR6_FIXED | (dr6 & (X86_DR6_WRITE));
    cpu->dr.dr7 &= ~(uint64_t)X86_DR7_GD;
    x86_raise(cpu, X86_DB);
    cpu->event.error = (uint32_t)dr6; /* not pushed: tells x86_deliver which kind it is */
}

/* An instruction that was left unfinished (string instructions, accesses that exited) has met its
 * breakpoints already. Iterations of a string instruction do not make it another one. */
static uint64_t instruction_number(const struct x86_cpu *cpu)
{
    return x86_serial(cpu) - cpu->rep_serial;
}

static bool passes_host(struct x86_cpu *cpu)
{
    if (cpu->host_bp_pass && cpu->bp_serial == instruction_number(cpu) && cpu->bp_rip == cpu->rip)
        return true;
    cpu->host_bp_pass = false;
    return false;
}

bool x86_check_exec_breakpoints(struct x86_cpu *cpu)
{
    uint64_t linear = cpu->rip, hit = 0;

    if (!x86_code64(cpu))
        linear = (uint32_t)(cpu->seg[VMM_CS].base + cpu->rip);
    if (cpu->nhost_bp && !passes_host(cpu))
        for (unsigned i = 0; i < cpu->nhost_bp; i++)
            if (cpu->host_bp_type[i] == VMM_BREAK_EXEC && cpu->host_bp[i] == linear) {
                cpu->host_bp_pass = true;
                cpu->bp_serial = instruction_number(cpu);
                cpu->bp_rip = cpu->rip;
                host_exit(cpu, VMM_EXIT_BREAKPOINT, linear, i);
                return true;
            }
    /* MOV SS and POP SS put debug exceptions off (SDM Vol. 3A 7.8.3). */
    if ((cpu->rflags & X86_RF) || (cpu->shadow & VMM_SHADOW_MOV_SS))
        return false;
    for (unsigned i = 0; i < 4; i++)
        if (guest_enabled(cpu, i) && guest_type(cpu, i) == DR7_EXEC && cpu->dr.addr[i] == linear)
            hit |= 1u << i;
    if (!hit)
        return false;
    x86_raise_db(cpu, hit);
    return true;
}

/* ---- MOV to and from debug registers ---- */

/* DR4 and DR5 are DR6 and DR7 while CR4.DE is clear. False: left with an exception. */
static bool dr_access(struct x86_cpu *cpu, const struct x86_op *op, unsigned *n)
{
    *n = (unsigned)op->imm;
    if (cpu->cpl) {
        x86_fault_err(cpu, op, X86_GP, 0);
        return false;
    }
    if (*n == 4 || *n == 5) {
        if (cpu->cr4 & X86_CR4_DE) {
            x86_fault(cpu, op, X86_UD);
            return false;
        }
        *n += 2;
    }
    if (cpu->dr.dr7 & X86_DR7_GD) {
        x86_raise_db(cpu, X86_DR6_BD);
        x86_leave(cpu, op);
        return false;
    }
    return true;
}

const struct x86_op *x86_sys_mov_from_dr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t value;
    unsigned n;

    if (!dr_access(cpu, op, &n))
        return NULL;
    value = n < 4 ? cpu->dr.addr[n] : n == 6 ? cpu->dr.dr6 : cpu->dr.dr7;
    x86_set_reg(cpu, op->r, op->size, value);
    return op + 1;
}

const struct x86_op *x86_sys_mov_to_dr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t value = x86_get_reg(cpu, op->r, op->size);
    unsigned n;

    if (!dr_access(cpu, op, &n))
        return NULL;
    x86_serialize();
    if (n >= 6 && value >> 32)
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (n < 4)
        cpu->dr.addr[n] = value;
    else if (n == 6)
        cpu->dr.dr6 = (value & X86_DR6_WRITE) | X86_DR6_FIXED;
    else
        cpu->dr.dr7 = (value & X86_DR7_WRITE) | X86_DR7_FIXED;
    x86_breakpoints_changed(cpu);
    return x86_next_slow(cpu, x86_op_next(cpu, op));
}
