#!/usr/bin/env bash
# rootfs.sh KIND [DIR] - a root file system tree to make containers from.
#   KIND  busybox | docker-bookworm | docker-trixie | docker-forky | docker-tools | systemd
#   DIR   make a copy there, to write to (must not exist); without it: the shared tree, to be left as it is
# Prints the path on stdout, all else on stderr. Trees are built once, under SYSBOX_TREES
# (default /var/tmp/sysbox-trees), owned by real root and so ready for an ID-mapped mount.
# Exit 3: a program is missing, and may not or cannot be installed (see deps.sh).
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
trees=${SYSBOX_TREES:-/var/tmp/sysbox-trees}
docker_packages=docker.io,iptables,ca-certificates,procps,iproute2,util-linux,busybox-static,bubblewrap,fuse3,jq,python3-minimal,strace

say() { echo "rootfs: $*" >&2; }

# The host's own busybox may be the dynamic one, which the static package would throw out: unpack, don't install.
static_busybox() {
  local to=$1 work=$1.deb
  mkdir "$work"
  # apt drops to a user of its own for downloads.
  chmod 0777 "$work"
  if ! (cd "$work" && apt-get download busybox-static >&2 </dev/null); then
    apt-get update >&2 </dev/null
    (cd "$work" && apt-get download busybox-static >&2 </dev/null)
  fi
  dpkg-deb -x "$work"/*.deb "$work/out"
  # /bin in one release of Debian, /usr/bin in the next.
  find "$work/out" -path '*/bin/busybox' -type f -exec mv {} "$to" \;
  rm -rf "$work"
}

build_busybox() {
  local root=$1 applet
  mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,tmp,root,proc,sys,dev,run,etc,home,mnt,opt,var/tmp,var/log}
  chmod 1777 "$root"/{tmp,var/tmp}
  chmod 0700 "$root/root"
  static_busybox "$root/bin/busybox"
  for applet in $("$root/bin/busybox" --list); do
    # The list names busybox itself: linking that would destroy it.
    [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
  done
  # Programs that look only there, and scripts that name env by its usual place.
  ln -s ../../bin/busybox "$root/usr/bin/env"
  ln -s ../bin/busybox "$root/sbin/init"
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'daemon:x:1:1:daemon:/:/bin/false' \
    'user:x:1000:1000:user:/home:/bin/sh' 'nobody:x:65534:65534:nobody:/:/bin/false' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'tty:x:5:' 'user:x:1000:' 'nogroup:x:65534:' >"$root/etc/group"
  echo 127.0.0.1 localhost >"$root/etc/hosts"
}

# debian SUITE PACKAGES ROOT [mmdebstrap's options]
debian() {
  local suite=$1 packages=$2 root=$3
  shift 3
  "$here/deps.sh" mmdebstrap
  # Documentation is a fifth of the tree, and nobody reads it there.
  mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$@" "$suite" "$root" >&2 </dev/null
  # mmdebstrap copies the host's: the same recipe must give the same tree everywhere.
  echo system-container >"$root/etc/hostname"
  printf '%s\n' '127.0.0.1 localhost' '127.0.1.1 system-container' >"$root/etc/hosts"
  : >"$root/etc/resolv.conf"
  # An image for the inner engine: there is no registry to pull from.
  tar --numeric-owner -C "$trees/busybox" -cf "$root/opt/busybox.tar" .
}

build_docker-bookworm() {
  debian bookworm "$docker_packages" "$1"
}

build_docker-trixie() {
  # Here the client and buildx are packages of their own. A frozen mirror's Release file may have run out.
  debian trixie "$docker_packages,docker-cli,docker-buildx" "$1" --aptopt='Acquire::Check-Valid-Until "false"'
}

# The newest engine and runc that Debian has. The suite moves on: a tree that is there is as good as any.
build_docker-forky() {
  debian forky "$docker_packages,docker-cli,docker-buildx" "$1" --aptopt='Acquire::Check-Valid-Until "false"'
}

# What people use beside the engine: Compose, a registry of their own, and openssl for its and the engine's certificates.
build_docker-tools() {
  debian bookworm "$docker_packages,docker-compose,docker-registry,openssl" "$1"
}

build_systemd() {
  debian bookworm "$docker_packages,systemd,systemd-sysv,dbus" "$1"
  chroot "$1" systemctl enable docker.service >&2
}

# What a tree is made from: a stamp that differs means that the recipe has changed. declare -f leaves comments out.
recipe() {
  { declare -f static_busybox build_busybox "build_$1"
    [[ $1 == busybox ]] || { declare -f debian; declare -p docker_packages; }
  } | sha256sum | cut -d' ' -f1
}

ensure() {
  local kind=$1 tree=$trees/$1 stamp=$trees/$1.complete want tmp started=$SECONDS
  want=$(recipe "$kind")
  mkdir -p "$trees"
  # Two callers at once: one builds, the other waits and finds it built. The lock ends with this subshell.
  (
    flock 9
    if [[ -d $tree && $(cat "$stamp" 2>/dev/null) == "$want" ]]; then exit 0; fi
    # Left by runs that were killed: we hold the lock, so no one else is at work there.
    rm -rf --one-file-system "$trees/$kind".tmp.* "$trees/$kind".old.*
    say "building $kind"
    tmp=$trees/$kind.tmp.$$
    mkdir "$tmp"
    trap 'rm -rf --one-file-system "$tmp"' EXIT
    "build_$kind" "$tmp"
    rm -f "$stamp"
    [[ ! -e $tree ]] || mv -T "$tree" "$trees/$kind.old.$$"
    mv -T "$tmp" "$tree"
    echo "$want" >"$stamp"
    rm -rf --one-file-system "$trees/$kind.old.$$"
    say "built $kind in $((SECONDS - started)) s, $(du -sm "$tree" | cut -f1) MB"
  ) 9>"$trees/.$kind.lock"
}

[[ $# -ge 1 && $# -le 2 ]] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
kind=$1 copy=${2:-}
case $kind in
  busybox) ;;
  docker-bookworm | docker-trixie | docker-forky | docker-tools | systemd) ensure busybox ;;
  *) say "unknown kind: $kind"; exit 2 ;;
esac
[[ $EUID -eq 0 ]] || { say "needs root: the trees are owned by root"; exit 2; }
ensure "$kind"

if [[ -z $copy ]]; then
  echo "$trees/$kind"
else
  [[ ! -e $copy ]] || { say "$copy exists"; exit 2; }
  cp -a --reflink=auto "$trees/$kind" "$copy"
  echo "$copy"
fi
