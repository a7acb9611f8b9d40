//! Sampling without sorting the vocabulary: the largest ids are selected a few at a time until they hold the
//! mass that the job keeps.

use rayon::prelude::*;

use crate::{
    Sampler,
    reference::sample::{Threshold, draw, holder, inverse_temperature, kept_mass, point, probability},
};

/// Logits a task.
const BLOCK: usize = 8192;
/// Ids that are sorted first; four times as many in each later round.
const FIRST_SORTED: usize = 256;

/// The token of a row of logits (rules S1 to S7).
pub(super) fn sample(logits: &[i32], f: u8, sampler: &Sampler, pos: u32) -> u32 {
    let max = logits
        .par_chunks(BLOCK)
        .map(|block| block.iter().copied().max().unwrap_or(i32::MIN))
        .max()
        .unwrap_or(0);
    match *sampler {
        Sampler::Greedy
        | Sampler::Random {
            temperature_q16: 0, ..
        } => logits.iter().position(|l| *l == max).unwrap_or(0) as u32,
        Sampler::Random {
            temperature_q16,
            top_k,
            top_p_q16,
            seed,
        } => {
            let inv = inverse_temperature(temperature_q16);
            let mut probs = vec![0; logits.len()];
            probs
                .par_chunks_mut(BLOCK)
                .zip(logits.par_chunks(BLOCK))
                .for_each(|(probs, logits)| {
                    for (p, l) in probs.iter_mut().zip(logits) {
                        *p = probability(*l, max, inv, f);
                    }
                });
            let t = threshold(&probs, top_k, top_p_q16);
            let mass = kept_mass(&probs, 0, t);
            holder(&probs, t, point(draw(seed, pos), mass))
        }
    }
}

/// S4, S5 as the reference has them, in expected linear time.
fn threshold(probs: &[u32], top_k: u32, top_p_q16: u32) -> Threshold {
    // One number whose ascending order is the rule's: probability down, then id up.
    let mut keys: Vec<u64> = (0u64..)
        .zip(probs)
        .map(|(id, p)| u64::from(!*p) << 32 | id)
        .collect();
    let p_of = |key: u64| !((key >> 32) as u32);
    if top_k != 0 && (top_k as usize) < keys.len() {
        keys.select_nth_unstable(top_k as usize);
        keys.truncate(top_k as usize);
    }
    let total: u64 = keys.iter().map(|k| u64::from(p_of(*k))).sum();
    let enough = u128::from(total) * u128::from(top_p_q16.min(1 << 16));
    let mut mass = 0u64;
    let mut last = Threshold { p: 0, id: u32::MAX };
    let (mut rest, mut count) = (keys.as_mut_slice(), FIRST_SORTED);
    while !rest.is_empty() {
        let taken = count.min(rest.len());
        if taken < rest.len() {
            rest.select_nth_unstable(taken);
        }
        let (sorted, later) = rest.split_at_mut(taken);
        sorted.sort_unstable();
        for key in sorted {
            let p = p_of(*key);
            mass += u64::from(p);
            last = Threshold { p, id: *key as u32 };
            if u128::from(mass) << 16 >= enough {
                return last;
            }
        }
        (rest, count) = (later, count * 4);
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    proptest! {
        #[test]
        fn the_threshold_is_the_sorted_one(
            probs in prop::collection::vec(prop_oneof![0u32..4, any::<u32>()], 1..2000),
            top_k in prop_oneof![Just(0u32), 1u32..2500], top_p in 0u32..70_000,
        ) {
            prop_assert_eq!(threshold(&probs, top_k, top_p), reference::sample::threshold(&probs, top_k, top_p));
        }

        #[test]
        fn the_token_is_the_reference_s(
            logits in prop::collection::vec(prop_oneof![-9i32..9, any::<i32>()], 1..3000), f in 0u8..31,
            temperature_q16: u16, top_k in 0u32..80, top_p_q16 in 0u32..70_000, seed: u64, pos: u32,
        ) {
            let temperature_q16 = u32::from(temperature_q16);
            for sampler in [Sampler::Greedy, Sampler::Random { temperature_q16, top_k, top_p_q16, seed }] {
                prop_assert_eq!(
                    sample(&logits, f, &sampler, pos),
                    reference::sample::sample(&logits, f, &sampler, pos)
                );
            }
        }
    }

    #[test]
    fn ties_over_blocks_go_to_the_lower_id() {
        let mut logits = vec![3; 3 * BLOCK + 1];
        assert_eq!(sample(&logits, 16, &Sampler::Greedy, 0), 0);
        logits[BLOCK - 1] = 4;
        logits[3 * BLOCK] = 4;
        assert_eq!(sample(&logits, 16, &Sampler::Greedy, 0), BLOCK as u32 - 1);
    }
}
