//! state, list, ps.

use crate::args::Format;
use crate::documents::say;
use crate::log::rfc3339;
use serde_json::json;
use std::process::Command;
use sysbox_core::error::SysResult;
use sysbox_core::{Container, Error, Kind, Result, Runtime};

fn document(c: &Container) -> serde_json::Value {
    let s = c.state();
    let status = if c.damage().is_some() { "damaged".into() } else { s.status.to_string() };
    let created = c.created().map_or_else(String::new, |ns| rfc3339((ns / 1_000_000_000) as i64));
    json!({
        "ociVersion": s.oci_version, "id": s.id, "pid": s.pid.unwrap_or(0), "status": status,
        "bundle": s.bundle, "rootfs": c.rootfs(), "created": created, "annotations": s.annotations, "owner": "root",
    })
}

fn print_json(v: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(v).map_err(|e| Error::new(Kind::System, format!("encode: {e}")))?;
    say(&format!("{text}\n")).map(drop)
}

pub(crate) fn state(runtime: &Runtime, id: &str) -> Result<u8> {
    let container = runtime.open(id)?;
    match container.damage() {
        Some(damage) => Err(damage.clone()),
        None => print_json(&document(&container)).map(|()| 0),
    }
}

pub(crate) fn list(runtime: &Runtime, format: Format, quiet: bool) -> Result<u8> {
    // One that is deleted meanwhile is no error.
    let all: Vec<Container> = runtime.list()?.iter().filter_map(|id| runtime.open(id).ok()).collect();
    if quiet {
        return say(&all.iter().map(|c| format!("{}\n", c.id())).collect::<String>());
    }
    let docs: Vec<_> = all.iter().map(document).collect();
    if format == Format::Json {
        let text = serde_json::to_string(&docs).map_err(|e| Error::new(Kind::System, format!("encode: {e}")))?;
        return say(&format!("{text}\n"));
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    for d in &docs {
        let text = |k: &str| d[k].as_str().map_or_else(|| d[k].to_string(), String::from);
        rows.push([text("id"), text("pid"), text("status"), text("bundle"), text("created"), text("owner")]);
    }
    let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |r: &[String; 6]| {
        let cells: Vec<String> = r.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    say(&rows.iter().map(line).collect::<String>())
}

pub(crate) fn ps(runtime: &Runtime, id: &str, format: Format, args: &[String]) -> Result<u8> {
    let pids = runtime.open(id)?.processes()?;
    if format == Format::Json {
        return say(&format!("{}\n", json!(pids)));
    }
    let args: Vec<&str> = if args.is_empty() { vec!["-ef"] } else { args.iter().map(String::as_str).collect() };
    let out = Command::new("ps").args(&args).output().op("run ps")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|h| h == "PID").ok_or_else(|| {
        Error::invalid(format!("ps {args:?} prints no column PID: {}", String::from_utf8_lossy(&out.stderr).trim()))
    })?;
    let mut table = format!("{header}\n");
    for l in lines {
        let pid = l.split_whitespace().nth(column).and_then(|p| p.parse().ok());
        if pid.is_some_and(|p: i32| pids.contains(&p)) {
            table.push_str(l);
            table.push('\n');
        }
    }
    say(&table)
}
