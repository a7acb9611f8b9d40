// Validators who compute answers again and say so: types, events, errors and functions. docs/spec/validators.md.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts} from "./IPayouts.sol";
import {Job, Slot} from "./IWorkerHub.sol";

/// What a deployment fixes for ever. Windows count in heights.
struct Settings {
    /// Heights of an epoch.
    uint64 epoch;
    /// Heights for attesting, from two above an epoch's last on; also what a validator has to compute a job.
    uint64 attestWindow;
    /// Heights after those for asking.
    uint64 askWindow;
    /// Heights for opening, from an ask on; while asks wait, one more than the ask before.
    uint64 openWindow;
    /// Heights after an opening for disputing what it exposed.
    uint64 disputeWindow;
    /// Heights between asking for stake and getting it: at least until all asks about its last epoch are made.
    uint64 unstakeDelay;
    /// Wei of the protocol's part that a job pays for each of its positions, below which nobody is drawn for it.
    uint96 minCutPerPosition;
    /// Wei below which a validator is not drawn.
    uint96 minStake;
    /// Validators drawn for a job on average.
    uint8 seats;
    /// Part of the stake that a missing attestation costs, in basis points.
    uint16 missBps;
    /// Part of the stake that an entry which is wrong, or is not opened, costs, in basis points.
    uint16 faultBps;
}

/// A validator's account.
struct Validator {
    /// Wei at stake, what is leaving excluded.
    uint96 stake;
    /// Wei on their way out, which can still be lost.
    uint96 leaving;
    /// Height from which they can be withdrawn.
    uint64 leaveAt;
    /// Height up to which an exposed claim can be disputed, and both clocks of such a dispute run out.
    uint64 boundUntil;
    /// Last height for opening the ask that is due last.
    uint64 openBy;
    /// Asks that wait.
    uint32 asks;
}

/// Where an attestation stands.
enum AttestationState {
    /// Not made.
    None,
    /// Made.
    Standing,
    /// Void: the validator failed in this epoch.
    Failed
}

/// What a validator said about an epoch.
struct Attestation {
    /// Root of the tree of entries.
    bytes32 root;
    /// Where it stands.
    AttestationState state;
    /// Whether a claim of its epoch was convicted.
    bool convicted;
    /// Height from which nothing that was opened for it can be convicted any more.
    uint64 clearFrom;
}

/// What became of one job under an attestation.
struct Entry {
    /// The epoch, and one, in which the validator said that it attests no answer; 0 where it did not.
    uint64 noneIn;
    /// Last height for disputing what was opened; 0 where nothing was.
    uint64 disputeBy;
    /// Whether it was paid for.
    bool paid;
    /// Trace root that it names, once opened.
    bytes32 traceRoot;
    /// keccak256 of the output ids that it names, once opened.
    bytes32 outputHash;
}

/// A question for one chunk of one entry.
struct Ask {
    /// Who asked.
    address asker;
    /// Its bond.
    uint96 bond;
    /// Last height for opening; 0 once it is over.
    uint64 openBy;
    /// Whether it was ever asked.
    bool known;
}

/// Stake, draw, attestations, asks and pay of validators; towards a verifier of its own it is a hub whose neurons are validators.
interface IAttestations is IPayouts {
    /// A validator added stake.
    event Staked(address indexed validator, uint256 amount, uint256 stake);
    /// Stake is on its way out.
    event UnstakeRequested(address indexed validator, uint256 amount, uint64 leaveAt);
    /// Wei left for their owner.
    event Withdrawn(address indexed to, uint256 amount);
    /// A validator takes part in a model's draws from `epoch` on.
    event Enlisted(bytes32 indexed modelId, address indexed validator, uint64 epoch);
    /// A validator takes no part in a model's draws from `epoch` on.
    event Delisted(bytes32 indexed modelId, address indexed validator, uint64 epoch);
    /// A validator attested an epoch's jobs.
    event Attested(uint64 indexed epoch, address indexed validator, bytes32 root);
    /// A validator attests no answer of a job.
    event NoneHolds(uint256 indexed jobId, address indexed validator);
    /// An entry is to be opened; `openBy` is the last height.
    event Asked(
        uint256 indexed jobId, address indexed validator, address indexed asker, uint8 pick, uint64 openBy
    );
    /// An entry was opened; the validator's claim can be disputed up to `disputeBy`.
    event Opened(uint256 indexed jobId, address indexed validator, bytes32 traceRoot, uint64 disputeBy);
    /// A validator failed and lost `slashed`; `beneficiary` found it. It takes part in no model's draws any more.
    event ValidatorFailed(
        uint64 indexed epoch, address indexed validator, address indexed beneficiary, uint256 slashed
    );
    /// A validator was paid for a job.
    event Rewarded(uint256 indexed jobId, address indexed validator, uint256 amount);

