#!/usr/bin/env bash
# bench.sh [SECTION...] - this runtime beside Debian's runc and crun, from one run on one machine. Prints numbers, asserts none.
#   run     a container that runs `true`, from start to end, all namespaces including the user namespace
#   create  `create` alone
#   exec    `true` in a running container
#   memory  peak of the largest single process of one `run`
#   flat    creation time of the first and of the last of many running containers
#   embed   the same as `run`, in a process that embeds the library: C (`c`), and Go with 1 GiB of heap (`go`); and runtimes
#           as child processes of that Go program
#   docker, inner  Docker as the front end, and inside: see bench-docker.sh
#   nodes   the container's own files in /proc and /sys: see bench-nodes.sh
# The runtimes' state is on a tmpfs. runc and crun share a bundle (their own default one, plus the user and cgroup namespaces); ours is what `spec` writes.
#   SYSBOX_RUNC   the runtime (default: sysbox-runc on PATH)
#   BENCH_ROUNDS  rounds of measurement (5)
#   BENCH_RUNS    runs of each runtime in each round (20)
#   BENCH_FLAT    containers of the section flat (500)
# shellcheck disable=SC2317  # sections are called by name
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
rounds=${BENCH_ROUNDS:-5} runs=${BENCH_RUNS:-20} many=${BENCH_FLAT:-500}
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

median() { sort -g | awk '{v[NR] = $1} END {if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }

row() { printf '%-8s %-14s %12s %12s %10s\n' "$@"; }

# ---- what is measured ----------------------------------------------------------------------------------------------

declare -A program bundles last
names=()

# Our time is the unit: 2.00 means twice as long.
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b > 0) printf "%.2f", a / b; else print "-"}'; }

rt() {
  local name=$1
  shift
  "${program[$name]}" --root "$work/state/$name" "$@" <"$work/stdin" >>"$work/out" 2>&1
}

containers=()
start_sleeper() {
  containers+=("$1 $2")
  rt "$1" create -b "${bundles[$1]}/sleep" "$2" && rt "$1" start "$2"
}
drop_containers() {
  local container
  for container in "${containers[@]}"; do
    # shellcheck disable=SC2086  # two words: runtime and id
    set -- $container
    rt "$1" delete --force "$2" || true
  done
  containers=()
}

