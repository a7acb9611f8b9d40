//! Scores, shares and weights of many keys at once: the reference's rules A3 to A6 as loops over 32-bit lanes
//! without a branch, which the compiler turns into vector code of whatever width it may use.
//!
//! Each function is inlined into a caller that is compiled for the processor at hand. Wrapping operators, because
//! overflow checks stop vectorisation; the bounds in `docs/spec/tensor.md` (A3 to A6) say that nothing wraps but
//! where that is meant. They hold for units and a maximum that are true, which the caller's are.

use crate::{
    num::Scale,
    reference::{
        attention::{QueryFactor, dither, dot_shift, exponent},
        exp2::EXP2,
    },
};

/// Bits of a plane of weights: a non-negative int16.
pub(super) const PLANE_BITS: u32 = 15;
/// Keys after which the dither comes again.
const DITHER: usize = 256;

/// [`dither`] of every position twice over, so that a run of [`DITHER`] can start anywhere.
static DITHERS: [u32; 2 * DITHER] = {
    let mut all = [0; 2 * DITHER];
    let mut i = 0;
    while i < all.len() {
        all[i] = dither(i as u32);
        i += 1;
    }
    all
};

/// The dithers of 8 keys, the first at position `key`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn dithers(key: usize) -> &'static [u32; 8] {
    const NONE: [u32; 8] = [0; 8];
    DITHERS[key % DITHER..].first_chunk().unwrap_or(&NONE)
}

/// The factors (A3) of the visible keys, or of the values, of one head.
#[derive(Debug, Default)]
pub(super) struct Factors {
    scales: Vec<Scale>,
    unit: Option<i16>,
    all: Vec<u32>,
}

impl Factors {
    /// Forgets every key.
    pub(super) fn clear(&mut self) {
        self.scales.clear();
        self.all.clear();
        self.unit = None;
    }

    /// Keys whose scales are held.
    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }

    /// Takes the scales of the next keys.
    pub(super) fn read(&mut self, scales: impl Iterator<Item = Scale>) {
        self.scales.extend(scales);
    }

    /// Makes the factors that are not made yet; `factor` is A3's for a scale and a unit.
    pub(super) fn make(&mut self, factor: impl Fn(Scale, Option<i16>) -> u32) {
        let new = &self.scales[self.all.len()..];
        let unit = new.iter().filter_map(|s| exponent(*s)).max();
        if unit > self.unit {
            // A larger unit is another factor for every key.
            self.unit = unit;
            self.all.clear();
        }
        let unit = self.unit;
        let missing = &self.scales[self.all.len()..];
        self.all.extend(missing.iter().map(|s| factor(*s, unit)));
    }

    /// The unit.
    pub(super) fn unit(&self) -> Option<i16> {
        self.unit
    }

    /// Each key's factor.
    pub(super) fn all(&self) -> &[u32] {
        &self.all
    }
}

/// floor(a * b / 2^32).
#[inline(always)]
fn high_signed(a: i32, b: i32) -> i32 {
    (i64::from(a).wrapping_mul(i64::from(b)) >> 32) as i32
}

/// floor(a * b / 2^32).
#[inline(always)]
fn high(a: u32, b: u32) -> u32 {
    (u64::from(a).wrapping_mul(u64::from(b)) >> 32) as u32
}

/// A4's aligned dot products in the place of the dot products; returns the largest.
#[inline(always)]
pub(super) fn align(dots: &mut [i32], factors: &[u32], head_dim: usize) -> i32 {
    let shift = dot_shift(head_dim);
    let mut max = i32::MIN;
    for (d, f) in dots.iter_mut().zip(factors) {
        *d = high_signed(d.wrapping_shl(shift), f.cast_signed());
        max = max.max(*d);
    }
    max
}

/// What the shares of one head's keys are made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// The query's factor.
    pub(super) q: QueryFactor,
    /// The largest aligned dot product.
    pub(super) max: i32,
    /// Position of the first key.
    pub(super) first: usize,
}

/// A4 to A6 for every key, from the aligned dot products: each weight as a low plane of [`PLANE_BITS`] bits and,
/// where `high_plane` is as long, the bits above it. Returns the sum of shares.
#[inline(always)]
pub(super) fn shares(
    s: Shares,
    aligned: &[i32],
    factors: &[u32],
    low_plane: &mut [i16],
    high_plane: &mut [i16],
) -> u64 {
    let mut z = 0;
    let wide = !high_plane.is_empty();
    for start in (0..aligned.len()).step_by(DITHER) {
        let end = aligned.len().min(start.wrapping_add(DITHER));
        let dithers = &DITHERS[s.first.wrapping_add(start) % DITHER..];
        let run = (&aligned[start..end], &factors[start..end], dithers);
        let low = &mut low_plane[start..end];
        z += if wide {
            run_of_shares::<true>(s, run, low, &mut high_plane[start..end])
        } else {
            run_of_shares::<false>(s, run, low, &mut [])
        };
    }
    z
}

