//! Gated units (rules G1 to G4) over two committed tables.

use crate::{
    num::{rsr, sat32},
    program::Activation,
    reference::tables::{PHI, SIGMOID},
};

/// G1: the argument in Q16.
pub fn argument(x: i32, f: u8) -> i64 {
    rsr(i64::from(x), i32::from(f) - 16)
}

/// G2: table over [0, 2^range_bits) in 512 steps, linear between entries, `1 - f` on the other side.
/// `x` in Q16, the result in Q16.
pub fn lookup(x: i64, table: &[i32; 513], range_bits: u32) -> i64 {
    let step = 7 + range_bits;
    let a = x.unsigned_abs();
    let i = a >> step;
    let y = if i >= 512 {
        65_536
    } else {
        let i = i as usize;
        let rest = (a & ((1 << step) - 1)) as i64;
        let (lo, hi) = (i64::from(table[i]), i64::from(table[i + 1]));
        lo + rsr((hi - lo) * rest, step as i32)
    };
    if x >= 0 { y } else { 65_536 - y }
}

/// G3: the gate's share of its own argument, Q16 in [0, 65536].
pub fn share(act: Activation, x: i64) -> i64 {
    match act {
        Activation::Silu => lookup(x, &SIGMOID, 4),
        Activation::GeluErf => lookup(x, &PHI, 3),
        Activation::GeluTanh => {
            let x = x.clamp(-(10 << 16), 10 << 16);
            let square = (x * x) >> 16;
            let cubic = 65_536 + ((square * 2_930) >> 16);
            let z = (x * cubic) >> 16;
            lookup((z * 104_580) >> 16, &SIGMOID, 4)
        }
    }
}

/// G4: act(gate) * up, all in `f` fraction bits.
pub fn element(act: Activation, f: u8, gate: i32, up: i32) -> i32 {
    let bent = rsr(i64::from(gate) * share(act, argument(gate, f)), 16);
    sat32(rsr(bent * i64::from(up), i32::from(f)))
}

/// G5: act(x) in `f` fraction bits.
pub fn act(act: Activation, f: u8, x: i32) -> i32 {
    sat32(rsr(i64::from(x) * share(act, argument(x, f)), 16))
}

/// G5, element by element.
pub fn act_rows(kind: Activation, f: u8, x: &[i32], out: &mut [i32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = act(kind, f, *x);
    }
}

/// Element by element.
pub fn glu_rows(act: Activation, f: u8, gate: &[i32], up: &[i32], out: &mut [i32]) {
    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
        *o = element(act, f, *g, *u);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn real(act: Activation, x: f64) -> f64 {
        match act {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
            }
            Activation::GeluErf => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        }
    }

    #[test]
    fn bends_like_the_real_functions() {
        for act in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
            for x in (-20 << 16..20 << 16).step_by(997) {
                let want = real(act, f64::from(x) / 65536.0);
                let got = f64::from(element(act, 16, x, 1 << 16)) / 65536.0;
                assert_eq!(super::act(act, 16, x), element(act, 16, x, 1 << 16));
                // Linear interpolation between 512 entries of 16 bits.
                assert!(
                    (want - got).abs() < 2e-4 * (1.0 + want.abs()),
                    "{act:?} {x}: {want} {got}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn is_total(gate: i32, up: i32, f: u8) {
            for act in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
                element(act, f, gate, up);
                super::act(act, f, gate);
                prop_assert!((0..=65_536).contains(&share(act, argument(gate, f))));
            }
        }
    }

    #[test]
    fn tables_are_the_rounded_functions() {
        for i in 0..=512usize {
            let s = 65536.0 / (1.0 + (-(i as f64) / 32.0).exp());
            let p = 65536.0 * 0.5 * (1.0 + libm::erf(i as f64 / 64.0 / std::f64::consts::SQRT_2));
            assert!((f64::from(SIGMOID[i]) - s).abs() <= 0.500_001, "{i}");
            assert!((f64::from(PHI[i]) - p).abs() <= 0.500_001, "{i}");
        }
    }
}
