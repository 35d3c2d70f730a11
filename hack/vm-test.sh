#!/usr/bin/env bash
# vm-test.sh [OPTION OF vm.sh...] - what the runtime does on a second kernel: Linux 6.1, with cgroup v2 alone and nsdelegate,
# unless the options say otherwise. This file runs in the guest as well, and is there pid 1 of the container with Docker.
#   SYSBOX_RUNC    the runtime (default: sysbox-runc on PATH)
#   VM_TEST_ONLY   names of tests, for some of them only
# The last line is `N passed, N failed`; the exit status is 0 only if something passed and nothing failed.
# shellcheck disable=SC2317,SC2016  # tests are called by name; scripts for others are in single quotes
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
  local end=$((SECONDS + 20))
  while [[ $SECONDS -lt $end ]]; do
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
  # It overwrites nothing.
  rm -f "$dir/config.json"
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
  refused 'an id that is a path' rt run -b /b/run bad/id
  bundle run busybox . /no/such/program
  same 'status of a program that is not there' "$(rt run -b /b/run run 2>/dev/null || echo $?)" 127
  bundle run busybox . /etc/passwd
  same 'status of what is no program' "$(rt run -b /b/run run 2>/dev/null || echo $?)" 126
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

# file NODE NAME: of a container's own node. On v1 a name begins with its hierarchy, as it does inside.
file() { if [[ $pure == 1 ]]; then echo "$cg/$1/$2"; else echo "$cg/${2%%/*}/$1/${2#*/}"; fi; }

test_limits() {
  local given=(memory.max=67108864 memory.swap.max=0 pids.max=40 'cpu.max=50000 100000' cpuset.cpus.effective=0)
  local locked=(memory.max=max memory.high=max memory.swap.max=max memory.oom.group=1 pids.max=max cpu.max=max cpu.weight=9999
    cpuset.cpus=0-1 cgroup.freeze=0 cgroup.kill=1 cgroup.max.depth=max cgroup.type=threaded)
  local memory=memory.max pids=pids.max kills=memory.events cpu=cpu.stat forks=pids.events setting name out
  if [[ $pure == 0 ]]; then
    given=(memory/memory.limit_in_bytes=67108864 memory/memory.memsw.limit_in_bytes=67108864 pids/pids.max=40
      'cpu,cpuacct/cpu.cfs_quota_us=50000' 'cpu,cpuacct/cpu.cfs_period_us=100000' cpuset/cpuset.cpus=0)
    locked=(memory/memory.limit_in_bytes=-1 memory/memory.memsw.limit_in_bytes=-1 memory/memory.soft_limit_in_bytes=-1
      memory/memory.swappiness=0 memory/memory.oom_control=1 pids/pids.max=max 'cpu,cpuacct/cpu.cfs_quota_us=-1'
      'cpu,cpuacct/cpu.shares=9999' cpuset/cpuset.cpus=0-1 freezer/freezer.state=THAWED 'devices/devices.allow=b *:* rwm')
    memory=memory/memory.limit_in_bytes pids=pids/pids.max kills=memory/memory.oom_control cpu=cpu,cpuacct/cpu.stat
    forks=pids/pids.events
  fi
  # The root disk.
  local more='.linux.resources.blockIO = {throttleReadBpsDevice: [{major: 254, minor: 0, rate: 1048576}]}'
  if [[ $pure == 1 ]]; then
    more+=' | .linux.resources.unified = {"memory.low": "1048576"}'
    given+=('io.max=254:0 rbps=1048576 wbps=max riops=max wiops=max' memory.low=1048576)
    locked+=('io.max=254:0 rbps=max' memory.low=0)
  else
    given+=('blkio/blkio.throttle.read_bps_device=254:0 1048576')
    locked+=('blkio/blkio.throttle.read_bps_device=254:0 0')
  fi
  bundle limits busybox "$limits | $more" sleep 1000
  rt run -d -b /b/limits limits
  for setting in "${given[@]}"; do
    name=${setting%%=*}
    # Kernels can be built, and booted, without it.
    [[ -e $(file lim "$name") || $name != *sw* ]] || { echo "  no $name on this kernel"; continue; }
    same "$name" "$(cat "$(file lim "$name")")" "${setting#*=}"
    same "$name from inside" "$(rt exec limits cat "$cg/$name")" "${setting#*=}"
  done
  # Container root's own limits are not its to change, nor to get out of.
  for setting in "${locked[@]}"; do
    name=${setting%%=*}
    [[ -e $(file lim "$name") ]] || { echo "  no $name on this kernel"; continue; }
    refused "writing $name" rt exec limits sh -c "echo '${setting#*=}' >$cg/$name"
  done
  refused "chown of $memory" rt exec limits chown 0 "$cg/$memory"
  # Effective.
  out=$(rt exec limits dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null || echo $?)
  same 'status of what wants too much memory' "$out" 137
  grep -Eq '^oom_kill [1-9]' "$(file lim $kills)" || fail "no oom_kill in $kills"
  until_true is limits running
  out=$(rt exec limits sh -c 'n=0; while [ $n -lt 60 ]; do sleep 5 & n=$((n+1)); done' 2>&1 || true)
  grep -qi fork <<<"$out" || fail "60 processes with a limit of 40: $out"
  [[ $(grep -oE '^max [0-9]+' "$(file lim $forks)") != 'max 0' ]] || fail "nothing in $forks"
  rt kill --all limits KILL || true
  until_true is limits stopped
  rt delete limits
  rt run -d -b /b/limits limits
  same 'CPUs inside' "$(rt exec limits nproc)" 1
  # Inside, or dying would be somebody else's.
  rt exec limits timeout 3 sh -c 'while :; do :; done' || true
  cpu=$(file lim $cpu)
  [[ $(sed -n 's/^nr_throttled //p' "$cpu") -gt 5 ]] || fail "not throttled: $(tr '\n' ' ' <"$cpu")"
  echo '{"memory": {"limit": 33554432}, "pids": {"limit": 30}}' >/b/update
  rt update -r /b/update limits
  same "$memory after update" "$(cat "$(file lim $memory)")" 33554432
  same "$pids after update" "$(cat "$(file lim $pids)")" 30
  rt delete --force limits
}

