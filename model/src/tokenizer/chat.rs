//! Chat templates: Jinja from the model's file, rendered as model cards expect (blocks trimmed, Python's
//! string methods, `raise_exception`).

use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig};

use super::TokenizerError;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// What a user says.
    pub fn user(text: impl Into<String>) -> Self {
        Self {
            role: "user".into(),
            content: text.into(),
        }
    }
}

/// A model's chat template.
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
}

/// Steps a template may take: it comes from a file that anyone may have made.
const FUEL: u64 = 1_000_000;

impl ChatTemplate {
    /// Keeps the template with the texts of its special tokens.
    pub fn new(source: &str, bos: String, eos: String) -> Self {
        Self {
            source: source.to_owned(),
            bos,
            eos,
        }
    }

    /// Messages to text; `answer` opens the assistant's turn.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, TokenizerError> {
        let bad = |e: Error| TokenizerError::Template(format!("{e:#}"));
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(bad)?;
        let mut env = Environment::new();
        env.set_syntax(syntax);
        env.set_fuel(Some(FUEL));
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", |why: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, why))
        });
        env.add_template("chat", &self.source).map_err(bad)?;
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| context! { role => m.role.as_str(), content => m.content.as_str() })
            .collect();
        env.get_template("chat")
            .and_then(|t| {
                t.render(context! {
                    messages => messages,
                    add_generation_prompt => answer,
                    bos_token => self.bos.as_str(),
                    eos_token => self.eos.as_str(),
                })
            })
            .map_err(bad)
    }
}
