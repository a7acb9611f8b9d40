//! Architectures. A family's file says what is particular to it as a [`Description`]; one plan turns any
//! description into a program (a list of sites) and the tensors that it names. Import and synthetic packs
//! both walk the plan, so that ids and order cannot drift apart.

pub mod encoder;
mod families;
mod fields;
mod gemma3;
mod llama;
mod mistral;
mod plan;
mod qwen2;
mod qwen3;
mod settings;
mod sites;

pub(crate) use families::of_name;
pub(crate) use fields::Fields;
pub use plan::{LinearPart, Part, Plan, Role, plan, wht_block};
pub use settings::Settings;

use bitai_kernels::program::{Activation, RopeStyle};

/// Fraction bits of the residual of pre-norm models (TENSOR_SPEC: Q14 for Llama).
pub const F_RESIDUAL: u8 = 14;
/// Fraction bits of every activation but the residual.
pub const F_ACT: u8 = 16;

/// What a decoder-only transformer looks like. Every family is one of these; none has code of its own
/// beyond reading it from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Residual width.
    pub d_model: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements a head, even. `heads * head_dim` need not be `d_model`.
    pub head_dim: u32,
    /// Inner width of the gated unit.
    pub d_ff: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// Longest sequence.
    pub context: u32,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// RoPE tables that layers choose from.
    pub ropes: Vec<Rope>,
    /// Which elements RoPE pairs.
    pub rope_style: RopeStyle,
    /// What the norms add to the mean square.
    pub eps: f64,
    /// Whether Q, K and V have biases.
    pub qkv_bias: bool,
    /// Whether every head of Q and K is normed before RoPE.
    pub qk_norm: bool,
    /// Whether the outputs of attention and of the gated unit are normed before they join the residual.
    pub post_norms: bool,
    /// How the gated unit bends its gate.
    pub activation: Activation,
    /// What Q . K is divided by before the softmax: sqrt(head_dim) in most models.
    pub attention_divisor: f64,
    /// What embedded rows are multiplied by: 1 in most models.
    pub embed_scale: f64,
    /// Fraction bits of the residual.
    pub f_residual: u8,
    /// Whether the head shares the embedding's tensor.
    pub tied: bool,
}

/// One layer's particulars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Index into [`Description::ropes`].
    pub rope: usize,
    /// Tokens that a token sees, itself included; 0 = all before it.
    pub window: u32,
}

/// One RoPE table: angle = position * base^(-2i / head_dim) / factor_i / linear.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The tensor's name in the pack.
    pub name: &'static str,
    /// Theta.
    pub base: f64,
    /// Linear scaling: divides every position.
    pub linear: f64,
    /// Divides each pair's frequency, where the file has such a tensor (Llama 3's scaling).
    pub factors: Option<Vec<f64>>,
}
