//! `struct sysinfo` of sysinfo(2), from the texts of the nodes, so that both say the same.

/// The structure as 64-bit programs have it (sysinfo(2)), amounts in bytes.
pub(super) fn structure(meminfo: &str, loadavg: &str, uptime: u64) -> Vec<u8> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|l| l.split_ascii_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    };
    let words: Vec<&str> = loadavg.split_ascii_whitespace().collect();
    let load = |i: usize| words.get(i).and_then(|w| fixed_point(w)).unwrap_or(0);
    let tasks = words.get(3).and_then(|w| w.split_once('/')?.1.parse::<u64>().ok()).unwrap_or(0);
    let tasks = u16::try_from(tasks).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(112);
    for word in [
        uptime,
        load(0),
        load(1),
        load(2),
        bytes("MemTotal"),
        bytes("MemFree"),
        bytes("Shmem"),
        bytes("Buffers"),
        bytes("SwapTotal"),
        bytes("SwapFree"),
    ] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.extend_from_slice(&tasks.to_ne_bytes());
    out.extend_from_slice(&[0; 6]);
    // totalhigh and freehigh are about 32-bit machines.
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&1u32.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out
}

/// `1.25` with 16 bits after the point (SI_LOAD_SHIFT).
fn fixed_point(text: &str) -> Option<u64> {
    let (whole, hundredths) = text.split_once('.')?;
    let (whole, hundredths): (u64, u64) = (whole.parse().ok()?, hundredths.parse().ok()?);
    whole.checked_mul(1 << 16)?.checked_add(hundredths * (1 << 16) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_programs_look() {
        let meminfo = "MemTotal:         262144 kB\nMemFree:  1000 kB\nBuffers: 0 kB\nShmem:  3 kB\nSwapTotal:  7 kB\nSwapFree: 5 kB\n";
        let s = structure(meminfo, "1.50 0.00 20.25 2/345 678\n", 99);
        assert_eq!(s.len(), size_of::<libc::sysinfo>());
        let word = |i: usize| u64::from_ne_bytes(s[8 * i..8 * i + 8].try_into().unwrap());
        assert_eq!([0, 1, 2, 3].map(word), [99, 3 << 15, 0, 81 << 14]);
        assert_eq!([4, 5, 6, 7, 8, 9].map(|i| word(i) / 1024), [262_144, 1000, 3, 0, 7, 5]);
        assert_eq!((word(10) & 0xffff, word(13) & 0xffff_ffff), (345, 1));
        assert_eq!(structure("", "", 0).len(), s.len());
    }
}
