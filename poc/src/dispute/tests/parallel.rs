//! Several challengers on one claim: they share what is published and nothing else.

use alloy_primitives::Address;
use proptest::prelude::*;

use super::*;

/// Challenger number `i`.
pub(super) fn who(i: usize) -> Address {
    Address::repeat_byte(u8::try_from(i + 1).unwrap())
}

/// A claim with one wrong integer that changes its root.
pub(super) fn wrong(model: &Model, job: &Job) -> Player<RunnerRegen> {
    let site = model.sites(Some(0), "linear")[3];
    let honest = model.decode(job, &job.input_ids, None).transcript.root();
    (0..64)
        .map(|element| {
            let fault = Fault {
                site,
                position: 4,
                element,
            };
            model.decode(job, &job.input_ids, Some(fault))
        })
        .find(|claim| claim.transcript.root() != honest)
        .unwrap()
}

pub(super) fn judge_of<R: Regenerate>(model: &Model, job: &Job, claim: &Player<R>) -> Judge {
    let root = claim.transcript.root().unwrap();
    model.judge_root(job, claim.transcript.outputs(), root)
}

/// A challenger that its neuron pays: falls silent after some moves of an honest one.
struct Puppet<R>(Challenger<R>, u32);

impl<R: Regenerate> Challenge for Puppet<R> {
    fn next(&mut self, judge: &Judge) -> Move {
        match self.1.checked_sub(1) {
            None => Move::Resign,
            Some(left) => {
                self.1 = left;
                self.0.next(judge)
            }
        }
    }
}

#[test]
fn a_puppets_loss_binds_nobody_else() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let mut claim = wrong(&model, &job);
    let outputs = claim.transcript.outputs().to_vec();
    for moves in 0..4 {
        let mut judge = judge_of(&model, &job, &claim);
        let mut puppet = Puppet(Challenger::new(model.recheck(&job, &outputs, None)), moves);
        let game = play(&mut judge, who(0), &mut puppet, &mut claim);
        assert_eq!(game.verdict, Verdict::Cleared(Ground::Silence));
        assert_eq!((judge.convicted(), judge.verdict(who(1))), (None, None));
        let mut honest = Challenger::new(model.recheck(&job, &outputs, None));
        let game = play(&mut judge, who(1), &mut honest, &mut claim);
        assert!(matches!(game.verdict, Verdict::Guilty(_)), "{game:#?}");
        // The puppet lost before the conviction and stays so.
        assert_eq!(judge.verdict(who(0)), Some(Verdict::Cleared(Ground::Silence)));
        assert_eq!(judge.verdict(who(1)), Some(game.verdict));
    }
}

#[test]
fn a_published_node_serves_everyone() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let mut claim = wrong(&model, &job);
    let outputs = claim.transcript.outputs().to_vec();
    let alone = challenge(&model, &job, &mut claim);
    let mut judge = judge_of(&model, &job, &claim);
    let mut puppet = Puppet(Challenger::new(model.recheck(&job, &outputs, None)), alone.rounds);
    let first = play(&mut judge, who(0), &mut puppet, &mut claim);
    let mut honest = Challenger::new(model.recheck(&job, &outputs, None));
    let second = play(&mut judge, who(1), &mut honest, &mut claim);
    assert_eq!((first.rounds, second.rounds), (alone.rounds, 0));
    assert_eq!(second.verdict, alone.verdict);

    // Two who wait for one node are answered at once, and its silence convicts for both.
    let mut judge = judge_of(&model, &job, &claim);
    let first = Ask::Tokens { height: 4, index: 0 };
    let to = judge.id();
    for i in 0..2 {
        judge.join(who(i)).unwrap();
    }
    let id = judge.ask(who(0), to, first).unwrap();
    assert_eq!(judge.ask(who(1), to, first), Ok(id));
    assert_eq!(judge.owed().collect::<Vec<_>>(), [(id, first)]);
    let mut silent = judge_of(&model, &job, &claim);
    silent.join(who(0)).unwrap();
    silent.ask(who(0), to, first).unwrap();
    assert_eq!(silent.timeout(who(0)), Ok(Verdict::Guilty(Ground::Silence)));
    assert_eq!(
        judge.answer(NEURON, id, claim.respond(&first).unwrap()),
        Ok(None),
        "one answer for both"
    );
    assert_eq!(judge.owed().count(), 0);
    assert_eq!(judge.timeout(who(1)), Ok(Verdict::Cleared(Ground::Silence)));
    assert_eq!(judge.verdict(who(0)), None);
}

