//! What the devnet says when it is ready: accounts, keys, addresses, and lines to copy.

use bitai_miner::{Failure, models::Listed};

use crate::{
    Devnet,
    accounts::{self, in_coins},
};

/// Prints the banner; `program` is how the miner is called here.
pub async fn print(devnet: &Devnet, program: &str) -> Result<(), Failure> {
    let status = devnet
        .hub
        .node()
        .status()
        .await
        .map_err(|e| e.into_failure("bitai_status"))?;
    let data = devnet.data.root().display();
    println!("BitAI devnet");
    println!();
    println!(
        "JSON-RPC    {}  chain id {}  Bitcoin {} (inside)",
        devnet.url, status.chain_id, status.network
    );
    println!(
        "heights     BitAI {}, Bitcoin {}",
        status.height, status.bitcoin_height
    );
    println!("registry    {}", devnet.contracts.registry);
    println!("hub         {}", devnet.contracts.hub);
    println!("verifier    {}", devnet.contracts.verifier);
    for model in &devnet.models {
        println!("model       {} {:#x}", model.name, model.model_root);
    }
    println!("data        {data}");
    println!();
    println!("Accounts. These keys are PUBLISHED: for devnets only, never send them anything of worth.");
    for account in accounts::all() {
        let wei = devnet
            .hub
            .node()
            .balance(account.address())
            .await
            .map_err(|e| e.into_failure("eth_getBalance"))?;
        println!(
            "  {:<10} {}  {} coins",
            account.name,
            account.address(),
            in_coins(wei)
        );
        println!("             key {:#x}", account.key());
    }
    let alice = accounts::Account::named("alice");
    let bob = accounts::Account::named("bob");
    println!();
    println!("Try, in another terminal:");
    // Named where there is a choice.
    let named = |model: &Listed| match devnet.models.len() {
        1 => String::new(),
        _ => format!(" --model {}", model.name),
    };
    if let Ok(model) = devnet.model_that(false) {
        println!(
            "  {program} --data-dir {data} ask \"What is the sea?\"{}",
            named(model)
        );
    }
    if let Ok(model) = devnet.model_that(true) {
        println!(
            "  {program} --data-dir {data} ask --embed \"The sea is deep.\"{}",
            named(model)
        );
    }
    println!("  {program} --data-dir {data} verify 1");
    println!(
        "  {program} --data-dir {data} status --address {}",
        accounts::Account::named("neuron").address()
    );
    println!("  cast chain-id --rpc-url {}", devnet.url);
    println!("  cast balance {} --rpc-url {}", alice.address(), devnet.url);
    println!(
        "  cast send {} --value 1ether --private-key {:#x} --rpc-url {}",
        bob.address(),
        alice.key(),
        devnet.url
    );
    println!(
        "  cast call {} \"jobsCount()(uint256)\" --rpc-url {}",
        devnet.contracts.hub, devnet.url
    );
    println!();
    Ok(())
}
