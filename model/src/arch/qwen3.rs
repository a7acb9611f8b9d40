//! Qwen 3: every head of Q and K is normed before RoPE (over halves), no biases, and a head size of its own:
//! `heads * head_dim` is not the width.

use bitai_kernels::program::RopeStyle;

use super::{Description, Fields};
use crate::import::ImportError;

pub(super) fn describe(fields: &Fields) -> Result<Description, ImportError> {
    fields.refuse("attention.sliding_window")?;
    let mut model = fields.common(RopeStyle::Halves)?;
    model.qk_norm = true;
    Ok(model)
}
