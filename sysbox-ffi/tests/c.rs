//! C programs against the library: the header, the example, hostile arguments under sanitizers, the installed files.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{compile, has, library, make, ok, output, repository, Lab};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

#[test]
fn the_header_is_plain_c_and_cpp() {
    let dir = tempfile::tempdir().unwrap();
    for (compiler, standard) in [("cc", "c99"), ("cc", "c11"), ("c++", "c++17")] {
        let program = dir.path().join(standard);
        let mut cc = Command::new(compiler);
        cc.args(["-Wall", "-Wextra", "-Werror", "-pedantic", &format!("-std={standard}"), "-I"]);
        cc.arg(repository().join("include"));
        cc.args(if compiler == "c++" { &["-x", "c++"][..] } else { &[] }).arg(source("header.c")).args(["-x", "none"]);
        ok(cc
            .arg("-o")
            .arg(&program)
            .arg(library().join("libsysbox.so"))
            .arg(format!("-Wl,-rpath,{}", library().display())));
        ok(&mut Command::new(program));
    }
}

fn exported() -> BTreeSet<String> {
    let symbols = ok(Command::new("nm").args(["-D", "--defined-only"]).arg(library().join("libsysbox.so")));
    symbols.lines().map(|l| l.split_whitespace().last().unwrap().to_owned()).collect()
}

#[test]
fn exports_are_those_of_the_list_and_of_the_header() {
    let list = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports.txt")).unwrap();
    let list: BTreeSet<String> = list.lines().map(str::to_owned).collect();
    assert_eq!(exported(), list, "sysbox-ffi/tests/exports.txt is the list of what the library exports");
    assert!(list.iter().all(|s| s.starts_with("sysbox_")));
    let header = std::fs::read_to_string(repository().join("include/sysbox.h")).unwrap();
    for symbol in &list {
        assert!(header.contains(&format!("{symbol}(")), "{symbol} is not in the header");
    }
    let version = format!("#define SYSBOX_VERSION \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(header.contains(&version), "no {version}");
    let [major, minor, patch]: [&str; 3] = env!("CARGO_PKG_VERSION").split('.').collect::<Vec<_>>().try_into().unwrap();
    for (name, number) in [("MAJOR", major), ("MINOR", minor), ("PATCH", patch)] {
        assert!(header.contains(&format!("#define SYSBOX_VERSION_{name} {number}\n")), "{name}");
    }
}

/// Runs the program with hostile arguments.
fn hostile(test: &str, flags: &[&str], wrapper: &[&str], arguments: &[&str]) {
    let Some(lab) = Lab::new(test, "busybox") else { return };
    let program = lab.path("hostile");
    compile(&source("hostile.c"), &program, library(), flags);
    let mut words = wrapper.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
    let mut run = Command::new(words.next().unwrap());
    run.args(words).arg(lab.state()).arg(lab.path("tree")).args(arguments);
    assert!(ok(&mut run).contains("0 failures"));
    lab.assert_nothing_left(test);
}

#[test]
fn hostile_arguments_give_a_status() {
    hostile("hostile_arguments_give_a_status", &[], &[], &[]);
    // Each export is in it.
    let text = std::fs::read_to_string(source("hostile.c")).unwrap();
    for symbol in exported() {
        assert!(text.contains(&format!("{symbol}(")), "hostile.c lacks {symbol}");
    }
}

const SANITIZERS: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// False, with the reason said, where the compiler has none.
fn has_sanitizers(test: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.c");
    std::fs::write(&empty, "int main(void) { return 0; }\n").unwrap();
    let mut cc = Command::new("cc");
    let tried = cc.args(SANITIZERS).arg(&empty).arg("-o").arg(dir.path().join("empty")).output().unwrap();
    if !tried.status.success() {
        eprintln!("SKIP {test}: the compiler has no sanitizers");
    }
    tried.status.success()
}

#[test]
fn hostile_arguments_under_sanitizers() {
    let name = "hostile_arguments_under_sanitizers";
    if has_sanitizers(name) {
        hostile(name, SANITIZERS, &[], &[]);
    }
}

#[test]
fn hostile_arguments_under_valgrind() {
    let name = "hostile_arguments_under_valgrind";
    if has(name, "valgrind") {
        let valgrind =
            ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"];
        // valgrind of Debian bookworm knows no pidfd_open(2) and open_tree(2).
        hostile(name, &[], &valgrind, &["no-pidfds"]);
    }
}

#[test]
fn what_goes_in_and_comes_out() {
    let Some(lab) = Lab::new("what_goes_in_and_comes_out", "busybox") else { return };
    let mut config = lab.config("f", "while read x; do echo echo $x; done; exit 9");
    config["root"]["path"] = "tree".into();
    config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 64 << 20, "swap": 64 << 20 });
    std::fs::write(lab.path("config.json"), config.to_string()).unwrap();
    for flags in [&[], SANITIZERS] {
        if flags == SANITIZERS && !has_sanitizers("what_goes_in_and_comes_out") {
            return;
        }
        let program = lab.path("features");
        compile(&source("features.c"), &program, library(), flags);
        let said = ok(Command::new(program).arg(lab.dir.path()).arg(lab.state()).arg(format!("{}/f", lab.cgroup)));
        assert!(said.contains("all well"), "{said}");
        lab.assert_nothing_left("at the end");
    }
}

