//! System calls that a profile leaves to an agent outside (`SCMP_ACT_NOTIFY`, `listenerPath`).
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{oci_process, readable, Lab, PROGRAM};
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};
use serde_json::{json, Value};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use sysbox_core::{ExecOptions, Stdio};

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
    let fds = rights.expect("no descriptor comes");
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
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert_eq!(open, 3);
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
