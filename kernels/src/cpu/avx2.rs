//! AVX2 inner loops: dot products of int8 weights or cache rows with 16-bit rows, exact in int32 blocks.
//!
//! The only `unsafe` here is reading and reinterpreting whole vectors: each read is inside a slice whose
//! length the same function has checked. The functions are safe to call where AVX2 is known to be there, which
//! [`super::simd::Simd`] proves before it calls them.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers; written with iterators, the same arrays went through
// memory and the loops ran at a quarter of the speed.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi64, _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_unpackhi_epi64,
    _mm256_add_epi32, _mm256_add_epi64, _mm256_and_si256, _mm256_blend_epi32, _mm256_castsi256_si128,
    _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_madd_epi16, _mm256_mul_epi32,
    _mm256_mul_epu32, _mm256_packus_epi32, _mm256_permute2x128_si256, _mm256_permute4x64_epi64,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_sll_epi32, _mm256_srl_epi32,
    _mm256_srli_epi32, _mm256_srli_epi64, _mm256_srlv_epi32, _mm256_sub_epi32, _mm256_unpackhi_epi16,
    _mm256_unpacklo_epi16, _mm256_xor_si256,
};
use std::mem::transmute;

use crate::reference::exp2::EXP2;

use super::{
    bounds::KEY_BLOCK,
    keys::{self, PLANE_BITS, Shares},
};

/// Elements a step: one load of int8 widened to int16.
const STEP: usize = 16;

/// 16 int8 at `row + at` as int16 lanes.
///
/// A whole array is read and reinterpreted, where `_mm_loadu_si128` would drag its debug checks into the
/// innermost loop of the profile that tests and the devnet run.
///
/// # Safety
/// `row[at .. at + 16]` is readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_i8(row: *const i8, at: usize) -> __m256i {
    // SAFETY: the caller's promise; an array of bytes needs no alignment, and any bits are a vector.
    _mm256_cvtepi8_epi16(unsafe { transmute::<[u8; 16], __m128i>(*row.wrapping_add(at).cast::<[u8; 16]>()) })
}

/// 16 int16 at `row + at`.
///
/// # Safety
/// `row[at .. at + 16]` is readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_i16(row: *const i16, at: usize) -> __m256i {
    // SAFETY: the caller's promise; an array of bytes needs no alignment, and any bits are a vector.
    unsafe { transmute::<[u8; 32], __m256i>(*row.wrapping_add(at).cast::<[u8; 32]>()) }
}

/// Sum of the four int64 lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_i64(v: __m256i) -> i64 {
    let two = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)))
}

/// acc\[d\] += sum over keys of p\[j\] * v\[j\]\[d\], key j's acc.len() values at `rows[j * stride ..]`.
///
/// Two keys a step: their int8 values interleave as int16 pairs, and one multiply-add serves both.
#[target_feature(enable = "avx2")]
pub(super) fn weighted_rows(p: &[i16], rows: &[i8], stride: usize, acc: &mut [i64]) {
    /// Vectors a tile: eight registers of sums, a whole head of the usual 64 elements.
    const TILE: usize = 4;
    let full = acc.len() / STEP;
    for first in (0..p.len()).step_by(KEY_BLOCK) {
        let p = &p[first..p.len().min(first + KEY_BLOCK)];
        let rows = &rows[first * stride..];
        let tiles = full - full % TILE;
        for at in (0..tiles).step_by(TILE) {
            let sums = pairs::<TILE>(p, &rows[at * STEP..], stride);
            add_pairs(sums, &mut acc[at * STEP..]);
        }
        for at in tiles..full {
            let sums = pairs::<1>(p, &rows[at * STEP..], stride);
            add_pairs(sums, &mut acc[at * STEP..]);
        }
    }
    let done = full * STEP;
    if done < acc.len() {
        super::portable::weighted_rows(p, &rows[done.min(rows.len())..], stride, &mut acc[done..]);
    }
}

/// Adds the sums of [`pairs`] to the elements that they belong to.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pairs<const W: usize>(sums: [[__m256i; 2]; W], acc: &mut [i64]) {
    for ([even, odd], acc) in sums.into_iter().zip(acc.as_chunks_mut::<STEP>().0) {
        // unpack works inside 128-bit halves: put elements 0..8 and 8..16 back together.
        let halves = [
            _mm256_permute2x128_si256::<0x20>(even, odd),
            _mm256_permute2x128_si256::<0x31>(even, odd),
        ];
        for (half, acc) in halves.into_iter().zip(acc.as_chunks_mut::<8>().0) {
            // SAFETY: eight int32 are any 32 bytes.
            let lanes = unsafe { transmute::<__m256i, [i32; 8]>(half) };
            for (sum, lane) in acc.iter_mut().zip(lanes) {
                *sum += i64::from(lane);
            }
        }
    }
}

