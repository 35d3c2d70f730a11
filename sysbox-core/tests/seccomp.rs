//! Profiles at work: calls that are left to an agent outside (`SCMP_ACT_NOTIFY`, `listenerPath`), and 32-bit programs.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{oci_process, poll_until, readable, Lab, PROGRAM};
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};
use serde_json::{json, Value};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use sysbox_core::{ExecOptions, Exit, Stdio};

/// What the agent is told, and the listener.
fn told(agent: &UnixListener) -> (Value, std::os::fd::OwnedFd) {
    assert!(readable(agent.as_fd(), PROGRAM), "nobody connects");
    let (mut stream, _) = agent.accept().unwrap();
    assert!(readable(stream.as_fd(), PROGRAM), "nothing comes");
    let mut buf = vec![0u8; 1 << 16];
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut iov = [IoSliceMut::new(&mut buf)];
    let m = recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let len = m.bytes;
    let rights = m.cmsgs().unwrap().find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds = rights.unwrap();
    assert_eq!(fds.len(), 1);
    // The received number is closed by way of its file: only a raw conversion could own it.
    let listener = sysbox_core::dup_number(fds[0]).unwrap();
    nix::unistd::close(fds[0]).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "more than one message");
    (serde_json::from_slice(&buf[..len]).unwrap(), listener)
}

/// mkdir(2) waits for the agent. One that lets go of the listener leaves it with ENOSYS, which nothing else would give.
#[test]
fn calls_wait_for_the_agent() {
    let Some(lab) = Lab::new("calls_wait_for_the_agent") else { return };
    let path = lab.path("agent.sock");
    let agent = UnixListener::bind(&path).unwrap();
    for (nnp, user) in [(false, 0), (true, 1000)] {
        let mut doc = lab.doc("mkdir /tmp/d; echo code $?; exec sleep 1000");
        doc["annotations"] = json!({ "who": "test" });
        doc["process"]["noNewPrivileges"] = json!(nnp);
        doc["process"]["user"] = json!({ "uid": user, "gid": user });
        doc["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "for the test",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
        });
        let c = lab.start(&doc);
        let (state, listener) = told(&agent);
        let pid = c.pid().unwrap();
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["pid"], pid);
        assert_eq!(state["metadata"], "for the test");
        assert_eq!(state["state"]["id"], c.id());
        assert_eq!(state["state"]["pid"], pid);
        assert_eq!(state["state"]["annotations"], json!({ "who": "test" }));
        assert_eq!(state["state"]["bundle"], json!(lab.dir.path()));
        // A call waits, and waits on.
        assert!(readable(listener.as_fd(), PROGRAM), "no call is to be decided");
        assert_eq!(c.printed(), "");
        drop(listener);
        c.await_word("code 1");
        assert!(c.printed().contains("Function not implemented"), "{}", c.printed());

        // A filter of its own, and a listener, for each program that is executed.
        let process = oci_process(&json!({ "args": ["mkdir", "/tmp/e"], "noNewPrivileges": nnp }));
        let null = || Some(std::fs::File::open("/dev/null").unwrap().into());
        let stdio = Stdio { stdin: null(), stdout: null(), stderr: null(), ..Stdio::default() };
        let child = c.container.exec(&process, ExecOptions { stdio }).unwrap();
        let (state, listener) = told(&agent);
        assert_eq!(state["pid"], child.pid());
        assert_eq!(state["state"]["pid"], pid);
        assert_eq!(state["state"]["status"], "running");
        assert!(readable(listener.as_fd(), PROGRAM), "no call is to be decided");
        assert!(!readable(child.pidfd(), std::time::Duration::from_millis(100)), "it does not wait");
        drop(listener);
        assert_eq!(child.wait().unwrap().code(), 1);
        assert!(!lab.tree().join("tmp/d").exists() && !lab.tree().join("tmp/e").exists());
        // Nothing of the connection is left to the program.
        let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        poll_until("three descriptors", || open() == 3);
    }
}

#[test]
fn without_the_agent_there_is_no_container() {
    let Some(lab) = Lab::new("without_the_agent_there_is_no_container") else { return };
    let mut doc = lab.doc("true");
    doc["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": lab.path("nobody.sock"),
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
    });
    let e = lab.try_create(&doc, Stdio::default()).err().unwrap();
    assert!(e.to_string().contains("linux.seccomp.listenerPath") && e.to_string().contains("nobody.sock"), "{e}");
    assert_eq!(e.errno(), Some(libc::ENOENT));
    assert_eq!(lab.runtime.list().unwrap(), Vec::<String>::new());
    // Where nothing is left to it, nobody is asked.
    doc["linux"]["seccomp"]["syscalls"][0]["action"] = json!("SCMP_ACT_ALLOW");
    lab.run(&doc).ok();
}

