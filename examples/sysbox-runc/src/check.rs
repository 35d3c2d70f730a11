//! check: what this host offers, in words.

use sysbox_core::host::probe::{probe, Verdict};
use sysbox_core::Result;

/// Exit status 0: fit; 1: something needed is missing.
pub(crate) fn check() -> Result<u8> {
    let mut fit = true;
    for p in probe() {
        let mark = match p.verdict {
            Verdict::Works => "ok     ",
            Verdict::Limited => "limited",
            Verdict::Missing => {
                fit = false;
                "MISSING"
            }
        };
        println!("{mark}  {:<26} {}", p.name, p.detail);
        if let Some(cost) = p.cost {
            println!("         {:<26} {cost}", "");
        }
    }
    println!(
        "{}",
        if fit { "This host can run system containers." } else { "This host cannot run system containers." }
    );
    Ok(u8::from(!fit))
}
