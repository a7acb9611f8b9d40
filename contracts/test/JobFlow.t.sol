// The life of a job: paid, silent, redrawn, refunded, quarrelled; and where each wei goes.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts} from "../src/interfaces/IPayouts.sol";
import {IWorkerHub, Job, JobSpec, JobStatus, Slot, SlotState} from "../src/interfaces/IWorkerHub.sol";
import {Beacon} from "../src/libraries/Beacon.sol";
import {Base} from "./Base.sol";

/// Refuses every coin, or claims it back by entering the hub again.
contract Hostile {
    IWorkerHub private immutable HUB;
    bytes private _attack;
    /// What the hub said to the attempt.
    bytes4 public refusedWith;

    constructor(IWorkerHub hub) {
        HUB = hub;
    }

    function attackWith(bytes calldata call) external {
        _attack = call;
    }

    function claim() external {
        HUB.claim();
    }

    function infer(JobSpec calldata spec) external payable returns (uint256) {
        return HUB.infer{value: msg.value}(spec, 1, 0);
    }

    receive() external payable {
        require(_attack.length != 0, "refused");
        (bool ok, bytes memory said) = address(HUB).call(_attack);
        // What it tried must have failed; the coins stay here.
        require(!ok, "entered");
        refusedWith = bytes4(said);
    }
}

