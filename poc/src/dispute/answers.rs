//! Answers: each must lead to its published parent and add up to it; some contradict what is public and
//! convict at once.

use alloy_primitives::Address;
use bitai_kernels::{
    Hash, Op, Sampler,
    program::SiteId,
    program_check::Shape,
    reference::{
        attention::{finish, pv_partial, visible},
        sample::{IdSums, cuts, draw, holds_draw},
    },
};

use super::{
    DisputeError, Ground, Judge, Verdict,
    inner::{Side, SiteCommit, unit_root},
    leaf_norm::NormOp,
    levels::{linear_parts, next_height, part_len, part_of},
    msg::{Answer, Ask, At, DrawAnswer, DrawSums, KeySums, KeysAnswer},
    published::PublishedToken,
};
use crate::{
    header::TraceRoot,
    merkle,
    opening::LayerRows,
    slice::{SliceError, SliceProof, join_values, piece_values},
};

impl Judge {
    /// Takes an answer to the ask with id `to`; `from` is who sent it. Only the neuron itself answers: sums and
    /// maxima are not fixed by its root, and anyone else could put a lie into its mouth. A verdict where the
    /// answer contradicts what is public.
    pub fn answer(
        &mut self,
        from: Address,
        to: Hash,
        answer: Answer,
    ) -> Result<Option<Verdict>, DisputeError> {
        self.undecided()?;
        if from != self.neuron {
            return Err(DisputeError::Seat("only the neuron answers for its claim"));
        }
        let ask = self.seats.open.get(&to).ok_or(DisputeError::NotAsked)?.ask;
        let id = answer.id(&to)?;
        let contradiction = self.publish(ask, answer)?;
        self.published.ids.insert(ask, id);
        self.seats.open.remove(&to);
        Ok(contradiction.map(|why| self.convict(Ground::Contradiction(why))))
    }

