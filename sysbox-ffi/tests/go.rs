//! The Go package and the example over it, against the library as it is installed: vet, race detector, static linking.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{has, make, ok, on_path, output, repository};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The oldest Go that the package can be built with.
const GO: (u32, u32) = (1, 24);

/// Where the library is installed.
struct Go {
    prefix: PathBuf,
    /// Go does not notice that a header outside of its own packages has changed.
    flags: String,
}

impl Go {
    fn new() -> Go {
        // The same directory every time: what depends on it stays built.
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
        make("ffi-test", "install-lib", &[&format!("PREFIX={}", prefix.display()), "LDCONFIG=true"]);
        let mut header = DefaultHasher::new();
        std::fs::read(prefix.join("include/sysbox.h")).unwrap().hash(&mut header);
        Go { prefix, flags: format!("-O2 -g -DSYSBOX_HEADER={}", header.finish()) }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, module: &str) -> Command {
        let mut c = Command::new(program);
        c.current_dir(repository().join(module))
            .env("PKG_CONFIG_PATH", self.prefix.join("lib/pkgconfig"))
            .env("LD_LIBRARY_PATH", self.prefix.join("lib"))
            .env("CGO_ENABLED", "1")
            .env("CGO_CFLAGS", &self.flags)
            .env("GOFLAGS", "-buildvcs=false")
            // Nothing is fetched.
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local");
        c
    }

    fn run(&self, module: &str, arguments: &[&str]) {
        passed(self.command("go", module).args(arguments));
    }
}

/// Runs tests, and says which of them were skipped.
fn passed(tests: &mut Command) {
    let out = output(tests, Duration::from_secs(600));
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    for skipped in said.lines().filter(|l| l.starts_with("SKIP ")) {
        eprintln!("{skipped}");
    }
    // What is wrong comes first: the whole is long.
    let wrong = |l: &&str| {
        ["--- FAIL", "FAIL", "panic:", "WARNING: "].iter().any(|w| l.trim_start().starts_with(w))
            || l.contains("_test.go:")
    };
    let wrong: Vec<&str> = said.lines().filter(wrong).collect();
    assert!(out.status.success(), "{tests:?}: {}\n{}\n\n{said}", out.status, wrong.join("\n"));
}

fn too_old() -> Option<String> {
    let said = ok(Command::new("go").arg("version").env("GOTOOLCHAIN", "local"));
    let number = said.split_whitespace().find_map(|w| w.strip_prefix("go1")?.strip_prefix('.')).unwrap_or_default();
    let minor: u32 = number.split(|c: char| !c.is_ascii_digit()).next()?.parse().unwrap_or(0);
    ((1, minor) < GO).then(|| {
        format!(
            "needs go {}.{} or later on the PATH, as from https://go.dev/dl, and this is {}",
            GO.0,
            GO.1,
            said.trim()
        )
    })
}

#[test]
fn the_go_package_and_its_example() {
    let name = "the_go_package_and_its_example";
    if !["cc", "pkg-config", "make"].iter().all(|program| has(name, program)) {
        return;
    }
    // Debian bookworm has none that is new enough.
    if !on_path("go") {
        return eprintln!("SKIP {name}: needs go {}.{} or later on the PATH, as from https://go.dev/dl", GO.0, GO.1);
    }
    if let Some(why) = too_old() {
        eprintln!("SKIP {name}: {why}");
        return;
    }
    let go = Go::new();
    let test = ["test", "-race", "-v", "-count=1", "-timeout=500s", "./..."];
    for module in ["bindings/go", "examples/go/jobrunner"] {
        let unformatted = ok(Command::new("gofmt").args(["-l", "."]).current_dir(repository().join(module)));
        assert_eq!(unformatted, "", "gofmt -l in {module}");
        go.run(module, &["vet", "./..."]);
        go.run(module, &test);
    }

    let program = go.prefix.join("static.test");
    let program = program.to_str().unwrap();
    go.run("bindings/go", &["test", "-c", "-tags", "sysbox_static", "-o", program, "."]);
    let dynamic = ok(Command::new("readelf").args(["-d", program]));
    assert!(dynamic.contains("libc.so") && !dynamic.contains("libsysbox"), "{dynamic}");
    passed(
        go.command(program, "bindings/go").args(["-test.v", "-test.run=^(TestVersions|TestLife|TestExec|TestLogger)$"]),
    );
}
