//! The bytes of a game: every answer and accusation at its largest for a model's shape, written by the real codec.

use bitai_kernels::{DType, Hash, rows::kv_row_len};
use serde::Serialize;

use super::{inscribe, shapes::Shape};
use crate::{
    dispute::{
        Accusation, Answer, ModelFault,
        inner::SiteCommit,
        levels::{linear_parts, next_height, norm_parts, part_len},
        msg::{
            At, CommitOpening, DrawAnswer, DrawSums, GroupAnswer, HeadOpening, InputOpening, KeyOpening,
            KeyShare, KeySums, KeysAnswer, Max, NormAnswer,
        },
    },
    merkle::{self, MerkleProof},
    model_root::{LineOpening, TensorLine, TensorOpening, WeightOpening},
    opening::{KvOpening, LayerOpening, LayerRows, RangeOpening, TokenNode, TokenOpening},
    slice::{self, CHUNK, SliceProof},
};

/// Longest name of a tensor.
const NAME: usize = 48;
/// Asks that a game may have (`ASKS_MAX` of `contracts/src/PocVerifier.sol`).
pub const ASKS_MAX: u32 = 9;
/// Most bytes of a game's answers beside the token's and the piece, as the contract's bond counts them (`ANSWER_BYTES` there).
const ANSWER_BYTES: u64 = 8192 + 8192 + 64 + 256 * 65 + 8192 + 8220 + 8192;
/// What the bond counts for the moves' own bytes (`MOVE_BYTES` there).
const MOVE_BYTES: u64 = ASKS_MAX as u64 * 300;

/// One kind of node that an ask can name, for one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Node {
    /// What is asked for.
    pub what: &'static str,
    /// Bytes of its answer at most, with the 32 that name the ask.
    pub bytes: u64,
    /// Index of the node that must be published first.
    #[serde(skip)]
    above: Option<usize>,
    /// How many such nodes one of those has.
    #[serde(skip)]
    width: u64,
}

/// One way down: which nodes are asked for, and the accusation that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// What the lie is about.
    pub about: &'static str,
    /// Asks.
    pub rounds: u64,
    /// Bytes of all answers.
    pub answers: u64,
    /// Bytes of the accusation.
    pub accusation: u64,
    /// Virtual bytes of what the challenger sends: opening, asks, accusation.
    pub challenger_vbytes: u64,
    /// Virtual bytes of what the neuron sends.
    pub neuron_vbytes: u64,
}

impl Way {
    /// Virtual bytes of the whole game.
    pub const fn vbytes(&self) -> u64 {
        self.challenger_vbytes + self.neuron_vbytes
    }

    /// Transactions of the whole game.
    pub const fn moves(&self) -> u64 {
        2 + 2 * self.rounds
    }
}

/// What a challenger that only wants to do harm can make a neuron publish, and what it costs whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Griefing {
    /// Virtual bytes of the dearest answers that the asks of one game can demand.
    pub neuron_vbytes: u64,
    /// Bytes of those answers.
    pub bytes: u64,
    /// Virtual bytes that the challenger spends on them.
    pub challenger_vbytes: u64,
    /// Virtual bytes that its bond pays for, at the governed rate.
    pub bond_vbytes: u64,
}

/// An accusation at its largest.
struct Accused {
    /// What the lie is about.
    about: &'static str,
    /// Nodes that must be published, with all above them.
    ends: &'static [&'static str],
    /// The accusation.
    accusation: Accusation,
}

/// Levels of a binary tree over `n` leaves.
fn depth(n: u64) -> usize {
    n.max(1).next_power_of_two().trailing_zeros() as usize
}

fn hashes(n: usize) -> Vec<Hash> {
    vec![[0; 32]; n]
}

fn path(leaves: u64) -> MerkleProof {
    MerkleProof(hashes(depth(leaves)))
}

/// As many elements as `n` says.
fn many<T: Clone>(item: T, n: usize) -> Vec<T> {
    vec![item; n]
}

/// The chunks that `len` bytes of `total` can lie in, with their chaining values. A number of up to four bytes lies in one.
fn range(total: u64, len: u64) -> RangeOpening {
    let chunks = if len <= 4 {
        1
    } else {
        (len + CHUNK - 2) / CHUNK + 1
    };
    let chunks = chunks.min(total.div_ceil(CHUNK).max(1));
    let one = SliceProof {
        bytes: many(0, usize::try_from(total.min(CHUNK)).unwrap_or(0)),
        siblings: hashes(depth(total.div_ceil(CHUNK))),
    };
    RangeOpening(many(one, usize::try_from(chunks).unwrap_or(0)))
}

