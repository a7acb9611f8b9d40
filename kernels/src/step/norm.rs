//! Steps of the norms and of pooling: sums of a part, and one element from them.

use super::{Reader, StepError};
use crate::reference::{layer_norm as layer, norm, pool};

type Out = Result<Vec<u8>, StepError>;

/// R1, R2.
pub(super) fn squares(r: &mut Reader<'_>) -> Out {
    let (max, n) = (r.u32()?, r.count()?);
    let sum = norm::sum_squares(&r.i32s(n)?, norm::shift(max));
    Ok(sum.to_le_bytes().to_vec())
}

/// Published sums of squares together.
fn squares_of(r: &mut Reader<'_>, n: usize) -> Result<u64, StepError> {
    let parts = r.list(n, u64::from_le_bytes)?;
    Ok(parts.into_iter().fold(0, u64::saturating_add))
}

/// R3 to R6.
pub(super) fn element(r: &mut Reader<'_>) -> Out {
    let (d, eps, gain_f, f_out) = (r.group()?, r.u64()?, r.i8()?, r.u8()?);
    let (max, n, h, gain) = (r.u32()?, r.count()?, r.i32()?, r.i32()?);
    let p = norm::group_norm(squares_of(r, n)?, d, eps, norm::shift(max));
    Ok(norm::element(h, gain, &p, gain_f, f_out).to_le_bytes().to_vec())
}

/// R7, O1.
pub(super) fn sum(r: &mut Reader<'_>) -> Out {
    let n = r.count()?;
    let sum: i64 = r.i32s(n)?.into_iter().map(i64::from).sum();
    Ok(sum.to_le_bytes().to_vec())
}

/// R7.
pub(super) fn centred(r: &mut Reader<'_>) -> Out {
    let (d, sum, h) = (r.group()?, r.i64()?, r.i32()?);
    Ok(layer::centred(h, d, sum).unsigned_abs().to_le_bytes().to_vec())
}

/// R8.
pub(super) fn centred_squares(r: &mut Reader<'_>) -> Out {
    let (d, sum, max, n) = (r.group()?, r.i64()?, r.u64()?, r.count()?);
    let squares = layer::sum_squares(&r.i32s(n)?, d, sum, layer::shift(max));
    Ok(squares.to_le_bytes().to_vec())
}

/// R8, R9.
pub(super) fn layer_element(r: &mut Reader<'_>) -> Out {
    let (d, eps, gain_f, f_out) = (r.group()?, r.u64()?, r.i8()?, r.u8()?);
    let (sum, max, n) = (r.i64()?, r.u64()?, r.count()?);
    let (h, gain, bias) = (r.i32()?, r.i32()?, r.i32()?);
    let p = layer::group_norm(squares_of(r, n)?, d, eps, layer::shift(max));
    let z = layer::centred(h, d, sum);
    Ok(layer::element(z, gain, bias, &p, gain_f, f_out)
        .to_le_bytes()
        .to_vec())
}

/// O1.
pub(super) fn pool_mean(r: &mut Reader<'_>) -> Out {
    let (rows, sum) = (r.u32()?, r.i64()?);
    if rows == 0 {
        return Err(r.field("rows", rows, "1 or more"));
    }
    Ok(pool::mean(sum, rows as usize).to_le_bytes().to_vec())
}
