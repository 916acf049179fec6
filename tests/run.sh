#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds libvmm and runs its tests, on a fresh Debian 12 too: missing packages are installed first.
#
#   tests/run.sh [--quick] [--only PART[,PART...]]
#
# Parts, in this order (all by default):
#   format  clang-format of the whole tree
#   gcc     build with GCC, all tests but the guests
#   guests  boot tests: Debian's kernels, memtest86+, the repo's own guest; the KVM engine on the KVM
#           of a Debian kernel in QEMU
#   clang   build of the library with Clang, snippets, conformance (the unit tests as Clang compiles them
#           run in the next part)
#   asan    build with Clang's AddressSanitizer and UBSan, all tests but guests and installation
#   tsan    build with Clang's ThreadSanitizer, the unit tests that have threads, but for those in which
#           KVM fails
#   fuzz    libFuzzer, FUZZ_SECONDS (default 15) for each target
# --quick is --only format,gcc.
# Environment: JOBS (default: number of CPUs), VMM_GUESTS (cache of guest images), FUZZ_SECONDS.
# Exit status: 0 if every part passed, else 1. A part fails too when it finds nothing to run, or when
# all tests of a kind were skipped (the Debian kernels without network, for example).
set -u
cd "$(dirname "$0")/.." || exit 1
JOBS=${JOBS:-$(nproc)}
FUZZ_SECONDS=${FUZZ_SECONDS:-15}
ALL="format gcc guests clang asan tsan fuzz"
parts=$ALL

usage() {
    sed -n '3,/^set/s/^# \{0,1\}//p' "$0"
}

while [ $# -gt 0 ]; do
    case $1 in
    --quick) parts="format gcc" ;;
    --only) shift; parts=${1//,/ } ;;
    --only=*) parts=${1#--only=}; parts=${parts//,/ } ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 1 ;;
    esac
    [ $# -gt 0 ] && shift
done
[ -n "${parts// /}" ] || { usage >&2; exit 1; }
for part in $parts; do
    case " $ALL " in
    *" $part "*) ;;
    *) echo "tests/run.sh: unknown part '$part'" >&2; exit 1 ;;
    esac
done

wants() {
    case " $parts " in *" $1 "*) return 0 ;; esac
    return 1
}

packages=(cmake ninja-build gcc g++ make pkg-config libzydis-dev libelf-dev libuv1-dev check
    python3 cpio xz-utils binutils)
if wants clang || wants asan || wants tsan || wants fuzz; then
    packages+=(clang-14 libclang-rt-14-dev)
fi
# The headers compile with both compilers; iasl checks AML; valgrind a VM's life on KVM.
wants gcc && packages+=(clang-14 acpica-tools valgrind)
wants gcc && packages+=(bochs bochs-term seabios) # processors with VMX
wants guests && packages+=(qemu-system-x86 cpio) # a machine with a sound KVM
wants format && packages+=(clang-format-14 git)
tests/need-packages.sh "${packages[@]}" || exit 1

failed=()
summary=()
failed_outputs=$(mktemp) || exit 1
trap 'rm -f "$failed_outputs"' EXIT

title() {
    printf '\n==== %s\n' "$*"
}

# With Clang: line numbers for what sanitizers print are enough.
clang=(-DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=RelWithDebInfo
    "-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O2 -g1 -DNDEBUG")

# build DIR CMAKE-ARGUMENT...: all targets, or those in the array `targets`.
targets=()
build() {
    local dir=$1
    shift
    cmake -S . -B "$dir" -G Ninja "$@" >"$dir.log" 2>&1 &&
        ninja -C "$dir" -j "$JOBS" ${targets[@]+"${targets[@]}"} >>"$dir.log" 2>&1
    local status=$?
    if [ $status != 0 ]; then
        tail -n 60 "$dir.log"
        echo "build of $dir failed"
    else
        echo "$dir is built"
    fi
    return $status
}

