"""The language model: any Llama-architecture causal LM of transformers, packed training, cached decoding.

Shapes: T tokens of all dialogues end to end, B dialogues, D width, V vocabulary, n targets.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from omnichat.batch import SharedPrefix
from omnichat.models.quantization import keep_packing, quantization_options

Forced = Callable[[Sequence[int]], int | None]
PACKED = "omnichat_packed"
LOSS_ROWS = 1024  # logits held at a time: 1024 x 128,256 x (2 + 4) bytes = 0.8 GB for Llama-3

# torch 2.10 says is_causal where later versions say window_size, and 2.12 learnt grouped heads.
_VARLEN_OPTIONS = inspect.signature(varlen_attn).parameters
_VARLEN_CAUSAL: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in _VARLEN_OPTIONS else {"is_causal": True}
_VARLEN_GROUPED = "enable_gqa" in _VARLEN_OPTIONS


def load_llm(
    folder: Path | str, dtype: torch.dtype = torch.float32, quantization: str | None = None, accelerator: str = "auto"
) -> LlamaForCausalLM:
    """A frozen language model from a local Hugging Face folder; nothing is downloaded.

    Its attention understands packed input (`packed_hidden`), and the usual padding masks.

    Args:
        folder: of config, tokenizer and safetensors.
        dtype: of the weights; of what is computed with them where they are quantised.
        quantization: `nf4` for weights of 4 bits, see `omnichat.models.quantization`.
        accelerator: of the trainer: where quantised weights are made.

    Raises:
        ValueError: weights cannot be quantised here; the folder, config, tokenizer or weights are missing or damaged,
            the weights do not fit the config, the tokenizer does not fit the model, or the architecture is not
            Llama's; names the file and the cure.
    """
    folder = Path(folder)
    _check_folder(folder)
    options = quantization_options(dtype, accelerator) if quantization is not None else {}
    try:
        loaded: Any = LlamaForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=PACKED,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # only to hear all faults at once; they are refused below
            output_loading_info=True,
            **options,
        )
        tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    except Exception as error:  # three libraries, each with kinds of its own; tokenizers raises plain Exception
        raise ValueError(f"{folder}: cannot be loaded ({error}); copy the model's folder again") from None
    llm: LlamaForCausalLM
    llm, info = loaded
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    wrong = [f"{kind.replace('_', ' ')}: {', '.join(sorted(map(str, info[kind])))}" for kind in kinds if info[kind]]
    if wrong:
        raise ValueError(f"{folder}: the weights do not fit config.json: {'; '.join(wrong)}")
    if tokens > llm.config.vocab_size:
        raise ValueError(
            f"{folder}: tokenizer.json knows {tokens} tokens, the model {llm.config.vocab_size}; "
            "use the tokenizer that belongs to the model"
        )
    keep_packing(llm)
    return llm.requires_grad_(False).eval()


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; point model.llm.checkpoint to the Hugging Face folder of a Llama")
    needed = (("config.json",), ("tokenizer.json",), ("model.safetensors", "model.safetensors.index.json"))
    missing = [" or ".join(names) for names in needed if not any((folder / name).is_file() for name in names)]
    if missing:
        raise ValueError(f"{folder}: lacks {', '.join(missing)}; copy the model's whole folder")
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'}: is not a JSON object ({error}); copy it again") from None
    if kind != "llama":
        raise ValueError(f"{folder}: model_type is {kind!r}; only the Llama architecture ('llama') is supported")


def add_lora(
    llm: nn.Module, rank: int, alpha: float, dropout: float = 0.0, targets: Sequence[str] = ("q_proj", "v_proj")
) -> None:
    """Add LoRA to the named linear layers of `llm` in place; the adapters become its only trainable parameters.

    Adapters are kept in float32 whatever the model's dtype: AdamW's small steps vanish in bfloat16.

    Raises:
        ValueError: `rank` below 1, or a name that no linear layer has; PEFT itself passes over those in silence as long
            as one matches.
    """
    # The output layer stays frozen: `target_losses` counts on it.
    linear = {name.rpartition(".")[2] for name, module in llm.named_modules() if isinstance(module, nn.Linear)}
    known = sorted(linear - {"lm_head"})
    unknown = sorted(set(targets) - set(known))
    if unknown or not targets:
        raise ValueError(
            f"LoRA targets {', '.join(unknown) or '(none)'}: the model's linear layers are {', '.join(known)}"
        )
    scale: Any = alpha  # PEFT says int, and divides it by the rank
    config = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=list(targets), bias="none")
    inject_adapter_in_model(config, llm)
    for name, parameter in llm.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def packed_hidden(
    llm: LlamaForCausalLM,
    embeds: Tensor,
    positions: Tensor,
    starts: Tensor,
    max_length: int,
    compiled: bool = False,
    shared: SharedPrefix | None = None,
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
    """
    if shared is not None:
        embeds, positions = embeds.index_select(0, shared.kept), positions.index_select(0, shared.kept)
    hidden, places = embeds[None].clone(), positions[None]  # a view would be compiled apart from what follows it
    rotary = llm.model.rotary_emb(hidden, position_ids=places)
    run = _compiled_layer() if compiled else _layer
    for layer in llm.model.layers:
        hidden = run(layer, hidden, places, rotary, starts, max_length, shared)
    last: Tensor = llm.model.norm(hidden)
    return last[0] if shared is None else last[0].index_select(0, shared.places)


def _layer(
    layer: nn.Module,
    hidden: Tensor,
    places: Tensor,
    rotary: tuple[Tensor, Tensor],
    starts: Tensor,
    max_length: int,
    shared: SharedPrefix | None = None,
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
    )


