//! zstd frames, decoded to the letter of RFC 8878: what decides whether a payload counts. One scalar
//! decoder in safe Rust, the same on every machine; it takes no frame that the RFC forbids.
//!
//! It knows no dictionaries and no skippable frames, checks sizes before it makes room, and writes into one
//! buffer of the declared size, so a frame costs no more memory than it was allowed.

mod bits;
mod fse;
mod huffman;
mod sequences;
#[cfg(test)]
mod tests;
mod xxh64;

use huffman::Tree;
use sequences::Sequences;

/// Largest block, before the window bounds it.
const BLOCK_MAX: usize = 128 << 10;
/// Fewest literals in four streams.
const FOUR_STREAMS_MIN: usize = 6;

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Bytes of magic and header.
    pub(super) len: usize,
    /// Content size.
    pub(super) size: usize,
    /// Farthest match.
    pub(super) window: usize,
    /// Whether a checksum follows.
    pub(super) checksum: bool,
}

/// Content of a frame whose header was judged, and the bytes behind it; `None` if it is corrupt.
pub(super) fn decode<'a>(frame: &'a [u8], header: &FrameHeader) -> Option<(Vec<u8>, &'a [u8])> {
    let mut rest = frame.get(header.len..)?;
    let mut decoder = Decoder {
        out: Vec::with_capacity(header.size),
        size: header.size,
        window: header.window,
        block_max: header.window.min(BLOCK_MAX),
        tree: None,
        sequences: Sequences::default(),
    };
    loop {
        let (head, body) = rest.split_first_chunk::<3>()?;
        let head = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let size = (head >> 3) as usize;
        if size > decoder.block_max {
            return None;
        }
        rest = match (head >> 1) & 3 {
            0 => {
                let (raw, rest) = body.split_at_checked(size)?;
                decoder.room(size)?;
                decoder.out.extend_from_slice(raw);
                rest
            }
            1 => {
                let (&byte, rest) = body.split_first()?;
                decoder.room(size)?;
                decoder.out.resize(decoder.out.len() + size, byte);
                rest
            }
            2 => {
                let (block, rest) = body.split_at_checked(size)?;
                decoder.block(block)?;
                rest
            }
            _ => return None,
        };
        if head & 1 == 1 {
            break;
        }
    }
    if decoder.out.len() != header.size {
        return None;
    }
    if header.checksum {
        let (sum, after) = rest.split_first_chunk::<4>()?;
        // The low half of the hash.
        if sum[..] != xxh64::hash(&decoder.out).to_le_bytes()[..4] {
            return None;
        }
        rest = after;
    }
    Some((decoder.out, rest))
}

/// What lasts from block to block.
struct Decoder {
    out: Vec<u8>,
    size: usize,
    window: usize,
    block_max: usize,
    tree: Option<Tree>,
    sequences: Sequences,
}

impl Decoder {
    /// Whether `more` bytes still belong to the frame.
    fn room(&self, more: usize) -> Option<()> {
        (more <= self.size - self.out.len()).then_some(())
    }

    fn block(&mut self, block: &[u8]) -> Option<()> {
        let (literals, rest) = self.literals(block)?;
        let room = self.block_max.min(self.size - self.out.len());
        self.sequences
            .run(rest, &literals, &mut self.out, room, self.window)
    }

    /// The literals of a block and what follows them.
    fn literals<'a>(&mut self, block: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
        let first = *block.first()?;
        let (kind, format) = (first & 3, (first >> 2) & 3);
        let (head_len, bits) = match (kind, format) {
            (0 | 1, 0 | 2) => (1, 5),
            (0 | 1, 1) => (2, 12),
            (0 | 1, _) => (3, 20),
            (_, 0 | 1) => (3, 10),
            (_, 2) => (4, 14),
            (_, _) => (5, 18),
        };
        let (head, rest) = block.split_at_checked(head_len)?;
        let mut le = [0; 8];
        le[..head_len].copy_from_slice(head);
        // The short form of raw and RLE spends one bit on the format, all others two.
        let sizes = u64::from_le_bytes(le) >> if bits == 5 { 3 } else { 4 };
        let mask = (1u64 << bits) - 1;
        let size = usize::try_from(sizes & mask).ok()?;
        if size > self.block_max {
            return None;
        }
        if kind < 2 {
            let packed = if kind == 0 { size } else { 1 };
            let (bytes, rest) = rest.split_at_checked(packed)?;
            let literals = if kind == 0 {
                bytes.to_vec()
            } else {
                vec![bytes[0]; size]
            };
            return Some((literals, rest));
        }
        let packed = usize::try_from((sizes >> bits) & mask).ok()?;
        let (mut bytes, rest) = rest.split_at_checked(packed)?;
        if kind == 2 {
            let (tree, taken) = Tree::read(bytes)?;
            self.tree = Some(tree);
            bytes = bytes.get(taken..)?;
        }
        let tree = self.tree.as_ref()?;
        let mut literals = Vec::with_capacity(size);
        if format == 0 {
            tree.decode(bytes, size, &mut literals)?;
            return Some((literals, rest));
        }
        if size < FOUR_STREAMS_MIN {
            return None;
        }
        let (jumps, mut bytes) = bytes.split_first_chunk::<6>()?;
        let each = size.div_ceil(4);
        for jump in jumps.chunks(2) {
            let len = usize::from(u16::from_le_bytes([jump[0], jump[1]]));
            let (stream, after) = bytes.split_at_checked(len)?;
            tree.decode(stream, each, &mut literals)?;
            bytes = after;
        }
        tree.decode(bytes, size.checked_sub(3 * each)?, &mut literals)?;
        Some((literals, rest))
    }
}
