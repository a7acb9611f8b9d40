//! What a liar claims: an honest run with one integer of one row changed and committed so, nothing else following from
//! it; or a run with other weights.

use std::sync::Arc;

use alloy_primitives::B256;
use bitai_kernels::{Device, Program, program::SiteId};
use bitai_miner::{Failure, dispute, engine::Loaded};
use bitai_model::pack::Pack;
use bitai_poc::{
    TraceRoot, Transcript,
    dispute::{DisputeError, Player, Regenerate, RunnerRegen, TokenRows, inner::SiteRow, kernel_sampler},
};
use bitai_types::Job;

use super::{
    Kind,
    explain::{Fudged, FudgedDraw, Mute, WrongPiece},
    other::{Other, OtherWeights, weight},
};

/// Changes a token's rows.
type Edit = Arc<dyn Fn(&mut TokenRows) + Send + Sync>;

/// How far a changed element is from the right one.
const OFF: i32 = 9;
/// The element that is changed.
const ELEMENT: usize = 3;

/// A run whose rows are edited at one position.
pub struct Tampered {
    inner: RunnerRegen,
    pos: u32,
    edit: Edit,
}

impl Regenerate for Tampered {
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        let mut rows = self.inner.token(pos)?;
        if pos == self.pos {
            (self.edit)(&mut rows);
        }
        Ok(rows)
    }

    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError> {
        self.inner.kv(pos, layer)
    }
}

/// A finished lie.
pub struct Lie {
    /// The outputs that are committed.
    pub outputs: Vec<u32>,
    /// The root that is committed.
    pub root: TraceRoot,
    /// Who explains it.
    pub explainer: dispute::Explainer,
    /// Who doubts others with it.
    pub player: Player<Tampered>,
}

pub(super) fn failed(what: &str) -> Failure {
    Failure::Usage(format!("this model has no site to lie about: {what}"))
}

/// The first site of a layer, or of none, with an op of this name.
pub(super) fn site(program: &Program, layer: Option<u32>, name: &str) -> Result<SiteId, Failure> {
    (0u32..)
        .zip(&program.sites)
        .find(|(_, s)| s.layer == layer && s.op.name() == name)
        .map(|(id, _)| id)
        .ok_or_else(|| failed(name))
}

/// Where a kind of lie changes what, and the edit itself. What is changed is committed by no leaf of its own, so a byte
/// of the last layer's cached row is changed as well: the root differs, and the first wrong site is the one meant.
fn edit(program: &Program, job: &Job, kind: Kind) -> Result<(SiteId, Edit), Failure> {
    let middle = Some(program.layers / 2);
    let name = match kind {
        Kind::Attention => "attention",
        Kind::Quant | Kind::Scale => "quant",
        Kind::Embed => "embed",
        Kind::Norm => "rms_norm",
        Kind::Rope => "rope",
        Kind::Glu => "glu",
        Kind::Add => "add",
        Kind::Out => "out",
        Kind::Kv => "kv_append",
        Kind::Token | Kind::Draw | Kind::Truncated => "sample",
        _ => "linear",
    };
    let layer = match kind {
        Kind::Embed | Kind::Token | Kind::Draw | Kind::Truncated => None,
        // Only rows at the checkpoints are committed.
        Kind::Out => program.checkpoints().first().copied(),
        _ => middle,
    };
    let site = site(program, layer, name)?;
    let vocab = program.vocab;
    let stop = job.stop_ids.first().copied();
    let last = self::site(program, Some(program.layers - 1), "kv_append")?;
    let marks = !matches!(
        kind,
        Kind::Token | Kind::Draw | Kind::Truncated | Kind::Kv | Kind::Out
    );
    let edit = move |rows: &mut TokenRows| {
        match rows.0.get_mut(site as usize) {
            Some(Some(SiteRow::Acts(v))) => {
                let at = ELEMENT.min(v.len() - 1);
                v[at] = v[at].wrapping_add(OFF);
            }
            Some(Some(SiteRow::Quant { scales, .. })) if kind == Kind::Scale => {
                if let Some(scale) = scales.last_mut() {
                    scale.e += 1;
                }
            }
            Some(Some(SiteRow::Quant { data, .. })) => {
                let at = ELEMENT.min(data.len() - 1);
                data[at] += if data[at] > 0 { -1 } else { 1 };
            }
            Some(Some(SiteRow::Kv(bytes))) => bytes[ELEMENT] ^= 1,
            Some(Some(SiteRow::Token(id))) => {
                *id = match stop {
                    Some(stop) if kind == Kind::Truncated => stop,
                    _ => (*id + 1) % vocab,
                }
            }
            _ => {}
        }
        if marks && let Some(Some(SiteRow::Kv(bytes))) = rows.0.get_mut(last as usize) {
            bytes[0] ^= 1;
        }
    };
    Ok((site, Arc::new(edit)))
}

