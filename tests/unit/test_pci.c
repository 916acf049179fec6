/* SPDX-License-Identifier: BSD-2-Clause */
/* test_pci.c: configuration mechanism 1, the host bridge, the empty bus, added functions. */
#include <check.h>

#include "fake_vm.h"
#include <vmm/vcpu.h>

static struct vm *vm;
static struct vmm_pci *pci;

static void setup(void)
{
    vm = fake_vm_new();
    ck_assert_int_eq(vmm_pci_create(vm, &pci), 0);
}

static void teardown(void)
{
    fake_vm_free(vm);
}

static void sel(unsigned bus, unsigned devfn, unsigned reg)
{
    outl(vm, 0xcf8, 0x80000000u | bus << 16 | devfn << 8 | (reg & 0xfc));
}

static uint32_t cfg(unsigned bus, unsigned devfn, unsigned reg, unsigned size)
{
    sel(bus, devfn, reg);
    return inn(vm, (uint16_t)(0xcfc + (reg & 3)), size);
}

/* Linux's check for mechanism 1 and its sanity check of bus 0. */
START_TEST(linux_detects_mechanism_1)
{
    outb(vm, 0xcfb, 1);
    uint32_t saved = inl(vm, 0xcf8);
    outl(vm, 0xcf8, 0x80000000);
    ck_assert_uint_eq(inl(vm, 0xcf8), 0x80000000);
    outl(vm, 0xcf8, saved);
    ck_assert_uint_eq(cfg(0, 0, 0x0a, 2), 0x0600);
    ck_assert_uint_eq(cfg(0, 0, 0x00, 2), 0x8086);
}
END_TEST

START_TEST(host_bridge_is_an_i440fx)
{
    ck_assert_uint_eq(cfg(0, 0, 0, 4), 0x12378086);
    ck_assert_uint_eq(cfg(0, 0, 8, 4), 0x06000002);
    ck_assert_uint_eq(cfg(0, 0, 0x0e, 1), 0);
    ck_assert_uint_eq(cfg(0, 0, 4, 2), 0x0006);
    ck_assert_uint_eq(cfg(0, 0, 2, 2), 0x1237);
    ck_assert_uint_eq(cfg(0, 0, 1, 1), 0x80);
    ck_assert_uint_eq(cfg(0, 0, 0x3d, 1), 0);
    ck_assert_uint_eq(cfg(0, 0, 0x2c, 4), 0x11001af4); /* firmware for QEMU asks for it */
    for (unsigned bar = 0x10; bar < 0x28; bar += 4) {
        sel(0, 0, bar);
        outl(vm, 0xcfc, 0xffffffff);
        ck_assert_uint_eq(inl(vm, 0xcfc), 0); /* no BARs */
    }
    sel(0, 0, 0);
    outl(vm, 0xcfc, 0);
    ck_assert_uint_eq(inl(vm, 0xcfc), 0x12378086);
}
END_TEST

START_TEST(firmware_can_program_the_memory_attributes)
{
    sel(0, 0, 0x58);
    outb(vm, 0xcfd, 0xff); /* 0x59 */
    ck_assert_uint_eq(inb(vm, 0xcfd), 0x33);
    sel(0, 0, 0x5c);
    outw(vm, 0xcfe, 0xffff); /* 0x5e, 0x5f */
    ck_assert_uint_eq(inw(vm, 0xcfe), 0x3333);
    ck_assert_uint_eq(inw(vm, 0xcfc), 0);
    ck_assert_uint_eq(cfg(0, 0, 0x72, 1), 0x02);
    fake_vm_reset(vm);
    ck_assert_uint_eq(cfg(0, 0, 0x59, 1), 0);
}
END_TEST

START_TEST(the_rest_of_the_bus_reads_all_ones)
{
    for (unsigned devfn = 1; devfn < 256; devfn++) {
        ck_assert_uint_eq(cfg(0, devfn, 0, 4), 0xffffffff);
        ck_assert_uint_eq(cfg(0, devfn, 0, 2), 0xffff);
        outl(vm, 0xcfc, 0);
    }
    ck_assert_uint_eq(cfg(1, 0, 0, 4), 0xffffffff);
    ck_assert_uint_eq(cfg(255, 255, 0xfc, 1), 0xff);
}
END_TEST

