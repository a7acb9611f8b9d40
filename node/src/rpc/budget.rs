//! Gas that one request may make the node execute: a batch shares it, so that no request buys unlimited work.

use jsonrpsee::core::middleware::{Batch, Notification, Request, RpcServiceT};
use jsonrpsee::types::ErrorObjectOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::call::CALL_GAS_CAP;
use super::error::{LIMIT_EXCEEDED, error};

/// Gas of one request, alone or a batch. An estimate tries a few times what it executes.
pub(crate) const REQUEST_GAS_CAP: u64 = 4 * CALL_GAS_CAP;

/// What is left of a request's gas.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<AtomicU64>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(REQUEST_GAS_CAP)))
    }
}

impl Budget {
    /// Gas left.
    pub(crate) fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes what was used.
    pub(crate) fn spend(&self, gas: u64) {
        // It never fails: the closure always gives a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(gas))
        });
    }

    /// What a call is told that finds too little.
    pub(crate) fn exceeded() -> ErrorObjectOwned {
        error(
            LIMIT_EXCEEDED,
            format!(
                "this request has used the {REQUEST_GAS_CAP} gas that one may execute; send fewer calls in a batch"
            ),
        )
    }
}

/// Gives every request, and every batch as a whole, a budget.
#[derive(Debug, Clone)]
pub(crate) struct Metered<S>(pub(crate) S);

impl<S: RpcServiceT> RpcServiceT for Metered<S> {
    type MethodResponse = S::MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = S::BatchResponse;

    fn call<'a>(&self, mut request: Request<'a>) -> impl Future<Output = Self::MethodResponse> + Send + 'a {
        request.extensions_mut().insert(Budget::default());
        self.0.call(request)
    }

    fn batch<'a>(&self, mut requests: Batch<'a>) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        let budget = Budget::default();
        for entry in requests.iter_mut().flatten() {
            entry.extensions_mut().insert(budget.clone());
        }
        self.0.batch(requests)
    }

    fn notification<'a>(
        &self,
        n: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.0.notification(n)
    }
}
