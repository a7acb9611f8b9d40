//! An honest challenger: compares what is published with its own run, walks to the first difference and
//! accuses the step that made it.

use bitai_kernels::{Op, Sampler, program::SiteId, program_check::Shape};

use super::{
    Accusation, Ask, Challenge, DisputeError, Judge, Move, Player, Regenerate,
    answers::row_values,
    inner::{Side, SiteRow, kv_head_at},
    leaf_norm::NormOp,
    leaf_row::RopePair,
    levels::{linear_parts, next_height, norm_parts, part_len, part_of, quant_block},
    msg::{At, DrawFault, GroupAnswer, KeyOpening, KeysAnswer, KvSide},
    player::{HeadKeys, tree_node},
    published::Published,
};
use crate::merkle::height;

/// A player who doubts a claim: its run is prompt and claimed output, once more as one prefill.
pub struct Challenger<R> {
    player: Player<R>,
}

/// The first index at which two lists differ.
fn first_difference<T: PartialEq>(mine: &[T], theirs: &[T]) -> Option<u32> {
    let i = mine.iter().zip(theirs).position(|(a, b)| a != b)?;
    u32::try_from(i).ok()
}

/// What a challenger wants to do, before it names what that relies on.
enum Want {
    Ask(Ask),
    Accuse(Box<Accusation>),
    Resign,
}

/// What a challenger does: a move, or nothing that it could prove wrong.
type Next = Result<Want, DisputeError>;

fn ask(ask: Ask) -> Next {
    Ok(Want::Ask(ask))
}

fn accuse(accusation: Accusation) -> Next {
    Ok(Want::Accuse(Box::new(accusation)))
}

impl<R: Regenerate> Challenge for Challenger<R> {
    fn next(&mut self, judge: &Judge) -> Move {
        // Its own run failing it is the challenger's loss: it has nothing to accuse.
        self.try_next(judge).unwrap_or(Move::Resign)
    }

    fn try_next(&mut self, judge: &Judge) -> Result<Move, DisputeError> {
        let want = match self.walk(judge) {
            Err(e @ DisputeError::Device(_)) => return Err(e),
            walked => walked.unwrap_or(Want::Resign),
        };
        let made = match want {
            Want::Ask(ask) => judge.builds_on(&ask).map(|to| Move::Ask { to, ask }),
            Want::Accuse(accusation) => judge
                .rests_on(&accusation)
                .map(|to| Move::Accuse { to, accusation }),
            Want::Resign => Ok(Move::Resign),
        };
        Ok(made.unwrap_or(Move::Resign))
    }
}

impl<R: Regenerate> Challenger<R> {
    /// A challenger with its own run.
    pub fn new(player: Player<R>) -> Self {
        Self { player }
    }

    /// From the root down to the first token that differs.
    fn walk(&mut self, judge: &Judge) -> Next {
        let n = judge.positions();
        let mine = self.player.transcript.nodes();
        let (mut h, mut index) = (height(n), 0u32);
        while h > 0 {
            let next = next_height(h);
            let first = index << (h - next);
            let Some(theirs) = judge.published().tokens.get(&(next, first)).map(|_| {
                (first..first.saturating_add(1 << (h - next)))
                    .map_while(|i| judge.published().tokens.get(&(next, i)).copied())
                    .collect::<Vec<_>>()
            }) else {
                return ask(Ask::Tokens { height: h, index });
            };
            let differs = (first..)
                .zip(&theirs)
                .find(|(i, node)| tree_node(&mine, next, *i) != **node);
            let Some((i, _)) = differs else {
                return Ok(Want::Resign);
            };
            (h, index) = (next, i);
        }
        self.token(judge, index)
    }

