#!/usr/bin/env bash
# slow.sh COMMAND... - run a command on a machine that stands still now and then, as a virtual machine does on a busy host:
# for 1.2 seconds of every 3 to 6 no CPU does anything else. `hack/slow.sh make test` must pass as well. Needs root.
set -euo pipefail
[[ $# -gt 0 ]] || { echo "usage: $0 COMMAND..." >&2; exit 2; }

# Ends by itself: on a CPU that it has taken, nothing could end it.
# shellcheck disable=SC2016 # the inner shell's
readonly busy='end=$((${EPOCHREALTIME/[.,]/} + 1200000)); while ((${EPOCHREALTIME/[.,]/} < end)); do :; done'
disturb() {
  local cpu
  while sleep "$((1 + RANDOM % 3)).$((RANDOM % 10))"; do
    for ((cpu = 0; cpu < $(nproc); cpu++)); do chrt -f 50 taskset -c "$cpu" bash -c "$busy" & done
    wait
  done
}
disturb &
disturber=$!
trap 'kill "$disturber" 2>/dev/null' EXIT
status=0
"$@" || status=$?
exit "$status"
