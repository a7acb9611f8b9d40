// Changed bytes never convict an honest neuron nor publish another answer; random actors conserve every coin.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Claim, ClaimState, Game, GameState} from "../src/interfaces/IPocVerifier.sol";
import {SlotState} from "../src/interfaces/IWorkerHub.sol";
import {GameBase, Recorded} from "./GameBase.sol";

contract GameFuzzTest is GameBase {
    Recorded private g;
    uint256 private jobId;
    address private neuron;
    bytes32 private claim;

    function _stage(uint256 game, uint256 upTo) private {
        _keepFor(game);
        g = _recorded(game);
        (jobId, neuron) = _claimed(g);
        claim = _open(g, jobId, neuron, challenger);
        _play(g, claim, neuron, challenger, 0, upTo);
    }

    /// Games in which an honest neuron is accused.
    function _honest(uint256 i) private pure returns (uint256) {
        return [uint256(2), 5, 8, 14, 16, 23, 29, 35][i % 8];
    }

    /// forge-config: default.fuzz.runs = 16
    function testFuzz_NoChangedAccusationConvictsAnHonestNeuron(uint256 pick, uint256 spot, uint8 bits)
        public
    {
        vm.assume(bits != 0);
        _stage(_honest(pick), 0);
        uint256 last = g.moves.length - 1;
        _play(g, claim, neuron, challenger, 0, last);
        bytes memory move = _move(g, last);
        move[32 + spot % (move.length - 32)] ^= bytes1(bits);
        vm.prank(challenger);
        try poc.accuse(claim, move) {} catch {}
        assertTrue(poc.claimOf(claim).state == ClaimState.Disputed, "an honest neuron is convicted");
        _state(jobId, neuron, SlotState.Revealed);
        _whole();
    }

    /// forge-config: default.fuzz.runs = 16
    function testFuzz_NoChangedAnswerTakesThePlaceOfTheCommittedOne(
        uint256 pick,
        uint256 which,
        uint256 spot,
        uint8 bits
    ) public {
        vm.assume(bits != 0);
        _stage(_honest(pick), 0);
        // Fixed by hash, but for the roots of a token's units and for sums, which are the neuron's own.
        uint256 i = 1 + 2 * (which % 4);
        if (i >= g.moves.length - 1) i = 1;
        _play(g, claim, neuron, challenger, 0, i);
        bytes memory move = _move(g, i);
        // Of a token: body, flag, number of layers, the first KV hash.
        move[32 + spot % (i == 3 ? 67 : move.length - 32)] ^= bytes1(bits);
        vm.prank(neuron);
        try poc.answer(move) {
            revert("another answer was published");
        } catch {}
        _play(g, claim, neuron, challenger, i, g.moves.length);
        _whole();
    }

    /// forge-config: default.fuzz.runs = 12
    function testFuzz_MoneyIsConservedAndThereIsOneWinner(uint256 seed, bool lies) public {
        _stage(lies ? 0 : 2, 0);
        uint256 next;
        uint256 convictions;
        for (uint256 step = 0; step < 40; ++step) {
            seed = uint256(keccak256(abi.encode(seed)));
            address who = seed & 1 == 0 ? challenger : second;
            uint256 what = (seed >> 8) % 8;
            if (what < 4 && next < g.moves.length) {
                if (_try(next, who)) ++next;
            } else if (what == 4) {
                _skip((seed >> 16) % 80);
            } else if (what == 5) {
                try poc.timeout(claim, who) {} catch {}
            } else if (what == 6) {
                uint256 bond = poc.bond(g.spec.modelRoot);
                vm.prank(second);
                try poc.join{value: bond}(claim) {} catch {}
            } else {
                vm.prank(who);
                try poc.takeBack(claim) {} catch {}
                vm.prank(seed & 2 == 0 ? who : neuron);
                try poc.withdraw() {} catch {}
            }
            _whole();
            convictions = hub.slot(jobId, neuron).state == SlotState.Failed ? 1 : 0;
            assertEq(
                convictions,
                poc.claimOf(claim).state == ClaimState.Convicted ? 1 : 0,
                "hub and verifier agree"
            );
            _agree();
        }
    }

    /// Who plays is counted; a job is blocked exactly while somebody does.
    function _agree() private view {
        Claim memory c = poc.claimOf(claim);
        uint256 playing;
        if (c.state == ClaimState.Disputed) {
            if (_gameOf(claim, challenger).state == GameState.Playing) ++playing;
            if (_gameOf(claim, second).state == GameState.Playing) ++playing;
        }
        assertEq(c.live, playing, "live games");
        assertEq(hub.job(jobId).openDisputes, playing == 0 ? 0 : 1, "the hub is blocked while one plays");
    }

    /// Makes recorded move `i`, if it counts now.
    function _try(uint256 i, address who) private returns (bool) {
        _here[g.claim] = claim;
        bytes memory move = _move(g, i);
        if (_is(g, i, "ask")) {
            vm.prank(who);
            try poc.ask(claim, move) returns (bytes32 id) {
                _here[g.ids[i]] = id;
                return true;
            } catch {
                return false;
            }
        }
        if (_is(g, i, "answer")) {
            vm.prank(neuron);
            try poc.answer(move) returns (bytes32 id) {
                _here[g.ids[i]] = id;
                return true;
            } catch {
                return false;
            }
        }
        vm.prank(who);
        try poc.accuse(claim, move) {
            return true;
        } catch {
            return false;
        }
    }
}
