//! Encoders of the BERT family as a program: learned positions, layer norms behind each block, attention over the
//! whole sequence, one row out. Import and tests walk the same plan, so that ids and order cannot drift apart.

use bitai_kernels::{
    Op, Program,
    program::{Activation, Pooling, SiteId, Weight},
};

use super::sites::{CHECKPOINT_STRIDE, P_BITS, Sites, attention_scale, can_group, norm_eps};
use crate::import::number;

/// Fraction bits of the residual and of every other activation: layer norms keep an encoder's rows small.
pub const F_ENCODER: u8 = 16;

/// What an encoder looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderShape {
    /// Layers.
    pub layers: u32,
    /// Residual width.
    pub d_model: u32,
    /// Heads, as many for keys and values.
    pub heads: u32,
    /// Inner width.
    pub d_ff: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// Longest sequence: rows of the position table.
    pub context: u32,
    /// What the norms add to the variance.
    pub eps: f64,
    /// How the inner layer bends.
    pub activation: Activation,
    /// How rows become one.
    pub pooling: Pooling,
    /// Activation planes: 2 = A16, 1 = A8.
    pub planes: u8,
}

/// One tensor or one weight's tensors, in pack order; names are the source's (`encoder.layer.0.output.dense`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncoderPart {
    /// A weight: `.q`, `.scale`, then `.mult` and `.bias` where present.
    Weight {
        /// Name without suffix.
        name: String,
        /// Rows.
        n: u32,
        /// Elements a row.
        k: u32,
        /// Whether it has a multiplier for every 32 weights.
        grouped: bool,
        /// Whether it has a bias.
        bias: bool,
    },
    /// `I32 [1, d_model]` gains of a layer norm, then `I32 [1, d_model]` biases.
    Norm {
        /// Name without suffix.
        name: String,
    },
    /// `I32 [1, d_model]`: all ones over the root of the width, which makes the output row a unit vector.
    UnitGain,
}

/// A program and the tensors that it names, in order of id.
#[derive(Debug, Clone)]
pub struct EncoderPlan {
    /// What runs.
    pub program: Program,
    /// What to write.
    pub parts: Vec<EncoderPart>,
}

/// The gain that makes a row of `d` elements a unit vector: a real number as 22-bit integer and fraction bits.
pub(crate) fn unit_gain(d: u32) -> (Vec<i32>, i8) {
    let (ints, f) = number::gains(&vec![1.0 / f64::from(d).sqrt(); d as usize]);
    // number::gains keeps f within +-97.
    (ints, f as i8)
}

/// The plan of a model; `gain_f` gives the fraction bits of the norm of that name.
pub fn plan(shape: &EncoderShape, gain_f: &dyn Fn(&str) -> i8) -> EncoderPlan {
    let mut b = Builder {
        shape,
        gain_f,
        sites: Sites::new(F_ENCODER),
        parts: vec![],
    };
    let d = shape.d_model;
    let words = b.weight("embeddings.word_embeddings", shape.vocab, d, true, false);
    let words = b.sites.add(
        Op::Embed {
            weight: words,
            f_out: F_ENCODER,
        },
        &[],
    );
    let positions = b.weight("embeddings.position_embeddings", shape.context, d, true, false);
    let positions = b.sites.add(
        Op::PosEmbed {
            weight: positions,
            f_out: F_ENCODER,
        },
        &[],
    );
    let sum = b.sites.add(Op::Add, &[words, positions]);
    let mut h = b.norm("embeddings.LayerNorm", sum);
    for l in 0..shape.layers {
        b.sites.layer = Some(l);
        h = b.layer(l, h);
        b.sites.add(Op::Out, &[h]);
    }
    b.sites.layer = None;
    let pooled = b.sites.add(Op::Pool { how: shape.pooling }, &[h]);
    b.parts.push(EncoderPart::UnitGain);
    let unit = Op::RmsNorm {
        gain: b.sites.tensor(),
        gain_f: unit_gain(d).1,
        eps: 0,
        group: d,
        f_in: F_ENCODER,
        f_out: F_ENCODER,
    };
    let unit = b.sites.add(unit, &[pooled]);
    b.sites.add(Op::Emit, &[unit]);
    EncoderPlan {
        program: Program {
            layers: shape.layers,
            d_model: d,
            vocab: shape.vocab,
            context: shape.context,
            kv_heads: shape.heads,
            head_dim: d / shape.heads,
            // A shorter one commits its last layer.
            checkpoint_stride: CHECKPOINT_STRIDE.min(shape.layers),
            sites: b.sites.into_list(),
        },
        parts: b.parts,
    }
}

