/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vmx.c: VMX capabilities, controls, VMXON and VMCSs, events, qualifications and bitmaps. */
#include <check.h>
#include <stdio.h>

#include "vmx/decode.h"
#include "vmx/event.h"
#include "vmx_fake.h"

static char why[200];

/* ---- tables ---- */

START_TEST(fields)
{
    uint32_t last = 0;
    unsigned n = 0;

    for (const struct vmx_field_info *f; (f = vmx_field_at(n)); n++) {
        ck_assert_msg(!n || f->encoding > last, "%s is not in order", f->name);
        ck_assert_ptr_eq(vmx_field_info(f->encoding), f);
        /* No reserved bit of an encoding, and full access. */
        ck_assert_uint_eq(f->encoding & ~0x6ffeu, 0);
        last = f->encoding;
    }
    ck_assert_uint_gt(n, 150);
    ck_assert_str_eq(vmx_field_info(0x681e)->name, "GUEST_RIP");
    ck_assert_ptr_null(vmx_field_info(0x681f));
    ck_assert_ptr_null(vmx_field_info(0xffffffff));
    ck_assert_uint_eq(vmx_field_width(VMX_VPID), 16);
    ck_assert_uint_eq(vmx_field_width(VMX_EPTP), 64);
    ck_assert_uint_eq(vmx_field_width(VMX_PIN_CTLS), 32);
    ck_assert_uint_eq(vmx_field_width(VMX_GUEST_RIP), 64);
    ck_assert(vmx_field_read_only(VMX_EXIT_REASON) && vmx_field_read_only(VMX_GUEST_PHYS_ADDR));
    ck_assert(!vmx_field_read_only(VMX_GUEST_RIP) && !vmx_field_read_only(VMX_HOST_RSP));
    ck_assert_uint_eq(VMX_SEG(VMX_GUEST_ES_AR, 7), VMX_GUEST_TR_AR);
}
END_TEST

START_TEST(names)
{
    ck_assert_str_eq(vmx_exit_name(VMX_EXIT_CPUID), "CPUID");
    ck_assert_str_eq(vmx_exit_name(VMX_EXIT_ENTRY_FAILED | 33), "ENTRY_GUEST_STATE");
    ck_assert_str_eq(vmx_exit_name(35), "?");
    ck_assert_str_eq(vmx_insn_error(7), "VM entry with invalid control fields");
    ck_assert_str_eq(vmx_insn_error(14), "?");
    ck_assert_str_eq(vmx_insn_error(1000), "?");
    ck_assert_str_eq(vmx_control_name(VMX_GROUP_PROC2, 1), "EPT");
    ck_assert_ptr_null(vmx_control_name(VMX_GROUP_PROC2, 31));
    ck_assert_ptr_null(vmx_control_name(VMX_NGROUPS, 0));
    vmx_control_names(VMX_GROUP_PROC2, 0x80000022, why, sizeof(why));
    ck_assert_str_eq(why, "EPT VPID bit31");
    vmx_control_names(VMX_GROUP_PROC2, 0x22, why, 6);
    ck_assert_str_eq(why, "EPT V");
}
END_TEST

/* ---- capabilities ---- */

START_TEST(caps_of_models)
{
    const struct fake_model *model = &fake_models[_i];
    struct vmx_machine m;

    fake_reset(model, &m);
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), 0);
    ck_assert_uint_eq(vmx_revision(&m.caps), model->basic & 0x7fffffff);
    ck_assert_uint_eq(m.caps.control[VMX_GROUP_PROC], model->proc);
    ck_assert_uint_eq(m.caps.control[VMX_GROUP_PROC2], model->proc2);
    ck_assert_uint_eq(m.caps.ept_vpid, model->ept_vpid);
    ck_assert_uint_eq(vmx_timer_shift(&m.caps), 0);
}
END_TEST

START_TEST(caps_without_true_controls)
{
    struct fake_model old = *fake_model("core2_penryn_t9600");
    struct vmx_machine m;

    old.basic &= ~(1ull << 55);
    fake_reset(&old, &m);
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), 0);
    /* CR3 accesses exit always there. */
    ck_assert(vmx_must_be_1(&m.caps, VMX_GROUP_PROC) & VMX_PROC_CR3_LOAD);
    ck_assert(vmx_must_be_1(&m.caps, VMX_GROUP_ENTRY) & VMX_ENTRY_LOAD_DEBUG);
}
END_TEST

