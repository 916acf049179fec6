/* SPDX-License-Identifier: BSD-2-Clause */
/* fw_cfg.c: QEMU's firmware configuration device (QEMU, docs/specs/fw_cfg.rst) on I/O ports.
 *
 * Items are bytes under a 16-bit key; files are items from key 0x20 on that the directory, itself
 * an item, lists in big-endian form. Items are the program's and read-only for the guest. The lock
 * is not held while guest memory is accessed: a transfer copies piece by piece. */
#include <pthread.h>
#include <stdlib.h>

#include <vmm/memory.h>

#include "device.h"

/* Selector (16 bits, little-endian), and data (8 bits). */
enum { REG_SELECTOR = 0, REG_DATA = 1, REGS = 2 };

/* DMA address, big-endian: high half, low half, which starts the transfer. */
enum { DMA_HIGH = 0, DMA_LOW = 4, DMA_REGS = 8 };

#define FW_CFG_PORT 0x510
#define DMA_PORT    0x514

#define ID_TRADITIONAL 1u
#define ID_DMA         2u

#define KEY_WRITE_CHANNEL 0x4000u /* of old; ignored when selecting is all that matters */
#define KEY_FILE_FIRST    0x20u
#define KEY_FILE_END      0x1000u

#define FILE_NAME  56u
#define DIR_HEADER 4u
#define DIR_ENTRY  64u

/* Control word of a transfer. */
#define DMA_ERROR       0x01u
#define DMA_READ        0x02u
#define DMA_SKIP        0x04u
#define DMA_SELECT      0x08u
#define DMA_WRITE       0x10u
#define DMA_KEY_SHIFT   16
#define DMA_DESCRIPTOR  16u /* bytes: control, length, address */
#define DMA_PIECE       4096u
#define DMA_MAX_PADDING 0x1000000u /* zeros past the end of an item; beyond is an error */
static const uint8_t dma_signature[DMA_REGS] = "QEMU CFG";

struct item {
    struct item *next;
    uint16_t key;
    char name[FILE_NAME]; /* empty: not a file */
    uint32_t len;
    uint8_t *data;
};

struct vmm_fw_cfg {
    struct vm *vm;
    pthread_mutex_t lock;
    struct pio *pio, *dma_pio;
    struct item *items; /* in the order of their keys */
    uint16_t next_file;
    uint16_t key; /* selected */
    uint32_t offset;
    uint32_t dma_high;
};

static uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* ---- Items ---- */

/* Where the item with this key is linked, or would be. */
static struct item **find_key(struct vmm_fw_cfg *fw, uint16_t key)
{
    struct item **link = &fw->items;

    while (*link && (*link)->key < key)
        link = &(*link)->next;
    return link;
}

static struct item *item_of(struct vmm_fw_cfg *fw, uint16_t key)
{
    struct item *item = *find_key(fw, key);

    return item && item->key == key ? item : NULL;
}

static struct item *find_name(struct vmm_fw_cfg *fw, const char *name)
{
    for (struct item *item = fw->items; item; item = item->next)
        if (item->name[0] && !strcmp(item->name, name))
            return item;
    return NULL;
}

static struct item *item_new(const void *data, uint32_t len)
{
    struct item *item = calloc(1, sizeof *item);

    if (!item)
        return NULL;
    item->data = malloc(len ? len : 1);
    if (!item->data) {
        free(item);
        return NULL;
    }
    if (len)
        memcpy(item->data, data, len);
    item->len = len;
    return item;
}

static void item_free(struct item *item)
{
    if (item)
        free(item->data);
    free(item);
}

/* Links the item at its key; returns the one that it replaces. */
static struct item *item_insert(struct vmm_fw_cfg *fw, struct item *item)
{
    struct item **link = find_key(fw, item->key), *old = *link;

    if (old && old->key != item->key)
        old = NULL;
    item->next = old ? old->next : *link;
    *link = item;
    return old;
}

/* An empty directory for `n` files. */
static struct item *dir_new(uint32_t n)
{
    struct item *dir = calloc(1, sizeof *dir);