/// Int32 sums of p\[j\] * v\[j\]\[d\] for the first 16 * `W` elements of the rows; lanes in the order of unpack.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs<const W: usize>(p: &[i16], rows: &[i8], stride: usize) -> [[__m256i; 2]; W] {
    let last_row = p.len().saturating_sub(1) * stride;
    assert!(p.is_empty() || rows.len() >= last_row + W * STEP, "a row a key");
    let mut sums = [[_mm256_setzero_si256(); 2]; W];
    let (whole, rest) = p.as_chunks::<2>();
    let mut at = 0usize;
    for [p0, p1] in whole {
        let by = _mm256_set1_epi32(i32::from(*p1) << 16 | i32::from(p0.cast_unsigned()));
        let next = at.wrapping_add(stride);
        for i in 0..W {
            // SAFETY: next <= last_row and 16 * i + 16 <= 16 * W, so both reads end within `rows`, as asserted.
            let (a, b) = unsafe {
                let base = rows.as_ptr();
                (
                    load_i8(base, at.wrapping_add(i * STEP)),
                    load_i8(base, next.wrapping_add(i * STEP)),
                )
            };
            sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), by));
            sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), by));
        }
        at = next.wrapping_add(stride);
    }
    if let [p0] = rest {
        // The last of an odd number: its neighbour is itself with weight 0.
        let by = _mm256_set1_epi32(i32::from(p0.cast_unsigned()));
        for i in 0..W {
            // SAFETY: `last_row` + 16 * W is within `rows`, as asserted.
            let a = unsafe { load_i8(rows.as_ptr(), last_row + i * STEP) };
            sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, a), by));
            sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, a), by));
        }
    }
    sums
}

/// Dot products of `q` and the keys at `rows[j * stride ..]`, one for each of `out`. Heads are at most 1,024 long, so
/// a sum fits int32.
#[target_feature(enable = "avx2")]
pub(super) fn dots(q: &[i16], rows: &[i8], stride: usize, out: &mut [i32]) {
    /// Keys a step: one vector of int32 sums.
    const KEYS: usize = 8;
    let (k, keys) = (q.len(), out.len());
    assert!(
        keys == 0 || rows.len() >= (keys - 1) * stride + k,
        "a row a key, each as long as the query"
    );
    let full = k - k % STEP;
    let mut first = 0usize;
    for out in out.as_chunks_mut::<KEYS>().0 {
        let mut acc = [_mm256_setzero_si256(); KEYS];
        let mut i = 0usize;
        while i < full {
            // SAFETY: i + 16 <= full <= q's length.
            let x = unsafe { load_i16(q.as_ptr(), i) };
            for j in 0..KEYS {
                let at = first.wrapping_add(j.wrapping_mul(stride)).wrapping_add(i);
                // SAFETY: the key's k elements are within `rows`, as asserted, and i + 16 <= k.
                let w = unsafe { load_i8(rows.as_ptr(), at) };
                acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(w, x));
            }
            i = i.wrapping_add(STEP);
        }
        // SAFETY: eight int32 are any 32 bytes.
        *out = unsafe { transmute::<__m256i, [i32; KEYS]>(sum_each(acc)) };
        if full < k {
            for (j, sum) in out.iter_mut().enumerate() {
                let at = first + j * stride;
                *sum += super::portable::dot_i32(&rows[at + full..at + k], &q[full..]);
            }
        }
        first = first.wrapping_add(KEYS.wrapping_mul(stride));
    }
    let done = keys - keys % KEYS;
    super::portable::dots(q, rows.get(first..).unwrap_or(&[]), stride, &mut out[done..]);
}

/// The sums of the lanes of eight vectors, in one.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_each(v: [__m256i; 8]) -> __m256i {
    let [a, b, c, d, e, f, g, h] = v;
    let abcd = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let efgh = _mm256_hadd_epi32(_mm256_hadd_epi32(e, f), _mm256_hadd_epi32(g, h));
    // Each holds the sums of the lower halves, then of the upper halves.
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(abcd, efgh),
        _mm256_permute2x128_si256::<0x31>(abcd, efgh),
    )
}

/// [`keys::align`] compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(super) fn align(dots: &mut [i32], factors: &[u32], head_dim: usize) -> i32 {
    keys::align(dots, factors, head_dim)
}

