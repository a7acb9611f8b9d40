//! Prices that change while the neuron runs: its offers are made again at the new ones.

use alloy_primitives::{Address, B256, U256};
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
pub(super) fn follow(neuron: &Neuron, prices: watch::Receiver<Ask>) -> Prices {
    let models = neuron.names.values().cloned().collect();
    offers(neuron.hub.clone(), neuron.sender.clone(), models, prices)
}

fn offers(hub: Hub, sender: Sender, models: Vec<(B256, String)>, mut prices: watch::Receiver<Ask>) -> Prices {
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
async fn standing(hub: &Hub, who: Address, id: B256, ask: &Ask) -> Result<Option<U256>, Failure> {
    let offers = hub
        .offers_by_id(id)
        .await
        .map_err(|e| e.into_failure("reading offers"))?;
    let mine = offers.iter().find(|o| o.neuron == who);
    Ok(mine
        .filter(|o| {
            o.askBase.to::<U256>() != ask.per_job
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

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use alloy::{
        consensus::{Transaction, TxEnvelope},
        eips::eip2718::Decodable2718,
        signers::local::PrivateKeySigner,
        sol_types::SolCall,
    };
    use alloy_primitives::Bytes;
    use bitai_contracts::{Offer, WorkerHub};
    use serde_json::{Value, json};

    use super::*;
    use crate::chain::testnode;

    const HUB: Address = Address::repeat_byte(5);

    /// A node with one offer, which every offer that is sent replaces at once.
    fn answer(offer: &Mutex<(Offer, Vec<B256>)>, method: &str, params: &Value) -> Result<Value, String> {
        let mut state = offer.lock().unwrap();
        Ok(match method {
            "eth_chainId" => json!("0x1"),
            "eth_getCode" => json!("0x01"),
            "eth_estimateGas" => json!("0x186a0"),
            "eth_maxPriorityFeePerGas" => json!("0x64"),
            "eth_getBlockByNumber" => json!({ "baseFeePerGas": "0x7" }),
            "eth_getTransactionCount" => json!(format!("{:#x}", state.1.len())),
            "eth_call" => json!(Bytes::from(WorkerHub::offersCall::abi_encode_returns(&vec![
                state.0.clone()
            ]))),
            "eth_sendRawTransaction" => {
                let raw: Bytes = serde_json::from_value(params[0].clone()).unwrap();
                let tx = TxEnvelope::decode_2718(&mut raw.as_ref()).unwrap();
                let call = WorkerHub::serveCall::abi_decode(tx.input()).unwrap();
                state.0.askBase = call.askBase;
                (state.0.askPerInput, state.0.askPerOutput) = (call.askPerInput, call.askPerOutput);
                assert_eq!(
                    state.0.collateralMax, call.collateralMax,
                    "what it may cost stays"
                );
                state.1.push(*tx.tx_hash());
                json!(tx.tx_hash())
            }
            "eth_getTransactionReceipt" => json!({
                "type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x1", "gasUsed": "0x1",
                "logs": [], "logsBloom": format!("0x{}", "00".repeat(256)), "effectiveGasPrice": "0x1",
                "transactionHash": params[0], "transactionIndex": "0x0", "blockHash": B256::ZERO,
                "blockNumber": "0x2", "from": Address::ZERO, "to": HUB, "contractAddress": null,
            }),
            other => return Err(format!("no method {other}")),
        })
    }

    /// Everything that is logged, down to what the libraries say to themselves.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_changed_price_is_offered_once_with_the_key_in_no_log() {
        let signer = PrivateKeySigner::random();
        let key = hex::encode(signer.to_bytes());
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let _logs = tracing::subscriber::set_default(subscriber.finish());
        let ask = Ask::default();
        let offer = Offer {
            neuron: signer.address(),
            askBase: alloy_primitives::Uint::saturating_from(ask.per_job),
            askPerInput: ask.per_input,
            askPerOutput: ask.per_output,
            since: 1,
            collateralMax: alloy_primitives::Uint::from(77u32),
        };
        let state = Arc::new(Mutex::new((offer, Vec::new())));
        let shared = Arc::clone(&state);
        let hub = testnode::hub(1, HUB, move |method: &str, params: &Value| {
            answer(&shared, method, params)
        })
        .await;
        let sender = Sender::new(Arc::clone(hub.node()), signer);
        let id = B256::repeat_byte(1);
        assert!(
            !offer_again(&hub, &sender, id, &ask).await.unwrap(),
            "it stands at this price"
        );
        let (tell, prices) = watch::channel(ask);
        let _prices = offers(hub, sender, vec![(id, "m".into())], prices);
        tell.send(Ask { per_input: 9, ..ask }).unwrap();
        tokio::time::timeout(Duration::from_secs(60), async {
            while state.lock().unwrap().0.askPerInput != 9 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(state.lock().unwrap().1.len(), 1);
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("eth_sendRawTransaction"), "the trace is on");
        assert!(!said.contains(&key));
    }
}
