#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# nested.sh [-c CPUS] [-t SECONDS] [-o LOG] FILE... -- COMMAND: runs a shell command on another KVM
# than the machine's: that of a Debian kernel in QEMU, whose software CPU has AMD's virtualization.
#
# The files, and the libraries that programs among them need, are in the command's current
# directory, by their base names. Prints what the command prints; if the command leaves a file `log`
# there, it becomes LOG. Exit status: the command's; 77 if something that is needed is not here; 1 if
# the machine in QEMU does not come to an end.
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

# Starts the machine and waits for its end. False: it stands still. With SVM it does now and then, the
# outer kernel with it, which no program in it can be the cause of.
run_machine() {
    local begin=$SECONDS since=$SECONDS size=0 cpu=0 now used
    qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu max -smp "$cpus" -m 2048 -nodefaults \
        -display none -serial "file:$work/console" -no-reboot -kernel "$VMM_GUESTS/kvm/vmlinuz" \
        -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1 mitigations=off" \
        </dev/null >"$work/qemu" 2>&1 &
    local qemu=$!
    while kill -0 $qemu 2>/dev/null; do
        sleep 1
        now=$(stat -c %s "$work/console" 2>/dev/null || echo 0)
        used=$(cpu_time $qemu)
        if [ "$now" != "$size" ] || [ $((${used:-0} - cpu)) -ge 4 ]; then
            size=$now cpu=${used:-0} since=$SECONDS
        fi
        [ $((SECONDS - since)) -lt 45 ] && [ $((SECONDS - begin)) -lt "$seconds" ] && continue
        kill $qemu
        wait $qemu 2>/dev/null
        [ $((SECONDS - begin)) -ge "$seconds" ]
        return
    done
    wait $qemu
    return 0
}

for attempt in 1 2 3; do
    run_machine && break
    echo "the machine in QEMU stands still ($attempt)"
done
sed -n 's/\r//g; /nested begin/,$p' "$work/console" >"$work/log"
sed '/^nested begin$/d; /^nested log$/,/^nested status /d; /^nested status /d; /reboot: Power down$/d' \
    "$work/log"
cat "$work/qemu"
status=$(sed -n 's/^nested status //p' "$work/log")
[ -n "$status" ] || { echo "nested.sh: the machine has stopped, or has not come to an end in $seconds seconds"; exit 1; }
[ -z "$out" ] || sed -n '/^nested log$/,/^nested status /p' "$work/log" | sed '1d; $d' >"$out"
exit "$status"
