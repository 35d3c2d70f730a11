//! A filter as its author meant it: validated, and with nothing left to interpretation.

use super::arch::Arch;
use crate::{Error, Result};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as OciAction, LinuxSeccompArg, LinuxSeccompFilterFlag as OciFlag,
    LinuxSeccompOperator as OciOp, LinuxSyscall,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What becomes of a call; see `SECCOMP_RET_*` in seccomp(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// The thread dies (`SCMP_ACT_KILL`, `SCMP_ACT_KILL_THREAD`).
    KillThread,
    /// The process dies.
    KillProcess,
    /// The thread gets `SIGSYS`.
    Trap,
    /// The call fails with this errno.
    Errno(u16),
    /// Another process decides, through the filter's listener.
    Notify,
    /// The tracer decides and gets this number; without a tracer the call fails with `ENOSYS`.
    Trace(u16),
    /// The call is made and logged.
    Log,
    /// The call is made.
    Allow,
}

/// The highest errno that the kernel can return: `MAX_ERRNO` in `linux/err.h`.
const MAX_ERRNO: u32 = 4095;

impl Action {
    /// What the program returns for it.
    pub const fn code(self) -> u32 {
        match self {
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Errno(n) => libc::SECCOMP_RET_ERRNO | n as u32,
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Action::Trace(n) => libc::SECCOMP_RET_TRACE | n as u32,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Allow => libc::SECCOMP_RET_ALLOW,
        }
    }

    /// Whether it stops the call. [`Action::Notify`] and [`Action::Trace`] do not: somebody was appointed to decide.
    pub const fn refuses(self) -> bool {
        matches!(self, Action::KillThread | Action::KillProcess | Action::Trap | Action::Errno(_))
    }

    fn from_oci(action: OciAction, errno: Option<u32>, field: &str) -> Result<Action> {
        let number = |max: u32| match errno {
            None => Ok(libc::EPERM as u16),
            Some(n) if n <= max => Ok(n as u16),
            Some(n) => Err(Error::invalid(format!("{field}: {n} is more than {max}"))),
        };
        let action = match action {
            OciAction::ScmpActErrno => return Ok(Action::Errno(number(MAX_ERRNO)?)),
            OciAction::ScmpActTrace => return Ok(Action::Trace(number(u32::from(u16::MAX))?)),
            OciAction::ScmpActKill | OciAction::ScmpActKillThread => Action::KillThread,
            OciAction::ScmpActKillProcess => Action::KillProcess,
            OciAction::ScmpActTrap => Action::Trap,
            OciAction::ScmpActNotify => Action::Notify,
            OciAction::ScmpActLog => Action::Log,
            OciAction::ScmpActAllow => Action::Allow,
        };
        match errno {
            None => Ok(action),
            // The specification demands an error here.
            Some(n) => Err(Error::invalid(format!("{field}: {n} is given, and {action:?} returns no errno"))),
        }
    }
}

/// A comparison of an argument, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Test {
    /// Differs from.
    Ne(u64),
    /// Is less than.
    Lt(u64),
    /// Is at most.
    Le(u64),
    /// Equals.
    Eq(u64),
    /// Is at least.
    Ge(u64),
    /// Is greater than.
    Gt(u64),
    /// Equals, in the bits that are set in the mask. A value with other bits never matches.
    MaskedEq {
        /// Which bits to look at.
        mask: u64,
        /// What they have to be.
        value: u64,
    },
}

/// A test of one argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub arg: u8,
    /// What it has to be. On 32-bit architectures both sides are cut to 32 bits, as libseccomp does.
    pub test: Test,
}

impl Condition {
    fn from_oci(arg: &LinuxSeccompArg, field: &str) -> Result<Condition> {
        let index = u8::try_from(arg.index()).ok().filter(|i| *i < 6);
        let index = index.ok_or_else(|| Error::invalid(format!("{field}.index: {} is more than 5", arg.index())))?;
        let v = arg.value();
        let test = match arg.op() {
            OciOp::ScmpCmpNe => Test::Ne(v),
            OciOp::ScmpCmpLt => Test::Lt(v),
            OciOp::ScmpCmpLe => Test::Le(v),
            OciOp::ScmpCmpEq => Test::Eq(v),
            OciOp::ScmpCmpGe => Test::Ge(v),
            OciOp::ScmpCmpGt => Test::Gt(v),
            OciOp::ScmpCmpMaskedEq => Test::MaskedEq { mask: v, value: arg.value_two().unwrap_or(0) },
        };
        Ok(Condition { arg: index, test })
    }
}

/// What to do with some calls if their arguments meet all conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Names of calls. One that an architecture does not have, or that is not known here, has no effect there.
    pub names: Vec<String>,
    /// What becomes of them.
    pub action: Action,
    /// Conditions, of which all must hold.
    pub when: Vec<Condition>,
}

/// Who decides about calls under [`Action::Notify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The socket to which the listening descriptor is sent.
    pub path: PathBuf,
    /// Passed on to it with the container's state.
    pub metadata: Option<String>,
}

