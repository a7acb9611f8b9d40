//! The exponential (rule X1): 2^-z in Q31 by a degree-4 polynomial in 32-bit steps.

/// Q31 coefficients of 2^g * (1 - 2^-15) on [0, 1); lowest degree first, all positive.
///
/// The factor keeps a weight of attention (rule A6) below 2^`p_bits` without a clamp; it is in every share
/// alike, so no quotient of shares knows it. At both ends of the interval the polynomial is exact (1 and 2 times
/// the factor), so 2^-z does not jump where z passes a whole number.
pub const EXP2: [u32; 5] = [2_147_418_112, 1_488_229_728, 518_343_275, 111_735_252, 29_109_857];

/// What X1 gives for z = 0, the largest value it takes: 2^31 - 2^16.
pub const ONE: u32 = EXP2[0];

/// X1: 2^g in Q31, g a fraction in Q32. Rises with g, from [`ONE`] to below 2 * [`ONE`].
pub const fn pow2(g: u32) -> u32 {
    let [c0, c1, c2, c3, c4] = EXP2;
    // The high halves of products of two 32-bit numbers; every sum is below 2^32.
    let p = c3 + high(c4, g);
    let p = c2 + high(p, g);
    let p = c1 + high(p, g);
    c0 + high(p, g)
}

/// floor(a * b / 2^32).
pub const fn high(a: u32, b: u32) -> u32 {
    ((a as u64 * b as u64) >> 32) as u32
}

/// X1: 2^-z in Q31 for z with `f` fraction bits (at most 31); 0 where z is above 31.
pub const fn exp2_neg(z: u64, f: u32) -> u32 {
    let whole = z.div_ceil(1 << f);
    if whole > 31 {
        return 0;
    }
    let rest = (whole << f) - z;
    pow2((rest << (32 - f)) as u32) >> whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_two_to_the_minus_z_within_the_stated_error() {
        for z in (0..40u64 << 16).step_by(7) {
            let want = (-(z as f64) / 65536.0).exp2() * (1.0 - 2f64.powi(-15));
            let got = f64::from(exp2_neg(z, 16)) / 2f64.powi(31);
            assert!(
                (want - got).abs() <= 3.4e-6 * want + 2f64.powi(-31),
                "{z}: {want} {got}"
            );
        }
    }

    #[test]
    fn never_rises_and_ends_at_zero() {
        for f in [0, 1, 7, 16, 24, 31] {
            assert_eq!(exp2_neg(0, f), ONE);
            assert_eq!(exp2_neg((31 << f) + 1, f), 0);
            assert_eq!(exp2_neg(u64::MAX, f), 0);
            let values: Vec<u32> = (0..40_000u64)
                .map(|i| exp2_neg((i * (33 << f)) / 40_000, f))
                .collect();
            assert!(values.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn the_same_z_gives_the_same_at_every_width() {
        for z in 0..64u64 << 4 {
            for f in 5..=31 {
                assert_eq!(exp2_neg(z << (f - 4), f), exp2_neg(z, 4));
            }
        }
    }

    #[test]
    fn whole_numbers_are_exact_powers() {
        for n in 0..32 {
            assert_eq!(exp2_neg(n << 16, 16), ONE >> n);
        }
        assert!(pow2(u32::MAX).div_ceil(2) <= ONE);
    }
}
