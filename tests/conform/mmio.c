/* SPDX-License-Identifier: BSD-2-Clause */
/* mmio.c: how accesses of instructions to memory-mapped devices reach callbacks: which, in which
 * order, of which size, and what becomes of the instruction's results. */
#include "conform.h"

static struct device d;

/* A device of two pages at MMIO, RBX there, RSI and RDI at DATA. */
static void start(enum snip_mode mode, struct code code)
{
    struct vcpu_regs regs;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 0x2000);
    load_on(cpu, mode, code);
    memset(ram + DATA, 0, 256);
    regs = get_regs(cpu);
    regs.gpr[VMM_RBX] = MMIO;
    regs.gpr[VMM_RSI] = regs.gpr[VMM_RDI] = DATA;
    set_regs(cpu, &regs, VMM_REGS_GPR);
}
#define START(mode, id) start(mode, GUEST_CODE(id))

/* Runs to the HLT at the end. */
static void finish(struct code code)
{
    RUN(HLT);
    EQ(ex.rip, CODE + (uint64_t)(code.end - code.begin));
}
#define FINISH(id) finish(GUEST_CODE(id))

#define P(offset, size) device_pattern(offset, size)

GUEST(moves, 64,
      "mov (%rbx), %al\n"
      "mov 2(%rbx), %cx\n"
      "mov 4(%rbx), %edx\n"
      "mov 8(%rbx), %r8\n"
      "mov %ah, 1(%rbx)\n"
      "mov %cx, 2(%rbx)\n"
      "mov %edx, 4(%rbx)\n"
      "mov %r8, 8(%rbx)\n"
      "movb $0x5a, (%rbx)\n"
      "movw $0x5a5b, 2(%rbx)\n"
      "movl $0x5a5b5c5d, 4(%rbx)\n"
      "movq $-2, 8(%rbx)\n"
      "hlt");

static void sizes(void)
{
    START(LONG64, moves);
    set_gpr(VMM_RAX, 0x1122334455667788);
    set_gpr(VMM_RCX, 0x1122334455667788);
    set_gpr(VMM_RDX, 0x1122334455667788);
    FINISH(moves);
    LOGGED(&d, R(0, 1), R(2, 2), R(4, 4), R(8, 8), W(1, 1, 0x77), W(2, 2, P(2, 2)),
           W(4, 4, P(4, 4)), W(8, 8, P(8, 8)), W(0, 1, 0x5a), W(2, 2, 0x5a5b), W(4, 4, 0x5a5b5c5d),
           W(8, 8, 0xfffffffffffffffe));
    EQ(gpr(VMM_RAX), 0x1122334455667710);
    EQ(gpr(VMM_RCX), 0x1122334455660000 | P(2, 2));
    EQ(gpr(VMM_RDX), P(4, 4)); /* 32-bit results are zero-extended */
    EQ(gpr(VMM_R8), P(8, 8));
    end();
}

GUEST(moves32, 32,
      "mov (%ebx), %al\n"
      "mov 2(%ebx), %cx\n"
      "mov 4(%ebx), %edx\n"
      "mov %cl, (%ebx)\n"
      "mov %cx, 2(%ebx)\n"
      "mov %edx, 4(%ebx)\n"
      "hlt");

static void sizes_32(void)
{
    START(PROT32, moves32);
    FINISH(moves32);
    LOGGED(&d, R(0, 1), R(2, 2), R(4, 4), W(0, 1, 0x12), W(2, 2, P(2, 2)), W(4, 4, P(4, 4)));
    end();
}

/* In real mode: 0xa0000 is a hole made for it. */
GUEST(moves16, 16,
      "mov $0xa000, %ax\n"
      "mov %ax, %es\n"
      "mov %es:0x10, %al\n"
      "mov %es:0x12, %cx\n"
      "mov %es:0x14, %edx\n"
      "mov %cx, %es:0x10\n"
      "hlt");

static void sizes_16(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vm_mem_unmap(vm, 0));
    OK(vm_mem_alloc(vm, 0, 0xa0000, VMM_MEM_RWX, (void **)&ram));
    device_mmio(&d, 0xa0000, 0x1000);
    LOAD(REAL16, moves16);
    FINISH(moves16);
    LOGGED(&d, R(0x10, 1), R(0x12, 2), R(0x14, 4), W(0x10, 2, P(0x12, 2)));
    EQ(ex.mode, VMM_MODE_REAL);
    end();
}

