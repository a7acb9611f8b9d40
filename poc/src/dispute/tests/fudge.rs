//! Neurons that lie about inner numbers so that they fit what they published: each lie has its own
//! conviction. A defendant here answers honestly about its faulty run but for one number.

use bitai_kernels::reference::{
    attention::finish,
    sample::{draw, point},
};

use super::{
    inner::SiteRow,
    msg::{At, DrawSums, KeySums, KeysAnswer, KvSide, Max},
    *,
};

/// What the neuron is lying about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Nothing beyond what it committed.
    None,
    /// The sum over keys.
    KeySum,
    /// The largest score: too large.
    MaxUp,
    /// ... too small.
    MaxDown,
    /// The unit of the keys or values: too large.
    UnitUp(KvSide),
    /// ... too small.
    UnitDown(KvSide),
    /// ... not there at all.
    UnitNone(KvSide),
    /// A part of a linear's sum.
    LinearPart,
    /// The same: numbers that their sum's 64 bits do not hold.
    LinearOverflow,
    /// A group's absmax: too large.
    AbsUp,
    /// ... too small.
    AbsDown,
    /// The same before the transform: too large.
    RawUp,
    /// ... too small.
    RawDown,
    /// A part of a layer norm's plain sum.
    NormSum,
    /// A norm's largest magnitude: too large.
    NormMaxUp,
    /// ... too small.
    NormMaxDown,
    /// A part of a norm's sum of squares.
    NormSquares,
    /// A draw's sums.
    DrawSums,
    /// The sampled id's probability.
    DrawP,
    /// The largest logit: too large.
    DrawMaxUp,
    /// ... too small.
    DrawMaxDown,
    /// The threshold.
    DrawThreshold,
    /// The threshold's probability alone: the same ids are kept, so that nothing else has to be a lie.
    DrawThresholdP,
    /// A draw's masses: larger together than 64 bits.
    DrawOverflow,
}

/// A published unit, to lie about.
fn unit(a: &mut KeysAnswer, side: KvSide) -> &mut Option<Max<i16>> {
    match side {
        KvSide::K => &mut a.k_unit,
        KvSide::V => &mut a.v_unit,
    }
}

pub(super) struct Fudge<R> {
    player: Player<R>,
    lie: Lie,
    /// The element of attention that it published.
    keys: Option<KeysAnswer>,
}

/// The sum that makes a head's element come out as published.
fn acc_for(target: i32, z: u64, r: Option<i16>, p_bits: u8, f_out: u8) -> i64 {
    let (mut lo, mut hi) = (-(1i64 << 46), 1i64 << 46);
    while lo < hi {
        let mid = lo + (hi - lo) / 2;
        if finish(mid, z, r, p_bits, f_out) < target {
            lo = mid + 1
        } else {
            hi = mid
        }
    }
    lo
}

impl<R: Regenerate> Fudge<R> {
    /// A player that lies so.
    pub(super) fn new(player: Player<R>, lie: Lie) -> Self {
        let keys = None;
        Self { player, lie, keys }
    }

    fn keys(&mut self, at: At, mut a: KeysAnswer) -> KeysAnswer {
        let Some(Op::Attention { p_bits, f_out, .. }) = self.player.op(at.site).cloned() else {
            panic!("not an attention");
        };
        let head = self.player.head_keys(at).unwrap();
        let lower = |m: u32| {
            (head.lo..)
                .zip(&head.scores)
                .find(|(j, _)| *j != m)
                .map(|(j, _)| j)
                .unwrap()
        };
        let i = |j: u32| (j - head.lo) as usize;
        match self.lie {
            Lie::MaxUp => a.max.value += 1,
            Lie::MaxDown => {
                let j = lower(a.max.at);
                a.max = Max {
                    value: head.scores[i(j)],
                    at: j,
                };
            }
            Lie::UnitUp(side) => unit(&mut a, side).as_mut().unwrap().value += 1,
            Lie::UnitDown(side) => {
                // The exponent of another key that has a smaller one.
                let top = a.unit(side).unwrap().value;
                let exponents = head.exponents.iter().map(|e| e[side as usize].unwrap());
                let (at, value) = (head.lo..).zip(exponents).find(|(_, e)| *e < top).unwrap();
                *unit(&mut a, side) = Some(Max { value, at });
            }
            Lie::UnitNone(side) => *unit(&mut a, side) = None,
            _ => {}
        }
        let r = a.v_unit.map(|u| u.value);
        let z = a.parts.iter().map(|p| p.z).sum();
        let rows = self.player.rows(at.pos).unwrap();
        let Some(SiteRow::Acts(v)) = rows.row(at.site) else {
            panic!("no row")
        };
        let acc: i64 = a.parts.iter().map(|p| p.acc).sum();
        a.parts[0].acc += acc_for(v[at.element as usize], z, r, p_bits, f_out) - acc;
        a
    }

