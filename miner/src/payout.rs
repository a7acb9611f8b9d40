//! `wallet payout`: the address that a key's money goes to, which the key itself cannot change (ADR 69).

use std::{io::IsTerminal, path::Path, sync::Arc};

use alloy::signers::{Signature, SignerSync, local::PrivateKeySigner};
use alloy_primitives::{Address, Bytes, U256};
use bitai_contracts::{ChangePayout, Payee, change_digest};
use serde::{Deserialize, Serialize};

use crate::{
    chain::{Attestations, Hub, Refusal, Sender, payouts::Payouts, send::Call},
    cli::PayoutArgs,
    config::Layers,
    datadir::{DataDir, write_atomic},
    exit::Failure,
    stake::INCLUSION_TIMEOUT,
    wallet,
};

/// Heights for which a signed change is proposed to count: a week of Bitcoin blocks.
const WEEK: u64 = 1008;
/// Longest file of a signed change, in bytes.
const FILE_MAX: u64 = 4096;

/// A change that a payout address signed, as it lies in a file. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedChange {
    /// The chain.
    pub chain_id: u64,
    /// The contract that pays.
    pub contract: Address,
    /// Whose money it is.
    pub account: Address,
    /// Where it goes.
    pub payout: Address,
    /// Changes before this one.
    pub nonce: u64,
    /// Last height at which it counts.
    pub until: u64,
    /// r, s, v.
    pub signature: Bytes,
}

impl SignedChange {
    /// Signs a change.
    pub fn sign(
        signer: &PrivateKeySigner,
        chain_id: u64,
        contract: Address,
        change: &ChangePayout,
    ) -> Result<Self, Failure> {
        let number = |what: &str, n: U256| {
            u64::try_from(n).map_err(|_| Failure::Usage(format!("{what} {n} is above 2^64 - 1")))
        };
        let signature = signer
            .sign_hash_sync(&change_digest(chain_id, contract, change))
            .map_err(|e| Failure::Internal(anyhow::anyhow!("signing: {e}")))?;
        Ok(Self {
            chain_id,
            contract,
            account: change.account,
            payout: change.payout,
            nonce: number("nonce", change.nonce)?,
            until: number("height", change.deadline)?,
            signature: Bytes::copy_from_slice(&signature.as_bytes()),
        })
    }

    /// What was signed.
    pub fn change(&self) -> ChangePayout {
        ChangePayout {
            account: self.account,
            payout: self.payout,
            nonce: U256::from(self.nonce),
            deadline: U256::from(self.until),
        }
    }

    /// Who signed it, as the contract will see it.
    pub fn signer(&self) -> Result<Address, Failure> {
        let digest = change_digest(self.chain_id, self.contract, &self.change());
        Signature::from_raw(&self.signature)
            .and_then(|s| s.recover_address_from_prehash(&digest))
            .map_err(|e| Failure::Usage(format!("the signature of the change is none: {e}")))
    }