/// Refuses a lie that this job leaves no room for.
fn check(job: &Job, kind: Kind) -> Result<(), Failure> {
    let usage = |why: &str| Err(Failure::Usage(why.to_owned()));
    match kind {
        Kind::Draw if job.sampler.temperature_q16 == 0 => {
            usage("a greedy job draws nothing: give --temperature for this lie")
        }
        Kind::Truncated if job.stop_ids.is_empty() => {
            usage("this model has no stop ids: the hub refuses an output cut short without one")
        }
        _ => Ok(()),
    }
}

/// How many ids are left of an output cut short.
fn cut(outputs: &[u32]) -> Result<usize, Failure> {
    match outputs.len() {
        0 | 1 => Err(Failure::Usage(
            "this answer has one id: nothing can be cut off; ask for more with --max-new".into(),
        )),
        n => Ok(n / 2),
    }
}

/// Makes the lie about a job: the honest answer first, then one change.
pub fn lie(pack: &Pack, device: &dyn Device, job: &Job, kind: Kind) -> Result<Lie, Failure> {
    let program = pack.program();
    check(job, kind)?;
    let wrong = OtherWeights {
        device,
        other: match kind {
            Kind::Weights => Other::Row(weight(&program)?),
            Kind::Short => Other::LayersFrom(program.layers.div_ceil(2)),
            _ => Other::Nothing,
        },
    };
    let honest = Loaded::on(pack, &wrong)?.answer(job, &mut |_| ())?.transcript;
    let header = *honest.header();
    let ids = match kind {
        Kind::Truncated => &honest.outputs()[..cut(honest.outputs())?],
        _ => honest.outputs(),
    };
    let outputs = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let positions = header.positions(outputs);
    let (_, edit) = match kind {
        // Those are wrong without a change.
        Kind::Weights | Kind::Short | Kind::Root | Kind::Output => {
            (0, Arc::new(|_: &mut TokenRows| ()) as Edit)
        }
        _ => edit(&program, job, kind)?,
    };
    let pos = match kind {
        Kind::Token | Kind::Draw | Kind::Truncated => positions - 1,
        _ => header.prompt / 2,
    };
    let internal = |e: DisputeError| Failure::Internal(anyhow::Error::new(e).context("making a lie"));
    let make = |edit: &Edit| -> Result<Tampered, Failure> {
        let fed = ids.split_last().map_or(&[][..], |(_, fed)| fed);
        let ids = [&job.input_ids[..], fed].concat();
        let runner = wrong
            .load(pack.program(), &pack.tensors())
            .map_err(|e| Failure::Device(e.to_string()))?;
        Ok(Tampered {
            inner: RunnerRegen::new(runner, ids, header.prompt, kernel_sampler(job)),
            pos,
            edit: Arc::clone(edit),
        })
    };
    let mut regen = make(&edit)?;
    let rows = regen.token(pos).map_err(internal)?;
    let node = rows
        .node(pos, &program, &header)
        .ok_or_else(|| failed("a row of it"))?;
    let mut t = Transcript::new(header);
    for (i, body) in (0..positions).zip(honest.body_roots()) {
        bitai_kernels::Trace::bodies(&mut t, i, &[if i == pos { node.body } else { *body }]);
        if let Some(token) = honest.sampled_at(i) {
            let token = if i == pos {
                node.sampled.unwrap_or(token)
            } else {
                token
            };
            bitai_kernels::Trace::sampled(&mut t, i, token);
        }
    }
    let player = |regen| {
        Player::new(
            t.clone(),
            regen,
            dispute::opened(pack)?,
            (*program).clone(),
            kernel_sampler(job),
        )
        .map_err(internal)
    };
    let explains = player(regen)?;
    let explainer: dispute::Explainer = match kind {
        Kind::Silence | Kind::Late => Box::new(Mute),
        Kind::Opening => Box::new(WrongPiece(explains)),
        Kind::Attention => Box::new(Fudged::new(explains, Arc::clone(&program))),
        Kind::Draw => Box::new(FudgedDraw::new(explains, job.seed)),
        _ => Box::new(explains),
    };
    let root = match kind {
        Kind::Root => TraceRoot(B256::repeat_byte(0x5a)),
        _ => t
            .root()
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("making a lie")))?,
    };
    let mut outputs = t.outputs().to_vec();
    if kind == Kind::Output
        && let Some(last) = outputs.last_mut()
    {
        *last = (*last + 1) % program.vocab;
    }
    Ok(Lie {
        player: player(make(&edit)?)?,
        outputs,
        root,
        explainer,
    })
}
