//! Canonical bytes of a site (rule C1 to C4): a fixed record of 26 little-endian words, so that a contract
//! opens one site of a manifest and reads it without a parser.
//!
//! Words: 0 op code, 1 layer, 2..6 inputs, 6..10 tensors (weight, scale, multiplier, bias; or the one tensor
//! that the op names), 10..26 parameters in the order of the op's fields. "None" is `u32::MAX`; unused
//! parameters are 0. Every site has one encoding: decoding refuses all others.

use crate::{
    KernelError,
    program::{Activation, Op, Pooling, RopeStyle, Site, Weight},
};

/// Bytes of a site's record.
pub const SITE_LEN: usize = 104;
/// Stands for "no layer", "no input" and "no tensor".
pub const NONE: u32 = u32::MAX;

/// Op codes (C2). Codes that no [`Op`] has yet are reserved for what the spec names.
pub mod code {
    #![allow(missing_docs, reason = "each constant is the op of its name")]
    pub const EMBED: u32 = 1;
    pub const RMS_NORM: u32 = 2;
    pub const LAYER_NORM: u32 = 3;
    pub const QUANT: u32 = 4;
    pub const LINEAR: u32 = 5;
    pub const ROPE: u32 = 6;
    pub const KV_APPEND: u32 = 7;
    pub const ATTENTION: u32 = 8;
    pub const GLU: u32 = 9;
    pub const ADD: u32 = 10;
    pub const OUT: u32 = 11;
    pub const SAMPLE: u32 = 12;
    pub const ACT: u32 = 13;
    pub const POS_EMBED: u32 = 14;
    pub const POOL: u32 = 15;
    pub const EMIT: u32 = 16;
    pub const SOFT_CAP: u32 = 32;
    pub const ATTENTION_SINK: u32 = 33;
    pub const TOP_K_ROUTER: u32 = 34;
    pub const EXPERT_GATHER: u32 = 35;
    pub const PARTIAL_ROPE: u32 = 36;
    pub const OPAQUE_CACHE: u32 = 37;
}

impl Op {
    /// Name for messages, as the manifest spells it.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::PosEmbed { .. } => "pos_embed",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Quant { .. } => "quant",
            Op::Linear { .. } => "linear",
            Op::Rope { .. } => "rope",
            Op::KvAppend { .. } => "kv_append",
            Op::Attention { .. } => "attention",
            Op::Glu { .. } => "glu",
            Op::Act { .. } => "act",
            Op::Add => "add",
            Op::Out => "out",
            Op::Pool { .. } => "pool",
            Op::Emit => "emit",
            Op::Sample { .. } => "sample",
        }
    }

    /// The op's code (C2).
    pub const fn code(&self) -> u32 {
        match self {
            Op::Embed { .. } => code::EMBED,
            Op::PosEmbed { .. } => code::POS_EMBED,
            Op::RmsNorm { .. } => code::RMS_NORM,
            Op::LayerNorm { .. } => code::LAYER_NORM,
            Op::Quant { .. } => code::QUANT,
            Op::Linear { .. } => code::LINEAR,
            Op::Rope { .. } => code::ROPE,
            Op::KvAppend { .. } => code::KV_APPEND,
            Op::Attention { .. } => code::ATTENTION,
            Op::Glu { .. } => code::GLU,
            Op::Act { .. } => code::ACT,
            Op::Add => code::ADD,
            Op::Out => code::OUT,
            Op::Pool { .. } => code::POOL,
            Op::Emit => code::EMIT,
            Op::Sample { .. } => code::SAMPLE,
        }
    }

    /// Tensors (C3) and parameters (C4) of the record.
    fn words(&self) -> ([u32; 4], Vec<u32>) {
        let one = |t: u32| [t, NONE, NONE, NONE];
        match self {
            Op::Embed { weight, f_out } | Op::PosEmbed { weight, f_out } => {
                (weight_words(weight), vec![u32::from(*f_out)])
            }
            Op::LayerNorm {
                gain,
                bias,
                gain_f,
                eps,
                group,
                f_in,
                f_out,
            } => (
                [*gain, NONE, NONE, *bias],
                vec![
                    i32::from(*gain_f) as u32,
                    *eps as u32,
                    (*eps >> 32) as u32,
                    *group,
                    u32::from(*f_in),
                    u32::from(*f_out),
                ],
            ),
            Op::RmsNorm {
                gain,
                gain_f,
                eps,
                group,
                f_in,
                f_out,
            } => (
                one(*gain),
                vec![
                    i32::from(*gain_f) as u32,
                    *eps as u32,
                    (*eps >> 32) as u32,
                    *group,
                    u32::from(*f_in),
                    u32::from(*f_out),
                ],
            ),
            Op::Quant {
                planes,
                wht,
                group,
                f_in,
            } => (
                [NONE; 4],
                vec![u32::from(*planes), u32::from(*wht), *group, u32::from(*f_in)],
            ),
            Op::Linear {
                weight,
                n,
                k,
                k_segments,
                f_out,
            } => (
                weight_words(weight),
                vec![*n, *k, u32::from(*k_segments), u32::from(*f_out)],
            ),
            Op::Rope {
                table,
                head_dim,
                style,
            } => {
                let style = match style {
                    RopeStyle::Interleaved => 0,
                    RopeStyle::Halves => 1,
                };
                (one(*table), vec![*head_dim, style])
            }
            Op::KvAppend { heads, head_dim } => ([NONE; 4], vec![*heads, *head_dim]),
            Op::Attention {
                heads,
                kv_heads,
                head_dim,
                scale_m,
                scale_e,
                p_bits,
                window,
                causal,
                f_out,
            } => (
                [NONE; 4],
                vec![
                    *heads,
                    *kv_heads,
                    *head_dim,
                    u32::from(*scale_m),
                    i32::from(*scale_e) as u32,
                    u32::from(*p_bits),
                    *window,
                    u32::from(*causal),
                    u32::from(*f_out),
                ],
            ),
            Op::Glu { act, f } | Op::Act { act, f } => {
                let act = match act {
                    Activation::Silu => 0,
                    Activation::GeluTanh => 1,
                    Activation::GeluErf => 2,
                };
                ([NONE; 4], vec![act, u32::from(*f)])
            }
            Op::Add | Op::Out | Op::Emit => ([NONE; 4], vec![]),
            Op::Pool { how } => {
                let how = match how {
                    Pooling::Mean => 0,
                    Pooling::First => 1,
                };
                ([NONE; 4], vec![how])
            }
            Op::Sample { f } => ([NONE; 4], vec![u32::from(*f)]),
        }
    }
}

