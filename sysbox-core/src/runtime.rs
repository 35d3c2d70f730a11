//! Where containers are made and found.
//!
//! A [`Runtime`] is a few paths: making one touches nothing. Any number of them, in any threads and processes, may work on one
//! state directory. All calls that change something need root.

mod sealed;
mod spawn;

use crate::cgroup::Manager;
use crate::container::{monitor, Container};
use crate::error::{Error, Kind, Result, SysResult};
use crate::exclusive;
use crate::host::probe::Probe;
use crate::host::{Facts, Systemd};
use crate::idmap::pool::{Owner, Pool, SubidConfig, DEFAULT_DIR};
use crate::idmap::Maps;
use crate::inner_data::InnerData;
use crate::limit::Limit;
use crate::namespace::Join;
use crate::plan::build::check_id;
use crate::plan::{self, Plan, What};
use crate::procfs::Nodes;
use crate::protocol::{Change, Fd, Reply, Work};
use crate::spec::Spec;
use crate::state::{Found, Init, Record, StateDir, MONITOR_SOCKET};
use crate::sys::pidfd;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use spawn::Spawned;

/// How long the IDs of a container that goes are waited for.
pub(crate) const CLEANING: Duration = Duration::from_secs(10);

/// How long a stage may take for what has no limit of its caller's. A job of systemd's may take half as long.
const ANSWER: Duration = Duration::from_secs(60);

/// A state directory with its containers, and how new ones are made.
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
    stage: StageProgram,
    subid: SubidConfig,
    subid_dir: PathBuf,
    cgroups: Manager,
    nodes: Nodes,
}

/// Where the stage program is.
#[derive(Debug, Clone)]
pub enum StageProgram {
    /// This very program, by /proc/self/exe: it calls [`crate::stage::dispatch`] first in `main`.
    SelfExe,
    /// A `sysbox-stage` of the same build, by a path on the host. Of another it is refused ([`Kind::OtherBuild`]).
    Path(PathBuf),
    /// A `sysbox-stage` of the same build, open: see [`StageProgram::sealed`].
    Fd(Arc<OwnedFd>),
    /// A forked copy of this process: the fastest, and only for a small program with one thread, ideally a static one. With
    /// more threads every operation fails with EDEADLK.
    Fork,
}

/// Standard streams and other descriptors of a program in a container. They are closed here when the call returns.
///
/// Pipes among the standard streams are given to the container's root (fchown(2)), so that software inside can open them by
/// /dev/stdout. With a terminal, the standard streams are that terminal.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input; if `None`, the caller's own, or /dev/null if the caller has none.
    pub stdin: Option<OwnedFd>,
    /// Standard output; the caller's own if `None`.
    pub stdout: Option<OwnedFd>,
    /// Standard error; the caller's own if `None`.
    pub stderr: Option<OwnedFd>,
    /// A connected Unix socket that is sent the terminal's master (SCM_RIGHTS), if the process has a terminal.
    pub console: Option<OwnedFd>,
    /// Further descriptors and the numbers they get inside, from 3 on.
    pub preserved: Vec<(i32, OwnedFd)>,
}

impl Stdio {
    pub(crate) fn into_fds(self) -> Result<Vec<(Fd, OwnedFd)>> {
        let mut out = Vec::new();
        for (n, given) in [(0, self.stdin), (1, self.stdout), (2, self.stderr)] {
            match given.map_or_else(|| crate::sys::fd::dup_number(n), Ok) {
                Ok(fd) => out.push((Fd::Stdio(n), fd)),
                // A caller without that stream gives the container /dev/null, not whatever gets the number next.
                Err(e) if e.raw_os_error() == Some(libc::EBADF) => {
                    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
                    out.push((Fd::Stdio(n), null.op_at("open", "/dev/null")?.into()));
                }
                Err(e) => return Err(Error::sys(format!("dup {n}"), e.raw_os_error().unwrap_or(libc::EIO))),
            }
        }
        for (i, (n, _)) in self.preserved.iter().enumerate() {
            if !(3..=65_535).contains(n) || self.preserved[..i].iter().any(|(m, _)| m == n) {
                return Err(Error::invalid(format!(
                    "descriptor {n} cannot be preserved: numbers from 3 on, each once"
                )));
            }
        }
        out.extend(self.console.map(|c| (Fd::Console, c)));
        out.extend(self.preserved.into_iter().map(|(n, fd)| (Fd::Preserved(n), fd)));
        Ok(out)
    }
}

