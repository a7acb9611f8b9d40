//! The bodies of `/v1/chat/completions`, `/v1/completions` and `/v1/embeddings` as what they ask for. Every field that
//! would change an answer is understood or refused; what clients send beside them is ignored.

use bitai_model::tokenizer::Message;
use bitai_types::{Job, Sampler, job::SPEC_VERSION};
use serde::Deserialize;

use super::{error::ApiError, fields::Fields};

/// Most choices a prompt.
pub const CHOICES_MAX: u8 = 4;
/// Most stop strings.
pub const STOPS_MAX: usize = 4;
/// Longest stop string, bytes.
const STOP_BYTES_MAX: usize = 256;
/// Most prompts of one completion request.
pub const PROMPTS_MAX: usize = 16;
/// Most texts of one embedding request.
pub const TEXTS_MAX: usize = 256;
/// Seeds that are drawn for whoever names none stay below this: every JSON reader has them exactly.
const SEED_BITS: u32 = 53;

/// How tokens are chosen, and how the answer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Most tokens to generate, where the request says so.
    pub max_tokens: Option<u32>,
    /// Temperature; 0 = the likeliest token.
    pub temperature_q16: u32,
    /// Mass kept.
    pub top_p_q16: u32,
    /// Ids kept, 0 = all.
    pub top_k: u32,
    /// Seed of the first choice; those after it count up.
    pub seed: Option<u64>,
    /// Choices a prompt.
    pub n: u8,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// Whether pieces are sent as they come.
    pub stream: bool,
    /// Whether a stream ends with the token counts.
    pub include_usage: bool,
}

/// What a text or a list of ids was given as.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Input {
    /// To be tokenised.
    Text(String),
    /// Tokens already.
    Ids(Vec<u32>),
}

/// One input or a list of them: every form that `prompt` and `input` have.
#[derive(Deserialize)]
#[serde(untagged)]
enum Inputs {
    Text(String),
    Ids(Vec<u32>),
    Many(Vec<Input>),
}

/// `/v1/chat/completions`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// Name or root of the model.
    pub model: String,
    /// The conversation, at least one message.
    pub messages: Vec<Message>,
    /// How to answer.
    pub options: Options,
}

/// `/v1/completions`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Name or root of the model.
    pub model: String,
    /// At least one prompt.
    pub prompts: Vec<Input>,
    /// How to answer.
    pub options: Options,
}

/// `/v1/embeddings`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding {
    /// Name or root of the model.
    pub model: String,
    /// At least one text.
    pub inputs: Vec<Input>,
    /// Little-endian float32 in base64 instead of numbers.
    pub base64: bool,
}

/// A message as sent.
#[derive(Deserialize)]
struct Sent {
    role: String,
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Format {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

const NOT_NEG: &str = "a whole number that is not negative";

fn message(at: usize, sent: Sent) -> Result<Message, ApiError> {
    let param = format!("messages[{at}]");
    let role = match sent.role.as_str() {
        "system" | "user" | "assistant" => sent.role,
        // OpenAI's newer name of the same.
        "developer" => "system".into(),
        other => {
            return Err(ApiError::bad(
                &format!("{param}.role"),
                format!("role `{other}` is unknown here; use system, user or assistant"),
            ));
        }
    };
    let field = format!("{param}.content");
    let content = match sent.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let mut all = String::new();
            for part in parts {
                match (part.r#type.as_str(), part.text) {
                    ("text", Some(text)) => all.push_str(&text),
                    ("text", None) => return Err(ApiError::bad(&field, "a part of type text has no `text`")),
                    (other, _) => {
                        return Err(ApiError::unsupported(
                            &field,
                            format!("a part of type `{other}`: only text is read here"),
                        ));
                    }
                }
            }
            all
        }
        None => return Err(ApiError::bad(&field, "the message has no content")),
    };
    Ok(Message { role, content })
}

