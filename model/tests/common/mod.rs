//! A trace that keeps what it hears, and devices to compare.
#![allow(dead_code, reason = "each test binary uses a part")]

use bitai_kernels::{Hash, Trace};

/// Bodies by position and sampled tokens.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Body root of each position.
    pub(crate) bodies: Vec<Hash>,
    /// (position, token).
    pub(crate) sampled: Vec<(u32, u32)>,
}

impl Trace for Heard {
    fn bodies(&mut self, first: u32, bodies: &[Hash]) {
        assert_eq!(
            first as usize,
            self.bodies.len(),
            "bodies come in order, each once"
        );
        self.bodies.extend(bodies);
    }

    fn sampled(&mut self, pos: u32, token: u32) {
        self.sampled.push((pos, token));
    }
}

/// Shares what it hears with the test while a batch owns it.
#[derive(Default, Clone)]
pub(crate) struct Shared(pub(crate) std::sync::Arc<std::sync::Mutex<Heard>>);

impl Trace for Shared {
    fn bodies(&mut self, first: u32, bodies: &[Hash]) {
        self.0.lock().unwrap().bodies(first, bodies);
    }

    fn sampled(&mut self, pos: u32, token: u32) {
        self.0.lock().unwrap().sampled(pos, token);
    }
}
