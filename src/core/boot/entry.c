/* SPDX-License-Identifier: BSD-2-Clause */
/* entry.c: the boot CPU's state at a protected-mode or 64-bit entry point: GDT, page tables, stack.
 */
#include "core/boot/boot.h"

#include <inttypes.h>

#define GDT_CODE32 0x00cf9b000000ffffull /* base 0, limit 4 GiB, executable, readable, accessed */
#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_DATA   0x00cf93000000ffffull

#define CR0_PE 0x01u
#define CR0_ET 0x10u

/* The task register of the PVH boot ABI: a TSS just as long as the processor needs one. */
#define TSS_LIMIT 0x67u

#define AR_CODE32 (VMM_AR_G | VMM_AR_DB | VMM_AR_P | VMM_AR_S | 0xbu)
#define AR_CODE64 (VMM_AR_G | VMM_AR_L | VMM_AR_P | VMM_AR_S | 0xbu)
#define AR_DATA   (VMM_AR_G | VMM_AR_DB | VMM_AR_P | VMM_AR_S | 0x3u)

/* Page-table entry bits (SDM Vol. 3A 4.5). */
#define PTE_TABLE   0x23ull /* present, writable, accessed */
#define PTE_2M_PAGE 0xe3ull /* the same, dirty, page size */

#define GIB        (1ull << 30)
#define MAX_GIB    512u /* what one PML4 entry maps */
#define STACK_SIZE 0x4000ull

#define GDT_ENTRIES 4u

/* Identity map with 2 MiB pages over the first `gib` GiB: PML4, PDPT, then one page directory per
 * GiB. */
static int write_tables(struct boot_mem *mem, uint64_t at, uint32_t gib)
{
    uint8_t page[BOOT_PAGE] = {0};
    int err;

    boot_put64(page, (at + BOOT_PAGE) | PTE_TABLE);
    err = boot_mem_write(mem, at, page, BOOT_PAGE);
    boot_put64(page, 0);
    for (uint32_t i = 0; i < gib; i++)
        boot_put64(page + 8 * i, (at + (2 + i) * BOOT_PAGE) | PTE_TABLE);
    if (!err)
        err = boot_mem_write(mem, at + BOOT_PAGE, page, BOOT_PAGE);
    for (uint32_t i = 0; !err && i < gib; i++) {
        for (uint32_t j = 0; j < 512; j++)
            boot_put64(page + 8 * j, i * GIB + j * (GIB / 512) + PTE_2M_PAGE);
        err = boot_mem_write(mem, at + (2 + i) * BOOT_PAGE, page, BOOT_PAGE);
    }
    return err;
}

static int identity_map(struct boot_mem *mem, uint64_t rip, uint64_t *cr3)
{
    uint64_t top = mem->nmapped ? mem->mapped[mem->nmapped - 1].end : 0;
    uint64_t gib = top / GIB + (top % GIB != 0);
    int err;

    gib = gib < 4 ? 4 : gib > MAX_GIB ? MAX_GIB : gib;
    if (rip >= gib * GIB)
        return boot_fail(mem->error, VMM_E_NOSPACE,
                         "entry point 0x%" PRIx64 " is above the first %" PRIu64
                         " GiB, which are mapped",
                         rip, gib);
    err = boot_mem_place_data(mem, (2 + gib) * BOOT_PAGE, BOOT_PAGE, "page tables", cr3);
    return err ? err : write_tables(mem, *cr3, (uint32_t)gib);
}

static int write_gdt(struct boot_mem *mem, bool long_mode, uint64_t *gpa)
{
    uint8_t gdt[8 * GDT_ENTRIES] = {0};
    int err = boot_mem_place_data(mem, sizeof(gdt), 16, "GDT", gpa);

    boot_put64(gdt + 0x08, GDT_CODE32);
    boot_put64(gdt + BOOT_CS, long_mode ? GDT_CODE64 : GDT_CODE32);
    boot_put64(gdt + BOOT_DS, GDT_DATA);
    return err ? err : boot_mem_write(mem, *gpa, gdt, sizeof(gdt));
}

static void set_segments(struct vcpu_regs *regs, bool long_mode)
{
    static const uint8_t data[] = {VMM_ES, VMM_SS, VMM_DS, VMM_FS, VMM_GS};

    regs->seg[VMM_CS] = (struct vmm_segment){
        .limit = 0xffffffff, .ar = long_mode ? AR_CODE64 : AR_CODE32, .selector = BOOT_CS};
    for (size_t i = 0; i < sizeof(data); i++)
        regs->seg[data[i]] =
            (struct vmm_segment){.limit = 0xffffffff, .ar = AR_DATA, .selector = BOOT_DS};
    regs->seg[VMM_TR].limit = TSS_LIMIT;
}

int boot_stack(struct boot *boot, uint64_t *top)
{
    uint64_t gpa = 0;
    int err = boot_mem_place_data(&boot->mem, STACK_SIZE, 16, "stack", &gpa);

    *top = gpa + STACK_SIZE;
    return err;
}

int boot_enter(struct boot *boot, const struct boot_entry *entry)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = entry->long_mode ? VMM_SETUP_LONG64 : VMM_SETUP_PROT32,
                               .rip = entry->rip,
                               .rsp = entry->rsp};
    struct vcpu_regs regs = {.size = sizeof(regs),
                             .groups =
                                 VMM_REGS_GPR | VMM_REGS_SEG | VMM_REGS_DT | VMM_REGS_CONTROL};
    uint64_t gdt = 0;
    int err = write_gdt(&boot->mem, entry->long_mode, &gdt);

    if (!err && entry->long_mode)
        err = identity_map(&boot->mem, entry->rip, &setup.cr3);
    if (err)
        return err;
    err = vcpu_set_mode(boot->vcpu, &setup);
    if (!err)
        err = vcpu_get_regs(boot->vcpu, &regs);
    if (!err) {
        regs.gpr[VMM_RAX] = entry->rax;
        regs.gpr[VMM_RBX] = entry->rbx;
        regs.gpr[VMM_RSI] = entry->rsi;
        regs.gpr[VMM_RDI] = entry->rdi;
        regs.gdt = (struct vmm_dtable){.base = gdt, .limit = 8 * GDT_ENTRIES - 1};
        regs.idt = (struct vmm_dtable){0};
        set_segments(&regs, entry->long_mode);
        if (!entry->long_mode)
            regs.cr0 = CR0_PE | CR0_ET; /* PVH: no other bit that can be written */
        err = vcpu_set_regs(boot->vcpu, &regs);
    }
    return err ? boot_fail(&boot->error, err, "the CPU state at the entry point was refused: %s",
                           vmm_strerror(err))
               : 0;
}
