// The hub where jobs meet neurons: types, events, errors and functions.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts} from "./IPayouts.sol";

/// Numbers fixed when the hub is deployed. Windows are counted in heights.
struct Params {
    /// Heights that drawn neurons have to commit.
    uint64 commitWindow;
    /// Heights that committed neurons have to reveal.
    uint64 revealWindow;
    /// Heights after the last reveal in which a dispute can be opened.
    uint64 challengeWindow;
    /// The same where the revealed answers differ.
    uint64 quarrelWindow;
    /// Heights after a draw became due until a job that nobody can take is refunded.
    uint64 assignWindow;
    /// Heights between asking for stake and getting it.
    uint64 unstakeDelay;
    /// Least stake of a neuron that is drawn, in wei.
    uint96 minStake;
    /// Least collateral locked per assignment, in wei.
    uint96 minCollateral;
    /// Part of the collateral that a missed commit or reveal costs, in basis points.
    uint16 timeoutSlashBps;
    /// Part of each paid share that is the protocol's, in basis points.
    uint16 protocolFeeBps;
    /// Gets the protocol's part; zero burns it.
    address treasury;
    /// May open disputes and convict; zero while there is no verifier.
    address verifier;
}

/// A job as it is posted. Ids are little-endian u32, four bytes each.
struct JobSpec {
    /// Pack root of the model.
    bytes32 modelRoot;
    /// Its tensor spec.
    uint32 specVersion;
    /// Its vocabulary.
    uint32 vocab;
    /// Its context.
    uint32 context;
    /// Its words: 0 where it generates, else the words of its output, and the job embeds. The model must be registered with
    /// exactly these five; they are no part of the job's hash but for the first two.
    uint32 words;
    /// Most tokens to generate, at least 1; 0 where the job embeds.
    uint32 maxNew;
    /// 0 = greedy, else the temperature in Q16.
    uint32 temperatureQ16;
    /// Ids kept, 0 = all.
    uint32 topK;
    /// Mass kept in Q16; 0 when greedy, else 1 to 65536.
    uint32 topPQ16;
    /// Seed of the draw of tokens.
    uint64 seed;
    /// Prompt ids.
    bytes inputIds;
    /// Generation ends after one of these; at most 16 ids.
    bytes stopIds;
}

/// Where a job stands.
enum JobStatus {
    /// No such job.
    None,
    /// Waiting for a draw (the first, or one that replaces neurons who were silent).
    Open,
    /// Drawn neurons commit.
    Committing,
    /// All have committed and reveal.
    Revealing,
    /// Revealed and agreed; disputes may be opened.
    Challenge,
    /// Revealed, and the answers differ: nobody is paid unless convictions leave one answer.
    Quarrel,
    /// Over and paid.
    Settled,
    /// Over and the fee returned.
    Refunded
}

/// A job as stored: what decides its course; ids are in the event that posted it.
struct Job {
    /// The model's id in the registry.
    bytes32 modelId;
    /// Hash over every field that decides the answer.
    bytes32 jobHash;
    /// Who posted it and gets refunds.
    address payer;
    /// Height of posting.
    uint64 postedAt;
    /// Where it stands.
    JobStatus status;
    /// Neurons asked for.
    uint8 k;
    /// Draws after the first.
    uint8 attempt;
    /// Most tokens to generate; 0 where the job embeds.
    uint32 maxNew;
    /// The model's vocabulary.
    uint32 vocab;
    /// Disputes that block payment.
    uint32 openDisputes;
    /// Prompt ids.
    uint32 inputs;
    /// Height at which the current draw was opened; its beacon is the header two above.
    uint64 roundAt;
    /// Last height of the current window.
    uint64 deadline;
    /// Wei of the fee per neuron, before the protocol's part.
    uint96 share;
    /// Wei still held for the job.
    uint96 escrow;
    /// Words of the output where the job embeds; 0 where it generates.
    uint32 words;
    /// Wei locked per assignment.
    uint96 collateral;
    /// Height at which the last answer was revealed; 0 before.
    uint64 answeredAt;
    /// Stop ids.
    bytes stopIds;
}

/// How far a drawn neuron is.
enum SlotState {
    /// No such slot.
    None,
    /// Drawn, has not committed.
    Assigned,
    /// Has committed.
    Committed,
    /// Has revealed.
    Revealed,
    /// Was silent or convicted: slashed, out of the job.
    Failed,
    /// Was paid.
    Paid,
    /// The job ended without pay or fault; collateral is free again.
    Released
}

