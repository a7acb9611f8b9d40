//! All figures for one set of parameters, typed: what `bitai-miner soundness --json` prints.

use serde::Serialize;
use thiserror::Error;

use super::{
    attest::{self, Fraction, Stakes},
    beacon, censor,
    chance::{Chance, Share},
    game::{Griefing, Sizes, Way},
    inscribe,
    measured::{self, Dispute, Gas, Measured, MeasuredError},
    money,
    params::{ParamError, Params},
    recheck,
};

/// The chance that an attack is to have at most, where a number for it is asked: `2^-40`.
pub const GOAL: u32 = 40;
/// Shares of hash power that leave moves out.
const CENSORS: [u64; 4] = [30, 50, 70, 90];

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReportError {
    /// Nonsense was asked for.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// This build's files.
    #[error(transparent)]
    Measured(#[from] MeasuredError),
}

/// Tier 1: computing again.
#[derive(Debug, Clone, Serialize)]
pub struct Recheck {
    /// A wrong integer that nobody of the checkers looks at.
    pub unseen: Chance,
    /// Checkers for `2^-40`; none where nobody looks.
    pub checkers_for_goal: Option<u64>,
    /// Work of all checkers, in thousandths of generating.
    pub cost_permille: u64,
    /// Work of one re-check as a share of generating, as measured on a CPU: profiles A and B.
    pub measured: [Share; 2],
    /// Two transcripts behind one root.
    pub collision: Chance,
    /// A transcript behind another's root.
    pub preimage: Chance,
}

/// Tier 2: attesting.
#[derive(Debug, Clone, Serialize)]
pub struct Attest {
    /// No honest validator is drawn, however the dishonest split their stake.
    pub none_honest: Chance,
    /// The same with equal stakes.
    pub none_honest_equal: Chance,
    /// How many of these are honest.
    pub honest_of_equal: u64,
    /// Validators for `2^-40`; none where no stake is honest.
    pub validators_for_goal: Option<u64>,
    /// Work of all drawn validators, in thousandths of generating.
    pub cost_permille: u64,
    /// Virtual bytes of one validator's digest at most, where it travels alone; one digest serves a whole batch.
    pub digest_vbytes: u64,
    /// A lazy validator meets no canary that it skips.
    pub unnoticed: Chance,
    /// Jobs until that is at most one in a thousand.
    pub jobs_to_notice: Option<u64>,
    /// What it stands to win and lose.
    pub stakes: Stakes,
    /// Share of canaries from which on laziness does not pay; none where no share suffices.
    pub canaries_min: Option<Fraction>,
    /// Whether the assumed share is enough.
    pub canaries_suffice: bool,
    /// What attesting must pay a job.
    pub pay_min: u64,
}

/// The beacon.
#[derive(Debug, Clone, Serialize)]
pub struct Beacon {
    /// Satoshis of a block, and so the most that one beacon may decide.
    pub limit: u64,
    /// The same for a miner that another draw pleases with the wanted chance.
    pub limit_wanted: Option<u128>,
    /// Jobs at this fee that one beacon may draw for.
    pub jobs: u64,
    /// What withholding one block adds to the wanted chance.
    pub bias_once: Fraction,
    /// The wanted chance where the miner withholds as often as it can.
    pub with_all: Fraction,
    /// Subsidies: first height of an era, satoshis.
    pub eras: Vec<(u64, u64)>,
}

/// Costs of a dispute at one rate, in satoshis.
#[derive(Debug, Clone, Serialize)]
pub struct AtRate {
    /// Satoshis a virtual byte.
    pub rate: u64,
    /// The dearest game about this job, both sides.
    pub game: u64,
    /// What its challenger spends, gas included.
    pub challenger: u64,
    /// What its neuron spends.
    pub neuron: u64,
    /// The bond, which is reckoned at the governed rate.
    pub bond: u64,
    /// What the neuron is left with after the worst nine asks and the challenger's bond; below 0 it loses.
    pub griefed_neuron: i128,
    /// What those asks cost the challenger, its bond included.
    pub griefing_challenger: u64,
    /// A challenger's reward for the dearest game; below 0 it loses.
    pub reward: i128,
    /// The collateral from which on the reward is not below 0.
    pub collateral_repaid: u64,
    /// The least collateral: the fee, what deters, what repays.
    pub collateral_min: Option<u64>,
    /// One lie in so many re-checked jobs pays for re-checking; none where a won game pays nothing.
    pub jobs_a_lie: Option<u64>,
}

/// Tier 3 for one model.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// The shape.
    pub shape: super::Shape,
    /// Asks of the longest game.
    pub rounds: u32,
    /// Blocks of the longest game where every move is in the next block.
    pub blocks_min: u64,
    /// Every way down, each at its largest in a trace that fills the context.
    pub ways: Vec<Way>,
    /// The dearest of them.
    pub dearest: Option<Way>,
    /// Bytes of all answers of the way that has most.
    pub answer_bytes: u64,
    /// Bytes that the bond pays for.
    pub bond_bytes: u64,
    /// Nine asks that only do harm.
    pub griefing: Griefing,
    /// What it costs.
    pub rates: Vec<AtRate>,
}

