// The one Merkle tree of BitAI: neighbours pair up, an odd last node rises unchanged, nodes hold height and leaves.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3Node} from "./Blake3Node.sol";
import {Reader, Wire} from "./Wire.sol";

/// Shapes of trees, folding of levels, paths.
library Merkle {
    using Wire for Reader;

    /// Thrown when a leaf outside the tree is opened.
    error LeafOutside(uint256 index, uint256 leaves);
    /// Thrown when a path has another length than the leaf's place in the tree asks for.
    error PathLength(uint256 got, uint256 expected);
    /// Thrown when a level holds another number of nodes than the tree has there.
    error NodeCount(uint256 got, uint256 expected);

    bytes16 private constant NODE_TAG = "bitai/node/v0";

    /// Nodes at `h` above `leaves` leaves.
    function width(uint256 leaves, uint256 h) internal pure returns (uint256) {
        return (leaves + (uint256(1) << h) - 1) >> h;
    }

    /// Height of the root.
    function height(uint256 leaves) internal pure returns (uint256 h) {
        while (width(leaves, h) > 1) ++h;
    }

    /// Leaves beneath node `index` at `h`.
    function span(uint256 leaves, uint256 h, uint256 index) internal pure returns (uint256) {
        uint256 rest = leaves - (index << h);
        uint256 full = uint256(1) << h;
        return rest < full ? rest : full;
    }

    /// A node above two others: H(tag, height, leaves beneath, left, right).
    function node(uint256 h, uint256 leaves, bytes32 left, bytes32 right) internal view returns (bytes32) {
        uint256 head = uint256(bytes32(NODE_TAG)) | Blake3Node.swap(h) << 96 | Blake3Node.swap(leaves) << 64;
        uint256 spot;
        assembly ("memory-safe") {
            spot := mload(0x40)
            mstore(spot, head)
            mstore(add(spot, 24), left)
            mstore(add(spot, 56), right)
        }
        return Blake3Node.hashAt(spot, 88);
    }

    /// Folds all nodes at height `from` beneath node `index` at height `to` into that node, in place.
    function fold(bytes32[] memory nodes, uint256 leaves, uint256 from, uint256 to, uint256 index)
        internal
        view
        returns (bytes32)
    {
        uint256 first = index << (to - from);
        uint256 n = width(leaves, from) - first;
        if (n > uint256(1) << (to - from)) n = uint256(1) << (to - from);
        require(nodes.length == n, NodeCount(nodes.length, n));
        for (uint256 h = from; h < to; ++h) {
            uint256 pairs = (n + 1) / 2;
            for (uint256 i = 0; i < pairs; ++i) {
                nodes[i] = 2 * i + 1 < n
                    ? node(h + 1, span(leaves, h + 1, first / 2 + i), nodes[2 * i], nodes[2 * i + 1])
                    : nodes[2 * i];
            }
            n = pairs;
            first /= 2;
        }
        return nodes[0];
    }

    /// The root of a whole tree, zero of none; folds in place.
    function root(bytes32[] memory leaves) internal view returns (bytes32) {
        if (leaves.length == 0) return 0;
        return fold(leaves, leaves.length, 0, height(leaves.length), 0);
    }

    /// The root that a path read from calldata (its length, then siblings from the lowest up) gives a leaf.
    function climb(Reader memory r, uint256 leaves, uint256 index, bytes32 leaf)
        internal
        view
        returns (bytes32)
    {
        require(index < leaves, LeafOutside(index, leaves));
        uint256 top = height(leaves);
        uint256 expected;
        for (uint256 h = 0; h < top; ++h) {
            if ((index >> h) ^ 1 < width(leaves, h)) ++expected;
        }
        uint256 got = r.u8();
        require(got == expected, PathLength(got, expected));
        for (uint256 h = 0; h < top; ++h) {
            uint256 spot = index >> h;
            if (spot ^ 1 >= width(leaves, h)) continue;
            bytes32 sibling = r.hash();
            uint256 below = span(leaves, h + 1, spot / 2);
            leaf = spot & 1 == 0 ? node(h + 1, below, leaf, sibling) : node(h + 1, below, sibling, leaf);
        }
        return leaf;
    }
}
