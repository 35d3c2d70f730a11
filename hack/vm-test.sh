#!/usr/bin/env bash
# vm-test.sh [OPTION OF vm.sh...] - what the runtime does on a second kernel: Linux 6.1, with cgroup v2 alone and nsdelegate,
# unless the options say otherwise. This file runs in the guest as well, and is there pid 1 of the container with Docker.
#   SYSBOX_RUNC    the runtime (default: sysbox-runc on PATH)
#   VM_TEST_ONLY   names of tests, for some of them only
# The last line is `N passed, N failed`; the exit status is 0 only if something passed and nothing failed.
# shellcheck disable=SC2317  # tests are called by name
set -euo pipefail

# ---- pid 1 of a system container: Docker ---------------------------------------------------------------------------

with_docker() {
  dockerd --storage-driver=overlay2 >/var/log/dockerd.log 2>&1 &
  local dockerd=$! try
  for ((try = 0; try < 900; try++)); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$dockerd" 2>/dev/null || break
    sleep 0.2
  done
  if ! docker info --format 'driver={{.Driver}} cgroup={{.CgroupVersion}} {{.Warnings}}'; then
    tail -n 20 /var/log/dockerd.log
    return 1
  fi
  docker import /opt/busybox.tar busybox >/dev/null
  local limits='cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max'
  [[ -e /sys/fs/cgroup/cgroup.controllers ]] || limits='cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max'
  docker run --rm -m 64m --pids-limit 20 --cpus .5 busybox sh -c "$limits" | xargs echo limits=
  docker run --rm -m 64m --memory-swap 64m busybox dd if=/dev/zero of=/dev/null bs=128M count=1 || echo "hungry=$?"
  docker run -d --name sleeper busybox sleep 1000 >/dev/null
  docker exec sleeper echo exec=works
  docker rm -f sleeper >/dev/null
  kill "$dockerd"
  wait "$dockerd" || true
}

# ---- the guest -----------------------------------------------------------------------------------------------------

cg=/sys/fs/cgroup
rt() { sysbox-runc "$@" </dev/null; }

fail() { echo "  $*"; return 1; }
# same WHAT GOT WANTED
same() { [[ $2 == "$3" ]] || fail "$1: '$2' instead of '$3'"; }
# refused WHAT COMMAND...: it must fail.
refused() {
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then fail "$what was not refused"; fi
}
# until_true COMMAND...: within twenty seconds.
until_true() {
  local try
  for ((try = 0; try < 200; try++)); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  fail "never true: $*"
}

# bundle NAME TREE FILTER ARGS...: makes /b/NAME; FILTER is jq's.
bundle() {
  local dir=/b/$1 tree=$2 filter=$3
  shift 3
  mkdir -p "$dir"
  rt spec -b "$dir"
  # As one text: jq takes words that begin with a dash for its own.
  jq --arg tree "/trees/$tree" --arg words "$(printf '%s\x1f' "$@")" \
    ".root.path = \$tree | .process.terminal = false | .process.args = (\$words | split(\"\u001f\")[:-1]) | $filter" \
    "$dir/config.json" >"$dir/new"
  mv "$dir/new" "$dir/config.json"
}

status() { rt state "$1" | jq -r .status; }
is() { [[ $(status "$1") == "$2" ]]; }
pid_of() { rt state "$1" | jq -r .pid; }
in_unified() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }

# What a container could leave behind.
leavings() {
  find $cg -mindepth 1 -type d | sort
  find /run/sysbox-runc -mindepth 1 -type d 2>/dev/null | sort || true
  sed 's/^[0-9]* [0-9]* //' /proc/self/mountinfo | sort
}

test_check() { rt check; }

test_run() {
  bundle run busybox . sh -c 'echo hello; id -u; exit 42'
  local out code=0
  out=$(rt run -b /b/run run) || code=$?
  same output "$out" $'hello\n0'
  same 'exit status' $code 42
  refused 'a program that is not there' rt run -b /b/run "bad/id"
}

