//! When a call that blocks is to give up.

use crate::error::{Error, Kind, Result, SysResult};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a call that blocks gives up: at a time, or when a descriptor becomes readable, whichever comes first; or never.
///
/// A call that gave up fails with [`Kind::TimedOut`] or [`Kind::Canceled`], and may take moments more to clean up.
#[derive(Debug, Clone, Default)]
pub struct Limit {
    deadline: Option<Instant>,
    cancel: Option<Arc<OwnedFd>>,
}

impl Limit {
    /// Never.
    pub fn none() -> Self {
        Limit::default()
    }

    /// At that time.
    #[must_use]
    pub fn at(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// When the descriptor becomes readable, and for as long as it is: an eventfd that somebody writes to, the end of a pipe that
    /// somebody closes. It is never read from.
    #[must_use]
    pub fn or_when(mut self, readable: Arc<OwnedFd>) -> Self {
        self.cancel = Some(readable);
        self
    }

    /// After so long from now.
    pub(crate) fn after(time: Duration) -> Self {
        Limit { deadline: Instant::now().checked_add(time), cancel: None }
    }

    /// At the latest after so long from now.
    pub(crate) fn at_most(mut self, time: Duration) -> Self {
        let end = Instant::now().checked_add(time);
        self.deadline = self.deadline.into_iter().chain(end).min();
        self
    }

    /// Fails if it is over.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(cancel) = &self.cancel {
            let mut fds = [PollFd::new(&**cancel, PollFlags::IN)];
            if wait(&mut fds, Some(Duration::ZERO))? {
                return Err(Error::new(Kind::Canceled, "canceled"));
            }
        }
        if self.deadline.is_some_and(|d| d <= Instant::now()) {
            return Err(Error::new(Kind::TimedOut, "the time given for it is over"));
        }
        Ok(())
    }

    /// Waits until `fd` can be read, or its other end is closed. What can be read at once, can, even if it is over.
    pub(crate) fn wait_readable(&self, fd: BorrowedFd<'_>) -> Result<()> {
        while !self.look(fd, PollFlags::IN, None)? {}
        Ok(())
    }

    /// Waits until `fd` can be written to, or its other end is closed.
    pub(crate) fn wait_writable(&self, fd: BorrowedFd<'_>) -> Result<()> {
        while !self.look(fd, PollFlags::OUT, None)? {}
        Ok(())
    }

    /// Waits until `fd` is hung up on, for so long at most: a pidfd is when its process was reaped (Linux 6.9).
    pub(crate) fn wait_hang_up(&self, fd: BorrowedFd<'_>, turn: Duration) -> Result<()> {
        self.look(fd, PollFlags::empty(), Some(turn)).map(drop)
    }

    /// Whether `fd` is ready, after waiting for it once, for so long at most.
    fn look(&self, fd: BorrowedFd<'_>, flags: PollFlags, turn: Option<Duration>) -> Result<bool> {
        let left = self.deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let mut fds = vec![PollFd::from_borrowed_fd(fd, flags)];
        fds.extend(self.cancel.as_deref().map(|c| PollFd::new(c, PollFlags::IN)));
        wait(&mut fds, left.into_iter().chain(turn).min())?;
        if !fds[0].revents().is_empty() {
            return Ok(true);
        }
        self.check().map(|()| false)
    }
}

/// False after `time`.
fn wait(fds: &mut [PollFd<'_>], time: Option<Duration>) -> Result<bool> {
    let time = time.and_then(|t| Timespec::try_from(t).ok());
    match poll(fds, time.as_ref()) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        r => r.op("poll").map(|n| n > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn whichever_comes_first() {
        let (a, b) = UnixStream::pair().unwrap();
        let (cancel, trigger) = UnixStream::pair().unwrap();
        let limit = Limit::none().or_when(Arc::new(cancel.into()));
        let late = limit.clone().at(Instant::now() + Duration::from_millis(20));
        limit.check().unwrap();
        assert_eq!(late.wait_readable(a.as_fd()).unwrap_err().kind(), Kind::TimedOut);
        drop(trigger);
        assert_eq!(limit.wait_readable(a.as_fd()).unwrap_err().kind(), Kind::Canceled);
        assert_eq!(limit.check().unwrap_err().kind(), Kind::Canceled);
        drop(b);
        limit.wait_readable(a.as_fd()).unwrap();
        Limit::none().check().unwrap();
    }
}