contract JobFlowTest is Base {
    function test_OneNeuronIsPaid() public {
        _seat(1);
        address n = _neuron(0);
        uint256 id = _post(1);
        _status(id, JobStatus.Open);
        Slot[] memory s = _assign(id);
        assertEq(s[0].neuron, n, "drawn");
        _commit(id, n, ROOT, _out());
        _status(id, JobStatus.Revealing);
        _reveal(id, n, ROOT, _out());
        _status(id, JobStatus.Challenge);
        _skip(5);
        hub.finalise(id);
        _status(id, JobStatus.Settled);
        _state(id, n, SlotState.Paid);
        assertEq(n.balance, 0.95 ether, "neuron");
        assertEq(treasury.balance, 0.05 ether, "treasury");
        assertEq(hub.neuron(n).locked, 0, "collateral free");
        assertEq(hub.job(id).escrow, 0, "escrow empty");
        _conserved();
    }

    function test_TheFirstCommitDraws() public {
        _seat(1);
        uint256 id = _post(1);
        _skip(2);
        _commit(id, _neuron(0), ROOT, _out());
        _status(id, JobStatus.Revealing);
    }

    function test_ThreeNeuronsAgreeAndShare() public {
        _seat(5);
        // 2 wei do not divide by 3 and go back.
        uint256 id = _post(3, 3 ether + 2);
        uint256 before = payer.balance;
        Slot[] memory s = _assign(id);
        for (uint256 i = 0; i < 3; ++i) {
            _status(id, JobStatus.Committing);
            _commit(id, s[i].neuron, ROOT, _out());
        }
        for (uint256 i = 0; i < 3; ++i) {
            _reveal(id, s[i].neuron, ROOT, _out());
        }
        _pastDeadline(id);
        hub.finalise(id);
        for (uint256 i = 0; i < 3; ++i) {
            assertEq(s[i].neuron.balance, 0.95 ether, "each its share");
        }
        assertEq(payer.balance, before + 2, "the rest");
        assertEq(treasury.balance, 0.15 ether, "treasury");
        _conserved();
    }

    function test_ADrawDoesNotDependOnTheOrderOfTheList() public {
        _seat(6);
        uint256 id = _post(2);
        _skip(2);
        address[] memory before = hub.drawn(id);
        // Someone who is not drawn leaves: the list is reordered, the draw is not.
        for (uint256 i = 0; i < 6; ++i) {
            if (_neuron(i) == before[0] || _neuron(i) == before[1]) continue;
            vm.prank(_neuron(i));
            hub.unserve(MODEL);
            address[] memory after_ = hub.drawn(id);
            assertEq(after_[0], before[0], "first");
            assertEq(after_[1], before[1], "second");
        }
    }

    function test_SilenceIsSlashedAndRedrawnThenRefunded() public {
        _seat(3);
        uint256 id = _post(1);
        uint256 before = payer.balance;
        address[3] memory seen;
        for (uint256 round = 0; round < 3; ++round) {
            Slot[] memory s = _assign(id);
            assertEq(s.length, round + 1, "slots");
            seen[round] = s[round].neuron;
            _pastDeadline(id);
            hub.timeout(id);
            assertEq(hub.neuron(seen[round]).stake, 19.9 ether, "a tenth of the collateral");
            assertEq(hub.neuron(seen[round]).locked, 0, "unlocked");
            _state(id, seen[round], SlotState.Failed);
            _conserved();
        }
        assertTrue(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2], "drawn at most once");
        _status(id, JobStatus.Refunded);
        assertEq(payer.balance, before + 1 ether + 0.15 ether, "the fee and half of three slashes");
        assertEq(address(0).balance, 0.15 ether, "the other half burned");
    }

    function test_SilenceAfterTheCommitIsSlashedToo() public {
        _seat(2);
        uint256 id = _post(1);
        Slot[] memory s = _assign(id);
        _commit(id, s[0].neuron, ROOT, _out());
        _pastDeadline(id);
        hub.timeout(id);
        _status(id, JobStatus.Open);
        assertEq(hub.neuron(s[0].neuron).stake, 19.9 ether, "slashed");
        Slot[] memory t = _assign(id);
        assertTrue(t[1].neuron != s[0].neuron, "another one");
        _commit(id, t[1].neuron, ROOT, _out());
        _reveal(id, t[1].neuron, ROOT, _out());
        _pastDeadline(id);
        hub.finalise(id);
        assertEq(t[1].neuron.balance, 0.95 ether, "paid");
        _conserved();
    }

    /// A payer that asks for much collateral and pays next to nothing must not live off silent neurons.
    function test_SilenceNeverGivesThePayerMoreThanTheShare() public {
        _seat(3);
        uint256 before = payer.balance;
        vm.prank(payer);
        uint256 id = hub.infer{value: 6}(_spec(), 3, 15 ether);
        _assign(id);
        _pastDeadline(id);
        hub.timeout(id);
        // Three neurons lost 1.5 ether each; each one's share was 2 wei.
        assertEq(payer.balance, before - 6 + 6, "as much as the three shares, while the fee waits");
        assertEq(address(0).balance, 4.5 ether - 6, "the rest is burned");
        _conserved();
        _pastDeadline(id);
        hub.timeout(id);
        assertEq(payer.balance, before + 6, "the fee too");
    }

    function test_ACommitSurvivesTheRedrawOfAnother() public {
        _seat(3);
        uint256 id = _post(2);
        Slot[] memory s = _assign(id);
        _commit(id, s[0].neuron, ROOT, _out());
        _pastDeadline(id);
        hub.timeout(id);
        _state(id, s[0].neuron, SlotState.Committed);
        s = _assign(id);
        assertEq(s.length, 3, "one more slot");
        _commit(id, s[2].neuron, ROOT, _out());
        _reveal(id, s[0].neuron, ROOT, _out());
        _reveal(id, s[2].neuron, ROOT, _out());
        _pastDeadline(id);
        hub.finalise(id);
        assertEq(s[0].neuron.balance, 0.95 ether, "first");
        assertEq(s[2].neuron.balance, 0.95 ether, "third");
        _conserved();
    }

    function test_WhoRevealedGoesOnAlone() public {
        _seat(2);
        uint256 id = _post(2);
        uint256 before = payer.balance;
        Slot[] memory s = _assign(id);
        _commit(id, s[0].neuron, ROOT, _out());
        _commit(id, s[1].neuron, ROOT, _out());
        _reveal(id, s[1].neuron, ROOT, _out());
        _pastDeadline(id);
        hub.timeout(id);
        _status(id, JobStatus.Challenge);
        _pastDeadline(id);
        hub.finalise(id);
        assertEq(s[1].neuron.balance, 0.95 ether, "paid");
        assertEq(payer.balance, before + 1 ether + 0.05 ether, "the other share and half of a slash");
        _conserved();
    }

    function test_AQuarrelPaysNobody() public {
        _seat(2);
        uint256 id = _post(2);
        uint256 before = payer.balance;
        Slot[] memory s = _assign(id);
        _commit(id, s[0].neuron, ROOT, _out());
        _commit(id, s[1].neuron, "other", _out());
        _reveal(id, s[0].neuron, ROOT, _out());
        _reveal(id, s[1].neuron, "other", _out());
        _status(id, JobStatus.Quarrel);
        _skip(8);
        vm.expectRevert(
            abi.encodeWithSelector(IWorkerHub.WindowOpen.selector, block.number, hub.job(id).deadline)
        );
        hub.finalise(id);
        _skip(1);
        hub.finalise(id);
        _status(id, JobStatus.Refunded);
        assertEq(payer.balance, before + 2 ether, "the fee");
        assertEq(hub.freeStake(s[0].neuron) + hub.freeStake(s[1].neuron), 40 ether, "collateral free");
        _conserved();
    }

    function test_OutputsThatDifferQuarrelUnderOneTraceRoot() public {
        _seat(2);
        uint256 id = _post(2);
        Slot[] memory s = _assign(id);
        bytes memory other = hex"0600000002000000";
        _commit(id, s[0].neuron, ROOT, _out());
        _commit(id, s[1].neuron, ROOT, other);
        _reveal(id, s[0].neuron, ROOT, _out());
        _reveal(id, s[1].neuron, ROOT, other);
        _status(id, JobStatus.Quarrel);
    }

    function test_AJobThatNobodyTakesIsRefunded() public {
        uint256 id = _post(1);
        uint256 before = payer.balance;
        _skip(22);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WindowOpen.selector, 122, 122));
        hub.timeout(id);
        _skip(1);
        hub.timeout(id);
        _status(id, JobStatus.Refunded);
        assertEq(payer.balance, before + 1 ether, "the fee");
        _conserved();
    }

    function test_ACommitterIsFreeWhenNobodyReplacesTheOther() public {
        _seat(2);
        uint256 id = _post(2);
        Slot[] memory s = _assign(id);
        _commit(id, s[0].neuron, ROOT, _out());
        _pastDeadline(id);
        hub.timeout(id);
        _pastDeadline(id);
        hub.timeout(id);
        _status(id, JobStatus.Refunded);
        _state(id, s[0].neuron, SlotState.Released);
        assertEq(hub.freeStake(s[0].neuron), 20 ether, "no fault, no loss");
        _conserved();
    }

    function test_PayThatIsRefusedWaitsToBeClaimedAndLocksNobody() public {
        _seat(2);
        Hostile h = new Hostile(hub);
        uint256 id = _post(2);
        Slot[] memory s = _assign(id);
        vm.prank(s[0].neuron);
        hub.setPayout(address(h));
        for (uint256 i = 0; i < 2; ++i) {
            _commit(id, s[i].neuron, ROOT, _out());
        }
        for (uint256 i = 0; i < 2; ++i) {
            _reveal(id, s[i].neuron, ROOT, _out());
        }
        _pastDeadline(id);
        hub.finalise(id);
        assertEq(s[1].neuron.balance, 0.95 ether, "the other one is paid");
        assertEq(hub.credits(address(h)), 0.95 ether, "credit");
        _conserved();
        // It still refuses.
        vm.expectRevert(abi.encodeWithSelector(IPayouts.TransferRefused.selector, address(h), 0.95 ether));
        h.claim();
        // Now it takes the coins and tries to take them twice.
        h.attackWith(abi.encodeCall(IWorkerHub.claim, ()));
        h.claim();
        assertEq(address(h).balance, 0.95 ether, "once");
        assertEq(h.refusedWith(), IPayouts.Reentered.selector, "the guard");
        assertEq(hub.credits(address(h)), 0, "no credit left");
        _conserved();
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.NothingToClaim.selector, address(h)));
        h.claim();
    }

    function test_RefusesToBeEnteredFromATransfer() public {
        Hostile h = new Hostile(hub);
        vm.deal(address(this), 1 ether);
        uint256 id = h.infer{value: 1 ether}(_spec());
        h.attackWith(abi.encodeCall(IWorkerHub.timeout, (id)));
        _pastDeadline(id);
        hub.timeout(id);
        // Reentry failed, so the refund was taken once.
        assertEq(address(h).balance, 1 ether, "refund");
        assertEq(h.refusedWith(), IPayouts.Reentered.selector, "the guard");
        _conserved();
    }

    function test_TheEventCarriesTheJob() public {
        JobSpec memory spec = _spec();
        bytes32 jobHash = hub.hashJob(spec);
        vm.expectEmit();
        emit IWorkerHub.JobPosted(1, payer, MODEL, jobHash, spec, 1, FEE, 1 ether, 102);
        _post(1);
    }

    function test_RetiredModelsTakeNoNewJobsButFinishOldOnes() public {
        _seat(1);
        uint256 id = _post(1);
        registry.retire(MODEL);
        JobSpec memory spec = _spec();
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.ModelInactive.selector, MODEL));
        vm.prank(payer);
        hub.infer{value: FEE}(spec, 1, 0);
        _assign(id);
        _commit(id, _neuron(0), ROOT, _out());
        _reveal(id, _neuron(0), ROOT, _out());
        _pastDeadline(id);
        hub.finalise(id);
        _status(id, JobStatus.Settled);
    }

    function test_ABeaconIsTheHeaderTwoAbove() public {
        _seat(4);
        uint256 id = _post(1);
        _skip(2);
        bytes32 beacon = Beacon.value(keccak256(abi.encode("header", uint256(102))), id, 0);
        address best;
        for (uint256 i = 0; i < 4; ++i) {
            if (best == address(0) || Beacon.ticket(beacon, _neuron(i)) < Beacon.ticket(beacon, best)) {
                best = _neuron(i);
            }
        }
        assertEq(hub.drawn(id)[0], best, "lowest ticket");
        _skip(5);
        assertEq(hub.drawn(id)[0], best, "later headers change nothing");
    }
}
