//! Which inner loops run: chosen once, when the device is made.
#![allow(unsafe_code)] // calls into functions compiled for AVX2 or FEAT_DotProd, behind the check that it is there

#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{
    Isa,
    keys::{self, Shares},
    portable,
};

/// A choice of inner loops. All give the same integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Simd(Kind);

/// Private, so that all but `Portable` exist only where [`Simd::of`] found them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
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
        #[cfg(target_arch = "aarch64")]
        match isa {
            Isa::NeonDot if isa.is_here() => return Self(Kind::NeonDot),
            Isa::Neon if isa.is_here() => return Self(Kind::Neon),
            _ => {}
        }
        // Others have no loops of their own here.
        let _ = isa;
        Self::PORTABLE
    }

    /// acc\[d\] += sum over keys of p\[j\] * v\[j\]\[d\], key j's values at `rows[j * stride ..]`.
    #[inline]
    pub(super) fn weighted_rows(self, p: &[i16], rows: &[i8], stride: usize, acc: &mut [i64]) {
        match self.0 {
            Kind::Portable => portable::weighted_rows(p, rows, stride, acc),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::weighted_rows(p, rows, stride, acc) },
            // SAFETY: both are only made by `of`, for a machine that has NEON.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => unsafe { neon::weighted_rows(p, rows, stride, acc) },
        }
    }

    /// A2 for every key: dot products of `q` and the keys at `rows[j * stride ..]`.
    #[inline]
    pub(super) fn dots(self, q: &[i16], rows: &[i8], stride: usize, out: &mut [i32]) {
        match self.0 {
            Kind::Portable => portable::dots(q, rows, stride, out),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::dots(q, rows, stride, out) },
            // SAFETY: `Neon` is only made by `of`, for a machine that has it.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => unsafe { neon::dots(q, rows, stride, out) },
            // SAFETY: `NeonDot` is only made by `of`, after the processor said that it has FEAT_DotProd.
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => unsafe { neon::dots_dot(q, rows, stride, out) },
        }
    }

    /// [`keys::align`].
    #[inline]
    pub(super) fn align(self, dots: &mut [i32], factors: &[u32], head_dim: usize) -> i32 {
        match self.0 {
            Kind::Portable => keys::align(dots, factors, head_dim),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => keys::align(dots, factors, head_dim),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::align(dots, factors, head_dim) },
        }
    }

    /// [`keys::shares`].
    #[inline]
    pub(super) fn shares(
        self,
        s: Shares,
        aligned: &[i32],
        factors: &[u32],
        low: &mut [i16],
        high: &mut [i16],
    ) -> u64 {
        match self.0 {
            Kind::Portable => keys::shares(s, aligned, factors, low, high),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => keys::shares(s, aligned, factors, low, high),
            // SAFETY: `Avx2` is only made by `of`, after the processor said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::shares(s, aligned, factors, low, high) },
        }
    }
}
