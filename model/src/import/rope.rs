//! RoPE tables: `I16 [context, head_dim]`, cosines then sines, Q15.

use super::number::cos_sin_q15;
use crate::arch::Rope;

/// The table's canonical bytes.
pub(crate) fn table(context: u32, head_dim: u32, rope: &Rope) -> Vec<u8> {
    let half = head_dim / 2;
    let frequency: Vec<f64> = (0..half)
        .map(|i| {
            let plain = libm::pow(rope.base, -2.0 * f64::from(i) / f64::from(head_dim));
            plain / rope.factors.as_ref().map_or(1.0, |f| f[i as usize]) / rope.linear
        })
        .collect();
    let mut out = Vec::with_capacity(context as usize * head_dim as usize * 2);
    for pos in 0..context {
        let pairs: Vec<(i16, i16)> = frequency
            .iter()
            .map(|f| cos_sin_q15(f64::from(pos) * f))
            .collect();
        out.extend(pairs.iter().flat_map(|p| p.0.to_le_bytes()));
        out.extend(pairs.iter().flat_map(|p| p.1.to_le_bytes()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_one_and_zero_and_turns_by_one_radian_first() {
        let rope = |linear| Rope {
            name: "rope",
            base: 10_000.0,
            linear,
            factors: None,
        };
        let bytes = table(2, 4, &rope(1.0));
        let values: Vec<i16> = bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| i16::from_le_bytes(*b))
            .collect();
        assert_eq!(values[..4], [32767, 32767, 0, 0]);
        assert_eq!(values[4..], [17705, 32766, 27573, 328]);
        let halved = table(3, 4, &rope(2.0));
        assert_eq!(halved[16..], bytes[8..], "position 2 at half speed is position 1");
    }
}
