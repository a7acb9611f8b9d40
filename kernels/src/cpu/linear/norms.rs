//! How large a sum over K can become: by Cauchy and Schwarz no larger than the norm of the weights times the norm
//! of the activations. Most sums of thousands of products stay far below what the largest integers would allow, fit
//! one int32, and need no blocks.

use crate::{
    cpu::{Isa, compiled},
    ops::QuantRows,
    reference::linear::GROUP,
};

use super::panel::LANES;

/// The norm of one weight row with its multipliers, rounded up.
pub(super) fn row_norm(w: &[i8], mults: &[u8]) -> u32 {
    let squares = w.chunks(GROUP).enumerate().map(|(g, w)| {
        // 32 squares of up to 2^14.
        let squares = w
            .iter()
            .map(|w| i32::from(*w).wrapping_mul(i32::from(*w)))
            .fold(0i32, i32::wrapping_add);
        let m = mults.get(g).map_or(1, |m| u64::from(*m));
        u64::from(squares.cast_unsigned()) * m * m
    });
    root_up(squares.sum())
}

/// The largest norm among each panel's rows, rounded up: `[panel][segment]`.
pub(super) fn panel_norms(isa: Isa, x: &QuantRows) -> Vec<u32> {
    // Nine bits of each value are enough: two planes have fifteen.
    let shift = if x.planes == 1 { 0 } else { 6 };
    let segments = x.groups();
    let mut squares = vec![0; x.rows * segments];
    compiled::rough_squares(isa, &x.q, x.group, shift, &mut squares);
    let mut norms = vec![0; x.rows.div_ceil(LANES) * segments];
    for (panel, norms) in squares
        .chunks(LANES * segments.max(1))
        .zip(norms.chunks_mut(segments.max(1)))
    {
        for (i, squares) in panel.iter().enumerate() {
            let norm = u64::from(root_up(*squares)) << shift;
            let most = &mut norms[i % segments];
            *most = (*most).max(u32::try_from(norm).unwrap_or(u32::MAX));
        }
    }
    norms
}

/// What a sum of products cannot exceed.
#[inline]
pub(super) fn sum_max(weights: u32, activations: u32) -> u64 {
    u64::from(weights) * u64::from(activations)
}

/// The square root, rounded up; `u32::MAX` where that is the most that 32 bits hold.
fn root_up(v: u64) -> u32 {
    let root = v.isqrt();
    u32::try_from(root + u64::from(root * root < v)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::num::Scale;

    #[test]
    fn a_row_s_norm_is_rounded_up() {
        assert_eq!(row_norm(&[3, -4], &[]), 5);
        assert_eq!(row_norm(&[3, -4], &[15]), 75);
        assert_eq!(row_norm(&[1, 1], &[]), 2);
        assert_eq!(row_norm(&[], &[]), 0);
        assert_eq!(
            u64::from(row_norm(&[-128; 64], &[1, 15])),
            (32u64 * 128 * 128 * 226).isqrt() + 1
        );
        assert_eq!(root_up(u64::MAX), u32::MAX);
    }

    fn exact(values: &[i16]) -> u64 {
        values.iter().map(|v| i64::from(*v).pow(2).cast_unsigned()).sum()
    }

    proptest! {
        #[test]
        fn no_row_is_longer_than_its_panel_s_norm(
            planes in 1u8..=2,
            (rows, group, segments) in (1usize..40, 1usize..70, 1usize..4),
            seed in any::<u64>(),
        ) {
            let most = if planes == 1 { 127 } else { 32_639 };
            let mut state = seed;
            let q: Vec<i16> = (0..rows * group * segments)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    ((state >> 40) as i64 % (2 * most + 1) - most) as i16
                })
                .collect();
            let x = QuantRows {
                rows,
                cols: group * segments,
                group,
                planes,
                q,
                scales: vec![Scale { m: 1, e: 0 }; rows * segments],
            };
            let norms = panel_norms(Isa::best(), &x);
            for (t, row) in x.q.chunks(x.cols).enumerate() {
                for (s, values) in row.chunks(group).enumerate() {
                    let norm = u64::from(norms[t / LANES * segments + s]);
                    prop_assert!(norm * norm >= exact(values));
                }
            }
        }
    }

    #[test]
    fn the_longest_row_of_the_largest_values_fits() {
        let k = 32_768;
        let x = QuantRows {
            rows: 1,
            cols: k,
            group: k,
            planes: 2,
            q: vec![i16::MIN; k],
            scales: vec![Scale { m: 1, e: 0 }],
        };
        let norm = u64::from(panel_norms(Isa::Portable, &x)[0]);
        // -32,768 has no int16 of the other sign; quantisation gives 32,639 at most, and the bound holds for all.
        assert!(norm * norm >= exact(&x.q));
    }
}
