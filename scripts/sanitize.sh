#!/usr/bin/env bash
# The tests under AddressSanitizer and UBSan, or, with SANITIZER=tsan, under ThreadSanitizer: scripts/sanitize.sh [TEST_PROGRAM...]
# Under ThreadSanitizer everything runs on four threads; left out are the kernels, which start none, and, unless GTEST_FILTER names
# them, the tests that compare many results (Data*, Golden*) or make many networks (Tune*, Doctor*): what they run, others run too.
# One program is built and run after the other, so that a few can be looked at in little time; its tests are split among the CPUs
# (JOBS says how many). Ends in one line of figures.
set -uo pipefail
cd "$(dirname "$0")/.."
preset=${SANITIZER:-asan}
programs=("$@")
[ $# -gt 0 ] || programs=(test_base test_tensor test_kernels test_engine test_ops test_graph test_autograd test_nn test_quant test_io
  test_runtime test_debug test_c test_cli test_fuzz)
left_out='Perf*:Ort*:Browser*'
if [ "$preset" = tsan ]; then
  [ $# -gt 0 ] || programs=(test_base test_tensor test_engine test_ops test_graph test_autograd test_nn test_quant test_io test_runtime
    test_debug test_c)
  [ -n "${GTEST_FILTER:-}" ] || left_out+=':Data*:Golden*:Tune*:Doctor*'
fi
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 OMP_WAIT_POLICY=passive OCTET_BINARY=$PWD/build-$preset/bin/octet
export TSAN_OPTIONS="suppressions='$PWD/tests/tsan.supp':die_after_fork=0"
OCTET_NUM_THREADS=$([ "$preset" = tsan ] && echo 4 || echo 2)
export OCTET_NUM_THREADS
failed=() tests=0 seconds=$SECONDS
for program in "${programs[@]}"; do
  PRESET=$preset scripts/build.sh octet-cli "$program" || exit 2
  scripts/shards.sh "build-$preset/bin/$program" "build-$preset/$program" --gtest_brief=1 --gtest_filter="${GTEST_FILTER:-*}:-$left_out" ||
    failed+=("$program")
  ran=$(sed -n 's/^\[==========\] \([0-9]*\) tests\? .* ran.*/\1/p' "build-$preset/$program".*.log | paste -sd+)
  tests=$((tests + ${ran:-0}))
done
echo "sanitize: $preset, ${#programs[@]} test programs, $tests tests, $((SECONDS - seconds)) s, failed: ${failed[*]:-none}"
[ ${#failed[@]} = 0 ]
