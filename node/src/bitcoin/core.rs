//! Bitcoin Core over JSON-RPC. No wallet call is made: keys and coins are the inscriber's own. `-txindex` is
//! useful but not needed.

use super::{Backend, BackendError, BlockRef, HeaderInfo, Refusal, SatPerKvb, Submitted, TxStatus};
use bitcoin::consensus::encode;
use bitcoin::{Address, Block, BlockHash, Network, Script, Transaction, Txid};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Core's "not found".
const NOT_FOUND: i64 = -5;
/// Core's "no such height".
const OUT_OF_RANGE: i64 = -8;
/// Longest answer taken: a full block in hex, and room.
const ANSWER_MAX: usize = 16 << 20;

/// How to log in.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// The cookie file that Core writes at each start; read anew for every call.
    Cookie(PathBuf),
    /// `rpcuser` and `rpcpassword`.
    Password(String, String),
}

/// A log shows who logs in, never with what.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
            Self::Password(user, _) => f.debug_tuple("Password").field(user).finish_non_exhaustive(),
        }
    }
}

/// A Bitcoin Core node.
#[derive(Debug, Clone)]
pub struct CoreRpc {
    url: String,
    auth: Auth,
    network: Network,
    timeout: Duration,
}

impl CoreRpc {
    /// A client of the node at `url` (`http://127.0.0.1:8332`). Asks nothing yet: see [`CoreRpc::check`].
    pub fn new(url: impl Into<String>, auth: Auth, network: Network) -> Self {
        Self {
            url: url.into(),
            auth,
            network,
            timeout: Duration::from_secs(60),
        }
    }

    /// Asks the node whether it is on the network meant.
    pub fn check(&self) -> Result<(), BackendError> {
        let info = self.call("getblockchaininfo", json!([]))?;
        let chain = info["chain"].as_str().unwrap_or_default();
        if Network::from_core_arg(chain).ok() == Some(self.network) {
            return Ok(());
        }
        Err(BackendError::Answer {
            method: "getblockchaininfo",
            what: format!("the node is on `{chain}`, this is for {}", self.network),
        })
    }

    fn credentials(&self) -> Result<String, BackendError> {
        match &self.auth {
            Auth::Password(user, password) => Ok(format!("{user}:{password}")),
            Auth::Cookie(path) => std::fs::read_to_string(path)
                .map(|s| s.trim().to_owned())
                .map_err(|e| self.unreachable(format!("cookie {}: {e}", path.display()))),
        }
    }

    fn unreachable(&self, reason: String) -> BackendError {
        BackendError::Unreachable {
            url: self.url.clone(),
            reason,
        }
    }

    fn call(&self, method: &'static str, params: Value) -> Result<Value, BackendError> {
        let body = json!({"jsonrpc": "1.0", "id": "bitai", "method": method, "params": params}).to_string();
        let answer = bitreq::post(self.url.as_str())
            .with_header(
                "Authorization",
                format!("Basic {}", base64(self.credentials()?.as_bytes())),
            )
            .with_header("Content-Type", "application/json")
            .with_timeout(self.timeout)
            .with_max_body_size(ANSWER_MAX)
            .with_body(body)
            .send()
            .map_err(|e| self.unreachable(e.to_string()))?;
        if answer.status_code == 401 || answer.status_code == 403 {
            return Err(self.unreachable(format!("it refused the login ({})", answer.status_code)));
        }
        let read: Value = serde_json::from_slice(answer.as_bytes()).map_err(|e| BackendError::Answer {
            method,
            what: format!("status {}, {e}", answer.status_code),
        })?;
        let error = &read["error"];
        if !error.is_null() {
            return Err(BackendError::Rpc {
                method,
                code: error["code"].as_i64().unwrap_or(0),
                message: error["message"].as_str().unwrap_or("no message").to_owned(),
            });
        }
        Ok(read["result"].clone())
    }

