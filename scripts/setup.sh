#!/usr/bin/env bash
# Installs what octet needs on Debian 12. The one list of packages; docs/dependencies.md says what each is for.
# Installs only what is missing, so a second run does nothing. Each word given adds packages: `browser` Chromium, `docs` what
# `make docs` takes, `python` what the Python package takes, `package` what `make package` takes besides,
# `fuzz` what `make fuzz` takes, `mpi` what -DOCTET_MPI=ON takes (--with-mpi says the same), `coverage` gcovr; `arm`, `s390x` and
# `x86` what the targets of these names take.
# With --libraries it only says which libraries octet is built with.
set -euo pipefail

libraries=(
  libdnnl-dev libxnnpack-dev libpthreadpool-dev libonnx-dev libprotobuf-dev
  libcli11-dev libfmt-dev nlohmann-json3-dev libjpeg62-turbo-dev libpng-dev libre2-dev libxxhash-dev zlib1g-dev libgtest-dev
)
if [ "${1:-}" = --libraries ]; then
  echo "${libraries[*]}"
  exit
fi
packages=(
  # building
  g++ cmake ninja-build make git ccache mold pkg-config protobuf-compiler
  "${libraries[@]}"
  # the quickstart's letters
  fonts-dejavu-core libstb-dev
  # testing
  libbenchmark-dev tidy
  # the format check
  clang-format
)

for word in "$@"; do
  case $word in
    browser) packages+=(chromium) ;;   # 350 MB, for the tests of the pages of `octet compare` and `octet inspect` only
    python) packages+=(pybind11-dev python3-dev python3-numpy mypy) ;;
    docs) packages+=(mkdocs mkdocs-material doxygen) ;;
    arm) packages+=(g++-aarch64-linux-gnu qemu-user) ;;
    x86) packages+=(qemu-user) ;;
    s390x) packages+=(g++-s390x-linux-gnu qemu-user) ;;
    coverage) packages+=(gcovr) ;;
    fuzz) packages+=(clang-14 libclang-rt-14-dev libomp-14-dev) ;;
    package) packages+=(dpkg-dev file) ;;
    mpi|--with-mpi) packages+=(libopenmpi-dev openmpi-bin) ;;
    *) echo "scripts/setup.sh: no packages are called $word; there are arm, browser, coverage, docs, fuzz, mpi, package, python, s390x and x86" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

# Without apt, or without the right to use it: say what is to be installed, and by what command.
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
if ! command -v apt-get >/dev/null; then
  echo "octet: these Debian 12 packages are missing, and there is no apt-get to install them: ${missing[*]}" >&2
  exit 1
fi
if [ ${#sudo[@]} -gt 0 ] && ! command -v sudo >/dev/null; then
  echo "octet: Debian packages are missing, and installing them takes root. As root, run once:" >&2
  echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
echo "installing: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
