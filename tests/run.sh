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
#   clang   build with Clang, unit tests, snippets, conformance
#   asan    build with Clang's AddressSanitizer and UBSan, all tests but guests and installation
#   tsan    build with Clang's ThreadSanitizer, the unit tests that have threads
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

# Tests that execute on the host's KVM. Where that KVM is itself an emulation, what it gets right
# depends on how its threads are scheduled, so there these run again when they fail, twice at most; which
# did is told in the summary. A KVM without defects gets no second chance.
ON_KVM='^unit[.]kvm_|^kvm[.]|[.]kvm$|-kvm(-|$)|^conform[.]docs$'
repeated=()

# run_ctest DIR KINDS CTEST-ARGUMENT...: fails also when no test of one of the kinds has run; a kind
# is how the names of its tests begin.
run_ctest() {
    local dir=$1 kinds=$2 kind status names again=()
    shift 2
    names=$(ctest --test-dir "$dir" -N "$@" | sed -n 's/^ *Test *#[0-9]*: //p' | grep -E "$ON_KVM")
    ctest --test-dir "$dir" -j "$JOBS" --output-on-failure --no-tests=error "$@" -E "$ON_KVM" |
        tee "$dir.tests"
    status=${PIPESTATUS[0]}
    if [ -n "$names" ]; then
        if kvm_is_defective "$dir"; then
            again=(--repeat until-pass:3)
        fi
        ctest --test-dir "$dir" -j "$JOBS" --output-on-failure ${again[@]+"${again[@]}"} \
            -R "^($(tr '\n' '|' <<<"${names//./[.]}" | sed 's/|$//'))\$" | tee "$dir.kvm-tests"
        [ "${PIPESTATUS[0]}" = 0 ] || status=1
        mapfile -t -O ${#repeated[@]} repeated < <(failures "$dir.kvm-tests")
        cat "$dir.kvm-tests" >>"$dir.tests"
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

# The outputs of tests that have failed, the end of each.
outputs() {
    awk -v lines=40 '
        function show(   i) {
            for (i = n > lines ? n - lines : 0; i < n; i++)
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
    build build-clang -DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=RelWithDebInfo &&
        run_ctest build-clang "unit. guest.snippets. conform." -R '^(unit|guest|conform)[.]'
}

part_asan() {
    export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
    build build-asan -DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DVMM_SANITIZE=address,undefined &&
        run_ctest build-asan "unit. guest.snippets. conform. diff. fuzz. examples." \
            -R '^(unit|guest|conform|diff|fuzz|examples)[.]'
}

part_tsan() {
    local names
    mapfile -t names < <(grep -lE 'pthread_create|smp_vm[.]h' tests/unit/test_*.c | sed 's|.*/test_||; s|[.]c$||')
    [ ${#names[@]} -gt 0 ] || { echo "no unit test has threads"; return 1; }
    local targets=("${names[@]/#/test_}")
    export TSAN_OPTIONS=halt_on_error=1
    build build-tsan -DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DVMM_SANITIZE=thread -DVMM_BUILD_EXAMPLES=OFF &&
        run_ctest build-tsan "${names[*]/#/unit.}" -R "^unit[.]($(IFS='|'; echo "${names[*]}"))\$"
}

# Each libFuzzer target for some seconds; a crash leaves its input in build-fuzz/crashes.
part_fuzz() {
    local target name n=0 bad=0
    build build-fuzz -DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DVMM_SANITIZE=address,undefined -DVMM_BUILD_FUZZERS=ON -DVMM_BUILD_EXAMPLES=OFF || return 1
    mkdir -p build-fuzz/crashes
    for target in build-fuzz/tests/fuzz/fuzz_*; do
        [ -f "$target" ] && [ -x "$target" ] || continue
        name=$(basename "$target")
        n=$((n + 1))
        mkdir -p "build-fuzz/corpus/$name"
        if "$target" -max_total_time="$FUZZ_SECONDS" -timeout=30 -rss_limit_mb=4096 \
            -print_final_stats=0 -verbosity=0 -artifact_prefix=build-fuzz/crashes/"$name"- \
            "build-fuzz/corpus/$name" $(ls -d "tests/fuzz/corpus/${name#fuzz_}" 2>/dev/null) \
            >"build-fuzz/$name.log" 2>&1; then
            echo "libfuzzer.${name#fuzz_}: passed, $FUZZ_SECONDS s"
        else
            tail -n 40 "build-fuzz/$name.log"
            echo "libfuzzer.${name#fuzz_}: FAILED"
            bad=$((bad + 1))
        fi
    done
    [ $n -gt 0 ] || { echo "no fuzz targets"; return 1; }
    return $((bad > 0))
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
[ ${#repeated[@]} = 0 ] || echo "on the host's defective KVM, run again after a failure: ${repeated[*]}"
if [ -s "$failed_outputs" ]; then
    title "outputs of tests that failed"
    cat "$failed_outputs"
fi
if [ ${#failed[@]} -gt 0 ]; then
    echo "tests/run.sh: FAILED: ${failed[*]}"
    exit 1
fi
echo "tests/run.sh: all parts passed"
