//! What a Bitcoin miner can do to a draw: it may throw a block away whose hash it dislikes, and loses the reward.

use super::{attest::Fraction, chance::Share};

/// Satoshis of the first subsidy.
const FIRST: u64 = 50 * 100_000_000;
/// Blocks between halvings (Bitcoin Core, `nSubsidyHalvingInterval`).
pub const HALVING: u64 = 210_000;

/// Satoshis that a Bitcoin block at this height makes, without fees.
pub const fn subsidy(height: u64) -> u64 {
    let halvings = height / HALVING;
    if halvings >= 64 { 0 } else { FIRST >> halvings }
}

/// The most that one beacon may decide, in satoshis: all draws of its height together.
///
/// A miner that holds a block which it dislikes gives up `reward` for another draw, which pleases it with chance `e`. So it
/// publishes as long as e V < R, whatever its share of the hash power; e <= 1, so that V <= R is safe for every draw.
pub const fn limit(reward: u64) -> u64 {
    reward
}

/// The same where another draw pleases it with chance `e` only: R / e; `None` where it never does.
pub fn limit_at(reward: u64, e: Share) -> Option<u128> {
    let (num, den) = e.parts();
    (num != 0).then(|| u128::from(reward) * u128::from(den) / u128::from(num))
}

/// How much likelier a miner with share `p` of the hash power makes an event of chance `e` by withholding one block: p e (1 - e).
pub fn bias_once(p: Share, e: Share) -> Fraction {
    let ((p, pd), (e, ed)) = (p.parts(), e.parts());
    Fraction {
        num: u128::from(p) * u128::from(e) * u128::from(ed - e),
        den: u128::from(pd) * u128::from(ed) * u128::from(ed),
    }
}

/// The event's chance where it withholds as often as it can: x = e + p (1 - e) x, so e / (1 - p (1 - e)); 1 where p = 1.
pub fn with_all(p: Share, e: Share) -> Fraction {
    let ((p, pd), (e, ed)) = (p.parts(), e.parts());
    let (p, pd, e, ed) = (u128::from(p), u128::from(pd), u128::from(e), u128::from(ed));
    let den = pd * ed - p * (ed - e);
    if den == 0 {
        return Fraction { num: 0, den: 1 };
    }
    Fraction { num: e * pd, den }
}

/// How many draws of this worth one beacon may decide.
pub const fn draws(reward: u64, worth: u64) -> u64 {
    match reward.checked_div(worth) {
        Some(n) => n,
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    #[test]
    fn the_reward_halves() {
        assert_eq!(subsidy(0), 5_000_000_000);
        assert_eq!(subsidy(209_999), 5_000_000_000);
        assert_eq!(subsidy(840_000), 312_500_000);
        assert_eq!(subsidy(1_049_999), 312_500_000);
        assert_eq!(subsidy(1_050_000), 156_250_000);
        assert_eq!(subsidy(33 * HALVING), 0);
        assert_eq!(subsidy(u64::MAX), 0);
        // 21 million, but for what halving cuts off.
        let all: u64 = (0..64).map(|e| subsidy(e * HALVING) * HALVING).sum();
        assert_eq!(all, 2_099_999_997_690_000);
    }

    #[test]
    fn withholding_biases_by_hash_power_alone() {
        assert_eq!(bias_once(Share::ZERO, share("0.5")).num, 0);
        assert_eq!(bias_once(Share::ONE, Share::ONE).num, 0);
        let b = bias_once(share("0.3"), share("0.5"));
        // 0.3 / 4.
        assert_eq!(b.num * 1000, b.den * 75);
        // All of the hash power gets what it wants in the end, none gets the fair chance.
        let all = with_all(Share::ONE, share("0.25"));
        assert_eq!(all.num, all.den);
        let none = with_all(Share::ZERO, share("0.25"));
        assert_eq!(none.num * 4, none.den);
        // An event that cannot be stays impossible.
        assert_eq!(with_all(Share::ONE, Share::ZERO).num, 0);
    }

    #[test]
    fn what_a_beacon_may_decide_is_a_block() {
        let r = subsidy(900_000);
        assert_eq!(limit(r), 312_500_000);
        assert_eq!(limit_at(r, share("0.5")), Some(625_000_000));
        assert_eq!(limit_at(r, Share::ONE), Some(312_500_000));
        assert_eq!(limit_at(r, Share::ZERO), None);
        assert_eq!(draws(r, 12_752), 24_505);
        assert_eq!(draws(r, 0), u64::MAX);
    }
}
