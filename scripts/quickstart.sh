#!/usr/bin/env bash
# The main job, end to end, on the network that ships in examples/glyphs: quantize, compare, look at the result.
set -euo pipefail
cd "$(dirname "$0")/.."
octet=build/bin/octet
out=build/quickstart
mkdir -p "$out"

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n%s\n' "$1"; }
run() { echo "\$ $*"; "$@"; }

say "1. Quantize a trained network to 8 bits (examples/glyphs, a small convolutional classifier)"
run $octet quantize examples/glyphs/glyphs.onnx --calibrate examples/glyphs/calibrate.npz -o $out/glyphs.octet

say "2. Accuracy on images it has not seen: float, then int8"
run $octet eval examples/glyphs/glyphs.onnx --data examples/glyphs/test.npz
run $octet eval $out/glyphs.octet --data examples/glyphs/test.npz

say "3. Latency, measured in alternation"
run $octet bench $out/glyphs.octet --vs examples/glyphs/glyphs.onnx --seconds 1

say "4. What runs in 8 bits: the typed graph"
run $octet inspect $out/glyphs.octet