    /// The same, where one error code means that there is no such thing.
    fn find(&self, method: &'static str, params: Value, absent: i64) -> Result<Option<Value>, BackendError> {
        match self.call(method, params) {
            Ok(value) => Ok(Some(value)),
            Err(BackendError::Rpc { code, .. }) if code == absent => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Reads a field or says what is wrong with it.
fn parse<T: FromStr>(method: &'static str, value: &Value) -> Result<T, BackendError> {
    value
        .as_str()
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| BackendError::Answer {
            method,
            what: format!("{value:.80}"),
        })
}

fn number(method: &'static str, value: &Value) -> Result<u64, BackendError> {
    value.as_u64().ok_or_else(|| BackendError::Answer {
        method,
        what: format!("{value} is no number"),
    })
}

fn consensus<T: encode::Decodable>(method: &'static str, value: &Value) -> Result<T, BackendError> {
    let hex = value.as_str().unwrap_or_default();
    encode::deserialize_hex(hex).map_err(|e| BackendError::Answer {
        method,
        what: e.to_string(),
    })
}

/// Core's words for a refusal, sorted by what the caller can do.
fn refusal(reason: &str) -> Refusal {
    let has = |s: &str| reason.contains(s);
    if has("missing-inputs") || has("missingorspent") {
        Refusal::MissingInputs
    } else if has("insufficient fee")
        || has("replacement-failed")
        || has("insufficient feerate")
        || has("too many potential replacements")
    {
        Refusal::Replacement
    } else if has("max-fee-exceeded") {
        Refusal::FeeTooHigh
    } else if has("min relay fee not met") || has("mempool min fee not met") || has("mempool full") {
        Refusal::FeeTooLow
    } else if has("too-large-cluster") || has("too-long-mempool-chain") || has("limitclustersize") {
        Refusal::Cluster
    } else {
        Refusal::Invalid
    }
}

/// Bitcoin Core writes rates as BTC per 1,000 vB; a decimal string keeps them exact.
fn btc_per_kvb(rate: SatPerKvb) -> String {
    format!("{}.{:08}", rate.0 / 100_000_000, rate.0 % 100_000_000)
}

/// The reverse. Core writes a decimal of whole satoshis, which JSON readers know only as a float: rounding to
/// satoshis restores it. Nothing hashed depends on it.
fn sat_per_kvb(value: &Value) -> Option<SatPerKvb> {
    let amount = bitcoin::Amount::from_float_in(value.as_f64()?, bitcoin::Denomination::Bitcoin).ok()?;
    Some(SatPerKvb(amount.to_sat()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let mut word = [0; 4];
            word[1..=chunk.len()].copy_from_slice(chunk);
            let word = u32::from_be_bytes(word);
            (0..4usize).map(move |i| match i <= chunk.len() {
                true => char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63]),
                false => '=',
            })
        })
        .collect()
}

impl Backend for CoreRpc {
    fn network(&self) -> Network {
        self.network
    }

    fn tip(&self) -> Result<BlockRef, BackendError> {
        let hash = parse("getbestblockhash", &self.call("getbestblockhash", json!([]))?)?;
        let header = self.header(&hash)?.ok_or_else(|| BackendError::Answer {
            method: "getbestblockhash",
            what: format!("{hash} is unknown to getblockheader"),
        })?;
        Ok(BlockRef {
            height: header.height,
            hash,
        })
    }

    fn hash_at(&self, height: u64) -> Result<Option<BlockHash>, BackendError> {
        self.find("getblockhash", json!([height]), OUT_OF_RANGE)?
            .map(|v| parse("getblockhash", &v))
            .transpose()
    }

    fn header(&self, hash: &BlockHash) -> Result<Option<HeaderInfo>, BackendError> {
        const METHOD: &str = "getblockheader";
        let Some(info) = self.find(METHOD, json!([hash, true]), NOT_FOUND)? else {
            return Ok(None);
        };
        let raw = self.call(METHOD, json!([hash, false]))?;
        Ok(Some(HeaderInfo {
            header: consensus(METHOD, &raw)?,
            height: number(METHOD, &info["height"])?,
            median_time_past: number(METHOD, &info["mediantime"])?,
            in_best_chain: info["confirmations"].as_i64().is_some_and(|c| c > 0),
        }))
    }

    fn block(&self, hash: &BlockHash) -> Result<Option<Block>, BackendError> {
        self.find("getblock", json!([hash, 0]), NOT_FOUND)?
            .map(|v| consensus("getblock", &v))
            .transpose()
    }

