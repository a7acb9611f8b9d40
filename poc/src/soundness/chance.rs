//! Probabilities in integers: exact shares as they are typed, and upper bounds of what follows from them.
//!
//! A [`Chance`] has 64 bits of mantissa and every operation rounds up, so that what is printed as the chance of an attack is
//! never smaller than it is. 0 and 1, and powers of 1/2, are exact.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Serialize, Serializer};
use thiserror::Error;

/// Most digits behind the point of a share.
const DIGITS: usize = 9;
/// The top bit of a mantissa.
const TOP: u64 = 1 << 63;

/// A share that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShareError {
    /// No decimal.
    #[error(
        "`{0}` is no share: write a decimal from 0 to 1 with at most 9 digits behind the point, such as 0.25"
    )]
    Decimal(String),
    /// Above one, or of nothing.
    #[error("{num}/{den} is no share: it must lie from 0 to 1")]
    Range {
        /// Numerator.
        num: u64,
        /// Denominator.
        den: u64,
    },
}

/// An exact share: a rational from 0 to 1 whose denominator is at most 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    num: u64,
    den: u64,
}

impl Share {
    /// Nothing.
    pub const ZERO: Self = Self { num: 0, den: 1 };
    /// All.
    pub const ONE: Self = Self { num: 1, den: 1 };

    /// `num / den`.
    pub const fn new(num: u64, den: u64) -> Result<Self, ShareError> {
        if den == 0 || num > den || den > 1_000_000_000 {
            return Err(ShareError::Range { num, den });
        }
        Ok(Self { num, den })
    }

    /// What is missing to one.
    pub const fn rest(self) -> Self {
        Self {
            num: self.den - self.num,
            den: self.den,
        }
    }

    /// Numerator and denominator.
    pub const fn parts(self) -> (u64, u64) {
        (self.num, self.den)
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.num == 0
    }

    /// This share of `n`, rounded down.
    pub const fn of(self, n: u64) -> u64 {
        // Below n, which has 64 bits.
        #[allow(clippy::cast_possible_truncation)]
        let part = (n as u128 * self.num as u128 / self.den as u128) as u64;
        part
    }

    /// The product, as numerator and denominator.
    pub const fn times(self, other: Self) -> (u128, u128) {
        (
            self.num as u128 * other.num as u128,
            self.den as u128 * other.den as u128,
        )
    }

    /// As a chance.
    pub fn chance(self) -> Chance {
        Chance::ratio(self.num.into(), self.den.into())
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let bad = || ShareError::Decimal(text.to_owned());
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > DIGITS || (whole.is_empty() && part.is_empty()) {
            return Err(bad());
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| bad())?
        };
        let den = part.bytes().fold(1, |d, _| d * 10);
        let behind: u64 = if part.is_empty() {
            0
        } else {
            part.parse().map_err(|_| bad())?
        };
        let num = whole
            .checked_mul(den)
            .and_then(|n| n.checked_add(behind))
            .ok_or_else(bad)?;
        Self::new(num, den).map_err(|_| bad())
    }
}

impl fmt::Display for Share {
    /// A decimal where nine digits say it exactly, else a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let billionths = 1_000_000_000 * u128::from(self.num);
        if billionths.is_multiple_of(self.den.into()) {
            f.write_str(&decimal(self.num.into(), self.den.into(), DIGITS))
        } else {
            write!(f, "{}/{}", self.num, self.den)
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// `num / den` as a decimal cut after `digits`, without zeros at its end.
pub fn decimal(num: u128, den: u128, digits: usize) -> String {
    let den = den.max(1);
    let mut out = (num / den).to_string();
    let mut rest = num % den;
    let mut behind = String::new();
    for _ in 0..digits {
        rest *= 10;
        behind.push(char::from(b'0' + u8::try_from(rest / den).unwrap_or(9)));
        rest %= den;
    }
    let behind = behind.trim_end_matches('0');
    if !behind.is_empty() {
        out.push('.');
        out.push_str(behind);
    }
    out
}

/// An upper bound of a probability: `mant / 2^63 * 2^-exp`, the mantissa's top bit set; 0 has mantissa 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    mant: u64,
    exp: u32,
}

impl Chance {
    /// Never.
    pub const ZERO: Self = Self { mant: 0, exp: 0 };
    /// Always.
    pub const ONE: Self = Self { mant: TOP, exp: 0 };

    /// `2^-bits`.
    pub const fn half_to(bits: u32) -> Self {
        Self { mant: TOP, exp: bits }
    }

    /// A mantissa of up to 128 bits times `2^-63 2^-exp`, rounded up and at most one.
    fn from_wide(wide: u128, exp: i64) -> Self {
        if wide == 0 {
            return Self::ZERO;
        }
        let over = 64 - i64::from(wide.leading_zeros());
        let (mut mant, mut exp) = if over > 0 {
            let cut = wide >> over;
            (cut + u128::from(cut << over != wide), exp - over)
        } else {
            (wide << -over, exp - over)
        };
        if mant >> 64 != 0 {
            (mant, exp) = (mant >> 1, exp - 1);
        }
        match (u64::try_from(mant), u32::try_from(exp)) {
            (Ok(mant), Ok(exp)) if exp > 0 => Self { mant, exp },
            // One or more; or so small that 32 bits of exponent do not hold it.
            _ if exp <= 0 => Self::ONE,
            _ => Self::half_to(u32::MAX),
        }
    }

