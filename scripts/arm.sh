#!/usr/bin/env bash
# Builds octet for 64-bit Arm with Debian's cross compiler and runs test programs under QEMU: scripts/arm.sh [TEST_PROGRAM...]
# Debian's arm64 libraries are unpacked in build-arm/sysroot: nothing of them is installed on this machine. Each program runs once for
# each table of kernels that the emulated CPU has. Ends in one line of figures; exits with 1 if a test failed.
#   scripts/arm.sh test_kernels                                       one program
#   GTEST_FILTER='Gemm*' scripts/arm.sh test_kernels                  some tests of it
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD/build-arm/sysroot

# Of the packages' bytes apt checks the signatures, as it does for this machine's own.
make_sysroot() {
  local apt=$PWD/build-arm/apt packages
  packages=$(scripts/setup.sh --libraries) || return
  mkdir -p "$apt"/{lists/partial,cache/archives/partial,parts}
  for suite in debian:bookworm debian-security:bookworm-security; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/${suite%:*} ${suite#*:} main"
  done >"$apt/sources.list"
  : >"$apt/status"
  local options=(-q -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts" -o APT::Architecture=arm64
    -o APT::Architectures=arm64 -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Debug::NoLocking=true)
  apt-get "${options[@]}" update >"$apt/log" &&
    # shellcheck disable=SC2086
    apt-get "${options[@]}" install --download-only -y libc6-dev libstdc++-12-dev libgomp1 $packages >>"$apt/log" || {
    echo "scripts/arm.sh: the arm64 packages could not be fetched; $apt/log says why" >&2
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
[ $# -gt 0 ] || programs=(test_base test_tensor test_kernels test_engine test_quant test_io)
PRESET=arm scripts/build.sh "${programs[@]}" || exit 2

# QEMU 7.2 itself ends in an assertion when a child of a process with threads starts threads; and an emulated CPU keeps no time limit.
left_out='Perf*:Data*:Ort*:Browser*:Golden*:ParallelFork.*:Json.TimeIsLinearInTheText'

# The emulated CPUs: ARMv8.0, one with dot products of bytes, one with those of mixed signs too.
failed=0 tests=0 runs=0
for cpu in cortex-a57:neon neoverse-n1:dotprod max:i8mm; do
  for program in "${programs[@]}"; do
    log=build-arm/$program.${cpu#*:}.log
    OCTET_NUM_THREADS=1 OMP_NUM_THREADS=1 qemu-aarch64 -cpu "${cpu%:*}" -L "$root" "build-arm/bin/$program" \
      --gtest_filter="${GTEST_FILTER:-*}:-$left_out" --gtest_brief=1 >"$log" 2>&1 || {
      echo "scripts/arm.sh: $program on ${cpu%:*} failed: $log" >&2
      failed=$((failed + 1))
    }
    ran=$(sed -n 's/^\[==========\] \([0-9]*\) tests\? .* ran.*/\1/p' "$log" | tail -1)
    tests=$((tests + ${ran:-0}))
    runs=$((runs + 1))
  done
done
echo "arm: $runs runs of ${#programs[@]} test programs on 3 emulated CPUs, $tests tests, $failed runs failed"
[ "$failed" = 0 ]
