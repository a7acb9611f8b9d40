//! A player's own run: regenerates what is asked for. The defendant answers with it, the challenger compares
//! with it.

use bitai_kernels::{
    Op, Program, Sampler,
    num::{Scale, absmax},
    ops::AttentionParams,
    program::{SiteId, Weight},
    program_check::Shape,
    reference::{
        attention::{cached, exponent, head_sums},
        linear::{GROUP, dot_segment},
        quant::wht,
        sample::{Threshold, inverse_temperature, probability, threshold},
    },
};

use super::{
    DisputeError,
    answers::{row_piece, row_values},
    inner::{Side, SiteRow, Units},
    leaf_draw::{draw_sub, sums},
    leaf_norm::NormOp,
    levels::{linear_parts, next_height, part_len, part_of},
    msg::{
        Answer, Ask, At, DrawAnswer, DrawSums, GroupAnswer, KeyShare, KeySums, KeysAnswer, Max, NormAnswer,
    },
    published::Published,
    regenerate::{Regenerate, TokenRows},
};
use crate::{
    merkle::{fold, height, width},
    model_root::Pack,
    opening::TokenNode,
    transcript::Transcript,
};

/// A player's own run: its transcript, and the means to regenerate and to open the model.
pub struct Player<R> {
    pub(super) transcript: Transcript,
    pub(super) regen: R,
    pub(super) pack: Pack,
    pub(super) program: Program,
    pub(super) units: Units,
    pub(super) sampler: Sampler,
}

/// The attention parameters of an op.
pub(super) fn attention_params(op: &Op) -> Option<AttentionParams> {
    match *op {
        Op::Attention {
            heads,
            kv_heads,
            head_dim,
            scale_m,
            scale_e,
            p_bits,
            window,
            causal,
            f_out,
        } => Some(AttentionParams {
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            head_dim: head_dim as usize,
            scale: Scale {
                m: scale_m,
                e: scale_e,
            },
            p_bits,
            window,
            causal,
            f_out,
        }),
        _ => None,
    }
}

/// All that one head's sums are made of, by key from `lo`.
pub(super) struct HeadKeys {
    pub(super) k_unit: Option<Max<i16>>,
    pub(super) v_unit: Option<Max<i16>>,
    pub(super) max: Max<i32>,
    pub(super) lo: u32,
    pub(super) scores: Vec<i32>,
    /// Each key's exponents: K, V.
    pub(super) exponents: Vec<[Option<i16>; 2]>,
    pub(super) shares: Vec<KeyShare>,
}

impl HeadKeys {
    /// The sums of each part.
    pub(super) fn parts(&self) -> Vec<KeySums> {
        let count = u32::try_from(self.shares.len()).unwrap_or(u32::MAX);
        self.shares
            .chunks(part_len(count) as usize)
            .map(|keys| KeySums {
                acc: keys
                    .iter()
                    .map(|k| i64::from(k.weight) * i64::from(k.value))
                    .sum(),
                z: keys.iter().map(|k| u64::from(k.exp)).sum(),
            })
            .collect()
    }
}

/// The first largest value; later equal ones do not replace it.
pub(super) fn first_max<T: PartialOrd + Copy>(values: impl Iterator<Item = (u32, T)>) -> Option<Max<T>> {
    values.fold(None, |best: Option<Max<T>>, (at, value)| match best {
        Some(b) if b.value >= value => Some(b),
        _ => Some(Max { value, at }),
    })
}

impl<R: Regenerate> Player<R> {
    /// A player for a finished transcript of `program`.
    pub fn new(
        transcript: Transcript,
        regen: R,
        pack: Pack,
        program: Program,
        sampler: Sampler,
    ) -> Result<Self, DisputeError> {
        transcript
            .check()
            .map_err(|e| DisputeError::Setup(e.to_string()))?;
        Ok(Self {
            units: Units::new(&program)?,
            transcript,
            regen,
            pack,
            program,
            sampler,
        })
    }

    /// My run, and who makes its rows again.
    pub fn run(&mut self) -> (&Program, &Transcript, &mut R) {
        (&self.program, &self.transcript, &mut self.regen)
    }

