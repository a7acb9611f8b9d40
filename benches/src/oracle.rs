//! The float32 oracle: candle's own implementation of each architecture over the same GGUF file's
//! dequantised weights. It shares no code with the importer: names, pairings and norms are mapped here from
//! how GGUF stores a model to how its authors published it.

use std::{collections::HashMap, fs::File, path::Path};

use anyhow::{Context, bail, ensure};
use candle_core::{DType, Device, Tensor, quantized::gguf_file::Content};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{gemma3, llama, mistral, qwen2, qwen3};

/// candle's model in float32.
pub struct Oracle {
    model: Model,
    /// Tokens a token sees where candle forgets about it token by token; whole prefixes are run then.
    window: Option<usize>,
}

enum Model {
    Llama(Box<llama::Llama>, llama::Config, llama::Cache),
    Mistral(mistral::Model),
    Qwen2(qwen2::ModelForCausalLM),
    Qwen3(qwen3::ModelForCausalLM),
    Gemma3(gemma3::Model),
}

/// A file's fields under its architecture's prefix.
struct Fields<'a> {
    content: &'a Content,
    arch: &'a str,
}

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&candle_core::quantized::gguf_file::Value> {
        self.content.metadata.get(&format!("{}.{key}", self.arch))
    }

    fn number_opt(&self, key: &str) -> anyhow::Result<Option<usize>> {
        let value = self.get(key).map(|v| v.to_u32()).transpose()?;
        Ok(value.map(|v| v as usize))
    }

    fn number(&self, key: &str) -> anyhow::Result<usize> {
        self.number_opt(key)?
            .with_context(|| format!("{}.{key} is missing", self.arch))
    }

    fn float(&self, key: &str, default: Option<f32>) -> anyhow::Result<f32> {
        match (self.get(key), default) {
            (Some(v), _) => Ok(v.to_f32()?),
            (None, Some(v)) => Ok(v),
            (None, None) => bail!("{}.{key} is missing", self.arch),
        }
    }
}

impl Oracle {
    /// Reads the file; `context` bounds the windows.
    pub fn load(gguf: &Path, context: usize) -> anyhow::Result<Self> {
        let mut file = File::open(gguf).with_context(|| gguf.display().to_string())?;
        let content = Content::read(&mut file)?;
        let arch = content
            .metadata
            .get("general.architecture")
            .context("general.architecture is missing")?
            .to_string()?
            .clone();
        let fields = Fields {
            content: &content,
            arch: &arch,
        };
        if fields.get("rope.scaling.type").is_some() {
            bail!("the oracle does not know scaled RoPE");
        }
        let mut tensors = HashMap::new();
        for name in content.tensor_infos.keys() {
            let t = content
                .tensor(&mut file, name, &Device::Cpu)?
                .dequantize(&Device::Cpu)?;
            let (name, t) = published(&fields, name, t)?;
            tensors.insert(name, t);
        }
        let (model, window) = build(&fields, tensors, context)?;
        Ok(Self { model, window })
    }

    /// Runs windows of equal length side by side and gives each position's logits to `sink(window,
    /// position, logits)`. candle answers for the last position only, so it goes token by token.
    pub fn logits(
        &mut self,
        windows: &[Vec<u32>],
        mut sink: impl FnMut(usize, usize, Vec<f32>),
    ) -> anyhow::Result<()> {
        let len = windows.first().map_or(0, Vec::len);
        ensure!(windows.iter().all(|w| w.len() == len), "windows differ in length");
        // candle's Mistral keeps every key and masks by the window only where it reads several tokens at
        // once: longer sequences are read anew for each position.
        let whole = self.window.is_some_and(|w| w < len);
        self.model.clear()?;
        for pos in 0..len {
            let first = if whole { 0 } else { pos };
            let columns: Vec<u32> = windows
                .iter()
                .flat_map(|w| w[first..=pos].iter().copied())
                .collect();
            let x = Tensor::from_vec(columns, (windows.len(), pos + 1 - first), &Device::Cpu)?;
            if whole {
                self.model.clear()?;
            }
            let logits = self.model.step(&x, first)?;
            let vocab = logits.elem_count() / windows.len();
            let rows = logits.reshape((windows.len(), vocab))?.to_vec2::<f32>()?;
            for (w, row) in rows.into_iter().enumerate() {
                sink(w, pos, row);
            }
        }
        Ok(())
    }
}

