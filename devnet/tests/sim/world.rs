//! A chain with the contracts on it, one model registered and in the book, one neuron that serves it; and the accounts
//! that play on it.

use std::sync::Arc;

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::SolCall,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, Uint, keccak256};
use bitai_contracts::{
    ModelKey, PROGRAM_BOOK_BYTECODE, Params, ProgramBook, VerifierSettings, WorkerHub, hub_init_code,
    registry_init_code, verifier_init_code,
};
use bitai_miner::{
    chain::{registry, send::Call},
    dispute::{Shelf, opened},
};
use bitai_node::genesis::{Genesis, GenesisAccount};
use bitai_types::chain::GAS_PER_BYTE;

use crate::chain::{Chain, Fate};

/// Heights for opening disputes after a reveal.
pub(crate) const WINDOW: u64 = 24;
/// Heights on each side's clock.
pub(crate) const CLOCK: u32 = 64;
/// Wei that the neuron stakes, in coins.
pub(crate) const STAKE: u64 = 1_000;
/// A contract that burns all gas it is given.
pub(crate) const FURNACE: Address = Address::repeat_byte(0xfe);

/// One coin in wei.
pub(crate) fn coin() -> U256 {
    U256::from(10).pow(U256::from(18))
}

/// A key by its name.
pub(crate) fn signer(name: &str) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(format!("simulation: {name}"))).unwrap()
}

/// Names of all who have coins.
pub(crate) const NAMES: [&str; 9] = [
    "deployer", "client", "neuron", "alice", "bob", "puppet 0", "puppet 1", "puppet 2", "spammer",
];

/// Contracts and model.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) chain: Chain,
    pub(crate) registry: Address,
    pub(crate) book: Address,
    pub(crate) verifier: Address,
    pub(crate) hub: Address,
    pub(crate) model: ModelKey,
}

/// Signs a call for one height: its gas as estimated now, as many bytes as that gas needs, a price that holds while the
/// base fee doubles.
pub(crate) fn sign(
    chain: &Chain,
    signer: &PrivateKeySigner,
    call: &Call,
    nonce: u64,
    tip: u128,
) -> Result<Bytes, Bytes> {
    let gas = chain.estimate(signer.address(), call.to, &call.data, call.value)?;
    let gas = gas + gas / 5;
    let mut data = call.data.to_vec();
    if matches!(call.to, TxKind::Call(_)) {
        let bytes = usize::try_from(gas.div_ceil(GAS_PER_BYTE)).unwrap();
        data.resize(data.len().max(bytes), 0);
    }
    Ok(seal(
        chain,
        signer,
        (call.to, data.into(), call.value),
        nonce,
        tip,
        gas + 200_000,
    ))
}

