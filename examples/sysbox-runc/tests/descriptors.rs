//! What a program has open: terminals, handed to a console socket or relayed to the caller's own, and other descriptors.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{wait_for, Lab, LIMIT};
use nix::poll::{poll, PollFd, PollFlags};
use nix::pty::{openpty, OpenptyResult, Winsize};
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};
use nix::sys::termios::{tcgetattr, LocalFlags};
use serde_json::json;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// The master that comes by the socket.
fn receive(listener: &UnixListener) -> OwnedFd {
    listener.set_nonblocking(true).unwrap();
    let mut connection = None;
    assert!(wait_for(LIMIT, || listener.accept().map(|c| connection = Some(c.0)).is_ok()), "nobody connects");
    let socket = connection.unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut text = [0u8; 64];
    let mut iov = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    assert!(message.bytes > 0, "a descriptor travels with at least one byte");
    let raw = message.cmsgs().unwrap().find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let raw = raw.unwrap();
    let master = sysbox_core::dup_number(raw).unwrap();
    nix::unistd::close(raw).unwrap();
    master
}

/// Reads from a terminal until it has said `words`, or its other end is closed.
#[track_caller]
fn says(master: &OwnedFd, words: &str) -> String {
    let mut said = String::new();
    let found = wait_for(LIMIT, || {
        let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, 100u16).unwrap() > 0 {
            let mut buf = [0u8; 4096];
            match nix::unistd::read(master, &mut buf) {
                Ok(n) => said.push_str(&String::from_utf8_lossy(&buf[..n])),
                Err(_) => return true,
            }
        }
        said.contains(words)
    });
    assert!(found && said.contains(words), "no {words:?} in {said:?}");
    said
}

fn types(master: &OwnedFd, text: &str) {
    nix::unistd::write(master, text.as_bytes()).unwrap();
}

