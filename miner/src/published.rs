//! Keys that everyone knows: those of the devnet, in its source, and those that Ethereum's test tools print. Coins sent
//! to them on a public chain are gone, so they sign nothing there.

use std::sync::LazyLock;

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, address, keccak256};
use bitai_types::chain::Network;

use crate::exit::Failure;

/// Names of the devnet's accounts: a key is keccak256 of `bitai devnet key: NAME`.
const DEVNET: [&str; 6] = ["deployer", "client", "neuron", "inscriber", "alice", "bob"];

/// The accounts of the mnemonic `test test ... junk` at m/44'/60'/0'/0/0 to 19, which Hardhat and Anvil fund.
const TEST_TOOLS: [Address; 20] = [
    address!("f39fd6e51aad88f6f4ce6ab8827279cfffb92266"),
    address!("70997970c51812dc3a010c7d01b50e0d17dc79c8"),
    address!("3c44cdddb6a900fa2b585dd299e03d12fa4293bc"),
    address!("90f79bf6eb2c4f870365e785982e1f101e93b906"),
    address!("15d34aaf54267db7d7c367839aaf71a00a2c6a65"),
    address!("9965507d1a55bcc2695c58ba16fb37d819b0a4dc"),
    address!("976ea74026e726554db657fa54763abd0c3a0aa9"),
    address!("14dc79964da2c08b23698b3d3cc7ca32193d9955"),
    address!("23618e81e3f5cdf7f54c3d65f7fbc0abf5b21e8f"),
    address!("a0ee7a142d267c1f36714e4a8f75612f20a79720"),
    address!("bcd4042de499d14e55001ccbb24a551f3b954096"),
    address!("71be63f3384f5fb98995898a86b02fb2426c5788"),
    address!("fabb0ac9d68b0b445fb7357272ff202c5651694a"),
    address!("1cbd3b2770909d4e10f157cabc84c7264073c9ec"),
    address!("df3e18d64bc6a983f673ab319ccae4f1a57c7097"),
    address!("cd3b766ccdd6ae721141f452c550ca635964ce71"),
    address!("2546bcd3c84621e976d8185a91a922ae77ecec30"),
    address!("bda5747bfd65f08deb54cb465eb87d40e51b197e"),
    address!("dd2fd4581271e230360230f9337d5c0430bf44c0"),
    address!("8626f6940e2eb28930efb4cef49b2d1f2c9c1199"),
];

static ALL: LazyLock<Vec<Address>> = LazyLock::new(|| {
    let devnet = DEVNET.iter().filter_map(|name| {
        let key = keccak256(format!("bitai devnet key: {name}"));
        PrivateKeySigner::from_bytes(&key).ok().map(|s| s.address())
    });
    devnet.chain(TEST_TOOLS).collect()
});

/// Whether everyone knows the key of this account.
pub fn is_published(who: Address) -> bool {
    ALL.contains(&who)
}

/// Refuses an account whose key everyone knows, on every chain but a private one.
pub fn refuse(who: Address, chain_id: u64) -> Result<(), Failure> {
    if chain_id != Network::Regtest.chain_id() && is_published(who) {
        return Err(Failure::Published { who, chain_id });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_keys_count_on_regtest_alone() {
        // The first account of Hardhat, by its key.
        let hardhat: PrivateKeySigner = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
            .parse()
            .unwrap();
        assert_eq!(ALL.len(), DEVNET.len() + TEST_TOOLS.len());
        for who in [hardhat.address(), ALL[0]] {
            assert!(refuse(who, Network::Regtest.chain_id()).is_ok());
            for chain in [Network::Bitcoin, Network::Testnet4, Network::Signet] {
                assert_eq!(refuse(who, chain.chain_id()).unwrap_err().code(), 33);
            }
        }
        assert!(refuse(PrivateKeySigner::random().address(), 1).is_ok());
    }
}
