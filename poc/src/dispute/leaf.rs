//! Accusations: the judge opens the inputs of one step and executes it with the reference functions. Here the
//! linear and what all leaves share; the other shapes have files of their own.

use alloy_primitives::Address;
use bitai_kernels::{
    DType, Hash, Op,
    num::Scale,
    program::{SiteId, Weight},
    program_check::Shape,
    reference::linear,
};

use super::{
    DisputeError, Ground, Judge, Verdict,
    answers::clamped_sum,
    inner::{Side, SiteCommit, ints_from_bytes, quant_from_bytes, scales_from_bytes},
    levels::linear_parts,
    msg::{Accusation, At, CommitOpening, InputOpening, one_scale},
};
use crate::model_root::{TensorOpening, WeightOpening};

/// What an executed step says: whether the published number is right.
pub(super) type Step = Result<(bool, &'static str), DisputeError>;

impl Judge {
    /// Executes the step that a challenger accuses, resting on the answer with id `to`: convicts the claim or
    /// ends the challenger's game. An accusation whose openings fail does not count.
    pub fn accuse(
        &mut self,
        who: Address,
        to: Hash,
        accusation: &Accusation,
    ) -> Result<Verdict, DisputeError> {
        self.playing(who)?;
        if self.rests_on(accusation)? != to {
            return Err(DisputeError::OtherAnswer);
        }
        let (right, step) = self.execute(accusation)?;
        let ground = Ground::Step(step);
        Ok(if right {
            self.clear(who, ground)
        } else {
            self.convict(ground)
        })
    }

    fn execute(&self, accusation: &Accusation) -> Step {
        match accusation {
            Accusation::LinearPart { at, part, x, w } => self.linear_part(*at, *part, x, w),
            Accusation::LinearFinish {
                at,
                x_scales,
                w_scale,
                bias,
            } => self.linear_finish(*at, x_scales, w_scale, bias.as_ref()),
            Accusation::Key { at, key } => self.key(*at, key),
            Accusation::MaxNotAttained { at, key } => self.max_attained(*at, key),
            Accusation::MaxExceeded { at, key } => self.max_bounds(*at, key),
            Accusation::UnitNotAttained { at, side, key } => self.unit_attained(*at, *side, key),
            Accusation::UnitExceeded { at, side, key } => self.unit_bounds(*at, *side, key),
            Accusation::AbsMaxNotAttained { at, raw, block } => self.absmax_attained(*at, *raw, block),
            Accusation::AbsMaxExceeded { at, raw, block } => self.absmax_bounds(*at, *raw, block),
            Accusation::GroupScale { at } => self.group_scale(*at),
            Accusation::QuantElement { at, block } => self.quant_element(*at, block),
            Accusation::GreedyExceeded {
                pos,
                id,
                sampled,
                better,
            } => self.greedy(*pos, *id, sampled, better),
            Accusation::DrawHead { pos, what, id, logit } => self.draw_head(*pos, *what, *id, logit),
            Accusation::DrawIds {
                pos,
                part,
                sub,
                logits,
            } => self.draw_ids(*pos, *part, *sub, logits),
            Accusation::Embed { at, id, w, w_scale } => self.embed(*at, id.as_ref(), w, w_scale),
            Accusation::Out { pos, site, input } => self.out(*pos, *site, input),
            Accusation::Model(fault) => self.model_rule(fault),
            Accusation::NormSum { at, part, x } => self.norm_sum(*at, *part, x),
            Accusation::NormMax { at, exceeded, x } => self.norm_max(*at, *exceeded, x),
            Accusation::NormSquares { at, part, x } => self.norm_squares(*at, *part, x),
            Accusation::NormElement { at, x, gain, bias } => self.norm_element(*at, x, gain, bias.as_ref()),
            Accusation::Elementwise { at, x, y } => self.elementwise(*at, x, y.as_ref()),
            Accusation::Rope { at, pair, table } => self.rope(*at, pair, table),
            Accusation::Record { at, k, v } => self.record(*at, k, v),
        }
    }

    /// Input `i` of a site.
    pub(super) fn input(&self, site: SiteId, i: usize) -> Result<SiteId, DisputeError> {
        self.op(site)?;
        self.program.sites[site as usize]
            .inputs
            .get(i)
            .copied()
            .ok_or(DisputeError::Kind("the site has no such input"))
    }

    /// An input site's commitment: published, or opened under a published unit root.
    pub(super) fn opened(
        &self,
        pos: u32,
        site: SiteId,
        opening: &CommitOpening,
    ) -> Result<SiteCommit, DisputeError> {
        if let Some(commit) = self.published.commit(&self.units, pos, site) {
            return Ok(commit);
        }
        let unpublished = DisputeError::Unpublished("the input's unit");
        let unit = self.units.unit_of(site).ok_or(unpublished.clone())?;
        let token = self.published.token.get(&pos).ok_or(unpublished.clone())?;
        let root = token.units.get(unit as usize).ok_or(unpublished)?;
        let sites = self.units.sites(unit);
        let proof = opening
            .proof
            .as_ref()
            .ok_or(DisputeError::Kind("an input of another unit needs a path"))?;
        let count = sites.end - sites.start;
        proof
            .verify(root, count, site - sites.start, &opening.commit.leaf(site))
            .map_err(|source| crate::OpenError::Merkle {
                what: "input site",
                source,
            })?;
        if !self.units.fits(site, &opening.commit) {
            return Err(DisputeError::Kind("an input of another kind than the program's"));
        }
        Ok(opening.commit)
    }

    /// Elements `range` of input `i` of a site, as bytes.
    pub(super) fn input_bytes(
        &self,
        (pos, site, i): (u32, SiteId, usize),
        side: Side,
        opening: &InputOpening,
        range: std::ops::Range<u32>,
    ) -> Result<Vec<u8>, DisputeError> {
        let input = self.input(site, i)?;
        let commit = self.opened(pos, input, &opening.site)?;
        self.range_bytes(input, &commit, side, &opening.range, range)
    }

    /// Elements `range` of a row with a known commitment.
    pub(super) fn range_bytes(
        &self,
        site: SiteId,
        commit: &SiteCommit,
        side: Side,
        opening: &crate::RangeOpening,
        range: std::ops::Range<u32>,
    ) -> Result<Vec<u8>, DisputeError> {
        let none = DisputeError::Kind("this row has no such bytes");
        let hash = commit.hash(side).ok_or(none.clone())?;
        let total = self.units.row_len(site, side).ok_or(none.clone())?;
        let size = self.units.element_len(site, side).ok_or(none)?;
        let bytes = u64::from(range.start) * size..u64::from(range.end) * size;
        Ok(opening.verify("row", &hash, total, bytes)?)
    }

    /// Elements of a tensor, opened from the model root.
    pub(super) fn tensor(
        &self,
        opening: &TensorOpening,
        id: u32,
        shape: (DType, u32, u32),
        range: std::ops::Range<u64>,
    ) -> Result<Vec<u8>, DisputeError> {
        let shape = (shape.0, shape.1.into(), shape.2.into());
        Ok(opening.verify(self.job.model_root, self.branches.tensor_count, id, shape, range)?)
    }

    /// Weights `range` of row `row` with the multiplier of every group that they touch.
    pub(super) fn weights(
        &self,
        ids: &Weight,
        opening: &WeightOpening,
        (n, k): (u32, u32),
        row: u32,
        range: std::ops::Range<u32>,
    ) -> Result<(Vec<i8>, Vec<u8>), DisputeError> {
        let group = u32::try_from(linear::GROUP).expect("a small constant");
        let span = |width: u32, r: std::ops::Range<u32>| {
            let start = u64::from(row) * u64::from(width);
            start + u64::from(r.start)..start + u64::from(r.end)
        };
        let q = self.tensor(&opening.q, ids.q, (DType::I8, n, k), span(k, range.clone()))?;
        let mults = match (ids.mult, &opening.mult) {
            (None, None) => vec![],
            (None, Some(_)) => {
                return Err(DisputeError::Kind("a weight without groups has no multipliers"));
            }
            (Some(id), Some(open)) => {
                let groups = range.start / group..range.end.div_ceil(group);
                self.tensor(open, id, (DType::U8, n, k / group), span(k / group, groups))?
            }
            (Some(_), None) => return Err(DisputeError::Kind("a grouped weight needs its multipliers")),
        };
        Ok((q.iter().map(|b| b.cast_signed()).collect(), mults))
    }

    /// The weight row's scale.
    pub(super) fn weight_scale(
        &self,
        ids: &Weight,
        open: &TensorOpening,
        n: u32,
        row: u32,
    ) -> Result<Scale, DisputeError> {
        let range = u64::from(row)..u64::from(row) + 1;
        Ok(one_scale(&self.tensor(
            open,
            ids.scale,
            (DType::Scale, 1, n),
            range,
        )?))
    }

    fn linear_part(&self, at: At, part: u32, x: &InputOpening, w: &WeightOpening) -> Step {
        let Op::Linear {
            weight,
            n,
            k,
            k_segments,
            ..
        } = *self.op(at.site)?
        else {
            return Err(DisputeError::Kind("not a linear"));
        };
        let parts = self
            .published
            .sums
            .get(&at)
            .ok_or(DisputeError::Unpublished("the sums over K"))?;
        let ranges = linear_parts(k, k_segments.into());
        let (Some(claimed), Some(range)) = (parts.get(part as usize), ranges.get(part as usize)) else {
            return Err(DisputeError::Range {
                what: "part",
                got: part.into(),
                count: parts.len() as u64,
            });
        };
        let planes = self.planes(self.input(at.site, 0)?);
        let bytes = self.input_bytes((at.pos, at.site, 0), Side::Data, x, range.clone())?;
        let (ws, mults) = self.weights(&weight, w, (n, k), at.element, range.clone())?;
        let sum = linear::dot_segment(&quant_from_bytes(planes, &bytes), &ws, &mults);
        Ok((sum == *claimed, "a linear's partial sum"))
    }

    fn linear_finish(
        &self,
        at: At,
        x_scales: &InputOpening,
        w_scale: &TensorOpening,
        bias: Option<&TensorOpening>,
    ) -> Step {
        let Op::Linear {
            weight,
            n,
            k_segments,
            f_out,
            ..
        } = *self.op(at.site)?
        else {
            return Err(DisputeError::Kind("not a linear"));
        };
        let parts = self
            .published
            .sums
            .get(&at)
            .ok_or(DisputeError::Unpublished("the sums over K"))?;
        let planes = self.planes(self.input(at.site, 0)?);
        let segments = u32::from(k_segments);
        let scales = self.input_bytes((at.pos, at.site, 0), Side::Scales, x_scales, 0..segments)?;
        let w = self.weight_scale(&weight, w_scale, n, at.element)?;
        let bias = match (weight.bias, bias) {
            (None, None) => 0,
            (None, Some(_)) => return Err(DisputeError::Kind("this weight has no bias")),
            (Some(id), Some(open)) => {
                let range = u64::from(at.element)..u64::from(at.element) + 1;
                let bytes = self.tensor(open, id, (DType::I32, 1, n), range)?;
                ints_from_bytes(&bytes).first().copied().unwrap_or(0)
            }
            (Some(_), None) => return Err(DisputeError::Kind("a weight with a bias needs it")),
        };
        let a_segment = parts.len() / segments.max(1) as usize;
        let sums: Vec<i32> = scales_from_bytes(&scales)
            .iter()
            .zip(parts.chunks(a_segment.max(1)))
            .map(|(x, parts)| linear::requant(clamped_sum(parts.iter().copied()), planes, *x, w, f_out))
            .collect();
        let right = linear::finish(&sums, bias).to_le_bytes();
        let claimed = self.element(at.pos, at.site, Side::Data, at.element)?;
        Ok((right == claimed, "a linear's requantisation"))
    }

    /// Planes of a quantised site.
    pub(super) fn planes(&self, site: SiteId) -> u8 {
        match self.units.shape(site) {
            Some(Shape::Quant { planes, .. }) => planes,
            _ => 1,
        }
    }
}
