//! Regenerating a token's inner rows: nobody stores them while mining; whoever is asked runs the tokens again
//! under a probe.

use std::collections::{BTreeMap, HashMap};

use bitai_kernels::{
    Hash, KernelError, Op, Program, Runner, Sampler, SeqStep, program::SiteId, program_check::shapes,
    rows::merkle_root,
};

use super::{
    DisputeError,
    inner::{SiteCommit, SiteRow, Units, unit_root},
    probe::Keep,
};
use crate::{
    header::Header,
    opening::{LayerRows, TokenNode},
};

/// Every site's row for one token; the sites after the layers only where the token samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRows(pub Vec<Option<SiteRow>>);

impl TokenRows {
    /// A site's row.
    pub fn row(&self, site: SiteId) -> Option<&SiteRow> {
        self.0.get(site as usize)?.as_ref()
    }

    /// Commitments of a unit's sites; `None` where a row is missing.
    pub fn commits(&self, units: &Units, unit: u32) -> Option<Vec<SiteCommit>> {
        units.sites(unit).map(|s| Some(self.row(s)?.commit())).collect()
    }

    /// Roots of all units of a token.
    pub fn units(&self, units: &Units, sampled: bool) -> Option<Vec<[u8; 32]>> {
        (0..units.count(sampled))
            .map(|u| Some(unit_root(units.sites(u).start, &self.commits(units, u)?)))
            .collect()
    }

    /// The hashes of every layer's committed rows.
    pub fn layers(&self, program: &Program, header: &Header) -> Option<Vec<LayerRows>> {
        let mut kv = vec![None; program.layers as usize];
        let mut out = kv.clone();
        for (site, s) in (0u32..).zip(&program.sites) {
            let Some(l) = s.layer else { continue };
            match (&s.op, self.row(site).map(SiteRow::commit)) {
                (Op::KvAppend { .. }, Some(SiteCommit::Kv(h))) => kv[l as usize] = Some(h),
                (Op::Out, Some(SiteCommit::Acts(h))) if header.has_out(l) => out[l as usize] = Some(h),
                _ => {}
            }
        }
        kv.into_iter()
            .zip(out)
            .map(|(kv, out)| Some(LayerRows { kv: kv?, out }))
            .collect()
    }

    /// The sampled id, where the token samples.
    pub fn sampled(&self) -> Option<u32> {
        match self.0.last()? {
            Some(SiteRow::Token(id)) => Some(*id),
            _ => None,
        }
    }

    /// The token's node.
    pub fn node(&self, pos: u32, program: &Program, header: &Header) -> Option<TokenNode> {
        let leaves: Vec<[u8; 32]> = (0u32..)
            .zip(self.layers(program, header)?)
            .map(|(l, rows)| rows.hash(pos, l))
            .collect();
        Some(TokenNode {
            body: merkle_root(&leaves),
            sampled: self.sampled(),
        })
    }
}

/// Gives a player its own inner rows again.
pub trait Regenerate {
    /// Every site's row of position `pos`.
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError>;

    /// The canonical KV row of (`pos`, `layer`).
    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError>;

    /// Of an encoder: the hashes of the committed rows of every position in `layer`. Whoever regenerates single tokens
    /// only refuses.
    fn layer(&mut self, layer: u32) -> Result<Vec<LayerRows>, DisputeError> {
        Err(DisputeError::Setup(format!(
            "layer {layer}: this side regenerates tokens, not layers"
        )))
    }

    /// Of an encoder: the hash of the row of every position that it pools; no layer need commit to these. Whoever
    /// regenerates single tokens only refuses.
    fn pooled(&mut self) -> Result<Vec<Hash>, DisputeError> {
        Err(DisputeError::Setup(
            "the pooled rows: this side regenerates tokens, not texts".into(),
        ))
    }
}

impl<R: Regenerate + ?Sized> Regenerate for Box<R> {
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        (**self).token(pos)
    }

    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError> {
        (**self).kv(pos, layer)
    }

    fn layer(&mut self, layer: u32) -> Result<Vec<LayerRows>, DisputeError> {
        (**self).layer(layer)
    }

    fn pooled(&mut self) -> Result<Vec<Hash>, DisputeError> {
        (**self).pooled()
    }
}

