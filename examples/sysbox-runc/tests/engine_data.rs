//! What engines inside keep, and volumes: with a Docker Engine of the host's.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::{Engine, STEP};
use common::inner::ENGINE;
use common::wait_for;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A container of that image with an engine inside that is up.
#[track_caller]
fn with_engine(engine: &Engine, image: &str, name: &str, options: &[&str]) {
    let mut all = vec!["-d", "--name", name];
    all.extend(options);
    all.extend([image, "sh", "-c", ENGINE]);
    engine.run(&all).ok();
    up(engine, name);
}

#[track_caller]
fn up(engine: &Engine, name: &str) {
    let up = wait_for(STEP, || engine.docker(&["exec", name, "docker", "info"]).code == 0);
    assert!(up, "no engine inside: {:?}", engine.docker(&["exec", name, "tail", "/var/log/dockerd.log"]));
}

#[track_caller]
fn sh(engine: &Engine, name: &str, script: &str) -> String {
    engine.docker(&["exec", name, "sh", "-ec", script]).ok().text().to_owned()
}

/// Makes an inner image with a deleted file, a replaced directory and a deleted directory, and an inner container that has been
/// changed the same ways.
const CHANGES: &str = r"
docker import /opt/busybox.tar busybox >/dev/null
mkdir -p /b && cd /b
cat >Dockerfile <<'END'
FROM busybox
RUN mkdir -p /replaced /deleted/deep && echo old >/replaced/old && echo gone >/gone && echo x >/deleted/deep/x
RUN rm /gone && rm -r /replaced /deleted && mkdir /replaced && echo new >/replaced/new
END
docker build -q -t changed . >/dev/null
docker run --name later changed sh -c 'rm -r /replaced && mkdir /replaced && echo newer >/replaced/newer; rm /etc/group; ln /etc/passwd /linked'
";

const SEEN: &str = r"
docker info --format '{{.Driver}}'
docker run --rm changed sh -c 'ls /replaced; ls -d /gone /deleted 2>/dev/null; cat /replaced/new'
docker start -a later >/dev/null 2>&1 || true
docker export later | tar -t | grep -E '^(replaced/.|gone|deleted|etc/group$|linked)' | sort | xargs
";

const WANTED: &str = "overlay2\nnew\nnew\nlinked replaced/newer";

#[test]
fn images_inside_survive_restarts_and_commits() {
    let Some(engine) = Engine::shared("images_inside_survive") else { return };
    engine.image("docker-bookworm");
    with_engine(&engine, "docker-bookworm", "keeps", &[]);
    sh(&engine, "keeps", CHANGES);
    assert_eq!(sh(&engine, "keeps", SEEN), WANTED);
    engine.docker(&["restart", "-t", "20", "keeps"]).ok();
    up(&engine, "keeps");
    assert_eq!(sh(&engine, "keeps", SEEN), WANTED, "after docker restart");
    // While it runs, which pauses it; and when it has ended.
    engine.docker(&["commit", "keeps", "carries-live"]).ok();
    engine.docker(&["stop", "-t", "20", "keeps"]).ok();
    engine.docker(&["commit", "keeps", "carries"]).ok();
    engine.docker(&["rm", "keeps"]).ok();
    for image in ["carries-live", "carries"] {
        with_engine(&engine, image, "carried", &[]);
        assert_eq!(sh(&engine, "carried", SEEN), WANTED, "from {image}");
        if image == "carries" {
            // And once more, from a layer over a layer that has it.
            sh(&engine, "carried", "docker rmi -f changed >/dev/null; docker rm later >/dev/null; docker run --name third busybox touch /third");
            engine.docker(&["stop", "-t", "20", "carried"]).ok();
            engine.docker(&["commit", "carried", "carries-again"]).ok();
        }
        engine.docker(&["rm", "-f", "carried"]).ok();
    }
    with_engine(&engine, "carries-again", "again", &[]);
    assert_eq!(
        sh(&engine, "again", "docker ps -a --format '{{.Names}}'; docker images --format '{{.Repository}}'"),
        "third\nbusybox"
    );
    engine.docker(&["rm", "-f", "again"]).ok();
    engine.docker(&["rmi", "carries-live", "carries", "carries-again"]).ok();
}

#[test]
fn the_data_root_that_an_image_configures() {
    let Some(engine) = Engine::shared("the_data_root_that_an_image_configures") else { return };
    engine.image("docker-bookworm");
    let script = r#"mkdir -p /etc/docker && echo '{"data-root": "/srv/engine"}' >/etc/docker/daemon.json"#;
    engine.run(&["--name", "configures", "docker-bookworm", "sh", "-c", script]).ok();
    engine.docker(&["commit", "configures", "configured"]).ok();
    engine.docker(&["rm", "configures"]).ok();
    with_engine(&engine, "configured", "elsewhere", &[]);
    let script = "docker info --format '{{.Driver}} {{.DockerRootDir}}'; docker import /opt/busybox.tar busybox >/dev/null; docker run --rm busybox echo runs; grep -c ' /var/lib/docker ' /proc/mounts || true";
    assert_eq!(sh(&engine, "elsewhere", script), "overlay2 /srv/engine\nruns\n0");
    engine.docker(&["rm", "-f", "elsewhere"]).ok();
    engine.docker(&["rmi", "configured"]).ok();
}

