//! The recorded games about random draws: lies about every number of one, and right numbers accused.

use serde_json::Value;

use super::{
    fudge::{Fudge, Lie},
    games::{false_accusation, lie, record},
    honest::down_to,
    inner::{Side, SiteRow},
    msg::DrawFault,
    *,
};

/// Where the ids of these games are drawn: the last position, so that nothing follows from a wrong one.
const POS: u32 = 11;

/// A challenger that asks what it is told, and then accuses what it is told.
pub(super) struct Script<'a> {
    pub(super) asks: std::vec::IntoIter<Ask>,
    pub(super) last: &'a mut dyn FnMut(&Judge) -> Accusation,
}

impl Challenge for Script<'_> {
    fn next(&mut self, judge: &Judge) -> Move {
        if let Some(ask) = self.asks.next() {
            let to = judge.builds_on(&ask).unwrap();
            return Move::Ask { to, ask };
        }
        let accusation = Box::new((self.last)(judge));
        let to = judge.rests_on(&accusation).unwrap();
        Move::Accuse { to, accusation }
    }
}

/// What is accused of a draw: a number of its head, or the sums of a part of a part.
#[derive(Clone, Copy)]
enum What {
    Head(DrawFault),
    Ids(u32, u32),
}

/// A game of an honest run, whose defendant may lie in its answers, against a challenger that accuses `what`.
fn scripted(name: &str, model: &Model, job: &Job, by: Lie, what: What) -> Value {
    let honest = model.decode(job, &job.input_ids, None);
    let outputs = honest.transcript.outputs().to_vec();
    let mut judge = model.judge_root(job, &outputs, honest.transcript.root().unwrap());
    let mut own = model.recheck(job, &outputs, None);
    let site = model.sites(None, "sample")[0];
    let mut asks = down_to(model, POS, site, 0);
    asks.push(Ask::Draw { pos: POS });
    if let What::Ids(part, _) = what {
        asks.push(Ask::DrawPart { pos: POS, part });
    }
    let mut last = |judge: &Judge| {
        let head = judge.published().draws[&POS].clone();
        let ids = match what {
            What::Head(DrawFault::MaxNotAttained) => head.max.at..head.max.at + 1,
            What::Head(DrawFault::MaxExceeded) => 3..4,
            What::Head(DrawFault::Threshold) => head.threshold.1..head.threshold.1 + 1,
            What::Head(DrawFault::Sampled) => outputs[5]..outputs[5] + 1,
            What::Ids(part, sub) => leaf_draw::draw_sub(VOCAB, part, sub),
        };
        let path = (POS, site, 0);
        let logits = own.open_input(judge, path, Side::Data, ids.clone()).unwrap();
        match what {
            What::Head(what) => Accusation::DrawHead {
                pos: POS,
                what,
                id: ids.start,
                logit: logits,
            },
            What::Ids(part, sub) => Accusation::DrawIds {
                pos: POS,
                part,
                sub,
                logits,
            },
        }
    };
    let mut challenger = Script {
        asks: asks.into_iter(),
        last: &mut last,
    };
    record(name, 0, &mut judge, &mut challenger, &mut Fudge::new(honest, by))
}

/// All games about draws of this model, number 0 of the file.
pub(super) fn games(model: &Model) -> Vec<Value> {
    let mut games = vec![];
    let job = small(model, random(40, 60_000));
    let whole = small(model, random(40, 65_536));
    let plain = small(model, random(0, 65_536));
    // Ids by their logits, but for the one that is drawn.
    let others = |job: &Job| {
        let mut honest = model.decode(job, &job.input_ids, None);
        let last = *honest.transcript.outputs().last().unwrap();
        let (_, logits, _) = honest.logits(POS).unwrap();
        let mut ids: Vec<u32> = (0..VOCAB).filter(|id| *id != last).collect();
        ids.sort_by_key(|id| std::cmp::Reverse(logits[*id as usize]));
        ids
    };
    let wrong = |job: &Job, id: u32| {
        tampered(model, job, POS, move |rows| {
            if let Some(SiteRow::Token(token)) = rows.0.last_mut().unwrap() {
                *token = id;
            }
        })
    };
    for (what, job, rank, by) in [
        ("the mass below the id", &job, 0, Lie::DrawSums),
        (
            "the mass below the id, whatever is likely",
            &plain,
            5,
            Lie::DrawSums,
        ),
        ("the probability of an unlikely id", &job, 48, Lie::DrawP),
        ("a largest logit that is too large", &job, 0, Lie::DrawMaxUp),
        ("a largest logit that is too small", &job, 0, Lie::DrawMaxDown),
        ("a threshold that keeps one id less", &job, 0, Lie::DrawThreshold),
        ("masses that no 64 bits hold", &whole, 0, Lie::DrawOverflow),
    ] {
        let name = format!("a lie about a draw: {what}");
        let id = others(job)[rank];
        games.push(lie(&name, 0, model, job, wrong(job, id), by));
    }
    games.push(scripted(
        "a lie about a draw: a threshold that is none of its id's",
        model,
        &job,
        Lie::DrawThresholdP,
        What::Head(DrawFault::Threshold),
    ));
    for (what, accused) in [
        (
            "the largest logit, attained",
            What::Head(DrawFault::MaxNotAttained),
        ),
        ("the largest logit, a bound", What::Head(DrawFault::MaxExceeded)),
        ("the threshold", What::Head(DrawFault::Threshold)),
        ("the sampled id's probability", What::Head(DrawFault::Sampled)),
        ("the sums over the first ids", What::Ids(0, 1)),
        ("the sums over the last ids", What::Ids(149, 1)),
    ] {
        let name = format!("right numbers of a draw: {what}");
        games.push(scripted(&name, model, &job, Lie::None, accused));
    }
    let sample = model.sites(None, "sample")[0];
    games.push(false_accusation("the drawn id", 0, model, &job, sample));
    games
}
