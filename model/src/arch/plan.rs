//! A description as a program: the list of sites and the tensors that they name, in order of id.

use bitai_kernels::{
    Op, Program, TensorId,
    program::{SiteId, Weight},
};

use super::{
    Description, F_ACT, Layer, Settings,
    sites::{CHECKPOINT_STRIDE, P_BITS, Sites, attention_scale, can_group, norm_eps},
};

/// One tensor or one weight's tensors, in pack order.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// `I16 [context, head_dim]`: table `rope` of [`Description::ropes`].
    Rope {
        /// Index of the table.
        rope: usize,
    },
    /// `I32 [1, cols]` gains of a norm.
    Gain {
        /// Name without suffix, as in GGUF: `blk.0.attn_norm`.
        name: String,
        /// Elements normed together.
        cols: u32,
        /// Whether it norms the residual before a weight that could take its gains in (the others stay).
        folds: bool,
    },
    /// A linear weight: `.q`, `.scale`, then `.mult` and `.bias` where present.
    Linear(LinearPart),
    /// `Scale [1, n]`: the row scales of the weight just before, times a number.
    Rescaled {
        /// Name in the pack.
        name: String,
        /// The number.
        by: f64,
    },
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
    /// The norm of the residual whose output it reads, by name.
    pub norm: Option<String>,
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

/// The plan of a model; `gain_f` gives the fraction bits of the gains of the norm of that name.
pub fn plan(model: &Description, settings: Settings, gain_f: &dyn Fn(&str) -> i8) -> Plan {
    let mut b = Builder {
        model,
        settings,
        gain_f,
        sites: Sites::new(F_ACT),
        parts: Vec::new(),
    };
    let tables: Vec<TensorId> = (0..model.ropes.len())
        .map(|rope| b.part(Part::Rope { rope }))
        .collect();
    let (embed, head) = b.embedding();
    let mut h = b.sites.add(
        Op::Embed {
            weight: embed,
            f_out: model.f_residual,
        },
        &[],
    );
    for (l, layer) in (0u32..).zip(&model.layers) {
        b.sites.layer = Some(l);
        h = b.attention(l, layer, tables[layer.rope], h);
        h = b.gated_unit(l, h);
        b.sites.add(Op::Out, &[h]);
    }
    b.sites.layer = None;
    let n = b.residual_norm("output_norm".into(), h);
    // The head decides the token: it keeps 16-bit activations in every profile.
    let x = b.sites.quant(2, 0, model.d_model, n);
    let head = head.unwrap_or_else(|| {
        let head = b.linear_part("output".into(), Role::Head, model.vocab, model.d_model);
        b.weight(LinearPart {
            grouped: can_group(model.d_model),
            norm: Some("output_norm".into()),
            ..head
        })
    });
    let logits = b.sites.linear(head, model.vocab, model.d_model, F_ACT, x);
    b.sites.add(Op::Sample { f: F_ACT }, &[logits]);
    Plan {
        program: Program {
            // A description's layers were counted in 32 bits.
            layers: model.layers.len() as u32,
            d_model: model.d_model,
            vocab: model.vocab,
            context: model.context,
            kv_heads: model.kv_heads,
            head_dim: model.head_dim,
            checkpoint_stride: CHECKPOINT_STRIDE,
            sites: b.sites.into_list(),
        },
        parts: b.parts,
    }
}

struct Builder<'a> {
    model: &'a Description,
    settings: Settings,
    gain_f: &'a dyn Fn(&str) -> i8,
    sites: Sites,
    parts: Vec<Part>,
}

