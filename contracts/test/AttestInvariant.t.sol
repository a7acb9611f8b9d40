// Several validators, askers and payers do random things with attestations: no coin is lost, none is counted twice, no bond stays.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Attestations} from "../src/Attestations.sol";
import {Validator} from "../src/interfaces/IAttestations.sol";
import {JobStatus} from "../src/interfaces/IWorkerHub.sol";
import {AttestBase} from "./AttestBase.sol";

/// What the fuzzer calls. Calls that the contract refuses are part of the game.
contract AttestHandler is AttestBase {
    uint256 public constant VALIDATORS = 12;
    uint256 public constant ASKERS = 2;
    /// Wei ever handed to those who take part.
    uint256 public minted;
    /// What happened, so that a run that reaches nothing shows.
    uint256 public asked;
    uint256 public failed;
    uint256 public convicted;
    uint256 public rewarded;

    constructor() {
        AttestBase.setUp();
        for (uint256 i = 0; i < ASKERS; ++i) {
            vm.deal(asker(i), 100 ether);
        }
        minted = held();
    }

    // The stage stands already.
    function setUp() public override {}

    function asker(uint256 i) public pure returns (address) {
        return address(uint160(0xA5C0 + i % ASKERS));
    }

    function validator(uint256 i) public pure returns (address) {
        return _validator(i % VALIDATORS);
    }

    function cold(uint256 i) public pure returns (address) {
        return address(uint160(0xC01D0000 + i % VALIDATORS));
    }

    /// Wei of everybody, the hub and the contract included.
    function held() public view returns (uint256 sum) {
        sum = HERE.balance + address(hub).balance + address(0).balance + payer.balance + neuron.balance;
        for (uint256 i = 0; i < VALIDATORS; ++i) {
            sum += validator(i).balance + cold(i).balance;
        }
        for (uint256 i = 0; i < ASKERS; ++i) {
            sum += asker(i).balance;
        }
    }

    function stake(uint256 i, uint256 amount) external {
        address who = validator(i);
        amount = bound(amount, 0, who.balance);
        vm.prank(who);
        try att.stake{value: amount}() {} catch {}
    }

    function unstake(uint256 i, uint256 amount) external {
        address who = validator(i);
        amount = bound(amount, 0, att.validatorOf(who).stake);
        vm.prank(who);
        try att.requestUnstake(uint96(amount)) {} catch {}
    }

    function withdraw(uint256 i) external {
        vm.prank(i % 3 == 0 ? asker(i) : validator(i));
        try att.withdraw() {} catch {}
    }

    function enlist(uint256 i, bool off) external {
        vm.prank(validator(i));
        if (off) try att.delist(modelId) {} catch {} else try att.enlist(modelId) {} catch {}
    }

    function payout(uint256 i, uint256 choice) external {
        vm.prank(validator(i));
        try att.setPayout(cold(i)) {} catch {}
        if (choice % 8 != 0) return;
        vm.prank(cold(i));
        att.recall(validator(i));
        vm.prank(cold(i));
        try att.withdrawFor(validator(i)) {} catch {}
    }

    /// A job from the payer to its answer.
    function answer() external {
        if (payer.balance >= FEE && hub.freeStake(neuron) >= 1 ether) _answeredJob(g);
    }

    function finalise(uint256 id) external {
        try hub.finalise(_id(id)) {} catch {}
    }

    /// Says something about a job's epoch: some root, or a list of jobs, or both.
    function attest(uint256 i, uint256 id, uint256 root_, bool lists) external {
        id = _id(id);
        uint64 epoch = hub.job(id).answeredAt / EPOCH;
        (uint256 header,,,) = att.windows(epoch);
        if (block.number < header) vm.roll(header);
        bytes32 hash = _headerOf(header);
        bytes memory list = lists ? abi.encodePacked(bytes4(uint32(id) << 24)) : bytes("");
        vm.prank(validator(i));
        try att.attest(epoch, hash, id, bytes32(root_ % 3), list) {} catch {}
    }

    function ask(uint256 i, uint256 by, uint256 id) external {
        id = _id(id);
        (, uint256 attestBy, uint256 askBy,) = att.windows(hub.job(id).answeredAt / EPOCH);
        if (block.number <= attestBy && attestBy < block.number + EPOCH) vm.roll(attestBy + 1);
        if (block.number > askBy) return;
        uint256 bond = att.askBond();
        if (asker(by).balance < bond) return;
        vm.prank(asker(by));
        try att.ask{value: bond}(validator(i), id) {
            ++asked;
        } catch {}
    }

    function report(uint256 i, uint256 by, uint256 id) external {
        id = _id(id);
        vm.prank(asker(by));
        try att.absent(validator(i), id) {
            ++failed;
        } catch {}
    }

    function expire(uint256 i, uint256 id) external {
        try att.expire(validator(i), _id(id)) {
            ++failed;
        } catch {}
    }

    function convict(uint256 i, uint256 by, uint256 id) external {
        id = _id(id);
        vm.prank(address(second_));
        try att.convict(id, validator(i), asker(by)) {
            ++convicted;
        } catch {}
    }

    function claim(uint256 i, uint256 id) external {
        id = _id(id);
        (,,, uint256 from) = att.windows(hub.job(id).answeredAt / EPOCH);
        if (block.number < from && from < block.number + 3 * EPOCH) vm.roll(from);
        uint256 due = att.due(validator(i));
        vm.prank(validator(i));
        try att.claim(abi.encodePacked(bytes4(uint32(id) << 24))) {} catch {}
        if (att.due(validator(i)) > due) ++rewarded;
    }

    function wait_(uint8 heights) external {
        _skip(heights % 24);
    }

    /// A long time later whoever is asked or has stake there ends it: everything leaves.
    function leaveAll() external {
        vm.roll(block.number + 10_000);
        for (uint256 i = 0; i < VALIDATORS; ++i) {
            for (uint256 id = 1; id <= hub.jobsCount(); ++id) {
                try att.expire(validator(i), id) {} catch {}
            }
        }
        for (uint256 i = 0; i < VALIDATORS; ++i) {
            Validator memory v = att.validatorOf(validator(i));
            bool recalled = att.payee(validator(i)).recalled;
            if (v.stake == 0 || recalled) continue;
            vm.prank(validator(i));
            att.requestUnstake(v.stake);
        }
        vm.roll(block.number + 10_000);
        for (uint256 i = 0; i < VALIDATORS; ++i) {
            vm.prank(validator(i));
            try att.withdraw() {} catch {}
        }
        for (uint256 i = 0; i < ASKERS; ++i) {
            vm.prank(asker(i));
            try att.withdraw() {} catch {}
        }
    }

    function _headerOf(uint256 height) private view returns (bytes32) {
        bytes32 set = vm.load(address(uint160(0xb17a0001)), bytes32(height));
        return set != 0 ? set : keccak256(abi.encode("header", height));
    }

    function _id(uint256 id) private view returns (uint256) {
        return 1 + id % hub.jobsCount();
    }

    function jobs() external view returns (uint256) {
        return hub.jobsCount();
    }

    function stage() external view returns (address, bytes32) {
        return (address(att), modelId);
    }

    function isOver(uint256 id) external view returns (bool) {
        return hub.job(id).status == JobStatus.Settled;
    }
}

