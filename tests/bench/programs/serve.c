/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs the programs that it is told to on standard input, on the host and as a guest's init alike.
 *
 * A line "NAME ARGUMENT..." is answered by "@end NAME status=N ns=N cpu_ns=N bytes=N hash=X": the
 * time that passed, that of the processor, and length and hash (FNV-1a) of what was printed. "quit"
 * ends it; as process 1 it then turns the machine off. */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 30 };

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t nanoseconds(struct timeval t)
{
    return t.tv_sec * 1000000000LL + t.tv_usec * 1000LL;
}

static void become(char **argv, const int out[2])
{
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out[1], 1);
    close(out[0]);
    close(out[1]);
    execv(argv[0], argv);
    perror(argv[0]);
    _exit(127);
}

static void run(char **argv)
{
    int out[2];
    struct rusage usage;
    int status = 0;
    uint64_t hash = 0xcbf29ce484222325ULL;
    long bytes = 0;
    uint8_t buffer[4096];
    if (pipe(out) != 0)
        exit(1);
    int64_t start = now();
    pid_t child = fork();
    if (child < 0)
        exit(1);
    if (child == 0)
        become(argv, out);
    close(out[1]);
    for (ssize_t n; (n = read(out[0], buffer, sizeof(buffer))) > 0; bytes += n)
        for (ssize_t i = 0; i < n; i++)
            hash = (hash ^ buffer[i]) * 0x100000001b3ULL;
    close(out[0]);
    wait4(child, &status, 0, &usage);
    int64_t end = now();
    printf("@end %s status=%d ns=%" PRId64 " cpu_ns=%" PRId64 " bytes=%ld hash=%016" PRIx64 "\n",
           argv[0], WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), end - start,
           nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime), bytes, hash);
}

/* What an init has to do: file systems, and no echo on the console. */
static void set_up_guest(void)
{
    struct termios terminal;
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mkdir("/dev/shm", 0777);
    setenv("PATH", "/bin:/usr/bin:/sbin:/usr/sbin", 1);
    if (tcgetattr(0, &terminal) == 0) {
        terminal.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(0, TCSANOW, &terminal);
    }
    if (chdir("/bench") != 0)
        perror("/bench");
}

int main(void)
{
    static char line[4096];
    if (getpid() == 1)
        set_up_guest();
    printf("@ready cpus=%ld\n", sysconf(_SC_NPROCESSORS_ONLN));
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        char *argv[MAX_ARGUMENTS + 1], *rest = NULL;
        int argc = 0;
        for (char *word = strtok_r(line, " \r\n", &rest); word != NULL && argc < MAX_ARGUMENTS;
             word = strtok_r(NULL, " \r\n", &rest))
            argv[argc++] = word;
        argv[argc] = NULL;
        if (argc == 0)
            continue;
        if (strcmp(argv[0], "quit") == 0)
            break;
        run(argv);
        fflush(stdout);
    }
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return 0;
}
