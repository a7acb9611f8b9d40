//! Who plays: the neuron, honest challengers, and puppets that do whatever harms. Each decides on what the tip shows and
//! keeps only what can be computed again.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{Address, B256, U256};
use bitai_contracts::{JobStatus, PocVerifier, WorkerHub};
use bitai_miner::{
    chain::{
        send::Call,
        verifier::{CLAIM_CONVICTED, CLAIM_NONE, GAME_PLAYING, Turn},
    },
    dispute::{Explainer, Mover, Shelf, doubter, honest},
};
use bitai_poc::dispute::{Ask, Claim, Judge, Move, Verdict, inner::Side};
use bitai_types::job::{ids_hash, ids_to_bytes, input_hash};

use crate::{
    claims::wrong_doubter,
    dice::Dice,
    view::{Seen, owed},
    world::{World, signer},
};
use bitai_kernels::testing::Fault;

/// A move: its name and the call.
pub(crate) type Due = (String, Call);

/// Opens the first game or a further one.
fn join(world: &World, claim: &Claim, state: u8) -> Call {
    let bond = world.chain.read(
        world.verifier,
        PocVerifier::bondCall {
            modelRoot: claim.job.model_root,
        },
    );
    if state != CLAIM_NONE {
        return world.verifier_call(
            PocVerifier::joinCall {
                claim: claim.id().into(),
            },
            bond,
        );
    }
    let job = &claim.job;
    let call = PocVerifier::openCall {
        jobId: claim.job_id,
        neuron: claim.neuron,
        fields: PocVerifier::JobFields {
            modelRoot: job.model_root,
            specVersion: job.spec_version,
            inputHash: input_hash(&job.input_ids),
            stopHash: ids_hash(&job.stop_ids),
            temperatureQ16: job.sampler.temperature_q16,
            topK: job.sampler.top_k,
            topPQ16: job.sampler.top_p_q16,
            seed: job.seed,
        },
        outputIds: ids_to_bytes(&claim.outputs).into(),
    };
    world.verifier_call(call, bond)
}

/// Ends a game whose clock ran out.
fn timeout(world: &World, claim: B256, challenger: Address) -> Due {
    let call = PocVerifier::timeoutCall { claim, challenger };
    (
        format!("timeout {challenger}"),
        world.verifier_call(call, U256::ZERO),
    )
}

fn withdraw(world: &World, who: Address) -> Option<Due> {
    let call = || world.verifier_call(PocVerifier::withdrawCall {}, U256::ZERO);
    (!owed(world, who).is_zero()).then(|| ("withdraw".into(), call()))
}

/// Pays or refunds the job once its window is over.
pub(crate) fn finalise(world: &World, claim: &Claim, seen: &Seen) -> Option<Due> {
    let status = JobStatus::from_u8(seen.job.status);
    let open = matches!(status, Some(JobStatus::Challenge | JobStatus::Quarrel));
    let over = world.chain.height() >= seen.job.deadline && seen.job.openDisputes == 0;
    let call = WorkerHub::finaliseCall { jobId: claim.job_id };
    (open && over).then(|| ("finalise".into(), world.hub_call(call, U256::ZERO)))
}

/// The neuron.
pub(crate) struct Neuron {
    /// Explains the claim; an honest neuron's is made again after a restart.
    explainer: Option<Explainer>,
    answers: BTreeMap<B256, Option<Vec<u8>>>,
    /// Whether it has an answer to everything.
    is_honest: bool,
    /// Answers after which it says nothing more.
    pub(crate) mute_after: usize,
}

impl Neuron {
    pub(crate) fn new(explainer: Explainer, is_honest: bool, mute_after: usize) -> Self {
        Self {
            explainer: Some(explainer),
            answers: BTreeMap::new(),
            is_honest,
            mute_after,
        }
    }

    /// Forgets everything; with the product's maker, where it is honest.
    pub(crate) fn restart(&mut self, shelf: &Arc<Shelf>, claim: &Claim) {
        self.answers.clear();
        self.explainer = Some(honest(Arc::clone(shelf))(claim).unwrap());
    }

    /// What is due: an answer for every game that waits, an end to every game of who fell silent.
    pub(crate) fn due(&mut self, world: &World, claim: &Claim, seen: &Seen) -> Vec<Due> {
        let mut due = Vec::new();
        for (who, game, turn) in seen.playing() {
            match turn {
                Turn::Neuron(_) => due.extend(self.answer(world, game.waiting, seen)),
                Turn::ChallengerIsOut => due.push(timeout(world, claim.id().into(), who)),
                Turn::Challenger(_) | Turn::NeuronIsOut => {}
            }
        }
        due.extend(withdraw(world, claim.neuron));
        due
    }

    fn answer(&mut self, world: &World, id: B256, seen: &Seen) -> Option<Due> {
        let explainer = self.explainer.as_mut()?;
        if !self.answers.contains_key(&id) {
            let made = if self.answers.len() < self.mute_after {
                let answer = explainer.answer(&seen.asked[&id]);
                assert!(
                    answer.is_ok() || !self.is_honest,
                    "an honest neuron has no answer to {:?}: {answer:?}",
                    seen.asked[&id]
                );
                answer.ok().and_then(|a| a.encode(&id.0).ok())
            } else {
                None
            };
            self.answers.insert(id, made);
        }
        let bytes = self.answers.get(&id)?.clone()?;
        let call = PocVerifier::answerCall { r#move: bytes.into() };
        Some((format!("answer {id}"), world.verifier_call(call, U256::ZERO)))
    }
}

/// How a challenger plays.
pub(crate) enum Style {
    /// With the product's own doubter.
    Honest,
    /// Opens a game and says nothing.
    Silent,
    /// Plays well for so many moves, then falls silent.
    Fades(u32),
    /// Asks at random for so many times.
    Asks(u32),
    /// Plays its own wrong run, and accuses what is right.
    Wrong(Fault),
}

/// A challenger's seat.
pub(crate) struct Doubter {
    pub(crate) name: &'static str,
    pub(crate) style: Style,
    mover: Option<Mover>,
    moves: u32,
    /// The move decided on a view.
    decided: Option<(B256, Option<Due>)>,
}

impl Doubter {
    pub(crate) fn new(name: &'static str, style: Style) -> Self {
        Self {
            name,
            style,
            mover: None,
            moves: 0,
            decided: None,
        }
    }

