// The contract that plays disputes: types, events, errors and functions.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IProgramBook} from "./IProgramBook.sol";
import {IWorkerHub} from "./IWorkerHub.sol";

/// The fields of a job's hash that the hub does not keep.
struct JobFields {
    /// Root of the model's pack.
    bytes32 modelRoot;
    /// Tensor spec of the answer.
    uint32 specVersion;
    /// BLAKE3 of the prompt ids.
    bytes32 inputHash;
    /// keccak256 of the stop ids.
    bytes32 stopHash;
    /// 0 = greedy, else the temperature in Q16.
    uint32 temperatureQ16;
    /// Ids kept, 0 = all.
    uint32 topK;
    /// Mass kept in Q16.
    uint32 topPQ16;
    /// Seed of the draws.
    uint64 seed;
}

/// Where a claim stands.
enum ClaimState {
    /// Nobody disputed it.
    None,
    /// Disputed at least once; it stands when no game goes on and none can be opened.
    Disputed,
    /// Convicted.
    Convicted
}

/// What one neuron revealed for one job.
struct Claim {
    /// Revealed trace root.
    bytes32 traceRoot;
    /// Hash of the trace's header, which follows from job and program.
    bytes32 header;
    /// The model.
    bytes32 modelRoot;
    /// BLAKE3 of the prompt ids.
    bytes32 inputHash;
    /// The job's number on the hub.
    uint256 jobId;
    /// Whose claim it is.
    address neuron;
    /// Prompt ids.
    uint32 prompt;
    /// Positions of the trace.
    uint32 positions;
    /// Output ids.
    uint32 outputs;
    /// Where the output ids are kept (`LongBlob`).
    address outputIds;
    /// Games that go on.
    uint32 live;
    /// Where the claim stands.
    ClaimState state;
    /// 0 = greedy.
    uint32 temperatureQ16;
    /// Sampler.
    uint32 topK;
    /// Sampler.
    uint32 topPQ16;
    /// Sampler.
    uint64 seed;
}

/// A published answer.
struct Node {
    /// The answer's id.
    bytes32 id;
    /// Its content.
    address content;
}

/// An ask.
struct OpenAsk {
    /// The claim.
    bytes32 claim;
    /// The ask's five words, little-endian.
    bytes20 words;
    /// Height of the answer; 0 while it is owed.
    uint64 answeredAt;
    /// Who asked first: convicts where the answer contradicts itself.
    address asker;
}

/// Where a challenger's game stands.
enum GameState {
    /// It has none.
    None,
    /// It goes on.
    Playing,
    /// The challenger lost.
    Lost,
    /// The claim was convicted, and the bond given back.
    Won
}

/// One challenger's game about one claim.
struct Game {
    /// Wei that it put up.
    uint96 bond;
    /// Heights left on the challenger's clock when `since` was set.
    uint32 challengerLeft;
    /// Heights left on the neuron's.
    uint32 neuronLeft;
    /// Height since which one of the clocks runs.
    uint64 since;
    /// Where it stands.
    GameState state;
    /// Asks that were made in it.
    uint8 asks;
    /// The ask that it waits for; 0 where the challenger is to move.
    bytes32 waiting;
}

/// Disputes about claims of one hub. A challenger walks down what the neuron committed to, to one integer step, which the
/// contract executes. docs/spec/poc.md, section 6, is the rule book.
interface IPocVerifier {
    /// A claim is disputed for the first time.
    event ClaimDisputed(bytes32 indexed claim, uint256 indexed jobId, address indexed neuron);
    /// A challenger opened a game.
    event GameOpened(bytes32 indexed claim, address indexed challenger, uint256 bond);
    /// A challenger waits for the answer to an ask.
    event Asked(bytes32 indexed claim, bytes32 indexed ask, bytes32 to, bytes20 words, address challenger);
    /// The neuron answered; the content is the code of `content` behind its first byte.
    event Answered(bytes32 indexed claim, bytes32 indexed ask, bytes32 answer, address content);
    /// A challenger lost: it accused a right step (its kind), or fell silent (255).
    event GameLost(bytes32 indexed claim, address indexed challenger, uint8 by);
    /// The claim is convicted: by an accusation (its kind), silence (255), or an answer that contradicts itself (254).
    event ClaimConvicted(bytes32 indexed claim, address indexed challenger, uint8 by);
    /// Coins left.
    event Withdrawn(address indexed to, uint256 amount);
    /// The price of a byte changed.
    event BytePriceSet(uint96 weiPerByte);

