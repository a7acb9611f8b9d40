//! One drawn job computed again: which revealed answer holds, the entry that says so, and its opening.

use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};
use bitai_poc::{
    attest::{Attestor, Draw, Entry, EntryPath},
    dispute::Claim,
};
use bitai_types::job::ids_hash;

use super::book::Holds;
use crate::{
    chain::{Attestations, Refusal},
    dispute::{Shelf, again, player},
    exit::Failure,
};

/// A job for which this validator was drawn.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    /// Its draw.
    pub(super) draw: Draw,
    /// Its answers.
    pub(super) claims: Vec<Claim>,
}

impl Drawn {
    /// Reads a drawn job's answers.
    pub(super) async fn read(
        at: &Attestations,
        me: Address,
        job_id: U256,
        header: B256,
    ) -> Result<Self, Failure> {
        let hub = at.hub();
        let fail = |e: Refusal| e.into_failure("reading a drawn job");
        let posted = hub.find(job_id).await?;
        let chain_id = hub.node().chain_id();
        let claims = hub.revealed(job_id).await.map_err(fail)?;
        Ok(Self {
            draw: Draw {
                chain_id,
                contract: at.address(),
                validator: me,
                job_id,
                header,
            },
            claims: claims
                .into_iter()
                .map(|revealed| Claim {
                    chain_id,
                    hub: hub.address(),
                    job_id,
                    neuron: revealed.neuron,
                    job: posted.job.clone(),
                    outputs: revealed.output_ids,
                    root: revealed.trace_root.into(),
                })
                .collect(),
        })
    }

    /// Computes the answers again, the same one once; tells which holds. Takes as long as a prefill of it.
    pub(super) fn check(&self, shelf: &Shelf) -> Result<Option<Holds>, Failure> {
        let mut tried = Vec::new();
        for claim in &self.claims {
            let answer = (claim.root, &claim.outputs);
            if tried.contains(&answer) {
                continue;
            }
            tried.push(answer);
            if let Some(entry) = self.entry(shelf, claim)? {
                return Ok(Some(Holds::new(claim.neuron, &entry)));
            }
        }
        Ok(None)
    }

    /// The entry of an answer that holds.
    fn entry(&self, shelf: &Shelf, claim: &Claim) -> Result<Option<Entry>, Failure> {
        let (transcript, rows) = again(shelf, claim)?;
        if transcript.root() != Ok(claim.root) || transcript.outputs() != claim.outputs {
            return Ok(None);
        }
        let mut player = player(shelf, claim, (transcript, rows))?;
        let (program, transcript, rows) = player.run();
        let mut attestor = Attestor {
            draw: self.draw,
            program,
            transcript,
            rows,
        };
        let entry = attestor.entry(ids_hash(&claim.outputs));
        entry.map(Some).map_err(|e| Failure::Device(e.to_string()))
    }

    /// Opens an entry at one chunk: the bytes that the contract reads.
    pub(super) fn open(
        &self,
        shelf: &Arc<Shelf>,
        holds: &Holds,
        path: EntryPath,
        pick: u8,
    ) -> Result<Vec<u8>, Failure> {
        let entry = holds.entry();
        let claim = self
            .claims
            .iter()
            .find(|claim| claim.neuron == holds.neuron && claim.root == entry.root)
            .ok_or(Failure::NoJob {
                job: self.draw.job_id,
            })?;
        let mut player = player(shelf, claim, again(shelf, claim)?)?;
        let (program, transcript, rows) = player.run();
        let mut attestor = Attestor {
            draw: self.draw,
            program,
            transcript,
            rows,
        };
        let opening = attestor.open(entry, path, holds.neuron, pick);
        Ok(opening.map_err(|e| Failure::Device(e.to_string()))?.encode())
    }
}
