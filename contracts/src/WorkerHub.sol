// Jobs: posted with their fee in escrow, drawn by Bitcoin, answered by commit and reveal, paid after the challenge window.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Job, JobSpec, JobStatus, Params, Slot, SlotState} from "./interfaces/IWorkerHub.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {Beacon} from "./libraries/Beacon.sol";
import {Blake3Node} from "./libraries/Blake3Node.sol";
import {Ids} from "./libraries/Ids.sol";
import {ModelId} from "./libraries/ModelId.sol";
import {Batches} from "./base/Batches.sol";

/// The hub. It counts in heights only. Every coin that enters is a stake, an escrow or a credit until it leaves.
contract WorkerHub is Batches {
    using Ids for bytes;

    /// Most neurons that a job may ask for.
    uint8 public constant MAX_K = 8;
    /// Draws that a job gets, the first included.
    uint8 public constant MAX_ATTEMPTS = 3;
    /// Most stop ids of a job.
    uint256 public constant MAX_STOPS = 16;

    /// @inheritdoc IWorkerHub
    uint256 public jobsCount;

    /// @param registry models that jobs may name
    /// @param p windows, minimums and rates, fixed for ever
    constructor(IModelRegistry registry, Params memory p) Batches(registry, p) {}

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
        Course storage c = _courses[jobId];
        c.modelId = modelId;
        c.jobHash = hashJob(spec);
        c.payer = msg.sender;
        c.postedAt = uint48(block.number);
        c.k = k;
        c.vocab = spec.vocab;
        c.embeds = spec.words != 0;
        c.inputs = inputs;
        // One of the two is 0.
        c.outputs = spec.maxNew + spec.words;
        uint96 share = fee / k;
        c.share = share;
        // Below MAX_K.
        // forge-lint: disable-next-line(unsafe-typecast)
        c.dust = uint8(fee % k);
        c.collateral = _collateral(share, collateral);
        c.stopIds = spec.stopIds;
        _open(c);
        _escrow += fee;
        _emitPosted(jobId, c, spec);
    }

    /// @inheritdoc IWorkerHub
    function assign(uint256 jobId) external guarded {
        _refuse(_assign(jobId, _course(jobId)));
    }

    /// @inheritdoc IWorkerHub
    function commit(uint256 jobId, bytes32 jobHash, bytes32 commitment) external guarded {
        bytes32 expected = _course(jobId).jobHash;
        require(jobHash == expected, WrongJobHash(jobId, jobHash, expected));
        require(commitment != 0, EmptyCommitment());
        // The tree of one leaf.
        _refuse(_commit(jobId, 1, Binding(commitment, 0, 0)));
    }

    /// @inheritdoc IWorkerHub
    function reveal(uint256 jobId, bytes32 salt, bytes32 traceRoot, bytes calldata outputIds)
        external
        guarded
    {
        _course(jobId);
        (uint256 seat, bytes memory why) = _revealing(jobId);
        _refuse(why);
        require(traceRoot != 0, EmptyTraceRoot());
        bytes32 outputHash = keccak256(outputIds);
        bytes32 commitment = hashCommit(jobId, msg.sender, salt, traceRoot, outputHash);
        Part storage p = _parts[jobId][seat];
        // A root above other leaves is no commitment to this one alone.
        require(p.place == 1, NotInBatch(jobId, jobId, 1));
        require(commitment == p.commitment, WrongReveal(commitment, p.commitment));
        _reveal(jobId, p, traceRoot, outputHash, outputIds);
    }

    /// @inheritdoc IWorkerHub
    function finalise(uint256 jobId) external guarded {
        _course(jobId);
        Till memory till;
        _refuse(_finalise(jobId, till));
        _close(till);
    }

    /// @inheritdoc IWorkerHub
    function timeout(uint256 jobId) external guarded {
        Course storage c = _course(jobId);
        JobStatus status = c.status;
        require(
            status == JobStatus.Open || status == JobStatus.Committing || status == JobStatus.Revealing,
            WrongStatus(jobId, status)
        );
        require(block.number > c.deadline, WindowOpen(block.number, c.deadline));
        if (status == JobStatus.Open) return _refund(jobId, c);

        bool revealing = status == JobStatus.Revealing;
        (uint256 slashed, uint256 failed) =
            _failSilent(jobId, c, revealing ? SlotState.Committed : SlotState.Assigned);
        if (revealing && c.revealed != 0) {
            // What was revealed is public, so a newcomer could copy it: those who revealed go on alone.
            _closeReveals(jobId, c);
        } else if (c.attempt + 1 == MAX_ATTEMPTS) {
            _refund(jobId, c);
        } else {
            c.attempt += 1;
            _open(c);
            emit JobReopened(jobId, c.attempt, c.roundAt + Beacon.DELAY);
        }
        // The payer chose the collateral: what it gets must not grow with it, only with what it paid.
        _split(slashed, failed * c.share, c.payer);
    }

    // --- disputes ------------------------------------------------------------------------------

    /// @inheritdoc IWorkerHub
    function openDispute(uint256 jobId) external guarded {
        Course storage c = _disputable(jobId);
        require(block.number <= c.deadline, WindowClosed(block.number, c.deadline));
        c.openDisputes += 1;
        emit DisputeOpened(jobId, c.openDisputes);
    }

    /// @inheritdoc IWorkerHub
    function closeDispute(uint256 jobId) external guarded {
        Course storage c = _disputable(jobId);
        require(c.openDisputes != 0, NoDispute(jobId));
        c.openDisputes -= 1;
        emit DisputeClosed(jobId, c.openDisputes);
    }

    /// @inheritdoc IWorkerHub
    function convict(uint256 jobId, address neuron_, address challenger) external guarded {
        Course storage c = _disputable(jobId);
        require(c.openDisputes != 0, NoDispute(jobId));
        uint256 seat = _seatOf(jobId, neuron_);
        require(
            seat != NO_SEAT && _parts[jobId][seat].state == SlotState.Revealed, NotAssigned(jobId, neuron_)
        );
        _parts[jobId][seat].state = SlotState.Failed;
        c.revealed -= 1;
        uint96 slashed = c.collateral;
        _unlock(neuron_, slashed, slashed);
        emit NeuronConvicted(jobId, neuron_, challenger, slashed);
        _split(slashed, slashed, _payout(challenger));
    }

    // --- views ---------------------------------------------------------------------------------

    /// @inheritdoc IWorkerHub
    function job(uint256 jobId) external view returns (Job memory) {
        Course storage c = _course(jobId);
        bool over = c.status == JobStatus.Settled || c.status == JobStatus.Refunded;
        return Job({
            modelId: c.modelId,
            jobHash: c.jobHash,
            payer: c.payer,
            postedAt: c.postedAt,
            status: c.status,
            k: c.k,
            attempt: c.attempt,
            maxNew: c.embeds ? 0 : c.outputs,
            vocab: c.vocab,
            openDisputes: c.openDisputes,
            inputs: c.inputs,
            roundAt: c.roundAt,
            deadline: c.deadline,
            share: c.share,
            escrow: over ? 0 : c.share * c.k + c.dust,
            words: c.embeds ? c.outputs : 0,
            collateral: c.collateral,
            answeredAt: c.answeredAfter == 0 ? 0 : c.roundAt + c.answeredAfter,
            stopIds: c.stopIds
        });
    }

    /// @inheritdoc IWorkerHub
    function assigned(uint256 jobId) external view returns (Slot[] memory list) {
        list = new Slot[](_courses[jobId].parts);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = _slot(jobId, i);
        }
    }

    /// @inheritdoc IWorkerHub
    function slot(uint256 jobId, address neuron_) external view returns (Slot memory s) {
        uint256 seat = _seatOf(jobId, neuron_);
        if (seat != NO_SEAT) s = _slot(jobId, seat);
    }

    /// @inheritdoc IWorkerHub
    function committedAt(uint256 jobId, address neuron_) external view returns (uint256 lead, uint256 place) {
        uint256 seat = _seatOf(jobId, neuron_);
        if (seat != NO_SEAT) (lead, place) = (_parts[jobId][seat].lead, _parts[jobId][seat].place);
    }

    /// @inheritdoc IWorkerHub
    function drawn(uint256 jobId) external view returns (address[] memory) {
        Course storage c = _course(jobId);
        bytes32 header = Beacon.headerHash(c.roundAt + Beacon.DELAY);
        if (c.status != JobStatus.Open || header == 0) return new address[](0);
        return _drawFor(jobId, c, header);
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

    /// The event that carries the ids; on its own because the stack is short.
    function _emitPosted(uint256 jobId, Course storage c, JobSpec calldata spec) private {
        uint64 beaconHeight = c.roundAt + Beacon.DELAY;
        emit JobPosted(
            jobId, msg.sender, c.modelId, c.jobHash, spec, c.k, c.share, c.collateral, beaconHeight
        );
    }

    /// A slot as it is shown; the commitment lies with the job that leads the batch.
    function _slot(uint256 jobId, uint256 seat) private view returns (Slot memory) {
        Part storage p = _parts[jobId][seat];
        bytes32 commitment = _parts[p.lead][p.leadSeat].commitment;
        return Slot(p.neuron, p.state, commitment, p.traceRoot, p.outputHash);
    }

    /// The job, if there is one.
    function _course(uint256 jobId) private view returns (Course storage c) {
        c = _courses[jobId];
        require(c.status != JobStatus.None, UnknownJob(jobId));
    }

    /// The job, if the caller is the verifier and it is answered.
    function _disputable(uint256 jobId) private view returns (Course storage c) {
        require(msg.sender == VERIFIER, NotVerifier(msg.sender));
        c = _course(jobId);
        require(_answered(c), WrongStatus(jobId, c.status));
    }
}
