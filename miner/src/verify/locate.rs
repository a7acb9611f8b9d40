//! Where two ways of computing one job part: the first token (of an encoder the first layer, then the token), and of
//! its rows the first site and element.
//!
//! A claim on the chain is 32 bytes; the rows behind it are nowhere. They can be named only where somebody can
//! compute them again: both sides run here, each on its own device or pack, and their rows are compared.

use std::fmt;

use bitai_kernels::{Device, Op, Program, program::SiteId};
use bitai_model::pack::Pack;
use bitai_poc::{
    Divergence,
    dispute::{DisputeError, Regenerate, RunnerRegen, TokenRows, inner::SiteRow},
    recheck::token_of,
};
use bitai_types::Job;
use serde::Serialize;

use crate::{engine::kernel_sampler, exit::Failure};

/// One way of computing: a pack on a device.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The model's bytes.
    pub pack: &'a Pack,
    /// Where they run.
    pub device: &'a dyn Device,
}

/// The first integer that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Position in prompt and output.
    pub token: u32,
    /// Layer; none before the first and after the last.
    pub layer: Option<u32>,
    /// Number of the site in the program.
    pub site: SiteId,
    /// What the site computes, in the pack's own names: `ffn_down`, `quant of attn_norm`.
    pub name: String,
    /// Which of the row's numbers: `row index` (an element), `scale of group`, `byte`, `sampled id`.
    pub part: &'static str,
    /// Its index.
    pub index: usize,
    /// The number of the first side.
    pub here: String,
    /// The number of the second side.
    pub there: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {}, ", self.token)?;
        if let Some(layer) = self.layer {
            write!(f, "layer {layer}, ")?;
        }
        write!(
            f,
            "site {} (number {}), {} {}: {} here, {} there",
            self.name, self.site, self.part, self.index, self.here, self.there
        )
    }
}

/// The first site whose rows differ between two sides that run the same ids (prompt and claimed output), at the
/// token where their traces part. `None` where they are equal, or where the two packs run different programs.
pub fn first_site(
    here: Side<'_>,
    there: Side<'_>,
    job: &Job,
    output_ids: &[u32],
    parted: Divergence,
) -> Result<Option<Place>, Failure> {
    let program = here.pack.program();
    if *program != *there.pack.program() {
        return Ok(None);
    }
    let rows = |side: Side<'_>| -> Result<_, Failure> {
        let runner = side
            .device
            .load(side.pack.program(), &side.pack.tensors())
            .map_err(|e| Failure::Device(e.to_string()))?;
        // The last output is sampled and never run; no word is.
        let run = match parted {
            Divergence::Token { .. } => &output_ids[..output_ids.len().saturating_sub(1)],
            Divergence::Layer { .. } | Divergence::Word { .. } => &[],
        };
        let ids = [&job.input_ids[..], run].concat();
        let prompt = u32::try_from(job.input_ids.len()).unwrap_or(u32::MAX);
        Ok(RunnerRegen::new(runner, ids, prompt, kernel_sampler(job)))
    };
    let failed = |e: DisputeError| Failure::Device(format!("computing the rows again: {e}"));
    let (mut here_rows, mut there_rows) = (rows(here)?, rows(there)?);
    let Some(token) = token_of(parted, &mut here_rows, &mut there_rows).map_err(failed)? else {
        return Ok(None);
    };
    let mine = here_rows.token(token).map_err(failed)?;
    let theirs = there_rows.token(token).map_err(failed)?;
    Ok(place(here.pack, &program, token, (&mine, &theirs)))
}

/// The first site, in the order of the program, at which two sides' rows of one token differ.
fn place(
    pack: &Pack,
    program: &Program,
    token: u32,
    (mine, theirs): (&TokenRows, &TokenRows),
) -> Option<Place> {
    for (site, s) in (0u32..).zip(&program.sites) {
        let (Some(a), Some(b)) = (mine.row(site), theirs.row(site)) else {
            continue;
        };
        if let Some(d) = difference(a, b) {
            return Some(Place {
                token,
                layer: s.layer,
                site,
                name: site_name(pack, program, site),
                part: d.part,
                index: d.index,
                here: d.here,
                there: d.there,
            });
        }
    }
    None
}

