//! The judge: its setup from public data, and every ask checked against what is published.

use alloy_primitives::Address;
use bitai_kernels::{Hash, Op, Program, Sampler, program::SiteId, program_check::Shape};
use bitai_types::{Job, JobError};

use super::{
    DisputeError, Ground,
    ids::Claim,
    inner::{Side, SiteCommit, Units},
    leaf_norm::NormOp,
    levels::next_height,
    msg::{Ask, At},
    published::Published,
    seats::Seats,
};
use crate::{
    header::{Header, TraceRoot, model_shape},
    merkle,
    model_root::Branches,
};

/// A dispute about one claim.
#[derive(Debug, Clone)]
pub struct Judge {
    pub(super) id: Hash,
    pub(super) neuron: Address,
    pub(super) job: Job,
    pub(super) outputs: Vec<u32>,
    pub(super) claimed: TraceRoot,
    pub(super) header: Header,
    pub(super) program: Program,
    pub(super) units: Units,
    pub(super) branches: Branches,
    pub(super) published: Published,
    pub(super) sampler: Sampler,
    pub(super) seats: Seats,
}

/// The sampler that the kernels know.
pub fn kernel_sampler(job: &Job) -> Sampler {
    if job.sampler.temperature_q16 == 0 {
        return Sampler::Greedy;
    }
    Sampler::Random {
        temperature_q16: job.sampler.temperature_q16,
        top_k: job.sampler.top_k,
        top_p_q16: job.sampler.top_p_q16,
        seed: job.seed,
    }
}

/// Why nobody can have run a program.
fn defect_of(program: &Program) -> Option<&'static str> {
    if program.validate().is_err() {
        return Some("the program breaks the tensor spec");
    }
    program
        .answers()
        .is_err()
        .then_some("the program puts out nothing that a job can ask for")
}

impl Judge {
    /// Opens the dispute about a claim. The program is checked against the job's model root; everything else
    /// follows from public data. A program that no device loads and an output that the job does not allow
    /// convict at once.
    pub fn new(claim: Claim, program: Program, branches: Branches) -> Result<Self, DisputeError> {
        let id = claim.id();
        let Claim {
            neuron, job, outputs, ..
        } = claim;
        if branches.root(&program).ok() != Some(job.model_root) {
            return Err(DisputeError::Setup(
                "program and branches do not give the job's model root".into(),
            ));
        }
        let broken = defect_of(&program);
        let units = if broken.is_none() {
            Units::new(&program)?
        } else {
            Units::none()
        };
        let mut judge = Self {
            id,
            neuron,
            header: Header::new(&job, &program),
            sampler: kernel_sampler(&job),
            job,
            outputs,
            claimed: claim.root,
            program,
            units,
            branches,
            published: Published::default(),
            seats: Seats::default(),
        };
        if let Some(why) = judge.defect(broken)? {
            judge.convict(Ground::Contradiction(why));
        }
        Ok(judge)
    }

