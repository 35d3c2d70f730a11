//! What a system container needs opened in the profile that an engine wrote for an ordinary one.
//!
//! Engines derive their profiles from the capabilities they grant, and these are few. In a system container root has
//! all capabilities over its own namespaces, so the reason to close these calls is gone: the kernel checks every one
//! against the container's user namespace.
//!
//! Not opened, so as the engine has them:
//!
//! * what needs privilege on the host, and could only fail: `swapon`, `init_module`, `kexec_load`, `iopl`,
//!   `settimeofday`, `acct` and their kin;
//! * `bpf` and `perf_event_open`, which are mostly that, and in the rest a large part of the kernel to attack;
//!   `userfaultfd` and `io_uring_*` for the latter reason alone;
//! * `personality` and `socket`, whose argument conditions stay: they keep out address families and execution modes,
//!   and have nothing to do with capabilities.

use super::arch::Arch;
use super::profile::{Action, Profile};
use std::collections::BTreeSet;

/// Calls without which container engines or systemd do not run inside.
const NEEDED: [&str; 34] = [
    // Namespaces. Flags and all: with CLONE_NEWUSER too, for rootless engines and sandboxes inside.
    "clone",
    "clone3",
    "unshare",
    "setns",
    "chroot",
    "pivot_root",
    "sethostname",
    "setdomainname",
    // Mounts, old way and new. runc verifies /proc by the new one, and gives up if it is refused.
    "mount",
    "umount",
    "umount2",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "mount_setattr",
    "statmount",
    "listmount",
    // Session keyrings: runc makes one for each container.
    "add_key",
    "request_key",
    "keyctl",
    // Processes by descriptor, and what is done just before a program starts.
    "pidfd_open",
    "pidfd_send_signal",
    "pidfd_getfd",
    "close_range",
    "seccomp",
    // systemd's sandbox of services.
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    // Overlay file systems and exports inside tell files by handle.
    "name_to_handle_at",
    "open_by_handle_at",
];

/// Calls that administration and debugging inside use. In a profile that names what it forbids, forbidding one of
/// these is somebody's decision, and stays.
const USEFUL: [&str; 11] = [
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "process_mrelease",
    "kcmp",
    "fanotify_init",
    "fanotify_mark",
    "quotactl",
    "quotactl_fd",
    // Ends the container's first process: this is how shutdown works inside.
    "reboot",
];

/// How a profile has a call before anything is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing refuses it.
    Open,
    /// No rule is about it, and the default refuses.
    Missing,
    /// It is permitted under conditions.
    Conditional,
    /// A rule refuses it.
    Refused,
}

/// Opens, in an engine's profile, what the software inside a system container needs, and says in words what changed.
///
/// In a profile that names what it permits (its default refuses), everything on the list is opened. In one that names
/// what it forbids, only what inner engines cannot do without. Calls under `SCMP_ACT_NOTIFY`, `SCMP_ACT_TRACE` and
/// `SCMP_ACT_LOG` stay so. A profile that lists no architectures gets the 32-bit one of its native architecture:
/// in a container that stands for a whole machine, 32-bit programs are expected to run.
///
/// Opening twice is the same as opening once.
pub fn open_for_system_container(mut profile: Profile) -> (Profile, Vec<String>) {
    let mut notes = Vec::new();
    if profile.architectures.is_none() {
        if let Some(sub) = Arch::native().and_then(Arch::sub_architecture) {
            profile.architectures = Some(BTreeSet::from([sub]));
            notes.push(format!("seccomp: the profile lists no architectures; added {sub} for 32-bit programs"));
        }
    }
    let by_permission = profile.default.refuses();
    let standings: Vec<(&str, Standing)> = NEEDED
        .iter()
        .chain(USEFUL.iter().filter(|_| by_permission))
        .filter(|name| !profile.opened.contains(**name))
        .map(|name| (*name, standing(&profile, name)))
        .collect();
    let texts = [
        (Standing::Missing, "opened, as root has all capabilities over its own namespaces:"),
        (Standing::Conditional, "dropped the conditions on the arguments of"),
        (Standing::Refused, "dropped the profile's refusal, as software inside depends on it, of"),
    ];
    for (kind, text) in texts {
        let names: Vec<&str> = standings.iter().filter(|(_, s)| *s == kind).map(|(n, _)| *n).collect();
        if !names.is_empty() {
            notes.push(format!("seccomp: {text} {}", names.join(" ")));
            profile.opened.extend(names.iter().map(|n| (*n).to_owned()));
        }
    }
    let kept: Vec<&str> =
        USEFUL.into_iter().filter(|n| !by_permission && standing(&profile, n) == Standing::Refused).collect();
    if !kept.is_empty() {
        notes.push(format!("seccomp: kept the profile's refusal of {}", kept.join(" ")));
    }
    (profile, notes)
}

/// By the precedence that [`Profile`] documents.
fn standing(profile: &Profile, name: &str) -> Standing {
    let rules = || {
        let named = profile.rules.iter().filter(|r| r.names.iter().any(|n| n == name));
        named.filter(|r| r.action != profile.default)
    };
    if let Some(rule) = rules().find(|r| r.when.is_empty()) {
        return if rule.action.refuses() { Standing::Refused } else { Standing::Open };
    }
    if rules().any(|r| r.action.refuses()) {
        return Standing::Refused;
    }
    match (profile.default, rules().next()) {
        (Action::Allow | Action::Log | Action::Trace(_) | Action::Notify, _) => Standing::Open,
        (_, None) => Standing::Missing,
        (_, Some(_)) => Standing::Conditional,
    }
}
