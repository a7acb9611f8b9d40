//! An honest defendant is never convicted, whoever challenges and however.

use bitai_kernels::program_check::Shape;
use proptest::prelude::*;

use super::{
    inner::Side,
    levels::quant_block,
    msg::{At, DrawFault, KvSide},
    *,
};

/// A run that is wrong in one integer, where that changes its root.
pub(super) fn liar(
    model: &Model,
    job: &Job,
    outputs: &[u32],
    root: TraceRoot,
    fault: Fault,
) -> Option<Player<RunnerRegen>> {
    let liar = model.recheck(job, outputs, Some(fault));
    (liar.transcript.root().unwrap() != root).then_some(liar)
}

/// A challenger that walks where its own (faulty) run differs, and says whatever it can at the end.
fn attacks(model: &Model, job: &Job, fault: Fault) -> Option<Game> {
    let mut honest = model.decode(job, &job.input_ids, None);
    let outputs = honest.transcript.outputs().to_vec();
    let root = honest.transcript.root().unwrap();
    let liar = liar(model, job, &outputs, root, fault)?;
    let mut judge = model.judge_root(job, &outputs, root);
    Some(play(&mut judge, WHO, &mut Challenger::new(liar), &mut honest))
}

#[test]
fn clears_an_honest_neuron_of_every_kind_of_wrong_challenge() {
    let model = Model::new(2);
    for sampler in [Sampler::GREEDY, random(40, 60_000)] {
        let job = small(&model, sampler);
        let mut seen = vec![];
        for site in 0..u32::try_from(model.program.sites.len()).unwrap() {
            let op = &model.program.sites[site as usize].op;
            if matches!(op, Op::KvAppend { .. } | Op::Out) {
                continue;
            }
            // Most flips vanish in a later quantisation: the first two that change the liar's root play.
            let elements = if matches!(op, Op::Sample { .. }) { 1 } else { 64 };
            let games = (0..elements).filter_map(|element| {
                let fault = Fault {
                    site,
                    position: 8,
                    element,
                };
                attacks(&model, &job, fault)
            });
            for game in games.take(2) {
                assert!(
                    matches!(game.verdict, Verdict::Cleared(_)),
                    "{site} {op:?}: {game:#?}"
                );
                seen.push(op.name());
            }
        }
        seen.sort_unstable();
        seen.dedup();
        // Every op that puts out rows of its own.
        let all = [
            "add",
            "attention",
            "embed",
            "glu",
            "linear",
            "quant",
            "rms_norm",
            "rope",
            "sample",
        ];
        assert_eq!(seen, all);
    }
}

/// Publishes everything about one place, honestly, and gives the judge, the defendant and a challenger.
pub(super) fn published(model: &Model, job: &Job, asks: &[Ask]) -> (Judge, Player<RunnerRegen>) {
    let mut honest = model.decode(job, &job.input_ids, None);
    let outputs = honest.transcript.outputs().to_vec();
    let mut judge = model.judge_root(job, &outputs, honest.transcript.root().unwrap());
    judge.join(WHO).unwrap();
    for (i, ask) in (0u32..).zip(asks) {
        // Others ask, as many as it takes: a game has nine.
        let who = Address::left_padding_from(&(1_000 + i / levels::ASKS_MAX).to_be_bytes());
        if i.is_multiple_of(levels::ASKS_MAX) {
            judge.join(who).unwrap();
        }
        let to = judge.builds_on(ask).unwrap();
        let id = judge.ask(who, to, *ask).unwrap();
        assert_eq!(
            judge.answer(NEURON, id, honest.respond(ask).unwrap()),
            Ok(None),
            "{ask:?}"
        );
    }
    (judge, model.recheck(job, &outputs, None))
}

/// Asks that publish a site's element.
pub(super) fn down_to(model: &Model, pos: u32, site: u32, element: u32) -> Vec<Ask> {
    let units = inner::Units::new(&model.program).unwrap();
    let mut asks = vec![
        Ask::Tokens { height: 4, index: 0 },
        Ask::Token { pos },
        Ask::Unit {
            pos,
            unit: units.unit_of(site).unwrap(),
        },
    ];
    let side = Side::Data;
    if let Some((count, _)) = Published::pieces_of(&units, site, side)
        && count > 1
    {
        asks.push(Ask::Row { pos, site, side });
    }
    if let Some((index, _)) = Published::piece_of(&units, site, side, element) {
        asks.push(Ask::Piece {
            pos,
            site,
            side,
            index,
        });
    }
    asks
}

/// Checks that an accusation about honest numbers counts and clears.
fn clears(mut judge: Judge, accusation: &Accusation) {
    match accuse(&mut judge, accusation) {
        Ok(Verdict::Cleared(Ground::Step(_))) => {}
        other => panic!("{accusation:?}: {other:?}"),
    }
    assert_eq!(judge.convicted(), None);
    assert!(matches!(
        accuse(&mut judge, accusation),
        Err(DisputeError::Seat(_))
    ));
}

