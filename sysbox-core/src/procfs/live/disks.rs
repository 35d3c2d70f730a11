//! `/proc/diskstats`.

use crate::cgroup::stats::DeviceIo;
use std::io::Write;

/// Replaces the figures of one of the host's lines (iostats.rst) by the container's. Devices that it never used have no line, nor have
/// partitions, which are not counted by cgroup. What is not counted either, such as times and merges, is 0.
pub(super) fn line(line: &[u8], find: impl Fn(u32, u32) -> Option<DeviceIo>, out: &mut Vec<u8>) {
    let Ok(line) = std::str::from_utf8(line) else { return };
    let mut words = line.split_ascii_whitespace();
    let (Some(major), Some(minor), Some(name)) = (words.next(), words.next(), words.next()) else { return };
    let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { return };
    let Some(io) = find(major, minor) else { return };
    // Writing to memory cannot fail.
    let _ = write!(out, "{major:4} {minor:7} {name}");
    // As many as the host has, which depends on the kernel's age. Sectors are of 512 bytes, whatever the device's are.
    for (i, _) in words.enumerate() {
        let value = match i {
            0 => io.reads,
            2 => io.read_bytes / 512,
            4 => io.writes,
            6 => io.written_bytes / 512,
            11 => io.discards,
            13 => io.discarded_bytes / 512,
            _ => 0,
        };
        let _ = write!(out, " {value}");
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::stats::parse::v2_io;
    use proptest::prelude::*;

    fn show(text: &str, io: &str) -> String {
        let (io, mut out) = (v2_io(io), Vec::new());
        text.lines().for_each(|l| line(l.as_bytes(), |a, b| io.get(&(a, b)).cloned(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn of_new_and_old_kernels() {
        let io = "254:0 rbytes=4096 wbytes=1024 rios=3 wios=2 dbytes=512 dios=1\n";
        let new = " 7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n 254       0 vda 94718 8070 7742002 118187 150007 59528 34474160 \
                   140110 0 23744 263007 13010 46 2376096 3469 33740 1239\n";
        assert_eq!(show(new, io), " 254       0 vda 3 0 8 0 2 0 2 0 0 0 0 1 0 1 0 0 0\n");
        let old = " 254       0 vda 94718 8070 7742002 118187 150007 59528 34474160 140110 0 23744 263007\n";
        assert_eq!(show(old, io), " 254       0 vda 3 0 8 0 2 0 2 0 0 0 0\n");
        assert_eq!(show(old, ""), "");
    }

    proptest! {
        #[test]
        fn anything_is_read(text in "( ?[0-9]{1,12} ){0,3}\\PC{0,20}") {
            line(text.as_bytes(), |major, minor| Some(DeviceIo { major, minor, ..DeviceIo::default() }), &mut Vec::new());
        }
    }
}
