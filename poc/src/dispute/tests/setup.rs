//! What a judge refuses before and between moves.

use super::*;

#[test]
fn rejects_a_program_that_is_not_the_models() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let claim = model.decode(&job, &job.input_ids, None);
    let root = claim.transcript.root().unwrap();
    let outputs = claim.transcript.outputs().to_vec();
    let mut other = (*model.program).clone();
    other.context += 1;
    let branches = model.pack().branches();
    let judge = Judge::new(revealed(&job, &outputs, root), other, branches);
    assert!(matches!(judge, Err(DisputeError::Setup(_))));
    // With another number of tensors no weight would open, and no step that reads one could be accused.
    let (mut more, mut fewer, mut tokenizer) = (branches, branches, branches);
    more.tensor_count += 1;
    fewer.tensor_count -= 1;
    tokenizer.tokenizer[0] ^= 1;
    for other in [more, fewer, tokenizer] {
        let claim = revealed(&job, &outputs, root);
        let judge = Judge::new(claim, (*model.program).clone(), other);
        assert!(matches!(judge, Err(DisputeError::Setup(_))));
    }
}

#[test]
fn convicts_an_output_that_the_job_does_not_allow() {
    let model = Model::new(1);
    let mut job = small(&model, Sampler::GREEDY);
    job.stop_ids = vec![VOCAB - 1];
    let run = model.decode(&job, &job.input_ids, None);
    let (root, good) = (run.transcript.root().unwrap(), run.transcript.outputs().to_vec());
    assert!(
        !good.contains(&(VOCAB - 1)),
        "the test needs an output without its stop id"
    );
    let range = "an output id is outside the vocabulary";
    let end = "the output does not end where the job says";
    let with = |f: &dyn Fn(&mut Vec<u32>)| {
        let mut outputs = good.clone();
        f(&mut outputs);
        outputs
    };
    for (outputs, why) in [
        (with(&|o| o[2] = VOCAB), range),
        (with(&|o| o[5] = u32::MAX), range),
        (with(&|o| o.push(1)), end),
        (with(&|o| o.truncate(5)), end),
        (with(&|o| o.clear()), end),
        (with(&|o| o[1] = VOCAB - 1), end),
    ] {
        let mut judge = model.judge_root(&job, &outputs, root);
        let guilty = Verdict::Guilty(Ground::Contradiction(why));
        assert_eq!(judge.verdict(WHO), Some(guilty), "{outputs:?}");
        assert_eq!(judge.join(WHO), Err(DisputeError::Decided));
        // A game about it is over before its first move.
        let mut claim = model.decode(&job, &job.input_ids, None);
        let mut challenger = Challenger::new(model.recheck(&job, &good, None));
        let game = play(&mut judge, WHO, &mut challenger, &mut claim);
        assert_eq!((game.verdict, game.moves.len()), (guilty, 0));
    }
    let mut judge = model.judge_root(&job, &good, root);
    assert_eq!(judge.join(WHO), Ok(()));
}

#[test]
fn convicts_a_claim_on_a_program_that_answers_no_job() {
    let guilty = Ground::Contradiction("the program puts out nothing that a job can ask for");
    let change = |f: &dyn Fn(&mut Program)| {
        let mut model = Model::new(1);
        f(Arc::make_mut(&mut model.program));
        model.program.validate().unwrap();
        assert!(model.program.answers().is_err());
        let job = small(&model, Sampler::GREEDY);
        let judge = model.judge_root(&job, &[1; 6], TraceRoot(NOBODYS));
        assert_eq!(judge.convicted(), Some(guilty));
    };
    // Nothing is sampled.
    change(&|p| drop(p.sites.pop()));
    // What is sampled depends on what comes after it.
    change(&|p| {
        for site in &mut p.sites {
            if let Op::Attention { causal, .. } = &mut site.op {
                *causal = false;
            }
        }
    });
}

