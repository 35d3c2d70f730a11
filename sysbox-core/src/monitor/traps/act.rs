//! One call, done for its caller, in a child of the monitor.
//!
//! The child takes copies of the nodes from where the container's init has them. Then it becomes the caller, as far as mounts go: in its
//! namespaces, root and working directory, with its IDs and its effective capabilities, and no others. It makes the caller's own call
//! with the caller's arguments, paths as they are: the kernel decides and resolves as it would for the caller. Nodes are
//! put onto the new mount with the same rights; one for which that fails is left out.

use super::caller::{self, Caller, Identity};
use super::tree::{self, Leaf, Node, Tree};
use super::{Host, Request};
use crate::sys::clone::{self, Fork};
use crate::sys::cred::{self, CapSets};
use crate::sys::mount::DATA;
use crate::sys::pidfd::{self, Exit};
use crate::sys::seccomp::{self, Notification};
use crate::sys::{fd, mount};
use nix::sched::{setns, CloneFlags};
use rustix::fs::{openat, Mode, OFlags, CWD};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// When a child ends whose monitor has died, or was stopped: later than that would end it.
const LIFE: u32 = 6;
/// By which the monitor ends a child. One that waits for its own child does not listen.
pub(super) const END: i32 = libc::SIGTERM;
/// Own descriptors have numbers from here on; those below are the caller's.
pub(super) const OWN: i32 = 2048;
/// The call to make.
#[derive(Debug)]
enum Call {
    Mount {
        source: Option<CString>,
        target: CString,
        flags: u64,
        data: Option<Box<[u8; DATA]>>,
        tree: Tree,
    },
    Move {
        from: OwnedFd,
        to: i32,
        path: CString,
        flags: u32,
    },
    /// With the file systems that nodes are of.
    Unmount {
        target: CString,
        flags: i32,
        devices: Vec<(u32, u32)>,
    },
}

/// Descriptors by which the caller names what it means, with the numbers that they have there.
type Named = Vec<(i32, OwnedFd)>;

/// Where the caller is.
#[derive(Debug)]
struct Place {
    /// `None`: the monitor's own.
    user: Option<OwnedFd>,
    mounts: OwnedFd,
    pids: OwnedFd,
    net: OwnedFd,
    root: OwnedFd,
    cwd: OwnedFd,
}

/// `None`: nothing is done, the call is the kernel's affair. To be the last that the process does: what is open is closed by number, and no owner of
/// anything may be dropped afterwards.
pub(super) fn serve(
    host: &Host,
    listener: BorrowedFd<'_>,
    n: &Notification,
    request: &Request,
    nodes: &[Node],
) -> Option<()> {
    let begin = Instant::now();
    limit_life()?;
    // Of all the monitor has, the FUSE device among it: whoever holds that keeps readers waiting.
    let mut kept = vec![listener, host.proc.as_fd(), host.init.as_fd()];
    kept.extend(host.v1.iter().chain(&host.v2).map(AsFd::as_fd));
    fd::close_all_but(&kept).ok()?;
    enter_cgroups(&host.v1)?;
    let caller = Caller::open(host.proc.as_fd(), n.pid).ok()?;
    let is_its_own = || seccomp::is_waiting(listener, n.id).then_some(());
    let (call, named) = match request {
        Request::Sysinfo(structure) => {
            is_its_own()?;
            return caller.write(n.args[0], structure).then_some(());
        }
        Request::Mount => new_mount(&caller, &n.args)?,
        Request::MoveMount => attachment(&caller, &n.args)?,
        Request::Unmount => removal(&caller, &n.args)?,
    };
    let identity = caller.identity()?;
    let place = Place::of(&caller, host.proc.as_fd())?;
    let same_label = caller.labelled_as_we_are(host.proc.as_fd());
    // All of it was opened and read before this.
    is_its_own()?;
    if !same_label {
        return None;
    }
    // For real work only: it takes milliseconds.
    enter_cgroups(host.v2.as_slice())?;
    // The caller's, and nothing of the host's.
    let mut kept = vec![host.init.as_fd()];
    kept.extend([&place.mounts, &place.pids, &place.net, &place.root, &place.cwd].map(AsFd::as_fd));
    kept.extend(place.user.as_ref().map(AsFd::as_fd));
    kept.extend(named.iter().map(|(_, fd)| fd.as_fd()));
    if let Call::Move { from, .. } = &call {
        kept.push(from.as_fd());
    }
    fd::close_all_but(&kept).ok()?;
    std::mem::forget(caller);
    // Whoever serves a file system that is asked for its type may not answer, and a listener that is still open here would keep callers
    // waiting when the monitor has died.
    let tree = match &call {
        Call::Mount { tree, .. } => Some(*tree),
        Call::Move { from, .. } => Some(Tree::of(from.as_fd())?),
        Call::Unmount { .. } => None,
    };
    let leaves = match tree {
        Some(tree) => {
            setns(&host.init, CloneFlags::CLONE_NEWNS).ok()?;
            tree::take(tree, nodes)
        }
        None => Vec::new(),
    };
    if let (Call::Unmount { .. }, true) = (&call, named.is_empty()) {
        return act(place, &identity, call, named, leaves, nodes);
    }
    // A process is of the pid namespace that it was born in, and so is the procfs that it mounts and what /proc/self leads to.
    setns(&place.pids, CloneFlags::CLONE_NEWPID).ok()?;
    cred::block_signal(END).ok()?;
    match clone::fork(0, None).ok()? {
        Fork::Child => super::end(act(place, &identity, call, named, leaves, nodes)),
        Fork::Parent { pidfd, .. } => outlive(pidfd.as_fd(), begin),
    }
}

