#!/usr/bin/env bash
# Installs what octet needs on Debian 12. The one list of packages; docs/dependencies.md says what each is for.
# Installs only what is missing, so a second run does nothing.
set -euo pipefail

packages=(
  # building
  g++ cmake ninja-build make git ccache mold
  # libraries
  libdnnl-dev libonnx-dev libprotobuf-dev protobuf-compiler
  libcli11-dev libfmt-dev nlohmann-json3-dev libjpeg62-turbo-dev libpng-dev libre2-dev libxxhash-dev zlib1g-dev
  # the quickstart's letters
  fonts-dejavu-core libstb-dev
  # testing
  libgtest-dev libbenchmark-dev valgrind
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing: ${missing[*]}"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
