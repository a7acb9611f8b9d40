// How wide each level of the game is; docs/spec/poc.md, section 6.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// Levels of the token tree, parts of sums.
library Levels {
    /// Binary levels of the token tree that one move goes down.
    uint256 internal constant TREE_STEP = 8;
    /// Multiply-adds of a linear's part.
    uint256 internal constant LINEAR_PART = 256;

    /// The height that a move from `height` > 0 goes down to.
    function next(uint256 height) internal pure returns (uint256) {
        return (height - 1) / TREE_STEP * TREE_STEP;
    }

    /// The height whose move goes down to `height`, in a tree of height `top`.
    function above(uint256 height, uint256 top) internal pure returns (uint256 up) {
        up = (height / TREE_STEP + 1) * TREE_STEP;
        if (up > top) up = top;
    }

    /// Parts of a linear's sum: each of `segments` of K in runs of 256.
    function linearParts(uint256 k, uint256 segments) internal pure returns (uint256) {
        return (k / segments + LINEAR_PART - 1) / LINEAR_PART * segments;
    }

    /// The elements of K that a part sums.
    function linearPart(uint256 k, uint256 segments, uint256 part)
        internal
        pure
        returns (uint256 start, uint256 end)
    {
        uint256 segment = k / segments;
        uint256 runs = (segment + LINEAR_PART - 1) / LINEAR_PART;
        uint256 first = part / runs * segment;
        start = first + part % runs * LINEAR_PART;
        end = start + LINEAR_PART;
        if (end > first + segment) end = first + segment;
    }
}
