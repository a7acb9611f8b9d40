//! A Llama file's hyperparameters, checked against what the program can express.

use std::collections::HashSet;

use super::{ImportError, ImportOptions, gguf::Gguf, number, rope};
use crate::llama::{F_RESIDUAL, LlamaShape};

/// Limits of the spec (PROTOCOL 11 and TENSOR_SPEC) and of common sense.
const LAYERS_MAX: u32 = 1024;
const D_MAX: u32 = 32_768;
const K_MAX: u32 = 65_536;
const VOCAB_MAX: u32 = 1 << 20;
const CONTEXT_MAX: u32 = 1 << 20;

/// A Llama model as its file describes it.
pub(crate) struct Model {
    /// `general.name`.
    pub(crate) name: String,
    /// Shape of the program.
    pub(crate) shape: LlamaShape,
    rope_base: f64,
    rope_linear: f64,
}

impl Model {
    /// Reads and checks fields and the names of all tensors.
    pub(crate) fn read(gguf: &Gguf, options: &ImportOptions) -> Result<Self, ImportError> {
        let architecture = gguf.text("general.architecture")?;
        if architecture != "llama" {
            return Err(ImportError::Architecture {
                got: architecture.into(),
            });
        }
        let get = |key: &str, max: u32| {
            let key = format!("llama.{key}");
            let v = gguf.u32(&key)?;
            if v == 0 || v > max {
                return Err(ImportError::field(&key, format!("{v} is not in 1..={max}")));
            }
            Ok(v)
        };
        if gguf.u32_opt("llama.expert_count").transpose()?.unwrap_or(0) > 0 {
            return Err(ImportError::Unsupported {
                what: "mixture of experts (llama.expert_count)".into(),
            });
        }
        let layers = get("block_count", LAYERS_MAX)?;
        let d_model = get("embedding_length", D_MAX)?;
        let d_ff = get("feed_forward_length", K_MAX)?;
        let heads = get("attention.head_count", D_MAX)?;
        let kv_heads = gguf
            .u32_opt("llama.attention.head_count_kv")
            .transpose()?
            .unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(ImportError::field(
                "llama.attention.head_count_kv",
                format!("{kv_heads} does not divide {heads} heads"),
            ));
        }
        let head_dim = match gguf.u32_opt("llama.attention.key_length").transpose()? {
            Some(dim) => dim,
            None if d_model.is_multiple_of(heads) => d_model / heads,
            None => {
                return Err(ImportError::field(
                    "llama.attention.head_count",
                    format!("{heads} does not divide the width {d_model}"),
                ));
            }
        };
        if head_dim == 0 || head_dim > 512 || !head_dim.is_multiple_of(2) {
            return Err(ImportError::field(
                "llama.attention.key_length",
                format!("{head_dim} is not an even number up to 512"),
            ));
        }
        if heads.checked_mul(head_dim).is_none_or(|w| w > K_MAX) {
            return Err(ImportError::field(
                "llama.attention.head_count",
                format!("{heads} x {head_dim} > {K_MAX}"),
            ));
        }
        for (key, want) in [
            ("attention.value_length", head_dim),
            ("rope.dimension_count", head_dim),
        ] {
            let key = format!("llama.{key}");
            if let Some(got) = gguf.u32_opt(&key).transpose()?
                && got != want
            {
                return Err(ImportError::Unsupported {
                    what: format!("{key} = {got} (other than the head size {want})"),
                });
            }
        }
        let mut context = get("context_length", CONTEXT_MAX)?;
        if options.context > 0 {
            context = context.min(options.context);
        }
        let eps = f64::from(gguf.f32("llama.attention.layer_norm_rms_epsilon")?);
        if !(0.0..1.0).contains(&eps) {
            return Err(ImportError::field(
                "llama.attention.layer_norm_rms_epsilon",
                format!("{eps} is not in 0..1"),
            ));
        }
        let (rope_base, rope_linear) = rope_settings(gguf)?;
        let embd = gguf.tensor("token_embd.weight")?;
        let vocab = u32::try_from(embd.rows)
            .ok()
            .filter(|v| *v <= VOCAB_MAX)
            .ok_or_else(|| {
                ImportError::field(
                    "token_embd.weight",
                    format!("{} rows; at most {VOCAB_MAX}", embd.rows),
                )
            })?;
        gguf.shaped("token_embd.weight", vocab as usize, d_model as usize)?;
        let biases = ["attn_q", "attn_k", "attn_v"].map(|n| gguf.has(&format!("blk.0.{n}.bias")));
        if biases != [biases[0]; 3] {
            return Err(ImportError::Unsupported {
                what: "a bias on some of Q, K and V only".into(),
            });
        }
        let model = Self {
            name: gguf
                .text_opt("general.name")
                .transpose()?
                .unwrap_or_default()
                .to_owned(),
            shape: LlamaShape {
                layers,
                d_model,
                heads,
                kv_heads,
                head_dim,
                d_ff,
                vocab,
                context,
                eps_q28: (eps * number::pow2(2 * i32::from(F_RESIDUAL))).round_ties_even() as u64,
                qkv_bias: biases[0],
                tied: !gguf.has("output.weight"),
            },
            rope_base,
            rope_linear,
        };
        model.refuse_unknown_tensors(gguf)?;
        Ok(model)
    }

    /// Norms in order of use.
    pub(crate) fn norms(&self) -> Vec<String> {
        (0..self.shape.layers)
            .flat_map(|l| [format!("blk.{l}.attn_norm"), format!("blk.{l}.ffn_norm")])
            .chain(["output_norm".into()])
            .collect()
    }

    /// The RoPE table's canonical bytes.
    pub(crate) fn rope_table(&self, gguf: &Gguf) -> Result<Vec<u8>, ImportError> {
        let half = self.shape.head_dim as usize / 2;
        let factors = if gguf.has("rope_freqs.weight") {
            let f = gguf.rows(&gguf.shaped("rope_freqs.weight", 1, half)?, 0, 1)?;
            if let Some(row) = f.iter().position(|f| *f <= 0.0) {
                return Err(ImportError::Range {
                    name: "rope_freqs.weight".into(),
                    row,
                    why: format!("factor {} is not above 0", f[row]),
                });
            }
            Some(f)
        } else {
            None
        };
        Ok(rope::table(
            self.shape.context,
            self.shape.head_dim,
            self.rope_base,
            self.rope_linear,
            factors.as_deref(),
        ))
    }

    /// A tensor that nothing here reads means a part of the model that would be lost.
    fn refuse_unknown_tensors(&self, gguf: &Gguf) -> Result<(), ImportError> {
        let mut known: HashSet<String> = ["token_embd", "output", "output_norm", "rope_freqs"]
            .map(|n| format!("{n}.weight"))
            .into();
        for l in 0..self.shape.layers {
            for n in [
                "attn_norm",
                "attn_q",
                "attn_k",
                "attn_v",
                "attn_output",
                "ffn_norm",
                "ffn_gate",
                "ffn_up",
                "ffn_down",
            ] {
                known.insert(format!("blk.{l}.{n}.weight"));
            }
            if self.shape.qkv_bias {
                known.extend(["attn_q", "attn_k", "attn_v"].map(|n| format!("blk.{l}.{n}.bias")));
            }
        }
        match gguf.tensor_names().into_iter().find(|n| !known.contains(n)) {
            Some(name) => Err(ImportError::ExtraTensor { name }),
            None => Ok(()),
        }
    }
}

