//! What alloy makes of the committed ABI files.

// The docs of these items are the natspec in contracts/src/interfaces; the generated code cannot carry it.
#![allow(missing_docs)]

/// The job hub.
pub(crate) mod hub {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        WorkerHub,
        "../abi/WorkerHub.json"
    );
}

/// Validators' attestations.
pub(crate) mod attestations {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Attestations,
        "../abi/Attestations.json"
    );
}

/// The list of models.
pub(crate) mod registry {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        ModelRegistry,
        "../abi/ModelRegistry.json"
    );
}

/// The contract that plays disputes.
pub(crate) mod verifier {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        PocVerifier,
        "../abi/PocVerifier.json"
    );
}

/// Programs that disputes are about.
pub(crate) mod book {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        ProgramBook,
        "../abi/ProgramBook.json"
    );
}
