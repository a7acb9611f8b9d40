//! The head of a GGUF file (v1 to v3): fields and tensor table. Files come from anyone, so every length is
//! held against what is left of the file before memory is asked for.
//!
//! Format: ggml's `docs/gguf.md`. Little-endian; v1 counts in 32 bits where later versions count in 64.

use std::{collections::HashMap, io::Read};

/// Most elements of a list: four times the largest vocabulary.
const LIST_MAX: u64 = 1 << 22;
/// Most dimensions of a tensor.
const DIMS_MAX: u32 = 4;
/// Where tensors start without `general.alignment`.
const ALIGNMENT: u64 = 32;

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// An integer of any width.
    Int(i128),
    /// A float; f64 fields are no part of any model that is read here.
    Float(f32),
    /// A double.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// Text that may or may not be UTF-8: whoever reads it checks.
    Text(Vec<u8>),
    /// Values of one kind, no lists among them.
    List(Vec<Value>),
}

impl Value {
    /// The kind, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Float(_) | Self::Double(_) => "a float",
            Self::Bool(_) => "a bool",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
        }
    }
}

/// A line of the tensor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorInfo {
    /// ggml's number of the format.
    pub(super) format: u32,
    /// Sizes, outermost first.
    pub(super) dims: Vec<u64>,
    /// From the start of the data.
    pub(super) offset: u64,
}

/// All that comes before the data.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// Fields by name.
    pub(super) fields: HashMap<String, Value>,
    /// Tensors by name.
    pub(super) tensors: HashMap<String, TensorInfo>,
    /// Where the data starts, from the start of the file.
    pub(super) data: u64,
}

/// Reads with an account of what is left.
struct Source<R> {
    reader: R,
    at: u64,
    len: u64,
    /// Lengths are 32 bits wide.
    narrow: bool,
}

/// Reads the head of a file of `len` bytes; the error says what is wrong.
pub(super) fn read(reader: impl Read, len: u64) -> Result<Header, String> {
    let mut s = Source {
        reader,
        at: 0,
        len,
        narrow: false,
    };
    let magic = s.array::<4>()?;
    if &magic != b"GGUF" {
        return Err(format!("it starts with {}, not with GGUF", hex::encode(magic)));
    }
    let version = s.u32()?;
    s.narrow = match version {
        1 => true,
        2 | 3 => false,
        other => return Err(format!("version {other}, versions 1 to 3 are read")),
    };
    let (tensors, fields) = (s.length()?, s.length()?);
    let mut header = Header::default();
    for _ in 0..fields {
        let key = s.name()?;
        let kind = s.u32()?;
        let value = s.value(kind, true).map_err(|why| format!("field {key}: {why}"))?;
        if header.fields.insert(key.clone(), value).is_some() {
            return Err(format!("field {key} is there twice"));
        }
    }
    for _ in 0..tensors {
        let name = s.name()?;
        let info = s.tensor().map_err(|why| format!("tensor {name}: {why}"))?;
        if header.tensors.insert(name.clone(), info).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
    }
    let alignment = match header.fields.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Int(a @ 1..=0x1_0000_0000)) => *a as u64,
        Some(other) => return Err(format!("general.alignment is {other:?}, not a size")),
    };
    // The head ends inside the file, far from 2^64, and so does what an alignment of 32 bits adds.
    header.data = s.at.next_multiple_of(alignment);
    Ok(header)
}

