//! A request body as named fields, each kept as its JSON text until somebody says what type it is to be. Unknown fields are
//! never looked at; one of the wrong type is refused by its name; `null` is absence.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{error::ApiError, number};

/// The fields of a JSON object; of a name given twice the last counts.
#[derive(Debug)]
pub(super) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Reads a body.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map(Self).map_err(|e| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                format!("the body is no JSON object: {e}"),
            )
            .code("invalid_json")
        })
    }

    /// A field's JSON text.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|v| v.get()).filter(|text| *text != "null")
    }

    /// A field of type `T`; `what` names the type in words.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str, what: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.raw(name) else {
            return Ok(None);
        };
        match serde_json::from_str(text) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(ApiError::bad(name, format!("`{name}` must be {what}")).code("invalid_type")),
        }
    }

    /// A field that has to be there.
    pub(super) fn need<T: DeserializeOwned>(&self, name: &str, what: &str) -> Result<T, ApiError> {
        self.get(name, what)?.ok_or_else(|| {
            ApiError::bad(name, format!("`{name}` is missing")).code("missing_required_parameter")
        })
    }

    /// A truth value, false where absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.get(name, "true or false")?.unwrap_or(false))
    }

    /// A decimal number as Q16, from its text.
    pub(super) fn q16(&self, name: &str) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.raw(name) else {
            return Ok(None);
        };
        number::q16(text)
            .map(Some)
            .map_err(|why| ApiError::bad(name, format!("`{name}` {why}")))
    }

    /// Refuses a field unless it is absent or reads as one of `neutral`, which change nothing.
    pub(super) fn refuse(&self, name: &str, neutral: &[&str], why: &str) -> Result<(), ApiError> {
        let Some(text) = self.raw(name) else {
            return Ok(());
        };
        let compact: String = text.split_whitespace().collect();
        if neutral.contains(&compact.as_str()) || (neutral.contains(&"0") && number::q16(text) == Ok(0)) {
            return Ok(());
        }
        Err(ApiError::unsupported(name, format!("`{name}`: {why}")))
    }
}
