// Random actors do random things; money is conserved and collateral is always somebody's after every step.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Job, JobStatus, Neuron, Params, Slot, SlotState} from "../src/interfaces/IWorkerHub.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {WorkerHub} from "../src/WorkerHub.sol";
import {Base} from "./Base.sol";

/// Refuses every coin.
contract Closed {
    function claim(IWorkerHub hub) external {
        hub.claim();
    }
}

/// What the fuzzer calls. Calls that the hub refuses are part of the game.
contract Handler is Base {
    uint256 public constant NEURONS = 5;
    address public constant CHALLENGER = address(0xC4A1);
    address public immutable CLOSED;
    /// Wei ever handed to actors: what they hold together must stay this.
    uint256 public minted;
    /// Jobs that ended in each state, so that a run that reaches nothing shows.
    uint256 public settled;
    uint256 public refunded;
    /// Wei that silence gave the payer beyond the silent neurons' shares.
    uint256 public overpaid;
    /// What a neuron's own key held when it named a payout address: it never holds more.
    mapping(address neuron => uint256) public most;
    /// Timeouts that slashed somebody, so that a run that reaches none shows.
    uint256 public silences;

    constructor(IModelRegistry, WorkerHub hub_, address verifier_) {
        hub = hub_;
        verifier = verifier_;
        CLOSED = address(new Closed());
        minted = 1000 ether * (NEURONS + 1);
        vm.deal(payer, 1000 ether);
        for (uint256 i = 0; i < NEURONS; ++i) {
            address who = _neuron(i);
            vm.deal(who, 1000 ether);
            vm.prank(who);
            hub.stake{value: 40 ether}();
            vm.prank(who);
            hub.serve(MODEL, uint96(i * 0.05 ether), 0, 0, type(uint96).max);
        }
    }

    // The hub exists already.
    function setUp() public override {}

    function stake(uint256 i, uint256 amount) external {
        address who = _who(i);
        amount = bound(amount, 0, who.balance);
        vm.prank(who);
        try hub.stake{value: amount}() {} catch {}
    }

    function unstake(uint256 i, uint256 amount) external {
        address who = _who(i);
        amount = bound(amount, 0, hub.freeStake(who) / 4);
        vm.prank(who);
        try hub.requestUnstake(amount) {} catch {}
    }

    function withdraw(uint256 i) external {
        vm.prank(_who(i));
        try hub.withdraw() {} catch {}
    }

    function serve(uint256 i, uint256 ask, bool closed) external {
        address who = _who(i);
        vm.prank(who);
        try hub.serve(MODEL, uint96(bound(ask, 0, 1 ether)), 0, 0, type(uint96).max) {} catch {}
        if (closed) _setPayout(who, CLOSED);
    }

    /// Where a neuron's money goes once it names that.
    function cold(address who) public pure returns (address) {
        return address(uint160(who) + 0xC01D0000);
    }

    /// Names a payout address, moves it, or calls back the stake of the last neuron; the neuron's key tries all of it, too.
    function payout(uint256 i, uint256 choice) external {
        address who = _who(i);
        address to = choice % 2 == 0 ? cold(who) : CLOSED;
        _setPayout(who, to);
        address present = hub.payee(who).payout;
        vm.prank(choice % 3 == 0 ? who : present);
        try hub.changePayout(who, to) {} catch {}
        if (i % NEURONS != NEURONS - 1 || choice % 5 != 0) return;
        vm.prank(present);
        try hub.recall(who) {} catch {}
        vm.prank(present);
        try hub.withdrawFor(who) {} catch {}
    }

    function _setPayout(address who, address to) private {
        vm.prank(who);
        try hub.setPayout(to) {
            most[who] = who.balance;
        } catch {}
    }

    function unserve(uint256 i) external {
        vm.prank(_who(i));
        try hub.unserve(MODEL) {} catch {}
    }

    function infer(uint256 fee, uint256 k, uint256 collateral) external {
        fee = bound(fee, 0, payer.balance < 8 ether ? payer.balance : 8 ether);
        vm.prank(payer);
        try hub.infer{value: fee}(_spec(), uint8(bound(k, 1, 4)), uint96(bound(collateral, 0, 5 ether))) {}
            catch {}
    }

    /// Draws and has every drawn neuron commit and reveal, as far as chance lets it.
    function advance(uint256 id, uint256 choices) external {
        id = _id(id);
        if (id == 0) return;
        _skip(2);
        try hub.assign(id) {} catch {}
        Slot[] memory s = hub.assigned(id);
        for (uint256 i = 0; i < s.length; ++i) {
            uint256 choice = (choices >> (8 * i)) & 255;
            if (choice % 8 == 0) continue;
            bytes32 root = choice % 11 == 0 ? bytes32("wrong") : ROOT;
            bytes32 c = hub.hashCommit(id, s[i].neuron, SALT, root, keccak256(_out()));
            bytes32 jobHash = hub.job(id).jobHash;
            vm.prank(s[i].neuron);
            try hub.commit(id, jobHash, c) {} catch {}
        }
        for (uint256 i = 0; i < s.length; ++i) {
            uint256 choice = (choices >> (8 * i)) & 255;
            if (choice % 8 == 1) continue;
            bytes32 root = choice % 11 == 0 ? bytes32("wrong") : ROOT;
            vm.prank(s[i].neuron);
            try hub.reveal(id, SALT, root, _out()) {} catch {}
        }
    }

    function finish(uint256 id, bool late) external {
        id = _id(id);
        if (id == 0 || hub.job(id).escrow == 0) return;
        if (late && hub.job(id).deadline >= block.number) _pastDeadline(id);
        _timeout(id);
        try hub.finalise(id) {} catch {}
        JobStatus status = hub.job(id).status;
        if (status == JobStatus.Settled) ++settled;
        if (status == JobStatus.Refunded) ++refunded;
    }

    /// Counts what a timeout gives the payer beyond the fee that it gets back.
    function _timeout(uint256 id) private {
        uint256 before = payer.balance + hub.job(id).escrow;
        uint256 failed = _failed(id);
        try hub.timeout(id) {} catch {}
        failed = _failed(id) - failed;
        if (failed == 0) return;
        ++silences;
        uint256 gained = payer.balance + hub.job(id).escrow - before;
        uint256 shares = failed * hub.job(id).share;
        if (gained > shares) overpaid += gained - shares;
    }

    function _failed(uint256 id) private view returns (uint256 n) {
        Slot[] memory s = hub.assigned(id);
        for (uint256 i = 0; i < s.length; ++i) {
            if (s[i].state == SlotState.Failed) ++n;
        }
    }

    /// A job from end to end, so that every run sees some.
    function whole(uint256 fee, uint256 k, uint256 choices, uint256 disputed) external {
        this.infer(fee, k, choices >> 128);
        this.advance(0, choices);
        this.dispute(0, choices >> 64, disputed);
        this.finish(0, true);
    }

    function dispute(uint256 id, uint256 i, uint256 choice) external {
        id = _id(id);
        if (id == 0 || choice % 3 == 0) return;
        vm.prank(verifier);
        try hub.openDispute(id) {} catch {}
        if (choice % 4 == 0) return;
        if (choice % 4 == 1) {
            vm.prank(verifier);
            try hub.convict(id, _who(i), CHALLENGER) {} catch {}
        }
        vm.prank(verifier);
        try hub.closeDispute(id) {} catch {}
    }

    function claim(uint256 i) external {
        if (i % 2 == 0) {
            try Closed(CLOSED).claim(hub) {} catch {}
        }
        vm.prank(_who(i));
        try hub.claim() {} catch {}
    }

    function wait_(uint8 heights) external {
        _skip(heights % 16);
    }

    function _who(uint256 i) private pure returns (address) {
        return _neuron(i % NEURONS);
    }

    /// A job that exists, mostly a recent one; 0 while there is none.
    function _id(uint256 id) private view returns (uint256) {
        uint256 n = hub.jobsCount();
        if (n == 0) return 0;
        uint256 recent = n < 4 ? n : 4;
        return n - id % recent;
    }
}

