#!/usr/bin/env bash
# The main job, end to end: train a small network, quantize it, compare, look at the result.
set -euo pipefail
cd "$(dirname "$0")/.."
octet=build/bin/octet
out=build/quickstart
mkdir -p "$out"

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n%s\n' "$1"; }
run() { echo "\$ $*"; "$@"; }

say "1. Draw 12,000 images of letters and digits, and train a small convolutional classifier on them"
run build/bin/render_glyphs $out/train.npz 12000
run $octet train examples/glyphs/glyphs.onnx --from-scratch --data $out/train.npz --epochs 7 --optimizer sgd --lr 0.2 \
  -o $out/float.octet

say "2. Quantize it to 8 bits"
run $octet quantize $out/float.octet --calibrate $out/train.npz --samples 512 -o $out/int8.octet

say "3. Accuracy on images of another generator, which it has not seen: float, then int8"
run $octet eval $out/float.octet --data examples/glyphs/test.npz
run $octet eval $out/int8.octet --data examples/glyphs/test.npz

say "4. Latency, measured in alternation"
run $octet bench $out/int8.octet --vs $out/float.octet --seconds 1

say "5. What runs in 8 bits: the typed graph"
run $octet inspect $out/int8.octet
