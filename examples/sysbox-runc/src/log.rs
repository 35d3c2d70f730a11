//! Where error messages go: standard error, and the file that `--log` names, in runc's formats.

use nix::sys::time::TimeValLike;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    json: bool,
}

impl Log {
    pub(crate) fn new(path: Option<PathBuf>, json: bool) -> Self {
        Log { path, json }
    }

    /// Where a command line that makes no sense as a whole asks for messages: engines look nowhere else.
    pub(crate) fn asked_for(args: impl Iterator<Item = OsString>) -> Self {
        let (mut log, mut args) = (Log::new(None, false), args.take_while(|a| a != "--"));
        while let Some(arg) = args.next() {
            let bytes = arg.as_bytes();
            let (name, value) = match bytes.iter().position(|b| *b == b'=') {
                Some(i) => (&bytes[..i], Some(OsStr::from_bytes(&bytes[i + 1..]).to_owned())),
                None => (bytes, None),
            };
            match name {
                b"--log" => log.path = value.or_else(|| args.next()).map(PathBuf::from),
                b"--log-format" => log.json = value.or_else(|| args.next()).is_some_and(|v| v == "json"),
                _ => {}
            }
        }
        log
    }

    pub(crate) fn error(&self, message: &str) {
        eprintln!("sysbox-runc: {message}");
        self.record(message);
    }

    /// To the file only.
    pub(crate) fn record(&self, message: &str) {
        let Some(path) = &self.path else { return };
        let line = if self.json {
            serde_json::json!({ "level": "error", "msg": message, "time": now() }).to_string()
        } else {
            format!("time={:?} level=error msg={message:?}", now())
        };
        // A log that cannot be written has nowhere to say so, and the message is on standard error already.
        if let Ok(mut f) = std::fs::OpenOptions::new().append(true).create(true).open(path) {
            let _ = writeln!(f, "{line}");
        }
    }
}

fn now() -> String {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).map_or(0, |t| t.num_seconds());
    rfc3339(now)
}

/// Seconds since 1970 as a date in UTC.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Days since 0000-03-01, in eras of 400 years: leap days are then at the ends of years.
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(super::rfc3339(1_767_225_599), "2025-12-31T23:59:59Z");
    }
}
