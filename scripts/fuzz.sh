#!/usr/bin/env bash
# Runs the fuzzers one after the other: scripts/fuzz.sh SECONDS [NAME...]
# What they learn stays in build-fuzz/corpus/NAME, what they find in build-fuzz/findings/NAME-*. Needs clang-14 and
# libclang-rt-14-dev (scripts/setup.sh fuzz). Ends in one line of figures; exits with 1 if there is a finding.
#   JOBS=2 scripts/fuzz.sh 600          two fuzzers at a time
# A finding again: OCTET_FUZZER=NAME build-fuzz/bin/fuzz_octet FILE
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?scripts/fuzz.sh SECONDS [NAME...]}
shift
PRESET=fuzz scripts/build.sh fuzz_octet || exit 2
program=$PWD/build-fuzz/bin/fuzz_octet
if [ $# -gt 0 ]; then names=("$@"); else mapfile -t names < <("$program" 2>&1 | sed -n 's/^OCTET_FUZZER must be one of: //p' | tr ' ' '\n'); fi
mkdir -p build-fuzz/corpus build-fuzz/findings build-fuzz/logs
# 5 s for an input (TIMEOUT: another number, for a machine that has other work); of memory each fuzzer sets its own for one
# allocation (fuzz/fuzz.h), here for all at once.
one() {
  local name=$1
  mkdir -p "build-fuzz/corpus/$name"
  OCTET_FUZZER=$name "$program" "build-fuzz/corpus/$name" $([ -d "fuzz/corpus/$name" ] && echo "fuzz/corpus/$name") \
    -max_total_time="$seconds" -timeout="${TIMEOUT:-5}" -rss_limit_mb=2560 -max_len=65536 -close_fd_mask=1 -print_final_stats=1 \
    -artifact_prefix="build-fuzz/findings/$name-" >"build-fuzz/logs/$name" 2>&1
  local code=$? runs
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "build-fuzz/logs/$name")
  echo "$name ${runs:-0} $code"
}
export -f one
export seconds program
results=$(printf '%s\n' "${names[@]}" | xargs -P "${JOBS:-1}" -I{} bash -c 'one {}' | tee /dev/stderr)
awk -v s="$seconds" '{ runs += $2; if ($3) bad = bad " " $1; n++ }
  END { printf "fuzz: %d fuzzers, %d s each, %d inputs, findings:%s\n", n, s, runs, bad ? bad : " none"; exit bad != "" }' <<<"$results"
