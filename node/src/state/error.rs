//! What can go wrong in storage.

use revm::database_interface::DBErrorMarker;

use crate::genesis::GenesisError;

/// Trouble with the state database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Disk or file trouble, as redb tells it.
    #[error("state database: {0}")]
    Storage(String),
    /// A record that this program did not write.
    #[error("state database is damaged: {0}; delete it and let the node replay the chain")]
    Corrupt(String),
    /// The file belongs to another chain.
    #[error(
        "state database belongs to genesis {found}, this node runs {wanted}: choose another data directory"
    )]
    OtherGenesis {
        /// In the file.
        found: alloy_primitives::B256,
        /// Asked for.
        wanted: alloy_primitives::B256,
    },
    /// The genesis itself is bad.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// revm could not go on for a reason that is not in the block.
    #[error("execution engine: {0}")]
    Engine(String),
}

impl DBErrorMarker for StateError {}

impl StateError {
    /// A damaged record of this kind.
    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        StateError::Corrupt(what.to_string())
    }
}

/// redb has one error type a kind of call; all of them are disk trouble to us.
macro_rules! from_redb {
    ($($error:ty),+) => {
        $(impl From<$error> for StateError {
            fn from(error: $error) -> Self {
                StateError::Storage(error.to_string())
            }
        })+
    };
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);