    /// Reads one from a file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let size = std::fs::metadata(path).map_err(|e| Failure::disk(path, e))?.len();
        if size > FILE_MAX {
            return Err(Failure::Usage(format!(
                "{}: {size} bytes are no signed change",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Failure::disk(path, e))?;
        serde_json::from_str(&text)
            .map_err(|e| Failure::Usage(format!("{}: not a signed change: {e}", path.display())))
    }

    /// Refuses what the contract would refuse, with the mend.
    pub fn check(&self, chain_id: u64, contract: Address, payee: &Payee, height: u64) -> Result<(), Failure> {
        let no = |why: String| Err(Failure::Usage(format!("the signed change does not count: {why}")));
        if self.chain_id != chain_id {
            return no(format!(
                "it is for chain {}, the node's is {chain_id}",
                self.chain_id
            ));
        }
        if self.contract != contract {
            return no(format!(
                "it is for the contract {}, this is {contract} (a validator's: --validator)",
                self.contract
            ));
        }
        if self.nonce != payee.nonce {
            return no(format!(
                "it follows change {}, the account is at {}; sign again",
                self.nonce, payee.nonce
            ));
        }
        if height >= self.until {
            return no(format!(
                "it counts up to height {}, the chain is at {height}",
                self.until
            ));
        }
        let signer = self.signer()?;
        if signer != payee.payout {
            return no(format!(
                "{signer} signed it, the payout address is {}; sign with that one's key",
                payee.payout
            ));
        }
        Ok(())
    }
}

fn fail(e: Refusal) -> Failure {
    e.into_failure("reading the payout address")
}

/// Runs the command.
pub async fn run(data: &DataDir, layers: &Layers, args: &PayoutArgs) -> Result<(), Failure> {
    let key = layers.key(&args.key, &args.chain, false);
    if let Some(path) = &args.sign {
        let signer = wallet::open(data, &key)?;
        return sign(path, layers, args, &signer);
    }
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let at = if args.validator {
        let at = Attestations::of(&hub).await.map_err(fail)?.ok_or_else(|| {
            Failure::Usage("this hub has no attestations: its treasury is no contract of validators".into())
        })?;
        Payouts::of(&hub, at.address())
    } else {
        Payouts::of_hub(&hub)
    };
    let height = hub.node().height().await.map_err(fail)?;
    let chain_id = hub.node().chain_id();
    let relayed = args.relay.as_deref().map(SignedChange::read).transpose()?;
    let account = match (&relayed, args.account) {
        (Some(change), _) => change.account,
        (None, Some(account)) => account,
        (None, None) => wallet::address(&wallet::choose(data, &key)?)?,
    };
    let payee = at.payee(account).await.map_err(fail)?;
    let (what, call): (&str, Call) = if let Some(change) = &relayed {
        change.check(chain_id, at.address(), &payee, height)?;
        (
            "changing the payout address",
            at.relay(&change.change(), change.signature.clone()),
        )
    } else if args.recall {
        ("calling back the stake", at.recall(account))
    } else if args.withdraw {
        ("withdrawing", at.withdraw_for(account))
    } else if let Some(address) = args.address {
        if payee.payout.is_zero() {
            confirm(account, address, args.yes)?;
            ("setting the payout address", at.set(address))
        } else {
            ("changing the payout address", at.change(account, address))
        }
    } else {
        show(&Shown::of(account, &at, &payee, chain_id, height), args.json);
        return Ok(());
    };
    let signer = wallet::open(data, &key)?;
    may_send(signer.address(), account, &payee, args)?;
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let spinner = crate::progress::spinner("waiting for a Bitcoin block");
    let sent = sender.execute(&call, what, INCLUSION_TIMEOUT).await;
    spinner.finish_and_clear();
    sent?;
    let payee = at.payee(account).await.map_err(fail)?;
    show(&Shown::of(account, &at, &payee, chain_id, height), args.json);
    Ok(())
}

/// Refuses a key that the contract would refuse, before it costs anything.
fn may_send(me: Address, account: Address, payee: &Payee, args: &PayoutArgs) -> Result<(), Failure> {
    if args.relay.is_some() {
        return Ok(());
    }
    let unset = payee.payout.is_zero();
    let wanted = if unset { account } else { payee.payout };
    if unset && (args.recall || args.withdraw) {
        return Err(Failure::Usage(format!(
            "{account} has no payout address that could do that"
        )));
    }
    if me == wanted {
        return Ok(());
    }
    Err(Failure::Usage(if unset {
        format!("only {account} itself sets its payout address first; this key is {me}'s")
    } else {
        format!(
            "the payout address of {account} is {wanted}, which alone changes it: use its key (this is {me}'s), or have it sign \
             and send that: wallet payout --relay FILE"
        )
    }))
}

/// Asks before what only another key can undo.
fn confirm(account: Address, payout: Address, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let warning = format!(
        "all money of {account} will go to {payout}; only {payout} can change that, and nobody can where its key is lost"
    );
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{warning}. If that is meant: --yes")));
    }
    println!("{warning}.");
    print!("Type yes: ");
    std::io::Write::flush(&mut std::io::stdout()).map_err(|e| Failure::disk("standard output", e))?;
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|e| Failure::disk("standard input", e))?;
    if line.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::Usage("not confirmed; nothing was sent".into()))
    }
}

/// Signs without a node and writes the file.
fn sign(path: &Path, layers: &Layers, args: &PayoutArgs, signer: &PrivateKeySigner) -> Result<(), Failure> {
    let chain_id = layers.chain(&args.chain).chain_id.ok_or_else(|| {
        Failure::Usage("--sign needs --chain-id: the change counts on that chain alone".into())
    })?;
    // clap has seen to it that all of them are there.
    let (Some(account), Some(payout), Some(contract), Some(nonce), Some(until)) =
        (args.account, args.address, args.contract, args.nonce, args.until)
    else {
        return Err(Failure::Usage(
            "--sign needs ADDRESS, --account, --contract, --nonce and --until".into(),
        ));
    };
    let change = ChangePayout {
        account,
        payout,
        nonce: U256::from(nonce),
        deadline: U256::from(until),
    };
    let signed = SignedChange::sign(signer, chain_id, contract, &change)?;
    let text = serde_json::to_string_pretty(&signed).map_err(|e| Failure::Internal(e.into()))?;
    write_atomic(path, text.as_bytes(), 0o644)?;
    println!(
        "{} signs that the money of {account} goes to {payout}, at {contract} on chain {chain_id}, up to height {until}",
        signer.address()
    );
    println!("send it: bitai-miner wallet payout --relay {}", path.display());
    Ok(())
}

/// What `wallet payout` shows.
#[derive(Debug, Serialize)]
struct Shown {
    account: Address,
    contract: Address,
    /// `None` where the money goes to the account itself.
    payout: Option<Address>,
    nonce: u64,
    called_back: bool,
    chain_id: u64,
    height: u64,
}

