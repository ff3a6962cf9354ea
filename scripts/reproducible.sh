#!/usr/bin/env bash
# Whether two clones in two folders give the same installed bytes: scripts/reproducible.sh
# Both are built from nothing, without ccache. OCTET_FLOOR=base (tensor, kernels ...) compares the objects of one floor's sources
# instead, which takes minutes and not an hour. Ends in one line of figures; what differs is named before it.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CCACHE_DISABLE=1
for clone in one/octet another/place; do
  mkdir -p "$work/$clone"
  git archive HEAD | tar -x -C "$work/$clone"
  (
    cd "$work/$clone"
    cmake --preset release --log-level=ERROR -DOCTET_BUILD_TESTS=OFF -DOCTET_BUILD_EXAMPLES=OFF >/dev/null
    if [ -n "${OCTET_FLOOR:-}" ]; then
      targets=$(ninja -C build -t targets all | sed -n "s#^\(CMakeFiles/octet.dir/octet/$OCTET_FLOOR/.*\.o\): .*#\1#p
        s#^\(CMakeFiles/octet.dir/together/${OCTET_FLOOR}_.*\.o\): .*#\1#p")
      # shellcheck disable=SC2086
      ninja -C build ${JOBS:+-j "$JOBS"} $targets >/dev/null
      mkdir -p "../$(basename "$clone").installed"
      (cd build && cp --parents $targets "../../$(basename "$clone").installed")
    else
      cmake --build build ${JOBS:+-j "$JOBS"} >/dev/null
      DESTDIR=$PWD/../$(basename "$clone").installed cmake --install build >/dev/null
    fi
  )
done
one=$work/one/octet.installed another=$work/another/place.installed
files=$(cd "$one" && find . -type f | wc -l)
bytes=$(du -sb --apparent-size "$one" | cut -f1)
if diff -rq "$one" "$another"; then
  echo "reproducible: $files files, $bytes bytes: the same from two folders"
else
  echo "reproducible: FAILED: $files files, of which those above differ"
  exit 1
fi
