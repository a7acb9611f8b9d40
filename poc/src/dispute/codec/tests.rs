//! Every move survives its bytes; every other spelling is refused, each for its own reason.

use bitai_kernels::DType;
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    dispute::{
        inner::{Side, SiteCommit},
        keys::{KeyShare, KeySums, KeysAnswer, KvSide},
        leaf_model::ModelFault,
        msg::{
            Accusation, Answer, Ask, At, CommitOpening, DrawAnswer, DrawFault, DrawSums, GroupAnswer,
            HeadOpening, InputOpening, KeyOpening, Max, NormAnswer,
        },
    },
    merkle::MerkleProof,
    model_root::{LineOpening, TensorLine, TensorOpening, WeightOpening},
    opening::{KvOpening, LayerOpening, LayerRows, RangeOpening, TokenNode, TokenOpening},
    slice::SliceProof,
};

type W = [u32; 4];

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Data), Just(Side::Scales)]
}

fn an_ask() -> impl Strategy<Value = Ask> {
    (0u8..12, any::<W>(), side()).prop_map(|(kind, [pos, b, c, d], side)| match kind {
        0 => Ask::Tokens {
            height: pos,
            index: b,
        },
        1 => Ask::Token { pos },
        2 => Ask::Unit { pos, unit: b },
        3 => Ask::Row { pos, site: b, side },
        4 => Ask::Piece {
            pos,
            site: b,
            side,
            index: d,
        },
        5 => Ask::Sum {
            pos,
            site: b,
            element: c,
        },
        6 => Ask::Keys {
            pos,
            site: b,
            element: c,
        },
        7 => Ask::KeyPart {
            pos,
            site: b,
            element: c,
            part: d,
        },
        8 => Ask::Group {
            pos,
            site: b,
            group: c,
        },
        9 => Ask::Draw { pos },
        10 => Ask::DrawPart { pos, part: b },
        _ => Ask::Norm {
            pos,
            site: b,
            group: c,
        },
    })
}

fn hashes() -> impl Strategy<Value = Vec<Hash>> {
    vec(any::<Hash>(), 0..5)
}

fn commit() -> impl Strategy<Value = SiteCommit> {
    prop_oneof![
        any::<Hash>().prop_map(SiteCommit::Acts),
        any::<[Hash; 2]>().prop_map(|[data, scales]| SiteCommit::Quant { data, scales }),
        any::<Hash>().prop_map(SiteCommit::Kv),
        any::<u32>().prop_map(SiteCommit::Token),
    ]
}

fn rows() -> impl Strategy<Value = LayerRows> {
    (any::<Hash>(), any::<Option<Hash>>()).prop_map(|(kv, out)| LayerRows { kv, out })
}

fn node() -> impl Strategy<Value = TokenNode> {
    (any::<Hash>(), any::<Option<u32>>()).prop_map(|(body, sampled)| TokenNode { body, sampled })
}

fn sums() -> impl Strategy<Value = Vec<DrawSums>> {
    let one = any::<(u32, u64, u32, u64, u64)>().prop_map(|(k_count, k_mass, count, mass, below)| DrawSums {
        k_count,
        k_mass,
        count,
        mass,
        below,
    });
    vec(one, 0..4)
}

fn max<T: Copy>((value, at): (T, u32)) -> Max<T> {
    Max { value, at }
}