test_lifecycle() {
  bundle life busybox '.linux.cgroupsPath = "/life"' sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
  rt create -b /b/life life
  same status "$(status life)" created
  local pid leaf=/life before
  pid=$(pid_of life)
  same 'cgroup before the start' "$(in_unified "$pid")" /life
  rt start life
  [[ $pure == 0 ]] || leaf=/life/init.scope
  until_true is life running
  until_true grep -q sh "/proc/$pid/comm"
  same 'cgroup after the start' "$(in_unified "$pid")" "$leaf"
  same 'cgroup of exec, from inside' "$(rt exec life sed -n 's/^0:://p' /proc/self/cgroup)" "${leaf#/life}${leaf:+$([[ $pure == 1 ]] || echo /)}"
  same 'status of exec' "$(rt exec life sh -c 'exit 9' || echo $?)" 9
  rt pause life
  same status "$(status life)" paused
  before=$(cat "/proc/$pid/schedstat")
  sleep 0.5
  same 'time used while paused' "$(cat "/proc/$pid/schedstat")" "$before"
  rt resume life
  same status "$(status life)" running
  same 'exec after resume' "$(rt exec life echo again)" again
  refused 'deleting what runs' rt delete life
  rt exec -d life sleep 1000
  rt kill life TERM
  until_true is life stopped
  rt delete life
  refused 'state of what is gone' rt state life
  # Killed while created, and while paused.
  rt create -b /b/life life
  rt delete --force life
  rt run -d -b /b/life life
  rt pause life
  rt kill life KILL
  rt resume life 2>/dev/null || true
  until_true is life stopped
  rt delete life
  rt run -d -b /b/life life
  rt pause life
  rt delete --force life
}

limits='.linux.cgroupsPath = "/lim" | .linux.resources += {
  memory: {limit: 67108864, swap: 67108864}, pids: {limit: 40}, cpu: {quota: 50000, period: 100000, cpus: "0"}}'

test_limits() {
  [[ $pure == 1 ]] || return 0
  local node=$cg/lim file out
  bundle limits busybox "$limits" sleep 1000
  rt run -d -b /b/limits limits
  for file in memory.max=67108864 memory.swap.max=0 pids.max=40 'cpu.max=50000 100000' cpuset.cpus.effective=0; do
    [[ -e $node/${file%%=*} ]] || { echo "  no ${file%%=*} on this kernel"; continue; }
    same "${file%%=*}" "$(cat "$node/${file%%=*}")" "${file#*=}"
    same "${file%%=*} from inside" "$(rt exec limits cat "$cg/${file%%=*}")" "${file#*=}"
  done
  # Container root's own limits are not its to change, nor to get out of.
  for file in memory.max=max memory.high=max memory.swap.max=max memory.oom.group=1 pids.max=max 'cpu.max=max' cpu.weight=9999 \
      cpuset.cpus=0-1 cgroup.freeze=0 cgroup.kill=1 cgroup.max.depth=max cgroup.type=threaded; do
    [[ -e $node/${file%%=*} ]] || continue
    refused "writing ${file%%=*}" rt exec limits sh -c "echo ${file#*=} >$cg/${file%%=*}"
  done
  refused 'chown of memory.max' rt exec limits chown 0 $cg/memory.max
  # Effective.
  out=$(rt exec limits dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null || echo $?)
  same 'status of what wants too much memory' "$out" 137
  grep -Eq '^oom_kill [1-9]' $node/memory.events || fail "no oom_kill in memory.events"
  until_true is limits running
  # shellcheck disable=SC2016
  out=$(rt exec limits sh -c 'n=0; while [ $n -lt 60 ]; do sleep 5 & n=$((n+1)); done' 2>&1 || true)
  grep -qi fork <<<"$out" || fail "60 processes with a limit of 40: $out"
  [[ $(grep -oE '^max [0-9]+' $node/pids.events) != 'max 0' ]] || fail "nothing in pids.events"
  rt kill --all limits KILL || true
  until_true is limits stopped
  rt delete limits
  rt run -d -b /b/limits limits
  same 'CPUs inside' "$(rt exec limits nproc)" 1
  # Inside, or dying would be somebody else's.
  rt exec limits timeout 3 sh -c 'while :; do :; done' || true
  [[ $(sed -n 's/^nr_throttled //p' $node/cpu.stat) -gt 5 ]] || fail "not throttled: $(tr '\n' ' ' <$node/cpu.stat)"
  echo '{"memory": {"limit": 33554432}, "pids": {"limit": 30}}' >/b/update
  rt update -r /b/update limits
  same 'memory.max after update' "$(cat $node/memory.max)" 33554432
  same 'pids.max after update' "$(cat $node/pids.max)" 30
  rt delete --force limits
}

