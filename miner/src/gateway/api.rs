//! The routes: from a request to its jobs, from the pieces of their answers to one reply or a stream.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{HeaderName, HeaderValue, StatusCode},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bitai_model::{engine::EngineError, tokenizer::Tokenizer};
use bitai_types::Job;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    compute::{Answer, Computer, Order, Piece},
    error::ApiError,
    guard::{Key, guard},
    reply::{self, Head, Kind, Settlement},
    request::{Chat, Completion, Embedding, Input, Options},
    settle::Settler,
    stream,
};
use crate::{embed, engine::engine_failure, exit::Failure, models::Listed};

/// Longest body that is read.
const BODY_MAX: usize = 2 << 20;
/// The reply's trace roots, a choice or text each.
pub const TRACE_ROOT: HeaderName = HeaderName::from_static("x-bitai-trace-root");
/// Tokens of a completion that names no number, as OpenAI has it.
const COMPLETION_TOKENS: u32 = 16;

/// A model that answers.
pub struct Model {
    /// Its names and numbers.
    pub listed: Listed,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its thread.
    pub computer: Computer,
}

/// What every request shares.
pub struct App {
    /// The models, by name.
    pub models: Vec<Model>,
    /// Whom to answer; nobody but this machine where there is none.
    pub key: Option<Key>,
    /// A place a request.
    pub queue: Arc<Semaphore>,
    /// Places in all.
    pub places: usize,
    /// Tokens of a chat that names no number.
    pub max_tokens: u32,
    /// Posts answers on chain, where that is asked for.
    pub settler: Option<Arc<Settler>>,
    /// When it started, seconds since 1970.
    pub started: u64,
}

type Body = Result<Bytes, BytesRejection>;

fn body(body: Body) -> Result<Bytes, ApiError> {
    body.map_err(|e| ApiError::new(e.status(), format!("{e}; at most {BODY_MAX} bytes are read")))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// The routes of an endpoint.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/bitai/jobs/{id}", get(job))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(app)
}

async fn nowhere(uri: axum::http::Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", uri.path()),
    )
    .code("unknown_url")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this address takes another method (models and jobs are read by GET, answers asked for by POST)",
    )
}

async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let names: Vec<_> = app.models.iter().map(|m| &m.listed.name).collect();
    let busy = app.places.saturating_sub(app.queue.available_permits());
    Json(json!({ "status": "ok", "models": names, "requests": busy, "queue": app.places }))
}

fn described(app: &App, model: &Model) -> Value {
    let l = &model.listed;
    json!({
        "id": l.name,
        "object": "model",
        "created": app.started,
        "owned_by": "bitai",
        "bitai": {
            "model_root": l.model_root,
            "kind": if l.shape.embeds() { "embedding" } else { "text" },
            "context": l.shape.context,
        },
    })
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let data: Vec<_> = app.models.iter().map(|m| described(&app, m)).collect();
    Json(json!({ "object": "list", "data": data }))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(described(&app, app.model(&name)?)))
}

async fn job(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let missing = |why: &str| {
        ApiError::new(StatusCode::NOT_FOUND, format!("no settlement `{id}` here: {why}"))
            .code("job_not_found")
    };
    let settler = app
        .settler
        .as_ref()
        .ok_or_else(|| missing("this endpoint posts nothing on chain; start it with --settle"))?;
    let record = settler
        .record(&id)
        .ok_or_else(|| missing("the id stands in a reply's `bitai.settlement`"))?;
    Ok(Json(record.told()))
}

impl App {
    /// A model by name or root.
    fn model(&self, named: &str) -> Result<&Model, ApiError> {
        let root = crate::cli::as_root(named);
        let found = self
            .models
            .iter()
            .find(|m| m.listed.name == named || root == Some(m.listed.model_root));
        found.ok_or_else(|| {
            let names: Vec<_> = self.models.iter().map(|m| m.listed.name.as_str()).collect();
            ApiError {
                status: StatusCode::NOT_FOUND,
                ..ApiError::bad(
                    "model",
                    format!(
                        "there is no model `{named}` here; there are: {}",
                        names.join(", ")
                    ),
                )
                .code("model_not_found")
            }
        })
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.queue)
            .try_acquire_owned()
            .map_err(|_| ApiError::busy(self.places))
    }

    /// How an answer stands with the chain.
    pub async fn settle(&self, model: &Listed, answer: &Answer) -> Settlement {
        match &self.settler {
            Some(settler) => settler.admit(model, answer).await,
            None => Settlement::Unsettled {
                reason: "this endpoint posts nothing on chain".into(),
            },
        }
    }
}

