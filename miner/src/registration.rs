//! A pack's lines in the registry: whether one is true of it, what a false one says, and adding the right one.

use std::sync::Arc;

use alloy_primitives::U256;
use bitai_contracts::{Model, ModelKey};
use bitai_types::{ModelShape, job::OUTPUTS_MAX};

use crate::{
    chain::{
        Hub, Refusal, Sender,
        registry::{URI_BYTES_MAX, register},
    },
    cli::RegisterArgs,
    config::Layers,
    datadir::DataDir,
    engine,
    exit::Failure,
    models::{self, Listed},
    stake, wallet,
};

/// Why a pack with these numbers cannot be served on this chain; `None` where it can.
pub async fn unlisted(hub: &Hub, model: &ModelKey) -> Result<Option<String>, Failure> {
    let fail = |e: crate::chain::Refusal| e.into_failure("reading the model registry");
    if let Some(line) = hub.model(model).await.map_err(fail)? {
        return Ok(refusal(model, &line));
    }
    let others = hub.registrations(model.model_root).await.map_err(fail)?;
    Ok(Some(match others.last() {
        None => "the chain does not list it; register it".to_owned(),
        Some(other) => format!(
            "the chain lists this pack only with false numbers: {}. Register it with the pack's own",
            differences(model, other).join(", ")
        ),
    }))
}

/// What in a registry line keeps a pack from being served. The id already binds the numbers; that they are
/// compared once more costs nothing and would show a registry that makes its ids another way.
fn refusal(model: &ModelKey, line: &Model) -> Option<String> {
    let listed = ModelKey {
        model_root: line.modelRoot,
        spec_version: line.specVersion,
        shape: ModelShape {
            vocab: line.vocab,
            context: line.context,
            words: line.words,
        },
    };
    let differs = differences(model, &listed);
    if !differs.is_empty() {
        return Some(format!("the registry's line differs: {}", differs.join(", ")));
    }
    (line.retiredAt != 0).then(|| {
        format!(
            "retired by {} at height {}; whoever wants it served may register it again",
            line.owner, line.retiredAt
        )
    })
}

/// The fields in which a registration differs from a pack, in words.
pub fn differences(pack: &ModelKey, listed: &ModelKey) -> Vec<String> {
    let mut words = Vec::new();
    if pack.model_root != listed.model_root {
        words.push(format!(
            "root {:#x}, the pack has {:#x}",
            listed.model_root, pack.model_root
        ));
    }
    let (theirs, mine) = (listed.shape, pack.shape);
    for (field, theirs, mine) in [
        ("spec version", listed.spec_version, pack.spec_version),
        ("vocabulary", theirs.vocab, mine.vocab),
        ("context", theirs.context, mine.context),
        ("words", theirs.words, mine.words),
    ] {
        if theirs != mine {
            words.push(format!("{field} {theirs}, the pack has {mine}"));
        }
    }
    words
}

/// Refuses a URI that the registry would refuse.
fn check_uri(uri: &str) -> Result<(), Failure> {
    match uri.len() {
        1..=URI_BYTES_MAX => Ok(()),
        length => Err(Failure::Usage(format!(
            "--uri has {length} bytes, it must have 1 to {URI_BYTES_MAX}; put a longer address behind a short one"
        ))),
    }
}

fn print(model: &Listed, uri: &str) {
    println!("model        {} ({})", model.name, model.title);
    println!("model id     {}", model.key().id());
    println!("model root   {:#x}", model.model_root);
    println!("spec         {}", model.spec_version);
    println!("vocabulary   {}", model.shape.vocab);
    println!("context      {}", model.shape.context);
    match model.shape.words {
        0 => println!("words        0: it generates"),
        words => println!("words        {words}: it embeds"),
    }
    println!("source       BLAKE3 {:#x}", model.source_hash);
    println!("uri          {uri}");
}

/// Runs `models register`.
pub async fn run(data: &DataDir, layers: &Layers, args: &RegisterArgs) -> Result<(), Failure> {
    check_uri(&args.uri)?;
    let (model, pack) = models::open_at(data, &args.pack)?;
    engine::runs(&pack)?;
    if model.shape.words > OUTPUTS_MAX {
        return Err(Failure::ModelFile {
            path: model.path,
            why: format!(
                "it puts out {} words; one transaction reveals at most {OUTPUTS_MAX}, so no job for it could be answered",
                model.shape.words
            ),
        });
    }
    print(&model, &args.uri);
    if args.dry_run {
        println!("nothing was sent (--dry-run)");
        return Ok(());
    }
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let registry = hub.registry()?;
    let reading = |e: Refusal| e.into_failure("reading the model registry");
    let listed = hub.model(&model.key()).await.map_err(reading)?;
    if let Some(line) = listed.filter(|line| line.retiredAt == 0) {
        println!(
            "registered already by {} at height {}, uri {}",
            line.owner, line.registeredAt, line.uri
        );
        return Ok(());
    }
    let signer = wallet::open_on(
        data,
        &layers.key(&args.key, &args.chain, false),
        hub.node().chain_id(),
    )?;
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let bond: U256 = hub.bond(registry).await.map_err(reading)?;
    stake::check_balance(&hub, sender.address(), bond).await?;
    let call = register(registry, &model.key(), &args.uri, model.source_hash, bond);
    let spinner = crate::progress::spinner("waiting for a Bitcoin block");
    let sent = sender
        .execute(&call, "registering the model", stake::INCLUSION_TIMEOUT)
        .await;
    spinner.finish_and_clear();
    let receipt = sent?;
    println!("bond         {bond} wei of {}", sender.address());
    println!("registered   transaction {:#x}", receipt.transaction_hash);
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256};

    use super::*;

    fn pack() -> ModelKey {
        ModelKey {
            model_root: B256::repeat_byte(1),
            spec_version: 0,
            shape: ModelShape {
                vocab: 512,
                context: 256,
                words: 0,
            },
        }
    }

    fn line(model: &ModelKey) -> Model {
        Model {
            modelRoot: model.model_root,
            owner: Address::repeat_byte(7),
            registeredAt: 1,
            retiredAt: 0,
            specVersion: model.spec_version,
            vocab: model.shape.vocab,
            context: model.shape.context,
            words: model.shape.words,
            bond: U256::ONE,
            sourceHash: B256::ZERO,
            uri: "u".into(),
        }
    }

    #[test]
    fn names_every_field_in_which_the_registry_differs_from_the_pack() {
        assert_eq!(refusal(&pack(), &line(&pack())), None);
        let false_numbers = ModelKey {
            spec_version: 3,
            shape: ModelShape {
                vocab: 7,
                context: 9,
                words: 4,
            },
            ..pack()
        };
        let why = refusal(&pack(), &line(&false_numbers)).unwrap();
        for words in [
            "spec version 3, the pack has 0",
            "vocabulary 7, the pack has 512",
            "context 9, the pack has 256",
            "words 4, the pack has 0",
        ] {
            assert!(why.contains(words), "{why}");
        }
        let mut other = line(&pack());
        other.modelRoot = B256::repeat_byte(2);
        assert!(refusal(&pack(), &other).unwrap().contains("root 0x0202"));
        let mut retired = line(&pack());
        retired.retiredAt = 44;
        assert!(refusal(&pack(), &retired).unwrap().contains("height 44"));
    }
}
