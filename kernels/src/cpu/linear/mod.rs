//! Linear sites (rules L1 to L5): blocks of weight rows go to threads, and one of two ways of summing.
//!
//! A few tokens ([`dot`]): vectors run along K, and weights stream past once at the speed of memory. More
//! tokens ([`panel`], [`blocked`]): vectors run across tokens, and a block of weight rows is prepared once for
//! all of them.

mod blocked;
mod dot;
mod norms;
mod output;
mod panel;
pub(super) mod peak;
mod portable;
mod weight;

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon_dot;
#[cfg(target_arch = "x86_64")]
mod vnni;

use crate::ops::QuantRows;

use super::{
    Isa,
    split::{SERIAL_WORK, by_columns, threads},
};

pub use weight::CpuWeight;

/// Most tokens that are summed along K.
const FEW: usize = 4;
/// Bytes of weights that a task keeps in the second-level cache while it walks the tokens.
const CACHED_BYTES: usize = 128 << 10;
/// Weight rows a task is a multiple of where vectors run along K.
const ROWS: usize = 16;
/// The same where they run across tokens: whole tiles of 6 and 8 rows, so that none but a weight's last is padded.
const TILES: usize = 48;
/// The same of AMX's 32 rows.
const AMX_TILES: usize = 64;

/// One linear site over one block of rows.
struct Site<'a> {
    isa: Isa,
    weight: &'a CpuWeight,
    /// The weight's integers, `[n, k]`.
    w: &'a [i8],
    /// Its multipliers, `[n, k / 32]`; empty where it has none.
    m: &'a [u8],
    x: &'a QuantRows,
    f_out: u8,
}

impl<'a> Site<'a> {
    fn new(isa: Isa, weight: &'a CpuWeight, x: &'a QuantRows, f_out: u8) -> Self {
        Self {
            isa,
            weight,
            w: bytemuck::cast_slice(weight.host.q.data()),
            m: weight.host.mult.as_ref().map_or(&[], |m| m.data()),
            x,
            f_out,
        }
    }
}

/// Every row of `x` against every row of the weight; `out` is `[x.rows, n]`. The machine has `isa`.
pub(super) fn linear(isa: Isa, weight: &CpuWeight, x: &QuantRows, f_out: u8, out: &mut [i32]) {
    let site = Site::new(isa, weight, x, f_out);
    let block = columns_a_block(isa, weight.host.n, weight.host.k, x.rows, threads());
    if isa == Isa::Portable || x.rows <= FEW {
        by_columns(out, weight.host.n, block, |first, pieces| {
            site.dots(first, pieces)
        });
    } else {
        site.blocked(block, out, |packed, rows, first, pieces| {
            site.block(packed, rows, first, pieces);
        });
    }
}

/// Weight rows a task.
fn columns_a_block(isa: Isa, n: usize, k: usize, tokens: usize, threads: usize) -> usize {
    let multiple = match isa {
        _ if tokens <= FEW => ROWS,
        Isa::AmxInt8 => AMX_TILES,
        _ => TILES,
    };
    let work = n * k * tokens;
    let cached = CACHED_BYTES / k.max(1);
    let rows = if work <= SERIAL_WORK || threads <= 1 {
        if tokens <= FEW { n } else { cached }
    } else {
        // Equal tasks, a few a thread, none smaller than what waking a thread costs.
        let tasks = (work / SERIAL_WORK).clamp(1, threads * 4);
        let fair = n.div_ceil(tasks);
        if tokens <= FEW { fair } else { fair.min(cached) }
    };
    rows.min(n).next_multiple_of(multiple).max(multiple)
}
