//! What all families read alike: a file's hyperparameters, checked against what a program can express.

use bitai_kernels::program::{Activation, RopeStyle};

use super::{Description, F_RESIDUAL, Layer, Rope};
use crate::import::{Gguf, ImportError};

/// Limits of the spec (rules V1 and L1) and of common sense.
const LAYERS_MAX: u32 = 1024;
const D_MAX: u32 = 32_768;
const K_MAX: u32 = 65_536;
const VOCAB_MAX: u32 = 1 << 20;
const CONTEXT_MAX: u32 = 1 << 20;
const HEAD_DIM_MAX: u32 = 512;

/// Fields that change what a model computes and that no family here has; 0 means absent.
const FOREIGN: [&str; 9] = [
    "expert_count",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "embedding_scale",
    "residual_scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.temperature_scale",
];

/// A file's fields under its architecture's prefix.
pub(crate) struct Fields<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
    /// Cuts the context; 0 = the file's.
    context: u32,
}

impl<'a> Fields<'a> {
    /// The fields of the architecture `prefix`; `context` cuts the file's.
    pub(crate) fn new(gguf: &'a Gguf, prefix: &'a str, context: u32) -> Self {
        Self {
            gguf,
            prefix,
            context,
        }
    }

    /// A field's full name.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// An integer field, if it is there.
    pub(crate) fn u32_opt(&self, name: &str) -> Result<Option<u32>, ImportError> {
        self.gguf.u32_opt(&self.key(name)).transpose()
    }

    /// A float field, if it is there.
    pub(crate) fn f64_opt(&self, name: &str) -> Result<Option<f64>, ImportError> {
        Ok(self.gguf.f32_opt(&self.key(name)).transpose()?.map(f64::from))
    }

    /// An integer field in `1..=max`.
    fn get(&self, name: &str, max: u32) -> Result<u32, ImportError> {
        let key = self.key(name);
        let v = self.gguf.u32(&key)?;
        if v == 0 || v > max {
            return Err(ImportError::field(&key, format!("{v} is not in 1..={max}")));
        }
        Ok(v)
    }

    /// Refuses a field that would change the model, whatever its value but 0.
    pub(crate) fn refuse(&self, name: &str) -> Result<(), ImportError> {
        let key = self.key(name);
        match self.gguf.number_opt(&key) {
            None | Some(Ok(0.0)) => Ok(()),
            Some(Err(e)) => Err(e),
            Some(Ok(v)) => Err(ImportError::Unsupported {
                what: format!("{key} = {v}"),
            }),
        }
    }

