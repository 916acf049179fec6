/* SPDX-License-Identifier: BSD-2-Clause */
/* test_ops_native.c: integer instructions against the host's CPU: each form with random operands is
 * executed by both, from the same state at the same addresses; registers, flags, memory and faults
 * must be the same. */
#include <check.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

#include "x86_fake.h"

/* Operands in memory and the stack; mapped here for the host's CPU too. */
#define DATA      FAKE_DATA
#define DATA_SIZE 0x4000u
#define BASE      (DATA + 0x1000) /* in RBX or R11 */
#define STACK     (DATA + 0x3000)

#define CF  X86_CF
#define PF  X86_PF
#define AF  X86_AF
#define ZF  X86_ZF
#define SF  X86_SF
#define OF  X86_OF
#define ALL X86_ARITH

enum {
    BYTE = 1u,      /* operands of 8 bits */
    REG = 2u,       /* no memory operand */
    MEM = 4u,       /* memory operand only */
    LOCK = 8u,      /* may have a LOCK prefix with memory */
    VEX = 16u,      /* VEX encoding, 32 and 64 bits */
    NO16 = 32u,     /* 32 and 64 bits only */
    PLAIN = 64u,    /* no ModRM */
    OPREG = 128u,   /* register in the opcode */
    BITS = 256u,    /* the register operand is a bit offset that moves the address */
    D64 = 512u,     /* 64 or 16 bits */
    STRING = 1024u, /* string instruction */
    EXT8 = 2048u,   /* the ModRM operand has 8 bits, the register more */
    ALIGN = 4096u,  /* memory operand aligned to 16 */
};

struct row {
    const char *name;
    uint8_t prefix, map, opcode;
    int8_t digit;       /* of ModRM, or -1: a register */
    uint8_t imm;        /* bytes; 4: by operand size; 1 + 16: small numbers */
    unsigned flags;     /* above */
    uint32_t undefined; /* flags that the manuals and we leave open */
};

#define ALU_ROWS(name, n, x)                                                                       \
    {name, 0, 0, (n)*8 + 0, -1, 0, BYTE | (x), 0}, {name, 0, 0, (n)*8 + 1, -1, 0, (x), 0},         \
        {name, 0, 0, (n)*8 + 2, -1, 0, BYTE, 0}, {name, 0, 0, (n)*8 + 3, -1, 0, 0, 0},             \
        {name, 0, 0, (n)*8 + 4, -1, 1, BYTE | PLAIN, 0}, {name, 0, 0, (n)*8 + 5, -1, 4, PLAIN, 0}, \
        {name, 0, 0, 0x80, (n), 1, BYTE | (x), 0}, {name, 0, 0, 0x81, (n), 4, (x), 0},             \
    {                                                                                              \
        name, 0, 0, 0x83, (n), 1, (x), 0                                                           \
    }
/* OF of rotations by more than 1 is undefined, and differs between immediate counts and CL. */
#define SHIFT_ROWS(name, n)                                                                        \
    {name, 0, 0, 0xc0, (n), 1, BYTE, (n) < 2 ? OF : 0},                                            \
        {name, 0, 0, 0xc1, (n), 1, 0, (n) < 2 ? OF : 0}, {name, 0, 0, 0xd0, (n), 0, BYTE, 0},      \
        {name, 0, 0, 0xd1, (n), 0, 0, 0}, {name, 0, 0, 0xd2, (n), 0, BYTE, 0},                     \
    {                                                                                              \
        name, 0, 0, 0xd3, (n), 0, 0, 0                                                             \
    }
#define CC_ROWS(n)                                                                                 \
    {"cmov", 0, 1, 0x40 + (n), -1, 0, 0, 0},                                                       \
    {                                                                                              \
        "set", 0, 1, 0x90 + (n), 0, 0, BYTE, 0                                                     \
    }
