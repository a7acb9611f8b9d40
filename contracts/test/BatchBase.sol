// What tests of batches share: packing, the tree written another way than the contract's, and the three calls.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub} from "../src/interfaces/IWorkerHub.sol";
import {Base} from "./Base.sol";

abstract contract BatchBase is Base {
    /// LEB128.
    function _leb(uint256 x) internal pure returns (bytes memory out) {
        while (x > 127) {
            out = bytes.concat(out, bytes1(uint8(x & 127 | 128)));
            x >>= 7;
        }
        out = bytes.concat(out, bytes1(uint8(x)));
    }

    function _pack(uint256[] memory ids) internal pure returns (bytes memory out) {
        uint256 last;
        for (uint256 i = 0; i < ids.length; ++i) {
            out = bytes.concat(out, _leb(ids[i] - last));
            last = ids[i];
        }
    }

    /// Ids from `first` on.
    function _range(uint256 first, uint256 n) internal pure returns (uint256[] memory ids) {
        ids = new uint256[](n);
        for (uint256 i = 0; i < n; ++i) {
            ids[i] = first + i;
        }
    }

    /// An answer's trace root, another for each job.
    function _root(uint256 id) internal pure returns (bytes32) {
        return keccak256(abi.encode("root", id));
    }

    /// 5, and 2, which ends it.
    function _answer(uint256 id) internal pure virtual returns (bytes memory) {
        return id % 2 == 0 ? bytes(hex"0500000002000000") : bytes(hex"050000000600000002000000");
    }

    function _leaf(address who, uint256 id) internal view returns (bytes32) {
        return hub.hashCommit(id, who, SALT, _root(id), keccak256(_answer(id)));
    }

    function _answers(uint256[] memory ids) internal pure returns (bytes memory out) {
        for (uint256 i = 0; i < ids.length; ++i) {
            bytes memory a = _answer(ids[i]);
            out = bytes.concat(out, _root(ids[i]), _leb(a.length / 4), a);
        }
    }

    function _levels(uint256 n) internal pure returns (uint256 h) {
        for (uint256 w = 1; w < n; w *= 2) {
            ++h;
        }
    }

    /// Node `node` of the tree over these jobs, whose leaves lie `h` levels beneath the root.
    function _tree(address who, uint256[] memory ids, uint256 node, uint256 h)
        internal
        view
        returns (bytes32)
    {
        if (node >> h != 0) {
            uint256 i = node - (uint256(1) << h);
            return i < ids.length ? _leaf(who, ids[i]) : bytes32(0);
        }
        bytes32 left = _tree(who, ids, 2 * node, h);
        bytes32 right = _tree(who, ids, 2 * node + 1, h);
        return left == 0 ? bytes32(0) : keccak256(abi.encode(left, right));
    }

    function _path(address who, uint256[] memory ids, uint256 node)
        internal
        view
        returns (bytes32[] memory path)
    {
        path = new bytes32[](_levels(node + 1) - 1);
        for (uint256 i = 0; i < path.length; ++i) {
            path[i] = _tree(who, ids, node >> i ^ 1, _levels(ids.length));
        }
    }

    function _hashes(uint256[] memory ids) internal view returns (bytes32) {
        bytes memory all;
        for (uint256 i = 0; i < ids.length; ++i) {
            all = bytes.concat(all, hub.job(ids[i]).jobHash);
        }
        return keccak256(all);
    }

    function _postMany(uint256 n, uint8 k) internal returns (uint256[] memory) {
        uint256 first = _post(k);
        for (uint256 i = 1; i < n; ++i) {
            _post(k);
        }
        return _range(first, n);
    }

    function _commitAll(address who, uint256[] memory ids) internal {
        bytes32 hashes = _hashes(ids);
        bytes32 root = _tree(who, ids, 1, _levels(ids.length));
        vm.prank(who);
        hub.commitBatch(_pack(ids), hashes, root);
    }

    function _revealAll(address who, uint256[] memory ids) internal {
        vm.prank(who);
        hub.revealBatch(ids[0], SALT, 1, new bytes32[](0), _pack(ids), _answers(ids));
    }

    /// The part of a batch beneath `node`.
    function _revealPart(address who, uint256[] memory all, uint256 node, uint256 first, uint256 n) internal {
        uint256[] memory some = new uint256[](n);
        for (uint256 i = 0; i < n; ++i) {
            some[i] = all[first + i];
        }
        bytes32[] memory path = _path(who, all, node);
        vm.prank(who);
        hub.revealBatch(all[0], SALT, node, path, _pack(some), _answers(some));
    }

    function _skipped(uint256 id, address caller, bytes memory why) internal {
        vm.expectEmit();
        emit IWorkerHub.Skipped(id, caller, why);
    }
}
