//! The report for people: Markdown that also reads well in a terminal. `docs/security/proof-of-compute.md` holds it as it comes.

use std::fmt::{self, Write as _};

use super::{
    attest::Fraction,
    chance::decimal,
    report::{Attest, Beacon, GOAL, Happy, Recheck, Report},
    text_dispute::{money, one_model, tier_three},
};

/// A number with its thousands apart.
pub fn grouped(n: impl Into<i128>) -> String {
    let n: i128 = n.into();
    let digits = n.unsigned_abs().to_string();
    let mut out = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i != 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A table: heads, then rows.
pub(super) fn table(f: &mut fmt::Formatter<'_>, heads: &[&str], rows: &[Vec<String>]) -> fmt::Result {
    writeln!(f, "\n| {} |", heads.join(" | "))?;
    writeln!(f, "|{}", "---|".repeat(heads.len()))?;
    for row in rows {
        writeln!(f, "| {} |", row.join(" | "))?;
    }
    writeln!(f)
}

pub(super) fn maybe<T: Into<i128>>(n: Option<T>, none: &str) -> String {
    n.map_or_else(|| none.to_owned(), grouped)
}

/// A fraction in per cent, cut after four digits.
fn percent(of: Fraction) -> String {
    format!("{} %", decimal(of.num.saturating_mul(100), of.den, 4))
}

/// Thousandths as a decimal.
fn permille(n: u64) -> String {
    decimal(n.into(), 1000, 3)
}

fn hundredths(n: u64) -> String {
    decimal(n.into(), 100, 2)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### The tiers")?;
        summary(f, self)?;
        let p = &self.params;
        writeln!(
            f,
            "Work is a share of generating the answer once. A false answer that neither the checkers nor an honest validator meet is paid: {}.\nMoney in satoshis: a job of {} prompt ids and {} output ids pays {}, a re-check of it costs at most {}.",
            self.paid,
            grouped(p.prompt),
            grouped(p.outputs),
            grouped(p.fee),
            grouped(p.recheck_sats()),
        )?;
        tier_one(f, self, &self.recheck)?;
        tier_two(f, self, &self.attest)?;
        grinding(f, self, &self.beacon)?;
        tier_three(f, self, &self.disputes)?;
        for model in &self.disputes.models {
            one_model(f, model)?;
        }
        money(f, self)?;
        happy(f, &self.happy)
    }
}

fn summary(f: &mut fmt::Formatter<'_>, r: &Report) -> fmt::Result {
    let p = &r.params;
    let d = &r.disputes;
    let largest = d
        .models
        .iter()
        .map(|m| m.dearest.as_ref().map_or(0, |w| w.vbytes()))
        .max()
        .unwrap_or(0);
    let row = |cells: [String; 6]| cells.to_vec();
    table(
        f,
        &[
            "tier",
            "misses a wrong integer with",
            "work",
            "gas",
            "virtual bytes",
            "blocks",
        ],
        &[
            row([
                format!(
                    "1, re-check: {} checkers, {} of all jobs each",
                    grouped(p.checkers),
                    p.rechecked
                ),
                r.recheck.unseen.to_string(),
                permille(r.recheck.cost_permille),
                "0".into(),
                "0".into(),
                format!("within the window of {}", grouped(p.window)),
            ]),
            row([
                format!(
                    "2, attest: {} validators drawn, {} of the stake honest",
                    grouped(p.validators),
                    p.honest
                ),
                r.attest.none_honest.to_string(),
                permille(r.attest.cost_permille),
                "one call a validator and batch".into(),
                format!("{} a validator and batch", grouped(r.attest.digest_vbytes)),
                "2 for the beacon, then within the window".into(),
            ]),
            row([
                "3, dispute: one honest challenger".into(),
                format!("{}: every leaf is exact", d.wrong_leaf),
                "one re-check a side".into(),
                format!(
                    "{} a game, its worst leaf {}",
                    grouped(d.gas_max),
                    grouped(d.worst_leaf.gas)
                ),
                format!("up to {} a game", grouped(largest)),
                format!("up to {} after the reveal", grouped(d.blocks_max)),
            ]),
        ],
    )
}

fn tier_one(f: &mut fmt::Formatter<'_>, r: &Report, t: &Recheck) -> fmt::Result {
    let p = &r.params;
    writeln!(f, "\n### Tier 1: re-check")?;
    table(
        f,
        &["what", "figure"],
        &[
            vec![
                format!(
                    "all {} checkers leave the job out, (1 - q)^k",
                    grouped(p.checkers)
                ),
                t.unseen.to_string(),
            ],
            vec![
                format!("checkers for 2^-{GOAL}"),
                maybe(t.checkers_for_goal, "none is enough"),
            ],
            vec![
                "work of all checkers, of generating".into(),
                permille(t.cost_permille),
            ],
            vec![
                "work of one re-check, of generating (assumed)".into(),
                p.recheck_cost.to_string(),
            ],
            vec![
                "the same as measured on a CPU, profiles A and B".into(),
                t.measured.map(|s| s.to_string()).join(", "),
            ],
            vec![
                format!("two transcripts behind one root, after 2^{} hashes", p.hash_work),
                t.collision.to_string(),
            ],
            vec![
                format!(
                    "a transcript behind somebody else's root, after 2^{} hashes",
                    p.hash_work
                ),
                t.preimage.to_string(),
            ],
        ],
    )
}