test_delegation() {
  [[ $pure == 1 ]] || return 0
  bundle deleg busybox "$limits | .linux.cgroupsPath = \"/lim\"" sleep 1000
  rt run -d -b /b/deleg deleg
  # shellcheck disable=SC2016
  rt exec deleg sh -ec '
    cd /sys/fs/cgroup
    for c in $(cat cgroup.controllers); do echo +$c >cgroup.subtree_control; done
    mkdir sub sub/deeper
    sleep 1000 & p=$!
    echo $p >sub/deeper/cgroup.procs
    echo 16777216 >sub/memory.max
    grep -q "^0::/sub/deeper$" /proc/$p/cgroup
    ! rmdir init.scope 2>/dev/null'
  same 'controllers inside' "$(rt exec deleg cat $cg/sub/cgroup.controllers)" "$(cat $cg/cgroup.controllers)"
  # What a child may have is still what its parent has.
  rt exec deleg sh -c "echo max >$cg/sub/memory.max"
  same 'own limit' "$(cat $cg/lim/memory.max)" 67108864
  local out pid
  out=$(rt exec deleg sh -c "echo \$\$ >$cg/sub/cgroup.procs && dd if=/dev/zero of=/dev/null bs=128M count=1" 2>/dev/null || echo $?)
  same 'a child without a limit' "$out" 137
  # Software that takes the leaf away (systemd does), and an exec after that.
  # shellcheck disable=SC2016
  rt exec deleg sh -ec '
    cd /sys/fs/cgroup
    mkdir own
    echo 1 >own/cgroup.procs
    echo $$ >own/cgroup.procs
    for try in 1 2 3 4 5 6 7 8 9; do rmdir init.scope 2>/dev/null && break; sleep 0.2; done
    [ ! -d init.scope ]'
  pid=$(pid_of deleg)
  same 'where init is' "$(in_unified "$pid")" /lim/own
  same 'where exec goes' "$(rt exec deleg sed -n 's/^0:://p' /proc/self/cgroup)" /own
  # The container's processes cannot be taken out of it, from another namespace of its own making or not.
  refused 'a cgroup mount that shows the host' rt exec deleg sh -c 'mkdir /tmp/c; mount -t cgroup2 none /tmp/c && [ -d /tmp/c/lim ]'
  rt delete --force deleg
  [[ ! -d $cg/lim ]] || fail "the node is still there"
}

# What software inside can make of its leaf, and what an exec does then.
test_exec() {
  local began
  bundle ex busybox '.linux.cgroupsPath = "/exec-test" | .process.rlimits = [{type: "RLIMIT_MEMLOCK", soft: 1099511627776, hard: 2199023255552}]' \
    sh -c 'grep "Max locked" /proc/self/limits; exec sleep 1000'
  rt run -d -b /b/ex ex >/b/out
  until_true grep -Eq 'memory +1099511627776 +2199023255552' /b/out
  rt pause ex
  rt exec ex true 2>/b/err && fail 'exec while paused'
  grep -q 'cannot exec in a paused container' /b/err || fail "$(cat /b/err)"
  rt resume ex
  if [[ $pure == 1 ]]; then
    # With a domain controller for its children, it takes no process.
    # shellcheck disable=SC2016
    rt exec ex sh -ec '
      cd /sys/fs/cgroup
      mkdir own
      echo 1 >own/cgroup.procs
      echo $$ >own/cgroup.procs
      echo +memory >cgroup.subtree_control
      echo +memory >init.scope/cgroup.subtree_control'
    same 'where exec goes' "$(rt exec ex sed -n 's/^0:://p' /proc/self/cgroup)" /own
    # A leaf of its own making, which it may freeze.
    rt exec ex sh -ec '
      cd /sys/fs/cgroup
      rmdir init.scope
      mkdir init.scope
      echo 1 >init.scope/cgroup.freeze'
    began=$SECONDS
    rt exec ex true 2>/b/err && fail 'exec in a frozen leaf'
    grep -q frozen /b/err || fail "$(cat /b/err)"
    [[ $((SECONDS - began)) -lt 60 ]] || fail "blocked for $((SECONDS - began)) s"
    echo 0 >$cg/exec-test/init.scope/cgroup.freeze
    same 'exec after that' "$(rt exec ex echo again)" again
  fi
  rt exec -d ex sleep 1000
  rt kill --all ex KILL
  until_true is ex stopped
  rt delete ex
}