    /// What convicts a claim before any move; fails for a job that no hub takes.
    fn defect(&self, broken: Option<&'static str>) -> Result<Option<&'static str>, DisputeError> {
        if broken.is_some() {
            return Ok(broken);
        }
        let shape = model_shape(&self.program);
        self.job
            .check(&shape)
            .map_err(|e| DisputeError::Setup(e.to_string()))?;
        if !self.names_tensors_that_are_there() {
            return Ok(Some("the program names a tensor that the pack does not hold"));
        }
        Ok(match self.job.check_output(&self.outputs, &shape) {
            Ok(()) => None,
            Err(JobError::IdOutOfRange { .. }) => Some("an output id is outside the vocabulary"),
            Err(_) => Some("the output does not end where the job says"),
        })
    }

    /// The claim's id: what the first ask builds on.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// What is published so far.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Whose claim it is.
    pub fn neuron(&self) -> Address {
        self.neuron
    }

    /// The claim's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The disputed job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The claimed root.
    pub fn claimed(&self) -> TraceRoot {
        self.claimed
    }

    /// The program, checked against the model root.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The program's units.
    pub fn units(&self) -> &Units {
        &self.units
    }

    /// Ids that the claim says were sampled.
    pub fn outputs(&self) -> &[u32] {
        &self.outputs
    }

    /// Number of outputs.
    pub(super) fn output_count(&self) -> u32 {
        // `check_output` bounds it by max_new; a claim that breaks that is convicted before the first move.
        u32::try_from(self.outputs.len()).unwrap_or(u32::MAX)
    }

    /// Positions of the trace.
    pub fn positions(&self) -> u32 {
        self.header.positions(self.output_count())
    }

    /// The id that position `pos` runs.
    pub fn input_id(&self, pos: u32) -> Option<u32> {
        match pos.checked_sub(self.header.prompt) {
            None => self.job.input_ids.get(pos as usize).copied(),
            Some(i) => self.outputs.get(i as usize).copied(),
        }
    }

    /// Takes an ask of a challenger, which builds on the answer (or claim) with id `to`; gives the id that the
    /// answer must name. What another challenger waits for already is asked once.
    pub fn ask(&mut self, who: Address, to: Hash, ask: Ask) -> Result<Hash, DisputeError> {
        self.playing(who)?;
        self.may_ask(who)?;
        self.check_ask(&ask)?;
        if self.builds_on(&ask)? != to {
            return Err(DisputeError::OtherAnswer);
        }
        let id = ask.id(&to);
        self.wait(who, id, ask);
        Ok(id)
    }

    /// The operation of a site whose unit is published.
    pub(super) fn op(&self, site: SiteId) -> Result<&Op, DisputeError> {
        let count = self.program.sites.len() as u64;
        self.program
            .sites
            .get(site as usize)
            .map(|s| &s.op)
            .ok_or(DisputeError::Range {
                what: "site",
                got: site.into(),
                count,
            })
    }

    /// A site's commitment, once published.
    pub(super) fn commit(&self, pos: u32, site: SiteId) -> Result<SiteCommit, DisputeError> {
        self.published
            .commit(&self.units, pos, site)
            .ok_or(DisputeError::Unpublished("the site's unit"))
    }

    /// A published element's bytes.
    pub(super) fn element(&self, pos: u32, site: SiteId, side: Side, e: u32) -> Result<&[u8], DisputeError> {
        self.published
            .element(&self.units, (pos, site, side), e)
            .ok_or(DisputeError::Unpublished("the piece with this element"))
    }

    fn check_ask(&self, ask: &Ask) -> Result<(), DisputeError> {
        let p = &self.published;
        let fresh = |published: bool| {
            if published {
                Err(DisputeError::Published)
            } else {
                Ok(())
            }
        };
        let range = |what, got: u32, count: u32| {
            if got < count {
                Ok(())
            } else {
                Err(DisputeError::Range {
                    what,
                    got: got.into(),
                    count: count.into(),
                })
            }
        };
        match *ask {
            Ask::Tokens { height, index } => {
                let top = merkle::height(self.positions());
                if height == 0 || height > top {
                    return Err(DisputeError::Range {
                        what: "height",
                        got: height.into(),
                        count: top.into(),
                    });
                }
                range("node", index, merkle::width(self.positions(), height))?;
                if height != top && !p.tokens.contains_key(&(height, index)) {
                    return Err(DisputeError::Unpublished("the node above"));
                }
                let next = next_height(height);
                let child = u64::from(index) << (height - next);
                fresh(u32::try_from(child).is_ok_and(|c| p.tokens.contains_key(&(next, c))))
            }
            Ask::Token { pos } => {
                range("position", pos, self.positions())?;
                if self.positions() > 1 && !p.tokens.contains_key(&(0, pos)) {
                    return Err(DisputeError::Unpublished("the token's node"));
                }
                fresh(p.token.contains_key(&pos))
            }
            Ask::Unit { pos, unit } => {
                let token = p.token.get(&pos).ok_or(DisputeError::Unpublished("the token"))?;
                range("unit", unit, self.units.count(token.node.sampled.is_some()))?;
                fresh(p.units.contains_key(&(pos, unit)))
            }
            Ask::Row { pos, site, side } => {
                let (count, _) = self.side(pos, site, side)?;
                if count == 1 {
                    return Err(DisputeError::Kind("this row is one piece: ask for the piece"));
                }
                fresh(p.rows.contains_key(&(pos, site, side)))
            }
            Ask::Piece {
                pos,
                site,
                side,
                index,
            } => {
                let (count, _) = self.side(pos, site, side)?;
                if count > 1 && !p.rows.contains_key(&(pos, site, side)) {
                    return Err(DisputeError::Unpublished("the row"));
                }
                range("piece", index, u32::try_from(count).unwrap_or(u32::MAX))?;
                fresh(p.pieces.contains_key(&(pos, site, side, index)))
            }
            Ask::Sum { pos, site, element } => {
                if !matches!(self.op(site)?, Op::Linear { .. }) {
                    return Err(DisputeError::Kind("only a linear has sums over K"));
                }
                self.element(pos, site, Side::Data, element)?;
                fresh(p.sums.contains_key(&At { pos, site, element }))
            }
            Ask::Keys { pos, site, element } => {
                if !matches!(self.op(site)?, Op::Attention { .. }) {
                    return Err(DisputeError::Kind("only attention has sums over keys"));
                }
                self.element(pos, site, Side::Data, element)?;
                fresh(p.keys.contains_key(&At { pos, site, element }))
            }
            Ask::KeyPart {
                pos,
                site,
                element,
                part,
            } => {
                let at = At { pos, site, element };
                let keys = p
                    .keys
                    .get(&at)
                    .ok_or(DisputeError::Unpublished("the sums over keys"))?;
                range("part", part, u32::try_from(keys.parts.len()).unwrap_or(u32::MAX))?;
                fresh(p.key_parts.contains_key(&(at, part)))
            }
            Ask::Group { pos, site, group } => {
                self.commit(pos, site)?;
                let (Op::Quant { .. }, Some(Shape::Quant { cols, group: len, .. })) =
                    (self.op(site)?, self.units.shape(site))
                else {
                    return Err(DisputeError::Kind("only a quantisation has groups"));
                };
                range("group", group, cols / len)?;
                fresh(p.groups.contains_key(&(pos, site, group)))
            }
            Ask::Norm { pos, site, group } => {
                self.commit(pos, site)?;
                let (Some(norm), Some(Shape::Acts { cols })) =
                    (NormOp::of(self.op(site)?), self.units.shape(site))
                else {
                    return Err(DisputeError::Kind("only a norm has sums of squares"));
                };
                range("group", group, cols / norm.group)?;
                fresh(p.norms.contains_key(&(pos, site, group)))
            }
            Ask::Draw { pos } => {
                self.sample_site(pos)?;
                if matches!(self.sampler, Sampler::Greedy) {
                    return Err(DisputeError::Kind("a greedy job draws nothing: name a better id"));
                }
                fresh(p.draws.contains_key(&pos))
            }
            Ask::DrawPart { pos, part } => {
                let draw = p.draws.get(&pos).ok_or(DisputeError::Unpublished("the draw"))?;
                range("part", part, u32::try_from(draw.parts.len()).unwrap_or(u32::MAX))?;
                fresh(p.draw_parts.contains_key(&(pos, part)))
            }
        }
    }

    /// Number of pieces and bytes a piece of a side whose commitment is published.
    pub(super) fn side(&self, pos: u32, site: SiteId, side: Side) -> Result<(u64, u64), DisputeError> {
        self.commit(pos, site)?;
        Published::pieces_of(&self.units, site, side).ok_or(DisputeError::Kind("this row has no such bytes"))
    }

    /// The sampling site of a position that samples, its unit being published.
    pub(super) fn sample_site(&self, pos: u32) -> Result<SiteId, DisputeError> {
        let site = u32::try_from(self.program.sites.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.commit(pos, site)?;
        match self.op(site)? {
            Op::Sample { .. } => Ok(site),
            _ => Err(DisputeError::Kind("this program does not sample")),
        }
    }
}
