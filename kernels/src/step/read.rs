//! Reads the fields of a step's input, in order: little-endian, nothing optional, nothing left over.

use super::{Kind, PART_MAX, StepError};
use crate::{num::Scale, reference::sample::Threshold};

/// What is still to be read of an input.
pub(super) struct Reader<'a> {
    kind: Kind,
    input: &'a [u8],
    at: usize,
}

macro_rules! numbers {
    ($($name:ident)+) => {
        $(pub(super) fn $name(&mut self) -> Result<$name, StepError> {
            Ok($name::from_le_bytes(self.array()?))
        })+
    };
}

impl<'a> Reader<'a> {
    /// Behind the kind's byte.
    pub(super) const fn new(kind: Kind, input: &'a [u8]) -> Self {
        Self { kind, input, at: 1 }
    }

    numbers!(u8 i8 u16 i16 u32 i32 u64 i64);

    /// The next `n` bytes.
    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8], StepError> {
        let need = self.at.saturating_add(n);
        let bytes = self.input.get(self.at..need).ok_or(StepError::Length {
            kind: self.kind,
            got: self.input.len(),
            need,
        })?;
        self.at = need;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StepError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// `n` little-endian values of `N` bytes.
    pub(super) fn list<const N: usize, T>(
        &mut self,
        n: usize,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, StepError> {
        let bytes = self.bytes(n.saturating_mul(N))?;
        Ok(bytes.as_chunks().0.iter().map(|b| read(*b)).collect())
    }

    pub(super) fn i32s(&mut self, n: usize) -> Result<Vec<i32>, StepError> {
        self.list(n, i32::from_le_bytes)
    }

    pub(super) fn i64s(&mut self, n: usize) -> Result<Vec<i64>, StepError> {
        self.list(n, i64::from_le_bytes)
    }

    pub(super) fn i8s(&mut self, n: usize) -> Result<&'a [i8], StepError> {
        Ok(bytemuck::cast_slice(self.bytes(n)?))
    }

    /// Quantised integers of one or two planes.
    pub(super) fn ints(&mut self, planes: u8, n: usize) -> Result<Vec<i16>, StepError> {
        if planes == 1 {
            Ok(self.i8s(n)?.iter().map(|x| i16::from(*x)).collect())
        } else {
            self.list(n, i16::from_le_bytes)
        }
    }

    pub(super) fn scale(&mut self) -> Result<Scale, StepError> {
        Ok(Scale::from_bytes(self.array()?))
    }

    /// A unit of keys or values: 1 and its exponent, or 0 and 0.
    pub(super) fn unit(&mut self) -> Result<Option<i16>, StepError> {
        let (there, e) = (self.flag("unit")?, self.i16()?);
        match (there, e) {
            (true, e) => Ok(Some(e)),
            (false, 0) => Ok(None),
            (false, e) => Err(self.field("exponent of no unit", e as u16, "0")),
        }
    }

    pub(super) fn threshold(&mut self) -> Result<Threshold, StepError> {
        let (p, id) = (self.u32()?, self.u32()?);
        Ok(Threshold { p, id })
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, StepError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(self.field(field, got, "0 or 1")),
        }
    }

    pub(super) fn planes(&mut self) -> Result<u8, StepError> {
        match self.u8()? {
            planes @ 1..=2 => Ok(planes),
            got => Err(self.field("planes", got, "1 or 2")),
        }
    }

    /// A count of parts, 1..=256.
    pub(super) fn count(&mut self) -> Result<usize, StepError> {
        let n = self.u16()?;
        if n == 0 || usize::from(n) > PART_MAX {
            return Err(self.field("count", n, "in 1..=256"));
        }
        Ok(usize::from(n))
    }

    pub(super) fn p_bits(&mut self) -> Result<u8, StepError> {
        match self.u8()? {
            p_bits @ (15 | 23) => Ok(p_bits),
            got => Err(self.field("p_bits", got, "15 or 23")),
        }
    }

    pub(super) fn head_dim(&mut self) -> Result<usize, StepError> {
        let d = self.u16()?;
        if !(1..=1024).contains(&d) {
            return Err(self.field("head_dim", d, "in 1..=1024"));
        }
        Ok(usize::from(d))
    }

    /// Elements of a norm's group.
    pub(super) fn group(&mut self) -> Result<usize, StepError> {
        let d = self.u32()?;
        if !(1..=32_768).contains(&d) {
            return Err(self.field("group", d, "in 1..=32768"));
        }
        Ok(d as usize)
    }

    /// What is wrong with a field.
    pub(super) fn field(&self, field: &'static str, got: impl Into<u64>, must: &'static str) -> StepError {
        StepError::Field {
            kind: self.kind,
            field,
            got: got.into(),
            must,
        }
    }

    /// Everything must be read.
    pub(super) fn end(&self) -> Result<(), StepError> {
        if self.at == self.input.len() {
            return Ok(());
        }
        Err(StepError::Length {
            kind: self.kind,
            got: self.input.len(),
            need: self.at,
        })
    }
}

/// A sum of published numbers: exact, then clamped to 64 bits, so that no order of adding matters.
pub(super) fn clamped(sum: i128) -> i64 {
    sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