fn stops(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let stops = match fields.get("stop", "a string or a list of strings")? {
        None => Vec::new(),
        Some(Stop::One(one)) => vec![one],
        Some(Stop::Many(many)) => many,
    };
    if stops.len() > STOPS_MAX {
        return Err(ApiError::bad(
            "stop",
            format!("{} stop strings; at most {STOPS_MAX}", stops.len()),
        ));
    }
    if stops.iter().any(|s| s.is_empty() || s.len() > STOP_BYTES_MAX) {
        return Err(ApiError::bad(
            "stop",
            format!("a stop string has 1 to {STOP_BYTES_MAX} bytes"),
        ));
    }
    Ok(stops)
}

/// A seed; a negative one counts as its 64 bits.
fn seed(fields: &Fields<'_>) -> Result<Option<u64>, ApiError> {
    let Some(text) = fields.raw("seed") else {
        return Ok(None);
    };
    let bits = |v: i64| v.cast_unsigned();
    match text.parse().or_else(|_| text.parse().map(bits)) {
        Ok(seed) => Ok(Some(seed)),
        Err(_) => Err(ApiError::bad("seed", "`seed` must be a whole number of 64 bits").code("invalid_type")),
    }
}

impl Options {
    fn read(fields: &Fields<'_>, max_names: &[&str]) -> Result<Self, ApiError> {
        const SAMPLER: &str = "the sampler that jobs are proven by has no such rule; leave it out";
        for name in ["presence_penalty", "frequency_penalty"] {
            fields.refuse(name, &["0"], SAMPLER)?;
        }
        fields.refuse("logit_bias", &["{}"], SAMPLER)?;
        let mut max_tokens = None;
        for name in max_names {
            if let Some(max) = fields.get::<u32>(name, NOT_NEG)? {
                if max == 0 {
                    return Err(ApiError::bad(name, format!("`{name}` must be at least 1")));
                }
                max_tokens = Some(max);
            }
        }
        let temperature_q16 = fields.q16("temperature")?.unwrap_or(1 << 16);
        let top_p_q16 = match fields.q16("top_p")? {
            Some(p) if p > 1 << 16 => return Err(ApiError::bad("top_p", "`top_p` is above 1")),
            // The least mass there is holds the likeliest token, which is what 0 means to clients.
            Some(p) => p.max(1),
            None => 1 << 16,
        };
        let n = fields.get::<u8>("n", "a whole number from 1 to 4")?.unwrap_or(1);
        if !(1..=CHOICES_MAX).contains(&n) {
            return Err(ApiError::bad("n", format!("`n` must be 1 to {CHOICES_MAX}")));
        }
        if n > 1 && temperature_q16 == 0 {
            return Err(ApiError::bad(
                "n",
                "at temperature 0 every choice is the same; ask for one, or give a temperature",
            ));
        }
        let stream = fields.flag("stream")?;
        let streaming: Option<StreamOptions> = fields.get("stream_options", "an object")?;
        if streaming.is_some() && !stream {
            return Err(ApiError::bad(
                "stream_options",
                "`stream_options` needs `stream: true`",
            ));
        }
        Ok(Self {
            max_tokens,
            temperature_q16,
            top_p_q16,
            top_k: fields.get("top_k", NOT_NEG)?.unwrap_or(0),
            seed: seed(fields)?,
            n,
            stops: stops(fields)?,
            stream,
            include_usage: streaming.is_some_and(|s| s.include_usage == Some(true)),
        })
    }

    /// The jobs that ask for `n` answers to a prompt: they differ by their seeds. `max_new` is what they may generate.
    pub fn jobs(
        &self,
        model_root: alloy_primitives::B256,
        ids: &[u32],
        max_new: u32,
        stop: &[u32],
    ) -> Vec<Job> {
        // At temperature 0 nothing is drawn: one prompt is one job.
        let (sampler, first) = if self.temperature_q16 == 0 {
            (Sampler::GREEDY, 0)
        } else {
            let sampler = Sampler {
                temperature_q16: self.temperature_q16,
                top_k: self.top_k,
                top_p_q16: self.top_p_q16,
            };
            let drawn = || rand::random::<u64>() >> (u64::BITS - SEED_BITS);
            (sampler, self.seed.unwrap_or_else(drawn))
        };
        let job = |i: u8| Job {
            model_root,
            spec_version: SPEC_VERSION,
            input_ids: ids.to_vec(),
            max_new,
            stop_ids: stop.to_vec(),
            sampler,
            seed: first.wrapping_add(u64::from(i)),
        };
        (0..self.n).map(job).collect()
    }
}

