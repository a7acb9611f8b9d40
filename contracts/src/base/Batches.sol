// Jobs by the batch: one commit, one reveal, one end for many of them.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Params} from "../interfaces/IWorkerHub.sol";
import {IModelRegistry} from "../interfaces/IModelRegistry.sol";
import {Batch} from "../libraries/Batch.sol";
import {Jobs} from "./Jobs.sol";

/// What others or time decide leaves a job out; what the caller alone decides refuses the call.
abstract contract Batches is Jobs {
    /// One answer as it stands in calldata.
    struct Answer {
        bytes32 traceRoot;
        bytes32 outputHash;
        uint256 from;
        uint256 to;
    }

    constructor(IModelRegistry registry, Params memory p) Jobs(registry, p) {}

    /// @inheritdoc IWorkerHub
    function commitBatch(bytes calldata jobs, bytes32 jobHashes, bytes32 root) external guarded {
        require(root != 0, EmptyCommitment());
        uint256[] memory ids = Batch.ids(jobs);
        bytes32 expected = _hashOfHashes(ids);
        require(jobHashes == expected, WrongJobHashes(jobHashes, expected));
        Binding memory b = Binding(root, 0, 0);
        uint256 place = uint256(1) << Batch.levels(ids.length);
        bytes memory first;
        for (uint256 i = 0; i < ids.length; ++i) {
            first = _noted(ids[i], _commit(ids[i], place + i, b), first);
        }
        if (b.lead == 0) _refuse(first);
    }

    /// @inheritdoc IWorkerHub
    function revealBatch(
        uint256 lead,
        bytes32 salt,
        uint256 node,
        bytes32[] calldata path,
        bytes calldata jobs,
        bytes calldata answers
    ) external guarded {
        uint256[] memory ids = Batch.ids(jobs);
        Answer[] memory list = _answersOf(ids.length, answers);
        _revealEach(lead, _proven(lead, salt, node, path, ids, list), ids, list, answers);
    }

    /// @inheritdoc IWorkerHub
    function finaliseBatch(bytes calldata jobs) external guarded {
        uint256[] memory ids = Batch.ids(jobs);
        Till memory till;
        uint256 done;
        bytes memory first;
        for (uint256 i = 0; i < ids.length; ++i) {
            bytes memory why = _finalise(ids[i], till);
            if (why.length == 0) ++done;
            else first = _noted(ids[i], why, first);
        }
        if (done == 0) _refuse(first);
        _close(till);
    }

    /// Tells that a job was left out, where it was; returns the first reason of all.
    function _noted(uint256 jobId, bytes memory why, bytes memory first) private returns (bytes memory) {
        if (why.length == 0) return first;
        emit Skipped(jobId, msg.sender, why);
        return first.length == 0 ? why : first;
    }

    /// Reveals jobs whose answers are proven; `place` is the first one's.
    function _revealEach(
        uint256 lead,
        uint256 place,
        uint256[] memory ids,
        Answer[] memory list,
        bytes calldata answers
    ) private {
        uint256 done;
        bytes memory first;
        for (uint256 i = 0; i < ids.length; ++i) {
            Answer memory a = list[i];
            bytes memory why = _revealAt(ids[i], lead, place + i, a, answers[a.from:a.to]);
            if (why.length == 0) ++done;
            else first = _noted(ids[i], why, first);
        }
        if (done == 0) _refuse(first);
    }

    /// Reveals one job of a batch whose answers are proven, or says why not.
    function _revealAt(uint256 jobId, uint256 lead, uint256 place, Answer memory a, bytes calldata outputIds)
        private
        returns (bytes memory)
    {
        (uint256 seat, bytes memory why) = _revealing(jobId);
        if (why.length != 0) return why;
        Part storage p = _parts[jobId][seat];
        if (p.lead != lead || p.place != place) {
            return abi.encodeWithSelector(NotInBatch.selector, jobId, lead, place);
        }
        _reveal(jobId, p, a.traceRoot, a.outputHash, outputIds);
        return why;
    }

    /// Reads the answers of `n` jobs.
    function _answersOf(uint256 n, bytes calldata data) private pure returns (Answer[] memory list) {
        list = new Answer[](n);
        uint256 spot;
        for (uint256 i = 0; i < n; ++i) {
            require(data.length - spot > 32, BadAnswers(spot));
            bytes32 traceRoot = bytes32(data[spot:spot + 32]);
            require(traceRoot != 0, EmptyTraceRoot());
            (uint256 count, uint256 from) = Batch.number(data, spot + 32);
            require(from != 0 && count * 4 <= data.length - from, BadAnswers(spot));
            spot = from + count * 4;
            list[i] = Answer(traceRoot, keccak256(data[from:spot]), from, spot);
        }
        require(spot == data.length, BadAnswers(spot));
    }

    /// Refuses answers that are not beneath this node of the caller's batch; returns the place of the first.
    function _proven(
        uint256 lead,
        bytes32 salt,
        uint256 node,
        bytes32[] calldata path,
        uint256[] memory ids,
        Answer[] memory list
    ) private view returns (uint256) {
        uint256 seat = _seatOf(lead, msg.sender);
        require(seat != NO_SEAT, NoBatch(lead, msg.sender));
        Part storage p = _parts[lead][seat];
        bytes32 root = p.commitment;
        require(root != 0, NoBatch(lead, msg.sender));
        uint256 levels = Batch.depth(p.place);
        uint256 depth = Batch.depth(node);
        require(
            node != 0 && depth <= levels && path.length == depth
                && ids.length <= uint256(1) << (levels - depth),
            BadNode(node, levels, ids.length, path.length)
        );
        bytes32 got = Batch.root(_leaves(salt, ids, list), levels - depth, node, path);
        require(got == root, WrongReveal(got, root));
        return node << (levels - depth);
    }

    /// What each answer would be committed to with alone.
    function _leaves(bytes32 salt, uint256[] memory ids, Answer[] memory list)
        private
        view
        returns (bytes32[] memory leaves)
    {
        leaves = new bytes32[](ids.length);
        for (uint256 i = 0; i < ids.length; ++i) {
            Answer memory a = list[i];
            leaves[i] = hashCommit(ids[i], msg.sender, salt, a.traceRoot, a.outputHash);
        }
    }

    /// One hash over the hashes of jobs.
    function _hashOfHashes(uint256[] memory ids) private view returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](ids.length);
        for (uint256 i = 0; i < ids.length; ++i) {
            hashes[i] = _courses[ids[i]].jobHash;
        }
        return keccak256(abi.encodePacked(hashes));
    }
}
