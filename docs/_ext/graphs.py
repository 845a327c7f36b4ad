"""The shipped segmenter as ONNX, in parts, so that the playground can change what lies between them.

One graph is the tower; each stage has one that takes NGA's weights as an input. Their sum is the page's to make.
"""

import base64
import hashlib
import json
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import cascadeclip
from cascadeclip.model.cascade import CascadeCLIP, weighted_sum

PACKAGE = Path(cascadeclip.__file__).parent
WEIGHTS = "weights"  # what graphs call the file that the page gives them


class Tower(nn.Module):
    """Picture -> what the stages read. B = 1."""

    def __init__(self, model: CascadeCLIP):
        super().__init__()
        self.encoder, self.stages = model.encoder, model.config.stages

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """image (1, 3, H, W) float32, normalised -> blocks (d, 1, N, E) of each stage, and g (1, E)."""
        read = self.encoder(image)
        return *(torch.stack([read.features[block] for block in stage]) for stage in self.stages), read.image_embedding


class Stage(nn.Module):
    """One stage, NGA's weights given with its blocks."""

    def __init__(self, model: CascadeCLIP, stage: int):
        super().__init__()
        self.describe, self.decode = (
            parts[stage % len(parts)] for parts in (model.descriptors, model.decoders)
        )  # its own, or the one that all share

    def forward(self, blocks: Tensor, weights: Tensor, image_embedding: Tensor, text: Tensor) -> Tensor:
        """blocks (d, 1, N, E), weights (d,), g (1, E), text (C, E), centred -> mask logits (1, C, N)."""
        tokens = weighted_sum(weights, list(blocks.unbind(0)))
        return self.decode(self.describe(text, image_embedding), tokens)


def export(model: CascadeCLIP) -> dict[str, dict[str, str]]:
    """The model as ONNX, `graph` and `weights` each in base64: `tower`, and `stage_1` and so on."""
    tower, stages = model.config.tower, model.config.stages
    names = [f"blocks_{number}" for number in range(1, len(stages) + 1)]
    image = torch.zeros(1, 3, tower.image_size, tower.image_size)
    found = {"tower": _graph(Tower(model), {"image": image}, [*names, "image_embedding"])}
    patches = (tower.image_size // tower.patch_size) ** 2
    for stage, blocks in enumerate(stages):
        inputs = {
            "blocks": torch.randn(len(blocks), 1, patches, tower.embed_dim),
            "weights": torch.ones(len(blocks)),
            "image_embedding": torch.randn(1, tower.embed_dim),
            "text": torch.randn(5, tower.embed_dim),
        }
        found[f"stage_{stage + 1}"] = _graph(Stage(model, stage), inputs, ["mask_logits"])
    return found


def _graph(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> dict[str, str]:
    """One module as ONNX, for any number of classes in `text`."""
    shapes = {name: {0: torch.export.Dim("classes")} if name == "text" else {} for name in inputs}
    given = tuple(inputs.values())
    program = torch.export.export(module.eval(), given, dynamic_shapes=shapes)
    exported = torch.onnx.export(
        program, given, dynamo=True, dynamic_shapes=shapes, input_names=list(inputs), output_names=outputs,
        verbose=False,
    )  # fmt: skip
    assert exported is not None  # it is only None without `dynamo`
    return _split(exported.model_proto)


def _split(proto: onnx.ModelProto) -> dict[str, str]:
    """The graph without what the exporter tells of its making, and its weights: float16, as shipped, so half the bytes.

    The page makes float32 of them, which is what the graph expects at the places that it names.
    """
    graph, weights, end = proto.graph, [], 0
    for place in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        place.ClearField("doc_string")
        place.ClearField("metadata_props")
    graph.ClearField("value_info")
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 64 or not np.array_equal(half := values.astype("<f2"), values):
            continue  # what is not to be halved stays in the graph
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS), ("offset", end), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(half.tobytes())
        end += values.nbytes
    return {"graph": text(proto.SerializeToString()), "weights": text(b"".join(weights))}


def text(content: bytes) -> str:
    """base64."""
    return base64.b64encode(content).decode()


def key() -> str:
    """What the graphs follow from, in a few letters."""
    files = [Path(__file__), *sorted(PACKAGE.glob("model/*.py")), *sorted(PACKAGE.glob("assets/**/*.safetensors"))]
    versions = [torch.__version__, onnx.__version__, metadata.version("onnxscript")]
    digest = hashlib.sha256(json.dumps(versions).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