fn tier_two(f: &mut fmt::Formatter<'_>, r: &Report, t: &Attest) -> fmt::Result {
    let p = &r.params;
    writeln!(f, "### Tier 2: attest")?;
    let enough = if t.canaries_suffice { "enough" } else { "too few" };
    table(
        f,
        &["what", "figure"],
        &[
            vec![
                "no honest validator is drawn, however the dishonest split their stake, (1 - h)^s".into(),
                t.none_honest.to_string(),
            ],
            vec![
                format!(
                    "the same of {} with equal stakes, {} honest",
                    grouped(p.all_validators),
                    grouped(t.honest_of_equal)
                ),
                t.none_honest_equal.to_string(),
            ],
            vec![
                format!("validators to draw for 2^-{GOAL}"),
                maybe(t.validators_for_goal, "none is enough"),
            ],
            vec![
                "work of all drawn validators, of generating".into(),
                permille(t.cost_permille),
            ],
            vec![
                format!(
                    "a validator that skips a share {} of its re-checks meets no canary in {} jobs, a share {} of them canaries",
                    p.lazy,
                    grouped(p.jobs),
                    p.canaries
                ),
                t.unnoticed.to_string(),
            ],
            vec![
                "jobs until that is at most 2^-10".into(),
                maybe(t.jobs_to_notice, "never"),
            ],
            vec![
                format!(
                    "canaries from which on laziness does not pay: it saves {} a job, loses {} and a bounty of {}, after {} jobs in flight",
                    grouped(t.stakes.recheck),
                    grouped(t.stakes.slash),
                    grouped(t.stakes.bounty),
                    grouped(t.stakes.in_flight)
                ),
                t.canaries_min.map_or_else(
                    || "no share is enough".into(),
                    |f| format!("{} of all jobs; {} is {enough}", percent(f), p.canaries),
                ),
            ],
            vec!["what attesting must pay a job".into(), grouped(t.pay_min)],
        ],
    )
}

fn grinding(f: &mut fmt::Formatter<'_>, r: &Report, b: &Beacon) -> fmt::Result {
    let p = &r.params;
    writeln!(f, "### The beacon: a Bitcoin miner throws a block away")?;
    let mut eras = String::new();
    for (i, (height, sats)) in b.eras.iter().enumerate() {
        let sep = if i == 0 { "" } else { "; " };
        write!(eras, "{sep}{} from height {}", grouped(*sats), grouped(*height))?;
    }
    table(
        f,
        &["what", "figure"],
        &[
            vec![
                "most that one beacon may decide, all draws of its height together: a block's subsidy".into(),
                grouped(b.limit),
            ],
            vec![
                format!(
                    "the same where another draw pleases the miner with chance {} only",
                    p.wanted
                ),
                b.limit_wanted.map_or_else(
                    || "no limit".into(),
                    |n| grouped(i128::try_from(n).unwrap_or(i128::MAX)),
                ),
            ],
            vec![
                format!("jobs of {} that one beacon may draw for", grouped(p.fee)),
                grouped(b.jobs),
            ],
            vec![
                format!(
                    "what one withheld block adds to a chance of {}, with {} of the hash power",
                    p.wanted, p.hash_share
                ),
                percent(b.bias_once),
            ],
            vec![
                "that chance where the miner withholds as often as it can".into(),
                percent(b.with_all),
            ],
            vec!["subsidies".into(), eras],
        ],
    )
}

fn happy(f: &mut fmt::Formatter<'_>, h: &Happy) -> fmt::Result {
    writeln!(f, "### A job that nobody doubts")?;
    let rows: Vec<Vec<String>> = h
        .steps
        .iter()
        .map(|s| {
            let mut row = vec![
                s.name.clone(),
                maybe(s.gas, ""),
                grouped(s.alone),
                hundredths(s.batched_hundredths),
            ];
            row.extend([1, 10, 50].map(|rate| {
                format!(
                    "{} / {}",
                    grouped(s.alone * rate),
                    grouped((s.batched_hundredths * rate).div_ceil(100))
                )
            }));
            row
        })
        .collect();
    table(
        f,
        &[
            "transaction",
            "gas",
            "virtual bytes alone",
            "in a batch of 100",
            "sat at 1 sat/vB, alone / batched",
            "at 10",
            "at 50",
        ],
        &rows,
    )?;
    writeln!(
        f,
        "Overhead of a job (commit, reveal of one id, finalise): {} virtual bytes alone, {} in batches. Envelopes and Bitcoin's transactions are counted, signed by the inscriber's own code.",
        grouped(h.overhead),
        hundredths(h.overhead_batched_hundredths)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soundness::{Chance, Params, report};

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(-1_234_567), "-1,234,567");
        assert_eq!(percent(Fraction { num: 1, den: 3 }), "33.3333 %");
    }

    #[test]
    fn every_row_of_every_table_has_its_cells() {
        let text = report(&Params::default()).unwrap().to_string();
        let mut cells = 0;
        for line in text.lines() {
            if !line.starts_with('|') {
                cells = 0;
                continue;
            }
            let n = line.matches('|').count();
            assert!(cells == 0 || cells == n, "{line}");
            cells = n;
        }
        assert!(text.matches("####").count() == 4);
        assert!(!text.contains("2^-0 "), "{text}");
    }

    #[test]
    fn chances_of_nothing_and_all_are_words() {
        assert_eq!(Chance::ZERO.to_string(), "0");
        assert_eq!(maybe(None::<u64>, "never"), "never");
    }
}
