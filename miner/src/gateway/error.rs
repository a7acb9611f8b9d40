//! What the endpoint refuses, in the shape that OpenAI's clients read: `{"error": {message, type, param, code}}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bitai_types::JobError;
use serde_json::{Value, json};

use crate::exit::Failure;

/// Seconds after which a refused client may try again.
const RETRY_AFTER_S: u16 = 1;

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// What is wrong and how to mend it.
    pub message: String,
    /// The field that is to blame.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

impl ApiError {
    /// An error without field or code.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// 400 about a field.
    pub fn bad(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            code: Some("invalid_value"),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// 400 about a field that asks for what this endpoint does not do.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self {
            code: Some("unsupported_parameter"),
            ..Self::bad(param, message)
        }
    }

    /// The same with a word for programs.
    #[must_use]
    pub fn code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// 429: more requests than the queue holds.
    pub fn busy(queue: usize) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("{queue} requests are under way already; try again in {RETRY_AFTER_S} s"),
        )
        .code("queue_full")
    }

    /// What stopped a job; `param` is the field that its ids came from.
    pub fn of(failure: &Failure, param: &str) -> Self {
        match failure {
            Failure::Job(e @ JobError::ContextOverflow { .. }) => {
                Self::bad(param, e.to_string()).code("context_length_exceeded")
            }
            Failure::Job(e) => Self::bad(param, e.to_string()),
            Failure::Usage(why) => Self::bad(param, why.clone()),
            Failure::Device(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, failure.to_string()).code("device_failed")
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string()),
        }
    }

    /// OpenAI's name for errors of this status.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            s if s.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body.
    pub fn body(&self) -> Value {
        json!({ "error": {
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
