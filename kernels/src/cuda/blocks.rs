//! Row blocks on a device while a batch runs, and the memory they come from and go back to.

use std::sync::Arc;

use super::driver::{Buffer, Driver, Queue};
use crate::{KernelError, num::Scale, ops::QuantRows};

/// A site's rows on the device.
pub(crate) enum Block {
    /// int32 rows.
    Acts {
        /// `[rows, cols]`.
        data: Buffer,
        cols: usize,
    },
    /// Quantised rows.
    Quant(Quant),
}

/// Quantised rows by planes (rule Q7).
pub(crate) struct Quant {
    /// `[rows, cols]`: the only plane, or the high one.
    pub(crate) hi: Buffer,
    /// The low one of two.
    pub(crate) lo: Option<Buffer>,
    /// `[rows, cols / group]`.
    pub(crate) scales: Buffer,
    pub(crate) cols: usize,
    pub(crate) group: usize,
    pub(crate) planes: u8,
}

/// Memory for row blocks. Work runs in order, so what was given back may be taken again at once.
pub(crate) struct Pool {
    driver: Arc<dyn Driver>,
    free: Vec<Buffer>,
}

/// Smallest size.
const GRAIN: usize = 4096;

/// The size that is taken for `bytes`: at most an eighth more, so that what grows with every token does not ask for
/// memory with every token.
fn class(bytes: usize) -> usize {
    let bytes = bytes.max(GRAIN);
    bytes.next_multiple_of(bytes.next_power_of_two() / 16)
}

impl Pool {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, free: vec![] }
    }

    /// At least `bytes` of memory.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Buffer, KernelError> {
        let size = class(bytes);
        // A small list must not hold a large block while hashing is under way.
        let fits = |b: &Buffer| b.len() >= bytes && b.len() <= 2 * size;
        let best = (0..self.free.len())
            .filter(|i| fits(&self.free[*i]))
            .min_by_key(|i| self.free[*i].len());
        if let Some(i) = best {
            return Ok(self.free.swap_remove(i));
        }
        Buffer::new(&self.driver, size).or_else(|_| {
            // Blocks of earlier batches may hold the room.
            self.free.clear();
            Buffer::new(&self.driver, size)
        })
    }

    pub(crate) fn give(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    pub(crate) fn give_block(&mut self, block: Block) {
        match block {
            Block::Acts { data, .. } => self.give(data),
            Block::Quant(q) => {
                self.give(q.hi);
                self.give(q.scales);
                if let Some(lo) = q.lo {
                    self.give(lo);
                }
            }
        }
    }

    /// A copy of words, taken from the pool.
    pub(crate) fn words(&mut self, words: &[u32]) -> Result<Buffer, KernelError> {
        let mut buffer = self.take(words.len() * 4)?;
        buffer.write(0, bytemuck::cast_slice(words))?;
        Ok(buffer)
    }

    pub(crate) fn quant(
        &mut self,
        rows: usize,
        cols: usize,
        group: usize,
        planes: u8,
    ) -> Result<Quant, KernelError> {
        Ok(Quant {
            hi: self.take(rows * cols)?,
            lo: (planes == 2).then(|| self.take(rows * cols)).transpose()?,
            scales: self.take(rows * (cols / group) * 4)?,
            cols,
            group,
            planes,
        })
    }
}

/// int32 rows on the host.
pub(crate) fn read_ints(data: &Buffer, count: usize) -> Result<Vec<i32>, KernelError> {
    let mut ints = vec![0i32; count];
    data.read(0, bytemuck::cast_slice_mut(&mut ints), Queue::Work)?;
    Ok(ints)
}

impl Quant {
    /// The rows on the host, planes joined.
    pub(crate) fn read(&self, rows: usize) -> Result<QuantRows, KernelError> {
        let mut out = QuantRows::default();
        out.reset(rows, self.cols, self.group, self.planes);
        let mut hi = vec![0i8; rows * self.cols];
        self.hi.read(0, bytemuck::cast_slice_mut(&mut hi), Queue::Work)?;
        for (q, hi) in out.q.iter_mut().zip(&hi) {
            *q = i16::from(*hi);
        }
        if let Some(lo) = &self.lo {
            let mut low = vec![0i8; rows * self.cols];
            lo.read(0, bytemuck::cast_slice_mut(&mut low), Queue::Work)?;
            for (q, lo) in out.q.iter_mut().zip(&low) {
                *q = *q * 256 + i16::from(*lo);
            }
        }
        let mut words = vec![[0u8; 4]; out.scales.len()];
        self.scales.read(0, words.as_flattened_mut(), Queue::Work)?;
        for (s, word) in out.scales.iter_mut().zip(words) {
            *s = Scale::from_bytes(word);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_waste_at_most_an_eighth_and_come_in_few_classes() {
        for bytes in (1..200_000).step_by(97) {
            let size = class(bytes);
            assert!(
                size >= bytes && size <= (bytes + bytes / 8).max(GRAIN),
                "{bytes}: {size}"
            );
        }
        let classes: std::collections::BTreeSet<_> = (1 << 20..1 << 21).step_by(64).map(class).collect();
        assert!(classes.len() <= 9, "{}", classes.len());
    }
}