    /// Thrown when something given to the constructor makes no sense; `field` names it.
    error BadSetting(string field);
    /// Thrown when the governor's price exceeds what the contract was made with.
    error PriceTooHigh(uint96 weiPerByte, uint96 max);
    /// Thrown when somebody else than the governor sets the price.
    error NotGovernor(address caller);
    /// Thrown when the neuron has revealed nothing for the job, or is out of it.
    error NotRevealed(uint256 jobId, address neuron);
    /// Thrown when the fields do not give the job's hash.
    error WrongJob(bytes32 got, bytes32 expected);
    /// Thrown when the output ids are not those that were revealed.
    error WrongOutput(bytes32 got, bytes32 expected);
    /// Thrown when the job follows another tensor spec than this contract executes.
    error OtherSpec(uint32 specVersion);
    /// Thrown when the job's program is not in the book of programs.
    error UnknownProgram(bytes32 modelRoot);
    /// Thrown when the job does not fit the model: another vocabulary, more ids than its context, or it embeds.
    error UnfitJob(uint256 jobId);
    /// Thrown when the claim was never disputed.
    error UnknownClaim(bytes32 claim);
    /// Thrown when the claim is disputed already: join instead.
    error ClaimKnown(bytes32 claim);
    /// Thrown when the claim is convicted.
    error Decided(bytes32 claim);
    /// Thrown when the claim is not convicted.
    error NotDecided(bytes32 claim);
    /// Thrown when another amount than the bond is sent.
    error WrongBond(uint256 got, uint256 expected);
    /// Thrown when a challenger wants a second game about a claim.
    error HadItsGame(bytes32 claim, address challenger);
    /// Thrown when the caller has no game about the claim that goes on.
    error NoGame(bytes32 claim, address challenger);
    /// Thrown when the window for new challengers is over.
    error WindowOver(uint256 height, uint256 deadline);
    /// Thrown when a challenger asks while an answer is owed to it.
    error AnswerOwed(bytes32 ask);
    /// Thrown when a side moves whose clock has run out.
    error ClockRanOut(address side);
    /// Thrown when a game is to be ended by its clock, which still runs.
    error ClockRuns(uint256 left);
    /// Thrown when a move names another answer than the published one: a replay, or a race lost.
    error OtherAnswer(bytes32 got, bytes32 published);
    /// Thrown when what a move builds on is not published.
    error NotPublished(bytes20 words);
    /// Thrown when what is asked is published already.
    error Published(bytes20 words);
    /// Thrown when a game asks for more than the longest way down needs: each ask takes of the neuron's clock and coins.
    error TooManyAsks(uint256 most);
    /// Thrown when nobody asked this, or it is answered.
    error NotAsked(bytes32 ask);
    /// Thrown when somebody else than the neuron answers.
    error NotTheNeuron(address caller);
    /// Thrown when an ask is of a kind that there is not, or that this contract does not play.
    error NoSuchAsk(uint32 kind);
    /// Thrown when an ask sets a word that its kind leaves 0.
    error UnusedWord(uint256 index, uint32 got);
    /// Thrown when the height is none that a move of the game goes down from.
    error NotALevel(uint32 height);
    /// Thrown when an index is outside the trace, program or row.
    error OutsideRange(uint256 got, uint256 count);
    /// Thrown when an ask or accusation does not fit the site's op.
    error WrongOp(uint32 site, uint32 op);
    /// Thrown when a row of one piece is asked for its pieces.
    error OnePiece(uint32 site);
    /// Thrown when a side is asked for that a row does not have.
    error NoSuchSide(uint32 site, uint32 side);
    /// Thrown when nodes fold to another node than the published one, or to another trace root.
    error OtherTree(bytes32 got);
    /// Thrown when a token's rows do not lead to its body.
    error OtherBody(bytes32 got);
    /// Thrown when an answer has another number of items than its ask's place.
    error ItemCount(uint256 got, uint256 expected);
    /// Thrown when sites give another root than the unit's.
    error OtherUnit(bytes32 got);
    /// Thrown when chaining values give another hash than the row's.
    error OtherRow(bytes32 got);
    /// Thrown when a piece is not the published one.
    error OtherPiece(bytes32 got);
    /// Thrown when an RMS norm's largest magnitude has more than 32 bits.
    error MagnitudeTooLarge(uint64 got);
    /// Thrown when a published maximum lies outside its group, or its key is not visible.
    error MaximumOutside(uint256 index);
    /// Thrown when two maxima of a group are published and nothing is transformed.
    error TwoMaxima();
    /// Thrown when parts of the keys do not give the published element.
    error OtherElement();
    /// Thrown when keys, or ids of a draw, do not add up to their part.
    error OtherSums(uint256 part);
    /// Thrown when a draw's thresholds cut elsewhere than the job says (1), or the sampled id's interval does not hold the
    /// draw (2).
    error OtherDraw(uint8 why);
    /// Thrown when an opened key does not lead to the claimed trace root.
    error WrongKey(uint32 key);
    /// Thrown when the opened key is not the one that attains the published maximum.
    error OtherKey(uint256 got, uint256 expected);
    /// Thrown when the opened logit is not that of the id in question.
    error OtherId(uint256 got, uint256 expected);
    /// Thrown when the key of a unit is accused and no unit is published.
    error NoUnit(uint256 side);
    /// Thrown when a commitment is of a kind that there is not.
    error BadCommitment(uint256 kind);
    /// Thrown when an input of another unit comes without its path.
    error PathMissing(uint32 site);
    /// Thrown when an input's path ends in another root than its unit's.
    error WrongInput(uint32 site);
    /// Thrown when an input's commitment is of another kind than the program's.
    error InputKind(uint32 site, uint256 kind);
    /// Thrown when a tensor's path ends in another model root.
    error WrongTensor(uint32 tensor);
    /// Thrown when a tensor is of another type or shape than the site reads.
    error TensorShape(uint32 tensor);
    /// Thrown when multipliers, a bias a tensor or an id of the prompt are there that the step does not read, or missing.
    error OpeningPresence(uint32 site);
    /// Thrown when an accusation is of a kind that there is not, or that this contract does not execute.
    error NoSuchStep(uint8 kind);
    /// Thrown when a greedy move is made about a random job, or the other way round.
    error OtherSampler(uint32 temperatureQ16);
    /// Thrown when there is nothing to withdraw.
    error NothingOwed(address to);
    /// Thrown when the receiver refuses coins that it asked for.
    error TransferRefused(address to, uint256 amount);

