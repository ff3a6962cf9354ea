#!/bin/sh
# The functions that the shared library shows are those that symbols.txt lists, and every symbol has the version of the soname:
#
#   tests/package/symbols.sh BUILD SOVERSION
#
# A line that is gone or changed breaks programs that were linked before: then the SOVERSION changes too. OCTET_UPDATE_SYMBOLS=1
# writes the list anew.
set -eu
list=$(dirname "$0")/symbols.txt
library=$1/lib/liboctet.so
now=$(mktemp)
trap 'rm -f "$now"' EXIT
nm -D --defined-only "$library" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | c++filt | LC_ALL=C sort > "$now"
if [ "${OCTET_UPDATE_SYMBOLS:-}" = 1 ]; then
  cp "$now" "$list"
elif ! diff "$list" "$now"; then
  echo "symbols.sh: the library's functions (> lines) are not those of $list (< lines): a < line that is gone needs a new SOVERSION;" \
       "OCTET_UPDATE_SYMBOLS=1 $0 BUILD SOVERSION writes the list anew" >&2
  exit 1
fi

if ! readelf -d "$library" | grep -q "soname: \[liboctet.so.$2\]"; then
  echo "symbols.sh: the soname of $library is not liboctet.so.$2" >&2
  exit 1
fi
if nm -D --defined-only "$library" | grep -v "@@OCTET_$2\$" | grep -v " A OCTET_$2\$"; then
  echo "symbols.sh: these symbols of $library do not have the version OCTET_$2 (cmake/octet.map.in)" >&2
  exit 1
fi
