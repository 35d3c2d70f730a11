//! Images for engines that read archives, made without a registry.

use super::{tree, Lab};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `docker save`'s format: a manifest, a configuration, and a tar archive a layer. The second layer has two files, of which the
/// third takes one away and replaces the other.
const SCRIPT: &str = r#"
set -eu
tree=$1 dir=$2 name=$3
mkdir -p "$dir/two/layers" "$dir/three/layers"
cd "$dir"
echo two >two/layers/changed
echo two >two/layers/removed
echo three >three/layers/changed
: >three/layers/.wh.removed
tar --numeric-owner -C "$tree" -cf one.tar .
for layer in two three; do tar --owner=0 --group=0 -C $layer -cf $layer.tar .; done
ids=
for layer in one two three; do ids="$ids${ids:+,}\"sha256:$(sha256sum <$layer.tar | cut -d' ' -f1)\""; done
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
echo "{\"architecture\":\"$arch\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"sh\"],\"Env\":[\"PATH=$path\"]},
  \"rootfs\":{\"type\":\"layers\",\"diff_ids\":[$ids]}}" >config.json
echo "[{\"Config\":\"config.json\",\"RepoTags\":[\"$name\"],\"Layers\":[\"one.tar\",\"two.tar\",\"three.tar\"]}]" >manifest.json
tar -cf image.tar manifest.json config.json one.tar two.tar three.tar
rm -r one.tar two.tar three.tar two three
"#;

/// What a container of such an image shows of its layers by [`LAYERS`].
pub(crate) const SHOWN: &str = "changed three";
pub(crate) const LAYERS: &str = "echo $(ls /layers) $(cat /layers/*)";

/// The tree of that kind as an image of [`name`].
#[track_caller]
pub(crate) fn image(lab: &Lab, kind: &str) -> PathBuf {
    let (tree, dir) = (tree(kind).unwrap(), lab.path(&format!("image-{kind}")));
    let mut c = Command::new("sh");
    c.args(["-c", SCRIPT, "sh"]).arg(tree).arg(&dir).arg(name(kind)).stdin(Stdio::null());
    lab.spawn(c).finish(Duration::from_secs(360)).ok();
    dir.join("image.tar")
}

pub(crate) fn name(kind: &str) -> String {
    format!("docker.io/library/{kind}:latest")
}
