//! The jobs of GitLab's Docker executor, whose calls to the engine are repeated here one by one: a container is made once and
//! started for every stage, with a script on its standard input; volumes are the same for all containers of a job; nothing
//! is privileged.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::{Engine, STEP};
use common::{wait_for, Done};
use std::fs::File;

const IMAGE: &str = "docker-bookworm";
const NEWER: &str = "docker-trixie";

/// The service: its certificates, those of its clients last, and the engine. Like the image that GitLab's users take for it.
const SERVICE: &str = r#"
set -e
mkdir -p /certs/ca /certs/server /certs/client
cd /certs
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $key -days 2 -subj /CN=ca -keyout ca/key.pem -out ca/cert.pem
printf 'subjectAltName=DNS:docker\nextendedKeyUsage=serverAuth\n' >server.ext
printf 'extendedKeyUsage=clientAuth\n' >client.ext
for who in server client; do
  openssl req $key -subj /CN=$who -keyout $who/key.pem -out $who.csr
  openssl x509 -req -days 2 -in $who.csr -CA ca/cert.pem -CAkey ca/key.pem -CAcreateserial -extfile $who.ext -out $who/cert.pem
  cp ca/cert.pem $who/ca.pem
done
exec dockerd -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376 --tlsverify \
  --tlscacert server/ca.pem --tlscert server/cert.pem --tlskey server/key.pem
"#;

/// What waits for the service.
const WAIT: &str = "
for i in $(seq 600); do (: </dev/tcp/docker/2376) 2>/dev/null && exit 0; sleep 0.1; done
echo no service; exit 1
";

/// What clones.
const CLONE: &str = r#"
set -e
mkdir -p /builds/group/project/www
cd /builds/group/project
echo source >source
printf 'FROM busybox\nCOPY www /www\nRUN echo page >/www/index.html && cat /www/index.html >/made\nCMD ["cat", "/made"]\n' >Dockerfile
touch /builds/owned && chown 1000:1000 /builds/owned
touch /cache/filled
"#;

/// The job, against the service's engine: its addresses, its control of who may speak to it, its view of the sources.
const JOB: &str = r#"
set -e
cd /builds/group/project
stat -c %u:%g source ../../owned /cache/filled | xargs
if DOCKER_TLS_VERIFY= DOCKER_CERT_PATH=/none docker -H tcp://docker:2376 version >/dev/null 2>&1; then echo open to all; fi
docker info --format '{{.Driver}}'
docker import /opt/busybox.tar busybox >/dev/null
for buildkit in 0 1; do
  DOCKER_BUILDKIT=$buildkit docker build --no-cache -t app . >/tmp/build.log 2>&1 || cat /tmp/build.log
  docker run --rm app
done
docker run --rm -v "$PWD:/src" app cat /src/source
docker run --rm app sh -c 'exit 5' || echo ended $?
docker run -d --name web -p 8080:80 app httpd -f -h /www >/dev/null
for i in $(seq 300); do timeout 5 busybox wget -qO- http://docker:8080/ && break; sleep 0.1; done
docker rm -f web
docker ps -aq
"#;
const JOB_SAYS: &str = "0:0 1000:1000 0:0\noverlay2\npage\npage\nsource\nended 5\npage\nweb";

/// One job's containers, as the executor makes them.
struct Job<'a> {
    engine: &'a Engine,
    name: &'a str,
    /// Of the service and the job.
    image: &'a str,
    /// What `runtime` in the runner's configuration becomes.
    runtime: &'a [&'a str],
    /// Of all containers of the job.
    binds: Vec<String>,
}

