//! The agent that decides about system calls under `SCMP_ACT_NOTIFY`.
//!
//! It gets the filter's listener, and who is under the filter: the container process state of the runtime specification
//! (config-linux.md). From then on it and the kernel have the calls between them; nobody of ours is needed.

use crate::error::{Error, Kind, Result, SysResult};
use crate::plan::Process;
use crate::state::OciState;
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};
use serde::Serialize;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// A connection to the agent, and what it will be told.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) socket: OwnedFd,
    message: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a OciState,
}

impl Agent {
    /// `None` if the process's filter asks for none. `pid` is the process's own, as the host numbers it.
    pub(super) fn new(p: &Process, socket: Option<OwnedFd>, pid: i32, state: &OciState) -> Result<Option<Self>> {
        let Some(listener) = p.seccomp.as_ref().and_then(|f| f.listener.as_ref()) else { return Ok(None) };
        let socket = socket.ok_or_else(|| Error::new(Kind::Protocol, "no connection to the seccomp agent"))?;
        let metadata = listener.metadata.as_deref();
        let told = ProcessState { oci_version: &state.oci_version, fds: ["seccompFd"], pid, metadata, state };
        let message = serde_json::to_vec(&told).map_err(|e| Error::new(Kind::Protocol, format!("encode: {e}")))?;
        Ok(Some(Agent { socket, message }))
    }

    /// One call, since the filter holds already: the plan sees to it that sendmsg(2) is not the agent's to decide.
    pub(super) fn hand_over(self, listener: &OwnedFd) -> Result<()> {
        let raw = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&raw)];
        let iov = [IoSlice::new(&self.message)];
        let sent = sendmsg::<()>(self.socket.as_raw_fd(), &iov, &rights, MsgFlags::MSG_NOSIGNAL, None)
            .op("send the listener to the seccomp agent")?;
        if sent != self.message.len() {
            return Err(Error::new(Kind::System, "the seccomp agent takes only a part of the container's state"));
        }
        Ok(())
    }
}

/// The pid of this process as that procfs numbers it.
pub(super) fn own_pid(proc: impl std::os::fd::AsFd) -> Result<i32> {
    let link = rustix::fs::readlinkat(proc, "self", Vec::new()).op_at("read the link", "/proc/self")?;
    let pid = link.to_str().ok().and_then(|s| s.parse().ok());
    pid.ok_or_else(|| Error::new(Kind::Protocol, "not a number:").at(Path::new("/proc/self")))
}
