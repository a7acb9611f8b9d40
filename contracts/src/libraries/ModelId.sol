// What a model is called on the chain: a hash over its pack root and every number that the hub takes from its registration.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// Ids of registrations.
library ModelId {
    /// Id of the registration of a pack with these numbers. False numbers make another id, which nobody serves.
    function id(bytes32 modelRoot, uint32 specVersion, uint32 vocab, uint32 context, uint32 words)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(modelRoot, specVersion, vocab, context, words));
    }
}
