//! What a weight's row may hold (rules T2, T3): checked when a model is loaded, and by a dispute about it.

use crate::reference::linear::GROUP;

/// T3: `sum |w * m| * 128` of a row stays below this, so that every sum of one plane fits int32.
pub const ROW_BOUND: u64 = 1 << 31;

/// What a row of a weight breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFault {
    /// T2: it holds -128.
    Weight,
    /// T2: it holds this multiplier.
    Multiplier(u8),
    /// T3: this is `sum |w * m| * 128`.
    Sum(u64),
}

/// T2 for a piece of a row.
pub fn check_values(ws: &[i8], mults: &[u8]) -> Result<(), RowFault> {
    if ws.contains(&-128) {
        return Err(RowFault::Weight);
    }
    match mults.iter().find(|m| !(1..=15).contains(*m)) {
        Some(m) => Err(RowFault::Multiplier(*m)),
        None => Ok(()),
    }
}

/// T3: `sum |w * m|` of a piece of a row, a multiplier for every 32 integers (or none at all); pieces add up to
/// their row. Below 2^31 for 65,536 elements of any bytes.
pub fn row_sum(ws: &[i8], mults: &[u8]) -> u64 {
    let size = |ws: &[i8]| ws.iter().map(|w| u64::from(w.unsigned_abs())).sum::<u64>();
    if mults.is_empty() {
        return size(ws);
    }
    ws.chunks(GROUP)
        .zip(mults)
        .map(|(g, m)| size(g) * u64::from(*m))
        .sum()
}

/// T2 and T3 for one row: its integers, and a multiplier for every 32 of them (or none at all).
pub fn check_row(ws: &[i8], mults: &[u8]) -> Result<(), RowFault> {
    check_values(ws, mults)?;
    let sum = row_sum(ws, mults) * 128;
    if sum >= ROW_BOUND {
        return Err(RowFault::Sum(sum));
    }
    Ok(())
}
