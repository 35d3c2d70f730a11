//! Which mounts a container gets, which of them are locked, and in what order.

use super::check::is_default_path;
use super::settings::Settings;
use super::{devices, options, Mount, MountAttrs, What};
use crate::cgroup::{Layout, Version};
use crate::error::{Error, Kind, Result};
use crate::host::{Facts, FileKind};
use crate::idmap::Maps;
use crate::mount::{normalize, Attrs, Node};
use crate::spec::{is_bind, Spec};
use oci_spec::runtime as oci;
use std::path::{Path, PathBuf};

const HARDENED: Attrs = Attrs::NOSUID.union(Attrs::NODEV).union(Attrs::NOEXEC);

/// Locked and attached mounts.
#[derive(Debug, Default)]
pub(super) struct Sets {
    pub(super) locked: Vec<Mount>,
    pub(super) attached: Vec<Mount>,
    pub(super) exclusive: Vec<PathBuf>,
}

pub(super) fn plan(
    spec: &Spec,
    bundle: &Path,
    facts: &Facts,
    maps: &Maps,
    settings: &Settings,
    systemd: bool,
    notes: &mut Vec<String>,
) -> Result<Sets> {
    let linux = spec.oci().linux().as_ref().ok_or_else(|| Error::invalid("config.json has no \"linux\" section"))?;
    let terminal = spec.oci().process().as_ref().and_then(oci::Process::terminal).unwrap_or(false);
    let mut wanted = Vec::new();
    let mut own = Own::default();
    for (i, m) in spec.oci().mounts().as_deref().unwrap_or_default().iter().enumerate() {
        let name = || format!("mounts[{i}] {}", m.destination().display());
        let planned = one(m, bundle, facts, (maps, settings), &mut own).and_then(|planned| match &planned {
            Some(mount) if locks(mount) => refuse_hidden(&mount.target).map(|()| planned),
            _ => Ok(planned),
        });
        wanted.extend(planned.map_err(|e| e.within(name()))?);
    }
    if own.hosts_sys {
        notes.push("the host's /sys, to be bound read-only, is replaced by the container's own".into());
    }
    let taken = |p: &str| wanted.iter().any(|m: &Mount| m.target == Path::new(p));
    let mut first = Vec::new();
    if systemd {
        for (target, opts, attrs) in [
            ("/run", "mode=755", Attrs::NOSUID | Attrs::NODEV),
            ("/run/lock", "mode=1777,size=4m", HARDENED),
            ("/tmp", "mode=1777", Attrs::NOSUID | Attrs::NODEV),
        ] {
            if !taken(target) {
                first.push(fs(target, "tmpfs", opts, attrs, "systemd expects a fresh tmpfs"));
            }
        }
    }
    if !taken("/dev/shm") {
        let (options, attrs) = own.shm.take().unwrap_or_else(|| {
            (vec!["mode=1777".into(), "size=65536k".into()], MountAttrs { set: HARDENED, ..Default::default() })
        });
        first.push(Mount { attrs, ..at("/dev/shm", fs_what("tmpfs", None, options, false)) });
    }
    let mut late = Vec::new();
    for dir in &facts.kernel_dirs {
        let target = facts.targets.get(dir).unwrap_or(dir);
        if !wanted.iter().any(|m| target.starts_with(&m.target) || m.target.starts_with(target)) {
            late.push(Mount {
                target: target.clone(),
                what: What::Bind { source: dir.clone(), recursive: false, idmap: false, node: Node::Dir },
                attrs: MountAttrs { set: Attrs::RDONLY | Attrs::NOSUID | Attrs::NODEV, ..Default::default() },
                why: Some("software inside looks here for the running kernel".into()),
            });
        }
    }
    let dev_options = own.dev.take().unwrap_or_else(|| vec!["mode=755".into(), "size=65536k".into()]);
    // The host's side mounts it.
    let dev_options = dev_options.iter().map(|o| outside(o, maps)).collect::<Result<_>>()?;
    let devices = linux.devices();
    let mut sets =
        Sets { locked: vec![at("/dev", What::Spare)], attached: Vec::new(), exclusive: exclusive(facts, &wanted) };
    let dev = devices::dev(dev_options, devices.as_deref().unwrap_or_default(), terminal)?;
    sets.locked.push(with(at("/dev", dev), Attrs::NOSUID | Attrs::NOEXEC));
    sets.locked.push(with(at("/proc", What::Proc), HARDENED));
    sets.locked.push(with(at("/sys", What::Sysfs), HARDENED));
    sets.locked.extend(inner_data(spec, facts, &wanted));
    let protected = protected(linux, notes)?;
    divide(first.into_iter().chain(wanted).chain(late).collect(), &protected, maps, &mut sets, notes)?;
    sets.locked.extend(protected);
    attached_defaults(&mut sets, own, &facts.cgroups);
    Ok(sets)
}

