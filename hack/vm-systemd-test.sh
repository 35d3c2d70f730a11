#!/usr/bin/env bash
# vm-systemd-test.sh [OPTION OF vm.sh...] - control groups made by systemd (--systemd-cgroup), on a guest that systemd runs.
#   SYSBOX_RUNC    the runtime (default: sysbox-runc on PATH)
#   VM_TEST_ONLY   names of tests, for some of them only
# The last line is `N passed, N failed`; the exit status is 0 only if something passed and nothing failed.
# shellcheck disable=SC2317  # tests are called by name
set -euo pipefail

cg=/sys/fs/cgroup
direct() { timeout 120 sysbox-runc "$@" </dev/null; }
rt() { direct --systemd-cgroup "$@"; }
dock() { timeout 120 docker "$@" </dev/null; }

fail() { echo "  $*"; return 1; }
# same WHAT GOT WANTED
same() { [[ $2 == "$3" ]] || fail "$1: '$2' instead of '$3'"; }
refused() {
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then fail "$what was not refused"; fi
}
# until_true COMMAND...: within thirty seconds.
until_true() {
  local end=$((SECONDS + 30))
  while [[ $SECONDS -lt $end ]]; do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.2
  done
  fail "never true: $*"
}

# bundle NAME FILTER ARGS...: makes /b/NAME; FILTER is jq's.
bundle() {
  local dir=/b/$1 filter=$2
  shift 2
  mkdir -p "$dir"
  rm -f "$dir/config.json"
  rt spec -b "$dir"
  jq --arg words "$(printf '%s\x1f' "$@")" \
    ".root.path = \"/trees/busybox\" | .process.terminal = false | .process.args = (\$words | split(\"\u001f\")[:-1]) | $filter" \
    "$dir/config.json" >"$dir/new"
  mv "$dir/new" "$dir/config.json"
}

is() { [[ $(rt state "$1" | jq -r .status) == "$2" ]]; }
pid_of() { rt state "$1" | jq -r .pid; }
property() { systemctl show -P "$2" "$1"; }
gone() { [[ $(property "$1" LoadState) == not-found ]]; }
# Where a process is, in the hierarchy by which systemd follows it.
place() { sed -n "s/^0:://p" "/proc/$1/cgroup"; }
# node HIERARCHY UNIT: the directory of a unit in system.slice.
node() { if [[ $pure == 1 ]]; then echo "$cg/system.slice/$2"; else echo "$cg/$1/system.slice/$2"; fi; }
reload() { timeout 60 systemctl daemon-reload; sleep 1; }

# What a container could leave behind. Slices and their directories on v1 stay: they are everybody's.
leavings() {
  find $cg -mindepth 1 -type d -name '*.scope' | sort
  systemctl list-units --all --plain --no-legend --type=scope | awk '{print $1}' | sort
  find /run/systemd/transient /run/systemd/system.control -mindepth 1 2>/dev/null | sort || true
  find /run/sysbox-runc -mindepth 1 -type d 2>/dev/null | sort || true
}

test_forms() {
  bundle forms '.linux.cgroupsPath = "/a/path"' true
  refused 'a path' rt run -b /b/forms forms
  bundle forms '.linux.cgroupsPath = "system.slice:vmt:forms"' true
  refused 'slice:prefix:name without the flag' direct run -b /b/forms forms
  rt run -b /b/forms forms
  for bad in '..:p:n' 'a/b.slice:p:n' 'system.slice:p:../n' 'system.slice:p:n.slice' 'system.slice:p'; do
    bundle forms ".linux.cgroupsPath = \"$bad\"" true
    refused "$bad" rt run -b /b/forms forms
  done
  # Without any, and nested.
  bundle forms '.' sh -c 'sleep 1000'
  rt run -d -b /b/forms forms
  same 'default unit' "$(property sysbox-forms.scope ActiveState)" active
  rt delete --force forms
  bundle forms '.linux.cgroupsPath = "vmt-a-b.slice:p:n"' sleep 1000
  rt create -b /b/forms forms
  same 'nested slices' "$(place "$(pid_of forms)")" /vmt.slice/vmt-a.slice/vmt-a-b.slice/p-n.scope
  same slice "$(property p-n.scope Slice)" vmt-a-b.slice
  rt delete --force forms
  until_true gone p-n.scope
  bundle forms '.linux.cgroupsPath = "-.slice:p:n"' sleep 1000
  rt create -b /b/forms forms
  same 'the root slice' "$(place "$(pid_of forms)")" /p-n.scope
  rt delete --force forms
}

