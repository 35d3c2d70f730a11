#!/usr/bin/env bash
# bench-docker.sh SECTION... - the sections of bench.sh for Docker as the front end. Prints numbers, asserts none.
#   docker  `docker run --rm IMAGE true` through this runtime and through runc: busybox, and a Debian of 430 MB
#   inner   `docker run` and `docker build` of an engine inside a system container, and of the host's own engine
# A host's engine of its own, in a directory of its own. What is compared is measured in turns, so that what changes on
# the machine meanwhile hits both. Ratios are of medians: 1.05 means that ours takes 5% longer.
#   SYSBOX_RUNC  the runtime (default: sysbox-runc on PATH)
#   BENCH_PAIRS  pairs of measurements (20)
# shellcheck disable=SC2317  # sections are called by name
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
pairs=${BENCH_PAIRS:-20} step=120
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
unset DOCKER_HOST DOCKER_CONTEXT

median() { sort -g | awk '{v[NR] = $1} END {if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }
row() { printf '%-8s %-26s %12s %12s %8s %12s\n' "$@"; }
die() { echo "bench: $*" >&2; exit 1; }

# ---- the engine ----------------------------------------------------------------------------------------------------

host() { timeout "$step" docker "$@" </dev/null; }

start_engine() {
  local program tree=$1 number=$(($$ % 50 + 200))
  # That of the tree, if it runs here: inside and outside are the same then.
  mkdir "$work/bin"
  for program in bin/docker sbin/dockerd bin/containerd bin/containerd-shim-runc-v2 sbin/runc; do
    if "$tree/usr/$program" --version >/dev/null 2>&1 || [[ $program == *shim* ]]; then
      ln -s "$tree/usr/$program" "$work/bin/"
    fi
  done
  if [[ $(find "$work/bin" -type l | wc -l) == 5 ]]; then
    PATH=$work/bin:$PATH
  else
    echo "bench: the tree's engine does not run on this host: its own is compared" >&2
  fi
  bridge=sbxb$$
  ip link add "$bridge" type bridge
  ip addr add "10.$number.0.1/24" dev "$bridge"
  ip link set "$bridge" up
  export DOCKER_HOST=unix://$work/sock DOCKER_CONFIG=$work/client
  jq -n --arg work "$work" --arg runtime "$runtime" --arg bridge "$bridge" --arg host "$DOCKER_HOST" '{
    runtimes: {"sysbox-runc": {path: $runtime}}, "data-root": "\($work)/data", "exec-root": "\($work)/exec",
    pidfile: "\($work)/pid", hosts: [$host], bridge: $bridge, iptables: false, ip6tables: false, "ip-forward": false,
    "storage-driver": "overlay2"}' >"$work/daemon.json"
  dockerd --config-file "$work/daemon.json" </dev/null >"$work/dockerd.log" 2>&1 &
  dockerd=$!
  local try
  for ((try = 0; try < 600; try++)); do
    host info >/dev/null 2>&1 && return
    kill -0 "$dockerd" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 5 "$work/dockerd.log" >&2
  die "dockerd does not come up"
}

stop_engine() {
  local left try
  if [[ -n ${dockerd:-} ]]; then
    left=$(host ps -aq 2>/dev/null) || true
    # shellcheck disable=SC2086  # ids
    [[ -z $left ]] || host rm -fv $left >/dev/null 2>&1 || true
    kill "$dockerd" 2>/dev/null || true
    for ((try = 0; try < 300; try++)); do kill -0 "$dockerd" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$dockerd" 2>/dev/null || true
    wait "$dockerd" 2>/dev/null || true
  fi
  [[ -z ${bridge:-} ]] || ip link del "$bridge" 2>/dev/null || true
  if mountpoint -q "$work/data"; then umount "$work/data"; fi
  # Should a mount have survived, what is mounted must not be deleted.
  rm -rf --one-file-system "$work"
}

import() { tar --numeric-owner -C "$1" -c . | timeout 600 docker import - "$2" >/dev/null; }

# ---- measuring -----------------------------------------------------------------------------------------------------

# once COMMAND...: its time in ms on stdout. Also the script that runs inside: there, docker exec is not in the number.
once() {
  local begin=${EPOCHREALTIME/./} end
  timeout 120 "$@" </dev/null >/dev/null 2>&1 || { echo failed; return 1; }
  end=${EPOCHREALTIME/./}
  echo "$((end - begin))" | awk '{print $1 / 1000}'
}
within() { host exec "$sys" bash -c "$(declare -f once); once $*"; }

