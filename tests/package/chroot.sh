#!/usr/bin/env bash
# Makes ROOT a new, minimal Debian 12 with this machine's package sources. Takes root, debootstrap, and some 250 MB; what
# debootstrap made is kept beside it (../bookworm.tar) for the next time:
#
#   tests/package/chroot.sh ROOT
set -euo pipefail
root=$1
image=$(dirname "$root")/bookworm.tar
mkdir -p "$root"
if [ ! -f "$image" ]; then
  debootstrap --variant=minbase bookworm "$root" >"$root.log" 2>&1 || { tail -20 "$root.log" >&2; exit 1; }
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root.log"
  tar -C "$root" -cf "$image.part" .
  mv "$image.part" "$image"
else
  tar -C "$root" -xf "$image"
fi
cp /etc/resolv.conf "$root/etc/"
if [ -f /etc/apt/sources.list.d/debian.sources ]; then
  cp /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/"
  rm -f "$root/etc/apt/sources.list"
fi
for settings in $(grep -l '^Acquire::' /etc/apt/apt.conf.d/* || true); do   # proxies and the like
  cp "$settings" "$root/etc/apt/apt.conf.d/"
done