START_TEST(caps_refused)
{
    struct fake_model odd = *fake_model("corei7_skylake_x");
    struct vmx_machine m;

    fake_reset(NULL, &m);
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), VMM_E_NODEV);
    ck_assert_str_eq(why, "the CPU has no VMX");
    fake_reset(&odd, &m);
    fake.feature_control[0] = 1;
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), VMM_E_NODEV);
    ck_assert_str_eq(why, "VMX is disabled by the firmware");
    fake_reset(&odd, &m);
    fake.msrs_fault = true;
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), VMM_E_NODEV);
    ck_assert_str_eq(why, "IA32_FEATURE_CONTROL cannot be read");
    odd.basic &= ~(15ull << 50); /* uncached VMCSs */
    fake_reset(&odd, &m);
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), VMM_E_NODEV);
    odd = *fake_model("corei7_skylake_x");
    odd.exit &= ~(1ull << 41);
    fake_reset(&odd, &m);
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), VMM_E_NODEV);
    ck_assert_str_eq(why, "VMX is not for 64-bit hosts");
}
END_TEST

/* What the engine wants of everything. */
static const struct vmx_wish wish = {
    .required = {[VMX_GROUP_PIN] = VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI,
                 [VMX_GROUP_PROC] = VMX_PROC_HLT | VMX_PROC_MSR_BITMAPS,
                 [VMX_GROUP_EXIT] = VMX_EXITC_HOST_64},
    .wanted = {[VMX_GROUP_PIN] = VMX_PIN_VIRTUAL_NMIS | VMX_PIN_PREEMPTION_TIMER,
               [VMX_GROUP_PROC] = VMX_PROC_TPR_SHADOW,
               [VMX_GROUP_PROC2] = VMX_PROC2_EPT | VMX_PROC2_UNRESTRICTED_GUEST | VMX_PROC2_VPID |
                                   VMX_PROC2_PML | VMX_PROC2_TSC_SCALING |
                                   VMX_PROC2_VIRTUAL_INTERRUPTS,
               [VMX_GROUP_EXIT] = VMX_EXITC_SAVE_TIMER | VMX_EXITC_LOAD_EFER,
               [VMX_GROUP_ENTRY] = VMX_ENTRY_LOAD_EFER}};

START_TEST(negotiation_of_models)
{
    struct vmx_controls c;
    struct vmx_machine m;

    fake_reset(&fake_models[_i], &m);
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), 0);
    ck_assert_int_eq(vmx_negotiate(&m.caps, &wish, &c, why, sizeof(why)), 0);
    for (unsigned g = 0; g < VMX_NGROUPS; g++) {
        ck_assert_uint_eq(~c.value[g] & vmx_must_be_1(&m.caps, g), 0);
        ck_assert_uint_eq(c.value[g] & ~vmx_may_be_1(&m.caps, g), 0);
        ck_assert_uint_eq(wish.required[g] & ~c.value[g], 0);
        ck_assert_uint_eq(c.refused[g], wish.wanted[g] & ~c.value[g]);
    }
    ck_assert((c.value[VMX_GROUP_PROC] & (uint32_t)VMX_PROC_SECONDARY) ||
              !c.value[VMX_GROUP_PROC2]);
}
END_TEST

