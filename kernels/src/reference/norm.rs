//! RMS norm (rules R1 to R6).

use crate::{
    num::{absmax, bitlen, isqrt, rsr, sat32},
    ops::NormParams,
};

/// What a group's sum of squares says about every one of its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupNorm {
    /// R1: shift of every element, 0..=9.
    pub shift: i32,
    /// R5: 31-bit multiplier.
    pub iv: i64,
    /// R5: its exponent.
    pub e: i32,
}

/// R1: the shift that brings the largest magnitude to 23 bits.
pub fn shift(max: u32) -> i32 {
    (bitlen(u64::from(max)) - 23).max(0)
}

/// R2: sum of squares of a piece of the group; pieces of a dispute add up to their parent. At most 2^61 for
/// 32,768 elements.
pub fn sum_squares(h: &[i32], shift: i32) -> u64 {
    h.iter().fold(0, |sum: u64, v| {
        let x = rsr(i64::from(*v), shift);
        sum.saturating_add(x.unsigned_abs().saturating_mul(x.unsigned_abs()))
    })
}

/// R3 to R5: from the sum of squares of `d` elements to the multiplier.
pub fn group_norm(sum: u64, d: usize, eps: u64, shift: i32) -> GroupNorm {
    multiplier(sum, d, d as u128 * u128::from(eps), shift)
}

/// R3 to R5 where `eps` is for all `d` elements together, below 2^126.
pub(super) fn multiplier(sum: u64, d: usize, eps: u128, shift: i32) -> GroupNorm {
    let eps = (eps >> (2 * shift)).min(1 << 62) as u64;
    let ss = sum.saturating_add(eps).max(1);
    let up = 62 - bitlen(ss);
    let up = up - (up & 1);
    let n = if up >= 0 { ss << up } else { ss >> -up };
    let inv = (1u64 << 61) / isqrt(n);
    let root_d = isqrt((d as u64) << 46);
    let wide = (inv * root_d) as i64;
    let k = bitlen(inv * root_d) - 31;
    GroupNorm {
        shift,
        iv: rsr(wide, k),
        e: k - 84 + up / 2,
    }
}

/// R6: one element.
pub fn element(h: i32, gain: i32, p: &GroupNorm, gain_f: i8, f_out: u8) -> i32 {
    let y = rsr(rsr(i64::from(h), p.shift).saturating_mul(p.iv), 23);
    let last = i32::from(gain_f) - i32::from(f_out) - p.e - 23;
    // Below 2^62 for the group's own shift; saturates for another one.
    sat32(rsr(y.saturating_mul(i64::from(gain)), last))
}

/// One group.
pub fn rms_norm(p: NormParams<'_>, h: &[i32], out: &mut [i32]) {
    let shift = shift(absmax(h).0);
    let norm = group_norm(sum_squares(h, shift), h.len(), p.eps, shift);
    for ((o, h), gain) in out.iter_mut().zip(h).zip(p.gain) {
        *o = element(*h, *gain, &norm, p.gain_f, p.f_out);
    }
}

/// Every group of every row.
pub fn rms_norm_rows(p: NormParams<'_>, x: &[i32], out: &mut [i32]) {
    let group = p.gain.len();
    for (x, out) in x.chunks_exact(group).zip(out.chunks_exact_mut(group)) {
        rms_norm(p, x, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_real_norm_to_a_few_parts_in_a_million(
            h in prop::collection::vec(-3_000_000i32..3_000_000, 1..70), eps in 0u64..10_000,
        ) {
            let gain = vec![1 << 21; h.len()];
            let p = NormParams { gain: &gain, gain_f: 21, eps, f_out: 16 };
            let mut out = vec![0; h.len()];
            rms_norm(p, &h, &mut out);
            let ss: f64 = h.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>()
                + h.len() as f64 * eps as f64;
            let d = h.len() as f64;
            // R6 keeps eight bits or more below an element's last one: little of a row of tiny elements.
            let unit = (ss.max(1.0) / d).sqrt().recip() * 65536.0;
            for (h, y) in h.iter().zip(&out) {
                let want = f64::from(*h) * unit;
                let most = 1.0 + want.abs() * 1e-6 + unit / 256.0;
                prop_assert!((want - f64::from(*y)).abs() <= most, "{} {}", want, y);
            }
        }

        #[test]
        fn is_total(h in prop::collection::vec(any::<i32>(), 1..9), gain: i32, gain_f: i8, eps: u64, f_out: u8) {
            let gain = vec![gain; h.len()];
            let mut out = vec![0; h.len()];
            rms_norm(NormParams { gain: &gain, gain_f, eps, f_out }, &h, &mut out);
        }
    }

    #[test]
    fn tiny_elements_keep_eight_bits() {
        let mut out = [0];
        let p = NormParams {
            gain: &[1 << 21],
            gain_f: 21,
            eps: 259,
            f_out: 16,
        };
        rms_norm(p, &[-3], &mut out);
        // -3 / sqrt(268) * 2^16 = -12,009.7; one unit of the element is 4,003.
        assert_eq!(out, [-12_016]);
    }

    #[test]
    fn the_widest_row_of_the_largest_values_is_defined() {
        let d = 32_768;
        let gain = vec![i32::MIN; d];
        for v in [i32::MIN, i32::MAX, 0, 1] {
            let mut out = vec![7; d];
            rms_norm(
                NormParams {
                    gain: &gain,
                    gain_f: 21,
                    eps: u64::MAX,
                    f_out: 16,
                },
                &vec![v; d],
                &mut out,
            );
            assert!(out.windows(2).all(|w| w[0] == w[1]));
        }
    }

    #[test]
    fn the_last_shift_is_bounded() {
        // R6's proof: gain_f - f_out + 0..=39 (see the spec).
        for d in [1, 2, 3, 576, 32_767, 32_768] {
            for bits in 0..=61 {
                for sum in [1u64 << bits, (2u64 << bits) - 1] {
                    let p = group_norm(sum.min(1 << 61), d, if bits % 2 == 0 { 0 } else { u64::MAX }, 0);
                    assert!((0..=39).contains(&(-p.e - 23)), "{d} {sum}: {}", -p.e - 23);
                    assert!((1 << 30..=1 << 31).contains(&p.iv));
                }
            }
        }
    }
}
