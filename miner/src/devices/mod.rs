//! The devices that a neuron computes on: opened, given models and jobs, looked after, and shown to their owner.
//!
//! A [`Fleet`] has one place a device and in it one thread a model ([`Computer`]). One more thread decides: it gives
//! each job to the least busy device that holds its model, stops a device that fails, hangs, is too hot or computed
//! wrongly, hands its jobs to the others, and tries it again. [`Devices`] is what everybody else sees of them.

mod check;
mod computer;
mod crew;
mod figures;
mod fleet;
mod handle;
mod health;
mod jobs;
mod nvml;
mod placement;
mod places;
mod reading;
mod settings;
#[cfg(test)]
mod tests;
mod unit;

pub use computer::{Computed, Computer, Hear, Undone};
pub use fleet::{Fleet, Start};
pub use handle::{Devices, Unknown};
pub use health::{Figures, Health};
pub use nvml::FromNvml;
pub use places::{Place, places};
pub use reading::{Faults, Pause, Reading, State};
pub use settings::Gpus;
