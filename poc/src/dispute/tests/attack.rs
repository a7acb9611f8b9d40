//! Replays: a move counts only in the game, and after the answers, that it was made for.

use alloy_primitives::{Address, U256};
use bitai_kernels::Hash;

use super::{
    ids::Claim,
    inner::Side,
    msg::{At, Max},
    *,
};

/// The first ask of every game here.
const FIRST: Ask = Ask::Tokens { height: 4, index: 0 };

/// A judge with a challenger, and the honest neuron before it.
fn game(model: &Model, job: &Job) -> (Judge, Player<RunnerRegen>) {
    let honest = model.decode(job, &job.input_ids, None);
    let root = honest.transcript.root().unwrap();
    let mut judge = model.judge_root(job, honest.transcript.outputs(), root);
    judge.join(WHO).unwrap();
    (judge, honest)
}

/// Asks, and has it answered.
fn publish(judge: &mut Judge, ask: Ask, answer: Answer) -> Hash {
    let id = super::ask(judge, ask).unwrap();
    assert_eq!(judge.answer(NEURON, id, answer), Ok(None), "{ask:?}");
    id
}

#[test]
fn rejects_moves_of_another_job_hub_chain_neuron_or_answer() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let mut neuron = model.decode(&job, &job.input_ids, None);
    let root = neuron.transcript.root().unwrap();
    let base = revealed(&job, neuron.transcript.outputs(), root);
    let change = |f: &dyn Fn(&mut Claim)| {
        let mut other = base.clone();
        f(&mut other);
        other
    };
    let others = [
        change(&|c| c.chain_id += 1),
        change(&|c| c.hub = Address::repeat_byte(9)),
        change(&|c| c.job_id += U256::from(1)),
        // Another neuron of the same job gave the same answer.
        change(&|c| c.neuron = Address::repeat_byte(9)),
        change(&|c| c.job.seed += 1),
        change(&|c| c.root = TraceRoot(NOBODYS)),
        change(&|c| c.outputs[0] ^= 1),
    ];
    let judge = |claim: &Claim| {
        let (program, branches) = ((*model.program).clone(), model.pack().branches());
        let mut judge = Judge::new(claim.clone(), program, branches).unwrap();
        judge.join(WHO).unwrap();
        judge
    };
    let mut here = judge(&base);
    let to = here.id();
    let id = here.ask(WHO, to, FIRST).unwrap();
    let answer = neuron.respond(&FIRST).unwrap();
    for other in &others {
        let mut there = judge(other);
        assert_eq!(there.ask(WHO, to, FIRST), Err(DisputeError::OtherAnswer));
        super::ask(&mut there, FIRST).unwrap();
        let from = there.neuron();
        assert_eq!(
            there.answer(from, id, answer.clone()),
            Err(DisputeError::NotAsked)
        );
    }
    assert_eq!(here.answer(NEURON, id, answer), Ok(None));
}

#[test]
fn rejects_an_ask_made_for_another_answer_after_a_reorg() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let (mut before, mut neuron) = game(&model, &job);
    let (mut after, _) = game(&model, &job);
    let token = Ask::Token { pos: 5 };
    let Answer::Token { node, layers, units } = neuron.respond(&token).unwrap() else {
        panic!("a token")
    };
    for (judge, flip) in [(&mut before, 1), (&mut after, 0)] {
        publish(judge, FIRST, neuron.respond(&FIRST).unwrap());
        // No root fixes the units' roots: a neuron may say others on another branch of the chain.
        let mut units = units.clone();
        units[1][0] ^= flip;
        let layers = layers.clone();
        publish(judge, token, Answer::Token { node, layers, units });
    }
    let ask = Ask::Unit { pos: 5, unit: 1 };
    let to = before.builds_on(&ask).unwrap();
    assert!(before.ask(WHO, to, ask).is_ok());
    assert_eq!(after.ask(WHO, to, ask), Err(DisputeError::OtherAnswer));
    // The step above is the same on both branches, and so is its name.
    let token = Ask::Token { pos: 4 };
    assert_eq!(before.builds_on(&token), after.builds_on(&token));
}

/// Two judges that are alike up to the last answer.
fn branches(model: &Model, job: &Job, at: At) -> (Judge, Judge, Player<RunnerRegen>) {
    let (mut before, mut neuron) = game(model, job);
    let (mut after, _) = game(model, job);
    for ask in honest::down_to(model, at.pos, at.site, at.element) {
        for judge in [&mut before, &mut after] {
            publish(judge, ask, neuron.respond(&ask).unwrap());
        }
    }
    (before, after, neuron)
}

/// An accusation of a lie convicts on the branch with the lie, and does not count (rather than clear, and cost
/// its maker the bond) where the neuron answered the truth.
fn convicts_only_before(before: &mut Judge, after: &mut Judge, accusation: &Accusation) {
    let to = before.rests_on(accusation).unwrap();
    assert_eq!(after.accuse(WHO, to, accusation), Err(DisputeError::OtherAnswer));
    assert_eq!(after.verdict(WHO), None);
    let verdict = before.accuse(WHO, to, accusation);
    assert!(
        matches!(verdict, Ok(Verdict::Guilty(Ground::Step(_)))),
        "{verdict:?}"
    );
}

