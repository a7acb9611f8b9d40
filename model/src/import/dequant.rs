//! Blocks of GGUF's formats to floats: plain scalar code, one multiplication and at most one addition of f32
//! an element, in the order that ggml defines. Nothing here asks what the processor can do, so the same
//! bytes give the same floats on every machine.
//!
//! The formats are ggml's (`ggml-common.h`): little-endian blocks of 32 elements, or of 256 for the K kinds,
//! whose sub-blocks have small integer scales of their own.

/// Elements of a K block.
const K: usize = 256;

/// Turns whole blocks of one format into floats; the second slice holds exactly their elements.
type Decoder = fn(&[u8], &mut [f32]);

/// A format of weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    /// ggml's number.
    pub(super) id: u32,
    /// ggml's name.
    pub(super) name: &'static str,
    /// Elements a block.
    pub(super) block: usize,
    /// Bytes a block.
    pub(super) bytes: usize,
    /// Blocks to floats.
    pub(super) decode: Decoder,
}

const fn format(id: u32, name: &'static str, block: usize, bytes: usize, decode: Decoder) -> Format {
    Format {
        id,
        name,
        block,
        bytes,
        decode,
    }
}

/// The formats that hold weights. (ggml's Q8_1 and Q8_K are for activations.)
pub(super) const FORMATS: [Format; 13] = [
    format(0, "F32", 1, 4, f32s),
    format(1, "F16", 1, 2, f16s),
    format(2, "Q4_0", 32, 18, |raw, out| blocks(raw, out, q4_0)),
    format(3, "Q4_1", 32, 20, |raw, out| blocks(raw, out, q4_1)),
    format(6, "Q5_0", 32, 22, |raw, out| blocks(raw, out, q5_0)),
    format(7, "Q5_1", 32, 24, |raw, out| blocks(raw, out, q5_1)),
    format(8, "Q8_0", 32, 34, |raw, out| blocks(raw, out, q8_0)),
    format(10, "Q2_K", K, 84, |raw, out| blocks(raw, out, q2_k)),
    format(11, "Q3_K", K, 110, |raw, out| blocks(raw, out, q3_k)),
    format(12, "Q4_K", K, 144, |raw, out| blocks(raw, out, q4_k)),
    format(13, "Q5_K", K, 176, |raw, out| blocks(raw, out, q5_k)),
    format(14, "Q6_K", K, 210, |raw, out| blocks(raw, out, q6_k)),
    format(30, "BF16", 1, 2, bf16s),
];

fn blocks<const BYTES: usize, const N: usize>(
    raw: &[u8],
    out: &mut [f32],
    one: fn(&[u8; BYTES], &mut [f32; N]),
) {
    for (block, out) in raw.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        one(block, out);
    }
}

/// An IEEE 754 half as a float: every half is one exactly.
fn half(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, exponent, fraction) = ((bits & 0x8000) << 16, bits >> 10 & 31, bits & 1023);
    match exponent {
        // Zero and subnormals: a whole number of 2^-24.
        0 => {
            let size = fraction as f32 * f32::from_bits((127 - 24) << 23);
            f32::from_bits(size.to_bits() | sign)
        }
        31 => f32::from_bits(sign | 0xff << 23 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13),
    }
}

fn f32s(raw: &[u8], out: &mut [f32]) {
    for (b, o) in raw.as_chunks().0.iter().zip(out) {
        *o = f32::from_le_bytes(*b);
    }
}

fn f16s(raw: &[u8], out: &mut [f32]) {
    for (b, o) in raw.as_chunks().0.iter().zip(out) {
        *o = half(*b);
    }
}

fn bf16s(raw: &[u8], out: &mut [f32]) {
    for (b, o) in raw.as_chunks().0.iter().zip(out) {
        *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    }
}

/// The 4-bit number of element `i` of 32: the low halves of the 16 bytes come first.
fn nibble(qs: &[u8], i: usize) -> u8 {
    if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 }
}

fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = half([b[0], b[1]]);
    for (i, o) in out.iter_mut().enumerate() {
        *o = (f32::from(nibble(&b[2..], i)) - 8.0) * d;
    }
}

fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, min) = (half([b[0], b[1]]), half([b[2], b[3]]));
    for (i, o) in out.iter_mut().enumerate() {
        *o = f32::from(nibble(&b[4..], i)) * d + min;
    }
}

/// The 5-bit number of element `i` of 32: its fifth bit is bit `i` of the word before the nibbles.
fn five(high: [u8; 4], qs: &[u8], i: usize) -> u8 {
    nibble(qs, i) | ((u32::from_le_bytes(high) >> i & 1) << 4) as u8
}

fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let d = half([b[0], b[1]]);
    for (i, o) in out.iter_mut().enumerate() {
        *o = (f32::from(five([b[2], b[3], b[4], b[5]], &b[6..], i)) - 16.0) * d;
    }
}

fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, min) = (half([b[0], b[1]]), half([b[2], b[3]]));
    for (i, o) in out.iter_mut().enumerate() {
        *o = f32::from(five([b[4], b[5], b[6], b[7]], &b[8..], i)) * d + min;
    }
}

fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = half([b[0], b[1]]);
    for (q, o) in b[2..].iter().zip(out) {
        *o = f32::from(q.cast_signed()) * d;
    }
}

/// Where element `e` of a K block lies in formats that pack four 2-bit numbers a byte: (byte, shift). Each
/// half of 128 elements has 32 bytes; its four quarters take two bits of each in turn.
fn quarter(e: usize) -> (usize, usize) {
    (e / 128 * 32 + e % 32, e % 128 / 32 * 2)
}

/// 16 scale bytes (scale low, minimum high), 64 bytes of 2-bit numbers, d, dmin.
fn q2_k(b: &[u8; 84], out: &mut [f32; K]) {
    let (d, dmin) = (half([b[80], b[81]]), half([b[82], b[83]]));
    for (e, o) in out.iter_mut().enumerate() {
        let scale = b[e / 16];
        let (byte, shift) = quarter(e);
        let q = b[16 + byte] >> shift & 3;
        *o = d * f32::from(scale & 15) * f32::from(q) - dmin * f32::from(scale >> 4);
    }
}

/// 32 bytes of third bits, 64 of the lower two, 12 of 6-bit scales, d.
fn q3_k(b: &[u8; 110], out: &mut [f32; K]) {
    let d = half([b[108], b[109]]);
    let scales = &b[96..108];
    for (e, o) in out.iter_mut().enumerate() {
        let s = e / 16;
        // The low four bits of scales 0 to 7, then 8 to 15, share 8 bytes; the high two share the last 4.
        let low = if s < 8 { scales[s] & 15 } else { scales[s - 8] >> 4 };
        let high = scales[8 + s % 4] >> (s / 4 * 2) & 3;
        let scale = f32::from(low | high << 4) - 32.0;
        let (byte, shift) = quarter(e);
        let third = b[e % 32] >> (e / 32) & 1;
        let q = f32::from(b[32 + byte] >> shift & 3 | third << 2) - 4.0;
        *o = d * scale * q;
    }
}

