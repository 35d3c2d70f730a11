#!/usr/bin/env bash
# bench-nodes.sh - the section `nodes` of bench.sh: what the container's own files in /proc and /sys cost. Prints numbers, asserts none.
#   read    open, read and close of a file by a process in a container with limits: live, of lxcfs for the same process, the kernel's
#   start   `run` of a container that ends at once: without nodes, with stored ones (the default), with live ones
#   monitor memory that a monitor has for itself
#   mount   mount(2) in a container without nodes, with them, and with nodes for mounts made inside (sysbox.nested-nodes)
#   SYSBOX_RUNC  the runtime (default: sysbox-runc on PATH)
#   BENCH_READS  reads of each file (2000)
#   BENCH_PAIRS  starts of each kind (60)
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
reads=${BENCH_READS:-2000} pairs=${BENCH_PAIRS:-60}
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

row() { printf '%-8s %-26s %12s %10s\n' "$@"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b > 0) printf "%.2f", a / b; else print "-"}'; }
median() { sort -g | awk '{v[NR] = $1} END {if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }

[[ $EUID -eq 0 ]] || { echo "bench: needs root" >&2; exit 2; }
runtime=${SYSBOX_RUNC:-sysbox-runc}
runtime=$(readlink -f "$(command -v "$runtime")") || { echo "bench: no $runtime; make build" >&2; exit 2; }
# What is mounted here is gone with this process.
if [[ ${1:-} != --inside ]]; then
  exec unshare --mount --propagation private "$0" --inside </dev/null
fi
"$here/deps.sh" cc jq
"$here/deps.sh" lxcfs || echo "bench: no lxcfs to compare with" >&2
tree=$("$here/rootfs.sh" busybox)

work=$(mktemp -d "$(dirname "$tree")/bench.XXXXXX")
chmod 0755 "$work"
lxcfs=
cleanup() {
  local id
  for id in $("$runtime" --root "$work/state" list -q 2>/dev/null); do rt delete --force "$id" || true; done
  if [[ -n $lxcfs ]]; then
    umount "$work/lxcfs" || true
    kill "$lxcfs" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
rt() { "$runtime" --root "$work/state" "$@"; }

cp -a --reflink=auto "$tree" "$work/rootfs"
cc -O2 -static -o "$work/rootfs/bench" "$here/bench-nodes.c"
mkdir "$work/rootfs/p" "$work/rootfs/m" "$work/lxcfs"

# bundle NAME PROGRAM FILTER: a bundle of a container with limits, changed by a filter of jq's.
bundle() {
  mkdir "$work/$1"
  [[ -e $work/config.json ]] || rt spec --bundle "$work"
  jq --arg root "$work/rootfs" --arg program "$2" ".root.path = \$root | .process.terminal = false | .process.args = (\$program | split(\" \"))
    | .linux.resources.memory.limit = 268435456 | $3" "$work/config.json" >"$work/$1/config.json"
}
started() {
  rt create -b "$work/$1" "bench-$$-$1" <"$work/stdin" >>"$work/out" 2>&1 && rt start "bench-$$-$1"
}
: >"$work/stdin"

# ---- reads and memory ----------------------------------------------------------------------------------------------

binds='.'
if command -v lxcfs >/dev/null; then
  lxcfs -f "$work/lxcfs" >"$work/lxcfs.log" 2>&1 &
  lxcfs=$!
  for ((i = 0; i < 100; i++)); do [[ ! -e $work/lxcfs/proc/meminfo ]] || break; sleep 0.1; done
  binds=".annotations[\"sysbox.skip-uid-shift\"] = \"/lxcfs\" | .mounts += [{destination: \"/lxcfs\", type: \"bind\", source: \"$work/lxcfs\", options: [\"bind\"]}]"
fi
bundle read 'sleep 100000' "$binds"
started read
rt exec "bench-$$-read" mount -t proc proc /p
row section what time ratio
for file in meminfo stat cpuinfo; do
  files=("/proc/$file" "/p/$file")
  [[ -z $lxcfs ]] || files+=("/lxcfs/proc/$file")
  mapfile -t times < <(rt exec "bench-$$-read" /bench read "$reads" "${files[@]}")
  row read "$file" "${times[0]} us" 1.00
  row read "$file of the kernel" "${times[1]} us" "$(ratio "${times[1]}" "${times[0]}")"
  [[ -z $lxcfs ]] || row read "$file of lxcfs" "${times[2]} us" "$(ratio "${times[2]}" "${times[0]}")"
done
monitor=$(jq .pid "$work/state/bench-$$-read/monitor.json")
row monitor 'its own memory' "$(awk '/^Anonymous:/ {print $2}' "/proc/$monitor/smaps_rollup") KB" -
rt delete --force "bench-$$-read"

# ---- starts --------------------------------------------------------------------------------------------------------

bundle none true '.annotations["sysbox.nodes"] = "off"'
bundle stored true '.annotations["sysbox.nodes"] = "stored"'
bundle live true '.'
for ((i = 0; i < pairs; i++)); do
  for kind in none stored live; do
    begin=${EPOCHREALTIME/./}
    rt run -b "$work/$kind" "bench-$$-$kind" <"$work/stdin" >>"$work/out" 2>&1
    end=${EPOCHREALTIME/./}
    echo "$((end - begin))" >>"$work/$kind.times"
  done
done
base=$(median <"$work/none.times")
for kind in none stored live; do
  time=$(median <"$work/$kind.times")
  row start "nodes: $kind" "$(awk -v t="$time" 'BEGIN {printf "%.2f ms", t / 1000}')" "$(ratio "$time" "$base")"
done

# ---- mounts --------------------------------------------------------------------------------------------------------

bundle m-none 'sleep 100000' '.annotations["sysbox.nodes"] = "off"'
bundle m-live 'sleep 100000' '.'
bundle m-nested 'sleep 100000' '.annotations["sysbox.nested-nodes"] = "true"'
for kind in none live nested; do started "m-$kind"; done
for fstype in tmpfs proc; do
  for ((i = 0; i < 5; i++)); do
    for kind in none live nested; do
      rt exec "bench-$$-m-$kind" /bench mount 100 "$fstype" /m >>"$work/$kind.$fstype"
    done
  done
  base=$(median <"$work/none.$fstype")
  for kind in none live nested; do
    time=$(median <"$work/$kind.$fstype")
    row mount "$fstype, nodes: $kind" "$time us" "$(ratio "$time" "$base")"
  done
done
