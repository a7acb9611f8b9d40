//! A validator's side: entries and openings from its own run of a job.

use alloy_primitives::{Address, B256};
use bitai_kernels::{Program, rows::kv_row_len};

use super::{
    draw::{Draw, PICKS, Pick},
    entry::Entry,
    opening::Opening,
    tree::EntryPath,
};
use crate::{
    dispute::{DisputeError, Regenerate},
    header::TraceRoot,
    opening::{LayerOpening, TokenOpening},
    slice::{CHUNK, SliceProof},
    transcript::Transcript,
};

/// A finished run of a drawn job, and whoever makes its rows again.
#[derive(Debug)]
pub struct Attestor<'a, R> {
    /// The draw.
    pub draw: Draw,
    /// The model's program.
    pub program: &'a Program,
    /// The run.
    pub transcript: &'a Transcript,
    /// Makes rows again.
    pub rows: &'a mut R,
}

impl<R: Regenerate> Attestor<'_, R> {
    /// What is said about the job: the answer with this root and output, which are this run's.
    pub fn entry(&mut self, output_hash: B256) -> Result<Entry, DisputeError> {
        let root = self.root()?;
        let mut hashes = [[0; 32]; PICKS];
        for (hash, pick) in hashes.iter_mut().zip(self.picks()?) {
            let chunk = self.chunk(pick)?;
            *hash = self.draw.keyed(&chunk.bytes);
        }
        Ok(Entry {
            outputs: self.outputs()?,
            root,
            output_hash,
            hashes,
        })
    }

    /// Opens the entry at chunk `pick`; `neuron` revealed the answer that it names.
    pub fn open(
        &mut self,
        entry: Entry,
        path: EntryPath,
        neuron: Address,
        pick: u8,
    ) -> Result<Opening, DisputeError> {
        let missing = |what: &str| DisputeError::Setup(format!("this run has no {what} to open"));
        let picks = self.picks()?;
        let at = *picks
            .get(usize::from(pick))
            .ok_or_else(|| missing("such chunk"))?;
        let chunk = self.chunk(at)?;
        let token = TokenOpening::prove(self.transcript, at.token).ok_or_else(|| missing("such token"))?;
        let layers = self
            .rows
            .token(at.token)?
            .layers(self.program, self.transcript.header())
            .ok_or_else(|| missing("committed rows"))?;
        let layer = LayerOpening::prove(at.token, &layers, at.layer).ok_or_else(|| missing("such layer"))?;
        Ok(Opening {
            entry,
            path,
            neuron,
            token,
            layer,
            chunk,
        })
    }

    fn root(&self) -> Result<TraceRoot, DisputeError> {
        self.transcript
            .root()
            .map_err(|e| DisputeError::Setup(e.to_string()))
    }

    fn outputs(&self) -> Result<u32, DisputeError> {
        u32::try_from(self.transcript.outputs().len()).map_err(|e| DisputeError::Setup(e.to_string()))
    }

    fn picks(&self) -> Result<[Pick; PICKS], DisputeError> {
        let positions = self.transcript.header().positions(self.outputs()?);
        let (heads, dim) = (self.program.kv_heads as usize, self.program.head_dim as usize);
        self.draw
            .picks(positions, self.program.layers, kv_row_len(heads, dim) as u64)
            .ok_or_else(|| DisputeError::Setup("a trace without positions, layers or cached rows".into()))
    }

    fn chunk(&mut self, at: Pick) -> Result<SliceProof, DisputeError> {
        let row = self.rows.kv(at.token, at.layer)?;
        SliceProof::prove(&row, CHUNK, u64::from(at.chunk)).map_err(|e| DisputeError::Setup(e.to_string()))
    }
}