test_devices() {
  bundle dev busybox '.linux.cgroupsPath = "/dev-test"' sleep 1000
  rt run -d -b /b/dev dev
  # shellcheck disable=SC2016
  rt exec dev sh -ec 'for d in null zero full random urandom tty; do [ -c /dev/$d ]; done; echo x >/dev/null; head -c 4 /dev/zero >/dev/null'
  refused 'mknod inside' rt exec dev mknod /tmp/vda b 254 0
  # The program itself: what it refuses, it refuses to the host's root.
  local vda=/dev/vda procs=$cg/dev-test/cgroup.procs
  if [[ $pure == 1 ]]; then procs=$cg/dev-test/init.scope/cgroup.procs; else procs=$cg/devices/dev-test/cgroup.procs; fi
  head -c 1 $vda >/dev/null
  refused "opening $vda" sh -c "echo \$\$ >$procs; head -c 1 $vda"
  refused 'opening /dev/mem or port' sh -c "echo \$\$ >$procs; exec 3</dev/ttyS3"
  sh -c "echo \$\$ >$procs; exec 3<>/dev/null 4</dev/zero 5<>/dev/ptmx" || fail "an allowed device was refused"
  refused 'mknod' sh -c "echo \$\$ >$procs; mknod /tmp/node b 254 0"
  rm -f /tmp/node
  rt delete --force dev
  # The engines' way: all denied, one allowed.
  bundle dev busybox '.linux.cgroupsPath = "/dev-test" | .linux.resources.devices += [{allow: true, type: "b", major: 254, minor: 0, access: "r"}]' sleep 1000
  rt run -d -b /b/dev dev
  sh -c "echo \$\$ >$procs; exec 3<$vda" || fail "an allowed device was refused"
  refused 'writing with access "r"' sh -c "echo \$\$ >$procs; exec 3<>$vda"
  rt delete --force dev
}

test_time() {
  bundle time busybox . sh -c 'cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time'
  local out
  mapfile -t out < <(rt run -b /b/time time)
  [[ ${out[0]} -lt 5 ]] || fail "uptime inside: ${out[0]}"
  [[ ${out[1]} != "$(readlink /proc/self/ns/time)" ]] || fail "the host's time namespace"
}

test_nested() {
  bundle nested docker-bookworm . sh -ec '
    unshare -Urmpf --mount-proc sh -ec "cat /proc/self/uid_map | xargs; readlink /proc/self; mount -t sysfs s /mnt 2>/dev/null || unshare -n mount -t sysfs s /mnt; mount -t tmpfs t /mnt"
    mount -t proc p /mnt
    mount -t cgroup2 c /srv 2>/dev/null || [ ! -e /sys/fs/cgroup/cgroup.controllers ]
    ! umount /proc 2>/dev/null'
  local out
  out=$(rt run -b /b/nested nested 2>&1) || fail "$out"
  same 'map and pid in a nested user namespace' "$(head -n 2 <<<"$out" | xargs)" '0 0 1 3'
}