impl<'a> Job<'a> {
    /// With volumes of its own for the sources, what is cached, and the clients' certificates.
    fn new(engine: &'a Engine, name: &'a str, image: &'a str, runtime: &'a [&'a str]) -> Self {
        let binds = [("builds", "/builds"), ("cache", "/cache"), ("certs", "/certs/client")];
        let binds = binds.iter().map(|(v, target)| format!("{name}-{v}:{target}")).collect();
        Job { engine, name, image, runtime, binds }
    }

    fn container(&self, kind: &str) -> String {
        format!("{}-{kind}", self.name)
    }

    fn args<'b>(&'b self, verb: &'b str, name: &'b str) -> Vec<&'b str> {
        let mut args = vec![verb, "--name", name];
        args.extend(self.runtime);
        args.extend(self.binds.iter().flat_map(|b| ["-v", b.as_str()]));
        args
    }

    /// A service that runs.
    #[track_caller]
    fn service(&self, options: &[&str]) -> String {
        let name = self.container("docker-0");
        let mut args = self.args("run", &name);
        args.push("-d");
        args.extend(options);
        args.extend([self.image, "sh", "-c", SERVICE]);
        self.engine.docker(&args).ok();
        name
    }

    /// A container for stages; `create` starts nothing.
    #[track_caller]
    fn create(&self, kind: &str, image: &str, options: &[&str]) -> String {
        let name = self.container(kind);
        let mut args = self.args("create", &name);
        args.extend(["-i", "--hostname", self.name, "--log-driver", "json-file"]);
        args.extend(["-e", "DOCKER_HOST=tcp://docker:2376", "-e", "DOCKER_TLS_VERIFY=1"]);
        args.extend(["-e", "DOCKER_CERT_PATH=/certs/client"]);
        args.extend(options);
        args.extend([image, "sh", "-c", "if [ -x /bin/bash ]; then exec /bin/bash; else exec /bin/sh; fi"]);
        self.engine.docker(&args).ok();
        name
    }

    /// A stage: the container starts, reads the script, and ends.
    fn stage(&self, container: &str, script: &str) -> Done {
        let input = self.engine.path(&format!("{container}.script"));
        std::fs::write(&input, script).unwrap();
        let mut start = self.engine.client(&["start", "-ai", container]);
        start.stdin(File::open(&input).unwrap());
        self.engine.lab.spawn(start).finish(STEP)
    }

    /// The whole job; `options` are the network's of the service, and of the other containers.
    #[track_caller]
    fn pass(&self, of_service: &[&str], of_others: &[&str]) {
        let service = self.service(of_service);
        let said = || self.engine.docker(&["logs", &service]).err;
        let wait = self.create("wait", self.image, of_others);
        let waited = self.stage(&wait, WAIT);
        assert_eq!(waited.code, 0, "{}: {}\n{}", waited.out, waited.err, said());
        let helper = self.create("predefined", "busybox", of_others);
        self.stage(&helper, CLONE).ok();
        let build = self.create("build", self.image, of_others);
        let done = self.stage(&build, JOB);
        assert_eq!((done.code, done.text()), (0, JOB_SAYS), "{}\n{}", done.err, said());
        // after_script, then what archives: the same containers again.
        self.stage(&build, "cat /builds/group/project/source; docker images -q app | wc -l; exit 3").expect_code(3);
        self.stage(&helper, "test -e /cache/filled && test -e /builds/owned").ok();
        for container in [&service, &wait, &helper, &build] {
            let seen = self.engine.inspect(container, "{{.HostConfig.Runtime}} {{.HostConfig.Privileged}}");
            assert_eq!(seen, "sysbox-runc false", "{container}");
        }
    }

    /// What the executor does at the end.
    fn clean_up(&self) {
        for kind in ["docker-0", "wait", "predefined", "build"] {
            self.engine.docker(&["rm", "-f", "-v", &self.container(kind)]);
        }
        let volumes: Vec<&str> = self.binds.iter().filter_map(|b| b.split(':').next()).collect();
        let named = volumes.into_iter().filter(|v| !v.starts_with('/'));
        self.engine.docker(&[&["volume", "rm"][..], &named.collect::<Vec<_>>()].concat());
    }
}