    /// Makes the keys of a part add up to the part that it published.
    fn key_part(&self, part: u32, shares: &mut [super::msg::KeyShare]) {
        let KeySums { acc, .. } = self.keys.as_ref().unwrap().parts[part as usize];
        let rest: i64 = shares[1..]
            .iter()
            .map(|s| i64::from(s.weight) * i64::from(s.value))
            .sum();
        let need = acc - rest;
        shares[0].value = if need < 0 { -1 } else { 1 };
        shares[0].weight = u32::try_from(need.unsigned_abs()).unwrap();
    }
}

impl<R: Regenerate> Defend for Fudge<R> {
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        let missing = DisputeError::Kind("this lie has no such answer");
        let mut answer = self.player.respond(ask)?;
        if self.lie == Lie::None {
            return Ok(answer);
        }
        match (&mut answer, *ask) {
            (Answer::Keys(a), Ask::Keys { pos, site, element }) => {
                *a = self.keys(At { pos, site, element }, a.clone());
                self.keys = Some(a.clone());
            }
            (Answer::KeyPart(shares), Ask::KeyPart { part, .. }) => self.key_part(part, shares),
            (Answer::Sum(parts), _) if self.lie == Lie::LinearOverflow => parts.fill(i64::MAX),
            (Answer::Sum(parts), _) if self.lie == Lie::LinearPart => *parts.last_mut().unwrap() += 1,
            (Answer::Group(g), Ask::Group { pos, site, .. }) => {
                let (_, SiteRow::Acts(row)) = self.player.input(pos, site, 0).unwrap() else {
                    panic!("no row");
                };
                let plain = g.raw == g.max;
                let next = if g.raw.at % 16 == 15 {
                    g.raw.at - 1
                } else {
                    g.raw.at + 1
                };
                let lower = Max {
                    value: row[next as usize].unsigned_abs(),
                    at: next,
                };
                match self.lie {
                    Lie::AbsUp => g.max.value += 1,
                    Lie::AbsDown => g.max.value -= 1,
                    Lie::RawUp => g.raw.value += 1,
                    Lie::RawDown => g.raw = lower,
                    _ => {}
                }
                if plain && matches!(self.lie, Lie::AbsUp | Lie::AbsDown) {
                    g.raw = g.max;
                }
                if plain && matches!(self.lie, Lie::RawUp | Lie::RawDown) {
                    g.max = g.raw;
                }
            }
            (Answer::Norm(a), _) => match self.lie {
                Lie::NormSum => *a.sums.last_mut().unwrap() += 1,
                Lie::NormMaxUp => a.max.value += 1,
                Lie::NormMaxDown => a.max.value -= 1,
                Lie::NormSquares => *a.squares.last_mut().unwrap() += 1,
                _ => {}
            },
            (Answer::Draw(a), Ask::Draw { pos }) => {
                let token = self.player.transcript.sampled_at(pos).ok_or(missing)?;
                match self.lie {
                    Lie::DrawMaxUp => a.max.value += 1,
                    Lie::DrawMaxDown => {
                        let (_, logits, _) = self.player.logits(pos)?;
                        let at = (a.max.at + 1) % VOCAB;
                        a.max = Max {
                            value: logits[at as usize],
                            at,
                        };
                    }
                    Lie::DrawThreshold => a.threshold.0 += 1,
                    Lie::DrawThresholdP => {
                        a.threshold.0 -= 1;
                        return Ok(answer);
                    }
                    Lie::DrawOverflow => {
                        for p in &mut a.parts[..2] {
                            (p.k_mass, p.mass) = (u64::MAX, u64::MAX);
                        }
                    }
                    _ => {}
                }
                if self.lie == Lie::DrawP || a.p == 0 || !a.thresholds().1.keeps(a.p, token) {
                    a.p = a.threshold.0 + 1;
                }
                let mass = DrawSums::total(&a.parts).mass;
                let r = point(draw(11, pos), mass);
                for p in &mut a.parts {
                    p.below = 0;
                }
                a.parts[0].below = r;
            }
            (Answer::DrawPart(subs), Ask::DrawPart { pos, part }) => {
                let token = self.player.transcript.sampled_at(pos).ok_or(missing)?;
                let Answer::Draw(head) = self.answer(&Ask::Draw { pos })? else {
                    return Err(DisputeError::Kind("not a draw"));
                };
                *subs = self.player.draw_part(pos, &head, token, part)?;
                for s in subs.iter_mut() {
                    s.below = 0;
                }
                let whole = &head.parts[part as usize];
                subs[0].below = whole.below;
                if self.lie == Lie::DrawOverflow {
                    (subs[0].k_mass, subs[0].mass) = (whole.k_mass, whole.mass);
                }
            }
            _ => {}
        }
        Ok(answer)
    }
}

