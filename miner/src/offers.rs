//! A neuron's standing offers: which there are, and taking them back. Whoever is offered is drawn, whether it runs or
//! not, and pays for its silence.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};

use crate::{
    chain::{Hub, Refusal, Sender, hub::is_not_serving},
    cli::{UnserveArgs, as_root},
    config::Layers,
    datadir::DataDir,
    exit::{Failure, short},
    journal::Signed,
    models, stake, wallet,
};

/// What is said of a withdrawal that fails.
const WHAT: &str = "withdrawing an offer";
/// How often a withdrawal of an earlier run is looked for.
const POLL: Duration = Duration::from_millis(500);
/// Longest that the end of a neuron waits for the list of what it leaves behind.
const REMIND: Duration = Duration::from_secs(5);

/// An offer on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The registration.
    pub id: B256,
    /// The model's name here, where its pack is in the data directory.
    pub name: Option<String>,
}

impl std::fmt::Display for Offered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", short(&self.id)),
            None => write!(f, "{}", self.id),
        }
    }
}

/// Everything that a neuron offers to serve.
pub async fn standing(data: &DataDir, hub: &Hub, who: Address) -> Result<Vec<Offered>, Failure> {
    let here: Vec<_> = models::list(data)?.into_iter().flatten().collect();
    let ids = hub.offered(who).await.map_err(reading)?;
    let named = |id: B256| Offered {
        id,
        name: here.iter().find(|m| m.key().id() == id).map(|m| m.name.clone()),
    };
    Ok(ids.into_iter().map(named).collect())
}

fn reading(refusal: Refusal) -> Failure {
    refusal.into_failure("reading offers")
}

/// Withdrawals that are on their way; none for one that an earlier run has sent.
type Sent = Vec<(Offered, Option<Signed>)>;

/// Takes offers back and waits until none of them stands.
pub async fn withdraw(hub: &Hub, sender: &Sender, offers: &[Offered]) -> Result<(), Failure> {
    let sent = send(hub, sender, offers).await?;
    wait(hub, sender, &sent).await
}

/// Sends all withdrawals before the first is waited for: a block takes minutes.
async fn send(hub: &Hub, sender: &Sender, offers: &[Offered]) -> Result<Sent, Failure> {
    let mut sent = Vec::new();
    for offer in offers {
        match sender.send(&hub.unserve(offer.id)).await {
            Ok(signed) => sent.push((offer.clone(), Some(signed))),
            // An earlier run's withdrawal was executed since the lists were read, or is about to be.
            Err(e) if is_not_serving(&e) => sent.push((offer.clone(), None)),
            Err(e) => return Err(e.into_failure(WHAT)),
        }
    }
    Ok(sent)
}

/// Waits until no offer stands whose withdrawal was sent; a price that rises is paid.
async fn wait(hub: &Hub, sender: &Sender, sent: &Sent) -> Result<(), Failure> {
    for (offer, signed) in sent {
        let ended = match signed {
            Some(signed) => sender
                .wait(signed, WHAT, stake::INCLUSION_TIMEOUT)
                .await
                .map(|_| ()),
            None => gone_in_time(hub, sender.address(), offer).await,
        };
        // Reverted because another one did it first: the offer is gone all the same.
        if let Err(e) = ended
            && stands(hub, sender.address(), offer.id).await?
        {
            return Err(e);
        }
    }
    Ok(())
}

async fn stands(hub: &Hub, who: Address, id: B256) -> Result<bool, Failure> {
    let offers = hub.offers_by_id(id).await.map_err(reading)?;
    Ok(offers.iter().any(|o| o.neuron == who))
}

