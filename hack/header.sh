#!/usr/bin/env bash
# header.sh [--check] - make include/sysbox.h from sysbox-ffi, or see that it is what would be made, and that its functions are
# those of sysbox-ffi/tests/exports.txt, which the library's own symbols are compared with by a test.
# The generator is of one fixed version, since others format differently. It is built once, below target/.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

version=0.29.4
tools=$PWD/target/tools
cbindgen=$tools/bin/cbindgen
if [[ "$("$cbindgen" --version 2>/dev/null || true)" != "cbindgen $version" ]]; then
  if [[ -n ${SYSBOX_NO_INSTALL:-} ]]; then
    echo "missing: cbindgen $version in $tools (cargo install cbindgen --version =$version --locked --root $tools)" >&2
    exit 3
  fi
  cargo install cbindgen --version "=$version" --locked --root "$tools" --force >&2
fi

header=include/sysbox.h
new=$(mktemp)
trap 'rm -f "$new"' EXIT
"$cbindgen" --quiet --config sysbox-ffi/cbindgen.toml --output "$new" sysbox-ffi
if [[ ${1:-} == --check ]]; then
  diff -u "$header" "$new" >&2 || { echo "$header is not what the sources say: make header" >&2; exit 1; }
  exports=sysbox-ffi/tests/exports.txt
  diff -u "$exports" <(sed -n '/^[a-z].*(/s/.*\<\(sysbox_[a-z_]*\)(.*/\1/p' "$header" | grep -v '_fn$' | LC_ALL=C sort) >&2 ||
    { echo "$exports and the functions of $header differ" >&2; exit 1; }
else
  install -D -m 0644 "$new" "$header"
fi