limits='.linux.cgroupsPath = "system.slice:vmt:lim" | .linux.resources += {
  memory: {limit: 67108864, swap: 67108864}, pids: {limit: 40}, cpu: {shares: 512, quota: 33333, period: 100000, cpus: "0"}}'

# The limits as they are in the files. systemd rounds the quota up to percents when it writes it.
have() {
  if [[ $pure == 1 ]]; then
    cat "$(node . vmt-lim.scope)"/{memory.max,memory.swap.max,pids.max,cpu.max,cpuset.cpus.effective,cpu.weight} 2>/dev/null | xargs
  else
    cat "$(node memory vmt-lim.scope)/memory.limit_in_bytes" "$(node pids vmt-lim.scope)/pids.max" \
      "$(node cpu,cpuacct vmt-lim.scope)"/cpu.cfs_{quota,period}_us "$(node cpuset vmt-lim.scope)/cpuset.cpus" \
      "$(node cpu,cpuacct vmt-lim.scope)/cpu.shares" | xargs
  fi
}

test_scope() {
  local u=vmt-lim.scope pid leaf='' swap='' first after
  [[ $pure == 0 ]] || leaf=/init.scope
  bundle scope "$limits" sleep 1000
  rt create -b /b/scope scope
  pid=$(pid_of scope)
  same 'place before the start' "$(place "$pid")" /system.slice/$u
  same 'state of the unit' "$(property $u ActiveState)" active
  rt start scope
  until_true is scope running
  same 'place after the start' "$(place "$pid")" "/system.slice/$u$leaf"
  same 'only its own processes' "$(rt ps -f json scope | jq -c .)" "[$pid]"
  systemctl status --no-pager $u >/b/status || fail 'systemctl status'
  grep -q 'sleep 1000' /b/status || fail "systemctl status: $(cat /b/status)"
  same delegated "$(property $u Delegate)" yes
  same 'default dependencies' "$(property $u DefaultDependencies)" no
  same slice "$(property $u Slice)" system.slice
  [[ ! -e $(node . $u)/memory.swap.max ]] || swap='0 '
  if [[ $pure == 1 ]]; then
    first="67108864 ${swap}40 33333 100000 0 59" after="67108864 ${swap}40 34000 100000 0 59"
    same MemoryMax "$(property $u MemoryMax)" 67108864
  else
    first='67108864 40 33333 100000 0 512' after='67108864 40 34000 100000 0 512'
    same MemoryLimit "$(property $u MemoryLimit)" 67108864
  fi
  same 'limits' "$(have)" "$first"
  reload
  [[ $(have) == "$first" ]] || same 'limits after daemon-reload' "$(have)" "$after"
  same 'own limit inside' "$(rt exec scope sh -c "cd $cg; cat pids.max 2>/dev/null || cat pids/pids.max")" 40
  same 'status of what wants too much memory' \
    "$(rt exec scope dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null || echo $?)" 137
  until_true is scope running
  same 'exec in it' "$(rt exec scope sed -n 's/^0:://p' /proc/self/cgroup)" "$([[ $pure == 1 ]] && echo /init.scope || echo /)"
  rt exec -d scope sleep 2000
  until_true grep -rlq . "$(node memory $u)/cgroup.procs"
  echo '{"memory": {"limit": 33554432, "swap": 33554432}, "pids": {"limit": 30}, "cpu": {"quota": 20000, "period": 100000}}' >/b/update
  rt update -r /b/update scope
  if [[ $pure == 1 ]]; then first="33554432 ${swap}30 20000 100000 0 59"; else first='33554432 30 20000 100000 0 512'; fi
  same 'limits after update' "$(have)" "$first"
  same 'TasksMax after update' "$(property $u TasksMax)" 30
  reload
  same 'limits after update and daemon-reload' "$(have)" "$first"
  rt pause scope
  is scope paused
  rt resume scope
  refused 'deleting what runs' rt delete scope
  rt delete --force scope
  gone $u || fail "$u is there: $(property $u ActiveState)"
}

