//! `wallet ...`: what is done and printed.

use alloy::signers::local::PrivateKeySigner;

use crate::{cli::WalletCommand, datadir::DataDir, exit::Failure, wallet};

/// Runs the command.
pub(super) fn run(data: &DataDir, command: &WalletCommand) -> Result<(), Failure> {
    match command {
        WalletCommand::New { name, password_file } => {
            let signer = PrivateKeySigner::random_with(&mut rand::rngs::OsRng);
            let password = wallet::password(password_file.as_deref(), true)?;
            let path = wallet::store(data, name, &signer, &password)?;
            println!("{}  {}", signer.address(), path.display());
        }
        WalletCommand::Import {
            name,
            key_file,
            password_file,
        } => {
            let text = match key_file {
                Some(path) => std::fs::read_to_string(path).map_err(|e| Failure::Keystore {
                    path: path.clone(),
                    why: e.to_string(),
                })?,
                None => rpassword::prompt_password("Private key (hex): ").map_err(|e| {
                    Failure::Usage(format!("no terminal to ask for a key ({e}); use --key-file FILE"))
                })?,
            };
            let signer = wallet::parse_key(&text)?;
            let password = wallet::password(password_file.as_deref(), true)?;
            let path = wallet::store(data, name, &signer, &password)?;
            println!("{}  {}", signer.address(), path.display());
        }
        WalletCommand::Show { json } => {
            let keys = wallet::list(data)?;
            if *json {
                println!("{}", serde_json::json!(keys));
            } else if keys.is_empty() {
                println!(
                    "no keys in {}; make one: bitai-miner wallet new",
                    data.keys().display()
                );
            }
            for key in keys.iter().filter(|_| !*json) {
                println!("{:<16} {}  {}", key.name, key.address, key.path.display());
            }
        }
    }
    Ok(())
}
