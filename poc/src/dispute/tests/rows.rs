//! Ops whose rows are cut down to one element: a lie in any element is convicted by that element, and no accusation of a
//! right one convicts.

use bitai_kernels::rows::{kv_record_len, kv_record_offset};

use super::{
    decoder::LONG,
    fudge::{Lie, play_lie, wrong_element},
    inner::{Side, SiteRow, Units, kv_head_at},
    leaf_norm::NormOp,
    leaf_row::RopePair,
    levels::norm_parts,
    msg::At,
    *,
};

/// What convicts a wrong element of an op that goes element by element, if it does.
fn by(op: &Op) -> Option<&'static str> {
    Some(match op {
        Op::RmsNorm { .. } | Op::LayerNorm { .. } => "a norm",
        Op::Rope { .. } => "a rotary embedding",
        Op::Glu { .. } => "a gated unit",
        Op::Act { .. } => "a unit without a gate",
        Op::Add => "a sum of rows",
        Op::KvAppend { .. } => "a cached row",
        Op::Out => "an out row",
        Op::PosEmbed { .. } => "an embedding of the position",
        Op::Embed { .. } => "an embedding of the job's id",
        _ => return None,
    })
}

/// A player whose row of `site` is wrong at `element`, and so its last committed row or its token.
pub(super) fn wrong(model: &Model, job: &Job, site: u32, pos: u32, element: usize) -> Player<Tampered> {
    let last = model.sites(Some(model.program.layers - 1), "out")[0] as usize;
    let after = model.program.sites[site as usize].layer.is_none() && site as usize > last;
    tampered(model, job, pos, move |rows| {
        match rows.0[site as usize].as_mut().unwrap() {
            SiteRow::Acts(v) => v[element] ^= 1,
            SiteRow::Kv(bytes) => bytes[element] ^= 0x40,
            other => panic!("{other:?}"),
        }
        if after {
            if let Some(SiteRow::Token(id)) = rows.0.last_mut().unwrap() {
                *id = (*id + 1) % VOCAB;
            }
        } else if site as usize != last
            && let Some(SiteRow::Acts(v)) = rows.0[last].as_mut()
        {
            v[0] += 1;
        }
    })
}

/// Bytes or elements of a site's row.
fn len(units: &Units, site: u32) -> usize {
    let side = Side::Data;
    let (all, one) = (units.row_len(site, side), units.element_len(site, side));
    usize::try_from(all.unwrap() / one.unwrap()).unwrap()
}

