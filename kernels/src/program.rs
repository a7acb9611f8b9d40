//! The program of a model as data: a list of sites that every backend, the importer, the dispute game
//! and the contract interpret alike. A new architecture is a new list, not new code.
//!
//! A site reads the outputs of earlier sites for the same token (attention also reads the cached KV rows
//! of its layer for earlier tokens), so the list is its own topological order.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{KernelError, tensor::TensorId};

/// Index of a site in [`Program::sites`].
pub type SiteId = u32;

/// A linear site's weight: integer rows, a scale a row, perhaps a multiplier a group and a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// `I8 [n, k]`, values in +-127.
    pub q: TensorId,
    /// `Scale [1, n]`.
    pub scale: TensorId,
    /// `U8 [n, k / 32]`, values 1..=15, where the site is grouped.
    pub mult: Option<TensorId>,
    /// `I32 [1, n]` in the output's fraction bits.
    pub bias: Option<TensorId>,
}

/// How a gated unit bends its gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x * sigmoid(x)
    Silu,
    /// tanh form of GELU
    GeluTanh,
    /// exact GELU by the Phi table
    GeluErf,
}

/// How an encoder's rows become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Sum over the sequence, brought back by whole bits of its length (the norm after it removes the rest).
    Mean,
    /// The first position's row, where a class token stands.
    First,
}

/// Which elements RoPE pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeStyle {
    /// (2i, 2i + 1), as GGUF stores the Llama family.
    Interleaved,
    /// (i, i + d / 2)
    Halves,
}

/// One operation with its integer parameters. Fraction bits are named `f_*`; activations are int32 rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Token id -> row of the embedding, requantised to `f_out`.
    Embed {
        /// The table, `[vocab, d]`.
        weight: Weight,
        /// Fraction bits of the residual.
        f_out: u8,
    },
    /// The row's own position -> row of a learned table, requantised to `f_out`.
    PosEmbed {
        /// The table, `[context, d]`.
        weight: Weight,
        /// Fraction bits of the residual.
        f_out: u8,
    },
    /// RMS norm over groups of `group` elements (`group` = row length, or head size for QK norm).
    RmsNorm {
        /// `I32 [1, group]`, 22-bit gains.
        gain: TensorId,
        /// Fraction bits of the gains.
        gain_f: i8,
        /// round(eps * 2^(2 * f_in)).
        eps: u64,
        /// Elements normed together.
        group: u32,
        /// Fraction bits in.
        f_in: u8,
        /// Fraction bits out.
        f_out: u8,
    },
    /// Layer norm (mean and variance) over groups of `group` elements, then a bias.
    LayerNorm {
        /// `I32 [1, group]`, 22-bit gains.
        gain: TensorId,
        /// `I32 [1, group]` in `f_out` fraction bits.
        bias: TensorId,
        /// Fraction bits of the gains.
        gain_f: i8,
        /// round(eps * 2^(2 * f_in)).
        eps: u64,
        /// Elements normed together.
        group: u32,
        /// Fraction bits in.
        f_in: u8,
        /// Fraction bits out.
        f_out: u8,
    },
    /// Dynamic quantisation of each group of `group` elements, after an optional Walsh-Hadamard transform.
    Quant {
        /// 1 = A8 (q 127), 2 = A16 (q 32639).
        planes: u8,
        /// Transform block, 0 = none; a power of two that divides `group`.
        wht: u16,
        /// Elements sharing a scale.
        group: u32,
        /// Fraction bits in.
        f_in: u8,
    },
    /// Quantised row x weight rows -> int32 row of `n` elements.
    Linear {
        /// The weight, `[n, k]`.
        weight: Weight,
        /// Output elements.
        n: u32,
        /// Input elements.
        k: u32,
        /// Parts of K requantised alone and added (tensor parallelism): 1, 2, 4 or 8.
        k_segments: u8,
        /// Fraction bits out.
        f_out: u8,
    },
    /// Rotary position embedding of every head.
    Rope {
        /// `I16 [context, head_dim]`: cos then sin halves, Q15.
        table: TensorId,
        /// Elements a head.
        head_dim: u32,
        /// Pairing.
        style: RopeStyle,
    },
    /// Appends quantised K (input 0) and V (input 1), int8 a head, to the layer's KV cache: a committed row.
    KvAppend {
        /// KV heads.
        heads: u32,
        /// Elements a head.
        head_dim: u32,
    },
    /// Two-pass integer attention of quantised Q (input 0) over the layer's cached rows (input 1 = KvAppend).
    Attention {
        /// Query heads.
        heads: u32,
        /// KV heads; divides `heads`.
        kv_heads: u32,
        /// Elements a head.
        head_dim: u32,
        /// log2(e) / sqrt(head_dim) (and 1 / wht block where transformed) as mantissa.
        scale_m: u16,
        /// ... and exponent.
        scale_e: i16,
        /// Probability bits: 15 or 23.
        p_bits: u8,
        /// Sliding window in tokens, 0 = all.
        window: u32,
        /// Whether a token sees only itself and earlier ones.
        causal: bool,
        /// Fraction bits out.
        f_out: u8,
    },
    /// act(input 0) * input 1, both in `f` fraction bits.
    Glu {
        /// The bend.
        act: Activation,
        /// Fraction bits in and out.
        f: u8,
    },
    /// act(input 0) in `f` fraction bits: the unit without a gate.
    Act {
        /// The bend.
        act: Activation,
        /// Fraction bits in and out.
        f: u8,
    },
    /// Saturating sum of two rows in one format: the residual.
    Add,
    /// The end of a layer: input 0 is its residual row, committed as `out` where the stride says so.
    Out,
    /// All rows of a sequence (input 0) -> one: the first site after the layers of an encoder.
    Pool {
        /// Sum or first.
        how: Pooling,
    },
    /// Input 0, int32, is the job's output: one word an element. The last site of an encoder.
    Emit,
    /// Row of logits (input 0, `f` fraction bits) -> token id by the job's sampler.
    Sample {
        /// Fraction bits of the logits.
        f: u8,
    },
}