/// Base and linear divisor; other kinds of scaling are refused by name. (Llama 3's own kind arrives as the
/// tensor `rope_freqs`.)
fn rope_settings(gguf: &Gguf) -> Result<(f64, f64), ImportError> {
    let base = f64::from(
        gguf.f32_opt("llama.rope.freq_base")
            .transpose()?
            .unwrap_or(10_000.0),
    );
    if base < 1.0 {
        return Err(ImportError::field(
            "llama.rope.freq_base",
            format!("{base} is below 1"),
        ));
    }
    let factor = f64::from(
        gguf.f32_opt("llama.rope.scaling.factor")
            .transpose()?
            .unwrap_or(1.0),
    );
    let old = f64::from(
        gguf.f32_opt("llama.rope.scale_linear")
            .transpose()?
            .unwrap_or(1.0),
    );
    let linear = match gguf.text_opt("llama.rope.scaling.type").transpose()? {
        None => old,
        Some("none") => 1.0,
        Some("linear") => factor,
        Some(other) => {
            return Err(ImportError::Unsupported {
                what: format!("RoPE scaling {other:?} (llama.rope.scaling.type)"),
            });
        }
    };
    if linear <= 0.0 {
        return Err(ImportError::field(
            "llama.rope.scaling.factor",
            format!("{linear} is not above 0"),
        ));
    }
    Ok((base, linear))
}
