//! The container's mount tree, built by real root before it is locked.
//!
//! Files are created with the identity of the container's root: real root has no ID on an ID-mapped mount.

use super::{nsfs, overlay};
use crate::error::{Error, Kind, Result, SysResult};
use crate::idmap::Maps;
use crate::mount::{self, Attrs, Node, Propagation, Root};
use crate::mountinfo;
use crate::plan::{Device, DeviceKind, Mount, MountAttrs, Plan, What};
use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, FileType, Mode};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Detached copies of everything that comes from the host: taken before any path can mean something else.
#[derive(Debug)]
pub(super) struct Sources {
    root: Vec<Branch>,
    binds: Vec<Vec<Branch>>,
}

/// One mount of a tree: where it belongs below the tree's top, and whether it is ID-mapped.
#[derive(Debug)]
struct Branch {
    rel: PathBuf,
    fd: OwnedFd,
}

/// Leaves the host's mount namespace for a copy that sends no mount events. It receives them, so that binds can.
pub(super) fn leave_host() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).op("unshare the mount namespace")?;
    let top = Root::open(Path::new("/"))?;
    mount::set_propagation(top.as_fd(), mount::Propagation::Slave, true)
}

/// Takes copies of the root and of all binds, ID-mapped by `userns` where the plan says so.
pub(super) fn take_sources(plan: &Plan, userns: BorrowedFd<'_>) -> Result<Sources> {
    let mounts = MountTable::default();
    let mapped = plan.root.idmap.then_some(userns);
    let inner: Vec<_> = plan.locked.iter().filter(|m| m.what == What::InnerData).map(|m| m.target.clone()).collect();
    let taken = match &plan.root.overlay {
        Some(layers) => {
            overlay::take(layers, &plan.root.path, mapped, &inner).map(|(root, inner)| (vec![Branch::top(root)], inner))
        }
        None => branches(&plan.root.path, true, mapped, &mounts).map(|root| (root, Vec::new())),
    };
    let (root, inner) = taken.map_err(|e| {
        e.within("root.path")
            .hint("the root file system must be a directory on a file system that supports ID-mapped mounts")
    })?;
    let mut inner = inner.into_iter();
    let mut binds = Vec::new();
    for m in &plan.locked {
        if let What::Bind { source, recursive, idmap, .. } = &m.what {
            let tree = branches(source, *recursive, idmap.then_some(userns), &mounts);
            binds.push(tree.map_err(|e| e.within(format!("bind on {}", m.target.display())))?);
        } else if m.what == What::InnerData {
            binds.push(inner.next().map(Branch::top).into_iter().collect());
        }
    }
    Ok(Sources { root, binds })
}

impl Branch {
    fn top(fd: OwnedFd) -> Self {
        Branch { rel: PathBuf::new(), fd }
    }
}

/// Mount points of the host, read once and only if something recursive needs them.
#[derive(Debug, Default)]
struct MountTable(std::cell::OnceCell<Vec<PathBuf>>);

