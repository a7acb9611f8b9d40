//! The door between the host interpreter and a host backend: one method an op, on blocks of rows.
//!
//! [`crate::interp`] walks the program and owns sequences, caches and buffers; an [`Ops`] does the
//! arithmetic. Every method has the reference as its default, so a backend overrides what it can do faster;
//! it may not change a bit. Methods cannot fail: shapes are proven by `Program::validate` and by loading,
//! and the spec is total over values. Row blocks are row-major.

use crate::{
    KernelError, Sampler,
    num::Scale,
    program::{Activation, RopeStyle},
    reference,
    tensor::HostTensor,
};

/// A weight as loaded and checked, over the shared canonical bytes.
#[derive(Clone)]
pub struct HostWeight {
    /// Output elements (vocabulary of an embedding).
    pub n: usize,
    /// Input elements (width of an embedding).
    pub k: usize,
    /// `I8 [n, k]`.
    pub q: HostTensor,
    /// One a row.
    pub scales: Vec<Scale>,
    /// `U8 [n, k / 32]`.
    pub mult: Option<HostTensor>,
    /// One an output, in the output's fraction bits.
    pub bias: Option<Vec<i32>>,
}

impl HostWeight {
    /// The integers of row `i`.
    pub fn row(&self, i: usize) -> &[i8] {
        bytemuck::cast_slice(&self.q.data()[i * self.k..(i + 1) * self.k])
    }

    /// The multipliers of row `i`, one per 32 of k; empty where the weight is not grouped.
    pub fn mults(&self, i: usize) -> &[u8] {
        let groups = self.k / reference::linear::GROUP;
        self.mult
            .as_ref()
            .map_or(&[], |m| &m.data()[i * groups..(i + 1) * groups])
    }
}

/// Quantised rows: `rows * cols` integers and a scale for every `group` of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuantRows {
    /// Rows.
    pub rows: usize,
    /// Elements a row.
    pub cols: usize,
    /// Elements a scale; divides `cols`.
    pub group: usize,
    /// 1 = values in +-127, 2 = values in +-32639.
    pub planes: u8,
    /// The integers, both planes joined.
    pub q: Vec<i16>,
    /// `rows * (cols / group)` scales.
    pub scales: Vec<Scale>,
}

impl QuantRows {
    /// Scales a row.
    pub fn groups(&self) -> usize {
        self.cols.checked_div(self.group).unwrap_or(0)
    }

    /// Makes room for a block, keeping the allocation; the contents are unspecified.
    pub fn reset(&mut self, rows: usize, cols: usize, group: usize, planes: u8) {
        (self.rows, self.cols, self.group, self.planes) = (rows, cols, group, planes);
        self.q.resize(rows * cols, 0);
        self.scales.resize(rows * self.groups(), Scale::ZERO);
    }
}

/// Parameters of an RMS norm (rule R).
#[derive(Clone, Copy)]
pub struct NormParams<'a> {
    /// Gains, one an element of a group; its length is the group.
    pub gain: &'a [i32],
    /// Fraction bits of the gains.
    pub gain_f: i8,
    /// round(eps * 2^(2 f_in)).
    pub eps: u64,
    /// Fraction bits out.
    pub f_out: u8,
}

/// Parameters of a quantisation (rule Q).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantParams {
    /// 1 or 2.
    pub planes: u8,
    /// Transform block, 0 = none.
    pub wht: usize,
    /// Elements a scale.
    pub group: usize,
    /// Fraction bits in.
    pub f_in: u8,
}

/// Parameters of attention (rule A).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionParams {
    /// Query heads.
    pub heads: usize,
    /// KV heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements a head.
    pub head_dim: usize,
    /// log2(e) / sqrt(head_dim), and 1 / block where transformed.
    pub scale: Scale,
    /// 15 or 23.
    pub p_bits: u8,
    /// Sliding window, 0 = all.
    pub window: u32,
    /// Whether a token sees only itself and earlier ones.
    pub causal: bool,
    /// Fraction bits out.
    pub f_out: u8,
}

/// Consecutive query rows of one sequence, and the cache that they read.
#[derive(Clone, Copy)]
pub struct KvSpan<'a> {
    /// Canonical KV rows (see [`crate::rows`]), position 0 first, `row_len` bytes each, the rows of this
    /// batch included.
    pub rows: &'a [u8],
    /// Bytes of a row.
    pub row_len: usize,
    /// Position of the span's first query row.
    pub first: u32,
    /// Query rows in the span.
    pub count: usize,
}

/// A host backend's arithmetic.
pub trait Ops: Send + Sync + 'static {
    /// A weight in the backend's own layout.
    type Weight: Send + Sync;

    /// Takes a checked weight in, once, at load. Keep the canonical bytes or a packed copy, not both.
    fn load_weight(&self, weight: HostWeight) -> Result<Self::Weight, KernelError>;

    /// Runs `f` where the backend's threads are (a thread pool's `install`).
    fn scope<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }

    /// Embedding rows of `ids` (rule E); `out` is `[ids.len(), k]`.
    fn embed(&self, weight: &Self::Weight, ids: &[u32], f_out: u8, out: &mut [i32]);

    /// Quantised rows x weight (rule L); `out` is `[x.rows, n]`. `x.groups()` is the number of K segments.
    fn linear(&self, weight: &Self::Weight, x: &QuantRows, f_out: u8, out: &mut [i32]);

    /// RMS norm of each group of `p.gain.len()` elements (rule R).
    fn rms_norm(&self, p: NormParams<'_>, x: &[i32], out: &mut [i32]) {
        reference::norm::rms_norm_rows(p, x, out);
    }

    /// Layer norm of each group of `p.gain.len()` elements, then `bias` (rule R, layer norm).
    fn layer_norm(&self, p: NormParams<'_>, bias: &[i32], x: &[i32], out: &mut [i32]) {
        reference::layer_norm::layer_norm_rows(p, bias, x, out);
    }

    /// Quantises rows of `cols` elements (rule Q); `out` is shaped already.
    fn quant(&self, p: QuantParams, x: &[i32], out: &mut QuantRows) {
        reference::quant::quant_rows(p, x, out);
    }

    /// RoPE of rows of heads (rule P); row i is at `positions[i]`, `table` is `[context, head_dim]`.
    fn rope(
        &self,
        table: &[i16],
        head_dim: usize,
        style: RopeStyle,
        positions: &[u32],
        x: &[i32],
        out: &mut [i32],
    ) {
        reference::rope::rope_rows(table, head_dim, style, positions, x, out);
    }

    /// Attention (rule A) of the query rows `q` (spans in order); `out` is `[q.rows, heads * head_dim]`.
    fn attention(&self, p: AttentionParams, q: &QuantRows, spans: &[KvSpan<'_>], out: &mut [i32]) {
        reference::attention::attention_rows(p, q, spans, out);
    }

    /// act(gate) * up (rule G).
    fn glu(&self, act: Activation, f: u8, gate: &[i32], up: &[i32], out: &mut [i32]) {
        reference::glu::glu_rows(act, f, gate, up, out);
    }

    /// act(x) (rule G5).
    fn act(&self, act: Activation, f: u8, x: &[i32], out: &mut [i32]) {
        reference::glu::act_rows(act, f, x, out);
    }

    /// a + b (rule D).
    fn add(&self, a: &[i32], b: &[i32], out: &mut [i32]) {
        reference::add::add_rows(a, b, out);
    }

    /// Token of one row of logits at position `pos` (rule S).
    fn sample(&self, logits: &[i32], f: u8, sampler: &Sampler, pos: u32) -> u32 {
        reference::sample::sample(logits, f, sampler, pos)
    }
}
