//! What everybody sees of a claim: the contract's words about it, its games and clocks, and the tree that its events publish.

use std::collections::BTreeMap;

use alloy::sol_types::SolEvent;
use alloy_primitives::{Address, B256, U256};
use bitai_contracts::{PocVerifier, WorkerHub};
use bitai_miner::chain::verifier::{GAME_PLAYING, Turn, turn};
use bitai_poc::{
    Branches,
    dispute::{Answer, Ask, Claim, Judge},
};

use crate::world::World;

/// A claim as its chain tells it.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) state: u8,
    pub(crate) games: BTreeMap<Address, (PocVerifier::Game, Turn)>,
    /// What was asked, by its id.
    pub(crate) asked: BTreeMap<B256, Ask>,
    /// Who lost, by what.
    pub(crate) lost: BTreeMap<Address, u8>,
    pub(crate) convicted: Option<(Address, u8)>,
    pub(crate) judge: Judge,
    /// The job on the hub.
    pub(crate) job: bitai_contracts::Job,
    /// Answers and asks so far, with the branch that they stand on.
    pub(crate) mark: B256,
}

/// Reads a claim at the tip, playing its events again from nothing.
pub(crate) fn look(
    world: &World,
    claim: &Claim,
    branches: &Branches,
    program: &bitai_kernels::Program,
) -> Seen {
    let chain = &world.chain;
    let id = B256::from(claim.id());
    let stored = chain.read(world.verifier, PocVerifier::claimOfCall { claim: id });
    let mut judge = Judge::new(claim.clone(), program.clone(), *branches).unwrap();
    let mut seen = BTreeMap::new();
    let (mut lost, mut convicted, mut who) = (BTreeMap::new(), None, Vec::new());
    let mut mark = blake3::Hasher::new();
    for log in chain.logs(world.verifier) {
        if log.topics().get(1) != Some(&id) {
            continue;
        }
        for topic in log.topics() {
            mark.update(topic.as_slice());
        }
        mark.update(&log.data.data);
        let topic = log.topics()[0];
        if topic == PocVerifier::GameOpened::SIGNATURE_HASH {
            let e = PocVerifier::GameOpened::decode_log(log).unwrap();
            judge.join(e.challenger).unwrap();
            assert!(!who.contains(&e.challenger), "a second game");
            who.push(e.challenger);
        } else if topic == PocVerifier::Asked::SIGNATURE_HASH {
            let e = PocVerifier::Asked::decode_log(log).unwrap();
            let (to, ask) = Ask::decode(&[e.to.as_slice(), e.words.as_slice()].concat()).unwrap();
            assert_eq!(
                judge.ask(e.challenger, to, ask),
                Ok(e.ask.0),
                "the contract took an ask"
            );
            seen.insert(e.ask, ask);
        } else if topic == PocVerifier::Answered::SIGNATURE_HASH {
            let e = PocVerifier::Answered::decode_log(log).unwrap();
            let code = chain.code(e.content);
            let bytes = [e.ask.as_slice(), &code[1..]].concat();
            let (_, answer) = Answer::decode(seen[&e.ask].answered_by(), &bytes).unwrap();
            judge
                .answer(claim.neuron, e.ask.0, answer)
                .expect("the contract took an answer");
        } else if topic == PocVerifier::GameLost::SIGNATURE_HASH {
            let e = PocVerifier::GameLost::decode_log(log).unwrap();
            assert_eq!(lost.insert(e.challenger, e.by), None, "lost twice");
            assert_eq!(convicted, None, "lost after a conviction");
        } else if topic == PocVerifier::ClaimConvicted::SIGNATURE_HASH {
            let e = PocVerifier::ClaimConvicted::decode_log(log).unwrap();
            assert_eq!(convicted.replace((e.challenger, e.by)), None, "convicted twice");
        }
    }
    let height = chain.height();
    let games = who.into_iter().map(|challenger| {
        let game = chain.read(
            world.verifier,
            PocVerifier::gameCall {
                claim: id,
                challenger,
            },
        );
        let answered = if game.waiting.is_zero() {
            0
        } else {
            chain
                .read(world.verifier, PocVerifier::askOfCall { id: game.waiting })
                .answeredAt
        };
        let turn = turn(&game, answered, height);
        (challenger, (game, turn))
    });
    Seen {
        state: stored.state,
        games: games.collect(),
        asked: seen,
        lost,
        convicted,
        judge,
        job: chain.read(world.hub, WorkerHub::jobCall { jobId: claim.job_id }),
        mark: B256::from(*mark.finalize().as_bytes()),
    }
}

impl Seen {
    /// Games that go on.
    pub(crate) fn playing(&self) -> impl Iterator<Item = (Address, &PocVerifier::Game, Turn)> {
        let on = self.games.iter().filter(|(_, (g, _))| g.state == GAME_PLAYING);
        on.map(|(who, (game, turn))| (*who, game, *turn))
    }
}

/// Wei owed by the verifier.
pub(crate) fn owed(world: &World, to: Address) -> U256 {
    world.chain.read(world.verifier, PocVerifier::owedToCall { to })
}