START_TEST(negotiation)
{
    struct vmx_wish w = wish;
    struct vmx_controls c;
    struct vmx_machine m;

    fake_reset(fake_model("core2_penryn_t9600"), &m);
    vmx_caps_read(&m.caps, m.host, why, sizeof(why));
    ck_assert_int_eq(vmx_negotiate(&m.caps, &wish, &c, why, sizeof(why)), 0);
    ck_assert_uint_eq(c.value[VMX_GROUP_PROC2], 0);
    ck_assert_uint_eq(c.refused[VMX_GROUP_EXIT], VMX_EXITC_SAVE_TIMER | VMX_EXITC_LOAD_EFER);
    w.required[VMX_GROUP_PROC2] = VMX_PROC2_EPT | VMX_PROC2_VPID;
    ck_assert_int_eq(vmx_negotiate(&m.caps, &w, &c, why, sizeof(why)), VMM_E_UNSUPPORTED);
    ck_assert_str_eq(why, "the CPU lacks secondary processor-based controls: EPT VPID");

    fake_reset(fake_model("corei7_skylake_x"), &m);
    vmx_caps_read(&m.caps, m.host, why, sizeof(why));
    ck_assert_int_eq(vmx_negotiate(&m.caps, &w, &c, why, sizeof(why)), 0);
    for (unsigned g = 0; g < VMX_NGROUPS; g++)
        ck_assert_uint_eq(c.refused[g], 0);
    /* What needs EPT goes with it, and the timer's saving with the timer. */
    vmx_caps_hide(&m.caps, VMX_GROUP_PROC2, VMX_PROC2_EPT);
    vmx_caps_hide(&m.caps, VMX_GROUP_PIN, VMX_PIN_PREEMPTION_TIMER);
    ck_assert_uint_eq((uint32_t)m.caps.ept_vpid, 0);
    ck_assert(m.caps.ept_vpid & VMX_VPID_INVVPID);
    ck_assert_int_eq(vmx_negotiate(&m.caps, &wish, &c, why, sizeof(why)), 0);
    ck_assert_uint_eq(c.refused[VMX_GROUP_PROC2],
                      VMX_PROC2_EPT | VMX_PROC2_UNRESTRICTED_GUEST | VMX_PROC2_PML);
    ck_assert(c.refused[VMX_GROUP_EXIT] == VMX_EXITC_SAVE_TIMER);
    /* Chains: no TPR shadow, no virtual interrupts. */
    vmx_caps_hide(&m.caps, VMX_GROUP_PROC, VMX_PROC_TPR_SHADOW);
    ck_assert_int_eq(vmx_negotiate(&m.caps, &wish, &c, why, sizeof(why)), 0);
    ck_assert(c.refused[VMX_GROUP_PROC2] & VMX_PROC2_VIRTUAL_INTERRUPTS);
    vmx_caps_hide(&m.caps, VMX_GROUP_PROC, (uint32_t)VMX_PROC_SECONDARY);
    ck_assert_uint_eq(m.caps.control[VMX_GROUP_PROC2], 0);
    /* What must be 1 is not hidden. */
    vmx_caps_hide(&m.caps, VMX_GROUP_PIN, 0x16);
    ck_assert_uint_eq(vmx_may_be_1(&m.caps, VMX_GROUP_PIN) & 0x16, 0x16);
}
END_TEST

/* ---- VMXON and VMCSs ---- */

static void ready(const char *model, struct vmx_machine *m)
{
    fake_reset(fake_model(model), m);
    ck_assert_int_eq(vmx_caps_read(&m->caps, m->host, why, sizeof(why)), 0);
    fake.preempt = 1;
}

/* VMX operation of this CPU alone, and of none. */
static int cpu_on(struct vmx_machine *m, uint32_t cpu)
{
    if (!m->cpus[cpu].region)
        m->cpus[cpu].region = fake_pages_alloc(NULL, 1);
    *(uint32_t *)m->cpus[cpu].region = (uint32_t)m->caps.basic & 0x7fffffff;
    return vmx_cpu_on(m, cpu);
}

START_TEST(on_and_off)
{
    struct vmx_machine m;

    ready("corei7_skylake_x", &m);
    ck_assert_int_eq(cpu_on(&m, 0), 0);
    ck_assert(fake.on[0] && !fake.on[1] && m.cpus[0].on);
    ck_assert_uint_eq(fake.feature_control[0], 5);
    ck_assert_int_eq(cpu_on(&m, 0), 0);
    vmx_cpu_off(&m, 0);
    ck_assert(!fake.on[0] && !(fake.cr4[0] >> 13 & 1));
    vmx_machine_off(&m);
    ck_assert_uint_eq(fake.pages, 0);
    /* Locked by the firmware, and on; who has set CR4.VMXE keeps it. */
    fake.cr4[0] |= 1u << 13;
    ck_assert_int_eq(cpu_on(&m, 0), 0);
    vmx_machine_off(&m);
    ck_assert(fake.cr4[0] >> 13 & 1);
}
END_TEST

