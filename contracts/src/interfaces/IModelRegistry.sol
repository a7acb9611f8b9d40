// What a model pack's registration says, and who may ask.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// A registered model pack. Everything but the two retirement fields is fixed for ever.
struct Model {
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
    /// Bond still held, in wei.
    uint256 bond;
    /// BLAKE3 of the file it was imported from.
    bytes32 sourceHash;
    /// Where the pack can be had.
    string uri;
}

/// Models by the Merkle root of their pack.
interface IModelRegistry {
    /// A model was registered.
    event ModelRegistered(
        bytes32 indexed modelRoot,
        address indexed owner,
        uint32 specVersion,
        uint32 vocab,
        uint32 context,
        string uri,
        bytes32 sourceHash
    );
    /// A model takes no new jobs from here on.
    event ModelRetired(bytes32 indexed modelRoot, uint64 bondFreeAt);
    /// The bond of a retired model went back to its owner.
    event BondWithdrawn(bytes32 indexed modelRoot, address indexed owner, uint256 amount);

    /// Thrown when a model root is registered a second time.
    error ModelExists(bytes32 modelRoot);
    /// Thrown when the model root is not registered.
    error UnknownModel(bytes32 modelRoot);
    /// Thrown when the value sent with a registration is not exactly the bond.
    error WrongBond(uint256 sent, uint256 bond);
    /// Thrown when the root is zero, or vocabulary or context is zero.
    error EmptyModel();
    /// Thrown when the URI is empty or longer than 256 bytes.
    error BadUri(uint256 length);
    /// Thrown when someone other than the model's owner retires it or asks for its bond.
    error NotModelOwner(address caller, address owner);
    /// Thrown when a model is retired a second time.
    error AlreadyRetired(bytes32 modelRoot);
    /// Thrown when the bond is asked for before the model is retired and the delay has passed; freeAt is 0 before retirement.
    error BondLocked(uint256 freeAt);
    /// Thrown when the bond is asked for twice.
    error NoBond(bytes32 modelRoot);
    /// Thrown when the owner refuses the bond's coins.
    error BondRefused(address owner);

    /// Registers a pack for the bond sent along.
    /// @param modelRoot Merkle root of manifest and tensors
    /// @param specVersion tensor spec that runs it
    /// @param vocab token ids are below this
    /// @param context most tokens of a sequence, input and output together
    /// @param uri where the pack can be had, 1 to 256 bytes
    /// @param sourceHash BLAKE3 of the file it was imported from
    function register(
        bytes32 modelRoot,
        uint32 specVersion,
        uint32 vocab,
        uint32 context,
        string calldata uri,
        bytes32 sourceHash
    ) external payable;
    /// Stops new jobs for the model; starts the bond's delay. Only its owner.
    function retire(bytes32 modelRoot) external;
    /// Gives the bond of a retired model back once the delay has passed. Only its owner.
    function withdrawBond(bytes32 modelRoot) external;
    /// The registration; reverts for an unknown root.
    function model(bytes32 modelRoot) external view returns (Model memory);
    /// What the hub needs of a model that takes jobs; reverts for an unknown root, active is false once retired.
    function limits(bytes32 modelRoot)
        external
        view
        returns (bool active, uint32 specVersion, uint32 vocab, uint32 context);
    /// Whether the root is registered.
    function exists(bytes32 modelRoot) external view returns (bool);
    /// How many models were ever registered.
    function modelsCount() external view returns (uint256);
    /// The root registered as number `index`, from 0.
    function modelAt(uint256 index) external view returns (bytes32);
    /// Wei that a registration must carry.
    function BOND() external view returns (uint256);
    /// Heights between retirement and the bond's return.
    function BOND_DELAY() external view returns (uint64);
}
