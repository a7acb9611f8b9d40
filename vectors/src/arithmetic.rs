//! Vectors of the arithmetic rules: numbers, quantisation, transform, linear, sums over a head, exponential,
//! embedding, residual.

use bitai_kernels::{
    Scale,
    conformance::build::Rng,
    num::{absmax, bitlen, isqrt, rsr, sat32},
    reference::{add, attention, embed, exp2, linear, quant, tables},
};
use serde_json::{Value, json};

use crate::File;

/// Scales that an honest row has, and those that only an attacker writes.
pub(crate) const SCALES: &[(u16, i16)] = &[
    (32_768, -15),
    (40_000, -27),
    (65_535, -20),
    (0, 0),
    (1, 0),
    (65_535, i16::MAX),
    (65_535, i16::MIN),
    (0, i16::MAX),
    (32_768, -40),
];

/// int32 values at the edges of every rule.
pub(crate) const EDGES: &[i32] = &[
    0,
    1,
    -1,
    127,
    128,
    -128,
    -129,
    32_639,
    -32_639,
    65_536,
    (1 << 22) - 1,
    1 << 23,
    i32::MAX,
    -i32::MAX,
    i32::MIN,
];

pub(crate) fn scale(s: (u16, i16)) -> Scale {
    Scale { m: s.0, e: s.1 }
}

pub(crate) fn pair(s: Scale) -> Value {
    json!([s.m, s.e])
}

/// A 64-bit number as the files hold it.
pub(crate) fn wide(x: impl ToString) -> Value {
    Value::from(x.to_string())
}

pub(crate) fn row(rng: &mut Rng, n: usize, size: i64) -> Vec<i32> {
    (0..n).map(|_| rng.range(-size, size) as i32).collect()
}

pub(crate) fn files() -> Vec<File> {
    vec![
        numbers(),
        quantisation(),
        linears(),
        dots(),
        exponential(),
        table_file(),
        small(),
    ]
}

fn numbers() -> File {
    let xs = [
        0,
        1,
        -1,
        2,
        -2,
        3,
        -3,
        5,
        -5,
        1 << 31,
        -(1 << 31),
        (1 << 62) - 1,
        1 << 62,
        i64::MAX,
        i64::MIN,
    ];
    let shifts = [
        -98_301, -64, -63, -62, -31, -1, 0, 1, 2, 31, 61, 62, 63, 64, 98_301,
    ];
    let n1 = xs
        .iter()
        .flat_map(|x| {
            shifts
                .iter()
                .map(move |s| json!({"x": wide(x), "s": s, "out": wide(rsr(*x, *s))}))
        })
        .collect();
    let n2 = xs
        .iter()
        .chain(&[
            i64::from(i32::MAX),
            i64::from(i32::MAX) + 1,
            -i64::from(i32::MAX) - 1,
        ])
        .map(|x| json!({"x": wide(x), "out": sat32(*x)}))
        .collect();
    let us = [0u64, 1, 2, 3, 4, 8, 255, 256, (1 << 62) - 1, 1 << 62, u64::MAX];
    let n3 = us
        .iter()
        .map(|x| json!({"x": wide(x), "out": bitlen(*x)}))
        .collect();
    let n4 = us
        .iter()
        .map(|x| json!({"x": wide(x), "out": wide(isqrt(*x))}))
        .collect();
    let n5 = [EDGES, &[3, -7, 7], &[0, 0], &[5]]
        .iter()
        .map(|v| {
            let (a, i) = absmax(v);
            json!({"v": v, "a": a, "index": i})
        })
        .collect();
    File {
        name: "numbers.json",
        about: "N1 rsr(x, s), N2 sat32, N3 bitlen, N4 isqrt, N5 absmax with the lowest index",
        rules: vec![("N1", n1), ("N2", n2), ("N3", n3), ("N4", n4), ("N5", n5)],
    }
}