async fn gone_in_time(hub: &Hub, who: Address, offer: &Offered) -> Result<(), Failure> {
    let until = tokio::time::Instant::now() + stake::INCLUSION_TIMEOUT;
    while stands(hub, who, offer.id).await? {
        if tokio::time::Instant::now() > until {
            return Err(Failure::Transaction {
                what: WHAT.into(),
                why: format!("the offer for {offer} still stands, though a withdrawal of it was under way"),
            });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Takes back every offer of the sender but those for the models of `kept`, and says so. The withdrawals have left when
/// this returns; they are seen to their block beside the neuron's work, since jobs that it is drawn for do not wait.
pub async fn withdraw_all_but(
    data: &DataDir,
    hub: &Hub,
    sender: &Sender,
    kept: &[B256],
) -> Result<(), Failure> {
    let mut stale = standing(data, hub, sender.address()).await?;
    stale.retain(|offer| !kept.contains(&offer.id));
    for offer in &stale {
        tracing::warn!(
            model = %offer,
            "offered, but not served here: withdrawing the offer (--keep-offers leaves it to another machine)"
        );
    }
    let sent = send(hub, sender, &stale).await?;
    let (hub, sender) = (hub.clone(), sender.clone());
    tokio::spawn(async move {
        match wait(&hub, &sender, &sent).await {
            Ok(()) => sent
                .iter()
                .for_each(|(offer, _)| tracing::info!(model = %offer, "offer withdrawn")),
            Err(e) => tracing::error!("{e}; `bitai-miner unserve` tries again, and so does the next start"),
        }
    });
    Ok(())
}

/// Says what a neuron that ends leaves behind. It is only a word: no node, no list.
pub(crate) async fn remind(hub: &Hub, who: Address) {
    if let Ok(Ok(ids)) = tokio::time::timeout(REMIND, hub.offered(who)).await
        && !ids.is_empty()
    {
        tracing::warn!(
            offers = ids.len(),
            "this neuron is still offered, and whoever is drawn and silent loses collateral; if it does not come back \
             soon: bitai-miner unserve --all"
        );
    }
}

/// The offers that the arguments mean; a text that fits none of them is said and left out.
async fn chosen(
    data: &DataDir,
    hub: &Hub,
    args: &UnserveArgs,
    standing: Vec<Offered>,
) -> Result<Vec<Offered>, Failure> {
    if args.all {
        return Ok(standing);
    }
    let mut roots = Vec::new();
    for offer in &standing {
        let line = hub.model_by_id(offer.id).await;
        let line = line.map_err(|e| e.into_failure("reading the model registry"))?;
        roots.push(line.map(|line| line.modelRoot));
    }
    let mut chosen: Vec<Offered> = Vec::new();
    for text in &args.model {
        // An id or a root needs no pack; a name does.
        let meant = as_root(text);
        let id = match meant {
            Some(hex) => hex,
            None => models::named(data, text)?.key().id(),
        };
        let fits = |(offer, root): &(&Offered, &Option<B256>)| {
            offer.id == id || (meant.is_some() && **root == meant)
        };
        let found: Vec<_> = standing.iter().zip(&roots).filter(fits).collect();
        if found.is_empty() {
            println!("not offered  {text}");
        }
        for (offer, _) in found {
            if !chosen.contains(offer) {
                chosen.push(offer.clone());
            }
        }
    }
    Ok(chosen)
}

/// Runs `unserve`.
pub async fn run(data: &DataDir, layers: &Layers, args: &UnserveArgs) -> Result<(), Failure> {
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let signer = wallet::open_on(
        data,
        &layers.key(&args.key, &args.chain, false),
        hub.node().chain_id(),
    )?;
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let who = sender.address();
    let all = standing(data, &hub, who).await?;
    let offers = chosen(data, &hub, args, all).await?;
    let spinner = crate::progress::spinner("waiting for a Bitcoin block");
    let result = withdraw(&hub, &sender, &offers).await;
    spinner.finish_and_clear();
    result?;
    for offer in &offers {
        println!("withdrawn    {offer}");
    }
    let left = hub.offered(who).await.map_err(reading)?;
    println!("{who} offers {} models", left.len());
    let neuron = hub
        .neuron(who)
        .await
        .map_err(|e| e.into_failure("reading the stake"))?;
    if !neuron.locked.is_zero() {
        println!(
            "open jobs hold {} wei of its stake: keep `bitai-miner run` up until they have ended",
            neuron.locked
        );
    }
    Ok(())
}
