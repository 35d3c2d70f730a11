#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...] - run the fuzz targets (default: all), sharing SECONDS among them.
# Needs neither cargo-fuzz nor a nightly compiler: coverage instrumentation is a stable option, and only the
# sanitizers are not. Panics, hangs and runaway memory are found all the same; memory errors in `unsafe` code need
# `cargo fuzz run` on nightly. Exit status: 0 no finding, 1 a finding (its input is in fuzz/artifacts).
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || { echo "usage: $0 SECONDS [TARGET...]" >&2; exit 2; }
seconds=$1
shift
if [[ $# -eq 0 ]]; then
  for source in fuzz/fuzz_targets/*.rs; do
    [[ -e $source ]] || { echo "fuzz: there are no targets" >&2; exit 0; }
    set -- "$@" "$(basename "$source" .rs)"
  done
fi
# libFuzzer itself is C++.
hack/deps.sh c++

host=$(rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes, less the sanitizer. --target keeps it away from build scripts and macros.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks --cfg fuzzing"
cargo build --manifest-path fuzz/Cargo.toml --target-dir fuzz/target --release --target "$host" \
  "${@/#/--bin=}" --config profile.release.lto=false --config 'profile.release.panic="unwind"' </dev/null

# Targets write files: in memory where that is possible.
TMPDIR=$(mktemp -d /dev/shm/sysbox-fuzz.XXXXXX 2>/dev/null || mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

each=$((seconds / $#))
[[ $each -gt 0 ]] || each=1
status=0
for target in "$@"; do
  corpus=fuzz/corpus/$target
  mkdir -p "$corpus" fuzz/artifacts
  # Inputs worth keeping in git are in fuzz/seeds; what a run finds goes to the corpus.
  inputs=("$corpus")
  [[ ! -d fuzz/seeds/$target ]] || inputs+=("fuzz/seeds/$target")
  [[ ! -e fuzz/dictionaries/$target ]] || inputs+=("-dict=fuzz/dictionaries/$target")
  echo "== fuzz $target, $each s"
  "fuzz/target/$host/release/$target" "${inputs[@]}" -max_total_time="$each" -timeout=10 -rss_limit_mb=4096 \
    -artifact_prefix="fuzz/artifacts/$target-" -print_final_stats=1 -verbosity=0 </dev/null || { status=1; echo "fuzz: $target has a finding"; }
done
exit $status
