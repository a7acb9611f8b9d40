//! Mistral under its own name: Llama's blocks with a sliding window in every layer (Mistral 7B, Jiang et al.
//! 2023: "each token can attend to at most W tokens"). No window in the file means that the model has none,
//! as from Mistral 7B v0.2 on.

use bitai_kernels::program::RopeStyle;

use super::{Description, Fields};
use crate::import::ImportError;

pub(super) fn describe(fields: &Fields) -> Result<Description, ImportError> {
    let mut model = fields.common(RopeStyle::Interleaved)?;
    let window = fields.window()?;
    model.layers.iter_mut().for_each(|l| l.window = window);
    Ok(model)
}