impl MountTable {
    fn below(&self, top: &Path) -> Result<Vec<PathBuf>> {
        if self.0.get().is_none() {
            let _ = self.0.set(mountinfo::own()?.into_iter().map(|m| m.point).collect());
        }
        let all = self.0.get().map(Vec::as_slice).unwrap_or_default();
        let mut found: Vec<PathBuf> = all.iter().filter(|p| p.starts_with(top) && *p != top).cloned().collect();
        // Of several mounts on one point only the topmost can be seen, and a path leads to it.
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// The mount at `source`, and those below it: each mapped by itself, since one that cannot be would fail them all.
fn branches(source: &Path, recursive: bool, userns: Option<BorrowedFd<'_>>, table: &MountTable) -> Result<Vec<Branch>> {
    let Some(userns) = userns else {
        return Ok(vec![Branch { rel: PathBuf::new(), fd: mount::clone_tree(source, recursive)? }]);
    };
    let real = source.canonicalize().op_at("resolve", source)?;
    let top = mount::clone_tree(&real, false)?;
    if let Err(e) = mount::idmap(top.as_fd(), userns) {
        unmappable(top.as_fd(), &e, source)?;
    }
    let mut out = vec![Branch { rel: PathBuf::new(), fd: top }];
    if recursive {
        for point in table.below(&real)? {
            // Covered by another mount, or gone since.
            let Ok(fd) = mount::clone_tree(&point, false) else { continue };
            // What cannot be mapped shows as nobody's, which gives less, not more.
            let _ = mount::idmap(fd.as_fd(), userns);
            out.push(Branch { rel: point.strip_prefix(&real).unwrap_or(&point).to_owned(), fd });
        }
    }
    Ok(out)
}

/// Kernel file systems have no owners to map and go in as they are; for others it is an error, with the cure.
pub(super) fn unmappable(top: BorrowedFd<'_>, e: &std::io::Error, source: &Path) -> Result<()> {
    const PSEUDO: &[u64] = &[
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x1cd1,      // devpts
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0xcafe_4a11, // bpf
        0x6e73_6673, // nsfs
    ];
    let magic = rustix::fs::fstatfs(top).map_or(0, |s| s.f_type as u64);
    if PSEUDO.contains(&magic) {
        return Ok(());
    }
    let name = match magic {
        0x794c_7630 => "overlayfs",
        0x6573_5546 => "FUSE",
        0x6969 => "NFS",
        0x0102_1994 => "tmpfs",
        _ => "this file system",
    };
    Err(Error::sys(format!("ID-map a mount of {name}"), e.raw_os_error().unwrap_or(libc::EINVAL))
        .at(source)
        .kinded(Kind::Unsupported)
        .hint(format!(
            "ID-mapped mounts need ext4, xfs, btrfs or (from Linux 6.3) tmpfs: move the data there; a bind can be had as \
             nobody's with the annotation {}=DESTINATION",
            crate::plan::SKIP_UID_SHIFT
        )))
}

/// Builds the tree on top of the root's own directory and returns it.
pub(super) fn build(plan: &Plan, sources: Sources, init: BorrowedFd<'_>) -> Result<Root> {
    let at = Root::open(&plan.root.path)?;
    let root = Root::new(attach_tree(sources.root, at.as_fd(), &plan.root.path)?);
    mount::set_propagation(root.as_fd(), Propagation::Private, true)?;
    let (proc, sys) = nsfs::proc_and_sys(init)?;
    let mut binds = sources.binds.into_iter();
    for m in &plan.locked {
        let r = match &m.what {
            What::Spare => spare(&root, m, proc.as_fd(), sys.as_fd()),
            What::Dev { options, nodes, links } => dev(&root, m, options, nodes, links, &plan.maps),
            What::Proc => single(&root, m, mount::clone_fd(proc.as_fd(), false)?, Node::Dir),
            What::Sysfs => single(&root, m, mount::clone_fd(sys.as_fd(), false)?, Node::Dir),
            What::InnerData => bind(&root, m, Node::Dir, binds.next().unwrap_or_default()),
            What::Bind { node, .. } => bind(&root, m, *node, binds.next().unwrap_or_default()),
            What::Fs { fstype, source, options, copy_up } => {
                let fs = mount::new_fs(fstype, source.as_deref(), options, Attrs::empty())?;
                if *copy_up {
                    return Err(
                        Error::new(Kind::Unsupported, "tmpcopyup on a tmpfs with a bind below it").at(&m.target)
                    );
                }
                single(&root, m, fs, Node::Dir)
            }
            What::Mask => mask(&root, m),
            What::ReadOnly => read_only(&root, m),
            What::Cgroup { .. } => Err(Error::new(Kind::Protocol, "control groups are init's to mount")),
        };
        r.map_err(|e| e.within(format!("mount {}", m.target.display())))?;
    }
    make_targets(&root, &plan.attached)?;
    if plan.root.readonly {
        mount::set_attrs(root.as_fd(), Attrs::RDONLY, Attrs::empty(), false)?;
    }
    Ok(root)
}

/// Makes `root` the root of this mount namespace, and of every process in it, and lets go of the host's.
pub(super) fn pivot(root: &Root) -> Result<()> {
    rustix::process::fchdir(root.as_fd()).op("fchdir to the root")?;
    nix::unistd::pivot_root(".", ".").op("pivot_root")?;
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH).op("unmount the host's root")?;
    nix::unistd::chdir("/").op("chdir")
}

fn attach_tree(branches: Vec<Branch>, target: BorrowedFd<'_>, name: &Path) -> Result<OwnedFd> {
    let mut branches = branches.into_iter();
    let top = branches.next().ok_or_else(|| Error::new(Kind::Protocol, "a bind without a source"))?;
    mount::attach(top.fd.as_fd(), target, name)?;
    for b in branches {
        // The tree was copied mount by mount: the point exists unless somebody removed it this moment.
        let below = Root::new(mount_dup(top.fd.as_fd())?);
        if let Ok(point) = below.find(&b.rel) {
            mount::attach(b.fd.as_fd(), point.as_fd(), &name.join(&b.rel))?;
        }
    }
    Ok(top.fd)
}

fn mount_dup(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().op("dup")
}

fn single(root: &Root, m: &Mount, fs: OwnedFd, node: Node) -> Result<()> {
    let target = root.make(&m.target, node)?;
    apply_attrs(fs.as_fd(), &m.attrs)?;
    mount::attach(fs.as_fd(), target.as_fd(), &m.target)
}

fn bind(root: &Root, m: &Mount, node: Node, tree: Vec<Branch>) -> Result<()> {
    let target = root.make(&m.target, node)?;
    let top = attach_tree(tree, target.as_fd(), &m.target)?;
    if m.attrs.propagation.is_none() {
        mount::set_propagation(top.as_fd(), Propagation::Private, true)?;
    }
    apply_attrs(top.as_fd(), &m.attrs)
}

/// Applies the attributes of the plan to a mount.
pub(super) fn apply_attrs(fs: BorrowedFd<'_>, a: &MountAttrs) -> Result<()> {
    mount::set_attrs(fs, a.set_all, a.clear_all, true)?;
    mount::set_attrs(fs, a.set, a.clear, false)?;
    match a.propagation {
        Some((p, recursive)) => mount::set_propagation(fs, p, recursive),
        None => Ok(()),
    }
}

/// The instances themselves go here, and copies of them to where they are used: before Linux 6.15 only a mount that is attached
/// can be copied. The plan has this first.
fn spare(root: &Root, m: &Mount, proc: BorrowedFd<'_>, sys: BorrowedFd<'_>) -> Result<()> {
    let fs = mount::new_fs("tmpfs", None, &["mode=700".into(), "size=4k".into()], Attrs::empty())?;
    let target = root.make(&m.target, Node::Dir)?;
    mount::attach(fs.as_fd(), target.as_fd(), &m.target)?;
    for (name, fs) in [("proc", proc), ("sys", sys)] {
        let at = root.make(&m.target.join(name), Node::Dir)?;
        mount::attach(fs, at.as_fd(), &m.target.join(name))?;
    }
    Ok(())
}

fn dev(
    root: &Root,
    m: &Mount,
    options: &[String],
    nodes: &[Device],
    links: &[(PathBuf, PathBuf)],
    maps: &Maps,
) -> Result<()> {
    let fs = mount::new_fs("tmpfs", None, options, Attrs::empty())?;
    for n in nodes {
        node(fs.as_fd(), n, maps).map_err(|e| e.within(format!("/dev/{}", n.path.display())))?;
    }
    for (path, to) in links {
        rustix::fs::symlinkat(to, fs.as_fd(), path).op_at("symlink", path)?;
    }
    single(root, m, fs, Node::Dir)
}

fn node(dev: BorrowedFd<'_>, n: &Device, maps: &Maps) -> Result<()> {
    if let Some(parent) = n.path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let mut dir = PathBuf::new();
        for c in parent {
            dir.push(c);
            match rustix::fs::mkdirat(dev, &dir, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(Error::sys("mkdir", e.raw_os_error()).at(&dir)),
            }
        }
    }
    let (kind, number) = match n.kind {
        DeviceKind::Char(a, b) => (FileType::CharacterDevice, rustix::fs::makedev(a, b)),
        DeviceKind::Block(a, b) => (FileType::BlockDevice, rustix::fs::makedev(a, b)),
        DeviceKind::Fifo => (FileType::Fifo, 0),
        DeviceKind::File => (FileType::RegularFile, 0),
    };
    rustix::fs::mknodat(dev, &n.path, kind, Mode::from_raw_mode(n.mode), number).op("mknod")?;
    if (n.uid, n.gid) != (0, 0) {
        // An owner that the container does not have would be nobody: then it is root's, as everything else in /dev.
        let owner = maps.uid.to_outside(n.uid).map(rustix::fs::Uid::from_raw);
        let group = maps.gid.to_outside(n.gid).map(rustix::fs::Gid::from_raw);
        rustix::fs::chownat(dev, &n.path, owner, group, AtFlags::SYMLINK_NOFOLLOW).op("chown")?;
    }
    Ok(())
}

