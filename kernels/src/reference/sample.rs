//! Sampling (rules S1 to S7): greedy, or a draw from integer probabilities. Ties go to the lower id.

use crate::{Sampler, reference::exp2::exp2_neg};

/// Tag of the draw's hash.
pub const SAMPLE_TAG: &[u8; 16] = b"bitai/sample/v0\0";
/// log2(e) in Q16.
const LOG2_E_Q16: u64 = 94_548;

/// S1: the lowest id of the largest logit; 0 for no logits.
pub fn greedy(logits: &[i32]) -> u32 {
    let mut best = 0;
    for (i, l) in logits.iter().enumerate() {
        if *l > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// S2: log2(e) / temperature in Q32; `temperature_q16` > 0.
pub fn inverse_temperature(temperature_q16: u32) -> u64 {
    (LOG2_E_Q16 << 32) / u64::from(temperature_q16.max(1))
}

/// S3: the integer probability (Q31, not normalised) of a logit when the largest is `max`.
pub fn probability(logit: i32, max: i32, inv_temp: u64, f: u8) -> u32 {
    let d = u128::from((i64::from(max) - i64::from(logit)).max(0).unsigned_abs());
    let z = (d * u128::from(inv_temp)) >> (16 + u32::from(f.min(30)));
    exp2_neg(z.min(1 << 32) as u64, 16)
}

/// S4: a kept set's last member in the order (probability down, id up).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// Probability of the last member.
    pub p: u32,
    /// Its id.
    pub id: u32,
}

impl Threshold {
    /// Whether an id with probability `p` is kept.
    pub const fn keeps(&self, p: u32, id: u32) -> bool {
        p > self.p || (p == self.p && id <= self.id)
    }
}

/// S4, S5: the threshold that `top_k` and then `top_p` cut at.
pub fn threshold(probs: &[u32], top_k: u32, top_p_q16: u32) -> Threshold {
    let mut order: Vec<u32> = (0..probs.len() as u32).collect();
    order.sort_unstable_by_key(|id| (std::cmp::Reverse(probs[*id as usize]), *id));
    if top_k != 0 {
        order.truncate(top_k as usize);
    }
    let total: u64 = order.iter().map(|id| u64::from(probs[*id as usize])).sum();
    let mut mass = 0u64;
    let mut last = Threshold { p: 0, id: u32::MAX };
    for id in order {
        let p = probs[id as usize];
        mass += u64::from(p);
        last = Threshold { p, id };
        // mass / total >= top_p, without a division.
        if u128::from(mass) << 16 >= u128::from(total) * u128::from(top_p_q16.min(1 << 16)) {
            break;
        }
    }
    last
}

/// S5: the mass of the kept ids of a piece, ids counting from `first`; pieces add up to their parent.
pub fn kept_mass(probs: &[u32], first: u32, t: Threshold) -> u64 {
    (first..)
        .zip(probs)
        .filter(|(id, p)| t.keeps(**p, *id))
        .map(|(_, p)| u64::from(*p))
        .sum()
}

/// S1: whether an id with logit `other` stands before one with logit `mine`.
pub const fn stands_before((other, id): (i32, u32), (mine, token): (i32, u32)) -> bool {
    other > mine || (other == mine && id < token)
}

/// Sums over some ids of a random draw, under a claimed top-k and a claimed last threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdSums {
    /// Ids that top-k keeps.
    pub k_count: u32,
    /// Their mass.
    pub k_mass: u64,
    /// Ids that the last threshold keeps.
    pub count: u32,
    /// Their mass.
    pub mass: u64,
    /// Mass of those below the sampled id.
    pub below: u64,
}

impl IdSums {
    /// The two sums together. Saturates, which only hostile sums reach: the masses of 2^20 ids are below 2^52.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            k_count: self.k_count.saturating_add(other.k_count),
            k_mass: self.k_mass.saturating_add(other.k_mass),
            count: self.count.saturating_add(other.count),
            mass: self.mass.saturating_add(other.mass),
            below: self.below.saturating_add(other.below),
        }
    }
}

/// S4, S5: the sums over ids `first ..` with these probabilities; pieces add up to their parent.
pub fn id_sums(probs: &[u32], first: u32, top_k: Threshold, cut: Threshold, token: u32) -> IdSums {
    (0..).zip(probs).fold(IdSums::default(), |sums, (i, p)| {
        let id = first.saturating_add(i);
        let mass = u64::from(*p);
        let (in_k, kept) = (top_k.keeps(*p, id), cut.keeps(*p, id));
        sums.plus(IdSums {
            k_count: u32::from(in_k),
            k_mass: if in_k { mass } else { 0 },
            count: u32::from(kept),
            mass: if kept { mass } else { 0 },
            below: if kept && id < token { mass } else { 0 },
        })
    })
}

/// S4, S5: whether thresholds with these sums over all ids cut where the job says: top-k's keeps exactly `top_k`
/// ids (or there is none), and the kept set is the shortest that reaches `top_p` of top-k's mass.
pub fn cuts(sums: IdSums, vocab: u32, top_k: u32, top_p_q16: u32, k_cut: Threshold, cut: Threshold) -> bool {
    let k_holds = if top_k == 0 {
        k_cut == Threshold { p: 0, id: u32::MAX }
    } else {
        sums.k_count == top_k.min(vocab)
    };
    let need = u128::from(sums.k_mass) * u128::from(top_p_q16.min(1 << 16));
    let reaches = |mass: u64| u128::from(mass) << 16 >= need;
    let without_last = sums.mass.checked_sub(u64::from(cut.p));
    let shortest = sums.count == 1 || without_last.is_some_and(|mass| !reaches(mass));
    k_holds && reaches(sums.mass) && shortest
}

