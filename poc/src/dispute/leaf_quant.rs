//! The leaves of a dynamic quantisation: the two maxima of a group, its scale, one element.

use bitai_kernels::{
    Op,
    program_check::Shape,
    reference::quant::{GroupParams, element, group_params, wht_element, wht_shift},
};

use super::{
    DisputeError, Judge,
    inner::{Side, ints_from_bytes, quant_bytes},
    leaf::Step,
    levels::quant_block,
    msg::{At, GroupAnswer, InputOpening},
};

/// A quantisation's numbers at one element.
struct Quant {
    planes: u8,
    wht: u32,
    f_in: u8,
    group: GroupAnswer,
}

impl Quant {
    fn shift(&self) -> i32 {
        if self.wht == 0 {
            0
        } else {
            wht_shift(self.group.raw.value)
        }
    }

    fn params(&self) -> GroupParams {
        group_params(self.group.max.value, self.planes, self.f_in, self.shift())
    }
}

impl Judge {
    fn quant(&self, at: At) -> Result<Quant, DisputeError> {
        let (
            Op::Quant {
                planes, wht, f_in, ..
            },
            Some(Shape::Quant { cols, group, .. }),
        ) = (self.op(at.site)?, self.units.shape(at.site))
        else {
            return Err(DisputeError::Kind("not a quantisation"));
        };
        if at.element >= cols {
            return Err(DisputeError::Range {
                what: "element",
                got: at.element.into(),
                count: cols.into(),
            });
        }
        let answer = self
            .published
            .groups
            .get(&(at.pos, at.site, at.element / group))
            .ok_or(DisputeError::Unpublished("the group's maxima"))?;
        Ok(Quant {
            planes: *planes,
            wht: u32::from(*wht),
            f_in: *f_in,
            group: *answer,
        })
    }

    /// The value that is quantised at `e`: the input, or its transform over the block that holds it; with
    /// `raw` the input in both cases.
    fn quant_value(
        &self,
        at: At,
        q: &Quant,
        raw: bool,
        block: &InputOpening,
        e: u32,
    ) -> Result<i32, DisputeError> {
        let range = quant_block(e, q.wht);
        let i = (e - range.start) as usize;
        let bytes = self.input_bytes((at.pos, at.site, 0), Side::Data, block, range)?;
        let values = ints_from_bytes(&bytes);
        if raw || q.wht == 0 {
            return Ok(values[i]);
        }
        Ok(wht_element(&values, i, q.group.raw.value))
    }

    /// "Not attained": the magnitude at the published index.
    pub(super) fn absmax_attained(&self, at: At, raw: bool, block: &InputOpening) -> Step {
        let q = self.quant(at)?;
        let max = if raw { q.group.raw } else { q.group.max };
        let v = self.quant_value(at, &q, raw, block, max.at)?;
        Ok((v.unsigned_abs() == max.value, "a group's absmax is attained"))
    }

    /// "Exceeded by j": `at` is j.
    pub(super) fn absmax_bounds(&self, at: At, raw: bool, block: &InputOpening) -> Step {
        let q = self.quant(at)?;
        let max = if raw { q.group.raw } else { q.group.max };
        let v = self.quant_value(at, &q, raw, block, at.element)?;
        Ok((
            v.unsigned_abs() <= max.value,
            "a group's absmax bounds every element",
        ))
    }

    pub(super) fn group_scale(&self, at: At) -> Step {
        let q = self.quant(at)?;
        let Some(Shape::Quant { group, .. }) = self.units.shape(at.site) else {
            return Err(DisputeError::Kind("not a quantisation"));
        };
        let claimed = self.element(at.pos, at.site, Side::Scales, at.element / group)?;
        Ok((q.params().scale.to_bytes() == claimed, "a group's scale"))
    }

    pub(super) fn quant_element(&self, at: At, block: &InputOpening) -> Step {
        let q = self.quant(at)?;
        let claimed = self.element(at.pos, at.site, Side::Data, at.element)?;
        let v = self.quant_value(at, &q, false, block, at.element)?;
        let right = quant_bytes(q.planes, &[element(v, q.planes, &q.params())]);
        Ok((right == claimed, "a quantised element"))
    }
}