fn an_answer() -> impl Strategy<Value = (AnswerKind, Answer)> {
    use AnswerKind as K;
    let token = (node(), vec(rows(), 0..4), hashes()).prop_map(|(node, layers, units)| Answer::Token {
        node,
        layers,
        units,
    });
    let unit = || any::<Option<(i16, u32)>>().prop_map(|u| u.map(max));
    let parts = vec(any::<(i64, u64)>().prop_map(|(acc, z)| KeySums { acc, z }), 0..4);
    let keys =
        (unit(), unit(), any::<(i32, u32)>(), parts).prop_map(|(k_unit, v_unit, m, parts)| KeysAnswer {
            k_unit,
            v_unit,
            max: max(m),
            parts,
        });
    let share = any::<(u32, u32, i8)>().prop_map(|(exp, weight, value)| KeyShare { exp, weight, value });
    let draw = (
        any::<(i32, u32)>(),
        any::<[(u32, u32); 2]>(),
        any::<u32>(),
        sums(),
    )
        .prop_map(|(m, [k_threshold, threshold], p, parts)| DrawAnswer {
            max: max(m),
            k_threshold,
            threshold,
            p,
            parts,
        });
    let norm = (
        vec(any::<i64>(), 0..4),
        any::<(u64, u32)>(),
        vec(any::<u64>(), 0..4),
    )
        .prop_map(|(sums, m, squares)| NormAnswer {
            sums,
            max: max(m),
            squares,
        });
    prop_oneof![
        hashes().prop_map(|h| (K::Tokens, Answer::Tokens(h))),
        token.prop_map(|t| (K::Token, t)),
        vec(commit(), 0..5).prop_map(|c| (K::Unit, Answer::Unit(c))),
        hashes().prop_map(|h| (K::Row, Answer::Row(h))),
        vec(any::<u8>(), 0..99).prop_map(|b| (K::Piece, Answer::Piece(b))),
        vec(any::<i64>(), 0..5).prop_map(|p| (K::Sum, Answer::Sum(p))),
        keys.prop_map(|a| (K::Keys, Answer::Keys(a))),
        vec(share, 0..5).prop_map(|s| (K::KeyPart, Answer::KeyPart(s))),
        any::<[(u32, u32); 2]>().prop_map(|[raw, top]| {
            let (raw, max) = (max(raw), max(top));
            (K::Group, Answer::Group(GroupAnswer { raw, max }))
        }),
        draw.prop_map(|d| (K::Draw, Answer::Draw(d))),
        sums().prop_map(|s| (K::DrawPart, Answer::DrawPart(s))),
        norm.prop_map(|n| (K::Norm, Answer::Norm(n))),
    ]
}

fn range() -> impl Strategy<Value = RangeOpening> {
    let slice =
        (vec(any::<u8>(), 0..40), hashes()).prop_map(|(bytes, siblings)| SliceProof { bytes, siblings });
    vec(slice, 0..3).prop_map(RangeOpening)
}

fn path() -> impl Strategy<Value = MerkleProof> {
    hashes().prop_map(MerkleProof)
}

fn input() -> impl Strategy<Value = InputOpening> {
    let site = (commit(), option::of(path())).prop_map(|(commit, proof)| CommitOpening { commit, proof });
    (site, range()).prop_map(|(site, range)| InputOpening { site, range })
}

fn tensor() -> impl Strategy<Value = TensorOpening> {
    let types = [DType::I8, DType::U8, DType::I16, DType::I32, DType::Scale];
    let line = (".{0,9}", 0usize..5, any::<[u64; 2]>(), any::<Hash>()).prop_map(
        move |(name, t, [rows, cols], hash)| TensorLine {
            name,
            dtype: types[t],
            rows,
            cols,
            hash,
        },
    );
    (line, path(), path(), range()).prop_map(|(line, proof, branch, range)| TensorOpening {
        at: LineOpening { line, proof, branch },
        range,
    })
}

fn weights() -> impl Strategy<Value = WeightOpening> {
    (tensor(), option::of(tensor())).prop_map(|(q, mult)| WeightOpening { q, mult })
}

fn key() -> impl Strategy<Value = Box<KeyOpening>> {
    let kv = (node(), path(), rows(), path(), range()).prop_map(|(node, a, rows, b, range)| KvOpening {
        token: TokenOpening { node, proof: a },
        layer: LayerOpening { rows, proof: b },
        range,
    });
    (any::<u32>(), kv, input(), range())
        .prop_map(|(key, kv, q, q_scale)| Box::new(KeyOpening { key, kv, q, q_scale }))
}