# What the container makes of its part is left alone, and what it may not have it does not get.
test_delegation() {
  local procs device
  bundle deleg "$limits" sleep 1000
  rt run -d -b /b/deleg deleg
  if [[ $pure == 1 ]]; then
    # shellcheck disable=SC2016
    rt exec deleg sh -ec '
      cd /sys/fs/cgroup
      for c in $(cat cgroup.controllers); do echo +$c >cgroup.subtree_control; done
      mkdir sub
      sleep 1000 & echo $! >sub/cgroup.procs
      echo 16777216 >sub/memory.max'
    for device in max 99999999; do refused "raising its limit" rt exec deleg sh -c "echo $device >$cg/memory.max"; done
    procs=$(node . vmt-lim.scope)/init.scope/cgroup.procs
  else
    # shellcheck disable=SC2016
    rt exec deleg sh -ec '
      cd /sys/fs/cgroup
      mkdir memory/sub systemd/sub unified/sub
      sleep 1000 & p=$!
      for h in memory systemd unified; do echo $p >$h/sub/cgroup.procs; done
      echo 16777216 >memory/sub/memory.limit_in_bytes'
    refused "raising its limit" rt exec deleg sh -c "echo -1 >$cg/memory/memory.limit_in_bytes"
    procs=$(node devices vmt-lim.scope)/cgroup.procs
  fi
  reload
  # shellcheck disable=SC2016
  rt exec deleg sh -ec 'cd /sys/fs/cgroup; [ ! -d memory ] || cd memory; [ $(wc -l <sub/cgroup.procs) = 1 ]; for d in null zero full random urandom tty fuse net/tun ptmx; do [ -c /dev/$d ]; done
    echo x >/dev/null; head -c 4 /dev/zero >/dev/null'
  # As the host's root, whom nothing else would refuse them.
  for device in /dev/vda /dev/vdb /dev/kmsg /dev/ttyS1; do
    head -c 0 $device
    bash -c "echo \$\$ >$procs || exit 99; exec 3<$device" 2>/dev/null && fail "$device can be opened after daemon-reload"
  done
  bash -c "echo \$\$ >$procs || exit 99; exec 3<>/dev/null 4</dev/zero 5<>/dev/ptmx" || fail 'its own devices'
  rt delete --force deleg
}

test_end() {
  local u=vmt-end.scope i
  bundle end '.linux.cgroupsPath = "system.slice:vmt:end"' sh -c 'sleep 0.5; exit 7'
  same 'exit status' "$(rt run -b /b/end end || echo $?)" 7
  # Ends by itself: systemd takes the unit away before we do.
  rt run -d -b /b/end end
  until_true is end stopped
  until_true gone $u
  rt kill --all end KILL || true
  rt delete end
  # Stopped by systemd.
  bundle end '.linux.cgroupsPath = "system.slice:vmt:end"' sleep 1000
  rt run -d -b /b/end end
  timeout 60 systemctl kill -s KILL $u
  until_true is end stopped
  rt delete end
  # A name that is in use, and that is in use no more.
  rt run -d -b /b/end end
  refused 'a unit that is there' rt run -d -b /b/end end2
  is end running || fail 'the first suffers'
  same 'state of the unit' "$(property $u ActiveState)" active
  rt delete --force end
  for i in 1 2 3 4 5; do
    rt create -b /b/end end
    rt delete --force end
  done
  # A program that does not exist: refused late, or at the start.
  bundle end '.linux.cgroupsPath = "system.slice:vmt:end"' /no/such/program
  same 'status of a program that is not there' "$(rt run -b /b/end end 2>/dev/null || echo $?)" 127
  # An impossible limit.
  bundle end '.linux.cgroupsPath = "system.slice:vmt:end" | .linux.resources.cpu = {cpus: "4000"}' true
  refused 'a CPU that is not there' rt run -b /b/end end
}

