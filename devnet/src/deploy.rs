//! Contracts and model of a devnet: deployed once, found again after a restart.

use alloy_primitives::{Address, TxKind, U256, Uint};
use bitai_contracts::{Params, hub_init_code, registry_init_code};
use bitai_miner::{
    Failure,
    chain::{Hub, Node, Sender, registry, send::Call},
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
    use bitai_contracts::WorkerHub;
    use bitai_node::mempool::MAX_TX_BYTES;
    use bitai_types::job::OUTPUTS_MAX;

    use super::*;
    use crate::accounts::Account;

    /// Contracts and node know nothing of each other's limits; only here both are at hand.
    #[test]
    fn the_longest_answer_fits_one_transaction() {
        let call = WorkerHub::revealCall {
            jobId: U256::MAX,
            salt: B256::repeat_byte(255),
            traceRoot: B256::repeat_byte(255),
            outputIds: vec![255; 4 * OUTPUTS_MAX as usize].into(),
        };
        let tx = TxEip1559 {
            chain_id: u64::MAX,
            nonce: u64::MAX,
            gas_limit: u64::MAX,
            max_fee_per_gas: u128::MAX,
            max_priority_fee_per_gas: u128::MAX,
            to: TxKind::Call(Address::repeat_byte(255)),
            value: U256::ZERO,
            access_list: Default::default(),
            input: call.abi_encode().into(),
        };
        let signer = Account::named("neuron").signer;
        let signature = signer.sign_hash_sync(&tx.signature_hash()).unwrap();
        let bytes = TxEnvelope::from(tx.into_signed(signature)).encoded_2718().len();
        assert!(bytes <= MAX_TX_BYTES, "{bytes} of {MAX_TX_BYTES}");
        assert!(bytes + 1_000 > MAX_TX_BYTES, "{bytes}: more would fit");
    }
}
