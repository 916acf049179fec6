/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vmx_run.c: what the engine decides between exits and entries: when INVVPID is due, which
 * events an entry takes, which moves it executes itself and which instructions the hardware steps
 * over, compared with Zydis, and what it makes of the CPU's logs of written pages. */
#include <Zydis/Zydis.h>
#include <check.h>
#include <stdio.h>

#include "vmx/event.h"
#include "vmx/move.h"
#include "vmx/pml.h"
#include "vmx/step.h"
#include "vmx/tlb.h"
#include "vmx_fake.h"
#include <vmm/regs.h>

static uint64_t seed = 1;

static uint32_t rnd(void)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33);
}

/* ---- INVVPID ---- */

static const struct fake_model *with_vpid(void)
{
    for (unsigned i = 0; i < FAKE_NMODELS; i++)
        if (fake_models[i].ept_vpid >> 32 & 1)
            return &fake_models[i];
    return NULL;
}

/*
 * CPUs that keep what they can: a translation stays where the guest has run until an INVVPID there.
 * `now` counts the invalidations that the guest has asked for, wherever it was; a CPU may only be
 * entered with translations of now.
 */
START_TEST(invvpid_before_entries)
{
    struct vmx_caps caps = {.ept_vpid = 0};
    uint64_t oldest[FAKE_CPUS], done[FAKE_CPUS] = {0}, now = 1;
    struct vmx_tlb t;

    fake.model = with_vpid();
    caps.ept_vpid = fake.model->ept_vpid;
    memset(fake.invvpids, 0, sizeof(fake.invvpids));
    ck_assert(vmx_tlb_usable(&caps));
    vmx_tlb_init(&t, 7);
    for (unsigned c = 0; c < FAKE_CPUS; c++)
        oldest[c] = 0; /* of whoever had the VPID before */
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t cpu = rnd() % 8 ? fake.cpu : rnd() % FAKE_CPUS;

        fake.cpu = cpu;
        if (rnd() % 4 == 0) { /* in software */
            now++;
            vmx_tlb_due(&t);
            ck_assert(!vmx_tlb_settled(&t, cpu));
        }
        ck_assert(vmx_tlb_settle(&t, &caps, cpu));
        ck_assert(vmx_tlb_settled(&t, cpu));
        if (fake.invvpids[cpu] != done[cpu]) {
            done[cpu] = fake.invvpids[cpu];
            oldest[cpu] = UINT64_MAX;
        }
        ck_assert_msg(oldest[cpu] >= now, "entry %u on CPU %u has stale translations", i, cpu);
        oldest[cpu] = now;
        if (rnd() % 4 == 0) { /* by the guest, in hardware: on this CPU only */
            now++;
            oldest[cpu] = now;
        }
    }
    /* And not more often than that: entries on one CPU with nothing due need none. */
    uint64_t before = t.executed;
    for (unsigned i = 0; i < 10; i++)
        ck_assert(vmx_tlb_settle(&t, &caps, fake.cpu));
    ck_assert_uint_eq(t.executed, before);
}
END_TEST

START_TEST(invvpid_types)
{
    struct vmx_caps caps = {.ept_vpid = 0};
    struct vmx_tlb t;

    fake.model = with_vpid();
    ck_assert(!vmx_tlb_usable(&caps));
    caps.ept_vpid = VMX_VPID_INVVPID | VMX_VPID_ADDRESS;
    ck_assert(!vmx_tlb_usable(&caps));
    caps.ept_vpid |= VMX_VPID_ALL;
    ck_assert(vmx_tlb_usable(&caps));
    vmx_tlb_init(&t, 1);
    ck_assert(vmx_tlb_settle(&t, &caps, 0) && t.executed == 1);
    /* Without a VPID entries and exits flush. */
    vmx_tlb_init(&t, 0);
    vmx_tlb_due(&t);
    ck_assert(vmx_tlb_settled(&t, 0) && vmx_tlb_settle(&t, &caps, 0) && !t.executed);
}
END_TEST

/* ---- events ---- */

static bool can(uint32_t type, uint32_t vector, int error, uint32_t len, bool on, uint32_t blocking,
                bool protected_mode)
{
    struct vmx_waiting w = {.interrupts_on = on, .interruptibility = blocking};

    w.event.info = VMX_INTR_VALID | type << VMX_INTR_TYPE_SHIFT | vector;
    w.event.len = len;
    if (error >= 0) {
        w.event.info |= VMX_INTR_HAS_ERROR;
        w.event.error = (uint32_t)error;
    }
    return vmx_can_inject(&w, protected_mode);
}

