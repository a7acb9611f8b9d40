//! What the happy path inscribes: a neuron's transactions for one job and for a batch of a hundred, executed by the state
//! machine, packed by the envelope's codec, put into the inscriber's own Bitcoin transactions, and counted.
//!
//! `cargo test -p bitai-devnet --test happy_path -- --nocapture` prints the table of `benches/results/2026-11-22-happy-path.md`.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::signers::SignerSync;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy_sol_types::SolCall;
use bitai_contracts::{
    ModelKey, ModelRegistry, Params, WorkerHub, hub_init_code, registry_init_code, spec_from_job,
};
use bitai_devnet::accounts::{Account, balances, coin};
use bitai_node::bitcoin::SatPerKvb;
use bitai_node::block::{BlockInput, Inscribed, Position};
use bitai_node::envelope::{Header, payload};
use bitai_node::genesis::Genesis;
use bitai_node::indexer::Ledger;
use bitai_node::inscriber::{batch::Part, build::Builder, keys::Keys};
use bitai_node::state::Chain;
use bitai_node::transition::{BlockOutcome, execute};
use bitai_types::batch::{Tree, job_hashes, pack_jobs, put_answer};
use bitai_types::chain::{GAS_PER_BYTE, Network};
use bitai_types::job::{commit_hash, ids_hash};
use bitai_types::{Job, ModelShape, Sampler};

/// Virtual bytes of protocol that a job of a hundred may take (docs/adr/0067): signatures, addresses, numbers, trace root,
/// gas and Bitcoin's own transactions, but neither its ids nor its payer's transaction.
const GOAL_VBYTES: u64 = 20;
const GWEI: u128 = 1_000_000_000;
const SHAPE: ModelShape = ModelShape {
    vocab: 49_152,
    context: 8_192,
    words: 0,
};

