//! One case: a claim, who plays about it, and the blocks that a hostile scheduler makes, until everything is settled.

use std::{collections::BTreeSet, sync::Arc};

use alloy_primitives::{B256, U256};
use bitai_contracts::{JobStatus, WorkerHub};
use bitai_devnet::liar::Kind;
use bitai_miner::{
    chain::verifier::{GAME_LOST, GAME_PLAYING, Turn},
    dispute::{Shelf, doubter, opened},
};
use bitai_poc::dispute::{ASKS_MAX, Claim};
use bitai_types::job::{commit_hash, ids_hash, ids_to_bytes};

use crate::{
    claims::{self, What},
    dice::Dice,
    pool::Pool,
    seats::{Doubter, Neuron, Style, finalise},
    view::{Seen, look},
    world::{CLOCK, WINDOW, World, coin, signer},
};

/// Heights that an honest side has left beyond one for each of its moves when the scheduler lets it in: for moves that a
/// race made stale.
const MARGIN: u64 = 10;
/// Asks of an honest game: what `soundness` prints for the declared maxima.
const ROUNDS: u8 = 8;

/// What a case came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) guilty: bool,
    pub(crate) games: usize,
    pub(crate) reorgs: u32,
    pub(crate) restarts: u32,
    pub(crate) blocks: u64,
}

/// Heights left to an honest side beyond its moves; none where nothing hurries.
fn slack(left: u64, asks: u8, moves: u64) -> u64 {
    left.saturating_sub(u64::from(ASKS_MAX).saturating_sub(u64::from(asks)) + moves)
}

struct Case<'a> {
    world: World,
    shelf: &'a Arc<Shelf>,
    dice: Dice,
    pool: Pool,
    claim: Claim,
    is_honest: bool,
    neuron: Neuron,
    /// Heights that the liar's answers wait.
    pace: u64,
    doubters: Vec<Doubter>,
    /// Height below which no reorg goes: the reveal's.
    floor: u64,
    /// Whether each height is printed.
    is_told: bool,
}

/// Plays the case of a seed in a world made before.
pub(crate) fn play(world: &World, shelf: &Arc<Shelf>, seed: u64, is_told: bool) -> Outcome {
    let mut dice = Dice::new(seed);
    let mut world = World {
        chain: world.chain.fork(seed),
        ..world.clone()
    };
    let pack = shelf.pack(world.model.model_root).unwrap();
    let mut job = claims::job(&mut dice, &pack);
    let what = match dice.below(10) {
        0..3 => What::Honest,
        3..7 => What::Kit(claims::kind(&mut dice, &pack)),
        _ => What::Fault(claims::fault(&mut dice, &pack, &job)),
    };
    if let What::Kit(kind) = what {
        claims::make_room(&mut dice, &mut job, kind);
    }
    let told = claims::tell(shelf, &job, what);
    let job_id = reveal(&mut world, &job, &told);
    let claim = Claim {
        chain_id: world.chain.genesis.chain_id(),
        hub: world.hub,
        job_id,
        neuron: signer("neuron").address(),
        job,
        outputs: told.outputs,
        root: told.root,
    };
    // A wrong integer may change nothing that is committed.
    let is_honest = doubter(shelf, &claim).unwrap().0;
    assert!(is_honest || what != What::Honest, "an honest run is doubted");
    // Where a position sees one key alone, a row of the queries' weights decides nothing.
    let may_be_right = !matches!(what, What::Kit(kind) if kind != Kind::Weights);
    assert!(!is_honest || may_be_right, "{what:?} is no lie");
    // Beneath a right root its rows may still be wrong, and a dispute about those convicts: an honest neuron's are not.
    let explainer = if is_honest {
        claims::tell(shelf, &claim.job, What::Honest).explainer
    } else {
        told.explainer
    };
    let mute_after = if is_honest || dice.percent(85) {
        usize::MAX
    } else {
        dice.index(6)
    };
    let pace = if dice.percent(80) {
        dice.below(8)
    } else {
        dice.below(2 * u64::from(CLOCK))
    };
    let mut doubters = Vec::new();
    if !is_honest {
        doubters.push(Doubter::new("alice", Style::Honest));
        if dice.percent(30) {
            doubters.push(Doubter::new("bob", Style::Honest));
        }
    }
    for name in ["puppet 0", "puppet 1", "puppet 2"]
        .into_iter()
        .take(dice.index(4))
    {
        let style = match dice.below(4) {
            0 => Style::Silent,
            1 => Style::Asks(dice.small(12)),
            2 if !is_honest => Style::Fades(dice.small(8)),
            _ => Style::Wrong(claims::fault(&mut dice, &pack, &claim.job)),
        };
        doubters.push(Doubter::new(name, style));
    }
    let floor = world.chain.height();
    Case {
        world,
        shelf,
        dice,
        pool: Pool::default(),
        claim,
        is_honest,
        neuron: Neuron::new(explainer, is_honest, mute_after),
        pace: if is_honest { 0 } else { pace },
        doubters,
        floor,
        is_told,
    }
    .run()
}

