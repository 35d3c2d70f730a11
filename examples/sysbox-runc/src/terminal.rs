//! A container's terminal: handed to a console socket, or relayed to our own.

use nix::sys::socket::{recvmsg, socketpair, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType};
use nix::sys::termios::{cfmakeraw, tcgetattr, tcsetattr, SetArg, Termios};
use oci_spec::runtime as oci;
use std::io::{IoSliceMut, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use sysbox_core::error::SysResult;
use sysbox_core::{Error, Result};

/// The container's end of a console socket and, without one of the caller's, our end.
pub(crate) fn console(
    tty: bool,
    detach: bool,
    socket: Option<&Path>,
    connect: impl Fn(&Path) -> Result<OwnedFd>,
) -> Result<(Option<OwnedFd>, Option<Awaited>)> {
    match (tty, socket) {
        (false, None) => Ok((None, None)),
        (false, Some(_)) => Err(Error::invalid("--console-socket is given, but the process has no terminal")),
        (true, Some(path)) => Ok((Some(connect(path)?), None)),
        (true, None) if detach => Err(Error::invalid("a detached process with a terminal needs --console-socket")),
        (true, None) => {
            let (ours, theirs) =
                socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).op("socketpair")?;
            Ok((Some(theirs), Some(Awaited(ours))))
        }
    }
}

/// The size of our terminal, if we have one, as process.consoleSize has it.
pub(crate) fn size() -> Option<oci::Box> {
    let (rows, cols) = sysbox_core::terminal_size(std::io::stdin().as_fd()).ok().filter(is_size)?;
    oci::BoxBuilder::default().height(u64::from(rows)).width(u64::from(cols)).build().ok()
}

/// One of a serial line may be unknown, which says nothing.
fn is_size((rows, cols): &(u16, u16)) -> bool {
    *rows > 0 && *cols > 0
}

/// Where the container's terminal is to come from.
#[derive(Debug)]
pub(crate) struct Awaited(OwnedFd);

impl Awaited {
    /// Takes the terminal's master, and gives it the size of our terminal.
    pub(crate) fn open(self) -> Result<Relay> {
        let mut byte = [0u8; 64];
        let mut iov = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let msg = recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .op("receive the terminal")?;
        let raw = msg.cmsgs().op("receive the terminal")?.find_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        let raw = raw.ok_or_else(|| Error::invalid("the container sent no terminal"))?;
        let master = sysbox_core::dup_number(raw).op("dup the terminal")?;
        nix::unistd::close(raw).op("close")?;
        let mut relay = Relay { sources: vec![master], saved: None };
        relay.sources.extend(sysbox_core::dup_number(0));
        relay.resize();
        Ok(relay)
    }
}

/// Copies between the container's terminal and our standard streams.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The master, then our standard input while it is open.
    sources: Vec<OwnedFd>,
    saved: Option<Termios>,
}

impl Relay {
    /// Puts our terminal into raw mode, until the relay goes: what is typed is the container's from here on.
    pub(crate) fn raw(mut self) -> Result<Self> {
        if let Some(stdin) = self.sources.get(1).filter(|s| s.is_terminal()) {
            let saved = tcgetattr(stdin).op("tcgetattr")?;
            let mut raw = saved.clone();
            cfmakeraw(&mut raw);
            tcsetattr(stdin, SetArg::TCSANOW, &raw).op("tcsetattr")?;
            self.saved = Some(saved);
        }
        Ok(self)
    }

    pub(crate) fn sources(&self) -> &[OwnedFd] {
        &self.sources
    }

    /// Gives the container's terminal the size of ours.
    pub(crate) fn resize(&self) {
        if let (Some(master), Some(stdin)) = (self.sources.first(), self.sources.get(1)) {
            if sysbox_core::terminal_size(stdin.as_fd()).is_ok_and(|size| is_size(&size)) {
                let _ = sysbox_core::copy_terminal_size(stdin.as_fd(), master.as_fd());
            }
        }
    }

    /// Copies what is ready; `ready` goes with [`Relay::sources`].
    pub(crate) fn relay(&mut self, ready: &[bool]) {
        if ready.first() == Some(&true) && !self.output() {
            self.sources.clear();
            return;
        }
        if ready.get(1) == Some(&true) && !self.input() {
            self.sources.truncate(1);
        }
    }

    /// What is left when the program has ended.
    pub(crate) fn drain(&mut self) {
        use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
        loop {
            let Some(master) = self.sources.first() else { return };
            let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0) || !self.output() {
                return;
            }
        }
    }

    fn output(&self) -> bool {
        let mut buf = [0u8; 8192];
        match self.sources.first().map(|m| nix::unistd::read(m, &mut buf)) {
            Some(Ok(n)) if n > 0 => std::io::Write::write_all(&mut std::io::stdout().lock(), &buf[..n])
                .and_then(|()| std::io::Write::flush(&mut std::io::stdout().lock()))
                .is_ok(),
            Some(Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR)) => true,
            // EIO: the last slave is closed.
            _ => false,
        }
    }

    fn input(&self) -> bool {
        let mut buf = [0u8; 8192];
        let (Some(master), Some(stdin)) = (self.sources.first(), self.sources.get(1)) else { return false };
        match nix::unistd::read(stdin, &mut buf) {
            Ok(n) if n > 0 => {
                let mut rest = &buf[..n];
                while !rest.is_empty() {
                    match nix::unistd::write(master, rest) {
                        Ok(n) => rest = &rest[n..],
                        Err(_) => return false,
                    }
                }
                true
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => true,
            _ => {
                // End of input: what a terminal says for it.
                let _ = nix::unistd::write(master, &[4]);
                false
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, saved);
        }
    }
}