/// A share of censors and what it does.
#[derive(Debug, Clone, Serialize)]
pub struct Censored {
    /// Share of the hash power that leaves moves out.
    pub share: Share,
    /// The challenger's clock runs out first.
    pub challenger: Chance,
    /// The neuron's clock runs out first.
    pub neuron: Chance,
}

/// Tier 3: disputing.
#[derive(Debug, Clone, Serialize)]
pub struct Disputes {
    /// A wrong step that is executed and not convicted: every leaf is exact.
    pub wrong_leaf: Chance,
    /// The dearest accusation of a step.
    pub worst_leaf: Gas,
    /// The dearest accusation of a model.
    pub worst_model: Gas,
    /// Accusations that were measured.
    pub leaves: usize,
    /// Gas of the dearest measured dispute.
    pub gas_max: u64,
    /// Satoshis that this burns.
    pub gas_sats: u64,
    /// Measured disputes.
    pub measured: Vec<Dispute>,
    /// Blocks from the reveal within which a dispute is over at the latest.
    pub blocks_max: u64,
    /// Moves that a challenger makes at most while its clock runs.
    pub challenger_moves: u64,
    /// Moves that a neuron makes at most.
    pub neuron_moves: u64,
    /// Censorship.
    pub censored: Vec<Censored>,
    /// Models.
    pub models: Vec<Model>,
}

/// A transaction of a job that nobody doubts.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What it does.
    pub name: String,
    /// Gas, where the snapshot has it.
    pub gas: Option<u64>,
    /// Virtual bytes alone.
    pub alone: u64,
    /// Virtual bytes in an envelope of a hundred, hundredths.
    pub batched_hundredths: u64,
}

/// A job that nobody doubts.
#[derive(Debug, Clone, Serialize)]
pub struct Happy {
    /// Transactions.
    pub steps: Vec<Step>,
    /// Virtual bytes of commit, reveal and finalise of one output id: what the protocol adds.
    pub overhead: u64,
    /// The same in batches, hundredths.
    pub overhead_batched_hundredths: u64,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Assumptions.
    pub params: Params,
    /// Tier 1.
    pub recheck: Recheck,
    /// Tier 2.
    pub attest: Attest,
    /// The beacon behind every draw.
    pub beacon: Beacon,
    /// Tier 3.
    pub disputes: Disputes,
    /// The happy path.
    pub happy: Happy,
    /// A lie that neither checkers nor drawn validators meet, and that is paid.
    pub paid: Chance,
}