fn an_accusation() -> BoxedStrategy<Accusation> {
    use Accusation as A;
    let at = || any::<[u32; 3]>().prop_map(|[pos, site, element]| At { pos, site, element });
    let kv = || prop_oneof![Just(KvSide::K), Just(KvSide::V)];
    let faults = [
        DrawFault::MaxNotAttained,
        DrawFault::MaxExceeded,
        DrawFault::Threshold,
        DrawFault::Sampled,
    ];
    let head = || (input(), range()).prop_map(|(data, scale)| Box::new(HeadOpening { data, scale }));
    let linear = prop_oneof![
        (at(), any::<u32>(), input(), weights()).prop_map(|(at, part, x, w)| A::LinearPart {
            at,
            part,
            x,
            w
        }),
        (at(), input(), tensor(), option::of(tensor())).prop_map(|(at, x_scales, w_scale, bias)| {
            A::LinearFinish {
                at,
                x_scales,
                w_scale,
                bias,
            }
        }),
        (at(), option::of(range()), weights(), tensor()).prop_map(|(at, id, w, w_scale)| A::Embed {
            at,
            id,
            w,
            w_scale
        }),
    ];
    let keys = prop_oneof![
        (at(), key()).prop_map(|(at, key)| A::Key { at, key }),
        (at(), key()).prop_map(|(at, key)| A::MaxNotAttained { at, key }),
        (at(), key()).prop_map(|(at, key)| A::MaxExceeded { at, key }),
        (at(), kv(), key()).prop_map(|(at, side, key)| A::UnitNotAttained { at, side, key }),
        (at(), kv(), key()).prop_map(|(at, side, key)| A::UnitExceeded { at, side, key }),
    ];
    let groups = prop_oneof![
        (at(), any::<bool>(), input()).prop_map(|(at, raw, block)| A::AbsMaxNotAttained { at, raw, block }),
        (at(), any::<bool>(), input()).prop_map(|(at, raw, block)| A::AbsMaxExceeded { at, raw, block }),
        at().prop_map(|at| A::GroupScale { at }),
        (at(), input()).prop_map(|(at, block)| A::QuantElement { at, block }),
    ];
    let samples = prop_oneof![
        (any::<[u32; 2]>(), input(), range()).prop_map(|([pos, id], sampled, better)| A::GreedyExceeded {
            pos,
            id,
            sampled,
            better,
        }),
        (any::<[u32; 2]>(), 0usize..4, input()).prop_map(move |([pos, id], f, logit)| A::DrawHead {
            pos,
            what: faults[f],
            id,
            logit,
        }),
        (any::<[u32; 3]>(), input()).prop_map(|([pos, part, sub], logits)| A::DrawIds {
            pos,
            part,
            sub,
            logits,
        }),
    ];
    let norms = prop_oneof![
        (at(), any::<u32>(), input()).prop_map(|(at, part, x)| A::NormSum { at, part, x }),
        (at(), any::<bool>(), input()).prop_map(|(at, exceeded, x)| A::NormMax { at, exceeded, x }),
        (at(), any::<u32>(), input()).prop_map(|(at, part, x)| A::NormSquares { at, part, x }),
        (at(), input(), tensor(), option::of(tensor())).prop_map(|(at, x, gain, bias)| A::NormElement {
            at,
            x,
            gain,
            bias
        }),
    ];
    let rest = prop_oneof![
        (any::<[u32; 2]>(), input()).prop_map(|([pos, site], i)| {
            let input = i.site;
            A::Out { pos, site, input }
        }),
        (at(), input(), option::of(input())).prop_map(|(at, x, y)| A::Elementwise { at, x, y }),
        (at(), input(), tensor()).prop_map(|(at, pair, table)| A::Rope { at, pair, table }),
        (at(), head(), head()).prop_map(|(at, k, v)| A::Record { at, k, v }),
        (any::<[u32; 2]>(), tensor()).prop_map(|([site, id], t)| {
            let line = t.at;
            A::Model(ModelFault::Shape { site, id, line })
        }),
        (any::<[u32; 2]>(), weights()).prop_map(|([site, row], w)| A::Model(ModelFault::Row {
            site,
            row,
            w
        })),
    ];
    prop_oneof![linear, keys, groups, samples, norms, rest].boxed()
}

