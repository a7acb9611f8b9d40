//! Which inner loops run: chosen once, when the device is made.
#![allow(unsafe_code)] // calls into functions compiled for AVX2, behind the check that AVX2 is there

#[cfg(target_arch = "x86_64")]
use super::avx2;
use crate::num::Scale;

use super::{
    Isa,
    keys::{self, Scales},
    portable,
};

/// A choice of inner loops. All give the same integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Simd(Kind);

/// Private, so that `Avx2` exists only where [`Simd::of`] found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Simd {
    /// Plain Rust.
    pub(crate) const PORTABLE: Self = Self(Kind::Portable);

    /// The loops for an instruction set that this machine has.
    pub(crate) fn of(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 && std::arch::is_x86_feature_detected!("avx2") {
            return Self(Kind::Avx2);
        }
        Self::PORTABLE
    }

    /// out\[n\]\[t\] = sum of w * x over rows of one length (`x` in +-32639).
    #[inline]
    pub(super) fn tile<const N: usize, const T: usize>(self, w: [&[i8]; N], x: [&[i16]; T]) -> [[i64; T]; N] {
        match self.0 {
            Kind::Portable => portable::tile(w, x),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::tile(w, x) },
        }
    }

    /// acc\[d\] += sum over keys of p\[j\] * v\[j\]\[d\], key j's values at `rows[j * stride ..]`.
    #[inline]
    pub(super) fn weighted_rows(self, p: &[i16], rows: &[i8], stride: usize, acc: &mut [i64]) {
        match self.0 {
            Kind::Portable => portable::weighted_rows(p, rows, stride, acc),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::weighted_rows(p, rows, stride, acc) },
        }
    }

    /// A3 for every key; None where the caller must take the reference.
    #[inline]
    pub(super) fn scores(self, dots: &[i64], q: Scale, k: &Scales, c: Scale, out: &mut [i32]) -> Option<()> {
        match self.0 {
            Kind::Portable => keys::scores(dots, q, k, c, out),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::scores(dots, q, k, c, out) },
        }
    }

    /// A4's maximum over keys whose V mantissa is not zero.
    #[inline]
    pub(super) fn max_weighted(self, scores: &[i32], v: &Scales) -> Option<i64> {
        match self.0 {
            Kind::Portable => keys::max_weighted(scores, v),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::max_weighted(scores, v) },
        }
    }

    /// A5 and A6 for every key; None where the caller must take the reference.
    #[inline]
    pub(super) fn weights(
        self,
        scores: &[i32],
        max: i32,
        v: &Scales,
        r: Option<i32>,
        p_bits: u8,
        out: &mut [u32],
    ) -> Option<u64> {
        match self.0 {
            Kind::Portable => keys::weights(scores, max, v, r, p_bits, out),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::weights(scores, max, v, r, p_bits, out) },
        }
    }
}