/// Plays an honest challenger against a player that lies in its answers.
pub(super) fn play_lie<R: Regenerate>(model: &Model, job: &Job, player: Player<R>, lie: Lie) -> Game {
    let (outputs, root) = (
        player.transcript.outputs().to_vec(),
        player.transcript.root().unwrap(),
    );
    challenge_claim(model, job, &outputs, root, &mut Fudge::new(player, lie))
}

/// A player that published a wrong element of `site` at `pos` and of the last layer's committed row.
pub(super) fn wrong_element(
    model: &Model,
    job: &Job,
    site: u32,
    pos: u32,
    element: usize,
) -> Player<Tampered> {
    let out = *model
        .sites(Some(model.program.layers - 1), "out")
        .first()
        .unwrap() as usize;
    tampered(model, job, pos, move |rows| {
        match rows.0[site as usize].as_mut().unwrap() {
            SiteRow::Acts(v) => v[element] += 9,
            SiteRow::Quant { data, .. } => data[element] ^= 1,
            other => panic!("{other:?}"),
        }
        if let Some(SiteRow::Acts(v)) = rows.0[out].as_mut() {
            v[0] += 1;
        }
    })
}

/// An element at position 9 of a head whose keys have more than one exponent.
fn uneven(model: &Model, job: &Job, site: u32, side: KvSide) -> Option<u32> {
    let Op::Attention { heads, head_dim, .. } = model.program.sites[site as usize].op else {
        panic!("not an attention");
    };
    let mut honest = model.decode(job, &job.input_ids, None);
    (0..heads).map(|h| h * head_dim + 5).find(|element| {
        let at = At {
            pos: 9,
            site,
            element: *element,
        };
        let exponents = honest.head_keys(at).unwrap().exponents;
        let all = exponents.iter().filter_map(|e| e[side as usize]);
        all.clone().min() != all.max()
    })
}

