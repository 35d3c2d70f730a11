#!/usr/bin/env bash
# deps.sh [COMMAND...] - see that the commands the scripts here call are present (default: all of them).
# What is missing is installed with apt-get when that is possible and SYSBOX_NO_INSTALL is unset;
# otherwise it is named, with the way to install it, and the exit status is 3. `go` counts from 1.24 on, and is asked for alone.
set -euo pipefail

# command=package; only where a command's name differs from its Debian package's.
declare -A package=(
  [cc]=build-essential [c++]=build-essential [flock]=util-linux [unshare]=util-linux
  [qemu-system-x86_64]=qemu-system-x86 [mkfs.ext4]=e2fsprogs [dockerd]=docker.io [docker]=docker.io [ip]=iproute2
  [go]=golang-go [ctr]=containerd [script]=bsdutils [nsenter]=util-linux [/usr/lib/cni/bridge]=containernetworking-plugins
)
all=(cc c++ make pkg-config valgrind python3 mmdebstrap jq flock unshare runc crun hyperfine time shellcheck qemu-system-x86_64 mkfs.ext4)

# The oldest Go that bindings/go can be built with: 1.N.
go_minor=24

# fits VERSION: as `go version` or a Debian package has it.
fits() {
  [[ $1 =~ (go|:)1\.([0-9]+) ]] && ((BASH_REMATCH[2] >= go_minor))
}

present() {
  [[ $1 == go ]] && { fits "$(GOTOOLCHAIN=local go version 2>/dev/null)"; return; }
  # `time` is a word of the shell's own as well: only the program counts.
  [[ $1 == time ]] && { [[ -x /usr/bin/time ]]; return; }
  # /usr/sbin is not on everybody's PATH, and runc lives there.
  PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null
}

[[ $# -gt 0 ]] || set -- "${all[@]}"
missing=()
for command in "$@"; do
  present "$command" || missing+=("${package[$command]:-$command}")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $EUID -eq 0 && -z ${SYSBOX_NO_INSTALL:-} ]] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  if [[ ${missing[*]} == golang-go ]]; then
    offered() { apt-cache policy golang-go 2>/dev/null | sed -n 's/^ *Candidate: //p'; }
    [[ -n $(offered) ]] || apt-get update >&2 </dev/null || true
    # Half a GiB that would not do.
    if ! fits "$(offered)"; then
      echo "missing: go 1.$go_minor or later; golang-go is $(offered) here (Debian bookworm: 1.19, its backports: 1.23)" >&2
      echo "install: Debian trixie's golang-go, or https://go.dev/dl on the PATH" >&2
      exit 3
    fi
  fi
  # A fresh machine has no package lists; a used one may have stale ones that name versions long gone.
  install=(apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}")
  if "${install[@]}" >&2 </dev/null || { apt-get update >&2 </dev/null && "${install[@]}" >&2 </dev/null; }; then
    exit 0
  fi
fi
[[ " ${missing[*]} " != *" golang-go "* ]] || echo "golang-go: 1.$go_minor or later, which Debian bookworm has not; or https://go.dev/dl" >&2
echo "missing: ${missing[*]}" >&2
echo "install: apt-get install ${missing[*]}   (or your distribution's packages of these names)" >&2
exit 3