struct Difference {
    part: &'static str,
    index: usize,
    here: String,
    there: String,
}

/// The first number at which two lists differ; a missing one counts as different.
fn first<T: PartialEq>(
    part: &'static str,
    a: &[T],
    b: &[T],
    words: impl Fn(&T) -> String,
) -> Option<Difference> {
    let index = (0..a.len().max(b.len())).find(|i| a.get(*i) != b.get(*i))?;
    let show = |v: &[T]| v.get(index).map_or_else(|| "nothing".into(), &words);
    Some(Difference {
        part,
        index,
        here: show(a),
        there: show(b),
    })
}

fn difference(a: &SiteRow, b: &SiteRow) -> Option<Difference> {
    match (a, b) {
        (SiteRow::Acts(a), SiteRow::Acts(b)) => first("row index", a, b, ToString::to_string),
        (
            SiteRow::Quant {
                data: a, scales: x, ..
            },
            SiteRow::Quant {
                data: b, scales: y, ..
            },
        ) => first("row index", a, b, ToString::to_string)
            .or_else(|| first("scale of group", x, y, |s| format!("{} x 2^{}", s.m, s.e))),
        (SiteRow::Kv(a), SiteRow::Kv(b)) => first("byte", a, b, ToString::to_string),
        (SiteRow::Token(a), SiteRow::Token(b)) => first("sampled id", &[*a], &[*b], ToString::to_string),
        _ => Some(Difference {
            part: "row index",
            index: 0,
            here: kind(a).into(),
            there: kind(b).into(),
        }),
    }
}

const fn kind(row: &SiteRow) -> &'static str {
    match row {
        SiteRow::Acts(_) => "int32 row",
        SiteRow::Quant { .. } => "quantised row",
        SiteRow::Kv(_) => "cached row",
        SiteRow::Token(_) => "token",
    }
}

/// What a site is, in words that a person who knows the architecture understands: the tensor it multiplies by,
/// else its operation and what that reads.
pub fn site_name(pack: &Pack, program: &Program, site: SiteId) -> String {
    let Some(s) = program.sites.get(site as usize) else {
        return format!("{site}");
    };
    let tensor = |id: u32| {
        pack.manifest().tensors.get(id as usize).map(|t| {
            let name = t.name.strip_suffix(".q").unwrap_or(&t.name);
            // The layer is named beside it.
            match name.strip_prefix("blk.").and_then(|n| n.split_once('.')) {
                Some((_, rest)) => rest.to_owned(),
                None => name.to_owned(),
            }
        })
    };
    let named = match &s.op {
        Op::Embed { weight, .. } => return "embedding of the id".to_owned() + &suffix(tensor(weight.q)),
        Op::Linear { weight, .. } => tensor(weight.q),
        Op::PosEmbed { weight, .. } => {
            return "embedding of the position".to_owned() + &suffix(tensor(weight.q));
        }
        Op::RmsNorm { gain, .. } | Op::LayerNorm { gain, .. } => tensor(*gain),
        _ => None,
    };
    if let Some(name) = named {
        return name;
    }
    // A residual is called after the branch that it takes in, its last input.
    match (
        &s.op,
        s.inputs
            .last()
            .filter(|_| matches!(s.op, Op::Add))
            .or(s.inputs.first()),
    ) {
        (Op::Add, Some(branch)) if *branch < site => {
            format!("residual after {}", site_name(pack, program, *branch))
        }
        (Op::Attention { .. } | Op::KvAppend { .. } | Op::Out | Op::Sample { .. }, _) | (_, None) => {
            s.op.name().to_owned()
        }
        // Inputs come before their readers, so this ends.
        (_, Some(input)) if *input < site => {
            format!("{} of {}", s.op.name(), site_name(pack, program, *input))
        }
        _ => s.op.name().to_owned(),
    }
}

fn suffix(tensor: Option<String>) -> String {
    tensor.map_or_else(String::new, |t| format!(" ({t})"))
}
