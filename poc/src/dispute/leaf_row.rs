//! The leaves of ops that go element by element: embeddings, sums, units, rotated pairs, cached records, out rows.

use bitai_kernels::{
    DType, Op,
    program::{RopeStyle, SiteId},
    reference::{add, embed, glu, rope},
    rows::{kv_record_len, kv_record_offset},
};

use bitai_types::job::{ids_to_bytes, input_hash};

use super::{
    DisputeError, Judge,
    inner::{Side, ints_from_bytes, kv_head_at, quant_from_bytes},
    leaf::Step,
    msg::{At, CommitOpening, HeadOpening, InputOpening},
};
use crate::{
    model_root::{TensorOpening, WeightOpening},
    opening::RangeOpening,
};

/// Where an element of a rotated row finds its pair: rule P1.
pub(super) struct RopePair {
    /// From the pair's first element of the row to its second, both included.
    pub(super) elements: std::ops::Range<u32>,
    /// From the pair's cosine in a table's row to its sine, both included.
    pub(super) table: std::ops::Range<u32>,
    /// Whether the element is the pair's second.
    second: bool,
}

impl RopePair {
    /// The pair of an element, in heads of an even `head_dim`.
    pub(super) fn of(element: u32, head_dim: u32, style: RopeStyle) -> Self {
        let half = head_dim / 2;
        let (head, i) = (element / head_dim * head_dim, element % head_dim);
        let (pair, apart, second) = match style {
            RopeStyle::Interleaved => (i / 2, 1, i % 2 == 1),
            RopeStyle::Halves => (i % half, half, i >= half),
        };
        let first = if second { head + i - apart } else { head + i };
        Self {
            elements: first..first + apart + 1,
            table: pair..pair + half + 1,
            second,
        }
    }
}

/// The first and last of a list.
fn ends<T: Copy>(list: &[T]) -> Result<(T, T), DisputeError> {
    let none = DisputeError::Kind("an opening without elements");
    list.first().copied().zip(list.last().copied()).ok_or(none)
}

impl Judge {
    pub(super) fn embed(
        &self,
        at: At,
        id: Option<&RangeOpening>,
        w: &WeightOpening,
        w_scale: &TensorOpening,
    ) -> Step {
        let p = &self.program;
        self.prompt_id(at, id)?;
        let claimed = self.element(at.pos, at.site, Side::Data, at.element)?;
        let (weight, f_out, n, row, step) = match *self.op(at.site)? {
            Op::Embed { weight, f_out } => {
                let out = DisputeError::Range {
                    what: "position",
                    got: at.pos.into(),
                    count: self.positions().into(),
                };
                let id = self.input_id(at.pos).ok_or(out)?;
                (weight, f_out, p.vocab, id, "an embedding of the job's id")
            }
            Op::PosEmbed { weight, f_out } => {
                (weight, f_out, p.context, at.pos, "an embedding of the position")
            }
            _ => return Err(DisputeError::Kind("not an embedding")),
        };
        let (q, mult) = self.weights(&weight, w, (n, p.d_model), row, at.element..at.element + 1)?;
        let scale = self.weight_scale(&weight, w_scale, n, row)?;
        let right = embed::element(
            q.first().copied().unwrap_or(0),
            mult.first().copied().unwrap_or(1),
            scale,
            f_out,
        );
        Ok((right.to_le_bytes() == claimed, step))
    }

    /// The id of an embedding's position, opened, where it is one of the prompt.
    pub(super) fn open_prompt(&self, at: At) -> Result<Option<RangeOpening>, DisputeError> {
        if !self.reads_prompt(at)? {
            return Ok(None);
        }
        let start = 4 * u64::from(at.pos);
        let ids = ids_to_bytes(&self.job.input_ids);
        Ok(Some(RangeOpening::prove(&ids, start..start + 4)?))
    }

    fn reads_prompt(&self, at: At) -> Result<bool, DisputeError> {
        Ok(matches!(self.op(at.site)?, Op::Embed { .. }) && at.pos < self.header.prompt)
    }

    /// Checks the opening of the prompt's id, which is there where the position runs one.
    fn prompt_id(&self, at: At, id: Option<&RangeOpening>) -> Result<(), DisputeError> {
        match (id, self.reads_prompt(at)?) {
            (Some(range), true) => {
                let start = 4 * u64::from(at.pos);
                let total = 4 * u64::from(self.header.prompt);
                let hash = input_hash(&self.job.input_ids).0;
                range.verify("an id of the prompt", &hash, total, start..start + 4)?;
                Ok(())
            }
            (None, false) => Ok(()),
            (None, true) => Err(DisputeError::Kind("the prompt's id is not opened")),
            (Some(_), false) => Err(DisputeError::Kind("this position runs no id of the prompt")),
        }
    }