/// A game's sizes for one shape.
#[derive(Debug, Clone, Copy)]
pub struct Sizes<'a>(pub &'a Shape);

impl Sizes<'_> {
    fn commit(self) -> CommitOpening {
        CommitOpening {
            commit: SiteCommit::Quant {
                data: [0; 32],
                scales: [0; 32],
            },
            proof: Some(path(self.0.sites.into())),
        }
    }

    fn input(self, total: u64, len: u64) -> InputOpening {
        InputOpening {
            site: self.commit(),
            range: range(total, len),
        }
    }

    /// A range of a tensor with `rows` of `cols` elements of `size` bytes.
    fn tensor(self, (rows, cols): (u32, u32), size: u64, len: u64) -> TensorOpening {
        // Norms and linears of a layer have at most 16 tensors, integers, scales, multipliers and biases counted.
        let tensors = 16 + 32 * u64::from(self.0.layers);
        TensorOpening {
            at: LineOpening {
                line: TensorLine {
                    name: "x".repeat(NAME),
                    dtype: DType::I8,
                    rows: rows.into(),
                    cols: cols.into(),
                    hash: [0; 32],
                },
                proof: path(tensors),
                branch: MerkleProof(hashes(2)),
            },
            range: range(u64::from(rows) * u64::from(cols) * size, len),
        }
    }

    /// `len` weights of a row with their multipliers.
    fn weights(self, rows: u32, cols: u32, len: u32) -> WeightOpening {
        let groups = cols.div_ceil(32);
        WeightOpening {
            q: self.tensor((rows, cols), 1, len.into()),
            mult: Some(self.tensor((rows, groups), 1, u64::from(len.div_ceil(32)))),
        }
    }

    /// Everything that an ask can name, each behind what must be published before it.
    pub fn nodes(self) -> Vec<Node> {
        let s = self.0;
        let mut nodes = Vec::new();
        let mut put = |what, answer: &Answer, above: Option<usize>, width: u64| {
            let bytes = answer.size() as u64;
            nodes.push(Node {
                what,
                bytes,
                above,
                width,
            });
            nodes.len() - 1
        };
        let mut height = merkle::height(s.positions);
        let mut above = None;
        let mut width = 1;
        while height > 0 {
            let next = next_height(height);
            let children = 1u64 << (height - next);
            let children = children.min(merkle::width(s.positions, next).into());
            let count = usize::try_from(children).unwrap_or(usize::MAX);
            above = Some(put("tokens", &Answer::Tokens(hashes(count)), above, width));
            (height, width) = (next, children);
        }
        let layer = |l: u32| LayerRows {
            kv: [0; 32],
            out: ((l + 1).is_multiple_of(s.stride.max(1))).then_some([0; 32]),
        };
        let token = Answer::Token {
            node: TokenNode {
                body: [0; 32],
                sampled: Some(0),
            },
            layers: (0..s.layers).map(layer).collect(),
            units: hashes(s.layers as usize + 2),
        };
        let token = put("token", &token, above, width);
        let sites = many(self.commit().commit, s.sites as usize);
        let unit = put("unit", &Answer::Unit(sites), Some(token), u64::from(s.layers) + 2);

        let long = self.longest();
        let piece = slice::piece_len(long);
        let pieces = slice::pieces(long, piece);
        let count = usize::try_from(pieces).unwrap_or(usize::MAX);
        let row = match pieces {
            1 => unit,
            _ => put("row", &Answer::Row(hashes(count)), Some(unit), s.sites.into()),
        };
        let bytes = usize::try_from(piece.min(long)).unwrap_or(usize::MAX);
        let piece = put("piece", &Answer::Piece(many(0, bytes)), Some(row), pieces);
        // Weights may have their sums cut into segments, which adds a part each.
        let parts = [1, 2, 4, 8].map(|segments| linear_parts(s.k(), segments).len());
        let parts = parts.into_iter().max().unwrap_or(0);
        put("sum", &Answer::Sum(many(0, parts)), Some(piece), 256);

        let max = |at| Max { value: 0, at };
        let part = part_len(s.positions);
        let keys = KeysAnswer {
            k_unit: Some(Max { value: 0, at: 0 }),
            v_unit: Some(Max { value: 0, at: 0 }),
            max: Max { value: 0, at: 0 },
            parts: many(KeySums::default(), s.positions.div_ceil(part) as usize),
        };
        let keys = put("keys", &Answer::Keys(keys), Some(piece), 256);
        let key = KeyShare {
            exp: 0,
            weight: 0,
            value: 0,
        };
        let key_part = Answer::KeyPart(many(key, part as usize));
        put(
            "key part",
            &key_part,
            Some(keys),
            s.positions.div_ceil(part).into(),
        );
        let group = GroupAnswer {
            raw: max(0),
            max: max(0),
        };
        put("group", &Answer::Group(group), Some(unit), s.k().into());
        let sums = norm_parts(0, s.k()).len();
        let norm = NormAnswer {
            sums: many(0, sums),
            max: Max { value: 0, at: 0 },
            squares: many(0, sums),
        };
        put("norm", &Answer::Norm(norm), Some(unit), s.sites.into());
        let ids = part_len(s.vocab);
        let draw = DrawAnswer {
            max: Max { value: 0, at: 0 },
            k_threshold: (0, 0),
            threshold: (0, 0),
            p: 0,
            parts: many(DrawSums::default(), s.vocab.div_ceil(ids) as usize),
        };
        let draw = put("draw", &Answer::Draw(draw), Some(unit), 1);
        let subs = many(DrawSums::default(), ids.div_ceil(part_len(ids)) as usize);
        put(
            "draw part",
            &Answer::DrawPart(subs),
            Some(draw),
            s.vocab.div_ceil(ids).into(),
        );
        nodes
    }

    /// The accusations that open most, by what they are about, with the last nodes that must be published for them.
    fn accusations(self, prompt: u64) -> Vec<Accused> {
        let s = self.0;
        let at = At {
            pos: 0,
            site: 0,
            element: 0,
        };
        let (k, vocab) = (s.k(), u64::from(s.vocab));
        // Inputs have two planes, residual rows 32 bits.
        let (quantised, wide) = (2 * u64::from(k), 4 * u64::from(k));
        let head = u64::from(s.head_dim);
        let kv = kv_row_len(s.kv_heads as usize, s.head_dim as usize) as u64;
        let key = KeyOpening {
            key: 0,
            kv: KvOpening {
                token: TokenOpening {
                    node: TokenNode {
                        body: [0; 32],
                        sampled: Some(0),
                    },
                    proof: path(s.positions.into()),
                },
                layer: LayerOpening {
                    rows: LayerRows {
                        kv: [0; 32],
                        out: Some([0; 32]),
                    },
                    proof: path(s.layers.into()),
                },
                range: range(kv, 2 * (head + 4)),
            },
            q: self.input(quantised, 2 * head),
            q_scale: range(4 * u64::from(s.heads), 4),
        };
        let one_head = || {
            Box::new(HeadOpening {
                data: self.input(u64::from(s.kv_heads) * head, head),
                scale: range(4 * u64::from(s.kv_heads), 4),
            })
        };
        let embed = Accusation::Embed {
            at,
            id: Some(range(4 * prompt, 4)),
            w: self.weights(s.vocab, s.d_model, 1),
            w_scale: self.tensor((s.vocab, 1), 4, 4),
        };
        let linear = Accusation::LinearPart {
            at,
            part: 0,
            x: self.input(quantised, 512),
            w: self.weights(s.vocab.max(k), k, 256),
        };
        let quant = Accusation::QuantElement {
            at,
            block: self.input(wide, 2_048),
        };
        let norm = Accusation::NormElement {
            at,
            x: self.input(wide, 4),
            gain: self.tensor((1, k), 4, 4),
            bias: Some(self.tensor((1, k), 4, 4)),
        };
        let ids = Accusation::DrawIds {
            pos: 0,
            part: 0,
            sub: 0,
            logits: self.input(4 * vocab, 16),
        };
        let greedy = Accusation::GreedyExceeded {
            pos: 0,
            id: 0,
            sampled: self.input(4 * vocab, 4),
            better: range(4 * vocab, 4),
        };
        let two = Accusation::Elementwise {
            at,
            x: self.input(wide, 4),
            y: Some(self.input(wide, 4)),
        };
        let pair = Accusation::Rope {
            at,
            pair: self.input(wide, 4 * head),
            table: self.tensor((s.positions, s.head_dim), 2, 2 * head),
        };
        let element = if pair.size() > two.size() { pair } else { two };
        let record = Accusation::Record {
            at,
            k: one_head(),
            v: one_head(),
        };
        let model = Accusation::Model(ModelFault::Row {
            site: 0,
            row: 0,
            w: self.weights(s.vocab.max(k), k, k),
        });
        let key = Accusation::Key {
            at,
            key: Box::new(key),
        };
        let accused = |about, ends, accusation| Accused {
            about,
            ends,
            accusation,
        };
        vec![
            accused("linear", &["sum"], linear),
            accused("attention", &["key part"], key),
            // Maxima are asked for beside the piece that holds the element.
            accused("quantisation", &["piece", "group"], quant),
            accused("norm", &["piece", "norm"], norm),
            accused("sum, unit, pair", &["piece"], element),
            accused("cached row", &["piece"], record),
            accused("embedding of the prompt", &["piece"], embed),
            accused("random token", &["draw part"], ids),
            accused("greedy token", &["unit"], greedy),
            accused("the model itself", &[], model),
        ]
    }

    /// Every way down, each with all that it can take. `outputs` ids are told again when the game is opened, one of
    /// `prompt` ids is opened where an embedding of the prompt is accused.
    pub fn ways(self, prompt: u64, outputs: u64) -> Vec<Way> {
        let nodes = self.nodes();
        let open = inscribe::alone(inscribe::open(outputs));
        let ask = inscribe::alone(inscribe::ask());
        let way = |Accused {
                       about,
                       ends,
                       accusation,
                   }| {
            let mut asked = many(false, nodes.len());
            for end in ends {
                let mut next = nodes.iter().position(|n| n.what == *end);
                while let Some(i) = next {
                    asked[i] = true;
                    next = nodes[i].above;
                }
            }
            let (mut rounds, mut answers, mut neuron_vbytes) = (0, 0, 0);
            for (node, _) in nodes.iter().zip(&asked).filter(|(_, asked)| **asked) {
                rounds += 1;
                answers += node.bytes;
                neuron_vbytes += inscribe::alone(inscribe::answer(node.bytes));
            }
            let accusation = accusation.size() as u64;
            Way {
                about,
                rounds,
                answers,
                accusation,
                challenger_vbytes: open + rounds * ask + inscribe::alone(inscribe::accuse(accusation)),
                neuron_vbytes,
            }
        };
        self.accusations(prompt).into_iter().map(way).collect()
    }

    /// Bytes of the longest row: logits or an inner one, 32 bits each. No model here has a longer cached row.
    fn longest(self) -> u64 {
        u64::from(self.0.vocab.max(self.0.k())) * 4
    }

    /// Bytes that the contract's bond pays for.
    pub fn bond_bytes(self) -> u64 {
        ANSWER_BYTES + slice::piece_len(self.longest()) + MOVE_BYTES + 103 + 97 * u64::from(self.0.layers)
    }

    /// The worst that the asks of one game can demand, over every choice of nodes that the tree allows.
    pub fn griefing(self, outputs: u64) -> Griefing {
        let nodes = self.nodes();
        let cost: Vec<u64> = nodes
            .iter()
            .map(|n| inscribe::alone(inscribe::answer(n.bytes)))
            .collect();
        let mut taken = many(0, nodes.len());
        let (neuron_vbytes, bytes) = dearest(&nodes, &cost, &mut taken, 0, ASKS_MAX);
        let asks = u64::from(ASKS_MAX) * inscribe::alone(inscribe::ask());
        Griefing {
            neuron_vbytes,
            bytes,
            challenger_vbytes: inscribe::alone(inscribe::open(outputs)) + asks,
            bond_vbytes: self.bond_bytes() / 4,
        }
    }
}

/// The dearest answers that `left` asks for nodes from `at` on can demand: virtual bytes, then bytes.
fn dearest(nodes: &[Node], cost: &[u64], taken: &mut [u32], at: usize, left: u32) -> (u64, u64) {
    let Some(node) = nodes.get(at) else {
        return (0, 0);
    };
    let room = match node.above {
        None => 1,
        Some(above) => u64::from(taken[above]) * node.width,
    };
    let most = u32::try_from(room).map_or(left, |room| left.min(room));
    let mut best = (0, 0);
    for n in 0..=most {
        taken[at] = n;
        let rest = dearest(nodes, cost, taken, at + 1, left - n);
        let n = u64::from(n);
        best = best.max((rest.0 + n * cost[at], rest.1 + n * node.bytes));
    }
    taken[at] = 0;
    best
}

#[cfg(test)]
mod tests;