START_TEST(on_refused)
{
    struct vmx_machine m;

    ready("corei7_skylake_x", &m);
    fake.cpu = 1;
    fake.feature_control[1] = 1; /* this CPU only */
    ck_assert_int_eq(cpu_on(&m, 1), VMM_E_NODEV);
    ck_assert_str_eq(m.cpus[1].why, "VMX is disabled by the firmware");
    fake.feature_control[1] = 5;
    fake.cr0[1] &= ~0x20ull;
    ck_assert_int_eq(cpu_on(&m, 1), VMM_E_NODEV);
    ck_assert_ptr_nonnull(strstr(m.cpus[1].why, "CR0"));
    fake.cr0[1] |= 0x20;
    fake.cr4[1] |= 1ull << 40;
    ck_assert_int_eq(cpu_on(&m, 1), VMM_E_NODEV);
    ck_assert_ptr_nonnull(strstr(m.cpus[1].why, "CR4"));
    fake.cr4[1] = 0x620;
    fake.on[1] = true; /* another hypervisor */
    ck_assert_int_eq(cpu_on(&m, 1), VMM_E_NODEV);
    ck_assert_uint_eq(fake.cr4[1], 0x620);
    fake.on[1] = false;
    ck_assert_int_eq(cpu_on(&m, 1), 0);
    vmx_machine_off(&m);
    ck_assert_uint_eq(fake.pages, 0);
}
END_TEST

START_TEST(all_cpus)
{
    struct vmx_machine m;

    ready("corei7_skylake_x", &m);
    ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), 0);
    for (uint32_t i = 0; i < FAKE_CPUS; i++)
        ck_assert(fake.on[i] && m.cpus[i].on);
    vmx_machine_off(&m);
    for (uint32_t i = 0; i < FAKE_CPUS; i++)
        ck_assert(!fake.on[i] && !(fake.cr4[i] >> 13 & 1));
    ck_assert_uint_eq(fake.pages, 0);
    /* One that refuses: all are off again, and which it is is told. */
    fake.on[1] = true;
    ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), VMM_E_NODEV);
    ck_assert_ptr_nonnull(strstr(why, "CPU 1: VMXON fails"));
    ck_assert(!fake.on[0]);
    fake.on[1] = false;
    fake.other = 2;
    ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), VMM_E_NODEV);
    ck_assert_str_eq(why, "CPU 1: its VMX is not that of the CPU that has been asked");
    fake.other = 0;
    fake.lost = 2;
    m.cpus[1].why[0] = 0;
    ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), VMM_E_NODEV);
    ck_assert_str_eq(why, "CPU 1: cannot be reached");
    ck_assert(!fake.on[0]);
    fake.lost = 0;
    for (int n = 0; n < FAKE_CPUS; n++) {
        fake.fail_pages = n;
        ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), VMM_E_NOMEM);
        ck_assert_uint_eq(fake.pages, 0);
    }
    fake.fail_pages = -1;
    ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), 0);
    vmx_machine_off(&m);
    ck_assert_uint_eq(fake.pages, 0);
}
END_TEST

START_TEST(time_stamps)
{
    struct vmx_machine m;
    uint64_t ratio;

    ready("corei7_skylake_x", &m);
    ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), 0);
    ck_assert(m.same_tsc);
    vmx_machine_off(&m);
    for (int sign = 0; sign < 2; sign++) {
        fake.late[1] = sign ? 1000 : -1000ull;
        ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), 0);
        ck_assert(!m.same_tsc);
        vmx_machine_off(&m);
    }
    ratio = vmx_tsc_ratio(3000000, 2000000);
    ck_assert_uint_eq(ratio, 3ull << 47);
    ck_assert_uint_eq(vmx_tsc_scale(1ull << 62, ratio), 3ull << 61);
    ck_assert_uint_eq(vmx_tsc_scale(1001, vmx_tsc_ratio(1000, 2000)), 500);
    ck_assert_uint_eq(vmx_tsc_ratio(100000000, 1000), 0); /* 100,000 times: no multiplier */
}
END_TEST

