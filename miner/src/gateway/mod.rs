//! `serve`: an OpenAI-compatible endpoint. Answers are computed here, at once, on the same integers as a neuron's, and carry
//! their trace root. With `--settle` they are posted as paid jobs behind.
//!
//! `fields` and `number` read a body, `request` says what it means; `compute` answers, `text` turns ids into text; `reply`
//! and `stream` tell it; `guard` says to whom; `api` is the routes, `error` what they refuse with;
//! `settle` is what happens on chain.

pub mod api;
pub mod compute;
pub mod error;
mod fields;
pub mod guard;
pub mod number;
pub mod reply;
pub mod request;
pub mod settings;
pub mod settle;
mod stream;
pub mod text;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};

pub use settings::Settings;

use crate::{
    chain::{Hub, Sender},
    cli::ServeArgs,
    config::{self, Layers},
    datadir::DataDir,
    engine,
    exit::Failure,
    models, wallet, worker,
};

/// How long replies under way may take once it is to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A listening endpoint.
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
    settling: Option<JoinHandle<()>>,
}

impl Server {
    /// Loads the models and listens. Where there is an account, answers are settled with its coins.
    pub async fn start(
        data: &DataDir,
        settings: &Settings,
        device: config::Device,
        account: Option<(Hub, Sender)>,
    ) -> Result<Self, Failure> {
        let key = settings
            .api_key_file
            .as_deref()
            .map(guard::Key::read)
            .transpose()?;
        guard::check_listen(settings.listen, key.as_ref())?;
        // The port first: a second server is refused before it has loaded anything.
        let listener = TcpListener::bind(settings.listen).await.map_err(|e| {
            Failure::Usage(format!(
                "cannot listen on {}: {e}; name another address with --listen",
                settings.listen
            ))
        })?;
        let address = listener
            .local_addr()
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("the listening address")))?;
        let models = load(data, settings, device)?;
        let settler = match account {
            Some((hub, sender)) => {
                let listed = models.iter().map(|m| m.listed.clone()).collect();
                let settler = settle::Settler::open(data, hub, sender, listed, settings.caps())?;
                Some(Arc::new(settler))
            }
            None => None,
        };
        let settling = settler.clone().map(|s| tokio::spawn(s.follow()));
        let app = Arc::new(api::App {
            models,
            key,
            settler,
            queue: Arc::new(Semaphore::new(settings.queue.min(Semaphore::MAX_PERMITS))),
            places: settings.queue,
            max_tokens: settings.max_tokens,
            started: api::now(),
        });
        let (stop, stopped) = oneshot::channel();
        let router = api::router(app);
        let serving = tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(async {
                    // Also when the server is dropped.
                    let _ = stopped.await;
                })
                .await
        });
        Ok(Self {
            address,
            stop,
            serving,
            settling,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, lets those under way finish for ten seconds, and ends.
    pub async fn stop(self) -> Result<(), Failure> {
        let Self {
            stop,
            mut serving,
            settling,
            ..
        } = self;
        let _ = stop.send(());
        let ended = match tokio::time::timeout(GRACE, &mut serving).await {
            Ok(Ok(ended)) => ended.map_err(|e| Failure::Internal(anyhow::Error::new(e).context("serving"))),
            Ok(Err(e)) => Err(Failure::Internal(anyhow::Error::new(e).context("serving"))),
            Err(_) => {
                // Connections are tasks of their own; they end with the process.
                serving.abort();
                Ok(())
            }
        };
        // Whatever it was doing is in its files, and goes on from there the next time.
        if let Some(settling) = settling {
            settling.abort();
            let _ = settling.await;
        }
        ended
    }
}

fn load(data: &DataDir, settings: &Settings, device: config::Device) -> Result<Vec<api::Model>, Failure> {
    let names = if settings.models.is_empty() {
        let all = models::list(data)?.into_iter();
        all.map(|m| m.map(|m| m.name)).collect::<Result<_, _>>()?
    } else {
        settings.models.clone()
    };
    if names.is_empty() {
        // Says where models are looked for and how one gets there.
        models::open(data, None)?;
    }
    let device = engine::device(device)?;
    let mut loaded = Vec::new();
    for name in &names {
        let (listed, pack) = models::open(data, Some(name))?;
        let tokenizer = Arc::new(models::tokenizer(&pack)?);
        let computer =
            compute::Computer::start(&pack, device.as_ref(), Arc::clone(&tokenizer), settings.batch)?;
        loaded.push(api::Model {
            listed,
            tokenizer,
            computer,
        });
    }
    Ok(loaded)
}

/// Runs the command.
pub async fn run(data: &DataDir, layers: &Layers, args: &ServeArgs) -> Result<(), Failure> {
    let settings = layers.gateway().clone().with(args)?;
    let account = if settings.settle {
        let hub = Hub::connect(&layers.chain(&args.chain)).await?;
        let signer = wallet::open(data, &layers.key(&args.key, &args.chain, true))?;
        let sender = Sender::new(Arc::clone(hub.node()), signer);
        Some((hub, sender))
    } else {
        None
    };
    let server = Server::start(data, &settings, layers.device(&args.device), account).await?;
    println!("listening on http://{}/v1", server.address());
    let interrupted = worker::signalled().await;
    server.stop().await?;
    if interrupted {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}
