//! A run that can explain itself: the model's pack as disputes open it, the claimed ids run again, rows on demand.

use std::sync::Arc;

use alloy_primitives::B256;
use bitai_kernels::Device;
use bitai_model::pack::Pack as ModelPack;
use bitai_poc::{
    Pack, TensorLine, Transcript,
    dispute::{
        Answer, Ask, Challenge, Challenger, Claim, Defend, DisputeError, Judge, Move, Player, RunnerRegen,
        kernel_sampler, levels::next_height,
    },
    merkle::height,
};

use super::{
    challenge::Mover,
    desk::Maker,
    rows::Kept,
    shelf::{Lent, Shelf},
};
use crate::{
    engine::{Loaded, Run},
    exit::Failure,
    journal,
};

/// A player whose rows come from a device.
pub type Explained = Player<Kept<RunnerRegen>>;

fn failed(e: DisputeError) -> Failure {
    Failure::Device(format!("setting up a dispute: {e}"))
}

/// The pack as a dispute's players open it. Its bytes were checked against its root when it was opened.
pub fn opened(pack: &ModelPack) -> Result<Pack, Failure> {
    let (leaves, manifest) = (pack.leaves(), pack.manifest());
    let lines = manifest
        .tensors
        .iter()
        .map(|t| TensorLine {
            name: t.name.clone(),
            dtype: t.dtype,
            rows: t.rows,
            cols: t.cols,
            hash: t.hash,
        })
        .collect();
    Pack::with_lines(
        leaves.info,
        &manifest.program,
        lines,
        pack.tensors(),
        leaves.tokenizer,
    )
    .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("opening a pack for a dispute")))
}

/// Runs prompt and claimed output once more, as one prefill.
pub fn rerun(lent: &Lent, claim: &Claim) -> Result<Run, Failure> {
    Loaded::on(lent.pack(), lent)?.recheck(&claim.job, &claim.outputs, &mut |_| ())
}

/// The ids that a claim's run was fed: the last output is sampled and never run.
fn fed(claim: &Claim) -> Vec<u32> {
    let outputs = claim.outputs.split_last().map_or(&[][..], |(_, fed)| fed);
    [&claim.job.input_ids[..], outputs].concat()
}

/// The model of a claim, with room for its positions.
pub fn lend(shelf: &Shelf, claim: &Claim) -> Result<Lent, Failure> {
    let pack = shelf.pack(claim.job.model_root)?;
    shelf.lend(&pack, u32::try_from(fed(claim).len()).unwrap_or(u32::MAX))
}

/// A player about a claim: `transcript` is its own run's, made over the claimed ids on this model.
pub fn player(lent: &Lent, claim: &Claim, transcript: Transcript) -> Result<Explained, Failure> {
    let pack = lent.pack();
    let runner = lent
        .load(pack.program(), &[])
        .map_err(|e| Failure::Device(e.to_string()))?;
    let prompt = u32::try_from(claim.job.input_ids.len()).unwrap_or(u32::MAX);
    let sampler = kernel_sampler(&claim.job);
    let regen = Kept::new(RunnerRegen::new(runner, fed(claim), prompt, sampler));
    Player::new(
        transcript,
        regen,
        opened(pack)?,
        (*pack.program()).clone(),
        sampler,
    )
    .map_err(failed)
}

/// Hands a failure on; the shelf hears of a device's.
fn noting<T>(shelf: &Shelf, claim: &Claim, made: Result<T, Failure>) -> Result<T, Failure> {
    if matches!(made, Err(Failure::Device(_))) {
        shelf.failed(claim.job.model_root);
    }
    made
}

/// Explains own claims honestly: with the transcript that the journal kept, or where it is gone with one made anew.
pub fn honest(shelf: Arc<Shelf>) -> Maker {
    Arc::new(move |claim| {
        let kept = journal::answer(
            &shelf.data().journal(),
            claim.chain_id,
            claim.hub,
            claim.job_id,
            claim.root.0,
        )
        .and_then(|answer| Transcript::decode(&answer.transcript).ok())
        .filter(|kept| kept.root() == Ok(claim.root));
        let made = lend(&shelf, claim).and_then(|lent| {
            let transcript = match kept {
                Some(kept) => kept,
                None => rerun(&lent, claim)?.transcript,
            };
            if transcript.root() != Ok(claim.root) {
                tracing::error!(
                    job = %claim.job_id,
                    "this device computes another root now than the one that was revealed: answers will be refused"
                );
            }
            player(&lent, claim, transcript)
        });
        Ok(Box::new(Honest {
            player: noting(&shelf, claim, made)?,
            shelf: Arc::clone(&shelf),
            root: claim.job.model_root,
        }))
    })
}

/// A player that tells the shelf when the device fails under it.
struct Honest {
    player: Explained,
    shelf: Arc<Shelf>,
    root: B256,
}

impl Defend for Honest {
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        let made = self.player.respond(ask);
        if matches!(made, Err(DisputeError::Device(_))) {
            self.shelf.failed(self.root);
        }
        made
    }
}

/// Who doubts a claim with an own run of it, and whether the claim is right.
pub fn doubter(shelf: &Arc<Shelf>, claim: &Claim) -> Result<(bool, Mover), Failure> {
    let made = lend(shelf, claim).and_then(|lent| {
        let run = rerun(&lent, claim)?;
        let (mine, same_root) = (run.transcript.outputs(), run.trace_root == claim.root);
        let other = mine.iter().zip(&claim.outputs).position(|(a, b)| a != b);
        let position = other
            .filter(|_| same_root)
            .and_then(|i| u32::try_from(i).ok())
            .map(|i| run.transcript.header().prompt - 1 + i);
        let right = same_root && other.is_none();
        let player = player(&lent, claim, run.transcript)?;
        let mover: Mover = match position {
            Some(pos) => Box::new(OtherOutput { pos }),
            None => Box::new(Challenger::new(player)),
        };
        Ok((right, mover))
    });
    noting(shelf, claim, made)
}

/// Doubts what was revealed beside a right root: asks for the token whose id differs. An honest tree holds another id
/// there than the public output, and that contradiction convicts.
struct OtherOutput {
    pos: u32,
}

impl Challenge for OtherOutput {
    fn next(&mut self, judge: &Judge) -> Move {
        let pos = self.pos;
        let mut level = height(judge.positions());
        let mut ask = Ask::Token { pos };
        while level > 0 {
            let below = next_height(level);
            // A height is below 32: positions are counted in 32 bits.
            let index = u32::try_from(u64::from(pos) >> level).unwrap_or(0);
            let published = &judge.published().tokens;
            if !published.contains_key(&(below, index << (level - below))) {
                ask = Ask::Tokens { height: level, index };
                break;
            }
            level = below;
        }
        match judge.builds_on(&ask) {
            Ok(to) => Move::Ask { to, ask },
            Err(_) => Move::Resign,
        }
    }
}
