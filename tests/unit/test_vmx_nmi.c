/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vmx_nmi.c: vmm_host_nmi and the entry of the vmx engine: an NMI at each instruction, in a
 * process whose signal handlers are the CPU's VMX instructions and the host's NMI handler. */
#define _GNU_SOURCE
#include <check.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "backends/vmx/vmx.h"
#include "freestanding/host.h"
#include "vmx_fake.h"

const struct vmm_host_ops *vmm_host; /* there is none: vmm_host_nmi is called outside of VMX */
const struct vmm_backend_ops *const vmm_backends[] = {NULL};

#define TF           0x100
#define ZF           0x40
#define CF           1
#define FIELD_RSP    0x6c14
#define GUEST_VALUES 0x1111111111111111ull /* of register n: times n + 1 */

enum ending { EXITS, FAILS_VALID, FAILS_INVALID };

/* Written by signal handlers of this thread. */
static volatile struct run {
    unsigned steps, nmi_at, nested;
    bool nmi_came, entered, led_back, entered_behind_nmi;
    enum ending ending;
    bool use_nmi; /* the handler calls vmm_host_nmi */
} run;
static volatile uint32_t requests;
static uint64_t gpr[16], host_rsp,
    vmcs_rsp; /* what the VMCS has, as the engine believes, and in fact */

static const int numbers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

static bool in_entry(uint64_t rip)
{
    return rip >= (uintptr_t)vmx_enter && rip < (uintptr_t)vmm_host_nmi;
}

/* As the host's: the kick's request is there before the NMI. */
static void nmi(greg_t *r)
{
    uint64_t rip = (uint64_t)r[REG_RIP], to = vmm_host_nmi(rip);

    run.nmi_came = true;
    requests = 1;
    for (unsigned i = 0; i < run.nested; i++)
        to = vmm_host_nmi(to); /* one more, before the first has returned */
    run.led_back |= to != rip;
    if (run.use_nmi)
        r[REG_RIP] = (greg_t)to;
}

static void on_step(int signal, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)signal;
    (void)info;
    if (!in_entry((uint64_t)r[REG_RIP]))
        return;
    if (++run.steps == run.nmi_at)
        nmi(r);
}

/* VMWRITE, VMLAUNCH and VMRESUME, which do not exist in a process. */
static void on_vmx(int signal, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)r[REG_RIP];

    (void)signal;
    (void)info;
    if (!in_entry((uint64_t)code))
        abort();
    if (code[0] == 0x0f && code[1] == 0x79) { /* VMWRITE RAX, r64 */
        if (r[REG_RAX] != FIELD_RSP)
            abort();
        vmcs_rsp = (uint64_t)r[numbers[code[2] & 7]];
        r[REG_RIP] += 3;
    } else if (code[0] == 0x0f && code[1] == 1 && (code[2] == 0xc2 || code[2] == 0xc3)) {
        run.entered = true;
        run.entered_behind_nmi = run.nmi_came;
        if (run.ending == EXITS) {
            for (unsigned i = 0; i < 16; i++)
                r[numbers[i]] = (greg_t)(GUEST_VALUES * (i + 1));
            r[REG_RSP] = (greg_t)vmcs_rsp;
            r[REG_RIP] = (greg_t)(uintptr_t)vmx_exited;
        } else {
            r[REG_EFL] = (r[REG_EFL] & ~(ZF | CF)) | (run.ending == FAILS_VALID ? ZF : CF);
            r[REG_RIP] += 3;
        }
        /* Its end is a place for an NMI, too; a trap would have come behind the instruction. */
        on_step(SIGTRAP, NULL, context);
    } else {
        abort();
    }
    if (code[1] == 0x79)
        on_step(SIGTRAP, NULL, context);
}

