// Neurons: stake in and out, offers, prices, who may be drawn.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts} from "../src/interfaces/IPayouts.sol";
import {IWorkerHub, Job, Neuron, Offer, Params, Slot} from "../src/interfaces/IWorkerHub.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {Base} from "./Base.sol";

contract NeuronsTest is Base {
    address internal n = address(0xE000);

    function test_StakeComesBackAfterItsDelay() public {
        _seat(1);
        vm.prank(n);
        hub.requestUnstake(8 ether);
        assertEq(hub.neuron(n).stake, 12 ether, "stake");
        assertEq(hub.neuron(n).unstaking, 8 ether, "unstaking");
        _skip(9);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.UnstakeNotDue.selector, 109, 110));
        vm.prank(n);
        hub.withdraw();
        _skip(1);
        vm.prank(n);
        hub.withdraw();
        assertEq(n.balance, 8 ether, "balance");
        _conserved();
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NothingUnstaking.selector, n));
        vm.prank(n);
        hub.withdraw();
    }

    function test_RefusesNothing() public {
        _expect(IWorkerHub.ZeroAmount.selector);
        hub.stake();
        _expect(IWorkerHub.ZeroAmount.selector);
        hub.requestUnstake(0);
    }

    function test_RefusesAStakeBeyond96Bits() public {
        vm.deal(n, 2 ** 96);
        vm.expectRevert(abi.encodeWithSelector(IPayouts.AmountTooLarge.selector, 2 ** 96));
        vm.prank(n);
        hub.stake{value: 2 ** 96}();
    }

    function test_RefusesToUnstakeWhatAJobHolds() public {
        _seat(1);
        uint256 id = _post(1);
        _assign(id);
        assertEq(hub.freeStake(n), 19 ether, "free");
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.StakeLocked.selector, 19 ether + 1, 19 ether));
        vm.prank(n);
        hub.requestUnstake(19 ether + 1);
        vm.prank(n);
        hub.requestUnstake(19 ether);
    }

    function test_RefusesAnOfferOnTooLittleStake() public {
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.StakeTooSmall.selector, 0, MIN_STAKE));
        vm.prank(n);
        hub.serve(MODEL, 0, 0, 0, 1 ether);
    }

    function test_RefusesAnOfferThatLocksTooLittle() public {
        _seat(1);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.CollateralTooSmall.selector, 1 ether - 1, 1 ether));
        vm.prank(n);
        hub.serve(MODEL, 0, 0, 0, 1 ether - 1);
    }

    function test_RefusesAnOfferForAnUnknownOrRetiredModel() public {
        _seat(1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, bytes32("x")));
        vm.prank(n);
        hub.serve("x", 0, 0, 0, 1 ether);
        registry.retire(MODEL);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.ModelInactive.selector, MODEL));
        vm.prank(n);
        hub.serve(MODEL, 0, 0, 0, 1 ether);
    }

    function test_RefusesMoreServersThanADrawCanRead() public {
        uint256 max = hub.MAX_SERVERS();
        _seat(max);
        address late = _neuron(max);
        vm.deal(late, 20 ether);
        vm.prank(late);
        hub.stake{value: 20 ether}();
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.ModelFull.selector, MODEL, max));
        vm.prank(late);
        hub.serve(MODEL, 0, 0, 0, 1 ether);
        // One leaves, one enters.
        vm.prank(n);
        hub.unserve(MODEL);
        vm.prank(late);
        hub.serve(MODEL, 0, 0, 0, 1 ether);
        assertEq(hub.offers(MODEL).length, max, "full");
    }

    function test_UnserveKeepsTheOthersOnTheList() public {
        _seat(3);
        vm.prank(n);
        hub.unserve(MODEL);
        Offer[] memory o = hub.offers(MODEL);
        assertEq(o.length, 2, "two left");
        assertEq(o[0].neuron, _neuron(2), "the last took the place");
        vm.prank(_neuron(2));
        hub.unserve(MODEL);
        assertEq(hub.offers(MODEL)[0].neuron, _neuron(1), "the middle one");
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotServing.selector, MODEL, n));
        vm.prank(n);
        hub.unserve(MODEL);
    }

    function test_AnyoneEvictsWhoHasTooLittleStake() public {
        _seat(2);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.StakeSuffices.selector, n, 20 ether));
        hub.evict(MODEL, n);
        vm.prank(n);
        hub.requestUnstake(11 ether);
        hub.evict(MODEL, n);
        assertEq(hub.offers(MODEL).length, 1, "one left");
    }

    function test_ANewPriceReplacesTheOld() public {
        _seat(1);
        vm.prank(n);
        hub.serve(MODEL, 7, 2, 3, 2 ether);
        Offer[] memory o = hub.offers(MODEL);
        assertEq(o.length, 1, "one offer");
        assertEq(o[0].askBase, 7, "base");
        assertEq(o[0].askPerInput, 2, "per prompt id");
        assertEq(o[0].askPerOutput, 3, "per token");
        assertEq(o[0].collateralMax, 2 ether, "collateral");
    }

    function test_TheQuoteIsTheLeastFeeThatIsTaken() public {
        _seatOne(_neuron(0), 20 ether, 1 ether, 0);
        _seatOne(_neuron(1), 20 ether, 0, 0.5 ether);
        _seatOne(_neuron(2), 20 ether, 5 ether, 0);
        // 4 tokens: asks 1, 2 and 5 ether, and 5 % go to the protocol.
        uint256 fee = hub.quote(MODEL, 3, 4, 2, 0);
        assertEq(fee / 1e6, 2 * 2 ether * uint256(100) / 95 / 1e6, "two neurons");
        assertEq(hub.quote(MODEL, 3, 4, 4, 0), 0, "there are no four");
        assertEq(hub.quote(MODEL, 3, 4, 0, 0), 0, "none asked");
        uint256 enough = _post(2, fee);
        uint256 tooLittle = _post(2, fee - 2);
        _assign(enough);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotEnoughNeurons.selector, 1, 2));
        hub.assign(tooLittle);
    }

    function test_APriceCountsPromptAndOutputApart() public {
        vm.deal(n, 20 ether);
        vm.prank(n);
        hub.stake{value: 20 ether}();
        vm.prank(n);
        hub.serve(MODEL, 0.1 ether, 0.02 ether, 0.2 ether, type(uint96).max);
        // 3 prompt ids and 4 tokens: 0.1 + 0.06 + 0.8 ether, and 5 % go to the protocol.
        uint256 fee = hub.quote(MODEL, 3, 4, 1, 0);
        assertEq(fee / 1e6, 0.96 ether * uint256(100) / 95 / 1e6, "base, prompt, output");
        assertEq(hub.eligible(MODEL, 3, 4, uint96(fee), 0).length, 1, "enough");
        assertEq(hub.eligible(MODEL, 4, 4, uint96(fee), 0).length, 0, "a longer prompt");
        assertEq(hub.eligible(MODEL, 3, 5, uint96(fee), 0).length, 0, "a longer answer");
        uint256 enough = _post(1, fee);
        uint256 tooLittle = _post(1, fee - 1);
        _assign(enough);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotEnoughNeurons.selector, 0, 1));
        hub.assign(tooLittle);
    }

    function test_AQuoteMindsTheCollateral() public {
        _seatOne(_neuron(0), 10 ether, 1 ether, 0);
        _seatOne(_neuron(1), 90 ether, 30 ether, 0);
        assertEq(
            hub.quote(MODEL, 3, 4, 1, 11 ether) / 1e6, 30 ether * uint256(100) / 95 / 1e6, "the larger one"
        );
        assertEq(hub.quote(MODEL, 3, 4, 1, 91 ether), 0, "nobody");
        // A share of 31 ether asks 31 ether of collateral, which the first lacks.
        assertEq(hub.quote(MODEL, 3, 4, 2, 0), 0, "not both");
    }

    function test_OnlyTheEligibleAreDrawn() public {
        _seatOne(_neuron(0), 20 ether, 2 ether, 0); // too dear
        _seatOne(_neuron(1), 20 ether, 0, 0); // stake falls below the minimum
        _seatOne(_neuron(2), 20 ether, 0, 0); // locks too little for one job
        _seatOne(_neuron(3), 20 ether, 0, 0); // stakes after the posting
        _seatOne(_neuron(4), 20 ether, 0, 0); // changes its price after the posting
        _seatOne(_neuron(5), 20 ether, 0.1 ether, 0.1 ether);
        vm.prank(_neuron(2));
        hub.serve(MODEL, 0, 0, 0, 1.5 ether);
        assertEq(hub.eligible(MODEL, 3, 4, FEE, 2 ether).length, 4, "1, 3, 4, 5 by now");
        vm.prank(payer);
        uint256 id = hub.infer{value: FEE}(_spec(), 1, 2 ether);
        vm.prank(_neuron(1));
        hub.requestUnstake(10 ether + 1);
        _skip(1);
        vm.deal(_neuron(3), 1);
        vm.prank(_neuron(3));
        hub.stake{value: 1}();
        vm.prank(_neuron(4));
        hub.serve(MODEL, 0, 0, 0, 5 ether);
        _seatOne(_neuron(6), 20 ether, 0, 0); // came too late
        assertEq(hub.drawn(id).length, 0, "no beacon yet");
        _skip(1);
        address[] memory d = hub.drawn(id);
        assertEq(d.length, 1, "one drawn");
        assertEq(d[0], _neuron(5), "the only one left");
        Slot[] memory s = _assign(id);
        assertEq(s[0].neuron, _neuron(5), "as foretold");
        assertEq(hub.neuron(_neuron(5)).locked, 2 ether, "collateral");
        assertEq(hub.drawn(id).length, 0, "no draw open");
    }

    function test_ANeuronIsNotDrawnBeyondItsFreeStake() public {
        _seatOne(n, 10 ether, 0, 0);
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(payer);
            hub.infer{value: 1}(_spec(), 1, 4 ether);
        }
        _assign(1);
        hub.assign(2);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NotEnoughNeurons.selector, 0, 1));
        hub.assign(3);
    }

    function test_PayGoesToThePayoutAddress() public {
        _seat(1);
        vm.prank(n);
        hub.setPayout(address(0xCAFE));
        (uint256 id,) = _answered(1);
        _pastDeadline(id);
        hub.finalise(id);
        assertEq(address(0xCAFE).balance, 0.95 ether, "payout");
        assertEq(n.balance, 0, "neuron");
    }

    function test_TheConstructorRefusesNonsense() public {
        Params memory p = _params();
        p.commitWindow = 0;
        _refused(p, "commitWindow");
        p = _params();
        p.revealWindow = 0;
        _refused(p, "revealWindow");
        p = _params();
        p.challengeWindow = 0;
        _refused(p, "challengeWindow");
        p = _params();
        p.quarrelWindow = 0;
        _refused(p, "quarrelWindow");
        p = _params();
        p.assignWindow = 0;
        _refused(p, "assignWindow");
        p = _params();
        p.minStake = 0;
        _refused(p, "minStake");
        p = _params();
        p.minCollateral = p.minStake + 1;
        _refused(p, "minCollateral");
        p = _params();
        p.timeoutSlashBps = 10001;
        _refused(p, "timeoutSlashBps");
        p = _params();
        p.protocolFeeBps = 5001;
        _refused(p, "protocolFeeBps");
        p = _params();
        p.unstakeDelay = 2 ** 32;
        _refused(p, "window above 2^32 - 1");
        _refused(IModelRegistry(address(0)), _params(), "registry");
    }

    function test_ParamsAreWhatWasGiven() public view {
        assertEq(keccak256(abi.encode(hub.params())), keccak256(abi.encode(_params())), "params");
    }

    function _refused(Params memory p, string memory field) private {
        _refused(registry, p, field);
    }

    /// Constructors are called by hand, so that the revert data can be read.
    function _refused(IModelRegistry r, Params memory p, string memory field) private {
        assertEq(address(_deployHub(r, p)), address(0), field);
        bytes memory said;
        assembly ("memory-safe") {
            said := mload(0x40)
            mstore(said, returndatasize())
            returndatacopy(add(said, 32), 0, returndatasize())
            mstore(0x40, and(add(add(said, returndatasize()), 63), not(31)))
        }
        bytes memory expected = abi.encodeWithSelector(IWorkerHub.BadParam.selector, field);
        assertEq(keccak256(said), keccak256(expected), field);
    }
}