/// Signs whatever with this gas.
pub(crate) fn seal(
    chain: &Chain,
    signer: &PrivateKeySigner,
    (to, mut input, value): (TxKind, Bytes, U256),
    nonce: u64,
    tip: u128,
    gas_limit: u64,
) -> Bytes {
    let base = u128::from(chain.base_fee());
    let need = usize::try_from(gas_limit.div_ceil(GAS_PER_BYTE)).unwrap();
    if matches!(to, TxKind::Call(_)) && input.len() < need {
        let mut longer = input.to_vec();
        longer.resize(need, 0);
        input = longer.into();
    }
    let tx = TxEip1559 {
        chain_id: chain.genesis.chain_id(),
        nonce,
        gas_limit,
        max_fee_per_gas: 2 * base + tip,
        max_priority_fee_per_gas: tip,
        to,
        value,
        access_list: Default::default(),
        input,
    };
    let signature = signer.sign_hash_sync(&tx.signature_hash()).unwrap();
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

impl World {
    /// Deploys everything for a model.
    pub(crate) fn new(shelf: &Arc<Shelf>, root: B256) -> Self {
        let pack = shelf.pack(root).unwrap();
        let balances = NAMES.map(|name| (signer(name).address(), coin() * U256::from(1_000_000_000)));
        let mut genesis = Genesis::regtest(balances);
        // Blocks hold a tenth of what Bitcoin's do, so that filling one costs little time: a full one raises the base fee
        // as much as on the product's chain.
        genesis.fee_rule.gas_target /= 10;
        let furnace = GenesisAccount {
            nonce: 1,
            code: Bytes::from_static(&[0xfe]),
            ..Default::default()
        };
        genesis.alloc.insert(FURNACE, furnace);
        let me = signer("deployer").address();
        let model = ModelKey {
            model_root: root,
            spec_version: pack.manifest().info.spec_version,
            shape: bitai_poc::model_shape(&pack.program()),
        };
        let mut world = Self {
            chain: Chain::new(genesis),
            registry: me.create(0),
            book: me.create(1),
            verifier: me.create(2),
            hub: me.create(3),
            model,
        };
        let settings = VerifierSettings {
            hub: world.hub,
            book: world.book,
            clock: CLOCK,
            governor: me,
            wei_per_byte: 2_500_000_000,
            wei_per_byte_max: 2_500_000_000_000,
        };
        let wei = |coins: u64| Uint::saturating_from(coin() * U256::from(coins));
        let params = Params {
            commitWindow: 50,
            revealWindow: 50,
            challengeWindow: WINDOW,
            quarrelWindow: WINDOW,
            assignWindow: 50,
            unstakeDelay: 10,
            minStake: wei(100),
            minCollateral: wei(1),
            timeoutSlashBps: 1_000,
            protocolFeeBps: 500,
            treasury: Address::ZERO,
            verifier: world.verifier,
        };
        let create = |data: Bytes| Call {
            to: TxKind::Create,
            data,
            value: U256::ZERO,
        };
        world.run("deployer", &create(registry_init_code(coin(), 10)));
        world.run("deployer", &create(PROGRAM_BOOK_BYTECODE.clone()));
        world.run("deployer", &create(verifier_init_code(&settings)));
        world.run("deployer", &create(hub_init_code(world.registry, params)));
        let call = registry::register(world.registry, &world.model, "bitai:sim", B256::ZERO, coin());
        world.run("deployer", &call);
        let keep = world.keep(&pack);
        world.run("deployer", &keep);
        let stake = world.hub_call(WorkerHub::stakeCall {}, coin() * U256::from(STAKE));
        world.run("neuron", &stake);
        let serve = WorkerHub::serveCall {
            modelId: world.model.id(),
            askBase: Uint::from(1),
            askPerInput: 1,
            askPerOutput: 1,
            collateralMax: Uint::saturating_from(coin() * U256::from(10)),
        };
        let serve = world.hub_call(serve, U256::ZERO);
        world.run("neuron", &serve);
        world
    }

    fn keep(&self, pack: &bitai_model::pack::Pack) -> Call {
        let (program, branches) = (pack.program(), opened(pack).unwrap().branches());
        let records: Vec<u8> = program.sites.iter().flat_map(|s| s.encode().unwrap()).collect();
        let call = ProgramBook::keepCall {
            modelRoot: self.model.model_root,
            dims: ProgramBook::Dims {
                layers: program.layers,
                dModel: program.d_model,
                vocab: program.vocab,
                context: program.context,
                kvHeads: program.kv_heads,
                headDim: program.head_dim,
                stride: program.checkpoint_stride,
            },
            branches: ProgramBook::Branches {
                info: branches.info.into(),
                tensorCount: branches.tensor_count,
                tensorsLeft: branches.tensors[0].into(),
                tensorsRight: branches.tensors[1].into(),
                tokenizer: branches.tokenizer.into(),
            },
            records: records.into(),
        };
        Call {
            to: TxKind::Call(self.book),
            data: call.abi_encode().into(),
            value: U256::ZERO,
        }
    }

    /// A call of the hub.
    pub(crate) fn hub_call<C: SolCall>(&self, call: C, value: U256) -> Call {
        Call {
            to: TxKind::Call(self.hub),
            data: call.abi_encode().into(),
            value,
        }
    }

    /// A call of the verifier.
    pub(crate) fn verifier_call<C: SolCall>(&self, call: C, value: U256) -> Call {
        Call {
            to: TxKind::Call(self.verifier),
            data: call.abi_encode().into(),
            value,
        }
    }

    /// Does something in a block of its own, for what is set up before the games.
    pub(crate) fn run(&mut self, who: &str, call: &Call) {
        let signer = signer(who);
        let nonce = self.chain.nonce(signer.address());
        let raw = sign(&self.chain, &signer, call, nonce, 1)
            .unwrap_or_else(|data| panic!("{who}: {:?}", bitai_contracts::explain_revert(&data)));
        assert_eq!(self.chain.make(&[raw]), [Fate::Success]);
    }

    /// Every contract holds exactly what it says it holds.
    pub(crate) fn check_ledgers(&self) -> Ledgers {
        use bitai_contracts::PocVerifier;
        let held = self.chain.read(self.verifier, PocVerifier::totalsCall {});
        assert_eq!(
            self.chain.balance(self.verifier),
            held.bonds + held.owed,
            "the verifier's coins"
        );
        let hub = self.chain.read(self.hub, WorkerHub::totalsCall {});
        assert_eq!(
            self.chain.balance(self.hub),
            hub.stakes + hub.escrow + hub.credit,
            "the hub's coins"
        );
        assert_eq!(self.chain.balance(self.registry), coin(), "the registry's coins");
        Ledgers {
            bonds: held.bonds,
            owed: held.owed,
            stakes: hub.stakes,
            escrow: hub.escrow,
            credit: hub.credit,
        }
    }
}

/// What the contracts hold, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ledgers {
    pub(crate) bonds: U256,
    pub(crate) owed: U256,
    pub(crate) stakes: U256,
    pub(crate) escrow: U256,
    pub(crate) credit: U256,
}
