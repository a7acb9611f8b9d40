//! How wide each level of the game is, and how many rounds the declared maxima take.

use std::ops::Range;

use crate::{merkle, slice};

/// Children that one move publishes at most (PROTOCOL 11: 64 to 256).
pub const ARITY: u32 = 256;
/// Binary levels of the token tree that one move goes down.
const TREE_STEP: u32 = 8;
/// Multiply-adds of a linear's part.
pub const LINEAR_PART: u32 = 256;

/// The height that a move from `height` goes down to.
pub const fn next_height(height: u32) -> u32 {
    if height == 0 {
        0
    } else {
        (height - 1) / TREE_STEP * TREE_STEP
    }
}

/// The height whose move goes down to `height`, in a tree of height `top`.
pub const fn height_above(height: u32, top: u32) -> u32 {
    let next = (height / TREE_STEP + 1) * TREE_STEP;
    if next < top { next } else { top }
}

/// Elements of a part of a norm's sums.
pub const NORM_PART: u32 = 256;

/// The elements of a row that each part of a norm's group sums, in groups of `len`.
pub fn norm_parts(group: u32, len: u32) -> Vec<Range<u32>> {
    let start = group.saturating_mul(len);
    let end = start.saturating_add(len);
    (start..end)
        .step_by(NORM_PART as usize)
        .map(|a| a..end.min(a + NORM_PART))
        .collect()
}

/// The elements of K that each part of a linear sums: every segment in runs of [`LINEAR_PART`].
pub fn linear_parts(k: u32, segments: u32) -> Vec<Range<u32>> {
    let seg = k / segments.max(1);
    (0..segments)
        .flat_map(|s| {
            let (start, end) = (s * seg, (s + 1) * seg);
            (start..end)
                .step_by(LINEAR_PART as usize)
                .map(move |a| a..end.min(a + LINEAR_PART))
        })
        .collect()
}

/// Length of equal parts of `count` things such that there are at most [`ARITY`]: a power of two.
pub fn part_len(count: u32) -> u32 {
    count.div_ceil(ARITY).max(1).next_power_of_two()
}

/// Part `part` of `range` cut into runs of `len`.
pub fn part_of(range: &Range<u32>, len: u32, part: u32) -> Range<u32> {
    let start = range
        .start
        .saturating_add(part.saturating_mul(len))
        .min(range.end);
    start..range.end.min(start.saturating_add(len))
}

/// The input elements that decide the value quantised at `element`: its transform block, or itself.
pub fn quant_block(element: u32, wht: u32) -> Range<u32> {
    let len = wht.max(1);
    let start = element / len * len;
    start..start + len
}

/// The largest numbers that a chain admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maxima {
    /// Positions of a trace.
    pub positions: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// Elements of a dot product, and of a row inside the layers.
    pub k: u32,
}

impl Maxima {
    /// What PROTOCOL 11 declares.
    pub const DECLARED: Self = Self {
        positions: 32_768,
        vocab: 262_144,
        k: 32_768,
    };
}

/// Asks that a challenger has in a game: the longest way down, 9 above 65,536 positions. Without an end to them it could ask
/// for one node after another until the clock of a neuron that answers each at once has run out.
pub const ASKS_MAX: u32 = 9;

/// Asks that the longest game takes: the accusation that ends it needs no answer.
pub fn rounds_max(m: &Maxima) -> u32 {
    let mut rounds = 0;
    let mut height = merkle::height(m.positions);
    while height > 0 {
        height = next_height(height);
        rounds += 1;
    }
    // A token with its layers; the sites of a unit.
    rounds += 2;
    // A row's pieces, unless it has one; then the piece.
    let row = |elements: u32, bytes: u64| {
        let len = u64::from(elements) * bytes;
        u32::from(slice::pieces(len, slice::piece_len(len)) > 1) + 1
    };
    // Then a linear's parts, or a group's maxima: one more.
    let linear = row(m.vocab.max(m.k), 4) + 1;
    let quant = row(m.k, 2) + 1;
    // A norm's maximum and sums, all at once.
    let norm = row(m.k, 4) + 1;
    // An element of a sum of rows, a unit, a pair or a cached row is its own step.
    let element = row(m.vocab.max(m.k), 4);
    // The parts of the keys, and the keys of a part.
    let attention = row(m.k, 4) + 2;
    // A draw reads no row: its parts, and the parts of a part.
    let draw = 2;
    let sums = linear.max(quant).max(norm);
    rounds + sums.max(element).max(attention).max(draw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declared_maxima_take_at_most_eight_rounds() {
        assert_eq!(rounds_max(&Maxima::DECLARED), 8);
        // The longest context.
        let long = Maxima {
            positions: 131_072,
            ..Maxima::DECLARED
        };
        assert_eq!(rounds_max(&long), ASKS_MAX);
        let small = Maxima {
            positions: 40,
            vocab: 200,
            k: 64,
        };
        assert_eq!(rounds_max(&small), 1 + 2 + 1 + 2);
    }

    #[test]
    fn every_height_of_the_game_is_below_the_one_that_leads_to_it() {
        for top in 1..31 {
            let mut h = top;
            while h > 0 {
                assert_eq!(height_above(next_height(h), top), h, "{top}");
                h = next_height(h);
            }
        }
    }

    #[test]
    fn no_level_publishes_more_than_the_arity() {
        let m = Maxima::DECLARED;
        let mut h = merkle::height(m.positions);
        while h > 0 {
            let next = next_height(h);
            assert!(merkle::width(m.positions, next).div_ceil(merkle::width(m.positions, h)) <= ARITY);
            h = next;
        }
        assert!(linear_parts(m.k, 1).len() <= ARITY as usize);
        assert!(norm_parts(0, m.k).len() <= ARITY as usize);
        for count in [1, 255, 256, 257, m.positions, m.vocab] {
            let len = part_len(count);
            assert!(count.div_ceil(len) <= ARITY);
            // The second level of a draw and of the keys.
            assert!(len.div_ceil(part_len(len)) <= ARITY);
        }
        assert_eq!(part_len(m.positions), 128);
        assert_eq!((part_len(m.vocab), part_len(part_len(m.vocab))), (1024, 4));
    }

    #[test]
    fn parts_of_a_linear_cover_k_and_respect_segments() {
        for (k, segments) in [(576, 1), (1536, 4), (64, 2), (32_768, 8), (200, 8)] {
            let parts = linear_parts(k, segments);
            let mut at = 0;
            for p in &parts {
                assert_eq!(p.start, at);
                assert!(p.len() <= LINEAR_PART as usize);
                assert_eq!(p.start / (k / segments), (p.end - 1) / (k / segments));
                at = p.end;
            }
            assert_eq!(at, k);
        }
    }
}