#[test]
fn rejects_asks_whose_parent_is_not_published_and_asks_twice() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let mut claim = model.decode(&job, &job.input_ids, None);
    let root = claim.transcript.root().unwrap();
    let mut judge = model.judge_root(&job, claim.transcript.outputs(), root);
    judge.join(WHO).unwrap();
    let side = inner::Side::Data;
    for ask in [
        Ask::Token { pos: 3 },
        Ask::Unit { pos: 3, unit: 0 },
        Ask::Row {
            pos: 3,
            site: 1,
            side,
        },
        Ask::Piece {
            pos: 3,
            site: 1,
            side,
            index: 0,
        },
        Ask::Sum {
            pos: 3,
            site: 3,
            element: 0,
        },
        Ask::Group {
            pos: 3,
            site: 2,
            group: 0,
        },
        Ask::Draw { pos: 9 },
        Ask::DrawPart { pos: 9, part: 0 },
    ] {
        assert!(
            matches!(super::ask(&mut judge, ask), Err(DisputeError::Unpublished(_))),
            "{ask:?}"
        );
    }
    for ask in [
        Ask::Tokens { height: 0, index: 0 },
        Ask::Tokens { height: 5, index: 0 },
        Ask::Tokens { height: 4, index: 1 },
        Ask::Token { pos: 12 },
    ] {
        assert!(
            matches!(super::ask(&mut judge, ask), Err(DisputeError::Range { .. })),
            "{ask:?}"
        );
    }
    let ask = Ask::Tokens { height: 4, index: 0 };
    let id = super::ask(&mut judge, ask).unwrap();
    let Answer::Tokens(mut nodes) = claim.respond(&ask).unwrap() else {
        panic!()
    };
    assert_eq!(
        judge.answer(NEURON, [0; 32], Answer::Tokens(nodes.clone())),
        Err(DisputeError::NotAsked)
    );
    nodes[2][0] ^= 1;
    let bad = Answer::Tokens(nodes.clone());
    assert!(matches!(
        judge.answer(NEURON, id, bad),
        Err(DisputeError::Answer(_))
    ));
    nodes[2][0] ^= 1;
    assert_eq!(judge.answer(NEURON, id, Answer::Tokens(nodes.clone())), Ok(None));
    assert_eq!(super::ask(&mut judge, ask), Err(DisputeError::Published));
    assert_eq!(
        judge.answer(NEURON, id, Answer::Tokens(nodes)),
        Err(DisputeError::NotAsked)
    );
}

#[test]
fn silence_loses_for_whoever_is_to_move() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let claim = model.decode(&job, &job.input_ids, None);
    let root = claim.transcript.root().unwrap();
    let judge = || {
        let mut judge = model.judge_root(&job, claim.transcript.outputs(), root);
        judge.join(WHO).unwrap();
        judge
    };
    assert_eq!(judge().timeout(WHO), Ok(Verdict::Cleared(Ground::Silence)));
    let mut asked = judge();
    let first = Ask::Tokens { height: 4, index: 0 };
    ask(&mut asked, first).unwrap();
    assert_eq!(asked.timeout(WHO), Ok(Verdict::Guilty(Ground::Silence)));
    assert_eq!(ask(&mut asked, first), Err(DisputeError::Decided));
}

#[test]
fn convicts_a_root_that_nobody_computed() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let mut claim = model.decode(&job, &job.input_ids, None);
    let outputs = claim.transcript.outputs().to_vec();
    let game = challenge_claim(&model, &job, &outputs, TraceRoot(NOBODYS), &mut claim);
    assert_eq!(game.verdict, Verdict::Guilty(Ground::Silence));
}

#[test]
fn decode_and_prefill_give_one_root_and_one_inner_transcript() {
    let model = Model::new(2);
    for sampler in [Sampler::GREEDY, random(0, 65_536)] {
        let job = small(&model, sampler);
        let mut a = model.decode(&job, &job.input_ids, None);
        let mut b = model.recheck(&job, a.transcript.outputs(), None);
        assert_eq!(a.transcript, b.transcript);
        for pos in 0..12 {
            let rows = a.rows(pos).unwrap();
            assert_eq!(rows, b.rows(pos).unwrap());
            // What the probe shows hashes to what the device hashed.
            let node = rows.node(pos, &model.program, a.transcript.header()).unwrap();
            assert_eq!(node.body, a.transcript.body_roots()[pos as usize], "{pos}");
            assert_eq!(node.sampled, a.transcript.sampled_at(pos));
        }
    }
}

#[test]
fn a_re_check_names_the_first_token_and_layer_of_a_flipped_integer() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for (site, layer) in [
        (model.sites(Some(0), "quant")[3], 0),
        (model.sites(Some(1), "quant")[3], 1),
    ] {
        let fault = Fault {
            site,
            position: 9,
            element: 2,
        };
        let mut theirs = model.decode(&job, &job.input_ids, Some(fault));
        let mut mine = model.recheck(&job, theirs.transcript.outputs(), None);
        let claimed = theirs.transcript.root().unwrap();
        let verdict = crate::recheck::compare(claimed, &mine.transcript, Some(&theirs.transcript)).unwrap();
        assert!(
            matches!(
                verdict,
                crate::Verdict::Differs(crate::Divergence::Token { pos: 9, .. })
            ),
            "{verdict}"
        );
        let found = crate::recheck::locate(
            (&mine.transcript, &mut mine.regen),
            (&theirs.transcript, &mut theirs.regen),
            &model.program,
        );
        let found = found.unwrap().unwrap();
        assert_eq!(
            found.to_string(),
            format!("token 9, layer {layer}: the KV row differs")
        );
    }
}