    /// `num / den`, at most one; of nothing it is one.
    pub fn ratio(num: u128, den: u128) -> Self {
        if num == 0 && den != 0 {
            return Self::ZERO;
        }
        if num >= den {
            return Self::ONE;
        }
        // Both with 64 bits and the top one set: the numerator rounded up, the denominator down.
        let (n, d) = (num.leading_zeros(), den.leading_zeros());
        let (top, low) = (num << n, den << d);
        let top = (top >> 64) + u128::from(top << 64 != 0);
        let low = low >> 64;
        Self::from_wide((top << 63).div_ceil(low), i64::from(n) - i64::from(d))
    }

    /// Both of two independent events.
    pub fn and(self, other: Self) -> Self {
        let wide = u128::from(self.mant) * u128::from(other.mant);
        Self::from_wide(wide, i64::from(self.exp) + i64::from(other.exp) + 63)
    }

    /// At most the chance of one of `n` events that are each as likely as this.
    pub fn times(self, n: u128) -> Self {
        let lost = n.leading_zeros();
        if n == 0 || self.mant == 0 {
            return Self::ZERO;
        }
        // The top 64 bits of n, rounded up.
        let top = n << lost;
        let top = (top >> 64) + u128::from(top << 64 != 0);
        let (a, b) = (u128::from(self.mant), top >> 1);
        let b = b + (top & 1);
        Self::from_wide(a * b, i64::from(self.exp) + i64::from(lost) - 65)
    }

    /// At most the chance of either event.
    pub fn or(self, other: Self) -> Self {
        let (a, b) = if self >= other {
            (self, other)
        } else {
            (other, self)
        };
        if b.mant == 0 {
            return a;
        }
        let wide = u128::from(a.mant) << 62;
        let gap = b.exp - a.exp;
        let low = u128::from(b.mant) << 62;
        let low = if gap > 127 {
            1
        } else {
            (low >> gap) + u128::from(low >> gap << gap != low)
        };
        Self::from_wide(wide + low, i64::from(a.exp) + 62)
    }

    /// `n` independent events, all of them; none is certain.
    pub fn pow(self, n: u64) -> Self {
        let (mut out, mut base, mut left) = (Self::ONE, self, n);
        while left != 0 {
            if left & 1 == 1 {
                out = out.and(base);
            }
            base = base.and(base);
            left >>= 1;
        }
        out
    }

    /// How many parts of 2^64 it is at most.
    pub fn parts(self) -> u128 {
        let wide = u128::from(self.mant) << 1;
        if self.mant == 0 {
            0
        } else if self.exp > 64 {
            1
        } else {
            let cut = wide >> self.exp;
            cut + u128::from(cut << self.exp != wide)
        }
    }

    /// `-log2`, in hundredths, rounded down; `None` of zero.
    pub fn bits(self) -> Option<u64> {
        if self.mant == 0 {
            return None;
        }
        // 20 bits of the mantissa's logarithm, by squaring; rounded up unless it is exactly 0.
        let mut log: u64 = 0;
        let mut x = u128::from(self.mant);
        for _ in 0..20 {
            x = (x * x) >> 63;
            let carry = x >> 64;
            log = log << 1 | u64::from(carry != 0);
            if carry != 0 {
                x >>= 1;
            }
        }
        log += u64::from(self.mant != TOP);
        Some((((u64::from(self.exp)) << 20).saturating_sub(log) * 100) >> 20)
    }
}

impl PartialOrd for Chance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Chance {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.mant, other.mant) {
            (0, 0) => Ordering::Equal,
            (0, _) => Ordering::Less,
            (_, 0) => Ordering::Greater,
            _ => other.exp.cmp(&self.exp).then(self.mant.cmp(&other.mant)),
        }
    }
}

impl fmt::Display for Chance {
    /// `0`, `1`, per cent where that says something, and the power of two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bits) = self.bits() else {
            return f.write_str("0");
        };
        if *self == Self::ONE {
            return f.write_str("1");
        }
        let power = decimal(bits.into(), 100, 2);
        if self.exp > 12 {
            return write!(f, "2^-{power}");
        }
        // Hundredths of a per cent, rounded up.
        let share = (self.parts() * 10_000).div_ceil(1 << 64);
        write!(f, "{} % (2^-{power})", decimal(share, 100, 2))
    }
}

