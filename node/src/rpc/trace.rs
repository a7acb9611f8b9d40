//! `debug_traceTransaction` with the `callTracer`: the calls inside a transaction, replayed on the state of
//! its block.

use alloy::consensus::Transaction as _;
use alloy_primitives::{Address, B256, Bytes, Log, U64, U256};
use revm::InspectEvm;
use revm::context_interface::{ContextTr, CreateScheme};
use revm::inspector::Inspector;
use revm::interpreter::{
    CallInputs, CallOutcome, CallScheme, CreateInputs, CreateOutcome, InstructionResult, InterpreterResult,
};
use serde::{Deserialize, Serialize};

use super::Context;
use super::budget::Budget;
use super::error::{Answer, NOT_FOUND, SERVER_ERROR, error, internal, invalid};
use super::ground::sight_of;
use crate::state::{StateError, UNDO_BLOCKS, bitcoin_hash};
use crate::transition::overlay::Overlay;
use crate::transition::{ExecutedTx, SignedTx, evm, revert_reason};
use bitai_types::chain::HEADER_HASHES;

/// Options as geth takes them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TraceOptions {
    tracer: Option<String>,
    #[serde(default)]
    tracer_config: CallConfig,
}

/// Options of the callTracer.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CallConfig {
    only_top_call: bool,
    with_log: bool,
}

/// A call as geth's callTracer shows it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Frame {
    #[serde(rename = "type")]
    kind: &'static str,
    from: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<U256>,
    gas: U64,
    gas_used: U64,
    input: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revert_reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Log>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Frame>,
}

impl Frame {
    fn finish(&mut self, result: &InterpreterResult) {
        self.gas_used = U64::from(result.gas.total_gas_spent());
        self.output = (!result.output.is_empty()).then(|| result.output.clone());
        if result.result == InstructionResult::Revert {
            self.error = Some("execution reverted".into());
            self.revert_reason = (!result.output.is_empty()).then(|| revert_reason(&result.output));
        } else if result.result.is_halt() {
            self.error = Some(format!("{:?}", result.result));
            self.output = None;
        }
    }
}

/// Collects frames; the last of `open` is the call that runs.
#[derive(Debug, Default)]
struct CallTracer {
    open: Vec<Frame>,
    done: Option<Frame>,
    with_log: bool,
}

impl CallTracer {
    fn close(&mut self, result: &InterpreterResult, created: Option<Address>) {
        let Some(mut frame) = self.open.pop() else { return };
        frame.finish(result);
        frame.to = frame.to.or(created);
        match self.open.last_mut() {
            Some(parent) => parent.calls.push(frame),
            None => self.done = Some(frame),
        }
    }
}

impl<CTX: ContextTr> Inspector<CTX> for CallTracer {
    fn log(&mut self, _context: &mut CTX, log: Log) {
        if let Some(frame) = self.open.last_mut().filter(|_| self.with_log) {
            frame.logs.push(log);
        }
    }

    fn call(&mut self, context: &mut CTX, inputs: &mut CallInputs) -> Option<CallOutcome> {
        let (kind, from, to) = match inputs.scheme {
            CallScheme::Call => ("CALL", inputs.caller, inputs.target_address),
            CallScheme::StaticCall => ("STATICCALL", inputs.caller, inputs.target_address),
            // The code runs as the caller itself.
            CallScheme::CallCode => ("CALLCODE", inputs.caller, inputs.bytecode_address),
            CallScheme::DelegateCall => ("DELEGATECALL", inputs.target_address, inputs.bytecode_address),
        };
        self.open.push(Frame {
            kind,
            from,
            to: Some(to),
            value: (inputs.scheme != CallScheme::StaticCall).then(|| inputs.call_value()),
            gas: U64::from(inputs.gas_limit),
            input: inputs.input.bytes(context),
            ..Default::default()
        });
        None
    }

    fn call_end(&mut self, _context: &mut CTX, _inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.close(&outcome.result, None);
    }

    fn create(&mut self, _context: &mut CTX, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.open.push(Frame {
            kind: if matches!(inputs.scheme(), CreateScheme::Create2 { .. }) {
                "CREATE2"
            } else {
                "CREATE"
            },
            from: inputs.caller(),
            value: Some(inputs.value()),
            gas: U64::from(inputs.gas_limit()),
            input: inputs.init_code().clone(),
            ..Default::default()
        });
        None
    }

    fn create_end(&mut self, _context: &mut CTX, _inputs: &CreateInputs, outcome: &mut CreateOutcome) {
        self.close(&outcome.result, outcome.address);
    }
}

impl Context {
    /// `debug_traceTransaction`. A transaction whose block is dear can be traced alone; in a batch, what it
    /// and those before it used counts.
    pub(crate) fn trace(&self, hash: B256, options: Option<TraceOptions>, budget: &Budget) -> Answer<Frame> {
        let options = options.unwrap_or_default();
        if options.tracer.as_deref() != Some("callTracer") {
            return Err(invalid("only {\"tracer\": \"callTracer\"} is supported"));
        }
        let view = self.chain.view().map_err(internal)?;
        let place = view.tx_place(hash).map_err(internal)?;
        let (height, index) = place.ok_or_else(|| error(NOT_FOUND, "transaction not found"))?;
        let index = index as usize;
        let block = view.block(height).map_err(internal)?;
        let block = block.ok_or_else(|| error(NOT_FOUND, "block not found"))?;
        if budget.left() == 0 {
            return Err(Budget::exceeded());
        }
        budget.spend(block.txs[..=index].iter().map(|tx| tx.gas_used).sum());
        let before = self.chain.view_at(height - 1).map_err(internal)?.ok_or_else(|| {
            error(
                SERVER_ERROR,
                format!(
                    "state of block {} is pruned: this node keeps the last {UNDO_BLOCKS}",
                    height - 1
                ),
            )
        })?;
        let mut overlay = Overlay::new(before);
        overlay.set_storage(
            HEADER_HASHES,
            U256::from(height),
            bitcoin_hash(&block.header).into(),
        );
        let sight = sight_of(&block.header);
        let fatal = |e: String| internal(StateError::Engine(e));
        for tx in &block.txs[..index] {
            let mut evm = evm::build(
                &mut overlay,
                evm::cfg(self.chain.genesis()),
                sight.env(tx.fee_recipient),
            );
            evm::run(&mut evm, signed(tx).env(), sight.base_fee).map_err(|e| fatal(format!("{e:?}")))?;
        }
        let tx = &block.txs[index];
        let tracer = CallTracer {
            with_log: options.tracer_config.with_log,
            ..Default::default()
        };
        let mut evm = evm::build(
            &mut overlay,
            evm::cfg(self.chain.genesis()),
            sight.env(tx.fee_recipient),
        )
        .with_inspector(tracer);
        evm.inspect_one_tx(signed(tx).env())
            .map_err(|e| fatal(e.to_string()))?;
        let mut frame = evm
            .into_inspector()
            .done
            .ok_or_else(|| fatal("the trace has no outer call".into()))?;
        // The outer call stands for the transaction: its gas includes what comes before the first opcode.
        frame.gas = U64::from(tx.tx.gas_limit());
        frame.gas_used = U64::from(tx.gas_used);
        if options.tracer_config.only_top_call {
            frame.calls.clear();
        }
        Ok(frame)
    }
}

fn signed(tx: &ExecutedTx) -> SignedTx {
    // The length plays no part in executing again.
    SignedTx {
        hash: *tx.tx.tx_hash(),
        tx: tx.tx.clone(),
        sender: tx.sender,
        raw_len: 0,
    }
}