/// floor(a * b / 2^32) of unsigned lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn high(a: __m256i, b: __m256i) -> __m256i {
    // Products of the even lanes, then of the odd ones, whose high words lie where they belong.
    let even = _mm256_srli_epi64::<32>(_mm256_mul_epu32(a, b));
    let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
    _mm256_blend_epi32::<0b1010_1010>(even, odd)
}

/// The same of signed lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn high_signed(a: __m256i, b: __m256i) -> __m256i {
    let even = _mm256_srli_epi64::<32>(_mm256_mul_epi32(a, b));
    let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
    _mm256_blend_epi32::<0b1010_1010>(even, odd)
}

/// Eight 32-bit lanes, each below 2^15, as int16.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow(v: __m256i) -> [i16; 8] {
    let pairs = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(v, v));
    // SAFETY: eight int16 are any 16 bytes.
    unsafe { transmute::<__m128i, [i16; 8]>(_mm256_castsi256_si128(pairs)) }
}

/// [`keys::shares`], eight keys a step.
#[target_feature(enable = "avx2")]
pub(super) fn shares(
    s: Shares,
    aligned: &[i32],
    factors: &[u32],
    low_plane: &mut [i16],
    high_plane: &mut [i16],
) -> u64 {
    const KEYS: usize = 8;
    let all = aligned.len();
    let (aligned, y_rest) = aligned.as_chunks::<KEYS>();
    let done = all - y_rest.len();
    let wide = !high_plane.is_empty();
    let minus_c = _mm256_set1_epi32(s.q.c.wrapping_neg());
    let least = high_signed(_mm256_set1_epi32(s.max), minus_c);
    // z' of X1 is -x less the smallest -x, plus 2^f - 1.
    let almost_one = _mm256_set1_epi32((1u32 << s.q.f).wrapping_sub(1).cast_signed());
    let offset = _mm256_sub_epi32(almost_one, least);
    let f = _mm_cvtsi32_si128(s.q.f.cast_signed());
    let up = _mm_cvtsi32_si128(32 - s.q.f.cast_signed());
    let [c0, c1, c2, c3, c4] = EXP2.map(|c| _mm256_set1_epi32(c.cast_signed()));
    let ones = _mm256_set1_epi32(-1);
    let even = _mm256_set1_epi64x(0xffff_ffff);
    let plane = _mm256_set1_epi32((1 << PLANE_BITS) - 1);
    let mut z = _mm256_setzero_si256();
    let steps = aligned
        .iter()
        .zip(factors.as_chunks::<KEYS>().0)
        .zip(low_plane.as_chunks_mut::<KEYS>().0);
    for (i, ((y, v), low)) in steps.enumerate() {
        let first = i.wrapping_mul(KEYS);
        let d = keys::dithers(s.first.wrapping_add(first));
        // SAFETY: eight 32-bit numbers are any 32 bytes.
        let (y, v, d) = unsafe {
            (
                transmute::<[i32; KEYS], __m256i>(*y),
                transmute::<[u32; KEYS], __m256i>(*v),
                transmute::<[u32; KEYS], __m256i>(*d),
            )
        };
        let over = _mm256_add_epi32(high_signed(y, minus_c), offset);
        let g = _mm256_sll_epi32(_mm256_xor_si256(over, ones), up);
        let p = _mm256_add_epi32(high(c4, g), c3);
        let p = _mm256_add_epi32(high(p, g), c2);
        let p = _mm256_add_epi32(high(p, g), c1);
        let p = _mm256_add_epi32(high(p, g), c0);
        let e = _mm256_srlv_epi32(p, _mm256_srl_epi32(over, f));
        z = _mm256_add_epi64(z, _mm256_and_si256(e, even));
        z = _mm256_add_epi64(z, _mm256_srli_epi64::<32>(e));
        let w = _mm256_srli_epi32::<8>(_mm256_add_epi32(high(e, v), d));
        *low = narrow(_mm256_and_si256(w, plane));
        if wide {
            high_plane[first..first + KEYS]
                .copy_from_slice(&narrow(_mm256_srli_epi32::<{ PLANE_BITS as i32 }>(w)));
        }
    }
    let rest = Shares {
        first: s.first + done,
        ..s
    };
    let high_rest = if wide { &mut high_plane[done..] } else { high_plane };
    let z = sum_i64(z).cast_unsigned();
    z + keys::shares(rest, y_rest, &factors[done..], &mut low_plane[done..], high_rest)
}
