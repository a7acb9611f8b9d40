//! Sequences of a zstd block: how literals and matches alternate (RFC 8878, 3.1.1.3.2 and 3.1.1.4).

use super::bits::Backward;
use super::fse::{Cursor, Table};

/// A field of a sequence: its largest code, its largest table as a power of two, and its standing counts.
struct Field {
    code_max: u8,
    log_max: u32,
    counts: &'static [i16],
    log: u32,
}

const LITERAL_LENGTHS: Field = Field {
    code_max: 35,
    log_max: 9,
    counts: &[
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1,
        -1, -1, -1,
    ],
    log: 6,
};
const OFFSETS: Field = Field {
    code_max: 31,
    log_max: 8,
    counts: &[
        1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
    ],
    log: 5,
};
const MATCH_LENGTHS: Field = Field {
    code_max: 52,
    log_max: 9,
    counts: &[
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
    log: 6,
};

/// Extra bits of literal length codes 16 to 35; each code begins where the one before ends.
const LITERAL_BITS: [u8; 20] = [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
/// The same of match length codes 32 to 52.
const MATCH_BITS: [u8; 21] = [
    1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];

/// Base and extra bits of a length code: `plain` codes stand for themselves, later ones for ranges.
fn length(code: u8, plain: u8, bits: &[u8]) -> (u32, u32) {
    let Some(index) = code.checked_sub(plain) else {
        return (u32::from(code), 0);
    };
    let before = &bits[..usize::from(index)];
    let base = before.iter().map(|b| 1u32 << b).sum::<u32>() + u32::from(plain);
    (base, u32::from(bits[usize::from(index)]))
}

fn literal_length(code: u8) -> (u32, u32) {
    length(code, 16, &LITERAL_BITS)
}

fn match_length(code: u8) -> (u32, u32) {
    let (base, bits) = length(code, 32, &MATCH_BITS);
    (base + 3, bits)
}

/// Tables and offsets that later blocks may repeat.
pub(super) struct Sequences {
    tables: [Option<Table>; 3],
    recent: [usize; 3],
}

impl Default for Sequences {
    fn default() -> Self {
        Self {
            tables: [None, None, None],
            recent: [1, 4, 8],
        }
    }
}

impl Sequences {
    /// Writes a block's content behind `out`, at most `room` bytes, with matches at most `window` back.
    pub(super) fn run(
        &mut self,
        section: &[u8],
        mut literals: &[u8],
        out: &mut Vec<u8>,
        mut room: usize,
        window: usize,
    ) -> Option<()> {
        let (count, rest) = count(section)?;
        if count == 0 {
            if !rest.is_empty() || literals.len() > room {
                return None;
            }
            out.extend_from_slice(literals);
            return Some(());
        }
        let (&modes, mut rest) = rest.split_first()?;
        if modes & 3 != 0 {
            return None;
        }
        for (i, field) in [LITERAL_LENGTHS, OFFSETS, MATCH_LENGTHS].iter().enumerate() {
            rest = self.table(i, field, (modes >> (6 - 2 * i)) & 3, rest)?;
        }
        let [Some(ll), Some(of), Some(ml)] = &self.tables else {
            return None;
        };
        let mut bits = Backward::new(rest)?;
        let mut ll = Cursor::new(ll, &mut bits)?;
        let mut of = Cursor::new(of, &mut bits)?;
        let mut ml = Cursor::new(ml, &mut bits)?;
        for left in (0..count).rev() {
            let of_code = u32::from(of.symbol());
            let offset_value = (1u64 << of_code) + u64::from(bits.take(of_code)?);
            let (base, extra) = match_length(ml.symbol());
            let match_len = (base + bits.take(extra)?) as usize;
            let (base, extra) = literal_length(ll.symbol());
            let literal_len = (base + bits.take(extra)?) as usize;
            if left > 0 {
                ll.advance(&mut bits)?;
                ml.advance(&mut bits)?;
                of.advance(&mut bits)?;
            }
            let (some, after) = literals.split_at_checked(literal_len)?;
            literals = after;
            room = room.checked_sub(literal_len + match_len)?;
            out.extend_from_slice(some);
            let offset = offset(&mut self.recent, offset_value, literal_len == 0)?;
            if offset > out.len().min(window) {
                return None;
            }
            let from = out.len() - offset;
            if offset >= match_len {
                out.extend_from_within(from..from + match_len);
            } else {
                // A match may run into itself.
                (from..from + match_len).for_each(|i| out.push(out[i]));
            }
        }
        if !bits.is_spent() || literals.len() > room {
            return None;
        }
        out.extend_from_slice(literals);
        Some(())
    }

    /// Sets the table of field `i` as `mode` says; what of `bytes` follows.
    fn table<'a>(&mut self, i: usize, field: &Field, mode: u8, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (table, taken) = match mode {
            0 => (Table::from_counts(field.counts, field.log), 0),
            1 => {
                let code = *bytes.first()?;
                (code <= field.code_max).then_some(())?;
                (Table::single(code), 1)
            }
            2 => Table::read(bytes, field.code_max, field.log_max)?,
            _ => return self.tables[i].is_some().then_some(bytes),
        };
        self.tables[i] = Some(table);
        bytes.get(taken..)
    }
}

