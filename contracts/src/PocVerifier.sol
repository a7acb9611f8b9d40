// Disputes about claims of one hub: who plays, whose clock runs, whose coins move. docs/spec/poc.md, section 6.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {
    Claim,
    ClaimState,
    Game,
    GameState,
    IPocVerifier,
    JobFields,
    Node,
    OpenAsk
} from "./interfaces/IPocVerifier.sol";
import {IProgramBook, Model} from "./interfaces/IProgramBook.sol";
import {IWorkerHub, Job, Slot, SlotState} from "./interfaces/IWorkerHub.sol";
import {Blake3Node} from "./libraries/Blake3Node.sol";
import {Blob} from "./libraries/Blob.sol";
import {LongBlob} from "./libraries/LongBlob.sol";
import {Dispute} from "./base/Published.sol";
import {Leaves} from "./base/Leaves.sol";
import {Slices} from "./libraries/Slices.sol";
import {Trace} from "./libraries/Trace.sol";
import {Reader, Wire} from "./libraries/Wire.sol";

/// Whose clock runs in a game.
enum Turn {
    Challenger,
    Neuron,
    ChallengerIsOut,
    NeuronIsOut
}

/// The verifier of a hub. Every wei in it is a bond or owed to somebody.
contract PocVerifier is Leaves {
    using Wire for Reader;

    /// @inheritdoc IPocVerifier
    uint32 public constant SPEC = 0;
    /// Why a game ended without an accusation: silence, or an answer that contradicts what is public.
    uint8 public constant SILENCE = 255;
    /// See SILENCE.
    uint8 public constant CONTRADICTION = 254;

    bytes16 private constant CLAIM_TAG = "bitai/claim/v0";
    /// Most bytes of a game's answers beside the token's and the piece: levels of the tree (a third has two nodes), a unit, a
    /// row, two levels of sums.
    uint256 private constant ANSWER_BYTES = 8192 + 8192 + 64 + 256 * 65 + 8192 + 8220 + 8192;
    /// Asks of a game: the longest way down, 9 above 65,536 positions. Without an end to them a challenger could ask for one
    /// node after another until the clock of a neuron that answers each at once has run out.
    uint8 private constant ASKS_MAX = 9;
    /// What each answer takes beside its content: signature, fields, envelope.
    uint256 private constant MOVE_BYTES = uint256(ASKS_MAX) * 300;

    /// @inheritdoc IPocVerifier
    IWorkerHub public immutable HUB;
    /// @inheritdoc IPocVerifier
    uint32 public immutable CLOCK;
    /// Sets the price of a byte.
    address public immutable GOVERNOR;
    /// Most that a byte may cost.
    uint96 public immutable WEI_PER_BYTE_MAX;

    /// @inheritdoc IPocVerifier
    uint96 public weiPerByte;

    mapping(bytes32 claim => mapping(address challenger => Game)) private _games;
    uint256 private _bonds;
    uint256 private _owed;
    /// @inheritdoc IPocVerifier
    mapping(address to => uint256) public owedTo;

    /// @param hub the hub; it may be deployed later, at an address that is known before
    /// @param book programs
    /// @param clock heights on each side's clock
    /// @param governor who sets the price of a byte, up to `most`
    /// @param price the first price
    constructor(
        IWorkerHub hub,
        IProgramBook book,
        uint32 clock,
        address governor,
        uint96 price,
        uint96 most
    ) {
        require(address(hub) != address(0), BadSetting("hub"));
        require(address(book).code.length != 0, BadSetting("book"));
        require(clock != 0, BadSetting("clock"));
        require(price <= most, PriceTooHigh(price, most));
        HUB = hub;
        BOOK = book;
        CLOCK = clock;
        GOVERNOR = governor;
        WEI_PER_BYTE_MAX = most;
        weiPerByte = price;
    }

    // --- challengers come and go ---------------------------------------------------------------

    /// @inheritdoc IPocVerifier
    function open(uint256 jobId, address neuron, JobFields calldata fields, bytes calldata outputIds)
        external
        payable
        returns (bytes32 claim)
    {
        Job memory job = HUB.job(jobId);
        Slot memory slot = HUB.slot(jobId, neuron);
        require(slot.state == SlotState.Revealed, NotRevealed(jobId, neuron));
        bytes32 got = _jobHash(fields, job.maxNew);
        require(got == job.jobHash, WrongJob(got, job.jobHash));
        got = keccak256(outputIds);
        require(got == slot.outputHash, WrongOutput(got, slot.outputHash));
        require(fields.specVersion == SPEC, OtherSpec(fields.specVersion));
        Model memory m = BOOK.model(fields.modelRoot);
        require(m.sites != address(0), UnknownProgram(fields.modelRoot));
        require(
            job.words == 0 && job.vocab == m.vocab && uint256(job.inputs) + job.maxNew <= m.context,
            UnfitJob(jobId)
        );

        claim = claimId(jobId, neuron, job.jobHash, slot.traceRoot, slot.outputHash);
        require(_claims[claim].state == ClaimState.None, ClaimKnown(claim));
        // At most max_new ids, which has 32 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        uint32 outputs = uint32(outputIds.length / 4);
        _claims[claim] = Claim({
            traceRoot: slot.traceRoot,
            header: Trace.header(job.jobHash, m, job.inputs, outputs),
            modelRoot: fields.modelRoot,
            inputHash: fields.inputHash,
            jobId: jobId,
            neuron: neuron,
            prompt: job.inputs,
            positions: job.inputs + outputs - 1,
            outputs: outputs,
            outputIds: LongBlob.put(outputIds),
            live: 0,
            state: ClaimState.Disputed,
            temperatureQ16: fields.temperatureQ16,
            topK: fields.topK,
            topPQ16: fields.topPQ16,
            seed: fields.seed
        });
        emit ClaimDisputed(claim, jobId, neuron);
        _join(claim);
    }

    /// @inheritdoc IPocVerifier
    function join(bytes32 claim) external payable {
        _undecided(claim);
        _join(claim);
    }

    /// @inheritdoc IPocVerifier
    function timeout(bytes32 claim, address challenger) external {
        _undecided(claim);
        Game storage g = _playing(claim, challenger);
        (Turn turn, uint256 challengerLeft, uint256 neuronLeft) = _clocks(g);
        if (turn == Turn.NeuronIsOut) return _convict(claim, challenger, SILENCE);
        require(turn == Turn.ChallengerIsOut, ClockRuns(turn == Turn.Neuron ? neuronLeft : challengerLeft));
        _lose(claim, challenger, SILENCE);
    }

    /// @inheritdoc IPocVerifier
    function takeBack(bytes32 claim) external {
        require(_claims[claim].state == ClaimState.Convicted, NotDecided(claim));
        Game storage g = _playing(claim, msg.sender);
        g.state = GameState.Won;
        _owe(msg.sender, g.bond);
    }

    /// @inheritdoc IPocVerifier
    function withdraw() external {
        uint256 amount = owedTo[msg.sender];
        require(amount != 0, NothingOwed(msg.sender));
        owedTo[msg.sender] = 0;
        _owed -= amount;
        emit Withdrawn(msg.sender, amount);
        (bool ok,) = msg.sender.call{value: amount}("");
        require(ok, TransferRefused(msg.sender, amount));
    }

    /// @inheritdoc IPocVerifier
    function setBytePrice(uint96 price) external {
        require(msg.sender == GOVERNOR, NotGovernor(msg.sender));
        require(price <= WEI_PER_BYTE_MAX, PriceTooHigh(price, WEI_PER_BYTE_MAX));
        weiPerByte = price;
        emit BytePriceSet(price);
    }

    // --- moves ---------------------------------------------------------------------------------

    /// @inheritdoc IPocVerifier
    function ask(bytes32 claim, bytes calldata move) external returns (bytes32 id) {
        _undecided(claim);
        Game storage g = _toMove(claim, msg.sender);
        require(g.asks < ASKS_MAX, TooManyAsks(ASKS_MAX));
        Reader memory r = Wire.open(move);
        bytes32 to = r.hash();
        bytes20 words = bytes20(Wire.wordAt(r.skip(20)));
        r.done();

        Dispute memory d = _dispute(claim);
        bytes20 above = _above(d, words);
        bytes32 expected = above == 0 ? claim : _nodes[claim][above].id;
        require(expected != 0, NotPublished(above));
        require(to == expected, OtherAnswer(to, expected));
        require(!_isPublished(claim, words), Published(words));

        id = Blake3Node.hashTagged(ASK_TAG, r.spot - 52, 52);
        OpenAsk storage a = _asks[id];
        if (a.claim == 0) (a.claim, a.words, a.asker) = (claim, words, msg.sender);
        g.waiting = id;
        ++g.asks;
        emit Asked(claim, id, to, words, msg.sender);
    }

    /// @inheritdoc IPocVerifier
    function answer(bytes calldata move) external returns (bytes32 id) {
        Reader memory r = Wire.open(move);
        uint256 start = r.spot;
        bytes32 askId = r.hash();
        OpenAsk storage a = _asks[askId];
        bytes32 claim = a.claim;
        require(claim != 0 && a.answeredAt == 0, NotAsked(askId));
        _undecided(claim);
        Dispute memory d = _dispute(claim);
        require(msg.sender == d.claim.neuron, NotTheNeuron(msg.sender));

        bytes20 words = a.words;
        bool contradiction = _check(d, words, r);
        id = Blake3Node.hashTagged(ANSWER_TAG, start, move.length);
        address content = Blob.put(move[32:]);
        _nodes[claim][words] = Node(id, content);
        a.answeredAt = uint64(block.number);
        emit Answered(claim, askId, id, content);
        if (contradiction) _convict(claim, a.asker, CONTRADICTION);
    }

    /// @inheritdoc IPocVerifier
    function accuse(bytes32 claim, bytes calldata move) external {
        _undecided(claim);
        _toMove(claim, msg.sender);
        Reader memory r = Wire.open(move);
        bytes32 to = r.hash();
        (uint8 kind, bool right) = _execute(_dispute(claim), to, r);
        if (right) _lose(claim, msg.sender, kind);
        else _convict(claim, msg.sender, kind);
    }

    // --- views ---------------------------------------------------------------------------------

    /// @inheritdoc IPocVerifier
    function bond(bytes32 modelRoot) public view returns (uint256) {
        Model memory m = BOOK.model(modelRoot);
        uint256 token = 103 + 97 * uint256(m.layers);
        // The longest row has the longest pieces. No row of another kind is longer than all of int32, but a cached one.
        uint256 row = m.rowBytes;
        if (m.kvHeads != 0 && Trace.kvLength(m) > row) row = Trace.kvLength(m);
        return (ANSWER_BYTES + Slices.pieceLength(row) + MOVE_BYTES + token) * weiPerByte;
    }

    /// @inheritdoc IPocVerifier
    function claimOf(bytes32 claim) external view returns (Claim memory) {
        return _claims[claim];
    }

    /// @inheritdoc IPocVerifier
    function game(bytes32 claim, address challenger) external view returns (Game memory) {
        return _games[claim][challenger];
    }

    /// @inheritdoc IPocVerifier
    function node(bytes32 claim, bytes20 words) external view returns (Node memory) {
        return _nodes[claim][words];
    }

    /// @inheritdoc IPocVerifier
    function askOf(bytes32 id) external view returns (OpenAsk memory) {
        return _asks[id];
    }

    /// @inheritdoc IPocVerifier
    function totals() external view returns (uint256 bonds, uint256 owed) {
        return (_bonds, _owed);
    }

    /// @inheritdoc IPocVerifier
    function claimId(uint256 jobId, address neuron, bytes32 jobHash, bytes32 traceRoot, bytes32 outputHash)
        public
        view
        returns (bytes32)
    {
        uint256 chain = Blake3Node.swap(block.chainid & 0xffffffff) << 32
            | Blake3Node.swap(block.chainid >> 32 & 0xffffffff);
        // Two words of 32 bits.
        // forge-lint: disable-next-item(unsafe-typecast)
        return Blake3Node.hash(
            abi.encodePacked(
                CLAIM_TAG, uint64(chain), address(HUB), jobId, neuron, jobHash, traceRoot, outputHash
            )
        );
    }

    // --- inside --------------------------------------------------------------------------------

    function _undecided(bytes32 claim) private view {
        ClaimState state = _claims[claim].state;
        require(state != ClaimState.None, UnknownClaim(claim));
        require(state == ClaimState.Disputed, Decided(claim));
    }

    /// A challenger's game that goes on.
    function _playing(bytes32 claim, address challenger) private view returns (Game storage g) {
        g = _games[claim][challenger];
        require(g.state == GameState.Playing, NoGame(claim, challenger));
    }

    /// Opens the caller's game; the hub blocks payment while there is any.
    function _join(bytes32 claim) private {
        Claim storage c = _claims[claim];
        Game storage g = _games[claim][msg.sender];
        require(g.state == GameState.None, HadItsGame(claim, msg.sender));
        uint256 expected = bond(c.modelRoot);
        require(msg.value == expected, WrongBond(msg.value, expected));
        g.bond = _u96(msg.value);
        g.challengerLeft = CLOCK;
        g.neuronLeft = CLOCK;
        g.since = uint64(block.number);
        g.state = GameState.Playing;
        _bonds += msg.value;
        emit GameOpened(claim, msg.sender, msg.value);
        // A hub whose claims have windows of their own tells by the slot.
        require(HUB.slot(c.jobId, c.neuron).state == SlotState.Revealed, NotRevealed(c.jobId, c.neuron));
        // The hub knows the window.
        if (c.live++ == 0) {
            HUB.openDispute(c.jobId);
        } else {
            uint64 deadline = HUB.job(c.jobId).deadline;
            require(block.number <= deadline, WindowOver(block.number, deadline));
        }
    }

    /// Both clocks now and whose runs. An answer that came late counts for the tree, but not for the clock.
    function _clocks(Game storage g)
        private
        view
        returns (Turn turn, uint256 challengerLeft, uint256 neuronLeft)
    {
        (challengerLeft, neuronLeft) = (g.challengerLeft, g.neuronLeft);
        uint256 since = g.since;
        uint256 used;
        if (g.waiting != 0) {
            uint256 spot = _asks[g.waiting].answeredAt;
            used = (spot == 0 ? block.number : spot) - since;
            if (used > neuronLeft) return (Turn.NeuronIsOut, challengerLeft, 0);
            neuronLeft -= used;
            if (spot == 0) return (Turn.Neuron, challengerLeft, neuronLeft);
            since = spot;
        }
        used = block.number - since;
        if (used > challengerLeft) return (Turn.ChallengerIsOut, 0, neuronLeft);
        return (Turn.Challenger, challengerLeft - used, neuronLeft);
    }

    /// The caller's game, if it is its turn; sets its clock.
    function _toMove(bytes32 claim, address challenger) private returns (Game storage g) {
        g = _playing(claim, challenger);
        (Turn turn, uint256 challengerLeft, uint256 neuronLeft) = _clocks(g);
        require(turn != Turn.NeuronIsOut, ClockRanOut(_claims[claim].neuron));
        require(turn != Turn.ChallengerIsOut, ClockRanOut(challenger));
        require(turn == Turn.Challenger, AnswerOwed(g.waiting));
        // Both are at most CLOCK.
        // forge-lint: disable-next-item(unsafe-typecast)
        (g.challengerLeft, g.neuronLeft) = (uint32(challengerLeft), uint32(neuronLeft));
        g.since = uint64(block.number);
        g.waiting = 0;
    }

    /// Ends one game: the bond pays the neuron for its answers.
    function _lose(bytes32 claim, address challenger, uint8 by) private {
        Claim storage c = _claims[claim];
        Game storage g = _games[claim][challenger];
        g.state = GameState.Lost;
        _owe(c.neuron, g.bond);
        emit GameLost(claim, challenger, by);
        if (--c.live == 0) HUB.closeDispute(c.jobId);
    }

    /// Ends all games. The collateral's free half goes to whose move or clock convicted.
    function _convict(bytes32 claim, address challenger, uint8 by) private {
        Claim storage c = _claims[claim];
        c.state = ClaimState.Convicted;
        c.live = 0;
        emit ClaimConvicted(claim, challenger, by);
        HUB.convict(c.jobId, c.neuron, challenger);
        HUB.closeDispute(c.jobId);
    }

    /// Turns a bond into something owed.
    function _owe(address to, uint256 amount) private {
        _bonds -= amount;
        _owed += amount;
        owedTo[to] += amount;
    }

    function _jobHash(JobFields calldata f, uint32 maxNew) private pure returns (bytes32) {
        return keccak256(
            abi.encode(
                f.modelRoot,
                f.specVersion,
                f.inputHash,
                maxNew,
                f.stopHash,
                f.temperatureQ16,
                f.topK,
                f.topPQ16,
                f.seed
            )
        );
    }

    function _u96(uint256 x) private pure returns (uint96) {
        require(x <= type(uint96).max, WrongBond(x, type(uint96).max));
        // Checked in the line above.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint96(x);
    }
}
