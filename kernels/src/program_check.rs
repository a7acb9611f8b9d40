//! Whether a program is well-formed: order, shapes, parameters.

use crate::{KernelError, program::Program};

/// See [`Program::validate`].
pub(crate) fn validate(program: &Program) -> Result<(), KernelError> {
    for (i, site) in program.sites.iter().enumerate() {
        if let Some(late) = site.inputs.iter().find(|s| **s as usize >= i) {
            return Err(KernelError::Spec {
                what: format!("site {i}"),
                why: format!("reads site {late}, which is not before it"),
            });
        }
    }
    Ok(())
}
