// What attestations refuse: changed openings, strangers, other epochs, wrong times, settings that make no sense.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {AttestationState, IAttestations, Settings} from "../src/interfaces/IAttestations.sol";
import {IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {Wire} from "../src/libraries/Wire.sol";
import {AttestBase} from "./AttestBase.sol";

contract AttestErrorsTest is AttestBase {
    function testFuzz_NoOtherByteOpens(uint256 spot, uint256 pick, uint8 flip) public {
        vm.assume(flip != 0);
        pick = bound(pick, 0, 3);
        _attest("");
        _toAsk();
        _pick(pick);
        _ask();
        bytes memory opening = _opening(pick);
        spot = bound(spot, 0, opening.length - 1);
        opening[spot] ^= bytes1(flip);
        vm.prank(me);
        try att.open(JOB, opening) {
            assertTrue(false, "a changed opening was taken");
        } catch {}
        _openIt();
    }

    function test_RejectsAnOpeningThatIsCutOrGoesOn() public {
        _attest("");
        _toAsk();
        _pick(1);
        _ask();
        bytes memory opening = _opening(1);
        vm.expectRevert(abi.encodeWithSelector(Wire.MoveTooLong.selector, 1));
        vm.prank(me);
        att.open(JOB, bytes.concat(opening, hex"00"));
        assembly ("memory-safe") {
            mstore(opening, sub(mload(opening), 1))
        }
        vm.expectPartialRevert(Wire.MoveTooShort.selector);
        vm.prank(me);
        att.open(JOB, opening);
    }

    function test_RejectsAnotherChunkThanWasAskedFor() public {
        _attest("");
        _toAsk();
        _pick(2);
        _ask();
        bytes memory opening = _opening(3);
        vm.expectPartialRevert(IAttestations.WrongTrace.selector);
        vm.prank(me);
        att.open(JOB, opening);
    }

    function test_RejectsAnAnswerThatNobodyRevealed() public {
        _attest("");
        _toAsk();
        _pick(1);
        _ask();
        bytes memory opening = _opening(1);
        opening[19] ^= 0x01;
        vm.expectPartialRevert(IAttestations.NoSuchAnswer.selector);
        vm.prank(me);
        att.open(JOB, opening);
        opening = _opening(1);
        opening[20] = 0xff;
        vm.expectRevert(abi.encodeWithSelector(IAttestations.BadOutputs.selector, 255, g.spec.maxNew));
        vm.prank(me);
        att.open(JOB, opening);
        opening = _opening(1);
        opening[24] ^= 0x01;
        vm.expectPartialRevert(IAttestations.WrongRoot.selector);
        vm.prank(me);
        att.open(JOB, opening);
    }

    function test_RejectsAJobThatIsListedTwiceOrRagged() public {
        _toAttest();
        vm.expectRevert(abi.encodeWithSelector(IAttestations.ListedBefore.selector, 2, me));
        vm.prank(me);
        att.attest(N, _header(), JOB, root, hex"0200000002000000");
        vm.expectPartialRevert(Wire.RaggedList.selector);
        vm.prank(me);
        att.attest(N, _header(), JOB, root, hex"020000");
    }

    function test_RejectsADisputeAfterItsWindow() public {
        _attest("");
        _toAsk();
        _ask();
        _openIt();
        vm.roll(block.number + 13);
        uint256 bond = second_.bond(g.spec.modelRoot);
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IPocVerifier.NotRevealed.selector, JOB, me));
        second_.open{value: bond}(JOB, me, _fields(g), g.outputs);
    }

    function test_RejectsAnAttestationOfAnotherHeaderEpochOrTime() public {
        (uint256 first, uint256 last,,) = att.windows(N);
        vm.roll(first - 1);
        vm.prank(me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.HeaderNotDue.selector, first - 1, first));
        att.attest(N, _header(), JOB, root, "");
        vm.roll(first);
        vm.prank(me);
        vm.expectRevert(
            abi.encodeWithSelector(IAttestations.OtherHeader.selector, bytes32(uint256(1)), _header())
        );
        att.attest(N, bytes32(uint256(1)), JOB, root, "");
        vm.prank(me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.OtherEpoch.selector, JOB, N, N - 1));
        att.attest(N - 1, _header(), JOB, root, "");
        vm.prank(me);
        _expect(IAttestations.EmptyRoot.selector);
        att.attest(N, _header(), JOB, 0, "");
        vm.prank(_validator(0));
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotDrawn.selector, JOB, _validator(0)));
        att.attest(N, _header(), JOB, root, "");
        vm.roll(last + 1);
        vm.prank(me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.OutsideWindow.selector, last + 1, first, last));
        att.attest(N, _header(), JOB, root, "");
        vm.roll(last);
        vm.prank(me);
        att.attest(N, _header(), JOB, root, "");
        vm.prank(me);
        vm.expectRevert(
            abi.encodeWithSelector(IAttestations.WrongState.selector, N, me, AttestationState.Standing)
        );
        att.attest(N, _header(), JOB, root, "");
    }

    function test_RejectsAsksOfStrangersBondsAndTimes() public {
        _attest("");
        uint256 bond = att.askBond();
        vm.deal(challenger, 100 ether);
        vm.prank(challenger);
        vm.expectPartialRevert(IAttestations.OutsideWindow.selector);
        att.ask{value: bond}(me, JOB);
        _toAsk();
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.WrongBond.selector, bond - 1, bond));
        att.ask{value: bond - 1}(me, JOB);
        vm.prank(challenger);
        vm.expectPartialRevert(IAttestations.NotDrawn.selector);
        att.ask{value: bond}(_validator(0), JOB);
        vm.prank(challenger);
        vm.expectPartialRevert(IAttestations.WrongState.selector);
        att.ask{value: bond}(_validator(3), JOB);
        _ask();
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.AskedBefore.selector, JOB, me));
        att.ask{value: bond}(me, JOB);
        bytes memory opening = _opening(0);
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotAsked.selector, JOB, challenger));
        att.open(JOB, opening);
        vm.roll(block.number + 10);
        vm.prank(challenger);
        vm.expectPartialRevert(IAttestations.OutsideWindow.selector);
        att.ask{value: bond}(me, 1);
    }

    function test_RejectsWhatIsNotAnsweredOrSettled() public {
        vm.prank(payer);
        uint256 id = hub.infer{value: FEE}(g.spec, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotAnswered.selector, id));
        att.isDrawn(id, me);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotSettled.selector, JOB));
        att.pay(JOB);
    }

    function test_RejectsModelsWithoutADisputeAndTooMany() public {
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotDisputable.selector, ENCODER));
        att.enlist(ENCODER);
        vm.expectRevert(abi.encodeWithSelector(IAttestations.NotDisputable.selector, MODEL));
        att.enlist(MODEL);
        vm.deal(address(this), 100 ether);
        for (uint32 i = 0; i < 5; ++i) {
            bytes32 id =
                registry.register{value: 1 ether}(g.spec.modelRoot, 0, g.spec.vocab, 10 + i, 0, "u", 0);
            if (i == 4) _no(abi.encodeWithSelector(IAttestations.TooManyModels.selector, 4));
            att.enlist(id);
        }
    }

    function test_RejectsSettingsThatMakeNoSense() public {
        Settings memory s = _settings();
        assertTrue(_construct(s), "good");
        s.epoch = 0;
        assertTrue(!_construct(s), "epoch");
        s = _settings();
        s.attestWindow = 59;
        assertTrue(!_construct(s), "longer than the hub's challenge window leaves");
        s = _settings();
        s.unstakeDelay = 82;
        assertTrue(!_construct(s), "stake would leave before it is asked about");
        s.unstakeDelay = 83;
        assertTrue(_construct(s), "the least");
        s = _settings();
        s.missBps = 0;
        assertTrue(!_construct(s), "missBps");
        s = _settings();
        s.faultBps = 10001;
        assertTrue(!_construct(s), "faultBps");
        s = _settings();
        s.seats = 0;
        assertTrue(!_construct(s), "seats");
        s = _settings();
        s.minCutPerPosition = 0;
        assertTrue(!_construct(s), "jobs for nothing would be drawn for");
    }
}
