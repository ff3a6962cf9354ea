#!/usr/bin/env bash
# Random calls and networks on every instruction set of the machine, with 1, 2, 3, 7 and 16 threads, at odd addresses, in both layouts and in
# any batch: the bits of the reference engine. scripts/bits.sh [CASES [SEED]]; a hundredth of CASES are networks.
set -uo pipefail
cd "$(dirname "$0")/.."
export OCTET_BITS_CASES=${1:-${OCTET_BITS_CASES:-200000}} OCTET_BITS_SEED=${2:-${OCTET_BITS_SEED:-0}}
scripts/build.sh test_engine test_runtime || exit 2
directory=$(scripts/build.sh --directory) failed=0 tests=0
for run in "test_engine Exactness.*:Codes16.*" "test_runtime Program.EveryIsa*"; do
  read -r program filter <<<"$run"
  "$directory/bin/$program" --gtest_filter="$filter" --gtest_brief=1 >"$directory/bits_$program.log" 2>&1 || {
    echo "scripts/bits.sh: $program failed: $directory/bits_$program.log" >&2
    failed=1
  }
  ran=$(sed -n 's/^\[==========\] \([0-9]*\) tests\? .* ran.*/\1/p' "$directory/bits_$program.log" | tail -1)
  tests=$((tests + ${ran:-0}))
done
echo "bits: $tests tests, about $OCTET_BITS_CASES calls and $((OCTET_BITS_CASES / 100)) networks of seed $OCTET_BITS_SEED:" \
  "$([ $failed = 0 ] && echo "the same bits everywhere" || echo FAILED)"
exit $failed
