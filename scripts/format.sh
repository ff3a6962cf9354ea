#!/usr/bin/env bash
# Formats all C++ sources with clang-format 14 (Debian 12's). With --check it changes nothing and
# fails where a file would change or a line is longer than 100 columns.
set -euo pipefail
cd "$(dirname "$0")/.."

# Generated lists are left as their tests write them.
mapfile -t files < <(git ls-files '*.h' '*.cpp' '*.inc' | grep -v '_differences.inc$')
if [ "${1:-}" != --check ]; then
  clang-format -i "${files[@]}"
  exit
fi
status=0
clang-format --dry-run -Werror "${files[@]}" || status=1
awk 'length($0) > 100 { print FILENAME ":" FNR ": longer than 100 columns"; bad = 1 } END { exit bad }' \
  "${files[@]}" || status=1
exit $status
