//! What people do with Docker Engine inside a system container.

use super::Lab;
use std::process::Command;
use std::time::Duration;

pub(crate) const STEP: Duration = Duration::from_secs(90);

/// pid 1 of a system container: an engine, and its end on SIGTERM.
pub(crate) const ENGINE: &str = r#"
trap 'kill "$dockerd"; wait "$dockerd"; exit 0' TERM
rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
dockerd >/var/log/dockerd.log 2>&1 &
dockerd=$!
wait "$dockerd"
"#;

/// In an inner container: its limits, whatever the version of control groups.
const LIMITS: &str = r#"
cd /sys/fs/cgroup
if [ -e cgroup.controllers ]; then cat memory.max pids.max cpu.max
else cat memory/memory.limit_in_bytes pids/pids.max; echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us); fi
"#;

/// In an inner container: how often its processes had to wait for their share. A host with much to do may not give them even
/// that much for a while.
const THROTTLED: &str = r"
for i in 1 2 3 4 5 6 7 8; do
  timeout 2 sh -c 'while :; do :; done' 2>/dev/null
  n=$(sed -n 's/^nr_throttled //p' $(find /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null | head -n 1))
  [ $n = 0 ] || break
done
echo $n
";

/// A system container with an engine, in which step after step is taken; what fails is told at the end, all of it.
pub(crate) struct Inner<'a> {
    lab: &'a Lab,
    /// What runs a script in it.
    exec: Box<dyn Fn(&str) -> Command + 'a>,
    failures: Vec<String>,
}

impl<'a> Inner<'a> {
    pub(crate) fn new(lab: &'a Lab, exec: impl Fn(&str) -> Command + 'a) -> Self {
        Inner { lab, exec: Box::new(exec), failures: Vec::new() }
    }

    /// All of it. Leaves the image `busybox` and the engine running.
    #[track_caller]
    pub(crate) fn whole_list(&mut self) {
        self.start();
        self.limits();
        self.network();
        self.build();
        self.more();
        self.judge();
    }

    #[track_caller]
    pub(crate) fn judge(&self) {
        let n = self.failures.len();
        assert!(n == 0, "{n} steps failed:\n{}", self.failures.join("\n---\n"));
    }

    /// A script in the system container: its exit status and output must satisfy `check`.
    pub(crate) fn step(&mut self, name: &str, script: &str, check: impl FnOnce(i32, &str) -> bool) {
        match self.lab.spawn((self.exec)(script)).try_finish(STEP) {
            Ok(done) if check(done.code, done.text()) => {}
            Ok(done) => self.failures.push(format!("{name}: exit status {}\n{}\n{}", done.code, done.out, done.err)),
            Err(e) => self.failures.push(format!("{name}: {e}")),
        }
    }

    pub(crate) fn prints(&mut self, name: &str, script: &str, wanted: &str) {
        self.step(name, script, |code, out| code == 0 && out == wanted);
    }

    pub(crate) fn start(&mut self) {
        let up = "for i in $(seq 600); do docker info >/dev/null 2>&1 && exit 0; sleep 0.1; done; tail /var/log/dockerd.log; exit 1";
        self.step("dockerd comes up", up, |code, _| code == 0);
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        self.prints("storage driver", "docker info --format '{{.Driver}}'", "overlay2");
        self.step("import", "docker import /opt/busybox.tar busybox", |code, out| {
            code == 0 && out.starts_with("sha256:")
        });
        self.prints("run", "docker run --rm busybox echo hello", "hello");
    }

    fn limits(&mut self) {
        let run = "docker run --rm -m 64m --pids-limit 20 --cpus 0.5 busybox sh -c";
        self.prints("limits", &format!("{run} '{LIMITS}'"), "67108864\n20\n50000 100000");
        let forks = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done";
        self.step("pids limit", &format!("{run} '{forks}' 2>&1"), |code, out| code != 0 && out.contains("can't fork"));
        let cpu = THROTTLED.replace('\'', "\"");
        self.step("cpu limit", &format!("{run} '{cpu}'"), |code, out| {
            code == 0 && out.parse().is_ok_and(|n: u32| n > 0)
        });
        let hog = "docker run --rm -m 16m --memory-swap 16m busybox tail /dev/zero";
        self.step("memory hog", hog, |code, _| code == 137);
    }