    /// Opens the first game about a claim; the value sent is the bond.
    /// @param jobId the job on the hub
    /// @param neuron whose answer is doubted
    /// @param fields the job
    /// @param outputIds the revealed ids
    function open(uint256 jobId, address neuron, JobFields calldata fields, bytes calldata outputIds)
        external
        payable
        returns (bytes32 claim);
    /// Opens a further game about a claim; the value sent is the bond.
    function join(bytes32 claim) external payable;
    /// Asks for a node: 52 bytes.
    function ask(bytes32 claim, bytes calldata move) external returns (bytes32 id);
    /// Answers an ask: its id, then the content.
    function answer(bytes calldata move) external returns (bytes32 id);
    /// Accuses a step.
    function accuse(bytes32 claim, bytes calldata move) external;
    /// Ends a game in which a clock has run out. Anyone.
    function timeout(bytes32 claim, address challenger) external;
    /// Takes back the caller's bond after a conviction.
    function takeBack(bytes32 claim) external;
    /// Sends the caller what it is owed.
    function withdraw() external;
    /// Sets the price of an inscribed byte. Only the governor, never above the maximum.
    function setBytePrice(uint96 weiPerByte) external;

    /// Programs that disputes are about.
    function BOOK() external view returns (IProgramBook);
    /// The tensor spec that the steps follow.
    function SPEC() external view returns (uint32);
    /// The hub whose claims are disputed.
    function HUB() external view returns (IWorkerHub);
    /// Heights on each side's clock.
    function CLOCK() external view returns (uint32);
    /// Wei that inscribing a byte costs: the governed satoshis a virtual byte, by four.
    function weiPerByte() external view returns (uint96);
    /// Wei that a game about a job of this model takes.
    function bond(bytes32 modelRoot) external view returns (uint256);
    /// A claim.
    function claimOf(bytes32 claim) external view returns (Claim memory);
    /// A challenger's game.
    function game(bytes32 claim, address challenger) external view returns (Game memory);
    /// A published answer; all zero where it is not.
    function node(bytes32 claim, bytes20 words) external view returns (Node memory);
    /// An ask.
    function askOf(bytes32 id) external view returns (OpenAsk memory);
    /// Wei held: in bonds and owed. Their sum is the contract's balance.
    function totals() external view returns (uint256 bonds, uint256 owed);
    /// Wei owed to an address.
    function owedTo(address to) external view returns (uint256);
    /// The id of a claim about the hub's job.
    function claimId(uint256 jobId, address neuron, bytes32 jobHash, bytes32 traceRoot, bytes32 outputHash)
        external
        view
        returns (bytes32);
}
