//! Builds small programs and their tensors from a seed.

use std::sync::Arc;

use crate::{
    HostTensor, Op, Program, Site,
    num::Scale,
    program::{Activation, RopeStyle, SiteId, Weight},
    reference::linear::GROUP,
    tensor::{DType, TensorId},
};

/// A program with its tensors, and why it is in the suite.
#[derive(Clone)]
pub struct Case {
    /// What it is and why.
    pub name: String,
    /// The program.
    pub program: Arc<Program>,
    /// Its tensors.
    pub tensors: Vec<HostTensor>,
}

/// Integers from a seed.
pub struct Rng(blake3::OutputReader);

impl Rng {
    /// The stream of a name.
    pub fn new(name: &str) -> Self {
        Self(
            blake3::Hasher::new()
                .update(b"bitai conformance ")
                .update(name.as_bytes())
                .finalize_xof(),
        )
    }

    /// The next 8 bytes.
    pub fn draw(&mut self) -> u64 {
        let mut b = [0; 8];
        self.0.fill(&mut b);
        u64::from_le_bytes(b)
    }

    /// A number in `lo..=hi` (the slight bias of the remainder is of no interest here).
    pub fn range(&mut self, lo: i64, hi: i64) -> i64 {
        lo + (self.draw() % (hi - lo + 1).unsigned_abs()) as i64
    }

    /// One of `items`.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[(self.draw() % items.len() as u64) as usize]
    }
}

/// How wild the scales and values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wild {
    /// As an importer makes them.
    Tame,
    /// Every weight +127 or -127: the largest sums.
    Extreme,
    /// Any mantissa and exponent, zero and the limits among them.
    Hostile,
}

/// Builds one case.
pub struct Builder {
    /// The stream that everything is drawn from.
    pub rng: Rng,
    /// How scales and values are drawn.
    pub wild: Wild,
    name: String,
    program: Program,
    tensors: Vec<HostTensor>,
}

impl Builder {
    /// An empty program of one layer.
    pub fn new(name: impl Into<String>, d_model: u32) -> Self {
        let name = name.into();
        Self {
            rng: Rng::new(&name),
            wild: Wild::Tame,
            program: Program {
                layers: 1,
                d_model,
                vocab: 40,
                context: 48,
                kv_heads: 1,
                head_dim: 2,
                checkpoint_stride: 1,
                sites: vec![],
            },
            tensors: vec![],
            name,
        }
    }

