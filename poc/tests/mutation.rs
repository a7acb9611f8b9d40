//! Mutation run: one bit flipped in any committed row, one wrong integer in any site, another sampled token or
//! another prompt id is named, every time, by its token, layer and site.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::collections::BTreeSet;

use bitai_kernels::{
    Op, ReferenceDevice, Trace,
    program::SiteId,
    reference::ReferenceOps,
    testing::{Fault, FaultyDevice},
};
use bitai_model::{
    pack::{Pack, Profile},
    synthetic::{self, Shape},
};
use bitai_poc::{
    Divergence, Transcript, Verdict,
    dispute::{
        DisputeError, Regenerate, RunnerRegen, TokenRows,
        inner::{SiteRow, Units},
    },
    recheck::{Part, compare, first_site, locate},
};
use bitai_types::Job;
use common::{Run, answer, job, run};

/// A model and a job on it.
struct Bench {
    pack: Pack,
    job: Job,
}

impl Bench {
    /// A run of the job, or of other prompt ids under it.
    fn run(&self, prompt: &[u32], claimed: Option<&[u32]>) -> Run {
        run(&self.pack, &self.job, prompt, &ReferenceDevice, claimed)
    }

    /// An honest run: generating, or re-checking what is claimed.
    fn honest(&self, claimed: Option<&[u32]>) -> Run {
        self.run(&self.job.input_ids, claimed)
    }

    /// A run with a fault, if it gives anything but the honest one.
    fn faulty(&self, fault: Fault, honest: &Run) -> Option<Run> {
        let wrong = FaultyDevice::new(ReferenceOps, fault);
        let prompt = &self.job.input_ids;
        let (outputs, transcript) = answer(&self.pack, &self.job, prompt, &wrong, None);
        let swallowed =
            outputs == honest.transcript.outputs() && transcript.root() == honest.transcript.root();
        (!swallowed).then(|| run(&self.pack, &self.job, prompt, &wrong, None))
    }
}

/// Small models of both profiles, with every kind of site and a committed `out` row; five prompt ids and three
/// outputs, so seven positions.
fn small() -> [Bench; 2] {
    [Profile::A, Profile::B].map(|profile| {
        let shape = Shape {
            profile,
            tied: profile == Profile::A,
            ..Shape::tiny()
        };
        let pack = synthetic::pack(&shape, 5).unwrap();
        Bench {
            job: job(&pack, vec![256, 72, 105, 33, 10], 3),
            pack,
        }
    })
}

/// Numbers from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// Rows with one bit of one site's row flipped at one position, nothing following from it.
struct Flipped {
    rows: RunnerRegen,
    pos: u32,
    site: SiteId,
    bit: usize,
}

/// Flips one bit of a row.
fn flip(row: &mut SiteRow, bit: usize) {
    match row {
        SiteRow::Acts(v) => {
            let n = v.len();
            v[bit / 32 % n] ^= 1 << (bit % 32);
        }
        SiteRow::Kv(bytes) => {
            let n = bytes.len();
            bytes[bit / 8 % n] ^= 1 << (bit % 8);
        }
        // The low byte: both plane counts commit it.
        SiteRow::Quant { data, scales, .. } if bit.is_multiple_of(2) || scales.is_empty() => {
            let n = data.len();
            data[bit / 16 % n] ^= 1 << (bit / 2 % 8);
        }
        SiteRow::Quant { scales, .. } => {
            let n = scales.len();
            scales[bit / 32 % n].m ^= 1 << (bit / 2 % 16);
        }
        SiteRow::Token(id) => *id ^= 1 << (bit % 8),
    }
}

impl Regenerate for Flipped {
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        let mut rows = self.rows.token(pos)?;
        if pos == self.pos {
            flip(rows.0[self.site as usize].as_mut().unwrap(), self.bit);
        }
        Ok(rows)
    }

    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError> {
        self.rows.kv(pos, layer)
    }
}

/// A decoder's traces part at a token.
fn token(place: Divergence) -> (u32, Part) {
    match place {
        Divergence::Token { pos, what } => (pos, what),
        other => panic!("{other}"),
    }
}

