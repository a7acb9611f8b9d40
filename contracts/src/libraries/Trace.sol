// Nodes of a trace, from a KV row's hash up to the trace root. docs/spec/poc.md, section 1.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "./Blake3Node.sol";
import {Model} from "../interfaces/IProgramBook.sol";
import {Slices} from "./Slices.sol";

/// Hashes of a decoder's trace; lengths and presence are the caller's.
library Trace {
    bytes16 private constant ROOT_TAG = "bitai/trace/v0";
    bytes16 private constant HEADER_TAG = "bitai/header/v0";
    bytes16 private constant TOKEN_TAG = "bitai/token/v0";
    bytes16 private constant LEAF_TAG = "bitai/leaf/v0";
    /// Flag of a header: residual rows are committed at the checkpoints.
    uint256 private constant OUT_ROWS = 1;

    /// H(tag, job, layers, stride, vocab, flags, prompt, outputs, positions).
    function header(bytes32 jobHash, Model memory m, uint256 prompt, uint256 outputs)
        internal
        view
        returns (bytes32)
    {
        uint256 words = uint256(m.layers) << 192 | uint256(m.stride) << 160 | uint256(m.vocab) << 128
            | OUT_ROWS << 96 | prompt << 64 | outputs << 32 | (prompt + outputs - 1);
        bytes memory all = abi.encodePacked(HEADER_TAG, jobHash, bytes28(uint224(Blake3Node.lanes(words))));
        return Blake3Node.hash(all);
    }

    /// The trace root: H(tag, header, positions, tree over the tokens).
    function root(bytes32 header_, uint256 positions, bytes32 tree) internal view returns (bytes32) {
        return Blake3Node.hash(abi.encodePacked(ROOT_TAG, header_, uint32(Blake3Node.swap(positions)), tree));
    }

    /// A token's node: H(tag, position, presence, body, sampled id).
    function token(uint256 pos, bytes32 body, bool present, uint32 id) internal view returns (bytes32) {
        bytes memory node = abi.encodePacked(
            TOKEN_TAG, uint32(Blake3Node.swap(pos)), uint32(Blake3Node.swap(present ? 1 : 0)), body
        );
        if (present) node = abi.encodePacked(node, uint32(Blake3Node.swap(id)));
        return Blake3Node.hash(node);
    }

    /// A leaf of a token's body: H(tag, position, layer, presence, KV row, out row).
    function leaf(uint256 pos, uint256 layer, bytes32 kv, bool present, bytes32 out)
        internal
        view
        returns (bytes32)
    {
        bytes memory node = abi.encodePacked(
            LEAF_TAG,
            uint32(Blake3Node.swap(pos)),
            uint32(Blake3Node.swap(layer)),
            uint32(Blake3Node.swap(present ? 1 : 0)),
            kv
        );
        if (present) node = abi.encodePacked(node, out);
        return Blake3Node.hash(node);
    }

    /// Bytes of a canonical KV row (`kernels/src/rows.rs`).
    function kvLength(Model memory m) internal pure returns (uint256) {
        uint256 record = 2 * (uint256(m.headDim) + 4);
        uint256 last = m.kvHeads - 1;
        if (record > Slices.CHUNK) return last * record + record;
        uint256 perChunk = Slices.CHUNK / record;
        return last / perChunk * Slices.CHUNK + last % perChunk * record + record;
    }
}