    /// The program's own numbers.
    pub fn head(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Appends a site.
    pub fn site(&mut self, layer: impl Into<Option<u32>>, op: Op, inputs: &[SiteId]) -> SiteId {
        self.program.sites.push(Site {
            layer: layer.into(),
            op,
            inputs: inputs.to_vec(),
        });
        self.program.sites.len() as u32 - 1
    }

    /// The finished case.
    pub fn done(self) -> Case {
        Case {
            name: self.name,
            program: Arc::new(self.program),
            tensors: self.tensors,
        }
    }

    fn tensor(&mut self, dtype: DType, rows: usize, cols: usize, bytes: Vec<u8>) -> TensorId {
        self.tensors.push(HostTensor::owned(dtype, rows, cols, bytes));
        self.tensors.len() as u32 - 1
    }

    /// A scale whose value times 127 sqrt(k) is about `2^size`.
    pub fn scale(&mut self, k: usize, size: i64) -> Scale {
        let tame = Scale {
            m: self.rng.range(1 << 15, 0xffff) as u16,
            e: (size - 22 - i64::from(k.ilog2()) / 2) as i16,
        };
        match self.wild {
            Wild::Tame | Wild::Extreme => tame,
            Wild::Hostile => Scale {
                m: self.rng.pick(&[tame.m, 0, 1, 0x7fff, 0x8000, 0xffff]),
                e: self
                    .rng
                    .pick(&[tame.e, tame.e, tame.e + 9, tame.e - 9, 0, i16::MAX, i16::MIN]),
            },
        }
    }

    /// A weight of `n` rows of `k` whose outputs are about `2^size`.
    pub fn weight(&mut self, n: usize, k: usize, grouped: bool, bias: bool, size: i64) -> Weight {
        let q = (0..n * k)
            .map(|_| match self.wild {
                Wild::Extreme => self.rng.pick(&[127i8, 127, 127, -127]) as u8,
                _ => self.rng.range(-127, 127) as i8 as u8,
            })
            .collect();
        let scales = (0..n).flat_map(|_| self.scale(k, size).to_bytes()).collect();
        let mults: Vec<u8> = (0..n * (k / GROUP))
            .map(|_| {
                if self.wild == Wild::Extreme {
                    15
                } else {
                    self.rng.range(1, 15) as u8
                }
            })
            .collect();
        let biases: Vec<u8> = (0..n)
            .flat_map(|_| (self.rng.range(-40_000, 40_000) as i32).to_le_bytes())
            .collect();
        Weight {
            q: self.tensor(DType::I8, n, k, q),
            scale: self.tensor(DType::Scale, 1, n, scales),
            mult: grouped.then(|| self.tensor(DType::U8, n, k / GROUP, mults)),
            bias: bias.then(|| self.tensor(DType::I32, 1, n, biases)),
        }
    }

    /// An embedding with values of about `2^size` in `f_out` fraction bits.
    pub fn embed(&mut self, f_out: u8, size: i64) -> SiteId {
        let (vocab, d) = (self.program.vocab as usize, self.program.d_model as usize);
        let weight = self.weight(vocab, d, false, false, size + i64::from(d.ilog2()) / 2);
        self.site(None, Op::Embed { weight, f_out }, &[])
    }

    /// An embedding of positions, as large as [`Builder::embed`]'s.
    pub fn pos_embed(&mut self, f_out: u8, size: i64) -> SiteId {
        let (context, d) = (self.program.context as usize, self.program.d_model as usize);
        let weight = self.weight(context, d, false, false, size + i64::from(d.ilog2()) / 2);
        self.site(None, Op::PosEmbed { weight, f_out }, &[])
    }

    /// A layer norm with gains of about 1 and biases of as much.
    pub fn layer_norm(
        &mut self,
        layer: impl Into<Option<u32>>,
        input: SiteId,
        group: usize,
        f_in: u8,
    ) -> SiteId {
        // The RMS norm's draws, then a bias.
        let id = self.norm(layer, input, group, f_in);
        let hostile = self.wild == Wild::Hostile;
        let biases = (0..group)
            .flat_map(|_| {
                let b = self.rng.range(-(1 << 16), 1 << 16) as i32;
                if hostile {
                    self.rng.pick(&[b, 0, i32::MAX, i32::MIN])
                } else {
                    b
                }
                .to_le_bytes()
            })
            .collect();
        let bias = self.tensor(DType::I32, 1, group, biases);
        let op = &mut self.program.sites[id as usize].op;
        if let Op::RmsNorm {
            gain,
            gain_f,
            eps,
            group,
            f_in,
            f_out,
        } = *op
        {
            *op = Op::LayerNorm {
                gain,
                bias,
                gain_f,
                eps,
                group,
                f_in,
                f_out,
            };
        }
        id
    }

    /// A quantisation.
    pub fn quant(
        &mut self,
        layer: impl Into<Option<u32>>,
        input: SiteId,
        planes: u8,
        wht: u16,
        group: usize,
    ) -> SiteId {
        let op = Op::Quant {
            planes,
            wht,
            group: group as u32,
            f_in: 16,
        };
        self.site(layer, op, &[input])
    }

    /// A linear site.
    pub fn linear(
        &mut self,
        layer: impl Into<Option<u32>>,
        input: SiteId,
        (n, k): (usize, usize),
        (grouped, bias, k_segments): (bool, bool, u8),
        f_out: u8,
    ) -> SiteId {
        let weight = self.weight(n, k, grouped, bias, 0);
        let (n, k) = (n as u32, k as u32);
        let op = Op::Linear {
            weight,
            n,
            k,
            k_segments,
            f_out,
        };
        self.site(layer, op, &[input])
    }

    /// An RMS norm with gains of about 1.
    pub fn norm(&mut self, layer: impl Into<Option<u32>>, input: SiteId, group: usize, f_in: u8) -> SiteId {
        let hostile = self.wild == Wild::Hostile;
        let gains = (0..group)
            .flat_map(|_| {
                let g = self.rng.range(-(1 << 21), 1 << 21) as i32;
                if hostile {
                    self.rng.pick(&[g, 0, i32::MAX, i32::MIN])
                } else {
                    g
                }
                .to_le_bytes()
            })
            .collect();
        let op = Op::RmsNorm {
            gain: self.tensor(DType::I32, 1, group, gains),
            gain_f: if hostile {
                self.rng.range(-128, 127) as i8
            } else {
                20
            },
            eps: if hostile {
                self.rng.pick(&[0, 1, u64::MAX])
            } else {
                2_684
            },
            group: group as u32,
            f_in,
            f_out: 16,
        };
        self.site(layer, op, &[input])
    }

    /// A RoPE table of any angles (its rows need not be rotations to be an exact test).
    pub fn rope_table(&mut self, head_dim: usize) -> TensorId {
        let context = self.program.context as usize;
        let hostile = self.wild == Wild::Hostile;
        let bytes = (0..context * head_dim)
            .flat_map(|_| {
                let v = self.rng.range(-32_767, 32_767) as i16;
                if hostile {
                    self.rng.pick(&[v, i16::MIN, i16::MAX])
                } else {
                    v
                }
                .to_le_bytes()
            })
            .collect();
        self.tensor(DType::I16, context, head_dim, bytes)
    }
}

/// Shape and settings of a Llama-like program.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Longest sequence.
    pub context: u32,
    /// Layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads.
    pub kv_heads: u32,
    /// Elements a head.
    pub head_dim: u32,
    /// Residual width.
    pub d_model: usize,
    /// Width of the gated unit.
    pub ff: usize,
    /// Checkpoint stride.
    pub stride: u32,
    /// Activation planes of the body.
    pub planes: u8,
    /// Group multipliers in the body.
    pub grouped: bool,
    /// Transform block of Q and K, 0 = none.
    pub qk_wht: u16,
    /// Probability bits.
    pub p_bits: u8,
    /// Sliding window.
    pub window: u32,
    /// Causal.
    pub causal: bool,
    /// RoPE pairing.
    pub rope: RopeStyle,
    /// The bend.
    pub act: Activation,
    /// K segments of the attention's and the unit's output.
    pub k_segments: u8,
    /// How scales and values are drawn.
    pub wild: Wild,
}