    /// One element of a sum of rows, of a gated unit or of one without a gate.
    pub(super) fn elementwise(&self, at: At, x: &InputOpening, y: Option<&InputOpening>) -> Step {
        let claimed = self.element(at.pos, at.site, Side::Data, at.element)?;
        let value = |i, open| {
            let range = at.element..at.element + 1;
            let bytes = self.input_bytes((at.pos, at.site, i), Side::Data, open, range)?;
            ends(&ints_from_bytes(&bytes)).map(|(v, _)| v)
        };
        let (right, step) = match (self.op(at.site)?, y) {
            (Op::Add, Some(y)) => (add::element(value(0, x)?, value(1, y)?), "a sum of rows"),
            (Op::Glu { act, f }, Some(y)) => {
                let right = glu::element(*act, *f, value(0, x)?, value(1, y)?);
                (right, "a gated unit")
            }
            (Op::Act { act, f }, None) => (glu::act(*act, *f, value(0, x)?), "a unit without a gate"),
            (Op::Add | Op::Glu { .. }, None) => {
                return Err(DisputeError::Kind("both inputs of this op are needed"));
            }
            (Op::Act { .. }, Some(_)) => return Err(DisputeError::Kind("this op has one input")),
            _ => return Err(DisputeError::Kind("this op does not go element by element")),
        };
        Ok((right.to_le_bytes() == claimed, step))
    }

    /// One element of a rotated pair.
    pub(super) fn rope(&self, at: At, pair: &InputOpening, table: &TensorOpening) -> Step {
        let Op::Rope {
            table: id,
            head_dim,
            style,
        } = *self.op(at.site)?
        else {
            return Err(DisputeError::Kind("not a rotary embedding"));
        };
        let claimed = self.element(at.pos, at.site, Side::Data, at.element)?;
        let place = RopePair::of(at.element, head_dim, style);
        let path = (at.pos, at.site, 0);
        let bytes = self.input_bytes(path, Side::Data, pair, place.elements)?;
        let (a, b) = ends(&ints_from_bytes(&bytes))?;
        let row = u64::from(at.pos) * u64::from(head_dim);
        let range = row + u64::from(place.table.start)..row + u64::from(place.table.end);
        let bytes = self.tensor(table, id, (DType::I16, self.program.context, head_dim), range)?;
        let (cos, sin) = ends(&quant_from_bytes(2, &bytes))?;
        let (x, y) = rope::rotate(a, b, cos, sin);
        let right = if place.second { y } else { x };
        Ok((right.to_le_bytes() == claimed, "a rotary embedding"))
    }

    /// One byte of a cached row, by the record of its head.
    pub(super) fn record(&self, at: At, k: &HeadOpening, v: &HeadOpening) -> Step {
        let Op::KvAppend { head_dim, .. } = *self.op(at.site)? else {
            return Err(DisputeError::Kind("not a cached row"));
        };
        let claimed = self.element(at.pos, at.site, Side::Data, at.element)?;
        let head = kv_head_at(at.element, head_dim);
        let mut record = Vec::with_capacity(kv_record_len(head_dim as usize));
        for (i, open) in [(0, k), (1, v)] {
            let input = self.input(at.site, i)?;
            let commit = self.opened(at.pos, input, &open.data.site)?;
            let elements = head * head_dim..(head + 1) * head_dim;
            record.extend(self.range_bytes(input, &commit, Side::Data, &open.data.range, elements)?);
            record.extend(self.range_bytes(input, &commit, Side::Scales, &open.scale, head..head + 1)?);
        }
        let start = kv_record_offset(head as usize, head_dim as usize);
        let byte = (at.element as usize).checked_sub(start);
        // Behind a record lies a gap of zeros.
        let right = byte.and_then(|i| record.get(i)).copied().unwrap_or(0);
        Ok(([right] == claimed, "a cached row"))
    }

    /// An out row is its input's.
    pub(super) fn out(&self, pos: u32, site: SiteId, input: &CommitOpening) -> Step {
        let claimed = self.commit(pos, site)?;
        if *self.op(site)? != Op::Out {
            return Err(DisputeError::Kind("not an out row"));
        }
        let right = self.opened(pos, self.input(site, 0)?, input)?;
        Ok((right == claimed, "an out row"))
    }
}
