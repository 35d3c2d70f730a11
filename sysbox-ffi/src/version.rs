//! What this library is.

use crate::boundary::guarded;
use crate::carried;
use crate::error::c_text;
use serde_json::json;
use std::ffi::{c_char, CString};
use std::sync::OnceLock;

/// Of the header. A library whose `sysbox_abi_version()` is another number must not be used with it.
pub const SYSBOX_ABI_VERSION: u32 = 1;

/// The library's version, as in "0.1.0". Static.
#[no_mangle]
pub extern "C" fn sysbox_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The number of the interface: the `SYSBOX_ABI_VERSION` of the header that belongs to the library. It changes when something that
/// exists changes or goes away, not when something is added.
#[no_mangle]
pub extern "C" fn sysbox_abi_version() -> u32 {
    SYSBOX_ABI_VERSION
}

/// What this build of the library can do, as a JSON object: "version", "abi", "build" (which a stage program must have too), "stage"
/// ("carried", or "none" if a path to it must be given), and what an OCI runtime says of itself ("ociVersionMin", "ociVersionMax",
/// "linux"). More may come. Says nothing about the host. Static, UTF-8.
#[no_mangle]
pub extern "C" fn sysbox_features_json() -> *const c_char {
    static TEXT: OnceLock<CString> = OnceLock::new();
    let features = || {
        let mut doc = sysbox_core::features();
        doc["version"] = json!(env!("CARGO_PKG_VERSION"));
        doc["abi"] = json!(SYSBOX_ABI_VERSION);
        doc["build"] = json!(sysbox_core::BUILD);
        doc["stage"] = json!(if carried::PROGRAM.is_empty() { "none" } else { "carried" });
        c_text(doc.to_string().as_bytes())
    };
    let text = guarded(|| TEXT.get_or_init(features).as_ptr());
    text.unwrap_or(c"{}".as_ptr())
}
