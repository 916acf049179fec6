/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_devices.c: streams of port and MMIO accesses, of host input, passing time and resets on a PC
 * with all its devices.
 *
 * Beyond memory safety it checks that timers cannot keep the host busy and that a reset lowers
 * every interrupt line. */
#include "../unit/fake_vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM 0x100000u

/* Timers of one device are at least 20 us apart, and there are about ten. */
#define MAX_FIRED(ns) (100 + (ns) / 20000 * 10)

struct input {
    const uint8_t *p;
    size_t left;
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
        v |= (uint64_t)*in->p++ << (8 * i);
    return v;
}

static size_t accepts;   /* what the serial port's other end takes */
static uint8_t received; /* so that the bytes are read */

static size_t output(void *opaque, const uint8_t *bytes, size_t n)
{
    (void)opaque;
    for (size_t i = 0; i < n; i++)
        received ^= bytes[i];
    return accepts; /* also more than there is */
}

/* ---- Accesses ---- */

static const struct {
    uint16_t first, len;
} ranges[] = {
    {0x3f8, 8}, {0x40, 4},  {0x61, 1},  {0x70, 2}, {0x60, 1},
    {0x64, 1},  {0x92, 1},  {0x80, 16}, {0xb2, 2}, {0x600, 0x14},
    {0xcf8, 8}, {0x510, 2}, {0x514, 8}, {0xf4, 4}, {0x505, 1},
};

static uint16_t pick_port(struct input *in)
{
    uint64_t r = take(in, 1);
    size_t n = sizeof ranges / sizeof ranges[0];

    if (r / 16 == 15)
        return (uint16_t)take(in, 2);
    return (uint16_t)(ranges[r % n].first + r / n % ranges[r % n].len +
                      (ranges[r % n].len > 16 ? take(in, 1) % ranges[r % n].len : 0));
}

static void port_access(struct vm *vm, struct input *in, int write)
{
    uint32_t n = 1u << take(in, 1) % 3;
    uint16_t port = pick_port(in);

    if (write)
        outn(vm, port, n, (uint32_t)take(in, n));
    else
        inn(vm, port, n);
}

/* A configuration register by its address, so that both ports need not be guessed. */
static void pci_access(struct vm *vm, struct input *in, int write)
{
    uint32_t reg = (uint32_t)take(in, 1), n = 1u << reg % 3;
    uint16_t port = (uint16_t)(0xcfc + (reg & 3));

    outl(vm, 0xcf8, 0x80000000u | (uint32_t)take(in, 2) << 8 | reg);
    if (write)
        outn(vm, port, n, (uint32_t)take(in, n));
    else
        inn(vm, port, n);
}

static void hpet_access(struct vm *vm, struct input *in, int write)
{
    uint64_t r = take(in, 1), gpa = VMM_PC_HPET + (r & 0xfc) * 2;
    uint32_t n = 1u << take(in, 1) % 4;

    if (n < 4)
        gpa += r & 3;
    else
        gpa += r & 1 ? 4 : 0;
    if (write)
        mmio_out(vm, gpa, n, take(in, n));
    else
        mmio_in(vm, gpa, n);
}

/* A descriptor at a place of the input's choice, and its start. */
static void dma(struct vm *vm, struct input *in)
{
    uint8_t d[16];
    uint64_t gpa = take(in, 1) << 12 | (take(in, 1) & 0xff), where = take(in, 3);
    uint32_t control = (uint32_t)take(in, 1) | (uint32_t)take(in, 2) << 16;
    uint32_t len = (uint32_t)take(in, 2) << (take(in, 1) & 16);

    for (int i = 0; i < 4; i++) {
        d[i] = (uint8_t)(control >> (24 - 8 * i));
        d[4 + i] = (uint8_t)(len >> (24 - 8 * i));
        d[8 + i] = (uint8_t)(i == 3 ? take(in, 1) & 1 : 0);
        d[12 + i] = (uint8_t)(where >> (24 - 8 * i));
    }
    vm_mem_write(vm, gpa, d, sizeof d);
    outl(vm, 0x514, __builtin_bswap32((uint32_t)(gpa >> 32)));
    outl(vm, 0x518, __builtin_bswap32((uint32_t)gpa));
}

/* ---- Time and the host's side ---- */

static void advance(struct vm *vm, struct input *in)
{
    uint64_t r = take(in, 1), ns = take(in, 1) + 1;
    uint64_t before = vm->fired;

    ns <<= r & 15; /* up to 8 ms */
    if (r & 0x80)
        vm->clock += ns << (r >> 4 & 7) * 4; /* the guest did not run: up to 26 days */
    fake_advance(vm, ns);
    if (vm->fired - before > MAX_FIRED(ns))
        abort();
}

static void host_input(struct vmm_pc *pc, struct input *in)
{
    uint8_t bytes[64] = {0};
    uint64_t what = take(in, 1);

    switch (what & 7) {
    case 0:
        if (pc->serial)
            vmm_serial_input(pc->serial, bytes, what >> 3);
        break;
    case 1:
        if (pc->serial)
            vmm_serial_break(pc->serial);
        break;
    case 2:
        accepts = what >> 3;
        if (pc->serial)
            vmm_serial_writable(pc->serial);
        break;
    case 3:
    case 4:
        if (pc->i8042)
            vmm_i8042_key(pc->i8042, (uint32_t)take(in, 1) | (what & 0x10 ? 0xe000u : 0),
                          what >> 3 & 1);
        break;
    case 5:
        if (pc->i8042)
            vmm_i8042_mouse(pc->i8042, (int)take(in, 2) - 0x8000, (int)take(in, 4),
                            (int)(int8_t)take(in, 1), (uint32_t)what >> 3);
        break;
    case 6:
        if (pc->acpi_pm)
            vmm_acpi_pm_button(pc->acpi_pm);
        break;
    default:
        if (pc->fw_cfg)
            vmm_fw_cfg_add_file(pc->fw_cfg, what & 8 ? "etc/a" : "etc/b", bytes, what >> 3);
        if (pc->rtc)
            vmm_rtc_set(pc->rtc, (uint32_t)take(in, 1), (uint8_t)take(in, 1));
        break;
    }
}

static void reset(struct vm *vm)
{
    fake_vm_reset(vm);
    for (uint32_t i = 0; i < VMM_IRQ_LINES; i++)
        if (vm->level[i])
            abort();
}

static void step(struct vm *vm, struct vmm_pc *pc, struct input *in)
{
    uint64_t op = take(in, 1);
    int write = (op & 0x80) != 0;

    switch (op % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
        port_access(vm, in, write);
        break;
    case 7:
        pci_access(vm, in, write);
        break;
    case 8:
    case 9:
        hpet_access(vm, in, write);
        break;
    case 10:
        dma(vm, in);
        break;
    case 11:
    case 12:
        advance(vm, in);
        break;
    case 13:
    case 14:
        host_input(pc, in);
        break;
    default:
        if (op == 0xff)
            reset(vm);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct vmm_pc pc = {.size = sizeof pc};
    struct vmm_pc_config config = {
        .size = sizeof config,
        .memory = RAM,
        .rtc_epoch = 1700000000,
        .serial_output = output,
    };
    struct vm *vm = fake_vm_new();
    uint64_t r = take(&in, 1);

    accepts = 16;
    received = 0;
    if (r & 1) /* mostly with everything */
        config.flags = (uint32_t)take(&in, 1);
    if (vmm_pc_create(vm, &config, &pc))
        abort();
    while (in.left)
        step(vm, &pc, &in);
    fake_advance(vm, 1000000);
    reset(vm);
    fake_vm_free(vm);
    return 0;
}
