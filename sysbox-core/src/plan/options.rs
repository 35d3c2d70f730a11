//! Mount options of config.json, as mount(8) and runc spell them.

use super::MountAttrs;
use crate::error::{Error, Result};
use crate::mount::{Attrs, Propagation};

/// What a list of options means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) attrs: MountAttrs,
    pub(super) bind: Option<bool>,
    pub(super) copy_up: bool,
    pub(super) data: Vec<String>,
}

/// Name, attribute, and whether the option sets (or clears) it.
const ATTRS: &[(&str, Attrs, bool)] = &[
    ("ro", Attrs::RDONLY, true),
    ("rw", Attrs::RDONLY, false),
    ("nosuid", Attrs::NOSUID, true),
    ("suid", Attrs::NOSUID, false),
    ("nodev", Attrs::NODEV, true),
    ("dev", Attrs::NODEV, false),
    ("noexec", Attrs::NOEXEC, true),
    ("exec", Attrs::NOEXEC, false),
    ("noatime", Attrs::NOATIME, true),
    ("atime", Attrs::NOATIME, false),
    ("strictatime", Attrs::STRICTATIME, true),
    ("nostrictatime", Attrs::STRICTATIME, false),
    ("nodiratime", Attrs::NODIRATIME, true),
    ("diratime", Attrs::NODIRATIME, false),
    ("nosymfollow", Attrs::NOSYMFOLLOW, true),
    ("symfollow", Attrs::NOSYMFOLLOW, false),
];

const PROPAGATIONS: &[(&str, Propagation)] = &[
    ("shared", Propagation::Shared),
    ("slave", Propagation::Slave),
    ("private", Propagation::Private),
    ("unbindable", Propagation::Unbindable),
];

pub(super) fn propagation(name: &str) -> Option<(Propagation, bool)> {
    let find = |n: &str| PROPAGATIONS.iter().find(|(p, _)| *p == n).map(|(_, p)| *p);
    find(name).map(|p| (p, false)).or_else(|| Some((find(name.strip_prefix('r')?)?, true)))
}

fn attr(name: &str) -> Option<(Attrs, bool)> {
    ATTRS.iter().find(|(n, ..)| *n == name).map(|(_, a, on)| (*a, *on))
}

pub(super) fn parse(options: &[String]) -> Result<Options> {
    let mut out = Options::default();
    for o in options {
        let a = &mut out.attrs;
        if let Some((bit, on)) = attr(o) {
            let (add, remove) = if on { (&mut a.set, &mut a.clear) } else { (&mut a.clear, &mut a.set) };
            add.insert(bit);
            remove.remove(bit);
        } else if let Some(p) = propagation(o) {
            a.propagation = Some(p);
        } else if let Some((bit, on)) = o.strip_prefix('r').and_then(attr) {
            let (add, remove) =
                if on { (&mut a.set_all, &mut a.clear_all) } else { (&mut a.clear_all, &mut a.set_all) };
            add.insert(bit);
            remove.remove(bit);
        } else {
            match o.as_str() {
                "bind" => out.bind = out.bind.or(Some(false)),
                "rbind" => out.bind = Some(true),
                "tmpcopyup" | "copy-up" => out.copy_up = true,
                // Every bind is ID-mapped where it can be; relatime is the kernel's default; the rest concern the
                // superblock of file systems that are not made here.
                "defaults" | "relatime" | "norelatime" | "rrelatime" | "idmap" | "ridmap" | "async" | "sync"
                | "dirsync" | "mand" | "nomand" | "lazytime" | "nolazytime" | "silent" | "loud" | "iversion"
                | "noiversion" => {}
                "remount" => return Err(Error::invalid("mount option \"remount\": nothing is mounted there yet")),
                "" => {}
                _ => out.data.push(o.clone()),
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(o: &[&str]) -> Options {
        parse(&o.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_last_of_two_opposites_wins() {
        let o = p(&["ro", "nosuid", "rw"]);
        assert_eq!(o.attrs.set, Attrs::NOSUID);
        assert_eq!(o.attrs.clear, Attrs::RDONLY);
    }

    #[test]
    fn recursive_attributes_and_propagation_are_told_apart() {
        let o = p(&["rbind", "rro", "rprivate", "size=64k"]);
        assert_eq!(o.bind, Some(true));
        assert_eq!(o.attrs.set_all, Attrs::RDONLY);
        assert_eq!(o.attrs.propagation, Some((Propagation::Private, true)));
        assert_eq!(o.data, ["size=64k"]);
        assert_eq!(p(&["shared"]).attrs.propagation, Some((Propagation::Shared, false)));
    }
}
