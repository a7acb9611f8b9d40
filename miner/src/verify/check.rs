//! Checks of one claim: the whole answer by its root, a part of it, and against a second way of computing.

use alloy_primitives::Address;
use bitai_poc::{
    Divergence, Header, TraceRoot, Transcript, model_shape,
    recheck::{self, Part, compare, first_difference, first_word},
};
use serde::Serialize;

use super::{
    claim::Claim,
    locate::{Place, Side, first_site},
};
use crate::{engine::Loaded, exit::Failure, progress::LateBar, registration::differences};

/// Tokens that are generated to time generation.
const RATE_TOKENS: u32 = 16;

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Whether the answer (or the part that was compared) was computed as claimed.
    pub ok: bool,
    /// The finding in words.
    pub finding: String,
    /// What the registration that the job was posted on says of the model and is not so, in words.
    pub misregistered: Option<String>,
    /// Who claims the answer.
    pub neuron: Option<Address>,
    /// The claimed root.
    pub claimed: TraceRoot,
    /// The root computed here, where the whole answer was.
    pub computed: Option<TraceRoot>,
    /// The positions that were compared, first and last, where not all were.
    pub part: Option<(u32, u32)>,
    /// Positions computed.
    pub positions: usize,
    /// Wall time.
    pub seconds: f64,
    /// What a second way of computing said.
    pub against: Option<Against>,
    /// The check's work beside that of generating.
    pub work: Option<Work>,
}

impl Checked {
    /// The worst that was found. Where a job on false numbers could not be run, nobody could have answered it rightly,
    /// and the registration is what is wrong; where it could, a wrong answer is a wrong answer.
    pub fn verdict(&self) -> Verdict {
        match (self.ok, &self.misregistered) {
            (false, Some(_)) if self.positions == 0 => Verdict::Misregistered,
            (false, _) => Verdict::Mismatch,
            (true, Some(_)) => Verdict::Misregistered,
            (true, None) => Verdict::Ok,
        }
    }

    /// The finding, and what is wrong with the registration.
    pub fn words(&self) -> String {
        match &self.misregistered {
            Some(registration) => format!("{registration}; {}", self.finding),
            None => self.finding.clone(),
        }
    }
}

/// What a check ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Computed as claimed.
    Ok,
    /// Not computed as claimed.
    Mismatch,
    /// The job was posted on a registration whose numbers are not the pack's.
    Misregistered,
}

/// What another device or pack of this machine computed for the same ids.
#[derive(Debug, Clone, Serialize)]
pub struct Against {
    /// Device, and the pack where it is another one.
    pub name: String,
    /// The root that it computed.
    pub computed: TraceRoot,
    /// Whether that is the claimed root: then the claim was made as this side computes.
    pub is_claim: bool,
    /// Whether it computed what the first side did.
    pub same: bool,
    /// Where the two sides part, in words.
    pub finding: String,
    /// The first number that differs, where the sides run one program.
    pub place: Option<Place>,
}

/// A check's work beside that of generating the answer, both measured on this machine.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Work {
    /// Positions a second of the check.
    pub check_rate: f64,
    /// Tokens a second of generating, one by one.
    pub decode_rate: f64,
    /// Tokens timed for that.
    pub decode_tokens: usize,
    /// What generating the whole answer would take at these rates, prompt included.
    pub generating_seconds: f64,
    /// The check's time as a part of it.
    pub ratio: f64,
}

/// Checks one claim on a loaded model.
pub fn check(loaded: &mut Loaded, claim: &Claim) -> Result<Checked, Failure> {
    Ok(checked(loaded, claim)?.0)
}

/// [`check`], with what was computed.
fn checked(loaded: &mut Loaded, claim: &Claim) -> Result<(Checked, Option<Transcript>), Failure> {
    if let Some(refused) = refused(loaded, claim)? {
        return Ok((refused, None));
    }
    let mut bar = LateBar::new(steps(loaded, claim), "computing the answer again");
    let run = loaded.recheck(&claim.job, &claim.output_ids, &mut |done| bar.at(done.into()))?;
    drop(bar);
    let compared = compare(claim.trace_root, &run.transcript, claim.transcript.as_ref())
        .map_err(|e| Failure::Internal(anyhow::Error::new(e)))?;
    let mut words = compared.to_string();
    // Another output than the claimed one says where, even without the claimant's transcript. A right root does not
    // bind what was revealed beside it: the last token is never run, and words are not run at all.
    let other = other_output(&run.transcript, &claim.output_ids);
    if let Some(other) = &other {
        words.push_str("; ");
        words.push_str(other);
    }
    let outputs = u32::try_from(run.transcript.outputs().len()).unwrap_or(u32::MAX);
    let found = Checked {
        computed: Some(run.trace_root),
        positions: run.transcript.header().positions(outputs) as usize,
        seconds: run.took.as_secs_f64(),
        misregistered: false_numbers(loaded, claim),
        ..blank(
            claim,
            compared == recheck::Verdict::Same && other.is_none(),
            words,
        )
    };
    Ok((found, Some(run.transcript)))
}

