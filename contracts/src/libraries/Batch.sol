// Batches of jobs: how their ids are packed, and the tree over their commitments.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub} from "../interfaces/IWorkerHub.sol";

/// Nodes are numbered from the root: 1, and 2n and 2n + 1 beneath n. All leaves lie at one level, so a leaf's number tells its
/// whole path, and nobody commits to two answers for one job. A node is keccak256(left, right); where there is no right one it
/// counts as zero. Leaves hash 224 bytes and nodes 64, so that neither is ever taken for the other.
library Batch {
    /// Most jobs of a batch.
    uint256 internal constant MAX_JOBS = 1024;

    /// The ids of a packed list.
    function ids(bytes calldata packed) internal pure returns (uint256[] memory list) {
        list = new uint256[](packed.length);
        uint256 n;
        uint256 id;
        for (uint256 spot = 0; spot < packed.length;) {
            (uint256 step, uint256 next) = number(packed, spot);
            // Ascending: no job twice, and no job 0.
            require(next != 0 && step != 0, IWorkerHub.BadJobs(spot));
            id += step;
            list[n++] = id;
            spot = next;
        }
        require(n != 0 && n <= MAX_JOBS, IWorkerHub.BatchSize(n, MAX_JOBS));
        assembly ("memory-safe") {
            mstore(list, n)
        }
    }

    /// A LEB128 number below 2^56 and where the next one starts; 0 where the bytes end before it does or it is longer.
    function number(bytes calldata data, uint256 spot) internal pure returns (uint256 value, uint256 next) {
        for (uint256 shift = 0; shift < 56 && spot < data.length; shift += 7) {
            uint256 b = uint8(data[spot++]);
            value |= (b & 127) << shift;
            if (b < 128) return (value, spot);
        }
    }

    /// Levels between the root and the leaves of a tree of `n` leaves.
    function levels(uint256 n) internal pure returns (uint256 h) {
        while (uint256(1) << h < n) ++h;
    }

    /// Levels between the root and the node with this number; of 0, which no node has, that of the root.
    function depth(uint256 node) internal pure returns (uint256 h) {
        while (node > 1) {
            node >>= 1;
            ++h;
        }
    }

    /// The root above `nodes`, which are the leftmost ones `height` levels beneath `node` (in place), and the path from there.
    function root(bytes32[] memory nodes, uint256 height, uint256 node, bytes32[] calldata path)
        internal
        pure
        returns (bytes32 top)
    {
        uint256 n = nodes.length;
        for (; height != 0; --height) {
            uint256 pairs = (n + 1) / 2;
            for (uint256 i = 0; i < pairs; ++i) {
                nodes[i] = above(nodes[2 * i], 2 * i + 1 < n ? nodes[2 * i + 1] : bytes32(0));
            }
            n = pairs;
        }
        top = nodes[0];
        for (uint256 i = 0; i < path.length; ++i) {
            top = (node >> i) & 1 == 0 ? above(top, path[i]) : above(path[i], top);
        }
    }

    /// The node above two others.
    function above(bytes32 left, bytes32 right) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            mstore(0, left)
            mstore(32, right)
            hash := keccak256(0, 64)
        }
    }
}