START_TEST(injectable)
{
    ck_assert(can(VMX_TYPE_EXTERNAL, 0x20, -1, 0, true, 0, true));
    ck_assert(!can(VMX_TYPE_EXTERNAL, 0x20, -1, 0, false, 0, true));
    ck_assert(!can(VMX_TYPE_EXTERNAL, 0x20, -1, 0, true, VMX_BLOCK_STI, true));
    ck_assert(!can(VMX_TYPE_EXTERNAL, 0x20, 0, 0, true, 0, true));
    ck_assert(can(VMX_TYPE_NMI, 2, -1, 0, false, 0, true));
    ck_assert(!can(VMX_TYPE_NMI, 3, -1, 0, false, 0, true));
    ck_assert(!can(VMX_TYPE_NMI, 2, -1, 0, false, VMX_BLOCK_NMI, true));
    ck_assert(!can(VMX_TYPE_NMI, 2, -1, 0, false, VMX_BLOCK_MOV_SS, true));
    ck_assert(can(VMX_TYPE_EXCEPTION, 13, 0x7fff, 0, false, VMX_BLOCK_STI, true));
    ck_assert(!can(VMX_TYPE_EXCEPTION, 13, 0x8000, 0, false, 0, true));
    ck_assert(!can(VMX_TYPE_EXCEPTION, 13, -1, 0, false, 0, true));
    ck_assert(!can(VMX_TYPE_EXCEPTION, 13, 0, 0, false, 0, false));
    ck_assert(can(VMX_TYPE_EXCEPTION, 13, -1, 0, false, 0, false));
    ck_assert(!can(VMX_TYPE_EXCEPTION, 6, 0, 0, false, 0, true));
    ck_assert(!can(VMX_TYPE_EXCEPTION, 2, -1, 0, false, 0, true));
    ck_assert(!can(VMX_TYPE_EXCEPTION, 32, -1, 0, false, 0, true));
    ck_assert(can(VMX_TYPE_SOFT_INT, 0x80, -1, 2, false, 0, true));
    ck_assert(!can(VMX_TYPE_SOFT_INT, 0x80, -1, 0, false, 0, true));
    ck_assert(!can(VMX_TYPE_SOFT_EXC, 3, -1, 16, false, 0, true));
    ck_assert(!can(1, 0x20, -1, 0, true, 0, true));
    ck_assert(!can(7, 0x20, -1, 0, true, 0, true));
}
END_TEST

START_TEST(resume_flag)
{
    const uint32_t exception = VMX_INTR_VALID | VMX_TYPE_EXCEPTION << VMX_INTR_TYPE_SHIFT;

    ck_assert(vmx_sets_rf(exception | 14, 0) && vmx_sets_rf(exception | 6, 0));
    ck_assert(!vmx_sets_rf(exception | 1, 0x4000) && vmx_sets_rf(exception | 1, 0x2000));
    ck_assert(!vmx_sets_rf(exception | 8, 0) && !vmx_sets_rf(exception | 3, 0));
    ck_assert(!vmx_sets_rf(VMX_INTR_VALID | 0x20, 0));
}
END_TEST

/* ---- moves ---- */

