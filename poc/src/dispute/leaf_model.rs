//! A model that breaks rules T1 to T4 of the tensor spec itself. No device loads it, so an honest neuron never
//! answers its jobs: whoever claims an answer is convicted by the tensor that no device takes.

use bitai_kernels::{
    Op, TensorId,
    load::{check_row, needs},
    program::{SiteId, Weight},
};
use serde::{Deserialize, Serialize};

use super::{Accusation, Challenge, DisputeError, Judge, Move, leaf::Step};
use crate::model_root::{LineOpening, Pack, TensorLine, WeightOpening};

/// What of a model breaks the tensor spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelFault {
    /// T1, T4: a tensor's type or shape is not what a site reads.
    Shape {
        /// The site.
        site: SiteId,
        /// The tensor.
        id: TensorId,
        /// Its line of the manifest.
        line: LineOpening,
    },
    /// T2, T3: a row of a site's weight holds a value that no row may, or sums to too much.
    Row {
        /// The site.
        site: SiteId,
        /// The row.
        row: u32,
        /// All of the row's integers and multipliers.
        w: WeightOpening,
    },
}

/// A site's weight with its rows and columns.
fn weight_of(judge: &Judge, site: SiteId) -> Result<(Weight, u32, u32), DisputeError> {
    let p = judge.program();
    match *judge.op(site)? {
        Op::Embed { weight, .. } => Ok((weight, p.vocab, p.d_model)),
        Op::PosEmbed { weight, .. } => Ok((weight, p.context, p.d_model)),
        Op::Linear { weight, n, k, .. } => Ok((weight, n, k)),
        _ => Err(DisputeError::Kind("this site has no weight")),
    }
}

/// Whether a line is of the type and shape that is needed.
fn fits(line: &TensorLine, need: &bitai_kernels::load::Need) -> bool {
    (line.dtype, line.rows, line.cols) == (need.dtype, need.rows as u64, need.cols as u64)
}

impl Judge {
    /// Whether the program names only tensors that the pack has.
    pub(super) fn names_tensors_that_are_there(&self) -> bool {
        let p = &self.program;
        p.sites
            .iter()
            .flat_map(|s| needs(p, &s.op))
            .all(|need| need.id < self.branches.tensor_count)
    }

    /// Executes the loader's check on one tensor's line or one weight's row.
    pub(super) fn model_rule(&self, fault: &ModelFault) -> Step {
        match fault {
            ModelFault::Shape { site, id, line } => {
                let needs = needs(&self.program, self.op(*site)?);
                let mut read = needs.iter().filter(|n| n.id == *id).peekable();
                if read.peek().is_none() {
                    return Err(DisputeError::Kind("the site reads no such tensor"));
                }
                line.verify(self.job.model_root, self.branches.tensor_count, *id)?;
                Ok((read.all(|n| fits(&line.line, n)), "a tensor's type and shape"))
            }
            ModelFault::Row { site, row, w } => {
                let (weight, n, k) = weight_of(self, *site)?;
                let (ws, mults) = self.weights(&weight, w, (n, k), *row, 0..k)?;
                Ok((check_row(&ws, &mults).is_ok(), "the bounds of a weight's row"))
            }
        }
    }
}

/// A challenger of claims on a model that no device loads: needs the pack, and no run.
pub struct ModelChallenger(pub Pack);

impl ModelChallenger {
    /// The first tensor of the judged program that breaks a rule.
    pub fn fault(&self, judge: &Judge) -> Option<ModelFault> {
        let (program, pack) = (judge.program(), &self.0);
        let mut seen = vec![];
        for (site, s) in (0u32..).zip(&program.sites) {
            for need in needs(program, &s.op) {
                let line = pack.open_line(need.id)?;
                if !fits(&line.line, &need) {
                    let id = need.id;
                    return Some(ModelFault::Shape { site, id, line });
                }
            }
            let Ok((weight, n, k)) = weight_of(judge, site) else {
                continue;
            };
            if seen.contains(&weight) {
                continue;
            }
            if let Some(row) = (0..n).find(|row| !self.holds(&weight, k, *row)) {
                let w = pack.open_weights(&weight, k, row, 0..k)?;
                return Some(ModelFault::Row { site, row, w });
            }
            seen.push(weight);
        }
        None
    }

    /// Whether a row keeps T2 and T3, its tensors being of the right shape.
    fn holds(&self, weight: &Weight, k: u32, row: u32) -> bool {
        self.0
            .weight_row(weight, k, row)
            .is_some_and(|(ws, mults)| check_row(&ws, &mults).is_ok())
    }
}

impl Challenge for ModelChallenger {
    fn next(&mut self, judge: &Judge) -> Move {
        let Some(fault) = self.fault(judge) else {
            return Move::Resign;
        };
        let accusation = Box::new(Accusation::Model(fault));
        match judge.rests_on(&accusation) {
            Ok(to) => Move::Accuse { to, accusation },
            Err(_) => Move::Resign,
        }
    }
}
