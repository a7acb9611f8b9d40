//! The residual sum (rule D1).

use crate::num::sat32;

/// D1: one element.
pub fn element(a: i32, b: i32) -> i32 {
    sat32(i64::from(a) + i64::from(b))
}

/// Element by element.
pub fn add_rows(a: &[i32], b: &[i32], out: &mut [i32]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = element(*a, *b);
    }
}
