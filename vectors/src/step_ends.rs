//! Inputs of steps at the ends of a rule, which chance does not find: draws at both ends of an interval, scales that
//! round up to the next power of two.

use bitai_kernels::{
    conformance::build::Rng,
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

/// The fields of a draw's step.
#[derive(Clone, Copy)]
struct Draw {
    vocab: u32,
    sampler: (u32, u32),
    at: (u64, u32),
    cuts: (s::Threshold, s::Threshold),
    own: u32,
    token: u32,
    sums: s::IdSums,
}

impl Draw {
    /// What an honest neuron publishes of random logits, `rng`'s next.
    fn honest(rng: &mut Rng, vocab: u32, (top_k, top_p): (u32, u32)) -> Self {
        let logits: Vec<i32> = (0..vocab).map(|_| rng.range(-150_000, 150_000) as i32).collect();
        let at = (rng.draw(), rng.draw() as u32 % 4_096);
        let probs = s::probabilities(&logits, rng.range(40_000, 130_000) as u32, 16);
        let mut order: Vec<(std::cmp::Reverse<u32>, u32)> = (0..)
            .zip(&probs)
            .map(|(id, p)| (std::cmp::Reverse(*p), id))
            .collect();
        order.sort_unstable();
        let last = order[(top_k.min(vocab) as usize).saturating_sub(1)];
        let k_cut = match top_k {
            0 => s::Threshold { p: 0, id: u32::MAX },
            _ => s::Threshold {
                p: last.0.0,
                id: last.1,
            },
        };
        let cut = s::threshold(&probs, top_k, top_p);
        let token = s::holder(
            &probs,
            cut,
            s::point(s::draw(at.0, at.1), s::kept_mass(&probs, 0, cut)),
        );
        Self {
            vocab,
            sampler: (top_k, top_p),
            at,
            cuts: (k_cut, cut),
            own: probs[token as usize],
            token,
            sums: s::id_sums(&probs, 0, k_cut, cut, token),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut b = vec![Kind::Draw as u8];
        for x in [self.vocab, self.sampler.0, self.sampler.1] {
            b.extend(x.to_le_bytes());
        }
        b.extend(self.at.0.to_le_bytes());
        let (k, cut) = self.cuts;
        for x in [
            self.at.1,
            k.p,
            k.id,
            cut.p,
            cut.id,
            self.own,
            self.token,
            self.sums.k_count,
        ] {
            b.extend(x.to_le_bytes());
        }
        b.extend(self.sums.k_mass.to_le_bytes());
        b.extend(self.sums.count.to_le_bytes());
        b.extend(self.sums.mass.to_le_bytes());
        b.extend(self.sums.below.to_le_bytes());
        b
    }
}

/// Draws of random logits that hold, each with hostile numbers in their place, and with no vocabulary at all.
pub(crate) fn more_draws() -> Vec<Vec<u8>> {
    let mut rng = Rng::new("vectors draws");
    let mut all = vec![];
    for (vocab, sampler) in [
        (1, (0, 65_536)),
        (2, (1, 1)),
        (8, (3, 40_000)),
        (33, (0, 50_000)),
        (200, (40, 60_000)),
        (200, (1_000, 65_536)),
    ] {
        let d = Draw::honest(&mut rng, vocab, sampler);
        let sums = |change: fn(&mut s::IdSums)| {
            let mut d = d;
            change(&mut d.sums);
            d
        };
        all.extend([
            d,
            Draw { vocab: 0, ..d },
            Draw { vocab: u32::MAX, ..d },
            Draw { own: 0, ..d },
            Draw { own: u32::MAX, ..d },
            Draw { token: u32::MAX, ..d },
            sums(|s| s.k_count = 0),
            sums(|s| s.k_count = u32::MAX),
            sums(|s| s.k_mass = u64::MAX),
            sums(|s| s.k_mass = 0),
            sums(|s| s.mass = u64::MAX),
            sums(|s| (s.k_mass, s.mass) = (u64::MAX, u64::MAX)),
            sums(|s| (s.count, s.mass, s.below) = (1, u64::MAX, u64::MAX)),
        ]);
        // No vocabulary: top-k keeps none of no ids, whatever its mass is said to be.
        let mut none = Draw { vocab: 0, ..d };
        none.sums.k_count = 0;
        all.push(none);
        none.sums = s::IdSums::default();
        all.push(none);
    }
    all.iter().map(Draw::bytes).collect()
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
