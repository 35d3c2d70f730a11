//! Waits for a program in the foreground: signals go to it, its terminal is relayed.

use crate::terminal::Relay;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;
use sysbox_core::error::SysResult;
use sysbox_core::{Error, Result};

/// All signals, taken as messages instead of interrupting.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    pub(crate) fn block() -> Result<Self> {
        let all = SigSet::all();
        all.thread_block().op("block signals")?;
        SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Signals).op("signalfd")
    }
}

/// Returns when the program has ended and its terminal has nothing more to say.
pub(crate) fn watch(
    signals: &Signals,
    program: BorrowedFd<'_>,
    mut terminal: Option<Relay>,
    kill: impl Fn(i32) -> Result<()>,
) -> Result<()> {
    loop {
        let mut fds = vec![PollFd::new(program, PollFlags::POLLIN), PollFd::new(signals.0.as_fd(), PollFlags::POLLIN)];
        let relayed = terminal.as_ref().map_or(&[][..], Relay::sources);
        fds.extend(relayed.iter().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            r => r.op("poll")?,
        };
        let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(false)).collect();
        while let Ok(Some(info)) = signals.0.read_signal() {
            let number = info.ssi_signo as i32;
            match Signal::try_from(number) {
                // Our own children: the stage, and the program itself, whose end the descriptor tells.
                Ok(Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG) => {}
                Ok(Signal::SIGWINCH) if terminal.is_some() => {
                    if let Some(t) = &terminal {
                        t.resize();
                    }
                }
                // It may have just ended.
                _ => {
                    let _ = kill(number);
                }
            }
        }
        if let Some(t) = &mut terminal {
            t.relay(&ready[2..]);
        }
        if ready[0] {
            if let Some(t) = &mut terminal {
                t.drain();
            }
            return Ok(());
        }
    }
}

/// `9`, `KILL` or `SIGKILL`.
pub(crate) fn parse_signal(s: &str) -> Result<i32> {
    if let Ok(n) = s.parse::<i32>() {
        if (1..=64).contains(&n) {
            return Ok(n);
        }
    }
    let upper = s.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if let Some(n) = name.strip_prefix("SIGRTMIN+").and_then(|n| n.parse::<i32>().ok()).filter(|n| (0..=30).contains(n))
    {
        return Ok(34 + n);
    }
    Signal::from_str(&name).map(|s| s as i32).map_err(|_| Error::invalid(format!("unknown signal {s:?}")))
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_by_any_name() {
        for (s, n) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", 37), ("SIGRTMIN+3", 37), ("64", 64)] {
            assert_eq!(parse_signal(s).unwrap(), n);
        }
        for s in ["0", "65", "-1", "", "NOPE", "RTMIN+99"] {
            assert!(parse_signal(s).is_err(), "{s}");
        }
    }
}
