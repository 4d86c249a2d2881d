"""What a decoder's sizes mean: parameters, KV bytes, FLOPs, activation bytes. Pure arithmetic, without torch.

Everything here is checked against torch's own counters on small models (tests/planner/test_shapes.py) and against the
paper's figures (paper section 2, docs/planning.md): 1,777,088,000 parameters and 28,672 bytes of KV a token.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs.config.names import is_hub_name
from openrs.config.schema import Model, ToyModel
from openrs.config.yaml_lines import read_yaml
from openrs.errors import UserError
from openrs.hub.cache import hub_cache
from openrs.outside import read_json

TABLE = Path(__file__).with_name("shapes.yaml")
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
SIZES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
DEMO_TOKENS = 263  # the demo's tokenizer: 256 bytes and seven special ones (openrs/training/demo_model.py)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder-only transformer with gated MLP, RMSNorm and grouped-query attention."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    qkv_bias: bool = True
    qk_norm: bool = False

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Weights of one layer that a token is multiplied with: q, k, v, o, gate, up, down."""
        attention = 2 * self.hidden * self.query_width + 2 * self.hidden * self.kv_width
        return attention + 3 * self.hidden * self.intermediate

    @property
    def head(self) -> int:
        """Weights of the LM head (and of the embedding)."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        bias = self.query_width + 2 * self.kv_width if self.qkv_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        layers = self.layers * (self.layer_matrices + bias + norms)
        return layers + self.hidden + self.head * (1 if self.tied else 2)

    @property
    def read_per_token(self) -> int:
        """Weights read for every decoded token: all but the embedding table, of which one row is taken."""
        return self.layers * self.layer_matrices + self.head

    def lora_parameters(self, rank: int) -> int:
        """Weights of rank-`rank` adapters on all linear layers but the LM head (peft's all-linear)."""
        attention = 2 * (self.hidden + self.query_width) + 2 * (self.hidden + self.kv_width)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))

    def kv_bytes(self, element: int = 2) -> int:
        """Bytes of KV cache per token: key and value of every layer, `element` bytes each."""
        return 2 * self.layers * self.kv_width * element

    def layer_flops(self, tokens: float, context: float) -> float:
        """FLOPs of all layers, forward: 2 per weight and token, and attention's QK and AV with `context` keys a token.

        context is the mean number of keys a query is multiplied with: half the length for a causal kernel, the whole
        length where the mask is a tensor.
        """
        return tokens * self.layers * (2 * self.layer_matrices + 4 * self.query_width * context)

    def head_flops(self, tokens: float) -> float:
        return 2.0 * tokens * self.head

    def training_flops(
        self,
        tokens: float,
        context: float,
        head_tokens: float,
        *,
        checkpointing: bool,
        reference: bool,
        fused: bool,
        kept: float = 0.0,
    ) -> float:
        """FLOPs of one GRPO micro-batch: forward, backward (twice forward), recomputation, reference forward.

        Recomputation (torch's non-reentrant checkpointing) stops before each layer's down projection, whose output
        nobody needs. fused: TRL's chunked LM head, which keeps no logits and makes them again in the backward.
        kept: share of the layers that keep their matrix products and attention (openrs.training.recompute).
        """
        layers, head = self.layer_flops(tokens, context), self.head_flops(head_tokens)
        total = 3 * (layers + head)
        if checkpointing:
            total += (1 - kept) * (layers - 2.0 * tokens * self.layers * self.hidden * self.intermediate)
        if fused:
            total += head
        return total + (layers + head if reference else 0.0)

    def saved_per_layer(self, element: int) -> int:
        """Bytes per token that autograd keeps for one layer's backward (SDPA or flash attention), `element` bytes each.

        Two norms keep their fp32 input, their output before the weight and a scalar; the linear layers keep the two
        normed inputs; attention keeps q, k, v, its output and a log-sum-exp; the MLP keeps four wide tensors.
        """
        norms = 2 * (self.hidden * (4 + element) + 4)
        if self.qk_norm:  # the same again for queries and keys, and their inputs to the rotation
            norms += (self.query_width + self.kv_width) * (4 + element) + 4 * (self.heads + self.kv_heads)
        attention = 2 * (self.query_width + self.kv_width) * element + 4 * self.heads
        return norms + (2 * self.hidden + 4 * self.intermediate) * element + attention

    def kept_per_layer(self, element: int) -> int:
        """Bytes per token, besides its input, of a layer that keeps matrix products and attention under checkpointing.

        q, k, v, attention's output with its log-sum-exp, and the outputs of the output, gate and up projections; not
        the down projection's, which nobody needs.
        """
        widths = 2 * (self.query_width + self.kv_width) + self.hidden + 2 * self.intermediate
        return widths * element + 4 * self.heads

    def saved_bytes(self, sequences: int, length: int, element: int, *, checkpointing: bool) -> int:
        """Bytes that autograd holds after the forward of `sequences` x `length` tokens, LM head not included.

        With gradient checkpointing each layer keeps only its input.
        """
        tokens = sequences * length
        per_layer = self.hidden * element if checkpointing else self.saved_per_layer(element)
        last_norm = self.hidden * (4 + element) + 4
        rotation = 0 if checkpointing else 2 * length * self.head_dim * element
        return tokens * (self.layers * per_layer + last_norm + 8) + rotation  # 8: the token ids

    def layer_workspace(self, sequences: int, length: int, element: int, *, checkpointing: bool) -> int:
        """Bytes of one layer's backward beyond saved_bytes: the wide tensors' gradients, and what is recomputed."""
        recomputed = self.saved_per_layer(element) if checkpointing else 0
        return sequences * length * (recomputed + 3 * self.intermediate * element)