test_delegation() {
  bundle deleg busybox "$limits" sleep 1000
  rt run -d -b /b/deleg deleg
  if [[ $pure == 1 ]]; then delegation_v2; else delegation_v1; fi
  rt delete --force deleg
}

# Without a limit of its own, a child has its parent's.
limited_in() {
  local out
  out=$(rt exec deleg sh -c "echo \$\$ >$1/cgroup.procs && dd if=/dev/zero of=/dev/null bs=128M count=1" 2>/dev/null || echo $?)
  same 'status of what wants too much memory, in a child without a limit' "$out" 137
}

delegation_v2() {
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
  same 'limit of a child' "$(cat $cg/lim/sub/memory.max)" 16777216
  rt exec deleg sh -c "echo max >$cg/sub/memory.max"
  same 'own limit' "$(cat $cg/lim/memory.max)" 67108864
  limited_in $cg/sub
  # Software that takes the leaf away (systemd does), and an exec after that.
  rt exec deleg sh -ec '
    cd /sys/fs/cgroup
    mkdir own
    echo 1 >own/cgroup.procs
    echo $$ >own/cgroup.procs
    for try in 1 2 3 4 5 6 7 8 9; do rmdir init.scope 2>/dev/null && break; sleep 0.2; done
    [ ! -d init.scope ]'
  same 'where init is' "$(in_unified "$(pid_of deleg)")" /lim/own
  same 'where exec goes' "$(rt exec deleg sed -n 's/^0:://p' /proc/self/cgroup)" /own
  # A mount of its own shows the container's own part, and no more.
  rt exec deleg sh -c 'mkdir /tmp/c; mount -t cgroup2 none /tmp/c && [ -d /tmp/c/own ] && [ ! -d /tmp/c/lim ]'
}

