//! Dynamic quantisation of a group (rules Q1 to Q6), after an optional Walsh-Hadamard transform (W1 to W3).

use crate::{
    num::{Scale, absmax, bitlen, rsr, sat32},
    ops::{QuantParams, QuantRows},
};

/// Largest |value| after W1: with the largest block, 512, sums stay inside int32.
const WHT_MAX: i64 = (1 << 22) - 1;

/// Largest integer of a quantised value: 127 for one plane, 32,639 (= 256 * 127 + 127) for two.
pub const fn q_max(planes: u8) -> i64 {
    if planes == 1 { 127 } else { 32_639 }
}

/// W1: the shift that makes room for the transform, from the largest magnitude of the whole group.
pub fn wht_shift(max: u32) -> i32 {
    (bitlen(u64::from(max)) - 22).max(0)
}

/// W2: one value before the transform.
pub fn wht_input(v: i32, shift: i32) -> i32 {
    rsr(i64::from(v), shift).clamp(-WHT_MAX, WHT_MAX) as i32
}

/// W3: one output of the transform in Sylvester order: sum over j of `(-1)^popcount(i & j) * v[j]`.
pub fn wht_output(v: &[i32], i: usize) -> i32 {
    let sum: i64 = v
        .iter()
        .enumerate()
        .map(|(j, x)| {
            let x = i64::from(*x);
            if (i & j).count_ones().is_multiple_of(2) {
                x
            } else {
                -x
            }
        })
        .sum();
    // Fits by W2; saturates for values that did not pass through it.
    sat32(sum)
}

/// W1 to W3: element `i` after the transform of the block that holds it; `max` is the largest magnitude of the
/// whole group before it.
pub fn wht_element(block: &[i32], i: usize, max: u32) -> i32 {
    let shift = wht_shift(max);
    let shifted: Vec<i32> = block.iter().map(|v| wht_input(*v, shift)).collect();
    wht_output(&shifted, i)
}

/// W1 to W3 in place, block by block; returns the shift of W1, which adds to the exponent.
pub fn wht(group: &mut [i32], block: usize) -> i32 {
    let shift = wht_shift(absmax(group).0);
    for v in group.iter_mut() {
        *v = wht_input(*v, shift);
    }
    for b in group.chunks_exact_mut(block) {
        let mut h = 1;
        while h < block {
            for i in (0..block).step_by(2 * h) {
                for j in i..i + h {
                    (b[j], b[j + h]) = (b[j] + b[j + h], b[j] - b[j + h]);
                }
            }
            h *= 2;
        }
    }
    shift
}

/// Q2 to Q5: all that follows from a group's largest magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupParams {
    /// Shift of every value, -23..=8.
    pub shift: i32,
    /// Reciprocal, up to 2^32; 0 for an all-zero group.
    pub recip: i64,
    /// Scale of the group.
    pub scale: Scale,
}

/// Q1 to Q5 for a group whose largest magnitude is `max`, `wht_shift` having been applied before.
pub fn group_params(max: u32, planes: u8, f_in: u8, wht_shift: i32) -> GroupParams {
    if max == 0 {
        return GroupParams {
            shift: 0,
            recip: 0,
            scale: Scale::ZERO,
        };
    }
    let q = q_max(planes);
    let shift = bitlen(u64::from(max)) - 24;
    let a = rsr(i64::from(max), shift);
    let recip = (q << 40) / a;
    let m = (a << 20) / q;
    let k = bitlen(m.unsigned_abs()) - 16;
    let (m, k) = match rsr(m, k) {
        0x1_0000 => (0x8000, k + 1),
        m => (m, k),
    };
    let scale = Scale {
        m: m as u16,
        // |k - 20 + shift + wht_shift| < 64 and f_in < 256: far inside i16.
        e: (k - 20 + shift + wht_shift - i32::from(f_in)) as i16,
    };
    GroupParams { shift, recip, scale }
}

/// Q6: one value of the group. Saturates only where `p` is not the group's own (a value above the claimed max).
pub fn element(v: i32, planes: u8, p: &GroupParams) -> i16 {
    let q = q_max(planes);
    rsr(rsr(i64::from(v), p.shift).saturating_mul(p.recip), 40).clamp(-q, q) as i16
}

