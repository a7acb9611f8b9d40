//! Regenerating layer by layer: every position that is needed goes through one unit of the program before the next one is
//! loaded, so that a device holds one layer's weights at a time. Kept between questions are the cached rows, which a run
//! holds anyway: another position costs one row through the layers, not a prefill.

use std::{ops::Range, sync::Arc};

use bitai_kernels::{
    Carried, Device, Hash, HostTensor, KernelError, Op, PartStep, Probe, Program, Sampler, TensorId, Trace,
    program_check::{Shape, shapes},
    rows::{kv_row_len, merkle_root},
};

use super::{
    DisputeError,
    probe::Keep,
    regenerate::{Regenerate, TokenRows},
};
use crate::{header::Header, opening::LayerRows, transcript::Transcript};

/// Rows that go through a unit together: bounds what they take between its sites.
const PIECE: u32 = 512;

/// Hears which tensors nothing needs for now.
pub(super) type Done = Box<dyn FnMut(&[TensorId]) + Send>;

/// Regenerates on a device that runs single units ([`Device::has_parts`]); an encoder's prompt whole.
pub struct LayerRegen {
    device: Arc<dyn Device>,
    program: Arc<Program>,
    shapes: Vec<Shape>,
    tensors: Vec<HostTensor>,
    done: Done,
    ids: Vec<u32>,
    prompt: u32,
    sampler: Sampler,
    /// Canonical cached rows of positions `0 .. held`, by layer.
    kv: Vec<Vec<u8>>,
    held: u32,
    cached: Option<(u32, TokenRows)>,
    /// Of an encoder: what every layer commits to.
    layers: Vec<Vec<LayerRows>>,
    pooled: Vec<Hash>,
}

/// Consecutive rows between two units.
struct Piece {
    /// Positions.
    rows: Range<u32>,
    carried: Carried,
    /// Whether the probe sees them.
    shown: bool,
    /// Whether they go through the sites after the layers.
    sampled: bool,
}

/// What a sweep through all units leaves besides the cached rows.
#[derive(Default)]
struct Swept {
    /// Of each layer, what is hashed of every row that ran.
    layers: Vec<Vec<LayerRows>>,
    /// Sampled ids, or an encoder's words.
    sampled: Vec<u32>,
}

fn device(e: KernelError) -> DisputeError {
    DisputeError::Device(e.to_string())
}

fn count(ids: &[u32]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}

impl LayerRegen {
    /// `ids` are the ids that were run (prompt, then outputs but the last), `prompt` how many are the prompt. `tensors` are
    /// the model's, by id; they are read unit by unit, and `done` hears which were.
    pub fn new(
        device: Arc<dyn Device>,
        program: Arc<Program>,
        tensors: Vec<HostTensor>,
        done: Done,
        (ids, prompt): (Vec<u32>, u32),
        sampler: Sampler,
    ) -> Result<Self, DisputeError> {
        Ok(Self {
            shapes: shapes(&program).map_err(|e| DisputeError::Program(e.to_string()))?,
            kv: vec![vec![]; program.layers as usize],
            device,
            program,
            tensors,
            done,
            ids,
            prompt,
            sampler,
            held: 0,
            cached: None,
            layers: vec![],
            pooled: vec![],
        })
    }

    /// Runs every position, sampling all that sample, and gives the run's transcript. The cached rows stay.
    pub fn transcript(&mut self, header: Header) -> Result<Transcript, DisputeError> {
        let n = count(&self.ids);
        let mut transcript = Transcript::new(header);
        if self.program.is_bidirectional() {
            let swept = self.whole(0)?;
            transcript.bodies(0, &self.bodies());
            transcript.words(&swept.sampled);
            return Ok(transcript);
        }
        let first = self.prompt.saturating_sub(1).min(n);
        let mut pieces = self.pieces(0..first);
        let mut sampling = self.pieces(first..n);
        sampling.iter_mut().for_each(|p| p.sampled = true);
        pieces.append(&mut sampling);
        let swept = self.sweep(pieces, None)?;
        let bodies: Vec<Hash> = (0..n)
            .map(|pos| {
                let leaf = |(l, rows): (u32, &Vec<LayerRows>)| Some(rows.get(pos as usize)?.hash(pos, l));
                let leaves: Vec<Hash> = (0u32..).zip(&swept.layers).filter_map(leaf).collect();
                merkle_root(&leaves)
            })
            .collect();
        transcript.bodies(0, &bodies);
        for (pos, id) in (first..).zip(swept.sampled) {
            transcript.sampled(pos, id);
        }
        Ok(transcript)
    }

