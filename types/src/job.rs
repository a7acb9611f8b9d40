//! A model job and every hash that binds it (PROTOCOL rules 1 to 3). The contracts compute the same hashes
//! with keccak256 over ABI words, so nothing here may depend on how a struct lies in memory.

use alloy_primitives::{Address, B256, keccak256};
use alloy_sol_types::SolValue;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ModelShape;

/// The tensor spec's version; 0 until a GPU has run it at full speed.
pub const SPEC_VERSION: u32 = 0;
/// Most stop ids that a job may name.
pub const STOP_IDS_MAX: usize = 16;

/// Most tokens that a job may ask for, and most words that a model may put out: their four bytes each must fit the one
/// transaction that reveals them (`MAX_OUTPUTS` of the contracts).
pub const OUTPUTS_MAX: u32 = 98_304;

/// How tokens are chosen, as the job states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sampler {
    /// 0 = greedy (the rest must be 0); otherwise the temperature in Q16.
    pub temperature_q16: u32,
    /// Ids kept, 0 = all.
    pub top_k: u32,
    /// Mass kept in Q16; 65536 (or 0 when greedy) = all.
    pub top_p_q16: u32,
}

impl Sampler {
    /// Always the largest logit.
    pub const GREEDY: Self = Self {
        temperature_q16: 0,
        top_k: 0,
        top_p_q16: 0,
    };
}

/// `{model_root, spec_version, input_ids, max_new, stop_ids, sampler, seed}`: all that decides an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Merkle root of the model pack.
    pub model_root: B256,
    /// Tensor spec version.
    pub spec_version: u32,
    /// Prompt ids; templates are the client's business.
    pub input_ids: Vec<u32>,
    /// Most tokens to generate, at least 1; 0 where the model embeds.
    pub max_new: u32,
    /// Generation ends after one of these.
    pub stop_ids: Vec<u32>,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// Seed of the draw; only a random sampler reads it.
    pub seed: u64,
}

/// Why a job or an answer is not one.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum JobError {
    /// No prompt.
    #[error("the job has no input ids")]
    EmptyInput,
    /// Rules that this program does not compute by.
    #[error("the job follows tensor spec {got}; this program computes spec {expected}")]
    SpecVersion {
        /// The job's.
        got: u32,
        /// [`SPEC_VERSION`].
        expected: u32,
    },
    /// Nothing to generate.
    #[error("max_new is 0; at least 1 token must be asked for")]
    NothingAsked,
    /// Tokens of a model that puts out words.
    #[error("max_new is {max_new}; this model embeds and generates nothing: it must be 0")]
    EmbeddingGenerates {
        /// Tokens asked for.
        max_new: u32,
    },
    /// Stop ids of a model that puts out words.
    #[error("{got} stop ids; this model embeds and generates nothing: there must be none")]
    EmbeddingStops {
        /// How many.
        got: usize,
    },
    /// A sampler of a model that puts out words.
    #[error("temperature, top_k or top_p is set; this model embeds and samples nothing: all three must be 0")]
    EmbeddingSamples,
    /// A seed of a model that puts out words.
    #[error("seed is {seed}; this model embeds and draws nothing: it must be 0, so that one text is one job")]
    EmbeddingSeeded {
        /// The seed.
        seed: u64,
    },
    /// Too long.
    #[error("{input} input ids + {max_new} new > context of {context}")]
    ContextOverflow {
        /// Prompt ids.
        input: usize,
        /// Tokens asked for.
        max_new: u32,
        /// The model's context.
        context: u32,
    },
    /// An answer that no transaction could carry.
    #[error("max_new is {max_new}; one transaction reveals at most {OUTPUTS_MAX} tokens: ask for less")]
    TooManyOutputs {
        /// Tokens asked for.
        max_new: u32,
    },
    /// An id outside the vocabulary.
    #[error("id {id} is not below the vocabulary of {vocab}")]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// The vocabulary.
        vocab: u32,
    },
    /// Too many stop ids.
    #[error("{got} stop ids; at most {STOP_IDS_MAX}")]
    TooManyStops {
        /// How many.
        got: usize,
    },
    /// Sampler fields that contradict each other.
    #[error("sampler: {0}")]
    Sampler(&'static str),
    /// Bytes that are no id list.
    #[error("{len} bytes are no list of little-endian u32 ids")]
    IdBytes {
        /// Length found.
        len: usize,
    },
    /// An output that does not end where it must.
    #[error(
        "output of {len} ids ends neither with a stop id nor at max_new = {max_new}, or goes on after a stop id"
    )]
    BadEnd {
        /// Ids in the output.
        len: usize,
        /// Tokens asked for.
        max_new: u32,
    },
    /// Another number of words than the model puts out.
    #[error("output of {got} words; this model puts out {expected}")]
    BadWords {
        /// Words found.
        got: usize,
        /// The model's.
        expected: u32,
    },
}

