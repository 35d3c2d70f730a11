//! nodes: a container's own files in /proc and /sys.

use crate::args::Format;
use crate::documents::say;
use serde_json::json;
use sysbox_core::container::MonitorStatus;
use sysbox_core::procfs::{NodeState, Origin};
use sysbox_core::{Result, Runtime};

pub(crate) fn nodes(runtime: &Runtime, id: &str, format: Format, repair: bool) -> Result<u8> {
    let container = runtime.open(id)?;
    if repair {
        container.restart_monitor()?;
    }
    let monitor = match container.monitor() {
        MonitorStatus::None => "none".into(),
        MonitorStatus::Serves(pid) => format!("serves (pid {pid})"),
        MonitorStatus::Stuck(pid) => format!("stuck (pid {pid}): try --repair"),
        MonitorStatus::Dead => "dead: try --repair".into(),
    };
    let states = container.nodes()?;
    if format == Format::Json {
        let rows: Vec<_> = states.iter().map(NodeState::describe).collect();
        return say(&format!("{}\n", json!({ "monitor": monitor, "nodes": rows })));
    }
    let mut rows = vec![["PATH", "KIND", "NOW", "VALUE", "NOTE"].map(String::from)];
    rows.extend(states.iter().filter(|s| s.origin != Origin::Absent).map(row));
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = format!("monitor: {monitor}\n");
    for r in &rows {
        let cells: Vec<String> = r.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    say(&text)
}

fn row(s: &NodeState) -> [String; 5] {
    let path = s.node.path.display().to_string();
    [path, s.node.kind.name().into(), s.origin.name().into(), value(s), s.node.note.clone()]
}

/// One line, and not a long one.
fn value(s: &NodeState) -> String {
    const LONGEST: usize = 40;
    let Some(value) = &s.value else { return "-".into() };
    let mut lines = value.lines();
    let first: String = lines.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let more = lines.next().is_some() || first.chars().count() > LONGEST;
    // The container's own words, for somebody's terminal.
    let mut text: String = first
        .chars()
        .take(LONGEST)
        .flat_map(|c| if c.is_control() { c.escape_debug().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    if more {
        text += " ...";
    }
    if !s.node.value.accepts(value) {
        text += " (the kernel would not take it)";
    }
    text
}