test_docker() {
  local out extra='.linux.cgroupsPath = "/docker-test"'
  install -m 0755 "$0" /trees/docker-bookworm/vm-test
  bundle docker docker-bookworm "$extra" /vm-test --docker
  out=$(rt run -b /b/docker docker 2>&1) || fail "$out"
  echo "$out"
  grep -q '^driver=overlay2' <<<"$out" || fail "no overlay2"
  if [[ $pure == 1 ]]; then grep -q '^limits= 67108864 20 50000 100000$' <<<"$out"; else grep -q '^limits= 67108864 20$' <<<"$out"; fi || fail "limits"
  grep -q '^hungry=137' <<<"$out" || fail "the memory limit is not effective"
  grep -q '^exec=works' <<<"$out" || fail "docker exec"
}

# mean N COMMAND...: of N calls, in milliseconds. %i is the call's number.
mean() {
  local n=$1 i begin total=0
  shift
  for ((i = 0; i < n; i++)); do
    begin=${EPOCHREALTIME/./}
    "${@//%i/$i}" >/dev/null
    total=$((total + ${EPOCHREALTIME/./} - begin))
  done
  echo "$((total / n / 100))" | sed 's/\(.\)$/.\1 ms/; s/^\./0./'
}

# Numbers, not judged: an emulated processor is no measure of anything but itself.
test_times() {
  bundle times busybox . sleep 1000
  bundle true busybox . true
  rt run -b /b/true warm
  echo "  true alone:      $(mean 20 /bin/true)"
  echo "  runtime alone:   $(mean 20 rt features)"
  echo "  run true:        $(mean 20 rt run -b /b/true t%i)"
  echo "  create:          $(mean 10 rt create -b /b/times t%i)"
  echo "  start:           $(mean 10 rt start t%i)"
  echo "  exec true:       $(mean 20 rt exec t0 true)"
  echo "  delete --force:  $(mean 10 rt delete --force t%i)"
  [[ $pure == 1 ]] || return 0
  local sleeper
  sleep 1000 &
  sleeper=$!
  mkdir $cg/a $cg/b
  moves() { echo "$sleeper" >"$cg/a/cgroup.procs"; echo "$sleeper" >"$cg/b/cgroup.procs"; }
  echo "  two moves between v2 cgroups, another's process:  $(mean 20 moves)"
  moves() { sh -c "echo 0 >$cg/a/cgroup.procs; echo 0 >$cg/b/cgroup.procs"; }
  echo "  a shell that moves itself twice:                  $(mean 20 moves)"
  moves() { sh -c "echo 0 >/dev/null; echo 0 >/dev/null"; }
  echo "  a shell that does not:                            $(mean 20 moves)"
  kill "$sleeper"
  wait "$sleeper" 2>/dev/null || true
  rmdir $cg/a $cg/b
}

all=(check run lifecycle limits delegation exec devices time nested docker times)

guest() {
  local name before began passed=0 failed=0
  pure=0
  [[ ! -e $cg/cgroup.controllers ]] || pure=1
  mkdir -p /b
  echo "Linux $(uname -r), $(if [[ $pure == 1 ]]; then echo cgroup v2; else echo cgroup v1 and v2; fi)"
  [[ $# -gt 0 ]] || set -- "${all[@]}"
  for name in "$@"; do
    before=$(leavings) began=$SECONDS
    # A function's set -e does not count in a condition: a shell of its own has it.
    if timeout 240 "$BASH" "$0" --one "$name" "$pure" && diff <(echo "$before") <(leavings); then
      passed=$((passed + 1))
      echo "ok    $name ($((SECONDS - began)) s)"
    else
      failed=$((failed + 1))
      echo "FAIL  $name ($((SECONDS - began)) s)"
      rt list -q | while read -r id; do rt delete --force "$id" || true; done
    fi
  done
  echo "$passed passed, $failed failed"
  [[ $passed -gt 0 && $failed -eq 0 ]]
}

case ${1:-} in
  --docker) with_docker ;;
  --one)
    pure=$3
    trap 'echo "  line $LINENO: $BASH_COMMAND"' ERR
    "test_$2"
    ;;
  --inside) shift; guest "$@" ;;
  *)
    # shellcheck disable=SC2086  # words
    exec "$(dirname "$(readlink -f "$0")")/vm.sh" "$@" "$0" --inside ${VM_TEST_ONLY:-}
    ;;
esac