/// What re-check and the rows of both sides say: the token, the committed row, the site.
fn found(bench: &Bench, mine: &mut Run, theirs: (&Transcript, &mut dyn Regenerate)) -> (Divergence, SiteId) {
    let (transcript, rows) = theirs;
    let claimed = transcript.root().unwrap();
    let verdict = compare(claimed, &mine.transcript, Some(transcript)).unwrap();
    let Verdict::Differs(first) = verdict else {
        panic!("{verdict}")
    };
    let program = bench.pack.program();
    let place = locate((&mine.transcript, &mut mine.rows), (transcript, rows), &program)
        .unwrap()
        .unwrap();
    let (pos, _) = token(place);
    assert_eq!(pos, token(first).0);
    let (a, b) = (mine.rows.token(pos).unwrap(), rows.token(pos).unwrap());
    (place, first_site(&a, &b).unwrap())
}

/// Checks that one flipped bit of the row that `site` commits at `pos` is named, if it commits one.
fn flips(bench: &Bench, honest: &Run, site: SiteId, pos: u32, bit: usize) -> bool {
    let (program, header) = (bench.pack.program(), *honest.transcript.header());
    let s = &program.sites[site as usize];
    let sampled = honest.transcript.sampled_at(pos);
    if !match (&s.op, s.layer) {
        (Op::KvAppend { .. }, _) => true,
        (Op::Out, Some(l)) => header.has_out(l),
        (Op::Sample { .. }, _) => sampled.is_some(),
        _ => false,
    } {
        return false;
    }
    let rows = bench.honest(Some(honest.transcript.outputs())).rows;
    let mut theirs = Flipped { rows, pos, site, bit };
    let node = theirs.token(pos).unwrap().node(pos, &program, &header).unwrap();
    let mut t = Transcript::new(header);
    let mut outputs = vec![];
    for (i, body) in (0u32..).zip(honest.transcript.body_roots()) {
        t.bodies(i, &[if i == pos { node.body } else { *body }]);
        if let Some(id) = honest.transcript.sampled_at(i) {
            let id = if i == pos { node.sampled.unwrap() } else { id };
            t.sampled(i, id);
            outputs.push(id);
        }
    }
    let what = match (&s.op, s.layer, node.sampled, sampled) {
        (Op::KvAppend { .. }, Some(l), ..) => Part::Kv(l),
        (Op::Out, Some(l), ..) => Part::Out(l),
        (_, _, Some(theirs), Some(mine)) => Part::Sampled { theirs, mine },
        _ => panic!("no committed row"),
    };
    let mut mine = bench.honest(Some(&outputs));
    let place = found(bench, &mut mine, (&t, &mut theirs));
    assert_eq!(place, (Divergence::Token { pos, what }, site), "bit {bit}");
    true
}

#[test]
fn one_flipped_bit_of_any_committed_row_is_named() {
    let mut numbers = Numbers(1);
    for bench in small() {
        let honest = bench.honest(None);
        let mut kinds = BTreeSet::new();
        for (site, s) in (0u32..).zip(&bench.pack.program().sites) {
            for pos in 0..7 {
                if flips(&bench, &honest, site, pos, numbers.below(1 << 20)) {
                    kinds.insert(s.op.name());
                }
            }
        }
        assert_eq!(
            kinds.into_iter().collect::<Vec<_>>(),
            ["kv_append", "out", "sample"]
        );
    }
}

/// Checks that one wrong integer at a site is named by that site, for the first element whose flip changes any
/// commitment; whether there was one.
fn names(bench: &Bench, honest: &Run, site: SiteId, position: u32, elements: usize) -> bool {
    let program = bench.pack.program();
    for element in 0..elements {
        let fault = Fault {
            site,
            position,
            element,
        };
        let Some(mut theirs) = bench.faulty(fault, honest) else {
            continue;
        };
        let mut mine = bench.honest(Some(theirs.transcript.outputs()));
        let (place, first) = found(bench, &mut mine, (&theirs.transcript, &mut theirs.rows));
        let (pos, what) = token(place);
        assert_eq!((pos, first), (position, site), "{fault:?}: {place}");
        // The first committed row that differs is that layer's or one after it.
        match (program.sites[site as usize].layer, what) {
            (Some(own), Part::Kv(l) | Part::Out(l)) => assert!(l >= own, "{fault:?}: {place}"),
            (None, Part::Kv(_) | Part::Out(_) | Part::Sampled { .. }) => {}
            _ => panic!("{fault:?}: {place}"),
        }
        return true;
    }
    false
}

