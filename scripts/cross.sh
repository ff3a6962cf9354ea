#!/usr/bin/env bash
# Runs test programs under QEMU as on other CPUs, cross-compiled where they are of another architecture:
# scripts/cross.sh arm|s390x|x86 [TEST_PROGRAM...]
#   arm     64-bit Arm; the tests of kernels and engines once for each table of kernels
#   s390x   an architecture whose numbers are big-endian: it reads the files that this machine writes, and writes the same bytes
#   x86     the programs of this machine's build as on a CPU without AVX2, and on one whose best is AVX2 (QEMU 7.2 has no AVX-VNNI)
# Another architecture's Debian libraries are unpacked in its build folder's sysroot: nothing of them is installed on this machine.
# Ends in one line of figures; exits with 1 if a test failed.
#   scripts/cross.sh arm test_kernels                                 one program
#   GTEST_FILTER='Gemm*' scripts/cross.sh arm test_kernels            some tests of it
set -uo pipefail
cd "$(dirname "$0")/.."
name=${1:?scripts/cross.sh arm|s390x|x86 [TEST_PROGRAM...]}
shift
preset=$name build=$PWD/build-$name root=$PWD/build-$name/sysroot
# Debian's and QEMU's name of the architecture; the emulated CPUs, each with the best table of kernels that it has. Of Arm: ARMv8.0,
# one with dot products of bytes, one with those of mixed signs too.
case $name in
  arm)
    debian=arm64 machine=aarch64 cpus=(cortex-a57:neon neoverse-n1:dotprod max:i8mm)
    all=(test_base test_tensor test_kernels test_engine test_quant test_io)
    ;;
  s390x)
    debian=s390x machine=s390x cpus=(max:scalar)
    all=(test_base test_tensor test_io)
    ;;
  x86)
    preset=release build=$PWD/build root=/ machine=x86_64 cpus=(Nehalem:scalar Haswell:avx2)
    all=(test_base test_kernels test_engine test_ops test_runtime)
    ;;
  *)
    echo "scripts/cross.sh: $name: expected arm, s390x or x86" >&2
    exit 2
    ;;
esac