/// Regenerates with any backend: prompt and output once more as one prefill, under a probe; an encoder's prompt whole.
pub struct RunnerRegen {
    runner: Box<dyn Runner>,
    ids: Vec<u32>,
    prompt: u32,
    sampler: Sampler,
    cached: Option<(u32, TokenRows)>,
    kv: HashMap<(u32, u32), Vec<u8>>,
    kv_until: u32,
    outs: HashMap<(u32, u32), [u8; 32]>,
    pooled: BTreeMap<u32, Hash>,
}

impl RunnerRegen {
    /// `ids` are the ids that were run (prompt, then outputs but the last), `prompt` how many are the prompt.
    pub fn new(runner: Box<dyn Runner>, ids: Vec<u32>, prompt: u32, sampler: Sampler) -> Self {
        Self {
            runner,
            ids,
            prompt,
            sampler,
            cached: None,
            kv: HashMap::new(),
            kv_until: 0,
            outs: HashMap::new(),
            pooled: BTreeMap::new(),
        }
    }

    /// Has run every position; gives the last one.
    fn run_all(&mut self) -> Result<u32, DisputeError> {
        let last = self.ids.len().saturating_sub(1);
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        if self.kv_until <= last {
            self.run(last)?;
        }
        Ok(last)
    }

    /// Runs positions `0 ..= pos` (an encoder: all) and keeps the rows of `pos`, every KV row and every out row's hash.
    fn run(&mut self, pos: u32) -> Result<(), DisputeError> {
        let failed = |e: KernelError| DisputeError::Device(e.to_string());
        let count = self.ids.len() as u64;
        let tokens = self.ids.get(..=pos as usize).ok_or(DisputeError::Range {
            what: "position",
            got: pos.into(),
            count,
        })?;
        let program = self.runner.program().clone();
        let whole = program.is_bidirectional();
        let tokens = if whole { &self.ids } else { tokens };
        // Not more ids than the position that was found among them counts, or than a context holds.
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let shapes = shapes(&program).map_err(|e| DisputeError::Program(e.to_string()))?;
        let mut probe = Keep::new(pos, &program, &shapes);
        let seq = self.runner.open(count).map_err(failed)?;
        let step = SeqStep {
            seq,
            tokens,
            sample: u32::from(count >= self.prompt),
            sampler: &self.sampler,
        };
        let done = self.runner.step(&[step], Some(&mut probe));
        self.runner.close(seq);
        done.map_err(failed)?;
        let Keep {
            rows,
            kv,
            outs,
            pooled,
            ..
        } = probe;
        self.pooled = pooled;
        self.kv.extend(kv);
        self.outs.extend(outs);
        self.kv_until = self.kv_until.max(count);
        self.cached = Some((pos, TokenRows(rows)));
        Ok(())
    }
}

impl Regenerate for RunnerRegen {
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        if self.cached.as_ref().is_none_or(|(p, _)| *p != pos) {
            self.run(pos)?;
        }
        match &self.cached {
            Some((_, rows)) => Ok(rows.clone()),
            None => Err(DisputeError::Setup("the run left no rows".into())),
        }
    }

    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError> {
        if pos >= self.kv_until {
            self.run(pos)?;
        }
        self.kv
            .get(&(pos, layer))
            .cloned()
            .ok_or_else(|| DisputeError::Setup(format!("layer {layer} caches no row")))
    }

    fn layer(&mut self, layer: u32) -> Result<Vec<LayerRows>, DisputeError> {
        let last = self.run_all()?;
        let commits = self.runner.program().checkpoints().contains(&layer);
        (0..=last)
            .map(|pos| {
                let kv = self.kv(pos, layer)?;
                let out = self.outs.get(&(pos, layer)).copied();
                Ok(LayerRows {
                    kv: *blake3::hash(&kv).as_bytes(),
                    out: out.filter(|_| commits),
                })
            })
            .collect()
    }

    fn pooled(&mut self) -> Result<Vec<Hash>, DisputeError> {
        self.run_all()?;
        Ok(self.pooled.values().copied().collect())
    }
}
