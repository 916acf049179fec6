/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/stub.c: a few instructions that KVM runs on a vCPU for the software CPU, to reach
 * what the kernel has of its interrupt controllers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "backends/kvm/irq.h"
#include "core/x86/control.h"

/*
 * The software CPU may have to execute guest code that uses controllers which are in the kernel:
 * while the program steps, counts instructions or watches addresses, and where KVM cannot run the
 * guest's mode. Their state can be read and written by ioctls, but not without losing what other
 * threads, timers and devices send meanwhile; and an access has effects elsewhere (an EOI, an IPI).
 * So KVM itself makes the access, on this vCPU: with its registers set for flat protected mode, at
 * code in a page that the library adds to the guest's memory, which ends in a read of an address
 * where nothing is. An interrupt is acknowledged in the same way: the code lets it come, and the
 * address at which its handler stops tells the vector. The vCPU's own registers are in the software
 * CPU meanwhile, and go back to KVM with the next kvm_push.
 *
 * The page is in the window of message-signalled interrupts (SDM Vol. 3A 11.11), where no memory or
 * device can be on a real machine.
 */

#define STUB_GPA   0xfeefc000u
#define STUB_STACK (STUB_GPA + PAGE)     /* a page of its own, that can be written */
#define STUB_STOP  (STUB_GPA + 2 * PAGE) /* nothing is here */
#define PAGE       0x1000u

/* Offsets in the first page. */
#define IDT      0x000u
#define HANDLERS 0x800u
#define GDT      0xa00u
#define CODE     0xa40u

#define HANDLER_LEN 2u
#define CODE_LEN    8u
#define VECTORS     256u

#define CS 8u
#define DS 16u

/* The programs; EDX is the address, EAX the value, EBX STUB_STOP. Each ends in "mov cl, [ebx]". */
#define END 0x8a, 0x0b
static const uint8_t programs[][CODE_LEN] = {
    /* CPUID makes KVM look at its timers in between; what it changes does not matter. */
    [KVM_STUB_PAUSE] = {0x0f, 0xa2, 0xbb, STUB_STOP & 0xff, STUB_STOP >> 8 & 0xff,
                        STUB_STOP >> 16 & 0xff, STUB_STOP >> 24, 0x90},
    [KVM_STUB_READ8] = {0x8a, 0x02, END},
    [KVM_STUB_READ16] = {0x66, 0x8b, 0x02, END},
    [KVM_STUB_READ32] = {0x8b, 0x02, END},
    [KVM_STUB_WRITE8] = {0x88, 0x02, END},
    [KVM_STUB_WRITE16] = {0x66, 0x89, 0x02, END},
    [KVM_STUB_WRITE32] = {0x89, 0x02, END},
    [KVM_STUB_IN8] = {0xec, END},
    [KVM_STUB_IN16] = {0x66, 0xed, END},
    [KVM_STUB_IN32] = {0xed, END},
    [KVM_STUB_OUT8] = {0xee, END},
    [KVM_STUB_OUT16] = {0x66, 0xef, END},
    [KVM_STUB_OUT32] = {0xef, END},
    [KVM_STUB_END] = {END},
};
#define NPROGRAMS (sizeof(programs) / sizeof(programs[0]))
/* The program behind KVM_STUB_PAUSE is its end. */
_Static_assert(KVM_STUB_END == KVM_STUB_PAUSE + 1, "one runs into the other");

/* ---- the pages ---- */

static void put(uint8_t *page, uint32_t offset, uint64_t value)
{
    memcpy(page + offset, &value, sizeof(value));
}

static void fill(uint8_t *page)
{
    for (uint32_t v = 0; v < VECTORS; v++) {
        uint32_t handler = STUB_GPA + HANDLERS + v * HANDLER_LEN;
        /* A 32-bit interrupt gate: SDM Vol. 3A figure 6-2. */
        uint64_t gate = (handler & 0xffff) | CS << 16 | 0x8e00ull << 32 |
                        (uint64_t)(handler & 0xffff0000) << 32;

        put(page, IDT + v * 8, gate);
        memcpy(page + HANDLERS + v * HANDLER_LEN, (const uint8_t[]){END}, HANDLER_LEN);
    }
    /* Marked as accessed, so that nobody writes here. */
    put(page, GDT + CS, 0x00cf9b000000ffff);
    put(page, GDT + DS, 0x00cf93000000ffff);
    memcpy(page + CODE, programs, sizeof(programs));
}