/// One neuron's part in a job.
struct Slot {
    /// The neuron.
    address neuron;
    /// How far it is.
    SlotState state;
    /// What it committed to: its answer, or the root over the answers of a batch.
    bytes32 commitment;
    /// Trace root it revealed.
    bytes32 traceRoot;
    /// keccak256 of the output ids it revealed.
    bytes32 outputHash;
}

/// A neuron's account.
struct Neuron {
    /// Wei at stake, locked part included, unstaking part excluded.
    uint96 stake;
    /// Wei of the stake that open jobs hold.
    uint96 locked;
    /// Height of the last added stake: jobs posted before it do not draw this neuron.
    uint64 since;
    /// Wei on their way out.
    uint96 unstaking;
    /// Height from which they can be withdrawn.
    uint64 unstakeAt;
}

/// A neuron's offer to serve a model.
struct Offer {
    /// The neuron.
    address neuron;
    /// Wei per job: what its transactions cost, whatever their job's length.
    uint96 askBase;
    /// Wei per prompt id.
    uint64 askPerInput;
    /// Wei per token of max_new, or per word of an embedding.
    uint64 askPerOutput;
    /// Height of the offer: jobs posted before it do not draw this neuron.
    uint32 since;
    /// Most wei it locks for one job, so that no job ties up its whole stake for a small fee.
    uint96 collateralMax;
}

/// The life of a job: infer -> (2 heights) assign -> commit -> reveal -> finalise. Silence is slashed and redrawn, then refunded.
interface IWorkerHub is IPayouts {
    /// Stake was added.
    event Staked(address indexed neuron, uint256 amount, uint256 stake);
    /// Stake was asked back.
    event UnstakeRequested(address indexed neuron, uint256 amount, uint64 freeAt);
    /// Stake left.
    event Withdrawn(address indexed neuron, uint256 amount);
    /// A neuron serves a model at this price.
    event Served(
        bytes32 indexed modelId,
        address indexed neuron,
        uint96 askBase,
        uint64 askPerInput,
        uint64 askPerOutput,
        uint96 collateralMax
    );
    /// A neuron no longer serves a model.
    event Unserved(bytes32 indexed modelId, address indexed neuron);
    /// A job was posted; its ids are here.
    event JobPosted(
        uint256 indexed jobId,
        address indexed payer,
        bytes32 indexed modelId,
        bytes32 jobHash,
        JobSpec spec,
        uint8 k,
        uint96 share,
        uint96 collateral,
        uint64 beaconHeight
    );
    /// Neurons were drawn; they commit up to and including height `commitBy`.
    event JobAssigned(uint256 indexed jobId, uint8 attempt, address[] neurons, uint64 commitBy);
    /// A neuron committed, to one answer or to the root of a batch.
    event Committed(uint256 indexed jobId, address indexed neuron, bytes32 commitment);
    /// All have committed; they reveal up to and including height `revealBy`.
    event RevealOpened(uint256 indexed jobId, uint64 revealBy);
    /// A neuron revealed; its output ids are here.
    event Revealed(uint256 indexed jobId, address indexed neuron, bytes32 traceRoot, bytes outputIds);
    /// The answers agree; the job can be finalised after height `challengeUntil`.
    event ChallengeOpened(
        uint256 indexed jobId, bytes32 traceRoot, bytes32 outputHash, uint64 challengeUntil
    );
    /// The answers differ; the fee goes back after height `quarrelUntil` unless convictions leave one answer.
    event Quarrelled(uint256 indexed jobId, uint64 quarrelUntil);
    /// A neuron was silent; `slashed` wei of its stake are gone, at least half of it burned.
    event NeuronTimedOut(uint256 indexed jobId, address indexed neuron, uint256 slashed);
    /// The silent are replaced by a new draw.
    event JobReopened(uint256 indexed jobId, uint8 attempt, uint64 beaconHeight);
    /// A neuron was paid.
    event NeuronPaid(uint256 indexed jobId, address indexed neuron, address payout, uint256 amount);
    /// The job is over and paid.
    event JobSettled(uint256 indexed jobId, uint256 paid, uint256 protocolFee, uint256 returned);
    /// The job is over and the fee went back.
    event JobRefunded(uint256 indexed jobId, address indexed payer, uint256 amount);
    /// A dispute blocks payment.
    event DisputeOpened(uint256 indexed jobId, uint32 open);
    /// A dispute ended.
    event DisputeClosed(uint256 indexed jobId, uint32 open);
    /// A neuron lost a dispute and its collateral, half of it burned.
    event NeuronConvicted(
        uint256 indexed jobId, address indexed neuron, address indexed challenger, uint256 slashed
    );
    /// A job of a batch was left out, for the reason that the same call for it alone would have been refused with.
    event Skipped(uint256 indexed jobId, address indexed caller, bytes reason);
    /// A transfer was refused by its receiver; the amount waits to be claimed.
    event Credited(address indexed to, uint256 amount);
    /// A credit was claimed.
    event Claimed(address indexed to, uint256 amount);