/// Ids (or the words of an embedding, as bit patterns) as the chain carries them: little-endian u32 each.
pub fn ids_to_bytes(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// The reverse of [`ids_to_bytes`].
pub fn ids_from_bytes(bytes: &[u8]) -> Result<Vec<u32>, JobError> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(JobError::IdBytes { len: bytes.len() });
    }
    Ok(words.iter().map(|w| u32::from_le_bytes(*w)).collect())
}

/// BLAKE3 of the prompt ids' bytes: one id opens under it by a path, so no dispute carries a whole prompt.
pub fn input_hash(ids: &[u32]) -> B256 {
    B256::from(*blake3::hash(&ids_to_bytes(ids)).as_bytes())
}

/// keccak256 of the ids' bytes: of stop ids and outputs.
pub fn ids_hash(ids: &[u32]) -> B256 {
    keccak256(ids_to_bytes(ids))
}

impl Job {
    /// The job that embeds `input_ids`: it says nothing else, so one text is one job.
    pub const fn embedding(model_root: B256, input_ids: Vec<u32>) -> Self {
        Self {
            model_root,
            spec_version: SPEC_VERSION,
            input_ids,
            max_new: 0,
            stop_ids: Vec::new(),
            sampler: Sampler::GREEDY,
            seed: 0,
        }
    }

    /// `keccak256(abi.encode(bytes32 modelRoot, uint32 specVersion, bytes32 inputHash, uint32 maxNew,
    /// bytes32 stopHash, uint32 temperatureQ16, uint32 topK, uint32 topPQ16, uint64 seed))`.
    pub fn hash(&self) -> B256 {
        keccak256(
            (
                self.model_root,
                self.spec_version,
                input_hash(&self.input_ids),
                self.max_new,
                ids_hash(&self.stop_ids),
                self.sampler.temperature_q16,
                self.sampler.top_k,
                self.sampler.top_p_q16,
                self.seed,
            )
                .abi_encode(),
        )
    }

    /// Refuses what the hub refuses of a job for a model of this shape, before any fee is spent, and a job under
    /// another tensor spec than [`SPEC_VERSION`].
    pub fn check(&self, model: &ModelShape) -> Result<(), JobError> {
        if self.spec_version != SPEC_VERSION {
            return Err(JobError::SpecVersion {
                got: self.spec_version,
                expected: SPEC_VERSION,
            });
        }
        if self.input_ids.is_empty() {
            return Err(JobError::EmptyInput);
        }
        if model.embeds() {
            self.check_embedding()?;
        } else {
            self.check_generating()?;
        }
        let (vocab, context) = (model.vocab, model.context);
        if self.input_ids.len() as u64 + u64::from(self.max_new) > u64::from(context) {
            return Err(JobError::ContextOverflow {
                input: self.input_ids.len(),
                max_new: self.max_new,
                context,
            });
        }
        if self.max_new > OUTPUTS_MAX {
            return Err(JobError::TooManyOutputs {
                max_new: self.max_new,
            });
        }
        match self
            .input_ids
            .iter()
            .chain(&self.stop_ids)
            .find(|id| **id >= vocab)
        {
            Some(id) => Err(JobError::IdOutOfRange { id: *id, vocab }),
            None => Ok(()),
        }
    }

    /// What a job for a model that embeds may say: nothing but its ids.
    fn check_embedding(&self) -> Result<(), JobError> {
        if self.max_new != 0 {
            return Err(JobError::EmbeddingGenerates {
                max_new: self.max_new,
            });
        }
        if !self.stop_ids.is_empty() {
            return Err(JobError::EmbeddingStops {
                got: self.stop_ids.len(),
            });
        }
        if self.sampler != Sampler::GREEDY {
            return Err(JobError::EmbeddingSamples);
        }
        if self.seed != 0 {
            return Err(JobError::EmbeddingSeeded { seed: self.seed });
        }
        Ok(())
    }

