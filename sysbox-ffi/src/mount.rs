//! User namespaces and ID-mapped mounts, on their own.

use crate::boundary::{self, handle_at, path_of, Failure, Out};
use crate::context::Context;
use crate::error::Error;
use crate::idmap::Idmap;
use crate::options::{self, MountOptions};
use crate::status::Status;
use std::ffi::c_char;
use std::os::fd::{AsFd, IntoRawFd};
use sysbox_core::idmap::Maps;
use sysbox_core::{dup_number, mount};

/// Makes a user namespace with these maps, in which there is no process. It lives as long as something refers to it, such as the
/// descriptor, or a mount that was mapped by it. This process stays where it is.
///
/// @param uid the map of user IDs
/// @param gid the map of group IDs
/// @param[out] userns_fd a new descriptor, close-on-exec, that the caller closes
#[no_mangle]
pub unsafe extern "C" fn sysbox_userns_new(
    context: *const Context,
    uid: *const Idmap,
    gid: *const Idmap,
    userns_fd: *mut i32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let out = Out::new(userns_fd, "userns_fd")?;
        let maps = Maps { uid: handle_at(uid)?.map.clone(), gid: handle_at(gid)?.map.clone() };
        out.set(c.runtime.user_namespace(&maps)?.into_raw_fd());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// Makes a mount of a directory or file in which IDs on disk appear as those that they are mapped to by a user namespace: 0 as the
/// host's ID of its root. It is attached nowhere: move_mount(2) with MOVE_MOUNT_F_EMPTY_PATH does that, and openat(2) works in it as
/// it is. It goes with its last descriptor, unless it was attached. Needs Linux 5.12 and a file system that supports it.
///
/// @param path what to mount
/// @param userns_fd a user namespace, not the initial one: from `sysbox_userns_new`, or /proc/PID/ns/user of a container's init
/// @param options NULL: all defaults
/// @param[out] mount_fd a new descriptor, close-on-exec, that the caller closes
#[no_mangle]
pub unsafe extern "C" fn sysbox_mount_idmapped(
    path: *const c_char,
    userns_fd: i32,
    options: *const MountOptions,
    mount_fd: *mut i32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = || unsafe {
        let out = Out::new(mount_fd, "mount_fd")?;
        let o = options::read(options)?;
        if o.reserved != 0 {
            return Err(Failure::argument("reserved is not 0"));
        }
        let Some(attributes) = mount::Attrs::from_bits(o.attributes) else {
            return Err(Failure::argument(format!("attributes {:#x} are not all known", o.attributes)));
        };
        let bad = |e| Failure::argument(format!("userns_fd: descriptor {userns_fd}: {e}"));
        let userns = dup_number(userns_fd).map_err(bad)?;
        let mount = mount::idmapped(path_of(path, "path")?, userns.as_fd(), attributes, o.recursive != 0)?;
        out.set(mount.into_raw_fd());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}