    /// Thrown when a window, rate or minimum given to the constructor makes no sense; `field` names it.
    error BadParam(string field);
    /// Thrown when nothing is sent or asked where something must be.
    error ZeroAmount();
    /// Thrown when more stake is asked back than open jobs leave free.
    error StakeLocked(uint256 asked, uint256 free);
    /// Thrown when nothing is on its way out.
    error NothingUnstaking(address neuron);
    /// Thrown when stake is withdrawn before its delay has passed.
    error UnstakeNotDue(uint256 height, uint256 freeAt);
    /// Thrown when a neuron whose stake is too small offers to serve.
    error StakeTooSmall(uint256 stake, uint256 minStake);
    /// Thrown when an offer's most collateral is below the least that any job asks.
    error CollateralTooSmall(uint256 collateralMax, uint256 minCollateral);
    /// Thrown when as many neurons as may serve the model already do.
    error ModelFull(bytes32 modelId, uint256 max);
    /// Thrown when the neuron does not serve the model.
    error NotServing(bytes32 modelId, address neuron);
    /// Thrown when a neuron is to be evicted whose stake is large enough.
    error StakeSuffices(address neuron, uint256 stake);
    /// Thrown when there is no credit to claim.
    error NothingToClaim(address to);
    /// Thrown when a model that generates is offered and nobody could dispute its jobs: its program is not in the verifier's
    /// book, has another vocabulary or less context than was registered, or follows another spec than the verifier.
    error NoProgram(bytes32 modelId, bytes32 modelRoot);
    /// Thrown when a model that generates is offered before the verifier that the hub names is deployed.
    error NoVerifier(address verifier);
    /// Thrown when a job or an offer names a model that takes no new jobs.
    error ModelInactive(bytes32 modelId);
    /// Thrown when the job has no input ids.
    error EmptyInput();
    /// Thrown when max_new is 0 and the model generates.
    error NothingAsked();
    /// Thrown when max_new is not 0 and the model embeds.
    error EmbeddingGenerates(uint32 maxNew);
    /// Thrown when a job for a model that embeds names stop ids.
    error EmbeddingStops(uint256 stops);
    /// Thrown when a job for a model that embeds sets temperature, top_k or top_p.
    error EmbeddingSamples(uint32 temperatureQ16, uint32 topK, uint32 topPQ16);
    /// Thrown when a job for a model that embeds sets a seed, which nothing would read.
    error EmbeddingSeeded(uint64 seed);
    /// Thrown when input ids and max_new together exceed the model's context.
    error ContextOverflow(uint256 inputLength, uint32 maxNew, uint32 context);
    /// Thrown when a job names more than 16 stop ids.
    error TooManyStops(uint256 count);
    /// Thrown when a greedy job (temperature 0) sets top_k or top_p, or another's top_p is outside 1 to 65536.
    error BadSampler(uint32 temperatureQ16, uint32 topK, uint32 topPQ16);
    /// Thrown when k is 0 or above the most neurons a job may ask for.
    error BadK(uint8 k, uint8 max);
    /// Thrown when there is no job with this id.
    error UnknownJob(uint256 jobId);
    /// Thrown when the job is in another state than the call needs.
    error WrongStatus(uint256 jobId, JobStatus status);
    /// Thrown when a draw is asked for before its beacon's height.
    error BeaconNotDue(uint256 height, uint256 beaconHeight);
    /// Thrown when the header hash of the beacon's height is not known.
    error BeaconMissing(uint256 beaconHeight);
    /// Thrown when fewer neurons can be drawn than the job needs; it is refunded after its timeout.
    error NotEnoughNeurons(uint256 found, uint256 needed);
    /// Thrown when the caller was not drawn for the job, or is out of it.
    error NotAssigned(uint256 jobId, address caller);
    /// Thrown when a commit names another job hash than the job's: a reorg may have put another job at this id.
    error WrongJobHash(uint256 jobId, bytes32 got, bytes32 expected);
    /// Thrown when the commitment is zero.
    error EmptyCommitment();
    /// Thrown when a neuron commits twice.
    error AlreadyCommitted(uint256 jobId, address neuron);
    /// Thrown when a neuron reveals twice.
    error AlreadyRevealed(uint256 jobId, address neuron);
    /// Thrown when the revealed values do not hash to the commitment.
    error WrongReveal(bytes32 got, bytes32 committed);
    /// Thrown when the trace root is zero.
    error EmptyTraceRoot();
    /// Thrown when a batch's list of jobs is not ascending ids, packed; `spot` is the byte where it went wrong.
    error BadJobs(uint256 spot);
    /// Thrown when a batch has no job or more than the most.
    error BatchSize(uint256 jobs, uint256 max);
    /// Thrown when a batch's commit names other job hashes than the jobs': a reorg may have put other jobs at these ids.
    error WrongJobHashes(bytes32 got, bytes32 expected);
    /// Thrown when the caller has committed no batch that this job leads.
    error NoBatch(uint256 lead, address caller);
    /// Thrown when the job was committed elsewhere than at this place of the batch.
    error NotInBatch(uint256 jobId, uint256 lead, uint256 place);
    /// Thrown when a batch of that many levels has no such node, or not that many jobs beneath it, or the path is not its.
    error BadNode(uint256 node, uint256 levels, uint256 jobs, uint256 path);
    /// Thrown when the answers of a batch are not one for each of its jobs; `spot` is the byte where it went wrong.
    error BadAnswers(uint256 spot);
    /// Thrown when the window has closed.
    error WindowClosed(uint256 height, uint256 deadline);
    /// Thrown when the window is still open.
    error WindowOpen(uint256 height, uint256 deadline);
    /// Thrown when a job under dispute is to be paid.
    error Disputed(uint256 jobId, uint32 openDisputes);
    /// Thrown when someone other than the verifier speaks of disputes.
    error NotVerifier(address caller);
    /// Thrown when a dispute is closed and none is open.
    error NoDispute(uint256 jobId);