impl Model {
    fn step(&mut self, x: &Tensor, pos: usize) -> candle_core::Result<Tensor> {
        match self {
            Self::Llama(m, _, cache) => m.forward(x, pos, cache),
            Self::Mistral(m) => m.forward(x, pos),
            Self::Qwen2(m) => m.forward(x, pos),
            Self::Qwen3(m) => m.forward(x, pos),
            Self::Gemma3(m) => m.forward(x, pos),
        }
    }

    fn clear(&mut self) -> candle_core::Result<()> {
        match self {
            Self::Llama(_, config, cache) => {
                *cache = llama::Cache::new(true, DType::F32, config, &Device::Cpu)?;
            }
            Self::Mistral(m) => m.clear_kv_cache(),
            Self::Qwen2(m) => m.clear_kv_cache(),
            Self::Qwen3(m) => m.clear_kv_cache(),
            Self::Gemma3(m) => m.clear_kv_cache(),
        }
        Ok(())
    }
}

/// A tensor under its published name and in its published form.
fn published(fields: &Fields, name: &str, t: Tensor) -> anyhow::Result<(String, Tensor)> {
    let gemma = fields.arch == "gemma3";
    let (stem, kind) = name.rsplit_once('.').context("a tensor without a suffix")?;
    let (place, what) = match stem.strip_prefix("blk.").and_then(|s| s.split_once('.')) {
        Some((layer, what)) => (format!("model.layers.{layer}."), what),
        None => (String::new(), stem),
    };
    let theirs = match what {
        "token_embd" => "model.embed_tokens",
        "output_norm" => "model.norm",
        "output" => "lm_head",
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "post_attention_norm" => "post_attention_layernorm",
        "ffn_norm" if gemma => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "post_ffw_norm" => "post_feedforward_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => bail!("the oracle does not know the tensor {name}"),
    };
    let t = match what {
        // GGUF stores Llama's Q and K with RoPE's pairs side by side; they were published half a head apart.
        "attn_q" | "attn_k" if matches!(fields.arch, "llama" | "mistral") => {
            let heads = fields.number("attention.head_count")?;
            let heads = match what {
                "attn_q" => heads,
                _ => fields.number_opt("attention.head_count_kv")?.unwrap_or(heads),
            };
            unpermute(&t, heads)?
        }
        // GGUF stores Gemma's gains with the 1 added.
        _ if gemma && what.ends_with("norm") => (t - 1.0)?,
        _ => t,
    };
    Ok((format!("{place}{theirs}.{kind}"), t))
}

fn unpermute(t: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let dims = t.dims().to_vec();
    let cols = dims.get(1).copied().unwrap_or(1);
    t.reshape((heads, dims[0] / heads / 2, 2, cols))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape(dims)
}

