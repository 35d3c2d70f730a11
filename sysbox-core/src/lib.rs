//! System containers: containers that run Docker, systemd or Kubernetes inside, as root inside and as nobody outside.
//!
//! ```no_run
//! use sysbox_core::{CreateOptions, Runtime, SystemContainer};
//!
//! fn main() -> sysbox_core::Result<()> {
//!     // Lets this program serve as its own stage; returns at once otherwise.
//!     sysbox_core::stage::dispatch();
//!     let runtime = Runtime::new("/run/my-tool");
//!     let spec = SystemContainer::new("/srv/debian").args(["/bin/sh", "-c", "id; cat /proc/self/uid_map"]).spec()?;
//!     let mut container = runtime.create("job-1", &spec, std::path::Path::new("/"), CreateOptions::default())?;
//!     container.start()?;
//!     let exit = container.wait()?;
//!     container.delete(true)?;
//!     std::process::exit(exit.code());
//! }
//! ```
//!
//! # What it does to your process
//! Nothing that lasts: no signal handlers, no change of directory, umask, environment or namespaces, no threads, no logger.
//! Every container operation starts the short-lived stage program ([`runtime::StageProgram`]) and talks to it over one socket. A container's init is a
//! child of the process that called [`Runtime::create`]; who reaps all children takes its exit status, which
//! [`Container::wait`] then asks the kernel for (Linux 6.15).
//!
//! # Errors
//! Every [`Error`] has the operation, the path, the errno, the process it happened in, a chain of causes and, where there is
//! one, a cure. [`Error::kind`] is for programs to decide on.
//!
//! # Needs
//! Root on the host (all capabilities) and Linux 5.12; supported from 6.1. What a kernel lacks beyond that is found by trying:
//! [`host::probe`] says what and what it costs. Calls may block; none needs an async runtime, and all may be made from any thread.
#![warn(missing_docs)]

pub mod cgroup;
pub mod container;
pub mod error;
pub(crate) mod exclusive;
mod features;
pub mod fuse;
pub mod host;
pub mod idmap;
pub(crate) mod inner_data;
mod limit;
pub(crate) mod lock;
mod monitor;
pub mod mount;
pub(crate) mod mountinfo;
pub mod namespace;
pub mod overlay;
pub mod plan;
mod process;
pub mod procfs;
mod protocol;
pub mod runtime;
pub mod seccomp;
pub mod spec;
pub mod stage;
pub mod state;
pub(crate) mod sys;

pub use container::{Child, Container, ExecOptions};
pub use error::{Error, Kind, Result};
pub use features::features;
pub use limit::Limit;
pub use protocol::VERSION as BUILD;
pub use runtime::{CreateOptions, Runtime, Stdio};
pub use spec::{Spec, SystemContainer};
pub use state::Status;
pub use sys::fd::dup_number;
pub use sys::pidfd::Exit;
pub use sys::pty::{copy_terminal_size, terminal_size};