#[test]
fn rejects_an_answer_that_is_not_the_neurons_own() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let mut claim = model.decode(&job, &job.input_ids, None);
    let mut judge = judge_of(&model, &job, &claim);
    judge.join(who(0)).unwrap();
    let first = Ask::Tokens { height: 4, index: 0 };
    let id = judge.ask(who(0), judge.id(), first).unwrap();
    let answer = claim.respond(&first).unwrap();
    for from in [who(0), who(1), Address::ZERO] {
        let refused = judge.answer(from, id, answer.clone());
        assert!(matches!(refused, Err(DisputeError::Seat(_))), "{refused:?}");
    }
    assert_eq!(judge.owed().count(), 1);
    assert_eq!(judge.answer(NEURON, id, answer), Ok(None));
}

#[test]
fn rejects_moves_of_who_has_no_game_and_games_after_the_window() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let claim = wrong(&model, &job);
    let mut judge = judge_of(&model, &job, &claim);
    let (to, first) = (judge.id(), Ask::Tokens { height: 4, index: 0 });
    let refused = |r: Result<_, DisputeError>| matches!(r, Err(DisputeError::Seat(_)));
    assert!(refused(judge.ask(who(0), to, first).map(|_| ())));
    assert!(refused(judge.timeout(who(0)).map(|_| ())));
    judge.join(who(0)).unwrap();
    judge.join(who(1)).unwrap();
    assert!(refused(judge.join(who(0))));
    judge.timeout(who(0)).unwrap();
    assert!(refused(judge.ask(who(0), to, first).map(|_| ())));
    assert!(refused(judge.join(who(0))), "a loser comes back");
    judge.close_window();
    assert!(refused(judge.join(who(2))));
    assert!(!judge.stands(), "a game goes on");
    // What only a loser waited for is owed no more.
    judge.ask(who(1), to, first).unwrap();
    assert_eq!(judge.owed().count(), 1);
    judge.clear(who(1), Ground::Silence);
    assert_eq!(judge.owed().count(), 0);
    assert!(judge.stands());
}

#[test]
fn a_conviction_ends_every_game() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let mut claim = wrong(&model, &job);
    let mut judge = judge_of(&model, &job, &claim);
    judge.join(who(0)).unwrap();
    let mut honest = Challenger::new(model.recheck(&job, claim.transcript.outputs(), None));
    let game = play(&mut judge, who(1), &mut honest, &mut claim);
    assert_eq!(judge.verdict(who(0)), Some(game.verdict));
    assert_eq!(judge.timeout(who(0)), Err(DisputeError::Decided));
    assert_eq!(judge.join(who(2)), Err(DisputeError::Decided));
    assert_eq!(judge.owed().count(), 0);
    judge.close_window();
    assert!(!judge.stands());
}

/// Asks for nodes at random, and at last accuses nothing.
pub(super) struct Nuisance {
    pub(super) seed: u64,
    pub(super) left: u32,
}