delegation_v1() {
  local set
  rt exec deleg sh -ec '
    cd /sys/fs/cgroup
    sleep 1000 & p=$!
    for set in memory pids cpu,cpuacct cpuset freezer devices systemd unified; do
      mkdir $set/sub
      [ $set != cpuset ] || for f in cpus mems; do cat cpuset/cpuset.$f >cpuset/sub/cpuset.$f; done
      echo $p >$set/sub/cgroup.procs
    done
    echo 16777216 >memory/sub/memory.limit_in_bytes
    for set in memory pids cpu,cpuacct cpuset freezer devices name=systemd; do grep -q ":$set:/sub$" /proc/$p/cgroup; done
    grep -q "^0::/sub$" /proc/$p/cgroup'
  for set in memory pids cpu,cpuacct cpuset freezer devices systemd unified; do
    same "processes of the container's child in $set" "$(wc -l <"$cg/$set/lim/sub/cgroup.procs")" 1
  done
  same 'limit of a child' "$(cat $cg/memory/lim/sub/memory.limit_in_bytes)" 16777216
  rt exec deleg sh -c "echo -1 >$cg/memory/sub/memory.limit_in_bytes"
  same 'own limit' "$(cat $cg/memory/lim/memory.limit_in_bytes)" 67108864
  limited_in $cg/memory/sub
  # A child cannot have a device that its parent has not.
  refused 'giving a child a device' rt exec deleg sh -c "echo 'b 254:0 r' >$cg/devices/sub/devices.allow"
  rt exec deleg sh -c 'mkdir /tmp/c; mount -t cgroup -o memory none /tmp/c && [ -d /tmp/c/sub ] && [ ! -d /tmp/c/lim ]'
}

# member PROCS allowed|refused COMMAND: what a shell in that cgroup can do.
member() {
  local got=allowed
  # A shell ends when exec fails. One that cannot even become a member says nothing about the rules.
  bash -c "echo \$\$ >$1 || exit 99; $3" 2>/dev/null || { [[ $? != 99 ]] || fail "cannot join $1"; got=refused; }
  same "$3, in the container's cgroup" $got "$2"
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
  rt exec dev sh -ec 'for d in null zero full random urandom tty; do [ -c /dev/$d ]; done; echo x >/dev/null; head -c 4 /dev/zero >/dev/null'
  refused 'mknod inside' rt exec dev mknod /tmp/vda b 254 0
  # The rules themselves: what they refuse, they refuse to the host's root.
  local procs=$cg/dev-test/init.scope/cgroup.procs device
  [[ $pure == 1 ]] || procs=$cg/devices/dev-test/cgroup.procs
  for device in /dev/vda /dev/vdb /dev/kmsg /dev/ttyS1; do
    head -c 0 $device || fail "$device cannot be opened at all: that the container cannot open it means nothing"
    member "$procs" refused "exec 3<$device"
  done
  member "$procs" allowed 'exec 3<>/dev/null 4</dev/zero 5<>/dev/ptmx'
  mknod /tmp/node b 254 0 && rm /tmp/node
  member "$procs" refused 'mknod /tmp/node b 254 0'
  rt delete --force dev
  # The engines' way: all denied, one allowed.
  bundle dev busybox '.linux.cgroupsPath = "/dev-test" | .linux.resources.devices += [{allow: true, type: "b", major: 254, minor: 0, access: "r"}]' sleep 1000
  rt run -d -b /b/dev dev
  member "$procs" allowed 'exec 3</dev/vda'
  member "$procs" refused 'exec 3<>/dev/vda'
  member "$procs" refused 'exec 3</dev/vdb'
  rt delete --force dev
}

# What needs CAP_SYS_RESOURCE: the right of inner software to lower its score, where the host's memory is not at stake.
test_score() {
  local tries='cat /proc/self/oom_score_adj; for s in -999 -1000; do echo $s >/proc/self/oom_score_adj 2>/dev/null && cat /proc/self/oom_score_adj; done; true'
  bundle score busybox "$limits" sh -c "$tries"
  same 'with a memory limit' "$(rt run -b /b/score score | xargs)" '0 -999'
  bundle score busybox "$limits | .process.oomScoreAdj = 300" sh -c "$tries"
  same 'with a score of its own' "$(rt run -b /b/score score | xargs)" '300 -999'
  bundle score busybox . sh -c "$tries"
  same 'without a memory limit' "$(rt run -b /b/score score | xargs)" 0
  bundle score busybox '.annotations = {"sysbox.oom-floor": "true"}' sh -c "$tries"
  same 'with the annotation' "$(rt run -b /b/score score | xargs)" '0 -999'
  bundle score busybox '.process.oomScoreAdj = -500' sh -c "$tries"
  same 'with a low score' "$(rt run -b /b/score score | xargs)" '-500'
}

