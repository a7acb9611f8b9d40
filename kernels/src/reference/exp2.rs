//! The exponential (rule X1): 2^-z in Q31 by a degree-5 polynomial.

/// Q32 coefficients of 2^-f on [0, 1), signs alternating; lowest degree first.
pub const EXP2: [u64; 6] = [
    4_294_967_061,
    2_977_027_382,
    1_031_563_053,
    237_510_004,
    39_560_409,
    4_069_712,
];

/// What X1 gives for z = 0: the largest weight.
pub const ONE: u32 = 2_147_483_530;

/// X1: 2^-z in Q31 for z in Q16; 0 from z = 32 on. Absolute error below 5.5e-8.
pub fn exp2_neg(z: u64) -> u32 {
    let whole = z >> 16;
    if whole > 31 {
        return 0;
    }
    let f = (z & 0xffff) << 16;
    let [c0, c1, c2, c3, c4, c5] = EXP2;
    // Every product is below 2^64 and every difference positive: coefficients fall faster than f grows.
    let mut p = c5;
    for c in [c4, c3, c2, c1, c0] {
        p = c - ((p * f) >> 32);
    }
    ((p >> 1).min(1 << 31) >> whole) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_two_to_the_minus_z_within_the_stated_error() {
        for z in (0..40u64 << 16).step_by(7) {
            let want = (-(z as f64) / 65536.0).exp2();
            let got = f64::from(exp2_neg(z)) / 2f64.powi(31);
            assert!((want - got).abs() < 5.5e-8, "{z}: {want} {got}");
        }
    }

    #[test]
    fn never_grows_by_more_than_the_ripple_and_ends_at_zero() {
        assert_eq!(exp2_neg(0), ONE);
        assert_eq!(exp2_neg(32 << 16), 0);
        assert_eq!(exp2_neg(u64::MAX), 0);
        assert!((0..32 << 16).all(|z| exp2_neg(z) <= ONE));
    }
}
