//! Gemma 3 (Gemma 3 Technical Report, 2025): embeddings times sqrt(width), norms before and behind attention
//! and gated unit, normed Q and K, GELU in its tanh form, a tied head, and layers with a sliding window and
//! their own RoPE base, every sixth one global. GGUF stores norm gains as 1 + w, ready to multiply.

use bitai_kernels::program::{Activation, RopeStyle};

use super::{Description, Fields, Layer, Rope};
use crate::import::ImportError;

/// Fraction bits of the residual: it grows larger than in pre-norm models (TENSOR_SPEC).
const F_RESIDUAL: u8 = 13;
/// Every so many layers, one is global.
const PATTERN: u32 = 6;
/// Theta of layers with a window, where the file does not say.
const LOCAL_BASE: f64 = 10_000.0;
/// The 27B model divides by the root of width / heads instead of the head size's; it alone has 62 layers.
const LAYERS_27B: usize = 62;

pub(super) fn describe(fields: &Fields) -> Result<Description, ImportError> {
    let mut model = fields.common(RopeStyle::Halves)?;
    if !model.tied {
        // A head of its own would have to be read without the embedding's factor: no file has one.
        return Err(ImportError::ExtraTensor {
            name: "output.weight".into(),
        });
    }
    model.qk_norm = true;
    model.post_norms = true;
    model.activation = Activation::GeluTanh;
    model.embed_scale = f64::from(model.d_model).sqrt();
    model.f_residual = F_RESIDUAL;
    if model.layers.len() == LAYERS_27B {
        model.attention_divisor = (f64::from(model.d_model) / f64::from(model.heads)).sqrt();
    }
    let window = fields.window()?;
    if window == 0 {
        return Err(ImportError::field(
            &fields.key("attention.sliding_window"),
            "missing or 0",
        ));
    }
    let pattern = match fields.u32_opt("attention.sliding_window_pattern")? {
        Some(0) => {
            return Err(ImportError::field(
                &fields.key("attention.sliding_window_pattern"),
                "0 is not above 0",
            ));
        }
        pattern => pattern.unwrap_or(PATTERN),
    };
    // Scaling stretches the global table alone.
    model.ropes.push(Rope {
        name: "rope_local",
        base: fields.rope_base("rope.freq_base_swa", LOCAL_BASE)?,
        linear: 1.0,
        factors: None,
    });
    for (l, layer) in (0u32..).zip(&mut model.layers) {
        if (l + 1) % pattern != 0 {
            *layer = Layer { rope: 1, window };
        }
    }
    Ok(model)
}
