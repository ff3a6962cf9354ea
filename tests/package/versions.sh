#!/usr/bin/env bash
# Two versions of the library in one process have nothing to do with each other, and a program does not start with another
# version of the library than it was linked with:
#
#   tests/package/versions.sh PROGRAM PLUGIN LIBRARY NEXT_LIBRARY
#
# PROGRAM was linked with LIBRARY and loads PLUGIN, which was linked with NEXT_LIBRARY: the same code under the next version.
set -euo pipefail
program=$1 plugin=$2 library=$(basename "$3") next=$(basename "$4")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

LD_BIND_NOW=1 LD_DEBUG=bindings LD_DEBUG_OUTPUT=$work/bindings "$program" "$plugin" >"$work/out"
cat "$work/out"
grep -q '; two octets$' "$work/out"

# Who was bound to whom: "binding file A [0] to B [0]: normal symbol `NAME' [VERSION]".
clashes=$(sed -nE 's/.*binding file (\S+) \[0\] to (\S+) \[0\]: normal symbol `(.*)'\''.*/\1 \2 \3/p' "$work"/bindings.* |
  awk -v library="$library" -v next_one="$next" -v program="$(basename "$program")" -v plugin="$(basename "$plugin")" '
    { sub(".*/", "", $1); sub(".*/", "", $2); from[$1 == next_one || $1 == plugin]++ }
    $3 !~ /octet/ { next }
    ($1 == library || $1 == program) && ($2 == next_one || $2 == plugin) ||
      ($1 == next_one || $1 == plugin) && ($2 == library || $2 == program)
    END { if (!from[0] || !from[1]) print "no bindings were seen" }')
if [ -n "$clashes" ]; then
  echo "versions.sh: of two versions in one process one uses symbols of the other (from, to, symbol):" >&2
  echo "$clashes" | head -20 | c++filt >&2
  exit 1
fi

mkdir "$work/lib"
cp "$4" "$work/lib/$library"
if LD_LIBRARY_PATH=$work/lib "$program" "$plugin" 2>"$work/err"; then
  echo "versions.sh: $program was linked with $library and ran with $next" >&2
  exit 1
fi
cat "$work/err"
grep -q "version \`OCTET_[0-9.]*' not found" "$work/err"