GUEST(extends, 64,
      "movzbl (%rbx), %eax\n"
      "movzwl 0xf0(%rbx), %ecx\n"
      "movsbq 0xf0(%rbx), %rdx\n"
      "movswl 0xf0(%rbx), %r8d\n"
      "movslq 0x7e(%rbx), %r9\n"
      "hlt");

static void extensions(void)
{
    START(LONG64, extends);
    FINISH(extends);
    /* 0x7e is not aligned to 4: two halves. */
    LOGGED(&d, R(0, 1), R(0xf0, 2), R(0xf0, 1), R(0xf0, 2), R(0x7e, 2), R(0x80, 2));
    EQ(gpr(VMM_RAX), 0x10);
    EQ(gpr(VMM_RCX), 0x0100);
    EQ(gpr(VMM_RDX), 0);
    EQ(gpr(VMM_R8), 0x100);
    EQ(gpr(VMM_R9), 0xffffffff91908f8e);
    end();
}

GUEST(misaligned, 64,
      "mov 1(%rbx), %eax\n"
      "mov %rax, 3(%rbx)\n"
      "mov 7(%rbx), %cx\n"
      "hlt");

static void not_aligned(void)
{
    START(LONG64, misaligned);
    FINISH(misaligned);
    LOGGED(&d, R(1, 1), R(2, 2), R(4, 1), W(3, 1, 0x11), W(4, 4, 0x00141312), W(8, 2, 0),
           W(10, 1, 0), R(7, 1), R(8, 1));
    EQ(gpr(VMM_RAX), P(1, 4));
    EQ(gpr(VMM_RCX), P(7, 2));
    end();
}

GUEST(crosses, 64,
      "mov 0xffe(%rbx), %rax\n"
      "mov %rax, 0xffd(%rbx)\n"
      "hlt");

static void page_crossing(void)
{
    START(LONG64, crosses);
    FINISH(crosses);
    EQ(gpr(VMM_RAX), P(0xffe, 8));
    LOGGED(&d, R(0xffe, 2), R(0x1000, 4), R(0x1004, 2), W(0xffd, 1, P(0xffe, 1)),
           W(0xffe, 2, P(0xfff, 2)), W(0x1000, 4, P(0x1001, 4)), W(0x1004, 1, P(0x1005, 1)));
    end();
}

GUEST(modifies, 64,
      "addl $5, (%rbx)\n"
      "lock subb $1, 4(%rbx)\n"
      "incw 6(%rbx)\n"
      "notq 8(%rbx)\n"
      "shll $4, 16(%rbx)\n"
      "or %cl, 20(%rbx)\n"
      "hlt");

static void read_modify_write(void)
{
    START(LONG64, modifies);
    FINISH(modifies);
    LOGGED(&d, R(0, 4), W(0, 4, P(0, 4) + 5), R(4, 1), W(4, 1, 0x13), R(6, 2), W(6, 2, P(6, 2) + 1),
           R(8, 8), W(8, 8, ~P(8, 8)), R(16, 4), W(16, 4, (P(16, 4) << 4) & 0xffffffff), R(20, 1),
           W(20, 1, 0x24));
    end();
}

GUEST(compares, 64,
      "cmpl $0x13121110, (%rbx)\n"
      "sete %cl\n"
      "testb $0x10, (%rbx)\n"
      "setnz %dl\n"
      "bt $4, 4(%rbx)\n"
      "setc %al\n"
      "cmp (%rbx), %rcx\n"
      "hlt");

static void reads_only(void)
{
    START(LONG64, compares);
    FINISH(compares);
    CHECK(d.n == 4);
    for (unsigned i = 0; i < 4; i++)
        CHECK(!d.log[i].write);
    EQ(gpr(VMM_RCX), 1);
    EQ(gpr(VMM_RDX), 1);
    EQ(gpr(VMM_RAX), 1);
    end();
}

GUEST(exchanges, 64,
      "mov $0x77, %al\n"
      "xchg %al, (%rbx)\n"
      "mov $0x17161514, %eax\n"
      "mov $0x55, %ecx\n"
      "lock cmpxchg %ecx, 4(%rbx)\n" /* equal */
      "setz %dl\n"
      "mov $1, %eax\n"
      "cmpxchg %ecx, 8(%rbx)\n" /* not equal */
      "setz %dh\n"
      "mov $3, %r8d\n"
      "lock xadd %r8w, 16(%rbx)\n"
      "hlt");

