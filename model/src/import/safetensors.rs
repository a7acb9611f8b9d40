//! Reads tensors of a safetensors file as rows of f64. Only the header is held in memory; rows come from the file.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bitai_kernels::Hash;
use safetensors::{Dtype, tensor::Metadata};

use super::ImportError;

/// Longest header that is read: 100 MB, as the format's own reader allows.
const HEADER_MAX: u64 = 100_000_000;
/// Bytes of the length in front of the header.
const LENGTH: u64 = 8;

/// An open file.
pub(crate) struct Source {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where tensor bytes begin.
    data: u64,
    /// Bytes of the file.
    pub(crate) len: u64,
}

/// A tensor that is there in the wanted shape.
pub(crate) struct Located {
    name: String,
    dtype: Dtype,
    cols: usize,
    at: u64,
}

impl Source {
    /// Reads the header and checks that every tensor lies in the file.
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let io = |source| ImportError::Io {
            path: path.to_owned(),
            source,
        };
        let bad = |why: String| ImportError::Safetensors {
            path: path.to_owned(),
            why,
        };
        let mut file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut length = [0; LENGTH as usize];
        file.read_exact(&mut length)
            .map_err(|_| bad(format!("{len} bytes are too few for a header")))?;
        let header = u64::from_le_bytes(length);
        if header > HEADER_MAX || header > len - LENGTH {
            return Err(bad(format!("a header of {header} bytes in a file of {len}")));
        }
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|e| bad(format!("header: {e}")))?;
        let data = LENGTH + header;
        let source = Self {
            path: path.to_owned(),
            file,
            metadata,
            data,
            len,
        };
        for (name, info) in source.metadata.tensors() {
            let elements = info.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
            let (start, end) = info.data_offsets;
            if bits.is_none() || end.checked_sub(start) != bits.map(|b| b.div_ceil(8)) {
                let why = format!(
                    "tensor {name}: bytes {start}..{end} for shape {:?} of {:?}",
                    info.shape, info.dtype
                );
                return Err(bad(why));
            }
            let want = data.saturating_add(end as u64);
            if want > len {
                return Err(ImportError::Truncated {
                    path: path.to_owned(),
                    tensor: name,
                    want,
                    have: len,
                });
            }
        }
        Ok(source)
    }

    /// BLAKE3 of the whole file.
    pub(crate) fn hash(&self) -> Result<Hash, ImportError> {
        let mut hasher = blake3::Hasher::new();
        let file = File::open(&self.path).map_err(|e| self.io(e))?;
        hasher.update_reader(file).map_err(|e| self.io(e))?;
        Ok(*hasher.finalize().as_bytes())
    }

    /// Names of all tensors, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.sort();
        names
    }

    /// Rows and columns of a tensor, where it is there; a vector is one row.
    pub(crate) fn shape(&self, name: &str) -> Option<(usize, usize)> {
        match self.metadata.info(name)?.shape.as_slice() {
            [cols] => Some((1, *cols)),
            [rows, cols] => Some((*rows, *cols)),
            _ => None,
        }
    }

    /// A tensor that must have this shape (one row: a vector will do) and hold floats.
    pub(crate) fn shaped(&self, name: &str, rows: usize, cols: usize) -> Result<Located, ImportError> {
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| ImportError::MissingTensor { name: name.into() })?;
        let want = if rows == 1 { vec![cols] } else { vec![rows, cols] };
        if info.shape != want && info.shape != [rows, cols] {
            return Err(ImportError::TensorShape {
                name: name.into(),
                want,
                got: info.shape.clone(),
            });
        }
        if !matches!(info.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(ImportError::Unsupported {
                what: format!(
                    "tensor {name} of type {:?} (F64, F32, F16 and BF16 are)",
                    info.dtype
                ),
            });
        }
        Ok(Located {
            name: name.into(),
            dtype: info.dtype,
            cols,
            at: self.data + info.data_offsets.0 as u64,
        })
    }

    /// Rows `first .. first + count` as f64, exactly; refuses what is not finite.
    pub(crate) fn rows(&self, t: &Located, first: usize, count: usize) -> Result<Vec<f64>, ImportError> {
        let width = match t.dtype {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            _ => 2,
        };
        let mut bytes = vec![0; count * t.cols * width];
        let at = t.at + (first * t.cols * width) as u64;
        self.file.read_exact_at(&mut bytes, at).map_err(|e| self.io(e))?;
        let values: Vec<f64> = match t.dtype {
            Dtype::F64 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect(),
            Dtype::F32 => {
                let floats = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
                floats.map(f64::from).collect()
            }
            Dtype::BF16 => {
                let floats = bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| u32::from(u16::from_le_bytes(*b)) << 16);
                floats.map(|b| f64::from(f32::from_bits(b))).collect()
            }
            _ => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half(u16::from_le_bytes(*b)))
                .collect(),
        };
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => Err(ImportError::NotFinite {
                name: t.name.clone(),
                index: first * t.cols + i,
                value: values[i],
            }),
        }
    }

    fn io(&self, source: std::io::Error) -> ImportError {
        ImportError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// IEEE 754 binary16 as f64, exactly.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (e, m) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let value = match e {
        0 => m * super::number::pow2(-24),
        31 if m == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + m) * super::number::pow2(e - 25),
    };
    sign * value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for (bits, want) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x03ff, 6.097_555_160_522_461e-5),
            (0x3555, 0.333_251_953_125),
        ] {
            assert_eq!(half(bits), want, "{bits:#x}");
        }
        assert!(half(0x7c00).is_infinite() && half(0xfc01).is_nan());
    }
}
