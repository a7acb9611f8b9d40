//! Who may ask: a bearer key, compared in constant time; without one only this machine, and no web page on it.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::{api::App, error::ApiError};
use crate::exit::Failure;

/// Shortest key that is taken.
const KEY_BYTES_MIN: usize = 16;

/// An API key, kept as its hash: all comparisons are of equal length.
#[derive(Clone)]
pub struct Key(blake3::Hash);

impl Key {
    /// Reads a key from a file that its owner alone may read; white space around it does not count.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bad = |why: String| Failure::Config {
            path: path.into(),
            why,
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path)
                .map_err(|e| bad(e.to_string()))?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                let mode = mode & 0o777;
                return Err(bad(format!(
                    "others may read this API key (mode {mode:o}); chmod 600 it"
                )));
            }
        }
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let key = text.trim();
        if key.len() < KEY_BYTES_MIN || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad(format!(
                "an API key is at least {KEY_BYTES_MIN} printable characters without spaces"
            )));
        }
        Ok(Self(blake3::hash(key.as_bytes())))
    }

    fn fits(&self, given: &str) -> bool {
        let given = blake3::hash(given.as_bytes());
        given.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

/// Refuses to listen where strangers reach it without a key.
pub fn check_listen(listen: SocketAddr, key: Option<&Key>) -> Result<(), Failure> {
    if key.is_none() && !listen.ip().is_loopback() {
        return Err(Failure::Usage(format!(
            "{listen} is reached from other machines: name a key with --api-key-file, or listen on 127.0.0.1"
        )));
    }
    Ok(())
}

/// Whether a Host header names this machine itself: a page elsewhere may let its own name point here.
fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    match &app.key {
        // That it lives is no secret: whatever watches it needs no key.
        Some(_) if request.uri().path() == "/health" => {}
        Some(key) => {
            let given = headers
                .get(header::AUTHORIZATION)
                .and_then(|h| h.to_str().ok())
                .and_then(|h| h.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            if !given.is_some_and(|(_, k)| key.fits(k.trim())) {
                let words = if given.is_some() {
                    "wrong API key"
                } else {
                    "no API key: send `Authorization: Bearer KEY`"
                };
                return Err(ApiError::new(StatusCode::UNAUTHORIZED, words).code("invalid_api_key"));
            }
        }
        None if !names_loopback(headers) => {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "without an API key only this machine is answered, by the name localhost or its address",
            ));
        }
        None => {}
    }
    // A page of another origin can send plain text and forms without being asked; JSON it cannot.
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|h| h.to_str().ok())
        .is_some_and(|h| {
            h.trim_start()
                .to_ascii_lowercase()
                .starts_with("application/json")
        });
    if request.method() == Method::POST && !json {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send JSON, with the header `Content-Type: application/json`",
        ));
    }
    Ok(())
}

/// The layer before every route.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(e) => e.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn rejects_key_files_that_others_read_and_short_keys() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Key::read(&path)
        };
        let good = key(" 0123456789abcdef\n", 0o600).unwrap();
        assert!(good.fits("0123456789abcdef"));
        assert!(!good.fits("0123456789abcdeF") && !good.fits("") && !good.fits("0123456789abcdef "));
        for (text, mode) in [
            ("0123456789abcdef", 0o640),
            ("0123456789abcdef", 0o604),
            ("short", 0o600),
            ("", 0o600),
        ] {
            assert_eq!(
                key(text, mode).map(|_| ()).unwrap_err().code(),
                3,
                "{text} {mode:o}"
            );
        }
        assert_eq!(
            Key::read(&dir.path().join("none"))
                .map(|_| ())
                .unwrap_err()
                .code(),
            3
        );
    }

    #[test]
    fn rejects_listening_off_loopback_without_a_key() {
        let key = Key(blake3::hash(b"k"));
        for (listen, alone) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
        ] {
            let listen = listen.parse().unwrap();
            assert_eq!(check_listen(listen, None).is_ok(), alone, "{listen}");
            assert!(check_listen(listen, Some(&key)).is_ok());
        }
    }

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for (host, is) in [
            ("localhost", true),
            ("LocalHost:8008", true),
            ("127.0.0.1:80", true),
            ("[::1]:80", true),
            ("example.org", false),
            ("127.0.0.1.example.org", false),
            ("", false),
            ("10.0.0.1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(names_loopback(&headers), is, "{host}");
        }
        assert!(!names_loopback(&HeaderMap::new()));
    }
}