#[test]
fn rejects_an_accusation_of_a_sum_after_a_reorg() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let (pos, element) = (5, 30);
    let site = model.sites(Some(0), "linear")[0];
    let at = At { pos, site, element };
    let (mut before, mut after, mut neuron) = branches(&model, &job, at);
    let ask = Ask::Sum { pos, site, element };
    let Answer::Sum(good) = neuron.respond(&ask).unwrap() else {
        panic!("a sum")
    };
    let mut bad = good.clone();
    bad[0] += 1;
    publish(&mut before, ask, Answer::Sum(bad));
    publish(&mut after, ask, Answer::Sum(good));
    let Op::Linear { weight, k, .. } = model.program.sites[site as usize].op else {
        panic!("a linear")
    };
    let path = (pos, site, 0);
    let accusation = Accusation::LinearPart {
        at,
        part: 0,
        x: neuron.open_input(&before, path, Side::Data, 0..k).unwrap(),
        w: neuron.open_weights(&weight, k, element, 0..k).unwrap(),
    };
    convicts_only_before(&mut before, &mut after, &accusation);
}

#[test]
fn rejects_an_accusation_of_a_maximum_after_a_reorg() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let (pos, element) = (5, 3);
    let site = model.sites(Some(0), "quant")[0];
    let at = At { pos, site, element };
    let (mut before, mut after, mut neuron) = branches(&model, &job, at);
    let ask = Ask::Group { pos, site, group: 0 };
    let Answer::Group(good) = neuron.respond(&ask).unwrap() else {
        panic!("a group")
    };
    let mut bad = good;
    bad.raw = Max {
        value: good.raw.value + 1,
        at: good.raw.at,
    };
    bad.max = bad.raw;
    publish(&mut before, ask, Answer::Group(bad));
    publish(&mut after, ask, Answer::Group(good));
    let e = bad.raw.at;
    let accusation = Accusation::AbsMaxNotAttained {
        at,
        raw: true,
        block: neuron
            .open_input(&before, (pos, site, 0), Side::Data, e..e + 1)
            .unwrap(),
    };
    convicts_only_before(&mut before, &mut after, &accusation);
}

#[test]
fn an_answers_id_holds_every_field() {
    let model = Model::new(1);
    let mut ids = std::collections::BTreeSet::new();
    for sampler in [Sampler::GREEDY, random(40, 60_000)] {
        let job = small(&model, sampler);
        let mut neuron = model.decode(&job, &job.input_ids, None);
        let mut asks = vec![Ask::Token { pos: 9 }];
        let unit = neuron.units.count(true) - 1;
        for (name, element) in [("linear", 30), ("attention", 37), ("quant", 3), ("rms_norm", 2)] {
            let site = model.sites(Some(0), name)[0];
            asks.extend(honest::down_to(&model, 9, site, element));
            asks.extend([
                Ask::Sum {
                    pos: 9,
                    site,
                    element,
                },
                Ask::Keys {
                    pos: 9,
                    site,
                    element,
                },
                Ask::KeyPart {
                    pos: 9,
                    site,
                    element,
                    part: 1,
                },
                Ask::Group {
                    pos: 9,
                    site,
                    group: 0,
                },
                Ask::Norm {
                    pos: 9,
                    site,
                    group: 0,
                },
            ]);
        }
        asks.extend([Ask::Unit { pos: 9, unit }, Ask::Draw { pos: 9 }]);
        asks.push(Ask::DrawPart { pos: 9, part: 2 });
        for ask in asks {
            let Ok(answer) = neuron.respond(&ask) else {
                continue;
            };
            // Every number of the answer's JSON, changed alone, gives another id.
            let json = serde_json::to_value(&answer).unwrap();
            let id = |v: &serde_json::Value| {
                let answer: Option<Answer> = serde_json::from_value(v.clone()).ok();
                answer.map(|a| a.id(&[7; 32]).unwrap())
            };
            let whole = id(&json).unwrap();
            assert_eq!(Ok(whole), answer.id(&[7; 32]));
            assert_ne!(Ok(whole), answer.id(&[8; 32]));
            ids.insert(whole);
            for at in 0..numbers(&mut json.clone(), usize::MAX).min(200) {
                let mut other = json.clone();
                numbers(&mut other, at);
                if let Some(changed) = id(&other) {
                    assert_ne!(changed, whole, "{ask:?}: number {at}");
                }
            }
        }
    }
    assert!(ids.len() > 12, "{}", ids.len());
}

/// Changes number `at` of a JSON value; gives how many there are.
fn numbers(value: &mut serde_json::Value, at: usize) -> usize {
    fn walk(v: &mut serde_json::Value, at: usize, seen: &mut usize) {
        match v {
            serde_json::Value::Number(n) => {
                if *seen == at {
                    let x = n.as_i64().unwrap();
                    *v = (if x > 0 { x - 1 } else { x + 1 }).into();
                }
                *seen += 1;
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|i| walk(i, at, seen)),
            serde_json::Value::Object(o) => o.values_mut().for_each(|i| walk(i, at, seen)),
            _ => {}
        }
    }
    let mut seen = 0;
    walk(value, at, &mut seen);
    seen
}
