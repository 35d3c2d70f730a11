//! One error type for the whole library, whole across processes.
//!
//! An [`Error`] says what was being done, to which path, with which errno, in which process, and what to do about it.
//! It is plain data: the stage and a container's init serialize theirs, and the caller gets them unchanged.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Result of a library call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is; for programs to decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kind {
    /// The configuration is malformed or contradicts itself.
    InvalidConfig,
    /// The configuration asks for something that would break isolation.
    Refused,
    /// There is no container (or file, or user) of that name.
    NotFound,
    /// A container of that name exists already.
    Exists,
    /// The container is not in a state that allows this.
    WrongState,
    /// What is known of the container cannot be read; it can only be deleted.
    Damaged,
    /// The host lacks something that is needed.
    Unsupported,
    /// A pool is empty (subordinate IDs).
    Exhausted,
    /// Someone else is using it, or an operation did not end in time.
    Busy,
    /// The program to run does not exist in the container.
    ProgramNotFound,
    /// The program to run exists and cannot be executed.
    ProgramNotExecutable,
    /// A system call failed.
    System,
    /// The other process spoke nonsense or died.
    Protocol,
    /// The stage program is of another build than the library.
    OtherBuild,
    /// The time given for it was over ([`crate::Limit`]).
    TimedOut,
    /// The caller has called it off ([`crate::Limit`]).
    Canceled,
}

/// In which process it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Stage {
    /// The process that called the library.
    Caller,
    /// The privileged short-lived helper.
    Stage,
    /// The container's first process, before it executes the user's program.
    Init,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Inner {
    kind: Kind,
    stage: Option<Stage>,
    op: String,
    path: Option<PathBuf>,
    errno: Option<i32>,
    hint: Option<String>,
    source: Option<Error>,
}

/// What went wrong; see the module documentation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Error(Box<Inner>);

impl Error {
    /// An error that no system call reported; `what` is a phrase like `parse uid_map line "0 0"`.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, stage: None, op: what.into(), path: None, errno: None, hint: None, source: None }))
    }

    /// Shorthand for [`Kind::InvalidConfig`].
    pub fn invalid(what: impl Into<String>) -> Self {
        Error::new(Kind::InvalidConfig, what)
    }

    /// A failed system call; `op` names it or what it was for.
    pub fn sys(op: impl Into<String>, errno: i32) -> Self {
        let mut e = Error::new(Kind::System, op);
        e.0.errno = Some(errno);
        e
    }

    /// The path that the failed operation was applied to.
    #[must_use]
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_owned());
        self
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Replaces the kind.
    #[must_use]
    pub fn kinded(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Wraps: `self` becomes the cause of "could not `op`".
    #[must_use]
    pub fn within(self, op: impl Into<String>) -> Self {
        let mut e = Error::new(self.0.kind, op);
        e.0.source = Some(self);
        e
    }

    /// Records the process, unless an inner process has done so.
    #[must_use]
    pub fn in_stage(mut self, stage: Stage) -> Self {
        let mut e = &mut self;
        while e.0.source.is_some() {
            match e.0.source.as_mut() {
                Some(s) => e = s,
                None => break,
            }
        }
        e.0.stage.get_or_insert(stage);
        self
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The process in which the root cause happened.
    pub fn stage(&self) -> Stage {
        self.root().0.stage.unwrap_or(Stage::Caller)
    }

    /// The outermost operation that failed.
    pub fn operation(&self) -> &str {
        &self.0.op
    }

    /// The path of the root cause, if one was involved.
    pub fn path(&self) -> Option<&Path> {
        self.root().0.path.as_deref()
    }

    /// The errno of the root cause, if a system call failed.
    pub fn errno(&self) -> Option<i32> {
        self.root().0.errno
    }

    /// What to do about it, if the library knows.
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref().or_else(|| self.0.source.as_ref().and_then(Error::advice))
    }

    fn root(&self) -> &Error {
        let mut e = self;
        while let Some(s) = &e.0.source {
            e = s;
        }
        e
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.op)?;
        if let Some(p) = &self.0.path {
            write!(f, " {}", p.display())?;
        }
        if let Some(n) = self.0.errno {
            write!(f, ": {}", describe_errno(n))?;
        }
        if let Some(s) = &self.0.source {
            write!(f, ": {s}")?;
        }
        if let Some(h) = &self.0.hint {
            write!(f, " ({h})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}/{:?}] {self}", self.kind(), self.stage())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

fn describe_errno(n: i32) -> String {
    // The words of runc and crun, whose callers match on them, are lower case and without "(os error N)".
    let s = std::io::Error::from_raw_os_error(n).to_string();
    let s = s.rsplit_once(" (os error").map_or(s.as_str(), |(a, _)| a).to_owned();
    let mut c = s.chars();
    match c.next() {
        Some(first) => first.to_lowercase().collect::<String>() + c.as_str(),
        None => s,
    }
}

/// Anything that carries an errno.
pub trait Errno {
    /// The number, or `EIO` where the error has none.
    fn errno(&self) -> i32;
}

impl Errno for std::io::Error {
    fn errno(&self) -> i32 {
        self.raw_os_error().unwrap_or(libc::EIO)
    }
}

impl Errno for nix::errno::Errno {
    fn errno(&self) -> i32 {
        *self as i32
    }
}

impl Errno for rustix::io::Errno {
    fn errno(&self) -> i32 {
        self.raw_os_error()
    }
}

/// Turns the error of a system call into an [`Error`].
pub trait SysResult<T> {
    /// `op` names what was being done.
    ///
    /// # Errors
    /// The original error, named.
    fn op(self, op: impl Into<String>) -> Result<T>;
    /// As [`SysResult::op`], with the path it was done to.
    ///
    /// # Errors
    /// The original error, named.
    fn op_at(self, op: impl Into<String>, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Errno> SysResult<T> for std::result::Result<T, E> {
    fn op(self, op: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::sys(op, e.errno()))
    }
    fn op_at(self, op: impl Into<String>, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::sys(op, e.errno()).at(path))
    }
}

/// Adds a level to the cause chain.
pub trait Within<T> {
    /// See [`Error::within`].
    ///
    /// # Errors
    /// The original error, wrapped.
    fn within(self, op: impl Into<String>) -> Result<T>;
}

impl<T> Within<T> for Result<T> {
    fn within(self, op: impl Into<String>) -> Result<T> {
        self.map_err(|e| e.within(op))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crosses_processes_whole() {
        let e = Error::sys("mount", libc::EPERM)
            .at("/x")
            .in_stage(Stage::Init)
            .within("attach /dev/pts")
            .in_stage(Stage::Caller)
            .hint("do y");
        let back: Error = serde_json::from_str(&serde_json::to_string(&e).unwrap()).unwrap();
        assert_eq!(back, e);
        assert_eq!(back.to_string(), "attach /dev/pts: mount /x: operation not permitted (do y)");
        assert_eq!(back.stage(), Stage::Init);
        assert_eq!(back.errno(), Some(libc::EPERM));
        assert_eq!(back.path(), Some(Path::new("/x")));
        assert_eq!(back.advice(), Some("do y"));
    }
}