    fn submit(&self, tx: &Transaction, max_fee_rate: SatPerKvb) -> Result<Submitted, BackendError> {
        let txid = tx.compute_txid();
        let refused = |reason: String| BackendError::TxRefused {
            txid,
            refusal: refusal(&reason),
            reason,
        };
        let hex = encode::serialize_hex(tx);
        // Core takes no limit of 1 BTC/kvB or more, and 0 would mean none.
        let max = btc_per_kvb(SatPerKvb(max_fee_rate.0.clamp(1, 99_999_999)));
        let tested = self.call("testmempoolaccept", json!([[hex], max]))?;
        let tested = &tested[0];
        if tested["allowed"].as_bool() != Some(true) {
            let reason = tested["reject-reason"].as_str().unwrap_or("no reason given");
            let details = tested["reject-details"].as_str().unwrap_or_default();
            if reason.contains("txn-already-in-mempool")
                || reason.contains("txn-same-nonwitness-data-in-mempool")
            {
                return Ok(Submitted::InPool);
            }
            if reason.contains("txn-already-known") {
                return Ok(Submitted::Confirmed);
            }
            // A confirmed transaction whose outputs are all spent looks like one with missing inputs.
            if let TxStatus::Confirmed(_) = self.tx_status(&txid)? {
                return Ok(Submitted::Confirmed);
            }
            return Err(refused(format!("{reason} {details}").trim().to_owned()));
        }
        match self.call("sendrawtransaction", json!([hex, max])) {
            Ok(_) => Ok(Submitted::Accepted),
            Err(BackendError::Rpc { code: -27, .. }) => Ok(Submitted::Confirmed),
            Err(BackendError::Rpc {
                code: -25 | -26,
                message,
                ..
            }) => Err(refused(message)),
            Err(e) => Err(e),
        }
    }

    fn tx_status(&self, txid: &Txid) -> Result<TxStatus, BackendError> {
        if self.find("getmempoolentry", json!([txid]), NOT_FOUND)?.is_some() {
            return Ok(TxStatus::Pool);
        }
        let Some(found) = self.find("getrawtransaction", json!([txid, true]), NOT_FOUND)? else {
            return Ok(TxStatus::Unknown);
        };
        let Ok(hash) = parse::<BlockHash>("getrawtransaction", &found["blockhash"]) else {
            return Ok(TxStatus::Unknown);
        };
        Ok(match self.header(&hash)? {
            Some(info) if info.in_best_chain => TxStatus::Confirmed(BlockRef {
                height: info.height,
                hash,
            }),
            _ => TxStatus::Unknown,
        })
    }

    fn fee_rate(&self, blocks: u16) -> Result<Option<SatPerKvb>, BackendError> {
        let answer = self.call("estimatesmartfee", json!([blocks]))?;
        Ok(sat_per_kvb(&answer["feerate"]))
    }

    fn pool_len(&self) -> Result<u64, BackendError> {
        let info = self.call("getmempoolinfo", json!([]))?;
        number("getmempoolinfo", &info["size"])
    }

    fn generate(&self, blocks: u32, to: &Script) -> Result<Vec<BlockHash>, BackendError> {
        const METHOD: &str = "generatetoaddress";
        if self.network != Network::Regtest {
            return Err(BackendError::NotRegtest(self.network));
        }
        let address = Address::from_script(to, self.network).map_err(|e| BackendError::Answer {
            method: METHOD,
            what: format!("the script to pay has no address: {e}"),
        })?;
        let made = self.call(METHOD, json!([blocks, address.to_string()]))?;
        made.as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .map(|v| parse(METHOD, v))
            .collect()
    }

    fn submit_block(&self, block: &Block) -> Result<(), BackendError> {
        let answer = self.call("submitblock", json!([encode::serialize_hex(block)]))?;
        match answer.as_str() {
            // "inconclusive": valid as far as looked at, on a branch that is not the best.
            None | Some("inconclusive" | "duplicate") => Ok(()),
            Some(reason) => Err(BackendError::BlockRefused {
                hash: block.block_hash(),
                reason: reason.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_tail() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn fee_rates_are_exact() {
        assert_eq!(btc_per_kvb(SatPerKvb(100)), "0.00000100");
        assert_eq!(btc_per_kvb(SatPerKvb(123_456_789)), "1.23456789");
        assert_eq!(sat_per_kvb(&json!(0.00001)), Some(SatPerKvb(1000)));
        assert_eq!(sat_per_kvb(&json!(null)), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let auth = Auth::Password("alice".into(), "hunter2".into());
        let core = CoreRpc::new("http://127.0.0.1:9", auth, Network::Regtest);
        let shown = format!("{core:?} {core:#?}");
        assert!(shown.contains("alice") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_node_that_is_not_there_is_unreachable() {
        let core = CoreRpc::new(
            "http://127.0.0.1:9",
            Auth::Password("a".into(), "b".into()),
            Network::Regtest,
        );
        assert!(matches!(core.tip(), Err(BackendError::Unreachable { .. })));
        let core = CoreRpc::new(
            "http://127.0.0.1:9",
            Auth::Cookie("/nonexistent/cookie".into()),
            Network::Regtest,
        );
        assert!(matches!(core.tip(), Err(BackendError::Unreachable { .. })));
    }
}
