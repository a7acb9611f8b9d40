//! Both seats of a dispute, played from chain state alone: the neuron answers for its claims, a validator doubts those
//! of others. What is kept in memory is computed rows and signed moves; after a restart both are made again.

mod challenge;
mod defend;
mod outbox;
mod player;
pub mod report;
pub mod validate;
mod view;

pub use challenge::{Challenge, Mover, Outcome};
pub use defend::{Defence, Explainer, Maker};
pub use outbox::Outbox;
pub use player::{Explained, doubter, honest, opened, player, rerun};
pub use view::{View, view};
