//! Bytes of an answer: the ask's id, then the content. The ask fixes the kind, so none is written; a list that
//! ends an answer has no count, the bytes end where it does.

use bitai_kernels::Hash;

use super::{CodecError, Reader, Wire, Writer};
use crate::{
    dispute::{
        inner::SiteCommit,
        keys::{KeyShare, KeySums, KeysAnswer},
        msg::{Answer, Ask, DrawAnswer, DrawSums, GroupAnswer, Max, NormAnswer},
    },
    opening::{LayerRows, TokenNode},
};

/// Bytes of a part's sums of keys.
const KEY_SUMS: usize = 16;
/// Bytes of one key's share.
const KEY_SHARE: usize = 9;

/// Which answer an ask gets. The numbers are those of the asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// [`Answer::Tokens`].
    Tokens,
    /// [`Answer::Token`].
    Token,
    /// [`Answer::Unit`].
    Unit,
    /// [`Answer::Row`].
    Row,
    /// [`Answer::Piece`].
    Piece,
    /// [`Answer::Sum`].
    Sum,
    /// [`Answer::Keys`].
    Keys,
    /// [`Answer::KeyPart`].
    KeyPart,
    /// [`Answer::Group`].
    Group,
    /// [`Answer::Draw`].
    Draw,
    /// [`Answer::DrawPart`].
    DrawPart,
    /// [`Answer::Norm`].
    Norm,
}

impl Ask {
    /// The kind of answer that it gets.
    pub const fn answered_by(&self) -> AnswerKind {
        match self {
            Ask::Tokens { .. } => AnswerKind::Tokens,
            Ask::Token { .. } => AnswerKind::Token,
            Ask::Unit { .. } => AnswerKind::Unit,
            Ask::Row { .. } => AnswerKind::Row,
            Ask::Piece { .. } => AnswerKind::Piece,
            Ask::Sum { .. } => AnswerKind::Sum,
            Ask::Keys { .. } => AnswerKind::Keys,
            Ask::KeyPart { .. } => AnswerKind::KeyPart,
            Ask::Group { .. } => AnswerKind::Group,
            Ask::Draw { .. } => AnswerKind::Draw,
            Ask::DrawPart { .. } => AnswerKind::DrawPart,
            Ask::Norm { .. } => AnswerKind::Norm,
        }
    }
}

impl Wire for Max<u32> {
    fn put(&self, w: &mut Writer) {
        w.u32(self.value);
        w.u32(self.at);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let value = r.u32("a largest value")?;
        let at = r.u32("its index")?;
        Ok(Self { value, at })
    }
}

impl Wire for Max<u64> {
    fn put(&self, w: &mut Writer) {
        w.u64(self.value);
        w.u32(self.at);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let value = r.u64("a largest value")?;
        let at = r.u32("its index")?;
        Ok(Self { value, at })
    }
}

impl Wire for Max<i32> {
    fn put(&self, w: &mut Writer) {
        w.raw(&self.value.to_le_bytes());
        w.u32(self.at);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let value = i32::from_le_bytes(r.array("a largest value")?);
        let at = r.u32("its index")?;
        Ok(Self { value, at })
    }
}

impl Wire for Max<i16> {
    fn put(&self, w: &mut Writer) {
        w.raw(&self.value.to_le_bytes());
        w.u32(self.at);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let value = i16::from_le_bytes(r.array("a unit")?);
        let at = r.u32("its key")?;
        Ok(Self { value, at })
    }
}

impl Wire for LayerRows {
    fn put(&self, w: &mut Writer) {
        w.raw(&self.kv);
        w.option(self.out.as_ref());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let kv = r.hash("a KV row's hash")?;
        let out = r.option("an out row")?;
        Ok(Self { kv, out })
    }
}

impl Wire for TokenNode {
    fn put(&self, w: &mut Writer) {
        w.raw(&self.body);
        w.option(self.sampled.as_ref());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let body = r.hash("a body root")?;
        let sampled = r.option("a sampled id")?;
        Ok(Self { body, sampled })
    }
}

impl Wire for SiteCommit {
    fn put(&self, w: &mut Writer) {
        w.u8(self.kind());
        match self {
            SiteCommit::Acts(hash) | SiteCommit::Kv(hash) => w.raw(hash),
            SiteCommit::Quant { data, scales } => {
                w.raw(data);
                w.raw(scales);
            }
            SiteCommit::Token(id) => w.u32(*id),
        }
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match r.u8("a commitment's kind")? {
            0 => SiteCommit::Acts(r.hash("a row's hash")?),
            1 => {
                let data = r.hash("a row's hash")?;
                let scales = r.hash("the hash of a row's scales")?;
                SiteCommit::Quant { data, scales }
            }
            2 => SiteCommit::Kv(r.hash("a KV row's hash")?),
            3 => SiteCommit::Token(r.u32("an id")?),
            got => {
                return Err(CodecError::Kind {
                    what: "a commitment",
                    got: got.into(),
                });
            }
        })
    }
}

impl Wire for KeySums {
    fn put(&self, w: &mut Writer) {
        self.acc.put(w);
        w.u64(self.z);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let acc = i64::get(r)?;
        let z = r.u64("a part of Z")?;
        Ok(Self { acc, z })
    }
}

