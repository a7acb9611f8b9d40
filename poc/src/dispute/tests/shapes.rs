//! One flipped integer in a run, propagated as a real fault would be: the neuron is convicted by the step
//! that made it, from roots and openings alone.

use super::*;

/// A neuron whose run has one wrong integer in `site` at `position`: the first element whose flip changes
/// any commitment at all (most of those before a quantisation vanish in it, and harm nobody).
pub(super) fn faulty(model: &Model, job: &Job, site: u32, position: u32) -> Option<Player<RunnerRegen>> {
    let honest = model.decode(job, &job.input_ids, None).transcript.root().unwrap();
    (0..64)
        .map(|element| {
            model.decode(
                job,
                &job.input_ids,
                Some(Fault {
                    site,
                    position,
                    element,
                }),
            )
        })
        .find(|claim| claim.transcript.root().unwrap() != honest)
}

/// Checks that a neuron with one wrong integer in any of these sites is convicted by that step.
fn convicts(model: &Model, job: &Job, sites: &[u32], position: u32, by: &str) -> Vec<Game> {
    let mut games = vec![];
    for site in sites {
        let Some(mut claim) = faulty(model, job, *site, position) else {
            continue;
        };
        let game = challenge(model, job, &mut claim);
        assert_eq!(step(&game), step_guilty(by), "site {site}: {game:#?}");
        let most = rounds_max(&Maxima {
            positions: 400,
            vocab: VOCAB,
            k: FF,
        });
        assert!(game.rounds <= most, "{} rounds", game.rounds);
        games.push(game);
    }
    assert!(!games.is_empty(), "no flip in {sites:?} changed a commitment");
    games
}

fn step_guilty(by: &str) -> Option<(bool, &'static str)> {
    STEPS.iter().find(|s| **s == by).map(|s| (true, *s))
}

/// The steps that tests name.
const STEPS: [&str; 9] = [
    "a linear's requantisation",
    "a linear's partial sum",
    "a quantised element",
    "a group's scale",
    "a norm",
    "a rotary embedding",
    "a gated unit",
    "a sum of rows",
    "an embedding of the job's id",
];

#[test]
fn convicts_one_flipped_integer_of_a_linear() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for layer in [0, 1] {
        let sites = model.sites(Some(layer), "linear");
        let games = convicts(&model, &job, &sites, 4, "a linear's requantisation");
        assert!(games.len() >= 3, "{} of {} linears", games.len(), sites.len());
    }
}

#[test]
fn convicts_one_flipped_integer_of_a_quantisation() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for layer in [0, 1] {
        let sites = model.sites(Some(layer), "quant");
        let games = convicts(&model, &job, &sites, 0, "a quantised element");
        assert!(
            games.len() >= 4,
            "{} of {} quantisations",
            games.len(),
            sites.len()
        );
    }
}

#[test]
fn convicts_one_flipped_integer_of_an_op_that_goes_element_by_element() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    convicts(&model, &job, &model.sites(Some(0), "rms_norm"), 11, "a norm");
    convicts(
        &model,
        &job,
        &model.sites(Some(0), "rope"),
        11,
        "a rotary embedding",
    );
    convicts(&model, &job, &model.sites(Some(0), "glu"), 11, "a gated unit");
    convicts(&model, &job, &model.sites(Some(1), "add"), 11, "a sum of rows");
    convicts(
        &model,
        &job,
        &model.sites(None, "embed"),
        2,
        "an embedding of the job's id",
    );
}

#[test]
fn convicts_a_token_that_is_not_the_largest_logit() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let site = model.sites(None, "sample")[0];
    for position in [6, 9, 11] {
        let mut claim = model.decode(
            &job,
            &job.input_ids,
            Some(Fault {
                site,
                position,
                element: 0,
            }),
        );
        let game = challenge(&model, &job, &mut claim);
        assert_eq!(
            step(&game),
            Some((true, "no logit exceeds the sampled one")),
            "{game:#?}"
        );
        assert_eq!(game.rounds, 3);
    }
}

#[test]
fn convicts_one_flipped_integer_of_attention_that_no_honest_sums_give() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for layer in [0, 1] {
        let site = model.sites(Some(layer), "attention")[0];
        let mut claim = faulty(&model, &job, site, 10).unwrap();
        let game = challenge(&model, &job, &mut claim);
        assert_eq!(game.verdict, Verdict::Guilty(Ground::Silence));
        assert_eq!(
            game.refused,
            Some(DisputeError::Answer(
                "parts that do not give the published element"
            ))
        );
    }
}

#[test]
fn convicts_a_neuron_that_ran_other_prompt_ids() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    for wrong in [0, 3, 6] {
        let mut other = job.input_ids.clone();
        other[wrong] += 1;
        let mut claim = model.decode(&job, &other, None);
        let game = challenge(&model, &job, &mut claim);
        assert_eq!(
            step(&game),
            Some((true, "an embedding of the job's id")),
            "{game:#?}"
        );
        assert!(
            game.moves
                .iter()
                .any(|m| m.what.contains(&format!("Token {{ pos: {wrong} }}")))
        );
    }
}

#[test]
fn convicts_in_a_tree_of_two_levels_and_a_head_of_many_parts() {
    let model = Model::new(1);
    let ids: Vec<u32> = (0..310).map(|i| i * 7 % VOCAB).collect();
    let job = model.job(ids, 3, Sampler::GREEDY);
    let site = model.sites(Some(0), "linear")[3];
    let mut claim = faulty(&model, &job, site, 300).unwrap();
    let game = challenge(&model, &job, &mut claim);
    assert_eq!(
        step(&game),
        Some((true, "a linear's requantisation")),
        "{game:#?}"
    );
    assert_eq!(game.moves.iter().filter(|m| m.what.contains("Tokens")).count(), 2);

    let site = model.sites(Some(0), "attention")[0];
    let claim = faulty(&model, &job, site, 300).unwrap();
    let game = fudge::play_lie(&model, &job, claim, fudge::Lie::KeySum);
    assert_eq!(
        step(&game),
        Some((true, "one key's probability and value")),
        "{game:#?}"
    );
    assert_eq!(game.rounds, 2 + 2 + 1 + 2);
}
