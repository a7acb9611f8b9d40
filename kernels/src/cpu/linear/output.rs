//! From sums to outputs, 16 tokens at a time (rules L2 to L5): the loops are written so that the compiler
//! vectorises them for whatever instruction set their caller is compiled for.
//!
//! Wrapping operators because overflow checks stop vectorisation; each stands beside what shows that nothing
//! wraps.

use crate::{
    num::{SAT32, Scale},
    reference::linear::requant,
};

use super::panel::LANES;

/// Scales of 16 lanes.
pub(super) trait Scales {
    /// A lane's mantissa.
    fn m(&self, lane: usize) -> i64;
    /// A lane's exponent.
    fn e(&self, lane: usize) -> i64;
    /// Smallest and largest exponent.
    fn range(&self) -> (i64, i64);
    /// Largest mantissa.
    fn most(&self) -> u64;

    /// A lane's.
    fn scale(&self, lane: usize) -> Scale {
        Scale {
            m: self.m(lane) as u16,
            e: self.e(lane) as i16,
        }
    }
}

/// One of all lanes.
impl Scales for Scale {
    #[inline(always)]
    fn m(&self, _: usize) -> i64 {
        i64::from(self.m)
    }

    #[inline(always)]
    fn e(&self, _: usize) -> i64 {
        i64::from(self.e)
    }

    #[inline(always)]
    fn range(&self) -> (i64, i64) {
        (i64::from(self.e), i64::from(self.e))
    }

    #[inline(always)]
    fn most(&self) -> u64 {
        u64::from(self.m)
    }
}

/// One of each: of tokens, or of weight rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneScales {
    m: [i64; LANES],
    e: [i64; LANES],
    range: (i64, i64),
}

impl LaneScales {
    /// Of up to 16 rows; missing lanes count as zero rows. A zero mantissa gives 0 whatever the exponent, so
    /// such a lane takes an exponent of another.
    #[inline(always)]
    pub(super) fn new(scales: impl ExactSizeIterator<Item = Scale>) -> Self {
        let (mut m, mut e) = ([0; LANES], [0; LANES]);
        for (s, (m, e)) in scales.zip(m.iter_mut().zip(&mut e)) {
            (*m, *e) = (i64::from(s.m), i64::from(s.e));
        }
        let mut range = (i64::MAX, i64::MIN);
        for (m, e) in m.iter().zip(&e) {
            range.0 = range.0.min(if *m == 0 { i64::MAX } else { *e });
            range.1 = range.1.max(if *m == 0 { i64::MIN } else { *e });
        }
        if range.0 > range.1 {
            range = (0, 0);
        }
        for (m, e) in m.iter().zip(&mut e) {
            *e = if *m == 0 { range.0 } else { *e };
        }
        Self { m, e, range }
    }
}

impl Scales for LaneScales {
    #[inline(always)]
    fn m(&self, lane: usize) -> i64 {
        self.m[lane]
    }

    #[inline(always)]
    fn e(&self, lane: usize) -> i64 {
        self.e[lane]
    }

    #[inline(always)]
    fn range(&self) -> (i64, i64) {
        self.range
    }

    #[inline(always)]
    fn most(&self) -> u64 {
        u64::from(u16::MAX)
    }
}

/// What L2 and L3 shift by in the end, before the scales' exponents.
#[inline(always)]
fn base(planes: u8, f_out: u8) -> i64 {
    // L3 shifts by 16 in between.
    -i64::from(f_out) - if planes == 1 { 0 } else { 16 }
}

/// The smallest and the largest shift.
#[inline(always)]
fn shifts(base: i64, x: &impl Scales, w: &impl Scales) -> (i64, i64) {
    let (x, w) = (x.range(), w.range());
    (base - x.1 - w.1, base - x.0 - w.0)
}

/// Whether all shifts are usual ones, 1 to 62.
#[inline(always)]
fn usual(base: i64, x: &impl Scales, w: &impl Scales) -> bool {
    let (least, largest) = shifts(base, x, w);
    1 <= least && largest <= 62
}