    /// What a job for a model that generates may ask, but for the ranges of its ids.
    fn check_generating(&self) -> Result<(), JobError> {
        if self.max_new == 0 {
            return Err(JobError::NothingAsked);
        }
        if self.stop_ids.len() > STOP_IDS_MAX {
            return Err(JobError::TooManyStops {
                got: self.stop_ids.len(),
            });
        }
        let s = self.sampler;
        if s.temperature_q16 == 0 && (s.top_k != 0 || s.top_p_q16 != 0) {
            return Err(JobError::Sampler(
                "greedy (temperature 0) takes neither top_k nor top_p",
            ));
        }
        if s.temperature_q16 != 0 && !(1..=65536).contains(&s.top_p_q16) {
            return Err(JobError::Sampler("top_p must be in 1..=65536 (Q16)"));
        }
        Ok(())
    }

    /// Whether `output` may answer this job for a model of this shape. Tokens end at a stop id or at max_new, with no
    /// stop id earlier; words are as many as the model puts out, and any value is one.
    pub fn check_output(&self, output: &[u32], model: &ModelShape) -> Result<(), JobError> {
        if model.embeds() {
            return if output.len() as u64 == u64::from(model.words) {
                Ok(())
            } else {
                Err(JobError::BadWords {
                    got: output.len(),
                    expected: model.words,
                })
            };
        }
        let vocab = model.vocab;
        let bad = JobError::BadEnd {
            len: output.len(),
            max_new: self.max_new,
        };
        let Some((last, before)) = output.split_last() else {
            return Err(bad);
        };
        if let Some(id) = output.iter().find(|id| **id >= vocab) {
            return Err(JobError::IdOutOfRange { id: *id, vocab });
        }
        let full = output.len() as u64 == u64::from(self.max_new);
        let too_long = output.len() as u64 > u64::from(self.max_new);
        let stopped = self.stop_ids.contains(last);
        if too_long || !(full || stopped) || before.iter().any(|id| self.stop_ids.contains(id)) {
            return Err(bad);
        }
        Ok(())
    }
}

