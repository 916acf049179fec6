/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_cpu.c: random code with random page tables, in every mode, on the software CPU and with the
 * translator. */
#include <stdlib.h>
#include <string.h>
#include <vmm/vmm.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM     0x40000u
#define ROM     0x80000u
#define TABLES  0x1000u /* 8 pages */
#define CODE    0xa000u
#define NTABLES 8u
#define PAGE    4096u

struct input {
    const uint8_t *p;
    size_t left;
    uint64_t seed; /* goes on where the bytes end */
};

static uint8_t next8(struct input *in)
{
    if (in->left > 0) {
        in->left--;
        return *in->p++;
    }
    in->seed = in->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(in->seed >> 56);
}

static uint64_t next(struct input *in, unsigned bytes)
{
    uint64_t v = 0;

    while (bytes-- > 0)
        v = v << 8 | next8(in);
    return v;
}

/* An entry that often leads somewhere: another table, RAM, ROM, or an address without memory. */
static uint64_t random_entry(struct input *in)
{
    static const uint32_t bases[] = {TABLES, TABLES, 0, CODE, ROM, 0xfee00000, 0x7f000000, RAM};
    uint8_t b = next8(in), flags = next8(in);
    uint64_t e = bases[b & 7] + (b >> 3) % NTABLES * PAGE;

    e |= flags & 0x7f;
    if (flags & 0x80)
        e |= next(in, 8);
    else
        e |= 7;
    return e;
}

/* Sparse: entry 0 leads on in most tables, so that code is usually mapped. */
static void random_tables(struct input *in, uint8_t *ram)
{
    unsigned n = next8(in) % 64;

    for (unsigned i = 0; i < NTABLES; i++) {
        uint64_t e = (TABLES + (i + 1) % NTABLES * PAGE) | 7;

        memcpy(ram + TABLES + i * PAGE, &e, 8);
    }
    for (uint64_t i = 0; i < 64; i++) {
        uint64_t e = i * PAGE | 7;

        memcpy(ram + TABLES + 3 * PAGE + 8 * i, &e, 8);
    }
    while (n-- > 0) {
        uint64_t e = random_entry(in);
        uint32_t table = next8(in) % NTABLES;
        uint32_t index = next8(in) & 1 ? next8(in) & 15 : (uint32_t)next(in, 2) % 512;

        memcpy(ram + TABLES + table * PAGE + 8 * index, &e, 8);
    }
}

static void random_state(struct input *in, struct vcpu *cpu)
{
    struct vcpu_setup setup = {
        .size = sizeof(setup), .mode = next8(in) % 4, .rip = CODE, .rsp = 0x9000, .cr3 = TABLES};
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_ALL};
    uint8_t what = next8(in);

    if (vcpu_set_mode(cpu, &setup) != 0 || vcpu_get_regs(cpu, &r) != 0)
        return;
    for (unsigned i = 0; i < 16; i++)
        if (i != VMM_RSP)
            r.gpr[i] = what & 1 ? next(in, 8) : next(in, 2);
    r.cr4 |= 0x40600; /* OSXSAVE OSXMMEXCPT OSFXSR */
    r.xcr0 = 7;
    r.idt = (struct vmm_dtable){.base = CODE + next8(in) * 16, .limit = 0xfff};
    r.gdt = (struct vmm_dtable){.base = CODE + next8(in) * 16, .limit = 0xff};
    if (vcpu_set_regs(cpu, &r) != 0) {
        r.xcr0 = 1;
        vcpu_set_regs(cpu, &r);
    }
    if (!(what & 2))
        return;
    /* Something that may be refused. */
    r.cr0 ^= next(in, 4) & 0xe005003f;
    r.cr4 ^= next(in, 3);
    r.efer ^= next(in, 2) & 0xd01;
    r.rflags ^= next(in, 3) & 0x3f7fd5;
    r.seg[next8(in) % VMM_NSEG].ar ^= (uint32_t)next(in, 3) & 0x1f0ff;
    r.seg[next8(in) % VMM_NSEG].base = next(in, 4);
    r.seg[next8(in) % VMM_NSEG].limit = (uint32_t)next(in, 4);
    r.dr[7] = 0x400 | (next(in, 4) & 0xffff00ff);
    r.dr[0] = CODE + next8(in);
    r.dr[1] = next(in, 2);
    vcpu_set_regs(cpu, &r);
}

static void answer(struct input *in, struct vcpu_exit *exit)
{
    if (exit->reason == VMM_EXIT_MMIO)
        exit->u.mmio.data = next(in, 8);
    else if (exit->reason == VMM_EXIT_PIO)
        exit->u.pio.data = next(in, 4);
}

static void run(struct input *in, struct vm *vm, struct vcpu *cpu, uint8_t *ram)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    for (unsigned i = 0; i < 24; i++) {
        uint8_t what = next8(in);

        vcpu_set_budget(cpu, 1 + next8(in) * 4u, 0);
        if ((what & 15) == 1) {
            struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_NMI};

            vcpu_inject(cpu, &e);
        } else if ((what & 15) == 2) {
            struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_EXCEPTION, .vector = 13};

            e.has_error = 1;
            vcpu_inject(cpu, &e);
        } else if ((what & 15) == 3) {
            vm_mem_changed(vm, CODE, PAGE);
        } else if ((what & 15) == 4) {
            ram[CODE + next8(in)] = next8(in);
        } else if ((what & 15) == 5) {
            vcpu_request_irq_window(cpu, 1);
        }
        if ((what & 0xf0) == 0x10 ? vcpu_step(cpu, &exit) : vcpu_run(cpu, &exit))
            abort();
        if (exit.reason == VMM_EXIT_NONE || exit.reason == VMM_EXIT_INTERRUPTED)
            abort();
        if (exit.reason == VMM_EXIT_SHUTDOWN || exit.reason == VMM_EXIT_ENTRY_FAIL)
            return;
        answer(in, &exit);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *backends[] = {"interp", NULL};
    struct input in = {data, size, 88172645463325252u ^ size};
    struct vm_config config = {.size = sizeof(config),
                               .flags = VMM_VM_TRANSLATE_ALL,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends};
    struct vm *vm;
    struct vcpu *cpu;
    uint8_t *ram, *rom;

    for (size_t i = 0; i < size; i++)
        in.seed = in.seed * 31 + data[i];
    /* Half of the inputs with the translator, which does not wait for blocks to be hot. */
    backends[0] = in.seed >> 32 & 1 ? "bt" : "interp";
    if (vm_create(&config, &vm) != 0 || vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, (void **)&ram) != 0 ||
        vm_mem_alloc(vm, ROM, 2 * PAGE, VMM_MEM_RX, (void **)&rom) != 0 ||
        vcpu_create(vm, 0, NULL, &cpu) != 0)
        abort();
    random_tables(&in, ram);
    random_state(&in, cpu);
    for (unsigned i = 0; i < 1024; i++) {
        ram[CODE + i] = next8(&in);
        rom[i] = (uint8_t)(ram[CODE + i] * 5);
    }
    run(&in, vm, cpu, ram);
    if (vm_destroy(vm) != 0)
        abort();
    return 0;
}
