//! The leaves of a norm: sums of parts of a group, its largest magnitude, one element. Rules R1 to R9.

use bitai_kernels::{
    DType, Op, TensorId,
    program_check::Shape,
    reference::{layer_norm as layer, norm},
};

use super::{
    DisputeError, Judge,
    answers::clamped_sum,
    inner::{Side, ints_from_bytes},
    leaf::Step,
    levels::norm_parts,
    msg::{At, InputOpening, Max, NormAnswer},
};
use crate::model_root::TensorOpening;

/// A norm's parameters; one with a bias is a layer norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NormOp {
    pub(super) gain: TensorId,
    pub(super) bias: Option<TensorId>,
    gain_f: i8,
    eps: u64,
    pub(super) group: u32,
    f_out: u8,
}

impl NormOp {
    /// The norm that an op is, if it is one.
    pub(super) fn of(op: &Op) -> Option<Self> {
        let (gain, bias, gain_f, eps, group, f_out) = match *op {
            Op::RmsNorm {
                gain,
                gain_f,
                eps,
                group,
                f_out,
                ..
            } => (gain, None, gain_f, eps, group, f_out),
            Op::LayerNorm {
                gain,
                bias,
                gain_f,
                eps,
                group,
                f_out,
                ..
            } => (gain, Some(bias), gain_f, eps, group, f_out),
            _ => return None,
        };
        Some(Self {
            gain,
            bias,
            gain_f,
            eps,
            group,
            f_out,
        })
    }

    /// Refuses an answer of another shape, or with a maximum elsewhere.
    pub(super) fn check(&self, group: u32, a: &NormAnswer) -> Result<(), DisputeError> {
        let parts = norm_parts(group, self.group).len();
        let sums = if self.bias.is_some() { parts } else { 0 };
        if a.squares.len() != parts || a.sums.len() != sums {
            return Err(DisputeError::Answer("another number of parts"));
        }
        if a.max.at / self.group != group {
            return Err(DisputeError::Answer("a maximum outside its group"));
        }
        if self.bias.is_none() && u32::try_from(a.max.value).is_err() {
            return Err(DisputeError::Answer("a magnitude of more than 32 bits"));
        }
        Ok(())
    }

    /// Magnitude of an element, of a layer norm when the group's published sum is gone.
    fn magnitude(&self, h: i32, sums: &[i64]) -> u64 {
        match self.bias {
            None => h.unsigned_abs().into(),
            Some(_) => layer::centred(h, self.group as usize, total(sums)).unsigned_abs(),
        }
    }

    /// Sum of squares of a part under published sums and maximum.
    fn squares(&self, h: &[i32], sums: &[i64], max: u64) -> u64 {
        match self.bias {
            None => norm::sum_squares(h, norm::shift(narrow(max))),
            Some(_) => layer::sum_squares(h, self.group as usize, total(sums), layer::shift(max)),
        }
    }

    /// One element from what is published of its group.
    fn element(&self, h: i32, gain: i32, bias: i32, a: &NormAnswer) -> i32 {
        let d = self.group as usize;
        let squares = a.squares.iter().fold(0, |s: u64, p| s.saturating_add(*p));
        if self.bias.is_none() {
            let p = norm::group_norm(squares, d, self.eps, norm::shift(narrow(a.max.value)));
            return norm::element(h, gain, &p, self.gain_f, self.f_out);
        }
        let p = layer::group_norm(squares, d, self.eps, layer::shift(a.max.value));
        let z = layer::centred(h, d, total(&a.sums));
        layer::element(z, gain, bias, &p, self.gain_f, self.f_out)
    }

    /// The honest answer about a group of a row.
    pub(super) fn answer(&self, row: &[i32], group: u32) -> Option<NormAnswer> {
        let parts = norm_parts(group, self.group);
        let part = |r: &std::ops::Range<u32>| row.get(r.start as usize..r.end as usize);
        let of = parts.iter().map(part).collect::<Option<Vec<_>>>()?;
        let sums: Vec<i64> = match self.bias {
            None => vec![],
            Some(_) => of.iter().map(|h| plain_sum(h)).collect(),
        };
        let first = group * self.group;
        let magnitudes = (first..).zip(of.iter().copied().flatten());
        let max = magnitudes.fold(Max { value: 0, at: first }, |best, (at, h)| {
            let value = self.magnitude(*h, &sums);
            if value > best.value {
                Max { value, at }
            } else {
                best
            }
        });
        let squares = of.iter().map(|h| self.squares(h, &sums, max.value)).collect();
        Some(NormAnswer { sums, max, squares })
    }
}

