//! The stage program inside the library.

use crate::boundary::Outcome;
use sysbox_core::runtime::StageProgram;
use sysbox_core::{Error, Kind};

/// Empty if the library was built without it: see build.rs.
pub(crate) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stage"));

pub(crate) fn program() -> Outcome<StageProgram> {
    if PROGRAM.is_empty() {
        let what = "this build of the library carries no stage program, and no path to one is given";
        let hint = "set stage_path to a sysbox-stage of the same build, or build the library with make lib";
        return Err(Error::new(Kind::Unsupported, what).hint(hint).into());
    }
    Ok(StageProgram::sealed(PROGRAM)?)
}
