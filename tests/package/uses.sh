#!/usr/bin/env bash
# The part of debian.sh that runs in the bare Debian: /work has the packages, consumer/ and examples/.
set -euo pipefail
cd /work
quietly() { "$@" >log 2>&1 || { cat log >&2; return 1; }; }
# minbase leaves manual pages out of what it installs only where this file says so.
rm -f /etc/dpkg/dpkg.cfg.d/docker
quietly apt-get update
quietly apt-get install -y --no-install-recommends ./*.deb
echo "installed: $(dpkg-query -W -f '${Package} ${Version}, ' '*octet*')$(du -sh --apparent-size -c /usr/lib/*/liboctet.so.* | tail -1 | cut -f1)"

octet --version
octet inspect examples/glyphs/glyphs.onnx >/dev/null
octet quantize examples/glyphs/glyphs.onnx --calibrate examples/glyphs/calibrate.npz -o int8.octet >/dev/null
octet eval int8.octet --data examples/glyphs/test.npz

python3 - <<'PYTHON'
import numpy as np
import octet

program = octet.compile(octet.load("int8.octet"))
image = np.load("examples/glyphs/calibrate.npz")["images"][:1].astype(np.float32)
print("Python:", octet.__version__, program(image).numpy().argmax())
PYTHON
[ "$(find /usr/lib/python3/dist-packages/octet -name '*.pyc' | wc -l)" -gt 0 ]

quietly apt-get install -y --no-install-recommends g++ cmake make pkg-config man-db bash-completion
sed 's#[^ ]*/examples/c/run_model.c#/work/examples/c/run_model.c#' -i consumer/CMakeLists.txt
quietly cmake -S consumer -B build
quietly cmake --build build
echo "CMake: $(build/consumer model.octet)"
echo "C: $(build/consumer_c model.octet | tail -1)"
quietly g++ -std=c++20 consumer/main.cpp $(pkg-config --cflags --libs octet) -o with_pkg_config
echo "pkg-config: $(./with_pkg_config model.octet)"

man octet | col -b | grep quantize >/dev/null   # not -q: man would write into a closed pipe
bash -ic 'source /usr/share/bash-completion/bash_completion; _completion_loader octet; complete -p octet' 2>/dev/null
echo "manual page and completion: there"

quietly apt-get install -y --no-install-recommends lintian
lintian --fail-on error,warning --allow-root --tag-display-limit 0 ./*.deb
echo "lintian: $(lintian --version): clean"

quietly apt-get purge -y liboctet0.2 liboctet-dev octet-tools python3-octet
# What `man` keeps of a page that was looked at is its own.
left=$(find / -xdev \( -path /work -o -path /proc -o -path /var/cache/man \) -prune -o -name '*octet*' -print)
[ -z "$left" ] || { echo "left behind: $left" >&2; exit 1; }
echo "removed: nothing is left"
