//! Players that lose all memory: everything is rebuilt from the published messages, and no honest player loses.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use bitai_kernels::Hash;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    parallel::{Nuisance, judge_of, who, wrong},
    *,
};

/// What is published of the games about one claim.
#[derive(Serialize, Deserialize)]
enum Message {
    Join(Address),
    Ask(Address, Hash, Ask),
    Answer(Hash, Answer),
    Accuse(Address, Hash, Box<Accusation>),
    Timeout(Address),
}

impl Message {
    /// Gives it to a judge; whether it counted.
    fn give(&self, judge: &mut Judge) -> Result<(), DisputeError> {
        match self {
            Message::Join(who) => judge.join(*who),
            Message::Ask(who, to, ask) => judge.ask(*who, *to, *ask).map(|_| ()),
            Message::Answer(to, answer) => judge.answer(NEURON, *to, answer.clone()).map(|_| ()),
            Message::Accuse(who, to, accusation) => judge.accuse(*who, *to, accusation).map(|_| ()),
            Message::Timeout(who) => judge.timeout(*who).map(|_| ()),
        }
    }
}

/// A judge from messages alone, as they lie on a chain: bytes.
fn rebuilt(fresh: &Judge, messages: &[String]) -> Judge {
    let mut judge = fresh.clone();
    for text in messages {
        let message: Message = serde_json::from_str(text).unwrap();
        message.give(&mut judge).unwrap();
    }
    judge
}

/// What one seat does on its turn, given what is published.
fn turn(
    judge: &Judge,
    who: Address,
    challenger: &mut dyn Challenge,
    waits: &mut BTreeMap<Address, Hash>,
    neuron: &mut dyn Defend,
) -> Message {
    if let Some(id) = waits.remove(&who)
        && let Some((id, ask)) = judge.owed().find(|(owed, _)| *owed == id)
    {
        return match neuron.answer(&ask) {
            Ok(answer) => Message::Answer(id, answer),
            Err(_) => Message::Timeout(who),
        };
    }
    match challenger.next(judge) {
        Move::Ask { to, ask } => {
            waits.insert(who, ask.id(&to));
            Message::Ask(who, to, ask)
        }
        Move::Accuse { to, accusation } => Message::Accuse(who, to, accusation),
        Move::Resign => Message::Timeout(who),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn no_honest_player_loses_that_remembers_only_what_is_published(
        is_wrong in any::<bool>(),
        picks in prop::collection::vec(0usize..3, 8..40),
        seed in any::<u64>(),
        draws in any::<bool>(),
    ) {
        let model = Model::new(1);
        let sampler = if draws { random(40, 60_000) } else { Sampler::GREEDY };
        let job = small(&model, sampler);
        let neuron = || if is_wrong { wrong(&model, &job) } else { model.decode(&job, &job.input_ids, None) };
        let first = neuron();
        let outputs = first.transcript.outputs().to_vec();
        let fresh = judge_of(&model, &job, &first);
        // Seat 0 is honest, seat 1 has a wrong run of its own, seat 2 asks at random.
        let fault = Fault { site: model.sites(Some(0), "quant")[1], position: 2, element: 4 };
        let mut nuisance = Nuisance { seed, left: 40 };
        let mut judge = fresh.clone();
        let mut messages: Vec<String> = vec![];
        let mut waits = BTreeMap::new();
        let give = |message: &Message, judge: &mut Judge, messages: &mut Vec<String>| {
            let done = message.give(judge);
            if done.is_ok() {
                messages.push(serde_json::to_string(message).unwrap());
            }
            done
        };
        for i in 0..3 {
            give(&Message::Join(who(i)), &mut judge, &mut messages).unwrap();
        }
        let mut order = picks.iter().cycle();
        for _ in 0..2000 {
            let live: Vec<usize> = (0..3).filter(|i| judge.verdict(who(*i)).is_none()).collect();
            let Some(i) = live.get(order.next().unwrap() % live.len().max(1)).copied() else {
                break;
            };
            // Whoever is honest starts anew, from the messages and its own run done again.
            let view = rebuilt(&fresh, &messages);
            prop_assert_eq!(view.published(), judge.published());
            let mut again = Challenger::new(model.recheck(&job, &outputs, (i == 1).then_some(fault)));
            let challenger: &mut dyn Challenge = if i == 2 { &mut nuisance } else { &mut again };
            let message = turn(&view, who(i), challenger, &mut waits, &mut neuron());
            match give(&message, &mut judge, &mut messages) {
                // Another asked for it meanwhile.
                Ok(()) | Err(DisputeError::Published) => {}
                // A neuron that cannot explain itself, or a challenger with nothing right to say.
                Err(_) => give(&Message::Timeout(who(i)), &mut judge, &mut messages).unwrap(),
            }
        }
        prop_assert!(judge.verdict(who(0)).is_some(), "the games went on for ever");
        match judge.verdict(who(0)) {
            Some(Verdict::Guilty(_)) => prop_assert!(is_wrong),
            other => prop_assert!(!is_wrong, "{:?}", other),
        }
        prop_assert_eq!(judge.convicted().is_some(), is_wrong);
    }
}
