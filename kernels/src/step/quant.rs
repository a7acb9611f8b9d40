//! Steps of a quantisation: the magnitude of an element, a group's scale, an element.

use super::{Reader, StepError};
use crate::reference::quant::{element as quantised, group_params, wht_element, wht_shift};

type Out = Result<Vec<u8>, StepError>;

/// A transform block (0 = none) and the element of it that is meant.
fn block(r: &mut Reader<'_>) -> Result<(usize, usize), StepError> {
    let (block, index) = (r.u16()?, r.u16()?);
    if block != 0 && (!block.is_power_of_two() || !(2..=512).contains(&block)) {
        return Err(r.field("block", block, "0 or a power of two in 2..=512"));
    }
    if index >= block.max(1) {
        return Err(r.field("index", index, "inside the block"));
    }
    Ok((usize::from(block), usize::from(index)))
}

/// The value that is quantised, of a group with largest magnitude `raw_max`.
fn value(r: &mut Reader<'_>, (block, index): (usize, usize), raw_max: u32) -> Result<i32, StepError> {
    let values = r.i32s(block.max(1))?;
    Ok(if block == 0 {
        values[0]
    } else {
        wht_element(&values, index, raw_max)
    })
}

/// Q1, W1 to W3.
pub(super) fn magnitude(r: &mut Reader<'_>) -> Out {
    let (block, raw_max) = (block(r)?, r.u32()?);
    Ok(value(r, block, raw_max)?.unsigned_abs().to_le_bytes().to_vec())
}

/// Q2 to Q5.
pub(super) fn scale(r: &mut Reader<'_>) -> Out {
    let (planes, f_in, transformed) = (r.planes()?, r.u8()?, r.flag("transformed")?);
    let (raw_max, max) = (r.u32()?, r.u32()?);
    let shift = if transformed { wht_shift(raw_max) } else { 0 };
    Ok(group_params(max, planes, f_in, shift).scale.to_bytes().to_vec())
}

/// Q6.
pub(super) fn element(r: &mut Reader<'_>) -> Out {
    let (planes, block, raw_max, max) = (r.planes()?, block(r)?, r.u32()?, r.u32()?);
    let v = value(r, block, raw_max)?;
    // Fraction bits and the transform's shift are in the scale alone.
    let out = quantised(v, planes, &group_params(max, planes, 0, 0)).to_le_bytes();
    Ok(out[..usize::from(planes)].to_vec())
}