/// How a container is made.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Its streams.
    pub stdio: Stdio,
}

impl Runtime {
    /// A runtime that keeps the state of its containers below `root` (made when needed, mode 0711) and is its own stage.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Runtime {
            root: root.into(),
            stage: StageProgram::SelfExe,
            subid: SubidConfig::default(),
            subid_dir: DEFAULT_DIR.into(),
            cgroups: Manager::default(),
            nodes: Nodes::default(),
        }
    }

    /// Uses another stage program.
    #[must_use]
    pub fn stage(mut self, stage: StageProgram) -> Self {
        self.stage = stage;
        self
    }

    /// Uses other subordinate IDs, or another number of them, than [`SubidConfig::default`]. They come from the host's one pool in
    /// [`DEFAULT_DIR`] all the same.
    #[must_use]
    pub fn subids(mut self, config: SubidConfig) -> Self {
        self.subid = config;
        self
    }

    /// Has somebody else make the control groups of new containers. Those that exist already stay as they are.
    #[must_use]
    pub fn cgroups(mut self, manager: Manager) -> Self {
        self.cgroups = manager;
        self
    }

    /// Gives new containers other nodes of /proc and /sys than [`Nodes::default`].
    #[must_use]
    pub fn nodes(mut self, nodes: Nodes) -> Self {
        self.nodes = nodes;
        self
    }

    pub(crate) fn table(&self) -> &Nodes {
        &self.nodes
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Plans a container without making it: what [`Runtime::create`] would do just now. IDs are the configuration's, or those that
    /// the pool would give next; nothing is taken. Relative paths in the configuration are relative to `bundle`.
    ///
    /// # Errors
    /// Those of [`Facts::gather`], [`plan::given_maps`], [`Pool::preview`] and [`plan::build::plan`].
    pub fn plan(&self, id: &str, spec: &Spec, bundle: &Path) -> Result<Plan> {
        let facts = self.facts(spec, bundle)?;
        let maps = match plan::given_maps(spec, &facts)? {
            Some(m) => m,
            None => self.pool_for(spec)?.preview()?,
        };
        plan::build::plan(id, spec, bundle, &facts, maps, &self.nodes)
    }

    fn facts(&self, spec: &Spec, bundle: &Path) -> Result<Facts> {
        let systemd = (self.cgroups == Manager::Systemd).then(Systemd::detect).transpose()?;
        Ok(Facts { systemd, ..Facts::gather(spec, bundle)? })
    }

    fn pool(&self) -> Result<Pool> {
        Pool::open(&self.subid_dir, self.subid.clone())
    }

    /// The same, with ranges of the size that a configuration asks for.
    fn pool_for(&self, spec: &Spec) -> Result<Pool> {
        let size = plan::requested_ids(spec)?.unwrap_or(self.subid.size);
        Pool::open(&self.subid_dir, SubidConfig { size, ..self.subid.clone() })
    }

    /// Makes a container named `id` whose program waits for [`Container::start`].
    ///
    /// Blocks until namespaces, cgroups and mounts exist and the `createRuntime` and `createContainer` hooks are done. `bundle`
    /// is what relative paths in the configuration are relative to; config.json is not read from it. A copy of the
    /// configuration is kept in the state directory.
    ///
    /// Init becomes a child of this process, and is otherwise all that changes in it. If making fails, nothing is left behind; if
    /// this process is killed on the way, [`Runtime::open`] and [`Container::delete`] with force clean up. IDs come from the
    /// host's pool unless the configuration brings maps; those may have no ID that the pool has given to another container,
    /// and are the creator's to keep apart from each other.
    ///
    /// # Errors
    /// [`Kind::Exists`] for a name in use; [`Kind::Exhausted`] if the pool is empty; [`Kind::Busy`] if the maps of the configuration
    /// have another container's IDs; [`Kind::Protocol`] if the stage program is not
    /// one; [`Kind::ProgramNotFound`] and [`Kind::ProgramNotExecutable`]; those of [`plan::build::plan`] and of every system call on
    /// the way, with the process it failed in ([`Error::stage`]).
    pub fn create(&self, id: &str, spec: &Spec, bundle: &Path, options: CreateOptions) -> Result<Container> {
        self.create_within(id, spec, bundle, options, &Limit::none())
    }

    /// As [`Runtime::create`], until `limit` is over: then nothing is left behind either. A hook that runs is killed.
    ///
    /// # Errors
    /// [`Kind::TimedOut`], [`Kind::Canceled`], and those of [`Runtime::create`].
    pub fn create_within(
        &self,
        id: &str,
        spec: &Spec,
        bundle: &Path,
        options: CreateOptions,
        limit: &Limit,
    ) -> Result<Container> {
        check_id(id)?;
        limit.check()?;
        // First: what this opens itself must not get the number of a stream that the caller has closed.
        let CreateOptions { stdio } = options;
        let mut fds = stdio.into_fds()?;
        let bundle = bundle.canonicalize().op_at("bundle", bundle)?;
        let dir = StateDir::new(&self.root, id);
        dir.create()?;
        // Held to the end: what is cleaned after a failure must be ours still.
        let lock = dir.lock()?;
        let made = lock.try_clone().op("dup").and_then(|lock| {
            fds.push((Fd::Lock, lock.into()));
            self.create_in(&dir, id, spec, &bundle, fds, limit)
        });
        if made.is_err() {
            // The first error is the one that counts.
            let _ = self.clean(&dir, if limit.check().is_ok() { CLEANING } else { CLEANING / 10 });
        }
        made
    }

    fn create_in(
        &self,
        dir: &StateDir,
        id: &str,
        spec: &Spec,
        bundle: &Path,
        mut fds: Vec<(Fd, OwnedFd)>,
        limit: &Limit,
    ) -> Result<Container> {
        let has_console = fds.iter().any(|(fd, _)| *fd == Fd::Console);
        let facts = self.facts(spec, bundle)?;
        let maps = self.maps(dir, spec, &facts, limit)?;
        let plan = plan::build::plan(id, spec, bundle, &facts, maps, &self.nodes)?;
        for note in &plan.notes {
            tracing::debug!(id, "{note}");
        }
        if plan.process.terminal != has_console {
            return Err(Error::invalid(if plan.process.terminal {
                "process.terminal is set, so a console socket is needed"
            } else {
                "a console socket is given, but process.terminal is not set"
            }));
        }
        exclusive::claim(Path::new(exclusive::DEFAULT_DIR), &Owner::of(dir.path())?, &plan.exclusive, limit)?;
        let record = record(&plan, spec, bundle)?;
        dir.write("config.json", &serde_json::to_vec(spec.to_json()).unwrap_or_default())?;
        dir.save(&record)?;
        fds.push((Fd::Listener, listen(dir, "init.sock")?));
        if record.monitored() {
            fds.push((Fd::Control, listen(dir, MONITOR_SOCKET)?));
        }
        limit.check()?;
        let mut stage = Spawned::start(&self.stage, Work::Create(Box::new(plan)), fds, limit)?;
        let (born, result) = follow(&mut stage, dir, limit);
        // It has nothing left to do, and this process may live on for long: it must not be left with a zombie.
        stage.finish();
        match (result, born) {
            (Ok(()), Some((init, pidfd))) => {
                let found = Found { record: Some(record), init, damage: None };
                Ok(Container::new(self.clone(), dir.clone(), id, found, pidfd))
            }
            (Ok(()), None) => Err(Error::new(Kind::Protocol, "init ended while it was being made")),
            (Err(e), born) => {
                // The stage has killed it itself, unless it was killed.
                if let Some((_, init)) = born {
                    let _ = pidfd::kill(init.as_fd(), libc::SIGKILL);
                    let _ = pidfd::wait_gone(init.as_fd(), 5000);
                    let _ = pidfd::reap(init.as_fd());
                }
                Err(e)
            }
        }
    }

    fn maps(&self, dir: &StateDir, spec: &Spec, facts: &Facts, limit: &Limit) -> Result<Maps> {
        let owner = Owner::of(dir.path())?;
        let within = |pool: Pool| pool.within(limit.clone());
        match plan::given_maps(spec, facts)? {
            Some(maps) if joins(spec) => self.pool().map(within)?.share(&owner, &maps).map(|()| maps),
            Some(maps) => self.pool().map(within)?.enter(&owner, &maps).map(|()| maps),
            None => self.pool_for(spec).map(within)?.allocate(&owner),
        }
    }

    /// Takes away everything a container has on the host, as far as it can be found. Its processes are killed. The IDs are waited for no
    /// longer than `patience`: they are free with the directory in any case.
    pub(crate) fn clean(&self, dir: &StateDir, patience: Duration) -> Result<()> {
        monitor::end(dir);
        match dir.claimed() {
            Ok(Some(ours)) => {
                ours.kill_all()?;
                if let Some(unit) = &ours.unit {
                    // systemd finds out by itself as well, a moment later.
                    if let Err(e) = self.change_unit(unit, Change::Stop) {
                        tracing::warn!("{e}");
                    }
                }
                ours.remove()?;
            }
            Ok(None) => {}
            Err(e) => tracing::warn!("cgroups may be left behind: {e}"),
        }
        // A damaged pool keeps no container.
        let pool = self.pool().map(|pool| pool.within(Limit::after(patience)));
        let released = Owner::of(dir.path()).and_then(|owner| pool?.release(&owner));
        if let Err(e) = released {
            tracing::warn!("{e}");
        }
        dir.remove()
    }

    /// Finds a container by name, whoever made it, also one whose making was cut short, and one whose state is damaged
    /// ([`Container::damage`]).
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::System`] if its state may not be read.
    pub fn open(&self, id: &str) -> Result<Container> {
        check_id(id).map_err(|e| e.kinded(Kind::NotFound))?;
        let dir = StateDir::new(&self.root, id);
        let found = dir.load()?;
        Ok(Container::open(self.clone(), dir, id, found))
    }

    /// Names of all containers, sorted: half-made and ended ones too.
    ///
    /// # Errors
    /// The state directory cannot be read. One that does not exist has no containers.
    pub fn list(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            r => r.op_at("read", &self.root)?,
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| check_id(n).is_ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Tries what containers need of this host, in the stage, so that it does not matter how many threads this process has.
    ///
    /// # Errors
    /// The stage cannot be started; [`Kind::Busy`] if it does not answer within a minute.
    pub fn check_host(&self) -> Result<Vec<Probe>> {
        match self.ask(Work::Probe)? {
            (Reply::Probed(probes), _) => Ok(probes),
            _ => Err(Error::new(Kind::Protocol, "the stage answers something else")),
        }
    }

    /// Makes a user namespace with these maps, and nobody in it. It lives as long as something refers to it: the descriptor, or a
    /// mount that is mapped by it ([`crate::mount::idmapped`]).
    ///
    /// # Errors
    /// The kernel makes none, or refuses the maps; [`Kind::Busy`] if the stage does not answer within a minute.
    pub fn user_namespace(&self, maps: &Maps) -> Result<OwnedFd> {
        let (_, fds) = self.ask(Work::Userns(maps.clone()))?;
        fds.into_iter().next().ok_or_else(|| Error::new(Kind::Protocol, "the stage sent no namespace"))
    }

    /// Work that takes moments, or as long as systemd takes, which has a limit of its own.
    fn ask(&self, work: Work) -> Result<(Reply, Vec<OwnedFd>)> {
        self.ask_within(work, ANSWER)
    }

    fn ask_within(&self, work: Work, time: Duration) -> Result<(Reply, Vec<OwnedFd>)> {
        let stuck = |e: Error| match e.kind() {
            Kind::TimedOut => Error::new(Kind::Busy, format!("the stage program does not answer within {time:?}")),
            _ => e,
        };
        let limit = Limit::after(time);
        let mut stage = self.spawn(work, Vec::new(), &limit).map_err(stuck)?;
        let reply = stage.reply_within(&limit);
        let over = stage.over();
        stage.finish();
        let reply = reply.map_err(stuck)?;
        over.map_err(stuck)?;
        match reply {
            (Reply::Failed(e), _) => Err(e),
            answer => Ok(answer),
        }
    }

    /// Has systemd change the unit of a container.
    pub(crate) fn change_unit(&self, unit: &str, change: Change) -> Result<()> {
        self.ask(Work::Unit { name: unit.into(), change }).map(drop)
    }

    pub(crate) fn spawn(&self, work: Work, fds: Vec<(Fd, OwnedFd)>, limit: &Limit) -> Result<Spawned> {
        Spawned::start(&self.stage, work, fds, limit)
    }
}

/// Hears a creating stage to its end: init, once there is one, and how it went. The state directory follows.
fn follow(stage: &mut Spawned, dir: &StateDir, limit: &Limit) -> (Option<(Option<Init>, OwnedFd)>, Result<()>) {
    let mut born = None;
    let result = loop {
        match stage.reply_within(limit) {
            Ok((Reply::Cloned(pid), fds)) => {
                let init = Init::of(pid);
                // The stage's own: the number may be another process's by now.
                born = fds.into_iter().next().map(|fd| (init, fd));
                if let Some(Err(e)) = init.map(|i| dir.save_init(&i)) {
                    break Err(e);
                }
            }
            Ok((Reply::Monitor(monitor), _)) => {
                if let Some(Err(e)) = monitor.map(|m| dir.save_monitor(&m)) {
                    break Err(e);
                }
            }
            Ok((Reply::Failed(e), _)) => break Err(stage.outcome(e)),
            Ok((_, _)) => break stage.over().and_then(|()| dir.finish()),
            Err(e) => break Err(e),
        }
    };
    (born, result)
}

fn record(plan: &Plan, spec: &Spec, bundle: &Path) -> Result<Record> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    Ok(Record {
        oci_version: plan.oci_version.clone(),
        id: plan.id.clone(),
        bundle: bundle.to_owned(),
        root: spec.root_path(bundle)?,
        annotations: plan.annotations.clone(),
        created: now,
        maps: plan.maps.clone(),
        restacked: plan.root.overlay.is_some() && plan.root.idmap,
        inner_data: inner_data(plan),
        cgroup: plan.cgroup.paths(),
        live: plan.nodes.iter().filter(|n| n.live().is_some()).cloned().collect(),
        traps: plan.process.traps.is_some(),
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
    })
}

fn joins(spec: &Spec) -> bool {
    spec.oci().linux().as_ref().is_some_and(|l| Join::of(l).is_some())
}

fn inner_data(plan: &Plan) -> Option<InnerData> {
    let upper = plan.root.overlay.as_ref()?.upper.as_ref()?;
    let dirs = plan.locked.iter().filter(|m| m.what == What::InnerData).map(|m| m.target.clone()).collect();
    Some(InnerData { upper: upper.dir.clone(), dirs })
}

/// A socket on which init or the monitor waits. Bound by way of the directory's descriptor: a path may be longer than a socket's
/// name.
pub(crate) fn listen(dir: &StateDir, name: &str) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let handle = std::fs::File::open(dir.path()).op_at("open", dir.path())?;
    let path = format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
    UnixListener::bind(path).op_at("bind", dir.path().join(name)).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_does_not_answer_is_given_up() {
        // It reads all that it is told, and says nothing.
        let runtime = Runtime::new("/nonexistent").stage(StageProgram::Path("/bin/cat".into()));
        let e = runtime.ask_within(Work::Probe, Duration::from_millis(200)).unwrap_err();
        assert_eq!(e.kind(), Kind::Busy, "{e}");
        assert!(e.to_string().contains("200ms"), "{e}");
    }
}