/// [`shares`] of at most [`DITHER`] keys.
#[inline(always)]
fn run_of_shares<const WIDE: bool>(
    s: Shares,
    (aligned, factors, dithers): (&[i32], &[u32], &[u32]),
    low_plane: &mut [i16],
    high_plane: &mut [i16],
) -> u64 {
    let n = aligned.len();
    let (factors, dithers, low_plane) = (&factors[..n], &dithers[..n], &mut low_plane[..n]);
    let high_plane = if WIDE { &mut high_plane[..n] } else { high_plane };
    let minus_c = s.q.c.wrapping_neg();
    // Scores are taken with the other sign: -x = floor(-c * y / 2^32), and z = -x less its smallest.
    let least = high_signed(s.max, minus_c);
    let (f, up) = (s.q.f, 32 - s.q.f);
    let almost_one = (1u32 << f).wrapping_sub(1);
    let [c0, c1, c2, c3, c4] = EXP2;
    // The sum of a run's shares needs 40 bits; those of their halves stay in 32.
    let (mut low_sum, mut high_sum) = (0u32, 0u32);
    for i in 0..n {
        let z = high_signed(aligned[i], minus_c)
            .wrapping_sub(least)
            .cast_unsigned();
        let over = z.wrapping_add(almost_one);
        let whole = over >> f;
        let g = (!over) << up;
        let p = high(c4, g).wrapping_add(c3);
        let p = high(p, g).wrapping_add(c2);
        let p = high(p, g).wrapping_add(c1);
        let p = high(p, g).wrapping_add(c0);
        let e = if whole > 31 { 0 } else { p >> whole };
        low_sum = low_sum.wrapping_add(e & 0xffff);
        high_sum = high_sum.wrapping_add(e >> 16);
        let w = high(e, factors[i]).wrapping_add(dithers[i]) >> 8;
        low_plane[i] = (w & ((1 << PLANE_BITS) - 1)) as i16;
        if WIDE {
            high_plane[i] = (w >> PLANE_BITS) as i16;
        }
    }
    (u64::from(high_sum) << 16).wrapping_add(u64::from(low_sum))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reference::attention as a;

    fn scale() -> impl Strategy<Value = Scale> {
        prop_oneof![
            4 => (0x8000u16.., -40i16..0).prop_map(|(m, e)| Scale { m, e }),
            1 => (any::<u16>(), any::<i16>()).prop_map(|(m, e)| Scale { m, e }),
            1 => Just(Scale::ZERO),
        ]
    }

    proptest! {
        #[test]
        fn factors_are_the_rule_however_the_keys_come(
            scales in prop::collection::vec(scale(), 1..40), cut in 0usize..40, wide: bool,
        ) {
            let p_bits = if wide { 23 } else { 15 };
            let unit = scales.iter().filter_map(|s| a::exponent(*s)).max();
            let want: Vec<u32> = scales.iter().map(|s| a::value_factor(*s, unit, p_bits)).collect();
            let mut got = Factors::default();
            let cut = cut.min(scales.len());
            for part in [&scales[..cut], &scales[cut..]] {
                got.read(part.iter().copied());
                got.make(|s, unit| a::value_factor(s, unit, p_bits));
            }
            prop_assert_eq!((got.unit(), got.all(), got.len()), (unit, &want[..], scales.len()));
        }

        #[test]
        fn scores_shares_and_weights_are_the_rule(
            keys in prop::collection::vec((-(1i32 << 20)..1 << 20, scale(), scale()), 1..600), first in 0usize..1000,
            q in scale(), c in scale(), near: bool, wide: bool,
        ) {
            let (head_dim, p_bits) = (64, if wide { 23 } else { 15 });
            let k_unit = keys.iter().filter_map(|k| a::exponent(k.1)).max();
            let v_unit = keys.iter().filter_map(|k| a::exponent(k.2)).max();
            // Half the time so that scores are a few units, whatever the scales.
            let q = if near { Scale { e: -(c.e.saturating_add(k_unit.unwrap_or(0))).saturating_add(40), ..q } } else { q };
            let factor = a::query_factor(q, c, k_unit, head_dim);
            let k_factors: Vec<u32> = keys.iter().map(|k| a::key_factor(k.1, k_unit).cast_unsigned()).collect();
            let v_factors: Vec<u32> = keys.iter().map(|k| a::value_factor(k.2, v_unit, p_bits)).collect();
            let mut aligned: Vec<i32> = keys.iter().map(|k| k.0).collect();
            let max = align(&mut aligned, &k_factors, head_dim);
            let want: Vec<i32> = keys.iter()
                .map(|k| a::aligned(k.0.into(), a::key_factor(k.1, k_unit), head_dim))
                .collect();
            prop_assert_eq!(&aligned, &want);
            let mut low = vec![0; keys.len()];
            let mut high = vec![0; if wide { keys.len() } else { 0 }];
            let z = shares(Shares { q: factor, max, first }, &aligned, &v_factors, &mut low, &mut high);
            let xs: Vec<i32> = want.iter().map(|y| a::score(*y, factor)).collect();
            let top = *xs.iter().max().unwrap();
            let es: Vec<u32> = xs.iter().map(|x| a::exp(*x, top, factor)).collect();
            prop_assert_eq!(z, es.iter().map(|e| u64::from(*e)).sum::<u64>());
            for (j, e) in es.iter().enumerate() {
                let got = low[j] as u32 | high.get(j).map_or(0, |h| (*h as u32) << PLANE_BITS);
                prop_assert_eq!(got, a::weight(*e, v_factors[j], (first + j) as u32, p_bits));
            }
        }
    }
}
