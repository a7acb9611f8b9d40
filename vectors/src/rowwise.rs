//! Vectors of the row-wise rules: norm, RoPE, gated units.

use bitai_kernels::{
    conformance::build::Rng,
    num::absmax,
    ops::NormParams,
    program::{Activation, RopeStyle},
    reference::{glu, norm, rope, tables},
};
use serde_json::{Value, json};

use crate::{
    File,
    arithmetic::{EDGES, row, wide},
};

pub(crate) fn files() -> Vec<File> {
    vec![norms(), ropes(), units()]
}

fn norms() -> File {
    let mut rng = Rng::new("vectors norm");
    let mut params = vec![];
    for (sum, d) in [
        (0u64, 1),
        (1, 1),
        (1, 64),
        (9_999, 576),
        (1 << 46, 1),
        (1 << 61, 32_768),
        (123_456_789_012, 30),
    ] {
        for (eps, shift) in [(0, 0), (2_684, 0), (2_684, 9), (u64::MAX, 0), (u64::MAX, 9)] {
            let n = norm::group_norm(sum, d, eps, shift);
            params.push(json!({"sum": wide(sum), "d": d, "eps": wide(eps), "shift": shift, "iv": wide(n.iv), "e": n.e}));
        }
    }
    let mut whole = vec![];
    for (h, gain_f, eps) in [
        (vec![0, 0], 21, 0),
        (vec![1], 21, 2_684),
        (EDGES.to_vec(), 20, 2_684),
        (vec![i32::MIN; 3], 20, 0),
        (row(&mut rng, 24, 60_000), 21, 2_684),
        (row(&mut rng, 5, 60_000), -128, 2_684),
        (row(&mut rng, 5, 60_000), 127, 2_684),
        (row(&mut rng, 6, 9), 21, u64::MAX),
    ] {
        let mut gain = row(&mut rng, h.len(), 1 << 22);
        gain[0] = i32::MIN;
        let mut out = vec![0; h.len()];
        let p = NormParams {
            gain: &gain,
            gain_f,
            eps,
            f_out: 16,
        };
        norm::rms_norm(p, &h, &mut out);
        let shift = norm::shift(absmax(&h).0);
        let sum = norm::sum_squares(&h, shift);
        whole.push(
            json!({"h": h, "gain": gain, "gain_f": gain_f, "eps": wide(eps), "f_out": 16, "shift": shift,
            "sum": wide(sum), "out": out}),
        );
    }
    File {
        name: "norm.json",
        about: "R1: shift of a largest magnitude, R2: sum of squares of a piece under a shift (one of its own group, and \
                others, that saturate), R3-R5: multiplier and exponent from the sum of squares, R6: one element, \
                R: whole groups with shift (R1) and sum (R2)",
        rules: vec![
            ("R1", norm_shifts()),
            ("R2", norm_sums()),
            ("R3-R5", params),
            ("R6", norm_elements()),
            ("R", whole),
        ],
    }
}

fn norm_shifts() -> Vec<Value> {
    [
        0u32,
        1,
        (1 << 22) - 1,
        (1 << 23) - 1,
        1 << 23,
        (1 << 24) - 1,
        1 << 24,
        1 << 30,
        i32::MAX as u32,
        1 << 31,
    ]
    .iter()
    .map(|max| json!({"max": max, "shift": norm::shift(*max)}))
    .collect()
}

fn norm_sums() -> Vec<Value> {
    let mut rng = Rng::new("vectors norm sums");
    let mut cases = vec![];
    for h in [
        vec![],
        vec![0, 0],
        vec![-1, 1, 2],
        EDGES.to_vec(),
        vec![i32::MIN; 9],
        row(&mut rng, 12, 60_000),
        row(&mut rng, 12, 1 << 30),
    ] {
        for shift in [0, norm::shift(absmax(&h).0), 9] {
            cases.push(json!({"h": h, "shift": shift, "sum": wide(norm::sum_squares(&h, shift))}));
        }
    }
    cases
}