    /// The first unit that differs.
    fn token(&mut self, judge: &Judge, pos: u32) -> Next {
        let Some(theirs) = judge.published().token.get(&pos) else {
            return ask(Ask::Token { pos });
        };
        let none = DisputeError::Kind("my run has no such token");
        let rows = self.player.rows(pos)?;
        let sampled = theirs.node.sampled.is_some();
        let units = rows.units(&self.player.units, sampled).ok_or(none.clone())?;
        let layers = rows.layers(&self.player.program, judge.header()).ok_or(none)?;
        // A layer whose hashes differ although its unit agrees contradicts itself once its unit is published.
        let by_unit = first_difference(&units, &theirs.units);
        let by_layer = first_difference(&layers, &theirs.layers).map(|l| l + 1);
        let by_token = (rows.sampled() != theirs.node.sampled).then(|| self.player.units.count(true) - 1);
        let Some(unit) = by_unit.into_iter().chain(by_layer).chain(by_token).min() else {
            return Ok(Want::Resign);
        };
        let Some(commits) = judge.published().units.get(&(pos, unit)) else {
            return ask(Ask::Unit { pos, unit });
        };
        let first = self.player.units.sites(unit).start;
        let mine = rows
            .commits(&self.player.units, unit)
            .ok_or(DisputeError::Kind("my run has no such unit"))?;
        match first_difference(&mine, commits) {
            Some(i) => self.site(judge, pos, first + i),
            None => Ok(Want::Resign),
        }
    }

    /// The first site that differs: all its inputs agree.
    fn site(&mut self, judge: &Judge, pos: u32, site: SiteId) -> Next {
        let op = judge.op(site)?.clone();
        match op {
            Op::Sample { .. } => return self.sampled(judge, pos, site),
            Op::Out => {
                let (input, _) = self.player.input(pos, site, 0)?;
                let input = self.player.open_commit(judge, pos, input)?;
                return accuse(Accusation::Out { pos, site, input });
            }
            _ => {}
        }
        let (mine, theirs) = (self.player.my_commit(pos, site)?, judge.commit(pos, site)?);
        for side in [Side::Data, Side::Scales] {
            if mine.hash(side) != theirs.hash(side) {
                return self.row(judge, pos, site, side, &op);
            }
        }
        Ok(Want::Resign)
    }

    /// The first element of a row that differs.
    fn row(&mut self, judge: &Judge, pos: u32, site: SiteId, side: Side, op: &Op) -> Next {
        let (bytes, piece) = self.player.side(pos, site, side)?;
        let (count, _) = Published::pieces_of(&self.player.units, site, side).unwrap_or((1, piece));
        let mut index = 0;
        if count > 1 {
            let Some(theirs) = judge.published().rows.get(&(pos, site, side)) else {
                return ask(Ask::Row { pos, site, side });
            };
            match first_difference(&row_values(&bytes, piece), theirs) {
                Some(i) => index = i,
                None => return Ok(Want::Resign),
            }
        }
        let Some(theirs) = judge.published().pieces.get(&(pos, site, side, index)) else {
            return ask(Ask::Piece {
                pos,
                site,
                side,
                index,
            });
        };
        let start = u64::from(index) * piece;
        let from = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
        let Some(byte) = first_difference(&bytes[from..], theirs) else {
            return Ok(Want::Resign);
        };
        let size = self.player.units.element_len(site, side).unwrap_or(1);
        let element = u32::try_from((start + u64::from(byte)) / size).unwrap_or(u32::MAX);
        let at = At { pos, site, element };
        match op {
            Op::Linear { .. } => self.linear(judge, at),
            Op::Attention { .. } => self.attention(judge, at),
            Op::Quant { .. } => self.quant(judge, at, side),
            Op::Embed { .. } | Op::PosEmbed { .. } => self.embed(judge, at),
            Op::RmsNorm { .. } | Op::LayerNorm { .. } => self.norm(judge, at),
            Op::Add | Op::Glu { .. } | Op::Act { .. } => self.elementwise(judge, at),
            Op::Rope { .. } => self.rope(judge, at),
            Op::KvAppend { head_dim, .. } => self.record(judge, at, *head_dim),
            _ => Ok(Want::Resign),
        }
    }

