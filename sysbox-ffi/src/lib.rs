//! The C interface of sysbox-core. The documentation for its users is the header that is made from this: include/sysbox.h.
//!
//! No logic of its own: each export checks its arguments, calls the Rust library once, and turns what comes back into C. What C must
//! keep to ("the rules of the header") is in cbindgen.toml, at the top of the header.
#![allow(unsafe_code)]
// What the caller owes is said once, for C readers, at the top of the header.
#![allow(clippy::missing_safety_doc)]
// Public is what C sees, and the generator of the header.
#![allow(unreachable_pub)]

mod boundary;
mod buffer;
mod cancel;
mod carried;
mod child;
mod container;
mod context;
mod error;
mod events;
mod idmap;
mod limit;
mod log;
mod mount;
mod nodes;
mod options;
mod status;
mod streams;
mod subid;
mod version;