    /// The answer to an ask about my own run.
    pub fn respond(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        let missing = DisputeError::Kind("my run has no such node");
        Ok(match *ask {
            Ask::Tokens { height, index } => {
                let next = next_height(height);
                let n = u32::try_from(self.transcript.body_roots().len()).unwrap_or(u32::MAX);
                let first = index << (height - next);
                let end = width(n, next).min(first.saturating_add(1 << (height - next)));
                let leaves = self.transcript.nodes();
                Answer::Tokens((first..end).map(|i| tree_node(&leaves, next, i)).collect())
            }
            Ask::Token { pos } => {
                let rows = self.regen.token(pos)?;
                let body = self.transcript.body_roots().get(pos as usize).copied();
                let sampled = self.transcript.sampled_at(pos);
                Answer::Token {
                    node: TokenNode {
                        body: body.ok_or(missing.clone())?,
                        sampled,
                    },
                    layers: rows
                        .layers(&self.program, self.transcript.header())
                        .ok_or(missing.clone())?,
                    units: rows.units(&self.units, sampled.is_some()).ok_or(missing)?,
                }
            }
            Ask::Unit { pos, unit } => {
                Answer::Unit(self.regen.token(pos)?.commits(&self.units, unit).ok_or(missing)?)
            }
            Ask::Row { pos, site, side } => {
                let (bytes, piece) = self.side(pos, site, side)?;
                Answer::Row(row_values(&bytes, piece))
            }
            Ask::Piece {
                pos,
                site,
                side,
                index,
            } => {
                let (bytes, piece) = self.side(pos, site, side)?;
                Answer::Piece(row_piece(&bytes, piece, index)?)
            }
            Ask::Sum { pos, site, element } => Answer::Sum(self.linear_sums(At { pos, site, element })?),
            Ask::Keys { pos, site, element } => {
                let head = self.head_keys(At { pos, site, element })?;
                Answer::Keys(KeysAnswer {
                    k_unit: head.k_unit,
                    v_unit: head.v_unit,
                    max: head.max,
                    parts: head.parts(),
                })
            }
            Ask::KeyPart {
                pos,
                site,
                element,
                part,
            } => {
                let head = self.head_keys(At { pos, site, element })?;
                let count = u32::try_from(head.shares.len()).unwrap_or(u32::MAX);
                let range = part_of(&(0..count), part_len(count), part);
                Answer::KeyPart(head.shares[range.start as usize..range.end as usize].to_vec())
            }
            Ask::Group { pos, site, group } => Answer::Group(self.group(pos, site, group)?),
            Ask::Norm { pos, site, group } => Answer::Norm(self.norm(pos, site, group)?),
            Ask::Draw { pos } => {
                let token = self.transcript.sampled_at(pos).ok_or(missing)?;
                Answer::Draw(self.draw(pos, token)?)
            }
            Ask::DrawPart { pos, part } => {
                let token = self.transcript.sampled_at(pos).ok_or(missing)?;
                let head = self.draw(pos, token)?;
                Answer::DrawPart(self.draw_part(pos, &head, token, part)?)
            }
        })
    }

    pub(super) fn rows(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        self.regen.token(pos)
    }

    /// Bytes of a side of my row, and bytes a piece.
    pub(super) fn side(
        &mut self,
        pos: u32,
        site: SiteId,
        side: Side,
    ) -> Result<(Vec<u8>, u64), DisputeError> {
        let missing = DisputeError::Kind("my run has no such row");
        let rows = self.regen.token(pos)?;
        let bytes = rows
            .row(site)
            .and_then(|r| r.bytes(side))
            .ok_or(missing.clone())?;
        let (_, piece) = Published::pieces_of(&self.units, site, side).ok_or(missing)?;
        Ok((bytes, piece))
    }

    /// An input row of a site.
    pub(super) fn input(
        &mut self,
        pos: u32,
        site: SiteId,
        i: usize,
    ) -> Result<(SiteId, SiteRow), DisputeError> {
        let missing = DisputeError::Kind("my run has no such row");
        let id = self
            .program
            .sites
            .get(site as usize)
            .and_then(|s| s.inputs.get(i))
            .copied()
            .ok_or(missing.clone())?;
        let row = self.regen.token(pos)?.row(id).cloned().ok_or(missing)?;
        Ok((id, row))
    }

    /// A weight row's integers and multipliers (none where it is not grouped).
    pub(super) fn weight_row(
        &self,
        w: &Weight,
        k: u32,
        row: u32,
    ) -> Result<(Vec<i8>, Vec<u8>), DisputeError> {
        self.pack
            .weight_row(w, k, row)
            .ok_or(DisputeError::Kind("the pack has no such weight"))
    }

