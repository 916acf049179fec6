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
    static const uint16_t regs[] = {0x000, 0x010, 0x020, 0x0f0, 0x100, 0x108, 0x110, 0x120,
                                    0x128, 0x130, 0x140, 0x148, 0x150, 0x018, 0x160, 0x3f8};
    uint64_t r = take(in, 1), gpa = VMM_PC_HPET + regs[r % 16], value;
    uint32_t n = 1u << (r >> 4) % 4;

    if (r & 0x80)
        gpa += take(in, 1) % 8;
    if (!write) {
        mmio_in(vm, gpa, n);
        return;
    }
    value = take(in, n);
    if (r & 0x40) /* for comparators: soon, or a short time ago */
        value = mmio_in(vm, VMM_PC_HPET + 0xf0, 8) + (value & 0xffff) - 0x400;
    mmio_out(vm, gpa, n, value);
}

/* Bytes for the keyboard or the mouse: any, or what switches to another mode. */
static void ps2_write(struct vm *vm, struct input *in, int to_mouse)
{
    static const uint8_t scripts[][7] = {
        {0xf0, 1},
        {0xf0, 2},
        {0xf0, 3},
        {0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf4},
        {0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf4},
    };
    uint64_t r = take(in, 1);
    uint8_t byte[7] = {(uint8_t)(r & 0x80 ? 0xe6 + r % 26 : r)};
    size_t n = 1;

    if (r % 8 < sizeof scripts / sizeof scripts[0] && (r & 0x40)) {
        memcpy(byte, scripts[r % 8], sizeof byte);
        n = r % 8 < 3 ? 2 : 7;
    }
    for (size_t i = 0; i < n; i++) {
        if (to_mouse)
            outb(vm, 0x64, 0xd4);
        outb(vm, 0x60, byte[i]);
    }
    for (r = r >> 4 & 3; r > 0; r--)
        inb(vm, 0x60);
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

static uint32_t pci_read(void *opaque, uint32_t offset, uint32_t size)
{
    (void)opaque;
    if (offset % size || offset + size > 256)
        abort();
    return offset;
}

static void pci_write(void *opaque, uint32_t offset, uint32_t size, uint32_t value)
{
    (void)value;
    pci_read(opaque, offset, size);
}

static void add_function(struct vmm_pci *pci, uint64_t devfn)
{
    static const struct vmm_pci_ops ops = {
        .size = sizeof ops, .config_read = pci_read, .config_write = pci_write};

    vmm_pci_add(pci, (uint8_t)devfn, &ops, NULL);
}

/* Keys whose codes depend on others, and any. */
static uint32_t pick_key(struct input *in, uint64_t r)
{
    static const uint16_t keys[] = {0x1d, 0x2a, 0x38, 0xe037, 0xe11d, 0x1e, 0xe048};

    if (r % 16 < sizeof keys / sizeof keys[0])
        return keys[r % 16];
    return (uint32_t)take(in, 1) | (r & 1 ? 0xe000 : 0);
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
            vmm_i8042_key(pc->i8042, pick_key(in, what >> 4), what >> 3 & 1);
        break;
    case 5:
        if (pc->i8042)
            vmm_i8042_mouse(pc->i8042, (int)take(in, 2) - 0x8000, (int)take(in, 4),
                            (int)(int8_t)take(in, 1), (uint32_t)what >> 3);
        break;
    case 6:
        if (pc->acpi_pm)
            vmm_acpi_pm_button(pc->acpi_pm);
        if (pc->pci && (what & 8))
            add_function(pc->pci, what >> 4);
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
        else
            ps2_write(vm, in, write);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct vmm_pc pc = {.size = sizeof pc};
    static uint8_t ram[RAM] __attribute__((aligned(4096)));
    struct vmm_pc_config config = {
        .size = sizeof config,
        .memory = RAM,
        .ram = ram,
        .rtc_epoch = 1700000000,
        .serial_output = output,
    };
    struct vm *vm = fake_vm_new();
    uint64_t r = take(&in, 1);

    memset(ram, 0, sizeof ram);
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
