// Programs of models, checked against their model roots: types, events, errors and functions.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// A program's own numbers (first leaf of the program's branch), in its order.
struct Dims {
    /// Layers.
    uint32 layers;
    /// Elements of the residual.
    uint32 dModel;
    /// Vocabulary.
    uint32 vocab;
    /// Context.
    uint32 context;
    /// KV heads.
    uint32 kvHeads;
    /// Elements of a head.
    uint32 headDim;
    /// Layers between committed residual rows.
    uint32 stride;
}

/// The other branches of a model root.
struct Branches {
    /// The info leaf.
    bytes32 info;
    /// Number of tensors.
    uint32 tensorCount;
    /// Left child of the top node of the tensors' tree.
    bytes32 tensorsLeft;
    /// Right child.
    bytes32 tensorsRight;
    /// The tokenizer's leaf.
    bytes32 tokenizer;
}

/// What a claim's game needs to know of a program at every move.
struct Model {
    /// Where its sites are kept (`LongBlob`); zero where the program is not in the book.
    address sites;
    /// Layers.
    uint32 layers;
    /// Committed residual rows every so many layers.
    uint32 stride;
    /// Vocabulary.
    uint32 vocab;
    /// Elements of the residual.
    uint32 dModel;
    /// Context.
    uint32 context;
    /// KV heads.
    uint16 kvHeads;
    /// Elements of a head.
    uint16 headDim;
    /// Number of tensors.
    uint32 tensorCount;
    /// Number of sites.
    uint32 siteCount;
    /// First site of layer 0.
    uint32 firstLayerSite;
    /// First site after the last layer.
    uint32 epilogue;
    /// Bytes of the longest row of int32.
    uint32 rowBytes;
}

/// Every program that disputes can be about. It is checked once, by whoever pays for it, and stays for ever.
interface IProgramBook {
    /// A program was checked against its model root.
    event ProgramKept(bytes32 indexed modelRoot, uint32 sites);

    /// Thrown when the program is in the book already.
    error ProgramKnown(bytes32 modelRoot);
    /// Thrown when the records are no whole number of sites, none, or more than fit.
    error BadRecords(uint256 length);
    /// Thrown when program and branches do not give the model root.
    error WrongModelRoot(bytes32 got, bytes32 expected);
    /// Thrown when a number of the program is outside of what the tensor spec takes (rule V1).
    error BadDims();
    /// Thrown when the program has more layers or a unit more sites than a dispute goes through.
    error ProgramTooLarge(uint256 layers, uint256 unitSites);
    /// Thrown when a site reads a later site, or none where it must read one.
    error BadInput(uint256 site, uint32 input);
    /// Thrown when an input is of another kind or width than the op takes.
    error BadShape(uint256 site);
    /// Thrown when a site lies in a layer out of order, or outside the program's layers.
    error BadLayer(uint256 site, uint32 layer);
    /// Thrown when a layer does not cache exactly one row.
    error BadCache(uint32 layer);
    /// Thrown when a layer does not put out exactly one row (rule V4).
    error BadOut(uint32 layer);
    /// Thrown when a record is none that a site of its op has: a word that the op does not use, or a number outside its range.
    error BadRecord(uint256 site);
    /// Thrown when a site names a tensor that the pack does not hold, or none where its op needs one.
    error NoSuchTensor(uint256 site, uint32 tensor);
    /// Thrown when an op has no dispute: an encoder's, or one that the tensor spec does not have.
    error NoDisputeFor(uint256 site, uint32 op);
    /// Thrown when a program ends in an op that puts out nothing a job can ask for.
    error NoAnswer(uint32 op);

    /// Checks a program and keeps it. Anyone.
    /// @param modelRoot the model
    /// @param dims the program's numbers
    /// @param branches the other branches of the root
    /// @param records the sites' records, 104 bytes each (tensor spec, C)
    function keep(bytes32 modelRoot, Dims calldata dims, Branches calldata branches, bytes calldata records)
        external;

    /// A program's numbers; `sites` is zero where it is not in the book.
    function model(bytes32 modelRoot) external view returns (Model memory);
}
