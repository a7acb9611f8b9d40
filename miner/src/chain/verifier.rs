//! The contract that plays disputes, and the book of programs, as the miner uses them: typed reads and events,
//! calldata for every move.

use alloy::rpc::types::{Filter, Log};
use alloy::sol_types::{SolCall, SolEvent};
use alloy_primitives::{Address, B256, Bytes, FixedBytes, TxKind, U256};
use bitai_contracts::{PocVerifier, ProgramBook};
use bitai_kernels::Program;
use bitai_poc::{
    Branches,
    dispute::{Ask, Claim},
};
use bitai_types::job::{ids_hash, ids_to_bytes, input_hash};

use super::{hub::Hub, node::Refusal, send::Call};
use crate::exit::Failure;

/// State of a claim that nobody disputed.
pub const CLAIM_NONE: u8 = 0;
/// State of a disputed claim.
pub const CLAIM_DISPUTED: u8 = 1;
/// State of a convicted claim.
pub const CLAIM_CONVICTED: u8 = 2;
/// State of who has no game about a claim.
pub const GAME_NONE: u8 = 0;
/// State of a game that goes on.
pub const GAME_PLAYING: u8 = 1;
/// State of a game that its challenger lost.
pub const GAME_LOST: u8 = 2;
/// A game or claim that silence ended, in the place of an accusation's kind.
pub const BY_SILENCE: u8 = 255;
/// A claim that an answer convicted which contradicts what is public.
pub const BY_CONTRADICTION: u8 = 254;

/// What happened to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A game was opened, for a bond in wei.
    Opened(Address, U256),
    /// A challenger asked.
    Asked {
        /// Who.
        challenger: Address,
        /// Id of the ask.
        id: B256,
        /// The answer, or claim, that it builds on.
        to: B256,
        /// What.
        ask: Ask,
    },
    /// The neuron answered.
    Answered {
        /// Id of the ask.
        ask: B256,
        /// The account whose code is the content.
        content: Address,
    },
    /// A challenger lost its game, by the kind of an accusation or by silence.
    Lost(Address, u8),
    /// The claim is convicted, by the kind of an accusation, silence or a contradiction.
    Convicted(Address, u8),
}

/// An event and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// What happened.
    pub event: Event,
    /// Height.
    pub height: u64,
    /// Hash of its block: after a reorg another one.
    pub block: B256,
    /// Transaction.
    pub tx: B256,
}

/// Whose move a game waits for, by its clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The challenger's; so many heights are left to it.
    Challenger(u64),
    /// The neuron's.
    Neuron(u64),
    /// The challenger's clock ran out: anyone may end the game.
    ChallengerIsOut,
    /// The neuron's did: anyone may end the game, which convicts.
    NeuronIsOut,
}

/// A game, and whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The game as stored.
    pub game: PocVerifier::Game,
    /// The ask that it waits for, once named.
    pub waiting: Option<B256>,
    /// Whose turn it is at `height`.
    pub turn: Turn,
}

/// Which clock runs at `height`, as the contract has it: an answer that came late counts for the tree, not for the clock.
pub fn turn(game: &PocVerifier::Game, answered_at: u64, height: u64) -> Turn {
    let (mut since, neuron) = (game.since, u64::from(game.neuronLeft));
    if !game.waiting.is_zero() {
        let until = if answered_at == 0 { height } else { answered_at };
        let used = until.saturating_sub(since);
        if used > neuron {
            return Turn::NeuronIsOut;
        }
        if answered_at == 0 {
            return Turn::Neuron(neuron - used);
        }
        since = answered_at;
    }
    match u64::from(game.challengerLeft).checked_sub(height.saturating_sub(since)) {
        Some(left) => Turn::Challenger(left),
        None => Turn::ChallengerIsOut,
    }
}

/// A hub's verifier.
#[derive(Debug, Clone)]
pub struct Verifier {
    hub: Hub,
    /// What its claims name as their hub: the hub itself, or the attestations of its validators.
    claims: Address,
    /// Heights for disputing a claim, where the hub's parameters do not say.
    window: Option<u64>,
    at: Address,
    book: Address,
    clock: u32,
}

