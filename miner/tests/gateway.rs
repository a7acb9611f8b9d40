//! The endpoint as a client meets it over HTTP, on tiny models: replies, streams, refusals, a full queue, a client that leaves.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use bitai_kernels::Hash;
use bitai_miner::{
    cli::DeviceKind,
    config,
    datadir::{DataDir, make_dir},
    engine::Loaded,
    gateway::{Server, Settings},
    gpu, models,
};
use bitai_model::synthetic::{self, Shape, encoder};
use bitai_types::{Job, Sampler, job::SPEC_VERSION};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

fn device() -> config::Device {
    config::Device {
        kind: DeviceKind::Cpu,
        threads: 2,
        gpu: gpu::Choice::First,
    }
}

fn data(dir: &Path) -> (DataDir, Hash) {
    let data = DataDir::resolve(Some(dir.to_owned())).unwrap();
    make_dir(&data.models()).unwrap();
    let root = synthetic::write(&data.models().join("tiny.pack"), &Shape::tiny(), 7).unwrap();
    encoder::write(&data.models().join("encoder.pack"), &encoder::tiny(), 7).unwrap();
    (data, root)
}

/// An endpoint on a data directory of its own.
struct Endpoint {
    server: Server,
    data: DataDir,
    root: Hash,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Endpoint {
    async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, root) = data(dir.path());
        let mut settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Default::default()
        };
        change(&mut settings);
        let server = Server::start(&data, &settings, device(), None).await.unwrap();
        Self {
            server,
            data,
            root,
            client: reqwest::Client::new(),
            _dir: dir,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let reply = self.client.get(self.url(path)).send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let reply = self.client.post(self.url(path)).json(body).send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap())
    }

    /// The data of every event.
    async fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let reply = self.client.post(self.url(path)).json(body).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        let text = reply.text().await.unwrap();
        text.split("\n\n")
            .filter_map(|e| e.strip_prefix("data: ").map(str::to_owned))
            .collect()
    }

    /// What the engine answers to a job without the endpoint: ids and root.
    fn alone(&self, job: &Job) -> (Vec<u32>, String) {
        let (_, pack) = models::open_root(&self.data, &job.model_root).unwrap();
        let run = Loaded::new(&pack, device())
            .unwrap()
            .answer(job, &mut |_| ())
            .unwrap();
        (run.transcript.outputs().to_vec(), run.trace_root.to_string())
    }

    /// The job that a prompt of the tiny model means.
    fn job(&self, prompt: &str, max_new: u32, seed: u64) -> Job {
        let (listed, pack) = models::open(&self.data, Some("tiny")).unwrap();
        let tokenizer = models::tokenizer(&pack).unwrap();
        Job {
            model_root: listed.model_root,
            spec_version: SPEC_VERSION,
            input_ids: tokenizer.encode(prompt).unwrap(),
            max_new,
            stop_ids: tokenizer.special().stop.clone(),
            sampler: Sampler {
                temperature_q16: 65536,
                top_k: 40,
                top_p_q16: 58982,
            },
            seed,
        }
    }

    fn text(&self, ids: &[u32]) -> String {
        let (_, pack) = models::open(&self.data, Some("tiny")).unwrap();
        models::tokenizer(&pack).unwrap().decode(ids).unwrap()
    }
}

