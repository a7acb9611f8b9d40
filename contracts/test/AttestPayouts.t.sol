// A validator's money leaves for its payout address alone: pay, stake, bonds.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts} from "../src/interfaces/IPayouts.sol";
import {Validator} from "../src/interfaces/IAttestations.sol";
import {AttestBase} from "./AttestBase.sol";

contract AttestPayoutsTest is AttestBase {
    uint256 internal constant COLD_KEY = 0xC01D;

    address internal cold;
    uint256 internal had;

    function setUp() public override {
        super.setUp();
        cold = vm.addr(COLD_KEY);
        vm.prank(me);
        att.setPayout(cold);
        had = me.balance;
    }

    function test_BondsAndStakeGoToThePayoutAddress() public {
        _attest("");
        _toAsk();
        _pick(1);
        _ask();
        _openIt();
        uint256 bond = att.due(me);
        assertTrue(bond != 0, "the ask's bond");
        vm.prank(me);
        att.withdraw();
        assertEq(cold.balance, bond, "bond");
        uint96 staked = att.validatorOf(me).stake;
        vm.prank(me);
        att.requestUnstake(staked);
        vm.roll(att.validatorOf(me).boundUntil + 1);
        vm.prank(me);
        att.withdraw();
        assertEq(cold.balance, bond + staked, "stake");
        assertEq(me.balance, had, "nothing for the key on the machine");
    }

    function test_ThePayoutAddressCallsAValidatorsStakeBack() public {
        uint96 staked = att.validatorOf(me).stake;
        vm.prank(cold);
        att.recall(me);
        (uint96 own,) = att.weights(modelId, me, N + 2);
        assertEq(own, 0, "weighs nothing from the second epoch after");
        (own,) = att.weights(modelId, me, N + 1);
        assertEq(own, staked, "until then it can be lost");
        bytes memory why = abi.encodeWithSelector(IPayouts.CalledBack.selector, me);
        vm.expectRevert(why);
        vm.prank(me);
        att.stake{value: 1}();
        vm.expectRevert(why);
        vm.prank(me);
        att.requestUnstake(1);
        vm.expectRevert(why);
        vm.prank(me);
        att.enlist(modelId);
        vm.roll(block.number + 100);
        vm.prank(cold);
        att.withdrawFor(me);
        assertEq(cold.balance, staked, "all of it");
        assertEq(att.validatorOf(me).leaving, 0, "nothing left");
    }

    /// Calling back takes nothing from who is owed a slash.
    function test_AStakeCalledBackIsStillLostToAnUnopenedAsk() public {
        _attest("");
        vm.prank(cold);
        att.recall(me);
        _toAsk();
        _ask();
        uint96 leaving = att.validatorOf(me).leaving;
        vm.roll(att.askOf(JOB, me).openBy + 1);
        att.expire(me, JOB);
        Validator memory v = att.validatorOf(me);
        assertEq(v.leaving, leaving - leaving / 5, "a fifth");
    }

    function test_ASignatureForTheHubIsNoneHere() public {
        address other = address(0x0DD);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(COLD_KEY, hub.payoutDigest(me, other, 1, 10_000));
        vm.expectPartialRevert(IPayouts.WrongSigner.selector);
        att.changePayoutSigned(me, other, 10_000, abi.encodePacked(r, s, v));
        (v, r, s) = vm.sign(COLD_KEY, att.payoutDigest(me, other, 1, 10_000));
        att.changePayoutSigned(me, other, 10_000, abi.encodePacked(r, s, v));
        assertEq(att.payee(me).payout, other, "changed");
    }

    /// The same numbers as in contracts/bindings/src/payout.rs.
    function test_TheDigestIsRusts() public view {
        bytes32 expected = 0x56c4c9ddc4bcf960e408daf6627f2a8292a6d8045f80d78db991fa5b765cbbae;
        assertEq(att.payoutDigest(address(0xE000B), address(0xDD), 3, 4000), expected, "digest");
    }

    function test_rejects_this_contract_as_payout_address() public {
        vm.expectRevert(abi.encodeWithSelector(IPayouts.BadPayout.selector, HERE));
        vm.prank(address(0xF00));
        att.setPayout(HERE);
    }
}
