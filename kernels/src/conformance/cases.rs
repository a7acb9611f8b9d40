//! The suite's programs: one op at lengths where implementations break, then whole small models.

use super::build::{Builder, Case, Shape, Wild};
use crate::{
    Op,
    program::{Activation, RopeStyle},
};

/// Lengths of K and what breaks there.
const K_LENGTHS: &[(usize, &str)] = &[
    (1, "shorter than any register"),
    (15, "one short of 16 bytes"),
    (16, "one SSE register"),
    (31, "one short of an AVX2 register"),
    (32, "one AVX2 register, one group"),
    (33, "one past an AVX2 register"),
    (63, "one short of an AVX-512 register"),
    (64, "one AVX-512 register"),
    (65, "one past an AVX-512 register"),
    (129, "a register and a tail"),
    (160, "five groups"),
    (257, "past a 256-element step"),
    (576, "SmolLM2's width"),
    (1_056, "past 1,024, where bf16 blocks end"),
];

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = vec![];
    linears(&mut cases);
    quants(&mut cases);
    norms(&mut cases);
    elementwise(&mut cases);
    attentions(&mut cases);
    cases.extend(models());
    cases.extend(super::encoder::encoders());
    cases
}

/// One op between the embedding and an `Out` that commits the embedding.
fn one(name: String, d_model: usize, wild: Wild, f: impl FnOnce(&mut Builder, u32)) -> Case {
    let mut b = Builder::new(name, d_model as u32);
    b.wild = wild;
    let h = b.embed(16, 1);
    f(&mut b, h);
    b.site(0, Op::Out, &[h]);
    b.done()
}

fn linears(cases: &mut Vec<Case>) {
    for (k, why) in K_LENGTHS {
        for planes in [1, 2] {
            for grouped in [false, true] {
                if grouped && !k.is_multiple_of(32) {
                    continue;
                }
                for wild in [Wild::Tame, Wild::Extreme, Wild::Hostile] {
                    let name = format!("linear k {k} ({why}), {planes} planes, grouped {grouped}, {wild:?}");
                    // 19 rows: not a multiple of any tile.
                    cases.push(one(name, *k, wild, |b, h| {
                        let q = b.quant(0, h, planes, 0, *k);
                        b.linear(0, q, (19, *k), (grouped, true, 1), 16);
                    }));
                }
            }
        }
    }
    for n in [1, 2, 3, 4, 7, 8, 9, 16, 33] {
        cases.push(one(
            format!("linear of {n} rows: tiles and their tails"),
            96,
            Wild::Tame,
            |b, h| {
                let q = b.quant(0, h, 1, 0, 96);
                b.linear(0, q, (n, 96), (true, false, 1), 14);
            },
        ));
    }
    // Enough rows for the largest tiles, and a row more than two of them.
    for planes in [1, 2] {
        for grouped in [false, true] {
            let name = format!("linear of 129 outputs for 151 tokens, {planes} planes, grouped {grouped}");
            cases.push(one(name, 128, Wild::Tame, |b, h| {
                b.head().context = 160;
                let q = b.quant(0, h, planes, 0, 64);
                b.linear(0, q, (129, 128), (grouped, true, 2), 16);
            }));
        }
    }
    for segments in [2u8, 4, 8] {
        for wild in [Wild::Tame, Wild::Hostile] {
            for (planes, grouped) in [(1, false), (2, true)] {
                let name =
                    format!("linear in {segments} K segments, {planes} planes, grouped {grouped}, {wild:?}");
                cases.push(one(name, 512, wild, |b, h| {
                    let q = b.quant(0, h, planes, 0, 512 / usize::from(segments));
                    b.linear(0, q, (5, 512), (grouped, true, segments), 16);
                }));
            }
        }
    }
}

fn quants(cases: &mut Vec<Case>) {
    for (group, wht) in [
        (1, 0),
        (2, 2),
        (48, 16),
        (64, 64),
        (96, 32),
        (320, 64),
        (512, 512),
        (1_536, 512),
    ] {
        for planes in [1, 2] {
            for wild in [Wild::Tame, Wild::Extreme, Wild::Hostile] {
                let name = format!("quant in groups of {group}, block {wht}, {planes} planes, {wild:?}");
                cases.push(one(name, 2 * group, wild, |b, h| {
                    b.quant(0, h, planes, wht, group);
                }));
            }
        }
    }
}

fn norms(cases: &mut Vec<Case>) {
    for (cols, group) in [
        (1, 1),
        (3, 3),
        (64, 16),
        (576, 576),
        (1_000, 1_000),
        (2_048, 2_048),
    ] {
        for wild in [Wild::Tame, Wild::Extreme, Wild::Hostile] {
            let name = format!("norm of {cols} in groups of {group}, {wild:?}");
            cases.push(one(name, cols, wild, |b, h| {
                b.norm(0, h, group, 16);
            }));
            let name = format!("layer norm of {cols} in groups of {group}, {wild:?}");
            cases.push(one(name, cols, wild, |b, h| {
                b.layer_norm(0, h, group, 16);
            }));
        }
    }
}

