//! Scores and weights of many keys at once: the reference's rules A3 to A6 as loops without a branch or a
//! signed 64-bit shift, which the compiler turns into vector code of whatever width it may use.
//!
//! Each function is inlined into a caller that is compiled for the processor at hand. Where a hostile scale
//! leaves the ranges that these loops are exact in, they say so and the caller takes the reference.

use crate::{num::Scale, reference::attention::query_mantissa};

/// Scales of the visible keys or values of one head, one array a field.
#[derive(Default)]
pub(super) struct Scales {
    /// Mantissas.
    pub(super) m: Vec<u32>,
    /// Exponents.
    pub(super) e: Vec<i32>,
}

impl Scales {
    /// Replaces the contents.
    pub(super) fn set(&mut self, scales: impl Iterator<Item = Scale> + Clone) {
        self.m.clear();
        self.m.extend(scales.clone().map(|s| u32::from(s.m)));
        self.e.clear();
        self.e.extend(scales.map(|s| i32::from(s.e)));
    }

    /// One of them.
    pub(super) fn get(&self, j: usize) -> Scale {
        Scale {
            m: self.m[j] as u16,
            e: self.e[j] as i16,
        }
    }
}

/// A3 for every key; None where a shift leaves 1..=62 or a dot product leaves int32.
#[inline(always)]
pub(super) fn scores(dots: &[i64], q: Scale, k: &Scales, c: Scale, out: &mut [i32]) -> Option<()> {
    let n = out.len();
    let (dots, km, ke) = (&dots[..n], &k.m[..n], &k.e[..n]);
    let base = -(i32::from(q.e) + i32::from(c.e) + 32);
    let mut usual = true;
    for i in 0..n {
        let shift = base.wrapping_sub(ke[i]);
        usual &= (1..=62).contains(&shift) & (dots[i].unsigned_abs() < 1 << 30);
    }
    if !usual {
        return None;
    }
    let mq = query_mantissa(q, c) as u32;
    for i in 0..n {
        let shift = u64::from(base.wrapping_sub(ke[i]).cast_unsigned()) & 63;
        let negative = (dots[i] as u64) >> 63;
        // Both factors are below 2^32, their product below 2^62; half is at most 2^61.
        let m = u64::from(mq.wrapping_mul(km[i]));
        let size = (dots[i].unsigned_abs() & 0xffff_ffff).wrapping_mul(m);
        let half = 1u64.wrapping_shl(shift.wrapping_sub(1) as u32);
        // Half rounds up: towards zero for a negative product.
        let size = size
            .wrapping_add(half)
            .wrapping_sub(negative)
            .wrapping_shr(shift as u32);
        let size = size.min(i32::MAX as u64) as i32;
        let sign = negative as i32;
        out[i] = (size ^ sign.wrapping_neg()).wrapping_add(sign);
    }
    Some(())
}

/// A4's maximum over keys whose V mantissa is not zero.
#[inline(always)]
pub(super) fn max_weighted(scores: &[i32], v: &Scales) -> Option<i64> {
    let n = scores.len();
    let (vm, ve) = (&v.m[..n], &v.e[..n]);
    let mut best = i64::MIN;
    for i in 0..n {
        let w = i64::from(scores[i]).wrapping_add((i64::from(ve[i]).wrapping_add(16)) << 16);
        best = best.max(if vm[i] == 0 { i64::MIN } else { w });
    }
    (best != i64::MIN).then_some(best)
}

/// A5 and A6 for every key: weights into `out`, the sum of shares returned; None where a weight would need
/// a shift below 1.
#[inline(always)]
pub(super) fn weights(
    scores: &[i32],
    max: i32,
    v: &Scales,
    r: Option<i32>,
    p_bits: u8,
    out: &mut [u32],
) -> Option<u64> {
    let n = out.len();
    let (scores, vm, ve) = (&scores[..n], &v.m[..n], &v.e[..n]);
    let base = r.unwrap_or(0).wrapping_add(15).wrapping_sub(i32::from(p_bits));
    let mut usual = true;
    for i in 0..n {
        usual &= (base.wrapping_sub(ve[i]) >= 1) | (vm[i] == 0);
    }
    if !usual {
        return None;
    }
    let limit = (1u64 << p_bits) - 1;
    let mut z = 0u64;
    for i in 0..n {
        let e = exp2_neg(max.wrapping_sub(scores[i]).cast_unsigned());
        z = z.wrapping_add(e);
        let w = e.wrapping_mul(u64::from(vm[i])).wrapping_add(1 << 15) >> 16;
        // 63 gives 0 as every larger shift does, w being below 2^32.
        let shift = u64::from(base.wrapping_sub(ve[i]).clamp(1, 63).cast_unsigned());
        let half = 1u64.wrapping_shl(shift.wrapping_sub(1) as u32);
        out[i] = w.wrapping_add(half).wrapping_shr(shift as u32).min(limit) as u32;
    }
    Some(z)
}