/// A prompt's ids.
fn ids(
    tokenizer: &Tokenizer,
    input: Input,
    encode: impl Fn(&str) -> Result<Vec<u32>, ApiError>,
) -> Result<Vec<u32>, ApiError> {
    match input {
        Input::Text(text) => encode(&text),
        Input::Ids(ids) => match ids.iter().find(|id| **id as usize >= tokenizer.vocab()) {
            Some(id) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                format!("token {id} is not below the vocabulary of {}", tokenizer.vocab()),
            )
            .code("invalid_value")),
            None => Ok(ids),
        },
    }
}

/// A conversation's ids: through the template; of a model without one, a single user's text as it is.
fn conversation(tokenizer: &Tokenizer, chat: &Chat) -> Result<Vec<u32>, ApiError> {
    let refused = |e: &dyn std::fmt::Display| ApiError::bad("messages", e.to_string());
    if tokenizer.has_template() {
        return tokenizer.chat(&chat.messages).map_err(|e| refused(&e));
    }
    match chat.messages.as_slice() {
        [one] if one.role == "user" => tokenizer.encode(&one.content).map_err(|e| refused(&e)),
        _ => Err(refused(
            &"the model has no chat template: send one user message, or use /v1/completions",
        )),
    }
}

async fn chat(State(app): State<Arc<App>>, sent: Body) -> Result<Response, ApiError> {
    let request = Chat::read(&body(sent)?)?;
    let model = app.model(&request.model)?;
    let prompts = vec![conversation(&model.tokenizer, &request)?];
    let asked = Asked {
        kind: Kind::Chat,
        name: &request.model,
        prompts,
        options: &request.options,
        default: app.max_tokens,
    };
    generate(&app, model, asked).await
}

async fn completions(State(app): State<Arc<App>>, sent: Body) -> Result<Response, ApiError> {
    let request = Completion::read(&body(sent)?)?;
    let model = app.model(&request.model)?;
    let tokenizer = &model.tokenizer;
    let encode = |text: &str| {
        tokenizer
            .encode(text)
            .map_err(|e| ApiError::bad("prompt", e.to_string()))
    };
    let prompts = request.prompts.into_iter().map(|p| ids(tokenizer, p, encode));
    let asked = Asked {
        kind: Kind::Text,
        name: &request.model,
        prompts: prompts.collect::<Result<_, _>>()?,
        options: &request.options,
        default: COMPLETION_TOKENS,
    };
    generate(&app, model, asked).await
}

/// A request to generate.
struct Asked<'a> {
    kind: Kind,
    name: &'a str,
    prompts: Vec<Vec<u32>>,
    options: &'a Options,
    default: u32,
}

impl Asked<'_> {
    /// The jobs that it means, all choices of a prompt side by side.
    fn jobs(&self, model: &Model) -> Result<Vec<Job>, ApiError> {
        let param = match self.kind {
            Kind::Chat => "messages",
            Kind::Text => "prompt",
        };
        if model.listed.shape.embeds() {
            let why = engine_failure(EngineError::NotADecoder);
            return Err(ApiError::bad("model", why.to_string()));
        }
        let stop = &model.tokenizer.special().stop;
        let mut jobs = Vec::new();
        for ids in &self.prompts {
            let room = (model.listed.shape.context as usize).saturating_sub(ids.len());
            // Who names no number gets what there is room for; none at all is refused below.
            let room = u32::try_from(room).unwrap_or(u32::MAX).max(1);
            let max_new = self.options.max_tokens.unwrap_or(self.default.min(room));
            for job in self.options.jobs(model.listed.model_root, ids, max_new, stop) {
                job.check(&model.listed.shape)
                    .map_err(|e| ApiError::of(&Failure::Job(e), param))?;
                jobs.push(job);
            }
        }
        Ok(jobs)
    }
}

/// What an asker waits for.
pub type Pieces = mpsc::UnboundedReceiver<Piece>;

/// The model's thread has ended, which only a fault of ours does.
pub fn died() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the model's thread has ended; restart bitai-miner serve",
    )
}

