#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The snippets and the conformance list on the vmx backend in Bochs, beyond what ctest runs: on all
# CPU models, with one and two CPUs, with features of VMX hidden so that each fallback runs on each
# model that has the feature, and where the backend must refuse. Then Debian's cloud kernel as a
# guest of examples/type1. At the end a table of machines and models; status 0 if nothing has failed.
#
#   vmx.sh [--jobs N] [BUILD [PATTERN]]   runs whose name matches PATTERN (an expression); all of
#                                         them: more than half an hour on two CPUs
#   vmx.sh --linux MODEL [BUILD]          only the kernel, on that model
#   vmx.sh --table [BUILD]                only the table of the last results
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
jobs=2 linux='' only_table=''
[ "${1:-}" = --jobs ] && { jobs=$2; shift 2; }
[ "${1:-}" = --linux ] && { linux=$2; shift 2; }
[ "${1:-}" = --table ] && { only_table=1; shift; }
build=${1:-$root/build} pattern=${2:-}
rom=$build/tests/freestanding
logs=$build/tests/logs/vmx
bochs=$root/tests/freestanding/bochs.py
mkdir -p "$logs" || exit 1

models="core2_penryn_t9600 corei5_lynnfield_750 corei7_sandy_bridge_2600k corei7_haswell_4770
    corei7_skylake_x corei3_cnl tigerlake"
# Each is a machine that some CPU could be. Where a model has nothing of it, there is no run.
masks="ept unrestricted vpid timer tpr-shadow secondary efer,pat ack true xsaves,invpcid,rdtscp
    ept-2m,ept-1g ept-ad,pml invept-single,invvpid-single tsc-offset,tsc-scaling io-bitmaps,mtf unconditional-io
    apic-access apic-registers virtual-interrupts
    apic-access,apic-registers,virtual-interrupts,x2apic unrestricted,vpid,timer,tpr-shadow"
# Those for which the conformance list runs on all models, too.
main_masks="ept unrestricted secondary"

# one MACHINE TABLE MODEL EXPECT OPTIONS...: prints a line, and keeps it for the table.
one() {
    local machine=$1 table=$2 model=$3 expect=$4 begin=$SECONDS status=0 result counts name
    shift 4
    name=$table.$model.$machine
    python3 "$bochs" --memory 512 --timeout 900 --stall 180 --log "$logs/$name.tap" "$@" \
        "$rom/$table.rom" "$model" "$expect" --backend vmx --format tap --timeout 2 \
        >"$logs/$name.out" 2>&1 || status=$?
    counts=$(grep -E '^[0-9]+ passed|^the CPU has none' "$logs/$name.out")
    case $status:$counts in
    0:the*) result='not there' ;;
    0:*) result=passed ;;
    77:*) result='no Bochs' ;;
    *) result=FAILED ;;
    esac
    echo "$name: $result, $((SECONDS - begin)) s: $counts"
    printf '%s\t%s\t%s\t%s\t%s\n' "$table" "$model" "$machine" "$result" "$counts" >"$logs/$name.result"
    [ $status = 0 ] || sed -n '/^[0-9]* passed/,$p' "$logs/$name.out" | tail -n +2 | sed 's/^/    /'
    return $status
}
export -f one
export bochs rom logs

# The arguments of `one`, a run on each line.
runs() {
    local model mask
    for model in $models; do
        echo "1-CPU snippets $model vmx"
        echo "1-CPU conform $model vmx"
        echo "2-CPUs conform $model vmx --cpus 2"
    done
    for model in corei7_skylake_x core2_penryn_t9600; do
        echo "2-CPUs-NMI conform $model vmx --cpus 2 --nmi"
    done
    for mask in $masks; do
        for model in $models; do
            echo "no-$mask snippets $model vmx --hide $mask"
        done
    done
    for mask in $masks; do
        for model in $models; do
            case " $main_masks corei7_skylake_x " in
            *" $mask "* | *" $model "*) echo "no-$mask conform $model vmx --hide $mask" ;;
            esac
        done
    done
    for model in $models; do
        echo "locked-off snippets $model 'disabled by the firmware' --lock"
        echo "no-virtual-nmis snippets $model 'the CPU lacks' --hide virtual-nmis"
    done
    echo "no-VMX snippets p4_prescott_celeron_336 'the CPU has no VMX'"
}

