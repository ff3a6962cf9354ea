#!/usr/bin/env bash
# Builds the targets given, or everything, in build/ (PRESET=asan: in build-asan/, and so on), which is configured at first.
# With --directory it only says which directory that is. CMAKE_ARGS are options for the configuring: "-DOCTET_BUILD_PYTHON=ON".
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${PRESET:-release}
directory=build
[ "$preset" = release ] || directory=build-$preset
if [ "${1:-}" = --directory ]; then
  echo "$directory"
  exit
fi
[ -f "$directory/build.ninja" ] || {
  read -ra options <<<"${CMAKE_ARGS:-}"
  cmake --preset "$preset" --log-level=WARNING "${options[@]}"
}
cmake --build "$directory" ${JOBS:+-j "$JOBS"} ${1:+--target "$@"}