    // --- neurons -------------------------------------------------------------------------------

    /// Adds the value sent to the caller's stake.
    function stake() external payable;
    /// Starts the delay for `amount` wei of free stake; asking again restarts it for all of it.
    function requestUnstake(uint256 amount) external;
    /// Sends the stake whose delay has passed, to the caller's payout address where it has one.
    function withdraw() external;
    /// Serves a model for `askBase + askPerInput * prompt ids + askPerOutput * outputs` wei a job, locking at most
    /// `collateralMax` wei for one; outputs are max_new, or the words of an embedding. Calling again changes the offer.
    function serve(
        bytes32 modelId,
        uint96 askBase,
        uint64 askPerInput,
        uint64 askPerOutput,
        uint96 collateralMax
    ) external;
    /// Stops serving a model.
    function unserve(bytes32 modelId) external;
    /// Removes a neuron whose stake fell below the minimum from a model's list. Anyone.
    function evict(bytes32 modelId, address neuron_) external;
    /// Sends what the caller was owed when a transfer to it failed, to its payout address where it has one.
    function claim() external;

    // --- jobs ----------------------------------------------------------------------------------

    /// Posts a job; the value sent is the fee.
    /// @param spec the job
    /// @param k neurons asked for, 1 to MAX_K
    /// @param collateral wei each neuron must lock; the hub asks at least its minimum and the share
    /// @return jobId ids count from 1
    function infer(JobSpec calldata spec, uint8 k, uint96 collateral) external payable returns (uint256 jobId);
    /// Draws the neurons once the beacon is known. Anyone; the first commit does it too.
    function assign(uint256 jobId) external;
    /// Commits a drawn neuron to an answer.
    /// @param jobHash the job that the caller answers
    /// @param commitment keccak256(abi.encode(chain id, hub, job id, sender, salt, trace root, keccak256(output ids)))
    function commit(uint256 jobId, bytes32 jobHash, bytes32 commitment) external;
    /// Opens the commitment, once every drawn neuron has committed.
    function reveal(uint256 jobId, bytes32 salt, bytes32 traceRoot, bytes calldata outputIds) external;
    /// Ends a job after its challenge window: pays, or refunds where no single answer stands. Anyone.
    function finalise(uint256 jobId) external;
    /// Acts on a window that closed on silence: slashes, redraws or refunds. Anyone.
    function timeout(uint256 jobId) external;

