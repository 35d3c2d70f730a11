#!/usr/bin/env bash
# demo.sh - Docker inside a system container: start one from a Debian tree, in it dockerd, in that a container.
# What runs inside is this same file, given as the container's first program: see `inside`.
#   SYSBOX_RUNC  the runtime (default: sysbox-runc on PATH)
#   DEMO_TREE    docker-bookworm | docker-trixie
set -euo pipefail

# pid 1 of the system container. Everything here runs as its root, who is nobody on the host.
inside() {
  echo "user namespace: $(tr -s ' ' </proc/self/uid_map)"
  dockerd >/var/log/dockerd.log 2>&1 &
  local dockerd=$! try
  for ((try = 0; try < 300; try++)); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$dockerd" 2>/dev/null || break
    sleep 0.1
  done
  if ! docker info --format 'dockerd {{.ServerVersion}}, storage driver {{.Driver}}' 2>/dev/null; then
    echo "dockerd did not start:"
    tail -n 20 /var/log/dockerd.log
    return 1
  fi
  docker import /opt/busybox.tar busybox >/dev/null
  local status=0
  docker run --rm busybox echo "hello from a container inside a system container" || status=$?
  # pid 1's end takes all with it; this only lets dockerd tidy up first.
  kill "$dockerd"
  wait "$dockerd" || true
  return $status
}

outside() {
  # Not local: the clean-up runs when this function is gone.
  here=$(dirname "$(readlink -f "$0")")
  runtime=${SYSBOX_RUNC:-sysbox-runc}
  runtime=$(readlink -f "$(command -v "$runtime")") || { echo "demo: no $runtime; make build" >&2; exit 2; }
  [[ $EUID -eq 0 ]] || { echo "demo: needs root" >&2; exit 2; }
  "$here/deps.sh" jq

  # On the trees' file system, so that the copy may share their blocks. A copy, so that they stay clean.
  tree=$("$here/rootfs.sh" "${DEMO_TREE:-docker-bookworm}")
  bundle=$(mktemp -d "$(dirname "$tree")/demo.XXXXXX")
  id=demo-$$
  cleanup() {
    "$runtime" --root "$bundle/state" delete --force "$id" >/dev/null 2>&1 || true
    # Should a mount have survived, what is mounted must not be deleted.
    rm -rf --one-file-system "$bundle"
  }
  trap cleanup EXIT
  trap 'exit 130' INT TERM
  cp -a --reflink=auto "$tree" "$bundle/rootfs"
  install -m 0755 "$0" "$bundle/rootfs/demo"

  "$runtime" spec --bundle "$bundle"
  jq '.root.path = "rootfs" | .process.terminal = false | .process.args = ["/demo", "--inside"]' \
    "$bundle/config.json" >"$bundle/config.json.new"
  mv "$bundle/config.json.new" "$bundle/config.json"
  # stdin: some runtimes give the container what is there, and that must not be a terminal or the host's device node.
  : >"$bundle/stdin"
  "$runtime" --root "$bundle/state" run -b "$bundle" "$id" <"$bundle/stdin"
}

if [[ ${1:-} == --inside ]]; then inside; else outside; fi