def shape_of(model: Model, cache: Path | None = None) -> Shape:
    """The sizes of a recipe's model: of the demo's, of a known name, of a folder's config.json, of a fetched model's.

    Raises UserError when nothing on this machine knows them, or config.json is broken or of an unknown kind.
    """
    if model.toy is not None:
        return toy_shape(model.toy)
    folder = Path(model.name)
    if folder.is_dir():
        return read_config(folder / "config.json")
    if model.name in _table():
        return from_config(_table()[model.name], TABLE.name)
    if is_hub_name(model.name) and model.revision is not None:
        config = hub_cache(cache) / f"models--{model.name.replace('/', '--')}/snapshots/{model.revision}/config.json"
        if config.is_file():
            return read_config(config)
    raise UserError(
        f"the sizes of model {model.name} are not known here",
        "it is neither in the planner's table, nor a folder with a config.json, nor in the cache",
        "fetch it first (openrs fetch RECIPE), or give model.name as a folder",
    )


@functools.cache
def _table() -> dict[str, Any]:
    return read_yaml(TABLE)[0]


def toy_shape(toy: ToyModel) -> Shape:
    """The demo's model (openrs/training/demo_model.py): a Qwen2 with as many KV heads as heads, and tied embeddings."""
    return Shape(
        hidden=toy.hidden, layers=toy.layers, heads=toy.heads, kv_heads=toy.heads,
        head_dim=toy.hidden // toy.heads, intermediate=toy.hidden * 8 // 3, vocab=DEMO_TOKENS, tied=True,
    )  # fmt: skip


def read_config(path: Path) -> Shape:
    return from_config(read_json(path, "give a model folder that holds its config.json"), str(path))


def from_config(config: Any, where: str) -> Shape:
    """Sizes from a config.json. Raises UserError naming the field that is missing, wrong or of an unknown model
    type."""
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in FAMILIES:
        raise UserError(
            f"{where}: model_type is {kind!r}",
            f"the planner counts {', '.join(FAMILIES)}",
            "take a model of these",
        )
    sizes = {}
    for field, name in SIZES.items():
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{where}: {name} is {value!r}, not a number of at least 1", fix="copy the file again")
        sizes[field] = value
    return Shape(
        **sizes,
        kv_heads=config.get("num_key_value_heads") or sizes["heads"],
        head_dim=config.get("head_dim") or sizes["hidden"] // sizes["heads"],
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
        qk_norm=kind == "qwen3",
    )
