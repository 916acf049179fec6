/* SPDX-License-Identifier: BSD-2-Clause */
/* mptable.c: the tables of the MultiProcessor Specification 1.4, for guests that know no ACPI. */
#include "core/boot/mptable.h"

#include <vmm/machine.h>

#include "core/boot/acpi.h"
#include "core/boot/aml.h"

#define POINTER_SIZE 16u

enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_IO_INT, MP_LOCAL_INT };
enum { INT_VECTORED, INT_NMI, INT_SMI, INT_EXTINT };

#define CPU_ENABLED    1u
#define CPU_BSP        2u
#define CPU_SIGNATURE  0x600u /* family 6 */
#define CPU_FEATURES   0x201u /* FPU and APIC */
#define LAPIC_VERSION  0x14u
#define IOAPIC_VERSION 0x11u
#define LEVEL_HIGH     0x000du
#define ALL_LAPICS     0xffu

struct mp {
    struct aml out;
    uint32_t entries;
    uint8_t isa_bus;
    uint8_t ioapic;
};

static void put_text(struct mp *mp, const char *text)
{
    while (*text)
        aml_byte(&mp->out, (uint8_t)*text++);
}

static void put_cpu(struct mp *mp, uint32_t id)
{
    aml_byte(&mp->out, MP_PROCESSOR);
    aml_byte(&mp->out, (uint8_t)id);
    aml_byte(&mp->out, LAPIC_VERSION);
    aml_byte(&mp->out, CPU_ENABLED | (id == 0 ? CPU_BSP : 0));
    aml_dword(&mp->out, CPU_SIGNATURE);
    aml_dword(&mp->out, CPU_FEATURES);
    aml_qword(&mp->out, 0);
    mp->entries++;
}

static void put_bus(struct mp *mp, uint8_t id, const char *type)
{
    aml_byte(&mp->out, MP_BUS);
    aml_byte(&mp->out, id);
    put_text(mp, type);
    mp->entries++;
}

static void put_ioapic(struct mp *mp)
{
    aml_byte(&mp->out, MP_IOAPIC);
    aml_byte(&mp->out, mp->ioapic);
    aml_byte(&mp->out, IOAPIC_VERSION);
    aml_byte(&mp->out, 1); /* enabled */
    aml_dword(&mp->out, (uint32_t)VMM_PC_IOAPIC);
    mp->entries++;
}

static void put_int(struct mp *mp, uint8_t entry, uint8_t type, uint16_t flags, uint8_t irq,
                    uint8_t apic, uint8_t pin)
{
    aml_byte(&mp->out, entry);
    aml_byte(&mp->out, type);
    aml_word(&mp->out, flags);
    aml_byte(&mp->out, mp->isa_bus);
    aml_byte(&mp->out, irq);
    aml_byte(&mp->out, apic);
    aml_byte(&mp->out, pin);
    mp->entries++;
}

/* ISA interrupts on the pins of their numbers, the timer on pin 2 (where the cascade would be). */
static void put_interrupts(struct mp *mp)
{
    for (uint8_t irq = 0; irq < 16; irq++) {
        if (irq == 2)
            continue;
        put_int(mp, MP_IO_INT, INT_VECTORED, irq == VMM_PC_SCI ? LEVEL_HIGH : 0, irq, mp->ioapic,
                irq == 0 ? 2 : irq);
    }
    put_int(mp, MP_LOCAL_INT, INT_EXTINT, 0, 0, ALL_LAPICS, 0);
    put_int(mp, MP_LOCAL_INT, INT_NMI, 0, 0, ALL_LAPICS, 1);
}

static void put_pointer(struct mp *mp, uint32_t base)
{
    put_text(mp, "_MP_");
    aml_dword(&mp->out, base + POINTER_SIZE);
    aml_byte(&mp->out, 1);  /* length in paragraphs */
    aml_byte(&mp->out, 4);  /* version 1.4 */
    aml_byte(&mp->out, 0);  /* checksum */
    aml_byte(&mp->out, 0);  /* a configuration table follows */
    aml_dword(&mp->out, 0); /* virtual wire mode, no IMCR */
}

static void put_header(struct mp *mp)
{
    put_text(mp, "PCMP");
    aml_word(&mp->out, 0); /* length */
    aml_byte(&mp->out, 4); /* version 1.4 */
    aml_byte(&mp->out, 0); /* checksum */
    put_text(mp, "LIBVMM  VMM PC      ");
    aml_dword(&mp->out, 0); /* OEM table */
    aml_word(&mp->out, 0);
    aml_word(&mp->out, 0); /* entries */
    aml_dword(&mp->out, (uint32_t)VMM_PC_LAPIC);
    aml_dword(&mp->out, 0); /* extended table */
}

size_t mptable_build(uint32_t cpus, bool pci, uint32_t base, uint8_t *buf, size_t cap)
{
    struct mp mp = {{buf, cap, 0, false}, 0, pci ? 1 : 0, (uint8_t)cpus};
    uint8_t *table = buf + POINTER_SIZE;
    size_t len;

    put_pointer(&mp, base);
    put_header(&mp);
    for (uint32_t i = 0; i < cpus; i++)
        put_cpu(&mp, i);
    if (pci)
        put_bus(&mp, 0, "PCI   ");
    put_bus(&mp, mp.isa_bus, "ISA   ");
    put_ioapic(&mp);
    put_interrupts(&mp);
    if (mp.out.overflow)
        return 0;
    len = mp.out.len - POINTER_SIZE;
    table[4] = (uint8_t)len;
    table[5] = (uint8_t)(len >> 8);
    table[34] = (uint8_t)mp.entries;
    table[35] = (uint8_t)(mp.entries >> 8);
    table[7] = acpi_checksum(table, len);
    buf[10] = acpi_checksum(buf, POINTER_SIZE);
    return mp.out.len;
}
