/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/regs.c: the registers of the software CPU and those of a stub. */
#include <cpuid.h>
#include <errno.h>
#include <linux/audit.h>
#include <string.h>

#include "backends/shadow/regs.h"
#include "core/x86/segment.h"
#include "core/x86/xstate.h"

/* Linux's selectors, of user mode and of the task. */
#define USER_CS   0x33u
#define USER_CS32 0x23u
#define USER_SS   0x2bu
#define KERNEL_TR 0x40u
#define CPU_ENTRY 15u /* a data segment whose limit is the number of the CPU: see scan.h */

/* struct stub_context.flags: there is an XSAVE area, and SS counts. */
#define CONTEXT_FLAGS 7u

#define SS_AUTODISARM (1u << 31)

#define USER_FLAGS                                                                                 \
    (X86_ARITH | X86_DF | X86_TF | X86_NT | X86_AC | X86_ID) /* that user code can change */

#define MODE (X86_MODE_CODE64 | X86_MODE_PE | X86_MODE_CPL3)

/* ---- whether they fit ---- */

/*
 * The host's descriptor table has four segments for user code, which LAR, VERR and VERW see and
 * which can be loaded: 32-bit code, data, 64-bit code, and one of the CPU's number.
 */
static bool table_fits(struct x86_cpu *cpu)
{
    static const uint64_t accessed = 1ull << 40;
    static const uint64_t user[] = {0x00cffa000000ffff, 0x00cff2000000ffff, 0x00affa000000ffff};
    uint64_t entry[16];

    if (cpu->gdt.limit != sizeof(entry) - 1 ||
        mmu_read(&cpu->mmu, MMU_KERNEL, cpu->gdt.base, entry, sizeof(entry)) != MMU_OK)
        return false;
    for (unsigned i = 4; i < 7; i++)
        if ((entry[i] & ~accessed) != user[i - 4])
            return false;
    for (unsigned i = 1; i < CPU_ENTRY; i++)
        if ((i < 4 || i > 6) && (entry[i] >> 45 & 3) == 3)
            return false;
    return (entry[CPU_ENTRY] & 0xfff0ff00ffff0000) == 0x0040f50000000000;
}

static bool segments_fit(const struct x86_cpu *cpu)
{
    return cpu->seg[VMM_CS].selector == USER_CS && cpu->seg[VMM_SS].selector == USER_SS &&
           !cpu->seg[VMM_DS].selector && !cpu->seg[VMM_ES].selector && !cpu->seg[VMM_FS].selector &&
           !cpu->seg[VMM_GS].selector && cpu->seg[VMM_TR].selector == KERNEL_TR &&
           !cpu->seg[VMM_LDTR].selector;
}

static bool control_fits(const struct x86_cpu *cpu, uint64_t host_xcr0)
{
    const uint64_t cr0 = X86_CR0_PG | X86_CR0_PE | X86_CR0_NE,
                   cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    /* Registers that its code could use without being allowed to. */
    const uint64_t vector = host_xcr0 & 0xe7;

    return (cpu->cr0 & (cr0 | X86_CR0_TS | X86_CR0_EM)) == cr0 && (cpu->cr4 & cr4) == cr4 &&
           (cpu->xcr0 & vector) == vector && !(cpu->xcr0 & ~host_xcr0 & ~(uint64_t)X86_XCR0_PKRU) &&
           (cpu->efer & X86_EFER_SCE);
}

bool regs_fit(struct x86_cpu *cpu, uint64_t host_xcr0)
{
    return cpu->mode == MODE && !cpu->shadow &&
           (cpu->rflags & ~(X86_ARITH | X86_DF | 2u)) == X86_IF && segments_fit(cpu) &&
           control_fits(cpu, host_xcr0) && table_fits(cpu);
}

bool regs_layout_fits(uint64_t host_xcr0)
{
    for (unsigned i = 2; i < X86_XC_N; i++) {
        uint32_t size, offset, c, d;

        if (!x86_xcomp[i].size || !(host_xcr0 >> i & 1) || i == X86_XC_PKRU)
            continue;
        __cpuid_count(0xd, i, size, offset, c, d);
        if (size != x86_xcomp[i].size || offset != x86_xcomp[i].offset)
            return false;
    }
    return true;
}

/* ---- vector registers ---- */

/* What the kernel keeps in the bytes of the area that are software's (struct _fpx_sw_bytes). */
#define SW_BYTES   464
#define SW_LEN     48
#define SW_SIZE    16 /* in them: the size of the area */
#define XSTATE_BV  512
#define HEADER_LEN 64