/// Ends as the child has ended, and not before it: one that waits in a file system would be nobody's, and count for nothing. It holds nothing
/// open meanwhile.
fn outlive(child: BorrowedFd<'_>, begin: Instant) -> ! {
    cred::alarm(0);
    let _ = fd::close_all_but(&[child]);
    let left = i32::try_from(super::PATIENCE.saturating_sub(begin.elapsed()).as_millis()).unwrap_or(0);
    if !matches!(pidfd::wait_gone(child, left), Ok(Some(()))) {
        let _ = pidfd::kill(child, libc::SIGKILL);
        let _ = pidfd::wait_gone(child, -1);
    }
    match pidfd::reap(child) {
        Ok(Some(Exit::Code(code))) => clone::exit_now(code),
        // It can be killed from inside, after it has mounted something.
        _ => clone::exit_now(super::LOST),
    }
}

fn limit_life() -> Option<()> {
    cred::die_with_parent().ok()?;
    cred::alarm(LIFE);
    Some(())
}

/// mount(2), if it is for us.
fn new_mount(caller: &Caller, args: &[u64; 6]) -> Option<(Call, Named)> {
    let tree = Tree::of_type(&caller.string(args[2])?)?;
    let source = match args[0] {
        0 => None,
        address => Some(caller.string(address)?),
    };
    let target = caller.string(args[1])?;
    let data = match args[4] {
        0 => None,
        address => Some(caller.bytes::<DATA>(address)?),
    };
    let named = named(caller, &target)?;
    Some((Call::Mount { source, target, flags: args[3], data, tree }, named))
}

/// move_mount(2) of something.
fn attachment(caller: &Caller, args: &[u64; 6]) -> Option<(Call, Named)> {
    let from = caller.descriptor(caller::descriptor_argument(args[0])).ok()?;
    let path = caller.string(args[3])?;
    let mut named = named(caller, &path)?;
    let to = caller::descriptor_argument(args[2]);
    if to >= 0 && !named.iter().any(|(n, _)| *n == to) {
        named.push((to, caller.descriptor(to).ok()?));
    }
    Some((Call::Move { from, to, path, flags: args[4] as u32 }, named))
}

/// umount2(2). What it is about is known only to who is where the caller is.
fn removal(caller: &Caller, args: &[u64; 6]) -> Option<(Call, Named)> {
    let target = caller.string(args[0])?;
    let named = named(caller, &target)?;
    // Of former monitors, too.
    let mounts = super::mounts(caller.follow("mountinfo", OFlags::RDONLY).ok()?)?;
    Some((Call::Unmount { target, flags: args[1] as i32, devices: tree::devices(&mounts) }, named))
}

/// The descriptor that a path leads through. One that is not open there is not open here either.
fn named(caller: &Caller, path: &CStr) -> Option<Named> {
    let Some((number, _)) = caller::descriptor_in(path.to_bytes()) else { return Some(Vec::new()) };
    if number >= OWN {
        return None;
    }
    match caller.descriptor(number) {
        Ok(fd) => Some(vec![(number, fd)]),
        Err(rustix::io::Errno::NOENT) => Some(Vec::new()),
        Err(_) => None,
    }
}

