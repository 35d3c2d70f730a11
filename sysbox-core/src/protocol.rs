//! What the caller, the stage and init say to each other.

use crate::cgroup;
use crate::error::Error;
use crate::host::probe::Probe;
use crate::idmap::Maps;
use crate::plan::{Hook, Plan, Process};
use crate::procfs::{Leaf, Node, NodeState};
use crate::state::OciState;
use serde::{Deserialize, Serialize};

/// What this build of the library is: its version, and a digest of its sources. Caller and stage must be of one build, since plans
/// are not a stable format; another is refused ([`crate::Kind::OtherBuild`]).
pub const VERSION: &str = env!("SYSBOX_BUILD");

/// argv[0] of the stage program.
pub(crate) const STAGE_NAME: &str = "sysbox-stage";

/// Caller to stage: the only request of a stage's life.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) version: String,
    /// What the descriptors that come with the message are, in their order.
    pub(crate) fds: Vec<Fd>,
    pub(crate) work: Work,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Make a container and leave its init waiting.
    Create(Box<Plan>),
    /// Run a program in a container.
    Exec(Box<Exec>),
    /// Have systemd change a container's unit.
    Unit { name: String, change: Change },
    /// Give a container another monitor.
    Monitor(Box<Relive>),
    /// Look at a container's nodes.
    Look(Box<Look>),
    /// Try what containers need of the host.
    Probe,
    /// Make a user namespace with nobody in it.
    Userns(Maps),
    /// Run hooks on the host.
    Hooks { hooks: Vec<Hook>, state: OciState, point: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    Stop,
    Set(Vec<cgroup::Property>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Exec {
    /// The container's.
    pub(crate) state: OciState,
    pub(crate) process: Process,
    /// Cgroups of the container, and its init, which tells where in them an exec belongs.
    pub(crate) cgroup: cgroup::Paths,
    pub(crate) init: i32,
    /// Host IDs of the container's root.
    pub(crate) root: (u32, u32),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Relive {
    /// The container's live nodes.
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) cgroups: cgroup::Paths,
    /// Pid of its init.
    pub(crate) init: i32,
    /// Host IDs of the container's root.
    pub(crate) root: (u32, u32),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Look {
    pub(crate) nodes: Vec<Node>,
    /// Pid of the container's init.
    pub(crate) init: i32,
    /// Its monitor answers.
    pub(crate) serves: bool,
}

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fd {
    /// Becomes descriptor 0, 1 or 2.
    Stdio(i32),
    /// Becomes the same number in the container.
    Preserved(i32),
    /// A connected socket that takes the terminal's master.
    Console,
    /// Where init waits for the start.
    Listener,
    /// Held while the container is being made.
    Lock,
    /// The container's init.
    Init,
    /// Where a monitor is asked whether it answers.
    Control,
    /// A connected socket that takes the listener of the seccomp filter.
    Agent,
}

/// Stage to caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// init exists: its pid on the host. Its pidfd comes along.
    Cloned(i32),
    /// The container's monitor serves: its pid on the host.
    Monitor(i32),
    /// What [`Work::Look`] has found.
    Nodes(Vec<NodeState>),
    /// All done; for an exec, the program's pid on the host, and its pidfd comes along.
    Done(Option<i32>),
    /// What was found.
    Probed(Vec<Probe>),
    Failed(Error),
}

/// Stage to init.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum ToInit {
    /// ID maps are written.
    Mapped,
    /// The root and all locked mounts are in place. Files of live nodes come along: their places in the list of nodes.
    Rooted(Vec<usize>),
}

/// init to stage.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// Its namespaces exist.
    Unshared,
    /// It waits for the start.
    Ready,
    Failed(Error),
}

/// Whoever starts the container, to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start;

/// init's answers to a start, in this order. Its hanging up after `Executing` means that the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum StartAnswer {
    /// It has heard.
    Starting,
    /// Hooks and all else are done.
    Executing,
    /// It could not execute the program.
    Failed(Error),
}