static const struct {
    ZydisMachineMode mode;
    ZydisStackWidth width;
} modes[] = {
    [VMX_CODE16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
    [VMX_CODE32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
    [VMX_CODE64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
};

/* What Zydis says of the register operand. */
static void same_register(const struct vmx_move *m, ZydisRegister reg)
{
    int id = ZydisRegisterGetId(reg);
    bool high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;

    if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR8 && reg >= ZYDIS_REGISTER_SPL)
        id -= 4; /* it counts AH to BH */
    ck_assert_int_eq(m->reg, high ? (int)(reg - ZYDIS_REGISTER_AH) : id);
    ck_assert_int_eq(m->high, high);
}

static void compare(const uint8_t *code, unsigned n, enum vmx_code mode, unsigned *taken)
{
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction insn;
    struct vmx_move m;
    ZydisDecoder z;
    unsigned memory;

    if (!vmx_decode_move(code, n, mode, &m))
        return;
    ZydisDecoderInit(&z, modes[mode].mode, modes[mode].width);
    ck_assert_msg(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, code, n, &insn, op)),
                  "taken, but it is none: %02x %02x %02x %02x", code[0], code[1], code[2], code[3]);
    ++*taken;
    ck_assert(insn.mnemonic == ZYDIS_MNEMONIC_MOV || insn.mnemonic == ZYDIS_MNEMONIC_MOVZX ||
              insn.mnemonic == ZYDIS_MNEMONIC_MOVSX || insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD);
    ck_assert_uint_eq(m.len, insn.length);
    memory = op[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? 0 : 1;
    ck_assert(op[memory].type == ZYDIS_OPERAND_TYPE_MEMORY);
    ck_assert_uint_eq(m.write, memory == 0);
    ck_assert_uint_eq(m.size * 8u, op[memory].size);
    if (m.immediate) {
        uint64_t mask = m.size == 8 ? UINT64_MAX : (1ull << 8 * m.size) - 1;

        ck_assert(op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE);
        ck_assert_uint_eq(m.value & mask, op[1].imm.value.u & mask);
        return;
    }
    ck_assert(op[1 - memory].type == ZYDIS_OPERAND_TYPE_REGISTER);
    same_register(&m, op[1 - memory].reg.value);
    if (!m.write) {
        ck_assert_uint_eq(m.to * 8u, op[0].size);
        ck_assert_uint_eq(m.sign, insn.mnemonic == ZYDIS_MNEMONIC_MOVSX ||
                                      insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD);
    }
}

START_TEST(moves)
{
    static const uint8_t opcodes[] = {0x88, 0x89, 0x8a, 0x8b, 0xa0, 0xa1, 0xa2, 0xa3,
                                      0xc6, 0xc7, 0x0f, 0x0f, 0x0f, 0x63, 0xf0, 0xf3};
    static const uint8_t prefixes[] = {0x66, 0x67, 0x2e, 0x64, 0x65, 0x41, 0x48, 0x44};
    static const uint8_t second[] = {0xb6, 0xb7, 0xbe, 0xbf};
    unsigned taken = 0;

    for (unsigned i = 0; i < 200000; i++) {
        uint8_t code[16];
        unsigned at = 0;

        for (unsigned k = 0; k < sizeof(code); k++)
            code[k] = (uint8_t)rnd();
        while (rnd() % 2 && at < 5)
            code[at++] = prefixes[rnd() % sizeof(prefixes)];
        if (rnd() % 8) {
            code[at] = opcodes[rnd() % sizeof(opcodes)];
            if (code[at] == 0x0f)
                code[at + 1] = second[rnd() % sizeof(second)];
            else if ((code[at] & 0xfe) == 0xc6)
                code[at + 1] &= 0xc7;
        }
        compare(code, 1 + rnd() % 16, (enum vmx_code)(rnd() % 3), &taken);
    }
    ck_assert_uint_gt(taken, 20000);
}
END_TEST

/* Those that drivers are made of are taken. */
START_TEST(common_moves)
{
    static const struct {
        uint8_t code[12], n;
    } taken[] = {
        {{0x89, 0x06}, 2},
        {{0x8b, 0x07}, 2},
        {{0x44, 0x89, 0x04, 0x25, 0, 0, 0x0d, 0}, 8},
        {{0x48, 0x8b, 0x80, 0, 1, 0, 0}, 7},
        {{0x66, 0x89, 0x10}, 3},
        {{0x0f, 0xb6, 0x00}, 3},
        {{0xc7, 0x40, 0x10, 1, 2, 3, 4}, 7},
        {{0x48, 0x63, 0x00}, 3},
    };
    struct vmx_move m;

    for (unsigned i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        ck_assert_msg(vmx_decode_move(taken[i].code, taken[i].n, VMX_CODE64, &m), "%u", i);
        ck_assert_uint_eq(m.len, taken[i].n);
        /* Not when its last byte is not there. */
        ck_assert(!vmx_decode_move(taken[i].code, taken[i].n - 1u, VMX_CODE64, &m));
    }
    /* LOCK, repeats, registers, other instructions. */
    ck_assert(!vmx_decode_move((const uint8_t *)"\xf0\x89\x06", 3, VMX_CODE64, &m));
    ck_assert(!vmx_decode_move((const uint8_t *)"\x89\xc0", 2, VMX_CODE64, &m));
    ck_assert(!vmx_decode_move((const uint8_t *)"\x01\x06", 2, VMX_CODE64, &m));
}
END_TEST

/* ---- single steps ---- */

#define SEEN(set) ((set)->tested | (set)->modified | (set)->set_0 | (set)->set_1 | (set)->undefined)

static bool writes(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *op,
                   ZydisRegisterClass class, ZydisRegister reg)
{
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            (op[i].reg.value == reg || ZydisRegisterGetClass(op[i].reg.value) == class))
            return true;
    return false;
}