fn weight_words(w: &Weight) -> [u32; 4] {
    [w.q, w.scale, w.mult.unwrap_or(NONE), w.bias.unwrap_or(NONE)]
}

fn bad(why: impl Into<String>) -> KernelError {
    KernelError::Spec {
        what: "site record".into(),
        why: why.into(),
    }
}

/// A parameter word as a smaller type.
fn narrow<T: TryFrom<u32>>(name: &str, word: u32) -> Result<T, KernelError> {
    T::try_from(word).map_err(|_| bad(format!("{name} = {word} is out of range")))
}

/// A sign-extended parameter word as a smaller type.
fn narrow_signed<T: TryFrom<i32>>(name: &str, word: u32) -> Result<T, KernelError> {
    T::try_from(word as i32).map_err(|_| bad(format!("{name} = {} is out of range", word as i32)))
}

fn some(word: u32) -> Option<u32> {
    (word != NONE).then_some(word)
}

impl Site {
    /// The record. Fails only for a site with more than 4 inputs, which no op has.
    pub fn encode(&self) -> Result<[u8; SITE_LEN], KernelError> {
        if self.inputs.len() > 4 {
            return Err(bad(format!("{} inputs, at most 4", self.inputs.len())));
        }
        let (tensors, params) = self.op.words();
        let mut words = [0u32; SITE_LEN / 4];
        words[0] = self.op.code();
        words[1] = self.layer.unwrap_or(NONE);
        words[2..6].fill(NONE);
        words[2..2 + self.inputs.len()].copy_from_slice(&self.inputs);
        words[6..10].copy_from_slice(&tensors);
        words[10..10 + params.len()].copy_from_slice(&params);
        let mut out = [0; SITE_LEN];
        for (b, w) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *b = w.to_le_bytes();
        }
        Ok(out)
    }

    /// The reverse of [`Site::encode`]; refuses every record that `encode` does not make.
    pub fn decode(bytes: &[u8; SITE_LEN]) -> Result<Self, KernelError> {
        let mut words = [0u32; SITE_LEN / 4];
        for (w, b) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *w = u32::from_le_bytes(*b);
        }
        let site = Self {
            layer: some(words[1]),
            inputs: words[2..6].iter().copied().take_while(|w| *w != NONE).collect(),
            op: op(&words)?,
        };
        if site.encode()? != *bytes {
            return Err(bad("is not the canonical record of its site"));
        }
        Ok(site)
    }
}