impl Place {
    fn of(caller: &Caller, proc: BorrowedFd<'_>) -> Option<Self> {
        let namespace = |name: &str| caller.follow(&format!("ns/{name}"), OFlags::RDONLY).ok();
        let directory = |name: &str| caller.follow(name, OFlags::PATH | OFlags::DIRECTORY).ok();
        let user = namespace("user")?;
        let own = openat(proc, "self/ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        Some(Place {
            user: (!caller::same(user.as_fd(), own.as_fd())).then_some(user),
            mounts: namespace("mnt")?,
            pids: namespace("pid")?,
            net: namespace("net")?,
            root: directory("root")?,
            cwd: directory("cwd")?,
        })
    }
}

/// From here on the container's limits of memory and CPU hold for this process.
fn enter_cgroups(files: &[OwnedFd]) -> Option<()> {
    files.iter().try_for_each(|file| rustix::io::write(file, b"0").ok().map(drop))
}

/// Becomes the caller and makes its call. One that fails is made once more by the caller itself, which gets the kernel's error then.
fn act(place: Place, identity: &Identity, call: Call, named: Named, leaves: Vec<Leaf>, nodes: &[Node]) -> Option<()> {
    limit_life()?;
    setns(&place.net, CloneFlags::CLONE_NEWNET).ok()?;
    setns(&place.mounts, CloneFlags::CLONE_NEWNS).ok()?;
    rustix::process::fchdir(&place.root).ok()?;
    rustix::process::chroot(".").ok()?;
    rustix::process::fchdir(&place.cwd).ok()?;
    become_caller(place.user.as_ref(), identity).ok()?;
    let call = number(place, call, named)?;
    // Changes of identity have undone both.
    cred::set_dumpable(false).ok()?;
    limit_life()?;
    match &call {
        Call::Mount { source, target, flags, data, tree } => {
            mount::mount(source.as_deref(), target, tree.fstype(), *flags, data.as_deref()).ok()?
        }
        Call::Move { from, to, path, flags } => mount::move_mount(from.as_fd(), *to, path, *flags).ok()?,
        Call::Unmount { target, flags, devices } => {
            return tree::unmount(target, *flags, nodes, devices).then_some(());
        }
    }
    if let Some(top) = made_mount(&call) {
        tree::furnish(&top, &leaves);
    }
    Some(())
}

/// First the IDs, in the container's user namespace, in which they were read: they stay when it is left for one below, where they may have
/// no number.
fn become_caller(user: Option<&OwnedFd>, identity: &Identity) -> io::Result<()> {
    // The kernel takes those that there are.
    let all = u64::MAX;
    let caps = |set| CapSets { bounding: 0, permitted: set, effective: set, inheritable: 0, ambient: 0 };
    cred::take_identity(identity.uid, identity.gid, &identity.groups)?;
    if let Some(user) = user {
        cred::set_caps(&caps(all))?;
        setns(user, CloneFlags::CLONE_NEWUSER)?;
    }
    cred::set_caps(&caps(identity.caps))
}

/// Leaves open nothing but the leaves, and what the caller names, as the numbers that it has there.
fn number(place: Place, call: Call, named: Named) -> Option<Call> {
    let high = |fd: &OwnedFd| fd::dup_above(fd.as_fd(), OWN).ok();
    let call = match call {
        Call::Move { from, to, path, flags } => {
            let new = high(&from)?;
            std::mem::forget(from);
            Call::Move { from: new, to, path, flags }
        }
        other => other,
    };
    let copies: Option<Named> = named.iter().map(|(n, fd)| Some((*n, high(fd)?))).collect();
    std::mem::forget((place, named));
    fd::close_range(0, OWN as u32 - 1).ok()?;
    for (n, fd) in &copies? {
        if *n >= OWN {
            return None;
        }
        fd::dup_to(fd.as_fd(), *n).ok()?;
    }
    Some(call)
}

/// The root of what was mounted.
fn made_mount(call: &Call) -> Option<OwnedFd> {
    match call {
        Call::Mount { target, .. } => {
            let open = |path: &CStr| openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
            match caller::descriptor_in(target.to_bytes()) {
                // It leads to what lies under the new mount; its name leads to what lies on top.
                Some((_, true)) => open(&rustix::fs::readlinkat(CWD, target.as_c_str(), Vec::new()).ok()?),
                _ => open(target),
            }
        }
        Call::Move { from, .. } => from.try_clone().ok(),
        Call::Unmount { .. } => None,
    }
}
