//! The families that are imported, and what the others need that the tensor spec does not have.

use super::{Description, Fields, gemma3, llama, mistral, qwen2, qwen3};
use crate::import::ImportError;

/// A family of models.
pub(crate) struct Family {
    /// Its name: GGUF's `general.architecture`.
    pub(crate) name: &'static str,
    /// Reads and checks a file's fields.
    pub(crate) describe: fn(&Fields) -> Result<Description, ImportError>,
}

/// All families, by name.
const FAMILIES: [Family; 5] = [
    Family {
        name: "gemma3",
        describe: gemma3::describe,
    },
    Family {
        name: "llama",
        describe: llama::describe,
    },
    Family {
        name: "mistral",
        describe: mistral::describe,
    },
    Family {
        name: "qwen2",
        describe: qwen2::describe,
    },
    Family {
        name: "qwen3",
        describe: qwen3::describe,
    },
];

/// Well-known families that are not imported, and what they would need.
const MISSING: [(&[&str], &str); 9] = [
    (
        &[
            "mixtral",
            "qwen2moe",
            "qwen3moe",
            "olmoe",
            "dbrx",
            "grok",
            "granitemoe",
            "llama4",
            "ernie4_5-moe",
        ],
        "a mixture of experts (a router and gathered expert weights)",
    ),
    (
        &["deepseek2", "minicpm3", "kimi-k2"],
        "multi-head latent attention (an opaque cached row)",
    ),
    (&["gpt-oss"], "attention sinks and a mixture of experts"),
    (&["gemma2"], "tanh soft-caps on scores and logits"),
    (
        &[
            "phi2", "phi3", "gptneox", "stablelm", "chatglm", "glm4", "nemotron",
        ],
        "partial RoPE or fused projections",
    ),
    (
        &[
            "mamba",
            "mamba2",
            "rwkv6",
            "rwkv7",
            "jamba",
            "falcon-h1",
            "lfm2",
            "qwen3next",
        ],
        "linear recurrences",
    ),
    (
        &["gpt2", "starcoder", "bloom", "mpt", "falcon", "gptj"],
        "layer norms with biases, ungated units or learned positions",
    ),
    (
        &["bert", "nomic-bert", "jina-bert-v2", "t5", "t5encoder"],
        "an encoder (not a decoder of this list)",
    ),
    (
        &[
            "gemma",
            "gemma3n",
            "gemma4",
            "cohere2",
            "command-r",
            "olmo2",
            "mistral3",
        ],
        "parts of a block that no family here has",
    ),
];

/// The family of that name; else an error that says what is missing.
pub(crate) fn of_name(name: &str) -> Result<&'static Family, ImportError> {
    if let Some(family) = FAMILIES.iter().find(|f| f.name == name) {
        return Ok(family);
    }
    let missing = MISSING
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map_or("a description of its blocks", |(_, what)| what);
    Err(ImportError::Architecture {
        got: name.to_owned(),
        missing,
        known: FAMILIES.map(|f| f.name).join(", "),
    })
}
