//! The canonical bytes of every move: what is inscribed, and what the ids hash. A move has one encoding and the
//! reader takes no other: exact lengths, known kinds, flags of 0 or 1, nothing behind the end. All integers are
//! little-endian. The layout is in `docs/spec/poc.md`, section 6.

mod accusations;
mod answers;
mod asks;
mod openings;
#[cfg(test)]
mod tests;

use bitai_kernels::Hash;
use thiserror::Error;

pub use answers::AnswerKind;

/// Why bytes are no move.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("{what} needs {need} bytes at {at}, and {left} are left")]
    Short {
        /// The field.
        what: &'static str,
        /// Where it starts.
        at: usize,
        /// Its length.
        need: usize,
        /// What is left.
        left: usize,
    },
    /// Bytes behind the end of the move.
    #[error("{0} bytes behind the end of the move")]
    Trailing(usize),
    /// A list that takes the rest of the bytes, which is no multiple of its items.
    #[error("{what}: {len} bytes are no whole number of items of {item}")]
    Ragged {
        /// The list.
        what: &'static str,
        /// Bytes that are left for it.
        len: usize,
        /// Bytes an item.
        item: usize,
    },
    /// A kind that there is not.
    #[error("{what} of kind {got}")]
    Kind {
        /// What was read.
        what: &'static str,
        /// Its kind.
        got: u32,
    },
    /// A flag that is neither 0 nor 1.
    #[error("{what}: the flag is {got}, neither 0 nor 1")]
    Flag {
        /// The field.
        what: &'static str,
        /// The byte.
        got: u8,
    },
    /// A word that this ask does not use and that is not 0.
    #[error("word {index} of the ask is {got}; this kind leaves it 0")]
    Unused {
        /// Which word.
        index: usize,
        /// Its value.
        got: u32,
    },
    /// A tensor's name that is not UTF-8.
    #[error("the tensor's name is not UTF-8")]
    Name,
    /// A list longer than its count can say. Only a writer meets it.
    #[error("{what}: {len} items do not fit their count")]
    TooLong {
        /// The list.
        what: &'static str,
        /// How many there are.
        len: usize,
    },
}

/// Writes fields one after another.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
    too_long: Option<CodecError>,
}

impl Writer {
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn u8(&mut self, x: u8) {
        self.out.push(x);
    }

    fn u16(&mut self, x: u16) {
        self.raw(&x.to_le_bytes());
    }

    fn u32(&mut self, x: u32) {
        self.raw(&x.to_le_bytes());
    }

    fn u64(&mut self, x: u64) {
        self.raw(&x.to_le_bytes());
    }

    /// A count in front of a list, 16 bits.
    fn count(&mut self, what: &'static str, len: usize) {
        match u16::try_from(len) {
            Ok(n) => self.u16(n),
            Err(_) => self.too_long = Some(CodecError::TooLong { what, len }),
        }
    }

    fn option<T: Wire>(&mut self, item: Option<&T>) {
        self.u8(u8::from(item.is_some()));
        if let Some(item) = item {
            item.put(self);
        }
    }

    /// Bytes written so far.
    fn len(&self) -> usize {
        self.out.len()
    }

    fn done(self) -> Result<Vec<u8>, CodecError> {
        match self.too_long {
            None => Ok(self.out),
            Some(e) => Err(e),
        }
    }
}

/// Reads fields one after another.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, what: &'static str, need: usize) -> Result<&'a [u8], CodecError> {
        let left = self.left();
        let Some(bytes) = self.bytes.get(self.at..self.at.saturating_add(need)) else {
            let at = self.at;
            return Err(CodecError::Short { what, at, need, left });
        };
        self.at += need;
        Ok(bytes)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let bytes = self.take(what, N)?;
        let mut out = [0; N];
        out.copy_from_slice(bytes);
        Ok(out)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, CodecError> {
        self.array(what).map(|[b]| b)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, CodecError> {
        self.array(what).map(u16::from_le_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, CodecError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, CodecError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn hash(&mut self, what: &'static str) -> Result<Hash, CodecError> {
        self.array(what)
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, CodecError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(CodecError::Flag { what, got }),
        }
    }

    fn option<T: Wire>(&mut self, what: &'static str) -> Result<Option<T>, CodecError> {
        self.flag(what)?.then(|| T::get(self)).transpose()
    }

    /// As many items as a 16-bit count in front of them says.
    fn list<T: Wire>(&mut self, what: &'static str) -> Result<Vec<T>, CodecError> {
        let count = self.u16(what)?;
        (0..count).map(|_| T::get(self)).collect()
    }

    /// Items of `item` bytes each up to the end.
    fn rest<T: Wire>(&mut self, what: &'static str, item: usize) -> Result<Vec<T>, CodecError> {
        let len = self.left();
        if !len.is_multiple_of(item) {
            return Err(CodecError::Ragged { what, len, item });
        }
        (0..len / item).map(|_| T::get(self)).collect()
    }

    fn end(&self) -> Result<(), CodecError> {
        match self.left() {
            0 => Ok(()),
            n => Err(CodecError::Trailing(n)),
        }
    }
}

/// A part of a move that says itself how long it is.
pub(super) trait Wire: Sized {
    /// Writes it.
    fn put(&self, w: &mut Writer);
    /// Reads it.
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError>;
}

impl Wire for Hash {
    fn put(&self, w: &mut Writer) {
        w.raw(self);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        r.hash("a hash")
    }
}

impl Wire for u32 {
    fn put(&self, w: &mut Writer) {
        w.u32(*self);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        r.u32("a word")
    }
}

impl Wire for u64 {
    fn put(&self, w: &mut Writer) {
        Writer::u64(w, *self);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        r.u64("a sum of squares")
    }
}

impl Wire for i64 {
    fn put(&self, w: &mut Writer) {
        w.raw(&self.to_le_bytes());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        r.array("a sum").map(i64::from_le_bytes)
    }
}