#[test]
fn one_wrong_integer_in_any_kind_of_site_is_named() {
    let mut kinds = BTreeSet::new();
    for bench in small() {
        let (program, honest) = (bench.pack.program(), bench.honest(None));
        let (mut named, mut all) = (0, 0);
        for (site, s) in (0u32..).zip(&program.sites) {
            // The first and the last layer, which ends in a committed `out` row, and what is in no layer.
            let far = s.layer.is_some_and(|l| l != 0 && l + 1 != program.layers);
            if far || matches!(s.op, Op::KvAppend { .. } | Op::Out) {
                continue;
            }
            // One unit before the quantisation of a head nearly always vanishes in it.
            if matches!(s.op, Op::Rope { .. }) {
                continue;
            }
            let position = if site.is_multiple_of(2) { 3 } else { 5 };
            let (position, elements) = match s.op {
                Op::Sample { .. } => (5, 1),
                _ => (position, 16),
            };
            all += 1;
            // So does most of one unit of a gated unit: any position will do.
            let mut positions = match s.op {
                Op::Glu { .. } => 1..6,
                _ => position..position + 1,
            };
            if positions.any(|position| names(&bench, &honest, site, position, elements)) {
                named += 1;
                kinds.insert(s.op.name());
            }
        }
        assert!(named * 2 > all, "{named} of {all} sites");
    }
    let every = [
        "add",
        "attention",
        "embed",
        "glu",
        "linear",
        "quant",
        "rms_norm",
        "sample",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), every);
}

#[test]
fn one_flipped_bit_of_any_row_is_named_by_its_site_and_unit() {
    let mut numbers = Numbers(2);
    for bench in small() {
        let program = bench.pack.program();
        let units = Units::new(&program).unwrap();
        let mut honest = bench.honest(None);
        for pos in [1, 5] {
            let rows = honest.rows.token(pos).unwrap();
            let sampled = rows.sampled().is_some();
            let roots = rows.units(&units, sampled).unwrap();
            for site in (0u32..)
                .zip(&rows.0)
                .filter(|(_, row)| row.is_some())
                .map(|(s, _)| s)
            {
                let mut flipped = rows.clone();
                flip(flipped.0[site as usize].as_mut().unwrap(), numbers.below(1 << 20));
                assert_eq!(first_site(&rows, &flipped), Some(site));
                let theirs = flipped.units(&units, sampled).unwrap();
                let differ: Vec<u32> = (0u32..)
                    .zip(roots.iter().zip(&theirs))
                    .filter(|(_, (a, b))| a != b)
                    .map(|(u, _)| u)
                    .collect();
                assert_eq!(differ, [units.unit_of(site).unwrap()], "site {site}");
            }
        }
    }
}

/// Checks that another prompt id at a position is named.
fn other_id(bench: &Bench, pos: u32, id: u32) {
    let mut prompt = bench.job.input_ids.clone();
    prompt[pos as usize] = id;
    let mut theirs = bench.run(&prompt, None);
    let mut mine = bench.honest(Some(theirs.transcript.outputs()));
    let (place, site) = found(bench, &mut mine, (&theirs.transcript, &mut theirs.rows));
    let what = Part::Kv(0);
    assert_eq!(place, Divergence::Token { pos, what });
    assert_eq!(bench.pack.program().sites[site as usize].op.name(), "embed");
}

#[test]
fn one_flipped_bit_of_any_prompt_id_is_named() {
    let mut numbers = Numbers(3);
    for bench in small() {
        let vocab = bench.pack.program().vocab;
        for pos in 0..5u32 {
            let id = bench.job.input_ids[pos as usize];
            let other = (0..8).map(|_| id ^ (1 << numbers.below(8))).find(|x| *x < vocab);
            other_id(&bench, pos, other.unwrap());
        }
    }
}
