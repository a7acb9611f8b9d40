//! The mutation run on a real model: SmolLM2-135M, every kind of row that it commits, in every layer.
//!
//! `scripts/fetch-model`, then `cargo test -p bitai-poc --test mutation_smollm2 -- --ignored --nocapture` (minutes).
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::{collections::BTreeMap, path::Path};

use bitai_kernels::{Op, Trace, cpu::CpuDevice, program::SiteId};
use bitai_model::{
    import::{ImportOptions, import_gguf},
    pack::Pack,
};
use bitai_poc::{
    Divergence, Transcript, Verdict,
    dispute::{DisputeError, Regenerate, TokenRows, inner::SiteRow},
    recheck::{Part, compare, first_site, locate},
};
use bitai_types::Job;
use common::{Run, job, run};

const GGUF: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/SmolLM2-135M-Instruct.Q4_1.gguf"
);
const THREADS: usize = 2;

/// The model and a job on it.
struct Real {
    pack: Pack,
    job: Job,
    device: CpuDevice,
}

/// SmolLM2 and a job of nine prompt ids and four outputs, so twelve positions; imported once.
fn real() -> Real {
    assert!(
        Path::new(GGUF).exists(),
        "{GGUF} is missing: run scripts/fetch-model"
    );
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("smollm2.pack");
    import_gguf(Path::new(GGUF), &path, &ImportOptions::default(), &mut |_, _| {}).unwrap();
    let pack = Pack::open(&path).unwrap();
    let prompt = vec![504, 3575, 282, 4649, 314, 260, 8872, 1, 198];
    Real {
        job: job(&pack, prompt, 4),
        pack,
        device: CpuDevice::new(THREADS).unwrap(),
    }
}

/// Rows with one bit of one committed row flipped at one position, nothing following from it.
struct Flipped<'a> {
    rows: &'a mut dyn Regenerate,
    pos: u32,
    site: SiteId,
    bit: usize,
}

impl Regenerate for Flipped<'_> {
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        let mut rows = self.rows.token(pos)?;
        if pos == self.pos {
            match rows.0[self.site as usize].as_mut().unwrap() {
                SiteRow::Acts(v) => {
                    let n = v.len();
                    v[self.bit / 32 % n] ^= 1 << (self.bit % 32);
                }
                SiteRow::Kv(bytes) => {
                    let n = bytes.len();
                    bytes[self.bit / 8 % n] ^= 1 << (self.bit % 8);
                }
                SiteRow::Token(id) => *id ^= 1 << (self.bit % 8),
                SiteRow::Quant { .. } => panic!("no committed row is of this kind"),
            }
        }
        Ok(rows)
    }

    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError> {
        self.rows.kv(pos, layer)
    }
}

impl Real {
    /// An honest run: generating, or re-checking what is claimed.
    fn honest(&self, claimed: Option<&[u32]>) -> Run {
        run(&self.pack, &self.job, &self.job.input_ids, &self.device, claimed)
    }

    /// What re-check and both sides' rows say: the token, the committed row, the site.
    fn found(&self, mine: &mut Run, theirs: (&Transcript, &mut dyn Regenerate)) -> (Divergence, SiteId) {
        let (transcript, rows) = theirs;
        let verdict = compare(transcript.root().unwrap(), &mine.transcript, Some(transcript)).unwrap();
        let Verdict::Differs(first) = verdict else {
            panic!("{verdict}")
        };
        let program = self.pack.program();
        let place = locate((&mine.transcript, &mut mine.rows), (transcript, rows), &program)
            .unwrap()
            .unwrap();
        let (Divergence::Token { pos, .. }, Divergence::Token { pos: told, .. }) = (place, first) else {
            panic!("{place} and {first}")
        };
        assert_eq!(pos, told);
        let (a, b) = (mine.rows.token(pos).unwrap(), rows.token(pos).unwrap());
        (place, first_site(&a, &b).unwrap())
    }

    /// What `site` commits at `pos`, if anything, in a run with the header and ids of `t`.
    fn commits(&self, site: SiteId, pos: u32, t: &Transcript) -> bool {
        let s = &self.pack.program().sites[site as usize];
        match (&s.op, s.layer) {
            (Op::KvAppend { .. }, _) => true,
            (Op::Out, Some(l)) => t.header().has_out(l),
            (Op::Sample { .. }, _) => t.sampled_at(pos).is_some(),
            _ => false,
        }
    }
}

/// A number from three others.
fn mix(a: u32, b: u32, c: u32) -> usize {
    let bytes = [a, b, c].map(u32::to_le_bytes).concat();
    let hash = blake3::hash(&bytes);
    let [x, y, ..] = hash.as_bytes();
    usize::from(*x) << 8 | usize::from(*y)
}

#[test]
#[ignore = "needs models/ (scripts/fetch-model) and minutes"]
fn one_flipped_bit_of_any_committed_row_is_named() {
    let real = real();
    let program = real.pack.program();
    let mut honest = real.honest(None);
    let header = *honest.transcript.header();
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for pos in [0, 5, 8, 11] {
        for (site, s) in (0u32..).zip(&program.sites) {
            if !real.commits(site, pos, &honest.transcript) {
                continue;
            }
            let sampled = honest.transcript.sampled_at(pos);
            let mut theirs = Flipped {
                rows: &mut honest.rows,
                pos,
                site,
                bit: mix(pos, site, 1),
            };
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
            // Whoever doubts it re-checks what was claimed.
            let mut mine = real.honest(Some(&outputs));
            let place = real.found(&mut mine, (&t, &mut theirs));
            assert_eq!(place, (Divergence::Token { pos, what }, site));
            *named.entry(s.op.name()).or_default() += 1;
        }
    }
    println!("one flipped bit of a committed row, each named by token, row and site: {named:?}");
    // A KV row a layer and position, the last layer's `out` row at least, and the ids of two of the positions.
    assert_eq!(named["kv_append"], 4 * program.layers as usize);
    assert!(named["out"] >= 4 && named["sample"] == 2, "{named:?}");
}