# versus SECTION WHAT OURS THEIRS: two functions that print a time, in turns. The first pair is for the caches.
versus() {
  local i ours=$work/ours theirs=$work/theirs
  : >"$ours"; : >"$theirs"
  for ((i = 0; i <= pairs; i++)); do
    if ! { $3 >>"$ours" && $4 >>"$theirs"; }; then
      row "$1" "$2" failed - - -
      tail -n 3 "$work/dockerd.log" >&2
      return
    fi
    [[ $i -gt 0 ]] || { : >"$ours"; : >"$theirs"; }
  done
  awk -v a="$(median <"$ours")" -v b="$(median <"$theirs")" -v x="$(sort -g "$ours" | head -n 1)" \
    -v y="$(sort -g "$theirs" | head -n 1)" -v s="$1" -v w="$2" 'BEGIN {
    printf "%s\n%s\n%.0f ms\n%.0f ms\n%.2f\n%.2f\n", s, w, a, b, a / b, x / y}' >"$work/line"
  mapfile -t line <"$work/line"
  row "${line[@]}"
}

section_docker() {
  row section what ours runc ratio "of minima"
  local image
  for image in busybox debian; do
    ours() { once docker run --rm --runtime=sysbox-runc "$image" true; }
    theirs() { once docker run --rm --runtime=runc "$image" true; }
    versus docker "run $image" ours theirs
  done
  image=busybox
  # Without what an engine does for a network: the runtime's share is larger.
  ours() { once docker run --rm --network=none --runtime=sysbox-runc "$image" true; }
  theirs() { once docker run --rm --network=none --runtime=runc "$image" true; }
  versus docker "run busybox, no network" ours theirs
}

section_inner() {
  local try
  sys=$(host run -d --runtime=sysbox-runc debian bash -c \
    "exec dockerd --iptables=false --ip6tables=false --ip-forward=false --storage-driver=overlay2 >/var/log/dockerd.log 2>&1")
  for ((try = 0; try < 300; try++)); do
    host exec "$sys" docker info >/dev/null 2>&1 && break
    sleep 0.1
  done
  host exec "$sys" docker import /opt/busybox.tar busybox >/dev/null || die "no engine inside"
  local dockerfile='FROM busybox\nRUN echo one >/one\nRUN echo two >/two\nRUN cat /one /two >/three\n'
  mkdir "$work/build"
  # shellcheck disable=SC2059  # it is the format
  printf "$dockerfile" >"$work/build/Dockerfile"
  host exec "$sys" bash -c "mkdir /build && printf '$dockerfile' >/build/Dockerfile"
  row section what inside host ratio "of minima"
  ours() { within docker run --rm busybox true; }
  theirs() { once docker run --rm --runtime=runc busybox true; }
  versus inner "run busybox" ours theirs
  # The classic builder: BuildKit might be another program on the host than inside. With overlay2 in any user namespace the
  # engine compares whole trees for a layer, and then sleeps until the next full second: half a second a step on average.
  ours() { within env DOCKER_BUILDKIT=0 docker build --no-cache --force-rm -t built /build; }
  theirs() { once env DOCKER_BUILDKIT=0 docker build --no-cache --force-rm -t built "$work/build"; }
  versus inner "build, 3 RUN" ours theirs
  host rm -f "$sys" >/dev/null
}

[[ $# -gt 0 ]] || set -- docker inner
for section in "$@"; do
  [[ $(type -t "section_$section") == function ]] || { echo "bench: no section $section" >&2; exit 2; }
done
[[ $EUID -eq 0 ]] || { echo "bench: needs root" >&2; exit 2; }
runtime=${SYSBOX_RUNC:-sysbox-runc}
runtime=$(readlink -f "$(command -v "$runtime")") || { echo "bench: no $runtime; make build" >&2; exit 2; }
"$here/deps.sh" jq runc dockerd docker ip
busybox=$("$here/rootfs.sh" busybox)
debian=$("$here/rootfs.sh" docker-bookworm)
work=$(mktemp -d "$(dirname "$busybox")/bench.XXXXXX")
trap stop_engine EXIT
trap 'exit 130' INT TERM
start_engine "$debian"
import "$busybox" busybox
import "$debian" debian
echo "$(uname -sr), $(nproc) CPUs, load $(cut -d' ' -f1 /proc/loadavg); $pairs pairs; $(host version --format 'client {{.Client.Version}}, engine {{.Server.Version}}'), runc $(runc --version | awk 'NR == 1 {print $3}')"
for section in "$@"; do "section_$section"; done
