//! Steps of the ops that go element by element: embedding, residual, gated units, RoPE, cached records.

use super::{Reader, StepError};
use crate::{
    program::Activation,
    reference::{add as sum, embed as table, glu as unit, rope as pair},
    rows::{kv_record_len, kv_record_offset},
};

type Out = Result<Vec<u8>, StepError>;

/// E1, E2.
pub(super) fn embed(r: &mut Reader<'_>) -> Out {
    let (f_out, w, mult, scale) = (r.u8()?, r.i8()?, r.u8()?, r.scale()?);
    Ok(table::element(w, mult, scale, f_out).to_le_bytes().to_vec())
}

/// D1.
pub(super) fn add(r: &mut Reader<'_>) -> Out {
    Ok(sum::element(r.i32()?, r.i32()?).to_le_bytes().to_vec())
}

/// The activation by the number that site records have (C4).
fn activation(r: &mut Reader<'_>) -> Result<Activation, StepError> {
    match r.u8()? {
        0 => Ok(Activation::Silu),
        1 => Ok(Activation::GeluTanh),
        2 => Ok(Activation::GeluErf),
        got => Err(r.field("act", got, "0, 1 or 2")),
    }
}

/// G1 to G4.
pub(super) fn glu(r: &mut Reader<'_>) -> Out {
    let (act, f, gate, up) = (activation(r)?, r.u8()?, r.i32()?, r.i32()?);
    Ok(unit::element(act, f, gate, up).to_le_bytes().to_vec())
}

/// G5.
pub(super) fn act(r: &mut Reader<'_>) -> Out {
    let (act, f, x) = (activation(r)?, r.u8()?, r.i32()?);
    Ok(unit::act(act, f, x).to_le_bytes().to_vec())
}

/// P2.
pub(super) fn rope(r: &mut Reader<'_>) -> Out {
    let (a, b, cos, sin) = (r.i32()?, r.i32()?, r.i16()?, r.i16()?);
    let (x, y) = pair::rotate(a, b, cos, sin);
    Ok([x.to_le_bytes(), y.to_le_bytes()].concat())
}

/// The bytes of a cached row that one head decides: where they start, its record, the zeros up to the next one.
pub(super) fn kv_record(r: &mut Reader<'_>) -> Out {
    let (d, heads, head) = (r.head_dim()?, r.u16()?, r.u16()?);
    if head >= heads {
        return Err(r.field("head", head, "below heads"));
    }
    let record = r.bytes(kv_record_len(d))?;
    let at = kv_record_offset(head.into(), d);
    let mut out = (at as u32).to_le_bytes().to_vec();
    out.extend(record);
    if head + 1 < heads {
        out.resize(4 + kv_record_offset(usize::from(head) + 1, d) - at, 0);
    }
    Ok(out)
}
