//! Sets of consecutive IDs on one side of a map, and finding room among them. Pure arithmetic.

/// IDs `start..end`. 64 bits wide, so that no sum of two 32-bit numbers overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    pub(super) fn new(start: u32, count: u32) -> Span {
        let start = u64::from(start);
        Span { start, end: start + u64::from(count) }
    }

    pub(super) fn overlaps(self, other: Span) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }

    pub(super) fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// How many ranges of `size` IDs fit.
    pub(super) fn capacity(self, size: u32) -> u64 {
        self.len().checked_div(u64::from(size)).unwrap_or(0)
    }
}

/// Sorts, drops empty spans and joins those that overlap. Those that merely adjoin stay apart: no range is placed across
/// the border of two entries of a subordinate ID file, which an administrator may withdraw one by one.
pub(super) fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|s| s.start < s.end);
    spans.sort_unstable();
    spans.dedup_by(|next, last| {
        let overlap = next.start < last.end;
        if overlap {
            last.end = last.end.max(next.end);
        }
        overlap
    });
    spans
}

/// What is left of `spans` without `holes`; the order of `spans` is kept. `holes` must come from [`union`].
pub(super) fn subtract(spans: &[Span], holes: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    for span in spans {
        let mut start = span.start;
        let first = holes.partition_point(|h| h.end <= span.start);
        for hole in holes[first..].iter().take_while(|h| h.start < span.end) {
            if start < hole.start {
                left.push(Span { start, end: hole.start });
            }
            start = hole.end;
        }
        if start < span.end {
            left.push(Span { start, end: span.end });
        }
    }
    left
}

/// Next fit: the first start of `size` free IDs from `from` on, else the first of all, in the order of the windows. `used` must
/// come from [`union`].
pub(super) fn place(windows: &[Span], used: &[Span], size: u32, from: u32) -> Option<u32> {
    let free = subtract(windows, used);
    let start = |from: u64| {
        let later = free.iter().map(|s| Span { start: s.start.max(from), end: s.end });
        later.into_iter().find(|s| s.len() >= u64::from(size)).map(|s| s.start)
    };
    start(from.into()).or_else(|| start(0)).and_then(|s| u32::try_from(s).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        prop::collection::vec((0u32..200, 0u32..40).prop_map(|(s, c)| Span::new(s, c)), 0..12)
    }

    fn has(spans: &[Span], id: u64) -> bool {
        spans.iter().any(|s| (s.start..s.end).contains(&id))
    }

    #[test]
    fn adjoining_spans_stay_apart() {
        let joined = union(vec![Span::new(10, 10), Span::new(0, 10), Span::new(15, 10), Span::new(50, 0)]);
        assert_eq!(joined, [Span::new(0, 10), Span::new(10, 15)]);
        assert_eq!(place(&joined, &[], 11, 0), Some(10));
    }

    #[test]
    fn the_last_ids_can_be_placed() {
        let windows = [Span::new(u32::MAX - 10, 10)];
        for from in [0, u32::MAX - 10, u32::MAX - 4, u32::MAX] {
            assert_eq!(place(&windows, &[], 10, from), Some(u32::MAX - 10));
            assert_eq!(place(&windows, &[Span::new(u32::MAX - 10, 4)], 6, from), Some(u32::MAX - 6));
            assert_eq!(place(&windows, &[], 11, from), None);
        }
    }

    proptest! {
        #[test]
        fn set_arithmetic_agrees_with_membership(a in spans(), b in spans()) {
            let (ua, ub) = (union(a.clone()), union(b.clone()));
            prop_assert!(ua.windows(2).all(|w| w[0].end <= w[1].start));
            let left = subtract(&ua, &ub);
            for id in 0..300 {
                prop_assert_eq!(has(&ua, id), has(&a, id));
                prop_assert_eq!(has(&left, id), has(&a, id) && !has(&b, id));
            }
        }

        #[test]
        fn placed_ids_are_free_in_one_window_and_the_next(w in spans(), used in spans(), size in 1u32..30, from in 0u32..300) {
            let (w, used) = (union(w), union(used));
            let fits = |start: u64| {
                let s = Span { start, end: start + u64::from(size) };
                w.iter().any(|w| w.start <= s.start && s.end <= w.end) && used.iter().all(|u| !u.overlaps(s))
            };
            let expected = (from.into()..300).find(|s| fits(*s)).or_else(|| (0..300).find(|s| fits(*s)));
            prop_assert_eq!(place(&w, &used, size, from).map(u64::from), expected);
        }
    }
}
