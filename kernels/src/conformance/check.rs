//! Compares a device with the reference on one case.

use thiserror::Error;

use super::{build::Case, parts};
use crate::{
    Device, Hash, KernelError, Op, Probe, ReferenceDevice, Runner, Sampler, SeqStep, SiteRows,
    program::SiteId,
};

/// The first difference between a device and the reference.
#[derive(Debug, Error)]
pub enum Mismatch {
    /// The device refused what the reference runs.
    #[error("{case}: {error}")]
    Failed {
        /// The case.
        case: String,
        /// The device's error.
        error: KernelError,
    },
    /// A site's rows differ.
    #[error(
        "{case}: site {site} ({op}) differs at element {element} of the rows from position {first}: {detail}"
    )]
    Site {
        /// The case.
        case: String,
        /// The site.
        site: SiteId,
        /// Its op.
        op: &'static str,
        /// Position of the first row.
        first: u32,
        /// Index of the first element that differs.
        element: usize,
        /// Both values.
        detail: String,
    },
    /// Rows were shown for other sites or positions than the reference shows.
    #[error("{case}: the probe saw {got} blocks of rows, the reference shows {want}")]
    Shown {
        /// The case.
        case: String,
        /// Blocks seen.
        got: String,
        /// Blocks shown by the reference.
        want: String,
    },
    /// Sampled tokens or body roots differ between two ways of running.
    #[error("{case}: {what} differ when run {how}: {got} instead of {want}")]
    Result {
        /// The case.
        case: String,
        /// Tokens or roots.
        what: &'static str,
        /// The way of running.
        how: &'static str,
        /// What came out.
        got: String,
        /// What should.
        want: String,
    },
}

/// Keeps what a probe sees.
#[derive(Default)]
pub struct Recorder {
    /// (site, first position, rows) in order of showing.
    pub rows: Vec<(SiteId, u32, SiteRows)>,
}

impl Probe for Recorder {
    fn site(&mut self, site: SiteId, first: u32, rows: &SiteRows) {
        self.rows.push((site, first, rows.clone()));
    }
}

/// A sequence's tokens and how many of the last are sampled.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) tokens: Vec<u32>,
    pub(super) sample: u32,
    pub(super) sampler: Sampler,
}

/// What a way of running gives for one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) tokens: Vec<u32>,
    pub(super) bodies: Vec<Hash>,
}

/// Three sequences of lengths around common tiles (one nearly fills a long context), greedy and random.
fn inputs(case: &Case) -> Vec<Input> {
    let samples = matches!(case.program.sites.last().map(|s| &s.op), Some(Op::Sample { .. }));
    let emits = u32::from(case.program.emits().is_some());
    let mut rng = super::build::Rng::new(&case.name);
    let longest = if case.program.context > 48 {
        case.program.context as usize - 9
    } else {
        17
    };
    [1usize, 9, longest]
        .into_iter()
        .enumerate()
        .map(|(i, len)| Input {
            tokens: (0..len)
                .map(|_| rng.range(0, i64::from(case.program.vocab) - 1) as u32)
                .collect(),
            sample: if samples { (len as u32).min(5) } else { emits },
            sampler: if i == 1 {
                Sampler::Random {
                    temperature_q16: 80_000,
                    top_k: 7,
                    top_p_q16: 60_000,
                    seed: rng.draw(),
                }
            } else {
                Sampler::Greedy
            },
        })
        .collect()
}

/// Checks one case on `device` in every way of running.
pub fn check_case(device: &dyn Device, case: &Case) -> Result<(), Mismatch> {
    let failed = |error| Mismatch::Failed {
        case: case.name.clone(),
        error,
    };
    let mut want = ReferenceDevice
        .load(case.program.clone(), &case.tensors)
        .map_err(failed)?;
    let mut got = device.load(case.program.clone(), &case.tensors).map_err(failed)?;
    let inputs = inputs(case);
    let bidirectional = case.program.is_bidirectional();
    let mut reference = vec![];
    for input in &inputs {
        let (mut seen, mut shown) = (Recorder::default(), Recorder::default());
        let one = whole(want.as_mut(), input, Some(&mut shown)).map_err(failed)?;
        let other = whole(got.as_mut(), input, Some(&mut seen)).map_err(failed)?;
        compare_rows(case, &seen, &shown)?;
        compare(case, "in one prefill", &other, &one)?;
        if !bidirectional {
            // Pieces of 7 end in one of 2 or 3: backends choose other loops for one, two, four and eight rows.
            for (how, piece) in [
                ("token by token", 1),
                ("in pieces of 2", 2),
                ("in pieces of 7", 7),
            ] {
                let other = pieces(got.as_mut(), input, piece).map_err(failed)?;
                compare(case, how, &other, &one)?;
            }
        }
        if device.has_parts() && parts::can_cut(&case.program, input.sample) {
            let (piece, mut seen) = (input.tokens.len().div_ceil(3), Recorder::default());
            let other = parts::run(device, case, input, piece, &mut seen).map_err(failed)?;
            compare_rows(case, &parts::joined(seen), &parts::joined(shown))?;
            compare(case, "unit by unit", &other, &one)?;
        }
        reference.push(one);
    }
    let together = batch(got.as_mut(), &inputs).map_err(failed)?;
    for (got, want) in together.iter().zip(&reference) {
        compare(case, "in a batch", got, want)?;
    }
    Ok(())
}

