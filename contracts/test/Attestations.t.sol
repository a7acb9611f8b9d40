// Attestations: the draw that Rust makes too, entries opened down to the bytes of a row, what a fault costs, and pay.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {AttestationState, Entry, IAttestations, Validator} from "../src/interfaces/IAttestations.sol";
import {IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {JobStatus} from "../src/interfaces/IWorkerHub.sol";
import {AttestBase} from "./AttestBase.sol";
import {VmTrace} from "./Vm.sol";

contract AttestationsTest is AttestBase {
    function test_TheDrawIsRustsForEveryStake() public {
        _toAttest();
        for (uint256 j = 0; j < 3; ++j) {
            string memory key = string.concat(".drawn[", vm.toString(j), "]");
            for (uint256 i = 0; i < 12; ++i) {
                bool expected = vm.parseJsonBool(json, string.concat(key, "[", vm.toString(i), "]"));
                assertTrue(att.isDrawn(j + 1, _validator(i)) == expected, "drawn");
            }
        }
    }

    function test_EveryChunkOfAnEntryOpens() public {
        _attest("");
        _toAsk();
        for (uint256 pick = 0; pick < 4; ++pick) {
            uint256 before = VmTrace(address(vm)).snapshotState();
            _pick(pick);
            assertEq(att.pickOf(JOB, me), pick, "what the header picks");
            _ask();
            uint256 bond = att.askBond();
            _openIt();
            assertEq(att.due(me), bond, "the bond pays for the opening");
            Entry memory e = att.entryOf(JOB, me);
            assertEq(e.disputeBy, block.number + 12, "exposed");
            assertEq(e.traceRoot, g.root, "root");
            assertEq(e.outputHash, keccak256(g.outputs), "output");
            _accounted(0);
            VmTrace(address(vm)).revertToState(before);
        }
    }

    function test_ASilentValidatorLosesAndLeavesTheList() public {
        _attest("");
        _toAsk();
        _pick(0);
        _ask();
        vm.expectPartialRevert(IAttestations.OutsideWindow.selector);
        att.expire(me, JOB);
        vm.roll(block.number + 6);
        bytes memory opening = _opening(0);
        vm.expectPartialRevert(IAttestations.OutsideWindow.selector);
        vm.prank(me);
        att.open(JOB, opening);
        uint256 bond = att.askBond();
        att.expire(me, JOB);
        _state(AttestationState.Failed);
        assertEq(att.validatorOf(me).stake, 260 ether, "a fifth is lost");
        assertEq(att.due(challenger), 32.5 ether + bond, "half of it and the bond");
        assertEq(address(0).balance, 32.5 ether, "half is burned");
        assertEq(att.modelsOf(me).length, 0, "off the list");
        (uint96 own, uint96 total) = att.weights(modelId, me, N + 10);
        assertEq(own, 0, "no weight");
        assertEq(total, 675 ether, "nor in the total");
        (own,) = att.weights(modelId, me, N);
        assertEq(own, 325 ether, "but in the epoch it had");
        _accounted(0);
        vm.expectPartialRevert(IAttestations.NotAsked.selector);
        att.expire(me, JOB);
    }

    function test_AsksBehindAFailureGiveTheirBondsBack() public {
        _attest("");
        _toAsk();
        _ask();
        uint256 bond = att.askBond();
        vm.prank(second);
        att.ask{value: bond}(me, 1);
        vm.roll(block.number + 6);
        att.expire(me, JOB);
        att.expire(me, 1);
        assertEq(att.due(second), bond, "a failed validator opens no more");
        assertEq(att.validatorOf(me).stake, 260 ether, "and fails once an epoch");
        _accounted(0);
    }

    function test_EachWaitingAskIsDueLater() public {
        _attest("");
        _toAsk();
        _ask();
        uint256 bond = att.askBond();
        vm.prank(challenger);
        att.ask{value: bond}(me, 1);
        assertEq(att.askOf(JOB, me).openBy, block.number + 5, "first");
        assertEq(att.askOf(1, me).openBy, block.number + 6, "second");
        assertEq(att.validatorOf(me).asks, 2, "waiting");
    }

    function test_WhoIsDrawnAndAbsentLosesALittle() public {
        address other = _validator(3);
        _toAttest();
        vm.expectPartialRevert(IAttestations.OutsideWindow.selector);
        att.absent(other, JOB);
        _toAsk();
        vm.prank(challenger);
        att.absent(other, JOB);
        assertEq(att.validatorOf(other).stake, 198 ether, "a hundredth");
        assertEq(att.due(challenger), 1 ether, "half of it");
        vm.expectPartialRevert(IAttestations.WrongState.selector);
        att.absent(other, 1);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotDrawn.selector, JOB, _validator(0)));
        att.absent(_validator(0), JOB);
        _accounted(0);
    }

    function test_WhatHasNoRightAnswerIsSaidAtOnce() public {
        _attest(hex"0200000003000000");
        assertEq(att.entryOf(JOB, me).noneIn, N + 1, "said");
        _toAsk();
        uint256 bond = att.askBond();
        vm.expectRevert(abi.encodeWithSelector(IAttestations.SaidNone.selector, JOB, me));
        vm.prank(challenger);
        att.ask{value: bond}(me, JOB);
        _settle();
        _toPay();
        vm.expectRevert(abi.encodeWithSelector(IAttestations.SaidNone.selector, JOB, me));
        vm.prank(me);
        att.claim(hex"02000000");
        vm.prank(me);
        att.claim(hex"01000000");
    }

    function test_TheProtocolsPartPaysWhoWasDrawnAndAttested() public {
        _attest("");
        _settle();
        // 5 % of a fee of 1 ether, three drawn for a job on average.
        uint256 part = uint256(0.05 ether) / 3;
        assertEq(att.reserve(), 0.15 ether, "what the hub keeps");
        assertEq(att.pay(JOB), part, "pay");
        vm.prank(me);
        vm.expectPartialRevert(IAttestations.OutsideWindow.selector);
        att.claim(hex"02000000");
        _toPay();
        vm.prank(me);
        att.claim(hex"0100000002000000");
        assertEq(att.due(me), 2 * part, "paid for two");
        vm.prank(me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.PaidBefore.selector, JOB, me));
        att.claim(hex"02000000");
        address other = _validator(3);
        vm.prank(other);
        vm.expectPartialRevert(IAttestations.WrongState.selector);
        att.claim(hex"02000000");
        vm.prank(_validator(0));
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotDrawn.selector, JOB, _validator(0)));
        att.claim(hex"02000000");
        vm.prank(me);
        _expect(IAttestations.ZeroAmount.selector);
        att.claim("");
        _accounted(0.15 ether - 2 * part);
        uint256 before = me.balance;
        vm.prank(me);
        att.withdraw();
        assertEq(me.balance - before, 2 * part, "withdrawn");
        vm.prank(me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NothingDue.selector, me));
        att.withdraw();
        _accounted(0.15 ether - 2 * part);
    }

    function test_AJobThatPaysTooLittleForItsLengthDrawsNobody() public {
        // 13 positions at 0.001 ether; the protocol's part of 0.25 ether is 0.0125.
        vm.prank(payer);
        uint256 id = hub.infer{value: 0.25 ether}(g.spec, 1, 0);
        _assign(id);
        _commit(id, neuron, g.root, g.outputs);
        _reveal(id, neuron, g.root, g.outputs);
        vm.roll(block.number + 2);
        for (uint256 i = 0; i < 12; ++i) {
            assertTrue(!att.isDrawn(id, _validator(i)), "drawn");
        }
    }

    function test_AnExposedClaimIsDisputedLikeANeurons() public {
        _attest("");
        _toAsk();
        uint256 bond = second_.bond(g.spec.modelRoot);
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.NotRevealed.selector, JOB, me));
        second_.open{value: bond}(JOB, me, _fields(g), g.outputs);
        _ask();
        _openIt();
        bytes32 claim = _dispute();
        // The challenger says nothing and loses its bond to the validator.
        vm.roll(block.number + CLOCK + 1);
        second_.timeout(claim, challenger);
        assertEq(second_.owedTo(me), bond, "the challenger's bond");
        _state(AttestationState.Standing);
    }

    function test_AValidatorConvictedLosesAsOneThatIsSilent() public {
        _attest("");
        _toAsk();
        _ask();
        _openIt();
        bytes32 claim = _dispute();
        // The tree of 12 positions has height 4: its only question.
        bytes memory move = bytes.concat(claim, hex"00000000", hex"04000000", bytes12(0));
        vm.prank(challenger);
        second_.ask(claim, move);
        vm.roll(block.number + CLOCK + 1);
        second_.timeout(claim, challenger);
        _state(AttestationState.Failed);
        assertEq(att.validatorOf(me).stake, 260 ether, "a fifth");
        assertEq(att.due(challenger), 32.5 ether, "half of it");
        // The neuron's claim is another one: nobody convicted it.
        _settle();
        assertEq(uint256(hub.job(JOB).status), uint256(JobStatus.Settled), "settled");
        _accounted(0.15 ether);
    }

    function test_OnlyTheVerifierConvicts() public {
        bytes memory why = abi.encodeWithSelector(IAttestations.NotVerifier.selector, address(this));
        _no(why);
        att.convict(JOB, me, challenger);
        _no(why);
        att.openDispute(JOB);
        _no(why);
        att.closeDispute(JOB);
    }

    function test_StakeStaysWhileItCanBeLost() public {
        _attest("");
        vm.prank(me);
        att.requestUnstake(325 ether);
        _toAsk();
        _ask();
        uint64 leaveAt = att.validatorOf(me).leaveAt;
        vm.roll(leaveAt);
        Validator memory v = att.validatorOf(me);
        vm.prank(me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.StakeBound.selector, 1, v.boundUntil));
        att.withdraw();
        att.expire(me, JOB);
        uint256 before = me.balance;
        vm.prank(me);
        att.withdraw();
        assertEq(me.balance - before, 260 ether, "what was leaving was slashed too");
        _accounted(0);
    }

    function test_StakeStaysWhileAnExposedClaimCanBeConvicted() public {
        _attest("");
        vm.prank(me);
        att.requestUnstake(325 ether);
        _toAsk();
        _ask();
        _openIt();
        uint256 bond = att.askBond();
        uint64 bound_ = att.validatorOf(me).boundUntil;
        assertEq(bound_, block.number + 12 + 2 * CLOCK + 6, "window, both clocks, time to call");
        vm.roll(bound_);
        uint256 before = me.balance;
        vm.prank(me);
        att.withdraw();
        assertEq(me.balance - before, bond, "what is due does not wait");
        vm.roll(uint256(bound_) + 1);
        vm.prank(me);
        att.withdraw();
        assertEq(me.balance - before, 325 ether + bond, "then all");
        _accounted(0);
    }

    function test_StakeWeighsFromTheSecondEpochAfter() public {
        address late = _validator(40);
        vm.deal(late, 100 ether);
        vm.prank(late);
        att.enlist(modelId);
        vm.prank(late);
        att.stake{value: 9 ether}();
        uint64 now_ = uint64(block.number) / EPOCH;
        (uint96 own, uint96 total) = att.weights(modelId, late, now_ + 2);
        assertEq(own, 0, "too little");
        assertEq(total, 1000 ether, "all");
        vm.prank(late);
        att.stake{value: 1 ether}();
        (own, total) = att.weights(modelId, late, now_ + 2);
        assertEq(own, 10 ether, "enough");
        assertEq(total, 1010 ether, "all");
        (own, total) = att.weights(modelId, late, now_ + 1);
        assertEq(own, 0, "not yet");
        assertEq(total, 1000 ether, "not yet");
        vm.prank(late);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.EnlistedAlready.selector, modelId, late));
        att.enlist(modelId);
        vm.prank(late);
        att.delist(modelId);
        (own, total) = att.weights(modelId, late, now_ + 2);
        assertEq(own, 0, "gone");
        assertEq(total, 1000 ether, "gone");
        vm.prank(late);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotEnlisted.selector, modelId, late));
        att.delist(modelId);
        vm.prank(late);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.MoreThanStaked.selector, 11 ether, 10 ether));
        att.requestUnstake(11 ether);
        vm.prank(late);
        _expect(IAttestations.ZeroAmount.selector);
        att.requestUnstake(0);
        vm.prank(late);
        _expect(IAttestations.ZeroAmount.selector);
        att.stake{value: 0}();
    }

    function test_WhatTheHubOwesIsCollected() public {
        vm.expectPartialRevert(bytes4(keccak256("NothingToClaim(address)")));
        att.collect();
        (bool ok,) = address(att).call{value: 1 ether}("");
        assertTrue(ok, "gift");
        assertEq(att.reserve(), 1 ether, "reserve");
        _accounted(1 ether);
    }

    function test_AConvictionAfterSilenceCostsAgain() public {
        _attest("");
        _toAsk();
        _ask();
        _openIt();
        bytes32 claim = _dispute();
        // Another entry is not opened: no fault hides the other.
        uint256 bond = att.askBond();
        vm.prank(second);
        att.ask{value: bond}(me, 1);
        vm.prank(challenger);
        second_.ask(claim, bytes.concat(claim, hex"00000000", hex"04000000", bytes12(0)));
        vm.roll(block.number + CLOCK + 1);
        att.expire(me, 1);
        assertEq(att.validatorOf(me).stake, 260 ether, "silent");
        second_.timeout(claim, challenger);
        assertEq(att.validatorOf(me).stake, 208 ether, "and convicted");
        assertEq(att.due(challenger), 26 ether, "who convicts is paid");
        _accounted(0);
    }

    function test_WhatIsSaidInAnotherEpochHidesNothing() public {
        _attest("");
        // The next epoch's window for attesting reaches into this one's for asking: a job of this one is listed there.
        (uint256 next,,,) = att.windows(N + 1);
        vm.roll(N * EPOCH + EPOCH);
        (uint256 id,) = _answeredJob(g);
        uint256 at_ = hub.job(id).answeredAt + 2;
        uint256 i;
        for (vm.roll(at_); !att.isDrawn(id, me); ++i) {
            _setHeader(at_, keccak256(abi.encode(i)));
        }
        vm.roll(next);
        vm.prank(me);
        att.attest(N + 1, keccak256(abi.encode("header", next)), id, root, hex"02000000");
        _ask();
        _openIt();
    }

    function test_FurtherJobsAreListedInFurtherCalls() public {
        _attest(hex"01000000");
        bytes32 header = _header();
        vm.prank(me);
        att.none(N, header, hex"02000000");
        assertEq(att.entryOf(JOB, me).noneIn, N + 1, "said");
        vm.prank(me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.ListedBefore.selector, 1, me));
        att.none(N, header, hex"01000000");
        vm.prank(_validator(3));
        vm.expectPartialRevert(IAttestations.WrongState.selector);
        att.none(N, header, hex"01000000");
        _toAsk();
        vm.prank(me);
        vm.expectPartialRevert(IAttestations.OutsideWindow.selector);
        att.none(N, header, hex"03000000");
    }

    function test_PayWaitsUntilNothingCanBeConvicted() public {
        _attest("");
        (,, uint256 last, uint256 from) = att.windows(N);
        vm.roll(last);
        _ask();
        uint256 bond = att.askBond();
        vm.prank(challenger);
        att.ask{value: bond}(me, 1);
        uint64 clear = att.attestationOf(N, me).clearFrom;
        assertEq(clear, last + 5 + 1 + 12 + 2 * CLOCK + 6, "from the later opening");
        vm.roll(block.number + 5);
        _openIt();
        vm.roll(hub.job(3).deadline + 1);
        hub.finalise(3);
        vm.roll(from);
        vm.prank(me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotClear.selector, clear));
        att.claim(hex"03000000");
        vm.roll(clear);
        vm.prank(me);
        att.claim(hex"03000000");
        vm.prank(me);
        att.claim(hex"01000000");
        assertTrue(att.entryOf(3, me).paid, "settled");
        assertTrue(!att.entryOf(1, me).paid, "left out: not settled");
    }
}