static void exchange_and_compare(void)
{
    START(LONG64, exchanges);
    FINISH(exchanges);
    LOGGED(&d, R(0, 1), W(0, 1, 0x77), R(4, 4), W(4, 4, 0x55), R(8, 4),
           W(8, 4, P(8, 4)), /* the destination is written whatever the comparison gives */
           R(16, 2), W(16, 2, P(16, 2) + 3));
    EQ(gpr(VMM_RAX), P(8, 4));
    EQ(gpr(VMM_RDX), 1);
    EQ(gpr(VMM_R8), P(16, 2));
    end();
}

GUEST(exchanges_8, 64,
      "mov $0x13121110, %eax\n"
      "mov $0x17161514, %edx\n"
      "mov $0xaaaaaaaa, %r9d\n"
      "mov %rbx, %r8\n"
      "mov $0x11223344, %ebx\n"
      "mov $0x55667788, %ecx\n"
      "lock cmpxchg8b (%r8)\n"
      "setz %r9b\n"
      "hlt");

static void exchange_of_8_bytes(void)
{
    START(LONG64, exchanges_8);
    FINISH(exchanges_8);
    LOGGED(&d, R(0, 8), W(0, 8, 0x5566778811223344));
    EQ(gpr(VMM_R9), 0xaaaaaa01);
    end();
}

/* ---- strings ---- */

GUEST(to_device, 64,
      "mov $4, %ecx\n"
      "mov %rbx, %rdi\n"
      "cld\n"
      "rep movsl\n"
      "hlt");

static void string_to_device(void)
{
    START(LONG64, to_device);
    for (uint32_t i = 0; i < 4; i++)
        poke(DATA + i * 4, 0x100 + i, 4);
    FINISH(to_device);
    LOGGED(&d, W(0, 4, 0x100), W(4, 4, 0x101), W(8, 4, 0x102), W(12, 4, 0x103));
    EQ(gpr(VMM_RCX), 0);
    EQ(gpr(VMM_RSI), DATA + 16);
    EQ(gpr(VMM_RDI), MMIO + 16);
    end();
}

GUEST(from_device, 64,
      "mov $3, %ecx\n"
      "lea 16(%rbx), %rsi\n"
      "lea 16(%rdi), %rdi\n"
      "std\n"
      "rep movsw\n"
      "cld\n"
      "hlt");

static void string_from_device_downwards(void)
{
    START(LONG64, from_device);
    FINISH(from_device);
    LOGGED(&d, R(16, 2), R(14, 2), R(12, 2));
    EQ(gpr(VMM_RSI), MMIO + 10);
    EQ(gpr(VMM_RDI), DATA + 10);
    EQ(peek(DATA + 12, 2), P(12, 2));
    EQ(peek(DATA + 16, 2), P(16, 2));
    EQ(peek(DATA + 10, 2), 0);
    end();
}

GUEST(device_to_device, 64,
      "mov $2, %ecx\n"
      "mov %rbx, %rsi\n"
      "lea 0x20(%rbx), %rdi\n"
      "rep movsq\n"
      "hlt");

static void string_between_devices(void)
{
    START(LONG64, device_to_device);
    FINISH(device_to_device);
    LOGGED(&d, R(0, 8), W(0x20, 8, P(0, 8)), R(8, 8), W(0x28, 8, P(8, 8)));
    end();
}

GUEST(stores_and_loads, 64,
      "mov $3, %ecx\n"
      "mov %rbx, %rdi\n"
      "mov $0x5a, %al\n"
      "rep stosb\n"
      "mov %rbx, %rsi\n"
      "lodsw\n"
      "lodsq\n"
      "hlt");

static void string_stores_and_loads(void)
{
    START(LONG64, stores_and_loads);
    FINISH(stores_and_loads);
    LOGGED(&d, W(0, 1, 0x5a), W(1, 1, 0x5a), W(2, 1, 0x5a), R(0, 2), R(2, 2), R(4, 4), R(8, 2));
    EQ(gpr(VMM_RAX), P(2, 8));
    EQ(gpr(VMM_RSI), MMIO + 10);
    end();
}

GUEST(compare_strings, 64,
      "mov $8, %ecx\n"
      "mov %rbx, %rsi\n"
      "repe cmpsb\n" /* until they differ */
      "mov %ecx, %r8d\n"
      "mov $8, %ecx\n"
      "mov %rbx, %rdi\n"
      "mov $0x12, %al\n"
      "repne scasb\n" /* until found */
      "hlt");