    pub(crate) fn is_honest(&self) -> bool {
        matches!(self.style, Style::Honest)
    }

    pub(crate) fn address(&self) -> Address {
        signer(self.name).address()
    }

    /// Forgets everything.
    pub(crate) fn restart(&mut self) {
        (self.mover, self.decided) = (None, None);
    }

    /// What is due.
    pub(crate) fn due(
        &mut self,
        (world, shelf): (&World, &Arc<Shelf>),
        claim: &Claim,
        seen: &Seen,
        dice: &mut Dice,
    ) -> Vec<Due> {
        let me = self.address();
        let id = B256::from(claim.id());
        let mut due: Vec<Due> = withdraw(world, me).into_iter().collect();
        match seen.games.get(&me) {
            None if seen.state == CLAIM_CONVICTED || world.chain.height() >= seen.job.deadline => {}
            None => due.push(("join".into(), join(world, claim, seen.state))),
            Some((game, _)) if game.state != GAME_PLAYING => {}
            Some(_) if seen.state == CLAIM_CONVICTED => {
                let call = PocVerifier::takeBackCall { claim: id };
                due.push(("take back".into(), world.verifier_call(call, U256::ZERO)));
            }
            Some((_, Turn::NeuronIsOut)) => due.push(timeout(world, id, me)),
            Some((_, Turn::Challenger(_))) => {
                if self.decided.as_ref().is_none_or(|(mark, _)| *mark != seen.mark) {
                    let next = self.next(shelf, claim, seen, dice);
                    self.decided = Some((seen.mark, self.call(world, id, &seen.judge, next)));
                }
                due.extend(self.decided.as_ref().and_then(|(_, due)| due.clone()));
            }
            Some(_) => {}
        }
        due
    }

    fn next(&mut self, shelf: &Arc<Shelf>, claim: &Claim, seen: &Seen, dice: &mut Dice) -> Move {
        self.moves += 1;
        let stop = match self.style {
            Style::Honest | Style::Wrong(_) => u32::MAX,
            Style::Silent => 0,
            Style::Fades(moves) | Style::Asks(moves) => moves,
        };
        if self.moves > stop {
            return Move::Resign;
        }
        if let Style::Asks(_) = self.style {
            return random_ask(&seen.judge, dice);
        }
        if self.mover.is_none() {
            self.mover = match self.style {
                Style::Wrong(fault) => wrong_doubter(shelf, claim, fault),
                _ => Some(doubter(shelf, claim).unwrap().1),
            };
        }
        self.mover
            .as_mut()
            .map_or(Move::Resign, |mover| mover.next(&seen.judge))
    }

    fn call(&self, world: &World, id: B256, judge: &Judge, next: Move) -> Option<Due> {
        match next {
            Move::Ask { to, ask } => {
                let call = PocVerifier::askCall {
                    claim: id,
                    r#move: ask.encode(&to).to_vec().into(),
                };
                let name = format!("ask {}", B256::from(ask.id(&to)));
                Some((name, world.verifier_call(call, U256::ZERO)))
            }
            Move::Accuse { to, accusation } => {
                let found = judge.clone().accuse(self.address(), to, &accusation);
                let right = matches!(found, Ok(Verdict::Guilty(_)));
                if self.is_honest() {
                    assert!(
                        right,
                        "an honest challenger would lose: {} {found:?}",
                        accusation.name()
                    );
                }
                let bytes = accusation.encode(&to).unwrap();
                let name = format!("accuse {}", blake3::hash(&bytes).to_hex());
                let call = PocVerifier::accuseCall {
                    claim: id,
                    r#move: bytes.into(),
                };
                Some((name, world.verifier_call(call, U256::ZERO)))
            }
            Move::Resign => {
                assert!(!self.is_honest(), "an honest challenger has nothing to say");
                None
            }
        }
    }
}

/// Some ask that the judge takes.
fn random_ask(judge: &Judge, dice: &mut Dice) -> Move {
    let sites = u32::try_from(judge.program().sites.len()).unwrap();
    let taker = Address::repeat_byte(0xff);
    for _ in 0..60 {
        let pos = dice.small(judge.positions());
        let (site, element) = (dice.small(sites), dice.small(64));
        let side = dice.pick(&[Side::Data, Side::Scales]);
        let index = dice.small(3);
        let ask = match dice.below(11) {
            0 => Ask::Tokens {
                height: 1 + dice.small(5),
                index: 0,
            },
            1 | 2 => Ask::Token { pos },
            3 => Ask::Unit {
                pos,
                unit: dice.small(20),
            },
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
        };
        let Ok(to) = judge.builds_on(&ask) else { continue };
        let mut trial = judge.clone();
        if trial.join(taker).is_ok() && trial.ask(taker, to, ask).is_ok() {
            return Move::Ask { to, ask };
        }
    }
    Move::Resign
}