@lru_cache(maxsize=1)
def _compiled_layer() -> Callable[..., Tensor]:
    # A function of the layer instead of each layer: what is compiled for the first serves all.
    return torch.compile(_layer, dynamic=True)


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


class _FrozenHeadCrossEntropy(torch.autograd.Function):
    """Cross entropy behind a frozen output layer, a few rows of logits at a time.

    Each row's gradient is a scalar times softmax(logits) - onehot, taken back through the layer, so it is computed
    while the logits are at hand; what is kept for the backward is (n, D) instead of (n, V).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, compiled: bool) -> Tensor:
        losses, gradients = [], []
        for rows, wanted in zip(hidden.split(LOSS_ROWS), targets.split(LOSS_ROWS), strict=True):
            logits = F.linear(rows, weight)
            if compiled and ctx.needs_input_grad[0]:
                loss, gradient = _compiled_softmax_error()(logits, wanted)
                losses.append(loss)
                gradients.append((gradient.to(weight.dtype) @ weight).to(hidden.dtype))
                continue
            logits = logits.float()
            normaliser = logits.logsumexp(-1, keepdim=True)
            losses.append((normaliser - logits.gather(1, wanted[:, None]))[:, 0])
            if ctx.needs_input_grad[0]:
                gradient = logits.sub_(normaliser).exp_()
                gradient.scatter_add_(1, wanted[:, None], gradient.new_full((len(wanted), 1), -1.0))
                gradients.append((gradient.to(weight.dtype) @ weight).to(hidden.dtype))
        ctx.save_for_backward(*gradients)
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        gradient = torch.cat(ctx.saved_tensors)
        return gradient * upstream[0][:, None].to(gradient.dtype), None, None, None


def _softmax_error(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, V), targets (n,) -> losses (n,) in float32, softmax - onehot (n, V) in the logits' dtype.

    Written to be compiled into a pass or two over the logits.
    """
    values = logits.float()
    normaliser = values.logsumexp(-1, keepdim=True)
    hit = torch.arange(logits.shape[1], device=logits.device) == wanted[:, None]
    losses = normaliser[:, 0] - values.masked_fill(~hit, 0.0).sum(-1)
    return losses, ((values - normaliser).exp() - hit.float()).to(logits.dtype)


@lru_cache(maxsize=1)
def _compiled_softmax_error() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return torch.compile(_softmax_error, dynamic=True)


def target_losses(llm: LlamaForCausalLM, hidden: Tensor, targets: Tensor, compiled: bool = False) -> Tensor:
    """Cross entropy (n,) in float32 of targets (n,), each predicted from its hidden state (n, D)."""
    weight = llm.lm_head.weight
    assert not weight.requires_grad, "the output layer is frozen; its own gradient is not computed here"
    losses: Tensor = _FrozenHeadCrossEntropy.apply(hidden, weight, targets, compiled)  # type: ignore[no-untyped-call]
    return losses


class Session:
    """Dialogues decoded side by side, their keys and values kept: what was read once is not read again.

    Rows of different length are padded on the left and masked, so that every row gets what it would get alone.
    """

    def __init__(self, llm: LlamaForCausalLM) -> None:
        self.llm = llm
        self.cache = DynamicCache(config=llm.config)
        self.mask: Tensor | None = None  # (B, cached tokens): 0 at padding

    @property
    def length(self) -> int:
        """Positions that the cache holds, padding included."""
        return self.cache.get_seq_length()

    @torch.no_grad()
    def extend(self, embeds: Sequence[Tensor]) -> Tensor:
        """Read on: embeddings (T, D) for each of the B rows, T >= 1 -> logits (B, V) of what comes next, float32."""
        lengths = torch.tensor([len(row) for row in embeds], device=embeds[0].device)
        padded = pad_sequence(list(embeds), batch_first=True, padding_side="left").to(self.llm.dtype)
        mask = (torch.arange(padded.shape[1], device=padded.device) >= padded.shape[1] - lengths[:, None]).long()
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], dim=1)
        output = self.llm.model(
            inputs_embeds=padded,
            attention_mask=self.mask,
            position_ids=(self.mask.cumsum(1) - 1).clamp(min=0)[:, -padded.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
        )
        return self.llm.lm_head(output.last_hidden_state[:, -1]).float()

    @torch.no_grad()
    def reply(
        self, embeds: Sequence[Tensor], max_new_tokens: int, stop_id: int, forced: Forced | None = None
    ) -> list[list[int]]:
        """Read on, then write the likeliest token at each step, up to and with `stop_id` or `max_new_tokens`.

        `forced` may name the next token of a reply instead, from what is written of it (see `Prompt.forced`).
        The last token written by the longest row is not in the cache yet: a dialogue goes on with `extend` from it.
        """
        written: list[list[int]] = [[] for _ in embeds]
        logits = self.extend(embeds)
        while True:
            tokens = logits.argmax(-1)
            if forced is not None:
                named = [forced(row) for row in written]
                chosen = [own if must is None else must for own, must in zip(tokens.tolist(), named, strict=True)]
                tokens = tokens.new_tensor(chosen)
            for row, token in zip(written, tokens.tolist(), strict=True):
                if not row or row[-1] != stop_id:
                    row.append(token)
            if len(max(written, key=len)) >= max_new_tokens or all(row[-1] == stop_id for row in written):
                return written
            logits = self.extend(list(self.llm.model.embed_tokens(tokens)[:, None]))
