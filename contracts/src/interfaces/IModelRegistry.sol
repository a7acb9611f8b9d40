// What a model pack's registration says, and who may ask.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// A registered model pack. What its id is made of is fixed for ever; the rest is who stands for it now.
struct Model {
    /// Merkle root of manifest and tensors.
    bytes32 modelRoot;
    /// Who registered it and gets the bond back.
    address owner;
    /// Height of registration.
    uint64 registeredAt;
    /// Height at which the owner retired it; 0 while it takes jobs.
    uint64 retiredAt;
    /// Version of the tensor spec that runs it.
    uint32 specVersion;
    /// Token ids are below this.
    uint32 vocab;
    /// Most tokens (input and output together) of one sequence.
    uint32 context;
    /// 0 for a model that generates; else the words of 32 bits that it puts out for a text.
    uint32 words;
    /// Bond that the owner gets back after retirement, in wei.
    uint256 bond;
    /// BLAKE3 of the file it was imported from, as its owner says.
    bytes32 sourceHash;
    /// Where the pack can be had.
    string uri;
}

/// Models by the hash of their pack's root, spec version, vocabulary, context and words: whoever registers a root with false
/// numbers registers another model than the right one, and takes nothing away from it.
interface IModelRegistry {
    /// A model was registered, or again after its retirement.
    event ModelRegistered(
        bytes32 indexed modelId,
        bytes32 indexed modelRoot,
        address indexed owner,
        uint32 specVersion,
        uint32 vocab,
        uint32 context,
        uint32 words,
        string uri,
        bytes32 sourceHash
    );
    /// A model takes no new jobs from here on, until somebody registers it again.
    event ModelRetired(bytes32 indexed modelId, uint64 bondFreeAt);
    /// The bond of a retired model went back to its owner.
    event BondWithdrawn(bytes32 indexed modelId, address indexed owner, uint256 amount);

    /// Thrown when a model that takes jobs is registered a second time.
    error ModelExists(bytes32 modelId);
    /// Thrown when no model of this id is registered.
    error UnknownModel(bytes32 modelId);
    /// Thrown when the value sent with a registration is not exactly the bond.
    error WrongBond(uint256 sent, uint256 bond);
    /// Thrown when the root is zero, or vocabulary or context is zero.
    error EmptyModel();
    /// Thrown when the URI is empty or longer than 256 bytes.
    error BadUri(uint256 length);
    /// Thrown when someone other than the model's owner retires it.
    error NotModelOwner(address caller, address owner);
    /// Thrown when a model is retired a second time.
    error AlreadyRetired(bytes32 modelId);
    /// Thrown when the bond is asked for before the delay after the retirement has passed.
    error BondLocked(uint256 freeAt);
    /// Thrown when the caller has no bond of a retired model to get back.
    error NoBond(bytes32 modelId);
    /// Thrown when the owner refuses the bond's coins.
    error BondRefused(address owner);

    /// Registers a pack for the bond sent along; a retired one is registered again, by anyone.
    /// @param modelRoot Merkle root of manifest and tensors
    /// @param specVersion tensor spec that runs it
    /// @param vocab token ids are below this
    /// @param context most tokens of a sequence, input and output together
    /// @param words 0 for a model that generates, else the words that it puts out for a text, at most 98,304
    /// @param uri where the pack can be had, 1 to 256 bytes
    /// @param sourceHash BLAKE3 of the file it was imported from
    /// @return id what offers and jobs name it by
    function register(
        bytes32 modelRoot,
        uint32 specVersion,
        uint32 vocab,
        uint32 context,
        uint32 words,
        string calldata uri,
        bytes32 sourceHash
    ) external payable returns (bytes32 id);
    /// Stops new jobs for the model; starts the bond's delay. Only its owner.
    function retire(bytes32 modelId) external;
    /// Gives the caller its bond of a model that it retired, once the delay has passed.
    function withdrawBond(bytes32 modelId) external;
    /// The id of a pack with these numbers, registered or not.
    function modelIdOf(bytes32 modelRoot, uint32 specVersion, uint32 vocab, uint32 context, uint32 words)
        external
        pure
        returns (bytes32);
    /// The registration; reverts for an unknown id.
    function model(bytes32 modelId) external view returns (Model memory);
    /// Whether the model takes jobs; reverts for an unknown id.
    function active(bytes32 modelId) external view returns (bool);
    /// Whether a model of this id was ever registered.
    function exists(bytes32 modelId) external view returns (bool);
    /// How many models were ever registered.
    function modelsCount() external view returns (uint256);
    /// The id registered as number `index`, from 0.
    function modelAt(uint256 index) external view returns (bytes32);
    /// Bond that `owner` gets back of a model that it retired, and the height from which it may.
    function retiredBond(bytes32 modelId, address owner) external view returns (uint256 amount, uint64 freeAt);
    /// Wei that a registration must carry.
    function BOND() external view returns (uint256);
    /// Heights between retirement and the bond's return.
    function BOND_DELAY() external view returns (uint64);
}