struct Builder<'a> {
    shape: &'a EncoderShape,
    gain_f: &'a dyn Fn(&str) -> i8,
    sites: Sites,
    parts: Vec<EncoderPart>,
}

impl Builder<'_> {
    /// Tables and not the body are grouped, as in profile A of decoders.
    fn weight(&mut self, name: &str, n: u32, k: u32, table: bool, bias: bool) -> Weight {
        let grouped = table && can_group(k);
        self.parts.push(EncoderPart::Weight {
            name: name.into(),
            n,
            k,
            grouped,
            bias,
        });
        self.sites.weight(grouped, bias)
    }

    fn linear(&mut self, name: &str, n: u32, k: u32, input: SiteId) -> SiteId {
        let weight = self.weight(name, n, k, false, true);
        self.sites.linear(weight, n, k, F_ENCODER, input)
    }

    fn quant(&mut self, planes: u8, group: u32, input: SiteId) -> SiteId {
        self.sites.quant(planes, 0, group, input)
    }

    fn norm(&mut self, name: &str, input: SiteId) -> SiteId {
        self.parts.push(EncoderPart::Norm { name: name.into() });
        let op = Op::LayerNorm {
            gain: self.sites.tensor(),
            bias: self.sites.tensor(),
            gain_f: (self.gain_f)(name),
            eps: norm_eps(self.shape.eps, F_ENCODER),
            group: self.shape.d_model,
            f_in: F_ENCODER,
            f_out: F_ENCODER,
        };
        self.sites.add(op, &[input])
    }

    fn layer(&mut self, l: u32, h: SiteId) -> SiteId {
        let (d, ff, heads, planes) = (
            self.shape.d_model,
            self.shape.d_ff,
            self.shape.heads,
            self.shape.planes,
        );
        let hd = d / heads;
        let name = |what: &str| format!("encoder.layer.{l}.{what}");
        let x = self.quant(planes, d, h);
        let mut project = |what: &str| {
            let y = self.linear(&name(&format!("attention.self.{what}")), d, d, x);
            self.quant(1, hd, y)
        };
        let (q, k, v) = (project("query"), project("key"), project("value"));
        let kv = self.sites.add(Op::KvAppend { heads, head_dim: hd }, &[k, v]);
        let (scale_m, scale_e) = attention_scale(f64::from(hd).sqrt(), 0);
        let attention = Op::Attention {
            heads,
            kv_heads: heads,
            head_dim: hd,
            scale_m,
            scale_e,
            p_bits: P_BITS,
            window: 0,
            causal: false,
            f_out: F_ENCODER,
        };
        let a = self.sites.add(attention, &[q, kv]);
        let a = self.quant(planes, d, a);
        let a = self.linear(&name("attention.output.dense"), d, d, a);
        let sum = self.sites.add(Op::Add, &[h, a]);
        let h = self.norm(&name("attention.output.LayerNorm"), sum);
        let x = self.quant(planes, d, h);
        let x = self.linear(&name("intermediate.dense"), ff, d, x);
        let act = Op::Act {
            act: self.shape.activation,
            f: F_ENCODER,
        };
        let x = self.sites.add(act, &[x]);
        let x = self.quant(planes, ff, x);
        let x = self.linear(&name("output.dense"), d, ff, x);
        let sum = self.sites.add(Op::Add, &[h, x]);
        self.norm(&name("output.LayerNorm"), sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_well_formed_and_emits_a_row() {
        let shape = EncoderShape {
            layers: 3,
            d_model: 96,
            heads: 3,
            d_ff: 128,
            vocab: 50,
            context: 64,
            eps: 1e-12,
            activation: Activation::GeluErf,
            pooling: Pooling::Mean,
            planes: 2,
        };
        let plan = plan(&shape, &|_| 20);
        plan.program.validate().unwrap();
        assert_eq!(plan.program.emits(), Some(96));
        assert!(plan.program.is_bidirectional());
        assert_eq!(plan.program.checkpoints(), [2]);
    }

    #[test]
    fn the_unit_gain_is_one_over_the_root() {
        let (ints, f) = unit_gain(384);
        let value = f64::from(ints[0]) * number::pow2(-i32::from(f));
        assert!((value * 384f64.sqrt() - 1.0).abs() < 1e-6);
    }
}
