//! Bodies as clients send them, and what is refused by its field's name.

use alloy_primitives::B256;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn chat(change: impl FnOnce(&mut Value)) -> Result<Chat, ApiError> {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "sea" }] });
    change(&mut body);
    Chat::read(body.to_string().as_bytes())
}

fn with(name: &str, value: Value) -> Result<Options, ApiError> {
    chat(|b| b[name] = value).map(|c| c.options)
}

#[test]
fn a_bare_chat_has_openais_defaults() {
    let read = chat(|_| ()).unwrap();
    assert_eq!(read.messages, [Message::user("sea")]);
    let o = read.options;
    assert_eq!(
        (o.temperature_q16, o.top_p_q16, o.top_k, o.n),
        (65536, 65536, 0, 1)
    );
    assert_eq!(
        (o.max_tokens, o.seed, o.stream, o.include_usage),
        (None, None, false, false)
    );
    assert!(o.stops.is_empty());
}

#[test]
fn every_option_is_read_from_its_text() {
    let body = br#"{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"be "},{"type":"text","text":"kind"}]},
        {"role":"developer","content":"d"},{"role":"assistant","content":"a","name":"x"}],
        "temperature":7e-1,"top_p":0.95,"top_k":40,"seed":-1,"n":4,"stop":["a","b"],"stream":true,"max_tokens":5,
        "stream_options":{"include_usage":true,"other":1},"max_completion_tokens":6,"user":"me","logprobs":null,
        "presence_penalty":0.0,"logit_bias":{ },"tools":[],"response_format":{"type":"text"},"never heard of":[{}]}"#;
    let read = Chat::read(body).unwrap();
    assert_eq!(read.messages[0].content, "be kind");
    assert_eq!(
        (read.messages[0].role.as_str(), read.messages[1].role.as_str()),
        ("system", "system")
    );
    let o = read.options;
    assert_eq!((o.temperature_q16, o.top_p_q16, o.top_k), (45875, 62259, 40));
    assert_eq!((o.seed, o.n, o.max_tokens), (Some(u64::MAX), 4, Some(6)));
    assert!(o.stream && o.include_usage);
    assert_eq!(o.stops, ["a", "b"]);
    let jobs = o.jobs(B256::ZERO, &[1], 6, &[9]);
    let seeds: Vec<u64> = jobs.iter().map(|j| j.seed).collect();
    assert_eq!(seeds, [u64::MAX, 0, 1, 2], "choices count up");
}

#[test]
fn at_temperature_nought_a_prompt_is_one_job() {
    let o = with("temperature", json!(0)).unwrap();
    let job = &o.jobs(B256::ZERO, &[1], 6, &[])[0];
    assert_eq!((job.sampler, job.seed), (Sampler::GREEDY, 0));
    let drawn = with("top_k", json!(3)).unwrap().jobs(B256::ZERO, &[1], 6, &[]);
    assert!(drawn[0].seed < 1 << SEED_BITS);
}

#[test]
fn rejects_what_cannot_be_done_by_the_name_of_its_field() {
    for (name, value, code) in [
        ("logprobs", json!(true), "unsupported_parameter"),
        ("top_logprobs", json!(2), "unsupported_parameter"),
        ("tools", json!([{}]), "unsupported_parameter"),
        ("presence_penalty", json!(0.5), "unsupported_parameter"),
        ("logit_bias", json!({ "5": 1 }), "unsupported_parameter"),
        (
            "response_format",
            json!({ "type": "json_object" }),
            "unsupported_parameter",
        ),
        ("temperature", json!("hot"), "invalid_value"),
        ("temperature", json!(-1), "invalid_value"),
        ("temperature", json!(17), "invalid_value"),
        ("top_p", json!(1.5), "invalid_value"),
        ("top_k", json!(-1), "invalid_type"),
        ("seed", json!(1.5), "invalid_type"),
        ("n", json!(0), "invalid_value"),
        ("n", json!(5), "invalid_value"),
        ("n", json!("two"), "invalid_type"),
        ("max_tokens", json!(0), "invalid_value"),
        ("max_completion_tokens", json!("1"), "invalid_type"),
        ("stop", json!(7), "invalid_type"),
        ("stop", json!([""]), "invalid_value"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "invalid_value"),
        ("stream", json!("yes"), "invalid_type"),
        ("stream_options", json!({}), "invalid_value"),
        ("messages", json!([]), "invalid_value"),
        ("messages", json!("sea"), "invalid_type"),
        ("model", json!(5), "invalid_type"),
        ("model", Value::Null, "missing_required_parameter"),
    ] {
        let error = with(name, value.clone()).unwrap_err();
        assert_eq!(
            (error.param.as_deref(), error.code, error.status.as_u16()),
            (Some(name), Some(code), 400),
            "{name}: {value}: {error}"
        );
    }
    let body = |b: &mut Value| (b["temperature"], b["n"]) = (json!(0), json!(2));
    assert_eq!(chat(body).unwrap_err().param.as_deref(), Some("n"));
}