    if (!dir)
        return NULL;
    dir->key = VMM_FW_CFG_FILE_DIR;
    dir->len = DIR_HEADER + n * DIR_ENTRY;
    dir->data = calloc(1, dir->len);
    if (dir->data)
        return dir;
    free(dir);
    return NULL;
}

static void dir_fill(struct vmm_fw_cfg *fw, struct item *dir)
{
    uint8_t *p = dir->data + DIR_HEADER;

    put_be32(dir->data, (dir->len - DIR_HEADER) / DIR_ENTRY);
    for (const struct item *i = fw->items; i; i = i->next) {
        if (!i->name[0])
            continue;
        put_be32(p, i->len);
        p[4] = (uint8_t)(i->key >> 8);
        p[5] = (uint8_t)i->key;
        memcpy(p + 8, i->name, FILE_NAME);
        p += DIR_ENTRY;
    }
}

static int is_valid_key(uint16_t key)
{
    return (key & ~0x8000u) < KEY_FILE_FIRST && key != VMM_FW_CFG_FILE_DIR;
}

int vmm_fw_cfg_add(struct vmm_fw_cfg *fw, uint16_t key, const void *data, uint32_t len)
{
    struct item *item, *old;

    if (!fw)
        return VMM_E_INVAL;
    if (!is_valid_key(key))
        return vm_fail(fw->vm, VMM_E_RANGE, "vmm_fw_cfg_add", "key %#x is not for fixed items",
                       key);
    if (!data && len)
        return vm_fail(fw->vm, VMM_E_INVAL, "vmm_fw_cfg_add", "no data");
    item = item_new(data, len);
    if (!item)
        return vm_fail(fw->vm, VMM_E_NOMEM, "vmm_fw_cfg_add", "no memory for %u bytes", len);
    item->key = key;
    pthread_mutex_lock(&fw->lock);
    old = item_insert(fw, item);
    pthread_mutex_unlock(&fw->lock);
    item_free(old);
    return 0;
}

/* Under the lock: gives the file its key, inserts it and the new directory. Files are never
 * removed, so the keys in use tell how many there are. */
static int insert_file(struct vmm_fw_cfg *fw, struct item *file, struct item *old[2])
{
    struct item *same = find_name(fw, file->name), *dir;

    if (!same && fw->next_file == KEY_FILE_END)
        return VMM_E_LIMIT;
    dir = dir_new(fw->next_file - KEY_FILE_FIRST + !same);
    if (!dir)
        return VMM_E_NOMEM;
    file->key = same ? same->key : fw->next_file++;
    old[0] = item_insert(fw, file);
    dir_fill(fw, dir);
    old[1] = item_insert(fw, dir);
    return 0;
}

int vmm_fw_cfg_add_file(struct vmm_fw_cfg *fw, const char *name, const void *data, uint32_t len)
{
    struct item *file, *old[2] = {NULL, NULL};
    int r;

    if (!fw)
        return VMM_E_INVAL;
    if (!name || !name[0] || (!data && len))
        return vm_fail(fw->vm, VMM_E_INVAL, "vmm_fw_cfg_add_file", "no name or no data");
    if (strlen(name) >= FILE_NAME)
        return vm_fail(fw->vm, VMM_E_RANGE, "vmm_fw_cfg_add_file", "name too long: %.60s", name);
    file = item_new(data, len);
    if (!file)
        return vm_fail(fw->vm, VMM_E_NOMEM, "vmm_fw_cfg_add_file", "no memory for %u bytes", len);
    strcpy(file->name, name);
    pthread_mutex_lock(&fw->lock);
    r = insert_file(fw, file, old);
    pthread_mutex_unlock(&fw->lock);
    item_free(old[0]);
    item_free(old[1]);
    if (!r)
        return 0;
    item_free(file);
    return vm_fail(fw->vm, r, "vmm_fw_cfg_add_file", "cannot add %s: %s", name,
                   r == VMM_E_LIMIT ? "too many files" : "no memory");
}

/* ---- Selecting and reading ---- */