    /// Whether the file has a tensor of that name.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.gguf.has(tensor)
    }

    /// What most families share: pre-norms, SiLU, one RoPE table, every layer sees all, no biases.
    pub(crate) fn common(&self, rope_style: RopeStyle) -> Result<Description, ImportError> {
        for name in FOREIGN {
            self.refuse(name)?;
        }
        let layers = self.get("block_count", LAYERS_MAX)?;
        let d_model = self.get("embedding_length", D_MAX)?;
        let d_ff = self.get("feed_forward_length", K_MAX)?;
        let heads = self.get("attention.head_count", D_MAX)?;
        let kv_heads = self.u32_opt("attention.head_count_kv")?.unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(ImportError::field(
                &self.key("attention.head_count_kv"),
                format!("{kv_heads} does not divide {heads} heads"),
            ));
        }
        let head_dim = self.head_dim(d_model, heads)?;
        let mut context = self.get("context_length", CONTEXT_MAX)?;
        if self.context > 0 {
            context = context.min(self.context);
        }
        let eps = self.gguf.f32(&self.key("attention.layer_norm_rms_epsilon"))?;
        let eps = f64::from(eps);
        if !(0.0..1.0).contains(&eps) {
            return Err(ImportError::field(
                &self.key("attention.layer_norm_rms_epsilon"),
                format!("{eps} is not in 0..1"),
            ));
        }
        Ok(Description {
            d_model,
            heads,
            kv_heads,
            head_dim,
            d_ff,
            vocab: self.vocab(d_model)?,
            context,
            layers: vec![Layer { rope: 0, window: 0 }; layers as usize],
            ropes: vec![self.rope(head_dim)?],
            rope_style,
            eps,
            qkv_bias: false,
            qk_norm: false,
            post_norms: false,
            activation: Activation::Silu,
            attention_divisor: f64::from(head_dim).sqrt(),
            embed_scale: 1.0,
            f_residual: F_RESIDUAL,
            tied: !self.has("output.weight"),
        })
    }

    fn head_dim(&self, d_model: u32, heads: u32) -> Result<u32, ImportError> {
        let head_dim = match self.u32_opt("attention.key_length")? {
            Some(dim) => dim,
            None if d_model.is_multiple_of(heads) => d_model / heads,
            None => {
                return Err(ImportError::field(
                    &self.key("attention.head_count"),
                    format!("{heads} does not divide the width {d_model}"),
                ));
            }
        };
        if head_dim == 0 || head_dim > HEAD_DIM_MAX || !head_dim.is_multiple_of(2) {
            return Err(ImportError::field(
                &self.key("attention.key_length"),
                format!("{head_dim} is not an even number up to {HEAD_DIM_MAX}"),
            ));
        }
        if heads.checked_mul(head_dim).is_none_or(|w| w > K_MAX) {
            return Err(ImportError::field(
                &self.key("attention.head_count"),
                format!("{heads} x {head_dim} > {K_MAX}"),
            ));
        }
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(got) = self.u32_opt(name)?
                && got != head_dim
            {
                return Err(ImportError::Unsupported {
                    what: format!("{} = {got} (other than the head size {head_dim})", self.key(name)),
                });
            }
        }
        Ok(head_dim)
    }

    fn vocab(&self, d_model: u32) -> Result<u32, ImportError> {
        let rows = self.gguf.tensor("token_embd.weight")?.rows;
        let vocab = u32::try_from(rows).ok().filter(|v| *v <= VOCAB_MAX);
        let vocab = vocab.ok_or_else(|| {
            ImportError::field("token_embd.weight", format!("{rows} rows; at most {VOCAB_MAX}"))
        })?;
        self.gguf
            .shaped("token_embd.weight", vocab as usize, d_model as usize)?;
        Ok(vocab)
    }

    /// Whether Q, K and V have biases: all of them, or none.
    pub(crate) fn qkv_bias(&self) -> Result<bool, ImportError> {
        let biases = ["attn_q", "attn_k", "attn_v"].map(|n| self.has(&format!("blk.0.{n}.bias")));
        if biases != [biases[0]; 3] {
            return Err(ImportError::Unsupported {
                what: "a bias on some of Q, K and V only".into(),
            });
        }
        Ok(biases[0])
    }

    /// `attention.sliding_window`: tokens that a token sees, itself included; 0 = all.
    pub(crate) fn window(&self) -> Result<u32, ImportError> {
        Ok(self.u32_opt("attention.sliding_window")?.unwrap_or(0))
    }

    /// The model's RoPE. Llama 3's scaling arrives as the tensor `rope_freqs`; linear scaling divides
    /// positions; other kinds are refused by name.
    fn rope(&self, head_dim: u32) -> Result<Rope, ImportError> {
        let factor = self.f64_opt("rope.scaling.factor")?.unwrap_or(1.0);
        let old = self.f64_opt("rope.scale_linear")?.unwrap_or(1.0);
        let key = self.key("rope.scaling.type");
        let linear = match self.gguf.text_opt(&key).transpose()? {
            None => old,
            Some("none") => 1.0,
            Some("linear") => factor,
            Some(other) => {
                return Err(ImportError::Unsupported {
                    what: format!("RoPE scaling {other:?} ({key})"),
                });
            }
        };
        if linear <= 0.0 {
            return Err(ImportError::field(
                &self.key("rope.scaling.factor"),
                format!("{linear} is not above 0"),
            ));
        }
        Ok(Rope {
            name: "rope",
            base: self.rope_base("rope.freq_base", 10_000.0)?,
            linear,
            factors: self.rope_factors(head_dim)?,
        })
    }

    /// Theta, from the field `name`.
    pub(crate) fn rope_base(&self, name: &str, default: f64) -> Result<f64, ImportError> {
        let base = self.f64_opt(name)?.unwrap_or(default);
        if base < 1.0 {
            return Err(ImportError::field(&self.key(name), format!("{base} is below 1")));
        }
        Ok(base)
    }

    fn rope_factors(&self, head_dim: u32) -> Result<Option<Vec<f64>>, ImportError> {
        const NAME: &str = "rope_freqs.weight";
        if !self.has(NAME) {
            return Ok(None);
        }
        let f = self
            .gguf
            .rows(&self.gguf.shaped(NAME, 1, head_dim as usize / 2)?, 0, 1)?;
        match f.iter().position(|f| *f <= 0.0) {
            Some(row) => Err(ImportError::Range {
                name: NAME.into(),
                row,
                why: format!("factor {} is not above 0", f[row]),
            }),
            None => Ok(Some(f)),
        }
    }
}
