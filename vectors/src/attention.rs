//! Vectors of attention: every step alone, and whole heads with what both passes find.

use bitai_kernels::{
    Scale,
    conformance::build::Rng,
    ops::AttentionParams,
    reference::{
        attention::{self as a, QueryFactor},
        exp2,
    },
    rows::{kv_record_len, kv_row_len},
};
use serde_json::json;

use crate::{
    File,
    arithmetic::{SCALES, pair, scale, wide},
};

pub(crate) fn files() -> Vec<File> {
    let c = scale((47_274, -18));
    let mut a1 = vec![];
    for (pos, len, causal, window) in [
        (0, 1, true, 0),
        (5, 6, true, 2),
        (5, 9, true, 0),
        (2, 9, false, 0),
        (2, 9, false, 4),
        (3, 4, true, 100),
        (u32::MAX, u32::MAX, true, 1),
    ] {
        let (lo, n) = a::visible(pos, len, causal, window);
        a1.push(json!({"pos": pos, "len": len, "causal": causal, "window": window, "lo": lo, "n": n}));
    }
    let mut a3 = vec![];
    for s in SCALES {
        // The first unit is the scale's own; the others are below, above, far above and none.
        for unit in [
            Some(s.1),
            Some(-30),
            Some(-10),
            Some(i16::MAX),
            Some(i16::MIN),
            None,
        ] {
            a3.push(json!({"scale": s, "unit": unit, "exponent": a::exponent(scale(*s)), "k": a::key_factor(scale(*s), unit),
                "v15": a::value_factor(scale(*s), unit, 15), "v23": a::value_factor(scale(*s), unit, 23)}));
        }
    }
    let mut factors = vec![];
    for q in SCALES {
        for site in [
            (c.m, c.e),
            (65_535, i16::MAX),
            (65_535, i16::MIN),
            (0, 0),
            (1, -20),
        ] {
            for (unit, head_dim) in [
                (Some(-20), 64),
                (Some(i16::MAX), 1),
                (Some(i16::MIN), 1_024),
                (None, 80),
            ] {
                let f = a::query_factor(scale(*q), scale(site), unit, head_dim);
                factors.push(
                    json!({"q": q, "c": site, "unit": unit, "head_dim": head_dim, "factor": f.c, "f": f.f}),
                );
            }
        }
    }
    let mut a4 = vec![];
    for (dot, head_dim) in [
        (0i64, 64),
        (1, 64),
        (-1, 64),
        (1 << 19, 64),
        (-(1 << 20), 64),
        (1 << 24, 1_024),
        (-(1 << 24), 1_024),
        (-16_129, 1),
        (i64::MAX, 2),
        (i64::MIN, 2),
    ] {
        for k in [0, 1, 40_000 << 10, i32::MAX] {
            let y = a::aligned(dot, k, head_dim);
            for (c, f) in [(0, 31), (1, 31), (1 << 30, 20), (i32::MAX, 1)] {
                let x = a::score(y, QueryFactor { c, f });
                a4.push(json!({"dot": wide(dot), "head_dim": head_dim, "k": k, "factor": c, "f": f, "aligned": y, "x": x}));
            }
        }
    }
    let mut a5 = vec![];
    for (x, max) in [
        (0, 0),
        (-1, 0),
        (-65_535, 0),
        (-65_536, 0),
        (-65_537, 0),
        (7, 1 << 21),
        (-(1 << 29), 1 << 29),
        (i32::MIN, i32::MAX),
        // A claimed maximum that is too small counts as the score itself.
        (1, 0),
        (i32::MAX, i32::MIN),
    ] {
        for f in [1, 13, 16, 24, 31] {
            a5.push(json!({"x": x, "max": max, "f": f, "e": a::exp(x, max, QueryFactor { c: 1, f })}));
        }
    }
    let mut a6 = vec![];
    for e in [0, 1, 1 << 16, 1_234_567_890, exp2::ONE, u32::MAX] {
        for v in [
            (0u16, -20i16),
            (65_535, -20),
            (32_768, -20),
            (40_000, -27),
            (50_000, -52),
            (1, 30),
        ] {
            for (key, p_bits) in [
                (0u32, 15),
                (1, 15),
                (255, 15),
                (256, 15),
                (131_071, 15),
                (8, 23),
                (u32::MAX, 23),
            ] {
                let factor = a::value_factor(scale(v), Some(-20), p_bits);
                let out = a::weight(e, factor, key, p_bits);
                a6.push(json!({"e": e, "v": factor, "key": key, "dither": a::dither(key), "p_bits": p_bits, "out": out}));
            }
        }
    }
    let mut a7 = vec![];
    for (weights, values) in [
        (vec![], vec![]),
        (vec![32_767, 1, 0], vec![127i8, -128, 5]),
        (vec![8_388_607; 5], vec![-127; 5]),
        (vec![8_388_607, 8_388_607, 12_345], vec![127, -127, -1]),
    ] {
        a7.push(json!({"weights": weights, "values": values, "acc": wide(a::pv_partial(&weights, &values))}));
    }
    let mut a8 = vec![];
    let mut a9 = vec![];
    for z in [
        0u64,
        1,
        (1 << 30) + 1,
        2_147_483_530,
        (1 << 31) + 7,
        281_474_976_710_656,
        u64::MAX,
    ] {
        let (rc, b) = a::reciprocal(z);
        a8.push(json!({"z": wide(z), "rc": rc, "b": b}));
        for acc in [0, -1, 123_456_789, -(1 << 46), i64::MAX, i64::MIN] {
            for (unit, p_bits) in [
                (Some(-27), 15),
                (Some(-20), 23),
                (Some(i16::MAX), 15),
                (Some(i16::MIN), 23),
                (None, 15),
            ] {
                let out = a::finish(acc, z, unit, p_bits, 16);
                a9.push(json!({"acc": wide(acc), "z": wide(z), "unit": unit, "p_bits": p_bits, "f_out": 16, "out": out}));
            }
        }
    }
    vec![
        File {
            name: "attention.json",
            about: "A1: visible keys, A3: exponent that counts for a unit (null: mantissa of zero), key and value factors, \
                    A4 factor: query factor and fraction bits, A4: aligned dot product and score, A5: share, A6: weight, \
                    A7: sum of weight times value, A8: reciprocal, A9: output element (unit null: every V scale is zero)",
            rules: vec![
                ("A1", a1),
                ("A3", a3),
                ("A4 factor", factors),
                ("A4", a4),
                ("A5", a5),
                ("A6", a6),
                ("A7", a7),
                ("A8", a8),
                ("A9", a9),
            ],
        },
        heads(),
    ]
}

