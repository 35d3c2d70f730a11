//! What people use beside the engine inside: Compose, BuildKit's instructions, registries of their own.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::Engine;
use common::inner::Inner;
use std::sync::Arc;

const IMAGE: &str = "docker-tools";

/// pid 1 of the system container: an engine, and its end on SIGTERM.
const INIT: &str = r#"
trap 'kill "$dockerd"; wait "$dockerd"; exit 0' TERM
dockerd >/var/log/dockerd.log 2>&1 &
dockerd=$!
wait "$dockerd"
"#;

/// A system container that goes when this does, on an engine that these tests share.
struct Machine {
    engine: Arc<Engine>,
    name: &'static str,
}

impl Machine {
    fn new(name: &'static str, options: &[&str]) -> Option<Machine> {
        if let Err(why) = common::tree(IMAGE) {
            eprintln!("SKIP {name}: {why}");
            return None;
        }
        let engine = Engine::shared(name)?;
        engine.image(IMAGE);
        engine.run(&[&["-d", "--name", name][..], options, &[IMAGE, "sh", "-c", INIT]].concat()).ok();
        let machine = Machine { engine, name };
        machine.inner().start();
        Some(machine)
    }

    fn inner(&self) -> Inner<'_> {
        Inner::new(&self.engine.lab, |script| self.engine.client(&["exec", self.name, "sh", "-c", script]))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.engine.docker(&["rm", "-f", "-v", self.name]);
    }
}

/// A build, a network, a volume, an order of starting, a health check, a port, limits.
const COMPOSE: &str = r#"
version: "2.4"
services:
  web:
    build: ./web
    environment: {GREETING: hello}
    ports: ["8080:80"]
    volumes: ["shared:/www"]
    networks: {back: {aliases: [site]}}
    mem_limit: 64m
    pids_limit: 30
    healthcheck: {test: ["CMD", "wget", "-qO-", "http://127.0.0.1/"], interval: 1s, retries: 60}
  client:
    image: busybox
    command: ["sh", "-c", "wget -qO- http://site/; exec sleep 1000"]
    volumes: ["shared:/seen:ro", "./given:/given:ro"]
    networks: [back]
    depends_on: {web: {condition: service_healthy}}
networks: {back: {}}
volumes: {shared: {}}
"#;

#[test]
fn compose_inside() {
    let Some(machine) = Machine::new("compose_inside", &[]) else { return };
    let mut inner = machine.inner();
    let files = format!(
        "mkdir -p /app/web && cd /app && echo given >given && cat >docker-compose.yml <<'END'\n{COMPOSE}END\n
        printf 'FROM busybox\nCMD echo $GREETING >/www/index.html; exec httpd -f -h /www\n' >web/Dockerfile"
    );
    inner.prints("files", &files, "");
    let up = "cd /app && docker-compose up -d >/tmp/up.log 2>&1 || cat /tmp/up.log";
    inner.prints("up", up, "");
    let logs = "cd /app; for i in $(seq 100); do docker-compose logs --no-color client | grep -q hello && break; sleep 0.1; done; docker-compose logs --no-color client | grep -o 'hello$'";
    inner.prints("a service by its alias", logs, "hello");
    inner.prints("a published port", "timeout 5 busybox wget -qO- http://127.0.0.1:8080/", "hello");
    let exec = "cd /app && docker-compose exec -T client cat /seen/index.html /given && docker-compose exec -T web sh -c 'echo x >/www/y' && docker-compose exec -T client ls /seen/y";
    inner.prints("exec, a shared volume and a bind", exec, "hello\ngiven\n/seen/y");
    let limits =
        "docker inspect --format '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.State.Health.Status}}' app_web_1";
    inner.prints("limits and health", limits, "67108864 30 healthy");
    let scale =
        "cd /app && docker-compose up -d --scale client=3 >/tmp/scale.log 2>&1; docker-compose ps -q client | wc -l";
    inner.prints("scale", scale, "3");
    let restart = "cd /app && docker-compose restart -t 1 web >/dev/null 2>&1; for i in $(seq 100); do timeout 5 busybox wget -qO- http://127.0.0.1:8080/ && break; sleep 0.1; done";
    inner.prints("restart", restart, "hello");
    let down = "cd /app && docker-compose down -v -t 1 >/tmp/down.log 2>&1 || cat /tmp/down.log; docker ps -aq; docker volume ls -q; docker network ls -q --filter name=app_";
    inner.prints("down", down, "");
    inner.judge();
}