/* The bytes of the area that both sides know; 0: it is not as the kernel makes it. */
static uint32_t area_len(const struct x86_cpu *cpu, const uint8_t *area, uint32_t room)
{
    uint32_t size, own = x86_xsave_size(cpu);

    memcpy(&size, area + SW_BYTES + SW_SIZE, sizeof(size));
    if (size > room || size < XSTATE_BV + HEADER_LEN)
        return 0;
    return own < size ? own : size;
}

static bool give_vectors(struct x86_cpu *cpu, const struct stub *s, const struct stub_context *c)
{
    uint8_t sw[SW_LEN];
    uint32_t room = 0, len;
    uint8_t *area = stub_xsave(s, c, &room);
    uint64_t bv;

    len = area ? area_len(cpu, area, room) : 0;
    if (!len)
        return false;
    memcpy(sw, area + SW_BYTES, sizeof(sw));
    x86_get_xsave(cpu, area, len);
    memcpy(area + SW_BYTES, sw, sizeof(sw));
    memcpy(&bv, area + XSTATE_BV, sizeof(bv));
    bv &= ~(uint64_t)X86_XCR0_PKRU;
    memcpy(area + XSTATE_BV, &bv, sizeof(bv));
    return true;
}

/* Those of x87 and SSE state that are not as after INIT. */
static uint64_t legacy_in_use(const uint8_t *area)
{
    static const uint8_t zero[256], init[24] = {0x7f, 3};

    return (memcmp(area, init, sizeof(init)) || memcmp(area + 32, zero, 128) ? 1 : 0) |
           (memcmp(area + 160, zero, 256) ? 2 : 0);
}

static bool take_vectors(struct x86_cpu *cpu, const struct stub *s, const struct stub_context *c)
{
    uint8_t own[X86_XSAVE_MAX] = {0};
    uint32_t room = 0, len, pkru = cpu->pkru;
    const uint8_t *area = stub_xsave(s, c, &room);
    uint64_t bv;

    len = area ? area_len(cpu, area, room) : 0;
    if (!len)
        return false;
    memcpy(own, area, len);
    memset(own + SW_BYTES, 0, SW_LEN);
    memset(own + XSTATE_BV + 8, 0, HEADER_LEN - 8);
    memcpy(&bv, own + XSTATE_BV, sizeof(bv));
    bv &= cpu->feat.xcr0_mask & ~(uint64_t)X86_XCR0_PKRU;
    /* The host's kernel says that these two are in use, whether they are or not. */
    bv &= ~3ull | x86_xinuse(cpu) | legacy_in_use(own);
    if (cpu->feat.xcr0_mask & X86_XCR0_PKRU) {
        bv |= X86_XCR0_PKRU;
        memcpy(own + x86_xcomp[X86_XC_PKRU].offset, &pkru, sizeof(pkru));
    }
    memcpy(own + XSTATE_BV, &bv, sizeof(bv));
    return x86_set_xsave(cpu, own, x86_xsave_size(cpu));
}

void regs_tidy(const struct stub *s, struct stub_context *c)
{
    uint32_t room = 0;
    uint8_t *area = stub_xsave(s, c, &room);
    uint64_t bv;

    c->eflags &= ~(uint64_t)X86_RF;
    if (!area)
        return;
    memcpy(&bv, area + XSTATE_BV, sizeof(bv));
    bv &= ~3ull | legacy_in_use(area);
    memcpy(area + XSTATE_BV, &bv, sizeof(bv));
}

/* ---- giving ---- */

bool regs_give(struct x86_cpu *cpu, const struct stub *s)
{
    struct stub_context *c = stub_context(s);
    const uint64_t *r = cpu->gpr;

    if (!c || !give_vectors(cpu, s, c))
        return false;
    c->flags = CONTEXT_FLAGS;
    c->stack[0] = s->base + STUB_ALTSTACK;
    c->stack[1] = SS_AUTODISARM;
    c->stack[2] = STUB_STACK;
    c->rax = r[VMM_RAX];
    c->rcx = r[VMM_RCX];
    c->rdx = r[VMM_RDX];
    c->rbx = r[VMM_RBX];
    c->rsp = r[VMM_RSP];
    c->rbp = r[VMM_RBP];
    c->rsi = r[VMM_RSI];
    c->rdi = r[VMM_RDI];
    c->r8 = r[VMM_R8];
    c->r9 = r[VMM_R9];
    c->r10 = r[VMM_R10];
    c->r11 = r[VMM_R11];
    c->r12 = r[VMM_R12];
    c->r13 = r[VMM_R13];
    c->r14 = r[VMM_R14];
    c->r15 = r[VMM_R15];
    c->rip = cpu->rip;
    c->eflags = x86_get_rflags(cpu);
    c->cs = USER_CS;
    c->ss = USER_SS;
    c->fs = c->gs = 0;
    c->mask = 0;
    s->state->fs_base = cpu->seg[VMM_FS].base;
    s->state->gs_base = cpu->seg[VMM_GS].base;
    return true;
}