/// Real file systems for engines inside, but where the configuration has something of its own, or wants nothing written.
fn inner_data(spec: &Spec, facts: &Facts, wanted: &[Mount]) -> Vec<Mount> {
    let writable = facts.overlay.as_ref().is_some_and(|o| o.upper.is_some());
    if !writable || spec.oci().root().as_ref().is_some_and(|r| r.readonly().unwrap_or(false)) {
        return Vec::new();
    }
    let free = |dir: &&PathBuf| !wanted.iter().any(|m| dir.starts_with(&m.target));
    let mount = |dir: &PathBuf| Mount {
        target: dir.clone(),
        what: What::InnerData,
        attrs: MountAttrs::default(),
        why: Some("an engine inside cannot keep its data on an overlay".into()),
    };
    facts.inner_dirs.iter().filter(free).map(mount).collect()
}

/// Sources of writable binds where engines inside keep their data.
fn exclusive(facts: &Facts, wanted: &[Mount]) -> Vec<PathBuf> {
    let writable = wanted.iter().filter(|m| !(m.attrs.set | m.attrs.set_all).contains(Attrs::RDONLY));
    let source = |m: &Mount| match &m.what {
        What::Bind { source, .. } if facts.inner_dirs.contains(&m.target) => Some(source.clone()),
        _ => None,
    };
    writable.filter_map(source).collect()
}

/// What the configuration says of mounts that every container has anyway.
#[derive(Debug, Default)]
struct Own {
    dev: Option<Vec<String>>,
    pts: Option<Vec<String>>,
    shm: Option<(Vec<String>, MountAttrs)>,
    hosts_sys: bool,
}

/// One mount of the configuration; `None` if a mount that every container has takes its place.
fn one(
    m: &oci::Mount,
    bundle: &Path,
    facts: &Facts,
    shift: (&Maps, &Settings),
    own: &mut Own,
) -> Result<Option<Mount>> {
    let raw = Path::new("/").join(m.destination());
    let target = facts.targets.get(&raw).cloned().map_or_else(|| normalize(&raw), Ok)?;
    let fstype = m.typ().as_deref().unwrap_or_default();
    let opts = options::parse(m.options().as_deref().unwrap_or_default())?;
    let name = target.to_str().unwrap_or_default();
    if is_bind(m) {
        // Podman's, for a container in the network and user namespace of another, where others cannot mount a sysfs.
        if name == "/sys" && m.source().as_deref() == Some(Path::new("/sys")) && opts.attrs.set.contains(Attrs::RDONLY)
        {
            own.hosts_sys = true;
            return Ok(None);
        }
        if matches!(name, "/" | "/proc" | "/sys" | "/dev") {
            return Err(Error::new(
                Kind::Refused,
                format!("a bind over {name} would hide what the container needs there"),
            )
            .hint("bind single files or directories below it"));
        }
        if target.starts_with("/sys/fs/cgroup") {
            return Err(Error::new(Kind::Refused, "a bind of control groups would reach those of others")
                .hint("remove it: the container has its own below /sys/fs/cgroup"));
        }
        return bind(m, target, opts, bundle, facts, shift).map(Some);
    }
    match (name, fstype) {
        ("/proc", "proc") | ("/sys", "sysfs") | ("/dev/mqueue", "mqueue") => return Ok(None),
        ("/dev", "tmpfs") => {
            own.dev = Some(opts.data);
            return Ok(None);
        }
        ("/dev/pts", "devpts") => {
            own.pts = Some(opts.data);
            return Ok(None);
        }
        ("/dev/shm", "tmpfs") => {
            own.shm = Some((opts.data, opts.attrs));
            return Ok(None);
        }
        ("/" | "/proc" | "/sys" | "/dev", _) => {
            return Err(Error::new(
                Kind::Refused,
                format!("a {fstype} over {name} would hide what the container needs there"),
            ))
        }
        // The container's own view is made afresh, writable where it is delegated.
        (_, "cgroup" | "cgroup2") if target.starts_with("/sys/fs/cgroup") => return Ok(None),
        ("/sys/fs/cgroup", _) => return Ok(None),
        (_, "") => return Err(Error::invalid("the mount has neither a type nor the option \"bind\"")),
        _ => {}
    }
    let what = match fstype {
        "proc" => fs_what("proc", None, opts.data, false),
        "sysfs" => fs_what("sysfs", None, Vec::new(), false),
        "cgroup" | "cgroup2" => {
            return Err(
                Error::new(Kind::Unsupported, format!("a {fstype} mount outside /sys/fs/cgroup")).hint("remove it")
            )
        }
        "tmpfs" | "ramfs" | "devpts" | "mqueue" => fs_what(fstype, None, opts.data, opts.copy_up),
        // It would be mounted by the host's root: with the owners of the host, and by code that is not made for strangers.
        _ => {
            return Err(Error::new(
                Kind::Refused,
                format!("a new {fstype} would be mounted with the rights of the host's root"),
            )
            .hint("mount it on the host and bind it"))
        }
    };
    Ok(Some(Mount { target, what, attrs: opts.attrs, why: None }))
}

