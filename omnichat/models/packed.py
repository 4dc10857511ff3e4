"""Dialogues lying end to end in one row of a language model: no padding, and attention only inside each.

Shapes: T tokens of all dialogues end to end, B dialogues, n positions picked of them, D width, d width of a head.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from omnichat.batch import SharedPrefix

PACKED = "omnichat_packed"  # what transformers knows this attention by

# torch 2.10 says is_causal where later versions say window_size, and 2.12 learnt grouped heads.
_VARLEN_OPTIONS = inspect.signature(varlen_attn).parameters
_VARLEN_CAUSAL: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in _VARLEN_OPTIONS else {"is_causal": True}
_VARLEN_GROUPED = "enable_gqa" in _VARLEN_OPTIONS


class LastLayer(LlamaDecoderLayer):
    """A Llama's last layer, which can leave out what nobody looks at: behind its attention a position is alone."""

    def forward(self, hidden_states: Tensor, *args: Any, picked: Tensor | None = None, **kwargs: Any) -> Tensor:
        """(1, T, D) -> (1, T, D); of the positions `picked` (n,) alone, in their order: (1, n, D)."""
        if picked is None:
            return super().forward(hidden_states, *args, **kwargs)
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), *args, **kwargs)
        x = (hidden_states + attended).index_select(1, picked)
        added: Tensor = self.mlp(self.post_attention_layernorm(x))
        return x + added


