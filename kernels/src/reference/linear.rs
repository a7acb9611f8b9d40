//! Linear (rules L1 to L5): integer dot products, requantised once per K segment.

use crate::{
    num::{SAT32, Scale, rsr, sat32},
    ops::{HostWeight, QuantRows},
};

/// Elements of K that share a multiplier.
pub const GROUP: usize = 32;

/// L1: sum over a piece of K of `x * w * multiplier`. `mults` is empty (all 1) or holds one multiplier for
/// every [`GROUP`] elements, the piece starting at a group's start. Exact: at most 2^46 for any inputs of
/// these types and K <= 65,536. Partial sums of a dispute add up to their parent's.
pub fn dot_segment(xs: &[i16], ws: &[i8], mults: &[u8]) -> i64 {
    xs.iter()
        .zip(ws)
        .enumerate()
        .map(|(i, (x, w))| {
            let mult = if mults.is_empty() {
                1
            } else {
                i64::from(mults[i / GROUP])
            };
            i64::from(*x) * i64::from(*w) * mult
        })
        .sum()
}

/// L2 (A8) and L3 (A16): the sum of one segment in the output's format, before segments are added.
pub fn requant(acc: i64, planes: u8, x: Scale, w: Scale, f_out: u8) -> i32 {
    let shift = -(i32::from(x.e) + i32::from(w.e) + i32::from(f_out));
    let (mx, mw) = (i64::from(x.m), i64::from(w.m));
    if planes == 1 {
        // |acc| < 2^31 by the loader's bound; saturating only where a hostile sum goes beyond it.
        sat32(rsr(acc.saturating_mul(mx * mw), shift))
    } else {
        sat32(rsr(
            rsr(acc.saturating_mul(mx), 16).saturating_mul(mw),
            shift - 16,
        ))
    }
}

/// L4: adds the segments (each clamped to (2^31 - 1) >> log2(segments), so that no order of adding in int32
/// can overflow) and then the bias.
pub fn finish(segments: &[i32], bias: i32) -> i32 {
    let limit = SAT32 >> segments.len().max(1).ilog2();
    let sum: i64 = segments.iter().map(|s| i64::from(*s).clamp(-limit, limit)).sum();
    sat32(sum + i64::from(bias))
}

/// One output element: weight row `w` (with its multipliers, scale and bias) times one quantised row.
pub fn output(
    xs: &[i16],
    x_scales: &[Scale],
    planes: u8,
    ws: &[i8],
    mults: &[u8],
    w_scale: Scale,
    bias: i32,
    f_out: u8,
) -> i32 {
    let seg_len = xs.len() / x_scales.len();
    let mut segments = [0i32; SEGMENTS_MAX];
    for (s, (x_scale, out)) in x_scales.iter().zip(&mut segments).enumerate() {
        let range = s * seg_len..(s + 1) * seg_len;
        let seg_mults = if mults.is_empty() {
            mults
        } else {
            &mults[range.start / GROUP..range.end / GROUP]
        };
        let acc = dot_segment(&xs[range.clone()], &ws[range], seg_mults);
        *out = requant(acc, planes, *x_scale, w_scale, f_out);
    }
    finish(&segments[..x_scales.len()], bias)
}

/// Most K segments of a site.
pub const SEGMENTS_MAX: usize = 8;

/// Every row of `x` against every row of the weight; `out` is `[x.rows, n]`.
pub fn linear_rows(weight: &HostWeight, x: &QuantRows, f_out: u8, out: &mut [i32]) {
    let groups = x.groups();
    for (r, out_row) in out.chunks_exact_mut(weight.n).enumerate() {
        let xs = &x.q[r * x.cols..(r + 1) * x.cols];
        let scales = &x.scales[r * groups..(r + 1) * groups];
        for (i, y) in out_row.iter_mut().enumerate() {
            let bias = weight.bias.as_ref().map_or(0, |b| b[i]);
            *y = output(
                xs,
                scales,
                x.planes,
                weight.row(i),
                weight.mults(i),
                weight.scales[i],
                bias,
                f_out,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_scale_keeps_the_sum() {
        let one = Scale { m: 1 << 15, e: -15 };
        for planes in [1, 2] {
            assert_eq!(requant(-1234, planes, one, one, 0), -1234);
            assert_eq!(requant(-1234, planes, one, one, 16), -1234 << 16);
        }
    }

    #[test]
    fn hostile_scales_are_defined() {
        let big = Scale {
            m: u16::MAX,
            e: i16::MAX,
        };
        let small = Scale {
            m: u16::MAX,
            e: i16::MIN,
        };
        for planes in [1, 2] {
            assert_eq!(requant(1, planes, big, big, 30), i32::MAX);
            assert_eq!(requant(-1, planes, big, big, 30), -i32::MAX);
            assert_eq!(requant(i64::MIN, planes, small, small, 0), 0);
            assert_eq!(requant(i64::MAX, planes, big, Scale::ZERO, 30), 0);
        }
    }

    #[test]
    fn segments_cannot_overflow_in_any_order() {
        assert_eq!(finish(&[i32::MAX; 8], 0), 8 * (i32::MAX >> 3));
        assert_eq!(finish(&[i32::MAX], i32::MAX), i32::MAX);
        assert_eq!(finish(&[-i32::MAX, -i32::MAX], i32::MIN), -i32::MAX);
    }

    #[test]
    fn grouped_weights_are_the_product_weights() {
        let xs: Vec<i16> = (0..64).map(|i| i * 3 - 90).collect();
        let ws: Vec<i8> = (0..64i8).map(|i| 60 - 2 * i).collect();
        let flat: i64 = (0..64)
            .map(|i| i64::from(xs[i]) * i64::from(ws[i]) * if i < 32 { 15 } else { 2 })
            .sum();
        assert_eq!(dot_segment(&xs, &ws, &[15, 2]), flat);
    }
}
