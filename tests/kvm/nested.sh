#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# nested.sh [-c CPUS] [-t SECONDS] [-o LOG] FILE... -- COMMAND: runs a shell command on another KVM
# than the machine's: that of a Debian kernel in QEMU, whose software CPU has AMD's virtualization.
#
# The files, and the libraries that programs among them need, are in the command's current
# directory, by their base names. Prints what the command prints; if the command leaves a file `log`
# there, it becomes LOG. Exit status: the command's; 77 if something that is needed is not here; 1 if
# the machine in QEMU does not come to an end, SECONDS (default 600) being for all attempts together.
#
# QEMU's SVM has defects that end the machine, or make it stand still, the outer kernel with it: no
# program in it can be the cause of that. It is started again then, twice at most, and each time is
# told, with the last lines that the machine has printed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
cpus=1 seconds=600 out=
while getopts c:t:o: option; do
    case $option in
    c) cpus=$OPTARG ;;
    t) seconds=$OPTARG ;;
    o) out=$OPTARG ;;
    *) exit 1 ;;
    esac
done
shift $((OPTIND - 1))

skip() {
    echo "skipped: $*"
    exit 77
}
for tool in qemu-system-x86_64 cpio; do
    command -v $tool >/dev/null || skip "needs $tool"
done
export VMM_GUESTS=${VMM_GUESTS:-$(cd "$here/../.." && pwd)/guests}
"$here/../boot/fetch.sh" busybox kvm >/dev/null || skip "the guest cannot be fetched"

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree"/{bin,dev,proc,sys,tmp,test}
cp "$VMM_GUESTS/busybox/busybox" "$tree/bin/"
for command in $("$tree/bin/busybox" --list); do
    [ "$command" = busybox ] || ln -s busybox "$tree/bin/$command"
done
cp "$VMM_GUESTS"/kvm/*.ko "$tree/"
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    cp "$1" "$tree/test/" || exit 1
    # Libraries and the dynamic linker keep their paths.
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [ -e "$tree$library" ] && continue
        mkdir -p "$tree$(dirname "$library")"
        cp -L "$library" "$tree$library"
    done
    shift
done
[ $# -gt 1 ] || { echo "nested.sh: no command" >&2; exit 1; }
shift
printf '%s\n' "$*" >"$tree/command"
cat >"$tree/init" <<'END'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
for module in irqbypass kvm kvm-amd; do
    insmod /$module.ko
done
cd /test
echo "nested begin"
sh /command 2>&1
status=$?
[ -f log ] && echo "nested log" && cat log
echo "nested status $status"
poweroff -f
END
chmod 755 "$tree/init"
(cd "$tree" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$work/initrd"

# Seconds of CPU time that a process has used.
cpu_time() {
    awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print int(($12 + $13) / hz) }' "/proc/$1/stat" 2>/dev/null
}

# no_timer_check: where QEMU gets little time, Linux takes late timer interrupts for broken wiring.
# Starts the machine and waits for its end. False: it stands still, or its time is up; `why` tells.
run_machine() {
    local since=$SECONDS size=0 cpu=0 now used
    rm -f "$work/console"
    qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu max -smp "$cpus" -m 2048 -nodefaults \
        -display none -serial "file:$work/console" -no-reboot -kernel "$VMM_GUESTS/kvm/vmlinuz" \
        -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check" \
        </dev/null >"$work/qemu" 2>&1 &
    qemu=$!
    while kill -0 $qemu 2>/dev/null; do
        sleep 0.5
        now=$(stat -c %s "$work/console" 2>/dev/null || echo 0)
        used=$(cpu_time $qemu)
        if [ "$now" != "$size" ] || [ $((${used:-0} - cpu)) -ge 4 ]; then
            size=$now cpu=${used:-0} since=$SECONDS
        fi
        if [ $SECONDS -ge $end ]; then
            why="has not come to an end in $seconds seconds"
        elif [ $((SECONDS - since)) -ge 45 ]; then
            why="stands still"
        else
            continue
        fi
        kill $qemu
        wait $qemu 2>/dev/null
        qemu=
        return 1
    done
    wait $qemu
    why="has ended with status $? of QEMU, but without a result"
    qemu=
    return 0
}

end=$((SECONDS + seconds)) qemu=
trap '[ -z "$qemu" ] || kill $qemu; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
for attempt in 1 2 3; do
    run_machine && grep -q '^nested status [0-9]' "$work/console" && break
    echo "the machine in QEMU $why (attempt $attempt); its last lines:"
    cat "$work/console" "$work/qemu" 2>/dev/null | sed 's/\r//g' | tail -n 40 | sed 's/^/| /'
    [ $SECONDS -lt $end ] || break
done
sed -n 's/\r//g; /nested begin/,$p' "$work/console" >"$work/log"
status=$(sed -n 's/^nested status //p' "$work/log")
# First what failed: the rest may be long.
[ "$status" = 0 ] || grep FAILED "$work/log"
sed '/^nested begin$/d; /^nested log$/,/^nested status /d; /^nested status /d; /reboot: Power down$/d' \
    "$work/log"
cat "$work/qemu"
[ -n "$status" ] || { echo "nested.sh: FAILED: the machine $why"; exit 1; }
[ -z "$out" ] || sed -n '/^nested log$/,/^nested status /p' "$work/log" | sed '1d; $d' >"$out"
exit "$status"