def with_last_layer(llm: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same model, able to compute its last layer for the positions that are asked for only.

    Weights and their names stay as they are. To be called before an engine wraps the layers.
    """
    last: Any = llm.model.layers[-1]
    last.__class__ = LastLayer
    return llm


def packed_hidden(
    llm: LlamaForCausalLM,
    embeds: Tensor,
    positions: Tensor,
    starts: Tensor,
    max_length: int,
    compiled: bool = False,
    shared: SharedPrefix | None = None,
    picked: Tensor | None = None,
) -> Tensor:
    """Last hidden states (T, D) of B dialogues lying end to end; attention never crosses from one to another.

    The layers are called one by one: the model's own forward would look for masks, and for that wait for the device.

    Args:
        llm: from `load_llm`.
        embeds: (T, D).
        positions: (T,), from 0 in each dialogue.
        starts: (B + 1,) int32, cumulative lengths.
        max_length: tokens of the longest dialogue.
        compiled: whether to run the layers through torch.compile, once for all layers and all lengths.
        shared: to compute what the dialogues begin with once, which changes nothing but the time: where they are equal,
            so are their keys, values and hidden states. Not with dropout, which would be drawn once for all.
        picked: (n,) int64, the positions whose hidden states are wanted, (n, D) in their order: the last layer's
            feed-forward is computed for no other. Of a model that went through `with_last_layer`.
    """
    if shared is not None:
        embeds, positions = embeds.index_select(0, shared.kept), positions.index_select(0, shared.kept)
    hidden, places = embeds[None].clone(), positions[None]  # a view would be compiled apart from what follows it
    rotary = llm.model.rotary_emb(hidden, position_ids=places)
    run, run_last = (_compiled_layer(), _compiled_last_layer()) if compiled else (_layer, _last_layer)
    *layers, last = llm.model.layers
    alike = (places, rotary, starts, max_length, shared)
    for layer in layers:
        hidden = run(layer, hidden, *alike)
    assert picked is None or isinstance(last, LastLayer), "the model has to go through with_last_layer"
    wanted = picked if picked is None or shared is None else shared.places.index_select(0, picked)
    hidden = run_last(last, hidden, *alike, picked=wanted)
    found: Tensor = llm.model.norm(hidden)
    return found[0] if shared is None or picked is not None else found[0].index_select(0, shared.places)


def _layer(
    layer: nn.Module,
    hidden: Tensor,
    places: Tensor,
    rotary: tuple[Tensor, Tensor],
    starts: Tensor,
    max_length: int,
    shared: SharedPrefix | None,
    **only: Tensor,
) -> Tensor:
    return layer(
        hidden,
        attention_mask=None,  # no mask and no cache: with either of them the row would be one long dialogue
        position_ids=places,
        position_embeddings=rotary,
        past_key_values=None,
        use_cache=False,
        cu_seq_lens_q=starts if shared is None else shared.query_starts,
        cu_seq_lens_k=starts if shared is None else shared.key_starts,
        max_length_q=max_length,
        max_length_k=max_length,
        shared=shared,
        **only,
    )


def _last_layer(*given: Any, picked: Tensor | None) -> Tensor:
    only: dict[str, Any] = {} if picked is None else {"picked": picked}
    return _layer(*given, **only)


@lru_cache(maxsize=1)
def _compiled_layer() -> Callable[..., Tensor]:
    # A function of the layer instead of each layer: what is compiled for the first serves all.
    return torch.compile(_layer, dynamic=True)


@lru_cache(maxsize=1)
def _compiled_last_layer() -> Callable[..., Tensor]:
    # Compiled apart, so that its kinds of input don't add to the few that one function may have.
    return torch.compile(_last_layer, dynamic=True)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int = 0,
    shared: SharedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each dialogue of a packed row: query (1, heads, T, d), key and value (1, kv heads, T, d).

    A dense block-diagonal mask would cost T x T. Instead: one flash call for all dialogues on CUDA in half precision,
    else a call for each. Without `cu_seq_lens_q` this is transformers' own SDPA attention.

    With fewer queries than keys (`shared`) the last query sees all keys, as flash attention has it.
    """
    if cu_seq_lens_q is None or cu_seq_lens_k is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if shared is not None:
        key, value = (_before_each_dialogue(x, shared) for x in (key, value))
    grouped = query.shape[1] != key.shape[1]
    if _flash_runs_on(value):
        options: dict[str, Any] = dict(_VARLEN_CAUSAL)
        if grouped and _VARLEN_GROUPED:  # before 2.12 the kernel took grouped heads without being told
            options["enable_gqa"] = True
        options |= {"cu_seq_q": cu_seq_lens_q, "cu_seq_k": cu_seq_lens_k, "max_q": max_length_q, "max_k": max_length_q}
        # Under autocast the rotary embedding leaves query and key in float32, which flash kernels refuse.
        rows: Any = [x[0].transpose(0, 1).to(value.dtype).contiguous() for x in (query, key, value)]
        attended: Any = varlen_attn(*rows, **options)
        return attended[None], None
    return _attention_one_by_one(query, key, value, cu_seq_lens_q, cu_seq_lens_k, scaling).transpose(1, 2), None


def _before_each_dialogue(x: Tensor, shared: SharedPrefix) -> Tensor:
    """Keys or values (1, heads, T', d) of the computed row -> of all that is attended to, (1, heads, T' + P B, d)."""
    # Copies first, so that no row is picked twice: the gradients of copies are summed in a fixed order and in float32.
    copies = x[:, :, : shared.length].repeat(1, 1, len(shared.query_starts) - 2, 1)
    return torch.cat([x, copies], dim=2).index_select(2, shared.keys)


def _flash_runs_on(value: Tensor) -> bool:
    return value.is_cuda and value.dtype in (torch.float16, torch.bfloat16)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attention_one_by_one(
    query: Tensor, key: Tensor, value: Tensor, query_starts: Tensor, key_starts: Tensor, scaling: float | None
) -> Tensor:
    """(1, heads, T, d), a call for each dialogue. Not compiled: its loop would be compiled anew for each batch."""
    queries, keys = query_starts.diff().tolist(), key_starts.diff().tolist()
    parts = zip(query.split(queries, dim=2), key.split(keys, dim=2), value.split(keys, dim=2), strict=True)
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    attended = []
    for q, k, v in parts:
        rows, columns = q.shape[2], k.shape[2]
        causal: dict[str, Any] = {"is_causal": True}  # to SDPA: the first query sees the first key only
        if rows != columns:
            causal = {"attn_mask": torch.ones(rows, columns, dtype=torch.bool, device=q.device).tril(columns - rows)}
        attended.append(F.scaled_dot_product_attention(q, k, v, **causal, **options))
    return torch.cat(attended, dim=2)


def packed_mask(q_length: int, kv_length: int, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask for a row without padding, whose attention is causal anyway; else transformers' SDPA mask."""
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, packed_mask)
