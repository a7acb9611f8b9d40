//! Llama 1 to 3, SmolLM, TinyLlama and all who name themselves `llama`. GGUF stores their Q and K with
//! RoPE's pairs side by side. Biases and a sliding window are there where the file has them: Mistral's files
//! mostly carry this name.

use bitai_kernels::program::RopeStyle;

use super::{Description, Fields};
use crate::import::ImportError;

pub(super) fn describe(fields: &Fields) -> Result<Description, ImportError> {
    let mut model = fields.common(RopeStyle::Interleaved)?;
    model.qkv_bias = fields.qkv_bias()?;
    let window = fields.window()?;
    model.layers.iter_mut().for_each(|l| l.window = window);
    Ok(model)
}