impl<R: Read> Source<R> {
    fn take(&mut self, out: &mut [u8]) -> Result<(), String> {
        let want = out.len() as u64;
        if want > self.len - self.at {
            return Err(format!("the file ends at {} within the head", self.len));
        }
        self.reader.read_exact(out).map_err(|e| e.to_string())?;
        self.at += want;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        self.take(&mut out)?;
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count or a length, as wide as the version has it.
    fn length(&mut self) -> Result<u64, String> {
        if self.narrow {
            self.u32().map(u64::from)
        } else {
            self.u64()
        }
    }

    fn text(&mut self) -> Result<Vec<u8>, String> {
        let len = self.length()?;
        if len > self.len - self.at {
            return Err(format!(
                "text of {len} bytes where {} are left",
                self.len - self.at
            ));
        }
        // Below the file's length, which memory can hold a part of.
        let mut out = vec![0; usize::try_from(len).map_err(|e| e.to_string())?];
        self.take(&mut out)?;
        // Some writers end text with zeros.
        while out.last() == Some(&0) {
            out.pop();
        }
        Ok(out)
    }

    /// The name of a field or of a tensor.
    fn name(&mut self) -> Result<String, String> {
        String::from_utf8(self.text()?).map_err(|e| {
            let name = String::from_utf8_lossy(e.as_bytes()).into_owned();
            format!("the name {name:?} is not UTF-8")
        })
    }

    fn value(&mut self, kind: u32, lists: bool) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Int(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Int(self.u32()?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?)),
            7 => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(format!("a bool of {other}")),
            },
            8 => Value::Text(self.text()?),
            9 if lists => {
                let (kind, count) = (self.u32()?, self.length()?);
                // Every element takes a byte at least.
                if count > LIST_MAX || count > self.len - self.at {
                    return Err(format!("a list of {count} elements"));
                }
                let all = (0..count).map(|_| self.value(kind, false));
                Value::List(all.collect::<Result<_, _>>()?)
            }
            9 => return Err("a list of lists".into()),
            10 => Value::Int(self.u64()?.into()),
            11 => Value::Int(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Double(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("a value of kind {other}")),
        })
    }

    fn tensor(&mut self) -> Result<TensorInfo, String> {
        let count = self.u32()?;
        if count > DIMS_MAX {
            return Err(format!("{count} dimensions"));
        }
        let mut dims = (0..count)
            .map(|_| self.length())
            .collect::<Result<Vec<u64>, _>>()?;
        // GGUF counts from the innermost.
        dims.reverse();
        Ok(TensorInfo {
            dims,
            format: self.u32()?,
            offset: self.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(s: &[u8]) -> Vec<u8> {
        [&(s.len() as u64).to_le_bytes()[..], s].concat()
    }

    fn head(fields: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((fields.len() as u64).to_le_bytes());
        out.extend(fields.concat());
        out.extend(tensors.concat());
        out
    }

    fn field(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
        [&text(key.as_bytes())[..], &kind.to_le_bytes(), value].concat()
    }

    fn tensor(name: &str) -> Vec<u8> {
        let mut out = text(name.as_bytes());
        out.extend(2u32.to_le_bytes());
        for n in [5u64, 3] {
            out.extend(n.to_le_bytes());
        }
        out.extend(8u32.to_le_bytes());
        out.extend(64u64.to_le_bytes());
        out
    }

    fn of(bytes: &[u8]) -> Result<Header, String> {
        read(bytes, bytes.len() as u64)
    }

    #[test]
    fn fields_and_tensors_come_back() {
        let bytes = head(
            &[
                field("a", 4, &7u32.to_le_bytes()),
                field("b", 8, &text("gr\u{f6}\u{df}e\0\0".as_bytes())),
                field(
                    "c",
                    9,
                    &[
                        &5u32.to_le_bytes()[..],
                        &1u64.to_le_bytes(),
                        &(-3i32).to_le_bytes(),
                    ]
                    .concat(),
                ),
                field("general.alignment", 4, &64u32.to_le_bytes()),
            ],
            &[tensor("t")],
        );
        let h = of(&bytes).unwrap();
        assert_eq!(h.fields["a"], Value::Int(7));
        assert_eq!(h.fields["b"], Value::Text("gr\u{f6}\u{df}e".into()));
        assert_eq!(h.fields["c"], Value::List(vec![Value::Int(-3)]));
        let t = &h.tensors["t"];
        assert_eq!((t.format, &t.dims[..], t.offset), (8, &[3, 5][..], 64));
        assert_eq!(h.data, (bytes.len() as u64).next_multiple_of(64));
        // The same in version 1's narrow lengths.
        let mut old = b"GGUF\x01\0\0\0".to_vec();
        for n in [0u32, 1, 1] {
            old.extend(n.to_le_bytes());
        }
        old.extend(b"k\x07\0\0\0\x01");
        assert_eq!(of(&old).unwrap().fields["k"], Value::Bool(true));
    }

    #[test]
    fn rejects_lengths_beyond_the_file_doubles_and_foreign_kinds() {
        let huge = &u64::MAX.to_le_bytes();
        let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
        let nested = [list(9, 1), list(0, 0)].concat();
        for (bytes, word) in [
            (head(&[field("k", 8, huge)], &[]), "field k: text of"),
            (head(&[field("k", 9, &list(0, u64::MAX))], &[]), "a list of"),
            (head(&[field("k", 9, &nested)], &[]), "a list of lists"),
            (head(&[field("k", 99, &[])], &[]), "kind 99"),
            (head(&[field("k", 7, &[2])], &[]), "a bool of 2"),
            (
                head(&[field("k", 0, &[1]), field("k", 0, &[1])], &[]),
                "field k is there twice",
            ),
            (head(&[], &[tensor("t"), tensor("t")]), "tensor t is there twice"),
            (
                head(&[field("general.alignment", 4, &0u32.to_le_bytes())], &[]),
                "general.alignment",
            ),
            (b"GGUF\x09\0\0\0".to_vec(), "version 9"),
            (b"PK\x03\x04".to_vec(), "not with GGUF"),
        ] {
            let got = of(&bytes).unwrap_err();
            assert!(got.contains(word), "{got}");
        }
        let mut name = head(&[field("k", 0, &[1])], &[]);
        let at = name.len() - 6;
        name[at] = 0xff;
        let got = of(&name).unwrap_err();
        assert!(got.contains("not UTF-8"), "{got}");
    }

    proptest! {
        #[test]
        fn noise_behind_the_magic_never_panics(version in 1u8..4, noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut all = vec![b'G', b'G', b'U', b'F', version, 0, 0, 0];
            all.extend(noise);
            let _ = of(&all);
        }
    }
}
