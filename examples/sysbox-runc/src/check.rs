//! check: what this host offers, in words.

use crate::documents::say;
use sysbox_core::host::probe::{probe, Verdict};
use sysbox_core::Result;

/// Exit status 0: fit; 1: something needed is missing.
pub(crate) fn check() -> Result<u8> {
    let (mut fit, mut text) = (true, String::new());
    for p in probe() {
        let mark = match p.verdict {
            Verdict::Works => "ok     ",
            Verdict::Limited => "limited",
            Verdict::Missing => {
                fit = false;
                "MISSING"
            }
        };
        text += &format!("{mark}  {:<26} {}\n", p.name, p.detail);
        if let Some(cost) = p.cost {
            text += &format!("         {:<26} {cost}\n", "");
        }
    }
    text += if fit { "This host can run system containers.\n" } else { "This host cannot run system containers.\n" };
    say(&text)?;
    Ok(u8::from(!fit))
}