impl Wire for KeyShare {
    fn put(&self, w: &mut Writer) {
        w.u32(self.exp);
        w.u32(self.weight);
        w.raw(&self.value.to_le_bytes());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let exp = r.u32("a key's share of Z")?;
        let weight = r.u32("a key's weight")?;
        let value = i8::from_le_bytes(r.array("a key's V")?);
        Ok(Self { exp, weight, value })
    }
}

impl Wire for DrawSums {
    fn put(&self, w: &mut Writer) {
        w.u32(self.k_count);
        w.u64(self.k_mass);
        w.u32(self.count);
        w.u64(self.mass);
        w.u64(self.below);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            k_count: r.u32("ids that top-k keeps")?,
            k_mass: r.u64("their mass")?,
            count: r.u32("ids that are kept")?,
            mass: r.u64("their mass")?,
            below: r.u64("the mass below the sampled id")?,
        })
    }
}

fn threshold(r: &mut Reader<'_>) -> Result<(u32, u32), CodecError> {
    let p = r.u32("a threshold's probability")?;
    let id = r.u32("a threshold's id")?;
    Ok((p, id))
}

impl Answer {
    /// The content, as it is inscribed behind the ask's id and hashed in the answer's own.
    pub(in crate::dispute) fn put(&self, w: &mut Writer) {
        fn all<T: Wire>(w: &mut Writer, items: &[T]) {
            items.iter().for_each(|i| i.put(w));
        }
        match self {
            Answer::Tokens(nodes) | Answer::Row(nodes) => all(w, nodes),
            Answer::Token { node, layers, units } => {
                node.put(w);
                w.count("layers", layers.len());
                all(w, layers);
                all(w, units);
            }
            Answer::Unit(commits) => all(w, commits),
            Answer::Piece(bytes) => w.raw(bytes),
            Answer::Sum(parts) => all(w, parts),
            Answer::Keys(a) => {
                w.option(a.k_unit.as_ref());
                w.option(a.v_unit.as_ref());
                a.max.put(w);
                all(w, &a.parts);
            }
            Answer::KeyPart(keys) => all(w, keys),
            Answer::Group(g) => {
                g.raw.put(w);
                g.max.put(w);
            }
            Answer::Draw(a) => {
                a.max.put(w);
                for (p, id) in [a.k_threshold, a.threshold] {
                    w.u32(p);
                    w.u32(id);
                }
                w.u32(a.p);
                all(w, &a.parts);
            }
            Answer::DrawPart(parts) => all(w, parts),
            Answer::Norm(a) => {
                w.count("sums of a norm", a.sums.len());
                all(w, &a.sums);
                a.max.put(w);
                all(w, &a.squares);
            }
        }
    }

    /// Bytes on the wire, with the 32 that name the ask.
    pub fn size(&self) -> usize {
        let mut w = Writer::default();
        self.put(&mut w);
        32 + w.len()
    }

    /// Its bytes: the ask's id, then the content.
    pub fn encode(&self, ask: &Hash) -> Result<Vec<u8>, CodecError> {
        let mut w = Writer::default();
        w.raw(ask);
        self.put(&mut w);
        w.done()
    }

    /// The ask's id and the answer of the kind that this ask gets.
    pub fn decode(kind: AnswerKind, bytes: &[u8]) -> Result<(Hash, Self), CodecError> {
        let mut r = Reader::new(bytes);
        let ask = r.hash("the ask's id")?;
        let answer = Self::content(kind, &mut r)?;
        r.end()?;
        Ok((ask, answer))
    }

    fn content(kind: AnswerKind, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match kind {
            AnswerKind::Tokens => Answer::Tokens(r.rest("nodes", 32)?),
            AnswerKind::Token => Answer::Token {
                node: TokenNode::get(r)?,
                layers: r.list("layers")?,
                units: r.rest("units", 32)?,
            },
            AnswerKind::Unit => {
                let mut commits = vec![];
                while r.left() != 0 {
                    commits.push(SiteCommit::get(r)?);
                }
                Answer::Unit(commits)
            }
            AnswerKind::Row => Answer::Row(r.rest("chaining values", 32)?),
            AnswerKind::Piece => Answer::Piece(r.take("a piece", r.left())?.to_vec()),
            AnswerKind::Sum => Answer::Sum(r.rest("partial sums", 8)?),
            AnswerKind::Keys => Answer::Keys(KeysAnswer {
                k_unit: r.option("the unit of the keys")?,
                v_unit: r.option("the unit of the values")?,
                max: Max::get(r)?,
                parts: r.rest("parts of the keys", KEY_SUMS)?,
            }),
            AnswerKind::KeyPart => Answer::KeyPart(r.rest("keys", KEY_SHARE)?),
            AnswerKind::Group => Answer::Group(GroupAnswer {
                raw: Max::get(r)?,
                max: Max::get(r)?,
            }),
            AnswerKind::Draw => Answer::Draw(DrawAnswer {
                max: Max::get(r)?,
                k_threshold: threshold(r)?,
                threshold: threshold(r)?,
                p: r.u32("the sampled id's probability")?,
                parts: r.rest("parts of the ids", DrawSums::SIZE)?,
            }),
            AnswerKind::DrawPart => Answer::DrawPart(r.rest("parts of the ids", DrawSums::SIZE)?),
            AnswerKind::Norm => Answer::Norm(NormAnswer {
                sums: r.list("sums of a norm")?,
                max: Max::get(r)?,
                squares: r.rest("sums of squares", 8)?,
            }),
        })
    }
}