impl Nuisance {
    fn draw(&mut self, n: u32) -> u32 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u32::try_from(self.seed >> 33).unwrap() % n
    }

    fn ask(&mut self, judge: &Judge) -> Ask {
        let pos = self.draw(12);
        let (site, element) = (
            self.draw(u32::try_from(judge.program().sites.len()).unwrap()),
            self.draw(64),
        );
        let side = if self.draw(2) == 0 {
            inner::Side::Data
        } else {
            inner::Side::Scales
        };
        let index = self.draw(3);
        match self.draw(11) {
            0 => Ask::Tokens { height: 4, index: 0 },
            1 | 2 => Ask::Token { pos },
            3 => Ask::Unit { pos, unit: index },
            4 => Ask::Row { pos, site, side },
            5 => Ask::Piece {
                pos,
                site,
                side,
                index,
            },
            6 => Ask::Sum { pos, site, element },
            7 => Ask::Keys { pos, site, element },
            8 => Ask::Group { pos, site, group: 0 },
            9 => Ask::Draw { pos },
            _ => Ask::DrawPart { pos, part: index },
        }
    }
}

impl Challenge for Nuisance {
    fn next(&mut self, judge: &Judge) -> Move {
        while let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            let ask = self.ask(judge);
            let Ok(to) = judge.builds_on(&ask) else { continue };
            // Only what the judge takes: a refused ask would end this game early.
            let mut trial = Judge::clone(judge);
            let taker = Address::repeat_byte(0xff);
            if trial.join(taker).is_ok() && trial.ask(taker, to, ask).is_ok() {
                return Move::Ask { to, ask };
            }
        }
        Move::Resign
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_honest_player_loses_in_any_interleaving_of_games(
        is_wrong in any::<bool>(),
        kinds in prop::collection::vec(0u32..4, 1..5),
        picks in prop::collection::vec(any::<usize>(), 1..60),
        seed in any::<u64>(),
        draws in any::<bool>(),
    ) {
        let model = Model::new(1);
        let sampler = if draws { random(40, 60_000) } else { Sampler::GREEDY };
        let job = small(&model, sampler);
        let mut claim = if is_wrong {
            wrong(&model, &job)
        } else {
            model.decode(&job, &job.input_ids, None)
        };
        let outputs = claim.transcript.outputs().to_vec();
        let mut judge = judge_of(&model, &job, &claim);
        let fault = Fault {
            site: model.sites(Some(0), "quant")[0],
            position: 3,
            element: usize::try_from(seed % 30).unwrap(),
        };
        let mut players: Vec<Box<dyn Challenge>> = kinds
            .iter()
            .map(|kind| -> Box<dyn Challenge> {
                let run = |fault| Challenger::new(model.recheck(&job, &outputs, fault));
                match kind {
                    0 => Box::new(run(None)),
                    1 => Box::new(run(Some(fault))),
                    2 => Box::new(Puppet(run(None), u32::try_from(seed % 6).unwrap())),
                    _ => Box::new(Nuisance { seed, left: 60 }),
                }
            })
            .collect();
        let mut seats: Vec<Seat<'_>> = players
            .iter_mut()
            .enumerate()
            .map(|(i, challenger)| Seat { who: who(i), challenger: &mut **challenger })
            .collect();
        let mut order = picks.iter().cycle();
        let mut pick = |n: usize| order.next().unwrap() % n.max(1);
        let games = play_all(&mut judge, &mut seats, &mut claim, &mut pick);
        if !is_wrong {
            // Nobody convicts an honest neuron, whatever else is asked meanwhile.
            prop_assert_eq!(judge.convicted(), None);
            prop_assert!(games.iter().all(|g| matches!(g.verdict, Verdict::Cleared(_))));
            judge.close_window();
            prop_assert!(judge.stands());
        } else if let Some(i) = kinds.iter().position(|k| *k == 0) {
            prop_assert!(matches!(games[i].verdict, Verdict::Guilty(_)), "{:#?}", games[i]);
            for (kind, game) in kinds.iter().zip(&games) {
                prop_assert!(*kind != 0 || matches!(game.verdict, Verdict::Guilty(_)), "{:#?}", game);
            }
        }
    }
}
