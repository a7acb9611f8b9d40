// Clocks, bonds and several challengers: who loses, who is paid, what silence costs.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {ClaimState, GameState, IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {IWorkerHub, JobStatus, SlotState} from "../src/interfaces/IWorkerHub.sol";
import {Model} from "../src/interfaces/IProgramBook.sol";
import {GameBase, Recorded} from "./GameBase.sol";

contract GameMoneyTest is GameBase {
    Recorded private g;
    uint256 private jobId;
    address private neuron;
    bytes32 private claim;
    uint256 private bond;

    function _stage(uint256 game, uint256 upTo) private {
        _keep(game < 9 ? 1 : 0);
        g = _recorded(game);
        (jobId, neuron) = _claimed(g);
        bond = poc.bond(g.spec.modelRoot);
        claim = _open(g, jobId, neuron, challenger);
        _play(g, claim, neuron, challenger, 0, upTo);
    }

    function _timeout(address who) private {
        poc.timeout(claim, who);
        _whole();
    }

    function test_ASilentChallengerLosesItsBondToTheNeuron() public {
        _stage(0, 2);
        _skip(CLOCK);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.ClockRuns.selector, 0));
        poc.timeout(claim, challenger);
        _skip(1);
        _timeout(challenger);
        assertEq(uint256(_gameOf(claim, challenger).state), uint256(GameState.Lost), "lost");
        assertEq(poc.owedTo(neuron), bond, "bond");
        uint256 before = neuron.balance;
        vm.prank(neuron);
        poc.withdraw();
        assertEq(neuron.balance, before + bond, "withdrawn");
        vm.expectPartialRevert(IPocVerifier.NothingOwed.selector);
        vm.prank(neuron);
        poc.withdraw();
        hub.finalise(jobId);
        _status(jobId, JobStatus.Settled);
    }

    function test_ASilentNeuronIsConvicted() public {
        _stage(0, 1);
        _skip(CLOCK);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.ClockRuns.selector, 0));
        poc.timeout(claim, challenger);
        _skip(1);
        uint256 before = challenger.balance;
        _timeout(challenger);
        _state(jobId, neuron, SlotState.Failed);
        assertEq(challenger.balance, before + 0.5 ether, "half of the collateral");
        bytes memory late = _move(g, 1);
        vm.expectPartialRevert(IPocVerifier.Decided.selector);
        vm.prank(neuron);
        poc.answer(late);
    }

    function test_AnAnswerThatComesLateDoesNotSaveTheNeuron() public {
        _stage(0, 1);
        _skip(CLOCK + 1);
        _play(g, claim, neuron, challenger, 1, 2);
        bytes memory next = _move(g, 2);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.ClockRanOut.selector, neuron));
        vm.prank(challenger);
        poc.ask(claim, next);
        _timeout(challenger);
        _state(jobId, neuron, SlotState.Failed);
    }

    function test_ClocksRunForTheWholeGame() public {
        _stage(0, 2);
        _skip(100);
        _play(g, claim, neuron, challenger, 2, 3);
        _skip(140);
        _play(g, claim, neuron, challenger, 3, 4);
        // 44 heights are left to the challenger, 4 to the neuron.
        _skip(44);
        _play(g, claim, neuron, challenger, 4, 5);
        _skip(5);
        _timeout(challenger);
        _state(jobId, neuron, SlotState.Failed);
    }

    function test_rejects_moves_of_a_challenger_whose_clock_ran_out() public {
        _stage(0, 2);
        _skip(CLOCK + 1);
        bytes memory next = _move(g, 2);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.ClockRanOut.selector, challenger));
        vm.prank(challenger);
        poc.ask(claim, next);
    }

    function test_ALossBindsNobodyElse() public {
        _stage(0, 2);
        _join(g, claim, second);
        _skip(CLOCK + 1);
        _timeout(challenger);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.Disputed.selector, jobId, 1));
        hub.finalise(jobId);
        // The second one's clock ran as long: it falls too, and only then the job is free.
        _timeout(second);
        assertEq(poc.owedTo(neuron), 2 * bond, "two bonds");
        hub.finalise(jobId);
        _status(jobId, JobStatus.Settled);
    }

    function test_ANodeThatOneAskedForIsThereForAll() public {
        _stage(0, 2);
        _join(g, claim, second);
        bytes memory first = _move(g, 0);
        vm.expectPartialRevert(IPocVerifier.Published.selector);
        vm.prank(second);
        poc.ask(claim, first);
        // Both wait for the same answer; one of them accuses, and both get their bonds.
        bytes memory next = _move(g, 2);
        vm.prank(second);
        poc.ask(claim, next);
        _play(g, claim, neuron, challenger, 2, 10);
        _play(g, claim, neuron, second, 10, 11);
        assertEq(uint256(poc.claimOf(claim).state), uint256(ClaimState.Convicted), "convicted");
        vm.prank(challenger);
        poc.takeBack(claim);
        vm.prank(second);
        poc.takeBack(claim);
        assertEq(poc.owedTo(challenger), bond, "first bond");
        assertEq(poc.owedTo(second), bond, "second bond");
        vm.expectPartialRevert(IPocVerifier.NoGame.selector);
        vm.prank(second);
        poc.takeBack(claim);
        _whole();
    }

    function test_rejects_a_second_game_and_one_after_the_window() public {
        _stage(0, 2);
        vm.expectPartialRevert(IPocVerifier.HadItsGame.selector);
        vm.prank(challenger);
        poc.join{value: bond}(claim);
        _pastDeadline(jobId);
        vm.expectPartialRevert(IPocVerifier.WindowOver.selector);
        vm.prank(second);
        poc.join{value: bond}(claim);
        vm.expectPartialRevert(IPocVerifier.NotDecided.selector);
        vm.prank(challenger);
        poc.takeBack(claim);
    }

    function test_rejects_a_first_game_after_the_window() public {
        _keep(1);
        g = _recorded(0);
        (jobId, neuron) = _claimed(g);
        bond = poc.bond(g.spec.modelRoot);
        _pastDeadline(jobId);
        vm.expectPartialRevert(IWorkerHub.WindowClosed.selector);
        vm.prank(challenger);
        poc.open{value: bond}(jobId, neuron, _fields(g), g.outputs);
    }

    function test_TheByteHasAGovernedPriceWithAMaximum() public {
        _stage(0, 0);
        vm.expectPartialRevert(IPocVerifier.NotGovernor.selector);
        poc.setBytePrice(1);
        vm.expectPartialRevert(IPocVerifier.PriceTooHigh.selector);
        vm.prank(governor);
        poc.setBytePrice(WEI_PER_BYTE * 10 + 1);
        vm.prank(governor);
        poc.setBytePrice(WEI_PER_BYTE * 2);
        assertEq(poc.bond(g.spec.modelRoot), 2 * bond, "bond");
        // 57,692 bytes of answers below the token, a piece, 297 of the token, 2,700 around them.
        assertEq(
            bond, uint256(WEI_PER_BYTE) * (8192 * 4 + 64 + 16384 + 256 + 1024 + 8220 + 297 + 2700), "bytes"
        );
    }

    function test_TheBondCountsThePiecesOfTheLongestRow() public {
        _keep(0);
        bytes32 root = _root(".models[0]");
        Model memory m = book.model(root);
        uint256 small = poc.bond(root);
        // 2^18 logits have pieces of 4 KiB, 2^20 of 16.
        uint32[2] memory vocabs = [uint32(1) << 18, uint32(1) << 20];
        uint256[2] memory pieces = [uint256(4_096), 16_384];
        for (uint256 i = 0; i < 2; ++i) {
            m.rowBytes = vocabs[i] * 4;
            vm.mockCall(address(book), abi.encodeCall(book.model, (root)), abi.encode(m));
            assertEq(poc.bond(root) - small, (pieces[i] - 1_024) * WEI_PER_BYTE, "a longer piece");
        }
        // 32,768 heads of two elements: records of 12 bytes, 85 in a chunk.
        (m.rowBytes, m.kvHeads, m.headDim) = (262_144, 32_768, 2);
        vm.mockCall(address(book), abi.encodeCall(book.model, (root)), abi.encode(m));
        assertEq(poc.bond(root) - small, (2_048 - 1_024) * WEI_PER_BYTE, "a cached row");
    }
}
