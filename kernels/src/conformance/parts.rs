//! The way of running that loads one unit at a time ([`crate::part`]), for devices that have it: the same sequence, unit by
//! unit, must show the same rows and give the same results.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    build::Case,
    check::{Input, Outcome, Recorder},
};
use crate::{
    Carried, Device, KernelError, PartStep, Probe, Program, SiteRows,
    program::SiteId,
    rows::{leaf_hash, merkle_root},
};

/// Rows on their way between two units.
struct Piece<'a> {
    first: u32,
    tokens: &'a [u32],
    carried: Carried,
    sampled: bool,
}

/// Whether a sequence can be cut where sampling begins: not one that is run whole and samples some of its rows, which no
/// job asks for.
pub(super) fn can_cut(program: &Program, sample: u32) -> bool {
    !program.is_bidirectional() || program.emits().is_some() || sample == 0
}

/// One sequence, unit by unit; a decoder's in pieces of at most `piece` rows, cut also where sampling begins.
pub(super) fn run(
    device: &dyn Device,
    case: &Case,
    input: &Input,
    piece: usize,
    seen: &mut Recorder,
) -> Result<Outcome, KernelError> {
    let (program, n) = (&case.program, input.tokens.len());
    let whole = program.is_bidirectional();
    let unsampled = if whole { 0 } else { n - input.sample as usize };
    let (head, tail) = input.tokens.split_at(unsampled);
    let piece = if whole { n } else { piece };
    let cut = |tokens, sampled| {
        let part = move |tokens| Piece {
            first: 0,
            tokens,
            carried: Carried::default(),
            sampled,
        };
        <[u32]>::chunks(tokens, piece).map(part)
    };
    let sampled = input.sample > 0;
    let mut pieces: Vec<Piece<'_>> = cut(head, false).chain(cut(tail, sampled)).collect();
    let mut at = 0;
    for piece in &mut pieces {
        piece.first = at;
        at += piece.tokens.len() as u32;
    }
    let mut outcome = Outcome {
        tokens: vec![],
        bodies: vec![],
    };
    // By layer, then position.
    let mut leaves = vec![];
    for unit in 0..program.units() {
        let layer = unit.checked_sub(1).filter(|l| *l < program.layers);
        let last = unit + 1 == program.units();
        let mut part = device.load_part(Arc::clone(program), &case.tensors, unit)?;
        let (mut cache, mut of_layer) = (vec![], vec![]);
        for piece in pieces.iter_mut().filter(|p| !last || p.sampled) {
            let step = PartStep {
                first: piece.first,
                tokens: piece.tokens,
                sampler: &input.sampler,
            };
            let carried = std::mem::take(&mut piece.carried);
            let done = part.run(step, carried, &mut cache, Some(seen as &mut dyn Probe))?;
            piece.carried = done.carried;
            outcome.tokens.extend(done.sampled);
            of_layer.extend(done.hashes);
        }
        if let Some(l) = layer {
            let leaf = |(pos, row): (u32, &crate::RowHashes)| leaf_hash(pos, l, &row.kv, row.out.as_ref());
            leaves.push((0u32..).zip(&of_layer).map(leaf).collect::<Vec<_>>());
        }
    }
    outcome.bodies = match whole {
        true => leaves.iter().map(|l| merkle_root(l)).collect(),
        false => (0..n)
            .map(|pos| merkle_root(&leaves.iter().map(|l| l[pos]).collect::<Vec<_>>()))
            .collect(),
    };
    Ok(outcome)
}

/// Each site's rows joined, first position first: where a sequence was cut no longer shows.
pub(super) fn joined(seen: Recorder) -> Recorder {
    let mut sites: BTreeMap<SiteId, (u32, SiteRows)> = BTreeMap::new();
    for (site, first, rows) in seen.rows {
        let Some((_, all)) = sites.get_mut(&site) else {
            sites.insert(site, (first, rows));
            continue;
        };
        match (all, rows) {
            (SiteRows::Acts { data, .. }, SiteRows::Acts { data: more, .. }) => data.extend(more),
            (
                SiteRows::Quant { data, scales, .. },
                SiteRows::Quant {
                    data: more,
                    scales: others,
                    ..
                },
            ) => {
                data.extend(more);
                scales.extend(others);
            }
            (SiteRows::Tokens(ids), SiteRows::Tokens(more)) => ids.extend(more),
            // Rows of another kind: left as they are, and found to differ in number.
            _ => {}
        }
    }
    Recorder {
        rows: sites
            .into_iter()
            .map(|(site, (first, rows))| (site, first, rows))
            .collect(),
    }
}
