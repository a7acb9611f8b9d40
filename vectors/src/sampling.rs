//! Vectors of sampling: each step of the draw, and whole rows.

use bitai_kernels::{Sampler, conformance::build::Rng, reference::sample as s};
use serde_json::json;

use crate::{
    File,
    arithmetic::{row, wide},
};

pub(crate) fn files() -> Vec<File> {
    let mut rng = Rng::new("vectors sampling");
    let s1 = [
        vec![1, 5, 5, 2],
        vec![i32::MIN; 3],
        vec![-3, -1, i32::MAX, i32::MAX],
    ]
    .iter()
    .map(|l| json!({"logits": l, "out": s::greedy(l)}))
    .collect();
    let temperatures = [1, 32_768, 52_429, 65_536, 1 << 20, u32::MAX];
    let s2 = temperatures
        .iter()
        .map(|t| json!({"temperature_q16": t, "out": wide(s::inverse_temperature(*t))}))
        .collect();
    let mut s3 = vec![];
    for t in temperatures {
        let c = s::inverse_temperature(t);
        for (logit, max) in [
            (0, 0),
            (0, 1),
            (0, 45_426),
            (-65_536, 65_536),
            (-i32::MAX, i32::MAX),
            (5, -5),
        ] {
            for f in [0, 16, 30] {
                let p = s::probability(logit, max, c, f);
                s3.push(json!({"logit": logit, "max": max, "c": wide(c), "f": f, "out": p}));
            }
        }
    }
    let probs: [&[u32]; 3] = [&[10, 40, 30, 20], &[9, 7, 9, 9, 0, 7], &[0, 5, 0]];
    let mut s5 = vec![];
    for p in probs {
        for (top_k, top_p) in [
            (0, 65_536),
            (1, 65_536),
            (2, 65_536),
            (3, 30_000),
            (0, 0),
            (0, 45_000),
            (99, u32::MAX),
        ] {
            let t = s::threshold(p, top_k, top_p);
            s5.push(
                json!({"p": p, "top_k": top_k, "top_p_q16": top_p, "threshold": [t.p, t.id],
                "mass": wide(s::kept_mass(p, 0, t))}),
            );
        }
    }
    let mut s6 = vec![];
    for (seed, pos) in [
        (0u64, 0),
        (1, 0),
        (0, 1),
        (u64::MAX, u32::MAX),
        (0x0123_4567_89ab_cdef, 77),
    ] {
        let u = s::draw(seed, pos);
        let points: Vec<_> = [1u64, 2_147_483_530, (1 << 51) + 3]
            .iter()
            .map(|mass| json!({"mass": wide(mass), "r": wide(s::point(u, *mass))}))
            .collect();
        s6.push(json!({"seed": wide(seed), "pos": pos, "u": wide(u), "points": points}));
    }
    let t = s::threshold(&[10, 40, 30, 20], 3, 65_536);
    let s7 = [0u64, 39, 40, 69, 70, 89]
        .iter()
        .map(|r| {
            json!({"p": [10, 40, 30, 20], "threshold": [t.p, t.id], "r": wide(r),
                "out": s::holder(&[10, 40, 30, 20], t, *r)})
        })
        .collect();
    let mut whole = vec![];
    for (n, size) in [
        (1, 9),
        (4, 100_000),
        (40, 200_000),
        (40, i64::from(i32::MAX)),
        (25, 0),
    ] {
        let logits = row(&mut rng, n, size);
        for (temperature_q16, top_k, top_p_q16) in [
            (0, 0, 65_536),
            (65_536, 0, 65_536),
            (52_429, 5, 60_000),
            (u32::MAX, 0, 9),
        ] {
            let (seed, pos) = (rng.draw(), rng.range(0, 9_999) as u32);
            let sampler = Sampler::Random {
                temperature_q16,
                top_k,
                top_p_q16,
                seed,
            };
            let out = s::sample(&logits, 16, &sampler, pos);
            whole.push(
                json!({"logits": logits, "f": 16, "temperature_q16": temperature_q16, "top_k": top_k,
                "top_p_q16": top_p_q16, "seed": wide(seed), "pos": pos, "out": out}),
            );
        }
    }
    vec![File {
        name: "sampling.json",
        about: "S1: greedy, S2: inverse temperature, S3: probability, S4-S5: threshold (p, id) and kept mass, S6: draw and \
                point, S7: the interval's holder, S: whole rows (temperature 0 = greedy)",
        rules: vec![
            ("S1", s1),
            ("S2", s2),
            ("S3", s3),
            ("S4-S5", s5),
            ("S6", s6),
            ("S7", s7),
            ("S", whole),
        ],
    }]
}
