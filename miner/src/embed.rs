//! Embeddings: the job that a text means to an encoder, and its words as people and programs read them.

use bitai_model::{arch::encoder::F_ENCODER, engine::EngineError, tokenizer::Tokenizer};
use bitai_types::Job;
use serde::Serialize;

use crate::{engine::engine_failure, exit::Failure, models::Listed};

/// Elements that are shown to people; JSON has all.
const SHOWN: usize = 8;

/// The job that embeds a text; refused for a model that generates.
pub fn job(tokenizer: &Tokenizer, model: &Listed, text: &str) -> Result<Job, Failure> {
    if !model.shape.embeds() {
        return Err(engine_failure(EngineError::NotAnEncoder));
    }
    let ids = tokenizer
        .sentence(text)
        .map_err(|e| Failure::Usage(format!("text: {e}")))?;
    Ok(Job::embedding(model.model_root, ids))
}

/// An encoder's output for programs that read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Embedding {
    /// The words as they are committed.
    pub integers: Vec<i32>,
    /// An integer of 2 to this power stands for one.
    pub fraction_bits: u8,
    /// The same as real numbers, exactly.
    pub embedding: Vec<f64>,
}

impl Embedding {
    /// Of a job's output.
    pub fn of(words: &[u32]) -> Self {
        let integers: Vec<i32> = words.iter().map(|w| w.cast_signed()).collect();
        // Exact: the integers are below 2^31 and the divisor is a power of two. For people only.
        let real = |v: &i32| f64::from(*v) / f64::from(1u32 << F_ENCODER);
        Self {
            embedding: integers.iter().map(real).collect(),
            fraction_bits: F_ENCODER,
            integers,
        }
    }
}

impl std::fmt::Display for Embedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<String> = self
            .embedding
            .iter()
            .take(SHOWN)
            .map(|v| format!("{v:.4}"))
            .collect();
        let count = self.integers.len();
        write!(
            f,
            "{count} elements in Q{}: {}",
            self.fraction_bits,
            shown.join(", ")
        )?;
        if count > SHOWN {
            f.write_str(" ... (all: --json)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_signed_and_shown_exactly() {
        let e = Embedding::of(&[1 << 16, u32::MAX, 1 << 31]);
        assert_eq!(e.integers, [1 << 16, -1, i32::MIN]);
        assert_eq!(e.embedding, [1.0, -1.0 / 65536.0, -32768.0]);
        assert_eq!(e.to_string(), "3 elements in Q16: 1.0000, -0.0000, -32768.0000");
        assert!(Embedding::of(&[0; 9]).to_string().ends_with("(all: --json)"));
    }
}
