// Jobs: posted with their fee in escrow, drawn by Bitcoin, answered by commit and reveal, paid after the challenge window.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Job, JobSpec, JobStatus, Params, Slot, SlotState} from "./interfaces/IWorkerHub.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {Beacon} from "./libraries/Beacon.sol";
import {Blake3Node} from "./libraries/Blake3Node.sol";
import {Ids} from "./libraries/Ids.sol";
import {ModelId} from "./libraries/ModelId.sol";
import {Neurons} from "./base/Neurons.sol";

/// The hub. It counts in heights only. Every coin that enters is a stake, an escrow or a credit until it leaves.
contract WorkerHub is Neurons {
    using Ids for bytes;

    /// Most neurons that a job may ask for.
    uint8 public constant MAX_K = 8;
    /// Draws that a job gets, the first included.
    uint8 public constant MAX_ATTEMPTS = 3;
    /// Most stop ids of a job.
    uint256 public constant MAX_STOPS = 16;

    /// @inheritdoc IWorkerHub
    uint256 public jobsCount;

    // Keyed by job, so that what disputes add later can be keyed by (job, node path) beside it.
    mapping(uint256 jobId => Job) private _jobs;
    mapping(uint256 jobId => Slot[]) private _slots;
    /// Place among the job's slots, counted from 1; kept when the neuron fails, so it is drawn at most once.
    mapping(uint256 jobId => mapping(address neuron => uint256)) private _slotOf;

    /// @param registry models that jobs may name
    /// @param p windows, minimums and rates, fixed for ever
    constructor(IModelRegistry registry, Params memory p) Neurons(registry, p) {}

    // --- the life of a job ---------------------------------------------------------------------

    /// @inheritdoc IWorkerHub
    function infer(JobSpec calldata spec, uint8 k, uint96 collateral)
        external
        payable
        guarded
        returns (uint256 jobId)
    {
        require(k != 0 && k <= MAX_K, BadK(k, MAX_K));
        (bytes32 modelId, uint32 inputs) = _checkSpec(spec);
        uint96 fee = _u96(msg.value);

        jobId = ++jobsCount;
        Job storage j = _jobs[jobId];
        j.modelId = modelId;
        j.jobHash = hashJob(spec);
        j.payer = msg.sender;
        j.postedAt = uint64(block.number);
        j.k = k;
        j.maxNew = spec.maxNew;
        j.vocab = spec.vocab;
        j.words = spec.words;
        j.inputs = inputs;
        j.share = fee / k;
        j.escrow = fee;
        j.collateral = _collateral(j.share, collateral);
        j.stopIds = spec.stopIds;
        _open(j);
        _escrow += fee;
        _emitPosted(jobId, j, spec);
    }

    /// @inheritdoc IWorkerHub
    function assign(uint256 jobId) external guarded {
        _assign(jobId, _job(jobId));
    }

    /// @inheritdoc IWorkerHub
    function commit(uint256 jobId, bytes32 jobHash, bytes32 commitment) external guarded {
        Job storage j = _job(jobId);
        require(jobHash == j.jobHash, WrongJobHash(jobId, jobHash, j.jobHash));
        require(commitment != 0, EmptyCommitment());
        if (j.status == JobStatus.Open) _assign(jobId, j);

        Slot storage s = _slotFor(jobId);
        require(s.state != SlotState.Committed, AlreadyCommitted(jobId, msg.sender));
        require(j.status == JobStatus.Committing, WrongStatus(jobId, j.status));
        require(block.number <= j.deadline, WindowClosed(block.number, j.deadline));
        s.state = SlotState.Committed;
        s.commitment = commitment;
        emit Committed(jobId, msg.sender, commitment);

        // Nothing is readable before everyone is bound.
        if (_count(jobId, SlotState.Assigned) != 0) return;
        j.status = JobStatus.Revealing;
        j.deadline = uint64(block.number) + REVEAL_WINDOW;
        emit RevealOpened(jobId, j.deadline);
    }

    /// @inheritdoc IWorkerHub
    function reveal(uint256 jobId, bytes32 salt, bytes32 traceRoot, bytes calldata outputIds)
        external
        guarded
    {
        Job storage j = _job(jobId);
        Slot storage s = _slotFor(jobId);
        require(s.state != SlotState.Revealed, AlreadyRevealed(jobId, msg.sender));
        require(j.status == JobStatus.Revealing, WrongStatus(jobId, j.status));
        require(block.number <= j.deadline, WindowClosed(block.number, j.deadline));
        require(traceRoot != 0, EmptyTraceRoot());
        bytes32 outputHash = keccak256(outputIds);
        bytes32 commitment = hashCommit(jobId, msg.sender, salt, traceRoot, outputHash);
        require(commitment == s.commitment, WrongReveal(commitment, s.commitment));
        // No other job is posted with 0.
        if (j.maxNew == 0) outputIds.checkWords(j.words);
        else outputIds.checkOutput(j.stopIds, j.maxNew, j.vocab);

        s.state = SlotState.Revealed;
        s.traceRoot = traceRoot;
        s.outputHash = outputHash;
        emit Revealed(jobId, msg.sender, traceRoot, outputIds);
        if (_count(jobId, SlotState.Committed) == 0) _closeReveals(jobId, j);
    }

    /// @inheritdoc IWorkerHub
    function finalise(uint256 jobId) external guarded {
        Job storage j = _job(jobId);
        _requireAnswered(jobId, j);
        require(block.number > j.deadline, WindowOpen(block.number, j.deadline));
        require(j.openDisputes == 0, Disputed(jobId, j.openDisputes));
        (uint256 standing, bool agreed,) = _answers(jobId);
        if (standing != 0 && agreed) _settle(jobId, j);
        else _refund(jobId, j);
    }

    /// @inheritdoc IWorkerHub
    function timeout(uint256 jobId) external guarded {
        Job storage j = _job(jobId);
        JobStatus status = j.status;
        require(
            status == JobStatus.Open || status == JobStatus.Committing || status == JobStatus.Revealing,
            WrongStatus(jobId, status)
        );
        require(block.number > j.deadline, WindowOpen(block.number, j.deadline));
        if (status == JobStatus.Open) return _refund(jobId, j);

        bool revealing = status == JobStatus.Revealing;
        (uint256 slashed, uint256 failed) =
            _failSilent(jobId, j, revealing ? SlotState.Committed : SlotState.Assigned);
        if (revealing && _count(jobId, SlotState.Revealed) != 0) {
            // What was revealed is public, so a newcomer could copy it: those who revealed go on alone.
            _closeReveals(jobId, j);
        } else if (j.attempt + 1 == MAX_ATTEMPTS) {
            _refund(jobId, j);
        } else {
            j.attempt += 1;
            _open(j);
            emit JobReopened(jobId, j.attempt, j.roundAt + Beacon.DELAY);
        }
        // The payer chose the collateral: what it gets must not grow with it, only with what it paid.
        _split(slashed, failed * j.share, j.payer);
    }

    // --- disputes ------------------------------------------------------------------------------

    /// @inheritdoc IWorkerHub
    function openDispute(uint256 jobId) external guarded {
        Job storage j = _disputable(jobId);
        require(block.number <= j.deadline, WindowClosed(block.number, j.deadline));
        j.openDisputes += 1;
        emit DisputeOpened(jobId, j.openDisputes);
    }

    /// @inheritdoc IWorkerHub
    function closeDispute(uint256 jobId) external guarded {
        Job storage j = _disputable(jobId);
        require(j.openDisputes != 0, NoDispute(jobId));
        j.openDisputes -= 1;
        emit DisputeClosed(jobId, j.openDisputes);
    }

    /// @inheritdoc IWorkerHub
    function convict(uint256 jobId, address neuron_, address challenger) external guarded {
        Job storage j = _disputable(jobId);
        require(j.openDisputes != 0, NoDispute(jobId));
        uint256 place = _slotOf[jobId][neuron_];
        require(
            place != 0 && _slots[jobId][place - 1].state == SlotState.Revealed, NotAssigned(jobId, neuron_)
        );
        _slots[jobId][place - 1].state = SlotState.Failed;
        uint96 slashed = j.collateral;
        _unlock(neuron_, slashed, slashed);
        emit NeuronConvicted(jobId, neuron_, challenger, slashed);
        _split(slashed, slashed, challenger);
    }

    // --- views ---------------------------------------------------------------------------------

    /// @inheritdoc IWorkerHub
    function job(uint256 jobId) external view returns (Job memory) {
        return _job(jobId);
    }

    /// @inheritdoc IWorkerHub
    function assigned(uint256 jobId) external view returns (Slot[] memory) {
        return _slots[jobId];
    }

    /// @inheritdoc IWorkerHub
    function slot(uint256 jobId, address neuron_) external view returns (Slot memory s) {
        uint256 place = _slotOf[jobId][neuron_];
        if (place != 0) s = _slots[jobId][place - 1];
    }

    /// @inheritdoc IWorkerHub
    function drawn(uint256 jobId) external view returns (address[] memory) {
        Job storage j = _job(jobId);
        bytes32 header = Beacon.headerHash(j.roundAt + Beacon.DELAY);
        if (j.status != JobStatus.Open || header == 0) return new address[](0);
        return _drawFor(jobId, j, header);
    }

    /// @inheritdoc IWorkerHub
    function hashJob(JobSpec calldata spec) public view returns (bytes32) {
        bytes calldata ids = spec.inputIds;
        uint256 spot;
        assembly ("memory-safe") {
            spot := ids.offset
        }
        // BLAKE3, so that a dispute opens one id by a path.
        bytes32 inputHash = Blake3Node.hashCalldata(spot, ids.length);
        return keccak256(
            abi.encode(
                spec.modelRoot,
                spec.specVersion,
                inputHash,
                spec.maxNew,
                keccak256(spec.stopIds),
                spec.temperatureQ16,
                spec.topK,
                spec.topPQ16,
                spec.seed
            )
        );
    }

    /// @inheritdoc IWorkerHub
    function hashCommit(uint256 jobId, address sender, bytes32 salt, bytes32 traceRoot, bytes32 outputHash)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(block.chainid, address(this), jobId, sender, salt, traceRoot, outputHash));
    }

    // --- inside --------------------------------------------------------------------------------

    /// Refuses what no neuron could answer; returns the model's id and the prompt's length.
    function _checkSpec(JobSpec calldata spec) private view returns (bytes32 modelId, uint32 inputs) {
        modelId = ModelId.id(spec.modelRoot, spec.specVersion, spec.vocab, spec.context, spec.words);
        require(REGISTRY.active(modelId), ModelInactive(modelId));
        uint256 count = spec.inputIds.count();
        require(count != 0, EmptyInput());
        if (spec.words == 0) _checkGenerating(spec);
        else _checkEmbedding(spec);
        require(count + spec.maxNew <= spec.context, ContextOverflow(count, spec.maxNew, spec.context));
        // The registry has held the words of a model that embeds to the same.
        require(spec.maxNew <= Ids.MAX_OUTPUTS, Ids.TooManyOutputs(spec.maxNew, Ids.MAX_OUTPUTS));
        spec.inputIds.checkRange(spec.vocab);
        // Below the context, which has 32 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        inputs = uint32(count);
    }

    /// What a job for a model that generates may ask.
    function _checkGenerating(JobSpec calldata spec) private pure {
        require(spec.maxNew != 0, NothingAsked());
        uint256 stops = spec.stopIds.count();
        require(stops <= MAX_STOPS, TooManyStops(stops));
        spec.stopIds.checkRange(spec.vocab);
        bool good = spec.temperatureQ16 == 0
            ? spec.topK == 0 && spec.topPQ16 == 0
            : spec.topPQ16 != 0 && spec.topPQ16 <= 65536;
        require(good, BadSampler(spec.temperatureQ16, spec.topK, spec.topPQ16));
    }

    /// A job for a model that embeds says nothing but its ids, so that one question has one job hash.
    function _checkEmbedding(JobSpec calldata spec) private pure {
        require(spec.maxNew == 0, EmbeddingGenerates(spec.maxNew));
        require(spec.stopIds.length == 0, EmbeddingStops(spec.stopIds.count()));
        bool plain = spec.temperatureQ16 == 0 && spec.topK == 0 && spec.topPQ16 == 0;
        require(plain, EmbeddingSamples(spec.temperatureQ16, spec.topK, spec.topPQ16));
        require(spec.seed == 0, EmbeddingSeeded(spec.seed));
    }

    /// Opens a draw.
    function _open(Job storage j) private {
        j.status = JobStatus.Open;
        j.roundAt = uint64(block.number);
        j.deadline = uint64(block.number) + Beacon.DELAY + ASSIGN_WINDOW;
    }

    /// Draws neurons for the empty places and opens the commit window.
    function _assign(uint256 jobId, Job storage j) private {
        require(j.status == JobStatus.Open, WrongStatus(jobId, j.status));
        uint256 beaconHeight = j.roundAt + Beacon.DELAY;
        require(block.number >= beaconHeight, BeaconNotDue(block.number, beaconHeight));
        bytes32 header = Beacon.headerHash(beaconHeight);
        require(header != 0, BeaconMissing(beaconHeight));
        address[] memory picked = _drawFor(jobId, j, header);
        uint256 needed = j.k - _count(jobId, SlotState.Committed);
        require(picked.length == needed, NotEnoughNeurons(picked.length, needed));

        Slot[] storage list = _slots[jobId];
        for (uint256 i = 0; i < needed; ++i) {
            _lock(picked[i], j.collateral);
            list.push(Slot(picked[i], SlotState.Assigned, 0, 0, 0));
            _slotOf[jobId][picked[i]] = list.length;
        }
        j.status = JobStatus.Committing;
        j.deadline = uint64(block.number) + COMMIT_WINDOW;
        emit JobAssigned(jobId, j.attempt, picked, j.deadline);
    }

    /// Who the beacon draws for the job's empty places.
    function _drawFor(uint256 jobId, Job storage j, bytes32 header) private view returns (address[] memory) {
        // One of the two is 0.
        Terms memory t = Terms(j.modelId, j.inputs, j.maxNew + j.words, j.share, j.collateral, j.roundAt);
        uint256 needed = j.k - _count(jobId, SlotState.Committed);
        return _draw(jobId, Beacon.value(header, jobId, j.attempt), t, needed);
    }

    /// @inheritdoc Neurons
    function _wasDrawn(uint256 jobId, address who) internal view override returns (bool) {
        return _slotOf[jobId][who] != 0;
    }

    /// Opens the challenge window, longer where the answers differ.
    function _closeReveals(uint256 jobId, Job storage j) private {
        (, bool agreed, uint256 first) = _answers(jobId);
        j.status = agreed ? JobStatus.Challenge : JobStatus.Quarrel;
        j.deadline = uint64(block.number) + (agreed ? CHALLENGE_WINDOW : QUARREL_WINDOW);
        Slot storage s = _slots[jobId][first];
        if (agreed) emit ChallengeOpened(jobId, s.traceRoot, s.outputHash, j.deadline);
        else emit Quarrelled(jobId, j.deadline);
    }

    /// Revealed answers that stand: how many, whether they are one, and the first one's place.
    function _answers(uint256 jobId) private view returns (uint256 standing, bool agreed, uint256 first) {
        Slot[] storage list = _slots[jobId];
        agreed = true;
        for (uint256 i = 0; i < list.length; ++i) {
            Slot storage s = list[i];
            if (s.state != SlotState.Revealed) continue;
            if (standing++ == 0) first = i;
            Slot storage f = list[first];
            agreed = agreed && s.traceRoot == f.traceRoot && s.outputHash == f.outputHash;
        }
    }

    /// Slashes and removes whoever is still in state `silent`; returns what they lost and how many they were.
    function _failSilent(uint256 jobId, Job storage j, SlotState silent)
        private
        returns (uint256 total, uint256 failed)
    {
        Slot[] storage list = _slots[jobId];
        uint96 collateral = j.collateral;
        uint96 slashed = _u96(uint256(collateral) * TIMEOUT_SLASH_BPS / BPS);
        for (uint256 i = 0; i < list.length; ++i) {
            Slot storage s = list[i];
            if (s.state != silent) continue;
            s.state = SlotState.Failed;
            _unlock(s.neuron, collateral, slashed);
            total += slashed;
            ++failed;
            emit NeuronTimedOut(jobId, s.neuron, slashed);
        }
    }

    /// Pays every standing neuron its share; shares of the others go back to the payer.
    function _settle(uint256 jobId, Job storage j) private {
        j.status = JobStatus.Settled;
        uint256 escrow = j.escrow;
        j.escrow = 0;
        _escrow -= escrow;
        uint256 share = j.share;
        uint256 net = _net(share);
        Slot[] storage list = _slots[jobId];
        uint256 paid;
        for (uint256 i = 0; i < list.length; ++i) {
            Slot storage s = list[i];
            if (s.state != SlotState.Revealed) continue;
            s.state = SlotState.Paid;
            address who = s.neuron;
            address to = _payout(who);
            _unlock(who, j.collateral, 0);
            ++paid;
            emit NeuronPaid(jobId, who, to, net);
            _pay(to, net);
        }
        uint256 cut = (share - net) * paid;
        uint256 rest = escrow - share * paid;
        emit JobSettled(jobId, net * paid, cut, rest);
        if (TREASURY == address(0)) _burn(cut);
        else _pay(TREASURY, cut);
        _pay(j.payer, rest);
    }

    /// Frees everyone still in the job and returns the fee.
    function _refund(uint256 jobId, Job storage j) private {
        j.status = JobStatus.Refunded;
        uint256 escrow = j.escrow;
        j.escrow = 0;
        _escrow -= escrow;
        Slot[] storage list = _slots[jobId];
        for (uint256 i = 0; i < list.length; ++i) {
            Slot storage s = list[i];
            if (s.state == SlotState.Failed) continue;
            s.state = SlotState.Released;
            _unlock(s.neuron, j.collateral, 0);
        }
        emit JobRefunded(jobId, j.payer, escrow);
        _pay(j.payer, escrow);
    }

    /// The event that carries the ids; on its own because the stack is short.
    function _emitPosted(uint256 jobId, Job storage j, JobSpec calldata spec) private {
        uint64 beaconHeight = j.roundAt + Beacon.DELAY;
        emit JobPosted(
            jobId, msg.sender, j.modelId, j.jobHash, spec, j.k, j.share, j.collateral, beaconHeight
        );
    }

    /// How many slots are in this state.
    function _count(uint256 jobId, SlotState state) private view returns (uint256 n) {
        Slot[] storage list = _slots[jobId];
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i].state == state) ++n;
        }
    }

    /// The job, if there is one.
    function _job(uint256 jobId) private view returns (Job storage j) {
        j = _jobs[jobId];
        require(j.status != JobStatus.None, UnknownJob(jobId));
    }

    /// The caller's slot, if it is in the job.
    function _slotFor(uint256 jobId) private view returns (Slot storage s) {
        uint256 place = _slotOf[jobId][msg.sender];
        require(place != 0, NotAssigned(jobId, msg.sender));
        s = _slots[jobId][place - 1];
        require(s.state != SlotState.Failed, NotAssigned(jobId, msg.sender));
    }

    /// Refuses jobs that are not between reveal and end.
    function _requireAnswered(uint256 jobId, Job storage j) private view {
        require(
            j.status == JobStatus.Challenge || j.status == JobStatus.Quarrel, WrongStatus(jobId, j.status)
        );
    }

    /// The job, if the caller is the verifier and it is answered.
    function _disputable(uint256 jobId) private view returns (Job storage j) {
        require(msg.sender == VERIFIER, NotVerifier(msg.sender));
        j = _job(jobId);
        _requireAnswered(jobId, j);
    }
}