impl Builder<'_> {
    /// A part of one tensor.
    fn part(&mut self, part: Part) -> TensorId {
        self.parts.push(part);
        self.sites.tensor()
    }

    fn weight(&mut self, part: LinearPart) -> Weight {
        let weight = self.sites.weight(part.grouped, part.bias);
        self.parts.push(Part::Linear(part));
        weight
    }

    /// A weight of the body with neither bias nor norm.
    fn linear_part(&self, name: String, role: Role, n: u32, k: u32) -> LinearPart {
        LinearPart {
            name,
            role,
            n,
            k,
            grouped: self.settings.grouped_body && can_group(k),
            bias: false,
            norm: None,
        }
    }

    /// A norm over groups of `group` elements.
    fn norm(&mut self, name: String, input: SiteId, group: u32, f_in: u8, f_out: u8) -> SiteId {
        self.norm_of(name, input, group, f_in, f_out, false)
    }

    /// A norm of the residual, whose output only linear weights read.
    fn residual_norm(&mut self, name: String, h: SiteId) -> SiteId {
        self.norm_of(name, h, self.model.d_model, self.model.f_residual, F_ACT, true)
    }

    fn norm_of(
        &mut self,
        name: String,
        input: SiteId,
        group: u32,
        f_in: u8,
        f_out: u8,
        folds: bool,
    ) -> SiteId {
        let gain_f = (self.gain_f)(&name);
        let gain = self.part(Part::Gain {
            name,
            cols: group,
            folds,
        });
        let op = Op::RmsNorm {
            gain,
            gain_f,
            eps: norm_eps(self.model.eps, f_in),
            group,
            f_in,
            f_out,
        };
        self.sites.add(op, &[input])
    }

    /// The embedding as it is read, and as a tied head reads it.
    fn embedding(&mut self) -> (Weight, Option<Weight>) {
        let m = self.model;
        let table = LinearPart {
            grouped: can_group(m.d_model),
            ..self.linear_part("token_embd".into(), Role::Embed, m.vocab, m.d_model)
        };
        let plain = self.weight(table);
        let mut read = plain;
        if m.embed_scale != 1.0 {
            read.scale = self.part(Part::Rescaled {
                name: "token_embd.embed_scale".into(),
                by: m.embed_scale,
            });
        }
        (read, m.tied.then_some(plain))
    }

    /// Joins what a block put out with the residual, through its own norm where the model has one.
    fn join(&mut self, weight: Weight, k: u32, input: SiteId, post_norm: String, h: SiteId) -> SiteId {
        let (d, f) = (self.model.d_model, self.model.f_residual);
        let out = if self.model.post_norms {
            let out = self.sites.linear(weight, d, k, F_ACT, input);
            self.norm(post_norm, out, d, F_ACT, f)
        } else {
            self.sites.linear(weight, d, k, f, input)
        };
        self.sites.add(Op::Add, &[h, out])
    }

    fn attention(&mut self, l: u32, layer: &Layer, table: TensorId, h: SiteId) -> SiteId {
        let m = self.model;
        let (d, hd) = (m.d_model, m.head_dim);
        let name = |what: &str| format!("blk.{l}.{what}");
        let n = self.residual_norm(name("attn_norm"), h);
        let x = self.sites.quant(self.settings.planes, 0, d, n);
        let project = |b: &mut Self, what: &str, role, heads: u32| {
            let part = b.linear_part(name(what), role, heads * hd, d);
            let weight = b.weight(LinearPart {
                bias: m.qkv_bias,
                norm: Some(name("attn_norm")),
                ..part
            });
            b.sites.linear(weight, heads * hd, d, F_ACT, x)
        };
        let mut q = project(self, "attn_q", Role::QueryKey, m.heads);
        let mut k = project(self, "attn_k", Role::QueryKey, m.kv_heads);
        let v = project(self, "attn_v", Role::Value, m.kv_heads);
        if m.qk_norm {
            q = self.norm(name("attn_q_norm"), q, hd, F_ACT, F_ACT);
            k = self.norm(name("attn_k_norm"), k, hd, F_ACT, F_ACT);
        }
        let rope = Op::Rope {
            table,
            head_dim: hd,
            style: m.rope_style,
        };
        let q = self.sites.add(rope.clone(), &[q]);
        let k = self.sites.add(rope, &[k]);
        let wht = if self.settings.wht_qk { wht_block(hd) } else { 0 };
        let q = self.sites.quant(1, wht, hd, q);
        let k = self.sites.quant(1, wht, hd, k);
        let v = self.sites.quant(1, 0, hd, v);
        let kv = self.sites.add(
            Op::KvAppend {
                heads: m.kv_heads,
                head_dim: hd,
            },
            &[k, v],
        );
        let (scale_m, scale_e) = attention_scale(m.attention_divisor, wht);
        let a = self.sites.add(
            Op::Attention {
                heads: m.heads,
                kv_heads: m.kv_heads,
                head_dim: hd,
                scale_m,
                scale_e,
                p_bits: P_BITS,
                window: layer.window,
                causal: true,
                f_out: F_ACT,
            },
            &[q, kv],
        );
        let width = m.heads * hd;
        let a = self.sites.quant(self.settings.planes, 0, width, a);
        let o = self.linear_part(name("attn_output"), Role::AttnOut, d, width);
        let o = self.weight(o);
        self.join(o, width, a, name("post_attention_norm"), h)
    }

    fn gated_unit(&mut self, l: u32, h: SiteId) -> SiteId {
        let m = self.model;
        let (d, ff) = (m.d_model, m.d_ff);
        let name = |what: &str| format!("blk.{l}.{what}");
        let n = self.residual_norm(name("ffn_norm"), h);
        let x = self.sites.quant(self.settings.planes, 0, d, n);
        let project = |b: &mut Self, what: &str| {
            let part = b.linear_part(name(what), Role::GateUp, ff, d);
            let weight = b.weight(LinearPart {
                norm: Some(name("ffn_norm")),
                ..part
            });
            b.sites.linear(weight, ff, d, F_ACT, x)
        };
        let gate = project(self, "ffn_gate");
        let up = project(self, "ffn_up");
        let glu = Op::Glu {
            act: m.activation,
            f: F_ACT,
        };
        let g = self.sites.add(glu, &[gate, up]);
        let wht = if self.settings.wht_down { wht_block(ff) } else { 0 };
        let g = self.sites.quant(self.settings.planes, wht, ff, g);
        let down = self.linear_part(name("ffn_down"), Role::Down, d, ff);
        let down = self.weight(down);
        self.join(down, ff, g, name("post_ffw_norm"), h)
    }
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
}
