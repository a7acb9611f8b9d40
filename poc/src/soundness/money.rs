//! What lying wins and loses, in satoshis: the collateral from which on it does not pay, the bond, the challenger's purse.

use alloy_primitives::U256;
use serde::Serialize;

use super::chance::Chance;

/// Wei that a satoshi is worth where one coin of 10^18 wei stands for one bitcoin (the inscriber's default price).
pub const WEI_PER_SAT: u64 = 10_000_000_000;

/// Satoshis that `gas` burns at a base fee in wei, rounded up.
pub fn burned(gas: u64, base_fee: u64) -> u64 {
    let wei = u128::from(gas) * u128::from(base_fee);
    u64::try_from(wei.div_ceil(WEI_PER_SAT.into())).unwrap_or(u64::MAX)
}

/// One job as a liar sees it, in satoshis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Job {
    /// What the neuron is paid.
    pub fee: u64,
    /// What generating costs, and faking saves: at most the fee, or nobody would serve for it.
    pub saved: u64,
    /// What a wrong answer is worth to somebody beside the fee, if it stands.
    pub value: u64,
}

/// The least collateral with which an honest answer earns no less than a false one that stands with chance `miss`.
///
/// Honest: F - g. False: (1 - d) (F + V) - d C / 2, where d = 1 - miss: of a slash only the half that is burned is lost for sure,
/// since the other half may go to a challenger that is the liar's own puppet. So C >= 2 ((g + V) / d - F - V), rounded up; `None`
/// where lies are never caught.
pub fn collateral_min(job: &Job, miss: Chance) -> Option<U256> {
    let one: U256 = U256::ONE << 64;
    let caught = one - U256::from(miss.parts());
    if caught.is_zero() {
        return None;
    }
    let gain = (U256::from(job.saved) + U256::from(job.value)) * one;
    let kept = U256::from(job.fee) + U256::from(job.value);
    // Doubled before the division, so that it is rounded once.
    let needed = (gain * U256::from(2)).div_ceil(caught);
    Some(needed.saturating_sub(kept * U256::from(2)))
}

/// A challenger's purse where it wins: half of the collateral, less what it spent.
pub const fn reward(collateral: u64, spent: u64) -> i128 {
    collateral as i128 / 2 - spent as i128
}

/// The collateral that just repays a challenger what it spent.
pub const fn repaid_at(spent: u64) -> u64 {
    spent.saturating_mul(2)
}

/// Of how many re-checked jobs one must be a lie, so that re-checking pays by rewards alone; `None` where a won dispute itself pays nothing.
pub fn jobs_a_lie(collateral: u64, spent: u64, recheck: u64) -> Option<u64> {
    let reward = reward(collateral, spent);
    if reward <= 0 {
        return None;
    }
    let jobs = reward / i128::from(recheck.max(1));
    Some(u64::try_from(jobs).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JOB: Job = Job {
        fee: 10_000,
        saved: 10_000,
        value: 0,
    };

    fn earns(job: &Job, miss: Chance, collateral: U256) -> (i128, i128) {
        // In parts of 2^64 of a satoshi; the numbers of the tests are small.
        let (miss, one) = (miss.parts() as i128, 1i128 << 64);
        let burned = i128::from(u64::try_from(collateral).unwrap());
        let lie = 2 * miss * i128::from(job.fee + job.value) - (one - miss) * burned;
        (2 * one * i128::from(job.fee - job.saved), lie)
    }

    #[test]
    fn a_certain_catch_needs_no_collateral_and_none_suffices_without_one() {
        assert_eq!(collateral_min(&JOB, Chance::ZERO), Some(U256::ZERO));
        assert_eq!(collateral_min(&JOB, Chance::ONE), None);
        // Caught every second time: 2 (2 F - F).
        assert_eq!(collateral_min(&JOB, Chance::half_to(1)), Some(U256::from(20_000)));
        // A wrong answer that is worth a million, caught but for 2^-8.
        let worth = Job {
            value: 1_000_000,
            ..JOB
        };
        let c = collateral_min(&worth, Chance::half_to(8)).unwrap();
        assert_eq!(c, U256::from(2u64 * 1_010_000).div_ceil(U256::from(255)));
    }

    #[test]
    fn a_purse_can_be_empty() {
        assert_eq!(reward(1_000, 600), -100);
        assert_eq!(repaid_at(600), 1_200);
        assert_eq!(jobs_a_lie(1_000, 600, 10), None);
        assert_eq!(jobs_a_lie(2_000, 600, 10), Some(40));
        assert_eq!(jobs_a_lie(2_000, 600, 0), Some(400));
        assert_eq!(burned(1, 1), 1);
        assert_eq!(burned(4_000_000, 1_000_000), 400);
    }

    proptest! {
        #[test]
        fn at_the_least_collateral_lying_wins_nothing_and_below_it_does(fee in 1u64..100_000, saved in 0u64..100_000, value in 0u64..1_000_000, bits in 1u64..1_000) {
            let job = Job { fee, saved: saved.min(fee), value };
            let miss = Chance::ratio(bits.into(), 1_001);
            let c = collateral_min(&job, miss).unwrap();
            let (honest, lie) = earns(&job, miss, c);
            prop_assert!(lie <= honest);
            if c > U256::ZERO {
                let (honest, lie) = earns(&job, miss, c - U256::ONE);
                prop_assert!(lie > honest);
            }
        }
    }
}