/// An i386 program: prints `32`, and exits with the errno of `mkdir("/tmp/made", 0755)`.
fn program_of_32_bits() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const CODE: u32 = BASE + 52 + 32;
    let (text, path) = (CODE + 48, CODE + 51);
    let mut code: Vec<u8> = Vec::new();
    let mov = |code: &mut Vec<u8>, register: u8, value: u32| {
        code.push(0xb8 + register);
        code.extend(value.to_le_bytes());
    };
    const INT_80: [u8; 2] = [0xcd, 0x80];
    let (eax, ecx, edx, ebx) = (0, 1, 2, 3);
    for (register, value) in [(eax, 4), (ebx, 1), (ecx, text), (edx, 3)] {
        mov(&mut code, register, value);
    }
    code.extend(INT_80);
    for (register, value) in [(eax, 39), (ebx, path), (ecx, 0o755)] {
        mov(&mut code, register, value);
    }
    code.extend(INT_80);
    // neg eax; xchg ebx, eax; xor eax, eax; inc eax: exit.
    code.extend([0xf7, 0xd8, 0x93, 0x31, 0xc0, 0x40]);
    code.extend(INT_80);
    code.push(0xf4);
    assert_eq!(code.len(), 48);
    code.extend(b"32\n/tmp/made\0");
    let size = 52 + 32 + code.len() as u32;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, CODE, 52, 0, 0, 52 | 32 << 16, 1, 0, 1, 0, BASE, BASE, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    assert_eq!(elf.len(), 52 + 32);
    elf.extend(code);
    elf
}

#[test]
fn programs_of_32_bits_work_under_the_same_rules() {
    let name = "programs_of_32_bits_work_under_the_same_rules";
    let Some(lab) = Lab::new(name) else { return };
    let file = lab.tree().join("bin/small");
    std::fs::write(&file, program_of_32_bits()).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let runs_here = cfg!(target_arch = "x86_64") && std::process::Command::new(&file).output().is_ok();
    if !runs_here {
        eprintln!("SKIP {name}: this machine runs no i386 programs");
        return;
    }
    let _ = std::fs::remove_dir("/tmp/made");
    let mut doc = lab.system().args(["/bin/small"]).to_json();
    let mut run = |architectures: Value| {
        // ENAMETOOLONG: nothing else would say that.
        doc["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": architectures,
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENAMETOOLONG }],
        });
        let done = lab.run(&doc);
        (done.exit, done.text)
    };
    // As Docker lists them, and as engines do that list none.
    for architectures in [json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]), json!([])] {
        assert_eq!(run(architectures), (Exit::Code(libc::ENAMETOOLONG), "32\n".into()));
    }
    assert_eq!(run(json!(["SCMP_ARCH_X86_64"])), (Exit::Signal(libc::SIGSYS), String::new()));
    doc["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    assert_eq!(lab.run(&doc).ok(), "32");
    assert!(lab.tree().join("tmp/made").is_dir());
}

/// A profile that forbids what a start needs, and to say so in the usual way.
#[test]
fn a_profile_that_forbids_the_start_is_told() {
    let Some(lab) = Lab::new("a_profile_that_forbids_the_start_is_told") else { return };
    let mut doc = lab.doc("true");
    doc["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["sendmsg", "setresuid"], "action": "SCMP_ACT_ERRNO" }],
    });
    let mut c = lab.create(&doc);
    let e = c.container.start().unwrap_err();
    assert!(e.to_string().contains("become user 0:0"), "{e}");
    assert_eq!(e.errno(), Some(libc::EPERM));
    // And by exec.
    doc["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["sendmsg"]);
    doc["process"]["args"] = json!(["sleep", "1000"]);
    let c = lab.start(&doc);
    let file = lab.tree().join("bin/no-interpreter");
    std::fs::write(&file, "#!/no/such/program\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let e = c.exec(&json!({ "args": ["/bin/no-interpreter"] })).unwrap_err();
    assert_eq!(e.kind(), sysbox_core::Kind::ProgramNotFound);
}
