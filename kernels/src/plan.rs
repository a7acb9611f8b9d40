//! What loading makes of a program: every site's shape, tensors in the backend's layout, and when each row
//! block is last read.

use std::{ops::Range, sync::Arc};

use crate::{
    KernelError, load,
    num::Scale,
    ops::HostWeight,
    program::{Op, Program, Weight},
    program_check::{Shape, epilogue, shapes},
    tensor::HostTensor,
};

/// A site's loaded tensors.
pub(crate) enum Loaded<W> {
    None,
    Weight(Arc<W>),
    Gain(Vec<i32>),
    GainBias(Vec<i32>, Vec<i32>),
    Table(Arc<Vec<i16>>),
}

/// A program ready to run.
pub(crate) struct Plan<W> {
    pub(crate) shapes: Vec<Shape>,
    pub(crate) loaded: Vec<Loaded<W>>,
    /// `Out` passes its input on: the site whose rows each site's readers really read.
    pub(crate) source: Vec<usize>,
    /// Last site that reads each source (itself where nobody does).
    pub(crate) last_reader: Vec<usize>,
    /// First site of the epilogue, which runs for sampled rows only.
    pub(crate) epilogue: usize,
    /// Layers whose `out` row is committed.
    pub(crate) checkpoints: Vec<u32>,
    /// Whether some attention looks at later tokens too.
    pub(crate) bidirectional: bool,
    /// Words of an encoder's output.
    pub(crate) emits: Option<usize>,
}

impl<W> Plan<W> {
    /// Checks program and the tensors of `sites`, and takes those in; `take_in` puts a checked weight where the backend
    /// wants it. The other sites must not be run.
    pub(crate) fn load(
        program: &Program,
        tensors: &[HostTensor],
        sites: Range<usize>,
        take_in: impl Fn(HostWeight) -> Result<W, KernelError>,
    ) -> Result<Self, KernelError> {
        let shapes = shapes(program)?;
        let mut weights: Vec<(Weight, Arc<W>)> = vec![];
        let mut tables: Vec<(u32, Arc<Vec<i16>>)> = vec![];
        let mut take = |w: &Weight, n: u32, k: u32| -> Result<Loaded<W>, KernelError> {
            // A tied table (embedding and head) is taken in once.
            if let Some((_, known)) = weights.iter().find(|(seen, _)| seen == w) {
                return Ok(Loaded::Weight(known.clone()));
            }
            let host = load::weight(tensors, w, n as usize, k as usize)?;
            let new = Arc::new(take_in(host)?);
            weights.push((*w, new.clone()));
            Ok(Loaded::Weight(new))
        };
        let mut loaded = Vec::with_capacity(program.sites.len());
        for (i, site) in program.sites.iter().enumerate() {
            loaded.push(match &site.op {
                _ if !sites.contains(&i) => Loaded::None,
                Op::Embed { weight, .. } => take(weight, program.vocab, program.d_model)?,
                Op::PosEmbed { weight, .. } => take(weight, program.context, program.d_model)?,
                Op::Linear { weight, n, k, .. } => take(weight, *n, *k)?,
                Op::LayerNorm {
                    gain, bias, group, ..
                } => Loaded::GainBias(
                    load::ints(tensors, *gain, *group as usize)?,
                    load::ints(tensors, *bias, *group as usize)?,
                ),
                Op::RmsNorm { gain, group, .. } => Loaded::Gain(load::ints(tensors, *gain, *group as usize)?),
                Op::Rope { table, head_dim, .. } => {
                    let known = tables.iter().find(|(id, _)| id == table);
                    Loaded::Table(if let Some((_, t)) = known {
                        t.clone()
                    } else {
                        let (rows, cols) = (program.context as usize, *head_dim as usize);
                        let t = Arc::new(load::shorts(tensors, *table, rows, cols)?);
                        tables.push((*table, t.clone()));
                        t
                    })
                }
                _ => Loaded::None,
            });
        }
        let n = program.sites.len();
        let mut source: Vec<usize> = (0..n).collect();
        let mut last_reader: Vec<usize> = (0..n).collect();
        for (i, site) in program.sites.iter().enumerate() {
            for input in &site.inputs {
                last_reader[source[*input as usize]] = i;
            }
            if matches!(site.op, Op::Out) {
                source[i] = source[site.inputs[0] as usize];
            }
        }
        Ok(Self {
            epilogue: epilogue(program),
            checkpoints: program.checkpoints(),
            bidirectional: program.is_bidirectional(),
            emits: match shapes.last() {
                Some(Shape::Words { cols }) => Some(*cols as usize),
                _ => None,
            },
            shapes,
            loaded,
            source,
            last_reader,
        })
    }
}

/// (mantissa, exponent) pairs of scales, as a probe sees them.
pub(crate) fn pairs(scales: &[Scale]) -> Vec<(u16, i16)> {
    scales.iter().map(|s| (s.m, s.e)).collect()
}