impl Verifier {
    /// The verifier that a hub names; `None` where it names none.
    pub async fn of(hub: &Hub) -> Result<Option<Self>, Refusal> {
        let at = hub.params().await?.verifier;
        if at.is_zero() || hub.node().code(at).await?.is_empty() {
            return Ok(None);
        }
        Self::at(hub, at, hub.address(), None).await.map(Some)
    }

    /// The verifier at an address, whose claims name `claims` as their hub: what was revealed is on `hub` all the same.
    /// They can be disputed for `window` heights, or as long as the hub says.
    pub async fn at(hub: &Hub, at: Address, claims: Address, window: Option<u64>) -> Result<Self, Refusal> {
        Ok(Self {
            book: hub.read(at, PocVerifier::BOOKCall {}).await?,
            clock: hub.read(at, PocVerifier::CLOCKCall {}).await?,
            at,
            claims,
            window,
            hub: hub.clone(),
        })
    }

    /// The hub whose verifier it is.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.at
    }

    /// Heights on each side's clock.
    pub fn clock(&self) -> u32 {
        self.clock
    }

    /// Heights for which a dispute that was opened may go on: the window for joining and both clocks.
    pub async fn longest(&self) -> Result<u64, Refusal> {
        let window = match self.window {
            Some(window) => window,
            None => {
                let p = self.hub.params().await?;
                p.challengeWindow.max(p.quarrelWindow)
            }
        };
        Ok(window + 2 * u64::from(self.clock) + 2)
    }

    /// A claim.
    pub async fn claim(&self, id: B256) -> Result<PocVerifier::Claim, Refusal> {
        self.hub
            .read(self.at, PocVerifier::claimOfCall { claim: id })
            .await
    }

    /// A challenger's game, and whose turn it is at `height`.
    pub async fn standing(&self, claim: B256, challenger: Address, height: u64) -> Result<Standing, Refusal> {
        let game = self
            .hub
            .read(self.at, PocVerifier::gameCall { claim, challenger })
            .await?;
        let waiting = (!game.waiting.is_zero()).then_some(game.waiting);
        let answered_at = match waiting {
            Some(id) => {
                self.hub
                    .read(self.at, PocVerifier::askOfCall { id })
                    .await?
                    .answeredAt
            }
            None => 0,
        };
        Ok(Standing {
            turn: turn(&game, answered_at, height),
            game,
            waiting: waiting.filter(|_| answered_at == 0),
        })
    }

    /// Wei that a game about a job of this model takes.
    pub async fn bond(&self, model_root: B256) -> Result<U256, Refusal> {
        let call = PocVerifier::bondCall {
            modelRoot: model_root,
        };
        self.hub.read(self.at, call).await
    }

    /// Wei that the contract owes to an address.
    pub async fn owed(&self, to: Address) -> Result<U256, Refusal> {
        self.hub.read(self.at, PocVerifier::owedToCall { to }).await
    }

    /// Whether a program is in the book.
    pub async fn knows(&self, model_root: B256) -> Result<bool, Refusal> {
        let call = ProgramBook::modelCall {
            modelRoot: model_root,
        };
        Ok(!self.hub.read(self.book, call).await?.sites.is_zero())
    }

    /// Content of a published answer: the code behind its first byte.
    pub async fn content(&self, at: Address) -> Result<Bytes, Refusal> {
        let code = self.hub.node().code(at).await?;
        Ok(code.get(1..).map(Bytes::copy_from_slice).unwrap_or_default())
    }

    /// Everything that happened to a claim from a height on, in order.
    pub async fn events(&self, claim: B256, from: u64) -> Result<Vec<Logged>, Refusal> {
        let tip = self.hub.node().height().await?;
        let filter = Filter::new().address(self.at).topic1(claim);
        Ok(self
            .hub
            .events(filter, from, tip)
            .await?
            .iter()
            .filter_map(read_event)
            .collect())
    }

    /// Claims of a neuron that were disputed for the first time between two heights: id, height.
    pub async fn disputed(&self, neuron: Address, from: u64, to: u64) -> Result<Vec<(B256, u64)>, Refusal> {
        let filter = Filter::new()
            .address(self.at)
            .event_signature(PocVerifier::ClaimDisputed::SIGNATURE_HASH)
            .topic3(neuron.into_word());
        let logs = self.hub.events(filter, from, to).await?;
        Ok(claims_of(&logs))
    }

    /// Claims about which an address opened a game between two heights: id, height.
    pub async fn games_of(&self, who: Address, from: u64, to: u64) -> Result<Vec<(B256, u64)>, Refusal> {
        let filter = Filter::new()
            .address(self.at)
            .event_signature(PocVerifier::GameOpened::SIGNATURE_HASH)
            .topic2(who.into_word());
        let logs = self.hub.events(filter, from, to).await?;
        Ok(claims_of(&logs))
    }

    /// What is public of a disputed claim.
    pub async fn public(&self, id: B256) -> Result<Claim, Failure> {
        let fail = |e: Refusal| e.into_failure("reading a claim");
        let claim = self.claim(id).await.map_err(fail)?;
        let posted = self.hub.find(claim.jobId).await?;
        let revealed = self.hub.revealed(claim.jobId).await.map_err(fail)?;
        // A validator claims what some neuron revealed; the id says which.
        revealed
            .into_iter()
            .map(|revealed| Claim {
                chain_id: self.hub.node().chain_id(),
                hub: self.claims,
                job_id: claim.jobId,
                neuron: claim.neuron,
                job: posted.job.clone(),
                outputs: revealed.output_ids,
                root: revealed.trace_root.into(),
            })
            .find(|claim| claim.id() == id.0)
            .ok_or(Failure::NoJob { job: claim.jobId })
    }

    fn call<C: SolCall>(&self, call: C, value: U256) -> Call {
        Call {
            to: TxKind::Call(self.at),
            data: call.abi_encode().into(),
            value,
        }
    }

    /// Opens the first game about a claim.
    pub fn open(&self, claim: &Claim, bond: U256) -> Call {
        let job = &claim.job;
        let fields = PocVerifier::JobFields {
            modelRoot: job.model_root,
            specVersion: job.spec_version,
            inputHash: input_hash(&job.input_ids),
            stopHash: ids_hash(&job.stop_ids),
            temperatureQ16: job.sampler.temperature_q16,
            topK: job.sampler.top_k,
            topPQ16: job.sampler.top_p_q16,
            seed: job.seed,
        };
        let call = PocVerifier::openCall {
            jobId: claim.job_id,
            neuron: claim.neuron,
            fields,
            outputIds: ids_to_bytes(&claim.outputs).into(),
        };
        self.call(call, bond)
    }

    /// Opens a further game.
    pub fn join(&self, claim: B256, bond: U256) -> Call {
        self.call(PocVerifier::joinCall { claim }, bond)
    }

    /// Asks.
    pub fn ask(&self, claim: B256, to: &[u8; 32], ask: &Ask) -> Call {
        let call = PocVerifier::askCall {
            claim,
            r#move: ask.encode(to).to_vec().into(),
        };
        self.call(call, U256::ZERO)
    }

    /// Answers: the ask's id, then the content.
    pub fn answer(&self, bytes: Vec<u8>) -> Call {
        self.call(PocVerifier::answerCall { r#move: bytes.into() }, U256::ZERO)
    }

    /// Accuses a step.
    pub fn accuse(&self, claim: B256, bytes: Vec<u8>) -> Call {
        let call = PocVerifier::accuseCall {
            claim,
            r#move: bytes.into(),
        };
        self.call(call, U256::ZERO)
    }

    /// Ends a game in which a clock ran out.
    pub fn timeout(&self, claim: B256, challenger: Address) -> Call {
        self.call(PocVerifier::timeoutCall { claim, challenger }, U256::ZERO)
    }

    /// Takes the sender's bond back after a conviction.
    pub fn take_back(&self, claim: B256) -> Call {
        self.call(PocVerifier::takeBackCall { claim }, U256::ZERO)
    }

    /// Sends the sender what it is owed.
    pub fn withdraw(&self) -> Call {
        self.call(PocVerifier::withdrawCall {}, U256::ZERO)
    }

    /// Puts a program into the book.
    pub fn keep(&self, model_root: B256, program: &Program, branches: &Branches) -> Result<Call, Failure> {
        let mut records = Vec::new();
        for site in &program.sites {
            let record = site
                .encode()
                .map_err(|e| Failure::Internal(anyhow::Error::new(e)))?;
            records.extend_from_slice(&record);
        }
        let call = ProgramBook::keepCall {
            modelRoot: model_root,
            dims: ProgramBook::Dims {
                layers: program.layers,
                dModel: program.d_model,
                vocab: program.vocab,
                context: program.context,
                kvHeads: program.kv_heads,
                headDim: program.head_dim,
                stride: program.checkpoint_stride,
            },
            branches: ProgramBook::Branches {
                info: branches.info.into(),
                tensorCount: branches.tensor_count,
                tensorsLeft: branches.tensors[0].into(),
                tensorsRight: branches.tensors[1].into(),
                tokenizer: branches.tokenizer.into(),
            },
            records: records.into(),
        };
        Ok(Call {
            to: TxKind::Call(self.book),
            data: call.abi_encode().into(),
            value: U256::ZERO,
        })
    }
}

fn claims_of(logs: &[Log]) -> Vec<(B256, u64)> {
    let claim = |log: &Log| Some((*log.topics().get(1)?, log.block_number?));
    logs.iter().filter_map(claim).collect()
}

/// The ask of an event: what it builds on and its words are the bytes that were inscribed.
fn read_ask(to: B256, words: FixedBytes<20>) -> Option<Ask> {
    Ask::decode(&[to.as_slice(), words.as_slice()].concat())
        .ok()
        .map(|(_, ask)| ask)
}

/// An event of a claim; others, and asks of a kind that this program does not know, are none.
fn read_event(log: &Log) -> Option<Logged> {
    let topic = *log.topic0()?;
    let event = if topic == PocVerifier::GameOpened::SIGNATURE_HASH {
        let e = log.log_decode::<PocVerifier::GameOpened>().ok()?.inner.data;
        Event::Opened(e.challenger, e.bond)
    } else if topic == PocVerifier::Asked::SIGNATURE_HASH {
        let e = log.log_decode::<PocVerifier::Asked>().ok()?.inner.data;
        Event::Asked {
            challenger: e.challenger,
            id: e.ask,
            to: e.to,
            ask: read_ask(e.to, e.words)?,
        }
    } else if topic == PocVerifier::Answered::SIGNATURE_HASH {
        let e = log.log_decode::<PocVerifier::Answered>().ok()?.inner.data;
        Event::Answered {
            ask: e.ask,
            content: e.content,
        }
    } else if topic == PocVerifier::GameLost::SIGNATURE_HASH {
        let e = log.log_decode::<PocVerifier::GameLost>().ok()?.inner.data;
        Event::Lost(e.challenger, e.by)
    } else if topic == PocVerifier::ClaimConvicted::SIGNATURE_HASH {
        let e = log.log_decode::<PocVerifier::ClaimConvicted>().ok()?.inner.data;
        Event::Convicted(e.challenger, e.by)
    } else {
        return None;
    };
    Some(Logged {
        event,
        height: log.block_number?,
        block: log.block_hash?,
        tx: log.transaction_hash?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn game(waiting: bool) -> PocVerifier::Game {
        PocVerifier::Game {
            bond: Default::default(),
            challengerLeft: 10,
            neuronLeft: 5,
            since: 100,
            state: GAME_PLAYING,
            asks: 0,
            waiting: if waiting { B256::repeat_byte(1) } else { B256::ZERO },
        }
    }

    #[test]
    fn clocks_run_as_in_the_contract() {
        assert_eq!(turn(&game(false), 0, 110), Turn::Challenger(0));
        assert_eq!(turn(&game(false), 0, 111), Turn::ChallengerIsOut);
        assert_eq!(turn(&game(true), 0, 105), Turn::Neuron(0));
        assert_eq!(turn(&game(true), 0, 106), Turn::NeuronIsOut);
        assert_eq!(turn(&game(true), 103, 106), Turn::Challenger(7));
        assert_eq!(turn(&game(true), 103, 114), Turn::ChallengerIsOut);
        // Published too late: the tree has it, the clock does not.
        assert_eq!(turn(&game(true), 106, 106), Turn::NeuronIsOut);
    }
}
