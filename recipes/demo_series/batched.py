"""Qwen2.5-VL's forward pass for training: the arithmetic of transformers, several times faster.

On a CPU, transformers attends to one image at a time, and it repeats a prompt that all rows share.
Here all images have one size and go through the vision tower at once, and the text before the image
is computed once per batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """Cosines and sines of rotary positions, each of shape (positions, head width)."""

    cosine: Tensor
    sine: Tensor

    def __getitem__(self, part: slice | Tensor) -> "Rotation":
        return Rotation(self.cosine[part], self.sine[part])

    def applied(self, states: Tensor) -> Tensor:
        """Rotate states of shape (..., positions, head width)."""
        half = states.shape[-1] // 2
        turned = torch.cat((-states[..., half:], states[..., :half]), -1)
        return states * self.cosine + turned * self.sine


def image_features(visual: Any, patches: Tensor) -> Tensor:
    """The tokens, (images, tokens, width), of square images that fit one attention window.

    `patches` has shape (images, patches, values), in the order of the image processor, with the
    values of one frame: the processor repeats a still image as its second frame.
    """
    n_images, n_patches, _ = patches.shape
    kernel = visual.patch_embed.proj.weight.sum(2).flatten(1)
    states = functional.linear(patches, kernel)
    turn = _patch_rotation(visual, round(n_patches**0.5))
    for block in visual.blocks:
        normal = block.norm1(states)
        shape = (n_images, n_patches, 3, block.attn.num_heads, -1)
        query, key, value = block.attn.qkv(normal).view(shape).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(
            turn.applied(query), turn.applied(key), value
        )
        states = states + block.attn.proj(mixed.transpose(1, 2).flatten(2))
        states = states + block.mlp(block.norm2(states))
    merged = visual.spatial_merge_size**2
    normal = visual.merger.ln_q(states)
    tokens: Tensor = visual.merger.mlp(normal.view(n_images, n_patches // merged, -1))
    return tokens


def _patch_rotation(visual: Any, edge: int) -> Rotation:
    """Rotary positions of a square image's patches, in the order of the image processor."""
    merge = visual.spatial_merge_size
    rows = torch.arange(edge)[:, None].expand(edge, edge)
    angles_by_axis = []
    for axis in (rows, rows.T):
        blocks = axis.reshape(edge // merge, merge, edge // merge, merge).permute(0, 2, 1, 3)
        angles_by_axis.append(blocks.flatten()[:, None] * visual.rotary_pos_emb.inv_freq)
    angles = torch.cat((*angles_by_axis, *angles_by_axis), -1)
    return Rotation(angles.cos(), angles.sin())


def text_rotation(language: Any, positions: Tensor) -> Rotation:
    """Rotary positions of a text with images; `positions`, (3, n), are time, height and width."""
    sections = language.config.rope_parameters["mrope_section"]
    angles = positions[..., None].float() * language.rotary_emb.inv_freq
    parts = [part[axis] for axis, part in enumerate(angles.split(sections, -1))]
    both = torch.cat((*parts, *parts), -1)
    return Rotation(both.cos(), both.sin())


def last_states(
    language: Any, prefix: Tensor, rest: Tensor, turn: Rotation, wanted: Tensor
) -> Tensor:
    """The last hidden states at the positions `wanted` of `rest`: (rows, wanted, width).

    `prefix` are the embeddings that all rows share, (1, prefix, width); `rest` are those that
    follow, (rows, rest, width).
    """
    n_prefix, n_rest = prefix.shape[1], rest.shape[1]
    seen = torch.ones(n_rest, n_prefix + n_rest, dtype=torch.bool).tril(n_prefix)
    queried = torch.arange(n_rest)
    for layer in language.layers:
        is_last = layer is language.layers[-1]
        early = _projected(layer, prefix, turn[:n_prefix])
        late = _projected(layer, rest, turn[n_prefix:])
        key, value = (
            torch.cat((one.expand(len(rest), -1, -1, -1), other), 2)
            for one, other in zip(early[1:], late[1:], strict=True)
        )
        query = late[0]
        if is_last:
            # nothing reads the other positions of the last layer
            queried, query, rest = wanted, query[:, :, wanted], rest[:, wanted]
        rest = _mixed(layer, rest, query, key, value, seen[queried])
        if not is_last:
            causal = torch.ones(n_prefix, n_prefix, dtype=torch.bool).tril()
            prefix = _mixed(layer, prefix, *early, causal)
    normed: Tensor = language.norm(rest)
    return normed


def _projected(layer: Any, states: Tensor, turn: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each of shape (rows, heads, positions, head width)."""
    attention, normal = layer.self_attn, layer.input_layernorm(states)
    width = turn.cosine.shape[-1]
    query, key, value = (
        projection(normal).unflatten(-1, (-1, width)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return turn.applied(query), turn.applied(key), value


def _mixed(
    layer: Any, states: Tensor, query: Tensor, key: Tensor, value: Tensor, seen: Tensor
) -> Tensor:
    """The layer's output at the queries; `states` are their inputs."""
    group = query.shape[1] // key.shape[1]
    mixed = functional.scaled_dot_product_attention(
        query,
        key.repeat_interleave(group, 1),
        value.repeat_interleave(group, 1),
        attn_mask=seen,
    )
    states = states + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    output: Tensor = states + layer.mlp(layer.post_attention_layernorm(states))
    return output