#[test]
fn convicts_a_lie_in_any_element_by_that_element() {
    let mut seen = std::collections::BTreeSet::new();
    for model in [Model::new(2), Model::second(2)] {
        let job = small(&model, Sampler::GREEDY);
        let units = Units::new(&model.program).unwrap();
        for (site, s) in (0u32..).zip(&model.program.sites) {
            let Some(by) = by(&s.op) else { continue };
            let n = len(&units, site);
            // The ends, and for a cached row a byte of K's scale, of V and of the gap.
            let all = match s.op {
                Op::KvAppend { head_dim: LONG, .. } => vec![258, 300, 700, n - 1],
                Op::Out => vec![n / 2],
                _ if s.layer == Some(0) => vec![0, n - 1],
                _ => vec![n / 2],
            };
            for element in all {
                let mut claim = wrong(&model, &job, site, 11, element);
                let game = challenge(&model, &job, &mut claim);
                assert_eq!(step(&game), Some((true, by)), "{site} {:?}: {game:#?}", s.op);
                // Tokens, the token, its unit, the row, the piece and a norm's sums.
                assert!(game.rounds <= 6, "{}", game.rounds);
            }
            seen.insert(by);
        }
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn convicts_lies_about_a_norm() {
    let attained = "the largest magnitude of a norm's group is attained";
    let bounds = "the largest magnitude of a norm's group bounds every element";
    for model in [Model::new(2), Model::second(2)] {
        let job = small(&model, Sampler::GREEDY);
        for layer in [0, 1] {
            for name in ["rms_norm", "layer_norm"] {
                let Some(site) = model.sites(Some(layer), name).first().copied() else {
                    continue;
                };
                let sum = (Lie::NormSum, "the sum of a part of a norm's group");
                let lies = [
                    (Lie::NormMaxUp, attained),
                    (Lie::NormMaxDown, bounds),
                    (Lie::NormSquares, "the sum of squares of a part of a norm's group"),
                    (Lie::None, "a norm"),
                ];
                for (lie, by) in lies.into_iter().chain((name == "layer_norm").then_some(sum)) {
                    let player = wrong_element(&model, &job, site, 9, 61);
                    let game = play_lie(&model, &job, player, lie);
                    assert_eq!(step(&game), Some((true, by)), "{lie:?}: {game:#?}");
                }
            }
        }
    }
}

/// Publishes all of a site's element, honestly.
fn published(model: &Model, job: &Job, at: At) -> (Judge, Player<RunnerRegen>) {
    let mut asks = honest::down_to(model, at.pos, at.site, at.element);
    if let Some(norm) = NormOp::of(&model.program.sites[at.site as usize].op) {
        asks.push(Ask::Norm {
            pos: at.pos,
            site: at.site,
            group: at.element / norm.group,
        });
    }
    honest::published(model, job, &asks)
}

/// Every accusation that an element of a site admits, with openings that hold.
pub(super) fn accusations(judge: &Judge, player: &mut Player<RunnerRegen>, at: At) -> Vec<Accusation> {
    let op = judge.program().sites[at.site as usize].op.clone();
    let mut open = |i: usize, range| {
        player
            .open_input(judge, (at.pos, at.site, i), Side::Data, range)
            .unwrap()
    };
    let one = at.element..at.element + 1;
    if let Some(norm) = NormOp::of(&op) {
        let group = at.element / norm.group;
        let mut all = vec![];
        for (part, range) in (0u32..).zip(norm_parts(group, norm.group)) {
            let x = open(0, range.clone());
            all.push(Accusation::NormSquares { at, part, x });
            if norm.bias.is_some() {
                let x = open(0, range);
                all.push(Accusation::NormSum { at, part, x });
            }
        }
        let max = judge.published().norms[&(at.pos, at.site, group)].max.at;
        for (exceeded, e) in [(false, max), (true, max), (true, at.element)] {
            let (at, x) = (At { element: e, ..at }, open(0, e..e + 1));
            all.push(Accusation::NormMax { at, exceeded, x });
        }
        let x = open(0, one);
        let i = u64::from(at.element % norm.group);
        let tensor = |id| player.open_tensor(id, i..i + 1).unwrap();
        all.push(Accusation::NormElement {
            at,
            x,
            gain: tensor(norm.gain),
            bias: norm.bias.map(tensor),
        });
        return all;
    }
    vec![match op {
        Op::Act { .. } | Op::Add | Op::Glu { .. } => Accusation::Elementwise {
            at,
            x: open(0, one.clone()),
            y: (!matches!(op, Op::Act { .. })).then(|| open(1, one)),
        },
        Op::Rope {
            table,
            head_dim,
            style,
        } => {
            let pair = RopePair::of(at.element, head_dim, style);
            let row = u64::from(at.pos) * u64::from(head_dim);
            let range = row + u64::from(pair.table.start)..row + u64::from(pair.table.end);
            Accusation::Rope {
                at,
                pair: open(0, pair.elements),
                table: player.open_tensor(table, range).unwrap(),
            }
        }
        Op::KvAppend { head_dim, .. } => {
            let head = (kv_head_at(at.element, head_dim), head_dim);
            let mut side = |i| player.open_head(judge, (at.pos, at.site, i), head).unwrap();
            Accusation::Record {
                at,
                k: side(0),
                v: side(1),
            }
        }
        Op::Out => {
            let (input, _) = player.input(at.pos, at.site, 0).unwrap();
            Accusation::Out {
                pos: at.pos,
                site: at.site,
                input: player.open_commit(judge, at.pos, input).unwrap(),
            }
        }
        Op::Embed { weight, .. } | Op::PosEmbed { weight, .. } => {
            let places = matches!(judge.op(at.site), Ok(Op::PosEmbed { .. }));
            let id = if places {
                at.pos
            } else {
                judge.input_id(at.pos).unwrap()
            };
            let row = u64::from(id);
            Accusation::Embed {
                at,
                id: judge.open_prompt(at).unwrap(),
                w: player
                    .open_weights(&weight, judge.program().d_model, id, one)
                    .unwrap(),
                w_scale: player.open_tensor(weight.scale, row..row + 1).unwrap(),
            }
        }
        _ => return vec![],
    }]
}

#[test]
fn clears_every_accusation_about_an_element() {
    for model in [Model::new(1), Model::second(1)] {
        let job = small(&model, Sampler::GREEDY);
        let units = Units::new(&model.program).unwrap();
        for (site, s) in (0u32..).zip(&model.program.sites) {
            if by(&s.op).is_none() {
                continue;
            }
            let n = u32::try_from(len(&units, site)).unwrap();
            for element in [0, 1, n / 3, n / 2 + 1, n - 1] {
                let pos = 8;
                let at = At { pos, site, element };
                let (judge, mut player) = published(&model, &job, at);
                for accusation in accusations(&judge, &mut player, at) {
                    let mut judge = judge.clone();
                    let verdict = accuse(&mut judge, &accusation);
                    assert!(
                        matches!(verdict, Ok(Verdict::Cleared(Ground::Step(_)))),
                        "{:?} {element}: {verdict:?}",
                        s.op
                    );
                }
            }
        }
    }
}

#[test]
fn rejects_openings_of_other_elements_and_openings_too_many() {
    let model = Model::second(1);
    let job = small(&model, Sampler::GREEDY);
    let none = model.sites(Some(0), "linear")[3];
    for (name, element) in [
        ("embed", 5),
        ("layer_norm", 300),
        ("rms_norm", 300),
        ("act", 5),
        ("add", 300),
        ("rope", 300),
        ("kv_append", 1_100),
    ] {
        let layer = (name != "embed").then_some(0);
        let site = model.sites(layer, name)[0];
        let at = At {
            pos: 8,
            site,
            element,
        };
        let (judge, mut player) = published(&model, &job, at);
        let spare = player.open_input(&judge, (8, none, 0), Side::Data, 0..1).unwrap();
        let gain = player.open_tensor(1, 0..1).unwrap();
        for good in accusations(&judge, &mut player, at) {
            // Something of each is another's: a chunk, a side, or an opening that the step does not read.
            let mut bad = good.clone();
            match &mut bad {
                Accusation::NormSum { part, .. } | Accusation::NormSquares { part, .. } => *part += 2,
                Accusation::NormMax { x, .. } => x.range.0[0].bytes[0] ^= 1,
                Accusation::NormElement { bias, .. } => {
                    *bias = if bias.is_some() { None } else { Some(gain.clone()) };
                }
                Accusation::Elementwise { y, .. } => {
                    *y = if y.is_some() { None } else { Some(spare.clone()) };
                }
                Accusation::Rope { pair, .. } => pair.range.0.push(pair.range.0[0].clone()),
                Accusation::Record { k, v, .. } => std::mem::swap(k, v),
                Accusation::Embed { id, .. } => *id = Some(spare.range.clone()),
                _ => {}
            }
            let mut judge = judge.clone();
            let verdict = accuse(&mut judge, &bad);
            assert!(verdict.is_err(), "{name}: {verdict:?}");
            assert_eq!((judge.convicted(), judge.verdict(WHO)), (None, None));
        }
    }
}

#[test]
fn rejects_a_bias_and_multipliers_that_a_weight_does_not_have() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    // The output projection has neither; the head is grouped.
    let site = model.sites(Some(0), "linear")[3];
    let at = At {
        pos: 8,
        site,
        element: 3,
    };
    let Op::Linear { weight, k, .. } = model.program.sites[site as usize].op else {
        panic!("a linear")
    };
    let mut asks = honest::down_to(&model, 8, site, 3);
    asks.push(Ask::Sum {
        pos: 8,
        site,
        element: 3,
    });
    let (mut judge, mut player) = honest::published(&model, &job, &asks);
    let path = (8, site, 0);
    let mut w = player.open_weights(&weight, k, 3, 0..k).unwrap();
    w.mult = Some(w.q.clone());
    let x = player.open_input(&judge, path, Side::Data, 0..k).unwrap();
    let part = 0;
    let refused = accuse(&mut judge, &Accusation::LinearPart { at, part, x, w });
    assert!(matches!(refused, Err(DisputeError::Kind(_))), "{refused:?}");
    let w_scale = player.open_tensor(weight.scale, 3..4).unwrap();
    let x_scales = player.open_input(&judge, path, Side::Scales, 0..1).unwrap();
    let bias = Some(w_scale.clone());
    let finish = Accusation::LinearFinish {
        at,
        x_scales,
        w_scale,
        bias,
    };
    let refused = accuse(&mut judge, &finish);
    assert!(matches!(refused, Err(DisputeError::Kind(_))), "{refused:?}");
}

#[test]
fn sums_of_any_size_are_published_and_lose() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    let site = model.sites(Some(0), "linear")[6];
    let element = 30;
    let at = At {
        pos: 5,
        site,
        element,
    };
    let asks = honest::down_to(&model, 5, site, element);
    let (mut judge, mut player) = honest::published(&model, &job, &asks);
    let sum = Ask::Sum {
        pos: 5,
        site,
        element,
    };
    let id = super::ask(&mut judge, sum).unwrap();
    // Their total clamps to what 64 bits hold, and no honest element follows from it.
    let parts = vec![i64::MAX, i64::MAX];
    assert_eq!(judge.answer(NEURON, id, Answer::Sum(parts)), Ok(None));
    let Op::Linear { weight, .. } = model.program.sites[site as usize].op else {
        panic!("a linear")
    };
    let one = u64::from(element)..u64::from(element) + 1;
    let finish = Accusation::LinearFinish {
        at,
        x_scales: player
            .open_input(&judge, (5, site, 0), Side::Scales, 0..1)
            .unwrap(),
        w_scale: player.open_tensor(weight.scale, one).unwrap(),
        bias: None,
    };
    let verdict = accuse(&mut judge, &finish);
    let guilty = Verdict::Guilty(Ground::Step("a linear's requantisation"));
    assert_eq!(verdict, Ok(guilty));
}

