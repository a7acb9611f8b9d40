//! Prices that change while the neuron runs: its offers are made again at the new ones.

use alloy_primitives::{Address, B256};
use tokio::{sync::watch, task::JoinHandle};

use super::Neuron;
use crate::{
    chain::{Hub, Sender},
    config::Ask,
    exit::Failure,
    stake::INCLUSION_TIMEOUT,
};

/// Ends with the neuron.
pub(super) struct Prices(JoinHandle<()>);

impl Drop for Prices {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the neuron's offers again whenever the prices change. Jobs posted before are answered at their own fee.
pub(super) fn follow(neuron: &Neuron, mut prices: watch::Receiver<Ask>) -> Prices {
    let (hub, sender) = (neuron.hub.clone(), neuron.sender.clone());
    let models: Vec<(B256, String)> = neuron.names.values().cloned().collect();
    Prices(tokio::spawn(async move {
        while prices.changed().await.is_ok() {
            let ask = *prices.borrow_and_update();
            for (id, name) in &models {
                match offer_again(&hub, &sender, *id, &ask).await {
                    Ok(true) => tracing::info!(
                        model = name, job = %ask.per_job, prompt_id = ask.per_input, token = ask.per_output,
                        "offered at the new price"
                    ),
                    Ok(false) => {}
                    Err(e) => tracing::error!(
                        model = name,
                        "the new price is not offered: {e}; the old one stands until the next change or start"
                    ),
                }
            }
        }
    }))
}

/// Whether an offer of `who` stands at another price; gives the collateral that it allows.
async fn standing(
    hub: &Hub,
    who: Address,
    id: B256,
    ask: &Ask,
) -> Result<Option<alloy_primitives::U256>, Failure> {
    let offers = hub
        .offers_by_id(id)
        .await
        .map_err(|e| e.into_failure("reading offers"))?;
    let mine = offers.iter().find(|o| o.neuron == who);
    Ok(mine
        .filter(|o| {
            o.askBase.to::<alloy_primitives::U256>() != ask.per_job
                || (o.askPerInput, o.askPerOutput) != (ask.per_input, ask.per_output)
        })
        .map(|o| o.collateralMax.to()))
}

async fn offer_again(hub: &Hub, sender: &Sender, id: B256, ask: &Ask) -> Result<bool, Failure> {
    let Some(collateral) = standing(hub, sender.address(), id, ask).await? else {
        return Ok(false);
    };
    let call = hub.serve_id(id, ask, collateral);
    sender
        .execute(&call, "offering at a new price", INCLUSION_TIMEOUT)
        .await?;
    Ok(true)
}
