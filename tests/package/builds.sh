#!/usr/bin/env bash
# Builds octet in the ways that Package.consumers does not see, and programs outside of octet with it: as a static library that is
# installed, and as a part of another project, by FetchContent and by add_subdirectory.
#
#   OCTET_BUILDS=/var/tmp/builds tests/package/builds.sh
#
# OCTET_BUILDS names a folder for the builds, which are kept. Exits with 77 where that is not set: octet is compiled three times.
set -euo pipefail
source=$(realpath "$(dirname "$0")/../..")
[ -n "${OCTET_BUILDS:-}" ] || { echo "builds.sh: skipped: OCTET_BUILDS names no folder for builds"; exit 77; }
mkdir -p "$OCTET_BUILDS"
cd "$OCTET_BUILDS"

build() {   # FOLDER SOURCE OPTION...
  local folder=$1
  cmake -G Ninja -S "$2" -B "$folder" -DCMAKE_BUILD_TYPE=Release "${@:3}" >"$folder.log" 2>&1 &&
    cmake --build "$folder" ${JOBS:+-j "$JOBS"} >>"$folder.log" 2>&1 || { tail -40 "$folder.log"; exit 1; }
}

build static "$source" -DBUILD_SHARED_LIBS=OFF -DOCTET_BUILD_TESTS=OFF -DOCTET_BUILD_EXAMPLES=OFF
[ -f static/lib/liboctet.a ] && [ ! -e static/lib/liboctet.so ]
"$source/tests/package/consumers.sh" static | sed 's/^/static, /'

for way in FetchContent add_subdirectory; do
  build $way "$source/tests/package/consumer" -DOCTET_SOURCE="$source" -DOCTET_WAY=$way
  [ ! -e $way/bin/octet ]   # the program is not built with another project unless it asks for it
  echo "$way: $($way/consumer $way/model.octet)"
  $way/consumer_c $way/model.octet reference >$way/reference.txt
  $way/consumer_c $way/model.octet | diff $way/reference.txt -
done
