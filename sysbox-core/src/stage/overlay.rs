//! Stacks an engine's overlay again from ID-mapped layers, and gives engines inside their directories of its upper layer.
//!
//! Kernels before 6.13 take layers only by path, and only mounts of the caller's namespace: so the layers are attached for
//! a moment to a tmpfs of the stage's own namespace. Short names there keep 500 layers within a page of options.

use super::copy;
use super::tree::unmappable;
use crate::error::{Error, Kind, Result, SysResult};
use crate::inner_data::open_dir;
use crate::mount::{self, Attrs, Node, Root};
use crate::overlay::{self, Overlay, Upper};
use nix::mount::{umount2, MntFlags, MsFlags};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, XattrFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The root, detached: a second overlay of ID-mapped layers; without `userns` the engine's own. And the directories `inner` of
/// the upper layer, likewise.
///
/// `at`, the engine's mount, is covered meanwhile in this mount namespace. The calling process must have the file system
/// identity of the container's root, or overlayfs cannot create its work directory and takes no writes.
pub(super) fn take(
    overlay: &Overlay,
    at: &Path,
    userns: Option<BorrowedFd<'_>>,
    inner: &[PathBuf],
) -> Result<(OwnedFd, Vec<OwnedFd>)> {
    let engines = Root::open(at)?;
    let unmapped = mount::clone_tree(at, false)?;
    let scratch = mount::new_fs("tmpfs", None, &["mode=700".into()], Attrs::empty())?;
    mount::attach(scratch.as_fd(), engines.as_fd(), at)?;
    let upper = overlay.upper.as_ref().map(|u| attach_upper(u, userns, scratch.as_fd())).transpose()?;
    let root = Root::new(match userns {
        Some(userns) => restack(overlay, userns, scratch.as_fd()).map_err(|e| e.at(at))?,
        None => unmapped,
    });
    let mut dirs = Vec::new();
    for dir in inner {
        let (Some(given), Some(mapped)) = (&overlay.upper, &upper) else { break };
        let made = inner_dir(overlay, given, mapped, &root, dir);
        dirs.push(made.map_err(|e| e.within(format!("give {} a real file system", dir.display())))?);
    }
    nix::unistd::chdir("/").op("chdir")?;
    umount2(at, MntFlags::MNT_DETACH).op_at("unmount the layers from", at)?;
    if !dirs.is_empty() {
        // Both may know already what has been made or replaced in the upper layer.
        overlay::refresh(engines.as_fd())?;
        overlay::refresh(root.as_fd())?;
    }
    Ok((root.into_fd(), dirs))
}

/// A second overlay of the same layers.
fn restack(overlay: &Overlay, userns: BorrowedFd<'_>, scratch: BorrowedFd<'_>) -> Result<OwnedFd> {
    for (i, layer) in overlay.lower.iter().enumerate() {
        attach(layer, Some(userns), scratch, &i.to_string())?;
    }
    rustix::fs::mkdirat(scratch, "root", Mode::from_raw_mode(0o755)).op("mkdir")?;
    rustix::process::fchdir(scratch).op("fchdir")?;
    let mut options: Vec<String> = overlay.options.clone();
    let names: Vec<String> = (0..overlay.lower.len()).map(|i| i.to_string()).collect();
    options.push(format!("lowerdir={}", names.join(":")));
    if let Some(upper) = &overlay.upper {
        options.push(format!("upperdir={}", below_scratch(upper, &upper.dir)?));
        let work = below_scratch(upper, &upper.second_work())?;
        make_work(scratch, &work)?;
        options.push(format!("workdir={work}"));
    }
    for (option, on) in [("userxattr", overlay.userxattr), ("volatile", overlay.volatile)] {
        options.extend(on.then(|| option.to_owned()));
    }
    // The engine's mount has the same upper layer, which an index would not allow.
    options.push("index=off".into());
    let text = options.join(",");
    nix::mount::mount(Some("overlay"), "root", Some("overlay"), MsFlags::empty(), Some(text.as_str()))
        .op("mount an overlay of the ID-mapped layers of")
        .map_err(|e| e.hint("overlayfs takes ID-mapped layers from Linux 5.19 on; dmesg may say more"))?;
    mount::clone_tree(Path::new("root"), false)
}

/// Copies the mount that `source` is on, from `source` on, to `scratch/name`.
fn attach(source: &Path, userns: Option<BorrowedFd<'_>>, scratch: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let layer = mount::clone_tree(source, false)?;
    if let Some(userns) = userns {
        mount::idmap(layer.as_fd(), userns).or_else(|e| unmappable(layer.as_fd(), &e, source))?;
    }
    rustix::fs::mkdirat(scratch, name, Mode::from_raw_mode(0o755)).op("mkdir")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = rustix::fs::openat(scratch, name, flags, Mode::empty()).op("open")?;
    mount::attach(layer.as_fd(), point.as_fd(), source)?;
    Ok(layer)
}

/// Upper layer and work directory must be on one mount: that of the directory above both. Returns the layer.
fn attach_upper(upper: &Upper, userns: Option<BorrowedFd<'_>>, scratch: BorrowedFd<'_>) -> Result<Root> {
    let parent = attach(&upper.parent(), userns, scratch, "upper")?;
    let rel = upper.dir.strip_prefix(upper.parent()).unwrap_or(&upper.dir);
    let dir = open_dir(&Root::new(parent), rel).map_err(|e| {
        Error::sys("find the upper layer on the mount of", e.raw_os_error())
            .at(upper.parent())
            .kinded(Kind::Unsupported)
            .hint("upper layer and work directory must be in one directory and on one mount")
    })?;
    Ok(Root::new(dir))
}

