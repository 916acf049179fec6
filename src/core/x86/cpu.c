/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/cpu.c: life cycle and reset of the software CPU. */
#include <string.h>

#include "core/os.h"
#include "core/x86/cache.h"
#include "core/x86/decode.h"
#include "core/x86/thunk.h"
#include "core/x86/xstate.h"

#define AR_CODE16 (VMM_AR_P | VMM_AR_S | 0xbu) /* execute, read, accessed */
#define AR_DATA16 (VMM_AR_P | VMM_AR_S | 0x3u) /* read, write, accessed */
#define AR_LDT    (VMM_AR_P | 0x2u)
#define AR_TSS    (VMM_AR_P | 0xbu) /* 32-bit, busy: what a VM entry demands of TR */

#define PAT_RESET 0x0007040600070406ull
/* Fast strings on; no branch trace store, no PEBS. */
#define MISC_ENABLE_RESET 0x1801u

/* Family 6, in the place of a processor signature; the surroundings know the real one. */
#define EDX_RESET 0x600u

struct x86_cpu *x86_create(const struct x86_env *env, unsigned id)
{
    struct x86_cpu *cpu = os_pages_alloc(sizeof(*cpu)); /* the big tables are hardly touched yet */

    if (!cpu)
        return NULL;
    cpu->env = env;
    cpu->id = id;
    cpu->feat.gpa_bits = 36;
    cpu->feat.linear_bits = 48;
    cpu->feat.xcr0_mask = X86_XCR0_X87 | X86_XCR0_SSE;
    mmu_init(&cpu->mmu, &env->mmu);
    if (!x86_cache_create(cpu)) {
        os_pages_free(cpu, sizeof(*cpu));
        return NULL;
    }
    cpu->memo = x86_memo_create(); /* it only saves time */
    cpu->known = x86_known_create();
    x86_reset(cpu, false);
    return cpu;
}

void x86_destroy(struct x86_cpu *cpu)
{
    if (!cpu)
        return;
    x86_thunks_destroy(cpu);
    x86_cache_destroy(cpu->cache);
    x86_memo_destroy(cpu->memo);
    x86_known_destroy(cpu->known);
    os_pages_free(cpu, sizeof(*cpu));
}

static void reset_segments(struct x86_cpu *cpu)
{
    for (unsigned i = 0; i < VMM_NSEG; i++)
        cpu->seg[i] = (struct vmm_segment){.limit = 0xffff, .ar = AR_DATA16};
    cpu->seg[VMM_CS].selector = 0xf000;
    cpu->seg[VMM_CS].base = 0xffff0000;
    cpu->seg[VMM_CS].ar = AR_CODE16;
    cpu->seg[VMM_LDTR].ar = AR_LDT;
    cpu->seg[VMM_TR].ar = AR_TSS;
    cpu->gdt = cpu->idt = (struct vmm_dtable){.limit = 0xffff};
}

/* What INIT leaves as it is. */
static void reset_power_on(struct x86_cpu *cpu)
{
    memset(&cpu->fpu, 0, sizeof(cpu->fpu));
    cpu->fpu.fcw = 0x40;
    cpu->fpu.ftw = 0xff;
    cpu->fpu.mxcsr = 0x1f80;
    cpu->fpu.xinuse = X86_XCR0_X87;
    cpu->cr0 = X86_CR0_CD | X86_CR0_NW;
    cpu->xcr0 = X86_XCR0_X87;
    cpu->xss = 0;
    cpu->pkru = 0;
    cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs_base = 0;
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    cpu->pat = PAT_RESET;
    cpu->tsc_aux = 0;
    cpu->misc_enable = MISC_ENABLE_RESET;
    cpu->spec_ctrl = 0;
    cpu->mtrr_cap_def = 0;
    memset(cpu->mtrr_fixed, 0, sizeof(cpu->mtrr_fixed));
    memset(cpu->mtrr_var, 0, sizeof(cpu->mtrr_var));
    cpu->mcg_status = cpu->tsc_adjust = cpu->misc_features = 0;
}

void x86_reset(struct x86_cpu *cpu, bool init)
{
    if (!init)
        reset_power_on(cpu);
    memset(cpu->gpr, 0, sizeof(cpu->gpr));
    cpu->gpr[X86_64K] = 0x10000;
    cpu->gpr[VMM_RDX] = EDX_RESET;
    x86_set_rflags(cpu, 2);
    cpu->rip = 0xfff0;
    cpu->cpl = 0;
    reset_segments(cpu);

    cpu->cr0 = (cpu->cr0 & (X86_CR0_CD | X86_CR0_NW)) | X86_CR0_ET;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->cr8 = cpu->efer = 0;
    cpu->dr = (struct x86_dr){.dr6 = 0xffff0ff0, .dr7 = 0x400};

    cpu->event.valid = cpu->later.valid = false;
    cpu->shadow = 0;
    cpu->nmi_blocked = cpu->nmi_pending = false;
    cpu->activity = VMM_ACTIVE;
    cpu->monitor_linear = 0;
    cpu->pending_db = 0;
    cpu->ext = 0;
    cpu->restart = false;
    cpu->host_exception_pass = false;

    x86_mode_changed(cpu);
    x86_flush_tlb(cpu);
    x86_breakpoints_changed(cpu);
}
