//! Payout addresses at a contract that has them (hub, attestations): typed reads, calldata.

use alloy::sol_types::SolCall;
use alloy_primitives::{Address, Bytes, TxKind, U256};
use bitai_contracts::{ChangePayout, Payee, WorkerHub};

use super::{hub::Hub, node::Refusal, send::Call};

/// The payout addresses of one contract. The hub's calls are those of the attestations, too.
#[derive(Debug, Clone)]
pub struct Payouts {
    hub: Hub,
    at: Address,
}

impl Payouts {
    /// Those of the hub itself.
    pub fn of_hub(hub: &Hub) -> Self {
        Self {
            hub: hub.clone(),
            at: hub.address(),
        }
    }

    /// Those of another contract on the hub's chain.
    pub fn of(hub: &Hub, at: Address) -> Self {
        Self { hub: hub.clone(), at }
    }

    /// The contract.
    pub fn address(&self) -> Address {
        self.at
    }

    /// Where the account's money goes.
    pub async fn payee(&self, account: Address) -> Result<Payee, Refusal> {
        self.hub.read(self.at, WorkerHub::payeeCall { account }).await
    }

    /// Names the sender's payout address, once.
    pub fn set(&self, payout: Address) -> Call {
        self.call(WorkerHub::setPayoutCall { payout })
    }

    /// Changes it; the sender is the present payout address.
    pub fn change(&self, account: Address, payout: Address) -> Call {
        self.call(WorkerHub::changePayoutCall { account, payout })
    }

    /// Brings a signed change; anyone may.
    pub fn relay(&self, change: &ChangePayout, signature: Bytes) -> Call {
        self.call(WorkerHub::changePayoutSignedCall {
            account: change.account,
            payout: change.payout,
            deadline: change.deadline,
            signature,
        })
    }

    /// Calls back the account's stake; the sender is its payout address.
    pub fn recall(&self, account: Address) -> Call {
        self.call(WorkerHub::recallCall { account })
    }

    /// Fetches what the account could withdraw; the sender is its payout address.
    pub fn withdraw_for(&self, account: Address) -> Call {
        self.call(WorkerHub::withdrawForCall { account })
    }

    fn call(&self, call: impl SolCall) -> Call {
        Call {
            to: TxKind::Call(self.at),
            data: call.abi_encode().into(),
            value: U256::ZERO,
        }
    }
}