# Tests that execute on KVM, and those of them whose KVM is that of the machine in QEMU. Where a KVM is
# itself an emulation, what it gets right depends on how its threads are scheduled, so what fails there
# runs again, with no other test beside it, twice at most; which did is told in the summary. A KVM of the
# host without defects gets no second chance.
ON_KVM='^unit[.]kvm_|^kvm[.]|[.]kvm$|-kvm(-|$)|^conform[.]docs$'
ON_NESTED_KVM='^kvm[.]nested'
repeated=()

# run_ctest DIR KINDS CTEST-ARGUMENT...: fails also when no test of one of the kinds has run; a kind
# is how the names of its tests begin.
run_ctest() {
    local dir=$1 kinds=$2 kind status chance='' names='' again=()
    shift 2
    ctest --test-dir "$dir" -j "$JOBS" --output-on-failure --no-tests=error "$@" | tee "$dir.tests"
    status=${PIPESTATUS[0]}
    if [ "$status" != 0 ]; then
        chance=$ON_NESTED_KVM
        kvm_is_defective "$dir" && chance=$ON_KVM
        names=$(failures "$dir.tests" | sort -u)
        mapfile -t again < <(grep -E "$chance" <<<"$names")
    fi
    if [ ${#again[@]} != 0 ]; then
        repeated+=("${again[@]}")
        names=$(grep -vE "$chance" <<<"$names")
        echo "on a defective KVM, runs again: ${again[*]}"
        ctest --test-dir "$dir" --output-on-failure --repeat until-pass:2 \
            -R "^($(IFS='|'; echo "${again[*]//./[.]}"))\$" | tee "$dir.again"
        [ "${PIPESTATUS[0]}" != 0 ] || [ -n "$names" ] || status=0
        cat "$dir.again" >>"$dir.tests"
    fi
    for kind in $kinds; do
        grep -qE "^ *([0-9]+/[0-9]+)? Test +#[0-9]+: ${kind//./[.]}[^ ]* .* Passed " "$dir.tests" && continue
        echo "no test $kind* has passed:"
        grep -E " Test +#[0-9]+: ${kind//./[.]}" "$dir.tests" || echo "there is none"
        status=1
    done
    outputs "$dir.tests" >>"$failed_outputs"
    return "$status"
}

# The outputs of tests that have failed: the end of each, and before it lines that tell a failure.
outputs() {
    awk -v lines=40 '
        function show(   i, first) {
            first = n > lines ? n - lines : 0
            for (i = 0; i < n; i++)
                if (i >= first || i == 0 || text[i] ~ /FAILED|:[FE]:|ERROR: |runtime error: /)
                    print text[i]
            n = 0
        }
        / Test +#[0-9]+: / { show(); on = !/ (Passed|\*+Skipped) / }
        /^ *Start +[0-9]+: |^[0-9]+% tests passed/ { on = 0 }
        on { text[n++] = $0 }
        END { show() }' "$1"
}

# The names of tests that have failed at least once.
failures() {
    grep -E '^ *([0-9]+/[0-9]+)? Test +#[0-9]+: ' "$1" | grep -vE ' (Passed|[*]+Skipped) ' |
        sed -E 's/^.*#[0-9]+: ([^ ]+) .*$/\1/'
}

kvm_is_defective() {
    local probe
    for probe in "$1" build build-clang; do
        probe=$probe/tests/kvm/kvm-probe
        [ -x "$probe" ] && "$probe" 2>/dev/null | grep -q degraded && return 0
    done
    return 1
}

part_format() {
    local files
    mapfile -t files < <(git ls-files --cached --others --exclude-standard '*.c' '*.h')
    [ ${#files[@]} -gt 0 ] || { echo "no files to look at"; return 1; }
    clang-format-14 --dry-run --Werror "${files[@]}" && echo "${#files[@]} files are formatted"
}

part_gcc() {
    local kinds="unit. guest.snippets. conform. diff. fuzz. install. examples."
    tests/freestanding/fetch-zydis.sh && kinds+=" freestanding."
    build build -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo &&
        run_ctest build "$kinds" -LE guest
}

part_guests() {
    build build -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo &&
        run_ctest build "boot.guest boot.cloud boot.generic boot.rt boot.memtest kvm.nested" -L guest
}

part_clang() {
    local targets=(conform snippets kvm-probe vmm-run)
    tests/freestanding/fetch-zydis.sh && targets+=(freestanding)
    build build-clang "${clang[@]}" &&
        run_ctest build-clang "guest.snippets. conform." -R '^(guest|conform)[.]'
}

part_asan() {
    export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
    build build-asan "${clang[@]}" \
        -DVMM_SANITIZE=address,undefined &&
        run_ctest build-asan "unit. guest.snippets. conform. diff. fuzz. examples." \
            -R '^(unit|guest|conform|diff|fuzz|examples)[.]'
}

part_tsan() {
    local names
    mapfile -t names < <(grep -lE 'pthread_create|smp_vm[.]h' tests/unit/test_*.c |
        sed 's|.*/test_||; s|[.]c$||' | grep -v '^kvm_faults$')
    [ ${#names[@]} -gt 0 ] || { echo "no unit test has threads"; return 1; }
    local targets=("${names[@]/#/test_}") kinds
    # Hosts may have no KVM, and let nothing be executed directly.
    kinds=$(printf 'unit.%s ' "${names[@]}" | sed -E 's/unit[.](kvm_|direct)[^ ]* //g')
    export TSAN_OPTIONS=halt_on_error=1
    build build-tsan "${clang[@]}" \
        -DVMM_SANITIZE=thread -DVMM_BUILD_EXAMPLES=OFF &&
        run_ctest build-tsan "$kinds" -R "^unit[.]($(IFS='|'; echo "${names[*]}"))\$"
}

# One libFuzzer target for some seconds; a crash leaves its input in build-fuzz/crashes.
fuzz() {
    local target=$1 name
    name=$(basename "$target")
    mkdir -p "build-fuzz/corpus/$name"
    if "$target" -max_total_time="$FUZZ_SECONDS" -timeout=30 -rss_limit_mb=4096 \
        -print_final_stats=0 -verbosity=0 -artifact_prefix=build-fuzz/crashes/"$name"- \
        "build-fuzz/corpus/$name" $(ls -d "tests/fuzz/corpus/${name#fuzz_}" 2>/dev/null) \
        >"build-fuzz/$name.log" 2>&1; then
        echo "libfuzzer.${name#fuzz_}: passed, $FUZZ_SECONDS s"
        return 0
    fi
    tail -n 40 "build-fuzz/$name.log"
    echo "libfuzzer.${name#fuzz_}: FAILED"
    return 1
}

part_fuzz() {
    local name names=() targets=() target pids=() bad=0
    for name in tests/fuzz/fuzz_*.c; do
        [ -f "$name" ] && names+=("$(basename "$name" .c)")
    done
    [ ${#names[@]} -gt 0 ] || { echo "no fuzz targets"; return 1; }
    targets=("${names[@]}")
    build build-fuzz "${clang[@]}" \
        -DVMM_SANITIZE=address,undefined -DVMM_BUILD_FUZZERS=ON -DVMM_BUILD_EXAMPLES=OFF || return 1
    mkdir -p build-fuzz/crashes
    # JOBS of them at a time.
    for target in "${names[@]}"; do
        if [ ${#pids[@]} -ge "$JOBS" ]; then
            wait "${pids[0]}" || bad=1
            pids=("${pids[@]:1}")
        fi
        fuzz "build-fuzz/tests/fuzz/$target" &
        pids+=($!)
    done
    for target in "${pids[@]}"; do
        wait "$target" || bad=1
    done
    return $bad
}

for part in $ALL; do
    wants $part || continue
    title "$part"
    start=$SECONDS
    if part_$part; then
        summary+=("$part: passed ($((SECONDS - start)) s)")
    else
        summary+=("$part: FAILED ($((SECONDS - start)) s)")
        failed+=("$part")
    fi
done
title summary
printf '%s\n' "${summary[@]}"
[ ${#repeated[@]} = 0 ] || echo "on a defective KVM, run again after a failure: ${repeated[*]}"
if [ -s "$failed_outputs" ]; then
    title "outputs of tests that failed"
    cat "$failed_outputs"
fi
if [ ${#failed[@]} -gt 0 ]; then
    echo "tests/run.sh: FAILED: ${failed[*]}"
    exit 1
fi
echo "tests/run.sh: all parts passed"
