// A recorded game played to its end, with what follows from it for claim, bonds and job.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {ClaimState, Game, GameState} from "../src/interfaces/IPocVerifier.sol";
import {JobStatus, SlotState} from "../src/interfaces/IWorkerHub.sol";
import {AccusationGas} from "./AccusationGas.sol";
import {GameBase, Recorded} from "./GameBase.sol";

/// Plays recorded games.
abstract contract GamePlay is GameBase, AccusationGas {
    /// Plays game `i`: it ends as the Rust engine's did.
    function _game(uint256 i) internal {
        _keepFor(i);
        Recorded memory g = _recorded(i);
        (uint256 jobId, address neuron) = _claimed(g);
        bytes32 claim = _open(g, jobId, neuron, challenger);
        uint256 bond = poc.bond(g.spec.modelRoot);
        uint256 before = challenger.balance;
        uint256 last = g.moves.length - 1;
        _play(g, claim, neuron, challenger, 0, last);
        if (_is(g, last, "accuse")) _accuse(g, claim, i);
        else _play(g, claim, neuron, challenger, last, last + 1);
        Game memory after_ = _gameOf(claim, challenger);
        if (g.guilty) {
            assertEq(uint256(poc.claimOf(claim).state), uint256(ClaimState.Convicted), g.name);
            _state(jobId, neuron, SlotState.Failed);
            assertEq(challenger.balance, before + 0.5 ether, "half of the collateral");
            vm.prank(challenger);
            poc.takeBack(claim);
            assertEq(poc.owedTo(challenger), bond, "the bond");
        } else {
            assertEq(uint256(after_.state), uint256(GameState.Lost), g.name);
            assertEq(uint256(poc.claimOf(claim).state), uint256(ClaimState.Disputed), g.name);
            assertEq(poc.owedTo(neuron), bond, "the bond is the neuron's");
        }
        _whole();
        _pastDeadline(jobId);
        hub.finalise(jobId);
        _status(jobId, g.guilty ? JobStatus.Refunded : JobStatus.Settled);
    }

    /// The snapshot that keeps what accusations cost on the chain.
    function _snapshot() internal pure virtual returns (string memory) {
        return "Accusations";
    }

    /// The last move of game `i`; a snapshot keeps what it costs.
    function _accuse(Recorded memory g, bytes32 claim, uint256 i) private {
        // A game may begin with it.
        _here[g.claim] = claim;
        bytes memory move = _move(g, g.moves.length - 1);
        _startMeter();
        vm.prank(challenger);
        poc.accuse(claim, move);
        uint256 used = _measured();
        vm.prank(challenger);
        poc.accuse(claim, move);
        string memory number = string.concat(i < 10 ? "0" : "", vm.toString(i), " ");
        vm.snapshotValue(_snapshot(), string.concat(number, g.name), _chainGas(used));
    }
}
