//! How a challenger opens the inputs of the first wrong step: they are what it computed too, so its own rows
//! prove them under the defendant's nodes.

use bitai_kernels::{
    Hash, Op,
    program::{SiteId, Weight},
    rows::{kv_record_len, kv_record_offset},
};

use super::{
    DisputeError, Judge, Player, Regenerate,
    inner::{Side, SiteCommit, unit_leaves},
    msg::{At, CommitOpening, HeadOpening, InputOpening, KeyOpening},
};
use crate::{
    merkle::{MerkleProof, fold, height, width},
    model_root::{TensorOpening, WeightOpening},
    opening::{KvOpening, LayerOpening, RangeOpening, TokenNode, TokenOpening},
};

impl<R: Regenerate> Player<R> {
    /// A site's commitment, by reference to a published unit or with its path.
    pub(super) fn open_commit(
        &mut self,
        judge: &Judge,
        pos: u32,
        site: SiteId,
    ) -> Result<CommitOpening, DisputeError> {
        let missing = DisputeError::Kind("my run has no such site");
        if let Some(commit) = judge.published().commit(&self.units, pos, site) {
            return Ok(CommitOpening { commit, proof: None });
        }
        let unit = self.units.unit_of(site).ok_or(missing.clone())?;
        let first = self.units.sites(unit).start;
        let commits = self
            .rows(pos)?
            .commits(&self.units, unit)
            .ok_or(missing.clone())?;
        let proof = MerkleProof::prove(&unit_leaves(first, &commits), site - first);
        Ok(CommitOpening {
            commit: *commits.get((site - first) as usize).ok_or(missing)?,
            proof,
        })
    }

    /// Elements of one side of my row.
    fn open_elements(
        &mut self,
        pos: u32,
        site: SiteId,
        side: Side,
        elements: std::ops::Range<u32>,
    ) -> Result<RangeOpening, DisputeError> {
        let (bytes, _) = self.side(pos, site, side)?;
        let size = self.units.element_len(site, side).unwrap_or(1);
        let range = u64::from(elements.start) * size..u64::from(elements.end) * size;
        Ok(RangeOpening::prove(&bytes, range)?)
    }

    /// Elements of input `i` of a site.
    pub(super) fn open_input(
        &mut self,
        judge: &Judge,
        (pos, site, i): (u32, SiteId, usize),
        side: Side,
        elements: std::ops::Range<u32>,
    ) -> Result<InputOpening, DisputeError> {
        let (input, _) = self.input(pos, site, i)?;
        Ok(InputOpening {
            site: self.open_commit(judge, pos, input)?,
            range: self.open_elements(pos, input, side, elements)?,
        })
    }

    /// One more element of an input whose commitment another opening holds.
    pub(super) fn open_more(
        &mut self,
        (pos, site, i): (u32, SiteId, usize),
        element: u32,
    ) -> Result<RangeOpening, DisputeError> {
        let (input, _) = self.input(pos, site, i)?;
        self.open_elements(pos, input, Side::Data, element..element + 1)
    }

    /// One head of input `i` of a site.
    pub(super) fn open_head(
        &mut self,
        judge: &Judge,
        (pos, site, i): (u32, SiteId, usize),
        (head, head_dim): (u32, u32),
    ) -> Result<Box<HeadOpening>, DisputeError> {
        let elements = head * head_dim..(head + 1) * head_dim;
        let (input, _) = self.input(pos, site, i)?;
        Ok(Box::new(HeadOpening {
            data: self.open_input(judge, (pos, site, i), Side::Data, elements)?,
            scale: self.open_elements(pos, input, Side::Scales, head..head + 1)?,
        }))
    }

    /// Elements of a tensor.
    pub(super) fn open_tensor(
        &self,
        id: u32,
        range: std::ops::Range<u64>,
    ) -> Result<TensorOpening, DisputeError> {
        self.pack
            .open(id, range)
            .ok_or(DisputeError::Kind("the pack has no such elements"))
    }

