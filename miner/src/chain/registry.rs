//! The registry of models as the miner uses it: its lines, its bond, and registering.

use alloy::rpc::types::{Filter, Log};
use alloy::sol_types::SolCall;
use alloy_primitives::{Address, B256, TxKind, U256};
use bitai_contracts::{Model, ModelKey, ModelRegistry};
use bitai_types::ModelShape;

use super::{
    hub::{Hub, is_error},
    node::Refusal,
    send::Call,
};
use crate::exit::Failure;

/// Longest URI of a registration in bytes, as the registry has it.
pub const URI_BYTES_MAX: usize = 256;

impl Hub {
    /// The registry's address, or what to do where none is known.
    pub fn registry(&self) -> Result<Address, Failure> {
        self.registry.ok_or_else(|| {
            Failure::Usage(
                "no registry address: name it with --registry (a devnet prints it), BITAI_REGISTRY or config.toml".into(),
            )
        })
    }

    /// Wei that a registration must carry.
    pub async fn bond(&self, registry: Address) -> Result<U256, Refusal> {
        self.read(registry, ModelRegistry::BONDCall {}).await
    }

    /// The registry's line about a model, or `None` where it is not registered.
    pub async fn model(&self, model: &ModelKey) -> Result<Option<Model>, Refusal> {
        self.model_by_id(model.id()).await
    }

    /// The registry's line of this id, or `None` where there is none.
    pub async fn model_by_id(&self, model_id: B256) -> Result<Option<Model>, Refusal> {
        let Some(registry) = self.registry else {
            return Ok(None);
        };
        match self
            .read(registry, ModelRegistry::modelCall { modelId: model_id })
            .await
        {
            Ok(model) => Ok(Some(model)),
            Err(Refusal::Said { data: Some(data), .. }) if is_error::<ModelRegistry::UnknownModel>(&data) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Everything that was ever registered for a pack's root, whatever the numbers; newest last.
    pub async fn registrations(&self, model_root: B256) -> Result<Vec<ModelKey>, Refusal> {
        use alloy::sol_types::SolEvent;
        let Some(registry) = self.registry else {
            return Ok(Vec::new());
        };
        let filter = Filter::new()
            .address(registry)
            .event_signature(ModelRegistry::ModelRegistered::SIGNATURE_HASH)
            .topic2(model_root);
        let tip = self.node().height().await?;
        let read = |log: &Log| {
            let event = log
                .log_decode::<ModelRegistry::ModelRegistered>()
                .ok()?
                .inner
                .data;
            Some(ModelKey {
                model_root: event.modelRoot,
                spec_version: event.specVersion,
                shape: ModelShape {
                    vocab: event.vocab,
                    context: event.context,
                    words: event.words,
                },
            })
        };
        Ok(self
            .events(filter, 0, tip)
            .await?
            .iter()
            .filter_map(read)
            .collect())
    }
}

/// Registers a pack with its numbers at `registry` for `bond` wei; `uri` says where it can be had.
pub fn register(registry: Address, model: &ModelKey, uri: &str, source_hash: B256, bond: U256) -> Call {
    let call = ModelRegistry::registerCall {
        modelRoot: model.model_root,
        specVersion: model.spec_version,
        vocab: model.shape.vocab,
        context: model.shape.context,
        words: model.shape.words,
        uri: uri.to_owned(),
        sourceHash: source_hash,
    };
    Call {
        to: TxKind::Call(registry),
        data: call.abi_encode().into(),
        value: bond,
    }
}
