//! Jobs and their states between the contract's types and ours.

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_sol_types::SolValue;
use bitai_types::{
    ModelShape,
    job::{JobError, Sampler, ids_from_bytes, ids_to_bytes},
};

use crate::JobSpec;

/// Where a job stands; numbered as in `IWorkerHub.sol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum JobStatus {
    /// No such job.
    None,
    /// Waiting for a draw.
    Open,
    /// Drawn neurons commit.
    Committing,
    /// All have committed and reveal.
    Revealing,
    /// Revealed and agreed; disputes may be opened.
    Challenge,
    /// Revealed, and the answers differ.
    Quarrel,
    /// Over and paid.
    Settled,
    /// Over and the fee returned.
    Refunded,
}

impl JobStatus {
    /// All, in the contract's order.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Open,
        Self::Committing,
        Self::Revealing,
        Self::Challenge,
        Self::Quarrel,
        Self::Settled,
        Self::Refunded,
    ];

    /// The state with this number, if there is one.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }

    /// Whether nothing more can happen to the job.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Settled | Self::Refunded)
    }
}

/// How far a drawn neuron is; numbered as in `IWorkerHub.sol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotState {
    /// No such slot.
    None,
    /// Drawn, has not committed.
    Assigned,
    /// Has committed.
    Committed,
    /// Has revealed.
    Revealed,
    /// Was silent or convicted.
    Failed,
    /// Was paid.
    Paid,
    /// The job ended without pay or fault.
    Released,
}

impl SlotState {
    /// All, in the contract's order.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Assigned,
        Self::Committed,
        Self::Revealed,
        Self::Failed,
        Self::Paid,
        Self::Released,
    ];

    /// The state with this number, if there is one.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }
}

/// What a model is on the chain: its pack, and the numbers that the hub takes from its registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelKey {
    /// Merkle root of the pack.
    pub model_root: B256,
    /// Tensor spec that runs it.
    pub spec_version: u32,
    /// Its numbers.
    pub shape: ModelShape,
}

impl ModelKey {
    /// `keccak256(abi.encode(bytes32 modelRoot, uint32 specVersion, uint32 vocab, uint32 context, uint32 words))`: the
    /// registration's id. Whoever registers false numbers makes another id.
    pub fn id(&self) -> B256 {
        let s = self.shape;
        keccak256((self.model_root, self.spec_version, s.vocab, s.context, s.words).abi_encode())
    }
}

/// A job as `infer` takes it; `model` is the one that it names, whose numbers no job holds.
pub fn spec_from_job(job: &bitai_types::Job, model: &ModelKey) -> JobSpec {
    JobSpec {
        modelRoot: job.model_root,
        specVersion: job.spec_version,
        vocab: model.shape.vocab,
        context: model.shape.context,
        words: model.shape.words,
        maxNew: job.max_new,
        temperatureQ16: job.sampler.temperature_q16,
        topK: job.sampler.top_k,
        topPQ16: job.sampler.top_p_q16,
        seed: job.seed,
        inputIds: Bytes::from(ids_to_bytes(&job.input_ids)),
        stopIds: Bytes::from(ids_to_bytes(&job.stop_ids)),
    }
}

/// The job that a posted spec (the `JobPosted` event) stands for; an error where its bytes are no ids.
pub fn job_from_spec(spec: &JobSpec) -> Result<bitai_types::Job, JobError> {
    Ok(bitai_types::Job {
        model_root: B256::from(spec.modelRoot),
        spec_version: spec.specVersion,
        input_ids: ids_from_bytes(&spec.inputIds)?,
        max_new: spec.maxNew,
        stop_ids: ids_from_bytes(&spec.stopIds)?,
        sampler: Sampler {
            temperature_q16: spec.temperatureQ16,
            top_k: spec.topK,
            top_p_q16: spec.topPQ16,
        },
        seed: spec.seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_contracts() {
        for (n, s) in JobStatus::ALL.iter().enumerate() {
            assert_eq!(*s as usize, n);
            assert_eq!(JobStatus::from_u8(n as u8), Some(*s));
        }
        for (n, s) in SlotState::ALL.iter().enumerate() {
            assert_eq!(*s as usize, n);
            assert_eq!(SlotState::from_u8(n as u8), Some(*s));
        }
        assert_eq!(JobStatus::from_u8(8), None);
        assert_eq!(SlotState::from_u8(7), None);
        // The order that the contract declares, from its source.
        let source = include_str!("../../src/interfaces/IWorkerHub.sol");
        assert_eq!(
            variants(source, "JobStatus"),
            JobStatus::ALL.map(|s| format!("{s:?}"))
        );
        assert_eq!(
            variants(source, "SlotState"),
            SlotState::ALL.map(|s| format!("{s:?}"))
        );
    }

    #[test]
    fn the_longest_output_is_the_contracts() {
        let source = include_str!("../../src/libraries/Ids.sol").replace('_', "");
        let line = format!(
            "uint32 internal constant MAXOUTPUTS = {};",
            bitai_types::job::OUTPUTS_MAX
        );
        assert!(source.contains(&line), "{line}");
    }

    fn variants(source: &str, name: &str) -> Vec<String> {
        let body = source.split(&format!("enum {name} {{")).nth(1).unwrap();
        let body = body.split('}').next().unwrap();
        body.lines()
            .map(|l| l.trim().trim_end_matches(',').to_owned())
            .filter(|l| !l.is_empty() && !l.starts_with("///"))
            .collect()
    }

    #[test]
    fn every_number_of_a_model_changes_its_id() {
        let key = key(B256::repeat_byte(3));
        let with = |shape| ModelKey { shape, ..key }.id();
        let mut ids = vec![
            key.id(),
            with(ModelShape {
                vocab: 8,
                ..key.shape
            }),
            with(ModelShape {
                context: 8,
                ..key.shape
            }),
            with(ModelShape {
                words: 8,
                ..key.shape
            }),
            ModelKey {
                spec_version: 1,
                ..key
            }
            .id(),
            ModelKey {
                model_root: B256::ZERO,
                ..key
            }
            .id(),
        ];
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6);
    }

    fn key(model_root: B256) -> ModelKey {
        ModelKey {
            model_root,
            spec_version: 0,
            shape: ModelShape {
                vocab: 9,
                context: 16,
                words: 5,
            },
        }
    }

    #[test]
    fn a_job_survives_the_way_there_and_back() {
        let job = bitai_types::Job {
            model_root: B256::repeat_byte(3),
            spec_version: 0,
            input_ids: vec![1, 258, u32::MAX],
            max_new: 9,
            stop_ids: vec![2],
            sampler: Sampler {
                temperature_q16: 65536,
                top_k: 40,
                top_p_q16: 60000,
            },
            seed: u64::MAX,
        };
        let spec = spec_from_job(&job, &key(job.model_root));
        assert_eq!((spec.vocab, spec.context, spec.words), (9, 16, 5));
        assert_eq!(job_from_spec(&spec), Ok(job));
    }

    #[test]
    fn rejects_a_spec_whose_bytes_are_no_ids() {
        let job = bitai_types::Job {
            model_root: B256::ZERO,
            spec_version: 0,
            input_ids: vec![1],
            max_new: 1,
            stop_ids: vec![],
            sampler: Sampler::GREEDY,
            seed: 0,
        };
        let mut spec = spec_from_job(&job, &key(B256::ZERO));
        spec.inputIds = Bytes::from_static(&[1, 2, 3]);
        assert_eq!(job_from_spec(&spec), Err(JobError::IdBytes { len: 3 }));
    }
}
