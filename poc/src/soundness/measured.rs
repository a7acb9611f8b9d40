//! What was measured, not reckoned: gas of the contracts' snapshots, the disputes of a devnet, envelopes of the real inscriber.
//!
//! The files are compiled in as they are committed, so that a figure printed here cannot be older than they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chance::Share;

const ACCUSATIONS: &str = include_str!("../../../contracts/snapshots/Accusations.json");
const ROW_ACCUSATIONS: &str = include_str!("../../../contracts/snapshots/RowAccusations.json");
const HUB: &str = include_str!("../../../contracts/snapshots/GasTest.json");
const DISPUTES: &str = include_str!("../../../benches/results/2026-11-22-disputes.md");
const SPEED: &str = include_str!("../../../benches/results/2026-11-22-epyc-avx2-cpu.md");
const OVERHEAD: &str = include_str!("../../../vectors/overhead.json");

/// A committed file that is not as it is read here: a fault of this build.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}: {why}")]
pub struct MeasuredError {
    /// The file.
    pub file: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// Gas of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gas {
    /// Its name in the snapshot.
    pub name: String,
    /// Gas of the transaction.
    pub gas: u64,
}

/// A dispute about a real model that a devnet ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dispute {
    /// The lie.
    pub lie: String,
    /// Asks.
    pub rounds: u64,
    /// Gas of all its transactions.
    pub gas: u64,
    /// Virtual bytes of all.
    pub vbytes: u64,
    /// Blocks from its first move to its verdict.
    pub blocks: u64,
    /// Whether a clock that ran out ended it.
    pub silence: bool,
}

/// A transaction of a job's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overhead {
    /// What it does.
    pub name: String,
    /// Bytes of its calldata.
    pub calldata: u64,
    /// Bytes as signed.
    pub raw: u64,
    /// Virtual bytes of commit and reveal where it travels alone.
    pub alone: u64,
    /// Virtual bytes of an envelope that holds a hundred such.
    pub hundred: u64,
}

/// `vectors/overhead.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overheads {
    /// Transactions of a full envelope.
    pub batch: u64,
    /// Payload bytes, virtual bytes of the commit, of the reveal.
    pub frames: Vec<[u64; 3]>,
    /// The transactions.
    pub transactions: Vec<Overhead>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The dearest accusation of a step.
    pub worst_leaf: Gas,
    /// The dearest accusation of all: of a model's row.
    pub worst_model: Gas,
    /// How many accusations were measured.
    pub leaves: usize,
    /// Gas of the hub's calls.
    pub hub: BTreeMap<String, u64>,
    /// Disputes of the devnet.
    pub disputes: Vec<Dispute>,
    /// Cost of a re-check as a share of generating, profiles A and B, on a CPU.
    pub recheck: [Share; 2],
    /// Bytes of a job's transactions.
    pub overhead: Overheads,
}

/// The numbers of a snapshot of forge: a flat object of decimal strings.
fn snapshot(file: &'static str, text: &str) -> Result<BTreeMap<String, u64>, MeasuredError> {
    let bad = |why: String| MeasuredError { file, why };
    let map: BTreeMap<String, String> = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    map.into_iter()
        .map(|(name, gas)| match gas.parse() {
            Ok(gas) => Ok((name, gas)),
            Err(_) => Err(bad(format!("`{name}` is `{gas}`, no number"))),
        })
        .collect()
}

/// The rows of the first table whose head begins with `lie`.
fn disputes(text: &str) -> Result<Vec<Dispute>, MeasuredError> {
    let bad = |why: String| MeasuredError {
        file: "benches/results/2026-11-22-disputes.md",
        why,
    };
    let mut found = Vec::new();
    let rows = text.lines().skip_while(|l| !l.starts_with("| lie |")).skip(2);
    for line in rows.take_while(|l| l.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [lie, step, rounds, _, gas, vbytes, blocks, _] = cells[..] else {
            return Err(bad(format!("`{line}` has {} cells, not 8", cells.len())));
        };
        let number = |cell: &str| {
            cell.replace(',', "")
                .parse::<u64>()
                .map_err(|_| bad(format!("`{cell}` of `{lie}` is no number")))
        };
        found.push(Dispute {
            lie: lie.to_owned(),
            rounds: number(rounds)?,
            gas: number(gas)?,
            vbytes: number(vbytes)?,
            blocks: number(blocks)?,
            silence: step == "silence",
        });
    }
    if found.is_empty() {
        return Err(bad("no table of lies".to_owned()));
    }
    Ok(found)
}