#[test]
fn convicts_lies_about_an_attention() {
    let (attained, bounds) = (
        "a unit is the exponent of its key's scale",
        "a unit bounds every key's exponent",
    );
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    let mut uneven_heads = [0; 2];
    for layer in [0, 1] {
        let site = model.sites(Some(layer), "attention")[0];
        for (lie, by) in [
            (Lie::KeySum, "one key's probability and value"),
            (Lie::MaxUp, "the largest score is attained"),
            (Lie::MaxDown, "the largest score bounds every key"),
            (Lie::UnitUp(KvSide::K), attained),
            (Lie::UnitUp(KvSide::V), attained),
            (Lie::UnitNone(KvSide::K), bounds),
        ] {
            let player = wrong_element(&model, &job, site, 9, 37);
            let game = play_lie(&model, &job, player, lie);
            assert_eq!(step(&game), Some((true, by)), "{lie:?}: {game:#?}");
        }
        for side in [KvSide::K, KvSide::V] {
            // A head whose keys do not all have the same exponent.
            let Some(element) = uneven(&model, &job, site, side) else {
                continue;
            };
            uneven_heads[side as usize] += 1;
            let player = wrong_element(&model, &job, site, 9, element as usize);
            let game = play_lie(&model, &job, player, Lie::UnitDown(side));
            assert_eq!(step(&game), Some((true, bounds)), "{side:?}: {game:#?}");
        }
        // Without a unit of the values the element is 0; say that it was.
        let out = model.sites(Some(1), "out")[0] as usize;
        let player = tampered(&model, &job, 9, move |rows| {
            if let Some(SiteRow::Acts(v)) = rows.0[site as usize].as_mut() {
                v[37] = 0;
            }
            if let Some(SiteRow::Acts(v)) = rows.0[out].as_mut() {
                v[0] += 1;
            }
        });
        let game = play_lie(&model, &job, player, Lie::UnitNone(KvSide::V));
        assert_eq!(step(&game), Some((true, bounds)), "{game:#?}");
    }
    assert!(uneven_heads.iter().all(|n| *n > 0), "{uneven_heads:?}");
}

#[test]
fn convicts_lies_about_a_linear() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for layer in [0, 1] {
        for site in model.sites(Some(layer), "linear") {
            let player = wrong_element(&model, &job, site, 5, 30);
            let game = play_lie(&model, &job, player, Lie::LinearPart);
            assert_eq!(step(&game), Some((true, "a linear's partial sum")), "{game:#?}");
        }
    }
}

#[test]
fn convicts_lies_about_a_quantised_group() {
    let model = Model::new(2);
    let job = small(&model, Sampler::GREEDY);
    for site in model.sites(Some(1), "quant") {
        for (lie, by) in [
            (Lie::AbsUp, "a group's absmax is attained"),
            (Lie::AbsDown, "a group's absmax bounds every element"),
            (Lie::RawUp, "a group's absmax is attained"),
            (Lie::RawDown, "a group's absmax bounds every element"),
        ] {
            let player = wrong_element(&model, &job, site, 5, 11);
            let game = play_lie(&model, &job, player, lie);
            assert_eq!(step(&game), Some((true, by)), "{lie:?}: {game:#?}");
        }
    }
}

#[test]
fn convicts_a_wrong_scale() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let out = model.sites(Some(0), "out")[0] as usize;
    for site in model.sites(Some(0), "quant") {
        let mut claim = tampered(&model, &job, 3, move |rows| {
            if let Some(SiteRow::Quant { scales, .. }) = rows.0[site as usize].as_mut() {
                scales.last_mut().unwrap().e += 1;
            }
            if let Some(SiteRow::Acts(v)) = rows.0[out].as_mut() {
                v[0] += 1;
            }
        });
        let game = challenge(&model, &job, &mut claim);
        assert_eq!(step(&game), Some((true, "a group's scale")), "{game:#?}");
    }
}

#[test]
fn convicts_wrong_rows_after_the_last_layer() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    for (name, by) in [
        ("rms_norm", "a norm"),
        ("quant", "a quantised element"),
        ("linear", "a linear's requantisation"),
    ] {
        let site = model.sites(None, name)[0] as usize;
        let mut claim = tampered(&model, &job, 11, move |rows| {
            match rows.0[site].as_mut().unwrap() {
                SiteRow::Acts(v) => *v.last_mut().unwrap() += 5,
                SiteRow::Quant { data, .. } => data[1] += 1,
                other => panic!("{other:?}"),
            }
            if let Some(SiteRow::Token(id)) = rows.0.last_mut().unwrap() {
                *id = (*id + 1) % VOCAB;
            }
        });
        let game = challenge(&model, &job, &mut claim);
        assert_eq!(step(&game), Some((true, by)), "{name}: {game:#?}");
    }
}

