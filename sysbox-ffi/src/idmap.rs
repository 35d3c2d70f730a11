//! `sysbox_idmap_t`: user and group ID maps, on their own.

use crate::boundary::{self, slice_of, text_of, Handle, Out};
use crate::buffer::Buf;
use crate::error::Error;
use crate::status::Status;
use std::ffi::c_char;
use std::sync::atomic::AtomicBool;
use sysbox_core::idmap::{IdMap, Range, MAX_RANGES};
use sysbox_core::Kind;

/// A map that the kernel accepts as /proc/PID/uid_map or gid_map. Never changes; any thread may read it.
#[derive(Debug)]
pub struct Idmap {
    poisoned: AtomicBool,
    pub(crate) map: IdMap,
}

impl Handle for Idmap {
    const NAME: &'static str = "map";
    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

impl Idmap {
    pub(crate) fn new(map: IdMap) -> Self {
        Idmap { poisoned: AtomicBool::new(false), map }
    }
}

/// Consecutive IDs and what they are outside: one line of /proc/PID/uid_map.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct IdRange {
    /// First ID in the user namespace.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Makes a map.
///
/// @param ranges in any order. Copied
/// @param count how many: 1 to 340
/// @param[out] map the new handle, to be freed with `sysbox_idmap_free`
/// @return `SYSBOX_ERR_INVALID_CONFIG` if the kernel would not take it
#[no_mangle]
pub unsafe extern "C" fn sysbox_idmap_new(
    ranges: *const IdRange,
    count: usize,
    map: *mut *mut Idmap,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = || unsafe {
        let out = Out::new(map, "map")?;
        let range = |r: &IdRange| Range { inside: r.inside, outside: r.outside, count: r.count };
        let ranges = slice_of(ranges, count, MAX_RANGES, "ranges")?.iter().map(range).collect();
        out.give(Idmap::new(IdMap::new(ranges)?));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}

/// Reads a map from text as /proc/PID/uid_map has it.
///
/// @param[out] map the new handle, to be freed with `sysbox_idmap_free`
/// @return `SYSBOX_ERR_INVALID_CONFIG` if the kernel would not take it
#[no_mangle]
pub unsafe extern "C" fn sysbox_idmap_parse(text: *const c_char, map: *mut *mut Idmap, err: *mut *mut Error) -> Status {
    // SAFETY: by the rules of the header.
    let body = || unsafe {
        let out = Out::new(map, "map")?;
        out.give(Idmap::new(IdMap::parse(text_of(text, "text")?)?));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}

/// The text of a map, to be written to /proc/PID/uid_map in one write: sorted, adjoining ranges joined.
///
/// @param[out] text a line a range
#[no_mangle]
pub unsafe extern "C" fn sysbox_idmap_text(map: *const Idmap, text: *mut *mut Buf, err: *mut *mut Error) -> Status {
    // SAFETY: by the rules of the header.
    let body = |m: &Idmap| unsafe {
        Out::new(text, "text")?.text(m.map.to_string());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(map, err, body) }
}

/// What an ID of the user namespace is outside.
///
/// @param[out] outside the ID
/// @return `SYSBOX_ERR_NOT_FOUND` if it is not mapped
#[no_mangle]
pub unsafe extern "C" fn sysbox_idmap_to_outside(
    map: *const Idmap,
    inside: u32,
    outside: *mut u32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |m: &Idmap| unsafe {
        let out = Out::new(outside, "outside")?;
        out.set(m.map.to_outside(inside).ok_or_else(|| unmapped(inside))?);
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(map, err, body) }
}

/// What an ID from outside is in the user namespace.
///
/// @param[out] inside the ID
/// @return `SYSBOX_ERR_NOT_FOUND` if it is not mapped
#[no_mangle]
pub unsafe extern "C" fn sysbox_idmap_to_inside(
    map: *const Idmap,
    outside: u32,
    inside: *mut u32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |m: &Idmap| unsafe {
        let out = Out::new(inside, "inside")?;
        out.set(m.map.to_inside(outside).ok_or_else(|| unmapped(outside))?);
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(map, err, body) }
}

fn unmapped(id: u32) -> sysbox_core::Error {
    sysbox_core::Error::new(Kind::NotFound, format!("ID {id} is not mapped"))
}

/// Frees a map. NULL is fine.
#[no_mangle]
pub unsafe extern "C" fn sysbox_idmap_free(map: *mut Idmap) {
    // SAFETY: by the rules of the header.
    unsafe { boundary::free(map) }
}
