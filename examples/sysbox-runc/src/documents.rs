//! spec, features, plan.

use std::io::Write;
use std::path::Path;
use sysbox_core::error::SysResult;
use sysbox_core::{Error, Kind, Result, Runtime, Spec, SystemContainer};

fn pretty(v: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(v).map_err(|e| Error::new(Kind::System, format!("encode: {e}")))
}

/// Prints. A reader that has had enough is no failure.
pub(crate) fn say(text: &str) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).op("write to standard output"),
        _ => Ok(0),
    }
}

pub(crate) fn spec(bundle: &Path) -> Result<u8> {
    let path = bundle.join("config.json");
    let doc = SystemContainer::new("rootfs").args(["sh"]).hostname("sysbox").terminal(true).to_json();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .op_at("create", &path)
        .map_err(|e| if e.errno() == Some(17) { e.kinded(Kind::Exists).hint("remove it first") } else { e })?;
    writeln!(file, "{}", pretty(&doc)?).op_at("write", &path)?;
    Ok(0)
}

pub(crate) fn features() -> Result<u8> {
    say(&format!("{}\n", pretty(&sysbox_core::features())?))
}

pub(crate) fn plan(runtime: &Runtime, bundle: &Path, id: &str, json: bool) -> Result<u8> {
    let bundle = bundle.canonicalize().op_at("bundle", bundle)?;
    let plan = runtime.plan(id, &Spec::from_bundle(&bundle)?, &bundle)?;
    say(&if json { format!("{}\n", pretty(&plan)?) } else { plan.to_string() })
}