/// Stages that do not depend on each other, and all kinds of mounts.
const STAGES: &str = r#"
FROM busybox AS one
ARG TIME
RUN --mount=type=cache,target=/cache echo x >>/cache/f; wc -l </cache/f >/times
FROM busybox AS two
ARG WORD=unset
RUN --mount=type=secret,id=word cat /run/secrets/word >/word && echo $WORD >>/word
RUN --mount=type=bind,target=/context,rw echo y >/context/new && cp /context/file /copied
RUN --mount=type=tmpfs,target=/t grep -c ' /t tmpfs ' /proc/mounts >>/word
RUN test ! -e /run/secrets/word && test ! -e /context/new
FROM busybox AS never
RUN exit 9
FROM busybox
COPY --from=one /times /
COPY --from=two --chown=1000:1000 /word /copied /
USER 1000
CMD ["cat", "/times", "/word", "/copied"]
"#;

#[test]
fn buildkit_inside() {
    let Some(machine) = Machine::new("buildkit_inside", &[]) else { return };
    let mut inner = machine.inner();
    let files = format!(
        "mkdir -p /b && cd /b && echo secret >/word && echo file >file && cat >Dockerfile <<'END'\n{STAGES}END\n"
    );
    inner.prints("files", &files, "");
    let build = "export DOCKER_BUILDKIT=1; cd /b; b() { docker build --progress plain --secret id=word,src=/word \"$@\" . >/tmp/log 2>&1 || cat /tmp/log; };";
    let all =
        format!("{build} b -t app --build-arg WORD=arg; docker run --rm app; docker run --rm app stat -c %u /word");
    inner.prints("stages and mounts", &all, "1\nsecret\narg\n1\nfile\n1000");
    let again = format!("{build} b -t app --build-arg WORD=arg; grep -c '^#.* CACHED$' /tmp/log");
    inner.step("everything is in the cache", &again, |code, out| code == 0 && out.parse().is_ok_and(|n: u32| n >= 6));
    let cache = format!("{build} b -t app --build-arg WORD=arg --build-arg TIME=2; docker run --rm app cat /times");
    inner.prints("a cache mount is kept", &cache, "2");
    let target = format!("{build} b --target never");
    inner.step("a failing stage", &target, |_, out| out.contains("exit code: 9"));
    let tar =
        format!("{build} b --build-arg WORD=arg -o type=tar,dest=/out.tar; tar -tvf /out.tar --numeric-owner word");
    inner.step("output to an archive", &tar, |code, out| code == 0 && out.contains("1000/1000"));
    let network = "docker run -d --name web busybox sh -c 'mkdir /www; echo page >/www/p; httpd -f -h /www' >/dev/null
        printf 'FROM busybox\nARG A\nRUN wget -qO /p http://$A/p\nCMD cat /p\n' >/tmp/Dockerfile
        A=$(docker inspect --format '{{.NetworkSettings.IPAddress}}' web)
        until timeout 5 busybox wget -qO- http://$A/p >/dev/null 2>&1; do sleep 0.1; done
        DOCKER_BUILDKIT=1 docker build -q --build-arg A=$A -t net - </tmp/Dockerfile >/dev/null && docker run --rm net";
    inner.prints("the network, in a build", network, "page");
    inner.prints("prune", "docker rm -f web; docker builder prune -af | grep -c '^Total'", "web\n1");
    inner.judge();
}

/// A registry in an inner container, made of Debian's program.
const REGISTRY_IMAGE: &str = r#"
set -e
mkdir -p /registry && cd /registry
cp -L --parents /usr/bin/docker-registry $(ldd /usr/bin/docker-registry | grep -o '/[^ ]*') .
cat >config.yml <<'END'
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
END
printf 'FROM busybox\nCOPY . /\nENTRYPOINT ["docker-registry", "serve", "/config.yml"]\n' >Dockerfile
docker build -q -t registry . >/dev/null
"#;

