//! Layer norm (rules R7 to R9): the RMS norm of what is left when the mean is gone.

use crate::{
    num::{bitlen, rsr, sat32},
    ops::NormParams,
    reference::norm::{GroupNorm, multiplier},
};

/// R7: D times an element less the group's sum: D times its distance from the mean, exactly. |z| <= 2^47 for
/// 32,768 elements; saturates only where `sum` is not the group's own.
pub fn centred(h: i32, d: usize, sum: i64) -> i64 {
    (d as i64 * i64::from(h)).saturating_sub(sum)
}

/// R7: the shift that brings the largest centred magnitude to 23 bits, 0..=25.
pub fn shift(max: u64) -> i32 {
    (bitlen(max) - 23).max(0)
}

/// R8: sum of squares of a piece of the group.
pub fn sum_squares(h: &[i32], d: usize, sum: i64, shift: i32) -> u64 {
    h.iter().fold(0, |total: u64, v| {
        let x = rsr(centred(*v, d, sum), shift).unsigned_abs();
        total.saturating_add(x.saturating_mul(x))
    })
}

/// R8: from the sum of squares to the multiplier; eps grows by D^2, as the elements grew by D.
pub fn group_norm(squares: u64, d: usize, eps: u64, shift: i32) -> GroupNorm {
    // 2^45 * 2^64 at most.
    let d3 = (d as u128).pow(3);
    multiplier(squares, d, d3 * u128::from(eps), shift)
}

/// R9: one element from its centred value.
pub fn element(z: i64, gain: i32, bias: i32, p: &GroupNorm, gain_f: i8, f_out: u8) -> i32 {
    let y = rsr(rsr(z, p.shift).saturating_mul(p.iv), 23);
    let last = i32::from(gain_f) - i32::from(f_out) - p.e - 23;
    let scaled = rsr(y.saturating_mul(i64::from(gain)), last);
    sat32(scaled.saturating_add(i64::from(bias)))
}

/// One group.
pub fn layer_norm(p: NormParams<'_>, bias: &[i32], h: &[i32], out: &mut [i32]) {
    let d = h.len();
    let sum = h.iter().map(|v| i64::from(*v)).sum();
    let max = h.iter().map(|v| centred(*v, d, sum).unsigned_abs()).max();
    let shift = shift(max.unwrap_or(0));
    let norm = group_norm(sum_squares(h, d, sum, shift), d, p.eps, shift);
    for (i, o) in out.iter_mut().enumerate() {
        *o = element(
            centred(h[i], d, sum),
            p.gain[i],
            bias[i],
            &norm,
            p.gain_f,
            p.f_out,
        );
    }
}

/// Every group of every row.
pub fn layer_norm_rows(p: NormParams<'_>, bias: &[i32], x: &[i32], out: &mut [i32]) {
    let group = p.gain.len();
    for (x, out) in x.chunks_exact(group).zip(out.chunks_exact_mut(group)) {
        layer_norm(p, bias, x, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_real_norm_to_a_few_parts_in_a_million(
            h in prop::collection::vec(-3_000_000i32..3_000_000, 2..70), eps in 0u64..10_000, bias in -99_999i32..99_999,
        ) {
            let d = h.len() as f64;
            let gain = vec![1 << 21; h.len()];
            let p = NormParams { gain: &gain, gain_f: 21, eps, f_out: 16 };
            let mut out = vec![0; h.len()];
            layer_norm(p, &vec![bias; h.len()], &h, &mut out);
            let mean = h.iter().map(|v| f64::from(*v)).sum::<f64>() / d;
            let ss: f64 = h.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() + d * eps as f64;
            for (h, y) in h.iter().zip(&out) {
                let want = (f64::from(*h) - mean) / (ss.max(1e-9) / d).sqrt() * 65536.0 + f64::from(bias);
                prop_assert!((want - f64::from(*y)).abs() <= 1.5 + (want.abs() + 65536.0) * 1e-6, "{} {}", want, y);
            }
        }

        #[test]
        fn is_total(
            h in prop::collection::vec(any::<i32>(), 1..9), gain: i32, bias: i32, gain_f: i8, eps: u64, f_out: u8,
        ) {
            let gain = vec![gain; h.len()];
            let mut out = vec![0; h.len()];
            layer_norm(NormParams { gain: &gain, gain_f, eps, f_out }, &vec![bias; h.len()], &h, &mut out);
        }
    }

    #[test]
    fn equal_elements_leave_the_bias() {
        for d in [1usize, 3, 32_768] {
            for v in [i32::MIN, -7, 0, i32::MAX] {
                let (gain, bias) = (vec![i32::MAX; d], vec![-123; d]);
                let p = NormParams {
                    gain: &gain,
                    gain_f: 21,
                    eps: 0,
                    f_out: 16,
                };
                let mut out = vec![7; d];
                layer_norm(p, &bias, &vec![v; d], &mut out);
                assert!(out.iter().all(|o| *o == -123), "{d} {v}");
            }
        }
    }

    #[test]
    fn the_widest_row_of_the_largest_values_is_defined() {
        let d = 32_768;
        let h: Vec<i32> = (0..d).map(|i| if i == 0 { i32::MIN } else { i32::MAX }).collect();
        let (gain, bias) = (vec![i32::MIN; d], vec![i32::MAX; d]);
        let p = NormParams {
            gain: &gain,
            gain_f: -128,
            eps: u64::MAX,
            f_out: 30,
        };
        let mut out = vec![7; d];
        layer_norm(p, &bias, &h, &mut out);
        assert!(out[1..].windows(2).all(|w| w[0] == w[1]));
        assert!(out[0] > i32::MIN);
    }
}