#[test]
fn console_socket() {
    let Some(lab) = Lab::new("console_socket", "busybox") else { return };
    let script = "tty; ls -ln $(tty) | tr -s ' ' | cut -d' ' -f3; stty size; echo ctty >/dev/tty; read a; echo got $a; sleep 1000";
    let bundle = lab.bundle("b", &["sh", "-c", script]);
    bundle.edit(|c| {
        c["process"]["terminal"] = true.into();
        c["process"]["consoleSize"] = json!({ "height": 31, "width": 97 });
    });
    let (id, socket) = (lab.id("c"), lab.path("pty.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    lab.run(&["create", "--bundle", bundle.path(), "--console-socket", socket.to_str().unwrap(), &id]).ok();
    let master = receive(&listener);
    lab.run(&["start", &id]).ok();
    let said = says(&master, "ctty");
    assert!(said.starts_with("/dev/pts/0\r\n0\r\n31 97\r\n"), "{said:?}");
    types(&master, "typed\n");
    says(&master, "got typed");
    // docker exec -it
    let process = lab.path("process.json");
    let mut p = bundle.config()["process"].clone();
    p["args"] = json!(["sh", "-c", "tty; read a; echo exec $a"]);
    std::fs::write(&process, p.to_string()).unwrap();
    let args =
        ["exec", "--process", process.to_str().unwrap(), "--console-socket", socket.to_str().unwrap(), "--detach", &id];
    lab.run(&args).ok();
    let second = receive(&listener);
    types(&second, "more\n");
    assert!(says(&second, "exec more").contains("/dev/pts/1"));
    // ^C at the terminal reaches who has it.
    lab.run(&[
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        socket.to_str().unwrap(),
        &id,
        "sh",
        "-c",
        "trap 'echo caught' INT; echo set; sleep 30 & wait",
    ])
    .ok();
    let third = receive(&listener);
    says(&third, "set");
    types(&third, "\u{3}");
    says(&third, "caught");
    lab.run(&["exec", "--tty", "--detach", &id, "true"]).refused(&["--console-socket"]);
    let absent = lab.path("absent.sock");
    lab.run(&["exec", "--tty", "--console-socket", absent.to_str().unwrap(), &id, "true"])
        .refused(&["console socket", "absent.sock"]);
}

#[test]
fn console_socket_without_a_terminal() {
    let Some(lab) = Lab::new("console_socket_without_a_terminal", "busybox") else { return };
    let bundle = lab.bundle("b", &["true"]);
    let socket = lab.path("pty.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let id = lab.id("c");
    lab.run(&["create", "--bundle", bundle.path(), "--console-socket", socket.to_str().unwrap(), &id])
        .refused(&["terminal"]);
    lab.assert_nothing_left();
}

/// `run` and `exec -t` of somebody who sits at a terminal.
#[test]
fn foreground_terminal() {
    let Some(lab) = Lab::new("foreground_terminal", "busybox") else { return };
    let bundle = lab.bundle("b", &["sh", "-c", "tty; stty size; read a; echo got $a; stty size; exit 6"]);
    bundle.edit(|c| c["process"]["terminal"] = true.into());
    let size = Winsize { ws_row: 40, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
    let seated = |args: &[&str]| {
        let mut c = lab.runtime(args);
        c.stdin(slave.try_clone().unwrap());
        lab.spawn(c)
    };
    let id = lab.id("c");
    let mut running = seated(&["run", "--bundle", bundle.path(), &id]);
    running.says("40 111", LIMIT);
    assert!(running.out().contains("/dev/pts/0"), "{}", running.out());
    let modes = || tcgetattr(&slave).unwrap().local_flags;
    assert!(!modes().contains(LocalFlags::ICANON), "the caller's terminal is not raw");
    let exec = seated(&["exec", "-t", &id, "sh", "-c", "test -t 0 && test -t 1 && tty"]).finish(LIMIT).ok();
    assert_eq!(exec.text(), "/dev/pts/1");
    types(&master, "typed\r");
    running.says("got typed", LIMIT);
    running.finish(LIMIT).expect_code(6);
    assert!(modes().contains(LocalFlags::ICANON), "the caller's terminal was left raw");
    lab.assert_nothing_left();
    assert!(Path::new("/dev/ptmx").exists());
}

#[test]
fn preserved_descriptors() {
    let Some(lab) = Lab::new("preserved_descriptors", "busybox") else { return };
    // One of them is ours, all others the container must not get.
    let bundle = lab.bundle("b", &["sh", "-c", "cat <&3; ls /proc/self/fd | tr '\\n' ' '; echo up; sleep 1000"]);
    std::fs::write(lab.path("three"), "through 3\n").unwrap();
    let id = lab.id("c");
    let with = |args: &[&str]| {
        let runtime = lab.runtime(args);
        let mut c = Command::new("sh");
        c.args(["-c", "exec \"$@\" 3<\"$0\" 4<\"$0\""])
            .arg(lab.path("three"))
            .arg(runtime.get_program())
            .args(runtime.get_args());
        c.stdin(Stdio::null());
        lab.spawn(c)
    };
    let mut running = with(&["run", "--preserve-fds", "1", "--bundle", bundle.path(), &id]);
    running.says("up", LIMIT);
    // The last one is what ls itself has opened.
    assert_eq!(running.out(), "through 3\n0 1 2 3 4 up\n");
    let exec = with(&["exec", "--preserve-fds=2", &id, "sh", "-c", "cat <&4; ls /proc/self/fd | tr '\\n' ' '"])
        .finish(LIMIT)
        .ok();
    assert_eq!(exec.out, "through 3\n0 1 2 3 4 5 ");
    let runtime = lab.runtime(&["exec", "--preserve-fds", "1", &id, "true"]);
    let mut without = Command::new("sh");
    // Closed: another test's thread may be making a descriptor of that number.
    without.args(["-c", "exec \"$0\" \"$@\" 3<&-"]).arg(runtime.get_program()).args(runtime.get_args());
    lab.spawn(without).finish(LIMIT).refused(&["--preserve-fds"]);
    // Standard input was the host's /dev/null: it must not have become the container's.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata("/dev/null").unwrap().uid(), 0);
}
