// Jobs as they are stored, and the steps of their life that single calls and batches share.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, JobStatus, Params, SlotState} from "../interfaces/IWorkerHub.sol";
import {IModelRegistry} from "../interfaces/IModelRegistry.sol";
import {Beacon} from "../libraries/Beacon.sol";
import {Ids} from "../libraries/Ids.sol";
import {Neurons} from "./Neurons.sol";

/// Storage is what a job costs: what changes lies in one word, what a step reads in the fewest, and what events hold and nothing
/// reads is not written. A step that others or time can refuse returns the refusal, so that a batch can go on without that job.
abstract contract Jobs is Neurons {
    using Ids for bytes;

    /// A job. Heights have 48 bits: one a Bitcoin block.
    struct Course {
        // What changes.
        JobStatus status;
        uint8 k;
        uint8 attempt;
        /// Parts ever given, and how many of them are assigned, committed, revealed now.
        uint8 parts;
        uint8 assigned;
        uint8 committed;
        uint8 revealed;
        /// Wei that the fee has beyond k shares, below k.
        uint8 dust;
        uint32 openDisputes;
        uint48 roundAt;
        uint48 deadline;
        uint32 vocab;
        bool embeds;
        /// Heights from `roundAt` to the last answer; 0 before.
        uint24 answeredAfter;
        // What a draw and the pay read.
        uint96 share;
        uint96 collateral;
        uint32 inputs;
        /// max_new, or the words of an embedding.
        uint32 outputs;
        // The rest.
        address payer;
        uint48 postedAt;
        bytes32 modelId;
        bytes32 jobHash;
        bytes stopIds;
    }

    /// A neuron's part in a job.
    struct Part {
        address neuron;
        SlotState state;
        /// Its seat in the job that leads its batch; the root is there. A job that was committed alone leads itself.
        uint8 leadSeat;
        /// Its leaf in the batch's tree; 0 before it commits.
        uint16 place;
        uint64 lead;
        bytes32 commitment;
        bytes32 traceRoot;
        bytes32 outputHash;
    }

    /// A commitment under way: its root, and the first job that it bound.
    struct Binding {
        bytes32 root;
        uint256 lead;
        uint256 seat;
    }

    /// Pay on its way: what goes to one receiver goes at once.
    struct Till {
        address to;
        uint256 amount;
        uint256 cut;
    }

    /// The seat of who has none.
    uint256 internal constant NO_SEAT = type(uint256).max;

    // Keyed by job, so that what disputes add later can be keyed by (job, node path) beside it.
    mapping(uint256 jobId => Course) internal _courses;
    /// A neuron that fails keeps its seat, so it is drawn at most once.
    mapping(uint256 jobId => mapping(uint256 seat => Part)) internal _parts;

    constructor(IModelRegistry registry, Params memory p) Neurons(registry, p) {}

    /// @inheritdoc IWorkerHub
    function hashCommit(uint256 jobId, address sender, bytes32 salt, bytes32 traceRoot, bytes32 outputHash)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(block.chainid, address(this), jobId, sender, salt, traceRoot, outputHash));
    }

    // --- steps ---------------------------------------------------------------------------------

    /// Opens a draw.
    function _open(Course storage c) internal {
        c.status = JobStatus.Open;
        c.roundAt = uint48(block.number);
        c.deadline = _after(Beacon.DELAY + ASSIGN_WINDOW);
    }

    /// Draws neurons for the empty places and opens the commit window, or says why not.
    function _assign(uint256 jobId, Course storage c) internal returns (bytes memory) {
        if (c.status != JobStatus.Open) return _wrongStatus(jobId, c);
        uint256 beaconHeight = c.roundAt + Beacon.DELAY;
        if (block.number < beaconHeight) {
            return abi.encodeWithSelector(BeaconNotDue.selector, block.number, beaconHeight);
        }
        bytes32 header = Beacon.headerHash(beaconHeight);
        if (header == 0) return abi.encodeWithSelector(BeaconMissing.selector, beaconHeight);
        address[] memory picked = _drawFor(jobId, c, header);
        uint256 needed = c.k - c.committed;
        if (picked.length != needed) {
            return abi.encodeWithSelector(NotEnoughNeurons.selector, picked.length, needed);
        }
        uint256 seat = c.parts;
        uint96 collateral = c.collateral;
        for (uint256 i = 0; i < needed; ++i) {
            _lock(picked[i], collateral);
            Part storage p = _parts[jobId][seat + i];
            p.neuron = picked[i];
            p.state = SlotState.Assigned;
        }
        // At most MAX_K in each of MAX_ATTEMPTS draws.
        // forge-lint: disable-next-line(unsafe-typecast)
        c.parts = uint8(seat + needed);
        // forge-lint: disable-next-line(unsafe-typecast)
        c.assigned = uint8(needed);
        c.status = JobStatus.Committing;
        c.deadline = _after(COMMIT_WINDOW);
        emit JobAssigned(jobId, c.attempt, picked, c.deadline);
        return "";
    }

    /// Who the beacon draws for the job's empty places.
    function _drawFor(uint256 jobId, Course storage c, bytes32 header)
        internal
        view
        returns (address[] memory)
    {
        Terms memory t = Terms(c.modelId, c.inputs, c.outputs, c.share, c.collateral, c.roundAt);
        return _draw(jobId, Beacon.value(header, jobId, c.attempt), t, c.k - c.committed);
    }

    /// @inheritdoc Neurons
    function _wasDrawn(uint256 jobId, address who) internal view override returns (bool) {
        return _seatOf(jobId, who) != NO_SEAT;
    }

    /// Commits the caller's part in a job as leaf `place` of a batch, drawing first where that is due, or says why not.
    function _commit(uint256 jobId, uint256 place, Binding memory b) internal returns (bytes memory why) {
        Course storage c = _courses[jobId];
        if (c.status == JobStatus.Open) {
            why = _assign(jobId, c);
            if (why.length != 0) return why;
        }
        uint256 seat = _seatOf(jobId, msg.sender);
        if (seat == NO_SEAT) return _notAssigned(jobId);
        Part storage p = _parts[jobId][seat];
        SlotState state = p.state;
        if (state == SlotState.Failed) return _notAssigned(jobId);
        if (state == SlotState.Committed) {
            return abi.encodeWithSelector(AlreadyCommitted.selector, jobId, msg.sender);
        }
        if (c.status != JobStatus.Committing) return _wrongStatus(jobId, c);
        if (block.number > c.deadline) return _windowClosed(c);
        if (b.lead == 0) {
            b.lead = jobId;
            b.seat = seat;
            p.commitment = b.root;
        }
        p.state = SlotState.Committed;
        // A seat is below 24 and a place below 2048; jobs are counted one by one.
        // forge-lint: disable-next-line(unsafe-typecast)
        (p.leadSeat, p.place, p.lead) = (uint8(b.seat), uint16(place), uint64(b.lead));
        emit Committed(jobId, msg.sender, b.root);

        // Nothing is readable before everyone is bound.
        c.committed += 1;
        if (--c.assigned != 0) return why;
        c.status = JobStatus.Revealing;
        c.deadline = _after(REVEAL_WINDOW);
        emit RevealOpened(jobId, c.deadline);
    }

    /// The caller's seat in a job that it may reveal now, or why it may not.
    function _revealing(uint256 jobId) internal view returns (uint256 seat, bytes memory why) {
        Course storage c = _courses[jobId];
        seat = _seatOf(jobId, msg.sender);
        if (seat == NO_SEAT) return (seat, _notAssigned(jobId));
        SlotState state = _parts[jobId][seat].state;
        if (state == SlotState.Failed) return (seat, _notAssigned(jobId));
        if (state == SlotState.Revealed) {
            return (seat, abi.encodeWithSelector(AlreadyRevealed.selector, jobId, msg.sender));
        }
        if (c.status != JobStatus.Revealing) return (seat, _wrongStatus(jobId, c));
        if (block.number > c.deadline) return (seat, _windowClosed(c));
    }

    /// Writes an answer that was committed to; refuses one that is none.
    function _reveal(
        uint256 jobId,
        Part storage p,
        bytes32 traceRoot,
        bytes32 outputHash,
        bytes calldata outputIds
    ) internal {
        Course storage c = _courses[jobId];
        if (c.embeds) outputIds.checkWords(c.outputs);
        else outputIds.checkOutput(c.stopIds, c.outputs, c.vocab);
        p.state = SlotState.Revealed;
        p.traceRoot = traceRoot;
        p.outputHash = outputHash;
        emit Revealed(jobId, msg.sender, traceRoot, outputIds);
        c.revealed += 1;
        if (--c.committed == 0) _closeReveals(jobId, c);
    }

    /// Opens the challenge window, longer where the answers differ.
    function _closeReveals(uint256 jobId, Course storage c) internal {
        (bool agreed, uint256 first) = _agreed(jobId, c);
        c.status = agreed ? JobStatus.Challenge : JobStatus.Quarrel;
        c.deadline = _after(agreed ? CHALLENGE_WINDOW : QUARREL_WINDOW);
        // Windows of more than 300 years are no deployment's; a draw is at least two heights before an answer.
        uint256 heights = block.number - c.roundAt;
        // forge-lint: disable-next-line(unsafe-typecast)
        c.answeredAfter = heights > type(uint24).max ? type(uint24).max : uint24(heights);
        Part storage p = _parts[jobId][first];
        if (agreed) emit ChallengeOpened(jobId, p.traceRoot, p.outputHash, c.deadline);
        else emit Quarrelled(jobId, c.deadline);
    }

    /// Ends an answered job after its window, or says why not.
    function _finalise(uint256 jobId, Till memory till) internal returns (bytes memory) {
        Course storage c = _courses[jobId];
        if (!_answered(c)) return _wrongStatus(jobId, c);
        if (block.number <= c.deadline) {
            return abi.encodeWithSelector(WindowOpen.selector, block.number, c.deadline);
        }
        if (c.openDisputes != 0) return abi.encodeWithSelector(Disputed.selector, jobId, c.openDisputes);
        bool one = c.revealed != 0;
        if (one && c.status == JobStatus.Quarrel) (one,) = _agreed(jobId, c);
        if (one) _settle(jobId, c, till);
        else _refund(jobId, c);
        return "";
    }

    /// Slashes and removes whoever is still in state `silent`; returns what they lost and how many they were.
    function _failSilent(uint256 jobId, Course storage c, SlotState silent)
        internal
        returns (uint256 total, uint256 failed)
    {
        uint96 collateral = c.collateral;
        uint96 slashed = _u96(uint256(collateral) * TIMEOUT_SLASH_BPS / BPS);
        for (uint256 i = 0; i < c.parts; ++i) {
            Part storage p = _parts[jobId][i];
            if (p.state != silent) continue;
            p.state = SlotState.Failed;
            _unlock(p.neuron, collateral, slashed);
            total += slashed;
            ++failed;
            emit NeuronTimedOut(jobId, p.neuron, slashed);
        }
        if (silent == SlotState.Assigned) c.assigned = 0;
        else c.committed = 0;
    }

    /// Pays every standing neuron its share through the till; shares of the others go back to the payer.
    function _settle(uint256 jobId, Course storage c, Till memory till) private {
        c.status = JobStatus.Settled;
        uint256 share = c.share;
        uint256 net = _net(share);
        uint256 escrow = share * c.k + c.dust;
        _escrow -= escrow;
        uint96 collateral = c.collateral;
        uint256 paid;
        for (uint256 i = 0; i < c.parts; ++i) {
            Part storage p = _parts[jobId][i];
            if (p.state != SlotState.Revealed) continue;
            p.state = SlotState.Paid;
            address who = p.neuron;
            address to = _payout(who);
            _unlock(who, collateral, 0);
            ++paid;
            emit NeuronPaid(jobId, who, to, net);
            if (to != till.to) {
                _pay(till.to, till.amount);
                (till.to, till.amount) = (to, 0);
            }
            till.amount += net;
        }
        uint256 cut = (share - net) * paid;
        till.cut += cut;
        uint256 rest = escrow - share * paid;
        emit JobSettled(jobId, net * paid, cut, rest);
        _pay(c.payer, rest);
    }

    /// Pays out what is left in the till, and the protocol's part.
    function _close(Till memory till) internal {
        _pay(till.to, till.amount);
        if (TREASURY == address(0)) _burn(till.cut);
        else _pay(TREASURY, till.cut);
    }

    /// Frees everyone still in the job and returns the fee.
    function _refund(uint256 jobId, Course storage c) internal {
        c.status = JobStatus.Refunded;
        uint256 escrow = uint256(c.share) * c.k + c.dust;
        _escrow -= escrow;
        for (uint256 i = 0; i < c.parts; ++i) {
            Part storage p = _parts[jobId][i];
            if (p.state == SlotState.Failed) continue;
            p.state = SlotState.Released;
            _unlock(p.neuron, c.collateral, 0);
        }
        emit JobRefunded(jobId, c.payer, escrow);
        _pay(c.payer, escrow);
    }

    // --- questions -----------------------------------------------------------------------------

    /// Whether the answers that stand are one, and the first one's seat.
    function _agreed(uint256 jobId, Course storage c) private view returns (bool agreed, uint256 first) {
        first = NO_SEAT;
        agreed = true;
        for (uint256 i = 0; i < c.parts; ++i) {
            Part storage p = _parts[jobId][i];
            if (p.state != SlotState.Revealed) continue;
            if (first == NO_SEAT) {
                first = i;
                if (c.revealed == 1) break;
                continue;
            }
            Part storage f = _parts[jobId][first];
            agreed = agreed && p.traceRoot == f.traceRoot && p.outputHash == f.outputHash;
        }
    }

    /// The neuron's seat in the job.
    function _seatOf(uint256 jobId, address who) internal view returns (uint256) {
        uint256 n = _courses[jobId].parts;
        for (uint256 i = 0; i < n; ++i) {
            if (_parts[jobId][i].neuron == who) return i;
        }
        return NO_SEAT;
    }

    /// Whether the job is between reveal and end.
    function _answered(Course storage c) internal view returns (bool) {
        return c.status == JobStatus.Challenge || c.status == JobStatus.Quarrel;
    }

    // --- refusals ------------------------------------------------------------------------------

    /// Reverts with a refusal, if it is one.
    function _refuse(bytes memory why) internal pure {
        if (why.length == 0) return;
        assembly ("memory-safe") {
            revert(add(why, 32), mload(why))
        }
    }

    function _wrongStatus(uint256 jobId, Course storage c) internal view returns (bytes memory) {
        return abi.encodeWithSelector(WrongStatus.selector, jobId, c.status);
    }

    function _notAssigned(uint256 jobId) private view returns (bytes memory) {
        return abi.encodeWithSelector(NotAssigned.selector, jobId, msg.sender);
    }

    function _windowClosed(Course storage c) private view returns (bytes memory) {
        return abi.encodeWithSelector(WindowClosed.selector, block.number, c.deadline);
    }

    /// `heights` from now.
    function _after(uint64 heights) private view returns (uint48) {
        // Windows have 32 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint48(block.number + heights);
    }
}