# A namespace of AppArmor's has a profile without a compiler.
test_apparmor() {
  local policy=/sys/kernel/security/apparmor/policy pid
  mount -t securityfs securityfs /sys/kernel/security
  mkdir $policy/namespaces/box
  bundle armor busybox '.process.apparmorProfile = ":box:unconfined"' sleep 1000
  rt run -d -b /b/armor --pid-file /b/pid armor
  pid=$(cat /b/pid)
  same 'label of init' "$(cat "/proc/$pid/attr/apparmor/current")" ':box:unconfined'
  rt exec -d --pid-file /b/pid armor sleep 1000
  same 'label of exec' "$(cat "/proc/$(cat /b/pid)/attr/apparmor/current")" ':box:unconfined'
  rt delete --force armor
  bundle armor busybox '.process.apparmorProfile = "docker-default"' sleep 1000
  rt run -d -b /b/armor --pid-file /b/pid armor
  same 'label for an engine' "$(cat "/proc/$(cat /b/pid)/attr/apparmor/current")" unconfined
  rt delete --force armor
  bundle armor busybox '.process.apparmorProfile = "no-such-profile"' sleep 1000
  refused 'a profile that is not there' rt run -d -b /b/armor armor
  rt run -d -b /b/armor armor 2>/b/err || true
  grep -q no-such-profile /b/err || fail "$(cat /b/err)"
  rmdir $policy/namespaces/box
  umount /sys/kernel/security
}

test_time() {
  bundle time busybox . sh -c 'cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time'
  local out
  mapfile -t out < <(rt run -b /b/time time)
  [[ ${out[0]} -lt 5 ]] || fail "uptime inside: ${out[0]}"
  [[ ${out[1]} != "$(readlink /proc/self/ns/time)" ]] || fail "the host's time namespace"
}

# Files of /proc of the container's own. Without FUSE there are no live ones.
test_nodes() {
  modprobe fuse 2>/dev/null || true
  bundle nodes busybox '.linux.resources.memory.limit = 67108864 | .linux.resources.cpu.cpus = "0"' sleep 1000
  rt create -b /b/nodes nodes
  rt start nodes
  same 'a stored node' "$(rt exec nodes sh -c 'echo 30 >/proc/sys/kernel/panic; cat /proc/sys/kernel/panic')" 30
  [[ $(cat /proc/sys/kernel/panic) != 30 ]] || fail 'the host was written to'
  [[ -e /dev/fuse ]] || fail 'no FUSE'
  same 'memory' "$(rt exec nodes awk '/^MemTotal/ {print $2}' /proc/meminfo)" 65536
  same 'CPUs' "$(rt exec nodes sh -c 'grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online' | xargs)" '1 0'
  rt exec nodes cat /proc/stat /proc/loadavg /proc/swaps /proc/diskstats >/dev/null
  local monitor
  monitor=$(jq .pid /run/sysbox-runc/nodes/monitor.json)
  kill -9 "$monitor"
  until_true is_dead nodes
  same 'memory after the death of the monitor' "$(rt exec nodes awk '/^MemTotal/ {print $2}' /proc/meminfo)" 65536
  # What init attached does not keep an inner container from its own.
  rt exec nodes unshare -mpf sh -c 'mount -t proc proc /proc && test $(cat /proc/sys/kernel/panic) != 30'
  rt delete --force nodes
}
is_dead() { rt nodes "$1" | grep -q '^monitor: dead'; }

