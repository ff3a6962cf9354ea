#!/usr/bin/env bash
# Installs BUILD into an empty folder, moves that, and builds and runs programs outside of octet with what is there:
#
#   tests/package/consumers.sh BUILD
#
# through find_package and through pkg-config, in C++ and in C99. Prints one line for each; fails at the first that does not work.
set -euo pipefail
build=$(realpath "$1")
source=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cmake --install "$build" --prefix "$work/installed" >/dev/null
mv installed moved   # nothing in it may say where it was
prefix=$work/moved
lib=$(dirname "$(find "$prefix" -name 'octet.pc')")

# Each installed header includes installed headers only.
for header in $(cd "$prefix/include" && grep -rhoE '#include "octet/[^"]+"' octet | sort -u | cut -d'"' -f2); do
  [ -f "$prefix/include/$header" ] || { echo "octet: $header is included by a public header and not installed" >&2; exit 1; }
done
echo "headers: $(find "$prefix/include" -name '*.h' | wc -l), complete"

[ "$("$prefix/bin/octet" --version)" = "octet $(PKG_CONFIG_PATH=$lib pkg-config --modversion octet)" ]
echo "program: $("$prefix/bin/octet" --version)"

cmake -S "$source/tests/package/consumer" -B cmake -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug >cmake.log 2>&1 ||
  { cat cmake.log; exit 1; }
cmake --build cmake >build.log 2>&1 || { cat build.log; exit 1; }
echo "find_package: $(cmake/consumer model.octet)"

cmake/consumer_c model.octet >c.txt
cmake/consumer_c model.octet reference | diff - c.txt
echo "C: $(tail -1 c.txt)"

export PKG_CONFIG_PATH=$lib
# shellcheck disable=SC2046
g++ -std=c++20 "$source/tests/package/consumer/main.cpp" $(pkg-config --cflags --libs octet) -o with_pkg_config
LD_LIBRARY_PATH=$(dirname "$lib") ./with_pkg_config model.octet >/dev/null
echo "pkg-config: works"