/// A tensor that the op cannot do without.
fn tensor(name: &str, word: u32) -> Result<u32, KernelError> {
    some(word).ok_or_else(|| bad(format!("{name} is missing")))
}

fn activation(word: u32) -> Result<Activation, KernelError> {
    match word {
        0 => Ok(Activation::Silu),
        1 => Ok(Activation::GeluTanh),
        2 => Ok(Activation::GeluErf),
        other => Err(bad(format!("unknown activation {other}"))),
    }
}

fn op(words: &[u32; SITE_LEN / 4]) -> Result<Op, KernelError> {
    let p = &words[10..];
    let weight = || -> Result<Weight, KernelError> {
        Ok(Weight {
            q: tensor("weight", words[6])?,
            scale: tensor("scale", words[7])?,
            mult: some(words[8]),
            bias: some(words[9]),
        })
    };
    Ok(match words[0] {
        code::EMBED => Op::Embed {
            weight: weight()?,
            f_out: narrow("f_out", p[0])?,
        },
        code::RMS_NORM => Op::RmsNorm {
            gain: tensor("gain", words[6])?,
            gain_f: narrow_signed("gain_f", p[0])?,
            eps: u64::from(p[1]) | u64::from(p[2]) << 32,
            group: p[3],
            f_in: narrow("f_in", p[4])?,
            f_out: narrow("f_out", p[5])?,
        },
        code::QUANT => Op::Quant {
            planes: narrow("planes", p[0])?,
            wht: narrow("wht", p[1])?,
            group: p[2],
            f_in: narrow("f_in", p[3])?,
        },
        code::LINEAR => Op::Linear {
            weight: weight()?,
            n: p[0],
            k: p[1],
            k_segments: narrow("k_segments", p[2])?,
            f_out: narrow("f_out", p[3])?,
        },
        code::ROPE => Op::Rope {
            table: tensor("table", words[6])?,
            head_dim: p[0],
            style: match p[1] {
                0 => RopeStyle::Interleaved,
                1 => RopeStyle::Halves,
                other => return Err(bad(format!("unknown RoPE style {other}"))),
            },
        },
        code::KV_APPEND => Op::KvAppend {
            heads: p[0],
            head_dim: p[1],
        },
        code::ATTENTION => Op::Attention {
            heads: p[0],
            kv_heads: p[1],
            head_dim: p[2],
            scale_m: narrow("scale_m", p[3])?,
            scale_e: narrow_signed("scale_e", p[4])?,
            p_bits: narrow("p_bits", p[5])?,
            window: p[6],
            causal: p[7] != 0,
            f_out: narrow("f_out", p[8])?,
        },
        code::GLU => Op::Glu {
            act: activation(p[0])?,
            f: narrow("f", p[1])?,
        },
        code::ACT => Op::Act {
            act: activation(p[0])?,
            f: narrow("f", p[1])?,
        },
        code::POS_EMBED => Op::PosEmbed {
            weight: weight()?,
            f_out: narrow("f_out", p[0])?,
        },
        code::LAYER_NORM => Op::LayerNorm {
            gain: tensor("gain", words[6])?,
            bias: tensor("bias", words[9])?,
            gain_f: narrow_signed("gain_f", p[0])?,
            eps: u64::from(p[1]) | u64::from(p[2]) << 32,
            group: p[3],
            f_in: narrow("f_in", p[4])?,
            f_out: narrow("f_out", p[5])?,
        },
        code::POOL => Op::Pool {
            how: match p[0] {
                0 => Pooling::Mean,
                1 => Pooling::First,
                other => return Err(bad(format!("unknown pooling {other}"))),
            },
        },
        code::EMIT => Op::Emit,
        code::ADD => Op::Add,
        code::OUT => Op::Out,
        code::SAMPLE => Op::Sample {
            f: narrow("f", p[0])?,
        },
        other => return Err(bad(format!("unknown or reserved op code {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tensor() -> impl Strategy<Value = u32> {
        0..NONE
    }

    fn weight() -> impl Strategy<Value = Weight> {
        (
            tensor(),
            tensor(),
            prop::option::of(tensor()),
            prop::option::of(tensor()),
        )
            .prop_map(|(q, scale, mult, bias)| Weight { q, scale, mult, bias })
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (weight(), any::<u8>()).prop_map(|(weight, f_out)| Op::Embed { weight, f_out }),
            (
                tensor(),
                any::<i8>(),
                any::<u64>(),
                any::<u32>(),
                any::<u8>(),
                any::<u8>()
            )
                .prop_map(|(gain, gain_f, eps, group, f_in, f_out)| Op::RmsNorm {
                    gain,
                    gain_f,
                    eps,
                    group,
                    f_in,
                    f_out
                }),
            (any::<u8>(), any::<u16>(), any::<u32>(), any::<u8>()).prop_map(|(planes, wht, group, f_in)| {
                Op::Quant {
                    planes,
                    wht,
                    group,
                    f_in,
                }
            }),
            (weight(), any::<u32>(), any::<u32>(), any::<u8>(), any::<u8>()).prop_map(
                |(weight, n, k, k_segments, f_out)| Op::Linear {
                    weight,
                    n,
                    k,
                    k_segments,
                    f_out
                }
            ),
            (
                tensor(),
                any::<u32>(),
                prop_oneof![Just(RopeStyle::Interleaved), Just(RopeStyle::Halves)]
            )
                .prop_map(|(table, head_dim, style)| Op::Rope {
                    table,
                    head_dim,
                    style
                }),
            (any::<u32>(), any::<u32>()).prop_map(|(heads, head_dim)| Op::KvAppend { heads, head_dim }),
            (
                any::<[u32; 4]>(),
                any::<u16>(),
                any::<i16>(),
                any::<u8>(),
                any::<bool>(),
                any::<u8>()
            )
                .prop_map(
                    |([heads, kv_heads, head_dim, window], scale_m, scale_e, p_bits, causal, f_out)| {
                        Op::Attention {
                            heads,
                            kv_heads,
                            head_dim,
                            scale_m,
                            scale_e,
                            p_bits,
                            window,
                            causal,
                            f_out,
                        }
                    }
                ),
            (0usize..3, any::<u8>()).prop_map(|(a, f)| Op::Glu {
                act: [Activation::Silu, Activation::GeluTanh, Activation::GeluErf][a],
                f
            }),
            (0usize..3, any::<u8>()).prop_map(|(a, f)| Op::Act {
                act: [Activation::Silu, Activation::GeluTanh, Activation::GeluErf][a],
                f
            }),
            (weight(), any::<u8>()).prop_map(|(weight, f_out)| Op::PosEmbed { weight, f_out }),
            (
                tensor(),
                tensor(),
                any::<i8>(),
                any::<u64>(),
                any::<u32>(),
                any::<u8>(),
                any::<u8>()
            )
                .prop_map(|(gain, bias, gain_f, eps, group, f_in, f_out)| Op::LayerNorm {
                    gain,
                    bias,
                    gain_f,
                    eps,
                    group,
                    f_in,
                    f_out
                }),
            prop_oneof![Just(Pooling::Mean), Just(Pooling::First)].prop_map(|how| Op::Pool { how }),
            Just(Op::Add),
            Just(Op::Out),
            Just(Op::Emit),
            any::<u8>().prop_map(|f| Op::Sample { f }),
        ]
    }

    proptest! {
        #[test]
        fn sites_survive_their_record(
            op in any_op(),
            layer in prop::option::of(tensor()),
            inputs in prop::collection::vec(tensor(), 0..5),
        ) {
            let site = Site { layer, op, inputs };
            prop_assert_eq!(Site::decode(&site.encode().unwrap()).unwrap(), site);
        }

        #[test]
        fn whatever_decodes_is_canonical(op in any_op(), at in 0usize..SITE_LEN, bit in 0u32..8) {
            let site = Site { layer: Some(3), op, inputs: vec![1, 2] };
            let mut bytes = site.encode().unwrap();
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Site::decode(&bytes) {
                prop_assert_ne!(&other, &site);
                prop_assert_eq!(other.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn rejects_reserved_codes_and_stray_words() {
        let site = Site {
            layer: None,
            op: Op::Add,
            inputs: vec![0, 1],
        };
        let good = site.encode().unwrap();
        for (word, value) in [
            (0, code::SOFT_CAP),
            (0, code::LAYER_NORM),
            (0, code::RMS_NORM),
            (0, code::LINEAR),
            (0, code::EMIT + 1),
            (0, 0),
            (10, 1),
            (25, 1),
            (6, 0),
        ] {
            let mut bytes = good;
            bytes[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
            assert!(Site::decode(&bytes).is_err(), "word {word} = {value}");
        }
        // A gap in the inputs is no list of inputs.
        let mut bytes = good;
        bytes[8..12].copy_from_slice(&NONE.to_le_bytes());
        assert!(Site::decode(&bytes).is_err());
    }
}