/// Posts a job and reveals what was told about it.
fn reveal(world: &mut World, job: &bitai_types::Job, told: &claims::Told) -> U256 {
    let call = WorkerHub::inferCall {
        spec: bitai_contracts::spec_from_job(job, &world.model),
        k: 1,
        collateral: alloy_primitives::Uint::ZERO,
    };
    let infer = world.hub_call(call, coin());
    world.run("client", &infer);
    let job_id = world.chain.read(world.hub, WorkerHub::jobsCountCall {});
    let me = signer("neuron").address();
    while !world
        .chain
        .read(world.hub, WorkerHub::drawnCall { jobId: job_id })
        .contains(&me)
    {
        world.chain.make(&[]);
    }
    let salt = B256::repeat_byte(7);
    let root = B256::from(told.root);
    let commitment = commit_hash(
        world.chain.genesis.chain_id(),
        world.hub,
        job_id,
        me,
        salt,
        root,
        ids_hash(&told.outputs),
    );
    let commit = WorkerHub::commitCall {
        jobId: job_id,
        jobHash: job.hash(),
        commitment,
    };
    let commit = world.hub_call(commit, U256::ZERO);
    world.run("neuron", &commit);
    let reveal = WorkerHub::revealCall {
        jobId: job_id,
        salt,
        traceRoot: root,
        outputIds: ids_to_bytes(&told.outputs).into(),
    };
    let reveal = world.hub_call(reveal, U256::ZERO);
    world.run("neuron", &reveal);
    job_id
}

