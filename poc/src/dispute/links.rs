//! Which published answer a move builds on: the tree of asks, and the one node that an accusation rests on.
//!
//! That one id is enough. Everything an execution reads is either fixed by hash under the claim's root or the
//! named answer, or is an answer on the path from the claim to it, and each answer's id holds the one before.

use bitai_kernels::{Hash, program::SiteId, program_check::Shape};

use super::{
    DisputeError, Judge,
    inner::Side,
    leaf_norm::NormOp,
    levels::{height_above, part_len},
    msg::{Accusation, Ask, At},
    published::Published,
};
use crate::merkle;

impl Judge {
    /// The id that this ask has to name: of the published answer it builds on, or of the claim.
    pub fn builds_on(&self, ask: &Ask) -> Result<Hash, DisputeError> {
        self.id_of(self.above(ask)?)
    }

    /// The id that this accusation has to name.
    pub fn rests_on(&self, accusation: &Accusation) -> Result<Hash, DisputeError> {
        self.id_of(self.ground_of(accusation)?)
    }

    /// The id of an answer, once published; of the claim where there is no ask.
    fn id_of(&self, ask: Option<Ask>) -> Result<Hash, DisputeError> {
        let Some(ask) = ask else { return Ok(self.id) };
        self.published
            .ids
            .get(&ask)
            .copied()
            .ok_or(DisputeError::Unpublished("the node above"))
    }

    /// The ask whose answer holds what `ask` goes into; none for the root of the token tree.
    fn above(&self, ask: &Ask) -> Result<Option<Ask>, DisputeError> {
        let top = merkle::height(self.positions());
        let tokens = |height: u32, index: u32| {
            (height < top).then(|| {
                let up = height_above(height, top);
                Ask::Tokens {
                    height: up,
                    index: index >> (up - height).min(31),
                }
            })
        };
        Ok(match *ask {
            Ask::Tokens { height, index } => tokens(height, index),
            Ask::Token { pos } => tokens(0, pos),
            Ask::Unit { pos, .. } => Some(Ask::Token { pos }),
            Ask::Row { pos, site, .. } | Ask::Group { pos, site, .. } | Ask::Norm { pos, site, .. } => {
                Some(self.unit_ask(pos, site)?)
            }
            Ask::Piece { pos, site, side, .. } => Some(match Published::pieces_of(&self.units, site, side) {
                Some((count, _)) if count > 1 => Ask::Row { pos, site, side },
                _ => self.unit_ask(pos, site)?,
            }),
            Ask::Sum { pos, site, element } | Ask::Keys { pos, site, element } => {
                Some(self.piece_ask(At { pos, site, element })?)
            }
            Ask::KeyPart {
                pos, site, element, ..
            } => Some(Ask::Keys { pos, site, element }),
            Ask::Draw { pos } => Some(self.unit_ask(pos, self.sample_site(pos)?)?),
            Ask::DrawPart { pos, .. } => Some(Ask::Draw { pos }),
        })
    }

    /// The ask whose answer the accused step explains; none where the model is accused.
    fn ground_of(&self, accusation: &Accusation) -> Result<Option<Ask>, DisputeError> {
        let group = |at: At| match self.units.shape(at.site) {
            Some(Shape::Quant { group, .. }) => Ok(Ask::Group {
                pos: at.pos,
                site: at.site,
                group: at.element / group.max(1),
            }),
            _ => Err(DisputeError::Kind("not a quantisation")),
        };
        let norm = |at: At| match NormOp::of(self.op(at.site)?) {
            Some(norm) => Ok(Ask::Norm {
                pos: at.pos,
                site: at.site,
                group: at.element / norm.group.max(1),
            }),
            None => Err(DisputeError::Kind("not a norm")),
        };
        let keys = |At { pos, site, element }| Ask::Keys { pos, site, element };
        Ok(Some(match accusation {
            Accusation::Model(_) => return Ok(None),
            Accusation::LinearPart { at, .. } | Accusation::LinearFinish { at, .. } => Ask::Sum {
                pos: at.pos,
                site: at.site,
                element: at.element,
            },
            Accusation::Key { at, key } => {
                let range = self.keys_range(*at)?;
                let from = key.key.checked_sub(range.start).unwrap_or(u32::MAX);
                Ask::KeyPart {
                    pos: at.pos,
                    site: at.site,
                    element: at.element,
                    part: from / part_len(range.end.saturating_sub(range.start)),
                }
            }
            Accusation::MaxNotAttained { at, .. }
            | Accusation::MaxExceeded { at, .. }
            | Accusation::UnitNotAttained { at, .. }
            | Accusation::UnitExceeded { at, .. } => keys(*at),
            Accusation::AbsMaxNotAttained { at, .. }
            | Accusation::AbsMaxExceeded { at, .. }
            | Accusation::GroupScale { at }
            | Accusation::QuantElement { at, .. } => group(*at)?,
            Accusation::GreedyExceeded { pos, .. } => self.unit_ask(*pos, self.sample_site(*pos)?)?,
            Accusation::DrawHead { pos, .. } => Ask::Draw { pos: *pos },
            Accusation::DrawIds { pos, part, .. } => Ask::DrawPart {
                pos: *pos,
                part: *part,
            },
            Accusation::Embed { at, .. }
            | Accusation::Elementwise { at, .. }
            | Accusation::Rope { at, .. }
            | Accusation::Record { at, .. } => self.piece_ask(*at)?,
            Accusation::Out { pos, site, .. } => self.unit_ask(*pos, *site)?,
            Accusation::NormSum { at, .. }
            | Accusation::NormMax { at, .. }
            | Accusation::NormSquares { at, .. }
            | Accusation::NormElement { at, .. } => norm(*at)?,
        }))
    }

    /// The ask for the unit that holds a site.
    fn unit_ask(&self, pos: u32, site: SiteId) -> Result<Ask, DisputeError> {
        let unit = self.units.unit_of(site).ok_or(DisputeError::Range {
            what: "site",
            got: site.into(),
            count: self.program.sites.len() as u64,
        })?;
        Ok(Ask::Unit { pos, unit })
    }

    /// The ask for the piece that holds an element.
    fn piece_ask(&self, at: At) -> Result<Ask, DisputeError> {
        let (pos, site, side) = (at.pos, at.site, Side::Data);
        let none = DisputeError::Kind("this row has no such bytes");
        let (index, _) = Published::piece_of(&self.units, site, side, at.element).ok_or(none)?;
        Ok(Ask::Piece {
            pos,
            site,
            side,
            index,
        })
    }
}
