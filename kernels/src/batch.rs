//! A batch before it runs: what every runner refuses, and how a long one is cut into pieces.

use crate::{KernelError, Op, Program, SeqId, SeqStep};

/// All that can go wrong in a batch, before anything moves. `held` gives a sequence's positions and how many fit.
pub(crate) fn check(
    program: &Program,
    emits: Option<usize>,
    batch: &[SeqStep<'_>],
    probed: bool,
    held: impl Fn(SeqId) -> Result<(u32, u32), KernelError>,
) -> Result<(), KernelError> {
    let shape = |what, expected: String, got: String| Err(KernelError::Shape { what, expected, got });
    if probed && batch.len() > 1 {
        return shape(
            "batch under a probe",
            "1 sequence".into(),
            format!("{}", batch.len()),
        );
    }
    let bidirectional = program.is_bidirectional();
    let samples = matches!(program.sites.last().map(|s| &s.op), Some(Op::Sample { .. }));
    for (i, step) in batch.iter().enumerate() {
        let (len, max) = held(step.seq)?;
        if batch[..i].iter().any(|b| b.seq == step.seq) {
            return shape(
                "batch",
                "each sequence once".into(),
                format!("sequence {} twice", step.seq.0),
            );
        }
        if step.tokens.is_empty() {
            return shape("tokens of a step", "at least 1".into(), "0".into());
        }
        let want = u32::try_from(step.tokens.len()).unwrap_or(u32::MAX);
        if want > max - len {
            return Err(KernelError::ContextFull { have: len, max, want });
        }
        if let Some(id) = step.tokens.iter().find(|id| **id >= program.vocab) {
            return shape("token id", format!("below {}", program.vocab), format!("{id}"));
        }
        let most = match emits {
            Some(_) => 1,
            None if samples => want,
            None => 0,
        };
        if step.sample > most {
            return shape(
                "rows to sample",
                format!("at most {most}"),
                format!("{}", step.sample),
            );
        }
        if bidirectional && len > 0 {
            return shape(
                "step of a bidirectional program",
                "a whole sequence at once".into(),
                format!("{len} tokens before it"),
            );
        }
    }
    Ok(())
}

/// The batch in pieces of at most `limit` rows, each sequence's rows in order; where it is cut cannot change a bit.
pub(crate) fn pieces<'a>(batch: &[SeqStep<'a>], limit: usize) -> Vec<Vec<SeqStep<'a>>> {
    let (mut all, mut piece, mut rows) = (vec![], vec![], 0);
    for step in batch {
        let unsampled = step.tokens.len() - step.sample as usize;
        let mut at = 0;
        while at < step.tokens.len() {
            let end = step.tokens.len().min(at + (limit - rows));
            piece.push(SeqStep {
                tokens: &step.tokens[at..end],
                sample: end.saturating_sub(unsampled.max(at)) as u32,
                ..step.clone()
            });
            rows += end - at;
            at = end;
            if rows == limit {
                all.push(std::mem::take(&mut piece));
                rows = 0;
            }
        }
    }
    if rows > 0 {
        all.push(piece);
    }
    all
}