fn job(lab: &Lab, flags: &[&str]) -> PathBuf {
    let program = lab.path("job");
    compile(&repository().join("examples/c/job.c"), &program, library(), flags);
    program
}

fn run_job(lab: &Lab, program: &Path, script: &str, limit: Duration) -> (i32, String) {
    std::fs::write(lab.path("script"), script).unwrap();
    let mut run = Command::new(program);
    run.arg(lab.path("tree")).arg(lab.path("script")).env("JOB_STATE", lab.state());
    let out = output(&mut run, limit);
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    lab.assert_nothing_left("after the job");
    (out.status.code().unwrap_or(-1), text)
}

#[test]
fn the_example_runs_a_script() {
    let Some(lab) = Lab::new("the_example_runs_a_script", "busybox") else { return };
    let program = job(&lab, if has_sanitizers("the_example_runs_a_script") { SANITIZERS } else { &[] });
    let (code, said) = run_job(&lab, &program, "echo I am $(id -u); exit 7", Duration::from_secs(60));
    assert_eq!((code, said.as_str()), (7, "I am 0\n"));
    let (code, said) = run_job(&lab, &program, "kill -9 $$", Duration::from_secs(60));
    assert_eq!((code, said.as_str()), (137, ""));
    let said = output(Command::new(&program).args(["/a\"b", "/dev/null"]), Duration::from_secs(60));
    assert_eq!(said.status.code(), Some(2));
}

#[test]
fn the_example_builds_and_runs_images() {
    let Some(lab) = Lab::new("the_example_builds_and_runs_images", "docker-bookworm") else { return };
    let script = "set -e
        dockerd >/var/log/dockerd.log 2>&1 &
        for i in $(seq 900); do docker info >/dev/null 2>&1 && break; sleep 0.1; done
        docker info >/dev/null || { tail -n 20 /var/log/dockerd.log; exit 3; }
        docker import /opt/busybox.tar busybox >/dev/null
        mkdir /tmp/image && cd /tmp/image
        printf 'FROM busybox\\nRUN echo built >/word\\nCMD [\"cat\", \"/word\"]\\n' >Dockerfile
        docker build -q -t mine . >/dev/null
        docker run --rm mine
        docker run --rm mine sh -c 'exit 5' || exit $?";
    let (code, said) = run_job(&lab, &job(&lab, &[]), script, Duration::from_secs(240));
    assert_eq!(code, 5, "{said}");
    assert!(said.lines().any(|l| l == "built"), "{said}");
}

#[test]
fn what_is_installed_links_both_ways() {
    let name = "what_is_installed_links_both_ways";
    if !has(name, "pkg-config") {
        return;
    }
    let dest = tempfile::tempdir().unwrap();
    let top = dest.path().to_str().unwrap();
    make("ffi-test", "install-lib", &[&format!("DESTDIR={top}"), "PREFIX=/opt/sysbox"]);
    let lib = dest.path().join("opt/sysbox/lib");
    let link = |name: &str| std::fs::read_link(lib.join(name)).unwrap();
    assert_eq!(link("libsysbox.so"), Path::new("libsysbox.so.0.1"));
    assert_eq!(link("libsysbox.so.0.1"), Path::new("libsysbox.so.0.1.0"));
    let dynamic = ok(Command::new("readelf").arg("-d").arg(lib.join("libsysbox.so.0.1.0")));
    assert!(dynamic.contains("soname: [libsysbox.so.0.1]"), "{dynamic}");
    let flags = |arguments: &[&str]| {
        let mut tool = Command::new("pkg-config");
        tool.args(arguments).arg("sysbox").env("PKG_CONFIG_SYSROOT_DIR", top);
        let said = ok(tool.env("PKG_CONFIG_PATH", lib.join("pkgconfig")));
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(flags(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    let program = dest.path().join("header");
    let build = |flags: &[String], more: &[&str]| {
        ok(Command::new("cc").arg(source("header.c")).arg("-o").arg(&program).args(more).args(flags));
        ok(Command::new(&program).env("LD_LIBRARY_PATH", &lib));
        ok(Command::new("readelf").arg("-d").arg(&program))
    };
    let (shared, all) = (flags(&["--cflags", "--libs"]), flags(&["--static", "--cflags", "--libs"]));
    assert!(build(&shared, &[]).contains("Shared library: [libsysbox.so.0.1]"));
    // Wholly static, and only this library static. What is not used may ask for versions of symbols that only a shared libc has.
    assert!(!build(&all, &["-static", "-Wl,--gc-sections"]).contains("Shared library"));
    std::fs::remove_file(lib.join("libsysbox.so")).unwrap();
    let mixed = build(&all, &[]);
    assert!(mixed.contains("libc.so") && !mixed.contains("libsysbox"), "{mixed}");
}