# Killed at all sorts of moments.
test_crash() {
  local i runtime
  bundle crash '.linux.cgroupsPath = "system.slice:vmt:crash"' sleep 1000
  for i in 0 1 2 3 4 5 6 7 8 9 10 11; do
    setsid sysbox-runc --systemd-cgroup create -b /b/crash crash </dev/null >/dev/null 2>&1 &
    runtime=$!
    sleep "$(printf '%d.%02d' $((i * 12 / 100)) $((i * 12 % 100)))"
    kill -KILL -- "-$runtime" 2>/dev/null || true
    wait "$runtime" 2>/dev/null || true
    rt delete --force crash
    until_true gone vmt-crash.scope
  done
  # And the next is as good as any.
  rt run -d -b /b/crash crash
  rt exec crash true
  rt delete --force crash
}

test_docker() {
  local out id u
  mkdir -p /etc/docker
  cat >/etc/docker/daemon.json <<'E'
{"exec-opts": ["native.cgroupdriver=systemd"], "runtimes": {"sysbox-runc": {"path": "/usr/local/bin/sysbox-runc"}},
 "storage-driver": "overlay2", "iptables": false, "ip6tables": false, "bridge": "none"}
E
  timeout 200 systemctl start docker || { journalctl -n 30 --no-pager -u docker; return 1; }
  same driver "$(dock info -f '{{.CgroupDriver}}')" systemd
  timeout 120 docker import /opt/busybox.tar busybox >/dev/null
  out=$(dock run --rm --runtime=sysbox-runc --network=none busybox sh -c 'cat /proc/self/uid_map | xargs; exit 7' || echo $?)
  [[ $out == "0 2"*$'65536\n7' ]] || fail "docker run: $out"
  id=$(dock run -d --runtime=sysbox-runc --network=none -m 64m --cpus .5 --pids-limit 50 --name box busybox sleep 1000)
  u=docker-$id.scope
  same 'state of the unit' "$(property "$u" ActiveState)" active
  same 'docker exec' "$(dock exec box id -u)" 0
  out=$(dock stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' box)
  [[ $out == *' / 64MiB 1' && $out != '0B '* ]] || fail "docker stats: $out"
  reload
  dock exec box dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null && fail 'the memory limit is not effective'
  dock update --pids-limit 60 -m 80m --memory-swap 80m box >/dev/null
  same 'TasksMax after docker update' "$(property "$u" TasksMax)" 60
  reload
  same 'pids.max after that' "$(cat "$(node pids "$u")/pids.max")" 60
  dock pause box >/dev/null
  dock unpause box >/dev/null
  # One that restarts has the name again at once.
  dock restart -t 1 box >/dev/null
  same 'docker exec after restart' "$(dock exec box id -u)" 0
  dock rm -f box >/dev/null
  until_true gone "$u"
  dock run --runtime=sysbox-runc --network=none -m 64m --name hungry busybox dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null &&
    fail 'the memory limit is not effective'
  same 'how what wants too much memory ends' "$(dock inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' hungry)" '137 true'
  dock rm hungry >/dev/null
  id=$(dock run -d --runtime=sysbox-runc --network=none --cgroup-parent=vmt-x.slice --name box busybox sleep 1000)
  same 'slice of --cgroup-parent' "$(property "docker-$id.scope" Slice)" vmt-x.slice
  dock rm -f box >/dev/null
  timeout 100 systemctl stop docker docker.socket containerd
}

all=(forms scope delegation end crash docker)

guest() {
  local name before began passed=0 failed=0
  pure=0
  [[ ! -e $cg/cgroup.controllers ]] || pure=1
  mkdir -p /b
  echo "Linux $(uname -r), $(busctl --version | head -n 1), $(if [[ $pure == 1 ]]; then echo cgroup v2; else echo cgroup v1 and v2; fi)"
  [[ $# -gt 0 ]] || set -- "${all[@]}"
  for name in "$@"; do
    before=$(leavings) began=$SECONDS
    # A function's set -e does not count in a condition: a shell of its own has it.
    if timeout 400 "$BASH" "$0" --one "$name" "$pure" && sleep 1 && diff <(echo "$before") <(leavings); then
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
  --one)
    pure=$3
    trap 'echo "  line $LINENO: $BASH_COMMAND"' ERR
    "test_$2"
    ;;
  --guest) shift; guest "$@" ;;
  *)
    # shellcheck disable=SC2086  # words
    exec "$(dirname "$(readlink -f "$0")")/vm.sh" --systemd "$@" "$0" --guest ${VM_TEST_ONLY:-}
    ;;
esac
