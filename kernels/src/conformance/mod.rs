//! The one suite that every backend passes: programs of one op and of many, compared with the reference bit
//! for bit: every site's rows through a probe, sampled tokens, body roots; as one prefill, token by token,
//! in uneven pieces and in a batch of several sequences.
//!
//! `run(&device)` is all a backend's test needs. The programs come from seeds (BLAKE3's output stream), so
//! they are the same on every machine; lengths and scales say in each case's name why they were chosen.

pub mod build;
pub mod cases;
pub mod check;
mod encoder;
mod parts;

use crate::Device;

pub use build::{Case, Shape};
pub use check::{Mismatch, check_case};

/// Runs every case on `device`; the number of cases, or the first difference.
pub fn run(device: &dyn Device) -> Result<usize, Mismatch> {
    let cases = cases::all();
    for case in &cases {
        check_case(device, case)?;
    }
    Ok(cases.len())
}

#[cfg(test)]
mod tests;