# The kernel, to its init, which says what it sees and powers off.
run_linux() {
    local model=$1 guests=${VMM_GUESTS:-$root/guests} tree begin=$SECONDS
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
    local status=$? result=passed
    rm -rf "$tree"
    [ $status = 0 ] || result="FAILED (status $status)"
    echo "linux.$model: $result, $((SECONDS - begin)) s"
    printf 'linux\t%s\t1-CPU\t%s\t\n' "$model" "${result%% *}" >"$logs/linux.$model.result"
    grep -aE 'guest: |# ' "$logs/linux.$model.tap" | sed 's/^/    /'
    return $status
}

# What has been run, as docs/backends.md has it.
table() {
    python3 - "$logs" $models <<'END'
import glob, re, sys

logs, models = sys.argv[1], sys.argv[2:]
rows, order = {}, ["1-CPU", "2-CPUs", "2-CPUs-NMI"]
for path in glob.glob(f"{logs}/*.result"):
    with open(path) as f:
        table, model, machine, result, counts = f.read().rstrip("\n").split("\t")
    n = re.findall(r"\d+", counts)
    text = {"passed": "passed", "not there": "-"}.get(result, result)
    if result == "passed" and n and machine.startswith(("locked", "no-VMX", "no-virtual-nmis")):
        text = "refused"
    elif len(n) >= 4:
        text = n[0] + (f", {n[1]} failed" if result == "FAILED" else "")
        text += f", {n[3]} defects" if int(n[3]) > 1 else ", 1 defect" if int(n[3]) else ""
    if model in models:
        rows.setdefault((table, machine), {})[model] = text
    else:
        print(f"{model}, {machine}: {text}")
short = {"core2_penryn_t9600": "Penryn", "corei5_lynnfield_750": "Lynnfield",
         "corei7_sandy_bridge_2600k": "Sandy Bridge", "corei7_haswell_4770": "Haswell",
         "corei7_skylake_x": "Skylake-X", "corei3_cnl": "Cannon Lake", "tigerlake": "Tiger Lake"}


def place(row):
    table, machine = row
    return (["snippets", "conform", "linux"].index(table),
            order.index(machine) if machine in order else 3, not machine.startswith("no-"), machine)


print("| set | machine | " + " | ".join(short.get(m, m) for m in models) + " |")
print("|---|---|" + "---|" * len(models))
for table, machine in sorted(rows, key=place):
    cells = [rows[table, machine].get(m, "") for m in models]
    print(f"| {table} | {machine.replace('-', ' ', 1)} | " + " | ".join(cells) + " |")
END
}

if [ -n "$only_table" ]; then
    table
    exit
fi
# As ctest has it; what is there already is left alone.
{ [ -f "$build/CMakeCache.txt" ] || cmake -S "$root" -B "$build" -G Ninja; } >"$logs/build.out" 2>&1 &&
    cmake --build "$build" --target table_snippets_rom table_conform_rom type1_images >>"$logs/build.out" 2>&1 ||
    { tail -n 20 "$logs/build.out" >&2; exit 1; }
if [ -n "$linux" ]; then
    run_linux "$linux"
    exit
fi
failed=0
[ -n "$pattern" ] || rm -f "$logs"/*.result
runs | awk -v pattern="$pattern" '{ if (($2 "." $3 "." $1) ~ pattern) print }' |
    xargs -d '\n' -P "$jobs" -I LINE bash -c 'one LINE' || failed=1
if [ -z "$pattern" ]; then
    run_linux corei7_skylake_x || failed=1
    run_linux core2_penryn_t9600 || failed=1
fi
table
echo "$([ $failed = 0 ] && echo passed || echo FAILED), $SECONDS s"
exit $failed