# Of the packages' bytes apt checks the signatures, as it does for this machine's own.
make_sysroot() {
  local apt=$build/apt packages
  packages=$(scripts/setup.sh --libraries) || return
  [ "$debian" = s390x ] && packages=${packages/libxnnpack-dev/}   # which Debian does not have for it
  mkdir -p "$apt"/{lists/partial,cache/archives/partial,parts}
  for suite in debian:bookworm debian-security:bookworm-security; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/${suite%:*} ${suite#*:} main"
  done >"$apt/sources.list"
  : >"$apt/status"
  local options=(-q -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts" -o APT::Architecture=$debian
    -o APT::Architectures=$debian -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Debug::NoLocking=true)
  apt-get "${options[@]}" update >"$apt/log" &&
    # shellcheck disable=SC2086
    apt-get "${options[@]}" install --download-only -y libc6-dev libstdc++-12-dev libgomp1 $packages >>"$apt/log" || {
    echo "scripts/cross.sh: the $debian packages could not be fetched; $apt/log says why" >&2
    return 1
  }
  rm -rf "$root.new" && mkdir -p "$root.new" || return
  local deb link target
  for deb in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$root.new" || return; done
  # Links that begin at the root would lead to this machine's files.
  find "$root.new" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
    target=$(readlink "$link")
    ln -sfnr "$root.new$target" "$link"
  done
  mv "$root.new" "$root"
}
[ -d "$root" ] || make_sysroot || exit 2

programs=("$@")
[ $# -gt 0 ] || programs=("${all[@]}")
PRESET=$preset scripts/build.sh "${programs[@]}" || exit 2

# QEMU 7.2 itself ends in an assertion when a child of a process with threads starts threads; an emulated CPU keeps no time limit; and
# /proc/self/pagemap has QEMU's own addresses in it.
left_out='Perf*:Data*:Ort*:Browser*:Golden*:ParallelFork.*:Json.TimeIsLinearInTheText:MappedFile.ForgottenPages*'
# octet refuses PyTorch's files where numbers are big-endian.
[ "$name" != s390x ] || left_out+=':PyTorchFile.*:FuzzPyTorch.*:Shards.PyTorchsShardsAreReadToo'

# As many at a time as there are CPUs (JOBS says how many), among which the tests of each program are split.
export name build root machine left_out GTEST_TOTAL_SHARDS=${JOBS:-$(nproc)}
one() {
  local cpu=$1 program=$2 shard=$3 log=$build/$2.${1#*:}.$3.log
  GTEST_SHARD_INDEX=$shard OCTET_NUM_THREADS=1 OMP_NUM_THREADS=1 "qemu-$machine" -cpu "${cpu%:*}" -L "$root" "$build/bin/$program" \
    --gtest_filter="${GTEST_FILTER:-*}:-$left_out" --gtest_brief=1 >"$log" 2>&1
  local failed=$(($? != 0)) tests
  [ "$failed" = 0 ] || echo "scripts/cross.sh: $program on ${cpu%:*} failed: $log" >&2
  tests=$(sed -n 's/^\[==========\] \([0-9]*\) tests\? .* ran.*/\1/p' "$log" | tail -1)
  echo "${tests:-0} $failed"
}
export -f one
runs=()
for cpu in "${cpus[@]}"; do
  for program in "${programs[@]}"; do
    # The tables are compared by the tests of kernels and engines; one run of the others is enough.
    [[ $cpu == "${cpus[-1]}" || $program == test_kernels || $program == test_engine ]] && runs+=("$cpu $program")
  done
done
read -r tests failed < <(
  for run in "${runs[@]}"; do
    for ((shard = 0; shard < GTEST_TOTAL_SHARDS; ++shard)); do echo "$run $shard"; done
  done | xargs -P "$GTEST_TOTAL_SHARDS" -L 1 bash -c 'one "$@"' _ |
    awk '{ tests += $1; failed += $2 } END { print tests + 0, failed + 0 }'
)

# Both machines quantize a network, as .octet and as .onnx, and evaluate what the other one made.
exchange() {
  local work from=examples/glyphs there=("qemu-$machine" -cpu max -L "$root" "$build/bin/octet") suffix
  PRESET=release scripts/build.sh octet-cli >/dev/null && PRESET=$preset scripts/build.sh octet-cli >/dev/null || return
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  for suffix in octet onnx; do
    build/bin/octet quantize "$from/glyphs.onnx" --calibrate "$from/calibrate.npz" --samples 64 -o "$work/here.$suffix" >/dev/null &&
      "${there[@]}" quantize "$from/glyphs.onnx" --calibrate "$from/calibrate.npz" --samples 64 -o "$work/there.$suffix" >/dev/null &&
      cmp "$work/here.$suffix" "$work/there.$suffix" || return
  done
  build/bin/octet eval "$work/there.octet" --data "$from/test.npz" --samples 200 | sed 's/ in .*//' >"$work/here" &&
    "${there[@]}" eval "$work/here.octet" --data "$from/test.npz" --samples 200 | sed 's/ in .*//' >"$work/there" && cmp "$work/here" "$work/there"
}
exchanged=
if [ "$preset" != release ] && [ -z "${GTEST_FILTER:-}" ]; then
  exchanged=", the same files as here"
  exchange || {
    echo "scripts/cross.sh: files of $name and of this machine differ" >&2
    failed=$((failed + 1)) exchanged=", other files than here"
  }
fi
echo "$name: ${#runs[@]} runs of ${#programs[@]} test programs on ${#cpus[@]} emulated CPUs, $tests tests$exchanged, $failed failed"
[ "$failed" = 0 ]