/// The first output that differs from the claimed one, in words.
fn other_output(mine: &Transcript, claimed: &[u32]) -> Option<String> {
    if mine.header().by_layer {
        return match first_word(mine.outputs(), claimed)? {
            Divergence::Word { index, theirs, mine } => {
                Some(format!("output word {index} should be {mine}, not {theirs}"))
            }
            _ => None,
        };
    }
    let mut pairs = mine.outputs().iter().zip(claimed).enumerate();
    pairs
        .find(|(_, (mine, theirs))| mine != theirs)
        .map(|(at, (mine, theirs))| format!("output token {at} should be {mine}, not {theirs}"))
}

fn blank(claim: &Claim, ok: bool, finding: String) -> Checked {
    Checked {
        ok,
        finding,
        misregistered: None,
        neuron: claim.who,
        claimed: claim.trace_root,
        computed: None,
        part: None,
        positions: 0,
        seconds: 0.0,
        against: None,
        work: None,
    }
}

/// What the registration of a claim's job says of the model and is not so, in words.
fn false_numbers(loaded: &Loaded, claim: &Claim) -> Option<String> {
    let registered = claim.registered?;
    let differs = differences(&loaded.key(), &registered);
    (!differs.is_empty()).then(|| {
        format!(
            "posted on registration {} with false numbers: {}",
            registered.id(),
            differs.join(", ")
        )
    })
}

/// Claims that need no computing: output ids that no honest run of the job can end with, and a job that only false
/// numbers let through.
fn refused(loaded: &Loaded, claim: &Claim) -> Result<Option<Checked>, Failure> {
    let misregistered = false_numbers(loaded, claim);
    let words = match loaded.check(&claim.job) {
        Err(Failure::Job(e)) if misregistered.is_some() => format!("no job for this pack: {e}"),
        Err(e) => return Err(e),
        Ok(()) => match claim.job.check_output(&claim.output_ids, &loaded.shape()) {
            Err(e) => format!("no answer to this job: {e}"),
            Ok(()) => return Ok(None),
        },
    };
    Ok(Some(Checked {
        misregistered,
        ..blank(claim, false, words)
    }))
}

/// What the bar of a check counts: positions, or an encoder's layers.
fn steps(loaded: &mut Loaded, claim: &Claim) -> u64 {
    let program = loaded.engine().program();
    if model_shape(program).embeds() {
        program.layers.into()
    } else {
        positions(claim).into()
    }
}

