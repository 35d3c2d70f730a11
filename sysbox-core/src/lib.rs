//! System containers: containers that run Docker, systemd or Kubernetes inside, as root inside and as nobody outside.
#![warn(missing_docs)]

pub mod cgroup;
pub mod error;
pub mod mount;
pub(crate) mod sys;
pub mod idmap;
pub mod seccomp;
pub mod sys;

pub use error::{Error, Kind, Result};
