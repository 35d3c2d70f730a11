//! What the library has to say while it works: to a function of the caller's, if it gives one.

use crate::boundary::{self, Failure};
use crate::error::{c_text, Error};
use crate::status::Status;
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::fmt::{Debug, Write};
use std::sync::{OnceLock, RwLock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Something went wrong.
pub const SYSBOX_LOG_ERROR: i32 = 1;
/// Something is not as it should be, and the library goes on.
pub const SYSBOX_LOG_WARN: i32 = 2;
/// What is done.
pub const SYSBOX_LOG_INFO: i32 = 3;
/// Why it is done so: among others, all that a configuration was changed by.
pub const SYSBOX_LOG_DEBUG: i32 = 4;
/// Everything.
pub const SYSBOX_LOG_TRACE: i32 = 5;

/// Takes a message. `target` is the part of the library that it comes from; `message` is text without a newline at its end. Both are
/// UTF-8 and valid during the call only. Comes from any thread that is in a function of the library, and from several at a time. It
/// must not call the library, and must return: no longjmp, no exception.
pub type LogCallback =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, target: *const c_char, message: *const c_char)>;

/// Who listens.
struct Listener {
    callback: unsafe extern "C" fn(*mut c_void, i32, *const c_char, *const c_char),
    user: *mut c_void,
    level: Level,
}

// SAFETY: `user` is only handed back, and the caller has promised that any thread may do so.
unsafe impl Send for Listener {}
// SAFETY: as above.
unsafe impl Sync for Listener {}

static LISTENER: RwLock<Option<Listener>> = RwLock::new(None);

thread_local! {
    /// This thread is in the callback.
    static SPEAKING: Cell<bool> = const { Cell::new(false) };
}

/// Has `callback` called with messages of `level` (`SYSBOX_LOG_*`) and of more important ones, instead of what was called before.
/// NULL: nothing is called any more, which is how the library begins. `user` is handed to it.
///
/// When this returns, the previous callback is not running and will not be called again. Concerns the whole process: it is the only
/// thing in this library that does.
#[no_mangle]
pub unsafe extern "C" fn sysbox_log_set(
    level: i32,
    callback: LogCallback,
    user: *mut c_void,
    err: *mut *mut Error,
) -> Status {
    let body = || {
        let level = match level {
            SYSBOX_LOG_ERROR => Level::ERROR,
            SYSBOX_LOG_WARN => Level::WARN,
            SYSBOX_LOG_INFO => Level::INFO,
            SYSBOX_LOG_DEBUG => Level::DEBUG,
            SYSBOX_LOG_TRACE => Level::TRACE,
            _ if callback.is_none() => Level::ERROR,
            n => return Err(Failure::argument(format!("there is no log level {n}"))),
        };
        if SPEAKING.get() {
            return Err(Failure::argument("sysbox_log_set was called by the log callback"));
        }
        if callback.is_some() {
            static INSTALLED: OnceLock<bool> = OnceLock::new();
            // Of this library alone, which no other in the process shares its copy of tracing with.
            let ours = || tracing::subscriber::set_global_default(Forward).is_ok();
            if !*INSTALLED.get_or_init(ours) {
                let what = "another subscriber of tracing is installed in this program";
                return Err(sysbox_core::Error::new(sysbox_core::Kind::Exists, what).into());
            }
        }
        let mut listener = LISTENER.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *listener = callback.map(|callback| Listener { callback, user, level });
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}

/// Hands events of `tracing` to the listener.
struct Forward;

impl Subscriber for Forward {
    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        meta.is_event()
    }

    // Which of them somebody wants to hear changes while the program runs.
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        if meta.is_event() {
            tracing::subscriber::Interest::sometimes()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn event(&self, event: &Event<'_>) {
        // A callback that calls the library all the same must not wait for itself.
        if SPEAKING.get() {
            return;
        }
        let listener = LISTENER.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(l) = listener.as_ref().filter(|l| *event.metadata().level() <= l.level) else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            Level::ERROR => SYSBOX_LOG_ERROR,
            Level::WARN => SYSBOX_LOG_WARN,
            Level::INFO => SYSBOX_LOG_INFO,
            Level::DEBUG => SYSBOX_LOG_DEBUG,
            Level::TRACE => SYSBOX_LOG_TRACE,
        };
        let (target, message) = (c_text(event.metadata().target().as_bytes()), c_text(text.whole().as_bytes()));
        SPEAKING.set(true);
        // SAFETY: the caller has given it for this, and the lock keeps it from being replaced meanwhile.
        unsafe { (l.callback)(l.user, level, target.as_ptr(), message.as_ptr()) };
        SPEAKING.set(false);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The message, and behind it what else the event has.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn whole(self) -> String {
        self.message + &self.fields
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let _ = write!(self.fields, " {}={value}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