    fn linear(&mut self, judge: &Judge, at: At) -> Next {
        let At { pos, site, element } = at;
        let Op::Linear {
            weight,
            k,
            k_segments,
            ..
        } = *judge.op(site)?
        else {
            return Ok(Want::Resign);
        };
        let Some(theirs) = judge.published().sums.get(&at) else {
            return ask(Ask::Sum { pos, site, element });
        };
        if let Some(part) = first_difference(&self.player.linear_sums(at)?, theirs) {
            let range = linear_parts(k, k_segments.into())[part as usize].clone();
            return accuse(Accusation::LinearPart {
                at,
                part,
                x: self
                    .player
                    .open_input(judge, (pos, site, 0), Side::Data, range.clone())?,
                w: self.player.open_weights(&weight, k, element, range)?,
            });
        }
        let one = u64::from(element)..u64::from(element) + 1;
        accuse(Accusation::LinearFinish {
            at,
            x_scales: self
                .player
                .open_input(judge, (pos, site, 0), Side::Scales, 0..k_segments.into())?,
            w_scale: self.player.open_tensor(weight.scale, one.clone())?,
            bias: weight
                .bias
                .map(|id| self.player.open_tensor(id, one))
                .transpose()?,
        })
    }

    fn embed(&mut self, judge: &Judge, at: At) -> Next {
        let (weight, row) = match *judge.op(at.site)? {
            Op::Embed { weight, .. } => (weight, judge.input_id(at.pos)),
            Op::PosEmbed { weight, .. } => (weight, Some(at.pos)),
            _ => return Ok(Want::Resign),
        };
        let Some(id) = row else {
            return Ok(Want::Resign);
        };
        let k = judge.program().d_model;
        accuse(Accusation::Embed {
            at,
            id: judge.open_prompt(at)?,
            w: self
                .player
                .open_weights(&weight, k, id, at.element..at.element + 1)?,
            w_scale: self
                .player
                .open_tensor(weight.scale, u64::from(id)..u64::from(id) + 1)?,
        })
    }

    fn norm(&mut self, judge: &Judge, at: At) -> Next {
        let At { pos, site, element } = at;
        let Some(norm) = NormOp::of(judge.op(site)?) else {
            return Ok(Want::Resign);
        };
        let group = element / norm.group;
        let Some(theirs) = judge.published().norms.get(&(pos, site, group)) else {
            return ask(Ask::Norm { pos, site, group });
        };
        let mine = self.player.norm(pos, site, group)?;
        let parts = norm_parts(group, norm.group);
        let path = (pos, site, 0);
        let mut open = |range| self.player.open_input(judge, path, Side::Data, range);
        if let Some(part) = first_difference(&mine.sums, &theirs.sums) {
            let x = open(parts[part as usize].clone())?;
            return accuse(Accusation::NormSum { at, part, x });
        }
        if mine.max.value != theirs.max.value {
            // What nothing reaches is not attained where it is said to be.
            let exceeded = mine.max.value > theirs.max.value;
            let e = if exceeded { mine.max.at } else { theirs.max.at };
            let (at, x) = (At { element: e, ..at }, open(e..e + 1)?);
            return accuse(Accusation::NormMax { at, exceeded, x });
        }
        if let Some(part) = first_difference(&mine.squares, &theirs.squares) {
            let x = open(parts[part as usize].clone())?;
            return accuse(Accusation::NormSquares { at, part, x });
        }
        let x = open(element..element + 1)?;
        let i = u64::from(element % norm.group);
        let one = |id| self.player.open_tensor(id, i..i + 1);
        accuse(Accusation::NormElement {
            at,
            x,
            gain: one(norm.gain)?,
            bias: norm.bias.map(one).transpose()?,
        })
    }

    fn elementwise(&mut self, judge: &Judge, at: At) -> Next {
        let both = !matches!(judge.op(at.site)?, Op::Act { .. });
        let mut open = |i| {
            let range = at.element..at.element + 1;
            self.player
                .open_input(judge, (at.pos, at.site, i), Side::Data, range)
        };
        accuse(Accusation::Elementwise {
            at,
            x: open(0)?,
            y: both.then(|| open(1)).transpose()?,
        })
    }

