#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The snippets and the conformance list on the vmx backend in Bochs, beyond what ctest runs: on all
# CPU models, with one and two CPUs, with features of VMX hidden so that each fallback runs, and
# where the backend must refuse. Then Debian's cloud kernel as a guest of examples/type1.
#
#   vmx.sh [--jobs N] [BUILD [PATTERN]]     runs whose name has PATTERN in it; all: half an hour
#   vmx.sh --linux MODEL [BUILD]            only the kernel, on that model
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
jobs=2 linux=
[ "${1:-}" = --jobs ] && { jobs=$2; shift 2; }
[ "${1:-}" = --linux ] && { linux=$2; shift 2; }
build=${1:-$root/build} pattern=${2:-}
rom=$build/tests/freestanding
logs=$build/tests/logs/vmx
bochs=$root/tests/freestanding/bochs.py
mkdir -p "$logs" || exit 1

models="core2_penryn_t9600 corei5_lynnfield_750 corei7_sandy_bridge_2600k corei7_haswell_4770
    corei7_skylake_x corei3_cnl tigerlake"
# Each line is a machine that some CPU could be.
masks="ept unrestricted vpid timer tpr-shadow secondary efer,pat ack true xsaves,invpcid,rdtscp
    ept-2m,ept-1g ept-ad,pml invept-single,invvpid-single tsc-offset,tsc-scaling io-bitmaps,mtf
    apic-access,apic-registers,virtual-interrupts,x2apic unrestricted,vpid,timer,tpr-shadow"

# one NAME TABLE MODEL EXPECT OPTIONS...: prints a line.
one() {
    local name=$1 table=$2 model=$3 expect=$4 begin=$SECONDS status=0
    shift 4
    python3 "$bochs" --memory 512 --timeout 600 --stall 120 --log "$logs/$name.tap" "$@" \
        "$rom/$table.rom" "$model" "$expect" --backend vmx --format tap --timeout 2 \
        >"$logs/$name.out" 2>&1 || status=$?
    echo "$name: $([ $status = 0 ] && echo ok || echo "FAILED (status $status)"), $((SECONDS - begin)) s:" \
        "$(grep -E '^[0-9]+ passed' "$logs/$name.out")"
    [ $status = 0 ] || sed -n '/^[0-9]* passed/,$p' "$logs/$name.out" | tail -n +2 | sed 's/^/    /'
    return $status
}
export -f one
export bochs rom logs

# The arguments of `one`, a run on each line.
runs() {
    local model mask table
    for model in $models; do
        echo "snippets.$model snippets $model vmx"
        echo "conform.$model conform $model vmx"
    done
    for model in corei7_skylake_x core2_penryn_t9600; do
        echo "conform.$model.2 conform $model vmx --cpus 2"
        echo "conform.$model.2-nmi conform $model vmx --cpus 2 --nmi"
    done
    for model in corei7_skylake_x corei7_haswell_4770 tigerlake; do
        for mask in $masks; do
            echo "snippets.$model-$mask snippets $model vmx --hide $mask"
        done
    done
    for mask in $masks; do
        echo "conform.corei7_skylake_x-$mask conform corei7_skylake_x vmx --hide $mask"
    done
    for model in $models; do
        echo "locked.$model snippets $model 'disabled by the firmware' --lock"
    done
    echo "lacks snippets corei7_skylake_x 'the CPU lacks' --hide virtual-nmis"
    echo "none snippets p4_prescott_celeron_336 'the CPU has no VMX'"
}

# The kernel, to its init, which says what it sees and powers off.
run_linux() {
    local model=$1 guests=${VMM_GUESTS:-$root/guests} tree
    tree=$(mktemp -d) || return 1
    VMM_GUESTS=$guests "$root/tests/boot/fetch.sh" cloud busybox >/dev/null ||
        { rm -rf "$tree"; return 77; }
    "$root/tests/boot/mkinitramfs.sh" "$guests/busybox/busybox" "$root/tests/boot/init-test" "$tree/initrd" &&
        python3 "$root/examples/type1/mkdisk.py" "$tree/disk" "$guests/cloud/vmlinuz" "$tree/initrd" &&
        python3 "$bochs" --quiet --memory 512 --timeout 3000 --stall 600 --ticks 1000000000000 \
            --log "$logs/linux.$model.tap" --disk "$tree/disk" \
            --want 'guest: init of Linux version' --want 'guest: done' \
            "$build/examples/type1/type1.rom" "$model" vmx \
            console=ttyS0 loglevel=6 panic=-1 vmm.test=boot >"$logs/linux.$model.out" 2>&1
    local status=$?
    rm -rf "$tree"
    echo "linux.$model: $([ $status = 0 ] && echo ok || echo "FAILED (status $status)"), $SECONDS s"
    grep -aE 'guest: |# ' "$logs/linux.$model.tap" | sed 's/^/    /'
    return $status
}

if [ -n "$linux" ]; then
    run_linux "$linux"
    exit
fi
failed=0
runs | grep -F -- "$pattern" | xargs -d '\n' -P "$jobs" -I LINE bash -c 'one LINE' || failed=1
if [ -z "$pattern" ]; then
    run_linux corei7_skylake_x || failed=1
    run_linux core2_penryn_t9600 || failed=1
fi
exit $failed
