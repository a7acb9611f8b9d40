//! Tensors of a model pack: their types, canonical bytes and identity.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Index of a tensor in the pack's manifest.
pub type TensorId = u32;

/// Element types of canonical tensors. All little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DType {
    /// Signed byte: weights.
    I8,
    /// Unsigned byte: group multipliers.
    U8,
    /// Signed 16-bit: RoPE tables.
    I16,
    /// Signed 32-bit: norm gains, biases.
    I32,
    /// A spec scale: u16 mantissa then i16 exponent, 4 bytes.
    Scale,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::I8 | DType::U8 => 1,
            DType::I16 => 2,
            DType::I32 | DType::Scale => 4,
        }
    }
}

/// A tensor's canonical bytes on the host, shared without copying (a memory map, or an owned vector).
#[derive(Clone)]
pub struct HostTensor {
    /// Element type.
    pub dtype: DType,
    /// Rows (1 for vectors).
    pub rows: usize,
    /// Elements a row.
    pub cols: usize,
    /// Row-major canonical bytes, `rows * cols * dtype.size()` of them.
    pub bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl HostTensor {
    /// A tensor over owned bytes.
    pub fn owned(dtype: DType, rows: usize, cols: usize, bytes: Vec<u8>) -> Self {
        Self {
            dtype,
            rows,
            cols,
            bytes: Arc::new(bytes),
        }
    }

    /// The canonical bytes.
    pub fn data(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}