#[test]
fn clears_every_accusation_about_an_attention() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for layer in [0, 1] {
        let site = model.sites(Some(layer), "attention")[0];
        let at = At {
            pos: 10,
            site,
            element: 37,
        };
        let At { pos, element, .. } = at;
        let mut asks = down_to(&model, pos, site, element);
        asks.push(Ask::Keys { pos, site, element });
        let parts = if layer == 0 { 11 } else { 5 };
        asks.extend((0..parts).map(|part| Ask::KeyPart {
            pos,
            site,
            element,
            part,
        }));
        let lo = if layer == 0 { 0 } else { 6 };
        for j in lo..=pos {
            let make = |f: &dyn Fn(Box<msg::KeyOpening>) -> Accusation| {
                let (judge, mut player) = published(&model, &job, &asks);
                let key = Box::new(player.open_key(&judge, at, j).unwrap());
                clears(judge, &f(key));
            };
            make(&|key| Accusation::Key { at, key });
            make(&|key| Accusation::MaxExceeded { at, key });
            for side in [KvSide::K, KvSide::V] {
                make(&|key| Accusation::UnitExceeded { at, side, key });
            }
        }
        let (judge, mut player) = published(&model, &job, &asks);
        let keys = judge.published().keys[&at].clone();
        let key = Box::new(player.open_key(&judge, at, keys.max.at).unwrap());
        clears(judge, &Accusation::MaxNotAttained { at, key });
        for side in [KvSide::K, KvSide::V] {
            let (judge, mut player) = published(&model, &job, &asks);
            let key = Box::new(player.open_key(&judge, at, keys.unit(side).unwrap().at).unwrap());
            clears(judge, &Accusation::UnitNotAttained { at, side, key });
        }
        if layer == 1 {
            // A key outside the window cannot even be named.
            let (mut judge, mut player) = published(&model, &job, &asks);
            let key = Box::new(player.open_key(&judge, at, 5).unwrap());
            let accusation = Accusation::MaxExceeded { at, key };
            assert!(matches!(
                accuse(&mut judge, &accusation),
                Err(DisputeError::Range { .. })
            ));
        }
    }
}

#[test]
fn clears_every_accusation_about_a_quantised_group() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for site in [model.sites(Some(1), "quant"), model.sites(Some(0), "quant")].concat() {
        let Some(Shape::Quant { group, .. }) = inner::Units::new(&model.program).unwrap().shape(site) else {
            panic!("a quantisation")
        };
        let Op::Quant { wht, .. } = model.program.sites[site as usize].op else {
            panic!()
        };
        let (pos, element) = (6, 13);
        let mut asks = down_to(&model, pos, site, element);
        asks.push(Ask::Group { pos, site, group: 0 });
        asks.push(Ask::Piece {
            pos,
            site,
            side: Side::Scales,
            index: 0,
        });
        let at = |element| At { pos, site, element };
        let wht = u32::from(wht);
        let block = |judge: &Judge, player: &mut Player<RunnerRegen>, e: u32| {
            let range = quant_block(e, wht);
            player
                .open_input(judge, (pos, site, 0), Side::Data, range)
                .unwrap()
        };
        for raw in [true, false] {
            for e in 0..group.min(16) {
                let (judge, mut player) = published(&model, &job, &asks);
                let block = block(&judge, &mut player, e);
                clears(
                    judge,
                    &Accusation::AbsMaxExceeded {
                        at: at(e),
                        raw,
                        block,
                    },
                );
            }
            let (judge, mut player) = published(&model, &job, &asks);
            let g = judge.published().groups[&(pos, site, 0)];
            let e = if raw { g.raw.at } else { g.max.at };
            let block = block(&judge, &mut player, e);
            clears(
                judge,
                &Accusation::AbsMaxNotAttained {
                    at: at(0),
                    raw,
                    block,
                },
            );
        }
        let (judge, mut player) = published(&model, &job, &asks);
        let open = block(&judge, &mut player, element);
        clears(
            judge,
            &Accusation::QuantElement {
                at: at(element),
                block: open,
            },
        );
        let (judge, _) = published(&model, &job, &asks);
        clears(judge, &Accusation::GroupScale { at: at(0) });
    }
}

