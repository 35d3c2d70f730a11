#!/usr/bin/env bash
# test.sh [ARGUMENTS OF cargo test...] - run the whole test suite (default: --workspace) and count what it did.
# A test that cannot run here prints `SKIP <name>: <reason>` on stderr and returns; cargo counts it as passed, we as skipped.
# The last line is `N passed, N failed, N skipped`; the exit status is 0 only if something passed and nothing failed.
#   SYSBOX_ALLOW_SKIPS   a number: more skips than that are a failure (unset: any number is allowed)
#   SYSBOX_TEST_TIMEOUT  seconds for building and running the tests (2700)
#   SYSBOX_TEST_TREES    the trees to have ready (all; empty: none)
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

limit=${SYSBOX_TEST_TIMEOUT:-2700}
logs=$PWD/target/test-logs
mkdir -p "$logs"
: >"$logs/failures"
[[ $# -gt 0 ]] || set -- --workspace

hack/deps.sh cc jq flock unshare mmdebstrap
# What the tests of the C library use besides. They skip without it.
hack/deps.sh c++ make pkg-config valgrind python3 || echo "test: not all tools for C are here" >&2
# Asked for alone: Debian bookworm has none that is new enough.
hack/deps.sh go || echo "test: no Go, its package is not tested" >&2
if [[ $EUID -eq 0 ]]; then
  # Engines that drive the runtime. Their tests skip without them.
  hack/deps.sh dockerd docker ip iptables ctr podman conmon nsenter script /usr/lib/cni/bridge lxcfs ||
    echo "test: not all engines are here" >&2
  for tree in ${SYSBOX_TEST_TREES-busybox docker-bookworm docker-trixie docker-forky docker-tools systemd}; do
    # A tree that cannot be built is for the tests that need it to report, by skipping.
    hack/rootfs.sh "$tree" >/dev/null || echo "test: no tree $tree" >&2
  done
fi

# stdout and stderr are kept apart: libtest writes the one, tests' SKIP lines are on the other, and a line of
# either must not be cut in two by the other. Files, not pipes: a container that outlives the tests holds its stdout
# open, and a reader would wait for it for ever. timeout, because a test that hangs must not hang the suite.
status=0
: >"$logs/stdout"
: >"$logs/stderr"
timeout --kill-after=30 "$limit" cargo test --no-fail-fast "$@" -- --nocapture \
  </dev/null >"$logs/stdout" 2>"$logs/stderr" &
cargo=$!
trap 'kill "$cargo"' INT TERM
tail -q -n +1 -f --pid="$cargo" "$logs/stdout" "$logs/stderr" || true
wait "$cargo" || status=$?
trap - INT TERM

# Anywhere in a line: what a test printed without a newline stands before it.
read -r passed failed ignored < <(
  grep -aoE 'test result: (ok|FAILED)\. [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored' "$logs/stdout" |
    awk '{p += $4; f += $6; i += $8} END {print p + 0, f + 0, i + 0}'
)
# Once a reason: a test that says it twice has still been skipped once.
grep -aoE 'SKIP [^ ]+: .*' "$logs/stderr" | sort -u >"$logs/skips" || true
skips=$(wc -l <"$logs/skips")

# A failed build, a crashed test program and a timeout have no `failed` of their own.
if [[ $status -ne 0 && $failed -eq 0 ]]; then failed=1; fi
[[ $status -ne 124 && $status -ne 137 ]] || echo "test: not done after $limit s" >&2

# What each failed test said, once more where nobody needs to look for it.
failures() {
  grep -aoP '^    \K\S+$' <(sed -n '/^failures:$/,/^test result: FAILED/p' "$logs/stdout") | sort -u |
    while read -r name; do
      echo "FAILED $name"
      # From its panic to the backtrace. Other tests' lines may stand between.
      awk -v start="thread '$name'" 'index($0, start) == 1 {on = 1; n = 0}
        /^stack backtrace:|^note: run with/ {on = 0}
        on && n++ < 40 {print "  " substr($0, 1, 2000)}' "$logs/stderr"
    done
}
failures >"$logs/failures" || true

echo
[[ ! -s $logs/failures ]] || cat "$logs/failures"
if [[ $skips -gt 0 ]]; then
  echo "skipped:"
  sed 's/^SKIP /  /' "$logs/skips"
fi
# A test program that crashed took its passes with it, but its skips are known.
passed=$((passed > skips ? passed - skips : 0)) skipped=$((skips + ignored))
if [[ -n ${SYSBOX_ALLOW_SKIPS:-} && $skipped -gt ${SYSBOX_ALLOW_SKIPS:-0} ]]; then
  echo "test: $skipped skipped, $SYSBOX_ALLOW_SKIPS allowed"
  status=1
fi
[[ $((passed + failed)) -gt 0 ]] || { echo "test: nothing was tested"; status=1; }
echo "$passed passed, $failed failed, $skipped skipped"
[[ $status -eq 0 && $failed -eq 0 ]]
