//! Replies in OpenAI's shapes, each with a `bitai` object: what was computed, and how it stands with the chain.

use alloy_primitives::B256;
use serde::Serialize;
use serde_json::{Value, json};

use super::compute::{Answer, Finish};

/// How an answer stands with the chain when it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Settlement {
    /// Nothing of it goes on chain.
    Unsettled {
        /// Why.
        reason: String,
    },
    /// It will be posted; the id asks for its state.
    Pending {
        /// Its id here: `GET /v1/bitai/jobs/{id}`.
        id: String,
        /// Its number on chain: known once the posting is executed.
        job_id: Option<String>,
    },
}

/// What was computed and where it stands.
pub fn bitai(answer: &Answer, settlement: &Settlement) -> Value {
    json!({
        "trace_root": answer.trace_root,
        "job_hash": answer.job.hash(),
        "model_root": answer.job.model_root,
        "seed": answer.job.seed,
        "max_new": answer.job.max_new,
        "settlement": settlement,
    })
}

/// Which of the two generating endpoints answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// What the parts of one reply share.
#[derive(Debug, Clone)]
pub struct Head {
    /// Endpoint.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as the request named it.
    pub model: String,
}

const fn finish(answer: &Answer) -> &'static str {
    match answer.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// Counts of tokens.
pub fn usage(prompt: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    })
}

impl Head {
    /// A whole reply: a text, an answer and a settlement a choice, the choices of the first prompt first.
    pub fn whole(&self, choices: &[(String, Answer, Settlement)], prompt_tokens: usize) -> Value {
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Text => "text_completion",
        };
        let choice = |(i, (text, answer, settlement)): (usize, &(String, Answer, Settlement))| {
            let mut choice = json!({
                "index": i,
                "finish_reason": finish(answer),
                "logprobs": null,
                "bitai": bitai(answer, settlement),
            });
            match self.kind {
                Kind::Chat => {
                    choice["message"] = json!({ "role": "assistant", "content": text, "refusal": null })
                }
                Kind::Text => choice["text"] = json!(text),
            }
            choice
        };
        let made = choices.iter().map(|(_, a, _)| a.output_ids.len()).sum();
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices.iter().enumerate().map(choice).collect::<Vec<_>>(),
            "usage": usage(prompt_tokens, made),
            "bitai": choices.first().map(|(_, a, s)| bitai(a, s)),
        })
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn piece(&self, index: usize, delta: Value, text: &str, finish: Option<&str>) -> Value {
        let mut choice = json!({ "index": index, "finish_reason": finish, "logprobs": null });
        match self.kind {
            Kind::Chat => choice["delta"] = delta,
            Kind::Text => choice["text"] = json!(text),
        }
        choice
    }

    /// The first chunk of a choice, where the endpoint has one.
    pub fn opening(&self, index: usize) -> Option<Value> {
        let role = json!({ "role": "assistant", "content": "" });
        (self.kind == Kind::Chat).then(|| self.chunk(vec![self.piece(index, role, "", None)]))
    }

    /// A chunk with text.
    pub fn text(&self, index: usize, text: &str) -> Value {
        self.chunk(vec![self.piece(index, json!({ "content": text }), text, None)])
    }

    /// The last chunk of a choice.
    pub fn closing(&self, index: usize, answer: &Answer, settlement: &Settlement) -> Value {
        let mut choice = self.piece(index, json!({}), "", Some(finish(answer)));
        let bitai = bitai(answer, settlement);
        choice["bitai"] = bitai.clone();
        let mut chunk = self.chunk(vec![choice]);
        chunk["bitai"] = bitai;
        chunk
    }

    /// The chunk of the token counts, without choices.
    pub fn counts(&self, prompt: usize, completion: usize) -> Value {
        let mut chunk = self.chunk(Vec::new());
        chunk["usage"] = usage(prompt, completion);
        chunk
    }
}

/// The trace roots of a reply, for its header.
pub fn roots<'a>(roots: impl Iterator<Item = &'a B256>) -> String {
    roots.map(|r| format!("{r:#x}")).collect::<Vec<_>>().join(",")
}

/// Base64 of bytes, with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for i in 0..4 {
            if i <= three.len() {
                let letter = (bits >> (18 - 6 * i)) & 63;
                out.push(char::from(LETTERS[letter as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}
