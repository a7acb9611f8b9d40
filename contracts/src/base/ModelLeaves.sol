// The leaves of a model that breaks the tensor spec itself: a tensor's type and shape, the bounds of a weight's row. Rules
// T1 to T4: no device loads such a model, so nobody computed what is claimed.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Bytes} from "../libraries/Bytes.sol";
import {Dispute} from "./Published.sol";
import {Openings, Want, WeightPart} from "./Openings.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {StepCall} from "../libraries/StepCall.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// They rest on the claim: no answer of the neuron's is needed. Bounds are executed by TENSOR_STEP.
abstract contract ModelLeaves is Openings {
    using Sites for Site;
    using Wire for Reader;

    uint8 private constant WEIGHT_BOUNDS = 0x12;

    /// A tensor is not of the type or shape that a site reads (kind 16).
    function _tensorIs(Dispute memory d, bytes32 to, Reader memory r) internal view returns (bool right) {
        require(to == d.id, OtherAnswer(to, d.id));
        uint32 site = r.u32();
        uint32 id = r.u32();
        Want[4] memory wants = _needs(d, _site(d, site));
        (, uint256 spot) = _lineOf(d, id, r);
        bool read;
        right = true;
        for (uint256 i = 0; i < 4; ++i) {
            if (wants[i].id != id) continue;
            read = true;
            if (!_fits(wants[i], spot)) right = false;
        }
        require(read, OpeningPresence(site));
    }

    /// A row of a weight holds what no row may, or sums to too much (kind 17). A row has at most 65,536 weights (rule V7),
    /// which one step takes.
    function _rowIs(Dispute memory d, bytes32 to, Reader memory r) internal view returns (bool) {
        require(to == d.id, OtherAnswer(to, d.id));
        uint32 site = r.u32();
        Site memory s = _site(d, site);
        WeightPart memory w;
        (w.n, w.k) = _weightShape(d, s);
        require(w.n != 0, WrongOp(site, s.op()));
        w.row = r.u32();
        w.end = w.k;
        (bytes memory ws, bytes memory mults) = _weights(d, site, s, w, r);
        bytes memory head = abi.encodePacked(
            WEIGHT_BOUNDS, mults.length == 0 ? bytes1(0) : bytes1(0x01), Bytes.le32(ws.length)
        );
        // The fault, 0 where there is none, and the sum.
        return StepCall.run(bytes.concat(head, ws, mults), 9)[0] == 0;
    }

    /// Rows and columns of a site's weight; 0 where it has none.
    function _weightShape(Dispute memory d, Site memory s) private pure returns (uint256 n, uint256 k) {
        if (s.op() == Sites.EMBED) return (d.model.vocab, d.model.dModel);
        if (s.op() == Sites.POS_EMBED) return (d.model.context, d.model.dModel);
        if (s.op() == Sites.LINEAR) return (s.param(0), s.param(1));
    }

    /// The tensors that a site reads; what it does not read is NONE.
    function _needs(Dispute memory d, Site memory s) private pure returns (Want[4] memory wants) {
        uint32 op = s.op();
        for (uint256 i = 0; i < 4; ++i) {
            wants[i].id = Sites.NONE;
        }
        (uint256 n, uint256 k) = _weightShape(d, s);
        if (n != 0) {
            wants[0] = Want(s.tensor(0), I8, n, k, 0, 0);
            wants[1] = Want(s.tensor(1), SCALE, 1, n, 0, 0);
            wants[2] = Want(s.tensor(2), U8, n, k / 32, 0, 0);
            wants[3] = Want(s.tensor(3), I32, 1, n, 0, 0);
        } else if (op == Sites.ROPE) {
            wants[0] = Want(s.tensor(0), I16, d.model.context, s.param(0), 0, 0);
        } else if (op == Sites.RMS_NORM || op == Sites.LAYER_NORM) {
            wants[0] = Want(s.tensor(0), I32, 1, s.param(3), 0, 0);
            if (op == Sites.LAYER_NORM) wants[3] = Want(s.tensor(3), I32, 1, s.param(3), 0, 0);
        }
    }
}
