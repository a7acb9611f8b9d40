// Batches from commit to pay; a job that others or time took away leaves the rest of its batch alone.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, JobStatus, SlotState} from "../src/interfaces/IWorkerHub.sol";
import {Batch} from "../src/libraries/Batch.sol";
import {BatchBase} from "./BatchBase.sol";

contract BatchesTest is BatchBase {
    /// So that a refusal can be caught and a list read.
    function unpack(bytes calldata packed) external pure returns (uint256[] memory) {
        return Batch.ids(packed);
    }

    function testFuzz_WhatIsPackedIsReadAgain(uint56[] calldata steps) public view {
        vm.assume(steps.length != 0);
        uint256[] memory ids = new uint256[](steps.length);
        uint256 last;
        for (uint256 i = 0; i < ids.length; ++i) {
            last += uint256(steps[i]) + (steps[i] == 0 ? 1 : 0);
            ids[i] = last;
        }
        assertEq(keccak256(abi.encode(this.unpack(_pack(ids)))), keccak256(abi.encode(ids)), "read again");
    }

    /// Whatever the bytes: ascending ids or one of the two refusals.
    /// forge-config: default.fuzz.runs = 10000
    function testFuzz_AnyBytesAreAscendingIdsOrRefused(bytes calldata noise) public view {
        try this.unpack(noise) returns (uint256[] memory ids) {
            for (uint256 i = 0; i < ids.length; ++i) {
                assertTrue(ids[i] > (i == 0 ? 0 : ids[i - 1]), "ascending");
            }
        } catch (bytes memory why) {
            bytes4 selector = bytes4(why);
            assertTrue(
                selector == IWorkerHub.BadJobs.selector || selector == IWorkerHub.BatchSize.selector,
                "refused"
            );
        }
    }

    address internal n = _neuron(0);

    function setUp() public override {
        super.setUp();
        _seatOne(n, 400 ether, 0, 0);
    }

    function test_FiveJobsAreCommittedRevealedAndPaidAtOnce() public {
        uint256[] memory ids = _postMany(5, 1);
        _skip(2);
        _commitAll(n, ids);
        bytes32 root = _tree(n, ids, 1, 3);
        for (uint256 i = 0; i < 5; ++i) {
            _status(ids[i], JobStatus.Revealing);
            assertEq(hub.slot(ids[i], n).commitment, root, "one commitment");
            (uint256 lead, uint256 place) = hub.committedAt(ids[i], n);
            assertEq(lead, ids[0], "lead");
            assertEq(place, 8 + i, "place");
        }
        _revealAll(n, ids);
        for (uint256 i = 0; i < 5; ++i) {
            _status(ids[i], JobStatus.Challenge);
            assertEq(hub.slot(ids[i], n).traceRoot, _root(ids[i]), "trace root");
            assertEq(hub.slot(ids[i], n).outputHash, keccak256(_answer(ids[i])), "output");
        }
        _pastDeadline(ids[4]);
        hub.finaliseBatch(_pack(ids));
        for (uint256 i = 0; i < 5; ++i) {
            _status(ids[i], JobStatus.Settled);
            _state(ids[i], n, SlotState.Paid);
        }
        assertEq(n.balance, 5 * 0.95 ether, "paid");
        assertEq(treasury.balance, 5 * 0.05 ether, "the protocol's part");
        assertEq(hub.neuron(n).locked, 0, "collateral free");
        _conserved();
    }

    /// Every size of tree about a power of two, whole and leaf by leaf.
    function test_TreesOfEverySize() public {
        for (uint256 size = 1; size <= 9; ++size) {
            uint256[] memory ids = _postMany(size, 1);
            _skip(2);
            _commitAll(n, ids);
            if (size % 2 == 0) {
                _revealAll(n, ids);
            } else {
                uint256 h = _levels(size);
                for (uint256 i = 0; i < size; ++i) {
                    _revealPart(n, ids, (uint256(1) << h) + i, i, 1);
                }
            }
            for (uint256 i = 0; i < size; ++i) {
                _status(ids[i], JobStatus.Challenge);
            }
        }
    }

    function test_ABatchIsRevealedInParts() public {
        uint256[] memory ids = _postMany(6, 1);
        _skip(2);
        _commitAll(n, ids);
        _revealPart(n, ids, 3, 4, 2);
        _status(ids[0], JobStatus.Revealing);
        _status(ids[5], JobStatus.Challenge);
        _revealPart(n, ids, 5, 2, 2);
        _revealPart(n, ids, 8, 0, 1);
        _revealPart(n, ids, 9, 1, 1);
        for (uint256 i = 0; i < 6; ++i) {
            _status(ids[i], JobStatus.Challenge);
        }
    }

    /// A batch of one is today's commit: each opens with the other's call.
    function test_ASingleCommitIsTheTreeOfOneLeaf() public {
        uint256[] memory ids = _postMany(2, 1);
        uint256[] memory one = _range(ids[0], 1);
        uint256[] memory two = _range(ids[1], 1);
        _skip(2);
        _commitAll(n, one);
        _reveal(ids[0], n, _root(ids[0]), _answer(ids[0]));
        _commit(ids[1], n, _root(ids[1]), _answer(ids[1]));
        _revealAll(n, two);
        _status(ids[0], JobStatus.Challenge);
        _status(ids[1], JobStatus.Challenge);
    }

    /// Two neurons batch the same jobs; nothing can be revealed before both are bound.
    function test_TwoNeuronsBatchTheSameJobs() public {
        address m = _neuron(1);
        _seatOne(m, 400 ether, 0, 0);
        vm.roll(block.number + 1);
        uint256[] memory ids = _postMany(3, 2);
        _skip(2);
        _commitAll(n, ids);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, ids[0], JobStatus.Committing));
        _revealAll(n, ids);
        _commitAll(m, ids);
        _revealAll(n, ids);
        _revealAll(m, ids);
        _pastDeadline(ids[2]);
        hub.finaliseBatch(_pack(ids));
        assertEq(n.balance, 3 * 0.95 ether, "one is paid");
        assertEq(m.balance, 3 * 0.95 ether, "the other too");
        _conserved();
    }

    // --- one bad job leaves the others alone --------------------------------------------------

    function test_AJobOfAnotherNeuronIsLeftOutOfTheCommit() public {
        uint256[] memory all = _postMany(3, 1);
        _skip(2);
        hub.assign(all[0]);
        hub.assign(all[2]);
        // The second is drawn while another one alone serves the model.
        vm.prank(n);
        hub.unserve(MODEL);
        address m = _neuron(1);
        _seatOne(m, 40 ether, 0, 0);
        vm.roll(hub.job(all[1]).deadline + 1);
        hub.timeout(all[1]);
        all[1] = _post(1);
        _assign(all[1]);
        uint256 foreign = all[1];
        (all[1], all[2]) = (all[2], all[1]);
        vm.roll(hub.job(all[0]).deadline);
        bytes32 hashes = _hashes(all);
        bytes32 root = _tree(n, all, 1, 2);
        _skipped(foreign, n, abi.encodeWithSelector(IWorkerHub.NotAssigned.selector, foreign, n));
        vm.prank(n);
        hub.commitBatch(_pack(all), hashes, root);
        _status(all[0], JobStatus.Revealing);
        _status(all[1], JobStatus.Revealing);
        _status(foreign, JobStatus.Committing);
    }

    function test_AClosedWindowLeavesOneJobOutOfTheCommit() public {
        uint256[] memory ids = _postMany(3, 1);
        _assign(ids[0]);
        // The first was drawn at once, the others by the commit.
        vm.roll(hub.job(ids[0]).deadline + 1);
        bytes memory why = abi.encodeWithSelector(
            IWorkerHub.WindowClosed.selector, block.number, uint256(hub.job(ids[0]).deadline)
        );
        bytes32 hashes = _hashes(ids);
        bytes32 root = _tree(n, ids, 1, 2);
        _skipped(ids[0], n, why);
        vm.prank(n);
        hub.commitBatch(_pack(ids), hashes, root);
        _status(ids[0], JobStatus.Committing);
        _status(ids[1], JobStatus.Revealing);
        // The next one leads; the first keeps its leaf.
        (uint256 lead, uint256 place) = hub.committedAt(ids[2], n);
        assertEq(lead, ids[1], "lead");
        assertEq(place, 6, "place");
        why = abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, ids[0], JobStatus.Committing);
        _skipped(ids[0], n, why);
        vm.prank(n);
        hub.revealBatch(ids[1], SALT, 1, new bytes32[](0), _pack(ids), _answers(ids));
        _status(ids[1], JobStatus.Challenge);
        _status(ids[2], JobStatus.Challenge);
    }

    function test_AJobCommittedBeforeIsLeftOut() public {
        uint256[] memory ids = _postMany(3, 1);
        _skip(2);
        _commit(ids[1], n, _root(ids[1]), _answer(ids[1]));
        _commitAll(n, ids);
        (uint256 lead, uint256 place) = hub.committedAt(ids[1], n);
        assertEq(lead, ids[1], "its own");
        assertEq(place, 1, "its own");
        // It is proven in the batch, and yet it was bound elsewhere.
        _skipped(ids[1], n, abi.encodeWithSelector(IWorkerHub.NotInBatch.selector, ids[1], ids[0], 5));
        _revealAll(n, ids);
        _status(ids[1], JobStatus.Revealing);
        _reveal(ids[1], n, _root(ids[1]), _answer(ids[1]));
        _status(ids[1], JobStatus.Challenge);
    }

    function test_AJobThatNobodyCanTakeYetIsLeftOutOfTheCommit() public {
        uint256[] memory ids = _postMany(2, 1);
        _skip(2);
        uint256 young = _post(1);
        uint256[] memory all = _range(ids[0], 3);
        bytes memory why =
            abi.encodeWithSelector(IWorkerHub.BeaconNotDue.selector, block.number, block.number + 2);
        bytes32 hashes = _hashes(all);
        bytes32 root = _tree(n, all, 1, 2);
        _skipped(young, n, why);
        vm.prank(n);
        hub.commitBatch(_pack(all), hashes, root);
        _status(ids[1], JobStatus.Revealing);
        _status(young, JobStatus.Open);
    }

    function test_AJobThatTimedOutIsLeftOutOfTheReveal() public {
        uint256[] memory ids = _postMany(3, 1);
        _skip(2);
        hub.assign(ids[2]);
        uint256[] memory two = _range(ids[0], 2);
        _commitAll(n, _range(ids[2], 1));
        _skip(9);
        _commitAll(n, two);
        // The third's reveal window is over, and somebody says so.
        vm.roll(hub.job(ids[2]).deadline + 1);
        hub.timeout(ids[2]);
        assertTrue(block.number <= hub.job(ids[0]).deadline, "still open");
        _revealAll(n, two);
        _status(ids[1], JobStatus.Challenge);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotAssigned.selector, ids[2], n));
        _revealAll(n, _range(ids[2], 1));
    }

    function test_WhatWasRevealedInPartsIsLeftOutOfTheWhole() public {
        uint256[] memory ids = _postMany(4, 1);
        _skip(2);
        _commitAll(n, ids);
        _revealPart(n, ids, 6, 2, 1);
        _skipped(ids[2], n, abi.encodeWithSelector(IWorkerHub.AlreadyRevealed.selector, ids[2], n));
        _revealAll(n, ids);
        for (uint256 i = 0; i < 4; ++i) {
            _status(ids[i], JobStatus.Challenge);
        }
    }

    function test_DisputedFinalisedAndYoungJobsAreLeftOutOfTheEnd() public {
        uint256[] memory ids = _postMany(4, 1);
        _skip(2);
        _commitAll(n, ids);
        _revealPart(n, ids, 2, 0, 2);
        _revealPart(n, ids, 6, 2, 1);
        vm.prank(verifier);
        hub.openDispute(ids[0]);
        _pastDeadline(ids[0]);
        hub.finalise(ids[1]);
        _revealPart(n, ids, 7, 3, 1);
        _skipped(ids[0], address(this), abi.encodeWithSelector(IWorkerHub.Disputed.selector, ids[0], 1));
        _skipped(
            ids[1],
            address(this),
            abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, ids[1], JobStatus.Settled)
        );
        uint256 open = hub.job(ids[3]).deadline;
        _skipped(
            ids[3], address(this), abi.encodeWithSelector(IWorkerHub.WindowOpen.selector, block.number, open)
        );
        hub.finaliseBatch(_pack(ids));
        _status(ids[0], JobStatus.Challenge);
        _status(ids[2], JobStatus.Settled);
        _status(ids[3], JobStatus.Challenge);
        assertEq(n.balance, 2 * 0.95 ether, "two are paid");
        _conserved();
    }

    function test_ARefundInABatchOfEnds() public {
        uint256[] memory ids = _postMany(2, 1);
        _skip(2);
        _commitAll(n, ids);
        _revealAll(n, ids);
        vm.prank(verifier);
        hub.openDispute(ids[0]);
        vm.prank(verifier);
        hub.convict(ids[0], n, address(0xC4A1));
        vm.prank(verifier);
        hub.closeDispute(ids[0]);
        _pastDeadline(ids[1]);
        hub.finaliseBatch(_pack(ids));
        _status(ids[0], JobStatus.Refunded);
        _status(ids[1], JobStatus.Settled);
        assertEq(n.balance, 0.95 ether, "paid for one");
        _conserved();
    }

    /// Receivers in turn: each gets its own.
    function test_PayoutsOfSeveralReceivers() public {
        address m = _neuron(1);
        _seatOne(m, 400 ether, 0, 0);
        vm.prank(m);
        hub.setPayout(address(0xFACE));
        vm.roll(block.number + 1);
        uint256[] memory ids = _postMany(4, 2);
        _skip(2);
        _commitAll(n, ids);
        _commitAll(m, ids);
        _revealAll(m, ids);
        _revealAll(n, ids);
        _pastDeadline(ids[3]);
        hub.finaliseBatch(_pack(ids));
        assertEq(n.balance, 4 * 0.95 ether, "neuron");
        assertEq(address(0xFACE).balance, 4 * 0.95 ether, "payout");
        assertEq(treasury.balance, 8 * 0.05 ether, "treasury");
        _conserved();
    }
}
