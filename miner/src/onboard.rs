//! `run --devnet`: what an owner would do by hand before the first job on a devnet: a key, coins, a stake.
//!
//! Coins come from the account that the devnet put beside its own description; on any chain but Bitcoin's regtest it refuses.

use std::{path::PathBuf, sync::Arc};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, Bytes, TxKind, U256};

use crate::{
    chain::{Hub, Sender, send::Call},
    cli::KeyArgs,
    config::DevnetChain,
    datadir::{DataDir, write_atomic},
    exit::Failure,
    stake, wallet,
};

/// Stake that is put down, in parts of the least that the hub asks.
const STAKE_PARTS: u64 = 10;
/// Wei beyond the stake that transactions are paid from: ten coins.
const PURSE: u64 = 10_000_000_000_000_000_000;
/// Name of the key that is made where there is none.
const KEY: &str = "default";

/// What the owner has now.
#[derive(Debug)]
pub struct Ready {
    /// The neuron's key.
    pub signer: PrivateKeySigner,
    /// Wei to stake up to.
    pub stake: U256,
}

/// Makes a key where there is none, and sees that it can pay for a stake. `want` is the stake the owner named.
pub async fn prepare(
    data: &DataDir,
    hub: &Hub,
    devnet: Option<&DevnetChain>,
    key: &KeyArgs,
    want: Option<U256>,
) -> Result<Ready, Failure> {
    let status = hub
        .node()
        .status()
        .await
        .map_err(|e| e.into_failure("bitai_status"))?;
    if status.network != "regtest" {
        return Err(Failure::Usage(format!(
            "--devnet is for devnets, and this chain lies on Bitcoin {}: leave the flag out, and see to key, coins and stake yourself",
            status.network
        )));
    }
    let devnet = devnet.ok_or_else(|| {
        Failure::Usage(format!(
            "no devnet has written {}: start one with the same --data-dir (scripts/devnet --no-neuron)",
            data.devnet().display()
        ))
    })?;
    let signer = own_key(data, key)?;
    let params = hub
        .params()
        .await
        .map_err(|e| e.into_failure("reading the hub's constants"))?;
    let least: U256 = params.minStake.to();
    let stake = want.unwrap_or(least.saturating_mul(U256::from(STAKE_PARTS)));
    let staked = stake::staked(hub, signer.address()).await?;
    give(hub, devnet, signer.address(), stake.saturating_sub(staked)).await?;
    Ok(Ready { signer, stake })
}

/// The key that was named or is there; else a new one, whose password lies beside it: it holds a devnet's coins.
fn own_key(data: &DataDir, key: &KeyArgs) -> Result<PrivateKeySigner, Failure> {
    let beside = password_beside(data);
    let none = key.keystore.is_none() && wallet::list(data)?.is_empty();
    if none {
        let file = match &key.password_file {
            Some(file) => file.clone(),
            None => {
                crate::datadir::make_dir(&data.keys())?;
                write_atomic(&beside, hex::encode(rand::random::<[u8; 16]>()).as_bytes(), 0o600)?;
                beside
            }
        };
        let signer = PrivateKeySigner::random_with(&mut rand::rngs::OsRng);
        let path = wallet::store(data, KEY, &signer, &wallet::password(Some(&file), true)?)?;
        tracing::info!(neuron = %signer.address(), file = %path.display(), "made a key for this devnet");
        return Ok(signer);
    }
    let mut key = key.clone();
    let ours = wallet::choose(data, &key)? == wallet::key_path(data, KEY);
    if key.password_file.is_none() && ours && beside.is_file() {
        key.password_file = Some(beside);
    }
    wallet::open(data, &key)
}

fn password_beside(data: &DataDir) -> PathBuf {
    data.keys().join(format!("{KEY}.password"))
}

/// Sends what `to` lacks of `stake` and some coins for transactions.
async fn give(hub: &Hub, devnet: &DevnetChain, to: Address, stake: U256) -> Result<(), Failure> {
    let have = hub
        .node()
        .balance(to)
        .await
        .map_err(|e| e.into_failure("eth_getBalance"))?;
    let purse = U256::from(PURSE);
    // A purse that is half empty is filled; one transaction less where it is not.
    if have >= stake.saturating_add(purse / U256::from(2)) {
        return Ok(());
    }
    let wei = stake.saturating_add(purse).saturating_sub(have);
    let funds = wallet::unlock(
        devnet.keystore.as_ref(),
        &wallet::password(Some(&devnet.password_file), false)?,
    )?;
    tracing::info!(%wei, neuron = %to, "taking coins from the devnet's account");
    let call = Call {
        to: TxKind::Call(to),
        data: Bytes::new(),
        value: wei,
    };
    Sender::new(Arc::clone(hub.node()), funds)
        .execute(&call, "coins from the devnet's account", stake::INCLUSION_TIMEOUT)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_opened_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::resolve(Some(dir.path().into())).unwrap();
        let made = own_key(&data, &KeyArgs::default()).unwrap();
        let again = own_key(&data, &KeyArgs::default()).unwrap();
        assert_eq!(made.address(), again.address());
        assert_eq!(wallet::list(&data).unwrap().len(), 1);
    }

    #[test]
    fn a_key_of_the_owners_is_used_and_asks_for_its_own_password() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::resolve(Some(dir.path().into())).unwrap();
        let signer = PrivateKeySigner::random();
        wallet::store(&data, "mine", &signer, "secret").unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret").unwrap();
        let key = KeyArgs {
            keystore: None,
            password_file: Some(file),
        };
        assert_eq!(own_key(&data, &key).unwrap().address(), signer.address());
    }
}