static void fw_select(struct vmm_fw_cfg *fw, uint16_t key)
{
    fw->key = key & (uint16_t)~KEY_WRITE_CHANNEL;
    fw->offset = 0;
}

/* Bytes of the selected item from the offset on, at most `max`; the offset moves past them. */
static uint32_t fw_take(struct vmm_fw_cfg *fw, uint8_t *buf, uint32_t max)
{
    const struct item *item = item_of(fw, fw->key);
    uint32_t n = 0;

    if (item && fw->offset < item->len)
        n = item->len - fw->offset < max ? item->len - fw->offset : max;
    if (n && buf)
        memcpy(buf, item->data + fw->offset, n);
    fw->offset += n;
    return n;
}

static int fw_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_fw_cfg *fw = opaque;
    uint8_t byte = 0;

    if (offset != REG_DATA || size != 1)
        return VMM_IO_NOBODY; /* the selector cannot be read */
    pthread_mutex_lock(&fw->lock);
    fw_take(fw, &byte, 1);
    pthread_mutex_unlock(&fw->lock);
    *value = byte;
    return VMM_IO_OK;
}

static int fw_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_fw_cfg *fw = opaque;

    if (offset != REG_SELECTOR || size != 2)
        return VMM_IO_OK; /* data is not written this way since QEMU 2.4 */
    pthread_mutex_lock(&fw->lock);
    fw_select(fw, (uint16_t)value);
    pthread_mutex_unlock(&fw->lock);
    return VMM_IO_OK;
}

/* ---- DMA ---- */

/* Writes what the guest itself could write: not ROM, which may even be read-only to the host. */
static int guest_write(struct vm *vm, uint64_t gpa, const void *buf, uint32_t len)
{
    uint64_t at = gpa, start, size;
    uint32_t prot;

    if (gpa + len < gpa)
        return VMM_E_RANGE;
    for (uint32_t i = 0; at < gpa + len; i++) {
        if (vm_mem_region(vm, i, &start, &size, &prot))
            return VMM_E_RANGE;
        if (start <= at && at - start < size) {
            if (!(prot & VMM_MEM_W))
                return VMM_E_RANGE;
            at = start + size;
        }
    }
    return vm_mem_write(vm, gpa, buf, len);
}

static int dma_fill(struct vmm_fw_cfg *fw, uint64_t gpa, uint32_t len)
{
    static const uint8_t zeros[DMA_PIECE];
    int r = len > DMA_MAX_PADDING ? VMM_E_LIMIT : 0;

    while (!r && len) {
        uint32_t n = len < DMA_PIECE ? len : DMA_PIECE;
        r = guest_write(fw->vm, gpa, zeros, n);
        gpa += n;
        len -= n;
    }
    return r;
}

static int dma_read(struct vmm_fw_cfg *fw, uint64_t gpa, uint32_t len)
{
    uint8_t piece[DMA_PIECE];

    while (len) {
        uint32_t n;
        int r;

        pthread_mutex_lock(&fw->lock);
        n = fw_take(fw, piece, len < DMA_PIECE ? len : DMA_PIECE);
        pthread_mutex_unlock(&fw->lock);
        if (!n)
            return dma_fill(fw, gpa, len);
        r = guest_write(fw->vm, gpa, piece, n);
        if (r)
            return r;
        gpa += n;
        len -= n;
    }
    return 0;
}

/* Executes the descriptor at `gpa`; its control word becomes zero or the error bit. An
 * unreachable descriptor cannot even be told so. */