    // --- jobs by the batch ---------------------------------------------------------------------
    // What depends on others or on time leaves a job out (`Skipped`); what the caller alone decides refuses the call,
    // and so does a batch of which nothing is left, with the first job's reason.

    /// Commits the caller to the answers of all these jobs at once.
    /// @param jobs their ids, ascending: LEB128 of the first, then of each difference to the one before
    /// @param jobHashes keccak256 over the jobs' hashes, one behind another
    /// @param root of the tree over the commitments that the jobs would have alone, all with one salt
    function commitBatch(bytes calldata jobs, bytes32 jobHashes, bytes32 root) external;
    /// Opens a batch, whole or the part beneath one node of its tree.
    /// @param lead the first job that the batch's commit bound: that slot holds the root
    /// @param salt the batch's
    /// @param node 1 is the root, 2n and 2n + 1 are beneath n
    /// @param path the siblings from the node up to the root; none for the root
    /// @param jobs all jobs beneath the node, packed as in the commit
    /// @param answers for each job its trace root, LEB128 of its number of ids, the ids
    function revealBatch(
        uint256 lead,
        bytes32 salt,
        uint256 node,
        bytes32[] calldata path,
        bytes calldata jobs,
        bytes calldata answers
    ) external;
    /// `finalise` for all these jobs. Anyone.
    function finaliseBatch(bytes calldata jobs) external;

    // --- disputes ------------------------------------------------------------------------------

    /// Blocks payment. Only the verifier, only inside the challenge window.
    function openDispute(uint256 jobId) external;
    /// Takes one block off. Only the verifier.
    function closeDispute(uint256 jobId) external;
    /// Slashes a revealed neuron's collateral and puts it out of the job. Only the verifier, only under dispute.
    function convict(uint256 jobId, address neuron_, address challenger) external;

    // --- views ---------------------------------------------------------------------------------

    /// The numbers fixed at deployment.
    function params() external view returns (Params memory);
    /// A job; reverts for an unknown id.
    function job(uint256 jobId) external view returns (Job memory);
    /// All slots of a job, failed ones included.
    function assigned(uint256 jobId) external view returns (Slot[] memory);
    /// Slot of one neuron in a job; all zero where it has none.
    function slot(uint256 jobId, address neuron_) external view returns (Slot memory);
    /// Where a neuron's answer to a job was committed: the job that leads the batch (itself where it was committed alone) and
    /// the number of its leaf in the tree, 1 being the root; zeros before it commits.
    function committedAt(uint256 jobId, address neuron) external view returns (uint256 lead, uint256 place);
    /// Who would be drawn by `assign` now, fewer than needed or none while the beacon is unknown.
    function drawn(uint256 jobId) external view returns (address[] memory);
    /// A neuron's account.
    function neuron(address neuron_) external view returns (Neuron memory);
    /// Stake that no open job holds, in wei.
    function freeStake(address neuron_) external view returns (uint256);
    /// Everyone who offers to serve a model.
    function offers(bytes32 modelId) external view returns (Offer[] memory);
    /// Who could be drawn for a new job on the model that pays `share` (before the protocol's part) for `inputs` prompt ids and
    /// `outputs` tokens or words under `collateral`.
    function eligible(bytes32 modelId, uint32 inputs, uint32 outputs, uint96 share, uint96 collateral)
        external
        view
        returns (address[] memory);
    /// Least fee that `k` neurons who could be drawn now would accept, or 0 where there are fewer.
    function quote(bytes32 modelId, uint32 inputs, uint32 outputs, uint8 k, uint96 collateral)
        external
        view
        returns (uint256);
    /// Jobs ever posted; ids run from 1 to this.
    function jobsCount() external view returns (uint256);
    /// Wei owed to an address whose transfer failed.
    function credits(address to) external view returns (uint256);
    /// Wei held: in stakes (unstaking included), in escrow, in credits. Their sum is the hub's balance.
    function totals() external view returns (uint256 stakes, uint256 escrow, uint256 credit);
    /// The hash of a job as the hub computes it.
    function hashJob(JobSpec calldata spec) external view returns (bytes32);
    /// The commitment of an answer as the hub computes it.
    function hashCommit(uint256 jobId, address sender, bytes32 salt, bytes32 traceRoot, bytes32 outputHash)
        external
        view
        returns (bytes32);
}
