// What attestations cost and pay beyond one job of one neuron: several shares, a credit of the hub, a root that a step convicts.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {AttestationState} from "../src/interfaces/IAttestations.sol";
import {ClaimState} from "../src/interfaces/IPocVerifier.sol";
import {JobStatus, Slot} from "../src/interfaces/IWorkerHub.sol";
import {AttestBase} from "./AttestBase.sol";
import {Recorded} from "./GameBase.sol";

contract AttestMoneyTest is AttestBase {
    /// A lie about a linear's sum in games.json; its last move is an accusation that a step decides.
    uint256 private constant SUM_GAME = 0;

    /// A job of two neurons pays validators the protocol's part of both shares.
    function test_AJobOfTwoNeuronsPaysForBothShares() public {
        _offer(_neuron(1));
        vm.prank(payer);
        uint256 id = hub.infer{value: 2 * FEE}(g.spec, 2, 0);
        Slot[] memory s = _assign(id);
        for (uint256 i = 0; i < 2; ++i) {
            _commit(id, s[i].neuron, g.root, g.outputs);
        }
        for (uint256 i = 0; i < 2; ++i) {
            _reveal(id, s[i].neuron, g.root, g.outputs);
        }
        uint256 height = hub.job(id).answeredAt + 2;
        vm.roll(height);
        // A header that draws the validator for this job, too.
        for (uint256 i = 1; !att.isDrawn(id, me); ++i) {
            _setHeader(height, bytes32(i));
        }
        _attest("");
        vm.roll(hub.job(id).deadline + 1);
        hub.finalise(id);
        _toPay();
        uint256 pay = uint256(0.1 ether) / 3;
        assertEq(att.pay(id), pay, "a third of both parts");
        assertEq(att.reserve(), 0.1 ether, "both parts are here");
        vm.prank(me);
        att.claim(abi.encodePacked(bytes4(uint32(id) << 24)));
        assertEq(att.due(me), pay, "due");
    }

    /// The hub's transfer failed; what it owes since then comes when it is asked for.
    function test_ACreditOfTheHubIsCollected() public {
        bytes memory code = HERE.code;
        // Takes no coins: INVALID.
        vm.etch(HERE, hex"fe");
        _settle();
        assertEq(hub.credits(HERE), 0.15 ether, "owed");
        vm.etch(HERE, code);
        assertEq(att.reserve(), 0, "not here yet");
        att.collect();
        assertEq(att.reserve(), 0.15 ether, "collected");
        assertEq(hub.credits(HERE), 0, "owed no more");
        _accounted(0.15 ether);
        _conserved();
    }

    /// A validator that exposed a wrong root is convicted by the step that the root gets wrong, as a neuron is.
    function test_AStepConvictsAValidatorOfAWrongRoot() public {
        _attest("");
        _toAsk();
        _ask();
        _openIt();
        uint256 slot = _entries();
        // The lie, about the same model, answered by the neuron; its entry is exposed as the opening of a right one was.
        json = vm.readFile("../vectors/games.json");
        Recorded memory lie = _recorded(SUM_GAME);
        (uint256 id, address by) = _answeredJob(lie);
        assertEq(by, neuron, "neuron");
        _expose(slot, id, lie);

        uint96 before = att.validatorOf(me).stake;
        JobClaim memory c;
        c.bond = second_.bond(lie.spec.modelRoot);
        vm.prank(challenger);
        c.id = second_.open{value: c.bond}(id, me, _fields(lie), lie.outputs);
        poc = second_;
        _play(lie, c.id, me, challenger, 0, lie.moves.length - 1);
        assertEq(uint256(second_.claimOf(c.id).state), uint256(ClaimState.Disputed), "until the step");
        _play(lie, c.id, me, challenger, lie.moves.length - 1, lie.moves.length);
        assertEq(uint256(second_.claimOf(c.id).state), uint256(ClaimState.Convicted), "by the step");
        uint64 epoch = hub.job(id).answeredAt / EPOCH;
        assertEq(uint256(att.attestationOf(epoch, me).state), uint256(AttestationState.Failed), "attestation");
        assertEq(att.validatorOf(me).stake, before - before / 5, "a fifth");
        assertEq(att.due(challenger), before / 10, "half of it");
        // The neuron's own claim is another one.
        _pastDeadline(id);
        hub.finalise(id);
        _status(id, JobStatus.Settled);
    }

    struct JobClaim {
        bytes32 id;
        uint256 bond;
    }

    /// Where the contract keeps entries: found by the one that was opened.
    function _entries() private view returns (uint256 slot) {
        bytes32 wanted = att.entryOf(JOB, me).traceRoot;
        while (vm.load(HERE, bytes32(uint256(_spot(slot, JOB)) + 1)) != wanted) ++slot;
    }

    function _spot(uint256 slot, uint256 id) private view returns (bytes32) {
        return keccak256(abi.encode(me, keccak256(abi.encode(id, slot))));
    }

    /// Writes what opening an entry for this answer would.
    function _expose(uint256 slot, uint256 id, Recorded memory lie) private {
        uint256 spot = uint256(_spot(slot, id));
        vm.store(HERE, bytes32(spot), bytes32((block.number + 12) << 64));
        vm.store(HERE, bytes32(spot + 1), lie.root);
        vm.store(HERE, bytes32(spot + 2), keccak256(lie.outputs));
        assertEq(att.slot(id, me).traceRoot, lie.root, "exposed");
    }
}
