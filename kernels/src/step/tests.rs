//! Every input is defined, every layout is exact, and steps put together are the whole rules.

use proptest::prelude::*;

use super::*;
use crate::{
    num::{Scale, absmax},
    ops::{AttentionParams, NormParams},
    reference::{attention, glu, layer_norm, linear, norm, quant, rope, sample},
    rows::{kv_record_len, kv_row_len},
};

/// An input from its fields' bytes.
fn input(kind: Kind, fields: &[&[u8]]) -> Vec<u8> {
    [&[kind as u8][..], &fields.concat()].concat()
}

fn run(kind: Kind, fields: &[&[u8]]) -> Vec<u8> {
    execute(&input(kind, fields)).unwrap()
}

fn le32(v: &[i32]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn le64(v: &[i64]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn bytes8(v: &[i8]) -> &[u8] {
    bytemuck::cast_slice(v)
}

fn as_u64(b: &[u8]) -> u64 {
    u64::from_le_bytes(b.try_into().unwrap())
}

#[test]
fn numbers_and_names_are_distinct() {
    for (i, a) in Kind::ALL.iter().enumerate() {
        assert_eq!(Kind::from_number(*a as u8), Some(*a));
        assert!(
            Kind::ALL[..i]
                .iter()
                .all(|b| a.name() != b.name() && (*b as u8) < *a as u8)
        );
    }
    assert_eq!(Kind::ALL.len(), 29);
}

#[test]
fn rejects_what_is_no_step() {
    assert_eq!(execute(&[]), Err(StepError::Empty));
    assert_eq!(execute(&[0]), Err(StepError::Kind(0)));
    assert_eq!(execute(&[0xff, 1, 2]), Err(StepError::Kind(0xff)));
}

#[test]
fn rejects_an_input_that_is_too_short_or_too_long() {
    let kind = Kind::Add;
    for len in 0..8 {
        let e = execute(&input(kind, &[&[0; 8][..len]])).unwrap_err();
        assert!(
            matches!(e, StepError::Length { got, .. } if got == len + 1),
            "{e}"
        );
    }
    let e = execute(&input(kind, &[&[0; 9]])).unwrap_err();
    assert_eq!(e.to_string(), "add: 10 bytes, its layout needs 9");
}

#[test]
fn rejects_fields_outside_their_range() {
    let bad: [(Kind, Vec<u8>, &str); 12] = [
        (Kind::LinearPart, vec![3], "planes is 3, it must be 1 or 2"),
        (Kind::LinearPart, vec![1, 2], "grouped is 2"),
        (Kind::LinearPart, vec![1, 0, 0, 0], "count is 0"),
        (Kind::LinearPart, vec![1, 0, 1, 1], "count is 257"),
        (Kind::LinearFinish, vec![1, 16, 3], "segments is 3"),
        (Kind::WeightBounds, vec![0, 1, 0, 1, 0], "count is 65537"),
        (Kind::KeyScore, vec![0, 0], "head_dim is 0"),
        (Kind::KeyShare, vec![2, 0, 2, 0, 16], "p_bits is 16"),
        (
            Kind::AttentionFinish,
            vec![15, 16, 0, 1, 0],
            "exponent of no unit is 1",
        ),
        (Kind::Magnitude, vec![3, 0, 0, 0], "block is 3"),
        (Kind::Magnitude, vec![2, 0, 2, 0], "index is 2"),
        (Kind::Glu, vec![3], "act is 3"),
    ];
    for (kind, fields, text) in bad {
        let e = execute(&input(kind, &[&fields])).unwrap_err().to_string();
        assert!(e.contains(text) && e.starts_with(kind.name()), "{e}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_result_or_an_error(kind in prop::sample::select(Kind::ALL), rest: Vec<u8>) {
        let _ = execute(&input(kind, &[&rest]));
    }

    /// Shapes that are right, values that are anything.
    #[test]
    fn hostile_values_are_defined(kind in prop::sample::select(Kind::ALL), shape in 0u8..3, seed: [u8; 32]) {
        let mut fill = blake3::Hasher::new_keyed(&seed).finalize_xof();
        let mut shaped = match kind {
            Kind::LinearPart => vec![1 + (shape & 1), shape & 1, 33, 0],
            Kind::LinearFinish => vec![1 + (shape & 1), 16, 1 << shape, 3, 0],
            Kind::WeightBounds => vec![shape & 1, 40, 0, 0, 0],
            Kind::KeyScore => vec![8, 0, 1, 2, 3, 4, 1],
            Kind::KeyShare => vec![8, 0, 7, 0, 15 + 8 * (shape & 1), 1, 2, 3, 4, 1, 9, 9, 1],
            Kind::KeySums | Kind::IdTotal | Kind::Sum => vec![5, 0],
            Kind::AttentionFinish => vec![23, 16, 1, seed[0], seed[1], 2, 0],
            Kind::Magnitude => vec![8, 0, 7, 0],
            Kind::QuantScale => vec![1 + (shape & 1), seed[0], 1],
            Kind::QuantElement => vec![1 + (shape & 1), 8, 0, 3, 0],
            Kind::Glu | Kind::Act => vec![shape],
            Kind::KvRecord => vec![4, 0, 100, 0, 84, 0],
            _ => vec![],
        };
        // The rest by the length that the errors name; counts in the middle are kept small.
        let out = loop {
            match execute(&input(kind, &[&shaped])) {
                Ok(out) => break out,
                Err(StepError::Length { got, need, .. }) if got < need => {
                    let at = shaped.len();
                    shaped.resize(need - 1, 0);
                    fill.fill(&mut shaped[at..]);
                }
                Err(StepError::Field { field, .. }) => match field {
                    "count" => { let n = shaped.len(); shaped[n - 2..].copy_from_slice(&[3, 0]); }
                    "group" => { let n = shaped.len(); shaped[n - 4..].copy_from_slice(&[0, 128, 0, 0]); }
                    "unit" | "exponent of no unit" => prop_assert!(false, "shape"),
                    _ => { let n = shaped.len(); shaped[n - 1] = 1; }
                },
                Err(e) => return Err(TestCaseError::fail(e.to_string())),
            }
        };
        prop_assert!(!out.is_empty());
    }

    #[test]
    fn a_linear_is_its_parts_and_their_end(
        x in prop::collection::vec(-32_639i16..=32_639, 512), w in prop::collection::vec(any::<i8>(), 512),
        mults in prop::collection::vec(any::<u8>(), 16), scale: [u8; 4], xs: [[u8; 4]; 2], bias: i32, f_out: u8, two: bool,
    ) {
        let planes = if two { 2 } else { 1 };
        let x: Vec<i16> = if two { x } else { x.iter().map(|v| i16::from(*v as i8)).collect() };
        let scales = xs.map(Scale::from_bytes);
        let want = linear::output(&x, &scales, planes, &w, &mults, Scale::from_bytes(scale), bias, f_out);
        let mut parts = vec![];
        for i in 0..4 {
            let range = i * 128..(i + 1) * 128;
            let ints: Vec<u8> = x[range.clone()].iter().flat_map(|v| v.to_le_bytes()[..usize::from(planes)].to_vec()).collect();
            parts.extend(run(Kind::LinearPart, &[&[planes, 1], &128u16.to_le_bytes(), &ints, bytes8(&w[range]), &mults[i * 4..(i + 1) * 4]]));
        }
        let got = run(Kind::LinearFinish, &[&[planes, f_out, 2, 2, 0], &scale, &bias.to_le_bytes(), &xs.concat(), &parts]);
        prop_assert_eq!(got, want.to_le_bytes());
    }

    #[test]
    fn a_quantised_group_is_its_steps(v in prop::collection::vec(any::<i32>(), 16), planes in 1u8..3, block in 0u16..5, f_in in 0u8..31) {
        let block: u16 = if block == 0 { 0 } else { 1 << block };
        let mut out = vec![0; 16];
        let scale = quant::quantise(&v, planes, block.into(), f_in, &mut out);
        let len = usize::from(block.max(1));
        let raw = absmax(&v).0.to_le_bytes();
        let magnitude = |i: usize| {
            let values = le32(&v[i / len * len..i / len * len + len]);
            let at = if block == 0 { 0 } else { (i % len) as u16 };
            (at, values.clone(), run(Kind::Magnitude, &[&block.to_le_bytes(), &at.to_le_bytes(), &raw, &values]))
        };
        let max = (0..16).map(|i| u32::from_le_bytes(magnitude(i).2.try_into().unwrap())).max().unwrap().to_le_bytes();
        prop_assert_eq!(run(Kind::QuantScale, &[&[planes, f_in, u8::from(block > 0)], &raw, &max]), scale.to_bytes());
        for (i, q) in out.iter().enumerate() {
            let (at, values, _) = magnitude(i);
            let got = run(Kind::QuantElement, &[&[planes], &block.to_le_bytes(), &at.to_le_bytes(), &raw, &max, &values]);
            prop_assert_eq!(&got, &q.to_le_bytes()[..usize::from(planes)]);
        }
    }

    #[test]
    fn norms_are_their_steps(h in prop::collection::vec(any::<i32>(), 300), gain: i32, bias: i32, gain_f: i8, f_out: u8, eps: u64) {
        let d = 300u32.to_le_bytes();
        let gains = vec![gain; 300];
        let p = NormParams { gain: &gains, gain_f, eps, f_out };
        let (mut rms, mut ln) = (vec![0; 300], vec![0; 300]);
        norm::rms_norm(p, &h, &mut rms);
        layer_norm::layer_norm(p, &vec![bias; 300], &h, &mut ln);
        let max = absmax(&h).0.to_le_bytes();
        let halves = [&h[..256], &h[256..]].map(|p| ((p.len() as u16).to_le_bytes(), le32(p)));
        let squares = halves.clone().map(|(n, p)| run(Kind::Squares, &[&max, &n, &p])).concat();
        let got = run(Kind::RmsElement, &[&d, &eps.to_le_bytes(), &[gain_f as u8, f_out], &max, &[2, 0],
            &h[7].to_le_bytes(), &gain.to_le_bytes(), &squares]);
        prop_assert_eq!(got, rms[7].to_le_bytes());
        let sum: i64 = halves.clone().map(|(n, p)| as_u64(&run(Kind::Sum, &[&n, &p])) as i64).iter().sum();
        let sum = sum.to_le_bytes();
        let max = h.iter().map(|h| as_u64(&run(Kind::Centred, &[&d, &sum, &h.to_le_bytes()]))).max().unwrap().to_le_bytes();
        let squares = halves.map(|(n, p)| run(Kind::CentredSquares, &[&d, &sum, &max, &n, &p])).concat();
        let got = run(Kind::LayerElement, &[&d, &eps.to_le_bytes(), &[gain_f as u8, f_out], &sum, &max, &[2, 0],
            &h[7].to_le_bytes(), &gain.to_le_bytes(), &bias.to_le_bytes(), &squares]);
        prop_assert_eq!(got, ln[7].to_le_bytes());
    }

    #[test]
    fn a_head_is_its_steps(raw in prop::collection::vec(any::<u8>(), 5 * 24), q in prop::collection::vec(any::<i8>(), 8),
                           q_scale in 1u16.., e in -30i16..-10, wide: bool) {
        let (d, p_bits) = (8usize, if wide { 23 } else { 15 });
        let q_scale = Scale { m: q_scale, e };
        let p = AttentionParams { heads: 1, kv_heads: 1, head_dim: d, scale: Scale { m: 47_274, e: -18 }, p_bits,
            window: 0, causal: true, f_out: 16 };
        let q16: Vec<i16> = q.iter().map(|x| i16::from(*x)).collect();
        let row_len = kv_record_len(d);
        prop_assert_eq!(row_len, 24);
        let head = attention::head_sums(p, &q16, q_scale, 0, 4, &raw, row_len);
        let mut out = vec![0; d];
        attention::attention_head(p, &q16, q_scale, 0, 4, &raw, row_len, &mut out);
        let unit = |u: Option<i16>| [vec![u8::from(u.is_some())], u.unwrap_or(0).to_le_bytes().to_vec()].concat();
        let (k_unit, v_unit) = (unit(head.k_unit), unit(head.v_unit));
        let mut shares = vec![];
        for (j, record) in raw.chunks(row_len).enumerate() {
            let (k_scale, v_scale) = (&record[d..d + 4], &record[2 * d + 4..]);
            prop_assert!(run(Kind::KeyUnit, &[k_scale])[0] == 0 || k_unit[0] == 1);
            prop_assert_eq!(run(Kind::KeyUnit, &[v_scale]), unit(attention::exponent(Scale::from_bytes(v_scale.try_into().unwrap()))));
            let opened = [&q_scale.to_bytes()[..], bytes8(&q), record].concat();
            let dim = (d as u16).to_le_bytes();
            let score = run(Kind::KeyScore, &[&dim, &p.scale.to_bytes(), &k_unit, &opened]);
            prop_assert_eq!(score, head.scores[j].to_le_bytes());
            let share = run(Kind::KeyShare, &[&dim, &[5, 0, p_bits], &p.scale.to_bytes(), &k_unit, &v_unit,
                &head.max.to_le_bytes(), &(j as u32).to_le_bytes(), &opened]);
            prop_assert_eq!(&share[..4], head.exps[j].to_le_bytes());
            prop_assert_eq!(&share[4..8], head.weights[j].to_le_bytes());
            shares.extend(share);
        }
        let sums = run(Kind::KeySums, &[&[5, 0], &shares]);
        prop_assert_eq!(run(Kind::AttentionFinish, &[&[p_bits, 16], &v_unit, &[1, 0], &sums]), out[5].to_le_bytes());
    }

    #[test]
    fn a_draw_is_its_steps(logits in prop::collection::vec(-900_000i32..900_000, 1..40), temperature in 1u32..200_000,
                           top_k in 0u32..9, top_p in 0u32..70_000, seed: u64, pos: u32) {
        let sampler = crate::Sampler::Random { temperature_q16: temperature, top_k, top_p_q16: top_p, seed };
        let token = sample::sample(&logits, 16, &sampler, pos);
        let probs = sample::probabilities(&logits, temperature, 16);
        let max = logits.iter().max().unwrap().to_le_bytes();
        let k_cut = if top_k == 0 { sample::Threshold { p: 0, id: u32::MAX } } else { sample::threshold(&probs, top_k, 1 << 16) };
        // top_p = 1 may stop before ids of probability 0; the k-th by order is what top-k means.
        let k_cut = if top_k == 0 { k_cut } else { kth(&probs, top_k) };
        let cut = sample::threshold(&probs, top_k, top_p);
        let t = |t: sample::Threshold| [t.p.to_le_bytes(), t.id.to_le_bytes()].concat();
        let fixed = [&[16][..], &temperature.to_le_bytes(), &max].concat();
        let p = run(Kind::Probability, &[&fixed, &logits[token as usize].to_le_bytes()]);
        prop_assert_eq!(&p, &probs[token as usize].to_le_bytes());
        let half = logits.len().div_ceil(2);
        let parts: Vec<Vec<u8>> = logits.chunks(half).enumerate().map(|(i, l)| run(Kind::IdSums, &[&fixed, &t(k_cut), &t(cut),
            &token.to_le_bytes(), &((i * half) as u32).to_le_bytes(), &(l.len() as u16).to_le_bytes(), &le32(l)])).collect();
        let total = run(Kind::IdTotal, &[&(parts.len() as u16).to_le_bytes(), &parts.concat()]);
        let draw = |token: u32, p: &[u8]| run(Kind::Draw, &[&(logits.len() as u32).to_le_bytes(), &top_k.to_le_bytes(), &top_p.to_le_bytes(),
            &seed.to_le_bytes(), &pos.to_le_bytes(), &t(k_cut), &t(cut), p, &token.to_le_bytes(), &total]);
        prop_assert_eq!(draw(token, &p), [0]);
        prop_assert_eq!(draw(token, &[0; 4]), [2], "an id without probability holds no draw");
    }
}

/// The k-th in the order of rule S4.
fn kth(probs: &[u32], k: u32) -> sample::Threshold {
    let mut order: Vec<u32> = (0..probs.len() as u32).collect();
    order.sort_by_key(|id| (std::cmp::Reverse(probs[*id as usize]), *id));
    let id = order[(k as usize).min(order.len()) - 1];
    sample::Threshold {
        p: probs[id as usize],
        id,
    }
}

#[test]
fn a_cached_row_is_its_records() {
    for (heads, d) in [(1u16, 4u16), (3, 64), (9, 64), (5, 128), (3, 300), (2, 600)] {
        let (d8, mut row) = (usize::from(d), Vec::<u8>::new());
        for head in 0..heads {
            let record: Vec<u8> = (0..kv_record_len(d8))
                .map(|i| (i * 7 + usize::from(head) + 1) as u8)
                .collect();
            let out = run(
                Kind::KvRecord,
                &[
                    &d.to_le_bytes(),
                    &heads.to_le_bytes(),
                    &head.to_le_bytes(),
                    &record,
                ],
            );
            assert_eq!(out[..4], (row.len() as u32).to_le_bytes());
            assert_eq!(out[4..4 + record.len()], record);
            assert!(out[4 + record.len()..].iter().all(|b| *b == 0));
            row.extend(&out[4..]);
        }
        assert_eq!(row.len(), kv_row_len(heads.into(), d8));
    }
}

#[test]
fn sums_of_published_numbers_are_clamped_in_any_order() {
    let big = Scale { m: 1 << 15, e: -15 }.to_bytes();
    let finish = |parts: &[i64]| {
        let n = (parts.len() as u16).to_le_bytes();
        run(
            Kind::LinearFinish,
            &[&[1, 0, 1], &n, &big, &[0; 4], &big, &le64(parts)],
        )
    };
    assert_eq!(
        finish(&[i64::MAX, i64::MAX, i64::MIN, i64::MIN]),
        (-2i32).to_le_bytes()
    );
    assert_eq!(finish(&[i64::MIN; 256]), (-i32::MAX).to_le_bytes());
    let total = run(Kind::IdTotal, &[&[2, 0], &[0xff; 64]]);
    assert_eq!(total, [0xff; 32]);
}

#[test]
fn elementwise_steps_are_the_rules() {
    assert_eq!(
        run(Kind::Add, &[&i32::MAX.to_le_bytes(), &1i32.to_le_bytes()]),
        i32::MAX.to_le_bytes()
    );
    let (gate, up) = (-70_000i32, 90_000i32);
    let want = glu::element(crate::program::Activation::GeluTanh, 14, gate, up);
    assert_eq!(
        run(Kind::Glu, &[&[1, 14], &gate.to_le_bytes(), &up.to_le_bytes()]),
        want.to_le_bytes()
    );
    let (x, y) = rope::rotate(gate, up, 23_170, -23_170);
    let out = run(
        Kind::Rope,
        &[
            &gate.to_le_bytes(),
            &up.to_le_bytes(),
            &23_170i16.to_le_bytes(),
            &(-23_170i16).to_le_bytes(),
        ],
    );
    assert_eq!(out, le32(&[x, y]));
    assert_eq!(
        run(Kind::Greedy, &[&le32(&[5, 9, 5, 8])]),
        [1],
        "a tie goes to the lower id"
    );
    assert_eq!(run(Kind::Greedy, &[&le32(&[5, 8, 5, 9])]), [0]);
    let bounds = |w: &[i8], m: &[u8]| {
        run(
            Kind::WeightBounds,
            &[
                &[u8::from(!m.is_empty())],
                &(w.len() as u32).to_le_bytes(),
                bytes8(w),
                m,
            ],
        )[0]
    };
    assert_eq!(
        [
            bounds(&[127; 40], &[15, 15]),
            bounds(&[0, -128], &[]),
            bounds(&[1], &[16]),
            bounds(&[1], &[0])
        ],
        [0, 1, 2, 2]
    );
    assert_eq!(bounds(&[127; 65_536], &[15; 2_048]), 3);
    assert_eq!(bounds(&[127; 65_536], &[]), 0);
}
