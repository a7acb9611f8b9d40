//! From floats to the spec's integers: scales, rounding, rows of weights, gains, tables. All f64 in a fixed
//! order with correctly rounded operations only, so that every machine makes the same integers (PROTOCOL 10).

/// A spec scale `m * 2^e` with `m` in `[2^15, 2^16)`, or (0, 0).
pub(crate) type Scale = (u16, i16);

/// Weights that share a multiplier.
pub(crate) const GROUP: usize = 32;
/// Largest multiplier.
const MULT_MAX: u8 = 15;
/// Largest weight.
const Q_MAX: f64 = 127.0;

/// The scale nearest to `x` >= 0 (halves up); 0 for what is smaller than every scale, the largest for more.
pub(crate) fn scale(x: f64) -> Scale {
    // A subnormal f64 is below 2^-1022: far under every scale that matters, and under i16's reach no more
    // than a zero row is.
    if !x.is_normal() || x < 0.0 {
        return (0, 0);
    }
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
    // 53 bits down to 16, halves up; 65536 means the next power of two.
    let m = (mantissa + (1 << 36)) >> 37;
    let (m, e) = if m == 1 << 16 {
        (1 << 15, exponent - 14)
    } else {
        (m, exponent - 15)
    };
    (m as u16, e as i16)
}

/// The exact value of a scale.
pub(crate) fn scale_value(s: Scale) -> f64 {
    f64::from(s.0) * pow2(i32::from(s.1))
}

/// 2^e, exactly, for -1022 <= e <= 1023 (clamped).
pub(crate) fn pow2(e: i32) -> f64 {
    f64::from_bits(((e.clamp(-1022, 1023) + 1023) as u64) << 52)
}

fn abs_max(row: &[f64]) -> f64 {
    row.iter().fold(0.0, |a, w| f64::max(a, w.abs()))
}

/// round(w / s) in +-127; halves to even.
fn quantise(w: f64, s: f64) -> i8 {
    (w / s).round_ties_even().clamp(-Q_MAX, Q_MAX) as i8
}

/// One row with one scale.
pub(crate) fn quantise_row(row: &[f64], q: &mut [i8]) -> Scale {
    let s = scale(abs_max(row) / Q_MAX);
    if s.0 == 0 {
        q.fill(0);
        return (0, 0);
    }
    let value = scale_value(s);
    for (q, w) in q.iter_mut().zip(row) {
        *q = quantise(*w, value);
    }
    s
}

/// One row with one scale and a multiplier 1..=15 for every 32 weights: the smallest multiplier that holds
/// the group.
pub(crate) fn quantise_row_grouped(row: &[f64], q: &mut [i8], mult: &mut [u8]) -> Scale {
    let s = scale(abs_max(row) / (Q_MAX * f64::from(MULT_MAX)));
    if s.0 == 0 {
        q.fill(0);
        mult.fill(1);
        return (0, 0);
    }
    let base = scale_value(s);
    for ((w, q), mult) in row.chunks(GROUP).zip(q.chunks_mut(GROUP)).zip(mult) {
        // A hair less than one step above a multiplier still belongs to it: clamping moves it by 1e-9 of a step.
        let need = (abs_max(w) / (base * Q_MAX) - 1e-9).ceil();
        *mult = need.clamp(1.0, f64::from(MULT_MAX)) as u8;
        let step = base * f64::from(*mult);
        for (q, w) in q.iter_mut().zip(w) {
            *q = quantise(*w, step);
        }
    }
    s
}

/// What the accumulator of a row can reach at most with activations of magnitude 128; must stay below 2^31.
pub(crate) fn row_reach(q: &[i8], mult: Option<&[u8]>) -> u64 {
    let sum: u64 = match mult {
        None => q.iter().map(|q| u64::from(q.unsigned_abs())).sum(),
        Some(mult) => q
            .chunks(GROUP)
            .zip(mult)
            .map(|(q, m)| u64::from(*m) * q.iter().map(|q| u64::from(q.unsigned_abs())).sum::<u64>())
            .sum(),
    };
    sum * 128
}

