//! Contracts and model of a devnet: deployed once, found again after a restart.

use std::time::Duration;

use alloy_primitives::{Address, Bytes, TxKind, U256, Uint};
use bitai_contracts::{
    AttestationSettings, PROGRAM_BOOK_BYTECODE, Params, VerifierSettings, attestations_init_code,
    hub_init_code, registry_init_code, verifier_init_code,
};
use bitai_miner::{
    Failure,
    chain::{Hub, Node, Refusal, Sender, Verifier, registry, send::Call},
    dispute::opened,
    models::{self, Listed},
};

use crate::accounts::coin;

/// Longest wait for a devnet transaction.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Wei that the devnet's inscriber takes for a satoshi.
const WEI_PER_SAT: u64 = 10_000_000_000;

/// How long disputes may take on a devnet. Fixed when its contracts are deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Heights for opening disputes after a reveal; every job waits for them.
    pub challenge_window: u64,
    /// Heights on each side's clock in a dispute.
    pub clock: u32,
    /// Whether validators attest answers; the challenge window is then at least [`ATTESTED_WINDOW`].
    pub validators: bool,
}

/// Heights after a reveal that validators need to compute an answer and to dispute it.
pub const ATTESTED_WINDOW: u64 = 12;
/// Heights of an epoch of attestations.
pub const EPOCH: u64 = 6;

impl Default for Rules {
    /// A window short enough to wait for, a clock long enough for a slow machine.
    fn default() -> Self {
        Self {
            challenge_window: 2,
            clock: 60,
            validators: false,
        }
    }
}

/// Where the contracts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contracts {
    /// ModelRegistry.
    pub registry: Address,
    /// ProgramBook.
    pub book: Address,
    /// PocVerifier.
    pub verifier: Address,
    /// WorkerHub.
    pub hub: Address,
    /// The verifier of what validators claim, where they attest.
    pub second_verifier: Address,
    /// Attestations, where validators attest.
    pub attestations: Address,
}

impl Contracts {
    /// Addresses follow from the deployer and its first nonces. Hub and verifier name each other, so that of the one
    /// that comes last has to be known before.
    pub fn of(deployer: Address) -> Self {
        Self {
            registry: deployer.create(0),
            book: deployer.create(1),
            verifier: deployer.create(2),
            hub: deployer.create(3),
            second_verifier: deployer.create(4),
            attestations: deployer.create(5),
        }
    }
}

/// Wei that a model's registration must carry.
fn bond() -> U256 {
    coin()
}

/// The hub's numbers on a devnet: windows long enough for a slow machine, a challenge window short enough to wait for.
fn params(rules: Rules, at: &Contracts) -> Params {
    let wei = |w: U256| Uint::saturating_from(w);
    let window = if rules.validators {
        rules.challenge_window.max(ATTESTED_WINDOW)
    } else {
        rules.challenge_window
    };
    Params {
        commitWindow: 1_200,
        revealWindow: 1_200,
        challengeWindow: window,
        quarrelWindow: window,
        assignWindow: 1_200,
        unstakeDelay: 10,
        minStake: wei(coin() * U256::from(100)),
        minCollateral: wei(coin()),
        timeoutSlashBps: 1_000,
        protocolFeeBps: 500,
        treasury: if rules.validators {
            at.attestations
        } else {
            Address::ZERO
        },
        verifier: at.verifier,
    }
}

/// The numbers of attestations on a devnet: a validator on a slow machine has time for each step.
fn attestation_settings(rules: Rules) -> AttestationSettings {
    AttestationSettings {
        epoch: EPOCH,
        attestWindow: 8,
        askWindow: 8,
        openWindow: 20,
        disputeWindow: 10,
        // Above two epochs, their windows and both clocks.
        unstakeDelay: 80 + 2 * u64::from(rules.clock),
        minCutPerPosition: Uint::from(1),
        minStake: Uint::saturating_from(coin() * U256::from(10)),
        seats: 3,
        missBps: 100,
        faultBps: 2_000,
    }
}

/// Stake that the devnet's neuron puts down.
pub fn stake_wei() -> U256 {
    coin() * U256::from(1_000)
}

async fn has_code(node: &Node, at: Address) -> Result<bool, Failure> {
    Ok(!node
        .code(at)
        .await
        .map_err(|e| e.into_failure("eth_getCode"))?
        .is_empty())
}

/// Contracts that this version did not deploy.
fn other_version(what: &str) -> Failure {
    Failure::Transaction {
        what: what.to_owned(),
        why:
            "the contracts on this chain are another version's. Start with another --data-dir, or remove the \
              folder `devnet` in this one"
                .into(),
    }
}

