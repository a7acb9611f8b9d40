//! The float32 oracle: candle's Llama over the same GGUF file's dequantised weights.

use std::{collections::HashMap, fs::File, path::Path};

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor, quantized::gguf_file};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};

/// candle's Llama in float32.
pub struct Oracle {
    model: Llama,
    config: Config,
}

impl Oracle {
    /// Reads the file; `context` bounds the windows.
    pub fn load(gguf: &Path, context: usize) -> anyhow::Result<Self> {
        let mut file = File::open(gguf).with_context(|| gguf.display().to_string())?;
        let content = gguf_file::Content::read(&mut file)?;
        let number = |key: &str| -> anyhow::Result<usize> {
            let value = content
                .metadata
                .get(key)
                .with_context(|| format!("{key} is missing"))?;
            Ok(value.to_u32()? as usize)
        };
        let float = |key: &str| -> anyhow::Result<f32> {
            Ok(content
                .metadata
                .get(key)
                .with_context(|| format!("{key} is missing"))?
                .to_f32()?)
        };
        if content.tensor_infos.contains_key("rope_freqs.weight") {
            bail!("the oracle does not know scaled RoPE");
        }
        let heads = number("llama.attention.head_count")?;
        let kv_heads = number("llama.attention.head_count_kv")?;
        let layers = number("llama.block_count")?;
        let mut tensors = HashMap::new();
        let mut put = |theirs: &str, ours: String, heads: usize| -> anyhow::Result<()> {
            let t = content
                .tensor(&mut file, &format!("{theirs}.weight"), &Device::Cpu)?
                .dequantize(&Device::Cpu)?;
            let t = if heads > 0 { unpermute(&t, heads)? } else { t };
            tensors.insert(ours, t);
            Ok(())
        };
        put("token_embd", "model.embed_tokens.weight".into(), 0)?;
        put("output_norm", "model.norm.weight".into(), 0)?;
        let tied = !content.tensor_infos.contains_key("output.weight");
        if !tied {
            put("output", "lm_head.weight".into(), 0)?;
        }
        for l in 0..layers {
            for (theirs, ours, heads) in [
                ("attn_norm", "input_layernorm", 0),
                ("attn_q", "self_attn.q_proj", heads),
                ("attn_k", "self_attn.k_proj", kv_heads),
                ("attn_v", "self_attn.v_proj", 0),
                ("attn_output", "self_attn.o_proj", 0),
                ("ffn_norm", "post_attention_layernorm", 0),
                ("ffn_gate", "mlp.gate_proj", 0),
                ("ffn_up", "mlp.up_proj", 0),
                ("ffn_down", "mlp.down_proj", 0),
            ] {
                put(
                    &format!("blk.{l}.{theirs}"),
                    format!("model.layers.{l}.{ours}.weight"),
                    heads,
                )?;
            }
        }
        let config = Config {
            hidden_size: number("llama.embedding_length")?,
            intermediate_size: number("llama.feed_forward_length")?,
            vocab_size: tensors["model.embed_tokens.weight"].dim(0)?,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            use_flash_attn: false,
            rms_norm_eps: f64::from(float("llama.attention.layer_norm_rms_epsilon")?),
            rope_theta: float("llama.rope.freq_base")?,
            bos_token_id: None,
            eos_token_id: None,
            rope_scaling: None,
            max_position_embeddings: context,
            tie_word_embeddings: tied,
        };
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        Ok(Self {
            model: Llama::load(vb, &config)?,
            config,
        })
    }

    /// Runs windows of equal length side by side and gives each position's logits to `sink(window,
    /// position, logits)`. candle's Llama answers for the last position only, so it goes token by token.
    pub fn logits(
        &self,
        windows: &[Vec<u32>],
        mut sink: impl FnMut(usize, usize, Vec<f32>),
    ) -> anyhow::Result<()> {
        let mut cache = Cache::new(true, DType::F32, &self.config, &Device::Cpu)?;
        let len = windows.first().map_or(0, Vec::len);
        for pos in 0..len {
            let column: Vec<u32> = windows.iter().map(|w| w[pos]).collect();
            let x = Tensor::from_vec(column, (windows.len(), 1), &Device::Cpu)?;
            let logits = self.model.forward(&x, pos, &mut cache)?.to_vec2::<f32>()?;
            for (w, row) in logits.into_iter().enumerate() {
                sink(w, pos, row);
            }
        }
        Ok(())
    }
}

/// GGUF stores Q and K with RoPE's pairs side by side, candle's Llama wants them half a head apart.
fn unpermute(t: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let (rows, cols) = t.dims2()?;
    t.reshape((heads, rows / heads / 2, 2, cols))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((rows, cols))
}
