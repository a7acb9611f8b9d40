//! Bytes of an ask: the id that it builds on, then five words, 52 bytes in all.

use bitai_kernels::Hash;

use super::{CodecError, Reader};
use crate::dispute::{inner::Side, msg::Ask};

/// Words of an ask: its kind and up to four fields.
const WORDS: usize = 5;

/// How many fields each kind has.
const FIELDS: [usize; 12] = [2, 1, 2, 3, 4, 3, 3, 4, 3, 1, 2, 3];

impl Ask {
    /// Bytes of an ask.
    pub const LEN: usize = 32 + 4 * WORDS;

    /// Bytes on the wire: the words, and the 32 that name what it builds on.
    pub const fn size(&self) -> usize {
        Self::LEN
    }

    /// The words of its canonical form: kind, then the fields, unused ones 0.
    pub(in crate::dispute) fn words(&self) -> [u32; WORDS] {
        let s = |side| u32::from(side == Side::Scales);
        match *self {
            Ask::Tokens { height, index } => [0, height, index, 0, 0],
            Ask::Token { pos } => [1, pos, 0, 0, 0],
            Ask::Unit { pos, unit } => [2, pos, unit, 0, 0],
            Ask::Row { pos, site, side } => [3, pos, site, s(side), 0],
            Ask::Piece {
                pos,
                site,
                side,
                index,
            } => [4, pos, site, s(side), index],
            Ask::Sum { pos, site, element } => [5, pos, site, element, 0],
            Ask::Keys { pos, site, element } => [6, pos, site, element, 0],
            Ask::KeyPart {
                pos,
                site,
                element,
                part,
            } => [7, pos, site, element, part],
            Ask::Group { pos, site, group } => [8, pos, site, group, 0],
            Ask::Draw { pos } => [9, pos, 0, 0, 0],
            Ask::DrawPart { pos, part } => [10, pos, part, 0, 0],
            Ask::Norm { pos, site, group } => [11, pos, site, group, 0],
        }
    }

    /// The ask of five words; unused ones must be 0.
    fn from_words([kind, a, b, c, d]: [u32; WORDS]) -> Result<Self, CodecError> {
        let bad = CodecError::Kind {
            what: "an ask",
            got: kind,
        };
        let fields = *FIELDS.get(kind as usize).ok_or(bad.clone())?;
        if let Some((i, got)) = (1..).zip([a, b, c, d]).skip(fields).find(|(_, w)| *w != 0) {
            return Err(CodecError::Unused { index: i, got });
        }
        let side = |word| match word {
            0 => Ok(Side::Data),
            1 => Ok(Side::Scales),
            got => Err(CodecError::Kind {
                what: "a row's side",
                got,
            }),
        };
        Ok(match kind {
            0 => Ask::Tokens { height: a, index: b },
            1 => Ask::Token { pos: a },
            2 => Ask::Unit { pos: a, unit: b },
            3 => Ask::Row {
                pos: a,
                site: b,
                side: side(c)?,
            },
            4 => Ask::Piece {
                pos: a,
                site: b,
                side: side(c)?,
                index: d,
            },
            5 => Ask::Sum {
                pos: a,
                site: b,
                element: c,
            },
            6 => Ask::Keys {
                pos: a,
                site: b,
                element: c,
            },
            7 => Ask::KeyPart {
                pos: a,
                site: b,
                element: c,
                part: d,
            },
            8 => Ask::Group {
                pos: a,
                site: b,
                group: c,
            },
            9 => Ask::Draw { pos: a },
            10 => Ask::DrawPart { pos: a, part: b },
            11 => Ask::Norm {
                pos: a,
                site: b,
                group: c,
            },
            _ => return Err(bad),
        })
    }

    /// Its bytes: the id of the answer (or claim) that it builds on, then the words.
    pub fn encode(&self, to: &Hash) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..32].copy_from_slice(to);
        for (chunk, word) in out[32..].chunks_exact_mut(4).zip(self.words()) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// What it builds on, and the ask.
    pub fn decode(bytes: &[u8]) -> Result<(Hash, Self), CodecError> {
        let mut r = Reader::new(bytes);
        let to = r.hash("what the ask builds on")?;
        let mut words = [0; WORDS];
        for word in &mut words {
            *word = r.u32("a word of the ask")?;
        }
        r.end()?;
        Ok((to, Self::from_words(words)?))
    }
}