START_TEST(vmcs_moves)
{
    struct vmx_vmcs a, b;
    struct vmx_machine m;

    ready("tigerlake", &m);
    ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), 0);
    fake.remote_calls = 0;
    ck_assert_int_eq(vmx_vmcs_create(&m, &a), 0);
    ck_assert_int_eq(vmx_vmcs_create(&m, &b), 0);
    ck_assert(vmx_vmcs_load(&m, &a));
    a.launched = true;
    vmx_insn_write(VMX_GUEST_RIP, 0x1000);
    /* Another one and back: it stays launched. */
    ck_assert(vmx_vmcs_load(&m, &b));
    ck_assert(vmx_vmcs_load(&m, &a));
    ck_assert(a.launched && vmx_insn_read(VMX_GUEST_RIP) == 0x1000);
    ck_assert_uint_eq(fake.remote_calls, 0);
    /* On another CPU it is cleared where it was, and launched again. */
    fake.cpu = 1;
    ck_assert(vmx_vmcs_load(&m, &a));
    ck_assert_uint_eq(fake.remote_calls, 1);
    ck_assert(!a.launched && a.cpu == 1 && m.cpus[0].current == NULL);
    ck_assert_uint_eq(vmx_insn_read(VMX_GUEST_RIP), 0x1000);
    fake.cpu = 0;
    /* A CPU that cannot be reached keeps it: it must not be loaded here. */
    fake.lost = 2;
    ck_assert(!vmx_vmcs_load(&m, &a) && a.cpu == 1);
    fake.lost = 0;
    ck_assert(vmx_vmcs_load(&m, &a) && a.cpu == 0);
    vmx_vmcs_destroy(&m, &a);
    vmx_vmcs_destroy(&m, &b);
    vmx_vmcs_destroy(&m, &b);
    vmx_machine_off(&m);
    ck_assert_uint_eq(fake.pages, 0);
    fake.fail_pages = 0;
    ck_assert_int_eq(vmx_vmcs_create(&m, &a), VMM_E_NOMEM);
}
END_TEST

/* ---- events ---- */

#define EXTERNAL(v)  (0x80000000u | (v))
#define EXCEPTION(v) (0x80000300u | (v))

START_TEST(plans)
{
    struct vmx_waiting w = {.virtual_nmis = true};
    struct vmx_plan p = vmx_plan_entry(&w);

    ck_assert(p.inject == VMX_INJECT_NOTHING && !p.nmi_window && !p.interrupt_window);
    w.interrupt = true;
    p = vmx_plan_entry(&w);
    ck_assert(p.inject == VMX_INJECT_NOTHING && p.interrupt_window);
    w.interrupts_on = true;
    p = vmx_plan_entry(&w);
    ck_assert(p.inject == VMX_INJECT_INTERRUPT && !p.interrupt_window);
    w.interruptibility = VMX_BLOCK_STI;
    p = vmx_plan_entry(&w);
    ck_assert(p.inject == VMX_INJECT_NOTHING && p.interrupt_window);
    w.interruptibility = VMX_BLOCK_MOV_SS;
    ck_assert(vmx_plan_entry(&w).inject == VMX_INJECT_NOTHING);
    w.interruptibility = VMX_BLOCK_NMI;
    ck_assert(vmx_plan_entry(&w).inject == VMX_INJECT_INTERRUPT);
    /* NMIs go first, the interrupt has its window. */
    w.interruptibility = 0;
    w.nmi = true;
    p = vmx_plan_entry(&w);
    ck_assert(p.inject == VMX_INJECT_NMI && !p.nmi_window && p.interrupt_window);
    w.interruptibility = VMX_BLOCK_NMI;
    p = vmx_plan_entry(&w);
    ck_assert(p.inject == VMX_INJECT_INTERRUPT && p.nmi_window);
    w.interruptibility = VMX_BLOCK_STI;
    p = vmx_plan_entry(&w);
    ck_assert(p.inject == VMX_INJECT_NOTHING && p.nmi_window && p.interrupt_window);
    w.virtual_nmis = false;
    ck_assert(!vmx_plan_entry(&w).nmi_window);
    /* An event goes before all. */
    w.virtual_nmis = true;
    w.event.info = EXCEPTION(14);
    p = vmx_plan_entry(&w);
    ck_assert(p.inject == VMX_INJECT_EVENT && p.nmi_window && p.interrupt_window);
    /* The program's window, which shuts the interrupts out until it is taken. */
    w = (struct vmx_waiting){.wants_window = true, .interrupt = true};
    p = vmx_plan_entry(&w);
    ck_assert(p.interrupt_window && !p.program_window);
    w.interrupts_on = true;
    p = vmx_plan_entry(&w);
    ck_assert(p.program_window && p.inject == VMX_INJECT_NOTHING);
}
END_TEST