/// A registry as a process beside the engine, on the same data, with a certificate; says that.
const SERVE: &str = r#"
cd /registry
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub.test \
  -addext subjectAltName=DNS:hub.test -keyout key.pem -out cert.pem 2>/dev/null
cat >tls.yml <<'END'
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker/volumes/blobs/_data}}
http: {addr: ":5443", tls: {certificate: /registry/cert.pem, key: /registry/key.pem}}
END
setsid docker-registry serve tls.yml </dev/null >/var/log/registry.log 2>&1 &
for i in $(seq 100); do grep -q 'listening on' /var/log/registry.log && break; sleep 0.1; done
cat cert.pem
"#;

/// To be called with what a registry answers under.
const ANSWERS: &str =
    "answers() { for i in $(seq 100); do timeout 5 busybox wget -qO- $1/v2/ >/dev/null && return; sleep 0.1; done; return 1; };";

#[test]
fn registries_inside() {
    let network = format!("registries-{}", std::process::id());
    let Some(engine) = Engine::shared("registries_inside") else { return };
    engine.docker(&["network", "create", &network]).ok();
    let Some(machine) = Machine::new("registries_inside", &["--network", &network, "--network-alias", "hub.test"])
    else {
        return;
    };
    let mut inner = machine.inner();
    inner.prints("the registry's image", REGISTRY_IMAGE, "");
    let run = format!("{ANSWERS} docker volume create blobs >/dev/null; docker run -d --name hub -p 5000:5000 -v blobs:/var/lib/registry registry >/dev/null && answers http://127.0.0.1:5000 && echo up");
    inner.prints("a registry in a container", &run, "up");
    let image = r"mkdir -p /b && cd /b && printf 'FROM busybox\nRUN rm /etc/group && echo mine >/mine && chown 1000 /mine\nCMD cat /mine; stat -c %%u /mine; test ! -e /etc/group\n' >Dockerfile && docker build -q -t localhost:5000/team/mine . >/dev/null";
    inner.prints("an image", image, "");
    let push = "docker push -q localhost:5000/team/mine && docker rmi localhost:5000/team/mine >/dev/null && docker builder prune -af >/dev/null; docker run --rm --pull never localhost:5000/team/mine 2>&1 | grep -c 'No such image'";
    inner.prints("push and remove", push, "localhost:5000/team/mine:latest\n1");
    let pull = "docker pull -q localhost:5000/team/mine && docker run --rm localhost:5000/team/mine";
    inner.prints("pull and run", pull, "localhost:5000/team/mine:latest\nmine\n1000");
    inner.prints(
        "what it has",
        "busybox wget -qO- http://127.0.0.1:5000/v2/_catalog",
        r#"{"repositories":["team/mine"]}"#,
    );
    inner.prints("it goes, its volume stays", "docker rm -f hub", "hub");

    // Others reach it by its name.
    let done = engine.docker(&["exec", machine.name, "sh", "-c", SERVE]).ok();
    let cert = done.text();
    let Some(other) = Machine::new("registries_other", &["--network", &network]) else { return };
    let mut peer = other.inner();
    let pull = format!(
        "mkdir -p /etc/docker/certs.d/hub.test:5443 && cat >/etc/docker/certs.d/hub.test:5443/ca.crt <<'END'\n{cert}\nEND
        docker pull -q hub.test:5443/team/mine && docker run --rm hub.test:5443/team/mine"
    );
    peer.step("no certificate, no trust", "docker pull hub.test:5443/team/mine 2>&1", |code, out| {
        code != 0 && out.contains("certificate")
    });
    peer.prints("pull from another system container", &pull, "hub.test:5443/team/mine:latest\nmine\n1000");
    let push = "docker tag busybox hub.test:5443/team/base && docker push -q hub.test:5443/team/base";
    peer.prints("push to another system container", push, "hub.test:5443/team/base:latest");
    peer.judge();
    inner.judge();
    drop(peer);
    drop(inner);
    drop((machine, other));
    engine.docker(&["network", "rm", &network]).ok();
}