/// Deploys what is not there yet. Refuses a chain whose contracts are another version's.
pub async fn contracts(deployer: &Sender, rules: Rules) -> Result<Contracts, Failure> {
    let me = deployer.address();
    let at = Contracts::of(me);
    let node = deployer.node();
    let per_sat = |sats: u64| WEI_PER_SAT / 4 * sats;
    let verifier = VerifierSettings {
        hub: at.hub,
        book: at.book,
        clock: rules.clock,
        governor: me,
        wei_per_byte: per_sat(1),
        wei_per_byte_max: per_sat(1_000),
    };
    let mut parts: Vec<(&str, Address, Bytes)> = vec![
        (
            "deploying ModelRegistry",
            at.registry,
            registry_init_code(bond(), 10),
        ),
        ("deploying ProgramBook", at.book, PROGRAM_BOOK_BYTECODE.clone()),
        (
            "deploying PocVerifier",
            at.verifier,
            verifier_init_code(&verifier),
        ),
        (
            "deploying WorkerHub",
            at.hub,
            hub_init_code(at.registry, params(rules, &at)),
        ),
    ];
    if rules.validators {
        let second = VerifierSettings {
            hub: at.attestations,
            ..verifier
        };
        parts.push((
            "deploying the validators' PocVerifier",
            at.second_verifier,
            verifier_init_code(&second),
        ));
        parts.push((
            "deploying Attestations",
            at.attestations,
            attestations_init_code(
                at.hub,
                at.registry,
                at.second_verifier,
                attestation_settings(rules),
            ),
        ));
    }
    for (nonce, (what, address, data)) in (0u64..).zip(parts) {
        if has_code(node, address).await? {
            continue;
        }
        let next = node
            .nonce(me, "latest")
            .await
            .map_err(|e| e.into_failure("eth_getTransactionCount"))?;
        if next != nonce {
            return Err(other_version(what));
        }
        let create = Call {
            to: TxKind::Create,
            data,
            value: U256::ZERO,
        };
        deployer.execute(&create, what, TIMEOUT).await?;
        if !has_code(node, address).await? {
            return Err(other_version(what));
        }
    }
    Ok(at)
}

/// Puts a model's program into the book of programs, unless it is there or has no disputes (an encoder's).
pub async fn keep(
    deployer: &Sender,
    hub: &Hub,
    data: &bitai_miner::datadir::DataDir,
    model: &Listed,
) -> Result<(), Failure> {
    if model.shape.embeds() {
        return Ok(());
    }
    let what = "putting the program into the book";
    // A hub of another version names no verifier, or what is there is none.
    let verifier = match Verifier::of(hub).await {
        Ok(Some(verifier)) => verifier,
        Ok(None) => return Err(other_version(what)),
        Err(Refusal::Said { .. }) => return Err(other_version(what)),
        Err(e) => return Err(e.into_failure(what)),
    };
    if verifier
        .knows(model.model_root)
        .await
        .map_err(|e| e.into_failure(what))?
    {
        return Ok(());
    }
    let (_, pack) = models::open_root(data, &model.model_root)?;
    let call = verifier.keep(model.model_root, &pack.program(), &opened(&pack)?.branches())?;
    deployer.execute(&call, what, TIMEOUT).await?;
    Ok(())
}

/// Registers a model unless the registry has it.
pub async fn register(deployer: &Sender, hub: &Hub, at: Address, model: &Listed) -> Result<(), Failure> {
    if hub
        .model(&model.key())
        .await
        .map_err(|e| e.into_failure("reading the model registry"))?
        .is_some()
    {
        return Ok(());
    }
    let uri = format!("bitai:{}", model.name);
    let call = registry::register(at, &model.key(), &uri, model.source_hash, bond());
    let sent = deployer.execute(&call, "registering the model", TIMEOUT).await;
    sent.map_err(|e| match e {
        // Whatever today's registry refuses has a name; contracts of another version revert without one.
        Failure::Transaction { why, .. } if why.ends_with("execution reverted") => {
            other_version("registering the model")
        }
        other => other,
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloy::{
        consensus::{SignableTransaction, TxEip1559, TxEnvelope},
        eips::eip2718::Encodable2718,
        signers::SignerSync,
        sol_types::SolCall,
    };
    use alloy_primitives::B256;
    use bitai_contracts::{PocVerifier, WorkerHub};
    use bitai_node::mempool::MAX_TX_BYTES;
    use bitai_types::job::OUTPUTS_MAX;

    use super::*;
    use crate::accounts::Account;

    /// Bytes of a signed transaction with the largest numbers that it can have.
    fn largest(input: Vec<u8>, value: U256) -> usize {
        let tx = TxEip1559 {
            chain_id: u64::MAX,
            nonce: u64::MAX,
            gas_limit: u64::MAX,
            max_fee_per_gas: u128::MAX,
            max_priority_fee_per_gas: u128::MAX,
            to: TxKind::Call(Address::repeat_byte(255)),
            value,
            access_list: Default::default(),
            input: input.into(),
        };
        let signer = Account::named("neuron").signer;
        let signature = signer.sign_hash_sync(&tx.signature_hash()).unwrap();
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().len()
    }

    /// Contracts and node know nothing of each other's limits; only here both are at hand.
    #[test]
    fn the_longest_answer_fits_one_transaction_and_so_does_its_dispute() {
        let output_ids = vec![255; 4 * OUTPUTS_MAX as usize];
        let reveal = WorkerHub::revealCall {
            jobId: U256::MAX,
            salt: B256::repeat_byte(255),
            traceRoot: B256::repeat_byte(255),
            outputIds: output_ids.clone().into(),
        };
        let bytes = largest(reveal.abi_encode(), U256::ZERO);
        assert!(bytes <= MAX_TX_BYTES, "{bytes} of {MAX_TX_BYTES}");
        assert!(bytes + 1_000 > MAX_TX_BYTES, "{bytes}: more would fit");
        let open = PocVerifier::openCall {
            jobId: U256::MAX,
            neuron: Address::repeat_byte(255),
            fields: PocVerifier::JobFields {
                modelRoot: B256::repeat_byte(255),
                specVersion: u32::MAX,
                inputHash: B256::repeat_byte(255),
                stopHash: B256::repeat_byte(255),
                temperatureQ16: u32::MAX,
                topK: u32::MAX,
                topPQ16: u32::MAX,
                seed: u64::MAX,
            },
            outputIds: output_ids.into(),
        };
        let bytes = largest(open.abi_encode(), U256::MAX);
        assert!(bytes <= MAX_TX_BYTES, "opening: {bytes} of {MAX_TX_BYTES}");
    }
}
