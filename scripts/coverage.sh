#!/usr/bin/env bash
# Which lines and branches of octet/ the tests reach: scripts/coverage.sh [TEST_PROGRAM...]; without names all programs of the
# label unit, the tests of each split among the CPUs (JOBS says how many). The report is build-coverage/coverage.html (gcovr,
# `scripts/setup.sh coverage`). Ends in one line of figures.
set -uo pipefail
cd "$(dirname "$0")/.."
programs=("$@")
PRESET=coverage scripts/build.sh octet-cli "${programs[@]}" || exit 2
[ $# -gt 0 ] || { PRESET=coverage scripts/build.sh && mapfile -t programs < <(cd build-coverage/bin && ls -d test_* | grep -v test_perf); } || exit 2
find build-coverage -name '*.gcda' -delete
# What is left of sources that were elsewhere or otherwise joined before makes gcovr fail, and hang.
comm -13 <(ninja -C build-coverage -t targets all | grep -o '^[^:]*\.o' | sort) \
  <(cd build-coverage && find . -name '*.gcno' | sed 's|^\./||; s|gcno$|o|' | sort) |
  sed 's|o$|gcno|; s|^|build-coverage/|' | xargs -r rm
failed=0
# Where files may not grow, the counts of what was reached cannot be written either, which libgcov says on standard error.
left_out='Perf*:Ort*:Browser*:CliStreams.AFileThatMayNotGrowIsAnErrorAndTheTargetStays'
export OCTET_NUM_THREADS=2 OCTET_BINARY=$PWD/build-coverage/bin/octet
for program in "${programs[@]}"; do
  scripts/shards.sh "build-coverage/bin/$program" "build-coverage/$program" --gtest_brief=1 --gtest_filter="-$left_out" || failed=$((failed + 1))
done
# Branches are those of lines on which the source decides. GCC counts a branch of exceptions for every call, most of which it marks, and
# on lines without a condition those of the destructors behind them, which it does not.
decides='\bif\b|\bfor\b|\bwhile\b|\bcase\b|\bswitch\b|&&|\|\||\?'
gcovr --root . --filter octet/ --object-directory build-coverage --exclude-throw-branches --exclude-unreachable-branches \
  --exclude-branches-by-pattern "^(?!.*($decides)).*\$" \
  --gcov-ignore-parse-errors -j 2 --html-details build-coverage/coverage.html --json-summary build-coverage/coverage.json \
  >build-coverage/gcovr.log 2>&1 || {
  echo "scripts/coverage.sh: gcovr failed: build-coverage/gcovr.log" >&2
  exit 2
}
/usr/bin/python3 - "${#programs[@]}" "$failed" <<'PYTHON'
import json
import sys

report = json.load(open("build-coverage/coverage.json"))
print(f"coverage: {sys.argv[1]} test programs ({sys.argv[2]} failed): {report['line_covered']} of {report['line_total']} lines "
      f"({report['line_percent']} %), {report['branch_covered']} of {report['branch_total']} branches ({report['branch_percent']} %)")
PYTHON
[ "$failed" = 0 ]