/// A chain, moved block by block.
struct Stage {
    chain: Arc<Chain>,
    _dir: tempfile::TempDir,
    hub: Address,
    key: ModelKey,
    /// Jobs posted so far.
    jobs: u64,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let chain = Chain::open(dir.path().join("state.redb"), Genesis::regtest(balances())).unwrap();
        let deployer = Account::named("deployer");
        let (registry, hub) = (deployer.address().create(0), deployer.address().create(1));
        let key = ModelKey {
            model_root: B256::repeat_byte(0x5a),
            spec_version: 0,
            shape: SHAPE,
        };
        let stage = Self {
            chain,
            _dir: dir,
            hub,
            key,
            jobs: 0,
        };
        stage.runs("deployer", TxKind::Create, registry_init_code(U256::ZERO, 10), 0);
        stage.runs("deployer", TxKind::Create, hub_init_code(registry, params()), 0);
        let register = ModelRegistry::registerCall {
            modelRoot: key.model_root,
            specVersion: 0,
            vocab: SHAPE.vocab,
            context: SHAPE.context,
            words: 0,
            uri: "pack://here".into(),
            sourceHash: B256::ZERO,
        };
        stage.runs("deployer", TxKind::Call(registry), register.abi_encode(), 0);
        stage.runs(
            "neuron",
            TxKind::Call(hub),
            WorkerHub::stakeCall {}.abi_encode(),
            500_000,
        );
        let serve = WorkerHub::serveCall {
            modelId: key.id(),
            askBase: alloy_primitives::Uint::ZERO,
            askPerInput: 0,
            askPerOutput: 0,
            collateralMax: alloy_primitives::Uint::MAX,
        };
        stage.runs("neuron", TxKind::Call(hub), serve.abi_encode(), 0);
        stage
    }

    fn nonce(&self, who: &Account) -> u64 {
        let account = self.chain.view().unwrap().account(who.address()).unwrap();
        account.map_or(0, |a| a.nonce)
    }

    /// Executes a block with one envelope of these transactions, inscribed as they would be.
    fn try_block(&self, txs: &[Bytes]) -> (BlockInput, BlockOutcome) {
        let (bitcoin_height, prev) = match self.chain.tip() {
            Some(tip) => (tip.bitcoin_height + 1, tip.bitcoin_hash),
            None => (
                self.chain.genesis().start_height + 1,
                self.chain.genesis().start_hash,
            ),
        };
        let inscribed = Inscribed {
            position: Position {
                tx: 0,
                input: 0,
                envelope: 0,
            },
            reveal_txid: B256::ZERO,
            fee_recipient: Account::named("inscriber").address(),
            payload_len: if txs.is_empty() { 0 } else { pack(txs).len() as u32 },
            txs: txs.to_vec(),
            reveal_vbytes: 0,
        };
        let block = BlockInput {
            bitcoin_height,
            hash: keccak256(prev),
            prev,
            median_time_past: self.chain.genesis().start_time + 600 * bitcoin_height,
            envelopes: if txs.is_empty() { vec![] } else { vec![inscribed] },
        };
        let (hash, header) = self.chain.head();
        let view = self.chain.view().unwrap();
        let outcome = execute(self.chain.genesis(), &header, hash, view, &block).unwrap();
        (block, outcome)
    }

    /// A block of transactions that must all succeed; gas used by each.
    fn block(&self, txs: &[Bytes]) -> Vec<u64> {
        let (block, outcome) = self.try_block(txs);
        assert!(outcome.dropped.is_empty(), "{:?}", outcome.dropped);
        assert!(outcome.txs.iter().all(|t| t.success));
        self.chain.apply(&block).unwrap();
        outcome.txs.iter().map(|t| t.gas_used).collect()
    }

    fn signed(&self, who: &Account, nonce: u64, to: TxKind, data: Vec<u8>, gas: u64, value: U256) -> Bytes {
        let tx = TxEip1559 {
            chain_id: Network::Regtest.chain_id(),
            nonce,
            gas_limit: gas,
            // What a mempool at 10 sat/vB asks: numbers with as many digits as real ones.
            max_fee_per_gas: 13 * GWEI + 1_234_567,
            max_priority_fee_per_gas: 9 * GWEI + 7_654_321,
            to,
            value,
            access_list: Default::default(),
            input: data.into(),
        };
        let signature = who.signer.sign_hash_sync(&tx.signature_hash()).unwrap();
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
    }

    /// Signs as the miner does: a fifth above what it takes, and zeros behind where the bytes are too few for that gas.
    fn priced(&self, who: &Account, nonce: u64, to: TxKind, data: Vec<u8>, value: U256) -> Bytes {
        // So many zeros, of 4 gas each, that the bytes are enough whatever it takes, and so few that they do not decide the gas
        // (EIP-7623: 10 gas each at least).
        let mut long = data.clone();
        long.resize(data.len() + 3_000, 0);
        let limit = long.len() as u64 * GAS_PER_BYTE;
        let trial = self.signed(who, nonce, to, long, limit, value);
        let (_, outcome) = self.try_block(&[trial]);
        assert!(outcome.dropped.is_empty(), "{:?}", outcome.dropped);
        assert!(outcome.txs[0].success, "it reverts");
        let used = outcome.txs[0].gas_used - 4 * 3_000;
        let gas = (used + used / 63 + 2_300) * 6 / 5;
        let mut data = data;
        loop {
            let tx = self.signed(who, nonce, to, data.clone(), gas, value);
            if tx.len() as u64 * GAS_PER_BYTE >= gas {
                return tx;
            }
            data.push(0);
        }
    }

    /// Executes one transaction in a block of its own.
    fn runs(&self, who: &'static str, to: TxKind, data: impl Into<Vec<u8>>, coins: u64) {
        let who = Account::named(who);
        let value = coin() * U256::from(coins);
        let tx = self.priced(&who, self.nonce(&who), to, data.into(), value);
        self.block(&[tx]);
    }

    fn wait(&self, heights: u64) {
        for _ in 0..heights {
            self.block(&[]);
        }
    }
}

fn params() -> Params {
    let coins = |n: u64| alloy_primitives::Uint::saturating_from(coin() * U256::from(n));
    Params {
        commitWindow: 20,
        revealWindow: 10,
        challengeWindow: 4,
        quarrelWindow: 8,
        assignWindow: 20,
        unstakeDelay: 10,
        minStake: coins(100),
        minCollateral: coins(1),
        timeoutSlashBps: 1_000,
        protocolFeeBps: 500,
        treasury: Address::ZERO,
        verifier: Address::ZERO,
    }
}

/// The payload of an envelope, compressed where its gas allows.
fn pack(txs: &[Bytes]) -> Vec<u8> {
    let gas: u64 = txs.iter().map(gas_limit).sum();
    let least = usize::try_from(gas.div_ceil(GAS_PER_BYTE)).unwrap();
    payload::encode_at_least(txs, least).unwrap()
}