START_TEST(interrupted)
{
    bool unblock;
    struct vmx_event e = vmx_interrupted_event(0x30e, 7, 3, &unblock);

    ck_assert(!e.info && !unblock);
    e = vmx_interrupted_event(EXCEPTION(14) | VMX_INTR_HAS_ERROR | VMX_INTR_NMI_UNBLOCK, 7, 3,
                              &unblock);
    ck_assert(e.info == (EXCEPTION(14) | VMX_INTR_HAS_ERROR) && e.error == 7 && !e.len && !unblock);
    e = vmx_interrupted_event(0x80000480, 0, 2, &unblock); /* INT 0x80 */
    ck_assert(e.info == 0x80000480 && e.len == 2);
    e = vmx_interrupted_event(0x80000603, 0, 1, &unblock); /* INT3 */
    ck_assert(e.info == 0x80000603 && e.len == 1);
    e = vmx_interrupted_event(0x80000202, 0, 1, &unblock);
    ck_assert(e.info == 0x80000202 && unblock && !e.len);
    e = vmx_interrupted_event(EXTERNAL(0x50), 9, 1, &unblock);
    ck_assert(e.info == EXTERNAL(0x50) && !e.error && !unblock);
}
END_TEST

START_TEST(iret)
{
    ck_assert(vmx_iret_blocks_nmi(0, EXCEPTION(14) | VMX_INTR_NMI_UNBLOCK, 0));
    ck_assert(!vmx_iret_blocks_nmi(0, EXCEPTION(14), 0));
    ck_assert(!vmx_iret_blocks_nmi(0, EXCEPTION(8) | VMX_INTR_NMI_UNBLOCK, 0));
    ck_assert(!vmx_iret_blocks_nmi(0, EXCEPTION(14) | VMX_INTR_NMI_UNBLOCK, EXTERNAL(3)));
    ck_assert(vmx_iret_blocks_nmi(VMX_EXIT_EPT_VIOLATION, 0x1081, 0));
    ck_assert(!vmx_iret_blocks_nmi(VMX_EXIT_EPT_VIOLATION, 0x81, 0));
    ck_assert(!vmx_iret_blocks_nmi(VMX_EXIT_CPUID, 0x1000, 0));
}
END_TEST

START_TEST(kept_blocking)
{
    ck_assert_uint_eq(vmx_kept_blocking(VMX_BLOCK_MOV_SS, 0, false), VMX_BLOCK_MOV_SS);
    ck_assert_uint_eq(vmx_kept_blocking(VMX_BLOCK_STI | VMX_BLOCK_NMI, 0, false), VMX_BLOCK_STI);
    ck_assert_uint_eq(vmx_kept_blocking(VMX_BLOCK_STI, VMX_BLOCK_NMI, false),
                      VMX_BLOCK_STI | VMX_BLOCK_NMI);
    /* The CPU has said it itself; both at once would fail the next entry. */
    ck_assert_uint_eq(vmx_kept_blocking(VMX_BLOCK_STI, VMX_BLOCK_MOV_SS, false), VMX_BLOCK_MOV_SS);
    /* The instruction behind it has been executed. */
    ck_assert_uint_eq(vmx_kept_blocking(VMX_BLOCK_MOV_SS, 0, true), 0);
    ck_assert_uint_eq(vmx_kept_blocking(0, VMX_BLOCK_STI, true), VMX_BLOCK_STI);
}
END_TEST

/* ---- qualifications and bitmaps ---- */

