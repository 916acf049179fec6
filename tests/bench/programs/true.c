/* SPDX-License-Identifier: BSD-2-Clause */
/* Does nothing, well: what "kernel spawn" executes. */
int main(void)
{
    return 0;
}