contract AttestInvariantTest is AttestBase {
    AttestHandler internal handler;

    function setUp() public override {
        handler = new AttestHandler();
        (, modelId) = handler.stage();
        att = _att();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// `leaveAll` is for the end.
    function excludeSelectors() external view returns (FuzzSelector[] memory list) {
        list = new FuzzSelector[](2);
        bytes4[] memory last = new bytes4[](1);
        last[0] = AttestHandler.leaveAll.selector;
        list[0] = FuzzSelector(address(handler), last);
        bytes4[] memory set = new bytes4[](1);
        set[0] = AttestHandler.setUp.selector;
        list[1] = FuzzSelector(address(handler), set);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// forge-config: default.invariant.runs = 8
    function invariant_NoCoinAppearsOrVanishes() public view {
        assertEq(handler.held(), handler.minted(), "coins");
    }

    /// forge-config: default.invariant.runs = 8
    function invariant_WhatIsCountedIsThere() public view {
        (uint256 stakes, uint256 bonds, uint256 dues) = att.totals();
        assertTrue(address(att).balance >= stakes + bonds + dues, "covered");
        uint256 sum;
        uint256 owed;
        uint256 waiting;
        for (uint256 i = 0; i < handler.VALIDATORS(); ++i) {
            address who = handler.validator(i);
            Validator memory v = att.validatorOf(who);
            sum += uint256(v.stake) + v.leaving;
            owed += att.due(who);
            uint256 asks;
            for (uint256 id = 1; id <= handler.jobs(); ++id) {
                waiting += att.askOf(id, who).bond;
                if (att.askOf(id, who).openBy != 0) ++asks;
            }
            assertEq(v.asks, asks, "asks that wait");
        }
        for (uint256 i = 0; i < handler.ASKERS(); ++i) {
            owed += att.due(handler.asker(i));
        }
        assertEq(stakes, sum, "stakes");
        assertEq(dues, owed, "dues");
        assertEq(bonds, waiting, "bonds");
    }

    /// forge-config: default.invariant.runs = 8
    function invariant_TheTotalIsTheSumOfTheWeights() public view {
        uint64 epoch = uint64(block.number) / EPOCH + 2;
        uint256 sum;
        uint256 all;
        for (uint256 i = 0; i < handler.VALIDATORS(); ++i) {
            (uint96 own, uint96 total) = att.weights(modelId, handler.validator(i), epoch);
            sum += own;
            all = total;
        }
        assertEq(sum, all, "weights");
    }

    function afterInvariant() external {
        handler.leaveAll();
        (uint256 stakes, uint256 bonds, uint256 dues) = att.totals();
        assertEq(stakes + bonds + dues, 0, "something is locked for ever");
    }

    function _att() private pure returns (Attestations) {
        return Attestations(HERE);
    }
}
