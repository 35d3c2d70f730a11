#!/usr/bin/env bash
# vm.sh [OPTION...] SCRIPT [ARGUMENT...] - run a script as root on another kernel, in a virtual machine, with its output and status.
#   --unified | --hybrid         only cgroup v2 (default); or v1 hierarchies with a v2 one beside them, as systemd mounts them
#   --kernel bookworm | trixie   Debian's cloud kernel of that release: 6.1 (default), 6.12
#   --systemd                    with systemd as the guest's init; the script runs as a service
#   --with FILE                  a file to have beside the script in the guest; may be repeated
# The guest is the tree docker-bookworm of rootfs.sh, with no init system. It has sysbox-runc on its PATH, the trees
# /trees/busybox and /trees/docker-bookworm to make containers from, and no network. What it writes is forgotten.
# With --systemd it is the tree systemd, which has systemd, D-Bus and Docker, and /trees/busybox alone.
#   SYSBOX_RUNC        the runtime to put in (default: sysbox-runc on PATH); static, or for Debian 12
#   SYSBOX_VM_TIMEOUT  seconds for all of it; the exit status is 124 after that (900)
#   SYSBOX_VM_ACCEL    qemu's accelerator: kvm where it works (tcg, which works everywhere and is slow)
#   SYSBOX_VM_LOG      where the kernel's messages go (nowhere; shown if the guest ends without a status)
# Exit 3: a program is missing, and may not or cannot be installed (see deps.sh).
# shellcheck disable=SC2317  # what builds is called by name
set -euo pipefail

say() { echo "vm: $*" >&2; }

# ---- in the guest --------------------------------------------------------------------------------------------------

mount_v1() {
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  local set option
  # A kernel may have been built without some of them.
  for set in cpuset cpu,cpuacct blkio memory devices freezer net_cls,net_prio perf_event hugetlb pids rdma misc systemd; do
    option=$set
    [[ $set != systemd ]] || option=none,name=systemd
    mkdir "/sys/fs/cgroup/$set"
    mount -t cgroup -o "$option" cgroup "/sys/fs/cgroup/$set" 2>/dev/null || rmdir "/sys/fs/cgroup/$set"
  done
  mkdir /sys/fs/cgroup/unified
  mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup/unified
}

# The first serial line is the console, the second the script's output, the third takes its status.
job() {
  local status=0
  # A terminal would put a carriage return before each newline.
  stty -F /dev/ttyS1 raw -echo
  cd /job
  setsid "$@" </dev/null >/dev/ttyS1 2>&1 || status=$?
  stty -F /dev/ttyS2 raw -echo
  echo "$status" >/dev/ttyS2
  busybox poweroff -f
}

# pid 1, until systemd is: which mounts what it needs, on what is not mounted yet.
before_systemd() {
  local word
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -o ro /dev/vdb /lib/modules
  mkdir -p /run/systemd/system
  {
    printf '[Unit]\nRequires=basic.target\n'
    printf '[Service]\nType=oneshot\nTimeoutStartSec=infinity\nEnvironment=HOME=/root LC_ALL=C.UTF-8\nExecStart=/job/vm.sh --job'
    for word; do printf ' "%s"' "$word"; done
    echo
  } >/run/systemd/system/job.service
  exec /sbin/init
}

# pid 1.
inside() {
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mkdir -p /dev/pts /dev/shm
  ln -s /proc/self/fd /dev/fd
  mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
  mount -t tmpfs tmpfs /dev/shm
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -t tmpfs tmpfs /tmp
  mount -o ro /dev/vdb /lib/modules
  # As systemd has it: these options decide what may move where.
  if [[ $1 == hybrid ]]; then mount_v1; else mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup; fi
  hostname vm
  ip link set lo up
  modprobe -a overlay fuse tun 2>/dev/null || true
  shift
  job "$@"
}

case ${1:-} in
  --inside) shift; inside "$@"; exit ;;
  --before-systemd) shift; before_systemd "$@"; exit ;;
  --job) shift; job "$@"; exit ;;
esac

# ---- on the host ---------------------------------------------------------------------------------------------------

here=$(dirname "$(readlink -f "$0")")
export SYSBOX_TREES=${SYSBOX_TREES:-/var/tmp/sysbox-trees}
vm=$SYSBOX_TREES/vm