/// X1 without a branch; below 2^32.
#[inline(always)]
fn exp2_neg(z: u32) -> u64 {
    use crate::reference::exp2::EXP2;
    const LOW: u64 = 0xffff_ffff;
    let f = u64::from(z & 0xffff) << 16;
    let mut p = EXP2[5];
    // Every partial result is below 2^32; the mask tells the compiler, which then multiplies 32 bits by 32.
    p = EXP2[4].wrapping_sub((p & LOW).wrapping_mul(f) >> 32);
    p = EXP2[3].wrapping_sub((p & LOW).wrapping_mul(f) >> 32);
    p = EXP2[2].wrapping_sub((p & LOW).wrapping_mul(f) >> 32);
    p = EXP2[1].wrapping_sub((p & LOW).wrapping_mul(f) >> 32);
    p = EXP2[0].wrapping_sub((p & LOW).wrapping_mul(f) >> 32);
    let whole = (z >> 16).min(63);
    (p >> 1).min(1 << 31).wrapping_shr(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    fn scale() -> impl Strategy<Value = Scale> {
        prop_oneof![
            4 => (0x8000u16.., -40i16..0).prop_map(|(m, e)| Scale { m, e }),
            1 => (any::<u16>(), any::<i16>()).prop_map(|(m, e)| Scale { m, e }),
            1 => Just(Scale::ZERO),
        ]
    }

    fn of(scales: &[Scale]) -> Scales {
        let mut s = Scales::default();
        s.set(scales.iter().copied());
        s
    }

    proptest! {
        #[test]
        fn exp2_is_the_rule(z: u32) {
            prop_assert_eq!(exp2_neg(z), u64::from(reference::exp2::exp2_neg(u64::from(z))));
            prop_assert_eq!(exp2_neg(z >> 11), u64::from(reference::exp2::exp2_neg(u64::from(z >> 11))));
        }

        #[test]
        fn scores_are_the_rule_or_refused(
            q in scale(), c in scale(), keys in prop::collection::vec((-(1i64 << 24)..1 << 24, scale()), 1..20),
        ) {
            let (dots, scales): (Vec<i64>, Vec<Scale>) = keys.into_iter().unzip();
            let mut out = vec![0; dots.len()];
            if scores(&dots, q, &of(&scales), c, &mut out).is_some() {
                let want: Vec<i32> = dots.iter().zip(&scales)
                    .map(|(d, k)| reference::attention::score(*d, q, *k, c))
                    .collect();
                prop_assert_eq!(out, want);
            }
        }

        #[test]
        fn weights_are_the_rule_or_refused(
            keys in prop::collection::vec((any::<i32>(), scale()), 1..20), near: bool, wide: bool,
        ) {
            let (mut xs, vs): (Vec<i32>, Vec<Scale>) = keys.into_iter().unzip();
            if near {
                xs.iter_mut().for_each(|x| *x >>= 11);
            }
            let p_bits = if wide { 23 } else { 15 };
            let max = *xs.iter().max().unwrap();
            let top = xs.iter().zip(&vs).filter_map(|(x, v)| reference::attention::weighted_score(*x, *v)).max();
            prop_assert_eq!(max_weighted(&xs, &of(&vs)), top);
            let r = top.map(|w| reference::attention::unit(w, max));
            let mut out = vec![0; xs.len()];
            if let Some(z) = weights(&xs, max, &of(&vs), r, p_bits, &mut out) {
                let es: Vec<u32> = xs.iter().map(|x| reference::attention::exp(*x, max)).collect();
                prop_assert_eq!(z, es.iter().map(|e| u64::from(*e)).sum::<u64>());
                let want: Vec<u32> = es.iter().zip(&vs)
                    .map(|(e, v)| r.map_or(0, |r| reference::attention::weight(*e, *v, r, p_bits)))
                    .collect();
                prop_assert_eq!(out, want);
            }
        }

        #[test]
        fn usual_scales_are_not_refused(
            keys in prop::collection::vec((-(1i64 << 24)..1 << 24, 0x8000u16.., -26i16..-10), 1..20),
        ) {
            let s = Scale { m: 0xb8aa, e: -18 };
            let (dots, scales): (Vec<i64>, Vec<Scale>) = keys.into_iter().map(|(d, m, e)| (d, Scale { m, e })).unzip();
            let mut xs = vec![0; dots.len()];
            prop_assert!(scores(&dots, s, &of(&scales), s, &mut xs).is_some());
            let max = *xs.iter().max().unwrap();
            let r = max_weighted(&xs, &of(&scales)).map(|w| reference::attention::unit(w, max));
            prop_assert!(weights(&xs, max, &of(&scales), r, 15, &mut vec![0; xs.len()]).is_some());
        }
    }
}
