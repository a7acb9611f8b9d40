// Validators: their stake, the models they compute, who a header draws for a job, and all of their coins.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IAttestations, Settings, Validator} from "../interfaces/IAttestations.sol";
import {IModelRegistry, Model as Registered} from "../interfaces/IModelRegistry.sol";
import {IPocVerifier} from "../interfaces/IPocVerifier.sol";
import {IProgramBook, Model} from "../interfaces/IProgramBook.sol";
import {IWorkerHub, Job, Params} from "../interfaces/IWorkerHub.sol";
import {AttestTree} from "../libraries/AttestTree.sol";
import {Beacon} from "../libraries/Beacon.sol";
import {History, Point} from "../libraries/History.sol";
import {Payouts} from "./Payouts.sol";

/// What a draw was about.
struct Seat {
    uint256 jobId;
    Job job;
    uint64 epoch;
    bytes32 header;
}

/// Stake by epoch, the draw, slashing and what is due to whom. What of the balance is nobody's is the reserve.
abstract contract Validators is IAttestations, Payouts {
    using History for Point[];

    /// Most models of a validator: a change of stake writes two words for each, and a short call must be able to pay for it.
    uint256 public constant MAX_MODELS = 4;
    /// Epochs between a change of stake and its weight: whoever stakes knows neither the jobs nor their headers.
    uint64 public constant WEIGHT_DELAY = 2;
    /// Heights in which whoever won by a clock can call the timeout before stake or pay leave.
    uint64 public constant TIMEOUT_HEIGHTS = 6;
    bytes16 private constant DRAW_TAG = "bitai/draw/v0";

    /// The hub whose jobs are attested.
    IWorkerHub public immutable HUB;
    /// Its models.
    IModelRegistry public immutable REGISTRY;
    /// The verifier of exposed claims, whose hub this contract is.
    IPocVerifier public immutable VERIFIER;
    /// Its programs.
    IProgramBook public immutable BOOK;

    uint64 internal immutable EPOCH;
    uint64 internal immutable ATTEST_WINDOW;
    uint64 internal immutable ASK_WINDOW;
    uint64 internal immutable OPEN_WINDOW;
    uint64 internal immutable DISPUTE_WINDOW;
    uint64 internal immutable UNSTAKE_DELAY;
    uint96 internal immutable MIN_STAKE;
    uint8 internal immutable SEATS;
    uint16 internal immutable MISS_BPS;
    uint16 internal immutable FAULT_BPS;
    uint96 internal immutable MIN_CUT;
    uint16 internal immutable FEE_BPS;

    mapping(address validator => Validator) private _validators;
    mapping(address validator => bytes32[]) private _models;
    mapping(bytes32 modelId => mapping(address validator => Point[])) private _weights;
    mapping(bytes32 modelId => Point[]) private _allWeights;
    /// @inheritdoc IAttestations
    mapping(address to => uint256) public due;
    uint256 private _stakes;
    uint256 internal _bonds;
    uint256 private _dues;

    constructor(IWorkerHub hub, IModelRegistry registry, IPocVerifier verifier, Settings memory s) {
        require(address(hub).code.length != 0, BadSetting("hub"));
        require(address(registry).code.length != 0, BadSetting("registry"));
        require(address(verifier).code.length != 0, BadSetting("verifier"));
        require(address(verifier.HUB()) == address(this), BadSetting("verifier's hub"));
        Params memory p = hub.params();
        // What cannot be disputed there must not be claimed here.
        require(p.verifier.code.length != 0, BadSetting("hub's verifier"));
        IPocVerifier other = IPocVerifier(p.verifier);
        require(address(other.BOOK()) == address(verifier.BOOK()), BadSetting("book"));
        require(other.SPEC() == verifier.SPEC(), BadSetting("spec"));
        require(address(other.HUB()) == address(hub), BadSetting("hub's verifier's hub"));
        require(p.treasury == address(this), BadSetting("hub's treasury"));
        require(s.minCutPerPosition != 0 && p.protocolFeeBps != 0, BadSetting("minCutPerPosition"));
        require(s.epoch != 0, BadSetting("epoch"));
        require(s.attestWindow != 0, BadSetting("attestWindow"));
        require(s.askWindow != 0, BadSetting("askWindow"));
        require(s.openWindow != 0, BadSetting("openWindow"));
        require(s.disputeWindow != 0, BadSetting("disputeWindow"));
        require(s.minStake != 0, BadSetting("minStake"));
        require(s.seats != 0, BadSetting("seats"));
        require(s.missBps != 0 && s.missBps <= BPS, BadSetting("missBps"));
        require(s.faultBps != 0 && s.faultBps <= BPS, BadSetting("faultBps"));
        // Who finds an answer wrong has time to compute it and to open the dispute.
        uint256 shorter = p.challengeWindow < p.quarrelWindow ? p.challengeWindow : p.quarrelWindow;
        require(shorter >= uint256(Beacon.DELAY) + s.attestWindow, BadSetting("hub's challengeWindow"));
        // What weighs until the end of an epoch stays until all asks about it are made, and an epoch more.
        uint256 all = (uint256(WEIGHT_DELAY) + 1) * s.epoch + Beacon.DELAY + s.attestWindow + s.askWindow;
        require(s.unstakeDelay > all && s.unstakeDelay <= type(uint32).max, BadSetting("unstakeDelay"));
        require(uint256(s.openWindow) + s.disputeWindow <= type(uint32).max, BadSetting("openWindow"));
        HUB = hub;
        REGISTRY = registry;
        VERIFIER = verifier;
        BOOK = verifier.BOOK();
        EPOCH = s.epoch;
        ATTEST_WINDOW = s.attestWindow;
        ASK_WINDOW = s.askWindow;
        OPEN_WINDOW = s.openWindow;
        DISPUTE_WINDOW = s.disputeWindow;
        UNSTAKE_DELAY = s.unstakeDelay;
        MIN_STAKE = s.minStake;
        SEATS = s.seats;
        MISS_BPS = s.missBps;
        FAULT_BPS = s.faultBps;
        MIN_CUT = s.minCutPerPosition;
        FEE_BPS = p.protocolFeeBps;
    }

    /// The protocol's part of paid jobs, or anybody's gift, adds to the reserve.
    receive() external payable {}

    // --- stake ---------------------------------------------------------------------------------

    /// @inheritdoc IAttestations
    function stake() external payable {
        require(msg.value != 0, ZeroAmount());
        _requireActive(msg.sender);
        Validator storage v = _validators[msg.sender];
        v.stake = _u96(uint256(v.stake) + msg.value);
        _stakes += msg.value;
        emit Staked(msg.sender, msg.value, v.stake);
        _reweigh(msg.sender);
    }

    /// @inheritdoc IAttestations
    function requestUnstake(uint96 amount) external {
        require(amount != 0, ZeroAmount());
        _requireActive(msg.sender);
        uint96 staked = _validators[msg.sender].stake;
        require(amount <= staked, MoreThanStaked(amount, staked));
        _leave(msg.sender, amount);
    }

    /// @inheritdoc IAttestations
    function withdraw() external guarded {
        _withdraw(msg.sender);
    }

    /// @inheritdoc IAttestations
    function enlist(bytes32 modelId) external {
        _requireActive(msg.sender);
        Registered memory m = REGISTRY.model(modelId);
        Model memory p = BOOK.model(m.modelRoot);
        bool good = m.words == 0 && p.sites != address(0) && p.vocab == m.vocab && p.context >= m.context
            && m.specVersion == VERIFIER.SPEC();
        require(good, NotDisputable(modelId));
        bytes32[] storage list = _models[msg.sender];
        require(list.length < MAX_MODELS, TooManyModels(MAX_MODELS));
        require(_place(list, modelId) == list.length, EnlistedAlready(modelId, msg.sender));
        list.push(modelId);
        emit Enlisted(modelId, msg.sender, _now() + WEIGHT_DELAY);
        _weigh(modelId, msg.sender, _weightOf(msg.sender));
    }

    /// @inheritdoc IAttestations
    function delist(bytes32 modelId) external {
        bytes32[] storage list = _models[msg.sender];
        uint256 place = _place(list, modelId);
        require(place != list.length, NotEnlisted(modelId, msg.sender));
        list[place] = list[list.length - 1];
        list.pop();
        emit Delisted(modelId, msg.sender, _now() + WEIGHT_DELAY);
        _weigh(modelId, msg.sender, 0);
    }

    // --- views ---------------------------------------------------------------------------------

    /// @inheritdoc IAttestations
    function weights(bytes32 modelId, address validator, uint64 epoch)
        public
        view
        returns (uint96 own, uint96 total)
    {
        own = _weights[modelId][validator].valueAt(epoch);
        total = _allWeights[modelId].valueAt(epoch);
    }

    /// @inheritdoc IAttestations
    function windows(uint64 epoch)
        public
        view
        returns (uint256 header, uint256 attestBy, uint256 askBy, uint256 paidFrom)
    {
        header = (uint256(epoch) + 1) * EPOCH - 1 + Beacon.DELAY;
        attestBy = header + ATTEST_WINDOW;
        askBy = attestBy + ASK_WINDOW;
        paidFrom = askBy + OPEN_WINDOW + _convictable();
    }

    /// @inheritdoc IAttestations
    function isDrawn(uint256 jobId, address validator) external view returns (bool) {
        return _drawn(_seat(jobId), validator);
    }

    /// @inheritdoc IAttestations
    function validatorOf(address validator) external view returns (Validator memory) {
        return _validators[validator];
    }

    /// @inheritdoc IAttestations
    function modelsOf(address validator) external view returns (bytes32[] memory) {
        return _models[validator];
    }

    /// @inheritdoc IAttestations
    function reserve() public view returns (uint256) {
        return address(this).balance - _stakes - _bonds - _dues;
    }

    /// @inheritdoc IAttestations
    function totals() external view returns (uint256 stakes, uint256 bonds, uint256 dues) {
        return (_stakes, _bonds, _dues);
    }

    /// @inheritdoc IAttestations
    function settings() external view returns (Settings memory) {
        return Settings({
            epoch: EPOCH,
            attestWindow: ATTEST_WINDOW,
            askWindow: ASK_WINDOW,
            openWindow: OPEN_WINDOW,
            disputeWindow: DISPUTE_WINDOW,
            unstakeDelay: UNSTAKE_DELAY,
            minCutPerPosition: MIN_CUT,
            minStake: MIN_STAKE,
            seats: SEATS,
            missBps: MISS_BPS,
            faultBps: FAULT_BPS
        });
    }

    // --- inside --------------------------------------------------------------------------------

    /// The running epoch.
    function _now() internal view returns (uint64) {
        return uint64(block.number) / EPOCH;
    }

    /// An answered job, its epoch and the header that draws for it.
    function _seat(uint256 jobId) internal view returns (Seat memory seat) {
        seat.jobId = jobId;
        seat.job = HUB.job(jobId);
        uint64 answeredAt = seat.job.answeredAt;
        require(answeredAt != 0, NotAnswered(jobId));
        seat.epoch = answeredAt / EPOCH;
        seat.header = _header(answeredAt + Beacon.DELAY);
    }

    /// The header at a height, which there must be.
    function _header(uint256 height) internal view returns (bytes32 header) {
        header = Beacon.headerHash(height);
        require(header != 0, HeaderNotDue(block.number, height));
    }

    /// Whether the header draws the validator. Nobody is drawn for a job that pays too little for its length.
    function _drawn(Seat memory seat, address validator) internal view returns (bool) {
        (uint96 own, uint96 total) = weights(seat.job.modelId, validator, seat.epoch);
        // Beyond the tree there is no place for an entry.
        if (own == 0 || seat.jobId >> AttestTree.HEIGHT != 0 || !_paysEnough(seat.job)) return false;
        bytes32 beacon = keccak256(abi.encode(DRAW_TAG, seat.header, seat.jobId));
        uint256 ticket = uint256(keccak256(abi.encode(beacon, validator))) >> 128;
        return ticket * total < (uint256(own) * SEATS) << 128;
    }

    /// The same, refusing who was not drawn.
    function _requireDrawn(uint256 jobId, address validator) internal view returns (Seat memory seat) {
        seat = _seat(jobId);
        require(_drawn(seat, validator), NotDrawn(jobId, validator));
    }

    /// The protocol's part of one share.
    function _cut(Job memory j) internal view returns (uint256) {
        return uint256(j.share) * FEE_BPS / BPS;
    }

    /// Whether a job's part for the protocol covers its positions.
    function _paysEnough(Job memory j) private view returns (bool) {
        return _cut(j) * j.k >= uint256(MIN_CUT) * (uint256(j.inputs) + j.maxNew);
    }

    /// Takes a part of a validator's stake, half of it at most for `beneficiary`, and takes the validator off all lists.
    function _slash(uint64 epoch, address validator, uint256 bps, address beneficiary) internal {
        Validator storage v = _validators[validator];
        uint96 slashed = _u96((uint256(v.stake) + v.leaving) * bps / BPS);
        uint96 staying = slashed < v.stake ? slashed : v.stake;
        v.stake -= staying;
        v.leaving -= slashed - staying;
        _stakes -= slashed;
        emit ValidatorFailed(epoch, validator, beneficiary, slashed);
        bytes32[] storage list = _models[validator];
        for (uint256 i = list.length; i > 0; --i) {
            _weigh(list[i - 1], validator, 0);
            list.pop();
        }
        uint256 given = slashed / 2;
        _owe(beneficiary, given);
        _burn(slashed - given);
    }

    /// Queues an ask: each of those that wait at one time is due a height later than the one before.
    function _queue(address validator) internal returns (uint64 openBy) {
        Validator storage v = _validators[validator];
        openBy = uint64(block.number) + OPEN_WINDOW;
        if (v.asks != 0 && v.openBy >= openBy) openBy = v.openBy + 1;
        v.openBy = openBy;
        ++v.asks;
    }

    /// Ends an ask.
    function _unqueue(address validator) internal {
        --_validators[validator].asks;
    }

    /// Holds stake until a claim exposed now can no longer be convicted.
    function _bind(address validator) internal {
        _validators[validator].boundUntil = uint64(block.number) + _convictable();
    }

    /// Heights from an opening until what it exposes can no longer be convicted: a dispute opened at the last one, both clocks run
    /// down, and some heights for who calls the timeout.
    function _convictable() internal view returns (uint64) {
        return DISPUTE_WINDOW + 2 * uint64(VERIFIER.CLOCK()) + TIMEOUT_HEIGHTS;
    }

    /// Makes something due.
    function _owe(address to, uint256 amount) internal {
        due[to] += amount;
        _dues += amount;
    }

    /// @inheritdoc Payouts
    function _callBack(address validator) internal override returns (uint256 amount) {
        amount = _validators[validator].stake;
        if (amount != 0) _leave(validator, _u96(amount));
    }

    /// @inheritdoc Payouts
    function _withdraw(address who) internal override {
        Validator storage v = _validators[who];
        uint256 amount = due[who];
        due[who] = 0;
        _dues -= amount;
        bool held = v.asks != 0 || block.number <= v.boundUntil;
        if (v.leaving != 0 && block.number >= v.leaveAt) {
            // What else is due does not wait for it.
            require(amount != 0 || !held, StakeBound(v.asks, v.boundUntil));
            if (!held) {
                amount += v.leaving;
                _stakes -= v.leaving;
                v.leaving = 0;
            }
        }
        require(amount != 0, NothingDue(who));
        emit Withdrawn(who, amount);
        _sendOrRevert(_payout(who), amount);
    }

    /// Starts the delay for stake, and restarts it for what was leaving.
    function _leave(address who, uint96 amount) private {
        Validator storage v = _validators[who];
        v.stake -= amount;
        v.leaving += amount;
        v.leaveAt = uint64(block.number) + UNSTAKE_DELAY;
        emit UnstakeRequested(who, amount, v.leaveAt);
        _reweigh(who);
    }

    /// What a validator weighs: nothing below the least stake.
    function _weightOf(address validator) private view returns (uint96) {
        uint96 staked = _validators[validator].stake;
        return staked < MIN_STAKE ? 0 : staked;
    }

    /// Writes a changed stake into all its models.
    function _reweigh(address validator) private {
        bytes32[] storage list = _models[validator];
        uint96 weight = _weightOf(validator);
        for (uint256 i = 0; i < list.length; ++i) {
            _weigh(list[i], validator, weight);
        }
    }

    /// Sets a validator's weight in a model from the next epoch on.
    function _weigh(bytes32 modelId, address validator, uint96 weight) private {
        uint64 next = _now() + WEIGHT_DELAY;
        Point[] storage own = _weights[modelId][validator];
        Point[] storage all = _allWeights[modelId];
        all.set(next, all.newest() - own.newest() + weight);
        own.set(next, weight);
    }

    /// Place of a model on a list; its length where it is not on it.
    function _place(bytes32[] storage list, bytes32 modelId) private view returns (uint256 i) {
        while (i < list.length && list[i] != modelId) ++i;
    }
}
