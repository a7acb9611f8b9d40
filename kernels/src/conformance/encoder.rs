//! Encoders of the suite: learned positions, layer norms, attention over the whole sequence, a unit without a
//! gate, pooling and an output row.

use super::build::{Builder, Case, Wild};
use crate::{
    Op, Program,
    program::{Activation, Pooling, SiteId},
};

/// Shape of a BERT-like program.
#[derive(Debug, Clone, Copy)]
struct Encoder {
    layers: u32,
    heads: u32,
    head_dim: u32,
    ff: usize,
    planes: u8,
    how: Pooling,
    wild: Wild,
}

impl Encoder {
    const SMALL: Self = Self {
        layers: 2,
        heads: 3,
        head_dim: 16,
        ff: 80,
        planes: 2,
        how: Pooling::Mean,
        wild: Wild::Tame,
    };

    fn build(&self, name: String) -> Case {
        let d = (self.heads * self.head_dim) as usize;
        let mut b = Builder::new(name, d as u32);
        b.wild = self.wild;
        *b.head() = Program {
            layers: self.layers,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            ..b.head().clone()
        };
        let words = b.embed(16, 0);
        let positions = b.pos_embed(16, -2);
        let sum = b.site(None, Op::Add, &[words, positions]);
        let mut h = b.layer_norm(None, sum, d, 16);
        for l in 0..self.layers {
            h = self.layer(&mut b, l, h, d);
        }
        let pooled = b.site(None, Op::Pool { how: self.how }, &[h]);
        let unit = b.norm(None, pooled, d, 16);
        b.site(None, Op::Emit, &[unit]);
        b.done()
    }

    fn layer(&self, b: &mut Builder, l: u32, h: SiteId, d: usize) -> SiteId {
        let hd = self.head_dim as usize;
        let biased = (false, true, 1);
        let x = b.quant(l, h, self.planes, 0, d);
        let [q, k, v] = [(); 3].map(|()| {
            let y = b.linear(l, x, (d, d), biased, 16);
            b.quant(l, y, 1, 0, hd)
        });
        let append = Op::KvAppend {
            heads: self.heads,
            head_dim: self.head_dim,
        };
        let kv = b.site(l, append, &[k, v]);
        let attention = Op::Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            scale_m: 0xb8aa,
            scale_e: -17,
            p_bits: 15,
            window: 0,
            causal: false,
            f_out: 16,
        };
        let a = b.site(l, attention, &[q, kv]);
        let a = b.quant(l, a, self.planes, 0, d);
        let a = b.linear(l, a, (d, d), biased, 16);
        let sum = b.site(l, Op::Add, &[h, a]);
        let h = b.layer_norm(l, sum, d, 16);
        let x = b.quant(l, h, self.planes, 0, d);
        let x = b.linear(l, x, (self.ff, d), biased, 16);
        let act = Op::Act {
            act: Activation::GeluErf,
            f: 16,
        };
        let x = b.site(l, act, &[x]);
        let x = b.quant(l, x, self.planes, 0, self.ff);
        let x = b.linear(l, x, (d, self.ff), biased, 16);
        let sum = b.site(l, Op::Add, &[h, x]);
        let h = b.layer_norm(l, sum, d, 16);
        b.site(l, Op::Out, &[h]);
        h
    }
}

/// Encoders, each for what its name says.
pub(super) fn encoders() -> Vec<Case> {
    let small = Encoder::SMALL;
    let first = Encoder {
        how: Pooling::First,
        ..small
    };
    let narrow = Encoder { planes: 1, ..small };
    let hostile = Encoder {
        wild: Wild::Hostile,
        ..small
    };
    [
        ("mean, A16", small),
        ("class token", first),
        ("A8", narrow),
        ("hostile scales, gains and biases", hostile),
    ]
    .into_iter()
    .map(|(why, shape)| shape.build(format!("encoder: {why}")))
    .collect()
}
