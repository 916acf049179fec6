/* SPDX-License-Identifier: BSD-2-Clause */
/* core/record.h: the record of what the current instruction has already done outside the CPU. */
#ifndef CORE_RECORD_H
#define CORE_RECORD_H

#include "core/internal.h"

/*
 * An instruction that must wait for the program or another thread is aborted and executed again
 * from its start. The record answers what it did before the abort (MMIO, ports, MSRs, CPUID), so
 * that each effect happens once. Entries are in the order of execution.
 */
enum record_state {
    RECORD_DONE,  /* `value` is the answer */
    RECORD_EXIT,  /* the program has to give the answer */
    RECORD_DEFER, /* mmio_complete has to */
};

static inline uint32_t core_record_key(enum core_answer kind, bool write, uint32_t size,
                                       uint64_t address)
{
    return (uint32_t)kind | (uint32_t)write << 3 | size << 4 | (uint32_t)address << 8;
}

static inline uint32_t core_record_size(uint32_t key)
{
    return key >> 4 & 15;
}

/* The entry that the next access of instruction `serial` meets, or NULL if it has to be made. The
 * caller compares the key, then calls core_record_skip, or core_record_cut if it is another. */
static inline struct core_record_entry *core_record_next(struct vcpu *vcpu, uint64_t serial)
{
    struct core_record *rec = &vcpu->record;

    if (rec->serial != serial) {
        rec->serial = serial;
        rec->n = 0;
        rec->pos = 0;
    }
    return rec->pos < rec->n ? &rec->e[rec->pos] : NULL;
}

static inline void core_record_skip(struct vcpu *vcpu)
{
    vcpu->record.pos++;
}

/* The restarted instruction goes another way from here on. */
static inline void core_record_cut(struct vcpu *vcpu)
{
    vcpu->record.n = vcpu->record.pos;
}

/* Adds an access behind the last; NULL if the record is full: no instruction needs as many, but if
 * one did, its last accesses could not wait. */
static inline struct core_record_entry *core_record_add(struct vcpu *vcpu, uint32_t key,
                                                        enum record_state state, uint64_t value)
{
    struct core_record *rec = &vcpu->record;
    struct core_record_entry *e;

    if (rec->n == CORE_RECORD_MAX)
        return NULL;
    e = &rec->e[rec->n++];
    rec->pos = rec->n;
    e->key = key;
    e->state = state;
    e->value = value;
    return e;
}

/* The instruction will start again. */
static inline int core_record_abort(struct vcpu *vcpu)
{
    vcpu->record.pos = 0;
    return CORE_IO_ABORT;
}

#endif