# On mounts made inside, by trapped calls.
test_traps() {
  bundle traps docker-bookworm '.annotations["sysbox.nested-nodes"] = "true" | .linux.resources.memory.limit = 67108864' sleep 1000
  rt create -b /b/traps traps
  rt start traps
  carry() {
    same 'a stored node' "$(rt exec traps unshare -mpf --mount-proc sh -c 'echo 30 >/proc/sys/kernel/panic && cat /proc/sys/kernel/panic')" 30
    same 'a live node, in a user namespace' "$(rt exec traps unshare -Urmpf --mount-proc awk '/^MemTotal/ {print $2}' /proc/meminfo)" 65536
    same 'sysinfo' "$(rt exec traps sh -c "busybox free -k | awk '/^Mem/ {print \$2}'")" 65536
    rt exec traps sh -c 'mkdir -p /p && mount -t proc proc /p && umount /p && rmdir /p'
    rt exec traps sh -c 'mount -t tmpfs tmpfs /mnt && umount /mnt'
  }
  carry
  local monitor
  monitor=$(jq .pid /run/sysbox-runc/traps/monitor.json)
  kill -9 "$monitor"
  until_true is_dead traps
  carry
  rt delete --force traps
}

test_nested() {
  bundle nested docker-bookworm . sh -ec '
    unshare -Urmpf --mount-proc sh -ec "cat /proc/self/uid_map | xargs; read -r pid rest </proc/self/stat; echo \$pid; mount -t sysfs s /mnt 2>/dev/null || unshare -n mount -t sysfs s /mnt; mount -t tmpfs t /mnt"
    mount -t proc p /mnt
    mount -t cgroup2 c /srv 2>/dev/null || [ ! -e /sys/fs/cgroup/cgroup.controllers ]
    ! umount /proc 2>/dev/null'
  local out
  out=$(rt run -b /b/nested nested 2>&1) || fail "$out"
  same 'map and pid in a nested user namespace' "$(head -n 2 <<<"$out" | xargs)" '0 0 1 1'
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

# Docker as the front end. Its containerd looks for the container's cgroup between create and start.
test_engine() {
  local log=/tmp/dockerd.log daemon out
  dockerd --storage-driver=overlay2 --iptables=false --bridge=none \
    --add-runtime sysbox-runc=/usr/local/bin/sysbox-runc >$log 2>&1 &
  daemon=$!
  # shellcheck disable=SC2064
  trap "kill $daemon; wait $daemon || true" EXIT
  until_true docker info || { tail -n 20 $log; return 1; }
  docker import /opt/busybox.tar busybox >/dev/null
  out=$(docker run --rm --runtime=sysbox-runc --network=none busybox sh -c 'cat /proc/self/uid_map | xargs; touch /new; exit 7' || echo $?)
  [[ $out == "0 2"*$'65536\n7' ]] || fail "docker run: $out"
  docker run -d --runtime=sysbox-runc --network=none -m 64m --pids-limit 50 --name box busybox sleep 1000 >/dev/null
  same 'docker exec' "$(docker exec box id -u)" 0
  out=$(docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' box)
  [[ $out == *' / 64MiB 1' && $out != '0B '* ]] || fail "docker stats: $out"
  docker pause box >/dev/null
  same 'status of what is paused' "$(docker inspect -f '{{.State.Status}}' box)" paused
  docker unpause box >/dev/null
  docker update --pids-limit 60 box >/dev/null
  docker exec box dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null && fail 'the memory limit is not effective'
  until_true docker_saw_oom
  docker rm -f box >/dev/null
  docker run --runtime=sysbox-runc --network=none -m 64m --name hungry busybox dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null &&
    fail 'the memory limit is not effective'
  same 'how what wants too much memory ends' "$(docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' hungry)" '137 true'
  docker rm hungry >/dev/null
  # The parent of its containers' cgroups stays, as with runc. Empty, or this fails.
  local dir
  for dir in "$cg"/docker "$cg"/*/docker; do [[ ! -d $dir ]] || rmdir "$dir"; done
}

docker_saw_oom() { [[ $(docker events --since 5m --until "$(date +%s)" --format '{{.Action}} {{.Actor.Attributes.name}}') == *'oom box'* ]]; }

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

all=(check run lifecycle limits delegation exec devices score apparmor time nodes traps nested docker engine times)

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
    if timeout 300 "$BASH" "$0" --one "$name" "$pure" && diff <(echo "$before") <(leavings); then
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
