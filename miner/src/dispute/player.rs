//! A run that can explain itself: the model's pack as disputes open it, the claimed ids run again, rows on demand.

use std::sync::Arc;

use alloy_primitives::B256;
use bitai_kernels::Device;
use bitai_model::pack::Pack as ModelPack;
use bitai_poc::{
    Header, Pack, TensorLine, Transcript,
    dispute::{
        Answer, Ask, Challenge, Challenger, Claim, Defend, DisputeError, Judge, LayerRegen, Move, Player,
        Regenerate, RunnerRegen, kernel_sampler, levels::next_height,
    },
    merkle::height,
    model_shape,
};
use bitai_types::JobError;

use super::{
    challenge::Mover,
    desk::Maker,
    rows::Kept,
    shelf::{Lent, Shelf},
};
use crate::{engine::Loaded, exit::Failure, journal};

/// Who makes a run's rows again.
pub type Rows = Box<dyn Regenerate + Send>;
/// A player whose rows come from a device.
pub type Explained = Player<Kept<Rows>>;

fn failed(e: DisputeError) -> Failure {
    match e {
        DisputeError::Device(why) => Failure::Device(why),
        e => Failure::Device(format!("setting up a dispute: {e}")),
    }
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

/// The ids that a claim's run was fed: the last output is sampled and never run.
fn fed(claim: &Claim) -> Vec<u32> {
    let outputs = claim.outputs.split_last().map_or(&[][..], |(_, fed)| fed);
    [&claim.job.input_ids[..], outputs].concat()
}

fn count(ids: &[u32]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}

/// A model with room for a claim's positions, whole.
pub fn lend(shelf: &Shelf, claim: &Claim) -> Result<Lent, Failure> {
    let pack = shelf.pack(claim.job.model_root)?;
    shelf.lend(&pack, count(&fed(claim)))
}

/// Refuses what no run can have been: so that it is not taken for a failure of the device.
fn check(pack: &ModelPack, claim: &Claim) -> Result<(), Failure> {
    let (job, program) = (&claim.job, pack.program());
    job.check(&model_shape(&program))?;
    if program.emits().is_some() {
        return Ok(());
    }
    let ids = job.input_ids.len() + claim.outputs.len();
    if claim.outputs.is_empty() || ids > program.context as usize {
        return Err(Failure::Job(JobError::ContextOverflow {
            input: job.input_ids.len(),
            max_new: count(&claim.outputs),
            context: program.context,
        }));
    }
    match claim.outputs.iter().find(|id| **id >= program.vocab) {
        Some(id) => Err(Failure::Job(JobError::IdOutOfRange {
            id: *id,
            vocab: program.vocab,
        })),
        None => Ok(()),
    }
}

/// The rows of a claim's run, one layer of the model in memory at a time.
pub fn layered(shelf: &Shelf, claim: &Claim) -> Result<LayerRegen, Failure> {
    let pack = shelf.pack(claim.job.model_root)?;
    check(&pack, claim)?;
    // An encoder is fed its prompt; its words are never run.
    let ids = match pack.program().emits() {
        Some(_) => claim.job.input_ids.clone(),
        None => fed(claim),
    };
    let released = pack.clone();
    LayerRegen::new(
        shelf.layers(&pack)?,
        pack.program(),
        pack.tensors(),
        Box::new(move |tensors| released.release(tensors)),
        (ids, count(&claim.job.input_ids)),
        kernel_sampler(&claim.job),
    )
    .map_err(failed)
}

/// Runs prompt and claimed output once more, as one prefill: what that commits to, and who makes its rows again. In
/// layers where the processor can, else on the whole model.
pub fn again(shelf: &Shelf, claim: &Claim) -> Result<(Transcript, Rows), Failure> {
    if shelf.in_layers(claim.job.model_root) {
        let mut rows = layered(shelf, claim)?;
        let program = shelf.pack(claim.job.model_root)?.program();
        let transcript = rows.transcript(Header::new(&claim.job, &program));
        return Ok((transcript.map_err(failed)?, Box::new(rows)));
    }
    let lent = lend(shelf, claim)?;
    let run = Loaded::on(lent.pack(), &lent)?.recheck(&claim.job, &claim.outputs, &mut |_| ())?;
    let runner = lent
        .load(lent.pack().program(), &[])
        .map_err(|e| Failure::Device(e.to_string()))?;
    let (prompt, sampler) = (count(&claim.job.input_ids), kernel_sampler(&claim.job));
    let rows = RunnerRegen::new(runner, fed(claim), prompt, sampler);
    Ok((run.transcript, Box::new(rows)))
}

/// A player about a claim: `transcript` is its own run's, made over the claimed ids on this model, and `rows` are that
/// run's.
pub fn player(
    shelf: &Shelf,
    claim: &Claim,
    (transcript, rows): (Transcript, Rows),
) -> Result<Explained, Failure> {
    let pack = shelf.pack(claim.job.model_root)?;
    Player::new(
        transcript,
        Kept::new(rows),
        opened(&pack)?,
        (*pack.program()).clone(),
        kernel_sampler(&claim.job),
    )
    .map_err(failed)
}

/// Hands a failure on; the shelf hears of a device's.
fn noting<T>(shelf: &Shelf, claim: &Claim, made: Result<T, Failure>) -> Result<T, Failure> {
    if made.as_ref().is_err_and(Failure::is_device) {
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
        let run = layered(&shelf, claim).and_then(|mut rows| {
            let transcript = match kept {
                Some(kept) => kept,
                None => {
                    let program = shelf.pack(claim.job.model_root)?.program();
                    let header = Header::new(&claim.job, &program);
                    rows.transcript(header).map_err(failed)?
                }
            };
            if transcript.root() != Ok(claim.root) {
                tracing::error!(
                    job = %claim.job_id,
                    "this device computes another root now than the one that was revealed: answers will be refused"
                );
            }
            Ok((transcript, Box::new(rows) as Rows))
        });
        let made = run.and_then(|run| player(&shelf, claim, run));
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
    let made = again(shelf, claim).and_then(|(transcript, rows)| {
        let (mine, same_root) = (transcript.outputs(), transcript.root() == Ok(claim.root));
        let other = mine.iter().zip(&claim.outputs).position(|(a, b)| a != b);
        let position = other
            .filter(|_| same_root)
            .and_then(|i| u32::try_from(i).ok())
            .map(|i| transcript.header().prompt - 1 + i);
        let right = same_root && other.is_none();
        let player = player(shelf, claim, (transcript, rows))?;
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