/// Norm gains as integers below 2^22 with the fraction bits that the largest one allows. All zero: 22.
pub(crate) fn gains(g: &[f64]) -> (Vec<i32>, i32) {
    let largest = abs_max(g);
    let mut f = if largest.is_normal() {
        let exponent = ((largest.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        (21 - exponent).clamp(-96, 96)
    } else {
        22
    };
    let limit = f64::from((1 << 22) - 1);
    if (largest * pow2(f)).round_ties_even() > limit {
        f -= 1;
    }
    let ints = g
        .iter()
        .map(|g| (g * pow2(f)).round_ties_even().clamp(-limit, limit) as i32)
        .collect();
    (ints, f)
}

/// round(x * 2^f) as int32, saturating.
pub(crate) fn fixed(x: f64, f: u8) -> i32 {
    let limit = f64::from(i32::MAX);
    (x * pow2(i32::from(f))).round_ties_even().clamp(-limit, limit) as i32
}

/// cos and sin of `angle` in Q15, within +-32767.
pub(crate) fn cos_sin_q15(angle: f64) -> (i16, i16) {
    let q15 = |v: f64| (v * 32768.0).round_ties_even().clamp(-32767.0, 32767.0) as i16;
    (q15(libm::cos(angle)), q15(libm::sin(angle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_normalised_and_nearest() {
        assert_eq!(scale(1.0), (1 << 15, -15));
        assert_eq!(scale(1.0 - f64::EPSILON), (1 << 15, -15));
        assert_eq!(scale(3.0), (3 << 14, -14));
        assert_eq!(scale(0.0), (0, 0));
        for i in 1..1000u32 {
            let x = f64::from(i) * 0.00137;
            let s = scale(x);
            assert!(s.0 >= 1 << 15);
            assert!((scale_value(s) / x - 1.0).abs() <= 1.0 / 65536.0);
        }
    }

    #[test]
    fn rows_come_back_within_half_a_step() {
        let row: Vec<f64> = (0..64)
            .map(|i| libm::sin(f64::from(i)) * if i < 32 { 0.01 } else { 1.0 })
            .collect();
        let mut q = vec![0; 64];
        let s = scale_value(quantise_row(&row, &mut q));
        assert!(
            row.iter()
                .zip(&q)
                .all(|(w, q)| (w - f64::from(*q) * s).abs() <= s * 0.501)
        );
        let mut mult = vec![0; 2];
        let s = scale_value(quantise_row_grouped(&row, &mut q, &mut mult));
        assert_eq!(mult, [1, 15]);
        for (i, (w, q)) in row.iter().zip(&q).enumerate() {
            let step = s * f64::from(mult[i / 32]);
            assert!((w - f64::from(*q) * step).abs() <= step * 0.51, "{i}");
        }
    }

    #[test]
    fn zero_rows_have_no_scale() {
        let mut q = vec![1; 32];
        assert_eq!(quantise_row(&[0.0; 32], &mut q), (0, 0));
        let mut mult = vec![0];
        assert_eq!(quantise_row_grouped(&[0.0; 32], &mut q, &mut mult), (0, 0));
        assert_eq!((q, mult), (vec![0; 32], vec![1]));
    }

    #[test]
    fn gains_fill_22_bits_and_no_more() {
        for top in [1.0, 0.999_999_999, 1.5, 4.0, 1e-3, 37.0] {
            let (ints, f) = gains(&[top, -top / 3.0]);
            assert!(ints[0] < 1 << 22 && ints[0] >= 1 << 20, "{top}: {ints:?}");
            assert!((f64::from(ints[1]) * pow2(-f) + top / 3.0).abs() <= pow2(-f));
        }
        assert_eq!(gains(&[0.0]), (vec![0], 22));
    }
}