static void dma_run(struct vmm_fw_cfg *fw, uint64_t gpa)
{
    uint8_t d[DMA_DESCRIPTOR];
    uint32_t control, len;
    uint64_t address;
    int failed = 0;

    if (gpa > UINT64_MAX - sizeof d)
        return;
    if (vm_mem_read(fw->vm, gpa, d, sizeof d)) {
        put_be32(d, DMA_ERROR);
        guest_write(fw->vm, gpa, d, 4); /* the control word at least may be memory */
        return;
    }
    control = get_be32(d);
    len = get_be32(d + 4);
    address = (uint64_t)get_be32(d + 8) << 32 | get_be32(d + 12);
    if (control & DMA_SELECT) {
        pthread_mutex_lock(&fw->lock);
        fw_select(fw, (uint16_t)(control >> DMA_KEY_SHIFT));
        pthread_mutex_unlock(&fw->lock);
    }
    if (control & DMA_READ) {
        failed = dma_read(fw, address, len);
    } else if (control & DMA_WRITE) {
        failed = len != 0; /* no item is writable */
    } else if (control & DMA_SKIP) {
        pthread_mutex_lock(&fw->lock);
        fw_take(fw, NULL, len);
        pthread_mutex_unlock(&fw->lock);
    }
    put_be32(d, failed ? DMA_ERROR : 0);
    guest_write(fw->vm, gpa, d, 4);
}

static int dma_port_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    *value = 0;
    for (uint32_t i = 0; i < size; i++)
        *value |= (uint64_t)dma_signature[offset + i] << (8 * i);
    return VMM_IO_OK;
}

static int dma_port_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_fw_cfg *fw = opaque;
    uint32_t half = __builtin_bswap32((uint32_t)value);
    uint64_t gpa;

    if (size != 4)
        return VMM_IO_OK;
    pthread_mutex_lock(&fw->lock);
    gpa = (uint64_t)fw->dma_high << 32 | half;
    fw->dma_high = offset == DMA_HIGH ? half : 0;
    pthread_mutex_unlock(&fw->lock);
    if (offset == DMA_LOW)
        dma_run(fw, gpa);
    return VMM_IO_OK;
}

/* ---- Life cycle ---- */

static void fw_reset(void *opaque)
{
    struct vmm_fw_cfg *fw = opaque;

    pthread_mutex_lock(&fw->lock);
    fw_select(fw, VMM_FW_CFG_SIGNATURE);
    fw->dma_high = 0;
    pthread_mutex_unlock(&fw->lock);
}

static void fw_stop(void *opaque)
{
    struct vmm_fw_cfg *fw = opaque;

    pio_unregister(fw->pio);
    pio_unregister(fw->dma_pio);
    while (fw->items) {
        struct item *item = fw->items;
        fw->items = item->next;
        item_free(item);
    }
    pthread_mutex_destroy(&fw->lock);
    free(fw);
}

static int add_own_items(struct vmm_fw_cfg *fw)
{
    static const uint8_t id[4] = {ID_TRADITIONAL | ID_DMA};
    struct item *dir = dir_new(0);
    int r = vmm_fw_cfg_add(fw, VMM_FW_CFG_SIGNATURE, "QEMU", 4);

    if (!dir)
        return vm_fail(fw->vm, VMM_E_NOMEM, "vmm_fw_cfg_create", "no memory");
    item_insert(fw, dir);
    return r ? r : vmm_fw_cfg_add(fw, VMM_FW_CFG_ID, id, sizeof id);
}

int vmm_fw_cfg_create(struct vm *vm, struct vmm_fw_cfg **out)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .max_access = 2,
        .name = "fw_cfg",
        .read = fw_read,
        .write = fw_write,
    };
    static const struct vmm_io_ops dma_io = {
        .size = sizeof dma_io,
        .max_access = 4,
        .name = "fw_cfg-dma",
        .read = dma_port_read,
        .write = dma_port_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "fw_cfg", .reset = fw_reset, .stop = fw_stop};
    struct vmm_fw_cfg *fw = calloc(1, sizeof *fw);
    int r;

    if (!fw)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_fw_cfg_create", "no memory");
    fw->vm = vm;
    fw->next_file = KEY_FILE_FIRST;
    pthread_mutex_init(&fw->lock, NULL);
    r = add_own_items(fw);
    if (!r)
        r = pio_register(vm, FW_CFG_PORT, REGS, &io, fw, &fw->pio);
    if (!r)
        r = pio_register(vm, DMA_PORT, DMA_REGS, &dma_io, fw, &fw->dma_pio);
    if (!r)
        r = vm_device_add(vm, &ops, fw, NULL);
    if (r)
        fw_stop(fw);
    else if (out)
        *out = fw;
    return r;
}