    /// Thrown when a setting makes no sense.
    error BadSetting(string field);
    /// Thrown when an amount of zero is moved.
    error ZeroAmount();
    /// Thrown when more stake is asked for than there is.
    error MoreThanStaked(uint256 asked, uint256 stake);
    /// Thrown when nothing is there to withdraw, or not yet.
    error NothingDue(address who);
    /// Thrown when a model cannot be validated: unknown, an encoder, or without a program in the book.
    error NotDisputable(bytes32 modelId);
    /// Thrown when a validator has more models than a change of stake can update.
    error TooManyModels(uint256 most);
    /// Thrown when a validator takes part in the model's draws already.
    error EnlistedAlready(bytes32 modelId, address validator);
    /// Thrown when a validator takes no part in the model's draws.
    error NotEnlisted(bytes32 modelId, address validator);
    /// Thrown when a job has no answer yet.
    error NotAnswered(uint256 jobId);
    /// Thrown when the header that draws for a job, or ends an epoch, is not there yet.
    error HeaderNotDue(uint256 height, uint256 due);
    /// Thrown when the validator was not drawn for the job.
    error NotDrawn(uint256 jobId, address validator);
    /// Thrown when a job is named that was answered in another epoch.
    error OtherEpoch(uint256 jobId, uint64 got, uint64 expected);
    /// Thrown when an attestation was made with another header than the chain has.
    error OtherHeader(bytes32 got, bytes32 expected);
    /// Thrown when a root of zero is attested.
    error EmptyRoot();
    /// Thrown when an attestation is not in the state that the call needs.
    error WrongState(uint64 epoch, address validator, AttestationState state);
    /// Thrown when a call comes outside of its window.
    error OutsideWindow(uint256 height, uint256 first, uint256 last);
    /// Thrown when a bond is not the one asked for.
    error WrongBond(uint256 got, uint256 expected);
    /// Thrown when the entry was asked for before.
    error AskedBefore(uint256 jobId, address validator);
    /// Thrown when a job is claimed while an ask about it waits.
    error AskWaits(uint256 jobId, address validator);
    /// Thrown when no such ask waits.
    error NotAsked(uint256 jobId, address validator);
    /// Thrown when stake cannot leave yet: asks wait, or an exposed claim can still be convicted.
    error StakeBound(uint32 asks, uint64 boundUntil);
    /// Thrown when an entry does not lead to the attested root.
    error WrongRoot(bytes32 got, bytes32 expected);
    /// Thrown when an entry names an answer that the neuron did not reveal.
    error NoSuchAnswer(uint256 jobId, address neuron);
    /// Thrown when the number of outputs is none, or more than the job allows.
    error BadOutputs(uint256 outputs, uint256 most);
    /// Thrown when rows do not lead to the trace root.
    error WrongTrace(bytes32 got, bytes32 expected);
    /// Thrown when the chunk's keyed hash is not the attested one.
    error WrongDigest(uint8 pick);
    /// Thrown when the job was not settled.
    error NotSettled(uint256 jobId);
    /// Thrown when somebody else than the verifier calls.
    error NotVerifier(address caller);
    /// Thrown when the validator said that it attests no answer.
    error SaidNone(uint256 jobId, address validator);
    /// Thrown when a job is listed again.
    error ListedBefore(uint256 jobId, address validator);
    /// Thrown when a job was paid for before.
    error PaidBefore(uint256 jobId, address validator);
    /// Thrown when a claim that can still be convicted comes before its pay.
    error NotClear(uint64 clearFrom);
    /// Thrown when the reserve holds less than a job's pay.
    error ReserveTooSmall(uint256 reserve, uint256 pay);

    /// Adds the value to the caller's stake; it weighs from the second epoch after this one.
    function stake() external payable;

