#!/usr/bin/env bash
# Every function of the public headers is called by a test, an example or the program, but those that uncalled.txt lists:
#
#   tests/package/called.sh BUILD
#
# The list may only become shorter: a new function needs a test that calls it, and a function that is called now is taken off.
# Functions are told apart by their qualified names: of overloads one must be called. Constructors, destructors and operators are left
# out; virtual functions, which are called by others' names, stand in the list. OCTET_UPDATE_SYMBOLS=1 writes the list anew.
set -euo pipefail
build=$1
cd "$(dirname "$0")/../.."
list=tests/package/uncalled.txt

# Mangled names to qualified names without arguments.
names() {
  c++filt | sed -E 's/\[abi:[a-z0-9]+\]//g; s/@.*//' | awk '
    { depth = 0; name = ""
      for (i = 1; i <= length($0); ++i) {
        c = substr($0, i, 1)
        if (c == "<") ++depth
        if (c == "(" && depth == 0) break
        if (depth == 0) name = name c
        if (c == ">") --depth
      }
      n = split(name, part, "::")
      if (name ~ /^octet::/ && name !~ /_impl::|detail::|Impl::|~|operator/ && part[n] != part[n - 1]) print name
    }' | LC_ALL=C sort -u
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Words of the public headers: what is not among them is octet's own.
find octet -name '*.h' ! -name '*_impl.h' -exec grep -ohE '[A-Za-z_][A-Za-z0-9_]*' {} + | LC_ALL=C sort -u >"$work/words"
nm -D --defined-only "$build/lib/liboctet.so" | awk '$2 == "T" { print $3 }' | names |
  awk -v words="$work/words" 'BEGIN { while ((getline w < words) > 0) known[w] = 1 } { n = split($0, p, "::"); if (p[n] in known) print }' >"$work/all"
find "$build/bin" -maxdepth 1 -type f \( -name 'test_*' -o -name 'example_*' -o -name octet \) -print0 |
  xargs -0 -n 1 nm -D --undefined-only 2>/dev/null | awk '{ print $2 }' | names >"$work/called"
LC_ALL=C comm -23 "$work/all" "$work/called" >"$work/uncalled"
if [ "${OCTET_UPDATE_SYMBOLS:-}" = 1 ]; then
  cp "$work/uncalled" "$list"
elif ! diff "$list" "$work/uncalled"; then
  echo "called.sh: the functions of public headers that no test calls (> lines) are not those of $list (< lines): write a test for a" \
    "new one, or take off what is called now (OCTET_UPDATE_SYMBOLS=1 $0 BUILD)" >&2
  exit 1
fi
echo "called: $(wc -l <"$work/all") functions of public headers, $(wc -l <"$list") of them called inside the library only"
