//! Stopping and continuing a whole container.

use super::file::{keyed, read, write};
use super::layout::Version;
use super::paths::{Node, Paths};
use crate::error::{Error, Kind, Result};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long freezing may take: a task in an uninterruptible wait holds it up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Paths {
    /// Stops every process of the container, and returns once they have stopped.
    ///
    /// v1 `freezer.state` (cgroup-v1/freezer-subsystem.rst), else v2 `cgroup.freeze` (cgroup-v2.rst, "Core Interface Files").
    ///
    /// # Errors
    /// [`Kind::Busy`] if that takes more than ten seconds; the container is thawed again then.
    pub fn freeze(&self) -> Result<()> {
        let node = self.freezer()?;
        let end = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(50);
        for round in 0u32.. {
            match node.version {
                // v1 can get stuck with a task that was forking: writing again looks for stragglers, a short thaw lets
                // them finish.
                Version::V1 => {
                    let state = node.dir.join("freezer.state");
                    if round % 50 == 49 {
                        write(&state, "THAWED")?;
                        sleep(Duration::from_millis(1));
                    }
                    write(&state, "FROZEN")?;
                }
                Version::V2 if round == 0 => write(&node.dir.join("cgroup.freeze"), "1")?,
                Version::V2 => {}
            }
            if frozen(node)? {
                return Ok(());
            }
            if Instant::now() > end {
                break;
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        self.thaw()?;
        Err(Error::new(Kind::Busy, "freeze the container: some process does not stop").at(&node.dir))
    }

    /// Continues what [`Paths::freeze`] has stopped. A running container is left alone.
    ///
    /// # Errors
    /// There is no freezer, or the node is gone.
    pub fn thaw(&self) -> Result<()> {
        let node = self.freezer()?;
        match node.version {
            Version::V1 => write(&node.dir.join("freezer.state"), "THAWED"),
            Version::V2 => write(&node.dir.join("cgroup.freeze"), "0"),
        }
    }

    /// Whether the container is stopped, by us or by anyone above.
    ///
    /// # Errors
    /// There is no freezer, or the node is gone.
    pub fn is_frozen(&self) -> Result<bool> {
        frozen(self.freezer()?)
    }

    fn freezer(&self) -> Result<&Node> {
        let v1 = self.nodes.iter().find(|n| n.version == Version::V1 && n.has("freezer"));
        v1.or_else(|| self.unified()).ok_or_else(|| {
            Error::new(Kind::Unsupported, "pausing needs the cgroup controller \"freezer\" or cgroup v2")
        })
    }
}

fn frozen(node: &Node) -> Result<bool> {
    Ok(match node.version {
        Version::V1 => read(&node.dir.join("freezer.state"))?.trim() == "FROZEN",
        Version::V2 => keyed(&read(&node.dir.join("cgroup.events"))?, "frozen") == Some(1),
    })
}
