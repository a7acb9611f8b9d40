//! Validators' attestations as the miner uses them: typed reads and events, calldata for every step.

use alloy::rpc::types::{Filter, TransactionRequest};
use alloy::sol_types::{SolCall, SolEvent};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, aliases::U96};
use bitai_contracts::{AttestationSettings, Attestations as Contract, WorkerHub};

use super::{hub::Hub, node::Refusal, send::Call, verifier::Verifier};

/// Heights between what opens a draw, or ends an epoch, and the header that decides it.
const HEADER_DELAY: u64 = 2;

/// Heights in which whoever won by a clock can call the timeout before pay leaves.
const TIMEOUT_HEIGHTS: u64 = 6;

/// System contract that keeps Bitcoin header hashes by height.
const HEADER_HASHES: Address = address!("00000000000000000000000000000000b17a0001");

/// State of an attestation that was not made.
pub const ATTESTATION_NONE: u8 = 0;
/// State of an attestation that nothing has voided.
pub const ATTESTATION_STANDING: u8 = 1;

/// An ask for an entry of one validator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The job.
    pub job_id: U256,
    /// Which chunk.
    pub pick: u8,
    /// Last height for opening it.
    pub open_by: u64,
}

/// Heights that matter to an epoch, all inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Its first height.
    pub first: u64,
    /// Its last.
    pub last: u64,
    /// The header that ends it, from which on it can be attested.
    pub header: u64,
    /// Last height for attesting.
    pub attest_by: u64,
    /// Last height for asking.
    pub ask_by: u64,
    /// First height at which its jobs are paid.
    pub paid_from: u64,
}

/// The attestations of a hub's jobs.
#[derive(Debug, Clone)]
pub struct Attestations {
    hub: Hub,
    at: Address,
    settings: AttestationSettings,
    verifier: Verifier,
}

