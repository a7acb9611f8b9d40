//! Pooling (rule O1): an encoder's rows become one.

use crate::{
    num::{bitlen, rsr, sat32},
    program::Pooling,
};

/// O1: whole bits of a mean's divisor: 2^bits >= rows.
pub fn mean_bits(rows: usize) -> i32 {
    bitlen((rows as u64).saturating_sub(1))
}

/// O1: one element of the mean, from the sum over a sequence of at most 2^31 rows (so below 2^62).
pub fn mean(sum: i64, rows: usize) -> i32 {
    sat32(rsr(sum, mean_bits(rows)))
}

/// O1: the rows of one sequence, `[rows, out.len()]`, at least one.
pub fn pool(how: Pooling, x: &[i32], out: &mut [i32]) {
    let cols = out.len();
    let rows = x.len() / cols;
    match how {
        Pooling::First => {
            for (o, v) in out.iter_mut().zip(x) {
                *o = sat32(i64::from(*v));
            }
        }
        Pooling::Mean => {
            for (i, o) in out.iter_mut().enumerate() {
                let sum = x[i..].iter().step_by(cols).map(|v| i64::from(*v)).sum();
                *o = mean(sum, rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_the_sum_over_the_next_power_of_two() {
        for (rows, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (128, 7), (129, 8)] {
            assert_eq!(mean_bits(rows), bits, "{rows}");
        }
        let mut out = [0; 2];
        pool(Pooling::Mean, &[1, i32::MAX, 2, i32::MAX, 4, i32::MAX], &mut out);
        // 7 / 4 rounds up; three quarters of the largest.
        assert_eq!(out, [2, 1_610_612_735]);
        pool(Pooling::First, &[1, -5, 2, 0], &mut out);
        assert_eq!(out, [1, -5]);
        pool(Pooling::Mean, &[i32::MIN, i32::MIN], &mut out);
        assert_eq!(out, [-i32::MAX; 2], "an op puts out no -2^31");
        pool(Pooling::First, &[i32::MIN, 3, 0, 0], &mut out);
        assert_eq!(out, [-i32::MAX, 3]);
    }
}
