//! Programs inside a container: where they are found and how they are described.

use std::path::{Path, PathBuf};

/// Searched where the environment has no PATH.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A failed look-up, in runc's words, which Docker turns into exit status 127 or 126.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LookupError {
    NotFound(String),
    NotExecutable(String),
}

/// Finds `name` as execvp(3) would. `probe` says what a path is: `None` absent, `Some(false)` present but not executable.
pub(crate) fn look_up(
    name: &str,
    path: &str,
    cwd: &Path,
    probe: impl Fn(&Path) -> Option<bool>,
) -> Result<PathBuf, LookupError> {
    if name.contains('/') {
        let full = cwd.join(name);
        return match probe(&full) {
            Some(true) => Ok(full),
            Some(false) => Err(LookupError::NotExecutable(format!("exec: {name:?}: permission denied"))),
            None => Err(LookupError::NotFound(format!("exec: {name:?}: stat {name}: no such file or directory"))),
        };
    }
    let mut denied = false;
    for dir in path.split(':') {
        let full = cwd.join(dir).join(name);
        match probe(&full) {
            Some(true) if !name.is_empty() => return Ok(full),
            Some(false) => denied = true,
            _ => {}
        }
    }
    Err(if denied && !name.is_empty() {
        LookupError::NotExecutable(format!("exec: {name:?}: permission denied"))
    } else {
        LookupError::NotFound(format!("exec: {name:?}: executable file not found in $PATH"))
    })
}

/// The home directory of `uid` in a passwd(5) file.
pub(crate) fn home_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|l| {
        let f: Vec<&str> = l.split(':').collect();
        (f.len() >= 6 && f[2].parse() == Ok(uid) && !f[5].is_empty()).then(|| f[5])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_up_speaks_as_runc_does() {
        let probe = |p: &Path| match p.to_str().unwrap() {
            "/bin/sh" => Some(true),
            "/bin/data" | "/usr/bin/sh" => Some(false),
            _ => None,
        };
        let find = |n: &str| look_up(n, "/usr/bin:/bin", Path::new("/"), probe);
        assert_eq!(find("sh"), Ok("/bin/sh".into()));
        assert_eq!(find("bin/sh"), Ok("/bin/sh".into()));
        assert_eq!(find("data"), Err(LookupError::NotExecutable("exec: \"data\": permission denied".into())));
        assert_eq!(find("x"), Err(LookupError::NotFound("exec: \"x\": executable file not found in $PATH".into())));
        assert_eq!(find("/x"), Err(LookupError::NotFound("exec: \"/x\": stat /x: no such file or directory".into())));
        assert!(find("").is_err());
    }

    #[test]
    fn home_is_read_from_passwd() {
        let p = "root:x:0:0:root:/root:/bin/sh\nbroken\nu:x:1000:1000::/home/u:/bin/sh\nn:x:5:5:::\n";
        assert_eq!(home_in(p, 0), Some("/root"));
        assert_eq!(home_in(p, 1000), Some("/home/u"));
        assert_eq!(home_in(p, 5), None);
        assert_eq!(home_in(p, 7), None);
    }
}