impl Case<'_> {
    fn run(mut self) -> Outcome {
        let pack = self.shelf.pack(self.world.model.model_root).unwrap();
        let (program, branches) = (pack.program(), opened(&pack).unwrap().branches());
        let (mut reorgs, mut restarts) = (0, 0);
        let mut spamming = 0;
        let most = WINDOW + 2 * u64::from(CLOCK) * 2 + 100;
        let since = self.world.chain.height();
        loop {
            let seen = look(&self.world, &self.claim, &branches, &program);
            self.check(&seen);
            if self.is_over(&seen) {
                self.conclude(&seen);
                return Outcome {
                    guilty: seen.convicted.is_some(),
                    games: seen.games.len(),
                    reorgs,
                    restarts,
                    blocks: self.world.chain.height() - since,
                };
            }
            let height = self.world.chain.height();
            assert!(height - since < most, "not settled within {most} heights");
            if self.is_told {
                self.tell(&seen);
            }
            let tightest = self.tightest(&seen);
            let depth = 1 + self.dice.below(4);
            if height - self.floor >= depth && tightest > 3 * depth + 8 && self.dice.percent(4) {
                reorgs += 1;
                self.pool.take_back(&mut self.world.chain, &mut self.dice, depth);
                for _ in 0..=depth {
                    self.pool
                        .block(&mut self.world.chain, &mut self.dice, &BTreeSet::new(), 0);
                }
                continue;
            }
            if self.dice.percent(4) {
                restarts += 1;
                self.restart();
            }
            self.act(&seen);
            if spamming == 0 && self.dice.percent(3) {
                spamming = 1 + self.dice.below(3);
            }
            let spam = if spamming > 0 { 1 + self.dice.index(4) } else { 0 };
            spamming = u64::saturating_sub(spamming, 1);
            let forced = self.forced(&seen);
            self.pool.reprice(&self.world.chain);
            self.pool
                .block(&mut self.world.chain, &mut self.dice, &forced, spam);
        }
    }

    /// Prints the state of things.
    fn tell(&self, seen: &Seen) {
        let height = self.world.chain.height();
        println!(
            "{height}: base fee {}, claim {}",
            self.world.chain.base_fee(),
            seen.state
        );
        for (who, game, turn) in seen.playing() {
            println!(
                "    {who}: {} asks, {turn:?}, waits for {}",
                game.asks, game.waiting
            );
        }
        println!("    {}", self.pool.tell());
    }

    /// Somebody starts again.
    fn restart(&mut self) {
        let i = self.dice.index(self.doubters.len() + 1);
        match self.doubters.get_mut(i) {
            Some(doubter) => {
                doubter.restart();
                self.pool.forget(doubter.name);
            }
            None if self.is_honest => {
                self.neuron.restart(self.shelf, &self.claim);
                self.pool.forget("neuron");
            }
            None => self.pool.forget("neuron"),
        }
    }

    /// Everybody sends what is due.
    fn act(&mut self, seen: &Seen) {
        let world = &self.world;
        let wait = |dice: &mut Dice, most: u64| {
            (
                1_000_000_000 * u128::from(1 + dice.below(5)),
                dice.below(most + 1),
            )
        };
        for (name, call) in self.neuron.due(world, &self.claim, seen) {
            let most = if self.is_honest { 12 } else { self.pace };
            let how = wait(&mut self.dice, most);
            let sent = self.pool.push(&world.chain, "neuron", &name, &call, how);
            let may_wait = !self.is_honest || !name.starts_with("answer");
            assert!(
                may_wait || sent.is_ok(),
                "the contract refuses an honest answer: {sent:?}"
            );
        }
        for doubter in &mut self.doubters {
            let due = doubter.due((world, self.shelf), &self.claim, seen, &mut self.dice);
            for (name, call) in due {
                let how = wait(&mut self.dice, 12);
                // What would revert now is decided anew at the next height.
                let _ = self.pool.push(&world.chain, doubter.name, &name, &call, how);
            }
        }
        if let Some((name, call)) = finalise(world, &self.claim, seen) {
            let how = wait(&mut self.dice, 3);
            let _ = self.pool.push(&world.chain, "client", &name, &call, how);
        }
    }

    /// How near each honest side is to the end of its clock or window: name, heights beyond its moves.
    fn hurry(&self, seen: &Seen) -> Vec<(&'static str, u64)> {
        let mut all = Vec::new();
        for doubter in self.doubters.iter().filter(|d| d.is_honest()) {
            let left = match seen.games.get(&doubter.address()) {
                None => seen.job.deadline.saturating_sub(self.world.chain.height()),
                Some((game, Turn::Challenger(left))) if game.state == GAME_PLAYING => {
                    slack(*left, game.asks, 1)
                }
                Some(_) => u64::MAX,
            };
            all.push((doubter.name, left));
        }
        if self.is_honest {
            for (_, game, turn) in seen.playing() {
                if let Turn::Neuron(left) = turn {
                    all.push(("neuron", slack(left, game.asks, 1)));
                }
            }
        }
        all
    }

    fn forced(&self, seen: &Seen) -> BTreeSet<&'static str> {
        let near = self.hurry(seen).into_iter().filter(|(_, left)| *left <= MARGIN);
        near.map(|(name, _)| name).collect()
    }

    fn tightest(&self, seen: &Seen) -> u64 {
        self.hurry(seen)
            .into_iter()
            .map(|(_, left)| left)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// What holds at every height.
    fn check(&self, seen: &Seen) {
        self.world.check_ledgers();
        for doubter in self.doubters.iter().filter(|d| d.is_honest()) {
            let who = doubter.address();
            assert!(
                !seen.lost.contains_key(&who),
                "honest {} lost its bond",
                doubter.name
            );
            if let Some((game, _)) = seen.games.get(&who) {
                assert!(game.asks <= ROUNDS, "{} asked {} times", doubter.name, game.asks);
            }
        }
        if self.is_honest {
            assert_eq!(seen.convicted, None, "an honest neuron is convicted");
        }
    }

    /// Whether nobody has anything left to do.
    fn is_over(&self, seen: &Seen) -> bool {
        let over = JobStatus::from_u8(seen.job.status).is_some_and(JobStatus::is_over);
        let held = self.world.check_ledgers();
        over && seen.playing().next().is_none() && held.owed.is_zero() && held.bonds.is_zero()
    }

    /// What holds at the end.
    fn conclude(&self, seen: &Seen) {
        let held = self.world.check_ledgers();
        let neuron = self.world.chain.read(
            self.world.hub,
            WorkerHub::neuronCall {
                neuron_: self.claim.neuron,
            },
        );
        let stake = coin() * U256::from(crate::world::STAKE);
        let status = JobStatus::from_u8(seen.job.status);
        assert_eq!(
            U256::from(neuron.locked),
            U256::ZERO,
            "collateral is locked for ever"
        );
        assert_eq!(
            (held.escrow, held.credit),
            (U256::ZERO, U256::ZERO),
            "coins are left in the hub"
        );
        if self.is_honest {
            assert_eq!(U256::from(neuron.stake), stake, "an honest neuron lost stake");
            assert_eq!(status, Some(JobStatus::Settled), "an honest neuron is not paid");
        } else {
            assert!(seen.convicted.is_some(), "a lie stands");
            assert!(U256::from(neuron.stake) < stake, "a liar keeps its stake");
            assert_eq!(status, Some(JobStatus::Refunded), "the client's fee");
        }
        for (who, (game, _)) in &seen.games {
            // Lost and won exclude each other.
            assert_eq!(game.state == GAME_LOST, seen.lost.contains_key(who), "{who}");
            assert!(game.state != GAME_LOST || seen.convicted.is_none() || seen.lost[who] != 0);
            assert!(
                game.state == GAME_LOST || seen.convicted.is_some(),
                "{who} neither lost nor won"
            );
        }
    }
}