#[test]
fn a_job_and_its_docker_service() {
    let Some(engine) = Engine::shared("a_job_and_its_docker_service") else { return };
    engine.image("busybox");
    engine.image(IMAGE);
    let job = Job::new(&engine, "article", IMAGE, &["--runtime=sysbox-runc"]);
    engine.docker(&["network", "create", "article"]).ok();
    job.pass(&["--network", "article", "--network-alias", "docker"], &["--network", "article"]);
    // What the host has of it is root's and the users', as if there were no container.
    let volume = engine.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", "article-builds"]).ok();
    let owner = |file: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(std::path::Path::new(volume.text()).join(file)).unwrap().uid()
    };
    assert_eq!((owner("group/project/source"), owner("owned")), (0, 1000));
    job.clean_up();
    engine.docker(&["network", "rm", "article"]).ok();
}

/// The runtime is the engine's default, and the runner knows nothing of it: on a network of the job's own, and on the default
/// one with links.
#[test]
fn an_unmodified_runner() {
    let default = [("default-runtime", "sysbox-runc".into())];
    let Some(engine) = Engine::start("an_unmodified_runner", &default) else { return };
    engine.image("busybox");
    engine.image(NEWER);
    let job = Job::new(&engine, "own", NEWER, &[]);
    engine.docker(&["network", "create", "own"]).ok();
    job.pass(&["--network", "own", "--network-alias", "docker"], &["--network", "own", "--network-alias", "build"]);
    job.clean_up();
    engine.docker(&["network", "rm", "own"]).ok();

    let job = Job::new(&engine, "linked", NEWER, &[]);
    job.pass(&[], &["--link", "linked-docker-0:docker"]);
    job.clean_up();
    assert!(wait_for(STEP, || engine.leavings().is_empty()), "{}", engine.leavings());
}

/// The engine, in a container that a runner shares with it, and on SIGTERM the end of both.
const RUNNER: &str = r#"
trap 'kill $dockerd; wait $dockerd; exit 0' TERM
dockerd >/var/log/dockerd.log 2>&1 &
dockerd=$!
wait $dockerd
"#;

/// The runner's part: a small job image, a network and volumes per job, a helper, and a job that has the engine's socket.
const RUNNER_JOB: &str = r#"
set -e
test -s /etc/gitlab-runner/config.toml
docker import /opt/busybox.tar busybox >/dev/null
mkdir -p /image && cd /image
cp -L --parents /usr/bin/docker $(ldd /usr/bin/docker | grep -o '/[^ ]*') .
printf 'FROM busybox\nCOPY . /\n' >Dockerfile
docker build -q -t job . >/dev/null
docker network create job >/dev/null
run="docker run -i --rm --network job -v job-builds:/builds"
$run busybox sh -e <<'END'
mkdir -p /builds/project
printf 'FROM busybox\nRUN echo built by $(hostname | wc -l) >/made\nCMD ["cat", "/made"]\n' >/builds/project/Dockerfile
END
docker run -d --name web --network job --network-alias service busybox sh -c 'mkdir /www; echo of the service >/www/index.html; httpd -f -h /www' >/dev/null
$run -v /var/run/docker.sock:/var/run/docker.sock job sh -e <<'END'
cd /builds/project
for i in $(seq 300); do timeout 5 wget -qO- http://service/ && break; sleep 0.1; done
docker build -t app . >/tmp/log 2>&1 || cat /tmp/log
docker run --rm app
docker run --rm -v job-builds:/builds app ls /builds/project
docker ps --format '{{.Names}}' | grep -c .
END
docker rm -f web >/dev/null
docker network rm job
"#;

