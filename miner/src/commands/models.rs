//! `models ...`: what is done and printed, but for `register`, which needs the chain.

use crate::{cli::ModelsCommand, datadir::DataDir, exit::Failure, models};

/// Runs the command.
pub(super) fn run(data: &DataDir, command: &ModelsCommand) -> Result<(), Failure> {
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
        ModelsCommand::List { json } => {
            let mut damaged = None;
            let mut found = Vec::new();
            for model in models::list(data)? {
                match model {
                    Ok(model) => found.push(model),
                    Err(e) => {
                        eprintln!("bitai-miner: {e}");
                        damaged = Some(e);
                    }
                }
            }
            if *json {
                println!("{}", serde_json::json!(found));
            } else if found.is_empty() {
                println!(
                    "no models in {}; import one: bitai-miner models import FILE",
                    data.models().display()
                );
            } else {
                for model in &found {
                    println!(
                        "{:<28} {}  {} layers  {} MiB  {:?}",
                        model.name,
                        crate::exit::short(&model.model_root),
                        model.layers,
                        model.bytes >> 20,
                        model.profile
                    );
                }
            }
            return damaged.map_or(Ok(()), Err);
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
