//! The loops of [`super::lanes`], compiled once for every processor and once for AVX2.
#![allow(unsafe_code)] // calls into functions compiled for AVX2, on machines that were found to have it

use super::{Isa, lanes};
use crate::{
    num::Scale,
    ops::{NormParams, QuantParams},
    program::{Activation, RopeStyle},
};

macro_rules! compiled {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),* $(,)?);)*) => {$(
        $(#[$doc])*
        pub(super) fn $name(isa: Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            if isa >= Isa::Avx2 {
                #[target_feature(enable = "avx2")]
                fn run($($arg: $ty),*) {
                    lanes::$name($($arg),*);
                }
                // SAFETY: callers pass an instruction set that the machine was found to have, and all from
                // `Avx2` on include it.
                return unsafe { run($($arg),*) };
            }
            // Every AArch64 compiler may use NEON anyway.
            let _ = isa;
            lanes::$name($($arg),*);
        }
    )*};
}

compiled! {
    /// Every group of some rows, a scale each.
    quant_rows(p: QuantParams, x: &[i32], q: &mut [i16], scales: &mut [Scale]);
    /// Every group of some rows.
    rms_norm_rows(p: NormParams<'_>, x: &[i32], out: &mut [i32]);
    /// Every head of some rows.
    rope_rows(
        table: &[i16],
        head_dim: usize,
        style: RopeStyle,
        positions: &[u32],
        x: &[i32],
        out: &mut [i32],
    );
    /// act(gate) * up.
    glu_rows(act: Activation, f: u8, gate: &[i32], up: &[i32], out: &mut [i32]);
    /// Upper bounds of the sums of squares of groups of integers.
    rough_squares(q: &[i16], group: usize, shift: u32, squares: &mut [u64]);
    /// a + b.
    add_rows(a: &[i32], b: &[i32], out: &mut [i32]);
}
