//! What a dispute took: every move with its transaction, gas and share of what was inscribed on Bitcoin.

use std::fmt;

use alloy::consensus::Transaction as _;
use alloy::sol_types::SolCall;
use alloy_primitives::{Address, B256};
use bitai_contracts::PocVerifier;
use bitai_poc::dispute::Accusation;

use super::challenge::describe;
use crate::{
    chain::{
        Refusal, Verifier,
        verifier::{Event, Logged},
    },
    exit::Failure,
};

/// One transaction of a dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// What it did, in words.
    pub what: String,
    /// Asks up to it.
    pub round: usize,
    /// Its transaction.
    pub tx: B256,
    /// BitAI height.
    pub height: u64,
    /// Gas used.
    pub gas: u64,
    /// Bytes of its calldata.
    pub calldata: usize,
    /// Its share of the virtual bytes inscribed, where this node knows them.
    pub vbytes: Option<u64>,
}

/// A whole dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its transactions in order.
    pub legs: Vec<Leg>,
    /// The step that was executed last: an accusation's kind.
    pub step: Option<String>,
    /// Who was convicted by whom, and by which kind of end.
    pub convicted: Option<(Address, u8)>,
    /// Challengers that lost, and by which kind of end.
    pub lost: Vec<(Address, u8)>,
}

/// The largest of satoshi prices that a report is printed at.
const RATES: [u64; 3] = [1, 10, 50];

impl Report {
    /// Asks.
    pub fn rounds(&self) -> usize {
        self.legs.last().map_or(0, |l| l.round)
    }

    /// Gas of all.
    pub fn gas(&self) -> u64 {
        self.legs.iter().map(|l| l.gas).sum()
    }

    /// Virtual bytes of all that are known.
    pub fn vbytes(&self) -> u64 {
        self.legs.iter().filter_map(|l| l.vbytes).sum()
    }

    /// Heights from the first move to the last.
    pub fn blocks(&self) -> u64 {
        match (self.legs.first(), self.legs.last()) {
            (Some(a), Some(b)) => b.height - a.height,
            _ => 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "round  height  gas        calldata  vbytes  move")?;
        for leg in &self.legs {
            let vbytes = leg.vbytes.map_or_else(|| "-".into(), |v| v.to_string());
            let round = leg.round;
            writeln!(
                f,
                "{round:<5}  {:<6}  {:<9}  {:<8}  {vbytes:<6}  {}",
                leg.height, leg.gas, leg.calldata, leg.what
            )?;
        }
        writeln!(f)?;
        if let Some(step) = &self.step {
            writeln!(f, "executed step    {step}")?;
        }
        writeln!(f, "rounds           {}", self.rounds())?;
        writeln!(f, "gas              {}", self.gas())?;
        writeln!(f, "inscribed        {} vbytes", self.vbytes())?;
        for rate in RATES {
            writeln!(f, "  at {rate:>2} sat/vB   {} sats", self.vbytes() * rate)?;
        }
        write!(f, "time             {} blocks", self.blocks())
    }
}

/// Reads a claim's dispute from the chain; `from` is a height before it.
pub async fn report(verifier: &Verifier, claim: B256, from: u64) -> Result<Report, Failure> {
    let fail = |e: Refusal| e.into_failure("reading a dispute");
    let events = verifier.events(claim, from).await.map_err(fail)?;
    let mut report = Report {
        legs: vec![],
        step: None,
        convicted: None,
        lost: vec![],
    };
    let mut round = 0;
    for logged in &events {
        match logged.event {
            Event::Asked { .. } => round += 1,
            Event::Convicted(who, by) => report.convicted = Some((who, by)),
            Event::Lost(who, by) => report.lost.push((who, by)),
            Event::Opened(..) | Event::Answered { .. } => {}
        }
        let words = describe(&logged.event);
        match report.legs.iter_mut().find(|l| l.tx == logged.tx) {
            // An accusation convicts, an answer may contradict itself: one transaction, two events.
            Some(leg) => leg.what = format!("{}; {words}", leg.what),
            None => {
                let (leg, step) = leg(verifier, logged, words, round).await.map_err(fail)?;
                report.legs.push(leg);
                report.step = step.or(report.step);
            }
        }
    }
    Ok(report)
}

async fn leg(
    verifier: &Verifier,
    logged: &Logged,
    words: String,
    round: usize,
) -> Result<(Leg, Option<String>), Refusal> {
    let node = verifier.hub().node();
    let receipt = node.receipt(logged.tx).await?;
    let way = node.inscription(logged.tx).await?;
    let input = node
        .transaction(logged.tx)
        .await?
        .map(|t| t.input().clone())
        .unwrap_or_default();
    let step = PocVerifier::accuseCall::abi_decode(&input)
        .ok()
        .and_then(|call| Accusation::decode(&call.r#move).ok())
        .map(|(_, accusation)| accusation.name().to_owned());
    let what = match &step {
        Some(step) => format!("accused: {step}; {words}"),
        None => words,
    };
    // What shares an envelope shares its bytes.
    let share = way.and_then(|w| Some(w.vbytes?.div_ceil(u64::from(w.batch.unwrap_or(1).max(1)))));
    let leg = Leg {
        what,
        round,
        tx: logged.tx,
        height: logged.height,
        gas: receipt.map_or(0, |r| r.gas_used),
        calldata: input.len(),
        vbytes: share,
    };
    Ok((leg, step))
}
