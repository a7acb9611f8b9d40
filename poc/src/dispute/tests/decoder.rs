//! A second small decoder: layer norms, learned positions, a unit without a gate, norms of heads, halved pairs, and
//! heads whose records leave gaps in a cached row.

use bitai_kernels::{
    DType, Op, Program,
    program::{Activation, RopeStyle},
};

use super::{Arc, Builder, Model, VOCAB, noise};

/// Its width: a norm sums it in two parts.
pub(super) const WIDE: u32 = 320;
/// Elements of a head: a record is 520 bytes, so a chunk holds one and a gap.
pub(super) const LONG: u32 = 256;
/// Heads of queries and of keys.
const FEW: u32 = 2;

impl Builder {
    fn layer_norm(&mut self, d: u32, x: u32) -> u32 {
        let seed = self.tensors.len();
        let ints = |name: &str, base: i32, step: i32| {
            noise(&format!("{name}{seed}"), d as usize)
                .into_iter()
                .flat_map(|b| (base + i32::from(b) * step).to_le_bytes())
                .collect()
        };
        let (gains, biases) = (ints("lg", 1 << 21, 3000), ints("lb", -9_000, 70));
        let gain = self.tensor(DType::I32, 1, d as usize, gains);
        let bias = self.tensor(DType::I32, 1, d as usize, biases);
        let op = Op::LayerNorm {
            gain,
            bias,
            gain_f: 21,
            eps: 2684,
            group: d,
            f_in: 14,
            f_out: 16,
        };
        self.site(op, &[x])
    }
}

impl Model {
    /// The second decoder.
    pub(super) fn second(layers: u32) -> Self {
        let mut b = Builder::default();
        let quant = |planes, group| Op::Quant {
            planes,
            wht: 0,
            group,
            f_in: 16,
        };
        let context = 400;
        let bytes = noise("halves", (context * LONG * 2) as usize);
        let table = b.tensor(DType::I16, context as usize, LONG as usize, bytes);
        let embed = b.weight(VOCAB, WIDE, true, false);
        let places = b.weight(context, WIDE, false, false);
        let f_out = 14;
        let ids = b.site(Op::Embed { weight: embed, f_out }, &[]);
        let weight = places;
        let pos = b.site(Op::PosEmbed { weight, f_out }, &[]);
        let mut h = b.site(Op::Add, &[ids, pos]);
        for l in 0..layers {
            b.layer = Some(l);
            let n = b.layer_norm(WIDE, h);
            let x = b.site(quant(2, WIDE), &[n]);
            let mut head = |normed: bool| {
                let w = b.weight(FEW * LONG, WIDE, false, true);
                let y = b.linear(w, (FEW * LONG, WIDE), 1, 16, x);
                if !normed {
                    return b.site(quant(1, LONG), &[y]);
                }
                let y = b.norm(LONG, y);
                let rope = Op::Rope {
                    table,
                    head_dim: LONG,
                    style: RopeStyle::Halves,
                };
                let y = b.site(rope, &[y]);
                b.site(quant(1, LONG), &[y])
            };
            let (q, k, v) = (head(true), head(true), head(false));
            let cache = Op::KvAppend {
                heads: FEW,
                head_dim: LONG,
            };
            let kv = b.site(cache, &[k, v]);
            let attention = Op::Attention {
                heads: FEW,
                kv_heads: FEW,
                head_dim: LONG,
                scale_m: 46_000,
                scale_e: -23,
                p_bits: 15,
                window: 0,
                causal: true,
                f_out: 16,
            };
            let a = b.site(attention, &[q, kv]);
            let a = b.site(quant(2, FEW * LONG), &[a]);
            let w = b.weight(WIDE, FEW * LONG, false, false);
            let a = b.linear(w, (WIDE, FEW * LONG), 1, 14, a);
            h = b.site(Op::Add, &[h, a]);
            let n = b.layer_norm(WIDE, h);
            let x = b.site(quant(1, WIDE), &[n]);
            let w = b.weight(64, WIDE, false, true);
            let m = b.linear(w, (64, WIDE), 1, 16, x);
            let act = Activation::GeluTanh;
            let m = b.site(Op::Act { act, f: 16 }, &[m]);
            let m = b.site(quant(2, 64), &[m]);
            let w = b.weight(WIDE, 64, false, true);
            let m = b.linear(w, (WIDE, 64), 1, 14, m);
            h = b.site(Op::Add, &[h, m]);
            b.site(Op::Out, &[h]);
        }
        b.layer = None;
        let n = b.layer_norm(WIDE, h);
        let x = b.site(quant(2, WIDE), &[n]);
        let logits = b.linear(embed, (VOCAB, WIDE), 1, 16, x);
        b.site(Op::Sample { f: 16 }, &[logits]);
        let program = Program {
            layers,
            d_model: WIDE,
            vocab: VOCAB,
            context,
            kv_heads: FEW,
            head_dim: LONG,
            checkpoint_stride: layers,
            sites: b.sites,
        };
        program.validate().unwrap();
        Self {
            program: Arc::new(program),
            names: b.names,
            tensors: b.tensors,
        }
    }
}
