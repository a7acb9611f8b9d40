//! `vectors/games.json` and `row_games.json`: whole games as the chain sees them, every move as bytes, written by this engine and played
//! again by the contract (`contracts/test/Games.t.sol`, `RowGames.t.sol`).

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    draw_games,
    fudge::{Fudge, Lie, wrong_element},
    honest::liar,
    inner::SiteRow,
    model_games,
    msg::KvSide,
    row_games,
    shapes::faulty,
    *,
};

pub(super) fn hex(bytes: impl AsRef<[u8]>) -> Value {
    json!(alloy_primitives::hex::encode_prefixed(bytes))
}

pub(super) fn ids_hex(ids: &[u32]) -> Value {
    let bytes: Vec<u8> = ids.iter().flat_map(|i| i.to_le_bytes()).collect();
    hex(bytes)
}

/// A model's program as it is put into the book.
pub(super) fn program(model: &Model) -> Value {
    let (p, b) = (&model.program, model.pack().branches());
    let records: Vec<u8> = p.sites.iter().flat_map(|s| s.encode().unwrap()).collect();
    json!({
        "root": hex(model.pack().root()),
        "dims": [p.layers, p.d_model, p.vocab, p.context, p.kv_heads, p.head_dim, p.checkpoint_stride],
        "info": hex(b.info),
        "tensorCount": b.tensor_count,
        "tensorsLeft": hex(b.tensors[0]),
        "tensorsRight": hex(b.tensors[1]),
        "tokenizer": hex(b.tokenizer),
        "records": hex(records),
    })
}

/// A job with the hub's spelling of its fields.
pub(super) fn job_json(job: &Job) -> Value {
    json!({
        "hash": hex(job.hash()),
        "inputIds": ids_hex(&job.input_ids),
        "maxNew": job.max_new,
        "temperatureQ16": job.sampler.temperature_q16,
        "topK": job.sampler.top_k,
        "topPQ16": job.sampler.top_p_q16,
        "seed": job.seed,
    })
}

/// Plays a game and writes down every move.
pub(super) fn record(
    name: &str,
    model: usize,
    judge: &mut Judge,
    challenger: &mut dyn Challenge,
    defendant: &mut dyn Defend,
) -> Value {
    judge.join(WHO).unwrap();
    let (mut kinds, mut bytes, mut ids) = (vec![], vec![], vec![]);
    let mut put = |kind: &str, b: &[u8], id: Hash| {
        kinds.push(json!(kind));
        bytes.push(hex(b));
        ids.push(hex(id));
    };
    let verdict = loop {
        match challenger.next(judge) {
            Move::Ask { to, ask } => {
                let id = judge.ask(WHO, to, ask).unwrap();
                put("ask", &ask.encode(&to), id);
                let answer = defendant.answer(&ask).unwrap();
                put("answer", &answer.encode(&id).unwrap(), answer.id(&id).unwrap());
                if let Some(verdict) = judge.answer(judge.neuron(), id, answer).unwrap() {
                    break verdict;
                }
            }
            Move::Accuse { to, accusation } => {
                put("accuse", &accusation.encode(&to).unwrap(), [0; 32]);
                break judge.accuse(WHO, to, &accusation).unwrap();
            }
            Move::Resign => panic!("{name}: nothing to say"),
        }
    };
    let (guilty, ground) = match verdict {
        Verdict::Guilty(g) => (true, g),
        Verdict::Cleared(g) => (false, g),
    };
    let (contradicts, by) = match ground {
        Ground::Step(s) => (false, s),
        Ground::Contradiction(s) => (true, s),
        Ground::Silence => panic!("{name}: a clock"),
    };
    json!({
        "name": name,
        "model": model,
        "job": job_json(judge.job()),
        "outputs": ids_hex(judge.outputs()),
        "root": hex(B256::from(judge.claimed())),
        "claim": hex(judge.id()),
        "guilty": guilty,
        "contradiction": contradicts,
        "by": by,
        "kinds": kinds,
        "bytes": bytes,
        "ids": ids,
    })
}

