//! Huffman-coded literals of zstd (RFC 8878, 4.2).

use super::bits::Backward;
use super::fse::{self, Cursor};

/// Longest code, bits.
const BITS_MAX: u32 = 11;
/// Largest table of the weights' own code, as a power of two.
const WEIGHTS_LOG_MAX: u32 = 6;
/// Most weights that are written; the last symbol's follows from the others.
const WEIGHTS_MAX: usize = 255;

/// A decoding table: for each `log` bits the symbol that they begin with and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    codes: Vec<(u8, u8)>,
    log: u32,
}

impl Tree {
    /// Reads a description: the tree and the bytes it took.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&head, rest) = bytes.split_first()?;
        if head < 128 {
            let packed = rest.get(..usize::from(head))?;
            return Some((Self::from_weights(&unpack(packed)?)?, 1 + packed.len()));
        }
        let count = usize::from(head) - 127;
        let nibbles = rest.get(..count.div_ceil(2))?;
        let weights: Vec<u8> = nibbles
            .iter()
            .flat_map(|b| [b >> 4, b & 15])
            .take(count)
            .collect();
        Some((Self::from_weights(&weights)?, 1 + nibbles.len()))
    }

    /// A symbol of weight w > 0 has a code of (longest + 1 - w) bits; the last weight completes the tree.
    fn from_weights(weights: &[u8]) -> Option<Self> {
        let share = |w: u8| if w == 0 { 0 } else { 1u32 << (w - 1) };
        if weights.iter().any(|w| u32::from(*w) > BITS_MAX) {
            return None;
        }
        let sum: u32 = weights.iter().map(|w| share(*w)).sum();
        let log = 32 - sum.leading_zeros();
        if sum == 0 || log > BITS_MAX {
            return None;
        }
        let missing = (1u32 << log) - sum;
        if !missing.is_power_of_two() {
            return None;
        }
        let mut weights = weights.to_vec();
        weights.push(missing.ilog2() as u8 + 1);
        // The longest codes come in pairs, and there are some: otherwise the tree were written deeper than it is.
        let longest = weights.iter().filter(|w| **w == 1).count();
        if longest < 2 {
            return None;
        }
        let mut codes = Vec::with_capacity(1 << log);
        for weight in 1..=log as u8 {
            for (symbol, _) in (0u8..=255).zip(&weights).filter(|(_, w)| **w == weight) {
                let bits = log as u8 + 1 - weight;
                codes.extend(std::iter::repeat_n((symbol, bits), share(weight) as usize));
            }
        }
        (codes.len() == 1 << log).then_some(Self { codes, log })
    }

    /// Decodes exactly `count` symbols, which take exactly all bits of `stream`.
    pub(super) fn decode(&self, stream: &[u8], count: usize, into: &mut Vec<u8>) -> Option<()> {
        let mut bits = Backward::new(stream)?;
        for _ in 0..count {
            let (symbol, length) = self.codes[bits.peek_padded(self.log) as usize];
            bits.take(u32::from(length))?;
            into.push(symbol);
        }
        bits.is_spent().then_some(())
    }
}

/// Weights as two interleaved streams of one table: each says its last symbol when the other finds no bits.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let (table, taken) = fse::Table::read(packed, u8::MAX, WEIGHTS_LOG_MAX)?;
    let mut bits = Backward::new(packed.get(taken..)?)?;
    let mut cursors = [Cursor::new(&table, &mut bits)?, Cursor::new(&table, &mut bits)?];
    let mut weights = Vec::new();
    for turn in 0.. {
        let cursor: &mut Cursor<'_> = &mut cursors[turn % 2];
        weights.push(cursor.symbol());
        if cursor.advance(&mut bits).is_none() {
            weights.push(cursors[(turn + 1) % 2].symbol());
            break;
        }
        if weights.len() > WEIGHTS_MAX {
            return None;
        }
    }
    (weights.len() <= WEIGHTS_MAX).then_some(weights)
}