/// One site: where in the model it is, what it does, what it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Layer, or `None` before the first and after the last.
    pub layer: Option<u32>,
    /// The operation.
    pub op: Op,
    /// The sites whose outputs it reads (none for `Embed`).
    pub inputs: Vec<SiteId>,
}

/// Why a valid program answers no job (rules V, last paragraph, of `docs/spec/tensor.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// It samples although what it computes for a token depends on later ones.
    #[error(
        "the model samples tokens, but its attention looks at later ones, so each new token would change all before it; \
         import it from a decoder with causal attention, or as an encoder, which pools its rows"
    )]
    Bidirectional,
    /// It puts out neither tokens nor words.
    #[error("the model's program puts out neither tokens nor words; import the model again from its source")]
    Nothing,
}

/// A whole model's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Layers.
    pub layers: u32,
    /// Residual width.
    pub d_model: u32,
    /// Vocabulary: ids are below it.
    pub vocab: u32,
    /// Longest sequence.
    pub context: u32,
    /// KV heads a layer.
    pub kv_heads: u32,
    /// Elements a KV head.
    pub head_dim: u32,
    /// Every so many layers the residual row is committed (layer l with (l + 1) % stride == 0).
    pub checkpoint_stride: u32,
    /// The sites in order.
    pub sites: Vec<Site>,
}

impl Program {
    /// Layers whose `out` row is committed, ascending.
    pub fn checkpoints(&self) -> Vec<u32> {
        (0..self.layers)
            .filter(|l| (l + 1) % self.checkpoint_stride.max(1) == 0)
            .collect()
    }

    /// Elements of the row that an encoder puts out; `None` for a program that samples or only caches.
    pub fn emits(&self) -> Option<u32> {
        crate::program_check::emits(self)
    }

    /// Whether some attention looks at later tokens too: such a program takes a whole sequence in one step.
    pub fn is_bidirectional(&self) -> bool {
        let later = |op: &Op| matches!(op, Op::Attention { causal: false, .. });
        self.sites.iter().any(|s| later(&s.op))
    }

    /// Whether a job can ask for what the program puts out. A valid program need not.
    pub fn answers(&self) -> Result<(), NoAnswer> {
        match self.sites.last().map(|s| &s.op) {
            Some(Op::Sample { .. }) if self.is_bidirectional() => Err(NoAnswer::Bidirectional),
            Some(Op::Sample { .. } | Op::Emit) => Ok(()),
            _ => Err(NoAnswer::Nothing),
        }
    }

    /// Checks that inputs come before their readers, shapes meet and parameters are in range.
    pub fn validate(&self) -> Result<(), KernelError> {
        crate::program_check::validate(self)
    }
}
