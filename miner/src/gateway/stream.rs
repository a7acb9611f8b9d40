//! A reply as server-sent events (HTML standard, 9.2): chunks as text becomes certain, then `[DONE]`. Where the client
//! leaves, everything it asked for is dropped with the stream.

use std::{convert::Infallible, sync::Arc};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};

use super::{
    api::{App, Pieces, died},
    compute::Piece,
    error::ApiError,
    reply::Head,
};
use crate::models::Listed;

/// Chunks that wait for a slow client.
const WAITING: usize = 64;

/// What a stream tells of.
pub(super) struct Telling {
    /// What every request shares.
    pub(super) app: Arc<App>,
    /// The model.
    pub(super) model: Listed,
    /// What the chunks share.
    pub(super) head: Head,
    /// The choices, in order.
    pub(super) choices: Vec<Pieces>,
    /// Tokens of all prompts.
    pub(super) prompt_tokens: usize,
    /// Whether the counts come last.
    pub(super) include_usage: bool,
    /// The request's place in the queue.
    pub(super) place: OwnedSemaphorePermit,
}

/// Nobody listens any more.
struct Gone;

async fn say(to: &mpsc::Sender<Event>, value: &Value) -> Result<(), Gone> {
    to.send(Event::default().data(value.to_string()))
        .await
        .map_err(|_| Gone)
}

/// The stream as a response.
pub(super) fn response(telling: Telling) -> Response {
    let (to, events) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        // Dropping the telling drops its jobs, also where the client goes in the middle of a long step.
        tokio::select! {
            _ = tell(telling, &to) => {}
            () = to.closed() => {}
        }
    });
    Sse::new(ReceiverStream::new(events).map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::default())
        .into_response()
}

async fn tell(telling: Telling, to: &mpsc::Sender<Event>) -> Result<(), Gone> {
    let Telling {
        app,
        model,
        head,
        choices,
        prompt_tokens,
        include_usage,
        place: _place,
    } = telling;
    for index in 0..choices.len() {
        if let Some(chunk) = head.opening(index) {
            say(to, &chunk).await?;
        }
    }
    let mut left = choices.len();
    let mut made = 0;
    let mut pieces = futures_util::stream::select_all(
        choices
            .into_iter()
            .enumerate()
            .map(|(index, p)| UnboundedReceiverStream::new(p).map(move |piece| (index, piece))),
    );
    while left > 0 {
        let failed = match pieces.next().await {
            Some((index, Piece::Text(text))) => {
                say(to, &head.text(index, &text)).await?;
                continue;
            }
            Some((index, Piece::Done(answer))) => {
                let settlement = app.settle(&model, &answer).await;
                made += answer.output_ids.len();
                left -= 1;
                say(to, &head.closing(index, &answer, &settlement)).await?;
                continue;
            }
            Some((_, Piece::Failed(failure))) => ApiError::of(&failure, "model"),
            None => died(),
        };
        // The status is long sent: clients read the error from the event.
        return say(to, &failed.body()).await;
    }
    if include_usage {
        say(to, &head.counts(prompt_tokens, made)).await?;
    }
    to.send(Event::default().data("[DONE]")).await.map_err(|_| Gone)
}
