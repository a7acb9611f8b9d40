//! Finite state entropy tables of zstd (RFC 8878, 4.1.1).

use super::bits::{Backward, Forward};

/// What a state stands for and how it goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    symbol: u8,
    /// Bits to read for the next state.
    bits: u8,
    /// Added to them.
    base: u16,
}

/// A decoding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    states: Vec<State>,
    log: u32,
}

impl Table {
    /// One state that needs no bits: the RLE mode of sequences.
    pub(super) fn single(symbol: u8) -> Self {
        let states = vec![State {
            symbol,
            ..State::default()
        }];
        Self { states, log: 0 }
    }

    /// Reads a description: the table and the bytes it took. Symbols go up to `symbol_max`, states to
    /// 2^`log_max`.
    pub(super) fn read(bytes: &[u8], symbol_max: u8, log_max: u32) -> Option<(Self, usize)> {
        let mut bits = Forward::new(bytes);
        let log = 5 + bits.take(4)?;
        if log > log_max {
            return None;
        }
        let mut left = 1i32 << log;
        let mut counts: Vec<i16> = Vec::new();
        while left > 0 {
            // A value from 0 to left + 1; small ones are written with a bit less.
            let most = left as u32 + 1;
            let width = 32 - most.leading_zeros();
            let spare = (1 << width) - 1 - most;
            let low = bits.peek(width - 1)?;
            let value = if low < spare {
                bits.skip(width - 1);
                low
            } else {
                let full = bits.take(width)?;
                if full >= 1 << (width - 1) {
                    full - spare
                } else {
                    full
                }
            };
            let count = i16::try_from(value).ok()? - 1;
            counts.push(count);
            left -= i32::from(count.abs());
            if count == 0 {
                loop {
                    let zeros = bits.take(2)?;
                    counts.extend(std::iter::repeat_n(0, zeros as usize));
                    if zeros < 3 {
                        break;
                    }
                }
            }
            if counts.len() > usize::from(symbol_max) + 1 {
                return None;
            }
        }
        (left == 0).then_some(())?;
        Some((Self::from_counts(&counts, log), bits.bytes_taken()))
    }

    /// From how many of 2^`log` states each symbol has; -1 is "less than one". They add up.
    pub(super) fn from_counts(counts: &[i16], log: u32) -> Self {
        let size = 1usize << log;
        let mut states = vec![State::default(); size];
        let mut next: Vec<u16> = counts.iter().map(|c| c.unsigned_abs()).collect();
        // The rare ones stand at the end, the others are spread over the rest.
        let mut end = size;
        for (symbol, _) in (0u8..).zip(counts).filter(|(_, c)| **c == -1) {
            end -= 1;
            states[end].symbol = symbol;
        }
        let step = (size >> 1) + (size >> 3) + 3;
        let mut at = 0;
        for (symbol, count) in (0u8..=255).zip(counts) {
            for _ in 0..(*count).max(0) {
                states[at].symbol = symbol;
                loop {
                    at = (at + step) & (size - 1);
                    if at < end || end == 0 {
                        break;
                    }
                }
            }
        }
        for state in &mut states {
            let n = &mut next[usize::from(state.symbol)];
            let bits = log - n.ilog2();
            state.bits = bits as u8;
            state.base = ((u32::from(*n) << bits) - (1 << log)) as u16;
            *n += 1;
        }
        Self { states, log }
    }
}

/// A place in a table.
pub(super) struct Cursor<'a> {
    table: &'a Table,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(table: &'a Table, bits: &mut Backward<'_>) -> Option<Self> {
        let at = bits.take(table.log)? as usize;
        Some(Self { table, at })
    }

    pub(super) fn symbol(&self) -> u8 {
        self.table.states[self.at].symbol
    }

    /// Goes on to the next state; `None` where the bits do not suffice.
    pub(super) fn advance(&mut self, bits: &mut Backward<'_>) -> Option<()> {
        let state = self.table.states[self.at];
        self.at = usize::from(state.base) + bits.take(u32::from(state.bits))? as usize;
        Some(())
    }
}
