//! How much happened lately: sums over the last 10 s, 60 s and 15 min, and the most there ever was in 10 s.
//!
//! One bucket a second, integers throughout. The clock is a number of seconds that the caller gives and that never runs back.

use std::collections::VecDeque;

use serde::Serialize;

/// The longest window, in seconds.
const LONGEST: u64 = 900;

/// Sums of one thing by the second.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    /// Second and amount, oldest first; no second twice.
    buckets: VecDeque<(u64, u64)>,
    max_10s: u64,
}

/// What [`Rates`] say at one moment: sums, not divided by time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Windows {
    /// In the last 10 seconds.
    pub in_10s: u64,
    /// In the last 60 seconds.
    pub in_60s: u64,
    /// In the last 15 minutes.
    pub in_15m: u64,
    /// The most that there was within 10 seconds.
    pub max_10s: u64,
}

impl Rates {
    /// Adds what happened at a second.
    pub fn add(&mut self, second: u64, amount: u64) {
        match self.buckets.back_mut() {
            // A late report counts in the newest second.
            Some((last, sum)) if *last >= second => *sum = sum.saturating_add(amount),
            _ => self.buckets.push_back((second, amount)),
        }
        while self.buckets.front().is_some_and(|(s, _)| s + LONGEST <= second) {
            self.buckets.pop_front();
        }
        let newest = self.buckets.back().map_or(second, |(s, _)| *s);
        self.max_10s = self.max_10s.max(self.within(newest, 10));
    }

    fn within(&self, now: u64, seconds: u64) -> u64 {
        let recent = self.buckets.iter().rev().take_while(|(s, _)| s + seconds > now);
        recent.fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    /// The sums at a second.
    pub fn at(&self, now: u64) -> Windows {
        Windows {
            in_10s: self.within(now, 10),
            in_60s: self.within(now, 60),
            in_15m: self.within(now, LONGEST),
            max_10s: self.max_10s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forgets_what_is_older_than_its_window() {
        let mut r = Rates::default();
        r.add(100, 7);
        r.add(109, 1);
        assert_eq!((r.at(109).in_10s, r.at(110).in_10s, r.at(119).in_10s), (8, 1, 0));
        assert_eq!((r.at(159).in_60s, r.at(160).in_60s), (8, 1));
        assert_eq!((r.at(999).in_15m, r.at(1_000).in_15m), (8, 1));
        assert_eq!(r.at(5_000).max_10s, 8);
    }

    proptest! {
        /// The windows are the sums of what was added, whatever came when.
        #[test]
        fn sums_are_those_of_what_was_added(steps in proptest::collection::vec((0u64..40, 0u64..1_000), 1..200)) {
            let mut r = Rates::default();
            let (mut now, mut all) = (0, Vec::new());
            for (pause, amount) in steps {
                now += pause;
                r.add(now, amount);
                all.push((now, amount));
                let sum = |seconds: u64| all.iter().filter(|(s, _)| s + seconds > now).map(|(_, a)| a).sum::<u64>();
                let w = r.at(now);
                prop_assert_eq!((w.in_10s, w.in_60s, w.in_15m), (sum(10), sum(60), sum(LONGEST)));
                prop_assert!(w.max_10s >= w.in_10s);
            }
            prop_assert!(r.buckets.len() as u64 <= LONGEST);
        }
    }
}
