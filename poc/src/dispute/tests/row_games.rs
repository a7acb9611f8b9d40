//! The recorded games about ops that are cut down to one element: a lie in each, about each published number, and right
//! elements accused.

use serde_json::Value;

use super::{
    draw_games::Script,
    fudge::{Lie, wrong_element},
    games::{lie, record},
    honest::down_to,
    leaf_norm::NormOp,
    msg::At,
    rows::{accusations, wrong},
    *,
};

/// Everything accused here is of this position.
const POS: u32 = 9;

/// An honest run against a challenger that makes accusation number `which` of a right element.
fn right(name: &str, at_model: usize, model: &Model, job: &Job, at: At, which: usize) -> Value {
    let mut honest = model.decode(job, &job.input_ids, None);
    let outputs = honest.transcript.outputs().to_vec();
    let mut judge = model.judge_root(job, &outputs, honest.transcript.root().unwrap());
    let mut own = model.recheck(job, &outputs, None);
    let mut asks = down_to(model, at.pos, at.site, at.element);
    if let Some(norm) = NormOp::of(&model.program.sites[at.site as usize].op) {
        asks.push(Ask::Norm {
            pos: at.pos,
            site: at.site,
            group: at.element / norm.group,
        });
    }
    let mut last = |judge: &Judge| accusations(judge, &mut own, at).swap_remove(which);
    let mut challenger = Script {
        asks: asks.into_iter(),
        last: &mut last,
    };
    record(name, at_model, &mut judge, &mut challenger, &mut honest)
}

/// As many asks as a game has, most of which lead nowhere, and a right element accused.
fn nine_asks(model: &Model) -> Value {
    let job = small(model, Sampler::GREEDY);
    let site = model.sites(None, "pos_embed")[0];
    let at = At {
        pos: POS,
        site,
        element: 319,
    };
    let mut honest = model.decode(&job, &job.input_ids, None);
    let outputs = honest.transcript.outputs().to_vec();
    let mut judge = model.judge_root(&job, &outputs, honest.transcript.root().unwrap());
    let mut own = model.recheck(&job, &outputs, None);
    let mut asks = down_to(model, POS, site, 319);
    let spare = ASKS_MAX - u32::try_from(asks.len()).unwrap();
    asks.extend((0..spare).map(|pos| Ask::Token { pos }));
    let mut last = |judge: &Judge| {
        let mut judge = judge.clone();
        let ask = Ask::Token { pos: 8 };
        let to = judge.builds_on(&ask).unwrap();
        let most = ASKS_MAX;
        assert_eq!(judge.ask(WHO, to, ask), Err(DisputeError::TooManyAsks { most }));
        accusations(&judge, &mut own, at).remove(0)
    };
    let mut challenger = Script {
        asks: asks.into_iter(),
        last: &mut last,
    };
    let title = "nine asks, and a right element";
    record(title, 1, &mut judge, &mut challenger, &mut honest)
}

/// The games of two models, numbers 0 and 1 of their file.
pub(super) fn games(first: &Model, second: &Model) -> Vec<Value> {
    let mut games = vec![];
    for (n, model, what) in [(0, first, "the first model"), (1, second, "the second model")] {
        let job = small(model, Sampler::GREEDY);
        let elements = if n == 0 {
            vec![
                ("rms_norm", 37),
                ("rope", 13),
                ("glu", 319),
                ("add", 61),
                ("kv_append", 17),
                ("out", 3),
            ]
        } else {
            // The second part of a norm; of a cached row V, the scale of K, and the gap behind the first head.
            vec![
                ("layer_norm", 301),
                ("rope", 300),
                ("act", 7),
                ("kv_append", 400),
                ("kv_append", 257),
                ("kv_append", 900),
            ]
        };
        for (name, element) in elements {
            let site = model.sites(Some(1), name)[0];
            let at = At {
                pos: POS,
                site,
                element,
            };
            let player = wrong(model, &job, site, POS, element as usize);
            let title = format!("a wrong element {element} of {name}, {what}");
            games.push(lie(&title, n, model, &job, player, Lie::None));
            if element == 257 {
                continue;
            }
            let title = format!("a right element {element} of {name}, {what}");
            // Of a norm the last accusation is that of the element.
            let count = if NormOp::of(&model.program.sites[site as usize].op).is_none() {
                1
            } else if name == "layer_norm" {
                8
            } else {
                5
            };
            games.push(right(&title, n, model, &job, at, count - 1));
        }
        let name = if n == 0 { "rms_norm" } else { "layer_norm" };
        let site = model.sites(Some(1), name)[0];
        for (lied, by) in [
            ("a part of the sum", Lie::NormSum),
            ("a largest magnitude that is too large", Lie::NormMaxUp),
            ("a largest magnitude that is too small", Lie::NormMaxDown),
            ("a part of the sum of squares", Lie::NormSquares),
        ] {
            if n == 0 && by == Lie::NormSum {
                continue;
            }
            let player = wrong_element(model, &job, site, POS, 61);
            let title = format!("a lie about {name}: {lied}");
            games.push(lie(&title, n, model, &job, player, by));
        }
        let at = At {
            pos: POS,
            site,
            element: 61,
        };
        let numbers: &[usize] = if n == 0 { &[0, 1, 3] } else { &[2, 3, 4, 6] };
        for which in numbers {
            let title = format!("right numbers of {name}, {which}");
            games.push(right(&title, n, model, &job, at, *which));
        }
    }
    let job = small(second, Sampler::GREEDY);
    let site = second.sites(None, "pos_embed")[0];
    let player = wrong(second, &job, site, POS, 319);
    let title = "a wrong embedding of a position";
    games.push(lie(title, 1, second, &job, player, Lie::None));
    let at = At {
        pos: POS,
        site,
        element: 319,
    };
    let title = "a right embedding of a position";
    games.push(right(title, 1, second, &job, at, 0));
    // A sum of any size is published, and loses.
    let job = small(first, Sampler::GREEDY);
    let site = first.sites(Some(0), "linear")[6];
    let player = wrong_element(first, &job, site, POS, 30);
    let title = "a linear's sum that no 64 bits hold";
    games.push(lie(title, 0, first, &job, player, Lie::LinearOverflow));
    // The id lies in the second chunk of the prompt's bytes.
    let ids: Vec<u32> = (0..310).map(|i| i * 7 % VOCAB).collect();
    let job = first.job(ids.clone(), 3, Sampler::GREEDY);
    let mut other = ids;
    other[300] += 1;
    let player = first.decode(&job, &other, None);
    let title = "another id in a prompt of two chunks";
    games.push(lie(title, 0, first, &job, player, Lie::None));
    games.push(nine_asks(second));
    games
}
