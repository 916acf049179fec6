/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/serialize.c: lets the host CPU see code that was changed. */
#include <cpuid.h>

#include "backends/bt/bt.h"

/*
 * Code is changed through another address than that at which it is executed: what has been executed
 * may be executed again only after a serialising instruction (SDM Vol. 3A 9.1.3). CPUID is one that
 * all CPUs have, but under a hypervisor it costs ten thousand cycles and more. IRET to the next
 * instruction costs some hundred; it cannot be used while there is a shadow stack, as it would take
 * a return address from that, too.
 */

static void by_cpuid(void)
{
    unsigned a, b, c, d;

    __cpuid(0, a, b, c, d);
    __asm__ volatile("" ::"r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

/* RDSSPQ leaves its operand alone where there is no shadow stack, or no such thing as one. */
static bool has_shadow_stack(void)
{
    uint64_t ssp = 0;

    __asm__ volatile(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" : "+a"(ssp)); /* RDSSPQ RAX */
    return ssp;
}

/* IRETQ loads RIP, CS, RFLAGS, RSP and SS; what lies below RSP may be in use (the red zone). */
static void by_iret(void)
{
    __asm__ volatile("mov %%rsp, %%rdx\n\t"
                     "lea -128(%%rsp), %%rsp\n\t"
                     "mov %%ss, %%eax\n\t"
                     "push %%rax\n\t"
                     "push %%rdx\n\t"
                     "pushfq\n\t"
                     "mov %%cs, %%eax\n\t"
                     "push %%rax\n\t"
                     "lea 1f(%%rip), %%rax\n\t"
                     "push %%rax\n\t"
                     "iretq\n"
                     "1:"
                     :
                     :
                     : "rax", "rdx", "cc", "memory");
}

void bt_serialize(struct bt *bt)
{
    if (!bt->patched)
        return;
    if (bt->host.serialize)
        __asm__ volatile(".byte 0x0f, 0x01, 0xe8" ::: "memory"); /* SERIALIZE */
    else if (has_shadow_stack())
        by_cpuid();
    else
        by_iret();
    bt->patched = false;
}
