#!/usr/bin/env bash
# Installs the Debian packages that `make package` made in a bare Debian 12, and uses all that they promise: the program, its
# manual page and completion, programs in C++ (CMake and pkg-config), C and Python; lintian says whether they are sound.
#
#   OCTET_CHROOT=/var/tmp/chroot tests/package/debian.sh PACKAGES
#
# OCTET_CHROOT names a folder for the Debian system, which this makes anew. Exits with 77 where that is not set, debootstrap or
# root are missing, or there are no packages.
set -euo pipefail
packages=$1
source=$(realpath "$(dirname "$0")/../..")
skip() { echo "debian.sh: skipped: $1"; exit 77; }
[ -n "${OCTET_CHROOT:-}" ] || skip "OCTET_CHROOT names no folder for a Debian system"
[ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null || skip "it takes debootstrap and root"
ls "$packages"/*.deb >/dev/null 2>&1 || skip "there are no packages in $packages; make package makes them"

root=$OCTET_CHROOT/debian
trap 'umount "$root/proc" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
"$source/tests/package/chroot.sh" "$root"
mount -t proc proc "$root/proc" 2>/dev/null || true
mkdir "$root/work"
cp "$packages"/*.deb "$root/work"
cp -r "$source/tests/package/consumer" "$source/examples" "$root/work"
cp "$source/tests/package/uses.sh" "$root/work"
chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive bash /work/uses.sh