fn elementwise(cases: &mut Vec<Case>) {
    for wild in [Wild::Tame, Wild::Hostile] {
        for act in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
            for f in [0, 12, 16, 30] {
                cases.push(one(format!("glu {act:?} in Q{f}, {wild:?}"), 77, wild, |b, h| {
                    b.site(0, Op::Glu { act, f }, &[h, h]);
                }));
                cases.push(one(format!("act {act:?} in Q{f}, {wild:?}"), 77, wild, |b, h| {
                    b.site(0, Op::Act { act, f }, &[h]);
                }));
            }
        }
        for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
            for head_dim in [2, 6, 64, 128] {
                let name = format!("rope {style:?} of heads of {head_dim}, {wild:?}");
                cases.push(one(name, 2 * head_dim, wild, |b, h| {
                    let table = b.rope_table(head_dim);
                    let head_dim = head_dim as u32;
                    b.site(
                        0,
                        Op::Rope {
                            table,
                            head_dim,
                            style,
                        },
                        &[h],
                    );
                }));
            }
        }
        cases.push(one(format!("positions, {wild:?}"), 65, wild, |b, _| {
            b.pos_embed(16, 1);
        }));
        cases.push(one(format!("add, {wild:?}"), 65, wild, |b, h| {
            let twice = b.site(0, Op::Add, &[h, h]);
            b.site(0, Op::Add, &[twice, h]);
        }));
    }
}

fn attentions(cases: &mut Vec<Case>) {
    let heads = [
        (1, 1, 2, "the smallest head"),
        (3, 1, 20, "multi-query, no register's length"),
        (4, 2, 64, "grouped queries"),
        (9, 3, 64, "SmolLM2's heads"),
        (4, 2, 96, "no power of two"),
        (8, 8, 128, "8 records: more than one chunk"),
        (2, 1, 512, "a record longer than a chunk"),
    ];
    for (heads, kv_heads, head_dim, why) in heads {
        for (p_bits, window, causal) in [(15, 0, true), (23, 3, true), (15, 1, true), (23, 0, false)] {
            for wild in [Wild::Tame, Wild::Hostile] {
                let name = format!(
                    "attention {heads}/{kv_heads} heads of {head_dim} ({why}), {p_bits} bits, window {window}, \
                     causal {causal}, {wild:?}"
                );
                let shape = Shape {
                    layers: 1,
                    heads,
                    kv_heads,
                    head_dim,
                    d_model: 32,
                    ff: 8,
                    p_bits,
                    window,
                    causal,
                    wild,
                    ..Shape::SMALL
                };
                cases.push(shape.build(name));
            }
        }
    }
}

/// Whole small models, one for each feature.
pub fn models() -> Vec<Case> {
    let small = Shape::SMALL;
    let profile_a = Shape {
        planes: 2,
        qk_wht: 16,
        ..small
    };
    let list = [
        ("plain A8", small),
        ("A16, transformed Q and K", profile_a),
        (
            "A16, grouped body",
            Shape {
                grouped: true,
                ..profile_a
            },
        ),
        (
            "five layers, stride 2: rows with and without `out`",
            Shape {
                layers: 5,
                stride: 2,
                ..small
            },
        ),
        (
            "three layers, stride 16: no `out` at all",
            Shape {
                layers: 3,
                stride: 16,
                ..small
            },
        ),
        (
            "a prompt longer than one block of rows and two pages of cache",
            Shape {
                context: 560,
                layers: 1,
                ..profile_a
            },
        ),
        (
            "halves, tanh GELU, window, 23 bits",
            Shape {
                rope: RopeStyle::Halves,
                act: Activation::GeluTanh,
                window: 5,
                p_bits: 23,
                ..profile_a
            },
        ),
        (
            "K segments",
            Shape {
                k_segments: 2,
                grouped: true,
                d_model: 128,
                ff: 128,
                ..small
            },
        ),
        (
            "bidirectional, erf GELU",
            Shape {
                causal: false,
                act: Activation::GeluErf,
                ..small
            },
        ),
        (
            "hostile scales",
            Shape {
                wild: Wild::Hostile,
                ..profile_a
            },
        ),
        (
            "extreme weights",
            Shape {
                wild: Wild::Extreme,
                ..profile_a
            },
        ),
    ];
    list.into_iter()
        .map(|(why, shape)| shape.build(format!("model: {why}")))
        .collect()
}
