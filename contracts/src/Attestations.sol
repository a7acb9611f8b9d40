// What validators say about answered jobs, who may ask them for it, and what it costs to have said it unseen.
// docs/spec/validators.md.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {
    Ask,
    Attestation,
    AttestationState,
    Entry,
    IAttestations,
    Settings
} from "./interfaces/IAttestations.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {IPocVerifier} from "./interfaces/IPocVerifier.sol";
import {Model} from "./interfaces/IProgramBook.sol";
import {IWorkerHub, Job, JobStatus, Slot, SlotState} from "./interfaces/IWorkerHub.sol";
import {AttestTree} from "./libraries/AttestTree.sol";
import {Blake3Node} from "./libraries/Blake3Node.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Slices} from "./libraries/Slices.sol";
import {Trace} from "./libraries/Trace.sol";
import {Reader, Wire} from "./libraries/Wire.sol";
import {Seat, Validators} from "./base/Validators.sol";

/// Where a chunk lies and what it is keyed with.
struct Pick {
    bytes32 key;
    uint256 token;
    uint256 layer;
    uint256 chunk;
}

/// Attestations, asks and openings.
contract Attestations is Validators {
    using Wire for Reader;

    /// Chunks of an entry.
    uint8 public constant PICKS = 4;
    /// Bytes of the longest opening, its transaction around it.
    uint256 public constant OPENING_BYTES = 4500;

    bytes16 private constant KEY_TAG = "bitai/key/v0";

    mapping(uint64 epoch => mapping(address validator => Attestation)) private _attestations;
    mapping(uint256 jobId => mapping(address validator => Entry)) private _entries;
    mapping(uint256 jobId => mapping(address validator => Ask)) private _asks;

    /// @param hub the hub whose jobs are attested
    /// @param registry its models
    /// @param verifier the verifier of exposed claims: its hub is this contract, whose address is known before
    /// @param s windows, parts and minimums
    constructor(IWorkerHub hub, IModelRegistry registry, IPocVerifier verifier, Settings memory s)
        Validators(hub, registry, verifier, s)
    {}

    // --- attesting -----------------------------------------------------------------------------

    /// @inheritdoc IAttestations
    function attest(uint64 epoch, bytes32 header, uint256 jobId, bytes32 root, bytes calldata none_)
        external
    {
        require(root != 0 || none_.length != 0, EmptyRoot());
        Seat memory seat = _requireDrawn(jobId, msg.sender);
        require(seat.epoch == epoch, OtherEpoch(jobId, seat.epoch, epoch));
        _requireAttesting(epoch, header);
        Attestation storage a = _attestations[epoch][msg.sender];
        require(a.state == AttestationState.None, WrongState(epoch, msg.sender, a.state));
        (a.root, a.state) = (root, AttestationState.Standing);
        emit Attested(epoch, msg.sender, root);
        _list(epoch, none_);
    }

    /// @inheritdoc IAttestations
    function none(uint64 epoch, bytes32 header, bytes calldata jobs) external {
        _requireAttesting(epoch, header);
        _requireState(epoch, msg.sender, AttestationState.Standing);
        _list(epoch, jobs);
    }

    /// @inheritdoc IAttestations
    function absent(address validator, uint256 jobId) external {
        Seat memory seat = _askable(validator, jobId);
        _requireState(seat.epoch, validator, AttestationState.None);
        _fail(seat.epoch, validator, MISS_BPS, msg.sender);
    }

    // --- asking and opening --------------------------------------------------------------------

    /// @inheritdoc IAttestations
    function ask(address validator, uint256 jobId) external payable {
        Seat memory seat = _askable(validator, jobId);
        _requireState(seat.epoch, validator, AttestationState.Standing);
        _requireAttested(seat.epoch, jobId, validator);
        uint256 bond = askBond();
        require(msg.value == bond, WrongBond(msg.value, bond));
        require(!_asks[jobId][validator].known, AskedBefore(jobId, validator));
        uint64 openBy = _queue(validator);
        _asks[jobId][validator] = Ask(msg.sender, _u96(bond), openBy, true);
        _bonds += bond;
        // An opening at the last height for it has to be convictable as long as any.
        Attestation storage a = _attestations[seat.epoch][validator];
        if (openBy + _convictable() > a.clearFrom) a.clearFrom = openBy + _convictable();
        emit Asked(jobId, validator, msg.sender, _pickFor(seat, validator), openBy);
    }

    /// @inheritdoc IAttestations
    function open(uint256 jobId, bytes calldata opening) external {
        Ask storage q = _waiting(jobId, msg.sender);
        _requireInside(0, q.openBy);
        Seat memory seat = _seat(jobId);
        _requireState(seat.epoch, msg.sender, AttestationState.Standing);
        bytes32 root = _attestations[seat.epoch][msg.sender].root;
        Slot memory s = _check(seat, root, _pickFor(seat, msg.sender), opening);
        Entry storage e = _entries[jobId][msg.sender];
        e.disputeBy = uint64(block.number) + DISPUTE_WINDOW;
        (e.traceRoot, e.outputHash) = (s.traceRoot, s.outputHash);
        _end(q, msg.sender, msg.sender);
        _bind(msg.sender);
        emit Opened(jobId, msg.sender, s.traceRoot, e.disputeBy);
    }

    /// @inheritdoc IAttestations
    function expire(address validator, uint256 jobId) external {
        Ask storage q = _waiting(jobId, validator);
        uint64 epoch = _epochOf(jobId);
        (address asker, uint64 openBy) = (q.asker, q.openBy);
        _end(q, validator, asker);
        if (_attestations[epoch][validator].state == AttestationState.Failed) return;
        _requireInside(uint256(openBy) + 1, type(uint256).max);
        _fail(epoch, validator, FAULT_BPS, asker);
    }

    // --- pay -----------------------------------------------------------------------------------

    /// @inheritdoc IAttestations
    function claim(bytes calldata jobs) external {
        Reader memory r = Wire.open(jobs);
        uint256 left = r.rest(4);
        require(left != 0, ZeroAmount());
        for (; left > 0; --left) {
            _reward(r.u32());
        }
    }

    /// @inheritdoc IAttestations
    function collect() external {
        HUB.claim();
    }

    // --- towards the verifier ------------------------------------------------------------------

    /// @inheritdoc IAttestations
    function job(uint256 jobId) external view returns (Job memory j) {
        j = HUB.job(jobId);
        // Windows are those of the claims: `slot` knows them.
        j.deadline = type(uint64).max;
    }

    /// @inheritdoc IAttestations
    function slot(uint256 jobId, address validator) external view returns (Slot memory s) {
        // A validator that failed elsewhere still has to answer.
        Entry storage e = _entries[jobId][validator];
        if (e.disputeBy == 0 || block.number > e.disputeBy) return s;
        s = Slot(validator, SlotState.Revealed, 0, e.traceRoot, e.outputHash);
    }

    /// @inheritdoc IAttestations
    function openDispute(uint256) external view {
        require(msg.sender == address(VERIFIER), NotVerifier(msg.sender));
    }

    /// @inheritdoc IAttestations
    function closeDispute(uint256) external view {
        require(msg.sender == address(VERIFIER), NotVerifier(msg.sender));
    }

    /// @inheritdoc IAttestations
    function convict(uint256 jobId, address validator, address challenger) external {
        require(msg.sender == address(VERIFIER), NotVerifier(msg.sender));
        uint64 epoch = _epochOf(jobId);
        Attestation storage a = _attestations[epoch][validator];
        // A second conviction of an epoch costs nothing more, but its game ends. Silence before it hides none.
        if (a.convicted) return;
        a.convicted = true;
        _fail(epoch, validator, FAULT_BPS, challenger);
    }

    // --- views ---------------------------------------------------------------------------------

    /// @inheritdoc IAttestations
    function askBond() public view returns (uint256) {
        return OPENING_BYTES * VERIFIER.weiPerByte();
    }

    /// @inheritdoc IAttestations
    function pay(uint256 jobId) external view returns (uint256) {
        Job memory j = HUB.job(jobId);
        require(j.status == JobStatus.Settled, NotSettled(jobId));
        return _pay(jobId, j);
    }

    /// @inheritdoc IAttestations
    function pickOf(uint256 jobId, address validator) external view returns (uint8) {
        return _pickFor(_seat(jobId), validator);
    }

    /// @inheritdoc IAttestations
    function attestationOf(uint64 epoch, address validator) external view returns (Attestation memory) {
        return _attestations[epoch][validator];
    }

    /// @inheritdoc IAttestations
    function entryOf(uint256 jobId, address validator) external view returns (Entry memory) {
        return _entries[jobId][validator];
    }

    /// @inheritdoc IAttestations
    function askOf(uint256 jobId, address validator) external view returns (Ask memory) {
        return _asks[jobId][validator];
    }

    // --- inside --------------------------------------------------------------------------------

    function _requireInside(uint256 first, uint256 last) private view {
        require(block.number >= first && block.number <= last, OutsideWindow(block.number, first, last));
    }

    function _requireState(uint64 epoch, address validator, AttestationState wanted) private view {
        AttestationState state = _attestations[epoch][validator].state;
        require(state == wanted, WrongState(epoch, validator, state));
    }

    /// The epoch of an answered job.
    function _epochOf(uint256 jobId) private view returns (uint64) {
        return HUB.job(jobId).answeredAt / EPOCH;
    }

    /// A job that the validator was drawn for, while its epoch may be asked about.
    function _askable(address validator, uint256 jobId) private view returns (Seat memory seat) {
        seat = _requireDrawn(jobId, validator);
        (, uint256 attestBy, uint256 last,) = windows(seat.epoch);
        _requireInside(attestBy + 1, last);
    }

    /// An ask that waits.
    function _waiting(uint256 jobId, address validator) private view returns (Ask storage q) {
        q = _asks[jobId][validator];
        require(q.openBy != 0, NotAsked(jobId, validator));
    }

    /// Ends an ask; its bond goes to `to`.
    function _end(Ask storage q, address validator, address to) private {
        uint96 bond = q.bond;
        (q.bond, q.openBy) = (0, 0);
        _bonds -= bond;
        _unqueue(validator);
        _owe(to, bond);
    }

    /// Voids an attestation and slashes for it.
    function _fail(uint64 epoch, address validator, uint256 bps, address beneficiary) private {
        _attestations[epoch][validator].state = AttestationState.Failed;
        _slash(epoch, validator, bps, beneficiary);
    }

    /// Refuses what is not said while an epoch can be attested, or was made with another header.
    function _requireAttesting(uint64 epoch, bytes32 header) private view {
        (uint256 first, uint256 last,,) = windows(epoch);
        bytes32 expected = _header(first);
        require(expected == header, OtherHeader(header, expected));
        _requireInside(first, last);
    }

    /// Refuses a job of which the validator said in its epoch that it attests no answer.
    function _requireAttested(uint64 epoch, uint256 jobId, address validator) private view {
        require(_entries[jobId][validator].noneIn != epoch + 1, SaidNone(jobId, validator));
    }

    /// Notes jobs of which the caller attests no answer. What it says in another epoch than the job's changes nothing.
    function _list(uint64 epoch, bytes calldata jobs) private {
        Reader memory r = Wire.open(jobs);
        for (uint256 left = r.rest(4); left > 0; --left) {
            uint256 id = r.u32();
            Entry storage e = _entries[id][msg.sender];
            require(e.noneIn != epoch + 1, ListedBefore(id, msg.sender));
            e.noneIn = epoch + 1;
            emit NoneHolds(id, msg.sender);
        }
    }

    /// The chunk that an ask about an entry is about. Nobody who asks, or is asked, chooses it.
    function _pickFor(Seat memory seat, address validator) private view returns (uint8) {
        (, uint256 attestBy,,) = windows(seat.epoch);
        bytes32 x = keccak256(abi.encode(_header(attestBy + 1), seat.jobId, validator));
        // Below four.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint8(uint256(x) % PICKS);
    }

    /// Wei that each validator drawn for a settled job gets.
    function _pay(uint256 jobId, Job memory j) private view returns (uint256) {
        Slot[] memory slots = HUB.assigned(jobId);
        uint256 paid;
        for (uint256 i = 0; i < slots.length; ++i) {
            if (slots[i].state == SlotState.Paid) ++paid;
        }
        return _cut(j) * paid / SEATS;
    }

    /// Makes the caller's pay for a job due, if it is settled.
    function _reward(uint256 jobId) private {
        Seat memory seat = _requireDrawn(jobId, msg.sender);
        if (seat.job.status != JobStatus.Settled) return;
        (,,, uint256 from) = windows(seat.epoch);
        _requireInside(from, type(uint256).max);
        _requireState(seat.epoch, msg.sender, AttestationState.Standing);
        _requireAttested(seat.epoch, jobId, msg.sender);
        Attestation storage a = _attestations[seat.epoch][msg.sender];
        require(a.root != 0, EmptyRoot());
        require(block.number >= a.clearFrom, NotClear(a.clearFrom));
        require(_asks[jobId][msg.sender].openBy == 0, AskWaits(jobId, msg.sender));
        Entry storage e = _entries[jobId][msg.sender];
        require(!e.paid, PaidBefore(jobId, msg.sender));
        e.paid = true;
        uint256 amount = _pay(jobId, seat.job);
        require(amount <= reserve(), ReserveTooSmall(reserve(), amount));
        emit Rewarded(jobId, msg.sender, amount);
        _owe(msg.sender, amount);
    }

    /// Reads an opening and checks it against the attested root; returns the answer that the entry names.
    function _check(Seat memory seat, bytes32 root, uint8 pick, bytes calldata opening)
        private
        view
        returns (Slot memory s)
    {
        Reader memory r = Wire.open(opening);
        s = _answer(r, seat.jobId);
        uint32 outputs = r.u32();
        require(outputs != 0 && outputs <= seat.job.maxNew, BadOutputs(outputs, seat.job.maxNew));
        uint256 hashes = r.skip(32 * uint256(PICKS));
        bytes32 got = Blake3Node.hashCalldata(hashes, 32 * uint256(PICKS));
        got = AttestTree.leaf(outputs, s.traceRoot, s.outputHash, got);
        got = AttestTree.climb(r, seat.jobId, got);
        require(got == root, WrongRoot(got, root));

        bytes32 keyed;
        (got, keyed) = _open(r, seat, pick, outputs);
        r.done();
        require(got == s.traceRoot, WrongTrace(got, s.traceRoot));
        require(keyed == Wire.wordAt(hashes + 32 * uint256(pick)), WrongDigest(pick));
    }

    /// The answer of the neuron that an entry names.
    function _answer(Reader memory r, uint256 jobId) private view returns (Slot memory s) {
        address neuron = address(uint160(uint256(Wire.wordAt(r.skip(20))) >> 96));
        s = HUB.slot(jobId, neuron);
        require(s.traceRoot != 0, NoSuchAnswer(jobId, neuron));
    }

    /// The trace root that an opened chunk leads to, and the chunk's keyed hash.
    function _open(Reader memory r, Seat memory seat, uint8 pick, uint32 outputs)
        private
        view
        returns (bytes32 root, bytes32 keyed)
    {
        Model memory m = BOOK.model(REGISTRY.model(seat.job.modelId).modelRoot);
        uint256 positions = uint256(seat.job.inputs) + outputs - 1;
        bytes32 tree;
        (tree, keyed) = _climb(r, _pick(seat, pick, positions, m), positions, m);
        root = Trace.root(Trace.header(seat.job.jobHash, m, seat.job.inputs, outputs), positions, tree);
    }

    /// The chunk that a validator has to hash.
    function _pick(Seat memory seat, uint8 pick, uint256 positions, Model memory m)
        private
        view
        returns (Pick memory p)
    {
        p.key = keccak256(
            abi.encode(KEY_TAG, block.chainid, address(this), msg.sender, seat.jobId, seat.header)
        );
        uint256 x = uint256(keccak256(abi.encode(p.key, pick)));
        // The first lies at the end of everything, so that nearly everything has to be computed.
        p.token = pick == 0 ? positions - 1 : (x >> 192) % positions;
        p.layer = pick == 0 ? m.layers - 1 : (x >> 128 & type(uint64).max) % m.layers;
        p.chunk = (x >> 64 & type(uint64).max) % ((Trace.kvLength(m) + Slices.CHUNK - 1) / Slices.CHUNK);
    }

    /// From a chunk up to the tree over the tokens; the chunk's keyed hash beside it. What lies above comes first.
    function _climb(Reader memory r, Pick memory p, uint256 positions, Model memory m)
        private
        view
        returns (bytes32 tree, bytes32 keyed)
    {
        bytes32 body = r.hash();
        bool samples = r.flag();
        tree = Trace.token(p.token, body, samples, samples ? r.u32() : 0);
        tree = Merkle.climb(r, positions, p.token, tree);
        bytes32 kv = r.hash();
        bytes32 got = Merkle.climb(r, m.layers, p.layer, _layer(r, p, kv));
        require(got == body, WrongTrace(got, body));
        (uint256 spot, uint256 len) = Slices.chunk(r, kv, Trace.kvLength(m), p.chunk);
        keyed = Blake3Node.keyed(p.key, spot, len);
    }

    /// The leaf of a token's layer.
    function _layer(Reader memory r, Pick memory p, bytes32 kv) private view returns (bytes32) {
        bool out = r.flag();
        return Trace.leaf(p.token, p.layer, kv, out, out ? r.hash() : bytes32(0));
    }
}
