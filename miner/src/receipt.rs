//! A receipt: a job, its answer and the commitment to everything computed, so that anyone can compute it again.

use std::path::Path;

use alloy_primitives::Bytes;
use bitai_poc::{TraceRoot, Transcript};
use bitai_types::Job;
use serde::{Deserialize, Serialize};

use crate::{datadir::write_atomic, engine::Run, exit::Failure, journal::Answer};

/// Version of the file.
pub const VERSION: u32 = 1;
/// Longest receipt that is read: about a million tokens.
const BYTES_MAX: u64 = 128 << 20;

/// What `infer` writes and `verify` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the model where it was made; the root in the job is what counts.
    pub model: String,
    /// What was asked.
    pub job: Job,
    /// The answer.
    pub output_ids: Vec<u32>,
    /// The answer as text, for people.
    pub text: String,
    /// Root over everything computed.
    pub trace_root: TraceRoot,
    /// The encoded transcript: 32 bytes a position, so that a mismatch can be named by its first token.
    pub transcript: Bytes,
}

impl Receipt {
    /// The receipt of a run.
    pub fn new(model: &str, job: Job, text: String, run: &Run) -> Result<Self, Failure> {
        let transcript = run
            .transcript
            .encode()
            .map_err(|e| Failure::Internal(anyhow::Error::new(e)))?;
        Ok(Self {
            version: VERSION,
            model: model.to_owned(),
            job,
            output_ids: run.transcript.outputs().to_vec(),
            text,
            trace_root: run.trace_root,
            transcript: transcript.into(),
        })
    }

    /// The receipt of an answer in a journal; it has no text, since no tokenizer is at hand.
    pub fn of_answer(model: &str, job: &Job, answer: &Answer) -> Self {
        Self {
            version: VERSION,
            model: model.to_owned(),
            job: job.clone(),
            output_ids: answer.output_ids.clone(),
            text: String::new(),
            trace_root: TraceRoot(answer.trace_root),
            transcript: answer.transcript.clone(),
        }
    }

    /// Name of its file in the receipts directory.
    pub fn file_name(root: TraceRoot) -> String {
        format!("{}.json", &hex::encode(root.0)[..16])
    }

    /// Reads a receipt; its numbers are claims until they are checked.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bad = |why: String| Failure::Receipt {
            path: path.into(),
            why,
        };
        let len = std::fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
        if len > BYTES_MAX {
            return Err(bad(format!("{len} bytes; at most {BYTES_MAX} are read")));
        }
        let text = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        let receipt: Self = serde_json::from_slice(&text).map_err(|e| bad(format!("not a receipt: {e}")))?;
        if receipt.version != VERSION {
            return Err(bad(format!(
                "version {}, this program reads {VERSION}",
                receipt.version
            )));
        }
        Ok(receipt)
    }

    /// Writes the receipt.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| Failure::disk(path, e))?;
        write_atomic(path, &bytes, 0o644)
    }

    /// The transcript behind the claim, where it is whole.
    pub fn transcript(&self) -> Option<Transcript> {
        Transcript::decode(&self.transcript).ok()
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use bitai_types::Sampler;
    use proptest::prelude::*;

    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            version: VERSION,
            model: "m".into(),
            job: Job {
                model_root: B256::repeat_byte(1),
                spec_version: 0,
                input_ids: vec![1, 2],
                max_new: 2,
                stop_ids: vec![],
                sampler: Sampler::GREEDY,
                seed: 0,
            },
            output_ids: vec![3, 4],
            text: "x".into(),
            trace_root: TraceRoot(B256::repeat_byte(9)),
            transcript: Bytes::from_static(&[1, 2, 3]),
        }
    }

    #[test]
    fn a_receipt_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        receipt().write(&path).unwrap();
        assert_eq!(Receipt::read(&path).unwrap(), receipt());
    }

    #[test]
    fn rejects_another_version_unknown_fields_and_a_missing_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        Receipt {
            version: 2,
            ..receipt()
        }
        .write(&path)
        .unwrap();
        assert_eq!(Receipt::read(&path).unwrap_err().code(), 16);
        let mut json = serde_json::to_value(receipt()).unwrap();
        json["extra"] = 1.into();
        std::fs::write(&path, json.to_string()).unwrap();
        assert_eq!(Receipt::read(&path).unwrap_err().code(), 16);
        assert_eq!(Receipt::read(&dir.path().join("none")).unwrap_err().code(), 16);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("r.json");
            std::fs::write(&path, &bytes).unwrap();
            prop_assert!(Receipt::read(&path).is_err());
        }
    }
}
