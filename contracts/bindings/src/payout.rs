//! What a payout address signs to change itself (EIP-712), computed without a chain: a cold machine needs none.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{Eip712Domain, SolStruct, sol};

sol! {
    /// A change of a payout address, as `contracts/src/base/Payouts.sol` hashes it.
    #[derive(Debug, PartialEq, Eq)]
    struct ChangePayout {
        address account;
        address payout;
        uint256 nonce;
        uint256 deadline;
    }
}

/// The digest of a change (`payoutDigest` of the contract).
pub fn change_digest(chain_id: u64, contract: Address, change: &ChangePayout) -> B256 {
    let domain = Eip712Domain::new(
        Some("BitAI payout".into()),
        Some("1".into()),
        Some(U256::from(chain_id)),
        Some(contract),
        None,
    );
    change.eip712_signing_hash(&domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{address, b256};

    /// The same numbers as `test_TheDigestIsRusts` in contracts/test/AttestPayouts.t.sol.
    #[test]
    fn the_digest_is_the_contracts() {
        let change = ChangePayout {
            account: address!("00000000000000000000000000000000000e000b"),
            payout: address!("00000000000000000000000000000000000000dd"),
            nonce: U256::from(3),
            deadline: U256::from(4000),
        };
        let at = address!("a77e570000000000000000000000000000000001");
        let digest = b256!("56c4c9ddc4bcf960e408daf6627f2a8292a6d8045f80d78db991fa5b765cbbae");
        assert_eq!(change_digest(22216, at, &change), digest);
    }
}
