//! A GGUF file (v1 to v3): its fields, its tensor table, and slabs of rows through our own scalar
//! dequantisation, so the same file gives the same floats on every machine, however rows are split over
//! threads.

use std::{
    fs::File,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    ImportError,
    dequant::{FORMATS, Format},
    gguf_header::{self, Header, TensorInfo, Value},
};

/// Whole blocks of a format to floats.
type Dequantise = fn(&Format, &[u8], &mut [f32]);

/// An opened GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    file: File,
    header: Header,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// How blocks become floats: the format's decoder; tests put another implementation in its place.
    dequantise: Dequantise,
}

/// A tensor as the file stores it.
#[derive(Debug, Clone)]
pub(crate) struct GgufTensor {
    /// Name in the file.
    pub(crate) name: String,
    format: &'static Format,
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
        let reader = BufReader::with_capacity(1 << 20, file.try_clone().map_err(io)?);
        let header = gguf_header::read(reader, len).map_err(bad)?;
        let gguf = Self {
            path: path.to_owned(),
            file,
            header,
            len,
            dequantise: |format, raw, out| (format.decode)(raw, out),
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
        let mut names: Vec<String> = self.header.tensors.keys().cloned().collect();
        names.sort();
        names
    }

    /// Whether a tensor of that name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, ImportError> {
        let found = self.header.tensors.get(name);
        found.ok_or_else(|| ImportError::MissingTensor { name: name.into() })
    }

    /// The tensor's place and shape.
    pub(crate) fn tensor(&self, name: &str) -> Result<GgufTensor, ImportError> {
        let info = self.info(name)?;
        let format = FORMATS.iter().find(|f| f.id == info.format);
        let format = format.ok_or_else(|| ImportError::Unsupported {
            what: format!("tensor {name} of ggml type {}", info.format),
        })?;
        let bad = |why: &str| ImportError::Gguf {
            path: self.path.clone(),
            why: format!(
                "tensor {name}: {why}, shape {:?}, type {}",
                info.dims, format.name
            ),
        };
        let product = |dims: &[u64]| {
            let product = dims.iter().try_fold(1u64, |a, d| a.checked_mul(*d));
            product
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(|| bad("size overflows"))
        };
        let (lead, last) = info.dims.split_at(info.dims.len().saturating_sub(1));
        let (rows, cols) = (product(lead)?, product(last)?);
        if rows == 0 || cols == 0 || !cols.is_multiple_of(format.block) {
            return Err(bad("rows are empty or no whole number of blocks"));
        }
        let row_bytes = (cols / format.block)
            .checked_mul(format.bytes)
            .ok_or_else(|| bad("size overflows"))?;
        let start = self
            .header
            .data
            .checked_add(info.offset)
            .ok_or_else(|| bad("offset overflows"))?;
        Ok(GgufTensor {
            name: name.to_owned(),
            format,
            rows,
            cols,
            start,
            row_bytes,
        })
    }

    /// The tensor, if it has that shape.
    pub(crate) fn shaped(&self, name: &str, rows: usize, cols: usize) -> Result<GgufTensor, ImportError> {
        let t = self.tensor(name)?;
        let dims = &self.info(name)?.dims;
        let want = if rows == 1 { vec![cols] } else { vec![rows, cols] };
        if (t.rows, t.cols) != (rows, cols) || dims.len() > 2 {
            return Err(ImportError::TensorShape {
                name: name.to_owned(),
                want,
                got: dims
                    .iter()
                    .map(|d| usize::try_from(*d).unwrap_or(usize::MAX))
                    .collect(),
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
        (self.dequantise)(t.format, &raw, &mut floats);
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
        self.header.fields.get(key)
    }

    /// A field that must be there.
    fn need<T>(&self, key: &str, got: Option<Result<T, ImportError>>) -> Result<T, ImportError> {
        got.unwrap_or_else(|| Err(ImportError::field(key, "missing")))
    }

    /// An unsigned integer field of any width.
    pub(crate) fn u32_opt(&self, key: &str) -> Option<Result<u32, ImportError>> {
        Some(match self.value(key)? {
            Value::Int(v) => {
                u32::try_from(*v).map_err(|_| ImportError::field(key, format!("{v} is out of range")))
            }
            other => Err(wrong(key, other, "an integer")),
        })
    }

    /// An integer or float field as a number.
    pub(crate) fn number_opt(&self, key: &str) -> Option<Result<f64, ImportError>> {
        match self.value(key)? {
            Value::Float(_) => Some(self.f32_opt(key)?.map(f64::from)),
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
            Value::Float(v) if v.is_finite() => Ok(*v),
            Value::Float(v) => Err(ImportError::field(key, format!("{v} is not finite"))),
            other => Err(wrong(key, other, "a 32-bit float")),
        })
    }

    /// A float field that must be there.
    pub(crate) fn f32(&self, key: &str) -> Result<f32, ImportError> {
        self.need(key, self.f32_opt(key))
    }

    /// A text field.
    pub(crate) fn text_opt(&self, key: &str) -> Option<Result<&str, ImportError>> {
        Some(match self.value(key)? {
            Value::Text(v) => utf8(key, None, v),
            other => Err(wrong(key, other, "text")),
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
            other => Err(wrong(key, other, "a bool")),
        })
    }

    /// A list field, each element through `take` with its index.
    fn list_opt<'a, T>(
        &'a self,
        key: &str,
        take: impl Fn(usize, &'a Value) -> Result<T, ImportError>,
    ) -> Option<Result<Vec<T>, ImportError>> {
        Some(match self.value(key)? {
            Value::List(all) => all.iter().enumerate().map(|(i, v)| take(i, v)).collect(),
            other => Err(wrong(key, other, "a list")),
        })
    }

    /// A list of integers.
    pub(crate) fn ints_opt(&self, key: &str) -> Option<Result<Vec<i128>, ImportError>> {
        self.list_opt(key, |i, v| match v {
            Value::Int(n) => Ok(*n),
            other => Err(wrong(&format!("{key}[{i}]"), other, "an integer")),
        })
    }

    /// A list of floats, of any value.
    pub(crate) fn floats_opt(&self, key: &str) -> Option<Result<Vec<f32>, ImportError>> {
        self.list_opt(key, |i, v| match v {
            Value::Float(x) => Ok(*x),
            other => Err(wrong(&format!("{key}[{i}]"), other, "a 32-bit float")),
        })
    }

    /// A list of texts.
    pub(crate) fn texts_opt(&self, key: &str) -> Option<Result<Vec<String>, ImportError>> {
        self.list_opt(key, |i, v| match v {
            Value::Text(s) => utf8(key, Some(i), s).map(str::to_owned),
            other => Err(wrong(&format!("{key}[{i}]"), other, "text")),
        })
    }
}

fn wrong(key: &str, got: &Value, want: &str) -> ImportError {
    ImportError::field(key, format!("{} where {want} is expected", got.kind()))
}

/// Text of a field, or of its element `i`.
fn utf8<'a>(key: &str, i: Option<usize>, bytes: &'a [u8]) -> Result<&'a str, ImportError> {
    std::str::from_utf8(bytes).map_err(|e| {
        let element = i.map_or(String::new(), |i| format!("element {i} "));
        ImportError::field(key, format!("{element}is not UTF-8 at byte {}", e.valid_up_to()))
    })
}
