/* SPDX-License-Identifier: BSD-2-Clause */
/* aml.h: writing ACPI Machine Language (ACPI 6.4, chapter 20) and resource descriptors (6.4). */
#ifndef VMM_CORE_BOOT_AML_H
#define VMM_CORE_BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Output never passes `cap`: `overflow` says that it would have. */
struct aml {
    uint8_t *buf;
    size_t cap;
    size_t len;
    bool overflow;
};

void aml_byte(struct aml *aml, uint8_t v);
void aml_word(struct aml *aml, uint16_t v);
void aml_dword(struct aml *aml, uint32_t v);
void aml_qword(struct aml *aml, uint64_t v);

/* Blocks: each returns a mark for aml_close, which fills the length in. Names are four characters;
 * a leading backslash makes the root. */
size_t aml_scope(struct aml *aml, const char *name);
size_t aml_device(struct aml *aml, const char *name);
size_t aml_package(struct aml *aml, uint8_t count);
void aml_close(struct aml *aml, size_t mark);

void aml_name(struct aml *aml, const char *name); /* the object follows */
void aml_int(struct aml *aml, uint64_t v);
void aml_string(struct aml *aml, const char *text);
void aml_eisaid(struct aml *aml, const char *id); /* "PNP0A03" */

/* A named resource template: descriptors go between begin and end. */
size_t aml_crs_begin(struct aml *aml);
void aml_crs_end(struct aml *aml, size_t mark);
void aml_io(struct aml *aml, uint16_t port, uint8_t len);
void aml_irq(struct aml *aml, uint8_t line); /* edge, active high, exclusive */
void aml_memory(struct aml *aml, uint32_t base, uint32_t len, bool writable);
void aml_bus_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_io_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_memory_window(struct aml *aml, uint64_t first, uint64_t last, bool cacheable);

#endif
