//! The probe of a regenerating run: what it keeps of the rows that go by.

use std::collections::{BTreeMap, HashMap};

use bitai_kernels::{Hash, Op, Probe, Program, SiteRows, num::Scale, program::SiteId, program_check::Shape};

use super::inner::{SiteCommit, SiteRow, kv_row};

/// The site whose rows an encoder pools.
fn pool_input(program: &Program) -> Option<SiteId> {
    let pool = program.sites.iter().find(|s| matches!(s.op, Op::Pool { .. }))?;
    pool.inputs.first().copied()
}

/// The probe: all rows of one position, the KV rows of all, and hashes of those that are pooled.
pub(super) struct Keep<'a> {
    pos: u32,
    pools: Option<SiteId>,
    pub(super) pooled: BTreeMap<u32, Hash>,
    pub(super) rows: Vec<Option<SiteRow>>,
    pub(super) kv: HashMap<(u32, u32), Vec<u8>>,
    pub(super) outs: HashMap<(u32, u32), [u8; 32]>,
    shapes: &'a [Shape],
    program: &'a Program,
}

impl<'a> Keep<'a> {
    /// Keeps the rows of position `pos`; `shapes` are those of the program's sites.
    pub(super) fn new(pos: u32, program: &'a Program, shapes: &'a [Shape]) -> Self {
        Self {
            pos,
            rows: vec![None; program.sites.len()],
            kv: HashMap::new(),
            outs: HashMap::new(),
            pools: pool_input(program),
            pooled: BTreeMap::new(),
            shapes,
            program,
        }
    }

    /// Row `i` of a block.
    fn row(&self, site: SiteId, rows: &SiteRows, i: usize) -> Option<SiteRow> {
        let shape = *self.shapes.get(site as usize)?;
        Some(match (rows, shape) {
            (SiteRows::Acts { cols, data }, _) => SiteRow::Acts(data.get(i * cols..(i + 1) * cols)?.to_vec()),
            // An encoder's words are a row like any other.
            (SiteRows::Tokens(words), Shape::Words { cols }) => {
                let cols = cols as usize;
                let row = words.get(i * cols..(i + 1) * cols)?;
                SiteRow::Acts(row.iter().map(|w| w.cast_signed()).collect())
            }
            (SiteRows::Tokens(ids), _) => SiteRow::Token(*ids.get(i)?),
            (
                SiteRows::Quant {
                    cols,
                    groups,
                    data,
                    scales,
                },
                shape,
            ) => {
                let data = data.get(i * cols..(i + 1) * cols)?;
                let scales: Vec<Scale> = scales
                    .get(i * groups..(i + 1) * groups)?
                    .iter()
                    .map(|(m, e)| Scale { m: *m, e: *e })
                    .collect();
                match shape {
                    Shape::Kv => SiteRow::Kv(self.kv_row(data, &scales)),
                    Shape::Quant { planes, .. } => SiteRow::Quant {
                        planes,
                        data: data.to_vec(),
                        scales,
                    },
                    _ => return None,
                }
            }
        })
    }

    /// The probe shows K and V head by head; the canonical row pads them to chunks.
    fn kv_row(&self, data: &[i16], scales: &[Scale]) -> Vec<u8> {
        let d = self.program.head_dim as usize;
        let half = |first: usize| -> (Vec<i16>, Vec<Scale>) {
            (
                data.chunks(d).skip(first).step_by(2).flatten().copied().collect(),
                scales.iter().skip(first).step_by(2).copied().collect(),
            )
        };
        let ((k, ks), (v, vs)) = (half(0), half(1));
        kv_row(d, (&k, &ks), (&v, &vs))
    }
}

impl Probe for Keep<'_> {
    fn site(&mut self, site: SiteId, first: u32, rows: &SiteRows) {
        let count = match rows {
            SiteRows::Acts { cols, data } => data.len() / cols.max(&1),
            SiteRows::Quant { cols, data, .. } => data.len() / cols.max(&1),
            SiteRows::Tokens(ids) => match self.shapes.get(site as usize) {
                Some(Shape::Words { cols }) => ids.len() / (*cols as usize).max(1),
                _ => ids.len(),
            },
        };
        let Some(s) = self.program.sites.get(site as usize) else {
            return;
        };
        let (layer, is_out) = (s.layer, s.op == Op::Out);
        let caches = self.shapes.get(site as usize) == Some(&Shape::Kv);
        let pools = self.pools == Some(site);
        for (pos, i) in (first..).zip(0..count) {
            if !caches && !is_out && !pools && pos != self.pos {
                continue;
            }
            let row = self.row(site, rows, i);
            if pools && let Some(SiteCommit::Acts(hash)) = row.as_ref().map(SiteRow::commit) {
                self.pooled.insert(pos, hash);
            }
            match (&row, layer) {
                (Some(SiteRow::Kv(bytes)), Some(layer)) => {
                    self.kv.insert((pos, layer), bytes.clone());
                }
                (Some(row), Some(layer)) if is_out => {
                    if let SiteCommit::Acts(hash) = row.commit() {
                        self.outs.insert((pos, layer), hash);
                    }
                }
                _ => {}
            }
            if pos == self.pos
                && let Some(slot) = self.rows.get_mut(site as usize)
            {
                *slot = row;
            }
        }
    }
}