impl Serialize for Chance {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json {
            /// `None` of zero.
            minus_log2_hundredths: Option<u64>,
            per_billion_at_most: u64,
        }
        let billionths = (self.parts() * 1_000_000_000).div_ceil(1 << 64);
        Json {
            minus_log2_hundredths: self.bits(),
            per_billion_at_most: u64::try_from(billionths).unwrap_or(u64::MAX),
        }
        .serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_read_exactly() {
        for (text, num, den) in [
            ("0", 0, 1),
            ("1", 1, 1),
            ("0.5", 5, 10),
            (".25", 25, 100),
            ("1.000", 1000, 1000),
        ] {
            assert_eq!(text.parse(), Ok(Share { num, den }), "{text}");
        }
        assert_eq!("0.123456789".parse::<Share>().unwrap().to_string(), "0.123456789");
        assert_eq!(Share::new(1, 3).unwrap().to_string(), "1/3");
        assert_eq!(Share::new(1, 8).unwrap().to_string(), "0.125");
    }

    #[test]
    fn rejects_what_is_no_share() {
        for bad in [
            "",
            ".",
            "-0.1",
            "1.1",
            "2",
            "0.1234567890",
            "1e-3",
            "nan",
            "half",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
        assert!(Share::new(1, 0).is_err());
        assert!(Share::new(3, 2).is_err());
    }

    #[test]
    fn nothing_all_and_halves_are_exact() {
        assert_eq!(Chance::ratio(0, 7), Chance::ZERO);
        assert_eq!(Chance::ratio(7, 7), Chance::ONE);
        assert_eq!(Chance::ratio(1, 2).pow(40), Chance::half_to(40));
        assert_eq!(Chance::half_to(40).bits(), Some(4000));
        assert_eq!(Chance::ONE.pow(u64::MAX), Chance::ONE);
        assert_eq!(Chance::ZERO.pow(0), Chance::ONE);
        assert_eq!(Chance::ZERO.pow(3), Chance::ZERO);
        assert_eq!(Chance::half_to(1).or(Chance::half_to(1)), Chance::ONE);
        assert_eq!(Chance::ONE.or(Chance::ONE), Chance::ONE);
        assert_eq!(Chance::half_to(3).parts(), 1 << 61);
        assert_eq!(Chance::half_to(1000).parts(), 1);
        assert_eq!(Chance::half_to(9).times(8), Chance::half_to(6));
        assert_eq!(Chance::half_to(9).times(1), Chance::half_to(9));
        assert_eq!(Chance::half_to(9).times(u128::MAX), Chance::ONE);
        assert_eq!(Chance::half_to(130).times(1 << 127), Chance::half_to(3));
        assert_eq!(Chance::ONE.or(Chance::half_to(9)), Chance::ONE);
        assert_eq!(Chance::ZERO.to_string(), "0");
        assert_eq!(Chance::half_to(8).to_string(), "0.4 % (2^-8)");
    }

    #[test]
    fn logarithms_are_rounded_against_the_defender() {
        // log2(3) = 1.58496...
        assert_eq!(Chance::ratio(1, 3).bits(), Some(158));
        assert_eq!(Chance::ratio(1, 1_000_000).bits(), Some(1993));
        assert_eq!(Chance::ratio(999, 1000).bits(), Some(0));
    }

    proptest! {
        #[test]
        fn a_bound_is_above_the_ratio_by_little(num in 0u64.., den in 1u64..) {
            let (num, den) = (num.min(den), den.max(num));
            let bound = Chance::ratio(num.into(), den.into());
            let parts = u128::from(num) << 64;
            // parts / den <= bound <= the same, a 2^-60th more.
            prop_assert!(bound.parts() >= parts.div_ceil(den.into()).min(1 << 64));
            prop_assert!(bound.parts() <= (parts / u128::from(den)) + 2 + (1 << 4));
        }

        #[test]
        fn powers_agree_with_exact_integers(num in 1u64..16, den in 16u64..17, n in 1u64..30) {
            let bound = Chance::ratio(num.into(), den.into()).pow(n);
            // num^n / 16^n, exactly, where it fits.
            if let Some(top) = u128::from(num).checked_pow(n as u32) {
                let exact = Chance::from_wide(top, i64::from(4 * n as u32) - 63);
                prop_assert!(bound >= exact);
                prop_assert!(bound.bits().unwrap().abs_diff(exact.bits().unwrap()) <= 1);
            }
        }

        #[test]
        fn either_is_no_less_than_both_parts_added(a in 0u64.., b in 0u64..) {
            let of = |n: u64| Chance::ratio(n.into(), u128::from(u64::MAX));
            let sum = of(a).or(of(b)).parts();
            prop_assert!(sum >= (of(a).parts() - 1 + of(b).parts().saturating_sub(1)).min(1 << 64));
            prop_assert!(sum <= 1 << 64);
        }

        #[test]
        fn order_is_that_of_the_numbers(a in 0u64.., b in 0u64..) {
            let of = |n: u64| Chance::ratio(n.into(), 1 << 64);
            prop_assert_eq!(of(a).cmp(&of(b)), a.cmp(&b));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = text.parse::<Share>();
        }
    }
}
