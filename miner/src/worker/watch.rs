//! Which jobs there are: reads the hub's events forward from where the journal stopped, and back after a reorg.

use alloy_primitives::B256;

use crate::{
    chain::{
        Hub, Refusal,
        hub::{Posted, status_of},
    },
    exit::Failure,
    journal::{Cursor, Entry, Journal},
};

/// Heights that are read again when the chain's past has changed; nodes undo at least as many.
pub(super) const REORG_DEPTH: u64 = 100;

/// Heights that a new journal looks back: a neuron that lost its journal finds the jobs that it is drawn for.
const LOOK_BACK: u64 = 5_000;

/// Brings the journal up to the chain's tip. Jobs get an entry before the cursor moves past them, so that a
/// process which dies in between sees them again.
pub(super) async fn watch(hub: &Hub, journal: &mut Journal, models: &[B256]) -> Result<(), Failure> {
    let fail = |e: Refusal| e.into_failure("reading jobs");
    let tip = hub.node().height().await.map_err(fail)?;
    let mut from = tip.saturating_sub(LOOK_BACK);
    if let Some(cursor) = journal.cursor()? {
        let parent = cursor.next_height.checked_sub(1);
        let same = match parent {
            Some(height) => hub.node().block_hash(height).await.map_err(fail)? == Some(cursor.parent),
            None => true,
        };
        from = if same {
            cursor.next_height
        } else {
            tracing::warn!(
                height = cursor.next_height,
                "the chain's past has changed; reading jobs again"
            );
            cursor.next_height.min(tip + 1).saturating_sub(REORG_DEPTH)
        };
        if !same {
            journal.reopen(from)?;
        }
    }
    if from > tip {
        return Ok(());
    }
    // The hash is read before the events: should a reorg fall between, the next look notices.
    let Some(parent) = hub.node().block_hash(tip).await.map_err(fail)? else {
        return Ok(());
    };
    for posted in hub.posted(models, from, tip).await.map_err(fail)? {
        note(hub, journal, &posted).await?;
    }
    journal.set_cursor(Cursor {
        next_height: tip + 1,
        parent,
    })
}

/// Gives a posted job its entry, unless it has one.
async fn note(hub: &Hub, journal: &mut Journal, posted: &Posted) -> Result<(), Failure> {
    if let Some(known) = journal.get(&posted.job_id) {
        if known.job.hash() == posted.job.hash() {
            return Ok(());
        }
        // After a reorg another job may have this number; the old one is gone with its block.
        tracing::warn!(job = %posted.job_id, "another job has this number after a reorg");
    }
    // Old jobs that are over need no file.
    let job = hub
        .job(posted.job_id)
        .await
        .map_err(|e| e.into_failure("reading a job"))?;
    if job.is_none_or(|job| status_of(&job).is_over()) {
        return Ok(());
    }
    journal.put(Entry::new(
        hub.node().chain_id(),
        hub.address(),
        posted.job_id,
        posted.job.clone(),
    ))
}