static int set_slot(struct vm *vm, uint32_t number, uint32_t gpa, uint8_t *host, uint32_t flags)
{
    struct kvm_userspace_memory_region region = {.slot = kvm_host()->nslots - 1 - number,
                                                 .flags = host ? flags : 0,
                                                 .guest_phys_addr = gpa,
                                                 .memory_size = host ? PAGE : 0,
                                                 .userspace_addr = (uintptr_t)host};

    return kvm_ioctl_p(kvm_vm_of(vm)->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Whether the program has memory there: then it is the program's. In guest state. */
static bool occupied(struct vm *vm)
{
    struct core_page page;

    for (uint32_t gpa = STUB_GPA; gpa <= STUB_STOP; gpa += PAGE)
        if (core_mem_page(vm, gpa, &page) && page.host)
            return true;
    return false;
}

/* Under the lock. */
static int insert(struct vm *vm, struct kvm_stub *stub)
{
    uint32_t read_only = kvm_host()->has & KVM_HAS_READONLY_MEM ? KVM_MEM_READONLY : 0;
    int r;

    if (!stub->pages) {
        stub->pages = os_pages_alloc(2 * PAGE);
        if (!stub->pages)
            return -ENOMEM;
        fill(stub->pages);
    }
    r = set_slot(vm, 0, STUB_GPA, stub->pages, read_only);
    if (r < 0)
        return r;
    r = set_slot(vm, 1, STUB_STACK, stub->pages + PAGE, 0);
    if (r < 0)
        set_slot(vm, 0, STUB_GPA, NULL, 0);
    stub->present = r >= 0;
    return r;
}

static int ensure(struct vm *vm)
{
    struct kvm_irq *irq = kvm_irq_of(vm);
    int r = 0;

    os_mutex_lock(&irq->lock);
    if (!irq->stub.present)
        r = occupied(vm) ? -EEXIST : insert(vm, &irq->stub);
    os_mutex_unlock(&irq->lock);
    return r < 0 ? r : 0;
}

void kvm_stub_yield(struct vm *vm, uint64_t gpa, uint64_t len)
{
    struct kvm_irq *irq = kvm_irq_of(vm);

    if (!irq || !(gpa - STUB_GPA < 3 * PAGE || STUB_GPA - gpa < len))
        return;
    os_mutex_lock(&irq->lock);
    if (irq->stub.present) {
        set_slot(vm, 0, STUB_GPA, NULL, 0);
        set_slot(vm, 1, STUB_STACK, NULL, 0);
        irq->stub.present = false;
    }
    os_mutex_unlock(&irq->lock);
}

void kvm_stub_fini(struct vm *vm)
{
    struct kvm_stub *stub = &kvm_irq_of(vm)->stub;

    if (stub->pages)
        os_pages_free(stub->pages, 2 * PAGE);
    stub->pages = NULL;
}

/* ---- the vCPU's state while it runs ---- */

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool system)
{
    return (struct kvm_segment){
        .selector = selector,
        .limit = system ? 0x67 : 0xffffffff,
        .type = type,
        .present = 1,
        .s = !system,
        .db = !system,
        .g = !system,
    };
}

static int give_sregs(struct kvm_vcpu *kv)
{
    struct kvm_sregs s;
    int r = kvm_ioctl_p(kv->fd, KVM_GET_SREGS, &s);

    if (r < 0)
        return r;
    s.cs = segment(CS, 11, false);
    s.ds = s.es = s.fs = s.gs = s.ss = segment(DS, 3, false);
    s.tr = segment(0x18, 11, true);
    s.ldt = (struct kvm_segment){.unusable = 1};
    s.gdt.base = STUB_GPA + GDT;
    s.gdt.limit = DS + 7;
    s.idt.base = STUB_GPA + IDT;
    s.idt.limit = VECTORS * 8 - 1;
    s.cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE;
    s.cr3 = 0;
    s.cr4 = 0;
    s.efer = 0;
    /* The task priority is the software CPU's; the APIC base stays KVM's. */
    s.cr8 = x86_read_cr8(kv->soft.cpu);
    memset(s.interrupt_bitmap, 0, sizeof(s.interrupt_bitmap));
    return kvm_ioctl_p(kv->fd, KVM_SET_SREGS, &s);
}

/* An NMI that has come to KVM since the software CPU has taken the events over. It is cleared
 * there, so that the next can be told from it. */
static int take_nmi(struct kvm_vcpu *kv, struct kvm_vcpu_events *e)
{
    int r = kvm_ioctl_p(kv->fd, KVM_GET_VCPU_EVENTS, e);

    if (r < 0 || !e->nmi.pending)
        return r;
    if (!kv->nmi_in_kvm)
        kv->soft.cpu->nmi_pending = true;
    kv->nmi_in_kvm = false;
    e->nmi.pending = 0;
    e->flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
    return kvm_ioctl_p(kv->fd, KVM_SET_VCPU_EVENTS, e);
}

/* NMIs wait, unless they are to end HLT. */
static int give_events(struct kvm_vcpu *kv, bool halted)
{
    struct kvm_vcpu_events e;
    int r = take_nmi(kv, &e);

    if (r < 0)
        return r;
    e = (struct kvm_vcpu_events){.flags = KVM_VCPUEVENT_VALID_SHADOW};
    e.nmi.masked = !halted || kv->soft.cpu->nmi_blocked;
    return kvm_ioctl_p(kv->fd, KVM_SET_VCPU_EVENTS, &e);
}

static int give_halt(struct kvm_vcpu *kv)
{
    const struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_HALTED};

    return kvm_ioctl_p(kv->fd, KVM_SET_MP_STATE, &mp);
}

