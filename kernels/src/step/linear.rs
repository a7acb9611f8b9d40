//! Steps of a linear: a part of its sum, the element from its parts, the bounds of its weights.

use super::{Reader, StepError, read::clamped};
use crate::reference::{
    bounds::{ROW_BOUND, RowFault, check_values, row_sum},
    linear::{GROUP, dot_segment, finish as join, requant},
};

type Out = Result<Vec<u8>, StepError>;

/// L1.
pub(super) fn part(r: &mut Reader<'_>) -> Out {
    let (planes, grouped, n) = (r.planes()?, r.flag("grouped")?, r.count()?);
    let (xs, ws) = (r.ints(planes, n)?, r.i8s(n)?);
    let mults = if grouped { r.bytes(n.div_ceil(GROUP))? } else { &[] };
    Ok(dot_segment(&xs, ws, mults).to_le_bytes().to_vec())
}

/// L2 to L5.
pub(super) fn finish(r: &mut Reader<'_>) -> Out {
    let (planes, f_out, segments) = (r.planes()?, r.u8()?, r.u8()?);
    if !matches!(segments, 1 | 2 | 4 | 8) {
        return Err(r.field("segments", segments, "1, 2, 4 or 8"));
    }
    let (a_segment, w, bias) = (r.count()?, r.scale()?, r.i32()?);
    let x_scales = (0..segments).map(|_| r.scale()).collect::<Result<Vec<_>, _>>()?;
    let sums = x_scales
        .into_iter()
        .map(|x| {
            let parts = r.i64s(a_segment)?;
            let acc = clamped(parts.iter().map(|p| i128::from(*p)).sum());
            Ok(requant(acc, planes, x, w, f_out))
        })
        .collect::<Result<Vec<i32>, _>>()?;
    Ok(join(&sums, bias).to_le_bytes().to_vec())
}

/// T2, T3.
pub(super) fn bounds(r: &mut Reader<'_>) -> Out {
    let (grouped, n) = (r.flag("grouped")?, r.u32()?);
    if !(1..=65_536).contains(&n) {
        return Err(r.field("count", n, "in 1..=65536"));
    }
    let ws = r.i8s(n as usize)?;
    let mults = if grouped {
        r.bytes((n as usize).div_ceil(GROUP))?
    } else {
        &[]
    };
    let sum = row_sum(ws, mults);
    let fault = match check_values(ws, mults) {
        Err(RowFault::Weight) => 1,
        Err(RowFault::Multiplier(_)) => 2,
        _ if sum * 128 >= ROW_BOUND => 3,
        _ => 0,
    };
    let mut out = vec![fault];
    out.extend(sum.to_le_bytes());
    Ok(out)
}
