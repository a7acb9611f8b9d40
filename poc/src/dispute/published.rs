//! What of a claim is published: the judge's memory, readable by everyone.

use std::collections::HashMap;

use bitai_kernels::{Hash, program::SiteId};

use super::{
    inner::{Side, SiteCommit, Units},
    msg::{Ask, At, DrawAnswer, DrawSums, GroupAnswer, KeyShare, KeysAnswer, NormAnswer},
};
use crate::{
    opening::{LayerRows, TokenNode},
    slice::{piece_len, pieces},
};

/// A published token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedToken {
    /// Body root and sampled token.
    pub node: TokenNode,
    /// Each layer's hashes.
    pub layers: Vec<LayerRows>,
    /// Each unit's root.
    pub units: Vec<Hash>,
}

/// All published nodes of one claim, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// The id of every answer, by what it answers.
    pub ids: HashMap<Ask, Hash>,
    /// Nodes of the token tree by (height, index).
    pub tokens: HashMap<(u32, u32), Hash>,
    /// Tokens by position.
    pub token: HashMap<u32, PublishedToken>,
    /// Commitments of a unit's sites, by (position, unit).
    pub units: HashMap<(u32, u32), Vec<SiteCommit>>,
    /// Chaining values of a row's pieces.
    pub rows: HashMap<(u32, SiteId, Side), Vec<Hash>>,
    /// Bytes of a piece.
    pub pieces: HashMap<(u32, SiteId, Side, u32), Vec<u8>>,
    /// Parts of a linear's element.
    pub sums: HashMap<At, Vec<i64>>,
    /// Maxima and parts of an attention's element.
    pub keys: HashMap<At, KeysAnswer>,
    /// The keys of one part.
    pub key_parts: HashMap<(At, u32), Vec<KeyShare>>,
    /// Maxima of a group, by (position, site, group).
    pub groups: HashMap<(u32, SiteId, u32), GroupAnswer>,
    /// Maximum and sums of a norm's group, by (position, site, group).
    pub norms: HashMap<(u32, SiteId, u32), NormAnswer>,
    /// Draws by position.
    pub draws: HashMap<u32, DrawAnswer>,
    /// The parts of a draw's part.
    pub draw_parts: HashMap<(u32, u32), Vec<DrawSums>>,
}

impl Published {
    /// A site's published commitment.
    pub fn commit(&self, units: &Units, pos: u32, site: SiteId) -> Option<SiteCommit> {
        let unit = units.unit_of(site)?;
        let i = (site - units.sites(unit).start) as usize;
        self.units.get(&(pos, unit))?.get(i).copied()
    }

    /// The piece that holds an element of a row's side, and where in it the element starts.
    pub fn piece_of(units: &Units, site: SiteId, side: Side, element: u32) -> Option<(u32, usize)> {
        let total = units.row_len(site, side)?;
        let at = u64::from(element) * units.element_len(site, side)?;
        if at >= total {
            return None;
        }
        let piece = piece_len(total);
        let index = u32::try_from(at / piece).ok()?;
        Some((index, usize::try_from(at % piece).ok()?))
    }

    /// Bytes of a published element.
    pub fn element(
        &self,
        units: &Units,
        (pos, site, side): (u32, SiteId, Side),
        element: u32,
    ) -> Option<&[u8]> {
        let (index, at) = Self::piece_of(units, site, side, element)?;
        let len = usize::try_from(units.element_len(site, side)?).ok()?;
        self.pieces.get(&(pos, site, side, index))?.get(at..at + len)
    }

    /// Number of pieces of a side, and bytes a piece.
    pub fn pieces_of(units: &Units, site: SiteId, side: Side) -> Option<(u64, u64)> {
        let total = units.row_len(site, side)?;
        let piece = piece_len(total);
        Some((pieces(total, piece), piece))
    }
}
