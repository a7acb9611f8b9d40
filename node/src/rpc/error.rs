//! JSON-RPC errors as Ethereum clients know them.

use alloy_primitives::Bytes;
use jsonrpsee::types::ErrorObjectOwned;

use crate::mempool::PoolError;
use crate::state::StateError;

/// EIP-1474: invalid input, also geth's code for a refused transaction.
pub(crate) const SERVER_ERROR: i32 = -32000;
/// Resource not found.
pub(crate) const NOT_FOUND: i32 = -32001;
/// Invalid parameters.
pub(crate) const INVALID_PARAMS: i32 = -32602;
/// A limit is exceeded.
pub(crate) const LIMIT_EXCEEDED: i32 = -32005;
/// Storage trouble.
const INTERNAL: i32 = -32603;
/// geth's code of a revert; its data is what the contract returned.
const REVERTED: i32 = 3;

/// What a method answers.
pub(crate) type Answer<T> = Result<T, ErrorObjectOwned>;

/// An error without data.
pub(crate) fn error(code: i32, message: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(code, message.into(), None::<()>)
}

/// A revert, so that clients can decode custom errors.
pub(crate) fn reverted(message: String, data: &Bytes) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(REVERTED, message, Some(data))
}

/// A parameter that makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> ErrorObjectOwned {
    error(INVALID_PARAMS, message)
}

/// Storage trouble: the node's operator must look.
pub(crate) fn internal(e: StateError) -> ErrorObjectOwned {
    tracing::error!(error = %e, "rpc");
    error(INTERNAL, e.to_string())
}

/// A refusal by the mempool.
pub(crate) fn refused(e: PoolError) -> ErrorObjectOwned {
    match e {
        PoolError::Reverted { reason, data } => reverted(reason, &data),
        PoolError::State(e) => internal(e),
        other => error(SERVER_ERROR, other.to_string()),
    }
}