fn whole(run: &mut dyn Runner, input: &Input, probe: Option<&mut Recorder>) -> Result<Outcome, KernelError> {
    let seq = run.open(input.tokens.len() as u32)?;
    let step = SeqStep {
        seq,
        tokens: &input.tokens,
        sample: input.sample,
        sampler: &input.sampler,
    };
    let tokens = run.step(&[step], probe.map(|p| p as &mut dyn Probe))?.concat();
    run.hash(seq)?;
    let (_, bodies) = run.take_bodies(seq, true)?;
    run.close(seq);
    Ok(Outcome { tokens, bodies })
}

/// The same tokens in steps of `piece`, hashing as it goes.
fn pieces(run: &mut dyn Runner, input: &Input, piece: usize) -> Result<Outcome, KernelError> {
    let seq = run.open(input.tokens.len() as u32)?;
    let unsampled = input.tokens.len() - input.sample as usize;
    let (mut tokens, mut bodies, mut done) = (vec![], vec![], 0usize);
    for part in input.tokens.chunks(piece) {
        done += part.len();
        let step = SeqStep {
            seq,
            tokens: part,
            sample: part.len().min(done.saturating_sub(unsampled)) as u32,
            sampler: &input.sampler,
        };
        tokens.extend(run.step(&[step], None)?.concat());
        if done % 3 == 0 {
            run.hash(seq)?;
            bodies.extend(run.take_bodies(seq, false)?.1);
        }
    }
    run.hash(seq)?;
    bodies.extend(run.take_bodies(seq, true)?.1);
    run.close(seq);
    Ok(Outcome { tokens, bodies })
}

/// All sequences in one batch.
fn batch(run: &mut dyn Runner, inputs: &[Input]) -> Result<Vec<Outcome>, KernelError> {
    let mut seqs = vec![];
    for input in inputs {
        seqs.push(run.open(input.tokens.len() as u32)?);
    }
    let steps: Vec<SeqStep<'_>> = inputs
        .iter()
        .zip(&seqs)
        .map(|(input, seq)| SeqStep {
            seq: *seq,
            tokens: &input.tokens,
            sample: input.sample,
            sampler: &input.sampler,
        })
        .collect();
    let sampled = run.step(&steps, None)?;
    let mut out = vec![];
    for (tokens, seq) in sampled.into_iter().zip(seqs) {
        run.hash(seq)?;
        let (_, bodies) = run.take_bodies(seq, true)?;
        run.close(seq);
        out.push(Outcome { tokens, bodies });
    }
    Ok(out)
}

fn compare(case: &Case, how: &'static str, got: &Outcome, want: &Outcome) -> Result<(), Mismatch> {
    let differ = |what, got: String, want: String| {
        Err(Mismatch::Result {
            case: case.name.clone(),
            what,
            how,
            got,
            want,
        })
    };
    if got.tokens != want.tokens {
        return differ(
            "sampled tokens",
            format!("{:?}", got.tokens),
            format!("{:?}", want.tokens),
        );
    }
    if got.bodies.len() != want.bodies.len() {
        let (got, want) = (got.bodies.len(), want.bodies.len());
        return differ("body roots", format!("{got} roots"), format!("{want} roots"));
    }
    match got.bodies.iter().zip(&want.bodies).position(|(a, b)| a != b) {
        Some(at) => differ(
            "body roots",
            format!("another root at position {at}"),
            "the reference's".into(),
        ),
        None => Ok(()),
    }
}

fn compare_rows(case: &Case, got: &Recorder, want: &Recorder) -> Result<(), Mismatch> {
    let list = |r: &Recorder| r.rows.iter().map(|(s, p, _)| (*s, *p)).collect::<Vec<_>>();
    if list(got) != list(want) {
        return Err(Mismatch::Shown {
            case: case.name.clone(),
            got: format!("{:?}", list(got)),
            want: format!("{:?}", list(want)),
        });
    }
    for ((site, first, a), (_, _, b)) in got.rows.iter().zip(&want.rows) {
        if a != b {
            let (element, detail) = first_difference(a, b);
            return Err(Mismatch::Site {
                case: case.name.clone(),
                site: *site,
                op: case.program.sites[*site as usize].op.name(),
                first: *first,
                element,
                detail,
            });
        }
    }
    Ok(())
}

fn first_difference(a: &SiteRows, b: &SiteRows) -> (usize, String) {
    fn at<T: PartialEq + std::fmt::Debug>(a: &[T], b: &[T]) -> Option<(usize, String)> {
        a.iter()
            .zip(b)
            .position(|(a, b)| a != b)
            .map(|i| (i, format!("{:?} instead of {:?}", a[i], b[i])))
    }
    let found = match (a, b) {
        (SiteRows::Acts { data: a, .. }, SiteRows::Acts { data: b, .. }) => at(a, b),
        (
            SiteRows::Quant {
                data: a, scales: s, ..
            },
            SiteRows::Quant {
                data: b, scales: t, ..
            },
        ) => at(s, t).or_else(|| at(a, b)),
        (SiteRows::Tokens(a), SiteRows::Tokens(b)) => at(a, b),
        _ => None,
    };
    found.unwrap_or((0, "another shape of rows".into()))
}