/// Scale and minimum of sub-block `s` of 8, 6 bits each in 12 bytes.
fn six(scales: &[u8], s: usize) -> (f32, f32) {
    let (scale, min) = if s < 4 {
        (scales[s] & 63, scales[s + 4] & 63)
    } else {
        (
            scales[s + 4] & 15 | scales[s - 4] >> 6 << 4,
            scales[s + 4] >> 4 | scales[s] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(min))
}

/// The nibble of element `e` of a K block: each 32 bytes hold 64 elements, the low halves first.
fn k_nibble(qs: &[u8], e: usize) -> u8 {
    qs[e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15
}

/// d, dmin, 12 bytes of scales, 128 of nibbles.
fn q4_k(b: &[u8; 144], out: &mut [f32; K]) {
    let (d, dmin) = (half([b[0], b[1]]), half([b[2], b[3]]));
    for (e, o) in out.iter_mut().enumerate() {
        let (scale, min) = six(&b[4..16], e / 32);
        *o = d * scale * f32::from(k_nibble(&b[16..], e)) - dmin * min;
    }
}

/// d, dmin, 12 bytes of scales, 32 of fifth bits, 128 of nibbles.
fn q5_k(b: &[u8; 176], out: &mut [f32; K]) {
    let (d, dmin) = (half([b[0], b[1]]), half([b[2], b[3]]));
    for (e, o) in out.iter_mut().enumerate() {
        let (scale, min) = six(&b[4..16], e / 32);
        let fifth = b[16 + e % 32] >> (e / 32) & 1;
        let q = k_nibble(&b[48..], e) | fifth << 4;
        *o = d * scale * f32::from(q) - dmin * min;
    }
}

/// 128 bytes of low nibbles, 64 of the upper two bits, 16 signed scales, d.
fn q6_k(b: &[u8; 210], out: &mut [f32; K]) {
    let d = half([b[208], b[209]]);
    for (e, o) in out.iter_mut().enumerate() {
        let scale = f32::from(b[192 + e / 16].cast_signed());
        let (part, quarter_of) = (e % 128, e % 128 / 32);
        let low = b[e / 128 * 64 + part % 64] >> (quarter_of / 2 * 4) & 15;
        let high = b[128 + e / 128 * 32 + e % 32] >> (quarter_of * 2) & 3;
        *o = d * scale * (f32::from(low | high << 4) - 32.0);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::{
        Device,
        quantized::{GgmlDType, ggml_file::qtensor_from_ggml},
    };
    use proptest::prelude::*;

    use super::*;

    /// candle's floats, made with whatever the processor offers.
    pub(in crate::import) fn candle(format: &Format, raw: &[u8]) -> Vec<f32> {
        let dtype = match format.name {
            "F32" => GgmlDType::F32,
            "F16" => GgmlDType::F16,
            "BF16" => GgmlDType::BF16,
            "Q4_0" => GgmlDType::Q4_0,
            "Q4_1" => GgmlDType::Q4_1,
            "Q5_0" => GgmlDType::Q5_0,
            "Q5_1" => GgmlDType::Q5_1,
            "Q8_0" => GgmlDType::Q8_0,
            "Q2_K" => GgmlDType::Q2K,
            "Q3_K" => GgmlDType::Q3K,
            "Q4_K" => GgmlDType::Q4K,
            "Q5_K" => GgmlDType::Q5K,
            "Q6_K" => GgmlDType::Q6K,
            other => panic!("{other} is no format of candle's"),
        };
        assert_eq!(
            (dtype.block_size(), dtype.type_size()),
            (format.block, format.bytes)
        );
        let n = raw.len() / format.bytes * format.block;
        qtensor_from_ggml(dtype, raw, vec![1, n], &Device::Cpu)
            .and_then(|q| q.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>())
            .unwrap()
    }

    fn ours(format: &Format, raw: &[u8]) -> Vec<f32> {
        let mut out = vec![0.0; raw.len() / format.bytes * format.block];
        (format.decode)(raw, &mut out);
        out
    }

    #[test]
    fn every_half_is_what_the_definition_says() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            let size = match exponent {
                0 => fraction * 2f64.powi(-24),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                e => (1024.0 + fraction) * 2f64.powi(e - 25),
            };
            let want = if bits >> 15 == 1 { -size } else { size };
            let got = f64::from(half(bits.to_le_bytes()));
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "{bits:04x}: {got} {want}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any bytes at all, NaN scales included: the same bits, or NaN on both sides.
        #[test]
        fn every_format_gives_candles_bits(noise in prop::collection::vec(any::<u8>(), 210 * 3)) {
            for format in &FORMATS {
                let raw = &noise[..noise.len() / format.bytes * format.bytes];
                let (a, b) = (ours(format, raw), candle(format, raw));
                prop_assert_eq!(a.len(), b.len());
                for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                    prop_assert!(
                        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
                        "{}: element {}: {} {}", format.name, i, a, b
                    );
                }
            }
        }
    }
}