    /// Checks an answer and publishes it; `Some` names a contradiction that convicts at once.
    fn publish(&mut self, ask: Ask, answer: Answer) -> Result<Option<&'static str>, DisputeError> {
        match (ask, answer) {
            (Ask::Tokens { height, index }, Answer::Tokens(nodes)) => {
                self.publish_tokens(height, index, &nodes)?;
            }
            (Ask::Token { pos }, Answer::Token { node, layers, units }) => {
                return self.publish_token(pos, PublishedToken { node, layers, units });
            }
            (Ask::Unit { pos, unit }, Answer::Unit(commits)) => return self.publish_unit(pos, unit, commits),
            (Ask::Row { pos, site, side }, Answer::Row(values)) => {
                let hash = self.commit(pos, site)?.hash(side);
                let total = self.units.row_len(site, side).unwrap_or(0);
                let (_, piece) = self.side(pos, site, side)?;
                if join_values(total, piece, &values) != hash {
                    return Err(DisputeError::Answer("chaining values of another row"));
                }
                self.published.rows.insert((pos, site, side), values);
            }
            (
                Ask::Piece {
                    pos,
                    site,
                    side,
                    index,
                },
                Answer::Piece(bytes),
            ) => {
                self.check_piece(pos, site, side, index, &bytes)?;
                self.published.pieces.insert((pos, site, side, index), bytes);
            }
            (Ask::Sum { pos, site, element }, Answer::Sum(parts)) => {
                let Op::Linear { k, k_segments, .. } = *self.op(site)? else {
                    return Err(DisputeError::Kind("only a linear has sums over K"));
                };
                if parts.len() != linear_parts(k, k_segments.into()).len() {
                    return Err(DisputeError::Answer("another number of parts"));
                }
                self.published.sums.insert(At { pos, site, element }, parts);
            }
            (Ask::Keys { pos, site, element }, Answer::Keys(keys)) => {
                self.check_keys(At { pos, site, element }, &keys)?;
                self.published.keys.insert(At { pos, site, element }, keys);
            }
            (
                Ask::KeyPart {
                    pos,
                    site,
                    element,
                    part,
                },
                Answer::KeyPart(shares),
            ) => {
                let at = At { pos, site, element };
                let whole = self.keys_range(at)?;
                let range = part_of(&whole, part_len(whole.end - whole.start), part);
                let sums = self
                    .published
                    .keys
                    .get(&at)
                    .and_then(|k| k.parts.get(part as usize));
                let weights: Vec<u32> = shares.iter().map(|s| s.weight).collect();
                let values: Vec<i8> = shares.iter().map(|s| s.value).collect();
                let found = KeySums {
                    acc: pv_partial(&weights, &values),
                    z: shares.iter().map(|s| u64::from(s.exp)).sum(),
                };
                if shares.len() != range.len() || sums != Some(&found) {
                    return Err(DisputeError::Answer("keys that do not add up to their part"));
                }
                self.published.key_parts.insert((at, part), shares);
            }
            (Ask::Group { pos, site, group }, Answer::Group(g)) => {
                let (Op::Quant { wht, .. }, Some(Shape::Quant { group: len, .. })) =
                    (self.op(site)?, self.units.shape(site))
                else {
                    return Err(DisputeError::Kind("only a quantisation has groups"));
                };
                let range = group * len..(group + 1) * len;
                if !range.contains(&g.raw.at) || !range.contains(&g.max.at) {
                    return Err(DisputeError::Answer("a maximum outside its group"));
                }
                if *wht == 0 && g.raw != g.max {
                    return Err(DisputeError::Answer("two maxima where nothing is transformed"));
                }
                self.published.groups.insert((pos, site, group), g);
            }
            (Ask::Norm { pos, site, group }, Answer::Norm(n)) => {
                let norm = NormOp::of(self.op(site)?)
                    .ok_or(DisputeError::Kind("only a norm has sums of squares"))?;
                norm.check(group, &n)?;
                self.published.norms.insert((pos, site, group), n);
            }
            (Ask::Draw { pos }, Answer::Draw(draw)) => {
                self.check_draw(pos, &draw)?;
                self.published.draws.insert(pos, draw);
            }
            (Ask::DrawPart { pos, part }, Answer::DrawPart(parts)) => {
                let vocab = 0..self.program.vocab;
                let len = part_len(vocab.end);
                let ids = part_of(&vocab, len, part);
                let count = (ids.end - ids.start).div_ceil(part_len(len));
                let sums = self
                    .published
                    .draws
                    .get(&pos)
                    .and_then(|d| d.parts.get(part as usize));
                if parts.len() != count as usize || Some(&DrawSums::total(&parts)) != sums {
                    return Err(DisputeError::Answer("ids that do not add up to their part"));
                }
                self.published.draw_parts.insert((pos, part), parts);
            }
            _ => return Err(DisputeError::Answer("the answer to another kind of ask")),
        }
        Ok(None)
    }

    fn publish_tokens(&mut self, height: u32, index: u32, nodes: &[Hash]) -> Result<(), DisputeError> {
        let (n, next) = (self.positions(), next_height(height));
        let node = merkle::fold(n, next, height, index, nodes)
            .ok_or(DisputeError::Answer("another number of nodes"))?;
        let fits = if height == merkle::height(n) {
            TraceRoot::new(&self.header.hash(self.output_count()), n, &node) == self.claimed
        } else {
            self.published.tokens.get(&(height, index)) == Some(&node)
        };
        if !fits {
            return Err(DisputeError::Answer("nodes of another tree"));
        }
        for (i, hash) in (index << (height - next)..).zip(nodes) {
            self.published.tokens.insert((next, i), *hash);
        }
        Ok(())
    }

    fn publish_token(
        &mut self,
        pos: u32,
        token: PublishedToken,
    ) -> Result<Option<&'static str>, DisputeError> {
        let hash = token.node.hash(pos);
        let n = self.positions();
        let fits = match self.published.tokens.get(&(0, pos)) {
            Some(node) => *node == hash,
            None => {
                n == 1 && TraceRoot::new(&self.header.hash(self.output_count()), n, &hash) == self.claimed
            }
        };
        if !fits {
            return Err(DisputeError::Answer("another token"));
        }
        if token.layers.len() != self.header.layers as usize
            || LayerRows::body(pos, &token.layers) != token.node.body
        {
            return Err(DisputeError::Answer("rows that do not lead to the body"));
        }
        if token.units.len() != self.units.count(self.header.output_at(pos).is_some()) as usize {
            return Err(DisputeError::Answer("another number of units"));
        }
        let output = self
            .header
            .output_at(pos)
            .and_then(|i| self.outputs.get(i as usize));
        let presence = (0u32..)
            .zip(&token.layers)
            .all(|(l, rows)| rows.check(&self.header, l).is_ok());
        let contradiction = if !presence {
            Some("an out row is missing or where none belongs")
        } else if token.node.sampled.as_ref() != output {
            Some("the sampled token is not the output's")
        } else {
            None
        };
        self.published.token.insert(pos, token);
        Ok(contradiction)
    }

    fn publish_unit(
        &mut self,
        pos: u32,
        unit: u32,
        commits: Vec<SiteCommit>,
    ) -> Result<Option<&'static str>, DisputeError> {
        let sites = self.units.sites(unit);
        let token = self
            .published
            .token
            .get(&pos)
            .ok_or(DisputeError::Unpublished("the token"))?;
        if commits.len() != sites.len()
            || token.units.get(unit as usize) != Some(&unit_root(sites.start, &commits))
        {
            return Err(DisputeError::Answer("sites of another unit"));
        }
        let mut contradiction = None;
        for (site, commit) in sites.zip(&commits) {
            let rows = unit.checked_sub(1).and_then(|l| token.layers.get(l as usize));
            let clash = match (self.op(site)?, commit, rows) {
                _ if !self.units.fits(site, commit) => Some("a site of another kind than the program's"),
                (Op::KvAppend { .. }, SiteCommit::Kv(h), Some(r)) if *h != r.kv => {
                    Some("the KV row is not the one that the token commits")
                }
                (Op::Out, SiteCommit::Acts(h), Some(r)) if r.out.is_some_and(|out| out != *h) => {
                    Some("the out row is not the one that the token commits")
                }
                (Op::Sample { .. }, SiteCommit::Token(id), _) if Some(*id) != token.node.sampled => {
                    Some("the sampled id is not the one that the token commits")
                }
                _ => None,
            };
            contradiction = contradiction.or(clash);
        }
        self.published.units.insert((pos, unit), commits);
        Ok(contradiction)
    }

    fn check_piece(
        &self,
        pos: u32,
        site: SiteId,
        side: Side,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), DisputeError> {
        let total = self.units.row_len(site, side).unwrap_or(0);
        let (count, piece) = self.side(pos, site, side)?;
        let start = u64::from(index) * piece;
        if bytes.len() as u64 != total.saturating_sub(start).min(piece) {
            return Err(DisputeError::Answer("another number of bytes"));
        }
        let fits = if count == 1 {
            Some(*blake3::hash(bytes).as_bytes()) == self.commit(pos, site)?.hash(side)
        } else {
            let value = self
                .published
                .rows
                .get(&(pos, site, side))
                .and_then(|v| v.get(index as usize));
            value == Some(&crate::slice::subtree(start, bytes))
        };
        if fits {
            Ok(())
        } else {
            Err(DisputeError::Answer("another piece"))
        }
    }

    /// The keys that an attention's query sees.
    pub(super) fn keys_range(&self, at: At) -> Result<std::ops::Range<u32>, DisputeError> {
        let Op::Attention { causal, window, .. } = *self.op(at.site)? else {
            return Err(DisputeError::Kind("only attention has keys"));
        };
        let (lo, n) = visible(at.pos, self.positions(), causal, window);
        Ok(lo..n)
    }

    fn check_keys(&self, at: At, a: &KeysAnswer) -> Result<(), DisputeError> {
        let range = self.keys_range(at)?;
        let Op::Attention { p_bits, f_out, .. } = *self.op(at.site)? else {
            return Err(DisputeError::Kind("only attention has keys"));
        };
        let inside = [a.k_unit, a.v_unit]
            .iter()
            .flatten()
            .all(|u| range.contains(&u.at));
        if !inside || !range.contains(&a.max.at) {
            return Err(DisputeError::Answer("a maximum outside its keys"));
        }
        let count = range.end - range.start;
        if a.parts.len() != count.div_ceil(part_len(count)) as usize {
            return Err(DisputeError::Answer("another number of parts"));
        }
        let acc = clamped_sum(a.parts.iter().map(|p| p.acc));
        let z = a.parts.iter().fold(0, |z: u64, p| z.saturating_add(p.z));
        let unit = a.v_unit.map(|u| u.value);
        let bytes = self.element(at.pos, at.site, Side::Data, at.element)?;
        if finish(acc, z, unit, p_bits, f_out).to_le_bytes() != bytes {
            return Err(DisputeError::Answer(
                "parts that do not give the published element",
            ));
        }
        Ok(())
    }

    fn check_draw(&self, pos: u32, a: &DrawAnswer) -> Result<(), DisputeError> {
        let Sampler::Random {
            top_k,
            top_p_q16,
            seed,
            ..
        } = self.sampler
        else {
            return Err(DisputeError::Kind("a greedy job draws nothing"));
        };
        let vocab = self.program.vocab;
        let (k_cut, cut) = a.thresholds();
        if a.max.at >= vocab || cut.id >= vocab {
            return Err(DisputeError::Answer("an id outside the vocabulary"));
        }
        if a.parts.len() != vocab.div_ceil(part_len(vocab)) as usize {
            return Err(DisputeError::Answer("another number of parts"));
        }
        let t = DrawSums::total(&a.parts);
        let sums = IdSums {
            k_count: t.k_count,
            k_mass: t.k_mass,
            count: t.count,
            mass: t.mass,
            below: t.below,
        };
        if !cuts(sums, vocab, top_k, top_p_q16, k_cut, cut) {
            return Err(DisputeError::Answer(
                "a threshold that does not cut where the job says",
            ));
        }
        let token = self.published.token.get(&pos).and_then(|t| t.node.sampled);
        let holds = token.is_some_and(|id| holds_draw(sums, cut, a.p, id, draw(seed, pos)));
        if holds {
            Ok(())
        } else {
            Err(DisputeError::Answer(
                "the sampled id's interval does not hold the draw",
            ))
        }
    }
}

/// A sum of published numbers: exact, then clamped to 64 bits, as the steps have it.
pub(super) fn clamped_sum(numbers: impl Iterator<Item = i64>) -> i64 {
    let sum: i128 = numbers.map(i128::from).sum();
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

/// The chaining values that a defendant publishes for a row.
pub(super) fn row_values(bytes: &[u8], piece: u64) -> Vec<Hash> {
    piece_values(bytes, piece)
}

/// One piece of a row.
pub(super) fn row_piece(bytes: &[u8], piece: u64, index: u32) -> Result<Vec<u8>, SliceError> {
    Ok(SliceProof::prove(bytes, piece, index.into())?.bytes)
}
