//! The devices that a neuron computes on, as its owner sees them.

mod reading;

pub use reading::{Pause, Reading, State};
