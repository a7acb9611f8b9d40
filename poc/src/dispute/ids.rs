//! Names of moves. A claim has an id, an ask names the answer it builds on (the first one the claim), an answer
//! names its ask, an accusation the answer it rests on. So every move names all that it relies on: replayed in
//! another job, for another neuron, or after a reorg that put another answer in that place, it names nothing
//! there and does not count (PROTOCOL 12).

use alloy_primitives::{Address, B256, U256};
use bitai_kernels::Hash;
use bitai_types::{Job, job::ids_hash};

use super::msg::{Answer, Ask, DrawSums, Max};
use crate::header::TraceRoot;

/// Tag of a claim's id.
pub const CLAIM_TAG: &[u8; 16] = b"bitai/claim/v0\0\0";
/// Tag of an ask's id.
pub const ASK_TAG: &[u8; 16] = b"bitai/ask/v0\0\0\0\0";
/// Tag of an answer's id.
pub const ANSWER_TAG: &[u8; 16] = b"bitai/answer/v0\0";

/// What one neuron revealed for one job of one hub: all of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Chain of the hub.
    pub chain_id: u64,
    /// The hub.
    pub hub: Address,
    /// The job's number there.
    pub job_id: U256,
    /// Who revealed the answer.
    pub neuron: Address,
    /// The job.
    pub job: Job,
    /// The revealed output ids.
    pub outputs: Vec<u32>,
    /// The revealed trace root.
    pub root: TraceRoot,
}

impl Claim {
    /// H(tag, chain id u64, hub, job id as 32 bytes big-endian, neuron, jobHash, trace root, outputHash).
    pub fn id(&self) -> Hash {
        let mut h = blake3::Hasher::new();
        h.update(CLAIM_TAG);
        h.update(&self.chain_id.to_le_bytes());
        h.update(self.hub.as_slice());
        h.update(&self.job_id.to_be_bytes::<32>());
        h.update(self.neuron.as_slice());
        h.update(self.job.hash().as_slice());
        h.update(B256::from(self.root).as_slice());
        h.update(ids_hash(&self.outputs).as_slice());
        *h.finalize().as_bytes()
    }
}

impl Ask {
    /// The words of its canonical form: kind, then the fields, unused ones 0.
    fn words(&self) -> [u32; 5] {
        let s = |side| u32::from(side == super::inner::Side::Scales);
        match *self {
            Ask::Tokens { height, index } => [0, height, index, 0, 0],
            Ask::Token { pos } => [1, pos, 0, 0, 0],
            Ask::Unit { pos, unit } => [2, pos, unit, 0, 0],
            Ask::Row { pos, site, side } => [3, pos, site, s(side), 0],
            Ask::Piece {
                pos,
                site,
                side,
                index,
            } => [4, pos, site, s(side), index],
            Ask::Sum { pos, site, element } => [5, pos, site, element, 0],
            Ask::Keys { pos, site, element } => [6, pos, site, element, 0],
            Ask::KeyPart {
                pos,
                site,
                element,
                part,
            } => [7, pos, site, element, part],
            Ask::Group { pos, site, group } => [8, pos, site, group, 0],
            Ask::Draw { pos } => [9, pos, 0, 0, 0],
            Ask::DrawPart { pos, part } => [10, pos, part, 0, 0],
        }
    }

    /// What an answer names: H(tag, id of the answer (or claim) that the ask builds on, words).
    pub fn id(&self, to: &Hash) -> Hash {
        let mut h = blake3::Hasher::new();
        h.update(ASK_TAG);
        h.update(to);
        for word in self.words() {
            h.update(&word.to_le_bytes());
        }
        *h.finalize().as_bytes()
    }
}

/// The canonical bytes of an answer, hashed as they are written: u64 counts before lists, u32 presence flags,
/// everything little-endian. Its ask fixes the kind.
struct Bytes(blake3::Hasher);

impl Bytes {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn word(&mut self, x: u32) {
        self.raw(&x.to_le_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.raw(&(items.len() as u64).to_le_bytes());
        for item in items {
            each(self, item);
        }
    }

    fn option<T>(&mut self, item: Option<&T>, each: impl FnOnce(&mut Self, &T)) {
        self.word(u32::from(item.is_some()));
        if let Some(item) = item {
            each(self, item);
        }
    }

    fn draw(&mut self, s: &DrawSums) {
        self.word(s.k_count);
        self.raw(&s.k_mass.to_le_bytes());
        self.word(s.count);
        self.raw(&s.mass.to_le_bytes());
        self.raw(&s.below.to_le_bytes());
    }

    fn group(&mut self, m: &Max<u32>) {
        self.word(m.value);
        self.word(m.at);
    }
}

impl Answer {
    /// What a later move names: H(tag, ask's id, content).
    pub fn id(&self, ask: &Hash) -> Hash {
        let mut b = Bytes(blake3::Hasher::new());
        b.raw(ANSWER_TAG);
        b.raw(ask);
        match self {
            Answer::Tokens(nodes) | Answer::Row(nodes) => b.list(nodes, |b, n| b.raw(n)),
            Answer::Token { node, layers, units } => {
                b.raw(&node.body);
                b.option(node.sampled.as_ref(), |b, id| b.word(*id));
                b.list(layers, |b, l| {
                    b.raw(&l.kv);
                    b.option(l.out.as_ref(), |b, out| b.raw(out));
                });
                b.list(units, |b, u| b.raw(u));
            }
            // A leaf names kind and content of its commitment; the unit's root fixes which site it is.
            Answer::Unit(commits) => b.list(commits, |b, c| b.raw(&c.leaf(0))),
            Answer::Piece(bytes) => b.list(bytes, |b, x| b.raw(&[*x])),
            Answer::Sum(parts) => b.list(parts, |b, p| b.raw(&p.to_le_bytes())),
            Answer::Keys(a) => {
                for unit in [a.k_unit, a.v_unit] {
                    b.option(unit.as_ref(), |b, u| {
                        b.raw(&u.value.to_le_bytes());
                        b.word(u.at);
                    });
                }
                b.raw(&a.max.value.to_le_bytes());
                b.word(a.max.at);
                b.list(&a.parts, |b, p| {
                    b.raw(&p.acc.to_le_bytes());
                    b.raw(&p.z.to_le_bytes());
                });
            }
            Answer::KeyPart(keys) => b.list(keys, |b, k| {
                b.word(k.exp);
                b.word(k.weight);
                b.raw(&k.value.to_le_bytes());
            }),
            Answer::Group(g) => {
                b.group(&g.raw);
                b.group(&g.max);
            }
            Answer::Draw(a) => {
                b.raw(&a.max.value.to_le_bytes());
                b.word(a.max.at);
                for (p, id) in [a.k_threshold, a.threshold] {
                    b.word(p);
                    b.word(id);
                }
                b.word(a.p);
                b.list(&a.parts, Bytes::draw);
            }
            Answer::DrawPart(parts) => b.list(parts, Bytes::draw),
        }
        *b.0.finalize().as_bytes()
    }
}