/// A liar's game against an honest challenger.
pub(super) fn lie<R: Regenerate>(
    name: &str,
    at: usize,
    model: &Model,
    job: &Job,
    player: Player<R>,
    lie: Lie,
) -> Value {
    let outputs = player.transcript.outputs().to_vec();
    let root = player.transcript.root().unwrap();
    let mut judge = model.judge_root(job, &outputs, root);
    let mut challenger = Challenger::new(model.recheck(job, &outputs, None));
    record(
        name,
        at,
        &mut judge,
        &mut challenger,
        &mut Fudge::new(player, lie),
    )
}

/// An honest neuron's game against a challenger whose own run is wrong in `site`.
pub(super) fn false_accusation(name: &str, at: usize, model: &Model, job: &Job, site: u32) -> Value {
    let mut honest = model.decode(job, &job.input_ids, None);
    let outputs = honest.transcript.outputs().to_vec();
    let root = honest.transcript.root().unwrap();
    let liar = (0..64)
        .find_map(|element| {
            let position = 8;
            let fault = Fault {
                site,
                position,
                element,
            };
            liar(model, job, &outputs, root, fault)
        })
        .unwrap();
    let mut judge = model.judge_root(job, &outputs, root);
    record(name, at, &mut judge, &mut Challenger::new(liar), &mut honest)
}