fn chat(max: u32) -> Value {
    json!({
        "model": "tiny", "messages": [{ "role": "user", "content": "sea" }], "max_tokens": max,
        "temperature": 1, "top_k": 40, "top_p": 0.9, "seed": 9,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_the_engines_answer_with_its_trace_root() {
    let e = Endpoint::start(|_| ()).await;
    let job = e.job("sea", 24, 9);
    let (ids, root) = e.alone(&job);
    let reply = e
        .client
        .post(e.url("/v1/chat/completions"))
        .json(&chat(24))
        .send()
        .await
        .unwrap();
    assert_eq!(reply.headers()["x-bitai-trace-root"], root.as_str());
    let reply: Value = reply.json().await.unwrap();
    assert_eq!(reply["object"], "chat.completion");
    assert_eq!(reply["choices"][0]["message"]["content"], e.text(&ids));
    assert_eq!(reply["bitai"]["trace_root"], root);
    assert_eq!(reply["bitai"]["job_hash"], format!("{:#x}", job.hash()));
    assert_eq!(reply["bitai"]["model_root"], format!("0x{}", hex::encode(e.root)));
    assert_eq!(reply["bitai"]["settlement"]["state"], "unsettled");
    assert_eq!(reply["usage"]["completion_tokens"], ids.len());
    assert_eq!(reply["usage"]["prompt_tokens"], job.input_ids.len());

    // The same as a stream: the same text in pieces, the same root, counts last.
    let mut body = chat(24);
    body["stream"] = true.into();
    body["stream_options"] = json!({ "include_usage": true });
    let events = e.stream("/v1/chat/completions", &body).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|t| serde_json::from_str(t).unwrap())
        .collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, e.text(&ids));
    let (counts, closing) = (&chunks[chunks.len() - 1], &chunks[chunks.len() - 2]);
    assert_eq!(counts["usage"]["total_tokens"], job.input_ids.len() + ids.len());
    assert_eq!(counts["choices"], json!([]));
    assert_eq!(closing["bitai"]["trace_root"], root);
    assert!(closing["choices"][0]["finish_reason"].is_string());
    e.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_ends_the_job_that_is_proven() {
    let e = Endpoint::start(|_| ()).await;
    let (ids, _) = e.alone(&e.job("sea", 40, 9));
    // A character of the answer's middle, which the text up to there has not.
    let text = e.text(&ids);
    let stop = text
        .char_indices()
        .skip(6)
        .find(|(at, c)| *c != '\u{fffd}' && !text[..*at].contains(*c))
        .map(|(_, c)| c.to_string())
        .unwrap();
    let mut body = chat(40);
    body["stop"] = json!(stop);
    let (_, reply) = e.post("/v1/chat/completions", &body).await;
    let shown = reply["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(shown, &text[..text.find(&stop).unwrap()]);
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    let made = reply["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(made < ids.len() as u64, "{made} of {}", ids.len());
    assert_eq!(reply["bitai"]["max_new"], made);
    // What is proven is the job with so many tokens, exactly as a neuron computes it.
    let shorter = e.job("sea", made as u32, 9);
    let (short_ids, root) = e.alone(&shorter);
    assert_eq!(short_ids, ids[..made as usize]);
    assert_eq!(reply["bitai"]["trace_root"], root);
    assert_eq!(reply["bitai"]["job_hash"], format!("{:#x}", shorter.hash()));
    e.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_and_prompts_are_jobs_of_their_own() {
    let e = Endpoint::start(|s| s.batch = 3).await;
    let body =
        json!({ "model": "tiny", "prompt": ["sea", "sky"], "n": 2, "seed": 5, "top_k": 40, "top_p": 0.9 });
    let (code, reply) = e.post("/v1/completions", &body).await;
    assert_eq!(code, 200, "{reply}");
    let choices = reply["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    for (i, (prompt, seed)) in [("sea", 5), ("sea", 6), ("sky", 5), ("sky", 6)]
        .into_iter()
        .enumerate()
    {
        let (ids, root) = e.alone(&e.job(prompt, 16, seed));
        assert_eq!(choices[i]["index"], i);
        assert_eq!(choices[i]["text"], e.text(&ids));
        assert_eq!(choices[i]["bitai"]["trace_root"], root, "{prompt} {seed}");
    }
    // Token ids, and the model by its root.
    let ids = e.job("sea", 1, 0).input_ids;
    let body = json!({ "model": hex::encode(e.root), "prompt": ids, "seed": 5, "top_k": 40, "top_p": 0.9 });
    let (_, again) = e.post("/v1/completions", &body).await;
    assert_eq!(again["choices"][0]["text"], choices[0]["text"]);
    e.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_the_encoders_words_as_numbers_or_base64() {
    let e = Endpoint::start(|_| ()).await;
    let (listed, pack) = models::open(&e.data, Some("encoder")).unwrap();
    let ids = models::tokenizer(&pack)
        .unwrap()
        .sentence("The deep sky, sea")
        .unwrap();
    let (words, root) = e.alone(&Job::embedding(listed.model_root, ids.clone()));
    let body = json!({ "model": "encoder", "input": ["The deep sky, sea", "The deep"] });
    let (code, reply) = e.post("/v1/embeddings", &body).await;
    assert_eq!(code, 200, "{reply}");
    assert_eq!(reply["data"].as_array().unwrap().len(), 2);
    assert_eq!(reply["data"][0]["bitai"]["trace_root"], root);
    let numbers: Vec<f64> = serde_json::from_value(reply["data"][0]["embedding"].clone()).unwrap();
    let exact: Vec<f64> = words
        .iter()
        .map(|w| f64::from(w.cast_signed()) / 65536.0)
        .collect();
    assert_eq!(numbers, exact);
    let body = json!({ "model": "encoder", "input": ids, "encoding_format": "base64" });
    let (_, packed) = e.post("/v1/embeddings", &body).await;
    assert_eq!(packed["bitai"]["trace_root"], root);
    assert_eq!(
        packed["data"][0]["embedding"].as_str().unwrap().len(),
        (64 * 4usize).div_ceil(3) * 4
    );
    for (path, model, field) in [
        ("/v1/embeddings", "tiny", json!({ "input": "a" })),
        ("/v1/completions", "encoder", json!({ "prompt": "a" })),
    ] {
        let mut body = field;
        body["model"] = model.into();
        let (code, reply) = e.post(path, &body).await;
        assert_eq!((code, &reply["error"]["param"]), (400, &json!("model")));
    }
    e.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_openais_shape() {
    let e = Endpoint::start(|_| ()).await;
    let (code, reply) = e.get("/v1/models").await;
    assert_eq!((code, &reply["data"][1]["id"]), (200, &json!("tiny")));
    assert_eq!(e.get("/v1/models/tiny").await.1["bitai"]["context"], 512);
    assert_eq!(e.get("/v1/models/none").await.0, 404);
    assert_eq!(e.get("/v1/none").await.0, 404);
    assert_eq!(e.get("/v1/completions").await.0, 405);
    assert_eq!(e.get("/health").await.1["status"], "ok");

    let mut unknown = chat(1);
    unknown["model"] = "gpt-9".into();
    let (code, reply) = e.post("/v1/chat/completions", &unknown).await;
    assert_eq!((code, &reply["error"]["code"]), (404, &json!("model_not_found")));
    assert!(
        reply["error"]["message"]
            .as_str()
            .unwrap()
            .contains("encoder, tiny")
    );
    for max in [510, u32::MAX] {
        let (code, reply) = e.post("/v1/chat/completions", &chat(max)).await;
        let error = &reply["error"];
        assert_eq!((code, &error["code"]), (400, &json!("context_length_exceeded")));
        assert_eq!(
            (&error["type"], &error["param"]),
            (&json!("invalid_request_error"), &json!("messages"))
        );
    }
    let mut long = chat(1);
    long["max_tokens"] = Value::Null;
    long["messages"][0]["content"] = "x".repeat(600).into();
    let (code, reply) = e.post("/v1/chat/completions", &long).await;
    assert_eq!(
        (code, &reply["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    let (code, _) = e
        .post("/v1/completions", &json!({ "model": "tiny", "prompt": [999] }))
        .await;
    assert_eq!(code, 400);
    let mut turns = chat(1);
    turns["messages"] = json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }]);
    let (code, reply) = e.post("/v1/chat/completions", &turns).await;
    assert!(
        code == 400 && reply.to_string().contains("no chat template"),
        "{reply}"
    );

    // What a page elsewhere could send, and a name that points here.
    let plain = e
        .client
        .post(e.url("/v1/completions"))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 415);
    let renamed = e
        .client
        .get(e.url("/v1/models"))
        .header("host", "evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(renamed.status(), 403);
    let large = json!({ "model": "tiny", "prompt": "x".repeat(3 << 20) });
    assert_eq!(e.post("/v1/completions", &large).await.0, 413);
    e.server.stop().await.unwrap();
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn rejects_whoever_has_not_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("api.key");
    std::fs::write(&file, "a-key-of-some-length\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let e = Endpoint::start(|s| s.api_key_file = Some(file)).await;
    for (given, code) in [
        (None, 401),
        (Some("Bearer a-key-of-some-lengtH"), 401),
        (Some("Basic a-key-of-some-length"), 401),
        (Some("Bearer a-key-of-some-length"), 200),
    ] {
        let mut request = e.client.get(e.url("/v1/models")).header("host", "miner.example");
        if let Some(given) = given {
            request = request.header("authorization", given);
        }
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), code, "{given:?}");
    }
    assert_eq!(e.get("/health").await.0, 200);
    e.server.stop().await.unwrap();
}

/// Asks until the answer is yes.
async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !ask().await {
        assert!(tokio::time::Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_said_and_a_client_that_leaves_makes_room() {
    let e = Endpoint::start(|s| (s.queue, s.batch) = (1, 1)).await;
    let mut long = chat(500);
    long["stream"] = true.into();
    // The first may be over before the second is sent, on a quick machine or where a stop id is drawn: then again.
    let mut seed = 0;
    let first = loop {
        long["seed"] = seed.into();
        let mut first = e
            .client
            .post(e.url("/v1/chat/completions"))
            .json(&long)
            .send()
            .await
            .unwrap();
        first.chunk().await.unwrap();
        let second = e
            .client
            .post(e.url("/v1/chat/completions"))
            .json(&chat(1))
            .send()
            .await
            .unwrap();
        if second.status() == 429 {
            assert_eq!(second.headers()["retry-after"], "1");
            let error: Value = second.json().await.unwrap();
            assert_eq!(error["error"]["type"], "rate_limit_error");
            break first;
        }
        assert!(second.status() == 200 && seed < 100);
        seed += 1;
        drop(first);
        until("the place is free", || async {
            e.get("/health").await.1["requests"] == 0
        })
        .await;
    };
    drop(first);
    until("the place is free", || async {
        e.get("/health").await.1["requests"] == 0
    })
    .await;
    // The batch of one is free as well: the next is answered.
    assert_eq!(e.post("/v1/chat/completions", &chat(2)).await.0, 200);
    e.server.stop().await.unwrap();
}
