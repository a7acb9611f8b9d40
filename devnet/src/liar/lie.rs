//! What a liar claims: an honest run with one integer of one row changed and committed so, nothing else following from
//! it; or a run with other weights.

use std::sync::Arc;

use alloy_primitives::B256;
use bitai_kernels::{
    Device, DeviceInfo, HostTensor, KernelError, Op, Program, Runner,
    program::{SiteId, Weight},
    reference::attention::finish,
};
use bitai_miner::{Failure, dispute, engine::Loaded};
use bitai_model::pack::Pack;
use bitai_poc::{
    TraceRoot, Transcript,
    dispute::{
        Answer, Ask, Defend, DisputeError, Player, Regenerate, RunnerRegen, TokenRows,
        inner::SiteRow,
        kernel_sampler,
        msg::{KeySums, KeysAnswer},
    },
};
use bitai_types::Job;

use super::Kind;

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

fn failed(what: &str) -> Failure {
    Failure::Usage(format!("this model has no site to lie about: {what}"))
}

/// The first site of a layer, or of none, with an op of this name.
fn site(program: &Program, layer: Option<u32>, name: &str) -> Result<SiteId, Failure> {
    (0u32..)
        .zip(&program.sites)
        .find(|(_, s)| s.layer == layer && s.op.name() == name)
        .map(|(id, _)| id)
        .ok_or_else(|| failed(name))
}

/// Where a kind of lie changes what, and the edit itself. What is changed is committed by no leaf of its own, so a byte
/// of the last layer's cached row is changed as well: the root differs, and the first wrong site is the one meant.
fn edit(program: &Program, kind: Kind) -> Result<(SiteId, Edit), Failure> {
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
        Kind::Token => "sample",
        _ => "linear",
    };
    let layer = match kind {
        Kind::Embed | Kind::Token => None,
        // Only rows at the checkpoints are committed.
        Kind::Out => program.checkpoints().first().copied(),
        _ => middle,
    };
    let site = site(program, layer, name)?;
    let vocab = program.vocab;
    let last = self::site(program, Some(program.layers - 1), "kv_append")?;
    let marks = !matches!(kind, Kind::Token | Kind::Kv | Kind::Out);
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
            Some(Some(SiteRow::Token(id))) => *id = (*id + 1) % vocab,
            _ => {}
        }
        if marks && let Some(Some(SiteRow::Kv(bytes))) = rows.0.get_mut(last as usize) {
            bytes[0] ^= 1;
        }
    };
    Ok((site, Arc::new(edit)))
}