/* ---- taking ---- */

static uint64_t canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16);
}

/* The guest's table has what the host's has (table_fits). */
static void take_segment(struct x86_cpu *cpu, unsigned seg, uint16_t selector)
{
    if (selector == cpu->seg[seg].selector)
        return;
    if (x86_load_data_seg(cpu, seg, selector, X86_GP))
        return;
    cpu->event.valid = false;
    x86_load_data_seg(cpu, seg, 0, X86_GP);
}

static void take_segments(struct x86_cpu *cpu, const struct stub *s, const struct stub_context *c)
{
    const struct stub_state *state = s->state;

    take_segment(cpu, VMM_DS, state->ds);
    take_segment(cpu, VMM_ES, state->es);
    take_segment(cpu, VMM_FS, state->fs);
    take_segment(cpu, VMM_GS, state->gs);
    cpu->seg[VMM_FS].base = canonical(state->fs_base);
    cpu->seg[VMM_GS].base = canonical(state->gs_base);
    if (c->cs == USER_CS32) {
        x86_seg_flat_code(cpu, USER_CS32, 3, false);
        cpu->rip = (uint32_t)cpu->rip;
    }
    x86_cs_changed(cpu);
}

bool regs_take(struct x86_cpu *cpu, const struct stub *s)
{
    struct stub_context *at = stub_context(s), own, *c = &own;
    uint64_t *r = cpu->gpr;

    if (!at)
        return false;
    own = *at; /* once */
    if (!take_vectors(cpu, s, c))
        return false;
    r[VMM_RAX] = c->rax;
    r[VMM_RCX] = c->rcx;
    r[VMM_RDX] = c->rdx;
    r[VMM_RBX] = c->rbx;
    r[VMM_RSP] = c->rsp;
    r[VMM_RBP] = c->rbp;
    r[VMM_RSI] = c->rsi;
    r[VMM_RDI] = c->rdi;
    r[VMM_R8] = c->r8;
    r[VMM_R9] = c->r9;
    r[VMM_R10] = c->r10;
    r[VMM_R11] = c->r11;
    r[VMM_R12] = c->r12;
    r[VMM_R13] = c->r13;
    r[VMM_R14] = c->r14;
    r[VMM_R15] = c->r15;
    cpu->rip = canonical(c->rip);
    x86_change_flags(cpu, (uint32_t)c->eflags, USER_FLAGS);
    take_segments(cpu, s, c);
    return true;
}

unsigned regs_trap_len(struct x86_cpu *cpu, uint32_t vector)
{
    uint8_t last;

    /* INT 3 in two bytes, of which only the last may be in an accessed page; or CC and F1. */
    return vector == X86_BP && mmu_read(&cpu->mmu, MMU_USER, cpu->rip - 1, &last, 1) == MMU_OK &&
                   last == 3
               ? 2
               : 1;
}

/* Where the host may have entries to its kernel from times gone by. */
#define VSYSCALL_PAGE 0xffffffffff600000ull

/* Errors of the host's kernel that make it execute system calls again, or end them with -EINTR. */
static bool means_restart(int nr)
{
    return nr == -512 || nr == -514 || nr == -516;
}

void regs_before_call(struct x86_cpu *cpu, const siginfo_t *info)
{
    uint64_t behind = canonical((uint64_t)(uintptr_t)info->si_call_addr), *rax = &cpu->gpr[VMM_RAX];

    if ((behind & MMU_PAGE_MASK) == VSYSCALL_PAGE) {
        cpu->rip = behind; /* called; and the host has emulated RET, with RAX lost */
        cpu->gpr[VMM_RSP] -= 8;
        return;
    }
    cpu->rip = (behind - 2) & cpu->rip_mask;
    if (info->si_arch != AUDIT_ARCH_X86_64)
        *rax = (uint32_t)info->si_syscall; /* INT 0x80 */
    else if (*rax == (uint64_t)-EINTR && means_restart(info->si_syscall))
        *rax = (uint64_t)(int64_t)info->si_syscall;
}