fn games() -> Value {
    let models = [Model::new(1), Model::new(2)];
    let [one, two] = &models;
    let greedy = |m: &Model| small(m, Sampler::GREEDY);
    let (job, wide) = (greedy(one), greedy(two));
    let mut games = vec![];
    // A linear of layer 0 that sums K in two parts, one of layer 1 in two segments, and the head, which has multipliers.
    for (what, layer, i) in [("two parts", 0, 6), ("two segments", 1, 6), ("one part", 1, 0)] {
        let site = two.sites(Some(layer), "linear")[i];
        let player = wrong_element(two, &wide, site, 5, 30);
        let name = format!("a lie about a linear's sum, {what}");
        games.push(lie(&name, 1, two, &wide, player, Lie::LinearPart));
        let player = wrong_element(two, &wide, site, 5, 30);
        let name = format!("a wrong element of a linear, {what}");
        games.push(lie(&name, 1, two, &wide, player, Lie::None));
        let name = format!("a right element of a linear, {what}");
        games.push(false_accusation(&name, 1, two, &wide, site));
    }
    let head = one.sites(None, "linear")[0] as usize;
    let logits = |element: usize| {
        tampered(one, &job, 11, move |rows| {
            if let Some(SiteRow::Acts(v)) = rows.0[head].as_mut() {
                v[element] += 5;
            }
            if let Some(SiteRow::Token(id)) = rows.0.last_mut().unwrap() {
                *id = (*id + 1) % VOCAB;
            }
        })
    };
    games.push(lie(
        "a lie about a logit's sum",
        0,
        one,
        &job,
        logits(299),
        Lie::LinearPart,
    ));
    games.push(lie("a wrong logit", 0, one, &job, logits(2), Lie::None));
    for (name, wrong) in [("another first id", 0), ("another last id", 6)] {
        let mut other = job.input_ids.clone();
        other[wrong] += 1;
        games.push(lie(name, 0, one, &job, one.decode(&job, &other, None), Lie::None));
    }
    let embed = one.sites(None, "embed")[0];
    let player = faulty(one, &job, embed, 9).unwrap();
    games.push(lie(
        "a wrong embedding of an output",
        0,
        one,
        &job,
        player,
        Lie::None,
    ));
    games.push(false_accusation("a right embedding", 0, one, &job, embed));
    let sample = one.sites(None, "sample")[0];
    let fault = Fault {
        site: sample,
        position: 9,
        element: 0,
    };
    let player = one.decode(&job, &job.input_ids, Some(fault));
    games.push(lie(
        "a token that is not the largest logit",
        0,
        one,
        &job,
        player,
        Lie::None,
    ));
    games.push(false_accusation("the largest logit", 0, one, &job, sample));
    let long = one.job((0..310).map(|i| i * 7 % VOCAB).collect(), 3, Sampler::GREEDY);
    let site = one.sites(Some(0), "linear")[3];
    let player = faulty(one, &long, site, 300).unwrap();
    games.push(lie("a tree of two levels", 0, one, &long, player, Lie::None));
    // The last quantisation of a layer 1 is transformed; the first is not, nor is it of one plane.
    let quants = two.sites(Some(1), "quant");
    for (what, site) in [
        ("plain", quants[0]),
        ("of a head, transformed", quants[1]),
        ("of 16 bits, transformed", quants[6]),
    ] {
        for (lied, by) in [
            ("a maximum that is too large", Lie::AbsUp),
            ("a maximum that is too small", Lie::AbsDown),
            ("a maximum before the transform that is too large", Lie::RawUp),
            ("a maximum before the transform that is too small", Lie::RawDown),
            ("a wrong element", Lie::None),
        ] {
            let player = wrong_element(two, &wide, site, 5, 11);
            let name = format!("{lied} of a quantisation, {what}");
            games.push(lie(&name, 1, two, &wide, player, by));
        }
        let name = format!("a right element of a quantisation, {what}");
        games.push(false_accusation(&name, 1, two, &wide, site));
    }
    let site = two.sites(Some(1), "quant")[2] as usize;
    let out = two.sites(Some(1), "out")[0] as usize;
    let player = tampered(two, &wide, 3, move |rows| {
        if let Some(SiteRow::Quant { scales, .. }) = rows.0[site].as_mut() {
            scales.last_mut().unwrap().e += 1;
        }
        if let Some(SiteRow::Acts(v)) = rows.0[out].as_mut() {
            v[0] += 1;
        }
    });
    games.push(lie(
        "a wrong scale of a quantisation",
        1,
        two,
        &wide,
        player,
        Lie::None,
    ));
    // Layer 0 sees all keys, layer 1 a window of five.
    for layer in [0, 1] {
        let site = two.sites(Some(layer), "attention")[0];
        for (lied, by) in [
            ("a sum over keys", Lie::KeySum),
            ("a largest score that is too large", Lie::MaxUp),
            ("a largest score that is too small", Lie::MaxDown),
            ("a unit of the keys that is too large", Lie::UnitUp(KvSide::K)),
            ("a unit of the values that is too large", Lie::UnitUp(KvSide::V)),
            ("no unit of the keys", Lie::UnitNone(KvSide::K)),
        ] {
            let player = wrong_element(two, &wide, site, 9, 37);
            let name = format!("a lie about an attention of layer {layer}: {lied}");
            games.push(lie(&name, 1, two, &wide, player, by));
        }
    }
    games.extend(draw_games::games(one));
    let (broken, about) = model_games::games(models.len());
    games.extend(about);
    let programs: Vec<Value> = models.iter().chain(&broken).map(program).collect();
    file("Games", programs, games)
}

/// A file of games, which `contracts/test/TEST.t.sol` plays again.
fn file(test: &str, programs: Vec<Value>, games: Vec<Value>) -> Value {
    json!({
        "about": format!("written by poc/src/dispute/tests/games.rs, played again by contracts/test/{test}.t.sol"),
        "chainId": 31_337,
        "hub": hex(Address::repeat_byte(0x0b)),
        "jobId": 7,
        "neuron": hex(NEURON),
        "models": programs,
        "games": games,
    })
}

/// Compares a file with what is played, or writes it.
pub(super) fn committed(name: &str, games: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../vectors/{name}.json"));
    let text = serde_json::to_string_pretty(games).unwrap() + "\n";
    if std::env::var_os("BITAI_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == text, "run with BITAI_WRITE_VECTORS=1 and commit");
}

#[test]
fn committed_games_are_what_is_played() {
    committed("games", &games());
}

#[test]
fn committed_games_about_elements_are_what_is_played() {
    let models = [Model::new(2), Model::second(2)];
    let games = row_games::games(&models[0], &models[1]);
    let programs = models.iter().map(program).collect();
    committed("row_games", &file("RowGames", programs, games));
}
