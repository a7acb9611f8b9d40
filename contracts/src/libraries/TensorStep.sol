// TENSOR_STEP without a precompile: one small step of the tensor spec (docs/spec/poc.md, section 9), the third
// implementation beside the reference's and what stands in for the precompile on a chain that has none.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {StepAttention} from "./steps/StepAttention.sol";
import {StepElement} from "./steps/StepElement.sol";
import {Input, NoStep, StepInput} from "./steps/StepInput.sol";
import {StepLinear} from "./steps/StepLinear.sol";
import {StepNorm} from "./steps/StepNorm.sol";
import {StepQuant} from "./steps/StepQuant.sol";
import {StepSample} from "./steps/StepSample.sol";

library TensorStep {
    /// Executes a step: the first byte of `input` is its number, the rest its fields. Reverts with NoStep,
    /// StepLength or StepField for what is no step.
    function execute(bytes memory input) internal pure returns (bytes memory out) {
        Input memory r = StepInput.open(input);
        uint256 family = r.kind >> 4;
        if (family == 1) out = _linear(r);
        else if (family == 2) out = _attention(r);
        else if (family == 3) out = _quant(r);
        else if (family == 4) out = _sample(r);
        else if (family == 5) out = _element(r);
        else if (family == 6) out = _norm(r);
        else revert NoStep(r.kind);
        StepInput.close(r);
    }

    function _linear(Input memory r) private pure returns (bytes memory) {
        if (r.kind == 0x10) return StepLinear.part(r);
        if (r.kind == 0x11) return StepLinear.finish(r);
        if (r.kind == 0x12) return StepLinear.bounds(r);
        revert NoStep(r.kind);
    }

    function _attention(Input memory r) private pure returns (bytes memory) {
        if (r.kind == 0x20) return StepAttention.unit(r);
        if (r.kind == 0x21) return StepAttention.score(r);
        if (r.kind == 0x22) return StepAttention.share(r);
        if (r.kind == 0x23) return StepAttention.sums(r);
        if (r.kind == 0x24) return StepAttention.finish(r);
        revert NoStep(r.kind);
    }

    function _quant(Input memory r) private pure returns (bytes memory) {
        if (r.kind == 0x30) return StepQuant.magnitude(r);
        if (r.kind == 0x31) return StepQuant.scale(r);
        if (r.kind == 0x32) return StepQuant.element(r);
        revert NoStep(r.kind);
    }

    function _sample(Input memory r) private pure returns (bytes memory) {
        if (r.kind == 0x40) return StepSample.probability(r);
        if (r.kind == 0x41) return StepSample.idSums(r);
        if (r.kind == 0x42) return StepSample.idTotal(r);
        if (r.kind == 0x43) return StepSample.draw(r);
        if (r.kind == 0x44) return StepSample.greedy(r);
        revert NoStep(r.kind);
    }

    function _element(Input memory r) private pure returns (bytes memory) {
        if (r.kind == 0x50) return StepElement.embed(r);
        if (r.kind == 0x51) return StepElement.add(r);
        if (r.kind == 0x52) return StepElement.glu(r);
        if (r.kind == 0x53) return StepElement.act(r);
        if (r.kind == 0x54) return StepElement.rope(r);
        if (r.kind == 0x55) return StepElement.kvRecord(r);
        revert NoStep(r.kind);
    }

    function _norm(Input memory r) private pure returns (bytes memory) {
        if (r.kind == 0x60) return StepNorm.squares(r);
        if (r.kind == 0x61) return StepNorm.rmsElement(r);
        if (r.kind == 0x62) return StepNorm.sum_(r);
        if (r.kind == 0x63) return StepNorm.centred(r);
        if (r.kind == 0x64) return StepNorm.centredSquares(r);
        if (r.kind == 0x65) return StepNorm.layerElement(r);
        if (r.kind == 0x66) return StepNorm.poolMean(r);
        revert NoStep(r.kind);
    }
}