#define STRING_ROWS(name, op)                                                                      \
    {name, 0, 0, (op), -1, 0, BYTE | PLAIN | STRING, 0},                                           \
        {name, 0, 0, (op) + 1, -1, 0, PLAIN | STRING, 0},                                          \
        {"rep", 0xf3, 0, (op), -1, 0, BYTE | PLAIN | STRING, 0},                                   \
        {"rep", 0xf3, 0, (op) + 1, -1, 0, PLAIN | STRING, 0},                                      \
        {"repne", 0xf2, 0, (op), -1, 0, BYTE | PLAIN | STRING, 0},                                 \
    {                                                                                              \
        "repne", 0xf2, 0, (op) + 1, -1, 0, PLAIN | STRING, 0                                       \
    }
#define BT_ROWS(name, n, x)                                                                        \
    {name, 0, 1, 0x83 + (n)*8, -1, 0, BITS | (x), 0},                                              \
    {                                                                                              \
        name, 0, 1, 0xba, (n), 1, (x), 0                                                           \
    }

static const struct row rows[] = {
    ALU_ROWS("add", 0, LOCK),
    ALU_ROWS("or", 1, LOCK),
    ALU_ROWS("adc", 2, LOCK),
    ALU_ROWS("sbb", 3, LOCK),
    ALU_ROWS("and", 4, LOCK),
    ALU_ROWS("sub", 5, LOCK),
    ALU_ROWS("xor", 6, LOCK),
    ALU_ROWS("cmp", 7, 0),
    {"test", 0, 0, 0x84, -1, 0, BYTE, 0},
    {"test", 0, 0, 0x85, -1, 0, 0, 0},
    {"test", 0, 0, 0xa8, -1, 1, BYTE | PLAIN, 0},
    {"test", 0, 0, 0xa9, -1, 4, PLAIN, 0},
    {"test", 0, 0, 0xf6, 0, 1, BYTE, 0},
    {"test", 0, 0, 0xf7, 0, 4, 0, 0},
    {"inc", 0, 0, 0xfe, 0, 0, BYTE | LOCK, 0},
    {"inc", 0, 0, 0xff, 0, 0, LOCK, 0},
    {"dec", 0, 0, 0xfe, 1, 0, BYTE | LOCK, 0},
    {"dec", 0, 0, 0xff, 1, 0, LOCK, 0},
    {"not", 0, 0, 0xf6, 2, 0, BYTE | LOCK, 0},
    {"not", 0, 0, 0xf7, 2, 0, LOCK, 0},
    {"neg", 0, 0, 0xf6, 3, 0, BYTE | LOCK, 0},
    {"neg", 0, 0, 0xf7, 3, 0, LOCK, 0},
    {"mul", 0, 0, 0xf6, 4, 0, BYTE, 0},
    {"mul", 0, 0, 0xf7, 4, 0, 0, 0},
    {"imul", 0, 0, 0xf6, 5, 0, BYTE, 0},
    {"imul", 0, 0, 0xf7, 5, 0, 0, 0},
    {"div", 0, 0, 0xf6, 6, 0, BYTE, 0},
    {"div", 0, 0, 0xf7, 6, 0, 0, 0},
    {"idiv", 0, 0, 0xf6, 7, 0, BYTE, 0},
    {"idiv", 0, 0, 0xf7, 7, 0, 0, 0},
    {"imul", 0, 1, 0xaf, -1, 0, 0, 0},
    {"imul", 0, 0, 0x69, -1, 4, 0, 0},
    {"imul", 0, 0, 0x6b, -1, 1, 0, 0},
    SHIFT_ROWS("rol", 0),
    SHIFT_ROWS("ror", 1),
    SHIFT_ROWS("rcl", 2),
    SHIFT_ROWS("rcr", 3),
    SHIFT_ROWS("shl", 4),
    SHIFT_ROWS("shr", 5),
    SHIFT_ROWS("sal", 6),
    SHIFT_ROWS("sar", 7),
    {"shld", 0, 1, 0xa4, -1, 1, 0, 0},
    {"shld", 0, 1, 0xa5, -1, 0, 0, 0},
    {"shrd", 0, 1, 0xac, -1, 1, 0, 0},
    {"shrd", 0, 1, 0xad, -1, 0, 0, 0},
    {"mov", 0, 0, 0x88, -1, 0, BYTE, 0},
    {"mov", 0, 0, 0x89, -1, 0, 0, 0},
    {"mov", 0, 0, 0x8a, -1, 0, BYTE, 0},
    {"mov", 0, 0, 0x8b, -1, 0, 0, 0},
    {"mov", 0, 0, 0xc6, 0, 1, BYTE, 0},
    {"mov", 0, 0, 0xc7, 0, 4, 0, 0},
    {"mov", 0, 0, 0xb0, -1, 1, BYTE | PLAIN | OPREG, 0},
    {"mov", 0, 0, 0xb8, -1, 8, PLAIN | OPREG, 0},
    {"movzx", 0, 1, 0xb6, -1, 0, EXT8, 0},
    {"movzx", 0, 1, 0xb7, -1, 0, 0, 0},
    {"movsx", 0, 1, 0xbe, -1, 0, EXT8, 0},
    {"movsx", 0, 1, 0xbf, -1, 0, 0, 0},
    {"movsxd", 0, 0, 0x63, -1, 0, 0, 0},
    {"movbe", 0, 2, 0xf0, -1, 0, MEM, 0},
    {"movbe", 0, 2, 0xf1, -1, 0, MEM, 0},
    {"movnti", 0, 1, 0xc3, -1, 0, MEM | NO16, 0},
    {"lea", 0, 0, 0x8d, -1, 0, MEM, 0},
    {"xlat", 0, 0, 0xd7, -1, 0, PLAIN, 0},
    {"bswap", 0, 1, 0xc8, -1, 0, PLAIN | OPREG, 0},
    {"cbw", 0, 0, 0x98, -1, 0, PLAIN, 0},
    {"cwd", 0, 0, 0x99, -1, 0, PLAIN, 0},
    {"xchg", 0, 0, 0x86, -1, 0, BYTE | LOCK, 0},
    {"xchg", 0, 0, 0x87, -1, 0, LOCK, 0},
    {"xchg", 0, 0, 0x90, -1, 0, PLAIN | OPREG, 0},
    {"xadd", 0, 1, 0xc0, -1, 0, BYTE | LOCK, 0},
    {"xadd", 0, 1, 0xc1, -1, 0, LOCK, 0},
    {"cmpxchg", 0, 1, 0xb0, -1, 0, BYTE | LOCK, 0},
    {"cmpxchg", 0, 1, 0xb1, -1, 0, LOCK, 0},
    {"cmpxchg8b/16b", 0, 1, 0xc7, 1, 0, MEM | LOCK | ALIGN | NO16, 0},
    CC_ROWS(0),
    CC_ROWS(1),
    CC_ROWS(2),
    CC_ROWS(3),
    CC_ROWS(4),
    CC_ROWS(5),
    CC_ROWS(6),
    CC_ROWS(7),
    CC_ROWS(8),
    CC_ROWS(9),
    CC_ROWS(10),
    CC_ROWS(11),
    CC_ROWS(12),
    CC_ROWS(13),
    CC_ROWS(14),
    CC_ROWS(15),
    BT_ROWS("bt", 4, 0),
    BT_ROWS("bts", 5, LOCK),
    BT_ROWS("btr", 6, LOCK),
    BT_ROWS("btc", 7, LOCK),
    {"bsf", 0, 1, 0xbc, -1, 0, 0, 0},
    {"bsr", 0, 1, 0xbd, -1, 0, 0, 0},
    {"tzcnt", 0xf3, 1, 0xbc, -1, 0, 0, OF | SF | AF | PF},
    {"lzcnt", 0xf3, 1, 0xbd, -1, 0, 0, OF | SF | AF | PF},
    {"popcnt", 0xf3, 1, 0xb8, -1, 0, 0, 0},
    {"crc32", 0xf2, 2, 0xf0, -1, 0, EXT8 | NO16, 0},
    {"crc32", 0xf2, 2, 0xf1, -1, 0, NO16, 0},
    {"adcx", 0x66, 2, 0xf6, -1, 0, NO16, 0},
    {"adox", 0xf3, 2, 0xf6, -1, 0, NO16, 0},
    {"andn", 0, 2, 0xf2, -1, 0, VEX, AF | PF},
    {"bextr", 0, 2, 0xf7, -1, 0, VEX, SF | AF | PF},
    {"blsr", 0, 2, 0xf3, 1, 0, VEX, AF | PF},
    {"blsmsk", 0, 2, 0xf3, 2, 0, VEX, AF | PF},
    {"blsi", 0, 2, 0xf3, 3, 0, VEX, AF | PF},
    {"bzhi", 0, 2, 0xf5, -1, 0, VEX, AF | PF},
    {"pdep", 0xf2, 2, 0xf5, -1, 0, VEX, 0},
    {"pext", 0xf3, 2, 0xf5, -1, 0, VEX, 0},
    {"mulx", 0xf2, 2, 0xf6, -1, 0, VEX, 0},
    {"shlx", 0x66, 2, 0xf7, -1, 0, VEX, 0},
    {"shrx", 0xf2, 2, 0xf7, -1, 0, VEX, 0},
    {"sarx", 0xf3, 2, 0xf7, -1, 0, VEX, 0},
    {"rorx", 0xf2, 3, 0xf0, -1, 1, VEX, 0},
    {"push", 0, 0, 0x50, -1, 0, PLAIN | OPREG | D64, 0},
    {"pop", 0, 0, 0x58, -1, 0, PLAIN | OPREG | D64, 0},
    {"push", 0, 0, 0xff, 6, 0, D64, 0},
    {"pop", 0, 0, 0x8f, 0, 0, D64, 0},
    {"push", 0, 0, 0x68, -1, 4, PLAIN | D64, 0},
    {"push", 0, 0, 0x6a, -1, 1, PLAIN | D64, 0},
    {"leave", 0, 0, 0xc9, -1, 0, PLAIN | D64, 0},
    {"enter", 0, 0, 0xc8, -1, 3, PLAIN | D64, 0},
    {"clc", 0, 0, 0xf8, -1, 0, PLAIN, 0},
    {"stc", 0, 0, 0xf9, -1, 0, PLAIN, 0},
    {"cmc", 0, 0, 0xf5, -1, 0, PLAIN, 0},
    {"cld", 0, 0, 0xfc, -1, 0, PLAIN, 0},
    {"std", 0, 0, 0xfd, -1, 0, PLAIN, 0},
    {"sahf", 0, 0, 0x9e, -1, 0, PLAIN, 0},
    {"lahf", 0, 0, 0x9f, -1, 0, PLAIN, 0},
    {"pause", 0xf3, 0, 0x90, -1, 0, PLAIN, 0},
    {"nop", 0, 1, 0x1f, 0, 0, 0, 0},
    {"nop", 0, 1, 0x1e, 3, 0, 0, 0},
    {"prefetch", 0, 1, 0x18, 1, 0, MEM, 0},
    {"prefetchw", 0, 1, 0x0d, 1, 0, MEM, 0},
    {"clflush", 0, 1, 0xae, 7, 0, MEM, 0},
    STRING_ROWS("movs", 0xa4),
    STRING_ROWS("cmps", 0xa6),
    STRING_ROWS("stos", 0xaa),
    STRING_ROWS("lods", 0xac),
    STRING_ROWS("scas", 0xae),
};

