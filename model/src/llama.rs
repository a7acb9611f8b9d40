//! The Llama family as a program: shape and settings in, list of sites and plan of tensors out. Import and
//! synthetic packs both walk the plan, so that ids and order cannot drift apart.

use bitai_kernels::{
    Op, Program, Site, TensorId,
    program::{Activation, RopeStyle, SiteId, Weight},
};

use crate::import::number;

/// Fraction bits of the residual (TENSOR_SPEC: Q14 for Llama).
pub const F_RESIDUAL: u8 = 14;
/// Fraction bits of every other activation.
pub const F_ACT: u8 = 16;
/// Layers between committed residual rows.
pub const CHECKPOINT_STRIDE: u32 = 16;
/// Contexts above this need 23 probability bits: 15 lose diffuse mass.
pub const CONTEXT_MAX_P15: u32 = 4096;

/// What a Llama model looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlamaShape {
    /// Layers.
    pub layers: u32,
    /// Residual width.
    pub d_model: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements a head, even.
    pub head_dim: u32,
    /// Inner width of the gated unit.
    pub d_ff: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// Longest sequence.
    pub context: u32,
    /// round(eps * 2^28) of the norms.
    pub eps_q28: u64,
    /// Whether Q, K and V have biases.
    pub qkv_bias: bool,
    /// Whether the head shares the embedding's tensor.
    pub tied: bool,
}

/// Numeric settings by site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Activation planes of the body: 2 = A16, 1 = A8.
    pub planes: u8,
    /// Walsh-Hadamard transform on Q and K.
    pub wht_qk: bool,
    /// Walsh-Hadamard transform on the input of the down projection (its weight is transformed to match).
    pub wht_down: bool,
}

impl Settings {
    /// The settings of a profile.
    pub const fn of(profile: crate::pack::Profile) -> Self {
        match profile {
            crate::pack::Profile::A => Self {
                planes: 2,
                wht_qk: true,
                wht_down: false,
            },
            crate::pack::Profile::B => Self {
                planes: 1,
                wht_qk: true,
                wht_down: true,
            },
        }
    }
}

/// One tensor or one weight's tensors, in pack order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// `I16 [context, head_dim]` RoPE table.
    Rope,
    /// `I32 [1, d_model]` gains of a norm; the index into the gains' fraction bits.
    Gain {
        /// Name without suffix, as in GGUF: `blk.0.attn_norm`.
        name: String,
    },
    /// A linear weight: `.q`, `.scale`, then `.mult` and `.bias` where present.
    Linear(LinearPart),
}

/// A linear weight of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearPart {
    /// Name without suffix, as in GGUF: `blk.0.attn_q`.
    pub name: String,
    /// Which of the layer's weights it is.
    pub role: Role,
    /// Output rows.
    pub n: u32,
    /// Input elements.
    pub k: u32,
    /// Whether it has a multiplier for every 32 weights.
    pub grouped: bool,
    /// Whether it has a bias (in [`F_ACT`] fraction bits).
    pub bias: bool,
}

/// The place of a weight, which decides how a rotation is folded into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Token embedding.
    Embed,
    /// Q or K: reads the residual through a norm.
    QueryKey,
    /// V.
    Value,
    /// Attention output: writes the residual.
    AttnOut,
    /// Gate or up.
    GateUp,
    /// Down: writes the residual.
    Down,
    /// The head.
    Head,
}

/// A program and the tensors that it names, in order of id.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What runs.
    pub program: Program,
    /// What to write.
    pub parts: Vec<Part>,
}

/// The largest power of two up to 512 that divides `dim`; 0 where that is 1.
pub fn wht_block(dim: u32) -> u16 {
    let block = (1u32 << dim.trailing_zeros().min(9)).min(512);
    if block <= 1 { 0 } else { block as u16 }
}

struct Builder {
    sites: Vec<Site>,
    parts: Vec<Part>,
    next_tensor: TensorId,
    layer: Option<u32>,
}