proptest! {
    #[test]
    fn asks_survive_their_bytes(ask in an_ask(), to: Hash) {
        prop_assert_eq!(Ask::decode(&ask.encode(&to)), Ok((to, ask)));
    }

    #[test]
    fn answers_survive_their_bytes((kind, answer) in an_answer(), to: Hash) {
        let bytes = answer.encode(&to).unwrap();
        prop_assert_eq!(bytes.len(), answer.size());
        prop_assert_eq!(Answer::decode(kind, &bytes), Ok((to, answer)));
    }

    #[test]
    fn accusations_survive_their_bytes(accusation in an_accusation(), to: Hash) {
        let bytes = accusation.encode(&to).unwrap();
        prop_assert_eq!(bytes.len(), accusation.size());
        let text = format!("{accusation:?}");
        prop_assert_eq!(text.split([' ', '(']).next(), Some(accusation.name()));
        prop_assert_eq!(Accusation::decode(&bytes), Ok((to, accusation)));
    }

    // Whatever the bytes, a reader that takes them gives what is written as exactly those bytes.
    #[test]
    fn a_changed_cut_or_longer_move_has_no_second_spelling(
        accusation in an_accusation(), (kind, answer) in an_answer(), ask in an_ask(),
        cut in any::<usize>(), at in any::<usize>(), bit in 0u8..8, more: bool,
    ) {
        let to = [7; 32];
        let spoil = |mut b: Vec<u8>| {
            if more { b.push(bit) } else if bit == 0 { b.truncate(cut % b.len()) } else {
                let i = at % b.len();
                b[i] ^= 1 << bit;
            }
            b
        };
        let b = spoil(ask.encode(&to).to_vec());
        if let Ok((to, ask)) = Ask::decode(&b) { prop_assert_eq!(ask.encode(&to).to_vec(), b); }
        let b = spoil(answer.encode(&to).unwrap());
        if let Ok((to, a)) = Answer::decode(kind, &b) { prop_assert_eq!(a.encode(&to).unwrap(), b); }
        let b = spoil(accusation.encode(&to).unwrap());
        if let Ok((to, a)) = Accusation::decode(&b) { prop_assert_eq!(a.encode(&to).unwrap(), b); }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..300), kind in an_ask()) {
        let _ = Ask::decode(&bytes);
        let _ = Answer::decode(kind.answered_by(), &bytes);
        let _ = Accusation::decode(&bytes);
    }
}

/// An ask of these words.
fn words(words: [u32; 5]) -> Result<(Hash, Ask), CodecError> {
    let mut bytes = vec![0; 32];
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    Ask::decode(&bytes)
}

#[test]
fn rejects_words_that_an_ask_leaves_empty() {
    assert_eq!(
        words([1, 4, 0, 9, 0]),
        Err(CodecError::Unused { index: 3, got: 9 })
    );
}

#[test]
fn rejects_kinds_that_there_are_not() {
    let kind = |what, got| CodecError::Kind { what, got };
    assert_eq!(words([12, 0, 0, 0, 0]), Err(kind("an ask", 12)));
    assert_eq!(words([3, 0, 0, 2, 0]), Err(kind("a row's side", 2)));
    let mut bytes = vec![0; 32];
    bytes.push(99);
    assert_eq!(Accusation::decode(&bytes), Err(kind("an accusation", 99)));
    let unit = Answer::decode(AnswerKind::Unit, &bytes);
    assert_eq!(unit, Err(kind("a commitment", 99)));
}

#[test]
fn rejects_moves_that_are_too_short_too_long_or_ragged() {
    let ask = Ask::Token { pos: 3 }.encode(&[1; 32]);
    let short = Ask::decode(&ask[..50]);
    assert_eq!(
        short,
        Err(CodecError::Short {
            what: "a word of the ask",
            at: 48,
            need: 4,
            left: 2
        })
    );
    let long = [&ask[..], &[0]].concat();
    assert_eq!(Ask::decode(&long), Err(CodecError::Trailing(1)));
    let ragged = Answer::decode(AnswerKind::Sum, &[0; 32 + 7]);
    assert_eq!(
        ragged,
        Err(CodecError::Ragged {
            what: "partial sums",
            len: 7,
            item: 8
        })
    );
}

#[test]
fn rejects_flags_of_two_and_names_that_are_no_text() {
    let mut token = vec![0; 32 + 32];
    token.push(2);
    let flag = Answer::decode(AnswerKind::Token, &token);
    assert_eq!(
        flag,
        Err(CodecError::Flag {
            what: "a sampled id",
            got: 2
        })
    );
    let mut fault = vec![0; 32];
    fault.extend([16, 0, 0, 0, 0, 0, 0, 0, 0]);
    fault.extend([0; 32 + 1 + 16]);
    fault.extend([1, 0, 0xff, 0, 0]);
    assert_eq!(Accusation::decode(&fault), Err(CodecError::Name));
}

#[test]
fn rejects_to_write_what_no_count_can_say() {
    let long = Answer::Token {
        node: TokenNode {
            body: [0; 32],
            sampled: None,
        },
        layers: vec![
            LayerRows {
                kv: [0; 32],
                out: None
            };
            65_536
        ],
        units: vec![],
    };
    let what = "layers";
    assert_eq!(
        long.encode(&[0; 32]),
        Err(CodecError::TooLong { what, len: 65_536 })
    );
}