/// A path on the host as one below the scratch directory, where overlayfs finds it.
fn below_scratch(upper: &Upper, path: &Path) -> Result<String> {
    let rel = Path::new("upper").join(path.strip_prefix(upper.parent()).unwrap_or(path));
    let text = rel.to_str().unwrap_or_default();
    if text.is_empty() || text.contains(['\\', ',', ':']) {
        return Err(Error::new(Kind::Unsupported, "overlayfs cannot be given a directory of such a name:").at(path));
    }
    Ok(text.to_owned())
}

/// By way of the ID-mapped mount, so that it belongs to the container's root.
fn make_work(scratch: BorrowedFd<'_>, work: &str) -> Result<()> {
    match rustix::fs::mkdirat(scratch, work, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(Error::sys("mkdir", e.raw_os_error()).at(work)),
    }
    // What a volatile mount leaves, so that nobody takes what was never synced for whole. The engine has decided on that.
    for mark in ["work/incompat/volatile", "work/incompat"] {
        let _ = rustix::fs::unlinkat(scratch, Path::new(work).join(mark), AtFlags::REMOVEDIR);
    }
    Ok(())
}

/// The directory of the upper layer in which an engine inside keeps its data, as a detached mount.
fn inner_dir(overlay: &Overlay, upper: &Upper, mapped: &Root, root: &Root, dir: &Path) -> Result<OwnedFd> {
    let existed = root.find(dir).is_ok();
    let through = root.make(dir, Node::Dir)?;
    let layer = Root::open(&upper.dir)?;
    if existed {
        let opaque = overlay.xattr("opaque");
        let is_opaque = |fd: &OwnedFd| {
            let mut mark = [0u8; 4];
            rustix::fs::fgetxattr(fd, opaque.as_str(), &mut mark[..]).is_ok_and(|n| &mark[..n] == b"y")
        };
        if open_dir(&layer, dir).is_err() {
            // Any change of an attribute makes overlayfs copy the directory up, with all above it.
            let here = rustix::fs::openat(&through, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).op("open")?;
            let st = rustix::fs::fstat(&here).op("fstat")?;
            rustix::fs::fchmod(&here, Mode::from_raw_mode(st.st_mode & 0o7777)).op_at("copy up", dir)?;
        }
        if !is_opaque(&open_dir(&layer, dir).op_at("open", dir)?) {
            bring_in(overlay, upper, &layer, &through, dir, &opaque)?;
        }
    }
    let found = open_dir(mapped, dir).op_at("open", dir)?;
    mount::clone_fd(found.as_fd(), false)
}

/// Replaces the directory by one that holds what all layers together show, whiteouts and opaque directories of engines inside
/// included, which the overlay would take for its own: those are lost where only `shown`, the directory in the overlay, can be
/// reached.
fn bring_in(overlay: &Overlay, upper: &Upper, layer: &Root, shown: &OwnedFd, dir: &Path, opaque: &str) -> Result<()> {
    let sources = visible(overlay, dir, opaque)?;
    let new = upper.work.join("sysbox-inner");
    if let Err(e) = std::fs::remove_dir_all(&new) {
        if e.kind() != std::io::ErrorKind::NotFound {
            return Err(Error::sys("remove", e.raw_os_error().unwrap_or(libc::EIO)).at(&new));
        }
    }
    rustix::fs::mkdir(&new, Mode::from_raw_mode(0o700)).op_at("mkdir", &new)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::open(&new, flags, Mode::empty()).op_at("open", &new)?;
    if let Some(sources) = sources {
        let current = open_dir(layer, dir).op_at("open", dir)?;
        for source in sources.iter().rev().chain([&current]) {
            copy::layer(source.as_fd(), target.as_fd(), opaque)?;
        }
    } else {
        copy::tree(shown.as_fd(), target.as_fd())?;
    }
    rustix::fs::fsetxattr(&target, opaque, b"y", XattrFlags::empty()).op_at("setxattr", &new)?;
    let above = open_dir(layer, dir.parent().unwrap_or(dir)).op_at("open", dir)?;
    let name = dir.file_name().unwrap_or_default();
    rustix::fs::renameat_with(rustix::fs::CWD, &new, &above, name, RenameFlags::EXCHANGE).op_at("rename to", dir)?;
    std::fs::remove_dir_all(&new).op_at("remove", &new)
}

/// The directory in each layer that shows through, topmost first. `None`: the layers are not there any more. Podman unmounts those
/// that it has ID-mapped itself as soon as its overlay has them.
fn visible(overlay: &Overlay, dir: &Path, opaque: &str) -> Result<Option<Vec<OwnedFd>>> {
    let mut out = Vec::new();
    'layers: for path in &overlay.lower {
        let layer = match Root::open(path) {
            Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(None),
            r => r?,
        };
        let mut covers = false;
        let steps: Vec<&Path> = dir.ancestors().filter(|a| a.parent().is_some()).collect();
        for (i, step) in steps.iter().rev().enumerate() {
            match open_dir(&layer, step) {
                Ok(fd) => {
                    let mut mark = [0u8; 4];
                    covers |= rustix::fs::fgetxattr(&fd, opaque, &mut mark[..]).is_ok_and(|n| &mark[..n] == b"y");
                    if i + 1 == steps.len() {
                        out.push(fd);
                    }
                }
                Err(rustix::io::Errno::NOENT) if covers => break 'layers,
                Err(rustix::io::Errno::NOENT) => continue 'layers,
                // A whiteout, or another kind of file: what is below it in other layers is hidden.
                Err(_) => break 'layers,
            }
        }
        if covers {
            break;
        }
    }
    Ok(Some(out))
}