/// candle's model and, where it needs care, the window.
fn build(
    fields: &Fields,
    mut tensors: HashMap<String, Tensor>,
    context: usize,
) -> anyhow::Result<(Model, Option<usize>)> {
    let (vocab_size, hidden_size) = tensors
        .get("model.embed_tokens.weight")
        .context("token_embd.weight is missing")?
        .dims2()?;
    let tied = !tensors.contains_key("lm_head.weight");
    let layers = fields.number("block_count")?;
    let heads = fields.number("attention.head_count")?;
    let kv_heads = fields.number_opt("attention.head_count_kv")?.unwrap_or(heads);
    let head_dim = fields
        .number_opt("attention.key_length")?
        .unwrap_or(hidden_size / heads);
    let intermediate_size = fields.number("feed_forward_length")?;
    let rms_norm_eps = f64::from(fields.float("attention.layer_norm_rms_epsilon", None)?);
    let rope_theta = fields.float("rope.freq_base", Some(10_000.0))?;
    let window = fields.number_opt("attention.sliding_window")?;
    // Mistral's head is always a tensor of its own to candle.
    if fields.arch == "mistral" && tied {
        tensors.insert(
            "lm_head.weight".into(),
            tensors["model.embed_tokens.weight"].clone(),
        );
    }
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    Ok(match fields.arch {
        "llama" => {
            ensure!(window.is_none(), "the oracle's Llama has no sliding window");
            ensure!(
                head_dim * heads == hidden_size,
                "the oracle's Llama has heads of width / heads"
            );
            let config = llama::Config {
                hidden_size,
                intermediate_size,
                vocab_size,
                num_hidden_layers: layers,
                num_attention_heads: heads,
                num_key_value_heads: kv_heads,
                use_flash_attn: false,
                rms_norm_eps,
                rope_theta,
                bos_token_id: None,
                eos_token_id: None,
                rope_scaling: None,
                max_position_embeddings: context,
                tie_word_embeddings: tied,
            };
            let cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu)?;
            let model = llama::Llama::load(vb, &config)?;
            (Model::Llama(Box::new(model), config, cache), None)
        }
        "mistral" => {
            let config = mistral::Config {
                vocab_size,
                hidden_size,
                intermediate_size,
                num_hidden_layers: layers,
                num_attention_heads: heads,
                head_dim: Some(head_dim),
                num_key_value_heads: kv_heads,
                hidden_act: Activation::Silu,
                max_position_embeddings: context,
                rms_norm_eps,
                rope_theta: f64::from(rope_theta),
                // candle lets a token see `sliding_window` tokens besides itself; the authors' W counts it.
                sliding_window: window.map(|w| w - 1),
                use_flash_attn: false,
            };
            (Model::Mistral(mistral::Model::new(&config, vb)?), window)
        }
        "qwen2" => {
            ensure!(
                head_dim * heads == hidden_size,
                "the oracle's Qwen 2 has heads of width / heads"
            );
            let config = qwen2::Config {
                vocab_size,
                hidden_size,
                intermediate_size,
                num_hidden_layers: layers,
                num_attention_heads: heads,
                num_key_value_heads: kv_heads,
                max_position_embeddings: context,
                sliding_window: context,
                max_window_layers: layers,
                tie_word_embeddings: tied,
                rope_theta: f64::from(rope_theta),
                rms_norm_eps,
                use_sliding_window: false,
                hidden_act: Activation::Silu,
            };
            (Model::Qwen2(qwen2::ModelForCausalLM::new(&config, vb)?), None)
        }
        "qwen3" => {
            let config = qwen3::Config {
                vocab_size,
                hidden_size,
                intermediate_size,
                num_hidden_layers: layers,
                num_attention_heads: heads,
                head_dim,
                attention_bias: false,
                num_key_value_heads: kv_heads,
                max_position_embeddings: context,
                sliding_window: None,
                max_window_layers: layers,
                tie_word_embeddings: tied,
                rope_theta: f64::from(rope_theta),
                rms_norm_eps,
                use_sliding_window: false,
                hidden_act: Activation::Silu,
            };
            (Model::Qwen3(qwen3::ModelForCausalLM::new(&config, vb)?), None)
        }
        "gemma3" => {
            let config = gemma3::Config {
                attention_bias: false,
                head_dim,
                hidden_activation: Activation::GeluPytorchTanh,
                hidden_size,
                intermediate_size,
                num_attention_heads: heads,
                num_hidden_layers: layers,
                num_key_value_heads: kv_heads,
                rms_norm_eps,
                rope_theta: f64::from(rope_theta),
                rope_local_base_freq: f64::from(fields.float("rope.freq_base_swa", Some(10_000.0))?),
                vocab_size,
                final_logit_softcapping: None,
                attn_logit_softcapping: None,
                query_pre_attn_scalar: head_dim,
                sliding_window: window.context("gemma3.attention.sliding_window is missing")?,
                sliding_window_pattern: fields
                    .number_opt("attention.sliding_window_pattern")?
                    .unwrap_or(6),
                max_position_embeddings: context,
            };
            (Model::Gemma3(gemma3::Model::new(false, &config, vb)?), None)
        }
        other => bail!("the oracle does not know the architecture {other}"),
    })
}