/* vmx_enter with single steps. *kept: whether it has brought RSP and RBP back. */
static __attribute__((noinline)) int enter(uint64_t launched, bool *kept)
{
    uint64_t *rdi = gpr, *rcx = &host_rsp, moved;
    volatile uint32_t *rdx = &requests;
    int result;

    __asm__ volatile("leaq -128(%%rsp), %%rsp\n\t"
                     "pushq %%rbp\n\tmovq %%rsp, %%rbp\n\tpushq %%rbp\n\t"
                     "pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\t"
                     "call vmx_enter\n\t"
                     "pushfq\n\tandl $~0x100, (%%rsp)\n\tpopfq\n\t"
                     "popq %%rbx\n\txorq %%rbp, %%rbx\n\txorq %%rsp, %%rbp\n\torq %%rbp, %%rbx\n\t"
                     "popq %%rbp\n\tleaq 128(%%rsp), %%rsp"
                     : "=a"(result), "=&b"(moved), "+D"(rdi), "+S"(launched), "+d"(rdx), "+c"(rcx)
                     :
                     : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    *kept = !moved;
    return result;
}

static int go(enum ending ending, unsigned variant, unsigned nmi_at, bool use_nmi)
{
    bool launched = variant & 1, known = variant >> 1 & 1, kept = false;
    unsigned nested = variant >> 2 & 1;
    int result;

    run = (struct run){.ending = ending, .nmi_at = nmi_at, .nested = nested, .use_nmi = use_nmi};
    if (!known)
        host_rsp = 0;
    requests = 0;
    for (unsigned i = 0; i < 16; i++)
        gpr[i] = i + 100;
    result = enter(launched, &kept);
    ck_assert(kept);
    for (unsigned i = 0; i < 16; i++) {
        bool exited = !result && i != 4;

        ck_assert_uint_eq(gpr[i], exited ? GUEST_VALUES * (i + 1) : i + 100);
    }
    return result;
}

static void catch_signals(void)
{
    struct sigaction step = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    struct sigaction vmx = {.sa_sigaction = on_vmx, .sa_flags = SA_SIGINFO};

    sigaction(SIGTRAP, &step, NULL);
    sigaction(SIGILL, &vmx, NULL);
    sigaction(SIGSEGV, &vmx, NULL); /* #GP, where the process is itself in a guest */
}

static int without_nmi(enum ending ending)
{
    return ending == EXITS ? 0 : ending == FAILS_VALID ? 2 : 1;
}

START_TEST(entries)
{
    for (int ending = EXITS; ending <= FAILS_INVALID; ending++)
        for (unsigned variant = 0; variant < 4; variant++) {
            ck_assert_int_eq(go((enum ending)ending, variant, 0, true),
                             without_nmi((enum ending)ending));
            ck_assert(run.entered && !run.led_back && run.steps > 25);
        }
}
END_TEST

/*
 * Whenever an NMI has come before the entry, there is none; behind it, what it has brought stays.
 * The window in which the way leads back is a part of the function only: before it the look at the
 * requests finds the kick.
 */
START_TEST(nmi_at_each_instruction)
{
    unsigned led_back = 0, seen = 0, behind = 0;
    enum ending ending = (enum ending)(_i >> 3);

    for (unsigned at = 1;; at++) {
        int result = go(ending, (unsigned)_i & 7, at, true);

        if (!run.nmi_came)
            break;
        ck_assert_msg(!run.entered_behind_nmi, "entered behind an NMI at step %u", at);
        if (!run.entered)
            ck_assert_int_eq(result, 3);
        else if (!run.led_back)
            ck_assert_int_eq(result, without_nmi(ending));
        else /* an entry that has failed, and is tried again */
            ck_assert(ending != EXITS && result == 3);
        led_back += run.led_back;
        seen += !run.led_back && !run.entered;
        behind += run.entered;
    }
    ck_assert_uint_gt(led_back, 15);
    ck_assert_uint_gt(seen, 3);
    ck_assert_uint_gt(behind, 3);
}
END_TEST

/* The test can fail: a handler that does not call vmm_host_nmi lets entries overtake it. */
START_TEST(nmi_that_is_not_told)
{
    unsigned overtaken = 0;

    for (unsigned at = 1;; at++) {
        go(EXITS, 0, at, false);
        if (!run.nmi_came)
            break;
        overtaken += run.entered_behind_nmi;
    }
    ck_assert_uint_gt(overtaken, 15);
}
END_TEST

/* On a CPU without a session, or outside of VMX: any address but some of the entry stays. */
START_TEST(other_addresses)
{
    const uint64_t begin = (uintptr_t)vmx_enter, end = (uintptr_t)vmm_host_nmi;
    const uint64_t others[] = {0,
                               1,
                               begin - 1,
                               end,
                               end + 1,
                               end + 8,
                               UINT64_MAX,
                               1ull << 63,
                               1u << 31,
                               0xffff800000000000ull,
                               (uintptr_t)&run,
                               (uintptr_t)go};
    uint64_t back = 0;
    unsigned n = 0;

    ck_assert_ptr_null(vmm_host);
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        ck_assert_uint_eq(vmm_host_nmi(others[i]), others[i]);
    for (uint64_t rip = begin; rip < end; rip++) {
        uint64_t to = vmm_host_nmi(rip);

        if (to == rip)
            continue;
        ck_assert(!back || to == back); /* one place, which is itself no reason to go anywhere */
        back = to;
        n++;
        ck_assert_uint_eq(vmm_host_nmi(to), to);
    }
    ck_assert(back > begin && back < end && n > 0);
    ck_assert_uint_eq(vmm_host_nmi(begin), begin);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx_nmi");
    TCase *tc = tcase_create("vmx_nmi");

    catch_signals();
    tcase_add_test(tc, entries);
    tcase_add_loop_test(tc, nmi_at_each_instruction, 0, 24);
    tcase_add_test(tc, nmi_that_is_not_told);
    tcase_add_test(tc, other_addresses);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