    /// Body roots of an encoder's layers.
    fn bodies(&self) -> Vec<Hash> {
        let of = |(l, rows): (u32, &Vec<LayerRows>)| {
            let leaf = |(pos, row): (u32, &LayerRows)| row.hash(pos, l);
            let leaves: Vec<Hash> = (0u32..).zip(rows).map(leaf).collect();
            merkle_root(&leaves)
        };
        (0u32..).zip(&self.layers).map(of).collect()
    }

    fn pieces(&self, rows: Range<u32>) -> Vec<Piece> {
        let of = |first: u32| Piece {
            rows: first..rows.end.min(first.saturating_add(PIECE)),
            carried: Carried::default(),
            shown: false,
            sampled: false,
        };
        rows.clone().step_by(PIECE as usize).map(of).collect()
    }

    /// The ids of these positions.
    fn tokens(&self, rows: &Range<u32>) -> Result<&[u32], DisputeError> {
        let ids = self.ids.get(rows.start as usize..rows.end as usize);
        ids.ok_or(DisputeError::Range {
            what: "position",
            got: u64::from(rows.end).saturating_sub(1),
            count: self.ids.len() as u64,
        })
    }

    /// Runs consecutive rows through all units. Rows of positions that are cached already are made again and are the same.
    /// After a failure nothing is cached.
    fn sweep(&mut self, pieces: Vec<Piece>, probe: Option<&mut dyn Probe>) -> Result<Swept, DisputeError> {
        let span = (pieces.first(), pieces.last());
        let (Some(from), Some(to)) = (span.0.map(|p| p.rows.start), span.1.map(|p| p.rows.end)) else {
            return Ok(Swept::default());
        };
        self.tokens(&(from..to))?;
        let swept = self.units(pieces, from, probe);
        match &swept {
            Ok(_) => self.held = self.held.max(to),
            Err(_) => {
                self.held = 0;
                self.kv.iter_mut().for_each(Vec::clear);
            }
        }
        swept
    }

    fn units(
        &mut self,
        mut pieces: Vec<Piece>,
        from: u32,
        mut probe: Option<&mut dyn Probe>,
    ) -> Result<Swept, DisputeError> {
        let row_len = kv_row_len(self.program.kv_heads as usize, self.program.head_dim as usize);
        let mut swept = Swept::default();
        for unit in 0..self.program.units() {
            let layer = unit.checked_sub(1).filter(|l| *l < self.program.layers);
            let last = unit + 1 == self.program.units();
            if last && !pieces.iter().any(|p| p.sampled) {
                break;
            }
            let mut part = self
                .device
                .load_part(Arc::clone(&self.program), &self.tensors, unit)
                .map_err(device)?;
            let mut cache = match layer.and_then(|l| self.kv.get_mut(l as usize)) {
                Some(kv) => std::mem::take(kv),
                None => vec![],
            };
            // Rows behind those that run: the same as before, they come back afterwards.
            let later = cache.split_off(cache.len().min(from as usize * row_len));
            let mut hashes = vec![];
            for piece in pieces.iter_mut().filter(|p| !last || p.sampled) {
                let step = PartStep {
                    first: piece.rows.start,
                    tokens: self.tokens(&piece.rows)?,
                    sampler: &self.sampler,
                };
                let carried = std::mem::take(&mut piece.carried);
                // Reborrowed by hand: an Option<&mut dyn> does not reborrow itself.
                let probe = probe.as_mut().filter(|_| piece.shown);
                let probe = probe.map(|p| &mut **p as &mut dyn Probe);
                let done = part.run(step, carried, &mut cache, probe).map_err(device)?;
                piece.carried = done.carried;
                let rows = done.hashes.iter().map(|h| LayerRows { kv: h.kv, out: h.out });
                hashes.extend(rows);
                swept.sampled.extend(done.sampled);
            }
            let ran = cache.len().saturating_sub(from as usize * row_len);
            cache.extend(later.get(ran..).unwrap_or_default());
            if let Some(kv) = layer.and_then(|l| self.kv.get_mut(l as usize)) {
                *kv = cache;
                swept.layers.push(hashes);
            }
            drop(part);
            (self.done)(&self.program.unit_tensors(unit));
        }
        Ok(swept)
    }

