//! The same inner loops in plain Rust, shaped so that the compiler vectorises them with whatever the target
//! always has; also the tails of the AVX2 loops.
//!
//! Sums use wrapping operators because overflow checks stop vectorisation; [`super::bounds`] proves that
//! nothing wraps.

use super::bounds::KEY_BLOCK;

/// Sum of w * x in one int32; at most [`SCALAR_BLOCK`] elements, or of a head.
#[inline]
pub(super) fn dot_i32(w: &[i8], x: &[i16]) -> i32 {
    w.iter().zip(x).fold(0i32, |sum, (w, x)| {
        sum.wrapping_add(i32::from(*w).wrapping_mul(i32::from(*x)))
    })
}

/// acc\[d\] += sum over keys of p\[j\] * v\[j\]\[d\], key j's acc.len() values at `rows[j * stride ..]`.
pub(super) fn weighted_rows(p: &[i16], rows: &[i8], stride: usize, acc: &mut [i64]) {
    let dim = acc.len();
    let mut sums = vec![0i32; dim];
    for first in (0..p.len()).step_by(KEY_BLOCK) {
        let last = p.len().min(first + KEY_BLOCK);
        sums.fill(0);
        for (j, p) in (first..last).zip(&p[first..last]) {
            let p = i32::from(*p);
            for (sum, v) in sums.iter_mut().zip(&rows[j * stride..][..dim]) {
                *sum = sum.wrapping_add(i32::from(*v).wrapping_mul(p));
            }
        }
        for (acc, sum) in acc.iter_mut().zip(&sums) {
            *acc += i64::from(*sum);
        }
    }
}

/// Dot products of `q` and the keys at `rows[j * stride ..]`, one for each of `out`; a head's sum fits int32.
pub(super) fn dots(q: &[i16], rows: &[i8], stride: usize, out: &mut [i32]) {
    for (j, sum) in out.iter_mut().enumerate() {
        *sum = dot_i32(&rows[j * stride..][..q.len()], q);
    }
}