/// L2 and L3: 16 sums in the output's format.
#[inline(always)]
pub(super) fn outputs(
    acc: &[i64; LANES],
    planes: u8,
    x: &impl Scales,
    w: &impl Scales,
    f_out: u8,
) -> [i32; LANES] {
    // No sum is so small that adding 2^31 makes it negative, or 2^32 and more, where all fit int32.
    let beyond = acc
        .iter()
        .fold(0, |any, v| any | v.wrapping_add(1 << 31).cast_unsigned() >> 32);
    if beyond == 0 {
        let mut small = [0; LANES];
        for i in 0..LANES {
            small[i] = acc[i] as i32;
        }
        return small_outputs(&small, 1 << 31, planes, x, w, f_out);
    }
    let base = base(planes, f_out);
    // One plane's sums always fit (T3).
    if planes == 1 || !usual(base, x, w) {
        return by_reference(acc, planes, x, w, f_out);
    }
    let mut out = [0; LANES];
    for i in 0..LANES {
        // |acc| < 2^40 (T3: sum |w m| < 2^24, |x| < 2^15), so both products stay below 2^57.
        let y = acc[i].wrapping_mul(x.m(i)).wrapping_add(1 << 15) >> 16;
        let shift = base.wrapping_sub(x.e(i)).wrapping_sub(w.e(i));
        out[i] = round_small(y.wrapping_mul(w.m(i)), shift);
    }
    out
}

/// The same of sums that fit int32 and are no larger than `most`: factors of that width, so that one
/// multiplication is enough.
#[inline(always)]
pub(super) fn small_outputs(
    acc: &[i32; LANES],
    most: u64,
    planes: u8,
    x: &impl Scales,
    w: &impl Scales,
    f_out: u8,
) -> [i32; LANES] {
    let base = base(planes, f_out);
    if !usual(base, x, w) {
        return by_reference(&acc.map(i64::from), planes, x, w, f_out);
    }
    let (least, largest) = shifts(base, x, w);
    if never_clamped(least, most, planes, w) {
        return if largest <= 32 {
            unclamped::<false>(acc, base, planes, x, w)
        } else {
            unclamped::<true>(acc, base, planes, x, w)
        };
    }
    let mut out = [0; LANES];
    for i in 0..LANES {
        let shift = base.wrapping_sub(x.e(i)).wrapping_sub(w.e(i));
        out[i] = if planes == 1 {
            // Mantissas are below 2^16, so the product stays below 2^63.
            round(i64::from(acc[i]).wrapping_mul(x.m(i).wrapping_mul(w.m(i))), shift)
        } else {
            // An int32 times a mantissa, without its last 16 bits, is within int32 again.
            let y = i64::from(acc[i])
                .wrapping_mul(low32(x.m(i)))
                .wrapping_add(1 << 15);
            let y = low32(y.cast_unsigned().wrapping_shr(16) as i64);
            round_small(y.wrapping_mul(low32(w.m(i))), shift)
        };
    }
    out
}

/// Whether all outputs of sums no larger than `most` are within int32 as they are, `least` being the smallest
/// shift, 1 to 62.
#[inline(always)]
fn never_clamped(least: i64, most: u64, planes: u8, w: &impl Scales) -> bool {
    // Mantissas are below 2^16: two planes shift an activation's away again before the weight's comes. The
    // products stay below 2^31 * 2^16 * 2^16; rounding adds up to 2^61 before the shift, so at most one behind it.
    let product = most.min(1 << 31).wrapping_mul(w.most()) << if planes == 1 { 16 } else { 0 };
    product < 1 << 62 && product >> least < (1 << 31) - 2
}

/// L2 and L3 where [`never_clamped`] holds, so that the low half of a shifted number is all of it. `WIDE` where
/// shifts above 32 occur: those shift the sign into the low half, where smaller ones leave what comes in above it.
#[inline(always)]
fn unclamped<const WIDE: bool>(
    acc: &[i32; LANES],
    base: i64,
    planes: u8,
    x: &impl Scales,
    w: &impl Scales,
) -> [i32; LANES] {
    const SIGN: u64 = 1 << 63;
    let mut out = [0; LANES];
    for i in 0..LANES {
        let shift = base.wrapping_sub(x.e(i)).wrapping_sub(w.e(i)) as u64;
        let half = 1u64.wrapping_shl(shift.wrapping_sub(1) as u32);
        let y = if planes == 1 {
            // An int32 times an uint32: the product of the bits, less 2^32 times the other where it is negative.
            let m = (x.m(i) as u32).wrapping_mul(w.m(i) as u32);
            let below = u64::from((acc[i] >> 31).cast_unsigned() & m) << 32;
            (u64::from(acc[i].cast_unsigned()).wrapping_mul(u64::from(m))).wrapping_sub(below)
        } else {
            let y = i64::from(acc[i])
                .wrapping_mul(low32(x.m(i)))
                .wrapping_add(1 << 15);
            let y = low32(y.cast_unsigned().wrapping_shr(16) as i64);
            y.wrapping_mul(low32(w.m(i))).cast_unsigned()
        };
        let y = y.wrapping_add(half);
        out[i] = if WIDE {
            // Without its sign a number is 2^63 larger; AVX2 has unsigned shifts only.
            let up = SIGN.wrapping_shr(shift as u32);
            ((y ^ SIGN).wrapping_shr(shift as u32)).wrapping_sub(up) as i32
        } else {
            y.wrapping_shr(shift as u32) as i32
        };
    }
    out
}