static void string_comparisons(void)
{
    START(LONG64, compare_strings);
    poke(DATA, 0x1110, 4);
    FINISH(compare_strings);
    LOGGED(&d, R(0, 1), R(1, 1), R(2, 1), R(0, 1), R(1, 1), R(2, 1));
    EQ(gpr(VMM_R8), 5);
    EQ(gpr(VMM_RCX), 5);
    end();
}

GUEST(long_string, 64,
      "mov $1000, %ecx\n"
      "mov %rbx, %rdi\n"
      "mov $7, %eax\n"
      "rep stosl\n"
      "hlt");

static void long_strings(void)
{
    START(LONG64, long_string);
    FINISH(long_string);
    EQ(d.n, 1000);
    for (unsigned i = 0; i < LOG_MAX; i++)
        CHECK(d.log[i].write && d.log[i].offset == i * 4 && d.log[i].value == 7);
    EQ(gpr(VMM_RDI), MMIO + 4000);
    end();
}

/* ---- stack and branches ---- */

GUEST(stacks, 64,
      "lea 0x100(%rbx), %rsp\n"
      "push $0x77\n"
      "push 8(%rbx)\n"
      "pop %rcx\n"
      "pop 0x20(%rbx)\n"
      "hlt");

static void stack_on_a_device(void)
{
    START(LONG64, stacks);
    FINISH(stacks);
    LOGGED(&d, W(0xf8, 8, 0x77), R(8, 8), W(0xf0, 8, P(8, 8)), R(0xf0, 8), R(0xf8, 8),
           W(0x20, 8, P(0xf8, 8)));
    EQ(gpr(VMM_RCX), P(0xf0, 8));
    EQ(gpr(VMM_RSP), MMIO + 0x100);
    end();
}

GUEST(jumps, 32,
      "mov $0xd0000000, %ebx\n"
      "jmp *(%ebx)\n");

static int entry_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    *value = SNIP_HANDLERS + 4 * 77;
    return VMM_IO_OK;
}

static void jump_through_a_device(void)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .read = entry_read};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(mmio_register(vm, MMIO, 0x1000, &ops, NULL, NULL));
    LOAD(PROT32, jumps);
    RUN(HLT);
    EQ(halted_in(&ex), 77);
    end();
}

/* ---- vectors ---- */

GUEST(sse, 64,
      "movups (%rbx), %xmm0\n"
      "movaps 16(%rbx), %xmm1\n"
      "movq 32(%rbx), %xmm2\n"
      "movd 40(%rbx), %xmm3\n"
      "movups %xmm0, (%rdi)\n"
      "movaps %xmm1, 48(%rbx)\n"
      "movq %xmm2, 64(%rbx)\n"
      "movss %xmm3, 72(%rbx)\n"
      "movntdq %xmm1, 80(%rbx)\n"
      "movhps 96(%rbx), %xmm0\n"
      "movlps %xmm0, 104(%rbx)\n"
      "hlt");

static void sse_moves(void)
{
    START(LONG64, sse);
    FINISH(sse);
    EQ(peek(DATA, 8), P(0, 8));
    EQ(peek(DATA + 8, 8), P(8, 8));
    LOGGED(&d, R(0, 8), R(8, 8), R(16, 8), R(24, 8), R(32, 8), R(40, 4), W(48, 8, P(16, 8)),
           W(56, 8, P(24, 8)), W(64, 8, P(32, 8)), W(72, 4, P(40, 4)), W(80, 8, P(16, 8)),
           W(88, 8, P(24, 8)), R(96, 8), W(104, 8, P(0, 8)));
    end();
}

GUEST(sse_odd, 64,
      "movups 1(%rbx), %xmm0\n"
      "movups %xmm0, (%rdi)\n"
      "movups %xmm0, 0xff8(%rbx)\n"
      "hlt");

/* The accesses from number `i` on are aligned pieces of [from, to) in order; behind them. */
static unsigned pieces(unsigned i, bool write, uint64_t from, uint64_t to)
{
    for (; from < to; from += d.log[i++].size) {
        CHECK(i < d.n && d.log[i].write == write);
        EQ(d.log[i].offset, from);
        EQ(from % d.log[i].size, 0);
    }
    EQ(from, to);
    return i;
}

static void sse_not_aligned(void)
{
    START(LONG64, sse_odd);
    FINISH(sse_odd);
    EQ(peek(DATA, 8), P(1, 8));
    EQ(peek(DATA + 8, 8), P(9, 8));
    /* How 17 bytes are cut is not promised: aligned pieces in order. */
    unsigned n = pieces(0, false, 1, 17);
    EQ(pieces(n, true, 0xff8, 0x1008), d.n);
    end();
}

