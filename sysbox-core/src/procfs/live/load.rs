//! The averages of `/proc/loadavg`, counted as the kernel counts its own (kernel/sched/loadavg.c): every five seconds, in fixed point.

use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(5);
/// For how long after it was last read an average is kept up.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// One, in fixed point.
const ONE: u64 = 1 << 11;
/// What an interval leaves of an average over 1, 5 and 15 minutes: 1/exp(5s/60s) and so on.
const DECAY: [u64; 3] = [1884, 2014, 2037];

/// The averages, while somebody wants to know. Times are of any clock that does not go back.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    average: [u64; 3],
    /// When the next sample is due, and when they were last asked for.
    kept: Option<(Duration, Duration)>,
}

impl Load {
    /// Somebody reads. The first one, or the first after a long time, sees what there is to do now.
    pub(super) fn read(&mut self, now: Duration, active: impl FnOnce() -> u64) -> [u64; 3] {
        match self.wanted(now) {
            true => self.sample(now, active),
            false => {
                self.average = [active().min(u64::from(u32::MAX)) * ONE; 3];
                self.kept = Some((now.saturating_add(INTERVAL), now));
            }
        }
        if let Some((_, read)) = &mut self.kept {
            *read = now;
        }
        self.average
    }

    /// Takes a sample, if one is due.
    pub(super) fn sample(&mut self, now: Duration, active: impl FnOnce() -> u64) {
        let wanted = self.wanted(now);
        let Some((due, _)) = self.kept.as_mut().filter(|(due, _)| *due <= now) else { return };
        if !wanted {
            self.kept = None;
            return;
        }
        // Missed ones, if nobody came by in time, are taken to have been like this one.
        let missed = now.saturating_sub(*due).as_secs() / INTERVAL.as_secs();
        *due = now.saturating_add(INTERVAL);
        let active = active().min(u64::from(u32::MAX)) * ONE;
        for _ in 0..=missed.min(PATIENCE.as_secs() / INTERVAL.as_secs()) {
            for (average, decay) in self.average.iter_mut().zip(DECAY) {
                let up = if active >= *average { ONE - 1 } else { 0 };
                *average = (*average * decay + active * (ONE - decay) + up) / ONE;
            }
        }
    }

    fn wanted(&self, now: Duration) -> bool {
        self.kept.is_some_and(|(_, read)| now.saturating_sub(read) < PATIENCE)
    }

    /// How long until a sample is due; `None` if nobody wants to know.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        self.kept.map(|(due, _)| due.saturating_sub(now))
    }
}

/// The line of the file: averages, tasks that run and all tasks, the number of the newest process.
pub(super) fn line(averages: [u64; 3], running: u64, tasks: u64, newest: u64) -> String {
    let [one, five, fifteen] = averages.map(|a| {
        let a = a + ONE / 200;
        format!("{}.{:02}", a / ONE, (a % ONE) * 100 / ONE)
    });
    format!("{one} {five} {fifteen} {running}/{tasks} {newest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn text(l: [u64; 3]) -> String {
        line(l, 1, 2, 3)
    }

    #[test]
    fn nothing_is_counted_unless_somebody_reads() {
        let mut load = Load::default();
        assert_eq!(load.next(at(100)), None);
        load.sample(at(100), || panic!("not wanted"));
        assert_eq!(text(load.read(at(100), || 3)), "3.00 3.00 3.00 1/2 3\n");
        assert_eq!(load.next(at(102)), Some(at(3)));
        load.sample(at(104), || panic!("not due"));
        assert_eq!(text(load.read(at(104), || 0)), "3.00 3.00 3.00 1/2 3\n");
        // The last read was at 104.
        let mut now = 104;
        while let Some(pause) = load.next(at(now)) {
            now += pause.as_secs();
            load.sample(at(now), || 0);
        }
        assert!((104 + 900..104 + 906).contains(&now), "{now}");
        assert_eq!(text(load.read(at(now + 1), || 7)), "7.00 7.00 7.00 1/2 3\n");
    }

    #[test]
    fn approaches_the_truth_as_the_kernels_does() {
        let mut load = Load::default();
        load.read(at(0), || 0);
        (1..=12).for_each(|i| load.sample(at(i * 5), || 1));
        // 1 - 1/e after a minute; 1 - exp(-1/5) and 1 - exp(-1/15) for the others.
        assert_eq!(text(load.average), "0.63 0.18 0.06 1/2 3\n");
        let mut late = Load::default();
        late.read(at(0), || 0);
        late.sample(at(60), || 1);
        assert_eq!(text(late.average), text(load.average));
        // 1 - exp(-17), 1 - exp(-17/5), 1 - exp(-17/15); the kernel's fixed point rounds up on the way.
        for i in 13..=17 * 12 {
            load.read(at(i * 5), || 1);
        }
        for (average, exact) in load.average.iter().zip([1.0, 0.967, 0.678]) {
            assert!((*average as f64 / ONE as f64 - exact).abs() < 0.03, "{:?}", load.average);
        }
    }

    proptest! {
        #[test]
        fn stays_between_least_and_most(counts in proptest::collection::vec(any::<u64>(), 1..50), step in 0u64..100_000) {
            let mut load = Load::default();
            let mut now = 0u64;
            for n in &counts {
                now = now.saturating_add(step);
                let seen = load.read(at(now), || *n);
                prop_assert!(seen.iter().all(|a| *a <= u64::from(u32::MAX) * ONE + ONE));
                let _ = load.next(at(now));
            }
        }
    }
}
