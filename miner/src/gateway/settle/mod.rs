//! Settling behind: answers that were given at once are posted as paid jobs, followed to their end, and the root that the
//! chain settled is compared with the one that was given.
//!
//! `book` is what is on disk and what may be spent, `follow` what happens on chain.

mod book;
mod follow;

pub use book::{Book, Caps, Record, State};
pub use follow::Settler;