fn inputs(fields: &Fields<'_>, name: &str, max: usize) -> Result<Vec<Input>, ApiError> {
    let all = match fields.need(name, "a string, a list of strings, or token ids")? {
        Inputs::Text(text) => vec![Input::Text(text)],
        Inputs::Ids(ids) => vec![Input::Ids(ids)],
        Inputs::Many(many) => many,
    };
    if all.is_empty() || all.iter().any(|i| matches!(i, Input::Ids(ids) if ids.is_empty())) {
        return Err(ApiError::bad(name, format!("`{name}` is empty")));
    }
    if all.len() > max {
        return Err(ApiError::bad(
            name,
            format!("{} inputs; at most {max} a request", all.len()),
        ));
    }
    Ok(all)
}

const MODEL: &str = "the name of a model";

impl Chat {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::read(body)?;
        let model = fields.need("model", MODEL)?;
        fields.refuse("logprobs", &["false"], "probabilities are not given out")?;
        fields.refuse("top_logprobs", &["0"], "probabilities are not given out")?;
        for name in ["tools", "functions"] {
            fields.refuse(name, &["[]"], "no tools are called here")?;
        }
        fields.refuse("modalities", &["[\"text\"]"], "answers are text")?;
        let format: Option<Format> = fields.get("response_format", "an object with a type")?;
        if format.is_some_and(|f| f.r#type != "text") {
            return Err(ApiError::unsupported(
                "response_format",
                "`response_format`: answers are plain text, without a grammar",
            ));
        }
        let sent: Vec<Sent> = fields.need("messages", "a list of {role, content}")?;
        if sent.is_empty() {
            return Err(ApiError::bad("messages", "`messages` is empty"));
        }
        let messages = sent.into_iter().enumerate().map(|(at, m)| message(at, m));
        Ok(Self {
            model,
            messages: messages.collect::<Result<_, _>>()?,
            // The newer name counts where both are given.
            options: Options::read(&fields, &["max_tokens", "max_completion_tokens"])?,
        })
    }
}

impl Completion {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::read(body)?;
        let model = fields.need("model", MODEL)?;
        fields.refuse("logprobs", &["false"], "probabilities are not given out")?;
        fields.refuse(
            "echo",
            &["false"],
            "the prompt is not repeated; put it in front yourself",
        )?;
        fields.refuse("suffix", &["\"\""], "nothing is filled in before a suffix")?;
        let options = Options::read(&fields, &["max_tokens"])?;
        let n = options.n.to_string();
        fields.refuse("best_of", &[&n], "leave it out, or let it equal `n`")?;
        Ok(Self {
            model,
            prompts: inputs(&fields, "prompt", PROMPTS_MAX)?,
            options,
        })
    }
}

impl Embedding {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::read(body)?;
        let model = fields.need("model", MODEL)?;
        fields.refuse(
            "dimensions",
            &[],
            "an embedding has as many elements as the model puts out",
        )?;
        let format: Option<String> = fields.get("encoding_format", "`float` or `base64`")?;
        let base64 = match format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => {
                return Err(ApiError::bad(
                    "encoding_format",
                    "`encoding_format` is float or base64",
                ));
            }
        };
        Ok(Self {
            model,
            inputs: inputs(&fields, "input", TEXTS_MAX)?,
            base64,
        })
    }
}

#[cfg(test)]
#[path = "tests/request.rs"]
mod tests;
