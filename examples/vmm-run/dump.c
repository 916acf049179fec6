/* SPDX-License-Identifier: BSD-2-Clause */
/* dump.c: the state of the vCPUs as text, for a guest that crashed. */
#include <inttypes.h>

#include "machine.h"

#define CODE_BEFORE 16u
#define CODE_BYTES  48u

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const segment_names[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"};
static const char *const mode_names[] = {"real mode",
                                         "virtual-8086 mode",
                                         "16-bit protected mode",
                                         "32-bit protected mode",
                                         "16-bit compatibility mode",
                                         "32-bit compatibility mode",
                                         "64-bit mode"};
static const char *const activity_names[] = {"active", "halted", "waiting for SIPI", "shutdown"};

#define NAME(table, index)                                                                         \
    ((index) < sizeof(table) / sizeof((table)[0]) ? (table)[index] : "unknown")

static void dump_flags(FILE *file, uint64_t rflags)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } flags[] = {{21, "ID"}, {18, "AC"}, {17, "VM"}, {16, "RF"}, {14, "NT"}, {11, "OF"}, {10, "DF"},
                 {9, "IF"},  {8, "TF"},  {7, "SF"},  {6, "ZF"},  {4, "AF"},  {2, "PF"},  {0, "CF"}};

    fprintf(file, "  rflags=%08" PRIx64 " iopl=%u", rflags, (unsigned)(rflags >> 12 & 3));
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (rflags >> flags[i].bit & 1) {
            fprintf(file, " %s", flags[i].name);
        }
    }
    fputc('\n', file);
}

/* The bytes around the instruction pointer, the one it points at in brackets. */
static void dump_code(FILE *file, struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    uint64_t at = regs->seg[VMM_CS].base + regs->rip;
    uint64_t from = at > CODE_BEFORE ? at - CODE_BEFORE : 0;
    unsigned shown = 0;

    fputs("  code ", file);
    for (uint64_t gva = from; gva - from < CODE_BYTES; gva++) {
        uint8_t byte;

        if (vcpu_read_virt(vcpu, gva, &byte, 1) == 0) {
            fprintf(file, gva == at ? "[%02x] " : "%02x ", byte);
            shown++;
        }
    }
    fputs(shown > 0 ? "\n" : "is not in memory\n", file);
}

static void dump_vcpu(FILE *file, struct vcpu *vcpu)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_ALL};

    if (vcpu_get_regs(vcpu, &regs) != 0) {
        fprintf(file, "CPU %u: registers not readable\n", vcpu_id(vcpu));
        return;
    }
    fprintf(file, "CPU %u: %s\n", vcpu_id(vcpu), NAME(activity_names, regs.activity));
    for (unsigned i = 0; i < 16; i++) {
        fprintf(file, "  %-3s=%016" PRIx64 "%s", gpr_names[i], regs.gpr[i], i % 4 == 3 ? "\n" : "");
    }
    fprintf(file, "  rip=%016" PRIx64, regs.rip);
    dump_flags(file, regs.rflags);
    for (unsigned i = 0; i < VMM_NSEG; i++) {
        const struct vmm_segment *seg = &regs.seg[i];

        fprintf(file, "  %-3s=%04x base=%016" PRIx64 " limit=%08x ar=%05x%s\n", segment_names[i],
                seg->selector, seg->base, seg->limit, seg->ar,
                seg->ar & VMM_AR_UNUSABLE ? " unusable" : "");
    }
    fprintf(file, "  gdt base=%016" PRIx64 " limit=%04x\n", regs.gdt.base, regs.gdt.limit);
    fprintf(file, "  idt base=%016" PRIx64 " limit=%04x\n", regs.idt.base, regs.idt.limit);
    fprintf(file, "  cr0=%08" PRIx64 " cr2=%016" PRIx64 " cr3=%016" PRIx64 " cr4=%08" PRIx64 "\n",
            regs.cr0, regs.cr2, regs.cr3, regs.cr4);
    fprintf(file, "  cr8=%" PRIx64 " efer=%" PRIx64 " xcr0=%" PRIx64 " apic_base=%" PRIx64 "\n",
            regs.cr8, regs.efer, regs.xcr0, regs.apic_base);
    fprintf(file,
            "  dr0=%016" PRIx64 " dr1=%016" PRIx64 " dr2=%016" PRIx64 " dr3=%016" PRIx64
            " dr6=%08" PRIx64 " dr7=%08" PRIx64 "\n",
            regs.dr[0], regs.dr[1], regs.dr[2], regs.dr[3], regs.dr[6], regs.dr[7]);
    fprintf(file,
            "  star=%016" PRIx64 " lstar=%016" PRIx64 " cstar=%016" PRIx64 " sfmask=%" PRIx64 "\n",
            regs.star, regs.lstar, regs.cstar, regs.sfmask);
    fprintf(file,
            "  kernel_gs_base=%016" PRIx64 " sysenter cs=%" PRIx64 " esp=%" PRIx64 " eip=%" PRIx64
            "\n",
            regs.kernel_gs_base, regs.sysenter_cs, regs.sysenter_esp, regs.sysenter_eip);
    fprintf(file, "  pat=%016" PRIx64 " tsc=%" PRIu64 "\n", regs.pat, regs.tsc);
    dump_code(file, vcpu, &regs);
}

static void dump_reason(FILE *file, const struct vcpu_exit *exit)
{
    switch (exit->reason) {
    case VMM_EXIT_SHUTDOWN:
        fputs("triple fault", file);
        break;
    case VMM_EXIT_MEM_FAULT:
        fprintf(file, "execution outside memory, physical address %" PRIx64 ", linear %" PRIx64,
                exit->u.fault.gpa, exit->u.fault.gva);
        break;
    case VMM_EXIT_EMUL_MISS:
        fputs("an instruction that this backend cannot execute", file);
        break;
    case VMM_EXIT_ENTRY_FAIL:
        fprintf(file, "impossible register state: %.*s", (int)sizeof(exit->u.entry.text),
                exit->u.entry.text);
        break;
    case VMM_EXIT_PANIC:
        fprintf(file, "the guest's kernel panicked (pvpanic %" PRIx64 ")", exit->u.user.value);
        break;
    default:
        fputs("unexpected", file);
        break;
    }
}

void machine_dump(struct machine *machine, FILE *file)
{
    const struct vcpu_exit *exit = &machine->exit;

    fprintf(file, "vmm-run: guest crashed: %s: ", vmm_exit_name(exit->reason));
    dump_reason(file, exit);
    fprintf(file, "\nCPU %u: in %s, CPL %u, at rip %" PRIx64, machine->end_cpu,
            NAME(mode_names, exit->mode), exit->cpl, exit->rip);
    if (exit->insn_len > 0) {
        fputs(", instruction", file);
    }
    for (unsigned i = 0; i < exit->insn_len && i < sizeof(exit->insn); i++) {
        fprintf(file, " %02x", exit->insn[i]);
    }
    fputc('\n', file);
    dump_vcpu(file, machine->vcpu[machine->end_cpu]);
    for (uint32_t i = 0; i < machine->options->cpus; i++) {
        if (i != machine->end_cpu) {
            dump_vcpu(file, machine->vcpu[i]);
        }
    }
}
