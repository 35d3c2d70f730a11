//! `sysbox_context_t`: where containers are made and found.

use crate::boundary::{self, document_of, maybe_path_of, path_of, text_of, Failure, Handle, Out, Outcome};
use crate::buffer::Buf;
use crate::carried;
use crate::error::Error;
use crate::options::{self, ContextOptions, SYSBOX_CGROUP_DIRECT, SYSBOX_CGROUP_SYSTEMD};
use crate::status::Status;
use serde_json::json;
use std::ffi::c_char;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use sysbox_core::cgroup::Manager;
use sysbox_core::idmap::pool::{Pool, SubidConfig, DEFAULT_DIR};
use sysbox_core::runtime::StageProgram;
use sysbox_core::{Runtime, Spec};

/// A state directory with its containers, and how new ones are made. Never changes; any number of threads may use it at a time, and
/// any number of contexts, in any processes, may be on one state directory. Containers do not need the context that they come
/// from: it may be freed before them.
#[derive(Debug)]
pub struct Context {
    poisoned: AtomicBool,
    pub(crate) runtime: Runtime,
    subid: SubidConfig,
}

impl Handle for Context {
    const NAME: &'static str = "context";
    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

impl Context {
    pub(crate) fn pool(&self) -> sysbox_core::Result<Pool> {
        Pool::open(Path::new(DEFAULT_DIR), self.subid.clone())
    }
}

/// Makes a context. Touches nothing but, if the stage program is carried in the library, a memory file that holds a copy of it: one
/// descriptor, close-on-exec, for as long as the context or a container that comes from it lives.
///
/// @param options NULL: all defaults
/// @param[out] context the new handle, to be freed with `sysbox_context_free`
/// @return `SYSBOX_ERR_UNSUPPORTED` if the library carries no stage program and no path is given, or the host lets no copy of it be
/// executed
#[no_mangle]
pub unsafe extern "C" fn sysbox_context_new(
    options: *const ContextOptions,
    context: *mut *mut Context,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = || unsafe {
        let out = Out::new(context, "context")?;
        let o = options::read(options)?;
        let mut subid = SubidConfig::default();
        if !o.subid_user.is_null() {
            subid.user = text_of(o.subid_user, "subid_user")?.into();
        }
        let file = |p, name, default: PathBuf| Ok::<_, Failure>(maybe_path_of(p, name)?.map_or(default, Into::into));
        subid.subuid = file(o.subuid_file, "subuid_file", subid.subuid)?;
        subid.subgid = file(o.subgid_file, "subgid_file", subid.subgid)?;
        if o.subid_size != 0 {
            subid.size = o.subid_size;
        }
        let cgroups = match o.cgroup_manager {
            SYSBOX_CGROUP_DIRECT => Manager::Direct,
            SYSBOX_CGROUP_SYSTEMD => Manager::Systemd,
            n => return Err(Failure::argument(format!("there is no cgroup manager {n}"))),
        };
        let state_dir = maybe_path_of(o.state_dir, "state_dir")?.unwrap_or(Path::new("/run/sysbox"));
        let stage = match maybe_path_of(o.stage_path, "stage_path")? {
            Some(path) => StageProgram::Path(path.into()),
            None => carried::program()?,
        };
        let runtime = Runtime::new(state_dir).stage(stage).subids(subid.clone()).cgroups(cgroups);
        out.give(Context { poisoned: AtomicBool::new(false), runtime, subid });
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}

/// Frees a context. Nothing happens to the containers. NULL is fine.
#[no_mangle]
pub unsafe extern "C" fn sysbox_context_free(context: *mut Context) {
    // SAFETY: by the rules of the header.
    unsafe { boundary::free(context) }
}

/// Tries what containers need of this host, which takes some milliseconds. Leaves nothing behind.
///
/// @param[out] json an object: "fit" (true if containers can be made) and "probes", an array of objects with "name", "verdict"
/// ("works", "limited" or "missing"), "detail", and, unless it works, "cost": what it means for containers
#[no_mangle]
pub unsafe extern "C" fn sysbox_context_check_host(
    context: *const Context,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let out = Out::new(json, "json")?;
        let probes = c.runtime.check_host()?;
        let fit = probes.iter().all(|p| p.verdict != sysbox_core::host::probe::Verdict::Missing);
        out.json(&json!({ "fit": fit, "probes": probes }));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// Lists the containers of the state directory, half-made and ended ones too.
///
/// @param[out] json an array of objects as `sysbox_container_state` gives, sorted by "id"
#[no_mangle]
pub unsafe extern "C" fn sysbox_context_list(
    context: *const Context,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let out = Out::new(json, "json")?;
        // One that is deleted meanwhile is no error.
        let all = c.runtime.list()?.into_iter().filter_map(|id| c.runtime.open(&id).ok());
        out.json(&all.map(|c| c.describe()).collect());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// A configuration: a document, or the config.json in the bundle.
pub(crate) unsafe fn spec_of<'a>(config: *const u8, size: usize, bundle: *const c_char) -> Outcome<(Spec, &'a Path)> {
    // SAFETY: by the rules of the header.
    unsafe {
        let bundle = maybe_path_of(bundle, "bundle")?;
        if config.is_null() && size == 0 {
            let Some(bundle) = bundle else {
                return Err(Failure::argument("neither config nor bundle is given"));
            };
            return Ok((Spec::from_bundle(bundle)?, bundle));
        }
        let spec = Spec::from_json(document_of(config, size, "config")?)?;
        Ok((spec, bundle.unwrap_or(Path::new("/"))))
    }
}

/// The plan of a container, as `sysbox_container_create` would carry it out just now: all that would be done, in order. Changes
/// nothing.
///
/// @param id, config, config_size, bundle as for `sysbox_container_create`
/// @param[out] json an object. Its fields are those of this version of the library
#[no_mangle]
pub unsafe extern "C" fn sysbox_context_plan(
    context: *const Context,
    id: *const c_char,
    config: *const u8,
    config_size: usize,
    bundle: *const c_char,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let out = Out::new(json, "json")?;
        let (spec, bundle) = spec_of(config, config_size, bundle)?;
        let plan = c.runtime.plan(text_of(id, "id")?, &spec, bundle)?;
        out.json(&json!(plan));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// As `sysbox_context_plan`, for people.
///
/// @param[out] text several lines
#[no_mangle]
pub unsafe extern "C" fn sysbox_context_plan_text(
    context: *const Context,
    id: *const c_char,
    config: *const u8,
    config_size: usize,
    bundle: *const c_char,
    text: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let out = Out::new(text, "text")?;
        let (spec, bundle) = spec_of(config, config_size, bundle)?;
        out.text(c.runtime.plan(text_of(id, "id")?, &spec, bundle)?.to_string());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// Writes a configuration for a container: a config.json with all that a system container needs, to change and to give to
/// `sysbox_container_create`. Looks at nothing.
///
/// @param rootfs directory of the root file system; must be UTF-8
/// @param[out] json the document; `process.args` is ["/sbin/init"]
#[no_mangle]
pub unsafe extern "C" fn sysbox_config_new(rootfs: *const c_char, json: *mut *mut Buf, err: *mut *mut Error) -> Status {
    // SAFETY: by the rules of the header.
    let body = || unsafe {
        let out = Out::new(json, "json")?;
        path_of(rootfs, "rootfs")?;
        out.json(&sysbox_core::SystemContainer::new(text_of(rootfs, "rootfs")?).to_json());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}