    /// The parts of a linear's element.
    pub(super) fn linear_sums(&mut self, at: At) -> Result<Vec<i64>, DisputeError> {
        let Some(Op::Linear {
            weight,
            k,
            k_segments,
            ..
        }) = self.op(at.site).cloned()
        else {
            return Err(DisputeError::Kind("not a linear"));
        };
        let (_, SiteRow::Quant { data, .. }) = self.input(at.pos, at.site, 0)? else {
            return Err(DisputeError::Kind("a linear reads quantised rows"));
        };
        let (ws, mults) = self.weight_row(&weight, k, at.element)?;
        Ok(linear_parts(k, k_segments.into())
            .into_iter()
            .map(|r| {
                let (a, b) = (r.start as usize, r.end as usize);
                let mults = if mults.is_empty() {
                    &[][..]
                } else {
                    &mults[a / GROUP..b.div_ceil(GROUP)]
                };
                dot_segment(&data[a..b], &ws[a..b], mults)
            })
            .collect())
    }

    pub(super) fn op(&self, site: SiteId) -> Option<&Op> {
        self.program.sites.get(site as usize).map(|s| &s.op)
    }

    /// What the head of an attention's element is made of, by my own KV rows.
    pub(super) fn head_keys(&mut self, at: At) -> Result<HeadKeys, DisputeError> {
        let p = self
            .op(at.site)
            .and_then(attention_params)
            .ok_or(DisputeError::Kind("not an attention"))?;
        let layer = self.program.sites[at.site as usize].layer.unwrap_or(0);
        let (_, SiteRow::Quant { data, scales, .. }) = self.input(at.pos, at.site, 0)? else {
            return Err(DisputeError::Kind("attention reads quantised rows"));
        };
        let (d, e) = (p.head_dim, at.element as usize);
        let (head, element) = (e / d, e % d);
        let kv_head = head / (p.heads / p.kv_heads);
        let mut rows = vec![];
        for pos in 0..=at.pos {
            rows.extend(self.regen.kv(pos, layer)?);
        }
        let row_len = rows.len() / (at.pos as usize + 1);
        let q = &data[head * d..(head + 1) * d];
        let sums = head_sums(p, q, scales[head], kv_head, at.pos, &rows, row_len);
        let record = |key: u32, value| cached(&rows[key as usize * row_len..], kv_head, d, value);
        let keys = || sums.lo..;
        let exponents: Vec<[Option<i16>; 2]> = keys()
            .take(sums.scores.len())
            .map(|j| [false, true].map(|value| exponent(record(j, value).1)))
            .collect();
        let unit = |side: usize| {
            let present = keys().zip(&exponents).filter_map(|(j, e)| Some((j, e[side]?)));
            first_max(present)
        };
        let shares = keys()
            .zip(sums.exps.iter().zip(&sums.weights))
            .map(|(j, (exp, weight))| KeyShare {
                exp: *exp,
                weight: *weight,
                value: record(j, true).0[element],
            })
            .collect();
        Ok(HeadKeys {
            max: first_max(keys().zip(sums.scores.iter().copied()))
                .ok_or(DisputeError::Kind("no key is visible"))?,
            k_unit: unit(0),
            v_unit: unit(1),
            lo: sums.lo,
            exponents,
            shares,
            scores: sums.scores,
        })
    }

    /// The maxima of a group.
    pub(super) fn group(&mut self, pos: u32, site: SiteId, group: u32) -> Result<GroupAnswer, DisputeError> {
        let (Some(Op::Quant { wht: block, .. }), Some(Shape::Quant { group: len, .. })) =
            (self.op(site).cloned(), self.units.shape(site))
        else {
            return Err(DisputeError::Kind("not a quantisation"));
        };
        let (_, SiteRow::Acts(row)) = self.input(pos, site, 0)? else {
            return Err(DisputeError::Kind("a quantisation reads int32 rows"));
        };
        let first = group * len;
        let mut values = row[first as usize..(first + len) as usize].to_vec();
        let max = |v: &[i32]| {
            let (value, i) = absmax(v);
            Max {
                value,
                at: first + u32::try_from(i).unwrap_or(0),
            }
        };
        let raw = max(&values);
        if block != 0 {
            wht(&mut values, block.into());
        }
        Ok(GroupAnswer {
            raw,
            max: max(&values),
        })
    }

    /// The maximum and sums of a norm's group.
    pub(super) fn norm(&mut self, pos: u32, site: SiteId, group: u32) -> Result<NormAnswer, DisputeError> {
        let norm = self.op(site).and_then(NormOp::of);
        let (Some(norm), (_, SiteRow::Acts(row))) = (norm, self.input(pos, site, 0)?) else {
            return Err(DisputeError::Kind("not a norm"));
        };
        norm.answer(&row, group)
            .ok_or(DisputeError::Kind("my run has no such group"))
    }

