//! Vectors of the encoders' rules: layer norm, units without a gate, pooling.

use bitai_kernels::{
    conformance::build::Rng,
    ops::NormParams,
    program::{Activation, Pooling},
    reference::{glu, layer_norm, pool},
};
use serde_json::{Value, json};

use crate::{
    File,
    arithmetic::{EDGES, row, wide},
};

pub(crate) fn files() -> Vec<File> {
    vec![File {
        name: "encoders.json",
        about: "R7: D times an element less the sum, and the shift of a largest one, R8: sum of squares of a group and the \
                multiplier and exponent from it, R9: one element from its centred value, R: whole layer norms, \
                G5: units without a gate, O1: pooled rows",
        rules: vec![
            ("R7", centred()),
            ("R8", squares()),
            ("R9", elements()),
            ("R", whole()),
            ("G5", acts()),
            ("O1", pooled()),
        ],
    }]
}

fn groups() -> Vec<Vec<i32>> {
    let mut rng = Rng::new("vectors layer norm");
    vec![
        vec![0],
        vec![i32::MIN],
        vec![5; 7],
        vec![i32::MIN, i32::MAX],
        EDGES.to_vec(),
        row(&mut rng, 12, 60_000),
        row(&mut rng, 31, 1 << 30),
    ]
}

fn sum(h: &[i32]) -> i64 {
    h.iter().map(|v| i64::from(*v)).sum()
}

fn shift(h: &[i32]) -> i32 {
    let max = h
        .iter()
        .map(|v| layer_norm::centred(*v, h.len(), sum(h)).unsigned_abs());
    layer_norm::shift(max.max().unwrap_or(0))
}

fn centred() -> Vec<Value> {
    groups()
        .iter()
        .map(|h| {
            let z = h.iter().map(|v| wide(layer_norm::centred(*v, h.len(), sum(h))));
            json!({"h": h, "sum": wide(sum(h)), "z": z.collect::<Vec<_>>(), "shift": shift(h)})
        })
        .collect()
}

fn squares() -> Vec<Value> {
    let mut cases = vec![];
    for h in groups() {
        let own = shift(&h);
        for (shift, eps) in [(own, 0), (own, 4_295), (own, u64::MAX), (0, 1)] {
            let squares = layer_norm::sum_squares(&h, h.len(), sum(&h), shift);
            let n = layer_norm::group_norm(squares, h.len(), eps, shift);
            cases.push(json!({"h": h, "shift": shift, "eps": wide(eps), "squares": wide(squares), "iv": wide(n.iv), "e": n.e}));
        }
    }
    for (squares, d) in [(0u64, 32_768usize), (u64::MAX, 32_768), (1 << 61, 384)] {
        for eps in [0, u64::MAX] {
            let n = layer_norm::group_norm(squares, d, eps, 25);
            cases.push(json!({"d": d, "shift": 25, "eps": wide(eps), "squares": wide(squares), "iv": wide(n.iv), "e": n.e}));
        }
    }
    cases
}

fn elements() -> Vec<Value> {
    let norms = [
        layer_norm::group_norm(1 << 46, 1, 0, 0),
        layer_norm::group_norm(123_456_789_012, 30, 2_684, 7),
        layer_norm::group_norm(1 << 61, 32_768, 0, 25),
    ];
    let mut cases = vec![];
    for p in &norms {
        for z in [0, 1, -1, 1 << 23, -(1 << 23), 1 << 47, -(1i64 << 47)] {
            for (gain, bias, gain_f, f_out) in [
                (1 << 21, 0, 21, 16),
                (-3_000_000, 77_777, 20, 16),
                (i32::MIN, i32::MAX, 21, 0),
                (i32::MAX, i32::MIN, -128, 30),
            ] {
                let out = layer_norm::element(z, gain, bias, p, gain_f, f_out);
                cases.push(json!({"z": wide(z), "gain": gain, "bias": bias, "shift": p.shift, "iv": wide(p.iv), "e": p.e,
                    "gain_f": gain_f, "f_out": f_out, "out": out}));
            }
        }
    }
    cases
}

fn whole() -> Vec<Value> {
    let mut rng = Rng::new("vectors layer norm gains");
    groups()
        .iter()
        .map(|h| {
            let (gain, bias) = (row(&mut rng, h.len(), 1 << 22), row(&mut rng, h.len(), 1 << 16));
            let p = NormParams {
                gain: &gain,
                gain_f: 21,
                eps: 4_295,
                f_out: 16,
            };
            let mut out = vec![0; h.len()];
            layer_norm::layer_norm(p, &bias, h, &mut out);
            json!({"h": h, "gain": gain, "bias": bias, "gain_f": 21, "eps": wide(4_295u64), "f_out": 16, "out": out})
        })
        .collect()
}

fn acts() -> Vec<Value> {
    let mut cases = vec![];
    for act in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
        for x in EDGES {
            for f in [0, 14, 16, 30] {
                cases.push(json!({"act": act, "f": f, "x": x, "out": glu::act(act, f, *x)}));
            }
        }
    }
    cases
}

fn pooled() -> Vec<Value> {
    let mut rng = Rng::new("vectors pooling");
    let mut cases = vec![];
    for rows in [1usize, 2, 3, 4, 5, 17] {
        for size in [60_000, i64::from(i32::MAX)] {
            let x = row(&mut rng, rows * 3, size);
            for how in [Pooling::Mean, Pooling::First] {
                let mut out = vec![0; 3];
                pool::pool(how, &x, &mut out);
                cases.push(json!({"how": how, "rows": rows, "x": x, "out": out}));
            }
        }
    }
    cases
}
