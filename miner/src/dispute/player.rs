//! A run that can explain itself: the model's pack as disputes open it, the claimed ids run again, rows on demand.

use std::sync::Arc;

use bitai_kernels::Device;
use bitai_model::pack::Pack as ModelPack;
use bitai_poc::{
    Pack, TensorLine, Transcript,
    dispute::{
        Ask, Challenge, Challenger, Claim, DisputeError, Judge, Move, Player, RunnerRegen, kernel_sampler,
        levels::next_height,
    },
    merkle::height,
};

use super::{challenge::Mover, defend::Maker};
use crate::{
    datadir::DataDir,
    engine::{Loaded, Run},
    exit::Failure,
    journal, models,
};

/// A player whose rows come from a device.
pub type Explained = Player<RunnerRegen>;

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
pub fn rerun(pack: &ModelPack, device: &dyn Device, claim: &Claim) -> Result<Run, Failure> {
    Loaded::on(pack, device)?.recheck(&claim.job, &claim.outputs, &mut |_| ())
}

/// A player about a claim: `transcript` is its own run's, made over the claimed ids on this device.
pub fn player(
    pack: &ModelPack,
    device: &dyn Device,
    claim: &Claim,
    transcript: Transcript,
) -> Result<Explained, Failure> {
    let runner = device
        .load(Arc::clone(&pack.program()), &pack.tensors())
        .map_err(|e| Failure::Device(e.to_string()))?;
    // The last output is sampled and never run.
    let fed = claim.outputs.split_last().map_or(&[][..], |(_, fed)| fed);
    let ids = [&claim.job.input_ids[..], fed].concat();
    let prompt = u32::try_from(claim.job.input_ids.len()).unwrap_or(u32::MAX);
    let sampler = kernel_sampler(&claim.job);
    let regen = RunnerRegen::new(runner, ids, prompt, sampler);
    Player::new(
        transcript,
        regen,
        opened(pack)?,
        (*pack.program()).clone(),
        sampler,
    )
    .map_err(failed)
}

/// Explains own claims honestly: with the transcript that the journal kept, or where it is gone with one made anew.
pub fn honest(data: DataDir, device: Arc<dyn Device>) -> Maker {
    Arc::new(move |claim| {
        let (_, pack) = models::open_root(&data, &claim.job.model_root)?;
        let kept = journal::answer(
            &data.journal(),
            claim.chain_id,
            claim.hub,
            claim.job_id,
            claim.root.0,
        )
        .and_then(|answer| Transcript::decode(&answer.transcript).ok())
        .filter(|kept| kept.root() == Ok(claim.root));
        let transcript = match kept {
            Some(kept) => kept,
            None => rerun(&pack, device.as_ref(), claim)?.transcript,
        };
        if transcript.root() != Ok(claim.root) {
            tracing::error!(
                job = %claim.job_id,
                "this device computes another root now than the one that was revealed: answers will be refused"
            );
        }
        Ok(Box::new(player(&pack, device.as_ref(), claim, transcript)?))
    })
}

/// Who doubts a claim with an own run of it, and whether the claim is right.
pub fn doubter(pack: &ModelPack, device: &dyn Device, claim: &Claim) -> Result<(bool, Mover), Failure> {
    let run = rerun(pack, device, claim)?;
    let (mine, same_root) = (run.transcript.outputs(), run.trace_root == claim.root);
    let other = mine.iter().zip(&claim.outputs).position(|(a, b)| a != b);
    let position = other
        .filter(|_| same_root)
        .and_then(|i| u32::try_from(i).ok())
        .map(|i| run.transcript.header().prompt - 1 + i);
    let right = same_root && other.is_none();
    let player = player(pack, device, claim, run.transcript)?;
    Ok((
        right,
        match position {
            Some(pos) => Box::new(OtherOutput { pos }),
            None => Box::new(Challenger::new(player)),
        },
    ))
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
