//! What each tier of verification catches, with what probability, at what cost in compute, gas, virtual bytes and blocks.
//!
//! Everything is reckoned in integers: shares are exact, chances are upper bounds ([`chance`]), sizes come from the real codecs,
//! and what was measured is compiled in as it is committed ([`measured`]). `bitai-miner soundness` prints the [`report`];
//! `docs/security/proof-of-compute.md` holds that table and says in words what it assumes.

pub mod attest;
pub mod beacon;
pub mod censor;
pub mod chance;
pub mod game;
pub mod inscribe;
pub mod measured;
pub mod money;
pub mod params;
pub mod recheck;
pub mod report;
pub mod shapes;
#[cfg(test)]
mod simulate;
pub mod text;
mod text_dispute;

pub use chance::{Chance, Share, ShareError};
pub use measured::MeasuredError;
pub use params::{ParamError, Params};
pub use report::{Report, ReportError, report};
pub use shapes::Shape;