/* What Zydis says of instructions that TF, or the monitor trap flag, is to step over. */
static void look_at_step(const uint8_t *code, unsigned n, enum vmx_code mode, unsigned *taken)
{
    const ZydisAccessedFlagsMask high = ZYDIS_CPUFLAG_TF | ZYDIS_CPUFLAG_IF | ZYDIS_CPUFLAG_IOPL |
                                        ZYDIS_CPUFLAG_NT | ZYDIS_CPUFLAG_RF | ZYDIS_CPUFLAG_VM;
    const ZydisInstructionAttributes repeats =
        ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    enum vmx_step kind = vmx_step_kind(code, n, mode);
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction insn;
    ZydisDecoder z;

    ZydisDecoderInit(&z, modes[mode].mode, modes[mode].width);
    if (kind == VMX_STEP_SOFT || !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, code, n, &insn, op)))
        return;
    ++taken[kind];
    ck_assert_msg(!(insn.attributes & repeats) && insn.mnemonic != ZYDIS_MNEMONIC_WRMSR &&
                      insn.mnemonic != ZYDIS_MNEMONIC_XBEGIN &&
                      (insn.mnemonic != ZYDIS_MNEMONIC_MOV ||
                       !writes(&insn, op, ZYDIS_REGCLASS_CONTROL, ZYDIS_REGISTER_CR0)),
                  "%s", ZydisMnemonicGetString(insn.mnemonic));
    if (kind != VMX_STEP_TF)
        return;
    ck_assert_msg(!insn.cpu_flags || !(SEEN(insn.cpu_flags) & high), "%s",
                  ZydisMnemonicGetString(insn.mnemonic));
    ck_assert_msg(
        !writes(&insn, op, ZYDIS_REGCLASS_DEBUG, ZYDIS_REGISTER_SS) &&
            insn.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR &&
            insn.meta.category != ZYDIS_CATEGORY_INTERRUPT &&
            insn.meta.category != ZYDIS_CATEGORY_SYSCALL &&
            insn.meta.category != ZYDIS_CATEGORY_SYSRET &&
            (insn.meta.category != ZYDIS_CATEGORY_SYSTEM || insn.mnemonic == ZYDIS_MNEMONIC_ARPL) &&
            insn.meta.category != ZYDIS_CATEGORY_IO &&
            insn.meta.category != ZYDIS_CATEGORY_IOSTRINGOP,
        "%s", ZydisMnemonicGetString(insn.mnemonic));
}

START_TEST(steps)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x64, 0x41, 0x48};
    unsigned taken[3] = {0};

    for (unsigned i = 0; i < 400000; i++) {
        uint8_t code[16];
        unsigned at = 0;

        for (unsigned k = 0; k < sizeof(code); k++)
            code[k] = (uint8_t)rnd();
        while (rnd() % 2 && at < 4)
            code[at++] = prefixes[rnd() % sizeof(prefixes)];
        if (rnd() % 2)
            code[at] = 0x0f;
        look_at_step(code, sizeof(code), (enum vmx_code)(i % 3), taken);
    }
    ck_assert_uint_gt(taken[VMX_STEP_TF], 50000);
    ck_assert_uint_gt(taken[VMX_STEP_MTF], 5000);
}
END_TEST

START_TEST(kinds_of_steps)
{
    static const struct {
        uint8_t code[4], n;
        enum vmx_step kind;
    } known[] = {{{0x90}, 1, VMX_STEP_TF},         {{0xff, 0xc0}, 2, VMX_STEP_TF},
                 {{0x48, 0x8b}, 2, VMX_STEP_TF},   {{0xe8}, 1, VMX_STEP_TF},
                 {{0xa4}, 1, VMX_STEP_TF},         {{0xf3, 0xa4}, 2, VMX_STEP_SOFT},
                 {{0x9c}, 1, VMX_STEP_MTF},        {{0x9d}, 1, VMX_STEP_MTF},
                 {{0xcd, 0x80}, 2, VMX_STEP_MTF},  {{0x48, 0xcf}, 2, VMX_STEP_MTF},
                 {{0x8e, 0xd0}, 2, VMX_STEP_MTF},  {{0x0f, 0x05}, 2, VMX_STEP_MTF},
                 {{0x0f, 0x30}, 2, VMX_STEP_SOFT}, {{0x44, 0x0f, 0x22}, 3, VMX_STEP_SOFT},
                 {{0x0f}, 1, VMX_STEP_SOFT},       {{0x66, 0x66}, 2, VMX_STEP_SOFT},
                 {{0xff, 0x28}, 2, VMX_STEP_MTF},  {{0}, 0, VMX_STEP_SOFT}};

    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        ck_assert_msg(vmx_step_kind(known[i].code, known[i].n, VMX_CODE64) == known[i].kind, "%u",
                      i);
    /* REX is INC and DEC elsewhere. */
    ck_assert(vmx_step_kind((const uint8_t *)"\x48\x9c", 2, VMX_CODE32) == VMX_STEP_TF);
    ck_assert(vmx_step_kind((const uint8_t *)"\x48\x9c", 2, VMX_CODE64) == VMX_STEP_MTF);
}
END_TEST