/// Number of sequences, and what follows it.
fn count(section: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = section.split_first()?;
    match first {
        0..=127 => Some((usize::from(first), rest)),
        128..=254 => {
            let (&low, rest) = rest.split_first()?;
            Some((((usize::from(first) - 128) << 8) + usize::from(low), rest))
        }
        255 => {
            let (low, rest) = rest.split_first_chunk::<2>()?;
            Some((usize::from(u16::from_le_bytes(*low)) + 0x7f00, rest))
        }
    }
}

/// The offset that `value` stands for; `None` for zero. Values to 3 repeat recent ones, shifted by one where
/// no literal stands before.
fn offset(recent: &mut [usize; 3], value: u64, no_literals: bool) -> Option<usize> {
    let index = match value {
        0 => return None,
        1..=3 => usize::try_from(value).ok()? - usize::from(!no_literals),
        _ => {
            let offset = usize::try_from(value - 3).ok()?;
            *recent = [offset, recent[0], recent[1]];
            return Some(offset);
        }
    };
    let offset = match index {
        3 => recent[0].checked_sub(1).filter(|o| *o > 0)?,
        _ => recent[index],
    };
    match index {
        0 => {}
        1 => *recent = [offset, recent[0], recent[2]],
        _ => *recent = [offset, recent[0], recent[1]],
    }
    Some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_codes_are_those_of_the_rfc() {
        for (code, want) in [
            (15, (15, 0)),
            (16, (16, 1)),
            (19, (22, 1)),
            (20, (24, 2)),
            (24, (48, 4)),
            (25, (64, 6)),
            (26, (128, 7)),
            (35, (65536, 16)),
        ] {
            assert_eq!(literal_length(code), want, "literals {code}");
        }
        for (code, want) in [
            (0, (3, 0)),
            (31, (34, 0)),
            (32, (35, 1)),
            (37, (47, 2)),
            (42, (99, 5)),
            (43, (131, 7)),
            (52, (65539, 16)),
        ] {
            assert_eq!(match_length(code), want, "match {code}");
        }
    }

    #[test]
    fn offsets_repeat_as_the_rfc_says() {
        let mut recent = [1, 4, 8];
        assert_eq!(offset(&mut recent, 13, false), Some(10));
        assert_eq!(recent, [10, 1, 4]);
        assert_eq!(offset(&mut recent, 3, false), Some(4));
        assert_eq!(recent, [4, 10, 1]);
        assert_eq!(offset(&mut recent, 1, true), Some(10));
        assert_eq!(recent, [10, 4, 1]);
        assert_eq!(offset(&mut recent, 3, true), Some(9));
        assert_eq!(recent, [9, 10, 4]);
        assert_eq!(offset(&mut recent, 1, false), Some(9));
        assert_eq!(offset(&mut [1, 4, 8], 3, true), None);
    }
}