/// Reckons everything.
pub fn report(params: &Params) -> Result<Report, ReportError> {
    params.check()?;
    let m = measured::read()?;
    let recheck = tier_one(params, &m);
    let attest = tier_two(params);
    let paid = recheck.unseen.and(attest.none_honest);
    Ok(Report {
        recheck,
        attest,
        beacon: grinding(params),
        disputes: tier_three(params, &m, paid),
        happy: happy(&m),
        paid,
        params: params.clone(),
    })
}

fn tier_one(p: &Params, m: &Measured) -> Recheck {
    Recheck {
        unseen: recheck::unseen(p.rechecked, p.checkers),
        checkers_for_goal: recheck::checkers_for(p.rechecked, GOAL),
        cost_permille: recheck::cost_permille(p.rechecked, p.checkers, p.recheck_cost),
        measured: m.recheck,
        collision: recheck::collision(p.hash_work),
        preimage: recheck::preimage(p.hash_work),
    }
}

fn tier_two(p: &Params) -> Attest {
    let stakes = Stakes {
        recheck: p.recheck_sats(),
        slash: p.slash,
        bounty: p.bounty,
        in_flight: p.in_flight,
    };
    let honest = p.honest.of(p.all_validators);
    let canaries_min = attest::canaries_min(&stakes);
    let (c, of) = p.canaries.parts();
    let one_job = attest::unnoticed(p.canaries, p.lazy, 1);
    Attest {
        none_honest: attest::none_honest(p.honest, p.validators),
        none_honest_equal: attest::none_honest_of(p.all_validators, honest, p.validators),
        honest_of_equal: honest,
        validators_for_goal: recheck::tries_for(p.honest.rest().chance(), GOAL),
        cost_permille: recheck::cost_permille(Share::ONE, p.validators, p.recheck_cost),
        digest_vbytes: inscribe::alone(4 + 32 * 2),
        unnoticed: attest::unnoticed(p.canaries, p.lazy, p.jobs),
        jobs_to_notice: recheck::tries_for(one_job, 10),
        stakes,
        canaries_min,
        // c / of >= num / den.
        canaries_suffice: canaries_min.is_some_and(|f| u128::from(c) * f.den >= f.num * u128::from(of)),
        pay_min: attest::pay_min(&stakes, p.canaries),
    }
}

fn grinding(p: &Params) -> Beacon {
    let reward = beacon::subsidy(p.height);
    let era = p.height / beacon::HALVING;
    let eras = (era..era.saturating_add(4)).map(|e| e.saturating_mul(beacon::HALVING));
    Beacon {
        limit: beacon::limit(reward),
        limit_wanted: beacon::limit_at(reward, p.wanted),
        jobs: beacon::draws(reward, p.fee),
        bias_once: beacon::bias_once(p.hash_share, p.wanted),
        with_all: beacon::with_all(p.hash_share, p.wanted),
        eras: eras.map(|h| (h, beacon::subsidy(h))).collect(),
    }
}

fn tier_three(p: &Params, m: &Measured, paid: Chance) -> Disputes {
    let gas_max = m.disputes.iter().map(|d| d.gas).max().unwrap_or(0);
    let gas_sats = money::burned(gas_max, p.base_fee);
    let models: Vec<Model> = p.shapes.iter().map(|s| model(p, s, gas_sats, paid)).collect();
    let rounds = models.iter().map(|m| m.rounds).max().unwrap_or(0);
    // Opening is bounded by the window; the clock sees the asks and the accusation.
    let (challenger_moves, neuron_moves) = (u64::from(rounds) + 1, u64::from(rounds));
    let censored = |percent| {
        let share = Share::new(percent, 100).unwrap_or(Share::ONE);
        Censored {
            share,
            challenger: censor::shut_out(share, challenger_moves, p.clock),
            neuron: censor::shut_out(share, neuron_moves, p.clock),
        }
    };
    Disputes {
        wrong_leaf: Chance::ZERO,
        worst_leaf: m.worst_leaf.clone(),
        worst_model: m.worst_model.clone(),
        leaves: m.leaves,
        gas_max,
        gas_sats,
        measured: m.disputes.clone(),
        blocks_max: p.window + 2 * p.clock + 1,
        challenger_moves,
        neuron_moves,
        censored: CENSORS.into_iter().map(censored).collect(),
        models,
    }
}

