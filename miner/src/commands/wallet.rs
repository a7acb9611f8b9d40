//! `wallet ...`: what is done and printed.

use std::path::Path;

use alloy::signers::local::PrivateKeySigner;

use crate::{
    cli::{ExportArgs, WalletCommand},
    config::Layers,
    datadir::{DataDir, write_atomic},
    exit::Failure,
    payout, published, wallet,
};

/// Runs the command.
pub(super) async fn run(data: &DataDir, layers: &Layers, command: &WalletCommand) -> Result<(), Failure> {
    match command {
        WalletCommand::Payout(args) => payout::run(data, layers, args).await,
        WalletCommand::New { name, password_file } => {
            let signer = PrivateKeySigner::random_with(&mut rand::rngs::OsRng);
            store(data, name, &signer, password_file.as_deref())
        }
        WalletCommand::Import {
            name,
            key_file,
            password_file,
        } => {
            wallet::check_new_name(data, name)?;
            let text = match key_file {
                Some(path) => {
                    if let Some(why) = wallet::readable_by_others(path) {
                        eprintln!("bitai-miner: {why}");
                    }
                    std::fs::read_to_string(path).map_err(|e| Failure::Keystore {
                        path: path.clone(),
                        why: e.to_string(),
                    })?
                }
                None => rpassword::prompt_password("Private key (hex): ").map_err(|e| {
                    Failure::Usage(format!("no terminal to ask for a key ({e}); use --key-file FILE"))
                })?,
            };
            let signer = wallet::parse_key(&text)?;
            if published::is_published(signer.address()) {
                eprintln!(
                    "bitai-miner: everyone knows the key of {}: it counts on a regtest devnet alone",
                    signer.address()
                );
            }
            store(data, name, &signer, password_file.as_deref())
        }
        WalletCommand::Show { json } => show(data, *json),
        WalletCommand::Export(args) => export(data, args),
    }
}

fn store(
    data: &DataDir,
    name: &str,
    signer: &PrivateKeySigner,
    password_file: Option<&Path>,
) -> Result<(), Failure> {
    let password = wallet::password(password_file, true)?;
    let path = wallet::store(data, name, signer, &password)?;
    println!("{}  {}", signer.address(), path.display());
    Ok(())
}

fn show(data: &DataDir, json: bool) -> Result<(), Failure> {
    let keys = wallet::list(data)?;
    if json {
        println!("{}", serde_json::json!(keys));
    } else if keys.is_empty() {
        println!(
            "no keys in {}; make one: bitai-miner wallet new",
            data.keys().display()
        );
    }
    for key in keys.iter().filter(|_| !json) {
        println!("{:<16} {}  {}", key.name, key.address, key.path.display());
    }
    Ok(())
}

/// Writes the bare key where the owner has said so twice.
fn export(data: &DataDir, args: &ExportArgs) -> Result<(), Failure> {
    let path = wallet::key_path(data, &args.name);
    let address = wallet::address(&path)?;
    if let Some(out) = &args.out
        && out.exists()
    {
        return Err(Failure::Usage(format!(
            "{} is there already; name another file",
            out.display()
        )));
    }
    if !args.yes {
        super::confirm(
            &args.name,
            &format!("Whoever has the bare key of {address} has its coins and its stake."),
        )?;
    }
    let password = wallet::password(args.password_file.as_deref(), false)?;
    let signer = wallet::unlock(&path, &password)?;
    let line = format!("{}\n", hex::encode(signer.to_bytes()));
    match &args.out {
        Some(out) => {
            write_atomic(out, line.as_bytes(), 0o600)?;
            println!("{address}  {}", out.display());
        }
        None => print!("{line}"),
    }
    Ok(())
}
