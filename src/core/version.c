/* SPDX-License-Identifier: BSD-2-Clause */
/* core/version.c: the version of the library. */
#include <vmm/base.h>

#define STRING(x)  #x
#define VERSION(x) STRING(x)

uint32_t vmm_version(void)
{
    return VMM_VERSION_MAJOR << 16 | VMM_VERSION_MINOR << 8 | VMM_VERSION_PATCH;
}

const char *vmm_version_string(void)
{
    return VERSION(VMM_VERSION_MAJOR) "." VERSION(VMM_VERSION_MINOR) "." VERSION(VMM_VERSION_PATCH);
}
