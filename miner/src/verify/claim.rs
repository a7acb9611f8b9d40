//! What is claimed, and where the claimant's own transcript may lie: in the receipt, or in this machine's
//! receipts and journals.

use std::path::Path;

use alloy_primitives::{Address, U256};
use bitai_contracts::ModelKey;
use bitai_poc::{TraceRoot, Transcript};
use bitai_types::Job;

use crate::{
    chain::{
        Hub,
        hub::{Posted, Revealed},
    },
    datadir::DataDir,
    exit::Failure,
    journal,
    receipt::Receipt,
};

/// An answer that someone claims.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What was asked.
    pub job: Job,
    /// The answer.
    pub output_ids: Vec<u32>,
    /// Root over everything computed.
    pub trace_root: TraceRoot,
    /// The claimant's transcript, where it is at hand.
    pub transcript: Option<Transcript>,
    /// Who claims it.
    pub who: Option<Address>,
    /// The registration that its job was posted on; none for a receipt.
    pub registered: Option<ModelKey>,
}

impl Claim {
    /// The claim of a receipt file.
    pub fn of_receipt(receipt: Receipt) -> Self {
        Self {
            transcript: receipt.transcript(),
            job: receipt.job,
            output_ids: receipt.output_ids,
            trace_root: receipt.trace_root,
            who: None,
            registered: None,
        }
    }

    /// An answer revealed on the chain; nothing but its root is public, unless this machine made it.
    pub fn of_reveal(data: &DataDir, hub: &Hub, posted: &Posted, revealed: Revealed) -> Self {
        let trace_root = TraceRoot::from(revealed.trace_root);
        Self {
            job: posted.job.clone(),
            output_ids: revealed.output_ids,
            trace_root,
            transcript: at_hand(data, hub, posted.job_id, trace_root),
            who: Some(revealed.neuron),
            registered: Some(posted.model),
        }
    }
}

/// The transcript behind a root, where this machine's journals or receipts hold it. What cannot be read is
/// not at hand; a transcript with another root is checked and refused by the comparison.
fn at_hand(data: &DataDir, hub: &Hub, job_id: U256, root: TraceRoot) -> Option<Transcript> {
    journal::answer(
        &data.journal(),
        hub.node().chain_id(),
        hub.address(),
        job_id,
        root.0,
    )
    .and_then(|answer| Transcript::decode(&answer.transcript).ok())
    .or_else(|| {
        let path = data.receipts().join(Receipt::file_name(root));
        let receipt = Receipt::read(&path).ok()?;
        (receipt.trace_root == root)
            .then(|| receipt.transcript())
            .flatten()
    })
}

/// The claims that are meant: those of a receipt file, or every answer revealed for a job.
pub async fn claims(data: &DataDir, chain: &crate::config::Chain, what: &str) -> Result<Vec<Claim>, Failure> {
    let path = Path::new(what);
    let job_id = what.parse::<U256>().ok().filter(|_| !path.exists());
    let Some(job_id) = job_id else {
        return Ok(vec![Claim::of_receipt(Receipt::read(path)?)]);
    };
    let hub = Hub::connect(chain).await?;
    let posted = hub.find(job_id).await?;
    let revealed = hub
        .revealed(job_id)
        .await
        .map_err(|e| e.into_failure("reading the answers"))?;
    if revealed.is_empty() {
        return Err(Failure::Unanswered {
            job: job_id,
            why: "nobody has revealed an answer yet".into(),
        });
    }
    Ok(revealed
        .into_iter()
        .map(|r| Claim::of_reveal(data, &hub, &posted, r))
        .collect())
}