    /// Asks for stake; it weighs for this epoch and the next, and can be lost until it is withdrawn.
    function requestUnstake(uint96 amount) external;

    /// Takes part in a model's draws, from the second epoch after this one.
    function enlist(bytes32 modelId) external;

    /// Ends that, from the same time on.
    function delist(bytes32 modelId) external;

    /// Sends all that is due to the caller, to its payout address where it has one: stake that has left, slashes it found, bonds
    /// and rewards.
    function withdraw() external;

    /// Attests an epoch's jobs.
    /// @param epoch the epoch
    /// @param header hash of the header two above its last height
    /// @param jobId a job that the caller was drawn for
    /// @param root root of the tree of entries; zero where it has none
    /// @param none numbers of jobs of which the caller attests no answer, 4 bytes each, little-endian
    function attest(uint64 epoch, bytes32 header, uint256 jobId, bytes32 root, bytes calldata none) external;

    /// Says of further jobs that the caller attests no answer, as long as its epoch can be attested; the list of one call has to
    /// be paid for by its bytes.
    function none(uint64 epoch, bytes32 header, bytes calldata jobs) external;

    /// Asks for an entry, at a chunk that a header picks; the value is the bond.
    function ask(address validator, uint256 jobId) external payable;

    /// Opens an entry of the caller's.
    function open(uint256 jobId, bytes calldata opening) external;

    /// Ends an ask that was not opened in time, or whose validator failed meanwhile.
    function expire(address validator, uint256 jobId) external;

    /// Reports a validator that was drawn for the job and did not attest its epoch.
    function absent(address validator, uint256 jobId) external;

    /// Pays the caller for settled jobs that it was drawn for and attested; 4 bytes each, little-endian. Jobs that are not
    /// settled are left out. One of them takes about 100,000 gas: what a call's bytes buy limits the list.
    function claim(bytes calldata jobs) external;

    /// Fetches what the hub owes this contract.
    function collect() external;

    /// Which of an entry's chunks an ask is about; the header after the attest window picks it.
    function pickOf(uint256 jobId, address validator) external view returns (uint8);

    /// Whether the validator was drawn for an answered job.
    function isDrawn(uint256 jobId, address validator) external view returns (bool);

    /// What a validator staked for a model's draws of an epoch, and what all did.
    function weights(bytes32 modelId, address validator, uint64 epoch)
        external
        view
        returns (uint96 own, uint96 total);

    /// Heights that matter to an epoch: the header's that ends it, the last for attesting, the last for asking, and the first at
    /// which its jobs are paid.
    function windows(uint64 epoch)
        external
        view
        returns (uint256 header, uint256 attestBy, uint256 askBy, uint256 paidFrom);

    /// Wei that each validator drawn for a job gets for it.
    function pay(uint256 jobId) external view returns (uint256);

    /// Wei that jobs are paid from.
    function reserve() external view returns (uint256);

    /// Wei that an ask takes as bond now.
    function askBond() external view returns (uint256);

    /// A validator's account.
    function validatorOf(address validator) external view returns (Validator memory);

    /// Models whose draws a validator takes part in.
    function modelsOf(address validator) external view returns (bytes32[] memory);

    /// A validator's attestation of an epoch.
    function attestationOf(uint64 epoch, address validator) external view returns (Attestation memory);

    /// What became of a job under a validator's attestation.
    function entryOf(uint256 jobId, address validator) external view returns (Entry memory);

    /// An ask.
    function askOf(uint256 jobId, address validator) external view returns (Ask memory);

    /// Wei due to somebody.
    function due(address to) external view returns (uint256);

    /// What of the balance is not the reserve: stakes, bonds of asks, what is due.
    function totals() external view returns (uint256 stakes, uint256 bonds, uint256 dues);

    /// The settings.
    function settings() external view returns (Settings memory);

    /// For the verifier: the job, with the last height for disputes of its exposed claims.
    function job(uint256 jobId) external view returns (Job memory);

    /// For the verifier: a validator's exposed claim as if it had revealed it.
    function slot(uint256 jobId, address validator) external view returns (Slot memory);

    /// For the verifier: a dispute begins.
    function openDispute(uint256 jobId) external;

    /// For the verifier: a dispute ended.
    function closeDispute(uint256 jobId) external;

    /// For the verifier: a validator's claim was convicted.
    function convict(uint256 jobId, address validator, address challenger) external;
}