/// A system call filter.
///
/// For one call, of the rules that name it: those whose action is the default action are as if absent. If a rule
/// without conditions is among the others, the first such rule decides, whatever conditional rules there are, before
/// or after it. Otherwise the first whose conditions hold decides, and failing that the default action. All this is
/// what libseccomp makes of a profile in the hands of runc, except that libseccomp leaves open which of several
/// conditional rules with different actions wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// For calls about which no rule says anything.
    pub default: Action,
    /// Which conventions may be used beside the native one, if the profile says. Calls by any other kill the thread.
    pub architectures: Option<BTreeSet<Arch>>,
    /// Rules, in order.
    pub rules: Vec<Rule>,
    /// Calls that nothing may refuse: for them, rules that refuse are as if absent, and so is a default that does.
    pub opened: BTreeSet<String>,
    /// Who receives notifications.
    pub listener: Option<Listener>,
    /// Have refusals logged (`SECCOMP_FILTER_FLAG_LOG`).
    pub log: bool,
    /// Leave speculative store bypass on (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`).
    pub spec_allow: bool,
    /// Only fatal signals interrupt a call that waits for a decision (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`).
    pub wait_killable: bool,
}

impl Profile {
    /// A filter of one action for everything.
    pub const fn new(default: Action) -> Profile {
        Profile {
            default,
            architectures: None,
            rules: Vec::new(),
            opened: BTreeSet::new(),
            listener: None,
            log: false,
            spec_allow: false,
            wait_killable: false,
        }
    }

    /// Whether any call is to be decided by a listener, so that the filter must be installed with one.
    pub fn needs_listener(&self) -> bool {
        self.default == Action::Notify || self.rules.iter().any(|r| r.action == Action::Notify)
    }

    /// The flags to install the filter with, as in seccomp(2), `SECCOMP_SET_MODE_FILTER`.
    ///
    /// `SECCOMP_FILTER_FLAG_NEW_LISTENER` is among them if [`Profile::needs_listener`]; without it the kernel refuses
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, which is then left out. `SECCOMP_FILTER_FLAG_TSYNC` never is, whatever
    /// the profile says: it is about the other threads of the process, and a container's first process has none.
    pub fn filter_flags(&self) -> u32 {
        let listens = self.needs_listener();
        [
            (self.log, libc::SECCOMP_FILTER_FLAG_LOG),
            (self.spec_allow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
            (listens, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
            (listens && self.wait_killable, libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
        ]
        .iter()
        .filter(|(set, _)| *set)
        .fold(0, |flags, (_, flag)| flags | *flag as u32)
    }
}

impl TryFrom<&LinuxSeccomp> for Profile {
    type Error = Error;

    fn try_from(oci: &LinuxSeccomp) -> Result<Profile> {
        let default = Action::from_oci(oci.default_action(), oci.default_errno_ret(), "linux.seccomp.defaultErrnoRet")?;
        let mut profile = Profile::new(default);
        if let Some(architectures) = oci.architectures().as_ref().filter(|a| !a.is_empty()) {
            profile.architectures = Some(architectures.iter().filter_map(|a| Arch::from_oci(*a)).collect());
        }
        for flag in oci.flags().iter().flatten() {
            match flag {
                OciFlag::SeccompFilterFlagTsync => {}
                OciFlag::SeccompFilterFlagLog => profile.log = true,
                OciFlag::SeccompFilterFlagSpecAllow => profile.spec_allow = true,
                OciFlag::SeccompFilterFlagWaitKillableRecv => profile.wait_killable = true,
            }
        }
        for (i, syscall) in oci.syscalls().iter().flatten().enumerate() {
            profile.rules.extend(rules(syscall, &format!("linux.seccomp.syscalls[{i}]"))?);
        }
        profile.listener = listener(oci)?;
        if default == Action::Notify {
            // The process that installs the filter could do nothing at all before the listener is in place.
            return Err(Error::invalid("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default"));
        }
        if profile.needs_listener() && profile.listener.is_none() {
            return Err(Error::invalid("linux.seccomp.listenerPath: SCMP_ACT_NOTIFY is used, and nobody listens"));
        }
        if profile.rules.iter().any(|r| r.action == Action::Notify && r.names.iter().any(|n| n == "sendmsg")) {
            return Err(Error::invalid(
                "linux.seccomp.syscalls: SCMP_ACT_NOTIFY for sendmsg, by which the listener is sent",
            ));
        }
        Ok(profile)
    }
}

fn listener(oci: &LinuxSeccomp) -> Result<Option<Listener>> {
    let metadata = oci.listener_metadata().clone().filter(|m| !m.is_empty());
    match oci.listener_path().clone().filter(|p| !p.as_os_str().is_empty()) {
        Some(path) if !path.is_absolute() => {
            Err(Error::invalid("linux.seccomp.listenerPath: the path must be absolute:").at(&path))
        }
        Some(path) => Ok(Some(Listener { path, metadata })),
        None if metadata.is_some() => {
            Err(Error::invalid("linux.seccomp.listenerMetadata: given without linux.seccomp.listenerPath"))
        }
        None => Ok(None),
    }
}

fn rules(syscall: &LinuxSyscall, field: &str) -> Result<Vec<Rule>> {
    let names = syscall.names();
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(Error::invalid(format!("{field}.names: empty")));
    }
    let action = Action::from_oci(syscall.action(), syscall.errno_ret(), &format!("{field}.errnoRet"))?;
    let args = syscall.args().iter().flatten().enumerate();
    let when = args.map(|(i, a)| Condition::from_oci(a, &format!("{field}.args[{i}]"))).collect::<Result<Vec<_>>>()?;
    let rule = |when| Rule { names: names.clone(), action, when };
    let distinct: BTreeSet<u8> = when.iter().map(|c| c.arg).collect();
    if distinct.len() == when.len() {
        return Ok(vec![rule(when)]);
    }
    // runc's way since its first profiles, which listed the permitted values of an argument like this: as soon as an
    // argument occurs twice, any one condition is enough.
    Ok(when.into_iter().map(|c| rule(vec![c])).collect())
}