static int give_state(struct kvm_vcpu *kv, const struct kvm_stub_call *c)
{
    static const struct kvm_debugregs no_breakpoints = {.dr6 = 0xffff0ff0, .dr7 = 0x400};
    struct kvm_regs regs = {
        .rax = (uint32_t)c->value,
        .rbx = STUB_STOP,
        .rdx = c->addr,
        .rsp = STUB_STACK + PAGE,
        .rip = STUB_GPA + CODE + c->program * CODE_LEN,
        .rflags = 2 | (c->interrupts ? X86_IF : 0),
    };
    int r = give_sregs(kv);

    if (r >= 0)
        r = kvm_ioctl_p(kv->fd, KVM_SET_REGS, &regs);
    if (r >= 0)
        r = give_events(kv, c->halted);
    if (r >= 0 && c->halted)
        r = give_halt(kv);
    if (r >= 0 && (kv->soft.cpu->dr.dr7 & 0xff)) {
        kvm_changed(kv, KVM_G_DEBUG);
        r = kvm_ioctl_p(kv->fd, KVM_SET_DEBUGREGS, &no_breakpoints);
    }
    return r;
}

/* What may have changed of the vCPU's own state: the task priority, and an NMI may have come. */
static void take_back(struct kvm_vcpu *kv, struct kvm_stub_call *c)
{
    struct kvm_vcpu_events e;

    kv->soft.cpu->cr8 = kv->run->cr8;
    if (take_nmi(kv, &e) < 0)
        return;
    c->nmi = c->vector == X86_NMI && c->halted && e.nmi.masked && !kv->soft.cpu->nmi_blocked;
}

/* ---- running it ---- */

/* An access that is not for a controller in the kernel: nobody is there. */
static void nobody(struct kvm_run *run, struct kvm_stub_call *c)
{
    c->nobody = true;
    if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
        memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
    if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN)
        memset((uint8_t *)run + run->io.data_offset, 0xff, (size_t)run->io.size * run->io.count);
}

static bool at_end(const struct kvm_run *run)
{
    return run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write &&
           run->mmio.phys_addr == STUB_STOP;
}

/* Whether the vCPU still executes what it was given: an INIT may have come. */
static bool runnable(struct kvm_vcpu *kv)
{
    struct kvm_mp_state mp;

    return kvm_ioctl_p(kv->fd, KVM_GET_MP_STATE, &mp) >= 0 && mp.mp_state == KVM_MP_STATE_RUNNABLE;
}

