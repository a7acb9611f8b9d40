//! Steps of attention: a key's unit, score, share, weight and value, and the element from the sums over keys.

use super::{Reader, StepError, read::clamped};
use crate::{
    num::Scale,
    reference::attention::{
        QueryFactor, exp, exponent, finish as element_of, key_score, pv_partial, value_factor, weight,
    },
};

type Out = Result<Vec<u8>, StepError>;

/// Most keys in one published part: 131,072 keys in 256 parts.
const KEYS_MAX: u16 = 512;

/// A3.
pub(super) fn unit(r: &mut Reader<'_>) -> Out {
    let unit = exponent(r.scale()?);
    let mut out = vec![u8::from(unit.is_some())];
    out.extend(unit.unwrap_or(0).to_le_bytes());
    Ok(out)
}

/// A query head and a key's record, as opened.
struct Key<'a> {
    score: i32,
    factor: QueryFactor,
    values: &'a [i8],
    v_scale: Scale,
}

fn key<'a>(r: &mut Reader<'a>, d: usize, c: Scale, unit: Option<i16>) -> Result<Key<'a>, StepError> {
    let q_scale = r.scale()?;
    let q = r.ints(1, d)?;
    let (k, k_scale) = (r.i8s(d)?, r.scale()?);
    let (values, v_scale) = (r.i8s(d)?, r.scale()?);
    let (score, factor) = key_score(&q, q_scale, c, k, k_scale, unit);
    Ok(Key {
        score,
        factor,
        values,
        v_scale,
    })
}

/// A2 to A4.
pub(super) fn score(r: &mut Reader<'_>) -> Out {
    let (d, c, unit) = (r.head_dim()?, r.scale()?, r.unit()?);
    Ok(key(r, d, c, unit)?.score.to_le_bytes().to_vec())
}

/// A2 to A6.
pub(super) fn share(r: &mut Reader<'_>) -> Out {
    let (d, element, p_bits) = (r.head_dim()?, r.u16()?, r.p_bits()?);
    let (c, k_unit, v_unit) = (r.scale()?, r.unit()?, r.unit()?);
    let (max, position) = (r.i32()?, r.u32()?);
    if usize::from(element) >= d {
        return Err(r.field("element", element, "below head_dim"));
    }
    let key = key(r, d, c, k_unit)?;
    let share = exp(key.score, max, key.factor);
    let weight = weight(share, value_factor(key.v_scale, v_unit, p_bits), position, p_bits);
    let mut out = share.to_le_bytes().to_vec();
    out.extend(weight.to_le_bytes());
    out.extend(key.values[usize::from(element)].to_le_bytes());
    Ok(out)
}

/// A5, A7: (share, weight, value) of keys as [`share`] puts them out, summed to (sum of P V, Z).
pub(super) fn sums(r: &mut Reader<'_>) -> Out {
    let n = r.u16()?;
    if !(1..=KEYS_MAX).contains(&n) {
        return Err(r.field("count", n, "in 1..=512"));
    }
    // 512 products below 2^39: no sum can pass 64 bits.
    let (mut acc, mut z) = (0i64, 0u64);
    for _ in 0..n {
        let (share, weight, value) = (r.u32()?, r.u32()?, r.i8()?);
        acc += pv_partial(&[weight], &[value]);
        z += u64::from(share);
    }
    let mut out = acc.to_le_bytes().to_vec();
    out.extend(z.to_le_bytes());
    Ok(out)
}

/// A8, A9.
pub(super) fn finish(r: &mut Reader<'_>) -> Out {
    let (p_bits, f_out, unit, n) = (r.p_bits()?, r.u8()?, r.unit()?, r.count()?);
    let (mut acc, mut z) = (0i128, 0u64);
    for _ in 0..n {
        acc += i128::from(r.i64()?);
        z = z.saturating_add(r.u64()?);
    }
    let out = element_of(clamped(acc), z, unit, p_bits, f_out);
    Ok(out.to_le_bytes().to_vec())
}
