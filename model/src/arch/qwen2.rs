//! Qwen 2 and 2.5: biases on Q, K and V, RoPE over halves. Their sliding window, where a file turns it on,
//! holds for some layers only and is refused by name.

use bitai_kernels::program::RopeStyle;

use super::{Description, Fields};
use crate::import::ImportError;

pub(super) fn describe(fields: &Fields) -> Result<Description, ImportError> {
    fields.refuse("attention.sliding_window")?;
    let mut model = fields.common(RopeStyle::Halves)?;
    // The family's own trait: a file without them is named by the first that is missing.
    model.qkv_bias = true;
    Ok(model)
}