#[test]
fn runner_and_engine_in_one_system_container() {
    let Some(engine) = Engine::shared("runner_and_engine") else { return };
    engine.image(IMAGE);
    let config = engine.path("gitlab-runner");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("config.toml"), "concurrent = 1\n").unwrap();
    let config = format!("{}:/etc/gitlab-runner", config.display());
    let names = ["runner1", "runner2"];
    for name in names {
        engine.run(&["-d", "--name", name, "-v", &config, IMAGE, "sh", "-c", RUNNER]).ok();
    }
    for name in names {
        let up = wait_for(STEP, || engine.docker(&["exec", name, "docker", "info"]).code == 0);
        assert!(up, "no engine: {:?}", engine.docker(&["exec", name, "tail", "/var/log/dockerd.log"]));
        let done = engine.docker(&["exec", name, "sh", "-c", RUNNER_JOB]);
        // The job itself and the service.
        assert_eq!(done.text(), "of the service\nbuilt by 1\nDockerfile\n2\njob", "{name}: {}", done.err);
    }
    for name in names {
        engine.docker(&["stop", "-t", "30", name]).ok();
        assert_eq!(engine.inspect(name, "{{.State.ExitCode}}"), "0");
        engine.docker(&["rm", "-v", name]).ok();
    }
}

/// A job whose own container has the engine. Says which of its two builds found something in the cache.
const OWN_ENGINE: &str = r#"
dockerd >/var/log/dockerd.log 2>&1 &
dockerd=$!
for i in $(seq 600); do docker info >/dev/null 2>&1 && break; sleep 0.1; done
docker image inspect busybox >/dev/null 2>&1 || docker import /opt/busybox.tar busybox >/dev/null || cat /var/log/dockerd.log
cd /builds
printf 'FROM busybox\nRUN echo layer >/made\n' >Dockerfile
DOCKER_BUILDKIT=0 docker build -t classic . 2>&1 | grep -c 'Using cache'
DOCKER_BUILDKIT=1 docker build --progress plain -t buildkit . 2>&1 | grep -c CACHED
docker run --rm classic cat /made
docker run --rm buildkit cat /made
kill $dockerd; wait $dockerd
"#;

#[test]
fn the_inner_cache_kept_between_jobs() {
    let Some(engine) = Engine::shared("the_inner_cache") else { return };
    engine.image("busybox");
    engine.image(IMAGE);
    let cache = engine.path("inner-cache");
    std::fs::create_dir(&cache).unwrap();
    // A runner's volumes are given to every container of a job.
    let with_cache = |name| {
        let mut job = Job::new(&engine, name, IMAGE, &["--runtime=sysbox-runc"]);
        job.binds.push(format!("{}:/var/lib/docker", cache.display()));
        job
    };
    for (name, found) in [("cache1", "0\n0"), ("cache2", "1\n1")] {
        let job = with_cache(name);
        let helper = job.create("predefined", "busybox", &[]);
        let build = job.create("build", IMAGE, &["-e", "DOCKER_HOST=", "-e", "DOCKER_TLS_VERIFY="]);
        job.stage(&helper, "echo x >/builds/x").ok();
        assert_eq!(job.stage(&build, OWN_ENGINE).text(), format!("{found}\nlayer\nlayer"), "{name}");
        job.stage(&helper, "test -e /builds/x").ok();
        job.clean_up();
    }
    // A job that is cancelled with its engine up leaves a cache that the next one can use.
    let (cancelled, next) = (with_cache("cancelled"), with_cache("next"));
    let service = cancelled.service(&[]);
    assert!(wait_for(STEP, || engine.docker(&["exec", &service, "docker", "info"]).code == 0));
    let id = engine.inspect(&service, "{{.Id}}");
    let build = next.create("build", IMAGE, &["-e", "DOCKER_HOST=", "-e", "DOCKER_TLS_VERIFY="]);
    let busy = next.stage(&build, OWN_ENGINE);
    assert!(busy.code != 0 && busy.err.contains(&id) && busy.err.contains("inner-cache"), "{busy:?}");
    assert_eq!(engine.inspect(&service, "{{.State.Running}}"), "true");
    cancelled.clean_up();
    assert_eq!(next.stage(&build, OWN_ENGINE).text(), "1\n1\nlayer\nlayer");
    next.clean_up();
}
