//! How liars explain themselves: not at all, with other bytes, or with numbers that fit their lie and are wrong one level
//! further down.

use std::sync::Arc;

use bitai_kernels::{
    Op, Program,
    program::SiteId,
    reference::{
        attention::finish,
        sample::{draw, point},
    },
};
use bitai_poc::dispute::{
    Answer, Ask, Defend, DisputeError, Player,
    msg::{DrawAnswer, KeySums, KeysAnswer},
};

use super::lie::Tampered;

/// Says nothing.
pub(super) struct Mute;

impl Defend for Mute {
    fn answer(&mut self, _: &Ask) -> Result<Answer, DisputeError> {
        Err(DisputeError::Kind("silent"))
    }
}

/// Publishes bytes that are not the committed ones.
pub(super) struct WrongPiece(pub(super) Player<Tampered>);

impl Defend for WrongPiece {
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        let mut answer = self.0.respond(ask)?;
        if let Answer::Piece(bytes) = &mut answer {
            bytes[0] ^= 1;
        }
        Ok(answer)
    }
}

/// Explains a wrong element of an attention by sums over keys that give it: the contract refuses any other.
pub(super) struct Fudged {
    player: Player<Tampered>,
    program: Arc<Program>,
    keys: Option<KeysAnswer>,
}

impl Fudged {
    pub(super) fn new(player: Player<Tampered>, program: Arc<Program>) -> Self {
        Self {
            player,
            program,
            keys: None,
        }
    }

    fn keys(&mut self, site: SiteId, wanted: i32, mut a: KeysAnswer) -> Option<KeysAnswer> {
        let Op::Attention { p_bits, f_out, .. } = self.program.sites.get(site as usize)?.op else {
            return None;
        };
        let z = a.parts.iter().map(|p| p.z).sum();
        let acc: i64 = a.parts.iter().map(|p| p.acc).sum();
        let unit = a.v_unit.map(|u| u.value);
        let at = |acc| finish(acc, z, unit, p_bits, f_out);
        // The element grows with the sum.
        let (mut low, mut high) = (-(1i64 << 45), 1i64 << 45);
        while low < high {
            let mid = low + (high - low) / 2;
            if at(mid) < wanted {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        a.parts.first_mut()?.acc += low - acc;
        Some(a)
    }
}

impl Defend for Fudged {
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        let answer = self.player.respond(ask)?;
        self.fudged(ask, answer)
            .ok_or(DisputeError::Kind("this lie has no such answer"))
    }
}

impl Fudged {
    fn fudged(&mut self, ask: &Ask, answer: Answer) -> Option<Answer> {
        Some(match (answer, *ask) {
            (Answer::Keys(a), Ask::Keys { pos, site, element }) => {
                let piece = Ask::Piece {
                    pos,
                    site,
                    side: bitai_poc::dispute::inner::Side::Data,
                    index: 0,
                };
                // The element that is changed lies in the first piece.
                let Ok(Answer::Piece(bytes)) = self.player.respond(&piece) else {
                    return None;
                };
                let wanted = bytes.as_chunks::<4>().0.get(element as usize)?;
                let a = self.keys(site, i32::from_le_bytes(*wanted), a)?;
                self.keys = Some(a.clone());
                Answer::Keys(a)
            }
            (Answer::KeyPart(mut shares), Ask::KeyPart { part, .. }) => {
                let KeySums { acc, .. } = *self.keys.as_ref()?.parts.get(part as usize)?;
                let (first, rest) = shares.split_first_mut()?;
                let rest: i64 = rest
                    .iter()
                    .map(|s| i64::from(s.weight) * i64::from(s.value))
                    .sum();
                first.value = if acc < rest { -1 } else { 1 };
                first.weight = u32::try_from((acc - rest).unsigned_abs()).ok()?;
                Answer::KeyPart(shares)
            }
            (answer, _) => answer,
        })
    }
}

/// Explains a token that was not drawn by sums over the ids that draw it: the contract refuses any others.
pub(super) struct FudgedDraw {
    player: Player<Tampered>,
    seed: u64,
    head: Option<DrawAnswer>,
}

impl FudgedDraw {
    pub(super) fn new(player: Player<Tampered>, seed: u64) -> Self {
        Self {
            player,
            seed,
            head: None,
        }
    }

    /// The sampled id is kept, and all that is drawn below it lies in the first part.
    fn head(&mut self, pos: u32, mut a: DrawAnswer) -> Option<DrawAnswer> {
        let token = self.player.run().1.sampled_at(pos)?;
        let (least, last) = a.threshold;
        let is_kept = a.p > least || (a.p == least && token <= last);
        if a.p == 0 || !is_kept {
            a.p = least + 1;
        }
        let mass = a.parts.iter().map(|p| p.mass).sum();
        for part in &mut a.parts {
            part.below = 0;
        }
        a.parts.first_mut()?.below = point(draw(self.seed, pos), mass);
        self.head = Some(a.clone());
        Some(a)
    }

    fn fudged(&mut self, ask: &Ask, answer: Answer) -> Option<Answer> {
        Some(match (answer, *ask) {
            (Answer::Draw(a), Ask::Draw { pos }) => Answer::Draw(self.head(pos, a)?),
            (Answer::DrawPart(mut ids), Ask::DrawPart { part, .. }) => {
                for sums in &mut ids {
                    sums.below = 0;
                }
                ids.first_mut()?.below = self.head.as_ref()?.parts.get(part as usize)?.below;
                Answer::DrawPart(ids)
            }
            (answer, _) => answer,
        })
    }
}

impl Defend for FudgedDraw {
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        let answer = self.player.respond(ask)?;
        self.fudged(ask, answer)
            .ok_or(DisputeError::Kind("this lie has no such answer"))
    }
}