/* Before it is given anything. What KVM still has may be of before the software CPU took over; but
 * an INIT that has come since then is seen here. */
static int make_runnable(struct kvm_vcpu *kv)
{
    uint32_t before = kvm_irq_of(kv->vcpu->vm)->activity[kv->vcpu->id], now;
    int r = kvm_irq_get_activity(kv, &now);

    if (r)
        return -EIO;
    if (now == VMM_WAIT_SIPI && before != VMM_WAIT_SIPI && before != KVM_ACTIVITY_UNKNOWN)
        return -EAGAIN;
    return kvm_irq_set_activity(kv, VMM_ACTIVE) ? -EIO : 0;
}

#define MAX_EXITS 64 /* of one call; there are a handful */

/* Runs until the end is reached: 0; -EAGAIN if it cannot be (INIT); or another negative errno. */
static int run_to_end(struct kvm_vcpu *kv, struct kvm_stub_call *c)
{
    struct kvm_run *run = kv->run;

    for (unsigned i = 0; i < MAX_EXITS; i++) {
        int r = c->halted ? kvm_enter(kv) : kvm_enter_bounded(kv);

        if (r < 0)
            return r;
        if (r == KVM_ENTER_NOT || (r == KVM_ENTER_INTERRUPTED && (c->halted || !runnable(kv))))
            return -EAGAIN;
        if (r == KVM_ENTER_INTERRUPTED)
            continue;
        if (at_end(run))
            return 0;
        switch (run->exit_reason) {
        case KVM_EXIT_MMIO:
        case KVM_EXIT_IO:
            nobody(run, c);
            break;
        case KVM_EXIT_IOAPIC_EOI:
            c->eoi_vector = run->eoi.vector;
            c->eoi = true;
            break;
        case KVM_EXIT_IRQ_WINDOW_OPEN:
        case KVM_EXIT_SET_TPR:
        case KVM_EXIT_INTR:
            break;
        default:
            return -EAGAIN;
        }
    }
    return -EAGAIN;
}

/* Completes the read at the end, and takes the results. */
static int finish(struct kvm_vcpu *kv, struct kvm_stub_call *c)
{
    struct kvm_regs regs;
    int r;

    __atomic_store_n(&kv->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    r = ioctl(kv->fd, KVM_RUN, 0) < 0 && errno != EINTR ? -errno : 0;
    if (r >= 0)
        r = kvm_ioctl_p(kv->fd, KVM_GET_REGS, &regs);
    if (r < 0)
        return r;
    uint64_t handler = regs.rip - HANDLER_LEN - (STUB_GPA + HANDLERS);
    c->vector = handler < VECTORS * HANDLER_LEN ? (int)(handler / HANDLER_LEN) : -1;
    if (c->vector < 0 && regs.rip - (STUB_GPA + CODE) > sizeof(programs))
        return -EAGAIN; /* not where it was sent: an INIT has come */
    c->value = (uint32_t)regs.rax;
    return 0;
}

int kvm_stub_run(struct kvm_vcpu *kv, struct kvm_stub_call *c)
{
    const uint32_t lost = KVM_G_REGS | KVM_G_SREGS | KVM_G_EVENTS;
    int r = kvm_pull(kv, lost | KVM_G_DEBUG);

    if (r)
        return r;
    c->vector = -1;
    c->nobody = c->eoi = c->nmi = false;
    if (kv->pending != KVM_PEND_NONE)
        return VMM_E_STATE; /* KVM is inside of an instruction */
    r = ensure(kv->vcpu->vm);
    if (r >= 0)
        r = make_runnable(kv);
    if (r >= 0) {
        kv->run->kvm_dirty_regs = 0;
        kv->run->request_interrupt_window = 0;
        kv->synced = 0;
        kvm_changed(kv, lost);
        r = give_state(kv, c);
    }
    if (r >= 0)
        r = run_to_end(kv, c);
    if (r >= 0)
        r = finish(kv, c);
    if (r == -EAGAIN && !c->halted)
        kv->init_came = true;
    if (r < 0) {
        x86_wake(kv->soft.cpu);
        return VMM_E_STATE;
    }
    take_back(kv, c);
    return 0;
}
