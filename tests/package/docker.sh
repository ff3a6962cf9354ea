#!/usr/bin/env bash
# Runs the steps of the Dockerfile, or those of the devcontainer, in bare Debian 12 systems made by debootstrap, without Docker:
#
#   OCTET_CHROOT=/var/tmp/chroot tests/package/docker.sh Dockerfile
#   OCTET_CHROOT=/var/tmp/chroot tests/package/docker.sh devcontainer
#
# Of the Dockerfile the instructions FROM, WORKDIR, COPY, RUN and ENTRYPOINT are known; at the end the entry point prints its version
# and quantizes the example network. The devcontainer's onCreateCommand has to leave a tree that builds. OCTET_CHROOT names a folder
# for the Debian systems. Exits with 77 where that is not set, or debootstrap or root are missing.
set -euo pipefail
what=$1
source=$(realpath "$(dirname "$0")/../..")
skip() { echo "docker.sh: skipped: $1"; exit 77; }
fail() { echo "docker.sh: $1" >&2; exit 1; }
[ -n "${OCTET_CHROOT:-}" ] || skip "OCTET_CHROOT names no folder for a Debian system"
[ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null || skip "it takes debootstrap and root"

roots=()
remove_roots() {
  for root in "${roots[@]}"; do
    umount "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$root"
  done
}
trap remove_roots EXIT

new_root() {   # NAME; sets root
  root=$OCTET_CHROOT/$what-$1
  roots+=("$root")
  "$source/tests/package/chroot.sh" "$root"
  mount -t proc proc "$root/proc" 2>/dev/null || true
}
inside() {   # ROOT FOLDER COMMAND...: in the system, in the folder
  local system=$1 folder=$2
  shift 2
  chroot "$system" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive JOBS="${JOBS:-}" \
    sh -c 'cd "$0" && exec "$@"' "$folder" "$@" || fail "this failed in $folder: $*"
}
copy_tree() {   # FOLDER: what `COPY . .` copies, .dockerignore and files that are not octet's left out
  mkdir -p "$1"
  git -C "$source" ls-files -z --cached --others --exclude-standard | tar -C "$source" --null --ignore-failed-read -T - -cf - 2>/dev/null |
    tar -C "$1" -xf -
}

run_dockerfile() {
  declare -A stage
  local root="" folder=/ entry=""
  while IFS= read -r line; do
    case $line in
      "FROM debian:12"*) new_root "${#roots[@]}"; folder=/
        if [[ $line == *" AS "* ]]; then stage[${line##* AS }]=$root; fi ;;
      "WORKDIR "*) folder=${line#WORKDIR }; mkdir -p "$root$folder" ;;
      "COPY . .") copy_tree "$root$folder" ;;
      "COPY --from="*)
        read -ra words <<<"${line#COPY --from=}"
        # shellcheck disable=SC2086  # the pattern is to be expanded
        cp ${stage[${words[0]}]}${words[1]} "$root${words[2]}" ;;
      "RUN "*) echo "RUN ${line#RUN }"; inside "$root" "$folder" sh -c "${line#RUN }" ;;
      "ENTRYPOINT "*) entry=$(tr -d '[]" ' <<<"${line#ENTRYPOINT }") ;;
      "" | "#"*) ;;
      *) fail "this instruction of the Dockerfile is not known here: $line" ;;
    esac
  done < <(sed -e ':join' -e '/\\$/{N;s/\\\n *//;bjoin}' "$source/Dockerfile")
  inside "$root" / "$entry" --version
  cp -r "$source/examples/glyphs" "$root/tmp/"
  inside "$root" /tmp/glyphs "$entry" quantize glyphs.onnx --calibrate calibrate.npz -o int8.octet >/dev/null
  echo "Dockerfile: built, and $entry quantizes"
}

run_devcontainer() {
  local settings=$source/.devcontainer/devcontainer.json
  value_of() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$settings" "$1"; }
  [ "$(value_of image)" = debian:12 ] || fail "the devcontainer's image is $(value_of image); this makes a debian:12"
  new_root 0
  copy_tree "$root/workspaces/octet"
  inside "$root" /workspaces/octet sh -c "$(value_of onCreateCommand)"
  [ -f "$root/workspaces/octet/build/build.ninja" ] || fail "the devcontainer's onCreateCommand has configured no build"
  inside "$root" /workspaces/octet cmake --build build --target help >/dev/null
  echo "devcontainer: configured"
}

case $what in
  Dockerfile) run_dockerfile ;;
  devcontainer) run_devcontainer ;;
  *) fail "$what is neither Dockerfile nor devcontainer" ;;
esac