fn mask(root: &Root, m: &Mount) -> Result<()> {
    let Ok(target) = root.find(&m.target) else { return Ok(()) };
    let cover = if mount::is_dir(target.as_fd()).op("stat")? {
        mount::new_fs("tmpfs", None, &["mode=755".into(), "nr_inodes=1".into()], Attrs::RDONLY)?
    } else {
        mount::clone_fd(root.find(Path::new("/dev/null"))?.as_fd(), false)?
    };
    mount::attach(cover.as_fd(), target.as_fd(), &m.target)
}

fn read_only(root: &Root, m: &Mount) -> Result<()> {
    let Ok(target) = root.find(&m.target) else { return Ok(()) };
    let copy = mount::clone_fd(target.as_fd(), true)?;
    mount::set_attrs(copy.as_fd(), Attrs::RDONLY, Attrs::empty(), true)?;
    mount::attach(copy.as_fd(), target.as_fd(), &m.target)
}

/// Mount points for what init attaches: it could not make them on a read-only root.
fn make_targets(root: &Root, attached: &[Mount]) -> Result<()> {
    for (i, m) in attached.iter().enumerate() {
        let inside_another = attached[..i].iter().any(|a| m.target.starts_with(&a.target));
        if !inside_another && !m.target.starts_with("/sys") && !m.target.starts_with("/proc") {
            root.make(&m.target, Node::Dir).map_err(|e| e.within(format!("mount {}", m.target.display())))?;
        }
    }
    Ok(())
}
