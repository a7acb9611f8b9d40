//! Both seats of a dispute, played from chain state alone: the neuron answers for its claims, a validator doubts those
//! of others. What is kept in memory is computed rows and signed moves; after a restart both are made again.

mod challenge;
mod checks;
mod defend;
mod desk;
mod guard;
mod moves;
mod outbox;
mod player;
pub mod report;
mod rows;
mod shelf;
#[cfg(test)]
mod tests;
mod turns;
pub mod validate;
mod view;

pub use challenge::{Challenge, Doubter, Mover, Outcome};
pub use defend::Defence;
pub use desk::{Explainer, Maker};
pub use guard::Guard;
pub use outbox::Outbox;
pub use player::{Explained, Rows, again, doubter, honest, layered, lend, opened, player};
pub use rows::Kept;
pub use shelf::{Lent, Shelf};
pub use view::{View, view};
