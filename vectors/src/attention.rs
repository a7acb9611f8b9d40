//! Vectors of attention: every step alone, and whole heads with what both passes find.

use bitai_kernels::{
    Scale,
    conformance::build::Rng,
    ops::AttentionParams,
    reference::attention as a,
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
    let mut a4 = vec![];
    for s in SCALES {
        for dot in [0i64, 1, -1, 1 << 20, -(1 << 24), i64::MAX, i64::MIN] {
            for q in [(40_000, -20), (65_535, i16::MAX), (65_535, i16::MIN)] {
                let out = a::score(dot, scale(q), scale(*s), c);
                a3.push(json!({"dot": wide(dot), "q": q, "k": s, "c": pair(c), "out": out}));
            }
        }
        for x in [0, -65_536, i32::MAX, -i32::MAX] {
            let weighted = a::weighted_score(x, scale(*s));
            let r = weighted.map(|w| [0, x, i32::MAX].map(|max| json!({"max": max, "r": a::unit(w, max)})));
            a4.push(json!({"x": x, "v": s, "weighted": weighted.map(wide), "units": r}));
        }
    }
    let mut a6 = vec![];
    for e in [0, 1, 1 << 16, 1_234_567_890, 2_147_483_530] {
        for v in SCALES {
            for (r, p_bits) in [(-4, 15), (-4, 23), (40, 23), (-40_000, 15), (70_000, 15)] {
                let out = a::weight(e, scale(*v), r, p_bits);
                a6.push(json!({"e": e, "v": v, "r": r, "p_bits": p_bits, "out": out}));
            }
        }
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
            for r in [Some(-4), Some(40_000), Some(-40_000), None] {
                let out = a::finish(acc, z, r, 15, 16);
                a9.push(
                    json!({"acc": wide(acc), "z": wide(z), "r": r, "p_bits": 15, "f_out": 16, "out": out}),
                );
            }
        }
    }
    vec![
        File {
            name: "attention.json",
            about: "A1: visible keys, A3: score, A4: weighted score and unit (null: V scale of zero), A6: weight, \
                    A8: reciprocal, A9: output element",
            rules: vec![
                ("A1", a1),
                ("A3", a3),
                ("A4", a4),
                ("A6", a6),
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
                "scores": s.scores, "max": s.max, "r": s.r, "weights": s.weights, "z": wide(s.z), "out": out}));
        }
    }
    File {
        name: "heads.json",
        about: "A: whole causal heads over canonical KV rows (hex, position 0 first), with the scores, unit, weights and Z",
        rules: vec![("A", cases)],
    }
}
