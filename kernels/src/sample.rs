//! How the next token is chosen from a row of logits: integers only, ties to the lower id (PROTOCOL rule 7).

use serde::{Deserialize, Serialize};

/// A job's sampler with its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Sampler {
    /// The largest logit; ties to the lower id.
    #[default]
    Greedy,
    /// Integer softmax at a temperature, cut to `top_k` ids and `top_p` mass, drawn by a counter-based generator.
    Random {
        /// Temperature in Q16, > 0.
        temperature_q16: u32,
        /// Ids kept, 0 = all.
        top_k: u32,
        /// Mass kept in Q16, 65536 = all.
        top_p_q16: u32,
        /// The job's seed; with the position it gives the draw.
        seed: u64,
    },
}
