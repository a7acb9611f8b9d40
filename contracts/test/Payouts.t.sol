// A neuron's money leaves for one address: what its own key can do about that (nothing), what the payout address can.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts, Payee} from "../src/interfaces/IPayouts.sol";
import {IWorkerHub, Neuron} from "../src/interfaces/IWorkerHub.sol";
import {WorkerHub} from "../src/WorkerHub.sol";
import {Base} from "./Base.sol";

contract PayoutsTest is Base {
    uint256 internal constant COLD_KEY = 0xC01D;
    address internal constant OTHER = address(0x0DD);
    /// The order of secp256k1.
    uint256 internal constant ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    address internal n = _neuron(0);
    address internal cold;

    function setUp() public override {
        super.setUp();
        cold = vm.addr(COLD_KEY);
        _seat(1);
        vm.prank(n);
        hub.setPayout(cold);
    }

    // --- what the account's own key can do -----------------------------------------------------

    function test_PayStakeAndCreditsAllGoToThePayoutAddress() public {
        (uint256 id,) = _answered(1);
        _pastDeadline(id);
        hub.finalise(id);
        assertEq(cold.balance, 0.95 ether, "pay");
        vm.prank(n);
        hub.requestUnstake(20 ether);
        _skip(10);
        vm.prank(n);
        hub.withdraw();
        assertEq(cold.balance, 20.95 ether, "stake");
        assertEq(n.balance, 0, "nothing for the key on the machine");
        _conserved();
    }

    function test_ACreditFromBeforeGoesToThePayoutAddressToo() public {
        address late = address(new Refuser());
        _refund(late);
        assertEq(hub.credits(late), 1 ether, "refused");
        vm.prank(late);
        hub.setPayout(cold);
        vm.prank(late);
        hub.claim();
        assertEq(cold.balance, 1 ether, "credit");
        _conserved();
    }

    function test_ARewardForAConvictionGoesToThePayoutAddress() public {
        address m = _neuron(1);
        vm.prank(m);
        hub.setPayout(OTHER);
        (uint256 id,) = _answered(1);
        vm.prank(verifier);
        hub.openDispute(id);
        vm.prank(verifier);
        hub.convict(id, n, m);
        assertEq(OTHER.balance, 0.5 ether, "half of the collateral");
        assertEq(m.balance, 0, "not the challenger's own key");
        _conserved();
    }

    function test_rejects_a_second_setting_by_the_account() public {
        vm.expectRevert(abi.encodeWithSelector(IPayouts.HasPayout.selector, n, cold));
        vm.prank(n);
        hub.setPayout(OTHER);
        vm.expectRevert(abi.encodeWithSelector(IPayouts.NotPayout.selector, n, cold));
        vm.prank(n);
        hub.changePayout(n, OTHER);
    }

    function test_rejects_addresses_that_would_lock_or_undo() public {
        address fresh = _neuron(5);
        address[3] memory bad = [address(0), fresh, address(hub)];
        for (uint256 i = 0; i < bad.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IPayouts.BadPayout.selector, bad[i]));
            vm.prank(fresh);
            hub.setPayout(bad[i]);
        }
        // Nor may the payout address itself hand the money back to the account.
        vm.expectRevert(abi.encodeWithSelector(IPayouts.BadPayout.selector, n));
        vm.prank(cold);
        hub.changePayout(n, n);
    }

    /// Whatever the key on the machine calls, with whatever it finds signed for other things, no wei reaches another address.
    function testFuzz_NothingTheAccountCallsMovesMoney(uint256 seed) public {
        for (uint256 i = 0; i < 24; ++i) {
            uint256 x = uint256(keccak256(abi.encode(seed, i)));
            _skip(x % 7);
            vm.prank(n);
            (bool ok,) = address(hub).call(_call(x >> 8));
            ok;
        }
        assertEq(n.balance + OTHER.balance, 0, "nobody else");
        assertEq(hub.payee(n).payout, cold, "the same payout address");
        _conserved();
    }

    function _call(uint256 x) private view returns (bytes memory) {
        bytes memory signed = _sign(uint256(keccak256(abi.encode(x))) % ORDER + 1, OTHER, 0, 1000);
        uint256 which = x % 8;
        if (which == 0) return abi.encodeCall(IPayouts.setPayout, (OTHER));
        if (which == 1) return abi.encodeCall(IPayouts.changePayout, (n, OTHER));
        if (which == 2) return abi.encodeCall(IPayouts.changePayoutSigned, (n, OTHER, 1000, signed));
        if (which == 3) return abi.encodeCall(IPayouts.recall, (n));
        if (which == 4) return abi.encodeCall(IPayouts.withdrawFor, (n));
        if (which == 5) return abi.encodeCall(IWorkerHub.requestUnstake, ((x >> 8) % 20 ether));
        if (which == 6) return abi.encodeCall(IWorkerHub.withdraw, ());
        return abi.encodeCall(IWorkerHub.claim, ());
    }

    // --- changes -------------------------------------------------------------------------------

    function test_ThePayoutAddressChangesItself() public {
        vm.expectEmit();
        emit IPayouts.PayoutSet(n, OTHER, 2);
        vm.prank(cold);
        hub.changePayout(n, OTHER);
        Payee memory p = hub.payee(n);
        assertEq(p.payout, OTHER, "changed");
        assertEq(p.nonce, 2, "counted");
        vm.expectRevert(abi.encodeWithSelector(IPayouts.NotPayout.selector, cold, OTHER));
        vm.prank(cold);
        hub.changePayout(n, cold);
    }

    function test_AnybodyBringsASignedChange() public {
        bytes memory s = _sign(COLD_KEY, OTHER, 1, 200);
        vm.prank(payer);
        hub.changePayoutSigned(n, OTHER, 200, s);
        assertEq(hub.payee(n).payout, OTHER, "changed");
    }

    function test_ASignedChangeCountsAtItsDeadlineAndNoLater() public {
        bytes memory s = _sign(COLD_KEY, OTHER, 1, 150);
        vm.roll(151);
        vm.expectRevert(abi.encodeWithSelector(IPayouts.SignatureLate.selector, 151, 150));
        hub.changePayoutSigned(n, OTHER, 150, s);
        vm.roll(150);
        hub.changePayoutSigned(n, OTHER, 150, s);
        assertEq(hub.payee(n).payout, OTHER, "changed");
    }

    function test_rejects_a_signed_change_a_second_time() public {
        bytes memory s = _sign(COLD_KEY, OTHER, 1, 200);
        hub.changePayoutSigned(n, OTHER, 200, s);
        vm.prank(OTHER);
        hub.changePayout(n, cold);
        // The signer is the payout address again, the number is another.
        vm.expectPartialRevert(IPayouts.WrongSigner.selector);
        hub.changePayoutSigned(n, OTHER, 200, s);
    }

    function test_TheSameAddressAgainVoidsWhatWasSigned() public {
        bytes memory s = _sign(COLD_KEY, OTHER, 1, 200);
        vm.prank(cold);
        hub.changePayout(n, cold);
        vm.expectPartialRevert(IPayouts.WrongSigner.selector);
        hub.changePayoutSigned(n, OTHER, 200, s);
    }

    function test_rejects_a_signature_of_another_key_chain_contract_account_or_address() public {
        bytes memory s = _sign(0xBAD, OTHER, 1, 200);
        vm.expectRevert(abi.encodeWithSelector(IPayouts.WrongSigner.selector, vm.addr(0xBAD), cold));
        hub.changePayoutSigned(n, OTHER, 200, s);
        s = _sign(COLD_KEY, OTHER, 1, 200);
        vm.expectPartialRevert(IPayouts.WrongSigner.selector);
        hub.changePayoutSigned(n, address(0xBAD), 200, s);
        vm.expectPartialRevert(IPayouts.WrongSigner.selector);
        hub.changePayoutSigned(n, OTHER, 201, s);
        vm.prank(_neuron(1));
        hub.setPayout(cold);
        vm.expectPartialRevert(IPayouts.WrongSigner.selector);
        hub.changePayoutSigned(_neuron(1), OTHER, 200, s);
        WorkerHub twin = _deployHub(registry, _params());
        vm.prank(n);
        twin.setPayout(cold);
        vm.expectPartialRevert(IPayouts.WrongSigner.selector);
        twin.changePayoutSigned(n, OTHER, 200, s);
        vm.chainId(1);
        vm.expectPartialRevert(IPayouts.WrongSigner.selector);
        hub.changePayoutSigned(n, OTHER, 200, s);
    }

    function test_rejects_a_signature_in_its_other_form_or_length() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(COLD_KEY, hub.payoutDigest(n, OTHER, 1, 200));
        bytes memory nobody = abi.encodeWithSelector(IPayouts.WrongSigner.selector, address(0), cold);
        bytes32 high = bytes32(ORDER - uint256(s));
        vm.expectRevert(nobody);
        hub.changePayoutSigned(n, OTHER, 200, abi.encodePacked(r, high, v == 27 ? uint8(28) : uint8(27)));
        vm.expectRevert(nobody);
        hub.changePayoutSigned(n, OTHER, 200, abi.encodePacked(r, s));
        vm.expectRevert(nobody);
        hub.changePayoutSigned(n, OTHER, 200, abi.encodePacked(r, s, v, uint8(0)));
        vm.expectRevert(nobody);
        hub.changePayoutSigned(n, OTHER, 200, abi.encodePacked(r, s, v - 27));
        hub.changePayoutSigned(n, OTHER, 200, abi.encodePacked(r, s, v));
    }

    function test_rejects_nobodys_signature_for_an_account_without_a_payout_address() public {
        address fresh = _neuron(5);
        vm.expectRevert(abi.encodeWithSelector(IPayouts.WrongSigner.selector, address(0), address(0)));
        hub.changePayoutSigned(fresh, OTHER, 200, new bytes(65));
        vm.expectRevert(abi.encodeWithSelector(IPayouts.NotPayout.selector, OTHER, address(0)));
        vm.prank(OTHER);
        hub.changePayout(fresh, OTHER);
    }

    /// The digest is EIP-712's, put together here once more.
    function test_TheDigestIsEip712s() public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("BitAI payout"),
                keccak256("1"),
                uint256(22216),
                address(hub)
            )
        );
        bytes32 kind =
            keccak256("ChangePayout(address account,address payout,uint256 nonce,uint256 deadline)");
        bytes32 change = keccak256(abi.encode(kind, n, OTHER, uint256(1), uint256(200)));
        bytes32 expected = keccak256(abi.encodePacked(bytes2(0x1901), domain, change));
        assertEq(hub.payoutDigest(n, OTHER, 1, 200), expected, "digest");
    }

    // --- calling back --------------------------------------------------------------------------

    function test_ThePayoutAddressCallsTheStakeBackWithoutTheAccountsKey() public {
        vm.prank(cold);
        hub.recall(n);
        _skip(10);
        vm.prank(cold);
        hub.withdrawFor(n);
        assertEq(cold.balance, 20 ether, "all of it");
        _conserved();
    }

    /// A thief could restart the delay for ever, with a wei of its own, or be drawn with what jobs set free.
    function test_rejects_an_account_that_was_called_back() public {
        (uint256 id,) = _answered(1);
        vm.prank(cold);
        hub.recall(n);
        bytes memory why = abi.encodeWithSelector(IPayouts.CalledBack.selector, n);
        vm.deal(n, 11 ether);
        vm.expectRevert(why);
        vm.prank(n);
        hub.stake{value: 1}();
        vm.expectRevert(why);
        vm.prank(n);
        hub.serve(MODEL, 0, 0, 0, type(uint96).max);
        _pastDeadline(id);
        hub.finalise(id);
        assertEq(hub.freeStake(n), 1 ether, "freed by the job");
        vm.expectRevert(why);
        vm.prank(n);
        hub.requestUnstake(1);
        uint256 next = _post(1);
        _skip(2);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotEnoughNeurons.selector, 0, 1));
        hub.assign(next);
        _skip(7);
        vm.prank(cold);
        hub.recall(n);
        Neuron memory a = hub.neuron(n);
        assertEq(a.unstaking, 20 ether, "the rest too");
        assertEq(a.unstakeAt, uint64(block.number) + 10, "waits as any");
    }

    /// Calling back nothing more does not restart the delay.
    function test_CallingBackNothingMoreChangesNothing() public {
        vm.prank(cold);
        hub.recall(n);
        uint64 due = hub.neuron(n).unstakeAt;
        _skip(3);
        vm.prank(cold);
        hub.recall(n);
        assertEq(hub.neuron(n).unstakeAt, due, "same height");
    }

    function test_rejects_strangers_that_call_back_or_withdraw() public {
        bytes memory why = abi.encodeWithSelector(IPayouts.NotPayout.selector, n, cold);
        vm.expectRevert(why);
        vm.prank(n);
        hub.recall(n);
        vm.expectRevert(why);
        vm.prank(n);
        hub.withdrawFor(n);
    }

    // --- inside --------------------------------------------------------------------------------

    function _sign(uint256 key, address payout, uint256 nonce, uint256 deadline)
        private
        view
        returns (bytes memory)
    {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, hub.payoutDigest(n, payout, nonce, deadline));
        return abi.encodePacked(r, s, v);
    }

    /// A job whose payer refuses its refund.
    function _refund(address by) private {
        vm.deal(by, 1 ether);
        vm.prank(by);
        uint256 id = hub.infer{value: 1 ether}(_spec(), 8, 0);
        _pastDeadline(id);
        hub.timeout(id);
    }
}

/// Has no way to take coins.
contract Refuser {}