/// The two shares in the line about re-checks.
fn recheck(text: &str) -> Result<[Share; 2], MeasuredError> {
    let line = text.lines().find_map(|l| l.strip_prefix("- Re-check: "));
    let shares: Vec<Share> = line
        .unwrap_or_default()
        .split(' ')
        .filter(|word| word.starts_with("0."))
        .filter_map(|word| word.parse().ok())
        .take(2)
        .collect();
    shares.try_into().map_err(|_| MeasuredError {
        file: "benches/results/2026-11-22-epyc-avx2-cpu.md",
        why: "no line `- Re-check: SHARE (profile A) and SHARE (B)`".to_owned(),
    })
}

/// Reads what is compiled in.
pub fn read() -> Result<Measured, MeasuredError> {
    let mut all: Vec<Gas> = Vec::new();
    for (file, text) in [
        ("contracts/snapshots/Accusations.json", ACCUSATIONS),
        ("contracts/snapshots/RowAccusations.json", ROW_ACCUSATIONS),
    ] {
        let gases = snapshot(file, text)?;
        all.extend(gases.into_iter().map(|(name, gas)| Gas { name, gas }));
    }
    let leaves = all.len();
    let (models, steps): (Vec<Gas>, Vec<Gas>) = all.into_iter().partition(|g| g.name.contains("model with"));
    let worst = |of: Vec<Gas>| {
        of.into_iter().max_by_key(|g| g.gas).ok_or_else(|| MeasuredError {
            file: "contracts/snapshots/Accusations.json",
            why: "no accusations".to_owned(),
        })
    };
    Ok(Measured {
        worst_leaf: worst(steps)?,
        worst_model: worst(models)?,
        leaves,
        hub: snapshot("contracts/snapshots/GasTest.json", HUB)?,
        disputes: disputes(DISPUTES)?,
        recheck: recheck(SPEED)?,
        overhead: serde_json::from_str(OVERHEAD).map_err(|e| MeasuredError {
            file: "vectors/overhead.json",
            why: e.to_string(),
        })?,
    })
}

impl Measured {
    /// Gas of a call of the hub.
    pub fn hub_gas(&self, name: &str) -> Result<u64, MeasuredError> {
        self.hub.get(name).copied().ok_or_else(|| MeasuredError {
            file: "contracts/snapshots/GasTest.json",
            why: format!("no `{name}`"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_read_whole() {
        let m = read().unwrap();
        assert!(m.leaves > 100, "{}", m.leaves);
        assert!(m.worst_leaf.gas > 200_000 && m.worst_leaf.gas < m.worst_model.gas);
        assert_eq!(m.disputes.len(), 20);
        assert!(m.disputes.iter().filter(|d| d.silence).count() >= 4);
        assert_eq!(m.recheck.map(|s| s.to_string()), ["0.317", "0.328"]);
        assert!(m.hub_gas("finalise, k = 1").unwrap() > 50_000);
        assert!(
            m.hub_gas("no such call")
                .unwrap_err()
                .to_string()
                .contains("no such call")
        );
    }

    #[test]
    fn rejects_snapshots_and_tables_of_another_form() {
        assert!(snapshot("f", "[]").is_err());
        assert!(snapshot("f", r#"{"a": "x"}"#).unwrap_err().why.contains("`x`"));
        assert!(recheck("- Re-check: 0.3 once").is_err());
        assert!(disputes("nothing").is_err());
        assert!(disputes("| lie |\n|---|\n| a | b |\n").is_err());
        assert!(disputes("| lie |\n|---|\n| a | b | x | 1 | 1 | 1 | 1 | 1 |\n").is_err());
    }
}