fn quantisation() -> File {
    let mut rng = Rng::new("vectors quant");
    let mut rows: Vec<(Vec<i32>, usize)> = vec![
        (vec![0, 0, 0], 0),
        (vec![1, -1, 0], 0),
        (EDGES.to_vec(), 0),
        (vec![i32::MIN; 4], 4),
        (vec![i32::MAX, -i32::MAX, i32::MAX, -i32::MAX], 2),
        (row(&mut rng, 7, 90_000), 0),
        (row(&mut rng, 16, 1 << 30), 16),
        (row(&mut rng, 24, 70_000), 8),
        (vec![i32::MAX; 512], 512),
    ];
    rows.push((row(&mut rng, 64, 300), 64));
    let mut whole = vec![];
    let mut group = vec![];
    let mut transform = vec![];
    for (v, block) in &rows {
        if *block != 0 {
            let mut u = v.clone();
            let shift = quant::wht(&mut u, *block);
            transform.push(json!({"v": v, "block": block, "shift": shift, "out": u}));
        }
        for planes in [1, 2] {
            let mut q = vec![0; v.len()];
            let s = quant::quantise(v, planes, *block, 16, &mut q);
            whole.push(
                json!({"v": v, "planes": planes, "block": block, "f_in": 16, "q": q, "scale": pair(s)}),
            );
        }
    }
    for a in [
        0u32,
        1,
        2,
        127,
        128,
        255,
        32_639,
        65_535,
        65_536,
        (1 << 23) - 1,
        1 << 24,
        i32::MAX as u32,
        1 << 31,
    ] {
        for (planes, f_in, s0) in [(1, 16, 0), (2, 16, 0), (1, 0, 10), (2, 30, 3)] {
            let p = quant::group_params(a, planes, f_in, s0);
            group.push(
                json!({"a": a, "planes": planes, "f_in": f_in, "wht_shift": s0, "shift": p.shift,
                "recip": wide(p.recip), "scale": pair(p.scale)}),
            );
        }
    }
    let element = EDGES
        .iter()
        .flat_map(|v| {
            [(1, 40_000u32), (2, 40_000), (1, 1 << 31), (2, 1 << 31)].map(|(planes, a)| {
                let p = quant::group_params(a, planes, 16, 0);
                json!({"v": v, "planes": planes, "shift": p.shift, "recip": wide(p.recip),
                    "out": quant::element(*v, planes, &p)})
            })
        })
        .collect();
    let planes = [
        0i16, 1, -1, 127, 128, -127, -128, -129, 129, 255, 256, -256, 383, 384, 32_639, -32_639,
    ]
    .iter()
    .map(|x| {
        let (hi, lo) = quant::planes_of(*x);
        json!({"x": x, "hi": hi, "lo": lo})
    })
    .collect();
    File {
        name: "quantisation.json",
        about: "Q: whole groups (transform included), Q2-Q5: parameters from the largest magnitude, Q6: one element, \
                Q7: the planes of an A16 integer, W: shift and transform of a group",
        rules: vec![
            ("Q", whole),
            ("Q2-Q5", group),
            ("Q6", element),
            ("Q7", planes),
            ("W", transform),
        ],
    }
}

fn linears() -> File {
    let mut rng = Rng::new("vectors linear");
    let mut dots = vec![];
    let mut outputs = vec![];
    for (k, grouped, planes, extreme) in [
        (1, false, 1, false),
        (5, false, 2, true),
        (32, true, 1, true),
        (33, false, 1, false),
        (64, true, 2, false),
        (64, true, 2, true),
    ] {
        let top = quant::q_max(planes);
        let xs: Vec<i16> = (0..k)
            .map(|_| if extreme { rng.pick(&[top, -top, -128, -129]).max(-top) } else { rng.range(-top, top) } as i16)
            .collect();
        let ws: Vec<i8> = (0..k)
            .map(|_| {
                if extreme {
                    rng.pick(&[127i8, -127])
                } else {
                    rng.range(-127, 127) as i8
                }
            })
            .collect();
        let mults: Vec<u8> = if grouped {
            (0..k / 32).map(|_| rng.range(1, 15) as u8).collect()
        } else {
            vec![]
        };
        let acc = linear::dot_segment(&xs, &ws, &mults);
        dots.push(json!({"x": xs, "w": ws, "mult": mults, "acc": wide(acc)}));
        for (scales, w, bias) in [
            (vec![(40_000, -27)], (50_000, -30), 0),
            (vec![(40_000, -27), (65_535, i16::MAX)], (50_000, -30), -77),
            (vec![(0, 0)], (50_000, -30), 5),
            (vec![(65_535, i16::MIN)], (65_535, i16::MIN), i32::MIN),
        ] {
            if k % scales.len() != 0 || (grouped && k / scales.len() % 32 != 0) {
                continue;
            }
            let x_scales: Vec<Scale> = scales.iter().map(|s| scale(*s)).collect();
            let out = linear::output(&xs, &x_scales, planes, &ws, &mults, scale(w), bias, 16);
            outputs.push(
                json!({"x": xs, "x_scales": scales, "planes": planes, "w": ws, "mult": mults,
                "w_scale": pair(scale(w)), "bias": bias, "f_out": 16, "out": out}),
            );
        }
    }
    let accs = [
        0,
        1,
        -1,
        127 * 127 * 576,
        (1 << 31) - 1,
        -(1 << 31),
        (1 << 38) + 12_345,
        1 << 46,
        i64::MAX,
        i64::MIN,
    ];
    let requant = |planes: u8| {
        let mut cases = vec![];
        for acc in accs {
            for x in SCALES {
                for w in [(50_000, -30), (65_535, i16::MAX), (65_535, i16::MIN), (0, 7)] {
                    let out = linear::requant(acc, planes, scale(*x), scale(w), 16);
                    cases.push(json!({"acc": wide(acc), "x": x, "w": w, "f_out": 16, "out": out}));
                }
            }
        }
        cases
    };
    let finish = [
        (vec![5], -7),
        (vec![i32::MAX], i32::MAX),
        (vec![-i32::MAX, -i32::MAX], i32::MIN),
        (vec![i32::MAX; 4], 0),
        (vec![i32::MAX, -5, 1 << 28, -(1 << 28), 9, 8, i32::MIN, 0], -3),
    ]
    .iter()
    .map(|(s, bias)| json!({"segments": s, "bias": bias, "out": linear::finish(s, *bias)}))
    .collect();
    File {
        name: "linear.json",
        about: "L1: a sum (multipliers a group of 32, empty = all 1), L2 and L3: requantising with one and two planes, \
                L4: segments and bias, L: a whole output element",
        rules: vec![
            ("L1", dots),
            ("L2", requant(1)),
            ("L3", requant(2)),
            ("L4", finish),
            ("L", outputs),
        ],
    }
}

