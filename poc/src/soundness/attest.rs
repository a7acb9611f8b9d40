//! Tier 2: validators drawn by stake attest that they re-checked. The chance that none of them is honest, how soon a lazy
//! one is found out by canaries, and how many canaries it takes that laziness does not pay.
//!
//! Functions of parameters alone: whatever contract draws, it can do no better than a draw by stake.

use serde::{Serialize, Serializer};

use super::chance::{Chance, Share};

/// The chance that none of `drawn` validators is honest, where a share `honest` of the stake is: (1 - h)^s.
///
/// A bound for every way in which the dishonest split their stake: validators are drawn one after another without being put back,
/// so each dishonest one that was drawn leaves the honest a larger share of the rest. It is reached in the limit of many small ones.
pub fn none_honest(honest: Share, drawn: u64) -> Chance {
    honest.rest().chance().pow(drawn)
}

/// The same of `all` validators with equal stakes, `honest` of them honest: all are drawn where there are fewer than `drawn`.
pub fn none_honest_of(all: u64, honest: u64, drawn: u64) -> Chance {
    let bad = all.saturating_sub(honest);
    let mut miss = Chance::ONE;
    for i in 0..drawn.min(all) {
        if i >= bad {
            return Chance::ZERO;
        }
        miss = miss.and(Chance::ratio((bad - i).into(), (all - i).into()));
    }
    miss
}

/// The chance that a validator which skips a share `lazy` of its re-checks attests to `jobs` jobs, a share `canaries` of them
/// deliberately wrong, and to no canary that it skipped: (1 - c l)^j.
pub fn unnoticed(canaries: Share, lazy: Share, jobs: u64) -> Chance {
    let (num, den) = canaries.times(lazy);
    Chance::ratio(den - num, den).pow(jobs)
}

/// An exact fraction of what need not be a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// Numerator.
    pub num: u128,
    /// Denominator.
    pub den: u128,
}

impl Serialize for Fraction {
    /// Both numbers as text, since few readers of JSON take 128 bits, and the billionths, cut.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json {
            num: String,
            den: String,
            per_billion: u64,
        }
        // Multiplied as far as 128 bits reach.
        let billionths = match self.num.checked_mul(1_000_000_000) {
            Some(num) => num / self.den.max(1),
            None => self.num / (self.den / 1_000_000_000).max(1),
        };
        Json {
            num: self.num.to_string(),
            den: self.den.to_string(),
            per_billion: u64::try_from(billionths).unwrap_or(u64::MAX),
        }
        .serialize(to)
    }
}

/// What a validator stands to win and lose, in one unit of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stakes {
    /// A re-check's cost: what laziness saves a job.
    pub recheck: u64,
    /// What attesting to a canary loses for good: no puppet may get it back.
    pub slash: u64,
    /// What catching a canary pays.
    pub bounty: u64,
    /// Jobs that it can attest to until a canary among them is unmasked.
    pub in_flight: u64,
}

/// The share of canaries from which on laziness does not pay: w / (S + b - W w), `None` where no share does.
///
/// A lazy validator saves w a job until the first canary that it meets is unmasked, on average 1 / c + W jobs, and then loses S
/// and the bounty b that an honest one would have had. So it gains where (1 / c + W) w > S + b.
pub fn canaries_min(s: &Stakes) -> Option<Fraction> {
    let loss = u128::from(s.slash) + u128::from(s.bounty);
    let free = u128::from(s.recheck) * u128::from(s.in_flight);
    let den = loss.checked_sub(free)?;
    let num = u128::from(s.recheck);
    (num <= den && den != 0).then_some(Fraction { num, den })
}

/// What attesting must pay a job, so that an honest validator loses nothing: w - c b, rounded up.
pub fn pay_min(s: &Stakes, canaries: Share) -> u64 {
    s.recheck.saturating_sub(canaries.of(s.bounty))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!(none_honest(Share::ZERO, 8), Chance::ONE);
        assert_eq!(none_honest(Share::ONE, 8), Chance::ZERO);
        assert_eq!(none_honest(Share::ONE, 0), Chance::ONE);
        assert_eq!(none_honest(share("0.5"), 8), Chance::half_to(8));
        assert_eq!(none_honest_of(10, 0, 8), Chance::ONE);
        assert_eq!(none_honest_of(10, 10, 1), Chance::ZERO);
        assert_eq!(none_honest_of(0, 0, 8), Chance::ONE);
        // Fewer validators than places: all of them are drawn.
        assert_eq!(none_honest_of(5, 1, 8), Chance::ZERO);
        assert_eq!(none_honest_of(5, 0, 8), Chance::ONE);
        // 2 / 4 * 1 / 3.
        assert_eq!(
            none_honest_of(4, 2, 2),
            Chance::ratio(1, 2).and(Chance::ratio(1, 3))
        );
        assert_eq!(unnoticed(Share::ZERO, Share::ONE, 1_000), Chance::ONE);
        assert_eq!(unnoticed(Share::ONE, Share::ZERO, 1_000), Chance::ONE);
        assert_eq!(unnoticed(Share::ONE, Share::ONE, 1), Chance::ZERO);
    }

    #[test]
    fn laziness_pays_below_the_share_of_canaries_and_not_at_it() {
        let s = Stakes {
            recheck: 10,
            slash: 900,
            bounty: 100,
            in_flight: 0,
        };
        assert_eq!(canaries_min(&s), Some(Fraction { num: 10, den: 1000 }));
        assert_eq!(pay_min(&s, share("0.01")), 9);
        // 20 jobs unseen save 200 of the 1000.
        let slow = Stakes { in_flight: 20, ..s };
        assert_eq!(canaries_min(&slow), Some(Fraction { num: 10, den: 800 }));
        // A slash that what is in flight outweighs deters nobody.
        assert_eq!(canaries_min(&Stakes { in_flight: 100, ..s }), None);
        assert_eq!(
            canaries_min(&Stakes {
                slash: 0,
                bounty: 5,
                ..s
            }),
            None
        );
        let free = Stakes {
            recheck: 0,
            slash: 0,
            bounty: 0,
            in_flight: 0,
        };
        assert_eq!(canaries_min(&free), None);
    }

    proptest! {
        #[test]
        fn equal_stakes_are_never_worse_than_the_bound(all in 1u64..200, honest in 0u64..200, drawn in 0u64..40) {
            let honest = honest.min(all);
            let h = Share::new(honest, all).unwrap();
            // Drawing more than there are is drawing all.
            let equal = none_honest_of(all, honest, drawn);
            prop_assert!(equal.parts() <= none_honest(h, drawn.min(all)).parts() + 64);
        }

        #[test]
        fn more_validators_never_help_a_liar(all in 1u64..100, honest in 0u64..100, drawn in 0u64..100) {
            prop_assert!(none_honest_of(all, honest.min(all), drawn + 1) <= none_honest_of(all, honest.min(all), drawn));
        }
    }
}
