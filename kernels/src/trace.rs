//! Where a run's commitments go: the sink that the engine writes to and `poc` implements, and the probe
//! that a dispute uses to see inner rows.

use crate::{program::SiteId, rows::Hash};

/// Receives a sequence's commitments in order. Positions count from 0 over prompt and output.
pub trait Trace: Send {
    /// `bodies[i]` is the body root (see [`crate::rows`]) of position `first + i`; of layer `first + i` for a
    /// bidirectional program, whose first wrong value is not in its first wrong token.
    fn bodies(&mut self, first: u32, bodies: &[Hash]);

    /// The token sampled from position `pos` (it becomes the input of `pos + 1`).
    fn sampled(&mut self, pos: u32, token: u32);

    /// All words that an encoder put out (int32 bit patterns), once. Nothing for a sink that only hears decoders.
    fn words(&mut self, words: &[u32]) {
        let _ = words;
    }
}

/// A site's output rows, as a probe sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteRows {
    /// int32 rows, `[rows, cols]` row-major.
    Acts {
        /// Elements a row.
        cols: usize,
        /// The values.
        data: Vec<i32>,
    },
    /// Quantised rows: `[rows, cols]` integers (both planes joined) and `[rows, groups]` scales.
    Quant {
        /// Elements a row.
        cols: usize,
        /// Groups a row.
        groups: usize,
        /// The integers, in +-127 or +-32639.
        data: Vec<i16>,
        /// (mantissa, exponent) a group.
        scales: Vec<(u16, i16)>,
    },
    /// Sampled ids, one a row that was sampled.
    Tokens(Vec<u32>),
}

/// Sees every site's output while an engine runs; for disputes and tests, never while mining.
pub trait Probe: Send {
    /// Rows of `site` for positions `first ..`. A long batch comes in several blocks, positions ascending;
    /// sites after the last layer show sampled rows only. A cached row shows as quantised rows, head by head,
    /// K then V, as in the canonical bytes.
    fn site(&mut self, site: SiteId, first: u32, rows: &SiteRows);
}
