//! The read-only HTTP server: `/1/summary`, `/1/jobs`, `/metrics`.
//!
//! A page of a stranger in the owner's browser may not read it: no CORS header is sent, and a request whose Host is a
//! name other than `localhost` is refused, so a name that resolves to this machine (DNS rebinding) does not help.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{Monitor, metrics};

/// A server that ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Shows a monitor at an address; an empty one shows it nowhere. Where the address cannot be had this is said, and
/// mining goes on without.
pub async fn serve(listen: &str, monitor: &Monitor) -> Option<Server> {
    if listen.is_empty() {
        return None;
    }
    let bound = async {
        let listener = TcpListener::bind(listen).await?;
        Ok::<_, std::io::Error>((listener.local_addr()?, listener))
    };
    let (address, listener) = match bound.await {
        Ok(bound) => bound,
        Err(e) => {
            tracing::warn!(
                "nothing shown at {listen}: {e}. Mining goes on; set another address as `listen` below [monitor] in config.toml"
            );
            return None;
        }
    };
    if !address.ip().is_loopback() {
        tracing::warn!("whoever reaches {address} can read what this neuron does");
    }
    tracing::info!("shown at http://{address}/1/summary and /metrics");
    let router = router(monitor.clone());
    let task = tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, router).await {
            tracing::warn!("nothing shown at {address} any more: {e}");
        }
    });
    Some(Server { address, task })
}

fn router(monitor: Monitor) -> Router {
    Router::new()
        .route(
            "/1/summary",
            get(|State(m): State<Monitor>| async move { Json(m.summary()) }),
        )
        .route(
            "/1/jobs",
            get(|State(m): State<Monitor>| async move { Json(m.jobs()) }),
        )
        .route("/metrics", get(scrape))
        .fallback(|| async {
            refusal(
                StatusCode::NOT_FOUND,
                "nothing here; see /1/summary, /1/jobs, /metrics",
            )
        })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "read only: GET") })
        .layer(middleware::from_fn(guard))
        .with_state(monitor)
}

fn refusal(status: StatusCode, why: &str) -> Response {
    (status, Json(serde_json::json!({ "error": why }))).into_response()
}

async fn scrape(State(monitor): State<Monitor>) -> Response {
    match metrics::text(&monitor.summary()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(e) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

/// Whether a Host header can come from nobody's DNS: an address, or `localhost`.
fn is_ours(host: &str) -> bool {
    let port = |p: &str| p.is_empty() || p.parse::<u16>().is_ok();
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, "")) => v6,
            Some((v6, after)) if after.strip_prefix(':').is_some_and(port) => v6,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, p)) if port(p) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn guard(headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    if !host.is_some_and(is_ours) {
        return refusal(
            StatusCode::FORBIDDEN,
            "the Host header must be localhost or an address",
        );
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alloy_primitives::U256;

    use super::*;

    async fn running() -> (Monitor, Server) {
        let monitor = Monitor::default();
        let server = serve("127.0.0.1:0", &monitor).await.unwrap();
        (monitor, server)
    }

    async fn get(server: &Server, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", server.address());
        reqwest::get(url).await.unwrap()
    }

    #[tokio::test]
    async fn counts_of_api_and_prometheus_agree() {
        let (m, server) = running().await;
        for id in 1..=3u64 {
            m.ordered(U256::from(id), 4);
            m.computed(U256::from(id), 4, 2, Duration::from_millis(500));
        }
        m.closed(U256::from(1), "paid", Some(U256::from(10).pow(U256::from(18))));
        let summary: serde_json::Value = get(&server, "/1/summary").await.json().await.unwrap();
        assert_eq!(summary["jobs"]["computed"], 3);
        assert_eq!(summary["work"]["output_ids"], 6);
        let reply = get(&server, "/metrics").await;
        assert_eq!(reply.headers()["content-type"], metrics::CONTENT_TYPE);
        let text = reply.text().await.unwrap();
        for line in [
            "bitai_jobs_computed_total 3",
            "bitai_output_tokens_total 6",
            "bitai_step_compute_seconds_total 1.5",
            "bitai_jobs_paid 1",
            "bitai_earned_coins 1.0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
        }
        let jobs: serde_json::Value = get(&server, "/1/jobs").await.json().await.unwrap();
        assert_eq!(jobs.as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn rejects_hosts_that_a_strangers_dns_could_name() {
        let (_m, server) = running().await;
        let url = format!("http://{}/1/summary", server.address());
        let client = reqwest::Client::new();
        let reply = client
            .get(&url)
            .header("host", "evil.example")
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 403);
        let body: serde_json::Value = reply.json().await.unwrap();
        assert!(body["error"].as_str().unwrap().contains("Host"));
        for ours in [
            "localhost",
            "LOCALHOST:9187",
            "127.0.0.1",
            "[::1]:80",
            "192.168.0.4:1",
            "::1x",
        ] {
            assert_eq!(is_ours(ours), ours != "::1x", "{ours}");
        }
        for theirs in [
            "",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "[::1",
            "[::1]x",
            "a:b",
            "localhost:99999",
        ] {
            assert!(!is_ours(theirs), "{theirs}");
        }
    }

    #[tokio::test]
    async fn bad_requests_get_json_and_no_cors() {
        let (_m, server) = running().await;
        let reply = get(&server, "/nothing").await;
        assert_eq!(reply.status(), 404);
        assert!(reply.headers().get("access-control-allow-origin").is_none());
        assert!(reply.json::<serde_json::Value>().await.unwrap()["error"].is_string());
        let url = format!("http://{}/1/jobs", server.address());
        let reply = reqwest::Client::new().post(url).send().await.unwrap();
        assert_eq!(reply.status(), 405);
        assert!(reply.json::<serde_json::Value>().await.unwrap()["error"].is_string());
    }

    #[tokio::test]
    async fn a_taken_port_or_none_shows_nothing_and_is_no_failure() {
        let (m, server) = running().await;
        assert!(serve(&server.address().to_string(), &m).await.is_none());
        assert!(serve("no address", &m).await.is_none());
        assert!(serve("", &m).await.is_none());
    }
}
