//! The leaves of a sampled token: a better id, the numbers of a draw's head, the sums over a few ids.

use bitai_kernels::{
    Sampler,
    reference::sample::{id_sums, inverse_temperature, probability, stands_before},
};

use super::{
    DisputeError, Judge,
    inner::{Side, ints_from_bytes},
    leaf::Step,
    levels::{part_len, part_of},
    msg::{DrawAnswer, DrawFault, DrawSums, InputOpening},
};
use crate::RangeOpening;
use bitai_kernels::Op;

/// The sums of ids `first ..` with these logits under a published head.
pub(super) fn sums(
    head: &DrawAnswer,
    token: u32,
    probability: &dyn Fn(i32) -> u32,
    first: u32,
    logits: &[i32],
) -> DrawSums {
    let (k_cut, cut) = head.thresholds();
    let probs: Vec<u32> = logits.iter().map(|logit| probability(*logit)).collect();
    let s = id_sums(&probs, first, k_cut, cut, token);
    DrawSums {
        k_count: s.k_count,
        k_mass: s.k_mass,
        count: s.count,
        mass: s.mass,
        below: s.below,
    }
}

impl Judge {
    /// Probability of a logit under a published head.
    fn draw_probability(&self, pos: u32, max: i32) -> Result<impl Fn(i32) -> u32 + use<>, DisputeError> {
        let (Op::Sample { f }, Sampler::Random { temperature_q16, .. }) =
            (self.op(self.sample_site(pos)?)?, self.sampler)
        else {
            return Err(DisputeError::Kind("a greedy job draws nothing"));
        };
        let (f, inv) = (*f, inverse_temperature(temperature_q16));
        Ok(move |logit| probability(logit, max, inv, f))
    }

    fn sampled(&self, pos: u32) -> Result<u32, DisputeError> {
        self.published
            .token
            .get(&pos)
            .and_then(|t| t.node.sampled)
            .ok_or(DisputeError::Unpublished("the token"))
    }

    fn id_range(&self, id: u32) -> Result<std::ops::Range<u32>, DisputeError> {
        let count = self.program.vocab;
        if id >= count {
            return Err(DisputeError::Range {
                what: "id",
                got: id.into(),
                count: count.into(),
            });
        }
        Ok(id..id + 1)
    }

    pub(super) fn greedy(&self, pos: u32, id: u32, sampled: &InputOpening, better: &RangeOpening) -> Step {
        let site = self.sample_site(pos)?;
        if !matches!(self.sampler, Sampler::Greedy) {
            return Err(DisputeError::Kind("a random job does not take the largest logit"));
        }
        let token = self.sampled(pos)?;
        let logits = self.input(site, 0)?;
        let commit = self.opened(pos, logits, &sampled.site)?;
        let logit = |opening, id| {
            let bytes = self.range_bytes(logits, &commit, Side::Data, opening, self.id_range(id)?)?;
            Ok::<i32, DisputeError>(ints_from_bytes(&bytes)[0])
        };
        let (mine, other) = (logit(&sampled.range, token)?, logit(better, id)?);
        let exceeded = stands_before((other, id), (mine, token));
        Ok((!exceeded, "no logit exceeds the sampled one"))
    }

    pub(super) fn draw_head(&self, pos: u32, what: DrawFault, id: u32, logit: &InputOpening) -> Step {
        let site = self.sample_site(pos)?;
        let head = self
            .published
            .draws
            .get(&pos)
            .ok_or(DisputeError::Unpublished("the draw"))?;
        let bytes = self.input_bytes((pos, site, 0), Side::Data, logit, self.id_range(id)?)?;
        let value = ints_from_bytes(&bytes)[0];
        let p = self.draw_probability(pos, head.max.value)?(value);
        let must_be = match what {
            DrawFault::MaxNotAttained => head.max.at,
            DrawFault::MaxExceeded => id,
            DrawFault::Threshold => head.threshold.1,
            DrawFault::Sampled => self.sampled(pos)?,
        };
        if must_be != id {
            return Err(DisputeError::Kind("the opened logit is not the one in question"));
        }
        Ok(match what {
            DrawFault::MaxNotAttained => (value == head.max.value, "the largest logit is attained"),
            DrawFault::MaxExceeded => (value <= head.max.value, "the largest logit bounds every id"),
            DrawFault::Threshold => (p == head.threshold.0, "the threshold's probability"),
            DrawFault::Sampled => (p == head.p, "the sampled id's probability"),
        })
    }

    pub(super) fn draw_ids(&self, pos: u32, part: u32, sub: u32, logits: &InputOpening) -> Step {
        let site = self.sample_site(pos)?;
        let head = self
            .published
            .draws
            .get(&pos)
            .ok_or(DisputeError::Unpublished("the draw"))?;
        let claimed = self
            .published
            .draw_parts
            .get(&(pos, part))
            .ok_or(DisputeError::Unpublished("the draw's part"))?
            .get(sub as usize)
            .ok_or(DisputeError::Kind("the part has no such part"))?;
        let ids = draw_sub(self.program.vocab, part, sub);
        let bytes = self.input_bytes((pos, site, 0), Side::Data, logits, ids.clone())?;
        let probability = self.draw_probability(pos, head.max.value)?;
        let right = sums(
            head,
            self.sampled(pos)?,
            &probability,
            ids.start,
            &ints_from_bytes(&bytes),
        );
        Ok((right == *claimed, "the sums over a few ids"))
    }
}

/// The ids of part `sub` of part `part`.
pub(super) fn draw_sub(vocab: u32, part: u32, sub: u32) -> std::ops::Range<u32> {
    let len = part_len(vocab);
    part_of(&part_of(&(0..vocab), len, part), part_len(len), sub)
}