fn gas_limit(raw: &Bytes) -> u64 {
    use alloy::{consensus::Transaction, eips::eip2718::Decodable2718};
    TxEnvelope::decode_2718(&mut raw.as_ref()).unwrap().gas_limit()
}

/// Virtual bytes of the two Bitcoin transactions that inscribe these, as the inscriber signs them.
fn vbytes(txs: &[Bytes]) -> u64 {
    let keys = Keys::from_seed(&[7; 32], bitcoin::Network::Regtest);
    let header = Header {
        genesis_id: [1, 2, 3, 4],
        fee_recipient: Account::named("inscriber").address(),
    };
    let parts = [Part {
        hashes: vec![],
        payload: pack(txs),
    }];
    let builder = Builder {
        keys: &keys,
        header,
        parts: &parts,
        rate_max: SatPerKvb(100_000),
    };
    let coins = [(
        bitcoin::OutPoint::null(),
        bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(100_000_000),
            script_pubkey: keys.script(),
        },
    )];
    builder.version(&coins, SatPerKvb(10_000), 1).unwrap().vbytes()
}

/// Ids that no codec can press: a hash's bytes below the vocabulary.
fn ids(seed: u64, n: usize) -> Vec<u32> {
    (0..n as u64)
        .map(|i| {
            let hash = keccak256([seed.to_be_bytes(), i.to_be_bytes()].concat());
            u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % SHAPE.vocab
        })
        .collect()
}

/// The transactions of `n` jobs from question to pay.
struct Life {
    infer: Vec<Bytes>,
    commit: Bytes,
    reveal: Bytes,
    finalise: Bytes,
    /// Gas of the last three.
    gas: [u64; 3],
}

/// Posts, commits, reveals and finalises `n` jobs of `inputs` and `outputs` ids: in single calls where `n` is 1, else in
/// batches. A settled batch goes before, so that no account or slot is touched for the first time.
fn live(stage: &mut Stage, seed: u64, n: usize, inputs: usize, outputs: usize) -> Life {
    let (client, neuron) = (Account::named("client"), Account::named("neuron"));
    let hub = TxKind::Call(stage.hub);
    let first = stage.jobs + 1;
    stage.jobs += n as u64;
    let jobs: Vec<Job> = (0..n as u64)
        .map(|i| Job {
            model_root: stage.key.model_root,
            spec_version: 0,
            input_ids: ids(seed * 1_000_003 + i, inputs),
            max_new: outputs as u32,
            stop_ids: vec![2],
            sampler: Sampler::GREEDY,
            seed: 0,
        })
        .collect();
    let nonce = stage.nonce(&client);
    let post = |job: &Job| {
        let call = WorkerHub::inferCall {
            spec: spec_from_job(job, &stage.key),
            k: 1,
            collateral: alloy_primitives::Uint::ZERO,
        };
        call.abi_encode()
    };
    let fee = coin() + U256::from(123_456_789);
    // All of one size: what the first takes is enough for each.
    let limit = gas_limit(&stage.priced(&client, nonce, hub, post(&jobs[0]), fee));
    let infer: Vec<Bytes> = (nonce..)
        .zip(&jobs)
        .map(|(nonce, job)| stage.signed(&client, nonce, hub, post(job), limit, fee))
        .collect();
    stage.block(&infer);
    stage.wait(1);
    let me = neuron.address();
    let job_ids: Vec<U256> = (first..first + n as u64).map(U256::from).collect();
    let salt = keccak256(seed.to_be_bytes());
    let answers: Vec<(B256, Vec<u32>)> = (0..n as u64)
        .map(|i| {
            let mut out = ids(seed * 7_000_003 + i, outputs);
            out.iter_mut().for_each(|id| *id += u32::from(*id == 2));
            (keccak256([seed, i].map(u64::to_be_bytes).concat()), out)
        })
        .collect();
    let leaves: Vec<B256> = job_ids
        .iter()
        .zip(&answers)
        .map(|(id, (root, out))| {
            let chain_id = Network::Regtest.chain_id();
            commit_hash(chain_id, stage.hub, *id, me, salt, *root, ids_hash(out))
        })
        .collect();
    let tree = Tree::new(leaves).unwrap();
    let packed: Bytes = pack_jobs(&job_ids).unwrap().into();
    let hashes: Vec<B256> = jobs.iter().map(Job::hash).collect();
    let calls: [Vec<u8>; 3] = if n == 1 {
        let (root, out) = &answers[0];
        [
            WorkerHub::commitCall {
                jobId: job_ids[0],
                jobHash: hashes[0],
                commitment: tree.root(),
            }
            .abi_encode(),
            WorkerHub::revealCall {
                jobId: job_ids[0],
                salt,
                traceRoot: *root,
                outputIds: bitai_types::job::ids_to_bytes(out).into(),
            }
            .abi_encode(),
            WorkerHub::finaliseCall { jobId: job_ids[0] }.abi_encode(),
        ]
    } else {
        let mut all = Vec::new();
        for (root, out) in &answers {
            put_answer(&mut all, root, out);
        }
        [
            WorkerHub::commitBatchCall {
                jobs: packed.clone(),
                jobHashes: job_hashes(&hashes),
                root: tree.root(),
            }
            .abi_encode(),
            WorkerHub::revealBatchCall {
                lead: job_ids[0],
                salt,
                node: U256::ONE,
                path: vec![],
                jobs: packed.clone(),
                answers: all.into(),
            }
            .abi_encode(),
            WorkerHub::finaliseBatchCall { jobs: packed }.abi_encode(),
        ]
    };
    let mut gas = [0; 3];
    let mut raw = Vec::new();
    for (i, call) in calls.into_iter().enumerate() {
        let tx = stage.priced(&neuron, stage.nonce(&neuron), hub, call, U256::ZERO);
        gas[i] = stage.block(std::slice::from_ref(&tx))[0];
        raw.push(tx);
        stage.wait(if i == 1 { 4 } else { 0 });
    }
    let [commit, reveal, finalise] = raw.try_into().unwrap();
    Life {
        infer,
        commit,
        reveal,
        finalise,
        gas,
    }
}