    fn rope(&mut self, judge: &Judge, at: At) -> Next {
        let Op::Rope {
            table,
            head_dim,
            style,
        } = *judge.op(at.site)?
        else {
            return Ok(Want::Resign);
        };
        let pair = RopePair::of(at.element, head_dim, style);
        let row = u64::from(at.pos) * u64::from(head_dim);
        let range = row + u64::from(pair.table.start)..row + u64::from(pair.table.end);
        accuse(Accusation::Rope {
            at,
            pair: self
                .player
                .open_input(judge, (at.pos, at.site, 0), Side::Data, pair.elements)?,
            table: self.player.open_tensor(table, range)?,
        })
    }

    fn record(&mut self, judge: &Judge, at: At, head_dim: u32) -> Next {
        let head = (kv_head_at(at.element, head_dim), head_dim);
        accuse(Accusation::Record {
            at,
            k: self.player.open_head(judge, (at.pos, at.site, 0), head)?,
            v: self.player.open_head(judge, (at.pos, at.site, 1), head)?,
        })
    }

    fn attention(&mut self, judge: &Judge, at: At) -> Next {
        let At { pos, site, element } = at;
        let Some(theirs) = judge.published().keys.get(&at) else {
            return ask(Ask::Keys { pos, site, element });
        };
        let mine = self.player.head_keys(at)?;
        if let Some(wrong) = wrong_max(&mine, theirs) {
            let (key, make) = wrong;
            let key = Box::new(self.player.open_key(judge, at, key)?);
            return accuse(make(at, key));
        }
        let Some(part) = first_difference(&mine.parts(), &theirs.parts) else {
            return Ok(Want::Resign);
        };
        let Some(shares) = judge.published().key_parts.get(&(at, part)) else {
            return ask(Ask::KeyPart {
                pos,
                site,
                element,
                part,
            });
        };
        let count = u32::try_from(mine.shares.len()).unwrap_or(u32::MAX);
        let range = part_of(&(0..count), part_len(count), part);
        let own = &mine.shares[range.start as usize..range.end as usize];
        let Some(i) = first_difference(own, shares) else {
            return Ok(Want::Resign);
        };
        let key = Box::new(self.player.open_key(judge, at, mine.lo + range.start + i)?);
        accuse(Accusation::Key { at, key })
    }

    fn quant(&mut self, judge: &Judge, at: At, side: Side) -> Next {
        let At { pos, site, element } = at;
        let (Op::Quant { wht, .. }, Some(Shape::Quant { group: len, .. })) =
            (judge.op(site)?.clone(), self.player.units.shape(site))
        else {
            return Ok(Want::Resign);
        };
        let wht = u32::from(wht);
        let group = if side == Side::Scales {
            element
        } else {
            element / len
        };
        let Some(theirs) = judge.published().groups.get(&(pos, site, group)).copied() else {
            return ask(Ask::Group { pos, site, group });
        };
        let mine = self.player.group(pos, site, group)?;
        let mut block = |e: u32| {
            let range = quant_block(e, wht);
            self.player.open_input(judge, (pos, site, 0), Side::Data, range)
        };
        let pick = |g: &GroupAnswer, raw: bool| if raw { g.raw } else { g.max };
        for raw in [true, false] {
            let (my, their) = (pick(&mine, raw), pick(&theirs, raw));
            if my.value < their.value {
                // Nothing reaches that magnitude, so its index does not attain it.
                let at = At {
                    element: their.at,
                    ..at
                };
                return accuse(Accusation::AbsMaxNotAttained {
                    at,
                    raw,
                    block: block(their.at)?,
                });
            }
            if my.value > their.value {
                let at = At { element: my.at, ..at };
                return accuse(Accusation::AbsMaxExceeded {
                    at,
                    raw,
                    block: block(my.at)?,
                });
            }
        }
        if side == Side::Scales {
            let at = At {
                element: group * len,
                ..at
            };
            return accuse(Accusation::GroupScale { at });
        }
        accuse(Accusation::QuantElement {
            at,
            block: block(element)?,
        })
    }