fn order(model: &Model, job: Job, stops: &[String]) -> Result<Pieces, ApiError> {
    let (to, pieces) = mpsc::unbounded_channel();
    let stops = stops.to_vec();
    if model.computer.order(Order { job, stops, to }) {
        Ok(pieces)
    } else {
        Err(died())
    }
}

/// Text and answer of one choice.
async fn collect(pieces: &mut Pieces) -> Result<(String, Answer), ApiError> {
    let mut all = String::new();
    loop {
        match pieces.recv().await {
            Some(Piece::Text(text)) => all.push_str(&text),
            Some(Piece::Done(answer)) => return Ok((all, *answer)),
            Some(Piece::Failed(failure)) => return Err(ApiError::of(&failure, "model")),
            None => return Err(died()),
        }
    }
}

async fn generate(app: &Arc<App>, model: &Model, asked: Asked<'_>) -> Result<Response, ApiError> {
    let jobs = asked.jobs(model)?;
    let place = app.place()?;
    let options = asked.options;
    let head = Head {
        kind: asked.kind,
        id: format!(
            "{}-{:016x}",
            if asked.kind == Kind::Chat {
                "chatcmpl"
            } else {
                "cmpl"
            },
            rand::random::<u64>()
        ),
        created: now(),
        model: asked.name.to_owned(),
    };
    let prompt_tokens = asked.prompts.iter().map(Vec::len).sum();
    let mut choices = Vec::new();
    for job in jobs {
        choices.push(order(model, job, &options.stops)?);
    }
    if options.stream {
        return Ok(stream::response(stream::Telling {
            app: Arc::clone(app),
            model: model.listed.clone(),
            head,
            choices,
            prompt_tokens,
            include_usage: options.include_usage,
            place,
        }));
    }
    let mut done = Vec::new();
    for pieces in &mut choices {
        let (text, answer) = collect(pieces).await?;
        let settlement = app.settle(&model.listed, &answer).await;
        done.push((text, answer, settlement));
    }
    let roots = reply::roots(done.iter().map(|(_, a, _)| &a.trace_root));
    Ok(with_roots(&roots, head.whole(&done, prompt_tokens)))
}

fn with_roots(roots: &str, body: Value) -> Response {
    let mut response = Json(body).into_response();
    if let Ok(value) = HeaderValue::from_str(roots) {
        response.headers_mut().insert(TRACE_ROOT, value);
    }
    response
}

async fn embeddings(State(app): State<Arc<App>>, sent: Body) -> Result<Response, ApiError> {
    let request = Embedding::read(&body(sent)?)?;
    let model = app.model(&request.model)?;
    if !model.listed.shape.embeds() {
        let why = engine_failure(EngineError::NotAnEncoder);
        return Err(ApiError::bad("model", why.to_string()));
    }
    let tokenizer = &model.tokenizer;
    let sentence = |text: &str| {
        tokenizer
            .sentence(text)
            .map_err(|e| ApiError::bad("input", e.to_string()))
    };
    let mut jobs = Vec::new();
    for input in request.inputs {
        let job = Job::embedding(model.listed.model_root, ids(tokenizer, input, sentence)?);
        job.check(&model.listed.shape)
            .map_err(|e| ApiError::of(&Failure::Job(e), "input"))?;
        jobs.push(job);
    }
    let _place = app.place()?;
    let mut data = Vec::new();
    let mut roots = Vec::new();
    let mut tokens = 0;
    let mut first = Value::Null;
    // One after the other: an encoder takes one text at a time.
    for (index, job) in jobs.into_iter().enumerate() {
        tokens += job.input_ids.len();
        let (_, answer) = collect(&mut order(model, job, &[])?).await?;
        let settlement = app.settle(&model.listed, &answer).await;
        let bitai = reply::bitai(&answer, &settlement);
        if index == 0 {
            first = bitai.clone();
        }
        let real = embed::Embedding::of(&answer.output_ids).embedding;
        let embedding = if request.base64 {
            // float32, as clients unpack it: the one rounding there is, and nothing is hashed from it.
            let bytes: Vec<u8> = real.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
            json!(reply::base64(&bytes))
        } else {
            json!(real)
        };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding, "bitai": bitai }));
        roots.push(answer.trace_root);
    }
    let body = json!({
        "object": "list",
        "model": request.model,
        "data": data,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        "bitai": first,
    });
    Ok(with_roots(&reply::roots(roots.iter()), body))
}
