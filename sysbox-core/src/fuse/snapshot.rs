//! Texts that readers are in the middle of, as few as a server can bear.

/// A reader that pauses while so many others begin loses its place: it continues in a newer text.
const MAX_COUNT: usize = 64;
/// The newest is kept even if it is larger alone.
const MAX_BYTES: usize = 128 << 10;

/// By handle, least recently used first.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Vec<(u64, Vec<u8>)>);

impl Snapshots {
    /// The text of a handle, which becomes the most recently used.
    pub(super) fn get(&mut self, handle: u64) -> Option<&[u8]> {
        let i = self.0.iter().rposition(|(h, _)| *h == handle)?;
        self.0[i..].rotate_left(1);
        self.0.last().map(|(_, text)| text.as_slice())
    }

    /// Replaces the text of a handle; its length comes back.
    pub(super) fn put(&mut self, handle: u64, text: Vec<u8>) -> usize {
        self.remove(handle);
        let length = text.len();
        let mut bytes = length;
        let fits = |(_, t): &&(u64, Vec<u8>)| {
            bytes += t.len();
            bytes <= MAX_BYTES
        };
        let kept = self.0.iter().rev().take(MAX_COUNT - 1).take_while(fits).count();
        self.0.drain(..self.0.len() - kept);
        self.0.push((handle, text));
        length
    }

    pub(super) fn remove(&mut self, handle: u64) {
        self.0.retain(|(h, _)| *h != handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_first() {
        let mut s = Snapshots::default();
        for h in 0..1000 {
            s.put(h, vec![h as u8; 100]);
            // Always in use, never dropped.
            assert!(s.get(0).is_some());
        }
        assert_eq!(s.0.len(), MAX_COUNT);
        assert!(s.get(999).is_some() && s.get(1).is_none());
        s.put(0, vec![]);
        assert_eq!(s.get(0), Some(&[][..]));
        s.remove(0);
        assert_eq!(s.get(0), None);
        assert_eq!(s.0.len(), MAX_COUNT - 1);
    }

    #[test]
    fn bytes_are_bounded_but_for_the_newest() {
        let mut s = Snapshots::default();
        for h in 0..100 {
            s.put(h, vec![0; 60 << 10]);
        }
        assert_eq!(s.0.len(), 2);
        s.put(100, vec![0; MAX_BYTES * 3]);
        assert_eq!(s.0.len(), 1);
        assert_eq!(s.get(100).map(<[u8]>::len), Some(MAX_BYTES * 3));
        s.put(101, vec![1]);
        assert_eq!(s.0.len(), 1);
        assert_eq!(s.get(101), Some(&[1][..]));
    }
}