/* ---- page-modification logging ---- */

/* As a CPU logs; false: it exits instead. */
static bool fake_log(uint64_t *log, uint16_t *index, uint64_t gpa)
{
    if (*index >= VMX_PML_ENTRIES)
        return false;
    log[(*index)--] = gpa;
    return true;
}

static uint8_t logged_pages[3 * VMX_PML_ENTRIES];
static uint64_t logged_calls;

static void on_logged(void *ctx, uint64_t gpa)
{
    ck_assert_ptr_eq(ctx, logged_pages);
    logged_pages[gpa >> 12]++;
    logged_calls++;
}

START_TEST(logs)
{
    const unsigned n = sizeof(logged_pages);
    struct vmx_pml p = {0};
    uint64_t log[VMX_PML_ENTRIES];
    uint16_t index = VMX_PML_EMPTY;
    unsigned sum = 0;

    ck_assert_uint_eq(vmx_pml_count(index), 0);
    memset(logged_pages, 0, n);
    logged_calls = 0;
    memset(log, 0xff, sizeof(log));
    for (unsigned i = 0; i < n;) {
        bool taken = fake_log(log, &index, (uint64_t)i << 12);

        i += taken;
        if (taken && i < n && rnd() % 300)
            continue;
        sum += vmx_pml_count(index);
        vmx_pml_add(&p, log, vmx_pml_count(index));
        memset(log, 0xff, sizeof(log)); /* what is old is not read again */
        index = VMX_PML_EMPTY;
    }
    ck_assert_uint_eq(sum, n);
    ck_assert(vmx_pml_take(&p, on_logged, logged_pages));
    for (unsigned i = 0; i < n; i++)
        ck_assert_uint_eq(logged_pages[i], 1);
    ck_assert(vmx_pml_take(&p, on_logged, logged_pages));
    ck_assert_uint_eq(logged_calls, n); /* once */
    /* A full log, to its entry 0, behind which the index has wrapped. */
    for (unsigned i = 0; i < VMX_PML_ENTRIES; i++)
        ck_assert(fake_log(log, &index, (uint64_t)i << 12));
    ck_assert(!fake_log(log, &index, 0));
    ck_assert_uint_eq(index, 0xffff);
    ck_assert_uint_eq(vmx_pml_count(index), VMX_PML_ENTRIES);
    ck_assert_uint_eq(vmx_pml_count(0), VMX_PML_ENTRIES - 1);
    vmx_pml_free(&p);
}
END_TEST

/* A list that has become too long is not used in part, and is complete again behind that. */
START_TEST(logs_that_are_lost)
{
    struct vmx_pml p = {0};
    uint64_t log[VMX_PML_ENTRIES] = {0};

    memset(logged_pages, 0, sizeof(logged_pages));
    logged_calls = 0;
    for (size_t n = 0; n < VMX_PML_MAX; n += VMX_PML_ENTRIES) {
        ck_assert(!p.lost);
        vmx_pml_add(&p, log, VMX_PML_ENTRIES);
    }
    ck_assert(!p.lost);
    vmx_pml_add(&p, log, 0);
    ck_assert(!p.lost);
    vmx_pml_add(&p, log, 1);
    ck_assert(!vmx_pml_take(&p, on_logged, logged_pages));
    ck_assert_uint_eq(logged_calls, 0);
    log[VMX_PML_EMPTY] = 0x2000;
    vmx_pml_add(&p, log, 1);
    ck_assert(vmx_pml_take(&p, on_logged, logged_pages));
    ck_assert(logged_calls == 1 && logged_pages[2] == 1);
    vmx_pml_free(&p);
    ck_assert(!p.gpa && !p.n && !p.room);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx_run");
    TCase *tc = tcase_create("vmx_run");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, invvpid_before_entries);
    tcase_add_test(tc, invvpid_types);
    tcase_add_test(tc, injectable);
    tcase_add_test(tc, resume_flag);
    tcase_add_test(tc, moves);
    tcase_add_test(tc, common_moves);
    tcase_add_test(tc, steps);
    tcase_add_test(tc, kinds_of_steps);
    tcase_add_test(tc, logs);
    tcase_add_test(tc, logs_that_are_lost);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