/// S6, S7: whether the draw `u` falls in the interval of the kept id `token` of probability `p`.
pub fn holds_draw(sums: IdSums, cut: Threshold, p: u32, token: u32, u: u64) -> bool {
    let r = point(u, sums.mass);
    cut.keeps(p, token) && sums.below <= r && r - sums.below < u64::from(p)
}

/// S6: the draw at a position, a uniform 64-bit number.
pub fn draw(seed: u64, pos: u32) -> u64 {
    let mut h = blake3::Hasher::new();
    h.update(SAMPLE_TAG);
    h.update(&seed.to_le_bytes());
    h.update(&pos.to_le_bytes());
    let mut u = [0; 8];
    u.copy_from_slice(&h.finalize().as_bytes()[..8]);
    u64::from_le_bytes(u)
}

/// S6: where in the kept mass the draw falls.
pub fn point(u: u64, mass: u64) -> u64 {
    ((u128::from(u) * u128::from(mass)) >> 64) as u64
}

/// S7: the kept id whose interval holds `r`, ids ascending; 0 where there is none (no logits).
pub fn holder(probs: &[u32], t: Threshold, r: u64) -> u32 {
    let mut below = 0u64;
    for (id, p) in (0..).zip(probs) {
        if t.keeps(*p, id) {
            below += u64::from(*p);
            if r < below {
                return id;
            }
        }
    }
    0
}

/// All probabilities of a row (S3).
pub fn probabilities(logits: &[i32], temperature_q16: u32, f: u8) -> Vec<u32> {
    let max = logits.iter().copied().max().unwrap_or(0);
    let inv = inverse_temperature(temperature_q16);
    logits.iter().map(|l| probability(*l, max, inv, f)).collect()
}

/// The token of a row of logits at position `pos`. A temperature of 0 is greedy.
pub fn sample(logits: &[i32], f: u8, sampler: &Sampler, pos: u32) -> u32 {
    match *sampler {
        Sampler::Greedy
        | Sampler::Random {
            temperature_q16: 0, ..
        } => greedy(logits),
        Sampler::Random {
            temperature_q16,
            top_k,
            top_p_q16,
            seed,
        } => {
            let probs = probabilities(logits, temperature_q16, f);
            let t = threshold(&probs, top_k, top_p_q16);
            let mass = kept_mass(&probs, 0, t);
            holder(&probs, t, point(draw(seed, pos), mass))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(top_k: u32, top_p_q16: u32, seed: u64) -> Sampler {
        Sampler::Random {
            temperature_q16: 1 << 16,
            top_k,
            top_p_q16,
            seed,
        }
    }

    #[test]
    fn ties_go_to_the_lower_id() {
        assert_eq!(greedy(&[1, 5, 5, 2]), 1);
        assert_eq!(greedy(&[i32::MIN; 4]), 0);
        let probs = [7, 9, 9, 7];
        assert_eq!(threshold(&probs, 1, 1 << 16), Threshold { p: 9, id: 1 });
        assert_eq!(threshold(&probs, 3, 1 << 16), Threshold { p: 7, id: 0 });
    }

    #[test]
    fn top_p_keeps_the_smallest_prefix_that_reaches_the_mass() {
        let probs = [10, 40, 30, 20];
        assert_eq!(threshold(&probs, 0, 65_536 * 4 / 10), Threshold { p: 40, id: 1 });
        assert_eq!(threshold(&probs, 0, 65_536 * 7 / 10), Threshold { p: 30, id: 2 });
        assert_eq!(threshold(&probs, 0, 65_536), Threshold { p: 10, id: 0 });
        assert_eq!(threshold(&probs, 0, 0), Threshold { p: 40, id: 1 });
    }

    #[test]
    fn draws_follow_the_probabilities() {
        // Two logits one bit apart (ln 2 in Q16): 2 to 1.
        let logits = [0, 45_426, -(50 << 16)];
        let hits = (0..3000u32)
            .filter(|p| sample(&logits, 16, &random(0, 1 << 16, 5), *p) == 1)
            .count();
        assert!((1900..2100).contains(&hits), "{hits}");
    }

    proptest! {
        #[test]
        fn the_token_is_kept_and_in_range(
            logits in prop::collection::vec(any::<i32>(), 1..50), f: u8, temperature_q16: u32,
            top_k in 0u32..60, top_p_q16: u32, seed: u64, pos: u32,
        ) {
            let s = Sampler::Random { temperature_q16, top_k, top_p_q16, seed };
            let id = sample(&logits, f, &s, pos);
            prop_assert!((id as usize) < logits.len());
            if temperature_q16 == 0 {
                prop_assert_eq!(id, greedy(&logits));
            }
            if temperature_q16 != 0 {
                let probs = probabilities(&logits, temperature_q16, f);
                let t = threshold(&probs, top_k, top_p_q16);
                prop_assert!(t.keeps(probs[id as usize], id));
                prop_assert!(probs[id as usize] > 0);
                if top_k == 1 {
                    prop_assert_eq!(Some(&probs[id as usize]), probs.iter().max());
                }
                let (a, b) = probs.split_at(probs.len() / 2);
                prop_assert_eq!(kept_mass(&probs, 0, t),
                    kept_mass(a, 0, t) + kept_mass(b, a.len() as u32, t));
            }
        }
    }
}