impl Shape {
    /// Two layers, grouped queries, everything plain.
    pub const SMALL: Self = Self {
        context: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        d_model: 64,
        ff: 96,
        stride: 1,
        planes: 1,
        grouped: false,
        qk_wht: 0,
        p_bits: 15,
        window: 0,
        causal: true,
        rope: RopeStyle::Interleaved,
        act: Activation::Silu,
        k_segments: 1,
        wild: Wild::Tame,
    };

    /// The whole program: embedding, layers, tied head, sampling.
    pub fn build(&self, name: impl Into<String>) -> Case {
        let mut b = Builder::new(name, self.d_model as u32);
        b.wild = self.wild;
        *b.head() = Program {
            layers: self.layers,
            context: self.context,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            checkpoint_stride: self.stride,
            ..b.head().clone()
        };
        let mut h = b.embed(14, 0);
        let tied = match &b.head().sites[h as usize].op {
            Op::Embed { weight, .. } => *weight,
            _ => unreachable!("embed() made an Embed"),
        };
        for l in 0..self.layers {
            h = self.layer(&mut b, l, h);
        }
        let x = b.norm(None, h, self.d_model, 14);
        let q = b.quant(None, x, 2, 0, self.d_model);
        let (n, k) = (b.head().vocab, b.head().d_model);
        let head = Op::Linear {
            weight: tied,
            n,
            k,
            k_segments: 1,
            f_out: 16,
        };
        let logits = b.site(None, head, &[q]);
        b.site(None, Op::Sample { f: 16 }, &[logits]);
        b.done()
    }

    fn layer(&self, b: &mut Builder, l: u32, h: SiteId) -> SiteId {
        let (d, hd) = (self.d_model, self.head_dim as usize);
        let (q_cols, kv_cols) = (self.heads as usize * hd, self.kv_heads as usize * hd);
        let plain = (self.grouped, false, 1);
        let split = (self.grouped, false, self.k_segments);
        let segment = |cols: usize| cols / usize::from(self.k_segments);

        let x = b.norm(l, h, d, 14);
        let x = b.quant(l, x, self.planes, 0, d);
        let q = b.linear(l, x, (q_cols, d), plain, 16);
        let k = b.linear(l, x, (kv_cols, d), plain, 16);
        let v = b.linear(l, x, (kv_cols, d), (self.grouped, true, 1), 16);
        let table = b.rope_table(hd);
        let rope = Op::Rope {
            table,
            head_dim: self.head_dim,
            style: self.rope,
        };
        let q = b.site(l, rope.clone(), &[q]);
        let k = b.site(l, rope, &[k]);
        let q = b.quant(l, q, 1, self.qk_wht, hd);
        let k = b.quant(l, k, 1, self.qk_wht, hd);
        let v = b.quant(l, v, 1, 0, hd);
        let append = Op::KvAppend {
            heads: self.kv_heads,
            head_dim: self.head_dim,
        };
        let kv = b.site(l, append, &[k, v]);
        let scale = b.scale(hd, 8);
        let attention = Op::Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale_m: scale.m,
            scale_e: scale.e - 2 * self.qk_wht.max(1).ilog2() as i16 / 2,
            p_bits: self.p_bits,
            window: self.window,
            causal: self.causal,
            f_out: 16,
        };
        let o = b.site(l, attention, &[q, kv]);
        let o = b.quant(l, o, self.planes, 0, segment(q_cols));
        let a = b.linear(l, o, (d, q_cols), split, 14);
        let h = b.site(l, Op::Add, &[h, a]);

        let x = b.norm(l, h, d, 14);
        let x = b.quant(l, x, self.planes, 0, d);
        let gate = b.linear(l, x, (self.ff, d), plain, 16);
        let up = b.linear(l, x, (self.ff, d), plain, 16);
        let m = b.site(l, Op::Glu { act: self.act, f: 16 }, &[gate, up]);
        let m = b.quant(l, m, self.planes, 0, segment(self.ff));
        let a = b.linear(l, m, (d, self.ff), split, 14);
        let h = b.site(l, Op::Add, &[h, a]);
        b.site(l, Op::Out, &[h])
    }
}