/// The way that inscribes most.
fn dearest(ways: &[Way]) -> Option<&Way> {
    ways.iter().max_by_key(|w| w.vbytes())
}

fn model(p: &Params, shape: &super::Shape, gas_sats: u64, paid: Chance) -> Model {
    let sizes = Sizes(shape);
    // At worst the prompt fills the context.
    let ways = sizes.ways(shape.positions.into(), p.outputs);
    let griefing = sizes.griefing(p.outputs);
    let bond_bytes = sizes.bond_bytes();
    let rounds = shape.rounds_max();
    // The job itself: `check` has seen that it fits the context.
    let positions = u32::try_from(p.prompt + p.outputs - 1).unwrap_or(shape.positions);
    let job_shape = shape.with_positions(positions);
    let job_ways = Sizes(&job_shape).ways(p.prompt, p.outputs);
    let (vbytes, own, neuron) =
        dearest(&job_ways).map_or((0, 0, 0), |w| (w.vbytes(), w.challenger_vbytes, w.neuron_vbytes));
    let job = money::Job {
        fee: p.fee,
        saved: p.fee,
        value: p.value,
    };
    let deters = money::collateral_min(&job, paid).map(|d| d.saturating_to::<u64>());
    let at = |rate: u64| {
        let challenger = own * rate + gas_sats;
        let bond = (bond_bytes * p.bond_rate).div_ceil(4);
        let floor = money::repaid_at(challenger + p.recheck_sats()).max(p.fee);
        AtRate {
            rate,
            game: vbytes * rate,
            challenger,
            neuron: neuron * rate,
            bond,
            griefed_neuron: i128::from(bond) - i128::from(griefing.neuron_vbytes * rate),
            griefing_challenger: bond + griefing.challenger_vbytes * rate,
            reward: money::reward(p.collateral, challenger),
            collateral_repaid: money::repaid_at(challenger),
            collateral_min: deters.map(|d| d.max(floor)),
            jobs_a_lie: money::jobs_a_lie(p.collateral, challenger, p.recheck_sats()),
        }
    };
    Model {
        rounds,
        blocks_min: 2 + 2 * u64::from(rounds),
        answer_bytes: ways.iter().map(|w| w.answers).max().unwrap_or(0),
        rates: p.fee_rates.iter().map(|rate| at(*rate)).collect(),
        shape: *shape,
        dearest: dearest(&ways).cloned(),
        ways,
        bond_bytes,
        griefing,
    }
}

