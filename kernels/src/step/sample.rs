//! Steps of sampling: a logit's probability, sums over ids, the draw, and what greedy jobs compare.

use super::{Reader, StepError};
use crate::reference::sample::{
    IdSums, cuts, draw as drawn, holds_draw, id_sums, inverse_temperature, probability as probability_of,
    stands_before,
};

type Out = Result<Vec<u8>, StepError>;

/// S2, S3.
pub(super) fn probability(r: &mut Reader<'_>) -> Out {
    let (f, temperature, max, logit) = (r.u8()?, r.u32()?, r.i32()?, r.i32()?);
    let p = probability_of(logit, max, inverse_temperature(temperature), f);
    Ok(p.to_le_bytes().to_vec())
}

fn read_sums(r: &mut Reader<'_>) -> Result<IdSums, StepError> {
    Ok(IdSums {
        k_count: r.u32()?,
        k_mass: r.u64()?,
        count: r.u32()?,
        mass: r.u64()?,
        below: r.u64()?,
    })
}

fn write_sums(s: &IdSums) -> Vec<u8> {
    let mut out = s.k_count.to_le_bytes().to_vec();
    out.extend(s.k_mass.to_le_bytes());
    out.extend(s.count.to_le_bytes());
    out.extend(s.mass.to_le_bytes());
    out.extend(s.below.to_le_bytes());
    out
}

/// S3 to S5.
pub(super) fn sums(r: &mut Reader<'_>) -> Out {
    let (f, temperature, max) = (r.u8()?, r.u32()?, r.i32()?);
    let (top_k, cut, token, first) = (r.threshold()?, r.threshold()?, r.u32()?, r.u32()?);
    let n = r.count()?;
    let inv = inverse_temperature(temperature);
    let probs: Vec<u32> = r
        .i32s(n)?
        .into_iter()
        .map(|logit| probability_of(logit, max, inv, f))
        .collect();
    Ok(write_sums(&id_sums(&probs, first, top_k, cut, token)))
}

/// S5.
pub(super) fn total(r: &mut Reader<'_>) -> Out {
    let n = r.count()?;
    let mut total = IdSums::default();
    for _ in 0..n {
        total = total.plus(read_sums(r)?);
    }
    Ok(write_sums(&total))
}

/// S4 to S7: 0 = both hold, 1 = a threshold cuts elsewhere, 2 = the draw falls outside the id's interval.
pub(super) fn draw(r: &mut Reader<'_>) -> Out {
    let (vocab, k, p) = (r.u32()?, r.u32()?, r.u32()?);
    let (seed, pos) = (r.u64()?, r.u32()?);
    let (top_k, cut) = (r.threshold()?, r.threshold()?);
    let (own, token) = (r.u32()?, r.u32()?);
    let sums = read_sums(r)?;
    Ok(vec![if !cuts(sums, vocab, k, p, top_k, cut) {
        1
    } else if holds_draw(sums, cut, own, token, drawn(seed, pos)) {
        0
    } else {
        2
    }])
}

/// S1: 1 where the other id stands before the sampled one.
pub(super) fn greedy(r: &mut Reader<'_>) -> Out {
    let (mine, other) = ((r.i32()?, r.u32()?), (r.i32()?, r.u32()?));
    Ok(vec![u8::from(stands_before(other, mine))])
}