/// overlayfs as stat(1) of busybox prints it.
const OVERLAY: &str = "794c7630";

#[test]
fn a_volume_is_never_shadowed() {
    let Some(engine) = Engine::shared("a_volume_is_never_shadowed") else { return };
    engine.image("busybox");
    let dir = engine.path("volumes");
    for d in ["docker", "lib/docker"] {
        std::fs::create_dir_all(dir.join(d)).unwrap();
        std::fs::write(dir.join(d).join("mine"), d).unwrap();
    }
    for (volume, wanted) in [("docker:/var/lib/docker", "docker"), ("lib:/var/lib", "lib/docker")] {
        let bind = format!("{}/{volume}", dir.display());
        let seen = engine.run(&["--rm", "-v", &bind, "busybox", "cat", "/var/lib/docker/mine"]).ok();
        assert_eq!(seen.text(), wanted);
    }
    // Without any, each of these is a real file system.
    let script = "for d in docker containerd kubelet buildkit containers rancher/k3s rancher/rke2 k0s; do stat -f -c %t /var/lib/$d; done | sort -u; touch /var/lib/rancher/k3s/f && stat -c %u:%g /var/lib/kubelet /var/lib/rancher/k3s/f";
    let seen = engine.run(&["--rm", "busybox", "sh", "-c", script]).ok();
    let lines: Vec<&str> = seen.text().lines().collect();
    assert!(lines.len() == 3 && lines[0] != OVERLAY && lines[1..] == ["0:0", "0:0"], "{lines:?}");
    assert_eq!(engine.run(&["--rm", "busybox", "stat", "-f", "-c", "%t", "/var/lib"]).ok().text(), OVERLAY);
    // Below one, the volume is there, and the rest is a real file system.
    let bind = format!("{}/docker:/var/lib/docker/volumes", dir.display());
    let script = "cat /var/lib/docker/volumes/mine; echo; stat -f -c %t /var/lib/docker";
    let seen = engine.run(&["--rm", "-v", &bind, "busybox", "sh", "-c", script]).ok();
    assert!(seen.text().starts_with("docker\n") && !seen.text().contains(OVERLAY), "{}", seen.text());
}

#[test]
fn one_cache_one_container() {
    let Some(engine) = Engine::shared("one_cache_one_container") else { return };
    engine.image("docker-bookworm");
    let cache = engine.path("cache");
    std::fs::create_dir(&cache).unwrap();
    let bind = format!("{}:/var/lib/docker", cache.display());
    with_engine(&engine, "docker-bookworm", "job1", &["-v", &bind]);
    sh(&engine, "job1", "docker import /opt/busybox.tar busybox");
    let id = engine.inspect("job1", "{{.Id}}");
    let busy = engine.run(&["--name", "job2", "-v", &bind, "docker-bookworm", "true"]).expect_code(125);
    assert!(busy.err.contains(&id) && busy.err.contains("cache"), "{}", busy.err);
    engine.docker(&["rm", "-f", "job2"]).ok();
    // Read-only it harms nobody.
    engine.run(&["--rm", "-v", &format!("{bind}:ro"), "docker-bookworm", "true"]).ok();
    engine.docker(&["stop", "-t", "20", "job1"]).ok();
    engine.docker(&["rm", "job1"]).ok();
    with_engine(&engine, "docker-bookworm", "job3", &["-v", &bind]);
    assert_eq!(
        sh(&engine, "job3", "docker info --format '{{.Driver}}'; docker run --rm busybox echo kept"),
        "overlay2\nkept"
    );
    engine.docker(&["rm", "-f", "job3"]).ok();
}

