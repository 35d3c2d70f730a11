//! Gives the library its soname, and the stage program to carry: the file that SYSBOX_STAGE names (the Makefile builds it first).
//! Without it the library needs a path at run time. Builds nothing.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-env-changed=SYSBOX_STAGE");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    // While the version is 0.x, every minor one may change the interface.
    let minor = version.rsplit_once('.').map_or(version.as_str(), |(minor, _)| minor);
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsysbox.so.{minor}");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("stage");
    let program = match env::var_os("SYSBOX_STAGE").filter(|p| !p.is_empty()) {
        None => Vec::new(),
        Some(path) => {
            println!("cargo:rerun-if-changed={}", path.to_string_lossy());
            let program = fs::read(&path).unwrap_or_else(|e| panic!("SYSBOX_STAGE={}: {e}", path.to_string_lossy()));
            check(&program).unwrap_or_else(|why| panic!("SYSBOX_STAGE={}: {why}", path.to_string_lossy()));
            program
        }
    };
    fs::write(&out, program).unwrap_or_else(|e| panic!("write {}: {e}", out.display()));
}

/// It runs where there are no libraries: it must be an ELF program without an interpreter.
fn check(program: &[u8]) -> Result<(), &'static str> {
    const PT_INTERP: u32 = 3;
    let word = |at: usize, size: usize| -> Option<u64> {
        let bytes = program.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    };
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("not a 64-bit little-endian ELF program");
    }
    let header = || Some((word(32, 8)? as usize, word(54, 2)? as usize, word(56, 2)? as usize));
    let (start, size, count) = header().ok_or("the ELF header is cut short")?;
    let kind = |i: usize| word(start.checked_add(i.checked_mul(size)?)?, 4);
    if (0..count).any(|i| kind(i) == Some(u64::from(PT_INTERP))) {
        return Err("not a static program: build it with RUSTFLAGS=-Ctarget-feature=+crt-static");
    }
    Ok(())
}