    /// The row of logits of a position that samples, and its fraction bits.
    pub(super) fn logits(&mut self, pos: u32) -> Result<(SiteId, Vec<i32>, u8), DisputeError> {
        let site = u32::try_from(self.program.sites.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let Some(Op::Sample { f }) = self.op(site).cloned() else {
            return Err(DisputeError::Kind("this program does not sample"));
        };
        match self.input(pos, site, 0)? {
            (id, SiteRow::Acts(logits)) => Ok((id, logits, f)),
            _ => Err(DisputeError::Kind("sampling reads int32 rows")),
        }
    }

    /// A random draw's head, by my own logits, if `token` is what it gave.
    pub(super) fn draw(&mut self, pos: u32, token: u32) -> Result<DrawAnswer, DisputeError> {
        let Sampler::Random {
            temperature_q16,
            top_k,
            top_p_q16,
            ..
        } = self.sampler
        else {
            return Err(DisputeError::Kind("a greedy job draws nothing"));
        };
        let (_, logits, f) = self.logits(pos)?;
        let max = first_max((0u32..).zip(logits.iter().copied())).ok_or(DisputeError::Kind("no logits"))?;
        let inv = inverse_temperature(temperature_q16);
        let probs: Vec<u32> = logits
            .iter()
            .map(|l| probability(*l, max.value, inv, f))
            .collect();
        let k_cut = k_threshold(&probs, top_k);
        let cut = threshold(&probs, top_k, top_p_q16);
        let mut head = DrawAnswer {
            max,
            k_threshold: (k_cut.p, k_cut.id),
            threshold: (cut.p, cut.id),
            p: probs.get(token as usize).copied().unwrap_or(0),
            parts: vec![],
        };
        head.parts = self.draw_parts(pos, &head, token)?;
        Ok(head)
    }

    /// The sums of all parts of the ids under a given head.
    pub(super) fn draw_parts(
        &mut self,
        pos: u32,
        head: &DrawAnswer,
        token: u32,
    ) -> Result<Vec<DrawSums>, DisputeError> {
        let vocab = self.program.vocab;
        let len = part_len(vocab);
        let ranges = (0..vocab.div_ceil(len))
            .map(|part| part_of(&(0..vocab), len, part))
            .collect();
        self.draw_sums(pos, head, token, ranges)
    }

    /// The sums of the parts of one part.
    pub(super) fn draw_part(
        &mut self,
        pos: u32,
        head: &DrawAnswer,
        token: u32,
        part: u32,
    ) -> Result<Vec<DrawSums>, DisputeError> {
        let vocab = self.program.vocab;
        let len = part_len(vocab);
        let ids = part_of(&(0..vocab), len, part);
        let subs = (ids.end - ids.start).div_ceil(part_len(len));
        let ranges = (0..subs).map(|sub| draw_sub(vocab, part, sub)).collect();
        self.draw_sums(pos, head, token, ranges)
    }

    fn draw_sums(
        &mut self,
        pos: u32,
        head: &DrawAnswer,
        token: u32,
        ranges: Vec<std::ops::Range<u32>>,
    ) -> Result<Vec<DrawSums>, DisputeError> {
        let Sampler::Random { temperature_q16, .. } = self.sampler else {
            return Err(DisputeError::Kind("a greedy job draws nothing"));
        };
        let (_, logits, f) = self.logits(pos)?;
        let inv = inverse_temperature(temperature_q16);
        let p = |l: i32| probability(l, head.max.value, inv, f);
        Ok(ranges
            .into_iter()
            .map(|ids| {
                sums(
                    head,
                    token,
                    &p,
                    ids.start,
                    &logits[ids.start as usize..ids.end as usize],
                )
            })
            .collect())
    }
}

/// Where top-k cuts: the k-th id in the order probability down, id up; `(0, u32::MAX)` keeps all.
fn k_threshold(probs: &[u32], top_k: u32) -> Threshold {
    let all = Threshold { p: 0, id: u32::MAX };
    if top_k == 0 {
        return all;
    }
    let mut order: Vec<(std::cmp::Reverse<u32>, u32)> = (0u32..)
        .zip(probs)
        .map(|(id, p)| (std::cmp::Reverse(*p), id))
        .collect();
    order.sort_unstable();
    let last = (top_k as usize).min(order.len()).saturating_sub(1);
    order
        .get(last)
        .map_or(all, |(p, id)| Threshold { p: p.0, id: *id })
}

/// Node `index` at `height_` of the tree over `leaves`.
pub(super) fn tree_node(leaves: &[[u8; 32]], height_: u32, index: u32) -> [u8; 32] {
    let n = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
    debug_assert!(height_ <= height(n));
    let first = (index as usize) << height_;
    let end = leaves.len().min(first + (1usize << height_));
    fold(n, 0, height_, index, &leaves[first..end]).unwrap_or([0; 32])
}