    /// Runs an encoder's prompt whole, keeping the rows of `pos`.
    fn whole(&mut self, pos: u32) -> Result<Swept, DisputeError> {
        let rows = 0..count(&self.ids);
        self.tokens(&(pos..pos.saturating_add(1)))?;
        let (program, shapes) = (Arc::clone(&self.program), self.shapes.clone());
        let mut keep = Keep::new(pos, &program, &shapes);
        let piece = Piece {
            rows,
            carried: Carried::default(),
            shown: true,
            sampled: true,
        };
        self.kv.iter_mut().for_each(Vec::clear);
        let mut swept = self.sweep(vec![piece], Some(&mut keep))?;
        self.layers = std::mem::take(&mut swept.layers);
        self.pooled = keep.pooled.into_values().collect();
        self.cached = Some((pos, TokenRows(keep.rows)));
        Ok(swept)
    }

    /// Runs a decoder up to `pos`, keeping its rows.
    fn up_to(&mut self, pos: u32) -> Result<(), DisputeError> {
        let (program, shapes) = (Arc::clone(&self.program), self.shapes.clone());
        let mut keep = Keep::new(pos, &program, &shapes);
        let mut pieces = self.pieces(self.held.min(pos)..pos);
        // Alone, so that nothing else is copied for the probe.
        pieces.push(Piece {
            rows: pos..pos.saturating_add(1),
            carried: Carried::default(),
            shown: true,
            sampled: pos.saturating_add(1) >= self.prompt && self.samples(),
        });
        self.sweep(pieces, Some(&mut keep))?;
        self.cached = Some((pos, TokenRows(keep.rows)));
        Ok(())
    }

    /// Whether there are sites after the layers that put out a token.
    fn samples(&self) -> bool {
        let last = self.program.sites.last().map(|s| &s.op);
        matches!(last, Some(Op::Sample { .. }))
    }

    /// Of an encoder: has run all.
    fn all(&mut self) -> Result<(), DisputeError> {
        if !self.program.is_bidirectional() {
            return Err(DisputeError::Setup(
                "layers and pooled rows are regenerated of encoders, and this is a decoder".into(),
            ));
        }
        if self.layers.is_empty() {
            self.whole(0)?;
        }
        Ok(())
    }
}

impl Regenerate for LayerRegen {
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        if self.cached.as_ref().is_none_or(|(p, _)| *p != pos) {
            if self.program.is_bidirectional() {
                self.whole(pos)?;
            } else {
                self.up_to(pos)?;
            }
        }
        match &self.cached {
            Some((_, rows)) => Ok(rows.clone()),
            None => Err(DisputeError::Setup("the run left no rows".into())),
        }
    }

    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError> {
        if pos >= self.held {
            self.token(pos)?;
        }
        let row_len = kv_row_len(self.program.kv_heads as usize, self.program.head_dim as usize);
        let at = pos as usize * row_len;
        let rows = self
            .kv
            .get(layer as usize)
            .and_then(|kv| kv.get(at..at + row_len));
        rows.map(<[u8]>::to_vec)
            .ok_or_else(|| DisputeError::Setup(format!("layer {layer} caches no row")))
    }

    fn layer(&mut self, layer: u32) -> Result<Vec<LayerRows>, DisputeError> {
        self.all()?;
        self.layers
            .get(layer as usize)
            .cloned()
            .ok_or(DisputeError::Range {
                what: "layer",
                got: layer.into(),
                count: self.program.layers.into(),
            })
    }

    fn pooled(&mut self) -> Result<Vec<Hash>, DisputeError> {
        self.all()?;
        Ok(self.pooled.clone())
    }
}