    fn sampled(&mut self, judge: &Judge, pos: u32, site: SiteId) -> Next {
        let Some(token) = judge.published().token.get(&pos).and_then(|t| t.node.sampled) else {
            return Ok(Want::Resign);
        };
        let path = (pos, site, 0);
        let logit = |p: &mut Player<R>, id: u32| p.open_input(judge, path, Side::Data, id..id + 1);
        if matches!(self.player.sampler, Sampler::Greedy) {
            let rows = self.player.rows(pos)?;
            let Some(SiteRow::Token(id)) = rows.row(site) else {
                return Ok(Want::Resign);
            };
            return accuse(Accusation::GreedyExceeded {
                pos,
                id: *id,
                sampled: logit(&mut self.player, token)?,
                better: self.player.open_more(path, *id)?,
            });
        }
        let Some(theirs) = judge.published().draws.get(&pos) else {
            return ask(Ask::Draw { pos });
        };
        let mine = self.player.draw(pos, token)?;
        let mut head = |what, id| {
            let logit = logit(&mut self.player, id)?;
            accuse(Accusation::DrawHead { pos, what, id, logit })
        };
        if mine.max.value < theirs.max.value {
            return head(DrawFault::MaxNotAttained, theirs.max.at);
        }
        if mine.max.value > theirs.max.value {
            return head(DrawFault::MaxExceeded, mine.max.at);
        }
        if mine.p != theirs.p {
            return head(DrawFault::Sampled, token);
        }
        // The sums are judged under their thresholds; a threshold that is none of its id's falls here.
        let parts = self.player.draw_parts(pos, theirs, token)?;
        let Some(part) = first_difference(&parts, &theirs.parts) else {
            let logit = logit(&mut self.player, theirs.threshold.1)?;
            let what = DrawFault::Threshold;
            return accuse(Accusation::DrawHead {
                pos,
                what,
                id: theirs.threshold.1,
                logit,
            });
        };
        let Some(subs) = judge.published().draw_parts.get(&(pos, part)) else {
            return ask(Ask::DrawPart { pos, part });
        };
        let own = self.player.draw_part(pos, theirs, token, part)?;
        let Some(sub) = first_difference(&own, subs) else {
            return Ok(Want::Resign);
        };
        let ids = super::leaf_draw::draw_sub(judge.program().vocab, part, sub);
        let logits = self.player.open_input(judge, path, Side::Data, ids)?;
        accuse(Accusation::DrawIds {
            pos,
            part,
            sub,
            logits,
        })
    }
}

/// Builds an accusation about a head's unit or largest score from the key that shows it.
type KeyAccusation = Box<dyn FnOnce(At, Box<KeyOpening>) -> Accusation>;

/// Which published unit or maximum of a head is wrong, the key that shows it, and how to say so. The units come
/// first: the scores are made with that of the keys.
fn wrong_max(mine: &HeadKeys, theirs: &KeysAnswer) -> Option<(u32, KeyAccusation)> {
    let index = |key: u32| key.checked_sub(mine.lo).map(|i| i as usize);
    let exponent = |key: u32, side: KvSide| mine.exponents.get(index(key)?)?[side as usize];
    let score = |key: u32| mine.scores.get(index(key)?).copied();
    for (side, my) in [(KvSide::K, mine.k_unit), (KvSide::V, mine.v_unit)] {
        match (my, theirs.unit(side)) {
            (_, Some(t)) if exponent(t.at, side) != Some(t.value) => {
                let make = move |at, key| Accusation::UnitNotAttained { at, side, key };
                return Some((t.at, Box::new(make)));
            }
            (Some(m), t) if t.is_none_or(|t| m.value > t.value) => {
                let make = move |at, key| Accusation::UnitExceeded { at, side, key };
                return Some((m.at, Box::new(make)));
            }
            _ => {}
        }
    }
    let their = theirs.max;
    if score(their.at) != Some(their.value) {
        let make = |at, key| Accusation::MaxNotAttained { at, key };
        return Some((their.at, Box::new(make)));
    }
    (mine.max.value > their.value).then(|| {
        let make = |at, key| Accusation::MaxExceeded { at, key };
        (mine.max.at, Box::new(make) as KeyAccusation)
    })
}
