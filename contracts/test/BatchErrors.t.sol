// Every refusal of a batch as a whole: what its caller alone decides, and batches of which nothing is left.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, JobStatus} from "../src/interfaces/IWorkerHub.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {BatchBase} from "./BatchBase.sol";

contract BatchErrorsTest is BatchBase {
    address internal n = _neuron(0);
    uint256[] internal ids;

    function setUp() public override {
        super.setUp();
        _seatOne(n, 400 ether, 0, 0);
        ids = _postMany(3, 1);
        _skip(2);
    }

    function _refused(bytes memory why, bytes memory jobs) private {
        vm.expectRevert(why);
        hub.finaliseBatch(jobs);
    }

    function test_RefusesListsOfJobsThatAreNone() public {
        _refused(abi.encodeWithSelector(IWorkerHub.BatchSize.selector, 0, 1024), "");
        // A number that does not end, a job 0, a job twice, a number of more than 56 bits.
        _refused(abi.encodeWithSelector(IWorkerHub.BadJobs.selector, 1), hex"0180");
        _refused(abi.encodeWithSelector(IWorkerHub.BadJobs.selector, 0), hex"00");
        _refused(abi.encodeWithSelector(IWorkerHub.BadJobs.selector, 1), hex"0100");
        _refused(abi.encodeWithSelector(IWorkerHub.BadJobs.selector, 0), hex"ffffffffffffffff01");
        _refused(abi.encodeWithSelector(IWorkerHub.BatchSize.selector, 1025, 1024), _pack(_range(1, 1025)));
    }

    function test_RefusesTheHashesOfOtherJobs() public {
        bytes32 root = _tree(n, ids, 1, 2);
        bytes32 hashes = _hashes(ids);
        vm.expectRevert(
            abi.encodeWithSelector(IWorkerHub.WrongJobHashes.selector, keccak256("other"), hashes)
        );
        vm.prank(n);
        hub.commitBatch(_pack(ids), keccak256("other"), root);
    }

    function test_RefusesAnEmptyRoot() public {
        bytes32 hashes = _hashes(ids);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.EmptyCommitment.selector));
        vm.prank(n);
        hub.commitBatch(_pack(ids), hashes, 0);
    }

    /// The first job's reason, as its own commit would have given it.
    function test_RefusesACommitOfWhichNothingIsLeft() public {
        bytes32 hashes = _hashes(ids);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotAssigned.selector, ids[0], address(this)));
        hub.commitBatch(_pack(ids), hashes, keccak256("root"));
        _commitAll(n, ids);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.AlreadyCommitted.selector, ids[0], n));
        vm.prank(n);
        hub.commitBatch(_pack(ids), hashes, keccak256("root"));
    }

    function test_RefusesARevealOfWhichNothingIsLeft() public {
        _commitAll(n, ids);
        _revealAll(n, ids);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.AlreadyRevealed.selector, ids[0], n));
        _revealAll(n, ids);
    }

    function test_RefusesAnEndOfWhichNothingIsLeft() public {
        _commitAll(n, ids);
        _refused(
            abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, ids[0], JobStatus.Revealing), _pack(ids)
        );
    }

    function test_RefusesToRevealABatchThatNoJobLeads() public {
        bytes memory packed = _pack(ids);
        bytes memory all = _answers(ids);
        bytes32[] memory none = new bytes32[](0);
        uint256[3] memory leads = [ids[0], ids[1], 99];
        for (uint256 i = 0; i < 3; ++i) {
            // The first before its commit, the second led by another, the third no job.
            if (i == 1) _commitAll(n, ids);
            vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NoBatch.selector, leads[i], n));
            vm.prank(n);
            hub.revealBatch(leads[i], SALT, 1, none, packed, all);
        }
    }

    function test_RefusesWhatIsNotBeneathTheRoot() public {
        _commitAll(n, ids);
        bytes32[] memory path = _path(n, ids, 4);
        uint256[] memory one = _range(ids[0], 1);
        // Another salt; another leaf's answer; the right path at the wrong place.
        vm.expectPartialRevert(IWorkerHub.WrongReveal.selector);
        vm.prank(n);
        hub.revealBatch(ids[0], keccak256("other"), 4, path, _pack(one), _answers(one));
        uint256[] memory two = _range(ids[1], 1);
        vm.expectPartialRevert(IWorkerHub.WrongReveal.selector);
        vm.prank(n);
        hub.revealBatch(ids[0], SALT, 4, path, _pack(two), _answers(two));
        vm.expectPartialRevert(IWorkerHub.WrongReveal.selector);
        vm.prank(n);
        hub.revealBatch(ids[0], SALT, 5, path, _pack(one), _answers(one));
        // Two of three: what is left out is not nothing.
        uint256[] memory some = _range(ids[0], 2);
        vm.expectPartialRevert(IWorkerHub.WrongReveal.selector);
        _revealAll(n, some);
    }

    /// A tree may hold two answers of one job; only the one in the job's own place opens.
    function test_RefusesASecondAnswerElsewhereInTheTree() public {
        uint256[] memory two = _range(ids[0], 2);
        bytes32 other = hub.hashCommit(ids[0], n, SALT, ROOT, keccak256(_answer(ids[0])));
        bytes32 root = keccak256(abi.encode(_leaf(n, ids[0]), other));
        bytes32 hashes = _hashes(two);
        vm.prank(n);
        hub.commitBatch(_pack(two), hashes, root);
        bytes memory one = _pack(_range(ids[0], 1));
        bytes memory answer = bytes.concat(ROOT, _leb(_answer(ids[0]).length / 4), _answer(ids[0]));
        bytes32[] memory path = new bytes32[](1);
        path[0] = _leaf(n, ids[0]);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotInBatch.selector, ids[0], ids[0], 3));
        vm.prank(n);
        hub.revealBatch(ids[0], SALT, 3, path, one, answer);
    }

    /// The root of a deeper tree is no leaf: a batch is not opened as a single commit, nor the other way round.
    function test_RefusesTheSingleRevealOfABatch() public {
        uint256[] memory two = _range(ids[0], 2);
        bytes32 hashes = _hashes(two);
        bytes32 leaf = _leaf(n, ids[0]);
        vm.prank(n);
        hub.commitBatch(_pack(two), hashes, leaf);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotInBatch.selector, ids[0], ids[0], 1));
        _reveal(ids[0], n, _root(ids[0]), _answer(ids[0]));
    }

    function test_RefusesNodesThatTheTreeHasNot() public {
        _commitAll(n, ids);
        bytes32[] memory none = new bytes32[](0);
        uint256[4] memory nodes = [uint256(0), 8, 2, 1];
        for (uint256 i = 0; i < 4; ++i) {
            // No such node, beneath the leaves, a path of another length, and more jobs than leaves.
            uint256[] memory some = _range(ids[0], i == 3 ? 5 : 1);
            bytes memory packed = _pack(some);
            bytes memory all = _answers(some);
            vm.expectRevert(abi.encodeWithSelector(IWorkerHub.BadNode.selector, nodes[i], 2, some.length, 0));
            vm.prank(n);
            hub.revealBatch(ids[0], SALT, nodes[i], none, packed, all);
        }
    }

    function test_RefusesAnswersThatAreNotOneForEach() public {
        _commitAll(n, ids);
        bytes memory all = _answers(ids);
        bytes memory packed = _pack(ids);
        bytes32[] memory none = new bytes32[](0);
        for (uint256 length = 0; length < all.length; length += 7) {
            bytes memory cut = new bytes(length);
            for (uint256 i = 0; i < length; ++i) {
                cut[i] = all[i];
            }
            vm.expectPartialRevert(IWorkerHub.BadAnswers.selector);
            vm.prank(n);
            hub.revealBatch(ids[0], SALT, 1, none, packed, cut);
        }
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.BadAnswers.selector, all.length));
        vm.prank(n);
        hub.revealBatch(ids[0], SALT, 1, none, packed, bytes.concat(all, hex"00"));
    }

    function test_RefusesAnEmptyTraceRoot() public {
        _commitAll(n, ids);
        bytes memory all = _answers(ids);
        for (uint256 i = 0; i < 32; ++i) {
            all[i] = 0;
        }
        bytes memory packed = _pack(ids);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.EmptyTraceRoot.selector));
        vm.prank(n);
        hub.revealBatch(ids[0], SALT, 1, new bytes32[](0), packed, all);
    }

    /// What a neuron committed to and what is no answer: its own fault, and its other jobs can still be opened in parts.
    function test_RefusesABatchWithAnOutputThatIsNone() public {
        bytes memory out = hex"e9030000";
        bytes32 leaf = hub.hashCommit(ids[1], n, SALT, ROOT, keccak256(out));
        bytes32 root = keccak256(abi.encode(_leaf(n, ids[0]), leaf));
        uint256[] memory two = _range(ids[0], 2);
        bytes32 hashes = _hashes(two);
        vm.prank(n);
        hub.commitBatch(_pack(two), hashes, root);
        uint256[] memory one = _range(ids[0], 1);
        bytes memory all = bytes.concat(_answers(one), ROOT, hex"01", out);
        vm.expectRevert(abi.encodeWithSelector(Ids.IdOutOfRange.selector, 0, 1001, VOCAB));
        vm.prank(n);
        hub.revealBatch(ids[0], SALT, 1, new bytes32[](0), _pack(two), all);
        bytes32[] memory path = new bytes32[](1);
        path[0] = leaf;
        bytes memory packed = _pack(one);
        vm.prank(n);
        hub.revealBatch(ids[0], SALT, 2, path, packed, _answers(one));
        _status(ids[0], JobStatus.Challenge);
    }
}
