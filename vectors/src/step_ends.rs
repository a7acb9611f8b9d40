//! Inputs of steps at the ends of a rule, which chance does not find: draws at both ends of an interval, scales that
//! round up to the next power of two.

use bitai_kernels::{
    num::{bitlen, rsr},
    reference::{quant, sample as s},
    step::Kind,
};

/// A draw that holds, and the same with one number after the other changed: every answer of the step.
pub(crate) fn draws() -> Vec<Vec<u8>> {
    let logits = [65_536, 3_000, -9_000, 65_536, 40_000, -400_000, 60_000, 0];
    let (temperature, top_k, top_p, seed, pos) = (52_429u32, 5u32, 60_000u32, 77u64, 12u32);
    let probs = s::probabilities(&logits, temperature, 16);
    let k_cut = s::threshold(&probs, top_k, 1 << 16);
    let cut = s::threshold(&probs, top_k, top_p);
    let mass = s::kept_mass(&probs, 0, cut);
    let token = s::holder(&probs, cut, s::point(s::draw(seed, pos), mass));
    let sums = s::id_sums(&probs, 0, k_cut, cut, token);
    let build = |top_k: u32, top_p: u32, seed: u64, cut: s::Threshold, token: u32, sums: s::IdSums| {
        let mut b = vec![Kind::Draw as u8];
        for x in [logits.len() as u32, top_k, top_p] {
            b.extend(x.to_le_bytes());
        }
        b.extend(seed.to_le_bytes());
        for x in [
            pos,
            k_cut.p,
            k_cut.id,
            cut.p,
            cut.id,
            probs[token as usize],
            token,
            sums.k_count,
        ] {
            b.extend(x.to_le_bytes());
        }
        b.extend(sums.k_mass.to_le_bytes());
        b.extend(sums.count.to_le_bytes());
        b.extend(sums.mass.to_le_bytes());
        b.extend(sums.below.to_le_bytes());
        b
    };
    let other = (token + 1) % 8;
    // Where the interval begins and ends: the draw at its first and last number, and one beside each.
    let (point, own) = (
        s::point(s::draw(seed, pos), mass),
        u64::from(probs[token as usize]),
    );
    let ends = [point, point + 1, point + 1 - own, point - own]
        .map(|below| build(top_k, top_p, seed, cut, token, s::IdSums { below, ..sums }));
    let mut all = ends.to_vec();
    all.extend([
        build(top_k, top_p, seed, cut, token, sums),
        build(top_k, top_p, seed + 1, cut, token, sums),
        build(top_k, top_p, seed, cut, other, sums),
        build(0, top_p, seed, cut, token, sums),
        build(top_k + 1, top_p, seed, cut, token, sums),
        build(top_k, 0, seed, cut, token, sums),
        build(top_k, u32::MAX, seed, cut, token, sums),
        build(
            top_k,
            top_p,
            seed,
            s::Threshold { p: u32::MAX, ..cut },
            token,
            sums,
        ),
        build(
            top_k,
            top_p,
            seed,
            cut,
            token,
            s::IdSums {
                below: u64::MAX,
                ..sums
            },
        ),
        build(
            top_k,
            top_p,
            seed,
            cut,
            token,
            s::IdSums {
                mass: 0,
                count: 1,
                ..sums
            },
        ),
    ]);
    all
}

/// Largest magnitudes whose scale rounds up to the next power of two (the end of rule Q4).
pub(crate) fn round_scales() -> Vec<Vec<u8>> {
    [1u8, 2]
        .into_iter()
        .flat_map(|planes| {
            let q = quant::q_max(planes);
            let up = move |max: &u32| {
                let m = (i64::from(*max) << 20) / q;
                rsr(m, bitlen(m.unsigned_abs()) - 16) == 1 << 16
            };
            (1u32 << 23..1 << 24).filter(up).take(2).map(move |max| {
                let max = max.to_le_bytes();
                [&[Kind::QuantScale as u8, planes, 16, 0][..], &max, &max].concat()
            })
        })
        .collect()
}
