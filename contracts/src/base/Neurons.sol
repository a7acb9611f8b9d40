// Neurons: their stake, the models they serve, and who is drawn for a job.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Neuron, Offer, Params} from "../interfaces/IWorkerHub.sol";
import {IModelRegistry, Model} from "../interfaces/IModelRegistry.sol";
import {IPocVerifier} from "../interfaces/IPocVerifier.sol";
import {Model as Program} from "../interfaces/IProgramBook.sol";
import {Beacon} from "../libraries/Beacon.sol";
import {Ledger} from "./Ledger.sol";
import {Payouts} from "./Payouts.sol";

/// Accounts of neurons, lists of offers by model, and the draw over such a list.
abstract contract Neurons is Ledger {
    /// Most neurons on a model's list. A draw reads three storage words for each, so this bounds its gas
    /// (about 1 million with a full list).
    uint256 public constant MAX_SERVERS = 128;

    mapping(address neuron => Neuron) private _neurons;
    mapping(bytes32 modelId => Offer[]) private _offers;
    /// Place on the model's list, counted from 1.
    mapping(bytes32 modelId => mapping(address neuron => uint256)) private _place;

    /// What a draw asks of a neuron.
    struct Terms {
        bytes32 modelId;
        uint32 inputs;
        uint32 outputs;
        uint96 share;
        uint96 collateral;
        uint64 roundAt;
    }

    constructor(IModelRegistry registry, Params memory p) Ledger(registry, p) {}

    /// @inheritdoc IWorkerHub
    function stake() external payable guarded {
        require(msg.value != 0, ZeroAmount());
        _requireActive(msg.sender);
        Neuron storage n = _neurons[msg.sender];
        n.stake = _u96(uint256(n.stake) + msg.value);
        // A beacon already known must not tell anyone whom to fund.
        n.since = uint64(block.number);
        _stakes += msg.value;
        emit Staked(msg.sender, msg.value, n.stake);
    }

    /// @inheritdoc IWorkerHub
    function requestUnstake(uint256 amount) external guarded {
        require(amount != 0, ZeroAmount());
        _requireActive(msg.sender);
        Neuron storage n = _neurons[msg.sender];
        uint256 free = n.stake - n.locked;
        require(amount <= free, StakeLocked(amount, free));
        _leave(msg.sender, n, _u96(amount));
    }

    /// @inheritdoc IWorkerHub
    function withdraw() external guarded {
        _withdraw(msg.sender);
    }

    /// @inheritdoc IWorkerHub
    function serve(
        bytes32 modelId,
        uint96 askBase,
        uint64 askPerInput,
        uint64 askPerOutput,
        uint96 collateralMax
    ) external guarded {
        _requireActive(msg.sender);
        require(REGISTRY.active(modelId), ModelInactive(modelId));
        _requireProgram(modelId);
        uint96 staked = _neurons[msg.sender].stake;
        require(staked >= MIN_STAKE, StakeTooSmall(staked, MIN_STAKE));
        require(collateralMax >= MIN_COLLATERAL, CollateralTooSmall(collateralMax, MIN_COLLATERAL));
        Offer[] storage list = _offers[modelId];
        // Heights are one a Bitcoin block: 32 bits last for 80,000 years.
        // forge-lint: disable-next-line(unsafe-typecast)
        uint32 since = uint32(block.number);
        Offer memory offer = Offer(msg.sender, askBase, askPerInput, askPerOutput, since, collateralMax);
        uint256 place = _place[modelId][msg.sender];
        if (place == 0) {
            require(list.length < MAX_SERVERS, ModelFull(modelId, MAX_SERVERS));
            list.push(offer);
            _place[modelId][msg.sender] = list.length;
        } else {
            list[place - 1] = offer;
        }
        emit Served(modelId, msg.sender, askBase, askPerInput, askPerOutput, collateralMax);
    }

    /// @inheritdoc IWorkerHub
    function unserve(bytes32 modelId) external guarded {
        _remove(modelId, msg.sender);
    }

    /// @inheritdoc IWorkerHub
    function evict(bytes32 modelId, address neuron_) external guarded {
        uint96 staked = _neurons[neuron_].stake;
        require(staked < MIN_STAKE, StakeSuffices(neuron_, staked));
        _remove(modelId, neuron_);
    }

    /// @inheritdoc IWorkerHub
    function neuron(address neuron_) external view returns (Neuron memory) {
        return _neurons[neuron_];
    }

    /// @inheritdoc IWorkerHub
    function freeStake(address neuron_) external view returns (uint256) {
        return _neurons[neuron_].stake - _neurons[neuron_].locked;
    }

    /// @inheritdoc IWorkerHub
    function offers(bytes32 modelId) external view returns (Offer[] memory) {
        return _offers[modelId];
    }

    /// @inheritdoc IWorkerHub
    function eligible(bytes32 modelId, uint32 inputs, uint32 outputs, uint96 share, uint96 collateral)
        external
        view
        returns (address[] memory found)
    {
        Terms memory t =
            Terms(modelId, inputs, outputs, share, _collateral(share, collateral), uint64(block.number));
        Offer[] storage list = _offers[modelId];
        found = new address[](list.length);
        uint256 n;
        for (uint256 i = 0; i < list.length; ++i) {
            if (_mayServe(list[i], t)) found[n++] = list[i].neuron;
        }
        _shorten(found, n);
    }

    /// @inheritdoc IWorkerHub
    function quote(bytes32 modelId, uint32 inputs, uint32 outputs, uint8 k, uint96 collateral)
        external
        view
        returns (uint256)
    {
        Offer[] storage list = _offers[modelId];
        uint256 best = type(uint256).max;
        for (uint256 i = 0; i < list.length; ++i) {
            uint256 share = _gross(_ask(list[i], inputs, outputs));
            if (share >= best || share > type(uint96).max / 2) continue;
            // A larger share asks for more collateral, so each price is tried on everyone.
            Terms memory t = Terms(
                modelId,
                inputs,
                outputs,
                _u96(share),
                _collateral(_u96(share), collateral),
                uint64(block.number)
            );
            uint256 n;
            for (uint256 other = 0; other < list.length && n < k; ++other) {
                if (_mayServe(list[other], t)) ++n;
            }
            if (k != 0 && n == k) best = share;
        }
        return best == type(uint256).max ? 0 : best * k;
    }

    /// Draws up to `needed` neurons on these terms that no earlier draw of the job took: the lowest tickets.
    function _draw(uint256 jobId, bytes32 beacon, Terms memory t, uint256 needed)
        internal
        view
        returns (address[] memory picked)
    {
        Offer[] storage list = _offers[t.modelId];
        picked = new address[](needed);
        uint256[] memory tickets = new uint256[](needed);
        uint256 found;
        uint256 length = list.length;
        for (uint256 i = 0; i < length; ++i) {
            Offer storage offer = list[i];
            address who = offer.neuron;
            uint256 ticket = Beacon.ticket(beacon, who);
            // Most lose here, before any storage of theirs is read.
            if (found == needed && ticket >= tickets[needed - 1]) continue;
            if (!_mayServe(offer, t) || _wasDrawn(jobId, who)) continue;
            uint256 rank = found < needed ? found++ : needed - 1;
            while (rank > 0 && tickets[rank - 1] > ticket) {
                tickets[rank] = tickets[rank - 1];
                picked[rank] = picked[rank - 1];
                --rank;
            }
            tickets[rank] = ticket;
            picked[rank] = who;
        }
        _shorten(picked, found);
    }

    /// Whether an earlier draw of the job took the neuron.
    function _wasDrawn(uint256 jobId, address who) internal view virtual returns (bool);

    /// Collateral of an assignment: what the job asks, at least the minimum and at least the share.
    function _collateral(uint96 share, uint96 asked) internal view returns (uint96) {
        uint96 c = asked > MIN_COLLATERAL ? asked : MIN_COLLATERAL;
        return c > share ? c : share;
    }

    /// Takes collateral out of the neuron's free stake.
    function _lock(address who, uint96 amount) internal {
        _neurons[who].locked += amount;
    }

    /// Frees an assignment's collateral and takes `slashed` of the stake; the caller disposes of that.
    function _unlock(address who, uint96 amount, uint96 slashed) internal {
        Neuron storage n = _neurons[who];
        n.locked -= amount;
        if (slashed == 0) return;
        n.stake -= slashed;
        _stakes -= slashed;
    }

    /// @inheritdoc Payouts
    function _callBack(address who) internal override returns (uint256 amount) {
        Neuron storage n = _neurons[who];
        // Later than any draw: what is freed from here on draws it no more.
        n.since = type(uint64).max;
        amount = n.stake - n.locked;
        if (amount != 0) _leave(who, n, _u96(amount));
    }

    /// @inheritdoc Payouts
    function _withdraw(address who) internal override {
        Neuron storage n = _neurons[who];
        uint256 amount = n.unstaking;
        require(amount != 0, NothingUnstaking(who));
        require(block.number >= n.unstakeAt, UnstakeNotDue(block.number, n.unstakeAt));
        n.unstaking = 0;
        _stakes -= amount;
        emit Withdrawn(who, amount);
        _sendOrRevert(_payout(who), amount);
    }

    /// Starts the delay for free stake, and restarts it for what was leaving.
    function _leave(address who, Neuron storage n, uint96 amount) private {
        n.stake -= amount;
        n.unstaking += amount;
        n.unstakeAt = uint64(block.number) + UNSTAKE_DELAY;
        emit UnstakeRequested(who, amount, n.unstakeAt);
    }

    /// Refuses offers of a model whose jobs nobody could dispute; without an offer it has no paid job. A hub that names no
    /// verifier has no disputes, and what embeds has none yet.
    function _requireProgram(bytes32 modelId) private view {
        if (VERIFIER == address(0)) return;
        Model memory m = REGISTRY.model(modelId);
        if (m.words != 0) return;
        require(VERIFIER.code.length != 0, NoVerifier(VERIFIER));
        IPocVerifier verifier = IPocVerifier(VERIFIER);
        Program memory p = verifier.BOOK().model(m.modelRoot);
        bool fits = p.sites != address(0) && p.vocab == m.vocab && p.context >= m.context;
        require(fits && m.specVersion == verifier.SPEC(), NoProgram(modelId, m.modelRoot));
    }

    /// Whether the neuron can be drawn: price, stake and free collateral suit, and have since before the draw
    /// was opened, so that nobody enters a draw whose beacon is known.
    function _mayServe(Offer storage offer, Terms memory t) private view returns (bool) {
        if (offer.since > t.roundAt || offer.collateralMax < t.collateral) return false;
        if (_ask(offer, t.inputs, t.outputs) > _net(t.share)) return false;
        Neuron storage n = _neurons[offer.neuron];
        return n.since <= t.roundAt && n.stake >= MIN_STAKE && n.stake - n.locked >= t.collateral;
    }

    /// Wei that the neuron wants for `inputs` prompt ids and `outputs` tokens or words.
    function _ask(Offer storage offer, uint32 inputs, uint32 outputs) private view returns (uint256) {
        return
            uint256(offer.askBase) + uint256(offer.askPerInput) * inputs + uint256(offer.askPerOutput)
                * outputs;
    }

    /// Least share whose part after the protocol's is at least `net`.
    function _gross(uint256 net) private view returns (uint256 share) {
        share = net * BPS / (BPS - PROTOCOL_FEE_BPS);
        // At most one step: division rounded down.
        while (_net(share) < net) ++share;
    }

    /// Takes a neuron off a model's list; the last one takes its place.
    function _remove(bytes32 modelId, address who) private {
        uint256 place = _place[modelId][who];
        require(place != 0, NotServing(modelId, who));
        Offer[] storage list = _offers[modelId];
        uint256 last = list.length;
        if (place != last) {
            Offer memory moved = list[last - 1];
            list[place - 1] = moved;
            _place[modelId][moved.neuron] = place;
        }
        list.pop();
        delete _place[modelId][who];
        emit Unserved(modelId, who);
    }

    /// Cuts a memory array that was made too long.
    function _shorten(address[] memory array, uint256 length) private pure {
        assembly ("memory-safe") {
            mstore(array, length)
        }
    }
}
