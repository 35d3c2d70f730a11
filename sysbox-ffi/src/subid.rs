//! The pool of subordinate IDs, on its own.

use crate::boundary::{self, path_of, Out};
use crate::buffer::Buf;
use crate::context::Context;
use crate::error::Error;
use crate::idmap::Idmap;
use crate::status::Status;
use serde_json::json;
use std::ffi::c_char;
use sysbox_core::idmap::pool::Owner;

/// Takes a range of IDs from the host's pool that nobody else has, of the size that the context says: as a container gets them.
///
/// @param owner a directory that exists for as long as the range is used; it is what the range belongs to. Who has one gets the
/// same again
/// @param[out] uid the map of user IDs, a new handle
/// @param[out] gid the map of group IDs, a new handle
/// @return `SYSBOX_ERR_EXHAUSTED` if there is no room
#[no_mangle]
pub unsafe extern "C" fn sysbox_subid_allocate(
    context: *const Context,
    owner: *const c_char,
    uid: *mut *mut Idmap,
    gid: *mut *mut Idmap,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let (uid, gid) = (Out::new(uid, "uid")?, Out::new(gid, "gid")?);
        let maps = c.pool()?.allocate(&Owner::of(path_of(owner, "owner")?)?)?;
        uid.give(Idmap::new(maps.uid));
        gid.give(Idmap::new(maps.gid));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// Gives a range back. That the owner has none is no failure. A range whose owner's directory is gone comes back by itself.
///
/// @param owner the directory
#[no_mangle]
pub unsafe extern "C" fn sysbox_subid_release(
    context: *const Context,
    owner: *const c_char,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe { Ok(c.pool()?.release(&Owner::of(path_of(owner, "owner")?)?)?) };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// All ranges of the host that are taken, containers' and others'.
///
/// @param[out] json an array of objects with "owner" (its "state_dir", "dev" and "ino"), "maps" ("uid" and "gid", each an array of
/// objects with "inside", "outside" and "count"), and "exclusive": false if a configuration has brought the maps
#[no_mangle]
pub unsafe extern "C" fn sysbox_subid_list(
    context: *const Context,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let out = Out::new(json, "json")?;
        out.json(&json!(c.pool()?.list()?));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}
