#!/usr/bin/env bash
# lint.sh - everything that can be said about the sources without running them. All of it runs; any of it can fail the whole.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1

failed=()
check() {
  echo "== $*"
  "$@" || failed+=("$*")
}

check cargo fmt --all -- --check
check cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS=-Dwarnings check cargo doc --workspace --no-deps
check hack/header.sh --check
if command -v shellcheck >/dev/null; then
  check shellcheck hack/*.sh .ci/run
else
  echo "== shellcheck is absent: scripts not checked (apt-get install shellcheck)"
fi

if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'lint failed: %s\n' "${failed[@]}"
  exit 1
fi
