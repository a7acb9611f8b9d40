//! The spec's integer primitives (`docs/spec/tensor.md`, rules N1 to N6): rounding shift, saturation, bit
//! length, square root, scales. Everything else is written in these.

use serde::{Deserialize, Serialize};

/// Largest magnitude of an int32 value in the spec: 2^31 - 1, both signs.
pub const SAT32: i64 = i32::MAX as i64;

/// A scale: the value is `m * 2^e`. Normal mantissas lie in [2^15, 2^16) or are 0 (an all-zero row);
/// every op takes any mantissa and exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Scale {
    /// Mantissa.
    pub m: u16,
    /// Exponent of two.
    pub e: i16,
}

impl Scale {
    /// The scale of an all-zero row.
    pub const ZERO: Self = Self { m: 0, e: 0 };

    /// Canonical bytes: mantissa then exponent, little-endian.
    pub const fn to_bytes(self) -> [u8; 4] {
        let [a, b] = self.m.to_le_bytes();
        let [c, d] = self.e.to_le_bytes();
        [a, b, c, d]
    }

    /// The reverse of [`Scale::to_bytes`]; defined for all bytes.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        let [a, b, c, d] = bytes;
        Self {
            m: u16::from_le_bytes([a, b]),
            e: i16::from_le_bytes([c, d]),
        }
    }
}

/// Rounding shift right (N1): `floor((x + 2^(s-1)) / 2^s)` for 0 < s < 63, 0 for s >= 63, and for s <= 0
/// `x * 2^-s` clamped to int64.
#[inline]
pub const fn rsr(x: i64, s: i32) -> i64 {
    if s >= 63 {
        0
    } else if s > 0 {
        // The same as adding half first, without the overflow that adding could cause.
        (x >> s) + ((x >> (s - 1)) & 1)
    } else {
        shl_sat(x, -(s as i64))
    }
}

/// `x * 2^n` clamped to int64, n >= 0.
#[inline]
const fn shl_sat(x: i64, n: i64) -> i64 {
    if x == 0 {
        return 0;
    }
    if n < 64 {
        let y = x.wrapping_shl(n as u32);
        if y >> n == x {
            return y;
        }
    }
    if x > 0 { i64::MAX } else { i64::MIN }
}

/// Clamps to +-(2^31 - 1) (N2).
#[inline]
pub const fn sat32(x: i64) -> i32 {
    if x > SAT32 {
        i32::MAX
    } else if x < -SAT32 {
        -i32::MAX
    } else {
        x as i32
    }
}

/// Bits needed to write x; 0 for 0 (N3).
#[inline]
pub const fn bitlen(x: u64) -> i32 {
    (64 - x.leading_zeros()) as i32
}

/// floor(sqrt(x)) (N4).
#[inline]
pub const fn isqrt(x: u64) -> u64 {
    x.isqrt()
}

/// max |v| as an unsigned number (i32::MIN counts as 2^31), and the lowest index that attains it (N5).
/// An empty slice gives (0, 0).
#[inline]
pub fn absmax(v: &[i32]) -> (u32, usize) {
    let mut best = (0, 0);
    for (i, x) in v.iter().enumerate() {
        if x.unsigned_abs() > best.0 {
            best = (x.unsigned_abs(), i);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule as written, in arithmetic that cannot overflow.
    fn rsr_wide(x: i64, s: i32) -> i64 {
        let x = i128::from(x);
        if s >= 63 {
            return 0;
        }
        let y = if s > 0 {
            (x + (1i128 << (s - 1))) >> s
        } else if s < -64 {
            x.signum() << 100
        } else {
            x << -s
        };
        y.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    proptest! {
        #[test]
        fn rsr_is_the_rule(x: i64, s in -140i32..140) {
            prop_assert_eq!(rsr(x, s), rsr_wide(x, s));
        }

        #[test]
        fn rsr_is_the_rule_for_small_values(x in -300i64..300, s in -70i32..70) {
            prop_assert_eq!(rsr(x, s), rsr_wide(x, s));
        }

        #[test]
        fn scales_survive_their_bytes(bytes: [u8; 4]) {
            prop_assert_eq!(Scale::from_bytes(bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn rounds_half_up_on_both_sides_of_zero() {
        assert_eq!([rsr(3, 1), rsr(-3, 1), rsr(1, 1), rsr(-1, 1)], [2, -1, 1, 0]);
    }

    #[test]
    fn extremes_are_defined() {
        assert_eq!(rsr(i64::MAX, 62), 2);
        assert_eq!(rsr(i64::MIN, 63), 0);
        assert_eq!(rsr(1, i32::MIN), i64::MAX);
        assert_eq!(rsr(-1, i32::MIN), i64::MIN);
        assert_eq!(rsr(0, i32::MIN), 0);
        assert_eq!((sat32(i64::MIN), sat32(1 << 31)), (-i32::MAX, i32::MAX));
        assert_eq!((bitlen(0), bitlen(1), bitlen(u64::MAX)), (0, 1, 64));
        assert_eq!(absmax(&[3, -7, 7, i32::MIN]), (1 << 31, 3));
        assert_eq!(absmax(&[3, -7, 7]), (7, 1));
    }
}
