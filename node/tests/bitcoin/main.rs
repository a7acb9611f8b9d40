//! The Bitcoin side from outside: both backends, envelopes on a real chain, reorgs, whole nodes. One binary,
//! since linking is what takes time.

mod backends;
mod bitcoind;
#[path = "../chain/common.rs"]
#[allow(dead_code)]
mod eth;
#[cfg(feature = "embedded-bitcoin")]
mod nodes;
#[cfg(feature = "embedded-bitcoin")]
mod reorgs;
mod vectors;
mod wallet;