fn bind(
    m: &oci::Mount,
    target: PathBuf,
    opts: options::Options,
    bundle: &Path,
    facts: &Facts,
    (maps, settings): (&Maps, &Settings),
) -> Result<Mount> {
    let source = m.source().as_ref().ok_or_else(|| Error::invalid("a bind without a source"))?;
    let source = bundle.join(source);
    let fact = facts.sources.get(&source).ok_or_else(|| {
        Error::invalid("the source of a bind does not exist:").at(&source).hint("create it on the host first")
    })?;
    if let Some(given) = m.uid_mappings() {
        if !given.is_empty() && crate::idmap::IdMap::from_oci(given)? != maps.uid {
            return Err(Error::new(Kind::Unsupported, "a bind with ID maps other than the container's"));
        }
    }
    // A socket or device would give container root what host root may do with it; what belongs to the container's IDs
    // already needs no mapping, and would show as nobody's with one.
    let shifted = maps.uid.to_inside(fact.uid).is_some();
    let asked = |list: &[PathBuf]| list.iter().any(|p| p == m.destination() || *p == target);
    let mappable = matches!(fact.kind, FileKind::Dir | FileKind::File)
        || fact.kind == FileKind::Socket && asked(&settings.mapped_sockets);
    let idmap = !shifted && mappable && !asked(&settings.unmapped);
    let node = if fact.kind == FileKind::Dir { Node::Dir } else { Node::File };
    let recursive = opts.bind.unwrap_or(false);
    Ok(Mount { target, what: What::Bind { source, recursive, idmap, node }, attrs: opts.attrs, why: None })
}

/// Whether a mount protects something, or is not container root's to make.
fn locks(m: &Mount) -> bool {
    match &m.what {
        What::Fs { fstype, .. } => {
            !matches!(fstype.as_str(), "tmpfs" | "devpts" | "mqueue" | "proc" | "sysfs" | "ramfs")
        }
        _ => true,
    }
}

/// Refuses to lock something where init attaches a file system that only it can make.
fn refuse_hidden(target: &Path) -> Result<()> {
    let hidden = target.starts_with("/dev/pts")
        || target.starts_with("/dev/mqueue") && target != Path::new("/dev/mqueue")
        || target.starts_with("/sys/fs/cgroup");
    if !hidden {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, "the container's own file system there would hide what is mounted on").at(target))
}

/// Locks what protects something, attaches the rest.
///
/// A tmpfs is init's to make, so that container root owns it and may remount it; unless something locked lies on or below it,
/// which it would hide. Other file systems of a namespace are init's in any case: the host's root would make its own.
fn divide(all: Vec<Mount>, protected: &[Mount], maps: &Maps, sets: &mut Sets, notes: &mut Vec<String>) -> Result<()> {
    let locked: Vec<PathBuf> = all.iter().filter(|m| locks(m)).chain(protected).map(|m| m.target.clone()).collect();
    for mut m in all {
        if locks(&m) {
            sets.locked.push(m);
            continue;
        }
        let Some(below) = locked.iter().find(|l| l.starts_with(&m.target)) else {
            sets.attached.push(m);
            continue;
        };
        if let What::Fs { fstype, options, .. } = &mut m.what {
            if !matches!(fstype.as_str(), "tmpfs" | "ramfs") {
                return Err(Error::new(
                    Kind::Refused,
                    format!("the {fstype} on {} would hide what is mounted on", m.target.display()),
                )
                .at(below));
            }
            notes.push(format!(
                "the {fstype} on {} cannot be remounted inside: {} is mounted or protected",
                m.target.display(),
                below.display()
            ));
            *options = options.iter().map(|o| outside(o, maps)).collect::<Result<_>>()?;
        }
        sets.locked.push(m);
    }
    Ok(())
}

