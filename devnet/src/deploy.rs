//! Contracts and model of a devnet: deployed once, found again after a restart.

use alloy::sol_types::SolCall;
use alloy_primitives::{Address, TxKind, U256, Uint};
use bitai_contracts::{ModelRegistry, Params, hub_init_code, registry_init_code};
use bitai_miner::{
    Failure,
    chain::{Hub, Node, Sender, send::Call},
    models::Listed,
};

use crate::accounts::coin;

/// Longest wait for a devnet transaction.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Where the contracts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contracts {
    /// ModelRegistry.
    pub registry: Address,
    /// WorkerHub.
    pub hub: Address,
}

impl Contracts {
    /// Addresses follow from the deployer and its first two nonces.
    pub fn of(deployer: Address) -> Self {
        Self {
            registry: deployer.create(0),
            hub: deployer.create(1),
        }
    }
}

/// Wei that a model's registration must carry.
fn bond() -> U256 {
    coin()
}

/// The hub's numbers on a devnet: windows long enough for a slow machine, a challenge window short enough to wait for.
fn params() -> Params {
    let wei = |w: U256| Uint::saturating_from(w);
    Params {
        commitWindow: 1_200,
        revealWindow: 1_200,
        challengeWindow: 2,
        quarrelWindow: 2,
        assignWindow: 1_200,
        unstakeDelay: 10,
        minStake: wei(coin() * U256::from(100)),
        minCollateral: wei(coin()),
        timeoutSlashBps: 1_000,
        protocolFeeBps: 500,
        treasury: Address::ZERO,
        verifier: Address::ZERO,
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

/// Deploys what is not there yet.
pub async fn contracts(deployer: &Sender) -> Result<Contracts, Failure> {
    let at = Contracts::of(deployer.address());
    let node = deployer.node();
    if !has_code(node, at.registry).await? {
        let data = registry_init_code(bond(), 10);
        let create = Call {
            to: TxKind::Create,
            data,
            value: U256::ZERO,
        };
        deployer
            .execute(&create, "deploying ModelRegistry", TIMEOUT)
            .await?;
    }
    if !has_code(node, at.hub).await? {
        let data = hub_init_code(at.registry, params());
        let create = Call {
            to: TxKind::Create,
            data,
            value: U256::ZERO,
        };
        deployer.execute(&create, "deploying WorkerHub", TIMEOUT).await?;
    }
    for (what, flag, address) in [
        ("WorkerHub", "hub", at.hub),
        ("ModelRegistry", "registry", at.registry),
    ] {
        if !has_code(node, address).await? {
            return Err(Failure::NoContract { what, address, flag });
        }
    }
    Ok(at)
}

/// Registers a model unless the registry has it.
pub async fn register(
    deployer: &Sender,
    hub: &Hub,
    registry: Address,
    model: &Listed,
) -> Result<(), Failure> {
    if hub
        .model(&model.key())
        .await
        .map_err(|e| e.into_failure("reading the model registry"))?
        .is_some()
    {
        return Ok(());
    }
    let call = ModelRegistry::registerCall {
        modelRoot: model.model_root,
        specVersion: model.spec_version,
        vocab: model.shape.vocab,
        context: model.shape.context,
        words: model.shape.words,
        uri: format!("bitai:{}", model.name),
        sourceHash: model.source_hash,
    };
    let call = Call {
        to: TxKind::Call(registry),
        data: call.abi_encode().into(),
        value: bond(),
    };
    let sent = deployer.execute(&call, "registering the model", TIMEOUT).await;
    sent.map_err(|e| match e {
        // Whatever today's registry refuses has a name; contracts of another version revert without one.
        Failure::Transaction { what, why } if why.ends_with("execution reverted") => Failure::Transaction {
            what,
            why: format!(
                "{why} without a reason: the contracts on this chain are another version's. Start with another \
                 --data-dir, or remove the folder `devnet` in this one"
            ),
        },
        other => other,
    })?;
    Ok(())
}