# rotate SECTION COMMAND: rounds of hyperfine over all runtimes, another one first each time, so that what changes
# on the machine meanwhile hits all alike. COMMAND is a function printing a runtime's command line.
rotate() {
  local section=$1 command=$2 round i name json words prepare=()
  local -A failed=()
  for ((round = 0; round < rounds; round++)); do
    for ((i = 0; i < ${#names[@]}; i++)); do
      name=${names[(i + round) % ${#names[@]}]}
      json=$work/$section.$name.$round.json
      [[ $section != create ]] || prepare=(--prepare "sh -c '$(line "$name" delete --force "bench-$$-$name") || true'")
      if [[ -z ${failed[$name]:-} ]] && ! hyperfine -N -w 2 -r "$runs" --style basic \
          --output "$work/out" --export-json "$json" "${prepare[@]}" "$($command "$name")" >"$work/hyperfine.log" 2>&1; then
        failed[$name]=1
        rm -f "$work/$section.$name".*.json
        echo "bench: $name failed in section $section:" >&2
        # What hyperfine's stderr swallowed: once more, by hand.
        : >"$work/out"
        read -ra words < <($command "$name")
        "${words[@]}" <"$work/stdin" >>"$work/out" 2>&1 || true
        tail -n 3 "$work/out" >&2
      fi
    done
  done
  for name in "${names[@]}"; do
    [[ -z ${failed[$name]:-} ]] || { row "$section" "$name" failed - -; continue; }
    jq -s -r 'map(.results[0].times[]) | .[] * 1000' "$work/$section.$name".*.json >"$work/times"
    report "$section" "$name" ms "$(median <"$work/times")" "$(sort -g "$work/times" | head -n 1)" 1
  done
}

# report SECTION NAME UNIT MEDIAN MINIMUM DIGITS
report() {
  [[ $2 != "${names[0]}" ]] || last[$1]=$4
  row "$1" "$2" "$(printf '%.*f %s' "$6" "$4" "$3")" "$(printf '%.*f %s' "$6" "$5" "$3")" "$(ratio "$4" "${last[$1]:-0}")"
}

# hyperfine -N splits a line into words itself; none of ours has a space.
line() {
  local name=$1
  shift
  echo "${program[$name]} --root $work/state/$name $*"
}
run_line() { line "$1" run -b "${bundles[$1]}/true" "bench-$$-$1"; }
create_line() { line "$1" create -b "${bundles[$1]}/sleep" "bench-$$-$1"; }
exec_line() { line "$1" exec "bench-$$-$1" /bin/true; }

section_run() { rotate run run_line; }

section_create() {
  local name
  rotate create create_line
  for name in "${names[@]}"; do rt "$name" delete --force "bench-$$-$name" || true; done
}

section_exec() {
  local name
  for name in "${names[@]}"; do start_sleeper "$name" "bench-$$-$name" || echo "bench: $name starts no container" >&2; done
  rotate exec exec_line
  drop_containers
}

section_memory() {
  local name i words
  for name in "${names[@]}"; do
    read -ra words < <(run_line "$name")
    : >"$work/rss"
    for ((i = 0; i < runs; i++)); do
      /usr/bin/time -a -o "$work/rss" -f %M "${words[@]}" <"$work/stdin" >>"$work/out" 2>&1 || break
    done
    if [[ $i -lt $runs ]]; then row memory "$name" failed - -; continue; fi
    report memory "$name" KB "$(median <"$work/rss")" "$(sort -g "$work/rss" | head -n 1)" 0
  done
}

# Timed by the shell, whose own fork and exec are in the numbers (about 1 ms).
section_flat() {
  local name i begin end first latest options
  for name in "${names[@]}"; do
    # A session keyring each is more than the 200 keys that the kernel allows the one user who is all of runc's roots.
    options=()
    [[ $name != runc ]] || options=(--no-new-keyring)
    : >"$work/times"
    for ((i = 0; i < many; i++)); do
      containers+=("$name bench-$$-$name-$i")
      begin=${EPOCHREALTIME/./}
      rt "$name" create "${options[@]}" -b "${bundles[$name]}/sleep" "bench-$$-$name-$i" || break
      end=${EPOCHREALTIME/./}
      rt "$name" start "bench-$$-$name-$i" || break
      echo "$((end - begin))" >>"$work/times"
    done
    if [[ $i -lt $many ]]; then
      echo "bench: $name failed at container $((i + 1)):" >&2
      tail -n 3 "$work/out" >&2
      row flat "$name" failed - -
    else
      first=$(head -n 20 "$work/times" | median)
      latest=$(tail -n 20 "$work/times" | median)
      row flat "$name" "$(awk -v t="$first" 'BEGIN {printf "%.1f ms", t / 1000}')" \
        "$(awk -v t="$latest" 'BEGIN {printf "%.1f ms", t / 1000}')" "$(ratio "$latest" "$first")"
    fi
    drop_containers
  done
}

# Builds the library, as it is installed, and two programs against it.
build_embedders() {
  local repository=$here/..
  make --no-print-directory -C "$repository" install-lib PREFIX="$work/prefix" &&
    cc -O2 "$here/bench-embed.c" -o "$work/embed-c" -I"$work/prefix/include" -L"$work/prefix/lib" -lsysbox \
      -Wl,-rpath,"$work/prefix/lib" &&
    # Go does not notice by itself that it is another library than last time.
    (cd "$repository/bindings/go" && PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig \
      CGO_CFLAGS="-O2 -I$work/prefix/include" CGO_LDFLAGS="-L$work/prefix/lib -Wl,-rpath,$work/prefix/lib" \
      GOFLAGS=-buildvcs=false GOPROXY=off GOTOOLCHAIN=local go build -o "$work/embed-go" ./internal/bench)
}

section_embed() {
  local round name variants at ms
  local -A failed=()
  if ! build_embedders >"$work/build.log" 2>&1; then
    echo "bench: the library or its users cannot be built:" >&2
    tail -n 5 "$work/build.log" >&2
    row embed all failed - -
    return
  fi
  variants=("go,$work/state/go,${bundles[${names[0]}]}/true")
  for name in "${names[@]}"; do variants+=("$name,${program[$name]},$work/state/$name,${bundles[$name]}/true"); done
  for ((round = 0; round < rounds; round++)); do
    "$work/embed-c" "$work/state/c" "${bundles[${names[0]}]}/true" "$runs" <"$work/stdin" >>"$work/embed.c" || failed[c]=1
    at=$((round % ${#variants[@]}))
    while read -r name ms; do
      if [[ $ms == failed ]]; then failed[$name]=1; else echo "$ms" >>"$work/embed.$name"; fi
    done < <(
      "$work/embed-go" -runs "$runs" "${variants[@]:at}" "${variants[@]:0:at}" <"$work/stdin"
    )
  done
  for name in "${names[0]}" c go "${names[@]:1}"; do
    if [[ -z ${failed[$name]:-} && -s $work/embed.$name ]]; then
      report embed "$name" ms "$(median <"$work/embed.$name")" "$(sort -g "$work/embed.$name" | head -n 1)" 1
    else
      row embed "$name" failed - -
    fi
  done
}

# ---- the surroundings ----------------------------------------------------------------------------------------------

# bundle DIR ROOTFS: two bundles from DIR's config.json, to end at once and to stay.
bundle() {
  local dir=$1 rootfs=$2 kind
  for kind in true sleep; do
    mkdir "$dir/$kind"
    jq --arg rootfs "$rootfs" --arg kind "$kind" '.root.path = $rootfs | .root.readonly = false | .process.terminal = false
      | .process.args = (if $kind == "true" then ["/bin/true"] else ["/bin/sleep", "1000000"] end)' \
      "$dir/config.json" >"$dir/$kind/config.json"
  done
}

# unmount DIR: a version 1 hierarchy, until the kernel has none. It keeps one whose cgroups, dead ones too, were there when it
# was unmounted, and while there is a hierarchy that is not mounted containerd has no metrics of any container.
unmount() {
  local i
  umount "$1"
  for ((i = 0; i < 20; i++)); do
    # It takes the kernel a moment.
    sleep 0.5
    if [[ $(awk -v c="${1##*/}" '$1 == c {print $2}' /proc/cgroups) == 0 ]]; then break; fi
    mount -t cgroup -o "${1##*/}" cgroup "$1" && umount "$1"
  done
  rmdir "$1"
}

inside() {
  local tree section controller
  runtime=$1 tree=$2
  shift 2
  work=$(mktemp -d "$(dirname "$tree")/bench.XXXXXX")
  chmod 0755 "$work"
  mounted=()
  cleanup() {
    drop_containers
    local at
    for at in "${mounted[@]}"; do unmount "$at"; done
    ! mountpoint -q "$work/state" || umount -l "$work/state"
    rm -rf --one-file-system "$work"
  }
  trap cleanup EXIT
  trap 'exit 130' INT TERM
  : >"$work/stdin"

  # runc gives the device node that is its stdio to the container's root, and hyperfine makes that /dev/null: let it
  # have one that only this mount namespace sees.
  mkdir "$work/dev"
  mount -t tmpfs -o mode=0755 tmpfs "$work/dev"
  mknod -m 0666 "$work/dev/null" c 1 3
  mount --bind "$work/dev/null" /dev/null
  umount -l "$work/dev"

  # crun takes no host whose v2 hierarchy has controllers beside v1 ones. A controller that is mounted as v1 leaves
  # v2; runc wants the mount point named after it. Not asked of cgroup.controllers: after a run it takes seconds until
  # the controller is back there.
  if [[ -e /sys/fs/cgroup/unified/cgroup.controllers ]]; then
    while read -r controller; do
      [[ -z $(findmnt -n -t cgroup -O "$controller") ]] || continue
      mkdir -p "/sys/fs/cgroup/$controller"
      if mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"; then
        mounted+=("/sys/fs/cgroup/$controller")
      else
        rmdir "/sys/fs/cgroup/$controller"
      fi
    done < <(awk '$4 == 1 {print $1}' /proc/cgroups)
  fi

  # runc 1.1 and crun 1.8 do not map the rootfs themselves: theirs is chowned. (busybox has no set-id file to lose.)
  mkdir "$work/ours" "$work/peers"
  cp -a --reflink=auto "$tree" "$work/ours/rootfs"
  cp -a --reflink=auto "$tree" "$work/peers/rootfs"
  chown -hR 1000000:1000000 "$work/peers/rootfs"
  "$runtime" spec --bundle "$work/ours"
  bundle "$work/ours" "$work/ours/rootfs"
  names=("$(basename "$runtime")")
  program[${names[0]}]=$runtime bundles[${names[0]}]=$work/ours

  runc spec --bundle "$work/peers"
  jq '.linux.namespaces = (["pid", "network", "ipc", "uts", "mount", "cgroup", "user"] | map({type: .}))
    | .linux.uidMappings = [{containerID: 0, hostID: 1000000, size: 65536}] | .linux.gidMappings = .linux.uidMappings' \
    "$work/peers/config.json" >"$work/peers/config.json.new"
  mv "$work/peers/config.json.new" "$work/peers/config.json"
  bundle "$work/peers" "$work/peers/rootfs"
  local peer
  for peer in runc crun; do
    if ! command -v "$peer" >/dev/null; then echo "bench: no $peer" >&2; continue; fi
    # The stand-in for ours may be runc itself.
    [[ -z ${program[$peer]:-} ]] || continue
    names+=("$peer")
    program[$peer]=$(command -v "$peer") bundles[$peer]=$work/peers
  done

  # State belongs on the memory file system that /run is on any host with systemd. Where it is a disk's, that one's journal would
  # be what is measured.
  mkdir "$work/state"
  mount -t tmpfs -o mode=0755 tmpfs "$work/state"

  echo "$(uname -sr), $(nproc) CPUs, load $(cut -d' ' -f1 /proc/loadavg); $rounds rounds of $runs runs; runc $(runc --version | awk 'NR == 1 {print $3}'), crun $(crun --version | awk 'NR == 1 {print $3}')"
  local heading=
  for section in "$@"; do
    # Columns mean something else in `flat`.
    if [[ $section == flat ]]; then
      row section runtime first-20 last-20 last/first
      heading=
    elif [[ -z $heading ]]; then
      row section runtime median minimum "ratio"
      heading=1
    fi
    "section_$section"
  done
}

if [[ ${1:-} == --inside ]]; then
  shift
  inside "$@"
  exit
fi

[[ $# -gt 0 ]] || set -- run create exec embed memory flat nodes docker inner
engine=() plain=() nodes=
for section in "$@"; do
  case $section in docker | inner) engine+=("$section"); continue ;; nodes) nodes=1; continue ;; *) plain+=("$section") ;; esac
  [[ $(type -t "section_$section") == function ]] || { echo "bench: no section $section" >&2; exit 2; }
done
[[ $EUID -eq 0 ]] || { echo "bench: needs root" >&2; exit 2; }
runtime=${SYSBOX_RUNC:-sysbox-runc}
runtime=$(readlink -f "$(command -v "$runtime")") || { echo "bench: no $runtime; make build" >&2; exit 2; }
"$here/deps.sh" hyperfine jq time unshare runc crun
tree=$("$here/rootfs.sh" busybox)

status=0
if [[ ${#plain[@]} -gt 0 ]]; then
  unshare --mount --propagation private "$0" --inside "$runtime" "$tree" "${plain[@]}" </dev/null || status=$?
fi
owner=$(stat -c %u:%g /dev/null)
if [[ $owner != 0:0 ]]; then
  echo "bench: a runtime gave /dev/null to $owner; given back" >&2
  chown 0:0 /dev/null
fi
if [[ -n $nodes ]]; then SYSBOX_RUNC=$runtime "$here/bench-nodes.sh" || status=$?; fi
if [[ ${#engine[@]} -gt 0 ]]; then SYSBOX_RUNC=$runtime "$here/bench-docker.sh" "${engine[@]}" || status=$?; fi
exit $status