/// The whole rule for one group: integers into `out`, the scale returned.
pub fn quantise(v: &[i32], planes: u8, block: usize, f_in: u8, out: &mut [i16]) -> Scale {
    let mut group = v.to_vec();
    let wht_shift = if block == 0 { 0 } else { wht(&mut group, block) };
    let p = group_params(absmax(&group).0, planes, f_in, wht_shift);
    for (o, v) in out.iter_mut().zip(&group) {
        *o = element(*v, planes, &p);
    }
    p.scale
}

/// An A16 value as its two planes: `x = 256 * hi + lo`, hi in +-127, lo in [-128, 127].
pub const fn planes_of(x: i16) -> (i8, i8) {
    let lo = x as i8;
    let hi = ((x as i32 - lo as i32) >> 8) as i8;
    (hi, lo)
}

/// Every group of every row.
pub fn quant_rows(p: QuantParams, x: &[i32], out: &mut QuantRows) {
    for ((v, q), s) in x
        .chunks_exact(p.group)
        .zip(out.q.chunks_exact_mut(p.group))
        .zip(&mut out.scales)
    {
        *s = quantise(v, p.planes, p.wht, p.f_in, q);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fast_transform_is_the_rule(mut v in prop::collection::vec(any::<i32>(), 16), n in 0usize..5) {
            let block = 1 << n;
            let shift = wht_shift(absmax(&v).0);
            let m: Vec<i32> = v.iter().map(|x| wht_input(*x, shift)).collect();
            let want: Vec<i32> = m.chunks(block)
                .flat_map(|b| (0..block).map(|i| wht_output(b, i)).collect::<Vec<_>>())
                .collect();
            prop_assert_eq!(wht(&mut v, block), shift);
            prop_assert_eq!(v, want);
        }

        #[test]
        fn values_come_back_within_a_step(v in prop::collection::vec(-100_000i32..100_000, 1..40), planes in 1u8..3) {
            let mut q = vec![0; v.len()];
            let s = quantise(&v, planes, 0, 16, &mut q);
            let step = f64::from(s.m) * f64::from(i32::from(s.e) + 16).exp2();
            for (v, q) in v.iter().zip(&q) {
                // Half a step, and the mantissa's own rounding on the largest integers.
                let tolerance = 0.502 + f64::from(q.unsigned_abs()) / 65536.0;
                prop_assert!((f64::from(*q) * step - f64::from(*v)).abs() <= tolerance * step);
            }
        }
    }

    #[test]
    fn the_largest_value_takes_the_largest_integer() {
        for planes in [1, 2] {
            for a in [1, 127, 128, 32_639, 65_536, i32::MAX, -i32::MAX, i32::MIN] {
                let mut q = [0; 2];
                let s = quantise(&[a, 0], planes, 0, 16, &mut q);
                assert_eq!(i64::from(q[0].unsigned_abs()), q_max(planes), "{a}");
                assert_eq!(q[0] > 0, a > 0);
                assert!((0x8000..=0xffff).contains(&s.m));
            }
        }
    }

    #[test]
    fn the_largest_block_of_the_largest_values_stays_inside_int32() {
        let mut v = [i32::MIN; 512];
        assert_eq!(wht(&mut v, 512), 10);
        assert_eq!((v[0], v[1]), (-(1 << 21) * 512, 0));
        let mut v = [i32::MAX; 512];
        assert_eq!(wht(&mut v, 512), 9);
        assert_eq!(v[0], ((1 << 22) - 1) * 512);
    }

    #[test]
    fn planes_join_to_the_value() {
        for x in -32_639i16..=32_639 {
            let (hi, lo) = planes_of(x);
            assert_eq!(i32::from(hi) * 256 + i32::from(lo), i32::from(x));
            assert!(hi != -128, "{x}");
        }
    }

    #[test]
    fn zero_group_has_no_scale() {
        let mut q = [9; 3];
        assert_eq!(quantise(&[0; 3], 1, 0, 16, &mut q), Scale::ZERO);
        assert_eq!(q, [0; 3]);
    }
}
