// The tree of a validator's entries: one place for each job number, empty ones zero. docs/spec/validators.md, section 3.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "./Blake3Node.sol";
import {Reader, Wire} from "./Wire.sol";

/// Leaves and paths.
library AttestTree {
    using Wire for Reader;

    /// Thrown when a job's number has no place in the tree.
    error NoPlace(uint256 jobId);
    /// Thrown when a sibling that is said not to be empty is zero.
    error EmptySibling(uint256 height);

    /// Levels above the leaves.
    uint256 internal constant HEIGHT = 32;

    bytes16 private constant LEAF_TAG = "bitai/attest/v0";
    bytes16 private constant NODE_TAG = "bitai/anode/v0";

    /// An entry: H(tag, outputs, trace root, outputHash, digest).
    function leaf(uint32 outputs, bytes32 traceRoot, bytes32 outputHash, bytes32 digest)
        internal
        view
        returns (bytes32)
    {
        return Blake3Node.hash(
            abi.encodePacked(LEAF_TAG, uint32(Blake3Node.swap(outputs)), traceRoot, outputHash, digest)
        );
    }

    /// The root that a path read from calldata (a bit for each level with a sibling, then those, the lowest first) gives an
    /// entry.
    function climb(Reader memory r, uint256 jobId, bytes32 value) internal view returns (bytes32) {
        require(jobId >> HEIGHT == 0, NoPlace(jobId));
        uint256 present = r.u32();
        for (uint256 h = 0; h < HEIGHT; ++h) {
            bytes32 sibling;
            if (present >> h & 1 == 1) {
                sibling = r.hash();
                require(sibling != 0, EmptySibling(h));
            }
            value = jobId >> h & 1 == 0 ? _node(h + 1, value, sibling) : _node(h + 1, sibling, value);
        }
        return value;
    }

    /// H(tag, height, left, right); one of the two is not empty.
    function _node(uint256 h, bytes32 left, bytes32 right) private view returns (bytes32) {
        return Blake3Node.hash(abi.encodePacked(NODE_TAG, uint32(Blake3Node.swap(h)), left, right));
    }
}