impl Attestations {
    /// The contract that a hub pays its part to, where that is one of attestations about it.
    pub async fn of(hub: &Hub) -> Result<Option<Self>, Refusal> {
        let at = hub.params().await?.treasury;
        if at.is_zero() || hub.node().code(at).await?.is_empty() {
            return Ok(None);
        }
        // A treasury can be any contract, which refuses what it does not know or answers something else.
        let theirs = match hub.read(at, Contract::HUBCall {}).await {
            Ok(theirs) => theirs,
            Err(Refusal::Said { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        if theirs != hub.address() {
            return Ok(None);
        }
        let verifier = hub.read(at, Contract::VERIFIERCall {}).await?;
        let settings = hub.read(at, Contract::settingsCall {}).await?;
        Ok(Some(Self {
            verifier: Verifier::at(hub, verifier, at, Some(settings.disputeWindow)).await?,
            settings,
            hub: hub.clone(),
            at,
        }))
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        self.at
    }

    /// The hub.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The verifier of exposed claims.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// What the deployment fixed.
    pub fn settings(&self) -> &AttestationSettings {
        &self.settings
    }

    /// The epoch of a height.
    pub fn epoch_of(&self, height: u64) -> u64 {
        height / self.settings.epoch.max(1)
    }

    /// Heights that matter to an epoch.
    pub fn windows(&self, epoch: u64) -> Windows {
        let s = &self.settings;
        let first = epoch.saturating_mul(s.epoch);
        let last = first + s.epoch.saturating_sub(1);
        let header = last + HEADER_DELAY;
        let attest_by = header + s.attestWindow;
        let ask_by = attest_by + s.askWindow;
        Windows {
            first,
            last,
            header,
            attest_by,
            ask_by,
            paid_from: ask_by
                + s.openWindow
                + s.disputeWindow
                + 2 * u64::from(self.verifier.clock())
                + TIMEOUT_HEIGHTS,
        }
    }

    /// The height whose header draws for a job that was answered at a height.
    pub fn draw_height(answered_at: u64) -> u64 {
        answered_at + HEADER_DELAY
    }

    /// Hash of the Bitcoin header at a height (internal byte order), `None` where it is not there yet.
    pub async fn header(&self, height: u64) -> Result<Option<B256>, Refusal> {
        let request = TransactionRequest {
            to: Some(TxKind::Call(HEADER_HASHES)),
            input: Bytes::from(B256::from(U256::from(height))).into(),
            ..Default::default()
        };
        let bytes = self.hub.node().call(request).await?;
        Ok(B256::try_from(bytes.as_ref()).ok().filter(|hash| !hash.is_zero()))
    }

    /// A validator's account.
    pub async fn validator(&self, who: Address) -> Result<Contract::Validator, Refusal> {
        let call = Contract::validatorOfCall { validator: who };
        self.hub.read(self.at, call).await
    }

    /// Models whose draws a validator takes part in.
    pub async fn models(&self, who: Address) -> Result<Vec<B256>, Refusal> {
        let call = Contract::modelsOfCall { validator: who };
        self.hub.read(self.at, call).await
    }

    /// What a validator staked for a model's draws of an epoch, and what all did.
    pub async fn weights(&self, model: B256, who: Address, epoch: u64) -> Result<(U256, U256), Refusal> {
        let call = Contract::weightsCall {
            modelId: model,
            validator: who,
            epoch,
        };
        let w = self.hub.read(self.at, call).await?;
        Ok((w.own.to(), w.total.to()))
    }

    /// Whether a validator was drawn for an answered job whose header is there.
    pub async fn is_drawn(&self, job_id: U256, who: Address) -> Result<bool, Refusal> {
        let call = Contract::isDrawnCall {
            jobId: job_id,
            validator: who,
        };
        self.hub.read(self.at, call).await
    }

    /// A validator's attestation of an epoch.
    pub async fn attestation(&self, epoch: u64, who: Address) -> Result<Contract::Attestation, Refusal> {
        let call = Contract::attestationOfCall {
            epoch,
            validator: who,
        };
        self.hub.read(self.at, call).await
    }

    /// What became of a job under a validator's attestation.
    pub async fn entry(&self, job_id: U256, who: Address) -> Result<Contract::Entry, Refusal> {
        let call = Contract::entryOfCall {
            jobId: job_id,
            validator: who,
        };
        self.hub.read(self.at, call).await
    }

    /// Whether an ask about a job waits for a validator.
    pub async fn waits(&self, job_id: U256, who: Address) -> Result<bool, Refusal> {
        let call = Contract::askOfCall {
            jobId: job_id,
            validator: who,
        };
        Ok(self.hub.read(self.at, call).await?.openBy != 0)
    }

    /// Wei due to somebody: rewards, bonds, parts of slashes.
    pub async fn due(&self, who: Address) -> Result<U256, Refusal> {
        self.hub.read(self.at, Contract::dueCall { to: who }).await
    }

    /// Wei that each validator drawn for a settled job gets.
    pub async fn pay(&self, job_id: U256) -> Result<U256, Refusal> {
        self.hub.read(self.at, Contract::payCall { jobId: job_id }).await
    }

    /// Wei that an ask takes as bond.
    pub async fn ask_bond(&self) -> Result<U256, Refusal> {
        self.hub.read(self.at, Contract::askBondCall {}).await
    }

    /// Jobs whose challenge or quarrel window opened between two heights.
    pub async fn answered(&self, from: u64, to: u64) -> Result<Vec<(U256, u64)>, Refusal> {
        let filter = Filter::new().address(self.hub.address()).event_signature(vec![
            WorkerHub::ChallengeOpened::SIGNATURE_HASH,
            WorkerHub::Quarrelled::SIGNATURE_HASH,
        ]);
        let logs = self.hub.events(filter, from, to).await?;
        let job = |topics: &[B256]| Some(U256::from_be_bytes(topics.get(1)?.0));
        Ok(logs
            .iter()
            .filter_map(|log| Some((job(log.topics())?, log.block_number?)))
            .collect())
    }

    /// Asks about a validator's entries between two heights.
    pub async fn asked(&self, who: Address, from: u64, to: u64) -> Result<Vec<Asked>, Refusal> {
        let filter = Filter::new()
            .address(self.at)
            .event_signature(Contract::Asked::SIGNATURE_HASH)
            .topic2(who.into_word());
        let logs = self.hub.events(filter, from, to).await?;
        Ok(logs
            .iter()
            .filter_map(|log| log.log_decode::<Contract::Asked>().ok())
            .map(|log| log.inner.data)
            .map(|asked| Asked {
                job_id: asked.jobId,
                pick: asked.pick,
                open_by: asked.openBy,
            })
            .collect())
    }

    fn call<C: SolCall>(&self, call: C, value: U256) -> Call {
        Call {
            to: TxKind::Call(self.at),
            data: call.abi_encode().into(),
            value,
        }
    }

    /// Adds wei to the sender's stake.
    pub fn stake(&self, wei: U256) -> Call {
        self.call(Contract::stakeCall {}, wei)
    }

    /// Asks for stake.
    pub fn unstake(&self, wei: U256) -> Call {
        let amount: U96 = wei.saturating_to();
        self.call(Contract::requestUnstakeCall { amount }, U256::ZERO)
    }

    /// Takes part in a model's draws.
    pub fn enlist(&self, model: B256) -> Call {
        self.call(Contract::enlistCall { modelId: model }, U256::ZERO)
    }

    /// Takes no part in them any more.
    pub fn delist(&self, model: B256) -> Call {
        self.call(Contract::delistCall { modelId: model }, U256::ZERO)
    }

    /// Fetches all that is due.
    pub fn withdraw(&self) -> Call {
        self.call(Contract::withdrawCall {}, U256::ZERO)
    }

    /// Attests an epoch.
    pub fn attest(&self, epoch: u64, header: B256, job_id: U256, root: B256, none: &[u32]) -> Call {
        let call = Contract::attestCall {
            epoch,
            header,
            jobId: job_id,
            root,
            none_: list(none).into(),
        };
        self.call(call, U256::ZERO)
    }

    /// Says of further jobs that nothing is attested of them.
    pub fn none(&self, epoch: u64, header: B256, jobs: &[u32]) -> Call {
        let call = Contract::noneCall {
            epoch,
            header,
            jobs: list(jobs).into(),
        };
        self.call(call, U256::ZERO)
    }

    /// Asks for an entry, for a bond.
    pub fn ask(&self, validator: Address, job_id: U256, bond: U256) -> Call {
        let call = Contract::askCall {
            validator,
            jobId: job_id,
        };
        self.call(call, bond)
    }

    /// Opens an entry.
    pub fn open(&self, job_id: U256, opening: Vec<u8>) -> Call {
        let call = Contract::openCall {
            jobId: job_id,
            opening: opening.into(),
        };
        self.call(call, U256::ZERO)
    }

    /// Ends an ask that was not opened in time.
    pub fn expire(&self, validator: Address, job_id: U256) -> Call {
        let call = Contract::expireCall {
            validator,
            jobId: job_id,
        };
        self.call(call, U256::ZERO)
    }

    /// Reports a validator that was drawn and did not attest.
    pub fn absent(&self, validator: Address, job_id: U256) -> Call {
        let call = Contract::absentCall {
            validator,
            jobId: job_id,
        };
        self.call(call, U256::ZERO)
    }

    /// Claims pay for jobs.
    pub fn claim(&self, jobs: &[u32]) -> Call {
        let call = Contract::claimCall {
            jobs: list(jobs).into(),
        };
        self.call(call, U256::ZERO)
    }
}

/// Job numbers as the contract reads them.
fn list(jobs: &[u32]) -> Vec<u8> {
    jobs.iter().flat_map(|job| job.to_le_bytes()).collect()
}