impl Shown {
    fn of(account: Address, at: &Payouts, payee: &Payee, chain_id: u64, height: u64) -> Self {
        Self {
            account,
            contract: at.address(),
            payout: (!payee.payout.is_zero()).then_some(payee.payout),
            nonce: payee.nonce,
            called_back: payee.recalled,
            chain_id,
            height,
        }
    }
}

fn show(s: &Shown, json: bool) {
    if json {
        println!("{}", serde_json::json!(s));
        return;
    }
    println!("account   {}", s.account);
    println!("contract  {}", s.contract);
    match s.payout {
        None => println!(
            "payout    itself: whoever has this key has the money. bitai-miner wallet payout ADDRESS"
        ),
        Some(payout) => {
            println!("payout    {payout}, after {} changes", s.nonce);
            println!(
                "change it with that key, without a node: bitai-miner wallet payout NEW --sign FILE --account {} --contract {} \
                 --nonce {} --until {} --chain-id {}",
                s.account,
                s.contract,
                s.nonce,
                s.height + WEEK,
                s.chain_id
            );
        }
    }
    if s.called_back {
        println!("the stake was called back: this account takes part no more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::address;
    use proptest::prelude::*;

    const AT: Address = address!("00000000000000000000000000000000000000aa");

    fn signed(key: &PrivateKeySigner) -> SignedChange {
        let change = ChangePayout {
            account: Address::repeat_byte(1),
            payout: Address::repeat_byte(2),
            nonce: U256::from(1),
            deadline: U256::from(200),
        };
        SignedChange::sign(key, 22216, AT, &change).unwrap()
    }

    fn payee(payout: Address) -> Payee {
        Payee {
            payout,
            nonce: 1,
            recalled: false,
        }
    }

    #[test]
    fn a_change_survives_its_file_and_counts() {
        let key = PrivateKeySigner::random_with(&mut rand::rngs::OsRng);
        let change = signed(&key);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("change.json");
        std::fs::write(&path, serde_json::to_string(&change).unwrap()).unwrap();
        let read = SignedChange::read(&path).unwrap();
        assert_eq!(read, change);
        assert_eq!(read.signer().unwrap(), key.address());
        read.check(22216, AT, &payee(key.address()), 199).unwrap();
    }

    #[test]
    fn rejects_a_change_for_elsewhere_or_of_somebody_else() {
        let key = PrivateKeySigner::random_with(&mut rand::rngs::OsRng);
        let change = signed(&key);
        let ours = payee(key.address());
        let why = |r: Result<(), Failure>| r.unwrap_err().to_string();
        assert!(why(change.check(1, AT, &ours, 100)).contains("for chain 22216"));
        assert!(why(change.check(22216, Address::ZERO, &ours, 100)).contains("for the contract"));
        assert!(why(change.check(22216, AT, &ours, 200)).contains("up to height 200"));
        let later = Payee {
            nonce: 2,
            ..ours.clone()
        };
        assert!(why(change.check(22216, AT, &later, 100)).contains("sign again"));
        assert!(why(change.check(22216, AT, &payee(AT), 100)).contains("signed it"));
        let mut other = change.clone();
        other.payout = AT;
        assert!(why(other.check(22216, AT, &ours, 100)).contains("signed it"));
        other.signature = Bytes::from(vec![1, 2, 3]);
        assert!(why(other.check(22216, AT, &ours, 100)).contains("is none"));
    }

    #[test]
    fn rejects_keys_that_the_contract_would_refuse() {
        use clap::Parser;
        let typed = |more: &[&str]| {
            let mut all = vec!["bitai-miner", "wallet", "payout"];
            all.extend(more);
            match crate::cli::Cli::try_parse_from(all).unwrap().command {
                Some(crate::cli::Command::Wallet(crate::cli::WalletCommand::Payout(args))) => args,
                other => panic!("{other:?}"),
            }
        };
        let (hot, cold) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let to = cold.to_string();
        let set = typed(&[&to]);
        may_send(hot, hot, &payee(Address::ZERO), &set).unwrap();
        may_send(cold, hot, &payee(Address::ZERO), &set).unwrap_err();
        may_send(hot, hot, &payee(cold), &set).unwrap_err();
        may_send(cold, hot, &payee(cold), &set).unwrap();
        let account = hot.to_string();
        let recall = typed(&["--recall", "--account", &account]);
        may_send(hot, hot, &payee(cold), &recall).unwrap_err();
        may_send(cold, hot, &payee(cold), &recall).unwrap();
        may_send(hot, hot, &payee(Address::ZERO), &recall).unwrap_err();
        may_send(AT, hot, &payee(cold), &typed(&["--relay", "f"])).unwrap();
    }

    proptest! {
        #[test]
        fn any_file_reads_or_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), signature in proptest::collection::vec(any::<u8>(), 0..80)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, &bytes).unwrap();
            let _ = SignedChange::read(&path);
            let key = PrivateKeySigner::from_bytes(&alloy_primitives::B256::repeat_byte(7)).unwrap();
            let mut change = signed(&key);
            change.signature = signature.into();
            let _ = change.signer();
        }
    }
}