#[test]
fn volumes_of_every_kind() {
    let Some(engine) = Engine::shared("volumes_of_every_kind") else { return };
    engine.image("busybox");
    let dir = engine.path("kinds");
    std::fs::create_dir_all(dir.join("tree/tmp")).unwrap();
    let mounted = dir.join("tree/tmp");
    let mount = |args: &[&str]| {
        let out = std::process::Command::new("mount").args(args).output().unwrap();
        assert!(out.status.success(), "mount {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    mount(&["-t", "tmpfs", "none", mounted.to_str().unwrap()]);
    let _unmount = Unmount(mounted.clone());
    std::fs::write(mounted.join("f"), "x").unwrap();
    let at = |p: &str, to: &str| format!("{}/{p}:{to}", dir.display());
    let run = |options: &[&str], script: &str| {
        let mut args = vec!["--rm"];
        args.extend(options);
        args.extend(["busybox", "sh", "-c", script]);
        engine.run(&args)
    };
    // A mount below, mapped by itself.
    let script = "stat -c %u /t/tmp/f; echo y >/t/tmp/g && stat -c %u /t/tmp/g";
    assert_eq!(run(&["-v", &at("tree", "/t")], script).ok().text(), "0\n0");
    assert_eq!(std::fs::metadata(mounted.join("g")).unwrap().uid(), 0);
    // The whole host, as nobody there.
    let script = "test -d /x/proc/1 && stat -c %u /x/etc/passwd && ! touch /x/proc/sys/kernel/domainname 2>/dev/null && ! cat /x/proc/1/environ 2>/dev/null && echo kept";
    assert_eq!(run(&["-v", "/:/x:ro"], script).ok().text(), "0\nkept");
    // A named volume takes what the image has there, with its owners.
    let script = "stat -c %u:%g /home; touch /home/f && stat -c %u /home/f";
    let named = run(&["-v", "named:/home"], script).ok();
    assert_eq!(named.text().lines().count(), 2, "{}", named.text());
    engine.docker(&["volume", "rm", "named"]).ok();
    // Sockets are not mapped: who may connect stays as it is on the host.
    let socket = dir.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o660)).unwrap();
    assert_eq!(run(&["-v", &at("socket", "/s")], "stat -c %u /s").ok().text(), "65534");
    // What cannot be mapped is refused with the cure, and goes in as nobody's where that is asked for.
    for d in ["low", "up", "work", "merged"] {
        std::fs::create_dir(dir.join(d)).unwrap();
    }
    std::fs::write(dir.join("low/f"), "seen").unwrap();
    let options = format!("lowerdir={0}/low,upperdir={0}/up,workdir={0}/work", dir.display());
    let merged = dir.join("merged");
    mount(&["-t", "overlay", "-o", &options, "overlay", merged.to_str().unwrap()]);
    let _unmount = Unmount(merged);
    let refused = run(&["-v", &at("merged", "/m")], "true").expect_code(125);
    for word in ["overlayfs", "sysbox.skip-uid-shift", "/m"] {
        assert!(refused.err.contains(word), "no {word:?} in {}", refused.err);
    }
    let asked =
        run(&["-v", &at("merged", "/m"), "-e", "SYSBOX_SKIP_UID_SHIFT=/m"], "cat /m/f; echo; stat -c %u /m/f").ok();
    assert_eq!(asked.text(), "seen\n65534");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).output();
    }
}

/// As many layers as Docker allows, so many that it shortens the list by relative names.
#[test]
fn images_of_many_layers() {
    let Some(engine) = Engine::shared("images_of_many_layers") else { return };
    engine.image("busybox");
    let dir = engine.path("layers");
    std::fs::create_dir(&dir).unwrap();
    let mut file = String::from("FROM busybox\n");
    // 128 with that of the image itself and the two that Docker adds.
    for i in 0..124 {
        std::fs::write(dir.join(format!("f{i}")), i.to_string()).unwrap();
        file += &format!("COPY f{i} /files/\n");
    }
    std::fs::write(dir.join("Dockerfile"), file).unwrap();
    let mut build = engine.client(&["build", "-q", "-t", "layered", dir.to_str().unwrap()]);
    build.env("DOCKER_BUILDKIT", "0");
    engine.lab.spawn(build).finish(3 * STEP).ok();
    let name = "layers";
    engine.run(&["-d", "--name", name, "layered", "sleep", "1000"]).ok();
    let relative = std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .any(|l| l.contains(engine.lab.dir.to_str().unwrap()) && l.contains("lowerdir=l/"));
    assert!(relative, "the list of layers is not relative: this tests nothing");
    assert_eq!(
        sh(&engine, name, "cat /files/f0 /files/f123; ls /files | wc -l; echo new >/files/f0; cat /files/f0"),
        "0123124\nnew"
    );
    engine.docker(&["rm", "-f", name]).ok();
    engine.docker(&["rmi", "layered"]).ok();
}

/// No copy, no chown: what starts does not depend on the image's size.
#[test]
fn an_image_is_neither_copied_nor_changed() {
    let Some(engine) = Engine::shared("an_image_is_neither_copied") else { return };
    engine.image("docker-bookworm");
    engine.run(&["-d", "--name", "big", "docker-bookworm", "sleep", "1000"]).ok();
    let upper = engine.inspect("big", "{{.GraphDriver.Data.UpperDir}}");
    let files = walk(Path::new(&upper));
    // Directories for engines inside, and what Docker itself mounts over.
    let regular: Vec<_> = files.iter().filter(|f| f.is_file() && f.metadata().unwrap().len() > 0).collect();
    assert!(regular.is_empty(), "{regular:?}");
    let lower = engine.inspect("big", "{{.GraphDriver.Data.LowerDir}}");
    let base = Path::new(lower.rsplit(':').next().unwrap());
    assert_eq!(std::fs::metadata(base.join("etc/passwd")).unwrap().uid(), 0);
    assert_eq!(sh(&engine, "big", "stat -c %u /etc/passwd"), "0");
    engine.docker(&["rm", "-f", "big"]).ok();
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            out.extend(walk(&entry.path()));
        }
        out.push(entry.path());
    }
    out
}
