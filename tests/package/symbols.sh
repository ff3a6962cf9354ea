#!/bin/sh
# The functions that the shared library shows are those that symbols.txt lists. A line that is gone or changed breaks
# programs that were linked before: then the SOVERSION changes too. OCTET_UPDATE_SYMBOLS=1 writes the list anew.
set -eu
list=$(dirname "$0")/symbols.txt
now=$(mktemp)
trap 'rm -f "$now"' EXIT
nm -D --defined-only "$1/lib/liboctet.so" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | c++filt | LC_ALL=C sort > "$now"
if [ "${OCTET_UPDATE_SYMBOLS:-}" = 1 ]; then
  cp "$now" "$list"
elif ! diff "$list" "$now"; then
  echo "symbols.sh: the library's functions (> lines) are not those of $list (< lines): a < line that is gone needs a new SOVERSION;" \
       "OCTET_UPDATE_SYMBOLS=1 $0 BUILD writes the list anew" >&2
  exit 1
fi