START_TEST(qualifications)
{
    struct vmx_cr_access cr = vmx_cr_access(0x0000000000000503);
    struct vmx_io_access io = vmx_io_access(0x03f80039);
    struct vmx_ept_violation v = vmx_ept_violation(0x18a);

    ck_assert(cr.kind == VMX_CR_WRITE && cr.cr == 3 && cr.gpr == 5);
    cr = vmx_cr_access(0x818);
    ck_assert(cr.kind == VMX_CR_READ && cr.cr == 8 && cr.gpr == 8);
    ck_assert(vmx_cr_access(0x20).kind == VMX_CR_CLTS);
    cr = vmx_cr_access(0xfff00070);
    ck_assert(cr.kind == VMX_CR_LMSW && cr.memory && cr.source == 0xfff0);
    ck_assert(io.port == 0x3f8 && io.size == 2 && io.in && io.string && io.rep && !io.immediate);
    ck_assert(vmx_io_access(0x43).size == 4 && vmx_io_access(0x43).immediate);
    ck_assert(!v.read && v.write && !v.fetch && v.readable && !v.writable && v.translated);
    ck_assert(vmx_ept_violation(0x81).linear_valid && !vmx_ept_violation(0x81).translated);
    ck_assert(!vmx_ept_violation(0x101).translated);
}
END_TEST

/* As the CPU reads it. */
static bool msr_exits(const uint8_t *bitmap, uint32_t msr, bool write)
{
    uint32_t high = msr >= 0xc0000000, n = msr & 0x1fff;

    if (msr - (high ? 0xc0000000 : 0) > 0x1fff)
        return true;
    return bitmap[(write ? 2048 : 0) + high * 1024 + n / 8] >> n % 8 & 1;
}

START_TEST(msr_bitmap)
{
    static const uint32_t msrs[] = {0, 0x10, 0x1fff, 0xc0000000, 0xc0000080, 0xc0001fff};
    uint8_t bitmap[VMX_MSR_BITMAP_SIZE] = {0};

    for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
        vmx_msr_bitmap_set(bitmap, msrs[i], false, true);
        ck_assert(msr_exits(bitmap, msrs[i], true) && !msr_exits(bitmap, msrs[i], false));
        vmx_msr_bitmap_set(bitmap, msrs[i], true, false);
        vmx_msr_bitmap_clear(bitmap, msrs[i], false, true);
        ck_assert(!msr_exits(bitmap, msrs[i], true) && msr_exits(bitmap, msrs[i], false));
        vmx_msr_bitmap_clear(bitmap, msrs[i], true, true);
    }
    ck_assert(msr_exits(bitmap, 0x2000, false) && msr_exits(bitmap, 0xbfffffff, true));
    vmx_msr_bitmap_clear(bitmap, 0x40000000, true, true);
    ck_assert(msr_exits(bitmap, 0x40000000, false));
    /* The layout of SDM Vol. 3C 24.6.9. */
    vmx_msr_bitmap_set(bitmap, 9, true, false);
    vmx_msr_bitmap_set(bitmap, 0xc0000080, false, true);
    for (unsigned i = 0; i < sizeof(bitmap); i++)
        ck_assert_uint_eq(bitmap[i], i == 1 ? 2 : i == 3072 + 16 ? 1 : 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx");
    TCase *tc = tcase_create("vmx");

    tcase_add_test(tc, fields);
    tcase_add_test(tc, names);
    tcase_add_loop_test(tc, caps_of_models, 0, FAKE_NMODELS);
    tcase_add_test(tc, caps_without_true_controls);
    tcase_add_test(tc, caps_refused);
    tcase_add_loop_test(tc, negotiation_of_models, 0, FAKE_NMODELS);
    tcase_add_test(tc, negotiation);
    tcase_add_test(tc, on_and_off);
    tcase_add_test(tc, on_refused);
    tcase_add_test(tc, all_cpus);
    tcase_add_test(tc, time_stamps);
    tcase_add_test(tc, vmcs_moves);
    tcase_add_test(tc, plans);
    tcase_add_test(tc, interrupted);
    tcase_add_test(tc, iret);
    tcase_add_test(tc, kept_blocking);
    tcase_add_test(tc, qualifications);
    tcase_add_test(tc, msr_bitmap);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
