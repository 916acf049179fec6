/* SPDX-License-Identifier: BSD-2-Clause */
/* core/error.c: result codes, error detail, and the copying of versioned structs. */
#include <stdio.h>

#include "core/internal.h"

const char *vmm_err_name(int err)
{
    switch (err) {
    case VMM_OK:
        return "VMM_OK";
#define NAME(name, value, text)                                                                    \
    case VMM_E_##name:                                                                             \
        return "VMM_E_" #name;
        VMM_ERRORS(NAME)
#undef NAME
    default:
        return "VMM_E_?";
    }
}

const char *vmm_strerror(int err)
{
    switch (err) {
    case VMM_OK:
        return "no error";
#define TEXT(name, value, text)                                                                    \
    case VMM_E_##name:                                                                             \
        return text;
        VMM_ERRORS(TEXT)
#undef TEXT
    default:
        return "unknown error";
    }
}

const char *vmm_exit_name(uint32_t reason)
{
    switch (reason) {
#define NAME(name, value)                                                                          \
    case VMM_EXIT_##name:                                                                          \
        return #name;
        VMM_EXITS(NAME)
#undef NAME
    default:
        return "?";
    }
}

/* ---- versioned structs ---- */

void core_copy_out(void *caller, const void *own, uint32_t own_size)
{
    uint32_t size;

    __builtin_memcpy(&size, caller, sizeof(size));
    memcpy(caller, own, size < own_size ? size : own_size);
    if (size > own_size) /* members of a later version */
        memset((char *)caller + own_size, 0, size - own_size);
    __builtin_memcpy(caller, &size, sizeof(size));
}

int core_copy_in(void *own, uint32_t own_size, const void *caller, uint32_t min)
{
    uint32_t size;

    memset(own, 0, own_size);
    if (!caller)
        return VMM_E_INVAL;
    memcpy(&size, caller, sizeof(size));
    if (size < min || size > CORE_STRUCT_MAX)
        return VMM_E_INVAL;
    for (uint32_t i = own_size; i < size; i++)
        if (((const uint8_t *)caller)[i])
            return VMM_E_UNSUPPORTED;
    memcpy(own, caller, size < own_size ? size : own_size);
    memcpy(own, &own_size, sizeof(own_size));
    return 0;
}

/* ---- detail of the last failure ---- */

static void copy_string(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from ? from : "");
}

void core_error_set(struct vmm_error *error, int code, int os_errno, const char *backend,
                    const char *op, const char *format, va_list ap)
{
    memset(error, 0, sizeof(*error));
    error->size = sizeof(*error);
    error->code = code;
    error->os_errno = os_errno;
    copy_string(error->backend, sizeof(error->backend), backend);
    copy_string(error->op, sizeof(error->op), op);
    vsnprintf(error->text, sizeof(error->text), format, ap);
}

/* Records the failure; `flags` says whether it is about `gpa`. */
static int fail(struct vm *vm, int code, int os_errno, const char *op, uint32_t flags, uint64_t gpa,
                const char *format, va_list ap)
{
    struct vmm_error error;

    core_error_set(&error, code, os_errno, vm->ops->name, op, format, ap);
    error.flags = flags;
    error.gpa = gpa;
    os_mutex_lock(&vm->error_lock);
    vm->error = error;
    os_mutex_unlock(&vm->error_lock);
    return code;
}

int vm_fail(struct vm *vm, int code, const char *op, const char *format, ...)
{
    va_list ap;

    if (!vm)
        return code;
    va_start(ap, format);
    fail(vm, code, 0, op, 0, 0, format, ap);
    va_end(ap);
    return code;
}

int core_fail_os(struct vm *vm, int code, const char *op, int os_errno, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fail(vm, code, os_errno, op, 0, 0, format, ap);
    va_end(ap);
    return code;
}

int core_fail_gpa(struct vm *vm, int code, const char *op, uint64_t gpa, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fail(vm, code, 0, op, VMM_ERROR_HAS_GPA, gpa, format, ap);
    va_end(ap);
    return code;
}

void vm_last_error(struct vm *vm, struct vmm_error *err)
{
    struct vmm_error copy;

    if (!vm || !err || err->size < sizeof(err->size) + sizeof(err->code))
        return;
    os_mutex_lock(&vm->error_lock);
    copy = vm->error;
    os_mutex_unlock(&vm->error_lock);
    core_copy_out(err, &copy, sizeof(copy));
}

const char *vm_lockstep_report(struct vm *vm)
{
    const char *report;

    if (!vm)
        return NULL;
    os_mutex_lock(&vm->error_lock);
    report = vm->lockstep_report;
    os_mutex_unlock(&vm->error_lock);
    return report;
}