# filesystem IMAGE SIZE TREE
filesystem() {
  truncate -s "$2" "$1"
  mkfs.ext4 -q -F -d "$3" "$1" >&2
}

# What a kernel is, made from its Debian packages: the kernel, its modules as a disk, and what mounts the root disk.
build_kernel() {
  local suite=$1 to=$2 work=$2/work initrd=$2/work/initrd modules version name file
  mkdir -p "$initrd"/{bin,dev,proc,root}
  # A frozen mirror's Release file may have run out.
  mmdebstrap --quiet --mode=root --variant=extract --include=linux-image-cloud-amd64 \
    --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$work/tree" >&2 </dev/null
  mv "$work"/tree/boot/vmlinuz-* "$to/vmlinuz"
  # /usr/lib in one release of Debian, /lib in the one before.
  modules=$(find "$work/tree" -path '*/lib/modules/*' -prune -print -quit)
  version=${modules##*/}
  find "$modules" -name '*.ko.xz' -exec "$busybox" unxz {} +
  mkdir -p "$work/modules/lib/modules"
  mv "$modules" "$work/modules/lib/modules/"
  (cd "$work/modules" && "$busybox" depmod -b . "$version")
  filesystem "$to/modules.img" 256M "$work/modules/lib/modules"

  cp "$SYSBOX_TREES/busybox/bin/busybox" "$initrd/bin/"
  {
    echo '#!/bin/busybox sh'
    echo '/bin/busybox mount -t devtmpfs devtmpfs /dev'
    # In the order they need each other; what a kernel lacks here it has built in.
    for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
      file=$(find "$work/modules" -name "$name.ko")
      [[ -n $file ]] || continue
      cp "$file" "$initrd/"
      echo "/bin/busybox insmod /$name.ko"
    done
    echo '/bin/busybox mount -t ext4 /dev/vda /root'
    echo '/bin/busybox mount -t devtmpfs devtmpfs /root/dev'
    echo '/bin/busybox mount -t tmpfs tmpfs /root/job'
    echo '/bin/busybox tar -x -C /root/job </dev/vdc'
    echo 'exec /bin/busybox switch_root /root /job/init'
  } >"$initrd/init"
  chmod 0755 "$initrd/init"
  (cd "$initrd" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$to/initrd"
  echo "$version" >"$to/version"
  rm -rf "$work"
}

# The disk that all kernels share: a Debian with Docker to run on, and the trees.
build_disk() {
  local to=$1 root=$1/root
  cp -a --reflink=auto "$SYSBOX_TREES/docker-bookworm" "$root"
  mkdir -p "$root/job" "$root/trees" "$root/lib/modules"
  cp -a --reflink=auto "$SYSBOX_TREES"/{busybox,docker-bookworm} "$root/trees/"
  # The kernel calls it for what it loads itself.
  ln -s /bin/busybox "$root/sbin/modprobe"
  ln -s /job/sysbox-runc "$root/usr/local/bin/sysbox-runc"
  filesystem "$to/disk.img" 8G "$root"
  rm -rf "$root"
}

build_systemd_disk() {
  local to=$1 root=$1/root
  cp -a --reflink=auto "$SYSBOX_TREES/systemd" "$root"
  mkdir -p "$root/job" "$root/trees" "$root/lib/modules"
  cp -a --reflink=auto "$SYSBOX_TREES/busybox" "$root/trees/"
  ln -sf /bin/busybox "$root/sbin/modprobe"
  ln -s /job/sysbox-runc "$root/usr/local/bin/sysbox-runc"
  # Scripts start it when they have configured it.
  rm -f "$root"/etc/systemd/system/*.wants/{docker,containerd}.service "$root"/etc/systemd/system/sockets.target.wants/docker.socket
  filesystem "$to/disk.img" 4G "$root"
  rm -rf "$root"
}

# ensure NAME RECIPE COMMAND...: $vm/NAME, built by COMMAND $vm/NAME unless it is there, from this recipe.
ensure() {
  local name=$1 want tmp=$vm/$1.tmp.$$ started=$SECONDS
  want=$(sha256sum <<<"$2" | cut -d' ' -f1)
  shift 2
  (
    flock 9
    if [[ $(cat "$vm/$name/stamp" 2>/dev/null) == "$want" ]]; then exit 0; fi
    rm -rf "${vm:?}/$name" "$vm/$name".tmp.*
    say "building $name"
    mkdir "$tmp"
    trap 'rm -rf "$tmp"' EXIT
    "$@" "$tmp"
    echo "$want" >"$tmp/stamp"
    mv -T "$tmp" "$vm/$name"
    say "built $name in $((SECONDS - started)) s"
  ) 9>"$vm/.$name.lock"
}

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

mode=unified suite=bookworm systemd="" files=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --unified | --hybrid) mode=${1#--} ;;
    --kernel) suite=${2:-}; shift ;;
    --systemd) systemd=1 ;;
    --with) files+=("${2:-}"); shift ;;
    -*) usage ;;
    *) break ;;
  esac
  shift
done
[[ $# -ge 1 && $suite =~ ^(bookworm|trixie)$ ]] || usage
script=$1
shift

[[ $EUID -eq 0 ]] || { say "needs root: the trees are owned by root"; exit 2; }
[[ $(uname -m) == x86_64 ]] || { say "only for x86-64"; exit 2; }
runtime=${SYSBOX_RUNC:-sysbox-runc}
runtime=$(readlink -f "$(command -v "$runtime")") || { say "no ${SYSBOX_RUNC:-sysbox-runc}; make build"; exit 2; }
"$here/deps.sh" qemu-system-x86_64 mkfs.ext4 mmdebstrap jq flock

busybox=$("$here/rootfs.sh" busybox)/bin/busybox
mkdir -p "$vm"
ensure "kernel-$suite" "$(declare -f build_kernel)" build_kernel "$suite"
if [[ $systemd ]]; then
  disk="systemd-disk"
  "$here/rootfs.sh" systemd >/dev/null
  ensure systemd-disk "$(declare -f build_systemd_disk; cat "$SYSBOX_TREES"/{busybox,systemd}.complete)" build_systemd_disk
else
  disk=disk
  "$here/rootfs.sh" docker-bookworm >/dev/null
  ensure disk "$(declare -f build_disk; cat "$SYSBOX_TREES"/{busybox,docker-bookworm}.complete)" build_disk
fi

work=$(mktemp -d "$vm/job.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/job"
install -m 0755 "$runtime" "$work/job/sysbox-runc"
cp -p "$script" "${files[@]}" "$work/job/"
install -m 0755 "$0" "$work/job/vm.sh"
{
  echo '#!/bin/bash'
  if [[ $systemd ]]; then printf 'exec /job/vm.sh --before-systemd /bin/bash'; else printf 'exec /job/vm.sh --inside %s bash' "$mode"; fi
  printf ' %q' "/job/$(basename "$script")" "$@"
  echo
} >"$work/job/init"
chmod 0755 "$work/job/init"
# Padded: a disk is whole sectors.
tar --numeric-owner --owner=0 --group=0 -C "$work/job" -b 128 -cf "$work/job.tar" .

# Without AppArmor, whose programs Docker would look for in vain.
append='console=ttyS0 panic=-1 quiet'
[[ ! $systemd ]] || append+=" apparmor=0 systemd.unit=job.service systemd.unified_cgroup_hierarchy=$([[ $mode == hybrid ]] && echo 0 || echo 1)"
status=0 log=${SYSBOX_VM_LOG:-$work/console}
: >"$work/status"
timeout --kill-after=10 "${SYSBOX_VM_TIMEOUT:-900}" qemu-system-x86_64 \
  -accel "${SYSBOX_VM_ACCEL:-tcg}" -cpu max,la57=off -m 3072 -smp 2 -no-reboot -nic none -display none -monitor none \
  -kernel "$vm/kernel-$suite/vmlinuz" -initrd "$vm/kernel-$suite/initrd" -append "$append" \
  -drive "file=$vm/$disk/disk.img,if=virtio,format=raw,snapshot=on,cache=unsafe" \
  -drive "file=$vm/kernel-$suite/modules.img,if=virtio,format=raw,readonly=on" \
  -drive "file=$work/job.tar,if=virtio,format=raw,readonly=on" \
  -serial "file:$log" -serial stdio -serial "file:$work/status" </dev/null || status=$?
case $status in
  0) ;;
  124 | 137) say "not done after ${SYSBOX_VM_TIMEOUT:-900} s"; exit 124 ;;
  *) say "qemu: exit status $status"; exit 125 ;;
esac
if ! read -r status <"$work/status"; then
  say "the guest ended without a status; the kernel's last words:"
  tail -n 20 "$log" >&2
  exit 125
fi
exit "$status"
