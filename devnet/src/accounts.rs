//! The devnet's accounts. Their keys are published in this source: they are for devnets only, and whoever sends
//! them anything of worth on another chain loses it.

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, U256, keccak256};

/// Accounts with a part to play, and those to play with.
pub const NAMES: [&str; 6] = ["deployer", "client", "neuron", "inscriber", "alice", "bob"];
/// Coins of each account at genesis.
pub const COINS: u64 = 1_000_000;

/// An account whose key everyone knows.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its part.
    pub name: &'static str,
    /// Its key.
    pub signer: PrivateKeySigner,
}

impl Account {
    /// The account of a name: its key is keccak256 of `bitai devnet key: NAME`.
    pub fn named(name: &'static str) -> Self {
        let key = keccak256(format!("bitai devnet key: {name}"));
        let signer = PrivateKeySigner::from_bytes(&key)
            .expect("a keccak hash is a valid key but for a chance of 2^-128, and these names are fixed");
        Self { name, signer }
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Its published key.
    pub fn key(&self) -> B256 {
        self.signer.to_bytes()
    }
}

/// All accounts.
pub fn all() -> Vec<Account> {
    NAMES.iter().map(|name| Account::named(name)).collect()
}

/// One coin in wei.
pub fn coin() -> U256 {
    U256::from(10).pow(U256::from(18))
}

/// What each account holds at genesis.
pub fn balances() -> Vec<(Address, U256)> {
    all()
        .iter()
        .map(|a| (a.address(), coin() * U256::from(COINS)))
        .collect()
}

/// Wei as coins with six digits, for people.
pub fn in_coins(wei: U256) -> String {
    let micro = wei / U256::from(10).pow(U256::from(12));
    let (whole, part) = micro.div_rem(U256::from(1_000_000));
    format!("{whole}.{:06}", part.to::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_is_one_that_the_miner_refuses_elsewhere() {
        assert!(
            all()
                .iter()
                .all(|a| bitai_miner::published::is_published(a.address()))
        );
    }

    #[test]
    fn accounts_differ_and_coins_print_exactly() {
        let mut addresses: Vec<_> = all().iter().map(Account::address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), NAMES.len());
        assert_eq!(in_coins(coin() * U256::from(3) / U256::from(2)), "1.500000");
        assert_eq!(in_coins(U256::ZERO), "0.000000");
    }
}