/// Positions of a claimed answer of tokens: prompt and output, but the last id is never run.
fn positions(claim: &Claim) -> u32 {
    let all = claim.job.input_ids.len() + claim.output_ids.len();
    u32::try_from(all.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Checks positions `from ..= to` (default: the first, the last). The rows of those positions are compared
/// where the claimant's transcript is at hand; what was sampled there always is, since the answer is public.
pub fn check_part(
    loaded: &mut Loaded,
    claim: &Claim,
    from: Option<u32>,
    to: Option<u32>,
) -> Result<Checked, Failure> {
    if let Some(refused) = refused(loaded, claim)? {
        return Ok(refused);
    }
    if loaded.shape().embeds() {
        return Err(Failure::Usage(
            "--from and --to: every row of an encoder depends on the whole text, so no part of it can be checked alone"
                .into(),
        ));
    }
    let count = positions(claim);
    let (from, to) = (from.unwrap_or(0), to.unwrap_or(count - 1));
    if from > to || to >= count {
        return Err(Failure::Usage(format!(
            "positions {from} to {to}: this answer has positions 0 to {}",
            count - 1
        )));
    }
    let header = Header::new(&claim.job, loaded.engine().program());
    let theirs = match &claim.transcript {
        Some(t) if t.root() == Ok(claim.trace_root) && *t.header() == header => Some(t),
        Some(_) => {
            let words = "the transcript at hand is not the one behind the claimed root".to_owned();
            return Ok(blank(claim, false, words));
        }
        None if to + 1 < header.prompt => {
            return Err(Failure::Usage(format!(
                "positions {from} to {to} lie in the prompt; nothing of them can be compared without the claimant's \
                 transcript"
            )));
        }
        None => None,
    };
    let mut bar = LateBar::new(u64::from(to) + 1, "computing the part again");
    let run = loaded.recheck_part(&claim.job, &claim.output_ids, (from, to), &mut |done| {
        bar.at(done.into())
    })?;
    drop(bar);
    let body = theirs.and_then(|t| {
        let differs = |(pos, mine): (u32, &[u8; 32])| (t.body_roots()[pos as usize] != *mine).then_some(pos);
        (from..).zip(&run.bodies).find_map(differs)
    });
    let sampled = run.sampled.iter().find_map(|(pos, mine)| {
        let theirs = *claim.output_ids.get(header.output_at(*pos)? as usize)?;
        (theirs != *mine).then_some((*pos, Part::Sampled { theirs, mine: *mine }))
    });
    let body = body.map(|pos| (pos, Part::Body));
    // Rows come before what is sampled from them.
    let first = match (body, sampled) {
        (Some(b), Some(s)) if s.0 < b.0 => Some(s),
        (Some(b), _) => Some(b),
        (None, s) => s,
    };
    let first = first.map(|(pos, what)| Divergence::Token { pos, what });
    let words = match first {
        Some(d) => d.to_string(),
        None if theirs.is_some() => format!("positions {from} to {to} are as claimed"),
        None => format!(
            "what positions {from} to {to} sampled is as claimed; their rows were not compared (no transcript at hand)"
        ),
    };
    Ok(Checked {
        part: Some((from, to)),
        misregistered: false_numbers(loaded, claim),
        positions: run.positions,
        seconds: run.took.as_secs_f64(),
        ..blank(claim, first.is_none(), words)
    })
}

/// [`check`] on `here`, then the same on `there`, and the first place where the two part. `name` is what the
/// second side is called.
pub fn check_against(
    loaded: &mut Loaded,
    here: Side<'_>,
    there: Side<'_>,
    name: &str,
    claim: &Claim,
) -> Result<Checked, Failure> {
    let (mut found, mine) = checked(loaded, claim)?;
    let Some(mine) = mine else {
        return Ok(found);
    };
    let mut other = Loaded::on(there.pack, there.device)?;
    let mut bar = LateBar::new(steps(loaded, claim), "computing the answer the other way");
    let theirs = other.recheck(&claim.job, &claim.output_ids, &mut |done| bar.at(done.into()))?;
    drop(bar);
    // Its buffers go before the rows are computed once more on both sides.
    drop(other);
    let is_claim = theirs.trace_root == claim.trace_root;
    let first = first_difference(&mine, &theirs.transcript);
    let place = match first {
        Some(d) => first_site(here, there, &claim.job, &claim.output_ids, d)?,
        None => None,
    };
    let same = theirs.trace_root == mine.root().unwrap_or(claim.trace_root);
    let finding = match (&place, first) {
        (Some(place), _) => place.to_string(),
        (None, Some(d)) if here.pack.program() != there.pack.program() => {
            format!("{d} (the packs run different programs, so no site can be named)")
        }
        // The rows were equal the second time: a fault that comes and goes.
        (None, Some(d)) => format!("{d}; computed once more the rows are equal, so the fault is not steady"),
        (None, None) if same => "same trace root".to_owned(),
        (None, None) => "the two sides commit to different jobs or models".to_owned(),
    };
    // Where the claimed root was computed here as well, what is wrong was found in the output: that stays the finding.
    if !found.ok && is_claim && found.computed != Some(claim.trace_root) {
        found.finding = format!("{finding} ({name}, which computes the claimed root)");
    }
    found.against = Some(Against {
        name: name.to_owned(),
        computed: theirs.trace_root,
        is_claim,
        same,
        finding,
        place,
    });
    Ok(found)
}

/// Times generating on the same machine, to say what share of it the check was. `None` where nothing was
/// computed or the context leaves no room.
pub fn work(loaded: &mut Loaded, claim: &Claim, checked: &Checked) -> Result<Option<Work>, Failure> {
    if checked.positions == 0 {
        return Ok(None);
    }
    let Some(rate) = loaded.decode_rate(&claim.job, RATE_TOKENS)? else {
        return Ok(None);
    };
    let per = |count: usize, seconds: f64| count as f64 / seconds.max(1e-9);
    let check_rate = per(checked.positions, checked.seconds);
    let decode_rate = per(rate.tokens, rate.took.as_secs_f64());
    let generating_seconds =
        claim.output_ids.len() as f64 / decode_rate + claim.job.input_ids.len() as f64 / check_rate;
    Ok(Some(Work {
        check_rate,
        decode_rate,
        decode_tokens: rate.tokens,
        generating_seconds,
        ratio: checked.seconds / generating_seconds.max(1e-9),
    }))
}