fn heads() -> File {
    let mut rng = Rng::new("vectors heads");
    let mut cases = vec![];
    for (len, d, p_bits, window, hostile) in [
        (1usize, 2usize, 15, 0, false),
        (7, 4, 15, 0, false),
        (9, 8, 23, 3, false),
        (5, 4, 23, 0, true),
        (6, 4, 15, 0, true),
    ] {
        let row_len = kv_row_len(2, d);
        let mut cache = vec![0u8; len * row_len];
        for row in cache.chunks_exact_mut(row_len) {
            for half in row.chunks_exact_mut(kv_record_len(d) / 2) {
                for b in &mut half[..d] {
                    *b = rng.range(-127, 127) as i8 as u8;
                }
                let s = if hostile {
                    scale(rng.pick(SCALES))
                } else {
                    Scale {
                        m: rng.range(1 << 15, 0xffff) as u16,
                        e: rng.range(-24, -20) as i16,
                    }
                };
                half[d..].copy_from_slice(&s.to_bytes());
            }
        }
        let q: Vec<i16> = (0..d).map(|_| rng.range(-127, 127) as i16).collect();
        let (q_scale, c) = (scale((40_000, -20)), scale((47_274, -18)));
        let p = AttentionParams {
            heads: 2,
            kv_heads: 2,
            head_dim: d,
            scale: c,
            p_bits,
            window,
            causal: true,
            f_out: 16,
        };
        for kv_head in 0..2 {
            let pos = len as u32 - 1;
            let s = a::head_sums(p, &q, q_scale, kv_head, pos, &cache, row_len);
            let mut out = vec![0; d];
            a::attention_head(p, &q, q_scale, kv_head, pos, &cache, row_len, &mut out);
            cases.push(json!({"q": q, "q_scale": pair(q_scale), "c": pair(c), "kv_heads": 2, "kv_head": kv_head, "pos": pos,
                "p_bits": p_bits, "window": window, "f_out": 16, "kv_rows": hex::encode(&cache), "lo": s.lo,
                "k_unit": s.k_unit, "v_unit": s.v_unit, "factor": s.factor.c, "f": s.factor.f,
                "scores": s.scores, "max": s.max, "shares": s.exps, "weights": s.weights, "z": wide(s.z), "out": out}));
        }
    }
    File {
        name: "heads.json",
        about: "A: whole causal heads over canonical KV rows (hex, position 0 first), with the units, query factor, scores, shares, weights and Z",
        rules: vec![("A", cases)],
    }
}