/* ---- the host's side ---- */

struct native {
    uint64_t gpr[16];
    uint64_t flags;
    uint64_t host_rsp;
    const void *code;
};
static struct native native;

/* Loads the state, goes to the code, which comes back to native_back. */
void native_enter(void);
void native_back(void);
__asm__(".text\n"
        "native_enter:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "lea native_state(%rip), %rax\n"
        "mov (%rax), %rax\n"
        "mov %rsp, 136(%rax)\n"
        "push 128(%rax); popf\n"
        "mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 32(%rax), %rsp\n"
        "mov 40(%rax), %rbp; mov 48(%rax), %rsi; mov 56(%rax), %rdi; mov 64(%rax), %r8\n"
        "mov 72(%rax), %r9; mov 80(%rax), %r10; mov 88(%rax), %r11; mov 96(%rax), %r12\n"
        "mov 104(%rax), %r13; mov 112(%rax), %r14; mov 120(%rax), %r15\n"
        "push 144(%rax)\n"
        "mov (%rax), %rax\n"
        "ret\n"
        "native_back:\n"
        "mov %rax, native_rax(%rip)\n"
        "mov native_state(%rip), %rax\n"
        "mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax); mov %rsp, 32(%rax)\n"
        "mov %rbp, 40(%rax); mov %rsi, 48(%rax); mov %rdi, 56(%rax); mov %r8, 64(%rax)\n"
        "mov %r9, 72(%rax); mov %r10, 80(%rax); mov %r11, 88(%rax); mov %r12, 96(%rax)\n"
        "mov %r13, 104(%rax); mov %r14, 112(%rax); mov %r15, 120(%rax)\n"
        "mov 136(%rax), %rsp\n"
        "pushf; pop 128(%rax)\n"
        "cld\n"
        "mov native_rax(%rip), %rcx\n"
        "mov %rcx, (%rax)\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n");