GUEST(sse_operands, 64,
      "pxor %xmm0, %xmm0\n"
      "por (%rbx), %xmm0\n"
      "paddb 16(%rbx), %xmm0\n"
      "movups %xmm0, (%rdi)\n"
      "hlt");

static void sse_arithmetic(void)
{
    START(LONG64, sse_operands);
    FINISH(sse_operands);
    LOGGED(&d, R(0, 8), R(8, 8), R(16, 8), R(24, 8));
    EQ(peek(DATA, 1), 0x30);
    EQ(peek(DATA + 15, 1), 0x4e);
    end();
}

GUEST(avx, 64,
      "mov $7, %eax\n"
      "xor %edx, %edx\n"
      "xor %ecx, %ecx\n"
      "xsetbv\n"
      "vmovups (%rbx), %ymm1\n"
      "vmovups %ymm1, 32(%rbx)\n"
      "vmovups %ymm1, (%rdi)\n"
      "hlt");

static void avx_moves(void)
{
    START(LONG64, avx);
    if (!cpu_has(1, 2, 28))
        outcome_not_offered("AVX of the host");
    FINISH(avx);
    LOGGED(&d, R(0, 8), R(8, 8), R(16, 8), R(24, 8), W(32, 8, P(0, 8)), W(40, 8, P(8, 8)),
           W(48, 8, P(16, 8)), W(56, 8, P(24, 8)));
    EQ(peek(DATA + 24, 8), P(24, 8));
    end();
}

GUEST(x87, 64,
      "fninit\n"
      "fildl (%rbx)\n"
      "fistpl 8(%rbx)\n"
      "fnstcw 16(%rbx)\n"
      "hlt");

static void x87_operands(void)
{
    START(LONG64, x87);
    FINISH(x87);
    LOGGED(&d, R(0, 4), W(8, 4, P(0, 4)), W(16, 2, 0x37f));
    end();
}

/* ---- user mode ---- */

GUEST(user, 64,
      "mov (%rbx), %rax\n"
      "mov %eax, 8(%rbx)\n"
      "addb $1, 16(%rbx)\n"
      "hlt"); /* #GP at CPL 3 */

static void at_cpl_3(void)
{
    START(USER64, user);
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    EQ(gpr(VMM_RAX), P(0, 8));
    LOGGED(&d, R(0, 8), W(8, 4, P(0, 4)), R(16, 1), W(16, 1, 0x21));
    end();
}

GUEST(compat, 32,
      "mov (%ebx), %eax\n"
      "mov %ax, 8(%ebx)\n"
      "hlt");

static void in_compatibility_mode(void)
{
    START(COMPAT32, compat);
    FINISH(compat);
    EQ(gpr(VMM_RAX), P(0, 4));
    LOGGED(&d, R(0, 4), W(8, 2, P(0, 2)));
    EQ(ex.mode, VMM_MODE_COMPAT32);
    end();
}

GUEST(faults, 64,
      "mov $1, %ecx\n"
      "mov %rbx, %rsi\n"
      "mov $0x4000, %edi\n"
      "movsl\n"
      "hlt");

/* The destination is read-only: whether the source is read before is not promised, that nothing
 * is written is. */
static void fault_beside_an_access(void)
{
    START(LONG64, faults);
    RUN(HLT);
    EQ(halted_in(&ex), 14);
    CHECK(d.n <= 1);
    EQ(get_regs(cpu).cr2, SNIP_RO);
    EQ(gpr(VMM_RSI), MMIO);
    end();
}

/* ---- size rules ---- */

static void limits(unsigned min, unsigned max)
{
    struct vmm_io_ops ops = device_ops();
    struct vcpu_regs regs;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    ops.min_access = (uint8_t)min;
    ops.max_access = (uint8_t)max;
    OK(mmio_register(vm, MMIO, 0x2000, &ops, &d, NULL));
    LOAD(LONG64, moves);
    regs = get_regs(cpu);
    regs.gpr[VMM_RBX] = MMIO;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    FINISH(moves);
    d.log[LOG_MAX - 1].size = 0;
}