fn norm_elements() -> Vec<Value> {
    let groups = [
        norm::group_norm(1 << 46, 1, 0, 0),
        norm::group_norm(123_456_789_012, 30, 2_684, 0),
        norm::group_norm(1 << 61, 32_768, 0, 9),
        norm::group_norm(0, 64, 0, 0),
    ];
    let mut cases = vec![];
    for p in &groups {
        for h in EDGES {
            for (gain, gain_f, f_out) in [
                (1 << 21, 21, 16),
                (-3_000_000, 20, 16),
                (i32::MIN, 21, 0),
                (i32::MAX, -128, 30),
                (7, 127, 16),
            ] {
                let out = norm::element(*h, gain, p, gain_f, f_out);
                cases.push(
                    json!({"h": h, "gain": gain, "shift": p.shift, "iv": wide(p.iv), "e": p.e,
                    "gain_f": gain_f, "f_out": f_out, "out": out}),
                );
            }
        }
    }
    cases
}

fn ropes() -> File {
    let mut p2 = vec![];
    for a in EDGES {
        for (b, c, s) in [
            (0, 32_767, 0),
            (1_000_000, 23_170, -23_170),
            (i32::MIN, i16::MIN, i16::MIN),
            (7, 0, 32_767),
        ] {
            let (x, y) = rope::rotate(*a, b, c, s);
            p2.push(json!({"a": a, "b": b, "cos": c, "sin": s, "out": [x, y]}));
        }
    }
    let table = [30_000, 20_000, -10_000, 5, -32_767, 32_767];
    let x = [1, -2, 300_000, 4_000_000, i32::MAX, i32::MIN];
    let heads = [RopeStyle::Interleaved, RopeStyle::Halves]
        .map(|style| {
            let mut out = [0; 6];
            rope::rope_head(&table, style, &x, &mut out);
            json!({"style": style, "table": table, "x": x, "out": out})
        })
        .to_vec();
    let mut pairs = vec![];
    for d in [2usize, 6, 64] {
        for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
            let of: Vec<(usize, usize)> = (0..d / 2).map(|i| rope::pair(i, d, style)).collect();
            pairs.push(json!({"d": d, "style": style, "pairs": of}));
        }
    }
    File {
        name: "rope.json",
        about: "P1: the two elements of every pair of a head of d, P2: one pair by a Q15 cosine and sine, \
                P: a head with its table row (cosines, then sines)",
        rules: vec![("P1", pairs), ("P2", p2), ("P", heads)],
    }
}

const ACTS: [Activation; 3] = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf];

fn units() -> File {
    let xs = [
        0,
        1,
        -1,
        2_047,
        2_048,
        65_536,
        -65_536,
        99_999,
        -131_072,
        524_287,
        524_288,
        655_360,
        655_361,
        1_048_575,
        1_048_576,
        -1_048_576,
        1 << 47,
        -(1i64 << 47),
    ];
    let mut g3 = vec![];
    let mut g4 = vec![];
    for act in ACTS {
        g3.extend(
            xs.iter()
                .map(|x| json!({"act": act, "x": wide(x), "out": glu::share(act, *x)})),
        );
        for gate in EDGES {
            for (f, up) in [(16, 65_536), (16, i32::MIN), (0, 3), (30, -123_456_789)] {
                let out = glu::element(act, f, *gate, up);
                g4.push(json!({"act": act, "f": f, "gate": gate, "up": up, "out": out}));
            }
        }
    }
    let g1 = EDGES
        .iter()
        .flat_map(|x| [0u8, 14, 16, 30].map(|f| json!({"x": x, "f": f, "out": wide(glu::argument(*x, f))})))
        .collect();
    let mut g2 = vec![];
    for (name, table, bits) in [("SIGMOID", &tables::SIGMOID, 4), ("PHI", &tables::PHI, 3)] {
        // The last entry, half a step beside entries, and both ends.
        let step = 1i64 << (7 + bits);
        let more = [
            step,
            step / 2,
            -step / 2,
            511 * step,
            512 * step - 1,
            512 * step,
            i64::MAX,
        ];
        for x in xs.iter().chain(&more) {
            let out = glu::lookup(*x, table, bits);
            g2.push(json!({"x": wide(x), "table": name, "b": bits, "out": out}));
        }
    }
    File {
        name: "units.json",
        about: "G1: the argument in Q16, G2: a table's value over [0, 2^b) in Q16, G3: the gate's share in Q16 of its \
                argument in Q16, G4: act(gate) * up in f fraction bits",
        rules: vec![("G1", g1), ("G2", g2), ("G3", g3), ("G4", g4)],
    }
}
