//! What is published of a claim, put together from the chain's events: the judge of `poc` plays them again, so that
//! whoever looks knows what every move may build on, and keeps nothing.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256};
use bitai_kernels::Program;
use bitai_poc::{
    Branches,
    dispute::{Answer, Ask, Claim, DisputeError, Judge},
};

use crate::{
    chain::{
        Refusal, Verifier,
        verifier::{Event, Logged},
    },
    exit::Failure,
};

/// A claim as its events tell it.
#[derive(Debug, Clone)]
pub struct View {
    /// Everything that happened, in order.
    pub events: Vec<Logged>,
    /// Who ever opened a game.
    pub challengers: BTreeSet<Address>,
    /// What is published, with the rules that moves obey.
    pub judge: Judge,
}

impl View {
    /// What was asked under an id.
    pub fn asked(&self, id: B256) -> Option<Ask> {
        asked(&self.events, id)
    }
}

/// What was asked under an id.
pub(super) fn asked(events: &[Logged], wanted: B256) -> Option<Ask> {
    events.iter().find_map(|logged| match &logged.event {
        Event::Asked { id, ask, .. } if *id == wanted => Some(*ask),
        _ => None,
    })
}

/// Whoever ever opened a game.
pub(super) fn challengers(events: &[Logged]) -> BTreeSet<Address> {
    let opened = |logged: &Logged| match logged.event {
        Event::Opened(who, _) => Some(who),
        _ => None,
    };
    events.iter().filter_map(opened).collect()
}

/// Reads a claim's events from height `from` on and plays them. Program and branches are checked against the model
/// root; an event that the rules of this program refuse is an error, since every move made on it would be wrong.
pub async fn view(
    verifier: &Verifier,
    claim: &Claim,
    (program, branches): (&Program, &Branches),
    from: u64,
) -> Result<View, Failure> {
    let fail = |e: Refusal| e.into_failure("reading a dispute");
    let rules = |e: DisputeError| {
        Failure::Internal(anyhow::anyhow!(
            "the chain holds a move that this program's rules refuse ({e}): contract and program differ"
        ))
    };
    let events = verifier
        .events(B256::from(claim.id()), from)
        .await
        .map_err(fail)?;
    let mut judge = Judge::new(claim.clone(), program.clone(), *branches).map_err(rules)?;
    for logged in &events {
        match &logged.event {
            Event::Opened(who, _) => judge.join(*who).map_err(rules)?,
            Event::Asked {
                challenger, to, ask, ..
            } => {
                judge.ask(*challenger, to.0, *ask).map_err(rules)?;
            }
            Event::Answered { ask: id, content } => {
                let ask = asked(&events, *id).ok_or_else(|| rules(DisputeError::NotAsked))?;
                let content = verifier.content(*content).await.map_err(fail)?;
                let bytes = [id.as_slice(), &content].concat();
                let (_, answer) = Answer::decode(ask.answered_by(), &bytes).map_err(|e| {
                    Failure::Internal(anyhow::Error::new(e).context("reading a published answer"))
                })?;
                judge.answer(claim.neuron, id.0, answer).map_err(rules)?;
            }
            // Whoever lost asks no more; after a conviction nobody does.
            Event::Lost(..) | Event::Convicted(..) => {}
        }
    }
    Ok(View {
        challengers: challengers(&events),
        events,
        judge,
    })
}