contract InvariantTest is Base {
    Handler internal handler;

    function setUp() public override {
        super.setUp();
        handler = new Handler(registry, hub, verifier);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_MoneyIsConserved() public view {
        _conserved();
        uint256 held = address(hub).balance + payer.balance + treasury.balance + address(0).balance
            + handler.CHALLENGER().balance + handler.CLOSED().balance;
        for (uint256 i = 0; i < handler.NEURONS(); ++i) {
            held += _neuron(i).balance + handler.cold(_neuron(i)).balance;
        }
        assertEq(held, handler.minted(), "no coin appears or vanishes");
    }

    function invariant_MoneyLeavesForThePayoutAddressAlone() public view {
        for (uint256 i = 0; i < handler.NEURONS(); ++i) {
            address who = _neuron(i);
            if (hub.payee(who).payout == address(0)) continue;
            assertTrue(who.balance <= handler.most(who), "the neuron's own key got something");
        }
    }

    function invariant_SilenceGivesThePayerNoMoreThanTheShares() public view {
        assertEq(handler.overpaid(), 0, "a payer lives off silence");
    }

    function invariant_TotalsAreTheSumOfTheParts() public view {
        (uint256 stakes, uint256 escrow, uint256 credit) = hub.totals();
        uint256 sum;
        for (uint256 i = 0; i < handler.NEURONS(); ++i) {
            Neuron memory n = hub.neuron(_neuron(i));
            sum += uint256(n.stake) + n.unstaking;
        }
        assertEq(stakes, sum, "stakes");
        sum = 0;
        for (uint256 id = 1; id <= hub.jobsCount(); ++id) {
            sum += hub.job(id).escrow;
        }
        assertEq(escrow, sum, "escrow");
        assertEq(credit, hub.credits(handler.CLOSED()), "credits");
    }

    function invariant_LockedStakeBelongsToOpenSlots() public view {
        for (uint256 i = 0; i < handler.NEURONS(); ++i) {
            address who = _neuron(i);
            uint256 sum;
            for (uint256 id = 1; id <= hub.jobsCount(); ++id) {
                SlotState s = hub.slot(id, who).state;
                bool open = s == SlotState.Assigned || s == SlotState.Committed || s == SlotState.Revealed;
                if (open) sum += hub.job(id).collateral;
            }
            Neuron memory n = hub.neuron(who);
            assertEq(n.locked, sum, "locked");
            assertTrue(n.locked <= n.stake, "never more than there is");
        }
    }

    function invariant_JobsThatAreOverHoldNothing() public view {
        for (uint256 id = 1; id <= hub.jobsCount(); ++id) {
            Job memory j = hub.job(id);
            bool over = j.status == JobStatus.Settled || j.status == JobStatus.Refunded;
            assertTrue(!over || j.escrow == 0, "nothing left");
            assertTrue(!over || j.openDisputes == 0, "no dispute left");
        }
    }
}
