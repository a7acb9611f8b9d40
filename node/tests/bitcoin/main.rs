//! The Bitcoin side from outside: both backends, envelopes on a real chain, reorgs, whole nodes. One binary,
//! since linking is what takes time.
// unwrap is how a test says that the rest of it depends on this; helpers outside #[test] do so too.
#![allow(clippy::unwrap_used)]

mod backends;
mod bitcoind;
#[path = "../chain/common.rs"]
#[allow(dead_code)]
mod eth;
#[cfg(feature = "embedded-bitcoin")]
mod nodes;
#[cfg(feature = "embedded-bitcoin")]
mod reorgs;
mod spikes;
mod vectors;
mod wallet;
