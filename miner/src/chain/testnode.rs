//! A node for tests: answers JSON-RPC over HTTP as a closure says, one request a connection.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use alloy_primitives::Address;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::Hub;
use crate::config::Chain;

/// What a test answers to method and parameters: a result, or a refusal in words.
pub(crate) trait Answers: FnMut(&str, &Value) -> Result<Value, String> + Send + 'static {}
impl<T: FnMut(&str, &Value) -> Result<Value, String> + Send + 'static> Answers for T {}

async fn serve(mut stream: TcpStream, answers: Arc<Mutex<impl Answers>>) {
    let mut bytes = Vec::new();
    let body = loop {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        bytes.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some(end) = text.find("\r\n\r\n") else {
            continue;
        };
        let length = text[..end].split("content-length: ").nth(1).unwrap();
        let length: usize = length.split("\r\n").next().unwrap().trim().parse().unwrap();
        if bytes.len() >= end + 4 + length {
            break bytes[end + 4..end + 4 + length].to_vec();
        }
    };
    let request: Value = serde_json::from_slice(&body).unwrap();
    let answer = answers.lock().unwrap()(request["method"].as_str().unwrap(), &request["params"]);
    let mut reply = json!({ "jsonrpc": "2.0", "id": request["id"] });
    match answer {
        Ok(result) => reply["result"] = result,
        Err(message) => reply["error"] = json!({ "code": -32000, "message": message }),
    }
    let reply = reply.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        reply.len()
    );
    let _ = stream.write_all((head + &reply).as_bytes()).await;
}

/// Whether a node is up; one that is not closes every connection.
pub(crate) type Switch = Arc<AtomicBool>;

/// Starts a node; gives its URL.
pub(crate) async fn start(answers: impl Answers, up: Switch) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers = Arc::new(Mutex::new(answers));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if up.load(Ordering::Relaxed) {
                tokio::spawn(serve(stream, Arc::clone(&answers)));
            }
        }
    });
    url
}

/// Starts a node and connects to a hub on it; the answers must know `eth_chainId` and `eth_getCode`.
pub(crate) async fn hub(chain_id: u64, at: Address, answers: impl Answers) -> Hub {
    let chain = Chain {
        nodes: vec![start(answers, Arc::new(AtomicBool::new(true))).await],
        chain_id: Some(chain_id),
        hub: Some(at),
        registry: None,
    };
    Hub::connect(&chain).await.unwrap()
}