    /// Weights `range` of row `row`.
    pub(super) fn open_weights(
        &self,
        ids: &Weight,
        k: u32,
        row: u32,
        range: std::ops::Range<u32>,
    ) -> Result<WeightOpening, DisputeError> {
        self.pack
            .open_weights(ids, k, row, range)
            .ok_or(DisputeError::Kind("the pack has no such weights"))
    }

    /// A node of the defendant's token tree: published, or mine where it lies before the disputed token.
    fn their_node(&self, judge: &Judge, mine: &[Hash], h: u32, index: u32) -> Option<Hash> {
        if let Some(node) = judge.published().tokens.get(&(h, index)) {
            return Some(*node);
        }
        let n = judge.positions();
        if h == 0 {
            return mine.get(index as usize).copied();
        }
        let last = width(n, h - 1);
        let children = (2 * index..(2 * index + 2).min(last))
            .map(|i| self.their_node(judge, mine, h - 1, i))
            .collect::<Option<Vec<_>>>()?;
        fold(n, h - 1, h, index, &children)
    }

    /// The defendant's token `key` (at or before the disputed `pos`) under the claimed root.
    fn open_token(&self, judge: &Judge, pos: u32, key: u32) -> Option<TokenOpening> {
        let node = if key == pos {
            judge.published().token.get(&pos)?.node
        } else {
            TokenNode {
                body: *self.transcript.body_roots().get(key as usize)?,
                sampled: self.transcript.sampled_at(key),
            }
        };
        let mine = self.transcript.nodes();
        let n = judge.positions();
        let siblings = (0..height(n))
            .map(|h| (h, (key >> h) ^ 1))
            .filter(|(h, i)| *i < width(n, *h))
            .map(|(h, i)| self.their_node(judge, &mine, h, i))
            .collect::<Option<Vec<_>>>()?;
        Some(TokenOpening {
            node,
            proof: MerkleProof(siblings),
        })
    }

    /// One key of an attention's head.
    pub(super) fn open_key(&mut self, judge: &Judge, at: At, key: u32) -> Result<KeyOpening, DisputeError> {
        let missing = DisputeError::Kind("my run has no such key");
        let Some(Op::Attention {
            heads,
            kv_heads,
            head_dim,
            ..
        }) = self.op(at.site).cloned()
        else {
            return Err(DisputeError::Kind("not an attention"));
        };
        let layer = self.program.sites[at.site as usize].layer.unwrap_or(0);
        let layers = if key == at.pos {
            judge.published().token.get(&key).map(|t| t.layers.clone())
        } else {
            self.rows(key)?.layers(&self.program, judge.header())
        };
        let layers = layers.ok_or(missing.clone())?;
        let head = at.element / head_dim;
        let (d, kv_head) = (head_dim as usize, (head / (heads / kv_heads)) as usize);
        let start = kv_record_offset(kv_head, d) as u64;
        let row = self.regen.kv(key, layer)?;
        let kv = KvOpening {
            token: self.open_token(judge, at.pos, key).ok_or(missing.clone())?,
            layer: LayerOpening::prove(key, &layers, layer).ok_or(missing)?,
            range: RangeOpening::prove(&row, start..start + kv_record_len(d) as u64)?,
        };
        let q = self.open_input(
            judge,
            (at.pos, at.site, 0),
            Side::Data,
            head * head_dim..(head + 1) * head_dim,
        )?;
        let (input, _) = self.input(at.pos, at.site, 0)?;
        let q_scale = self.open_elements(at.pos, input, Side::Scales, head..head + 1)?;
        Ok(KeyOpening { key, kv, q, q_scale })
    }

    /// My commitment of a site.
    pub(super) fn my_commit(&mut self, pos: u32, site: SiteId) -> Result<SiteCommit, DisputeError> {
        let rows = self.rows(pos)?;
        let row = rows
            .row(site)
            .ok_or(DisputeError::Kind("my run has no such site"))?;
        Ok(row.commit())
    }
}