/// Makes the lie about a job: the honest answer first, then one change.
pub fn lie(pack: &Pack, device: &dyn Device, job: &Job, kind: Kind) -> Result<Lie, Failure> {
    let program = pack.program();
    let wrong = OtherWeights {
        device,
        row: match kind {
            Kind::Weights => Some(weight(&program)?),
            _ => None,
        },
    };
    let device: &dyn Device = if kind == Kind::Weights { &wrong } else { device };
    let honest = Loaded::on(pack, device)?.answer(job, &mut |_| ())?.transcript;
    let header = *honest.header();
    let outputs = u32::try_from(honest.outputs().len()).unwrap_or(u32::MAX);
    let (_, edit) = match kind {
        // Those are wrong without a change.
        Kind::Weights | Kind::Root | Kind::Output => (0, Arc::new(|_: &mut TokenRows| ()) as Edit),
        _ => edit(&program, kind)?,
    };
    let pos = match kind {
        Kind::Token => header.positions(outputs) - 1,
        _ => header.prompt / 2,
    };
    let internal = |e: DisputeError| Failure::Internal(anyhow::Error::new(e).context("making a lie"));
    let make = |edit: &Edit| -> Result<Tampered, Failure> {
        let fed = honest.outputs().split_last().map_or(&[][..], |(_, fed)| fed);
        let ids = [&job.input_ids[..], fed].concat();
        let runner = device
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
    for (i, body) in (0u32..).zip(honest.body_roots()) {
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
        Kind::Attention => Box::new(Fudged {
            player: explains,
            program: Arc::clone(&program),
            keys: None,
        }),
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

/// Says nothing.
struct Mute;

impl Defend for Mute {
    fn answer(&mut self, _: &Ask) -> Result<Answer, DisputeError> {
        Err(DisputeError::Kind("silent"))
    }
}

/// Publishes bytes that are not the committed ones.
struct WrongPiece(Player<Tampered>);

impl Defend for WrongPiece {
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        let mut answer = self.0.respond(ask)?;
        if let Answer::Piece(bytes) = &mut answer {
            bytes[0] ^= 1;
        }
        Ok(answer)
    }
}

/// Explains a wrong element of an attention by sums over keys that give it: the contract refuses any other.
struct Fudged {
    player: Player<Tampered>,
    program: Arc<Program>,
    keys: Option<KeysAnswer>,
}

impl Fudged {
    fn keys(&mut self, site: SiteId, wanted: i32, mut a: KeysAnswer) -> Option<KeysAnswer> {
        let Op::Attention { p_bits, f_out, .. } = self.program.sites.get(site as usize)?.op else {
            return None;
        };
        let z = a.parts.iter().map(|p| p.z).sum();
        let acc: i64 = a.parts.iter().map(|p| p.acc).sum();
        let unit = a.v_unit.map(|u| u.value);
        let at = |acc| finish(acc, z, unit, p_bits, f_out);
        // The element grows with the sum.
        let (mut low, mut high) = (-(1i64 << 45), 1i64 << 45);
        while low < high {
            let mid = low + (high - low) / 2;
            if at(mid) < wanted {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        a.parts.first_mut()?.acc += low - acc;
        Some(a)
    }
}

impl Defend for Fudged {
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        let answer = self.player.respond(ask)?;
        self.fudged(ask, answer)
            .ok_or(DisputeError::Kind("this lie has no such answer"))
    }
}

impl Fudged {
    fn fudged(&mut self, ask: &Ask, answer: Answer) -> Option<Answer> {
        Some(match (answer, *ask) {
            (Answer::Keys(a), Ask::Keys { pos, site, element }) => {
                let piece = Ask::Piece {
                    pos,
                    site,
                    side: bitai_poc::dispute::inner::Side::Data,
                    index: 0,
                };
                // The element that is changed lies in the first piece.
                let Ok(Answer::Piece(bytes)) = self.player.respond(&piece) else {
                    return None;
                };
                let wanted = bytes.as_chunks::<4>().0.get(element as usize)?;
                let a = self.keys(site, i32::from_le_bytes(*wanted), a)?;
                self.keys = Some(a.clone());
                Answer::Keys(a)
            }
            (Answer::KeyPart(mut shares), Ask::KeyPart { part, .. }) => {
                let KeySums { acc, .. } = *self.keys.as_ref()?.parts.get(part as usize)?;
                let (first, rest) = shares.split_first_mut()?;
                let rest: i64 = rest
                    .iter()
                    .map(|s| i64::from(s.weight) * i64::from(s.value))
                    .sum();
                first.value = if acc < rest { -1 } else { 1 };
                first.weight = u32::try_from((acc - rest).unsigned_abs()).ok()?;
                Answer::KeyPart(shares)
            }
            (answer, _) => answer,
        })
    }
}

/// A device that loads one row of one tensor otherwise.
struct OtherWeights<'a> {
    device: &'a dyn Device,
    row: Option<Weight>,
}

/// The first linear of the middle layer.
fn weight(program: &Program) -> Result<Weight, Failure> {
    let id = site(program, Some(program.layers / 2), "linear")?;
    match program.sites[id as usize].op {
        Op::Linear { weight, .. } => Ok(weight),
        _ => Err(failed("linear")),
    }
}

impl Device for OtherWeights<'_> {
    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        let mut tensors = tensors.to_vec();
        if let Some(t) = self.row.and_then(|w| tensors.get_mut(w.q as usize)) {
            let mut bytes = t.data().to_vec();
            for b in bytes.iter_mut().take(t.cols) {
                // Never -128, which no weight is.
                *b = b.wrapping_neg();
            }
            *t = HostTensor::owned(t.dtype, t.rows, t.cols, bytes);
        }
        self.device.load(program, &tensors)
    }
}
