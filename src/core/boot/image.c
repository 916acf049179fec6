/* SPDX-License-Identifier: BSD-2-Clause */
/* image.c: reading an image file into memory. */
#include <vmm/boot.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_DEFAULT_MAX (1ull << 30)

static int image_fail(struct vmm_error *err, int code, int os_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int image_fail(struct vmm_error *err, int code, int os_errno, const char *format, ...)
{
    struct vmm_error full;
    va_list args;

    if (!err || err->size < sizeof(full.size))
        return code;
    memset(&full, 0, sizeof(full));
    full.size = err->size;
    full.code = code;
    full.os_errno = os_errno;
    snprintf(full.op, sizeof(full.op), "vmm_image_load");
    va_start(args, format);
    vsnprintf(full.text, sizeof(full.text), format, args);
    va_end(args);
    memcpy(err, &full, err->size < sizeof(full) ? err->size : sizeof(full));
    return code;
}

static int code_of_errno(int os_errno)
{
    switch (os_errno) {
    case ENOENT:
    case ENOTDIR:
        return VMM_E_NOENT;
    case EACCES:
    case EPERM:
        return VMM_E_PERM;
    case ENOMEM:
        return VMM_E_NOMEM;
    default:
        return VMM_E_IO;
    }
}

/* Reads until `len` bytes are there or the file ends; returns the count or -1. A mapping would
 * be cheaper but kills the process with SIGBUS when somebody truncates the file. */
static int64_t read_all(int fd, uint8_t *data, uint64_t len)
{
    uint64_t done = 0;

    while (done < len) {
        uint64_t want = len - done < 1u << 30 ? len - done : 1u << 30;
        ssize_t got = read(fd, data + done, want);

        if (got == 0)
            break;
        if (got > 0)
            done += (uint64_t)got;
        else if (errno != EINTR)
            return -1;
    }
    return (int64_t)done;
}

/* One allocation holds the bytes, then the name. */
static int load_fd(int fd, const char *path, uint64_t max, struct vmm_image *image,
                   struct vmm_error *err)
{
    size_t name_len = strlen(path) + 1;
    struct stat st;
    uint64_t len;
    uint8_t *data;
    int64_t got;

    if (fstat(fd, &st) != 0)
        return image_fail(err, VMM_E_IO, errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return image_fail(err, VMM_E_IO, S_ISDIR(st.st_mode) ? EISDIR : 0,
                          S_ISDIR(st.st_mode) ? "%s is a directory" : "%s is not a regular file",
                          path);
    len = (uint64_t)st.st_size;
    if (len == 0)
        return image_fail(err, VMM_E_IO, 0, "%s is empty", path);
    if (len > max || len > SIZE_MAX - name_len)
        return image_fail(err, VMM_E_LIMIT, 0, "%s has %" PRIu64 " bytes, the limit is %" PRIu64,
                          path, len, max);
    data = malloc((size_t)len + name_len);
    if (!data)
        return image_fail(err, VMM_E_NOMEM, ENOMEM, "no memory for the %" PRIu64 " bytes of %s",
                          len, path);
    got = read_all(fd, data, len);
    if (got < 0 || (uint64_t)got != len) {
        int os_errno = got < 0 ? errno : 0;

        free(data);
        if (os_errno)
            return image_fail(err, code_of_errno(os_errno), os_errno, "%s: %s", path,
                              strerror(os_errno));
        return image_fail(err, VMM_E_IO, 0,
                          "%s ended after %" PRId64 " of %" PRIu64 " bytes: it shrank", path, got,
                          len);
    }
    memcpy(data + len, path, name_len);
    image->data = data;
    image->len = len;
    image->name = (const char *)(data + len);
    return 0;
}

int vmm_image_load(const char *path, uint64_t max, struct vmm_image *image, struct vmm_error *err)
{
    int fd, result;

    if (!path || !image)
        return image_fail(err, VMM_E_INVAL, 0, "path and image must not be NULL");
    *image = (struct vmm_image){.size = sizeof(*image)};
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. It has no effect on regular files. */
    do
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return image_fail(err, code_of_errno(errno), errno, "%s: %s", path, strerror(errno));
    result = load_fd(fd, path, max ? max : IMAGE_DEFAULT_MAX, image, err);
    close(fd);
    return result;
}

void vmm_image_free(struct vmm_image *image)
{
    if (!image)
        return;
    free((void *)(uintptr_t)image->data);
    *image = (struct vmm_image){.size = sizeof(*image)};
}