START_TEST(the_address_is_a_dword_register)
{
    outl(vm, 0xcf8, 0xffffffff);
    ck_assert_uint_eq(inl(vm, 0xcf8), 0x80fffffc);
    outw(vm, 0xcf8, 0);
    outb(vm, 0xcf8, 0);
    outb(vm, 0xcfa, 0);
    ck_assert_uint_eq(inl(vm, 0xcf8), 0x80fffffc);
    ck_assert_uint_eq(inw(vm, 0xcf8), 0xffff);
    ck_assert_uint_eq(inb(vm, 0xcfb), 0xff);
    outl(vm, 0xcf8, 0); /* disabled: nobody is at the data port */
    ck_assert_uint_eq(inl(vm, 0xcfc), 0xffffffff);
    outl(vm, 0xcfc, 0);
    ck_assert_uint_eq(cfg(0, 0, 0, 4), 0x12378086);
}
END_TEST

START_TEST(the_reset_register_lies_inside)
{
    ck_assert_uint_eq(inb(vm, 0xcf9), 0);
    outb(vm, 0xcf9, 0x02);
    ck_assert_uint_eq(vm->exits, 0);
    ck_assert_uint_eq(inb(vm, 0xcf9), 0x02);
    outb(vm, 0xcf9, 0x06);
    ck_assert_uint_eq(vm->exits, 1);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_RESET);
    ck_assert_uint_eq(inb(vm, 0xcf9), 0x02);
    fake_vm_reset(vm);
    ck_assert_uint_eq(inb(vm, 0xcf9), 0);
    outl(vm, 0xcf8, 0x80000600); /* its byte is part of the address here */
    ck_assert_uint_eq(vm->exits, 1);
}
END_TEST

struct function {
    uint8_t space[256];
    unsigned last_size;
};

static uint32_t fn_read(void *opaque, uint32_t offset, uint32_t size)
{
    struct function *f = opaque;
    uint32_t v = 0;

    ck_assert_uint_eq(offset % size, 0);
    ck_assert_uint_le(offset + size, 256);
    f->last_size = size;
    memcpy(&v, f->space + offset, size);
    return v;
}

static void fn_write(void *opaque, uint32_t offset, uint32_t size, uint32_t value)
{
    struct function *f = opaque;

    ck_assert_uint_eq(offset % size, 0);
    ck_assert_uint_le(offset + size, 256);
    f->last_size = size;
    memcpy(f->space + offset, &value, size);
}

START_TEST(functions_get_their_accesses)
{
    static struct function f;
    struct vmm_pci_ops ops = {.size = sizeof ops, .config_read = fn_read, .config_write = fn_write};
    struct vmm_pci_ops none = {.size = sizeof none};

    memset(&f, 0, sizeof f);
    ck_assert_int_eq(vmm_pci_add(pci, 3 << 3 | 1, &ops, &f), 0);
    ck_assert_int_eq(vmm_pci_add(pci, 3 << 3 | 1, &ops, &f), VMM_E_EXIST);
    ck_assert_int_eq(vmm_pci_add(pci, 0, &ops, &f), VMM_E_EXIST);
    ck_assert_int_eq(vmm_pci_add(pci, 8, NULL, &f), VMM_E_INVAL);
    ck_assert_int_eq(vmm_pci_add(pci, 4 << 3, &none, NULL), 0);
    sel(0, 3 << 3 | 1, 0xfc);
    outl(vm, 0xcfc, 0x44332211);
    ck_assert_uint_eq(inb(vm, 0xcff), 0x44);
    ck_assert_uint_eq(f.last_size, 1);
    ck_assert_uint_eq(inw(vm, 0xcfe), 0x4433);
    ck_assert_uint_eq(f.last_size, 2);
    ck_assert_uint_eq(inw(vm, 0xcfd), 0x3322); /* across: two bytes */
    ck_assert_uint_eq(f.last_size, 1);
    sel(0, 4 << 3, 0);
    outl(vm, 0xcfc, 0);
    ck_assert_uint_eq(inl(vm, 0xcfc), 0xffffffff);
}
END_TEST

START_TEST(it_wants_its_ports)
{
    ck_assert_int_eq(vmm_pci_create(vm, NULL), VMM_E_EXIST);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pci");
    TCase *tc = tcase_create("pci");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, linux_detects_mechanism_1);
    tcase_add_test(tc, host_bridge_is_an_i440fx);
    tcase_add_test(tc, firmware_can_program_the_memory_attributes);
    tcase_add_test(tc, the_rest_of_the_bus_reads_all_ones);
    tcase_add_test(tc, the_address_is_a_dword_register);
    tcase_add_test(tc, the_reset_register_lies_inside);
    tcase_add_test(tc, functions_get_their_accesses);
    tcase_add_test(tc, it_wants_its_ports);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