/// One line of the table: what a job takes of each transaction.
fn line(what: &str, parts: [(&str, u64); 5], jobs: u64) -> String {
    let each = parts.map(|(name, total)| format!("{name} {}.{:02}", total / jobs, total % jobs * 100 / jobs));
    format!("{what}: {}", each.join(" | "))
}

/// Bytes and gas of the neuron's transactions, and what they inscribe in envelopes of their own and in one.
fn report(what: &str, life: &Life, jobs: u64) -> (u64, u64) {
    let own = [&life.commit, &life.reveal, &life.finalise].map(|tx| vbytes(std::slice::from_ref(tx)));
    let all = [life.commit.clone(), life.reveal.clone(), life.finalise.clone()];
    let together = vbytes(&all);
    let sum = own.iter().sum();
    let raw = all.each_ref().map(|tx| tx.len() as u64);
    let of = |[a, b, c]: [u64; 3], last, total| {
        [
            ("commit", a),
            ("reveal", b),
            ("finalise", c),
            ("all", last),
            ("", total),
        ]
    };
    println!(
        "{}",
        line(
            &format!("{what}, gas"),
            of(life.gas, life.gas.iter().sum(), 0),
            jobs
        )
    );
    println!(
        "{}",
        line(&format!("{what}, raw bytes"), of(raw, raw.iter().sum(), 0), jobs)
    );
    println!(
        "{}",
        line(
            &format!("{what}, vbytes, an envelope each and one for all"),
            of(own, sum, together),
            jobs
        )
    );
    (sum, together)
}

#[test]
fn a_hundred_jobs_share_what_one_pays_alone() {
    let mut stage = Stage::new();
    // So that no account and no slot is touched for the first time.
    live(&mut stage, 1, 2, 4, 1);
    let one = live(&mut stage, 2, 1, 64, 1);
    let (alone, alone_together) = report("1 job", &one, 1);
    let batch = live(&mut stage, 3, 100, 64, 1);
    let (apart, together) = report("100 jobs", &batch, 100);
    let long = live(&mut stage, 4, 100, 64, 65);
    let (_, long_together) = report("100 jobs of 65 output ids", &long, 100);
    let ids_out = long_together - together;
    println!(
        "64 more output ids of a job: {}.{:02} vB",
        ids_out / 100,
        ids_out % 100
    );
    let infer = (vbytes(&one.infer), vbytes(&batch.infer));
    println!(
        "infer, 64 prompt ids: {} vB alone, {}.{:02} of 100 in one envelope",
        infer.0,
        infer.1 / 100,
        infer.1 % 100
    );
    assert!(together <= 100 * GOAL_VBYTES, "{together} vB for 100 jobs");
    assert!(apart < 100 * alone / 10, "{apart} {alone}");
    assert!(alone_together < alone);
}
