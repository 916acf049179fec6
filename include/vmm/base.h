/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/base.h: versions, result codes and error detail; what every other header needs. */
#ifndef VMM_BASE_H
#define VMM_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMM_VERSION_MAJOR 0
#define VMM_VERSION_MINOR 1
#define VMM_VERSION_PATCH 0

/*
 * Conventions of all headers
 *
 * Results: functions return 0 or a negative VMM_E_*. A guest can never cause a negative result:
 * results report the library, exits report the guest.
 *
 * Structs: each public struct that the caller fills begins with `uint32_t size`, set to
 * sizeof(struct ...). Structs only grow at the end; zero means default; a non-zero byte beyond
 * what the library knows is rejected with VMM_E_UNSUPPORTED. Structs that the library fills are
 * filled up to the caller's `size`.
 *
 * NULL for an object is never a crash: VMM_E_INVAL, or nothing is done and 0 or NULL returned.
 *
 * Ownership: "borrowed" (the caller keeps it alive until the moment named), "given" (the library
 * frees it), "copied" (the caller may free it at once).
 *
 * Thread classes: ANY (any thread, any time), ANY+SIG (also from a signal handler), OWNER (one
 * thread at a time per vCPU: the one that calls vcpu_run), QUIET (no vCPU of the VM may be inside
 * vcpu_run, else VMM_E_BUSY). A callback runs on the thread that caused it, with no library lock
 * held, and may call every function of class ANY.
 */

/* One list for enum, names and texts. The values are the library's own, not errno's. */
#define VMM_ERRORS(X)                                                                              \
    X(INVAL, 1, "invalid argument")                                                                \
    X(NOMEM, 2, "out of memory")                                                                   \
    X(BUSY, 3, "object is in use")                                                                 \
    X(EXIST, 4, "already exists or overlaps")                                                      \
    X(NOENT, 5, "no such object")                                                                  \
    X(RANGE, 6, "address or value out of range")                                                   \
    X(UNSUPPORTED, 7, "not supported by this build or backend")                                    \
    X(NODEV, 8, "no usable backend")                                                               \
    X(PERM, 9, "permission denied by the host")                                                    \
    X(IO, 10, "host input/output error")                                                           \
    X(FORMAT, 11, "malformed image")                                                               \
    X(TRUNCATED, 12, "image is shorter than its headers say")                                      \
    X(LIMIT, 13, "a configured or built-in limit was reached")                                     \
    X(STATE, 14, "not possible in the current state")                                              \
    X(NOSPACE, 15, "does not fit into guest memory or the given buffer")                           \
    X(BACKEND, 16, "the backend failed")                                                           \
    X(INTERNAL, 17, "internal error")

enum vmm_err {
    VMM_OK = 0,
#define VMM_ERR_ENUM(name, value, text) VMM_E_##name = -(value),
    VMM_ERRORS(VMM_ERR_ENUM)
#undef VMM_ERR_ENUM
};

/* Name of a result, "VMM_E_NOMEM"; "VMM_E_?" for an unknown one. Never NULL. ANY+SIG. */
const char *vmm_err_name(int err);

/* English text of a result. Never NULL; static storage. ANY+SIG. */
const char *vmm_strerror(int err);

#define VMM_ERROR_HAS_GPA 1u
#define VMM_ERROR_HAS_RIP 2u

/* Detail of the last failure of an object; filled by vm_last_error and by vm_create. */
struct vmm_error {
    uint32_t size;
    int32_t code;     /* VMM_E_*, 0 if nothing failed yet */
    int32_t os_errno; /* the host's errno, 0 if none is behind it */
    uint32_t flags;   /* VMM_ERROR_HAS_* */
    uint64_t gpa;
    uint64_t rip;
    char backend[16];
    char op[32];    /* the public function that failed */
    char text[256]; /* one sentence, with the values that matter */
};

/* Version of the library that is linked: (major << 16) | (minor << 8) | patch. ANY+SIG. */
uint32_t vmm_version(void);

/* The same as a string, "0.1.0". ANY+SIG. */
const char *vmm_version_string(void);

#ifdef __cplusplus
}
#endif
#endif
