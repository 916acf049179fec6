/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/sys.c: system calls of the KVM engine, and what their failures are called. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backends/kvm/kvm.h"
#include "core/internal.h"

int kvm_ioctl(int fd, unsigned long request, uintptr_t arg)
{
    int r;

    do
        r = ioctl(fd, request, arg);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

int kvm_open(int *result)
{
    int fd, version, err;

    do
        fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        err = errno;
        *result = kvm_error(err);
        return -err;
    }
    version = kvm_ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version == KVM_API_VERSION) {
        *result = VMM_OK;
        return fd;
    }
    close(fd);
    err = version < 0 ? -version : ENOTSUP;
    *result = err == ENOTTY ? VMM_E_NODEV : kvm_error(err);
    return -err;
}

int kvm_error(int os_errno)
{
    switch (os_errno) {
    case 0:
        return VMM_OK;
    case ENOMEM:
    case EAGAIN: /* of mmap and of thread creation: a limit of memory or of processes */
        return VMM_E_NOMEM;
    case EACCES:
    case EPERM:
        return VMM_E_PERM;
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return VMM_E_NODEV;
    case EMFILE:
    case ENFILE:
    case ENOSPC:
    case E2BIG:
        return VMM_E_LIMIT;
    case ENOTTY:
    case ENOSYS:
    case ENOTSUP:
        return VMM_E_UNSUPPORTED;
    case EEXIST:
        return VMM_E_EXIST;
    case EBUSY:
        return VMM_E_BUSY;
    default:
        return VMM_E_BACKEND;
    }
}

int kvm_fail(struct vm *vm, const char *op, int negative_errno, const char *what)
{
    int err = -negative_errno;
    char text[96];

    if (strerror_r(err, text, sizeof(text)))
        strcpy(text, "unknown error");
    return core_fail_os(vm, kvm_error(err), op, err, "%s: %s", what, text);
}

/* ---- MSRs ---- */

/* struct kvm_msrs with room for one. */
struct one_msr {
    struct {
        uint32_t nmsrs, pad;
    } head;
    struct kvm_msr_entry e[1];
};
_Static_assert(offsetof(struct one_msr, e) == sizeof(struct kvm_msrs), "KVM's layout");

bool kvm_get_one_msr(int fd, uint32_t index, uint64_t *value)
{
    struct one_msr m = {.head.nmsrs = 1, .e[0].index = index};

    if (kvm_ioctl_p(fd, KVM_GET_MSRS, &m) != 1)
        return false;
    *value = m.e[0].data;
    return true;
}

bool kvm_set_one_msr(int fd, uint32_t index, uint64_t value)
{
    struct one_msr m = {.head.nmsrs = 1, .e[0] = {.index = index, .data = value}};

    return kvm_ioctl_p(fd, KVM_SET_MSRS, &m) == 1;
}
