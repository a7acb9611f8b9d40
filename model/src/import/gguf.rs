//! Reads a GGUF file (v1 to v3): fields and the tensor table through candle-core, slabs of rows through our own
//! scalar dequantisation, so the same file gives the same floats on every machine, however rows are split
//! over threads.

use std::{
    fs::File,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use candle_core::quantized::{
    GgmlDType,
    gguf_file::{Content, Value},
};

use super::{ImportError, dequant};

/// Whole blocks of a format to floats; `None` where the format holds no weights.
type Dequantise = fn(GgmlDType, &[u8], &mut [f32]) -> Option<()>;

/// An opened GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    file: File,
    content: Content,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// How blocks become floats: [`dequant`]; tests put another implementation in its place.
    dequantise: Dequantise,
}

/// A tensor as the file stores it.
#[derive(Debug, Clone)]
pub(crate) struct GgufTensor {
    /// Name in the file.
    pub(crate) name: String,
    dtype: GgmlDType,
    /// Rows (1 for vectors).
    pub(crate) rows: usize,
    /// Elements a row.
    pub(crate) cols: usize,
    start: u64,
    row_bytes: usize,
}

impl Gguf {
    /// Reads fields and tensor table and checks that every tensor lies inside the file.
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let io = |source| ImportError::Io {
            path: path.to_owned(),
            source,
        };
        let bad = |why: String| ImportError::Gguf {
            path: path.to_owned(),
            why,
        };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file.try_clone().map_err(io)?);
        // candle divides by general.alignment and multiplies dimensions unchecked: hostile files would end
        // the program where they should be refused.
        let content = catch_unwind(AssertUnwindSafe(|| Content::read(&mut reader)))
            .map_err(|_| {
                bad("a field is out of range (general.alignment 0, or a size that overflows)".into())
            })?
            .map_err(|e| bad(root_cause(&e)))?;
        let gguf = Self {
            path: path.to_owned(),
            file,
            content,
            len,
            dequantise: |dtype, raw, out| {
                dequant::decoder(dtype)?(raw, out);
                Some(())
            },
        };
        for name in gguf.tensor_names() {
            let t = gguf.tensor(&name)?;
            let want = (t.row_bytes as u64)
                .checked_mul(t.rows as u64)
                .and_then(|n| n.checked_add(t.start))
                .ok_or_else(|| bad(format!("tensor {name}: size overflows")))?;
            if want > len {
                return Err(ImportError::Truncated {
                    path: path.to_owned(),
                    tensor: name,
                    want,
                    have: len,
                });
            }
        }
        Ok(gguf)
    }

    /// The same file with another way from blocks to floats.
    #[cfg(test)]
    pub(super) fn with_dequantise(mut self, dequantise: Dequantise) -> Self {
        self.dequantise = dequantise;
        self
    }

    /// Plain BLAKE3 of the whole file.
    pub(crate) fn hash(&self) -> Result<[u8; 32], ImportError> {
        let io = |source| ImportError::Io {
            path: self.path.clone(),
            source,
        };
        let mut file = File::open(&self.path).map_err(io)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(io)? {
                0 => return Ok(*hasher.finalize().as_bytes()),
                n => hasher.update(&buffer[..n]),
            };
        }
    }

    /// Names of all tensors, sorted.
    pub(crate) fn tensor_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.content.tensor_infos.keys().cloned().collect();
        names.sort();
        names
    }

    /// Whether a tensor of that name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// The tensor's place and shape.
    pub(crate) fn tensor(&self, name: &str) -> Result<GgufTensor, ImportError> {
        let info = self
            .content
            .tensor_infos
            .get(name)
            .ok_or_else(|| ImportError::MissingTensor { name: name.into() })?;
        let dims = info.shape.dims();
        let bad = |why: &str| ImportError::Gguf {
            path: self.path.clone(),
            why: format!("tensor {name}: {why}, shape {dims:?}, type {:?}", info.ggml_dtype),
        };
        let (rows, cols) = match dims {
            [] => (1, 1),
            [n] => (1, *n),
            [lead @ .., n] => (
                lead.iter()
                    .try_fold(1usize, |a, d| a.checked_mul(*d))
                    .ok_or_else(|| bad("size overflows"))?,
                *n,
            ),
        };
        let block = info.ggml_dtype.block_size();
        if rows == 0 || cols == 0 || !cols.is_multiple_of(block) {
            return Err(bad("rows are empty or no whole number of blocks"));
        }
        let row_bytes = (cols / block)
            .checked_mul(info.ggml_dtype.type_size())
            .ok_or_else(|| bad("size overflows"))?;
        let start = self
            .content
            .tensor_data_offset
            .checked_add(info.offset)
            .ok_or_else(|| bad("offset overflows"))?;
        Ok(GgufTensor {
            name: name.to_owned(),
            dtype: info.ggml_dtype,
            rows,
            cols,
            start,
            row_bytes,
        })
    }

    /// The tensor, if it has that shape.
    pub(crate) fn shaped(&self, name: &str, rows: usize, cols: usize) -> Result<GgufTensor, ImportError> {
        let t = self.tensor(name)?;
        let dims = self.content.tensor_infos[name].shape.dims();
        let want = if rows == 1 { vec![cols] } else { vec![rows, cols] };
        if (t.rows, t.cols) != (rows, cols) || dims.len() > 2 {
            return Err(ImportError::TensorShape {
                name: name.to_owned(),
                want,
                got: dims.to_vec(),
            });
        }
        Ok(t)
    }

    /// Rows `first .. first + count`, dequantised, as exact f64 copies of f32. Refuses NaN and infinity.
    pub(crate) fn rows(&self, t: &GgufTensor, first: usize, count: usize) -> Result<Vec<f64>, ImportError> {
        let mut raw = vec![0u8; t.row_bytes * count];
        self.file
            .read_exact_at(&mut raw, t.start + (t.row_bytes * first) as u64)
            .map_err(|source| ImportError::Io {
                path: self.path.clone(),
                source,
            })?;
        let mut floats = vec![0f32; t.cols * count];
        (self.dequantise)(t.dtype, &raw, &mut floats).ok_or_else(|| ImportError::Unsupported {
            what: format!("tensor {} of type {:?}", t.name, t.dtype),
        })?;
        if let Some(at) = floats.iter().position(|v| !v.is_finite()) {
            return Err(ImportError::NotFinite {
                name: t.name.clone(),
                index: first * t.cols + at,
                value: f64::from(floats[at]),
            });
        }
        Ok(floats.into_iter().map(f64::from).collect())
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    /// A field that must be there.
    fn need<T>(&self, key: &str, got: Option<Result<T, ImportError>>) -> Result<T, ImportError> {
        got.unwrap_or_else(|| Err(ImportError::field(key, "missing")))
    }

    /// An unsigned integer field of any width.
    pub(crate) fn u32_opt(&self, key: &str) -> Option<Result<u32, ImportError>> {
        let wide = match self.value(key)? {
            Value::U8(v) => i128::from(*v),
            Value::I8(v) => i128::from(*v),
            Value::U16(v) => i128::from(*v),
            Value::I16(v) => i128::from(*v),
            Value::U32(v) => i128::from(*v),
            Value::I32(v) => i128::from(*v),
            Value::U64(v) => i128::from(*v),
            Value::I64(v) => i128::from(*v),
            other => {
                return Some(Err(ImportError::field(
                    key,
                    format!("{:?} where an integer is expected", other.value_type()),
                )));
            }
        };
        Some(u32::try_from(wide).map_err(|_| ImportError::field(key, format!("{wide} is out of range"))))
    }

    /// An integer or float field as a number.
    pub(crate) fn number_opt(&self, key: &str) -> Option<Result<f64, ImportError>> {
        match self.value(key)? {
            Value::F32(_) => Some(self.f32_opt(key)?.map(f64::from)),
            _ => Some(self.u32_opt(key)?.map(f64::from)),
        }
    }

    /// An unsigned integer field that must be there.
    pub(crate) fn u32(&self, key: &str) -> Result<u32, ImportError> {
        self.need(key, self.u32_opt(key))
    }

    /// A float field.
    pub(crate) fn f32_opt(&self, key: &str) -> Option<Result<f32, ImportError>> {
        Some(match self.value(key)? {
            Value::F32(v) if v.is_finite() => Ok(*v),
            Value::F32(v) => Err(ImportError::field(key, format!("{v} is not finite"))),
            other => Err(ImportError::field(
                key,
                format!("{:?} where a float is expected", other.value_type()),
            )),
        })
    }

    /// A float field that must be there.
    pub(crate) fn f32(&self, key: &str) -> Result<f32, ImportError> {
        self.need(key, self.f32_opt(key))
    }

    /// A text field.
    pub(crate) fn text_opt(&self, key: &str) -> Option<Result<&str, ImportError>> {
        Some(match self.value(key)? {
            Value::String(v) => Ok(v.as_str()),
            other => Err(ImportError::field(
                key,
                format!("{:?} where text is expected", other.value_type()),
            )),
        })
    }

    /// A text field that must be there.
    pub(crate) fn text(&self, key: &str) -> Result<&str, ImportError> {
        self.need(key, self.text_opt(key))
    }

    /// A yes-or-no field.
    pub(crate) fn bool_opt(&self, key: &str) -> Option<Result<bool, ImportError>> {
        Some(match self.value(key)? {
            Value::Bool(v) => Ok(*v),
            other => Err(ImportError::field(
                key,
                format!("{:?} where a bool is expected", other.value_type()),
            )),
        })
    }

    /// A list field, each element through `take`.
    pub(crate) fn list_opt<T>(
        &self,
        key: &str,
        take: impl Fn(&Value) -> Option<T>,
    ) -> Option<Result<Vec<T>, ImportError>> {
        Some(match self.value(key)? {
            Value::Array(all) => all
                .iter()
                .enumerate()
                .map(|(i, v)| {
                    take(v).ok_or_else(|| {
                        ImportError::field(key, format!("element {i} has type {:?}", v.value_type()))
                    })
                })
                .collect(),
            other => Err(ImportError::field(
                key,
                format!("{:?} where a list is expected", other.value_type()),
            )),
        })
    }

    /// A list of texts.
    pub(crate) fn texts_opt(&self, key: &str) -> Option<Result<Vec<String>, ImportError>> {
        self.list_opt(key, |v| match v {
            Value::String(s) => Some(s.clone()),
            _ => None,
        })
    }
}

/// candle appends a backtrace to its errors where one is enabled; people want the first line.
fn root_cause(e: &candle_core::Error) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
}
