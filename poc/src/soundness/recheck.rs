//! Tier 1: whoever doubts an answer computes it again. What goes unseen, how many must look, what it costs.

use super::chance::{Chance, Share};

/// The chance that `checkers` honest parties, each re-checking a share `q` of all jobs at random, all leave out the one
/// job that holds a wrong committed integer: (1 - q)^k. Who does re-check it sees it: equal roots are equal integers
/// (docs/spec/poc.md, section 4), but for a collision of hashes.
pub fn unseen(q: Share, checkers: u64) -> Chance {
    q.rest().chance().pow(checkers)
}

/// The fewest independent tries, each failing with `miss`, that all fail with a chance of at most `2^-bits`; `None` where
/// no number does.
pub fn tries_for(miss: Chance, bits: u32) -> Option<u64> {
    let goal = Chance::half_to(bits);
    if miss >= Chance::ONE {
        return None;
    }
    let mut most = 1u64;
    while miss.pow(most) > goal {
        most = most.checked_mul(2)?;
    }
    let mut least = most / 2;
    while most - least > 1 {
        let mid = least + (most - least) / 2;
        if miss.pow(mid) > goal {
            least = mid
        } else {
            most = mid
        }
    }
    Some(most)
}

/// The fewest checkers for `2^-bits`; `None` where nobody looks at anything.
pub fn checkers_for(q: Share, bits: u32) -> Option<u64> {
    tries_for(q.rest().chance(), bits)
}

/// Work of all checkers together, in thousandths of generating, rounded up: k q c.
pub fn cost_permille(q: Share, checkers: u64, cost: Share) -> u64 {
    let (num, den) = q.times(cost);
    let work = num
        .saturating_mul(checkers.into())
        .saturating_mul(1000)
        .div_ceil(den);
    u64::try_from(work).unwrap_or(u64::MAX)
}

/// The chance that somebody who computes `2^work` hashes finds two inputs of one 256-bit hash (birthday bound
/// n^2 / 2^257): two different transcripts behind one root, of which one is shown and the other disputed.
pub fn collision(work: u32) -> Chance {
    Chance::half_to(257u32.saturating_sub(work.saturating_mul(2)))
}

/// The chance that `2^work` hashes meet a given one: a transcript behind somebody else's root.
pub fn preimage(work: u32) -> Chance {
    Chance::half_to(256u32.saturating_sub(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!(unseen(Share::ZERO, 1000), Chance::ONE);
        assert_eq!(unseen(Share::ONE, 1), Chance::ZERO);
        assert_eq!(unseen(Share::ONE, 0), Chance::ONE);
        assert_eq!(checkers_for(Share::ZERO, 40), None);
        assert_eq!(checkers_for(Share::ONE, 40), Some(1));
        assert_eq!(checkers_for(share("0.5"), 40), Some(40));
        assert_eq!(checkers_for(share("0.5"), 0), Some(1));
    }

    #[test]
    fn the_number_of_checkers_is_the_least_that_suffices() {
        for q in ["0.9", "0.1", "0.01", "0.000000001"] {
            let k = checkers_for(share(q), 40).unwrap();
            assert!(unseen(share(q), k) <= Chance::half_to(40), "{q}");
            assert!(unseen(share(q), k - 1) > Chance::half_to(40), "{q}");
        }
        // 40 ln 2 / -ln 0.9 = 263.2.
        assert_eq!(checkers_for(share("0.1"), 40), Some(264));
    }

    #[test]
    fn all_that_look_at_all_cost_a_third_each() {
        assert_eq!(cost_permille(Share::ONE, 3, Share::new(1, 3).unwrap()), 1000);
        assert_eq!(cost_permille(share("0.1"), 1, share("0.328")), 33);
        assert_eq!(cost_permille(Share::ZERO, 9, Share::ONE), 0);
    }

    #[test]
    fn hashes_hold_as_long_as_work_is_far_below_128_bits() {
        assert_eq!(collision(128), Chance::half_to(1));
        assert_eq!(collision(80), Chance::half_to(97));
        assert_eq!(collision(200), Chance::ONE);
        assert_eq!(preimage(80), Chance::half_to(176));
        assert_eq!(preimage(300), Chance::ONE);
    }
}