/// Sums of a query head with a key.
fn dots() -> File {
    let mut rng = Rng::new("vectors dots");
    let mut cases = vec![];
    for (d, extreme) in [(1usize, false), (4, true), (16, false), (64, true), (64, false)] {
        let mut value = || {
            if extreme {
                rng.pick(&[127i8, -127, -128])
            } else {
                rng.range(-127, 127) as i8
            }
        };
        let q: Vec<i16> = (0..d).map(|_| i16::from(value())).collect();
        let k: Vec<i8> = (0..d).map(|_| value()).collect();
        cases.push(json!({"q": q, "k": k, "dot": wide(attention::dot(&q, &k))}));
    }
    let (q, k) = (vec![-128i16; 1_024], vec![-128i8; 1_024]);
    cases.push(json!({"q": q, "k": k, "dot": wide(attention::dot(&q, &k))}));
    File {
        name: "dots.json",
        about: "A2: the sum over a head of a query's and a key's integers",
        rules: vec![("A2", cases)],
    }
}

fn exponential() -> File {
    let mut zs: Vec<u64> = (0..64).map(|i| i * 1_024 + i).collect();
    zs.extend([
        65_535,
        65_536,
        65_537,
        1 << 20,
        (31 << 16) - 1,
        31 << 16,
        (32 << 16) - 1,
        32 << 16,
        1 << 32,
        u64::MAX,
    ]);
    let x1 = zs
        .iter()
        .flat_map(|z| [16, 1, 24, 31].map(|f| (*z, f)))
        .map(|(z, f)| json!({"z": wide(z), "f": f, "out": exp2::exp2_neg(z, f)}))
        .collect();
    let pow2 = [0, 1, 65_535, 65_536, 1 << 31, 3 << 30, 0xfedc_ba98, u32::MAX]
        .map(|g: u32| json!({"g": g, "out": exp2::pow2(g)}));
    File {
        name: "exponential.json",
        about: "X1 power: 2^g in Q31, g in Q32; X1: 2^-z in Q31, z with f fraction bits",
        rules: vec![("X1 power", pow2.to_vec()), ("X1", x1)],
    }
}

fn table_file() -> File {
    File {
        name: "tables.json",
        about: "the tables of rules G and the polynomial of rule X1 (lowest degree first): these integers decide",
        rules: vec![
            ("SIGMOID", vec![json!(tables::SIGMOID.to_vec())]),
            ("PHI", vec![json!(tables::PHI.to_vec())]),
            ("EXP2", vec![json!(exp2::EXP2)]),
        ],
    }
}

fn small() -> File {
    let d1 = EDGES
        .iter()
        .flat_map(|a| {
            [1, -1, i32::MAX, i32::MIN].map(|b| json!({"a": a, "b": b, "out": add::element(*a, b)}))
        })
        .collect();
    let mut e1 = vec![];
    for w in [0i8, 1, -1, 127, -127, -128] {
        for mult in [1, 15] {
            for s in SCALES {
                let out = embed::element(w, mult, scale(*s), 14);
                e1.push(json!({"w": w, "mult": mult, "scale": s, "f_out": 14, "out": out}));
            }
        }
    }
    File {
        name: "residual.json",
        about: "D1: the residual's sum, E1: one element of an embedding",
        rules: vec![("D1", d1), ("E1", e1)],
    }
}