static void largest_access(void)
{
    limits(0, 2);
    LOGGED(&d, R(0, 1), R(2, 2), R(4, 2), R(6, 2), R(8, 2), R(10, 2), R(12, 2), R(14, 2),
           W(1, 1, 0), W(2, 2, P(2, 2)), W(4, 2, P(4, 2)), W(6, 2, P(6, 2)), W(8, 2, P(8, 2)),
           W(10, 2, P(10, 2)), W(12, 2, P(12, 2)), W(14, 2, P(14, 2)), W(0, 1, 0x5a),
           W(2, 2, 0x5a5b), W(4, 2, 0x5c5d), W(6, 2, 0x5a5b), W(8, 2, 0xfffe), W(10, 2, 0xffff),
           W(12, 2, 0xffff), W(14, 2, 0xffff));
    EQ(gpr(VMM_R8), P(8, 8));
    end();
}

static void smallest_access(void)
{
    limits(4, 8);
    LOGGED(&d, R(4, 4), R(8, 8), W(4, 4, P(4, 4)), W(8, 8, P(8, 8)), W(4, 4, 0x5a5b5c5d),
           W(8, 8, 0xfffffffffffffffe));
    EQ(gpr(VMM_RAX) & 0xff, 0xff); /* nobody */
    EQ(gpr(VMM_RCX) & 0xffff, 0xffff);
    end();
}

GUEST(at_edge, 64,
      "mov 12(%rbx), %rax\n"
      "mov %rax, 28(%rbx)\n"
      "hlt");

static void edges_of_registrations(void)
{
    static struct device next;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 16);
    device_mmio(&next, MMIO + 16, 16);
    LOAD(LONG64, at_edge);
    set_gpr(VMM_RBX, MMIO);
    RUN(MMIO); /* what lies behind the second */
    EQ(ex.u.mmio.gpa, MMIO + 32);
    EQ(ex.u.mmio.len, 4);
    EQ(ex.u.mmio.data, P(0, 4));
    LOGGED(&d, R(12, 4));
    LOGGED(&next, R(0, 4), W(12, 4, P(12, 4)));
    FINISH(at_edge);
    EQ(gpr(VMM_RAX), P(0, 4) << 32 | P(12, 4));
    EQ(d.n + next.n, 0); /* each access is made once */
    end();
}

static const struct conform_case cases[] = {
    CASE(sizes, "moves of 1, 2, 4 and 8 bytes are one access each, in program order"),
    CASE(sizes_32, "the same in 32-bit protected mode without paging"),
    CASE(sizes_16, "the same in real mode"),
    CASE(extensions, "MOVZX, MOVSX and MOVSXD read the size of their source"),
    CASE(not_aligned, "what is not aligned comes as aligned pieces, lowest address first"),
    CASE(page_crossing, "an access across pages comes as aligned pieces in order"),
    CASE(read_modify_write, "read-modify-write: one read, then one write, LOCKed or not"),
    CASE(reads_only, "CMP, TEST and BT read and do not write"),
    CASE(exchange_and_compare, "XCHG, CMPXCHG and XADD read once and write once"),
    CASE(exchange_of_8_bytes, "CMPXCHG8B reads and writes 8 bytes once"),
    CASE(string_to_device, "REP MOVS to a device writes element by element"),
    CASE(string_from_device_downwards, "REP MOVS with DF reads downwards"),
    CASE(string_between_devices, "MOVS between devices alternates reads and writes"),
    CASE(string_stores_and_loads, "STOS and LODS of several sizes"),
    CASE(string_comparisons, "REPE CMPS and REPNE SCAS stop where they should"),
    CASE(long_strings, "a long REP string makes each access exactly once"),
    CASE(stack_on_a_device, "PUSH and POP with the stack or the operand on a device"),
    CASE(jump_through_a_device, "an indirect jump reads its target from a device"),
    CASE(sse_moves, "SSE moves of 4, 8 and 16 bytes"),
    CASE(sse_not_aligned, "SSE moves that are not aligned or cross a page"),
    CASE(sse_arithmetic, "SSE arithmetic with an operand on a device"),
    CASE(avx_moves, "AVX moves of 32 bytes"),
    CASE(x87_operands, "x87 loads and stores"),
    CASE(at_cpl_3, "accesses from user mode"),
    CASE(in_compatibility_mode, "accesses from compatibility mode"),
    CASE(fault_beside_an_access, "an instruction that faults writes to no device"),
    CASE(largest_access, "max_access splits into smaller aligned accesses"),
    CASE(smallest_access, "what is smaller than min_access finds nobody"),
    CASE(edges_of_registrations, "bytes outside of a registration go to whoever is there"),
};

AREA(mmio, cases);