#[test]
fn convicts_inner_rows_that_are_not_the_committed_ones() {
    let model = Model::new(1);
    let job = small(&model, Sampler::GREEDY);
    let honest = model.decode(&job, &job.input_ids, None);
    // The tree holds a wrong body, the inner rows are right: they contradict each other.
    let header = *honest.transcript.header();
    let kv = model.sites(Some(0), "kv_append")[0] as usize;
    let claim = tampered(&model, &job, 4, move |rows| {
        if let Some(SiteRow::Kv(bytes)) = rows.0[kv].as_mut() {
            bytes[3] ^= 1;
        }
    });
    let (outputs, root) = (
        claim.transcript.outputs().to_vec(),
        claim.transcript.root().unwrap(),
    );
    /// Publishes the tampered token with the honest units.
    struct TwoFaced(Player<Tampered>, Player<RunnerRegen>);
    impl Defend for TwoFaced {
        fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
            let answer = self.0.answer(ask)?;
            match (answer, self.1.answer(ask)?) {
                (Answer::Token { node, layers, .. }, Answer::Token { units, .. }) => {
                    Ok(Answer::Token { node, layers, units })
                }
                (_, unit @ Answer::Unit(_)) => Ok(unit),
                (answer, _) => Ok(answer),
            }
        }
    }
    let game = challenge_claim(&model, &job, &outputs, root, &mut TwoFaced(claim, honest));
    assert_eq!(
        game.verdict,
        Verdict::Guilty(Ground::Contradiction(
            "the KV row is not the one that the token commits"
        )),
        "{game:#?}"
    );
    assert_eq!(header.layers, 1);
}

#[test]
fn convicts_lies_about_a_draw() {
    let model = Model::new(1);
    let job = small(&model, random(40, 60_000));
    let mut honest = model.decode(&job, &job.input_ids, None);
    let last = *honest.transcript.outputs().last().unwrap();
    // Likely ids are kept by the threshold, so that only their sums have to be a lie; unlikely ones are not.
    let (_, logits, _) = honest.logits(11).unwrap();
    let mut by_logit: Vec<u32> = (0..VOCAB).filter(|id| *id != last).collect();
    by_logit.sort_by_key(|id| std::cmp::Reverse(logits[*id as usize]));
    let wrong = |id: u32| {
        tampered(&model, &job, 11, move |rows| {
            if let Some(SiteRow::Token(token)) = rows.0.last_mut().unwrap() {
                *token = id;
            }
        })
    };
    let mut by_step: Vec<&str> = vec![];
    for id in by_logit.into_iter().take(60).step_by(12) {
        // An honest head cannot hold the draw in a wrong id's interval.
        let game = challenge(&model, &job, &mut wrong(id));
        assert_eq!(game.verdict, Verdict::Guilty(Ground::Silence), "{game:#?}");
        for lie in [
            Lie::DrawSums,
            Lie::DrawP,
            Lie::DrawMaxUp,
            Lie::DrawMaxDown,
            Lie::DrawThreshold,
        ] {
            let game = play_lie(&model, &job, wrong(id), lie);
            assert!(matches!(game.verdict, Verdict::Guilty(_)), "{lie:?}: {game:#?}");
            by_step.extend(step(&game).map(|s| s.1));
        }
    }
    for needed in [
        "the sums over a few ids",
        "the sampled id's probability",
        "the largest logit is attained",
        "the largest logit bounds every id",
    ] {
        assert!(
            by_step.contains(&needed),
            "no lie was convicted by {needed}: {by_step:?}"
        );
    }
}