/// A number that fits int32.
#[inline(always)]
fn low32(v: i64) -> i64 {
    i64::from(v as i32)
}

/// The same where a scale is no usual one.
#[cold]
fn by_reference(acc: &[i64; LANES], planes: u8, x: &impl Scales, w: &impl Scales, f_out: u8) -> [i32; LANES] {
    std::array::from_fn(|i| requant(acc[i], planes, x.scale(i), w.scale(i), f_out))
}

/// `sat32(rsr(y, s))` for s in 1..=62.
#[inline(always)]
fn round(y: i64, s: i64) -> i32 {
    // (y >> (s - 1)) + 1 >> 1 is y / 2^s, halves up.
    let y = y.wrapping_shr(s.wrapping_sub(1) as u32);
    let y = y.wrapping_add(1) >> 1;
    y.clamp(-SAT32, SAT32) as i32
}

/// The same for |y| < 2^61, on unsigned shifts: AVX2 has no others of 64 bits.
#[inline(always)]
fn round_small(y: i64, s: i64) -> i32 {
    const UP: i64 = 1 << 62;
    let s = s as u32;
    let half = 1i64.wrapping_shl(s.wrapping_sub(1));
    // y / 2^s, halves up, of a number made positive by a multiple of 2^s (s <= 62).
    let y = y
        .wrapping_add(half)
        .wrapping_add(UP)
        .cast_unsigned()
        .wrapping_shr(s) as i64;
    y.wrapping_sub(UP.wrapping_shr(s)).clamp(-SAT32, SAT32) as i32
}

/// L4 for one more segment of several: adds its outputs, clamped so that int32 cannot overflow.
#[inline(always)]
pub(super) fn add_segment(sum: &mut [i32; LANES], part: &[i32; LANES], segments: usize) {
    if segments == 1 {
        *sum = *part;
        return;
    }
    let limit = (SAT32 >> segments.max(1).ilog2()) as i32;
    for (sum, part) in sum.iter_mut().zip(part) {
        // At most 8 segments of at most 2^31 / segments.
        *sum = sum.wrapping_add((*part).clamp(-limit, limit));
    }
}

/// L5: adds the bias.
#[inline(always)]
pub(super) fn add_bias(sum: &mut [i32; LANES], bias: &[i32; LANES]) {
    for (sum, bias) in sum.iter_mut().zip(bias) {
        *sum = sum.saturating_add(*bias).max(-i32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bounds of every length, and scales that make every usual shift; most lie near the largest.
    fn most() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(1u64 << 31),
            (1u32..=31).prop_map(|bits| (1 << bits) - 1),
            1u64..=1 << 31
        ]
    }

    fn mantissa() -> impl Strategy<Value = u16> {
        prop_oneof![Just(u16::MAX), Just(1 << 15), Just(0), any::<u16>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn every_way_of_scaling_is_the_rule(
            most in most(),
            planes in 1u8..=2,
            shift in 1i16..=62,
            lanes in prop::collection::vec((any::<i32>(), mantissa(), 0i16..3), LANES),
            m in mantissa(),
            f_out in 0u8..24,
        ) {
            let limit = most.min(i32::MAX as u64) as i64;
            let e = -shift - i16::from(f_out) - if planes == 1 { 0 } else { 16 };
            let mut acc = [0; LANES];
            for (acc, lane) in acc.iter_mut().zip(&lanes) {
                // Ends of the range count as much as all between them.
                *acc = i64::from(lane.0).clamp(-limit, limit) as i32;
            }
            let x = LaneScales::new(lanes.iter().map(|lane| Scale { m: lane.1, e: lane.2 }));
            let w = Scale { m, e };
            let got = small_outputs(&acc, most, planes, &x, &w, f_out);
            let want = by_reference(&acc.map(i64::from), planes, &x, &w, f_out);
            prop_assert_eq!(got, want);
        }
    }
}