#[test]
fn an_answer_without_bytes_has_no_id() {
    let rows = crate::opening::LayerRows {
        kv: [0; 32],
        out: None,
    };
    let answer = Answer::Token {
        node: crate::opening::TokenNode {
            body: [0; 32],
            sampled: None,
        },
        layers: vec![rows; 65_536],
        units: vec![],
    };
    let what = "layers";
    let len = 65_536;
    assert_eq!(answer.id(&[0; 32]), Err(CodecError::TooLong { what, len }));
}

#[test]
fn every_byte_of_a_cached_row_is_of_the_head_before_it() {
    for d in [1u32, 2, 16, 64, 124, 125, 252, 253, 508, 509, 1024] {
        for heads in [1usize, 3, 27] {
            let dim = d as usize;
            let row = bitai_kernels::rows::kv_row_len(heads, dim);
            for byte in 0..row {
                let head = kv_head_at(u32::try_from(byte).unwrap(), d) as usize;
                assert!(head < heads);
                assert!(kv_record_offset(head, dim) <= byte);
                let next = kv_record_offset(head + 1, dim);
                assert!(byte < next, "{d} {byte}: behind {}", kv_record_len(dim));
            }
        }
    }
}

#[test]
fn a_rotated_pair_is_the_references() {
    use bitai_kernels::{program::RopeStyle, reference::rope::pair};
    for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
        for d in [2u32, 16, 128] {
            for element in 0..3 * d {
                let found = RopePair::of(element, d, style);
                let (head, i) = (element / d * d, found.table.start);
                let (a, b) = pair(i as usize, d as usize, style);
                let ends = (found.elements.start, found.elements.end - 1);
                assert_eq!(ends, (head + a as u32, head + b as u32));
                assert!(element == ends.0 || element == ends.1);
                assert_eq!(found.table.end - 1, i + d / 2);
            }
        }
    }
}

#[test]
fn rejects_an_embedding_of_a_prompts_id_that_is_not_opened_or_another() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let site = model.sites(None, "embed")[0];
    let at = At {
        pos: 3,
        site,
        element: 5,
    };
    let (judge, mut player) = published(&model, &job, at);
    let [good] = accusations(&judge, &mut player, at).try_into().unwrap();
    let Accusation::Embed {
        id: Some(opened),
        w,
        w_scale,
        ..
    } = good.clone()
    else {
        panic!("{good:?}");
    };
    let mut other = opened;
    other.0[0].bytes[12] ^= 1;
    for id in [None, Some(other)] {
        let bad = Accusation::Embed {
            at,
            id,
            w: w.clone(),
            w_scale: w_scale.clone(),
        };
        let mut judge = judge.clone();
        assert!(accuse(&mut judge, &bad).is_err());
        assert_eq!((judge.convicted(), judge.verdict(WHO)), (None, None));
    }
    let verdict = accuse(&mut judge.clone(), &good);
    assert!(
        matches!(verdict, Ok(Verdict::Cleared(Ground::Step(_)))),
        "{verdict:?}"
    );
}