extern struct native *native_state;
extern uint64_t native_rax;
struct native *native_state = &native;
uint64_t native_rax;

static sigjmp_buf fault_jump;
static uint8_t *native_code;

static void on_fault(int sig)
{
    siglongjmp(fault_jump, sig);
}

static void native_setup(void)
{
    static uint8_t stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction sa = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
    void *p = mmap((void *)(uintptr_t)DATA, DATA_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    ck_assert_ptr_eq(p, (void *)(uintptr_t)DATA);
    native_code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(native_code != MAP_FAILED);
    sigaltstack(&ss, NULL);
    sigaction(SIGFPE, &sa, NULL);
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
}

/* Executes the instruction with the state in `native`; the signal that it has raised, or 0. */
static int native_run(const uint8_t *insn, unsigned len)
{
    void (*back)(void) = native_back;
    int sig;

    memcpy(native_code, insn, len);
    memcpy(native_code + len, "\xff\x25\0\0\0\0", 6); /* jmp *0(%rip) */
    memcpy(native_code + len + 6, &back, 8);
    native.code = native_code;
    /* The way in uses one slot below the stack pointer. */
    sig = sigsetjmp(fault_jump, 1);
    if (!sig)
        native_enter();
    else
        __asm__ volatile("cld");
    return sig;
}

/* ---- random instructions ---- */

static uint64_t rng = 88172645463325252u;

static uint64_t rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static unsigned below(unsigned n)
{
    return (unsigned)((rnd() >> 20) % n);
}

static uint64_t value(void)
{
    static const uint64_t edges[] = {0,          1,          2,       0x7f,       0x80,
                                     0xff,       0x7fff,     0x8000,  0xffff,     0x7fffffff,
                                     0x80000000, 0xffffffff, 0x10000, 0x100000000};

    switch (below(6)) {
    case 0:
        return edges[below(14)];
    case 1:
        return -edges[below(14)];
    case 2:
        return (uint64_t)1 << below(64);
    case 3:
        return below(200);
    default:
        return rnd() >> below(64);
    }
}

struct insn {
    uint8_t b[24];
    unsigned n;
    unsigned size; /* operand size */
    bool locked;
};

static void put(struct insn *i, unsigned byte)
{
    i->b[i->n++] = (uint8_t)byte;
}

static void put_imm(struct insn *i, uint64_t v, unsigned n)
{
    for (; n; n--, v >>= 8)
        put(i, (unsigned)v & 0xff);
}

/* A memory operand around BASE, or an index register that the state makes small. */
static void put_modrm(struct insn *i, unsigned reg, bool mem, unsigned rm, unsigned flags)
{
    if (!mem) {
        put(i, 0xc0 | (reg & 7) << 3 | (rm & 7));
    } else {
        put(i, 0x80 | (reg & 7) << 3 | 3); /* [rbx + disp32] or r11 */
        put_imm(i, flags & ALIGN ? below(16) * 16 : below(0x700), 4);
    }
}

static void encode(const struct row *r, struct insn *i)
{
    bool mem = !(r->flags & (PLAIN | REG)) && ((r->flags & MEM) || below(2));
    bool w = below(3) == 0, p66 = !w && below(3) == 0;
    unsigned reg = r->digit >= 0 ? (unsigned)r->digit : below(16), rm = below(16);
    unsigned vvvv = below(16);

    memset(i, 0, sizeof(*i));
    /* Bit offsets must not be in registers that hold addresses. */
    while (mem && (r->flags & BITS) && ((reg & 7) == 3 || reg == VMM_RSP))
        reg = below(16);
    if (mem)
        rm = below(2) ? 3 : 11;
    if (r->flags & BYTE)
        w = p66 = false;
    if (r->flags & (NO16 | VEX))
        p66 = false;
    if (r->flags & D64)
        w = false;
    i->size = r->flags & BYTE ? 1 : w ? 8 : p66 ? 2 : r->flags & D64 ? 8 : 4;
    i->locked = mem && (r->flags & LOCK) && below(2);
    if (r->flags & VEX) {
        put(i, 0xc4);
        put(i, (reg & 8 && r->digit < 0 ? 0 : 0x80) | 0x40 | (rm & 8 ? 0 : 0x20) | r->map);
        if (!strcmp(r->name, "rorx"))
            vvvv = 0;
        put(i, w << 7 | (~vvvv & 15) << 3 |
                   (r->prefix == 0x66   ? 1
                    : r->prefix == 0xf3 ? 2
                    : r->prefix == 0xf2 ? 3
                                        : 0));
        put(i, r->opcode);
        put_modrm(i, reg, mem, rm, r->flags);
        put_imm(i, value(), r->imm);
        return;
    }
    if (i->locked)
        put(i, 0xf0);
    if (p66)
        put(i, 0x66);
    if (r->prefix)
        put(i, r->prefix);
    if (w || rm > 7 || reg > 7 || below(2))
        put(i,
            0x40 | w << 3 |
                (r->flags & PLAIN ? (r->flags & OPREG ? rm >> 3 : 0) : (reg >> 3) << 2 | rm >> 3));
    if (r->map)
        put(i, 0x0f);
    if (r->map == 2)
        put(i, 0x38);
    put(i, r->flags & OPREG ? r->opcode | (rm & 7) : r->opcode);
    if (!(r->flags & PLAIN))
        put_modrm(i, reg, mem, rm, r->flags);
    if (r->imm == 3) { /* ENTER */
        put_imm(i, below(64) * 8, 2);
        put_imm(i, below(12), 1);
    } else {
        put_imm(i, value(),
                r->imm == 4   ? (p66 ? 2 : 4)
                : r->imm == 8 ? (w     ? 8
                                 : p66 ? 2
                                       : 4)
                              : r->imm);
    }
}

/* ---- comparison ---- */

static void mismatch(const struct row *r, const struct insn *i, const struct native *start,
                     const char *what, uint64_t want, uint64_t got)
{
    char text[1024];
    int n = snprintf(text, sizeof(text), "%s:", r->name);

    for (unsigned k = 0; k < i->n; k++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, " %02x", i->b[k]);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "\nflags %llx",
                  (unsigned long long)start->flags);
    for (unsigned k = 0; k < 16; k++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, " r%u=%llx", k,
                      (unsigned long long)start->gpr[k]);
    ck_abort_msg("%s\n%s: the host has %llx, we have %llx", text, what, (unsigned long long)want,
                 (unsigned long long)got);
}

