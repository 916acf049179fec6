/* SPDX-License-Identifier: BSD-2-Clause */
/* dir_entries.h: how many there are; of /proc/self/fd, the descriptors that are open (and three).
 */
#ifndef DIR_ENTRIES_H
#define DIR_ENTRIES_H

#include <check.h>
#include <dirent.h>

static inline unsigned dir_entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned n = 0;

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

#endif
