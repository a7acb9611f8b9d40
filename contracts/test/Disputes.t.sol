// The verifier's door: it blocks payment and convicts; nobody else does.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, JobStatus, Slot, SlotState} from "../src/interfaces/IWorkerHub.sol";
import {Base} from "./Base.sol";

contract DisputesTest is Base {
    address internal challenger = address(0xC4A1);

    function _open(uint256 id) private {
        vm.prank(verifier);
        hub.openDispute(id);
    }

    function _close(uint256 id) private {
        vm.prank(verifier);
        hub.closeDispute(id);
    }

    function _convict(uint256 id, address who) private {
        vm.prank(verifier);
        hub.convict(id, who, challenger);
    }

    function test_OnlyTheVerifierSpeaks() public {
        _seat(1);
        (uint256 id,) = _answered(1);
        bytes memory why = abi.encodeWithSelector(IWorkerHub.NotVerifier.selector, payer);
        vm.expectRevert(why);
        vm.prank(payer);
        hub.openDispute(id);
        vm.expectRevert(why);
        vm.prank(payer);
        hub.closeDispute(id);
        vm.expectRevert(why);
        vm.prank(payer);
        hub.convict(id, _neuron(0), payer);
    }

    function test_EveryOpenDisputeBlocksPayment() public {
        _seat(1);
        (uint256 id, Slot[] memory s) = _answered(1);
        _open(id);
        _open(id);
        _pastDeadline(id);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.Disputed.selector, id, 2));
        hub.finalise(id);
        _close(id);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.Disputed.selector, id, 1));
        hub.finalise(id);
        _close(id);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NoDispute.selector, id));
        _close(id);
        hub.finalise(id);
        assertEq(s[0].neuron.balance, 0.95 ether, "paid after all");
    }

    function test_RefusesADisputeOutsideTheWindow() public {
        _seat(1);
        uint256 early = _post(1);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WrongStatus.selector, early, JobStatus.Open));
        _open(early);
        (uint256 id,) = _answered(1);
        uint256 deadline = hub.job(id).deadline;
        vm.roll(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WindowClosed.selector, deadline + 1, deadline));
        _open(id);
    }

    function test_TheConvictedLosesItsCollateralAndThePayerGetsTheFee() public {
        _seat(1);
        (uint256 id, Slot[] memory s) = _answered(1);
        uint256 before = payer.balance;
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NoDispute.selector, id));
        _convict(id, s[0].neuron);
        _open(id);
        _convict(id, s[0].neuron);
        _state(id, s[0].neuron, SlotState.Failed);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotAssigned.selector, id, s[0].neuron));
        _convict(id, s[0].neuron);
        _close(id);
        assertEq(hub.neuron(s[0].neuron).stake, 19 ether, "collateral gone");
        assertEq(challenger.balance, 0.5 ether, "half to who found it");
        assertEq(address(0).balance, 0.5 ether, "half burned");
        _pastDeadline(id);
        hub.finalise(id);
        assertEq(payer.balance, before + 1 ether, "the fee");
        _status(id, JobStatus.Refunded);
        _conserved();
    }

    function test_AConvictionEndsAQuarrel() public {
        _seat(3);
        uint256 id = _post(3);
        uint256 before = payer.balance;
        Slot[] memory s = _assign(id);
        _commit(id, s[0].neuron, "wrong", _out());
        _commit(id, s[1].neuron, ROOT, _out());
        _commit(id, s[2].neuron, ROOT, _out());
        _reveal(id, s[0].neuron, "wrong", _out());
        _reveal(id, s[1].neuron, ROOT, _out());
        _reveal(id, s[2].neuron, ROOT, _out());
        _status(id, JobStatus.Quarrel);
        _open(id);
        _convict(id, s[0].neuron);
        _close(id);
        _pastDeadline(id);
        hub.finalise(id);
        _status(id, JobStatus.Settled);
        assertEq(s[1].neuron.balance, 0.95 ether, "second");
        assertEq(s[2].neuron.balance, 0.95 ether, "third");
        assertEq(s[0].neuron.balance, 0, "convicted");
        assertEq(payer.balance, before + 1 ether, "its share");
        _conserved();
    }

    function test_RefusesToConvictWhoIsNotInTheJob() public {
        _seat(1);
        (uint256 id,) = _answered(1);
        _open(id);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotAssigned.selector, id, payer));
        _convict(id, payer);
    }
}