/// The sum of a group by its published parts.
fn total(sums: &[i64]) -> i64 {
    clamped_sum(sums.iter().copied())
}

fn plain_sum(h: &[i32]) -> i64 {
    h.iter().map(|v| i64::from(*v)).sum()
}

/// A magnitude that [`NormOp::check`] keeps to 32 bits.
fn narrow(max: u64) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX)
}

impl Judge {
    /// A norm at one of its elements, with what is published of that element's group.
    fn norm(&self, at: At) -> Result<(NormOp, &NormAnswer), DisputeError> {
        let (Some(norm), Some(Shape::Acts { cols })) =
            (NormOp::of(self.op(at.site)?), self.units.shape(at.site))
        else {
            return Err(DisputeError::Kind("not a norm"));
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
            .norms
            .get(&(at.pos, at.site, at.element / norm.group))
            .ok_or(DisputeError::Unpublished("the group's sums"))?;
        Ok((norm, answer))
    }

    /// Opened elements of a norm's input.
    fn norm_input(
        &self,
        at: At,
        x: &InputOpening,
        range: std::ops::Range<u32>,
    ) -> Result<Vec<i32>, DisputeError> {
        let bytes = self.input_bytes((at.pos, at.site, 0), Side::Data, x, range)?;
        Ok(ints_from_bytes(&bytes))
    }

    /// A part of a group, opened.
    fn norm_part(&self, at: At, group: u32, part: u32, x: &InputOpening) -> Result<Vec<i32>, DisputeError> {
        let parts = norm_parts(at.element / group, group);
        let range = parts.get(part as usize).ok_or(DisputeError::Range {
            what: "part",
            got: part.into(),
            count: parts.len() as u64,
        })?;
        self.norm_input(at, x, range.clone())
    }

    pub(super) fn norm_sum(&self, at: At, part: u32, x: &InputOpening) -> Step {
        let (norm, a) = self.norm(at)?;
        let sum = a
            .sums
            .get(part as usize)
            .ok_or(DisputeError::Kind("no such plain sum is published"))?;
        let h = self.norm_part(at, norm.group, part, x)?;
        Ok((plain_sum(&h) == *sum, "the sum of a part of a norm's group"))
    }

    /// The maximum is not attained at its index, or exceeded by the element at `at`.
    pub(super) fn norm_max(&self, at: At, exceeded: bool, x: &InputOpening) -> Step {
        let (norm, a) = self.norm(at)?;
        let e = if exceeded { at.element } else { a.max.at };
        let h = self.norm_input(at, x, e..e + 1)?;
        let got = norm.magnitude(h.first().copied().unwrap_or(0), &a.sums);
        Ok(if exceeded {
            (
                got <= a.max.value,
                "the largest magnitude of a norm's group bounds every element",
            )
        } else {
            (
                got == a.max.value,
                "the largest magnitude of a norm's group is attained",
            )
        })
    }

    pub(super) fn norm_squares(&self, at: At, part: u32, x: &InputOpening) -> Step {
        let (norm, a) = self.norm(at)?;
        let h = self.norm_part(at, norm.group, part, x)?;
        let right = norm.squares(&h, &a.sums, a.max.value);
        let claimed = a.squares.get(part as usize);
        Ok((
            claimed == Some(&right),
            "the sum of squares of a part of a norm's group",
        ))
    }

    pub(super) fn norm_element(
        &self,
        at: At,
        x: &InputOpening,
        gain: &TensorOpening,
        bias: Option<&TensorOpening>,
    ) -> Step {
        let (norm, a) = self.norm(at)?;
        let claimed = self.element(at.pos, at.site, Side::Data, at.element)?;
        let h = self.norm_input(at, x, at.element..at.element + 1)?;
        let i = u64::from(at.element % norm.group);
        let one = |open, id| {
            let bytes = self.tensor(open, id, (DType::I32, 1, norm.group), i..i + 1)?;
            Ok::<i32, DisputeError>(ints_from_bytes(&bytes).first().copied().unwrap_or(0))
        };
        let gain = one(gain, norm.gain)?;
        let bias = match (norm.bias, bias) {
            (None, None) => 0,
            (Some(id), Some(open)) => one(open, id)?,
            (None, Some(_)) => return Err(DisputeError::Kind("this norm has no bias")),
            (Some(_), None) => return Err(DisputeError::Kind("a norm with a bias needs it")),
        };
        let right = norm.element(h.first().copied().unwrap_or(0), gain, bias, a);
        Ok((right.to_le_bytes() == claimed, "a norm"))
    }
}