/// `uid=` and `gid=` of a file system that is mounted on the host's side.
fn outside(option: &str, maps: &Maps) -> Result<String> {
    let map = match option.split_once('=') {
        Some(("uid", _)) => &maps.uid,
        Some(("gid", _)) => &maps.gid,
        _ => return Ok(option.to_owned()),
    };
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    let id = value.parse().ok().and_then(|id| map.to_outside(id));
    id.map(|id| format!("{key}={id}"))
        .ok_or_else(|| Error::invalid(format!("mount option {option}: the ID is outside the container's maps")))
}

fn attached_defaults(sets: &mut Sets, own: Own, cgroups: &Layout) {
    let bound = |p: &str| sets.locked.iter().any(|m| m.target.starts_with(p));
    let mut base = Vec::new();
    let pts =
        own.pts.unwrap_or_else(|| ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"].map(String::from).to_vec());
    base.push(with(at("/dev/pts", fs_what("devpts", None, pts, false)), Attrs::NOSUID | Attrs::NOEXEC));
    if !bound("/dev/mqueue") {
        base.push(with(at("/dev/mqueue", fs_what("mqueue", None, Vec::new(), false)), HARDENED));
    }
    base.extend(cgroup_mounts(cgroups));
    base.append(&mut sets.attached);
    sets.attached = base;
}

/// The container's own control groups, laid out as on the host: software inside looks at the host's layout.
fn cgroup_mounts(layout: &Layout) -> Vec<Mount> {
    let root = "/sys/fs/cgroup";
    let hierarchy = |target: PathBuf, v1: Option<String>| Mount {
        target,
        what: What::Cgroup { v1 },
        attrs: MountAttrs { set: HARDENED, ..Default::default() },
        why: Some("the container's own control groups, delegated to it".into()),
    };
    if layout.is_unified() {
        return vec![hierarchy(root.into(), None)];
    }
    let mut out = vec![fs(root, "tmpfs", "mode=755,size=1m", HARDENED, "holds the hierarchies")];
    for h in &layout.hierarchies {
        let target = Path::new(root).join(&h.directory);
        let v1 = (h.version == Version::V1).then(|| h.controllers.join(","));
        out.push(hierarchy(target, v1));
    }
    out
}

/// Masked and read-only paths.
fn protected(linux: &oci::Linux, notes: &mut Vec<String>) -> Result<Vec<Mount>> {
    let (mut out, mut dropped) = (Vec::new(), Vec::new());
    let lists = [
        (linux.masked_paths(), What::Mask, "linux.maskedPaths"),
        (linux.readonly_paths(), What::ReadOnly, "linux.readonlyPaths"),
    ];
    for (paths, what, field) in lists {
        for p in paths.as_deref().unwrap_or_default() {
            let target = normalize(Path::new(p)).map_err(|e| e.within(field))?;
            let name = target.to_str().unwrap_or_default();
            if is_default_path(name) || target.starts_with("/sys/fs/cgroup") {
                dropped.push(p.as_str());
                continue;
            }
            if name == "/" || what == What::Mask && matches!(name, "/proc" | "/sys" | "/dev") {
                return Err(Error::invalid(format!("{field}: {p} cannot be covered whole"))
                    .hint("root.readonly makes the root read-only"));
            }
            if target.starts_with("/proc") || target.starts_with("/sys") {
                notes.push(format!(
                    "{field}: {p} is covered here; root inside can mount another {} and see it there",
                    if target.starts_with("/proc") { "proc" } else { "sysfs" }
                ));
            }
            refuse_hidden(&target).map_err(|e| e.kinded(Kind::InvalidConfig).within(field))?;
            out.push(Mount { target, what: what.clone(), attrs: MountAttrs::default(), why: None });
        }
    }
    if !dropped.is_empty() {
        notes.push(format!(
            "not masked and not read-only, because the kernel itself refuses them in a user namespace: {}",
            dropped.join(" ")
        ));
    }
    Ok(out)
}

fn at(target: &str, what: What) -> Mount {
    Mount { target: target.into(), what, attrs: MountAttrs::default(), why: None }
}

fn with(mut m: Mount, set: Attrs) -> Mount {
    m.attrs.set = set;
    m
}

fn fs_what(fstype: &str, source: Option<String>, options: Vec<String>, copy_up: bool) -> What {
    What::Fs { fstype: fstype.into(), source, options, copy_up }
}

fn fs(target: &str, fstype: &str, options: &str, attrs: Attrs, why: &str) -> Mount {
    let options = options.split(',').map(String::from).collect();
    Mount { why: Some(why.into()), ..with(at(target, fs_what(fstype, None, options, false)), attrs) }
}