impl Builder {
    fn site(&mut self, op: Op, inputs: &[SiteId]) -> SiteId {
        self.sites.push(Site {
            layer: self.layer,
            op,
            inputs: inputs.to_vec(),
        });
        // A program has a few thousand sites.
        (self.sites.len() - 1) as SiteId
    }

    fn tensor(&mut self) -> TensorId {
        self.next_tensor += 1;
        self.next_tensor - 1
    }

    fn weight(&mut self, part: LinearPart) -> Weight {
        let weight = Weight {
            q: self.tensor(),
            scale: self.tensor(),
            mult: part.grouped.then(|| self.tensor()),
            bias: part.bias.then(|| self.tensor()),
        };
        self.parts.push(Part::Linear(part));
        weight
    }

    fn gain(&mut self, name: String) -> TensorId {
        self.parts.push(Part::Gain { name });
        self.tensor()
    }
}

/// The plan of a model; `gain_f` gives the fraction bits of the norm of that name.
pub fn plan(shape: &LlamaShape, settings: Settings, gain_f: &dyn Fn(&str) -> i8) -> Plan {
    let mut b = Builder {
        sites: Vec::new(),
        parts: Vec::new(),
        next_tensor: 0,
        layer: None,
    };
    let (d, hd) = (shape.d_model, shape.head_dim);
    let grouped = |k: u32| (k as usize).is_multiple_of(number::GROUP);
    let quant = |planes, wht, group, f_in| Op::Quant {
        planes,
        wht,
        group,
        f_in,
    };
    let linear = |weight, n, k, f_out| Op::Linear {
        weight,
        n,
        k,
        k_segments: 1,
        f_out,
    };
    let part = |name: String, role, n, k| LinearPart {
        name,
        role,
        n,
        k,
        grouped: false,
        bias: false,
    };
    b.parts.push(Part::Rope);
    let table = b.tensor();
    let embed = b.weight(LinearPart {
        grouped: grouped(d),
        ..part("token_embd".into(), Role::Embed, shape.vocab, d)
    });
    let mut h = b.site(
        Op::Embed {
            weight: embed,
            f_out: F_RESIDUAL,
        },
        &[],
    );
    let wht_qk = if settings.wht_qk { wht_block(hd) } else { 0 };
    let wht_down = if settings.wht_down {
        wht_block(shape.d_ff)
    } else {
        0
    };
    let (scale_m, scale_e) = attention_scale(hd, wht_qk);
    let p_bits = if shape.context > CONTEXT_MAX_P15 { 23 } else { 15 };
    let norm = |b: &mut Builder, name: String, h: SiteId| {
        let gain_f = gain_f(&name);
        let gain = b.gain(name);
        b.site(
            Op::RmsNorm {
                gain,
                gain_f,
                eps: shape.eps_q28,
                group: d,
                f_in: F_RESIDUAL,
                f_out: F_ACT,
            },
            &[h],
        )
    };
    for l in 0..shape.layers {
        b.layer = Some(l);
        let name = |what: &str| format!("blk.{l}.{what}");
        let n = norm(&mut b, name("attn_norm"), h);
        let x = b.site(quant(settings.planes, 0, d, F_ACT), &[n]);
        let project = |b: &mut Builder, what: &str, role, heads: u32| {
            let weight = b.weight(LinearPart {
                bias: shape.qkv_bias,
                ..part(name(what), role, heads * hd, d)
            });
            b.site(linear(weight, heads * hd, d, F_ACT), &[x])
        };
        let q = project(&mut b, "attn_q", Role::QueryKey, shape.heads);
        let k = project(&mut b, "attn_k", Role::QueryKey, shape.kv_heads);
        let v = project(&mut b, "attn_v", Role::Value, shape.kv_heads);
        let rope = Op::Rope {
            table,
            head_dim: hd,
            style: RopeStyle::Interleaved,
        };
        let q = b.site(rope.clone(), &[q]);
        let k = b.site(rope, &[k]);
        let q = b.site(quant(1, wht_qk, hd, F_ACT), &[q]);
        let k = b.site(quant(1, wht_qk, hd, F_ACT), &[k]);
        let v = b.site(quant(1, 0, hd, F_ACT), &[v]);
        let kv = b.site(
            Op::KvAppend {
                heads: shape.kv_heads,
                head_dim: hd,
            },
            &[k, v],
        );
        let a = b.site(
            Op::Attention {
                heads: shape.heads,
                kv_heads: shape.kv_heads,
                head_dim: hd,
                scale_m,
                scale_e,
                p_bits,
                window: 0,
                causal: true,
                f_out: F_ACT,
            },
            &[q, kv],
        );
        let width = shape.heads * hd;
        let a = b.site(quant(settings.planes, 0, width, F_ACT), &[a]);
        let o = b.weight(part(name("attn_output"), Role::AttnOut, d, width));
        let a = b.site(linear(o, d, width, F_RESIDUAL), &[a]);
        h = b.site(Op::Add, &[h, a]);

        let n = norm(&mut b, name("ffn_norm"), h);
        let x = b.site(quant(settings.planes, 0, d, F_ACT), &[n]);
        let gate = b.weight(part(name("ffn_gate"), Role::GateUp, shape.d_ff, d));
        let gate = b.site(linear(gate, shape.d_ff, d, F_ACT), &[x]);
        let up = b.weight(part(name("ffn_up"), Role::GateUp, shape.d_ff, d));
        let up = b.site(linear(up, shape.d_ff, d, F_ACT), &[x]);
        let m = b.site(
            Op::Glu {
                act: Activation::Silu,
                f: F_ACT,
            },
            &[gate, up],
        );
        let m = b.site(quant(settings.planes, wht_down, shape.d_ff, F_ACT), &[m]);
        let down = b.weight(part(name("ffn_down"), Role::Down, d, shape.d_ff));
        let m = b.site(linear(down, d, shape.d_ff, F_RESIDUAL), &[m]);
        h = b.site(Op::Add, &[h, m]);
        b.site(Op::Out, &[h]);
    }
    b.layer = None;
    let n = norm(&mut b, "output_norm".into(), h);
    // The head decides the token: it keeps 16-bit activations in every profile.
    let x = b.site(quant(2, 0, d, F_ACT), &[n]);
    let head = if shape.tied {
        embed
    } else {
        b.weight(LinearPart {
            grouped: grouped(d),
            ..part("output".into(), Role::Head, shape.vocab, d)
        })
    };
    let logits = b.site(linear(head, shape.vocab, d, F_ACT), &[x]);
    b.site(Op::Sample { f: F_ACT }, &[logits]);
    Plan {
        program: Program {
            layers: shape.layers,
            d_model: d,
            vocab: shape.vocab,
            context: shape.context,
            kv_heads: shape.kv_heads,
            head_dim: hd,
            checkpoint_stride: CHECKPOINT_STRIDE,
            sites: b.sites,
        },
        parts: b.parts,
    }
}

/// log2(e) / sqrt(head_dim), and / block where both sides are transformed (an unnormalised transform
/// multiplies the dot product by its block), as a spec scale.
fn attention_scale(head_dim: u32, wht: u16) -> (u16, i16) {
    let block = f64::from(wht.max(1));
    number::scale(core::f64::consts::LOG2_E / f64::from(head_dim).sqrt() / block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_powers_of_two_that_divide() {
        assert_eq!(
            [64, 96, 576, 1536, 4096, 5, 80].map(wht_block),
            [64, 32, 64, 512, 512, 0, 16]
        );
    }

    #[test]
    fn attention_scale_is_log2_e_over_root_d() {
        let (m, e) = attention_scale(64, 64);
        let value = f64::from(m) * number::pow2(i32::from(e));
        assert!((value * 8.0 * 64.0 - core::f64::consts::LOG2_E).abs() < 1e-4);
    }
}