    fn network(&mut self) {
        let serve = "mkdir /www; echo page of $0 >/www/index.html; exec httpd -f -h /www";
        // Its own -T crashes this wget.
        let get =
            "get() { for i in $(seq 300); do timeout 5 busybox wget -qO- $1 && return; sleep 0.1; done; return 1; };";
        self.step("server", &format!("docker run -d --name web -p 8080:80 busybox sh -c '{serve}' web"), |code, _| {
            code == 0
        });
        self.prints("published port on the loopback", &format!("{get} get http://127.0.0.1:8080/"), "page of web");
        let gateway = "$(docker inspect --format '{{.NetworkSettings.Gateway}}' web)";
        self.prints("published port on the bridge", &format!("{get} get http://{gateway}:8080/"), "page of web");
        let address = "$(docker inspect --format '{{.NetworkSettings.IPAddress}}' web)";
        let peer = format!("docker run --rm busybox timeout 60 wget -qO- http://{address}/");
        self.prints("container to container", &peer, "page of web");
        let named = format!(
            "docker network create mine >/dev/null && docker run -d --network mine --name server busybox sh -c '{serve}' server >/dev/null
            docker run --rm --network mine busybox sh -c '{get} get http://server/'"
        );
        self.prints("container to container by name", &named, "page of server");
        self.prints("exec", "docker exec web cat /www/index.html", "page of web");
        self.step("removal", "docker rm -f web server && docker network rm mine", |code, _| code == 0);
        let own =
            "test $(readlink /proc/self/ns/net) = $(docker run --rm --network host busybox readlink /proc/self/ns/net)";
        self.step("network of the system container", own, |code, _| code == 0);
    }

    fn build(&mut self) {
        let dockerfile = r"mkdir -p /build && printf 'FROM busybox\nCOPY given /given\nRUN cat /given /given >/made\n' >/build/Dockerfile && echo twice >/build/given";
        self.step("Dockerfile", dockerfile, |code, _| code == 0);
        for (name, buildkit) in [("classic", 0), ("buildkit", 1)] {
            let build = format!(
                "DOCKER_BUILDKIT={buildkit} docker build -t {name} /build >/tmp/{name}.log 2>&1 || cat /tmp/{name}.log"
            );
            let run = format!("{build}; docker run --rm {name} cat /made");
            self.prints(&format!("build, {name}"), &run, "twice\ntwice");
        }
    }

    fn more(&mut self) {
        let mounts =
            "mount -t tmpfs none /mnt && mkdir /p && mount -t proc none /p && echo $(ls /mnt | wc -l) $(cat /p/1/comm)";
        self.prints("privileged", &format!("docker run --rm --privileged busybox sh -c '{mounts}'"), "0 sh");
        let volume = "docker volume create kept >/dev/null && docker run --rm -v kept:/d busybox sh -c 'echo kept >/d/f' && docker run --rm -v kept:/d busybox cat /d/f";
        self.prints("volume", volume, "kept");
        let bind = "mkdir -p /srv/b && docker run --rm -v /srv/b:/d busybox sh -c 'echo shared >/d/f' && cat /srv/b/f && stat -c %u:%g /srv/b/f";
        self.prints("bind", bind, "shared\n0:0");
        let stop = "docker run -d --name stops busybox sh -c 'trap \"exit 7\" TERM; echo up; while :; do sleep 0.1; done' >/dev/null
            until docker logs stops | grep -q up; do sleep 0.1; done
            docker stop -t 20 stops && docker inspect --format '{{.State.ExitCode}}' stops && docker rm stops";
        self.prints("stop", stop, "stops\n7\nstops");
        let pause = "docker run -d --name held busybox sleep 1000 >/dev/null && docker pause held
            docker inspect --format '{{.State.Status}}' held && docker unpause held && docker rm -f held";
        self.prints("pause", pause, "held\npaused\nheld\nheld");
        self.prints("nothing runs any more", "docker ps -aq", "");
    }
}
