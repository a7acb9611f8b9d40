//! What a validator says about answered jobs: who is drawn, which chunks it has to hash, the tree of its entries and how
//! one of them is opened. The contract that reads all of it is `contracts/src/Attestations.sol`; the standard is
//! `docs/spec/validators.md`.
//!
//! `draw` and `pick` follow from a Bitcoin header alone; `entry` is what the tree in `tree` holds for a job; `opening`
//! shows one chunk of it, from the attested root to the bytes of a row. `prove` makes both from a run of one's own.

mod draw;
mod entry;
mod opening;
mod prove;
mod tree;

pub use draw::{Draw, PICKS, Pick};
pub use entry::Entry;
pub use opening::{AttestError, Opening};
pub use prove::Attestor;
pub use tree::{EntryPath, EntryTree, HEIGHT};