#[test]
fn rejects_roles_and_parts_that_are_not_text_by_their_place() {
    let second = |m: Value| chat(|b| b["messages"].as_array_mut().unwrap().push(m)).unwrap_err();
    let role = second(json!({ "role": "tool", "content": "x" }));
    assert_eq!(role.param.as_deref(), Some("messages[1].role"));
    let image = second(json!({ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }));
    assert_eq!(image.param.as_deref(), Some("messages[1].content"));
    let none = second(json!({ "role": "assistant", "content": null }));
    assert!(none.message.contains("no content"));
}

#[test]
fn prompts_and_texts_come_in_every_form() {
    let read = |prompt: Value| {
        Completion::read(json!({ "model": "m", "prompt": prompt }).to_string().as_bytes()).map(|c| c.prompts)
    };
    let text = |t: &str| Input::Text(t.into());
    assert_eq!(read(json!("a")).unwrap(), [text("a")]);
    assert_eq!(read(json!(["a", "b"])).unwrap(), [text("a"), text("b")]);
    assert_eq!(read(json!([1, 2])).unwrap(), [Input::Ids(vec![1, 2])]);
    assert_eq!(
        read(json!([[1], [2]])).unwrap(),
        [Input::Ids(vec![1]), Input::Ids(vec![2])]
    );
    for bad in [
        json!([]),
        json!([[]]),
        json!({}),
        json!([1, "a", -1]),
        json!(vec!["a"; 17]),
    ] {
        assert_eq!(
            read(bad.clone()).unwrap_err().param.as_deref(),
            Some("prompt"),
            "{bad}"
        );
    }
    for (name, value) in [
        ("echo", json!(true)),
        ("best_of", json!(2)),
        ("suffix", json!("x")),
        ("logprobs", json!(0)),
    ] {
        let body = json!({ "model": "m", "prompt": "a", name: value });
        let error = Completion::read(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(
            (error.param.as_deref(), error.code),
            (Some(name), Some("unsupported_parameter"))
        );
    }
    let embed = |name: &str, value: Value| {
        Embedding::read(
            json!({ "model": "m", "input": "a", name: value })
                .to_string()
                .as_bytes(),
        )
    };
    assert!(embed("encoding_format", json!("base64")).unwrap().base64);
    assert!(!embed("user", json!("u")).unwrap().base64);
    assert!(embed("encoding_format", json!("int8")).is_err());
    assert_eq!(
        embed("dimensions", json!(8)).unwrap_err().param.as_deref(),
        Some("dimensions")
    );
}

/// Any JSON, not too deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("role|content|type|text|[a-z]{1,4}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

const NAMES: [&str; 24] = [
    "model",
    "messages",
    "prompt",
    "input",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "n",
    "stop",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "tools",
    "response_format",
    "echo",
    "suffix",
    "best_of",
    "dimensions",
    "encoding_format",
    "logit_bias",
    "presence_penalty",
];

proptest! {
    /// Whatever is sent is read or refused with a 400; what is read is in range.
    #[test]
    fn no_body_makes_the_reader_panic(fields in prop::collection::btree_map(prop::sample::select(&NAMES[..]), any_json(), 0..8)) {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }], "prompt": "p", "input": "i" });
        for (name, value) in fields {
            body[name] = value;
        }
        let bytes = body.to_string();
        let check = |o: Result<Options, ApiError>| match o {
            Ok(o) => {
                prop_assert!(o.temperature_q16 <= 16 << 16 && (1..=65536).contains(&o.top_p_q16));
                prop_assert!((1..=4).contains(&o.n) && o.max_tokens != Some(0) && o.stops.len() <= 4);
                Ok(())
            }
            Err(e) => {
                prop_assert_eq!(e.status.as_u16(), 400);
                Ok(())
            }
        };
        check(Chat::read(bytes.as_bytes()).map(|c| c.options))?;
        check(Completion::read(bytes.as_bytes()).map(|c| c.options))?;
        if let Err(e) = Embedding::read(bytes.as_bytes()) {
            prop_assert_eq!(e.status.as_u16(), 400);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        prop_assert!(Chat::read(&bytes).is_err() && Completion::read(&bytes).is_err());
    }
}
