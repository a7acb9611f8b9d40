//! `serve --settle` on real parts: answered at once, settled behind with the same root, not twice after a restart, and not
//! beyond what may be spent.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use alloy_primitives::U256;
use bitai_devnet::{Devnet, Options};
use bitai_miner::gateway::{Server, Settings, settle::Caps};
use common::{options, sender, until};
use serde_json::{Value, json};

async fn serve(devnet: &Devnet, options: &Options, caps: Caps) -> Server {
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        max_spend_day: caps.day,
        max_spend: caps.total,
        ..Default::default()
    };
    let account = (devnet.hub.clone(), sender(devnet, "client"));
    Server::start(&options.data, &settings, options.device, Some(account))
        .await
        .unwrap()
}

async fn ask(server: &Server, max_tokens: u32, seed: u64) -> Value {
    let body = json!({
        "model": common::MODEL, "messages": [{ "role": "user", "content": "sea" }],
        "max_tokens": max_tokens, "top_k": 40, "top_p": 0.9, "seed": seed,
    });
    let url = format!("http://{}/v1/chat/completions", server.address());
    let reply = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    reply.json().await.unwrap()
}

async fn state(server: &Server, id: &str) -> Value {
    let url = format!("http://{}/v1/bitai/jobs/{id}", server.address());
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

fn id(reply: &Value) -> String {
    assert_eq!(reply["bitai"]["settlement"]["state"], "pending", "{reply}");
    reply["bitai"]["settlement"]["id"].as_str().unwrap().to_owned()
}

async fn settled(server: &Server, id: &str) -> Value {
    until("it is settled", || async {
        let state = state(server, id).await;
        assert!(
            ["pending", "posted", "revealed", "settled"].contains(&state["state"].as_str().unwrap()),
            "{state}"
        );
        state["state"] == "settled"
    })
    .await;
    state(server, id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_given_at_once_and_settled_behind_with_the_same_root() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), true);
    let devnet = Devnet::start(&options).await.unwrap();
    let server = serve(&devnet, &options, Caps::default()).await;
    let first = ask(&server, 12, 1).await;
    assert_eq!(
        state(&server, &id(&first)).await["trace_root"],
        first["bitai"]["trace_root"]
    );
    let end = settled(&server, &id(&first)).await;
    assert_eq!(end["settled_root"], first["bitai"]["trace_root"]);
    assert_eq!(end["job_hash"], first["bitai"]["job_hash"]);
    // The chain has this very job, paid for by this key.
    let number: U256 = end["job_id"].as_str().unwrap().parse().unwrap();
    let posted = devnet.hub.find(number).await.unwrap();
    assert_eq!(format!("{:#x}", posted.job.hash()), first["bitai"]["job_hash"]);
    assert_eq!(posted.payer, sender(&devnet, "client").address());

    // Stopped as soon as a posting is written down, whether or not the node has it: the next process sees it through.
    let second = id(&ask(&server, 5, 2).await);
    server.stop().await.unwrap();
    let spent: U256 = end["fee"].as_str().unwrap().parse().unwrap();
    let server = serve(&devnet, &options, Caps::default()).await;
    settled(&server, &second).await;
    let height = devnet.hub.node().height().await.unwrap();
    let model = devnet.model().key().id();
    let all = devnet.hub.posted(&[model], 0, height).await.unwrap();
    assert_eq!(all.len(), 2, "each answer is one job");
    server.stop().await.unwrap();

    // What was spent before counts: nothing more is posted, and the answer is given all the same.
    let server = serve(
        &devnet,
        &options,
        Caps {
            day: None,
            total: Some(spent),
        },
    )
    .await;
    let unsettled = ask(&server, 12, 1).await;
    assert_eq!(unsettled["bitai"]["trace_root"], first["bitai"]["trace_root"]);
    let settlement = &unsettled["bitai"]["settlement"];
    assert_eq!(settlement["state"], "unsettled");
    assert!(
        settlement["reason"]
            .as_str()
            .unwrap()
            .contains("max_spend is reached"),
        "{settlement}"
    );
    assert_eq!(state(&server, "none").await["error"]["code"], "job_not_found");
    server.stop().await.unwrap();
    devnet.stop().await.unwrap();
}