static void initial_state(const struct row *r)
{
    for (unsigned k = 0; k < 16; k++)
        native.gpr[k] = value();
    native.gpr[VMM_RSP] = STACK + below(16);
    native.gpr[VMM_RBP] = STACK - below(256) * 8;
    native.flags = (rnd() & ALL) | 0x202;
    if (r->flags & BITS) {
        for (unsigned k = 0; k < 16; k++)
            native.gpr[k] = (uint64_t)below(8000) - 4000;
        native.gpr[VMM_RSP] = STACK;
    }
    native.gpr[VMM_RBX] = native.gpr[11] = BASE;
    if (r->flags & STRING) {
        native.flags |= below(2) ? X86_DF : 0;
        native.gpr[VMM_RSI] = BASE + below(0x300);
        native.gpr[VMM_RDI] = BASE + below(0x300);
        if (below(2))
            native.gpr[VMM_RDI] = native.gpr[VMM_RSI] + below(64) - 32;
        native.gpr[VMM_RCX] = below(64);
    }
}

static bool one(struct fake *f, const struct row *r)
{
    struct native start;
    struct insn i;
    enum x86_stop stop;
    uint64_t flags;
    int sig, vector;

    encode(r, &i);
    initial_state(r);
    start = native;

    memcpy(f->cpu->gpr, start.gpr, sizeof(start.gpr));
    x86_set_rflags(f->cpu, start.flags & ~(uint64_t)X86_IF);
    f->cpu->rip = FAKE_TEXT;
    memcpy(f->mem + FAKE_TEXT, i.b, i.n);
    x86_cache_invalidate(f->cpu, FAKE_TEXT, i.n);
    memcpy((void *)(uintptr_t)DATA, f->mem + DATA, DATA_SIZE);
    /* What the way in will have left on the stack. */
    memcpy(f->mem + start.gpr[VMM_RSP] - 8, &(void *){native_code}, 8);

    stop = fake_step(f);
    vector = f->cpu->rip < FAKE_TEXT ? (int)(f->cpu->rip - FAKE_HANDLERS) / 16 : -1;
    sig = native_run(i.b, i.n);

    if ((sig != 0) != (vector >= 0) || (sig == SIGFPE && vector != X86_DE))
        mismatch(r, &i, &start, "fault", (uint64_t)sig, (uint64_t)vector);
    if (sig) {
        /* The frame of the exception has been pushed. */
        memcpy(f->mem + DATA, (void *)(uintptr_t)DATA, DATA_SIZE);
        f->cpu->gpr[VMM_RSP] = start.gpr[VMM_RSP];
        if (memcmp(f->cpu->gpr, start.gpr, sizeof(start.gpr)))
            mismatch(r, &i, &start, "registers after a fault", 0, 1);
        return false;
    }
    if (stop != X86_STOP_STEP)
        mismatch(r, &i, &start, "stop", X86_STOP_STEP, stop);
    for (unsigned k = 0; k < 16; k++) {
        char name[8];

        snprintf(name, sizeof(name), "r%u", k);
        if (f->cpu->gpr[k] != native.gpr[k])
            mismatch(r, &i, &start, name, native.gpr[k], f->cpu->gpr[k]);
    }
    flags = (ALL | X86_DF) & ~(uint64_t)r->undefined;
    if ((x86_get_rflags(f->cpu) ^ native.flags) & flags)
        mismatch(r, &i, &start, "flags", native.flags & flags, x86_get_rflags(f->cpu) & flags);
    if (f->cpu->rip != FAKE_TEXT + i.n)
        mismatch(r, &i, &start, "rip", FAKE_TEXT + i.n, f->cpu->rip);
    for (uint64_t a = DATA; a < DATA + DATA_SIZE; a += 8) {
        if (*(uint64_t *)(uintptr_t)a != fake_get(f, a, 8))
            mismatch(r, &i, &start, "memory", *(uint64_t *)(uintptr_t)a, fake_get(f, a, 8));
    }
    return true;
}

START_TEST(same_as_the_host)
{
    const struct row *r = &rows[_i];
    struct fake *f = fake_new();
    unsigned done = 0;

    rng += (unsigned)_i * 0x9e3779b97f4a7c15u;
    native_setup();
    fake_long64(f);
    for (unsigned k = 0; k < DATA_SIZE; k++)
        f->mem[DATA + k] = (uint8_t)rnd();
    for (unsigned k = 0; k < 1500; k++)
        done += one(f, r);
    /* Most instructions never fault; divisions do quite often. */
    ck_assert_uint_gt(done, 300);
    fake_free(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ops_native");
    TCase *tc = tcase_create("native");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_loop_test(tc, same_as_the_host, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_set_timeout(tc, 0);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