fn happy(m: &Measured) -> Happy {
    let gas = |name: &str| match name {
        "commit, with the draw" => m.hub_gas("commit with the draw, 1 neuron on the list").ok(),
        "reveal, 1 id" => m.hub_gas("reveal, 3 output ids").ok(),
        "finalise" => m.hub_gas("finalise, k = 1").ok(),
        _ => None,
    };
    let batch = m.overhead.batch.max(1);
    let steps: Vec<Step> = m
        .overhead
        .transactions
        .iter()
        .map(|t| Step {
            name: t.name.clone(),
            gas: gas(&t.name),
            alone: t.alone,
            batched_hundredths: (t.hundred * 100).div_ceil(batch),
        })
        .collect();
    let own = |s: &&Step| s.gas.is_some();
    Happy {
        overhead: steps.iter().filter(own).map(|s| s.alone).sum(),
        overhead_batched_hundredths: steps.iter().filter(own).map(|s| s.batched_hundredths).sum(),
        steps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soundness::shapes;

    #[test]
    fn the_defaults_hold_together() {
        let r = report(&Params::default()).unwrap();
        assert_eq!(r.disputes.models.len(), shapes::ALL.len());
        assert_eq!(r.attest.none_honest, Chance::half_to(8));
        assert!(r.attest.none_honest_equal < r.attest.none_honest);
        assert!(r.paid < r.recheck.unseen && r.paid < r.attest.none_honest);
        assert_eq!(r.beacon.limit, 312_500_000);
        assert_eq!(r.disputes.wrong_leaf, Chance::ZERO);
        assert_eq!((r.disputes.challenger_moves, r.disputes.neuron_moves), (9, 8));
        assert_eq!(r.happy.steps.iter().filter(|s| s.gas.is_some()).count(), 3);
        assert!(r.happy.overhead_batched_hundredths < r.happy.overhead * 100 / 2);
        let value = serde_json::to_value(&r).unwrap();
        assert_eq!(value["attest"]["none_honest"]["minus_log2_hundredths"], 800);
        assert_eq!(value["params"]["honest"], "0.5");
    }

    #[test]
    fn nobody_who_looks_leaves_no_collateral_that_deters() {
        let p = Params {
            rechecked: Share::ZERO,
            honest: Share::ZERO,
            ..Params::default()
        };
        let r = report(&p).unwrap();
        assert_eq!(r.paid, Chance::ONE);
        assert_eq!(r.recheck.checkers_for_goal, None);
        assert_eq!(r.attest.validators_for_goal, None);
        assert!(
            r.disputes
                .models
                .iter()
                .all(|m| m.rates.iter().all(|r| r.collateral_min.is_none()))
        );
    }

    #[test]
    fn what_the_security_page_finds_in_the_figures_is_there() {
        let r = report(&Params::default()).unwrap();
        for m in &r.disputes.models {
            // The bond does not pay for the worst nine asks; only at the limit of layers does the neuron lose more than the challenger.
            let (g, limit) = (&m.griefing, m.shape.name == "maxima");
            assert!(g.neuron_vbytes > g.bond_vbytes, "{}", m.shape.name);
            let (loses, costs) = (
                g.neuron_vbytes - g.bond_vbytes,
                g.challenger_vbytes + g.bond_vbytes,
            );
            assert_eq!(loses > costs, limit, "{}", m.shape.name);
            // It does pay for every game that goes straight down.
            assert!(
                m.ways.iter().all(|w| w.neuron_vbytes <= g.bond_vbytes),
                "{}",
                m.shape.name
            );
            // What a challenger spends follows the rate, and so does the least collateral.
            assert!(
                m.rates
                    .windows(2)
                    .all(|w| w[0].collateral_min < w[1].collateral_min)
            );
        }
        let at = |share: &str| {
            let share: Share = share.parse().unwrap();
            let mut censored = r.disputes.censored.iter();
            censored
                .find(|c| c.share.of(100) == share.of(100))
                .unwrap()
                .challenger
        };
        assert!(at("0.5") < Chance::half_to(100));
        assert!(at("0.9") > Chance::half_to(5));
        assert!(r.attest.canaries_suffice);
        // A slash that what is in flight outweighs deters nobody.
        let p = Params {
            in_flight: 1_000,
            ..Params::default()
        };
        assert_eq!(report(&p).unwrap().attest.canaries_min, None);
    }

    #[test]
    fn every_parameter_typed_to_nine_digits_makes_json() {
        let share: Share = "0.123456789".parse().unwrap();
        let p = Params {
            hash_share: share,
            wanted: share,
            honest: share,
            canaries: share,
            lazy: share,
            ..Params::default()
        };
        let value = serde_json::to_value(report(&p).unwrap()).unwrap();
        // p e (1 - e).
        assert_eq!(value["beacon"]["bias_once"]["per_billion"], 13_359_902);
    }

    #[test]
    fn rejects_nonsense() {
        let p = Params {
            validators: 0,
            ..Params::default()
        };
        assert!(matches!(report(&p), Err(ReportError::Param(ParamError::None(_)))));
    }
}
