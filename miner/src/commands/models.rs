//! `models ...`: what is done and printed, but for `register`, which needs the chain.

mod list;

use crate::{cli::ModelsCommand, config::Layers, datadir::DataDir, exit::Failure, fetch, models};

/// Runs the command.
pub(super) async fn run(data: &DataDir, layers: &Layers, command: &ModelsCommand) -> Result<(), Failure> {
    match command {
        ModelsCommand::Import {
            file,
            profile,
            name,
            force,
            threads,
        } => {
            let model = models::import(data, file, *profile, name.clone(), *force, *threads)?;
            print_model(&model);
        }
        ModelsCommand::Pull(args) => print_model(&fetch::pull(data, layers, args).await?),
        ModelsCommand::List { json, chain } => return list::run(data, layers, chain, *json).await,
        ModelsCommand::Verify { name } => {
            let (model, _pack) = models::open(data, Some(name))?;
            println!("{} matches its root {:#x}", model.name, model.model_root);
        }
        ModelsCommand::Remove { name, yes } => {
            // Unknown names first: nobody wants to confirm those.
            models::file(data, name)?;
            if !yes {
                let what = "Answers that are not yet final cannot be defended without the model.";
                super::confirm(name, what)?;
            }
            println!("removed      {}", models::remove(data, name)?.display());
        }
        // It needs the chain: `run` has seen to it.
        ModelsCommand::Register(_) => {}
        ModelsCommand::Show { name, json } => {
            let (model, _pack) = models::open(data, Some(name))?;
            if *json {
                println!("{}", serde_json::json!(model));
            } else {
                print_model(&model);
                println!("bytes        all match the root");
            }
        }
    }
    Ok(())
}

fn print_model(model: &models::Listed) {
    println!("name         {}", model.name);
    println!("model root   {:#x}", model.model_root);
    println!("model        {} ({})", model.title, model.architecture);
    println!("profile      {:?}", model.profile);
    println!(
        "layers       {}, vocabulary {}, context {}",
        model.layers, model.shape.vocab, model.shape.context
    );
    if model.shape.embeds() {
        println!("words        {}: it embeds", model.shape.words);
    }
    println!("size         {} MiB", model.bytes >> 20);
    println!("source       BLAKE3 {:#x}", model.source_hash);
    println!("file         {}", model.path.display());
}