/// What a neuron commits to before anything is readable (PROTOCOL rule 3):
/// `keccak256(abi.encode(uint256 chainId, address hub, uint256 jobId, address sender, bytes32 salt,
/// bytes32 traceRoot, bytes32 outputHash))`.
pub fn commit_hash(
    chain_id: u64,
    hub: Address,
    job_id: alloy_primitives::U256,
    sender: Address,
    salt: B256,
    trace_root: B256,
    output_hash: B256,
) -> B256 {
    keccak256(
        (
            alloy_primitives::U256::from(chain_id),
            hub,
            job_id,
            sender,
            salt,
            trace_root,
            output_hash,
        )
            .abi_encode(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            model_root: B256::repeat_byte(1),
            spec_version: SPEC_VERSION,
            input_ids: vec![1, 2, 3],
            max_new: 4,
            stop_ids: vec![2],
            sampler: Sampler::GREEDY,
            seed: 7,
        }
    }

    fn model(vocab: u32, context: u32) -> ModelShape {
        ModelShape {
            vocab,
            context,
            words: 0,
        }
    }

    fn encoder() -> ModelShape {
        ModelShape {
            words: 2,
            ..model(9, 3)
        }
    }

    fn embedding() -> Job {
        Job::embedding(B256::repeat_byte(1), vec![1, 2, 8])
    }

    #[test]
    fn every_field_changes_the_hash() {
        let base = job();
        let mut all = vec![base.hash()];
        let mut with = |f: &dyn Fn(&mut Job)| {
            let mut j = base.clone();
            f(&mut j);
            all.push(j.hash());
        };
        with(&|j| j.model_root = B256::repeat_byte(2));
        with(&|j| j.spec_version += 1);
        with(&|j| j.input_ids.push(4));
        with(&|j| j.max_new += 1);
        with(&|j| j.stop_ids.clear());
        with(&|j| j.sampler.temperature_q16 = 1);
        with(&|j| j.sampler.top_k = 1);
        with(&|j| j.sampler.top_p_q16 = 1);
        with(&|j| j.seed += 1);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn refuses_jobs_the_hub_would_refuse() {
        assert_eq!(job().check(&model(100, 7)), Ok(()));
        assert!(matches!(
            job().check(&model(100, 6)),
            Err(JobError::ContextOverflow { .. })
        ));
        let long = |max_new| Job { max_new, ..job() }.check(&model(100, 131_072));
        assert_eq!(long(OUTPUTS_MAX), Ok(()));
        let max_new = OUTPUTS_MAX + 1;
        assert_eq!(long(max_new), Err(JobError::TooManyOutputs { max_new }));
        assert_eq!(
            job().check(&model(3, 7)),
            Err(JobError::IdOutOfRange { id: 3, vocab: 3 })
        );
        assert_eq!(
            Job {
                input_ids: vec![],
                ..job()
            }
            .check(&model(9, 9)),
            Err(JobError::EmptyInput)
        );
        assert_eq!(
            Job { max_new: 0, ..job() }.check(&model(9, 9)),
            Err(JobError::NothingAsked)
        );
        assert_eq!(
            Job {
                spec_version: SPEC_VERSION + 1,
                ..job()
            }
            .check(&model(9, 9)),
            Err(JobError::SpecVersion {
                got: SPEC_VERSION + 1,
                expected: SPEC_VERSION
            })
        );
        assert!(matches!(
            Job {
                stop_ids: vec![1; 17],
                ..job()
            }
            .check(&model(9, 9)),
            Err(JobError::TooManyStops { got: 17 })
        ));
        let greedy_with_k = Sampler {
            top_k: 1,
            ..Sampler::GREEDY
        };
        assert!(matches!(
            Job {
                sampler: greedy_with_k,
                ..job()
            }
            .check(&model(9, 9)),
            Err(JobError::Sampler(_))
        ));
    }

    #[test]
    fn refuses_outputs_that_end_in_the_wrong_place() {
        assert_eq!(job().check_output(&[5, 5, 2], &model(9, 9)), Ok(()));
        assert_eq!(job().check_output(&[5, 5, 5, 5], &model(9, 9)), Ok(()));
        for bad in [&[][..], &[5], &[2, 5, 5, 5], &[5, 5, 5, 5, 5]] {
            assert!(
                matches!(
                    job().check_output(bad, &model(9, 9)),
                    Err(JobError::BadEnd { .. })
                ),
                "{bad:?}"
            );
        }
        assert!(matches!(
            job().check_output(&[9, 2], &model(9, 9)),
            Err(JobError::IdOutOfRange { .. })
        ));
    }

    #[test]
    fn an_embedding_fills_the_context_and_says_nothing_but_its_ids() {
        assert_eq!(embedding().check(&encoder()), Ok(()));
        assert!(!model(9, 3).embeds());
        assert_eq!(
            embedding().check(&model(9, 9)),
            Err(JobError::NothingAsked),
            "a model that generates"
        );
    }

    #[test]
    fn rejects_every_setting_that_an_embedding_does_not_read() {
        let with = |f: &dyn Fn(&mut Job)| {
            let mut j = embedding();
            f(&mut j);
            j.check(&encoder())
        };
        assert_eq!(
            with(&|j| j.max_new = 1),
            Err(JobError::EmbeddingGenerates { max_new: 1 })
        );
        assert_eq!(
            with(&|j| j.stop_ids = vec![1, 2]),
            Err(JobError::EmbeddingStops { got: 2 })
        );
        assert_eq!(
            with(&|j| j.sampler.temperature_q16 = 1),
            Err(JobError::EmbeddingSamples)
        );
        assert_eq!(with(&|j| j.sampler.top_k = 1), Err(JobError::EmbeddingSamples));
        assert_eq!(
            with(&|j| j.sampler.top_p_q16 = 65536),
            Err(JobError::EmbeddingSamples)
        );
        assert_eq!(with(&|j| j.seed = 7), Err(JobError::EmbeddingSeeded { seed: 7 }));
        assert_eq!(with(&|j| j.input_ids.clear()), Err(JobError::EmptyInput));
        assert_eq!(
            with(&|j| j.input_ids.push(1)),
            Err(JobError::ContextOverflow {
                input: 4,
                max_new: 0,
                context: 3
            })
        );
        assert_eq!(
            with(&|j| j.input_ids[2] = 9),
            Err(JobError::IdOutOfRange { id: 9, vocab: 9 })
        );
        assert!(matches!(
            with(&|j| j.spec_version += 1),
            Err(JobError::SpecVersion { .. })
        ));
    }

    #[test]
    fn an_embedding_is_answered_by_its_number_of_words_whatever_they_are() {
        let all = [0, u32::MAX];
        assert_eq!(embedding().check_output(&all, &encoder()), Ok(()));
        for got in [0, 1, 3] {
            assert_eq!(
                embedding().check_output(&vec![1; got], &encoder()),
                Err(JobError::BadWords { got, expected: 2 })
            );
        }
    }

    #[test]
    fn rejects_id_bytes_of_odd_length() {
        assert_eq!(
            ids_from_bytes(&ids_to_bytes(&[1, u32::MAX])),
            Ok(vec![1, u32::MAX])
        );
        assert_eq!(ids_from_bytes(&[1, 2, 3]), Err(JobError::IdBytes { len: 3 }));
    }
}