#[test]
fn clears_every_accusation_about_a_linear() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for site in [model.sites(Some(1), "linear"), model.sites(None, "linear")].concat() {
        let Op::Linear {
            weight,
            k,
            k_segments,
            ..
        } = model.program.sites[site as usize].op
        else {
            panic!()
        };
        let (pos, element) = (7, 31);
        let at = At { pos, site, element };
        let mut asks = down_to(&model, pos, site, element);
        asks.push(Ask::Sum { pos, site, element });
        for (part, range) in (0u32..).zip(levels::linear_parts(k, k_segments.into())) {
            let (judge, mut player) = published(&model, &job, &asks);
            let x = player
                .open_input(&judge, (pos, site, 0), Side::Data, range.clone())
                .unwrap();
            let w = player.open_weights(&weight, k, element, range).unwrap();
            clears(judge, &Accusation::LinearPart { at, part, x, w });
        }
        let (judge, mut player) = published(&model, &job, &asks);
        let one = u64::from(element)..u64::from(element) + 1;
        let path = (pos, site, 0);
        let accusation = Accusation::LinearFinish {
            at,
            x_scales: player
                .open_input(&judge, path, Side::Scales, 0..k_segments.into())
                .unwrap(),
            w_scale: player.open_tensor(weight.scale, one.clone()).unwrap(),
            bias: weight.bias.map(|id| player.open_tensor(id, one).unwrap()),
        };
        clears(judge, &accusation);
    }
}

#[test]
fn clears_every_accusation_about_a_sampled_token() {
    let model = Model::new(1);
    let site = model.sites(None, "sample")[0];
    let pos = 9;
    let job = small(&model, Sampler::GREEDY);
    let asks = down_to(&model, pos, site, 0);
    for id in (0..VOCAB).step_by(7) {
        let (judge, mut player) = published(&model, &job, &asks);
        let token = player.transcript.sampled_at(pos).unwrap();
        let path = (pos, site, 0);
        let accusation = Accusation::GreedyExceeded {
            pos,
            id,
            sampled: player
                .open_input(&judge, path, Side::Data, token..token + 1)
                .unwrap(),
            better: player.open_more(path, id).unwrap(),
        };
        clears(judge, &accusation);
    }
    for sampler in [
        random(0, 65_536),
        random(40, 60_000),
        random(5, 65_536),
        random(0, 30_000),
        random(1, 1),
    ] {
        let job = small(&model, sampler);
        let mut asks = asks.clone();
        asks.push(Ask::Draw { pos });
        let parts = VOCAB.div_ceil(levels::part_len(VOCAB));
        asks.extend((0..parts).step_by(10).map(|part| Ask::DrawPart { pos, part }));
        let (judge, player) = published(&model, &job, &asks);
        let head = judge.published().draws[&pos].clone();
        let token = player.transcript.sampled_at(pos).unwrap();
        for (what, id) in [
            (DrawFault::MaxNotAttained, head.max.at),
            (DrawFault::MaxExceeded, 3),
            (DrawFault::Threshold, head.threshold.1),
            (DrawFault::Sampled, token),
        ] {
            let (judge, mut player) = published(&model, &job, &asks);
            let logit = player
                .open_input(&judge, (pos, site, 0), Side::Data, id..id + 1)
                .unwrap();
            clears(judge, &Accusation::DrawHead { pos, what, id, logit });
        }
        for part in (0..parts).step_by(30) {
            let (judge, mut player) = published(&model, &job, &asks);
            let ids = leaf_draw::draw_sub(VOCAB, part, 0);
            let logits = player
                .open_input(&judge, (pos, site, 0), Side::Data, ids)
                .unwrap();
            clears(
                judge,
                &Accusation::DrawIds {
                    pos,
                    part,
                    sub: 0,
                    logits,
                },
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn one_wrong_integer_convicts_its_maker_and_nobody_else(
        site in any::<u32>(), position in 0u32..12, element in 0usize..32, seed in 0u32..200, draws in any::<bool>(),
    ) {
        let model = Model::new(2);
        let sampler = if draws { random(40, 60_000) } else { Sampler::GREEDY };
        let ids = (0..7).map(|i| (i * 37 + seed) % VOCAB).collect();
        let job = model.job(ids, 6, sampler);
        let site = site % u32::try_from(model.program.sites.len()).unwrap();
        let op = &model.program.sites[site as usize].op;
        prop_assume!(!matches!(op, Op::KvAppend { .. } | Op::Out));
        let element = if matches!(op, Op::Sample { .. }) { 0 } else { element };
        let fault = Fault { site, position, element };
        if let Some(game) = attacks(&model, &job, fault) {
            prop_assert!(matches!(game.verdict, Verdict::Cleared(_)), "{:#?}", game);
        }
        let honest = model.decode(&job, &job.input_ids, None);
        let mut claim = model.decode(&job, &job.input_ids, Some(fault));
        let game = challenge(&model, &job, &mut claim);
        if claim.transcript.root() == honest.transcript.root() {
            prop_assert_eq!(game.verdict, Verdict::Cleared(Ground::Silence));
        } else {
            prop_assert!(matches!(game.verdict, Verdict::Guilty(_)), "{:#?}", game);
        }
    }
}
